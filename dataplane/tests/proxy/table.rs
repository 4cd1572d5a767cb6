//! The table of exchanges: what a client and a member send, and what each of them gets, through a whole worker. Every row
//! runs in one piece, byte by byte, and in random pieces. The format is described in rows.rs.

use std::collections::HashSet;

use sluice_dataplane::config::proxy::{HttpProfile, ProxyProfile};
use sluice_dataplane::http::HttpLimits;

use crate::canon::{canon, content};
use crate::harness::{MEMBERS, Net, limits};
use crate::host::Welcome;
use crate::random::Random;
use crate::rows::{Row, Step, read, usual};

const REQUESTS: &str = include_str!("requests.txt");
const RESPONSES: &str = include_str!("responses.txt");
const CONNECTIONS: &str = include_str!("connections.txt");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pieces {
    Whole,
    Bytes,
    Random(u64),
}

fn table() -> Vec<Row> {
    [REQUESTS, RESPONSES, CONNECTIONS].into_iter().flat_map(read).collect()
}

#[test]
fn the_table_has_the_size_that_it_should() {
    let table = table();
    let names: HashSet<_> = table.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names.len(), table.len(), "every name is there once");
    assert!(table.len() >= 300, "{}", table.len());
    let says_something = |row: &Row| row.steps.iter().any(|step| !matches!(step, Step::ClientSends(_)));
    assert!(table.iter().all(says_something));
}

#[test]
fn every_row_comes_out_as_expected_in_one_piece() {
    run_all(|_| Pieces::Whole);
}

#[test]
fn every_row_comes_out_as_expected_byte_by_byte() {
    run_all(|_| Pieces::Bytes);
}

#[test]
fn every_row_comes_out_as_expected_in_random_pieces() {
    let seed = Random::seeded().seed;
    run_all(|number| Pieces::Random(seed.wrapping_add(number as u64)));
}

fn run_all(pieces: impl Fn(usize) -> Pieces) {
    let wrong: Vec<String> = table()
        .iter()
        .enumerate()
        .filter_map(|(number, row)| {
            let run = || run(row, pieces(number));
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
                Ok(told) => told.err().map(|wrong| format!("== {}\n{wrong}", row.name)),
                Err(_) => Some(format!("== {}\n  panics", row.name)),
            }
        })
        .collect();
    assert!(wrong.is_empty(), "{} rows are wrong\n{}", wrong.len(), wrong.join("\n"));
}

/// A row under way.
struct Run {
    net: Net,
    client: usize,
    /// The member's connection that got something last.
    member: usize,
    /// What was looked at of what each got.
    seen_client: usize,
    seen_members: Vec<usize>,
    /// What each got and what it should have got, for pieces.
    to_client: Both,
    to_member: Both,
    random: Option<Random>,
    pieces: Pieces,
}

#[derive(Default)]
struct Both {
    expected: Vec<u8>,
    got: Vec<u8>,
}

/// Runs one row; what is wrong with it.
fn run(row: &Row, pieces: Pieces) -> Result<(), String> {
    let mut net = Options::read(&row.options).net();
    let client = net.client();
    let random = if let Pieces::Random(seed) = pieces { Some(Random::with(seed)) } else { None };
    let mut run = Run {
        net,
        client: 0,
        member: 0,
        seen_client: 0,
        seen_members: Vec::new(),
        to_client: Both::default(),
        to_member: Both::default(),
        random,
        pieces,
    };
    run.client = client;
    for step in &row.steps {
        run.step(step)?;
    }
    run.expect_client(&[])?;
    run.expect_member(&[])?;
    run.to_client.compare("the client")?;
    run.to_member.compare("the member")?;
    run.net.assert_nothing_is_left();
    Ok(())
}

