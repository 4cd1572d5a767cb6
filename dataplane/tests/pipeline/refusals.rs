//! What is refused, and how; connection limits and the end of a drain.

use sluice_dataplane::config::ids::VirtualId;
use sluice_dataplane::config::snapshot::{Parts, Snat, VirtualKind};
use sluice_dataplane::limits::Limits;
use sluice_dataplane::packet::build::{self, Tcp, Udp, address};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, FIN, RST, SYN};
use sluice_dataplane::packet::rewrite::LinkHeader;
use sluice_dataplane::verdict::DropReason;

use crate::world::*;
use crate::{echo, establish, from_member, send, syn};

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

fn one_at_a_time() -> World {
    World::started(|parts| {
        parts.pools[0].members.pop();
        parts.virtuals[0].connection_limit = 1;
    })
}

/// Whether another connection finds a place.
fn another_opens(world: &mut World, src_port: u16) -> bool {
    let refused = world.drops(DropReason::ConnectionLimit);
    send(world, EXTERNAL, &Tcp { src_port, ..syn() });
    world.drops(DropReason::ConnectionLimit) == refused
}

/// A member believes a RST only if its number is exact (RFC 5961 section 3.2); until then the connection may go on.
#[test]
fn a_reset_that_nobody_believes_frees_no_place() {
    let mut world = one_at_a_time();
    let from_client = |flags, seq| Tcp { flags, seq, ack: 5_001, ..syn() };
    send(&mut world, EXTERNAL, &syn());
    send(&mut world, EXTERNAL, &from_client(RST, 1_001 - 500));
    assert!(!another_opens(&mut world, 2_000), "half-open");
    send(&mut world, INTERNAL, &from_member(SYN | ACK, 5_000, 1_001));
    send(&mut world, EXTERNAL, &from_client(ACK, 1_001));
    send(&mut world, EXTERNAL, &from_client(RST, 1_001 - 500));
    assert_eq!(world.flows()[0].state, "resetting");
    assert!(!another_opens(&mut world, 2_001), "open");
    send(&mut world, EXTERNAL, &from_client(RST, 1_001));
    assert_eq!((world.flows()[0].state, world.open_connections(0)), ("closing", 0));
    assert!(another_opens(&mut world, 2_002));
}

#[test]
fn a_connection_that_goes_on_after_its_end_needs_a_place_again() {
    let mut world = one_at_a_time();
    establish(&mut world);
    let more = Tcp { flags: ACK, seq: 1_001, ack: 5_001, payload: b"more", ..syn() };
    send(&mut world, EXTERNAL, &Tcp { flags: RST, seq: 1_001, ..syn() });
    assert!(another_opens(&mut world, 2_000));
    for _ in 0..2 {
        assert_eq!(send(&mut world, EXTERNAL, &more), []);
    }
    assert_eq!((world.drops(DropReason::ConnectionLimit), world.open_connections(0)), (2, 1));
    assert_eq!(
        send(&mut world, EXTERNAL, &Tcp { src_port: 2_000, flags: RST, seq: 1_001, ..syn() }).len(),
        1
    );
    assert_eq!(send(&mut world, EXTERNAL, &more)[0].port, INTERNAL);
    assert_eq!(world.open_connections(0), 1);
    assert!(!another_opens(&mut world, 2_001));
}

/// What a client says far beyond what its member takes moves the number that is expected here; the member ignores the RST.
#[test]
fn a_reset_far_ahead_frees_no_place_for_long() {
    let mut world = one_at_a_time();
    establish(&mut world);
    let from_client = |flags, seq, payload| Tcp { flags, seq, ack: 5_001, payload, ..syn() };
    let far = 1_001 + (1 << 29);
    send(&mut world, EXTERNAL, &from_client(ACK, far, b"x"));
    send(&mut world, EXTERNAL, &from_client(RST, far + 1, b""));
    assert!(another_opens(&mut world, 2_000));
    for payload in [&b""[..], b"data"] {
        assert_eq!(send(&mut world, EXTERNAL, &from_client(ACK, 1_001, payload)), []);
    }
    assert_eq!((world.drops(DropReason::ConnectionLimit), world.open_connections(0)), (2, 1));
}

