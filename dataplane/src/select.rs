//! The first packet of a connection: virtual server, member, source address and port, flow.

use crate::address::{Address, Mac};
use crate::config::ids::{LinkId, MemberId, PoolId, PortId, VirtualId};
use crate::config::snapshot::{Pool, Snapshot, Snat, Timeouts, Virtual, VirtualKind};
use crate::flow::table::{FlowId, InsertError};
use crate::flow::tcp_track::TcpState;
use crate::flow::{Direction, Flow, flow_flag};
use crate::forward::segment_of;
use crate::frame::Frame;
use crate::lb::{Balancer, NoPick, Request, View};
use crate::neighbor::NeighborRef;
use crate::outgoing::Outgoing;
use crate::owner::HOPS_MAX;
use crate::packet::emit::IcmpError;
use crate::packet::parse::{Class, Packet};
use crate::persist::select::{Chooser, Chosen};
use crate::pipeline::{Fate, Pipeline};
use crate::verdict::DropReason;

/// The server's side of a new connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selection {
    pub(crate) virtual_id: VirtualId,
    pub(crate) member_id: MemberId,
    pub(crate) member: (Address, u16),
    pub(crate) source: (Address, u16),
    pub(crate) neighbor: NeighborRef,
    /// Of [`flow_flag`].
    pub(crate) flags: u8,
}

