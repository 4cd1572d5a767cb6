//! Where a message's body ends (RFC 9112 section 6.3), with one answer or none.

use super::fields::Fields;
use super::grammar::decimal;
use super::head::Version;
use super::names::Name;
use super::refusal::Fault;

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks, the last of which is empty, and a trailer section.
    Chunked,
    /// All that comes until the connection ends; responses only.
    UntilClose,
    /// No message any more: bytes in both directions until both connections end (CONNECT, 101).
    Tunnel,
}

/// What the fields say about the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lengths {
    pub(super) content_length: Option<u64>,
    pub(super) chunked: bool,
}

impl Lengths {
    /// Reads Content-Length and Transfer-Encoding.
    ///
    /// Stricter than RFC 9112 section 6.3, which lets a recipient choose where they differ: one Content-Length with
    /// one number, or one Transfer-Encoding that is `chunked`, or neither.
    pub(super) fn read(fields: &Fields, version: Version) -> Result<Self, Fault> {
        let mut codings = fields.known(Name::TransferEncoding);
        let content_length = content_length(fields)?;
        let Some(coding) = codings.next() else { return Ok(Self { content_length, chunked: false }) };
        match (content_length, version, codings.next()) {
            (Some(_), ..) => Err(Fault::BothLengths),
            (_, Version::Http10, _) => Err(Fault::TransferEncodingMisplaced),
            (_, _, None) if coding.eq_ignore_ascii_case(b"chunked") => {
                Ok(Self { content_length, chunked: true })
            }
            _ => Err(Fault::TransferEncoding),
        }
    }

    /// The body of a message for which nothing else decides.
    pub(super) fn framing(self) -> Option<Framing> {
        match self {
            Self { chunked: true, .. } => Some(Framing::Chunked),
            Self { content_length, .. } => content_length.map(Framing::Length),
        }
    }
}

fn content_length(fields: &Fields) -> Result<Option<u64>, Fault> {
    let mut values = fields.known(Name::ContentLength);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() || value.contains(&b',') {
        return Err(Fault::ContentLengthTwice);
    }
    decimal(value).map(Some).ok_or(Fault::ContentLength)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::limits::HttpLimits;

    fn lengths(section: &str, version: Version) -> Result<Lengths, Fault> {
        let mut fields = Fields::for_head(&HttpLimits::default());
        fields.store(&[section.as_bytes(), b"\r\n"]).expect("room");
        fields.index(0, section.lines().count(), 1000).expect("fields");
        Lengths::read(&fields, version)
    }

    #[test]
    fn one_length_or_chunked_or_neither() {
        let read = |section| lengths(section, Version::Http11).map(Lengths::framing);
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("content-length: 5\r\n"), Ok(Some(Framing::Length(5))));
        assert_eq!(read("Transfer-Encoding: CHUNKED\r\n"), Ok(Some(Framing::Chunked)));
    }

    #[test]
    fn whatever_can_be_read_in_two_ways_is_refused() {
        for (section, fault) in [
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Fault::BothLengths),
            ("Content-Length: 5\r\nTransfer-Encoding: x\r\n", Fault::BothLengths),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Fault::ContentLengthTwice),
            ("Content-Length: 5, 5\r\n", Fault::ContentLengthTwice),
            ("Content-Length: +5\r\n", Fault::ContentLength),
            ("Content-Length:\r\n", Fault::ContentLength),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Fault::TransferEncoding),
            ("Transfer-Encoding: gzip, chunked\r\n", Fault::TransferEncoding),
            ("Transfer-Encoding: chunked;q=1\r\n", Fault::TransferEncoding),
            ("Transfer-Encoding: ,chunked\r\n", Fault::TransferEncoding),
            ("Transfer-Encoding:\r\n", Fault::TransferEncoding),
        ] {
            assert_eq!(lengths(section, Version::Http11), Err(fault), "{section}");
        }
    }

    #[test]
    fn http10_has_no_transfer_coding() {
        let read = lengths("Transfer-Encoding: chunked\r\n", Version::Http10);
        assert_eq!(read, Err(Fault::TransferEncodingMisplaced));
    }
}
