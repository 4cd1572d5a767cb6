//! Connections that live through one apply after another.

use sluice_tests::farm::connect_at_once;
use sluice_tests::peer::{self, Service};
use sluice_tests::{LinkKind, World, config, wait};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The pool's two members are those on `port`; the other virtual server translates by `snat`.
fn text(port: u16, snat: &str) -> String {
    let members = format!("[{{address: 10.1.0.11, port: {port}}}, {{address: 10.1.0.12, port: {port}}}]");
    let rest = format!(
        "pools:
  echo: {{members: {members}}}
  web: {{members: [{{address: 10.1.0.11, port: 8080}}]}}
virtual_servers:
  echo: {{destination: \"{VIRTUAL}\", pool: echo, snat: automap}}
  web: {{destination: \"192.0.2.100:80\", pool: web, snat: {snat}}}
"
    );
    config::network_and(&rest).replace("workers: 1", "workers: 3")
}

/// Sends and receives on all streams in turn until told to stop; gives the number of rounds.
fn speak(mut streams: Vec<TcpStream>, seed: usize, stop: &AtomicBool) -> usize {
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        for (number, stream) in streams.iter_mut().enumerate() {
            let text = peer::pattern((seed * 1_000_000 + number * 10_000 + round) as u64, 700);
            let back = peer::echo(stream, &text);
            let back =
                back.unwrap_or_else(|error| panic!("connection {seed}/{number}, round {round}: {error}"));
            assert!(back == text, "connection {seed}/{number}, round {round}: another's bytes");
        }
        round += 1;
    }
    round
}

#[test]
fn no_connection_notices_that_members_come_and_go_and_snat_changes() {
    let Some(world) = World::start(LinkKind::Veth, &text(9000, "automap")) else { return };
    let serve = |server: &sluice_tests::Server| {
        [9000, 9001].map(|port| Service::tcp_echo(&server.namespace, port, ""))
    };
    let _services: Vec<_> = world.lab.servers().iter().flat_map(serve).collect();
    let tried = connect_at_once(&world, VIRTUAL, 100);
    assert_eq!(tried.open.len(), 100, "{:?}", tried.refused);
    let mut streams = tried.open;
    let mut shown = peer::connect(world.lab.client(), "192.0.2.100:80").expect("a connection");

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        let speakers: Vec<_> = (0..4)
            .map(|seed| (seed, streams.split_off(streams.len() - 25)))
            .map(|(seed, streams)| scope.spawn(move || speak(streams, seed, stop)))
            .collect();
        let _stop = StopOnDrop(stop);
        for round in 0..50_u16 {
            world.sluice.apply(&text(9001 - round % 2, if round % 2 == 0 { "none" } else { "automap" }));
            let mut new = peer::connect(world.lab.client(), VIRTUAL).expect("a new connection");
            assert_eq!(peer::echo(&mut new, b"new").expect("an echo"), b"new");
            assert!(world.curl("http://192.0.2.100/").starts_with("server"), "round {round}");
            wait::pass(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        for speaker in speakers {
            assert!(speaker.join().expect("no panic") > 50, "each spoke all along");
        }
    });
    assert_eq!(peer::fetch(&mut shown).expect("an answer"), "server1", "opened before its SNAT went");
}

/// Lets the other threads end when this one panics.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

const VIRTUAL: &str = "192.0.2.100:9000";
