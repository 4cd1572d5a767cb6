//! The table: text files of messages with their expected outcome.
//!
//! ```text
//! == name
//! @ head eof     what the reader is told: head connect upgrade http10 close (responses), eof
//! > text         input: the text and CRLF
//! >| text        input: the text alone
//! < text  <| text   what is written to the other side
//! ! 400 word     the refusal, after what is written before
//! = keep held    what is true after the last byte: keep or close, and more, held or tunnel
//! ```
//!
//! In texts `\r \n \t \0 \\ \xHH` are bytes and `{text*N}` is the text N times.

/// One line of the table.
#[derive(Debug, Default, Clone)]
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) told: Vec<String>,
    pub(crate) input: Vec<u8>,
    pub(crate) output: Vec<u8>,
    pub(crate) refusal: Option<String>,
    pub(crate) state: Vec<String>,
}

/// All vectors of a file.
pub(crate) fn read(text: &str) -> Vec<Vector> {
    let mut vectors: Vec<Vector> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("== ") {
            vectors.push(Vector { name: name.to_owned(), ..Vector::default() });
            continue;
        }
        let vector = vectors.last_mut().expect("a name comes first");
        read_line(vector, line);
    }
    vectors
}

fn read_line(vector: &mut Vector, line: &str) {
    let (kind, rest) = line.split_at(1);
    let words = || rest.split_whitespace().map(str::to_owned).collect();
    match (kind, rest.strip_prefix('|')) {
        (">", Some(text)) => vector.input.extend(unescape(text.strip_prefix(' ').unwrap_or(text))),
        (">", None) => vector.input.extend(whole_line(rest)),
        ("<", Some(text)) => vector.output.extend(unescape(text.strip_prefix(' ').unwrap_or(text))),
        ("<", None) => vector.output.extend(whole_line(rest)),
        ("!", _) => vector.refusal = Some(rest.trim().to_owned()),
        ("@", _) => vector.told = words(),
        ("=", _) => vector.state = words(),
        _ => panic!("what is {line:?}?"),
    }
}

fn whole_line(rest: &str) -> Vec<u8> {
    [unescape(rest.strip_prefix(' ').unwrap_or(rest)).as_slice(), b"\r\n"].concat()
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        match first {
            '\\' => rest = escape(rest, &mut bytes),
            '{' => {
                let (inside, after) = rest.split_once('}').expect("a closing brace");
                let (what, count) = inside.rsplit_once('*').expect("a count");
                bytes.extend(unescape(what).repeat(count.parse().expect("a number")));
                rest = after;
            }
            _ => bytes.extend(first.to_string().bytes()),
        }
    }
    bytes
}

fn escape<'a>(rest: &'a str, bytes: &mut Vec<u8>) -> &'a str {
    let (kind, after) = rest.split_at(1);
    match kind {
        "r" => bytes.push(b'\r'),
        "n" => bytes.push(b'\n'),
        "t" => bytes.push(b'\t'),
        "0" => bytes.push(0),
        "\\" => bytes.push(b'\\'),
        "x" => {
            bytes.push(u8::from_str_radix(&after[..2], 16).expect("two digits"));
            return &after[2..];
        }
        _ => panic!("what is \\{kind}?"),
    }
    after
}
