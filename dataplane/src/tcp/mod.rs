//! TCP connections that end here: the boundary that every TCP engine keeps to.
//!
//! ```text
//!   SYN ─▶ handshake (small entries, cookies) ─▶ ACK ─▶ Engine::accept ─▶ ConnId
//!   IP packet ─▶ Engine::receive ─┐                         ┌─▶ Engine::transmit ─▶ IP packets
//!                                 ├─ read, write, pass, … ──┤
//!   timer ─▶ (Engine::due) ───────┘                         └─▶ Engine::state
//!   TIME-WAIT ─▶ time_wait (a few bytes)
//! ```
//!
//! An engine knows sequence numbers, windows, retransmission and buffers of a connection, and nothing of flows, link
//! addresses, timers or other connections: its caller finds the connection of a packet, calls [`Engine::transmit`]
//! after it has done something with one, and asks [`Engine::due`] when to come again. Time is an argument. Handshakes of
//! clients and TIME-WAIT are not the engine's.

pub mod handshake;
pub mod isn;
pub mod native;
mod places;
pub mod smoltcp;
pub mod time_wait;

use crate::address::Address;
use crate::clock::Instant;

/// The engine that this build has.
#[cfg(not(feature = "smoltcp-engine"))]
pub type TcpEngine = native::Native;
/// The engine that this build has.
#[cfg(feature = "smoltcp-engine")]
pub type TcpEngine = smoltcp::Smoltcp;

/// A connection of an engine. Never names another one later: the generation changes when a place is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// Its place, below [`EngineSpec::connections`].
    pub index: u32,
    /// How often the place was used.
    pub generation: u32,
}

/// What an engine is made of.
#[derive(Debug, Clone, Copy)]
pub struct EngineSpec {
    /// Connections at once.
    pub connections: usize,
    /// Bytes that a connection may hold of what has come and is not read.
    pub receive_buffer: usize,
    /// Bytes that a connection may hold of what is to be sent or not acknowledged.
    pub send_buffer: usize,
    /// The largest IP packet of any port, bytes; the smallest of the ports' when they differ.
    pub mtu: u16,
}

/// The two ends of a connection, and what it begins with.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    /// Our address and port.
    pub local: (Address, u16),
    /// The peer's.
    pub remote: (Address, u16),
    /// Our initial sequence number ([`isn`]).
    pub isn: u32,
    /// The operator's choices.
    pub options: Options,
}

/// What an operator may choose for the connections of one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Small segments wait for acknowledgements (RFC 9293 section 3.7.4).
    pub nagle: bool,
    /// An idle connection's peer is asked for a sign of life this often, in milliseconds; 0 for never.
    pub keep_alive_ms: u32,
    /// An acknowledgement waits this long for data to go with, in milliseconds; 0 for not at all.
    pub ack_delay_ms: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { nagle: false, keep_alive_ms: 1_800_000, ack_delay_ms: 10 }
    }
}

/// What both sides said in a handshake that somebody else led.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// The peer's initial sequence number.
    pub peer_isn: u32,
    /// The largest segment that the peer takes, bytes of payload.
    pub peer_mss: u16,
    /// The peer's window scale, where it announced one and so did we (RFC 7323 section 2).
    pub peer_scale: Option<u8>,
    /// Both sides permit selective acknowledgements.
    pub sack: bool,
}

/// What this engine says in a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// The window of a SYN or SYN-ACK, unscaled.
    pub window: u16,
    /// The window scale.
    pub scale: u8,
    /// The engine sends selective acknowledgements.
    pub sack: bool,
}

/// How a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Our SYN is not answered yet.
    Connecting,
    /// Open in both directions, as far as TCP knows; the peer may have closed its direction
    /// ([`Engine::is_peer_done`]) or we ours.
    Open,
    /// Both directions are closed and all is acknowledged, but late segments of the peer may come: this side closed
    /// first (RFC 9293 section 3.3.2, TIME-WAIT).
    TimeWait,
    /// Both directions are closed and all is acknowledged.
    Closed,
    /// The peer has reset it, or refused it while it was [`State::Connecting`].
    Reset,
    /// The engine gave up: nobody answered what was sent.
    TimedOut,
    /// [`Engine::abort`] was called.
    Aborted,
}

impl State {
    /// True when nothing more will be sent or received but what TIME-WAIT answers.
    pub const fn is_over(self) -> bool {
        !matches!(self, State::Connecting | State::Open)
    }
}

/// As many connections as the engine holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("as many TCP connections as there may be")]
pub struct Full;

/// Takes the IP packets that an engine sends.
pub trait Sink {
    /// True when it can take another packet now.
    fn has_room(&mut self) -> bool;

    /// The largest IP packet that it takes in one piece, to be cut into segments later (TSO), bytes; 0 when the engine
    /// must cut itself.
    fn largest(&self) -> usize;

