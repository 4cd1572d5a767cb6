//! How long a mapping lives, which port it has, and what comes unasked (RFC 5382 REQ-5, RFC 4787).

use sluice_dataplane::config::snapshot::Timeouts;
use sluice_dataplane::packet::build::{self, Tcp};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, RST, SYN};

use crate::Step::{Client, Ends, Is, Member, Pass};
use crate::world::*;
use crate::{OPEN, after_open, answer, ask, member, take, wait};

#[test]
fn idle_times_are_what_is_configured() {
    after_open("five minutes by default", &[Pass(299_000), Ends(1_500), Is("gone")]);
    let long = Timeouts { idle_ms: 7_440_000, close_ms: 240_000, handshake_ms: 240_000, ..Timeouts::TCP };
    let mut world = World::started(|parts| {
        parts.pools[0].members.truncate(1);
        parts.virtuals[0].timeouts = long;
    });
    for step in OPEN.iter().chain(&[
        Pass(7_300_000),
        Client(ACK, 1_001, 5_001, 0),
        Pass(7_400_000),
        Is("established"),
        Member(RST, 5_001, 0, 0),
        Pass(239_000),
        Is("closing"),
        Pass(1_500),
        Is("gone"),
        Client(SYN, 5, 0, 0),
        Pass(239_000),
        Is("syn-sent"),
        Pass(1_500),
        Is("gone"),
    ]) {
        take(&mut world, step, "two hours and four minutes");
    }
}

#[test]
fn udp_is_kept_by_packets_of_either_side() {
    for from_client in [true, false] {
        let mut world = World::started(|_| ());
        assert_eq!(ask(&mut world).len(), 1);
        for _ in 0..4 {
            wait(&mut world, 59_000);
            let out = if from_client { ask(&mut world) } else { answer(&mut world) };
            assert_eq!(out.len(), 1);
        }
        wait(&mut world, 60_200);
        assert!(world.flows().is_empty(), "60 s by default");
    }
    let mut world = World::started(|parts| parts.virtuals[2].timeouts.idle_ms = 300_000);
    ask(&mut world);
    wait(&mut world, 299_000);
    assert_eq!(answer(&mut world).len(), 1, "five minutes where that is configured (RFC 4787 REQ-5c)");
}

#[test]
fn one_client_port_keeps_one_source_port_and_one_member() {
    let mut world = World::started(|_| ());
    let first = only(&ask(&mut world));
    for _ in 0..10 {
        wait(&mut world, 5_000);
        assert_eq!(only(&ask(&mut world)).src, first.src);
    }
}

#[test]
fn an_unsolicited_syn_to_a_source_address_is_refused_at_once() {
    let mut world = World::started(|_| ());
    let stranger = Tcp { flags: SYN, seq: 9, src_port: 999, ..member() };
    let out = only(&world.send(INTERNAL, &build::tcp(&stranger)));
    assert_eq!((out.port, out.flags), (INTERNAL, RST | ACK));
    assert_eq!(world.all_drops(), [("no-virtual", 1)]);
}
