//! Least connections: the available member with the fewest; among equals, in turn.

use super::View;
use crate::config::snapshot::Member;

pub(super) fn pick<'m>(cursor: &mut usize, members: &'m [Member], view: &View) -> Option<&'m Member> {
    let count = members.len();
    let in_turn = (0..count).map(|step| (*cursor + step) % count);
    let place = in_turn
        .filter(|&place| view.is_available(&members[place]))
        .min_by_key(|&place| view.connections(&members[place]))?;
    *cursor = place + 1;
    Some(&members[place])
}

#[cfg(test)]
mod tests {
    use crate::config::snapshot::Method;
    use crate::lb::tests::Bench;

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
}
