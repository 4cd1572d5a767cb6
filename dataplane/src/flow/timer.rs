//! The timers of one worker's flows: a wheel of coarse slots.
//!
//! ```text
//!   wheel   slot 0 ── slot 1 ── … ── slot 8191      64 ms each: nothing within 524 s cascades
//!             │         └ flow ⇄ flow
//!             └ flow
//! ```
//!
//! A packet never moves a timer: it stores `last_seen`, and a timer that fires is armed again for what is left.
//! Lists are threaded through two arrays that only a state change touches. O(1) each.

use sluice_ffi::memory::{Backing, Slab};

use super::table::FlowId;

/// Timers for the flows of one table.
pub struct Timers {
    /// By slot: the first flow in it, as id + 1; 0 is none.
    heads: Box<[u32; SLOTS]>,
    /// A slot is this power of two of milliseconds long.
    slot_bits: u32,
    links: Slab<Link>,
    /// The next slot to fire, counted since the start.
    tick: u64,
}

#[derive(Debug, Clone, Copy, bytemuck::Zeroable)]
#[repr(C)]
struct Link {
    /// Ids + 1; 0 is none.
    previous: u32,
    next: u32,
    /// Which slot it is in, + 1; 0 is none.
    slot: u32,
}

impl Timers {
    /// For flow ids below `capacity`.
    pub fn new(capacity: usize, backing: Backing) -> Self {
        Self::with_slot_ms(capacity, SLOT_MS, backing)
    }

    /// With slots of another length, in milliseconds: the next power of two.
    pub fn with_slot_ms(capacity: usize, slot_ms: u64, backing: Backing) -> Self {
        let slot_bits = slot_ms.next_power_of_two().trailing_zeros();
        Self { slot_bits, heads: Box::new([0; SLOTS]), links: Slab::new(capacity, backing), tick: 0 }
    }

    /// Bytes taken.
    pub fn bytes(&self) -> usize {
        self.links.bytes() + self.heads.len() * size_of::<u32>()
    }

    /// Fires `id` not before `due_ms`; moves it when it is armed already. Beyond the wheel's span it
    /// fires early, to be armed again. A time that has passed fires on the next [`Timers::poll_due`].
    #[inline]
    pub fn arm(&mut self, id: FlowId, due_ms: u64) {
        self.disarm(id);
        let tick = ((due_ms >> self.slot_bits) + 1).clamp(self.tick, self.tick + SLOTS as u64 - 1);
        self.push_front(id, tick as usize % SLOTS);
    }

    /// Takes `id` out of its slot, if it is in one.
    #[inline]
    pub fn disarm(&mut self, id: FlowId) {
        let link = self.links[id.index()];
        if let Some(slot) = (link.slot as usize).checked_sub(1) {
            self.unlink(id, link, slot);
        }
    }

    fn unlink(&mut self, id: FlowId, link: Link, slot: usize) {
        match link.previous {
            0 => self.heads[slot % SLOTS] = link.next,
            previous => self.links[previous as usize - 1].next = link.next,
        }
        if link.next != 0 {
            self.links[link.next as usize - 1].previous = link.previous;
        }
        self.links[id.index()] = Link::NONE;
    }

    /// When the first slot with a flow in it has passed, in milliseconds; `None` when there is none. Looks at every
    /// slot up to that: for a worker that is about to sleep.
    pub fn next_due_ms(&self) -> Option<u64> {
        let ticks = self.tick..self.tick + SLOTS as u64;
        let mut used = ticks.filter(|tick| self.heads[*tick as usize % SLOTS] != 0);
        used.next().map(|tick| tick << self.slot_bits)
    }

    /// Takes out and returns one flow whose slot has passed at `now_ms`; `None` when there is no more. The caller
    /// decides whether the flow is really due, and bounds how many it takes a turn.
    #[inline]
    pub fn poll_due(&mut self, now_ms: u64) -> Option<FlowId> {
        let now_tick = now_ms >> self.slot_bits;
        if now_tick > self.tick + SLOTS as u64 {
            // Asleep for longer than the wheel's span: one full turn visits every slot.
            self.tick = now_tick - SLOTS as u64;
        }
        while self.tick <= now_tick {
            if let Some(first) = self.heads[self.tick as usize % SLOTS].checked_sub(1) {
                self.pop_front(FlowId(first), self.tick as usize % SLOTS);
                return Some(FlowId(first));
            }
            self.tick += 1;
        }
        None
    }

    #[inline]
    fn pop_front(&mut self, id: FlowId, slot: usize) {
        let next = std::mem::replace(&mut self.links[id.index()], Link::NONE).next;
        if next != 0 {
            self.links[next as usize - 1].previous = 0;
        }
        self.heads[slot] = next;
    }

    #[inline]
    fn push_front(&mut self, id: FlowId, slot: usize) {
        let next = self.heads[slot];
        self.links[id.index()] = Link { previous: 0, next, slot: slot as u32 + 1 };
        if next != 0 {
            self.links[next as usize - 1].previous = id.0 + 1;
        }
        self.heads[slot] = id.0 + 1;
    }
}

impl Link {
    /// In no slot.
    const NONE: Self = Self { previous: 0, next: 0, slot: 0 };
}

const SLOT_MS: u64 = 64;
const SLOTS: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    fn timers() -> Timers {
        Timers::new(100, Backing::Ordinary)
    }

    fn due(timers: &mut Timers, now_ms: u64) -> Vec<u32> {
        let mut ids: Vec<_> = std::iter::from_fn(|| timers.poll_due(now_ms)).map(|id| id.0).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn fires_after_its_time_and_within_two_slots() {
        let mut timers = timers();
        timers.arm(FlowId(1), 5_000);
        assert_eq!(due(&mut timers, 4_999), vec![]);
        assert_eq!(due(&mut timers, 5_000), vec![]);
        assert_eq!(due(&mut timers, 5_000 + 2 * SLOT_MS), vec![1]);
        assert_eq!(due(&mut timers, 60_000), vec![]);
    }

    #[test]
    fn arming_again_moves_and_disarming_removes() {
        let mut timers = timers();
        for id in 0..10 {
            timers.arm(FlowId(id), 1_000);
        }
        timers.arm(FlowId(3), 9_000);
        timers.disarm(FlowId(5));
        assert_eq!(due(&mut timers, 2_000), vec![0, 1, 2, 4, 6, 7, 8, 9]);
        assert_eq!(due(&mut timers, 10_000), vec![3]);
    }

    #[test]
    fn a_time_beyond_the_wheel_fires_early_to_be_armed_again() {
        let mut timers = timers();
        timers.arm(FlowId(1), 3_600_000);
        assert_eq!(due(&mut timers, SLOT_MS * (SLOTS as u64 - 2)), vec![]);
        assert_eq!(due(&mut timers, SLOT_MS * SLOTS as u64), vec![1]);
    }

    #[test]
    fn a_time_that_has_passed_fires_next() {
        let mut timers = timers();
        due(&mut timers, 100_000);
        timers.arm(FlowId(1), 5);
        assert_eq!(due(&mut timers, 100_000 + SLOT_MS), vec![1]);
    }

    #[test]
    fn a_long_sleep_misses_nothing() {
        let mut timers = timers();
        for id in 0..50 {
            timers.arm(FlowId(id), u64::from(id) * 10_000);
        }
        assert_eq!(due(&mut timers, 100_000_000).len(), 50);
    }
}
