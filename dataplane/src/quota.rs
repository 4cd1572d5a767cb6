//! Connection limits that hold for the process to the unit, however many workers: quota leased to workers.
//!
//! ```text
//!   limit = room + leases of all workers + connections of all workers          (room < 0: over a lowered limit)
//!
//!   open:  my lease ─▶ a batch of the room ─▶ another worker's lease ─▶ refused
//!   close: my lease, back to the room what is more than a batch; to the room while that is negative
//! ```
//!
//! A worker works from its own lease, which lies on its own cache lines; it touches what is shared once a batch, or
//! when the limit is near. Only objects with a limit are counted here; when one gets a limit, each worker brings in
//! the connections it has, and takes them out again when the limit goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use bytemuck::Zeroable;
use sluice_ffi::memory::{Backing, Slab};

use crate::clock::Instant;
use crate::config::ids::{MemberId, NodeId, VirtualId};
use crate::config::snapshot::Snapshot;
use crate::limits::Limits;

/// Something whose connections can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Limited {
    /// A virtual server.
    Virtual(VirtualId),
    /// A pool member.
    Member(MemberId),
    /// A node: all members at one address together.
    Node(NodeId),
}

/// What the workers share.
pub struct Quotas {
    /// By [`Limited::kind`].
    tables: [Table; KINDS],
}

struct Table {
    rooms: Slab<Room>,
    /// By worker, then by id.
    leases: Vec<Slab<Lease>>,
}

#[derive(Debug, Zeroable)]
#[repr(C)]
struct Room {
    /// Units of the connection limit that nobody holds.
    units: AtomicI64,
    /// The limit that the units are of; stays when the limit goes, until the object or another has one again.
    limit: AtomicI64,
    /// When the next connection is due under the rate limit, in nanoseconds (theoretical arrival time of the generic
    /// cell rate algorithm, ITU-T I.371).
    next_ns: AtomicU64,
}

#[derive(Debug, Zeroable)]
#[repr(transparent)]
struct Lease(AtomicU32);

impl Quotas {
    /// For all objects that `limits` allows, and `workers` workers. Zero pages until an object has a limit.
    pub fn new(limits: &Limits, workers: usize) -> Self {
        let table = |count| Table {
            rooms: Slab::new(count, Backing::Ordinary),
            leases: (0..workers).map(|_| Slab::new(count, Backing::Ordinary)).collect(),
        };
        Self { tables: [table(limits.virtual_servers), table(limits.members), table(limits.members)] }
    }

    /// Moves to the connection limits of `after`. Only the control thread calls this, before it publishes `after`.
    ///
    /// Each room changes at once by the difference, and one whose limit goes not at all: workers that still run the
    /// configuration before notice nothing.
    pub fn set_limits(&self, after: &Snapshot) {
        for (what, limit) in after.connection_limits() {
            let limit = i64::from(*limit);
            if let Some(room) = self.room(*what) {
                room.units.fetch_add(limit - room.limit.swap(limit, Ordering::AcqRel), Ordering::AcqRel);
            }
        }
    }

    fn add_room(&self, what: Limited, units: i64) {
        if let Some(room) = self.room(what) {
            room.units.fetch_add(units, Ordering::AcqRel);
        }
    }

    fn room(&self, what: Limited) -> Option<&Room> {
        self.tables[what.kind()].rooms.get(what.index())
    }

    fn lease(&self, worker: usize, what: Limited) -> Option<&AtomicU32> {
        self.tables[what.kind()].leases.get(worker)?.get(what.index()).map(|lease| &lease.0)
    }

    fn workers(&self) -> usize {
        self.tables[0].leases.len()
    }
}

/// One worker's way to the quotas.
pub struct QuotaShare {
    quotas: Arc<Quotas>,
    worker: usize,
    /// By [`Limited::kind`]: one bit for each object that is counted here.
    counted: [Vec<u64>; KINDS],
    /// How many those are. Where there are none, nothing else is looked at.
    counted_len: usize,
}

