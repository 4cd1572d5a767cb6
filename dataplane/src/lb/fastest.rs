//! Fastest: who answers new connections soonest, by member or by node; among equals, in turn.
//!
//! What is compared is the smoothed latency times the requests that would wait with this one. A member that has
//! not been heard for ten seconds is asked again by one request.

use super::fewest::{self, Load};
use super::roster::Pick;

pub(super) fn by_member(cursor: &mut usize, pick: &Pick) -> Option<usize> {
    fewest::pick(cursor, pick, |candidate| {
        let score = pick.view.latencies.map_or(0, |book| book.score_of_member(candidate.id, pick.view.now));
        Load { amount: score, weight: pick.share(candidate.id), then: 0 }
    })
}

pub(super) fn by_node(cursor: &mut usize, pick: &Pick) -> Option<usize> {
    fewest::pick(cursor, pick, |candidate| {
        let score = pick.view.latencies.map_or(0, |book| book.score_of_node(candidate.node, pick.view.now));
        let own = pick.view.connections(candidate.id);
        Load { amount: score, weight: pick.share(candidate.id), then: own }
    })
}

#[cfg(test)]
mod tests {
    use crate::clock::Instant;
    use crate::config::ids::{MemberId, NodeId};
    use crate::config::snapshot::Method;
    use crate::lb::testing::Bench;

    fn answer(bench: &mut Bench, member: u32, ns: u64) {
        bench.latencies.ask(MemberId(member), NodeId(member));
        bench.latencies.observe(MemberId(member), ns, bench.now);
    }

    #[test]
    fn everybody_is_tried_once_then_the_fastest() {
        for method in [Method::FastestAppResponse, Method::FastestNode] {
            let mut bench = Bench::new(method, &[1, 1, 1]);
            for member in 0..3 {
                assert_eq!(bench.pick(), Some(member), "{method:?}");
                answer(&mut bench, member, [3_000, 1_000, 2_000][member as usize]);
            }
            assert_eq!(bench.picks(4), [1; 4], "{method:?}");
            (0..20).for_each(|_| answer(&mut bench, 1, 9_000));
            assert_eq!(bench.picks(2), [2; 2], "{method:?}: it has slowed down");
        }
    }

    #[test]
    fn requests_that_wait_push_the_next_one_on() {
        let mut bench = Bench::new(Method::FastestAppResponse, &[1, 1]);
        answer(&mut bench, 0, 1_000);
        answer(&mut bench, 1, 3_000);
        let picks: Vec<_> = (0..8)
            .filter_map(|_| bench.pick().inspect(|&id| bench.latencies.ask(MemberId(id), NodeId(id))))
            .collect();
        assert_eq!(picks.iter().filter(|&&member| member == 0).count(), 6, "three for one: {picks:?}");
    }

    #[test]
    fn who_was_slow_once_is_tried_again() {
        let mut bench = Bench::new(Method::FastestAppResponse, &[1, 1]);
        answer(&mut bench, 0, 1_000);
        answer(&mut bench, 1, 5_000_000);
        bench.now = Instant::from_ms(9_000);
        answer(&mut bench, 0, 1_000);
        assert_eq!(bench.pick(), Some(0));
        bench.now = Instant::from_ms(10_001);
        assert_eq!(bench.pick(), Some(1));
        bench.latencies.ask(MemberId(1), NodeId(1));
        assert_eq!(bench.picks(3), [0; 3], "one request is enough");
    }

    #[test]
    fn members_about_as_fast_and_members_never_measured_take_turns() {
        let mut bench = Bench::new(Method::FastestAppResponse, &[1, 1, 1]);
        assert_eq!(bench.picks(3), [0, 1, 2]);
        for member in 0..3 {
            answer(&mut bench, member, 100_000 + u64::from(member) * 100);
        }
        assert_eq!(bench.picks(6), [0, 1, 2, 0, 1, 2]);
    }
}
