//! A body as it leaves: as it is, or in chunks of its own.

use super::fields::Fields;
use super::framing::Framing;
use super::grammar::hex_digit;
use super::refusal::Fault;
use super::serialize::{NoRoom, Out};

/// What went into a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Bytes of body that were taken.
    pub taken: usize,
    /// Bytes of the buffer that were written.
    pub written: usize,
}

/// Writes one body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoder {
    framing: Framing,
    /// What a length has still to come.
    left: u64,
}

impl Encoder {
    /// A body that ends this way; the same way that the head says.
    pub fn new(framing: Framing) -> Self {
        Self { framing, left: if let Framing::Length(length) = framing { length } else { 0 } }
    }

    /// Writes as much of the data as the buffer takes, each time as a chunk of its own where chunks are spoken. Nothing
    /// is written when a chunk of one byte does not fit, which takes six. A body that must not be is taken and not
    /// written; so is what exceeds the length.
    pub fn write(&mut self, data: &[u8], out: &mut [u8]) -> Written {
        match self.framing {
            Framing::None => Written { taken: data.len(), written: 0 },
            Framing::Length(_) if self.left == 0 => Written { taken: data.len(), written: 0 },
            Framing::Length(_) => {
                let left = usize::try_from(self.left).unwrap_or(usize::MAX);
                let taken = copy(&data[..data.len().min(left)], out);
                self.left -= taken as u64;
                Written { taken, written: taken }
            }
            Framing::Chunked => chunk(data, out),
            Framing::UntilClose | Framing::Tunnel => {
                let taken = copy(data, out);
                Written { taken, written: taken }
            }
        }
    }

    /// True when bytes leave as they came, with nothing between them.
    pub fn is_plain(&self) -> bool {
        self.framing != Framing::Chunked
    }

    /// Writes what ends the body: the last chunk with these trailers, or nothing. Returns its bytes.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] when the buffer is too small, and nothing is written that counts; [`Encoder::is_complete`] tells
    /// whether a body of known length may end.
    pub fn finish(&self, trailers: Option<&Fields>, out: &mut [u8]) -> Result<usize, NoRoom> {
        if self.framing != Framing::Chunked {
            return Ok(0);
        }
        let mut out = Out::new(out);
        out.put(b"0\r\n");
        for (name, value) in trailers.into_iter().flat_map(Fields::iter) {
            out.field(name, value);
        }
        out.put(b"\r\n");
        out.written()
    }

    /// The end may come now.
    ///
    /// # Errors
    ///
    /// [`Fault::Truncated`] when the length promised more: the connection must end, so that the receiver sees it.
    pub fn is_complete(&self) -> Result<(), Fault> {
        if self.left == 0 { Ok(()) } else { Err(Fault::Truncated) }
    }
}

fn copy(data: &[u8], out: &mut [u8]) -> usize {
    let len = data.len().min(out.len());
    out[..len].copy_from_slice(&data[..len]);
    len
}

fn chunk(data: &[u8], out: &mut [u8]) -> Written {
    let digits = hex_digits(data.len().min(out.len()));
    let taken = data.len().min(out.len().saturating_sub(digits + 4));
    if taken == 0 {
        return Written { taken: 0, written: 0 };
    }
    let mut out = Out::new(out);
    for place in (0..hex_digits(taken)).rev() {
        out.put(&[hex_digit((taken >> (4 * place)) as u8)]);
    }
    out.put(b"\r\n");
    out.put(&data[..taken]);
    out.put(b"\r\n");
    out.written().map_or(Written { taken: 0, written: 0 }, |written| Written { taken, written })
}

fn hex_digits(value: usize) -> usize {
    (usize::BITS - value.leading_zeros()).div_ceil(4).max(1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::limits::HttpLimits;

    /// Writes all data through buffers of `room` bytes.
    fn encode(framing: Framing, data: &[u8], room: usize) -> String {
        let (mut encoder, mut whole, mut rest) = (Encoder::new(framing), Vec::new(), data);
        while !rest.is_empty() {
            let mut out = vec![0; room];
            let Written { taken, written } = encoder.write(rest, &mut out);
            assert!(taken > 0, "room for one byte");
            rest = &rest[taken..];
            whole.extend_from_slice(&out[..written]);
        }
        let mut out = [0; 100];
        let end = encoder.finish(None, &mut out).expect("room");
        whole.extend_from_slice(&out[..end]);
        whole.escape_ascii().to_string()
    }

    #[test]
    fn chunks_fill_the_buffer_they_get() {
        let data = b"0123456789abcdef0123";
        assert_eq!(encode(Framing::Chunked, data, 100), r"14\r\n0123456789abcdef0123\r\n0\r\n\r\n");
        assert_eq!(encode(Framing::Chunked, &data[..3], 6), r"1\r\n0\r\n1\r\n1\r\n1\r\n2\r\n0\r\n\r\n");
        for room in 0..6 {
            let nothing = Written { taken: 0, written: 0 };
            assert_eq!(Encoder::new(Framing::Chunked).write(data, &mut vec![0; room]), nothing);
        }
    }

    #[test]
    fn a_chunk_never_exceeds_its_buffer() {
        for room in 6..700 {
            let mut out = vec![0; room];
            let Written { taken, written } = Encoder::new(Framing::Chunked).write(&[b'x'; 1000], &mut out);
            assert!(written <= room && written + 2 > room.min(1000), "{taken} {written} {room}");
        }
    }

    #[test]
    fn other_bodies_are_written_as_they_are() {
        assert_eq!(encode(Framing::Length(3), b"abc", 2), "abc");
        assert_eq!(encode(Framing::Length(3), b"abcd", 9), "abc");
        assert_eq!(encode(Framing::UntilClose, b"abc", 2), "abc");
        assert_eq!(encode(Framing::None, b"abc", 2), "");
    }

    #[test]
    fn a_length_that_is_not_reached_is_told() {
        let mut encoder = Encoder::new(Framing::Length(3));
        encoder.write(b"ab", &mut [0; 9]);
        assert_eq!(encoder.is_complete(), Err(Fault::Truncated));
        encoder.write(b"c", &mut [0; 9]);
        assert_eq!(encoder.is_complete(), Ok(()));
    }

    #[test]
    fn trailers_follow_the_last_chunk() {
        let mut trailers = Fields::for_trailers(&HttpLimits::default());
        trailers.add(b"a", b"b").expect("room");
        let mut out = [0; 11];
        assert_eq!(Encoder::new(Framing::Chunked).finish(Some(&trailers), &mut out), Ok(11));
        assert_eq!(&out, b"0\r\na: b\r\n\r\n");
        assert_eq!(Encoder::new(Framing::Chunked).finish(Some(&trailers), &mut out[..10]), Err(NoRoom));
    }
}
