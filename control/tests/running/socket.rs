//! The socket as a client sees it, over a real Unix socket, with real workers on memory ports.

use std::os::unix::fs::PermissionsExt;

use crate::common::{CONFIG, Sluice, opened, request};
use serde_json::{Value, json};
use sluice_control::show::Thing;
use sluice_control::socket::ControlSocket;
use sluice_dataplane::config::ids::PortId;
use sluice_dataplane::frame::Frame;
use sluice_dataplane::port::{DriverCounters, PortQueue, memory};

#[test]
fn state_of_a_new_process() {
    let sluice = Sluice::start(CONFIG, 2);
    assert_eq!(sluice.get("/v1/live"), json!({"live": true}));
    let ready = sluice.get("/v1/ready");
    assert_eq!((&ready["ready"], &ready["workers"]), (&json!(true), &json!([1, 1])));
    assert_eq!(sluice.get("/v1/version")["version"], env!("CARGO_PKG_VERSION"));
    let servers = sluice.get("/v1/virtual-servers");
    assert_eq!(servers[0]["name"], "web");
    assert_eq!(servers[0]["destination"], json!(["192.0.2.100:80"]));
    assert_eq!(servers[0]["members_available"], 1);
    assert_eq!(servers[0]["connections"], json!({"current": 0, "total": 0, "peak": 0}));
    assert_eq!(sluice.get("/v1/pools")[0]["load_balancing"], "round-robin");
    assert_eq!(sluice.states(), ["web 10.1.0.11:8080 enabled", "web 10.1.0.12:8080 disabled"]);
    let routes = sluice.get("/v1/routes");
    assert_eq!(
        (&routes[0]["destination"], &routes[0]["origin"]),
        (&json!("192.0.2.0/24"), &json!("connected"))
    );
    let ports = sluice.get("/v1/ports");
    assert_eq!((&ports[1]["name"], &ports[1]["mac"]), (&json!("int"), &json!("02:00:00:00:00:01")));
    assert_eq!(
        (&ports[1]["steering"], &ports[1]["steering_reason"]),
        (&json!("software"), &json!("memory does not steer"))
    );
    let workers = sluice.get("/v1/workers");
    assert_eq!((workers.as_array().unwrap().len(), &workers[1]["generation"]), (2, &json!(1)));
    let drops = sluice.get("/v1/drops");
    assert_eq!(drops["total"]["no-virtual"], 0);
    assert_eq!(drops["workers"].as_array().unwrap().len(), 2);
    assert_eq!((&workers[1]["misdirected"], &workers[1]["handed_over"]), (&json!(0), &json!(0)));
    let snat = sluice.get("/v1/snat");
    assert_eq!((&snat["automap"], &snat["addresses"]), (&json!(["web"]), &json!([])));
    for empty in ["/v1/flows", "/v1/persistence", "/v1/neighbors", "/v1/monitors", "/v1/certificates"] {
        assert_eq!(sluice.get(empty), json!([]), "{empty}");
    }
    assert_eq!(sluice.request("GET", "/v1/flows", &[], "").header("sluice-truncated").unwrap(), "false");
    sluice.end();
}

#[test]
fn a_full_proxy_is_listed_with_its_type() {
    let sluice =
        Sluice::start(&CONFIG.replace("snat: automap", "snat: automap, type: standard, http: {}"), 1);
    assert_eq!(sluice.get("/v1/virtual-servers")[0]["type"], "standard");
    sluice.end();
}

/// A full proxy with HTTP beside the server of [`CONFIG`].
fn with_http() -> String {
    CONFIG.to_string() + "  shop: {destination: 192.0.2.101:80, pool: web, type: standard, http: {}}\n"
}

/// Makes each worker count for `shop`: so many requests as its number and 2, and as many responses of each class.
fn serve(sluice: &Sluice) {
    let shop = sluice.process.view().book.virtual_id("shop");
    for (number, worker) in (2..).zip(sluice.process.workers()) {
        let http = &worker.counters().of_virtual(shop).unwrap().http;
        http.requests.add(number);
        http.responses.iter().zip(1..).for_each(|(class, digit)| class.add(number * digit));
        [&http.refused, &http.retries, &http.reused].iter().zip(6..).for_each(|(count, by)| count.add(by));
    }
}

