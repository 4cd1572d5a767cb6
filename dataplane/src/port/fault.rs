//! [`FaultQueue`]: a queue around a queue that loses, doubles, delays and damages frames, for tests and labs.
//!
//! ```text
//!   inner.rx ─▶ lose? ─▶ damage? ─▶ double? ─▶ hold back 1..=4 frames? ─▶ ready ─▶ worker
//!   inner.tx ◀─ ready ◀─ (the same, with its own rates and dice) ◀────────────── worker
//! ```
//!
//! The same seed and the same calls give the same faults. Bounded: at most [`HELD_MAX`] frames a direction are
//! held back, and a held frame leaves at the latest after eight more calls, so an idle wire loses nothing. All
//! rates 0 change nothing.

use std::os::fd::RawFd;

use super::{DriverCounters, PortQueue};
use crate::frame::{BURST_MAX, Checksum, Frame, FramePool};
use crate::packet::checksum;

/// What goes wrong on a port.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct FaultSpec {
    /// Queue `i` throws dice from `seed + i`.
    pub seed: u64,
    /// For frames that we receive.
    pub rx: FaultRates,
    /// For frames that we send.
    pub tx: FaultRates,
    /// The worker panics once the queue has received this many frames.
    pub panic_after: Option<u64>,
}

/// How often what goes wrong: each a probability a frame, 0.0 to 1.0.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct FaultRates {
    /// Lost.
    pub loss: f64,
    /// Comes twice.
    pub duplication: f64,
    /// Comes one to four frames late.
    pub reordering: f64,
    /// One bit behind the Ethernet header is flipped. A super-frame is lost instead: its checksum is not made
    /// yet, so damage to it would be signed as right.
    pub corruption: f64,
}

/// Most frames held back in a direction.
pub const HELD_MAX: usize = 16;

/// A queue whose frames suffer.
pub struct FaultQueue {
    inner: Box<dyn PortQueue>,
    rx: Direction,
    tx: Direction,
    burst: Vec<Frame>,
    /// Frames until the panic that was ordered.
    panic_in: Option<u64>,
}

impl FaultQueue {
    /// Wraps queue number `index` of a port; second copies come from `pool`, and do not come when it is empty.
    pub fn new(inner: Box<dyn PortQueue>, spec: &FaultSpec, index: usize, pool: &FramePool) -> Self {
        let seed = spec.seed.wrapping_add(index as u64);
        Self {
            inner,
            rx: Direction::new(spec.rx, seed, pool),
            tx: Direction::new(spec.tx, !seed, pool),
            burst: Vec::with_capacity(BURST_MAX),
            panic_in: spec.panic_after,
        }
    }

    /// # Panics
    /// When that was ordered and is due.
    fn count_down(&mut self, received: usize) {
        let Some(left) = &mut self.panic_in else { return };
        *left = left.saturating_sub(received as u64);
        assert!(*left > 0, "the fault wrapper was told to panic here");
    }
}

impl PortQueue for FaultQueue {
    fn rx(&mut self, frames: &mut Vec<Frame>) -> usize {
        self.tx.age();
        self.inner.tx(&mut self.tx.ready);
        if self.rx.ready.len() < BURST_MAX {
            self.inner.rx(&mut self.burst);
            self.rx.age();
            self.burst.drain(..).for_each(|frame| self.rx.suffer(frame));
        }
        let count = self.rx.ready.len().min(BURST_MAX);
        frames.extend(self.rx.ready.drain(..count));
        self.count_down(count);
        count
    }

    fn tx(&mut self, frames: &mut Vec<Frame>) -> usize {
        self.inner.tx(&mut self.tx.ready);
        if self.tx.ready.len() >= BURST_MAX {
            return 0;
        }
        self.tx.age();
        let count = frames.len().min(BURST_MAX);
        frames.drain(..count).for_each(|frame| self.tx.suffer(frame));
        self.inner.tx(&mut self.tx.ready);
        count
    }

    fn wait_fd(&self) -> Option<RawFd> {
        self.inner.wait_fd()
    }

    fn counters(&mut self) -> DriverCounters {
        self.inner.counters()
    }

    fn is_link_up(&mut self) -> bool {
        self.inner.is_link_up()
    }

    fn mtu(&mut self) -> Option<u16> {
        self.inner.mtu()
    }
}

/// One way through the wrapper.
struct Direction {
    rates: FaultRates,
    dice: Dice,
    pool: FramePool,
    /// At most [`HELD_MAX`].
    held: Vec<Held>,
    /// What may leave, in order: less than a burst that waited, a burst with its doubles, and all held.
    ready: Vec<Frame>,
}

struct Held {
    frame: Frame,
    /// Frames still to pass it.
    passes: u8,
    /// Calls that it has waited through.
    calls: u8,
}

impl Direction {
    fn new(rates: FaultRates, seed: u64, pool: &FramePool) -> Self {
        let (held, ready) = (Vec::with_capacity(HELD_MAX), Vec::with_capacity(READY_MAX));
        Self { rates, dice: Dice(seed), pool: pool.clone(), held, ready }
    }

