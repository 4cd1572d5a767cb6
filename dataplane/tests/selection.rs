//! Golden tests of what is chosen, limited and translated beyond the plain way of a connection.

mod world;

use sluice_dataplane::config::ids::{MemberId, NodeId, PortId};
use sluice_dataplane::config::snapshot::{
    Ingress, Nat, Node, Parts, Protocol, Queue, ServiceDownAction, Snat, SnatList, SourcePort, VirtualKind,
};
use sluice_dataplane::limits::Limits;
use sluice_dataplane::packet::build::{self, Tcp, Udp, address};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, RST, SYN};
use sluice_dataplane::pool::MemberState;
use sluice_dataplane::verdict::DropReason;
use world::*;

fn syn(port: u16) -> Tcp<'static> {
    Tcp {
        src_mac: CLIENT_MAC,
        dst_mac: EXTERNAL_MAC,
        src_port: port,
        flags: SYN,
        seq: 1_000,
        ..Tcp::default()
    }
}

/// From 10.1.0.`last` port 8080 to our self IP.
fn from_member(last: u8, to_port: u16, flags: u8, ack: u32) -> Vec<u8> {
    let src = format!("10.1.0.{last}");
    build::tcp(&Tcp {
        src_mac: member_mac(last),
        dst_mac: INTERNAL_MAC,
        src: &src,
        dst: SELF_IN,
        src_port: 8080,
        dst_port: to_port,
        flags,
        seq: 5_000,
        ack,
        ..Tcp::default()
    })
}

fn datagram(port: u16) -> Vec<u8> {
    build::udp(&Udp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, src_port: port, ..Udp::default() })
}

fn send(world: &mut World, port: PortId, tcp: &Tcp) -> Vec<Out> {
    world.send(port, &build::tcp(tcp))
}

/// Opens a connection from client port `port` all the way; the last part of its member's address.
fn establish(world: &mut World, port: u16) -> u8 {
    let seen = only(&send(world, EXTERNAL, &syn(port)));
    let last = seen.dst.0.rsplit('.').next().and_then(|last| last.parse().ok()).expect("a member");
    assert_eq!(world.send(INTERNAL, &from_member(last, seen.src.1, SYN | ACK, 1_001)).len(), 1);
    let ack = Tcp { flags: ACK, seq: 1_001, ack: 5_001, ..syn(port) };
    assert_eq!(send(world, EXTERNAL, &ack).len(), 1);
    last
}

// Limits.

#[test]
fn a_limit_holds_over_all_workers_and_every_unit_comes_back() {
    let mut parts = usual();
    parts.virtuals[0].connection_limit = 10;
    let mut worlds = World::several(4, Limits { flows: 256, frames: 64, ..Limits::default() }, &parts);
    worlds.iter_mut().for_each(World::start);
    let open = |worlds: &mut Vec<World>, from: u16| -> usize {
        let syns = (0..40).map(|step| send_at(worlds, usize::from(step) % 4, EXTERNAL, &syn(from + step)));
        syns.filter(|out| out.iter().any(|out| out.port == INTERNAL)).count()
    };
    assert_eq!(open(&mut worlds, 2_000), 10);
    // Half-open connections end after their handshake timeout.
    for world in &mut worlds {
        world.run(6_000);
    }
    assert!(worlds.iter_mut().all(|world| world.flows().is_empty()));
    assert_eq!(open(&mut worlds, 3_000), 10);
    let refused: u64 = worlds.iter().map(|world| world.drops(DropReason::ConnectionLimit)).sum();
    assert_eq!(refused, 60);
}

#[test]
fn a_node_limit_counts_over_pools() {
    let mut world = World::started(|parts| {
        let node = Node {
            id: NodeId(0),
            address: address("10.1.0.11"),
            ratio: 1,
            connection_limit: 2,
            rate_limit: 0,
        };
        parts.nodes.push(node);
        parts.pools[0].members.truncate(1);
        parts.pools[0].members[0].node = NodeId(0);
        parts.pools[2].members[0].node = NodeId(0);
    });
    send(&mut world, EXTERNAL, &syn(1));
    world.send(EXTERNAL, &datagram(2));
    world.send(EXTERNAL, &datagram(3));
    send(&mut world, EXTERNAL, &syn(4));
    assert_eq!((world.flows().len(), world.drops(DropReason::MembersFull)), (2, 2));
}

