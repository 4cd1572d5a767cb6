//! The requests of one client connection.

use super::body::Body;
use super::fields::Fields;
use super::framing::Framing;
use super::grammar::is_tchar;
use super::head::Method;
use super::reader::{CRLF, Event, Progress, Stage, read_body, read_section};
use super::refusal::{Fault, Refusal};
use super::request::Request;
use super::section::{Lines, Section, SectionLimits};

/// Reads requests. Small: the head is the caller's, and only needed while a message is under way.
#[derive(Debug)]
pub struct RequestReader {
    stage: Stage,
    /// An empty line was let pass (RFC 9112 section 2.2).
    skipped: bool,
}

impl Default for RequestReader {
    fn default() -> Self {
        Self { stage: Stage::Idle, skipped: false }
    }
}

impl RequestReader {
    /// True between messages: no head is needed, and the connection may end.
    pub fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }

    /// True after a request for CONNECT or Upgrade: nothing is taken until [`RequestReader::tunnel`] or
    /// [`RequestReader::resume`], so no byte can be read as a request that the member reads as something else.
    pub fn is_held(&self) -> bool {
        matches!(self.stage, Stage::Held)
    }

    /// The member agreed: all bytes from now on are body.
    pub fn tunnel(&mut self) {
        self.stage = Stage::Body(Body::new(Framing::Tunnel, u64::MAX));
    }

    /// The member did not agree: what follows is another request.
    pub fn resume(&mut self) {
        self.stage = Stage::Idle;
    }

    /// As [`super::ResponseReader::take_plain`].
    ///
    /// # Errors
    ///
    /// As [`RequestReader::advance`].
    pub fn take_plain(&mut self, most: usize) -> Result<usize, Refusal> {
        match &mut self.stage {
            Stage::Body(body) => body.take_plain(most).map_err(Refusal::request),
            _ => Ok(0),
        }
    }

    /// Takes some of the input; to be called again with the rest until it takes nothing and says [`Event::More`].
    /// After [`Event::End`] the next call begins another message in the same `request`. O(bytes taken); copies only
    /// heads.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] with the status to answer; after it nothing more may be read.
    pub fn advance(
        &mut self,
        input: &[u8],
        request: &mut Request,
        trailers: &mut Fields,
    ) -> Result<Progress, Refusal> {
        self.step(input, request, trailers).map_err(Refusal::request)
    }

    /// The connection ended.
    ///
    /// # Errors
    ///
    /// [`Fault::Truncated`] when it ended within a message.
    pub fn end(&self) -> Result<(), Refusal> {
        self.stage.end().map_err(Refusal::request)
    }

    fn step(
        &mut self,
        input: &[u8],
        request: &mut Request,
        trailers: &mut Fields,
    ) -> Result<Progress, Fault> {
        match self.stage {
            Stage::Held => Ok(Progress::WAIT),
            Stage::Idle if input.is_empty() => Ok(Progress::WAIT),
            Stage::Idle => {
                request.clear();
                self.skipped = false;
                begins_a_line(input[0])?;
                self.line(Lines::default(), input, request)
            }
            Stage::Line(lines) => self.line(lines, input, request),
            Stage::Fields(section) => self.fields(section, input, request),
            Stage::Body(body) => self.body(body, input, request, trailers),
        }
    }

    fn line(&mut self, mut lines: Lines, input: &[u8], request: &mut Request) -> Result<Progress, Fault> {
        let room = (request.limits().line + CRLF).saturating_sub(request.fields.bytes.len());
        let line = lines.next(input, room, Fault::LineTooLong)?;
        let taken = line.map_or(input.len(), |line| line.taken);
        request.fields.store(&[&input[..taken]]).ok_or(Fault::LineTooLong)?;
        self.stage = Stage::Line(lines);
        if line.is_none() {
            return Ok(Progress::new(taken, Event::More));
        }
        if request.fields.bytes.len() == CRLF {
            self.skip(request)?;
        } else {
            request.read_line()?;
            self.stage = Stage::Fields(Section::after(&request.fields));
        }
        Ok(Progress::new(taken, Event::More))
    }

    /// Lets one empty line pass before a request (RFC 9112 section 2.2).
    fn skip(&mut self, request: &mut Request) -> Result<(), Fault> {
        if self.skipped {
            return Err(Fault::EmptyLine);
        }
        request.clear();
        (self.skipped, self.stage) = (true, Stage::Line(Lines::default()));
        Ok(())
    }

    fn fields(
        &mut self,
        mut section: Section,
        input: &[u8],
        request: &mut Request,
    ) -> Result<Progress, Fault> {
        let limits = SectionLimits { bytes: request.limits().head, fields: request.limits().fields };
        let (progress, complete) = read_section(&mut section, input, &mut request.fields, limits)?;
        self.stage = Stage::Fields(section);
        if complete {
            request.finish()?;
            self.stage = Stage::Body(Body::new(request.framing(), request.limits().body));
        }
        Ok(progress)
    }

    fn body(
        &mut self,
        mut body: Body,
        input: &[u8],
        request: &Request,
        trailers: &mut Fields,
    ) -> Result<Progress, Fault> {
        let (progress, ended) = read_body(&mut body, input, trailers)?;
        let changes = request.upgrade().is_some() || request.method() == Method::Connect;
        self.stage = match ended {
            false => Stage::Body(body),
            true if changes => Stage::Held,
            true => Stage::Idle,
        };
        Ok(progress)
    }
}

