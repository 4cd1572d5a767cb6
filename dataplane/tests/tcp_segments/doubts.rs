//! Segments that somebody else may have made up (RFC 5961).

use sluice_dataplane::tcp::{Engine, State};

use super::ends::{STATES, peer_in};
use super::{Peer, Setup};
use crate::tcp_world::packet::{ACK, RST, SYN};
use crate::tcp_world::subject::Kind;

/// Section 3.2: the exact number ends it, another one in the window is challenged, and outside it is nothing.
fn only_the_exact_number_resets(kind: Kind) {
    for state in STATES {
        let (mut peer, next, acked) = peer_in(kind, state);
        for (ahead, is_challenged) in
            [(1u32, true), (65_000, true), (140_000, false), (u32::MAX, false), (1 << 31, false)]
        {
            peer.says(&peer.segment(RST, next.wrapping_add(ahead), 0));
            let said = peer.said();
            assert_eq!(said.len(), usize::from(is_challenged), "{state} {ahead}");
            for said in said {
                assert_eq!((said.flags, said.acked, said.len()), (ACK, next, 0), "{state} {ahead}");
            }
            assert_eq!(peer.state(), State::Open, "{state} {ahead}");
            answered_in_between(&mut peer, next, acked);
        }
        // A peer that has restarted answers the challenge so.
        peer.says(&peer.segment(RST, next, 0));
        assert_eq!((peer.state(), peer.said()), (State::Reset, vec![]), "{state}");
    }
}

/// Time in which a challenge is allowed again, with a peer that is alive.
fn answered_in_between(peer: &mut Peer, next: u32, acked: u32) {
    for _ in 0..10 {
        peer.waits(1000);
        peer.says(&peer.segment(ACK, next, acked));
    }
    peer.said();
}

fn exact_number_resets_at_a_closed_window(kind: Kind) {
    let mut setup = Setup::new(kind);
    setup.spec.receive_buffer = 2048;
    let mut peer = setup.open();
    peer.says_data(0, 2048);
    peer.says(&peer.segment(RST, 2049, 0));
    peer.says(&peer.segment(RST, 2047, 0));
    assert_eq!(peer.state(), State::Open);
    peer.says(&peer.segment(RST, 2048, 0));
    assert_eq!(peer.state(), State::Reset);
}

/// Section 4.2: whatever its number.
fn syn_is_challenged(kind: Kind) {
    for state in STATES {
        let (mut peer, next, acked) = peer_in(kind, state);
        for (flags, ahead) in [(SYN, 0), (SYN | ACK, 0), (SYN, 100), (SYN, 1 << 31), (SYN | ACK, u32::MAX)] {
            let mut syn = peer.segment(flags, next.wrapping_add(ahead), acked);
            syn.payload = vec![9; 10];
            peer.says(&syn);
            let said = peer.said();
            assert_eq!(said.len(), 1, "{state} {ahead}");
            assert_eq!((said[0].flags, said[0].acked, said[0].len()), (ACK, next, 0), "{state}");
            assert_eq!((peer.state(), peer.readable()), (State::Open, 0), "{state}");
            answered_in_between(&mut peer, next, acked);
        }
    }
}

/// Section 7: a flood makes few answers, and leaves the connection as it is.
fn challenges_are_limited(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    for round in 0..2000 {
        let flags = if round % 2 == 0 { SYN } else { RST };
        peer.says(&peer.segment(flags, 1000 + round, 0));
        peer.waits(2);
    }
    let said = peer.said();
    assert!((1..=40).contains(&said.len()), "{} in 4 s", said.len());
    assert!(said.iter().all(|said| (said.flags, said.acked) == (ACK, 0)));
    peer.writes(100);
    assert_eq!(peer.said_bytes(), [(0, 100)]);
    peer.says(&peer.data(0, 100, 100));
    assert_eq!((peer.readable(), peer.engine.unacknowledged(peer.id)), (100, 0));
}

/// Section 5.2: what acknowledges something from long ago is no data of this peer.
fn data_with_an_acknowledgement_from_long_ago_is_dropped(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    for back in [1 << 29, 1 << 30, (1 << 31) - 1, 1 << 31] {
        peer.says(&peer.data(0, 100, 0u32.wrapping_sub(back)));
        assert_eq!((peer.readable(), peer.state()), (0, State::Open), "{back}");
    }
    peer.says_data(0, 100);
    assert_eq!(peer.readable(), 100);
}

for_kinds! {
    all: [
        only_the_exact_number_resets,
        exact_number_resets_at_a_closed_window,
        syn_is_challenged,
        challenges_are_limited,
    ],
    native: [data_with_an_acknowledgement_from_long_ago_is_dropped],
}
