//! [`PersistenceTable`]: which member a key's connections go to. One for the process, shared by all workers.
//!
//! Identity is the keyed hash: 48 bits of it and the bucket, under a secret that is random in every process. Two keys
//! share a record by chance once in 10^13 pairs of a bucket, and then only a member.

use std::cmp::Reverse;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use sluice_ffi::memory::{Backing, Slab};

use super::bucket::{Bucket, SLOTS, State, Tag, Value};
use super::{Mark, RecordKey};
use crate::config::ids::MemberId;

/// Persistence records. Twice as many places as records asked for, in buckets of eight: at the limit less than one
/// record in a hundred is replaced before its time.
#[derive(Debug)]
pub struct PersistenceTable {
    pub(super) buckets: Slab<Bucket>,
    records_max: usize,
    hasher: RandomState,
    records: AtomicI64,
    by_member: Slab<AtomicI64>,
    /// The bucket that the next sweep begins at.
    pub(super) swept: AtomicUsize,
}

/// A use of a record: when, and how long it is remembered from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Milliseconds since the clock's start.
    pub now_ms: u64,
    /// Milliseconds.
    pub timeout_ms: u32,
}

/// A record that was found.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    place: (usize, usize),
    value: Value,
    mark: Mark,
}

impl Found {
    /// The member.
    pub fn mark(&self) -> Mark {
        self.mark
    }
}

/// What the workers agree on for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// The member: the proposed one, or the one that another worker recorded first.
    pub mark: Mark,
    /// Records of other keys that had to make room.
    pub evicted: u32,
}

/// What one look at a bucket says of one key.
#[derive(Default)]
struct Claims {
    settled: Option<(usize, Value, Mark)>,
    /// The tags of open claims, by slot; [`Tag::default`] elsewhere.
    open: [Tag; SLOTS],
}

impl Claims {
    fn open(&self) -> impl Iterator<Item = (usize, Tag)> {
        self.open.iter().copied().enumerate().filter(|(_, tag)| *tag != Tag::default())
    }
}

impl PersistenceTable {
    /// Takes the memory for `records_max` records to members with ids below `members_max`: zero pages until used.
    pub fn new(records_max: usize, members_max: usize) -> Self {
        let buckets = records_max.div_ceil(SLOTS / 2).max(1);
        Self {
            buckets: Slab::new(buckets, Backing::Ordinary),
            records_max,
            hasher: RandomState::new(),
            records: AtomicI64::new(0),
            by_member: Slab::new(members_max, Backing::Ordinary),
            swept: AtomicUsize::new(0),
        }
    }

    /// The record of `key`, unless it is over. Three cache lines.
    pub fn find(&self, key: &RecordKey, now_ms: u64) -> Option<Found> {
        let (at, hash) = self.place_of(key);
        let bucket = &self.buckets[at];
        (0..SLOTS).find_map(|slot| {
            let tag = bucket.tag(slot);
            if tag.hash() != hash {
                return None;
            }
            let State::Settled(value, mark) = bucket.state(slot, tag) else { return None };
            (!bucket.note(slot).is_over(now_ms)).then_some(Found { place: (at, slot), value, mark })
        })
    }

    /// Counts the record's time from now on.
    pub fn renew(&self, found: &Found, key: &RecordKey, lease: Lease) {
        let (at, slot) = found.place;
        self.buckets[at].note(slot).write(&key.words(), lease);
    }

    /// Records `mark` for `key`, or says what another worker has recorded since this one looked.
    ///
    /// O(1), lock-free. When all eight places of the bucket are taken, the record that was used longest ago makes room.
    pub fn agree(&self, key: &RecordKey, mark: Mark, lease: Lease) -> Agreed {
        let (at, hash) = self.place_of(key);
        let (mut evicted, mut before) = (0, [Tag::default(); SLOTS]);
        for _ in 0..ROUNDS_MAX {
            let claims = self.look(at, hash, lease.now_ms);
            if let Some((slot, value, mark)) = claims.settled {
                self.give_up_all(at, claims.open());
                self.renew(&Found { place: (at, slot), value, mark }, key, lease);
                return Agreed { mark, evicted };
            }
            if claims.open == before && claims.open().next().is_some() {
                if let Some(mark) = self.settle(at, &claims, key, mark, lease) {
                    return Agreed { mark, evicted };
                }
            } else if claims.open().next().is_none() {
                evicted += self.claim(at, hash, lease.now_ms);
            }
            before = claims.open;
        }
        self.give_up_all(at, self.look(at, hash, lease.now_ms).open());
        Agreed { mark, evicted }
    }

