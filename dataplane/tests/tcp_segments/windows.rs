//! Windows that are closed, opened by a little, and never taken back (RFC 9293 section 3.8.6).

use std::time::Duration;

use sluice_dataplane::tcp::{Engine, State};

use super::{MSS, Peer, Setup};
use crate::tcp_world::packet::ACK;
use crate::tcp_world::subject::Kind;

/// Something waits, and the peer takes nothing.
fn closed(kind: Kind) -> Peer {
    let mut peer = Setup::unscaled(kind, 0).open();
    peer.writes(5000);
    assert!(peer.said().iter().all(|said| said.len() <= 1));
    peer
}

fn closed_window_is_probed_as_long_as_it_is_answered(kind: Kind) {
    let (mut peer, mut gaps) = (closed(kind), Vec::new());
    let begin = peer.now;
    while peer.now.since(begin) < Duration::from_secs(1200) {
        let at = peer.now;
        let said = peer.waits_for_word();
        assert!(said.len() <= 2 && said.iter().all(|said| said.len() <= 1), "{said:?}");
        gaps.push(peer.now.since(at).as_millis());
        peer.waits(10);
        peer.says_ack(0);
        peer.said();
    }
    assert!(gaps[0] <= 5000 && gaps.iter().all(|gap| *gap <= 61_000), "{gaps:?}");
    assert!(gaps.len() < 700, "{} probes", gaps.len());
    assert_eq!((peer.state(), peer.engine.unacknowledged(peer.id)), (State::Open, 5000));
    peer.window = 60_000;
    peer.says_ack(0);
    let mut all = peer.said_bytes();
    peer.waits(1000);
    all.extend(peer.said_bytes());
    assert_eq!((all[0].0, peer.state()), (0, State::Open));
    assert!(all.iter().any(|(_, to)| *to >= MSS), "{all:?}");
}

fn closed_window_that_nobody_explains_is_given_up(kind: Kind) {
    let mut peer = closed(kind);
    let (begin, facts) = (peer.now, peer.facts());
    while peer.state() == State::Open {
        peer.waits_for_word();
    }
    let late = peer.now.since(begin).as_millis() as u64;
    assert_eq!(peer.state(), State::TimedOut);
    assert!((facts.unanswered_ms..=facts.unanswered_ms + 5000).contains(&late), "{late}");
}

fn lost_news_of_an_open_window_is_asked_for(kind: Kind) {
    let mut peer = closed(kind);
    peer.waits_for_word();
    peer.says_ack(0);
    peer.said();
    peer.window = 4000;
    let probe = peer.waits_for_word();
    // It took the byte of the probe, if there was one.
    peer.says_ack(u32::from(probe.iter().any(|said| said.len() > 0)));
    peer.waits(1000);
    assert!(peer.said_bytes().iter().any(|(_, to)| *to >= 1460));
}

/// Whatever the reader does, a window grows by a segment or by half of the buffer, or not at all.
fn window_does_not_open_by_a_little(kind: Kind) {
    for buffer in [4000u32, 20_000, 65_536, 200_000] {
        let mut setup = Setup::new(kind);
        setup.spec.receive_buffer = buffer as usize;
        let mut peer = setup.open();
        while peer.readable() < buffer {
            let len = MSS.min(buffer - peer.readable());
            peer.says_data(peer.readable(), len);
        }
        peer.waits(100);
        let mut edge = peer.said().last().unwrap().edge();
        assert_eq!(edge, buffer, "it is closed");
        let mut news = 0;
        for _ in 0..buffer / 100 {
            assert_eq!(peer.reads(100), 100);
            for said in peer.said() {
                let step = said.edge() - edge;
                assert!(step == 0 || step >= MSS.min(buffer / 2) - 16, "{step} of {buffer}");
                (edge, news) = (said.edge(), news + u32::from(step > 0));
            }
        }
        assert!(news > 0, "nobody told the peer of {buffer}");
        peer.waits(1000);
        let last = peer.said().last().map_or(edge, super::Said::edge);
        assert!(last >= buffer + buffer / 2 - MSS.min(buffer / 4), "{last} of {buffer}: as good as closed");
    }
}

fn reader_of_all_tells_the_peer_at_once(kind: Kind) {
    let mut setup = Setup::new(kind);
    setup.spec.receive_buffer = 8192;
    let mut peer = setup.open();
    peer.says_data(0, 8192);
    peer.waits(100);
    peer.said();
    assert_eq!(peer.reads(10_000), 8192);
    let said = peer.said();
    assert_eq!(said.len(), 1);
    assert_eq!((said[0].acked, said[0].window, said[0].len()), (8192, 8192, 0));
    peer.waits(1000);
    assert_eq!(peer.said(), []);
}

