//! One worker of the simulated process, with its ends of the ports.

use std::sync::Arc;

use sluice_dataplane::access_log::AccessLog;
use sluice_dataplane::clock::{Clock, Instant};
use sluice_dataplane::config::ids::{MemberId, PortId, VirtualId};
use sluice_dataplane::config::snapshot::Snapshot;
use sluice_dataplane::counters::WorkerCounters;
use sluice_dataplane::flow::key::HashSeed;
use sluice_dataplane::frame::{Frame, FramePool};
use sluice_dataplane::handoff::{self, Handoff};
use sluice_dataplane::limits::Limits;
use sluice_dataplane::persist::PersistenceTable;
use sluice_dataplane::pool::MemberStates;
use sluice_dataplane::port::memory::{self, MemoryPeer};
use sluice_dataplane::query::{FlowInfo, Query, Reply};
use sluice_dataplane::quota::Quotas;
use sluice_dataplane::runtime::{Idle, WorkerSpec};
use sluice_dataplane::snat::rules::Rules;
use sluice_dataplane::worker::{Activity, Worker};
use sluice_ffi::memory::Backing;

use super::schedule::Plan;
use crate::world::{EXTERNAL_MAC, INTERNAL_MAC};

pub struct Node {
    pub worker: Worker,
    pub counters: Arc<WorkerCounters>,
    pub limits: Limits,
    /// Shared by all.
    pub rules: Arc<Rules>,
    ports: [MemoryPeer; 2],
    own_frames: FramePool,
    /// When it last took a turn, and whether it was given a frame since.
    turned: u64,
    given: bool,
}

impl Node {
    /// All workers of a plan's process.
    pub fn all(
        plan: &Plan,
        snapshot: &Arc<Snapshot>,
        states: &Arc<MemberStates>,
        quotas: &Arc<Quotas>,
    ) -> Vec<Self> {
        let mesh = handoff::mesh(plan.workers).expect("an event for each worker");
        let persistence = Arc::new(PersistenceTable::new(plan.limits.persistence, plan.limits.members));
        let rules = Arc::new(Rules::new(&plan.limits, plan.workers, snapshot));
        let one = |(number, handoff)| {
            let shared = (Arc::clone(snapshot), Arc::clone(states), Arc::clone(quotas), Arc::clone(&rules));
            Self::new(plan, number, handoff, shared, Arc::clone(&persistence))
        };
        mesh.into_iter().enumerate().map(one).collect()
    }

    fn new(
        plan: &Plan,
        number: usize,
        handoff: Handoff,
        (snapshot, members, quotas, rules): (Arc<Snapshot>, Arc<MemberStates>, Arc<Quotas>, Arc<Rules>),
        persistence: Arc<PersistenceTable>,
    ) -> Self {
        let ((external, outer), (internal, inner)) = (memory::pair(QUEUE_DEPTH), memory::pair(QUEUE_DEPTH));
        let counters = Arc::new(WorkerCounters::new(&plan.limits));
        let (limits, own_frames) = (plan.share(), FramePool::new(plan.limits.frames));
        let spec = WorkerSpec {
            number,
            workers: plan.workers,
            core: None,
            ports: vec![
                (memory::info("external", EXTERNAL_MAC), Box::new(external)),
                (memory::info("internal", INTERNAL_MAC), Box::new(internal)),
            ],
            frames: own_frames.clone(),
            limits,
            snapshot,
            handoff,
            members,
            quotas,
            persistence,
            rates: Arc::default(),
            rules: Arc::clone(&rules),
            counters: Arc::clone(&counters),
            peers: Vec::new(),
            access_log: Arc::new(AccessLog::new(0)),
            idle: Idle::Poll,
            clock: Clock::start(),
        };
        let seed = HashSeed::fixed(plan.seed ^ ((number as u64) << 32));
        let worker = Worker::with_tables(spec, seed, Backing::Ordinary);
        Self { worker, counters, limits, rules, ports: [outer, inner], own_frames, turned: 0, given: true }
    }

    /// True when a turn may find something: a frame, or a timer.
    pub fn has_cause(&self, now: u64) -> bool {
        self.given || now >= self.turned + LONGEST_REST_MS
    }

    pub fn turn(&mut self, now: u64) -> bool {
        (self.turned, self.given) = (now, false);
        self.worker.turn(Instant::from_ms(now)) == Activity::Busy
    }

    pub fn apply(&mut self, snapshot: &Arc<Snapshot>, now: u64) {
        self.worker.apply(Arc::clone(snapshot), Instant::from_ms(now));
    }

    /// Puts a frame into the worker's queue; false when there is no room.
    pub fn give(&mut self, port: PortId, frame: Frame) -> bool {
        self.given = true;
        self.ports[usize::from(port.0)].send(frame).is_ok()
    }

    pub fn take(&self, port: PortId) -> Option<Frame> {
        self.ports[usize::from(port.0)].recv()
    }

    pub fn flows(&mut self, now: u64) -> Vec<FlowInfo> {
        let (mut all, mut next) = (Vec::new(), Some(0));
        while let Some(after) = next {
            match self.worker.answer(&Query::Flows { after, max: 256 }, Instant::from_ms(now)) {
                Reply::Flows(page) => {
                    all.extend(page.flows);
                    next = page.next;
                }
                _ => unreachable!("flows were asked for"),
            }
        }
        all
    }

    pub fn neighbors(&mut self, now: u64) -> usize {
        match self.worker.answer(&Query::Neighbors, Instant::from_ms(now)) {
            Reply::Neighbors(neighbors) => neighbors.len(),
            _ => unreachable!("neighbours were asked for"),
        }
    }

    pub fn open_by_virtual(&self, id: VirtualId) -> u64 {
        self.counters.of_virtual(id).map_or(0, |counters| counters.connections.current.load())
    }

    pub fn open_by_member(&self, id: MemberId) -> u64 {
        self.counters.of_member(id).map_or(0, |counters| counters.connections.current.load())
    }

    /// Frames of its own memory that are in use.
    pub fn own_frames(&self) -> u64 {
        self.own_frames.in_use() as u64
    }

    /// What must be 0 when every flow has ended.
    pub fn leftovers(&self) -> [(&'static str, u64); 4] {
        let counters = &self.counters;
        [
            ("flows", counters.flows.load()),
            ("half-open flows", counters.half_open.load()),
            ("SNAT ports", counters.snat_ports.load()),
            ("frames of its own", self.own_frames()),
        ]
    }
}

const QUEUE_DEPTH: usize = 256;
/// A worker's timers are looked at this often at least.
const LONGEST_REST_MS: u64 = 16;
