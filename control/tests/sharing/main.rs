//! An apply that shares what did not change, against one that makes everything anew: the same outcome, word for word.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod random;
#[path = "../support/random.rs"]
mod support;

use std::borrow::Cow;
use std::sync::Arc;

use sluice_control::check::{Against, Candidate, check, check_source};
use sluice_control::compile::Former;
use sluice_control::diff::diff;
use sluice_control::ids::Holders;
use sluice_control::parse::{Fault, Format, Kept, Source, read};
use sluice_control::process::etag;
use sluice_dataplane::config::ids::{MemberId, VirtualId};

type Checked = Result<Candidate, Vec<Fault>>;

/// A running configuration, made by sharing and made anew.
struct Running {
    shared: Candidate,
    anew: Candidate,
    generation: u64,
}

impl Running {
    fn start(text: &str) -> Self {
        let (shared, _) = shared(text, Format::Yaml, &Kept::default(), &Against::NOTHING);
        let anew = check(&read(text, Format::Yaml).unwrap(), &Against::NOTHING);
        let (shared, anew) = (shared.unwrap(), anew.unwrap());
        assert_eq!(outcome(&Ok(shared.clone_parts()), None), outcome(&Ok(anew.clone_parts()), None));
        Self { shared, anew, generation: 1 }
    }

    /// Applies `text` both ways; the outcome, and whether something was not read again.
    fn apply(&mut self, text: &str, format: Format, held: &dyn Holders) -> (Checked, bool) {
        let generation = self.generation + 1;
        let Candidate { model, parts, context, .. } = &self.shared;
        let former = Some(Former { model, parts, context });
        let sharing = Against { former, ..against(&self.shared, generation, held) };
        let alone = against(&self.anew, generation, held);
        let anew = read(text, format).and_then(|node| check(&node, &alone));
        let (shared, was_shared) = shared(text, format, &self.shared.kept, &sharing);
        let compiled = read(text, format).and_then(|node| check(&node, &sharing));
        let expected = outcome(&anew, Some(&self.anew));
        assert_eq!(outcome(&shared, Some(&self.shared)), expected, "{text}");
        assert_eq!(outcome(&compiled, Some(&self.shared)), expected, "without its text: {text}");
        if let (Ok(shared), Ok(anew)) = (shared, anew) {
            (self.shared, self.anew, self.generation) = (shared, anew, generation);
        }
        (compiled, was_shared)
    }
}

fn against<'a>(candidate: &'a Candidate, generation: u64, held: &'a dyn Holders) -> Against<'a> {
    let (running, book) = (Some(&candidate.model), Some(&candidate.book));
    Against { running, former: None, book, held, generation }
}

/// Copies of what an outcome is told by.
trait CloneParts {
    fn clone_parts(&self) -> Candidate;
}

impl CloneParts for Candidate {
    fn clone_parts(&self) -> Candidate {
        Candidate {
            model: self.model.clone(),
            parts: self.parts.clone(),
            book: self.book.clone(),
            reused: self.reused.clone(),
            warnings: self.warnings.clone(),
            context: self.context.clone(),
            kept: Kept::default(),
        }
    }
}

fn shared(text: &str, format: Format, kept: &Kept, against: &Against<'_>) -> (Checked, bool) {
    let text = Arc::new(text.to_string());
    let source = match Source::read(&text, format, kept) {
        Ok(source) => source,
        Err(faults) => return (Err(faults), false),
    };
    let was_shared = matches!(source.whole(), Ok(Cow::Owned(_)));
    (check_source(&source, against), was_shared)
}

/// All that an apply is known by, in words.
fn outcome(checked: &Checked, running: Option<&Candidate>) -> String {
    match checked {
        Err(faults) => format!("{faults:#?}"),
        Ok(candidate) => {
            let diff = running.map(|running| diff(&running.model, &candidate.model));
            let Candidate { model, parts, reused, warnings, context, .. } = candidate;
            let etag = etag(model);
            format!("{etag}\n{model:#?}\n{parts:#?}\n{reused:?}\n{warnings:#?}\n{context:?}\n{diff:#?}")
        }
    }
}

