//! What `sluice show` and `sluice apply` print: tables out of the socket's JSON.

use comfy_table::{Table, presets};
use serde_json::Value;

/// The columns of a thing's table: title, and the JSON pointer of the value in one item.
type Columns = &'static [(&'static str, &'static str)];

/// What `sluice show` can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[allow(missing_docs)]
pub enum Thing {
    VirtualServers,
    Pools,
    Members,
    Flows,
    Persistence,
    Snat,
    Neighbors,
    Routes,
    Ports,
    Workers,
    Drops,
    Monitors,
    Certificates,
    Config,
    Version,
}

impl Thing {
    /// Where it is on the socket.
    pub fn path(self) -> String {
        let name = clap::ValueEnum::to_possible_value(&self).map(|value| value.get_name().to_string());
        format!("/v1/{}", name.unwrap_or_default())
    }

    /// It as a table; the configuration as YAML.
    pub fn table(self, json: &Value) -> String {
        match self {
            Thing::Config => crate::yaml::to_yaml(json),
            Thing::Version => fields(json),
            Thing::VirtualServers => virtual_servers(json),
            Thing::Drops => drops(json),
            Thing::Snat => snat(json),
            Thing::Ports => ports(json),
            Thing::Workers => workers(json),
            _ => rows(self.columns(), json),
        }
    }

    fn columns(self) -> Columns {
        match self {
            Thing::Pools => POOLS,
            Thing::Members => MEMBERS,
            Thing::Flows => FLOWS,
            Thing::Persistence => PERSISTENCE,
            Thing::Neighbors => NEIGHBORS,
            Thing::Routes => ROUTES,
            Thing::Monitors => MONITORS,
            Thing::Certificates => &[("NAME", "/name")],
            Thing::VirtualServers
            | Thing::Snat
            | Thing::Ports
            | Thing::Workers
            | Thing::Drops
            | Thing::Config
            | Thing::Version => &[],
        }
    }
}

const VIRTUAL_SERVERS: Columns = &[
    ("NAME", "/name"),
    ("DESTINATION", "/destination"),
    ("PROTOCOL", "/protocol"),
    ("TYPE", "/type"),
    ("ENABLED", "/enabled"),
    ("POOL", "/pool"),
    ("MEMBERS UP", "/members_available"),
    ("CURRENT", "/connections/current"),
    ("TOTAL", "/connections/total"),
    ("PACKETS IN", "/clientside/packets_in"),
    ("PACKETS OUT", "/clientside/packets_out"),
    ("BYTES IN", "/clientside/bytes_in"),
    ("BYTES OUT", "/clientside/bytes_out"),
];

const HTTP: Columns = &[
    ("NAME", "/name"),
    ("REQUESTS", "/http/requests"),
    ("1XX", "/http/responses/1xx"),
    ("2XX", "/http/responses/2xx"),
    ("3XX", "/http/responses/3xx"),
    ("4XX", "/http/responses/4xx"),
    ("5XX", "/http/responses/5xx"),
    ("REFUSED", "/http/refused"),
    ("RETRIES", "/http/retries"),
    ("REUSED", "/http/reused"),
];

const POOLS: Columns = &[
    ("NAME", "/name"),
    ("LOAD BALANCING", "/load_balancing"),
    ("MEMBERS", "/members"),
    ("UP", "/members_available"),
    ("CURRENT", "/connections/current"),
    ("TOTAL", "/connections/total"),
    ("BYTES IN", "/serverside/bytes_in"),
    ("BYTES OUT", "/serverside/bytes_out"),
];

const MEMBERS: Columns = &[
    ("POOL", "/pool"),
    ("MEMBER", "/member"),
    ("STATE", "/state"),
    ("FROM", "/state_from"),
    ("RATIO", "/ratio"),
    ("CURRENT", "/connections/current"),
    ("TOTAL", "/connections/total"),
    ("PACKETS IN", "/serverside/packets_in"),
    ("PACKETS OUT", "/serverside/packets_out"),
    ("BYTES IN", "/serverside/bytes_in"),
    ("BYTES OUT", "/serverside/bytes_out"),
];

const FLOWS: Columns = &[
    ("CLIENT", "/client"),
    ("DESTINATION", "/destination"),
    ("SOURCE", "/source"),
    ("MEMBER", "/member"),
    ("PROTOCOL", "/protocol"),
    ("STATE", "/state"),
    ("VIRTUAL SERVER", "/virtual_server"),
    ("IDLE MS", "/idle_ms"),
    ("BYTES IN", "/bytes_in"),
    ("BYTES OUT", "/bytes_out"),
    ("WORKER", "/worker"),
];

