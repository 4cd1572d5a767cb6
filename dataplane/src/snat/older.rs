//! [`OlderPorts`]: the ports of one worker that belong to other workers by number, for those others to ask after.
//!
//! ```text
//!   key of (SNAT address, member, port) ─▶ 3 of the cells      in use: each of them counts at least one
//!   cell: │ generation in which one was last given back │ how many are in use │      16 bits each
//! ```
//!
//! A counting filter (Fan et al., Summary Cache, 2000): who asks may be told of a port that nobody has, and then does
//! without that port; never the other way round. With as many ports as the worker can have flows that is 3 in 100,
//! with half as many 5 in 1,000. One worker writes, the others read; nothing locks.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytemuck::Zeroable;
use sluice_ffi::memory::{Backing, Slab};

/// What one worker has that is others' by number. No memory is taken before there is something.
pub(super) struct OlderPorts {
    cells: OnceLock<Slab<Cell>>,
    /// A power of two.
    cells_len: usize,
    /// Ports in use.
    held: AtomicU64,
    /// The generation in which one was last given back.
    rested_at: AtomicU32,
}

#[derive(Debug, Zeroable)]
#[repr(transparent)]
struct Cell(AtomicU32);

impl OlderPorts {
    /// For a worker that has `ports_max` ports at most.
    pub(super) fn new(ports_max: usize) -> Self {
        Self {
            cells: OnceLock::new(),
            cells_len: ports_max.saturating_mul(CELLS_PER_PORT).next_power_of_two().clamp(64, CELLS_MAX),
            held: AtomicU64::new(0),
            rested_at: AtomicU32::new(0),
        }
    }

    /// A port is in use from now on.
    pub(super) fn enter(&self, key: u64) {
        for cell in self.cells_of(key) {
            let word = cell.0.load(Ordering::Relaxed);
            if word & COUNT < COUNT {
                cell.0.store(word + 1, Ordering::Release);
            }
        }
        self.held.store(self.held() + 1, Ordering::Release);
    }

    /// It is given back, to rest from generation `now` on. A cell that has counted too far counts no more.
    pub(super) fn leave(&self, key: u64, now: u32) {
        self.rest(key, now);
        for cell in self.cells_of(key) {
            let word = cell.0.load(Ordering::Relaxed);
            if !matches!(word & COUNT, 0 | COUNT) {
                cell.0.store(word - 1, Ordering::Release);
            }
        }
        self.held.store(self.held().saturating_sub(1), Ordering::Release);
    }

    /// A port rests since generation `now`.
    pub(super) fn rest(&self, key: u64, now: u32) {
        for cell in self.cells_of(key) {
            let word = cell.0.load(Ordering::Relaxed);
            // The generation before never takes the place of the one that is.
            if age(word, now) != u16::MAX {
                cell.0.store(word & COUNT | now << 16, Ordering::Release);
            }
        }
        self.rested_at.fetch_max(now, Ordering::Release);
    }

    /// Ports in use.
    #[inline]
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    /// True when nothing is in use, and nothing rests in generation `now`.
    #[inline]
    pub(super) fn is_empty(&self, now: u32) -> bool {
        self.held() == 0 && now.saturating_sub(self.rested_at.load(Ordering::Acquire)) > 1
    }

    /// True when the port is in use, or may be.
    pub(super) fn has(&self, key: u64) -> bool {
        self.held() > 0 && self.all(key, |word| word & COUNT > 0)
    }

    /// True when it rests in generation `now`, or may.
    pub(super) fn rests(&self, key: u64, now: u32) -> bool {
        let is_over = now.saturating_sub(self.rested_at.load(Ordering::Acquire)) > 1;
        // Who asks may be a generation behind.
        !is_over && self.all(key, |word| age(word, now).wrapping_add(1) <= 2)
    }

    /// Bytes taken.
    pub(super) fn bytes(&self) -> usize {
        self.cells.get().map_or(0, Slab::bytes)
    }

    fn all(&self, key: u64, is: impl Fn(u32) -> bool) -> bool {
        let Some(cells) = self.cells.get() else { return false };
        places(key, self.cells_len).all(|place| is(cells[place].0.load(Ordering::Acquire)))
    }

