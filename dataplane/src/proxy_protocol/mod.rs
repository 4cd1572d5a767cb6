//! The PROXY protocol, versions 1 and 2: who is behind a connection, said before its first byte.
//!
//! ```text
//!   v1   PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n                 at most 107 bytes
//!   v2   signature 12 │ version, command │ family │ length 2 │ addresses 0, 12, 36 or 216 │ TLVs
//! ```
//!
//! Source: "The PROXY protocol, versions 1 & 2" by Willy Tarreau, haproxy.org, proxy-protocol.txt. Whoever sends this
//! is believed, so the caller reads it only from sources that the operator listed, and then insists on it. Nothing is
//! allocated, and nothing that is malformed is guessed at: the connection ends.

mod crc32c;
mod v1;
mod v2;

use crate::address::Address;

pub use v2::{CRC_TLV, NOOP_TLV, V2_MAX};

/// Bytes of the longest version 1 header (section 2.1).
pub const V1_MAX: usize = 107;

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// IPv4 or IPv6.
    pub address: Address,
    /// TCP or UDP port.
    pub port: u16,
}

/// What carried the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP, or a Unix stream socket.
    Stream,
    /// UDP, or a Unix datagram socket.
    Datagram,
}

/// Where the connection really comes from and went to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// The sender speaks for itself (a health check): its own addresses are the true ones.
    Local,
    /// The sender does not know, or it was a kind of connection without a name here; the rest was skipped.
    Unknown,
    /// An Internet connection.
    Ip {
        /// TCP or UDP.
        transport: Transport,
        /// The client.
        source: Endpoint,
        /// What the client connected to.
        destination: Endpoint,
    },
    /// A connection of Unix sockets; paths padded with zeros.
    Unix {
        /// Stream or datagram.
        transport: Transport,
        /// The client's path.
        source: &'a [u8; 108],
        /// The server's path.
        destination: &'a [u8; 108],
    },
}

/// A header that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// 1 or 2.
    pub version: u8,
    /// Who is behind the connection.
    pub origin: Origin<'a>,
    /// What version 2 says besides. Empty for [`Origin::Local`] and [`Origin::Unknown`].
    pub tlvs: Tlvs<'a>,
    /// Bytes of the header; what follows is the connection's own.
    pub len: usize,
}

/// Type-length-value fields (section 2.2.6), checked to be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tlvs<'a>(&'a [u8]);

impl<'a> Tlvs<'a> {
    /// The fields as they stand in the header.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Fields as they stand in a header, to be written in another.
    ///
    /// # Errors
    ///
    /// [`HeaderError::Tlv`] when the last one is cut off.
    pub fn read(bytes: &'a [u8]) -> Result<Self, HeaderError> {
        let mut tlvs = Tlvs(bytes);
        while tlvs.next().is_some() {}
        if tlvs.0.is_empty() { Ok(Tlvs(bytes)) } else { Err(HeaderError::Tlv) }
    }
}

impl<'a> Iterator for Tlvs<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[kind, high, low], rest) = self.0.split_first_chunk::<3>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        self.0 = rest;
        Some((kind, value))
    }
}

/// Why a header was not taken; the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The connection does not begin with a header.
    #[error("no PROXY header")]
    Missing,
    /// Version 1, but not one of its lines.
    #[error("malformed version 1 header")]
    Line,
    /// A version, command, family or transport that is not defined.
    #[error("unknown version, command or family")]
    Kind,
    /// Too short for its addresses.
    #[error("addresses are cut off")]
    Address,
    /// A field that is cut off, or a checksum of another size than four bytes.
    #[error("malformed TLV")]
    Tlv,
    /// The checksum does not match (section 2.2.3).
    #[error("wrong CRC32C")]
    Checksum,
    /// Longer than [`V1_MAX`] or [`V2_MAX`].
    #[error("header is too long")]
    TooLong,
}

/// The buffer is too small for the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room for the header")]
pub struct NoRoom;

/// Reads the header that a connection begins with; `None` when more bytes are needed, of which [`V2_MAX`] are enough.
/// Fails as early as it can.
///
/// # Errors
///
/// As [`HeaderError`] says.
pub fn parse(bytes: &[u8]) -> Result<Option<Header<'_>>, HeaderError> {
    match bytes.first() {
        None => Ok(None),
        Some(b'P') => v1::parse(bytes),
        Some(_) => v2::parse(bytes),
    }
}

/// Writes a version 1 header; what it cannot say (UDP, Unix) becomes `UNKNOWN`. Returns its bytes, at most [`V1_MAX`].
///
/// # Errors
///
/// [`NoRoom`] when the buffer is too small.
pub fn write_v1(origin: &Origin, out: &mut [u8]) -> Result<usize, NoRoom> {
    v1::write(origin, out)
}

/// Writes a version 2 header with these fields, but for padding and checksum, and then a checksum of its own when
/// `checksum`. Returns its bytes.
///
/// # Errors
///
/// [`NoRoom`] when the buffer, or [`V2_MAX`], is too small.
pub fn write_v2(origin: &Origin, tlvs: Tlvs, checksum: bool, out: &mut [u8]) -> Result<usize, NoRoom> {
    v2::write(origin, tlvs, checksum, out)
}

/// Whether what has come can still become `whole`: the beginning of it.
fn begins(bytes: &[u8], whole: &[u8]) -> bool {
    bytes.iter().zip(whole).all(|(a, b)| a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_without_a_header_is_told_at_its_first_wrong_byte() {
        assert_eq!(parse(b""), Ok(None));
        assert_eq!(parse(b"G"), Err(HeaderError::Missing));
        assert_eq!(parse(b"POST"), Err(HeaderError::Missing));
        assert_eq!(parse(b"\r\n\r\nG"), Err(HeaderError::Missing));
    }

    #[test]
    fn fields_are_whole_or_refused() {
        let bytes = [1, 0, 2, b'h', b'2', 5, 0, 0];
        let fields: Vec<_> = Tlvs::read(&bytes).expect("fields").collect();
        assert_eq!(fields, [(1, &b"h2"[..]), (5, b"")]);
        for len in [1, 2, 3, 4, 6, 7] {
            assert_eq!(Tlvs::read(&bytes[..len]), Err(HeaderError::Tlv), "{len}");
        }
    }
}
