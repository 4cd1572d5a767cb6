//! The access log's way out of a worker: one record a request or connection, over a bounded queue. Never waits.
//!
//! ```text
//!   control ── stock ─▶ empty ── begin ─▶ the worker fills it ── submit ─▶ records ── take ─▶ control
//!                         ▲                     └ discard ┐                                     │
//!                         └───────────────────────────────┴────────────── give_back ────────────┘
//! ```
//!
//! Records go round and round: the control thread makes them when something is to be logged, and frees them when
//! nothing is any more; the worker allocates none. What becomes of a record is the control thread's business.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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

impl AccessRecord {
    /// A record that says nothing, with room for its texts. Allocates.
    pub fn blank() -> Self {
        Self { text: Text::with_room(), ..Self::NOTHING }
    }

    /// As [`AccessRecord::blank`], in place. Allocates nothing.
    fn clear(&mut self) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        *self = Self { text, ..Self::NOTHING };
    }

    const NOTHING: Self = Self {
        virtual_id: VirtualId::NONE,
        member_id: MemberId::NONE,
        client: (Address::UNSPECIFIED, 0),
        destination: (Address::UNSPECIFIED, 0),
        member: (Address::UNSPECIFIED, 0),
        began_ns: 0,
        duration_ns: 0,
        first_byte_ns: 0,
        status: 0,
        received: 0,
        sent: 0,
        http_minor: None,
        outcome: "done",
        text: Text::NOTHING,
    };
}

/// Short texts in one fixed buffer.
#[derive(Debug, Clone, Default)]
pub struct Text {
    bytes: Vec<u8>,
    /// Where each part begins, and its length. `begin + len <= bytes.len() <= TEXT_MAX`.
    spans: [(u16, u16); Part::COUNT],
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

    /// Bytes of it that are kept. Together more than [`TEXT_MAX`]: few messages have all of them long.
    pub const fn len_max(self) -> usize {
        match self {
            Part::Method => 32,
            Part::Host => 255,
            Part::Path => 512,
            Part::UserAgent | Part::Referer => 256,
            Part::Route => 128,
        }
    }
}

impl Text {
    const NOTHING: Self = Self { bytes: Vec::new(), spans: [(0, 0); Part::COUNT] };

    fn with_room() -> Self {
        Self { bytes: Vec::with_capacity(TEXT_MAX), ..Self::NOTHING }
    }

    /// Forgets all parts.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.spans = [(0, 0); Part::COUNT];
    }

    /// Keeps `text` as this part, in place of what was put there before (whose bytes stay in use). Cut to
    /// [`Part::len_max`] and to what is left of [`TEXT_MAX`], so the part that is put last has to stand back; never
    /// inside a character. O(len), no allocation.
    pub fn put(&mut self, part: Part, text: &[u8]) {
        let room = self.bytes.capacity().min(TEXT_MAX).saturating_sub(self.bytes.len());
        let kept = cut(text, part.len_max().min(room));
        self.spans[part as usize] = (self.bytes.len() as u16, kept.len() as u16);
        self.bytes.extend_from_slice(kept);
    }

    /// The part; empty when nothing was put there.
    pub fn get(&self, part: Part) -> &[u8] {
        let (begin, len) = self.spans[part as usize];
        let begin = usize::from(begin);
        self.bytes.get(begin..begin + usize::from(len)).unwrap_or_default()
    }
}

/// At most `len_max` bytes of `text`, without the beginning of a UTF-8 character at the end.
fn cut(text: &[u8], len_max: usize) -> &[u8] {
    if text.len() <= len_max {
        return text;
    }
    let is_inside = |at: usize| text[at] & 0xc0 == 0x80;
    // No character is longer than four bytes; what seems to be is none.
    let end = (len_max.saturating_sub(3)..=len_max).rev().find(|at| !is_inside(*at));
    &text[..end.unwrap_or(len_max)]
}

/// Where a worker puts its records.
#[derive(Debug)]
pub struct AccessLog {
    records: ArrayQueue<Box<AccessRecord>>,
    /// Records, used up, to be filled again.
    empty: ArrayQueue<Box<AccessRecord>>,
    /// Records that there may be; none for 0.
    capacity: usize,
    /// Records that are wanted. `wanted <= capacity`
    wanted: AtomicUsize,
    /// Records that there are, wherever they are. `stocked <= capacity`, so neither queue is ever too small.
    stocked: AtomicUsize,
    /// Requests and connections that found no empty record.
    pub dropped: Counter,
    /// Records that were put in.
    pub written: Counter,
}

