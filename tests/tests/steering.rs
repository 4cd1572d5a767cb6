//! Several workers on real interfaces: the kernel brings every packet to the worker that owns its flow.

use serde_json::Value;
use sluice_tests::peer::{self, Service};
use sluice_tests::show::number;
use sluice_tests::{LinkKind, World, config, curl, run, wait};
use std::io::ErrorKind;
use std::time::Duration;

const WORKERS: usize = 3;

fn several(text: &str) -> String {
    text.replace("{workers: 1}", &format!("{{workers: {WORKERS}}}"))
}

#[test]
fn no_packet_of_a_translated_connection_arrives_at_another_worker() {
    for link in [LinkKind::Veth, LinkKind::Macvlan] {
        let Some(world) = World::start(link, &several(&config::web())) else { return };
        if !is_steered(&world) {
            return;
        }
        for _ in 0..20 {
            world.curl("http://192.0.2.100/whoami");
            world.curl("http://[2001:db8:1::100]/whoami");
        }
        let large = "set -o pipefail; head -c 16M /dev/zero | sha256sum; curl -sSf --max-time 60 -r 0-16777215 http://192.0.2.100/large | sha256sum";
        let sums = run(world.lab.client().command("bash").args(["-c", large]));
        assert_eq!(sums.lines().next(), sums.lines().nth(1));
        let workers = settled(&world);
        assert_eq!(sum(&workers, "/misdirected") + sum(&workers, "/handed_over"), 0, "{workers}");
        let snat = world.sluice.show("snat");
        let used = |address: &Value| number(address, "/in_use") + number(address, "/resting");
        assert_eq!(snat["addresses"].as_array().expect("a list").iter().map(used).sum::<u64>(), 41, "{snat}");
    }
}

#[test]
fn connections_through_several_workers_are_spread_and_all_answered() {
    let text = several(&config::pool_of("", &["address: 10.1.0.11, port: 9000"]));
    let Some(world) = World::start(LinkKind::Veth, &text) else { return };
    let _service = Service::tcp_echo(&world.lab.servers()[0].namespace, 9000, "");
    let mut streams: Vec<_> =
        (0..60).map(|_| peer::connect(world.lab.client(), "192.0.2.100:80").expect("a connection")).collect();
    for stream in &mut streams {
        peer::echo(stream, &[7; 3000]).expect("an echo");
    }
    let workers = wait::until("every worker has flows", Duration::from_secs(10), || {
        let workers = world.sluice.show("workers");
        let flows = |worker: &Value| number(worker, "/flows");
        let all = workers.as_array().expect("a list");
        (all.iter().all(|worker| flows(worker) > 5) && sum(&workers, "/flows") == 60).then_some(workers)
    });
    if is_steered(&world) {
        assert_eq!(sum(&workers, "/misdirected"), 0, "{workers}");
    }
}

#[test]
fn hidden_and_shown_clients_are_answered_by_several_workers() {
    let text = several(&config::web().replace("snat: automap", "snat: none"));
    let Some(world) = World::start(LinkKind::Veth, &text) else { return };
    for _ in 0..20 {
        let mut command = curl(world.lab.client());
        run(command.args(["http://192.0.2.100/whoami", "http://[2001:db8:1::100]/whoami"]));
    }
    assert_eq!(sum(&settled(&world), "/misdirected"), 0, "nothing is translated");
}

#[test]
fn every_client_keeps_its_port_whatever_worker_its_packets_come_to() {
    for kind in ["performance-l4", "standard"] {
        let text = config::pool_of("", &["address: 10.1.0.11, port: 8080"]);
        let strict = text.replace("snat: automap", "snat: automap, source_port: preserve-strict");
        let text = several(&strict.replace("performance-l4", kind));
        let Some(world) = World::start(LinkKind::Veth, &text) else { return };
        for port in 20_001..20_031 {
            let mut command = curl(world.lab.client());
            command.args(["--local-port", &port.to_string(), "http://192.0.2.100/whoami"]);
            assert_eq!(run(&mut command).trim(), format!("server1 10.1.0.10 {port}"), "{kind}");
        }
        let workers = settled(&world);
        assert_eq!(sum(&workers, "/misdirected"), 0, "no port could know: {workers}");
        let crossed = |worker: &Value| number(worker, "/handed_over") > 0;
        assert!(workers.as_array().expect("a list").iter().all(crossed), "{kind}: {workers}");
    }
}

