//! The retransmission timer (RFC 6298), and the probe that comes before it (RFC 8985 section 7).

use std::time::Duration;

use sluice_dataplane::clock::Instant;
use sluice_dataplane::tcp::{Engine, State};

use super::{MSS, Peer, Setup, warmed};
use crate::tcp_world::packet::SYN;
use crate::tcp_world::subject::{Kind, Subject};

/// When something was said next, so often, to nobody's answer.
fn times(peer: &mut Peer, count: usize) -> Vec<Instant> {
    (0..count).map(|_| peer.waits_for_word()[0].at).collect()
}

fn gaps_ms(times: &[Instant]) -> Vec<u64> {
    times.windows(2).map(|pair| pair[1].since(pair[0]).as_millis() as u64).collect()
}

/// Section 2.1, and section 5.5.
fn syn_is_sent_again_after_one_second_then_two_then_four(kind: Kind) {
    let setup = Setup::new(kind);
    let mut engine = Subject::of(kind, setup.spec);
    let now = Instant::from_ms(1000);
    let id = engine.connect(&setup.opening(), now).unwrap();
    let mut peer = Peer::new(engine, id, now, &setup);
    peer.flush();
    assert_eq!(peer.said().iter().map(|said| said.flags).collect::<Vec<_>>(), [SYN]);
    let begin = peer.now;
    let mut all = vec![begin];
    all.extend(times(&mut peer, 4));
    for (gap, second) in gaps_ms(&all).into_iter().zip([1, 2, 4, 8]) {
        assert!((second * 950..second * 1100).contains(&gap), "{:?}", gaps_ms(&all));
    }
}

fn timer_doubles_and_nobody_is_asked_for_ever(kind: Kind) {
    let (mut peer, receiver) = warmed(Setup::new(kind), 64 * MSS, 20);
    let (una, begin) = (receiver.next, peer.now);
    peer.writes(3 * MSS);
    peer.said();
    let mut again = Vec::new();
    while peer.engine.due(peer.id, peer.now).is_some() {
        let said = peer.waits_for_word();
        again.extend(said.iter().find(|said| said.from == una && said.len() > 0).map(|said| said.at));
    }
    assert_eq!(peer.state(), State::TimedOut);
    let (unanswered, min) = (peer.facts().unanswered_ms, peer.facts().rto_min_ms);
    assert_eq!(peer.now.since(begin), Duration::from_millis(unanswered));
    assert!(again[0].since(begin) >= Duration::from_millis(min), "{again:?}");
    assert!(again[0].since(begin) <= Duration::from_millis(min * 3 / 2), "{again:?}");
    let gaps = gaps_ms(&again);
    assert!(gaps.len() >= 4, "{gaps:?}");
    for pair in gaps.windows(2) {
        assert!((pair[0] * 19 / 10..=pair[0] * 21 / 10).contains(&pair[1]) || pair[1] >= 59_000, "{gaps:?}");
    }
}

/// Section 2.4, with a round trip far below.
fn nothing_is_lost_before_the_least_timeout(kind: Kind) {
    let (mut peer, receiver) = warmed(Setup::new(kind), 64 * MSS, 1);
    peer.writes(8 * MSS);
    peer.said();
    peer.waits(peer.facts().rto_min_ms - 5);
    assert!(peer.said().iter().all(|said| said.from != receiver.next));
    peer.says_ack(receiver.next + 8 * MSS);
    peer.waits(5000);
    assert_eq!(peer.said_bytes(), []);
}

/// RFC 5681 section 3.1: the loss window is one segment.
fn timeout_sends_the_first_segment_alone(kind: Kind) {
    let (mut peer, receiver) = warmed(Setup::new(kind), 64 * MSS, 20);
    peer.writes(200 * MSS);
    let underway = peer.said().last().unwrap().to;
    let mut heard = Vec::new();
    while !heard.iter().any(|(from, _)| *from == receiver.next) {
        heard = peer.waits_for_word().iter().map(|said| (said.from, said.to)).collect();
        assert_eq!(heard.len(), 1, "a probe, and then this");
        assert!(heard[0].0 == receiver.next || heard[0].1 >= underway);
    }
    // Slow start from there: a segment that leaves makes two.
    peer.waits(20);
    peer.says_ack(receiver.next + MSS);
    let said = peer.said_bytes();
    assert!((1..=3).contains(&said.len()), "{said:?}");
}