#[test]
fn new_connections_over_the_rate_are_refused() {
    let mut world = World::started(|parts| parts.virtuals[0].rate_limit = 5);
    for port in 0..20 {
        send(&mut world, EXTERNAL, &syn(2_000 + port));
    }
    assert_eq!((world.flows().len(), world.drops(DropReason::ConnectionRate)), (5, 15));
    world.run(1_000);
    for port in 0..20 {
        send(&mut world, EXTERNAL, &syn(3_000 + port));
    }
    assert_eq!(world.flows().len(), 10);
}

#[test]
fn members_over_their_rate_leave_connections_to_the_others() {
    let mut world = World::started(|parts| parts.pools[0].members[0].rate_limit = 2);
    let picks: Vec<String> =
        (0..10).map(|port| only(&send(&mut world, EXTERNAL, &syn(2_000 + port))).dst.0).collect();
    assert_eq!(picks.iter().filter(|member| *member == "10.1.0.11").count(), 2, "{picks:?}");
}

// Queues.

fn one_at_a_time(parts: &mut Parts) {
    parts.pools[0].members.truncate(1);
    parts.pools[0].members[0].connection_limit = 1;
    parts.pools[0].queue = Some(Queue { depth: 2, time_ms: 3_000 });
}

#[test]
fn a_queued_connection_goes_on_when_a_member_is_free() {
    let mut world = World::started(one_at_a_time);
    establish(&mut world, 2_000);
    assert_eq!(send(&mut world, EXTERNAL, &syn(2_001)), []);
    assert_eq!(send(&mut world, EXTERNAL, &syn(2_001)), [], "asks again while it waits");
    assert_eq!(world.drops(DropReason::QueuedAlready), 1);
    // The first one is reset by its client: over at once, though its flow is remembered for a while.
    let out = send(&mut world, EXTERNAL, &Tcp { flags: RST, seq: 1_001, ..syn(2_000) });
    let seen: Vec<Seen> = out.iter().chain(&world.run(1)).map(see).collect();
    assert_eq!(seen.iter().map(|seen| seen.flags).collect::<Vec<_>>(), [RST, SYN]);
    assert_eq!((world.open_connections(0), world.flows().len()), (1, 2));
    // Its member's late word does not count again, and its end is not counted twice.
    world.run(6_000);
    assert_eq!(world.open_connections(0), 0, "the other one was never answered");
}

#[test]
fn a_queue_is_bounded_in_depth_and_time() {
    let mut world = World::started(one_at_a_time);
    establish(&mut world, 2_000);
    for port in 2_001..2_004 {
        let out = send(&mut world, EXTERNAL, &syn(port));
        assert_eq!(out.len(), usize::from(port == 2_003), "two wait, the third is refused");
    }
    assert_eq!(world.drops(DropReason::MembersFull), 1);
    let refused = world.run(3_100);
    assert!(refused.iter().all(|out| see(out).flags == RST | ACK), "{refused:?}");
    assert_eq!((refused.len(), world.drops(DropReason::QueueTimeout)), (2, 2));
}

// Members that do not answer.

#[test]
fn a_refused_connection_is_tried_at_another_member_unseen_by_the_client() {
    let mut world = World::started(|parts| parts.pools[0].reselect_tries = 1);
    let first = only(&send(&mut world, EXTERNAL, &syn(2_000)));
    assert_eq!(first.dst.0, "10.1.0.11");
    let second = only(&world.send(INTERNAL, &from_member(11, first.src.1, RST | ACK, 1_001)));
    assert_eq!((second.port, second.dst.0.as_str(), second.flags), (INTERNAL, "10.1.0.12", SYN));
    assert_eq!(second.seq, 1_000);
    assert_eq!((world.drops(DropReason::Reselected), world.open_connections(0)), (1, 1));
    // The other refuses as well: that the client hears.
    let end = only(&world.send(INTERNAL, &from_member(12, second.src.1, RST | ACK, 1_001)));
    assert_eq!((end.port, end.flags, end.dst.1), (EXTERNAL, RST | ACK, 2_000));
}

#[test]
fn a_silent_member_is_left_at_the_next_syn_and_an_answer_ends_the_search() {
    let mut world = World::started(|parts| parts.pools[0].reselect_tries = 3);
    assert_eq!(only(&send(&mut world, EXTERNAL, &syn(2_000))).dst.0, "10.1.0.11");
    assert_eq!(only(&send(&mut world, EXTERNAL, &syn(2_000))).dst.0, "10.1.0.11", "a duplicate");
    world.run(1_000);
    let again = only(&send(&mut world, EXTERNAL, &syn(2_000)));
    assert_eq!(again.dst.0, "10.1.0.12");
    assert_eq!(world.send(INTERNAL, &from_member(12, again.src.1, SYN | ACK, 1_001)).len(), 1);
    let reset = only(&world.send(INTERNAL, &from_member(12, again.src.1, RST | ACK, 1_001)));
    assert_eq!(reset.port, EXTERNAL, "an answer was there: no more tries");
}

