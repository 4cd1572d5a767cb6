//! What of that which is underway is lost, and what was sent again: selective acknowledgements (RFC 6675), duplicate ones
//! (RFC 6582), the tail loss probe (RFC 8985 section 7), and timeouts.
//!
//! Everything between `una` and `lost` that the peer does not hold is lost; up to `resent` it was sent again.

use super::buffer::Buffers;
use super::ranges::Ranges;
use super::segment::Segment;
use super::seq::Seq;

/// What the sender of one connection knows of losses.
#[derive(Debug)]
pub(super) struct Recovery {
    mode: Mode,
    /// Acknowledgements that said nothing new but that something arrived.
    pub dup_acks: u16,
    /// The end of what was underway when the last loss was noticed.
    until: Seq,
    resent: Seq,
    lost: Seq,
    /// What the peer says it holds.
    held: Option<Box<Ranges>>,
    /// The end of the segment that was sent to hear what became of those before it.
    probed: Option<Seq>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Nothing is lost, as far as we know.
    Open,
    /// Something was lost, and acknowledgements still come.
    Mending,
    /// None came for too long: everything is taken for lost.
    TimedOut,
}

impl Recovery {
    pub(super) fn new(isn: Seq) -> Self {
        Self { mode: Mode::Open, dup_acks: 0, until: isn, resent: isn, lost: isn, held: None, probed: None }
    }

    /// True while nothing is lost and nothing looks like it.
    #[inline(always)]
    pub(super) fn is_quiet(&self) -> bool {
        self.mode == Mode::Open && !self.has_signs()
    }

    /// True when something was heard that a loss could explain.
    #[inline(always)]
    pub(super) fn has_signs(&self) -> bool {
        self.dup_acks > 0 || self.held.is_some() || self.probed.is_some()
    }

    /// True while the end of what is underway may be asked about: nothing looks lost but by too few signs.
    #[inline(always)]
    pub(super) fn may_probe(&self) -> bool {
        self.is_quiet() || self.mode == Mode::Open && self.held.is_some() && self.probed.is_none()
    }

    /// Remembers what the peer says it holds; blocks that cannot be are passed over. True when one says something new.
    pub(super) fn take_blocks(
        &mut self,
        segment: &Segment<'_>,
        una: Seq,
        nxt: Seq,
        buffers: &mut Buffers,
    ) -> bool {
        let before = self.held_bytes();
        let una = una.max(segment.ack);
        let underway = nxt.ahead_of(una);
        for (start, end) in segment.sack_blocks() {
            let (from, to) = (start.ahead_of(una), end.ahead_of(una));
            if 0 < from && from < to && to <= underway {
                self.held.get_or_insert_with(|| buffers.lease_list()).insert(start, end);
            }
        }
        self.held_bytes() > before
    }

    fn held_bytes(&self) -> usize {
        self.held.as_deref().map_or(0, Ranges::total)
    }

    /// Everything before `una` is acknowledged, so many bytes more than before. True when the congestion window may grow.
    #[inline]
    pub(super) fn on_advance(
        &mut self,
        una: Seq,
        acked: usize,
        mss: u16,
        sack: bool,
        buffers: &mut Buffers,
    ) -> bool {
        let grows = self.mode != Mode::Mending;
        if self.mode == Mode::Open && !self.has_signs() {
            // Never half a circle behind, where it would look as if it lay ahead.
            self.until = self.until.max(Seq(una.0.wrapping_sub(1)));
            return grows;
        }
        if let Some(held) = &mut self.held {
            held.trim(una);
            if held.is_empty() {
                buffers.give_back_list(&mut self.held);
            }
        }
        (self.resent, self.lost) = (self.resent.max(una), self.lost.max(una));
        self.probed = self.probed.filter(|end| end.is_after(una));
        if self.mode == Mode::Open || !una.is_before(self.until) {
            (self.mode, self.dup_acks) = (Mode::Open, 0);
        } else if self.mode == Mode::Mending && !sack {
            // What is acknowledged in part shows the next loss (RFC 6582 section 3.2, step 3).
            let arrived = acked.div_ceil(usize::from(mss)).min(usize::from(u16::MAX)) as u16;
            self.dup_acks = self.dup_acks.saturating_sub(arrived);
            self.lost = self.lost.max(una + usize::from(mss)).min(self.until);
        }
        grows
    }

    /// Looks at the signs. True when they show a loss that nobody knew of.
    pub(super) fn look(&mut self, una: Seq, nxt: Seq, mss: u16, sack: bool) -> bool {
        let told = self.told(una, mss);
        if self.mode != Mode::Open {
            self.lost = self.lost.max(told);
            return false;
        }
        // Duplicates that our own needless segments made look the same (RFC 6582 section 4.1).
        let is_old = !sack && !una.is_after(self.until);
        if !told.is_after(una) && (self.dup_acks < DUP_ACKS || is_old) {
            return false;
        }
        (self.mode, self.until, self.resent) = (Mode::Mending, nxt, una);
        self.lost = told.max(una + usize::from(mss)).min(nxt);
        self.probed = None;
        true
    }

