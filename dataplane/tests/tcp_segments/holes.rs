//! What is lost is sent again: after three duplicates (RFC 5681 section 3.2, RFC 6582), and by what the peer says has come
//! (RFC 6675).

use sluice_dataplane::tcp::{Engine, State};

use super::receiver::Receiver;
use super::{MSS, Peer, Said, Setup, warmed};
use crate::tcp_world::subject::Kind;

/// So many segments of a connection are underway; from where on.
fn underway(setup: Setup, segments: u32) -> (Peer, Receiver, Vec<Said>) {
    let (mut peer, receiver) = warmed(setup, 64 * MSS, 20);
    peer.writes(segments * MSS);
    let said = peer.said();
    assert_eq!(said.last().map(|last| last.to), Some((64 + segments) * MSS));
    peer.waits(20);
    (peer, receiver, said)
}

fn third_duplicate_is_a_loss_and_the_second_is_none(kind: Kind) {
    let (mut peer, receiver, _) = underway(Setup::without_sack(kind), 8);
    let una = receiver.next;
    for _ in 0..2 {
        peer.says_ack(una);
        assert_eq!(peer.said_bytes(), []);
    }
    peer.says_ack(una);
    let again = peer.said_bytes();
    assert_eq!((again.len(), again[0].0), (1, una));
    assert!(again[0].1 - una <= MSS);
    peer.says_ack(una);
    assert!(peer.said_bytes().iter().all(|(from, _)| *from != una), "once");
    peer.says_ack(una + 8 * MSS);
    assert_eq!(peer.engine.unacknowledged(peer.id), 0);
}

/// RFC 5681 section 2: a duplicate carries nothing, changes no window, and something is underway.
fn what_says_more_is_no_duplicate(kind: Kind) {
    let (mut peer, receiver, _) = underway(Setup::without_sack(kind), 8);
    for _ in 0..5 {
        peer.window += 1280;
        peer.says_ack(receiver.next);
    }
    assert_eq!(peer.said_bytes(), []);
    for round in 0..5 {
        peer.says(&peer.data(round * 100, 100, receiver.next));
    }
    assert_eq!(peer.said_bytes(), []);
    peer.says(&peer.segment(crate::tcp_world::packet::ACK, 500, receiver.next + 8 * MSS));
    for _ in 0..5 {
        peer.says(&peer.segment(crate::tcp_world::packet::ACK, 500, receiver.next + 8 * MSS));
    }
    peer.waits(1000);
    assert_eq!((peer.said_bytes(), peer.engine.unacknowledged(peer.id)), (vec![], 0));
}

/// RFC 6582: an acknowledgement of a part says where the next hole is.
fn part_that_is_acknowledged_shows_the_next_hole(kind: Kind) {
    let (mut peer, mut receiver, said) = underway(Setup::without_sack(kind), 10);
    let una = receiver.next;
    for (at, said) in said.iter().enumerate() {
        if at != 0 && at != 4 && at != 7 {
            receiver.takes(said);
            receiver.answers_plainly(&mut peer);
        }
    }
    for hole in [0, 4, 7] {
        let again = peer.said();
        let at = una + hole * MSS;
        assert!(again.iter().any(|said| said.from == at && said.len() == MSS), "{hole}: {again:?}");
        again.iter().for_each(|said| receiver.takes(said));
        receiver.answers_plainly(&mut peer);
    }
    assert_eq!((receiver.next, peer.engine.unacknowledged(peer.id)), (una + 10 * MSS, 0));
}

/// The segments of ten that the peer has, but those; what was sent again until then.
fn answered_but(peer: &mut Peer, receiver: &mut Receiver, said: &[Said], lost: &[usize]) -> Vec<(u32, u32)> {
    for (at, said) in said.iter().enumerate() {
        if !lost.contains(&at) {
            receiver.takes(said);
            receiver.answers(peer);
        }
    }
    let mut again = peer.said_bytes();
    again.sort_unstable();
    again
}

fn segments(una: u32, numbers: &[usize]) -> Vec<(u32, u32)> {
    numbers.iter().map(|at| (una + *at as u32 * MSS, una + (*at as u32 + 1) * MSS)).collect()
}