#[test]
fn service_down_actions() {
    for action in [ServiceDownAction::None, ServiceDownAction::Drop, ServiceDownAction::Reset] {
        let mut world = World::started(|parts| parts.pools[0].service_down_action = action);
        assert_eq!((establish(&mut world, 2_000), establish(&mut world, 2_001)), (11, 12));
        world.members.set(MemberId(0), MemberState::Offline);
        let out = world.run(50);
        let flows = world.flows().len();
        match action {
            ServiceDownAction::None => assert_eq!((out.len(), flows), (0, 2)),
            ServiceDownAction::Drop => assert_eq!((out.len(), flows), (0, 1)),
            _ => {
                let mut ports: Vec<PortId> = out.iter().map(|out| out.port).collect();
                ports.sort_unstable();
                assert_eq!((flows, ports), (1, vec![EXTERNAL, INTERNAL]));
                assert!(out.iter().all(|out| see(out).flags & RST != 0));
            }
        }
        world.members.set(MemberId(0), MemberState::Enabled);
        world.run(50);
        assert_eq!(world.flows().len(), flows, "coming back does nothing");
    }
}

#[test]
fn the_client_of_a_udp_flow_hears_that_its_member_went_down() {
    let mut world = World::started(|parts| parts.pools[2].service_down_action = ServiceDownAction::Reset);
    world.send(EXTERNAL, &datagram(2_000));
    world.members.set(MemberId(4), MemberState::Offline);
    let out = world.run(50);
    assert_eq!((out.len(), out[0].port, world.flows().len()), (1, EXTERNAL, 0));
    // Port unreachable, quoting a datagram of the client's to the virtual server.
    let icmp = &out[0].bytes[34..];
    assert_eq!((icmp[0], icmp[1]), (3, 3));
    assert_eq!(
        (&icmp[8 + 12..8 + 16], &icmp[8 + 20..8 + 24]),
        (&[198, 51, 100, 7][..], &[7, 208, 0, 53][..])
    );
}

#[test]
fn reselect_moves_flows_to_another_member() {
    let mut world = World::started(|parts| parts.pools[0].service_down_action = ServiceDownAction::Reselect);
    assert_eq!(establish(&mut world, 2_000), 11);
    world.members.set(MemberId(0), MemberState::Offline);
    assert_eq!(world.run(50), []);
    let data = Tcp { flags: ACK, seq: 1_001, ack: 5_001, payload: b"on", ..syn(2_000) };
    assert_eq!(only(&send(&mut world, EXTERNAL, &data)).dst.0, "10.1.0.12");
    assert_eq!((world.flows().len(), world.open_connections(0)), (1, 1));
    let of = |id| world.counters.of_member(MemberId(id)).unwrap().connections.current.load();
    assert_eq!((of(0), of(1)), (0, 1));
}

// Translation.

#[test]
fn a_snat_list_chooses_by_the_clients_network() {
    let mut world = World::started(|parts| {
        let rows = vec![
            (prefix("198.51.0.0/16"), Snat::Automap),
            (prefix("198.51.100.0/24"), Snat::Pool(0)),
            (prefix("203.0.113.0/24"), Snat::None),
        ];
        parts.snat_lists.push(SnatList { name: "egress".into(), rows });
        parts.virtuals[0].snat = Snat::List(0);
    });
    let source =
        |world: &mut World, src: &str| only(&send(world, EXTERNAL, &Tcp { src, ..syn(2_000) })).src.0;
    assert_eq!(source(&mut world, "198.51.100.7"), "10.1.0.50");
    assert_eq!(source(&mut world, "198.51.7.7"), SELF_IN);
    assert_eq!(source(&mut world, "203.0.113.9"), "203.0.113.9");
    assert_eq!(source(&mut world, "192.88.1.1"), "192.88.1.1", "in no row");
}

