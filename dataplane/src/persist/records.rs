//! Records as an operator sees them: listing, ending, and the sweep that ends what is over.

use std::sync::atomic::Ordering;

use super::bucket::{SLOTS, State, Tag, Value};
use super::{Mark, PersistenceTable, RecordKey};

/// Names one record for as long as it lives: its place, and the turn of the claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(pub u64);

impl RecordId {
    /// Its place in the table, as in [`RecordPage::next`].
    pub fn place(self) -> usize {
        (self.0 >> 16) as usize
    }
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub id: RecordId,
    /// What its connections have in common.
    pub key: RecordKey,
    /// Where they go.
    pub mark: Mark,
    /// Milliseconds since the last new connection.
    pub age_ms: u64,
    /// How long it is remembered after that.
    pub timeout_ms: u64,
}

/// Some records, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordPage {
    /// The records.
    pub records: Vec<Record>,
    /// The place for the next question; `None` at the end.
    pub next: Option<usize>,
}

impl PersistenceTable {
    /// Up to `max` records from place `after` on; 0 to begin. O(places). For the control thread.
    ///
    /// A record that a worker writes at this moment may be missing.
    pub fn page(&self, after: usize, max: usize, now_ms: u64) -> RecordPage {
        let mut records = Vec::new();
        for place in after..self.places() {
            if records.len() >= max {
                return RecordPage { records, next: Some(place) };
            }
            records.extend(self.record(place, now_ms));
        }
        RecordPage { records, next: None }
    }

    /// Ends a record; open connections go on. False when it is not there (any more).
    pub fn remove(&self, id: RecordId) -> bool {
        let place = id.place();
        let (at, slot) = (place / SLOTS, place % SLOTS);
        // A record that moves to another member at this moment is tried again.
        (0..REMOVE_TRIES).any(|_| match self.settled(place) {
            Some((tag, value, _)) if u64::from(tag.turn()) == id.0 & 0xffff => self.end(at, slot, value),
            _ => false,
        })
    }

    /// Ends every record; the number of those that were not over.
    pub fn remove_all(&self, now_ms: u64) -> usize {
        let ended = (0..self.places()).filter(|&place| {
            let (at, slot) = (place / SLOTS, place % SLOTS);
            let is_over = self.buckets[at].note(slot).is_over(now_ms);
            self.settled(place).is_some_and(|(_, value, _)| self.end(at, slot, value)) && !is_over
        });
        ended.count()
    }

    /// Ends what is over in the next few buckets, in turn for all workers. Bounded; one load while there is no record.
    pub fn sweep(&self, now_ms: u64) {
        if self.is_empty() {
            return;
        }
        let first = self.swept.fetch_add(SWEPT_AT_ONCE, Ordering::Relaxed);
        for step in 0..SWEPT_AT_ONCE.min(self.buckets.len()) {
            let at = first.wrapping_add(step) % self.buckets.len();
            for slot in 0..SLOTS {
                let settled = self.settled(at * SLOTS + slot);
                if let Some((_, value, _)) = settled
                    && self.buckets[at].note(slot).is_over(now_ms)
                {
                    self.end(at, slot, value);
                }
            }
        }
    }

    fn places(&self) -> usize {
        self.buckets.len() * SLOTS
    }

    fn settled(&self, place: usize) -> Option<(Tag, Value, Mark)> {
        let bucket = self.buckets.get(place / SLOTS)?;
        let tag = bucket.tag(place % SLOTS);
        match bucket.state(place % SLOTS, tag) {
            State::Settled(value, mark) => Some((tag, value, mark)),
            State::Free | State::Open => None,
        }
    }

    /// The record at `place`, if it is one and its key's words are whole: they must hash to its tag.
    fn record(&self, place: usize, now_ms: u64) -> Option<Record> {
        let (tag, _, mark) = self.settled(place)?;
        let note = self.buckets[place / SLOTS].note(place % SLOTS);
        let key = RecordKey::from_words(&note.key())?;
        let (age_ms, timeout_ms) = (note.age_ms(now_ms), note.timeout_ms());
        let is_whole = self.place_of(&key) == (place / SLOTS, tag.hash());
        let id = RecordId(((place as u64) << 16) | u64::from(tag.turn()));
        (is_whole && age_ms < timeout_ms).then_some(Record { id, key, mark, age_ms, timeout_ms })
    }
}

const REMOVE_TRIES: usize = 8;

/// Buckets a turn of the timers, 640 bytes each: bounds the sweep.
const SWEPT_AT_ONCE: usize = 64;
