//! The path of a packet, with all its branches. Straight lines live in the files named on the right.
//!
//! ```text
//!   burst ─▶ parse all ─▶ prefetch ─▶ for each packet:
//!              known flow ─────────────────▶ forward            packet/rewrite
//!              ARP, ND, echo, ICMP ────────▶ answer             respond
//!              fragment ─▶ wait for ports ─▶ forward            fragment
//!              proxied ─▶ the engine ─▶ (run_proxies)            proxy
//!              first packet ─▶ select ─────▶ forward            select
//!                                └─ nobody ▶ refuse             respond
//! ```

use std::sync::Arc;

use crate::access_log::SharedAccessLog;
use crate::address::{Address, Mac};
use crate::asked::Asked;
use crate::clock::Instant;
use crate::config::ids::{LinkId, PoolId, PortId, VirtualId};
use crate::config::snapshot::Snapshot;
use crate::counters::WorkerCounters;
use crate::ending::Ending;
use crate::filter::RateTable;
use crate::flow::half_open::HalfOpen;
use crate::flow::table::{Candidate, FlowTable};
use crate::flow::timer::Timers;
use crate::fragment::identification::Identifications;
use crate::fragment::table::{EntryId, FragmentTable};
use crate::frame::{Frame, FramePool};
use crate::handoff::{Handoff, Stray, Trail};
use crate::lb::Balancer;
use crate::lb::latency::LatencyBook;
use crate::limits::Limits;
use crate::loan::Loans;
use crate::neighbor::{NeighborRef, NeighborTable};
use crate::outgoing::Outgoing;
use crate::packet::parse::{self, Class, Found, Packet};
use crate::persist::PersistenceTable;
use crate::pool::MemberStates;
use crate::proxy::Proxies;
use crate::queue::{Queued, Ticket, WaitingRoom};
use crate::quota::{QuotaShare, Quotas};
use crate::rate::TokenBucket;
use crate::reselect::Attempts;
use crate::service_down::Sweep;
use crate::snat::later::Later;
use crate::snat::ports::SnatPorts;
use crate::snat::rules::Rules;
use crate::snat::steer::Owners;
use crate::stateless::origin::Origins;
use crate::verdict::DropReason;
use crate::way::Ways;

/// Everything one worker decides with. Owns its tables; shares only what is immutable or single-writer.
pub struct Pipeline {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) loans: Loans,
    pub(crate) ports: Vec<PortFacts>,
    pub(crate) flows: FlowTable,
    pub(crate) timers: Timers,
    pub(crate) half_open: HalfOpen,
    pub(crate) neighbors: NeighborTable,
    pub(crate) ways: Ways,
    pub(crate) balancers: hashbrown::HashMap<PoolId, Balancer>,
    pub(crate) snat: SnatPorts,
    pub(crate) snat_cursor: usize,
    /// First packets that wait until all workers give ports by one rule.
    pub(crate) later: Later,
    pub(crate) rules: Arc<Rules>,
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
    pub(crate) proxies: Proxies,
    pub(crate) counters: Arc<WorkerCounters>,
    /// The other workers' counters, to be read.
    pub(crate) peers: Vec<Arc<WorkerCounters>>,
    pub(crate) access_log: SharedAccessLog,
    pub(crate) frames: FramePool,
    pub(crate) half_open_max: usize,
    pub(crate) announcements: std::collections::VecDeque<(Address, LinkId)>,
    /// When groups are reported again.
    pub(crate) groups_due: Option<Instant>,
    /// When each address of ours was last defended against another host that uses it.
    pub(crate) defended: hashbrown::HashMap<(Address, LinkId), Instant>,
    pub(crate) now: Instant,
    /// Packets wait to be read that came before now, and one may be what a flow or a connection has waited for: timers
    /// wait for them, so that after a pause of ours nobody's connection ends because we come late.
    pub(crate) is_behind: bool,
    pub(crate) draining: bool,
    pub(crate) ending: Ending,
    /// How the packet at hand has come from another worker.
    pub(crate) trail: Trail,
    pub(crate) fragments: FragmentTable,
    pub(crate) identifications: Identifications,
    pub(crate) origins: Origins,
    /// The packet whose fragment is being decided about.
    pub(crate) fragment_at_hand: Option<EntryId>,
    /// Low bits of the generation in force; flows with another are checked again.
    pub(crate) epoch: u32,
    /// Taken out while a burst is decided.
    burst: Option<Box<[Slot; LOOK_AHEAD]>>,
}

