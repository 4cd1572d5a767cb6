//! Least connections of members or nodes, plain, or in proportion to a ratio or to a connection limit; among
//! equals, in turn.
//!
//! The load is (connections + 1) / (weight × share): what it will be with this connection, so that of members
//! without connections the one with the greatest weight is first.

use super::fewest::{self, Load};
use super::roster::{Candidate, Pick};

pub(super) fn by_member(cursor: &mut usize, pick: &Pick) -> Option<usize> {
    fewest::pick(cursor, pick, |candidate| load(candidate, pick.view.connections(candidate.id), 0, pick))
}

/// Among members of equal nodes the one with fewer connections of its own.
pub(super) fn by_node(cursor: &mut usize, pick: &Pick) -> Option<usize> {
    fewest::pick(cursor, pick, |candidate| {
        let own = pick.view.connections(candidate.id);
        load(candidate, pick.view.node_connections(candidate.node), own, pick)
    })
}

#[inline]
fn load(candidate: &Candidate, connections: u64, then: u64, pick: &Pick) -> Load {
    let weight = u64::from(candidate.weight) * pick.share(candidate.id);
    Load { amount: connections.saturating_add(1), weight, then }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::clock::Instant;
    use crate::config::ids::MemberId;
    use crate::config::snapshot::Method;
    use crate::counters::WorkerCounters;
    use crate::lb::testing::Bench;
    use crate::limits::Limits;
    use crate::pool::MemberState;

    #[test]
    fn the_fewest_first_and_equals_in_turn() {
        let mut bench = Bench::new(Method::LeastConnectionsMember, &[1, 1, 1]);
        bench.open(0);
        bench.open(0);
        bench.open(2);
        assert_eq!(bench.pick(), Some(1));
        bench.open(1);
        assert_eq!(bench.picks(2), [2, 1]);
        bench.open(1);
        bench.open(2);
        assert_eq!(bench.picks(3), [2, 0, 1]);
    }

    #[test]
    fn a_node_counts_all_its_members_of_all_pools() {
        let mut bench = Bench::new(Method::LeastConnectionsNode, &[1, 1, 1]);
        bench.put_on_nodes(&[0, 0, 1], &[1, 1], &[0, 0]);
        bench.open_elsewhere(9, 1);
        bench.open_elsewhere(9, 1);
        assert_eq!(bench.pick_and_open(2), [0, 1]);
        assert_eq!(bench.pick_and_open(4).iter().filter(|&&member| member == 2).count(), 2);
    }

    #[test]
    fn connections_of_other_workers_count() {
        for method in [Method::LeastConnectionsMember, Method::LeastConnectionsNode] {
            let mut bench = Bench::new(method, &[1, 1, 1]);
            let other = WorkerCounters::new(&Limits { members: 8, virtual_servers: 1, ..Limits::default() });
            let member = &bench.snapshot.parts().pools[0].members[1];
            (0..30).for_each(|_| other.open_member(member.id, member.node));
            bench.peers.push(Arc::new(other));
            bench.pick_and_open(30);
            assert_eq!(bench.open_counts(), [15, 30, 15], "{method:?}");
        }
    }

    #[test]
    fn connections_settle_in_proportion_to_ratios() {
        let mut bench = Bench::new(Method::RatioLeastConnectionsMember, &[3, 1, 2]);
        bench.pick_and_open(600);
        assert_eq!(bench.open_counts(), [300, 100, 200]);
    }

    #[test]
    fn connections_settle_in_proportion_to_limits() {
        let mut bench = Bench::new(Method::WeightedLeastConnectionsMember, &[1, 1]);
        bench.change(|pool| {
            pool.members[0].connection_limit = 900;
            pool.members[1].connection_limit = 100;
        });
        bench.pick_and_open(500);
        assert_eq!(bench.open_counts(), [450, 50]);
        bench.pick_and_open(1_000);
        assert_eq!(bench.open_counts(), [900, 100], "and never past them");
    }

    #[test]
    fn without_limits_the_weighted_methods_count_connections() {
        for method in [Method::WeightedLeastConnectionsMember, Method::WeightedLeastConnectionsNode] {
            let mut bench = Bench::new(method, &[5, 1, 1]);
            bench.pick_and_open(300);
            assert_eq!(bench.open_counts(), [100; 3], "{method:?}");
        }
    }

    #[test]
    fn nodes_are_weighed_by_their_own_ratio_and_limit() {
        for method in [Method::RatioLeastConnectionsNode, Method::WeightedLeastConnectionsNode] {
            let mut bench = Bench::new(method, &[1, 9, 9]);
            bench.put_on_nodes(&[0, 1, 1], &[2, 1], &[2_000, 1_000]);
            bench.pick_and_open(600);
            let counts = bench.open_counts();
            assert_eq!((counts[0], counts[1] + counts[2]), (400, 200), "{method:?}");
            assert!(counts[1].abs_diff(counts[2]) <= 1, "{method:?}: siblings in turn, {counts:?}");
        }
    }

    #[test]
    fn who_has_just_come_up_is_not_buried() {
        let mut bench = Bench::new(Method::LeastConnectionsMember, &[1, 1]);
        bench.change(|pool| pool.slow_ramp_ms = 10_000);
        (0..100).for_each(|_| bench.open(0));
        bench.states.add(MemberId(1), MemberState::Enabled, Instant::ZERO);
        bench.pick_and_open(20);
        assert_eq!(bench.open_counts(), [109, 11], "a tenth of the other's");
        bench.now = Instant::from_ms(10_000);
        bench.pick_and_open(98);
        assert_eq!(bench.open_counts(), [109, 109]);
    }
}
