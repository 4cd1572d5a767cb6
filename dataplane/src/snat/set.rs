//! [`Set`]: which ports are in use and which rest, by class.
//!
//! ```text
//!   full, worn: a bit a class          full: every port in use; worn: none that neither is in use nor rests
//!   class ─▶ 8 words of half a cache line, each for 64 ports:
//!            │ used │ resting, given back in this generation │ in the one before │ when it was last looked at │
//! ```
//!
//! A word moves its resting bits on when it is next looked at, so time costs nothing where nobody looks. To take a port
//! and to give it back each touch one line of the words, however many ports are in use or rest.

use bytemuck::Zeroable;
use sluice_ffi::hint;

use super::classes::{PortBits, WORDS};
use super::rest::Resting;
use super::toeplitz::BUCKETS;

/// The ports of one pair, or of several that share them.
#[derive(Debug, Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Set {
    full: [u64; 2],
    worn: [u64; 2],
    /// The generation that `worn` was found in.
    worn_at: u32,
    /// Pairs that have their ports here.
    pub(super) tenants: u32,
    /// Whose ports rest here, by number.
    pub(super) address: u32,
    pub(super) resting: Resting,
    /// What the words' time is ahead of generations: everything that rested has been woken by a leap.
    leaps: u64,
    classes: [[Word; WORDS]; BUCKETS],
}

/// 64 ports of a class.
#[derive(Debug, Clone, Copy, Zeroable)]
#[repr(C, align(32))]
struct Word {
    used: u64,
    resting: [u64; 2],
    /// When its resting bits were last moved on.
    seen: u64,
}

const _: () = assert!(size_of::<Word>() == 32 && size_of::<Set>() == 32_832);

impl Set {
    /// Classes with a port that is not in use, as far as is known.
    #[inline]
    pub(super) fn open(&self) -> u128 {
        !joined(self.full)
    }

    /// Of those, the ones with a port that does not rest either.
    #[inline]
    pub(super) fn fresh(&mut self, now: u32) -> u128 {
        if self.worn_at != now {
            // What rested may do so no longer.
            (self.worn, self.worn_at) = ([0, 0], now);
        }
        !(joined(self.full) | joined(self.worn))
    }

    /// A place of `class` that is neither in use nor rests nor is `barred`, the first from `start` on. Without one
    /// the class is worn.
    #[inline]
    pub(super) fn fresh_place(
        &mut self,
        class: usize,
        start: usize,
        barred: &PortBits,
        now: u32,
    ) -> Option<usize> {
        let mut words = words_from(start);
        let found = words
            .find_map(|at| place_in(at, !(self.current(class, at, now).taken() | barred[class][at]), start));
        if found.is_none() {
            self.worn[class / 64] |= 1 << (class % 64);
        }
        found
    }

    /// Asks for the memory of a place.
    #[inline(always)]
    pub(super) fn prefetch(&self, class: usize, place: usize) {
        hint::prefetch(&self.classes[class][place / 64 % WORDS]);
    }

    /// A place of `class` that is not in use nor `barred`, rather one that has rested longer.
    pub(super) fn rested_place(
        &mut self,
        class: usize,
        start: usize,
        barred: &PortBits,
        now: u32,
    ) -> Option<usize> {
        let mut shorter = None;
        for at in words_from(start) {
            let word = self.current(class, at, now);
            let free = !(word.used | barred[class][at]);
            let longer = free & !word.resting[0];
            if longer != 0 {
                return place_in(at, longer, start);
            }
            shorter = shorter.or(place_in(at, free, start));
        }
        shorter
    }

    /// True when the place is in use.
    #[inline]
    pub(super) fn is_used(&self, class: usize, place: usize) -> bool {
        self.classes[class][place / 64].used & bit_of(place) != 0
    }

    /// True when the place neither is in use nor rests.
    #[inline]
    pub(super) fn is_fresh(&mut self, class: usize, place: usize, now: u32) -> bool {
        self.current(class, place / 64, now).taken() & bit_of(place) == 0
    }

    /// Takes a place; gives the age of its rest in generations, if that is ended by this. `low` are the ports that
    /// nobody gets.
    #[inline]
    pub(super) fn occupy(&mut self, class: usize, place: usize, low: &PortBits, now: u32) -> Option<usize> {
        let (at, bit) = (place / 64, bit_of(place));
        let word = self.current(class, at, now);
        let age = word.resting.iter().position(|resting| resting & bit != 0);
        word.used |= bit;
        word.resting = word.resting.map(|resting| resting & !bit);
        if word.used | low[class][at] == u64::MAX {
            self.note_full(class, low);
        }
        age
    }

