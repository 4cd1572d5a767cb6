//! The way of a connection.

use sluice_dataplane::address::Mac;
use sluice_dataplane::config::ids::{LinkId, MemberId, VirtualId};
use sluice_dataplane::config::snapshot::Ingress;
use sluice_dataplane::frame::{Checksum, SegmentKind, Segmentation};
use sluice_dataplane::packet::build::{self, Tcp, Udp};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, RST, SYN};
use sluice_dataplane::verdict::DropReason;

use crate::world::*;
use crate::{establish, from_member, send, syn};

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

/// A flow is the same from wherever its client's packets come, but not from where its virtual server takes none.
#[test]
fn a_connection_is_not_carried_on_from_elsewhere() {
    let (vlan, other) = (LinkId::new(EXTERNAL, 100), LinkId::new(EXTERNAL, 200));
    let mut world = World::started(|parts| {
        parts.self_ips.extend([self_ip("203.0.113.10/24", vlan), self_ip("203.0.114.10/24", other)]);
        parts.virtuals[0].ingress = Ingress::Links(vec![vlan]);
    });
    send(&mut world, EXTERNAL, &Tcp { vlan: 100, ..syn() });
    for (flags, seq) in [(SYN, 1_000), (SYN, 9_000), (ACK, 1_001), (RST, 1_001)] {
        let strange = Tcp { src_mac: member_mac(99), vlan: 200, flags, seq, ack: 5_001, ..syn() };
        assert_eq!(send(&mut world, EXTERNAL, &strange), []);
    }
    let back = only(&send(&mut world, INTERNAL, &from_member(SYN | ACK, 5_000, 1_001)));
    assert_eq!((back.vlan, back.dst_mac, world.drops(DropReason::NoVirtual)), (100, CLIENT_MAC, 4));
    let acked = Tcp { vlan: 100, flags: ACK, seq: 1_001, ack: 5_001, ..syn() };
    assert_eq!(send(&mut world, EXTERNAL, &acked).len(), 1);
    assert_eq!(world.flows()[0].state, "established");
}

#[test]
fn a_client_may_move_to_another_link() {
    let mut world = World::started(|_| ());
    establish(&mut world);
    let moved = Tcp { vlan: 0, src_mac: member_mac(99), flags: ACK, seq: 1_001, ack: 5_001, ..syn() };
    for port in [INTERNAL, EXTERNAL] {
        let dst_mac = if port == INTERNAL { INTERNAL_MAC } else { EXTERNAL_MAC };
        assert_eq!(send(&mut world, port, &Tcp { dst_mac, ..moved })[0].port, INTERNAL);
        let back = only(&send(&mut world, INTERNAL, &from_member(ACK, 5_001, 1_001)));
        assert_eq!((back.port, back.dst_mac), (port, member_mac(99)));
    }
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
