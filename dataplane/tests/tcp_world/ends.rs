//! How connections end, and what does not end them.

use std::time::Duration;

use sluice_dataplane::tcp::{ConnId, Engine, Options, State};

use super::packet::{ACK, FIN, RST, SYN, Tcp};
use super::subject::Pair;
use super::{ISN, SPEC, Weather, Wire, World};

const NOBODY: Weather = Weather { lost: 1000, ..Weather::FAIR };

/// A world in which side 1's connection is in a state that TCP knows, with nothing on the wire.
fn world_in(pair: Pair, state: &str) -> (World, ConnId) {
    let (mut world, [client, server]) = World::opened(pair, 20, SPEC);
    world.run_for(Duration::from_millis(100));
    let closes: &[(usize, bool)] = match state {
        "established" => &[],
        "close-wait" => &[(0, true)],
        "fin-wait-1" => &[(1, false)],
        "fin-wait-2" => &[(1, true)],
        "last-ack" => &[(0, true), (1, false)],
        "closing" => &[(1, false), (0, true)],
        other => panic!("{other}"),
    };
    for (side, arrives) in closes {
        world.weather = if *arrives { Weather::FAIR } else { NOBODY };
        world.engines[*side].close([client, server][*side]);
        world.touch(*side, 1000);
        if *arrives && state == "closing" {
            let mut fin = segment(&world, client, FIN | ACK);
            fin.ack = ISN[1].wrapping_add(1);
            world.inject(1, 1000, &fin);
        }
        world.run_for(Duration::from_millis(50));
    }
    (world, server)
}

/// A segment of side 0, exactly where it should be.
fn segment(world: &World, client: ConnId, flags: u8) -> Tcp {
    let (_, expects) = world.engines[1].numbers(world.conns[1][&1000]);
    let (_, ack) = world.engines[0].numbers(client);
    Tcp::new(world.end(0, 1000), world.end(1, 1000), flags, expects, ack)
}

const STATES: [&str; 6] = ["established", "close-wait", "fin-wait-1", "fin-wait-2", "last-ack", "closing"];

fn reset_of_the_exact_number_ends_every_state(pair: Pair) {
    for state in STATES {
        let (mut world, server) = world_in(pair, state);
        assert_eq!(world.engines[1].state(server), State::Open, "{state}");
        let (_, expects) = world.engines[1].numbers(server);
        let reset = Tcp::new(world.end(0, 1000), world.end(1, 1000), RST, expects, 0);
        world.inject(1, 1000, &reset);
        assert_eq!(world.engines[1].state(server), State::Reset, "{state}");
        assert_eq!(world.engines[1].due(server, world.now), None);
    }
}

fn reset_elsewhere_in_the_window_is_challenged(pair: Pair) {
    for state in STATES {
        let (mut world, server) = world_in(pair, state);
        let (next, expects) = world.engines[1].numbers(server);
        for (ahead, answers) in [(1, 1), (2, 0), (0x4000_0000, 0), (0xffff_ffff, 0)] {
            let at = world.log.len();
            let seq = expects.wrapping_add(ahead);
            world.inject(1, 1000, &Tcp::new(world.end(0, 1000), world.end(1, 1000), RST, seq, 0));
            assert_eq!(world.engines[1].state(server), State::Open, "{state}");
            let sent = world.sent_since(at, 1);
            assert_eq!(sent.len(), answers, "{state} {ahead}");
            assert!(sent.iter().all(|tcp| (tcp.flags, tcp.seq, tcp.ack) == (ACK, next, expects)));
        }
    }
}

fn syn_on_an_open_connection_is_challenged_once_a_second(pair: Pair) {
    let (mut world, server) = world_in(pair, "established");
    let (_, expects) = world.engines[1].numbers(server);
    let at = world.log.len();
    for (pause_ms, answers) in [(0, 1), (10, 1), (1000, 2)] {
        world.run_for(Duration::from_millis(pause_ms));
        world.inject(1, 1000, &Tcp::new(world.end(0, 1000), world.end(1, 1000), SYN, expects, 0));
        let sent = world.sent_since(at, 1);
        assert_eq!(sent.len(), answers);
        let scale = world.engines[1].announced().scale;
        assert!(sent.iter().all(|tcp| usize::from(tcp.window) << scale == SPEC.receive_buffer));
    }
    assert_eq!(world.engines[1].state(server), State::Open);
}

