//! Pings larger than the MTU: those that pass through a flow, and those to us, which are put together and answered.

use sluice_dataplane::config::ids::LinkId;
use sluice_dataplane::config::snapshot::{Ingress, Nat, Parts, Protocol, Snat, VirtualKind};
use sluice_dataplane::fragment::table::{PARTS_MAX, WAITING_EACH_MAX, WAITING_MAX};
use sluice_dataplane::packet::build::{self, address};
use sluice_dataplane::packet::rewrite::LinkHeader;
use sluice_dataplane::verdict::DropReason;

use crate::world::*;
use crate::{MTU, id_of, payload, spread, workers};

/// Pings that pass through: everything forwarded, with SNAT or without, or by another address of a host.
fn passing(snat: Snat) -> impl FnOnce(&mut Parts) {
    move |parts| {
        for (id, everything) in [(4, "0.0.0.0/0"), (5, "::/0")] {
            let mut forward = virtual_server(id, everything, 0, Protocol::Any, 0);
            (forward.kind, forward.pool, forward.snat) = (VirtualKind::ForwardingIp, None, snat);
            parts.virtuals.push(forward);
        }
    }
}

/// An echo message of `kind` in fragments: from the client's link to the member's, or back.
fn echo(kind: u8, src: &str, dst: &str, identifier: u16, data: &[u8]) -> Vec<Vec<u8>> {
    let link = match kind {
        8 | 128 => LinkHeader { source: CLIENT_MAC, destination: EXTERNAL_MAC, vlan: 0 },
        _ => LinkHeader { source: member_mac(11), destination: INTERNAL_MAC, vlan: 0 },
    };
    let [high, low] = identifier.to_be_bytes();
    let message = [&[kind, 0, 0, 0, high, low, 0, 1], data].concat();
    let protocol = if dst.contains(':') { 58 } else { 1 };
    build::fragments(&build::packet(link, src, dst, 64, protocol, &message, 2), MTU, 7)
}

/// Source, destination and identifier of the echo message that the frames are, its checksum proven, and its data.
fn whole_echo(out: &[Out]) -> (String, String, u16, Vec<u8>) {
    let pieces: Vec<_> = out.iter().map(|out| out.bytes.clone()).collect();
    assert!(pieces.len() > 1, "in fragments");
    let bytes = build::reassemble(&pieces);
    let seen = see(&Out { port: out[0].port, bytes: bytes.clone() });
    let at = if bytes[14] >> 4 == 4 { 34 } else { 54 };
    let identifier = u16::from_be_bytes([bytes[at + 4], bytes[at + 5]]);
    (seen.src.0, seen.dst.0, identifier, bytes[at + 8..].to_vec())
}

#[test]
fn large_pings_pass_both_ways_over_any_number_of_workers() {
    for (count, snat) in [(1, Snat::None), (3, Snat::None), (1, Snat::Automap), (3, Snat::Automap)] {
        let (mut workers, mut turn) = (workers(count, passing(snat)), 0);
        for (v6, bytes) in [(false, 4_000), (true, 4_000), (false, 20_000), (true, 1_500)] {
            let (client, member) = if v6 { (CLIENT6, "2001:db8:2::11") } else { (CLIENT, "10.1.0.11") };
            let (data, identifier) = (payload(bytes), 0x700 + bytes as u16);
            let mut request = echo(if v6 { 128 } else { 8 }, client, member, identifier, &data);
            if bytes == 20_000 {
                request.reverse();
            }
            let sent = spread(&mut workers, EXTERNAL, &request, &mut turn);
            let (src, dst, sent_id, arrived) = whole_echo(&sent);
            assert_eq!((dst.as_str(), &arrived), (member, &data), "{bytes} bytes, {count} workers");
            assert_eq!(src == client && sent_id == identifier, snat == Snat::None);
            let reply = echo(if v6 { 129 } else { 0 }, member, &src, sent_id, &data);
            let back = whole_echo(&spread(&mut workers, INTERNAL, &reply, &mut turn));
            assert_eq!(back, (member.to_owned(), client.to_owned(), identifier, data));
        }
        let drops: Vec<_> = workers.iter().map(World::all_drops).collect();
        assert!(drops.iter().all(Vec::is_empty), "{drops:?}");
    }
}

