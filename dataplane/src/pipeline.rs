//! The path of a packet, with all its branches. Straight lines live in the files named on the right.
//!
//! ```text
//!   burst ─▶ parse all ─▶ prefetch ─▶ for each packet:
//!              known flow ─────────────────▶ forward            packet/rewrite
//!              ARP, ND, echo, ICMP ────────▶ answer             respond
//!              fragment ─▶ wait for ports ─▶ forward            fragment
//!              first packet ─▶ select ─────▶ forward            select
//!                                └─ nobody ▶ refuse             respond
//! ```

use std::sync::Arc;

use crate::address::{Address, Mac};
use crate::asked::Asked;
use crate::clock::Instant;
use crate::config::ids::{LinkId, MemberId, PoolId, PortId, VirtualId};
use crate::config::snapshot::Snapshot;
use crate::counters::WorkerCounters;
use crate::flow::table::{FlowId, FlowTable};
use crate::flow::tcp_track::{self, Segment};
use crate::flow::timer::Timers;
use crate::flow::{Direction, Flow, flow_flag};
use crate::fragment::Oversized;
use crate::fragment::identification::Identifications;
use crate::fragment::table::{EntryId, FragmentTable};
use crate::frame::{BURST_MAX, Frame, FramePool};
use crate::handoff::{Handoff, Stray};
use crate::lb::Balancer;
use crate::lb::latency::LatencyBook;
use crate::limits::Limits;
use crate::neighbor::{NeighborRef, NeighborTable};
use crate::outgoing::Outgoing;
use crate::packet::emit::IcmpError;
use crate::packet::mss;
use crate::packet::parse::{self, Class, Found, Packet, protocol, tcp_flag};
use crate::packet::rewrite::{self, LinkHeader};
use crate::persist::PersistenceTable;
use crate::pool::MemberStates;
use crate::queue::{Ticket, WaitingRoom};
use crate::quota::{QuotaShare, Quotas};
use crate::rate::TokenBucket;
use crate::reselect::Attempts;
use crate::service_down::Sweep;
use crate::snat::ports::SnatPorts;
use crate::snat::steer::Owners;
use crate::verdict::DropReason;

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
    pub(crate) quota: QuotaShare,
    pub(crate) queue: WaitingRoom,
    pub(crate) attempts: Attempts,
    pub(crate) sweep: Sweep,
    pub(crate) latencies: LatencyBook,
    pub(crate) asked: Asked,
    pub(crate) persistence: Arc<PersistenceTable>,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) frames: FramePool,
    pub(crate) half_open_max: usize,
    pub(crate) announcements: std::collections::VecDeque<(Address, LinkId)>,
    /// When each address of ours was last defended against another host that uses it.
    pub(crate) defended: hashbrown::HashMap<(Address, LinkId), Instant>,
    pub(crate) now: Instant,
    pub(crate) draining: bool,
    pub(crate) fragments: FragmentTable,
    pub(crate) identifications: Identifications,
    /// The packet whose fragment is being decided about.
    pub(crate) fragment_at_hand: Option<EntryId>,
    /// Low bits of the generation in force; flows with another are checked again.
    pub(crate) epoch: u32,
    /// Taken out while a burst is decided.
    burst: Option<Box<[Slot; BURST_MAX]>>,
}

