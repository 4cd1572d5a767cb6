//! What goes to the peer, and when.

use super::buffer::Buffers;
use super::connection::{Connection, Owed, Phase, Reset};
use super::segment::{ACK, FIN, Header, Options, PSH, RST, SYN, TCP_HEADER};
use super::sender::Piece;
use super::seq::Seq;
use super::{PROBE_MS, UNANSWERED_MS, window_scale};
use crate::clock::Instant;
use crate::tcp::{EngineSpec, Sink, State};

impl Connection {
    /// True when all is sent that is to be sent now; false when the sink has no more room.
    #[inline]
    pub(super) fn transmit(
        &mut self,
        spec: &EngineSpec,
        sink: &mut impl Sink,
        buffers: &mut Buffers,
        now: Instant,
    ) -> bool {
        if self.next_time() <= now {
            self.on_time(buffers, now);
        }
        let is_done =
            self.send_strange(spec, sink, now) && self.send_data(sink, now) && self.send_answers(sink, now);
        if self.waiting.is_none() && self.over.is_none() && self.is_waiting() {
            self.waiting = Some(now);
        }
        self.settle();
        is_done
    }

    /// False when [`Connection::transmit`] would send nothing.
    #[inline]
    pub(super) fn has_output(&self, now: Instant) -> bool {
        self.owed != Owed::default()
            || self.receiver.is_due(self.mss, now)
            || self.sender.has_output()
            || self.next_time() <= now
    }