    /// Up to where the peer's blocks show that what it does not hold is lost: three of them lie behind it, or more than
    /// two segments' bytes (RFC 6675 section 4, IsLost), or a segment that was sent later by a round trip at least.
    fn told(&self, una: Seq, mss: u16) -> Seq {
        let Some(held) = &self.held else { return una };
        let (mut bytes, mut blocks) = (0, 0);
        for &(start, end) in held.as_slice().iter().rev() {
            bytes += end.ahead_of(start);
            blocks += 1;
            let is_probe = self.probed.is_some_and(|probed| !end.is_before(probed));
            if is_probe || blocks >= DUP_ACKS || bytes > 2 * usize::from(mss) {
                return start;
            }
        }
        una
    }

    /// The first part of what is lost that was not sent again.
    pub(super) fn next_lost(&self, una: Seq, nxt: Seq) -> Option<(Seq, Seq)> {
        if self.mode == Mode::Open && self.probed.is_none() {
            return None;
        }
        let (from, to) = (self.resent.max(una), self.lost.min(nxt));
        match &self.held {
            Some(held) => held.first_hole(from, to),
            None => to.is_after(from).then_some((from, to)),
        }
    }

    /// True when nothing was sent again yet from where the peer waits.
    pub(super) fn is_first(&self, una: Seq) -> bool {
        !self.resent.is_after(una) || self.mode == Mode::Open
    }

    /// Bytes that are in the network, as far as we know (RFC 6675 section 4, SetPipe).
    #[inline]
    pub(super) fn pipe(&self, una: Seq, nxt: Seq, mss: u16) -> usize {
        let underway = nxt.ahead_of(una);
        if self.is_quiet() {
            return underway;
        }
        let (from, to) = (self.resent.max(una), self.lost.min(nxt));
        let (arrived, lost) = match &self.held {
            Some(held) => (held.total(), held.missing(from, to)),
            None if self.mode == Mode::TimedOut => (0, to.since(from).max(0) as usize),
            None => (usize::from(self.dup_acks) * usize::from(mss), to.since(from).max(0) as usize),
        };
        underway.saturating_sub(arrived + lost)
    }

    /// Something was sent again, up to `end`.
    pub(super) fn on_resent(&mut self, end: Seq) {
        self.resent = self.resent.max(end);
    }

    /// The last segment is sent again, unless there is something new to send instead; what the peer says of it shows
    /// whether others were lost.
    pub(super) fn probe(&mut self, una: Seq, nxt: Seq, end: Seq, mss: u16, has_new: bool) {
        self.probed = Some(nxt + usize::from(has_new));
        (self.resent, self.lost) = (nxt, nxt);
        if !has_new {
            let last = nxt.min(end).ahead_of(una).min(usize::from(mss));
            self.resent = Seq(nxt.min(end).0.wrapping_sub(last as u32));
        }
    }

    /// Nothing was heard for as long as a probe waits. True when the peer holds something: what it does not hold of what was
    /// sent before is lost, however few the signs are (RFC 8985 section 6.2, step 5).
    pub(super) fn on_late(&mut self, una: Seq) -> bool {
        let last = self.held.as_deref().and_then(|held| held.as_slice().last());
        let Some(&(start, end)) = last else { return false };
        (self.mode, self.until, self.dup_acks, self.probed) = (Mode::Mending, end, 0, None);
        (self.resent, self.lost) = (una, start);
        true
    }

    /// Nothing was heard: everything is lost but what the peer holds. It may have thrown that away (RFC 2018 section 8): so
    /// it has when it holds what it waits for, and so it may have when this is not the first timeout.
    pub(super) fn on_timeout(&mut self, una: Seq, nxt: Seq, is_first: bool, buffers: &mut Buffers) {
        let is_kept = |held: &Ranges| held.around(una).is_none();
        if !is_first || !self.held.as_deref().is_some_and(is_kept) {
            self.clear(buffers);
        }
        (self.mode, self.dup_acks, self.probed) = (Mode::TimedOut, 0, None);
        (self.resent, self.lost, self.until) = (una, nxt, nxt);
    }

    /// Gives back everything.
    pub(super) fn clear(&mut self, buffers: &mut Buffers) {
        buffers.give_back_list(&mut self.held);
    }
}

/// RFC 5681 section 3.2.
const DUP_ACKS: u16 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_show_a_loss_however_much_went_well_before() {
        for gigabytes in 0..6 {
            let (mut recovery, mut buffers, mut una) = (Recovery::new(Seq(0)), Buffers::new(1), Seq(1));
            for _ in 0..gigabytes {
                una = una + (1 << 30);
                recovery.on_advance(una, 1 << 30, 1000, false, &mut buffers);
            }
            recovery.dup_acks = DUP_ACKS;
            assert!(recovery.look(una, una + 9000, 1000, false), "{gigabytes}");
        }
    }
}
