//! What holds for every method, and the shares that members get from one worker and from sixteen together.

use crate::clock::Instant;
use crate::config::ids::{MemberId, NodeId};
use crate::config::snapshot::Method;
use crate::lb::NoPick;
use crate::lb::testing::Bench;
use crate::pool::MemberState;

const ALL: [Method; 19] = [
    Method::RoundRobin,
    Method::RatioMember,
    Method::RatioNode,
    Method::RatioSession,
    Method::LeastConnectionsMember,
    Method::LeastConnectionsNode,
    Method::WeightedLeastConnectionsMember,
    Method::WeightedLeastConnectionsNode,
    Method::RatioLeastConnectionsMember,
    Method::RatioLeastConnectionsNode,
    Method::FastestNode,
    Method::FastestAppResponse,
    Method::ObservedMember,
    Method::ObservedNode,
    Method::PredictiveMember,
    Method::PredictiveNode,
    Method::LeastSessions,
    Method::ConsistentHash,
    Method::RandomTwo,
];

/// Those that leave something to chance or to a hash.
const RANDOM: [Method; 2] = [Method::ConsistentHash, Method::RandomTwo];

const WORKERS: usize = 16;

fn workers(method: Method, ratios: &[u16]) -> Vec<Bench> {
    let worker = |number| {
        let mut bench = Bench::new(method, ratios);
        bench.be_worker(number);
        bench
    };
    (0..WORKERS).map(worker).collect()
}

/// How many connections each member has when every worker has opened `each`, of different clients.
fn opened(workers: &mut [Bench], each: u32) -> Vec<u64> {
    for (number, bench) in workers.iter_mut().enumerate() {
        for client in 0..each {
            let member = bench.pick_for(client * WORKERS as u32 + number as u32).expect("members are up");
            bench.open(member);
        }
    }
    let members = workers[0].members();
    let of = |place| workers.iter().map(|bench| bench.open_counts()[place]).sum();
    (0..members).map(of).collect()
}

/// Pearson's statistic against equal shares.
fn chi_square(counts: &[u64]) -> f64 {
    let expected = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    counts.iter().map(|&count| (count as f64 - expected).powi(2) / expected).sum()
}

#[test]
fn no_method_picks_a_member_that_is_not_enabled_or_full() {
    for method in ALL {
        let mut bench = Bench::new(method, &[1, 1, 1, 1]);
        bench.states.set(MemberId(0), MemberState::Disabled);
        bench.states.set(MemberId(1), MemberState::Offline);
        bench.change(|pool| pool.members[2].connection_limit = 1);
        bench.open(2);
        let picks: Vec<_> = (0..50).map(|client| bench.pick_for(client)).collect();
        assert_eq!(picks, [Some(3); 50], "{method:?}");
        bench.states.set(MemberId(3), MemberState::Offline);
        assert_eq!((bench.try_pick(), bench.is_at_limit()), (Err(NoPick::AtLimit), true), "{method:?}");
        bench.states.set(MemberId(2), MemberState::Offline);
        assert_eq!((bench.try_pick(), bench.is_at_limit()), (Err(NoPick::NoMember), false), "{method:?}");
    }
}

#[test]
fn an_empty_pool_has_nobody() {
    for method in ALL {
        assert_eq!(Bench::new(method, &[]).try_pick(), Err(NoPick::NoMember), "{method:?}");
    }
}

#[test]
fn who_has_been_tried_is_avoided() {
    for method in ALL {
        let mut bench = Bench::new(method, &[1, 1, 1]);
        let all = [0, 1, 2].map(MemberId);
        for last in 0..3 {
            let others: Vec<_> = all.into_iter().filter(|id| id.0 != last).collect();
            assert_eq!(bench.try_pick_but(&others), Ok(last), "{method:?}");
        }
        assert_eq!(bench.try_pick_but(&all), Err(NoPick::NoMember), "{method:?}");
    }
}

#[test]
fn every_method_keeps_to_the_groups_at_work() {
    for method in ALL {
        let mut bench = Bench::new(method, &[1; 6]);
        bench.change(|pool| {
            pool.min_active_members = 2;
            pool.members[..3].iter_mut().for_each(|member| member.priority_group = 5);
        });
        let picked = |bench: &mut Bench| {
            let mut picked = [0; 6];
            for client in 0..300 {
                let member = bench.pick_for(client).expect("members are up");
                bench.open(member);
                picked[member as usize] += 1;
            }
            picked.map(|count| count > 40)
        };
        assert_eq!(picked(&mut bench), [true, true, true, false, false, false], "{method:?}");
        bench.states.set(MemberId(0), MemberState::Offline);
        bench.states.set(MemberId(1), MemberState::Offline);
        (0..3).for_each(|member| (0..100).for_each(|_| bench.open(member + 3)));
        assert_eq!(picked(&mut bench)[..2], [false, false], "{method:?}");
    }
}

#[test]
fn the_first_connections_of_sixteen_workers_go_to_sixteen_members() {
    for method in ALL.into_iter().filter(|method| !RANDOM.contains(method)) {
        let counts = opened(&mut workers(method, &[1; WORKERS]), 1);
        assert_eq!(counts, [1; WORKERS], "{method:?}");
    }
}

#[test]
fn equal_members_get_equal_shares_of_sixteen_workers() {
    for method in ALL.into_iter().filter(|method| !RANDOM.contains(method)) {
        let counts = opened(&mut workers(method, &[1; 10]), 500);
        assert!(counts.iter().all(|&count| count == 800), "{method:?}: {counts:?}");
    }
}

