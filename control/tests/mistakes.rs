//! What an operator can get wrong: each mistake gives exactly one error, at its path and line, with what was expected.

#[path = "mistakes/proxy.rs"]
mod proxy;
#[path = "mistakes/traffic.rs"]
mod traffic;

use std::path::Path;

use sluice_control::check::{Against, check, check_file};
use sluice_control::parse::{Fault, Format, read};

/// A configuration without errors. Every case below changes one thing about it.
const BASE: &str = r#"version: 1
system:
  workers: 1
  limits: {flows: 1000, half_open: 100, members: 6}
  drain_timeout: 5s
ports:
  ext: {driver: af_packet, interface: net1}
  int: {driver: dpdk, device: "0000:3b:00.1"}
self_ips:
  ext4: {address: 192.0.2.10/24, port: ext}
  int4: {address: 10.1.0.10/24, port: int, vlan: 100}
  int6: {address: "2001:db8::10/64", port: int}
routes:
  - {destination: 0.0.0.0/0, gateway: 192.0.2.1}
  - {destination: "::/0", gateway: "fe80::1", port: int}
monitors:
  hello: {type: tcp, interval: 5s, timeout: 16s}
pools:
  web:
    load_balancing: ratio-member
    monitors: [hello]
    members:
      - {address: 10.1.0.11, port: 8080, ratio: 2}
      - {address: 10.1.0.12, port: 8080}
  six:
    members: [{address: "2001:db8::11", port: "*"}]
snat_pools:
  egress: {addresses: [192.0.2.50, "2001:db8::50"]}
virtual_servers:
  web:
    destination: 192.0.2.100:80
    pool: web
    snat: automap
    idle_timeout: 300s
  six:
    destination: "[2001:db8::100]:80"
    source: "2001:db8::/32"
    pool: six
    snat: {pool: egress}
  out:
    destination: [0.0.0.0/0:*, "[::]/0:*"]
    protocol: any
    type: forwarding-ip
    ports: [int]
  no: {destination: 192.0.2.100:81-90, type: reject, vlan: [7, 8], ports: [ext]}
telemetry:
  prometheus: {listen: "127.0.0.1:9464"}
  log: {level: info, format: text}
nodes:
  one: {address: 10.1.0.11, ratio: 2}
snat_lists:
  by-source:
    - {source: 10.1.0.0/16, snat: automap}
    - {source: [10.2.0.0/16, 10.3.0.0/16], snat: {pool: egress}}
    - {source: "2001:db8:2::/48", snat: automap}
nats:
  mail: {origin: 10.1.0.25, translation: 192.0.2.25, ports: [ext]}
"#;

/// What stands in [`BASE`], what is written instead, and the error: path, line, a part of the message.
pub(crate) type Case<'a> = (&'a str, &'a str, &'a str, u32, &'a str);

