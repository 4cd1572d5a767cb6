//! The engines that are tested, and what is true of one and not of the other.

use sluice_dataplane::clock::Instant;
use sluice_dataplane::tcp::native::{self, Native};
use sluice_dataplane::tcp::smoltcp::{self, Smoltcp};
use sluice_dataplane::tcp::{
    Agreed, Announced, ConnId, Engine, EngineSpec, Full, Opening, Passed, Sink, State,
};

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Smoltcp,
    Native,
}

/// Who connects, and who accepts.
pub type Pair = [Kind; 2];

/// Where engines may differ.
#[derive(Debug)]
pub struct Facts {
    /// A peer that leaves something unanswered is given up after so long.
    pub unanswered_ms: u64,
    /// A peer that does not answer keep-alive is asked again after so long.
    pub probe_ms: u64,
    /// No retransmission timer is shorter (RFC 6298 section 2.4).
    pub rto_min_ms: u64,
    /// Bytes that may be underway before anything is acknowledged, by the segment's size.
    pub initial_window: fn(usize) -> usize,
    /// Blocks that an acknowledgement carries at most (RFC 2018 section 3).
    pub blocks_max: usize,
    /// Pieces that came too early and are kept.
    pub ranges: usize,
    /// Segments that are not full although there is enough to send, in a transfer of a megabyte: where a ring's end is.
    pub short_segments: usize,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Smoltcp, Self::Native];

    pub const fn facts(self) -> &'static Facts {
        match self {
            Self::Smoltcp => &Facts {
                unanswered_ms: smoltcp::UNANSWERED_MS,
                probe_ms: smoltcp::PROBE_MS,
                rto_min_ms: 1000,
                initial_window: |_| 2048,
                blocks_max: 1,
                ranges: 4,
                short_segments: 21,
            },
            Self::Native => &Facts {
                unanswered_ms: native::UNANSWERED_MS,
                probe_ms: native::PROBE_MS,
                rto_min_ms: 200,
                initial_window: |mss| (10 * mss).min((2 * mss).max(14_600)),
                blocks_max: 4,
                ranges: 8,
                short_segments: 1,
            },
        }
    }
}

/// An engine of either kind. Nothing is dispatched so but in tests.
pub enum Subject {
    Smoltcp(Box<Smoltcp>),
    Native(Box<Native>),
}

macro_rules! whichever {
    ($subject:expr, $engine:ident => $call:expr) => {
        match $subject {
            Subject::Smoltcp($engine) => $call,
            Subject::Native($engine) => $call,
        }
    };
}

impl Subject {
    pub fn of(kind: Kind, spec: EngineSpec) -> Self {
        match kind {
            Kind::Smoltcp => Self::Smoltcp(Box::new(Smoltcp::new(spec))),
            Kind::Native => Self::Native(Box::new(Native::new(spec))),
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Smoltcp(_) => Kind::Smoltcp,
            Self::Native(_) => Kind::Native,
        }
    }

    pub fn facts(&self) -> &'static Facts {
        self.kind().facts()
    }

    /// Bytes of buffers that connections hold, where they are only held while bytes wait.
    pub fn buffered_bytes(&self) -> Option<usize> {
        match self {
            Self::Smoltcp(_) => None,
            Self::Native(native) => Some(native.buffered_bytes()),
        }
    }
}

impl Engine for Subject {
    /// The engine that everything else is compared with.
    fn new(spec: EngineSpec) -> Self {
        Self::of(Kind::Smoltcp, spec)
    }

    fn len(&self) -> usize {
        whichever!(self, engine => engine.len())
    }

    fn capacity(&self) -> usize {
        whichever!(self, engine => engine.capacity())
    }

    fn set_mtu(&mut self, mtu: u16) {
        whichever!(self, engine => engine.set_mtu(mtu));
    }

    fn announced(&self) -> Announced {
        whichever!(self, engine => engine.announced())
    }

    fn accept(&mut self, opening: &Opening, agreed: &Agreed, now: Instant) -> Result<ConnId, Full> {
        whichever!(self, engine => engine.accept(opening, agreed, now))
    }

