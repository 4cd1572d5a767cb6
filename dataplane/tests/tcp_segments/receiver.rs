//! A receiver as RFC 2018 wants it, for tests that need no peer that is odd.

use super::{Peer, Said};

/// What of the engine's stream has come.
#[derive(Default)]
pub struct Receiver {
    /// Everything before has come.
    pub next: u32,
    /// What came beyond; the newest first.
    beyond: Vec<(u32, u32)>,
}

impl Receiver {
    /// Takes a segment.
    pub fn takes(&mut self, said: &Said) {
        self.takes_bytes(said.from, said.to);
    }

    pub fn takes_bytes(&mut self, from: u32, to: u32) {
        let mut new = (from.max(self.next), to);
        if new.0 >= new.1 {
            return;
        }
        let (touching, apart) =
            self.beyond.iter().partition::<Vec<_>, _>(|(from, to)| *from <= new.1 && new.0 <= *to);
        for (from, to) in touching {
            new = (new.0.min(from), new.1.max(to));
        }
        self.beyond = apart;
        if new.0 <= self.next {
            self.next = new.1;
        } else {
            self.beyond.insert(0, new);
        }
    }

    /// Says what has come.
    pub fn answers(&self, peer: &mut Peer) {
        peer.says_blocks(self.next, &self.beyond[..self.beyond.len().min(3)]);
    }

    /// The same, of a peer that does not know of blocks.
    pub fn answers_plainly(&self, peer: &mut Peer) {
        peer.says_ack(self.next);
    }

    /// Forgets what was not acknowledged for good (RFC 2018 section 8).
    pub fn reneges(&mut self) {
        self.beyond.clear();
    }

    /// Goes on, an answer to each segment after `rtt_ms`, until `len` bytes have come; those that `loses` says are lost.
    /// Returns how many segments with bytes there were.
    pub fn takes_all(
        &mut self,
        peer: &mut Peer,
        rtt_ms: u64,
        len: u32,
        mut loses: impl FnMut(&Said) -> bool,
    ) -> usize {
        let (mut count, begin) = (0, peer.now);
        while self.next < len {
            let said = peer.said();
            if said.is_empty() {
                let said = peer.waits_for_word();
                peer.unheard = said;
                continue;
            }
            peer.waits(rtt_ms);
            for said in said.iter().filter(|said| said.len() > 0) {
                count += 1;
                if !loses(said) {
                    self.takes(said);
                    self.answers(peer);
                }
            }
            assert!(peer.now.since(begin).as_secs() < 600, "stuck at {} of {len}", self.next);
        }
        count
    }
}
