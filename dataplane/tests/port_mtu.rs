//! A port whose MTU changes while sluice runs: what is sent from then on is of the new size.

mod world;

use sluice_dataplane::clock::Instant;
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

/// Virtual server 5 at 192.0.2.101:80 is a full proxy.
fn proxied() -> World {
    World::started(|parts| {
        let mut item = virtual_server(5, "192.0.2.101/32", 80, Protocol::Tcp, 0);
        (item.kind, item.proxy) = (VirtualKind::Standard, Some(std::sync::Arc::default()));
        parts.virtuals.push(item);
        parts.pools[0].members.truncate(1);
    })
}

/// A connection from `port` to it: our SYN-ACK, and our SYN to the member.
fn open(world: &mut World, port: u16) -> (Vec<Out>, Vec<Out>) {
    let syn = Tcp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, dst: "192.0.2.101", ..Tcp::default() };
    let syn = Tcp { src_port: port, flags: SYN, seq: 1_000, ..syn };
    let answer = world.send(EXTERNAL, &build::tcp_with_options(&syn, &[2, 4, 5, 0xb4]));
    let ours = see(&answer[0]);
    assert_eq!(ours.flags, SYN | ACK);
    let ack = Tcp { flags: ACK, seq: 1_001, ack: ours.seq.wrapping_add(1), ..syn };
    let mut asked = world.send(EXTERNAL, &build::tcp(&ack));
    asked.extend(world.run(0));
    (answer, asked)
}

#[test]
fn full_proxies_announce_the_mtu_of_the_moment() {
    let mut world = proxied();
    let mut port = 5_000;
    let mut sizes = |world: &mut World| {
        port += 1;
        let (answer, asked) = open(world, port);
        (announced(&answer), announced(&asked))
    };
    assert_eq!(sizes(&mut world), (1_460, 1_460));
    world.ports[0].set_mtu(1_400);
    world.run_for(NOTICED_MS);
    assert_eq!(
        sizes(&mut world),
        (1_360, 1_360),
        "the client's port; the smaller of the two towards members"
    );
    world.ports[1].set_mtu(1_300);
    world.run_for(NOTICED_MS);
    assert_eq!(sizes(&mut world), (1_360, 1_260));
    world.ports.iter().for_each(|port| port.set_mtu(9_000));
    world.run_for(NOTICED_MS);
    assert_eq!(sizes(&mut world), (8_960, 8_960));
}

#[test]
fn an_open_proxied_connection_sends_no_more_than_a_smaller_mtu_takes() {
    for (mtu, largest) in [(None, 1_460), (Some(1_300), 1_260), (Some(9_000), 1_460)] {
        let mut world = proxied();
        let (_, asked) = open(&mut world, 5_000);
        let syn = asked.iter().find(|out| out.bytes[23] == 6).expect("our SYN");
        let word = |at: usize| u16::from_be_bytes([syn.bytes[at], syn.bytes[at + 1]]);
        let number = (u32::from(word(38)) << 16) | u32::from(word(40));
        let member =
            Tcp { src_mac: member_mac(11), dst_mac: INTERNAL_MAC, src: "10.1.0.11", ..Tcp::default() };
        let member = Tcp { dst: SELF_IN, src_port: 8080, dst_port: word(34), seq: 5_000, ..member };
        let member = Tcp { ack: number.wrapping_add(1), ..member };
        let accepted = Tcp { flags: SYN | ACK, ..member };
        world.send(INTERNAL, &build::tcp_with_options(&accepted, &[2, 4, 5, 0xb4]));
        mtu.into_iter().for_each(|mtu| world.ports[0].set_mtu(mtu));
        world.run_for(NOTICED_MS);
        let data = build::tcp(&Tcp { flags: ACK, seq: 5_001, payload: &[7; 8_000], ..member });
        world.ports[1].send(world.frames.copy_of(&data).expect("a frame")).expect("room");
        for _ in 0..2 {
            world.worker.turn(Instant::from_ms(world.now_ms));
        }
        let sent = std::iter::from_fn(|| world.ports[0].recv());
        let sizes = sent.map(|frame| match frame.offload.segmentation {
            Some(cut) => usize::from(cut.payload_bytes),
            None => frame.len() - 54,
        });
        assert_eq!(sizes.max(), Some(largest), "MTU {mtu:?}");
    }
}

#[test]
fn no_mtu_is_too_small_to_go_on() {
    let mut world = World::started(|_| ());
    world.ports.iter().for_each(|port| port.set_mtu(1));
    world.run_for(NOTICED_MS);
    let pieces = world.send(EXTERNAL, &datagram(&[7; 400], true));
    assert!(pieces.len() > 5 && pieces.iter().all(|piece| piece.bytes.len() <= 14 + 68), "RFC 791");
}
