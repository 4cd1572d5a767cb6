//! The chunked coding, read (RFC 9112 section 7.1).
//!
//! ```text
//!   1*16HEXDIG *( ";" token [ "=" ( token | quoted-string ) ] ) CRLF  data CRLF  …  "0" … CRLF  trailers CRLF
//! ```
//!
//! Extensions are checked and dropped. No whitespace is taken anywhere, and a line ends with CRLF only.

use super::fields::Fields;
use super::grammar::{hex, is_tchar};
use super::names::is_for_trailers;
use super::refusal::Fault;
use super::section::{Section, SectionLimits};

/// Where in the coding the next byte is.
#[derive(Debug, Clone, Copy)]
enum State {
    Size { digits: u8 },
    ExtensionName { empty: bool },
    ExtensionValue,
    Token,
    Quoted,
    QuotedPair,
    QuotedEnd,
    HeadEnd,
    Data,
    DataCr,
    DataLf,
    Trailers(Section),
    Done,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// So many bytes of framing.
    Framing(usize),
    /// So many bytes of body.
    Data(usize),
    /// So many bytes of framing, and the end.
    End(usize),
}

/// Reads one chunked body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunked {
    state: State,
    /// Of the chunk: its size while that is read, then what is left of it.
    left: u64,
    /// Of the body: what it may still have.
    body_left: u64,
    extension: u16,
}

impl Chunked {
    /// A body of `body_max` bytes at most.
    pub(super) fn new(body_max: u64) -> Self {
        Self { state: State::Size { digits: 0 }, left: 0, body_left: body_max, extension: 0 }
    }

    /// The next part of the input, which is not empty. Trailers go into `trailers`.
    pub(super) fn read(&mut self, input: &[u8], trailers: &mut Fields) -> Result<Part, Fault> {
        match self.state {
            State::Data => Ok(Part::Data(self.take_data(input.len()))),
            State::Trailers(section) => self.read_trailers(section, input, trailers),
            State::Done => Ok(Part::End(0)),
            _ => self.read_framing(input, trailers),
        }
    }

    /// Bytes up to data, trailers or the input's end.
    fn read_framing(&mut self, input: &[u8], trailers: &mut Fields) -> Result<Part, Fault> {
        for (at, &byte) in input.iter().enumerate() {
            self.state = self.step(byte)?;
            if matches!(self.state, State::HeadEnd | State::DataLf) {
                continue;
            }
            if let Some(state) = self.entered(trailers) {
                self.state = state;
                return Ok(Part::Framing(at + 1));
            }
        }
        Ok(Part::Framing(input.len()))
    }

    /// When the framing before data or trailers has ended: what comes now.
    fn entered(&self, trailers: &mut Fields) -> Option<State> {
        match self.state {
            State::Data if self.left > 0 => Some(State::Data),
            State::Data => {
                trailers.clear();
                Some(State::Trailers(Section::after(trailers)))
            }
            _ => None,
        }
    }

    fn step(&mut self, byte: u8) -> Result<State, Fault> {
        match (self.state, byte) {
            (State::Size { digits }, _) => self.size(digits, byte),
            (State::HeadEnd, b'\n') => self.begin_data(),
            (State::HeadEnd, _) => Err(Fault::LineEnd),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => {
                (self.left, self.extension) = (0, 0);
                Ok(State::Size { digits: 0 })
            }
            (State::DataCr | State::DataLf, _) => Err(Fault::ChunkEnd),
            _ => self.extension(byte),
        }
    }

    fn size(&mut self, digits: u8, byte: u8) -> Result<State, Fault> {
        match (hex(byte), byte) {
            (Some(digit), _) if digits < 16 => {
                self.left = self.left << 4 | u64::from(digit);
                Ok(State::Size { digits: digits + 1 })
            }
            (None, b';') if digits > 0 => Ok(State::ExtensionName { empty: true }),
            (None, b'\r') if digits > 0 => Ok(State::HeadEnd),
            _ => Err(Fault::ChunkSize),
        }
    }

    fn extension(&mut self, byte: u8) -> Result<State, Fault> {
        self.extension += 1;
        match (self.state, byte) {
            _ if self.extension > EXTENSION_MAX && byte != b'\r' => Err(Fault::ChunkExtension),
            (State::ExtensionName { .. }, byte) if is_tchar(byte) => {
                Ok(State::ExtensionName { empty: false })
            }
            (State::ExtensionName { empty: false }, b'=') => Ok(State::ExtensionValue),
            (State::ExtensionValue, b'"') => Ok(State::Quoted),
            (State::ExtensionValue | State::Token, byte) if is_tchar(byte) => Ok(State::Token),
            (State::ExtensionName { empty: false } | State::Token | State::QuotedEnd, b';') => {
                Ok(State::ExtensionName { empty: true })
            }
            (State::ExtensionName { empty: false } | State::Token | State::QuotedEnd, b'\r') => {
                Ok(State::HeadEnd)
            }
            (State::Quoted, b'"') => Ok(State::QuotedEnd),
            (State::Quoted, b'\\') => Ok(State::QuotedPair),
            (State::Quoted | State::QuotedPair, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::Quoted),
            _ => Err(Fault::ChunkExtension),
        }
    }

