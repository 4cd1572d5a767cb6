//! Received mbufs become frames.

use sluice_ffi::append::Appender;
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
    pub(super) fn take(&mut self, mbuf: Mbuf, frames: &mut Appender<Frame>) {
        // Room for a burst was made, so there is a slot.
        let Some(slot) = frames.slot() else { return };
        let checksum = match mbuf.rx_checksum() {
            RxChecksum::Unknown => Some(Checksum::Unchecked),
            RxChecksum::Good => Some(Checksum::Verified),
            RxChecksum::Bad | RxChecksum::Unfinished => None,
        };
        match checksum {
            Some(checksum) if !mbuf.is_chain() => slot.fill(whole(mbuf, checksum)),
            checksum => {
                // By value: what a call could change is not kept in registers.
                if let Some(frame) = self.odd(mbuf, checksum) {
                    slot.fill(frame);
                }
            }
        }
    }

    /// A frame in pieces, or with a checksum to find or to refuse.
    #[cold]
    #[inline(never)]
    fn odd(&mut self, mbuf: Mbuf, checksum: Option<Checksum>) -> Option<Frame> {
        let unfinished = |mbuf: &Mbuf| match mbuf.rx_checksum() {
            RxChecksum::Unfinished => offload::locate_checksum(mbuf.bytes()),
            RxChecksum::Bad | RxChecksum::Unknown | RxChecksum::Good => None,
        };
        let Some(checksum) = checksum.or_else(|| unfinished(&mbuf)) else {
            self.counters.rx_errors += 1;
            return None;
        };
        if mbuf.is_chain() { self.put_together(&mbuf, checksum) } else { Some(whole(mbuf, checksum)) }
    }

    fn put_together(&mut self, mbuf: &Mbuf, checksum: Checksum) -> Option<Frame> {
        let len = mbuf.chain_len();
        if len > FRAME_MAX_BYTES {
            self.counters.rx_errors += 1;
            return None;
        }
        let Some(mut frame) = self.frames.take() else {
            self.counters.rx_no_memory += 1;
            return None;
        };
        if let Some(room) = frame.room_mut() {
            mbuf.copy_to(room);
        }
        frame.set_len(len);
        frame.offload.checksum = checksum;
        Some(frame)
    }
}

#[inline(always)]
fn whole(mbuf: Mbuf, checksum: Checksum) -> Frame {
    Frame::from_mbuf(mbuf, Offload { checksum, segmentation: None })
}
