//! The text of the table of exchanges: one row after the other.
//!
//! ```text
//! == name
//! @ words        options: see `Options` in table.rs; then a usual request, and that the member gets it: get head post get10 …
//! > text         the client sends the text and CRLF        >| text   without CRLF
//! < text  <| …   so much more has the member got, exactly
//! ? text  ?| …   as much of it as was on its way when the rest was refused: nothing else, and maybe not all
//! + text  +| …   the member sends it, on the connection that got something last
//! - text  -| …   so much more has the client got, exactly
//! ! 400 word     it is our answer with this status and reason; `keep` when the connection goes on, `head` without body
//! . words        something happens: see `act` in table.rs
//! = open none    how the client's connection and the member's stand: open closed reset none, cut (reset or none), any
//! ```
//!
//! In texts `\r \n \t \0 \\ \xHH` are bytes and `{text*N}` is the text N times. Chunks are compared as chunks when the
//! bytes come in one piece; otherwise as what they carry.

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    ClientSends(Vec<u8>),
    MemberSends(Vec<u8>),
    MemberGot(Vec<u8>),
    MemberMayHaveGot(Vec<u8>),
    ClientGot(Vec<u8>),
    Act(Vec<String>),
    Stand(Vec<String>),
}

#[derive(Debug, Default, Clone)]
pub struct Row {
    pub name: String,
    pub options: Vec<String>,
    pub steps: Vec<Step>,
}

/// The usual requests, for rows about responses: what the client sends, and what the member gets.
pub fn usual(word: &str) -> Option<(&'static str, &'static str)> {
    Some(match word {
        "get" => ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        "get-close" => {
            ("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        }
        "head" => ("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n"),
        "get10" => ("GET / HTTP/1.0\r\nHost: h\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        "keep10" => (
            "GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        ),
        "post" => (
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi",
        ),
        "trailers" => (
            "GET / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\n\r\n",
        ),
        _ => return None,
    })
}

/// All rows of a file.
pub fn read(text: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("== ") {
            rows.push(Row { name: name.to_owned(), ..Row::default() });
            continue;
        }
        read_line(rows.last_mut().expect("a name comes first"), line);
    }
    rows
}

fn read_line(row: &mut Row, line: &str) {
    let (kind, rest) = line.split_at(1);
    let words = || rest.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let bytes = || match rest.strip_prefix('|') {
        Some(text) => unescape(text.strip_prefix(' ').unwrap_or(text)),
        None => [unescape(rest.strip_prefix(' ').unwrap_or(rest)).as_slice(), b"\r\n"].concat(),
    };
    let step = match kind {
        "@" => {
            row.options = words();
            let usual = row.options.iter().find_map(|word| usual(word));
            let [asked, told] = usual.map_or([None, None], |(asked, told)| [Some(asked), Some(told)]);
            row.steps.extend(asked.map(|text| Step::ClientSends(text.into())));
            row.steps.extend(told.map(|text| Step::MemberGot(text.into())));
            return;
        }
        ">" => Step::ClientSends(bytes()),
        "<" => Step::MemberGot(bytes()),
        "?" => Step::MemberMayHaveGot(bytes()),
        "+" => Step::MemberSends(bytes()),
        "-" => Step::ClientGot(bytes()),
        "!" => Step::ClientGot(answer(&words())),
        "." => Step::Act(words()),
        "=" => Step::Stand(words()),
        _ => panic!("what is {line:?}?"),
    };
    let last = row.steps.last_mut();
    match (step, last) {
        (Step::ClientSends(more), Some(Step::ClientSends(bytes)))
        | (Step::MemberGot(more), Some(Step::MemberGot(bytes)))
        | (Step::MemberMayHaveGot(more), Some(Step::MemberMayHaveGot(bytes)))
        | (Step::MemberSends(more), Some(Step::MemberSends(bytes)))
        | (Step::ClientGot(more), Some(Step::ClientGot(bytes))) => bytes.extend(more),
        (step, _) => row.steps.push(step),
    }
}

/// An answer of our own.
fn answer(words: &[String]) -> Vec<u8> {
    let reason = match words[0].as_str() {
        "400" => "Bad Request",
        "404" => "Not Found",
        "405" => "Method Not Allowed",
        "408" => "Request Timeout",
        "413" => "Content Too Large",
        "414" => "URI Too Long",
        "417" => "Expectation Failed",
        "431" => "Request Header Fields Too Large",
        "501" => "Not Implemented",
        "502" => "Bad Gateway",
        "503" => "Service Unavailable",
        "504" => "Gateway Timeout",
        "505" => "HTTP Version Not Supported",
        other => panic!("what is {other}?"),
    };
    let (status, why) = (&words[0], &words[1]);
    let has = |word: &str| words[2..].iter().any(|other| other == word);
    let body = format!("{reason}: {why}\n");
    let connection = match (has("keep"), has("keep10")) {
        (false, false) => "Connection: close\r\n",
        (_, true) => "Connection: keep-alive\r\n",
        _ => "",
    };
    let len = body.len();
    let body = if has("head") { "" } else { &body };
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nSluice-Reason: {why}\r\n\
         {connection}Content-Length: {len}\r\n\r\n{body}"
    )
    .into_bytes()
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
    let byte = match kind {
        "r" => b'\r',
        "n" => b'\n',
        "t" => b'\t',
        "0" => 0,
        "\\" => b'\\',
        "x" => {
            bytes.push(u8::from_str_radix(&after[..2], 16).expect("two digits"));
            return &after[2..];
        }
        _ => panic!("what is \\{kind}?"),
    };
    bytes.push(byte);
    after
}
