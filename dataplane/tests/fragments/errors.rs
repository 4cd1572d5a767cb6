//! ICMP errors in fragments, as a path of small MTU brings them: put together, proven, and given to whom they are about.

use sluice_dataplane::address::Mac;
use sluice_dataplane::config::ids::PortId;
use sluice_dataplane::config::snapshot::{Ingress, Nat, Parts};
use sluice_dataplane::packet::build::{self, Udp, address};
use sluice_dataplane::packet::rewrite::LinkHeader;
use sluice_dataplane::verdict::DropReason;

use crate::world::*;
use crate::{cut, from_client, from_member, payload, spread, whole, workers};

/// An error from `src` about the packet in the frame `offender`, of which it quotes `quoted` bytes.
fn error_about(offender: &[u8], (src_mac, dst_mac): (Mac, Mac), src: &str, quoted: usize) -> Vec<u8> {
    let link = LinkHeader { source: src_mac, destination: dst_mac, vlan: 0 };
    let v6 = offender[14] >> 4 == 6;
    let to = if v6 { address_text(&offender[22..38]) } else { address_text(&offender[26..30]) };
    let head = if v6 { [1, 4, 0, 0, 0, 0, 0, 0] } else { [3, 3, 0, 0, 0, 0, 0, 0] };
    let message = [&head, &offender[14..offender.len().min(14 + quoted)]].concat();
    build::packet(link, src, &to, 60, if v6 { 58 } else { 1 }, &message, 2)
}

fn address_text(octets: &[u8]) -> String {
    match octets.first_chunk::<16>() {
        Some(v6) => std::net::Ipv6Addr::from(*v6).to_string(),
        None => std::net::Ipv4Addr::from(*octets.first_chunk::<4>().expect("four bytes")).to_string(),
    }
}

/// One datagram each way through new workers: the frames as they left us, towards the member and towards the client.
fn exchange(workers: &mut [World], v6: bool, bytes: usize, turn: &mut usize) -> (Vec<u8>, Vec<u8>) {
    let pieces = |out: &[Out]| out.iter().map(|out| out.bytes.clone()).collect::<Vec<_>>();
    let data = payload(bytes);
    let asked = spread(workers, EXTERNAL, &cut(&from_client(v6, &data), 5), turn);
    let (seen, _) = whole(&asked);
    let answer = Udp { dst_port: seen.src.1, ..from_member(v6, &data) };
    let answered = spread(workers, INTERNAL, &cut(&answer, 6), turn);
    (build::reassemble(&pieces(&asked)), build::reassemble(&pieces(&answered)))
}

/// The message that these frames are, from its ICMP header on, and its receiver's side: port and addresses.
fn told(out: &[Out]) -> (PortId, Vec<u8>, Vec<u8>) {
    let pieces: Vec<_> = out.iter().map(|out| out.bytes.clone()).collect();
    let bytes = if pieces.len() == 1 { pieces[0].clone() } else { build::reassemble(&pieces) };
    build::assert_checksums(&bytes);
    let (addresses, l4) = if bytes[14] >> 4 == 4 { (26..34, 34) } else { (22..54, 54) };
    (out[0].port, bytes[addresses].to_vec(), bytes[l4..].to_vec())
}

