//! Handshakes on a manual clock: no segment, only its numbers.

use super::*;
use crate::config::ids::PortId;
use crate::packet::build::address;
use crate::snat::random::Random;

const SECRET: [u64; 2] = [0x1234_5678, 0x9abc_def0];
const SYN: Syn = Syn { seq: u32::MAX, mss: 1400, scale: Some(7), sack: true };
const OFFER: Offer =
    Offer { announced: Announced { window: 0xffff, scale: 5, sack: true }, mss: 1460, timeout_ms: 10_000 };

fn key(client: u16) -> FlowKey {
    let (src, dst) = (address("198.51.100.7"), address("192.0.2.100"));
    FlowKey { src, dst, src_port: client, dst_port: 80, protocol: 6 }
}

fn caller(number: u8) -> Caller {
    let link = LinkId::new(PortId(number & 7), 0);
    Caller { virtual_id: VirtualId(u32::from(number)), link, mac: Mac([2, 0, 0, 0, 0, number]) }
}

fn handshakes(capacity: usize) -> Handshakes {
    Handshakes::new(capacity, SECRET, Backing::Ordinary)
}

fn at(ms: u64) -> Instant {
    Instant::from_ms(ms)
}

/// A SYN of `client` at `now`.
fn knock(handshakes: &mut Handshakes, client: u16, now: Instant) -> SynAck {
    handshakes.on_syn(&key(client), &SYN, caller(1), &OFFER, now)
}

/// The first segment of a client that got `answer`.
fn reply(handshakes: &mut Handshakes, answer: &SynAck, now: Instant) -> Option<Complete> {
    handshakes.on_ack(&answer.key, answer.ack, answer.seq.wrapping_add(1), now)
}

/// All that is due in the first `until` milliseconds, looked after every `step`: when, and what.
fn due(handshakes: &mut Handshakes, until: u64, step: usize) -> Vec<(u64, SynAck)> {
    let mut due = Vec::new();
    for now in (0..until).step_by(step) {
        due.extend(std::iter::from_fn(|| handshakes.poll(at(now))).map(|answer| (now, answer)));
    }
    due
}

#[test]
fn a_syn_is_answered_and_the_clients_ack_completes() {
    let mut handshakes = handshakes(4);
    let answer = knock(&mut handshakes, 1, at(5));
    let isn = Isn::new(SECRET).of(&key(1), at(5));
    let (key, caller) = (key(1), caller(1));
    let expected =
        SynAck { key, caller, seq: isn, ack: 0, window: 0xffff, mss: 1460, scale: Some(5), sack: true };
    assert_eq!(answer, expected);
    assert_eq!((handshakes.len(), handshakes.caller(&key)), (1, Some(caller)));
    let agreed = Agreed { peer_isn: u32::MAX, peer_mss: 1400, peer_scale: Some(7), sack: true };
    let complete = Complete { isn, agreed, caller: Some(caller) };
    assert_eq!(reply(&mut handshakes, &answer, at(9)), Some(complete));
    assert!(handshakes.is_empty() && handshakes.caller(&key).is_none());
    assert_eq!(reply(&mut handshakes, &answer, at(9)), None, "once");
    assert_eq!(due(&mut handshakes, 20_000, 64), []);
}

#[test]
fn what_one_side_does_not_say_is_not_agreed() {
    let silent = Syn { scale: None, sack: false, ..SYN };
    let mut handshakes = handshakes(4);
    let answer = handshakes.on_syn(&key(1), &silent, caller(1), &OFFER, at(0));
    assert_eq!((answer.scale, answer.sack), (None, false));
    let agreed = reply(&mut handshakes, &answer, at(0)).unwrap().agreed;
    assert_eq!((agreed.peer_scale, agreed.sack), (None, false));
    let offer = Offer { announced: Announced { sack: false, ..OFFER.announced }, ..OFFER };
    assert!(!handshakes.on_syn(&key(1), &SYN, caller(1), &offer, at(0)).sack);
}