impl QuotaShare {
    /// `worker`'s share.
    pub fn new(quotas: Arc<Quotas>, worker: usize) -> Self {
        let counted = std::array::from_fn(|kind| vec![0; quotas.tables[kind].rooms.len().div_ceil(64)]);
        Self { quotas, worker, counted, counted_len: 0 }
    }

    /// Brings in the connections of what is limited from now on, and takes out those of what is not any more.
    /// `connections` says how many this worker has.
    pub fn follow(
        &mut self,
        before: Option<&Snapshot>,
        after: &Snapshot,
        connections: impl Fn(Limited) -> u64,
    ) {
        let old = before.map_or(&[][..], Snapshot::connection_limits);
        for (what, before, after) in differences(old, after.connection_limits()) {
            match (before, after) {
                (Some(_), None) => {
                    self.set_counted(what, false);
                    let lease = self.quotas.lease(self.worker, what);
                    let lease = lease.map_or(0, |lease| lease.swap(0, Ordering::AcqRel));
                    self.quotas.add_room(what, i64::from(lease) + connections(what) as i64);
                }
                (None, Some(_)) => {
                    self.set_counted(what, true);
                    self.quotas.add_room(what, -(connections(what) as i64));
                }
                _ => (),
            }
        }
    }

    /// Takes one unit; true as well where there is no limit. A few instructions while this worker has a lease.
    #[inline]
    pub fn take(&self, what: Limited) -> bool {
        !self.is_counted(what) || self.take_counted(what)
    }

    /// Takes one unit whether there is one or not: the limit is exceeded until others have gone.
    pub fn take_anyway(&self, what: Limited) {
        if !self.take(what) {
            self.quotas.add_room(what, -1);
        }
    }

    /// Gives one unit back.
    #[inline]
    pub fn give_back(&self, what: Limited) {
        if self.is_counted(what) {
            self.give_back_counted(what);
        }
    }

    /// True when a unit could be had now. Looks at the leases only when the room is used up.
    pub fn has_room(&self, what: Limited) -> bool {
        if !self.is_counted(what) {
            return true;
        }
        let room = self.quotas.room(what).map_or(0, |room| room.units.load(Ordering::Acquire));
        // A lowered limit makes the room negative until the leases are called in.
        let leases = (0..self.quotas.workers()).map(|worker| i64::from(self.lease_of(worker, what)));
        room > 0 || room + leases.sum::<i64>() > 0
    }

    /// True when one more connection fits under `rate` a second, 0 for no limit; a quiet second allows a burst of as
    /// many. Exact over all workers: one compare-and-swap of what they share, only where a rate limit is set.
    pub fn take_rate(&self, what: Limited, rate: u32, now: Instant) -> bool {
        let (Some(room), true) = (self.quotas.room(what), rate != 0) else { return true };
        let (now, each) = (now.as_ns() + SECOND_NS, SECOND_NS / u64::from(rate).max(1));
        let next = |next: u64| {
            let begin = next.max(now - SECOND_NS);
            (begin + each <= now).then_some(begin + each)
        };
        room.next_ns.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok()
    }

    /// True when [`QuotaShare::take_rate`] would succeed now.
    pub fn has_rate(&self, what: Limited, rate: u32, now: Instant) -> bool {
        let (Some(room), true) = (self.quotas.room(what), rate != 0) else { return true };
        let now = now.as_ns() + SECOND_NS;
        let begin = room.next_ns.load(Ordering::Acquire).max(now - SECOND_NS);
        begin + SECOND_NS / u64::from(rate) <= now
    }

    #[cold]
    fn take_counted(&self, what: Limited) -> bool {
        let (Some(room), Some(lease)) = (self.quotas.room(what), self.quotas.lease(self.worker, what)) else {
            return false;
        };
        if room.units.load(Ordering::Acquire) < 0 {
            self.call_in(what, room);
        } else if take_from(lease, 1) {
            return true;
        }
        self.take_batch(room, lease) || self.take_from_others(what)
    }

