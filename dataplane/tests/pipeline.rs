//! Golden tests: packet in; packet out, drop reasons and counters moved, for every branch of the path.

mod world;

use sluice_dataplane::address::Mac;
use sluice_dataplane::config::ids::{LinkId, MemberId, PortId, VirtualId};
use sluice_dataplane::config::snapshot::{
    Ingress, Method, Parts, Protocol, Route, Snat, SourcePort, VirtualKind,
};
use sluice_dataplane::frame::{Checksum, SegmentKind, Segmentation};
use sluice_dataplane::limits::Limits;
use sluice_dataplane::packet::build::{self, Tcp, Udp, address};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, FIN, RST, SYN};
use sluice_dataplane::packet::rewrite::LinkHeader;
use sluice_dataplane::pool::MemberState;
use sluice_dataplane::verdict::DropReason;
use world::*;

fn syn() -> Tcp<'static> {
    Tcp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, flags: SYN, seq: 1_000, ..Tcp::default() }
}

/// From the member's side: 10.1.0.11:8080 to our self IP.
fn from_member(flags: u8, seq: u32, ack: u32) -> Tcp<'static> {
    Tcp {
        src_mac: member_mac(11),
        dst_mac: INTERNAL_MAC,
        src: "10.1.0.11",
        dst: SELF_IN,
        src_port: 8080,
        dst_port: 40_000,
        flags,
        seq,
        ack,
        ..Tcp::default()
    }
}

fn send(world: &mut World, port: PortId, tcp: &Tcp) -> Vec<Out> {
    world.send(port, &build::tcp(tcp))
}

/// SYN, SYN-ACK, ACK between the client and 10.1.0.11.
fn establish(world: &mut World) {
    assert_eq!(only(&send(world, EXTERNAL, &syn())).dst.0, "10.1.0.11");
    assert_eq!(send(world, INTERNAL, &from_member(SYN | ACK, 5_000, 1_001)).len(), 1);
    assert_eq!(send(world, EXTERNAL, &Tcp { flags: ACK, seq: 1_001, ack: 5_001, ..syn() }).len(), 1);
    assert_eq!(world.flows()[0].state, "established");
}

// The way of a connection.

#[test]
fn a_connection_is_translated_both_ways() {
    let mut world = World::started(|_| ());
    let seen = only(&send(&mut world, EXTERNAL, &syn()));
    assert_eq!((seen.port, seen.dst_mac, seen.ttl), (INTERNAL, member_mac(11), 63));
    assert_eq!((seen.src, seen.dst), ((SELF_IN.into(), 40_000), ("10.1.0.11".into(), 8080)));
    let back = only(&send(&mut world, INTERNAL, &from_member(SYN | ACK, 5_000, 1_001)));
    assert_eq!((back.port, back.dst_mac, back.ttl), (EXTERNAL, CLIENT_MAC, 63));
    assert_eq!((back.src, back.dst), ((VIRTUAL.into(), 80), (CLIENT.into(), 40_000)));
    assert_eq!((back.seq, back.ack), (5_000, 1_001));
    assert_eq!(world.all_drops(), []);
}

#[test]
fn ipv6_has_the_same_path() {
    let mut world = World::started(|_| ());
    let syn = Tcp { src: CLIENT6, dst: VIRTUAL6, ..syn() };
    let seen = only(&send(&mut world, EXTERNAL, &syn));
    assert_eq!((seen.src, seen.dst), (("2001:db8:2::10".into(), 40_000), ("2001:db8:2::11".into(), 8080)));
    assert_eq!((seen.dst_mac, seen.ttl), (member_mac(11), 63));
    let reply = Tcp { src: "2001:db8:2::11", dst: "2001:db8:2::10", ..from_member(SYN | ACK, 1, 2) };
    let back = only(&send(&mut world, INTERNAL, &reply));
    assert_eq!((back.src, back.dst), ((VIRTUAL6.into(), 80), (CLIENT6.into(), 40_000)));
}

#[test]
fn udp_is_answered_through_its_flow() {
    let mut world = World::started(|_| ());
    let ask = Udp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, ..Udp::default() };
    let seen = only(&world.send(EXTERNAL, &build::udp(&ask)));
    assert_eq!((seen.src, seen.dst), ((SELF_IN.into(), 40_000), ("10.1.0.11".into(), 5353)));
    let answer = Udp {
        src_mac: member_mac(11),
        dst_mac: INTERNAL_MAC,
        src: "10.1.0.11",
        dst: SELF_IN,
        src_port: 5353,
        dst_port: 40_000,
        ..Udp::default()
    };
    let back = only(&world.send(INTERNAL, &build::udp(&answer)));
    assert_eq!((back.src, back.dst), ((VIRTUAL.into(), 53), (CLIENT.into(), 40_000)));
    assert_eq!(world.flows()[0].state, "active");
}

#[test]
fn every_counter_of_the_way_moves_by_what_passed() {
    let mut world = World::started(|_| ());
    establish(&mut world);
    send(&mut world, EXTERNAL, &Tcp { flags: ACK, seq: 1_001, ack: 5_001, payload: &[1; 100], ..syn() });
    let counters = world.counters.of_virtual(VirtualId(0)).unwrap();
    let load = |t: &sluice_dataplane::counters::Traffic| {
        (t.packets_in.load(), t.bytes_in.load(), t.packets_out.load(), t.bytes_out.load())
    };
    assert_eq!(load(&counters.clientside), (3, 220, 1, 40));
    assert_eq!(load(&counters.serverside), (1, 40, 3, 220));
    assert_eq!(load(&world.counters.of_member(MemberId(0)).unwrap().serverside), (1, 40, 3, 220));
    let connections = &counters.connections;
    assert_eq!((connections.current.load(), connections.total.load(), connections.peak.load()), (1, 1, 1));
    assert_eq!(world.flows()[0].bytes, (220, 40));
}

#[test]
fn super_frames_count_as_their_segments_and_keep_their_offload() {
    let mut world = World::started(|_| ());
    establish(&mut world);
    let mut bytes = build::tcp(&Tcp { flags: ACK, seq: 1_001, ack: 5_001, payload: &[7; 14_480], ..syn() });
    build::make_partial(&mut bytes);
    let mut frame = world.frames.copy_of(&bytes).unwrap();
    frame.offload.checksum = Checksum::Partial { start: 34, offset: 16 };
    frame.offload.segmentation =
        Some(Segmentation { kind: SegmentKind::Tcp4, ecn: false, payload_bytes: 1_448 });
    world.ports[0].send(frame).unwrap();
    world.worker.turn(sluice_dataplane::clock::Instant::from_ms(world.now_ms));
    let mut out = world.ports[1].recv().expect("the super-frame in one piece");
    assert_eq!(out.offload.checksum, Checksum::Partial { start: 34, offset: 16 });
    assert_eq!(out.offload.segmentation.unwrap().payload_bytes, 1_448);
    sluice_dataplane::packet::checksum::finish(&mut out);
    build::assert_checksums(out.bytes());
    assert_eq!(world.counters.of_virtual(VirtualId(0)).unwrap().clientside.packets_in.load(), 2 + 10);
}

#[test]
fn padding_does_not_travel_on() {
    let mut world = World::started(|_| ());
    let mut bytes = build::tcp(&syn());
    bytes.resize(60, 0xee);
    assert_eq!(world.send(EXTERNAL, &bytes)[0].bytes.len(), 54);
}

#[test]
fn vlans_are_matched_and_translated() {
    let vlan = LinkId::new(EXTERNAL, 100);
    let mut world = World::started(|parts| {
        parts.self_ips.push(self_ip("203.0.113.10/24", vlan));
        parts.virtuals[0].ingress = Ingress::Links(vec![vlan]);
    });
    let seen = only(&send(&mut world, EXTERNAL, &Tcp { vlan: 100, ..syn() }));
    assert_eq!((seen.port, seen.vlan), (INTERNAL, 0));
    let back = only(&send(&mut world, INTERNAL, &from_member(SYN | ACK, 1, 1_001)));
    assert_eq!((back.port, back.vlan, back.dst_mac), (EXTERNAL, 100, CLIENT_MAC));
    assert_eq!(only(&send(&mut world, EXTERNAL, &Tcp { src_port: 5, ..syn() })).flags, RST | ACK);
    assert_eq!(send(&mut world, EXTERNAL, &Tcp { vlan: 101, ..syn() }), []);
    assert_eq!(world.drops(DropReason::UnknownVlan), 1);
}

