//! Worker threads: starting, pinning, the loop, and the control thread's handle on each.
//!
//! ```text
//!   control ── publish(snapshot) ─▶ mailbox ─▶ worker        acknowledge(generation) ─▶ taken()
//!           ── query(..) ─────────▶ mailbox ─▶ worker ─▶ Reply
//!           ── stop() ────────────▶
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel;
use sluice_ffi::wait::{self, Waker};

use crate::access_log::SharedAccessLog;
use crate::clock::Clock;
use crate::config::mailbox::{self, Mail, Receiver, Sender};
use crate::config::snapshot::Snapshot;
use crate::counters::WorkerCounters;
use crate::filter::RateTable;
use crate::frame::FramePool;
use crate::handoff::Handoff;
use crate::limits::Limits;
use crate::persist::PersistenceTable;
use crate::pool::MemberStates;
use crate::port::{self, PortInfo, PortQueue};
use crate::query::{Query, Reply};
use crate::quota::Quotas;
use crate::snat::rules::Rules;
use crate::worker::{Activity, Facts, Worker};

/// What a worker does when there is nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Idle {
    /// Sleeps until a port has frames (AF_PACKET), or for up to half a millisecond (ports that can only be polled).
    #[default]
    Adaptive,
    /// Never sleeps.
    Poll,
}

/// What a worker thread is made of.
pub struct WorkerSpec {
    /// 0, 1, …
    pub number: usize,
    /// How many workers there are.
    pub workers: usize,
    /// The core to pin to; `None` leaves it to the kernel.
    pub core: Option<usize>,
    /// The worker's queue on every port, by port id.
    pub ports: Vec<(PortInfo, Box<dyn PortQueue>)>,
    /// Frame memory for replies and for drivers without their own.
    pub frames: FramePool,
    /// This worker's share of the capacities ([`Limits::per_worker`]); tables are taken at start.
    pub limits: Limits,
    /// The configuration to start with.
    pub snapshot: Arc<Snapshot>,
    /// This worker's ends of the rings that [`crate::handoff::mesh`] made for all.
    pub handoff: Handoff,
    /// Shared by all workers.
    pub members: Arc<MemberStates>,
    /// Shared by all workers; the limits of `snapshot` are set.
    pub quotas: Arc<Quotas>,
    /// Shared by all workers.
    pub persistence: Arc<PersistenceTable>,
    /// Shared by all workers.
    pub rates: Arc<RateTable>,
    /// Shared by all workers; made with `snapshot`.
    pub rules: Arc<Rules>,
    /// What it counts into; made for the process's whole limits, not the worker's share.
    pub counters: Arc<WorkerCounters>,
    /// What the other workers count into: their connections count for balancing, too.
    pub peers: Vec<Arc<WorkerCounters>>,
    /// Where its requests and connections are written down.
    pub access_log: SharedAccessLog,
    /// What to do when there is nothing to do.
    pub idle: Idle,
    /// The process's clock.
    pub clock: Clock,
}

/// The control thread's handle on a running worker.
pub struct WorkerHandle {
    number: usize,
    core: Option<usize>,
    mailbox: Sender<Arc<Snapshot>, Message>,
    waker: Waker,
    /// The last step of its end that it was told to take.
    order: Arc<AtomicU8>,
    counters: Arc<WorkerCounters>,
    access_log: SharedAccessLog,
    facts: Facts,
    thread: JoinHandle<()>,
}

pub(crate) struct Message(Query, channel::Sender<Reply>);

/// How a worker's end comes, step by step and never back: no mailbox is too full for that.
const DRAIN: u8 = 1;
const END_CONNECTIONS: u8 = 2;
const STOP: u8 = 3;

/// Starts a worker thread. Returns when its tables are taken and it polls its ports.
///
/// # Errors
/// The kernel's, when no thread or descriptor is to be had.
pub fn spawn(spec: WorkerSpec) -> std::io::Result<WorkerHandle> {
    let (sender, receiver) = mailbox::mailbox(MAILBOX_DEPTH);
    let (ready, started) = channel::bounded(1);
    let waker = spec.handoff.waker().clone();
    let order = Arc::new(AtomicU8::new(0));
    let (number, core, counters) = (spec.number, spec.core, Arc::clone(&spec.counters));
    let access_log = Arc::clone(&spec.access_log);
    let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn({
        let (order, waker) = (Arc::clone(&order), waker.clone());
        move || run(spec, &receiver, &waker, &order, &ready)
    })?;
    let facts = started.recv().map_err(|_| std::io::Error::other("the worker ended while starting"))?;
    Ok(WorkerHandle { number, core, mailbox: sender, waker, order, counters, access_log, facts, thread })
}

impl WorkerHandle {
    /// 0, 1, …
    pub fn number(&self) -> usize {
        self.number
    }

    /// The core it is pinned to.
    pub fn core(&self) -> Option<usize> {
        self.core
    }

