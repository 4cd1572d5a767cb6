//! Sequence numbers: a circle of 2^32, of which only differences mean anything (RFC 9293 section 3.4).

use std::ops::Add;

/// A sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Seq(pub u32);

impl Seq {
    /// How far it is behind `earlier`; negative when it is before it.
    #[inline(always)]
    pub(super) fn since(self, earlier: Seq) -> i32 {
        self.0.wrapping_sub(earlier.0) as i32
    }

    /// As [`Seq::since`], of one that is known not to be before `earlier`.
    #[inline(always)]
    pub(super) fn ahead_of(self, earlier: Seq) -> usize {
        self.0.wrapping_sub(earlier.0) as usize
    }

    #[inline(always)]
    pub(super) fn is_after(self, other: Seq) -> bool {
        self.since(other) > 0
    }

    #[inline(always)]
    pub(super) fn is_before(self, other: Seq) -> bool {
        self.since(other) < 0
    }

    /// The later one.
    #[inline(always)]
    pub(super) fn max(self, other: Seq) -> Seq {
        if self.is_after(other) { self } else { other }
    }

    /// The earlier one.
    #[inline(always)]
    pub(super) fn min(self, other: Seq) -> Seq {
        if self.is_before(other) { self } else { other }
    }
}

impl Add<usize> for Seq {
    type Output = Seq;

    #[inline(always)]
    fn add(self, count: usize) -> Seq {
        Seq(self.0.wrapping_add(count as u32))
    }
}
