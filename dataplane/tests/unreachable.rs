//! Packets without a way on: no route, or a next hop that does not answer. Whoever sent them is told, in its own words.

mod world;

use sluice_dataplane::config::ids::VirtualId;
use sluice_dataplane::config::snapshot::{Parts, Protocol, Snat, VirtualKind};
use sluice_dataplane::packet::build::{self, Tcp, Udp};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, RST, SYN};
use sluice_dataplane::packet::rewrite::LinkHeader;
use sluice_dataplane::verdict::DropReason;
use world::*;

/// Whom nobody has: on the inner network, and behind no route.
const ABSENT: [(&str, &str); 2] = [(CLIENT, "10.1.0.77"), (CLIENT6, "2001:db8:2::77")];
const NOWHERE: [(&str, &str); 2] = [(CLIENT, "203.0.113.9"), (CLIENT6, "2001:db8:f::9")];
/// Ours on the outer link, where the client is.
const OURS: [&str; 2] = ["192.0.2.10", "2001:db8:1::10"];

/// Everything is forwarded.
fn forwarding(snat: Snat) -> World {
    World::started(|parts| {
        forward_all(parts, snat);
    })
}

fn forward_all(parts: &mut Parts, snat: Snat) {
    for (id, everything) in [(4, "0.0.0.0/0"), (5, "::/0")] {
        let mut forward = virtual_server(id, everything, 0, Protocol::Any, 0);
        (forward.kind, forward.pool, forward.snat) = (VirtualKind::ForwardingIp, None, snat);
        parts.virtuals.push(forward);
    }
}

fn datagram(src: &str, dst: &str) -> Vec<u8> {
    let udp = Udp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, src, dst, ..Udp::default() };
    build::udp(&Udp { src_port: 40_000, dst_port: 7, payload: b"anybody there?", ..udp })
}

fn ping(src: &str, dst: &str) -> Vec<u8> {
    let link = LinkHeader { source: CLIENT_MAC, destination: EXTERNAL_MAC, vlan: 0 };
    let (kind, protocol) = if dst.contains(':') { (128, 58) } else { (8, 1) };
    build::packet(link, src, dst, 64, protocol, &[kind, 0, 0, 0, 0, 77, 0, 1, 5, 6, 7, 8], 2)
}

fn syn(port: u16) -> Tcp<'static> {
    let tcp = Tcp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, src_port: port, ..Tcp::default() };
    Tcp { flags: SYN, seq: 1_000, ..tcp }
}

/// What an error says, its checksums proven: who sent it to whom, type and code, and the packet it quotes.
fn read(out: &Out) -> (String, String, [u8; 2], Seen, u16) {
    let outer = see(out);
    assert_eq!((outer.port, outer.dst_mac), (EXTERNAL, CLIENT_MAC));
    let l4 = if out.bytes[14] >> 4 == 4 { 34 } else { 54 };
    let bytes = [&out.bytes[..14], &out.bytes[l4 + 8..]].concat();
    // Of an echo message, its identifier.
    let identifier = u16::from_be_bytes([bytes[l4 + 4], bytes[l4 + 5]]);
    let quoted = see(&Out { port: EXTERNAL, bytes });
    (outer.src.0, outer.dst.0, [out.bytes[l4], out.bytes[l4 + 1]], quoted, identifier)
}

/// Errors about these packets go to their sender, and quote what it had sent.
fn assert_told(out: &[Out], (src, dst): (&str, &str), codes: [[u8; 2]; 2], place: &str) {
    assert_eq!(out.len(), 1, "{place}: {out:02x?}");
    let family = usize::from(dst.contains(':'));
    let (from, to, code, quoted, identifier) = read(&out[0]);
    assert_eq!((from.as_str(), to.as_str(), code), (OURS[family], src, codes[family]), "{place}");
    assert_eq!((quoted.src.0.as_str(), quoted.dst.0.as_str()), (src, dst), "{place}");
    let is_udp = quoted.dst.1 == 7;
    assert!(if is_udp { quoted.src.1 == 40_000 } else { identifier == 77 }, "{place}: {quoted:?}");
}

/// Only what is no neighbour discovery and no ARP.
fn answers(out: Vec<Out>) -> Vec<Out> {
    out.into_iter().filter(|out| out.port == EXTERNAL && out.bytes[12..14] != [8, 6]).collect()
}

