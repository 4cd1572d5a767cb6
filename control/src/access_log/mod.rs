//! The access log: takes the workers' records, makes lines of them, and writes these to where the operator wants.
//!
//! ```text
//!   worker 0 ── records ─┐                                          ┌─▶ file    reopened when it was moved
//!   worker 1 ── records ─┴─▶ thread `access-log` ── JSON lines ─────┴─▶ syslog  over UDP or TCP
//!                              ▲ follow, reopen, stop: never wait
//! ```
//!
//! A thread of its own, as even the write to a file may hang: then records are missing, counted, and nobody waits. It
//! is started by the first configuration that logs something, and sleeps while none does.

mod file;
mod json;
mod syslog;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sluice_dataplane::access_log::{AccessLog, SharedAccessLog};
use sluice_dataplane::clock::Clock;
use sluice_dataplane::config::ids::{MemberId, VirtualId};
use sluice_dataplane::config::snapshot::Snapshot;

use crate::model::{AccessLogTarget, Model};
use crate::parse::Fault;
use file::FileTarget;
use syslog::Syslog;

/// Records of one worker on their way at most: those of requests that go on, and those that wait to be written.
pub const RECORDS_MAX: usize = 4_096;

/// The access log of a process. Dropping it ends its thread.
pub struct AccessLogs {
    logs: Vec<SharedAccessLog>,
    clock: Clock,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What has become of lines since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines that the target took.
    pub lines: u64,
    /// Lines that it did not take.
    pub lost: u64,
    /// Times that it failed.
    pub errors: u64,
}

/// Refuses a model whose access log cannot be opened.
///
/// # Errors
/// The kernel's, as a fault at its place.
pub fn check(model: &Model) -> Result<(), Fault> {
    let target = model.telemetry.access_log.as_ref();
    let Some(path) = target.and_then(|target| target.file.as_deref()) else { return Ok(()) };
    file::open(path).map(|_| ()).map_err(|why| {
        let message = format!("expected a file that can be written to: {why}");
        Fault::new("/telemetry/access_log/file", message)
    })
}

impl AccessLogs {
    /// One log for each of `workers`, whose clock is `clock`. Nothing is logged yet.
    pub fn new(workers: usize, clock: Clock) -> Self {
        let logs = (0..workers).map(|_| Arc::new(AccessLog::new(RECORDS_MAX))).collect();
        Self { logs, clock, shared: Arc::default(), thread: Mutex::default() }
    }

    /// The log of one worker; one that holds nothing when there is no such worker.
    pub fn of_worker(&self, worker: usize) -> SharedAccessLog {
        self.logs.get(worker).map_or_else(|| Arc::new(AccessLog::new(0)), Arc::clone)
    }

    /// Makes records when `model` logs something, about 5 MiB a worker; frees them when it does not.
    pub fn stock(&self, model: &Model, snapshot: &Snapshot) {
        let count = if is_on(model, snapshot) { RECORDS_MAX } else { 0 };
        self.logs.iter().for_each(|log| log.stock(count));
    }

    /// Puts `model`'s wishes in force. Never waits.
    pub fn follow(&self, model: &Model, snapshot: &Arc<Snapshot>) {
        self.stock(model, snapshot);
        let target = model.telemetry.access_log.clone().filter(|_| is_on(model, snapshot));
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if target.is_none() && thread.is_none() {
            return;
        }
        self.shared.order(|orders| orders.news = Some(News { target, snapshot: Arc::clone(snapshot) }));
        if thread.is_none() {
            *thread = self.start();
        }
    }

    fn start(&self) -> Option<JoinHandle<()>> {
        let (logs, clock, shared) = (self.logs.clone(), self.clock, Arc::clone(&self.shared));
        let run = move || Writer::new(logs, clock, &shared).run();
        let started = std::thread::Builder::new().name("access-log".into()).spawn(run);
        started.inspect_err(|why| tracing::error!(%why, "the access log has no thread")).ok()
    }

    /// Opens the file anew: SIGHUP has come.
    pub fn reopen(&self) {
        self.shared.order(|orders| orders.reopen = true);
    }

    /// Writes what is there and ends; [`AccessLogs::is_over`] says when.
    pub fn stop(&self) {
        self.shared.order(|orders| orders.stop = true);
    }

