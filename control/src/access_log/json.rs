//! A record as one line of JSON, whatever bytes a client sent.

use std::io::Write;
use std::net::SocketAddr;

use sluice_dataplane::access_log::{AccessRecord, Part};
use sluice_dataplane::address::Address;

use super::Names;

/// Appends `record` as one JSON object and a line feed. `unix_ns` is when it began, `worker` who tells of it. Absent
/// parts are left out.
pub(super) fn write_line(
    out: &mut Vec<u8>,
    record: &AccessRecord,
    names: &Names,
    unix_ns: u64,
    worker: usize,
) {
    out.extend_from_slice(b"{\"time\":\"");
    write_time(out, unix_ns);
    out.push(b'"');
    let mut line = Line { out };
    line.text("virtual_server", names.virtual_server(record.virtual_id).as_bytes());
    line.endpoint("client", record.client);
    line.endpoint("destination", record.destination);
    for (name, part) in [("method", Part::Method), ("host", Part::Host), ("path", Part::Path)] {
        line.text(name, record.text.get(part));
    }
    if record.status != 0 {
        line.number("status", u64::from(record.status));
    }
    line.number("received", record.received);
    line.number("sent", record.sent);
    line.ms("duration_ms", record.duration_ns);
    if record.first_byte_ns != 0 {
        line.ms("first_byte_ms", record.first_byte_ns);
    }
    line.text("pool", names.pool_of(record.member_id).as_bytes());
    line.endpoint("member", record.member);
    for (name, part) in [("route", Part::Route), ("user_agent", Part::UserAgent), ("referer", Part::Referer)]
    {
        line.text(name, record.text.get(part));
    }
    line.protocol(record.http_minor);
    line.text("outcome", record.outcome.as_bytes());
    line.number("worker", worker as u64);
    out.extend_from_slice(b"}\n");
}

/// The inside of an object that has a field already.
struct Line<'a> {
    out: &'a mut Vec<u8>,
}

impl Line<'_> {
    fn name(&mut self, name: &str) {
        self.put(format_args!(",\"{name}\":"));
    }

    fn text(&mut self, name: &str, value: &[u8]) {
        if value.is_empty() {
            return;
        }
        self.name(name);
        self.out.push(b'"');
        escape(self.out, value);
        self.out.push(b'"');
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        self.put(format_args!("{value}"));
    }

    /// To the microsecond.
    fn ms(&mut self, name: &str, ns: u64) {
        self.name(name);
        self.put(format_args!("{}.{:03}", ns / 1_000_000, ns / 1_000 % 1_000));
    }

    fn endpoint(&mut self, name: &str, (address, port): (Address, u16)) {
        if !address.is_unspecified() {
            self.name(name);
            self.put(format_args!("\"{}\"", SocketAddr::new(address.into(), port)));
        }
    }

    fn protocol(&mut self, http_minor: Option<u8>) {
        self.name("protocol");
        match http_minor {
            Some(minor) => self.put(format_args!("\"HTTP/1.{minor}\"")),
            None => self.put(format_args!("\"TCP\"")),
        }
    }

    fn put(&mut self, value: std::fmt::Arguments<'_>) {
        // Memory takes everything.
        let _ = self.out.write_fmt(value);
    }
}

/// The inside of a JSON string (RFC 8259 section 7). Control characters, those of C1 included, and the separators that
/// some readers take for the end of a line are `\u00HH`; bytes that are not UTF-8 are the four characters `\xHH`.
fn escape(out: &mut Vec<u8>, value: &[u8]) {
    for chunk in value.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '"' | '\\' => out.extend_from_slice(&[b'\\', letter as u8]),
                '\u{2028}' | '\u{2029}' => escape_code(out, letter),
                _ if letter.is_control() => escape_code(out, letter),
                _ => out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\\\x{byte:02X}");
        }
    }
}

fn escape_code(out: &mut Vec<u8>, letter: char) {
    let _ = write!(out, "\\u{:04x}", letter as u32);
}

/// A moment in UTC, to the millisecond (RFC 3339 section 5.6): `2026-01-31T23:59:59.999Z`.
pub(super) fn write_time(out: &mut Vec<u8>, unix_ns: u64) {
    let (ms, seconds) = (unix_ns / 1_000_000 % 1_000, unix_ns / 1_000_000_000);
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z");
}

