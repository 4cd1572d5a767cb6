//! Says who the client is: X-Forwarded-For, -Proto, -Host, -Port, and Forwarded (RFC 7239).

use super::Facts;
use super::short::Short;
use crate::http::{EditError, Fields, Request, Scheme};

/// Which fields are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarded {
    /// X-Forwarded-For, -Proto, -Host and -Port.
    pub x_forwarded: bool,
    /// Forwarded (RFC 7239).
    pub rfc7239: bool,
    /// What the client sent of these is kept and added to; otherwise it is removed first, whichever are written.
    pub trust_client: bool,
}

impl Forwarded {
    pub(super) fn apply(&self, request: &mut Request, facts: &Facts) -> Result<(), EditError> {
        if !self.trust_client {
            NAMES.iter().for_each(|name| request.fields.remove(name));
        }
        let asked = str::from_utf8(request.received_authority()).unwrap_or_default();
        let host = Short::<AUTHORITY_MAX>::of(format_args!("{asked}"))?;
        if self.rfc7239 {
            let element = element(facts, asked)?;
            request.fields.append(FORWARDED, element.bytes())?;
        }
        if self.x_forwarded {
            write_x(&mut request.fields, host.bytes(), facts)?;
        }
        Ok(())
    }
}

/// The list of clients grows at every proxy; the other three are what the first proxy saw.
fn write_x(fields: &mut Fields, host: &[u8], facts: &Facts) -> Result<(), EditError> {
    let client = Short::<ADDRESS_MAX>::of(format_args!("{}", facts.client.0))?;
    let port = Short::<5>::of(format_args!("{}", facts.destination.1))?;
    fields.append(X_FOR, client.bytes())?;
    add_missing(fields, X_PROTO, name_of(facts.scheme).as_bytes())?;
    add_missing(fields, X_HOST, host)?;
    add_missing(fields, X_PORT, port.bytes())
}

fn add_missing(fields: &mut Fields, name: &[u8], value: &[u8]) -> Result<(), EditError> {
    if value.is_empty() || fields.get(name).is_some() { Ok(()) } else { fields.add(name, value) }
}

/// What one proxy says (RFC 7239 section 4). A host with a port and an IPv6 address are no tokens, so they are quoted
/// (section 6).
fn element(facts: &Facts, host: &str) -> Result<Short<ELEMENT_MAX>, EditError> {
    let (open, close) = if facts.client.0.is_v4() { ("", "") } else { ("\"[", "]\"") };
    let (label, quote) = match host {
        "" => ("", ""),
        host if host.contains([':', '[']) => (";host=", "\""),
        _ => (";host=", ""),
    };
    let (client, proto) = (facts.client.0, name_of(facts.scheme));
    Short::of(format_args!("for={open}{client}{close}{label}{quote}{host}{quote};proto={proto}"))
}

/// The scheme as it is written.
pub(super) fn name_of(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    }
}

const FORWARDED: &[u8] = b"Forwarded";
const X_FOR: &[u8] = b"X-Forwarded-For";
const X_PROTO: &[u8] = b"X-Forwarded-Proto";
const X_HOST: &[u8] = b"X-Forwarded-Host";
const X_PORT: &[u8] = b"X-Forwarded-Port";
const NAMES: &[&[u8]] = &[FORWARDED, X_FOR, X_PROTO, X_HOST, X_PORT];

/// A DNS name with its final dot, and a port.
const AUTHORITY_MAX: usize = 260;
/// An IPv6 address with an IPv4 address at its end.
const ADDRESS_MAX: usize = 45;
/// `for="[…]";host="…";proto=https`
const ELEMENT_MAX: usize = ADDRESS_MAX + AUTHORITY_MAX + 31;

#[cfg(test)]
mod tests {
    use super::super::testing::{after, facts, read, request};
    use super::super::{Filter, UrlRewrite};
    use super::*;
    use crate::address::Address;

    const CLIENT_V6: Address = Address { high: 0x2001_0db8 << 32, low: 1 };