    /// What was true when it started: table sizes, and where their memory came from.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What it counts.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.counters
    }

    /// What it writes its requests and connections to.
    pub fn access_log(&self) -> &SharedAccessLog {
        &self.access_log
    }

    /// Hands over a new configuration, in place of one that still waits. In force when [`WorkerHandle::taken`] has
    /// reached its generation.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        self.mailbox.replace(snapshot);
        self.waker.wake();
    }

    /// The newest generation in force.
    pub fn taken(&self) -> u64 {
        self.mailbox.taken()
    }

    /// Asks the worker something; the answer comes on the channel within a turn of its loop, or the channel
    /// closes when the worker has ended or its mailbox is full.
    pub fn query(&self, query: Query) -> channel::Receiver<Reply> {
        let (sender, receiver) = channel::bounded(1);
        let _ = self.post(Message(query, sender));
        receiver
    }

    /// From now on: no new flows. Flows that are open go on.
    pub fn drain(&self) {
        self.tell(DRAIN);
    }

    /// From now on: flows that are open are ended, each with a RST to both sides where it is TCP.
    pub fn end_connections(&self) {
        self.tell(END_CONNECTIONS);
    }

    /// Tells the worker to end after its current turn.
    pub fn stop(&self) {
        self.tell(STOP);
    }

    fn tell(&self, step: u8) {
        self.order.fetch_max(step, Ordering::Release);
        self.waker.wake();
    }

    /// True when the thread has ended, whether told to or by a panic.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the thread's end.
    ///
    /// # Errors
    /// What the worker said when it panicked.
    pub fn join(self) -> Result<(), String> {
        self.thread.join().map_err(|panic| {
            let text = panic.downcast_ref::<&str>().map(ToString::to_string);
            text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "unknown panic".into())
        })
    }

    fn post(&self, message: Message) -> Result<(), Message> {
        self.mailbox.post(message)?;
        self.waker.wake();
        Ok(())
    }
}

fn run(
    spec: WorkerSpec,
    mailbox: &Receiver<Arc<Snapshot>, Message>,
    waker: &Waker,
    order: &AtomicU8,
    ready: &channel::Sender<Facts>,
) {
    if let Some(id) = spec.core {
        core_affinity::set_for_current(core_affinity::CoreId { id });
    }
    let _registered = port::enter_worker();
    let (idle, clock) = (spec.idle, spec.clock);
    let mut worker = Worker::new(spec);
    let _ = ready.send(worker.facts());
    mailbox.acknowledge(worker.generation());
    let mut sleep = Sleep::new(idle, worker.wait_fds(), waker);
    let mut done = 0;
    while done < STOP {
        let now = clock.now();
        let activity = worker.turn(now);
        while let Some(mail) = mailbox.take() {
            handle_mail(&mut worker, mailbox, mail, now);
        }
        obey(&mut worker, &mut done, order.load(Ordering::Acquire));
        sleep.after(activity, &mut worker, &clock);
    }
}

/// Takes every step up to the one that was ordered.
#[inline]
fn obey(worker: &mut Worker, done: &mut u8, order: u8) {
    while *done < order {
        *done += 1;
        match *done {
            DRAIN if order < STOP => worker.drain(),
            END_CONNECTIONS if order < STOP => worker.end_connections(),
            _ => {}
        }
    }
}

fn handle_mail(
    worker: &mut Worker,
    mailbox: &Receiver<Arc<Snapshot>, Message>,
    mail: Mail<Arc<Snapshot>, Message>,
    now: crate::clock::Instant,
) {
    match mail {
        Mail::Newest(snapshot) => {
            worker.apply(snapshot, now);
            mailbox.acknowledge(worker.generation());
        }
        Mail::Message(Message(query, reply)) => {
            let _ = reply.try_send(worker.answer(&query, now));
        }
    }
}

/// When and how a worker sleeps.
struct Sleep<'a> {
    idle: Idle,
    fds: Vec<std::os::fd::RawFd>,
    polled_only: bool,
    quiet_turns: u32,
    waker: &'a Waker,
}

impl<'a> Sleep<'a> {
    fn new(idle: Idle, ports: Vec<Option<std::os::fd::RawFd>>, waker: &'a Waker) -> Self {
        let polled_only = ports.iter().any(Option::is_none);
        let fds = std::iter::once(waker.fd()).chain(ports.into_iter().flatten()).collect();
        Self { idle, fds, polled_only, quiet_turns: 0, waker }
    }

    fn after(&mut self, activity: Activity, worker: &mut Worker, clock: &Clock) {
        if activity == Activity::Busy || self.idle == Idle::Poll {
            self.quiet_turns = 0;
            return;
        }
        self.quiet_turns = self.quiet_turns.saturating_add(1);
        if self.quiet_turns < QUIET_TURNS_BEFORE_SLEEP {
            return;
        }
        let before = clock.now();
        let longest = if self.polled_only { self.polled_sleep() } else { LONGEST_SLEEP };
        let woken = wait::wait_readable(&self.fds, longest.min(worker.next_due(before)));
        worker.slept(clock.now().since(before));
        self.waker.clear();
        if woken {
            self.quiet_turns = 0;
        }
    }

    /// Nothing wakes us for a port that can only be polled, so sleeps grow with the quiet: 10 µs, 20 µs, …
    fn polled_sleep(&self) -> Duration {
        POLLED_SLEEP_MAX.min(POLLED_SLEEP_STEP * (self.quiet_turns - QUIET_TURNS_BEFORE_SLEEP + 1))
    }
}

const MAILBOX_DEPTH: usize = 64;
const QUIET_TURNS_BEFORE_SLEEP: u32 = 4;
const POLLED_SLEEP_STEP: Duration = Duration::from_micros(10);
const POLLED_SLEEP_MAX: Duration = Duration::from_micros(500);
const LONGEST_SLEEP: Duration = Duration::from_millis(250);