#[test]
fn without_a_route_datagrams_and_pings_are_told() {
    for snat in [Snat::None, Snat::Automap] {
        let mut world = World::started(|parts| {
            parts.routes.clear();
            forward_all(parts, snat);
        });
        for (src, dst) in NOWHERE {
            for (name, packet) in [("udp", datagram(src, dst)), ("ping", ping(src, dst))] {
                let out = world.send(EXTERNAL, &packet);
                assert_told(&out, (src, dst), [[3, 0], [1, 0]], name);
            }
        }
        let reset = only(&world.send(EXTERNAL, &build::tcp(&Tcp { dst: "203.0.113.9", ..syn(5) })));
        assert_eq!((reset.flags, reset.ack), (RST | ACK, 1_001));
        assert_eq!(world.all_drops(), [("no-route", 5)]);
        assert!(world.flows().is_empty());
    }
}

#[test]
fn an_open_flow_that_loses_its_route_is_told() {
    let mut world = forwarding(Snat::None);
    let (src, dst) = (CLIENT, "10.1.0.77");
    let packets = [("udp", datagram(src, dst)), ("ping", ping(src, dst))];
    for (name, packet) in &packets {
        assert_eq!(answers(world.send(EXTERNAL, packet)), [], "{name}: it is asked for");
    }
    world.apply(|parts| {
        parts.self_ips.retain(|ip| ip.link == OUTSIDE);
        parts.routes.clear();
    });
    for (name, packet) in &packets {
        let out: Vec<_> = answers(world.send(EXTERNAL, packet));
        let about: Vec<_> = out.into_iter().filter(|out| read(out).2 == [3, 0]).collect();
        assert_told(&about, (src, dst), [[3, 0], [1, 0]], name);
    }
    assert_eq!(world.drops(DropReason::NoRoute), 2);
}

#[test]
fn a_next_hop_that_does_not_answer_is_told_to_each_sender() {
    for snat in [Snat::None, Snat::Automap] {
        for (src, dst) in ABSENT {
            for (name, packet) in [("udp", datagram(src, dst)), ("ping", ping(src, dst))] {
                let mut world = forwarding(snat);
                assert_eq!(answers(world.send(EXTERNAL, &packet)), [], "{name}: it is asked for");
                assert_eq!(answers(world.run_for(2_500)), []);
                let out = answers(world.run_for(1_000));
                assert_told(&out, (src, dst), [[3, 1], [1, 3]], name);
                // Known not to answer, for a while.
                let out = answers(world.send(EXTERNAL, &packet));
                assert_told(&out, (src, dst), [[3, 1], [1, 3]], name);
                assert_eq!(world.all_drops(), [("neighbor-unresolved", 2)]);
            }
        }
    }
}

#[test]
fn a_client_hears_of_its_member_by_the_virtual_address() {
    let mut world = World::started(|parts| parts.pools[2].members = vec![member(4, "10.1.0.77", 5353)]);
    let asked = Udp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, ..Udp::default() };
    world.send(EXTERNAL, &build::udp(&asked));
    let out = answers(world.run_for(3_500));
    let (from, to, code, quoted, _) = read(&out[0]);
    assert_eq!((from.as_str(), to.as_str(), code), (OURS[0], CLIENT, [3, 1]));
    assert_eq!((quoted.src.1, quoted.dst), (asked.src_port, (VIRTUAL.into(), 53)));
    assert_eq!(out.len(), 1);
}

#[test]
fn errors_about_next_hops_are_bounded_and_counted() {
    let mut world = World::started(|parts| {
        parts.settings.max_icmp_rate = 3;
        forward_all(parts, Snat::None);
    });
    let (src, dst) = ABSENT[0];
    for _ in 0..5 {
        world.send(EXTERNAL, &datagram(src, dst));
    }
    assert_eq!(answers(world.run_for(3_500)).len(), 3);
    assert_eq!(world.drops(DropReason::NeighborUnresolved), 5);
    assert_eq!((world.counters.rejects_sent.load(), world.counters.rejects_limited.load()), (3, 2));
}

#[test]
fn a_connection_to_an_absent_member_is_refused_and_let_go() {
    let mut world = World::started(|parts| parts.pools[0].members = vec![member(0, "10.1.0.77", 8080)]);
    world.send(EXTERNAL, &build::tcp(&syn(2_000)));
    world.run_for(1_000);
    world.send(EXTERNAL, &build::tcp(&syn(2_000)));
    let reset = only(&answers(world.run_for(2_500)));
    assert_eq!((reset.flags, reset.ack, reset.dst.1), (RST | ACK, 1_001, 2_000));
    assert_eq!(reset.src, (VIRTUAL.into(), 80));
    assert!(world.flows().is_empty());
    assert_eq!(world.open_connections(0), 0);
    assert_eq!(world.drops(DropReason::NeighborUnresolved), 2, "both had waited, one answer is enough");
}

