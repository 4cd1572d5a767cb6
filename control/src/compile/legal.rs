//! What the data plane takes as a field, a host or a path: asked of its own message engine, so that both always agree.

use sluice_dataplane::http::{EditError, Event, Fields, HttpLimits, Request, RequestReader};

/// Why this is not the name of a field that filters and matches may name.
pub(super) fn field_name(name: &str) -> Result<(), String> {
    match add(name, "") {
        Err(EditError::Invalid) => Err(format!("expected the name of a field; found \"{name}\"")),
        Err(EditError::Reserved) => {
            Err(format!("expected a field that the proxy does not write itself; {name} it does"))
        }
        Ok(()) | Err(EditError::Full) => Ok(()),
    }
}

/// Why this is not the value of a field.
pub(super) fn field_value(value: &str) -> Result<(), String> {
    match add("x", value) {
        Ok(()) => Ok(()),
        Err(EditError::Full) => Err("expected a value of less than 8 KiB".into()),
        Err(_) => Err("expected the value of a field, without control characters and outer spaces".into()),
    }
}

/// True for a token: letters, digits and some signs (RFC 9110 section 5.6.2).
pub(super) fn is_token(text: &str) -> bool {
    add(text, "") != Err(EditError::Invalid)
}

fn add(name: &str, value: &str) -> Result<(), EditError> {
    Fields::for_trailers(&HttpLimits::default()).add(name.as_bytes(), value.as_bytes())
}

/// True for a name, an IPv4 address or an IPv6 address in brackets, without a port.
pub(super) fn is_host(host: &str) -> bool {
    let mut request = Request::new(&SMALL);
    request.set_authority(host.as_bytes()).is_ok() && request.port().is_none()
}

/// Why this is not a path as requests have it once it is normalised.
pub(super) fn path(text: &str, limits: &HttpLimits) -> Result<(), String> {
    let limits = HttpLimits { path: limits.path, line: limits.line, ..SMALL };
    let mut request = asked(&limits);
    if request.set_path(text.as_bytes()).is_err() {
        return Err(format!(
            "expected a path that begins with / and holds no query, fragment or space; found \"{text}\""
        ));
    }
    let normal = String::from_utf8_lossy(request.path().unwrap_or_default());
    if normal == text { Ok(()) } else { Err(format!("expected a path as requests have it then, {normal}")) }
}

/// A request that has a path.
fn asked(limits: &HttpLimits) -> Request {
    let (mut request, mut trailers) = (Request::new(limits), Fields::for_trailers(limits));
    let (mut reader, mut input) = (RequestReader::default(), &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..]);
    while let Ok(progress) = reader.advance(input, &mut request, &mut trailers) {
        input = input.get(progress.taken..).unwrap_or_default();
        if progress.event == Event::Head || progress.taken == 0 {
            break;
        }
    }
    request
}

/// Enough for a request without fields.
const SMALL: HttpLimits = HttpLimits {
    line: 1 << 10,
    head: 1 << 10,
    fields: 4,
    trailer: 0,
    trailer_fields: 0,
    body: 0,
    path: sluice_dataplane::http::PathRules { merge_slashes: true, encoded_slashes: true },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_the_proxy_writes_are_refused() {
        for name in ["Host", "connection", "Content-Length", "Transfer-Encoding", "TE", "Upgrade"] {
            assert!(field_name(name).unwrap_err().contains("does not write itself"), "{name}");
        }
        assert!(field_name("a b").is_err() && field_name("").is_err() && field_name("X-Api_Key").is_ok());
        assert!(field_value("a\r\nb: c").is_err() && field_value(" a").is_err() && field_value("").is_ok());
        assert!(field_value(&"v".repeat(9_000)).unwrap_err().contains("8 KiB"));
    }

    #[test]
    fn hosts_stand_without_a_port() {
        for host in ["example.com", "192.0.2.1", "[2001:db8::1]", "a"] {
            assert!(is_host(host), "{host}");
        }
        for host in ["", "a:80", "2001:db8::1", "*.example.com", "a b", ".a", "a/b"] {
            assert!(!is_host(host), "{host}");
        }
    }

    #[test]
    fn paths_stand_as_they_are_matched() {
        let rules = HttpLimits::default();
        for text in ["/", "/a", "/a/", "/a%20b", "/a:b@c"] {
            assert_eq!(path(text, &rules), Ok(()), "{text}");
        }
        for (text, part) in [
            ("a", "begins with /"),
            ("", "begins with /"),
            ("/a?b", "no query"),
            ("/a b", "space"),
            ("/a%2", "begins with /"),
            ("/a//b", "then, /a/b"),
            ("/a/../b", "then, /b"),
            ("/%61", "then, /a"),
        ] {
            assert!(path(text, &rules).unwrap_err().contains(part), "{text}");
        }
        let mut apart = rules;
        apart.path.merge_slashes = false;
        assert_eq!(path("/a//b", &apart), Ok(()));
    }
}
