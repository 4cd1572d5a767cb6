//! The request target's four forms (RFC 9112 section 3.2), and hosts.

use std::net::Ipv6Addr;

use super::fields::Span;
use super::grammar::{decimal, table};
use super::head::{Method, Scheme};
use super::refusal::Fault;

/// A request target, by parts: spans of the target itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Target {
    /// Of an absolute target.
    pub(super) scheme: Option<Scheme>,
    /// Host and port, of an absolute target and of CONNECT.
    pub(super) authority: Option<Span>,
    /// From `/`; empty for an absolute target without one; `None` for `*` and CONNECT.
    pub(super) path: Option<Span>,
    /// What follows `?`.
    pub(super) query: Option<Span>,
}

impl Target {
    /// Reads a target, whose bytes are visible characters.
    pub(super) fn read(target: &[u8], method: Method) -> Result<Self, Fault> {
        if !target.is_ascii() || memchr::memchr(b'#', target).is_some() {
            return Err(Fault::Target);
        }
        match (target, method) {
            (_, Method::Connect) => Self::authority(target),
            (b"*", Method::Options) => Ok(Self::default()),
            (b"*", _) => Err(Fault::TargetForm),
            ([b'/', ..], _) => Ok(Self::default().with_path(target, 0)),
            _ => Self::absolute(target),
        }
    }

    /// The same parts of a buffer in which the target begins at `by`.
    pub(super) fn moved(self, by: usize) -> Self {
        let moved = |span: Span| Span { at: span.at + by as u32, ..span };
        let Self { scheme, authority, path, query } = self;
        Self { scheme, authority: authority.map(moved), path: path.map(moved), query: query.map(moved) }
    }

    fn authority(target: &[u8]) -> Result<Self, Fault> {
        match Authority::read(target) {
            Some(Authority { port: Some(_), .. }) => {
                Ok(Self { authority: Some(Span::new(0, target.len())), ..Self::default() })
            }
            _ => Err(Fault::TargetForm),
        }
    }

    fn absolute(target: &[u8]) -> Result<Self, Fault> {
        let starts = |with: &[u8]| {
            target.split_at_checked(with.len()).is_some_and(|(start, _)| start.eq_ignore_ascii_case(with))
        };
        let (scheme, at) = match () {
            () if starts(b"http://") => (Scheme::Http, 7),
            () if starts(b"https://") => (Scheme::Https, 8),
            () if Authority::read(target).is_some() => return Err(Fault::TargetForm),
            () => return Err(Fault::Target),
        };
        let rest = &target[at..];
        let len = rest.iter().position(|byte| b"/?".contains(byte)).unwrap_or(rest.len());
        Authority::read(&rest[..len]).ok_or(Fault::Target)?;
        let whole = Self { scheme: Some(scheme), authority: Some(Span::new(at, len)), ..Self::default() };
        Ok(whole.with_path(target, at + len))
    }

    fn with_path(self, target: &[u8], at: usize) -> Self {
        let rest = target.get(at..).unwrap_or_default();
        let question = memchr::memchr(b'?', rest);
        let len = question.unwrap_or(rest.len());
        let query = question.map(|_| Span::new(at + len + 1, rest.len() - len - 1));
        Self { path: Some(Span::new(at, len)), query, ..self }
    }
}

/// A host and a port: `uri-host [ ":" port ]` of RFC 9110 section 7.2, with less: a host is a DNS name, an IPv4
/// address or an IPv6 address in brackets; a port is 1 to 65535 and not left empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Authority {
    /// Bytes of the host, with its brackets.
    pub(super) host_len: usize,
    pub(super) port: Option<u16>,
}

impl Authority {
    /// Reads an authority; `None` when it is not one.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let host_len = match bytes {
            [b'[', rest @ ..] => 2 + v6_len(rest)?,
            _ => bytes.iter().position(|&byte| byte == b':').unwrap_or(bytes.len()),
        };
        let (host, rest) = bytes.split_at_checked(host_len)?;
        let named = host.starts_with(b"[") || is_name(host);
        let port = match rest {
            [] => None,
            [b':', digits @ ..] => Some(port(digits)?),
            _ => return None,
        };
        named.then_some(Self { host_len, port })
    }
}

