//! The flow table of one worker: fixed capacity, both directions of a flow in one index.
//!
//! ```text
//!   hash ─▶ bucket (one cache line)                      flow record (two lines, flow/mod.rs)
//!           ┌────────────┬───────────────┬──────────┐
//!           │ 8 tags u16 │ 8 entries u32 │ overflow │    entry = flow id × 2 + direction
//!           └────────────┴───────────────┴──────────┘
//! ```
//!
//! A full bucket spills into the next; `overflow` counts the entries that passed over a bucket, so a look-up that
//! misses stops at the first bucket nobody passed over, and removing leaves no tombstones.

use bytemuck::Zeroable;
use sluice_ffi::hint;
use sluice_ffi::memory::{Backing, Pages, Slab};

use super::key::{FlowKey, HashSeed};
use super::{Direction, Flow};
use crate::address::Address;

/// A flow's place in its worker's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub u32);

impl FlowId {
    /// As an index.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Whose flow a packet may be, by the tag of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate(u32);

impl Candidate {
    /// Nobody's.
    pub const NONE: Candidate = Candidate(u32::MAX);
}

/// Why a flow was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertError {
    /// As many flows as the table holds.
    Full,
    /// One of the flow's two keys belongs to another flow.
    Duplicate,
}

/// The table.
pub struct FlowTable {
    buckets: Slab<Bucket>,
    flows: Slab<Flow>,
    used: Slab<u8>,
    free: Slab<u32>,
    free_len: usize,
    /// Flows from here on have never been used.
    fresh: usize,
    len: usize,
    mask: usize,
    seed: HashSeed,
}

#[derive(Debug, Clone, Copy, Zeroable)]
#[repr(C, align(64))]
struct Bucket {
    /// 0 is an empty place.
    tags: [u16; WAYS],
    entries: [u32; WAYS],
    overflow: u32,
    unused: [u32; 3],
}

const _: () = assert!(size_of::<Bucket>() == 64);
const WAYS: usize = 8;

impl FlowTable {
    /// Takes memory for `capacity` flows. Buckets are at most 62 % full.
    pub fn new(capacity: usize, seed: HashSeed, backing: Backing) -> Self {
        let capacity = capacity.clamp(1, (u32::MAX / 2) as usize);
        let buckets = (capacity * 2 * 8 / 5).div_ceil(WAYS).next_power_of_two();
        Self {
            buckets: Slab::new(buckets, backing),
            flows: Slab::new(capacity, backing),
            used: Slab::new(capacity, backing),
            free: Slab::new(capacity, backing),
            free_len: 0,
            fresh: 0,
            len: 0,
            mask: buckets - 1,
            seed,
        }
    }

    /// Flows in the table.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is no flow.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Flows it can hold.
    pub fn capacity(&self) -> usize {
        self.flows.len()
    }

    /// Bytes taken, and what kind of pages hold the records.
    pub fn memory(&self) -> (usize, Pages) {
        let bytes = self.buckets.bytes() + self.flows.bytes() + self.used.bytes() + self.free.bytes();
        (bytes, self.flows.pages())
    }

