//! One connection: its two halves, how it begins and how it ends.
//!
//! ```text
//!   connect ─▶ Asking ──SYN-ACK──▶ Open ──both FINs acknowledged──▶ over: TimeWait | Closed
//!                │ SYN              ▲
//!                └──▶ Meeting ──ACK─┘        accept ─▶ Open         RST, timeout, abort ─▶ over
//! ```

use std::time::Duration;

use super::buffer::Buffers;
use super::receiver::Receiver;
use super::segment::{Ends, Segment};
use super::sender::Sender;
use super::seq::Seq;
use super::{CHALLENGE_MS, SCALE_MAX, window_scale};
use crate::clock::Instant;
use crate::tcp::handshake::Syn;
use crate::tcp::{Agreed, EngineSpec, Opening, Options, Passed, State};

/// A connection, or a place for one.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) generation: u32,
    pub(super) is_taken: bool,
    pub(super) phase: Phase,
    /// How it ended.
    pub(super) over: Option<State>,
    pub(super) owed: Owed,
    /// Both sides have closed, we after the peer.
    pub(super) is_second: bool,
    /// Our SYN was sent again behind the RST that ended an older connection of these ends.
    pub(super) asked_again: bool,
    pub(super) ends: Ends,
    pub(super) options: Options,
    /// The largest payload of a segment that we take.
    pub(super) mss: u16,
    pub(super) receiver: Receiver,
    pub(super) sender: Sender,
    /// Bytes that may wait to be acknowledged.
    send_buffer: usize,
    /// When the peer last said something.
    pub(super) heard: Instant,
    /// Since when it has left something unanswered.
    pub(super) waiting: Option<Instant>,
    /// When it was last asked for a sign of life.
    pub(super) asked: Option<Instant>,
    challenged: Option<Instant>,
}

/// How far a connection is, while it is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// SYN-SENT.
    Asking,
    /// SYN-RECEIVED, after both sides asked.
    Meeting,
    /// Synchronized.
    Open,
}

/// Segments to be sent that are neither data nor acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Owed {
    pub syn: bool,
    /// What the peer has had already, so that it must answer.
    pub probe: bool,
    pub reset: Option<Reset>,
}

/// The RST of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reset {
    /// Ends this one.
    Ours,
    /// Ends an older one with these ends, which expects this number.
    Older(Seq),
}

impl Connection {
    /// A connection whose SYN is to be sent.
    pub(super) fn connecting(generation: u32, spec: &EngineSpec, opening: &Opening, now: Instant) -> Self {
        let Opening { local, remote, isn, options } = *opening;
        let ends = Ends { local, remote };
        let mss = spec.mtu - if local.0.is_v4() { 40 } else { 60 };
        Self {
            generation,
            is_taken: true,
            phase: Phase::Asking,
            over: (!ends.are_possible()).then_some(State::Reset),
            owed: Owed { syn: true, ..Owed::default() },
            is_second: false,
            asked_again: false,
            ends,
            options,
            mss,
            receiver: Receiver::new(Seq(0), spec.receive_buffer),
            sender: Sender::new(Seq(isn), mss, options.nagle, now),
            send_buffer: spec.send_buffer,
            heard: now,
            waiting: None,
            asked: None,
            challenged: None,
        }
    }

    /// A connection whose handshake was led by somebody else.
    pub(super) fn accepted(
        generation: u32,
        spec: &EngineSpec,
        opening: &Opening,
        agreed: &Agreed,
        now: Instant,
    ) -> Self {
        let mut this = Self::connecting(generation, spec, opening, now);
        let Agreed { peer_isn, peer_mss, peer_scale, sack } = *agreed;
        this.synchronize(spec, Seq(peer_isn), 0, peer_mss, peer_scale, sack);
        (this.sender.una, this.sender.nxt) = (this.sender.una + 1, this.sender.una + 1);
        (this.phase, this.owed.syn) = (Phase::Open, false);
        this
    }

    /// The peer's SYN, or SYN-ACK.
    pub(super) fn hear_syn(&mut self, spec: &EngineSpec, segment: &Segment<'_>) {
        let syn = Syn::read(segment.header, self.ends.local.0.is_v4());
        self.synchronize(spec, segment.seq, segment.window, syn.mss, syn.scale, syn.sack);
    }

    fn synchronize(
        &mut self,
        spec: &EngineSpec,
        peer_isn: Seq,
        window: u16,
        peer_mss: u16,
        peer_scale: Option<u8>,
        sack: bool,
    ) {
        self.receiver = Receiver::new(peer_isn + 1, spec.receive_buffer);
        self.receiver.sack = sack;
        self.receiver.scale = peer_scale.map_or(0, |_| window_scale(spec.receive_buffer));
        let scale = peer_scale.unwrap_or(0).min(SCALE_MAX);
        self.sender.synchronize(peer_isn, window, self.mss.min(peer_mss).max(MSS_MIN), scale);
    }

