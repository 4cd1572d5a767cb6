//! Windows of the peer: old segments that come late, windows that are taken back, and closing while one is closed.

use std::time::Duration;

use sluice_dataplane::tcp::{ConnId, Engine, EngineSpec, State};

use super::packet::{ACK, FIN, Tcp};
use super::subject::Pair;
use super::{SPEC, Weather, World};

/// Side 1 of a world in which side 0 hears nothing more, and what it says is made up.
struct Alone {
    world: World,
    id: ConnId,
    /// What side 1 sends next, and what it expects.
    una: u32,
    nxt: u32,
}

impl Alone {
    fn new(pair: Pair, seed: u64) -> Self {
        let mut world = World::new(pair, seed, SPEC);
        world.options.nagle = false;
        let [_, id] = world.open(1000);
        world.run_for(Duration::from_millis(100));
        world.weather.lost = 1000;
        let (una, nxt) = world.engines[1].numbers(id);
        Self { world, id, una, nxt }
    }

    /// A segment that is so far ahead of what was heard, and acknowledges so much.
    fn segment(&self, ahead: u32, acked: u32, window: u16) -> Tcp {
        let (from, to) = (self.world.end(0, 1000), self.world.end(1, 1000));
        let mut tcp = Tcp::new(from, to, ACK, self.nxt.wrapping_add(ahead), self.una.wrapping_add(acked));
        tcp.window = window;
        tcp
    }

    fn hears(&mut self, tcp: &Tcp) {
        self.world.inject(1, 1000, tcp);
    }

    fn says(&mut self, len: usize) {
        assert_eq!(self.world.engines[1].send(self.id, &vec![7; len]), len);
        self.world.touch(1, 1000);
    }

    /// The payload bytes that were sent since the log had this length.
    fn said_since(&self, at: usize) -> usize {
        self.world.sent_since(at, 1).iter().map(|tcp| tcp.payload.len()).sum()
    }

    /// True when all these bytes were sent since the log had this length; counted from what was not acknowledged first.
    fn has_said(&self, at: usize, bytes: std::ops::Range<u32>) -> bool {
        let sent = self.world.sent_since(at, 1);
        bytes.into_iter().all(|byte| {
            let seq = self.una.wrapping_add(byte);
            sent.iter().any(|tcp| (seq.wrapping_sub(tcp.seq) as usize) < tcp.payload.len())
        })
    }

    fn until_said(&mut self, at: usize, bytes: std::ops::Range<u32>) {
        while !self.has_said(at, bytes.clone()) {
            self.until_asked();
        }
    }

    /// Goes on until something is sent, which every engine does within a minute while anything waits.
    fn until_asked(&mut self) {
        let (at, begin) = (self.world.log.len(), self.world.now);
        self.world.run_until(|world| world.log.len() > at);
        assert!(self.world.now.since(begin) <= Duration::from_secs(60));
    }
}

fn old_segment_does_not_close_the_window(pair: Pair) {
    for ahead in [0, 5] {
        let mut peer = Alone::new(pair, 60);
        let mut newer = peer.segment(ahead, 0, 8192);
        newer.payload = vec![1; ahead as usize];
        peer.hears(&newer);
        let mut older = peer.segment(0, 0, 0);
        older.payload = vec![1; ahead as usize];
        peer.hears(&older);
        let at = peer.world.log.len();
        peer.says(1000);
        assert_eq!(peer.said_since(at), 1000);
        assert_eq!(peer.world.engines[1].readable(peer.id), 2 * ahead as usize, "the data counts");
    }
}

fn newer_segment_closes_the_window(pair: Pair) {
    let mut peer = Alone::new(pair, 61);
    peer.hears(&peer.segment(0, 0, 8192));
    let mut newer = peer.segment(0, 0, 8192);
    newer.payload = vec![1; 5];
    peer.hears(&newer);
    peer.hears(&peer.segment(5, 0, 0));
    let at = peer.world.log.len();
    peer.says(1000);
    assert!(peer.said_since(at) <= 1, "a probe at most");
    peer.hears(&peer.segment(5, 0, 500));
    // It may wait for more room at first (RFC 9293 section 3.8.6.2.1).
    peer.world.run_for(Duration::from_secs(1));
    assert!(peer.has_said(at, 0..500));
}

/// RFC 9293 section 3.10.7.4: it is answered and goes no further.
fn acknowledgement_of_what_was_never_sent_changes_nothing(pair: Pair) {
    let mut peer = Alone::new(pair, 62);
    peer.hears(&peer.segment(0, 0, 1000));
    peer.says(20_000);
    let at = peer.world.log.len();
    peer.hears(&peer.segment(0, 20_000, 60_000));
    assert_eq!(peer.world.engines[1].unacknowledged(peer.id), 20_000);
    assert_eq!((peer.said_since(at), peer.world.sent_since(at, 1).len()), (0, 1));
}