const PERSISTENCE: Columns = &[
    ("ID", "/id"),
    ("TYPE", "/type"),
    ("ADDRESS", "/address"),
    ("VIRTUAL SERVER", "/virtual_server"),
    ("DESTINATION", "/destination"),
    ("POOL", "/pool"),
    ("MEMBER", "/member"),
    ("AGE MS", "/age_ms"),
    ("TIMEOUT MS", "/timeout_ms"),
];

const NEIGHBORS: Columns = &[
    ("ADDRESS", "/address"),
    ("MAC", "/mac"),
    ("PORT", "/port"),
    ("VLAN", "/vlan"),
    ("STATE", "/state"),
    ("AGE MS", "/age_ms"),
    ("WORKER", "/worker"),
];

const ROUTES: Columns = &[
    ("DESTINATION", "/destination"),
    ("GATEWAY", "/gateway"),
    ("PORT", "/port"),
    ("VLAN", "/vlan"),
    ("ORIGIN", "/origin"),
    ("SELF IP", "/self_ip"),
];

const PORTS: Columns = &[
    ("NAME", "/name"),
    ("DRIVER", "/driver"),
    ("DEVICE", "/device"),
    ("MAC", "/mac"),
    ("MTU", "/mtu"),
    ("LINK", "/link"),
    ("QUEUES", "/queues"),
    ("STEERING", "/steering"),
    ("OFFLOADS", "/offloads"),
    ("PACKETS IN", "/traffic/packets_in"),
    ("PACKETS OUT", "/traffic/packets_out"),
    ("BYTES IN", "/traffic/bytes_in"),
    ("BYTES OUT", "/traffic/bytes_out"),
    ("MISSED", "/rx_missed"),
    ("RX ERRORS", "/rx_errors"),
    ("TX ERRORS", "/tx_errors"),
];

const MONITORS: Columns = &[
    ("NAME", "/name"),
    ("TYPE", "/type"),
    ("INTERVAL", "/interval"),
    ("TIMEOUT", "/timeout"),
    ("POOLS", "/pools"),
    ("STATE", "/state"),
];

const WORKERS: Columns = &[
    ("WORKER", "/worker"),
    ("CORE", "/core"),
    ("GENERATION", "/generation"),
    ("TURNS", "/turns"),
    ("BUSY %", "/busy_percent"),
    ("SLEEPS", "/sleeps"),
    ("LONGEST TURN US", "/longest_turn_us"),
    ("FLOWS", "/flows"),
    ("HALF OPEN", "/half_open"),
    ("PROXIES", "/proxies"),
    ("SYN COOKIES", "/syn_cookies"),
    ("NEIGHBORS", "/neighbors"),
    ("SNAT PORTS", "/snat_ports"),
    ("MISDIRECTED", "/misdirected"),
    ("HANDED OVER", "/handed_over"),
    ("REJECTS", "/rejects_sent"),
    ("LIMITED", "/rejects_limited"),
    ("LOGGED", "/access_log_records"),
    ("LOG DROPPED", "/access_log_dropped"),
];

const TABLES: Columns =
    &[("TABLE", "/name"), ("CAPACITY", "/capacity"), ("BYTES", "/bytes"), ("PAGES", "/pages")];

fn rows(columns: Columns, json: &Value) -> String {
    let cells = |item: &Value| columns.iter().map(|(_, at)| cell(item.pointer(at))).collect();
    let items = json.as_array().map(Vec::as_slice).unwrap_or_default();
    render(columns.iter().map(|(title, _)| (*title).into()).collect(), items.iter().map(cells).collect())
}

fn render(titles: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(titles).add_rows(rows);
    let lines = table.to_string();
    lines.lines().map(|line| format!("{}\n", line.trim())).collect()
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) if text.is_empty() => "-".into(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(value)) => if *value { "yes" } else { "no" }.into(),
        Some(Value::Array(items)) if items.is_empty() => "-".into(),
        Some(Value::Array(items)) => items.iter().map(|item| cell(Some(item))).collect::<Vec<_>>().join(" "),
        Some(other) => other.to_string(),
    }
}

fn fields(json: &Value) -> String {
    let map = json.as_object().into_iter().flatten();
    map.map(|(name, value)| format!("{name}: {}\n", cell(Some(value)))).collect()
}

/// The table, then one of HTTP for those that speak it.
fn virtual_servers(json: &Value) -> String {
    let all = json.as_array().into_iter().flatten();
    let with_http: Value = all.filter(|server| server.get("http").is_some()).cloned().collect();
    let text = rows(VIRTUAL_SERVERS, json);
    if with_http == Value::Array(Vec::new()) {
        return text;
    }
    format!("{text}\nHTTP\n{}", rows(HTTP, &with_http))
}

