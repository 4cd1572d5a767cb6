//! Which place of a table holds which key, and which places are free; what lies there is the caller's.
//!
//! ```text
//!   hash ─▶ heads ─▶ place ─▶ place ─▶ none       chains, threaded through `next`
//!   free ─▶ place ─▶ none    fresh…capacity       places given back, and those never used
//! ```

use sluice_ffi::memory::{Backing, Slab};

use crate::flow::key::{FlowKey, HashSeed};

/// The places of one table. Nothing is allocated, moved or hashed again after [`Places::new`].
#[derive(Debug)]
pub(super) struct Places {
    seed: HashSeed,
    /// By bucket: the first of its chain. As everywhere here: a place + 1, 0 is none.
    heads: Slab<u32>,
    /// By place: the next in its chain, or the next free one.
    next: Slab<u32>,
    free: u32,
    /// Places from here on have never been used.
    fresh: usize,
    len: usize,
}

impl Places {
    /// For `capacity` places; a bucket for each.
    pub(super) fn new(capacity: usize, seed: HashSeed, backing: Backing) -> Self {
        let capacity = capacity.min((u32::MAX / 2) as usize);
        let heads = Slab::new(capacity.next_power_of_two(), backing);
        Self { seed, heads, next: Slab::new(capacity, backing), free: 0, fresh: 0, len: 0 }
    }

    /// Places in use.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Places there are.
    pub(super) fn capacity(&self) -> usize {
        self.next.len()
    }

    /// Bytes taken.
    pub(super) fn bytes(&self) -> usize {
        self.heads.bytes() + self.next.bytes()
    }

    /// The place in use of which `is` says that it holds `key`. A chain holds one place on average.
    pub(super) fn find(&self, key: &FlowKey, is: impl Fn(usize) -> bool) -> Option<usize> {
        let mut at = self.heads[self.bucket(key)];
        while let Some(place) = at.checked_sub(1).map(|place| place as usize) {
            if is(place) {
                return Some(place);
            }
            at = self.next[place];
        }
        None
    }

    /// Takes a free place for `key`, which has none; `None` when all are in use. O(1).
    pub(super) fn take(&mut self, key: &FlowKey) -> Option<usize> {
        let place = self.free_place()?;
        let bucket = self.bucket(key);
        self.next[place] = self.heads[bucket];
        self.heads[bucket] = place as u32 + 1;
        self.len += 1;
        Some(place)
    }

    /// Gives back the place that `key` has taken. O(chain).
    pub(super) fn give_back(&mut self, key: &FlowKey, place: usize) {
        let (bucket, wanted) = (self.bucket(key), place as u32 + 1);
        let after = self.next[place];
        let mut link = &mut self.heads[bucket];
        while *link != wanted {
            let Some(at) = link.checked_sub(1) else { return };
            link = &mut self.next[at as usize];
        }
        *link = after;
        self.next[place] = self.free;
        self.free = wanted;
        self.len -= 1;
    }

    fn free_place(&mut self) -> Option<usize> {
        if let Some(place) = self.free.checked_sub(1) {
            self.free = self.next[place as usize];
            return Some(place as usize);
        }
        (self.fresh < self.next.len()).then(|| {
            self.fresh += 1;
            self.fresh - 1
        })
    }

    fn bucket(&self, key: &FlowKey) -> usize {
        self.seed.hash(key) as usize & (self.heads.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snat::random::Random;
    use std::collections::HashMap;

    fn key(src_port: u16) -> FlowKey {
        FlowKey { src_port, ..FlowKey::default() }
    }

    #[test]
    fn full_says_so_and_a_place_given_back_is_taken_again() {
        let mut places = Places::new(2, HashSeed::fixed(1), Backing::Ordinary);
        assert_eq!(
            (places.take(&key(1)), places.take(&key(2)), places.take(&key(3))),
            (Some(0), Some(1), None)
        );
        places.give_back(&key(1), 0);
        assert_eq!((places.len(), places.take(&key(3)), places.len()), (1, Some(0), 2));
        assert_eq!(Places::new(0, HashSeed::fixed(1), Backing::Ordinary).take(&key(1)), None);
    }

    #[test]
    fn a_random_history_finds_what_a_map_finds() {
        for seed in 1..50 {
            let mut random = Random::new(seed);
            let mut places = Places::new(16, HashSeed::fixed(seed), Backing::Ordinary);
            let (mut held, mut map) = ([0; 16], HashMap::new());
            for _ in 0..2_000 {
                let port = (random.next() >> 59) as u16;
                let found = places
                    .find(&key(port), |place| map.get(&held[place]) == Some(&place) && held[place] == port);
                assert_eq!(found, map.get(&port).copied(), "seed {seed}");
                match found {
                    Some(place) => {
                        places.give_back(&key(port), place);
                        map.remove(&port);
                    }
                    None if map.len() == 16 => assert_eq!(places.take(&key(port)), None, "seed {seed}"),
                    None => {
                        let place =
                            places.take(&key(port)).unwrap_or_else(|| panic!("no place, seed {seed}"));
                        assert_eq!(map.insert(port, place), None);
                        held[place] = port;
                    }
                }
                assert_eq!(places.len(), map.len(), "seed {seed}");
            }
        }
    }

    #[test]
    fn a_place_that_the_key_has_not_is_not_given_back() {
        let mut places = Places::new(4, HashSeed::fixed(1), Backing::Ordinary);
        assert_eq!(places.take(&key(1)), Some(0));
        places.give_back(&key(1), 2);
        assert_eq!((places.len(), places.find(&key(1), |place| place == 0)), (1, Some(0)));
    }
}
