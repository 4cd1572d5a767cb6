//! Persistence among real programs: curl and nginx, two workers, and the records over the socket.

use sluice_tests::{LinkKind, World, api, config, run, show, wait, world};
use std::collections::BTreeSet;
use std::time::Duration;

const URL: &str = "http://192.0.2.100/";
const CLIENTS: std::ops::RangeInclusive<u8> = 21..=28;

/// Two workers, and persistence.
fn text(timeout: &str) -> String {
    let options = format!("snat: automap, persistence: {{type: source-address, timeout: {timeout}}}");
    config::web_with(&options).replace("workers: 1", "workers: 2")
}

/// Sluice, and a client that has eight more addresses.
fn start(timeout: &str) -> Option<World> {
    let text = config::web_with(&format!(
        "snat: automap, persistence: {{type: source-address, timeout: {timeout}}}"
    ));
    let world = World::start(LinkKind::Veth, &text.replace("workers: 1", "workers: 2"))?;
    let interface = run(world.lab.client().command("ip").args(["-o", "addr", "show", "to", "192.0.2.1"]));
    let interface = interface.split_whitespace().nth(1).expect("the client's interface").to_owned();
    for last in CLIENTS {
        let address = format!("192.0.2.{last}/24");
        run(world.lab.client().command("ip").args(["addr", "add", &address, "dev", &interface]));
    }
    Some(world)
}

/// The server that answers a new connection from 192.0.2.`last`.
fn fetch(world: &World, last: u8) -> String {
    let mut curl = world::curl(world.lab.client());
    run(curl.args(["--interface", &format!("192.0.2.{last}"), URL])).trim().to_owned()
}

fn fetch_all(world: &World) -> Vec<String> {
    CLIENTS.map(|last| fetch(world, last)).collect()
}

fn delete(world: &World, query: &str) -> serde_json::Value {
    let path = format!("/v1/persistence{query}");
    let answer = api::request(&world.sluice.socket(), "DELETE", &path, "", "").expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[test]
fn every_client_stays_with_its_server() {
    let Some(world) = start("180s") else { return };
    let first = fetch_all(&world);
    let servers: BTreeSet<_> = first.iter().collect();
    assert_eq!(servers.len(), 2, "eight clients over two servers: {first:?}");
    for _ in 0..3 {
        assert_eq!(fetch_all(&world), first);
    }

    let records = world.sluice.show("persistence");
    assert_eq!(records.as_array().map(Vec::len), Some(8), "{records}");
    for (last, server) in CLIENTS.zip(&first) {
        let record = show::entry(&records, "address", &format!("192.0.2.{last}"));
        let member = if server == "server1" { "10.1.0.11:8080" } else { "10.1.0.12:8080" };
        assert_eq!((&record["member"], &record["virtual_server"]), (&member.into(), &"web".into()));
    }
    let metrics = api::request(&world.sluice.socket(), "GET", "/metrics", "", "").expect("an answer").body;
    assert!(metrics.contains("sluice_persistence_hits_total 24\n"), "{metrics}");
    assert!(metrics.contains("sluice_persistence_misses_total 8\n"), "{metrics}");
}

#[test]
fn a_disabled_server_keeps_its_clients_and_an_offline_one_does_not() {
    let Some(world) = start("180s") else { return };
    let first = fetch_all(&world);
    world.sluice.must(&["member", "disable", "web", "10.1.0.11:8080"]);
    assert_eq!(fetch_all(&world), first, "a disabled member takes persisted connections");
    assert_eq!(fetch(&world, 1), "server2", "a client without a record");

    world.sluice.must(&["member", "offline", "web", "10.1.0.11:8080"]);
    assert_eq!(fetch_all(&world), vec!["server2"; 8]);
    world.sluice.must(&["member", "enable", "web", "10.1.0.11:8080"]);
    assert_eq!(fetch_all(&world), vec!["server2"; 8], "their records lead to the other one by now");
}

#[test]
fn deleted_records_are_forgotten_and_the_rest_stays() {
    let Some(world) = start("180s") else { return };
    let first = fetch_all(&world);
    world.sluice.must(&["member", "disable", "web", "10.1.0.11:8080"]);
    let of_first = first.iter().filter(|server| *server == "server1").count();
    assert!(of_first > 0, "{first:?}");

    assert_eq!(delete(&world, "?address=192.0.2.21")["deleted"], 1);
    assert_eq!(fetch(&world, 21), "server2", "balanced anew");
    assert_eq!(fetch_all(&world)[1..], first[1..], "the others' records stay");

    let left = of_first - usize::from(first[0] == "server1");
    let said = world.sluice.must(&["persistence", "delete", "--member", "10.1.0.11:8080"]);
    assert_eq!(said, format!("deleted {left}\n"));
    assert_eq!(fetch_all(&world), vec!["server2"; 8]);

    assert_eq!(world.sluice.must(&["persistence", "delete", "--all"]), "deleted 8\n");
    assert_eq!(world.sluice.show("persistence"), serde_json::json!([]));
    let refused = world.sluice.command(&["persistence", "delete"]);
    assert_eq!(refused.status.code(), Some(2), "nothing says which records");
}

#[test]
fn records_outlive_an_apply() {
    let Some(world) = start("180s") else { return };
    let first = fetch_all(&world);
    let text = text("180s").replace("snat: automap", "snat: automap, idle_timeout: 60s");
    assert!(world.sluice.apply(&text).contains("generation 2"));
    assert_eq!(fetch_all(&world), first);
}

#[test]
fn records_end_with_their_timeout() {
    let Some(world) = start("1s") else { return };
    fetch(&world, 21);
    let none = || (world.sluice.show("persistence") == serde_json::json!([])).then_some(());
    wait::until("the record's end", Duration::from_secs(20), none);
}