fn refused_connection_is_reset(pair: Pair) {
    let mut world = World::new(pair, 21, SPEC);
    world.refuses = true;
    let client = world.connect(1000);
    assert_eq!(world.engines[0].state(client), State::Connecting);
    world.run_until(|world| world.engines[0].state(client) == State::Reset);
    assert_eq!(world.log.len(), 2);
}

fn two_sides_may_connect_to_each_other(pair: Pair) {
    let mut world = World::new(pair, 34, SPEC);
    let client = world.connect(1000);
    let other = world.engines[1].connect(&world.opening(1, 1000), world.now).unwrap();
    world.conns[1].insert(1000, other);
    world.touch(1, 1000);
    let ids = [client, other];
    world.run_until(|world| (0..2).all(|side| world.engines[side].state(ids[side]) == State::Open));
    assert_eq!(world.engines[1].send(other, b"hello"), 5);
    world.touch(1, 1000);
    world.run_until(|world| world.engines[0].readable(client) == 5);
    assert_eq!(world.read(0, client), b"hello");
    super::super::close_both(&mut world, ids);
}

fn reset_of_another_connection_does_not_refuse(pair: Pair) {
    let mut world = World::new(pair, 22, SPEC);
    world.weather = NOBODY;
    let client = world.connect(1000);
    let [to, from] = [world.end(0, 1000), world.end(1, 1000)];
    for reset in [Tcp::new(from, to, RST | ACK, 0, ISN[0]), Tcp::new(from, to, RST, ISN[0], 0)] {
        world.inject(0, 1000, &reset);
        assert_eq!(world.engines[0].state(client), State::Connecting);
    }
}

fn connection_that_cannot_be_is_reset_at_once(pair: Pair) {
    let mut world = World::new(pair, 23, SPEC);
    let mut opening = world.opening(0, 1000);
    opening.remote.1 = 0;
    let id = world.engines[0].connect(&opening, world.now).unwrap();
    assert_eq!(world.engines[0].state(id), State::Reset);
    let mut opening = world.opening(0, 1000);
    opening.remote.0 = sluice_dataplane::address::Address::v6([1; 16]);
    let id = world.engines[0].connect(&opening, world.now).unwrap();
    assert_eq!(world.engines[0].state(id), State::Reset);
}

fn unanswered_syn_times_out_without_a_reset(pair: Pair) {
    let mut world = World::new(pair, 24, SPEC);
    world.weather = NOBODY;
    let client = world.connect(1000);
    let facts = world.engines[0].facts();
    world.run_for(Duration::from_millis(facts.unanswered_ms - 1));
    assert_eq!(world.engines[0].state(client), State::Connecting);
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.engines[0].state(client), State::TimedOut);
    assert!(world.log.len() > 4 && world.log.iter().all(|(_, tcp)| tcp.flags == SYN));
}

fn unanswered_data_times_out_with_a_reset(pair: Pair) {
    let (mut world, [client, _]) = World::opened(pair, 25, SPEC);
    world.run_for(Duration::from_secs(3600));
    world.weather = NOBODY;
    world.engines[0].send(client, b"anybody?");
    world.touch(0, 1000);
    let facts = world.engines[0].facts();
    world.run_for(Duration::from_millis(facts.unanswered_ms - 1));
    assert_eq!(world.engines[0].state(client), State::Open);
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.engines[0].state(client), State::TimedOut);
    assert_eq!(world.engines[0].unacknowledged(client), 8);
    let (_, last) = world.log.last().unwrap();
    assert_eq!((last.flags, last.seq), (RST | ACK, ISN[0].wrapping_add(9)));
}

fn idle_hours_end_nothing_and_a_late_close_is_answered(pair: Pair) {
    let (mut world, ids) = World::opened(pair, 26, SPEC);
    let at = world.log.len() + 1;
    world.run_for(Duration::from_secs(7200));
    assert!(world.log.len() <= at, "nobody says anything");
    super::super::close_both(&mut world, ids);
}