/// Holds what a number says.
struct Held {
    salt: u64,
    oldest: u64,
}

impl Holders for Held {
    fn oldest_generation(&self) -> u64 {
        self.oldest
    }
    fn of_virtual(&self, id: VirtualId) -> u64 {
        u64::from((u64::from(id.0) + self.salt).is_multiple_of(3))
    }
    fn of_member(&self, id: MemberId) -> u64 {
        u64::from((u64::from(id.0) + self.salt).is_multiple_of(4))
    }
    fn of_any(&self) -> u64 {
        u64::from(self.salt.is_multiple_of(2))
    }
}

const UNHELD: Held = Held { salt: 1, oldest: u64::MAX };

const FRAME: &str = "version: 1
system: {limits: {virtual_servers: 7, members: 14}}
ports: {ext: {driver: af_packet, interface: net1}, int: {driver: af_packet, interface: net2}}
self_ips:
  ext4: {address: 192.0.2.10/24, port: ext}
  int4: {address: 10.1.0.10/16, port: int, vlan: 100}
";

/// Two pools and two virtual servers, with more before, between and behind.
fn written(before: &str, pools: &str, servers: &str) -> String {
    format!("{FRAME}{before}pools:\n{pools}virtual_servers:\n{servers}")
}

const POOLS: &str = "  web:
    members:
      - {address: 10.1.0.11, port: 80}
  mail: {members: [{address: 10.1.0.12, port: 25}]}
";
const SERVERS: &str = "  web: {destination: 192.0.2.100:80, pool: web}
  mail:
    destination: 192.0.2.100:25
    pool: mail
";

/// Applies one text after another; the faults of the last one, and whether it shared.
fn last(texts: &[&str]) -> (Vec<Fault>, bool) {
    let mut running = Running::start(texts[0]);
    let mut told = (Vec::new(), false);
    for text in &texts[1..] {
        let (checked, was_shared) = running.apply(text, Format::Yaml, &UNHELD);
        told = (checked.map_or_else(|faults| faults, |candidate| candidate.warnings), was_shared);
    }
    told
}

fn at(faults: &[Fault]) -> Vec<(u32, &str)> {
    faults.iter().map(|fault| (fault.line.unwrap_or(0), fault.path.as_str())).collect()
}

#[test]
fn what_stands_elsewhere_is_the_same_with_other_lines() {
    let odd = "  odd: {min_active_members: 5, members: [{address: 10.1.0.13, port: 80}]}\n";
    let first = written("", &format!("{POOLS}{odd}"), SERVERS);
    let moved = written("# more\n\n", &format!("{odd}\n  # a comment\n{POOLS}"), SERVERS);
    let (warnings, was_shared) = last(&[&first, &moved]);
    assert_eq!((at(&warnings), was_shared), (vec![(10, "/pools/odd/min_active_members")], true));
}

#[test]
fn more_lines_of_an_object_make_it_another() {
    let first = written("", POOLS, "  web: {destination: 192.0.2.100:80, pool: web}\n");
    for (from, to) in [
        ("port: 80}\n", "port: 80}\n      - {address: 10.1.0.14, port: 80}\n"),
        ("port: 80}\n", "port: 80}\n    reselect_tries: 2\n"),
        ("port: 25}]}\n", "port: 25}]}\n    reselect_tries: 2\n"),
        ("port: 25}]}\n", "port: 25}]}\n  - x\n"),
        ("port: 25}]}\n", "port: 25}]}\n\n  # x\n   reselect_tries: 2\n"),
        ("pool: web}\n", "pool: web}x\n"),
        ("pool: web}\n", "pool: web}"),
        ("pool: web}\n", "pool: web} # x"),
        ("  mail:", "   mail:"),
    ] {
        last(&[&first, &first.replacen(from, to, 1), &first]);
    }
    let marked = format!("\u{feff}{first}");
    last(&[&marked, &first, &marked]);
    let last_line = first.trim_end();
    last(&[last_line, &first, last_line, &format!("{last_line}, snat: automap}}")]);
    let empty = written("", "  web:\n  mail: {}\n", "  r: {destination: 192.0.2.1:80, type: reject}\n");
    for more in ["    reselect_tries: 2\n", "  - x\n", "  # x\n", "    members:\n    - x\n"] {
        last(&[&empty, &empty.replacen("  web:\n", &format!("  web:\n{more}"), 1), &empty]);
    }
}

