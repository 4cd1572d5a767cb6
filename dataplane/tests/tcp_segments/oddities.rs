//! Peers that do anything at all, for a while: whatever they say, an engine keeps its promises ([`super`]), and when they
//! behave again everything arrives.

use sluice_dataplane::tcp::{Engine, State};

use super::arrival::Random;
use super::receiver::Receiver;
use super::{MSS, Peer, Setup};
use crate::tcp_world::packet::{ACK, FIN, RST, SYN};
use crate::tcp_world::subject::Kind;

/// Bytes that the engine's side says, and the peer.
const TOTAL: [u32; 2] = [150_000, 50_000];

struct Odd {
    peer: Peer,
    random: Random,
    receiver: Receiver,
    /// The end of what was ever sent by the engine.
    sent: u32,
}

impl Odd {
    fn new(kind: Kind, seed: u32) -> Self {
        let mut random = Random(seed);
        let mut setup = Setup::unscaled(kind, 5000);
        setup.spec.receive_buffer = 1000 + random.below(70_000) as usize;
        (setup.isn, setup.agreed.peer_isn) =
            (random.below(200_000).wrapping_neg(), random.below(60_000).wrapping_neg());
        (setup.agreed.sack, setup.options.nagle) = (random.below(3) > 0, random.below(2) == 0);
        let peer = setup.open();
        Self { peer, random, receiver: Receiver::default(), sent: 0 }
    }

    /// What was said is heard, or lost.
    fn hears(&mut self) {
        for said in self.peer.said() {
            self.sent = self.sent.max(said.to.min(TOTAL[0]));
            if self.random.below(4) > 0 && said.len() > 0 {
                self.receiver.takes(&said);
            }
        }
    }

    /// Something of the peer's stream, if only a little, with any acknowledgement that may be.
    fn says_something(&mut self) {
        let Self { peer, random, receiver, .. } = self;
        peer.window = [0, 0, 1, 100, 1460, 5000, 20_000, 60_000][random.below(8) as usize];
        let heard = peer.read + peer.readable();
        let from = (heard + random.below(8000)).saturating_sub(4000).min(TOTAL[1]);
        let len = [0, 0, 1, 500, MSS, 9000][random.below(6) as usize].min(TOTAL[1] - from);
        let acked = receiver.next - random.below(3000).min(receiver.next);
        let mut tcp = peer.data(from, len, [acked, receiver.next][random.below(2) as usize]);
        if from + len == TOTAL[1] && random.below(2) == 0 {
            tcp.flags |= FIN;
        }
        if random.below(20) == 0 {
            // Doubtful ones, and none that hits.
            let far = 100_000 + random.below(1 << 30);
            tcp = peer.segment([RST, SYN, SYN | ACK, 0][random.below(4) as usize], heard + far, acked);
        }
        let edge =
            |random: &mut Random| random.below(TOTAL[0]).wrapping_sub(5000).wrapping_add(peer.begins[0]);
        tcp.blocks = (0..random.below(4)).map(|_| (edge(random), edge(random))).collect();
        peer.says(&tcp);
    }

    fn does_something(&mut self) {
        self.hears();
        let len = 1 + self.random.below(9000);
        match self.random.below(8) {
            0 => self.peer.writes(len.min(TOTAL[0] - self.peer.written)),
            1 => _ = self.peer.reads(len),
            2 => self.receiver.answers(&mut self.peer),
            3 => self.peer.waits(self.random.below(500).into()),
            _ => self.says_something(),
        }
    }

    /// The peer behaves again; everything arrives, both ways, and both ends close.
    fn mends(&mut self) {
        let Self { peer, receiver, .. } = self;
        peer.window = 60_000;
        peer.writes(TOTAL[0] - peer.written);
        peer.reads(TOTAL[1]);
        while peer.read < TOTAL[1] {
            let at = peer.read;
            let len = MSS.min(TOTAL[1] - at).min(peer.told.0 - at);
            peer.says(&peer.data(at, len, receiver.next));
            assert!(peer.reads(TOTAL[1]) > 0, "what is next and was offered is taken: {len} at {at}");
        }
        peer.says(&peer.segment(ACK | FIN, TOTAL[1], receiver.next));
        assert!(peer.engine.is_peer_done(peer.id));
        peer.place = TOTAL[1] + 1;
        receiver.answers(peer);
        receiver.takes_all(peer, 20, TOTAL[0], |_| false);
        assert_eq!((peer.engine.unacknowledged(peer.id), peer.state()), (0, State::Open));
        peer.closes();
        peer.says_ack(TOTAL[0] + 1);
        assert_eq!(peer.state(), State::Closed);
        assert!(matches!(peer.engine.buffered_bytes(), None | Some(0)), "{:?}", peer.engine.buffered_bytes());
    }
}

fn odd_peers_break_no_promise(kind: Kind) {
    for seed in 1..300 {
        println!("seed {seed}");
        let mut odd = Odd::new(kind, seed);
        for _ in 0..300 {
            odd.does_something();
            assert_eq!(odd.peer.state(), State::Open);
        }
        odd.hears();
        odd.mends();
    }
}

for_kinds! {
    all: [],
    native: [odd_peers_break_no_promise],
}
