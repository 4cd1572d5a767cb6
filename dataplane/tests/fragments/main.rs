//! Fragments through flows: datagrams larger than the MTU arrive whole at the other end, whatever their order and
//! wherever their fragments come in; what would break others is dropped and counted.

#![allow(unreachable_pub, reason = "one test binary")]

mod errors;
mod pings;
mod random;
#[path = "../world/mod.rs"]
mod world;

use sluice_dataplane::config::ids::{PoolId, PortId};
use sluice_dataplane::config::snapshot::{Parts, Pool, Protocol, Snat, SourcePort, VirtualKind};
use sluice_dataplane::fragment::table::{PACKETS_MAX, WAITING_EACH_MAX, WAITING_MAX};
use sluice_dataplane::frame::{Checksum, SegmentKind, Segmentation};
use sluice_dataplane::limits::Limits;
use sluice_dataplane::packet::build::{self, Tcp, Udp, address};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, SYN};
use sluice_dataplane::packet::rewrite::LinkHeader;
use sluice_dataplane::verdict::DropReason;
use world::*;

const MTU: usize = 1_500;

/// The usual world with UDP over IPv6 as well, and a member more.
fn with_udp6(parts: &mut Parts) {
    parts.virtuals.push(virtual_server(3, "2001:db8:1::100/128", 53, Protocol::Udp, 3));
    let members = vec![member(5, "2001:db8:2::11", 5353)];
    parts.pools.push(Pool { id: PoolId(3), name: "p3".into(), members, ..Pool::default() });
}

fn started() -> World {
    World::started(with_udp6)
}

/// `count` workers whose every one knows the members.
fn workers(count: usize, change: impl FnOnce(&mut Parts)) -> Vec<World> {
    let mut parts = usual();
    with_udp6(&mut parts);
    change(&mut parts);
    let limits = Limits { flows: 4_096, half_open: 4_096, frames: 512, ..Limits::default() };
    let mut workers = World::several(count, limits, &parts);
    workers[0].start();
    for worker in &mut workers[1..] {
        (0..4).for_each(|_| drop(worker.run(20)));
    }
    workers
}

fn payload(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| ((at * 31) >> 2) as u8).collect()
}

fn from_client(v6: bool, payload: &[u8]) -> Udp<'_> {
    let (src, dst) = if v6 { (CLIENT6, VIRTUAL6) } else { (CLIENT, VIRTUAL) };
    Udp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, src, dst, payload, ..Udp::default() }
}

fn from_member(v6: bool, payload: &[u8]) -> Udp<'_> {
    let (src, dst) = if v6 { ("2001:db8:2::11", "2001:db8:2::10") } else { ("10.1.0.11", SELF_IN) };
    Udp {
        src_mac: member_mac(11),
        dst_mac: INTERNAL_MAC,
        src,
        dst,
        src_port: 5353,
        dst_port: 40_000,
        payload,
        ..Udp::default()
    }
}

fn cut(udp: &Udp, id: u32) -> Vec<Vec<u8>> {
    build::fragments(&build::udp(udp), MTU, id)
}

/// What the frames say together, its checksum proven, and its payload.
fn whole(out: &[Out]) -> (Seen, Vec<u8>) {
    let pieces: Vec<_> = out.iter().map(|out| out.bytes.clone()).collect();
    assert!(pieces.iter().all(|piece| piece.len() <= 14 + MTU));
    let bytes = build::reassemble(&pieces);
    let start = if bytes[14] >> 4 == 4 { 42 } else { 62 };
    (see(&Out { port: out[0].port, bytes: bytes.clone() }), bytes[start..].to_vec())
}

/// The id of a fragment that came out.
fn id_of(out: &Out) -> u32 {
    let b = &out.bytes;
    if b[14] >> 4 == 4 {
        u32::from(u16::from_be_bytes([b[18], b[19]]))
    } else {
        u32::from_be_bytes([b[58], b[59], b[60], b[61]])
    }
}

/// Sends frames into one port of the worker that each belongs to by turns, and lets all workers run.
fn spread(workers: &mut [World], port: PortId, frames: &[Vec<u8>], turn: &mut usize) -> Vec<Out> {
    let mut out = Vec::new();
    for frame in frames {
        *turn += 1;
        let at = *turn * 7 % workers.len();
        out.extend(workers[at].send(port, frame));
    }
    for _ in 0..4 {
        out.extend(workers.iter_mut().flat_map(|worker| worker.run(0)));
    }
    out
}

