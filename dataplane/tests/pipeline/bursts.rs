//! Many packets at once: what they make find the room on its way out that it has when they come 32 at a time.

use std::os::fd::RawFd;

use sluice_dataplane::config::ids::PortId;
use sluice_dataplane::config::snapshot::{Parts, Protocol, Snat, VirtualKind};
use sluice_dataplane::frame::{BURST_MAX, Frame, FramePool};
use sluice_dataplane::limits::Limits;
use sluice_dataplane::packet::build::{self, Tcp, Udp};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, RST, SYN};
use sluice_dataplane::packet::rewrite::LinkHeader;
use sluice_dataplane::pipeline::LOOK_AHEAD;
use sluice_dataplane::port::memory::{self, MemoryQueue};
use sluice_dataplane::port::{DriverCounters, PortQueue};
use sluice_dataplane::snat::steer::Owners;
use sluice_dataplane::verdict::DropReason;

use crate::syn;
use crate::world::*;

/// A wire behind a device that sends from memory of its own, as `dpdk` does: what it has taken is the worker's again.
struct Device {
    wire: MemoryQueue,
    memory: FramePool,
}

impl PortQueue for Device {
    fn rx(&mut self, frames: &mut Vec<Frame>) -> usize {
        self.wire.rx(frames)
    }

    fn tx(&mut self, frames: &mut Vec<Frame>) -> usize {
        let copy = |frame: &Frame| self.memory.copy_of(frame.bytes()).expect("as much as the wire holds");
        let mut copies = frames.iter().map(copy).collect();
        let sent = self.wire.tx(&mut copies);
        frames.drain(..sent);
        sent
    }

    fn wait_fd(&self) -> Option<RawFd> {
        None
    }

    fn counters(&mut self) -> DriverCounters {
        DriverCounters::default()
    }

    fn is_link_up(&mut self) -> bool {
        self.wire.is_link_up()
    }
}

/// Room for a burst of packets that are cut in eight, and for the burst behind it.
const WIRE_DEPTH: usize = 2_304;

fn wire() -> Wire {
    let (wire, peer) = memory::pair(WIRE_DEPTH);
    (Box::new(Device { wire, memory: FramePool::new(WIRE_DEPTH + 512) }), peer)
}

/// Workers that answer without a limit to their rate and have no more frames than may wait at their two ports.
fn workers(count: usize, change: impl FnOnce(&mut Parts)) -> Vec<World> {
    let mut parts = usual();
    (parts.settings.max_reject_rate, parts.settings.max_icmp_rate) = (1_000_000, 1_000_000);
    change(&mut parts);
    let limits = Limits { flows: 1_024, half_open: 1_024, frames: 512, ..Limits::default() };
    let mut workers = World::several_on(wire, count, limits, &parts);
    workers[0].start();
    for worker in &mut workers[1..] {
        (0..4).for_each(|_| drop(worker.run(20)));
    }
    workers
}

/// Puts `packets` on a wire.
fn arrive(world: &World, port: PortId, packets: &[Vec<u8>]) {
    for packet in packets {
        let frame = world.frames.copy_of(packet).expect("a frame");
        world.ports[usize::from(port.0)].send(frame).expect("room on the wire");
    }
}

/// What comes out of each port when `packets` come `at_once` at a time, a turn each. Nothing is lost for want of room.
fn through(mut world: World, packets: &[Vec<u8>], at_once: usize) -> [Vec<Vec<u8>>; 2] {
    let mut out = Vec::new();
    for part in packets.chunks(at_once) {
        arrive(&world, EXTERNAL, part);
        out.extend(world.run(0));
    }
    assert_none_lost(&world, &format!("{at_once} at once"));
    by_port(out)
}

fn assert_none_lost(world: &World, when: &str) {
    let lost = [DropReason::TxFull, DropReason::NoFrame, DropReason::HandoffFull]
        .map(|reason| (reason.name(), world.drops(reason)));
    assert!(lost.iter().all(|(_, count)| *count == 0), "{when}: {lost:?}");
}

fn by_port(out: Vec<Out>) -> [Vec<Vec<u8>>; 2] {
    let mut ports = [Vec::new(), Vec::new()];
    out.into_iter().for_each(|out| ports[usize::from(out.port.0)].push(out.bytes));
    ports
}

/// Datagram `number` of a flow, which may be cut on its way.
fn datagram(flow: u16, number: u16, dst: &str, len: usize) -> Vec<u8> {
    let mut payload: Vec<u8> = (0..len).map(|index| (index * 7) as u8).collect();
    payload[..4].copy_from_slice(&[flow.to_be_bytes(), number.to_be_bytes()].concat());
    let udp = Udp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, src_port: 2_000 + flow, ..Udp::default() };
    let mut bytes = build::udp(&Udp { dst, payload: &payload, ..udp });
    build::patch_ipv4(&mut bytes, |header| header[6] = 0);
    bytes
}

/// The packets whose pieces, one after the other, `frames` are.
fn put_together(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let is_last = |frame: &Vec<u8>| frame[20] & 0x20 == 0;
    frames.split_inclusive(is_last).map(build::reassemble).collect()
}

