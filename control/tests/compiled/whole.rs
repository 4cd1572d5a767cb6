//! Warnings, the schema, what is written out again, and differences.

use serde_json::{Value, json};
use sluice_control::check::{Against, check};
use sluice_control::diff::diff;
use sluice_control::model::Model;
use sluice_control::parse::{Node, Pointer};

use crate::{FRAME, checked, everything, server_text, warnings};

#[test]
fn what_is_odd_is_a_warning() {
    let members = "members: [{address: 10.1.0.11, port: 80, connection_limit: 5}, {address: 10.1.0.12, port: 80, priority_group: 1, connection_limit: 5}]";
    let of_pool = |fields: &str| warnings(&format!("pools: {{web: {{{fields}, {members}}}}}\n"));
    assert_eq!(of_pool("min_active_members: 2"), [""; 0]);
    assert_eq!(of_pool("min_active_members: 3"), ["/pools/web/min_active_members"]);
    assert_eq!(of_pool("min_active_members: 0"), ["/pools/web/members/1/priority_group"]);
    let queue = "min_active_members: 1, queue_depth_limit: 5, queue_time_limit: 1s";
    assert_eq!(of_pool(queue), ["/pools/web/queue_depth_limit", "/pools/web/queue_time_limit"]);
    assert_eq!(of_pool(&format!("{queue}, queue_on_connection_limit: true")), [""; 0]);
    assert_eq!(warnings("nodes: {lone: {address: 10.1.0.99}}\n"), ["/nodes/lone/address"]);
    let of_server = |fields: &str| warnings(&server_text(fields));
    assert_eq!(of_server("persistence: source-address"), [""; 0]);
    assert_eq!(of_server("persistence: hash"), [""; 0]);
    assert_eq!(of_server("persistence: {type: hash, timeout: 5s}"), ["/virtual_servers/web/persistence"]);
    assert_eq!(of_server("persistence: destination-address"), ["/virtual_servers/web/persistence"]);
    let method = |word: &str, fields: &str| {
        let text = server_text(fields).replacen("{web: {", &format!("{{web: {{load_balancing: {word}, "), 1);
        warnings(&text)
    };
    assert_eq!(method("least-sessions", ""), ["/virtual_servers/web/pool"]);
    assert_eq!(method("least-sessions", "persistence: source-address"), [""; 0]);
    assert_eq!(method("least-connections", "type: stateless, protocol: udp"), ["/virtual_servers/web/pool"]);
    assert_eq!(method("maglev", "type: stateless, protocol: udp"), [""; 0]);
}

#[test]
fn what_is_written_out_says_the_same() {
    let first = checked(&everything());
    let again = check(&Node::from_json(&first.model.to_json()), &Against::NOTHING).unwrap();
    assert_eq!(again.model, first.model);
    assert!(diff(&first.model, &again.model).is_empty());
}

