//! [`Set`]: which ports are in use and which rest, by class.
//!
//! ```text
//!   full, worn: a bit a class          full: every port in use; worn: none that neither is in use nor rests
//!   class ─▶ used     512 bits
//!            resting  512 bits × 2     given back in this generation, in the one before
//! ```
//!
//! A class moves its resting bits on when it is next looked at, so time costs nothing where nobody looks.

use bytemuck::Zeroable;

use super::classes::{PortBits, WORDS};
use super::rest::Resting;
use super::toeplitz::BUCKETS;

/// A bit for each port of a class.
type ClassBits = [u64; WORDS];

/// The ports of one pair, or of several that share them.
#[derive(Debug, Clone, Copy, Zeroable)]
#[repr(C)]
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
    /// The generation of each class's resting bits.
    seen: [u32; BUCKETS],
    classes: [Class; BUCKETS],
}

#[derive(Debug, Clone, Copy, Zeroable)]
#[repr(C)]
struct Class {
    used: ClassBits,
    resting: [ClassBits; 2],
}

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
        let Class { used, resting } = self.current(class, now);
        let found = place_from(start, |word| {
            !(used[word] | resting[0][word] | resting[1][word] | barred[class][word])
        });
        if found.is_none() {
            self.worn[class / 64] |= 1 << (class % 64);
        }
        found
    }

    /// A place of `class` that is not in use nor `barred`, rather one that has rested longer.
    pub(super) fn rested_place(
        &mut self,
        class: usize,
        start: usize,
        barred: &PortBits,
        now: u32,
    ) -> Option<usize> {
        let Class { used, resting } = self.current(class, now);
        place_from(start, |word| !(used[word] | resting[0][word] | barred[class][word]))
            .or_else(|| place_from(start, |word| !(used[word] | barred[class][word])))
    }

    /// True when the place is in use.
    pub(super) fn is_used(&self, class: usize, place: usize) -> bool {
        has(&self.classes[class].used, place)
    }

    /// How many generations ago the place was given back, while it rests.
    pub(super) fn age(&mut self, class: usize, place: usize, now: u32) -> Option<usize> {
        let resting = &self.current(class, now).resting;
        resting.iter().position(|bits| has(bits, place))
    }

    /// Takes a place; gives the age of its rest, if that is ended by this. `low` are the ports that nobody gets.
    pub(super) fn occupy(&mut self, class: usize, place: usize, low: &PortBits, now: u32) -> Option<usize> {
        let age = self.age(class, place, now);
        let Class { used, resting } = &mut self.classes[class];
        used[place / 64] |= 1 << (place % 64);
        if let Some(age) = age {
            resting[age][place / 64] &= !(1 << (place % 64));
        }
        if used.iter().zip(&low[class]).all(|(used, low)| used | low == u64::MAX) {
            self.full[class / 64] |= 1 << (class % 64);
        }
        age
    }

    /// Gives a place back, to rest or not.
    pub(super) fn vacate(&mut self, class: usize, place: usize, rests: bool, now: u32) {
        let Class { used, resting } = self.current(class, now);
        used[place / 64] &= !(1 << (place % 64));
        if rests {
            resting[0][place / 64] |= 1 << (place % 64);
        } else {
            self.worn[class / 64] &= !(1 << (class % 64));
        }
        self.full[class / 64] &= !(1 << (class % 64));
    }

    /// Nothing rests any more.
    pub(super) fn wake_all(&mut self) {
        (self.seen, self.worn_at, self.resting) = ([0; BUCKETS], 0, Resting::default());
    }

    /// A class with its resting bits of this generation.
    #[inline(always)]
    fn current(&mut self, class: usize, now: u32) -> &mut Class {
        let (seen, class) = (&mut self.seen[class], &mut self.classes[class]);
        match now.wrapping_sub(*seen) {
            0 => return class,
            1 => class.resting = [[0; WORDS], class.resting[0]],
            _ => class.resting = [[0; WORDS]; 2],
        }
        *seen = now;
        class
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

/// A place that is `free`, by word: the first from word and bit `start` on.
#[inline(always)]
fn place_from(start: usize, free: impl Fn(usize) -> u64) -> Option<usize> {
    (0..WORDS).find_map(|step| {
        let word = (start / 64 + step) % WORDS;
        let (free, bit) = (free(word), start as u32 % 64);
        (free != 0).then(|| word * 64 + ((free.rotate_right(bit).trailing_zeros() + bit) % 64) as usize)
    })
}

fn has(bits: &ClassBits, place: usize) -> bool {
    bits[place / 64] >> (place % 64) & 1 == 1
}

#[inline(always)]
fn joined(halves: [u64; 2]) -> u128 {
    u128::from(halves[0]) | u128::from(halves[1]) << 64
}