/// Where a connection goes, before its source is chosen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) member_id: MemberId,
    pub(crate) address: Address,
    pub(crate) port: u16,
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
        if let Some(fate) = self.proxied(port, frame, packet, out) {
            return fate;
        }
        let link = LinkId::new(port, packet.vlan);
        if packet.key.src == packet.key.dst || self.snapshot.is_martian(packet.key.src, link) {
            return self.dropped(DropReason::MartianSource, VirtualId::NONE);
        }
        if packet.class == Class::Other {
            if !self.snapshot.parts().settings.reject_unmatched {
                return self.dropped(DropReason::UnknownProtocol, VirtualId::NONE);
            }
            let error = IcmpError::ProtocolUnreachable;
            return self.refuse_with_icmp(port, frame, packet, DropReason::UnknownProtocol, error, out);
        }
        let snapshot = self.borrow_snapshot();
        let fate = self.select(&snapshot, port, frame, packet, out);
        self.return_snapshot(snapshot);
        fate
    }

    /// Opens a flow under the configuration `snapshot`, or refuses it.
    fn select(
        &mut self,
        snapshot: &Snapshot,
        port: PortId,
        frame: &mut Frame,
        packet: &Packet,
        out: &mut Outgoing,
    ) -> Fate {
        let link = LinkId::new(port, packet.vlan);
        let matched = snapshot.match_virtual(&packet.key, link);
        let matched = matched.filter(|item| snapshot.may_take(item, packet.key.dst));
        let is_of_link = packet.key.src.is_link_local() && !packet.key.src.is_v4();
        if is_of_link && matched.is_some_and(|item| shows(snapshot, item, packet.key.src)) {
            return self.dropped(DropReason::MartianSource, VirtualId::NONE);
        }
        if let Some(owner) = self.passage_to_ask(&packet.key) {
            return Fate::HandOver(owner);
        }
        if let Some(passage) = self.one_to_one(matched, packet, link) {
            return self.pass_one_to_one(passage, port, frame, packet, out);
        }
        let home = self.home(matched, &packet.key);
        if home.worker() != self.worker && self.trail.sought == 0 && self.trail.hops < HOPS_MAX {
            return self.send_home(home, frame);
        }
        if let Some(fate) = matched.and_then(|item| self.earlier_owner(item, home, packet)) {
            return fate;
        }
        match matched {
            None => self.not_found(port, frame, packet, (DropReason::NoVirtual, VirtualId::NONE), out),
            Some(item) if item.kind == VirtualKind::Stateless => {
                self.send_stateless(item, port, frame, packet, out)
            }
            Some(item) if item.kind == VirtualKind::Standard => {
                match self.knock(item, port, frame, packet, out) {
                    Ok(fate) => fate,
                    Err(reason) => self.not_opened(item, port, frame, packet, reason, out),
                }
            }
            Some(item) => match self.open(item, link, frame, packet) {
                Ok(id) => {
                    if packet.class == Class::Tcp {
                        self.keep_syn(id, port, frame, packet);
                    }
                    self.forward(port, frame, packet, id, Direction::FromClient, out)
                }
                Err(reason) => self.not_opened(item, port, frame, packet, reason, out),
            },
        }
    }

    /// The connection could not be opened: it waits where its pool has a queue, and is refused elsewhere.
    fn not_opened(
        &mut self,
        item: &Virtual,
        port: PortId,
        frame: &Frame,
        packet: &Packet,
        reason: DropReason,
        out: &mut Outgoing,
    ) -> Fate {
        if reason == DropReason::MembersFull
            && let Some(fate) = self.queue_up(item, packet)
        {
            return fate;
        }
        if reason == DropReason::SnatUnsettled && self.fragment_at_hand.is_none() {
            return Fate::Later(item.id);
        }
        if reason == DropReason::NoFlow {
            return self.not_found(port, frame, packet, (reason, item.id), out);
        }
        self.refuse(port, frame, packet, reason, item.id, out)
    }

    /// Nobody here knows what the packet belongs to. Its flow may be with another worker that owned it under an
    /// earlier configuration: each that can have is asked before the packet is refused.
    fn not_found(
        &mut self,
        port: PortId,
        frame: &Frame,
        packet: &Packet,
        (reason, virtual_id): (DropReason, VirtualId),
        out: &mut Outgoing,
    ) -> Fate {
        // Where fragments meet all who may know their flow have been asked; a segment's sender hears nothing, just in case.
        let has_been_asked = self.fragment_at_hand.is_some() && packet.class == Class::Udp;
        match self.next_to_ask(packet) {
            Some((worker, sought)) if !has_been_asked => Fate::Seek(worker, sought),
            _ => self.refuse(port, frame, packet, reason, virtual_id, out),
        }
    }

    /// Opens a flow through `virtual_server`.
    ///
    /// # Errors
    /// Why not; nothing is left behind.
    pub(crate) fn open(
        &mut self,
        virtual_server: &Virtual,
        link: LinkId,
        frame: &Frame,
        packet: &Packet,
    ) -> Result<FlowId, DropReason> {
        self.admit(virtual_server, packet)?;
        let opened = self.open_admitted(virtual_server, link, frame, packet);
        opened.inspect_err(|_| self.let_go_virtual(virtual_server))
    }

    fn open_admitted(
        &mut self,
        virtual_server: &Virtual,
        link: LinkId,
        frame: &Frame,
        packet: &Packet,
    ) -> Result<FlowId, DropReason> {
        if self.must_stand_back(virtual_server, virtual_server.pool) {
            return Err(DropReason::MembersFull);
        }
        let target = self.target(virtual_server, packet, &[])?;
        let opened = self.open_towards(virtual_server, target, link, frame, packet);
        opened.inspect_err(|_| self.let_go_member(target.member_id))
    }

    /// Opens a flow to `target`, whose limits have been taken from.
    pub(crate) fn open_towards(
        &mut self,
        virtual_server: &Virtual,
        target: Target,
        link: LinkId,
        frame: &Frame,
        packet: &Packet,
    ) -> Result<FlowId, DropReason> {
        let way = self.way_to(&target)?;
        let (source, has_snat_port) = self.source_by(virtual_server, packet, &target, &way)?;
        let last_hop = if virtual_server.auto_last_hop { flow_flag::AUTO_LAST_HOP } else { 0 };
        let selection = Selection {
            virtual_id: virtual_server.id,
            member_id: target.member_id,
            member: (target.address, target.port),
            source,
            neighbor: way.neighbor,
            flags: last_hop | if has_snat_port { flow_flag::SNAT_PORT } else { 0 },
        };
        let flow = self.new_flow(link, frame, packet, &selection);
        self.take_in(&flow).inspect_err(|_| self.give_back_port(&flow))
    }

    /// The member, or the packet's own destination when the virtual server only forwards. Takes from the member's
    /// limits; [`Pipeline::let_go_member`] gives back. `failed` are not asked again.
    pub(crate) fn target(
        &mut self,
        virtual_server: &Virtual,
        packet: &Packet,
        failed: &[MemberId],
    ) -> Result<Target, DropReason> {
        self.target_in(virtual_server, virtual_server.pool, packet, failed)
    }

    /// As [`Pipeline::target`], in another pool than the virtual server's.
    pub(crate) fn target_in(
        &mut self,
        virtual_server: &Virtual,
        pool: Option<PoolId>,
        packet: &Packet,
        failed: &[MemberId],
    ) -> Result<Target, DropReason> {
        let own = Target { member_id: MemberId::NONE, address: packet.key.dst, port: packet.key.dst_port };
        let Some(pool) = pool else { return Ok(own) };
        let snapshot = self.borrow_snapshot();
        let target = self.target_of_pool(&snapshot, virtual_server, pool, packet, failed);
        self.return_snapshot(snapshot);
        target
    }

    fn target_of_pool(
        &mut self,
        snapshot: &Snapshot,
        virtual_server: &Virtual,
        pool: PoolId,
        packet: &Packet,
        failed: &[MemberId],
    ) -> Result<Target, DropReason> {
        let pool = snapshot.pool(pool).ok_or(DropReason::NoMember)?;
        let request = Request {
            client: (packet.key.src, packet.key.src_port),
            destination: (packet.key.dst, packet.key.dst_port),
        };
        for _ in 0..PICKS_MAX {
            let chosen = self.choose(virtual_server, pool, snapshot, request, failed)?;
            if self.admit_to(chosen).is_ok() {
                let Chosen { member, .. } = chosen;
                let port = if member.port == 0 { packet.key.dst_port } else { member.port };
                return Ok(Target { member_id: member.id, address: member.address, port });
            }
        }
        Err(DropReason::MembersFull)
    }

    fn choose<'s>(
        &mut self,
        virtual_server: &Virtual,
        pool: &'s Pool,
        snapshot: &'s Snapshot,
        request: Request,
        failed: &[MemberId],
    ) -> Result<Chosen<'s>, DropReason> {
        self.chooser(pool.id, snapshot, failed).choose(virtual_server, pool, request).map_err(|none| {
            match none {
                NoPick::NoMember => DropReason::NoMember,
                NoPick::AtLimit => DropReason::MembersFull,
            }
        })
    }

    /// What choosing a member of this pool looks at and changes.
    #[inline]
    pub(crate) fn chooser<'c>(
        &'c mut self,
        pool: PoolId,
        snapshot: &'c Snapshot,
        failed: &'c [MemberId],
    ) -> Chooser<'c> {
        let view = View {
            states: &self.members,
            counters: &self.counters,
            peers: &self.peers,
            quota: &self.quota,
            snapshot,
            now: self.now,
            failed,
            latencies: Some(&self.latencies),
            sessions: self.persistence.by_member(),
        };
        let balancer = self.balancers.entry(pool).or_insert_with(|| Balancer::new(self.worker, pool));
        Chooser { table: &self.persistence, balancer, view }
    }

    pub(crate) fn new_flow(
        &self,
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
            flags: selection.flags,
            last_seen_ms: self.now.as_ms(),
            epoch: self.epoch,
            virtual_id: selection.virtual_id,
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
        if packet.class == Class::Tcp {
            flow.set_tcp_state(TcpState::SynSent);
            flow.next_seq[0] = segment_of(frame, packet).seq;
        }
        flow
    }

    /// Puts the flow into the table and starts its timer, making room by ending the oldest half-open flow.
    pub(crate) fn take_in(&mut self, flow: &Flow) -> Result<FlowId, DropReason> {
        let is_tcp = flow.protocol == crate::packet::parse::protocol::TCP;
        if is_tcp && self.half_open.count() >= self.half_open_max && !self.evict_half_open() {
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
            self.half_open.enter(id);
        }
        let timeout_ms = self.timeout_of(flow);
        self.timers.arm(id, self.now_ms() + u64::from(timeout_ms));
        self.count_opened(flow);
        self.begin_to_wait(id);
        Ok(id)
    }

    /// When the flow's virtual server ends it; the defaults when that is gone.
    pub(crate) fn timeouts(&self, flow: &Flow) -> Timeouts {
        let known = self.snapshot.virtual_by_id(flow.virtual_id).map(|item| item.timeouts);
        let is_tcp = flow.protocol == crate::packet::parse::protocol::TCP;
        known.unwrap_or(if is_tcp { Timeouts::TCP } else { Timeouts::UDP })
    }
}

/// True when members and hosts behind `item` see that its client is `client`.
fn shows(snapshot: &Snapshot, item: &Virtual, client: Address) -> bool {
    item.kind != VirtualKind::Reject && matches!(snapshot.snat_of(item, client), Snat::None | Snat::List(_))
}

/// Tries to find a member while other workers take the last units of the limits.
const PICKS_MAX: usize = 4;