#[test]
fn all_fragments_of_a_datagram_without_a_flow_go_to_one_member() {
    for count in [1, 3] {
        let stateless = |parts: &mut Parts| {
            (parts.virtuals[2].kind, parts.virtuals[2].snat) = (VirtualKind::Stateless, Snat::None);
            parts.virtuals[2].pool = Some(PoolId(0));
        };
        let (mut workers, mut turn) = (workers(count, stateless), 0);
        let mut members = std::collections::HashSet::new();
        for id in 1..=12 {
            let data = payload(4_000 + id as usize);
            let mut frames = cut(&from_client(false, &data), id);
            match id % 3 {
                0 => frames.reverse(),
                1 => frames.rotate_left(1),
                _ => {}
            }
            let out = spread(&mut workers, EXTERNAL, &frames, &mut turn);
            assert_eq!(out.len(), 3, "{count} workers, datagram {id}");
            let (seen, got) = whole(&out);
            assert_eq!(got, data);
            assert!(out.iter().all(|piece| piece.bytes[30..34] == out[0].bytes[30..34]), "one member");
            members.insert(seen.dst);
        }
        assert!(members.len() > 1, "{count} workers: datagrams are balanced");
        let dropped: u64 = workers.iter().map(|worker| worker.drops(DropReason::FragmentNoFlow)).sum();
        assert_eq!(dropped, 0);
    }
}

#[test]
fn large_datagrams_pass_both_ways_over_any_number_of_workers() {
    let choices = [SourcePort::Preserve, SourcePort::PreserveStrict];
    for (count, choice) in [1, 2, 4].into_iter().flat_map(|count| choices.map(|choice| (count, choice))) {
        let choose = |parts: &mut Parts| {
            parts.virtuals.iter_mut().for_each(|item| item.source_port = choice);
        };
        let (mut workers, mut turn) = (workers(count, choose), 0);
        for (number, bytes) in [4_000, 60_000, 1_473, 65_507 - 20].into_iter().enumerate() {
            for v6 in [false, true] {
                let (data, id) = (payload(bytes), 77 + number as u32);
                let frames = cut(&from_client(v6, &data), id);
                let (seen, arrived) = whole(&spread(&mut workers, EXTERNAL, &frames, &mut turn));
                assert_eq!((seen.port, seen.ttl, seen.dst_mac), (INTERNAL, 63, member_mac(11)));
                assert_eq!((seen.dst.1, &arrived), (5353, &data), "{bytes} bytes, {count} workers");
                assert!(choice == SourcePort::Preserve || seen.src.1 == 40_000, "{count} workers");
                let answer = Udp { dst_port: seen.src.1, ..from_member(v6, &data) };
                let (back, arrived) = whole(&spread(&mut workers, INTERNAL, &cut(&answer, id), &mut turn));
                assert_eq!((back.port, back.dst_mac, back.src.1), (EXTERNAL, CLIENT_MAC, 53));
                assert_eq!((back.dst.1, &arrived), (40_000, &data), "{bytes} bytes, {count} workers");
            }
        }
        let flows: usize = workers.iter_mut().map(|worker| worker.flows().len()).sum();
        assert_eq!(flows, 2, "one for each family, whatever the ids");
        let drops: Vec<_> = workers.iter().map(World::all_drops).collect();
        assert!(drops.iter().all(Vec::is_empty), "{drops:?}");
    }
}

