//! Nodes: what one's state does to its members, and what is told of them.

use serde_json::json;
use sluice_control::show::Thing;
use sluice_dataplane::config::ids::MemberId;

use crate::common::{CONFIG, Sluice};

#[test]
fn of_a_member_and_its_node_the_stricter_state_holds() {
    let with_node = |state: &str| format!("{CONFIG}nodes: {{one: {{address: 10.1.0.12, state: {state}}}}}\n");
    let sluice = Sluice::start(&with_node("offline"), 1);
    assert_eq!(sluice.states(), ["web 10.1.0.11:8080 enabled", "web 10.1.0.12:8080 offline"]);
    assert_eq!(sluice.put("/v1/config", &with_node("enabled")).status, 200);
    assert_eq!(sluice.states()[1], "web 10.1.0.12:8080 disabled", "which is what the member's own state is");
    let said = sluice.patch("/v1/pools/web/members/10.1.0.12:8080", r#"{"state": "offline"}"#);
    assert_eq!(said.status, 200);
    assert_eq!(sluice.put("/v1/config", &with_node("disabled")).status, 200);
    assert_eq!(sluice.states()[1], "web 10.1.0.12:8080 disabled", "the file states the member's again");
    sluice.end();
}

/// [`CONFIG`] with a node, a second pool with members on it, and one whose members are monitored.
fn with_nodes() -> String {
    let pools = "pools:
  api: {members: [{address: 10.1.0.12, port: 1}, {address: 10.1.0.12, port: 2}, {address: 10.1.0.12, port: 3}]}
  watched: {monitors: [alive], members: [{address: 10.1.0.13, port: 9}]}
";
    let node = "nodes: {one: {address: 10.1.0.12, ratio: 3, connection_limit: 100, rate_limit: 20}}
monitors: {alive: {type: tcp}}
";
    CONFIG.replace("pools:\n", pools) + node
}

#[test]
fn nodes_are_told_with_their_members_and_connections() {
    let sluice = Sluice::start(&with_nodes(), 2);
    let book = &sluice.process.view().book;
    let on = |address: &str| book.node_id(address.parse().unwrap());
    for worker in sluice.process.workers() {
        worker.counters().open_member(MemberId(0), on("10.1.0.12"));
        worker.counters().open_member(MemberId(1), on("10.1.0.12"));
        worker.counters().close_member(MemberId(1));
    }
    let nodes = sluice.get("/v1/nodes");
    let addresses: Vec<_> = nodes.as_array().unwrap().iter().map(|node| &node["address"]).collect();
    assert_eq!(addresses, ["10.1.0.11", "10.1.0.12", "10.1.0.13"]);
    let plain = json!({
        "address": "10.1.0.11", "name": null, "availability": "available", "state": "enabled", "ratio": 1,
        "connection_limit": 0, "rate_limit": 0,
        "members": [{"pool": "web", "member": "10.1.0.11:8080"}],
        "connections": {"current": 0, "total": 0, "peak": 0},
    });
    assert_eq!(nodes[0], plain);
    assert_eq!((&nodes[1]["name"], &nodes[1]["ratio"]), (&json!("one"), &json!(3)));
    assert_eq!((&nodes[1]["connection_limit"], &nodes[1]["rate_limit"]), (&json!(100), &json!(20)));
    assert_eq!(
        (nodes[1]["members"].as_array().unwrap().len(), &nodes[1]["connections"]["current"]),
        (4, &json!(2))
    );
    assert_eq!(nodes[1]["connections"]["total"], 4);
    let table = Thing::Nodes.table(&nodes);
    assert!(table.contains("api/10.1.0.12:1 api/10.1.0.12:2 api/10.1.0.12:3 and 1 more"), "{table}");
    assert!(table.lines().nth(1).unwrap().ends_with("web/10.1.0.11:8080"), "{table}");
    sluice.end();
}

#[test]
fn a_nodes_number_counts_anew_for_another_node() {
    let few = CONFIG.replace("members: 64", "members: 2");
    let sluice = Sluice::start(&few, 1);
    let id = sluice.process.view().book.node_id("10.1.0.11".parse().unwrap());
    let connections = &sluice.process.workers()[0].counters().of_node(id).unwrap().connections;
    connections.open();
    connections.close();
    assert_eq!(sluice.get("/v1/nodes")[0]["connections"]["total"], 1);
    let without = few.replace("      - {address: 10.1.0.11, port: 8080}\n", "");
    for config in [&without, &few.replace("10.1.0.11", "10.1.0.14")] {
        let applied = sluice.put("/v1/config", config);
        assert_eq!(applied.status, 200, "{applied:?}");
    }
    let node = &sluice.get("/v1/nodes")[1];
    assert_eq!(sluice.process.view().book.node_id("10.1.0.14".parse().unwrap()), id);
    assert_eq!((&node["address"], &node["connections"]["total"]), (&json!("10.1.0.14"), &json!(0)));
    sluice.end();
}

#[test]
fn what_is_at_its_connection_limit_is_unavailable() {
    let limited = CONFIG
        .replace("10.1.0.11, port: 8080}", "10.1.0.11, port: 8080, connection_limit: 2}")
        .replace("pools:\n", "nodes:\n  one: {address: 10.1.0.11, connection_limit: 3}\npools:\n");
    let sluice = Sluice::start(&limited, 1);
    let member = sluice.process.view().snapshot.parts().pools[0].members[0].clone();
    let counters = sluice.process.workers()[0].counters();
    let said = || {
        let of = |path: &str| sluice.get(path)[0]["availability"].as_str().unwrap().to_string();
        ["/v1/members", "/v1/pools", "/v1/virtual-servers", "/v1/nodes"].map(of)
    };
    let available = || sluice.get("/v1/pools")[0]["members_available"].clone();
    counters.open_member(member.id, member.node);
    assert_eq!((said(), available()), (["available"; 4].map(String::from), json!(1)));
    counters.open_member(member.id, member.node);
    let full = ["unavailable", "unavailable", "unavailable", "available"].map(String::from);
    assert_eq!((said(), available()), (full, json!(0)), "the other member is disabled");
    counters.open_member(member.id, member.node);
    assert_eq!(said(), ["unavailable"; 4], "its node, too");
    (0..2).for_each(|_| counters.close_member(member.id));
    assert_eq!(said(), ["available"; 4]);
    counters.close_member(member.id);
    assert_eq!(sluice.patch("/v1/pools/web/members/10.1.0.11:8080", r#"{"state": "offline"}"#).status, 200);
    assert_eq!(said(), ["offline", "disabled", "disabled", "available"]);
    for thing in [Thing::Pools, Thing::VirtualServers, Thing::Nodes] {
        let table = thing.table(&sluice.get(&thing.path()));
        assert!(table.contains("AVAILABILITY"), "{table}");
    }
    sluice.end();
}

#[test]
fn a_virtual_server_says_disabled_and_full_itself() {
    let text = CONFIG.replace("snat: automap", "snat: automap, connection_limit: 1");
    let sluice = Sluice::start(&text, 1);
    let said = || sluice.get("/v1/virtual-servers")[0]["availability"].clone();
    assert_eq!(said(), "available");
    let id = sluice.process.view().book.virtual_id("web");
    let connections = &sluice.process.workers()[0].counters().of_virtual(id).unwrap().connections;
    connections.open();
    assert_eq!(said(), "unavailable");
    connections.close();
    let disabled = text.replace("snat: automap", "snat: automap, enabled: false");
    assert_eq!(sluice.put("/v1/config", &disabled).status, 200);
    assert_eq!(said(), "disabled");
    sluice.end();
}

#[test]
fn availability_says_who_takes_connections_and_who_is_not_known_to() {
    let sluice = Sluice::start(&with_nodes(), 1);
    let said = || {
        let members = sluice.get("/v1/members");
        let line =
            |of: &serde_json::Value| format!("{} {}", of["member"], of["availability"]).replace('"', "");
        members.as_array().unwrap().iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(said()[3..], ["10.1.0.13:9 unknown", "10.1.0.11:8080 available", "10.1.0.12:8080 disabled"]);
    let patch = |path: &str| sluice.patch(path, r#"{"state": "offline"}"#).status;
    assert_eq!(patch("/v1/pools/web/members/10.1.0.11:8080"), 200);
    assert_eq!(patch("/v1/pools/watched/members/10.1.0.13:9"), 200);
    assert_eq!(said()[3..], ["10.1.0.13:9 offline", "10.1.0.11:8080 offline", "10.1.0.12:8080 disabled"]);
    let members = sluice.get("/v1/members");
    assert!(Thing::Members.table(&members).contains("AVAILABILITY"), "{members}");
    sluice.end();
}
