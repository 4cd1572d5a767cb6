//! The same requests through DPDK's ports: `net_af_packet` on the lab's veth links, and `net_tap` on bridged taps.

use sluice_tests::dpdk::Device;
use sluice_tests::farm::connect_at_once;
use sluice_tests::file::{RandomFile, sha256};
use sluice_tests::show::number;
use sluice_tests::stage::{self, Stage};
use sluice_tests::{LinkKind, Sluice, World, config, curl, has_dpdk, lab, peer, run, skip, wait};
use std::io::Write;
use std::time::Duration;

#[test]
fn curl_reaches_both_servers_through_net_af_packet() {
    let Some(world) = Device::AfPacket.start(&config::web(), 1) else { return };
    both_servers_answer(&world);
}

#[test]
fn curl_reaches_both_servers_through_net_tap() {
    let Some(world) = Device::Tap.start(&config::web(), 1) else { return };
    both_servers_answer(&world);
}

#[test]
fn two_workers_share_devices_of_two_queues_that_place_frames_as_they_like() {
    let Some(world) = Device::AfPacket.start(&config::web(), 2) else { return };
    software_brings_frames_home(&world);
}

#[test]
fn two_workers_share_taps_of_two_queues() {
    let Some(world) = Device::Tap.start(&config::web(), 2) else { return };
    software_brings_frames_home(&world);
}

/// Everything is answered, and `show ports` says who brings frames to their worker and why.
fn software_brings_frames_home(world: &World) {
    many_at_once(world);
    for port in world.sluice.show("ports").as_array().expect("a list") {
        let reason = port["steering_reason"].as_str().expect("a reason");
        assert_eq!((&port["steering"], &port["queues"]), (&"software".into(), &2.into()), "{port}");
        assert!(!reason.is_empty(), "{port}");
    }
    let workers = world.sluice.show("workers");
    let sum = |at| workers.as_array().into_iter().flatten().map(|worker| number(worker, at)).sum::<u64>();
    assert!(sum("/misdirected") + sum("/handed_over") > 0, "no frame arrived at the other worker: {workers}");
}

/// 60 connections at the same time that speak in turn, and then those of [`both_servers_answer`] on either family.
fn many_at_once(world: &World) {
    let mut tried = connect_at_once(world, "192.0.2.100:80", 60);
    assert_eq!(tried.open.len(), 60, "{:?}", tried.refused);
    let names = tried.open.iter_mut().map(|stream| peer::fetch(stream).expect("an answer"));
    let of_first = names.filter(|name| name == "server1").count();
    // Each worker is even to one, but for a SYN that came twice.
    assert!((26..=34).contains(&of_first), "{of_first} of 60");
    for url in ["http://192.0.2.100/?[1-50]", "http://[2001:db8:1::100]/?[1-50]"] {
        let text = run(curl(world.lab.client()).args(["--header", "Connection: close", url]));
        assert_eq!(text.lines().filter(|line| line.starts_with("server")).count(), 50, "{url}");
    }
    large_file_arrives(world);
}

#[test]
fn a_binary_without_dpdk_refuses_a_dpdk_port_clearly() {
    if has_dpdk() {
        return skip("this sluice was built with DPDK");
    }
    let Some(lab) = lab(LinkKind::Veth) else { return };
    let text = Device::AfPacket.configured(&config::web(), 1);
    let mut sluice = Sluice::spawn(lab.sluice(), lab.directory(), &text);
    let patience = Duration::from_secs(5);
    let status = sluice.signal_and_wait(rustix::process::Signal::CONT, patience);
    assert!(!status.success() && sluice.log().contains("DPDK"), "{status}: {}", sluice.log());
}

fn both_servers_answer(world: &World) {
    let fair = [("server1".to_owned(), 5), ("server2".to_owned(), 5)];
    for url in ["http://192.0.2.100/", "http://[2001:db8:1::100]/"] {
        assert_eq!(world.members_of(url, 10), fair.clone().into(), "{url}");
    }
    large_file_arrives(world);
}

