//! Round robin: the next available member in turn.
//!
//! While a member is in its slow ramp, turns are given out as by ratio, in proportion to the members' shares.

use super::roster::Pick;

pub(super) fn pick(cursor: &mut usize, pick: &Pick) -> Option<usize> {
    let at_work = pick.at_work();
    // A division only where members have gone.
    let first = if *cursor < at_work.len() { *cursor } else { cursor.checked_rem(at_work.len())? };
    let mut in_turn = (first..at_work.len()).chain(0..first);
    let turn = in_turn.find(|&turn| pick.takes(at_work[turn].place()))?;
    *cursor = if turn + 1 == at_work.len() { 0 } else { turn + 1 };
    Some(at_work[turn].place())
}

#[cfg(test)]
mod tests {
    use crate::clock::Instant;
    use crate::config::ids::MemberId;
    use crate::config::snapshot::Method;
    use crate::lb::testing::Bench;
    use crate::pool::MemberState;

    #[test]
    fn takes_turns_and_skips_who_is_out() {
        let mut bench = Bench::new(Method::RoundRobin, &[1, 1, 1]);
        assert_eq!(bench.picks(6), [0, 1, 2, 0, 1, 2]);
        bench.states.set(MemberId(1), MemberState::Offline);
        assert_eq!(bench.picks(4), [0, 2, 0, 2]);
    }

    #[test]
    fn goes_on_when_members_are_removed() {
        let mut bench = Bench::new(Method::RoundRobin, &[1, 1, 1]);
        bench.picks(3);
        bench.change(|pool| pool.members.truncate(1));
        assert_eq!(bench.picks(2), [0, 0]);
    }

    #[test]
    fn who_has_just_come_up_gets_a_tenth_of_a_turn() {
        let mut bench = Bench::new(Method::RoundRobin, &[1, 1]);
        bench.change(|pool| pool.slow_ramp_ms = 10_000);
        bench.states.add(MemberId(1), MemberState::Enabled, Instant::from_ms(1_000));
        bench.now = Instant::from_ms(1_000);
        assert_eq!(bench.counts(1_100), [1_000, 100]);
        bench.now = Instant::from_ms(11_000);
        assert_eq!(bench.counts(1_100), [550, 550]);
    }
}