    fn filter(x_forwarded: bool, rfc7239: bool, trust_client: bool) -> Filter {
        Filter::Forwarded(Forwarded { x_forwarded, rfc7239, trust_client })
    }

    const SENT: &str = "X-Forwarded-For: 1.1.1.1\r\nx-forwarded-proto: https\r\nX-Forwarded-Host: o\r\n\
                        x-forwarded-for: 2.2.2.2\r\nForwarded: for=1.1.1.1\r\nx-forwarded-port: 1\r\n";

    #[test]
    fn an_untrusted_clients_claims_are_replaced() {
        let ours = "X-Forwarded-For: 192.0.2.7|X-Forwarded-Proto: http|X-Forwarded-Host: h:8080|\
                    X-Forwarded-Port: 80|";
        let standard = "Forwarded: for=192.0.2.7;host=\"h:8080\";proto=http|";
        for (x, rfc7239, expected) in [
            (true, false, ours.to_owned()),
            (false, true, standard.to_owned()),
            (true, true, format!("{standard}{ours}")),
            (false, false, String::new()),
        ] {
            let sent = after(&filter(x, rfc7239, false), request("GET", "H:8080", "/", SENT), &facts());
            assert_eq!(sent, format!("GET / HTTP/1.1|Host: h:8080|{expected}|"));
        }
    }

    #[test]
    fn a_trusted_clients_claims_are_added_to() {
        let sent = after(&filter(true, true, true), request("GET", "h", "/", SENT), &facts());
        assert_eq!(
            sent,
            "GET / HTTP/1.1|Host: h|X-Forwarded-For: 1.1.1.1, 2.2.2.2, 192.0.2.7|x-forwarded-proto: https|\
             X-Forwarded-Host: o|Forwarded: for=1.1.1.1, for=192.0.2.7;host=h;proto=http|x-forwarded-port: 1||"
        );
    }

    #[test]
    fn addresses_of_ipv6_are_quoted_in_brackets_in_forwarded_only() {
        let facts = Facts { client: (CLIENT_V6, 1), scheme: Scheme::Https, ..facts() };
        let sent = after(&filter(true, true, false), request("GET", "[::1]", "/", ""), &facts);
        assert_eq!(
            sent,
            "GET / HTTP/1.1|Host: [::1]|Forwarded: for=\"[2001:db8::1]\";host=\"[::1]\";proto=https|\
             X-Forwarded-For: 2001:db8::1|X-Forwarded-Proto: https|X-Forwarded-Host: [::1]|X-Forwarded-Port: 80||"
        );
    }

    #[test]
    fn without_a_host_none_is_named() {
        let sent = after(&filter(true, true, false), read("GET / HTTP/1.0\r\n\r\n"), &facts());
        assert_eq!(
            sent,
            "GET / HTTP/1.1|Host: |Forwarded: for=192.0.2.7;proto=http|X-Forwarded-For: 192.0.2.7|\
             X-Forwarded-Proto: http|X-Forwarded-Port: 80||"
        );
    }

    #[test]
    fn the_host_is_the_one_that_the_client_asked_for() {
        let mut asked = request("GET", "asked", "/", "");
        let rewrite = UrlRewrite { host: Some("inside".into()), path: None };
        rewrite.apply(&mut asked, &facts()).expect("room");
        let sent = after(&filter(true, false, false), asked, &facts());
        assert!(sent.contains("|Host: inside|") && sent.contains("|X-Forwarded-Host: asked|"), "{sent}");
    }

    #[test]
    fn the_longest_texts_have_room() {
        let host = format!("{}:65535", "a".repeat(254));
        let widest = Address::v6([0xfe; 16]);
        let facts = Facts { client: (widest, 1), scheme: Scheme::Https, ..facts() };
        let sent = after(&filter(true, true, false), request("GET", &host, "/", ""), &facts);
        let element = format!("for=\"[{widest}]\";host=\"{host}\";proto=https");
        assert!(sent.contains(&element) && element.len() <= ELEMENT_MAX, "{sent}");
    }
}