#[test]
fn another_member_gets_the_connection_of_an_absent_one() {
    let mut world = World::started(|parts| {
        parts.pools[0].reselect_tries = 2;
        parts.pools[0].members =
            vec![member(0, "10.1.0.77", 8080), member(1, "10.1.0.78", 8080), member(2, "10.1.0.13", 8080)];
    });
    // The first two are asked for by connections of their own.
    world.send(EXTERNAL, &build::tcp(&syn(2_000)));
    world.send(EXTERNAL, &build::tcp(&syn(2_001)));
    let out: Vec<_> = world.run_for(5_000).into_iter().filter(|out| out.bytes[12..14] == [8, 0]).collect();
    let mut clients: Vec<_> = out.iter().map(see).map(|seen| (seen.dst.0, seen.flags, seen.seq)).collect();
    clients.dedup();
    assert_eq!(clients, [("10.1.0.13".to_owned(), SYN, 1_000)], "and the clients see nothing of it");
    assert_eq!((out.len(), world.open_connections(0)), (2, 2));
    assert_eq!(world.drops(DropReason::NeighborUnresolved), 0);
}

#[test]
fn an_open_connection_is_told_and_never_cut() {
    let mut world = World::started(|parts| parts.pools[0].members.truncate(1));
    let sent = only(&world.send(EXTERNAL, &build::tcp(&syn(2_000))));
    let reply = Tcp {
        src_mac: member_mac(11),
        dst_mac: INTERNAL_MAC,
        src: "10.1.0.11",
        dst: SELF_IN,
        src_port: 8080,
        dst_port: sent.src.1,
        ..Tcp::default()
    };
    world.send(INTERNAL, &build::tcp(&Tcp { flags: SYN | ACK, seq: 5_000, ack: 1_001, ..reply }));
    let more = build::tcp(&Tcp { flags: ACK, seq: 1_001, ack: 5_001, payload: b"more", ..syn(2_000) });
    // Used every second, it is asked for again after 30 s, three times, and has failed then.
    let mut told = Vec::new();
    for _ in 0..40 {
        told.extend(answers(world.send(EXTERNAL, &more)));
        told.extend(answers(world.run_for(1_000)));
    }
    assert!(!told.is_empty(), "{:?}", world.all_drops());
    for out in &told {
        let (from, _, code, quoted, _) = read(out);
        assert_eq!((from.as_str(), code, quoted.dst), (OURS[0], [3, 1], (VIRTUAL.into(), 80)));
    }
    assert_eq!(world.flows()[0].state, "established");
}

/// Datagrams without flows: two virtual servers of each family share a member that is not there.
fn stateless() -> World {
    let mut world = World::new(|parts| {
        parts.pools[2].members = vec![member(4, "10.1.0.77", 7)];
        parts.pools[1].members = vec![member(2, "2001:db8:2::77", 7)];
        for (id, address, pool) in STATELESS {
            let length = if address.contains(':') { 128 } else { 32 };
            let mut item = virtual_server(id, &format!("{address}/{length}"), 7, Protocol::Udp, pool);
            (item.kind, item.snat) = (VirtualKind::Stateless, Snat::None);
            parts.virtuals.push(item);
        }
        parts.settings.max_icmp_rate = 1_000;
    });
    world.start();
    world
}

const STATELESS: [(u32, &str, u32); 4] =
    [(10, "192.0.2.111", 2), (11, "192.0.2.112", 2), (12, "2001:db8:1::111", 1), (13, "2001:db8:1::112", 1)];

