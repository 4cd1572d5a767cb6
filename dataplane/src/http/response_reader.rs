//! The responses of one connection to a member, where one request is under way at a time.

use super::body::Body;
use super::fields::Fields;
use super::reader::{CRLF, Event, Progress, Stage, read_body, read_section};
use super::refusal::{Fault, Refusal};
use super::response::{Asked, Response};
use super::section::{Lines, Section, SectionLimits};

/// Reads responses. Small: the head is the caller's, and only needed while a message is under way.
#[derive(Debug)]
pub struct ResponseReader {
    stage: Stage,
    /// The request whose response has not begun, or is being read.
    asked: Option<Asked>,
    /// A byte of the response has come.
    begun: bool,
}

impl Default for ResponseReader {
    fn default() -> Self {
        Self { stage: Stage::Idle, asked: None, begun: false }
    }
}

impl ResponseReader {
    /// A request is being sent: its response is the next message.
    pub fn ask(&mut self, asked: Asked) {
        *self = Self { asked: Some(asked), ..Self::default() };
    }

    /// True when no response is expected: any byte is a fault.
    pub fn is_idle(&self) -> bool {
        self.asked.is_none()
    }

    /// True when a byte of the response has come; before that the request may be sent to another member.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// As [`super::RequestReader::advance`]. After the head of an interim response ([`Response::is_interim`]) the
    /// next head follows, into the same `response`. After a head whose framing is a tunnel all is body.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] with 502; the connection to the member must end. [`Fault::Unasked`] when no request is under way:
    /// then there is nobody to tell.
    pub fn advance(
        &mut self,
        input: &[u8],
        response: &mut Response,
        trailers: &mut Fields,
    ) -> Result<Progress, Refusal> {
        self.step(input, response, trailers).map_err(Refusal::response)
    }

    /// Counts up to `most` bytes that are next as body, where a body is nothing but its bytes; returns how many are.
    /// 0 when something else comes, of which [`ResponseReader::advance`] tells.
    ///
    /// # Errors
    ///
    /// As [`ResponseReader::advance`].
    pub fn take_plain(&mut self, most: usize) -> Result<usize, Refusal> {
        match &mut self.stage {
            Stage::Body(body) => body.take_plain(most).map_err(Refusal::response),
            _ => Ok(0),
        }
    }

    /// The connection ended: [`Event::End`] when the body ends with it, [`Event::More`] when nothing was expected.
    ///
    /// # Errors
    ///
    /// [`Fault::Truncated`] when more was to come, be it the whole response.
    pub fn end(&mut self) -> Result<Event, Refusal> {
        let ended = match (self.asked, self.stage) {
            (None, _) => return Ok(Event::More),
            (Some(_), Stage::Idle) => Err(Fault::Truncated),
            (Some(_), stage) => stage.end(),
        };
        ended.map_err(Refusal::response)?;
        (self.stage, self.asked) = (Stage::Idle, None);
        Ok(Event::End)
    }

    fn step(
        &mut self,
        input: &[u8],
        response: &mut Response,
        trailers: &mut Fields,
    ) -> Result<Progress, Fault> {
        self.begun |= !input.is_empty();
        match (self.asked, self.stage) {
            (_, Stage::Idle | Stage::Held) if input.is_empty() => Ok(Progress::WAIT),
            (None, _) => Err(Fault::Unasked),
            (Some(_), Stage::Idle | Stage::Held) => {
                response.clear();
                self.line(Lines::default(), input, response)
            }
            (Some(_), Stage::Line(lines)) => self.line(lines, input, response),
            (Some(asked), Stage::Fields(section)) => self.fields(section, asked, input, response),
            (Some(_), Stage::Body(body)) => self.body(body, input, trailers),
        }
    }

