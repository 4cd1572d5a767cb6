//! Several workers: wherever a packet arrives, the worker that owns its flow handles it.

mod world;

use sluice_dataplane::config::ids::{PoolId, PortId};
use sluice_dataplane::config::snapshot::{Parts, Protocol, Snat, VirtualKind};
use sluice_dataplane::limits::Limits;
use sluice_dataplane::packet::build::{self, Tcp};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, SYN};
use sluice_dataplane::verdict::DropReason;
use world::*;

const WORKERS: usize = 4;

fn workers(change: impl FnOnce(&mut Parts)) -> Vec<World> {
    let mut parts = usual();
    change(&mut parts);
    let limits = Limits { flows: 4_096, half_open: 4_096, frames: 512, ..Limits::default() };
    let mut workers = World::several(WORKERS, limits, &parts);
    workers[0].start();
    for worker in &mut workers[1..] {
        (0..4).for_each(|_| drop(worker.run(20)));
    }
    workers
}

/// Sends a frame into one worker's queue and lets every worker take turns until nothing moves.
fn send(workers: &mut [World], at: usize, port: PortId, tcp: &Tcp) -> Vec<Out> {
    let mut out = workers[at].send(port, &build::tcp(tcp));
    for _ in 0..2 {
        out.extend(workers.iter_mut().flat_map(|worker| worker.run(0)));
    }
    out
}

/// A handshake and an exchange whose packets arrive all over. Returns the ends of the member's side.
fn converse(
    workers: &mut [World],
    client_port: u16,
    destination: (&str, u16),
    turn: &mut usize,
) -> [(String, u16); 2] {
    let mut next = || {
        *turn += 1;
        *turn * 7 % WORKERS
    };
    let client = Tcp {
        src_mac: CLIENT_MAC,
        dst_mac: EXTERNAL_MAC,
        dst: destination.0,
        dst_port: destination.1,
        src_port: client_port,
        ..Tcp::default()
    };
    // A NIC keeps the packets of one tuple on one queue, so the client's side always comes to the same worker.
    let home = next();
    let seen = only(&send(workers, home, EXTERNAL, &Tcp { flags: SYN, seq: 10, ..client }));
    let (source, member) = (seen.src, seen.dst);
    let reply = Tcp {
        src_mac: seen.dst_mac,
        dst_mac: INTERNAL_MAC,
        src: &member.0,
        dst: &source.0,
        src_port: member.1,
        dst_port: source.1,
        ..Tcp::default()
    };
    let back = only(&send(workers, next(), INTERNAL, &Tcp { flags: SYN | ACK, seq: 90, ack: 11, ..reply }));
    assert_eq!((back.dst, back.src), ((CLIENT.into(), client_port), (destination.0.into(), destination.1)));
    assert_eq!(back.dst_mac, CLIENT_MAC);
    let seen = only(&send(workers, home, EXTERNAL, &Tcp { flags: ACK, seq: 11, ack: 91, ..client }));
    assert_eq!((&seen.src, &seen.dst), (&source, &member));
    let back = only(&send(
        workers,
        next(),
        INTERNAL,
        &Tcp { flags: ACK, seq: 91, ack: 11, payload: b"hi", ..reply },
    ));
    assert_eq!(back.dst, (CLIENT.into(), client_port));
    [source, member]
}

fn assert_nothing_lost(workers: &mut [World]) {
    let drops: Vec<_> = workers.iter().map(World::all_drops).collect();
    assert!(drops.iter().all(Vec::is_empty), "{drops:?}");
    assert!(workers.iter().any(|worker| worker.counters.handed_over.load() > 0));
    let spread = workers.iter_mut().filter_map(|worker| (!worker.flows().is_empty()).then_some(())).count();
    assert_eq!(spread, WORKERS, "every worker has flows");
}

#[test]
fn snat_replies_come_home_from_any_worker() {
    let (mut workers, mut turn) = (workers(|_| ()), 0);
    let mut sources = std::collections::HashSet::new();
    for port in 0..500 {
        let ends = converse(&mut workers, 2_000 + port, (VIRTUAL, 80), &mut turn);
        assert!(sources.insert(ends), "one source towards one member only once");
    }
    assert_nothing_lost(&mut workers);
}