#[test]
fn datagrams_without_a_flow_are_told_in_the_words_of_their_sender() {
    for (src, [first, second]) in [(CLIENT, [0, 1]), (CLIENT6, [2, 3])] {
        let mut world = stateless();
        let both = [STATELESS[first], STATELESS[second]];
        for (_, dst, _) in both {
            for _ in 0..2 {
                assert_eq!(answers(world.send(EXTERNAL, &datagram(src, dst))), [], "{dst}: it waits");
            }
        }
        let mut out = answers(world.run_for(2_500));
        assert_eq!(out, [], "it is asked for three times");
        (0..40).for_each(|_| out.extend(if out.is_empty() { answers(world.run(50)) } else { Vec::new() }));
        assert_eq!(out.len(), 4, "each of them, {:?}", world.all_drops());
        for (id, dst, _) in both {
            let about: Vec<_> = out.iter().filter(|out| read(out).3.dst.0 == dst).cloned().collect();
            assert_eq!(about.len(), 2, "{dst}");
            about
                .iter()
                .for_each(|one| assert_told(std::slice::from_ref(one), (src, dst), [[3, 1], [1, 3]], dst));
            // Known not to answer, for a while.
            let at_once = answers(world.send(EXTERNAL, &datagram(src, dst)));
            assert_told(&at_once, (src, dst), [[3, 1], [1, 3]], dst);
            let counters = world.counters.of_virtual(VirtualId(id)).expect("its counters");
            assert_eq!(counters.drops[DropReason::NeighborUnresolved as usize].load(), 3, "its own");
        }
        assert_eq!(world.all_drops(), [("neighbor-unresolved", 6)]);
        assert!(world.flows().is_empty());
    }
}

#[test]
fn errors_about_datagrams_without_a_flow_are_bounded_and_counted() {
    let mut world = stateless();
    world.apply(|parts| parts.settings.max_icmp_rate = 3);
    let (_, dst, _) = STATELESS[0];
    for _ in 0..70 {
        world.send(EXTERNAL, &datagram(CLIENT, dst));
    }
    assert_eq!(world.all_drops(), [("neighbor-queue-full", 6)]);
    assert_eq!(answers(world.run_for(3_500)).len(), 3);
    assert_eq!(world.drops(DropReason::NeighborUnresolved), 64);
    assert_eq!((world.counters.rejects_sent.load(), world.counters.rejects_limited.load()), (3, 61));
}

#[test]
fn of_a_datagram_without_a_flow_in_fragments_the_first_is_told() {
    for (_, dst, _) in STATELESS {
        let mut world = stateless();
        let src = if dst.contains(':') { CLIENT6 } else { CLIENT };
        let payload = [7; 3_000];
        let udp = Udp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, src, dst, ..Udp::default() };
        let whole = build::udp(&Udp { src_port: 40_000, dst_port: 7, payload: &payload, ..udp });
        for frame in build::fragments(&whole, 1_500, 9) {
            assert_eq!(answers(world.send(EXTERNAL, &frame)), []);
        }
        let out = answers(world.run_for(4_500));
        assert_eq!(out.len(), 1, "{dst}: {:?}", world.all_drops());
        build::assert_checksums(&out[0].bytes);
        let (l4, ports, destination) = if src == CLIENT { (34, 20, 16..20) } else { (54, 48, 24..40) };
        let quoted = &out[0].bytes[l4 + 8..];
        assert_eq!(quoted[ports..ports + 4], [40_000u16.to_be_bytes(), 7u16.to_be_bytes()].concat());
        let octets = build::address(dst);
        let octets = if src == CLIENT { octets.v4_octets().to_vec() } else { octets.v6_octets().to_vec() };
        assert_eq!(quoted[destination], octets[..]);
        assert_eq!(world.all_drops(), [("neighbor-unresolved", 3)]);
    }
}

#[test]
fn a_datagram_without_a_flow_reaches_a_member_that_answers_late() {
    let mut world = stateless();
    let (_, dst, _) = STATELESS[0];
    assert_eq!(answers(world.send(EXTERNAL, &datagram(CLIENT, dst))), []);
    let out = world.send(INTERNAL, &arp(1, member_mac(77), "10.1.0.77", SELF_IN));
    let sent: Vec<_> = out.into_iter().filter(|out| out.bytes[12..14] == [8, 0]).collect();
    let seen = only(&sent);
    assert_eq!(
        (seen.dst_mac, seen.dst, seen.src.0),
        (member_mac(77), ("10.1.0.77".into(), 7), CLIENT.into())
    );
    assert_eq!(answers(world.run_for(3_500)), []);
    assert_eq!(world.all_drops(), []);
}

#[test]
fn no_error_is_sent_about_an_error() {
    let mut world = forwarding(Snat::None);
    world.send(EXTERNAL, &datagram(CLIENT, "10.1.0.11"));
    let about = datagram(CLIENT, "10.1.0.11");
    let link = LinkHeader { source: member_mac(11), destination: INTERNAL_MAC, vlan: 0 };
    let message = [&[3, 3, 0, 0, 0, 0, 0, 0], &about[14..]].concat();
    let error = build::packet(link, "10.1.0.11", CLIENT, 1, 1, &message, 2);
    assert_eq!(world.send(INTERNAL, &error), []);
    assert_eq!(world.drops(DropReason::TtlExpired), 1);
}
