//! The access log's way out of a worker: one record a request or connection, over a bounded queue. Never waits.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use crate::address::Address;
use crate::config::ids::{MemberId, VirtualId};
use crate::counters::Counter;

/// Text of a record at most, in bytes: method, host, path with query, user agent, referer.
pub const TEXT_MAX: usize = 1024;

/// One request, or one connection of a virtual server without HTTP.
#[derive(Debug, Clone)]
pub struct AccessRecord {
    /// The virtual server.
    pub virtual_id: VirtualId,
    /// The member; none when nobody was asked.
    pub member_id: MemberId,
    /// The client.
    pub client: (Address, u16),
    /// What the client connected to.
    pub destination: (Address, u16),
    /// Who answered; unspecified when nobody was asked.
    pub member: (Address, u16),
    /// When the request or connection began, in nanoseconds of the workers' clock.
    pub began_ns: u64,
    /// From then to the end, in nanoseconds.
    pub duration_ns: u64,
    /// From the end of the request to the first byte of the response, in nanoseconds; 0 when there was none.
    pub first_byte_ns: u64,
    /// The status that the client got; 0 when none, and for connections without HTTP.
    pub status: u16,
    /// Bytes from the client: bodies of requests, or all of a connection.
    pub received: u64,
    /// Bytes to the client: bodies of responses, or all of a connection.
    pub sent: u64,
    /// Minor version of HTTP; `None` for a connection without.
    pub http_minor: Option<u8>,
    /// How it ended, in a word: `done`, or why it did not come to that.
    pub outcome: &'static str,
    /// The texts, one after the other, cut where they are too long.
    pub text: Text,
}

/// Short texts in one fixed buffer.
#[derive(Debug, Clone, Default)]
pub struct Text {
    bytes: Vec<u8>,
    ends: [u16; Part::COUNT],
}

/// Which text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The method.
    Method,
    /// The host that the client asked for.
    Host,
    /// Path and query as the client sent them.
    Path,
    /// User-Agent.
    UserAgent,
    /// Referer.
    Referer,
    /// The name of the rule.
    Route,
}

impl Part {
    /// How many there are.
    pub const COUNT: usize = 6;
}

/// Where a worker puts its records.
#[derive(Debug)]
pub struct AccessLog {
    records: ArrayQueue<Box<AccessRecord>>,
    /// Records, used up, to be filled again.
    empty: ArrayQueue<Box<AccessRecord>>,
    /// Records that found the queue full.
    pub dropped: Counter,
    /// Records that were put in.
    pub written: Counter,
}

/// Shared by the control thread and one worker.
pub type SharedAccessLog = Arc<AccessLog>;