#[test]
fn the_same_syn_gets_the_same_answer_where_it_came_from() {
    let mut handshakes = handshakes(4);
    let first = knock(&mut handshakes, 1, at(0));
    let offer = Offer { mss: 500, ..OFFER };
    let again = handshakes.on_syn(&key(1), &SYN, caller(2), &offer, at(700));
    let moved = Caller { virtual_id: caller(1).virtual_id, ..caller(2) };
    assert_eq!((again, handshakes.len()), (SynAck { caller: moved, ..first }, 1));
    assert_eq!(reply(&mut handshakes, &first, at(800)).unwrap().caller, Some(moved));
}

#[test]
fn a_syn_with_another_number_begins_anew() {
    let mut handshakes = handshakes(1);
    let first = knock(&mut handshakes, 1, at(0));
    let other = Syn { seq: 77, ..SYN };
    let second = handshakes.on_syn(&key(1), &other, caller(2), &OFFER, at(900));
    assert_eq!((second.ack, second.caller, handshakes.len()), (78, caller(2), 1));
    assert_ne!(second.seq, first.seq);
    assert_eq!(reply(&mut handshakes, &first, at(901)), None);
    assert_eq!(due(&mut handshakes, 2_000, 1).len(), 1, "its time runs from the second SYN");
    assert_eq!(reply(&mut handshakes, &second, at(2_000)).unwrap().agreed.peer_isn, 77);
}

#[test]
fn an_ack_must_have_our_number_and_lie_in_the_window() {
    let mut handshakes = handshakes(4);
    let SynAck { seq, ack, window, .. } = knock(&mut handshakes, 1, at(0));
    let right = seq.wrapping_add(1);
    let beyond = ack + u32::from(window) + 1;
    for (theirs, ours) in [(beyond, right), (ack.wrapping_sub(1), right), (ack, seq), (ack, right + 1)] {
        assert_eq!(handshakes.on_ack(&key(1), theirs, ours, at(1)), None);
    }
    assert_eq!(handshakes.on_ack(&key(2), ack, right, at(1)), None);
    assert_eq!(handshakes.len(), 1);
    assert!(handshakes.on_ack(&key(1), ack, right, at(1)).is_some());
}

/// The acknowledgement and the first data are lost: a SYN-ACK that comes again is answered with what follows them.
#[test]
fn what_follows_lost_data_completes_a_handshake() {
    for ahead in [1, 1460, 0xffff] {
        let mut handshakes = handshakes(4);
        let SynAck { seq, ack, .. } = knock(&mut handshakes, 1, at(0));
        let complete = handshakes.on_ack(&key(1), ack + ahead, seq.wrapping_add(1), at(1)).unwrap();
        assert_eq!((complete.agreed.peer_isn, complete.isn), (SYN.seq, seq), "the numbers of the SYNs");
        assert!(handshakes.is_empty());
    }
}

#[test]
fn a_cookie_knows_the_first_segment_only() {
    let mut handshakes = handshakes(0);
    let SynAck { seq, ack, .. } = knock(&mut handshakes, 1, at(0));
    assert_eq!(handshakes.on_ack(&key(1), ack + 1, seq.wrapping_add(1), at(1)), None);
    assert!(handshakes.on_ack(&key(1), ack, seq.wrapping_add(1), at(1)).is_some());
}

#[test]
fn a_reset_ends_a_handshake_with_the_exact_number_only() {
    let mut handshakes = handshakes(4);
    let answer = knock(&mut handshakes, 1, at(0));
    for seq in [1, 2, u32::MAX, 65_535] {
        assert!(!handshakes.on_reset(&key(1), seq));
    }
    assert!(!handshakes.on_reset(&key(2), 0));
    assert!(handshakes.on_reset(&key(1), 0), "the number behind 2³² - 1");
    assert!(!handshakes.on_reset(&key(1), 0) && handshakes.is_empty());
    assert_eq!(reply(&mut handshakes, &answer, at(1)), None);
}

#[test]
fn the_answer_is_sent_again_after_ever_longer_waits_until_the_time_is_up() {
    let mut handshakes = handshakes(4);
    let answer = knock(&mut handshakes, 1, at(0));
    let sent = due(&mut handshakes, 9_999, 1);
    assert!(sent.iter().all(|&(_, again)| again == answer));
    assert_eq!(sent.len(), 3);
    for (&(when, _), planned) in sent.iter().zip([1_000, 3_000, 7_000]) {
        assert!((planned..=planned + 3 * 64).contains(&when), "{when} for {planned}");
    }
    assert_eq!(handshakes.len(), 1, "nobody is sent away early");
    assert_eq!((handshakes.poll(at(10_048)), handshakes.len()), (None, 0));
    assert_eq!(reply(&mut handshakes, &answer, at(10_065)), None);
}

