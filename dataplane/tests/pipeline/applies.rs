//! What an apply changes for what is open, and what not.

use sluice_dataplane::config::ids::VirtualId;
use sluice_dataplane::config::snapshot::Route;
use sluice_dataplane::packet::build::{Tcp, address};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, SYN};
use sluice_dataplane::verdict::DropReason;

use crate::world::*;
use crate::{establish, from_member, send, syn};

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