/// As whole ones are: each is answered by its first fragment.
#[test]
fn large_datagrams_to_nobody_are_refused_by_any_number_of_workers() {
    for count in [1, 2, 3] {
        // Clients are shown, so that replies may have owners by rule.
        let (mut workers, mut turn) = (workers(count, |parts| parts.virtuals[0].snat = Snat::None), 0);
        for id in 1..=12 {
            for v6 in [false, true] {
                let data = payload(4_000);
                let udp = Udp { dst_port: 99, src_port: 2_000 + id, ..from_client(v6, &data) };
                let out = spread(&mut workers, EXTERNAL, &cut(&udp, id.into()), &mut turn);
                assert_eq!(out.len(), 1, "{count} workers, datagram {id}");
                let (kind, code) = if v6 { (54, [1, 4]) } else { (34, [3, 3]) };
                assert_eq!((out[0].port, &out[0].bytes[kind..kind + 2]), (EXTERNAL, &code[..]));
            }
        }
        let drops = |reason| workers.iter().map(|worker| worker.drops(reason)).sum::<u64>();
        let counts = [DropReason::NoVirtual, DropReason::FragmentNoFlow, DropReason::HandoffFull].map(drops);
        assert_eq!(counts, [24, 48, 0], "{count} workers");
    }
}

#[test]
fn any_order_of_fragments_arrives() {
    let data = payload(10_000);
    for v6 in [false, true] {
        for seed in 0..50usize {
            let (mut workers, mut turn) = (workers(if seed % 2 == 0 { 1 } else { 4 }, |_| ()), seed);
            let mut frames = cut(&from_client(v6, &data), seed as u32);
            let len = frames.len();
            (0..len).for_each(|at| frames.swap(at, (at * 5 + seed * 3) % len));
            let out = spread(&mut workers, EXTERNAL, &frames, &mut turn);
            assert_eq!(whole(&out).1, data, "seed {seed}");
            assert!(out.iter().all(|piece| id_of(piece) == id_of(&out[0])));
        }
    }
}

#[test]
fn two_clients_with_one_id_are_not_mixed_at_their_member() {
    let mut world = started();
    let data = payload(4_000);
    for v6 in [false, true] {
        let first = cut(&from_client(v6, &data), 500);
        let other = if v6 { "2001:db8:c::8" } else { "198.51.100.8" };
        let second = cut(&Udp { src: other, ..from_client(v6, &data) }, 500);
        let mut ids = [0, 0];
        for (a, b) in first.iter().zip(&second) {
            let (a, b) = (world.send(EXTERNAL, a), world.send(EXTERNAL, b));
            assert_eq!((a.len(), b.len()), (1, 1));
            ids = [id_of(&a[0]), id_of(&b[0])];
        }
        assert_ne!(ids[0], ids[1], "one source towards one member");
    }
    assert_eq!(world.all_drops(), []);
}

#[test]
fn two_workers_never_choose_one_id() {
    let mut workers = workers(4, |_| ());
    let (data, mut turn) = (payload(2_000), 0);
    let mut ids = std::collections::HashSet::new();
    for number in 0..200u32 {
        let udp = Udp { src_port: 20_000 + number as u16, ..from_client(false, &data) };
        let out = spread(&mut workers, EXTERNAL, &cut(&udp, 9), &mut turn);
        assert!(ids.insert(id_of(&out[0])), "packet {number}");
    }
    assert!(workers.iter_mut().all(|worker| !worker.flows().is_empty()), "all workers had some");
}

#[test]
fn where_nothing_is_translated_the_id_stays() {
    let mut world = World::started(|parts| {
        let mut forward = virtual_server(3, "0.0.0.0/0", 0, Protocol::Any, 0);
        (forward.kind, forward.pool, forward.snat) = (VirtualKind::ForwardingIp, None, Snat::None);
        parts.virtuals.push(forward);
    });
    let data = payload(4_000);
    let udp = Udp { dst: "10.1.0.13", ..from_client(false, &data) };
    let out: Vec<_> = cut(&udp, 4_321).iter().flat_map(|frame| world.send(EXTERNAL, frame)).collect();
    assert_eq!(whole(&out).1, data);
    assert!(out.iter().all(|piece| id_of(piece) == 4_321));
}