    fn begin_data(&mut self) -> Result<State, Fault> {
        self.body_left = self.body_left.checked_sub(self.left).ok_or(Fault::BodyTooLarge)?;
        Ok(State::Data)
    }

    fn take_data(&mut self, available: usize) -> usize {
        let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(available);
        self.left -= taken as u64;
        if self.left == 0 {
            self.state = State::DataCr;
        }
        taken
    }

    fn read_trailers(
        &mut self,
        mut section: Section,
        input: &[u8],
        trailers: &mut Fields,
    ) -> Result<Part, Fault> {
        let (bytes, fields) = trailers.section_limits();
        let (taken, complete) = section.read(input, trailers, SectionLimits { bytes, fields })?;
        self.state = State::Trailers(section);
        if !complete {
            return Ok(Part::Framing(taken));
        }
        if trailers.iter_known().any(|(_, _, known)| known.is_refused_in_trailer()) {
            return Err(Fault::Trailer);
        }
        trailers.retain(is_for_trailers);
        self.state = State::Done;
        Ok(Part::End(taken))
    }
}

/// Bytes of all extensions of one chunk.
const EXTENSION_MAX: u16 = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::limits::HttpLimits;

    /// The body and trailers that come of these bytes in pieces of `step`; `None` while the end has not come.
    fn read(input: &[u8], step: usize) -> Result<Option<String>, Fault> {
        let mut trailers = Fields::for_trailers(&HttpLimits::default());
        let (mut chunked, mut body) = (Chunked::new(1 << 20), Vec::new());
        for mut piece in input.chunks(step) {
            while !piece.is_empty() {
                match chunked.read(piece, &mut trailers)? {
                    Part::Framing(len) => piece = &piece[len..],
                    Part::Data(len) => {
                        body.extend_from_slice(&piece[..len]);
                        piece = &piece[len..];
                    }
                    Part::End(_) => {
                        let fields: Vec<_> =
                            trailers.iter().map(|(name, _)| name.escape_ascii().to_string()).collect();
                        return Ok(Some(format!("{}|{}", body.escape_ascii(), fields.join(","))));
                    }
                }
            }
        }
        Ok(None)
    }

    fn check(input: &str, expected: Result<Option<&str>, Fault>) {
        for step in 1..=input.len() {
            assert_eq!(
                read(input.as_bytes(), step),
                expected.map(|some| some.map(str::to_owned)),
                "{input:?} by {step}"
            );
        }
    }

    #[test]
    fn chunks_and_trailers_in_any_pieces() {
        check("5\r\nhello\r\n0\r\n\r\n", Ok(Some("hello|")));
        check("00A\r\n0123456789\r\na\r\n0123456789\r\n000\r\n\r\n", Ok(Some("01234567890123456789|")));
        check("0;a;b=c;d=\"e;\\\"\"\r\nx: 1\r\ny: 2\r\n\r\n", Ok(Some("|x,y")));
        check("5\r\nhello\r\n0\r\n\r", Ok(None));
    }

    #[test]
    fn sizes_are_hexadecimal_digits_and_nothing_else() {
        for size in ["", "g", "0x1", "+1", "-1", "1_0", " 1", "1 ", "1\t", "11111111111111111"] {
            check(&format!("{size}\r\n"), Err(Fault::ChunkSize));
        }
        check("1\n", Err(Fault::ChunkSize));
        check("1\rx", Err(Fault::LineEnd));
        check("ffffffffffffffff\r\n", Err(Fault::BodyTooLarge));
    }

    #[test]
    fn extensions_are_checked_and_bounded() {
        for extension in [
            "",
            " a",
            "a ",
            "a=",
            "=b",
            "a=b c",
            "a=\"b",
            "a=\"b\"c",
            "a=\"\n\"",
            "a\n",
            "a;;b",
            "a=\"\x7f\"",
        ] {
            check(&format!("1;{extension}\r\n"), Err(Fault::ChunkExtension));
        }
        check(&format!("0;{}\r\n\r\n", "a".repeat(256)), Ok(Some("|")));
        check(&format!("0;{}\r\n\r\n", "a".repeat(257)), Err(Fault::ChunkExtension));
    }

    #[test]
    fn data_ends_with_crlf() {
        for end in ["\n", "\rx", "x", "\r\r"] {
            check(&format!("1\r\na{end}0\r\n\r\n"), Err(Fault::ChunkEnd));
        }
    }

    #[test]
    fn trailers_do_not_move_the_end_and_are_bounded() {
        check("0\r\nContent-Length: 5\r\n\r\n", Err(Fault::Trailer));
        check("0\r\nHost: x\r\n\r\n", Err(Fault::Trailer));
        check("0\r\nCookie: x\r\nX-Forwarded-For: y\r\nETag: z\r\n\r\n", Ok(Some("|ETag")));
        check("0\r\na: b\n\r\n", Err(Fault::LineEnd));
        check(&format!("0\r\n{}\r\n", "a: b\r\n".repeat(33)), Err(Fault::TooManyFields));
    }
}
