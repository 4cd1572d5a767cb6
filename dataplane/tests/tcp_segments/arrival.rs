//! Segments of data that arrive: old, half old, out of order, too far ahead, and none of those
//! (RFC 9293 section 3.10.7.4).

use sluice_dataplane::tcp::{Engine, State};

use super::{MSS, Peer, Setup};
use crate::tcp_world::packet::{ACK, FIN, SYN};
use crate::tcp_world::subject::Kind;

/// The single answer that was due at once.
fn answer(peer: &mut Peer) -> super::Said {
    let said = peer.said();
    assert_eq!(said.len(), 1, "{said:?}");
    said.into_iter().next().unwrap()
}

fn old_data_is_acknowledged_again_and_not_read_twice(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    peer.says_data(0, 1000);
    peer.waits(100);
    assert_eq!(answer(&mut peer).acked, 1000);
    for (offset, len) in [(0, 1000), (500, 500), (0, 1), (999, 1)] {
        peer.says_data(offset, len);
        assert_eq!(answer(&mut peer).acked, 1000, "at once");
    }
    assert_eq!((peer.readable(), peer.reads(5000)), (1000, 1000));
}

fn of_what_is_partly_old_the_rest_is_taken(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    peer.says_data(0, 1000);
    peer.says_data(500, 1000);
    peer.says_data(0, 1501);
    peer.says_data(1499, 3);
    peer.waits(100);
    assert_eq!(peer.said().last().unwrap().acked, 1502);
    assert_eq!(peer.reads(5000), 1502);
}

/// Every order of five pieces, which overlap at random; and again in order, because an engine may forget pieces.
fn pieces_come_together_in_every_order(kind: Kind) {
    let mut random = Random(5);
    for order in orders(5) {
        let mut peer = Setup::new(kind).open();
        let mut cuts = [0, 0, 0, 0, 0, 6000];
        (1..5).for_each(|at| cuts[at] = random.below(6000));
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| {
            let from = pair[0].saturating_sub(random.below(300));
            (from, (pair[1] + random.below(300)).min(6000) - from)
        });
        let pieces = pieces.filter(|(_, len)| *len > 0).collect::<Vec<_>>();
        let again = (0..pieces.len()).collect::<Vec<_>>();
        for (round, order) in [order, again].into_iter().enumerate() {
            for (from, len) in order.iter().filter_map(|at| pieces.get(*at)) {
                peer.says_data(*from, *len);
            }
            let is_all = peer.readable() == 6000;
            assert!(is_all || round == 0 && peer.facts().ranges < 4, "{order:?} of {pieces:?}");
        }
        assert_eq!(peer.reads(10_000), 6000);
    }
}

fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let longer = |order: Vec<usize>| {
        (0..count).map(move |at| {
            let mut order = order.clone();
            order.insert(at, count - 1);
            order
        })
    };
    orders(count - 1).into_iter().flat_map(longer).collect()
}

/// Hundreds of pieces of random places and sizes, more holes than any engine has room for, around the wrap.
fn random_pieces_come_together(kind: Kind) {
    for seed in 1..100 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let mut setup = Setup::new(kind);
        setup.agreed.peer_isn = random.below(40_000).wrapping_neg();
        let mut peer = setup.open();
        let total = 60_000;
        for _ in 0..200 {
            let from = random.below(total);
            let len = (1 + random.below(2 * MSS)).min(total - from);
            peer.says_data(from, len);
            if random.below(10) == 0 {
                peer.reads(random.below(5000));
            }
        }
        let mut at = peer.read + peer.readable();
        while at < total {
            peer.says_data(at, MSS.min(total - at));
            assert!(peer.read + peer.readable() > at, "what is next is always taken");
            at = peer.read + peer.readable();
            peer.reads(random.below(3000));
        }
        peer.reads(total);
        assert_eq!(peer.read, total);
        peer.waits(100);
        assert_eq!(peer.said().last().unwrap().acked, total);
    }
}

fn data_beyond_the_window_is_not_taken(kind: Kind) {
    let mut setup = Setup::new(kind);
    setup.spec.receive_buffer = 10_000;
    let mut peer = setup.open();
    peer.says_data(0, 9000);
    peer.waits(100);
    peer.said();
    for (offset, len) in [(9000, 2000), (9999, 1000), (10_000, 1000), (20_000, 1), (1 << 30, 1000)] {
        peer.says_data(offset, len);
        let said = peer.said();
        assert_eq!(said.len(), 1, "an answer to {offset}");
        assert!(said[0].acked <= 10_000);
    }
    peer.says_data(9000, 1000);
    assert_eq!((peer.readable(), peer.reads(20_000)), (10_000, 10_000));
}

