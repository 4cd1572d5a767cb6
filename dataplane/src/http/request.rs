//! A request's head: read, checked, changed by filters.

use httparse::{Error, Status};

use super::connection::Hop;
use super::fields::{EditError, Fields, Span};
use super::framing::{Framing, Lengths};
use super::grammar::list;
use super::head::{Method, Scheme, Version};
use super::limits::HttpLimits;
use super::names::Name;
use super::path::normalise;
use super::refusal::Fault;
use super::target::{Authority, Target};

/// The head of a request in its validated form, in one reused buffer.
///
/// What ends at this hop is not among its fields, nor is Host: methods of this type say it, and the serialiser writes
/// what the next hop needs.
#[derive(Debug)]
pub struct Request {
    /// All other fields, in order.
    pub fields: Fields,
    limits: HttpLimits,
    line: Line,
    host: Host,
    /// The authority before any filter changed it.
    received: Span,
    framing: Framing,
    hop: Hop,
    expects_continue: bool,
}

/// What the first line says.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    method: Method,
    name: Span,
    version: Version,
    target: Target,
}

#[derive(Debug, Clone, Copy, Default)]
struct Host {
    authority: Span,
    parts: Authority,
}

impl Request {
    /// An empty head. Takes all memory that it will ever need now: about 60 KiB of address space with the default
    /// limits, of which a usual head touches a page.
    pub fn new(limits: &HttpLimits) -> Self {
        Self {
            fields: Fields::for_head(limits),
            limits: *limits,
            line: Line::default(),
            host: Host::default(),
            received: Span::default(),
            framing: Framing::None,
            hop: Hop::default(),
            expects_continue: false,
        }
    }

    /// The limits it was made with.
    pub fn limits(&self) -> &HttpLimits {
        &self.limits
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.line.method
    }

    /// The method as it is written.
    pub fn method_name(&self) -> &[u8] {
        self.text(self.line.name)
    }

    /// The version of the client.
    pub fn version(&self) -> Version {
        self.line.version
    }

    /// The scheme of an absolute target; otherwise the connection decides.
    pub fn scheme(&self) -> Option<Scheme> {
        self.line.target.scheme
    }

    /// Host and port in lower case; empty only in HTTP/1.0.
    pub fn authority(&self) -> &[u8] {
        self.text(self.host.authority)
    }

    /// Host and port as the client asked for them, in lower case, whatever filters have changed since.
    pub fn received_authority(&self) -> &[u8] {
        self.text(self.received)
    }

    /// The host in lower case, an IPv6 address in brackets.
    pub fn host(&self) -> &[u8] {
        self.authority().get(..self.host.parts.host_len).unwrap_or_default()
    }

    /// The port that the client named.
    pub fn port(&self) -> Option<u16> {
        self.host.parts.port
    }

    /// The normalised path; `None` for `OPTIONS *` and CONNECT.
    pub fn path(&self) -> Option<&[u8]> {
        self.line.target.path.map(|span| self.text(span))
    }

    /// What follows `?`, as it came.
    pub fn query(&self) -> Option<&[u8]> {
        self.line.target.query.map(|span| self.text(span))
    }

    /// Where the body ends. [`Framing::None`] for CONNECT, which has none.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// True when the client keeps the connection after the response.
    pub fn keeps_alive(&self) -> bool {
        self.hop.persists(self.line.version)
    }

    /// True when the client waits for 100 before it sends the body. The field goes on to the member unless a filter
    /// removes it (RFC 9110 section 10.1.1).
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// True when the client reads trailers.
    pub fn accepts_trailers(&self) -> bool {
        self.hop.trailers
    }

    /// The protocol that the client asks to change to. Nothing more may be read before the member has answered 101.
    pub fn upgrade(&self) -> Option<&[u8]> {
        self.hop.upgrade.map(|span| self.text(span))
    }

    /// Bytes of the head as HTTP/2 counts them, after what filters changed.
    pub fn size(&self) -> usize {
        let line = [self.line.name, self.host.authority].into_iter().chain(self.line.target.path);
        self.fields.size() + line.chain(self.line.target.query).map(|span| span.len as usize).sum::<usize>()
    }

