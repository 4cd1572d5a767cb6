//! The quick readers against those that know everything: the same tree with the same lines, or the same refusal.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/random.rs"]
mod random;

use std::borrow::Cow;

use sluice_control::parse::{Format, Node, Value, read, read_any};

use self::random::Random;

const EXAMPLES: &[&str] = &[
    include_str!("data/example.yaml"),
    include_str!("../../docs/example.yaml"),
    include_str!("../../docs/example-http.yaml"),
    include_str!("../../docs/example-smallest.yaml"),
];

/// Pieces of lines; those that YAML has rules for stand more than once.
const PIECES: &[&str] = &[
    "a",
    "b",
    "key",
    ":",
    ": ",
    ": ",
    ": ",
    "- ",
    "- ",
    "-",
    "[",
    "]",
    "{",
    "}",
    ", ",
    ",",
    "\"",
    "'",
    "''",
    "\"x y\"",
    "'it'",
    "{a: 1, b: c}",
    "[1, two]",
    "[a: b]",
    "# no",
    " #",
    "#",
    " ",
    "  ",
    "10.0.0.1:80",
    "::/0",
    "[::1]:80",
    "-5",
    "1.50",
    "0x1f",
    "0o17",
    "1e3",
    "true",
    "Null",
    "~",
    "null",
    "é",
    "\\n",
    "|",
    ">",
    "&a ",
    "*a",
    "!t ",
    "? ",
    "%",
    "@",
    "`",
    "---",
    "...",
    "\t",
    "\r",
    "\u{85}",
    "\u{feff}",
    "\u{7f}",
    "*",
    "=",
    "<<",
    "99999999999999999999",
    "9999999999999999999999999999999999999999",
    ".5",
    "+1",
    "_",
    "(",
    "a b",
    "$",
];

const INDENTS: &[&str] = &["", "", "", "  ", "  ", "    ", "    ", " ", "      ", "- ", "  - ", "- - "];

/// The same line for line, and the refusals word for word.
fn judge(text: &str, format: Format) -> bool {
    let quick = read(text, format);
    let (is_quick, slow) = (quick.as_ref().is_ok_and(is_borrowed), read_any(text, format));
    assert_eq!(quick, slow, "{text:?}");
    is_quick
}

/// True of a tree from a quick reader: it borrows from the text.
fn is_borrowed(node: &Node<'_>) -> bool {
    match &node.value {
        Value::Text(text) => matches!(text, Cow::Borrowed(_)),
        Value::List(items) => items.iter().any(is_borrowed),
        Value::Map(entries) => {
            entries.iter().any(|entry| matches!(entry.key, Cow::Borrowed(_)) || is_borrowed(&entry.node))
        }
        _ => false,
    }
}

#[test]
fn the_examples_are_read_quickly() {
    for text in EXAMPLES {
        assert!(judge(text, Format::Yaml), "{text}");
        assert!(judge(&format!("---\n{text}"), Format::Yaml), "{text}");
    }
}

#[test]
fn what_is_plain_is_read_quickly() {
    for text in [
        "a: 1",
        "a:\nb:\n",
        "a: {b: [1, x, {c: d}, e: f, \"g\": {h: [i: j]}]}",
        "# c\n\na: b # c\n  # c\nb: # c\n  - 1\n  -\n  - - x\n    - y\n  - k: v\n    l: w\nc:\n- x\n- y\nd: \"q: #\"\n",
        "'k': v\n\"l\": 'w'\n1.50: x\nnull: y\nTrue: z\n",
        "a:   \n   b: c d  e   \n   e: x # é\n   f: \"é\\n\"\n",
        "a: [1, 2, ]\nb: {}\nc: []\nd: {a: 1,}\n",
    ] {
        assert!(judge(text, Format::Yaml), "{text:?}");
    }
}

#[test]
fn random_yaml_is_read_as_ever() {
    let mut random = Random::seeded();
    let (mut quick, rounds) = (0, rounds());
    for round in 0..rounds {
        let text = if round % 2 == 0 { mutated(&mut random, EXAMPLES) } else { lines(&mut random) };
        quick += usize::from(judge(&text, Format::Yaml));
    }
    println!("{quick} of {rounds} quick");
    assert!(quick > rounds / 50, "{quick} of {rounds}");
}

#[test]
fn random_json_is_read_as_ever() {
    let mut random = Random::seeded();
    let examples: Vec<String> =
        EXAMPLES.iter().map(|text| json(&read(text, Format::Yaml).unwrap())).collect();
    let examples: Vec<&str> = examples.iter().map(String::as_str).collect();
    let (mut quick, rounds) = (0, rounds());
    for _ in 0..rounds {
        quick += usize::from(judge(&mutated(&mut random, &examples), Format::Json));
    }
    println!("{quick} of {rounds} quick");
    assert!(quick > rounds / 50, "{quick} of {rounds}");
}

fn rounds() -> usize {
    std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(4_000)
}

/// A tree as JSON text, over many lines.
fn json(node: &Node<'_>) -> String {
    match &node.value {
        Value::Null | Value::Removed => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Large(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Text(text) => serde_json::to_string(text).unwrap(),
        Value::List(items) => format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(",\n  ")),
        Value::Map(entries) => {
            let entry =
                |entry: &sluice_control::parse::Entry<'_>| format!("{:?}: {}", entry.key, json(&entry.node));
            format!("{{\n{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(",\n"))
        }
    }
}

/// One of `examples`, or a part of it, with a few small changes.
fn mutated(random: &mut Random, examples: &[&str]) -> String {
    let example = examples[random.below(examples.len())];
    let mut text = example.to_string();
    if random.below(2) == 0 {
        let lines: Vec<&str> = example.lines().collect();
        let first = random.below(lines.len());
        text = lines[first..(first + 1 + random.below(12)).min(lines.len())].join("\n");
    }
    for _ in 0..random.below(4) {
        let [at, end] = [boundary(random, &text), random.below(6)];
        let end = text[at..].char_indices().nth(end).map_or(text.len(), |(offset, _)| at + offset);
        match random.below(3) {
            0 => text.replace_range(at..end, ""),
            1 => text.insert_str(at, PIECES[random.below(PIECES.len())]),
            _ => text.replace_range(at..end, PIECES[random.below(PIECES.len())]),
        }
    }
    text
}

/// A few lines of pieces.
fn lines(random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..=random.below(5) {
        text.push_str(INDENTS[random.below(INDENTS.len())]);
        if random.below(2) == 0 {
            text.push_str(["a:", "b: ", "c: d", "\"e\": ", "f:  "][random.below(5)]);
        }
        for _ in 0..random.below(4) {
            text.push_str(PIECES[random.below(PIECES.len())]);
        }
        text.push('\n');
    }
    text
}

/// A place in the text between two characters.
fn boundary(random: &mut Random, text: &str) -> usize {
    let mut at = random.below(text.len() + 1);
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
