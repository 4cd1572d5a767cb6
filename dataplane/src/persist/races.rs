//! Threads that want one key at the same moment. Each test prints its seed when it fails.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use super::bucket::{SLOTS, State};
use super::table::tests::{TIMEOUT_MS, at, key, mark, one_bucket};
use super::{Lease, PersistenceTable};
use crate::config::ids::MemberId;

const ROUNDS: u32 = 4_000;
const THREADS: u32 = 3;

/// Xorshift (Marsaglia, 2003).
struct Random(u64);

impl Random {
    fn new(seed: u64, thread: u32) -> Self {
        Self((seed ^ (u64::from(thread) << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) % u64::from(bound)) as u32
    }
}

fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    std::env::var("SLUICE_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| RandomState::new().hash_one(1))
}

/// Lets every thread do round `n` at about the same moment, a few instructions apart.
struct Start(AtomicUsize);

impl Start {
    fn line_up(&self, round: u32, random: &mut Random) {
        self.0.fetch_add(1, Ordering::SeqCst);
        while self.0.load(Ordering::SeqCst) < (round as usize + 1) * THREADS as usize {
            std::thread::yield_now();
        }
        (0..random.below(16)).for_each(|_| std::hint::spin_loop());
    }
}

/// What `step` gives each of several threads in each of many rounds, each thread with a member of its own.
fn race(seed: u64, step: impl Fn(u32, u32) -> MemberId + Sync) -> Vec<Vec<MemberId>> {
    let start = Start(AtomicUsize::new(0));
    let run = |thread: u32| {
        let mut random = Random::new(seed, thread);
        let round = |round| {
            start.line_up(round, &mut random);
            step(round, thread)
        };
        (0..ROUNDS).map(round).collect()
    };
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || run(thread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

fn assert_one_member_each(results: &[Vec<MemberId>], seed: u64) {
    for round in 0..ROUNDS as usize {
        let members: Vec<_> = results.iter().map(|members| members[round]).collect();
        assert!(
            members.iter().all(|member| *member == members[0]),
            "round {round}: {members:?}; seed {seed}"
        );
    }
}

/// No claim is left open, no key has two records, and the counts are what is there.
fn assert_sound(table: &PersistenceTable, seed: u64) {
    let (mut settled, mut by_member) = (0, [0_u64; 16]);
    for (at, bucket) in table.buckets.iter().enumerate() {
        let mut hashes = Vec::new();
        for slot in 0..SLOTS {
            match bucket.state(slot, bucket.tag(slot)) {
                State::Free => {}
                State::Open => panic!("bucket {at} slot {slot} is claimed for nobody; seed {seed}"),
                State::Settled(_, mark) => {
                    hashes.push(bucket.tag(slot).hash());
                    by_member[mark.id.index()] += 1;
                    settled += 1;
                }
            }
        }
        let count = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), count, "two records of one key; seed {seed}");
    }
    assert_eq!(table.len(), settled, "seed {seed}");
    for (member, count) in by_member.iter().enumerate() {
        assert_eq!(table.records_of(MemberId(member as u32)), *count, "member {member}; seed {seed}");
    }
}

#[test]
fn new_clients_get_one_member_whichever_worker_sees_them() {
    let (table, seed) = (PersistenceTable::new(ROUNDS as usize * 2, 16), seed());
    let results =
        race(seed, |round, thread| table.agree(&key(round), mark(thread), at(u64::from(round))).mark.id);
    assert_one_member_each(&results, seed);
    assert_sound(&table, seed);
}

#[test]
fn new_clients_get_one_member_in_a_bucket_that_is_full() {
    let (table, seed) = (one_bucket(), seed());
    let results =
        race(seed, |round, thread| table.agree(&key(round), mark(thread), at(u64::from(round))).mark.id);
    assert_one_member_each(&results, seed);
    assert_sound(&table, seed);
}

#[test]
fn a_client_whose_record_is_over_gets_one_new_member() {
    let (table, seed) = (one_bucket(), seed());
    let results = race(seed, |round, thread| {
        let now_ms = u64::from(round) * u64::from(TIMEOUT_MS);
        table.agree(&key(1), mark(thread), at(now_ms)).mark.id
    });
    assert_one_member_each(&results, seed);
    assert_sound(&table, seed);
}

#[test]
fn a_record_that_several_workers_repoint_leads_to_one_member() {
    let (table, seed) = (one_bucket(), seed());
    // A round finds the member of the last one in the low half of ids, and moves to the high half; then back.
    let results = race(seed, |round, thread| {
        let now = at(u64::from(round));
        let half = |id: MemberId| id.0 / 8;
        let wanted = round % 2;
        let mine = mark(wanted * 8 + thread);
        match table.find(&key(1), now.now_ms) {
            Some(found) if half(found.mark().id) == wanted => found.mark().id,
            Some(found) => table.repoint(&key(1), &found, mine, now).mark.id,
            None => table.agree(&key(1), mine, now).mark.id,
        }
    });
    assert_one_member_each(&results, seed);
    assert_sound(&table, seed);
}

#[test]
fn places_that_become_free_meanwhile_make_no_second_record() {
    let (table, seed) = (one_bucket(), seed());
    let (now, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let results = std::thread::scope(|scope| {
        // Records of four other clients, a little older than those of the race, come and go in every place.
        scope.spawn(|| {
            let mut random = Random::new(seed, THREADS);
            while !done.load(Ordering::Relaxed) {
                let lease = at(now.load(Ordering::Relaxed));
                table.agree(&key(1 << 31 | random.below(4)), mark(9), lease);
                let page = table.page(random.below(8) as usize, 2, lease.now_ms);
                page.records.iter().filter(|record| record.mark == mark(9)).for_each(|record| {
                    table.remove(record.id);
                });
            }
        });
        let results = race(seed, |round, thread| {
            now.store(u64::from(round) * 10 + 5, Ordering::Relaxed);
            table.agree(&key(round), mark(thread), at(u64::from(round) * 10 + 10)).mark.id
        });
        done.store(true, Ordering::Relaxed);
        results
    });
    assert_one_member_each(&results, seed);
    assert_sound(&table, seed);
}

#[test]
fn any_mixture_of_uses_loses_no_place() {
    let (table, seed) = (PersistenceTable::new(16, 16), seed());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let table = &table;
            scope.spawn(move || mixture(table, &mut Random::new(seed, thread)));
        }
    });
    assert_sound(&table, seed);
    table.remove_all(0);
    assert_eq!(table.len(), 0, "seed {seed}");
    let evicted: u32 = (0..8).map(|client| table.agree(&key(client), mark(1), at(0)).evicted).sum();
    assert!(table.len() + evicted as usize == 8, "seed {seed}");
}

