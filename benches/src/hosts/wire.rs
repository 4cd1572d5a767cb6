//! What the hosts need of a wire, and the one in memory.

use sluice_dataplane::frame::{Checksum, Frame, FramePool};
use sluice_dataplane::port::memory::MemoryPeer;

use super::segment::FRAME_MAX;
use crate::scenario::SELF_IP;
use crate::steady::arp;

/// Carries frames, and answers ARP for every host at this end.
pub trait Wire {
    /// TCP checksums are written and looked at; otherwise the wire vouches for them.
    const SUMS: bool;

    /// Gives what has come to `take`, a burst of it at most. Returns how many frames there were.
    fn receive(&mut self, take: impl FnMut(&[u8])) -> usize;

    /// Sends a frame of `len` bytes, which `fill` writes all of; false when there is no room for it now.
    fn put(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> bool;

    /// Nothing more is put for now.
    fn flush(&mut self);
}

/// A memory port's other end.
pub struct MemoryWire {
    peer: MemoryPeer,
    frames: FramePool,
    /// What the port had no room for.
    waiting: Option<Frame>,
}

impl MemoryWire {
    /// With memory for as many frames as may be on the way to the port.
    pub fn new(peer: MemoryPeer) -> Self {
        Self { peer, frames: FramePool::new(FRAMES), waiting: None }
    }

    /// The host at `address` asks for the worker's, by which the worker learns the host's.
    pub fn introduce(&mut self, address: [u8; 4]) {
        self.send(&arp(1, address));
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        self.waiting = self.waiting.take().and_then(|frame| self.peer.send(frame).err());
        let frame = if self.waiting.is_none() { self.frames.copy_of(bytes) } else { None };
        let Some(mut frame) = frame else { return false };
        frame.offload.checksum = Checksum::Verified;
        self.waiting = self.peer.send(frame).err();
        true
    }

    /// The worker asks now and then whether its neighbours are still there. What it says of itself needs no answer.
    #[cold]
    fn answer_arp(&mut self, bytes: &[u8]) {
        let address =
            |at: usize| bytes.get(at..at + 4).and_then(|address| address.first_chunk::<4>()).copied();
        let is_question = bytes.get(21) == Some(&1) && address(28) == Some(SELF_IP);
        if let Some(asked) = address(38).filter(|&asked| is_question && asked != SELF_IP) {
            self.send(&arp(2, asked));
        }
    }
}

impl Wire for MemoryWire {
    const SUMS: bool = false;

    fn receive(&mut self, mut take: impl FnMut(&[u8])) -> usize {
        let mut count = 0;
        while let Some(frame) = self.peer.recv() {
            count += 1;
            match frame.bytes() {
                bytes if bytes.get(12..14) == Some(&[8, 6]) => self.answer_arp(bytes),
                bytes => take(bytes),
            }
        }
        count
    }

    fn put(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        let mut bytes = [0; FRAME_MAX];
        fill(&mut bytes[..len]);
        self.send(&bytes[..len])
    }

    fn flush(&mut self) {}
}

const FRAMES: usize = 512;