const STRUCTURE: &[Case] = &[
    ("version: 1", "version: 2", "/version", 1, "the number 1"),
    ("version: 1", "", "/version", 2, "no default"),
    ("  workers: 1", "  workers: many", "/system/workers", 3, "auto, a number of workers"),
    ("  workers: 1", "  workers: [1, -1]", "/system/workers/1", 3, "from 0 to 4095"),
    ("  workers: 1", "  wrokers: 1", "/system/wrokers", 3, "did you mean \"workers\""),
    ("flows: 1000", "flows: 0", "/system/limits/flows", 4, "from 1 to 1000000000"),
    ("flows: 1000", "proxy_buffer: 64", "/system/limits/proxy_buffer", 4, "64KiB"),
    ("drain_timeout: 5s", "drain_timeout: 5", "/system/drain_timeout", 5, "with its unit"),
    ("drain_timeout: 5s", "drain_timeout: 5 days", "/system/drain_timeout", 5, "with its unit"),
    ("drain_timeout: 5s", "reject_unmatched: maybe", "/system/reject_unmatched", 5, "true or false"),
    ("drain_timeout: 5s", "dpdk: {eal_args: [-m, 512]}", "/system/dpdk/eal_args/1", 5, "expected text"),
    ("drain_timeout: 5s", "idle: lazy", "/system/idle", 5, "one of adaptive, poll"),
    ("driver: af_packet", "driver: afpacket", "/ports/ext/driver", 7, "did you mean \"af_packet\""),
    ("interface: net1", "interfaec: net1", "/ports/ext/interfaec", 7, "did you mean \"interface\""),
    ("interface: net1", "interface: net1, fault: {loss: 2}", "/ports/ext/fault/loss", 7, "from 0 to 1"),
    ("192.0.2.10/24", "192.0.2.10", "/self_ips/ext4/address", 10, "prefix length is missing"),
    ("192.0.2.10/24", "192.0.2.10/33", "/self_ips/ext4/address", 10, "0 to 32"),
    ("vlan: 100", "vlan: 4095", "/self_ips/int4/vlan", 11, "from 1 to 4094"),
    ("port: ext}", "prot: ext}", "/self_ips/ext4/prot", 10, "did you mean \"port\""),
    (", gateway: 192.0.2.1", "", "/routes/0/gateway", 14, "no default"),
    (
        "destination: 0.0.0.0/0, ",
        "destination: 10.0.0.1/8, ",
        "/routes/0/destination",
        14,
        "network is 10.0.0.0/8",
    ),
    ("type: tcp,", "type: snmp,", "/monitors/hello/type", 17, "one of http, https, tcp"),
    ("interval: 5s", "interval: 5sec", "/monitors/hello/interval", 17, "5s or 300ms"),
    ("ratio-member", "dynamic-ratio-member", "/pools/web/load_balancing", 20, "ratio-member, ratio-node"),
    ("port: 8080, ratio: 2", "port: 99999, ratio: 2", "/pools/web/members/0/port", 23, "from 1 to 65535"),
    ("port: 8080, ratio: 2", "ratio: 2", "/pools/web/members/0/port", 23, "no default"),
    ("ratio: 2", "ratio: 0", "/pools/web/members/0/ratio", 23, "from 1 to 65535"),
    ("ratio: 2", "state: up", "/pools/web/members/0/state", 23, "enabled, disabled, offline"),
    (
        "address: 10.1.0.12",
        "address: web2.example",
        "/pools/web/members/1/address",
        24,
        "IPv4 or IPv6 address",
    ),
    ("address: 10.1.0.12", "address: 10.1.0.12/24", "/pools/web/members/1/address", 24, "that is 10.1.0.12"),
    ("[hello]", "hello", "/pools/web/monitors", 21, "expected a list"),
    (
        "destination: 192.0.2.100:80",
        "destination: 192.0.2.100",
        "/virtual_servers/web/destination",
        31,
        "port is missing",
    ),
    ("    destination: 192.0.2.100:80\n", "", "/virtual_servers/web/destination", 30, "no default"),
    ("192.0.2.100:80\n", "192.0.2.100:0-80\n", "/virtual_servers/web/destination", 31, "\"0\" is not a port"),
    ("\"[2001:db8::100]:80\"", "2001:db8::100:80", "/virtual_servers/six/destination", 36, "brackets"),
    (
        "snat: automap",
        "snat: auto",
        "/virtual_servers/web/snat",
        33,
        "none, automap, {pool: NAME} or {list: NAME}",
    ),
    (
        "snat: {pool: egress}",
        "snat: {poool: egress}",
        "/virtual_servers/six/snat/poool",
        39,
        "did you mean \"pool\"",
    ),
    ("protocol: any", "protocol: sctp", "/virtual_servers/out/protocol", 42, "tcp, udp, any"),
    (
        "type: forwarding-ip",
        "type: forwarding_ip",
        "/virtual_servers/out/type",
        43,
        "did you mean \"forwarding-ip\"",
    ),
    ("idle_timeout: 300s", "httpp: {}", "/virtual_servers/web/httpp", 34, "did you mean \"http\""),
    ("vlan: [7, 8]", "vlan: [7, 9000]", "/virtual_servers/no/vlan/1", 45, "from 0 to 4094"),
    ("127.0.0.1:9464", "localhost", "/telemetry/prometheus/listen", 47, "127.0.0.1:9464"),
    ("level: info", "level: verbose", "/telemetry/log/level", 48, "error, warn, info"),
    ("  no: {destination", "  \"n o\": {destination", "/virtual_servers/n o", 45, "a letter or digit"),
    (
        "ports:\n  ext:",
        "ports:\n  ext: {driver: dpdk, device: \"0\"}\n  ext:",
        "/ports/ext",
        8,
        "line 7 already",
    ),
];