impl Run {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::ClientSends(bytes) => self.send(bytes, true),
            Step::MemberSends(bytes) => self.send(bytes, false),
            Step::MemberGot(bytes) => return self.expect_member(bytes),
            Step::MemberMayHaveGot(bytes) => return self.expect_part(bytes),
            Step::ClientGot(bytes) => return self.expect_client(bytes),
            Step::Act(words) => self.act(words),
            Step::Stand(words) => return self.stand(words),
        }
        Ok(())
    }

    fn send(&mut self, bytes: &[u8], is_client: bool) {
        for piece in self.cut(bytes) {
            match is_client {
                true => self.net.client_sends(self.client, piece),
                false => self.net.member_sends(self.member, piece),
            }
        }
    }

    fn cut<'a>(&mut self, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let mut cut = Vec::new();
        while !bytes.is_empty() {
            let len = match (self.pieces, &mut self.random) {
                (Pieces::Bytes, _) => 1,
                (_, Some(random)) => 1 + random.below(bytes.len().min(60)),
                _ => bytes.len(),
            };
            let (piece, rest) = bytes.split_at(len);
            cut.push(piece);
            bytes = rest;
        }
        cut
    }

    fn expect_client(&mut self, expected: &[u8]) -> Result<(), String> {
        let new = self.net.got(self.client)[self.seen_client..].to_vec();
        self.seen_client += new.len();
        self.to_client.note(expected, &new, self.pieces, "the client")
    }

    fn expect_member(&mut self, expected: &[u8]) -> Result<(), String> {
        let new = self.new_of_members();
        self.to_member.note(expected, &new, self.pieces, "the member")
    }

    fn expect_part(&mut self, expected: &[u8]) -> Result<(), String> {
        let new = self.new_of_members();
        if !content(expected).starts_with(&content(&new)) {
            return Err(differ("the member", &new, expected));
        }
        self.to_member.note(&new, &new, self.pieces, "the member")
    }

    fn new_of_members(&mut self) -> Vec<u8> {
        let mut new = Vec::new();
        self.seen_members.resize(self.net.members.socks.len(), 0);
        for (place, seen) in self.seen_members.iter_mut().enumerate() {
            let got = &self.net.members.socks[place].got[*seen..];
            if !got.is_empty() {
                self.member = place;
            }
            *seen += got.len();
            new.extend_from_slice(got);
        }
        new
    }

    /// `wait ms`, `client fin`, `member rst`, `client stop` and `read` (its reading), `other client`.
    fn act(&mut self, words: &[String]) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            ["wait", ms] => self.net.pass(ms.parse().expect("milliseconds")),
            ["client", "fin"] => self.net.client_closes(self.client),
            ["client", "rst"] => self.net.client_resets(self.client),
            ["member", "fin"] => self.net.member_closes(self.member),
            ["member", "rst"] => self.net.member_resets(self.member),
            ["other", "client"] => {
                self.client = self.net.client();
                self.seen_client = 0;
            }
            _ => panic!("what is {words:?}?"),
        }
    }

    fn stand(&mut self, words: &[String]) -> Result<(), String> {
        let client = self.net.client_is(self.client);
        let member = if self.net.members.socks.is_empty() { "none" } else { self.net.member_is(self.member) };
        let stand = [client, member];
        let fits = |word: &str, stands: &str| match word {
            "any" => true,
            "cut" => ["reset", "none"].contains(&stands),
            _ => word == stands,
        };
        let is_so = words.iter().zip(stand).all(|(word, stands)| fits(word, stands));
        if is_so { Ok(()) } else { Err(format!("  {stand:?}, not {words:?}")) }
    }
}

impl Both {
    fn note(&mut self, expected: &[u8], got: &[u8], pieces: Pieces, who: &str) -> Result<(), String> {
        self.expected.extend_from_slice(expected);
        self.got.extend_from_slice(got);
        if pieces == Pieces::Whole && expected != got {
            return Err(differ(who, got, expected));
        }
        Ok(())
    }

    fn compare(&self, who: &str) -> Result<(), String> {
        let (got, expected) = (canon(&self.got), canon(&self.expected));
        if got == expected { Ok(()) } else { Err(differ(who, &got, &expected)) }
    }
}

fn differ(who: &str, got: &[u8], expected: &[u8]) -> String {
    let said = |bytes: &[u8]| bytes[..bytes.len().min(600)].escape_ascii().to_string();
    format!("  {who} got\n    {}, not\n    {}", said(got), said(expected))
}

/// What a row says of its world.
struct Options {
    http: HttpProfile,
    profile: ProxyProfile,
    has_member: bool,
    has_pool: bool,
    two: bool,
    tries: u8,
    welcome: Welcome,
}

impl Options {
    fn read(words: &[String]) -> Self {
        let mut options = Self {
            http: HttpProfile::default(),
            profile: ProxyProfile::default(),
            has_member: true,
            has_pool: true,
            two: false,
            tries: 0,
            welcome: Welcome::Accept,
        };
        for word in words {
            options.hear(word);
        }
        options
    }

    fn hear(&mut self, word: &str) {
        match word {
            "connect" => self.http.allow_connect = true,
            "no-reuse" => self.http.reuse.enabled = false,
            "small" => self.http.limits = HttpLimits { line: 100, head: 300, fields: 5, ..self.http.limits },
            "small-body" => self.http.limits.body = 10,
            "small-trailer" => {
                (self.http.limits.trailer, self.http.limits.trailer_fields) = (100, 2);
            }
            "one-request" => self.http.requests_max = 1,
            "two-requests" => self.http.requests_max = 2,
            "keep-slashes" => self.http.limits.path.merge_slashes = false,
            "no-encoded-slashes" => self.http.limits.path.encoded_slashes = false,
            "server-name" => self.http.server_name = "sluice".into(),
            "no-member" => self.has_member = false,
            "no-pool" => self.has_pool = false,
            "refuse" => self.welcome = Welcome::Refuse,
            "silent" => self.welcome = Welcome::Ignore,
            "two-members" => self.two = true,
            "try-again" => self.tries = 1,
            _ => assert!(usual(word).is_some(), "what is {word}?"),
        }
    }

    fn net(self) -> Net {
        let profile = ProxyProfile { http: Some(self.http), ..self.profile };
        let members = if self.two { 2 } else { usize::from(self.has_member) };
        let mut net = Net::with(profile, limits(), |parts| {
            parts.pools[0].members.truncate(members);
            parts.pools[0].reselect_tries = self.tries;
            if !self.has_pool {
                parts.virtuals[0].pool = None;
            }
        });
        let (text, port) = MEMBERS[0];
        net.members.listens.insert((sluice_dataplane::packet::build::address(text), port), self.welcome);
        net
    }
}