    fn text(&self, span: Span) -> &[u8] {
        span.of(&self.fields.bytes)
    }
}

/// What filters change beside fields.
impl Request {
    /// Makes this the host that the member sees: a host, or a host and a port.
    ///
    /// # Errors
    ///
    /// [`EditError::Invalid`] for anything else, [`EditError::Full`]; nothing is changed then.
    pub fn set_authority(&mut self, authority: &[u8]) -> Result<(), EditError> {
        let parts = Authority::read(authority).ok_or(EditError::Invalid)?;
        let at = self.fields.store(&[authority]).ok_or(EditError::Full)?;
        self.host = Host { authority: Span::new(at, authority.len()), parts };
        self.lower_authority();
        Ok(())
    }

    /// Makes this the path, after normalising it as a client's.
    ///
    /// # Errors
    ///
    /// [`EditError::Invalid`] when it is no path or the request has none, [`EditError::Full`].
    pub fn set_path(&mut self, path: &[u8]) -> Result<(), EditError> {
        self.replace_path_start(usize::MAX, path)
    }

    /// Replaces the first `len` bytes of the path, or all of a shorter one, and normalises the result as a client's.
    ///
    /// # Errors
    ///
    /// [`EditError::Invalid`] when the result is no path or the request has none, [`EditError::Full`].
    pub fn replace_path_start(&mut self, len: usize, with: &[u8]) -> Result<(), EditError> {
        let path = self.line.target.path.ok_or(EditError::Invalid)?;
        let span = self.fields.store_before(with, path.without_start(len)).ok_or(EditError::Full)?;
        let text = self.text(span);
        let visible = text.iter().all(|&byte| (b'!'..0x7f).contains(&byte) && byte != b'#' && byte != b'?');
        if !text.starts_with(b"/") || !visible {
            return Err(EditError::Invalid);
        }
        self.normalise_path(span).map_err(|fault| match fault {
            Fault::LineTooLong => EditError::Full,
            _ => EditError::Invalid,
        })
    }

    /// Makes this the query, or removes it.
    ///
    /// # Errors
    ///
    /// [`EditError::Invalid`] when it holds what a target may not, or the request has no path; [`EditError::Full`].
    pub fn set_query(&mut self, query: Option<&[u8]>) -> Result<(), EditError> {
        let text = query.unwrap_or_default();
        let visible = text.iter().all(|&byte| (b'!'..0x7f).contains(&byte) && byte != b'#');
        if !visible || self.line.target.path.is_none() {
            return Err(EditError::Invalid);
        }
        let at = self.fields.store(&[text]).ok_or(EditError::Full)?;
        self.line.target.query = query.map(|_| Span::new(at, text.len()));
        Ok(())
    }
}

/// Reading, in two steps: the first line when it has arrived, the rest when the fields have.
impl Request {
    pub(super) fn clear(&mut self) {
        self.fields.clear();
        self.line = Line::default();
        (self.host, self.received) = (Host::default(), Span::default());
    }

    /// Reads the request line, which begins the buffer and fills it.
    pub(super) fn read_line(&mut self) -> Result<(), Fault> {
        let line = self.fields.bytes.as_slice();
        let mut parser = httparse::Request::new(&mut []);
        match parser.parse(line) {
            Ok(Status::Partial) => {}
            Err(Error::Version) => return Err(version_fault(line)),
            _ => return Err(Fault::RequestLine),
        }
        let (Some(name), Some(target), Some(minor)) = (parser.method, parser.path, parser.version) else {
            return Err(Fault::RequestLine);
        };
        let (method, at) = (Method::of(name.as_bytes()), name.len() + 1);
        let target = Target::read(target.as_bytes(), method)?.moved(at);
        self.line =
            Line { method, name: Span::new(0, name.len()), version: Version::from_minor(minor), target };
        Ok(())
    }

