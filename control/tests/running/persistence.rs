//! Persistence records over the socket: listed, filtered, page by page, ended.

use std::net::IpAddr;

use crate::common::{Answer, CONFIG, Sluice};
use serde_json::{Value, json};
use sluice_dataplane::address::Prefix;
use sluice_dataplane::config::snapshot::PersistenceKind;
use sluice_dataplane::persist::{Lease, Mark, RecordKey, Scope};

/// Records as a worker makes them: clients 198.51.100.1 to .4, in turn on the two members.
fn recorded() -> Sluice {
    let sluice = Sluice::start(
        &CONFIG.replace("snat: automap}", "snat: automap, persistence: {type: source-address}}"),
        1,
    );
    let view = sluice.process.view();
    let (server, pool) = (&view.snapshot.parts().virtuals[0], &view.snapshot.parts().pools[0]);
    for last in 1..=4 {
        let client: IpAddr = format!("198.51.100.{last}").parse().unwrap();
        let key = RecordKey {
            kind: PersistenceKind::SourceAddress,
            address: Prefix::host(client),
            scope: Scope::Server(server.id),
            pool: Some(pool.id),
        };
        let timeout_ms = server.persistence.unwrap().timeout_ms;
        let lease = Lease { now_ms: sluice.process.now_ms(), timeout_ms };
        sluice.process.persistence_table().agree(&key, Mark::of(&pool.members[last % 2]), lease);
    }
    sluice
}

fn delete(sluice: &Sluice, query: &str) -> Answer {
    sluice.request("DELETE", &format!("/v1/persistence{query}"), &[], "")
}

/// The addresses of the records that `query` finds, in order.
fn addresses(sluice: &Sluice, query: &str) -> Vec<String> {
    let rows = sluice.get(&format!("/v1/persistence{query}"));
    let address = |row: &Value| row["address"].as_str().unwrap().to_string();
    let mut addresses: Vec<_> = rows.as_array().unwrap().iter().map(address).collect();
    addresses.sort();
    addresses
}

#[test]
fn a_record_says_who_goes_where_and_for_how_long() {
    let sluice = recorded();
    let rows = sluice.get("/v1/persistence?address=198.51.100.1");
    let row = &rows[0];
    assert_eq!(
        (&row["type"], &row["address"], &row["virtual_server"], &row["pool"], &row["member"]),
        (
            &json!("source-address"),
            &json!("198.51.100.1"),
            &json!("web"),
            &json!("web"),
            &json!("10.1.0.12:8080")
        )
    );
    assert_eq!((&row["timeout_ms"], &row["destination"]), (&json!(180_000), &Value::Null));
    assert!(row["age_ms"].as_u64().unwrap() < 60_000, "{row}");
    sluice.end();
}

#[test]
fn records_are_filtered() {
    let sluice = recorded();
    let all = ["198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4"];
    for (query, expected) in [
        ("", &all[..]),
        ("?virtual_server=web", &all),
        ("?pool=web", &all),
        ("?address=198.51.100.3", &all[2..3]),
        ("?address=198.51.100.2/31", &all[1..3]),
        ("?member=10.1.0.12", &["198.51.100.1", "198.51.100.3"]),
        ("?member=10.1.0.11:8080&address=198.51.100.4", &all[3..]),
        ("?member=10.1.0.11:80", &[]),
        ("?virtual_server=other", &[]),
        ("?pool=other", &[]),
        ("?address=2001:db8::1", &[]),
    ] {
        assert_eq!(addresses(&sluice, query), expected, "{query}");
    }
    for wrong in ["?address=web", "?member=web", "?limit=x", "?port=80"] {
        assert_eq!(sluice.request("GET", &format!("/v1/persistence{wrong}"), &[], "").status, 400, "{wrong}");
    }
    sluice.end();
}

#[test]
fn a_long_list_goes_on_where_the_last_one_ended() {
    let sluice = recorded();
    let (mut after, mut seen) = ("0".to_string(), Vec::new());
    loop {
        let path = format!("/v1/persistence?limit=1&after={after}");
        let answer = sluice.request("GET", &path, &[], "");
        seen.push(answer.json()[0]["address"].as_str().unwrap().to_string());
        let more = answer.header("sluice-truncated").unwrap() == "true";
        let Some(next) = answer.header("sluice-next") else {
            assert!(!more, "{answer:?}");
            break;
        };
        assert!(more && seen.len() < 4, "{answer:?}");
        after = next;
    }
    seen.sort();
    assert_eq!(seen, addresses(&sluice, ""));
    sluice.end();
}

#[test]
fn records_are_ended_by_id_by_filter_and_all() {
    let sluice = recorded();
    let id = sluice.get("/v1/persistence?address=198.51.100.2")[0]["id"].as_str().unwrap().to_string();
    assert_eq!(delete(&sluice, &format!("?id={id}")).json(), json!({"deleted": 1}));
    let gone = delete(&sluice, &format!("?id={id}"));
    assert!(gone.status == 404 && gone.body.contains(&id), "{gone:?}");
    assert_eq!(delete(&sluice, "?member=10.1.0.12:8080").json(), json!({"deleted": 2}));
    assert_eq!(addresses(&sluice, ""), ["198.51.100.4"]);
    assert_eq!(delete(&sluice, "?virtual_server=other").json(), json!({"deleted": 0}));
    for wrong in ["?id=xyz", "?address=web", "?limit=3"] {
        assert_eq!(delete(&sluice, wrong).status, 400, "{wrong}");
    }
    assert_eq!(delete(&sluice, "").json(), json!({"deleted": 1}));
    assert_eq!(sluice.get("/v1/persistence"), json!([]));
    sluice.end();
}

#[test]
fn a_record_of_a_member_that_was_removed_has_none() {
    let sluice = recorded();
    let without = json!({"pools": {"web": {"members": [{"address": "10.1.0.11", "port": 8080}]}}});
    assert_eq!(sluice.patch("/v1/config", &without.to_string()).status, 200);
    let rows = sluice.get("/v1/persistence?address=198.51.100.1");
    assert_eq!((&rows[0]["member"], &rows[0]["pool"]), (&Value::Null, &Value::Null));
    assert!(addresses(&sluice, "?member=10.1.0.12").is_empty());
    sluice.end();
}

#[test]
fn metrics_count_records() {
    let sluice = recorded();
    let text = sluice.request("GET", "/metrics", &[], "").body;
    for line in [
        "sluice_persistence_records 4",
        "sluice_persistence_hits_total 0",
        "sluice_persistence_misses_total 0",
        "sluice_persistence_evicted_total 0",
        "sluice_limit{table=\"persistence\"} 65536",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
    sluice.end();
}
