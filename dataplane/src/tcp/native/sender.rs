//! What goes to the peer: bytes until they are acknowledged, and how much of them may be underway.
//!
//! ```text
//!            │◀──────────────── ring ───────────────────▶│
//!   ─────────┼──────────▓▓▓▓────────┼────────────────────┼──▶ sequence numbers
//!           una        held        nxt                  end          then the FIN
//! ```
//!
//! What was lost is told by `recovery`; this sends it before anything new.

use super::buffer::{Buffers, Ring};
use super::congestion::Congestion;
use super::recovery::Recovery;
use super::rtt::Rtt;
use super::segment::Segment;
use super::seq::Seq;
use crate::clock::Instant;

/// The sending half of a connection.
#[derive(Debug)]
pub(super) struct Sender {
    pub ring: Ring,
    /// The first number that is not acknowledged.
    pub una: Seq,
    /// The first that was never sent.
    pub nxt: Seq,
    /// The largest payload of a segment.
    pub mss: u16,
    /// By how much the peer's windows are shifted.
    pub scale: u8,
    /// Small segments wait for acknowledgements.
    pub nagle: bool,
    /// No more is written; a FIN follows.
    pub is_closing: bool,
    pub is_fin_sent: bool,
    pub is_fin_acked: bool,
    pub rtt: Rtt,
    pub timer: Option<(Timer, Instant)>,
    /// When what is underway is taken for lost, whatever the timer is for before.
    deadline: Instant,
    pub recovery: Recovery,
    congestion: Congestion,
    /// What the peer offers from `una` on, and the most it ever did.
    window: usize,
    window_max: usize,
    /// The number of the segment that the window is of (SND.WL1).
    window_of: Seq,
    /// What is next may be smaller than it should be, and go beyond the congestion window (RFC 8985 section 7.3).
    is_forced: bool,
    /// When something was last sent.
    sent_at: Instant,
}

/// What the timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// What is underway is taken for lost.
    Retransmit,
    /// The last of what is underway may be lost.
    Probe,
    /// The peer's window is too small for what waits.
    Persist,
}

/// Something to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub seq: Seq,
    pub len: usize,
    pub has_fin: bool,
    /// It ends what waits.
    pub is_last: bool,
}

impl Sender {
    /// Begins with `isn`, which is not sent yet.
    pub(super) fn new(isn: Seq, mss: u16, nagle: bool, now: Instant) -> Self {
        Self {
            ring: Ring::default(),
            una: isn,
            nxt: isn,
            mss,
            scale: 0,
            nagle,
            is_closing: false,
            is_fin_sent: false,
            is_fin_acked: false,
            rtt: Rtt::UNKNOWN,
            timer: None,
            deadline: now,
            recovery: Recovery::new(isn),
            congestion: Congestion::new(mss),
            window: 0,
            window_max: 0,
            window_of: isn,
            is_forced: false,
            sent_at: now,
        }
    }

    /// The peer has synchronized with this segment, or one like it: its window is not scaled.
    pub(super) fn synchronize(&mut self, peer_isn: Seq, window: u16, mss: u16, scale: u8) {
        (self.mss, self.scale) = (mss, scale);
        self.congestion = Congestion::new(mss);
        (self.window, self.window_max) = (usize::from(window), usize::from(window));
        self.window_of = peer_isn;
    }

    /// Our SYN has left.
    pub(super) fn on_syn_sent(&mut self, now: Instant) {
        if self.underway() == 0 {
            self.nxt = self.una + 1;
            self.rtt.on_sent(self.nxt, now);
            self.await_timeout(now);
        } else {
            self.rtt.on_resent();
        }
    }

    /// Our SYN is acknowledged by one of the peer's, whose window we know already.
    pub(super) fn on_synchronized(&mut self, now: Instant) {
        self.una = self.nxt;
        self.rtt.on_acked(self.una, now);
        self.timer = None;
    }

    /// Bytes and FIN that are underway.
    #[inline(always)]
    pub(super) fn underway(&self) -> usize {
        self.nxt.ahead_of(self.una)
    }

    /// The number after the last byte.
    #[inline(always)]
    fn end(&self) -> Seq {
        self.una + self.ring.len()
    }

