//! The engine on smoltcp: one `Interface` for all and one socket in a set of its own for each connection, so that nothing
//! is O(n).
//!
//! ```text
//!   ConnId ─▶ Place ─▶ SocketSet of one ─▶ Socket, two rings          (place: a connection, and RFC 5961, timeouts, TIME-WAIT)
//!                          ▲
//!   packet ─▶ Inbound ─▶ Interface ─▶ Outbound ─▶ Sink                (device)
//! ```
//!
//! smoltcp is as published. What it does not offer is made here: initial sequence numbers of our choice (`seed`),
//! handshakes that somebody else led, resets by exact sequence number, windows that no old segment changes
//! (`place/window`), keep-alive that gives up, and an end that says why. What stays: an initial window of 2 KiB, a
//! retransmission timeout of 1 s at least, and no use of the peer's selective acknowledgements; and a peer that does not
//! close its direction after we closed ours is waited for as long as the caller likes.
//!
//! TIME-WAIT: a connection is [`State::TimeWait`] only once the acknowledgement of the peer's FIN has left by
//! [`Engine::transmit`]; [`Engine::numbers`] are final then and the connection may be released.

mod device;
mod place;
mod seed;
mod segment;

use ::smoltcp::iface::Interface;

use self::device::interface;
use self::place::Place;
use super::{Agreed, Announced, ConnId, Engine, EngineSpec, Full, Opening, Passed, Sink, State};
use crate::clock::Instant;

/// How long the peer may leave something unanswered before a connection is [`State::TimedOut`], in milliseconds: our
/// SYN, data, a FIN, a probe of its closed window, or the question for a sign of life. Every segment of the peer counts
/// as an answer. RFC 9293 section 3.8.3 would wait for 100 s at least; a proxy that waits that long keeps the other side waiting.
pub const UNANSWERED_MS: u64 = 60_000;

/// How often an idle peer that did not answer is asked for a sign of life again, in milliseconds.
pub const PROBE_MS: u64 = 10_000;

/// How often a peer is asked for its window, in milliseconds: while it is closed, beside smoltcp's own probes, and while
/// data or our FIN waits and smoltcp waits for nothing.
pub const STALLED_MS: u64 = 2_000;

/// How often a segment of doubtful origin is answered at most, in milliseconds (RFC 5961 section 7).
pub const CHALLENGE_MS: u64 = 1_000;

/// The connections of one worker.
pub struct Smoltcp {
    spec: EngineSpec,
    places: Vec<Place>,
    free: Vec<u32>,
    /// Sends segments.
    plain: Interface,
    /// Sends packets of up to `largest` bytes.
    large: Interface,
    largest: usize,
    /// Room for a packet whose window is not to be believed.
    scratch: Box<[u8]>,
}

impl Smoltcp {
    fn place(&self, id: ConnId) -> Option<&Place> {
        self.places.get(id.index as usize).filter(|place| is_of(place, id))
    }

    fn place_mut(&mut self, id: ConnId) -> Option<&mut Place> {
        self.places.get_mut(id.index as usize).filter(|place| is_of(place, id))
    }

    /// A free place; one that was used before sooner than a new one.
    fn take(&mut self) -> Result<ConnId, Full> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.places.len() < self.spec.connections => {
                self.places.push(Place::new(self.spec.receive_buffer, self.spec.send_buffer));
                self.places.len() as u32 - 1
            }
            None => return Err(Full),
        };
        let place = &mut self.places[index as usize];
        place.is_taken = true;
        Ok(ConnId { index, generation: place.generation })
    }

    fn mtu(&self) -> usize {
        usize::from(self.spec.mtu)
    }

    /// The most payload of a segment that we send or receive.
    fn mss(&self, opening: &Opening) -> u16 {
        self.spec.mtu - if opening.local.0.is_v4() { 40 } else { 60 }
    }
}

impl Engine for Smoltcp {
    /// Buffers have a byte at least and 1 GiB at most, the MTU is 576 at least (RFC 791).
    fn new(mut spec: EngineSpec) -> Self {
        spec.connections = spec.connections.min(u32::MAX as usize);
        spec.receive_buffer = spec.receive_buffer.clamp(1, 1 << 30);
        spec.send_buffer = spec.send_buffer.clamp(1, 1 << 30);
        spec.mtu = spec.mtu.max(576);
        let mtu = usize::from(spec.mtu);
        Self {
            spec,
            places: Vec::with_capacity(spec.connections),
            free: Vec::with_capacity(spec.connections),
            plain: interface(mtu, 0, 0),
            large: interface(mtu, 0, 0),
            largest: 0,
            scratch: vec![0; segment::LARGEST].into(),
        }
    }

    fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    fn capacity(&self) -> usize {
        self.spec.connections
    }

    /// Open connections send smaller segments too; none gets larger ones.
    fn set_mtu(&mut self, mtu: u16) {
        self.spec.mtu = mtu.max(576);
        self.plain = interface(self.mtu(), 0, 0);
        self.large = interface(self.mtu(), 0, 0);
        self.largest = 0;
    }