/// Bytes of the IPv6 address up to `]`.
fn v6_len(bytes: &[u8]) -> Option<usize> {
    let len = bytes.iter().position(|&byte| byte == b']')?;
    let text = str::from_utf8(bytes.get(..len)?).ok()?;
    text.parse::<Ipv6Addr>().ok().map(|_| len)
}

fn is_name(host: &[u8]) -> bool {
    let inside = |&byte: &u8| HOST_CHAR[byte as usize];
    !host.is_empty() && host.len() <= HOST_MAX && !host.starts_with(b".") && host.iter().all(inside)
}

fn port(digits: &[u8]) -> Option<u16> {
    let value = decimal(digits.get(..digits.len().min(6))?)?;
    u16::try_from(value).ok().filter(|&port| port != 0 && digits.len() <= 5)
}

static HOST_CHAR: [bool; 256] = table(b"-._");

/// The longest DNS name, with its final dot.
const HOST_MAX: usize = 254;

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(target: &str, method: Method) -> Result<[Option<&str>; 3], Fault> {
        let read = Target::read(target.as_bytes(), method)?;
        let text = |span: Span| str::from_utf8(span.of(target.as_bytes())).expect("ASCII");
        Ok([read.authority.map(text), read.path.map(text), read.query.map(text)])
    }

    #[test]
    fn the_four_forms() {
        let get = |target| parts(target, Method::Get);
        assert_eq!(get("/a?b?c"), Ok([None, Some("/a"), Some("b?c")]));
        assert_eq!(get("/a?"), Ok([None, Some("/a"), Some("")]));
        assert_eq!(get("HTTP://h:80/a"), Ok([Some("h:80"), Some("/a"), None]));
        assert_eq!(get("https://h?q"), Ok([Some("h"), Some(""), Some("q")]));
        assert_eq!(parts("*", Method::Options), Ok([None; 3]));
        assert_eq!(parts("h:443", Method::Connect), Ok([Some("h:443"), None, None]));
        assert_eq!(parts("[::1]:443", Method::Connect), Ok([Some("[::1]:443"), None, None]));
    }

    #[test]
    fn a_form_belongs_to_its_method() {
        for (target, method) in [
            ("*", Method::Get),
            ("h:443", Method::Get),
            ("h", Method::Connect),
            ("/", Method::Connect),
            ("http://h:80/", Method::Connect),
        ] {
            assert_eq!(parts(target, method), Err(Fault::TargetForm), "{target}");
        }
    }

    #[test]
    fn what_is_no_http_uri_is_refused() {
        for target in
            ["ftp://h/", "http:/h", "http://", "http:///a", "http://u@h/", "/#", "/\u{e4}", "a/b", "//"]
        {
            let refused = parts(target, Method::Get);
            assert_eq!(refused.is_err(), target != "//", "{target}");
        }
    }

    #[test]
    fn hosts_are_names_and_addresses_with_a_port_or_none() {
        let port = |authority: &str| Authority::read(authority.as_bytes()).map(|read| read.port);
        assert_eq!(port("a-b_c.example."), Some(None));
        assert_eq!(port("192.0.2.1:65535"), Some(Some(65535)));
        assert_eq!(port("[2001:db8::1]"), Some(None));
        for bad in [
            "",
            ":80",
            "h:",
            "h:0",
            "h:65536",
            "h:000080",
            "h:8a",
            "h:-1",
            "[::1",
            "[]",
            "[::1]x",
            "[::1%25e]",
            "h/p",
            "u@h",
            "h,i",
            "h i",
            "h%41",
            "::1",
            "a:1:2",
            ".h",
            "h~",
        ] {
            assert_eq!(port(bad), None, "{bad}");
        }
        assert_eq!(port(&"a".repeat(254)), Some(None));
        assert_eq!(port(&"a".repeat(255)), None);
    }
}
