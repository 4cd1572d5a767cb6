//! [`Process`]: the running workers, the configuration in force, and what the operator said since.
//!
//! Readers take the [`View`] as it is and never wait; whoever changes it holds the `change` lock, one at a time.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use foldhash::quality::FixedState;
use sluice_dataplane::clock::{Clock, Instant as ClockInstant};
use sluice_dataplane::config::ids::{MemberId, NodeId, VirtualId};
use sluice_dataplane::config::snapshot::Snapshot;
use sluice_dataplane::counters::WorkerCounters;
use sluice_dataplane::filter::RateTable;
use sluice_dataplane::frame::{Backing, FramePool};
use sluice_dataplane::handoff::{self, Handoff};
use sluice_dataplane::limits::Limits;
use sluice_dataplane::persist::PersistenceTable;
use sluice_dataplane::pool::{MemberState, MemberStates};
use sluice_dataplane::port::{self, OpenPort, PortError, PortInfo};
use sluice_dataplane::query::{Query, Reply};
use sluice_dataplane::quota::Quotas;
use sluice_dataplane::runtime::{self, Idle, WorkerHandle, WorkerSpec};
use sluice_dataplane::snat::rules::Rules;

use crate::access_log::AccessLogs;
use crate::check::Candidate;
use crate::compile::{self, Context};
use crate::ids::{Holders, IdBook, MemberKey, Reused};
use crate::model::{IdleMode, Member, Model, Name, StatedMember};
use crate::parse::{Fault, Kept};
use crate::stats::sums::{ConnectionsSum, MemberSums, VirtualSums, node_sum};
use crate::telemetry::Telemetry;

/// Ports that are open, and the cores of the workers that will own their queues.
pub struct Opened {
    /// In the order of their ids.
    pub ports: Vec<OpenPort>,
    /// Frame memory, one for each worker.
    pub pools: Vec<FramePool>,
    /// One for each worker; `None` leaves it to the kernel.
    pub cores: Vec<Option<usize>>,
}

impl Opened {
    /// Opens the ports that `model` asks for, with a queue for each of `cores`.
    ///
    /// # Errors
    /// The first port's that cannot be opened.
    pub fn open(model: &Model, cores: &[usize]) -> Result<Self, PortError> {
        let frames = model.system.limits.frames.as_usize();
        let pools: Vec<FramePool> = cores.iter().map(|_| FramePool::backed(frames, Backing::Auto)).collect();
        let specs = compile::port_specs(model);
        port::prepare(&specs, &model.system.dpdk.eal_args)?;
        let ports = specs.iter().map(|spec| port::open(spec, &pools)).collect::<Result<_, _>>()?;
        Ok(Self { ports, pools, cores: cores.iter().map(|core| Some(*core)).collect() })
    }
}

/// The configuration in force. Replaced as a whole.
#[derive(Clone)]
pub struct View {
    /// What was written.
    pub model: Arc<Model>,
    /// What workers got.
    pub snapshot: Arc<Snapshot>,
    /// The numbers of its objects.
    pub book: Arc<IdBook>,
    /// Changes with the model, and only with it.
    pub etag: Arc<str>,
    /// What is odd about it.
    pub warnings: Arc<Vec<Fault>>,
    /// What the next compilation is to know of it.
    pub context: Arc<Context>,
    /// Its text, as far as the next one need not say it anew.
    pub kept: Arc<Kept>,
    /// Member states that were said by `sluice member`, or with PATCH.
    pub said: Arc<BTreeMap<MemberKey, StatedMember>>,
    /// What numbers had counted when they stood for something else.
    pub baselines: Arc<Baselines>,
}

/// What numbers had counted when they stood for something else.
#[derive(Debug, Clone, Default)]
pub struct Baselines {
    /// Of virtual servers.
    pub virtuals: HashMap<VirtualId, VirtualSums>,
    /// Of members.
    pub members: HashMap<MemberId, MemberSums>,
    /// Of nodes.
    pub nodes: HashMap<NodeId, ConnectionsSum>,
}

