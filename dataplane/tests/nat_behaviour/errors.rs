//! ICMP errors (RFC 5508 REQ-3 to REQ-6, RFC 5382 REQ-9 and REQ-10, RFC 4787 REQ-12).

use sluice_dataplane::packet::build::{self, Tcp, Udp, address};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, SYN};
use sluice_dataplane::verdict::DropReason;

use crate::world::*;
use crate::{OPEN, ask, client, error_about, member, quote_of, take, wait};

#[test]
fn each_kind_of_error_reaches_the_client_unchanged_but_for_addresses() {
    let v4: &[(u8, u8, u32)] = &[
        (3, 0, 0),
        (3, 1, 0),
        (3, 3, 0),
        (3, 4, 1_280),
        (3, 13, 0),
        (11, 0, 0),
        (11, 1, 0),
        (12, 0, 0x0900_0000),
    ];
    let v6: &[(u8, u8, u32)] =
        &[(1, 0, 0), (1, 4, 0), (2, 0, 1_280), (3, 0, 0), (3, 1, 0), (4, 0, 6), (4, 1, 40), (100, 0, 7)];
    for (client, virtual_address, kinds) in [(CLIENT, VIRTUAL, v4), (CLIENT6, VIRTUAL6, v6)] {
        let v6 = client.contains(':');
        let (router, ours) = if v6 { ("2001:db8:99::1", "2001:db8:2::10") } else { ("10.99.0.1", SELF_IN) };
        let mut world = World::started(|_| ());
        let syn = Tcp { src: client, dst: virtual_address, flags: SYN, ..self::client() };
        let sent = world.send(EXTERNAL, &build::tcp(&syn));
        for &kind in kinds {
            let error = error_about(&sent[0].bytes, (member_mac(11), INTERNAL_MAC), (router, ours), kind);
            let out = world.send(INTERNAL, &error);
            assert_eq!((out.len(), out[0].port), (1, EXTERNAL), "{kind:?}");
            let l4 = if v6 { 54 } else { 34 };
            let message = &out[0].bytes[l4..l4 + 8];
            assert_eq!((message[0], message[1], &message[4..]), (kind.0, kind.1, &kind.2.to_be_bytes()[..]));
            let inner = quote_of(&out[0]);
            assert_eq!((inner.src.0, inner.dst), (client.into(), (virtual_address.into(), 80)), "{kind:?}");
        }
        let flow = &world.flows()[0];
        assert_eq!((flow.state, world.all_drops()), ("syn-sent", vec![]), "no error ends a flow");
    }
}

#[test]
fn the_mtu_of_a_router_reaches_either_end() {
    let mut world = World::started(|parts| parts.pools[0].members.truncate(1));
    for step in &OPEN {
        take(&mut world, step, "open");
    }
    let big = Tcp { flags: ACK, seq: 1_001, ack: 5_001, payload: &[7; 1_400], ..client() };
    let sent = world.send(EXTERNAL, &build::tcp(&big));
    let macs = (member_mac(11), INTERNAL_MAC);
    let out = world.send(INTERNAL, &error_about(&sent[0].bytes, macs, ("10.99.0.1", SELF_IN), (3, 4, 1_300)));
    assert_eq!(out[0].bytes[26..34], [[10, 99, 0, 1], address(CLIENT).v4_octets()].concat());
    assert_eq!(out[0].bytes[38..42], 1_300u32.to_be_bytes());
    let big = Tcp { flags: ACK, seq: 5_001, ack: 1_001, payload: &[7; 1_400], ..member() };
    let sent = world.send(INTERNAL, &build::tcp(&big));
    let macs = (CLIENT_MAC, EXTERNAL_MAC);
    let out =
        world.send(EXTERNAL, &error_about(&sent[0].bytes, macs, ("203.0.113.1", VIRTUAL), (3, 4, 1_300)));
    assert_eq!((out[0].port, &out[0].bytes[38..42]), (INTERNAL, &1_300u32.to_be_bytes()[..]));
    assert_eq!(out[0].bytes[30..34], address("10.1.0.11").v4_octets());
    assert_eq!(out[0].bytes[62..66], [8080u16.to_be_bytes(), 40_000u16.to_be_bytes()].concat());
}