/// Section 5.3: as long as something is acknowledged, nothing is late.
fn each_acknowledgement_restarts_the_timer(kind: Kind) {
    let (mut peer, receiver) = warmed(Setup::new(kind), 64 * MSS, 20);
    peer.writes(10 * MSS);
    peer.said();
    let pause = peer.facts().rto_min_ms * 3 / 4;
    for count in 1..=10 {
        peer.waits(pause);
        let una = receiver.next + (count - 1) * MSS;
        let is_probe = |from: u32, to: u32| from != una || to == receiver.next + 10 * MSS;
        assert!(peer.said().iter().all(|said| is_probe(said.from, said.to)), "{count}");
        peer.says_ack(una + MSS);
    }
}

/// Section 3, Karn: an answer to what was sent twice tells no round trip; and one to what was sent once does again.
fn only_what_was_sent_once_is_measured(kind: Kind) {
    let (mut peer, receiver) = warmed(Setup::new(kind), 64 * MSS, 20);
    let mut next = receiver.next;
    peer.writes(MSS);
    peer.said();
    while peer.now.since(Instant::from_ms(1000)) < Duration::from_secs(9) {
        peer.waits_for_word();
    }
    peer.waits(10);
    next += MSS;
    peer.says_ack(next);
    peer.said();
    for round in 0..20 {
        peer.writes(MSS);
        peer.waits(20);
        next += MSS;
        peer.says_ack(next);
        assert!(peer.said_bytes().len() == 1, "{round}");
    }
    let begin = peer.now;
    peer.writes(2 * MSS);
    peer.said();
    let mut at = peer.waits_for_word();
    while !at.iter().any(|said| said.from == next) {
        at = peer.waits_for_word();
    }
    let late = at[0].at.since(begin).as_millis() as u64;
    let min = peer.facts().rto_min_ms;
    assert!((min..=min * 3 / 2).contains(&late), "{late} ms");
}

/// RFC 8985 section 7.2: two round trips after the last segment, when nobody says anything.
fn lost_tail_is_probed_before_the_timer_runs_out(kind: Kind) {
    for lost in [2, 5] {
        let (mut peer, mut receiver) = warmed(Setup::new(kind), 64 * MSS, 20);
        let begin = receiver.next;
        peer.writes(10 * MSS);
        let said = peer.said();
        peer.waits(20);
        said[..10 - lost].iter().for_each(|said| receiver.takes(said));
        receiver.answers(&mut peer);
        assert_eq!(peer.said_bytes(), []);
        let at = peer.now;
        let probe = peer.waits_for_word();
        assert_eq!(probe.len(), 1);
        assert_eq!((probe[0].from, probe[0].to), (begin + 9 * MSS, begin + 10 * MSS), "the last of {lost}");
        let wait = peer.now.since(at).as_millis() as u64;
        assert!((20..peer.facts().rto_min_ms).contains(&wait), "{wait} ms");
        peer.waits(20);
        receiver.takes(&probe[0]);
        receiver.answers(&mut peer);
        let count = receiver.takes_all(&mut peer, 20, begin + 10 * MSS, |_| false);
        assert!(count < lost, "{count} of {lost}");
        assert!(peer.now.since(at).as_secs() < 1);
    }
}

