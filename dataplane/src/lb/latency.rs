//! [`LatencyBook`]: how soon members and their nodes answer, smoothed, and how many requests wait for an answer.
//!
//! For TCP an answer is the SYN-ACK to a SYN, for UDP the first reply to a request. A worker keeps its own book.

use bytemuck::Zeroable;
use sluice_ffi::memory::{Backing, Slab};

use crate::clock::Instant;
use crate::config::ids::{MemberId, NodeId};
use crate::limits::Limits;

/// How soon members and nodes answer. Memory is zero pages until a member is asked.
#[derive(Debug)]
pub struct LatencyBook {
    members: Slab<Entry>,
    nodes: Slab<Entry>,
}

#[derive(Debug, Clone, Copy, Zeroable)]
#[repr(C)]
struct Entry {
    smoothed_ns: u64,
    /// When it last answered, in milliseconds and one more; 0 before the first time.
    seen_ms: u64,
    waiting: u32,
    /// A member's node and one more; 0 for none.
    node: u32,
}

impl LatencyBook {
    /// For up to `limits.members` members and as many nodes.
    pub fn new(limits: &Limits) -> Self {
        Self {
            members: Slab::new(limits.members, Backing::Ordinary),
            nodes: Slab::new(limits.members, Backing::Ordinary),
        }
    }

    /// A request went to `member`, which is on `node`. [`LatencyBook::observe`] follows exactly once.
    pub fn ask(&mut self, member: MemberId, node: NodeId) {
        let Some(entry) = self.members.get_mut(member.index()) else { return };
        entry.waiting += 1;
        entry.node = node.0.wrapping_add(1);
        if let Some(entry) = self.nodes.get_mut(node.index()) {
            entry.waiting += 1;
        }
    }

    /// `member` has answered after `ns` nanoseconds; or it has not, and that is how long was waited.
    pub fn observe(&mut self, member: MemberId, ns: u64, now: Instant) {
        let Some(entry) = self.members.get_mut(member.index()) else { return };
        entry.observe(ns, now);
        let node = entry.node.checked_sub(1).and_then(|id| self.nodes.get_mut(id as usize));
        if let Some(entry) = node {
            entry.observe(ns, now);
        }
    }

    /// The smoothed latency of `member` in nanoseconds; `None` before its first answer.
    pub fn of_member(&self, member: MemberId) -> Option<u64> {
        self.members.get(member.index()).filter(|entry| entry.seen_ms != 0).map(|entry| entry.smoothed_ns)
    }

    /// How `member` answers.
    #[inline]
    pub(super) fn speed_of_member(&self, member: MemberId, now: Instant) -> Speed {
        self.members.get(member.index()).map_or(Speed::default(), |entry| entry.speed(now))
    }

    /// As [`LatencyBook::speed_of_member`], by node.
    #[inline]
    pub(super) fn speed_of_node(&self, node: NodeId, now: Instant) -> Speed {
        self.nodes.get(node.index()).map_or(Speed::default(), |entry| entry.speed(now))
    }
}

/// How a member or node answers, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Speed {
    /// `None` while it is unknown.
    pub(super) latency_ns: Option<u64>,
    /// Requests that wait for an answer.
    waiting: u32,
}

impl Speed {
    /// What to compare by, the least is to be picked: the time a new request would take, which is the latency once for
    /// each that waits and once for itself. About as fast as the fastest is as fast. Who is unknown is asked first, by one
    /// request at a time, and last while that waits.
    #[inline]
    pub(super) fn score(self, fastest_ns: u64) -> u64 {
        match (self.latency_ns, self.waiting) {
            (Some(ns), waiting) => {
                let time = evened(ns, fastest_ns.min(ns)).saturating_mul(u64::from(waiting) + 1);
                time.min(u64::MAX / 2 - 1)
            }
            (None, 0) => 0,
            (None, waiting) => u64::MAX / 2 + u64::from(waiting),
        }
    }
}

impl Entry {
    fn observe(&mut self, ns: u64, now: Instant) {
        self.waiting = self.waiting.saturating_sub(1);
        // The longer nothing was heard, the more counts what is heard now: an eighth at least, at last all of it.
        let part = (KNOWN_FOR_MS / 8).max(self.silent_ms(now));
        let (before, after) = (self.smoothed_ns, ns.min(LONGEST_NS));
        self.smoothed_ns = (before * (KNOWN_FOR_MS - part) + after * part) / KNOWN_FOR_MS;
        self.seen_ms = now.as_ns() / 1_000_000 + 1;
    }

