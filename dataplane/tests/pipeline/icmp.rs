//! Echo, TTL, MTU, and errors about flows.

use sluice_dataplane::address::Mac;
use sluice_dataplane::frame::{SegmentKind, Segmentation};
use sluice_dataplane::packet::build::{self, Tcp, address};
use sluice_dataplane::packet::parse::tcp_flag::ACK;
use sluice_dataplane::packet::rewrite::LinkHeader;
use sluice_dataplane::verdict::DropReason;

use crate::world::*;
use crate::{echo, establish, from_member, send, syn};

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

#[test]
fn a_ping_with_a_tag_that_names_no_vlan_is_answered_without() {
    let mut world = World::started(|_| ());
    for (src, dst, kind, reply) in [(CLIENT, VIRTUAL, 8, 0), (CLIENT6, VIRTUAL6, 128, 129)] {
        let mut tagged = echo(src, dst, kind);
        tagged.splice(12..12, [0x81, 0, 0xe0, 0]);
        let out = world.send(EXTERNAL, &tagged);
        let seen = see(&out[0]);
        assert_eq!((seen.src.0.as_str(), seen.dst.0.as_str(), seen.vlan), (dst, src, 0));
        build::assert_checksums(&out[0].bytes);
        let l4 = if kind == 8 { 34 } else { 54 };
        assert_eq!((out[0].bytes.len(), out[0].bytes[l4]), (tagged.len() - 4, reply));
    }
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
