//! The first packet of a connection: virtual server, member, source address and port, flow.

use crate::address::{Address, Mac};
use crate::config::ids::{LinkId, MemberId, PortId, VirtualId};
use crate::config::snapshot::{Snat, SourcePort, Timeouts, Virtual, VirtualKind};
use crate::flow::key::FlowKey;
use crate::flow::table::{FlowId, InsertError};
use crate::flow::tcp_track::TcpState;
use crate::flow::{Direction, Flow, flow_flag};
use crate::frame::Frame;
use crate::lb::{Request, View};
use crate::neighbor::NeighborRef;
use crate::outgoing::Outgoing;
use crate::packet::emit::IcmpError;
use crate::packet::parse::{Class, Packet, tcp_flag};
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
        let home = self.home(matched, &packet.key);
        if home.worker() != self.worker {
            return self.send_home(home, frame);
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
        let view = View { states: &self.members, counters: &self.counters };
        let request = Request {
            client: (packet.key.src, packet.key.src_port),
            destination: (packet.key.dst, packet.key.dst_port),
        };
        let member = balancer.pick(pool, &view, request, self.now).map_err(|_| DropReason::NoMember)?;
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
    /// What is translated belongs to the worker that its own tuple names, on either side, and so does a reply to a
    /// SNAT address, though a network that it is in may be a virtual server's. Where members see clients' own
    /// addresses, both directions belong to the owner of the client's end; where nothing is translated, of both ends
    /// together.
    pub(crate) fn home(&self, matched: Option<&Virtual>, key: &FlowKey) -> Home {
        if self.owners.workers() == 1 {
            return Home::Here(self.worker);
        }
        let snapshot = &self.snapshot;
        let is_source = snapshot.owned(key.dst).is_some_and(|owned| owned.is_source);
        if is_source && !matched.is_some_and(|item| item.names(key.dst)) {
            return Home::OfTuple(self.owners.of_tuple(key));
        }
        if matched.is_some_and(needs_no_flow) {
            return Home::Here(self.worker);
        }
        if matched.is_some_and(|item| snapshot.hides(item, key.src)) {
            return Home::OfTuple(self.owners.of_tuple(key));
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
        Home::OfEnds(self.owners.of_hash(hash))
    }

    /// To another worker. A frame that names that worker by itself should have arrived there; a fragment names the
    /// worker at which its packet was put together.
    #[cold]
    pub(crate) fn send_home(&self, home: Home, frame: &Frame) -> Fate {
        match home {
            Home::OfTuple(owner) if self.owners.of_frame(frame.bytes()) == owner => Fate::Misdirected(owner),
            Home::OfTuple(owner) | Home::OfEnds(owner) | Home::Here(owner) => Fate::HandOver(owner),
        }
    }
}

/// The worker that a packet belongs to, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// Wherever it arrives.
    Here(usize),
    /// By the hash that ports place frames by.
    OfTuple(usize),
    /// By the client's end, or by both, which no port knows.
    OfEnds(usize),
}

impl Home {
    pub(crate) fn worker(self) -> usize {
        let (Home::Here(worker) | Home::OfTuple(worker) | Home::OfEnds(worker)) = self;
        worker
    }
}

fn needs_no_flow(item: &Virtual) -> bool {
    matches!(item.kind, VirtualKind::Reject | VirtualKind::Stateless)
}
