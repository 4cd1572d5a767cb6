//! The path of a packet, with all its branches. Straight lines live in the files named on the right.
//!
//! ```text
//!   burst ─▶ parse all ─▶ prefetch ─▶ for each packet:
//!              known flow ─────────────────▶ forward            packet/rewrite
//!              ARP, ND, echo, ICMP ────────▶ answer             respond
//!              first packet ─▶ select ─────▶ forward            select
//!                                └─ nobody ▶ refuse             respond
//! ```

use std::sync::Arc;

use crate::address::{Address, Mac};
use crate::clock::Instant;
use crate::config::ids::{LinkId, MemberId, PoolId, PortId, VirtualId};
use crate::config::snapshot::Snapshot;
use crate::counters::WorkerCounters;
use crate::flow::table::{FlowId, FlowTable};
use crate::flow::tcp_track::{self, Segment, TcpState};
use crate::flow::timer::Timers;
use crate::flow::{Direction, Flow, flow_flag};
use crate::frame::{Frame, FramePool};
use crate::handoff::{Handoff, Stray};
use crate::lb::Balancer;
use crate::limits::Limits;
use crate::neighbor::{NeighborRef, NeighborTable};
use crate::outgoing::Outgoing;
use crate::packet::emit::IcmpError;
use crate::packet::parse::{self, Class, Packet, Parsed, tcp_flag};
use crate::packet::rewrite::{self, LinkHeader};
use crate::pool::MemberStates;
use crate::rate::TokenBucket;
use crate::snat::ports::SnatPorts;
use crate::snat::steer::Owners;
use crate::verdict::{DropReason, Verdict};

/// Everything one worker decides with. Owns its tables; shares only what is immutable or single-writer.
pub struct Pipeline {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) ports: Vec<PortFacts>,
    pub(crate) flows: FlowTable,
    pub(crate) timers: Timers,
    pub(crate) neighbors: NeighborTable,
    pub(crate) balancers: hashbrown::HashMap<PoolId, Balancer>,
    pub(crate) snat: SnatPorts,
    pub(crate) snat_cursor: usize,
    pub(crate) owners: Owners,
    pub(crate) worker: usize,
    pub(crate) handoff: Handoff,
    pub(crate) rejects: TokenBucket,
    pub(crate) icmp_errors: TokenBucket,
    pub(crate) members: Arc<MemberStates>,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) frames: FramePool,
    pub(crate) half_open_max: usize,
    pub(crate) announcements: std::collections::VecDeque<(Address, LinkId)>,
    pub(crate) now: Instant,
    pub(crate) draining: bool,
    /// Low bits of the generation in force; flows with another are checked again.
    pub(crate) epoch: u32,
    parsed: Vec<Result<Parsed, DropReason>>,
}

/// What the pipeline knows of a port.
#[derive(Debug, Clone, Copy)]
pub struct PortFacts {
    /// Our link address on it.
    pub mac: Mac,
    /// Its largest IP packet.
    pub mtu: u16,
}

/// What a pipeline is made of.
pub struct PipelineSpec {
    /// The configuration to start with.
    pub snapshot: Arc<Snapshot>,
    /// By port id.
    pub ports: Vec<PortFacts>,
    /// This worker's share.
    pub limits: Limits,
    /// This worker's number, and how many there are.
    pub worker: (usize, usize),
    /// The way to the other workers.
    pub handoff: Handoff,
    /// Shared by all workers.
    pub members: Arc<MemberStates>,
    /// This worker's.
    pub counters: Arc<WorkerCounters>,
    /// For packets of our own.
    pub frames: FramePool,
    /// The secret of the flow table, and of port choice.
    pub seed: crate::flow::key::HashSeed,
    /// Where tables are taken.
    pub backing: sluice_ffi::memory::Backing,
}

impl Pipeline {
    /// Takes all tables.
    pub fn new(spec: PipelineSpec) -> Self {
        let settings = spec.snapshot.parts().settings.clone();
        let (worker, workers) = spec.worker;
        let owners = Owners::new(workers);
        let port_seed = spec.seed.hash(&crate::flow::key::FlowKey::default());
        let share = |rate: u32| rate.div_ceil(workers.max(1) as u32);
        Self {
            epoch: spec.snapshot.generation() as u32,
            snapshot: spec.snapshot,
            ports: spec.ports,
            flows: FlowTable::new(spec.limits.flows, spec.seed, spec.backing),
            timers: Timers::new(spec.limits.flows, spec.backing),
            neighbors: NeighborTable::new(spec.limits.neighbors),
            balancers: hashbrown::HashMap::new(),
            snat: SnatPorts::new(owners, worker, spec.limits.snat_port_sets, port_seed),
            snat_cursor: 0,
            owners,
            worker,
            handoff: spec.handoff,
            rejects: TokenBucket::new(share(settings.max_reject_rate)),
            icmp_errors: TokenBucket::new(share(settings.max_icmp_rate)),
            members: spec.members,
            counters: spec.counters,
            frames: spec.frames,
            half_open_max: spec.limits.half_open,
            announcements: std::collections::VecDeque::new(),
            now: Instant::ZERO,
            draining: false,
            parsed: Vec::with_capacity(crate::frame::BURST_MAX),
        }
    }

