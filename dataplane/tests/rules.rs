//! Applies that give open connections' packets other owners: what is open goes on, and nothing gets a second place.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod world;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sluice_dataplane::config::ids::PortId;
use sluice_dataplane::config::proxy::ProxyProfile;
use sluice_dataplane::config::snapshot::{Protocol, Snat, SourcePort, Virtual, VirtualKind};
use sluice_dataplane::limits::Limits;
use sluice_dataplane::packet::build::{self, Tcp, Udp};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, RST, SYN};
use sluice_dataplane::snat::steer::Owners;
use sluice_dataplane::verdict::DropReason;
use world::*;

/// Workers of one process that give ports by `choice`, and one member for each virtual server.
fn several(count: usize, choice: SourcePort) -> Vec<World> {
    let mut parts = usual();
    parts.pools[0].members.truncate(1);
    parts.virtuals.iter_mut().for_each(|item| item.source_port = choice);
    let limits = Limits { flows: 4_096, half_open: 4_096, frames: 512, ..Limits::default() };
    let mut workers = World::several(count, limits, &parts);
    workers[0].start();
    for worker in &mut workers[1..] {
        (0..4).for_each(|_| drop(worker.run(20)));
    }
    workers
}

fn apply(worker: &mut World, choice: SourcePort) {
    worker.apply(|parts| parts.virtuals.iter_mut().for_each(|item| item.source_port = choice));
}

fn apply_all(workers: &mut [World], choice: SourcePort) {
    workers.iter_mut().for_each(|worker| apply(worker, choice));
    (0..4).for_each(|_| assert!(turns(workers).is_empty()));
}

fn turns(workers: &mut [World]) -> Vec<Out> {
    workers.iter_mut().flat_map(|worker| worker.run(0)).collect()
}

/// Sends a frame into one worker's queue and lets every worker take turns.
fn send(workers: &mut [World], at: usize, port: PortId, bytes: &[u8]) -> Vec<Out> {
    let at = at % workers.len();
    let mut out = workers[at].send(port, bytes);
    (0..TURNS).for_each(|_| out.extend(turns(workers)));
    out
}

/// More than a packet makes from worker to worker.
const TURNS: usize = 10;

fn syn(src: &'static str, src_port: u16) -> Vec<u8> {
    build::tcp(&Tcp {
        src_mac: CLIENT_MAC,
        dst_mac: EXTERNAL_MAC,
        src,
        src_port,
        dst: VIRTUAL,
        dst_port: 80,
        flags: SYN,
        seq: 10,
        ..Tcp::default()
    })
}

fn datagram(src_port: u16) -> Vec<u8> {
    let to = (VIRTUAL, 53);
    let (src_mac, dst_mac) = (CLIENT_MAC, EXTERNAL_MAC);
    build::udp(&Udp { src_mac, dst_mac, src: CLIENT, src_port, dst: to.0, dst_port: to.1, ..Udp::default() })
}

fn answer(seen: &Seen) -> Vec<u8> {
    let (src, dst) = ((&*seen.dst.0, seen.dst.1), (&*seen.src.0, seen.src.1));
    let macs = (seen.dst_mac, INTERNAL_MAC);
    let udp = Udp { src_mac: macs.0, dst_mac: macs.1, src: src.0, src_port: src.1, ..Udp::default() };
    build::udp(&Udp { dst: dst.0, dst_port: dst.1, ..udp })
}

fn syn_ack(seen: &Seen) -> Vec<u8> {
    let tcp = Tcp {
        src_mac: seen.dst_mac,
        dst_mac: INTERNAL_MAC,
        flags: SYN | ACK,
        seq: 90,
        ack: 11,
        ..Tcp::default()
    };
    build::tcp(&Tcp { src: &seen.dst.0, src_port: seen.dst.1, dst: &seen.src.0, dst_port: seen.src.1, ..tcp })
}

/// The virtual server is a full proxy.
fn proxies(count: usize, choice: SourcePort) -> Vec<World> {
    let mut workers = several(count, choice);
    workers.iter_mut().for_each(|worker| {
        worker.apply(|parts| {
            parts.virtuals[0].kind = VirtualKind::Standard;
            parts.virtuals[0].proxy = Some(Arc::new(ProxyProfile::default()));
        });
    });
    workers
}