    fn announced(&self) -> Announced {
        let window = self.spec.receive_buffer.min(usize::from(u16::MAX)) as u16;
        Announced { window, scale: place::window_scale(self.spec.receive_buffer), sack: true }
    }

    fn accept(&mut self, opening: &Opening, agreed: &Agreed, now: Instant) -> Result<ConnId, Full> {
        let id = self.take()?;
        let mut first = interface(self.mtu(), 0, seed::seed_for(opening.isn));
        let mss = self.mss(opening);
        self.places[id.index as usize].accept(opening, agreed, mss, &mut first, now);
        Ok(id)
    }

    /// As [`Engine::connect`]. Towards port 0, the unspecified address or another family it is [`State::Reset`] at once.
    fn connect(&mut self, opening: &Opening, now: Instant) -> Result<ConnId, Full> {
        let id = self.take()?;
        let mut first = interface(self.mtu(), 0, seed::seed_for(opening.isn));
        let mss = self.mss(opening);
        self.places[id.index as usize].connect(opening, mss, &mut first, now);
        Ok(id)
    }

    fn receive(&mut self, id: ConnId, packet: &[u8], now: Instant) {
        let Some(place) = self.places.get_mut(id.index as usize).filter(|place| is_of(place, id)) else {
            return;
        };
        place.receive(&mut self.plain, &mut self.scratch, packet, now);
        if let Some(isn) = place.asks_again() {
            place.ask_again(&mut interface(usize::from(self.spec.mtu), 0, seed::seed_for(isn)));
        }
    }

    fn transmit(&mut self, id: ConnId, sink: &mut impl Sink, now: Instant) -> bool {
        let (mtu, largest) = (self.mtu(), sink.largest().min(usize::from(u16::MAX)));
        if largest > mtu && largest != self.largest {
            self.large = interface(mtu, largest, 0);
            self.largest = largest;
        }
        let Some(place) = self.places.get_mut(id.index as usize).filter(|place| is_of(place, id)) else {
            return false;
        };
        let is_plain = largest <= mtu || place.needs_mtu();
        let interface = if is_plain { &mut self.plain } else { &mut self.large };
        let is_done = place.transmit(interface, sink, now);
        !is_done && place.due(&mut self.plain, now).is_some_and(|due| due <= now)
    }

    /// smoltcp tells by sending only.
    fn has_output(&self, _: ConnId, _: Instant) -> bool {
        true
    }

    fn due(&mut self, id: ConnId, now: Instant) -> Option<Instant> {
        let place = self.places.get_mut(id.index as usize).filter(|place| is_of(place, id))?;
        place.due(&mut self.plain, now)
    }

    fn state(&self, id: ConnId) -> State {
        self.place(id).map_or(State::Closed, Place::state)
    }

    fn readable(&self, id: ConnId) -> usize {
        self.place(id).map_or(0, Place::readable)
    }

    fn read(&mut self, id: ConnId, visit: impl FnOnce(&[u8]) -> usize) -> usize {
        self.place_mut(id).map_or(0, |place| place.read(visit))
    }

    fn is_peer_done(&self, id: ConnId) -> bool {
        self.place(id).is_some_and(Place::is_peer_done)
    }

    fn has_peer_closed(&self, id: ConnId) -> bool {
        self.place(id).is_some_and(Place::has_peer_closed)
    }

    fn writable(&self, id: ConnId) -> usize {
        self.place(id).map_or(0, Place::writable)
    }

    fn unacknowledged(&self, id: ConnId) -> usize {
        self.place(id).map_or(0, Place::unacknowledged)
    }

    fn acknowledged(&self, id: ConnId) -> u32 {
        self.place(id).map_or(0, Place::acknowledged)
    }

    fn write(&mut self, id: ConnId, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        self.place_mut(id).map_or(0, |place| place.write(fill))
    }

    /// As [`Engine::pass`]; nothing passes from a connection to itself.
    fn pass(&mut self, from: ConnId, to: ConnId, mut step: impl FnMut(&[u8], &mut [u8]) -> Passed) -> Passed {
        let mut sum = Passed::default();
        let indices = [from.index as usize, to.index as usize];
        let Ok([source, target]) = self.places.get_disjoint_mut(indices) else { return sum };
        if !is_of(source, from) || !is_of(target, to) {
            return sum;
        }
        loop {
            let passed = source.pass(target, &mut step);
            if passed == Passed::default() {
                return sum;
            }
            sum.taken += passed.taken;
            sum.written += passed.written;
        }
    }

    fn close(&mut self, id: ConnId) {
        self.place_mut(id).into_iter().for_each(Place::close);
    }

    fn abort(&mut self, id: ConnId) {
        self.place_mut(id).into_iter().for_each(Place::abort);
    }

    fn numbers(&self, id: ConnId) -> (u32, u32) {
        self.place(id).map_or((0, 0), Place::numbers)
    }

    fn release(&mut self, id: ConnId) {
        if let Some(place) = self.place_mut(id) {
            place.is_taken = false;
            place.generation = place.generation.wrapping_add(1);
            self.free.push(id.index);
        }
    }
}

fn is_of(place: &Place, id: ConnId) -> bool {
    place.is_taken && place.generation == id.generation
}