#[test]
fn replies_follow_the_link_address_that_the_client_last_used() {
    let mut world = World::started(|_| ());
    establish(&mut world);
    let other = Mac([2, 0, 0, 0, 0, 0xd]);
    send(&mut world, EXTERNAL, &Tcp { src_mac: other, flags: ACK, seq: 1_001, ack: 5_001, ..syn() });
    assert_eq!(only(&send(&mut world, INTERNAL, &from_member(ACK, 5_001, 1_001))).dst_mac, other);
}

#[test]
fn without_auto_last_hop_replies_take_the_route() {
    let mut world = World::started(|parts| parts.virtuals[0].auto_last_hop = false);
    send(&mut world, EXTERNAL, &syn());
    let asked = send(&mut world, INTERNAL, &from_member(SYN | ACK, 1, 1_001));
    assert_eq!(asked[0].bytes[38..42], [192, 0, 2, 1], "asks for the gateway");
    let gateway = Mac([2, 0, 0, 0, 0, 0x99]);
    let released = world.send(EXTERNAL, &arp(2, gateway, "192.0.2.1", "192.0.2.10"));
    assert_eq!(only(&released).dst_mac, gateway);
}

// Which virtual server, member, source.

#[test]
fn any_port_and_port_zero_members_keep_the_clients_port() {
    let mut world = World::started(|parts| {
        parts.virtuals[0].matches[0].port = 0;
        parts.pools[0].members[0].port = 0;
    });
    assert_eq!(only(&send(&mut world, EXTERNAL, &Tcp { dst_port: 4_433, ..syn() })).dst.1, 4_433);
}

#[test]
fn a_wildcard_forwards_by_route_and_keeps_the_destination() {
    let mut world = World::started(|parts| {
        let mut forward = virtual_server(3, "0.0.0.0/0", 0, Protocol::Any, 0);
        (forward.kind, forward.pool, forward.snat) = (VirtualKind::ForwardingIp, None, Snat::None);
        parts.virtuals.push(forward);
    });
    let seen = only(&send(&mut world, EXTERNAL, &Tcp { dst: "10.1.0.13", dst_port: 22, ..syn() }));
    assert_eq!((seen.src, seen.dst), ((CLIENT.into(), 40_000), ("10.1.0.13".into(), 22)));
    assert_eq!((seen.dst_mac, seen.ttl), (member_mac(13), 63));
}

/// A wildcard takes what passes through; what is meant for an address of ours is not forwarded to ourselves.
#[test]
fn a_wildcard_does_not_take_what_is_meant_for_us() {
    for forwards in [true, false] {
        let mut world = World::started(|parts| {
            let mut wildcard = virtual_server(3, "0.0.0.0/0", 0, Protocol::Any, 0);
            if forwards {
                (wildcard.kind, wildcard.pool, wildcard.snat) = (VirtualKind::ForwardingIp, None, Snat::None);
            }
            parts.virtuals.push(wildcard);
        });
        for ours in ["192.0.2.10", SELF_IN, "10.1.0.50"] {
            assert_eq!(
                only(&send(&mut world, EXTERNAL, &Tcp { dst: ours, ..syn() })).flags,
                RST | ACK,
                "{ours}"
            );
        }
        let other_port = only(&send(&mut world, EXTERNAL, &Tcp { dst_port: 81, ..syn() }));
        assert_eq!(
            other_port.flags,
            if forwards { RST | ACK } else { SYN },
            "a pool takes a virtual address"
        );
        assert_eq!(world.drops(DropReason::NoVirtual), if forwards { 4 } else { 3 });
    }
}

#[test]
fn a_forwarded_host_keeps_its_own_address() {
    let mut world = World::started(|parts| {
        let mut forward = virtual_server(3, "10.1.0.13/32", 22, Protocol::Tcp, 0);
        (forward.kind, forward.pool, forward.snat) = (VirtualKind::ForwardingIp, None, Snat::None);
        parts.virtuals.push(forward);
    });
    assert_eq!(world.send(INTERNAL, &arp(1, member_mac(11), "10.1.0.11", "10.1.0.13")), []);
    let seen = only(&send(&mut world, EXTERNAL, &Tcp { dst: "10.1.0.13", dst_port: 22, ..syn() }));
    assert_eq!((seen.port, seen.dst_mac), (INTERNAL, member_mac(13)));
}

#[test]
fn snat_none_shows_members_the_client() {
    let mut world = World::started(|parts| parts.virtuals[0].snat = Snat::None);
    assert_eq!(only(&send(&mut world, EXTERNAL, &syn())).src, (CLIENT.into(), 40_000));
    let back = only(&send(&mut world, INTERNAL, &Tcp { dst: CLIENT, ..from_member(SYN | ACK, 1, 2) }));
    assert_eq!(back.src, (VIRTUAL.into(), 80));
}

#[test]
fn snat_pool_takes_turns_in_the_members_family() {
    let mut world = World::started(|parts| {
        parts.virtuals[0].snat = Snat::Pool(0);
        parts.virtuals[1].snat = Snat::Pool(0);
    });
    let mut source = |client_port, v6: bool| {
        let (src, dst) = if v6 { (CLIENT6, VIRTUAL6) } else { (CLIENT, VIRTUAL) };
        only(&send(&mut world, EXTERNAL, &Tcp { src, dst, src_port: client_port, ..syn() })).src.0
    };
    let v4: Vec<_> = (0..6).map(|n| source(1_024 + n, false)).collect();
    assert!(v4.contains(&"10.1.0.50".to_string()) && v4.contains(&"10.1.0.51".to_string()), "{v4:?}");
    assert_eq!(source(2_000, true), "2001:db8:2::50");
}

#[test]
fn a_taken_source_port_is_replaced_and_change_always_replaces() {
    let mut world = World::started(|parts| parts.pools[0].members.truncate(1));
    assert_eq!(only(&send(&mut world, EXTERNAL, &syn())).src.1, 40_000);
    let other = only(&send(&mut world, EXTERNAL, &Tcp { src: "198.51.100.8", ..syn() })).src.1;
    assert_ne!(other, 40_000);
    let mut world = World::started(|parts| parts.virtuals[0].source_port = SourcePort::Change);
    let ports: Vec<_> = (0..8)
        .map(|n| only(&send(&mut world, EXTERNAL, &Tcp { src_port: 30_000 + n, ..syn() })).src.1)
        .collect();
    assert!(ports.iter().enumerate().any(|(n, &port)| port != 30_000 + n as u16), "{ports:?}");
}

#[test]
fn one_source_port_serves_two_members() {
    let mut world = World::started(|_| ());
    let first = only(&send(&mut world, EXTERNAL, &syn()));
    let second = only(&send(&mut world, EXTERNAL, &Tcp { src: "198.51.100.8", ..syn() }));
    assert_eq!((first.src, first.dst.0), (second.src.clone(), "10.1.0.11".into()));
    assert_eq!(second.dst.0, "10.1.0.12");
}

#[test]
fn member_states_steer_new_connections_only() {
    let mut world = World::started(|_| ());
    establish(&mut world);
    world.members.set(MemberId(0), MemberState::Offline);
    for port in 1_024..1_028 {
        let seen = only(&send(&mut world, EXTERNAL, &Tcp { src_port: port, ..syn() }));
        assert_eq!(seen.dst.0, "10.1.0.12");
    }
    let more = Tcp { flags: ACK, seq: 1_001, ack: 5_001, payload: b"still here", ..syn() };
    assert_eq!(only(&send(&mut world, EXTERNAL, &more)).dst.0, "10.1.0.11");
}

#[test]
fn least_connections_counts_open_connections() {
    let mut world = World::started(|parts| parts.pools[0].method = Method::LeastConnectionsMember);
    let member =
        |world: &mut World, port| only(&send(world, EXTERNAL, &Tcp { src_port: port, ..syn() })).dst.0;
    let first = member(&mut world, 2_000);
    let second = member(&mut world, 2_001);
    assert_ne!(first, second);
    let (seq, ack) = (0, 1_001);
    send(
        &mut world,
        INTERNAL,
        &Tcp { src: "10.1.0.12", dst_port: 2_001, ..from_member(RST | ACK, seq, ack) },
    );
    world.run_for(6_000);
    assert_eq!(member(&mut world, 2_002), "10.1.0.11", "both handshakes have timed out by now");
}

// Neighbours.