const MEANING: &[Case] = &[
    ("half_open: 100", "half_open: 2000", "/system/limits/half_open", 4, "at most the 1000"),
    ("members: 6", "members: 2", "/pools", 18, "at most 2 (system.limits.members); these are 3"),
    ("  workers: 1", "  workers: [2, 2]", "/system/workers/1", 3, "2 stands twice"),
    ("  workers: 1", "  workers: []", "/system/workers", 3, "at least one core"),
    (", interface: net1", "", "/ports/ext/interface", 7, "this driver needs"),
    ("interface: net1", "interface: net1, device: x", "/ports/ext/device", 7, "no device with this driver"),
    ("interface: net1", "interface: a-very-long-interface", "/ports/ext/interface", 7, "15 characters"),
    (
        "{driver: dpdk, device: \"0000:3b:00.1\"}",
        "{driver: af_packet, interface: net1}",
        "/ports/int/interface",
        8,
        "port ext has it",
    ),
    ("port: ext}", "port: outside}", "/self_ips/ext4/port", 10, "(ext, int); there is no \"outside\""),
    ("192.0.2.10/24", "192.0.2.0/24", "/self_ips/ext4/address", 10, "the network 192.0.2.0/24 itself"),
    ("192.0.2.10/24", "192.0.2.255/24", "/self_ips/ext4/address", 10, "broadcast address of 192.0.2.0/24"),
    ("192.0.2.10/24", "224.0.0.1/24", "/self_ips/ext4/address", 10, "multicast"),
    ("2001:db8::10/64", "2001:db8::/64", "/self_ips/int6/address", 12, "the network 2001:db8::/64 itself"),
    (
        "10.1.0.10/24, port: int, vlan: 100",
        "192.0.2.10/24, port: ext",
        "/self_ips/int4/address",
        11,
        "self IP ext4 has",
    ),
    ("gateway: 192.0.2.1}", "gateway: 198.51.100.1}", "/routes/0/gateway", 14, "no self IP is on that"),
    ("gateway: 192.0.2.1}", "gateway: 192.0.2.10}", "/routes/0/gateway", 14, "our own self IP ext4"),
    ("gateway: 192.0.2.1}", "gateway: \"2001:db8::1\"}", "/routes/0/gateway", 14, "address family"),
    ("\"fe80::1\", port: int", "\"fe80::1\"", "/routes/1/port", 15, "link-local"),
    ("\"fe80::1\", port: int", "\"fe80::1\", port: x", "/routes/1/port", 15, "there is no \"x\""),
    (
        "destination: \"::/0\", gateway: \"fe80::1\", port: int",
        "destination: 0.0.0.0/0, gateway: 192.0.2.2",
        "/routes/1/destination",
        15,
        "one route to 0.0.0.0/0",
    ),
    ("timeout: 16s", "timeout: 5s", "/monitors/hello/timeout", 17, "more than the interval"),
    ("type: tcp, ", "type: icmp, send: x, ", "/monitors/hello/send", 17, "exchanges no text"),
    ("[hello]", "[helo]", "/pools/web/monitors/0", 21, "there is no \"helo\""),
    (
        "10.1.0.12, port: 8080",
        "10.1.0.11, port: 8080",
        "/pools/web/members/1/address",
        24,
        "each member once",
    ),
    ("address: 10.1.0.12", "address: 10.1.0.10", "/pools/web/members/1/address", 24, "our own self IP int4"),
    ("address: 10.1.0.12", "address: 127.0.0.1", "/pools/web/members/1/address", 24, "loopback"),
    (
        "address: 10.1.0.12",
        "address: \"2001:db8::12\"",
        "/virtual_servers/web/pool",
        32,
        "a pool of IPv4 members",
    ),
    (
        "[192.0.2.50, \"2001:db8::50\"]",
        "[192.0.2.50, 192.0.2.50, \"2001:db8::50\"]",
        "/snat_pools/egress/addresses/1",
        28,
        "each address once",
    ),
    ("[192.0.2.50, \"2001:db8::50\"]", "[]", "/snat_pools/egress/addresses", 28, "at least one address"),
    (
        "[192.0.2.50, \"2001:db8::50\"]",
        "[192.0.2.50]",
        "/virtual_servers/six/snat/pool",
        39,
        "egress has no address of IPv6",
    ),
    (
        "    snat: {pool: egress}",
        "    snat: {pool: ingress}",
        "/virtual_servers/six/snat/pool",
        39,
        "there is no \"ingress\"",
    ),
    (
        "    pool: web\n",
        "    pool: wbe\n",
        "/virtual_servers/web/pool",
        32,
        "(six, web); there is no \"wbe\"",
    ),
    ("    pool: web\n", "", "/virtual_servers/web/pool", 30, "sends connections to a pool"),
    (
        "type: forwarding-ip",
        "type: forwarding-ip\n    pool: web",
        "/virtual_servers/out/pool",
        44,
        "expected no pool",
    ),
    ("idle_timeout: 300s", "idle_timeout: 0s", "/virtual_servers/web/idle_timeout", 34, "more than 0s"),
    ("192.0.2.100:80\n", "224.0.0.1:80\n", "/virtual_servers/web/destination", 31, "multicast"),
    ("192.0.2.100:80\n", "0.0.0.0:80\n", "/virtual_servers/web/destination", 31, "write \"0.0.0.0/0\""),
    ("192.0.2.100:80\n", "192.0.2.10:*\n", "/virtual_servers/web/destination", 31, "the self IP ext4"),
    (
        "192.0.2.100:80\n",
        "192.0.2.100:1-65535\n",
        "/virtual_servers/web/destination",
        31,
        "at most 4096 combinations",
    ),
    (
        "192.0.2.100:80\n",
        "[192.0.2.100:80, \"[2001:db8::99]:80\"]\n",
        "/virtual_servers/web/destination",
        31,
        "one address family",
    ),
    (
        "192.0.2.100:80\n",
        "192.0.2.100:85\n",
        "/virtual_servers/web/destination",
        31,
        "virtual server no takes 192.0.2.100/32 port 85",
    ),
    ("source: \"2001:db8::/32\"", "source: 10.0.0.0/8", "/virtual_servers/six/source", 37, "address family"),
    ("ports: [int]", "ports: [int, out]", "/virtual_servers/out/ports/1", 44, "there is no \"out\""),
    ("ports: [int]", "ports: []", "/virtual_servers/out/ports", 44, "at least one port"),
];

