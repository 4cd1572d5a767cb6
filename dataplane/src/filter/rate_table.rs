//! [`RateTable`]: who has asked how often. One for the process, shared by all workers; never waits, never allocates.
//!
//! ```text
//!   bucket   tag  tag  tag  …  8        hash of the key, 64 bits; 0: free, and so are all after it; all ones: given up
//!            time time time …  8        when the key's last request would be due if it kept its pace
//! ```
//!
//! The generic cell rate algorithm (ITU-T I.371, annex A): a request is let through when the time is no further ahead
//! than the burst allows, and moves it on by one interval. The time is one word, moved by compare-and-swap, so
//! workers together let through exactly as many as one would. A time that has passed says nothing: its place may be
//! taken.
//!
//! When a bucket is full, the key whose time is furthest in the past makes room, so a new key is never refused for
//! want of a place. Where that time was still to come, its key begins anew, which [`RateTable::forgotten`] counts. Two
//! workers that choose two places for one new key at the same moment: each looks at all tags after its claim, so the
//! later one sees both, and gives its own up; the few requests that were counted there meanwhile are the key's gain.
//! A key whose place is counted on for its former key just then waits as long as its own burst takes, and no longer.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use bytemuck::Zeroable;
use sluice_ffi::memory::{Backing, Slab};

use crate::clock::Instant;

/// Who has asked how often, for all workers together; fixed capacity.
#[derive(Debug)]
pub struct RateTable {
    buckets: Slab<Bucket>,
    hasher: RandomState,
    forgotten: AtomicU64,
}

/// Eight places: a cache line of tags and one of times.
#[derive(Debug, Zeroable)]
#[repr(C, align(64))]
struct Bucket {
    tags: [AtomicU64; WAYS],
    times: [AtomicU64; WAYS],
}

/// How fast a key may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// From one request to the next, nanoseconds, at least 1.
    pub(super) interval_ns: u64,
    /// How far a key may be ahead of its pace, nanoseconds: intervals of all requests of a burst but one.
    pub(super) slack_ns: u64,
}

/// Not now, but after so many nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooSoon(pub(super) u64);

/// Where a key is, or may go.
enum Place {
    Own(usize),
    Free(usize),
    /// Way, tag and time of the one whose time is furthest in the past.
    Oldest(usize, u64, u64),
}

impl RateTable {
    /// Takes memory for about `capacity` keys: twice as many places, 16 bytes each, zero pages until used.
    pub fn new(capacity: usize) -> Self {
        let buckets = capacity.div_ceil(WAYS / 2).max(1).next_power_of_two();
        let (buckets, forgotten) = (Slab::new(buckets, Backing::Ordinary), AtomicU64::new(0));
        Self { buckets, hasher: RandomState::new(), forgotten }
    }

    /// Keys that had to make room before their time had passed, so that they began anew. Grows when the table is too
    /// small for those who ask.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Relaxed)
    }

    /// Bytes that the table takes.
    pub fn bytes(&self) -> usize {
        self.buckets.bytes()
    }

    /// Counts a request of `key`. O(1), two cache lines.
    ///
    /// # Errors
    /// [`TooSoon`] when the request must not go on; nothing is counted then.
    pub(super) fn take(&self, key: impl Hash, pace: Pace, now: Instant) -> Result<(), TooSoon> {
        let tag = self.hasher.hash_one(key).clamp(1, GIVEN_UP - 1);
        let bucket = &self.buckets[tag as usize & (self.buckets.len() - 1)];
        for _ in 0..TRIES_MAX {
            match bucket.place(tag) {
                Place::Own(way) => {
                    if bucket.advance(way, tag, pace, now.as_ns())? {
                        return Ok(());
                    }
                }
                Place::Free(way) => bucket.claim(way, 0, tag, 0),
                Place::Oldest(way, other, time) => {
                    self.forgotten.fetch_add(u64::from(time > now.as_ns()), Relaxed);
                    bucket.claim(way, other, tag, time);
                }
            }
        }
        // So many workers were faster that the key comes too often by any measure.
        Err(TooSoon(pace.interval_ns))
    }
}

impl Default for RateTable {
    /// For 65 536 keys.
    fn default() -> Self {
        Self::new(1 << 16)
    }
}

impl Bucket {
    fn place(&self, tag: u64) -> Place {
        let mut oldest = (0, 0, u64::MAX);
        for way in 0..WAYS {
            let (found, time) = (self.tags[way].load(SeqCst), self.times[way].load(SeqCst));
            match found {
                0 => return Place::Free(way),
                found if found == tag => return Place::Own(way),
                _ if time < oldest.2 => oldest = (way, found, time),
                _ => {}
            }
        }
        Place::Oldest(oldest.0, oldest.1, oldest.2)
    }