    fn line(&mut self, mut lines: Lines, input: &[u8], response: &mut Response) -> Result<Progress, Fault> {
        let room = (response.limits().line + CRLF).saturating_sub(response.fields.bytes.len());
        let line = lines.next(input, room, Fault::LineTooLong)?;
        let taken = line.map_or(input.len(), |line| line.taken);
        response.fields.store(&[&input[..taken]]).ok_or(Fault::LineTooLong)?;
        self.stage = Stage::Line(lines);
        if line.is_none() {
            return Ok(Progress::new(taken, Event::More));
        }
        response.read_line()?;
        self.stage = Stage::Fields(Section::after(&response.fields));
        Ok(Progress::new(taken, Event::More))
    }

    fn fields(
        &mut self,
        mut section: Section,
        asked: Asked,
        input: &[u8],
        response: &mut Response,
    ) -> Result<Progress, Fault> {
        let limits = SectionLimits { bytes: response.limits().head, fields: response.limits().fields };
        let (progress, complete) = read_section(&mut section, input, &mut response.fields, limits)?;
        self.stage = Stage::Fields(section);
        if complete {
            response.finish(asked)?;
            let body = Body::new(response.framing(), response.limits().body);
            self.stage = if response.is_interim() { Stage::Idle } else { Stage::Body(body) };
        }
        Ok(progress)
    }

    fn body(&mut self, mut body: Body, input: &[u8], trailers: &mut Fields) -> Result<Progress, Fault> {
        let (progress, ended) = read_body(&mut body, input, trailers)?;
        self.stage = Stage::Body(body);
        if ended {
            (self.stage, self.asked) = (Stage::Idle, None);
        }
        Ok(progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::limits::HttpLimits;

    struct Member {
        reader: ResponseReader,
        response: Response,
        trailers: Fields,
    }

    impl Member {
        fn asked() -> Self {
            let limits = HttpLimits::default();
            let (response, trailers) = (Response::new(&limits), Fields::for_trailers(&limits));
            let mut reader = ResponseReader::default();
            reader.ask(Asked::default());
            Self { reader, response, trailers }
        }

        /// Everything that the input leads to, heads with their status.
        fn read(&mut self, mut input: &[u8]) -> Result<Vec<String>, Fault> {
            let mut events = Vec::new();
            loop {
                let progress = self.reader.advance(input, &mut self.response, &mut self.trailers);
                let progress = progress.map_err(|refusal| refusal.fault)?;
                let waits = progress == Progress::WAIT;
                input = &input[progress.taken..];
                match progress.event {
                    Event::More if waits => return Ok(events),
                    Event::More => {}
                    Event::Head => events.push(self.response.status().to_string()),
                    event => events.push(format!("{event:?}")),
                }
            }
        }
    }

    #[test]
    fn interim_responses_come_before_the_final_one() {
        let mut member = Member::asked();
        let all = b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 103 E\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na";
        assert_eq!(
            member.read(all),
            Ok(["100", "103", "200", "Body(0..1)", "End"].map(str::to_owned).to_vec())
        );
        assert!(member.reader.is_idle());
        assert_eq!(member.reader.end(), Ok(Event::More));
    }

    #[test]
    fn bytes_that_nobody_asked_for_are_a_fault() {
        let mut member = Member::asked();
        let response = b"HTTP/1.1 204 N\r\n\r\n";
        member.read(response).expect("a response");
        assert_eq!(member.read(response), Err(Fault::Unasked));
        let mut member = Member::asked();
        assert_eq!(member.read(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab"), Err(Fault::Unasked));
    }

    #[test]
    fn the_connections_end_ends_only_an_open_body() {
        let mut member = Member::asked();
        assert_eq!(member.reader.end(), Err(Refusal::response(Fault::Truncated)), "no byte came");
        assert!(!member.reader.has_begun());
        member.read(b"HTTP/1.1 200 OK\r\n\r\nabc").expect("a response");
        assert!(member.reader.has_begun());
        assert_eq!(member.reader.end(), Ok(Event::End));
        let mut member = Member::asked();
        member.read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc").expect("a response");
        assert_eq!(member.reader.end(), Err(Refusal::response(Fault::Truncated)));
    }
}
