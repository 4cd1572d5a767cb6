//! What a configuration becomes for the data plane: every word, every default, every warning.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod pools;
mod proxy;
mod servers;
mod whole;

use std::net::IpAddr;

use sluice_control::check::{Against, Candidate, check};
use sluice_control::parse::{Format, read};
use sluice_dataplane::address::Address;
use sluice_dataplane::config::ids::PortId;
use sluice_dataplane::config::snapshot::{Pool, Virtual};

const FRAME: &str = r#"version: 1
ports:
  ext: {driver: af_packet, interface: net1}
  int: {driver: af_packet, interface: net2}
self_ips:
  ext4: {address: 192.0.2.10/24, port: ext}
  int4: {address: 10.1.0.10/16, port: int, vlan: 100}
"#;

const EXT: PortId = PortId(0);
const INT: PortId = PortId(1);

fn checked(text: &str) -> Candidate {
    check_against(text, &Against::NOTHING)
}

fn check_against(text: &str, against: &Against<'_>) -> Candidate {
    let node = read(text, Format::Yaml).unwrap_or_else(|faults| panic!("{faults:#?}"));
    check(&node, against).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

/// [`FRAME`] with more.
fn with(text: &str) -> Candidate {
    checked(&format!("{FRAME}{text}"))
}

fn warnings(text: &str) -> Vec<String> {
    with(text).warnings.iter().map(|warning| warning.path.to_string()).collect()
}

/// The pool that `fields` make, with one member.
fn pool(fields: &str) -> Pool {
    let text = format!("pools: {{web: {{members: [{{address: 10.1.0.11, port: 80}}], {fields}}}}}\n");
    with(&text).parts.pools.remove(0)
}

/// The virtual server that `fields` make, of type performance-l4 with a pool unless they say another.
fn server(fields: &str) -> Virtual {
    with(&server_text(fields)).parts.virtuals.remove(0)
}

fn server_text(fields: &str) -> String {
    let pool = "pools: {web: {members: [{address: 10.1.0.11, port: 80}]}}";
    let lists = "snat_lists: {egress: [{source: 10.0.0.0/8, snat: automap}]}";
    let taken = if fields.contains("type: forwarding-ip") { "" } else { "pool: web, " };
    format!("{pool}\n{lists}\nvirtual_servers: {{web: {{destination: 192.0.2.100:80, {taken}{fields}}}}}\n")
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn address(text: &str) -> Address {
    ip(text).into()
}

/// Every section, with each object's less common words.
fn everything() -> String {
    let text = r#"system: {continue_matching: true}
telemetry: {access_log: {syslog: {address: "192.0.2.1:514", transport: tcp}}}
nodes: {one: {address: 10.1.0.11, ratio: 2, connection_limit: 100, rate_limit: 10, state: offline}}
pools:
  web:
    load_balancing: maglev
    min_active_members: 1
    slow_ramp_time: 30s
    service_down_action: reset
    reselect_tries: 2
    queue_on_connection_limit: true
    queue_depth_limit: 10
    queue_time_limit: 500ms
    members: [{address: 10.1.0.11, port: 80, priority_group: 5, rate_limit: 50}]
  shadow: {members: [{address: 10.1.0.12, port: 80}]}
snat_pools: {egress: {addresses: [192.0.2.50]}}
snat_lists:
  by-source:
    - {source: [10.1.0.0/16, 10.2.0.0/16], snat: {pool: egress}}
    - {source: 10.3.0.0/16, snat: automap}
nats: {mail: {origin: 10.1.0.25, translation: 192.0.2.25, reject_vlan: 100}}
virtual_servers:
  web:
    destination: 192.0.2.100:80
    pool: web
    snat: {list: by-source}
    source_port: preserve-strict
    persistence: {type: source-address, mask: 255.255.255.0, mask_v6: 64, match_across_services: true}
    rate_limit: 100
    mss_clamp: 1400
    reject_vlan: [100]
  short: {destination: 192.0.2.101:80, pool: web, persistence: hash}
  dns: {destination: 192.0.2.100:53, pool: web, type: stateless, protocol: udp}
"#;
    format!("{FRAME}{text}  site:{}", proxy::EVERY_WORD)
}