fn only_what_is_lost_is_sent_again(kind: Kind) {
    for lost in [[1, 3, 5], [0, 1, 2], [0, 3, 6], [4, 5, 6]] {
        let mut peer = Setup::new(kind).open();
        peer.writes(10 * MSS);
        let (said, mut receiver) = (peer.said(), Receiver::default());
        assert_eq!(said.len(), 10);
        peer.waits(20);
        let again = answered_but(&mut peer, &mut receiver, &said, &lost);
        assert_eq!(again, segments(0, &lost), "of {lost:?}");
        peer.waits(20);
        again.iter().for_each(|(from, to)| receiver.takes_bytes(*from, *to));
        receiver.answers(&mut peer);
        assert_eq!(peer.engine.unacknowledged(peer.id), 0);
        peer.waits(5000);
        assert_eq!(peer.said_bytes(), []);
    }
}

fn lost_retransmission_is_sent_again_when_the_timer_runs_out(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    peer.writes(10 * MSS);
    let (said, mut receiver) = (peer.said(), Receiver::default());
    peer.waits(20);
    let again = answered_but(&mut peer, &mut receiver, &said, &[1, 3, 5]);
    for (from, to) in &again[1..] {
        receiver.takes_bytes(*from, *to);
        receiver.answers(&mut peer);
    }
    let (at, mut last) = (peer.now, peer.said());
    while last.is_empty() {
        last = peer.waits_for_word();
    }
    let last = last.iter().map(|said| (said.from, said.to)).collect::<Vec<_>>();
    assert_eq!(last, segments(0, &[1]), "what is there is not sent");
    assert!(peer.now.since(at).as_millis() <= 1000);
    receiver.takes_bytes(MSS, 2 * MSS);
    receiver.answers(&mut peer);
    assert_eq!(peer.engine.unacknowledged(peer.id), 0);
    peer.waits(5000);
    assert_eq!(peer.said_bytes(), []);
}

/// Where sequence numbers wrap, wherever in the flight that is.
fn losses_are_mended_around_the_wrap(kind: Kind) {
    for back in [0, 1, 2, MSS, MSS + 1, 3 * MSS, 5 * MSS - 1, 9 * MSS, 10 * MSS, 1 << 31, (1 << 31) + 4 * MSS]
    {
        let mut setup = Setup::new(kind);
        setup.isn = back.wrapping_neg();
        let mut peer = setup.open();
        peer.writes(10 * MSS);
        let (said, mut receiver) = (peer.said(), Receiver::default());
        peer.waits(20);
        let again = answered_but(&mut peer, &mut receiver, &said, &[2, 4, 5]);
        assert_eq!(again, segments(0, &[2, 4, 5]), "{back}");
        again.iter().for_each(|(from, to)| receiver.takes_bytes(*from, *to));
        receiver.answers(&mut peer);
        peer.writes(30 * MSS);
        receiver.takes_all(&mut peer, 20, 40 * MSS, |_| false);
        assert_eq!(peer.engine.unacknowledged(peer.id), 0, "{back}");
    }
}

fn peer_that_forgets_what_it_said_gets_it_again(kind: Kind) {
    for lost in [&[1, 3, 5][..], &[0], &[0, 9], &[2, 3, 4, 5, 6]] {
        let mut peer = Setup::new(kind).open();
        peer.writes(10 * MSS);
        let (said, mut receiver) = (peer.said(), Receiver::default());
        peer.waits(20);
        let again = answered_but(&mut peer, &mut receiver, &said, lost);
        receiver.reneges();
        again.iter().for_each(|(from, to)| receiver.takes_bytes(*from, *to));
        receiver.answers(&mut peer);
        let count = receiver.takes_all(&mut peer, 20, 10 * MSS, |_| false);
        assert!(count <= 30, "{count} segments for 10");
        assert_eq!(peer.engine.unacknowledged(peer.id), 0);
    }
}

