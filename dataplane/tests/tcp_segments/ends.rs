//! How connections end: FINs in every order, both directions closed by halves, and resets.

use sluice_dataplane::tcp::{Engine, State};

use super::{Peer, Setup};
use crate::tcp_world::packet::{ACK, FIN, RST};
use crate::tcp_world::subject::Kind;

/// States of RFC 9293 section 3.3.2 in which both sides know of each other.
pub(super) const STATES: [&str; 6] =
    ["established", "close-wait", "fin-wait-1", "fin-wait-2", "last-ack", "closing"];

/// The connection in this state; the peer's FIN has the number 0 of its stream, ours the number 0 of ours. What the peer
/// says next and what it acknowledges.
pub(super) fn peer_in(kind: Kind, state: &str) -> (Peer, u32, u32) {
    let mut peer = Setup::new(kind).open();
    if matches!(state, "close-wait" | "last-ack") {
        peer.says(&peer.segment(ACK | FIN, 0, 0));
        assert!(peer.engine.is_peer_done(peer.id));
    }
    if !matches!(state, "established" | "close-wait") {
        peer.closes();
        assert!(peer.said().last().is_some_and(|said| said.has(FIN)));
    }
    match state {
        "fin-wait-2" => peer.says(&peer.segment(ACK, 0, 1)),
        "closing" => peer.says(&peer.segment(ACK | FIN, 0, 0)),
        _ => {}
    }
    peer.waits(100);
    peer.said();
    assert_eq!(peer.state(), State::Open, "{state}");
    let next = u32::from(matches!(state, "close-wait" | "last-ack" | "closing"));
    (peer, next, u32::from(state == "fin-wait-2"))
}

fn what_is_old_is_answered_in_every_state(kind: Kind) {
    for state in STATES {
        let (mut peer, next, acked) = peer_in(kind, state);
        for offset in [next.wrapping_sub(1000), next.wrapping_sub(500)] {
            let mut old = peer.segment(ACK, offset, acked);
            old.payload = vec![0; 500];
            peer.says(&old);
            let said = peer.said();
            assert_eq!(said.len(), 1, "{state}");
            assert_eq!((said[0].acked, said[0].len()), (next, 0), "{state}");
        }
        assert_eq!((peer.state(), peer.readable()), (State::Open, 0), "{state}");
    }
}

fn what_comes_first_after_our_close_is_heard(kind: Kind) {
    for state in ["fin-wait-1", "fin-wait-2"] {
        let (mut peer, next, acked) = peer_in(kind, state);
        peer.says(&peer.data(next, 3000, acked));
        assert_eq!(peer.readable(), 3000, "{state}");
        let mut last = peer.data(3000, 10, 1);
        last.flags |= FIN;
        peer.says(&last);
        peer.waits(100);
        assert_eq!(peer.said().last().unwrap().acked, 3011, "{state}");
        assert_eq!((peer.state(), peer.reads(5000)), (State::TimeWait, 3010), "{state}");
    }
}

fn what_is_said_after_the_peers_close_is_sent(kind: Kind) {
    let (mut peer, next, _) = peer_in(kind, "close-wait");
    peer.writes(2000);
    assert_eq!(peer.said_bytes().last(), Some(&(1460, 2000)));
    peer.says(&peer.segment(ACK, next, 2000));
    assert_eq!(peer.engine.unacknowledged(peer.id), 0);
    peer.closes();
    let fin = peer.said().pop().unwrap();
    assert!((fin.from, fin.has(FIN), fin.acked) == (2000, true, 1));
    assert_eq!(peer.state(), State::Open);
    peer.says(&peer.segment(ACK, next, 2001));
    assert_eq!(peer.state(), State::Closed);
}

fn both_close_at_once(kind: Kind) {
    let (mut peer, next, _) = peer_in(kind, "closing");
    peer.says(&peer.segment(ACK, next, 0));
    assert_eq!(peer.state(), State::Open, "our FIN is not acknowledged");
    peer.says(&peer.segment(ACK, next, 1));
    assert_eq!(peer.state(), State::TimeWait);
}

fn fin_that_acknowledges_ours_begins_time_wait(kind: Kind) {
    let (mut peer, ..) = peer_in(kind, "fin-wait-1");
    peer.says(&peer.segment(ACK | FIN, 0, 1));
    let said = peer.said();
    assert_eq!((said.len(), said[0].acked, peer.state()), (1, 1, State::TimeWait));
    assert_eq!(peer.engine.numbers(peer.id), (said[0].from.wrapping_add(peer.begins[0]), peer.begins[1] + 1));
    peer.waits(600_000);
    assert_eq!((peer.said(), peer.state()), (vec![], State::TimeWait));
}