/// A running data plane.
pub struct Process {
    workers: Vec<WorkerHandle>,
    ports: Vec<PortInfo>,
    members: Arc<MemberStates>,
    quotas: Arc<Quotas>,
    rules: Arc<Rules>,
    limits: Limits,
    persistence: Arc<PersistenceTable>,
    rates: Arc<RateTable>,
    /// The one that workers go by.
    clock: Clock,
    started: Instant,
    draining: AtomicBool,
    view: RwLock<Arc<View>>,
    /// What was in force before: kept, so that no worker is the last to let go of it and has to free it.
    retired: Mutex<Option<Arc<View>>>,
    /// Held by whoever changes the view.
    pub(crate) change: tokio::sync::Mutex<()>,
    /// The requests and connections that the workers tell of.
    pub access_logs: AccessLogs,
    /// The log and the metrics listener.
    pub telemetry: Telemetry,
}

impl Process {
    /// Starts the workers with `candidate`. They own the ports from here on.
    ///
    /// # Errors
    /// The kernel's, when a thread cannot be had.
    pub fn start(candidate: Candidate, opened: Opened, telemetry: Telemetry) -> std::io::Result<Self> {
        let limits = candidate.model.system.limits.limits();
        let members = Arc::new(MemberStates::new(limits.members));
        let view = View {
            etag: etag(&candidate.model),
            model: Arc::new(candidate.model),
            snapshot: Arc::new(Snapshot::build(candidate.parts)),
            book: Arc::new(candidate.book),
            warnings: Arc::new(candidate.warnings),
            context: Arc::new(candidate.context),
            kept: Arc::new(candidate.kept),
            said: Arc::default(),
            baselines: Arc::default(),
        };
        let clock = Clock::start();
        start_member_states(&members, &view);
        let quotas = Arc::new(Quotas::new(&limits, opened.cores.len()));
        quotas.set_limits(&view.snapshot);
        let ports = opened.ports.iter().map(|port| port.info.clone()).collect();
        let persistence = Arc::new(PersistenceTable::new(limits.persistence, limits.members));
        let access_logs = AccessLogs::new(opened.cores.len(), clock);
        access_logs.stock(&view.model, &view.snapshot);
        let rates = Arc::new(RateTable::new(RATE_KEYS_MAX));
        let rules = Arc::new(Rules::new(&limits, opened.cores.len(), &view.snapshot));
        let shared = (&members, &quotas, &persistence, &rates, &rules, &access_logs);
        let specs = worker_specs(&view, shared, &limits, clock, opened)?;
        let workers = specs.into_iter().map(runtime::spawn).collect::<std::io::Result<_>>()?;
        Ok(Self {
            workers,
            ports,
            members,
            quotas,
            rules,
            persistence,
            rates,
            limits,
            clock,
            started: Instant::now(),
            draining: AtomicBool::new(false),
            view: RwLock::new(Arc::new(view)),
            retired: Mutex::default(),
            change: tokio::sync::Mutex::new(()),
            access_logs,
            telemetry,
        })
    }

