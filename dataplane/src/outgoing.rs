//! What a turn has decided to send, by port, until the driver takes it.

use crate::config::ids::PortId;
use crate::counters::WorkerCounters;
use crate::frame::Frame;
use crate::port::PortQueue;
use crate::verdict::DropReason;

/// One bounded burst for each port.
pub struct Outgoing {
    bursts: Vec<Vec<Frame>>,
}

impl Outgoing {
    /// For `ports` ports.
    pub fn new(ports: usize) -> Self {
        Self { bursts: (0..ports).map(|_| Vec::with_capacity(WAITING_MAX)).collect() }
    }

    /// Queues a frame.
    ///
    /// # Errors
    /// [`DropReason::TxFull`] when as many wait as may; the frame is gone.
    #[inline(always)]
    pub fn push(&mut self, port: PortId, frame: Frame) -> Result<(), DropReason> {
        let burst = &mut self.bursts[usize::from(port.0)];
        if burst.len() >= WAITING_MAX {
            return Err(DropReason::TxFull);
        }
        burst.push(frame);
        Ok(())
    }

    /// Lets `queue` take what it can of its port's burst. True when something was sent.
    #[inline]
    pub fn flush(&mut self, port: PortId, queue: &mut dyn PortQueue, counters: &WorkerCounters) -> bool {
        let burst = &mut self.bursts[usize::from(port.0)];
        if burst.is_empty() {
            return false;
        }
        let bytes: usize = burst.iter().map(Frame::len).sum();
        let sent = queue.tx(burst);
        let left: usize = burst.iter().map(Frame::len).sum();
        let traffic = &counters.of_port(port).frames;
        traffic.packets_out.add(sent as u64);
        traffic.bytes_out.add((bytes - left) as u64);
        sent > 0
    }

    /// True when a port could not take everything.
    pub fn has_waiting(&self) -> bool {
        self.bursts.iter().any(|burst| !burst.is_empty())
    }

    /// What waits for a port, for tests.
    pub fn waiting(&self, port: PortId) -> &[Frame] {
        &self.bursts[usize::from(port.0)]
    }
}

/// Eight bursts: what a driver may owe us before we drop.
const WAITING_MAX: usize = 256;