#[test]
fn the_schema_knows_every_word() {
    let validator = jsonschema::validator_for(&Model::schema()).unwrap();
    let mut written = checked(&everything()).model.to_json();
    assert_eq!(validator.iter_errors(&written).map(|why| why.to_string()).collect::<Vec<_>>(), [""; 0]);
    let mut fits = |path: &str, value: Value| {
        let place = written.pointer_mut(path).unwrap_or_else(|| panic!("there is no {path}"));
        let before = std::mem::replace(place, value);
        let fits = validator.is_valid(&written);
        *written.pointer_mut(path).unwrap() = before;
        fits
    };
    for (path, value) in [
        ("/pools/web/load_balancing", json!("random")),
        ("/virtual_servers/web/persistence", json!("source-address")),
        ("/virtual_servers/web/persistence/mask", json!("255.255.0.0")),
        ("/virtual_servers/web/snat", json!({"pool": "egress"})),
        ("/snat_lists/by-source/1/snat", json!("none")),
        ("/virtual_servers/site/http", json!({})),
        ("/virtual_servers/site/connection_reuse", json!(true)),
        ("/virtual_servers/site/connection_reuse/source_mask", json!("255.255.255.0")),
        ("/virtual_servers/site/connection_reuse/source_mask", json!(24)),
        ("/virtual_servers/site/routes/0/match/0/path", json!("/a")),
        ("/virtual_servers/site/routes/0/match/0/headers", json!({"a": "b"})),
        ("/virtual_servers/site/routes/0/match/0/host", json!("a.example")),
        ("/virtual_servers/site/filters/0", json!({"cors": {"allow_origins": ["*"]}})),
        ("/telemetry/access_log", json!({"file": "/var/log/sluice/access"})),
    ] {
        assert!(fits(path, value.clone()), "{path}: {value}");
    }
    for (path, value) in [
        ("/pools/web/load_balancing", json!("rondom")),
        ("/pools/web/service_down_action", json!("reboot")),
        ("/virtual_servers/web/persistence", json!("cookies")),
        ("/virtual_servers/site/http", json!({"max_headers": 0})),
        ("/virtual_servers/site/connection_reuse", json!("true")),
        ("/virtual_servers/site/connection_reuse/source_mask", json!(33)),
        ("/virtual_servers/site/routes/0/match/0/path", json!({"exact": "/a", "prefix": "/b"})),
        ("/virtual_servers/site/routes/0/match/0/headers", json!([{"value": "b"}])),
        ("/virtual_servers/site/filters/0", json!({"redirct": {}})),
        ("/virtual_servers/site/filters/0", json!({"forwarded": {}, "redirect": {}})),
        ("/virtual_servers/site/filters/0", json!("forwarded")),
        ("/virtual_servers/site/proxy_protocol/send", json!("v3")),
        ("/virtual_servers/web/persistence/mask", json!(33)),
        ("/virtual_servers/web/snat", json!({"pool": "egress", "list": "by-source"})),
        ("/snat_lists/by-source/1/snat", json!({"list": "by-source"})),
        ("/virtual_servers/web/mss_clamp", json!(10)),
        ("/nodes/one/state", json!("up")),
        ("/nats/mail/origin", json!("")),
        ("/telemetry/access_log/syslog/facility", json!("local8")),
        ("/telemetry/access_log/syslog/app_name", json!("a b")),
    ] {
        assert!(!fits(path, value.clone()), "{path}: {value}");
    }
}

#[test]
fn a_diff_names_new_objects_and_changed_fields() {
    let old = checked(FRAME).model;
    let all = checked(&everything()).model;
    let added: Vec<_> = diff(&old, &all).added.iter().map(ToString::to_string).collect();
    for path in ["/nodes/one", "/snat_lists/by-source", "/nats/mail", "/pools/web"] {
        assert!(added.iter().any(|known| known == path), "{path} is not in {added:?}");
    }
    let changed = everything()
        .replace("ratio: 2, connection_limit: 100", "ratio: 3, connection_limit: 100")
        .replace("slow_ramp_time: 30s", "slow_ramp_time: 10s")
        .replace("source: 10.3.0.0/16, snat: automap", "source: 10.3.0.0/16, snat: none");
    let changes = diff(&all, &checked(&changed).model).changed;
    let told: Vec<_> =
        changes.iter().map(|change| (change.path.as_str(), change.fields[0].field.as_str())).collect();
    assert_eq!(
        told,
        [("/nodes/one", "ratio"), ("/pools/web", "slow_ramp_time"), ("/snat_lists/by-source", "")]
    );
}

#[test]
fn a_diff_leaves_out_what_is_in_both() {
    let with = |pools: &str| checked(&format!("{FRAME}pools: {{{pools}}}\n")).model;
    let (old, new) = (with("a: {}, b: {}, c: {}, e: {}"), with("b: {}, c: {reselect_tries: 1}, d: {}"));
    let found = diff(&old, &new);
    let text = |paths: Vec<&Pointer>| paths.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(text(found.added.iter().collect()), ["/pools/d"]);
    assert_eq!(text(found.removed.iter().collect()), ["/pools/a", "/pools/e"]);
    assert_eq!(text(found.changed.iter().map(|change| &change.path).collect()), ["/pools/c"]);
}
