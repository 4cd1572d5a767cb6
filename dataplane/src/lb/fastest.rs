//! Fastest: who answers new connections soonest, by member or by node; among equals the one with the fewest connections.
//!
//! What is compared is the smoothed latency times the requests that would wait with this one. Two looks at every member:
//! the first for the fastest, as those that are hardly slower are as fast.

use super::fewest::{self, Load};
use super::latency::{LatencyBook, Speed};
use super::roster::{Candidate, Pick};
use crate::clock::Instant;

pub(super) fn by_member(cursor: &mut usize, pick: &Pick) -> Option<usize> {
    by(cursor, pick, |book, candidate, now| book.speed_of_member(candidate.id, now))
}

pub(super) fn by_node(cursor: &mut usize, pick: &Pick) -> Option<usize> {
    by(cursor, pick, |book, candidate, now| book.speed_of_node(candidate.node, now))
}

#[inline]
fn by(
    cursor: &mut usize,
    pick: &Pick,
    speed_of: impl Fn(&LatencyBook, &Candidate, Instant) -> Speed,
) -> Option<usize> {
    let speed = |candidate: &Candidate| {
        pick.view.latencies.map_or(Speed::default(), |book| speed_of(book, candidate, pick.view.now))
    };
    let fastest_ns = fastest_ns(pick, &speed);
    fewest::pick(cursor, pick, |candidate| Load {
        amount: speed(candidate).score(fastest_ns),
        weight: pick.share(candidate.id),
        then: pick.view.connections(candidate.id),
    })
}

/// The latency of the fastest of those that take a connection. Asks about limits only of those faster than any before.
#[inline]
fn fastest_ns(pick: &Pick, speed: &impl Fn(&Candidate) -> Speed) -> u64 {
    let mut fastest_ns = u64::MAX;
    for candidate in pick.at_work() {
        let Some(ns) = speed(candidate).latency_ns else { continue };
        if ns < fastest_ns && pick.takes(candidate.place()) {
            fastest_ns = ns;
        }
    }
    fastest_ns
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
                answer(&mut bench, member, [3, 1, 2][member as usize] * MS);
            }
            assert_eq!(bench.picks(4), [1; 4], "{method:?}");
            (0..20).for_each(|_| answer(&mut bench, 1, 9 * MS));
            assert_eq!(bench.picks(2), [2; 2], "{method:?}: it has slowed down");
        }
    }

    #[test]
    fn requests_that_wait_push_the_next_one_on() {
        let mut bench = Bench::new(Method::FastestAppResponse, &[1, 1]);
        answer(&mut bench, 0, MS);
        answer(&mut bench, 1, 3 * MS);
        let picks: Vec<_> = (0..8)
            .filter_map(|_| bench.pick().inspect(|&id| bench.latencies.ask(MemberId(id), NodeId(id))))
            .collect();
        assert_eq!(picks.iter().filter(|&&member| member == 0).count(), 6, "three for one: {picks:?}");
    }

    #[test]
    fn who_was_slow_once_is_tried_again() {
        let mut bench = Bench::new(Method::FastestAppResponse, &[1, 1]);
        answer(&mut bench, 0, MS / 4);
        answer(&mut bench, 1, 5 * MS);
        for ms in 0..8_000 {
            bench.now = Instant::from_ms(ms);
            assert_eq!(bench.pick(), Some(0), "after {ms} ms");
            answer(&mut bench, 0, MS / 4);
        }
        bench.now = Instant::from_ms(9_000);
        answer(&mut bench, 0, MS / 4);
        bench.open(0);
        assert_eq!(bench.pick(), Some(1));
        bench.latencies.ask(MemberId(1), NodeId(1));
        assert_eq!(bench.picks(3), [0; 3], "one request is enough");
    }

    #[test]
    fn members_about_as_fast_and_members_never_measured_take_turns() {
        let mut bench = Bench::new(Method::FastestAppResponse, &[1, 1, 1]);
        assert_eq!(bench.picks(3), [0, 1, 2]);
        for member in 0..3 {
            answer(&mut bench, member, 100_000 + u64::from(member) * 100_000);
        }
        assert_eq!(bench.picks(6), [0, 1, 2, 0, 1, 2]);
        bench.open(0);
        assert_eq!(bench.picks(4), [1, 2, 1, 2], "fewest connections first");
    }

    #[test]
    fn a_member_at_its_limit_does_not_make_the_others_slow() {
        let mut bench = Bench::new(Method::FastestAppResponse, &[1, 1, 1]);
        bench.change(|pool| pool.members[0].connection_limit = 1);
        for (member, ns) in [(0, MS), (1, 4 * MS), (2, 4 * MS + MS / 4)] {
            answer(&mut bench, member, ns);
        }
        bench.open(0);
        assert_eq!(bench.picks(4), [1, 2, 1, 2]);
    }

    /// Four connections a millisecond for so long, each open for up to 50 ms, on members of these latencies, with up to
    /// 0.3 ms of noise on top. How many each got.
    fn traffic(bench: &mut Bench, ms: std::ops::Range<u64>, latency_ns: [u64; 3]) -> [u64; 3] {
        let mut state = SEED;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (mut counts, mut waiting, mut open) = ([0; 3], Vec::new(), Vec::new());
        for ms in ms {
            bench.now = Instant::from_ms(ms);
            waiting.retain(|&(due_ms, member, ns)| {
                let is_due = due_ms <= ms;
                if is_due {
                    bench.latencies.observe(MemberId(member), ns, bench.now);
                }
                !is_due
            });
            open.retain(|&(due_ms, member)| {
                if due_ms <= ms {
                    bench.close(member);
                }
                due_ms > ms
            });
            for _ in 0..4 {
                let member = bench.pick().expect("members are up");
                let ns = latency_ns[member as usize] + random(300_000);
                bench.latencies.ask(MemberId(member), NodeId(member));
                bench.open(member);
                waiting.push((ms + ns.div_ceil(MS), member, ns));
                open.push((ms + 1 + random(50), member));
                counts[member as usize] += 1;
            }
        }
        waiting.iter().for_each(|&(_, member, ns)| bench.latencies.observe(MemberId(member), ns, bench.now));
        open.iter().for_each(|&(_, member)| bench.close(member));
        println!("seed {SEED}: {counts:?} on {latency_ns:?}");
        counts
    }

    #[test]
    fn members_that_differ_by_noise_share_alike() {
        for method in [Method::FastestAppResponse, Method::FastestNode] {
            let counts = traffic(&mut Bench::new(method, &[1; 3]), 0..5_000, [100_000; 3]);
            assert!(counts.iter().all(|count| (6_000..7_334).contains(count)), "{method:?}: {counts:?}");
        }
    }

    #[test]
    fn a_slower_member_gets_few_and_is_found_again_when_it_is_fast() {
        for method in [Method::FastestAppResponse, Method::FastestNode] {
            let mut bench = Bench::new(method, &[1; 3]);
            let slow = [100_000, 5_100_000, 100_000];
            let counts = traffic(&mut bench, 0..5_000, slow);
            assert!(counts[1] < 400, "{method:?}: below 2 %: {counts:?}");
            traffic(&mut bench, 5_000..17_000, [100_000; 3]);
            let counts = traffic(&mut bench, 17_000..20_000, [100_000; 3]);
            assert!(counts[1] > 3_600, "{method:?}: 4,000 is its part: {counts:?}");
        }
    }

    const MS: u64 = 1_000_000;
    const SEED: u64 = 20_260_101;
}
