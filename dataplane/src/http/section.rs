//! Lines as they arrive: into the buffer, one by one, within the limits, whatever the pieces they come in.
//!
//! A fault is found at the same byte however the input is cut: limits count bytes, everything else waits for the
//! line's end.

use super::fields::Fields;
use super::refusal::Fault;

/// A line that ended in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    /// Bytes of the input up to its end.
    pub(super) taken: usize,
    /// Bytes of the whole line with its CRLF. `taken <= len` unless it began in the input.
    pub(super) len: usize,
}

/// Finds the ends of lines.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lines {
    /// Bytes of the line in earlier pieces.
    len: usize,
    /// The last of those is CR.
    cr: bool,
}

impl Lines {
    /// Looks for the end of the line; without one all of the input belongs to it.
    ///
    /// # Errors
    ///
    /// `full` when the line does not end within `room` bytes, [`Fault::LineEnd`] when it does not end with CRLF.
    pub(super) fn next(&mut self, input: &[u8], room: usize, full: Fault) -> Result<Option<Line>, Fault> {
        let found = memchr::memchr(b'\n', input);
        let taken = found.map_or(input.len(), |at| at + 1);
        if taken > room {
            return Err(full);
        }
        let len = self.len + taken;
        let before = input[..found.unwrap_or(taken)].last();
        let cr = before.map_or(self.cr, |&byte| byte == b'\r');
        match found {
            None => {
                *self = Self { len, cr };
                Ok(None)
            }
            Some(_) if !cr => Err(Fault::LineEnd),
            Some(_) => {
                *self = Self::default();
                Ok(Some(Line { taken, len }))
            }
        }
    }
}

/// Reads field lines up to the empty one (RFC 9112 section 5).
#[derive(Debug, Clone, Copy)]
pub(super) struct Section {
    lines: Lines,
    start: usize,
    count: usize,
}

/// The limits of one section.
#[derive(Debug, Clone, Copy)]
pub(super) struct SectionLimits {
    pub(super) bytes: usize,
    pub(super) fields: usize,
}

impl Section {
    /// A section that begins where the buffer ends.
    pub(super) fn after(fields: &Fields) -> Self {
        Self { lines: Lines::default(), start: fields.bytes.len(), count: 0 }
    }

    /// Takes input; how many bytes, and whether the section is complete and indexed. Copies what it takes at once.
    pub(super) fn read(
        &mut self,
        input: &[u8],
        fields: &mut Fields,
        limits: SectionLimits,
    ) -> Result<(usize, bool), Fault> {
        let (used, complete) = self.scan(input, &fields.bytes, limits)?;
        fields.store(&[&input[..used]]).ok_or(Fault::HeadTooLarge)?;
        if complete {
            fields.index(self.start, self.count, limits.bytes)?;
        }
        Ok((used, complete))
    }

    fn scan(&mut self, input: &[u8], before: &[u8], limits: SectionLimits) -> Result<(usize, bool), Fault> {
        let room = (self.start + limits.bytes).saturating_sub(before.len());
        let mut used = 0;
        while let Some(line) = self.lines.next(&input[used..], room - used, Fault::HeadTooLarge)? {
            let begun = line.len - line.taken;
            let first = if begun > 0 { before[before.len() - begun] } else { input[used] };
            used += line.taken;
            if line.len == EMPTY {
                return Ok((used, true));
            }
            self.count += 1;
            self.check(first, limits)?;
        }
        Ok((input.len(), false))
    }

    fn check(&self, first: u8, limits: SectionLimits) -> Result<(), Fault> {
        match first {
            _ if self.count > limits.fields => Err(Fault::TooManyFields),
            b' ' | b'\t' => Err(Fault::Folded),
            _ => Ok(()),
        }
    }
}

/// Bytes of a line that has only its CRLF.
const EMPTY: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::limits::HttpLimits;

    const LIMITS: SectionLimits = SectionLimits { bytes: 100, fields: 2 };

    /// Reads in pieces of `step` bytes; how many bytes were taken when it was complete.
    fn read(input: &[u8], step: usize) -> Result<Option<usize>, Fault> {
        let mut fields = Fields::for_head(&HttpLimits::default());
        let mut section = Section::after(&fields);
        let mut used = 0;
        for piece in input.chunks(step) {
            let (taken, complete) = section.read(piece, &mut fields, LIMITS)?;
            used += taken;
            if complete {
                return Ok(Some(used));
            }
        }
        Ok(None)
    }

    #[test]
    fn what_follows_the_empty_line_is_left() {
        for step in 1..20 {
            assert_eq!(read(b"a: b\r\n\r\nrest", step), Ok(Some(8)));
            assert_eq!(read(b"\r\n", step), Ok(Some(2)));
            assert_eq!(read(b"a: b\r\n\r", step), Ok(None));
        }
    }

    #[test]
    fn faults_do_not_depend_on_the_pieces() {
        let long = [b"a: ".as_slice(), &[b'b'; 100], b"\r\n\r\n"].concat();
        for (input, fault) in [
            (&b"a: b\n\r\n"[..], Fault::LineEnd),
            (b"\n", Fault::LineEnd),
            (b"a: b\r\n c\r\n\r\n", Fault::Folded),
            (b"a: b\r\na: b\r\na: b\r\n\r\n", Fault::TooManyFields),
            (&long, Fault::HeadTooLarge),
        ] {
            for step in 1..=input.len() {
                assert_eq!(read(input, step), Err(fault), "{} by {step}", input.escape_ascii());
            }
        }
    }

    #[test]
    fn the_limit_is_exact() {
        let fill = |len: usize| [b"a: ".as_slice(), &vec![b'b'; len - 7], b"\r\n\r\n"].concat();
        let limits = SectionLimits { bytes: 200, fields: 2 };
        for (len, fits) in [(200 - 26, true), (200 - 25, false)] {
            let mut fields = Fields::for_head(&HttpLimits::default());
            let taken = Section::after(&fields).read(&fill(len), &mut fields, limits);
            assert_eq!(taken.is_ok(), fits, "name, value and 32: {}", fields.size());
        }
    }
}