    /// Decides about every frame of a burst from `port`, in order. `frames` is empty afterwards.
    pub fn process(&mut self, port: PortId, frames: &mut Vec<Frame>, out: &mut Outgoing, now: Instant) {
        self.now = now;
        let mut parsed = std::mem::take(&mut self.parsed);
        self.parse_and_prefetch(port, frames, &mut parsed);
        for (frame, parsed) in frames.drain(..).zip(parsed.drain(..)) {
            let verdict = self.decide(port, frame, parsed, out);
            debug_assert!(
                !matches!(verdict, Verdict::Drop(reason) if self.counters.of_drop(reason).load() == 0)
            );
        }
        self.parsed = parsed;
        if self.handoff.has_others() {
            self.handoff.wake_others();
        }
    }

    /// Decides about what other workers have handed over. True when there was something.
    pub fn process_strays(&mut self, out: &mut Outgoing, now: Instant) -> bool {
        if !self.handoff.has_others() {
            return false;
        }
        self.now = now;
        let mut taken = 0;
        while taken < crate::frame::BURST_MAX {
            let Some(stray) = self.handoff.take() else { break };
            taken += 1;
            match stray {
                Stray::Packet(port, frame) => {
                    let parsed = parse::parse(frame.bytes(), self.ports[usize::from(port.0)].mac);
                    self.decide(port, frame, parsed, out);
                }
                Stray::Neighbor { hop, mac, create } => self.neighbors.learn(hop, mac, create, now),
            }
        }
        self.handoff.wake_others();
        taken > 0
    }

    /// Parses the burst, then asks for the memory that each packet's look-up will touch.
    #[inline(always)]
    fn parse_and_prefetch(
        &mut self,
        port: PortId,
        frames: &[Frame],
        parsed: &mut Vec<Result<Parsed, DropReason>>,
    ) {
        let mac = self.ports[usize::from(port.0)].mac;
        let mut hashes = [0u64; crate::frame::BURST_MAX];
        for frame in frames {
            let result = parse::parse(frame.bytes(), mac);
            if let (Ok(Parsed::Ip(packet)), Some(hash)) = (&result, hashes.get_mut(parsed.len())) {
                *hash = self.flows.hash(&packet.key);
                self.flows.prefetch_bucket(*hash);
            }
            parsed.push(result);
        }
        for hash in &hashes[..frames.len().min(hashes.len())] {
            self.flows.prefetch_flow(*hash);
        }
    }

    #[inline(always)]
    fn decide(
        &mut self,
        port: PortId,
        frame: Frame,
        parsed: Result<Parsed, DropReason>,
        out: &mut Outgoing,
    ) -> Verdict {
        match parsed {
            Ok(Parsed::Ip(Packet { vlan, .. }) | Parsed::Arp { vlan, .. })
                if self.is_unknown_vlan(port, vlan) =>
            {
                self.dropped(DropReason::UnknownVlan, VirtualId::NONE)
            }
            Ok(Parsed::Ip(packet)) if packet.class != Class::Icmp => {
                let hash = self.flows.hash(&packet.key);
                match self.flows.find(&packet.key, hash) {
                    Some((id, direction)) => self.forward(port, frame, &packet, id, direction, out),
                    None => self.first_packet(port, frame, &packet, out),
                }
            }
            Ok(Parsed::Ip(packet)) => self.icmp(port, frame, &packet, out),
            Ok(Parsed::Arp { offset, vlan }) => self.arp(LinkId::new(port, vlan), &frame, offset, out),
            Err(reason) => self.dropped(reason, VirtualId::NONE),
        }
    }

    #[inline(always)]
    fn is_unknown_vlan(&self, port: PortId, vlan: u16) -> bool {
        vlan != 0 && !self.snapshot.has_link(LinkId::new(port, vlan))
    }

