//! Strays: what arrived at one worker and belongs to another crosses by a bounded ring, never by a shared table.
//!
//! ```text
//!   worker 0 ── ring [0→1] ─▶ worker 1        one producer and one consumer a ring
//!            ◀─ ring [1→0] ──
//! ```
//!
//! Only packets of no local flow ever get here, so a packet that is at home pays nothing.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use sluice_ffi::wait::Waker;

use crate::address::Mac;
use crate::config::ids::PortId;
use crate::flow::key::FlowKey;
use crate::frame::Frame;
use crate::neighbor::Word;
use crate::route::NextHop;

/// What crosses from one worker to another.
#[derive(Debug)]
pub enum Stray {
    /// A packet of the other worker's flow, the port it came from, and the way it has come.
    Packet(PortId, Frame, Trail),
    /// A fragment of the other worker's flow, and what it cannot tell by itself.
    Fragment {
        /// The port it came from.
        port: PortId,
        /// The fragment.
        frame: Frame,
        /// The packet's addresses and ports.
        key: FlowKey,
    },
    /// News of a neighbour, which only one worker hears.
    Neighbor {
        /// The neighbour.
        hop: NextHop,
        /// Its link address.
        mac: Mac,
        /// Who said so.
        word: Word,
    },
}

/// The way of a packet between workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trail {
    /// How often it was handed over.
    pub hops: u8,
    /// How many of the workers that may own its flow have been asked, or are being asked.
    pub sought: u8,
}

/// One worker's ends of the rings.
pub struct Handoff {
    waker: Waker,
    inboxes: Vec<Arc<ArrayQueue<Stray>>>,
    /// By worker; `None` for itself.
    outboxes: Vec<Option<Outbox>>,
    /// The inbox to look into first.
    next: usize,
}

struct Outbox {
    ring: Arc<ArrayQueue<Stray>>,
    waker: Waker,
    /// Something was put in since the owner was last woken.
    posted: bool,
}

/// Makes the rings between `workers` workers: one [`Handoff`] each, by number.
///
/// # Errors
/// The kernel's, when the process has no descriptor left.
pub fn mesh(workers: usize) -> std::io::Result<Vec<Handoff>> {
    let wakers: Vec<Waker> = (0..workers).map(|_| Waker::new()).collect::<Result<_, _>>()?;
    let ring = |from: usize, to: usize| (from != to).then(|| Arc::new(ArrayQueue::new(RING_DEPTH)));
    let rings: Vec<Vec<_>> =
        (0..workers).map(|from| (0..workers).map(|to| ring(from, to)).collect()).collect();
    let handoff = |me: usize| Handoff {
        waker: wakers[me].clone(),
        inboxes: (0..workers).filter_map(|from| rings[from][me].clone()).collect(),
        outboxes: (0..workers)
            .map(|to| {
                let ring = rings[me][to].clone()?;
                Some(Outbox { ring, waker: wakers[to].clone(), posted: false })
            })
            .collect(),
        next: 0,
    };
    Ok((0..workers).map(handoff).collect())
}

impl Handoff {
    /// The event that wakes this worker: strays, and messages from the control thread.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Gives `stray` to `worker`.
    ///
    /// # Errors
    /// The stray itself when the ring is full or there is no such other worker.
    pub fn give(&mut self, worker: usize, stray: Stray) -> Result<(), Stray> {
        let Some(Some(outbox)) = self.outboxes.get_mut(worker) else { return Err(stray) };
        outbox.ring.push(stray)?;
        outbox.posted = true;
        Ok(())
    }

    /// Tells every other worker about a neighbour. What does not fit is lost; the worker will ask by itself.
    pub fn tell_all(&mut self, hop: NextHop, mac: Mac, word: Word) {
        for worker in 0..self.outboxes.len() {
            let _ = self.give(worker, Stray::Neighbor { hop, mac, word });
        }
    }

    /// The next stray for this worker, from each of the others in turn.
    #[inline]
    pub fn take(&mut self) -> Option<Stray> {
        let count = self.inboxes.len();
        let first = self.next;
        self.next = if first + 1 < count { first + 1 } else { 0 };
        (0..count).find_map(|step| self.inboxes[(first + step) % count].pop())
    }

    /// True when there are other workers.
    #[inline(always)]
    pub fn has_others(&self) -> bool {
        !self.inboxes.is_empty()
    }

    /// Wakes the workers that were given something since the last call: at most one system call each.
    pub fn wake_others(&mut self) {
        for outbox in self.outboxes.iter_mut().flatten() {
            if std::mem::take(&mut outbox.posted) {
                outbox.waker.wake();
            }
        }
    }
}

const RING_DEPTH: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::config::ids::LinkId;
    use crate::frame::FramePool;

    #[test]
    fn strays_reach_their_worker_in_order_and_wake_it() {
        let (pool, mut workers) = (FramePool::new(8), mesh(3).unwrap());
        for length in 1..4 {
            workers[0]
                .give(2, Stray::Packet(PortId(1), pool.copy_of(&vec![0; length]).unwrap(), Trail::default()))
                .unwrap();
        }
        workers[0].wake_others();
        assert!(sluice_ffi::wait::wait_readable(&[workers[2].waker().fd()], std::time::Duration::ZERO));
        assert!(!sluice_ffi::wait::wait_readable(&[workers[1].waker().fd()], std::time::Duration::ZERO));
        let lengths: Vec<_> = std::iter::from_fn(|| workers[2].take())
            .map(|stray| match stray {
                Stray::Packet(PortId(1), frame, _) => frame.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(lengths, [1, 2, 3]);
        assert!(workers[1].take().is_none());
    }

    #[test]
    fn a_full_ring_and_oneself_give_the_stray_back() {
        let (pool, mut workers) = (FramePool::new(RING_DEPTH + 1), mesh(2).unwrap());
        let packet = || Stray::Packet(PortId(0), pool.copy_of(&[1]).unwrap(), Trail::default());
        assert!(workers[0].give(0, packet()).is_err());
        for _ in 0..RING_DEPTH {
            workers[0].give(1, packet()).unwrap();
        }
        assert!(workers[0].give(1, packet()).is_err());
    }

    #[test]
    fn everybody_else_hears_of_a_neighbor() {
        let mut workers = mesh(3).unwrap();
        let hop = NextHop { link: LinkId::new(PortId(0), 0), address: Address::v4([10, 0, 0, 1]) };
        workers[1].tell_all(hop, Mac([2; 6]), Word::Arp { asks: true });
        assert!(workers[0].take().is_some() && workers[2].take().is_some() && workers[1].take().is_none());
        assert!(!mesh(1).unwrap()[0].has_others());
    }
}