    /// The hash of a key, to be passed to the functions below.
    #[inline(always)]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        self.seed.hash(key)
    }

    /// First stage of a burst look-up: asks for the bucket's line.
    #[inline(always)]
    pub fn prefetch_bucket(&self, hash: u64) {
        hint::prefetch(&self.buckets[self.home(hash)]);
    }

    /// Second stage: asks for both lines of the record that the bucket's tags point to, if any, and says which it is.
    #[inline(always)]
    pub fn prefetch_flow(&self, hash: u64) -> Candidate {
        let bucket = &self.buckets[self.home(hash)];
        let hits = bucket.matching(tag_of(hash));
        if hits == 0 {
            return Candidate::NONE;
        }
        let entry = bucket.entries[first(hits)];
        if let Some(flow) = self.flows.get((entry >> 1) as usize) {
            hint::prefetch(&flow.client);
            hint::prefetch(&flow.member);
        }
        Candidate(entry)
    }

    /// Last stage: the flow that `key` belongs to, and which of its directions `key` is. One comparison when it is the
    /// candidate, whatever has happened to that since: a record that is free has nobody's addresses.
    #[inline(always)]
    pub fn find_near(&self, key: &FlowKey, hash: u64, near: Candidate) -> Option<(FlowId, Direction)> {
        let Candidate(entry) = near;
        if ((entry >> 1) as usize) < self.flows.len() && self.matches(entry, key) {
            return Some((FlowId(entry >> 1), direction_of(entry)));
        }
        self.find(key, hash)
    }

    /// As [`FlowTable::find_near`], of one packet by itself. O(1) expected.
    #[inline(never)]
    pub fn find(&self, key: &FlowKey, hash: u64) -> Option<(FlowId, Direction)> {
        let tag = tag_of(hash);
        let mut at = self.home(hash);
        for _ in 0..=self.mask {
            let bucket = &self.buckets[at];
            let mut hits = bucket.matching(tag);
            while hits != 0 {
                let entry = bucket.entries[first(hits)];
                if self.matches(entry, key) {
                    return Some((FlowId(entry >> 1), direction_of(entry)));
                }
                hits &= hits - 1;
            }
            if bucket.overflow == 0 {
                return None;
            }
            at = (at + 1) & self.mask;
        }
        None
    }

    /// Asks for the record of a flow that is about to end: both lines, and whether there is one.
    #[inline(always)]
    pub fn prefetch_record(&self, id: FlowId) {
        if let (Some(flow), Some(used)) = (self.flows.get(id.index()), self.used.get(id.index())) {
            hint::prefetch(&flow.client);
            hint::prefetch(&flow.member);
            hint::prefetch(used);
        }
    }

    /// The hashes of a flow's client's key and its member's key.
    #[inline(always)]
    pub fn hashes(&self, flow: &Flow) -> [u64; 2] {
        [self.hash(&flow.client_key()), self.hash(&flow.member_key())]
    }

    /// Takes a flow in, reachable by its client's key and its member's key.
    ///
    /// # Errors
    /// [`InsertError`]; the table is as it was.
    pub fn insert(&mut self, flow: &Flow) -> Result<FlowId, InsertError> {
        let (keys, hashes) = ([flow.client_key(), flow.member_key()], self.hashes(flow));
        let is_one = hashes[0] == hashes[1] && keys[0] == keys[1];
        if is_one || (0..2).any(|side| self.has(&keys[side], hashes[side])) {
            return Err(InsertError::Duplicate);
        }
        let id = self.allocate().ok_or(InsertError::Full)?;
        self.flows[id.index()] = *flow;
        self.used[id.index()] = 1;
        self.link(hashes[0], id.0 << 1);
        self.link(hashes[1], (id.0 << 1) | 1);
        self.len += 1;
        Ok(id)
    }

    /// Takes a flow out; `None` when there is none by this id.
    pub fn remove(&mut self, id: FlowId) -> Option<Flow> {
        let hashes = self.hashes(self.get(id)?);
        self.remove_hashed(id, hashes)
    }

    /// As [`FlowTable::remove`], of a flow with these [`FlowTable::hashes`].
    #[inline]
    pub fn remove_hashed(&mut self, id: FlowId, hashes: [u64; 2]) -> Option<Flow> {
        let flow = *self.get(id)?;
        self.unlink(hashes[0], id.0 << 1);
        self.unlink(hashes[1], (id.0 << 1) | 1);
        self.used[id.index()] = 0;
        let record = &mut self.flows[id.index()];
        (record.client, record.member) = (Address::UNSPECIFIED, Address::UNSPECIFIED);
        self.free[self.free_len] = id.0;
        self.free_len += 1;
        self.len -= 1;
        Some(flow)
    }

    /// The flow by this id.
    #[inline(always)]
    pub fn get(&self, id: FlowId) -> Option<&Flow> {
        if *self.used.get(id.index())? == 0 { None } else { self.flows.get(id.index()) }
    }

    /// A flow found by [`FlowTable::find`], to be changed. Its keys must stay as they are.
    ///
    /// # Panics
    /// When `id` is outside the table; an id from `find` never is.
    #[inline(always)]
    pub fn at_mut(&mut self, id: FlowId) -> &mut Flow {
        &mut self.flows[id.index()]
    }

    /// Up to `max` flows from place `after` on, and the place to go on from; `None` at the end. Looks at no more
    /// than 16 places for each flow asked for.
    pub fn page(&self, after: usize, max: usize) -> (Vec<FlowId>, Option<usize>) {
        let mut ids = Vec::with_capacity(max);
        let mut place = after;
        let last = after.saturating_add(max.saturating_mul(16)).min(self.fresh);
        while place < last && ids.len() < max {
            if self.used[place] != 0 {
                ids.push(FlowId(place as u32));
            }
            place += 1;
        }
        (ids, (place < self.fresh).then_some(place))
    }

    /// True when a flow has `key`. Most buckets tell by their tags alone.
    #[inline(always)]
    fn has(&self, key: &FlowKey, hash: u64) -> bool {
        let bucket = &self.buckets[self.home(hash)];
        let is_alone = bucket.matching(tag_of(hash)) == 0 && bucket.overflow == 0;
        !is_alone && self.find(key, hash).is_some()
    }

    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        (hash >> 16) as usize & self.mask
    }

    #[inline(always)]
    fn matches(&self, entry: u32, key: &FlowKey) -> bool {
        let flow = &self.flows[(entry >> 1) as usize];
        match direction_of(entry) {
            Direction::FromClient => flow.client_key() == *key,
            Direction::FromMember => flow.member_key() == *key,
        }
    }

    fn allocate(&mut self) -> Option<FlowId> {
        if self.free_len > 0 {
            self.free_len -= 1;
            return Some(FlowId(self.free[self.free_len]));
        }
        if self.fresh == self.flows.len() {
            return None;
        }
        self.fresh += 1;
        Some(FlowId(self.fresh as u32 - 1))
    }

    /// There is always room: the index holds at least 1.6 times as many entries as flows make.
    fn link(&mut self, hash: u64, entry: u32) {
        let mut at = self.home(hash);
        loop {
            let bucket = &mut self.buckets[at];
            let empty = bucket.matching(0);
            if empty != 0 {
                bucket.tags[first(empty)] = tag_of(hash);
                bucket.entries[first(empty)] = entry;
                return;
            }
            bucket.overflow += 1;
            at = (at + 1) & self.mask;
        }
    }

    fn unlink(&mut self, hash: u64, entry: u32) {
        let mut at = self.home(hash);
        for _ in 0..=self.mask {
            let bucket = &mut self.buckets[at];
            let mut hits = bucket.matching(tag_of(hash));
            while hits != 0 {
                if bucket.entries[first(hits)] == entry {
                    bucket.tags[first(hits)] = 0;
                    return;
                }
                hits &= hits - 1;
            }
            bucket.overflow = bucket.overflow.saturating_sub(1);
            at = (at + 1) & self.mask;
        }
        debug_assert!(false, "a flow in the table is linked in the index");
    }
}