#[test]
fn equal_members_get_shares_of_chance_that_are_within_its_bounds() {
    for method in RANDOM {
        let counts = opened(&mut workers(method, &[1; 10]), 2_000);
        let statistic = chi_square(&counts);
        assert!(statistic < 27.88, "{method:?}: {statistic} is beyond 99.9 % of chance, {counts:?}");
    }
}

#[test]
fn two_choices_are_far_more_even_than_chance() {
    let counts = opened(&mut workers(Method::RandomTwo, &[1; 10]), 2_000);
    assert!(counts.iter().all(|&count| count.abs_diff(3_200) < 32), "one in a hundred: {counts:?}");
}

#[test]
fn ratios_hold_over_sixteen_workers() {
    let methods = [
        Method::RatioMember,
        Method::RatioSession,
        Method::RatioLeastConnectionsMember,
        Method::ConsistentHash,
    ];
    for method in methods {
        let counts = opened(&mut workers(method, &[4, 1, 3, 2]), 1_000);
        let expected = [6_400u64, 1_600, 4_800, 3_200];
        // Four standard deviations of a share taken at random; turns are exact.
        let slack = |expected: u64| {
            if method == Method::ConsistentHash { (expected as f64).sqrt() * 4.0 } else { 0.0 }
        };
        let is_off = |(&count, &expected): (&u64, &u64)| count.abs_diff(expected) as f64 > slack(expected);
        assert!(!counts.iter().zip(&expected).any(is_off), "{method:?}: {counts:?}");
    }
}

#[test]
fn ratios_of_nodes_hold_over_sixteen_workers() {
    for method in [Method::RatioNode, Method::RatioLeastConnectionsNode] {
        let mut workers = workers(method, &[1; 5]);
        workers.iter_mut().for_each(|bench| bench.put_on_nodes(&[0, 0, 1, 2, 2], &[3, 1, 2], &[0; 3]));
        let counts = opened(&mut workers, 600);
        let by_node = [counts[0] + counts[1], counts[2], counts[3] + counts[4]];
        assert_eq!(by_node, [4_800, 1_600, 3_200], "{method:?}: {counts:?}");
    }
}

#[test]
fn limits_are_filled_and_never_passed() {
    for method in ALL {
        let mut bench = Bench::new(method, &[1; 5]);
        bench.change(|pool| {
            for (place, member) in pool.members.iter_mut().enumerate() {
                member.connection_limit = 10 * (place as u32 + 1);
            }
        });
        let taken =
            (0..200).filter_map(|client| bench.pick_for(client).inspect(|&id| bench.open(id))).count();
        assert_eq!((taken, bench.open_counts()), (150, vec![10, 20, 30, 40, 50]), "{method:?}");
    }
}

#[test]
fn every_method_goes_easy_on_who_has_just_come_up() {
    for method in ALL {
        let mut bench = Bench::new(method, &[1; 4]);
        bench.change(|pool| pool.slow_ramp_ms = 10_000);
        for member in 0..4 {
            bench.latencies.ask(MemberId(member), NodeId(member));
            bench.latencies.observe(MemberId(member), 50_000, Instant::from_ms(60_000));
        }
        bench.states.add(MemberId(3), MemberState::Enabled, Instant::from_ms(60_000));
        let share = |bench: &mut Bench, ms| {
            bench.now = Instant::from_ms(ms);
            (0..1_000).filter(|&client| bench.pick_for(client) == Some(3)).count()
        };
        let (early, late) = (share(&mut bench, 60_000), share(&mut bench, 70_000));
        assert!(early < 60, "{method:?}: {early} of 1,000 while 250 is its full share");
        assert!((190..310).contains(&late), "{method:?}: {late} of 1,000 after the ramp");
    }
}

/// Connections that come and go on three members, the first of which answers three times as fast. What is evened
/// out is latency × waiting, and waiting is latency × rate: nine times as many go to the fast one.
#[test]
fn the_fastest_gets_as_many_as_the_square_of_its_speed() {
    for method in [Method::FastestAppResponse, Method::FastestNode] {
        let mut bench = Bench::new(method, &[1; 3]);
        let latency_ms = [8, 24, 24];
        let mut waiting: Vec<(u64, u32, u64)> = Vec::new();
        let mut counts = [0u32; 3];
        for ms in 0..5_000u64 {
            bench.now = Instant::from_ms(ms);
            let (answered, still) = waiting.into_iter().partition(|&(due, ..)| due <= ms);
            waiting = still;
            for (_, member, took) in answered as Vec<(u64, u32, u64)> {
                bench.latencies.observe(MemberId(member), took * 1_000_000, bench.now);
            }
            for _ in 0..4 {
                let member = bench.pick().expect("members are up");
                bench.latencies.ask(MemberId(member), NodeId(member));
                let took = latency_ms[member as usize];
                waiting.push((ms + took, member, took));
                counts[member as usize] += 1;
            }
        }
        let shares = counts.map(|count| count * 100 / 20_000);
        assert!((77..87).contains(&shares[0]), "{method:?}: 82 % expected, {shares:?}");
        assert!(shares[1].abs_diff(shares[2]) <= 2, "{method:?}: {shares:?}");
    }
}

#[test]
fn workers_with_other_seeds_choose_other_pairs() {
    let mut workers = workers(Method::RandomTwo, &[1; 64]);
    let first: Vec<_> = workers.iter_mut().map(|bench| bench.picks(4)).collect();
    let mut distinct = first.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), WORKERS, "{first:?}");
}
