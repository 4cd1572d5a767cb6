//! Random fragments in random order to random workers: whoever is answered sees only what was sent, and all memory
//! comes back.

use sluice_dataplane::config::ids::PortId;
use sluice_dataplane::packet::build;
use sluice_dataplane::packet::fragment::network_start;
use sluice_dataplane::packet::rewrite::LinkHeader;

use crate::workers;
use crate::world::*;

/// A message that fragments are cut from: its bytes from the ninth on say where they stand.
struct Message {
    frame: Vec<u8>,
    id: u32,
    len: usize,
}

#[test]
fn random_fragments_show_nobody_what_others_have_sent_and_all_memory_comes_back() {
    let mut answered = 0;
    for seed in 1..=12u64 {
        let random = &mut Random(seed);
        let mut workers = workers([1, 3][random.below(2)], |_| ());
        for round in 0..30 {
            let messages: Vec<_> = (0..24).map(|number| message(random, round * 24 + number)).collect();
            let mut pieces: Vec<_> = messages.iter().flat_map(|message| cut_up(random, message)).collect();
            (1..pieces.len()).for_each(|at| pieces.swap(at, random.below(at + 1)));
            for piece in pieces {
                let at = random.below(workers.len());
                answered += check(&workers[at].send(piece.0, &piece.1), seed);
                shake(random, &mut workers[at], seed);
            }
            answered += workers.iter_mut().map(|worker| check(&worker.run(0), seed)).sum::<usize>();
        }
        for _ in 0..120 {
            workers.iter_mut().for_each(|worker| _ = check(&worker.run(50), seed));
        }
        assert!(workers.iter().all(|worker| worker.frames.in_use() == 0), "seed {seed}");
    }
    assert!(answered > 1_000, "{answered} frames of answers");
}

/// Time passes, and the MTU changes.
fn shake(random: &mut Random, world: &mut World, seed: u64) {
    match random.below(100) {
        0 => _ = check(&world.run(1_000), seed),
        1 => world.ports[0].set_mtu(600 + random.below(1_000) as u16),
        _ => {}
    }
}

/// A ping to us, or a datagram to a virtual server.
fn message(random: &mut Random, id: u32) -> Message {
    let link = LinkHeader { source: CLIENT_MAC, destination: EXTERNAL_MAC, vlan: 0 };
    let largest = [100, 3_000, 20_000][random.below(3)];
    let len = 16 + random.below(largest);
    let mut bytes: Vec<u8> = (0..len).map(byte_at).collect();
    let (v6, is_ping) = (random.below(2) == 1, random.below(3) != 0);
    let head = match (is_ping, v6) {
        (true, false) => [8, 0, 0, 0, 0, 7, 0, 1],
        (true, true) => [128, 0, 0, 0, 0, 7, 0, 1],
        (false, _) => [0x9c, 0x40, 0, 53, (len >> 8) as u8, len as u8, 0, 0],
    };
    bytes[..8].copy_from_slice(&head);
    let (src, dst) = if v6 { (CLIENT6, VIRTUAL6) } else { (CLIENT, VIRTUAL) };
    let (protocol, checksum_at) = match (is_ping, v6) {
        (true, false) => (1, 2),
        (true, true) => (58, 2),
        (false, _) => (17, 6),
    };
    Message { frame: build::packet(link, src, dst, 64, protocol, &bytes, checksum_at), id, len }
}

/// Its fragments, by any port, perhaps tagged; some are missing, some come twice, and some overlap others.
fn cut_up(random: &mut Random, message: &Message) -> Vec<(PortId, Vec<u8>)> {
    let payload = &message.frame[message.frame.len() - message.len..];
    let (mut pieces, mut at) = (Vec::new(), 0);
    let largest = 8 + random.below([600, 1_400][message.id as usize % 2]);
    while at < message.len {
        let end = message.len.min(at + 8 + random.below(largest) / 8 * 8);
        let piece = build::fragment(&message.frame, message.id, at, end < message.len, &payload[at..end]);
        let copies = if random.below(8) == 0 { 2 } else { 1 };
        (0..copies).for_each(|_| pieces.push(dressed(random, &piece)));
        at = if random.below(150) == 0 { (end - 8) / 8 * 8 } else { end };
        if random.below(60) == 0 {
            pieces.pop();
        }
    }
    pieces
}

fn dressed(random: &mut Random, piece: &[u8]) -> (PortId, Vec<u8>) {
    let mut piece = piece.to_vec();
    if random.below(16) == 0 {
        piece.splice(12..12, [0x81, 0, 0xa0, 0]);
    }
    if random.below(8) != 0 {
        return (EXTERNAL, piece);
    }
    piece[..6].copy_from_slice(&INTERNAL_MAC.0);
    (INTERNAL, piece)
}

/// What came out of messages of ours says where it stands, behind their headers. Returns how many frames of pings did.
fn check(out: &[Out], seed: u64) -> usize {
    let mut answers = 0;
    for bytes in out.iter().map(|out| &out.bytes) {
        let ip = &bytes[network_start(bytes)..];
        let word = |at: usize| usize::from(u16::from_be_bytes([ip[at], ip[at + 1]]));
        let (protocol, offset, payload) = match (ip[0] >> 4, ip[6]) {
            (4, _) => (ip[9], (word(6) & 0x1fff) * 8, &ip[20..word(2)]),
            (6, 44) => (ip[40], word(42) & !7, &ip[48..40 + word(4)]),
            (6, next) => (next, 0, &ip[40..40 + word(4)]),
            _ => continue,
        };
        let is_echo_reply = matches!(protocol, 1 | 58) && (offset > 0 || matches!(payload[0], 0 | 129));
        if is_echo_reply || protocol == 17 {
            let strange = payload.iter().zip(offset..).skip(8usize.saturating_sub(offset));
            let strange = strange.filter(|(byte, at)| **byte != byte_at(*at)).count();
            assert_eq!(strange, 0, "seed {seed}: {bytes:02x?}");
            answers += usize::from(is_echo_reply);
        }
    }
    answers
}

fn byte_at(place: usize) -> u8 {
    ((place * 31) >> 2) as u8 ^ (place >> 8) as u8
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((self.0 >> 33) as usize) % limit
    }
}