fn blank_burst() -> Box<[Slot; BURST_MAX]> {
    Box::new([const { Slot::BLANK }; BURST_MAX])
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
    /// Shared by all workers.
    pub quotas: Arc<Quotas>,
    /// Shared by all workers.
    pub persistence: Arc<PersistenceTable>,
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
        let mut quota = QuotaShare::new(spec.quotas, worker);
        quota.follow(None, &spec.snapshot, |_| 0);
        let port_seed = spec.seed.hash(&crate::flow::key::FlowKey::default());
        let mut snat = SnatPorts::new(owners, worker, spec.limits.snat_port_sets, port_seed);
        snat.exclude(spec.snapshot.listened_sources());
        Self {
            epoch: spec.snapshot.generation() as u32,
            snapshot: spec.snapshot,
            ports: spec.ports,
            flows: FlowTable::new(spec.limits.flows, spec.seed, spec.backing),
            timers: Timers::new(spec.limits.flows, spec.backing),
            neighbors: NeighborTable::new(spec.limits.neighbors),
            balancers: hashbrown::HashMap::new(),
            snat,
            snat_cursor: 0,
            owners,
            worker,
            handoff: spec.handoff,
            rejects: TokenBucket::new(owners.share_of(settings.max_reject_rate)),
            icmp_errors: TokenBucket::new(owners.share_of(settings.max_icmp_rate)),
            members: spec.members,
            quota,
            queue: WaitingRoom::default(),
            attempts: Attempts::default(),
            sweep: Sweep::default(),
            latencies: LatencyBook::new(&spec.limits),
            asked: Asked::default(),
            persistence: spec.persistence,
            counters: spec.counters,
            frames: spec.frames,
            half_open_max: spec.limits.half_open,
            announcements: std::collections::VecDeque::new(),
            defended: hashbrown::HashMap::new(),
            now: Instant::ZERO,
            draining: false,
            fragments: FragmentTable::new(spec.backing),
            identifications: Identifications::new(spec.seed, spec.worker),
            fragment_at_hand: None,
            burst: Some(blank_burst()),
        }
    }

    /// Decides about every frame of a burst from `port`, in order. `frames` is empty afterwards.
    pub fn process(&mut self, port: PortId, frames: &mut Vec<Frame>, out: &mut Outgoing, now: Instant) {
        self.now = now;
        let mut burst = self.burst.take().unwrap_or_else(blank_burst);
        self.parse_and_prefetch(port, frames, &mut burst);
        for (mut frame, slot) in frames.drain(..).zip(burst.iter()) {
            let fate = self.decide(port, &mut frame, slot, out);
            self.carry_out(fate, port, frame, out);
        }
        self.burst = Some(burst);
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
        while taken < BURST_MAX {
            let Some(stray) = self.handoff.take() else { break };
            taken += 1;
            match stray {
                Stray::Packet(port, frame) => self.process_stray(port, frame, out),
                Stray::Fragment { port, frame, key } => self.fragment_of_ours(port, frame, &key, out),
                Stray::Neighbor { hop, mac, create } => self.neighbors.learn(hop, mac, create, now),
            }
        }
        self.handoff.wake_others();
        taken > 0
    }

    pub(crate) fn process_stray(&mut self, port: PortId, mut frame: Frame, out: &mut Outgoing) {
        let mut slot = Slot::BLANK;
        slot.found = parse::parse_into(&mut slot.packet, frame.bytes(), self.ports[usize::from(port.0)].mac);
        slot.hash = self.flows.hash(&slot.packet.key);
        let fate = self.decide(port, &mut frame, &slot, out);
        self.carry_out(fate, port, frame, out);
    }

    /// Parses the burst, then asks for the memory that each packet's look-up will touch.
    #[inline(always)]
    fn parse_and_prefetch(&mut self, port: PortId, frames: &[Frame], burst: &mut [Slot; BURST_MAX]) {
        let mac = self.ports[usize::from(port.0)].mac;
        for (frame, slot) in frames.iter().zip(burst.iter_mut()) {
            slot.found = parse::parse_into(&mut slot.packet, frame.bytes(), mac);
            slot.hash = self.flows.hash(&slot.packet.key);
            self.flows.prefetch_bucket(slot.hash);
        }
        for slot in &burst[..frames.len().min(BURST_MAX)] {
            self.flows.prefetch_flow(slot.hash);
        }
    }

    #[inline(always)]
    fn decide(&mut self, port: PortId, frame: &mut Frame, slot: &Slot, out: &mut Outgoing) -> Fate {
        let packet = &slot.packet;
        match slot.found {
            Found::Nothing(reason) => self.dropped(reason, VirtualId::NONE),
            Found::Ip | Found::Arp | Found::Fragment if self.is_unknown_vlan(port, packet.vlan) => {
                self.dropped(DropReason::UnknownVlan, VirtualId::NONE)
            }
            Found::Ip if packet.class != Class::Icmp => match self.flows.find(&packet.key, slot.hash) {
                Some((id, direction)) => self.forward(port, frame, packet, id, direction, out),
                None => self.first_packet(port, frame, packet, out),
            },
            Found::Ip => self.icmp(port, frame, packet, out),
            Found::Fragment => Fate::Fragment,
            Found::Arp => self.arp(LinkId::new(port, packet.vlan), frame, packet.l3, out),
        }
    }

    /// Does with the frame what was decided.
    #[inline(always)]
    pub(crate) fn carry_out(&mut self, fate: Fate, port: PortId, frame: Frame, out: &mut Outgoing) {
        match fate {
            Fate::Send(to) => {
                if let Err(reason) = out.push(to, frame) {
                    self.count_drop(reason, VirtualId::NONE);
                }
            }
            Fate::Wait(neighbor, virtual_id) => {
                if let Err((_, reason)) = self.neighbors.wait(neighbor, frame) {
                    self.count_drop(reason, virtual_id);
                }
            }
            Fate::Queue(ticket) => self.queue.put(port, frame, ticket, self.now),
            Fate::Fragment => self.fragment(port, frame, out),
            Fate::HandOver(owner) => self.hand_over(owner, port, frame, false),
            Fate::Misdirected(owner) => self.hand_over(owner, port, frame, true),
            Fate::Done => {}
        }
    }

    /// Gives the frame to the worker that it belongs to.
    #[cold]
    fn hand_over(&mut self, owner: usize, port: PortId, frame: Frame, is_misdirected: bool) {
        let counters = &self.counters;
        match self.handoff.give(owner, Stray::Packet(port, frame)) {
            Ok(()) if is_misdirected => counters.misdirected.add(1),
            Ok(()) => counters.handed_over.add(1),
            Err(_) => self.count_drop(DropReason::HandoffFull, VirtualId::NONE),
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
        frame: &mut Frame,
        packet: &Packet,
        id: FlowId,
        direction: Direction,
        out: &mut Outgoing,
    ) -> Fate {
        if packet.ttl <= 1 {
            return self.refuse_with_icmp(
                port,
                frame,
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
        if flow.has(flow_flag::RESELECT | flow_flag::ASKED)
            && let Some(fate) = self.watch(id, direction, packet, out)
        {
            return fate;
        }
        let flow = self.flows.at_mut(id);
        if packet.class == Class::Tcp {
            if packet.tcp_flags & tcp_flag::SYN != 0 {
                if is_reopening(flow, direction, frame, packet) {
                    self.close(id);
                    return self.first_packet(port, frame, packet, out);
                }
                clamp_mss(&self.snapshot, flow.virtual_id, frame, packet);
            }
            if let Some(state) = tcp_track::follow(flow, direction, segment_of(frame, packet)) {
                self.on_tcp_state(id, state);
            }
        }
        let flow = self.flows.at_mut(id);
        if !(packet.key.protocol == protocol::TCP && flow.tcp_state().is_half_open()) {
            flow.last_seen_ms = now_ms;
        }
        flow.bytes[direction.index()] += u64::from(packet.ip_len);
        if direction == Direction::FromClient && flow.has(flow_flag::AUTO_LAST_HOP) {
            remember_last_hop(flow, LinkId::new(port, packet.vlan), frame);
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
        if packet.ip_len > u32::from(facts.mtu) && is_too_big(frame, packet, facts.mtu) {
            let way = Oversized { packet, to, link, mac, virtual_id, member_id, direction };
            return self.forward_oversized(port, frame, &way, out);
        }
        if out.is_full(link.port()) {
            return self.dropped(DropReason::TxFull, virtual_id);
        }
        let packets = segments(frame, packet);
        rewrite::translate(frame, packet, &to);
        frame.truncate(usize::from(packet.l3) + packet.ip_len as usize);
        let header = LinkHeader { destination: mac, source: facts.mac, vlan: link.vlan() };
        if !rewrite::set_link_header(frame, packet.l3, packet.key.src.is_v4(), header) {
            return self.dropped(DropReason::NoFrame, virtual_id);
        }
        self.count(virtual_id, member_id, direction, packets, u64::from(packet.ip_len));
        Fate::Send(link.port())
    }

    /// A packet of a flow that something waits for. `Some` when it is done with.
    #[cold]
    fn watch(
        &mut self,
        id: FlowId,
        direction: Direction,
        packet: &Packet,
        out: &mut Outgoing,
    ) -> Option<Fate> {
        let flow = *self.flows.at_mut(id);
        if flow.has(flow_flag::ASKED) && direction == Direction::FromMember {
            self.flows.at_mut(id).flags &= !flow_flag::ASKED;
            self.end_of_wait(id, &flow);
        }
        if flow.has(flow_flag::RESELECT) { self.follow_attempt(id, direction, packet, out) } else { None }
    }

    /// The configuration has changed since the flow's last packet: find its way anew, then go on.
    #[cold]
    fn forward_rechecked(
        &mut self,
        port: PortId,
        frame: &mut Frame,
        packet: &Packet,
        id: FlowId,
        direction: Direction,
        out: &mut Outgoing,
    ) -> Fate {
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
        frame: &mut Frame,
        packet: &Packet,
        to: &crate::flow::key::FlowKey,
        id: FlowId,
        virtual_id: VirtualId,
    ) -> Fate {
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
        let mtu = self.ports[usize::from(hop.link.port().0)].mtu;
        if packet.ip_len > u32::from(mtu) && is_too_big(frame, packet, mtu) {
            return self.dropped(DropReason::TooBig, virtual_id);
        }
        rewrite::translate(frame, packet, to);
        frame.truncate(usize::from(packet.l3) + packet.ip_len as usize);
        let source = self.ports[usize::from(hop.link.port().0)].mac;
        let header = LinkHeader { destination: Mac::default(), source, vlan: hop.link.vlan() };
        if !rewrite::set_link_header(frame, packet.l3, packet.key.src.is_v4(), header) {
            return self.dropped(DropReason::NoFrame, virtual_id);
        }
        Fate::Wait(neighbor, virtual_id)
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
    pub(crate) fn count(
        &self,
        virtual_id: VirtualId,
        member_id: MemberId,
        from: Direction,
        packets: u64,
        bytes: u64,
    ) {
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

    /// Counts a drop, and says that the frame is done with.
    #[inline]
    pub(crate) fn dropped(&self, reason: DropReason, virtual_id: VirtualId) -> Fate {
        self.count_drop(reason, virtual_id);
        Fate::Done
    }

    /// Counts a drop, for the worker and for the virtual server that the packet had matched.
    pub(crate) fn count_drop(&self, reason: DropReason, virtual_id: VirtualId) {
        self.counters.of_drop(reason).add(1);
        if let Some(counters) = self.counters.of_virtual(virtual_id) {
            counters.drops[reason as usize].add(1);
        }
    }
}

/// What is to become of a frame that has been decided about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Fate {
    /// It goes out of this port.
    Send(PortId),
    /// It waits for this next hop; the virtual server counts if it cannot.
    Wait(NeighborRef, VirtualId),
    /// It belongs to this worker.
    HandOver(usize),
    /// It waits for a member of its pool.
    Queue(Ticket),
    /// It is a part of a packet (`fragment/path`).
    Fragment,
    /// It belongs to this worker, and its port should have brought it there.
    Misdirected(usize),
    /// It is answered, learnt from or dropped, and counted; the frame itself is no longer needed.
    Done,
}

/// One frame of the burst at hand.
pub(crate) struct Slot {
    pub(crate) packet: Packet,
    pub(crate) hash: u64,
    pub(crate) found: Found,
}

impl Slot {
    pub(crate) const BLANK: Slot =
        Slot { packet: Packet::BLANK, hash: 0, found: Found::Nothing(DropReason::Truncated) };
}

/// How to reach the other side.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Through a neighbour entry.
    By(NeighborRef),
    /// Straight to a link address.
    To(LinkId, Mac),
}

/// Lowers the segment size that a SYN announces to what its virtual server allows.
#[cold]
fn clamp_mss(snapshot: &Snapshot, virtual_id: VirtualId, frame: &mut Frame, packet: &Packet) {
    if let Some(mss) = snapshot.virtual_by_id(virtual_id).and_then(|item| item.mss_clamp) {
        mss::clamp(frame, packet, mss);
    }
}

/// A client that opens a connection anew with the ports of one that is over (RFC 9293 section 3.6.1).
#[inline(always)]
fn is_reopening(flow: &Flow, direction: Direction, frame: &Frame, packet: &Packet) -> bool {
    packet.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
        && direction == Direction::FromClient
        && flow.tcp_state().is_over()
        && !is_late_syn(flow, segment_of(frame, packet).seq)
}

/// A late copy of the SYN that began the connection: its number lies within what the client has sent since. The
/// connection may not be over for its ends, who have yet to see each other's last packets.
#[cold]
fn is_late_syn(flow: &Flow, seq: u32) -> bool {
    let client = Direction::FromClient.index();
    let behind = u64::from(flow.next_seq[client].wrapping_sub(seq));
    (2..=flow.bytes[client].min(BEHIND_MAX)).contains(&behind)
}

/// Further behind is ahead (RFC 9293 section 3.4): else nobody could reopen what has carried 4 GiB.
const BEHIND_MAX: u64 = 1 << 31;

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
    let Some(header) = header else { return Segment { flags: 0, seq: 0, ack: 0, payload: 0 } };
    let header_len = u32::from(header[12] >> 4) * 4 + u32::from(packet.l4 - packet.l3);
    let seq = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let ack = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
    Segment { flags: packet.tcp_flags, seq, ack, payload: packet.ip_len.saturating_sub(header_len) }
}

/// True when what leaves, each segment by itself, is larger than `mtu`.
#[cold]
pub(crate) fn is_too_big(frame: &Frame, packet: &Packet, mtu: u16) -> bool {
    let Some(cut) = frame.offload.segmentation else { return true };
    let transport = if packet.class == Class::Tcp { segment_of(frame, packet).payload } else { 0 };
    let headers = if packet.class == Class::Tcp {
        packet.ip_len - transport.min(packet.ip_len)
    } else {
        u32::from(packet.l4 - packet.l3) + 8
    };
    headers + u32::from(cut.payload_bytes) > u32::from(mtu)
}

/// How many packets a frame stands for.
#[inline(always)]
pub(crate) fn segments(frame: &Frame, packet: &Packet) -> u64 {
    if frame.offload.segmentation.is_none() { 1 } else { segments_of_super_frame(frame, packet) }
}

#[cold]
fn segments_of_super_frame(frame: &Frame, packet: &Packet) -> u64 {
    let payload = match packet.class {
        Class::Tcp => segment_of(frame, packet).payload,
        _ => packet.ip_len.saturating_sub(u32::from(packet.l4 - packet.l3) + 8),
    };
    let each = frame.offload.segmentation.map_or(1, |cut| cut.payload_bytes.max(1));
    u64::from(payload.div_ceil(u32::from(each)).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syn_ahead_of_a_connection_that_carried_gigabytes_is_not_late() {
        let mut flow: Flow = bytemuck::Zeroable::zeroed();
        (flow.next_seq[0], flow.bytes[0]) = (1_000_000, 5 << 30);
        assert!(is_late_syn(&flow, 900_000) && is_late_syn(&flow, 1_000_000 - 2));
        assert!(!is_late_syn(&flow, 1_000_000) && !is_late_syn(&flow, 1_000_500));
    }
}