    /// A batch of the room, small when there is little left.
    fn take_batch(&self, room: &Room, lease: &AtomicU32) -> bool {
        let workers = self.quotas.workers() as i64;
        let batch = |units: i64| (units / (2 * workers)).clamp(1, BATCH);
        let less = |units: i64| (units > 0).then(|| units - batch(units));
        let taken = room.units.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        taken.map(|units| lease.fetch_add((batch(units) - 1) as u32, Ordering::AcqRel)).is_ok()
    }

    fn take_from_others(&self, what: Limited) -> bool {
        let others = (1..self.quotas.workers()).map(|step| (self.worker + step) % self.quotas.workers());
        others.filter_map(|worker| self.quotas.lease(worker, what)).any(|lease| take_from(lease, 1))
    }

    /// The limit was lowered below what is in use: nobody keeps a lease until that is repaid.
    fn call_in(&self, what: Limited, room: &Room) {
        for worker in 0..self.quotas.workers() {
            let units = self.quotas.lease(worker, what).map_or(0, |lease| lease.swap(0, Ordering::AcqRel));
            room.units.fetch_add(i64::from(units), Ordering::AcqRel);
        }
    }

    #[cold]
    fn give_back_counted(&self, what: Limited) {
        let (Some(room), Some(lease)) = (self.quotas.room(what), self.quotas.lease(self.worker, what)) else {
            return;
        };
        if room.units.load(Ordering::Acquire) < 0 {
            room.units.fetch_add(1, Ordering::AcqRel);
            return;
        }
        let held = lease.fetch_add(1, Ordering::AcqRel) + 1;
        if i64::from(held) > 2 * BATCH && take_from(lease, BATCH as u32) {
            room.units.fetch_add(BATCH, Ordering::AcqRel);
        }
    }

    fn lease_of(&self, worker: usize, what: Limited) -> u32 {
        self.quotas.lease(worker, what).map_or(0, |lease| lease.load(Ordering::Acquire))
    }

    #[inline]
    fn is_counted(&self, what: Limited) -> bool {
        let word = || self.counted[what.kind()].get(what.index() / 64);
        self.counted_len != 0 && word().is_some_and(|word| word >> (what.index() % 64) & 1 == 1)
    }

    fn set_counted(&mut self, what: Limited, counted: bool) {
        if let Some(word) = self.counted[what.kind()].get_mut(what.index() / 64) {
            let bit = 1 << (what.index() % 64);
            self.counted_len -= usize::from(*word & bit != 0);
            self.counted_len += usize::from(counted);
            *word = if counted { *word | bit } else { *word & !bit };
        }
    }
}

impl Limited {
    fn kind(self) -> usize {
        match self {
            Limited::Virtual(_) => 0,
            Limited::Member(_) => 1,
            Limited::Node(_) => 2,
        }
    }

    fn index(self) -> usize {
        match self {
            Limited::Virtual(id) => id.index(),
            Limited::Member(id) => id.index(),
            Limited::Node(id) => id.index(),
        }
    }
}

/// Both lists are sorted.
/// What differs between two sorted lists, in order, with its limit in each. Time in proportion to their length, a
/// nanosecond or two for each limit that is the same.
fn differences<'a>(
    mut old: &'a [(Limited, u32)],
    mut new: &'a [(Limited, u32)],
) -> impl Iterator<Item = (Limited, Option<u32>, Option<u32>)> + 'a {
    std::iter::from_fn(move || {
        while let ([one, old_rest @ ..], [other, new_rest @ ..]) = (old, new)
            && one == other
        {
            (old, new) = (old_rest, new_rest);
        }
        let what = match (old.first(), new.first()) {
            (None, None) => return None,
            (Some(one), None) | (None, Some(one)) => one.0,
            (Some(one), Some(other)) => one.0.min(other.0),
        };
        Some((what, take_limit(&mut old, what), take_limit(&mut new, what)))
    })
}

