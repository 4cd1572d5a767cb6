//! Connections that are over and whose late segments are still to be answered: a few bytes each (RFC 9293
//! section 3.3.2, TIME-WAIT).

use crate::clock::Instant;
use crate::flow::key::FlowKey;
use crate::snat::ports::Pair;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The key of the peer's packets.
    pub key: FlowKey,
    /// What we would send next.
    pub seq: u32,
    /// What we expect next.
    pub ack: u32,
    /// The SNAT port to give back at the end, where our end has one.
    pub port: Option<Pair>,
}

/// What a segment for such a connection leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Nothing: it is old.
    Nothing,
    /// This acknowledgement: sequence number and acknowledgement number.
    Ack(u32, u32),
    /// The peer begins anew with a later sequence number (RFC 9293 section 3.6.1): the entry is gone, and the SYN opens a
    /// connection.
    Reopen(Waiting),
    /// A RST that ends it: ignored (RFC 1337).
    Ignore,
}

/// The connections in TIME-WAIT of one worker. Full, the oldest makes room.
#[derive(Debug)]
pub struct TimeWait {}

impl TimeWait {
    /// For `capacity` connections that wait `wait_ms` each.
    pub fn new(capacity: usize, wait_ms: u32) -> Self {
        let _ = (capacity, wait_ms);
        Self {}
    }

    /// Connections that wait.
    pub fn len(&self) -> usize {
        0
    }

    /// True when none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes taken.
    pub fn bytes(&self) -> usize {
        0
    }

    /// One more. Returns the one that made room.
    pub fn insert(&mut self, waiting: Waiting, now: Instant) -> Option<Waiting> {
        let _ = (waiting, now);
        None
    }

    /// A segment has come; `None` when it belongs to none of these.
    pub fn on_segment(&mut self, key: &FlowKey, flags: u8, seq: u32, payload: u32) -> Option<Answer> {
        let _ = (key, flags, seq, payload);
        None
    }

    /// One whose time is up; to be called until `None`, a bounded number of times a turn.
    pub fn poll(&mut self, now: Instant) -> Option<Waiting> {
        let _ = now;
        None
    }
}
