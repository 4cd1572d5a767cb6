//! Every message of the table, in one piece, byte by byte and cut in two everywhere; and what random changes make of
//! them.

mod check;
mod reference;
mod run;
mod vectors;

use run::{Outcome, Told};
use vectors::Vector;

const REQUESTS: &str = include_str!("requests.txt");
const RESPONSES: &str = include_str!("responses.txt");

/// Inputs up to this length are cut in two at every place.
const SHORT: usize = 600;

/// Runs an input in these pieces.
fn run(vector: &Vector, is_request: bool, pieces: Vec<&[u8]>) -> Outcome {
    if is_request { run::requests(pieces) } else { run::responses(pieces, Told::read(&vector.told)) }
}

fn table() -> impl Iterator<Item = (Vector, bool)> {
    let requests = vectors::read(REQUESTS).into_iter().map(|vector| (vector, true));
    requests.chain(vectors::read(RESPONSES).into_iter().map(|vector| (vector, false)))
}

#[test]
fn the_table_has_the_size_that_it_should() {
    let names: std::collections::HashSet<_> = table().map(|(vector, side)| (vector.name, side)).collect();
    assert_eq!(names.len(), table().count(), "every name is there once");
    assert!(names.len() >= 250, "{}", names.len());
}

#[test]
fn every_entry_comes_out_as_expected() {
    let mut wrong = Vec::new();
    for (vector, is_request) in table() {
        let outcome = run(&vector, is_request, vec![&vector.input]);
        if let Err(difference) = compare(&vector, &outcome) {
            wrong.push(format!("{}: {difference}", vector.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn compare(vector: &Vector, outcome: &Outcome) -> Result<(), String> {
    let said = |bytes: &[u8]| bytes[..bytes.len().min(400)].escape_ascii().to_string();
    let mut words = vec![if outcome.keeps { "keep" } else { "close" }];
    words.extend(Some(outcome.state).filter(|state| !state.is_empty()));
    let stated = |word: &String| words.contains(&word.as_str());
    let waits = outcome.state.is_empty() || vector.state.iter().any(|word| word == outcome.state);
    if vector.refusal != outcome.refusal {
        return Err(format!("{:?}, not {:?}", outcome.refusal, vector.refusal));
    }
    if vector.output != outcome.output {
        return Err(format!("\n  {}, not\n  {}", said(&outcome.output), said(&vector.output)));
    }
    if !waits || !vector.state.iter().all(stated) {
        return Err(format!("{words:?}, not {:?}", vector.state));
    }
    Ok(())
}

#[test]
fn pieces_change_nothing() {
    for (vector, is_request) in table() {
        let (input, name) = (vector.input.as_slice(), &vector.name);
        let whole = run(&vector, is_request, vec![input]);
        assert_eq!(run(&vector, is_request, input.chunks(1).collect()), whole, "{name}: byte by byte");
        let cuts = if input.len() <= SHORT { 1..input.len() } else { 1..1 };
        for cut in cuts {
            let (first, second) = input.split_at(cut);
            assert_eq!(run(&vector, is_request, vec![first, second]), whole, "{name}: cut at {cut}");
        }
    }
}

#[test]
fn random_pieces_change_nothing() {
    let mut random = Random::seeded();
    for (vector, is_request) in table() {
        let whole = run(&vector, is_request, vec![&vector.input]);
        let pieces = random.pieces(&vector.input);
        assert_eq!(run(&vector, is_request, pieces), whole, "{}, seed {}", vector.name, random.seed);
    }
}

#[test]
fn what_is_written_is_read_the_same_by_everyone() {
    for (vector, is_request) in table() {
        let outcome = run(&vector, is_request, vec![&vector.input]);
        check_written(&vector, is_request, &outcome)
            .unwrap_or_else(|wrong| panic!("{}: {wrong}", vector.name));
    }
}

fn check_written(vector: &Vector, is_request: bool, outcome: &Outcome) -> Result<(), String> {
    if is_request { check::requests(outcome) } else { check::responses(outcome, Told::read(&vector.told)) }
}

#[test]
fn random_changes_never_confuse_the_engine_and_the_reader() {
    let mut random = Random::seeded();
    let entries: Vec<_> = table().filter(|(vector, _)| vector.input.len() <= SHORT).collect();
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..20_000 {
        let (mut vector, is_request) = entries[random.below(entries.len())].clone();
        let other = &entries[random.below(entries.len())].0.input;
        random.mutate(&mut vector.input, other);
        let whole = run(&vector, is_request, vec![&vector.input]);
        let note =
            || format!("{} round {round} seed {}: {}", vector.name, random.seed, vector.input.escape_ascii());
        check_written(&vector, is_request, &whole).unwrap_or_else(|wrong| panic!("{}: {wrong}", note()));
        accepted += usize::from(!whole.output.is_empty());
        refused += usize::from(whole.refusal.is_some());
        let note = note();
        let pieces = random.pieces(&vector.input);
        assert_eq!(run(&vector, is_request, pieces), whole, "{note}");
    }
    assert!(accepted > 1_000 && refused > 1_000, "both happen: {accepted} {refused}");
}

/// A small generator (xorshift64*, Vigna 2016).
struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// From `SLUICE_SEED`, or another one each time.
    fn seeded() -> Self {
        let given = std::env::var("SLUICE_SEED").ok().and_then(|text| text.parse().ok());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
        let seed = given.unwrap_or(now.as_nanos() as u64) | 1;
        println!("seed {seed}");
        Self { seed, state: seed }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let value = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d);
        (value >> 33) as usize % limit.max(1)
    }

    fn pieces<'a>(&mut self, mut input: &'a [u8]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        while !input.is_empty() {
            let most = if self.below(2) == 0 { 3 } else { input.len() };
            let (piece, rest) = input.split_at(1 + self.below(most.min(input.len())));
            pieces.push(piece);
            input = rest;
        }
        pieces
    }

    fn mutate(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.below(3) {
            let at = self.below(input.len());
            let token = TOKENS[self.below(TOKENS.len())];
            match self.below(5) {
                0 if at < input.len() => input[at] ^= 1 << self.below(8),
                1 if at < input.len() => drop(input.remove(at)),
                2 => drop(input.splice(at..at, token.iter().copied())),
                3 => {
                    let end = (at + token.len()).min(input.len());
                    input.splice(at..end, token.iter().copied());
                }
                _ => {
                    let from = self.below(other.len());
                    input.splice(at.., other[from..].iter().copied());
                }
            }
        }
    }
}

const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"0",
    b"1",
    b"f",
    b"%2e",
    b"%00",
    b"/../",
    b"//",
    b"Content-Length: 1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: x\r\n",
    b"Host: h\r\n",
    b"HTTP/1.0",
    b"Upgrade: websocket\r\n",
    b"Connection: upgrade\r\n",
    b"Expect: 100-continue\r\n",
    b"0\r\n\r\n",
    b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 C\r\n\r\n",
    b"\xff",
    b"_",
    b"\"",
];