#[test]
fn the_first_packet_waits_for_the_members_address() {
    let mut world = World::new(|_| ());
    world.run(20);
    world.run(20);
    let asked = send(&mut world, EXTERNAL, &syn());
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].bytes[..6], [0xff; 6]);
    assert_eq!(asked[0].bytes[20..22], [0, 1]);
    assert_eq!(asked[0].bytes[38..42], [10, 1, 0, 11]);
    let released = world.send(INTERNAL, &arp(2, member_mac(11), "10.1.0.11", SELF_IN));
    let seen = only(&released);
    assert_eq!((seen.dst_mac, seen.dst.0.as_str(), seen.flags), (member_mac(11), "10.1.0.11", SYN));
}

#[test]
fn ipv6_members_are_solicited() {
    let mut world = World::new(|_| ());
    world.run(20);
    world.run(20);
    let asked = send(&mut world, EXTERNAL, &Tcp { src: CLIENT6, dst: VIRTUAL6, ..syn() });
    assert_eq!((asked[0].bytes[54], &asked[0].bytes[..3]), (135, &[0x33, 0x33, 0xff][..]));
    build::assert_checksums(&asked[0].bytes);
    let advert = ndisc(136, member_mac(11), "2001:db8:2::11", "2001:db8:2::10", "2001:db8:2::11", 2, 255);
    let mut advert = advert;
    advert[..6].copy_from_slice(&INTERNAL_MAC.0);
    assert_eq!(only(&world.send(INTERNAL, &advert)).dst_mac, member_mac(11));
}

#[test]
fn silent_members_are_counted_and_asked_again() {
    let mut world = World::new(|_| ());
    world.run(20);
    send(&mut world, EXTERNAL, &syn());
    let asked = world.run_for(5_000);
    let arps =
        asked.iter().filter(|out| out.bytes[12..14] == [8, 6] && out.bytes[38..42] == [10, 1, 0, 11]).count();
    assert_eq!(arps, 2, "three in all");
    assert_eq!(world.drops(DropReason::NeighborUnresolved), 1);
}

#[test]
fn too_many_packets_for_one_silent_member_are_dropped() {
    let mut world = World::new(|parts| parts.pools[0].members.truncate(1));
    world.run(20);
    for port in 0..68 {
        send(&mut world, EXTERNAL, &Tcp { src_port: 2_000 + port, ..syn() });
    }
    assert_eq!(world.drops(DropReason::NeighborQueueFull), 4);
}

#[test]
fn a_full_neighbor_table_refuses_new_next_hops() {
    let limits = Limits { flows: 64, half_open: 64, frames: 64, neighbors: 1, ..Limits::default() };
    let mut world = World::with_limits(limits, |_| ());
    world.run(20);
    send(&mut world, EXTERNAL, &syn());
    send(&mut world, EXTERNAL, &Tcp { src_port: 5_000, ..syn() });
    assert_eq!(world.drops(DropReason::NeighborTableFull), 1);
}

#[test]
fn arp_is_answered_for_self_ips_and_virtual_addresses_only() {
    let mut world = World::started(|_| ());
    for ours in ["192.0.2.10", VIRTUAL] {
        let answer = world.send(EXTERNAL, &arp(1, CLIENT_MAC, "192.0.2.77", ours));
        assert_eq!(answer.len(), 1, "{ours}");
        let bytes = &answer[0].bytes;
        assert_eq!((&bytes[..6], &bytes[20..22]), (&CLIENT_MAC.0[..], &[0, 2][..]));
        assert_eq!((&bytes[22..28], &bytes[28..32]), (&EXTERNAL_MAC.0[..], &address(ours).v4_octets()[..]));
    }
    assert_eq!(world.send(EXTERNAL, &arp(1, CLIENT_MAC, "192.0.2.77", "192.0.2.55")), []);
    assert_eq!(
        world.send(EXTERNAL, &arp(1, CLIENT_MAC, "192.0.2.77", SELF_IN)),
        [],
        "lives on the other link"
    );
    assert_eq!(world.drops(DropReason::NeighborNotOurs), 2);
}

#[test]
fn solicitations_are_answered_and_probes_to_all_nodes() {
    let mut world = World::started(|_| ());
    let answer = world.send(EXTERNAL, &solicitation(CLIENT_MAC, "fe80::7", VIRTUAL6));
    build::assert_checksums(&answer[0].bytes);
    assert_eq!((answer[0].bytes[54], answer[0].bytes[58]), (136, 0xe0));
    let probe = world.send(EXTERNAL, &ndisc(135, CLIENT_MAC, "::", "ff02::1:ff00:100", VIRTUAL6, 14, 255));
    assert_eq!((&probe[0].bytes[..6], probe[0].bytes[58]), (&[0x33, 0x33, 0, 0, 0, 1][..], 0xa0));
    assert_eq!(world.send(EXTERNAL, &solicitation(CLIENT_MAC, "fe80::7", "2001:db8:1::55")), []);
    assert_eq!(world.drops(DropReason::NeighborNotOurs), 1);
}

#[test]
fn broken_arp_and_discovery_are_counted() {
    let mut world = World::started(|_| ());
    let good = arp(1, CLIENT_MAC, "192.0.2.77", VIRTUAL);
    let mut group_sender = good.clone();
    group_sender[22] = 1;
    for bad in [&good[..30], &group_sender[..]] {
        assert_eq!(world.send(EXTERNAL, bad), []);
    }
    let mut wrong_sum = solicitation(CLIENT_MAC, "fe80::7", VIRTUAL6);
    wrong_sum[60] ^= 1;
    let far = ndisc(135, CLIENT_MAC, "fe80::7", "ff02::1:ff00:100", VIRTUAL6, 1, 64);
    let group_target = ndisc(135, CLIENT_MAC, "fe80::7", "ff02::1:ff00:100", "ff02::5", 1, 255);
    for bad in [wrong_sum, far, group_target] {
        assert_eq!(world.send(EXTERNAL, &bad), []);
    }
    assert_eq!(world.drops(DropReason::MalformedNeighbor), 5);
}

#[test]
fn somebody_else_with_our_address_is_counted_and_countered() {
    let mut world = World::started(|_| ());
    world.send(EXTERNAL, &arp(1, CLIENT_MAC, VIRTUAL, VIRTUAL));
    let advert = ndisc(136, CLIENT_MAC, VIRTUAL6, "ff02::1", VIRTUAL6, 2, 255);
    world.send(EXTERNAL, &advert);
    assert_eq!(world.drops(DropReason::AddressConflict), 2);
    let defence = world.run_for(100);
    assert_eq!(defence.len(), 2);
    assert_eq!(defence[0].bytes[28..32], address(VIRTUAL).v4_octets());
}

#[test]
fn two_that_both_defend_an_address_do_not_answer_each_other_for_ever() {
    let mut world = World::started(|_| ());
    let theirs = arp(1, CLIENT_MAC, VIRTUAL, VIRTUAL);
    let conflict = |world: &mut World| {
        world.send(EXTERNAL, &theirs);
        world.run_for(100).iter().filter(|out| out.bytes[12..14] == [8, 6]).count()
    };
    assert_eq!((0..50).map(|_| conflict(&mut world)).sum::<usize>(), 1);
    world.run_for(10_000);
    assert_eq!(conflict(&mut world), 1);
    assert_eq!(world.drops(DropReason::AddressConflict), 51);
}

#[test]
fn addresses_are_announced_at_start_on_change_and_when_the_link_comes_up() {
    let mut world = World::new(|_| ());
    let announced = |out: &[Out]| {
        let mut seen: Vec<_> = out
            .iter()
            .map(|out| match out.bytes[12..14] {
                [8, 6] => format!("{:?}", &out.bytes[28..32]),
                _ => format!("{:x?}", &out.bytes[62..78]),
            })
            .collect();
        let all = seen.len();
        seen.sort();
        seen.dedup();
        (all, seen.len())
    };
    let started = world.run_for(200);
    assert_eq!(announced(&started), (9, 9), "4 self IPs, 2 virtual addresses, 3 SNAT addresses");
    world.apply(|parts| parts.virtuals.push(virtual_server(7, "192.0.2.101/32", 80, Protocol::Tcp, 0)));
    let changed = world.run_for(100);
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].bytes[28..32], [192, 0, 2, 101]);
    world.ports[1].set_link(false);
    world.run_for(300);
    world.ports[1].set_link(true);
    let up = world.run_for(400);
    assert!(up.iter().all(|out| out.port == INTERNAL) && up.len() == 5, "{}", up.len());
}