    /// Room for an IP packet of `len` bytes. `fill` writes all of it, from the IP header on, its TCP checksum zero and
    /// to be finished by the sink. With `segment` it is larger than a segment and stands for several, of so many bytes
    /// of payload each.
    fn packet(&mut self, len: usize, segment: Option<u16>, fill: impl FnOnce(&mut [u8]));
}

/// What [`Engine::pass`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// Bytes of input that are done with.
    pub taken: usize,
    /// Bytes of output.
    pub written: usize,
}

/// The connections of one worker. No call allocates once a connection's buffers stand; every call is O(1) in the number of
/// connections. A `ConnId` that was released is an empty connection in state [`State::Closed`] to every call.
pub trait Engine {
    /// An engine without connections. Buffers are taken when a place is first used and kept for the next.
    fn new(spec: EngineSpec) -> Self;

    /// Connections now.
    fn len(&self) -> usize;

    /// True when there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Connections at most.
    fn capacity(&self) -> usize;

    /// Another [`EngineSpec::mtu`], for connections that are opened from now on.
    fn set_mtu(&mut self, mtu: u16);

    /// What the engine says in handshakes.
    fn announced(&self) -> Announced;

    /// A connection whose handshake a peer began and completed: it is [`State::Open`], nothing is sent or received, and
    /// the segment that completed the handshake is still to be given to [`Engine::receive`].
    ///
    /// # Errors
    /// [`Full`].
    fn accept(&mut self, opening: &Opening, agreed: &Agreed, now: Instant) -> Result<ConnId, Full>;

    /// A connection to a peer; [`Engine::transmit`] sends its SYN.
    ///
    /// # Errors
    /// [`Full`].
    fn connect(&mut self, opening: &Opening, now: Instant) -> Result<ConnId, Full>;

    /// An IP packet of the connection, from the IP header on, without link padding; its headers are well-formed and its
    /// checksums right. May be larger than a segment.
    fn receive(&mut self, id: ConnId, packet: &[u8], now: Instant);

    /// Sends what is to be sent, as long as the sink has room. True when the sink had no more room and there may be more.
    fn transmit(&mut self, id: ConnId, sink: &mut impl Sink, now: Instant) -> bool;

    /// False when [`Engine::transmit`] would send nothing now; true when it might.
    fn has_output(&self, id: ConnId, now: Instant) -> bool;

    /// When [`Engine::transmit`] is to be called again though nothing happens; `None` for never. Not before a packet,
    /// a write, a read or a close changes it.
    fn due(&mut self, id: ConnId, now: Instant) -> Option<Instant>;

    /// How it stands.
    fn state(&self, id: ConnId) -> State;

    /// Bytes that wait to be read.
    fn readable(&self, id: ConnId) -> usize;

    /// Shows the longest piece of what waits; `visit` says how many bytes of it are done with. Returns that.
    fn read(&mut self, id: ConnId, visit: impl FnOnce(&[u8]) -> usize) -> usize;

    /// True when the peer has closed its direction and everything before that was read.
    fn is_peer_done(&self, id: ConnId) -> bool;

    /// True when the peer has closed its direction: what waits to be read now is all that there will be.
    fn has_peer_closed(&self, id: ConnId) -> bool;

    /// Bytes that may be written now; 0 after [`Engine::close`].
    fn writable(&self, id: ConnId) -> usize;

    /// Bytes written that are not acknowledged.
    fn unacknowledged(&self, id: ConnId) -> usize;

    /// The sequence number that the peer has acknowledged everything before.
    fn acknowledged(&self, id: ConnId) -> u32;

    /// Gives the longest free span; `fill` says how many of its bytes it wrote. Returns that.
    fn write(&mut self, id: ConnId, fill: impl FnOnce(&mut [u8]) -> usize) -> usize;

    /// Copies as much of `data` as there is room for; returns how much.
    fn send(&mut self, id: ConnId, data: &[u8]) -> usize {
        let mut sent = 0;
        while sent < data.len() {
            let wrote = self.write(id, |span| {
                let len = span.len().min(data.len() - sent);
                span[..len].copy_from_slice(&data[sent..sent + len]);
                len
            });
            if wrote == 0 {
                break;
            }
            sent += wrote;
        }
        sent
    }

    /// Lets `step` turn what waits in `from` into what is to be sent by `to`: each time it gets the longest piece of the
    /// one and the longest free span of the other, and says what it took and wrote. Repeats until it does neither, or one
    /// side has nothing left. Returns the sums.
    fn pass(&mut self, from: ConnId, to: ConnId, step: impl FnMut(&[u8], &mut [u8]) -> Passed) -> Passed;

    /// No more will be written; a FIN follows what is.
    fn close(&mut self, id: ConnId);

    /// Ends it at once: [`Engine::transmit`] sends a RST where the peer may know of the connection. State
    /// [`State::Aborted`] from now on.
    fn abort(&mut self, id: ConnId);

    /// Sequence numbers for TIME-WAIT: what we send next, what we expect next.
    fn numbers(&self, id: ConnId) -> (u32, u32);

    /// Forgets it; nothing is sent.
    fn release(&mut self, id: ConnId);
}