#[test]
fn errors_in_fragments_say_what_whole_ones_do_in_both_directions() {
    for (v6, count) in [(false, 1), (true, 1), (false, 3), (true, 3)] {
        let (mut workers, mut turn) = (workers(count, |_| ()), 0);
        let (asked, answered) = exchange(&mut workers, v6, 700, &mut turn);
        let (router, hop) =
            if v6 { ("2001:db8:99::1", "2001:db8:c::99") } else { ("10.99.0.1", "203.0.113.9") };
        let (end, peer) = if v6 { ("2001:db8:2::11", CLIENT6) } else { ("10.1.0.11", CLIENT) };
        for (port, offender, macs, from) in [
            (INTERNAL, &asked, (member_mac(11), INTERNAL_MAC), router),
            (INTERNAL, &asked, (member_mac(11), INTERNAL_MAC), end),
            (EXTERNAL, &answered, (CLIENT_MAC, EXTERNAL_MAC), hop),
            (EXTERNAL, &answered, (CLIENT_MAC, EXTERNAL_MAC), peer),
        ] {
            let error = error_about(offender, macs, from, 528);
            let expected = told(&spread(&mut workers, port, std::slice::from_ref(&error), &mut turn));
            for turned in 0..3 {
                let mut frames = build::fragments(&error, 300, 70 + turned as u32);
                frames.rotate_left(turned);
                let out = spread(&mut workers, port, &frames, &mut turn);
                assert_eq!(told(&out), expected, "from {from}, {count} workers");
                let addressed = if port == INTERNAL { CLIENT_MAC } else { member_mac(11) };
                assert_eq!((out.len(), &out[0].bytes[..6]), (1, &addressed.0[..]));
            }
        }
        let drops: Vec<_> = workers.iter().map(World::all_drops).collect();
        assert!(drops.iter().all(Vec::is_empty), "{drops:?}");
    }
}

#[test]
fn an_error_larger_than_the_mtu_is_cut_again() {
    for (v6, count) in [(false, 1), (true, 1), (false, 3), (true, 3)] {
        let (mut workers, mut turn) = (workers(count, |_| ()), 0);
        let (asked, _) = exchange(&mut workers, v6, 3_500, &mut turn);
        let from = if v6 { "2001:db8:2::11" } else { "10.1.0.11" };
        let error = error_about(&asked, (member_mac(11), INTERNAL_MAC), from, 3_000);
        for id in [1, 2] {
            let out = spread(&mut workers, INTERNAL, &build::fragments(&error, 1_500, id), &mut turn);
            let largest = if v6 { 1_280 } else { 1_500 };
            assert!(out.len() == 3 && out.iter().all(|out| out.bytes.len() <= 14 + largest));
            let (port, addresses, message) = told(&out);
            assert_eq!((port, message.len()), (EXTERNAL, 3_008));
            let (src, dst) = if v6 { (VIRTUAL6, CLIENT6) } else { (VIRTUAL, CLIENT) };
            let octets = |text| {
                if v6 { address(text).v6_octets().to_vec() } else { address(text).v4_octets().to_vec() }
            };
            assert_eq!(addresses, [octets(src), octets(dst)].concat());
        }
    }
}

#[test]
fn an_error_in_fragments_that_is_damaged_strange_or_not_whole_is_dropped() {
    for v6 in [false, true] {
        let from = if v6 { "2001:db8:2::11" } else { "10.1.0.11" };
        let macs = (member_mac(11), INTERNAL_MAC);
        let mut workers = workers(1, |_| ());
        let (asked, _) = exchange(&mut workers, v6, 700, &mut 0);
        let world = &mut workers[0];
        let error = error_about(&asked, macs, from, 528);
        let mut send = |frames: &[Vec<u8>], reason: DropReason, count: u64| {
            let before = world.drops(reason);
            frames.iter().for_each(|frame| assert_eq!(world.send(INTERNAL, frame), [], "{}", reason.name()));
            assert_eq!(world.drops(reason) - before, count, "{}", reason.name());
        };
        let mut damaged = build::fragments(&error, 300, 1);
        damaged[1][100] ^= 1;
        send(&damaged, DropReason::Malformed, 1);
        let mut strange = asked.clone();
        let port = if v6 { 54 } else { 34 };
        strange[port + 1] ^= 0x55;
        let strange = error_about(&strange, macs, from, 528);
        send(&build::fragments(&strange, 300, 2), DropReason::IcmpUnmatched, 1);
        let mut overlapping = build::fragments(&error, 300, 3);
        overlapping.insert(1, build::fragment(&error, 3, 64, true, &error[54 + 64..54 + 128]));
        send(&overlapping, DropReason::FragmentOverlap, overlapping.len() as u64);
        let missing = build::fragments(&error, 300, 4);
        send(&missing[1..], DropReason::IcmpUnmatched, 0);
        world.run(2_100);
        assert_eq!(world.drops(DropReason::FragmentTimeout), missing.len() as u64 - 1);
        let out: Vec<_> =
            build::fragments(&error, 300, 5).iter().flat_map(|f| world.send(INTERNAL, f)).collect();
        assert_eq!(out.len(), 1, "a good one passes");
    }
}

