//! The first packet of a connection: virtual server, member, source address and port, flow.

use crate::address::{Address, Mac};
use crate::config::ids::{LinkId, MemberId, PortId, VirtualId};
use crate::config::snapshot::{Snat, SourcePort, Timeouts, Virtual, VirtualKind};
use crate::flow::table::{FlowId, InsertError};
use crate::flow::tcp_track::TcpState;
use crate::flow::{Direction, Flow, flow_flag};
use crate::frame::Frame;
use crate::lb::{Request, View};
use crate::neighbor::NeighborRef;
use crate::outgoing::Outgoing;
use crate::packet::emit::IcmpError;
use crate::packet::parse::{Class, Packet, tcp_flag};
use crate::persist::select::Chooser;
use crate::pipeline::{Fate, Pipeline, segment_of};
use crate::route::NextHop;
use crate::snat::ports::Pair;
use crate::snat::steer::endpoint_hash;
use crate::verdict::DropReason;

/// The server's side of a new connection.
struct Selection {
    member_id: MemberId,
    member: (Address, u16),
    source: (Address, u16),
    has_snat_port: bool,
    neighbor: NeighborRef,
}

/// Where a connection goes, before its source is chosen.
struct Target {
    member_id: MemberId,
    address: Address,
    port: u16,
}

impl Pipeline {
    /// A packet of no known flow: opens one, or refuses it.
    #[cold]
    pub(crate) fn first_packet(
        &mut self,
        port: PortId,
        frame: &mut Frame,
        packet: &Packet,
        out: &mut Outgoing,
    ) -> Fate {
        let link = LinkId::new(port, packet.vlan);
        if packet.class == Class::Other {
            if !self.snapshot.parts().settings.reject_unmatched {
                return self.dropped(DropReason::UnknownProtocol, VirtualId::NONE);
            }
            let error = IcmpError::ProtocolUnreachable;
            return self.refuse_with_icmp(port, frame, packet, DropReason::UnknownProtocol, error, out);
        }
        let snapshot = std::sync::Arc::clone(&self.snapshot);
        let matched = snapshot.match_virtual(&packet.key, link);
        let matched = matched.filter(|item| snapshot.may_take(item, packet.key.dst));
        let owner = self.owner(matched, packet);
        if owner != self.worker {
            return Fate::HandOver(owner);
        }
        let Some(virtual_server) = matched else {
            return self.refuse(port, frame, packet, DropReason::NoVirtual, VirtualId::NONE, out);
        };
        match self.open(virtual_server, link, frame, packet) {
            Ok(id) => self.forward(port, frame, packet, id, Direction::FromClient, out),
            Err(reason) => self.refuse(port, frame, packet, reason, virtual_server.id, out),
        }
    }

    /// Opens a flow through `virtual_server`.
    ///
    /// # Errors
    /// Why not; nothing is left behind.
    fn open(
        &mut self,
        virtual_server: &Virtual,
        link: LinkId,
        frame: &Frame,
        packet: &Packet,
    ) -> Result<FlowId, DropReason> {
        self.admit(virtual_server, packet)?;
        let target = self.target(virtual_server, packet)?;
        let hop = self.snapshot.route(target.address).ok_or(DropReason::NoRoute)?;
        let neighbor = self.neighbors.resolve(hop, self.now)?;
        let (source, has_snat_port) = self.source(virtual_server, packet, &target, hop)?;
        let selection = Selection {
            member_id: target.member_id,
            member: (target.address, target.port),
            source,
            has_snat_port,
            neighbor,
        };
        let flow = self.new_flow(virtual_server, link, frame, packet, &selection);
        self.take_in(flow).inspect_err(|_| self.give_back_port(&flow))
    }

