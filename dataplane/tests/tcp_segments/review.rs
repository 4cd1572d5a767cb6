//! What nobody had looked at: edges of windows, numbers half way round the circle, and probes when there is little room.

use sluice_dataplane::clock::Instant;
use sluice_dataplane::tcp::{Engine, State};

use super::{MSS, Peer, Setup, warmed};
use crate::tcp_world::packet::{ACK, FIN, SYN};
use crate::tcp_world::subject::{Kind, Subject};

/// A block whose end is nearer to what was sent than to its own start, seen the other way round.
fn blocks_half_way_round_the_circle_are_passed_over(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    peer.writes(20 * MSS);
    peer.said();
    for (from, to) in [(0x7fff_ff00, 0x8000_8000), (0x7fff_ff00, 0x9000_0000), (MSS, 0x8000_0000)] {
        peer.says_blocks(0, &[(from, to)]);
        peer.says_blocks(0, &[(MSS, 2 * MSS), (from, to)]);
    }
    assert_eq!(peer.said_bytes().iter().filter(|(from, _)| *from == 0).count(), 0, "nothing shows a loss");
    peer.says_blocks(0, &[(MSS, 4 * MSS)]);
    assert_eq!(peer.said_bytes().first(), Some(&(0, MSS)), "and this does");
}

/// Its sender has filled the window, so there is no number in it left for what it says next.
fn acknowledgements_at_the_end_of_the_window_are_heard(kind: Kind) {
    let mut setup = Setup::new(kind);
    setup.spec.receive_buffer = 8 * MSS as usize;
    let mut peer = setup.open();
    peer.writes(5 * MSS);
    for at in 1..8 {
        peer.says_data(at * MSS, MSS);
    }
    peer.says(&peer.segment(ACK, 8 * MSS, 5 * MSS));
    assert_eq!(peer.engine.unacknowledged(peer.id), 0);
    peer.says(&peer.segment(ACK, 8 * MSS + 1, 5 * MSS));
    peer.says_data(0, MSS);
    assert_eq!(peer.readable(), 8 * MSS);
}

/// Windows of such a buffer are told in units of a kilobyte.
fn room_for_less_than_a_unit_of_the_window_is_not_told(kind: Kind) {
    let mut setup = Setup::new(kind);
    (setup.spec.receive_buffer, setup.spec.mtu) = (1 << 25, 576);
    let mut peer = setup.open();
    for at in 0..1 << 10 {
        peer.says_data(at << 15, 1 << 15);
    }
    assert_eq!(peer.said().last().map(|said| said.window), Some(0));
    assert_eq!(peer.reads(1023), 1023);
    assert_eq!(peer.said(), []);
    assert_eq!(peer.reads(1), 1);
    assert_eq!(peer.said().iter().map(|said| said.window).collect::<Vec<_>>(), [1024]);
}

/// RFC 7323 section 2.3.
fn scale_is_14_at_most(kind: Kind) {
    let mut spec = Setup::new(kind).spec;
    spec.receive_buffer = 1 << 30;
    assert_eq!(Subject::of(kind, spec).announced().scale, 14);
}

/// RFC 8985 section 7.3: the probe is not bounded by the congestion window.
fn probe_goes_though_the_congestion_window_is_full(kind: Kind) {
    let (mut peer, receiver) = warmed(Setup::new(kind), 64 * MSS, 20);
    peer.writes(700 * MSS);
    let sent = peer.said_bytes().last().unwrap().1;
    assert!(sent - receiver.next < 300 * MSS);
    let begin = peer.now;
    let word = peer.waits_for_word();
    assert_eq!(word.iter().map(|said| (said.from, said.to)).collect::<Vec<_>>(), [(sent, sent + MSS)]);
    assert!(word[0].at.since(begin).as_millis() < 100);
}

/// Nor does it wait for what Nagle waits for.
fn probe_goes_though_what_is_new_is_small(kind: Kind) {
    let mut setup = Setup::new(kind);
    setup.options.nagle = true;
    let (mut peer, receiver) = warmed(setup, 64 * MSS, 20);
    peer.writes(2 * MSS + 100);
    let end = receiver.next + 2 * MSS;
    assert_eq!(peer.said_bytes().last().unwrap().1, end);
    let begin = peer.now;
    let word = peer.waits_for_word();
    assert_eq!((word[0].from, word[0].to), (end, end + 100));
    assert!(word[0].at.since(begin).as_millis() < 100);
}

/// RFC 5681 section 4.2: what fills a hole is acknowledged at once, also when only the FIN was behind it.
fn data_before_an_early_fin_is_acknowledged_at_once(kind: Kind) {
    let mut peer = Setup::new(kind).open();
    peer.says(&peer.segment(ACK | FIN, 100, 0));
    peer.said();
    peer.says_data(0, 100);
    assert_eq!(peer.said().iter().map(|said| said.acked).collect::<Vec<_>>(), [101]);
}

/// Both sides ask; the peer cannot acknowledge what has not left.
fn a_syn_that_was_not_sent_is_not_acknowledged(kind: Kind) {
    let setup = Setup::new(kind);
    let mut engine = Subject::of(kind, setup.spec);
    let id = engine.connect(&setup.opening(), Instant::from_ms(1000)).unwrap();
    let mut peer = Peer::new(engine, id, Instant::from_ms(1000), &setup);
    peer.window = 1024;
    let [syn, ack] = [peer.segment(SYN, u32::MAX, 0), peer.segment(ACK, 0, u32::MAX)];
    peer.engine.receive(id, &syn.write(), peer.now);
    peer.engine.receive(id, &ack.write(), peer.now);
    assert_eq!(peer.state(), State::Connecting);
    peer.flush();
    assert!(peer.said().iter().any(|said| said.flags == SYN | ACK));
    peer.says_ack(0);
    assert_eq!(peer.state(), State::Open);
}

for_kinds! {
    all: [],
    native: [
        blocks_half_way_round_the_circle_are_passed_over,
        acknowledgements_at_the_end_of_the_window_are_heard,
        room_for_less_than_a_unit_of_the_window_is_not_told,
        scale_is_14_at_most,
        probe_goes_though_the_congestion_window_is_full,
        probe_goes_though_what_is_new_is_small,
        data_before_an_early_fin_is_acknowledged_at_once,
        a_syn_that_was_not_sent_is_not_acknowledged,
    ],
}
