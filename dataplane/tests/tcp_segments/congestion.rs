//! How much may be underway (RFC 5681, RFC 6928, RFC 9438).

use sluice_dataplane::tcp::Engine;

use super::receiver::Receiver;
use super::{MSS, Peer, Setup, warmed};
use crate::tcp_world::packet::PSH;
use crate::tcp_world::subject::Kind;

/// Bytes that were said since.
fn said_len(peer: &mut Peer) -> u32 {
    peer.said_bytes().iter().map(|(from, to)| to - from).sum()
}

fn initial_window_is_what_it_should_be(kind: Kind) {
    for (mtu, mss) in [(1500, 1460), (1500, 536), (1500, 1000), (4096, 4056), (9000, 8960)] {
        let mut setup = Setup::new(kind);
        (setup.spec.mtu, setup.agreed.peer_mss) = (mtu, mss);
        let mut peer = setup.open();
        peer.writes(200_000);
        let initial = (peer.facts().initial_window)(mss.into()) as u32;
        let len = said_len(&mut peer);
        assert!(
            len <= initial && len + u32::from(mss) > initial,
            "{len} at a segment of {mss}, not {initial}"
        );
    }
}

/// A connection that we began starts as one that the peer began.
fn slow_start_makes_at_most_two_of_one(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    peer.writes(1_000_000);
    let (mut acked, mut underway) = (0, said_len(&mut peer));
    for _ in 0..4 {
        peer.waits(20);
        let end = acked + underway;
        let mut new = 0;
        while acked < end {
            let step = MSS.min(end - acked);
            acked += step;
            peer.says_ack(acked);
            let sent = said_len(&mut peer);
            assert!(sent <= 2 * step.max(MSS) + MSS, "{sent} for {step}");
            new += sent;
        }
        assert!(new > underway && new <= 2 * underway + 2 * MSS, "{new} after {underway}");
        underway = new;
    }
}

/// RFC 5681 section 3.1: an acknowledgement of many segments counts, but is no reason for a burst of twice as many.
fn acknowledgement_of_many_segments_grows_the_window(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    peer.writes(1_000_000);
    let mut underway = said_len(&mut peer);
    let begin = underway;
    let mut acked = 0;
    for _ in 0..20 {
        peer.waits(20);
        acked += underway;
        peer.says_ack(acked);
        let new = said_len(&mut peer);
        assert!(new <= 2 * underway + MSS, "{new} after {underway}");
        if acked + new == 1_000_000 {
            return;
        }
        assert!(new >= underway, "{new} after {underway}");
        underway = new;
    }
    assert!(underway >= begin + 10 * MSS);
}

fn loss_takes_the_window_back(kind: Kind) {
    let (mut peer, mut receiver) = warmed(Setup::new(kind), 100 * MSS, 20);
    peer.writes(600 * MSS);
    let said = peer.said();
    let underway = said.iter().map(super::Said::len).sum::<u32>();
    assert!(underway >= 16 * MSS, "{underway}");
    peer.waits(20);
    said[1..].iter().for_each(|said| {
        receiver.takes(said);
        receiver.answers(&mut peer);
    });
    // The rest is answered as it comes, until all that was underway at the loss is acknowledged.
    let recovered = said.last().unwrap().to;
    while receiver.next < recovered {
        peer.waits(20);
        for said in peer.said() {
            receiver.takes(&said);
            receiver.answers(&mut peer);
        }
    }
    let flight = peer.engine.unacknowledged(peer.id).min(underway as usize);
    peer.waits(20);
    let now_underway = said_len(&mut peer);
    assert!(now_underway <= underway * 4 / 5, "{now_underway} after {underway} ({flight})");
    assert!(now_underway >= underway / 4, "{now_underway} after {underway}");
}

/// RFC 5681 section 4.1: after a pause longer than the retransmission timeout, the window that was is not to be trusted.
fn window_is_small_again_after_a_pause(kind: Kind) {
    let (mut peer, _) = warmed(Setup::new(kind), 200 * MSS, 20);
    peer.waits(30_000);
    peer.writes(300 * MSS);
    let initial = (peer.facts().initial_window)(MSS as usize) as u32;
    let len = said_len(&mut peer);
    assert!(len <= initial, "{len}, not {initial}");
}