fn workers(json: &Value) -> String {
    let mut text = rows(WORKERS, json);
    for worker in json.as_array().into_iter().flatten() {
        let tables =
            worker.get("tables").filter(|tables| tables.as_array().is_some_and(|list| !list.is_empty()));
        if let Some(tables) = tables {
            text.push_str(&format!(
                "\ntables of worker {}\n{}",
                cell(worker.get("worker")),
                rows(TABLES, tables)
            ));
        }
    }
    text
}

/// The table, then why each port steers as it does.
fn ports(json: &Value) -> String {
    let why = json.as_array().into_iter().flatten().map(|port| {
        let cell = |name: &str| cell(port.get(name));
        format!("{}: {}: {}\n", cell("name"), cell("steering"), cell("steering_reason"))
    });
    format!("{}\nsteering\n{}", rows(PORTS, json), why.collect::<String>())
}

const SNAT_ADDRESSES: Columns = &[
    ("ADDRESS", "/address"),
    ("IN USE", "/in_use"),
    ("RESTING", "/resting"),
    ("TOTAL EACH MEMBER", "/total"),
    ("EXHAUSTED", "/exhausted"),
];

fn snat(json: &Value) -> String {
    let addresses = rows(SNAT_ADDRESSES, json.get("addresses").unwrap_or(&Value::Null));
    let columns: Columns =
        &[("SNAT POOL", "/name"), ("ADDRESSES", "/addresses"), ("VIRTUAL SERVERS", "/virtual_servers")];
    let pools = rows(columns, json.get("pools").unwrap_or(&Value::Null));
    format!(
        "{pools}\n{addresses}\nautomap: {}\nports in use: {}\n",
        cell(json.get("automap")),
        cell(json.get("ports_in_use"))
    )
}

/// Reasons that occurred, by worker; then by virtual server.
fn drops(json: &Value) -> String {
    let list = |name: &str| json.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let (workers, servers) = (list("workers"), list("virtual_servers"));
    let mut titles = vec!["REASON".to_string(), "TOTAL".into()];
    titles.extend(workers.iter().map(|worker| format!("WORKER {}", cell(worker.get("worker")))));
    let row = |(reason, total): (&String, u64)| {
        let each = workers.iter().map(|worker| worker["drops"][reason].to_string());
        [reason.clone(), total.to_string()].into_iter().chain(each).collect()
    };
    let mut text = render(titles, occurred(json.get("total")).map(row).collect());
    let by_server = servers.iter().flat_map(|server| {
        let name = cell(server.get("virtual_server"));
        occurred(server.get("drops"))
            .map(move |(reason, count)| vec![name.clone(), reason.clone(), count.to_string()])
    });
    let titles = ["VIRTUAL SERVER", "REASON", "TOTAL"].map(String::from).to_vec();
    text.push('\n');
    text.push_str(&render(titles, by_server.collect()));
    text
}

fn occurred(drops: Option<&Value>) -> impl Iterator<Item = (&String, u64)> {
    let all = drops.and_then(Value::as_object).into_iter().flatten();
    all.filter_map(|(reason, count)| Some((reason, count.as_u64().filter(|count| *count > 0)?)))
}

/// What an apply did, or would do.
pub fn applied(json: &Value) -> String {
    let list = |name: &str| json.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut text = String::new();
    list("added").iter().for_each(|path| text.push_str(&format!("+ {}\n", cell(Some(path)))));
    for change in list("changed") {
        text.push_str(&format!("~ {}\n", cell(change.get("path"))));
        for field in change["fields"].as_array().into_iter().flatten() {
            let (name, from, to) = (cell(field.get("field")), &field["from"], &field["to"]);
            text.push_str(&format!("    {name}: {from} -> {to}\n"));
        }
    }
    list("removed").iter().for_each(|path| text.push_str(&format!("- {}\n", cell(Some(path)))));
    let nothing = text.is_empty();
    let (generation, workers) = (cell(json.get("generation")), cell(json.get("workers")));
    text.push_str(&match (nothing, json["dry_run"].as_bool().unwrap_or(false)) {
        (true, _) => format!("no changes; generation {generation}\n"),
        (false, true) => format!("nothing was changed (dry run); generation {generation}\n"),
        (false, false) => {
            format!(
                "generation {generation} on {workers} workers after {} ms\n",
                cell(json.get("elapsed_ms"))
            )
        }
    });
    text
}