#[test]
fn switches_are_told_every_minute_which_groups_neighbors_ask_for_us_in() {
    let mut world = World::new(|_| ());
    let reported = |world: &mut World, ms: u64| {
        world.run_for(ms);
        let reports = std::mem::take(&mut world.reports);
        let group = |out: &Out| (out.port, u32::from_be_bytes(out.bytes[86..90].try_into().unwrap()));
        let mut groups: Vec<_> = reports.iter().map(group).collect();
        let all = groups.len();
        groups.sort();
        groups.dedup();
        assert_eq!(groups.len(), all, "each once");
        groups
    };
    let first = reported(&mut world, 200);
    let ours = [(EXTERNAL, 0xff00_0010), (EXTERNAL, 0xff00_0100), (INTERNAL, 0xff00_0010)];
    assert!(ours.iter().all(|group| first.contains(group)), "{first:x?}");
    assert_eq!(reported(&mut world, 59_000), []);
    assert_eq!(reported(&mut world, 2_000), first, "every minute");
    world.apply(|parts| parts.virtuals.push(virtual_server(7, "2001:db8:1::1234/128", 80, Protocol::Tcp, 0)));
    assert_eq!(reported(&mut world, 200), [(EXTERNAL, 0xff00_1234)]);
}

// Echo, TTL, MTU.

fn echo(src: &str, dst: &str, kind: u8) -> Vec<u8> {
    let link = LinkHeader { destination: EXTERNAL_MAC, source: CLIENT_MAC, vlan: 0 };
    build::packet(
        link,
        src,
        dst,
        9,
        if src.contains(':') { 58 } else { 1 },
        &[kind, 0, 0, 0, 0, 1, 0, 2, 9, 9],
        2,
    )
}

#[test]
fn ping_is_answered_for_self_ips_and_virtual_addresses() {
    let mut world = World::started(|_| ());
    let pings = [
        (CLIENT, "192.0.2.10", 8),
        (CLIENT, VIRTUAL, 8),
        (CLIENT6, "2001:db8:1::10", 128),
        (CLIENT6, VIRTUAL6, 128),
    ];
    for (src, dst, kind) in pings {
        let reply = world.send(EXTERNAL, &echo(src, dst, kind));
        assert_eq!(reply.len(), 1, "{dst}");
        build::assert_checksums(&reply[0].bytes);
        assert_eq!(reply[0].bytes[..12], [CLIENT_MAC.0, EXTERNAL_MAC.0].concat());
    }
    assert_eq!(world.send(EXTERNAL, &echo(CLIENT, "192.0.2.55", 8)), []);
    assert_eq!(world.send(EXTERNAL, &echo(CLIENT, VIRTUAL, 0)), []);
    assert_eq!(world.drops(DropReason::UnwantedIcmp), 2);
    assert_eq!(world.send(EXTERNAL, &echo(CLIENT, VIRTUAL, 3)), []);
    assert_eq!(world.drops(DropReason::IcmpUnmatched), 1);
}

/// An ICMP error of `kind` and `code` from `src` to `dst` that quotes `offender` (a frame), with an MTU.
fn icmp_error(macs: (Mac, Mac), src: &str, dst: &str, (kind, code): (u8, u8), offender: &[u8]) -> Vec<u8> {
    let link = LinkHeader { source: macs.0, destination: macs.1, vlan: 0 };
    let mut message = vec![kind, code, 0, 0, 0, 0, 0x05, 0x14];
    message.extend(&offender[14..offender.len().min(14 + 68)]);
    build::packet(link, src, dst, 60, if src.contains(':') { 58 } else { 1 }, &message, 2)
}

/// The frame that an error quotes, as far as it is quoted, with its checksums checked.
fn quoted(out: &Out) -> Vec<u8> {
    build::assert_checksums(&out.bytes);
    let l4 = if out.bytes[12] == 8 { 34 } else { 54 };
    let frame = [&out.bytes[..14], &out.bytes[l4 + 8..]].concat();
    build::assert_checksums(&frame);
    frame
}

#[test]
fn errors_from_the_members_side_reach_the_client_in_its_own_words() {
    let routers = [("10.1.0.11", VIRTUAL), ("10.99.0.1", "10.99.0.1")];
    for (from, seen_from) in routers {
        let mut world = World::started(|_| ());
        let sent = send(&mut world, EXTERNAL, &syn());
        let error = icmp_error((member_mac(11), INTERNAL_MAC), from, SELF_IN, (3, 4), &sent[0].bytes);
        let out = world.send(INTERNAL, &error);
        assert_eq!((out.len(), out[0].port), (1, EXTERNAL));
        assert_eq!(out[0].bytes[..12], [CLIENT_MAC.0, EXTERNAL_MAC.0].concat());
        assert_eq!(out[0].bytes[26..30], address(seen_from).v4_octets());
        assert_eq!(out[0].bytes[30..34], address(CLIENT).v4_octets());
        assert_eq!(out[0].bytes[38..42], [0, 0, 5, 0x14], "the MTU stays");
        let inner = see(&Out {
            port: EXTERNAL,
            bytes: [&quoted(&out[0])[..6], &EXTERNAL_MAC.0, &quoted(&out[0])[12..]].concat(),
        });
        assert_eq!((inner.src, inner.dst), ((CLIENT.into(), 40_000), (VIRTUAL.into(), 80)));
        assert_eq!((world.counters.icmp_errors.load(), world.all_drops()), (1, vec![]));
    }
}

#[test]
fn errors_from_the_clients_side_reach_the_member() {
    let mut world = World::started(|_| ());
    establish(&mut world);
    let sent = send(&mut world, INTERNAL, &from_member(ACK, 5_001, 1_001));
    let error = icmp_error((CLIENT_MAC, EXTERNAL_MAC), "203.0.113.1", VIRTUAL, (3, 4), &sent[0].bytes);
    let out = world.send(EXTERNAL, &error);
    assert_eq!((out.len(), out[0].port), (1, INTERNAL));
    assert_eq!(out[0].bytes[..6], member_mac(11).0);
    assert_eq!(
        out[0].bytes[26..34],
        [address(SELF_IN).v4_octets(), address("10.1.0.11").v4_octets()].concat()
    );
    let inner = quoted(&out[0]);
    assert_eq!(inner[26..34], [address("10.1.0.11").v4_octets(), address(SELF_IN).v4_octets()].concat());
    assert_eq!(inner[34..38], [8080u16.to_be_bytes(), 40_000u16.to_be_bytes()].concat());
}

#[test]
fn ipv6_errors_are_translated_too() {
    let mut world = World::started(|_| ());
    let sent = send(&mut world, EXTERNAL, &Tcp { src: CLIENT6, dst: VIRTUAL6, ..syn() });
    let macs = (member_mac(11), INTERNAL_MAC);
    let error = icmp_error(macs, "2001:db8:2::11", "2001:db8:2::10", (2, 0), &sent[0].bytes);
    let out = world.send(INTERNAL, &error);
    assert_eq!((out.len(), out[0].port), (1, EXTERNAL));
    assert_eq!(out[0].bytes[22..38], address(VIRTUAL6).v6_octets());
    assert_eq!(quoted(&out[0])[22..38], address(CLIENT6).v6_octets());
}

#[test]
fn errors_about_no_flow_and_cut_quotes_are_counted() {
    let mut world = World::started(|_| ());
    let sent = send(&mut world, EXTERNAL, &syn());
    let macs = (member_mac(11), INTERNAL_MAC);
    let whole = icmp_error(macs, "10.1.0.11", SELF_IN, (3, 3), &sent[0].bytes);
    let stranger = build::tcp(&Tcp { src: SELF_IN, dst: "10.1.0.12", ..syn() });
    assert_eq!(world.send(INTERNAL, &icmp_error(macs, "10.1.0.11", SELF_IN, (3, 3), &stranger)), []);
    for quote in 0..28 {
        let mut cut = whole[..42 + quote].to_vec();
        build::patch_ipv4(&mut cut, |header| header[3] = 28 + quote as u8);
        cut[36..38].fill(0);
        let sum = sluice_dataplane::packet::checksum::sum(&cut[34..]);
        let value = !sluice_dataplane::packet::checksum::fold(sum);
        cut[36..38].copy_from_slice(&value.to_be_bytes());
        assert_eq!(world.send(INTERNAL, &cut), [], "{quote} bytes quoted");
    }
    assert_eq!(world.drops(DropReason::IcmpUnmatched), 29);
    assert_eq!(world.send(INTERNAL, &whole).len(), 1);
}

