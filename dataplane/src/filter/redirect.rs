//! Answers with a redirection (Gateway API: HTTPRequestRedirectFilter).

use std::sync::Arc;

use super::forwarded::name_of;
use super::short::Short;
use super::{Facts, Outcome};
use crate::http::{EditError, Request, Response, Scheme};

/// Where to; what is not said stays as the request has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// The scheme; the connection's when it is not said.
    pub scheme: Option<Scheme>,
    /// The host, without a port; an IPv6 address in brackets.
    pub host: Option<Arc<str>>,
    /// The port; left out where it is the scheme's own. When it is not said: the own port of a scheme that is said,
    /// or the one that the client connected to.
    pub port: Option<u16>,
    /// The path.
    pub path: Option<PathChange>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// How a path changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathChange {
    /// The whole path; the query stays.
    Full(Arc<str>),
    /// The prefix that the rule matched, by whole segments.
    Prefix(Arc<str>),
}

impl Redirect {
    /// Location is absolute, and keeps the query.
    pub(super) fn answer(
        &self,
        request: &Request,
        response: &mut Response,
        facts: &Facts,
    ) -> Result<Outcome, EditError> {
        let (own, port) = (own_host(facts)?, self.port(facts)?);
        let host = match &self.host {
            Some(host) => host.as_bytes(),
            None if request.host().is_empty() => own.bytes(),
            None => request.host(),
        };
        let scheme = name_of(self.scheme.unwrap_or(facts.scheme)).as_bytes();
        let (path, query) = (self.path(request, facts), query(request));
        response.begin(self.status);
        let parts = [[scheme, b"://"], [host, port.bytes()], path, query];
        response.fields.add_parts(b"Location", parts.into_iter().flatten())?;
        Ok(Outcome::Answer(Arc::default()))
    }

    /// With its colon; empty for the scheme's own.
    fn port(&self, facts: &Facts) -> Result<Short<6>, EditError> {
        let own = own_port(self.scheme.unwrap_or(facts.scheme));
        let port = match (self.port, self.scheme) {
            (Some(port), _) => port,
            (None, Some(_)) => own,
            (None, None) => facts.destination.1,
        };
        if port == own { Short::of(format_args!("")) } else { Short::of(format_args!(":{port}")) }
    }

    /// What the path begins with, and the rest of it. A request without path is sent to `/`.
    fn path<'a>(&'a self, request: &'a Request, facts: &Facts) -> [&'a [u8]; 2] {
        let path = request.path().unwrap_or(b"/");
        let change = self.path.as_ref().and_then(|change| change.start(path, facts.matched_prefix));
        let (len, start) = change.unwrap_or_default();
        [start, path.get(len..).unwrap_or_default()]
    }
}

fn query(request: &Request) -> [&[u8]; 2] {
    request.query().map_or([b"", b""], |query| [b"?", query])
}

/// What the client connected to, for requests of HTTP/1.0 that name no host.
fn own_host(facts: &Facts) -> Result<Short<HOST_MAX>, EditError> {
    let own = facts.destination.0;
    if own.is_v4() { Short::of(format_args!("{own}")) } else { Short::of(format_args!("[{own}]")) }
}

fn own_port(scheme: Scheme) -> u16 {
    match scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    }
}

/// An IPv6 address with an IPv4 address at its end, in brackets.
const HOST_MAX: usize = 47;

#[cfg(test)]
mod tests {
    use super::super::Filter;
    use super::super::testing::{answer_of, facts, read, request};
    use super::*;
    use crate::address::Address;
    use Scheme::{Http, Https};

    const NOTHING: Redirect = Redirect { scheme: None, host: None, port: None, path: None, status: 302 };

    fn located(redirect: &Redirect, mut request: Request, facts: &Facts) -> String {
        let answer = answer_of(&Filter::Redirect(redirect.clone()), &mut request, facts);
        let (head, body) = answer.expect("an answer");
        assert_eq!(body, b"");
        let location = head.split('|').find_map(|line| line.strip_prefix("Location: "));
        location.expect("a place").to_owned()
    }