    fn connect(&mut self, opening: &Opening, now: Instant) -> Result<ConnId, Full> {
        whichever!(self, engine => engine.connect(opening, now))
    }

    fn receive(&mut self, id: ConnId, packet: &[u8], now: Instant) {
        whichever!(self, engine => engine.receive(id, packet, now));
    }

    fn transmit(&mut self, id: ConnId, sink: &mut impl Sink, now: Instant) -> bool {
        whichever!(self, engine => engine.transmit(id, sink, now))
    }

    fn has_output(&self, id: ConnId, now: Instant) -> bool {
        whichever!(self, engine => engine.has_output(id, now))
    }

    fn due(&mut self, id: ConnId, now: Instant) -> Option<Instant> {
        whichever!(self, engine => engine.due(id, now))
    }

    fn state(&self, id: ConnId) -> State {
        whichever!(self, engine => engine.state(id))
    }

    fn readable(&self, id: ConnId) -> usize {
        whichever!(self, engine => engine.readable(id))
    }

    fn read(&mut self, id: ConnId, visit: impl FnOnce(&[u8]) -> usize) -> usize {
        whichever!(self, engine => engine.read(id, visit))
    }

    fn is_peer_done(&self, id: ConnId) -> bool {
        whichever!(self, engine => engine.is_peer_done(id))
    }

    fn has_peer_closed(&self, id: ConnId) -> bool {
        whichever!(self, engine => engine.has_peer_closed(id))
    }

    fn writable(&self, id: ConnId) -> usize {
        whichever!(self, engine => engine.writable(id))
    }

    fn unacknowledged(&self, id: ConnId) -> usize {
        whichever!(self, engine => engine.unacknowledged(id))
    }

    fn acknowledged(&self, id: ConnId) -> u32 {
        whichever!(self, engine => engine.acknowledged(id))
    }

    fn write(&mut self, id: ConnId, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        whichever!(self, engine => engine.write(id, fill))
    }

    fn pass(&mut self, from: ConnId, to: ConnId, step: impl FnMut(&[u8], &mut [u8]) -> Passed) -> Passed {
        whichever!(self, engine => engine.pass(from, to, step))
    }

    fn close(&mut self, id: ConnId) {
        whichever!(self, engine => engine.close(id));
    }

    fn abort(&mut self, id: ConnId) {
        whichever!(self, engine => engine.abort(id));
    }

    fn numbers(&self, id: ConnId) -> (u32, u32) {
        whichever!(self, engine => engine.numbers(id))
    }

    fn release(&mut self, id: ConnId) {
        whichever!(self, engine => engine.release(id));
    }
}

/// Makes tests of functions, in a module with the name of what they are called with.
macro_rules! tests_of {
    ($module:ident, $subject:expr, $($test:ident)*) => {
        mod $module {
            #[allow(unused_imports, reason = "pairs are values, kinds are named")]
            use crate::tcp_world::subject::Kind;
            $(
                #[test]
                fn $test() {
                    super::$test($subject);
                }
            )*
        }
    };
}

/// Makes tests of functions that take a [`Pair`], for every pair.
macro_rules! for_pairs {
    ($($test:ident),* $(,)?) => {
        tests_of!(smoltcp_to_smoltcp, [Kind::Smoltcp, Kind::Smoltcp], $($test)*);
        tests_of!(smoltcp_to_native, [Kind::Smoltcp, Kind::Native], $($test)*);
        tests_of!(native_to_smoltcp, [Kind::Native, Kind::Smoltcp], $($test)*);
        tests_of!(native_to_native, [Kind::Native, Kind::Native], $($test)*);
    };
}

/// Makes tests of functions that take a [`Kind`]: for every engine, and for the project's own alone.
macro_rules! for_kinds {
    (all: [$($all:ident),* $(,)?], native: [$($native:ident),* $(,)?] $(,)?) => {
        tests_of!(smoltcp, Kind::Smoltcp, $($all)*);
        tests_of!(native, Kind::Native, $($all)* $($native)*);
    };
}