/// The flow and the number of a datagram.
fn label(packet: &[u8]) -> (u16, u16) {
    let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    (word(42), word(44))
}

/// Every datagram has come out as it was, those of each flow in order.
fn assert_whole_and_in_order(sent: &[Vec<u8>], out: &[Vec<u8>]) {
    let out = put_together(out);
    assert_eq!(out.len(), sent.len());
    for flow in 0..FLOWS {
        let of_flow = |packet: &&Vec<u8>| label(packet).0 == flow;
        let (came, went) = (out.iter().filter(of_flow), sent.iter().filter(of_flow));
        let is_same = came.clone().map(|packet| &packet[42..]).eq(went.map(|packet| &packet[42..]));
        assert!(is_same, "flow {flow}: {:?}", came.map(|packet| label(packet).1).collect::<Vec<_>>());
    }
}

const FLOWS: u16 = 16;

/// Data of a datagram that needs eight packets of 1,500: as many frames for 32 of them as may wait.
const LARGE: usize = 10_400;
const PIECES: usize = 8;

#[test]
fn a_burst_of_packets_that_are_cut_in_eight_loses_none_and_keeps_each_flow_in_order() {
    for small_each in [usize::MAX, 3] {
        let len = |number: usize| if (number + 1).is_multiple_of(small_each) { 100 } else { LARGE };
        let one = |number: usize| {
            let (flow, place) = (number as u16 % FLOWS, number as u16 / FLOWS);
            datagram(flow, place, VIRTUAL, len(number))
        };
        let packets: Vec<_> = (0..BURST_MAX).map(one).collect();
        let [back, out] = through(workers(1, |_| ()).remove(0), &packets, BURST_MAX);
        let small = BURST_MAX / small_each;
        assert_eq!((back.len(), out.len()), (0, (BURST_MAX - small) * PIECES + small));
        assert_whole_and_in_order(&packets, &out);
        let in_parts = through(workers(1, |_| ()).remove(0), &packets, LOOK_AHEAD);
        assert!(in_parts == [back, out], "the same as 32 at a time");
    }
}

/// What one part of a burst has left, a single frame even, takes no room from what comes of the next.
#[test]
fn answers_behind_answers_find_room_by_the_frame() {
    let to_nobody =
        |number: u16, flags| build::tcp(&Tcp { dst_port: 81, src_port: 2_000 + number, flags, ..syn() });
    let one = |number: u16| match (number / LOOK_AHEAD as u16 % 4, number % LOOK_AHEAD as u16) {
        (0, _) | (2, 0) => to_nobody(number, SYN),
        (2, _) => to_nobody(number, RST),
        _ => ping(number, LARGE),
    };
    let packets: Vec<_> = (0..BURST_MAX as u16).map(one).collect();
    let [back, out] = through(workers(1, |_| ()).remove(0), &packets, BURST_MAX);
    let is_ping = |packet: &Vec<u8>| packet[23] == 1;
    let (pieces, resets): (Vec<_>, Vec<_>) = back.iter().cloned().partition(is_ping);
    assert_eq!((resets.len(), pieces.len(), out.len()), (2 * (LOOK_AHEAD + 1), 128 * PIECES, 0));
    assert!(resets.is_sorted_by_key(|reset| [reset[36], reset[37]]), "by the port they go to");
    let (pings, asked) = (put_together(&pieces), packets.iter().filter(|packet| is_ping(packet)));
    assert!(pings.iter().map(|ping| &ping[38..]).eq(asked.map(|ping| &ping[38..])), "in order");
    assert!(through(workers(1, |_| ()).remove(0), &packets, LOOK_AHEAD) == [back, out]);
}

/// Asks for an echo of `len` bytes, number `number`.
fn ping(number: u16, len: usize) -> Vec<u8> {
    let link = LinkHeader { destination: EXTERNAL_MAC, source: CLIENT_MAC, vlan: 0 };
    let message = [&[8, 0, 0, 0, 0, 1][..], &number.to_be_bytes(), &vec![5; len]].concat();
    build::packet(link, CLIENT, VIRTUAL, 64, 1, &message, 2)
}

#[test]
fn a_burst_of_strays_that_are_cut_in_eight_loses_none() {
    let mut workers = workers(2, |_| ());
    let all = (0..u16::MAX).map(|number| datagram(number % FLOWS, number / FLOWS, VIRTUAL, LARGE));
    let others = |packet: &Vec<u8>| Owners::new(2).of_frame(packet) == 1;
    let packets: Vec<_> = all.filter(others).take(BURST_MAX).collect();
    arrive(&workers[0], EXTERNAL, &packets);
    assert_eq!((workers[0].run(0).len(), workers[0].counters.misdirected.load()), (0, BURST_MAX as u64));
    let [back, out] = by_port(workers[1].run(0));
    workers.iter().for_each(|worker| assert_none_lost(worker, "strays"));
    assert_eq!((back.len(), out.len()), (0, BURST_MAX * PIECES), "in one turn");
    assert_whole_and_in_order(&packets, &out);
}