/// What a full proxy says over IPv4 without a tag; the port is to finish the checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    port: PortId,
    src_port: u16,
    seq: u32,
    flags: u8,
}

fn said(out: &Out) -> Said {
    let [high, low] = [34, 35].map(|at| out.bytes[at]);
    let seq = u32::from_be_bytes(out.bytes[38..42].try_into().unwrap());
    Said { port: out.port, src_port: u16::from_be_bytes([high, low]), seq, flags: out.bytes[47] }
}

fn only_said(out: &[Out]) -> Said {
    assert_eq!(out.len(), 1, "one frame expected: {out:02x?}");
    said(&out[0])
}

/// A client's handshake with a full proxy, and what comes of it.
fn shake_hands(workers: &mut [World], at: usize, src: &'static str, src_port: u16) -> Vec<Out> {
    let greeted = only_said(&send(workers, at, EXTERNAL, &syn(src, src_port)));
    assert_eq!(greeted.flags, SYN | ACK);
    let client = Tcp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, src, src_port, ..Tcp::default() };
    let ack = Tcp { dst: VIRTUAL, dst_port: 80, flags: ACK, seq: 11, ack: greeted.seq + 1, ..client };
    send(workers, at, EXTERNAL, &build::tcp(&ack))
}

fn drops(workers: &[World], reason: DropReason) -> u64 {
    workers.iter().map(|worker| worker.drops(reason)).sum()
}

#[test]
fn a_port_that_an_older_connection_has_is_not_given_again_by_number() {
    for count in [2, 4, 16] {
        let mut workers = several(count, SourcePort::Change);
        let older: Vec<Seen> = (0..100)
            .map(|n| only(&send(&mut workers, n.into(), EXTERNAL, &syn(CLIENT, 2_000 + n))))
            .collect();
        let clients: HashMap<u16, u16> =
            older.iter().zip(2_000..).map(|(seen, port)| (seen.src.1, port)).collect();
        apply_all(&mut workers, SourcePort::PreserveStrict);
        for seen in &older {
            let at = usize::from(seen.src.1);
            let refusal = only(&send(&mut workers, at, EXTERNAL, &syn("198.51.100.8", seen.src.1)));
            assert_eq!((refusal.flags & RST, &*refusal.dst.0), (RST, "198.51.100.8"), "{count} workers");
            let reply = only(&send(&mut workers, at + 1, INTERNAL, &syn_ack(seen)));
            assert_eq!(reply.dst, (CLIENT.into(), clients[&seen.src.1]), "the older connection's");
        }
        assert_eq!(drops(&workers, DropReason::SnatPortTaken), 100);
        let free = (50_000..50_100).filter(|port| !clients.contains_key(port));
        for port in free {
            let seen = only(&send(&mut workers, port.into(), EXTERNAL, &syn("198.51.100.8", port)));
            assert_eq!(seen.src, (SELF_IN.into(), port), "nobody has it");
        }
    }
}

#[test]
fn who_must_keep_a_port_waits_until_every_worker_goes_by_the_same_rule() {
    let mut workers = several(4, SourcePort::Change);
    workers[..3].iter_mut().for_each(|worker| apply(worker, SourcePort::PreserveStrict));
    let (mut passed, mut waits) = (Vec::new(), Vec::new());
    let owners = Owners::new(4);
    let names_the_last = |port| owners.of_port(port) == 3 || owners.of_frame(&syn(CLIENT, port)) == 3;
    for port in (20_000..20_100).filter(|&port| !names_the_last(port)) {
        let out = send(&mut workers[..3], owners.of_port(port), EXTERNAL, &syn(CLIENT, port));
        if out.is_empty() { waits.push(port) } else { passed.push(only(&out).src.1) }
    }
    assert!(passed.len() > 5 && waits.len() > 20, "{passed:?} {waits:?}");
    apply(&mut workers[3], SourcePort::PreserveStrict);
    let out: Vec<u16> = (0..TURNS).flat_map(|_| turns(&mut workers)).map(|out| see(&out).src.1).collect();
    assert!(out.len() == waits.len() && waits.iter().all(|port| out.contains(port)), "{waits:?} {out:?}");
    assert!(workers.iter().all(|worker| worker.all_drops().is_empty()));
}