#[test]
fn a_large_segment_in_fragments_is_followed() {
    let mut world = started();
    let client = Tcp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, seq: 1_000, ..Tcp::default() };
    world.send(EXTERNAL, &build::tcp(&Tcp { flags: SYN, ..client }));
    let reply = Tcp {
        src_mac: member_mac(11),
        dst_mac: INTERNAL_MAC,
        src: "10.1.0.11",
        dst: SELF_IN,
        src_port: 8080,
        dst_port: 40_000,
        ..Tcp::default()
    };
    world.send(INTERNAL, &build::tcp(&Tcp { flags: SYN | ACK, seq: 5_000, ack: 1_001, ..reply }));
    let data = payload(4_000);
    let segment = build::tcp(&Tcp { flags: ACK, seq: 1_001, ack: 5_001, payload: &data, ..client });
    let frames = build::fragments(&segment, MTU, 3);
    let out: Vec<_> = frames.iter().rev().flat_map(|frame| world.send(EXTERNAL, frame)).collect();
    let (seen, _) = whole(&out);
    assert_eq!((seen.dst.1, seen.seq), (8080, 1_001));
    assert_eq!(world.flows()[0].state, "established");
    assert_eq!(world.all_drops(), []);
}

#[test]
fn an_atomic_fragment_is_a_packet_of_its_own() {
    let mut world = started();
    let data = payload(3_000);
    let frames = cut(&from_client(true, &data), 5);
    assert_eq!(world.send(EXTERNAL, &frames[1]), [], "waits");
    let atomic = build::atomic(&build::udp(&from_client(true, b"alone")), 5);
    let out = world.send(EXTERNAL, &atomic);
    assert_eq!(whole(&out).1, b"alone");
    assert_eq!(out[0].bytes[20], 44, "the header stays");
    let out: Vec<_> = [&frames[0], &frames[2]].into_iter().flat_map(|f| world.send(EXTERNAL, f)).collect();
    assert_eq!(whole(&out).1, data, "the same id is no overlap (RFC 6946)");
    assert_eq!(world.all_drops(), []);
}

#[test]
fn atomic_discovery_is_dropped_and_atomic_echo_answered() {
    let mut world = started();
    let solicitation = build::atomic(&solicitation(member_mac(11), "2001:db8:2::11", "2001:db8:2::10"), 1);
    assert_eq!(world.send(INTERNAL, &solicitation), [], "RFC 6980");
    let link = LinkHeader { source: CLIENT_MAC, destination: EXTERNAL_MAC, vlan: 0 };
    let echo = build::packet(link, CLIENT6, VIRTUAL6, 64, 58, &[128, 0, 0, 0, 0, 1, 0, 1, 7, 7], 2);
    let out = world.send(EXTERNAL, &build::atomic(&echo, 1));
    let reply = build::reassemble(&[out[0].bytes.clone()]);
    build::assert_checksums(&reply);
    assert_eq!(reply[54], 129);
}

#[test]
fn what_would_break_others_is_dropped_and_counted() {
    type Send = fn(&mut World, &[Vec<u8>]);
    let cases: &[(DropReason, u64, Send)] = &[
        (DropReason::FragmentDuplicate, 1, |world, frames| {
            assert_eq!(world.send(EXTERNAL, &frames[0]).len(), 1);
            assert_eq!(world.send(EXTERNAL, &frames[0]), []);
        }),
        (DropReason::FragmentOverlap, 3, |world, frames| {
            assert_eq!(world.send(EXTERNAL, &frames[2]), [], "waits");
            let overlap = build::fragment(&frames[0], 7, 1_472, true, &[9; 64]);
            assert_eq!(world.send(EXTERNAL, &overlap), [], "waits");
            assert_eq!(world.send(EXTERNAL, &frames[1]), [], "overlaps: all three are lost");
        }),
        (DropReason::FragmentTimeout, 1, |world, frames| {
            assert_eq!(world.send(EXTERNAL, &frames[1]), []);
            world.run(1_900);
            assert_eq!(world.drops(DropReason::FragmentTimeout), 0);
            world.run(200);
        }),
        (DropReason::FragmentNoFlow, 2, |world, frames| {
            world.apply(|parts| parts.virtuals[2].enabled = false);
            assert_eq!(world.send(EXTERNAL, &frames[0]).len(), 1, "port unreachable, once");
            assert_eq!(world.send(EXTERNAL, &frames[1]), []);
            assert_eq!(world.send(EXTERNAL, &frames[2]), []);
        }),
        (DropReason::FragmentTiny, 1, |world, _| {
            let syn = Tcp { dst_mac: EXTERNAL_MAC, flags: SYN, payload: &[0; 64], ..Tcp::default() };
            assert_eq!(world.send(EXTERNAL, &build::fragments(&build::tcp(&syn), 36, 1)[0]), []);
        }),
        (DropReason::FragmentMalformed, 1, |world, frames| {
            let beyond = build::fragment(&frames[0], 7, 65_528, false, &[0; 8]);
            assert_eq!(world.send(EXTERNAL, &beyond), []);
        }),
        (DropReason::Fragment, 2, |world, _| {
            let link = LinkHeader { source: CLIENT_MAC, destination: EXTERNAL_MAC, vlan: 0 };
            let redirect = [&[5, 0, 0, 0, 0, 1, 0, 1][..], &[7; 2_000]].concat();
            let frames = build::fragments(&build::packet(link, CLIENT, VIRTUAL, 64, 1, &redirect, 2), MTU, 1);
            frames.iter().for_each(|frame| assert_eq!(world.send(EXTERNAL, frame), []));
        }),
        (DropReason::TtlExpired, 3, |world, frames| {
            let mut frames = frames.to_vec();
            frames.iter_mut().for_each(|frame| build::patch_ipv4(frame, |header| header[8] = 1));
            assert_eq!(world.send(EXTERNAL, &frames[0]).len(), 1, "an error about the first");
            assert_eq!(world.send(EXTERNAL, &frames[1]), [], "and none about others (RFC 1812)");
            assert_eq!(world.send(EXTERNAL, &frames[2]), []);
        }),
    ];
    let data = payload(4_000);
    for (reason, count, send) in cases {
        let mut world = started();
        send(&mut world, &cut(&from_client(false, &data), 7));
        assert_eq!(world.drops(*reason), *count, "{reason}: {:?}", world.all_drops());
        world.run(3_000);
        world.run(100);
        assert_eq!(world.frames.in_use(), 0, "{reason}: nothing is kept");
    }
}

