//! What the peer sends: bytes in order and those that came too early, the window that it is offered, and acknowledgements
//! that it is owed.
//!
//! ```text
//!            │◀─ ring, to be read ─▶│   early    early            │
//!   ─────────┼──────────────────────┼────▓▓▓▓─────▓▓──────────────┼──▶ sequence numbers
//!                                  next                         limit
//! ```

use super::buffer::{Buffers, Ring};
use super::ranges::Ranges;
use super::segment::{FIN, Options, Segment};
use super::seq::Seq;
use crate::clock::Instant;

/// The receiving half of a connection.
#[derive(Debug)]
pub(super) struct Receiver {
    pub ring: Ring,
    /// The first byte that has not come.
    pub next: Seq,
    /// Everything has come, the FIN, too.
    pub is_done: bool,
    /// Immediate acknowledgements that are owed.
    pub owed: u8,
    /// One is owed then at the latest.
    pub delayed: Option<Instant>,
    /// By how much windows are shifted that we announce.
    pub scale: u8,
    /// The peer takes selective acknowledgements, and sends them.
    pub sack: bool,
    /// The peer's FIN follows this byte.
    fin: Option<Seq>,
    /// The last number that we acknowledged.
    acked: Seq,
    /// The end of the largest window that we offered.
    edge: Seq,
    early: Option<Box<Ranges>>,
    /// Where early pieces begin that came last, the newest first.
    recent: [Seq; RECENT_MAX],
    capacity: usize,
}

impl Receiver {
    /// For a peer whose first byte is `next`. It counts as having been offered all, though a SYN cannot say more than 64 KiB:
    /// its first acknowledgement will.
    pub(super) fn new(next: Seq, capacity: usize) -> Self {
        Self {
            ring: Ring::default(),
            next,
            is_done: false,
            owed: 0,
            delayed: None,
            scale: 0,
            sack: false,
            fin: None,
            acked: next,
            edge: next + capacity,
            early: None,
            recent: [next; RECENT_MAX],
            capacity,
        }
    }

    /// The number that we expect, which is what we acknowledge.
    #[inline(always)]
    pub(super) fn expects(&self) -> Seq {
        self.next + usize::from(self.is_done)
    }

    /// Bytes of room.
    #[inline(always)]
    fn free(&self) -> usize {
        self.capacity - self.ring.len()
    }

    /// Where it sits: whether the segment has anything in the window (RFC 9293 section 3.10.7.4, the first check). One that
    /// carries nothing may be at its end: there a peer is that has filled it, and one number further when it asks about a
    /// closed window with a byte.
    pub(super) fn accepts(&self, segment: &Segment<'_>) -> bool {
        let ahead = segment.seq.since(self.expects());
        match segment.len() {
            0 => 0 <= ahead && ahead <= self.free() as i32 + 1,
            len => ahead <= self.free() as i32 && ahead.saturating_add(len as i32) > 0,
        }
    }

    /// True when a segment that begins here begins in the window.
    pub(super) fn is_in_window(&self, seq: Seq) -> bool {
        let ahead = seq.since(self.expects());
        0 <= ahead && (ahead as usize) < self.free()
    }

    /// Takes what is new of an accepted segment, if all of it fits; a peer that sends more than it was offered sends it
    /// again. An acknowledgement is owed: at once for what is not simply the next, else after `delay_ms` or with every second
    /// full segment (RFC 5681 section 4.2).
    #[inline]
    pub(super) fn take(
        &mut self,
        segment: &Segment<'_>,
        mss: u16,
        delay_ms: u32,
        buffers: &mut Buffers,
        now: Instant,
    ) {
        let has_fin = segment.has(FIN);
        if segment.payload.is_empty() && !has_fin {
            return;
        }
        let old = self.next.since(segment.seq).max(0) as usize;
        let Some(payload) = segment.payload.get(old..).filter(|_| !self.is_done) else { return self.owe(1) };
        let seq = segment.seq.max(self.next);
        let ahead = seq.ahead_of(self.next);
        let is_past =
            self.fin.is_some_and(|fin| segment.end().is_after(fin) || has_fin && segment.end() != fin);
        if ahead + payload.len() > self.free() || is_past {
            return self.owe(1);
        }
        if has_fin && !self.ends_at(segment.end()) {
            return self.owe(1);
        }
        if ahead > 0 {
            self.take_early(seq, payload, buffers);
            return self.owe(payload.len().div_ceil(usize::from(mss)).clamp(1, OWED_MAX.into()) as u8);
        }
        self.append(payload, buffers);
        let is_plain = old == 0 && self.early.is_none() && self.fin.is_none();
        self.absorb_early(buffers);
        self.is_done = self.fin == Some(self.next);
        let unacked = self.next.ahead_of(self.acked);
        match is_plain && unacked < 2 * usize::from(mss) && payload.len() <= usize::from(mss) && delay_ms > 0
        {
            true => _ = self.delayed.get_or_insert(now.after_ms(delay_ms.into())),
            // One for all that came in order: more that are alike would look like a loss (RFC 5681 section 2).
            false => self.owed = 1,
        }
    }

    /// The peer's FIN follows `end`; false when something came already from behind it.
    fn ends_at(&mut self, end: Seq) -> bool {
        let has_behind = |early: &Ranges| early.as_slice().last().is_some_and(|range| range.1.is_after(end));
        if self.early.as_deref().is_some_and(has_behind) {
            return false;
        }
        self.fin = Some(end);
        true
    }