#[test]
fn too_many_that_wait_for_one_rule_are_dropped_and_not_refused() {
    let mut workers = several(2, SourcePort::Change);
    apply(&mut workers[0], SourcePort::PreserveStrict);
    let owners = Owners::new(2);
    let is_known_to_the_first = |port| owners.of_port(port) == 0 && owners.of_frame(&syn(CLIENT, port)) == 0;
    let mut ports = (10_000..20_000).filter(|&port| is_known_to_the_first(port));
    let mut sent = 0;
    while drops(&workers, DropReason::SnatUnsettled) < 5 {
        let out = workers[0].send(EXTERNAL, &syn(CLIENT, ports.next().unwrap()));
        assert!(out.iter().all(|out| out.port == INTERNAL), "nobody is refused");
        sent += usize::from(out.is_empty());
    }
    assert_eq!(sent, 256 + 5);
    apply(&mut workers[1], SourcePort::PreserveStrict);
    assert_eq!((0..20).flat_map(|_| turns(&mut workers)).count(), 256);
}

#[test]
fn datagrams_keep_their_flow_whatever_rule_comes_and_goes() {
    for (count, snat) in [(2, Snat::Automap), (4, Snat::Automap), (16, Snat::Automap), (4, Snat::None)] {
        for first in [SourcePort::Change, SourcePort::PreserveStrict, SourcePort::Preserve] {
            let mut workers = several(count, first);
            workers.iter_mut().for_each(|one| one.apply(|parts| parts.virtuals[2].snat = snat));
            let mut flows: HashMap<u16, (String, u16)> = HashMap::new();
            let others = [SourcePort::PreserveStrict, SourcePort::Change, SourcePort::PreserveStrict, first];
            for (round, choice) in (0u16..).zip(others) {
                apply_all(&mut workers, choice);
                let new = 30_000 + round * 20;
                for port in 30_000..new + 20 {
                    let at = usize::from(port + round * 3);
                    let seen = only(&send(&mut workers, at, EXTERNAL, &datagram(port)));
                    let known = flows.entry(port).or_insert_with(|| seen.src.clone());
                    assert_eq!(&seen.src, known, "{count} workers, {snat:?}, {first:?}, round {round}");
                    let back = only(&send(&mut workers, at + 1, INTERNAL, &answer(&seen)));
                    assert_eq!(back.dst, (CLIENT.into(), port));
                }
            }
            let open: usize = workers.iter_mut().map(|worker| worker.flows().len()).sum();
            assert_eq!(open, flows.len());
        }
    }
}

/// The virtual server that took the first datagrams is still there, and would own them as before.
#[test]
fn datagrams_keep_their_flow_when_a_closer_virtual_server_comes_and_goes() {
    let mut workers = several(4, SourcePort::Change);
    workers.iter_mut().for_each(|one| {
        one.apply(|parts| parts.virtuals[2].matches[0].destination = prefix("192.0.2.96/28"));
    });
    let closer = || Virtual {
        source_port: SourcePort::PreserveStrict,
        ..virtual_server(9, "192.0.2.100/32", 53, Protocol::Udp, 2)
    };
    let mut flows: HashMap<u16, (String, u16)> = HashMap::new();
    for round in 0..4u16 {
        workers.iter_mut().for_each(|one| {
            one.apply(|parts| {
                parts.virtuals.truncate(3);
                parts.virtuals.extend((round % 2 == 1).then(closer));
            });
        });
        for port in 30_000..30_020 + round * 20 {
            let seen = only(&send(&mut workers, usize::from(port + round), EXTERNAL, &datagram(port)));
            let known = flows.entry(port).or_insert_with(|| seen.src.clone());
            assert_eq!(&seen.src, known, "round {round}");
        }
    }
}

#[test]
fn datagrams_keep_their_flow_when_another_virtual_server_comes_after_theirs_has_gone() {
    let mut workers = several(4, SourcePort::Change);
    let ask = |workers: &mut [World], at: u16| -> Vec<Seen> {
        (30_000..30_040)
            .map(|port| only(&send(workers, (port + at).into(), EXTERNAL, &datagram(port))))
            .collect()
    };
    let before = ask(&mut workers, 0);
    workers.iter_mut().for_each(|one| one.apply(|parts| parts.virtuals.truncate(2)));
    workers.iter_mut().for_each(|one| {
        one.apply(|parts| {
            let next = virtual_server(9, "192.0.2.100/32", 53, Protocol::Udp, 2);
            parts.virtuals.push(Virtual { source_port: SourcePort::PreserveStrict, ..next });
        });
    });
    let sources = |seen: &[Seen]| -> Vec<_> { seen.iter().map(|seen| seen.src.clone()).collect() };
    assert_eq!(sources(&ask(&mut workers, 1)), sources(&before));
}