    fn cells_of(&self, key: u64) -> impl Iterator<Item = &Cell> {
        let cells = self.cells.get_or_init(|| Slab::new(self.cells_len, Backing::Ordinary));
        places(key, self.cells_len).map(|place| &cells[place])
    }
}

/// Three different places (Kirsch and Mitzenmacher, Less Hashing, 2006).
#[inline]
fn places(key: u64, cells_len: usize) -> impl Iterator<Item = usize> {
    let (first, step) = (key as usize & 0xffff_ffff, (key >> 32) as usize | 1);
    (0..PLACES).map(move |turn| first.wrapping_add(turn.wrapping_mul(step)) & (cells_len - 1))
}

/// Generations since the cell's, around the end of what it can say.
#[inline]
fn age(word: u32, now: u32) -> u16 {
    (now as u16).wrapping_sub((word >> 16) as u16)
}

/// A hash of `port` behind what stands for its pair.
#[inline]
pub(super) fn key_of(mark: u64, port: u32) -> u64 {
    let mixed =
        (mark ^ u64::from(port).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ (mixed >> 32)
}

const PLACES: usize = 3;
const CELLS_PER_PORT: usize = 8;
const CELLS_MAX: usize = 1 << 28;
/// The part of a cell that counts.
const COUNT: u32 = 0xffff;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snat::random::Random;
    use std::collections::HashMap;

    #[test]
    fn what_is_in_use_is_always_told_whatever_comes_and_goes() {
        let seed = 0x01de;
        println!("seed {seed:#x}");
        let (mut random, older) = (Random::new(seed), OlderPorts::new(64));
        let mut model: HashMap<u64, u32> = HashMap::new();
        for _ in 0..20_000 {
            let key = key_of(random.next() >> 61, random.next() as u32 % 64);
            let count = model.entry(key).or_default();
            if random.next() >> 63 == 0 {
                older.enter(key);
                *count += 1;
            } else if *count > 0 {
                older.leave(key, 2);
                *count -= 1;
            }
            assert_eq!(older.held(), model.values().map(|&count| u64::from(count)).sum::<u64>());
            assert!(model.iter().all(|(&key, &count)| count == 0 || older.has(key)));
        }
        for (key, count) in model {
            (0..count).for_each(|_| older.leave(key, 2));
        }
        assert!((0..1_000).all(|port| !older.has(key_of(9, port))) && older.held() == 0);
    }

    #[test]
    fn a_port_that_nobody_has_is_told_of_as_rarely_as_it_says() {
        for (held, most) in [(512u32, 5), (1_024, 35)] {
            let older = OlderPorts::new(1_024);
            (0..held).for_each(|port| older.enter(key_of(1, port)));
            let wrong = (0..10_000).filter(|&port| older.has(key_of(2, port))).count();
            assert!(wrong < most * 10 * 3 / 2, "{wrong} of 10,000 with {held}");
        }
    }

    #[test]
    fn a_port_rests_in_its_generation_and_the_next() {
        let (older, key) = (OlderPorts::new(64), key_of(3, 40_000));
        older.enter(key);
        assert!(older.has(key) && !older.rests(key, 5) && !older.is_empty(5));
        older.leave(key, 5);
        older.rest(key, 4);
        assert_eq!([5, 6, 7].map(|now| older.rests(key, now)), [true, true, false]);
        assert_eq!([5, 6, 7].map(|now| older.is_empty(now)), [false, false, true]);
        assert!(!older.has(key) && !older.rests(key_of(3, 40_001), 5));
    }

    #[test]
    fn a_cell_that_has_counted_too_far_stays() {
        let (older, key) = (OlderPorts::new(8), key_of(3, 7));
        (0..70_000).for_each(|_| older.enter(key));
        (0..69_999).for_each(|_| older.leave(key, 2));
        assert!(older.has(key));
        older.leave(key, 2);
        assert!(!older.has(key), "nothing is in use at all");
        older.enter(key_of(3, 8));
        assert!(older.has(key), "and now it may be");
    }

    #[test]
    fn without_older_ports_no_memory_is_taken() {
        let older = OlderPorts::new(1 << 20);
        assert!(!older.has(1) && !older.rests(1, 2) && older.is_empty(2) && older.bytes() == 0);
        older.enter(1);
        assert_eq!(older.bytes(), (8 << 20) * 4);
    }
}