#[test]
fn a_fragment_with_open_offload_is_refused() {
    let mut world = started();
    let data = payload(4_000);
    for change in [0, 1] {
        let mut frame = world.frames.copy_of(&cut(&from_client(false, &data), 7)[0]).unwrap();
        match change {
            0 => frame.offload.checksum = Checksum::Partial { start: 34, offset: 6 },
            _ => {
                let cut = Segmentation { kind: SegmentKind::Udp, ecn: false, payload_bytes: 100 };
                frame.offload.segmentation = Some(cut);
            }
        }
        assert_eq!(world.send_frame(EXTERNAL, frame), []);
    }
    assert_eq!(world.all_drops(), [("fragment-malformed", 2)]);
}

#[test]
fn waiting_fragments_are_bounded_and_others_go_on() {
    let mut world = started();
    let (data, small) = (payload(60_000), payload(3_000));
    let flood = build::udp(&from_client(false, &data));
    for id in 0..8u32 {
        for place in 1..=u32::from(WAITING_EACH_MAX) {
            let part = &data[..64];
            world.send(EXTERNAL, &build::fragment(&flood, 1_000 + id, place as usize * 64, true, part));
        }
    }
    let full = 8 * u64::from(WAITING_EACH_MAX) - WAITING_MAX as u64;
    assert_eq!(world.drops(DropReason::FragmentsFull), full);
    for id in 0..2 * PACKETS_MAX as u32 {
        world.send(EXTERNAL, &build::fragment(&flood, 2_000 + id, 640, true, &data[..64]));
    }
    let frames = cut(&from_client(false, &small), 1);
    let out: Vec<_> = frames.iter().flat_map(|frame| world.send(EXTERNAL, frame)).collect();
    assert_eq!(whole(&out).1, small, "an honest packet in order passes");
    (0..200).for_each(|_| drop(world.run(50)));
    assert_eq!(world.frames.in_use(), 0);
    let all = 8 * u64::from(WAITING_EACH_MAX) + 2 * PACKETS_MAX as u64;
    assert_eq!(world.all_drops().iter().map(|drop| drop.1).sum::<u64>(), all, "every one is counted");
}