#[test]
fn a_used_up_ttl_shows_the_hop() {
    let mut world = World::started(|_| ());
    for (src, dst, hop, kind) in
        [(CLIENT, VIRTUAL, "192.0.2.10", 11), (CLIENT6, VIRTUAL6, "2001:db8:1::10", 3)]
    {
        let error = send(&mut world, EXTERNAL, &Tcp { src, dst, ttl: 1, ..syn() });
        assert_eq!(error.len(), 1);
        build::assert_checksums(&error[0].bytes);
        let (at, l4) = if kind == 11 { (26..30, 34) } else { (22..38, 54) };
        let source = address(hop);
        let octets = if kind == 11 { source.v4_octets().to_vec() } else { source.v6_octets().to_vec() };
        assert_eq!((&error[0].bytes[at], error[0].bytes[l4]), (&octets[..], kind));
    }
    assert_eq!(world.drops(DropReason::TtlExpired), 2);
}

#[test]
fn a_packet_larger_than_the_way_out_is_answered_with_its_mtu() {
    let mut world = World::started(|_| ());
    establish(&mut world);
    let big = send(&mut world, EXTERNAL, &Tcp { flags: ACK, seq: 1_001, payload: &[0; 1_480], ..syn() });
    assert_eq!(big[0].bytes[34..36], [3, 4]);
    assert_eq!(big[0].bytes[38..42], 1_500u32.to_be_bytes());
    assert_eq!(world.drops(DropReason::TooBig), 1);
}

#[test]
fn a_super_frame_of_segments_larger_than_the_way_out_is_answered_too() {
    let mut world = World::started(|_| ());
    establish(&mut world);
    let bytes = build::tcp(&Tcp { flags: ACK, seq: 1_001, ack: 5_001, payload: &[7; 9_000], ..syn() });
    for (payload_bytes, too_big) in [(1_460, 0), (1_461, 1)] {
        let mut frame = world.frames.copy_of(&bytes).unwrap();
        frame.offload.segmentation =
            Some(Segmentation { kind: SegmentKind::Tcp4, ecn: false, payload_bytes });
        let out = world.send_frame(EXTERNAL, frame);
        assert_eq!(out[0].port, if too_big == 0 { INTERNAL } else { EXTERNAL });
        assert_eq!(world.drops(DropReason::TooBig), too_big);
    }
}

// Refusals.

#[test]
fn unmatched_packets_are_refused() {
    let mut world = World::started(|_| ());
    let reset = only(&send(&mut world, EXTERNAL, &Tcp { dst_port: 81, ..syn() }));
    assert_eq!((reset.flags, reset.seq, reset.ack), (RST | ACK, 0, 1_001));
    assert_eq!((reset.src, reset.dst_mac), ((VIRTUAL.into(), 81), CLIENT_MAC));
    let udp = Udp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, dst_port: 54, ..Udp::default() };
    let unreachable = world.send(EXTERNAL, &build::udp(&udp));
    assert_eq!(unreachable[0].bytes[34..36], [3, 3]);
    assert_eq!(unreachable[0].bytes[26..30], address(VIRTUAL).v4_octets());
    let elsewhere = world.send(EXTERNAL, &build::udp(&Udp { dst: "203.0.113.9", ..udp }));
    assert_eq!(elsewhere[0].bytes[34..36], [3, 1], "not ours: host unreachable, from our self IP");
    assert_eq!(elsewhere[0].bytes[26..30], [192, 0, 2, 10]);
    assert_eq!(world.drops(DropReason::NoVirtual), 3);
    assert_eq!(
        send(&mut world, EXTERNAL, &Tcp { dst_port: 81, flags: RST, ..syn() }),
        [],
        "no answer to a RST"
    );
}

#[test]
fn reject_unmatched_false_is_silent() {
    let mut world = World::started(|parts| parts.settings.reject_unmatched = false);
    assert_eq!(send(&mut world, EXTERNAL, &Tcp { dst_port: 81, ..syn() }), []);
    assert_eq!(world.drops(DropReason::NoVirtual), 1);
}

#[test]
fn refusals_are_bounded() {
    let mut world =
        World::started(|parts| (parts.settings.max_reject_rate, parts.settings.max_icmp_rate) = (5, 3));
    let resets = (0..20).flat_map(|_| send(&mut world, EXTERNAL, &Tcp { dst_port: 81, ..syn() })).count();
    let errors = (0..20).flat_map(|_| send(&mut world, EXTERNAL, &Tcp { ttl: 1, ..syn() })).count();
    assert_eq!((resets, errors), (5, 3));
    assert_eq!((world.counters.rejects_sent.load(), world.counters.rejects_limited.load()), (8, 32));
}

#[test]
fn an_unknown_protocol_is_dropped_in_silence_where_that_is_asked_for() {
    let mut world = World::started(|parts| parts.settings.reject_unmatched = false);
    let link = LinkHeader { destination: EXTERNAL_MAC, source: CLIENT_MAC, vlan: 0 };
    let gre = build::packet(link, CLIENT, VIRTUAL, 64, 47, &[0; 8], 4);
    assert_eq!(world.send(EXTERNAL, &gre), []);
    assert_eq!(world.drops(DropReason::UnknownProtocol), 1);
}

#[test]
fn an_unknown_protocol_is_unreachable() {
    let mut world = World::started(|_| ());
    let link = LinkHeader { destination: EXTERNAL_MAC, source: CLIENT_MAC, vlan: 0 };
    let gre = build::packet(link, CLIENT, VIRTUAL, 64, 47, &[0; 8], 4);
    assert_eq!(world.send(EXTERNAL, &gre)[0].bytes[34..36], [3, 2]);
    assert_eq!(world.drops(DropReason::UnknownProtocol), 1);
}

/// Every reason for which a first packet is refused, with how to bring it about.
#[test]
fn each_refusal_of_a_new_connection_has_its_reason() {
    type Change = fn(&mut Parts);
    let cases: &[(DropReason, Change)] = &[
        (DropReason::Rejected, |parts| parts.virtuals[0].kind = VirtualKind::Reject),
        (DropReason::VirtualDisabled, |parts| parts.virtuals[0].enabled = false),
        (DropReason::NoMember, |parts| parts.pools[0].members.clear()),
        (DropReason::NoRoute, |parts| {
            parts.routes.clear();
            parts.pools[0].members = vec![member(0, "203.0.113.9", 80)];
        }),
        (DropReason::NoSnatAddress, |parts| {
            parts.virtuals[0].snat = Snat::Pool(0);
            parts.snat_pools[0].addresses.clear();
        }),
    ];
    for (reason, change) in cases {
        let mut world = World::started(*change);
        let reset = only(&send(&mut world, EXTERNAL, &syn()));
        assert_eq!((reset.flags, reset.ack), (RST | ACK, 1_001), "{reason}");
        assert_eq!(world.all_drops(), [(reason.name(), 1)]);
        let drops = &world.counters.of_virtual(VirtualId(0)).unwrap().drops;
        assert_eq!(drops[*reason as usize].load(), 1, "{reason} is counted for the virtual server");
        assert!(world.flows().is_empty());
    }
}

#[test]
fn segments_of_no_flow_are_reset() {
    let mut world = World::started(|_| ());
    let reset = only(&send(&mut world, EXTERNAL, &Tcp { flags: ACK, seq: 5, ack: 77, ..syn() }));
    assert_eq!((reset.flags, reset.seq), (RST, 77));
    assert_eq!(world.drops(DropReason::NoFlow), 1);
}

#[test]
fn connection_limits_hold_exactly() {
    let mut world = World::started(|parts| {
        parts.virtuals[0].connection_limit = 3;
        parts.pools[2].members[0].connection_limit = 1;
    });
    for port in 0..5 {
        send(&mut world, EXTERNAL, &Tcp { src_port: 2_000 + port, ..syn() });
        let udp =
            Udp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, src_port: 2_000 + port, ..Udp::default() };
        world.send(EXTERNAL, &build::udp(&udp));
    }
    assert_eq!((world.drops(DropReason::ConnectionLimit), world.drops(DropReason::MembersFull)), (2, 4));
    assert_eq!(world.flows().len(), 4);
}

#[test]
fn replies_after_the_end_are_refused() {
    let mut world = World::started(|_| ());
    let reset = only(&send(&mut world, INTERNAL, &from_member(ACK, 1, 9)));
    assert_eq!((reset.flags, reset.seq, reset.dst_mac), (RST, 9, member_mac(11)));
}