    /// Takes a place, unless somebody else was faster, and gives it up again when the key has another one. A time that
    /// was counted on meanwhile is left.
    fn claim(&self, way: usize, other: u64, tag: u64, time: u64) {
        if !swap(&self.tags[way], other, tag) {
            return;
        }
        swap(&self.times[way], time, 0);
        if (0..WAYS).any(|another| another != way && self.tags[another].load(SeqCst) == tag) {
            swap(&self.tags[way], tag, GIVEN_UP);
        }
    }

    /// Moves the time on by one interval; false when it has changed meanwhile, or the place has.
    fn advance(&self, way: usize, tag: u64, pace: Pace, now_ns: u64) -> Result<bool, TooSoon> {
        let time = self.times[way].load(SeqCst);
        let base = pace.base(time, now_ns);
        if base - now_ns > pace.slack_ns {
            return Err(TooSoon(base - now_ns - pace.slack_ns));
        }
        let next = base.saturating_add(pace.interval_ns);
        Ok(swap(&self.times[way], time, next) && self.tags[way].load(SeqCst) == tag)
    }
}

impl Pace {
    /// When a request of now is due. A time that no request of this pace can have led to is another key's, or of
    /// other settings, and says nothing; workers read their clocks a little apart. Never before now.
    fn base(self, time: u64, now_ns: u64) -> u64 {
        let furthest = now_ns.saturating_add(self.slack_ns).saturating_add(self.interval_ns);
        if time > furthest.saturating_add(APART_NS) { now_ns } else { time.max(now_ns) }
    }
}

/// True when the word was `old`, and is `new` now.
fn swap(word: &AtomicU64, old: u64, new: u64) -> bool {
    word.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
}

