//! What a TCP engine promises, whatever it is made of: data arrives whole and in order over wires that lose, double and
//! reorder; every end of a connection is told apart; nothing from a peer breaks anything.

#![allow(clippy::unwrap_used, reason = "tests")]

#[macro_use]
mod tcp_world;
mod tcp_script;
mod tcp_segments;

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;

use sluice_dataplane::tcp::{ConnId, Engine, EngineSpec, State};

use self::tcp_world::packet::{self, ACK, RST, SYN, Tcp};
use self::tcp_world::subject::Pair;
use self::tcp_world::{ISN, SPEC, Weather, World};

fn exchange_of_a_request_and_a_response(pair: Pair) {
    for v6 in [false, true] {
        let mut world = World::new(pair, 1, SPEC);
        world.v6 = v6;
        let [client, server] = world.open(1000);
        assert_eq!(world.engines[0].send(client, b"question"), 8);
        world.touch(0, 1000);
        world.run_until(|world| world.engines[1].readable(server) == 8);
        assert_eq!(world.read(1, server), b"question");
        assert_eq!(world.engines[1].send(server, b"answer"), 6);
        world.touch(1, 1000);
        world.run_until(|world| world.engines[0].readable(client) == 6);
        assert_eq!(world.read(0, client), b"answer");
        close_both(&mut world, [client, server]);
    }
}

/// Side 0 closes first.
fn close_both(world: &mut World, [client, server]: [ConnId; 2]) {
    world.engines[0].close(client);
    world.touch(0, 1000);
    world.run_until(|world| world.engines[1].is_peer_done(server));
    assert_eq!(world.engines[1].state(server), State::Open);
    world.engines[1].close(server);
    world.touch(1, 1000);
    world.run_until(|world| world.engines[1].state(server).is_over());
    assert_eq!(world.engines[0].state(client), State::TimeWait);
    assert_eq!(world.engines[1].state(server), State::Closed);
    assert!(world.engines[0].is_peer_done(client));
    let (seq, ack) = world.engines[1].numbers(server);
    assert_eq!(world.engines[0].numbers(client), (ack, seq));
}

fn sequence_numbers_begin_where_they_were_asked_to(pair: Pair) {
    for isn in [0, 1, 0x1234_5678, u32::MAX] {
        let mut world = World::new(pair, 2, SPEC);
        let mut opening = world.opening(0, 1000);
        opening.isn = isn;
        let id = world.engines[0].connect(&opening, world.now).unwrap();
        world.conns[0].insert(1000, id);
        world.touch(0, 1000);
        let (_, syn) = &world.log[0];
        assert_eq!((syn.seq, syn.flags), (isn, SYN));
    }
    let (mut world, [_, server]) = World::opened(pair, 2, SPEC);
    world.engines[1].send(server, b"x");
    world.touch(1, 1000);
    let (_, data) = world.log.last().unwrap();
    assert_eq!((data.seq, data.payload.as_slice()), (ISN[1].wrapping_add(1), &b"x"[..]));
}

fn a_syn_that_meets_an_older_connection_follows_the_rst_that_ends_it(pair: Pair) {
    let mut world = World::new(pair, 2, SPEC);
    world.connect(1000);
    let isn = world.log[0].1.seq;
    for round in 0..3 {
        let at = world.log.len();
        // A challenge ACK (RFC 5961 section 4.2) of a peer in TIME-WAIT.
        let old = Tcp::new(world.end(1, 1000), world.end(0, 1000), ACK, 77, isn.wrapping_add(1_000_000));
        world.inject(0, 1000, &old);
        let sent = world.sent_since(at, 0);
        assert_eq!((sent[0].flags & RST, sent[0].seq), (RST, isn.wrapping_add(1_000_000)), "round {round}");
        let again: Vec<_> = sent[1..].iter().map(|tcp| (tcp.flags, tcp.seq)).collect();
        assert_eq!(again, if round == 0 { vec![(SYN, isn)] } else { vec![] }, "at once, and once");
    }
    world.run_until(|world| world.engines[0].state(world.conns[0][&1000]) == State::Open);
}

