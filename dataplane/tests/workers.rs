//! Several workers: wherever a packet arrives, the worker that owns its flow handles it.

mod world;

use std::collections::HashSet;

use sluice_dataplane::address::Mac;
use sluice_dataplane::config::ids::{PoolId, PortId};
use sluice_dataplane::config::snapshot::{
    Parts, Protocol, Snapshot, Snat, SnatList, SourcePort, Virtual, VirtualKind,
};
use sluice_dataplane::counters::{Counter, WorkerCounters};
use sluice_dataplane::limits::Limits;
use sluice_dataplane::packet::build::{self, Tcp};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, RST, SYN};
use sluice_dataplane::packet::rewrite::LinkHeader;
use sluice_dataplane::snat::steer::Owners;
use sluice_dataplane::verdict::DropReason;
use world::*;

const WORKERS: usize = 4;

fn workers(change: impl FnOnce(&mut Parts)) -> Vec<World> {
    several(WORKERS, change)
}

fn several(count: usize, change: impl FnOnce(&mut Parts)) -> Vec<World> {
    let mut parts = usual();
    change(&mut parts);
    let limits = Limits { flows: 4_096, half_open: 4_096, frames: 512, ..Limits::default() };
    let mut workers = World::several(count, limits, &parts);
    workers[0].start();
    for worker in &mut workers[1..] {
        (0..4).for_each(|_| drop(worker.run(20)));
    }
    workers
}

/// Sends a frame into one worker's queue and lets every worker take turns until nothing moves.
fn send_bytes(workers: &mut [World], at: usize, port: PortId, bytes: &[u8]) -> Vec<Out> {
    let mut out = workers[at].send(port, bytes);
    for _ in 0..HOPS {
        out.extend(workers.iter_mut().flat_map(|worker| worker.run(0)));
    }
    out
}

/// More than a packet of an earlier configuration's flow makes from worker to worker.
const HOPS: usize = 8;

/// How ports spread frames over workers.
enum Spread {
    /// By the frames themselves, as a NIC or the kernel's program does.
    ByHash,
    /// Anyhow.
    Anyhow(usize),
}

impl Spread {
    fn send(&mut self, workers: &mut [World], port: PortId, bytes: &[u8]) -> Vec<Out> {
        let at = match self {
            Spread::ByHash => Owners::new(workers.len()).of_frame(bytes),
            Spread::Anyhow(turn) => {
                *turn += 1;
                *turn * 7 % workers.len()
            }
        };
        send_bytes(workers, at, port, bytes)
    }
}

