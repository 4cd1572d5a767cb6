//! What `sluice show` and `sluice apply` print: tables out of the socket's JSON.

mod columns;

use comfy_table::{Table, presets};
use serde_json::Value;

use columns::*;

/// What `sluice show` can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[allow(missing_docs, reason = "named as the output and the documents name them")]
pub enum Thing {
    VirtualServers,
    Pools,
    Members,
    Nodes,
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
            Thing::Nodes => nodes(json),
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
            | Thing::Nodes
            | Thing::Snat
            | Thing::Ports
            | Thing::Workers
            | Thing::Drops
            | Thing::Config
            | Thing::Version => &[],
        }
    }
}

fn rows(columns: Columns, json: &Value) -> String {
    let cells = |item: &Value| columns.iter().map(|(_, at)| cell(item.pointer(at))).collect();
    let items = json.as_array().map(Vec::as_slice).unwrap_or_default();
    render(columns.iter().map(|(title, _)| (*title).into()).collect(), items.iter().map(cells))
}

/// A table.
pub(crate) fn render(titles: Vec<String>, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(titles).add_rows(rows);
    let lines = table.to_string();
    lines.lines().map(|line| format!("{}\n", line.trim())).collect()
}

/// A value in a table; `-` for none.
pub(crate) fn cell(value: Option<&Value>) -> String {
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

/// The first few members of each node in a cell, and how many more there are.
fn nodes(json: &Value) -> String {
    let mut nodes = json.as_array().cloned().unwrap_or_default();
    for members in nodes.iter_mut().filter_map(|node| node.get_mut("members")) {
        let all = members.as_array().map(Vec::as_slice).unwrap_or_default();
        let name = |at: &Value| format!("{}/{}", cell(at.get("pool")), cell(at.get("member")));
        let mut names: Vec<String> = all.iter().take(MEMBERS_MAX).map(name).collect();
        if let Some(more @ 1..) = all.len().checked_sub(MEMBERS_MAX) {
            names.push(format!("and {more} more"));
        }
        *members = names.into();
    }
    rows(NODES, &nodes.into())
}

/// Members that `show nodes` names of one node; JSON has all.
const MEMBERS_MAX: usize = 3;

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
    let mut text = render(titles, occurred(json.get("total")).map(row));
    let by_server = servers.iter().flat_map(|server| {
        let name = cell(server.get("virtual_server"));
        occurred(server.get("drops"))
            .map(move |(reason, count)| vec![name.clone(), reason.clone(), count.to_string()])
    });
    let titles = ["VIRTUAL SERVER", "REASON", "TOTAL"].map(String::from).to_vec();
    text.push('\n');
    text.push_str(&render(titles, by_server));
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