#[test]
fn a_time_beyond_the_wheel_is_kept_and_a_long_sleep_sends_once() {
    let mut handshakes = handshakes(4);
    let offer = Offer { timeout_ms: u32::MAX, ..OFFER };
    handshakes.on_syn(&key(1), &SYN, caller(1), &offer, at(0));
    let times: Vec<u64> = due(&mut handshakes, 3_000_000, 32).iter().map(|&(when, _)| when).collect();
    assert_eq!(times.len(), 11, "{times:?}");
    let waits = times.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(waits.enumerate().all(|(n, wait)| (2_000 << n..=(2_000 << n) + 96).contains(&wait)), "{times:?}");
    let late = at(u64::from(u32::MAX) - 1);
    assert!(handshakes.poll(late).is_some() && handshakes.poll(late).is_none());
    assert_eq!((handshakes.poll(at(1 << 33)), handshakes.len()), (None, 0));
}

#[test]
fn handshakes_of_different_patience_end_each_in_its_time() {
    let mut handshakes = handshakes(4);
    for (client, timeout_ms) in [(1, 5_000), (2, 0), (3, 500)] {
        handshakes.on_syn(&key(client), &SYN, caller(1), &Offer { timeout_ms, ..OFFER }, at(0));
    }
    assert_eq!((handshakes.poll(at(64)), handshakes.len()), (None, 2));
    assert_eq!((handshakes.poll(at(564)), handshakes.len()), (None, 1));
    assert_eq!(handshakes.caller(&key(1)), Some(caller(1)));
}

#[test]
fn one_call_ends_a_bounded_number() {
    let mut handshakes = handshakes(200);
    (0..200).for_each(|client| _ = knock(&mut handshakes, client, at(0)));
    let left = [0; 4].map(|_| {
        assert_eq!(handshakes.poll(at(20_000)), None);
        handshakes.len()
    });
    assert_eq!(left, [136, 72, 8, 0]);
}

#[test]
fn a_flood_is_answered_by_cookie_and_honest_clients_complete() {
    let mut handshakes = handshakes(100);
    let answers: Vec<SynAck> = (0..20_000).map(|client| knock(&mut handshakes, client, at(1))).collect();
    assert_eq!((handshakes.len(), handshakes.cookies()), (100, 19_900));
    for answer in &answers[100..] {
        assert_eq!((answer.scale, answer.sack, answer.mss, answer.window), (None, false, 1460, 0xffff));
    }
    for answer in [&answers[100], &answers[19_999]] {
        let agreed = Agreed { peer_isn: u32::MAX, peer_mss: 1400, peer_scale: None, sack: false };
        let complete = Complete { isn: answer.seq, agreed, caller: None };
        assert_eq!(reply(&mut handshakes, answer, at(60_000)), Some(complete));
        assert_eq!(reply(&mut handshakes, answer, at(200_000)), None, "too late");
    }
    assert!(reply(&mut handshakes, &answers[0], at(2)).unwrap().caller.is_some(), "entries work as ever");
    assert_eq!(knock(&mut handshakes, 30_000, at(3)).scale, Some(5), "and so does the place it left");
}

#[test]
fn a_client_that_answers_its_cookie_after_it_got_an_entry_completes() {
    let mut handshakes = handshakes(1);
    let other = knock(&mut handshakes, 1, at(0));
    let cookie = knock(&mut handshakes, 2, at(0));
    assert!(reply(&mut handshakes, &other, at(1)).is_some());
    let entry = knock(&mut handshakes, 2, at(1_000));
    assert_ne!(entry.seq, cookie.seq);
    let complete = reply(&mut handshakes, &cookie, at(1_001)).unwrap();
    assert_eq!((complete.isn, complete.caller), (cookie.seq, Some(caller(1))));
    assert!(handshakes.is_empty());
}

