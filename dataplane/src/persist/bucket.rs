//! Eight records, and how workers agree about them without waiting.
//!
//! ```text
//!   tag    │ hash of the key, 48 bits │ turn, 16 bits │   hash 0: free
//!   value  │ member, 32 bits │ turn, 16 │ check, 16    │   member NONE: given up
//!   note   the key in words, last use, timeout           for listing, and for who is oldest
//! ```
//!
//! A slot's tag is claimed by compare-and-swap, with the next turn. The value belongs to the claim only when it says
//! the same turn; while it says the turn before, the claim is *open*, and whoever comes with the same key may settle
//! it, once: on a member, or as "given up", after which the slot is free for any key. A claim goes one way only:
//!
//! ```text
//!   free ─▶ open ─▶ settled on a member (─▶ on another member)* ─▶ given up = free
//!               └──────────────────────────────────────────────────▶
//! ```
//!
//! Two workers that claim two slots for one key at the same moment: each looks at all tags after its claim, so the
//! later one sees both. Whoever sees several open claims gives up all but the first before it settles that; what was
//! settled meanwhile is found then, and taken. No two claims of one key are ever settled on a member at once.

use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::Zeroable;

use super::key::WORDS;
#[cfg(test)]
use super::races::step;
use super::{Lease, Mark};
use crate::config::ids::MemberId;

/// Records in a bucket.
pub(super) const SLOTS: usize = 8;

/// Eight slots: one cache line of tags, one of values, one for each note.
#[derive(Debug, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    tags: [AtomicU64; SLOTS],
    values: [AtomicU64; SLOTS],
    notes: [Note; SLOTS],
}

/// For listing, and for when a record is over. A worker that was slow may have written another key's words or timeout
/// here, until the record's next use writes its own: never decides which member a key has.
#[derive(Debug, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Note {
    key: [AtomicU64; WORDS],
    used_ms: AtomicU64,
    timeout_ms: AtomicU64,
}

/// A tag as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tag(u64);

impl Tag {
    pub(super) fn hash(self) -> u64 {
        self.0 >> 16
    }

    pub(super) fn turn(self) -> u16 {
        self.0 as u16
    }

    /// True while `value` is what the claim before this one left.
    fn is_open(self, value: Value) -> bool {
        value.turn().wrapping_add(1) == self.turn()
    }

    fn claimed_for(self, hash: u64) -> Tag {
        Tag((hash << 16) | u64::from(self.turn().wrapping_add(1)))
    }
}

/// A value as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Value(u64);

impl Value {
    fn new(mark: Mark, turn: u16) -> Self {
        Value((u64::from(mark.id.0) << 32) | (u64::from(turn) << 16) | u64::from(mark.check))
    }

    fn given_up(turn: u16) -> Self {
        Self::new(Mark { id: MemberId::NONE, check: 0 }, turn)
    }

    fn turn(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The member; `None` once given up.
    pub(super) fn mark(self) -> Option<Mark> {
        let mark = Mark { id: MemberId((self.0 >> 32) as u32), check: self.0 as u16 };
        (mark.id != MemberId::NONE).then_some(mark)
    }
}

/// What a slot is to the claim that its tag states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody's, or no longer what was read.
    Free,
    /// Claimed, and without a member yet.
    Open,
    /// A record.
    Settled(Value, Mark),
}

impl Bucket {
    pub(super) fn tag(&self, slot: usize) -> Tag {
        step();
        Tag(self.tags[slot].load(Ordering::SeqCst))
    }

    /// The state of the claim `tag`.
    pub(super) fn state(&self, slot: usize, tag: Tag) -> State {
        step();
        let value = Value(self.values[slot].load(Ordering::SeqCst));
        if tag.hash() != 0 && tag.is_open(value) {
            return State::Open;
        }
        self.settled_on(tag, value).map_or(State::Free, |mark| State::Settled(value, mark))
    }

    /// Makes `slot`, free as of `tag`, an open claim for `hash`. False when another worker was quicker.
    pub(super) fn claim(&self, slot: usize, tag: Tag, hash: u64) -> bool {
        self.swap(&self.tags[slot], tag.0, tag.claimed_for(hash).0).is_ok()
    }

    /// Settles the open claim `tag` on `mark`. What it is settled on now, and whether that was this call's doing.
    pub(super) fn settle(&self, slot: usize, tag: Tag, mark: Mark) -> (Option<Mark>, bool) {
        self.settle_to(slot, tag, Value::new(mark, tag.turn()))
    }

    /// Gives up the open claim `tag`; the member when it is settled on one already.
    pub(super) fn give_up(&self, slot: usize, tag: Tag) -> Option<Mark> {
        self.settle_to(slot, tag, Value::given_up(tag.turn())).0
    }

    /// A failed swap means that another worker has settled it.
    fn settle_to(&self, slot: usize, tag: Tag, to: Value) -> (Option<Mark>, bool) {
        let mut now = Value(self.values[slot].load(Ordering::SeqCst));
        while tag.is_open(now) {
            match self.swap(&self.values[slot], now.0, to.0) {
                Ok(()) => return (to.mark(), true),
                Err(other) => now = Value(other),
            }
        }
        (self.settled_on(tag, now), false)
    }

    fn settled_on(&self, tag: Tag, value: Value) -> Option<Mark> {
        if tag.hash() != 0 && value.turn() == tag.turn() { value.mark() } else { None }
    }

    /// Moves a record from `value` to another member. False when it has changed or ended.
    pub(super) fn move_to(&self, slot: usize, value: Value, mark: Mark) -> bool {
        self.swap(&self.values[slot], value.0, Value::new(mark, value.turn()).0).is_ok()
    }

    /// Ends a record. False when it has changed or ended.
    pub(super) fn end(&self, slot: usize, value: Value) -> bool {
        self.swap(&self.values[slot], value.0, Value::given_up(value.turn()).0).is_ok()
    }

    fn swap(&self, word: &AtomicU64, from: u64, to: u64) -> Result<(), u64> {
        step();
        word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).map(drop)
    }

    pub(super) fn note(&self, slot: usize) -> &Note {
        &self.notes[slot]
    }
}

/// Where a test may let another thread go first.
#[cfg(not(test))]
#[inline(always)]
fn step() {}

impl Note {
    /// Writes what is not there yet.
    pub(super) fn write(&self, key: &[u64; WORDS], lease: Lease) {
        step();
        for (place, word) in self.key.iter().zip(key) {
            if place.load(Ordering::Relaxed) != *word {
                place.store(*word, Ordering::Relaxed);
            }
        }
        self.timeout_ms.store(u64::from(lease.timeout_ms), Ordering::Relaxed);
        // Never backwards: a worker that was slow must not make another's new record look old.
        self.used_ms.fetch_max(lease.now_ms, Ordering::Relaxed);
    }

    pub(super) fn key(&self) -> [u64; WORDS] {
        std::array::from_fn(|place| self.key[place].load(Ordering::Relaxed))
    }

    /// When it was last used.
    pub(super) fn used_ms(&self) -> u64 {
        self.used_ms.load(Ordering::Relaxed)
    }

    /// Milliseconds since the last use; workers' clocks may differ by a turn.
    pub(super) fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.used_ms())
    }

    pub(super) fn timeout_ms(&self) -> u64 {
        self.timeout_ms.load(Ordering::Relaxed)
    }

    pub(super) fn is_over(&self, now_ms: u64) -> bool {
        self.age_ms(now_ms) >= self.timeout_ms()
    }
}