#[test]
fn requests_are_summed_where_http_is_spoken() {
    let sluice = Sluice::start(&with_http(), 2);
    serve(&sluice);
    let servers = sluice.get("/v1/virtual-servers");
    assert_eq!((&servers[0]["name"], &servers[1]["name"]), (&json!("shop"), &json!("web")));
    let http = json!({
        "requests": 5, "responses": {"1xx": 5, "2xx": 10, "3xx": 15, "4xx": 20, "5xx": 25},
        "refused": 12, "retries": 14, "reused": 16,
    });
    assert_eq!(servers[0]["http"], http);
    assert_eq!(servers[1].get("http"), None, "web does not speak it");
    let table = Thing::VirtualServers.table(&servers);
    let (all, spoken) = table.split_once("\nHTTP\n").unwrap();
    assert_eq!(all.lines().count(), 3, "{table}");
    let cells = |line: &str| line.split_whitespace().map(str::to_string).collect::<Vec<_>>();
    let lines: Vec<_> = spoken.lines().map(cells).collect();
    let titles = ["NAME", "REQUESTS", "1XX", "2XX", "3XX", "4XX", "5XX", "REFUSED", "RETRIES", "REUSED"];
    assert_eq!(lines[0], titles);
    assert_eq!(lines[1..], [["shop", "5", "5", "10", "15", "20", "25", "12", "14", "16"]]);
    assert!(!Thing::VirtualServers.table(&json!([servers[1]])).contains("HTTP"));
    sluice.end();
}

