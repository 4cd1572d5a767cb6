//! Timeouts, and ports that are used again.

use sluice_dataplane::config::ids::VirtualId;
use sluice_dataplane::config::snapshot::{Parts, Protocol};
use sluice_dataplane::limits::Limits;
use sluice_dataplane::packet::build::{self, Tcp, Udp};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, FIN, RST, SYN};
use sluice_dataplane::verdict::DropReason;

use crate::world::*;
use crate::{establish, from_member, send, syn};

#[test]
fn half_open_flows_end_after_the_handshake_timeout() {
    let mut world = World::started(|_| ());
    send(&mut world, EXTERNAL, &syn());
    world.run_for(4_900);
    assert_eq!(world.flows().len(), 1);
    world.run_for(200);
    assert_eq!(world.flows().len(), 0);
    assert_eq!(world.counters.of_virtual(VirtualId(0)).unwrap().connections.current.load(), 0);
}

#[test]
fn a_client_has_the_whole_time_for_its_answer_to_a_member_that_was_slow() {
    let mut world = World::started(|_| ());
    send(&mut world, EXTERNAL, &syn());
    world.run_for(4_000);
    send(&mut world, INTERNAL, &from_member(SYN | ACK, 5_000, 1_001));
    world.run_for(4_000);
    // Once only: a member that repeats itself keeps nothing.
    send(&mut world, INTERNAL, &from_member(SYN | ACK, 5_000, 1_001));
    assert_eq!(world.run_for(900), []);
    let resets = world.run_for(300);
    assert_eq!(resets.len(), 2, "one to each side");
    assert_eq!(world.flows().len(), 0);
}

/// Puts `count` segments of no connection into the external queue, for the worker to find at its next turns.
fn fill_queue(world: &World, count: usize) {
    let stray = build::tcp(&Tcp { src_port: 9, flags: ACK, ..syn() });
    for _ in 0..count {
        let frame = world.frames.copy_of(&stray).expect("frame memory");
        world.ports[usize::from(EXTERNAL.0)].send(frame).expect("room on the wire");
    }
}

#[test]
fn a_pause_of_the_worker_ends_no_handshake_whose_packets_wait() {
    let mut world = World::started(|_| ());
    send(&mut world, EXTERNAL, &syn());
    send(&mut world, INTERNAL, &from_member(SYN | ACK, 5_000, 1_001));
    fill_queue(&world, 1_000);
    let ack = Tcp { flags: ACK, seq: 1_001, ack: 5_001, ..syn() };
    let frame = world.frames.copy_of(&build::tcp(&ack)).expect("frame memory");
    world.ports[usize::from(EXTERNAL.0)].send(frame).expect("room on the wire");
    world.run(6_000);
    assert_eq!(world.flows()[0].state, "syn-received");
    (0..20).for_each(|_| drop(world.run(0)));
    assert_eq!(world.flows()[0].state, "established");
    world.run_for(5_100);
    assert_eq!(world.flows().len(), 1);
}

#[test]
fn packets_without_end_do_not_keep_flows_whose_time_is_up() {
    let mut world = World::started(|_| ());
    send(&mut world, EXTERNAL, &syn());
    world.run_for(4_000);
    let turns = (0..1_000).take_while(|_| {
        fill_queue(&world, 32);
        world.run(20);
        !world.flows().is_empty()
    });
    let turns = turns.count();
    assert!((50..400).contains(&turns), "{turns} turns");
}

/// Clients' ports of the flows there are.
fn ports_of_flows(world: &mut World) -> Vec<u16> {
    let mut ports: Vec<_> = world.flows().iter().map(|flow| flow.client.1).collect();
    ports.sort_unstable();
    ports
}

/// Virtual server 0 waits long for handshakes, another at 192.0.2.101 does not.
fn patient_and_not(parts: &mut Parts) {
    parts.virtuals[0].timeouts.handshake_ms = 60_000;
    parts.virtuals.push(virtual_server(3, "192.0.2.101/32", 80, Protocol::Tcp, 0));
}

#[test]
fn a_long_handshake_timeout_does_not_keep_half_open_flows_of_others() {
    let mut world = World::started(patient_and_not);
    send(&mut world, EXTERNAL, &Tcp { src_port: 1_001, ..syn() });
    send(&mut world, EXTERNAL, &Tcp { src_port: 1_002, dst: "192.0.2.101", ..syn() });
    world.run_for(4_900);
    assert_eq!(ports_of_flows(&mut world), [1_001, 1_002]);
    world.run_for(300);
    assert_eq!(ports_of_flows(&mut world), [1_001]);
    world.run_for(54_600);
    assert_eq!(ports_of_flows(&mut world), [1_001]);
    world.run_for(500);
    assert_eq!(ports_of_flows(&mut world), []);
}