#[test]
fn replies_to_clients_own_addresses_come_home() {
    let (mut workers, mut turn) = (workers(|parts| parts.virtuals[0].snat = Snat::None), 0);
    for port in 0..200 {
        let [source, _] = converse(&mut workers, 2_000 + port, (VIRTUAL, 80), &mut turn);
        assert_eq!(source, (CLIENT.into(), 2_000 + port));
    }
    assert_nothing_lost(&mut workers);
}

#[test]
fn forwarded_connections_come_home_from_either_side() {
    let change = |parts: &mut Parts| {
        let mut forward = virtual_server(3, "0.0.0.0/0", 0, Protocol::Any, 0);
        (forward.kind, forward.pool, forward.snat) = (VirtualKind::ForwardingIp, None, Snat::None);
        parts.virtuals.push(forward);
    };
    let (mut workers, mut turn) = (workers(change), 0);
    for port in 0..200 {
        converse(&mut workers, 2_000 + port, ("10.1.0.13", 22), &mut turn);
    }
    assert_nothing_lost(&mut workers);
}

#[test]
fn snat_replies_come_home_past_a_wildcard_virtual_server() {
    for snat in [Snat::None, Snat::Automap] {
        let change = |parts: &mut Parts| {
            let mut forward = virtual_server(3, "0.0.0.0/0", 0, Protocol::Any, 0);
            (forward.kind, forward.pool, forward.snat) = (VirtualKind::ForwardingIp, None, snat);
            parts.virtuals.push(forward);
        };
        let (mut workers, mut turn) = (workers(change), 0);
        for port in 0..200 {
            converse(&mut workers, 2_000 + port, (VIRTUAL, 80), &mut turn);
        }
        assert_nothing_lost(&mut workers);
    }
}

#[test]
fn an_apply_does_not_give_each_worker_the_whole_rate() {
    let mut workers = workers(|_| ());
    workers.iter_mut().for_each(|worker| worker.apply(|_| ()));
    for worker in &mut workers {
        worker.run(10_000);
    }
    let nobody = Tcp { flags: SYN, dst: VIRTUAL, dst_port: 81, dst_mac: EXTERNAL_MAC, ..Tcp::default() };
    let refused = |worker: &mut World| -> usize {
        let tcp = |port: u16| build::tcp(&Tcp { src_port: 2_000 + port, ..nobody });
        let mut send = |port| worker.send(EXTERNAL, &tcp(port)).len();
        (0..300).map(&mut send).sum()
    };
    let tried: usize = workers.iter_mut().map(refused).sum();
    let sent: u64 = workers.iter().map(|worker| worker.counters.rejects_sent.load()).sum();
    assert!(tried > 0 && sent <= 252, "{sent} refusals for a limit of 250 a second");
}

#[test]
fn a_stray_that_does_not_fit_is_counted() {
    let mut workers = workers(|parts| parts.pools.retain(|pool| pool.id != PoolId(9)));
    let reply = Tcp {
        src_mac: member_mac(11),
        dst_mac: INTERNAL_MAC,
        src: "10.1.0.11",
        dst: SELF_IN,
        src_port: 8080,
        ..Tcp::default()
    };
    for n in 0..6_000u32 {
        let tcp = Tcp { dst_port: 1_024 + n as u16, ..reply };
        workers[0].send(INTERNAL, &build::tcp(&tcp));
    }
    let lost = workers[0].drops(DropReason::Misdirected);
    let handed = workers[0].counters.handed_over.load();
    assert!(lost > 0 && handed == 3 * 1_024, "{handed} handed over, {lost} lost");
}

#[test]
fn neighbors_heard_by_one_worker_are_known_to_all() {
    let mut workers = workers(|_| ());
    for worker in &mut workers {
        worker.run(0);
        assert!(worker.neighbors().iter().any(|neighbor| neighbor.mac == Some(member_mac(11))));
    }
}