/// Year, month and day, so many days after the first of January 1970.
fn date(days: u64) -> (u64, u64, u64) {
    // From 1601 on the exceptions stand last: in four centuries, in a century, in four years.
    let days = days + DAYS_1601_TO_1970;
    let (cycles, days) = (days / 146_097, days % 146_097);
    let centuries = (days / 36_524).min(3);
    let days = days - centuries * 36_524;
    let (fours, days) = (days / 1_461, days % 1_461);
    let years = (days / 365).min(3);
    let mut days = days - years * 365;
    let is_leap = years == 3 && (fours != 24 || centuries == 3);
    let mut month = 0;
    for len in [31, 28 + u64::from(is_leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        month += 1;
        if days < len {
            break;
        }
        days -= len;
    }
    (1601 + 400 * cycles + 100 * centuries + 4 * fours + years, month, days + 1)
}

const DAYS_1601_TO_1970: u64 = 134_774;

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use serde_json::Value;

    use super::*;

    fn line(record: &AccessRecord) -> String {
        let mut out = Vec::new();
        write_line(&mut out, record, &Names::default(), 1_709_210_096_007_999_999, 3);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let text = |seconds: u64| {
            let mut out = Vec::new();
            write_time(&mut out, seconds * 1_000_000_000 + 7_999_999);
            String::from_utf8(out).unwrap()
        };
        for (seconds, wanted) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (951_868_800, "2000-03-01T00:00:00.007Z"),
            (978_220_800, "2000-12-31T00:00:00.007Z"),
            (1_709_210_096, "2024-02-29T12:34:56.007Z"),
            (4_107_456_000, "2100-02-28T00:00:00.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
            (13_569_465_600, "2400-01-01T00:00:00.007Z"),
        ] {
            assert_eq!(text(seconds), wanted);
        }
        // No day is left out and none comes twice.
        let mut before = date(0);
        for day in 1..200_000 {
            let now = date(day);
            let next_day = (now.0, now.1, now.2) == (before.0, before.1, before.2 + 1);
            let next_month = now.2 == 1 && (now.0 * 12 + now.1) == (before.0 * 12 + before.1 + 1);
            assert!(next_day || next_month, "{before:?} and then {now:?}");
            before = now;
        }
    }

    #[test]
    fn absent_parts_are_left_out() {
        let text = line(&AccessRecord::blank());
        assert_eq!(
            text,
            "{\"time\":\"2024-02-29T12:34:56.007Z\",\"received\":0,\"sent\":0,\"duration_ms\":0.000,\"protocol\":\"TCP\",\"outcome\":\"done\",\"worker\":3}\n"
        );
    }

    #[test]
    fn a_request_is_written_with_all_its_parts() {
        let mut record = AccessRecord::blank();
        record.client = (Address::v4([198, 51, 100, 7]), 40_000);
        record.destination =
            ("2001:db8::1".parse::<std::net::Ipv6Addr>().map(std::net::IpAddr::V6).unwrap().into(), 443);
        record.member = (Address::v4([10, 1, 0, 11]), 8080);
        (record.status, record.received, record.sent) = (200, 5, 612);
        (record.duration_ns, record.first_byte_ns, record.http_minor) = (1_234_567, 800_000, Some(1));
        record.outcome = "client-reset";
        record.text.put(Part::Method, b"GET");
        record.text.put(Part::Host, b"shop.example");
        record.text.put(Part::Path, b"/a?b=\"c\"");
        record.text.put(Part::Route, b"all");
        record.text.put(Part::UserAgent, "caf\u{e9}\u{85}\u{2028}\x7f".as_bytes());
        record.text.put(Part::Referer, b"x\xe2\x82y\n\t\\");
        assert_eq!(
            line(&record),
            concat!(
                "{\"time\":\"2024-02-29T12:34:56.007Z\",\"client\":\"198.51.100.7:40000\",",
                "\"destination\":\"[2001:db8::1]:443\",\"method\":\"GET\",\"host\":\"shop.example\",",
                "\"path\":\"/a?b=\\\"c\\\"\",\"status\":200,\"received\":5,\"sent\":612,\"duration_ms\":1.234,",
                "\"first_byte_ms\":0.800,\"member\":\"10.1.0.11:8080\",\"route\":\"all\",",
                "\"user_agent\":\"caf\u{e9}\\u0085\\u2028\\u007f\",",
                "\"referer\":\"x\\\\xE2\\\\x82y\\u000a\\u0009\\\\\",\"protocol\":\"HTTP/1.1\",",
                "\"outcome\":\"client-reset\",\"worker\":3}\n"
            )
        );
    }

    /// Random bytes in every part, half of them from the ones that could break a line.
    #[test]
    fn every_line_is_valid_json_whatever_the_bytes() {
        let seed = RandomState::new().hash_one(0);
        println!("seed {seed:#x}");
        let mut state = seed | 1;
        let mut next = move || {
            // xorshift64 (Marsaglia 2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let parts = [Part::Method, Part::Host, Part::Path, Part::UserAgent, Part::Referer, Part::Route];
        let names = ["method", "host", "path", "user_agent", "referer", "route"];
        for _ in 0..2_000 {
            let mut record = AccessRecord::blank();
            record.duration_ns = next();
            record.client = (Address { high: next(), low: next() }, next() as u16);
            for part in parts {
                let len = next() % 700;
                let odd = b"\"\\\n\r\0\x1b\x7f{}\xe2\x80\xa8\xc2\x9b\xff";
                let byte = |random: u64| match random & 256 {
                    0 => odd[random as usize % odd.len()],
                    _ => random as u8,
                };
                let text: Vec<u8> = (0..len).map(|_| byte(next() >> 20)).collect();
                record.text.put(part, &text);
            }
            let line = line(&record);
            let body = line.strip_suffix('\n').unwrap();
            assert!(!body.contains(|letter: char| letter.is_control() || letter == '\u{2028}'));
            let value: Value = serde_json::from_str(body).unwrap_or_else(|why| panic!("{why}: {body}"));
            for (part, name) in parts.into_iter().zip(names) {
                let kept = record.text.get(part);
                assert_eq!(value.get(name).is_some(), !kept.is_empty());
                if let Ok(text) = std::str::from_utf8(kept)
                    && !text.is_empty()
                {
                    assert_eq!(value[name], text);
                }
            }
        }
    }
}