    /// Reads what the fields say about the message, once all are there.
    pub(super) fn finish(&mut self) -> Result<(), Fault> {
        self.read_host()?;
        let lengths = Lengths::read(&self.fields, self.line.version)?;
        self.hop = Hop::take(&mut self.fields)?;
        self.framing = lengths.framing().unwrap_or_default();
        self.check_body()?;
        self.read_expect()?;
        self.read_path()
    }

    /// RFC 9112 section 3.2: exactly one in HTTP/1.1; the target's own host wins (section 3.2.2).
    fn read_host(&mut self) -> Result<(), Fault> {
        let (first, second) = self.fields.known_pair(Name::Host);
        let named = match (first, second) {
            (_, Some(_)) => return Err(Fault::HostTwice),
            (None, _) if self.line.version == Version::Http11 => return Err(Fault::HostMissing),
            (None, _) => None,
            (Some(host), _) => Some(Authority::read(host).ok_or(Fault::Host)?),
        };
        let span = self.fields.known_span(Name::Host).unwrap_or_default();
        self.host = Host { authority: span, parts: named.unwrap_or_default() };
        if let Some(authority) = self.line.target.authority {
            let parts = Authority::read(self.text(authority)).ok_or(Fault::Target)?;
            self.host = Host { authority, parts };
        }
        self.received = self.host.authority;
        self.lower_authority();
        Ok(())
    }

    fn lower_authority(&mut self) {
        let Span { at, len } = self.host.authority;
        let text = self.fields.bytes.get_mut(at as usize..(at + len) as usize);
        text.unwrap_or_default().make_ascii_lowercase();
    }

    fn check_body(&mut self) -> Result<(), Fault> {
        let has_body = !matches!(self.framing, Framing::None | Framing::Length(0));
        let bare = matches!(self.line.method, Method::Connect | Method::Trace);
        if self.line.version == Version::Http10 || bare {
            self.hop.upgrade = None;
        }
        match self.framing {
            _ if has_body && (bare || self.hop.upgrade.is_some()) => Err(Fault::BodyNotAllowed),
            Framing::Length(length) if length > self.limits.body => Err(Fault::BodyTooLarge),
            _ => {
                self.framing = if bare { Framing::None } else { self.framing };
                Ok(())
            }
        }
    }

    /// RFC 9110 section 10.1.1: one expectation is known, and HTTP/1.0 has none.
    fn read_expect(&mut self) -> Result<(), Fault> {
        let is_known = |one: &[u8]| one.eq_ignore_ascii_case(b"100-continue");
        let expectations = || self.fields.known(Name::Expect).flat_map(list);
        let any = self.line.version == Version::Http11 && expectations().next().is_some();
        if any && !expectations().all(is_known) {
            return Err(Fault::Expectation);
        }
        self.expects_continue = any && !matches!(self.framing, Framing::None | Framing::Length(0));
        if !self.expects_continue {
            self.fields.retain(|_, known| known != Name::Expect);
        }
        Ok(())
    }

    fn read_path(&mut self) -> Result<(), Fault> {
        let Some(path) = self.line.target.path else { return Ok(()) };
        if path.len > 0 {
            return self.normalise_path(path);
        }
        // RFC 9112 sections 3.2.1 and 3.2.4: an absolute target without a path means "/", or "*" with OPTIONS.
        let whole_server = self.line.method == Method::Options && self.line.target.query.is_none();
        let at = self.fields.store(&[b"/"]).ok_or(Fault::HeadTooLarge)?;
        self.line.target.path = (!whole_server).then_some(Span::new(at, 1));
        Ok(())
    }

    fn normalise_path(&mut self, path: Span) -> Result<(), Fault> {
        let (rules, len_max) = (self.limits.path, self.limits.line);
        self.line.target.path = Some(normalise(&mut self.fields.bytes, path, rules, len_max)?);
        Ok(())
    }
}