/// 16 MiB in MTU-sized frames.
fn large_file_arrives(world: &World) {
    let pipe = "set -o pipefail; head -c 16M /dev/zero | sha256sum; curl -sSf --max-time 60 -r 0-16777215 http://192.0.2.100/large | sha256sum";
    let sums = run(world.lab.client().command("bash").args(["-c", pipe]));
    let mut sums = sums.lines();
    assert_eq!(sums.next(), sums.next());
}

/// HTTP on port 80 and plain TCP on 81, over both families.
fn proxies() -> String {
    let raw = "  raw: {destination: \"192.0.2.100:81\", type: standard, pool: tcp, snat: automap}
  raw6: {destination: \"[2001:db8:1::100]:81\", type: standard, pool: tcp6, snat: automap}
";
    let more = "pools:
  tcp6: {members: [{address: \"2001:db8:2::12\", port: 8001}]}";
    [&stage::http("http: {}"), raw].concat().replace("pools:", more)
}

#[test]
fn full_proxies_work_on_devices_of_dpdk() {
    for device in Device::ALL {
        for workers in [1, 2] {
            let Some(world) = device.start(&proxies(), workers) else { return };
            let stage = Stage::before(world);
            requests_and_bodies_pass(&stage);
            many_connections_pass(&stage, workers);
        }
    }
}

/// 16 MiB each way with a length and in chunks, by SHA-256, and small requests over both families.
fn requests_and_bodies_pass(stage: &Stage) {
    for host in ["192.0.2.100", "[2001:db8:1::100]"] {
        let text = run(stage.curl().arg(format!("http://{host}/status/200?[1-50]")));
        assert_eq!(text, "as asked\n".repeat(50), "{host}");
    }
    for framing in ["bytes", "chunked"] {
        let reply = stage.get(&format!("/{framing}/{BODY}"), &["--max-time", "60"]);
        let path = stage.world.lab.directory().join("body");
        std::fs::write(&path, &reply.body).expect("room for a file");
        assert_eq!(
            (reply.body.len(), sha256(&path)),
            (BODY, reply.field("x-sha256").to_owned()),
            "{framing}"
        );
    }
    let file = RandomFile::write(BODY);
    let body = format!("@{}", file.path.display());
    let sum = sha256(&file.path);
    for framing in ["Transfer-Encoding:", "Transfer-Encoding: chunked"] {
        let arguments = ["-H", framing, "-H", "Expect:", "--max-time", "60", "--data-binary", &body];
        assert_eq!(stage.echo("/echo", &arguments)["sha256"], sum.as_str(), "{framing}");
    }
}

/// Connections without HTTP that are open at the same time, on every worker, each with bytes of its own.
fn many_connections_pass(stage: &Stage, workers: usize) {
    for to in ["192.0.2.100:81", "[2001:db8:1::100]:81"] {
        let mut tried = connect_at_once(&stage.world, to, 60);
        assert_eq!(tried.open.len(), 60, "{to}: {:?}", tried.refused);
        for (seed, stream) in (0..).zip(&mut tried.open) {
            stream.write_all(b"echo\n").expect("an open connection");
            let bytes = peer::pattern(seed, 5_000 + 100 * seed as usize);
            assert!(peer::echo(stream, &bytes).expect("an echo") == bytes, "connection {seed} to {to}");
        }
        let shown = stage.world.sluice.show("workers");
        let busy = shown.as_array().into_iter().flatten().filter(|worker| number(worker, "/proxies") > 0);
        assert_eq!(busy.count(), workers, "{shown}");
    }
    for name in ["raw", "raw6"] {
        wait::until("the end of every connection", Duration::from_secs(10), || {
            let shown = stage.world.sluice.object("virtual-servers", name);
            (number(&shown, "/connections/current") == 0).then_some(())
        });
    }
}

/// Bytes of a large body.
const BODY: usize = 16 << 20;