#[test]
fn draining_refuses_new_connections_and_keeps_old_ones() {
    let mut world = World::started(|_| ());
    establish(&mut world);
    world.worker.drain();
    assert_eq!(only(&send(&mut world, EXTERNAL, &Tcp { src_port: 9, ..syn() })).flags, RST | ACK);
    assert_eq!(world.drops(DropReason::Draining), 1);
    assert_eq!(send(&mut world, EXTERNAL, &Tcp { flags: ACK, seq: 1_001, ..syn() })[0].port, INTERNAL);
}

#[test]
fn the_end_of_a_drain_resets_open_connections_on_both_sides_and_forgets_the_rest() {
    let mut world = World::started(|_| ());
    establish(&mut world);
    send(&mut world, EXTERNAL, &Tcp { flags: ACK, seq: 1_001, ack: 5_001, payload: &[0; 9], ..syn() });
    send(&mut world, EXTERNAL, &Tcp { src_port: 41_000, seq: 7_000, ..syn() });
    let udp = Udp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, ..Udp::default() };
    assert_eq!(world.send(EXTERNAL, &build::udp(&udp)).len(), 1);
    assert_eq!(world.flows().len(), 3);
    world.worker.end_connections();
    let out: Vec<_> = (0..4).flat_map(|_| world.run(0)).map(|out| see(&out)).collect();
    let numbers = |seen: &Seen| (seen.flags, seen.seq, seen.ack);
    let to = |port: u16| out.iter().find(|seen| seen.dst.1 == port || seen.src.1 == port).unwrap();
    assert_eq!(out.len(), 4, "{out:?}");
    assert_eq!(numbers(to(40_000)), (RST | ACK, 5_001, 1_010));
    assert_eq!(numbers(to(41_000)), (RST | ACK, 0, 7_001), "a SYN is refused");
    let members: Vec<_> = out.iter().filter(|seen| seen.port == INTERNAL).map(numbers).collect();
    assert_eq!(members, [(RST | ACK, 1_010, 5_001), (RST | ACK, 7_001, 0)]);
    assert!(world.flows().is_empty());
    assert_eq!((0..3).map(|id| world.open_connections(id)).collect::<Vec<_>>(), [0; 3]);
    let late = only(&send(&mut world, EXTERNAL, &Tcp { src_port: 9, ..syn() }));
    assert_eq!(late.flags, RST | ACK, "and nobody comes in");
}

#[test]
fn the_end_of_a_drain_does_bounded_work_a_turn_and_loses_no_reset_to_a_full_queue() {
    const FLOWS: usize = 500;
    let mut world =
        World::with_limits(Limits { flows: 1_024, half_open: 1_024, ..Limits::default() }, |_| ());
    world.start();
    for port in 0..FLOWS as u16 {
        assert_eq!(send(&mut world, EXTERNAL, &Tcp { src_port: 2_000 + port, ..syn() }).len(), 1);
    }
    world.worker.end_connections();
    let mut resets = 0;
    for turn in 0..FLOWS {
        let out = world.run(0);
        assert!(out.len() <= 128, "{} frames in turn {turn}", out.len());
        resets += out.iter().filter(|out| see(out).flags == RST | ACK).count();
        if world.flows().is_empty() {
            break;
        }
    }
    assert_eq!(resets, 2 * FLOWS);
    assert_eq!((world.open_connections(0), world.all_drops()), (0, vec![]));
}

// Capacity.

#[test]
fn a_full_flow_table_refuses_udp_and_evicts_half_open_tcp_only() {
    let limits = Limits { flows: 4, half_open: 4, frames: 64, ..Limits::default() };
    let mut world = World::with_limits(limits, |_| ());
    world.start();
    establish(&mut world);
    let udp = |port| {
        let udp = Udp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, src_port: port, ..Udp::default() };
        build::udp(&udp)
    };
    world.send(EXTERNAL, &udp(1));
    world.send(EXTERNAL, &udp(2));
    world.send(EXTERNAL, &udp(3));
    world.send(EXTERNAL, &udp(4));
    assert_eq!(world.drops(DropReason::FlowTableFull), 1);
    assert_eq!(only(&send(&mut world, EXTERNAL, &Tcp { src_port: 7, ..syn() })).flags, RST | ACK);
    assert_eq!(world.flows().len(), 4);
    assert!(world.flows().iter().any(|flow| flow.state == "established"));
}

#[test]
fn a_syn_flood_evicts_the_oldest_half_open_flow_and_nothing_else() {
    let limits = Limits { flows: 64, half_open: 8, frames: 64, ..Limits::default() };
    let mut world = World::with_limits(limits, |_| ());
    world.start();
    establish(&mut world);
    for port in 0..200 {
        assert_eq!(only(&send(&mut world, EXTERNAL, &Tcp { src_port: 2_000 + port, ..syn() })).flags, SYN);
    }
    let flows = world.flows();
    assert_eq!(flows.len(), 9);
    assert!(flows.iter().any(|flow| flow.state == "established"));
    assert!(
        flows.iter().any(|flow| flow.client.1 == 2_199) && !flows.iter().any(|flow| flow.client.1 == 2_000)
    );
    assert_eq!(world.drops(DropReason::HalfOpenFull), 192);
    assert_eq!(world.counters.of_virtual(VirtualId(0)).unwrap().connections.current.load(), 9);
}

#[test]
fn no_half_open_flow_at_all_is_a_refusal() {
    let limits = Limits { flows: 64, half_open: 0, frames: 64, ..Limits::default() };
    let mut world = World::with_limits(limits, |_| ());
    world.start();
    assert_eq!(only(&send(&mut world, EXTERNAL, &syn())).flags, RST | ACK);
    assert_eq!(world.drops(DropReason::HalfOpenFull), 1);
}

#[test]
fn exhausted_ports_are_counted_and_answered() {
    let limits = Limits { flows: 70_000, half_open: 70_000, frames: 64, ..Limits::default() };
    let mut world = World::with_limits(limits, |parts| parts.pools[0].members.truncate(1));
    world.start();
    let mut opened = 0;
    for host in 0..3u32 {
        let src = format!("198.51.100.{}", host + 10);
        for port in 1_024..=u16::MAX {
            let out = send(&mut world, EXTERNAL, &Tcp { src: &src, src_port: port, ..syn() });
            if out.len() == 1 && see(&out[0]).flags == SYN {
                opened += 1;
            }
            if host == 1 && port == 1_100 {
                break;
            }
        }
        if host == 1 {
            break;
        }
    }
    assert_eq!(opened, 64_512, "every port of one address towards one member, and not one more");
    assert_eq!(world.drops(DropReason::SnatExhausted), 77);
}

#[test]
fn a_full_wire_is_counted() {
    let mut world = World::started(|_| ());
    establish(&mut world);
    let bytes = build::tcp(&Tcp { flags: ACK, seq: 1_001, ..syn() });
    let now = sluice_dataplane::clock::Instant::from_ms(world.now_ms);
    for _ in 0..1_024 + 256 + 10 {
        world.ports[0].send(world.frames.copy_of(&bytes).unwrap()).unwrap();
        world.worker.turn(now);
    }
    assert_eq!(world.drops(DropReason::TxFull), 10);
}

#[test]
fn answers_without_frame_memory_are_counted() {
    let limits = Limits { flows: 64, half_open: 64, frames: 1, ..Limits::default() };
    let mut world = World::with_limits(limits, |_| ());
    world.run_for(200);
    let ask = arp(1, CLIENT_MAC, "192.0.2.77", VIRTUAL);
    let now = sluice_dataplane::clock::Instant::from_ms(world.now_ms);
    world.ports[0].send(world.frames.copy_of(&ask).unwrap()).unwrap();
    world.ports[0].send(world.frames.copy_of(&ask).unwrap()).unwrap();
    let before = world.drops(DropReason::NoFrame);
    world.worker.turn(now);
    assert_eq!(world.drops(DropReason::NoFrame), before + 1);
}

// Time.

#[test]
fn half_open_flows_end_after_the_handshake_timeout() {
    let mut world = World::started(|_| ());
    send(&mut world, EXTERNAL, &syn());
    world.run_for(4_900);
    assert_eq!(world.flows().len(), 1);
    world.run_for(200);
    assert_eq!(world.flows().len(), 0);
    assert_eq!(world.counters.of_virtual(VirtualId(0)).unwrap().connections.current.load(), 0);
}