    /// Bytes that were never sent.
    #[inline(always)]
    fn unsent(&self) -> usize {
        self.end().since(self.nxt).max(0) as usize
    }

    /// False when there is nothing to send, whatever windows say.
    #[inline(always)]
    pub(super) fn has_output(&self) -> bool {
        self.unsent() > 0 || self.is_closing != self.is_fin_sent || !self.recovery.is_quiet()
    }

    /// True when nobody waits for anything.
    #[inline(always)]
    fn is_quiet(&self) -> bool {
        self.una == self.nxt && self.ring.len() == 0 && self.is_closing == self.is_fin_sent
    }

    /// True when an acknowledgement is older than any that may still be underway (RFC 5961 section 5.2).
    #[inline]
    pub(super) fn is_old(&self, ack: Seq) -> bool {
        !ack.is_after(self.una) && self.una.ahead_of(ack) > self.window_max
    }

    /// The peer's window is closed.
    pub(super) fn is_shut(&self) -> bool {
        self.window == 0
    }

    /// An acknowledgement of something that was sent: RFC 9293 section 3.10.7.4, the fifth check.
    #[inline]
    pub(super) fn on_ack(&mut self, segment: &Segment<'_>, sack: bool, buffers: &mut Buffers, now: Instant) {
        let acked = segment.ack.since(self.una);
        if acked < 0 {
            return;
        }
        let has_window = self.take_window(segment, acked > 0);
        let has_blocks = sack && self.recovery.take_blocks(segment, self.una, self.nxt, buffers);
        if acked > 0 {
            self.advance(segment.ack, acked as usize, sack, buffers, now);
        } else if self.underway() > 0 && segment.len() == 0 && (has_blocks || !sack && !has_window) {
            self.recovery.dup_acks = self.recovery.dup_acks.saturating_add(1);
        }
        if self.recovery.has_signs() {
            self.look_for_loss(sack, now);
        }
    }

    /// The window of a segment, unless a later one has told it. Nobody takes back what he offered: of two that differ in
    /// nothing else the larger is the newer. True when it changes.
    #[inline]
    fn take_window(&mut self, segment: &Segment<'_>, is_ack_new: bool) -> bool {
        let window = usize::from(segment.window) << self.scale;
        let since = segment.seq.since(self.window_of);
        let is_newer = is_ack_new || since > 0 || since == 0 && window > self.window;
        if !is_newer {
            return false;
        }
        self.window_of = self.window_of.max(segment.seq);
        self.window_max = self.window_max.max(window);
        let before = std::mem::replace(&mut self.window, window);
        if before == 0 && window > 0 {
            self.reopen();
        }
        before != window
    }

    /// The window was closed and is not any more: nobody waits for that.
    #[cold]
    fn reopen(&mut self) {
        self.rtt.backoff = 0;
        self.timer = self.timer.filter(|(timer, _)| *timer != Timer::Persist);
    }

    #[inline]
    fn advance(&mut self, ack: Seq, acked: usize, sack: bool, buffers: &mut Buffers, now: Instant) {
        let underway = self.underway();
        let bytes = acked.min(self.ring.len());
        self.ring.consume(bytes);
        self.ring.rest(buffers);
        self.is_fin_acked = self.is_fin_sent && ack == self.nxt;
        self.una = ack;
        self.rtt.on_acked(ack, now);
        if self.recovery.on_advance(ack, acked, self.mss, sack, buffers) && self.was_limited(underway) {
            self.congestion.on_acked(acked, self.mss, self.rtt.smoothed_us(), now);
        }
        self.arm(now);
    }

    /// True when the congestion window was what kept more from being sent.
    fn was_limited(&self, underway: usize) -> bool {
        let window = self.congestion.window as usize;
        underway + usize::from(self.mss) > window || self.congestion.is_starting() && 2 * underway >= window
    }

    #[cold]
    fn look_for_loss(&mut self, sack: bool, now: Instant) {
        let underway = self.underway();
        if self.recovery.look(self.una, self.nxt, self.mss, sack) {
            self.congestion.on_loss(underway, self.mss);
            self.await_timeout(now);
        }
    }

