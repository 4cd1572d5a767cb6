//! Random edits, applied both ways.

use sluice_control::parse::{Format, Node, Value, read};

use crate::support::Random;
use crate::{FRAME, Held, POOLS, Running, SERVERS, written};

/// What a pool may be; `{n}` is a number of its own.
const POOL_KINDS: &[&str] = &[
    "{members: [{address: 10.1.0.{n}, port: 80}]}",
    "{members: [{address: 10.1.0.{n}, port: 80}, {address: 10.1.1.{n}, port: 80}]}",
    "\n      members:\n        - {address: 10.1.0.{n}, port: 80}\n        - {address: 10.1.0.1, port: 8{n}}",
    "\n      load_balancing: maglev # {n}\n      members: [{address: 10.1.0.{n}, port: 80, state: disabled}]",
    "{monitors: [up], members: [{address: 10.1.0.{n}, port: 80}]}",
    "{load_balancing: least-sessions, members: [{address: 10.1.0.{n}, port: 80}]}",
    "{load_balancing: weighted-least-connections-node, members: [{address: 10.1.0.1, port: 8{n}}]}",
    "{min_active_members: {n}, members: [{address: 10.1.0.{n}, port: 80, priority_group: 1}]}",
    "{members: [{address: \"2001:db8::{n}\", port: 80}]}",
    "{members: [{address: 10.2.0.10, port: 80}, {address: 10.1.0.{n}, port: 80}]}",
    "{members: [{address: 10.1.0.{n}, port: 80}, {address: 10.1.0.{n}, port: 80}]}",
    "",
    "{}",
    "{rondom: {n}}",
];

/// What a virtual server may be; `{p}` is the name of a pool, or of none.
const SERVER_KINDS: &[&str] = &[
    "{destination: 192.0.2.{n}:80, pool: {p}}",
    "{destination: 192.0.2.{n}:80, pool: {p}}",
    "\n      destination: 192.0.2.{n}:81\n      pool: {p}\n      snat: automap",
    "{destination: 192.0.2.{n}:82, pool: {p}, vlan: {n}}",
    "{destination: 192.0.2.{n}:82, pool: {p}, reject_vlan: 3}",
    "{destination: 192.0.2.{n}:80, pool: {p}, snat: {pool: egress}}",
    "{destination: 192.0.2.{n}:80, pool: {p}, persistence: {type: hash, timeout: 5s}}",
    "{destination: 192.0.2.{n}:80, type: reject}",
    "{destination: \"[2001:db8:1::{n}]:80\", pool: {p}}",
    "{destination: 192.0.2.1:80, pool: {p}}",
    "{destination: 192.0.2.{n}:80, pool: {p}, type: standard, access_log: true, http: {}, filters: [{mirror: {pool: a}}], routes: [{match: {path: {prefix: /x}}, pool: b}]}",
    "{destination: 192.0.2.{n}:53, pool: {p}, type: stateless, protocol: udp}",
    "{destination: 192.0.2.{n}}",
];

const FRAMES: &[&str] = &[
    "",
    "",
    "",
    "monitors: {up: {type: tcp, interval: 5s, timeout: 16s}}\n",
    "nodes: {one: {address: 10.1.0.1, connection_limit: 5}}\n",
    "snat_pools: {egress: {addresses: [192.0.2.50]}}\n",
    "telemetry: {access_log: {syslog: {address: \"192.0.2.1:514\"}}}\n",
    "nats: {mail: {origin: 10.1.0.25, translation: 192.0.2.25}}\n",
    "# nothing\n",
];

const NAMES: &[&str] = &["a", "b", "c", "d", "e", "1.5", "\"f\"", "7"];

/// A configuration by its pieces.
#[derive(Clone)]
struct Pieces {
    frame: Vec<&'static str>,
    pools: Vec<String>,
    servers: Vec<String>,
    indents: [usize; 2],
    form: usize,
}

impl Pieces {
    fn text(&self) -> String {
        let section = |name: &str, objects: &[String], indent: usize| {
            let lines: String = objects.iter().map(|object| indented(object, indent)).collect();
            format!("{name}:\n{lines}")
        };
        let (pools, servers) = (
            section("pools", &self.pools, self.indents[0]),
            section("virtual_servers", &self.servers, self.indents[1]),
        );
        let frame: String = self.frame.concat();
        match self.form {
            0 => format!("{FRAME}{servers}{frame}{pools}").trim_end().into(),
            1 => format!("{FRAME}{frame}{servers}{pools}"),
            _ => format!("{FRAME}{frame}{pools}{servers}"),
        }
    }

