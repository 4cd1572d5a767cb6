//! Data: windows that close, large packets, many connections, passing on, and peers that keep to nothing.

use std::time::Duration;

use sluice_dataplane::tcp::{Agreed, Engine, EngineSpec, Full, Passed, State};

use super::packet::{ACK, FIN, PSH, RST, SYN, Tcp};
use super::subject::Pair;
use super::{ISN, SPEC, Wire, World};

fn reader_that_stops_for_long_loses_nothing(pair: Pair) {
    let (mut world, [client, server]) = World::opened(pair, 40, SPEC);
    let data = (0..200_000u32).map(|at| (at % 251) as u8).collect::<Vec<_>>();
    let mut sent = world.engines[0].send(client, &data);
    world.touch(0, 1000);
    world.run_for(Duration::from_secs(600));
    assert_eq!(world.engines[0].state(client), State::Open, "probes of the window are answered");
    assert_eq!(world.engines[1].readable(server), SPEC.receive_buffer);
    let mut got = world.read(1, server);
    world.touch(1, 1000);
    while got.len() < data.len() {
        sent += world.engines[0].send(client, &data[sent..]);
        world.touch(0, 1000);
        world.step().expect("it goes on");
        got.extend(world.read(1, server));
        world.touch(1, 1000);
    }
    assert!(got == data);
}

fn large_packets_pass_both_ways(pair: Pair) {
    for (v6, is_whole) in [(false, false), (false, true), (true, false), (true, true)] {
        let spec = EngineSpec { receive_buffer: 262_144, send_buffer: 262_144, ..SPEC };
        let mut world = World::new(pair, 41, spec);
        (world.v6, world.largest, world.is_whole) = (v6, 65_535, is_whole);
        let ids = world.open(1000);
        super::super::bulk(&mut world, ids, 3_000_000);
        let longest = world.log.iter().map(|(_, tcp)| tcp.payload.len()).max().unwrap();
        let mss = if v6 { 1440 } else { 1460 };
        assert!(if is_whole { longest > 40_000 } else { longest == mss }, "{longest}");
        let syn = world.log.iter().find(|(_, tcp)| tcp.flags == SYN).unwrap();
        assert_eq!(syn.1.mss, Some(mss as u16));
    }
}

fn large_packet_is_acknowledged_at_once(pair: Pair) {
    let spec = EngineSpec { receive_buffer: 262_144, ..SPEC };
    let (mut world, [client, server]) = World::opened(pair, 42, spec);
    world.run_for(Duration::from_millis(50));
    let (seq, ack) = world.engines[0].numbers(client);
    let mut large = Tcp::new(world.end(0, 1000), world.end(1, 1000), ACK | PSH, seq, ack);
    large.payload = vec![9; 40 * 1024];
    let at = world.log.len();
    world.inject(1, 1000, &large);
    assert_eq!(world.engines[1].readable(server), 40 * 1024);
    assert_eq!(world.sent_since(at, 1)[0].ack, large.after());
}

fn segments_are_no_larger_than_either_side_says(pair: Pair) {
    let mut world = World::new(pair, 43, SPEC);
    let agreed = Agreed { peer_isn: 5, peer_mss: 500, peer_scale: None, sack: false };
    let id = world.engines[1].accept(&world.opening(1, 1000), &agreed, world.now).unwrap();
    world.conns[1].insert(1000, id);
    let mut ack = Tcp::new(world.end(0, 1000), world.end(1, 1000), ACK, 6, ISN[1].wrapping_add(1));
    world.inject(1, 1000, &ack);
    world.engines[1].send(id, &[1; 20_000]);
    world.touch(1, 1000);
    let client = world.connect(1001);
    let mut answer = Tcp::new(world.end(1, 1001), world.end(0, 1001), SYN | ACK, 0, ISN[0].wrapping_add(1));
    answer.mss = Some(9000);
    world.inject(0, 1001, &answer);
    assert_eq!(world.engines[0].state(client), State::Open);
    world.engines[0].send(client, &[1; 20_000]);
    world.touch(0, 1001);
    ack.window = 0;
    let longest = |side| world.sent_since(0, side).iter().map(|tcp| tcp.payload.len()).max();
    assert_eq!((longest(1), longest(0)), (Some(500), Some(1460)));
}

fn full_sink_is_filled_again(pair: Pair) {
    let (mut world, [client, _]) = World::opened(pair, 44, SPEC);
    world.run_for(Duration::from_millis(50));
    world.engines[0].send(client, &[3; 2000]);
    let mut total = 0;
    loop {
        let mut sink = Wire { room: 1, largest: 0, packets: Vec::new() };
        let is_more = world.engines[0].transmit(client, &mut sink, world.now);
        total += sink.packets.first().map_or(0, |(packet, _)| Tcp::read(packet).payload.len());
        if !is_more {
            break;
        }
    }
    assert_eq!(total, 2000);
}

