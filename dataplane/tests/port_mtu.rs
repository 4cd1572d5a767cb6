//! A port whose MTU changes while sluice runs: what is sent from then on is of the new size.

mod world;

use sluice_dataplane::config::snapshot::{Protocol, VirtualKind};
use sluice_dataplane::packet::build::{self, Tcp, Udp};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, SYN};
use sluice_dataplane::packet::rewrite::LinkHeader;
use sluice_dataplane::verdict::DropReason;
use world::*;

/// Longer than it takes to notice.
const NOTICED_MS: u64 = 200;

fn datagram(payload: &[u8], may_cut: bool) -> Vec<u8> {
    let mut bytes =
        build::udp(&Udp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, payload, ..Udp::default() });
    if may_cut {
        build::patch_ipv4(&mut bytes, |header| header[6] = 0);
    }
    bytes
}

fn mtu_of(world: &World) -> [u64; 2] {
    [EXTERNAL, INTERNAL].map(|port| world.counters.of_port(port).mtu.load())
}

/// The largest segment that the SYN or SYN-ACK in a frame announces in its first option.
fn announced(out: &[Out]) -> u16 {
    let of_tcp = |out: &&Out| out.bytes[12..14] == [8, 0] && out.bytes[23] == 6;
    let [out] = out.iter().filter(of_tcp).collect::<Vec<_>>()[..] else { panic!("one segment: {out:02x?}") };
    assert_eq!(out.bytes[54..56], [2, 4], "the first option");
    u16::from_be_bytes([out.bytes[56], out.bytes[57]])
}

#[test]
fn packets_are_told_cut_and_passed_by_the_mtu_of_the_moment() {
    let mut world = World::started(|_| ());
    assert_eq!(mtu_of(&world), [0, 0], "a driver that does not notice");
    let data = [7; 1_400];
    assert_eq!(world.send(EXTERNAL, &datagram(&data, false)).len(), 1, "1,428 bytes pass");

    world.ports[1].set_mtu(1_300);
    world.run_for(NOTICED_MS);
    assert_eq!(mtu_of(&world), [0, 1_300]);
    let told = world.send(EXTERNAL, &datagram(&data, false));
    assert_eq!((told.len(), told[0].port, &told[0].bytes[34..36]), (1, EXTERNAL, &[3, 4][..]));
    assert_eq!(told[0].bytes[38..42], 1_300u32.to_be_bytes());
    assert_eq!(world.drops(DropReason::TooBig), 1);
    let pieces = world.send(EXTERNAL, &datagram(&data, true));
    assert!(pieces.len() == 2 && pieces.iter().all(|piece| piece.bytes.len() <= 14 + 1_300));

    world.ports[1].set_mtu(9_000);
    world.run_for(NOTICED_MS);
    let large = world.send(EXTERNAL, &datagram(&[7; 5_000], false));
    assert_eq!((large.len(), large[0].bytes.len()), (1, 42 + 5_000));
    assert_eq!(world.drops(DropReason::TooBig), 1);
}

#[test]
fn an_answer_of_our_own_is_cut_by_the_mtu_of_the_moment() {
    let mut world = World::started(|_| ());
    let link = LinkHeader { source: CLIENT_MAC, destination: EXTERNAL_MAC, vlan: 0 };
    let message = [&[8, 0, 0, 0, 0, 1, 0, 1][..], &[5; 1_200]].concat();
    let ping = build::packet(link, CLIENT, VIRTUAL, 64, 1, &message, 2);
    assert_eq!(world.send(EXTERNAL, &ping).len(), 1);
    world.ports[0].set_mtu(600);
    world.run_for(NOTICED_MS);
    let out: Vec<_> = world.send(EXTERNAL, &ping).into_iter().map(|out| out.bytes).collect();
    assert!(out.len() == 3 && out.iter().all(|piece| piece.len() <= 614));
    assert_eq!(build::reassemble(&out)[42..], ping[42..]);
}

#[test]
fn full_proxies_announce_the_mtu_of_the_moment() {
    let mut world = World::started(|parts| {
        let mut item = virtual_server(5, "192.0.2.101/32", 80, Protocol::Tcp, 0);
        (item.kind, item.proxy) = (VirtualKind::Standard, Some(std::sync::Arc::default()));
        parts.virtuals.push(item);
    });
    let mut port = 5_000;
    let mut open = |world: &mut World| {
        port += 1;
        let syn = Tcp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, dst: "192.0.2.101", ..Tcp::default() };
        let syn = Tcp { src_port: port, flags: SYN, seq: 1_000, ..syn };
        let answer = world.send(EXTERNAL, &build::tcp_with_options(&syn, &[2, 4, 5, 0xb4]));
        let ours = see(&answer[0]);
        assert_eq!(ours.flags, SYN | ACK);
        let ack = Tcp { flags: ACK, seq: 1_001, ack: ours.seq.wrapping_add(1), ..syn };
        let mut asked = world.send(EXTERNAL, &build::tcp(&ack));
        asked.extend(world.run(0));
        (announced(&answer), announced(&asked))
    };
    assert_eq!(open(&mut world), (1_460, 1_460));
    world.ports[0].set_mtu(1_400);
    world.run_for(NOTICED_MS);
    assert_eq!(open(&mut world), (1_360, 1_360), "the client's port; the smaller of the two towards members");
    world.ports[1].set_mtu(1_300);
    world.run_for(NOTICED_MS);
    assert_eq!(open(&mut world), (1_360, 1_260));
    world.ports.iter().for_each(|port| port.set_mtu(9_000));
    world.run_for(NOTICED_MS);
    assert_eq!(open(&mut world), (8_960, 8_960));
}

#[test]
fn no_mtu_is_too_small_to_go_on() {
    let mut world = World::started(|_| ());
    world.ports.iter().for_each(|port| port.set_mtu(1));
    world.run_for(NOTICED_MS);
    let pieces = world.send(EXTERNAL, &datagram(&[7; 400], true));
    assert!(pieces.len() > 5 && pieces.iter().all(|piece| piece.bytes.len() <= 14 + 68), "RFC 791");
}