    /// The configuration in force.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another one in force. The caller holds the `change` lock, and lets go of what it gets back when nobody
    /// waits: that may have to be freed.
    pub(crate) fn set_view(&self, view: View) -> Option<Arc<View>> {
        let before = self.view();
        change_member_states(&self.members, &before, &view, self.clock.now());
        let is_newer = before.snapshot.generation() != view.snapshot.generation();
        if is_newer {
            self.quotas.set_limits(&view.snapshot);
            self.rules.announce(&before.snapshot, &view.snapshot, self.clock.now());
        }
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
        if !is_newer {
            return Some(before);
        }
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).replace(before)
    }

    /// The workers.
    pub fn workers(&self) -> &[WorkerHandle] {
        &self.workers
    }

    /// The ports, by their ids.
    pub fn ports(&self) -> &[PortInfo] {
        &self.ports
    }

    /// The process's capacities.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The persistence records of all workers.
    pub fn persistence_table(&self) -> &PersistenceTable {
        &self.persistence
    }

    /// Who has asked how often, for the rate limits of all workers.
    pub fn rate_table(&self) -> &RateTable {
        &self.rates
    }

    /// Milliseconds on the workers' clock.
    pub fn now_ms(&self) -> u64 {
        self.clock.now().as_ns() / 1_000_000
    }

    /// A member's state now.
    pub fn member_state(&self, id: MemberId) -> StatedMember {
        StatedMember::of(self.members.of(id))
    }

    /// When a member last came up; `None` for one that has been up from the start.
    pub fn member_up_since(&self, id: MemberId) -> Option<ClockInstant> {
        self.members.up_since(id)
    }

    /// How long it has run.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// True when every worker runs the newest configuration, and the process is not ending.
    pub fn is_ready(&self) -> bool {
        let generation = self.view().snapshot.generation();
        !self.is_draining()
            && self.workers.iter().all(|worker| worker.taken() >= generation && !worker.is_finished())
    }

    /// True once no new connections are taken.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// From now on no new connections.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.workers.iter().for_each(WorkerHandle::drain);
    }

    /// Ends the connections that are open, and tells both ends of each. Over when [`Process::connections`] is 0.
    pub fn end_connections(&self) {
        self.workers.iter().for_each(WorkerHandle::end_connections);
    }

    /// Connections open now, over all workers, those through virtual servers that are gone included.
    ///
    /// Summed over virtual servers, which workers count at once; their own gauges may be a second old.
    pub fn connections(&self) -> u64 {
        self.view().book.virtual_ids().map(|id| self.of_virtual(id)).fold(0, u64::wrapping_add)
    }

    /// The workers that have ended, though nobody told them to.
    pub fn ended(&self) -> Vec<usize> {
        self.workers.iter().filter(|worker| worker.is_finished()).map(WorkerHandle::number).collect()
    }

    /// Tells the workers to end and waits for them, a little while.
    pub async fn stop(&self) {
        self.workers.iter().for_each(WorkerHandle::stop);
        let start = Instant::now();
        while start.elapsed() < STOP_TIMEOUT && !self.workers.iter().all(WorkerHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.access_logs.stop();
        while start.elapsed() < STOP_TIMEOUT + ACCESS_LOG_TIMEOUT && !self.access_logs.is_over() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Asks a worker; `None` when it does not answer.
    pub async fn ask(&self, worker: &WorkerHandle, query: Query) -> Option<Reply> {
        let answer = worker.query(query);
        let start = Instant::now();
        loop {
            match answer.try_recv() {
                Ok(reply) => return Some(reply),
                Err(error) if error.is_disconnected() || start.elapsed() > ASK_TIMEOUT => return None,
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    /// Where numbers that change their object start to count.
    pub(crate) fn rebased(&self, baselines: &Baselines, reused: &Reused) -> Baselines {
        let mut baselines = baselines.clone();
        for id in &reused.virtuals {
            baselines.virtuals.insert(*id, VirtualSums::of(&self.workers, *id));
        }
        for id in &reused.members {
            baselines.members.insert(*id, MemberSums::of(&self.workers, *id));
        }
        for id in &reused.nodes {
            baselines.nodes.insert(*id, node_sum(&self.workers, *id));
        }
        baselines
    }
}

impl Holders for Process {
    fn oldest_generation(&self) -> u64 {
        self.workers.iter().map(WorkerHandle::taken).min().unwrap_or(u64::MAX)
    }

    fn of_virtual(&self, id: VirtualId) -> u64 {
        let current =
            |worker: &WorkerHandle| worker.counters().of_virtual(id).map(|of| of.connections.current.load());
        self.workers.iter().filter_map(current).fold(0, u64::wrapping_add)
    }

    fn of_member(&self, id: MemberId) -> u64 {
        let sum: ConnectionsSum = MemberSums::of(&self.workers, id).connections;
        sum.current
    }

    fn of_any(&self) -> u64 {
        self.connections()
    }
}

/// Every member's state as the workers start.
fn start_member_states(states: &MemberStates, view: &View) {
    stated_members(view, |_, id, state| states.set(id, state));
}

/// Every member's state from now on. Who becomes enabled, or is new in a pool that was there before, has come up now.
fn change_member_states(states: &MemberStates, before: &View, view: &View, now: ClockInstant) {
    stated_members(view, |pool, id, state| {
        // Another object cannot have had this number just before: it is given away later than that.
        let was_there = before.snapshot.member(id).is_some();
        if was_there || !before.model.pools.contains_key(pool) {
            states.change(id, state, now);
        } else {
            states.add(id, state, now);
        }
    });
}

/// What the file states of each member, else what was said, else enabled; the stricter of its own and its node's.
fn stated_members(view: &View, mut each: impl FnMut(&Name, MemberId, MemberState)) {
    let nodes: HashMap<_, _> = view.model.nodes.values().map(|node| (node.address, node.state)).collect();
    let said = |pool: &Name, member: &Member| {
        // Most often nothing was.
        let key = || (pool.clone(), member.address.0, member.port.0);
        if view.said.is_empty() { None } else { view.said.get(&key()).copied() }
    };
    for ((name, pool), compiled) in view.model.pools.iter().zip(&view.snapshot.parts().pools) {
        for (member, compiled) in pool.members.iter().zip(&compiled.members) {
            let state = said(name, member).or(member.state).unwrap_or(StatedMember::Enabled);
            let of_node = if nodes.is_empty() { None } else { nodes.get(&member.address) };
            let state = of_node.map_or(state, |of_node| state.max(*of_node));
            each(name, compiled.id, state.state());
        }
    }
}

/// What all workers share.
type Shared<'s> = (
    &'s Arc<MemberStates>,
    &'s Arc<Quotas>,
    &'s Arc<PersistenceTable>,
    &'s Arc<RateTable>,
    &'s Arc<Rules>,
    &'s AccessLogs,
);

fn worker_specs(
    view: &View,
    (members, quotas, persistence, rates, rules, access_logs): Shared<'_>,
    limits: &Limits,
    clock: Clock,
    opened: Opened,
) -> std::io::Result<Vec<WorkerSpec>> {
    let workers = opened.cores.len();
    let idle = match view.model.system.idle {
        IdleMode::Adaptive => Idle::Adaptive,
        IdleMode::Poll => Idle::Poll,
    };
    let mut queues: Vec<_> =
        opened.ports.into_iter().map(|port| (port.info, port.queues.into_iter())).collect();
    let counters: Vec<_> = (0..workers).map(|_| Arc::new(WorkerCounters::new(limits))).collect();
    let owned = opened.cores.into_iter().zip(opened.pools).zip(handoff::mesh(workers)?);
    let mut spec = |(number, ((core, frames), handoff)): (usize, ((_, FramePool), Handoff))| WorkerSpec {
        number,
        workers,
        core,
        ports: queues.iter_mut().filter_map(|(info, queues)| Some((info.clone(), queues.next()?))).collect(),
        frames,
        limits: limits.per_worker(workers),
        snapshot: Arc::clone(&view.snapshot),
        handoff,
        members: Arc::clone(members),
        quotas: Arc::clone(quotas),
        persistence: Arc::clone(persistence),
        rates: Arc::clone(rates),
        rules: Arc::clone(rules),
        counters: Arc::clone(&counters[number]),
        peers: others(&counters, number),
        access_log: access_logs.of_worker(number),
        idle,
        clock,
    };
    Ok(owned.enumerate().map(&mut spec).collect())
}

/// All but one.
fn others(counters: &[Arc<WorkerCounters>], number: usize) -> Vec<Arc<WorkerCounters>> {
    counters
        .iter()
        .enumerate()
        .filter(|(of, _)| *of != number)
        .map(|(_, counters)| Arc::clone(counters))
        .collect()
}

/// A strong validator of a model: its hash, the same in every process of this version.
pub fn etag(model: &Model) -> Arc<str> {
    format!("\"{:016x}\"", FixedState::with_seed(0).hash_one(model)).into()
}

/// Clients or field values that rate limits count apart, over all workers.
const RATE_KEYS_MAX: usize = 65_536;
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// What the last lines may take beyond that.
const ACCESS_LOG_TIMEOUT: Duration = Duration::from_secs(2);
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