    /// One small change.
    fn change(&mut self, random: &mut Random) {
        match random.below(12) {
            0 => {
                let piece = FRAMES[random.below(FRAMES.len())];
                let has = self.frame.iter().position(|known| *known == piece);
                match has {
                    Some(place) => _ = self.frame.remove(place),
                    None => self.frame.push(piece),
                }
            }
            1 => self.indents[random.below(2)] = 1 + random.below(3),
            2 => self.form = random.below(4),
            3..7 => edit(&mut self.pools, POOL_KINDS, random),
            _ => edit(&mut self.servers, SERVER_KINDS, random),
        }
    }
}

/// `object`, whose first line is further left than its others, so many columns further right.
fn indented(object: &str, indent: usize) -> String {
    object.lines().map(|line| format!("{}{line}\n", " ".repeat(indent))).collect()
}

fn edit(objects: &mut Vec<String>, kinds: &[&str], random: &mut Random) {
    let place = random.below(objects.len() + 1);
    let is_there = place < objects.len();
    match random.below(8) {
        0 if is_there => _ = objects.remove(place),
        1 if is_there => {
            let other = random.below(objects.len());
            objects.swap(place, other);
        }
        2 if is_there && random.below(4) == 0 => objects.push(objects[place].clone()),
        3 => objects.insert(place, "# said".into()),
        4 if is_there => objects[place] = object(kinds, random),
        _ if objects.len() < 9 => objects.insert(place, object(kinds, random)),
        _ => objects.truncate(3),
    }
}

/// Mostly one of the kinds that are right.
fn object(kinds: &[&str], random: &mut Random) -> String {
    let kind = if random.below(3) > 0 { random.below(3) } else { random.below(kinds.len()) };
    let name = NAMES[random.below(NAMES.len())];
    let text = kinds[kind].replace("{n}", &(2 + random.below(7)).to_string());
    format!("{name}: {}", text.replace("{p}", NAMES[random.below(5)]))
}

#[test]
fn random_edits_have_the_same_outcome() {
    let mut random = Random::seeded();
    let (mut accepted, mut refused, mut shared, rounds) = (0, 0, 0, rounds());
    let mut running = Running::start(&written("", POOLS, SERVERS));
    let mut pieces = plain_pieces();
    let mut accepted_pieces = pieces.clone();
    for _ in 0..rounds {
        for _ in 0..=random.below(3) {
            pieces.change(&mut random);
        }
        let text = pieces.text();
        let held =
            Held { salt: random.below(12) as u64, oldest: running.generation - random.below(2) as u64 };
        let (text, format) = match (random.below(4), read(&text, Format::Yaml)) {
            (0, Ok(node)) => (json(&node), Format::Json),
            _ => (text, Format::Yaml),
        };
        let (checked, was_shared) = running.apply(&text, format, &held);
        shared += usize::from(was_shared);
        match checked {
            Ok(_) => (accepted, accepted_pieces) = (accepted + 1, pieces.clone()),
            // Mistakes pile up, and then nothing is ever accepted.
            Err(_) if random.below(2) == 0 => (refused, pieces) = (refused + 1, accepted_pieces.clone()),
            Err(_) => refused += 1,
        }
    }
    println!("{accepted} accepted, {refused} refused, {shared} shared");
    assert!(accepted.min(refused).min(shared) > rounds / 10, "{accepted}, {refused}, {shared} of {rounds}");
}

fn plain_pieces() -> Pieces {
    Pieces {
        frame: Vec::new(),
        pools: ["a", "b", "c"]
            .map(|name| format!("{name}: {{members: [{{address: 10.1.0.7, port: 80}}]}}"))
            .into(),
        servers: vec!["a: {destination: 192.0.2.9:80, pool: a}".into()],
        indents: [2, 2],
        form: 2,
    }
}

fn rounds() -> usize {
    std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(600)
}

/// A tree as JSON text, a map's entries each on a line of its own.
fn json(node: &Node<'_>) -> String {
    match &node.value {
        Value::Null | Value::Removed => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Large(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Text(text) => serde_json::to_string(text).unwrap(),
        Value::List(items) => format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(", ")),
        Value::Map(entries) => {
            let entries = entries.iter().map(|entry| format!("{:?}: {}", entry.key, json(&entry.node)));
            format!("{{\n{}}}", entries.collect::<Vec<_>>().join(",\n"))
        }
    }
}