    /// Leads the record `found` to `mark`, unless another worker has led it elsewhere since this one looked.
    pub fn repoint(&self, key: &RecordKey, found: &Found, mark: Mark, lease: Lease) -> Agreed {
        let (at, slot) = found.place;
        if !self.buckets[at].move_to(slot, found.value, mark) {
            return self.agree(key, mark, lease);
        }
        self.count_member(found.mark, -1);
        self.count_member(mark, 1);
        self.renew(found, key, lease);
        Agreed { mark, evicted: 0 }
    }

    /// Records that lead to each member, by its id; below 0 for a moment where threads meet.
    pub fn by_member(&self) -> &[AtomicI64] {
        &self.by_member
    }

    /// Records that lead to `member`; ones that are over count until they are swept.
    pub fn records_of(&self, member: MemberId) -> u64 {
        self.by_member.get(member.index()).map_or(0, |count| count.load(Ordering::Relaxed).max(0) as u64)
    }

    /// Records; ones that are over count until they are swept.
    pub fn len(&self) -> usize {
        self.records.load(Ordering::Relaxed).max(0) as usize
    }

    /// True without a record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many records were asked for.
    pub fn capacity(&self) -> usize {
        self.records_max
    }

    /// Bytes of address space taken; resident only where used.
    pub fn bytes(&self) -> usize {
        self.buckets.bytes() + self.by_member.bytes()
    }

    /// Ends a record. False when it has changed or ended.
    pub(super) fn end(&self, at: usize, slot: usize, value: Value) -> bool {
        let ended = self.buckets[at].end(slot, value);
        if ended {
            self.count(value.mark(), -1);
        }
        ended
    }

    /// The bucket of `key`, and the hash in its tag, which is never 0.
    pub(super) fn place_of(&self, key: &RecordKey) -> (usize, u64) {
        let hash = self.hasher.hash_one(key.words());
        let at = (u128::from(hash) * self.buckets.len() as u128) >> 64;
        (at as usize, (hash & HASH_MASK).max(1))
    }

    /// What the bucket says of `hash`. Ends a record of it that is over.
    fn look(&self, at: usize, hash: u64, now_ms: u64) -> Claims {
        let (bucket, mut claims) = (&self.buckets[at], Claims::default());
        for slot in 0..SLOTS {
            let tag = bucket.tag(slot);
            if tag.hash() != hash {
                continue;
            }
            match bucket.state(slot, tag) {
                State::Free => {}
                State::Open => claims.open[slot] = tag,
                State::Settled(value, _) if bucket.note(slot).is_over(now_ms) => {
                    self.end(at, slot, value);
                }
                State::Settled(value, mark) => claims.settled = Some((slot, value, mark)),
            }
        }
        claims
    }

    /// Settles the first of the open claims on `mark`, after giving up the others. `None` when it is to be tried again.
    fn settle(&self, at: usize, claims: &Claims, key: &RecordKey, mark: Mark, lease: Lease) -> Option<Mark> {
        let mut open = claims.open();
        let (slot, tag) = open.next()?;
        if let Some(settled) = self.give_up_all(at, open) {
            self.give_up_all(at, std::iter::once((slot, tag)));
            return Some(settled);
        }
        self.buckets[at].note(slot).write(&key.words(), lease);
        let (settled, is_ours) = self.buckets[at].settle(slot, tag, mark);
        if is_ours {
            self.count(settled, 1);
        }
        settled
    }

    /// Gives up open claims; the member of one that another worker has settled meanwhile.
    fn give_up_all(&self, at: usize, claims: impl Iterator<Item = (usize, Tag)>) -> Option<Mark> {
        claims.filter_map(|(slot, tag)| self.buckets[at].give_up(slot, tag)).last()
    }

    /// Claims the first free slot for `hash`, or makes one free. The number of records that were not over.
    fn claim(&self, at: usize, hash: u64, now_ms: u64) -> u32 {
        let bucket = &self.buckets[at];
        let mut oldest = None;
        for slot in 0..SLOTS {
            let tag = bucket.tag(slot);
            match bucket.state(slot, tag) {
                State::Free => {
                    bucket.claim(slot, tag, hash);
                    return 0;
                }
                State::Open => {}
                State::Settled(value, _) => {
                    let note = bucket.note(slot);
                    let rank = (note.is_over(now_ms), Reverse(note.used_ms()));
                    oldest = oldest.max(Some((rank, slot, value)));
                }
            }
        }
        let Some(((is_over, _), slot, value)) = oldest else { return 0 };
        u32::from(self.end(at, slot, value) && !is_over)
    }