    /// True when nothing is being written any more, nor will be.
    pub fn is_over(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// What has become of lines since the start.
    pub fn counts(&self) -> Counts {
        let tally = &self.shared.tally;
        Counts {
            lines: tally.lines.load(Ordering::Relaxed),
            lost: tally.lost.load(Ordering::Relaxed),
            errors: tally.errors.load(Ordering::Relaxed),
        }
    }
}

impl Drop for AccessLogs {
    fn drop(&mut self) {
        self.stop();
    }
}

/// True when `model` says where to, and some virtual server of it has something to say.
fn is_on(model: &Model, snapshot: &Snapshot) -> bool {
    let mut profiles = snapshot.parts().virtuals.iter().filter_map(|server| server.proxy.as_ref());
    model.telemetry.access_log.is_some() && profiles.any(|profile| profile.access_log)
}

#[derive(Default)]
struct Shared {
    orders: Mutex<Orders>,
    changed: Condvar,
    tally: Tally,
}

/// What the thread is told.
#[derive(Default)]
struct Orders {
    news: Option<News>,
    reopen: bool,
    stop: bool,
}

struct News {
    target: Option<AccessLogTarget>,
    snapshot: Arc<Snapshot>,
}

#[derive(Default)]
struct Tally {
    lines: AtomicU64,
    lost: AtomicU64,
    errors: AtomicU64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.lock());
        self.changed.notify_one();
    }

    /// What was ordered; waits for that, for `pause` at most when there is one.
    fn wait(&self, pause: Option<Duration>) -> Orders {
        let nothing = |orders: &mut Orders| orders.news.is_none() && !orders.reopen && !orders.stop;
        let mut orders = match pause {
            Some(pause) => {
                let waited = self.changed.wait_timeout_while(self.lock(), pause, nothing);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.changed.wait_while(self.lock(), nothing).unwrap_or_else(PoisonError::into_inner),
        };
        std::mem::take(&mut orders)
    }
}

/// What a target did with a batch, or in between.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    /// Lines that it took.
    lines: u64,
    /// Lines that it did not take.
    lost: u64,
    /// Why it failed.
    error: Option<String>,
}

/// Lines that are written together.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Where each line ends, its line feed included.
    ends: Vec<usize>,
}

impl Batch {
    fn len(&self) -> u64 {
        self.ends.len() as u64
    }

    /// Without their line feeds.
    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| &self.bytes[begin..end - 1])
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

enum Target {
    Nowhere,
    File(FileTarget),
    Syslog(Syslog),
}

impl Target {
    fn of(target: Option<&AccessLogTarget>) -> Self {
        match target {
            Some(AccessLogTarget { file: Some(path), .. }) => Target::File(FileTarget::new(path)),
            Some(AccessLogTarget { syslog: Some(syslog), .. }) => Target::Syslog(Syslog::new(syslog)),
            _ => Target::Nowhere,
        }
    }

    fn write(&mut self, batch: &Batch, now: Instant) -> Report {
        match self {
            Target::Nowhere => Report { lost: batch.len(), ..Report::default() },
            Target::File(file) => file.write(batch),
            Target::Syslog(syslog) => syslog.write(batch, SystemTime::now(), now),
        }
    }

    fn tick(&mut self, now: Instant) -> Report {
        match self {
            Target::Nowhere => Report::default(),
            Target::File(file) => file.tick(now),
            Target::Syslog(syslog) => syslog.tick(now),
        }
    }

    /// Lines that it has taken and could not pass on yet.
    fn waiting(&self) -> u64 {
        if let Target::Syslog(syslog) = self { syslog.waiting() } else { 0 }
    }
}

/// What the numbers in records stand for: in the configuration in force, else in the one before.
#[derive(Default)]
struct Names {
    snapshots: [Option<Arc<Snapshot>>; 2],
}

impl Names {
    fn follow(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshots[1] = self.snapshots[0].replace(snapshot);
    }

    fn virtual_server(&self, id: VirtualId) -> &str {
        let mut known = self.snapshots.iter().flatten().filter_map(|snapshot| snapshot.virtual_by_id(id));
        known.next().map_or("", |server| &server.name)
    }

    fn pool_of(&self, member: MemberId) -> &str {
        let mut known =
            self.snapshots.iter().flatten().filter_map(|snapshot| snapshot.pool_of_member(member));
        known.next().map_or("", |pool| &pool.name)
    }
}

/// What the thread owns.
struct Writer<'a> {
    logs: Vec<SharedAccessLog>,
    clock: Clock,
    shared: &'a Shared,
    names: Names,
    wanted: Option<AccessLogTarget>,
    target: Target,
    batch: Batch,
    /// The last round found much to do.
    is_busy: bool,
    /// When the log last told of a failure.
    complained: Option<Instant>,
}