/// A client and what it talks to.
fn client(port: u16, destination: (&'static str, u16)) -> Tcp<'static> {
    Tcp {
        src_mac: CLIENT_MAC,
        dst_mac: EXTERNAL_MAC,
        dst: destination.0,
        dst_port: destination.1,
        src_port: port,
        ..Tcp::default()
    }
}

/// A handshake and an exchange whose packets arrive as `spread` has it. Returns the ends of the member's side.
fn converse(
    workers: &mut [World],
    client_port: u16,
    destination: (&'static str, u16),
    spread: &mut Spread,
) -> [(String, u16); 2] {
    let client = client(client_port, destination);
    let mut send = |port, tcp: &Tcp| only(&spread.send(workers, port, &build::tcp(tcp)));
    let seen = send(EXTERNAL, &Tcp { flags: SYN, seq: 10, ..client });
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
    let back = send(INTERNAL, &Tcp { flags: SYN | ACK, seq: 90, ack: 11, ..reply });
    assert_eq!((back.dst, back.src), ((CLIENT.into(), client_port), (destination.0.into(), destination.1)));
    assert_eq!(back.dst_mac, CLIENT_MAC);
    let seen = send(EXTERNAL, &Tcp { flags: ACK, seq: 11, ack: 91, ..client });
    assert_eq!((&seen.src, &seen.dst), (&source, &member));
    let back = send(INTERNAL, &Tcp { flags: ACK, seq: 91, ack: 11, payload: b"hi", ..reply });
    assert_eq!(back.dst, (CLIENT.into(), client_port));
    [source, member]
}

fn sum(workers: &[World], counter: fn(&WorkerCounters) -> &Counter) -> u64 {
    workers.iter().map(|worker| counter(&worker.counters).load()).sum()
}

fn misdirected(workers: &[World]) -> u64 {
    sum(workers, |counters| &counters.misdirected)
}

fn handed_over(workers: &[World]) -> u64 {
    sum(workers, |counters| &counters.handed_over)
}

fn assert_nothing_lost(workers: &mut [World]) {
    let drops: Vec<_> = workers.iter().map(World::all_drops).collect();
    assert!(drops.iter().all(Vec::is_empty), "{drops:?}");
    assert!(workers.iter_mut().all(|worker| !worker.flows().is_empty()), "every worker has flows");
}

#[test]
fn snat_replies_come_home_from_any_worker() {
    for count in [2, 3, 4, 8, 16] {
        let (mut workers, mut spread) = (several(count, |_| ()), Spread::Anyhow(0));
        let mut sources = HashSet::new();
        for port in 0..500 {
            let ends = converse(&mut workers, 2_000 + port, (VIRTUAL, 80), &mut spread);
            assert!(sources.insert(ends), "one source towards one member only once");
        }
        assert_nothing_lost(&mut workers);
        assert!(misdirected(&workers) > 0 && handed_over(&workers) == 0);
    }
}

#[test]
fn where_ports_spread_by_hash_no_packet_of_a_translated_flow_crosses() {
    for count in [1, 2, 3, 4, 8, 16] {
        let (mut workers, mut spread) = (several(count, |_| ()), Spread::ByHash);
        for port in 0..500 {
            converse(&mut workers, 2_000 + port, (VIRTUAL, 80), &mut spread);
        }
        assert_nothing_lost(&mut workers);
        assert_eq!((misdirected(&workers), handed_over(&workers)), (0, 0));
    }
}

fn keep_ports(parts: &mut Parts) {
    parts.virtuals[0].source_port = SourcePort::PreserveStrict;
}

#[test]
fn ports_that_must_be_kept_are_kept_by_any_number_of_workers() {
    for count in [1, 2, 3, 4, 8, 16] {
        for mut spread in [Spread::ByHash, Spread::Anyhow(0)] {
            let mut workers = several(count, keep_ports);
            for port in 0..300 {
                let [source, _] = converse(&mut workers, 20_000 + port, (VIRTUAL, 80), &mut spread);
                assert_eq!(source, (SELF_IN.into(), 20_000 + port));
            }
            assert_nothing_lost(&mut workers);
            assert_eq!(misdirected(&workers), 0, "no port could know");
            assert_eq!(handed_over(&workers) > 0, count > 1);
        }
    }
}

#[test]
fn a_port_that_must_be_kept_and_is_taken_is_refused_by_any_number_of_workers() {
    for count in [1, 3, 16] {
        let mut workers = several(count, |parts| {
            keep_ports(parts);
            parts.pools[0].members.truncate(1);
        });
        for port in 20_000..20_030 {
            converse(&mut workers, port, (VIRTUAL, 80), &mut Spread::Anyhow(port.into()));
            let other = Tcp { src: "198.51.100.8", flags: SYN, seq: 10, ..client(port, (VIRTUAL, 80)) };
            let refusal =
                only(&Spread::Anyhow(port.into()).send(&mut workers, EXTERNAL, &build::tcp(&other)));
            assert_eq!((refusal.flags & RST, &*refusal.dst.0), (RST, "198.51.100.8"));
        }
        let refused: u64 = workers.iter().map(|worker| worker.drops(DropReason::SnatPortTaken)).sum();
        assert_eq!(refused, 30);
    }
}

/// A virtual server that keeps ports and one that takes any share their addresses.
#[test]
fn replies_of_others_do_not_cross_because_ports_are_kept_at_their_address() {
    for (count, choice) in [(2, SourcePort::Change), (4, SourcePort::Change), (4, SourcePort::Preserve)] {
        let (mut workers, mut spread, mut sources) =
            (several(count, keep_ports), Spread::ByHash, HashSet::new());
        workers.iter_mut().for_each(|worker| {
            worker.apply(|parts| {
                let other = virtual_server(3, "192.0.2.101/32", 80, Protocol::Tcp, 0);
                parts.virtuals.push(Virtual { source_port: choice, ..other });
            });
        });
        for port in 30_000..30_200 {
            let kept = converse(&mut workers, port, (VIRTUAL, 80), &mut spread);
            assert_eq!(kept[0].1, port);
            assert!(sources.insert(kept));
        }
        let before = handed_over(&workers);
        for port in 30_000..30_200 {
            let other = converse(&mut workers, port, ("192.0.2.101", 80), &mut spread);
            assert!(sources.insert(other), "one source towards one member only once");
        }
        assert_eq!(handed_over(&workers), before);
        assert_nothing_lost(&mut workers);
    }
}

#[test]
fn connections_with_kept_ports_outlive_the_rule_and_those_before_it() {
    for mut spread in [Spread::ByHash, Spread::Anyhow(0)] {
        for [first, then] in [
            [SourcePort::Change, SourcePort::PreserveStrict],
            [SourcePort::PreserveStrict, SourcePort::Change],
        ] {
            let mut workers = several(4, |parts| parts.virtuals[0].source_port = first);
            let open: Vec<_> = (20_000..20_040)
                .map(|port| (port, converse(&mut workers, port, (VIRTUAL, 80), &mut spread)))
                .collect();
            workers.iter_mut().for_each(|worker| worker.apply(|parts| parts.virtuals[0].source_port = then));
            for (port, [source, member]) in &open {
                let ask = Tcp { flags: ACK, seq: 11, ack: 93, ..client(*port, (VIRTUAL, 80)) };
                let seen = only(&spread.send(&mut workers, EXTERNAL, &build::tcp(&ask)));
                assert_eq!([&seen.src, &seen.dst], [source, member], "{first:?} {port}");
                let answer = Tcp {
                    src: &member.0,
                    src_port: member.1,
                    dst: &source.0,
                    dst_port: source.1,
                    ..Tcp::default()
                };
                let answer = Tcp {
                    src_mac: seen.dst_mac,
                    dst_mac: INTERNAL_MAC,
                    flags: ACK,
                    seq: 93,
                    ack: 11,
                    ..answer
                };
                let back = only(&spread.send(&mut workers, INTERNAL, &build::tcp(&answer)));
                assert_eq!(back.dst, (CLIENT.into(), *port), "{first:?}");
            }
            assert_nothing_lost(&mut workers);
        }
    }
}

#[test]
fn errors_reach_the_owner_of_their_flow_from_any_worker() {
    let choices = [SourcePort::Preserve, SourcePort::PreserveStrict];
    for (snat, choice) in
        [Snat::Automap, Snat::None].into_iter().flat_map(|snat| choices.map(|choice| (snat, choice)))
    {
        let mut workers = workers(|parts| {
            (parts.virtuals[0].snat, parts.virtuals[0].source_port) = (snat, choice);
        });
        for port in 2_000..2_040 {
            let syn = build::tcp(&Tcp { flags: SYN, seq: 10, ..client(port, (VIRTUAL, 80)) });
            let towards_member = send_bytes(&mut workers, usize::from(port) % WORKERS, EXTERNAL, &syn);
            let seen = only(&towards_member);
            let unreachable = icmp_error(INTERNAL_MAC, "10.1.0.14", &seen.src.0, &towards_member[0].bytes);
            let reply =
                Tcp { src_mac: seen.dst_mac, dst_mac: INTERNAL_MAC, flags: SYN | ACK, ..Tcp::default() };
            let reply =
                Tcp { src: &seen.dst.0, dst: &seen.src.0, src_port: 8080, dst_port: seen.src.1, ..reply };
            let towards_client = send_bytes(&mut workers, 0, INTERNAL, &build::tcp(&reply));
            let lost = icmp_error(EXTERNAL_MAC, "203.0.113.1", VIRTUAL, &towards_client[0].bytes);
            for at in 0..WORKERS {
                for (from, error, to) in [(INTERNAL, &unreachable, EXTERNAL), (EXTERNAL, &lost, INTERNAL)] {
                    let out = send_bytes(&mut workers, at, from, error);
                    assert_eq!(
                        (out.len(), out.first().map(|out| out.port)),
                        (1, Some(to)),
                        "{snat:?} {port} {at}"
                    );
                    build::assert_checksums(&out[0].bytes);
                }
            }
        }
        assert_nothing_lost(&mut workers);
        assert_eq!(sum(&workers, |counters| &counters.icmp_errors), 40 * 2 * WORKERS as u64);
    }
}

#[test]
fn ports_of_virtual_servers_on_a_self_ip_are_not_given_towards_members() {
    let mut world = World::started(|parts| {
        let on_self =
            |port| virtual_server(3 + u32::from(port) - 2_000, "10.1.0.10/32", port, Protocol::Tcp, 0);
        parts.virtuals.extend((2_000..2_010).map(on_self));
    });
    for port in 2_000..2_020 {
        let syn = build::tcp(&Tcp { flags: SYN, ..client(port, (VIRTUAL, 80)) });
        let source = only(&world.send(EXTERNAL, &syn)).src;
        assert_eq!((source.1 == port, (2_000..2_010).contains(&source.1)), (port >= 2_010, false));
    }
    let used = world.snat();
    assert_eq!((used[0].in_use, used[0].ports_each, used[0].exhausted), (20, 64_502, 0));
}

#[test]
fn a_snat_list_hides_some_clients_and_both_kinds_come_home() {
    let hidden = |parts: &mut Parts| {
        let rows = vec![(prefix("198.51.100.0/29"), Snat::None), (prefix("0.0.0.0/0"), Snat::Automap)];
        parts.snat_lists = vec![SnatList { name: "by-prefix".into(), rows }];
        parts.virtuals[0].snat = Snat::List(0);
    };
    let parts = {
        let mut parts = usual();
        hidden(&mut parts);
        Snapshot::build(parts)
    };
    let server = &parts.parts().virtuals[0];
    let hides = |client| parts.hides(server, build::address(client));
    assert_eq!([hides("198.51.100.7"), hides("198.51.100.8"), hides("2001:db8::1")], [false, true, false]);
    assert!(parts.is_transparent_member(build::address("10.1.0.11"), 8080));
}

#[test]
fn replies_to_clients_own_addresses_come_home() {
    let (mut workers, mut spread) = (workers(|parts| parts.virtuals[0].snat = Snat::None), Spread::Anyhow(0));
    for port in 0..200 {
        let [source, _] = converse(&mut workers, 2_000 + port, (VIRTUAL, 80), &mut spread);
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
    let (mut workers, mut spread) = (workers(change), Spread::Anyhow(0));
    for port in 0..200 {
        converse(&mut workers, 2_000 + port, ("10.1.0.13", 22), &mut spread);
    }
    assert_nothing_lost(&mut workers);
    assert!(misdirected(&workers) == 0 && handed_over(&workers) > 0, "no port could know");
}

#[test]
fn snat_replies_come_home_past_a_wildcard_virtual_server() {
    for snat in [Snat::None, Snat::Automap] {
        let change = |parts: &mut Parts| {
            let mut forward = virtual_server(3, "0.0.0.0/0", 0, Protocol::Any, 0);
            (forward.kind, forward.pool, forward.snat) = (VirtualKind::ForwardingIp, None, snat);
            parts.virtuals.push(forward);
        };
        let (mut workers, mut spread) = (workers(change), Spread::Anyhow(0));
        for port in 0..200 {
            converse(&mut workers, 2_000 + port, (VIRTUAL, 80), &mut spread);
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
    let lost = workers[0].drops(DropReason::HandoffFull);
    let crossed = misdirected(&workers);
    assert!(lost > 0 && crossed == 3 * 1_024, "{crossed} crossed, {lost} lost");
}

#[test]
fn neighbors_heard_by_one_worker_are_known_to_all() {
    let mut workers = workers(|_| ());
    for worker in &mut workers {
        worker.run(0);
        assert!(worker.neighbors().iter().any(|neighbor| neighbor.mac == Some(member_mac(11))));
    }
}

/// A router's or member's error about `offender`, which left us.
fn icmp_error(to: Mac, src: &str, dst: &str, offender: &[u8]) -> Vec<u8> {
    let message = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &offender[14..]].concat();
    let link = LinkHeader { destination: to, source: Mac([2, 0, 0, 0, 9, 9]), vlan: 0 };
    build::packet(link, src, dst, 64, 1, &message, 2)
}