    /// A packet of a known flow: follow it, translate it, send it.
    #[inline(always)]
    pub(crate) fn forward(
        &mut self,
        port: PortId,
        mut frame: Frame,
        packet: &Packet,
        id: FlowId,
        direction: Direction,
        out: &mut Outgoing,
    ) -> Verdict {
        if packet.ttl <= 1 {
            return self.refuse_with_icmp(
                port,
                &frame,
                packet,
                DropReason::TtlExpired,
                IcmpError::TimeExceeded,
                out,
            );
        }
        let (now_ms, epoch) = (self.now.as_ms(), self.epoch);
        let flow = self.flows.at_mut(id);
        if flow.epoch != epoch {
            return self.forward_rechecked(port, frame, packet, id, direction, out);
        }
        if packet.class == Class::Tcp {
            if is_reopening(flow, direction, packet.tcp_flags) {
                self.close(id);
                return self.first_packet(port, frame, packet, out);
            }
            if let Some(state) = tcp_track::follow(flow, direction, segment_of(&frame, packet)) {
                self.on_tcp_state(id, state);
            }
        }
        let flow = self.flows.at_mut(id);
        if !(packet.class == Class::Tcp && flow.tcp_state().is_half_open()) {
            flow.last_seen_ms = now_ms;
        }
        flow.bytes[direction.index()] += u64::from(packet.ip_len);
        if direction == Direction::FromClient && flow.has(flow_flag::AUTO_LAST_HOP) {
            remember_last_hop(flow, LinkId::new(port, packet.vlan), &frame);
        }
        let to = flow.outgoing_key(direction);
        let (virtual_id, member_id, neighbor) = (flow.virtual_id, flow.member_id, flow.neighbor);
        let way = match direction {
            Direction::FromClient => Way::By(neighbor),
            Direction::FromMember if flow.has(flow_flag::AUTO_LAST_HOP) => {
                Way::To(flow.client_link, flow.client_mac)
            }
            Direction::FromMember => self.way_to_client(id),
        };
        let Some((link, mac)) = self.resolve(way) else {
            return self.forward_unresolved(frame, packet, &to, id, virtual_id);
        };
        let facts = self.ports[usize::from(link.port().0)];
        if packet.ip_len > u32::from(facts.mtu) && frame.offload.segmentation.is_none() {
            let error = IcmpError::TooBig(facts.mtu);
            return self.refuse_with_icmp(port, &frame, packet, DropReason::TooBig, error, out);
        }
        let packets = segments(&frame, packet);
        rewrite::translate(&mut frame, packet, &to);
        frame.truncate(usize::from(packet.l3) + packet.ip_len as usize);
        let header = LinkHeader { destination: mac, source: facts.mac, vlan: link.vlan() };
        if !rewrite::set_link_header(&mut frame, packet.l3, packet.key.src.is_v4(), header) {
            return self.dropped(DropReason::NoFrame, virtual_id);
        }
        if let Err(reason) = out.push(link.port(), frame) {
            return self.dropped(reason, virtual_id);
        }
        self.count(virtual_id, member_id, direction, packets, u64::from(packet.ip_len));
        Verdict::Forward(link.port())
    }

    /// The configuration has changed since the flow's last packet: find its way anew, then go on.
    #[cold]
    fn forward_rechecked(
        &mut self,
        port: PortId,
        frame: Frame,
        packet: &Packet,
        id: FlowId,
        direction: Direction,
        out: &mut Outgoing,
    ) -> Verdict {
        let member = self.flows.at_mut(id).member;
        let hop = self.snapshot.route(member);
        let neighbor = hop.and_then(|hop| self.neighbors.resolve(hop, self.now).ok());
        let flow = self.flows.at_mut(id);
        flow.epoch = self.epoch;
        flow.neighbor = neighbor.unwrap_or(flow.neighbor);
        self.forward(port, frame, packet, id, direction, out)
    }

    /// Translates the packet and leaves it with its next hop until that answers.
    #[cold]
    fn forward_unresolved(
        &mut self,
        mut frame: Frame,
        packet: &Packet,
        to: &crate::flow::key::FlowKey,
        id: FlowId,
        virtual_id: VirtualId,
    ) -> Verdict {
        let Some(hop) = self.snapshot.route(to.dst) else {
            return self.dropped(DropReason::NoRoute, virtual_id);
        };
        let neighbor = match self.neighbors.resolve(hop, self.now) {
            Ok(neighbor) => neighbor,
            Err(reason) => return self.dropped(reason, virtual_id),
        };
        if to.dst == self.flows.at_mut(id).member {
            self.flows.at_mut(id).neighbor = neighbor;
        }
        rewrite::translate(&mut frame, packet, to);
        frame.truncate(usize::from(packet.l3) + packet.ip_len as usize);
        let source = self.ports[usize::from(hop.link.port().0)].mac;
        let header = LinkHeader { destination: Mac::default(), source, vlan: hop.link.vlan() };
        if !rewrite::set_link_header(&mut frame, packet.l3, packet.key.src.is_v4(), header) {
            return self.dropped(DropReason::NoFrame, virtual_id);
        }
        match self.neighbors.wait(neighbor, frame) {
            Ok(()) => Verdict::Queued,
            Err((_, reason)) => self.dropped(reason, virtual_id),
        }
    }

