//! Version 2: binary (section 2.2).

use super::crc32c::crc32c;
use super::{Endpoint, Header, HeaderError, NoRoom, Origin, Tlvs, Transport, begins};
use crate::address::Address;

/// Bytes of the longest version 2 header that is taken. The format has room for 65,551; real ones have less than 600.
pub const V2_MAX: usize = 4096;
/// The checksum's field.
pub const CRC_TLV: u8 = 0x03;
/// Padding.
pub const NOOP_TLV: u8 = 0x04;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes before the addresses.
const FIXED: usize = 16;
/// Bytes of a field's type and length.
const TLV_HEAD: usize = 3;

pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header<'_>>, HeaderError> {
    if !begins(bytes, SIGNATURE) {
        return Err(HeaderError::Missing);
    }
    let Some(&[.., command, family, high, low]) = bytes.first_chunk::<FIXED>() else { return Ok(None) };
    let is_local = check_kind(command, family)?;
    let len = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if len > V2_MAX {
        return Err(HeaderError::TooLong);
    }
    let Some(whole) = bytes.get(..len) else { return Ok(None) };
    let (origin, tlvs) = match is_local {
        true => (Origin::Local, Tlvs::default()),
        false => read(family, whole)?,
    };
    Ok(Some(Header { version: 2, origin, tlvs, len }))
}

/// True for LOCAL, whose family and addresses are not looked at (section 2.2).
fn check_kind(command: u8, family: u8) -> Result<bool, HeaderError> {
    match (command, family >> 4, family & 0xf) {
        (0x20, ..) => Ok(true),
        (0x21, 0..=3, 0..=2) => Ok(false),
        _ => Err(HeaderError::Kind),
    }
}

fn read(family: u8, whole: &[u8]) -> Result<(Origin<'_>, Tlvs<'_>), HeaderError> {
    let transport = if family & 0xf == 2 { Transport::Datagram } else { Transport::Stream };
    let rest = &whole[FIXED..];
    let (origin, rest) = match family {
        0x11 | 0x12 => v4(transport, rest),
        0x21 | 0x22 => v6(transport, rest),
        0x31 | 0x32 => unix(transport, rest),
        _ => return Ok((Origin::Unknown, Tlvs::default())),
    }
    .ok_or(HeaderError::Address)?;
    let tlvs = Tlvs::read(rest)?;
    check_crc(whole, tlvs)?;
    Ok((origin, tlvs))
}

fn v4(transport: Transport, bytes: &[u8]) -> Option<(Origin<'_>, &[u8])> {
    let (source, rest) = bytes.split_first_chunk::<4>()?;
    let (destination, rest) = rest.split_first_chunk::<4>()?;
    ends(transport, Address::v4(*source), Address::v4(*destination), rest)
}

fn v6(transport: Transport, bytes: &[u8]) -> Option<(Origin<'_>, &[u8])> {
    let (source, rest) = bytes.split_first_chunk::<16>()?;
    let (destination, rest) = rest.split_first_chunk::<16>()?;
    ends(transport, Address::v6(*source), Address::v6(*destination), rest)
}

fn ends(transport: Transport, from: Address, to: Address, rest: &[u8]) -> Option<(Origin<'_>, &[u8])> {
    let (&[a, b, c, d], rest) = rest.split_first_chunk::<4>()?;
    let source = Endpoint { address: from, port: u16::from_be_bytes([a, b]) };
    let destination = Endpoint { address: to, port: u16::from_be_bytes([c, d]) };
    Some((Origin::Ip { transport, source, destination }, rest))
}

fn unix(transport: Transport, bytes: &[u8]) -> Option<(Origin<'_>, &[u8])> {
    let (source, rest) = bytes.split_first_chunk::<108>()?;
    let (destination, rest) = rest.split_first_chunk::<108>()?;
    Some((Origin::Unix { transport, source, destination }, rest))
}

/// Section 2.2.3: over the whole header with the checksum itself as zeros.
fn check_crc(whole: &[u8], tlvs: Tlvs) -> Result<(), HeaderError> {
    let mut at = whole.len() - tlvs.0.len();
    let mut seen = false;
    for (kind, value) in tlvs {
        at += TLV_HEAD + value.len();
        if kind != CRC_TLV {
            continue;
        }
        let said: [u8; 4] = value.try_into().map_err(|_| HeaderError::Tlv)?;
        let computed = crc32c(&[&whole[..at - 4], &[0; 4], &whole[at..]]);
        if seen || u32::from_be_bytes(said) != computed {
            return Err(HeaderError::Checksum);
        }
        seen = true;
    }
    Ok(())
}

pub(super) fn write(origin: &Origin, tlvs: Tlvs, checksum: bool, out: &mut [u8]) -> Result<usize, NoRoom> {
    let room = out.len().min(V2_MAX);
    let out = &mut out[..room];
    let mut at = put(out, 0, SIGNATURE)?;
    let (command, family) = kind(origin);
    at = put(out, at, &[command, family, 0, 0])?;
    at = put_addresses(out, at, origin)?;
    let plain = |kind: &u8| !matches!(*kind, CRC_TLV | NOOP_TLV);
    let known = matches!(origin, Origin::Ip { .. } | Origin::Unix { .. });
    for (kind, value) in tlvs.filter(|(kind, _)| known && plain(kind)) {
        let len = (value.len() as u16).to_be_bytes();
        at = put(out, at, &[kind, len[0], len[1]])?;
        at = put(out, at, value)?;
    }
    if checksum && known {
        at = put(out, at, &[CRC_TLV, 0, 4, 0, 0, 0, 0])?;
    }
    out[FIXED - 2..FIXED].copy_from_slice(&((at - FIXED) as u16).to_be_bytes());
    if checksum && known {
        let crc = crc32c(&[&out[..at]]).to_be_bytes();
        out[at - 4..at].copy_from_slice(&crc);
    }
    Ok(at)
}

fn kind(origin: &Origin) -> (u8, u8) {
    let low = |transport: &Transport| if *transport == Transport::Stream { 1 } else { 2 };
    match origin {
        Origin::Local => (0x20, 0),
        Origin::Unknown => (0x21, 0),
        Origin::Ip { transport, source, destination } => {
            let is_v4 = source.address.is_v4() && destination.address.is_v4();
            (0x21, if is_v4 { 0x10 } else { 0x20 } | low(transport))
        }
        Origin::Unix { transport, .. } => (0x21, 0x30 | low(transport)),
    }
}

fn put_addresses(out: &mut [u8], mut at: usize, origin: &Origin) -> Result<usize, NoRoom> {
    match origin {
        Origin::Local | Origin::Unknown => Ok(at),
        Origin::Unix { source, destination, .. } => {
            at = put(out, at, *source)?;
            put(out, at, *destination)
        }
        Origin::Ip { source, destination, .. } => {
            let is_v4 = source.address.is_v4() && destination.address.is_v4();
            for address in [source.address, destination.address] {
                at = match is_v4 {
                    true => put(out, at, &address.v4_octets())?,
                    false => put(out, at, &address.v6_octets())?,
                };
            }
            at = put(out, at, &source.port.to_be_bytes())?;
            put(out, at, &destination.port.to_be_bytes())
        }
    }
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) -> Result<usize, NoRoom> {
    out.get_mut(at..at + bytes.len()).ok_or(NoRoom)?.copy_from_slice(bytes);
    Ok(at + bytes.len())
}