/// Shared by the control thread and one worker.
pub type SharedAccessLog = Arc<AccessLog>;

impl AccessLog {
    /// A log without records, for `capacity` of them. Until [`AccessLog::stock`] is called every request is counted as
    /// dropped. Takes 32 bytes for each of `capacity`.
    pub fn new(capacity: usize) -> Self {
        Self {
            records: ArrayQueue::new(capacity.max(1)),
            empty: ArrayQueue::new(capacity.max(1)),
            capacity,
            wanted: AtomicUsize::new(0),
            stocked: AtomicUsize::new(0),
            dropped: Counter::default(),
            written: Counter::default(),
        }
    }

    /// Records that there may be.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that it takes now, records included.
    pub fn bytes(&self) -> usize {
        let places = (self.records.capacity() + self.empty.capacity()) * QUEUE_PLACE_BYTES;
        places + self.stocked.load(Ordering::Relaxed) * (size_of::<AccessRecord>() + TEXT_MAX)
    }

    /// An empty record for a request or connection; `None`, counted, when all are on their way. Only the worker calls
    /// this. O(1), no allocation. The record comes back by [`AccessLog::submit`] or [`AccessLog::discard`].
    pub fn begin(&self) -> Option<Box<AccessRecord>> {
        let Some(mut record) = self.empty.pop() else {
            self.dropped.add(1);
            return None;
        };
        record.clear();
        Some(record)
    }

    /// Sends a record to the control thread. Only the worker calls this. O(1), no allocation, never waits.
    pub fn submit(&self, record: Box<AccessRecord>) {
        match self.records.push(record) {
            Ok(()) => self.written.add(1),
            Err(record) => {
                self.dropped.add(1);
                self.discard(record);
            }
        }
    }

    /// Gives a record back that says nothing worth a line. O(1).
    pub fn discard(&self, record: Box<AccessRecord>) {
        // Only a record that was made elsewhere can be one too many.
        let _ = self.empty.push(record);
    }

