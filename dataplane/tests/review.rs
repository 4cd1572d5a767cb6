//! Where features meet: one-to-one translations over workers, fragments that would queue, large datagrams without a
//! flow, SNAT pools with preserved ports, ratios with persistence.

mod world;

use sluice_dataplane::address::Mac;
use sluice_dataplane::config::ids::PortId;
use sluice_dataplane::config::snapshot::{
    Ingress, Method, Nat, Parts, Persistence, PersistenceKind, Queue, Snat, SnatPool, SourcePort, VirtualKind,
};
use sluice_dataplane::limits::Limits;
use sluice_dataplane::packet::build::{self, Tcp, Udp, address};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, RST, SYN};
use sluice_dataplane::packet::rewrite::LinkHeader;
use world::*;

fn syn(port: u16) -> Tcp<'static> {
    Tcp {
        src_mac: CLIENT_MAC,
        dst_mac: EXTERNAL_MAC,
        src: CLIENT,
        src_port: port,
        flags: SYN,
        ..Tcp::default()
    }
}

/// Sends a frame into one worker's queue and lets every worker take its strays.
fn send_at(worlds: &mut [World], at: usize, port: PortId, bytes: &[u8]) -> Vec<Out> {
    let mut out = worlds[at].send(port, bytes);
    for _ in 0..2 {
        out.extend(worlds.iter_mut().flat_map(|world| world.run(0)));
    }
    out
}

/// An ICMPv4 error of type 3 and this code that quotes `offender`, a frame.
fn unreachable(macs: (Mac, Mac), from: &str, to: &str, code: u8, offender: &[u8]) -> Vec<u8> {
    let link = LinkHeader { source: macs.0, destination: macs.1, vlan: 0 };
    let message = [&[3, code, 0, 0, 0, 0, 5, 0][..], &offender[14..]].concat();
    build::packet(link, from, to, 64, 1, &message, 2)
}

fn with_nat(parts: &mut Parts) {
    parts.nats.push(Nat {
        name: "host".into(),
        origin: address("10.1.0.13"),
        translation: address("192.0.2.60"),
        ingress: Ingress::Any,
    });
}

fn several(workers: usize, parts: &Parts) -> Vec<World> {
    let mut worlds = World::several(workers, Limits { flows: 256, frames: 64, ..Limits::default() }, parts);
    worlds.iter_mut().for_each(World::start);
    worlds
}

#[test]
fn errors_about_one_to_one_translations_reach_their_worker_from_both_sides() {
    let mut parts = usual();
    with_nat(&mut parts);
    let mut worlds = several(4, &parts);
    for port in 2_000..2_016 {
        let entry = usize::from(port) % 4;
        let inward = Tcp { dst: "192.0.2.60", dst_port: 22, ..syn(port) };
        let passed = send_at(&mut worlds, entry, EXTERNAL, &build::tcp(&inward));
        let macs = (member_mac(13), INTERNAL_MAC);
        let error = unreachable(macs, "10.1.0.13", CLIENT, 4, &passed[0].bytes);
        assert_eq!(send_at(&mut worlds, 3 - entry, INTERNAL, &error).len(), 1, "to the client of {port}");
        let reply =
            build::tcp(&Tcp { src: "192.0.2.60", src_port: 22, dst: CLIENT, dst_port: port, ..inward });
        let error = unreachable((CLIENT_MAC, EXTERNAL_MAC), "203.0.113.1", "192.0.2.60", 4, &reply);
        assert_eq!(send_at(&mut worlds, 3 - entry, EXTERNAL, &error).len(), 1, "to the host of {port}");
    }
}

/// The first fragment of a SYN with 4 bytes of payload, of which more is to come.
fn first_fragment_of_syn(port: u16) -> Vec<u8> {
    let mut frame = build::tcp(&Tcp { payload: &[0; 4], ..syn(port) });
    build::patch_ipv4(&mut frame, |header| header[4..8].copy_from_slice(&[7, port as u8, 0x20, 0]));
    frame
}

