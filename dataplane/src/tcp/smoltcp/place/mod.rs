//! One connection: a smoltcp socket in a set of its own, and what smoltcp does not tell or does otherwise than it should.
//!
//! ```text
//!                    read ──▶│◀─ queue ─▶│                      free ──▶│
//!   what the peer sends ─────┼───────────┼──────────────┼──────────────┼──▶ sequence numbers
//!                           rcv       expects          edge
//! ```
//!
//! smoltcp believes `edge` (what it acknowledged last, and the window with it); `rcv <= expects <= rcv + capacity`.

mod arrive;
mod leave;
mod window;

use std::time::Duration;

use ::smoltcp::iface::{Interface, SocketHandle, SocketSet, SocketStorage};
use ::smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State as SocketState};
use ::smoltcp::time::{Duration as Span, Instant as Moment};
use ::smoltcp::wire::{TcpControl, TcpRepr};

use self::window::Offered;
use super::device::{Inbound, Sent, Small};
use super::segment::{self, Ends, bare};
use crate::clock::Instant;
use crate::tcp::{Agreed, Opening, Options, Passed, State};

/// Room for a connection, and the connection while there is one.
pub(super) struct Place {
    set: SocketSet<'static>,
    pub generation: u32,
    pub is_taken: bool,
    /// How it ended.
    over: Option<State>,
    ends: Ends,
    options: Options,
    /// The most payload of a segment to the peer.
    mss: u16,
    /// The shift of the windows that we announce.
    shift: u8,
    /// The peer's FIN has come.
    has_fin: bool,
    /// The peer has an older connection with these ends, which our RST ends; and our SYN has followed that once.
    meets_older: bool,
    asked_again: bool,
    /// The sequence number of the first byte that was not read.
    rcv: u32,
    sent: Sent,
    offered: Offered,
    /// Closed by the caller; smoltcp has yet to be told.
    closes: bool,
    answer: Option<Small>,
    /// How often the answer is to be sent: duplicates say how many segments came out of order.
    answers: u8,
    owed: Owed,
    heard_at: Instant,
    /// Since when the peer owes an answer.
    asked_at: Option<Instant>,
    /// When the peer was asked for a sign of life.
    probed_at: Option<Instant>,
    challenged_at: Option<Instant>,
}

/// Segments that are the engine's own and wait to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Owed {
    ack: bool,
    probe: bool,
    reset: bool,
}

impl Place {
    pub(super) fn new(receive_buffer: usize, send_buffer: usize) -> Self {
        let mut set = SocketSet::new(vec![SocketStorage::EMPTY]);
        set.add(Socket::new(ring(receive_buffer), ring(send_buffer)));
        Self {
            set,
            generation: 0,
            is_taken: false,
            over: None,
            ends: Ends::new(Default::default(), Default::default()),
            options: Options::default(),
            mss: 0,
            shift: 0,
            has_fin: false,
            meets_older: false,
            asked_again: false,
            rcv: 0,
            sent: Sent::default(),
            offered: Offered::default(),
            closes: false,
            answer: None,
            answers: 0,
            owed: Owed::default(),
            heard_at: Instant::ZERO,
            asked_at: None,
            probed_at: None,
            challenged_at: None,
        }
    }

    /// Forgets the connection before; `mss` is the most that a segment may carry on our side.
    fn open(&mut self, opening: &Opening, mss: u16, now: Instant) {
        self.over = None;
        self.ends = Ends::new(opening.local, opening.remote);
        self.options = opening.options;
        self.mss = mss;
        (self.has_fin, self.shift, self.rcv) = (false, 0, 0);
        (self.meets_older, self.asked_again) = (false, false);
        self.sent = Sent { next: opening.isn, acked: opening.isn, ..Sent::default() };
        (self.offered, self.closes) = (Offered::default(), false);
        (self.answer, self.answers, self.owed) = (None, 0, Owed::default());
        self.heard_at = now;
        (self.asked_at, self.probed_at, self.challenged_at) = (None, None, None);
        let delay = ack_delay(self.options);
        let socket = self.socket_mut();
        socket.abort();
        socket.set_congestion_control(CongestionControl::Cubic);
        socket.set_nagle_enabled(opening.options.nagle);
        socket.set_ack_delay(delay);
    }

