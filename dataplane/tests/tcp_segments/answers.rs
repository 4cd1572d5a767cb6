//! When acknowledgements leave (RFC 9293 section 3.8.6.3), and when small segments do (section 3.7.4).

use sluice_dataplane::tcp::Engine;

use super::{MSS, Said, Setup};
use crate::tcp_world::packet::{ACK, FIN, PSH};
use crate::tcp_world::subject::Kind;

fn small_segment_is_acknowledged_after_the_delay(kind: Kind) {
    for (delay, len) in [(10, 1), (10, 700), (40, 1), (0, 1), (0, 1460)] {
        let mut setup = Setup::new(kind);
        setup.options.ack_delay_ms = delay;
        let mut peer = setup.open();
        peer.says_data(0, len);
        if delay > 0 {
            assert_eq!(peer.said(), [], "{delay}");
            peer.waits(u64::from(delay) - 1);
            assert_eq!(peer.said(), [], "{delay}");
            peer.waits(1);
        }
        let said = peer.said();
        assert_eq!(
            said.iter().map(|said| (said.acked, said.len())).collect::<Vec<_>>(),
            [(len, 0)],
            "{delay}"
        );
        peer.waits(5000);
        assert_eq!(peer.said(), [], "once");
    }
}

fn every_second_full_segment_is_acknowledged_at_once(kind: Kind) {
    for start in [0, 1] {
        let mut peer = Setup::new(kind).open();
        (0..start).for_each(|at| peer.says_data(at, 1));
        peer.waits(100);
        peer.said();
        let (mut next, mut acked) = (start, start);
        for _ in 0..20 {
            peer.says_data(next, MSS);
            next += MSS;
            acked = peer.said().last().map_or(acked, |said| said.acked);
            assert!(next - acked < 2 * MSS, "{acked} of {next}");
        }
        // Not every one either, while somebody else sends as fast.
        peer.waits(100);
        assert_eq!(peer.said().last().map_or(acked, |said| said.acked), next);
    }
}

fn acknowledgements_are_not_more_than_segments(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    for at in 0..40 {
        peer.says_data(at * MSS, MSS);
        peer.reads(MSS);
    }
    peer.waits(100);
    let count = peer.said().len();
    assert!((20..=30).contains(&count), "{count} for 40");
}

/// To a peer without selective acknowledgements, three that are alike are a loss (RFC 5681 section 2).
fn burst_is_acknowledged_once(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    for at in 0..8 {
        let segment = peer.data(at * MSS, MSS, 0).write();
        peer.engine.receive(peer.id, &segment, peer.now);
    }
    peer.waits(0);
    assert_eq!(peer.said().iter().map(|said| said.acked).collect::<Vec<_>>(), [8 * MSS]);
}

/// RFC 5681 section 4.2.
fn what_is_out_of_order_is_answered_at_once_each_time(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    for at in 1..6 {
        peer.says_data(at * MSS, MSS);
        let said = peer.said();
        assert_eq!(said.iter().map(|said| (said.acked, said.len())).collect::<Vec<_>>(), [(0, 0)], "{at}");
    }
    peer.says_data(0, 100);
    assert_eq!(peer.said().last().map(|said| said.acked), Some(100), "a part of the hole");
    peer.says_data(100, MSS - 100);
    assert_eq!(peer.said().last().map(|said| said.acked), Some(6 * MSS), "the rest");
}

fn acknowledgement_goes_with_data(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    peer.says_data(0, 500);
    peer.writes(100);
    let said = peer.said();
    assert_eq!(said.iter().map(|said| (said.acked, said.len())).collect::<Vec<_>>(), [(500, 100)]);
    peer.says(&peer.segment(ACK, 500, 100));
    peer.waits(5000);
    assert_eq!(peer.said(), [], "nothing is owed");
}

fn acknowledgements_are_not_acknowledged(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    peer.writes(1000);
    peer.said();
    (0..3).for_each(|_| peer.says_ack(1000));
    peer.waits(5000);
    assert_eq!(peer.said(), []);
}

/// An engine that knows says so, and need not be asked to send.
fn nothing_to_send_is_known(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    assert!(!peer.engine.has_output(peer.id, peer.now), "idle");
    peer.says_data(0, 100);
    assert!(!peer.engine.has_output(peer.id, peer.now), "an acknowledgement is not due yet");
    peer.writes(1000);
    assert!(!peer.engine.has_output(peer.id, peer.now), "all has left");
    peer.says(&peer.segment(ACK, 100, 1000));
    peer.waits(10_000);
    assert!(!peer.engine.has_output(peer.id, peer.now), "all is acknowledged");
    assert_eq!(peer.engine.send(peer.id, b"x"), 1);
    assert!(peer.engine.has_output(peer.id, peer.now), "something is to be sent");
}