/// Takes the first of `list` out when it is the limit of `what`.
fn take_limit(list: &mut &[(Limited, u32)], what: Limited) -> Option<u32> {
    let (first, rest) = list.split_first()?;
    (first.0 == what).then(|| {
        *list = rest;
        first.1
    })
}

fn take_from(lease: &AtomicU32, units: u32) -> bool {
    lease.fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| held.checked_sub(units)).is_ok()
}

const KINDS: usize = 3;
/// Units a worker takes at once where there are plenty.
const BATCH: i64 = 64;
const SECOND_NS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::snapshot::{Parts, Virtual};

    const WEB: Limited = Limited::Virtual(VirtualId(3));

    fn limited_to(limit: u32) -> Snapshot {
        let web = Virtual { id: VirtualId(3), connection_limit: limit, ..Virtual::default() };
        Snapshot::build(Parts { virtuals: vec![web], ..Parts::default() })
    }

    /// Workers that run `snapshot`, without a connection.
    fn workers(count: usize, snapshot: &Snapshot) -> (Arc<Quotas>, Vec<QuotaShare>) {
        let limits = Limits { virtual_servers: 8, members: 8, ..Limits::default() };
        let quotas = Arc::new(Quotas::new(&limits, count));
        quotas.set_limits(snapshot);
        let share = |worker| {
            let mut share = QuotaShare::new(Arc::clone(&quotas), worker);
            share.follow(None, snapshot, |_| 0);
            share
        };
        let shares = (0..count).map(share).collect();
        (quotas, shares)
    }

    fn takes(share: &QuotaShare, count: usize) -> usize {
        (0..count).filter(|_| share.take(WEB)).count()
    }

    #[test]
    fn each_difference_of_two_lists_is_found_once() {
        let member = |id| Limited::Member(MemberId(id));
        let old = [(WEB, 5), (member(1), 10), (member(2), 20), (member(3), 30)];
        let new = [(member(0), 1), (member(2), 21), (member(3), 30)];
        let found: Vec<_> = differences(&old, &new).collect();
        let expected = [
            (WEB, Some(5), None),
            (member(0), None, Some(1)),
            (member(1), Some(10), None),
            (member(2), Some(20), Some(21)),
        ];
        assert_eq!(found, expected);
        assert_eq!((differences(&[], &new).count(), differences(&old, &[]).count()), (3, 4));
        assert_eq!(differences(&old, &old).count(), 0);
    }

    #[test]
    fn the_limit_is_exact_whoever_asks() {
        for limit in [1, 2, 7, 64, 1_000, 100_000] {
            let (_, shares) = workers(4, &limited_to(limit));
            let taken: usize = shares.iter().map(|share| takes(share, limit as usize / 2 + 1)).sum();
            assert_eq!(taken, limit as usize, "limit {limit}");
            assert!(shares.iter().all(|share| !share.has_room(WEB) && !share.take(WEB)));
        }
    }

    #[test]
    fn what_one_worker_gives_back_any_other_can_take() {
        let (_, shares) = workers(3, &limited_to(500));
        assert_eq!(takes(&shares[0], 600), 500);
        (0..300).for_each(|_| shares[0].give_back(WEB));
        assert!(shares[1].has_room(WEB));
        assert_eq!(takes(&shares[1], 100) + takes(&shares[2], 400), 300);
    }

    #[test]
    fn a_lowered_limit_takes_nobody_until_enough_have_gone() {
        let (before, after) = (limited_to(100), limited_to(10));
        let (quotas, mut shares) = workers(2, &before);
        assert_eq!(takes(&shares[0], 30) + takes(&shares[1], 30), 60);
        quotas.set_limits(&after);
        shares.iter_mut().for_each(|share| share.follow(Some(&before), &after, |_| 30));
        assert_eq!(takes(&shares[0], 1), 0);
        (0..30).for_each(|_| shares[0].give_back(WEB));
        (0..20).for_each(|_| shares[1].give_back(WEB));
        assert_eq!(takes(&shares[1], 5), 0, "ten are still open");
        (0..3).for_each(|_| shares[1].give_back(WEB));
        assert_eq!(takes(&shares[0], 5), 3);
    }

    #[test]
    fn a_lowered_limit_has_room_again_when_its_connections_are_gone() {
        let (before, after) = (limited_to(100), limited_to(30));
        let (quotas, mut shares) = workers(1, &before);
        assert_eq!(takes(&shares[0], 10), 10);
        quotas.set_limits(&after);
        shares[0].follow(Some(&before), &after, |_| 10);
        assert!(shares[0].has_room(WEB), "ten of thirty are open");
        (0..10).for_each(|_| shares[0].give_back(WEB));
        assert!(shares[0].has_room(WEB), "none is open");
        assert_eq!(takes(&shares[0], 100), 30);
        assert!(!shares[0].has_room(WEB));
    }

    #[test]
    fn workers_that_still_run_the_configuration_before_notice_nothing() {
        let (before, without) = (limited_to(2), limited_to(0));
        let (quotas, mut shares) = workers(2, &before);
        assert!(shares[0].take(WEB));
        quotas.set_limits(&before);
        assert!(shares[0].take(WEB), "the limit has not changed");
        assert!(!shares[1].take(WEB));
        shares[0].give_back(WEB);
        quotas.set_limits(&without);
        assert!(shares[1].take(WEB), "the limit goes, and does not become 0");
        shares.iter_mut().for_each(|share| share.follow(Some(&before), &without, |_| 1));
        // The next object with this id may have a limit of its own.
        quotas.set_limits(&limited_to(7));
        shares.iter_mut().for_each(|share| share.follow(Some(&without), &limited_to(7), |_| 0));
        assert_eq!(takes(&shares[0], 20), 7);
    }

    #[test]
    fn connections_from_before_the_limit_count() {
        let (before, after) = (limited_to(0), limited_to(10));
        let (quotas, mut shares) = workers(2, &before);
        assert_eq!(takes(&shares[0], 1_000), 1_000, "no limit");
        quotas.set_limits(&after);
        shares[0].follow(Some(&before), &after, |_| 4);
        shares[1].follow(Some(&before), &after, |_| 3);
        assert_eq!(takes(&shares[0], 10), 3);
        // And none is left behind when the limit goes and comes again.
        quotas.set_limits(&before);
        shares[0].follow(Some(&after), &before, |_| 7);
        shares[1].follow(Some(&after), &before, |_| 3);
        quotas.set_limits(&after);
        shares.iter_mut().for_each(|share| share.follow(Some(&before), &after, |_| 0));
        assert_eq!(takes(&shares[1], 20), 10);
    }

    #[test]
    fn threads_that_race_never_exceed_the_limit() {
        let (_, shares) = workers(4, &limited_to(50));
        let open = AtomicI64::new(0);
        std::thread::scope(|scope| {
            for share in &shares {
                scope.spawn(|| {
                    for turn in 0..20_000 {
                        if share.take(WEB) {
                            assert!(open.fetch_add(1, Ordering::SeqCst) < 50, "turn {turn}");
                            open.fetch_sub(1, Ordering::SeqCst);
                            share.give_back(WEB);
                        }
                    }
                });
            }
        });
        assert_eq!(takes(&shares[2], 100), 50, "none was lost");
    }

    #[test]
    fn a_rate_holds_over_all_workers() {
        let (_, shares) = workers(2, &limited_to(0));
        let in_a_second = |second: u64| {
            let times = (0..1_000).map(|ms| Instant::from_ms(second * 1_000 + ms));
            times.filter(|now| shares[now.as_ms() as usize % 2].take_rate(WEB, 100, *now)).count()
        };
        let burst = (0..500).filter(|_| shares[0].take_rate(WEB, 100, Instant::from_ms(5_000))).count();
        assert_eq!(burst, 100);
        assert!((99..=100).contains(&in_a_second(5)));
        assert!((99..=101).contains(&in_a_second(6)));
        assert!(shares[0].take_rate(WEB, 0, Instant::ZERO), "no limit");
    }
}