#[test]
fn the_first_fragment_of_a_syn_is_not_sent_to_another_member() {
    let mut world = World::started(|parts| parts.pools[0].reselect_tries = 2);
    assert_eq!(world.send(EXTERNAL, &first_fragment_of_syn(2_000)).len(), 1);
    world.run(600);
    assert_eq!(world.send(EXTERNAL, &build::tcp(&syn(2_000))).len(), 1);
    let clients: Vec<_> = world.flows().iter().map(|flow| flow.client).collect();
    assert_eq!(clients, [(address(CLIENT), 2_000)]);
    assert_eq!(world.all_drops(), []);
}

#[test]
fn the_first_fragment_of_a_packet_does_not_queue() {
    let mut world = World::started(|parts| {
        parts.pools[0].members.truncate(1);
        parts.pools[0].members[0].connection_limit = 1;
        parts.pools[0].queue = Some(Queue { depth: 0, time_ms: 1_000 });
    });
    world.send(EXTERNAL, &build::tcp(&syn(2_000)));
    assert_eq!(only(&world.send(EXTERNAL, &first_fragment_of_syn(2_001))).flags, RST | ACK);
    assert_eq!(world.all_drops(), [("members-full", 1)]);
}

#[test]
fn a_large_datagram_to_a_stateless_virtual_server_is_cut_where_it_may_be() {
    let stateless = |parts: &mut Parts| {
        (parts.virtuals[2].kind, parts.virtuals[2].snat) = (VirtualKind::Stateless, Snat::None);
    };
    let large = |flags: u8| {
        let payload = [7; 2_000];
        let udp = Udp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, payload: &payload, ..Udp::default() };
        let mut frame = build::udp(&udp);
        build::patch_ipv4(&mut frame, |header| header[6] = flags);
        frame
    };
    let mut world = World::started(stateless);
    let pieces = world.send(EXTERNAL, &large(0));
    assert_eq!(pieces.iter().map(|out| out.port).collect::<Vec<_>>(), [INTERNAL, INTERNAL]);
    assert_eq!(pieces.iter().map(|out| out.bytes.len() - 34).sum::<usize>(), 2_008);
    let answer = world.send(EXTERNAL, &large(0x40));
    assert_eq!((answer.len(), answer[0].port, &answer[0].bytes[34..36]), (1, EXTERNAL, &[3, 4][..]));
}

#[test]
fn a_connection_is_refused_for_its_source_only_when_no_address_of_the_snat_pool_has_one() {
    let mut world = World::started(|parts| {
        let addresses = ["10.1.0.50", "10.1.0.51"].map(address).to_vec();
        parts.snat_pools = vec![SnatPool { name: "two".into(), addresses }];
        parts.pools[0].members.truncate(1);
        (parts.virtuals[0].snat, parts.virtuals[0].source_port) = (Snat::Pool(0), SourcePort::PreserveStrict);
    });
    let mut source = |src: &str, port| {
        let out = only(&world.send(EXTERNAL, &build::tcp(&Tcp { src, ..syn(port) })));
        (out.flags == SYN).then_some(out.src)
    };
    assert_eq!(source("198.51.100.7", 2_000), Some(("10.1.0.50".into(), 2_000)));
    assert_eq!(source("198.51.100.7", 2_001), Some(("10.1.0.51".into(), 2_001)));
    assert_eq!(source("198.51.100.8", 2_000), Some(("10.1.0.51".into(), 2_000)), "not its turn, but free");
    assert_eq!(source("198.51.100.9", 2_000), None);
}

#[test]
fn a_persisted_connection_is_a_turn_of_its_member() {
    let mut world = World::started(|parts| {
        parts.pools[0].members.truncate(2);
        parts.pools[0].method = Method::RatioMember;
        parts.virtuals[0].persistence = Some(Persistence::new(PersistenceKind::SourceAddress));
    });
    let mut member =
        |src: &str, port| only(&world.send(EXTERNAL, &build::tcp(&Tcp { src, ..syn(port) }))).dst;
    let first = member("198.51.100.7", 2_000);
    assert!((2_001..2_004).all(|port| member("198.51.100.7", port) == first));
    let others = ["198.51.100.8", "198.51.100.9", "198.51.100.10", "198.51.100.11"];
    assert!(others.iter().all(|src| member(src, 2_000) != first), "four turns of the other member are due");
}