/// A packet that network cards or virtual machines made of many segments counts as many.
fn large_packet_is_acknowledged_at_once(kind: Kind) {
    for (len, flags) in [(3 * MSS, ACK), (40_000, ACK), (65_000, ACK | PSH), (2 * MSS, ACK)] {
        let mut setup = Setup::new(kind);
        setup.spec.receive_buffer = 262_144;
        let mut peer = setup.open();
        for round in 0..3 {
            let mut large = peer.data(round * len, len, 0);
            large.flags = flags;
            peer.says(&large);
            assert_eq!(peer.said().last().map(|said| said.acked), Some((round + 1) * len), "{len}");
        }
        assert_eq!(peer.reads(300_000), 3 * len);
    }
}

fn large_packet_with_a_fin_and_some_that_is_old(kind: Kind) {
    let mut setup = Setup::new(kind);
    setup.spec.receive_buffer = 262_144;
    let mut peer = setup.open();
    peer.says_data(0, 30_000);
    peer.says_data(100_000, 60_000);
    let mut last = peer.data(10_000, 60_000, 0);
    peer.says(&last);
    last = peer.data(60_000, 65_000, 0);
    peer.says(&last);
    assert_eq!(peer.said().last().map(|said| said.acked), Some(160_000));
    last = peer.data(150_000, 20_000, 0);
    last.flags |= FIN;
    peer.says(&last);
    peer.waits(100);
    assert_eq!(peer.said().last().map(|said| said.acked), Some(170_001));
    assert_eq!(peer.reads(300_000), 170_000);
    assert!(peer.engine.is_peer_done(peer.id));
}

fn small_segments_wait_with_nagle_and_do_not_without(kind: Kind) {
    for nagle in [false, true] {
        let mut setup = Setup::new(kind);
        setup.options.nagle = nagle;
        let mut peer = setup.open();
        peer.writes(100);
        assert_eq!(peer.said_bytes(), [(0, 100)], "nothing is underway");
        for at in 1..5 {
            peer.writes(100);
            let now = peer.said_bytes();
            assert_eq!(now, if nagle { vec![] } else { vec![(at * 100, at * 100 + 100)] });
        }
        peer.waits(20);
        peer.says_ack(if nagle { 100 } else { 500 });
        assert_eq!(peer.said_bytes(), if nagle { vec![(100, 500)] } else { vec![] });
    }
}

fn full_segments_do_not_wait_and_their_rest_does(kind: Kind) {
    let mut setup = Setup::new(kind);
    setup.options.nagle = true;
    let mut peer = setup.open();
    peer.writes(100);
    peer.writes(MSS + 100);
    assert_eq!(peer.said_bytes(), [(0, 100), (100, 100 + MSS)]);
    peer.waits(20);
    peer.says_ack(100 + MSS);
    assert_eq!(peer.said_bytes(), [(100 + MSS, 200 + MSS)]);
}

/// Nothing follows any more that could be waited for.
fn end_is_not_held_back_for_long(kind: Kind) {
    let mut setup = Setup::new(kind);
    setup.options.nagle = true;
    let mut peer = setup.open();
    peer.writes(100);
    peer.writes(100);
    peer.closes();
    peer.waits(20);
    peer.says_ack(100);
    let said = peer.said();
    assert_eq!(said.iter().filter(|said| said.len() > 0).map(|said| said.to).max(), Some(200));
    assert!(said.iter().any(|said| said.has(FIN)));
}

/// RFC 9293 section 3.9.1.2: the last that there is, is pushed.
fn last_segment_is_pushed(kind: Kind) {
    for len in [1, MSS, MSS + 1, 1900] {
        let mut peer = Setup::new(kind).open();
        peer.writes(len);
        let said = peer.said();
        assert!(said.last().is_some_and(|said| said.has(PSH) && said.to == len), "{len}: {said:?}");
    }
}

fn segments_are_full_when_there_is_enough(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    peer.writes(1_000_000);
    let (mut acked, mut small) = (0, 0);
    for _ in 0..20 {
        let said = peer.said();
        small += said.iter().filter(|said| said.len() < MSS).count();
        acked = said.iter().map(|said: &Said| said.to).fold(acked, u32::max);
        peer.waits(10);
        peer.says_ack(acked);
    }
    assert!(small <= peer.facts().short_segments, "{small}");
}

for_kinds! {
    all: [
        small_segment_is_acknowledged_after_the_delay,
        every_second_full_segment_is_acknowledged_at_once,
        acknowledgements_are_not_more_than_segments,
        burst_is_acknowledged_once,
        what_is_out_of_order_is_answered_at_once_each_time,
        acknowledgement_goes_with_data,
        acknowledgements_are_not_acknowledged,
        large_packet_is_acknowledged_at_once,
        large_packet_with_a_fin_and_some_that_is_old,
        small_segments_wait_with_nagle_and_do_not_without,
        full_segments_do_not_wait_and_their_rest_does,
        end_is_not_held_back_for_long,
        last_segment_is_pushed,
        segments_are_full_when_there_is_enough,
    ],
    native: [nothing_to_send_is_known],
}