#[test]
fn large_pings_reach_a_host_by_its_other_address() {
    let mut world = World::started(|parts| {
        parts.nats.push(Nat {
            name: "mail".into(),
            origin: address("10.1.0.11"),
            translation: address("192.0.2.25"),
            ingress: Ingress::Any,
        });
    });
    let data = payload(4_000);
    let request = echo(8, CLIENT, "192.0.2.25", 9, &data);
    let out: Vec<_> = request.iter().flat_map(|frame| world.send(EXTERNAL, frame)).collect();
    assert_eq!(whole_echo(&out), (CLIENT.to_owned(), "10.1.0.11".to_owned(), 9, data.clone()));
    let reply = echo(0, "10.1.0.11", CLIENT, 9, &data);
    let out: Vec<_> = reply.iter().flat_map(|frame| world.send(INTERNAL, frame)).collect();
    assert_eq!(whole_echo(&out), ("192.0.2.25".to_owned(), CLIENT.to_owned(), 9, data));
    assert_eq!(world.all_drops(), []);
}

#[test]
fn other_icmp_does_not_pass_in_fragments() {
    let data = payload(4_000);
    let cases = [
        ("a redirect", echo(5, CLIENT, "10.1.0.13", 0, &data)),
        ("a timestamp request", echo(13, CLIENT, SELF_IN, 4, &data)),
        ("a router solicitation", echo(133, CLIENT6, SELF_IN6, 4, &data)),
    ];
    for (what, frames) in cases {
        for turned in 0..3 {
            let mut world = World::started(passing(Snat::None));
            let mut frames = frames.clone();
            frames.iter_mut().for_each(|frame| frame[..6].copy_from_slice(&EXTERNAL_MAC.0));
            frames.rotate_left(turned);
            frames.iter().for_each(|frame| assert_eq!(world.send(EXTERNAL, frame), [], "{what}"));
            assert_eq!(world.all_drops(), [(DropReason::Fragment.name(), 3)], "{what}");
            assert!(world.flows().is_empty());
        }
    }
    let mut world = World::started(passing(Snat::None));
    let reply = echo(0, "10.1.0.11", CLIENT, 4, &data);
    reply.iter().for_each(|frame| assert_eq!(world.send(INTERNAL, frame), [], "nobody has asked"));
    assert_eq!(world.drops(DropReason::UnwantedIcmp), 1);
    assert_eq!(world.drops(DropReason::FragmentNoFlow), 2);
}

/// Requests to us that are larger than the MTU, by family: to a self IP and to a virtual address.
const TO_US: [(u8, &str, &str); 4] = [
    (8, CLIENT, "192.0.2.10"),
    (8, CLIENT, VIRTUAL),
    (128, CLIENT6, "2001:db8:1::10"),
    (128, CLIENT6, VIRTUAL6),
];

#[test]
fn large_pings_to_us_are_answered_in_fragments_by_any_number_of_workers() {
    for count in [1, 3] {
        let (mut workers, mut turn) = (workers(count, |_| ()), 0);
        for (kind, src, dst) in TO_US {
            let largest = if kind == 8 { 65_507 } else { 65_527 };
            for (number, bytes) in [1_600, 4_000, 30_000, largest].into_iter().enumerate() {
                let data = payload(bytes);
                let mut request = echo(kind, src, dst, 0x77, &data);
                match number {
                    0 => {}
                    1 => request.reverse(),
                    _ => request.rotate_left(number),
                }
                let out = spread(&mut workers, EXTERNAL, &request, &mut turn);
                assert!(out.iter().all(|out| (out.port, &out.bytes[..6]) == (EXTERNAL, &CLIENT_MAC.0[..])));
                let largest = if kind == 8 { MTU } else { 1_280 };
                assert!(out.iter().all(|out| out.bytes.len() <= 14 + largest), "what every link takes");
                let answer = whole_echo(&out);
                assert_eq!(answer, (dst.into(), src.into(), 0x77, data), "{bytes} bytes, {count} workers");
                let (at, reply) = if kind == 8 { (34, 0) } else { (62, 129) };
                assert_eq!((out[0].bytes[at], out[0].bytes[at + 1]), (reply, 0));
            }
        }
        assert!(workers.iter().all(|worker| worker.all_drops().is_empty()));
    }
}

