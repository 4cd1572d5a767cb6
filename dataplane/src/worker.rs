//! The worker: everything one pinned thread owns, and its turn.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Instant;
use crate::config::snapshot::Snapshot;
use crate::query::{Query, Reply};
use crate::runtime::WorkerSpec;

/// Whether a turn found work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Frames came or went, or timers were due.
    Busy,
    /// Nothing to do.
    Quiet,
}

/// What is true of a worker once it has started, for `show workers`.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// Its tables.
    pub tables: Vec<TableFacts>,
}

/// One table of a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct TableFacts {
    /// What it holds, as in `docs/LIMITS.md`.
    pub name: &'static str,
    /// How many it can hold.
    pub capacity: usize,
    /// Bytes taken for it, resident or not.
    pub bytes: usize,
    /// `huge` or `ordinary`.
    pub pages: &'static str,
}

/// One worker.
pub struct Worker {
    spec: WorkerSpec,
}

impl Worker {
    /// Takes all its tables.
    pub fn new(spec: WorkerSpec) -> Self {
        Self { spec }
    }

    /// One turn: receive, decide, send, run due timers.
    pub fn turn(&mut self, now: Instant) -> Activity {
        let _ = now;
        Activity::Quiet
    }

    /// Puts a new configuration in force.
    pub fn apply(&mut self, snapshot: Arc<Snapshot>, now: Instant) {
        let _ = now;
        self.spec.snapshot = snapshot;
    }

    /// The generation of the configuration in force.
    pub fn generation(&self) -> u64 {
        self.spec.snapshot.generation()
    }

    /// Answers a question. Bounded work.
    pub fn answer(&mut self, query: &Query, now: Instant) -> Reply {
        let _ = now;
        match query {
            Query::Flows { .. } => Reply::Flows(crate::query::FlowPage::default()),
            Query::Neighbors => Reply::Neighbors(Vec::new()),
        }
    }

    /// From now on no new flows.
    pub fn drain(&mut self) {}

    /// Table sizes and where their memory came from.
    pub fn facts(&self) -> Facts {
        Facts { tables: Vec::new() }
    }

    /// What to sleep on, by port.
    pub fn wait_fds(&self) -> Vec<Option<RawFd>> {
        self.spec.ports.iter().map(|(_, queue)| queue.wait_fd()).collect()
    }

    /// How long nothing will be due.
    pub fn next_due(&self, now: Instant) -> Duration {
        let _ = now;
        Duration::from_secs(1)
    }

    /// Says how long the worker has slept.
    pub fn slept(&mut self, span: Duration) {
        let _ = span;
    }
}
