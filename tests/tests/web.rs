//! Curl through sluice to nginx: IPv4 and IPv6, macvlan and veth, bulk both ways, members swapped under load.

use sluice_tests::file::{RandomFile, sha256};
use sluice_tests::peer::{self, Service, pattern};
use sluice_tests::{LinkKind, World, config, run, show, world};
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const URL4: &str = "http://192.0.2.100/";
const URL6: &str = "http://[2001:db8:1::100]/";

#[test]
fn curl_reaches_both_servers_in_turn_on_macvlan() {
    curl_reaches_both_servers_in_turn(LinkKind::Macvlan);
}

#[test]
fn curl_reaches_both_servers_in_turn_on_veth() {
    curl_reaches_both_servers_in_turn(LinkKind::Veth);
}

fn curl_reaches_both_servers_in_turn(link: LinkKind) {
    let Some(world) = World::start(link, &config::web()) else { return };
    for url in [URL4, URL6] {
        let members = world.members_of(url, 10);
        let fair = [("server1".to_owned(), 5), ("server2".to_owned(), 5)];
        assert_eq!(members, fair.into(), "{url} over {link}");
    }
}

#[test]
fn large_transfers_arrive_whole_on_macvlan() {
    large_transfers_arrive_whole(LinkKind::Macvlan);
}

#[test]
fn large_transfers_arrive_whole_on_veth() {
    large_transfers_arrive_whole(LinkKind::Veth);
}

/// 1 GiB down and 256 MiB up, on the offloads that the links come with: frames of up to 64 KiB.
fn large_transfers_arrive_whole(link: LinkKind) {
    let Some(world) = World::start(link, &config::web()) else { return };
    let file = RandomFile::write(1 << 30);
    let sum = sha256(&file.path);
    for server in world.lab.servers() {
        std::os::unix::fs::symlink(&file.path, server.nginx.www().join("random")).expect("a link");
    }
    for url in [URL4, URL6] {
        let start = Instant::now();
        let mut shell = world.lab.client().command("bash");
        let pipe = "set -o pipefail; curl -sSf --max-time 120 \"$0\" | sha256sum";
        let got = run(shell.args(["-c", pipe, &format!("{url}random")]));
        assert_eq!(got.split_whitespace().next(), Some(sum.as_str()), "{url} over {link}");
        println!("1 GiB over {link} from {url}: {:?}", start.elapsed());
    }
    assert_super_frames(&world, "internal");

    let part = RandomFile::write(256 << 20);
    let sum = sha256(&part.path);
    for url in [URL4, URL6] {
        let mut curl = world::curl(world.lab.client());
        let headers = run(curl
            .args(["--max-time", "120", "-D", "-", "-T"])
            .arg(&part.path)
            .arg(format!("{url}upload/up")));
        let server = headers.to_ascii_lowercase();
        let server = world
            .lab
            .servers()
            .iter()
            .enumerate()
            .find(|(at, _)| server.contains(&format!("server{}", at + 1)));
        let stored = server.expect("a server's name").1.nginx.www().join("upload/up");
        assert_eq!(sha256(&stored), sum, "{url} over {link}");
        fs::remove_file(stored).expect("the file is there");
    }
}

/// Frames larger than the MTU came in on `port`: nobody turned the peers' offloads off.
fn assert_super_frames(world: &World, port: &str) {
    let port = world.sluice.object("ports", port);
    let (frames, bytes) =
        (show::number(&port, "/traffic/packets_in"), show::number(&port, "/traffic/bytes_in"));
    println!("{bytes} bytes in {frames} frames");
    assert!(bytes / frames > 3000, "frames of {} bytes on average: {port}", bytes / frames);
}

/// 200 connections at a time, each echoing text of its own, while the members change ten times a second.
#[test]
fn members_are_swapped_ten_times_a_second_and_no_connection_fails() {
    let pool = |ports: [u16; 2]| {
        let member = |(host, port): (u8, u16)| format!("address: 10.1.0.{host}, port: {port}");
        let members = [member((11, ports[0])), member((12, ports[1]))];
        config::pool_of("", &[&members[0], &members[1]])
    };
    let swaps = [pool([9001, 9001]), pool([9002, 9001]), pool([9002, 9002]), pool([9001, 9002])];
    let Some(world) = World::start(LinkKind::Veth, &swaps[0]) else { return };
    let servers = world.lab.servers();
    let _services: Vec<_> = servers
        .iter()
        .flat_map(|server| [9001, 9002].map(|port| Service::tcp_echo(&server.namespace, port, "")))
        .collect();

    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let applying = scope.spawn(|| swap_members(&world, &swaps));
        let flood = || flood(200, &|| applying.is_finished(), &done);
        world.lab.client().enter(flood).expect("the client's namespace");
        applying.join().expect("every apply succeeds");
    });
    let done = done.into_inner();
    println!("{done} connections, {APPLIES} applies");
    assert!(done >= 200, "only {done} connections");
}

/// Puts each of `swaps` in force in turn, ten a second where the machine allows it.
fn swap_members(world: &World, swaps: &[String]) {
    let start = Instant::now();
    for turn in 0..APPLIES {
        let answer = put_config(world, &swaps[turn % swaps.len()]);
        assert_eq!(answer.status, 200, "{answer:?}");
        let next = start + Duration::from_millis(100) * (turn as u32 + 1);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn put_config(world: &World, text: &str) -> sluice_tests::api::Answer {
    let header = "Content-Type: application/yaml\r\n";
    sluice_tests::api::request(&world.sluice.socket(), "PUT", "/v1/config", header, text).expect("an answer")
}

/// `count` threads, each opening connections until it `is_over`; a connection lives through many applies.
fn flood(count: u64, is_over: &(impl Fn() -> bool + Sync), done: &AtomicU64) {
    std::thread::scope(|scope| {
        for thread in 0..count {
            scope.spawn(move || {
                let mut round = 0;
                while !is_over() {
                    let mut stream = peer::connect_here("192.0.2.100:80").expect("a connection");
                    for turn in 0..(1 + (thread + round) % 8) {
                        let text = pattern((thread << 32) | (round << 8) | turn, 2_000);
                        let back = peer::echo(&mut stream, &text).expect("an echo");
                        assert!(back == text, "thread {thread}, round {round}: other bytes came back");
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    round += 1;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
}

const APPLIES: usize = 100;