fn faults_of(text: &str) -> Vec<Fault> {
    let read = read(text, Format::Yaml);
    let checked = read.and_then(|node| check(&node, &Against::NOTHING));
    checked.err().unwrap_or_default()
}

pub(crate) fn assert_case((old, new, path, line, part): &Case<'_>) {
    assert!(BASE.contains(old), "the base holds no {old:?}");
    let faults = faults_of(&BASE.replacen(old, new, 1));
    let told = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert_eq!(faults.len(), 1, "{old:?} -> {new:?} gave:\n{told}");
    assert_eq!(faults[0].path.as_str(), *path, "{old:?} -> {new:?} gave:\n{told}");
    assert_eq!(faults[0].line, Some(*line), "{old:?} -> {new:?} gave:\n{told}");
    assert!(faults[0].message.contains(part), "{part:?} is not in:\n{told}");
}

/// A host may have the address of a virtual server that its neighbours cannot reach, or that only forwards.
#[test]
fn a_virtual_server_may_have_the_address_of_a_host_elsewhere() {
    for (what, instead) in [
        ("destination: 192.0.2.100:80\n", "destination: 10.1.0.11:80\n    ports: [ext]\n"),
        ("destination: 192.0.2.100:80\n", "destination: 10.1.0.11:80\n    vlan: 7\n"),
        ("[0.0.0.0/0:*, \"[::]/0:*\"]", "[10.1.0.11:*, 10.1.0.12:*]"),
    ] {
        let text = BASE.replace(what, instead);
        assert_ne!(text, BASE);
        assert_eq!(faults_of(&text), [], "{instead}");
    }
}

#[test]
fn the_base_has_no_errors() {
    assert_eq!(faults_of(BASE), []);
}

