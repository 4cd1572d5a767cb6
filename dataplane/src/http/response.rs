//! A response's head: read and checked, or begun here; changed by filters.

use httparse::Status;

use super::connection::Hop;
use super::fields::{Fields, Span};
use super::framing::{Framing, Lengths};
use super::head::{Method, Version};
use super::limits::HttpLimits;
use super::names::Name;
use super::refusal::Fault;

/// What must be known of a request to read its response (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// HEAD and CONNECT change where a response ends.
    pub method: Method,
    /// The request asked to change the protocol, so 101 may come.
    pub upgrade: bool,
}

/// The head of a response in its validated form, in one reused buffer.
#[derive(Debug)]
pub struct Response {
    /// All fields but those that end at this hop or say the length.
    pub fields: Fields,
    limits: HttpLimits,
    status: u16,
    reason: Span,
    version: Version,
    framing: Framing,
    /// Sent although no body follows: of HEAD, and of 304.
    content_length: Option<u64>,
    hop: Hop,
}

impl Response {
    /// An empty head. Takes all memory that it will ever need now, as [`super::Request::new`].
    pub fn new(limits: &HttpLimits) -> Self {
        Self {
            fields: Fields::for_head(limits),
            limits: *limits,
            status: 500,
            reason: Span::default(),
            version: Version::Http11,
            framing: Framing::None,
            content_length: None,
            hop: Hop::default(),
        }
    }

    /// Begins a response of our own: no fields, no body.
    pub fn begin(&mut self, status: u16) {
        self.clear();
        self.status = status.clamp(100, 599);
        let at = self.fields.store(&[reason(self.status).as_bytes()]).unwrap_or(0);
        self.reason = Span::new(at, self.fields.bytes.len() - at);
        self.framing = Framing::Length(0);
    }

    /// Says how long the body of a response of our own is.
    pub fn set_framing(&mut self, framing: Framing) {
        self.framing = framing;
    }

    /// The limits it was made with.
    pub fn limits(&self) -> &HttpLimits {
        &self.limits
    }

    /// The status, 100 to 599.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// What the status line says after the status.
    pub fn reason(&self) -> &[u8] {
        self.reason.of(&self.fields.bytes)
    }

    /// The version of the member.
    pub fn version(&self) -> Version {
        self.version
    }

    /// True for 1xx but 101: the final response is still to come. Not for a client of HTTP/1.0 (RFC 9110 section 15.2).
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// Where the body ends as the member sends it.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Where the body is to end as a client of this version gets it: what has no length is chunked, or for HTTP/1.0
    /// ends with the connection.
    pub fn framing_for(&self, client: Version) -> Framing {
        match (self.framing, client) {
            (Framing::Chunked | Framing::UntilClose, Version::Http11) => Framing::Chunked,
            (Framing::Chunked | Framing::UntilClose, Version::Http10) => Framing::UntilClose,
            (framing, _) => framing,
        }
    }

    /// The length that a response without body names: what GET would have got.
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// True when the member keeps the connection after this response, so that another request may be sent on it.
    pub fn keeps_alive(&self) -> bool {
        let bounded = !matches!(self.framing, Framing::UntilClose | Framing::Tunnel);
        bounded && self.hop.persists(self.version)
    }

    /// The protocol that 101 changes to, or that 426 asks for.
    pub fn upgrade(&self) -> Option<&[u8]> {
        let meant = matches!(self.status, 101 | 426);
        self.hop.upgrade.filter(|_| meant).map(|span| span.of(&self.fields.bytes))
    }

    pub(super) fn clear(&mut self) {
        self.fields.clear();
        (self.hop, self.version, self.content_length) = (Hop::default(), Version::Http11, None);
    }

    /// Reads the status line, which begins the buffer and fills it (RFC 9112 section 4).
    pub(super) fn read_line(&mut self) -> Result<(), Fault> {
        let line = self.fields.bytes.as_slice();
        let mut parser = httparse::Response::new(&mut []);
        if !matches!(parser.parse(line), Ok(Status::Partial)) {
            return Err(Fault::StatusLine);
        }
        let (Some(code), Some(minor)) = (parser.code, parser.version) else { return Err(Fault::StatusLine) };
        if !(100..600).contains(&code) {
            return Err(Fault::StatusLine);
        }
        let len = parser.reason.map_or(0, str::len);
        (self.status, self.version) = (code, Version::from_minor(minor));
        self.reason = Span::new(REASON_AT.min(line.len()), len);
        Ok(())
    }

    /// Reads what the fields say about the message, once all are there.
    pub(super) fn finish(&mut self, asked: Asked) -> Result<(), Fault> {
        let lengths = Lengths::read(&self.fields, self.version)?;
        self.hop = Hop::take(&mut self.fields)?;
        self.fields.retain(|_, known| known != Name::Expect);
        self.framing = self.end_of_body(asked, lengths)?;
        let names_length = asked.method == Method::Head || self.status == 304;
        self.content_length =
            lengths.content_length.filter(|_| names_length && self.framing == Framing::None);
        Ok(())
    }

    /// RFC 9112 section 6.3, in its order.
    fn end_of_body(&self, asked: Asked, lengths: Lengths) -> Result<Framing, Fault> {
        let tunnel = asked.method == Method::Connect && (200..300).contains(&self.status);
        match self.status {
            101 if asked.upgrade && self.hop.upgrade.is_some() && !lengths.chunked => Ok(Framing::Tunnel),
            101 => Err(Fault::SwitchUnasked),
            _ if tunnel => Ok(Framing::Tunnel),
            100..=199 | 204 if lengths.chunked => Err(Fault::TransferEncodingMisplaced),
            100..=199 | 204 | 304 => Ok(Framing::None),
            _ if asked.method == Method::Head => Ok(Framing::None),
            _ => Ok(lengths.framing().unwrap_or(Framing::UntilClose)),
        }
    }
}