    /// When something is to be done though nothing happens.
    #[inline]
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let owes = self.owed != Owed::default() || self.receiver.owed > 0;
        let at = if owes { now } else { self.next_time().max(now) };
        (at != Instant::NEVER).then_some(at)
    }

    #[inline]
    fn next_time(&self) -> Instant {
        if self.over.is_some() {
            return Instant::NEVER;
        }
        let timer = self.sender.timer.map_or(Instant::NEVER, |(_, at)| at);
        let delayed = self.receiver.delayed.unwrap_or(Instant::NEVER);
        let given_up = self.waiting.map_or(Instant::NEVER, |at| at.after_ms(UNANSWERED_MS));
        timer.min(delayed).min(given_up).min(self.asks_at())
    }

    /// When to ask an idle peer for a sign of life.
    #[inline]
    fn asks_at(&self) -> Instant {
        let interval = u64::from(self.options.keep_alive_ms);
        if interval == 0 || self.is_waiting() || self.sender.timer.is_some() {
            return Instant::NEVER;
        }
        self.asked.map_or(self.heard.after_ms(interval), |at| at.after_ms(interval.min(PROBE_MS)))
    }

    #[cold]
    fn on_time(&mut self, buffers: &mut Buffers, now: Instant) {
        if self.waiting.is_some_and(|at| at.after_ms(UNANSWERED_MS) <= now) {
            self.owed.reset = (self.phase == Phase::Open).then_some(Reset::Ours);
            return self.end(State::TimedOut);
        }
        if self.asks_at() <= now {
            self.asked = Some(now);
            self.ask(now);
        }
        let Some((timer, _)) = self.sender.timer.filter(|(_, at)| *at <= now) else { return };
        if self.phase != Phase::Open {
            self.owed.syn = true;
            self.sender.wait_longer(timer, now);
        } else if self.sender.on_timer(timer, buffers, now) {
            self.ask(now);
        }
    }

    fn ask(&mut self, now: Instant) {
        self.owed.probe = true;
        self.waiting.get_or_insert(now);
    }

    /// RST, SYN, probes.
    #[inline]
    fn send_strange(&mut self, spec: &EngineSpec, sink: &mut impl Sink, now: Instant) -> bool {
        self.owed == Owed::default() || self.send_owed(spec, sink, now)
    }

    #[cold]
    fn send_owed(&mut self, spec: &EngineSpec, sink: &mut impl Sink, now: Instant) -> bool {
        if let Some(reset) = self.owed.reset {
            let (flags, seq) = match reset {
                Reset::Ours => (RST | ACK, self.sender.nxt),
                Reset::Older(seq) => (RST, seq),
            };
            if !self.send_bare(sink, flags, seq, Options::NONE) {
                return false;
            }
            self.owed.reset = None;
        }
        if self.owed.syn {
            if !self.send_syn(spec, sink, now) {
                return false;
            }
            self.owed.syn = false;
        }
        if self.owed.probe {
            let seq = Seq(self.sender.una.0.wrapping_sub(1));
            if !self.send_bare(sink, ACK, seq, Options::NONE) {
                return false;
            }
            self.owed.probe = false;
        }
        true
    }

    fn send_syn(&mut self, spec: &EngineSpec, sink: &mut impl Sink, now: Instant) -> bool {
        if !sink.has_room() {
            return false;
        }
        let is_answer = self.phase == Phase::Meeting;
        let scale = window_scale(spec.receive_buffer);
        let scale = (!is_answer || self.receiver.scale == scale).then_some(scale);
        let options = Options::of_syn(self.mss, scale, !is_answer || self.receiver.sack);
        let flags = SYN | if is_answer { ACK } else { 0 };
        let ack = if is_answer { self.receiver.expects() } else { Seq(0) };
        let window = spec.receive_buffer.min(usize::from(u16::MAX)) as u16;
        let header = Header { flags, seq: self.sender.una, ack, window, options };
        sink.packet(header.len(&self.ends), None, |packet| _ = header.write(&self.ends, packet));
        self.sender.on_syn_sent(now);
        true
    }

    #[inline]
    fn send_data(&mut self, sink: &mut impl Sink, now: Instant) -> bool {
        if self.over.is_some() || self.phase != Phase::Open {
            return true;
        }
        // What the peer must know of what came early stands in segments without data.
        if self.receiver.has_early() && !self.send_answers(sink, now) {
            return false;
        }
        let most = self.most(sink.largest());
        while let Some(piece) = self.sender.next_piece(most, now) {
            if !sink.has_room() {
                return false;
            }
            self.send_piece(&piece, sink);
            self.sender.on_sent(&piece, now);
        }
        self.sender.persist(now);
        true
    }

    /// The payload of the largest packet that the sink takes, in whole segments.
    #[inline]
    fn most(&self, largest: usize) -> usize {
        let mss = usize::from(self.sender.mss);
        let room = largest.min(usize::from(u16::MAX)).saturating_sub(self.ends.ip_header() + TCP_HEADER);
        (room - room % mss).max(mss)
    }

    #[inline]
    fn send_piece(&mut self, piece: &Piece, sink: &mut impl Sink) {
        self.is_second |= piece.has_fin && !self.sender.is_fin_sent && self.receiver.is_done;
        let flags = ACK | if piece.has_fin { FIN } else { 0 } | if piece.is_last { PSH } else { 0 };
        let window = self.receiver.window(self.mss);
        let ack = self.receiver.expects();
        let header = Header { flags, seq: piece.seq, ack, window, options: Options::NONE };
        let segment = (piece.len > usize::from(self.sender.mss)).then_some(self.sender.mss);
        let offset = piece.seq.ahead_of(self.sender.una);
        sink.packet(header.len(&self.ends) + piece.len, segment, |packet| {
            let payload = header.write(&self.ends, packet);
            if !payload.is_empty() {
                self.sender.ring.copy_to(offset, payload);
            }
        });
        self.receiver.on_sent(window);
    }

    /// Acknowledgements that are owed and no data took along.
    #[inline]
    fn send_answers(&mut self, sink: &mut impl Sink, now: Instant) -> bool {
        if self.over.is_none_or(|state| state == State::TimeWait) && self.phase != Phase::Asking {
            while self.receiver.is_due(self.mss, now) {
                let left = self.receiver.owed.saturating_sub(1);
                let options = self.receiver.blocks();
                if !self.send_bare(sink, ACK, self.sender.nxt, options) {
                    return false;
                }
                self.receiver.owed = left;
            }
        }
        true
    }

    fn send_bare(&mut self, sink: &mut impl Sink, flags: u8, seq: Seq, options: Options) -> bool {
        let has_room = sink.has_room();
        if has_room {
            let window = self.receiver.window(self.mss);
            let has_ack = flags & ACK != 0;
            let ack = if has_ack { self.receiver.expects() } else { Seq(0) };
            let header = Header { flags, seq, ack, window, options };
            sink.packet(header.len(&self.ends), None, |packet| _ = header.write(&self.ends, packet));
            if has_ack {
                self.receiver.on_sent(window);
            }
        }
        has_room
    }
}