fn mixture(table: &PersistenceTable, random: &mut Random) {
    for round in 0..ROUNDS {
        let (client, member) = (key(random.below(40)), mark(random.below(16)));
        let lease = Lease { now_ms: u64::from(round), timeout_ms: 1 + random.below(100) };
        match random.below(8) {
            0 => table.sweep(lease.now_ms),
            1 => {
                for record in table.page(random.below(32) as usize, 1, lease.now_ms).records {
                    table.remove(record.id);
                }
            }
            2 | 3 => {
                let found = table.find(&client, lease.now_ms);
                let _ = found.map(|found| table.repoint(&client, &found, member, lease));
            }
            4 if round % 1_000 == 0 => {
                table.remove_all(lease.now_ms);
            }
            _ => {
                table.agree(&client, member, lease);
            }
        }
    }
}

/// Runs threads one at a time and hands over at random between any two of their loads and swaps, so that a seed
/// always gives the same interleaving.
struct Schedule {
    state: Mutex<(Random, Vec<usize>)>,
    changed: Condvar,
}

thread_local! {
    static SCHEDULED: RefCell<Option<(Arc<Schedule>, usize)>> = const { RefCell::new(None) };
}

/// Between two steps of a scheduled thread; nothing on others.
pub(super) fn step() {
    SCHEDULED.with_borrow(|scheduled| {
        if let Some((schedule, thread)) = scheduled {
            schedule.hand_over(*thread, false);
        }
    });
}

impl Schedule {
    /// Runs every one of `tasks`; the first that is listed as running is the one whose turn it is.
    fn run(seed: u64, tasks: Vec<Box<dyn FnOnce() + Send + '_>>) {
        let running = (0..tasks.len()).collect();
        let state = Mutex::new((Random::new(seed, 0), running));
        let schedule = Arc::new(Schedule { state, changed: Condvar::new() });
        std::thread::scope(|scope| {
            for (thread, task) in tasks.into_iter().enumerate() {
                let schedule = Arc::clone(&schedule);
                scope.spawn(move || {
                    schedule.wait_for(thread);
                    SCHEDULED.set(Some((Arc::clone(&schedule), thread)));
                    task();
                    SCHEDULED.set(None);
                    schedule.hand_over(thread, true);
                });
            }
        });
    }

    fn hand_over(&self, thread: usize, is_over: bool) {
        let mut state = self.state.lock().expect("no panic");
        let (random, running) = &mut *state;
        if is_over {
            running.retain(|other| *other != thread);
        }
        if let Some(last) = running.len().checked_sub(1) {
            running.swap(0, random.below(last as u32 + 1) as usize);
        }
        self.changed.notify_all();
        drop(state);
        if !is_over {
            self.wait_for(thread);
        }
    }

    fn wait_for(&self, thread: usize) {
        let state = self.state.lock().expect("no panic");
        drop(self.changed.wait_while(state, |(_, running)| running[0] != thread).expect("no panic"));
    }
}

/// Five workers want a member for one key, while other records end and are made in the same bucket.
fn contend(seed: u64) {
    let (table, random) = (one_bucket(), &mut Random::new(seed, 1));
    let others = random.below(9);
    for client in 0..others {
        table.agree(&key(100 + client), mark(9), at(1 + u64::from(client)));
    }
    let members = Mutex::new(Vec::new());
    let mut tasks: Vec<Box<dyn FnOnce() + Send + '_>> = Vec::new();
    for thread in 0..CONTENDERS {
        let (table, members) = (&table, &members);
        tasks.push(Box::new(move || {
            let agreed = table.agree(&key(1), mark(thread), at(100 + u64::from(thread)));
            members.lock().expect("no panic").push(agreed.mark.id);
        }));
    }
    for _ in 0..2 {
        let (table, ended, made) = (&table, key(100 + random.below(8)), key(200 + random.below(2)));
        tasks.push(Box::new(move || {
            let page = table.page(0, SLOTS, 50);
            page.records.iter().filter(|record| record.key == ended).for_each(|record| {
                table.remove(record.id);
            });
            table.agree(&made, mark(8), at(50));
        }));
    }
    Schedule::run(seed, tasks);
    let members = members.into_inner().expect("no panic");
    assert!(members.iter().all(|member| *member == members[0]), "{members:?}; seed {seed}");
    assert_sound(&table, seed);
}

#[test]
fn no_interleaving_gives_a_key_two_members() {
    let first = seed() >> 16;
    (first..first + SCHEDULES).for_each(contend);
}

/// With fewer than five, no schedule of ten thousand told a look too few.
const CONTENDERS: u32 = 5;
const SCHEDULES: u64 = 300;