#[test]
fn an_error_in_fragments_with_ttl_1_ends_here() {
    let mut workers = workers(1, |_| ());
    let (asked, _) = exchange(&mut workers, false, 700, &mut 0);
    let mut error = error_about(&asked, (member_mac(11), INTERNAL_MAC), "10.1.0.11", 528);
    build::patch_ipv4(&mut error, |header| header[8] = 1);
    let frames = build::fragments(&error, 300, 1);
    frames
        .iter()
        .for_each(|frame| assert_eq!(workers[0].send(INTERNAL, frame), [], "no error about an error"));
    assert_eq!(workers[0].all_drops(), [("ttl-expired", 1)]);
}

#[test]
fn errors_about_a_host_by_its_other_address_come_through_in_fragments_over_any_number_of_workers() {
    let (mut workers, mut turn) = (workers(3, with_nat), 0);
    for src_port in 40_000..40_012 {
        let data = payload(700);
        let udp = Udp { dst: "192.0.2.25", src_port, dst_port: 7_777, ..from_client(false, &data) };
        let large = payload(4_000);
        let frames = cut(&Udp { payload: &large, ..udp }, u32::from(src_port));
        let (seen, arrived) = whole(&spread(&mut workers, EXTERNAL, &frames, &mut turn));
        assert_eq!((seen.dst.0.as_str(), arrived), ("10.1.0.11", large), "{src_port}");
        let asked = spread(&mut workers, EXTERNAL, &[build::udp(&udp)], &mut turn);
        assert_eq!(see(&asked[0]).dst, ("10.1.0.11".to_owned(), 7_777));
        let error = error_about(&asked[0].bytes, (member_mac(11), INTERNAL_MAC), "10.1.0.11", 528);
        let expected = told(&spread(&mut workers, INTERNAL, std::slice::from_ref(&error), &mut turn));
        for id in 0..3 {
            let frames = build::fragments(&error, 300, 100 + id);
            assert_eq!(told(&spread(&mut workers, INTERNAL, &frames, &mut turn)), expected, "{src_port}");
        }
    }
    let drops: Vec<_> = workers.iter().map(World::all_drops).collect();
    assert!(drops.iter().all(Vec::is_empty), "{drops:?}");
}

/// The member 10.1.0.11 has another address of its own.
fn with_nat(parts: &mut Parts) {
    parts.nats.push(Nat {
        name: "mail".into(),
        origin: address("10.1.0.11"),
        translation: address("192.0.2.25"),
        ingress: Ingress::Any,
    });
}

#[test]
fn a_member_with_an_address_of_its_own_answers_in_fragments_over_any_number_of_workers() {
    let (mut workers, mut turn) = (workers(3, with_nat), 0);
    let data = payload(4_000);
    for src_port in 40_000..40_012 {
        let udp = Udp { src_port, ..from_client(false, &data) };
        let (asked, _) = whole(&spread(&mut workers, EXTERNAL, &cut(&udp, src_port.into()), &mut turn));
        for id in 0..3 {
            let answer = Udp { dst_port: asked.src.1, ..from_member(false, &data) };
            let answered =
                spread(&mut workers, INTERNAL, &cut(&answer, 3 * u32::from(src_port) + id), &mut turn);
            let drops: Vec<_> = workers.iter().map(World::all_drops).collect();
            assert!(drops.iter().all(Vec::is_empty), "{src_port}: {drops:?}");
            let (seen, arrived) = whole(&answered);
            assert_eq!((seen.src, seen.dst.1, &arrived), ((VIRTUAL.into(), 53), src_port, &data));
        }
    }
}