    fn count(&self, mark: Option<Mark>, change: i64) {
        self.records.fetch_add(change, Ordering::Relaxed);
        if let Some(mark) = mark {
            self.count_member(mark, change);
        }
    }

    fn count_member(&self, mark: Mark, change: i64) {
        if let Some(count) = self.by_member.get(mark.id.index()) {
            count.fetch_add(change, Ordering::Relaxed);
        }
    }
}

pub(super) const HASH_MASK: u64 = (1 << 48) - 1;

/// A claim takes three rounds, four when room has to be made; each further one means that another worker has changed
/// this bucket meanwhile. Past them the connection goes without a record.
const ROUNDS_MAX: usize = 64;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::address::{Address, Prefix};
    use crate::config::ids::{PoolId, VirtualId};
    use crate::config::snapshot::{Member, PersistenceKind};
    use crate::persist::{RecordId, Scope};

    pub(in crate::persist) const TIMEOUT_MS: u32 = 180_000;

    pub(in crate::persist) fn key(client: u32) -> RecordKey {
        RecordKey {
            kind: PersistenceKind::SourceAddress,
            address: Prefix::host(Address::v4(client.to_be_bytes())),
            scope: Scope::Server(VirtualId(0)),
            pool: Some(PoolId(0)),
        }
    }

    pub(in crate::persist) fn mark(member: u32) -> Mark {
        let address = Address::v4([10, 1, 0, member as u8]);
        Mark::of(&Member { id: MemberId(member), address, port: 80, ..Member::default() })
    }

    pub(in crate::persist) fn at(now_ms: u64) -> Lease {
        Lease { now_ms, timeout_ms: TIMEOUT_MS }
    }

    /// A table of one bucket.
    pub(in crate::persist) fn one_bucket() -> PersistenceTable {
        PersistenceTable::new(4, 16)
    }

    fn member(table: &PersistenceTable, client: u32, now_ms: u64) -> Option<u32> {
        table.find(&key(client), now_ms).map(|found| found.mark().id.0)
    }

    fn agree(table: &PersistenceTable, client: u32, member: u32, now_ms: u64) -> (u32, u32) {
        let agreed = table.agree(&key(client), mark(member), at(now_ms));
        (agreed.mark.id.0, agreed.evicted)
    }

    #[test]
    fn the_first_to_record_a_member_is_agreed_with() {
        let table = PersistenceTable::new(1_000, 16);
        assert_eq!(member(&table, 1, 0), None);
        assert_eq!(agree(&table, 1, 3, 0), (3, 0));
        assert_eq!(agree(&table, 1, 4, 0), (3, 0));
        assert_eq!((member(&table, 1, 1), member(&table, 2, 1)), (Some(3), None));
        assert_eq!((table.len(), table.records_of(MemberId(3)), table.records_of(MemberId(4))), (1, 1, 0));
    }

    #[test]
    fn a_record_is_over_when_its_timeout_has_passed_since_the_last_use() {
        let (table, timeout) = (one_bucket(), u64::from(TIMEOUT_MS));
        agree(&table, 1, 3, 1_000);
        assert_eq!(member(&table, 1, 1_000 + timeout - 1), Some(3));
        assert_eq!(member(&table, 1, 1_000 + timeout), None);
        let found = table.find(&key(1), 100_000).unwrap();
        table.renew(&found, &key(1), at(100_000));
        assert_eq!(member(&table, 1, 1_000 + timeout), Some(3));
        assert_eq!(agree(&table, 1, 4, 100_000 + timeout), (4, 0), "what is over is no record to agree with");
        assert_eq!((table.len(), table.records_of(MemberId(3)), table.records_of(MemberId(4))), (1, 0, 1));
    }

    #[test]
    fn a_full_bucket_gives_up_the_record_that_was_used_longest_ago() {
        let table = one_bucket();
        for client in 0..8 {
            assert_eq!(agree(&table, client, 1, 100 + u64::from(client)), (1, 0));
        }
        let found = table.find(&key(0), 200).unwrap();
        table.renew(&found, &key(0), at(200));
        assert_eq!(agree(&table, 8, 2, 300), (2, 1));
        assert_eq!((member(&table, 1, 300), member(&table, 0, 300)), (None, Some(1)));
        assert_eq!((table.len(), table.records_of(MemberId(1)), table.records_of(MemberId(2))), (8, 7, 1));
    }

    #[test]
    fn what_is_over_makes_room_before_what_is_not() {
        let (table, long) = (one_bucket(), 1_000_000);
        for client in 0..8 {
            let lease = Lease { now_ms: 100, timeout_ms: if client == 5 { 10 } else { long } };
            table.agree(&key(client), mark(1), Lease { now_ms: lease.now_ms + u64::from(client), ..lease });
        }
        assert_eq!(agree(&table, 8, 2, 200), (2, 0));
        assert_eq!((member(&table, 0, 200), table.len()), (Some(1), 8));
    }

    #[test]
    fn a_record_moves_to_another_member_once() {
        let table = one_bucket();
        agree(&table, 1, 3, 0);
        let (mine, theirs) = (table.find(&key(1), 0).unwrap(), table.find(&key(1), 0).unwrap());
        assert_eq!(table.repoint(&key(1), &theirs, mark(5), at(1)).mark, mark(5));
        assert_eq!(table.repoint(&key(1), &mine, mark(6), at(1)).mark, mark(5), "the other was first");
        let of = |member| table.records_of(MemberId(member));
        assert_eq!((table.len(), of(3), of(5), of(6)), (1, 0, 1, 0));
    }

    #[test]
    fn records_are_listed_page_by_page_and_removed_by_name() {
        let table = PersistenceTable::new(64, 16);
        for client in 0..40 {
            agree(&table, client, client % 4, 1_000);
        }
        let (mut listed, mut next) = (Vec::new(), Some(0));
        while let Some(after) = next {
            let page = table.page(after, 7, 1_500);
            assert!(page.records.len() <= 7);
            listed.extend(page.records);
            next = page.next;
        }
        assert_eq!(listed.len(), table.len());
        let record = listed.iter().find(|record| record.key == key(5)).unwrap();
        assert_eq!((record.mark, record.age_ms, record.timeout_ms), (mark(1), 500, u64::from(TIMEOUT_MS)));
        assert!(table.remove(record.id));
        assert!(!table.remove(record.id), "it is gone");
        assert!(!table.remove(RecordId(u64::MAX)), "no such place");
        assert_eq!(member(&table, 5, 1_500), None);
        agree(&table, 5, 2, 1_500);
        assert!(!table.remove(record.id), "another record with the same key has another name");
        let left = table.len();
        assert_eq!((table.remove_all(1_500), table.len()), (left, 0));
        assert_eq!(table.page(0, 100, 1_500).records, []);
    }

    #[test]
    fn a_note_of_another_key_is_not_listed_and_the_next_use_writes_it_anew() {
        let table = one_bucket();
        agree(&table, 1, 3, 0);
        let found = table.find(&key(1), 0).unwrap();
        table.renew(&found, &key(2), at(0));
        assert_eq!((table.page(0, 8, 0).records.len(), member(&table, 1, 0)), (0, Some(3)));
        table.renew(&found, &key(1), at(0));
        assert_eq!(table.page(0, 8, 0).records.len(), 1);
    }

    #[test]
    fn the_sweep_ends_what_is_over() {
        let table = PersistenceTable::new(1_000, 16);
        for client in 0..100 {
            agree(&table, client, 1, 0);
        }
        agree(&table, 1_000, 2, 100_000);
        let buckets = table.buckets.len();
        (0..buckets.div_ceil(64)).for_each(|_| table.sweep(u64::from(TIMEOUT_MS)));
        assert_eq!((table.len(), table.records_of(MemberId(1)), table.records_of(MemberId(2))), (1, 0, 1));
    }

    #[test]
    fn at_its_limit_the_table_replaces_less_than_one_record_in_fifty() {
        let table = PersistenceTable::new(8_192, 16);
        let evicted: u32 = (0..8_192).map(|client| agree(&table, client, 1, u64::from(client)).1).sum();
        assert!(evicted < 8_192 / 50, "{evicted}");
        assert_eq!(table.len(), 8_192 - evicted as usize);
    }

    #[test]
    fn a_member_with_anothers_number_has_another_mark() {
        let member = |address, port| {
            Mark::of(&Member { id: MemberId(1), address: Address::v4(address), port, ..Member::default() })
        };
        let base = member([10, 1, 0, 11], 80);
        assert_ne!(base, member([10, 1, 0, 12], 80));
        assert_ne!(base, member([10, 1, 0, 11], 81));
    }
}