#[test]
fn a_large_packet_without_df_leaves_in_fragments_of_its_own_id() {
    let mut world = started();
    let data = payload(3_000);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut big = build::udp(&from_client(false, &data));
        build::patch_ipv4(&mut big, |header| header[6] = 0);
        let out = world.send(EXTERNAL, &big);
        assert_eq!((out.len(), whole(&out).1), (3, data.clone()));
        ids.push(id_of(&out[0]));
    }
    assert_ne!(ids[0], ids[1], "both had the id 1");
    let answer = build::udp(&from_member(false, &data));
    assert_eq!(world.send(INTERNAL, &answer)[0].bytes[34..36], [3, 4], "with DF it is answered");
    assert_eq!(world.all_drops(), [("too-big", 1)]);
    let counters = world.counters.of_virtual(sluice_dataplane::config::ids::VirtualId(2)).unwrap();
    assert_eq!(counters.clientside.packets_in.load(), 2);
}

#[test]
fn a_large_packet_with_an_open_checksum_is_finished_before_it_is_cut() {
    let mut world = started();
    let data = payload(3_000);
    let mut big = build::udp(&from_client(false, &data));
    build::patch_ipv4(&mut big, |header| header[6] = 0);
    let pseudo = address(CLIENT).v4_octets().into_iter().chain(address(VIRTUAL).v4_octets());
    let bytes: Vec<u8> = pseudo.chain([0, 17]).chain((3_008u16).to_be_bytes()).collect();
    let sum = sluice_dataplane::packet::checksum::fold(sluice_dataplane::packet::checksum::sum(&bytes));
    big[40..42].copy_from_slice(&sum.to_be_bytes());
    let mut frame = world.frames.copy_of(&big).unwrap();
    frame.offload.checksum = Checksum::Partial { start: 34, offset: 6 };
    assert_eq!(whole(&world.send_frame(EXTERNAL, frame)).1, data);
}

#[test]
fn large_fragments_are_cut_again_under_one_id() {
    let mut world = started();
    let data = payload(8_000);
    let frames = build::fragments(&build::udp(&from_client(false, &data)), 4_000, 6);
    assert_eq!(frames.len(), 3);
    for order in [[0, 1, 2], [2, 1, 0]] {
        let out: Vec<_> = order.iter().flat_map(|&at| world.send(EXTERNAL, &frames[at])).collect();
        assert!(out.len() > 5);
        assert_eq!(whole(&out).1, data);
    }
    let v6 = build::fragments(&build::udp(&from_client(true, &data)), 4_000, 6);
    let error = world.send(EXTERNAL, &v6[0]);
    assert_eq!((error[0].port, error[0].bytes[54]), (EXTERNAL, 2), "nobody cuts IPv6 on its way");
}

#[test]
fn cutting_without_frame_memory_is_counted() {
    let limits = Limits { flows: 64, half_open: 16, frames: 1, ..Limits::default() };
    let mut world = World::with_limits(limits, |_| ());
    world.start();
    let mut big = build::udp(&from_client(false, &payload(3_000)));
    build::patch_ipv4(&mut big, |header| header[6] = 0);
    let before = world.drops(DropReason::NoFrame);
    assert_eq!(world.send(EXTERNAL, &big).len(), 1);
    assert_eq!(world.drops(DropReason::NoFrame) - before, 2);
}

#[test]
fn fragments_wait_for_the_members_address_like_whole_packets() {
    let mut world = World::new(with_udp6);
    (0..4).for_each(|_| drop(world.run(20)));
    let data = payload(4_000);
    let asked: Vec<_> =
        cut(&from_client(false, &data), 7).iter().flat_map(|frame| world.send(EXTERNAL, frame)).collect();
    assert_eq!(asked.len(), 1, "one question");
    let released = world.send(INTERNAL, &arp(2, member_mac(11), "10.1.0.11", SELF_IN));
    assert_eq!(whole(&released).1, data);
}

#[test]
fn what_is_too_big_does_not_wait_for_the_members_address() {
    let mut world = World::new(|_| ());
    (0..4).for_each(|_| drop(world.run(20)));
    let mut big = build::udp(&from_client(false, &payload(3_000)));
    build::patch_ipv4(&mut big, |header| header[6] = 0);
    assert_eq!(world.send(EXTERNAL, &big).len(), 1, "the question for the address");
    assert_eq!(world.send(INTERNAL, &arp(2, member_mac(11), "10.1.0.11", SELF_IN)), []);
    assert_eq!(world.all_drops(), [("too-big", 1)]);
    assert_eq!(world.send(EXTERNAL, &big).len(), 3, "the next is cut");
}