/// The client's FIN may be one that the member has not had.
#[test]
fn a_closed_connection_frees_its_place_when_the_member_has_had_the_clients_fin() {
    for (seq, is_real) in [(1_001 + (1 << 29), false), (1_001, true)] {
        let mut world = one_at_a_time();
        establish(&mut world);
        send(&mut world, INTERNAL, &from_member(FIN | ACK, 5_001, 1_001));
        send(&mut world, EXTERNAL, &Tcp { flags: FIN | ACK, seq, ack: 5_002, ..syn() });
        assert_eq!((world.flows()[0].state, world.open_connections(0)), ("last-ack", 1));
        send(&mut world, INTERNAL, &from_member(ACK, 5_002, if is_real { 1_002 } else { 1_001 }));
        assert_eq!(world.open_connections(0), u64::from(!is_real));
        assert_eq!(another_opens(&mut world, 2_000), is_real);
    }
}

#[test]
fn nobody_goes_on_in_a_connection_that_was_reset_before_it_was_open() {
    let mut world = one_at_a_time();
    send(&mut world, EXTERNAL, &syn());
    assert_eq!(send(&mut world, EXTERNAL, &Tcp { flags: RST, seq: 1_001, ..syn() }).len(), 1);
    assert_eq!(send(&mut world, INTERNAL, &from_member(SYN | ACK, 5_000, 1_001)).len(), 1, "asks again");
    for payload in [&b""[..], b"data"] {
        assert_eq!(
            send(&mut world, EXTERNAL, &Tcp { flags: ACK, seq: 1_001, ack: 5_001, payload, ..syn() }),
            []
        );
    }
    assert_eq!((world.drops(DropReason::NoFlow), world.open_connections(0)), (2, 0));
    assert_eq!(only(&send(&mut world, EXTERNAL, &syn())).flags, SYN);
    assert_eq!((world.flows()[0].state, world.open_connections(0)), ("syn-sent", 1));
}

/// Our own towards servers, those of all hosts of our subnets, and the one that is asked for.
#[test]
fn nobody_else_has_our_addresses() {
    let mut world = World::started(|_| ());
    let sources = ["192.0.2.10", "192.0.2.255", "192.0.2.0", VIRTUAL];
    for (count, src) in sources.into_iter().enumerate() {
        assert_eq!(send(&mut world, EXTERNAL, &Tcp { src, ..syn() }), [], "{src}");
        assert_eq!(world.drops(DropReason::MartianSource), count as u64 + 1, "{src}");
    }
    for src in ["192.0.2.255", "192.0.2.10"] {
        assert_eq!(world.send(EXTERNAL, &echo(src, VIRTUAL, 8)), []);
    }
    assert_eq!((world.drops(DropReason::MartianSource), world.flows().len()), (6, 0));
    // What we have sent to servers may come back through a firewall behind them.
    for src in ["10.1.0.10", "10.1.0.50"] {
        assert_eq!(send(&mut world, EXTERNAL, &Tcp { src, ..syn() })[0].port, INTERNAL, "{src}");
    }
}

#[test]
fn a_host_of_a_wider_subnet_may_have_an_address_that_a_narrower_one_gives_to_all() {
    let mut world = World::started(|parts| parts.self_ips.push(self_ip("192.0.3.10/22", OUTSIDE)));
    let from = |src| Tcp { src, ..syn() };
    assert_eq!(send(&mut world, EXTERNAL, &from("192.0.2.255"))[0].port, INTERNAL);
    for all in ["192.0.0.0", "192.0.3.255"] {
        assert_eq!(send(&mut world, EXTERNAL, &from(all)), []);
    }
    assert_eq!(world.drops(DropReason::MartianSource), 2);
}

/// RFC 4291 section 2.5.6.
#[test]
fn a_link_local_client_is_not_shown_to_another_link() {
    let mut world = World::started(|parts| parts.virtuals[1].snat = Snat::None);
    let asked = Tcp { src: "fe80::7", dst: VIRTUAL6, ..syn() };
    let out = send(&mut world, EXTERNAL, &asked);
    assert!(out.iter().all(|out| out.port == EXTERNAL), "{out:?}");
    assert_eq!((world.drops(DropReason::MartianSource), world.flows().len()), (1, 0));
    let mut world = World::started(|_| ());
    assert_eq!(send(&mut world, EXTERNAL, &asked)[0].port, INTERNAL, "behind SNAT it may");
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