    /// One frame through all the faults. One throw of the dice for each, whatever becomes of the others.
    fn suffer(&mut self, mut frame: Frame) {
        let is_lost = self.dice.falls(self.rates.loss);
        let is_damaged = self.dice.falls(self.rates.corruption);
        let is_doubled = self.dice.falls(self.rates.duplication);
        let is_late = self.dice.falls(self.rates.reordering);
        if is_lost || is_damaged && !self.damage(&mut frame) {
            return self.passed();
        }
        let double = if is_doubled { copy(&frame, &self.pool) } else { None };
        if is_late && self.held.len() < HELD_MAX {
            let passes = self.dice.below(LATE_MAX) as u8 + 1;
            self.held.push(Held { frame, passes, calls: 0 });
            self.ready.extend(double);
        } else {
            self.ready.push(frame);
            self.ready.extend(double);
            self.passed();
        }
    }

    /// A frame went by those held back.
    fn passed(&mut self) {
        self.held.iter_mut().for_each(|held| held.passes = held.passes.saturating_sub(1));
        let due = self.held.extract_if(.., |held| held.passes == 0);
        self.ready.extend(due.map(|held| held.frame));
    }

    /// A call went by: releases what has waited through enough of them.
    fn age(&mut self) {
        let due = self.held.extract_if(.., |held| {
            held.calls += 1;
            held.calls > CALLS_MAX
        });
        self.ready.extend(due.map(|held| held.frame));
    }

    /// Flips a bit; false when the frame is to be lost instead.
    fn damage(&mut self, frame: &mut Frame) -> bool {
        if frame.offload.segmentation.is_some() || frame.len() <= ETHERNET_BYTES {
            return false;
        }
        checksum::finish(frame);
        frame.offload.checksum = Checksum::Unchecked;
        let at = ETHERNET_BYTES + self.dice.below((frame.len() - ETHERNET_BYTES) as u64) as usize;
        frame.bytes_mut()[at] ^= 1 << self.dice.below(8);
        true
    }
}

fn copy(frame: &Frame, pool: &FramePool) -> Option<Frame> {
    let mut copy = pool.copy_of(frame.bytes())?;
    copy.offload = frame.offload;
    Some(copy)
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.throw()) * u128::from(end)) >> 64) as u64
    }

    fn falls(&mut self, probability: f64) -> bool {
        let unit = (self.throw() >> 11) as f64 / (1u64 << 53) as f64;
        unit < probability
    }
}

