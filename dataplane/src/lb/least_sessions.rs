//! Least sessions: the fewest persistence records; among equals, in turn.

use super::fewest::{self, Load};
use super::roster::Pick;

pub(super) fn pick(cursor: &mut usize, pick: &Pick) -> Option<usize> {
    fewest::pick(cursor, pick, |candidate| Load {
        amount: pick.view.sessions(candidate.id).saturating_add(1),
        weight: pick.share(candidate.id),
        then: 0,
    })
}

#[cfg(test)]
mod tests {
    use crate::config::snapshot::Method;
    use crate::lb::testing::Bench;

    #[test]
    fn the_fewest_records_first_and_equals_in_turn() {
        let mut bench = Bench::new(Method::LeastSessions, &[1, 1, 1]);
        assert_eq!(bench.picks(3), [0, 1, 2]);
        bench.sessions[0].add(2);
        bench.sessions[2].add(1);
        bench.open(1);
        assert_eq!(bench.picks(2), [1, 1], "connections do not count");
        bench.sessions[1].add(1);
        assert_eq!(bench.picks(4), [2, 1, 2, 1]);
    }

    #[test]
    fn without_records_members_take_turns() {
        let mut bench = Bench::new(Method::LeastSessions, &[1, 1, 1]);
        bench.sessions.clear();
        assert_eq!(bench.picks(6), [0, 1, 2, 0, 1, 2]);
    }
}