fn a_second_abort_does_not_take_back_the_rst(pair: Pair) {
    let (mut world, [client, _]) = World::opened(pair, 2, SPEC);
    let at = world.log.len();
    world.engines[0].abort(client);
    world.engines[0].abort(client);
    world.touch(0, 1000);
    assert!(world.sent_since(at, 0).iter().any(|tcp| tcp.has(RST)));
}

fn syn_says_what_the_engine_announces(pair: Pair) {
    for receive_buffer in [1000, 16_384, 65_535, 65_536, 262_144] {
        let mut world = World::new(pair, 3, EngineSpec { receive_buffer, ..SPEC });
        world.connect(1000);
        let announced = world.engines[0].announced();
        let (_, Tcp { window, scale, sack, mss, .. }) = &world.log[0];
        assert_eq!((*window, *scale, *sack), (announced.window, Some(announced.scale), announced.sack));
        assert_eq!(*mss, Some(1460));
    }
}

/// Sends `total` bytes from side 0 to side 1 and closes; what arrives has the same hash.
fn bulk(world: &mut World, [client, server]: [ConnId; 2], total: usize) {
    let (mut written, mut read) = (0, 0);
    let (mut sent, mut got) = (DefaultHasher::new(), DefaultHasher::new());
    let mut steps = 0;
    while !(world.engines[1].is_peer_done(server) && world.engines[1].readable(server) == 0) {
        while written < total {
            let put = world.engines[0].write(client, |span| {
                let len = span.len().min(total - written);
                let bytes = (written..).map(|at| (at as u32).wrapping_mul(0x9e37_79b9).to_be_bytes()[0]);
                span[..len].iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
                span[..len].iter().for_each(|byte| sent.write_u8(*byte));
                len
            });
            written += put;
            if put == 0 {
                break;
            }
        }
        if written == total {
            world.engines[0].close(client);
        }
        world.touch(0, 1000);
        let data = world.read(1, server);
        data.iter().for_each(|byte| got.write_u8(*byte));
        read += data.len();
        world.touch(1, 1000);
        steps += 1;
        assert!(steps < 1_000_000 && world.step().is_some(), "stuck after {read} bytes");
    }
    assert_eq!((read, got.finish()), (total, sent.finish()));
}

fn megabytes_arrive_whole_in_foul_weather(pair: Pair) {
    for seed in 10..14 {
        let mut world = World::new(pair, seed, SPEC);
        (world.keeps_log, world.v6) = (false, seed % 2 == 0);
        world.weather = Weather::FOUL;
        let ids = world.open(1000);
        bulk(&mut world, ids, 2_000_000);
    }
}

for_pairs! {
    exchange_of_a_request_and_a_response,
    sequence_numbers_begin_where_they_were_asked_to,
    a_syn_that_meets_an_older_connection_follows_the_rst_that_ends_it,
    a_second_abort_does_not_take_back_the_rst,
    syn_says_what_the_engine_announces,
    megabytes_arrive_whole_in_foul_weather,
}

/// `SLUICE_SCRIPTS` says how many, from `SLUICE_SEED` on.
#[test]
fn random_scripts_find_nothing() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("SLUICE_SEED").unwrap_or(1);
    for seed in first..first + number("SLUICE_SCRIPTS").unwrap_or(2_000) {
        let script = script(seed);
        let result = std::panic::catch_unwind(|| tcp_script::run(&script));
        assert!(result.is_ok(), "SLUICE_SEED={seed}");
    }
}

/// Random bytes, of which some are more often than others.
fn script(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    };
    let len = 16 + next() % 2_000;
    let mask = [0xff, 0x7f, 0x3f, 0x37][next() as usize % 4];
    (0..len).map(|_| if next() % 3 == 0 { 0 } else { next() as u8 & mask }).collect()
}