/// Section 3.8.6.2.1: a peer that opens its window byte by byte does not get segments of that size.
fn small_openings_are_not_filled_at_once(kind: Kind) {
    let mut peer = Setup::unscaled(kind, 20_000).open();
    peer.writes(200_000);
    let (begin, mut acked, mut edge) = (peer.now, 0, 20_000);
    let mut small = 0;
    for _ in 0..1000 {
        peer.waits(1);
        let said = peer.said();
        acked = said.iter().map(|said| said.to).fold(acked, u32::max);
        small += said.iter().filter(|said| (1..MSS).contains(&said.len())).count();
        edge += 40;
        peer.window = edge - acked;
        peer.says_ack(acked);
    }
    let seconds = peer.now.since(begin).as_secs_f64();
    assert!(acked > 40_000, "it goes on: {acked}");
    // The override timeout of the RFC is 0.1 s at least.
    assert!(small as f64 <= seconds * 10.0 + 2.0, "{small} small segments");
}

/// A window that never holds a full segment is used all the same.
fn window_smaller_than_a_segment_is_used(kind: Kind) {
    let mut peer = Setup::unscaled(kind, 700).open();
    peer.writes(7000);
    let mut acked = 0;
    let begin = peer.now;
    while acked < 7000 {
        let mut said = peer.said();
        if said.is_empty() {
            said = peer.waits_for_word();
        }
        acked = said.iter().map(|said| said.to).fold(acked, u32::max);
        peer.waits(5);
        peer.says_ack(acked);
    }
    assert!(peer.now.since(begin) < Duration::from_secs(20), "{:?}", peer.now.since(begin));
}

/// RFC 7323 section 2: windows beyond 64 KiB, both ways.
fn large_windows_are_scaled(kind: Kind) {
    let mut setup = Setup::new(kind);
    setup.spec.receive_buffer = 1 << 20;
    let mut peer = setup.open();
    peer.says_data(0, 2 * MSS);
    peer.waits(100);
    assert_eq!(peer.reads(5000), 2 * MSS);
    peer.says_data(2 * MSS, 2 * MSS);
    peer.waits(100);
    let last = peer.said().pop().unwrap();
    assert!(last.window > (1 << 20) - 8 * MSS, "{}", last.window);
    // Beyond what a window without scale could say.
    peer.says_data(200_000, MSS);
    peer.says_data(4 * MSS, MSS);
    let mut at = 5 * MSS;
    while at < 200_000 {
        let len = MSS.min(200_000 - at);
        peer.says(&peer.data(at, len, 0));
        at += len;
    }
    assert_eq!(peer.readable() + 2 * MSS, 200_000 + MSS);
}

/// The largest window that there can be, and scales that are larger than any (RFC 7323 section 2.3).
fn largest_windows_are_no_trouble(kind: Kind) {
    for (scale, window) in [(14, 0xffff << 14), (255, 0xffff << 14), (14, 1 << 14)] {
        let mut setup = Setup::new(kind);
        setup.agreed.peer_scale = Some(scale);
        setup.window = 0;
        let mut peer = setup.open();
        peer.window = window;
        peer.says_ack(0);
        peer.writes(100_000);
        let said = peer.said();
        let initial = (peer.facts().initial_window)(MSS as usize) as u32;
        assert!(said.last().is_some_and(|said| said.to <= initial.min(window)), "{said:?}");
        let mut receiver = super::receiver::Receiver::default();
        said.iter().for_each(|said| receiver.takes(said));
        receiver.answers(&mut peer);
        receiver.takes_all(&mut peer, 10, 100_000, |_| false);
        assert_eq!(peer.engine.unacknowledged(peer.id), 0);
    }
}

/// A peer that goes back on its window is sent nothing new; what it has not had is sent again when it may be.
fn window_that_is_taken_back_is_kept_to(kind: Kind) {
    let mut peer = Setup::unscaled(kind, 10_000).open();
    peer.writes(30_000);
    let sent = peer.said_bytes().last().unwrap().1;
    peer.window = 0;
    peer.says(&peer.data(0, 1, 1));
    let begin = peer.now;
    while peer.now.since(begin) < Duration::from_secs(20) {
        let said = peer.waits_for_word();
        assert!(said.iter().all(|said| said.to <= sent + 1), "nothing new but a probe: {said:?}");
        peer.says(&peer.segment(ACK, 1, 1));
        peer.said();
    }
    peer.window = 20_000;
    let mut receiver = super::receiver::Receiver::default();
    receiver.takes_bytes(0, 1);
    peer.says(&peer.segment(ACK, 1, 1));
    let begin = peer.now;
    while receiver.next < 30_000 {
        let mut said = peer.said();
        if said.is_empty() {
            said = peer.waits_for_word();
        }
        peer.waits(5);
        said.iter().for_each(|said| receiver.takes(said));
        peer.says(&peer.segment(ACK, 1, receiver.next));
    }
    assert!(peer.now.since(begin) < Duration::from_secs(60));
}

for_kinds! {
    all: [
        closed_window_is_probed_as_long_as_it_is_answered,
        closed_window_that_nobody_explains_is_given_up,
        lost_news_of_an_open_window_is_asked_for,
        reader_of_all_tells_the_peer_at_once,
        window_smaller_than_a_segment_is_used,
        large_windows_are_scaled,
        largest_windows_are_no_trouble,
        window_that_is_taken_back_is_kept_to,
    ],
    native: [window_does_not_open_by_a_little, small_openings_are_not_filled_at_once],
}
