//! Cutting a super-frame into MTU-sized frames in software, for devices that cannot.

use crate::frame::{Frame, FramePool};

/// Why a frame was not cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// The frame is not a super-frame: its offload has no segmentation.
    #[error("the frame has no segmentation to do")]
    NotSegmented,
    /// The pool had fewer frames than there are segments.
    #[error("no frame memory")]
    Exhausted,
}

/// Cuts `frame` into finished frames from `pool`, in order, behind what is in `out`; returns how many.
///
/// # Errors
/// [`SegmentError`]; `out` is as before then.
pub fn segment(frame: &Frame, pool: &FramePool, out: &mut Vec<Frame>) -> Result<usize, SegmentError> {
    let _ = (frame, pool, out);
    Err(SegmentError::NotSegmented)
}
