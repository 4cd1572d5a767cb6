//! Hosts on their wire: one turn takes in what has come, lets clients ask, and sends.

use super::Hosts;
use super::wire::Wire;

/// The hosts and their end of the wire.
pub struct Load<W> {
    /// Clients and members.
    pub hosts: Hosts,
    /// Their wire.
    pub wire: W,
}

impl<W: Wire> Load<W> {
    /// One turn; every client that waits for nothing asks when `asks`. Returns frames that came and left.
    pub fn turn(&mut self, asks: bool) -> usize {
        let Self { hosts, wire } = self;
        let mut frames = 0;
        for _ in 0..BURSTS_IN {
            match wire.receive(|frame| hosts.handle(frame, W::SUMS)) {
                0 => break,
                came => frames += came,
            }
        }
        if asks {
            hosts.begin_all();
        }
        frames + hosts.transmit(wire)
    }
}

/// Bursts taken in before anything is sent.
const BURSTS_IN: usize = 4;
