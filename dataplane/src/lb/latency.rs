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

    /// What to compare members by: the least is to be picked.
    #[inline]
    pub(super) fn score_of_member(&self, member: MemberId, now: Instant) -> u64 {
        self.members.get(member.index()).map_or(0, |entry| entry.score(now))
    }

    /// As [`LatencyBook::score_of_member`], by node.
    #[inline]
    pub(super) fn score_of_node(&self, node: NodeId, now: Instant) -> u64 {
        self.nodes.get(node.index()).map_or(0, |entry| entry.score(now))
    }
}

impl Entry {
    fn observe(&mut self, ns: u64, now: Instant) {
        self.waiting = self.waiting.saturating_sub(1);
        let ns = ns.min(LONGEST_NS);
        self.smoothed_ns =
            if self.is_known(now) { self.smoothed_ns - self.smoothed_ns / 8 + ns / 8 } else { ns };
        self.seen_ms = now.as_ns() / 1_000_000 + 1;
    }

    /// The time a new request would take: the latency, once for each that waits and once for itself. Who is
    /// unknown is asked first, by one request at a time, and last while that waits.
    fn score(&self, now: Instant) -> u64 {
        match (self.is_known(now), self.waiting) {
            (true, waiting) => coarse(self.smoothed_ns.max(1)) * (u64::from(waiting) + 1),
            (false, 0) => 0,
            (false, waiting) => u64::MAX / 2 + u64::from(waiting),
        }
    }

    fn is_known(&self, now: Instant) -> bool {
        self.seen_ms != 0 && now.as_ns() / 1_000_000 < self.seen_ms + KNOWN_FOR_MS
    }
}

/// The number with its first four bits kept, so that differences below an eighth make nobody faster.
fn coarse(ns: u64) -> u64 {
    let bits = 64 - ns.leading_zeros();
    ns >> bits.saturating_sub(4) << bits.saturating_sub(4)
}

/// After so long without an answer a member's latency is unknown again, so that who was slow once gets another try.
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
        assert_eq!(answer(4_000, 10_002 + 1), 4_000, "what was before is too old");
        assert_eq!(book.score_of_member(ONE, Instant::from_ms(10_004)), coarse(4_000));
        assert_eq!(book.score_of_node(NodeId(2), Instant::from_ms(10_004)), coarse(4_000));
        assert_eq!(book.score_of_member(ONE, Instant::from_ms(30_000)), 0);
    }

    #[test]
    fn every_request_that_waits_adds_the_latency() {
        let mut book = book();
        let now = Instant::from_ms(5);
        book.ask(ONE, NodeId::NONE);
        let unknown = book.score_of_member(ONE, now);
        book.observe(ONE, 1_024, now);
        assert_eq!(book.score_of_member(ONE, now), 1_024);
        book.ask(ONE, NodeId::NONE);
        book.ask(ONE, NodeId::NONE);
        assert_eq!(book.score_of_member(ONE, now), 3 * 1_024);
        assert!(unknown > 1_000_000 * coarse(LONGEST_NS));
    }

    #[test]
    fn small_differences_do_not_count() {
        assert_eq!(coarse(1_000_000), coarse(1_040_000));
        assert!(coarse(1_000_000) < coarse(1_130_000));
        assert_eq!([1, 7, 15, 16, 17].map(coarse), [1, 7, 15, 16, 16]);
    }
}