fn as_many_connections_as_there_may_be(pair: Pair) {
    let mut world = World::new(pair, 45, EngineSpec { connections: 2, ..SPEC });
    let ids = [1000, 1001].map(|port| world.connect(port));
    let opening = world.opening(0, 1002);
    assert_eq!(world.engines[0].connect(&opening, world.now), Err(Full));
    world.engines[0].release(ids[0]);
    assert!(world.engines[0].connect(&opening, world.now).is_ok());
}

fn ten_thousand_connections_transfer_each_its_own(pair: Pair) {
    const COUNT: u16 = 10_000;
    let spec = EngineSpec { connections: 10_000, receive_buffer: 2048, send_buffer: 2048, mtu: 1500 };
    let mut world = World::new(pair, 46, spec);
    world.keeps_log = false;
    let clients = (1..=COUNT).map(|port| (port, world.connect(port))).collect::<Vec<_>>();
    world.run_for(Duration::from_millis(200));
    for (port, client) in &clients {
        assert_eq!(world.engines[0].state(*client), State::Open);
        world.engines[0].send(*client, &port.to_be_bytes().repeat(500));
        world.touch(0, *port);
    }
    world.run_for(Duration::from_millis(200));
    assert_eq!((world.engines[0].len(), world.engines[1].len()), (10_000, 10_000));
    for port in 1..=COUNT {
        let server = world.conns[1][&port];
        assert_eq!(world.read(1, server), port.to_be_bytes().repeat(500));
    }
}

fn what_one_connection_says_passes_to_another(pair: Pair) {
    let mut world = World::new(pair, 47, EngineSpec { receive_buffer: 3000, send_buffer: 5000, ..SPEC });
    let [from, near] = world.open(1000);
    let [to, far] = world.open(1001);
    let data = (0..100_000u32).map(|at| (at % 249) as u8).collect::<Vec<_>>();
    let (mut sent, mut got) = (0, Vec::new());
    while got.len() < data.len() {
        sent += world.engines[0].send(from, &data[sent..]);
        let passed = world.engines[1].pass(near, far, |input, output| {
            let len = input.len().min(output.len()).min(700);
            output[..len].iter_mut().zip(input).for_each(|(out, byte)| *out = byte ^ 0x55);
            Passed { taken: len, written: len }
        });
        assert_eq!(passed.taken, passed.written);
        got.extend(world.read(0, to));
        for (side, port) in [(0, 1000), (1, 1000), (1, 1001), (0, 1001)] {
            world.touch(side, port);
        }
        if got.len() < data.len() {
            world.step().expect("it goes on");
        }
    }
    assert!(got.iter().zip(&data).all(|(got, sent)| got ^ 0x55 == *sent));
}

/// Buffers of a byte, and of about a segment.
fn smallest_buffers_pass_everything(pair: Pair) {
    for buffer in [1, 2, 3, 100, 1459, 1460, 1461, 3000] {
        let mut world =
            World::new(pair, 52, EngineSpec { receive_buffer: buffer, send_buffer: buffer, ..SPEC });
        world.keeps_log = false;
        let [client, server] = world.open(1000);
        let data = (0..buffer as u32 * 20).map(|at| (at % 251) as u8).collect::<Vec<_>>();
        let (mut sent, mut got) = (0, Vec::new());
        while got.len() < data.len() {
            sent += world.engines[0].send(client, &data[sent..]);
            world.touch(0, 1000);
            world.step().expect("it goes on");
            got.extend(world.read(1, server));
            world.touch(1, 1000);
        }
        assert!(got == data, "{buffer}");
    }
}

fn peer_that_ignores_the_window_breaks_nothing(pair: Pair) {
    let (mut world, [client, server]) = World::opened(pair, 48, SPEC);
    world.run_for(Duration::from_millis(50));
    let (seq, ack) = world.engines[0].numbers(client);
    let mut flood = Tcp::new(world.end(0, 1000), world.end(1, 1000), ACK, seq, ack);
    flood.payload = vec![1; 40_000];
    world.inject(1, 1000, &flood);
    flood.seq = flood.after();
    flood.flags |= FIN;
    world.inject(1, 1000, &flood);
    let readable = world.engines[1].readable(server);
    assert!((40_000..=SPEC.receive_buffer).contains(&readable), "what does not fit is not taken: {readable}");
    assert_eq!(world.engines[1].state(server), State::Open);
    assert!(!world.engines[1].is_peer_done(server));
}