    /// From now on there are `count` records, [`AccessLog::capacity`] at most: makes what is missing, frees what is
    /// too much as soon as it is empty. Only the control thread calls this, when a configuration that logs something
    /// comes into force, or one that logs nothing any more. O(count).
    pub fn stock(&self, count: usize) {
        let count = count.min(self.capacity);
        self.wanted.store(count, Ordering::Relaxed);
        while self.stocked.load(Ordering::Relaxed) < count {
            if self.empty.push(Box::new(AccessRecord::blank())).is_err() {
                return;
            }
            self.stocked.fetch_add(1, Ordering::Relaxed);
        }
        while self.is_overstocked() && self.empty.pop().is_some() {
            self.stocked.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The record that was submitted first; `None` when none waits. Only the control thread calls this; it gives the
    /// record back by [`AccessLog::give_back`].
    pub fn take(&self) -> Option<Box<AccessRecord>> {
        self.records.pop()
    }

    /// Takes back a record that has been written down. Only the control thread calls this.
    pub fn give_back(&self, record: Box<AccessRecord>) {
        if self.is_overstocked() {
            self.stocked.fetch_sub(1, Ordering::Relaxed);
        } else {
            self.discard(record);
        }
    }

    /// Records that wait for the control thread.
    pub fn waiting(&self) -> usize {
        self.records.len()
    }

    fn is_overstocked(&self) -> bool {
        self.stocked.load(Ordering::Relaxed) > self.wanted.load(Ordering::Relaxed)
    }
}

/// A queue's place: a pointer and its stamp.
const QUEUE_PLACE_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_stock_every_request_is_counted_as_dropped() {
        for log in [AccessLog::new(0), AccessLog::new(8)] {
            assert!(log.begin().is_none() && log.begin().is_none() && log.take().is_none());
            assert_eq!((log.dropped.load(), log.written.load()), (2, 0));
        }
        let none = AccessLog::new(0);
        none.stock(5);
        assert!(none.begin().is_none());
    }

    #[test]
    fn records_go_round_and_come_back_blank() {
        let log = AccessLog::new(2);
        log.stock(100);
        let (mut one, two) = (log.begin().unwrap(), log.begin().unwrap());
        assert!(log.begin().is_none());
        one.status = 200;
        one.http_minor = Some(1);
        one.text.put(Part::Path, b"/index");
        log.submit(one);
        log.discard(two);
        let taken = log.take().unwrap();
        assert_eq!((taken.status, taken.text.get(Part::Path)), (200, &b"/index"[..]));
        log.give_back(taken);
        let again = [log.begin().unwrap(), log.begin().unwrap()];
        for record in again {
            assert_eq!((record.status, record.http_minor, record.text.get(Part::Path)), (0, None, &b""[..]));
            assert!(record.text.bytes.capacity() >= TEXT_MAX);
            log.discard(record);
        }
        assert_eq!((log.written.load(), log.dropped.load(), log.waiting()), (1, 1, 0));
    }

    #[test]
    fn a_smaller_stock_frees_records_when_they_are_empty() {
        let log = AccessLog::new(4);
        let nothing = log.bytes();
        log.stock(4);
        let each = (log.bytes() - nothing) / 4;
        assert!(each > TEXT_MAX);
        let (held, other) = (log.begin().unwrap(), log.begin().unwrap());
        log.submit(other);
        log.stock(0);
        assert_eq!(log.bytes(), nothing + 2 * each, "one is held, one waits");
        log.give_back(log.take().unwrap());
        assert_eq!(log.bytes(), nothing + each);
        // What a worker still holds is written down all the same.
        log.submit(held);
        log.give_back(log.take().unwrap());
        assert_eq!(log.bytes(), nothing);
        log.stock(1);
        assert!(log.begin().is_some() && log.begin().is_none());
    }

    #[test]
    fn long_texts_are_cut_and_never_inside_a_character() {
        let mut text = Text::with_room();
        text.put(Part::Path, &[b'p'; 5_000]);
        text.put(Part::Host, "\u{20ac}".repeat(200).as_bytes());
        assert_eq!(text.get(Part::Path).len(), 512);
        assert_eq!(text.get(Part::Host), "\u{20ac}".repeat(85).as_bytes());
        text.put(Part::Method, "\u{1f600}".repeat(9).as_bytes());
        assert_eq!(text.get(Part::Method).len(), 32);
        // 225 bytes are left; a run of continuation bytes is no character.
        text.put(Part::Referer, &[0x80; 400]);
        text.put(Part::UserAgent, b"last");
        assert_eq!((text.get(Part::Referer).len(), text.get(Part::UserAgent)), (225, &b""[..]));
        assert_eq!((text.bytes.len(), text.get(Part::Route)), (TEXT_MAX, &b""[..]));
        text.clear();
        text.put(Part::UserAgent, b"first");
        text.put(Part::UserAgent, b"second");
        assert_eq!((text.get(Part::UserAgent), text.get(Part::Path)), (&b"second"[..], &b""[..]));
        // A text without a buffer takes none.
        let mut none = Text::default();
        none.put(Part::Path, b"/");
        assert_eq!((none.get(Part::Path), none.bytes.capacity()), (&b""[..], 0));
    }

    /// A worker and a control thread at the same time: what is written arrives, once, in order.
    #[test]
    fn every_record_that_is_written_arrives_in_order() {
        const REQUESTS: u64 = 50_000;
        let log = Arc::new(AccessLog::new(16));
        log.stock(16);
        let worker = std::thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for number in 0..REQUESTS {
                    let Some(mut record) = log.begin() else {
                        std::thread::yield_now();
                        continue;
                    };
                    record.received = number;
                    record.text.put(Part::Path, &number.to_be_bytes());
                    if number % 7 == 0 { log.discard(record) } else { log.submit(record) }
                }
            }
        });
        let (mut taken, mut next) = (0, 0);
        loop {
            let over = worker.is_finished();
            while let Some(record) = log.take() {
                assert!(record.received >= next && record.received % 7 != 0);
                assert_eq!(record.text.get(Part::Path), record.received.to_be_bytes());
                (taken, next) = (taken + 1, record.received + 1);
                log.give_back(record);
            }
            if over {
                break;
            }
            std::thread::yield_now();
        }
        worker.join().unwrap();
        assert_eq!(taken, log.written.load());
        assert!(taken > 0 && taken + log.dropped.load() <= REQUESTS);
        assert_eq!(log.stocked.load(Ordering::Relaxed), 16);
        assert_eq!(log.empty.len(), 16, "all are back");
    }
}
