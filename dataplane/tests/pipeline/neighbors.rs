//! Neighbours: who has an address, and who asks for ours.

use sluice_dataplane::config::snapshot::Protocol;
use sluice_dataplane::limits::Limits;
use sluice_dataplane::packet::build::{self, Tcp, address};
use sluice_dataplane::packet::parse::tcp_flag::SYN;
use sluice_dataplane::verdict::DropReason;

use crate::world::*;
use crate::{send, syn};

#[test]
fn the_first_packet_waits_for_the_members_address() {
    let mut world = World::new(|_| ());
    world.run(20);
    world.run(20);
    let asked = send(&mut world, EXTERNAL, &syn());
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].bytes[..6], [0xff; 6]);
    assert_eq!(asked[0].bytes[20..22], [0, 1]);
    assert_eq!(asked[0].bytes[38..42], [10, 1, 0, 11]);
    let released = world.send(INTERNAL, &arp(2, member_mac(11), "10.1.0.11", SELF_IN));
    let seen = only(&released);
    assert_eq!((seen.dst_mac, seen.dst.0.as_str(), seen.flags), (member_mac(11), "10.1.0.11", SYN));
}

#[test]
fn ipv6_members_are_solicited() {
    let mut world = World::new(|_| ());
    world.run(20);
    world.run(20);
    let asked = send(&mut world, EXTERNAL, &Tcp { src: CLIENT6, dst: VIRTUAL6, ..syn() });
    assert_eq!((asked[0].bytes[54], &asked[0].bytes[..3]), (135, &[0x33, 0x33, 0xff][..]));
    build::assert_checksums(&asked[0].bytes);
    let advert = ndisc(136, member_mac(11), "2001:db8:2::11", "2001:db8:2::10", "2001:db8:2::11", 2, 255);
    let mut advert = advert;
    advert[..6].copy_from_slice(&INTERNAL_MAC.0);
    assert_eq!(only(&world.send(INTERNAL, &advert)).dst_mac, member_mac(11));
}

#[test]
fn silent_members_are_counted_and_asked_again() {
    let mut world = World::new(|_| ());
    world.run(20);
    send(&mut world, EXTERNAL, &syn());
    let asked = world.run_for(5_000);
    let arps =
        asked.iter().filter(|out| out.bytes[12..14] == [8, 6] && out.bytes[38..42] == [10, 1, 0, 11]).count();
    assert_eq!(arps, 2, "three in all");
    assert_eq!(world.drops(DropReason::NeighborUnresolved), 1);
}

#[test]
fn too_many_packets_for_one_silent_member_are_dropped() {
    let mut world = World::new(|parts| parts.pools[0].members.truncate(1));
    world.run(20);
    for port in 0..68 {
        send(&mut world, EXTERNAL, &Tcp { src_port: 2_000 + port, ..syn() });
    }
    assert_eq!(world.drops(DropReason::NeighborQueueFull), 4);
}

#[test]
fn a_full_neighbor_table_refuses_new_next_hops() {
    let limits = Limits { flows: 64, half_open: 64, frames: 64, neighbors: 1, ..Limits::default() };
    let mut world = World::with_limits(limits, |_| ());
    world.run(20);
    send(&mut world, EXTERNAL, &syn());
    send(&mut world, EXTERNAL, &Tcp { src_port: 5_000, ..syn() });
    assert_eq!(world.drops(DropReason::NeighborTableFull), 1);
}

#[test]
fn arp_is_answered_for_self_ips_and_virtual_addresses_only() {
    let mut world = World::started(|_| ());
    for ours in ["192.0.2.10", VIRTUAL] {
        let answer = world.send(EXTERNAL, &arp(1, CLIENT_MAC, "192.0.2.77", ours));
        assert_eq!(answer.len(), 1, "{ours}");
        let bytes = &answer[0].bytes;
        assert_eq!((&bytes[..6], &bytes[20..22]), (&CLIENT_MAC.0[..], &[0, 2][..]));
        assert_eq!((&bytes[22..28], &bytes[28..32]), (&EXTERNAL_MAC.0[..], &address(ours).v4_octets()[..]));
    }
    assert_eq!(world.send(EXTERNAL, &arp(1, CLIENT_MAC, "192.0.2.77", "192.0.2.55")), []);
    assert_eq!(
        world.send(EXTERNAL, &arp(1, CLIENT_MAC, "192.0.2.77", SELF_IN)),
        [],
        "lives on the other link"
    );
    assert_eq!(world.drops(DropReason::NeighborNotOurs), 2);
}

#[test]
fn solicitations_are_answered_and_probes_to_all_nodes() {
    let mut world = World::started(|_| ());
    let answer = world.send(EXTERNAL, &solicitation(CLIENT_MAC, "fe80::7", VIRTUAL6));
    build::assert_checksums(&answer[0].bytes);
    assert_eq!((answer[0].bytes[54], answer[0].bytes[58]), (136, 0xe0));
    let probe = world.send(EXTERNAL, &ndisc(135, CLIENT_MAC, "::", "ff02::1:ff00:100", VIRTUAL6, 14, 255));
    assert_eq!((&probe[0].bytes[..6], probe[0].bytes[58]), (&[0x33, 0x33, 0, 0, 0, 1][..], 0xa0));
    assert_eq!(world.send(EXTERNAL, &solicitation(CLIENT_MAC, "fe80::7", "2001:db8:1::55")), []);
    assert_eq!(world.drops(DropReason::NeighborNotOurs), 1);
}