#[test]
fn the_half_open_flow_that_makes_room_is_the_oldest_whatever_its_timeout() {
    let limits = Limits { flows: 64, half_open: 3, frames: 64, ..Limits::default() };
    let mut world = World::with_limits(limits, patient_and_not);
    world.start();
    for (port, dst) in [(1_001, "192.0.2.101"), (1_002, VIRTUAL), (1_003, "192.0.2.101")] {
        send(&mut world, EXTERNAL, &Tcp { src_port: port, dst, ..syn() });
    }
    world.run_for(1_000);
    send(&mut world, EXTERNAL, &Tcp { src_port: 1_001, dst: "192.0.2.101", ..syn() });
    for port in [1_004, 1_005] {
        send(&mut world, EXTERNAL, &Tcp { src_port: port, dst: "192.0.2.101", ..syn() });
    }
    assert_eq!(ports_of_flows(&mut world), [1_003, 1_004, 1_005]);
    assert_eq!(world.drops(DropReason::HalfOpenFull), 2);
    world.run_for(5_300);
    let half_open = world.counters.half_open.load();
    assert_eq!((ports_of_flows(&mut world), half_open), (vec![], 0));
}

#[test]
fn an_idle_connection_is_reset_on_both_sides_with_the_numbers_they_expect() {
    let mut world = World::started(|parts| parts.virtuals[0].timeouts.idle_ms = 2_000);
    establish(&mut world);
    send(&mut world, EXTERNAL, &Tcp { flags: ACK, seq: 1_001, ack: 5_001, payload: &[0; 9], ..syn() });
    let out: Vec<_> = world.run_for(2_500).iter().map(see).collect();
    assert_eq!(out.len(), 2, "{out:?}");
    let client = out.iter().find(|seen| seen.port == EXTERNAL).unwrap();
    let member = out.iter().find(|seen| seen.port == INTERNAL).unwrap();
    assert_eq!((client.flags, client.seq, client.ack), (RST | ACK, 5_001, 1_010));
    assert_eq!((&client.src.0[..], client.dst_mac), (VIRTUAL, CLIENT_MAC));
    assert_eq!((member.flags, member.seq, member.ack), (RST | ACK, 1_010, 5_001));
    assert_eq!((&member.dst.0[..], member.dst_mac), ("10.1.0.11", member_mac(11)));
    assert!(world.flows().is_empty());
}

#[test]
fn traffic_keeps_a_connection_open() {
    let mut world = World::started(|parts| parts.virtuals[0].timeouts.idle_ms = 2_000);
    establish(&mut world);
    for step in 0..10 {
        world.run_for(1_500);
        send(&mut world, EXTERNAL, &Tcp { flags: ACK, seq: 1_001 + step, ..syn() });
    }
    assert_eq!(world.flows().len(), 1);
}

#[test]
fn an_orderly_close_frees_everything_after_the_close_timeout() {
    let mut world = World::started(|_| ());
    establish(&mut world);
    send(&mut world, EXTERNAL, &Tcp { flags: FIN | ACK, seq: 1_001, ack: 5_001, ..syn() });
    send(&mut world, INTERNAL, &from_member(FIN | ACK, 5_001, 1_002));
    send(&mut world, EXTERNAL, &Tcp { flags: ACK, seq: 1_002, ack: 5_002, ..syn() });
    assert_eq!(world.flows()[0].state, "closing");
    assert_eq!(world.run_for(5_500), [], "no reset for a connection that is over");
    assert!(world.flows().is_empty());
    world.run(200);
    assert_eq!(world.counters.snat_ports.load(), 0);
}

#[test]
fn a_client_may_open_anew_with_the_ports_of_a_closed_connection() {
    let mut world = World::started(|_| ());
    establish(&mut world);
    send(&mut world, INTERNAL, &from_member(RST, 5_001, 0));
    assert_eq!(world.flows()[0].state, "closing");
    let again = only(&send(&mut world, EXTERNAL, &Tcp { seq: 9_000, ..syn() }));
    assert_eq!((again.flags, again.seq), (SYN, 9_000));
    assert_eq!(world.flows()[0].state, "syn-sent");
    assert_eq!(world.flows().len(), 1);
}

#[test]
fn a_late_copy_of_the_first_syn_does_not_end_a_closing_connection() {
    let mut world = World::started(|_| ());
    establish(&mut world);
    send(&mut world, EXTERNAL, &Tcp { flags: FIN | ACK, seq: 1_001, ack: 5_001, ..syn() });
    send(&mut world, INTERNAL, &from_member(FIN | ACK, 5_001, 1_002));
    assert_eq!(world.flows()[0].state, "closing");
    send(&mut world, EXTERNAL, &syn());
    assert_eq!(world.flows()[0].state, "closing");
    let again = only(&send(&mut world, INTERNAL, &from_member(FIN | ACK, 5_001, 1_002)));
    assert_eq!(again.dst, (CLIENT.into(), 40_000), "the member's last packet still reaches the client");
}

#[test]
fn udp_flows_end_when_idle() {
    let mut world = World::started(|_| ());
    let ask = Udp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, ..Udp::default() };
    world.send(EXTERNAL, &build::udp(&ask));
    world.run_for(59_000);
    assert_eq!(world.flows().len(), 1);
    world.run_for(2_000);
    assert!(world.flows().is_empty());
}