/// Where the reason begins: after `HTTP/1.1 200 `.
const REASON_AT: usize = 13;

/// The usual words for a status (RFC 9110 section 15, RFC 6585); none for one that has none.
fn reason(status: u16) -> &'static str {
    let known = REASONS.binary_search_by_key(&status, |(status, _)| *status);
    known.map_or("", |index| REASONS[index].1)
}

static REASONS: &[(u16, &str)] = &[
    (100, "Continue"),
    (101, "Switching Protocols"),
    (103, "Early Hints"),
    (200, "OK"),
    (201, "Created"),
    (202, "Accepted"),
    (203, "Non-Authoritative Information"),
    (204, "No Content"),
    (205, "Reset Content"),
    (206, "Partial Content"),
    (300, "Multiple Choices"),
    (301, "Moved Permanently"),
    (302, "Found"),
    (303, "See Other"),
    (304, "Not Modified"),
    (307, "Temporary Redirect"),
    (308, "Permanent Redirect"),
    (400, "Bad Request"),
    (401, "Unauthorized"),
    (402, "Payment Required"),
    (403, "Forbidden"),
    (404, "Not Found"),
    (405, "Method Not Allowed"),
    (406, "Not Acceptable"),
    (407, "Proxy Authentication Required"),
    (408, "Request Timeout"),
    (409, "Conflict"),
    (410, "Gone"),
    (411, "Length Required"),
    (412, "Precondition Failed"),
    (413, "Content Too Large"),
    (414, "URI Too Long"),
    (415, "Unsupported Media Type"),
    (416, "Range Not Satisfiable"),
    (417, "Expectation Failed"),
    (421, "Misdirected Request"),
    (422, "Unprocessable Content"),
    (425, "Too Early"),
    (426, "Upgrade Required"),
    (428, "Precondition Required"),
    (429, "Too Many Requests"),
    (431, "Request Header Fields Too Large"),
    (451, "Unavailable For Legal Reasons"),
    (500, "Internal Server Error"),
    (501, "Not Implemented"),
    (502, "Bad Gateway"),
    (503, "Service Unavailable"),
    (504, "Gateway Timeout"),
    (505, "HTTP Version Not Supported"),
    (507, "Insufficient Storage"),
    (511, "Network Authentication Required"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::refusal::Refusal;

    fn read(line: &str, section: &str, asked: Asked) -> Result<Response, Fault> {
        let mut response = Response::new(&HttpLimits::default());
        response.fields.store(&[line.as_bytes(), b"\r\n"]).expect("room");
        response.read_line()?;
        let start = response.fields.store(&[section.as_bytes(), b"\r\n"]).expect("room");
        response.fields.index(start, section.lines().count(), 32 << 10)?;
        response.finish(asked).map(|()| response)
    }

    fn framing(status: u16, section: &str, method: Method) -> Result<Framing, Fault> {
        let asked = Asked { method, upgrade: false };
        read(&format!("HTTP/1.1 {status} x"), section, asked).map(|response| response.framing())
    }

    #[test]
    fn the_request_and_the_status_decide_before_the_fields_do() {
        let length = "Content-Length: 5\r\n";
        for (status, method, expected) in [
            (200, Method::Get, Framing::Length(5)),
            (200, Method::Head, Framing::None),
            (204, Method::Get, Framing::None),
            (304, Method::Get, Framing::None),
            (100, Method::Get, Framing::None),
            (200, Method::Connect, Framing::Tunnel),
            (407, Method::Connect, Framing::Length(5)),
        ] {
            assert_eq!(framing(status, length, method), Ok(expected), "{status} {method:?}");
        }
        assert_eq!(framing(200, "", Method::Get), Ok(Framing::UntilClose));
        let chunked = "Transfer-Encoding: chunked\r\n";
        assert_eq!(framing(204, chunked, Method::Get), Err(Fault::TransferEncodingMisplaced));
    }

    #[test]
    fn a_switch_needs_to_be_asked_for_and_named() {
        let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
        let switch = |section, asked| {
            let asked = Asked { upgrade: asked, ..Asked::default() };
            read("HTTP/1.1 101 x", section, asked).map(|response| response.framing())
        };
        assert_eq!(switch(upgrade, true), Ok(Framing::Tunnel));
        assert_eq!(switch(upgrade, false), Err(Fault::SwitchUnasked));
        assert_eq!(switch("", true), Err(Fault::SwitchUnasked));
    }

    #[test]
    fn a_client_gets_what_it_can_read() {
        let response = read("HTTP/1.0 200 OK", "", Asked::default()).expect("a response");
        assert!(!response.keeps_alive());
        assert_eq!(response.framing_for(Version::Http11), Framing::Chunked);
        assert_eq!(response.framing_for(Version::Http10), Framing::UntilClose);
    }

    #[test]
    fn every_fault_is_answered_with_a_reason() {
        for fault in Fault::ALL {
            assert_ne!(reason(Refusal::request(*fault).status), "", "{fault:?}");
        }
    }

    #[test]
    fn every_status_with_a_reason_is_found() {
        assert!(REASONS.iter().all(|(status, words)| reason(*status) == *words));
        assert_eq!(reason(299), "");
    }
}
