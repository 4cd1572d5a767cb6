//! Client and member are neighbours (RFC 5382 REQ-8, RFC 4787 REQ-9, RFC 5508 REQ-7).

use sluice_dataplane::config::snapshot::Parts;
use sluice_dataplane::packet::build::{self, Tcp, Udp, address};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, SYN};
use sluice_dataplane::packet::rewrite::LinkHeader;

use crate::world::*;
use crate::{answer, error_about, member, quote_of};

const NEIGHBOR: &str = "10.1.0.12";

fn hairpin_world() -> World {
    World::started(|parts: &mut Parts| {
        parts.pools[0].members.truncate(1);
    })
}

#[test]
fn neighbors_reach_each_other_by_the_virtual_address() {
    for (source, mac) in [(NEIGHBOR, member_mac(12)), ("10.1.0.11", member_mac(11))] {
        let mut world = hairpin_world();
        let near = Tcp { src_mac: mac, dst_mac: INTERNAL_MAC, src: source, ..Tcp::default() };
        let seen = only(&world.send(INTERNAL, &build::tcp(&Tcp { flags: SYN, seq: 10, ..near })));
        assert_eq!((seen.port, seen.dst_mac), (INTERNAL, member_mac(11)));
        assert_eq!((seen.src, seen.dst), ((SELF_IN.into(), 40_000), ("10.1.0.11".into(), 8080)));
        let back = Tcp { flags: SYN | ACK, seq: 50, ack: 11, ..member() };
        let back = only(&world.send(INTERNAL, &build::tcp(&back)));
        assert_eq!((back.dst_mac, back.src, back.dst), (mac, (VIRTUAL.into(), 80), (source.into(), 40_000)));
        let done = Tcp { flags: ACK, seq: 11, ack: 51, ..near };
        assert_eq!(only(&world.send(INTERNAL, &build::tcp(&done))).dst.1, 8080);
        assert_eq!(world.flows()[0].state, "established");
        let udp = Udp { src_mac: mac, dst_mac: INTERNAL_MAC, src: source, ..Udp::default() };
        let seen = only(&world.send(INTERNAL, &build::udp(&udp)));
        assert_eq!((seen.src.0, seen.dst), (SELF_IN.into(), ("10.1.0.11".into(), 5353)));
        let back = only(&answer(&mut world));
        assert_eq!((back.port, back.src, back.dst.0), (INTERNAL, (VIRTUAL.into(), 53), source.into()));
        assert_eq!(world.all_drops(), []);
    }
}

#[test]
fn errors_between_neighbors_are_translated() {
    let mut world = hairpin_world();
    let udp = Udp { src_mac: member_mac(12), dst_mac: INTERNAL_MAC, src: NEIGHBOR, ..Udp::default() };
    let sent = world.send(INTERNAL, &build::udp(&udp));
    let error =
        error_about(&sent[0].bytes, (member_mac(11), INTERNAL_MAC), ("10.1.0.11", SELF_IN), (3, 3, 0));
    let out = world.send(INTERNAL, &error);
    assert_eq!((out.len(), out[0].port, &out[0].bytes[..6]), (1, INTERNAL, &member_mac(12).0[..]));
    assert_eq!(out[0].bytes[26..34], [address(VIRTUAL).v4_octets(), address(NEIGHBOR).v4_octets()].concat());
    let inner = quote_of(&out[0]);
    assert_eq!((inner.src, inner.dst), ((NEIGHBOR.into(), 40_000), (VIRTUAL.into(), 53)));
}

#[test]
fn a_virtual_address_is_pinged_by_neighbors() {
    let mut world = hairpin_world();
    let link = LinkHeader { source: member_mac(12), destination: INTERNAL_MAC, vlan: 0 };
    let echo = build::packet(link, NEIGHBOR, VIRTUAL, 64, 1, &[8, 0, 0, 0, 0, 1, 0, 1, 7, 7], 2);
    let out = world.send(INTERNAL, &echo);
    assert_eq!((out.len(), out[0].bytes[34]), (1, 0));
}