    /// What is to be sent next, no more than `most` bytes in one piece; `None` when nothing may be.
    #[inline]
    pub(super) fn next_piece(&mut self, most: usize, now: Instant) -> Option<Piece> {
        if !self.has_output() {
            return None;
        }
        if !self.recovery.is_quiet()
            && let Some(piece) = self.lost_piece(most)
        {
            return Some(piece);
        }
        if self.underway() == 0 && now > self.sent_at.after_ms(self.rtt.timeout_ms()) {
            self.congestion.on_idle(self.mss);
            self.sent_at = now;
        }
        self.new_piece(most)
    }

    /// What is lost, as much as fits; the first piece of it goes whatever is underway (RFC 6675 section 5, 4.3).
    fn lost_piece(&self, most: usize) -> Option<Piece> {
        let (from, to) = self.recovery.next_lost(self.una, self.nxt)?;
        let underway = self.recovery.pipe(self.una, self.nxt, self.mss);
        let room = (self.congestion.window as usize).saturating_sub(underway);
        let room = if self.recovery.is_first(self.una) { room.max(self.mss.into()) } else { room };
        let offered = (self.una + self.window).since(from).max(0) as usize;
        let bytes = self.end().min(to).since(from).max(0) as usize;
        let len = bytes.min(most).min(offered).min(self.whole(room));
        let has_fin = self.is_fin_sent && from + len == self.end() && to.is_after(self.end());
        let is_last = from + len == self.end();
        (len > 0 || has_fin && bytes == 0).then_some(Piece { seq: from, len, has_fin, is_last })
    }

    /// Whole segments of so much room.
    fn whole(&self, room: usize) -> usize {
        room - room % usize::from(self.mss)
    }

    #[inline]
    fn new_piece(&self, most: usize) -> Option<Piece> {
        let mss = usize::from(self.mss);
        let unsent = self.unsent();
        let offered = (self.una + self.window).since(self.nxt).max(0) as usize;
        let underway = self.recovery.pipe(self.una, self.nxt, self.mss);
        let room = (self.congestion.window as usize).saturating_sub(underway);
        let room = if self.is_forced { room.max(mss) } else { room };
        let mut len = unsent.min(offered).min(most).min(room);
        let is_last = len == unsent;
        if len >= mss && (!is_last || self.nagle) {
            len -= len % mss;
        } else if len < mss && !self.may_be_small(len, is_last, offered < room) {
            return None;
        }
        let is_last = len == unsent;
        let has_fin = is_last && self.is_closing && !self.is_fin_sent;
        (len > 0 || has_fin).then_some(Piece { seq: self.nxt, len, has_fin, is_last })
    }

    /// A segment that is not full may go when it is the last (RFC 9293 section 3.7.4), or as large as the peer will ever
    /// take (section 3.8.6.2.1).
    fn may_be_small(&self, len: usize, is_last: bool, is_by_window: bool) -> bool {
        match is_last {
            true => self.is_forced || !self.nagle || self.underway() == 0 || self.is_closing,
            false => self.is_forced || is_by_window && 2 * len >= self.window_max,
        }
    }

    /// A piece has left.
    #[inline]
    pub(super) fn on_sent(&mut self, piece: &Piece, now: Instant) {
        let end = piece.seq + piece.len + usize::from(piece.has_fin);
        self.is_forced = false;
        self.is_fin_sent |= piece.has_fin;
        let is_new = end.is_after(self.nxt);
        if is_new {
            self.nxt = end;
            self.rtt.on_sent(end, now);
        } else {
            self.recovery.on_resent(end);
            self.rtt.on_resent();
        }
        self.sent_at = now;
        match self.timer {
            None | Some((Timer::Persist, _)) => self.arm(now),
            _ if is_new => self.aim(now),
            _ => {}
        }
    }

    /// Starts the timer anew, for what is underway.
    #[inline]
    pub(super) fn arm(&mut self, now: Instant) {
        if self.underway() == 0 {
            self.timer = None;
            return;
        }
        self.deadline = now.after_ms(self.rtt.timeout_ms());
        self.aim(now);
    }