const ETHERNET_BYTES: usize = 14;
const LATE_MAX: u64 = 4;
const CALLS_MAX: u8 = 8;
const READY_MAX: usize = 3 * BURST_MAX + HELD_MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{SegmentKind, Segmentation};
    use crate::port::memory::{MemoryPeer, pair};

    const COUNT: u32 = 4000;

    struct World {
        queue: FaultQueue,
        peer: MemoryPeer,
        pool: FramePool,
    }

    fn world(rx: FaultRates, tx: FaultRates) -> World {
        let (inner, peer) = pair(4 * COUNT as usize);
        let pool = FramePool::new(4 * COUNT as usize);
        let queue =
            FaultQueue::new(Box::new(inner), &FaultSpec { seed: 7, rx, tx, panic_after: None }, 0, &pool);
        World { queue, peer, pool }
    }

    fn numbered(pool: &FramePool, number: u32) -> Frame {
        pool.copy_of(&[&[0; 56][..], &number.to_be_bytes()].concat()).unwrap()
    }

    fn number(frame: &Frame) -> u32 {
        u32::from_be_bytes(frame.bytes()[56..].try_into().unwrap())
    }

    impl World {
        fn through_rx(&mut self) -> Vec<Frame> {
            (0..COUNT).for_each(|n| self.peer.send(numbered(&self.pool, n)).unwrap());
            let mut frames = Vec::new();
            for _ in 0..COUNT {
                assert!(self.queue.rx(&mut frames) <= BURST_MAX);
                assert!(self.queue.rx.held.len() <= HELD_MAX && self.queue.rx.ready.len() <= READY_MAX);
            }
            frames
        }

        fn through_tx(&mut self) -> Vec<Frame> {
            let mut frames = (0..COUNT).map(|n| numbered(&self.pool, n)).collect::<Vec<_>>();
            while self.queue.tx(&mut frames) > 0 {}
            for _ in 0..=CALLS_MAX {
                self.queue.rx(&mut Vec::new());
            }
            std::iter::from_fn(|| self.peer.recv()).collect()
        }

        fn both(&mut self) -> [Vec<u32>; 2] {
            [self.through_rx(), self.through_tx()].map(|frames| frames.iter().map(number).collect())
        }
    }

    fn with(rates: FaultRates) -> [Vec<u32>; 2] {
        world(rates, rates).both()
    }

    #[test]
    fn no_faults_change_nothing() {
        for numbers in with(FaultRates::default()) {
            assert!(numbers.into_iter().eq(0..COUNT));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_faults_and_the_ways_differ() {
        let rates = FaultRates { loss: 0.1, duplication: 0.1, reordering: 0.1, corruption: 0.1 };
        let (first, second) = (with(rates), with(rates));
        assert_eq!(first, second);
        assert_ne!(first[0], first[1]);
    }

    #[test]
    fn loss_is_about_its_rate() {
        for numbers in with(FaultRates { loss: 0.25, ..FaultRates::default() }) {
            assert!((2850..3150).contains(&numbers.len()), "{}", numbers.len());
            assert!(numbers.is_sorted());
        }
        assert_eq!(with(FaultRates { loss: 1.0, ..FaultRates::default() }), [vec![], vec![]]);
    }

    #[test]
    fn doubles_follow_each_other() {
        for mut numbers in with(FaultRates { duplication: 0.25, ..FaultRates::default() }) {
            assert!((4850..5150).contains(&numbers.len()), "{}", numbers.len());
            assert!(numbers.is_sorted());
            numbers.dedup();
            assert!(numbers.into_iter().eq(0..COUNT));
        }
        let all = with(FaultRates { duplication: 1.0, ..FaultRates::default() });
        assert_eq!(all.map(|numbers| numbers.len()), [2 * COUNT as usize; 2]);
    }

    #[test]
    fn late_frames_are_a_few_places_late_and_none_is_lost() {
        for rate in [0.1, 0.9, 1.0] {
            for mut numbers in with(FaultRates { reordering: rate, ..FaultRates::default() }) {
                assert!(rate == 1.0 || !numbers.is_sorted());
                let moved = |(place, number): (usize, &u32)| place.abs_diff(*number as usize) <= 64;
                assert!(numbers.iter().enumerate().all(moved));
                numbers.sort_unstable();
                assert!(numbers.into_iter().eq(0..COUNT));
            }
        }
    }

    #[test]
    fn a_late_frame_on_an_idle_wire_comes_all_the_same() {
        let late = FaultRates { reordering: 1.0, ..FaultRates::default() };
        let mut world = world(late, late);
        world.peer.send(numbered(&world.pool, 1)).unwrap();
        let mut frames = vec![numbered(&world.pool, 2)];
        world.queue.tx(&mut frames);
        assert!(frames.is_empty() && world.peer.recv().is_none());
        for _ in 0..=CALLS_MAX {
            assert_eq!(world.queue.rx(&mut frames), 0);
        }
        assert_eq!(world.queue.rx(&mut frames), 1);
        assert_eq!(world.peer.recv().map(|frame| number(&frame)), Some(2));
    }

    #[test]
    fn damage_flips_one_bit_behind_the_link_header_and_unsettles_the_checksum() {
        let mut world = world(FaultRates { corruption: 1.0, ..FaultRates::default() }, FaultRates::default());
        let mut sent = world.pool.copy_of(&[0; 64]).unwrap();
        sent.offload.checksum = Checksum::Partial { start: 34, offset: 16 };
        let mut finished = world.pool.copy_of(sent.bytes()).unwrap();
        finished.offload = sent.offload;
        checksum::finish(&mut finished);
        world.peer.send(sent).unwrap();
        let mut frames = Vec::new();
        world.queue.rx(&mut frames);
        let pairs = frames[0].bytes().iter().zip(finished.bytes());
        assert_eq!(pairs.clone().map(|(a, b)| (a ^ b).count_ones()).sum::<u32>(), 1);
        assert!(pairs.take(14).all(|(a, b)| a == b));
        assert_eq!(frames[0].offload.checksum, Checksum::Unchecked);
    }

    #[test]
    fn a_damaged_super_frame_is_lost() {
        let mut world = world(FaultRates { corruption: 1.0, ..FaultRates::default() }, FaultRates::default());
        let mut sent = numbered(&world.pool, 1);
        let kind = SegmentKind::Tcp4;
        sent.offload.segmentation = Some(Segmentation { kind, ecn: false, payload_bytes: 1 });
        world.peer.send(sent).unwrap();
        assert_eq!(world.queue.rx(&mut Vec::new()), 0);
        assert_eq!(world.pool.in_use(), 0);
    }

    #[test]
    fn a_full_wire_takes_no_more_than_the_wrapper_may_hold() {
        let (inner, peer) = pair(1);
        let pool = FramePool::new(6 * BURST_MAX);
        let twice = FaultRates { duplication: 1.0, ..FaultRates::default() };
        let spec = FaultSpec { tx: twice, ..FaultSpec::default() };
        let mut queue = FaultQueue::new(Box::new(inner), &spec, 0, &pool);
        let many = 4 * BURST_MAX as u32;
        let mut frames = (0..many).map(|n| numbered(&pool, n)).collect::<Vec<_>>();
        while queue.tx(&mut frames) > 0 {}
        assert!(frames.len() >= 2 * BURST_MAX);
        let mut numbers = Vec::new();
        while let Some(frame) = peer.recv() {
            numbers.push(number(&frame));
            queue.tx(&mut frames);
        }
        assert!(numbers.into_iter().eq((0..many).flat_map(|n| [n, n])));
    }
}
