//! A few ranges of sequence numbers, in order and apart from each other: what came too early, or what the peer says it has.

use super::seq::Seq;

/// Ranges at most; what does not fit is not remembered.
pub(super) const RANGES_MAX: usize = 16;

/// Half-open ranges, `start < end < next start`, none of them empty.
#[derive(Debug, Clone)]
pub(super) struct Ranges {
    items: [(Seq, Seq); RANGES_MAX],
    len: usize,
}

impl Ranges {
    pub(super) const EMPTY: Ranges = Ranges { items: [(Seq(0), Seq(0)); RANGES_MAX], len: 0 };

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn as_slice(&self) -> &[(Seq, Seq)] {
        &self.items[..self.len]
    }

    /// Numbers in all ranges.
    pub(super) fn total(&self) -> usize {
        self.as_slice().iter().map(|(start, end)| end.ahead_of(*start)).sum()
    }

    /// Adds a range that is not empty. True when it is remembered, none of it in vain. O([`RANGES_MAX`]).
    pub(super) fn insert(&mut self, start: Seq, end: Seq) -> bool {
        let first = self.as_slice().iter().position(|range| !range.1.is_before(start)).unwrap_or(self.len);
        let touching = self.as_slice()[first..].iter().take_while(|range| !range.0.is_after(end)).count();
        if touching == 0 {
            return self.put(first, (start, end));
        }
        let last = first + touching - 1;
        self.items[first] = (self.items[first].0.min(start), self.items[last].1.max(end));
        self.items.copy_within(last + 1..self.len, first + 1);
        self.len -= touching - 1;
        true
    }

    fn put(&mut self, at: usize, range: (Seq, Seq)) -> bool {
        let has_room = self.len < RANGES_MAX;
        if has_room {
            self.items.copy_within(at..self.len, at + 1);
            self.items[at] = range;
            self.len += 1;
        }
        has_room
    }

    /// Forgets what is before `edge`.
    pub(super) fn trim(&mut self, edge: Seq) {
        let gone = self.as_slice().iter().take_while(|range| !range.1.is_after(edge)).count();
        self.items.copy_within(gone..self.len, 0);
        self.len -= gone;
        if self.len > 0 {
            self.items[0].0 = self.items[0].0.max(edge);
        }
    }

    /// Takes out the first range when it begins at `edge` or before; returns its end.
    pub(super) fn take_from(&mut self, edge: Seq) -> Option<Seq> {
        let (_, end) = *self.as_slice().first().filter(|range| !range.0.is_after(edge))?;
        self.items.copy_within(1..self.len, 0);
        self.len -= 1;
        Some(end)
    }

    /// The range that holds `seq`.
    pub(super) fn around(&self, seq: Seq) -> Option<(Seq, Seq)> {
        let holds = |range: &&(Seq, Seq)| !range.0.is_after(seq) && range.1.is_after(seq);
        self.as_slice().iter().find(holds).copied()
    }

    /// The first hole in `from..to`.
    pub(super) fn first_hole(&self, from: Seq, to: Seq) -> Option<(Seq, Seq)> {
        let mut at = from;
        for &(start, end) in self.as_slice() {
            if start.is_after(at) {
                break;
            }
            at = at.max(end);
        }
        let next =
            self.as_slice().iter().find(|range| range.0.is_after(at)).map_or(to, |range| range.0.min(to));
        next.is_after(at).then_some((at, next))
    }

    /// Numbers of `from..to` that are in no range.
    pub(super) fn missing(&self, from: Seq, to: Seq) -> usize {
        if !to.is_after(from) {
            return 0;
        }
        let held =
            self.as_slice().iter().map(|&(start, end)| end.min(to).since(start.max(from)).max(0) as usize);
        to.ahead_of(from) - held.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snat::random::Random;

    fn of(pairs: &[(u32, u32)]) -> Ranges {
        let mut ranges = Ranges::EMPTY;
        pairs.iter().for_each(|&(start, end)| assert!(ranges.insert(Seq(start), Seq(end))));
        ranges
    }

    fn list(ranges: &Ranges) -> Vec<(u32, u32)> {
        ranges.as_slice().iter().map(|(start, end)| (start.0, end.0)).collect()
    }

    #[test]
    fn touching_ranges_become_one() {
        assert_eq!(list(&of(&[(10, 20), (30, 40), (20, 30)])), [(10, 40)]);
        assert_eq!(list(&of(&[(30, 40), (10, 20), (5, 50)])), [(5, 50)]);
        assert_eq!(list(&of(&[(u32::MAX - 1, 3), (9, 10), (3, 5)])), [(u32::MAX - 1, 5), (9, 10)]);
    }

    #[test]
    fn holes_are_between_and_behind() {
        let ranges = of(&[(10, 20), (30, 40)]);
        let hole = |from, to| ranges.first_hole(Seq(from), Seq(to)).map(|(start, end)| (start.0, end.0));
        assert_eq!(
            (hole(0, 50), hole(10, 50), hole(15, 25)),
            (Some((0, 10)), Some((20, 30)), Some((20, 25)))
        );
        assert_eq!((hole(35, 60), hole(30, 40), hole(35, 38)), (Some((40, 60)), None, None));
        assert_eq!((ranges.missing(Seq(0), Seq(50)), ranges.missing(Seq(15), Seq(35))), (30, 10));
        assert_eq!((ranges.missing(Seq(5), Seq(5)), ranges.total()), (0, 20));
    }

    #[test]
    fn a_full_list_takes_only_what_touches() {
        let mut ranges = of(&(0..RANGES_MAX as u32).map(|at| (at * 10, at * 10 + 5)).collect::<Vec<_>>());
        assert!(!ranges.insert(Seq(1007), Seq(1008)));
        assert!(ranges.insert(Seq(5), Seq(10)));
        assert!(ranges.insert(Seq(1007), Seq(1008)));
    }

    #[test]
    fn a_random_history_is_that_of_a_set() {
        for seed in 1..200 {
            let mut random = Random::new(seed);
            let (mut ranges, mut set) = (Ranges::EMPTY, [false; 64]);
            for _ in 0..40 {
                let (start, len) = ((random.next() >> 59) as usize * 2, 1 + (random.next() >> 61) as usize);
                match random.next() >> 61 {
                    0 => {
                        ranges.trim(Seq(start as u32));
                        set[..start].fill(false);
                    }
                    _ if ranges.insert(Seq(start as u32), Seq((start + len).min(64) as u32)) => {
                        set[start..(start + len).min(64)].fill(true);
                    }
                    _ => {}
                }
                let has = |at: usize| ranges.around(Seq(at as u32)).is_some();
                assert!((0..64).all(|at| has(at) == set[at]), "seed {seed}: {ranges:?} {set:?}");
                let missing = set[start..].iter().filter(|held| !**held).count();
                assert_eq!(ranges.missing(Seq(start as u32), Seq(64)), missing, "seed {seed}");
                let hole = (start..64).find(|at| !set[*at]).map(|at| Seq(at as u32));
                assert_eq!(
                    ranges.first_hole(Seq(start as u32), Seq(64)).map(|hole| hole.0),
                    hole,
                    "seed {seed}"
                );
            }
        }
    }
}