/// Data is on its way when the peer closes its window, and again at once when it may be.
fn window_that_closes_while_data_is_underway_is_asked_for(pair: Pair) {
    for closes in [false, true] {
        let mut peer = Alone::new(pair, 63);
        peer.says(1000);
        let mut data = peer.segment(0, 0, 8192);
        data.payload = vec![1; 5];
        peer.hears(&data);
        let mut shut = peer.segment(5, 0, 0);
        shut.flags |= if closes { FIN } else { 0 };
        peer.hears(&shut);
        if closes {
            peer.world.engines[1].close(peer.id);
            peer.world.touch(1, 1000);
            assert_eq!(peer.world.engines[1].writable(peer.id), 0, "what is closed takes nothing");
        }
        // The retransmission timer has run out while the window was closed.
        let at = peer.world.log.len();
        peer.until_asked();
        assert!(peer.said_since(at) <= 1000, "once");
        let heard = 5 + u32::from(closes);
        let at = peer.world.log.len();
        peer.hears(&peer.segment(heard, 0, 8192));
        peer.until_said(at, 0..1000);
        peer.hears(&peer.segment(heard, 1000, 8192));
        assert_eq!(peer.world.engines[1].unacknowledged(peer.id), 0);
        peer.hears(&peer.segment(heard, 1001, 8192));
        let state = if closes { State::Closed } else { State::Open };
        assert_eq!(peer.world.engines[1].state(peer.id), state);
    }
}

/// What was sent is lost, and whatever is asked while the window is closed must not let that be forgotten.
fn loss_behind_a_window_that_was_taken_back_is_mended(pair: Pair) {
    let mut peer = Alone::new(pair, 64);
    peer.says(2000);
    peer.hears(&peer.segment(0, 500, 0));
    peer.hears(&peer.segment(0, 500, 8192));
    let at = peer.world.log.len();
    for round in 0.. {
        if peer.has_said(at, 500..1500) {
            break;
        }
        assert!(round < 10, "never sent again");
        peer.until_asked();
        peer.hears(&peer.segment(0, 500, 8192));
    }
    peer.hears(&peer.segment(0, 2000, 8192));
    assert_eq!(peer.world.engines[1].unacknowledged(peer.id), 0);
}

/// More is queued than the peer takes when both have closed.
fn close_waits_for_the_window_and_the_end_does_not_move_back(pair: Pair) {
    let mut peer = Alone::new(pair, 65);
    let mut data = peer.segment(0, 0, 8192);
    data.payload = vec![1; 5];
    peer.hears(&data);
    let mut fin = peer.segment(5, 0, 1000);
    fin.flags |= FIN;
    peer.hears(&fin);
    let at = peer.world.log.len();
    peer.says(5000);
    // Full segments of the window, or all of it.
    let window = peer.said_since(at) as u32;
    peer.world.engines[1].close(peer.id);
    peer.world.touch(1, 1000);
    assert!((1460..=1000 << peer.world.engines[0].announced().scale).contains(&window));
    peer.hears(&peer.segment(6, window, 0));
    let at = peer.world.log.len();
    peer.hears(&peer.segment(6, window, 4000));
    assert_eq!(peer.said_since(at), 5000 - window as usize);
    assert!(peer.world.log.last().unwrap().1.has(FIN));
    // All is offered; the peer takes it back with an acknowledgement, and none of the rest came.
    peer.hears(&peer.segment(6, window + 100, 0));
    let at = peer.world.log.len();
    peer.world.run_for(Duration::from_secs(10));
    assert!(peer.world.log.len() > at, "it is sent again, or asked for");
    peer.hears(&peer.segment(6, 5001, 0));
    assert_eq!(peer.world.engines[1].state(peer.id), State::Closed);
}

/// Both sides send and close over a bad wire, and read little by little from small buffers, so that windows close.
fn bytes_and_ends_arrive_whatever_becomes_of_windows(pair: Pair) {
    for seed in 3000..3150 {
        let spec = EngineSpec { receive_buffer: 3000, send_buffer: 20_000, ..SPEC };
        let mut world = World::new(pair, seed, spec);
        (world.keeps_log, world.weather) = (false, Weather { lost: 20, late: 300, ..Weather::FOUL });
        let ids = world.open(1000);
        let mut left = [world.below(30_000) as usize, 40_000];
        let total = left;
        let (mut got, mut steps) = ([0; 2], 0);
        let is_over = |world: &World| (0..2).all(|side| world.engines[side].state(ids[side]).is_over());
        while !is_over(&world) {
            for side in 0..2 {
                left[side] -= world.engines[side].send(ids[side], &[side as u8; 40_000][..left[side]]);
                // Side 1 waits for the end of what side 0 has to say.
                if left[side] == 0 && (side == 0 || world.engines[1].is_peer_done(ids[1])) {
                    world.engines[side].close(ids[side]);
                }
                got[side] += read_some(&mut world, side, ids[side]);
                world.touch(side, 1000);
            }
            steps += 1;
            assert!(steps < 100_000, "stuck after {got:?} of {total:?}");
            // When nothing is to happen by itself, somebody has yet to read.
            world.step();
        }
        (0..2).for_each(|side| got[side] += world.read(side, ids[side]).len());
        assert_eq!(got, [total[1], total[0]]);
        assert_eq!(world.engines[0].state(ids[0]), State::TimeWait);
        assert_eq!(world.engines[1].state(ids[1]), State::Closed);
    }
}

/// Mostly nothing; the bytes are the other side's.
fn read_some(world: &mut World, side: usize, id: ConnId) -> usize {
    let some = if world.below(4) == 0 { world.below(2000) as usize } else { 0 };
    world.engines[side].read(id, |piece| {
        assert!(piece.iter().all(|byte| *byte == 1 - side as u8));
        piece.len().min(some)
    })
}

for_pairs! {
    old_segment_does_not_close_the_window,
    newer_segment_closes_the_window,
    acknowledgement_of_what_was_never_sent_changes_nothing,
    window_that_closes_while_data_is_underway_is_asked_for,
    loss_behind_a_window_that_was_taken_back_is_mended,
    close_waits_for_the_window_and_the_end_does_not_move_back,
    bytes_and_ends_arrive_whatever_becomes_of_windows,
}
