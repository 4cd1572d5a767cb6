//! What comes from the peer, in the order of RFC 9293 section 3.10.7.

use super::buffer::Buffers;
use super::connection::{Connection, Phase, Reset};
use super::segment::{ACK, RST, SYN, Segment};
use crate::clock::Instant;
use crate::tcp::{EngineSpec, State};

impl Connection {
    pub(super) fn receive(&mut self, spec: &EngineSpec, packet: &[u8], buffers: &mut Buffers, now: Instant) {
        let Some(segment) = Segment::read(packet) else { return };
        match (self.over, self.phase) {
            (Some(_), _) => self.receive_late(&segment, now),
            (None, Phase::Asking) => self.receive_answer(spec, &segment, now),
            (None, _) => self.receive_synchronized(&segment, buffers, now),
        }
    }

    /// After TIME-WAIT began, what the peer sends again is acknowledged again (section 3.10.7.4).
    fn receive_late(&mut self, segment: &Segment<'_>, now: Instant) {
        if self.over == Some(State::TimeWait) && !segment.has(RST) && segment.len() > 0 {
            self.challenge(now);
        }
    }

    /// In SYN-SENT (section 3.10.7.3).
    #[cold]
    fn receive_answer(&mut self, spec: &EngineSpec, segment: &Segment<'_>, now: Instant) {
        let is_ours = segment.ack == self.sender.nxt && self.sender.underway() > 0;
        if segment.has(ACK) && !is_ours {
            return self.meet_older(segment);
        }
        if segment.has(RST) {
            if segment.has(ACK) {
                self.end(State::Reset);
            }
            return;
        }
        if !segment.has(SYN) {
            return;
        }
        self.hear_syn(spec, segment);
        if segment.has(ACK) {
            self.receiver.owe(1);
            self.open(now);
        } else {
            (self.phase, self.owed.syn) = (Phase::Meeting, true);
        }
        self.hear(now);
    }

    /// The peer takes our SYN for a segment of an older connection with these ends, and says what it expects of that
    /// (section 3.5.1): the RST that answers it ends the older one, and our SYN follows at once, not after a second.
    fn meet_older(&mut self, segment: &Segment<'_>) {
        if !segment.has(RST) {
            self.owed.reset = Some(Reset::Older(segment.ack));
            self.owed.syn |= !std::mem::replace(&mut self.asked_again, true);
        }
    }

    /// Our SYN is acknowledged.
    fn open(&mut self, now: Instant) {
        (self.phase, self.owed.syn) = (Phase::Open, false);
        self.sender.on_synchronized(now);
    }

    #[inline]
    fn receive_synchronized(&mut self, segment: &Segment<'_>, buffers: &mut Buffers, now: Instant) {
        if segment.flags & (RST | SYN | ACK) != ACK && !self.admits_strange(segment, now) {
            return;
        }
        let is_unsent = segment.ack.is_after(self.sender.nxt);
        if is_unsent || self.sender.is_old(segment.ack) {
            return self.challenge(now);
        }
        if !self.receiver.accepts(segment) {
            return self.refuse(segment, now);
        }
        if self.phase == Phase::Meeting {
            if segment.ack != self.sender.nxt || self.sender.underway() == 0 {
                return self.challenge(now);
            }
            self.open(now);
        }
        self.sender.on_ack(segment, self.receiver.sack, buffers, now);
        self.receiver.take(segment, self.mss, self.options.ack_delay_ms, buffers, now);
        self.hear(now);
        self.settle();
    }

    /// A segment with RST or SYN, or without ACK. True when it is to be looked at as any other.
    #[cold]
    fn admits_strange(&mut self, segment: &Segment<'_>, now: Instant) -> bool {
        if segment.has(RST) {
            // RFC 5961 section 3.2: only the exact number ends it.
            if segment.seq == self.receiver.expects() {
                self.end(State::Reset);
            } else if self.receiver.is_in_window(segment.seq) {
                self.challenge(now);
            }
            return false;
        }
        if segment.has(SYN) {
            self.on_syn(segment, now);
            return false;
        }
        segment.has(ACK)
    }

    /// RFC 5961 section 4.2: a SYN is answered and changes nothing. Of two sides that connect to each other, each sees the
    /// other's SYN twice, the second time with the acknowledgement of its own (RFC 9293 section 3.5).
    fn on_syn(&mut self, segment: &Segment<'_>, now: Instant) {
        let is_again = segment.seq + 1 == self.receiver.next && self.phase == Phase::Meeting;
        if is_again && self.sender.underway() > 0 && segment.has(ACK) && segment.ack == self.sender.nxt {
            self.receiver.owe(1);
            self.open(now);
            return self.hear(now);
        }
        self.challenge(now);
    }

    /// It is not what we expect: the peer is told what is (section 3.10.7.4). Answers to what carries nothing are few, or
    /// two sides that expect other things would go on for ever.
    fn refuse(&mut self, segment: &Segment<'_>, now: Instant) {
        self.hear(now);
        match segment.len() {
            0 => self.challenge(now),
            _ => self.receiver.owe(1),
        }
    }

    /// The peer is there.
    #[inline]
    fn hear(&mut self, now: Instant) {
        (self.heard, self.asked) = (now, None);
        self.waiting = self.is_waiting().then_some(now);
    }
}