/// Too few segments come behind a hole to say that it is lost, and none are to follow: time says it, and not the timer's
/// (RFC 8985 section 6.2). Then the tail is probed.
fn hole_before_the_tail_is_filled_before_the_timer_runs_out(kind: Kind) {
    for (count, lost) in [(2, &[0][..]), (3, &[0]), (3, &[1]), (4, &[2]), (4, &[0, 1]), (5, &[1, 3, 4])] {
        let (mut peer, mut receiver) = warmed(Setup::new(kind), 64 * MSS, 20);
        let begin = receiver.next;
        peer.writes(count * MSS);
        let (at, said) = (peer.now, peer.said());
        peer.waits(20);
        for (place, said) in said.iter().enumerate().filter(|(place, _)| !lost.contains(place)) {
            receiver.takes(said);
            if place > 0 {
                receiver.answers(&mut peer);
            }
        }
        assert_eq!(peer.said_bytes(), [], "{lost:?} of {count}");
        let again = peer.waits_for_word();
        let wait = peer.now.since(at).as_millis() as u64;
        assert_eq!(again[0].from, begin + lost[0] as u32 * MSS, "{lost:?} of {count}");
        assert!((40..peer.facts().rto_min_ms).contains(&wait), "{wait} ms");
        again.iter().for_each(|said| receiver.takes(said));
        peer.waits(20);
        receiver.answers(&mut peer);
        receiver.takes_all(&mut peer, 20, begin + count * MSS, |_| false);
        assert!(peer.now.since(at).as_millis() < 200, "{lost:?} of {count}");
        peer.waits(5000);
        assert_eq!((peer.said_bytes(), peer.engine.unacknowledged(peer.id)), (vec![], 0));
    }
}

/// There is one probe, and then the timer.
fn tail_is_probed_once(kind: Kind) {
    let (mut peer, receiver) = warmed(Setup::new(kind), 64 * MSS, 20);
    let una = receiver.next;
    peer.writes(4 * MSS);
    peer.said();
    let begin = peer.now;
    let first = peer.waits_for_word();
    assert_eq!((first.len(), first[0].to), (1, una + 4 * MSS), "after {:?}", first[0].at.since(begin));
    let second = peer.waits_for_word();
    assert_eq!((second.len(), second[0].from), (1, una));
}

fn probe_that_was_not_needed_costs_nothing(kind: Kind) {
    let (mut peer, receiver) = warmed(Setup::new(kind), 64 * MSS, 20);
    let end = receiver.next + 4 * MSS;
    peer.writes(4 * MSS);
    peer.said();
    peer.waits_for_word();
    peer.says_ack(end);
    assert_eq!(peer.engine.unacknowledged(peer.id), 0);
    peer.waits(5000);
    assert_eq!(peer.said_bytes(), []);
    peer.writes(20 * MSS);
    let count = peer.said_bytes().len();
    assert!(count >= 10, "the window is as it was: {count}");
}

/// Something new every few milliseconds must not put off for ever what is due when nobody answers.
fn words_in_between_do_not_put_off_the_timer(kind: Kind) {
    let (mut peer, receiver) = warmed(Setup::new(kind), 64 * MSS, 20);
    peer.writes(MSS);
    peer.said();
    let begin = peer.now;
    for _ in 0..100 {
        peer.waits(20);
        peer.writes(10);
        if peer.said_bytes().iter().any(|(from, _)| *from == receiver.next) {
            let waited = peer.now.since(begin).as_millis();
            assert!((200..=300).contains(&waited), "{waited} ms");
            return;
        }
    }
    panic!("what was lost is not sent again");
}

for_kinds! {
    all: [
        syn_is_sent_again_after_one_second_then_two_then_four,
        timer_doubles_and_nobody_is_asked_for_ever,
        nothing_is_lost_before_the_least_timeout,
        each_acknowledgement_restarts_the_timer,
        only_what_was_sent_once_is_measured,
    ],
    native: [
        timeout_sends_the_first_segment_alone,
        lost_tail_is_probed_before_the_timer_runs_out,
        hole_before_the_tail_is_filled_before_the_timer_runs_out,
        tail_is_probed_once,
        words_in_between_do_not_put_off_the_timer,
        probe_that_was_not_needed_costs_nothing,
    ],
}