fn no_segment_breaks_an_engine(pair: Pair) {
    for (seed, receive_buffer) in
        (1000..1200).zip([1, 1000, 16_384, 65_535, 65_536, 262_144].into_iter().cycle())
    {
        let mut world = World::new(pair, seed, EngineSpec { receive_buffer, ..SPEC });
        let scale = [None, Some(0), Some(14)][world.below(3) as usize];
        let agreed = Agreed { peer_isn: 77, peer_mss: 1460, peer_scale: scale, sack: seed % 2 == 0 };
        let id = world.engines[1].accept(&world.opening(1, 1000), &agreed, world.now).unwrap();
        world.conns[1].insert(1000, id);
        for _ in 0..300 {
            let tcp = strange(&mut world);
            world.inject(1, 1000, &tcp);
            let pause = Duration::from_millis(world.below(3000));
            match world.below(12) {
                0 | 4 => _ = world.read(1, id),
                1 => _ = world.engines[1].send(id, &[5; 3000]),
                2 if world.below(30) == 0 => world.engines[1].close(id),
                3 => world.run_for(pause),
                _ => {}
            }
            world.touch(1, 1000);
        }
    }
}

fn no_segment_breaks_an_opening(pair: Pair) {
    for seed in 2000..2500 {
        let mut world = World::new(pair, seed, SPEC);
        world.weather.lost = 1000;
        let id = world.connect(1000);
        for _ in 0..20 {
            let mut tcp = strange(&mut world);
            (tcp.from, tcp.to) = (tcp.to, tcp.from);
            tcp.ack = ISN[0].wrapping_add(world.below(3) as u32);
            tcp.mss = [None, Some(0), Some(1), Some(65_535)][world.below(4) as usize];
            tcp.scale = [None, Some(255)][world.below(2) as usize];
            world.inject(0, 1000, &tcp);
            world.engines[0].send(id, &[5; 3000]);
            world.touch(0, 1000);
            let pause = Duration::from_millis(world.below(3000));
            world.run_for(pause);
        }
    }
}

/// A segment to side 1 that may be right and may be wrong.
fn strange(world: &mut World) -> Tcp {
    let (next, expects) = world.conns[1].get(&1000).map_or((0, 0), |id| world.engines[1].numbers(*id));
    let offsets = [0, 0, 0, 1, 0xffff_ffff, 1460, 30_000, 65_535, 65_536, 131_072, 0x8000_0000];
    let mut seq = expects.wrapping_add(offsets[world.below(11) as usize]);
    let ack = next.wrapping_sub(offsets[world.below(9) as usize]).wrapping_add(world.below(3) as u32);
    let flags =
        [ACK, ACK, ACK, ACK | PSH, ACK | FIN, ACK | SYN, SYN, ACK | RST, RST][world.below(9) as usize];
    // Resets that hit would end it too soon.
    if flags & RST != 0 && seq == expects && world.below(20) > 0 {
        seq = seq.wrapping_add(1);
    }
    let mut tcp = Tcp::new(world.end(0, 1000), world.end(1, 1000), flags, seq, ack);
    tcp.payload = vec![0; [0, 0, 1, 1460, 30_000, 40_000][world.below(6) as usize]];
    tcp.window = [0, 1, 500, 65_535][world.below(4) as usize];
    tcp
}

fn cut_packets_are_no_segments(pair: Pair) {
    let (mut world, [client, server]) = World::opened(pair, 49, SPEC);
    let (seq, ack) = world.engines[0].numbers(client);
    for v6 in [false, true] {
        world.v6 = v6;
        let mut whole = Tcp::new(world.end(0, 1000), world.end(1, 1000), ACK, seq, ack);
        (whole.mss, whole.payload) = (Some(1460), vec![1; 10]);
        let whole = whole.write();
        for len in 0..whole.len() {
            world.engines[1].receive(server, &whole[..len], world.now);
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut broken = whole.clone();
                broken[at] = value;
                if at < 20 && !v6 || at < 40 && v6 {
                    world.engines[1].receive(server, &broken, world.now);
                }
            }
        }
    }
    assert_eq!(world.engines[1].state(server), State::Open);
}

for_pairs! {
    reader_that_stops_for_long_loses_nothing,
    large_packets_pass_both_ways,
    large_packet_is_acknowledged_at_once,
    segments_are_no_larger_than_either_side_says,
    full_sink_is_filled_again,
    as_many_connections_as_there_may_be,
    ten_thousand_connections_transfer_each_its_own,
    what_one_connection_says_passes_to_another,
    smallest_buffers_pass_everything,
    peer_that_ignores_the_window_breaks_nothing,
    no_segment_breaks_an_engine,
    no_segment_breaks_an_opening,
    cut_packets_are_no_segments,
}
