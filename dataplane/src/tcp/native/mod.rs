//! The project's own engine.
//!
//! ```text
//!   packet ─▶ arrive ─▶ receiver ─▶ ring ─▶ read, pass        (segment: what a packet says)
//!                │                             │
//!                └──▶ sender ◀───── ring ◀── write            (recovery, congestion, rtt: when and how much)
//!                        └────▶ leave ─▶ Sink
//! ```
//!
//! A connection is a few hundred bytes; rings lease memory from a pool while they hold something (`buffer`). RFC 9293 with
//! window scaling (RFC 7323), selective acknowledgements both ways (RFC 2018, 6675), CUBIC (RFC 9438) from ten segments on
//! (RFC 6928), retransmission timeouts from 200 ms (RFC 6298), tail loss probes (RFC 8985 section 7), and RFC 5961. What
//! it has not: timestamps, ECN, pacing.
//!
//! TIME-WAIT: a connection is [`State::TimeWait`] only once the acknowledgement of the peer's FIN has left by
//! [`Engine::transmit`]; [`Engine::numbers`] are final then and the connection may be released.

mod arrive;
mod buffer;
mod congestion;
mod connection;
mod leave;
mod ranges;
mod receiver;
mod recovery;
mod rtt;
mod segment;
mod sender;
mod seq;

use self::buffer::Buffers;
use self::connection::Connection;
use super::{Agreed, Announced, ConnId, Engine, EngineSpec, Full, Opening, Passed, Sink, State};
use crate::clock::Instant;

/// How long the peer may leave something unanswered before a connection is [`State::TimedOut`], in milliseconds: our
/// SYN, data, a FIN, a probe of its closed window, or the question for a sign of life. Every segment of the peer counts
/// as an answer. RFC 9293 section 3.8.3 would wait for 100 s at least; a proxy that waits that long keeps the other side waiting.
pub const UNANSWERED_MS: u64 = 60_000;

/// How often an idle peer that did not answer is asked for a sign of life again, in milliseconds.
pub const PROBE_MS: u64 = 10_000;

/// How often a segment of doubtful origin is answered at most, in milliseconds (RFC 5961 section 7).
pub const CHALLENGE_MS: u64 = 1_000;

/// The connections of one worker.
pub struct Native {
    spec: EngineSpec,
    connections: Vec<Connection>,
    free: Vec<u32>,
    buffers: Buffers,
}

impl Native {
    /// Bytes of the buffers that connections hold now.
    pub fn buffered_bytes(&self) -> usize {
        self.buffers.leased()
    }

    fn connection(&self, id: ConnId) -> Option<&Connection> {
        self.connections.get(id.index as usize).filter(|connection| is_of(connection, id))
    }

    fn connection_mut(&mut self, id: ConnId) -> Option<(&mut Connection, &mut Buffers)> {
        let connection = self.connections.get_mut(id.index as usize);
        connection
            .filter(|connection| is_of(connection, id))
            .map(|connection| (connection, &mut self.buffers))
    }

    /// Puts a connection into a free place; one that was used before sooner than a new one.
    fn put(&mut self, make: impl FnOnce(u32, &EngineSpec) -> Connection) -> Result<ConnId, Full> {
        let Some(index) = self.free.pop() else {
            if self.connections.len() >= self.spec.connections {
                return Err(Full);
            }
            self.connections.push(make(0, &self.spec));
            return Ok(ConnId { index: self.connections.len() as u32 - 1, generation: 0 });
        };
        let place = &mut self.connections[index as usize];
        let generation = place.generation;
        *place = make(generation, &self.spec);
        Ok(ConnId { index, generation })
    }
}

impl Engine for Native {
    /// Buffers have a byte at least and 1 GiB at most, the MTU is 576 at least (RFC 791).
    fn new(mut spec: EngineSpec) -> Self {
        spec.connections = spec.connections.min(u32::MAX as usize);
        spec.receive_buffer = spec.receive_buffer.clamp(1, 1 << 30);
        spec.send_buffer = spec.send_buffer.clamp(1, 1 << 30);
        spec.mtu = spec.mtu.max(MTU_MIN);
        Self {
            spec,
            connections: Vec::with_capacity(spec.connections),
            free: Vec::with_capacity(spec.connections),
            buffers: Buffers::new(spec.receive_buffer.max(spec.send_buffer)),
        }
    }

    fn len(&self) -> usize {
        self.connections.len() - self.free.len()
    }

    fn capacity(&self) -> usize {
        self.spec.connections
    }

    fn set_mtu(&mut self, mtu: u16) {
        self.spec.mtu = mtu.max(MTU_MIN);
    }

    fn announced(&self) -> Announced {
        let window = self.spec.receive_buffer.min(usize::from(u16::MAX)) as u16;
        Announced { window, scale: window_scale(self.spec.receive_buffer), sack: true }
    }

    fn accept(&mut self, opening: &Opening, agreed: &Agreed, now: Instant) -> Result<ConnId, Full> {
        self.put(|generation, spec| Connection::accepted(generation, spec, opening, agreed, now))
    }

