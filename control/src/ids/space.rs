//! The numbers of one kind of object.

use std::collections::VecDeque;
use std::hash::Hash;

use hashbrown::{HashMap, HashSet};

use crate::parse::Fault;

/// No number is left.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full {
    wanted: usize,
    capacity: u32,
    retired: usize,
}

impl Full {
    pub(super) fn fault(&self, section: &str, limit: &str) -> Fault {
        let (wanted, capacity) = (self.wanted, self.capacity);
        let mut message = format!("expected at most {capacity} (system.limits.{limit}); these are {wanted}");
        if self.retired > 0 {
            let kept =
                format!(", and {} that were removed count until their connections have ended", self.retired);
            message.push_str(&kept);
        }
        Fault::new(format!("/{section}"), message)
    }
}

/// The numbers of one kind of object.
#[derive(Debug, Clone)]
pub(super) struct Space<K> {
    capacity: u32,
    /// The first number that was never used.
    pub(super) next: u32,
    live: HashMap<K, Live>,
    /// Assignments so far.
    turn: u64,
    /// Oldest first: what the number stood for, and the generation that no longer names it.
    pub(super) retired: VecDeque<(K, u32, u64)>,
}

/// A number that stands for something.
#[derive(Debug, Clone, Copy)]
struct Live {
    id: u32,
    /// The last assignment that wanted it.
    turn: u64,
}

impl<K: Hash + Eq + Ord + Clone> Space<K> {
    pub(super) fn new(capacity: u32) -> Self {
        Self { capacity, next: 0, live: HashMap::new(), turn: 0, retired: VecDeque::new() }
    }