fn keep_alive_asks_and_gives_up_when_nobody_answers(pair: Pair) {
    let mut world = World::new(pair, 27, SPEC);
    world.options = Options { keep_alive_ms: 30_000, ..world.options };
    let [client, server] = world.open(1000);
    world.run_for(Duration::from_secs(3600));
    assert_eq!((world.engines[0].state(client), world.engines[1].state(server)), (State::Open, State::Open));
    assert!(world.log.len() > 200);
    world.weather = NOBODY;
    let (at, facts) = (world.log.len(), world.engines[0].facts());
    world.run_for(Duration::from_millis(30_000 + facts.unanswered_ms));
    assert_eq!(world.engines[0].state(client), State::TimedOut);
    let probes = world.sent_since(at, 0).len();
    assert!((facts.unanswered_ms / facts.probe_ms) as usize + 2 >= probes && probes >= 6, "{probes}");
}

fn both_close_at_once(pair: Pair) {
    let (mut world, ids) = World::opened(pair, 28, SPEC);
    world.run_for(Duration::from_millis(100));
    for (side, id) in ids.into_iter().enumerate() {
        world.engines[side].close(id);
        world.touch(side, 1000);
    }
    world.run_until(|world| (0..2).all(|side| world.engines[side].state(ids[side]).is_over()));
    for (side, id) in ids.into_iter().enumerate() {
        assert_eq!(world.engines[side].state(id), State::TimeWait);
        assert_eq!(world.engines[side].numbers(id).0, ISN[side].wrapping_add(2));
    }
}

fn either_side_may_close_its_direction_and_go_on_hearing(pair: Pair) {
    for first in 0..2 {
        let (mut world, ids) = World::opened(pair, 29, SPEC);
        let second = 1 - first;
        world.engines[first].close(ids[first]);
        world.touch(first, 1000);
        assert_eq!(world.engines[first].writable(ids[first]), 0);
        assert_eq!(world.engines[first].send(ids[first], b"no more"), 0);
        world.run_until(|world| world.engines[second].is_peer_done(ids[second]));
        let said = vec![7; 50_000];
        assert_eq!(world.engines[second].send(ids[second], &said), said.len());
        world.engines[second].close(ids[second]);
        world.touch(second, 1000);
        world.run_until(|world| world.engines[first].state(ids[first]).is_over());
        assert!(!world.engines[first].is_peer_done(ids[first]), "there is something to read");
        assert_eq!(world.read(first, ids[first]), said);
        assert!(world.engines[first].is_peer_done(ids[first]));
        assert_eq!(world.engines[first].state(ids[first]), State::TimeWait);
    }
}

fn both_sides_come_to_an_end_in_foul_weather(pair: Pair) {
    for seed in 100..200 {
        let mut world = World::new(pair, seed, SPEC);
        world.weather = Weather { lost: 100, ..Weather::FOUL };
        let ids = world.open(1000);
        for (side, id) in ids.into_iter().enumerate() {
            world.engines[side].send(id, &[side as u8; 5000]);
            world.engines[side].close(id);
            world.touch(side, 1000);
            let pause = Duration::from_millis(world.below(100));
            world.run_for(pause);
        }
        world.run_until(|world| (0..2).all(|side| world.engines[side].state(ids[side]).is_over()));
        let states = [0, 1].map(|side| world.engines[side].state(ids[side]));
        assert!(states.contains(&State::TimeWait), "{states:?}");
        assert!(states.iter().all(|state| matches!(state, State::TimeWait | State::Closed)), "{states:?}");
        for (side, id) in ids.into_iter().enumerate() {
            assert_eq!(world.read(side, id), [1 - side as u8; 5000]);
        }
    }
}