    /// Whether `virtual_server` takes a new connection that begins with this packet.
    fn admit(&mut self, virtual_server: &Virtual, packet: &Packet) -> Result<(), DropReason> {
        if !virtual_server.enabled {
            return Err(DropReason::VirtualDisabled);
        }
        if virtual_server.kind == VirtualKind::Reject {
            return Err(DropReason::Rejected);
        }
        if packet.class == Class::Tcp && packet.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) != tcp_flag::SYN {
            return Err(DropReason::NoFlow);
        }
        if self.draining {
            return Err(DropReason::Draining);
        }
        let limit = u64::from(virtual_server.connection_limit);
        let current = self.counters.of_virtual(virtual_server.id).map_or(0, |c| c.connections.current.load());
        if limit != 0 && current >= limit { Err(DropReason::ConnectionLimit) } else { Ok(()) }
    }

    /// The member, or the packet's own destination when the virtual server only forwards.
    fn target(&mut self, virtual_server: &Virtual, packet: &Packet) -> Result<Target, DropReason> {
        let own = Target { member_id: MemberId::NONE, address: packet.key.dst, port: packet.key.dst_port };
        let Some(pool_id) = virtual_server.pool else { return Ok(own) };
        let pool = self.snapshot.pool(pool_id).ok_or(DropReason::NoMember)?;
        let balancer = self.balancers.entry(pool_id).or_default();
        let request = Request {
            client: (packet.key.src, packet.key.src_port),
            destination: (packet.key.dst, packet.key.dst_port),
        };
        let mut chooser = Chooser {
            snapshot: &self.snapshot,
            table: &self.persistence,
            balancer,
            view: View { states: &self.members, counters: &self.counters },
            counters: &self.counters,
            now: self.now,
        };
        let member = chooser.choose(virtual_server, pool, request).map_err(|_| DropReason::NoMember)?;
        let port = if member.port == 0 { packet.key.dst_port } else { member.port };
        Ok(Target { member_id: member.id, address: member.address, port })
    }

    /// The address and port that the member will see, and whether the port is from the SNAT ports.
    fn source(
        &mut self,
        virtual_server: &Virtual,
        packet: &Packet,
        target: &Target,
        hop: NextHop,
    ) -> Result<((Address, u16), bool), DropReason> {
        let client = (packet.key.src, packet.key.src_port);
        let address = match virtual_server.snat {
            Snat::None => return Ok((client, false)),
            Snat::Automap => self.snapshot.self_ip_towards(hop.link, hop.address),
            Snat::Pool(place) => self.next_snat_address(place, target.address),
            Snat::List(_) => None,
        };
        let address = address.ok_or(DropReason::NoSnatAddress)?;
        let protocol = packet.key.protocol;
        let pair = Pair { address, member: target.address, member_port: target.port, protocol };
        if virtual_server.source_port == SourcePort::Preserve && self.snat.take_exactly(pair, client.1) {
            return Ok(((address, client.1), true));
        }
        let port = self.snat.take(pair).map_err(|_| DropReason::SnatExhausted)?;
        Ok(((address, port), true))
    }

    /// The next address in turn of a SNAT pool, of the member's family.
    fn next_snat_address(&mut self, place: usize, member: Address) -> Option<Address> {
        let addresses = &self.snapshot.parts().snat_pools.get(place)?.addresses;
        let first = self.snat_cursor;
        self.snat_cursor = first.wrapping_add(1);
        let mut in_turn =
            (0..addresses.len()).map(|step| addresses[first.wrapping_add(step) % addresses.len()]);
        in_turn.find(|address| address.is_v4() == member.is_v4())
    }

    fn new_flow(
        &self,
        virtual_server: &Virtual,
        link: LinkId,
        frame: &Frame,
        packet: &Packet,
        selection: &Selection,
    ) -> Flow {
        let mac = frame.bytes().get(6..12).and_then(|bytes| bytes.first_chunk::<6>());
        let mut flow = Flow {
            client: packet.key.src,
            destination: packet.key.dst,
            client_port: packet.key.src_port,
            destination_port: packet.key.dst_port,
            protocol: packet.key.protocol,
            last_seen_ms: self.now.as_ms(),
            epoch: self.epoch,
            virtual_id: virtual_server.id,
            member_id: selection.member_id,
            client_link: link,
            client_mac: Mac(mac.copied().unwrap_or_default()),
            member: selection.member.0,
            member_port: selection.member.1,
            source: selection.source.0,
            source_port: selection.source.1,
            neighbor: selection.neighbor,
            ..bytemuck::Zeroable::zeroed()
        };
        if virtual_server.auto_last_hop {
            flow.set(flow_flag::AUTO_LAST_HOP);
        }
        if selection.has_snat_port {
            flow.set(flow_flag::SNAT_PORT);
        }
        if packet.class == Class::Tcp {
            flow.set_tcp_state(TcpState::SynSent);
            flow.next_seq[0] = segment_of(frame, packet).seq;
        }
        flow
    }

    /// Puts the flow into the table and starts its timer, making room by ending the oldest half-open flow.
    fn take_in(&mut self, flow: Flow) -> Result<FlowId, DropReason> {
        let is_tcp = flow.protocol == crate::packet::parse::protocol::TCP;
        if is_tcp && self.timers.half_open() >= self.half_open_max && !self.evict_half_open() {
            return Err(DropReason::HalfOpenFull);
        }
        let inserted = match self.flows.insert(flow) {
            Err(InsertError::Full) if self.evict_half_open() => self.flows.insert(flow),
            other => other,
        };
        let id = inserted.map_err(|error| match error {
            InsertError::Full => DropReason::FlowTableFull,
            InsertError::Duplicate => DropReason::SnatExhausted,
        })?;
        if is_tcp {
            self.timers.enter_half_open(id);
        } else {
            let idle_ms = self.timeouts(&flow).idle_ms;
            self.timers.arm(id, self.now_ms() + u64::from(idle_ms));
        }
        self.count_opened(&flow);
        Ok(id)
    }

    fn count_opened(&self, flow: &Flow) {
        if let Some(counters) = self.counters.of_virtual(flow.virtual_id) {
            counters.connections.open();
        }
        if let Some(counters) = self.counters.of_member(flow.member_id) {
            counters.connections.open();
        }
    }

    /// When the flow's virtual server ends it; the defaults when that is gone.
    pub(crate) fn timeouts(&self, flow: &Flow) -> Timeouts {
        let known = self.snapshot.virtual_by_id(flow.virtual_id).map(|item| item.timeouts);
        let is_tcp = flow.protocol == crate::packet::parse::protocol::TCP;
        known.unwrap_or(if is_tcp { Timeouts::TCP } else { Timeouts::UDP })
    }

    pub(crate) fn give_back_port(&mut self, flow: &Flow) {
        if flow.has(flow_flag::SNAT_PORT) {
            let pair = Pair {
                address: flow.source,
                member: flow.member,
                member_port: flow.member_port,
                protocol: flow.protocol,
            };
            self.snat.release(pair, flow.source_port);
        }
    }

    /// The worker that a packet of no local flow belongs to: a pure function of the packet and the configuration.
    ///
    /// A reply to a SNAT address belongs to the owner of its port, though a network that it is in may be a virtual
    /// server's. Where members see clients' own addresses, both
    /// directions belong to the owner of the client's end; where nothing is translated, of both ends together.
    fn owner(&self, matched: Option<&Virtual>, packet: &Packet) -> usize {
        if self.owners.workers() == 1 {
            return self.worker;
        }
        let (key, snapshot) = (&packet.key, &self.snapshot);
        let is_source = snapshot.owned(key.dst).is_some_and(|owned| owned.is_source);
        if is_source && !matched.is_some_and(|item| item.names(key.dst)) {
            return self.owners.of_port(key.dst_port);
        }
        if matched.is_some_and(|item| item.snat != Snat::None) {
            return self.worker;
        }
        let (src, dst) = (endpoint_hash(key.src, key.src_port), endpoint_hash(key.dst, key.dst_port));
        let translates = matched.is_some_and(|item| item.pool.is_some());
        let hash = if snapshot.is_transparent_member(key.src, key.src_port) {
            dst
        } else if translates || snapshot.is_transparent_member(key.dst, key.dst_port) {
            src
        } else {
            src ^ dst
        };
        self.owners.of_hash(hash)
    }
}