/// Over IPv6 the first fragment alone says what the packet carries (RFC 8200 section 4.5).
#[test]
fn the_next_header_of_a_later_fragment_says_nothing() {
    let mut world = started();
    let data = payload(3_000);
    let mut frames = cut(&from_client(true, &data), 5);
    frames[1][54] = 6;
    frames[2][54] = 99;
    let out: Vec<_> = frames.iter().flat_map(|frame| world.send(EXTERNAL, frame)).collect();
    assert_eq!(whole(&out).1, data);
}

/// Throws dice; the same seed gives the same faces.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// Clients that all use one id send at once over a wire that loses, doubles and shuffles fragments. Whatever can be
/// put together at the member is exactly what one client sent, all that came whole is there, and nothing is kept.
#[test]
fn over_a_bad_wire_no_fragment_of_one_client_gets_into_anothers_packet() {
    let first: u64 = std::env::var("SLUICE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for seed in first..first + 60 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut workers = workers([1, 2, 4][seed as usize % 3], |_| ());
        let (v6, clients) = (dice.below(2) == 1, 2 + dice.below(6));
        let (mut wire, mut sent, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..clients {
            let data: Vec<u8> = (0..2_000 + dice.below(9_000)).map(|at| (at * (number + 3)) as u8).collect();
            let address =
                if v6 { format!("2001:db8:c::{number}") } else { format!("198.51.100.{}", number + 1) };
            let frames = cut(&Udp { src: &address, ..from_client(v6, &data) }, 77);
            let missing = (dice.below(3) == 0).then(|| dice.below(frames.len()));
            for (_, frame) in frames.into_iter().enumerate().filter(|&(at, _)| Some(at) != missing) {
                wire.extend(std::iter::repeat_n(frame, 1 + usize::from(dice.below(8) == 0)));
            }
            lost.push(missing.is_some());
            sent.push(data);
        }
        (1..wire.len()).rev().for_each(|at| wire.swap(at, dice.below(at + 1)));
        let mut turn = dice.below(16);
        let out = spread(&mut workers, EXTERNAL, &wire, &mut turn);
        let mut packets: std::collections::BTreeMap<u32, Vec<Out>> = std::collections::BTreeMap::new();
        out.into_iter().for_each(|piece| packets.entry(id_of(&piece)).or_default().push(piece));
        let arrived: Vec<Vec<u8>> =
            packets.into_values().filter(|pieces| is_whole(pieces)).map(|pieces| whole(&pieces).1).collect();
        for (number, data) in sent.iter().enumerate() {
            assert_eq!(arrived.contains(data), !lost[number], "seed {seed}: client {number}");
        }
        // All fragments of a packet may have been doubled, so that it comes twice.
        let strange = arrived.iter().filter(|packet| !sent.contains(packet)).count();
        assert_eq!(strange, 0, "seed {seed}: nothing else can be put together");
        workers.iter_mut().for_each(|worker| (0..60).for_each(|_| drop(worker.run(50))));
        let kept: usize = workers.iter().map(|worker| worker.frames.in_use()).sum();
        assert_eq!(kept, 0, "seed {seed}: nothing is kept");
    }
}

/// True when the payloads of these pieces end where the last one says and leave no hole.
fn is_whole(pieces: &[Out]) -> bool {
    let place = |b: &[u8]| {
        let (word, start) = if b[14] >> 4 == 4 {
            (u32::from(u16::from_be_bytes([b[20], b[21]])), 34)
        } else {
            (u32::from(u16::from_be_bytes([b[56], b[57]])), 62)
        };
        let v4 = b[14] >> 4 == 4;
        let (offset, more) =
            if v4 { ((word & 0x1fff) * 8, word & 0x2000 != 0) } else { (word & 0xfff8, word & 1 != 0) };
        (offset as usize, b.len() - start, more)
    };
    let total: usize = pieces.iter().map(|piece| place(&piece.bytes).1).sum();
    pieces.iter().any(|piece| {
        let (offset, len, more) = place(&piece.bytes);
        !more && offset + len == total
    })
}