/// 505 when the line is one but for a well-formed version that is not ours (RFC 9110 section 15.6.6).
fn version_fault(line: &[u8]) -> Fault {
    let mut words = line.trim_ascii_end().rsplit(|&byte| byte == b' ');
    match (words.next(), words.count()) {
        (Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']), 2) => Fault::Version,
        _ => Fault::RequestLine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str, section: &str) -> Result<Request, Fault> {
        let mut request = Request::new(&HttpLimits::default());
        request.fields.store(&[line.as_bytes(), b"\r\n"]).expect("room");
        request.read_line()?;
        let start = request.fields.store(&[section.as_bytes(), b"\r\n"]).expect("room");
        request.fields.index(start, section.lines().count(), 32 << 10)?;
        request.finish().map(|()| request)
    }

    #[test]
    fn the_targets_host_wins_over_the_field() {
        let request = read("GET http://A.example:81/x HTTP/1.1", "Host: b.example\r\n").expect("a request");
        assert_eq!(request.authority(), b"a.example:81");
        assert_eq!((request.host(), request.port()), (&b"a.example"[..], Some(81)));
        assert_eq!(request.scheme(), Some(Scheme::Http));
        assert_eq!(request.path(), Some(&b"/x"[..]));
    }

    #[test]
    fn an_absolute_target_without_path_means_the_root_or_the_server() {
        assert_eq!(read("GET http://h HTTP/1.1", "Host: h\r\n").expect("a request").path(), Some(&b"/"[..]));
        let query = read("OPTIONS http://h?q HTTP/1.1", "Host: h\r\n").expect("a request");
        assert_eq!((query.path(), query.query()), (Some(&b"/"[..]), Some(&b"q"[..])));
        assert_eq!(read("OPTIONS http://h HTTP/1.1", "Host: h\r\n").expect("a request").path(), None);
    }

    #[test]
    fn filters_change_host_path_and_query_only_to_what_a_client_could_send() {
        let mut request = read("GET /a?b HTTP/1.1", "Host: h\r\n").expect("a request");
        request.set_authority(b"Other:8080").expect("a host");
        request.set_path(b"/x/../y z".split(|&b| b == b' ').next().expect("a part")).expect("a path");
        request.set_query(None).expect("no query");
        assert_eq!(request.authority(), b"other:8080");
        assert_eq!(request.received_authority(), b"h");
        assert_eq!((request.path(), request.query()), (Some(&b"/y"[..]), None));
        assert_eq!(request.set_authority(b"a b"), Err(EditError::Invalid));
        assert_eq!(request.set_path(b"/a b"), Err(EditError::Invalid));
        assert_eq!(request.set_path(b"/a?b"), Err(EditError::Invalid));
        assert_eq!(request.set_path(b"/%00"), Err(EditError::Invalid));
        assert_eq!(request.set_query(Some(b"a\r\n")), Err(EditError::Invalid));
        assert_eq!(request.path(), Some(&b"/y"[..]));
    }

    #[test]
    fn an_expectation_without_a_body_is_taken_off() {
        let with =
            |section: &str| read("POST / HTTP/1.1", &format!("Host: h\r\nExpect: 100-Continue\r\n{section}"));
        let waiting = with("Content-Length: 1\r\n").expect("a request");
        assert!(waiting.expects_continue() && waiting.fields.get(b"expect").is_some());
        let nothing = with("").expect("a request");
        assert!(!nothing.expects_continue() && nothing.fields.is_empty());
    }

    #[test]
    fn size_follows_what_filters_change() {
        let mut request = read("GET /abc?de HTTP/1.1", "Host: h\r\nx: y\r\n").expect("a request");
        assert_eq!(request.size(), 3 + 1 + 4 + 2 + 34);
        request.fields.add(b"a", b"b").expect("room");
        request.set_query(None).expect("a change");
        assert_eq!(request.size(), 3 + 1 + 4 + 34 + 34);
    }

    #[test]
    fn a_version_is_unknown_or_malformed() {
        for (version, fault) in [
            ("HTTP/2.0", Fault::Version),
            ("HTTP/1.2", Fault::Version),
            ("HTTP/0.9", Fault::Version),
            ("http/1.1", Fault::RequestLine),
            ("HTTP/1.10", Fault::RequestLine),
            ("HTTP/11", Fault::RequestLine),
        ] {
            assert_eq!(read(&format!("GET / {version}"), "").map(|_| ()), Err(fault), "{version}");
        }
    }
}