#[test]
fn a_port_that_must_be_kept_and_is_taken_is_refused_by_several_workers() {
    let text = config::pool_of("", &["address: 10.1.0.11, port: 8080"]);
    let text = several(&text.replace("snat: automap", "snat: automap, source_port: preserve-strict"));
    let Some(world) = World::start(LinkKind::Veth, &text) else { return };
    let client = world.lab.client();
    client.ip(&["addr add 192.0.2.21/24 dev eth0"]).expect("an address");
    let connect = |from: &str, port: u16| {
        let from = format!("{from}:{port}").parse().expect("an address");
        let to = "192.0.2.100:80".parse().expect("an address");
        client.enter(|| peer::connect_here_from(from, to)).expect("the namespace is there")
    };
    for port in 20_001..20_013 {
        let mut first = connect("192.0.2.1", port).expect("a connection");
        let error = connect("192.0.2.21", port).expect_err("the port is taken");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{port}: {error}");
        assert_eq!(peer::fetch(&mut first).expect("the first is unharmed"), "server1");
    }
    wait::until("twelve refusals", Duration::from_secs(5), || {
        (number(&world.sluice.show("drops"), "/total/snat-port-taken") == 12).then_some(())
    });
}

/// Connections that were opened by hash are open when an apply has ports belong to whom their number names.
#[test]
fn a_port_that_is_in_use_is_not_given_again_when_an_apply_has_clients_keep_theirs() {
    let text = several(&config::pool_of("", &["address: 10.1.0.11, port: 9000"]));
    let Some(world) = World::start(LinkKind::Veth, &text) else { return };
    let _service = Service::tcp_echo(&world.lab.servers()[0].namespace, 9000, "");
    let client = world.lab.client();
    client.ip(&["addr add 192.0.2.21/24 dev eth0"]).expect("an address");
    let connect = |from: &str, port: u16| {
        let from = format!("{from}:{port}").parse().expect("an address");
        let to = "192.0.2.100:80".parse().expect("an address");
        client.enter(|| peer::connect_here_from(from, to)).expect("the namespace is there")
    };
    let ports = 20_001..20_061;
    let mut open: Vec<_> =
        ports.clone().map(|port| connect("192.0.2.1", port).expect("a connection")).collect();
    let flows = world.sluice.show("flows").to_string();
    let is_kept = |port: &u16| flows.contains(&format!("10.1.0.10:{port}\""));
    let kept = ports.clone().filter(is_kept).count();
    assert!((5..40).contains(&kept), "about one in three: {kept} of {flows}");
    world.sluice.apply(&text.replace("snat: automap", "snat: automap, source_port: preserve-strict"));
    for port in ports {
        match connect("192.0.2.21", port) {
            Ok(mut stream) => {
                assert!(!is_kept(&port), "{port} is in use");
                peer::echo(&mut stream, &[9; 300]).expect("an echo of its own");
            }
            Err(error) => {
                assert!(is_kept(&port) && error.kind() == ErrorKind::ConnectionRefused, "{port}: {error}");
            }
        }
    }
    for stream in &mut open {
        peer::echo(stream, &[7; 300]).expect("the older ones go on");
    }
}

/// Whether the kernel runs our program on every port; says so if not.
fn is_steered(world: &World) -> bool {
    let ports = world.sluice.show("ports");
    let ports = ports.as_array().expect("a list");
    if let Some(other) = ports.iter().find(|port| port["steering"] != "bpf") {
        sluice_tests::skip(other["steering_reason"].as_str().unwrap_or("no reason"));
        return false;
    }
    let shown = world.sluice.must(&["show", "ports"]);
    assert!(shown.contains("external: bpf: the kernel runs our program"), "{shown}");
    true
}

/// The workers once every flow has ended or rests.
fn settled(world: &World) -> Value {
    wait::pass(Duration::from_millis(1_100));
    world.sluice.show("workers")
}

fn sum(workers: &Value, at: &str) -> u64 {
    workers.as_array().expect("a list").iter().map(|worker| number(worker, at)).sum()
}