#[test]
fn a_strictly_preserved_port_is_kept_or_the_connection_refused() {
    let mut world = World::started(|parts| {
        parts.virtuals[0].source_port = SourcePort::PreserveStrict;
        parts.pools[0].members.truncate(1);
    });
    assert_eq!(only(&send(&mut world, EXTERNAL, &syn(2_000))).src.1, 2_000);
    let other = Tcp { src: "198.51.100.8", ..syn(2_000) };
    assert_eq!(only(&send(&mut world, EXTERNAL, &other)).flags, RST | ACK);
    assert_eq!(world.drops(DropReason::SnatPortTaken), 1);
}

#[test]
fn a_strictly_preserved_port_may_be_used_again_at_once() {
    let mut world = World::started(|parts| {
        parts.virtuals[0].source_port = SourcePort::PreserveStrict;
        parts.pools[0].members.truncate(1);
    });
    for turn in 0..3 {
        assert_eq!(only(&send(&mut world, EXTERNAL, &syn(2_000))).src.1, 2_000, "turn {turn}");
        let refusal = Tcp {
            src_mac: member_mac(11),
            dst_mac: INTERNAL_MAC,
            src: "10.1.0.11",
            dst: SELF_IN,
            src_port: 8080,
            dst_port: 2_000,
            flags: RST | ACK,
            seq: 0,
            ack: syn(2_000).seq + 1,
            ..Tcp::default()
        };
        assert_eq!(only(&send(&mut world, INTERNAL, &refusal)).flags, RST | ACK);
    }
}

fn with_nat(parts: &mut Parts) {
    parts.nats.push(Nat {
        name: "host".into(),
        origin: address("10.1.0.13"),
        translation: address("192.0.2.60"),
        ingress: Ingress::Any,
    });
}

#[test]
fn one_to_one_translation_lets_others_in() {
    let mut world = World::started(with_nat);
    let seen = only(&send(&mut world, EXTERNAL, &Tcp { dst: "192.0.2.60", dst_port: 22, ..syn(2_000) }));
    assert_eq!((seen.src, seen.dst), (("198.51.100.7".into(), 2_000), ("10.1.0.13".into(), 22)));
    let reply = Tcp {
        src_mac: member_mac(13),
        dst_mac: INTERNAL_MAC,
        src: "10.1.0.13",
        dst: CLIENT,
        src_port: 22,
        dst_port: 2_000,
        flags: SYN | ACK,
        ack: 1_001,
        ..Tcp::default()
    };
    let back = only(&send(&mut world, INTERNAL, &reply));
    assert_eq!((back.src, back.dst_mac), (("192.0.2.60".into(), 22), CLIENT_MAC));
}

#[test]
fn one_to_one_translation_lets_the_host_out() {
    let mut world = World::started(with_nat);
    let out = Tcp {
        src_mac: member_mac(13),
        dst_mac: INTERNAL_MAC,
        src: "10.1.0.13",
        dst: CLIENT,
        src_port: 2_000,
        dst_port: 443,
        flags: SYN,
        ..Tcp::default()
    };
    world.send(EXTERNAL, &arp(2, CLIENT_MAC, "192.0.2.1", "192.0.2.10"));
    send(&mut world, INTERNAL, &out);
    world.send(EXTERNAL, &arp(2, CLIENT_MAC, "192.0.2.1", "192.0.2.10"));
    let flows = world.flows();
    assert_eq!((flows[0].source.0, flows[0].member.0), (address("192.0.2.60"), address(CLIENT)));
    let back = Tcp { dst: "192.0.2.60", dst_port: 2_000, flags: SYN | ACK, ..syn(443) };
    let seen = only(&send(&mut world, EXTERNAL, &back));
    assert_eq!((seen.dst, seen.dst_mac), (("10.1.0.13".into(), 2_000), member_mac(13)));
}

#[test]
fn a_host_goes_out_by_its_own_translation_and_its_neighbors_by_that_of_all() {
    let mut world = World::started(|parts| {
        with_nat(parts);
        with_egress(parts);
    });
    world.send(EXTERNAL, &arp(1, CLIENT_MAC, "192.0.2.1", "192.0.2.10"));
    for (host, seen_as) in [(13, "192.0.2.60"), (11, "192.0.2.10")] {
        let host_address = format!("10.1.0.{host}");
        let syn = Tcp {
            src_mac: member_mac(host),
            dst_mac: INTERNAL_MAC,
            src: &host_address,
            dst: CLIENT,
            src_port: 2_000,
            dst_port: 25,
            flags: SYN,
            ..Tcp::default()
        };
        assert_eq!(only(&send(&mut world, INTERNAL, &syn)).src.0, seen_as);
    }
}