    /// What was slow once seems less so the longer it is not asked, so that it is asked again.
    fn speed(&self, now: Instant) -> Speed {
        let silent_ms = self.silent_ms(now);
        let aged_ns = || self.smoothed_ns * (KNOWN_FOR_MS - silent_ms) / KNOWN_FOR_MS;
        Speed { latency_ns: (silent_ms < KNOWN_FOR_MS).then(aged_ns), waiting: self.waiting }
    }

    /// Since it last answered, [`KNOWN_FOR_MS`] at most; that, too, when it never did.
    fn silent_ms(&self, now: Instant) -> u64 {
        match self.seen_ms {
            0 => KNOWN_FOR_MS,
            seen_ms => (now.as_ns() / 1_000_000 + 1).saturating_sub(seen_ms).min(KNOWN_FOR_MS),
        }
    }
}

/// The latency, or where the fastest is hardly faster what stands for all of those.
#[inline]
fn evened(ns: u64, fastest_ns: u64) -> u64 {
    let difference = ns.saturating_sub(fastest_ns);
    if difference <= SLIGHT_NS.max(fastest_ns / 8) { fastest_ns.max(SLIGHT_NS) } else { ns }
}

/// Smaller differences say more of the moment than of the member.
const SLIGHT_NS: u64 = 500_000;

/// After so long without an answer a member's latency is unknown again.
const KNOWN_FOR_MS: u64 = 10_000;

/// Waiting longer makes nobody slower. Keeps scores far from overflow.
const LONGEST_NS: u64 = 60_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: MemberId = MemberId(1);

    fn book() -> LatencyBook {
        LatencyBook::new(&Limits { members: 4, ..Limits::default() })
    }

    #[test]
    fn latency_is_smoothed_and_forgotten() {
        let mut book = book();
        assert_eq!(book.of_member(ONE), None);
        let mut answer = |ns, ms| {
            book.ask(ONE, NodeId(2));
            book.observe(ONE, ns, Instant::from_ms(ms));
            book.of_member(ONE).unwrap()
        };
        assert_eq!(answer(8_000, 1), 8_000);
        assert_eq!(answer(16_000, 2), 9_000);
        assert_eq!(answer(1_000, 5_002), 5_000, "what is five seconds old is half of it");
        assert_eq!(answer(4_000, 15_002), 4_000, "what was before is too old");
        let speeds = |ms| {
            let now = Instant::from_ms(ms);
            [book.speed_of_member(ONE, now), book.speed_of_node(NodeId(2), now)].map(|speed| speed.latency_ns)
        };
        assert_eq!(speeds(15_002), [Some(4_000); 2]);
        assert_eq!(speeds(20_002), [Some(2_000); 2], "it ages towards another try");
        assert_eq!(speeds(25_002), [None; 2]);
    }

    #[test]
    fn every_request_that_waits_adds_the_latency() {
        let mut book = book();
        let now = Instant::from_ms(5);
        let score = |book: &LatencyBook| book.speed_of_member(ONE, now).score(2_000_000);
        assert_eq!(score(&book), 0, "who is unknown is asked first");
        book.ask(ONE, NodeId::NONE);
        let unknown = score(&book);
        book.observe(ONE, 3_000_000, now);
        assert_eq!(score(&book), 3_000_000);
        book.ask(ONE, NodeId::NONE);
        book.ask(ONE, NodeId::NONE);
        assert_eq!(score(&book), 3 * 3_000_000);
        assert!(unknown > 1_000_000 * LONGEST_NS);
    }

    #[test]
    fn small_differences_do_not_count() {
        let evened = |us: u64, fastest_us: u64| evened(us * 1_000, fastest_us * 1_000) / 1_000;
        assert_eq!([100, 400, 600, 601].map(|us| evened(us, 100)), [500, 500, 500, 601]);
        assert_eq!([8_000, 9_000, 9_001].map(|us| evened(us, 8_000)), [8_000, 8_000, 9_001]);
        assert_eq!(evened(100, 300), 500, "who is at its limit does not set the pace");
    }
}
