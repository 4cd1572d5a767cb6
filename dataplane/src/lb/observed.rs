//! Observed and predictive: members with fewer connections than the average get more turns.
//!
//! Looked at once a second, when a connection comes. Observed takes the connections as they are, and gives three
//! turns to who is below the average, two to others. Predictive takes them as they will be if the change since the
//! last look happens again, and gives four turns or one. By member, or by node.

use std::time::Duration;

use super::roster::{Candidate, Pick, TURN};
use crate::clock::Instant;
use crate::config::snapshot::Method;

/// What the last look saw.
#[derive(Debug, Default)]
pub(super) struct Observed {
    looked: Option<Instant>,
    /// By place in the pool.
    seen: Vec<Seen>,
    /// Turns for who is below the average, and for others.
    turns: [u64; 2],
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    connections: u64,
    expected: u64,
    is_below: bool,
}

impl Observed {
    /// Begins anew with a pool of `count` members.
    pub(super) fn forget(&mut self, count: usize) {
        self.looked = None;
        self.seen.clear();
        self.seen.resize(count, Seen::default());
    }

    /// Looks again when a second has passed. O(members) then, else O(1).
    pub(super) fn look(&mut self, pick: &Pick) {
        if self.looked.is_some_and(|last| pick.view.now.since(last) < BETWEEN_LOOKS) {
            return;
        }
        let is_first = self.looked.replace(pick.view.now).is_none();
        let by_node = matches!(pick.pool.method, Method::ObservedNode | Method::PredictiveNode);
        let predicts = matches!(pick.pool.method, Method::PredictiveMember | Method::PredictiveNode);
        self.turns = if predicts { [4, 1] } else { [3, 2] };
        for candidate in pick.at_work() {
            let (view, seen) = (pick.view, &mut self.seen[candidate.place()]);
            let connections =
                if by_node { view.node_connections(candidate.node) } else { view.connections(candidate.id) };
            let before = if is_first || !predicts { connections } else { seen.connections };
            seen.expected = (2 * connections).saturating_sub(before);
            seen.connections = connections;
        }
        self.compare(pick.at_work());
    }

    fn compare(&mut self, at_work: &[Candidate]) {
        let all: u64 = at_work.iter().map(|candidate| self.seen[candidate.place()].expected).sum();
        for candidate in at_work {
            let seen = &mut self.seen[candidate.place()];
            seen.is_below = seen.expected * (at_work.len() as u64) < all;
        }
    }

    /// The weight of a candidate until the next look.
    #[inline]
    pub(super) fn shares_of(&self, candidate: &Candidate) -> u64 {
        let is_below = self.seen.get(candidate.place()).is_some_and(|seen| seen.is_below);
        self.turns[usize::from(!is_below)] * TURN
    }
}

const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ids::MemberId;
    use crate::lb::testing::Bench;
    use crate::pool::MemberState;

    #[test]
    fn three_turns_below_the_average_and_two_above() {
        for method in [Method::ObservedMember, Method::ObservedNode] {
            let mut bench = Bench::new(method, &[1, 1, 1]);
            (0..10).for_each(|_| bench.open(0));
            assert_eq!(bench.counts(800), [200, 300, 300], "{method:?}");
        }
    }

    #[test]
    fn it_looks_once_a_second() {
        let mut bench = Bench::new(Method::ObservedMember, &[1, 1]);
        assert_eq!(bench.counts(100), [50, 50]);
        bench.open(0);
        bench.now = Instant::from_ms(999);
        assert_eq!(bench.counts(100), [50, 50]);
        bench.now = Instant::from_ms(1_000);
        assert_eq!(bench.counts(100), [40, 60]);
    }

    #[test]
    fn a_trend_is_taken_to_go_on() {
        for method in [Method::PredictiveMember, Method::PredictiveNode] {
            let mut bench = Bench::new(method, &[1, 1]);
            (0..10).for_each(|_| bench.open(0));
            (0..4).for_each(|_| bench.open(1));
            assert_eq!(bench.counts(100), [20, 80], "{method:?}: ten and four");
            (0..4).for_each(|_| bench.close(0));
            bench.open(1);
            bench.now = Instant::from_ms(1_000);
            assert_eq!(bench.counts(100), [80, 20], "{method:?}: six and five, on the way to two and six");
        }
    }

    #[test]
    fn who_comes_back_is_compared_at_the_next_look() {
        let mut bench = Bench::new(Method::ObservedMember, &[1, 1, 1]);
        bench.states.set(MemberId(2), MemberState::Offline);
        (0..6).for_each(|_| bench.open(0));
        assert_eq!(bench.counts(100), [40, 60, 0]);
        bench.states.set(MemberId(2), MemberState::Enabled);
        bench.now = Instant::from_ms(1_000);
        assert_eq!(bench.counts(800), [200, 300, 300]);
    }
}