#[test]
fn a_full_table_still_knows_its_own() {
    let mut handshakes = handshakes(1);
    let first = knock(&mut handshakes, 1, at(0));
    assert_eq!(knock(&mut handshakes, 1, at(1)), first);
    handshakes.on_syn(&key(1), &Syn { seq: 5, ..SYN }, caller(1), &OFFER, at(2));
    assert_eq!((handshakes.len(), handshakes.cookies()), (1, 0));
}

#[test]
fn without_room_at_all_cookies_serve_everybody() {
    let mut handshakes = handshakes(0);
    let answer = knock(&mut handshakes, 1, at(0));
    assert_eq!((handshakes.len(), handshakes.cookies(), handshakes.poll(at(9_000))), (0, 1, None));
    assert!(reply(&mut handshakes, &answer, at(1)).is_some());
}

#[test]
fn a_million_forged_acks_complete_nothing() {
    let seed = 0x51_0c1c_e5ee;
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let mut handshakes = handshakes(64);
    (0..200).for_each(|client| _ = knock(&mut handshakes, client, at(0)));
    for _ in 0..1_000_000 {
        let (numbers, client) = (random.next(), (random.next() >> 56) as u16);
        let forged = handshakes.on_ack(&key(client), numbers as u32, (numbers >> 32) as u32, at(1));
        assert_eq!(forged, None, "seed {seed}");
    }
    assert_eq!(handshakes.len(), 64, "seed {seed}");
}

#[test]
fn a_connection_after_time_wait_begins_later_than_the_last_one_ended() {
    let mut handshakes = handshakes(2);
    let clock = Isn::new(SECRET).of(&key(1), at(0));
    let sent = clock.wrapping_add(1 << 30);
    let answer = handshakes.on_syn_after(sent, &key(1), &SYN, caller(1), &OFFER, at(0));
    assert!((0x1_0000..0x2_0000).contains(&answer.seq.wrapping_sub(sent)));
    assert!(reply(&mut handshakes, &answer, at(0)).is_some());
}

#[test]
fn memory_is_taken_at_the_start_and_secrets_are_not_printed() {
    let mut handshakes = handshakes(10_000);
    let bytes = handshakes.bytes();
    (0..20_000).for_each(|client| _ = knock(&mut handshakes, client, at(0)));
    assert_eq!((handshakes.bytes(), handshakes.len()), (bytes, 10_000));
    assert!(bytes < 1_500_000, "{bytes}");
    assert_eq!(format!("{handshakes:?}"), "Handshakes { len: 10000, cookies: 10000 }");
}

#[test]
fn a_random_history_completes_what_was_answered_last_and_nothing_else() {
    for seed in 1..100 {
        let mut random = Random::new(seed);
        let mut handshakes = handshakes(16);
        let mut last: [Option<SynAck>; 16] = [None; 16];
        for now in (0..4_000).map(at) {
            let (client, what, seq) = (random.next() >> 60, random.next() >> 62, random.next() >> 62);
            let (at_client, key) = (client as usize, key(client as u16));
            let held = last[at_client];
            match (what, held) {
                (0, _) => {
                    let syn = Syn { seq: seq as u32, ..SYN };
                    let answer = handshakes.on_syn(&key, &syn, caller(1), &OFFER, now);
                    let is_same = held.is_some_and(|held| held.ack == answer.ack);
                    assert!(!is_same || held == Some(answer), "seed {seed}");
                    last[at_client] = Some(answer);
                }
                (1, Some(held)) => {
                    assert!(reply(&mut handshakes, &held, now).is_some(), "seed {seed}");
                    last[at_client] = None;
                }
                (2, Some(held)) => {
                    let is_exact = seq as u32 == held.ack;
                    assert_eq!(handshakes.on_reset(&key, seq as u32), is_exact, "seed {seed}");
                    last[at_client] = last[at_client].filter(|_| !is_exact);
                }
                (_, None) => assert_eq!(handshakes.on_ack(&key, seq as u32, 9, now), None, "seed {seed}"),
                _ => {
                    let again = handshakes.poll(now);
                    let known = |again: SynAck| last[usize::from(again.key.src_port)] == Some(again);
                    assert!(again.is_none_or(known), "seed {seed}");
                }
            }
            assert_eq!(handshakes.len(), last.iter().flatten().count(), "seed {seed}");
        }
        assert_eq!(handshakes.cookies(), 0, "seed {seed}");
    }
}