    #[inline]
    fn append(&mut self, payload: &[u8], buffers: &mut Buffers) {
        if payload.is_empty() {
            return;
        }
        self.ring.reserve(self.ring.len() + payload.len(), buffers);
        self.ring.put(self.ring.len(), payload);
        self.ring.extend(payload.len());
        self.next = self.next + payload.len();
    }

    #[cold]
    fn take_early(&mut self, seq: Seq, payload: &[u8], buffers: &mut Buffers) {
        if payload.is_empty() {
            return;
        }
        let early = self.early.get_or_insert_with(|| buffers.lease_list());
        if early.insert(seq, seq + payload.len()) {
            let offset = self.ring.len() + seq.ahead_of(self.next);
            self.ring.reserve(offset + payload.len(), buffers);
            self.ring.put(offset, payload);
            self.recent = latest(early.around(seq), seq, self.recent);
        }
    }

    /// What came early and is not early any more.
    #[inline]
    fn absorb_early(&mut self, buffers: &mut Buffers) {
        let Some(early) = &mut self.early else { return };
        while let Some(end) = early.take_from(self.next) {
            let more = end.since(self.next).max(0) as usize;
            self.ring.extend(more);
            self.next = self.next + more;
        }
        if early.is_empty() {
            buffers.give_back_list(&mut self.early);
        }
    }

    /// So many acknowledgements are owed, at once.
    pub(super) fn owe(&mut self, count: u8) {
        self.owed = self.owed.saturating_add(count).min(OWED_MAX);
    }

    /// True when an acknowledgement is to be sent now: it is owed, or the window has grown enough.
    pub(super) fn is_due(&self, mss: u16, now: Instant) -> bool {
        self.owed > 0 || self.delayed.is_some_and(|at| at <= now) || self.has_news(mss)
    }

    /// True when the peer should hear that the window has grown: twice what it knows, and a segment at least, or half the
    /// buffer when that is smaller (RFC 9293 section 3.8.6.2.2).
    fn has_news(&self, mss: u16) -> bool {
        let (known, room) = (self.known(), self.room());
        !self.is_done && room >= 2 * known && self.grows(known, room, mss)
    }

    fn grows(&self, known: usize, room: usize, mss: u16) -> bool {
        room >= known + usize::from(mss).min(self.capacity / 2).max(1)
    }

    /// What the peer may still send, as far as it knows.
    fn known(&self) -> usize {
        self.edge.since(self.next).max(0) as usize
    }

    /// What it may be told that it may send: whole units of what a window says.
    fn room(&self) -> usize {
        let room = self.free().min(usize::from(u16::MAX) << self.scale);
        room >> self.scale << self.scale
    }

    /// The window to announce, as it stands in a segment. Small steps are kept back.
    #[inline]
    pub(super) fn window(&self, mss: u16) -> u16 {
        let (known, room) = (self.known(), self.room());
        let room = if self.grows(known, room, mss) {
            room
        } else {
            known.next_multiple_of(1 << self.scale).min(room)
        };
        (room >> self.scale) as u16
    }

    /// An acknowledgement with this window has left: nothing is owed any more.
    #[inline]
    pub(super) fn on_sent(&mut self, window: u16) {
        self.acked = self.expects();
        self.edge = self.edge.max(self.next + (usize::from(window) << self.scale));
        (self.owed, self.delayed) = (0, None);
    }

    /// True when the peer knows everything that we know.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.owed == 0 && self.acked == self.expects()
    }

    /// True when something came early.
    pub(super) fn has_early(&self) -> bool {
        self.early.is_some()
    }

    /// The options of an acknowledgement: where pieces came last, the newest first (RFC 2018 section 4).
    pub(super) fn blocks(&self) -> Options {
        let Some(early) = self.early.as_deref().filter(|early| self.sack && !early.is_empty()) else {
            return Options::NONE;
        };
        let of = |at: usize| early.around(self.recent[at]);
        let is_first = |at: &usize| !(0..*at).any(|before| of(before) == of(*at));
        Options::of_blocks((0..RECENT_MAX).filter(is_first).filter_map(of))
    }

    /// Gives back what is not needed while nothing waits.
    #[inline]
    pub(super) fn rest(&mut self, buffers: &mut Buffers) {
        if self.early.is_none() {
            self.ring.rest(buffers);
        }
    }

    /// Gives back everything.
    pub(super) fn clear(&mut self, buffers: &mut Buffers) {
        buffers.give_back_list(&mut self.early);
        self.ring.clear(buffers);
    }
}

/// Where pieces came last, after one came at `seq` in `range`: those that are in it as well are not told twice.
fn latest(range: Option<(Seq, Seq)>, seq: Seq, before: [Seq; RECENT_MAX]) -> [Seq; RECENT_MAX] {
    let is_apart = |at: &Seq| range.is_some_and(|(start, end)| at.is_before(start) || !at.is_before(end));
    let mut others = before.into_iter().filter(is_apart);
    let mut latest = [seq; RECENT_MAX];
    latest[1..].iter_mut().zip(&mut others).for_each(|(place, at)| *place = at);
    latest
}

/// Three duplicate acknowledgements make a peer send again (RFC 5681 section 3.2); one more does not help.
const OWED_MAX: u8 = 4;
/// As many as fit into an acknowledgement.
const RECENT_MAX: usize = 4;