fn time_wait_begins_when_the_last_acknowledgement_has_left(pair: Pair) {
    let (mut world, [client, server]) = World::opened(pair, 30, SPEC);
    world.engines[0].close(client);
    world.touch(0, 1000);
    world.run_until(|world| world.engines[1].is_peer_done(server));
    world.run_for(Duration::from_millis(50));
    let (seq, ack) = world.engines[1].numbers(server);
    let fin = Tcp::new(world.end(1, 1000), world.end(0, 1000), FIN | ACK, seq, ack);
    world.engines[0].receive(client, &fin.write(), world.now);
    assert_eq!(world.engines[0].state(client), State::Open);
    let mut sink = Wire { room: 0, largest: 0, packets: Vec::new() };
    assert!(world.engines[0].transmit(client, &mut sink, world.now), "an acknowledgement waits");
    assert_eq!(world.engines[0].due(client, world.now), Some(world.now));
    let at = world.log.len();
    world.touch(0, 1000);
    assert_eq!(world.engines[0].state(client), State::TimeWait);
    assert_eq!(world.sent_since(at, 0)[0].ack, seq.wrapping_add(1));
    world.inject(0, 1000, &fin);
    assert_eq!(world.sent_since(at, 0).len(), 2, "the FIN again is acknowledged again");
}

fn abort_resets_the_peer(pair: Pair) {
    let (mut world, [client, server]) = World::opened(pair, 31, SPEC);
    world.run_for(Duration::from_millis(50));
    world.engines[0].abort(client);
    assert_eq!(world.engines[0].state(client), State::Aborted);
    world.touch(0, 1000);
    world.run_until(|world| world.engines[1].state(server) == State::Reset);
    assert_eq!(world.engines[0].state(client), State::Aborted);
    assert_eq!((world.engines[0].writable(client), world.engines[1].writable(server)), (0, 0));
}

fn what_was_never_open_ends_silently(pair: Pair) {
    for aborts in [false, true] {
        let mut world = World::new(pair, 32, SPEC);
        world.weather = NOBODY;
        let client = world.connect(1000);
        let at = world.log.len();
        if aborts {
            world.engines[0].abort(client);
        } else {
            world.engines[0].close(client);
        }
        world.touch(0, 1000);
        world.run_for(Duration::from_secs(100));
        assert_eq!(world.log.len(), at);
        let state = if aborts { State::Aborted } else { State::Closed };
        assert_eq!(world.engines[0].state(client), state);
    }
}

fn released_name_is_an_empty_closed_connection(pair: Pair) {
    let (mut world, [client, other]) = World::opened(pair, 33, SPEC);
    world.engines[0].release(client);
    assert_eq!(world.engines[0].len(), 0);
    world.engines[0].release(client);
    assert_eq!(world.engines[0].len(), 0);
    let again = world.engines[0].connect(&world.opening(0, 1001), world.now).unwrap();
    assert_eq!((again.index, again == client), (client.index, false));
    let engine = &mut world.engines[0];
    assert_eq!(engine.state(client), State::Closed);
    assert_eq!((engine.readable(client), engine.writable(client), engine.send(client, b"x")), (0, 0, 0));
    assert_eq!((engine.due(client, world.now), engine.numbers(client)), (None, (0, 0)));
    engine.abort(client);
    engine.close(client);
    engine.receive(client, &[0x45; 60], world.now);
    assert_eq!(engine.pass(client, again, |_, _| unreachable!()), Default::default());
    let mut sink = Wire { room: 9, largest: 0, packets: Vec::new() };
    assert!(!engine.transmit(client, &mut sink, world.now) && sink.packets.is_empty());
    assert_eq!(engine.state(again), State::Connecting);
    assert_eq!(world.engines[1].state(other), State::Open);
}

for_pairs! {
    reset_of_the_exact_number_ends_every_state,
    reset_elsewhere_in_the_window_is_challenged,
    syn_on_an_open_connection_is_challenged_once_a_second,
    refused_connection_is_reset,
    two_sides_may_connect_to_each_other,
    reset_of_another_connection_does_not_refuse,
    connection_that_cannot_be_is_reset_at_once,
    unanswered_syn_times_out_without_a_reset,
    unanswered_data_times_out_with_a_reset,
    idle_hours_end_nothing_and_a_late_close_is_answered,
    keep_alive_asks_and_gives_up_when_nobody_answers,
    both_close_at_once,
    either_side_may_close_its_direction_and_go_on_hearing,
    both_sides_come_to_an_end_in_foul_weather,
    time_wait_begins_when_the_last_acknowledgement_has_left,
    abort_resets_the_peer,
    what_was_never_open_ends_silently,
    released_name_is_an_empty_closed_connection,
}