/// A client's SYN to port 22 of the host that [`with_nat`] translates, and the host's answer.
fn through_nat(port: u16) -> (Tcp<'static>, Tcp<'static>) {
    let inward = Tcp { dst: "192.0.2.60", dst_port: 22, ..syn(port) };
    let reply = Tcp {
        src_mac: member_mac(13),
        dst_mac: INTERNAL_MAC,
        src: "10.1.0.13",
        dst: CLIENT,
        src_port: 22,
        dst_port: port,
        flags: SYN | ACK,
        ack: 1_001,
        ..Tcp::default()
    };
    (inward, reply)
}

#[test]
fn both_directions_of_a_one_to_one_translation_meet_at_one_worker() {
    let mut parts = usual();
    with_nat(&mut parts);
    let mut worlds = World::several(4, Limits { flows: 256, frames: 64, ..Limits::default() }, &parts);
    worlds.iter_mut().for_each(World::start);
    for port in 2_000..2_032 {
        let (inward, reply) = through_nat(port);
        // Each arrives at a worker that need not own it.
        let entry = usize::from(port) % 4;
        assert_eq!(only(&send_at(&mut worlds, entry, EXTERNAL, &inward)).dst.0, "10.1.0.13");
        assert_eq!(only(&send_at(&mut worlds, 3 - entry, INTERNAL, &reply)).src.0, "192.0.2.60");
    }
}

/// Sends a frame into one worker's queue and lets every worker take its strays.
fn send_at(worlds: &mut [World], at: usize, port: PortId, tcp: &Tcp) -> Vec<Out> {
    let mut out = send(&mut worlds[at], port, tcp);
    out.extend(worlds.iter_mut().flat_map(|world| world.run(0)));
    out
}

// Stateless.

#[test]
fn a_stateless_virtual_server_balances_every_datagram_and_keeps_nothing() {
    let mut world = World::started(|parts| {
        parts.virtuals[2].kind = VirtualKind::Stateless;
        parts.virtuals[2].snat = Snat::None;
        parts.pools[2].members.push(member(5, "10.1.0.12", 5353));
    });
    let picks: Vec<_> = (0..4).map(|_| only(&world.send(EXTERNAL, &datagram(2_000)))).collect();
    let members: Vec<&str> = picks.iter().map(|seen| seen.dst.0.as_str()).collect();
    assert_eq!(members, ["10.1.0.11", "10.1.0.12", "10.1.0.11", "10.1.0.12"]);
    assert_eq!((picks[0].src.clone(), picks[0].ttl), ((CLIENT.into(), 2_000), 63));
    assert_eq!((world.flows().len(), world.open_connections(2)), (0, 0));
    world.members.set(MemberId(4), MemberState::Offline);
    world.members.set(MemberId(5), MemberState::Offline);
    world.send(EXTERNAL, &datagram(2_000));
    assert_eq!(world.drops(DropReason::NoMember), 1);
}

#[test]
fn a_stateless_datagram_waits_for_a_member_that_is_not_known_yet() {
    let mut world = World::started(|parts| {
        parts.virtuals[2].kind = VirtualKind::Stateless;
        parts.virtuals[2].snat = Snat::None;
        parts.pools[2].members = vec![member(5, "10.1.0.99", 5353)];
        assert_eq!(parts.virtuals[2].matches[0].protocol, Protocol::Udp);
    });
    world.send(EXTERNAL, &datagram(2_000));
    let out = world.send(INTERNAL, &arp(2, member_mac(99), "10.1.0.99", SELF_IN));
    let seen = out.iter().map(see).find(|seen| seen.dst.0 == "10.1.0.99").expect("the datagram");
    assert_eq!(seen.dst_mac, member_mac(99));
}

// Pings.