#[test]
fn a_large_ping_on_a_vlan_is_answered_there() {
    let mut world = World::started(|parts| {
        let link = LinkId::new(EXTERNAL, 7);
        parts.self_ips.extend(["203.0.113.10/24", "2001:db8:7::10/64"].map(|address| self_ip(address, link)));
    });
    for (kind, src, dst) in [(8, "203.0.113.9", "203.0.113.10"), (128, "2001:db8:7::9", "2001:db8:7::10")] {
        let data = payload(4_000);
        let mut out = Vec::new();
        for mut frame in echo(kind, src, dst, 9, &data) {
            frame.splice(12..12, [0x81, 0, 0, 7]);
            out.extend(world.send(EXTERNAL, &frame));
        }
        for answer in &mut out {
            assert_eq!(answer.bytes.splice(12..16, []).collect::<Vec<_>>(), [0x81, 0, 0, 7]);
        }
        assert_eq!(whole_echo(&out), (dst.into(), src.into(), 9, data));
    }
    assert_eq!(world.all_drops(), []);
}

#[test]
fn a_ping_whose_fragments_come_by_two_ports_is_answered_where_the_first_came_from() {
    for (kind, src, dst) in TO_US {
        let mut world = World::started(|_| ());
        let data = payload(4_000);
        let frames = echo(kind, src, dst, 9, &data);
        for mut frame in frames[1..].iter().cloned() {
            frame[..6].copy_from_slice(&INTERNAL_MAC.0);
            assert_eq!(world.send(INTERNAL, &frame), []);
        }
        assert_eq!(whole_echo(&world.send(EXTERNAL, &frames[0])).3, data);
        let mut last = echo(kind, src, dst, 9, &data);
        last[2][..6].copy_from_slice(&INTERNAL_MAC.0);
        assert_eq!(world.send(EXTERNAL, &last[0]), []);
        assert_eq!(world.send(EXTERNAL, &last[1]), []);
        let out = world.send(INTERNAL, &last[2]);
        assert_eq!(world.all_drops(), []);
        assert!(out.iter().all(|out| out.port == EXTERNAL));
        assert_eq!(whole_echo(&out).3, data);
    }
}

#[test]
fn a_large_ping_in_one_frame_is_answered_in_fragments_even_if_it_has_a_fragment_header() {
    let mut world = World::started(|_| ());
    for (kind, src, dst) in TO_US {
        let frame = request_of(kind, src, dst);
        let atomic = (kind == 128).then(|| build::atomic(&frame, 5));
        for frame in [frame].into_iter().chain(atomic) {
            let out = world.send(EXTERNAL, &frame);
            assert!(out.iter().all(|out| out.bytes.len() <= 14 + MTU));
            assert_eq!(whole_echo(&out), (dst.into(), src.into(), 1, payload(4_000)));
        }
    }
}

#[test]
fn answers_to_two_pings_of_one_id_are_told_apart() {
    let mut world = World::started(|_| ());
    let mut ids = std::collections::HashSet::new();
    for (kind, src, dst) in TO_US {
        for _ in 0..2 {
            let request = echo(kind, src, dst, 1, &payload(3_000));
            let out: Vec<_> = request.iter().flat_map(|frame| world.send(EXTERNAL, frame)).collect();
            assert!(ids.insert((dst, id_of(&out[0]))), "{dst}");
        }
    }
}

#[test]
fn a_ping_that_fits_the_mtu_is_answered_whole() {
    let mut world = World::started(|_| ());
    let link = LinkHeader { source: CLIENT_MAC, destination: EXTERNAL_MAC, vlan: 0 };
    for (kind, src, dst) in TO_US {
        let message = [&[kind, 0, 0, 0, 0, 7, 0, 1], &payload(1_200)[..]].concat();
        let echo = build::packet(link, src, dst, 64, if kind == 8 { 1 } else { 58 }, &message, 2);
        let out: Vec<_> =
            build::fragments(&echo, 600, 9).iter().flat_map(|frame| world.send(EXTERNAL, frame)).collect();
        let answer = see(&out[0]);
        assert_eq!((out.len(), answer.src.0.as_str(), answer.dst.0.as_str(), answer.ttl), (1, dst, src, 64));
        assert_eq!(out[0].bytes.len(), echo.len());
    }
    assert_eq!(world.all_drops(), []);
}

