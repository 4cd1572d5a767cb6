//! The least loaded of those that take a connection; among equals, in turn. What load is, the methods say.

use super::roster::{Candidate, Pick};

/// A load: so much for so much weight. Compared as a fraction, exactly.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) amount: u64,
    /// At least 1.
    pub(super) weight: u64,
    /// Decides among equal loads.
    pub(super) then: u64,
}

impl Load {
    #[inline]
    fn is_less_than(self, other: Load) -> bool {
        if self.weight == other.weight {
            return (self.amount, self.then) < (other.amount, other.then);
        }
        let one = u128::from(self.amount) * u128::from(other.weight);
        let two = u128::from(other.amount) * u128::from(self.weight);
        one < two || (one == two && self.then < other.then)
    }
}

/// The place of the one with the least load. O(members); asks about limits only of those that are better than the
/// best so far.
#[inline]
pub(super) fn pick(cursor: &mut usize, pick: &Pick, load: impl Fn(&Candidate) -> Load) -> Option<usize> {
    let at_work = pick.at_work();
    let first = cursor.checked_rem(at_work.len())?;
    let mut best: Option<(usize, Load)> = None;
    for turns in [first..at_work.len(), 0..first] {
        for turn in turns {
            let load = load(&at_work[turn]);
            let is_better = best.is_none_or(|(_, least)| load.is_less_than(least));
            if is_better && pick.takes(at_work[turn].place()) {
                best = Some((turn, load));
            }
        }
    }
    let (turn, _) = best?;
    *cursor = (turn + 1) % at_work.len();
    Some(at_work[turn].place())
}