#[test]
fn a_client_has_the_whole_time_for_its_answer_to_a_member_that_was_slow() {
    let mut world = World::started(|_| ());
    send(&mut world, EXTERNAL, &syn());
    world.run_for(4_000);
    send(&mut world, INTERNAL, &from_member(SYN | ACK, 5_000, 1_001));
    world.run_for(4_000);
    // Once only: a member that repeats itself keeps nothing.
    send(&mut world, INTERNAL, &from_member(SYN | ACK, 5_000, 1_001));
    assert_eq!(world.run_for(900), []);
    let resets = world.run_for(300);
    assert_eq!(resets.len(), 2, "one to each side");
    assert_eq!(world.flows().len(), 0);
}

/// Puts `count` segments of no connection into the external queue, for the worker to find at its next turns.
fn fill_queue(world: &World, count: usize) {
    let stray = build::tcp(&Tcp { src_port: 9, flags: ACK, ..syn() });
    for _ in 0..count {
        let frame = world.frames.copy_of(&stray).expect("frame memory");
        world.ports[usize::from(EXTERNAL.0)].send(frame).expect("room on the wire");
    }
}

#[test]
fn a_pause_of_the_worker_ends_no_handshake_whose_packets_wait() {
    let mut world = World::started(|_| ());
    send(&mut world, EXTERNAL, &syn());
    send(&mut world, INTERNAL, &from_member(SYN | ACK, 5_000, 1_001));
    fill_queue(&world, 500);
    let ack = Tcp { flags: ACK, seq: 1_001, ack: 5_001, ..syn() };
    let frame = world.frames.copy_of(&build::tcp(&ack)).expect("frame memory");
    world.ports[usize::from(EXTERNAL.0)].send(frame).expect("room on the wire");
    world.run(6_000);
    assert_eq!(world.flows()[0].state, "syn-received");
    (0..20).for_each(|_| drop(world.run(0)));
    assert_eq!(world.flows()[0].state, "established");
    world.run_for(5_100);
    assert_eq!(world.flows().len(), 1);
}

#[test]
fn packets_without_end_do_not_keep_flows_whose_time_is_up() {
    let mut world = World::started(|_| ());
    send(&mut world, EXTERNAL, &syn());
    world.run_for(4_000);
    let turns = (0..1_000).take_while(|_| {
        fill_queue(&world, 32);
        world.run(20);
        !world.flows().is_empty()
    });
    let turns = turns.count();
    assert!((50..400).contains(&turns), "{turns} turns");
}

/// Clients' ports of the flows there are.
fn ports_of_flows(world: &mut World) -> Vec<u16> {
    let mut ports: Vec<_> = world.flows().iter().map(|flow| flow.client.1).collect();
    ports.sort_unstable();
    ports
}

/// Virtual server 0 waits long for handshakes, another at 192.0.2.101 does not.
fn patient_and_not(parts: &mut Parts) {
    parts.virtuals[0].timeouts.handshake_ms = 60_000;
    parts.virtuals.push(virtual_server(3, "192.0.2.101/32", 80, Protocol::Tcp, 0));
}

#[test]
fn a_long_handshake_timeout_does_not_keep_half_open_flows_of_others() {
    let mut world = World::started(patient_and_not);
    send(&mut world, EXTERNAL, &Tcp { src_port: 1_001, ..syn() });
    send(&mut world, EXTERNAL, &Tcp { src_port: 1_002, dst: "192.0.2.101", ..syn() });
    world.run_for(4_900);
    assert_eq!(ports_of_flows(&mut world), [1_001, 1_002]);
    world.run_for(300);
    assert_eq!(ports_of_flows(&mut world), [1_001]);
    world.run_for(54_600);
    assert_eq!(ports_of_flows(&mut world), [1_001]);
    world.run_for(500);
    assert_eq!(ports_of_flows(&mut world), []);
}

#[test]
fn the_half_open_flow_that_makes_room_is_the_oldest_whatever_its_timeout() {
    let limits = Limits { flows: 64, half_open: 3, frames: 64, ..Limits::default() };
    let mut world = World::with_limits(limits, patient_and_not);
    world.start();
    for (port, dst) in [(1_001, "192.0.2.101"), (1_002, VIRTUAL), (1_003, "192.0.2.101")] {
        send(&mut world, EXTERNAL, &Tcp { src_port: port, dst, ..syn() });
    }
    world.run_for(1_000);
    send(&mut world, EXTERNAL, &Tcp { src_port: 1_001, dst: "192.0.2.101", ..syn() });
    for port in [1_004, 1_005] {
        send(&mut world, EXTERNAL, &Tcp { src_port: port, dst: "192.0.2.101", ..syn() });
    }
    assert_eq!(ports_of_flows(&mut world), [1_003, 1_004, 1_005]);
    assert_eq!(world.drops(DropReason::HalfOpenFull), 2);
    world.run_for(5_300);
    let half_open = world.counters.half_open.load();
    assert_eq!((ports_of_flows(&mut world), half_open), (vec![], 0));
}

#[test]
fn an_idle_connection_is_reset_on_both_sides_with_the_numbers_they_expect() {
    let mut world = World::started(|parts| parts.virtuals[0].timeouts.idle_ms = 2_000);
    establish(&mut world);
    send(&mut world, EXTERNAL, &Tcp { flags: ACK, seq: 1_001, ack: 5_001, payload: &[0; 9], ..syn() });
    let out: Vec<_> = world.run_for(2_500).iter().map(see).collect();
    assert_eq!(out.len(), 2, "{out:?}");
    let client = out.iter().find(|seen| seen.port == EXTERNAL).unwrap();
    let member = out.iter().find(|seen| seen.port == INTERNAL).unwrap();
    assert_eq!((client.flags, client.seq, client.ack), (RST | ACK, 5_001, 1_010));
    assert_eq!((&client.src.0[..], client.dst_mac), (VIRTUAL, CLIENT_MAC));
    assert_eq!((member.flags, member.seq, member.ack), (RST | ACK, 1_010, 5_001));
    assert_eq!((&member.dst.0[..], member.dst_mac), ("10.1.0.11", member_mac(11)));
    assert!(world.flows().is_empty());
}

#[test]
fn traffic_keeps_a_connection_open() {
    let mut world = World::started(|parts| parts.virtuals[0].timeouts.idle_ms = 2_000);
    establish(&mut world);
    for step in 0..10 {
        world.run_for(1_500);
        send(&mut world, EXTERNAL, &Tcp { flags: ACK, seq: 1_001 + step, ..syn() });
    }
    assert_eq!(world.flows().len(), 1);
}

#[test]
fn an_orderly_close_frees_everything_after_the_close_timeout() {
    let mut world = World::started(|_| ());
    establish(&mut world);
    send(&mut world, EXTERNAL, &Tcp { flags: FIN | ACK, seq: 1_001, ack: 5_001, ..syn() });
    send(&mut world, INTERNAL, &from_member(FIN | ACK, 5_001, 1_002));
    send(&mut world, EXTERNAL, &Tcp { flags: ACK, seq: 1_002, ack: 5_002, ..syn() });
    assert_eq!(world.flows()[0].state, "closing");
    assert_eq!(world.run_for(5_500), [], "no reset for a connection that is over");
    assert!(world.flows().is_empty());
    world.run(200);
    assert_eq!(world.counters.snat_ports.load(), 0);
}

#[test]
fn a_client_may_open_anew_with_the_ports_of_a_closed_connection() {
    let mut world = World::started(|_| ());
    establish(&mut world);
    send(&mut world, INTERNAL, &from_member(RST, 5_001, 0));
    assert_eq!(world.flows()[0].state, "closing");
    let again = only(&send(&mut world, EXTERNAL, &Tcp { seq: 9_000, ..syn() }));
    assert_eq!((again.flags, again.seq), (SYN, 9_000));
    assert_eq!(world.flows()[0].state, "syn-sent");
    assert_eq!(world.flows().len(), 1);
}

#[test]
fn a_late_copy_of_the_first_syn_does_not_end_a_closing_connection() {
    let mut world = World::started(|_| ());
    establish(&mut world);
    send(&mut world, EXTERNAL, &Tcp { flags: FIN | ACK, seq: 1_001, ack: 5_001, ..syn() });
    send(&mut world, INTERNAL, &from_member(FIN | ACK, 5_001, 1_002));
    assert_eq!(world.flows()[0].state, "closing");
    send(&mut world, EXTERNAL, &syn());
    assert_eq!(world.flows()[0].state, "closing");
    let again = only(&send(&mut world, INTERNAL, &from_member(FIN | ACK, 5_001, 1_002)));
    assert_eq!(again.dst, (CLIENT.into(), 40_000), "the member's last packet still reaches the client");
}