#[test]
fn metrics_tell_of_http_and_proxies() {
    let sluice = Sluice::start(&with_http(), 2);
    serve(&sluice);
    let text = sluice.request("GET", "/metrics", &[], "").body;
    for line in [
        "sluice_http_requests_total{virtual_server=\"shop\"} 5",
        "sluice_http_responses_total{virtual_server=\"shop\",class=\"1xx\"} 5",
        "sluice_http_responses_total{virtual_server=\"shop\",class=\"5xx\"} 25",
        "sluice_http_refused_total{virtual_server=\"shop\"} 12",
        "sluice_http_retries_total{virtual_server=\"shop\"} 14",
        "sluice_http_reused_total{virtual_server=\"shop\"} 16",
        "sluice_worker_proxies{worker=\"1\"} 0",
        "sluice_worker_syn_cookies_total{worker=\"0\"} 0",
        "sluice_rate_limit_keys_forgotten_total 0",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
    assert!(!text.contains("sluice_http_requests_total{virtual_server=\"web\"}"), "{text}");
    let workers = sluice.get("/v1/workers");
    assert_eq!((&workers[1]["proxies"], &workers[1]["syn_cookies"]), (&json!(0), &json!(0)));
    sluice.end();
}

#[test]
fn a_workers_traffic_is_that_of_all_its_ports() {
    let sluice = Sluice::start(CONFIG, 2);
    let counters = sluice.process.workers()[1].counters();
    for port in [0, 1] {
        counters.of_port(PortId(port)).frames.packets_in.add(3);
        counters.of_port(PortId(port)).frames.bytes_out.add(40);
    }
    let workers = sluice.get("/v1/workers");
    let traffic = |packets_in: u64, bytes_out: u64| json!({"packets_in": packets_in, "bytes_in": 0, "packets_out": 0, "bytes_out": bytes_out});
    assert_eq!((&workers[0]["traffic"], &workers[1]["traffic"]), (&traffic(0, 0), &traffic(6, 80)));
    sluice.end();
}

#[test]
fn what_is_read_can_be_written_and_changes_nothing() {
    let sluice = Sluice::start(CONFIG, 1);
    let read = sluice.request("GET", "/v1/config", &[], "");
    let written = sluice.request("PUT", "/v1/config", &[("content-type", "application/json")], &read.body);
    assert_eq!(written.status, 200, "{written:?}");
    let applied = written.json();
    assert_eq!(
        (&applied["added"], &applied["changed"], &applied["removed"]),
        (&json!([]), &json!([]), &json!([]))
    );
    assert_eq!(applied["generation"], 1);
    assert_eq!(read.header("etag"), written.header("etag"));
    sluice.end();
}

#[test]
fn an_apply_reaches_every_worker_and_says_what_changed() {
    let sluice = Sluice::start(CONFIG, 2);
    let config = CONFIG
        .replace("web: {destination: 192.0.2.100:80,", "api: {destination: 192.0.2.101:80,")
        .replace("port: 8080}\n", "port: 8080, ratio: 3}\n")
        .replace("members:\n", "load_balancing: ratio-member\n    members:\n");
    let dry = sluice.put("/v1/config?dry_run=true", &config).json();
    assert_eq!((&dry["dry_run"], &dry["generation"]), (&json!(true), &json!(1)));
    let applied = sluice.put("/v1/config", &config).json();
    assert_eq!(applied["generation"], 2);
    assert_eq!(applied["added"], json!(["/virtual_servers/api"]));
    assert_eq!(applied["removed"], json!(["/virtual_servers/web"]));
    assert_eq!((&dry["added"], &dry["changed"]), (&applied["added"], &applied["changed"]));
    let change = &applied["changed"][0];
    assert_eq!(change["path"], "/pools/web");
    let fields: Vec<_> = change["fields"].as_array().unwrap().iter().map(|field| &field["field"]).collect();
    assert_eq!(fields, ["load_balancing", "members/10.1.0.11:8080"]);
    assert_eq!(
        change["fields"][0],
        json!({"field": "load_balancing", "from": "round-robin", "to": "ratio-member"})
    );
    assert_eq!(applied["workers"], 2);
    assert!(applied["elapsed_ms"].as_f64().unwrap() < 1_000.0, "{applied}");
    assert_eq!(sluice.get("/v1/ready")["workers"], json!([2, 2]));
    sluice.end();
}

#[test]
fn a_refused_apply_changes_nothing() {
    let sluice = Sluice::start(CONFIG, 1);
    let before = sluice.get("/v1/config");
    let bad = CONFIG.replace("port: 8080}\n", "port: 80800}\n").replace("pool: web", "pool: wbe");
    let refused = sluice.put("/v1/config", &bad);
    assert_eq!(
        (refused.status, refused.header("content-type").unwrap().as_str()),
        (422, "application/problem+json")
    );
    let problem = refused.json();
    assert_eq!((&problem["status"], &problem["title"]), (&json!(422), &json!("Configuration refused")));
    assert_eq!(problem["errors"][0]["path"], "/pools/web/members/0/port");
    assert_eq!(problem["errors"][0]["line"], 12);
    assert_eq!(refused.paths(), ["/pools/web/members/0/port", "/virtual_servers/web/pool"]);
    assert_eq!(sluice.get("/v1/config"), before);
    assert_eq!(sluice.get("/v1/ready")["generation"], 1);
    sluice.end();
}

#[test]
fn what_is_fixed_at_start_needs_a_restart() {
    let sluice = Sluice::start(CONFIG, 1);
    let config = CONFIG
        .replace("interface: net2", "interface: net3")
        .replace("flows: 1024", "flows: 2048")
        .replace("system: {", "system: {idle: poll, workers: 1, dpdk: {eal_args: [x]}, ");
    let refused = sluice.put("/v1/config", &config);
    let mut paths = refused.paths();
    paths.sort();
    assert_eq!(paths, ["/ports/int", "/system/dpdk", "/system/idle", "/system/limits", "/system/workers"]);
    assert!(refused.body.contains("restart"), "{refused:?}");
    let partial = sluice.put("/v1/config?mode=partial", &config.replace("ratio: 2", "ratio: 3")).json();
    assert_eq!((partial["refused"].as_array().unwrap().len(), &partial["generation"]), (5, &json!(1)));
    sluice.end();
}

#[test]
fn partial_keeps_the_last_good_form_of_what_is_refused() {
    let sluice = Sluice::start(CONFIG, 1);
    let config = CONFIG.replace("snat: automap", "snat: atomap").to_string()
        + "  new: {destination: 192.0.2.102:80, pool: web}\n  bad: {destination: 192.0.2.103:80, pool: nope}\n";
    assert_eq!(sluice.put("/v1/config", &config).status, 422);
    let applied = sluice.put("/v1/config?mode=partial", &config).json();
    assert_eq!(applied["added"], json!(["/virtual_servers/new"]));
    let refused: Vec<_> = applied["refused"].as_array().unwrap().iter().map(|fault| &fault["path"]).collect();
    assert_eq!(refused, ["/virtual_servers/web/snat", "/virtual_servers/bad/pool"]);
    assert_eq!(applied["refused"][0]["line"], 15);
    assert_eq!(sluice.get("/v1/config")["virtual_servers"]["web"]["snat"], "automap");
    sluice.end();
}

#[test]
fn partial_keeps_what_a_kept_object_needs() {
    let sluice = Sluice::start(CONFIG, 1);
    // The virtual server is refused, so its running form stays, which needs the pool that is gone from the file.
    let config = CONFIG.replace("  web:\n", "  other:\n").replace("pool: web", "pool: nope");
    let applied = sluice.put("/v1/config?mode=partial", &config).json();
    assert_eq!((&applied["added"], &applied["removed"]), (&json!(["/pools/other"]), &json!([])), "{applied}");
    // A new object that takes a running one's place is what is refused.
    let config = CONFIG.to_string() + "  a: {destination: 192.0.2.100:80, pool: web}\n";
    let applied = sluice.put("/v1/config?mode=partial", &config).json();
    let config = sluice.get("/v1/config");
    let names: Vec<_> = config["virtual_servers"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["web"], "{applied}");
    sluice.end();
}

#[test]
fn if_match_guards_against_somebody_elses_change() {
    let sluice = Sluice::start(CONFIG, 1);
    let tag = sluice.request("GET", "/v1/config", &[], "").header("etag").unwrap();
    let patch = |tag: &str, ratio: u32| {
        let body = json!({"system": {"max_reject_rate": ratio}}).to_string();
        sluice.request("PATCH", "/v1/config", &[("if-match", tag)], &body)
    };
    let first = patch(&tag, 10);
    assert_eq!(first.status, 200);
    assert_eq!(patch(&tag, 20).status, 412);
    assert_eq!(patch(&first.header("etag").unwrap(), 30).status, 200);
    assert_eq!(patch("*", 40).status, 200);
    assert_eq!(patch("W/\"x\", \"y\"", 50).status, 412);
    assert_eq!(sluice.get("/v1/config")["system"]["max_reject_rate"], 40);
    sluice.end();
}

#[test]
fn a_merge_patch_adds_changes_and_removes() {
    let sluice = Sluice::start(CONFIG, 1);
    let patch = json!({"virtual_servers": {
        "web": {"enabled": false}, "dns": {"destination": "192.0.2.53:53", "protocol": "udp", "pool": "web"}
    }});
    let applied = sluice.patch("/v1/config", &patch.to_string()).json();
    assert_eq!(
        (&applied["added"], &applied["changed"][0]["path"]),
        (&json!(["/virtual_servers/dns"]), &json!("/virtual_servers/web"))
    );
    let applied = sluice.patch("/v1/config", r#"{"virtual_servers": {"dns": null}}"#).json();
    assert_eq!(applied["removed"], json!(["/virtual_servers/dns"]));
    let refused = sluice.patch("/v1/config", r#"{"virtual_servers": {"web": {"pool": "x"}}}"#);
    assert_eq!((refused.status, refused.paths()), (422, vec!["/virtual_servers/web/pool".to_string()]));
    assert!(refused.json()["errors"][0].get("line").is_none());
    assert_eq!(sluice.patch("/v1/config", "{").status, 400);
    sluice.end();
}

#[test]
fn a_members_state_is_said_and_stays() {
    let sluice = Sluice::start(CONFIG, 1);
    let say = |member: &str, state: &str| {
        let path = format!("/v1/pools/web/members/{member}");
        sluice.patch(&path, &json!({"state": state}).to_string())
    };
    assert_eq!(say("10.1.0.11:8080", "offline").status, 200);
    assert_eq!(say("10.1.0.12:8080", "enabled").status, 200);
    assert_eq!(sluice.states(), ["web 10.1.0.11:8080 offline", "web 10.1.0.12:8080 enabled"]);
    assert_eq!(sluice.get("/v1/members")[0]["state_from"], "runtime");
    assert_eq!(sluice.get("/v1/ready")["generation"], 1, "a state needs no new generation");
    assert!(sluice.get("/v1/config")["pools"]["web"]["members"][0].get("state").is_none());
    // An apply keeps what was said, but what the file states wins.
    let more = CONFIG.replace(
        "      - {address: 10.1.0.12",
        "      - {address: 10.1.0.9, port: 80}\n      - {address: 10.1.0.12",
    );
    assert_eq!(sluice.put("/v1/config", &more).status, 200);
    assert_eq!(
        sluice.states(),
        ["web 10.1.0.11:8080 offline", "web 10.1.0.9:80 enabled", "web 10.1.0.12:8080 disabled"]
    );
    assert_eq!(say("10.1.0.12:8080", "offline").status, 200);
    let again = sluice.put("/v1/config", &more).json();
    assert_eq!((&again["generation"], &again["changed"]), (&json!(2), &json!([])));
    assert_eq!(
        sluice.states()[2],
        "web 10.1.0.12:8080 disabled",
        "stated again, though nothing else differs"
    );
    for (member, body, status) in [
        ("10.1.0.99:80", r#"{"state": "enabled"}"#, 404),
        ("web1", r#"{"state": "enabled"}"#, 404),
        ("10.1.0.11:8080", r#"{"state": "up"}"#, 422),
        ("10.1.0.11:8080", r#"{"state": "enabled", "ratio": 2}"#, 422),
        ("10.1.0.11:8080", "{", 422),
    ] {
        assert_eq!(
            sluice.patch(&format!("/v1/pools/web/members/{member}"), body).status,
            status,
            "{member} {body}"
        );
    }
    assert_eq!(sluice.patch("/v1/pools/nope/members/10.1.0.11:80", r#"{"state": "enabled"}"#).status, 404);
    sluice.end();
}

#[test]
fn a_member_that_comes_up_or_is_added_begins_its_slow_ramp() {
    let sluice = Sluice::start(CONFIG, 1);
    let say = |state: &str| {
        let body = json!({"state": state}).to_string();
        assert_eq!(sluice.patch("/v1/pools/web/members/10.1.0.11:8080", &body).status, 200);
    };
    let since = |pool: usize, place: usize| {
        let id = sluice.process.view().snapshot.parts().pools[pool].members[place].id;
        sluice.process.member_up_since(id)
    };
    assert_eq!((since(0, 0), since(0, 1)), (None, None), "up from the start");
    say("offline");
    assert_eq!(since(0, 0), None);
    say("enabled");
    assert!(since(0, 0).is_some());
    let more =
        CONFIG.replace("port: 8080}\n", "port: 8080}\n      - {address: 10.1.0.13, port: 80}\n").replace(
            "virtual_servers:\n",
            "  young:\n    members: [{address: 10.1.0.14, port: 80}]\nvirtual_servers:\n",
        );
    assert_eq!(sluice.put("/v1/config", &more).status, 200);
    assert!(since(0, 1).is_some(), "new in a pool at work");
    assert_eq!(since(0, 2), None, "it was there before");
    assert_eq!(since(1, 0), None, "its whole pool is new");
    sluice.end();
}

#[test]
fn members_of_either_family_have_a_path() {
    let config = CONFIG.to_string().replace(
        "      - {address: 10.1.0.12",
        "      - {address: 10.1.0.13, port: \"*\"}\n      - {address: 10.1.0.12",
    );
    let config =
        config.replace("pools:\n", "pools:\n  a/b: {members: [{address: \"2001:db8::1\", port: 53}]}\n");
    let sluice = Sluice::start(&config, 1);
    for path in [
        "/v1/pools/a%2Fb/members/[2001:db8::1]:53",
        "/v1/pools/a%2Fb/members/%5B2001%3Adb8%3A%3A1%5D%3A53",
        "/v1/pools/web/members/10.1.0.13:*",
    ] {
        let answer = sluice.patch(path, r#"{"state": "offline"}"#);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    assert_eq!(sluice.states()[0], "a/b [2001:db8::1]:53 offline");
    assert_eq!(sluice.states()[2], "web 10.1.0.13:* offline");
    sluice.end();
}

#[test]
fn wrong_requests_are_problems() {
    let sluice = Sluice::start(CONFIG, 1);
    for (method, path, body, status) in [
        ("GET", "/v1/nothing", "", 404),
        ("GET", "/", "", 404),
        ("DELETE", "/v1/config", "", 405),
        ("POST", "/v1/ready", "", 405),
        ("PUT", "/v1/config?mode=half", CONFIG, 400),
        ("PUT", "/v1/config?dryrun=true", CONFIG, 400),
        ("GET", "/v1/flows?limit=x", "", 400),
        ("GET", "/v1/flows?client=bogus", "", 400),
        ("GET", "/v1/flows?client=10.1.0.11:99999", "", 400),
        ("GET", "/v1/flows?member=10.1.0", "", 400),
        ("GET", "/v1/flows?nobody=10.1.0.11", "", 400),
        ("GET", "/v1/persistence?address=bogus", "", 400),
        ("GET", "/v1/persistence?after=x", "", 400),
        ("PUT", "/v1/config", "a: [1", 422),
        ("PUT", "/v1/config", "", 422),
    ] {
        let answer = sluice.request(method, path, &[], body);
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert_eq!(answer.header("content-type").unwrap(), "application/problem+json", "{method} {path}");
        assert_eq!(answer.json()["status"], status, "{method} {path}");
    }
    let wrong_type = sluice.request("PUT", "/v1/config", &[("content-type", "image/png")], CONFIG);
    assert_eq!(wrong_type.status, 415);
    let big = " ".repeat(api_body_max() + 1);
    assert_eq!(sluice.put("/v1/config", &big).status, 413);
    sluice.end();
}

fn api_body_max() -> usize {
    sluice_control::api::BODY_MAX_BYTES
}

#[test]
fn schema_describes_the_contracts_example() {
    let sluice = Sluice::start(CONFIG, 1);
    let validator = jsonschema::validator_for(&sluice.get("/v1/schema")).unwrap();
    let node = sluice_control::parse::read(
        include_str!("../data/example.yaml"),
        sluice_control::parse::Format::Yaml,
    )
    .unwrap();
    let example = plain(&node);
    let errors: Vec<_> = validator.iter_errors(&example).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert!(validator.is_valid(&sluice.get("/v1/config")));
    assert!(!validator.is_valid(&json!({"version": 1, "ports": {}, "self_ips": {}, "pols": {}})));
    assert!(!validator.is_valid(&json!({"version": 2, "ports": {}, "self_ips": {}})));
    sluice.end();
}

/// A tree as JSON.
fn plain(node: &sluice_control::parse::Node<'_>) -> Value {
    use sluice_control::parse::Value as V;
    match &node.value {
        V::Null | V::Removed => Value::Null,
        V::Bool(value) => json!(value),
        V::Int(number) => json!(number),
        V::Large(number) => json!(**number as f64),
        V::Float(number) => json!(number),
        V::Text(text) => json!(text),
        V::List(items) => items.iter().map(plain).collect(),
        V::Map(entries) => entries.iter().map(|entry| (entry.key.to_string(), plain(&entry.node))).collect(),
    }
}

#[test]
fn metrics_follow_the_objects() {
    let sluice = Sluice::start(CONFIG, 2);
    let text = sluice.request("GET", "/metrics", &[], "").body;
    for line in [
        "sluice_virtual_server_connections{virtual_server=\"web\"} 0",
        "sluice_member_connections_total{pool=\"web\",member=\"10.1.0.11:8080\"} 0",
        "sluice_pool_members_available{pool=\"web\"} 1",
        "sluice_node_connections{address=\"10.1.0.12\"} 0",
        "sluice_worker_generation{worker=\"1\"} 1",
        "sluice_port_packets_total{port=\"ext\",driver=\"memory\",direction=\"in\"} 0",
        "sluice_ready 1",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
    sluice.patch("/v1/config", r#"{"virtual_servers": {"web": null}}"#);
    let text = sluice.request("GET", "/metrics", &[], "").body;
    assert!(!text.contains("virtual_server=\"web\""), "{text}");
    assert!(text.contains("sluice_config_generation 2"), "{text}");
    sluice.end();
}

#[test]
fn the_metrics_listener_follows_the_configuration() {
    let sluice = Sluice::start(CONFIG, 1);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listen = |value: Value| json!({"telemetry": {"prometheus": value}}).to_string();
    let applied = sluice.patch("/v1/config", &listen(json!({"listen": port.to_string()})));
    assert_eq!(applied.status, 200, "{applied:?}");
    let scrape = || -> std::io::Result<String> {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(port)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    assert!(scrape().unwrap().contains("sluice_ready 1"));
    // A taken address is an error at its place, and nothing changes.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused =
        sluice.patch("/v1/config", &listen(json!({"listen": taken.local_addr().unwrap().to_string()})));
    assert_eq!((refused.status, refused.paths()), (422, vec!["/telemetry/prometheus/listen".to_string()]));
    assert!(scrape().is_ok());
    assert_eq!(sluice.patch("/v1/config", &listen(Value::Null)).status, 200);
    assert!(scrape().is_err());
    sluice.end();
}

#[test]
fn an_access_log_that_cannot_be_opened_is_refused() {
    let sluice = Sluice::start(CONFIG, 1);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = folder.path().join(name);
        json!({"telemetry": {"access_log": {"file": path}}}).to_string()
    };
    let refused = sluice.patch("/v1/config", &file("no/access"));
    assert_eq!((refused.status, refused.paths()), (422, vec!["/telemetry/access_log/file".to_string()]));
    assert_eq!(sluice.patch("/v1/config", &file("access")).status, 200);
    assert!(folder.path().join("access").exists());
    let worker = &sluice.request("GET", "/v1/workers", &[], "").json()[0];
    assert_eq!((&worker["access_log_records"], &worker["access_log_dropped"]), (&json!(0), &json!(0)));
    let text = sluice.request("GET", "/metrics", &[], "").body;
    for line in ["sluice_access_log_dropped_total{worker=\"0\"} 0", "sluice_access_log_lost_lines_total 0"] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
    sluice.end();
}

#[test]
fn applies_at_once_come_one_after_the_other() {
    let sluice = Sluice::start(CONFIG, 2);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let sluice = &sluice;
            scope.spawn(move || {
                for round in 0..10 {
                    let name = format!("vs-{thread}-{}", round % 2);
                    let server = json!({"destination": format!("192.0.2.{}:{}", 101 + thread, 1000 + round), "pool": "web"});
                    let answer = sluice.patch("/v1/config", &json!({"virtual_servers": {name: server}}).to_string());
                    assert_eq!(answer.status, 200, "{answer:?}");
                }
            });
        }
    });
    let ready = sluice.get("/v1/ready");
    assert_eq!((&ready["generation"], &ready["workers"]), (&json!(41), &json!([41, 41])));
    assert_eq!(sluice.get("/v1/virtual-servers").as_array().unwrap().len(), 9);
    sluice.end();
}

#[test]
fn numbers_stay_over_applies() {
    let sluice = Sluice::start(CONFIG, 1);
    let web = sluice.process.view().book.virtual_id("web");
    let member = || {
        let view = sluice.process.view();
        let parts = view.snapshot.parts();
        parts.pools[0]
            .members
            .iter()
            .map(|member| (member.address.to_string(), member.id))
            .collect::<Vec<_>>()
    };
    let before = member();
    let config = CONFIG.replace(
        "      - {address: 10.1.0.11",
        "      - {address: 10.1.0.9, port: 80}\n      - {address: 10.1.0.11",
    ) + "  a: {destination: 192.0.2.102:80, pool: web}\n";
    assert_eq!(sluice.put("/v1/config", &config).status, 200);
    assert_eq!(sluice.process.view().book.virtual_id("web"), web);
    let after = member();
    assert_eq!(after.len(), 3);
    assert!(before.iter().all(|member| after.contains(member)), "{before:?} {after:?}");
    sluice.end();
}

#[test]
fn numbers_with_connections_are_kept_back() {
    let sluice = Sluice::start(CONFIG, 1);
    // The counters are the data plane's word for who still holds a number.
    let web = sluice.process.view().book.virtual_id("web");
    let counters = sluice.process.workers()[0].counters();
    counters.of_virtual(web).unwrap().connections.open();
    counters.of_virtual(web).unwrap().clientside.packets_in.add(7);
    let many = |first: usize| {
        let server =
            |number: usize| format!("  v{number}: {{destination: 192.0.2.100:{}, pool: web}}\n", number + 1);
        CONFIG.split("virtual_servers:\n").next().unwrap().to_string()
            + "virtual_servers:\n"
            + &(first..first + 32).map(server).collect::<String>()
    };
    assert_eq!(sluice.put("/v1/config", &CONFIG.replace("  web: {", "  other: {")).status, 200);
    assert_eq!(sluice.patch("/v1/config", r#"{"virtual_servers": {"other": null}}"#).status, 200);
    let full = sluice.put("/v1/config", &many(0));
    assert_eq!((full.status, full.paths()), (422, vec!["/virtual_servers".to_string()]));
    assert!(full.body.contains("1 that were removed"), "{full:?}");
    assert!(full.body.contains("until their connections have ended"), "{full:?}");
    counters.of_virtual(web).unwrap().connections.close();
    assert_eq!(sluice.put("/v1/config", &many(0)).status, 200);
    let servers = sluice.get("/v1/virtual-servers");
    let counted: u64 = servers
        .as_array()
        .unwrap()
        .iter()
        .map(|server| server["clientside"]["packets_in"].as_u64().unwrap())
        .sum();
    assert_eq!(counted, 0, "the number that changed its object counts anew");
    sluice.end();
}

#[test]
fn only_our_user_may_talk_to_a_private_socket() {
    let sluice = Sluice::start(CONFIG, 1);
    let mode = std::fs::metadata(&sluice.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    sluice.end();
    let us = rustix::process::geteuid().as_raw();
    let closed = Sluice::start_allowing(CONFIG, 1, Some(&[us + 1]));
    assert!(request(&closed.socket, "GET", "/v1/live", &[], "").is_err());
    closed.end();
}

#[test]
fn a_live_socket_is_refused_and_a_dead_one_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let path = folder.path().join("sub/s.sock");
    let first = ControlSocket::bind(&path).unwrap();
    let why = ControlSocket::bind(&path).err().unwrap();
    assert!(why.contains("running on this socket already"), "{why}");
    std::mem::forget(std::os::unix::net::UnixListener::bind(folder.path().join("dead")).map(drop));
    assert!(ControlSocket::bind(&folder.path().join("dead")).is_ok());
    drop(first);
    assert!(!path.exists());
    std::fs::write(&path, "text").unwrap();
    assert!(ControlSocket::bind(&path).err().unwrap().contains("no socket"));
}

/// A queue whose worker falls over when it is told to.
struct Trap(std::sync::Arc<std::sync::atomic::AtomicBool>, memory::MemoryQueue);

impl PortQueue for Trap {
    fn rx(&mut self, frames: &mut Vec<Frame>) -> usize {
        assert!(!self.0.load(std::sync::atomic::Ordering::Relaxed), "the trap has sprung");
        self.1.rx(frames)
    }
    fn tx(&mut self, frames: &mut Vec<Frame>) -> usize {
        self.1.tx(frames)
    }
    fn wait_fd(&self) -> Option<std::os::fd::RawFd> {
        None
    }
    fn counters(&mut self) -> DriverCounters {
        DriverCounters::default()
    }
    fn is_link_up(&mut self) -> bool {
        true
    }
}

#[test]
fn a_worker_that_ends_by_itself_is_seen() {
    let sprung = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut opened = opened(&["ext".into(), "int".into()], 2);
    opened.ports[0].queues[1] = Box::new(Trap(std::sync::Arc::clone(&sprung), memory::pair(8).0));
    let sluice = Sluice::start_on(CONFIG, opened);
    assert_eq!(sluice.request("GET", "/v1/ready", &[], "").status, 200);
    sprung.store(true, std::sync::atomic::Ordering::Relaxed);
    let begin = std::time::Instant::now();
    while sluice.process.ended().is_empty() && begin.elapsed().as_secs() < 5 {
        std::thread::yield_now();
    }
    assert_eq!(sluice.process.ended(), [1]);
    assert_eq!(sluice.request("GET", "/v1/ready", &[], "").status, 503);
    assert_eq!(sluice.get("/v1/workers")[1]["running"], false);
    sluice.end();
}

#[test]
fn draining_is_not_ready_and_waits_for_connections() {
    let sluice = Sluice::start(CONFIG, 1);
    let web = sluice.process.view().book.virtual_id("web");
    sluice.process.workers()[0].counters().of_virtual(web).unwrap().connections.open();
    assert_eq!(sluice.process.connections(), 1);
    sluice.patch("/v1/config", r#"{"virtual_servers": {"web": null}}"#);
    assert_eq!(sluice.process.connections(), 1, "through a virtual server that is gone");
    sluice.process.drain();
    let ready = sluice.request("GET", "/v1/ready", &[], "");
    assert_eq!((ready.status, &ready.json()["draining"]), (503, &json!(true)));
    sluice.end();
}
