//! The peer's window: which segments may change it, and what smoltcp is told of it.
//!
//! smoltcp takes the window of every segment that it accepts, so that one which comes late can close a window that is
//! open; and once both FINs are underway (LAST-ACK) it takes none but with an acknowledgement of something new, so that a
//! window that is closed then stays closed. It never sees the former, and never comes to the latter: a close waits until
//! all that is queued fits into the window, and the window's end does not move back any more.

use ::smoltcp::socket::tcp::State as SocketState;

use super::Place;
use crate::tcp::smoltcp::segment::Segment;

/// What the peer offers, as smoltcp believes it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Offered {
    /// The newest sequence number that came with a window (SND.WL1 of RFC 9293 section 3.10.7.4; SND.WL2 is what the
    /// peer has acknowledged).
    seq: u32,
    /// As it stood in the segment.
    window: u16,
    /// By how much the peer's windows are shifted, but for that of a SYN.
    scale: u8,
    /// From what is acknowledged on.
    bytes: usize,
}

impl Offered {
    /// Before anything but a SYN came; `window` is the SYN's.
    pub(super) fn begin(seq: u32, window: u16, scale: Option<u8>) -> Self {
        Self { seq, window, scale: scale.unwrap_or(0).min(SCALE_MAX), bytes: usize::from(window) }
    }

    /// True when a segment that acknowledges nothing new tells of the window as it is now. Of two that differ in nothing
    /// else the larger is the newer: nobody takes back what he offered (RFC 9293 section 3.8.6).
    fn is_older_than(&self, segment: &Segment) -> bool {
        let since = segment.seq.wrapping_sub(self.seq) as i32;
        since > 0 || since == 0 && segment.window >= self.window
    }

    /// The least window, as it stands in a segment, that does not move the end back when so much is acknowledged.
    fn rest(&self, acked: usize) -> u16 {
        let rest = self.bytes.saturating_sub(acked);
        rest.div_ceil(1 << self.scale).min(usize::from(u16::MAX)) as u16
    }
}

impl Place {
    /// The window that smoltcp is told instead of the segment's own; `None` when it does not take it from this segment.
    pub(super) fn window_of(&self, segment: &Segment) -> Option<u16> {
        let news = segment.ack.wrapping_sub(self.sent.acked) as i32;
        let is_last = self.socket().state() == SocketState::LastAck;
        let is_answer = segment.has(Segment::ACK) && !segment.has(Segment::SYN | Segment::RST);
        let is_ours = news >= 0 && segment.ack.wrapping_sub(self.sent.next) as i32 <= 0;
        if !is_answer || !is_ours || is_last && news == 0 || !self.is_in_window(segment) {
            return None;
        }
        Some(match news {
            0 if self.offered.is_older_than(segment) => segment.window,
            0 => self.offered.window,
            _ if is_last => segment.window.max(self.offered.rest(news as usize)),
            _ => segment.window,
        })
    }

    /// RFC 9293 section 3.10.7.4, with the window that smoltcp believes it announced.
    fn is_in_window(&self, segment: &Segment) -> bool {
        let ahead = segment.seq.wrapping_sub(self.expects()) as i32;
        let room = self.edge().wrapping_sub(self.expects()) as i32;
        let end = ahead.wrapping_add(segment.payload as i32);
        match segment.payload {
            0 => ahead == 0 || 0 <= ahead && ahead < room,
            _ => 0 <= ahead && ahead < room || 0 < end && end <= room,
        }
    }

    /// smoltcp took a segment with this window.
    pub(super) fn on_window(&mut self, segment: &Segment, window: u16) {
        if segment.seq.wrapping_sub(self.offered.seq) as i32 > 0 {
            self.offered.seq = segment.seq;
        }
        self.offered.window = window;
        self.offered.bytes = usize::from(window) << self.offered.scale;
        self.sent.is_shut = window == 0;
        self.sent.acked = segment.ack;
    }

    /// Closes as soon as smoltcp will need no larger window for what is queued.
    pub(super) fn close_when_it_fits(&mut self) {
        let is_last = self.socket().state() == SocketState::CloseWait;
        if self.closes && !(is_last && self.socket().send_queue() > self.offered.bytes) {
            self.closes = false;
            self.socket_mut().close();
        }
    }
}

/// RFC 7323 section 2.3.
const SCALE_MAX: u8 = 14;