    /// The timeout runs on whatever is sent; a probe comes before it where one can (RFC 8985 section 7.2).
    #[inline]
    fn aim(&mut self, now: Instant) {
        self.timer = Some(match self.probe_at(now) {
            probe if probe < self.deadline => (Timer::Probe, probe),
            _ => (Timer::Retransmit, self.deadline),
        });
    }

    /// Nothing but the timeout is waited for.
    fn await_timeout(&mut self, now: Instant) {
        self.deadline = now.after_ms(self.rtt.timeout_ms());
        self.timer = Some((Timer::Retransmit, self.deadline));
    }

    /// When the end of what is underway is asked about (RFC 8985 section 7.2); a single segment's acknowledgement may be
    /// delayed.
    #[inline]
    fn probe_at(&self, now: Instant) -> Instant {
        match self.rtt.smoothed_us() {
            Some(smoothed_us) if self.recovery.may_probe() && self.rtt.backoff == 0 => {
                let is_single = self.underway() <= usize::from(self.mss);
                let delayed_us = if is_single { DELAYED_MAX_US } else { 0 };
                Instant::from_ns(now.as_ns() + 1000 * ((2 * smoothed_us).max(PROBE_MIN_US) + delayed_us))
            }
            _ => Instant::NEVER,
        }
    }

    /// The timer has fired. True when the peer is to be asked by a segment that carries nothing.
    #[cold]
    pub(super) fn on_timer(&mut self, timer: Timer, buffers: &mut Buffers, now: Instant) -> bool {
        match timer {
            Timer::Probe if self.recovery.on_late(self.una) => {
                self.congestion.on_loss(self.underway(), self.mss);
                self.await_timeout(now);
                false
            }
            Timer::Probe => {
                let has_new = self.unsent() > 0 && (self.una + self.window).is_after(self.nxt);
                self.recovery.probe(self.una, self.nxt, self.end(), self.mss, has_new);
                self.is_forced = has_new;
                self.await_timeout(now);
                false
            }
            Timer::Retransmit => {
                let is_first = self.rtt.backoff == 0;
                if !self.is_shut() {
                    self.congestion.on_timeout(is_first, self.underway(), self.mss);
                }
                self.recovery.on_timeout(self.una, self.nxt, is_first, buffers);
                self.rtt.on_resent();
                self.wait(Timer::Retransmit, now)
            }
            Timer::Persist => {
                self.is_forced = !self.is_shut();
                self.wait(Timer::Persist, now)
            }
        }
    }

    /// True when the window is closed: that is asked for again before long.
    fn wait(&mut self, timer: Timer, now: Instant) -> bool {
        self.wait_longer(timer, now);
        if self.is_shut() {
            self.deadline = now.after_ms(self.rtt.timeout_ms().min(PERSIST_MAX_MS));
            self.timer = Some((timer, self.deadline));
        }
        self.is_shut()
    }

    /// Sets the timer again, for twice the time.
    pub(super) fn wait_longer(&mut self, timer: Timer, now: Instant) {
        self.rtt.back_off();
        self.deadline = now.after_ms(self.rtt.timeout_ms());
        self.timer = Some((timer, self.deadline));
    }

    /// All is sent that may be: what waits behind a small window is asked for in a while (RFC 9293 section 3.8.6.1).
    #[inline]
    pub(super) fn persist(&mut self, now: Instant) {
        if self.underway() > 0 {
            return;
        }
        if self.is_quiet() {
            self.timer = None;
        } else if self.timer.is_none() {
            self.timer = Some((Timer::Persist, now.after_ms(self.rtt.timeout_ms().min(PERSIST_MAX_MS))));
        }
    }

    /// Gives back everything.
    pub(super) fn clear(&mut self, buffers: &mut Buffers) {
        self.recovery.clear(buffers);
        self.ring.clear(buffers);
    }
}

/// RFC 8985 section 7.2 leaves out that clocks and peers are not exact.
const PROBE_MIN_US: u64 = 10_000;
/// How long a peer may delay the acknowledgement of a single segment.
const DELAYED_MAX_US: u64 = 200_000;
/// How long a closed window goes without being asked for.
const PERSIST_MAX_MS: u64 = 10_000;