#[test]
fn a_large_ping_that_overlaps_or_is_late_is_not_answered() {
    for (kind, src, dst) in TO_US {
        let request = echo(kind, src, dst, 1, &payload(4_000));
        let mut world = World::started(|_| ());
        assert_eq!(world.send(EXTERNAL, &request[0]), []);
        let overlap = build::fragment(&request_of(kind, src, dst), 7, 1_400, true, &[9; 64]);
        assert_eq!(world.send(EXTERNAL, &overlap), []);
        request[1..].iter().for_each(|frame| assert_eq!(world.send(EXTERNAL, frame), [], "RFC 5722"));
        assert_eq!(world.all_drops(), [("fragment-overlap", 4)]);

        let mut world = World::started(|_| ());
        assert_eq!(world.send(EXTERNAL, &request[0]), []);
        assert_eq!(world.send(EXTERNAL, &request[1]), []);
        assert_eq!(world.run(2_100), []);
        assert_eq!(world.all_drops(), [("fragment-timeout", 2)]);
        assert_eq!(world.send(EXTERNAL, &request[2]), [], "it is another packet now");
    }
}

#[test]
fn large_pings_that_are_never_whole_are_bounded_and_others_go_on() {
    let mut world = World::started(|_| ());
    let (kind, src, dst) = TO_US[0];
    let frame = request_of(kind, src, dst);
    for id in 1_000..1_000 + PARTS_MAX.0 as u32 {
        assert_eq!(world.send(EXTERNAL, &build::fragment(&frame, id, 0, true, &frame[34..234])), []);
    }
    assert_eq!(world.all_drops(), []);
    let request = echo(kind, src, dst, 1, &payload(4_000));
    request.iter().for_each(|frame| assert_eq!(world.send(EXTERNAL, frame), []));
    assert_eq!(world.all_drops(), [("fragments-full", 3)]);
    let data = payload(4_000);
    let mut large = crate::cut(&crate::from_client(false, &data), 5);
    large.reverse();
    let out: Vec<_> = large.iter().flat_map(|frame| world.send(EXTERNAL, frame)).collect();
    assert_eq!(crate::whole(&out).1, data, "what passes has its room");
    assert_eq!(world.run_for(2_500), []);
    let out: Vec<_> = request.iter().flat_map(|frame| world.send(EXTERNAL, frame)).collect();
    assert_eq!(whole_echo(&out).3, data, "there is room again");
}

#[test]
fn a_large_ping_of_which_a_part_found_no_room_is_not_answered() {
    for (kind, src, dst) in TO_US {
        let mut world = World::started(|_| ());
        let flood = build::udp(&crate::from_client(false, &payload(60_000)));
        let part = |id, offset, more| build::fragment(&flood, id, offset, more, &[0; 64]);
        let ids = 1_000..1_000 + (WAITING_MAX / usize::from(WAITING_EACH_MAX)) as u32;
        for id in ids.clone() {
            (1..=usize::from(WAITING_EACH_MAX))
                .for_each(|at| drop(world.send(EXTERNAL, &part(id, at * 64, true))));
        }
        assert_eq!(world.all_drops(), []);
        let request = echo(kind, src, dst, 1, &payload(4_000));
        assert_eq!(world.send(EXTERNAL, &request[1]), []);
        assert_eq!(world.drops(DropReason::FragmentsFull), 1);
        ids.for_each(|id| drop(world.send(EXTERNAL, &part(id, 32, true))));
        assert_eq!(world.frames.in_use(), 0, "there is room again");
        assert_eq!(world.send(EXTERNAL, &request[2]), []);
        assert_eq!(world.send(EXTERNAL, &request[0]), [], "nobody is told what lay in the hole");
        assert_eq!(world.drops(DropReason::FragmentsFull), 3);
        assert_eq!(world.frames.in_use(), 0);
    }
}

#[test]
fn without_frame_memory_a_large_ping_is_dropped_and_counted() {
    use sluice_dataplane::limits::Limits;
    let limits = Limits { flows: 64, half_open: 64, frames: 2, ..Limits::default() };
    let mut world = World::with_limits(limits, |_| ());
    world.start();
    let before = world.drops(DropReason::NoFrame);
    let (kind, src, dst) = TO_US[0];
    for frame in echo(kind, src, dst, 1, &payload(4_000)) {
        world.send(EXTERNAL, &frame);
    }
    assert_eq!(world.drops(DropReason::NoFrame) - before, 2, "one piece was to be had");
}

/// A whole request, to make fragments of.
fn request_of(kind: u8, src: &str, dst: &str) -> Vec<u8> {
    let link = LinkHeader { source: CLIENT_MAC, destination: EXTERNAL_MAC, vlan: 0 };
    let message = [&[kind, 0, 0, 0, 0, 1, 0, 1], &payload(4_000)[..]].concat();
    build::packet(link, src, dst, 64, if kind == 8 { 1 } else { 58 }, &message, 2)
}
