//! A body as it arrives: which bytes of the input are its own, and where it ends.

use std::ops::Range;

use super::chunked::{Chunked, Part};
use super::fields::Fields;
use super::framing::Framing;
use super::refusal::Fault;

/// What a piece of input held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Bytes that are done with. `body.end <= taken <= input.len()`.
    pub taken: usize,
    /// The part of the input that is body. Empty when only framing was taken.
    pub body: Range<usize>,
    /// The message is complete, and what follows `taken` is not part of it.
    pub done: bool,
}

impl Step {
    fn framing(taken: usize, done: bool) -> Self {
        Self { taken, body: taken..taken, done }
    }

    fn body(len: usize, done: bool) -> Self {
        Self { taken: len, body: 0..len, done }
    }
}

/// Reads one body. Copies nothing.
#[derive(Debug, Clone, Copy)]
pub struct Body {
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Length(u64),
    Chunked(Chunked),
    /// Until the connection ends; `left` more at most, of a body that is limited.
    Open {
        left: u64,
    },
}

impl Body {
    /// A body with this end and of `max` bytes at most; a tunnel's bytes are not counted.
    pub fn new(framing: Framing, max: u64) -> Self {
        let state = match framing {
            Framing::None => State::Length(0),
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked(Chunked::new(max)),
            Framing::UntilClose => State::Open { left: max },
            Framing::Tunnel => State::Open { left: u64::MAX },
        };
        Self { state }
    }

    /// Takes some of the input; to be called until it is done or has taken all. With no input it says whether
    /// nothing is to come. Trailers go into `trailers`, whole when it is done. O(framing).
    ///
    /// # Errors
    ///
    /// What is wrong with the chunks or trailers, or [`Fault::BodyTooLarge`].
    pub fn decode(&mut self, input: &[u8], trailers: &mut Fields) -> Result<Step, Fault> {
        match &mut self.state {
            State::Length(_) => {
                let taken = self.take_plain(input.len())?;
                Ok(Step::body(taken, matches!(self.state, State::Length(0))))
            }
            State::Chunked(_) if input.is_empty() => Ok(Step::framing(0, false)),
            State::Chunked(chunked) => chunked.read(input, trailers).map(|part| match part {
                Part::Framing(taken) => Step::framing(taken, false),
                Part::Data(taken) => Step::body(taken, false),
                Part::End(taken) => Step::framing(taken, true),
            }),
            State::Open { .. } => self.take_plain(input.len()).map(|taken| Step::body(taken, false)),
        }
    }

    /// Takes up to `most` bytes of a body that is nothing but its bytes; none of one in chunks, or that is done.
    ///
    /// # Errors
    ///
    /// [`Fault::BodyTooLarge`].
    pub fn take_plain(&mut self, most: usize) -> Result<usize, Fault> {
        match &mut self.state {
            State::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(most);
                *left -= taken as u64;
                Ok(taken)
            }
            State::Chunked(_) => Ok(0),
            State::Open { left } => {
                *left = left.checked_sub(most as u64).ok_or(Fault::BodyTooLarge)?;
                Ok(most)
            }
        }
    }

    /// The connection ended.
    ///
    /// # Errors
    ///
    /// [`Fault::Truncated`] when more was to come.
    pub fn end(&self) -> Result<(), Fault> {
        match self.state {
            State::Length(0) | State::Open { .. } => Ok(()),
            _ => Err(Fault::Truncated),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::limits::HttpLimits;

    fn trailers() -> Fields {
        Fields::for_trailers(&HttpLimits::default())
    }

    #[test]
    fn a_length_leaves_what_follows() {
        let mut body = Body::new(Framing::Length(5), u64::MAX);
        assert_eq!(body.decode(b"abc", &mut trailers()), Ok(Step { taken: 3, body: 0..3, done: false }));
        assert_eq!(body.end(), Err(Fault::Truncated));
        assert_eq!(body.decode(b"deGET", &mut trailers()), Ok(Step { taken: 2, body: 0..2, done: true }));
        assert_eq!(body.end(), Ok(()));
    }

    #[test]
    fn no_body_is_done_at_once() {
        let mut body = Body::new(Framing::None, 0);
        assert_eq!(body.decode(b"", &mut trailers()), Ok(Step { taken: 0, body: 0..0, done: true }));
    }

    #[test]
    fn an_open_body_ends_with_the_connection_and_is_limited() {
        let mut body = Body::new(Framing::UntilClose, 4);
        assert_eq!(body.decode(b"abc", &mut trailers()), Ok(Step { taken: 3, body: 0..3, done: false }));
        assert_eq!(body.end(), Ok(()));
        assert_eq!(body.decode(b"de", &mut trailers()), Err(Fault::BodyTooLarge));
    }

    #[test]
    fn chunks_are_spans_of_the_input() {
        let (mut body, input) = (Body::new(Framing::Chunked, 3), b"3\r\nabc\r\n0\r\n\r\nnext");
        let mut at = 0;
        let mut seen = Vec::new();
        loop {
            let step = body.decode(&input[at..], &mut trailers()).expect("chunks");
            seen.extend_from_slice(&input[at..][step.body.clone()]);
            at += step.taken;
            if step.done {
                break;
            }
        }
        assert_eq!((&seen[..], &input[at..]), (&b"abc"[..], &b"next"[..]));
    }

    #[test]
    fn a_chunked_body_is_limited_as_a_whole() {
        let mut body = Body::new(Framing::Chunked, 3);
        let mut decode = |input: &[u8]| body.decode(input, &mut trailers()).map(|step| step.taken);
        assert_eq!((decode(b"2\r\n"), decode(b"ab"), decode(b"\r\n2")), (Ok(3), Ok(2), Ok(3)));
        assert_eq!(decode(b"\r\n"), Err(Fault::BodyTooLarge));
    }
}