#[test]
fn a_syn_that_comes_again_after_an_apply_finds_its_flow() {
    for [first, then] in
        [[SourcePort::Change, SourcePort::PreserveStrict], [SourcePort::PreserveStrict, SourcePort::Change]]
    {
        let mut workers = several(4, first);
        let ports = 20_000..20_050;
        let sources: Vec<_> = ports
            .clone()
            .map(|port| only(&send(&mut workers, port.into(), EXTERNAL, &syn(CLIENT, port))).src)
            .collect();
        apply_all(&mut workers, then);
        for (port, source) in ports.zip(&sources) {
            let again = only(&send(&mut workers, usize::from(port) + 1, EXTERNAL, &syn(CLIENT, port)));
            assert_eq!(&again.src, source, "{first:?}");
        }
        let open: usize = workers.iter_mut().map(|worker| worker.flows().len()).sum();
        assert_eq!(open, sources.len());
    }
}

#[test]
fn full_proxies_give_no_port_again_that_an_older_connection_has() {
    let mut workers = proxies(4, SourcePort::Change);
    let older: Vec<u16> =
        (2_000..2_060).map(|port| only_said(&shake_hands(&mut workers, 1, CLIENT, port)).src_port).collect();
    apply_all(&mut workers, SourcePort::PreserveStrict);
    for &port in &older {
        let refusal = only_said(&shake_hands(&mut workers, port.into(), "198.51.100.8", port));
        assert_eq!((refusal.port, refusal.flags & RST), (EXTERNAL, RST));
        let kept = port ^ 1;
        if !older.contains(&kept) {
            let seen = only_said(&shake_hands(&mut workers, port.into(), "198.51.100.8", kept));
            assert_eq!((seen.port, seen.src_port), (INTERNAL, kept));
        }
    }
    assert_eq!(drops(&workers, DropReason::SnatPortTaken), 60);
}

#[test]
fn a_full_proxy_waits_until_every_worker_goes_by_the_same_rule() {
    let mut workers = proxies(4, SourcePort::Change);
    workers[..3].iter_mut().for_each(|worker| apply(worker, SourcePort::PreserveStrict));
    let owners = Owners::new(4);
    let mut waits = Vec::new();
    for port in (20_000..20_100).filter(|&port| owners.of_port(port) < 3) {
        let out = shake_hands(&mut workers[..3], owners.of_port(port), CLIENT, port);
        if out.is_empty() { waits.push(port) } else { assert_eq!(only_said(&out).src_port, port) }
    }
    assert!(waits.len() > 40);
    apply(&mut workers[3], SourcePort::PreserveStrict);
    let later = (0..20).flat_map(|_| workers.iter_mut().flat_map(|one| one.run(20)).collect::<Vec<_>>());
    let sources: HashSet<u16> =
        later.filter(|out| out.port == INTERNAL).map(|out| said(&out).src_port).collect();
    assert_eq!(waits.into_iter().filter(|port| !sources.contains(port)).count(), 0);
    assert!(workers.iter().all(|worker| worker.all_drops().is_empty()));
}

#[test]
fn nothing_more_crosses_as_long_as_no_rule_has_changed() {
    let mut workers = several(4, SourcePort::Change);
    workers
        .iter_mut()
        .for_each(|one| one.apply(|parts| parts.virtuals[0].source_port = SourcePort::PreserveStrict));
    workers.iter_mut().for_each(|one| one.apply(|parts| parts.virtuals[1].connection_limit = 9));
    for port in 30_000..30_100 {
        let bytes = datagram(port);
        let at = Owners::new(4).of_frame(&bytes);
        only(&send(&mut workers, at, EXTERNAL, &bytes));
    }
    let crossed: u64 = workers.iter().map(|worker| worker.counters.handed_over.load()).sum();
    assert_eq!(crossed, 0, "datagrams have had one rule only");
}