    pub(super) fn state(&self) -> State {
        match (self.over, self.phase) {
            (Some(state), _) => state,
            (None, Phase::Open) => State::Open,
            (None, _) => State::Connecting,
        }
    }

    /// It is over; nothing is sent any more but what is owed.
    pub(super) fn end(&mut self, state: State) {
        self.over = Some(state);
        self.owed = Owed { reset: self.owed.reset, ..Owed::default() };
        self.sender.timer = None;
        (self.waiting, self.asked) = (None, None);
        if state != State::TimeWait {
            (self.receiver.owed, self.receiver.delayed) = (0, None);
        }
    }

    /// Looks whether both sides have closed and know it. TIME-WAIT begins when the last acknowledgement has left.
    #[inline]
    pub(super) fn settle(&mut self) {
        if self.over.is_some() || !self.sender.is_fin_acked || !self.receiver.is_done {
            return;
        }
        if self.is_second {
            self.end(State::Closed);
        } else if self.receiver.is_acknowledged() {
            self.end(State::TimeWait);
        }
    }

    /// True when the peer owes an acknowledgement of something.
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        self.phase != Phase::Open || self.sender.underway() > 0
    }

    /// An acknowledgement is owed, at most once in [`CHALLENGE_MS`] (RFC 5961 section 7).
    #[cold]
    pub(super) fn challenge(&mut self, now: Instant) {
        let pause = Duration::from_millis(CHALLENGE_MS);
        if self.challenged.is_none_or(|at| now.since(at) >= pause) {
            self.challenged = Some(now);
            self.receiver.owe(1);
        }
    }

    #[inline]
    pub(super) fn read(&mut self, buffers: &mut Buffers, visit: impl FnOnce(&[u8]) -> usize) -> usize {
        if self.receiver.ring.len() == 0 {
            return 0;
        }
        let piece = self.receiver.ring.piece(0);
        let taken = visit(piece).min(piece.len());
        self.receiver.ring.consume(taken);
        self.receiver.rest(buffers);
        taken
    }

    #[inline]
    pub(super) fn writable(&self) -> usize {
        let may_write = self.over.is_none() && self.phase == Phase::Open && !self.sender.is_closing;
        if may_write { self.send_buffer - self.sender.ring.len() } else { 0 }
    }

    /// As [`crate::tcp::Engine::write`], with a buffer for `wanted` bytes, or as many as there may be.
    #[inline]
    pub(super) fn write(
        &mut self,
        wanted: usize,
        buffers: &mut Buffers,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> usize {
        let room = self.writable();
        if room == 0 {
            return 0;
        }
        let ring = &mut self.sender.ring;
        ring.reserve(ring.len() + wanted.clamp(1, room), buffers);
        let span = ring.span(self.send_buffer);
        let len = span.len();
        let written = fill(span).min(len);
        ring.extend(written);
        ring.rest(buffers);
        written
    }

    /// One round of [`crate::tcp::Engine::pass`].
    #[inline]
    pub(super) fn pass(
        &mut self,
        to: &mut Self,
        buffers: &mut Buffers,
        step: &mut impl FnMut(&[u8], &mut [u8]) -> Passed,
    ) -> Passed {
        let mut passed = Passed::default();
        if self.receiver.ring.len() == 0 {
            return passed;
        }
        let piece = self.receiver.ring.piece(0);
        passed.written = to.write(piece.len(), buffers, |span| {
            let done = step(piece, span);
            passed.taken = done.taken.min(piece.len());
            done.written
        });
        self.receiver.ring.consume(passed.taken);
        self.receiver.rest(buffers);
        passed
    }

    /// No more is written. What was never open ends silently, what the peer has asked for with a RST.
    pub(super) fn close(&mut self) {
        match (self.over, self.phase) {
            (Some(_), _) => {}
            (None, Phase::Asking) => self.end(State::Closed),
            (None, Phase::Meeting) => {
                self.owed.reset = Some(Reset::Ours);
                self.end(State::Closed);
            }
            (None, Phase::Open) => self.sender.is_closing = true,
        }
    }

    pub(super) fn abort(&mut self) {
        if self.over == Some(State::Aborted) {
            return;
        }
        let is_known = self.over.is_none() && self.phase != Phase::Asking;
        self.owed.reset = is_known.then_some(Reset::Ours);
        self.end(State::Aborted);
    }

    /// Gives its buffers back.
    pub(super) fn clear(&mut self, buffers: &mut Buffers) {
        self.receiver.clear(buffers);
        self.sender.clear(buffers);
    }
}

/// A smaller MSS would make a segment of every few bytes.
const MSS_MIN: u16 = 48;
