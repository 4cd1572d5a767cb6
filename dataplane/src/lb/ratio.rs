//! Ratio: shares in proportion to the members' weights, spread evenly (smooth weighted round robin).
//!
//! Every pick gives each available member its weight in credit, takes the richest and charges it the total.

use super::View;
use crate::config::snapshot::Member;

pub(super) fn pick<'m>(credits: &mut [i64], members: &'m [Member], view: &View) -> Option<&'m Member> {
    let mut total = 0;
    let mut richest: Option<usize> = None;
    for (place, member) in members.iter().enumerate() {
        if !view.is_available(member) {
            continue;
        }
        total += i64::from(member.ratio);
        credits[place] += i64::from(member.ratio);
        if richest.is_none_or(|best| credits[place] > credits[best]) {
            richest = Some(place);
        }
    }
    let place = richest?;
    credits[place] -= total;
    Some(&members[place])
}

#[cfg(test)]
mod tests {
    use crate::config::snapshot::Method;
    use crate::lb::tests::Bench;

    #[test]
    fn shares_are_exact_and_spread() {
        let mut bench = Bench::new(Method::RatioMember, &[3, 1, 2]);
        let picks = bench.picks(600);
        let share = |member| picks.iter().filter(|&&pick| pick == member).count();
        assert_eq!((share(0), share(1), share(2)), (300, 100, 200));
        assert!(picks.windows(4).all(|four| four.iter().any(|&pick| pick != four[0])), "no long runs");
    }
}
