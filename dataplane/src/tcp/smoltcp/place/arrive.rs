//! What comes from the peer: judged before smoltcp sees it, and its answer kept until there is a sink.

use std::time::Duration;

use ::smoltcp::iface::Interface;
use ::smoltcp::socket::tcp::State as SocketState;
use ::smoltcp::time::Duration as Span;

use super::window::Offered;
use super::{MSS_MIN, Place, ack_delay, moment};
use crate::clock::Instant;
use crate::tcp::State;
use crate::tcp::smoltcp::CHALLENGE_MS;
use crate::tcp::smoltcp::device::{Inbound, Small};
use crate::tcp::smoltcp::segment::{self, ROOM, Segment};

impl Place {
    pub(in crate::tcp::smoltcp) fn receive(
        &mut self,
        interface: &mut Interface,
        scratch: &mut [u8],
        packet: &[u8],
        now: Instant,
    ) {
        let Some(segment) = Segment::read(packet) else { return };
        if self.over.is_some() {
            return self.receive_late(&segment, now);
        }
        if !self.admits(&segment, now) {
            return;
        }
        self.meets_older = self.is_of_older(&segment);
        self.heard_at = now;
        (self.asked_at, self.probed_at) = (None, None);
        if self.socket().state() == SocketState::SynSent && segment.has(Segment::SYN) {
            self.receive_syn(interface, packet, &segment, now);
        } else {
            self.receive_rest(interface, scratch, packet, &segment, now);
        }
        let is_reset = segment.has(Segment::RST);
        self.settle(if is_reset { State::Reset } else { State::Closed }, now);
    }

    /// Whatever is no answer to our SYN, with the window that smoltcp is to know.
    fn receive_rest(
        &mut self,
        interface: &mut Interface,
        scratch: &mut [u8],
        packet: &[u8],
        segment: &Segment,
        now: Instant,
    ) {
        let Some(window) = self.window_of(segment) else {
            return self.feed(interface, packet, segment, now);
        };
        let told = match window == segment.window {
            true => packet,
            false => segment::with_window(packet, segment, window, scratch),
        };
        self.feed(interface, told, segment, now);
        self.on_window(segment, window);
        self.close_when_it_fits();
    }

    /// The peer takes our SYN for a segment of an older connection with these ends, and says what it expects of that
    /// (RFC 9293 section 3.5.1): the RST that answers it ends the older one.
    fn is_of_older(&self, segment: &Segment) -> bool {
        self.socket().state() == SocketState::SynSent
            && segment.has(Segment::ACK)
            && !segment.has(Segment::SYN)
            && !segment.has(Segment::RST)
            && segment.ack != self.sent.next
    }

    /// After TIME-WAIT began, what the peer sends again is acknowledged again (RFC 9293 section 3.10.7.4).
    fn receive_late(&mut self, segment: &Segment, now: Instant) {
        if self.over == Some(State::TimeWait) && !segment.has(Segment::RST) && segment.after() != segment.seq
        {
            self.challenge(now);
        }
    }

    /// Whether smoltcp may see it. It takes every RST in the window for good and every SYN there for nothing, which is
    /// answered with an acknowledgement instead (RFC 5961 sections 3.2 and 4.2); it lets what waits be acknowledged before
    /// it was sent (RFC 9293 section 3.10.7.4); and it relies on peers that respect windows.
    fn admits(&mut self, segment: &Segment, now: Instant) -> bool {
        let state = self.socket().state();
        if state == SocketState::SynSent {
            return true;
        }
        // Of two sides that connect to each other, each sees the other's SYN twice (RFC 9293 section 3.5).
        if segment.has(Segment::SYN) && state != SocketState::SynReceived {
            self.challenge(now);
            return false;
        }
        let expects = self.expects();
        let room = self.edge().wrapping_sub(expects) as i32;
        if segment.has(Segment::RST) {
            let ahead = segment.seq.wrapping_sub(expects) as i32;
            if 0 < ahead && ahead < room {
                self.challenge(now);
            }
            return ahead == 0;
        }
        let is_unsent = segment.ack.wrapping_sub(self.sent.next) as i32 > 0;
        if segment.has(Segment::ACK) && is_unsent && state != SocketState::SynReceived {
            self.challenge(now);
            return false;
        }
        let ahead = segment.end().wrapping_sub(expects) as i32;
        let is_over = ahead > self.free() as i32 || segment.has(Segment::FIN) && ahead > room;
        if segment.payload > 0 && is_over {
            self.owed.ack = true;
            return false;
        }
        true
    }

    /// An acknowledgement is owed, at most once in [`CHALLENGE_MS`] (RFC 5961 section 7).
    fn challenge(&mut self, now: Instant) {
        let since = self.challenged_at.map(|at| now.since(at));
        if since.is_none_or(|since| since >= Duration::from_millis(CHALLENGE_MS)) {
            self.challenged_at = Some(now);
            self.owed.ack = true;
        }
    }

    /// The peer's SYN or SYN-ACK is given without payload and with an MSS that is not larger than ours.
    fn receive_syn(&mut self, interface: &mut Interface, packet: &[u8], segment: &Segment, now: Instant) {
        let Some(mut repr) = segment::parse(&self.ends, packet, segment.header) else { return };
        let default = if self.ends.ip_header() == 20 { 536 } else { 1220 };
        let mss = repr.max_seg_size.filter(|mss| *mss != 0).unwrap_or(default).min(self.mss);
        repr.max_seg_size = Some(mss);
        repr.payload = &[];
        let peer = self.ends.reversed();
        let mut made = Small::new(segment::len(&peer, &repr));
        if segment::len(&peer, &repr) > ROOM {
            return;
        }
        segment::emit(&peer, &repr, made.bytes_mut());
        self.feed(interface, made.bytes(), segment, now);
        if self.socket().state() != SocketState::SynSent && self.socket().state() != SocketState::Closed {
            self.mss = mss.max(MSS_MIN);
            self.synchronize(segment.seq, repr.window_scale.is_some());
            self.sent.ack = segment.seq;
            self.offered = Offered::begin(segment.seq, segment.window, repr.window_scale);
            self.sent.is_shut = segment.window == 0;
            if segment.has(Segment::ACK) {
                self.sent.acked = segment.ack;
            }
        }
    }

    /// Gives a packet to smoltcp and keeps its answer.
    fn feed(&mut self, interface: &mut Interface, packet: &[u8], segment: &Segment, now: Instant) {
        let delay = ack_delay(self.options);
        let is_large = delay.is_some() && segment.payload > usize::from(self.mss);
        if is_large {
            // RFC 9293 section 3.8.6.3: several segments in one packet are acknowledged at once.
            self.socket_mut().set_ack_delay(Some(Span::ZERO));
        }
        let mut wire = Inbound { packet: Some(packet), answer: None };
        interface.poll_ingress_single(moment(now), &mut wire, &mut self.set);
        let answer = wire.answer;
        if is_large {
            self.socket_mut().set_ack_delay(delay);
        }
        if let Some(answer) = answer {
            self.hold(answer);
        }
    }

    fn hold(&mut self, answer: Small) {
        let ack = |small: &Small| Segment::read(small.bytes()).map(|segment| segment.ack);
        let is_again = self.answer.as_ref().is_some_and(|held| ack(held) == ack(&answer));
        self.answers = if is_again { (self.answers + 1).min(ANSWERS_MAX) } else { 1 };
        self.sent.on_packet(answer.bytes());
        self.answer = Some(answer);
    }
}

/// Three duplicate acknowledgements make a peer send again (RFC 5681 section 3.2); one more does not help.
const ANSWERS_MAX: u8 = 4;
