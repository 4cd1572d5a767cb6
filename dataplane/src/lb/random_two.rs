//! Random of two: of two members taken at random, the one with fewer connections. O(1), and nearly as even as
//! looking at all of them (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).

use super::roster::{Candidate, Pick};
use super::round_robin;
use crate::lb::maglev::mix;

/// Where a worker's random numbers come from: a counter, mixed. Not for secrets.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, which is above 0 and below 2^32.
    fn below(&mut self, bound: usize) -> usize {
        (((self.next() >> 32) * bound as u64) >> 32) as usize
    }
}

pub(super) fn pick(random: &mut Random, pick: &Pick) -> Option<usize> {
    let at_work = pick.at_work();
    if at_work.len() < 2 {
        return at_work.iter().map(Candidate::place).find(|&place| pick.takes(place));
    }
    for _ in 0..TRIES {
        let (one, other) = two_of(random, at_work);
        match (pick.takes(one.place()), pick.takes(other.place())) {
            (true, true) => return Some(less_loaded(one, other, pick).place()),
            (true, false) => return Some(one.place()),
            (false, true) => return Some(other.place()),
            (false, false) => {}
        }
    }
    let mut start = random.below(at_work.len());
    round_robin::pick(&mut start, pick)
}

fn two_of<'c>(random: &mut Random, at_work: &'c [Candidate]) -> (&'c Candidate, &'c Candidate) {
    let one = random.below(at_work.len());
    let other = (one + 1 + random.below(at_work.len() - 1)) % at_work.len();
    (&at_work[one], &at_work[other])
}

fn less_loaded<'c>(one: &'c Candidate, other: &'c Candidate, pick: &Pick) -> &'c Candidate {
    let load = |candidate: &Candidate| pick.view.connections(candidate.id).saturating_add(1);
    if load(other) * pick.share(one.id) < load(one) * pick.share(other.id) { other } else { one }
}

/// Pairs without room before everybody is asked.
const TRIES: usize = 4;

#[cfg(test)]
mod tests {
    use crate::config::ids::MemberId;
    use crate::config::snapshot::Method;
    use crate::lb::NoPick;
    use crate::lb::testing::Bench;
    use crate::pool::MemberState;

    #[test]
    fn of_two_the_one_with_fewer() {
        let mut bench = Bench::new(Method::RandomTwo, &[1, 1]);
        bench.open(0);
        assert_eq!(bench.picks(50), [1; 50]);
    }

    #[test]
    fn the_most_loaded_of_many_is_never_picked_and_all_others_are() {
        let mut bench = Bench::new(Method::RandomTwo, &[1; 8]);
        bench.open(3);
        let counts = bench.counts(7_000);
        assert_eq!(counts[3], 0);
        assert!(counts.iter().filter(|&&count| (850..1_150).contains(&count)).count() == 7, "{counts:?}");
    }

    #[test]
    fn the_only_one_with_room_is_found() {
        let mut bench = Bench::new(Method::RandomTwo, &[1; 12]);
        bench.change(|pool| pool.members.iter_mut().for_each(|member| member.connection_limit = 1));
        (0..12).filter(|&member| member != 7).for_each(|member| bench.open(member));
        assert_eq!(bench.picks(20), [7; 20]);
        bench.open(7);
        assert_eq!(bench.try_pick(), Err(NoPick::AtLimit));
    }

    #[test]
    fn one_member_is_enough() {
        let mut bench = Bench::new(Method::RandomTwo, &[1, 1]);
        bench.states.set(MemberId(0), MemberState::Offline);
        assert_eq!(bench.picks(3), [1, 1, 1]);
    }
}