    /// As [`Engine::connect`]. Towards port 0, the unspecified address or another family it is [`State::Reset`] at once.
    fn connect(&mut self, opening: &Opening, now: Instant) -> Result<ConnId, Full> {
        self.put(|generation, spec| Connection::connecting(generation, spec, opening, now))
    }

    fn receive(&mut self, id: ConnId, packet: &[u8], now: Instant) {
        let spec = self.spec;
        if let Some((connection, buffers)) = self.connection_mut(id) {
            connection.receive(&spec, packet, buffers, now);
        }
    }

    fn transmit(&mut self, id: ConnId, sink: &mut impl Sink, now: Instant) -> bool {
        let spec = self.spec;
        let Some((connection, buffers)) = self.connection_mut(id) else { return false };
        !connection.transmit(&spec, sink, buffers, now)
    }

    fn has_output(&self, id: ConnId, now: Instant) -> bool {
        self.connection(id).is_some_and(|connection| connection.has_output(now))
    }

    fn due(&mut self, id: ConnId, now: Instant) -> Option<Instant> {
        self.connection(id)?.due(now)
    }

    fn state(&self, id: ConnId) -> State {
        self.connection(id).map_or(State::Closed, Connection::state)
    }

    fn readable(&self, id: ConnId) -> usize {
        self.connection(id).map_or(0, |connection| connection.receiver.ring.len())
    }

    fn read(&mut self, id: ConnId, visit: impl FnOnce(&[u8]) -> usize) -> usize {
        self.connection_mut(id).map_or(0, |(connection, buffers)| connection.read(buffers, visit))
    }

    fn is_peer_done(&self, id: ConnId) -> bool {
        self.has_peer_closed(id) && self.readable(id) == 0
    }

    fn has_peer_closed(&self, id: ConnId) -> bool {
        self.connection(id).is_some_and(|connection| connection.receiver.is_done)
    }

    fn writable(&self, id: ConnId) -> usize {
        self.connection(id).map_or(0, Connection::writable)
    }

    fn unacknowledged(&self, id: ConnId) -> usize {
        self.connection(id).map_or(0, |connection| connection.sender.ring.len())
    }

    fn acknowledged(&self, id: ConnId) -> u32 {
        self.connection(id).map_or(0, |connection| connection.sender.una.0)
    }

    fn write(&mut self, id: ConnId, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        self.connection_mut(id).map_or(0, |(connection, buffers)| connection.write(1, buffers, fill))
    }

    fn send(&mut self, id: ConnId, data: &[u8]) -> usize {
        let Some((connection, buffers)) = self.connection_mut(id) else { return 0 };
        let mut sent = 0;
        while sent < data.len() {
            let rest = &data[sent..];
            let wrote = connection.write(rest.len(), buffers, |span| {
                let len = span.len().min(rest.len());
                span[..len].copy_from_slice(&rest[..len]);
                len
            });
            if wrote == 0 {
                break;
            }
            sent += wrote;
        }
        sent
    }

    /// As [`Engine::pass`]; nothing passes from a connection to itself.
    fn pass(&mut self, from: ConnId, to: ConnId, mut step: impl FnMut(&[u8], &mut [u8]) -> Passed) -> Passed {
        let mut sum = Passed::default();
        let indices = [from.index as usize, to.index as usize];
        let Ok([source, target]) = self.connections.get_disjoint_mut(indices) else { return sum };
        if !is_of(source, from) || !is_of(target, to) {
            return sum;
        }
        loop {
            let passed = source.pass(target, &mut self.buffers, &mut step);
            if passed == Passed::default() {
                return sum;
            }
            sum.taken += passed.taken;
            sum.written += passed.written;
        }
    }

    fn close(&mut self, id: ConnId) {
        self.connection_mut(id).into_iter().for_each(|(connection, _)| connection.close());
    }

    fn abort(&mut self, id: ConnId) {
        self.connection_mut(id).into_iter().for_each(|(connection, _)| connection.abort());
    }

    fn numbers(&self, id: ConnId) -> (u32, u32) {
        let of = |connection: &Connection| (connection.sender.nxt.0, connection.receiver.expects().0);
        self.connection(id).map_or((0, 0), of)
    }

    fn release(&mut self, id: ConnId) {
        if let Some((connection, buffers)) = self.connection_mut(id) {
            connection.clear(buffers);
            connection.is_taken = false;
            connection.generation = connection.generation.wrapping_add(1);
            self.free.push(id.index);
        }
    }
}

fn is_of(connection: &Connection, id: ConnId) -> bool {
    connection.is_taken && connection.generation == id.generation
}

/// The least window scale that can say the size of a buffer (RFC 7323 section 2.2), or nearly so.
fn window_scale(receive_buffer: usize) -> u8 {
    ((usize::BITS - receive_buffer.leading_zeros()).saturating_sub(16) as u8).min(SCALE_MAX)
}

/// RFC 791 section 3.1: what every host takes.
const MTU_MIN: u16 = 576;
/// RFC 7323 section 2.3.
const SCALE_MAX: u8 = 14;