impl Bucket {
    /// One bit for each place whose tag is `tag`: one comparison of all eight.
    #[inline(always)]
    fn matching(&self, tag: u16) -> u32 {
        hint::lanes_equal(&self.tags, tag)
    }
}

#[inline(always)]
fn tag_of(hash: u64) -> u16 {
    (hash as u16).max(1)
}

#[inline(always)]
fn first(hits: u32) -> usize {
    (hits.trailing_zeros() as usize) & (WAYS - 1)
}

#[inline(always)]
fn direction_of(entry: u32) -> Direction {
    if entry & 1 == 0 { Direction::FromClient } else { Direction::FromMember }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(capacity: usize) -> FlowTable {
        FlowTable::new(capacity, HashSeed::fixed(7), Backing::Ordinary)
    }

    fn flow(number: u32) -> Flow {
        Flow {
            client: Address::v4(number.to_be_bytes()),
            destination: Address::v4([192, 0, 2, 100]),
            client_port: 40_000,
            destination_port: 80,
            protocol: 6,
            member: Address::v4([10, 1, 0, 11]),
            source: Address::v4([10, 1, (number >> 16) as u8, 10]),
            member_port: 8080,
            source_port: number as u16,
            ..Flow::zeroed()
        }
    }

    fn find(table: &FlowTable, key: &FlowKey) -> Option<(FlowId, Direction)> {
        table.find(key, table.hash(key))
    }

    #[test]
    fn a_flow_is_found_from_both_sides() {
        let mut table = table(16);
        let id = table.insert(&flow(1)).unwrap();
        assert_eq!(find(&table, &flow(1).client_key()), Some((id, Direction::FromClient)));
        assert_eq!(find(&table, &flow(1).member_key()), Some((id, Direction::FromMember)));
        assert_eq!(find(&table, &flow(2).client_key()), None);
    }

    #[test]
    fn a_candidate_is_right_whatever_happens_before_it_is_asked() {
        let mut table = table(16);
        let near = |table: &FlowTable, number, candidate| {
            let key = flow(number).client_key();
            table.find_near(&key, table.hash(&key), candidate)
        };
        let id = table.insert(&flow(1)).unwrap();
        let candidate = table.prefetch_flow(table.hash(&flow(1).client_key()));
        assert_ne!(candidate, Candidate::NONE);
        assert_eq!(near(&table, 1, candidate), Some((id, Direction::FromClient)));
        assert_eq!(near(&table, 1, Candidate::NONE), Some((id, Direction::FromClient)));
        assert_eq!(near(&table, 2, candidate), None, "another's");
        table.remove(id);
        assert_eq!(near(&table, 1, candidate), None, "it is gone");
        assert_eq!(table.insert(&flow(2)), Ok(id), "in the same place");
        assert_eq!((near(&table, 1, candidate), near(&table, 2, candidate).is_some()), (None, true));
    }

    #[test]
    fn full_table_refuses_and_removal_makes_room() {
        let mut table = table(100);
        let ids: Vec<_> = (0..100).map(|n| table.insert(&flow(n)).unwrap()).collect();
        assert_eq!(table.insert(&flow(100)), Err(InsertError::Full));
        assert!(table.remove(ids[50]).is_some());
        assert!(table.remove(ids[50]).is_none());
        assert!(table.insert(&flow(100)).is_ok());
        assert_eq!(table.len(), 100);
    }

    #[test]
    fn a_second_flow_with_either_key_is_refused() {
        let mut table = table(16);
        table.insert(&flow(1)).unwrap();
        let same_member_side = Flow { client_port: 1, ..flow(1) };
        assert_eq!(table.insert(&flow(1)), Err(InsertError::Duplicate));
        assert_eq!(table.insert(&same_member_side), Err(InsertError::Duplicate));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn churn_at_full_capacity_loses_nothing_and_leaves_no_trace() {
        const CAPACITY: u32 = 3_000;
        let mut table = table(CAPACITY as usize);
        let mut ids: Vec<_> = (0..CAPACITY).map(|n| (n, table.insert(&flow(n)).unwrap())).collect();
        for round in 0..20_000u32 {
            let victim = (round.wrapping_mul(2_654_435_761) >> 8) as usize % ids.len();
            table.remove(ids[victim].1).unwrap();
            let number = CAPACITY + round;
            ids[victim] = (number, table.insert(&flow(number)).unwrap());
        }
        for (number, id) in &ids {
            assert_eq!(find(&table, &flow(*number).client_key()), Some((*id, Direction::FromClient)));
            assert_eq!(find(&table, &flow(*number).member_key()), Some((*id, Direction::FromMember)));
        }
        for (_, id) in ids {
            table.remove(id).unwrap();
        }
        assert!(table.buckets.iter().all(|bucket| bucket.overflow == 0 && bucket.tags == [0; WAYS]));
    }

    #[test]
    fn pages_give_every_flow_once() {
        let mut table = table(1_000);
        let ids: Vec<_> = (0..1_000).map(|n| table.insert(&flow(n)).unwrap()).collect();
        for id in ids.iter().step_by(3) {
            table.remove(*id);
        }
        let (mut seen, mut after) = (Vec::new(), Some(0));
        while let Some(place) = after {
            let (page, next) = table.page(place, 64);
            seen.extend(page);
            after = next;
        }
        assert_eq!(seen.len(), table.len());
        assert!(seen.iter().all(|id| table.get(*id).is_some()));
    }
}