/// "special allowance should be made to accept valid ACKs, URGs, and RSTs"
fn closed_window_takes_acknowledgements_and_no_data(kind: Kind) {
    let mut setup = Setup::new(kind);
    setup.spec.receive_buffer = 4096;
    let mut peer = setup.open();
    peer.says_data(0, 4096);
    peer.waits(100);
    let said = peer.said();
    assert_eq!(said.last().map(|said| (said.acked, said.window)), Some((4096, 0)));
    peer.writes(1000);
    assert_eq!(peer.said_bytes(), [(0, 1000)]);
    peer.says(&peer.data(4096, 100, 0));
    let said = answer(&mut peer);
    assert_eq!((said.acked, said.window, peer.readable()), (4096, 0, 4096));
    peer.says(&peer.segment(ACK, 4096, 1000));
    assert_eq!(peer.engine.unacknowledged(peer.id), 0);
    assert_eq!(peer.reads(10_000), 4096);
}

/// A peer that has filled the window says its acknowledgements at its end, also while the first of it is lost.
fn acknowledgement_at_the_end_of_the_window_counts(kind: Kind) {
    let mut setup = Setup::new(kind);
    setup.spec.receive_buffer = 4096;
    let mut peer = setup.open();
    peer.writes(1000);
    peer.says_data(1000, 1400);
    peer.says_data(2400, 1696);
    assert_eq!((peer.readable(), peer.engine.unacknowledged(peer.id)), (0, 1000));
    peer.says(&peer.segment(ACK, 4096, 1000));
    assert_eq!(peer.engine.unacknowledged(peer.id), 0);
    peer.says_data(0, 1000);
    assert_eq!(peer.reads(10_000), 4096);
}

fn acknowledgement_of_what_was_never_sent_is_answered_and_its_data_dropped(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    peer.writes(1000);
    peer.said();
    peer.says(&peer.data(0, 500, 1001));
    let said = answer(&mut peer);
    assert_eq!((said.from, said.acked, said.flags), (1000, 0, ACK));
    assert_eq!((peer.readable(), peer.engine.unacknowledged(peer.id)), (0, 1000));
}

fn segment_without_an_acknowledgement_is_dropped(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    let mut data = peer.data(0, 500, 0);
    data.flags = 0;
    peer.says(&data);
    assert_eq!((peer.readable(), peer.state()), (0, State::Open));
    peer.says_data(0, 500);
    assert_eq!(peer.readable(), 500);
}

/// SND.WL1 and SND.WL2: a window counts when its segment is newer, or as new and acknowledges as much.
fn old_segments_change_no_window(kind: Kind) {
    for (offset, acked, window, may_send) in [
        (0, 3000, 0, true),      // an older segment
        (500, 2000, 0, true),    // an older acknowledgement
        (0, 2000, 60_000, true), // both
        (501, 3000, 0, false),   // a newer segment
    ] {
        let mut peer = Setup::unscaled(kind, 20_000).open();
        peer.writes(3000);
        peer.waits(5);
        peer.says_data(0, 500);
        peer.says(&peer.segment(ACK, 500, 1460));
        peer.waits(5);
        peer.says(&peer.segment(ACK, 500, 3000));
        if offset > 500 {
            peer.says(&peer.data(500, 1, 3000));
        }
        peer.waits(50);
        peer.said();
        peer.window = window;
        peer.says(&peer.segment(ACK, offset, acked));
        peer.writes(700);
        let bytes = peer.said_bytes().iter().map(|(from, to)| to - from).sum::<u32>();
        assert_eq!(bytes > 1, may_send, "{offset} {acked} {window}: {bytes}");
    }
}

/// A window that is larger and came late stays unheard; one that is as new counts.
fn newer_window_with_the_same_acknowledgement_counts(kind: Kind) {
    let mut peer = Setup::unscaled(kind, 2000).open();
    peer.writes(8000);
    assert_eq!(peer.said_bytes().last().map(|(_, to)| *to <= 2000), Some(true));
    peer.waits(5);
    peer.says_ack(1460);
    peer.waits(5);
    peer.said();
    peer.window = 20_000;
    peer.says_ack(1460);
    assert!(peer.said_bytes().last().is_some_and(|(_, to)| *to > 2000 + 1460));
}

fn fin_before_what_it_follows_waits(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    peer.says(&peer.segment(ACK | FIN, 1000, 0));
    assert!(!peer.engine.has_peer_closed(peer.id));
    peer.says_data(0, 1000);
    // It may be forgotten, and is then said again.
    peer.says(&peer.segment(ACK | FIN, 1000, 0));
    assert!(peer.engine.has_peer_closed(peer.id) && !peer.engine.is_peer_done(peer.id));
    peer.waits(100);
    assert_eq!(peer.said().last().unwrap().acked, 1001);
    assert_eq!(peer.reads(5000), 1000);
    assert!(peer.engine.is_peer_done(peer.id));
}

