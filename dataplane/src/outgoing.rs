//! What a turn has decided to send, by port, until the driver takes it.

use crate::config::ids::PortId;
use crate::counters::WorkerCounters;
use crate::frame::{BURST_MAX, Frame};
use crate::pipeline::LOOK_AHEAD;
use crate::port::PortQueue;
use crate::verdict::DropReason;

/// One bounded burst for each port.
pub struct Outgoing {
    bursts: Vec<Waiting>,
}

struct Waiting {
    frames: Vec<Frame>,
    bytes: u64,
    /// Of the frames, those in our own memory.
    own: usize,
}

impl Outgoing {
    /// For `ports` ports.
    pub fn new(ports: usize) -> Self {
        let empty = || Waiting { frames: Vec::with_capacity(WAITING_MAX), bytes: 0, own: 0 };
        Self { bursts: (0..ports).map(|_| empty()).collect() }
    }

    /// True when `frame` may wait for `port`.
    #[inline(always)]
    pub fn takes(&self, port: PortId, frame: &Frame) -> bool {
        let burst = &self.bursts[usize::from(port.0)];
        burst.frames.len() < WAITING_MAX && (frame.is_mbuf() || burst.own < OWN_MAX)
    }

    /// True when one more frame of our own memory may wait for `port`.
    pub fn takes_own(&self, port: PortId) -> bool {
        self.bursts[usize::from(port.0)].room() > 0
    }

    /// How many frames more in our own memory may wait for whichever port.
    pub fn room(&self) -> usize {
        self.bursts.iter().map(Waiting::room).min().unwrap_or_default()
    }

    /// Queues a frame.
    ///
    /// # Errors
    /// [`DropReason::TxFull`] when as many wait as may; the frame is gone.
    #[inline(always)]
    pub fn push(&mut self, port: PortId, frame: Frame) -> Result<(), DropReason> {
        if !self.takes(port, &frame) {
            return Err(DropReason::TxFull);
        }
        let burst = &mut self.bursts[usize::from(port.0)];
        burst.own += usize::from(!frame.is_mbuf());
        burst.bytes += frame.len() as u64;
        burst.frames.push(frame);
        Ok(())
    }

    /// Lets `queue` take what it can of its port's burst. True when something was sent.
    #[inline]
    pub fn flush(&mut self, port: PortId, queue: &mut dyn PortQueue, counters: &WorkerCounters) -> bool {
        let burst = &mut self.bursts[usize::from(port.0)];
        if burst.frames.is_empty() {
            return false;
        }
        let sent = queue.tx(&mut burst.frames);
        let before = burst.bytes;
        burst.look_again();
        let traffic = &counters.of_port(port).frames;
        traffic.packets_out.add(sent as u64);
        traffic.bytes_out.add(before - burst.bytes);
        sent > 0
    }

    /// True when some of what waits should not wait for the end of the turn: frames of our own memory, so that there is
    /// room for what may come of [`LOOK_AHEAD`] packets, each in eight pieces; or a whole burst.
    #[inline(always)]
    pub fn is_urgent(&self) -> bool {
        self.bursts.iter().any(|burst| burst.own > 0 || burst.frames.len() >= BURST_MAX)
    }

    /// True when a port could not take everything.
    pub fn has_waiting(&self) -> bool {
        self.bursts.iter().any(|burst| !burst.frames.is_empty())
    }

    /// What waits for a port, for tests.
    pub fn waiting(&self, port: PortId) -> &[Frame] {
        &self.bursts[usize::from(port.0)].frames
    }
}

impl Waiting {
    fn room(&self) -> usize {
        WAITING_MAX.saturating_sub(self.frames.len()).min(OWN_MAX.saturating_sub(self.own))
    }

    /// Counts what the driver has left.
    #[inline(always)]
    fn look_again(&mut self) {
        self.bytes = self.frames.iter().map(|frame| frame.len() as u64).sum();
        self.own = self.frames.iter().filter(|frame| !frame.is_mbuf()).count();
    }
}

/// What a driver may owe us before we drop.
const WAITING_MAX: usize = 2 * BURST_MAX;
/// Of these, in our own frame memory: receiving, answering and cutting need it, too.
const OWN_MAX: usize = 256;
const _: () = assert!(OWN_MAX == 8 * LOOK_AHEAD);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FramePool;
    use crate::limits::Limits;
    use crate::port::memory;

    #[test]
    fn what_waits_for_one_port_leaves_frames_of_our_own_for_the_rest() {
        let (pool, counters) = (FramePool::new(2 * OWN_MAX), WorkerCounters::new(&Limits::default()));
        let (slow, other) = (PortId(0), PortId(1));
        let mut out = Outgoing::new(2);
        let frame = || pool.copy_of(&[0; 60]).expect("frame memory");
        (0..OWN_MAX).for_each(|_| out.push(slow, frame()).expect("room"));
        assert_eq!(out.push(slow, frame()), Err(DropReason::TxFull));
        assert!(!out.takes_own(slow) && out.takes_own(other) && out.room() == 0);
        assert_eq!(out.push(other, frame()), Ok(()));
        let (mut queue, _peer) = memory::pair(10);
        assert!(out.flush(slow, &mut queue, &counters));
        (0..10).for_each(|_| out.push(slow, frame()).expect("as many as have left"));
        assert_eq!(out.push(slow, frame()), Err(DropReason::TxFull));
        assert_eq!(counters.of_port(slow).frames.bytes_out.load(), 600);
    }
}