impl<'a> Writer<'a> {
    fn new(logs: Vec<SharedAccessLog>, clock: Clock, shared: &'a Shared) -> Self {
        Self {
            logs,
            clock,
            shared,
            names: Names::default(),
            wanted: None,
            target: Target::Nowhere,
            batch: Batch::default(),
            is_busy: false,
            complained: None,
        }
    }

    fn run(&mut self) {
        loop {
            let orders = self.shared.wait(self.pause());
            if let Some(news) = orders.news {
                self.turn_to(news);
            }
            if let (true, Target::File(file)) = (orders.reopen, &mut self.target) {
                file.reopen();
            }
            self.round();
            if orders.stop {
                return self.finish();
            }
        }
    }

    /// Until the next round; `None` when none is needed. A worker's queue holds what 80,000 requests a second bring
    /// in the longer one.
    fn pause(&self) -> Option<Duration> {
        match self.target {
            Target::Nowhere => None,
            _ if self.is_busy || self.target.waiting() > 0 => Some(PAUSE_BUSY),
            _ => Some(PAUSE_QUIET),
        }
    }

    /// What was submitted before goes to the former target.
    fn turn_to(&mut self, news: News) {
        if news.target != self.wanted {
            // Without one the first records may be there before the news.
            if self.wanted.is_some() {
                self.round();
            }
            let lost = self.target.waiting();
            self.count(Report { lost, ..Report::default() });
            self.target = Target::of(news.target.as_ref());
            self.wanted = news.target;
        }
        self.names.follow(news.snapshot);
    }

    /// Writes what there is.
    fn round(&mut self) {
        let ahead = clock_ahead(&self.clock);
        self.is_busy = false;
        for worker in 0..self.logs.len() {
            let waiting = self.logs[worker].waiting();
            self.is_busy |= waiting > RECORDS_MAX / 8;
            // What comes meanwhile is for the next round, so that every worker has its turn.
            for _ in 0..waiting {
                self.write_next(worker, ahead);
            }
        }
        self.flush();
        let report = self.target.tick(Instant::now());
        self.count(report);
    }

    fn write_next(&mut self, worker: usize, ahead: u64) {
        let Some(record) = self.logs[worker].take() else { return };
        let began = ahead.saturating_add(record.began_ns);
        json::write_line(&mut self.batch.bytes, &record, &self.names, began, worker);
        self.batch.ends.push(self.batch.bytes.len());
        self.logs[worker].give_back(record);
        if self.batch.bytes.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.batch.len() > 0 {
            let report = self.target.write(&self.batch, Instant::now());
            self.count(report);
            self.batch.clear();
        }
    }

    /// The workers are over: what they left is written, as long as that does not take too long.
    fn finish(&mut self) {
        let start = Instant::now();
        while self.target.waiting() > 0 && start.elapsed() < FINISH_TIMEOUT {
            std::thread::sleep(PAUSE_BUSY);
            let report = self.target.tick(Instant::now());
            self.count(report);
        }
        self.count(Report { lost: self.target.waiting(), ..Report::default() });
    }

    /// Counts, and tells of failures once a minute at most.
    fn count(&mut self, report: Report) {
        let tally = &self.shared.tally;
        tally.lines.fetch_add(report.lines, Ordering::Relaxed);
        tally.lost.fetch_add(report.lost, Ordering::Relaxed);
        let Some(why) = report.error else { return };
        tally.errors.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        if self.complained.is_none_or(|before| now.duration_since(before) >= COMPLAINTS_PERIOD) {
            self.complained = Some(now);
            let lost = tally.lost.load(Ordering::Relaxed);
            tracing::warn!(%why, lost_lines = lost, "the access log cannot be written");
        }
    }
}

/// What to add to the workers' time, in nanoseconds, to have that of the machine's calendar. Looked at in every round:
/// the machine's clock may be set.
fn clock_ahead(clock: &Clock) -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    unix_ns(wall).saturating_sub(clock.now().as_ns())
}

fn unix_ns(wall: Duration) -> u64 {
    u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX)
}

const PAUSE_QUIET: Duration = Duration::from_millis(50);
const PAUSE_BUSY: Duration = Duration::from_millis(5);
const BATCH_BYTES: usize = 64 << 10;
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);
const COMPLAINTS_PERIOD: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
