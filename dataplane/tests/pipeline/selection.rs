//! Which virtual server, member and source.

use sluice_dataplane::config::ids::MemberId;
use sluice_dataplane::config::snapshot::{Method, Protocol, Snat, SourcePort, VirtualKind};
use sluice_dataplane::packet::build::Tcp;
use sluice_dataplane::packet::parse::tcp_flag::{ACK, RST, SYN};
use sluice_dataplane::pool::MemberState;
use sluice_dataplane::verdict::DropReason;

use crate::world::*;
use crate::{establish, from_member, send, syn};

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
