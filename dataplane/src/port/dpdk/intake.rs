//! Received mbufs become frames.

use sluice_ffi::dpdk::{Mbuf, RxChecksum};

use super::offload;
use crate::frame::{Checksum, FRAME_MAX_BYTES, Frame, FramePool, Offload};
use crate::port::DriverCounters;

/// Wraps what the device hands over, and counts what it cannot use.
pub(super) struct Intake {
    frames: FramePool,
    pub(super) counters: DriverCounters,
}

impl Intake {
    pub(super) fn new(frames: FramePool) -> Self {
        Self { frames, counters: DriverCounters::default() }
    }

    /// Where copies go.
    pub(super) fn frames(&self) -> &FramePool {
        &self.frames
    }

    /// Appends the frame to `frames`, or drops and counts it.
    #[inline(always)]
    pub(super) fn take(&mut self, mbuf: Mbuf, frames: &mut Vec<Frame>) {
        let checksum = match mbuf.rx_checksum() {
            RxChecksum::Unknown => Checksum::Unchecked,
            RxChecksum::Good => Checksum::Verified,
            state @ (RxChecksum::Bad | RxChecksum::Unfinished) => return self.take_odd(mbuf, state, frames),
        };
        if mbuf.is_chain() {
            return self.take_chain(&mbuf, checksum, frames);
        }
        frames.push(Frame::from_mbuf(mbuf, Offload { checksum, segmentation: None }));
    }

    #[cold]
    fn take_odd(&mut self, mbuf: Mbuf, state: RxChecksum, frames: &mut Vec<Frame>) {
        let unfinished = match state {
            RxChecksum::Unfinished => offload::locate_checksum(mbuf.bytes()),
            RxChecksum::Bad | RxChecksum::Unknown | RxChecksum::Good => None,
        };
        let Some(checksum) = unfinished else {
            self.counters.rx_errors += 1;
            return;
        };
        if mbuf.is_chain() {
            return self.take_chain(&mbuf, checksum, frames);
        }
        frames.push(Frame::from_mbuf(mbuf, Offload { checksum, segmentation: None }));
    }

    /// A frame in pieces is copied together.
    #[cold]
    fn take_chain(&mut self, mbuf: &Mbuf, checksum: Checksum, frames: &mut Vec<Frame>) {
        let len = mbuf.chain_len();
        if len > FRAME_MAX_BYTES {
            self.counters.rx_errors += 1;
            return;
        }
        let Some(mut frame) = self.frames.take() else {
            self.counters.rx_no_memory += 1;
            return;
        };
        if let Some(room) = frame.room_mut() {
            mbuf.copy_to(room);
        }
        frame.set_len(len);
        frame.offload = Offload { checksum, segmentation: None };
        frames.push(frame);
    }
}