#[test]
fn errors_do_not_keep_a_flow() {
    let mut world = World::started(|_| ());
    let sent = ask(&mut world);
    let macs = (member_mac(11), INTERNAL_MAC);
    let error = error_about(&sent[0].bytes, macs, ("10.1.0.11", SELF_IN), (3, 3, 0));
    for _ in 0..2 {
        wait(&mut world, 25_000);
        assert_eq!(world.send(INTERNAL, &error).len(), 1);
    }
    wait(&mut world, 10_500);
    assert!(world.flows().is_empty());
}

#[test]
fn errors_about_fragments_are_told_by_the_first() {
    let mut world = World::started(|parts| {
        let mut udp6 = virtual_server(
            3,
            "2001:db8:1::100/128",
            53,
            sluice_dataplane::config::snapshot::Protocol::Udp,
            1,
        );
        udp6.matches[0].port = 53;
        parts.virtuals.push(udp6);
        parts.pools[1].members.truncate(1);
    });
    for (client, virtual_address, member, ours, kind, late) in [
        (CLIENT, VIRTUAL, "10.1.0.11", SELF_IN, (11, 1, 0), (3, 4, 1_300)),
        (CLIENT6, VIRTUAL6, "2001:db8:2::11", "2001:db8:2::10", (3, 1, 0), (2, 0, 1_300)),
    ] {
        let udp = Udp {
            src_mac: CLIENT_MAC,
            dst_mac: EXTERNAL_MAC,
            src: client,
            dst: virtual_address,
            payload: &[7; 3_000],
            ..Udp::default()
        };
        let frames = build::fragments(&build::udp(&udp), 1_500, 3);
        let sent: Vec<_> = frames.iter().flat_map(|frame| world.send(EXTERNAL, frame)).collect();
        let macs = (member_mac(11), INTERNAL_MAC);
        let out = world.send(INTERNAL, &error_about(&sent[0].bytes, macs, (member, ours), kind));
        assert_eq!((out.len(), out[0].port), (1, EXTERNAL), "{client}");
        build::assert_checksums(&out[0].bytes);
        let l4 = if client == CLIENT { 34 } else { 54 };
        let inner = &out[0].bytes[l4 + 8..];
        let (source, ports) = if client == CLIENT { (12..16, 20) } else { (8..24, 48) };
        let expected = address(client);
        let octets =
            if client == CLIENT { expected.v4_octets().to_vec() } else { expected.v6_octets().to_vec() };
        assert_eq!(inner[source], octets[..]);
        assert_eq!(inner[ports..ports + 4], [40_000u16.to_be_bytes(), 53u16.to_be_bytes()].concat());
        let before = world.drops(DropReason::IcmpUnmatched);
        let late = error_about(&sent[1].bytes, macs, (member, ours), late);
        assert_eq!(world.send(INTERNAL, &late), [], "a later fragment has no ports to know it by");
        assert_eq!(world.drops(DropReason::IcmpUnmatched), before + 1);
    }
}

#[test]
fn errors_that_must_not_pass_are_counted() {
    let mut world = World::started(|_| ());
    let sent = ask(&mut world);
    let macs = (member_mac(11), INTERNAL_MAC);
    let ends = ("10.1.0.11", SELF_IN);
    let error = error_about(&sent[0].bytes, macs, ends, (3, 3, 0));
    let nested = error_about(&error, macs, ends, (3, 1, 0));
    assert_eq!(world.send(INTERNAL, &nested), [], "an error about an error (RFC 1122 section 3.2.2)");
    let stranger = build::udp(&Udp { src: SELF_IN, dst: "10.1.0.12", ..Udp::default() });
    assert_eq!(world.send(INTERNAL, &error_about(&stranger, macs, ends, (3, 3, 0))), []);
    assert_eq!(world.drops(DropReason::IcmpUnmatched), 2);
    let mut damaged = error.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(world.send(INTERNAL, &damaged), [], "RFC 5508 REQ-3");
    assert_eq!(world.drops(DropReason::Malformed), 1);
    for kind in [4, 5] {
        assert_eq!(world.send(INTERNAL, &error_about(&sent[0].bytes, macs, ends, (kind, 0, 0))), []);
    }
    assert_eq!(world.drops(DropReason::UnwantedIcmp), 2, "source quench and redirect");
    assert_eq!(world.send(INTERNAL, &error).len(), 1, "the flow is unharmed");
}