fn fin_with_data_that_came_early_waits(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    let mut last = peer.data(1000, 500, 0);
    last.flags |= FIN;
    peer.says(&last);
    assert!(!peer.engine.has_peer_closed(peer.id));
    assert_eq!(answer(&mut peer).acked, 0, "at once: something is missing");
    peer.says_data(0, 1000);
    assert!(peer.engine.has_peer_closed(peer.id));
    peer.waits(100);
    assert_eq!(peer.said().last().unwrap().acked, 1501);
    assert_eq!(peer.reads(5000), 1500);
    assert!(peer.engine.is_peer_done(peer.id));
}

fn fin_with_data_ends_after_it(kind: Kind) {
    for already in [0, 400] {
        let mut peer = Setup::new(kind).open();
        if already > 0 {
            peer.says_data(0, already);
        }
        let mut last = peer.data(0, 1000, 0);
        last.flags |= FIN;
        peer.says(&last);
        assert!(peer.engine.has_peer_closed(peer.id), "{already}");
        assert!(!peer.engine.is_peer_done(peer.id));
        peer.waits(100);
        assert_eq!(peer.said().last().unwrap().acked, 1001);
        assert_eq!(peer.reads(5000), 1000);
        assert!(peer.engine.is_peer_done(peer.id));
    }
}

/// The peer has merged what it says again with its end.
fn fin_behind_old_data_counts(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    peer.says_data(0, 1000);
    let mut last = peer.data(0, 1000, 0);
    last.flags |= FIN;
    peer.says(&last);
    assert!(peer.engine.has_peer_closed(peer.id));
    peer.waits(100);
    assert_eq!(peer.said().last().unwrap().acked, 1001);
}

/// What is behind the end is nothing, whether it comes before the FIN or after it.
fn data_behind_the_end_is_not_read(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    peer.says_data(0, 1000);
    peer.says(&peer.segment(ACK | FIN, 1000, 0));
    peer.waits(100);
    peer.said();
    for offset in [500, 1000, 1001, 1500] {
        peer.says_data(offset, 1000);
        assert_eq!(peer.readable(), 1000, "{offset}");
    }
    assert!(peer.said().iter().all(|said| said.acked == 1001));
    assert_eq!(peer.reads(5000), 1000);
    assert!(peer.engine.is_peer_done(peer.id));
    assert_eq!(peer.state(), State::Open);
}

/// A SYN-ACK without options: no scaling, no selective acknowledgements, segments of 536 bytes (RFC 9293 section 3.7.1).
fn peer_without_options_gets_none(kind: Kind) {
    let setup = Setup::new(kind);
    let mut engine = crate::tcp_world::subject::Subject::of(kind, setup.spec);
    let now = sluice_dataplane::clock::Instant::from_ms(1000);
    let id = engine.connect(&setup.opening(), now).unwrap();
    let mut bare = Setup { window: 8192, ..setup };
    bare.agreed.peer_scale = None;
    let mut peer = Peer::new(engine, id, now, &bare);
    peer.flush();
    assert!(peer.said().iter().all(|said| said.flags == SYN));
    peer.says(&peer.segment(SYN | ACK, u32::MAX, 0));
    assert_eq!(peer.state(), State::Open);
    peer.writes(20_000);
    peer.says_ack(536);
    peer.says_ack(1072);
    peer.says_data(1000, 100);
    let said = peer.said();
    let longest = said.iter().map(super::Said::len).max();
    assert!(said.last().unwrap().to <= 1072 + 8192);
    assert_eq!(longest, Some(536));
    assert!(said.iter().all(|said| said.blocks.is_empty()));
    assert!(said.iter().all(|said| said.window > 8192), "it is not scaled");
}

/// A generator that needs no more than a seed.
pub(super) struct Random(pub u32);

impl Random {
    pub(super) fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(0x915f_77f5).wrapping_add(0x6b43_a9b5);
        let mixed = (self.0 ^ (self.0 >> 15)).wrapping_mul(0x2c1b_3c6d);
        ((u64::from(mixed) * u64::from(end)) >> 32) as u32
    }
}

for_kinds! {
    all: [
        old_data_is_acknowledged_again_and_not_read_twice,
        of_what_is_partly_old_the_rest_is_taken,
        pieces_come_together_in_every_order,
        random_pieces_come_together,
        data_beyond_the_window_is_not_taken,
        closed_window_takes_acknowledgements_and_no_data,
        acknowledgement_of_what_was_never_sent_is_answered_and_its_data_dropped,
        segment_without_an_acknowledgement_is_dropped,
        old_segments_change_no_window,
        newer_window_with_the_same_acknowledgement_counts,
        fin_before_what_it_follows_waits,
        fin_with_data_ends_after_it,
        peer_without_options_gets_none,
    ],
    native: [
        acknowledgement_at_the_end_of_the_window_counts,
        fin_with_data_that_came_early_waits,
        fin_behind_old_data_counts,
        data_behind_the_end_is_not_read,
    ],
}