#[test]
fn each_mistake_of_form_gives_its_one_error() {
    STRUCTURE.iter().chain(traffic::STRUCTURE).for_each(assert_case);
}

#[test]
fn each_mistake_of_meaning_gives_its_one_error() {
    MEANING.iter().chain(traffic::MEANING).for_each(assert_case);
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_lines() {
    let cases: Vec<&Case> = [
        ("/system/workers", 0),
        ("/ports/ext/interfaec", 0),
        ("/self_ips/int4/vlan", 0),
        ("/monitors/hello/interval", 0),
        ("/pools/web/load_balancing", 0),
        ("/pools/web/members/0/ratio", 0),
        ("/virtual_servers/six/destination", 0),
        ("/virtual_servers/out/protocol", 0),
        ("/virtual_servers/no/vlan/1", 0),
        ("/telemetry/log/level", 0),
        ("/system/limits/half_open", 1),
        ("/routes/0/gateway", 1),
        ("/virtual_servers/web/pool", 1),
        ("/snat_pools/egress/addresses/1", 1),
    ]
    .iter()
    .map(|(path, table)| [STRUCTURE, MEANING][*table].iter().find(|case| case.2 == *path).unwrap())
    .collect();
    let text = cases.iter().fold(BASE.to_string(), |text, (old, new, ..)| text.replacen(old, new, 1));
    let told: Vec<_> =
        faults_of(&text).iter().map(|fault| (fault.line.unwrap(), fault.path.to_string())).collect();
    let mut expected: Vec<_> = cases.iter().map(|case| (case.3, case.2.to_string())).collect();
    expected.sort();
    assert_eq!(told, expected);
}

#[test]
fn hundreds_of_mistakes_are_cut_short() {
    let members: String = (0..300).map(|_| "      - {address: 10.1.0.11, port: x}\n").collect();
    let faults = faults_of(&BASE.replacen("    members:\n", &format!("    members:\n{members}"), 1));
    assert!((100..=101).contains(&faults.len()), "{}", faults.len());
}

#[test]
fn the_contracts_example_is_accepted() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/example.yaml");
    let candidate = check_file(&file).unwrap_or_else(|faults| panic!("{faults:#?}"));
    let warned: Vec<_> = candidate.warnings.iter().map(|warning| warning.path.as_str()).collect();
    assert_eq!(warned, ["/monitors/web-health", "/pools/web/members/1/priority_group"]);
}

#[test]
fn the_example_of_http_is_accepted_without_warnings() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/example-http.yaml");
    let candidate = check_file(&file).unwrap_or_else(|faults| panic!("{faults:#?}"));
    assert_eq!(candidate.warnings, []);
}

#[test]
fn json_has_lines_too() {
    let text = "{\n\t\"version\": 1,\n\t\"ports\": {\n\t\t\"p\": {\"driver\": \"af_packet\",\n\t\t\t\"interface\": 5}\n\t},\n\t\"self_ips\": {}\n}";
    let faults = check(&read(text, Format::Json).unwrap(), &Against::NOTHING).unwrap_err();
    assert_eq!((faults.len(), faults[0].path.as_str(), faults[0].line), (1, "/ports/p/interface", Some(5)));
    let good = text.replace("5}", "\"net1\"}");
    assert!(check(&read(&good, Format::Json).unwrap(), &Against::NOTHING).is_ok());
}

#[test]
fn a_file_that_is_not_there_is_one_error() {
    let faults = check_file(Path::new("/nonexistent/sluice.yaml")).unwrap_err();
    assert!(faults.len() == 1 && faults[0].message.contains("readable"), "{faults:?}");
}

#[test]
fn sections_left_empty_are_as_if_left_out() {
    let text = "version: 1\nports: {p: {driver: af_packet, interface: a}}\nself_ips:\npools:\nroutes:\nvirtual_servers:\n";
    assert_eq!(faults_of(text).iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(), ["/self_ips"]);
}

#[test]
fn the_manuals_examples_are_accepted() {
    let manual = include_str!("../../docs/CONFIGURATION.md");
    let examples: Vec<&str> =
        manual.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 3);
    for example in examples {
        assert_eq!(faults_of(example), [], "{example}");
    }
}