/// The tag of a place that was taken for a key that has another one.
const GIVEN_UP: u64 = u64::MAX;
/// Keys in a bucket.
const WAYS: usize = 8;
/// Each try that fails has let another worker through.
const TRIES_MAX: usize = 64;
/// How far the clocks of two workers, read once a burst, may be apart.
const APART_NS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::sync::atomic::AtomicUsize;

    fn pace(interval_ms: u64, burst: u64) -> Pace {
        let interval_ns = interval_ms * 1_000_000;
        Pace { interval_ns, slack_ns: (burst - 1) * interval_ns }
    }

    fn let_through(table: &RateTable, key: u32, pace: Pace, now_ms: u64, asked: usize) -> usize {
        (0..asked).filter(|_| table.take(key, pace, Instant::from_ms(now_ms)).is_ok()).count()
    }

    #[test]
    fn a_burst_at_once_then_one_an_interval() {
        let (table, pace) = (RateTable::new(8), pace(10, 5));
        assert_eq!(let_through(&table, 1, pace, 1_000, 20), 5);
        assert_eq!(table.take(1, pace, Instant::from_ms(1_003)), Err(TooSoon(7_000_000)));
        assert_eq!(let_through(&table, 1, pace, 1_009, 20), 0);
        assert_eq!(let_through(&table, 1, pace, 1_010, 20), 1);
        assert_eq!(let_through(&table, 1, pace, 1_035, 20), 2);
        assert_eq!(let_through(&table, 1, pace, 9_000, 20), 5, "no more than a burst is saved up");
        assert_eq!(let_through(&table, 2, pace, 9_000, 20), 5, "another key");
    }

    #[test]
    fn threads_together_get_exactly_what_one_would() {
        const KEYS: u32 = 3;
        let (table, pace) = (RateTable::new(64), pace(1, 700));
        let let_through: Vec<_> = (0..KEYS).map(|_| AtomicUsize::new(0)).collect();
        let rush = |now_ms: u64| {
            let ask = || {
                for turn in 0..1_000 * KEYS {
                    let ok = table.take(turn % KEYS, pace, Instant::from_ms(now_ms)).is_ok();
                    let_through[(turn % KEYS) as usize].fetch_add(usize::from(ok), Relaxed);
                }
            };
            std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(ask))));
            let_through.iter().map(|count| count.swap(0, Relaxed)).collect::<Vec<_>>()
        };
        assert_eq!(rush(5_000), [700; 3]);
        assert_eq!(rush(5_000), [0; 3]);
        assert_eq!(rush(5_123), [123; 3]);
        assert_eq!(rush(60_000), [700; 3]);
    }

    #[test]
    fn a_full_bucket_lets_the_one_go_whose_time_is_furthest_in_the_past() {
        let (table, pace) = (RateTable::new(1), pace(1_000, 1));
        for key in 0..8 {
            assert_eq!(let_through(&table, key, pace, 10 + u64::from(key), 1), 1);
        }
        assert_eq!((let_through(&table, 3, pace, 20, 9), table.forgotten()), (0, 0));
        assert_eq!(let_through(&table, 8, pace, 20, 9), 1, "a new key has a place at once");
        assert_eq!(table.forgotten(), 1);
        assert_eq!((1..9).map(|key| let_through(&table, key, pace, 20, 1)).sum::<usize>(), 0);
        assert_eq!(let_through(&table, 0, pace, 20, 1), 1, "the oldest began anew");
    }

    #[test]
    fn a_time_that_has_passed_is_no_loss() {
        let (table, pace) = (RateTable::new(1), pace(10, 1));
        for key in 0..100 {
            assert_eq!(let_through(&table, key, pace, u64::from(key) * 10, 2), 1);
        }
        assert_eq!(table.forgotten(), 0);
    }

    #[test]
    fn a_debt_of_another_pace_does_not_block() {
        let (table, slow, fast) = (RateTable::new(8), pace(3_600_000, 1), pace(10, 1));
        assert_eq!(let_through(&table, 1, slow, 1_000, 2), 1);
        assert_eq!(let_through(&table, 1, fast, 1_000, 2), 1);
    }

    #[test]
    fn no_settings_overflow() {
        let (table, now) = (RateTable::new(8), Instant::from_ns(u64::MAX - 5));
        let most = Pace { interval_ns: u64::MAX, slack_ns: u64::MAX };
        assert!((0..100).all(|_| table.take(1, most, now).is_ok()));
        assert_eq!(table.take(2, Pace { interval_ns: u64::MAX, slack_ns: 0 }, now), Ok(()));
        assert_eq!(RateTable::new(0).buckets.len(), 1);
        assert_eq!(RateTable::new(1_000).bytes(), 256 * 128);
    }

    #[test]
    fn a_place_that_a_slow_worker_takes_for_a_key_that_has_one_is_given_up() {
        let (table, tag) = (RateTable::new(1), 77);
        let bucket = &table.buckets[0];
        (0..8).for_each(|way| bucket.claim(way, 0, 10 + way as u64, 0));
        bucket.claim(5, 15, tag, 0);
        bucket.claim(3, 13, tag, 0);
        assert!(matches!(bucket.place(tag), Place::Own(5)));
        assert_eq!(bucket.tags[3].load(SeqCst), GIVEN_UP);
        bucket.claim(3, GIVEN_UP, 99, 0);
        assert!(matches!(bucket.place(99), Place::Own(3)));
    }

    #[test]
    fn threads_that_crowd_a_bucket_leave_no_key_two_places() {
        let (table, pace, seed) = (RateTable::new(1), pace(1, 2), seed());
        for round in 0..200 {
            let ask = |thread: u64| {
                let mut below = random(seed ^ round << 8 ^ thread);
                for turn in 0..100 {
                    let key = below(12) as u32;
                    let _ = table.take(key, pace, Instant::from_ms(round + turn / 10));
                }
            };
            std::thread::scope(|scope| (0..3).for_each(|thread| drop(scope.spawn(move || ask(thread)))));
            let mut tags: Vec<_> = table.buckets[0].tags.iter().map(|tag| tag.load(SeqCst)).collect();
            tags.retain(|tag| *tag != GIVEN_UP && *tag != 0);
            let count = tags.len();
            tags.sort_unstable();
            tags.dedup();
            assert_eq!(tags.len(), count, "round {round}; seed {seed}");
        }
    }

    fn seed() -> u64 {
        let seed = std::env::var("SLUICE_SEED").ok().and_then(|text| text.parse().ok());
        seed.unwrap_or_else(|| RandomState::new().hash_one(1))
    }

    /// Xorshift (Marsaglia, 2003).
    fn random(seed: u64) -> impl FnMut(u64) -> u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        move |bound| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) % bound
        }
    }

    /// Against one that has a place for every key and counts in tenths of requests.
    #[test]
    fn any_sequence_is_as_a_plain_bucket_of_requests_has_it() {
        let (table, pace, seed) = (RateTable::new(10_000), pace(10, 4), seed());
        let (mut below, mut plain, mut now_ms) = (random(seed), HashMap::new(), 1_000);
        for turn in 0..20_000 {
            now_ms += below(4);
            let key = below(5) as u32;
            let (tenths, last_ms) = plain.entry(key).or_insert((40, now_ms));
            *tenths = (*tenths + now_ms - *last_ms).min(40);
            *last_ms = now_ms;
            let expected = *tenths >= 10;
            *tenths -= if expected { 10 } else { 0 };
            let found = let_through(&table, key, pace, now_ms, 1) == 1;
            assert_eq!(found, expected, "turn {turn}, key {key}; seed {seed}");
        }
    }
}