    #[test]
    fn the_port_follows_the_scheme_that_is_said_or_the_listener() {
        for (scheme, port, of_client, listener, expected) in [
            (None, None, Http, 80, "http://h/"),
            (None, None, Http, 8080, "http://h:8080/"),
            (None, None, Https, 443, "https://h/"),
            (None, None, Https, 80, "https://h:80/"),
            (Some(Https), None, Http, 8080, "https://h/"),
            (Some(Http), None, Https, 8443, "http://h/"),
            (Some(Https), Some(8443), Http, 80, "https://h:8443/"),
            (Some(Https), Some(443), Http, 80, "https://h/"),
            (Some(Https), Some(80), Http, 80, "https://h:80/"),
            (None, Some(80), Http, 8080, "http://h/"),
            (None, Some(81), Http, 80, "http://h:81/"),
        ] {
            let redirect = Redirect { scheme, port, ..NOTHING };
            let facts =
                Facts { scheme: of_client, destination: (facts().destination.0, listener), ..facts() };
            let asked = request("GET", "h:9", "/", "");
            assert_eq!(located(&redirect, asked, &facts), expected, "{redirect:?} {listener}");
        }
    }

    #[test]
    fn paths_change_and_the_query_stays() {
        let full = |path: &str| Some(PathChange::Full(path.into()));
        let prefix = |path: &str| Some(PathChange::Prefix(path.into()));
        for (path, method, target, expected) in [
            (None, "GET", "/a/b?c=//d", "http://h/a/b?c=//d"),
            (None, "GET", "/a?", "http://h/a?"),
            (full("/x"), "GET", "/foo/b?c", "http://h/x?c"),
            (prefix("/x"), "GET", "/foo/b?c", "http://h/x/b?c"),
            (prefix("/x"), "GET", "/foo", "http://h/x"),
            (prefix("/"), "GET", "/foo", "http://h/"),
            (prefix("/"), "GET", "/foo/b", "http://h/b"),
            (prefix(""), "GET", "/foo/", "http://h/"),
            (prefix("/x"), "GET", "/food", "http://h/food"),
            (None, "OPTIONS", "*", "http://h/"),
            (full("/x"), "OPTIONS", "*", "http://h/x"),
        ] {
            let facts = Facts { matched_prefix: b"/foo", ..facts() };
            let redirect = Redirect { path, ..NOTHING };
            assert_eq!(
                located(&redirect, request(method, "h", target, ""), &facts),
                expected,
                "{redirect:?}"
            );
        }
    }

    #[test]
    fn the_host_is_the_operators_or_the_clients_or_our_address() {
        let elsewhere = Redirect { host: Some("new.example".into()), ..NOTHING };
        let asked = || request("GET", "Old:80", "http://other.example:81/a", "");
        assert_eq!(located(&elsewhere, asked(), &facts()), "http://new.example/a");
        assert_eq!(located(&NOTHING, asked(), &facts()), "http://other.example/a");
        let nameless = || read("GET /a HTTP/1.0\r\n\r\n");
        assert_eq!(located(&NOTHING, nameless(), &facts()), "http://198.51.100.1/a");
        let six = Facts { destination: (Address { high: 0x2001_0db8 << 32, low: 1 }, 8080), ..facts() };
        assert_eq!(located(&NOTHING, nameless(), &six), "http://[2001:db8::1]:8080/a");
    }

    #[test]
    fn the_answer_has_a_status_and_no_body() {
        let redirect = Redirect { scheme: Some(Https), status: 308, ..NOTHING };
        let (mut asked, filter) = (request("GET", "h", "/", ""), Filter::Redirect(redirect));
        let (head, _) = answer_of(&filter, &mut asked, &facts()).expect("an answer");
        assert_eq!(head, "HTTP/1.1 308 Permanent Redirect|Location: https://h/|Content-Length: 0||");
    }

    #[test]
    fn an_empty_body_takes_no_memory() {
        assert!(Arc::ptr_eq(&Arc::<[u8]>::default(), &Arc::default()));
    }
}
