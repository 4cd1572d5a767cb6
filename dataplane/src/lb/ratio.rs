//! Ratio: shares in proportion to weights, spread evenly (smooth weighted round robin).
//!
//! Every pick gives each available member its weight in credit, takes the richest and charges it the total.
//! A node's weight is divided among the pool's members on it. Ratio-session differs from ratio-member in that a
//! connection that persistence has placed is nobody's turn.

use super::roster::{Candidate, Pick, SHARE_FULL, TURN};
use crate::config::ids::MemberId;

/// The weight that the configuration gives a candidate.
#[inline]
pub(super) fn configured(candidate: &Candidate) -> u64 {
    candidate.turns
}

/// The same for everybody.
#[inline]
pub(super) fn equal(_: &Candidate) -> u64 {
    TURN
}

/// The richest of those that take a connection, by `weight`.
pub(super) fn pick(credits: &mut [i64], pick: &Pick, weight: impl Fn(&Candidate) -> u64) -> Option<usize> {
    let mut total = 0;
    let mut richest: Option<usize> = None;
    for candidate in pick.at_work() {
        let place = candidate.place();
        if !pick.takes(place) {
            continue;
        }
        let credit = credit_of(candidate, pick, &weight);
        total += credit;
        credits[place] += credit;
        if richest.is_none_or(|best| credits[place] > credits[best]) {
            richest = Some(place);
        }
    }
    let place = richest?;
    credits[place] -= total;
    Some(place)
}

/// Counts a connection that went to `member` by itself as its turn, up to so many turns ahead.
pub(super) fn charge(credits: &mut [i64], pick: &Pick, member: MemberId) {
    let at_work = || pick.at_work().iter();
    let Some(charged) = at_work().find(|candidate| candidate.id == member) else { return };
    let total: i64 = at_work().map(|candidate| credit_of(candidate, pick, &configured)).sum();
    if credits[charged.place()] < -TURNS_AHEAD * total {
        return;
    }
    for candidate in at_work() {
        credits[candidate.place()] += credit_of(candidate, pick, &configured);
    }
    credits[charged.place()] -= total;
}

#[inline]
fn credit_of(candidate: &Candidate, pick: &Pick, weight: &impl Fn(&Candidate) -> u64) -> i64 {
    let weight = weight(candidate);
    (if pick.is_ramping() { weight * pick.share(candidate.id) / SHARE_FULL } else { weight }) as i64
}

/// Persistence may put a member this many turns of everybody into debt, no further.
const TURNS_AHEAD: i64 = 64;

#[cfg(test)]
mod tests {
    use crate::clock::Instant;
    use crate::config::ids::MemberId;
    use crate::config::snapshot::Method;
    use crate::lb::testing::Bench;
    use crate::pool::MemberState;

    #[test]
    fn shares_are_exact_and_spread() {
        for method in [Method::RatioMember, Method::RatioSession] {
            let mut bench = Bench::new(method, &[3, 1, 2]);
            let picks = bench.picks(600);
            let share = |member| picks.iter().filter(|&&pick| pick == member).count();
            assert_eq!((share(0), share(1), share(2)), (300, 100, 200), "{method:?}");
            assert!(picks.windows(4).all(|four| four.iter().any(|&pick| pick != four[0])), "no long runs");
        }
    }

    #[test]
    fn a_nodes_weight_is_divided_among_its_members() {
        let mut bench = Bench::new(Method::RatioNode, &[9, 9, 9]);
        bench.put_on_nodes(&[0, 0, 1], &[2, 1], &[0, 0]);
        assert_eq!(bench.counts(600), [200, 200, 200]);
        bench.states.set(MemberId(1), MemberState::Offline);
        assert_eq!(bench.counts(600), [400, 0, 200]);
    }

    #[test]
    fn a_member_at_its_limit_gathers_no_credit() {
        let mut bench = Bench::new(Method::RatioMember, &[1, 1]);
        bench.change(|pool| pool.members[1].connection_limit = 1);
        bench.open(1);
        assert_eq!(bench.counts(100), [100, 0]);
        bench.close(1);
        assert_eq!(bench.counts(100), [50, 50]);
    }

    #[test]
    fn weights_are_scaled_while_a_member_ramps() {
        let mut bench = Bench::new(Method::RatioMember, &[1, 4]);
        bench.change(|pool| pool.slow_ramp_ms = 1_000);
        bench.states.add(MemberId(1), MemberState::Enabled, Instant::from_ms(10));
        bench.now = Instant::from_ms(10);
        assert_eq!(bench.counts(1_400), [1_000, 400]);
    }

    #[test]
    fn persisted_connections_are_turns_of_members_but_not_of_sessions() {
        for (method, expected) in [(Method::RatioMember, [100, 0]), (Method::RatioSession, [50, 50])] {
            let mut bench = Bench::new(method, &[1, 1]);
            (0..100).for_each(|_| bench.persist(1));
            assert_eq!(bench.counts(100), expected, "{method:?}");
        }
    }

    #[test]
    fn what_persistence_did_is_not_made_up_for_endlessly() {
        let mut bench = Bench::new(Method::RatioMember, &[1, 1]);
        (0..100_000).for_each(|_| bench.persist(1));
        let counts = bench.counts(1_000);
        assert!((400..=500).contains(&counts[1]), "{counts:?}");
    }
}