    /// Gives a place back, to rest or not.
    #[inline]
    pub(super) fn vacate(&mut self, class: usize, place: usize, rests: bool, now: u32) {
        let word = self.current(class, place / 64, now);
        word.used &= !bit_of(place);
        if rests {
            word.resting[0] |= bit_of(place);
        } else {
            self.worn[class / 64] &= !(1 << (class % 64));
        }
        self.full[class / 64] &= !(1 << (class % 64));
    }

    /// What of a word is in use, and what rests: given back in this generation, and in the one before.
    pub(super) fn word(&mut self, class: usize, at: usize, now: u32) -> (u64, [u64; 2]) {
        let word = self.current(class, at, now);
        (word.used, word.resting)
    }

    /// Nothing rests any more.
    pub(super) fn wake_all(&mut self) {
        self.leaps += 2;
        (self.worn_at, self.resting) = (0, Resting::default());
    }

    fn note_full(&mut self, class: usize, low: &PortBits) {
        let mut words = self.classes[class].iter().zip(&low[class]);
        if words.all(|(word, low)| word.used | low == u64::MAX) {
            self.full[class / 64] |= 1 << (class % 64);
        }
    }

    /// A word with its resting bits of this generation.
    #[inline(always)]
    fn current(&mut self, class: usize, at: usize, now: u32) -> &mut Word {
        let now = u64::from(now) + self.leaps;
        let word = &mut self.classes[class][at];
        match now - word.seen {
            0 => return word,
            1 => word.resting = [0, word.resting[0]],
            _ => word.resting = [0, 0],
        }
        word.seen = now;
        word
    }
}

impl Word {
    /// In use or resting.
    #[inline(always)]
    fn taken(&self) -> u64 {
        self.used | self.resting[0] | self.resting[1]
    }
}

/// A set bit of `bits`: the first from `start` on, around the end.
#[inline(always)]
pub(super) fn bit_from(bits: u128, start: u32) -> Option<usize> {
    if bits == 0 {
        return None;
    }
    let turned = bits.rotate_right(start);
    Some(((turned.trailing_zeros() + start) % 128) as usize)
}

/// The words of a class, from that of place `start` on, around the end.
#[inline(always)]
fn words_from(start: usize) -> impl Iterator<Item = usize> {
    (0..WORDS).map(move |step| (start / 64 + step) % WORDS)
}

/// A place of word `at` whose bit is set in `free`: the first from the bit of `start` on, around the end.
#[inline(always)]
fn place_in(at: usize, free: u64, start: usize) -> Option<usize> {
    let bit = start as u32 % 64;
    (free != 0).then(|| at * 64 + ((free.rotate_right(bit).trailing_zeros() + bit) % 64) as usize)
}

#[inline(always)]
fn bit_of(place: usize) -> u64 {
    1 << (place % 64)
}

#[inline(always)]
fn joined(halves: [u64; 2]) -> u128 {
    u128::from(halves[0]) | u128::from(halves[1]) << 64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snat::classes::no_ports;
    use sluice_ffi::memory::{Backing, Slab};

    #[test]
    fn what_was_woken_rests_no_more_whatever_the_time() {
        let (mut sets, none) = (Slab::<Set>::new(1, Backing::Ordinary), no_ports());
        let set = &mut sets[0];
        for now in [2, 3, 3, 3, 4, 9] {
            set.occupy(5, 70, &none, now);
            set.vacate(5, 70, true, now);
            assert!(
                !set.is_fresh(5, 70, now) && !set.is_fresh(5, 70, now + 1) && set.is_fresh(5, 71, now + 1)
            );
            set.wake_all();
            assert!(set.is_fresh(5, 70, now + 1) && !set.is_used(5, 70));
            set.wake_all();
        }
    }

    #[test]
    fn a_class_is_full_with_its_last_port_and_open_with_the_first_given_back() {
        let (mut sets, none) = (Slab::<Set>::new(1, Backing::Ordinary), no_ports());
        let set = &mut sets[0];
        for place in (0..WORDS * 64).rev() {
            assert_eq!(set.open(), u128::MAX, "before place {place}");
            set.occupy(7, place, &none, 2);
        }
        assert_eq!(set.open(), !(1 << 7));
        set.vacate(7, 300, true, 2);
        assert_eq!((set.open(), set.fresh(2)), (u128::MAX, u128::MAX));
        assert_eq!((set.fresh_place(7, 0, &none, 2), set.fresh(2)), (None, !(1 << 7)));
        assert_eq!(
            (set.rested_place(7, 0, &none, 2), set.fresh_place(7, 0, &none, 4)),
            (Some(300), Some(300))
        );
    }
}
