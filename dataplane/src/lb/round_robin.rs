//! Round robin: the next available member in turn.

use super::View;
use crate::config::snapshot::Member;

pub(super) fn pick<'m>(cursor: &mut usize, members: &'m [Member], view: &View) -> Option<&'m Member> {
    let count = members.len();
    for step in 0..count {
        let place = (*cursor + step) % count;
        if view.is_available(&members[place]) {
            *cursor = place + 1;
            return Some(&members[place]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use crate::config::ids::MemberId;
    use crate::config::snapshot::Method;
    use crate::lb::tests::Bench;
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
        bench.pool.members.truncate(1);
        assert_eq!(bench.picks(2), [0, 0]);
    }
}
