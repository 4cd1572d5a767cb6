//! `show` counts what the clients did, and an apply resets nothing.

use sluice_tests::peer::{self, Service};
use sluice_tests::show::{entry, number};
use sluice_tests::{LinkKind, World, config, wait};
use std::time::Duration;

#[test]
fn counters_match_what_the_clients_did_and_survive_an_apply() {
    let text = config::pool_of("", &["address: 10.1.0.11, port: 9000", "address: 10.1.0.12, port: 9000"]);
    let Some(world) = World::start(LinkKind::Veth, &text) else { return };
    let serve = |server: &sluice_tests::Server| Service::tcp_echo(&server.namespace, 9000, "");
    let _services: Vec<_> = world.lab.servers().iter().map(serve).collect();

    let mut streams: Vec<_> =
        (0..6).map(|_| peer::connect(world.lab.client(), "192.0.2.100:80").expect("a connection")).collect();
    for stream in &mut streams {
        peer::echo(stream, &[7; 1000]).expect("an echo");
    }
    let web = settled(&world, |web| number(web, "/connections/current") == 6);
    assert_eq!(number(&web, "/connections/total"), 6, "{web}");
    assert_eq!(number(&web, "/connections/peak"), 6, "{web}");
    // At least SYN, ACK and data; 1000 bytes of data each.
    let (packets, bytes) = (number(&web, "/clientside/packets_in"), number(&web, "/clientside/bytes_in"));
    assert!(packets >= 18, "{web}");
    assert!((6 * 1000 + packets * 40..=6 * 1000 + packets * 60).contains(&bytes), "{bytes} bytes: {web}");
    assert!(number(&web, "/clientside/bytes_out") >= 6 * 1000, "{web}");
    assert_eq!(
        number(&web, "/serverside/packets_out"),
        packets,
        "what came from clients went to members: {web}"
    );
    for member in members(&world) {
        assert_eq!(number(&member, "/connections/total"), 3, "{member}");
        assert_eq!(number(&member, "/connections/current"), 3, "{member}");
    }
    let port = world.sluice.object("ports", "external");
    assert!(number(&port, "/traffic/packets_in") >= packets, "{port}");
    assert!(number(&port, "/traffic/bytes_in") >= bytes, "{port}");

    world
        .sluice
        .apply(&text.replace("version: 1", "version: 1\nsnat_pools: {spare: {addresses: [10.1.0.50]}}"));
    let after = world.sluice.object("virtual-servers", "web");
    assert_eq!(number(&after, "/connections/total"), 6, "after the apply: {after}");
    assert!(number(&after, "/clientside/bytes_in") >= bytes, "after the apply: {after}");

    drop(streams);
    let closed = settled(&world, |web| number(web, "/connections/current") == 0);
    assert_eq!(number(&closed, "/connections/peak"), 6, "{closed}");
    assert_eq!(number(&closed, "/connections/total"), 6, "{closed}");
}

#[test]
fn flows_are_shown_while_they_live() {
    let Some(world) = World::start(LinkKind::Veth, &config::web()) else { return };
    let stream = peer::connect(world.lab.client(), "192.0.2.100:80").expect("a connection");
    let client = stream.local_addr().expect("connected").to_string();
    let flows = world.sluice.get("/v1/flows").to_string();
    assert!(flows.contains(&client) && flows.contains("192.0.2.100:80"), "{client} in {flows}");
    let table = world.sluice.must(&["show", "flows"]);
    assert!(table.contains(&client), "{client} in {table}");
    for thing in
        ["virtual-servers", "pools", "members", "snat", "neighbors", "routes", "ports", "workers", "drops"]
    {
        world.sluice.show(thing);
        assert!(!world.sluice.must(&["show", thing]).trim().is_empty(), "show {thing}");
    }
    assert!(world.sluice.must(&["show", "neighbors"]).contains("192.0.2.1"));
}

/// Virtual server `web` once it is as it should be: the last packets may still be on their way.
fn settled(world: &World, so: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    let look = || Some(world.sluice.object("virtual-servers", "web")).filter(|web| so(web));
    wait::until("the counters settle", Duration::from_secs(8), look)
}

fn members(world: &World) -> Vec<serde_json::Value> {
    let all = world.sluice.get("/v1/members");
    ["10.1.0.11:9000", "10.1.0.12:9000"].map(|name| entry(&all, "member", name).clone()).to_vec()
}