    pub(super) fn of<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<u32>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.live.get(key).map(|live| live.id)
    }

    /// Retires all but `keys`; returns those that have no number.
    pub(super) fn keep_only(&mut self, keys: impl Iterator<Item = K>, generation: u64) -> Vec<K> {
        self.turn += 1;
        let (missing, kept) = self.mark(keys);
        if kept < self.live.len() {
            let unmarked = self.live.extract_if(|_, live| live.turn != self.turn);
            let unmarked = unmarked.map(|(key, live)| (key, live.id)).collect();
            self.retire(unmarked, generation);
        }
        missing
    }

    /// Retires what is `gone` and not `new`, and leaves everything else as it is; returns what is new and has no
    /// number.
    pub(super) fn exchange(
        &mut self,
        gone: impl Iterator<Item = K>,
        new: impl Iterator<Item = K>,
        generation: u64,
    ) -> Vec<K> {
        self.turn += 1;
        let (missing, _) = self.mark(new);
        let mut unmarked = Vec::new();
        for key in gone {
            if self.live.get(&key).is_some_and(|live| live.turn != self.turn) {
                unmarked.extend(self.live.remove_entry(&key).map(|(key, live)| (key, live.id)));
            }
        }
        self.retire(unmarked, generation);
        missing
    }

    /// Gives numbers to what is `missing`; returns those that changed their object.
    pub(super) fn number(
        &mut self,
        mut missing: Vec<K>,
        is_free: impl Fn(&K, u32, u64) -> bool,
    ) -> Result<Vec<u32>, Full> {
        // Numbers do not depend on the order of hashes.
        missing.sort_unstable();
        missing.dedup();
        let wanted = self.live.len() + missing.len();
        self.revive(&mut missing);
        let mut reused = Vec::new();
        for key in missing {
            let Some(id) = self.fresh().or_else(|| self.recycle(&is_free, &mut reused)) else {
                return Err(Full { wanted, capacity: self.capacity, retired: self.retired.len() });
            };
            self.live.insert(key, Live { id, turn: self.turn });
        }
        Ok(reused)
    }

    /// Marks what is wanted as of this turn; returns what has no number, and how many have one.
    fn mark(&mut self, keys: impl Iterator<Item = K>) -> (Vec<K>, usize) {
        let (mut missing, mut kept) = (Vec::new(), 0);
        for key in keys {
            match self.live.get_mut(&key) {
                Some(live) => {
                    kept += usize::from(live.turn != self.turn);
                    live.turn = self.turn;
                }
                None => missing.push(key),
            }
        }
        (missing, kept)
    }

    fn retire(&mut self, mut gone: Vec<(K, u32)>, generation: u64) {
        gone.sort_unstable_by_key(|(_, id)| *id);
        self.retired.extend(gone.into_iter().map(|(key, id)| (key, id, generation)));
    }

    fn revive(&mut self, missing: &mut Vec<K>) {
        if self.retired.is_empty() || missing.is_empty() {
            return;
        }
        let back: HashSet<K> = missing.iter().cloned().collect();
        for (key, id, at) in std::mem::take(&mut self.retired) {
            if back.contains(&key) && !self.live.contains_key(&key) {
                self.live.insert(key, Live { id, turn: self.turn });
            } else {
                self.retired.push_back((key, id, at));
            }
        }
        missing.retain(|key| !self.live.contains_key(key));
    }

    fn fresh(&mut self) -> Option<u32> {
        let id = (self.next < self.capacity).then_some(self.next)?;
        self.next += 1;
        Some(id)
    }

    fn recycle(&mut self, is_free: impl Fn(&K, u32, u64) -> bool, reused: &mut Vec<u32>) -> Option<u32> {
        let place = self.retired.iter().position(|(key, id, at)| is_free(key, *id, *at))?;
        let (_, id, _) = self.retired.remove(place)?;
        reused.push(id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assign(
        space: &mut Space<&'static str>,
        keys: &[&'static str],
        generation: u64,
    ) -> Result<Vec<u32>, Full> {
        let missing = space.keep_only(keys.iter().copied(), generation);
        space.number(missing, |_, _, _| true)
    }

    #[test]
    fn numbers_stay_with_their_names() {
        let mut space = Space::new(8);
        assign(&mut space, &["b", "c"], 1).unwrap();
        let (b, c) = (space.of("b"), space.of("c"));
        assign(&mut space, &["a", "c", "d"], 2).unwrap();
        assert_eq!(space.of("c"), c);
        assert_eq!(space.of("b"), None);
        assign(&mut space, &["b", "c"], 3).unwrap();
        assert_eq!((space.of("b"), space.of("c")), (b, c));
    }

    #[test]
    fn a_held_number_is_not_given_away() {
        let mut space = Space::new(2);
        assign(&mut space, &["a", "b"], 1).unwrap();
        let a = space.of("a").unwrap();
        let missing = space.keep_only(["b", "c"].into_iter(), 2);
        let held = space.clone().number(missing.clone(), |_, id, _| id != a);
        assert_eq!(held, Err(Full { wanted: 2, capacity: 2, retired: 1 }));
        let early = space.clone().number(missing, |_, _, at| at <= 1);
        assert!(early.is_err(), "a worker may still run the generation that names it");
        assert_eq!(assign(&mut space, &["b", "c"], 2), Ok(vec![a]));
        assert_eq!(space.of("c"), Some(a));
    }

    #[test]
    fn an_exchange_changes_only_what_it_names() {
        let mut space = Space::new(8);
        assign(&mut space, &["a", "b", "c"], 1).unwrap();
        let mut whole = space.clone();
        assign(&mut whole, &["b", "c", "d"], 2).unwrap();
        let missing = space.exchange(["a", "b"].into_iter(), ["b", "d"].into_iter(), 2);
        assert_eq!((space.number(missing, |_, _, _| true), space.of("a")), (Ok(vec![]), None));
        for key in ["b", "c", "d"] {
            assert_eq!(space.of(key), whole.of(key), "{key}");
        }
        assert_eq!(space.retired, whole.retired);
    }

    #[test]
    fn unused_numbers_come_before_used_ones() {
        let mut space = Space::new(3);
        assign(&mut space, &["a", "b"], 1).unwrap();
        assert_eq!(assign(&mut space, &["b", "c"], 2), Ok(vec![]));
        assert_eq!(space.of("c"), Some(2));
    }
}
