//! Heads as they leave: written anew, with the fields of the next hop made here.
//!
//! Host comes first, then the fields in order, then what says how the connection goes on, then the length.

use super::fields::Fields;
use super::framing::Framing;
use super::head::Version;
use super::names::Name;
use super::request::Request;
use super::response::Response;

/// The buffer is too small for the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room for the head")]
pub struct NoRoom;

impl Request {
    /// Writes the head as the member gets it, always HTTP/1.1. `reuse` says whether the connection may stay for
    /// another request. Returns its bytes.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] when it does not fit, and what was written means nothing.
    pub fn write(&self, reuse: bool, out: &mut [u8]) -> Result<usize, NoRoom> {
        let mut out = Out::new(out);
        self.write_line(&mut out);
        out.field(b"Host", self.authority());
        let chunked = self.framing() == Framing::Chunked;
        out.fields(&self.fields, chunked);
        out.connection(self.upgrade(), reuse, self.accepts_trailers());
        match self.framing() {
            Framing::None if self.method().anticipates_body() => out.length(0),
            framing => out.framing(framing),
        }
        out.put(b"\r\n");
        out.written()
    }

    fn write_line(&self, out: &mut Out) {
        out.put(self.method_name());
        out.put(b" ");
        match self.path() {
            Some(path) => out.put(path),
            None if self.method() == super::Method::Connect => out.put(self.authority()),
            None => out.put(b"*"),
        }
        if let Some(query) = self.query() {
            out.put(b"?");
            out.put(query);
        }
        out.put(b" HTTP/1.1\r\n");
    }
}

impl Response {
    /// Writes the head as a client of this version gets it. `keep` says whether its connection stays open after this
    /// response; it does not where the body ends with it. Returns its bytes.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] when it does not fit, and what was written means nothing.
    pub fn write(&self, client: Version, keep: bool, out: &mut [u8]) -> Result<usize, NoRoom> {
        let mut out = Out::new(out);
        let framing = self.framing_for(client);
        out.put(b"HTTP/1.1 ");
        out.decimal(u64::from(self.status()));
        out.put(b" ");
        out.put(self.reason());
        out.put(b"\r\n");
        out.fields(&self.fields, framing == Framing::Chunked);
        if !self.is_interim() && framing != Framing::Tunnel || self.status() == 101 {
            let stays = keep && framing != Framing::UntilClose || framing == Framing::Tunnel;
            out.connection(self.upgrade(), stays, false);
            out.keep_alive(client == Version::Http10 && stays && self.upgrade().is_none());
        }
        self.write_length(framing, &mut out);
        out.put(b"\r\n");
        out.written()
    }

    /// RFC 9110 section 8.6: neither 1xx nor 204 has a length; HEAD and 304 have the one that GET would have.
    fn write_length(&self, framing: Framing, out: &mut Out) {
        match (self.status(), self.content_length()) {
            (100..=199 | 204, _) => {}
            (_, Some(length)) => out.length(length),
            _ => out.framing(framing),
        }
    }
}

/// A buffer that is written from its start, and knows when it was too small.
pub(super) struct Out<'a> {
    buffer: &'a mut [u8],
    len: usize,
    fits: bool,
}

impl<'a> Out<'a> {
    pub(super) fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0, fits: true }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        match self.buffer.get_mut(self.len..self.len + bytes.len()) {
            Some(room) if self.fits => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            _ => self.fits = false,
        }
    }

    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) {
        self.put(name);
        self.put(b": ");
        self.put(value);
        self.put(b"\r\n");
    }

    pub(super) fn written(self) -> Result<usize, NoRoom> {
        if self.fits { Ok(self.len) } else { Err(NoRoom) }
    }

    /// All fields; Trailer only where there may be trailers.
    fn fields(&mut self, fields: &Fields, chunked: bool) {
        for (name, value, known) in fields.iter_known() {
            if known != Name::Trailer || chunked {
                self.field(name, value);
            }
        }
    }

    fn connection(&mut self, upgrade: Option<&[u8]>, stays: bool, trailers: bool) {
        if let Some(protocol) = upgrade {
            self.field(b"Connection", b"Upgrade");
            return self.field(b"Upgrade", protocol);
        }
        if trailers {
            self.field(b"TE", b"trailers");
        }
        match (stays, trailers) {
            (true, true) => self.field(b"Connection", b"TE"),
            (false, true) => self.field(b"Connection", b"close, TE"),
            (false, false) => self.field(b"Connection", b"close"),
            (true, false) => {}
        }
    }

    fn keep_alive(&mut self, said: bool) {
        if said {
            self.field(b"Connection", b"keep-alive");
        }
    }

    fn framing(&mut self, framing: Framing) {
        match framing {
            Framing::Length(length) => self.length(length),
            Framing::Chunked => self.field(b"Transfer-Encoding", b"chunked"),
            Framing::None | Framing::UntilClose | Framing::Tunnel => {}
        }
    }

    fn length(&mut self, length: u64) {
        self.put(b"Content-Length: ");
        self.decimal(length);
        self.put(b"\r\n");
    }

    fn decimal(&mut self, mut value: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        while at == digits.len() || value > 0 {
            at -= 1;
            digits[at] = b'0' + (value % 10) as u8;
            value /= 10;
        }
        self.put(&digits[at..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::limits::HttpLimits;

    fn page(status: u16, client: Version, keep: bool) -> String {
        let mut response = Response::new(&HttpLimits::default());
        response.begin(status);
        response.fields.add(b"X-Reason", b"no-member").expect("room");
        let mut out = [0; 200];
        let len = response.write(client, keep, &mut out).expect("room");
        out[..len].escape_ascii().to_string()
    }

    #[test]
    fn a_page_of_our_own_says_whether_the_connection_stays() {
        let start = r"HTTP/1.1 503 Service Unavailable\r\nX-Reason: no-member\r\n";
        let end = r"Content-Length: 0\r\n\r\n";
        assert_eq!(page(503, Version::Http11, true), format!("{start}{end}"));
        assert_eq!(page(503, Version::Http11, false), format!(r"{start}Connection: close\r\n{end}"));
        assert_eq!(page(503, Version::Http10, true), format!(r"{start}Connection: keep-alive\r\n{end}"));
    }

    #[test]
    fn no_content_has_no_length() {
        assert_eq!(
            page(204, Version::Http11, true),
            r"HTTP/1.1 204 No Content\r\nX-Reason: no-member\r\n\r\n"
        );
    }

    #[test]
    fn a_buffer_one_byte_too_small_is_told() {
        let mut response = Response::new(&HttpLimits::default());
        response.begin(200);
        let len = response.write(Version::Http11, true, &mut [0; 200]).expect("room");
        assert_eq!(response.write(Version::Http11, true, &mut vec![0; len]), Ok(len));
        for room in 0..len {
            assert_eq!(response.write(Version::Http11, true, &mut vec![0; room]), Err(NoRoom));
        }
    }

    #[test]
    fn numbers_have_no_leading_zeros() {
        for value in [0, 7, 10, u64::MAX] {
            let mut buffer = [0; 20];
            let mut out = Out::new(&mut buffer);
            out.decimal(value);
            let len = out.written().expect("room");
            assert_eq!(str::from_utf8(&buffer[..len]), Ok(value.to_string().as_str()));
        }
    }
}