    /// Lets the socket go through the peer's handshake again, with segments made up from what was agreed. `interface` is
    /// one that chooses the initial sequence number.
    pub(super) fn accept(
        &mut self,
        opening: &Opening,
        agreed: &Agreed,
        mss: u16,
        interface: &mut Interface,
        now: Instant,
    ) {
        self.open(opening, mss.min(agreed.peer_mss).max(MSS_MIN), now);
        let peer = self.ends.reversed();
        let mut syn = bare(&peer, TcpControl::Syn, agreed.peer_isn, None, 0);
        syn.max_seg_size = Some(self.mss);
        syn.window_scale = agreed.peer_scale.map(|scale| scale.min(14));
        syn.sack_permitted = agreed.sack;
        let local = self.ends.local;
        let is_listening = self.socket_mut().listen(local).is_ok();
        self.synchronize(agreed.peer_isn, agreed.peer_scale.is_some());
        self.feed_made(interface, &syn, now);
        let mut wire = Inbound { packet: None, answer: None };
        interface.poll_egress(moment(now), &mut wire, &mut self.set);
        wire.answer.iter().for_each(|packet| self.sent.on_packet(packet.bytes()));
        let next = self.rcv;
        self.feed_made(interface, &bare(&peer, TcpControl::None, next, Some(self.sent.next), 0), now);
        self.sent.is_shut = true;
        self.offered = Offered::begin(agreed.peer_isn, 0, agreed.peer_scale);
        if !is_listening || self.socket().state() != SocketState::Established {
            self.end(State::Reset);
        }
    }

    /// Begins a connection; `interface` as above.
    pub(super) fn connect(&mut self, opening: &Opening, mss: u16, interface: &mut Interface, now: Instant) {
        self.open(opening, mss, now);
        let Ends { local, remote } = self.ends;
        if self.socket_mut().connect(interface.context(), remote, local).is_err() {
            self.end(State::Reset);
        }
    }

    /// Our initial sequence number where our SYN is to follow the RST at once, not after a second; once.
    pub(super) fn asks_again(&mut self) -> Option<u32> {
        let asks = std::mem::take(&mut self.meets_older) && !std::mem::replace(&mut self.asked_again, true);
        asks.then_some(self.sent.acked)
    }

    /// Begins the same connection again, for its SYN; `interface` is one that chooses the same sequence number.
    pub(super) fn ask_again(&mut self, interface: &mut Interface) {
        let Ends { local, remote } = self.ends;
        self.sent.next = self.sent.acked;
        self.socket_mut().abort();
        if self.socket_mut().connect(interface.context(), remote, local).is_err() {
            self.end(State::Reset);
        }
    }

    /// The peer's initial sequence number is known, and whether windows are scaled.
    fn synchronize(&mut self, peer_isn: u32, is_scaled: bool) {
        self.rcv = peer_isn.wrapping_add(1);
        self.shift = if is_scaled { window_scale(self.socket().recv_capacity()) } else { 0 };
    }

    /// Gives a segment of the peer that is made up, and drops the answer.
    fn feed_made(&mut self, interface: &mut Interface, repr: &TcpRepr<'_>, now: Instant) {
        let peer = self.ends.reversed();
        let mut packet = Small::new(segment::len(&peer, repr));
        segment::emit(&peer, repr, packet.bytes_mut());
        let mut wire = Inbound { packet: Some(packet.bytes()), answer: None };
        interface.poll_ingress_single(moment(now), &mut wire, &mut self.set);
    }

    /// Takes over what smoltcp made of the last event; `closed` is what it means when the connection is gone.
    fn settle(&mut self, closed: State, now: Instant) {
        if self.over.is_some() {
            return;
        }
        let state = self.socket().state();
        use SocketState::{CloseWait, Closed, Closing, LastAck, Listen, TimeWait};
        self.has_fin |= matches!(state, CloseWait | Closing | LastAck | TimeWait);
        match state {
            Closed | Listen => self.end(closed),
            TimeWait if self.answer.is_none() && self.sent.ack == self.expects() => self.end(State::TimeWait),
            _ if self.is_waiting() => _ = self.asked_at.get_or_insert(now),
            _ if self.probed_at.is_none() => self.asked_at = None,
            _ => {}
        }
    }

    pub(super) fn state(&self) -> State {
        match self.over {
            Some(state) => state,
            None if self.is_connecting() => State::Connecting,
            None => State::Open,
        }
    }

    fn is_connecting(&self) -> bool {
        matches!(self.socket().state(), SocketState::SynSent | SocketState::SynReceived)
    }

    /// True until a SYN is answered: it must leave by the interface that knows the MTU.
    pub(super) fn needs_mtu(&self) -> bool {
        self.over.is_none() && self.is_connecting()
    }

    /// True when the peer owes an acknowledgement of something.
    fn is_waiting(&self) -> bool {
        use SocketState::{Closing, FinWait1, LastAck};
        let state = self.socket().state();
        self.is_connecting()
            || matches!(state, FinWait1 | Closing | LastAck)
            || self.socket().send_queue() > 0
    }

    fn end(&mut self, state: State) {
        self.over = Some(state);
        self.closes = false;
        self.socket_mut().abort();
        (self.asked_at, self.probed_at) = (None, None);
        if state != State::TimeWait {
            self.answer = None;
        }
    }