/// An echo message from `src` to `dst`: type, identifier.
fn echo(
    from: (sluice_dataplane::address::Mac, &str),
    to: (sluice_dataplane::address::Mac, &str),
    kind: u8,
    id: u16,
) -> Vec<u8> {
    use sluice_dataplane::packet::rewrite::LinkHeader;
    let link = LinkHeader { destination: to.0, source: from.0, vlan: 0 };
    let mut message = vec![kind, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend([0, 7, 1, 2, 3, 4]);
    build::packet(link, from.1, to.1, 64, if to.1.contains(':') { 58 } else { 1 }, &message, 2)
}

/// Source, destination, type and identifier of an echo message over IPv4 whose checksum is right.
fn see_echo(out: &Out) -> (String, String, u8, u16) {
    let octets = |at: usize| {
        sluice_dataplane::address::Address::v4(out.bytes[at..at + 4].try_into().expect("four bytes"))
    };
    let total = sluice_dataplane::packet::checksum::sum(&out.bytes[34..]);
    assert_eq!(sluice_dataplane::packet::checksum::fold(total), 0xffff);
    let id = u16::from_be_bytes([out.bytes[38], out.bytes[39]]);
    (octets(26).to_string(), octets(30).to_string(), out.bytes[34], id)
}

fn with_egress(parts: &mut Parts) {
    let mut egress = virtual_server(9, "0.0.0.0/0", 0, Protocol::Any, 0);
    (egress.kind, egress.pool, egress.snat) = (VirtualKind::ForwardingIp, None, Snat::Automap);
    parts.virtuals.push(egress);
}

#[test]
fn pings_pass_a_forwarding_virtual_server_translated_and_back() {
    let mut world = World::started(with_egress);
    let request = echo((member_mac(13), "10.1.0.13"), (INTERNAL_MAC, CLIENT), 8, 500);
    world.send(INTERNAL, &request);
    let out = world.send(EXTERNAL, &arp(2, CLIENT_MAC, "192.0.2.1", "192.0.2.10"));
    let (src, dst, kind, id) = see_echo(out.last().expect("the request"));
    assert_eq!((src.as_str(), dst.as_str(), kind), ("192.0.2.10", CLIENT, 8));
    assert_eq!(id, 500, "kept where it is free");
    let reply = echo((CLIENT_MAC, CLIENT), (EXTERNAL_MAC, "192.0.2.10"), 0, id);
    let back = world.send(INTERNAL, &[0; 60]);
    assert_eq!(back, []);
    let back = world.send(EXTERNAL, &reply);
    assert_eq!(see_echo(&back[0]), (CLIENT.into(), "10.1.0.13".into(), 0, 500));
    // A reply to nothing is dropped, and a request to our own address answered by us.
    world.send(EXTERNAL, &echo((CLIENT_MAC, CLIENT), (EXTERNAL_MAC, "192.0.2.10"), 0, id ^ 1));
    assert_eq!(world.drops(DropReason::UnwantedIcmp), 1);
    let own = world.send(EXTERNAL, &echo((CLIENT_MAC, CLIENT), (EXTERNAL_MAC, "192.0.2.10"), 8, 1));
    assert_eq!(see_echo(&own[0]), ("192.0.2.10".into(), CLIENT.into(), 0, 1));
}

#[test]
fn pings_reach_the_host_behind_a_one_to_one_translation() {
    let mut parts = usual();
    with_nat(&mut parts);
    let mut worlds = World::several(2, Limits { flows: 64, frames: 64, ..Limits::default() }, &parts);
    worlds.iter_mut().for_each(World::start);
    let mut send = |at: usize, port: PortId, bytes: &[u8]| {
        let mut out = worlds[at].send(port, bytes);
        out.extend(worlds.iter_mut().flat_map(|world| world.run(0)));
        out
    };
    let request = echo((CLIENT_MAC, CLIENT), (EXTERNAL_MAC, "192.0.2.60"), 8, 77);
    assert_eq!(see_echo(&send(1, EXTERNAL, &request)[0]), (CLIENT.into(), "10.1.0.13".into(), 8, 77));
    let reply = echo((member_mac(13), "10.1.0.13"), (INTERNAL_MAC, CLIENT), 0, 77);
    assert_eq!(see_echo(&send(1, INTERNAL, &reply)[0]), ("192.0.2.60".into(), CLIENT.into(), 0, 77));
}

#[test]
fn replies_of_a_one_to_one_translation_find_their_flow_beside_an_egress_virtual_server() {
    let mut parts = usual();
    with_nat(&mut parts);
    with_egress(&mut parts);
    let mut worlds = World::several(4, Limits { flows: 256, frames: 64, ..Limits::default() }, &parts);
    worlds.iter_mut().for_each(World::start);
    for port in 2_000..2_032 {
        let (inward, reply) = through_nat(port);
        let entry = usize::from(port) % 4;
        assert_eq!(only(&send_at(&mut worlds, entry, EXTERNAL, &inward)).dst.0, "10.1.0.13");
        let mut out = send_at(&mut worlds, (entry + 1) % 4, INTERNAL, &reply);
        out.extend(worlds.iter_mut().flat_map(|world| world.run(0)));
        assert_eq!(only(&out).src.0, "192.0.2.60", "port {port}");
    }
}
