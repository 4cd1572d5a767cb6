//! What a turn has decided to send, by port, until the driver takes it.

use crate::config::ids::PortId;
use crate::counters::WorkerCounters;
use crate::frame::{BURST_MAX, Frame};
use crate::port::PortQueue;
use crate::verdict::DropReason;

/// One bounded burst for each port.
pub struct Outgoing {
    bursts: Vec<Waiting>,
}

struct Waiting {
    frames: Vec<Frame>,
    bytes: u64,
}

impl Outgoing {
    /// For `ports` ports.
    pub fn new(ports: usize) -> Self {
        let empty = || Waiting { frames: Vec::with_capacity(WAITING_MAX), bytes: 0 };
        Self { bursts: (0..ports).map(|_| empty()).collect() }
    }

    /// True when as many frames wait for `port` as may.
    #[inline(always)]
    pub fn is_full(&self, port: PortId) -> bool {
        self.bursts[usize::from(port.0)].frames.len() >= WAITING_MAX
    }

    /// True when every port has room for `frames` more.
    pub fn has_room(&self, frames: usize) -> bool {
        self.bursts.iter().all(|burst| burst.frames.len() + frames <= WAITING_MAX)
    }

    /// Queues a frame.
    ///
    /// # Errors
    /// [`DropReason::TxFull`] when as many wait as may; the frame is gone.
    #[inline(always)]
    pub fn push(&mut self, port: PortId, frame: Frame) -> Result<(), DropReason> {
        let burst = &mut self.bursts[usize::from(port.0)];
        if burst.frames.len() >= WAITING_MAX {
            return Err(DropReason::TxFull);
        }
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
        let left: u64 = burst.frames.iter().map(|frame| frame.len() as u64).sum();
        let traffic = &counters.of_port(port).frames;
        traffic.packets_out.add(sent as u64);
        traffic.bytes_out.add(burst.bytes - left);
        burst.bytes = left;
        sent > 0
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

/// What a driver may owe us before we drop.
const WAITING_MAX: usize = 4 * BURST_MAX;