#[test]
fn next_hops_that_bursts_of_two_ports_ask_for_are_all_asked() {
    const HOSTS: u16 = 250;
    let mut world = workers(1, |parts| forward(parts, "10.1.0.0/16")).remove(0);
    let host = |number: u16| format!("10.1.{}.{}", number / HOSTS + 1, number % HOSTS + 1);
    let inner = Udp { src_mac: member_mac(11), dst_mac: INTERNAL_MAC, src: "10.1.0.11", ..Udp::default() };
    let from_outside = (0..HOSTS).map(|number| datagram(1, number, &host(number), 100));
    let from_inside = (HOSTS..2 * HOSTS).map(|number| build::udp(&Udp { dst: &host(number), ..inner }));
    arrive(&world, EXTERNAL, &from_outside.collect::<Vec<_>>());
    arrive(&world, INTERNAL, &from_inside.collect::<Vec<_>>());
    let [_, out] = by_port(world.run(0));
    assert_none_lost(&world, "questions");
    assert_eq!(out.len(), usize::from(2 * HOSTS));

    let answer = |number| arp(2, member_mac(number as u8), &host(number), SELF_IN);
    arrive(&world, INTERNAL, &(0..HOSTS).map(answer).collect::<Vec<_>>());
    let [_, out] = by_port(world.run(0));
    let came = out.iter().map(|packet| label(packet));
    assert!(came.eq((0..HOSTS).map(|number| (1, number))), "what waited, in order");
}

#[test]
fn what_waited_for_a_next_hop_goes_before_what_comes_behind_its_answer() {
    const WAITING: u16 = 64;
    let mut world = workers(1, |parts| forward(parts, "10.1.0.0/16")).remove(0);
    let inner = Udp { src_mac: member_mac(11), dst_mac: INTERNAL_MAC, src: "10.1.0.11", ..Udp::default() };
    let one = |number: u16| build::udp(&Udp { dst: "10.1.1.1", payload: &number.to_be_bytes(), ..inner });
    arrive(&world, INTERNAL, &(0..WAITING).map(one).collect::<Vec<_>>());
    assert_eq!(world.run(0).len(), 1, "a question");

    let answer = [arp(2, member_mac(1), "10.1.1.1", SELF_IN)];
    let behind = (WAITING..WAITING + 255).map(one);
    arrive(&world, INTERNAL, &answer.into_iter().chain(behind).collect::<Vec<_>>());
    let [_, out] = by_port(world.run(0));
    let came: Vec<_> = out.iter().map(|packet| u16::from_be_bytes([packet[42], packet[43]])).collect();
    assert_eq!(came, (0..WAITING + 255).collect::<Vec<_>>());
}

/// Whatever is for `to`, which is on the link inside, passes.
fn forward(parts: &mut Parts, to: &str) {
    parts.self_ips[1] = self_ip("10.1.0.10/16", INSIDE);
    let mut forward = virtual_server(3, to, 0, Protocol::Any, 0);
    (forward.kind, forward.pool, forward.snat) = (VirtualKind::ForwardingIp, None, Snat::None);
    parts.virtuals.push(forward);
}

#[test]
fn flows_that_end_together_lose_no_reset() {
    const GROUPS: u16 = 2;
    let mut world = workers(1, |parts| parts.virtuals[0].timeouts.idle_ms = 2_000).remove(0);
    for group in 0..GROUPS {
        establish_many(&mut world, 2_000 + group * BURST_MAX as u16);
    }
    let flows = usize::from(GROUPS) * BURST_MAX;
    assert_eq!(world.open_connections(0), flows as u64);
    let [to_client, to_member] = by_port(world.run(2_500));
    assert_eq!((to_client.len(), to_member.len()), (flows, flows), "in one turn");
    assert!(to_client.iter().chain(&to_member).all(|bytes| bytes[47] == RST | ACK));
    assert_eq!((world.open_connections(0), world.all_drops()), (0, vec![]));
}

/// Opens a burst of connections, from client ports from `first` on.
fn establish_many(world: &mut World, first: u16) {
    let ports = first..first + BURST_MAX as u16;
    let syns: Vec<_> = ports.clone().map(|src_port| build::tcp(&Tcp { src_port, ..syn() })).collect();
    arrive(world, EXTERNAL, &syns);
    let accepted = |out: &Out| {
        let asked = see(out);
        build::tcp(&Tcp {
            src_mac: asked.dst_mac,
            dst_mac: INTERNAL_MAC,
            src: &asked.dst.0,
            dst: &asked.src.0,
            src_port: asked.dst.1,
            dst_port: asked.src.1,
            flags: SYN | ACK,
            seq: 5_000,
            ack: 1_001,
            ..Tcp::default()
        })
    };
    let answers: Vec<_> = world.run(0).iter().map(accepted).collect();
    arrive(world, INTERNAL, &answers);
    assert_eq!(world.run(0).len(), BURST_MAX);
    let acks = ports.map(|src_port| Tcp { src_port, flags: ACK, seq: 1_001, ack: 5_001, ..syn() });
    arrive(world, EXTERNAL, &acks.map(|ack| build::tcp(&ack)).collect::<Vec<_>>());
    assert_eq!(world.run(0).len(), BURST_MAX);
}