/// Blocks outside of what is underway, and such as end before they begin.
fn blocks_that_cannot_be_say_nothing(kind: Kind) {
    let (una, end) = (66 * MSS, 74 * MSS);
    let bogus: &[&[(u32, u32)]] = &[
        &[(0, MSS)],
        &[(una - 100, una)],
        &[(una + 2 * MSS, una + MSS)],
        &[(end, end + MSS)],
        &[(end - MSS, end + 1)],
        &[(una + MSS, una + MSS)],
        &[(0, 0), (una + 1, una), (u32::MAX, 5)],
        &[(una + MSS, una + MSS + 0x8000_0000)],
        &[(una.wrapping_sub(1 << 31), end)],
        &[(0, end), (una, u32::MAX), (una - 1, end + 1)],
        &[(end + 1, una), (end + 1000, end + 2000), (1 << 30, 1 << 31), (0, una)],
    ];
    for blocks in bogus {
        let (mut peer, mut receiver, _) = underway(Setup::new(kind), 10);
        peer.says_ack(una);
        for _ in 0..5 {
            peer.says_blocks(una, blocks);
        }
        assert_eq!(peer.engine.unacknowledged(peer.id), (end - una) as usize, "{blocks:?}");
        peer.said();
        // All but the first two was lost, and must be sent again.
        receiver.takes_bytes(una - 2 * MSS, una);
        receiver.takes_all(&mut peer, 20, end, |_| false);
        assert_eq!((peer.state(), peer.engine.unacknowledged(peer.id)), (State::Open, 0));
    }
}

/// Any blocks whatever, some of them true, over a wire that loses: it always comes to an end.
fn random_blocks_break_nothing(kind: Kind) {
    for seed in 1..200 {
        println!("seed {seed}");
        let mut random = super::arrival::Random(seed);
        let mut peer = Setup::new(kind).open();
        peer.writes(40 * MSS);
        let mut receiver = Receiver::default();
        for _ in 0..60 {
            for said in peer.said() {
                if random.below(3) > 0 {
                    receiver.takes(&said);
                }
                let mut edge = || receiver.next.wrapping_add(random.below(30 * MSS)).wrapping_sub(5 * MSS);
                let blocks = [(edge(), edge()), (edge(), edge()), (edge(), edge())];
                peer.says_blocks(receiver.next, &blocks[..random.below(4) as usize]);
            }
            peer.waits(random.below(100).into());
            assert_eq!(peer.state(), State::Open);
        }
        receiver.takes_all(&mut peer, 20, 40 * MSS, |_| false);
        assert_eq!(peer.engine.unacknowledged(peer.id), 0);
    }
}

/// What is lost may be lost again, in any pattern; more is only sent again where a timer had to.
fn losses_are_mended_whatever_they_are(kind: Kind) {
    for seed in 1..60 {
        println!("seed {seed}");
        let mut random = super::arrival::Random(seed);
        let (mut peer, mut receiver) = warmed(Setup::new(kind), 40 * MSS, 10);
        peer.writes(400 * MSS);
        let thousandths = random.below(200);
        let (mut lost, mut in_a_row) = (0, 0);
        let count = receiver.takes_all(&mut peer, 10, 440 * MSS, |_| {
            // More than that would time out.
            let is_lost = random.below(1000) < thousandths && in_a_row < 2;
            in_a_row = if is_lost { in_a_row + 1 } else { 0 };
            lost += usize::from(is_lost);
            is_lost
        });
        assert_eq!(peer.engine.unacknowledged(peer.id), 0);
        let resent = count - 400;
        // When a timer has to help twice the peer may have forgotten what it said, as far as the engine knows.
        let most = if thousandths < 100 { lost + lost / 3 + 5 } else { 4 * lost + 10 };
        assert!(resent <= most, "{resent} for {lost} at {thousandths}");
    }
}

for_kinds! {
    all: [
        third_duplicate_is_a_loss_and_the_second_is_none,
        what_says_more_is_no_duplicate,
        peer_that_forgets_what_it_said_gets_it_again,
        blocks_that_cannot_be_say_nothing,
        random_blocks_break_nothing,
    ],
    native: [
        losses_are_mended_whatever_they_are,
        part_that_is_acknowledged_shows_the_next_hole,
        only_what_is_lost_is_sent_again,
        losses_are_mended_around_the_wrap,
        lost_retransmission_is_sent_again_when_the_timer_runs_out,
    ],
}
