//! The `memory` port: two queues of frames in this process, for tests and benches.
//!
//! ```text
//!   MemoryPeer::send ─▶ wire (bounded) ─▶ MemoryQueue::rx
//!   MemoryPeer::recv ◀─ wire (bounded) ◀─ MemoryQueue::tx
//! ```

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use crossbeam::queue::ArrayQueue;

use super::{DriverCounters, PortInfo, PortQueue, Steering};
use crate::address::Mac;
use crate::frame::{BURST_MAX, Frame};

/// Makes a port in memory whose two directions hold `depth` frames each: the queue for a worker, and its peer.
pub fn pair(depth: usize) -> (MemoryQueue, MemoryPeer) {
    let wire = Arc::new(Wire {
        to_worker: ArrayQueue::new(depth),
        from_worker: ArrayQueue::new(depth),
        link_up: AtomicBool::new(true),
        mtu: AtomicU16::new(0),
    });
    (MemoryQueue { wire: Arc::clone(&wire) }, MemoryPeer { wire })
}

/// Port facts for a memory port.
pub fn info(name: &str, mac: Mac) -> PortInfo {
    PortInfo {
        name: name.into(),
        driver: "memory",
        device: String::new(),
        mac,
        mtu: 1500,
        queues: 1,
        offloads: vec!["tx-checksum", "tso"],
        steering: Steering::Software,
        steering_reason: "memory does not steer".into(),
    }
}

/// The worker's end.
pub struct MemoryQueue {
    wire: Arc<Wire>,
}

/// The test's end.
#[derive(Clone)]
pub struct MemoryPeer {
    wire: Arc<Wire>,
}

struct Wire {
    to_worker: ArrayQueue<Frame>,
    from_worker: ArrayQueue<Frame>,
    link_up: AtomicBool,
    /// 0 until it is changed.
    mtu: AtomicU16,
}

impl PortQueue for MemoryQueue {
    fn rx(&mut self, frames: &mut Vec<Frame>) -> usize {
        let before = frames.len();
        frames.extend(std::iter::from_fn(|| self.wire.to_worker.pop()).take(BURST_MAX));
        frames.len() - before
    }

    fn tx(&mut self, frames: &mut Vec<Frame>) -> usize {
        let room = self.wire.from_worker.capacity() - self.wire.from_worker.len();
        let count = room.min(frames.len());
        for frame in frames.drain(..count) {
            let pushed = self.wire.from_worker.push(frame);
            debug_assert!(pushed.is_ok(), "one sender a queue");
        }
        count
    }

    fn wait_fd(&self) -> Option<RawFd> {
        None
    }

    fn counters(&mut self) -> DriverCounters {
        DriverCounters::default()
    }

    fn is_link_up(&mut self) -> bool {
        self.wire.link_up.load(Ordering::Relaxed)
    }

    fn mtu(&mut self) -> Option<u16> {
        Some(self.wire.mtu.load(Ordering::Relaxed)).filter(|&mtu| mtu != 0)
    }
}

impl MemoryPeer {
    /// Puts a frame on the wire towards the worker; the frame comes back when the wire is full.
    ///
    /// # Errors
    /// The frame itself.
    pub fn send(&self, frame: Frame) -> Result<(), Frame> {
        self.wire.to_worker.push(frame)
    }

    /// Takes the oldest frame that the worker sent.
    pub fn recv(&self) -> Option<Frame> {
        self.wire.from_worker.pop()
    }

    /// Pulls or plugs the cable.
    pub fn set_link(&self, up: bool) {
        self.wire.link_up.store(up, Ordering::Relaxed);
    }

    /// Says that the port carries IP packets of at most so many bytes from now on.
    pub fn set_mtu(&self, mtu: u16) {
        self.wire.mtu.store(mtu, Ordering::Relaxed);
    }
}
