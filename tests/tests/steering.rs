//! Several workers on real interfaces: the kernel brings every packet to the worker that owns its flow.

use serde_json::Value;
use sluice_tests::peer::{self, Service};
use sluice_tests::show::number;
use sluice_tests::{LinkKind, World, config, curl, run, wait};
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
