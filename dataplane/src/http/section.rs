//! Lines as they arrive: into the buffer, one by one, within the limits, whatever the pieces they come in.
//!
//! A fault is found at the same byte however the input is cut: limits count bytes, everything else waits for the
//! line's end.

use super::fields::Fields;
use super::refusal::Fault;

/// What became of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// All of it was taken and no line ended.
    Unfinished,
    /// A line ended after this many bytes; it lies at the end of the buffer, from here.
    Ended { taken: usize, at: usize },
}

/// Reads lines into a buffer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lines {
    /// Where the line that is being read begins in the buffer.
    at: usize,
}

impl Lines {
    /// Takes the input up to the end of a line. `end` is where the buffer may reach at most, `fault` what it means
    /// when it would reach further.
    pub(super) fn read(
        &mut self,
        input: &[u8],
        fields: &mut Fields,
        end: usize,
        fault: Fault,
    ) -> Result<Line, Fault> {
        let found = memchr::memchr(b'\n', input);
        let taken = found.map_or(input.len(), |at| at + 1);
        if taken > end.saturating_sub(fields.bytes.len()) {
            return Err(fault);
        }
        fields.store(&[&input[..taken]]).ok_or(fault)?;
        let at = self.at;
        match found {
            None => Ok(Line::Unfinished),
            Some(_) if !fields.bytes[at..].ends_with(b"\r\n") => Err(Fault::LineEnd),
            Some(_) => {
                self.at = fields.bytes.len();
                Ok(Line::Ended { taken, at })
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
        let start = fields.bytes.len();
        Self { lines: Lines { at: start }, start, count: 0 }
    }

    /// Takes input; how many bytes, and whether the section is complete and indexed.
    pub(super) fn read(
        &mut self,
        input: &[u8],
        fields: &mut Fields,
        limits: SectionLimits,
    ) -> Result<(usize, bool), Fault> {
        let mut used = 0;
        let end = self.start + limits.bytes;
        while let Line::Ended { taken, at } =
            self.lines.read(&input[used..], fields, end, Fault::HeadTooLarge)?
        {
            used += taken;
            if fields.bytes.len() - at == 2 {
                fields.index(self.start, self.count, limits.bytes)?;
                return Ok((used, true));
            }
            self.count += 1;
            self.check_line(&fields.bytes[at..], limits)?;
        }
        Ok((input.len(), false))
    }

    fn check_line(&self, line: &[u8], limits: SectionLimits) -> Result<(), Fault> {
        match line {
            _ if self.count > limits.fields => Err(Fault::TooManyFields),
            [b' ' | b'\t', ..] => Err(Fault::Folded),
            _ => Ok(()),
        }
    }
}

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