    pub(super) fn readable(&self) -> usize {
        self.socket().recv_queue()
    }

    pub(super) fn read(&mut self, visit: impl FnOnce(&[u8]) -> usize) -> usize {
        if self.readable() == 0 {
            return 0;
        }
        let take = |piece: &mut [u8]| {
            let taken = visit(piece).min(piece.len());
            (taken, taken)
        };
        let taken = self.socket_mut().recv(take).unwrap_or(0);
        self.rcv = self.rcv.wrapping_add(taken as u32);
        taken
    }

    pub(super) fn is_peer_done(&self) -> bool {
        self.has_fin && self.readable() == 0
    }

    pub(super) fn has_peer_closed(&self) -> bool {
        self.has_fin
    }

    pub(super) fn writable(&self) -> usize {
        let socket = self.socket();
        if socket.may_send() && !self.closes { socket.send_capacity() - socket.send_queue() } else { 0 }
    }

    pub(super) fn unacknowledged(&self) -> usize {
        self.socket().send_queue()
    }

    pub(super) fn acknowledged(&self) -> u32 {
        self.sent.acked
    }

    pub(super) fn write(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        if self.writable() == 0 {
            return 0;
        }
        let put = |span: &mut [u8]| {
            let written = fill(span).min(span.len());
            (written, written)
        };
        self.socket_mut().send(put).unwrap_or(0)
    }

    /// One round of [`crate::tcp::Engine::pass`].
    pub(super) fn pass(
        &mut self,
        to: &mut Self,
        step: &mut impl FnMut(&[u8], &mut [u8]) -> Passed,
    ) -> Passed {
        let mut passed = Passed::default();
        if self.readable() == 0 || to.writable() == 0 {
            return passed;
        }
        passed.taken = self.read(|piece| {
            let mut taken = 0;
            passed.written = to.write(|span| {
                let Passed { taken: took, written } = step(piece, span);
                taken = took;
                written
            });
            taken
        });
        passed
    }

    pub(super) fn close(&mut self) {
        if self.over.is_some() {
            return;
        }
        match self.socket().state() {
            SocketState::SynSent => self.end(State::Closed),
            SocketState::SynReceived => {
                self.owed.reset = true;
                self.end(State::Closed);
            }
            _ => {
                self.closes = true;
                self.close_when_it_fits();
            }
        }
    }

    pub(super) fn abort(&mut self) {
        use SocketState::{Closed, SynSent, TimeWait};
        if self.over == Some(State::Aborted) {
            return;
        }
        let is_known = !matches!(self.socket().state(), SynSent | Closed | TimeWait);
        self.owed = Owed { reset: self.over.is_none() && is_known, ..Owed::default() };
        self.end(State::Aborted);
    }

    /// What we send next, and what we expect next.
    pub(super) fn numbers(&self) -> (u32, u32) {
        (self.sent.next, self.expects())
    }

    fn expects(&self) -> u32 {
        self.rcv.wrapping_add(self.readable() as u32).wrapping_add(u32::from(self.has_fin))
    }

    /// The end of the window that smoltcp believes it announced.
    fn edge(&self) -> u32 {
        self.sent.ack.wrapping_add(u32::from(self.sent.window) << self.shift)
    }

    /// The window of a segment of the engine's own: never beyond the edge, nor beyond the buffer, of which smoltcp knows
    /// less after a SYN-ACK, whose window it shifts although it is not scaled.
    fn window(&self) -> u16 {
        let room = self.edge().wrapping_sub(self.expects()) as i32;
        let room = (room.max(0) as usize).min(self.free());
        (room >> self.shift).min(usize::from(u16::MAX)) as u16
    }

    /// Bytes of room for what the peer sends.
    fn free(&self) -> usize {
        self.socket().recv_capacity() - self.socket().recv_queue()
    }

    fn socket(&self) -> &Socket<'static> {
        self.set.get(SocketHandle::default())
    }

    fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.set.get_mut(SocketHandle::default())
    }
}

/// The window scale that smoltcp announces for a buffer: the least that can say its size.
pub(super) fn window_scale(receive_buffer: usize) -> u8 {
    (usize::BITS - receive_buffer.leading_zeros()).saturating_sub(16) as u8
}

fn ring(len: usize) -> SocketBuffer<'static> {
    SocketBuffer::new(vec![0; len])
}

fn ack_delay(options: Options) -> Option<Span> {
    (options.ack_delay_ms > 0).then(|| Span::from_millis(u64::from(options.ack_delay_ms)))
}

fn moment(now: Instant) -> Moment {
    Moment::from_micros((now.as_ns() / 1000) as i64)
}

fn after(at: Instant, ms: u64) -> Instant {
    at + Duration::from_millis(ms)
}

/// What smoltcp takes an MSS that is smaller for.
const MSS_MIN: u16 = 48;