/// Another protocol, TLS above all, may never send the end of a line: it is told at its first byte.
fn begins_a_line(byte: u8) -> Result<(), Fault> {
    if is_tchar(byte) || matches!(byte, b'\r' | b'\n' | b' ') { Ok(()) } else { Err(Fault::RequestLine) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::limits::HttpLimits;

    struct Client {
        reader: RequestReader,
        request: Request,
        trailers: Fields,
    }

    impl Client {
        fn new() -> Self {
            let limits = HttpLimits::default();
            let (request, trailers) = (Request::new(&limits), Fields::for_trailers(&limits));
            Self { reader: RequestReader::default(), request, trailers }
        }

        /// Everything that the input leads to, and what is left of it.
        fn read<'a>(&mut self, mut input: &'a [u8]) -> (Vec<Event>, &'a [u8]) {
            let mut events = Vec::new();
            loop {
                let progress =
                    self.reader.advance(input, &mut self.request, &mut self.trailers).expect("a request");
                let waits = progress == Progress::WAIT;
                input = &input[progress.taken..];
                match progress.event {
                    Event::More if waits => return (events, input),
                    Event::More => {}
                    event => events.push(event),
                }
            }
        }
    }

    #[test]
    fn pipelined_requests_come_one_after_the_other() {
        let mut client = Client::new();
        let two =
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nabGET / HTTP/1.1\r\nHost: h\r\n\r\n";
        let (events, rest) = client.read(two);
        assert_eq!(events, [Event::Head, Event::Body(0..2), Event::End, Event::Head, Event::End]);
        assert!(rest.is_empty() && client.reader.is_idle());
        assert_eq!(client.reader.end(), Ok(()));
    }

    #[test]
    fn nothing_after_an_upgrade_is_read_until_the_answer() {
        let mut client = Client::new();
        let upgrade =
            b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nGET /smuggled";
        let (events, rest) = client.read(upgrade);
        assert_eq!((events, rest), (vec![Event::Head, Event::End], &b"GET /smuggled"[..]));
        assert!(client.reader.is_held());
        client.reader.tunnel();
        assert_eq!(client.read(rest), (vec![Event::Body(0..13)], &b""[..]));
    }

    #[test]
    fn a_declined_connect_leaves_a_usual_connection() {
        let mut client = Client::new();
        let (_, rest) =
            client.read(b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(client.reader.is_held() && rest.starts_with(b"GET"));
        client.reader.resume();
        assert_eq!(client.read(rest).0, [Event::Head, Event::End]);
    }

    #[test]
    fn the_end_of_the_connection_is_a_fault_only_within_a_message() {
        let mut client = Client::new();
        assert_eq!(client.reader.end(), Ok(()));
        client.read(b"GET / HTTP/1.1\r\nHo");
        assert_eq!(client.reader.end(), Err(Refusal::request(Fault::Truncated)));
    }
}
