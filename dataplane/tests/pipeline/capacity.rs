//! What happens when something is full.

use sluice_dataplane::config::ids::VirtualId;
use sluice_dataplane::limits::Limits;
use sluice_dataplane::packet::build::{self, Tcp, Udp};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, RST, SYN};
use sluice_dataplane::verdict::DropReason;

use crate::world::*;
use crate::{establish, send, syn};

#[test]
fn a_full_flow_table_refuses_udp_and_evicts_half_open_tcp_only() {
    let limits = Limits { flows: 4, half_open: 4, frames: 64, ..Limits::default() };
    let mut world = World::with_limits(limits, |_| ());
    world.start();
    establish(&mut world);
    let udp = |port| {
        let udp = Udp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, src_port: port, ..Udp::default() };
        build::udp(&udp)
    };
    world.send(EXTERNAL, &udp(1));
    world.send(EXTERNAL, &udp(2));
    world.send(EXTERNAL, &udp(3));
    world.send(EXTERNAL, &udp(4));
    assert_eq!(world.drops(DropReason::FlowTableFull), 1);
    assert_eq!(only(&send(&mut world, EXTERNAL, &Tcp { src_port: 7, ..syn() })).flags, RST | ACK);
    assert_eq!(world.flows().len(), 4);
    assert!(world.flows().iter().any(|flow| flow.state == "established"));
}

#[test]
fn a_syn_flood_evicts_the_oldest_half_open_flow_and_nothing_else() {
    let limits = Limits { flows: 64, half_open: 8, frames: 64, ..Limits::default() };
    let mut world = World::with_limits(limits, |_| ());
    world.start();
    establish(&mut world);
    for port in 0..200 {
        assert_eq!(only(&send(&mut world, EXTERNAL, &Tcp { src_port: 2_000 + port, ..syn() })).flags, SYN);
    }
    let flows = world.flows();
    assert_eq!(flows.len(), 9);
    assert!(flows.iter().any(|flow| flow.state == "established"));
    assert!(
        flows.iter().any(|flow| flow.client.1 == 2_199) && !flows.iter().any(|flow| flow.client.1 == 2_000)
    );
    assert_eq!(world.drops(DropReason::HalfOpenFull), 192);
    assert_eq!(world.counters.of_virtual(VirtualId(0)).unwrap().connections.current.load(), 9);
}

#[test]
fn no_half_open_flow_at_all_is_a_refusal() {
    let limits = Limits { flows: 64, half_open: 0, frames: 64, ..Limits::default() };
    let mut world = World::with_limits(limits, |_| ());
    world.start();
    assert_eq!(only(&send(&mut world, EXTERNAL, &syn())).flags, RST | ACK);
    assert_eq!(world.drops(DropReason::HalfOpenFull), 1);
}

#[test]
fn exhausted_ports_are_counted_and_answered() {
    let limits = Limits { flows: 70_000, half_open: 70_000, frames: 64, ..Limits::default() };
    let mut world = World::with_limits(limits, |parts| parts.pools[0].members.truncate(1));
    world.start();
    let mut opened = 0;
    for host in 0..3u32 {
        let src = format!("198.51.100.{}", host + 10);
        for port in 1_024..=u16::MAX {
            let out = send(&mut world, EXTERNAL, &Tcp { src: &src, src_port: port, ..syn() });
            if out.len() == 1 && see(&out[0]).flags == SYN {
                opened += 1;
            }
            if host == 1 && port == 1_100 {
                break;
            }
        }
        if host == 1 {
            break;
        }
    }
    assert_eq!(opened, 64_512, "every port of one address towards one member, and not one more");
    assert_eq!(world.drops(DropReason::SnatExhausted), 77);
}

#[test]
fn a_full_wire_is_counted() {
    let mut world = World::started(|_| ());
    establish(&mut world);
    let bytes = build::tcp(&Tcp { flags: ACK, seq: 1_001, ..syn() });
    let now = sluice_dataplane::clock::Instant::from_ms(world.now_ms);
    // What the wire holds, this port's part of what may wait of the worker's frames, and ten more.
    for _ in 0..1_024 + 256 + 10 {
        world.ports[0].send(world.frames.copy_of(&bytes).unwrap()).unwrap();
        world.worker.turn(now);
    }
    assert_eq!(world.drops(DropReason::TxFull), 10);
}

#[test]
fn answers_without_frame_memory_are_counted() {
    let limits = Limits { flows: 64, half_open: 64, frames: 1, ..Limits::default() };
    let mut world = World::with_limits(limits, |_| ());
    world.run_for(200);
    let ask = arp(1, CLIENT_MAC, "192.0.2.77", VIRTUAL);
    let now = sluice_dataplane::clock::Instant::from_ms(world.now_ms);
    world.ports[0].send(world.frames.copy_of(&ask).unwrap()).unwrap();
    world.ports[0].send(world.frames.copy_of(&ask).unwrap()).unwrap();
    let before = world.drops(DropReason::NoFrame);
    world.worker.turn(now);
    assert_eq!(world.drops(DropReason::NoFrame), before + 1);
}