fn blank_burst() -> Box<[Slot; LOOK_AHEAD]> {
    Box::new([const { Slot::BLANK }; LOOK_AHEAD])
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
    /// Shared by all workers.
    pub rates: Arc<RateTable>,
    /// Shared by all workers.
    pub rules: Arc<Rules>,
    /// This worker's.
    pub counters: Arc<WorkerCounters>,
    /// The other workers', whose connections count for balancing.
    pub peers: Vec<Arc<WorkerCounters>>,
    /// This worker's.
    pub access_log: SharedAccessLog,
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
        let mut snat = SnatPorts::new(Arc::clone(&spec.rules), worker, spec.limits.snat_port_sets, port_seed);
        snat.own_by_port(spec.snapshot.kept_port_sources());
        snat.exclude(spec.snapshot.listened_sources());
        let mtu = spec.ports.iter().map(|port| port.mtu).min().unwrap_or(1500);
        let proxies = Proxies::new(&spec.limits, mtu, spec.seed, spec.backing, spec.rates);
        Self {
            epoch: spec.snapshot.generation() as u32,
            snapshot: spec.snapshot,
            loans: Loans::default(),
            ports: spec.ports,
            flows: FlowTable::new(spec.limits.flows, spec.seed, spec.backing),
            timers: Timers::new(spec.limits.flows, spec.backing),
            half_open: HalfOpen::new(spec.limits.flows, spec.backing),
            neighbors: NeighborTable::new(spec.limits.neighbors),
            ways: Ways::new(spec.limits.members),
            balancers: hashbrown::HashMap::new(),
            snat,
            snat_cursor: 0,
            later: Later::default(),
            rules: spec.rules,
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
            proxies,
            counters: spec.counters,
            peers: spec.peers,
            access_log: spec.access_log,
            frames: spec.frames,
            half_open_max: spec.limits.half_open,
            announcements: std::collections::VecDeque::new(),
            groups_due: None,
            defended: hashbrown::HashMap::new(),
            now: Instant::ZERO,
            is_behind: false,
            draining: false,
            ending: Ending::default(),
            trail: Trail::default(),
            fragments: FragmentTable::new(spec.backing),
            identifications: Identifications::new(spec.seed, spec.worker),
            fragment_at_hand: None,
            origins: Origins::new(),
            burst: Some(blank_burst()),
        }
    }

    /// Decides about up to [`LOOK_AHEAD`] frames from `port`, in order; what is left of them is empty. Returns how many
    /// bytes they had.
    #[inline(never)]
    pub fn process(&mut self, port: PortId, frames: &mut [Frame], out: &mut Outgoing, now: Instant) -> u64 {
        self.now = now;
        let mut burst = self.burst.take().unwrap_or_else(blank_burst);
        let bytes = self.parse_and_prefetch(port, frames, &mut burst);
        for (frame, slot) in frames.iter_mut().zip(burst.iter()) {
            match self.decide(port, frame, slot, out) {
                Fate::Done => {}
                Fate::Send(to) => self.send(to, std::mem::take(frame), out),
                other => self.carry_out(other, port, std::mem::take(frame), out),
            }
        }
        self.burst = Some(burst);
        if self.handoff.has_others() {
            self.handoff.wake_others();
        }
        bytes
    }

    /// Decides about up to [`LOOK_AHEAD`] packets that other workers have handed over. True when there were any.
    pub fn process_strays(&mut self, out: &mut Outgoing, now: Instant) -> bool {
        if !self.handoff.has_others() {
            return false;
        }
        self.now = now;
        let mut taken = 0;
        while taken < LOOK_AHEAD {
            let Some(stray) = self.handoff.take() else { break };
            taken += 1;
            match stray {
                Stray::Packet(port, frame, trail) => {
                    self.trail = trail;
                    self.process_stray(port, frame, out);
                    self.trail = Trail::default();
                }
                Stray::Fragment { port, frame, key } => self.fragment_of_ours(port, frame, &key, out),
                Stray::Neighbor { hop, mac, word } => self.learn_here(hop, mac, word, out),
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

    /// Parses the burst, then asks for the memory that each packet's look-up will touch. Returns how many bytes there are.
    #[inline(never)]
    fn parse_and_prefetch(&mut self, port: PortId, frames: &[Frame], burst: &mut [Slot; LOOK_AHEAD]) -> u64 {
        let (mac, mut total) = (self.ports[usize::from(port.0)].mac, 0);
        for (frame, slot) in frames.iter().zip(burst.iter_mut()) {
            let bytes = frame.bytes();
            total += bytes.len() as u64;
            slot.found = parse::parse_into(&mut slot.packet, bytes, mac);
            slot.hash = self.flows.hash(&slot.packet.key);
            self.flows.prefetch_bucket(slot.hash);
        }
        for slot in &mut burst[..frames.len().min(LOOK_AHEAD)] {
            slot.near = self.flows.prefetch_flow(slot.hash);
        }
        total
    }

    #[inline(always)]
    fn decide(&mut self, port: PortId, frame: &mut Frame, slot: &Slot, out: &mut Outgoing) -> Fate {
        let packet = &slot.packet;
        let has_flow = slot.found == Found::Ip && packet.class != Class::Icmp;
        if !has_flow || self.is_unknown_vlan(port, packet.vlan) {
            return self.decide_other(port, frame, slot, out);
        }
        match self.flows.find_near(&packet.key, slot.hash, slot.near) {
            Some((id, direction)) => self.forward(port, frame, packet, id, direction, out),
            None => self.first_packet(port, frame, packet, out),
        }
    }

    /// What belongs to no flow, or not in this way.
    #[inline(never)]
    fn decide_other(&mut self, port: PortId, frame: &mut Frame, slot: &Slot, out: &mut Outgoing) -> Fate {
        let packet = &slot.packet;
        match slot.found {
            Found::Nothing(reason) => self.dropped(reason, VirtualId::NONE),
            _ if self.is_unknown_vlan(port, packet.vlan) => {
                self.dropped(DropReason::UnknownVlan, VirtualId::NONE)
            }
            Found::Ip => self.icmp(port, frame, packet, out),
            Found::Fragment => Fate::Fragment,
            Found::Arp => self.arp(LinkId::new(port, packet.vlan), frame, packet.l3, out),
        }
    }

    #[inline(always)]
    fn send(&self, to: PortId, frame: Frame, out: &mut Outgoing) {
        if let Err(reason) = out.push(to, frame) {
            self.count_drop(reason, VirtualId::NONE);
        }
    }

    /// Does with the frame what was decided.
    #[inline(never)]
    pub(crate) fn carry_out(&mut self, fate: Fate, port: PortId, frame: Frame, out: &mut Outgoing) {
        match fate {
            Fate::Send(to) => self.send(to, frame, out),
            Fate::Wait(neighbor, virtual_id) => {
                if let Err((_, reason)) = self.neighbors.wait(neighbor, frame) {
                    self.count_drop(reason, virtual_id);
                }
            }
            Fate::Queue(ticket) => self.queue.put(Queued { port, frame, ticket }, self.now),
            Fate::Later(virtual_id) => {
                if !self.later.put(port, frame) {
                    self.count_drop(DropReason::SnatUnsettled, virtual_id);
                }
            }
            Fate::Fragment => self.fragment(port, frame, out),
            Fate::HandOver(owner) => self.hand_over(owner, port, frame, self.trail.sought, false),
            Fate::Misdirected(owner) => self.hand_over(owner, port, frame, self.trail.sought, true),
            Fate::Seek(worker, sought) => self.hand_over(worker, port, frame, sought, false),
            Fate::Done => {}
        }
    }

    /// Gives the frame to the worker that it belongs to.
    #[cold]
    fn hand_over(&mut self, owner: usize, port: PortId, frame: Frame, sought: u8, is_misdirected: bool) {
        let counters = &self.counters;
        let trail = Trail { hops: self.trail.hops.saturating_add(1), sought };
        match self.handoff.give(owner, Stray::Packet(port, frame, trail)) {
            Ok(()) if is_misdirected => counters.misdirected.add(1),
            Ok(()) => counters.handed_over.add(1),
            Err(_) => self.count_drop(DropReason::HandoffFull, VirtualId::NONE),
        }
    }

    #[inline(always)]
    fn is_unknown_vlan(&self, port: PortId, vlan: u16) -> bool {
        vlan != 0 && !self.snapshot.has_link(LinkId::new(port, vlan))
    }

    /// Counts a drop, and says that the frame is done with.
    #[inline(never)]
    pub(crate) fn dropped(&self, reason: DropReason, virtual_id: VirtualId) -> Fate {
        self.count_drop(reason, virtual_id);
        Fate::Done
    }

    /// Counts a drop, for the worker and for the virtual server that the packet had matched.
    #[inline(never)]
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
    /// It waits until every worker gives ports by the same rule; the virtual server counts if it cannot.
    Later(VirtualId),
    /// It waits for a member of its pool.
    Queue(Ticket),
    /// It is a part of a packet (`fragment/path`).
    Fragment,
    /// It belongs to this worker, and its port should have brought it there.
    Misdirected(usize),
    /// This worker may know its flow; so many have been asked with it.
    Seek(usize, u8),
    /// It is answered, learnt from or dropped, and counted; the frame itself is no longer needed.
    Done,
}

/// One frame of the burst at hand.
pub(crate) struct Slot {
    pub(crate) packet: Packet,
    pub(crate) hash: u64,
    pub(crate) near: Candidate,
    pub(crate) found: Found,
}

impl Slot {
    pub(crate) const BLANK: Slot = Slot {
        packet: Packet::BLANK,
        hash: 0,
        near: Candidate::NONE,
        found: Found::Nothing(DropReason::Truncated),
    };
}

/// Packets whose memory is asked for before the first of them is decided. A whole burst would not stay in the nearest
/// cache; and what these may send, in pieces perhaps, has room where nothing waits.
pub const LOOK_AHEAD: usize = 32;