#[test]
fn a_last_line_without_an_end_belongs_to_its_object() {
    let whole = written("", POOLS, SERVERS);
    let (open, shorter) = (whole.trim_end(), whole.replacen("    pool: mail\n", "", 1));
    assert_eq!(at(&last(&[open, &shorter]).0), [(14, "/virtual_servers/mail/pool")]);
    assert_eq!(at(&last(&[open, &whole, open, &shorter]).0), [(14, "/virtual_servers/mail/pool")]);
}

#[test]
fn the_same_text_in_another_column_may_be_another_object() {
    let first = written("", POOLS, "  r: {destination: 192.0.2.1:80, type: reject}\n");
    let right = first.replacen("  web:\n", "   web:\n", 1).replacen("  mail:", "   mail:", 1);
    assert_eq!(at(&last(&[&first, &right]).0), [(0, ""); 0]);
    let siblings = first.replacen("  web:\n", "    web:\n", 1).replacen("  mail:", "    mail:", 1);
    assert_eq!(at(&last(&[&first, &siblings]).0), [(9, "/pools/members")]);
}

#[test]
fn a_key_that_stands_twice_is_an_error_though_it_is_the_same() {
    let first = written("", POOLS, SERVERS);
    let twice = written("", &format!("{POOLS}{POOLS}"), SERVERS);
    let (faults, _) = last(&[&first, &twice]);
    assert_eq!(at(&faults), [(12, "/pools/web"), (15, "/pools/mail")]);
    let sections = format!("{first}pools:\n  web: {{}}\n");
    assert_eq!(at(&last(&[&first, &sections]).0), [(17, "/pools")]);
}

#[test]
fn another_frame_is_looked_at_for_every_object() {
    let monitors = "monitors: {up: {type: tcp, interval: 5s, timeout: 16s}}\n";
    let watched = POOLS.replace("mail: {", "mail: {monitors: [up], ");
    let (with, without) = (written(monitors, &watched, SERVERS), written("", &watched, SERVERS));
    assert_eq!(at(&last(&[&with, &without]).0), [(11, "/pools/mail/monitors/0")]);
    let first = written("", POOLS, SERVERS);
    let own = first.replacen("192.0.2.10/24", "10.1.0.12/24", 1).replacen("10.1.0.10/16", "10.2.0.10/16", 1);
    let (faults, _) = last(&[&first, &own]);
    assert!(at(&faults).contains(&(11, "/pools/mail/members/0/address")), "{faults:#?}");
    let automap = SERVERS.replace("pool: web", "pool: web, snat: {pool: egress}");
    let pools = |before: &str| written(before, POOLS, &automap);
    let egress = "snat_pools: {egress: {addresses: [192.0.2.50]}}\n";
    let second = "snat_pools: {a: {addresses: [192.0.2.51]}, egress: {addresses: [192.0.2.50]}}\n";
    assert_eq!(at(&last(&[&pools(egress), &pools(second)]).0), [(0, ""); 0]);
    assert_eq!(at(&last(&[&pools(egress), &pools("")]).0), [(13, "/virtual_servers/web/snat/pool")]);
}