#[test]
fn udp_flows_end_when_idle() {
    let mut world = World::started(|_| ());
    let ask = Udp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, ..Udp::default() };
    world.send(EXTERNAL, &build::udp(&ask));
    world.run_for(59_000);
    assert_eq!(world.flows().len(), 1);
    world.run_for(2_000);
    assert!(world.flows().is_empty());
}

// Applies.

#[test]
fn an_apply_cuts_nothing() {
    let mut world = World::started(|_| ());
    establish(&mut world);
    world.apply(|parts| {
        parts.pools[0].members = vec![member(9, "10.1.0.13", 8080)];
        parts.virtuals.remove(2);
    });
    let more = Tcp { flags: ACK, seq: 1_001, ack: 5_001, payload: b"more", ..syn() };
    assert_eq!(only(&send(&mut world, EXTERNAL, &more)).dst.0, "10.1.0.11");
    assert_eq!(only(&send(&mut world, EXTERNAL, &Tcp { src_port: 9, ..syn() })).dst.0, "10.1.0.13");
    world.apply(|parts| parts.virtuals.clear());
    let more = Tcp { flags: ACK, seq: 1_005, ack: 5_001, payload: b"more", ..syn() };
    assert_eq!(only(&send(&mut world, EXTERNAL, &more)).dst.0, "10.1.0.11");
    assert_eq!(only(&send(&mut world, INTERNAL, &from_member(ACK, 5_001, 1_009))).src, (VIRTUAL.into(), 80));
    assert_eq!(world.counters.of_virtual(VirtualId(0)).unwrap().connections.total.load(), 2, "counters stay");
}

#[test]
fn a_changed_route_moves_open_connections() {
    let mut world = World::started(|parts| {
        parts.pools[0].members = vec![member(0, "203.0.113.80", 8080)];
        parts.routes[0].gateway = address("10.1.0.13");
        parts.routes[0].link = INSIDE;
    });
    assert_eq!(only(&send(&mut world, EXTERNAL, &syn())).dst_mac, member_mac(13));
    world.apply(|parts| parts.routes[0].gateway = address("10.1.0.14"));
    assert_eq!(only(&send(&mut world, EXTERNAL, &syn())).dst_mac, member_mac(14));
}

#[test]
fn new_connections_go_where_the_member_is_now() {
    let mut world = World::started(|parts| {
        parts.pools[0].members.truncate(1);
        parts.self_ips.push(self_ip("10.9.0.10/24", INSIDE));
    });
    let mut port = 5_000;
    let mut next = |world: &mut World| {
        port += 1;
        only(&send(world, EXTERNAL, &Tcp { src_port: port, ..syn() }))
    };
    for _ in 0..2 {
        assert_eq!(next(&mut world).dst_mac, member_mac(11));
    }
    world.teach("10.1.0.11", member_mac(14));
    assert_eq!(next(&mut world).dst_mac, member_mac(14), "another link address");
    world.apply(|parts| parts.pools[0].members[0].address = address("10.1.0.12"));
    let seen = next(&mut world);
    assert_eq!((seen.dst_mac, seen.dst.0.as_str()), (member_mac(12), "10.1.0.12"), "another address");
    world.apply(|parts| {
        parts.routes.push(Route {
            destination: prefix("10.1.0.12/32"),
            gateway: address("10.9.0.1"),
            link: INSIDE,
        });
    });
    world.teach("10.9.0.1", member_mac(13));
    let seen = next(&mut world);
    assert_eq!((seen.dst_mac, seen.src.0.as_str()), (member_mac(13), "10.9.0.10"), "another route");
    world.apply(|parts| {
        parts.self_ips.retain(|ip| ip.address != address("10.9.0.10"));
        parts.routes.pop();
    });
    let seen = next(&mut world);
    assert_eq!((seen.dst_mac, seen.src.0.as_str()), (member_mac(12), SELF_IN), "its own subnet again");
}

#[test]
fn a_flow_whose_way_back_has_gone_is_counted() {
    let mut world = World::started(|parts| parts.virtuals[0].auto_last_hop = false);
    send(&mut world, EXTERNAL, &syn());
    world.apply(|parts| parts.routes.clear());
    send(&mut world, INTERNAL, &from_member(SYN | ACK, 1, 2));
    assert_eq!(world.drops(DropReason::NoRoute), 1);
}

// What the parser refuses is counted, frame by frame.

#[test]
fn malformed_frames_are_counted_one_by_one() {
    let mut world = World::started(|_| ());
    let good = build::tcp(&syn());
    type Break = fn(&mut Vec<u8>);
    let cases: &[(DropReason, Break)] = &[
        (DropReason::Truncated, |b| b.truncate(40)),
        (DropReason::Malformed, |b| b[24] ^= 1),
        (DropReason::UnknownEthertype, |b| b[12] = 0x99),
        (DropReason::NotForUs, |b| b[0] = 4),
        (DropReason::MartianSource, |b| build::patch_ipv4(b, |h| h[12] = 127)),
        (DropReason::MartianDestination, |b| build::patch_ipv4(b, |h| h[16] = 0)),
        (DropReason::IpOptions, |b| b[14] = 0x46),
        (DropReason::FragmentMalformed, |b| build::patch_ipv4(b, |h| h[6] = 0x20)),
        (DropReason::MalformedTcp, |b| b[47] = 0),
        (DropReason::MalformedUdp, |b| {
            *b = build::udp(&Udp { dst_mac: EXTERNAL_MAC, ..Udp::default() });
            b[39] = 3;
        }),
    ];
    for (reason, break_it) in cases {
        let mut bytes = good.clone();
        break_it(&mut bytes);
        assert_eq!(world.send(EXTERNAL, &bytes), [], "{reason}");
        assert_eq!(world.drops(*reason), 1, "{reason}");
    }
    assert_eq!(world.all_drops().iter().map(|(_, count)| count).sum::<u64>(), cases.len() as u64);
}

/// Millions of frames of three kinds: noise, noise behind good headers, and good frames with a few bytes changed.
/// Nothing panics, nothing is lost: every frame is forwarded, queued, answered or counted as dropped.
#[test]
fn random_frames_never_panic_and_are_all_accounted_for() {
    let seed = std::env::var("SLUICE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0x5eed_u64);
    println!("seed {seed} (set SLUICE_SEED to repeat)");
    let mut random = Random(seed | 1);
    let mut world = World::started(|_| ());
    let good = [
        build::tcp(&syn()),
        build::tcp(&from_member(ACK, 1, 1)),
        build::tcp(&Tcp { src: CLIENT6, dst: VIRTUAL6, vlan: 3, ..syn() }),
        build::udp(&Udp { dst_mac: EXTERNAL_MAC, ..Udp::default() }),
        arp(1, CLIENT_MAC, "192.0.2.77", VIRTUAL),
        solicitation(CLIENT_MAC, "fe80::7", VIRTUAL6),
        echo(CLIENT, VIRTUAL, 8),
        echo(CLIENT6, VIRTUAL6, 128),
    ];
    let count = if cfg!(debug_assertions) { 1_000_000 } else { 4_000_000 };
    let received = |world: &World| {
        (0..2).map(|port| world.counters.of_port(PortId(port)).frames.packets_in.load()).sum::<u64>()
    };
    let before = received(&world);
    for _ in 0..count {
        let mut bytes = good[random.below(good.len())].clone();
        match random.below(3) {
            0 => bytes = (0..random.below(200)).map(|_| random.next() as u8).collect(),
            1 => bytes.iter_mut().skip(12).for_each(|byte| *byte = random.next() as u8),
            _ => {
                for _ in 0..=random.below(4) {
                    let at = random.below(bytes.len());
                    bytes[at] = random.next() as u8;
                }
                bytes.truncate(random.below(bytes.len() * 4).max(1));
            }
        }
        let port = PortId(random.below(2) as u8);
        world.now_ms += u64::from(random.below(50) == 0);
        world.send(port, &bytes);
    }
    assert_eq!(received(&world) - before, count, "every frame was looked at");
    world.run_for(120_000);
    let flows = world.flows().len() as u64;
    let open: u64 =
        (0..3).map(|id| world.counters.of_virtual(VirtualId(id)).unwrap().connections.current.load()).sum();
    assert_eq!(open, flows);
    println!("{:?}", world.all_drops());
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
