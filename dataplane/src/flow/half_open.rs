//! [`HalfOpen`]: flows whose handshake is not complete, by age. A flood makes room for itself here, the oldest first.
//!
//! ```text
//!   oldest ⇄ … ⇄ newest        when each ends by itself is its timer's to say (timer.rs)
//! ```
//!
//! The list is threaded through an array that only the begin and the end of a handshake touch. O(1) each.

use sluice_ffi::memory::{Backing, Slab};

use super::table::FlowId;

/// The half-open flows of one table.
pub struct HalfOpen {
    links: Slab<Link>,
    /// Ids + 1; [`END`] is none.
    oldest: u32,
    newest: u32,
    count: usize,
}

/// Ids + 1; [`END`] at the ends; 0 in both: not in the list.
#[derive(Debug, Clone, Copy, bytemuck::Zeroable)]
#[repr(C)]
struct Link {
    older: u32,
    newer: u32,
}

impl HalfOpen {
    /// For flow ids below `capacity`.
    pub fn new(capacity: usize, backing: Backing) -> Self {
        Self { links: Slab::new(capacity, backing), oldest: END, newest: END, count: 0 }
    }

    /// Bytes taken.
    pub fn bytes(&self) -> usize {
        self.links.bytes()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The one that came first.
    pub fn oldest(&self) -> Option<FlowId> {
        (self.oldest != END).then(|| FlowId(self.oldest - 1))
    }

    /// Takes in `id` as the newest, wherever it was.
    pub fn enter(&mut self, id: FlowId) {
        self.leave(id);
        self.links[id.index()] = Link { older: self.newest, newer: END };
        match self.newest {
            END => self.oldest = id.0 + 1,
            newest => self.links[newest as usize - 1].newer = id.0 + 1,
        }
        self.newest = id.0 + 1;
        self.count += 1;
    }

    /// Takes `id` out, if it is in.
    pub fn leave(&mut self, id: FlowId) {
        let Link { older, newer } = self.links[id.index()];
        if older == 0 {
            return;
        }
        match older {
            END => self.oldest = newer,
            older => self.links[older as usize - 1].newer = newer,
        }
        match newer {
            END => self.newest = older,
            newer => self.links[newer as usize - 1].older = older,
        }
        self.links[id.index()] = Link { older: 0, newer: 0 };
        self.count -= 1;
    }
}

const END: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snat::random::Random;
    use std::collections::VecDeque;

    #[test]
    fn the_order_is_that_of_a_simple_model_whatever_happens() {
        let seed = 0x0a1f;
        println!("seed {seed:#x}");
        let (mut random, mut list) = (Random::new(seed), HalfOpen::new(50, Backing::Ordinary));
        let mut model: VecDeque<u32> = VecDeque::new();
        for step in 0..20_000 {
            let id = (random.next() >> 40) as u32 % 50;
            let enters = random.next() >> 40 & 1 == 0;
            model.retain(|other| *other != id);
            if enters {
                model.push_back(id);
                list.enter(FlowId(id));
            } else {
                list.leave(FlowId(id));
            }
            let oldest = list.oldest().map(|id| id.0);
            assert_eq!((oldest, list.count()), (model.front().copied(), model.len()), "step {step}");
        }
        while let Some(oldest) = model.pop_front() {
            assert_eq!(list.oldest(), Some(FlowId(oldest)));
            list.leave(FlowId(oldest));
        }
        assert_eq!((list.oldest(), list.count()), (None, 0));
    }
}