fn fin_that_is_lost_is_sent_again(kind: Kind) {
    for state in ["fin-wait-1", "last-ack", "closing"] {
        let (mut peer, next, _) = peer_in(kind, state);
        for _ in 0..3 {
            let said = peer.waits_for_word();
            assert!(said.iter().any(|said| said.has(FIN) && said.from == 0 && said.acked == next), "{state}");
        }
        peer.says(&peer.segment(ACK, next, 1));
        peer.waits(10_000);
        assert!(peer.said().iter().all(|said| !said.has(FIN)), "{state}");
    }
}

/// Answers to old segments overtake those that are to come, and say three times that the FIN is not there.
fn fin_is_sent_again_after_answers_that_do_not_acknowledge_it(kind: Kind) {
    for state in ["fin-wait-1", "last-ack", "closing"] {
        let (mut peer, next, _) = peer_in(kind, state);
        (0..5).for_each(|_| peer.says(&peer.segment(ACK, next, 0)));
        peer.said();
        for _ in 0..3 {
            let said = peer.waits_for_word();
            assert!(said.iter().any(|said| said.has(FIN) && said.from == 0 && said.acked == next), "{state}");
        }
        peer.says(&peer.segment(ACK, next, 1));
        peer.waits(10_000);
        assert!(peer.said().iter().all(|said| !said.has(FIN)), "{state}");
    }
}

fn fin_is_sent_behind_all_data(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    let mut receiver = super::receiver::Receiver::default();
    peer.writes(100_000);
    peer.closes();
    assert_eq!(peer.engine.writable(peer.id), 0);
    let mut fins = 0;
    while receiver.next < 100_000 {
        let said = peer.said();
        peer.waits(5);
        assert!(!said.is_empty(), "it goes on");
        for said in said {
            fins += u32::from(said.has(FIN));
            receiver.takes(&said);
            receiver.answers(&mut peer);
        }
    }
    fins += peer.said().iter().filter(|said| said.has(FIN)).count() as u32;
    assert_eq!((fins, peer.state()), (1, State::Open));
    peer.says_ack(100_000);
    assert_eq!(peer.state(), State::Open);
    peer.says_ack(100_001);
    peer.says(&peer.segment(ACK | FIN, 0, 100_001));
    assert_eq!(peer.state(), State::TimeWait);
}

fn abort_says_the_next_number(kind: Kind) {
    for state in STATES {
        let (mut peer, next, _) = peer_in(kind, state);
        let is_open = matches!(state, "established" | "close-wait");
        if is_open {
            peer.writes(5000);
        }
        let sent = peer.said().iter().map(|said| said.to).max().unwrap_or(1);
        peer.engine.abort(peer.id);
        peer.flush();
        let said = peer.said();
        assert_eq!(said.len(), 1, "{state}");
        assert!(said[0].has(RST) && said[0].from == sent && said[0].acked == next, "{state} {said:?}");
        assert_eq!((peer.state(), peer.engine.due(peer.id, peer.now)), (State::Aborted, None));
        peer.says(&peer.data(next, 100, 0));
        assert_eq!((peer.said(), peer.readable()), (vec![], 0));
    }
}

/// The read side must see what came before a reset, or nothing; never something else.
fn reset_ends_both_directions(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    peer.writes(5000);
    peer.says_data(0, 100);
    peer.says(&peer.segment(RST, 100, 0));
    assert_eq!(peer.state(), State::Reset);
    assert_eq!(peer.engine.writable(peer.id), 0);
    assert!(matches!(peer.reads(1000), 0 | 100));
    assert!(!peer.engine.has_peer_closed(peer.id));
    peer.said();
    peer.waits(100_000);
    assert_eq!((peer.said(), peer.engine.due(peer.id, peer.now)), (vec![], None));
}

for_kinds! {
    all: [
        what_is_old_is_answered_in_every_state,
        what_comes_first_after_our_close_is_heard,
        what_is_said_after_the_peers_close_is_sent,
        both_close_at_once,
        fin_that_acknowledges_ours_begins_time_wait,
        fin_that_is_lost_is_sent_again,
        fin_is_sent_again_after_answers_that_do_not_acknowledge_it,
        fin_is_sent_behind_all_data,
        abort_says_the_next_number,
        reset_ends_both_directions,
    ],
    native: [],
}