#[test]
fn broken_arp_and_discovery_are_counted() {
    let mut world = World::started(|_| ());
    let good = arp(1, CLIENT_MAC, "192.0.2.77", VIRTUAL);
    let mut group_sender = good.clone();
    group_sender[22] = 1;
    for bad in [&good[..30], &group_sender[..]] {
        assert_eq!(world.send(EXTERNAL, bad), []);
    }
    // Who has no address yet says no link address (RFC 4861 section 7.1.1).
    let unspecified = ndisc(135, CLIENT_MAC, "::", "ff02::1:ff00:100", VIRTUAL6, 1, 255);
    let mut wrong_sum = solicitation(CLIENT_MAC, "fe80::7", VIRTUAL6);
    wrong_sum[60] ^= 1;
    let far = ndisc(135, CLIENT_MAC, "fe80::7", "ff02::1:ff00:100", VIRTUAL6, 1, 64);
    let group_target = ndisc(135, CLIENT_MAC, "fe80::7", "ff02::1:ff00:100", "ff02::5", 1, 255);
    for bad in [wrong_sum, far, group_target, unspecified] {
        assert_eq!(world.send(EXTERNAL, &bad), []);
    }
    assert_eq!(world.drops(DropReason::MalformedNeighbor), 6);
}

#[test]
fn somebody_else_with_our_address_is_counted_and_countered() {
    let mut world = World::started(|_| ());
    world.send(EXTERNAL, &arp(1, CLIENT_MAC, VIRTUAL, VIRTUAL));
    let advert = ndisc(136, CLIENT_MAC, VIRTUAL6, "ff02::1", VIRTUAL6, 2, 255);
    world.send(EXTERNAL, &advert);
    assert_eq!(world.drops(DropReason::AddressConflict), 2);
    let defence = world.run_for(100);
    assert_eq!(defence.len(), 2);
    assert_eq!(defence[0].bytes[28..32], address(VIRTUAL).v4_octets());
}

#[test]
fn two_that_both_defend_an_address_do_not_answer_each_other_for_ever() {
    let mut world = World::started(|_| ());
    let theirs = arp(1, CLIENT_MAC, VIRTUAL, VIRTUAL);
    let conflict = |world: &mut World| {
        world.send(EXTERNAL, &theirs);
        world.run_for(100).iter().filter(|out| out.bytes[12..14] == [8, 6]).count()
    };
    assert_eq!((0..50).map(|_| conflict(&mut world)).sum::<usize>(), 1);
    world.run_for(10_000);
    assert_eq!(conflict(&mut world), 1);
    assert_eq!(world.drops(DropReason::AddressConflict), 51);
}

#[test]
fn addresses_are_announced_at_start_on_change_and_when_the_link_comes_up() {
    let mut world = World::new(|_| ());
    let announced = |out: &[Out]| {
        let mut seen: Vec<_> = out
            .iter()
            .map(|out| match out.bytes[12..14] {
                [8, 6] => format!("{:?}", &out.bytes[28..32]),
                _ => format!("{:x?}", &out.bytes[62..78]),
            })
            .collect();
        let all = seen.len();
        seen.sort();
        seen.dedup();
        (all, seen.len())
    };
    let started = world.run_for(200);
    assert_eq!(announced(&started), (9, 9), "4 self IPs, 2 virtual addresses, 3 SNAT addresses");
    world.apply(|parts| parts.virtuals.push(virtual_server(7, "192.0.2.101/32", 80, Protocol::Tcp, 0)));
    let changed = world.run_for(100);
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].bytes[28..32], [192, 0, 2, 101]);
    world.ports[1].set_link(false);
    world.run_for(300);
    world.ports[1].set_link(true);
    let up = world.run_for(400);
    assert!(up.iter().all(|out| out.port == INTERNAL) && up.len() == 5, "{}", up.len());
}

#[test]
fn switches_are_told_every_minute_which_groups_neighbors_ask_for_us_in() {
    let mut world = World::new(|_| ());
    let reported = |world: &mut World, ms: u64| {
        world.run_for(ms);
        let reports = std::mem::take(&mut world.reports);
        let group = |out: &Out| (out.port, u32::from_be_bytes(out.bytes[86..90].try_into().unwrap()));
        let mut groups: Vec<_> = reports.iter().map(group).collect();
        let all = groups.len();
        groups.sort();
        groups.dedup();
        assert_eq!(groups.len(), all, "each once");
        groups
    };
    let first = reported(&mut world, 200);
    let ours = [(EXTERNAL, 0xff00_0010), (EXTERNAL, 0xff00_0100), (INTERNAL, 0xff00_0010)];
    assert!(ours.iter().all(|group| first.contains(group)), "{first:x?}");
    assert_eq!(reported(&mut world, 59_000), []);
    assert_eq!(reported(&mut world, 2_000), first, "every minute");
    world.apply(|parts| parts.virtuals.push(virtual_server(7, "2001:db8:1::1234/128", 80, Protocol::Tcp, 0)));
    assert_eq!(reported(&mut world, 200), [(EXTERNAL, 0xff00_1234)]);
}