fn window_stays_without_a_pause(kind: Kind) {
    let (mut peer, _) = warmed(Setup::new(kind), 200 * MSS, 20);
    peer.waits(20);
    peer.writes(300 * MSS);
    assert!(said_len(&mut peer) >= 20 * MSS);
}

/// The peer's window bounds what is underway, however large the other is.
fn never_more_than_the_peer_takes(kind: Kind) {
    for window in [1u16, 100, 536, 1459, 1460, 1461, 4000, 65_535] {
        let mut peer = Setup::unscaled(kind, window).open();
        peer.writes(200_000);
        let mut receiver = Receiver::default();
        for _ in 0..30 {
            let said = peer.said();
            let edge = said.iter().map(|said| said.to).max().unwrap_or(receiver.next);
            assert!(edge - receiver.next <= u32::from(window), "{edge} after {} of {window}", receiver.next);
            peer.waits(1);
            said.iter().for_each(|said| receiver.takes(said));
            receiver.answers(&mut peer);
        }
        assert_eq!(peer.engine.unacknowledged(peer.id), (200_000 - receiver.next) as usize);
        assert!(receiver.next > 0 || window < MSS as u16);
    }
}

/// Packets that are cut later hold whole segments, and no more than the windows allow.
fn large_packets_keep_to_the_windows(kind: Kind) {
    for largest in [3000, 20_000, 65_535] {
        let mut peer = Setup::unscaled(kind, 60_000).open();
        peer.largest = largest;
        peer.writes(1_000_000);
        let said = peer.said();
        let initial = (peer.facts().initial_window)(MSS as usize) as u32;
        assert!(said.last().unwrap().to <= initial, "{said:?}");
        let most = (largest as u32 - 40) / MSS * MSS;
        let mut acked = 0;
        for _ in 0..60 {
            acked = peer.said_bytes().iter().map(|(_, to)| *to).fold(acked.max(MSS), u32::max);
            peer.waits(20);
            peer.says_ack(acked);
            let bytes = peer.said();
            let is_whole = |said: &super::Said| said.len() <= most.max(MSS) && said.len().is_multiple_of(MSS);
            assert!(bytes.iter().filter(|said| !said.has(PSH)).all(is_whole), "{bytes:?}");
            let to = bytes.iter().map(|said| said.to).fold(acked, u32::max);
            assert!(to - acked <= 60_000);
            acked = to;
        }
        assert!(acked > 500_000 || peer.engine.unacknowledged(peer.id) > 0);
    }
}

/// RFC 6675 section 5: what is underway while losses are mended is no more than before, and new data is among it.
fn recovery_sends_no_more_than_leaves(kind: Kind) {
    let (mut peer, mut receiver) = warmed(Setup::new(kind), 100 * MSS, 20);
    peer.writes(400 * MSS);
    let said = peer.said();
    let count = said.len();
    assert!(count >= 20);
    peer.waits(20);
    let mut sent = 0;
    for (at, said) in said.iter().enumerate() {
        if at % 10 != 1 {
            receiver.takes(said);
            receiver.answers(&mut peer);
            sent += peer.said_bytes().len();
        }
    }
    // The loss is known after a few; a window that was taken back is then filled again, and no more.
    assert!(sent <= count && sent > count / 10, "{sent} of {count}");
}

for_kinds! {
    all: [
        initial_window_is_what_it_should_be,
        slow_start_makes_at_most_two_of_one,
        acknowledgement_of_many_segments_grows_the_window,
        loss_takes_the_window_back,
        never_more_than_the_peer_takes,
        window_stays_without_a_pause,
    ],
    native: [
        window_is_small_again_after_a_pause,
        recovery_sends_no_more_than_leaves,
        large_packets_keep_to_the_windows,
    ],
}