    /// Where a link address comes from.
    #[inline(always)]
    fn resolve(&mut self, way: Way) -> Option<(LinkId, Mac)> {
        match way {
            Way::By(neighbor) => self.neighbors.mac(neighbor),
            Way::To(link, mac) => Some((link, mac)),
        }
    }

    /// The way back to a client whose last hop is not remembered: by route.
    #[cold]
    fn way_to_client(&mut self, id: FlowId) -> Way {
        let client = self.flows.at_mut(id).client;
        let hop = self.snapshot.route(client);
        let neighbor = hop.and_then(|hop| self.neighbors.resolve(hop, self.now).ok());
        Way::By(neighbor.unwrap_or(NeighborRef::NONE))
    }

    /// Counts a forwarded packet: one store a counter.
    #[inline(always)]
    fn count(&self, virtual_id: VirtualId, member_id: MemberId, from: Direction, packets: u64, bytes: u64) {
        if let Some(counters) = self.counters.of_virtual(virtual_id) {
            let (received, sent) = match from {
                Direction::FromClient => (&counters.clientside, &counters.serverside),
                Direction::FromMember => (&counters.serverside, &counters.clientside),
            };
            received.packets_in.add(packets);
            received.bytes_in.add(bytes);
            sent.packets_out.add(packets);
            sent.bytes_out.add(bytes);
        }
        if let Some(counters) = self.counters.of_member(member_id) {
            match from {
                Direction::FromClient => {
                    counters.serverside.packets_out.add(packets);
                    counters.serverside.bytes_out.add(bytes);
                }
                Direction::FromMember => {
                    counters.serverside.packets_in.add(packets);
                    counters.serverside.bytes_in.add(bytes);
                }
            }
        }
    }

    /// Counts a drop, for the worker and for the virtual server that the packet had matched.
    #[inline]
    pub(crate) fn dropped(&self, reason: DropReason, virtual_id: VirtualId) -> Verdict {
        self.counters.of_drop(reason).add(1);
        if let Some(counters) = self.counters.of_virtual(virtual_id) {
            counters.drops[reason as usize].add(1);
        }
        Verdict::Drop(reason)
    }
}

/// How to reach the other side.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Through a neighbour entry.
    By(NeighborRef),
    /// Straight to a link address.
    To(LinkId, Mac),
}

/// A client that opens a connection anew with the ports of one that is over (RFC 9293 section 3.6.1).
#[inline(always)]
fn is_reopening(flow: &Flow, direction: Direction, flags: u8) -> bool {
    flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
        && direction == Direction::FromClient
        && flow.tcp_state() == TcpState::Closing
}

#[inline(always)]
fn remember_last_hop(flow: &mut Flow, link: LinkId, frame: &Frame) {
    if let Some(mac) = frame.bytes().get(6..12).and_then(|bytes| bytes.first_chunk::<6>()) {
        flow.client_mac = Mac(*mac);
        flow.client_link = link;
    }
}

/// What tracking needs of a TCP segment.
#[inline(always)]
pub(crate) fn segment_of(frame: &Frame, packet: &Packet) -> Segment {
    let header = frame.bytes()[usize::from(packet.l4)..].first_chunk::<20>();
    let Some(header) = header else { return Segment { flags: 0, seq: 0, payload: 0 } };
    let header_len = u32::from(header[12] >> 4) * 4 + u32::from(packet.l4 - packet.l3);
    let seq = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    Segment { flags: packet.tcp_flags, seq, payload: packet.ip_len.saturating_sub(header_len) }
}

/// How many packets a frame stands for.
#[inline(always)]
fn segments(frame: &Frame, packet: &Packet) -> u64 {
    match frame.offload.segmentation {
        None => 1,
        Some(cut) => u64::from(packet.ip_len.div_ceil(u32::from(cut.payload_bytes.max(1)) + 40)).max(1),
    }
}