#[test]
fn another_pool_is_looked_at_for_the_virtual_servers_that_name_it() {
    let first = written("", POOLS, SERVERS);
    let v6 = first.replacen("address: 10.1.0.12", "address: \"2001:db8::12\"", 1);
    assert_eq!(at(&last(&[&first, &v6]).0), [(16, "/virtual_servers/mail/pool")]);
    let gone = written("", POOLS.split_once("  mail").unwrap().0, SERVERS);
    assert_eq!(at(&last(&[&first, &gone]).0), [(15, "/virtual_servers/mail/pool")]);
    let method = first.replacen("mail: {", "mail: {load_balancing: least-sessions, ", 1);
    assert_eq!(
        at(&last(&[&first, &method, &method.replace("24,", "24 ,")]).0),
        [(16, "/virtual_servers/mail/pool")]
    );
    let site = "  site:
    destination: 192.0.2.101:80
    type: standard
    http: {}
    pool: web
    filters: [{mirror: {pool: mail}}]
    routes: [{match: {path: {prefix: /a}}, pools: [{pool: web, weight: 1}, {pool: more, weight: 1}]}]
";
    let more = "  more: {members: [{address: 10.1.0.14, port: 80}]}\n";
    let servers = format!("{SERVERS}{site}");
    let whole = written("", &format!("{POOLS}{more}"), &servers);
    let v6 = |address: &str| whole.replacen(address, "\"2001:db8::12\"", 1);
    let (of_mirror, of_route) = (last(&[&whole, &v6("10.1.0.12")]).0, last(&[&whole, &v6("10.1.0.14")]).0);
    assert!(at(&of_mirror).iter().any(|(_, path)| path.contains("site/filters")), "{of_mirror:#?}");
    assert!(at(&of_route).iter().any(|(_, path)| path.contains("site/routes")), "{of_route:#?}");
}

#[test]
fn a_virtual_server_that_takes_the_packets_of_another_is_refused() {
    let first = written("", POOLS, SERVERS);
    let changed = first.replacen("192.0.2.100:25", "192.0.2.100:80", 1);
    assert_eq!(at(&last(&[&first, &changed]).0), [(13, "/virtual_servers/web/destination")]);
    let added = format!("{first}  zone: {{destination: 192.0.2.100:80, type: reject}}\n");
    assert_eq!(at(&last(&[&first, &added]).0), [(17, "/virtual_servers/zone/destination")]);
    let swapped = changed.replacen("100:80", "100:25", 1);
    assert_eq!(at(&last(&[&first, &swapped]).0), [(0, ""); 0]);
}

#[test]
fn rejected_vlans_follow_those_of_other_virtual_servers() {
    let servers = SERVERS.replace("pool: web}", "pool: web, reject_vlan: 100}");
    let first = written("", POOLS, &servers);
    let tagged = first.replacen("    pool: mail\n", "    pool: mail\n    vlan: 7\n", 1);
    let mut running = Running::start(&first);
    let links = |running: &Running| format!("{:?}", running.shared.parts.virtuals[1].ingress);
    let before = links(&running);
    let (checked, was_shared) = running.apply(&tagged, Format::Yaml, &UNHELD);
    assert!(checked.is_ok() && was_shared && before != links(&running), "{before}");
}

#[test]
fn what_is_the_same_is_the_same_object() {
    let first = written("", POOLS, SERVERS);
    let mut running = Running::start(&first);
    let before = running.shared.model.clone();
    let changed = first.replacen("port: 25}", "port: 26}", 1).replacen("# x", "", 1);
    assert!(running.apply(&changed, Format::Yaml, &UNHELD).0.is_ok());
    let same = |section: [&str; 2]| match section {
        ["pools", name] => Arc::ptr_eq(&before.pools[name], &running.shared.model.pools[name]),
        [_, name] => Arc::ptr_eq(&before.virtual_servers[name], &running.shared.model.virtual_servers[name]),
    };
    assert!(same(["pools", "web"]) && !same(["pools", "mail"]));
    assert!(same(["virtual_servers", "web"]) && same(["virtual_servers", "mail"]));
}
