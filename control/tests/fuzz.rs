//! Random documents: whatever is read, nothing panics, hangs or says less than it should.

use std::time::{Duration, Instant};

use sluice_control::check::{Against, check};
use sluice_control::parse::{ERRORS_MAX, Format, read};

const SEEDS: &[&str] = &[
    include_str!("data/example.yaml"),
    include_str!("../../docs/example-http.yaml"),
    r#"{"version": 1, "ports": {"p": {"driver": "af_packet", "interface": "a"}}, "self_ips": {"s": {"address": "192.0.2.1/24", "port": "p"}}, "virtual_servers": {"v": {"destination": "0.0.0.0/0:*", "type": "reject"}}}"#,
];

/// Pieces that matter to YAML, JSON and the model.
const PIECES: &[&str] = &[
    "\n",
    "  ",
    "\t",
    ": ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "\"",
    "'",
    "&a ",
    "*a",
    "!!int ",
    "|",
    ">",
    "#",
    "---\n",
    "null",
    "~",
    "-1",
    "99999999999999999999999999999999999999999",
    "1e999",
    "0x",
    "[::]/0:*",
    "192.0.2.0/24",
    "5s",
    "\u{0}",
    "é",
    "\\ud800",
    "version",
    "pools",
    "virtual_servers",
    "destination",
    "filters",
    "forwarded: ",
    "match",
    "prefix",
    "{regex: \"(\"}",
    "ports",
    "? ",
    "<<: ",
    "%YAML 9.9\n",
    "\u{feff}",
    "\r",
];

#[test]
fn random_documents_never_panic() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(random_seed);
    println!("SEED={seed}");
    let (mut random, start) = (Random(seed | 1), Instant::now());
    while start.elapsed() < Duration::from_secs(2) {
        let text = document(&mut random);
        let format = if random.below(2) == 0 { Format::Yaml } else { Format::Json };
        let begin = Instant::now();
        judge(&text, format);
        assert!(begin.elapsed() < Duration::from_secs(5), "too slow: {text:?}");
    }
}

/// A deep or long document must not cost stack or minutes.
#[test]
fn extreme_documents_are_bounded() {
    for text in [
        "[".repeat(200_000),
        "{\"a\":".repeat(200_000),
        "- ".repeat(100_000),
        "a: {".repeat(50_000),
        format!(
            "version: 1\nports: {{{}}}\n",
            (0..3_000).map(|n| format!("p{n}: {{driver: x}},")).collect::<String>()
        ),
    ] {
        let begin = Instant::now();
        judge(&text, Format::Yaml);
        judge(&text, Format::Json);
        assert!(begin.elapsed() < Duration::from_secs(20), "{} took {:?}", &text[..40], begin.elapsed());
    }
}

fn judge(text: &str, format: Format) {
    let checked = read(text, format).and_then(|node| check(&node, &Against::NOTHING));
    let Err(errors) = checked else { return };
    assert!(!errors.is_empty() && errors.len() <= ERRORS_MAX + 1, "{} errors: {text:?}", errors.len());
    assert!(errors.iter().all(|error| !error.message.is_empty()), "{text:?}");
}

fn document(random: &mut Random) -> String {
    let mut text = SEEDS[random.below(SEEDS.len())].to_string();
    for _ in 0..=random.below(12) {
        let mut at = random.below(text.len() + 1);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        let rest =
            text[at..].char_indices().nth(random.below(20)).map_or(text.len(), |(offset, _)| at + offset);
        match random.below(4) {
            0 => text.replace_range(at..rest, ""),
            1 => text.insert_str(at, PIECES[random.below(PIECES.len())]),
            2 => text.replace_range(at..rest, PIECES[random.below(PIECES.len())]),
            _ => {
                let copy = text[at..rest].to_string();
                text.insert_str(at, &copy);
            }
        }
    }
    text
}

fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

/// xorshift64 (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}
