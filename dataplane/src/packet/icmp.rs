//! ICMP errors about translated packets: reading what they quote, and giving them the addresses that their receiver
//! knows (RFC 5508 sections 4 and 7; RFC 4443).
//!
//! ```text
//!   IP │ ICMP error 8 bytes │ quoted IP │ first bytes of TCP or UDP
//!   ^ outer                   ^ inner: the packet that we had sent
//! ```

use super::checksum::{fold, sum};
use super::parse::{HEADER_FRAGMENT, Packet, protocol};
use super::rewrite::{adjusted, difference};
use crate::address::Address;
use crate::flow::key::FlowKey;

/// What an ICMP error quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted {
    /// The quoted packet's addresses, ports and protocol.
    pub key: FlowKey,
    /// Where its IP header begins in the frame.
    l3: usize,
    /// Where its transport header begins in the frame.
    l4: usize,
}

impl Quoted {
    /// The sequence number of a quoted TCP segment.
    pub fn sequence(&self, bytes: &[u8]) -> Option<u32> {
        let word = bytes.get(self.l4 + 4..self.l4 + 8)?.first_chunk::<4>()?;
        (self.key.protocol == protocol::TCP).then_some(u32::from_be_bytes(*word))
    }
}

/// Destination unreachable, time exceeded, parameter problem, packet too big; all below 128 in ICMPv6. Source
/// quench and redirect are no errors that we pass on (RFC 6633; RFC 1812 section 5.2.7.2).
pub fn is_error(is_v4: bool, kind: u8) -> bool {
    if is_v4 { matches!(kind, 3 | 11 | 12) } else { kind < 128 }
}

/// Reads the packet that an error quotes: TCP or UDP, not a later fragment, with at least its ports. The quote's own
/// checksums are left to its receiver (RFC 5508 REQ-3, c); the message's is the caller's ([`is_intact`]).
pub fn quoted(bytes: &[u8], packet: &Packet) -> Option<Quoted> {
    let end = usize::from(packet.l3) + packet.ip_len as usize;
    let l3 = usize::from(packet.l4) + 8;
    let inner = bytes.get(l3..end)?;
    let (mut key, header_len) = if packet.key.src.is_v4() { inner_v4(inner)? } else { inner_v6(inner)? };
    let ports = inner.get(header_len..header_len + 8)?;
    match key.protocol {
        protocol::TCP | protocol::UDP => {
            key.src_port = u16::from_be_bytes([ports[0], ports[1]]);
            key.dst_port = u16::from_be_bytes([ports[2], ports[3]]);
        }
        protocol::ICMP | protocol::ICMPV6 => (key.src_port, key.dst_port) = echo_ports(ports)?,
        _ => return None,
    }
    Some(Quoted { key, l3, l4: l3 + header_len })
}

/// The key of an echo message as a flow has it, and whether it is a request; `None` for other messages.
pub fn echo_key(bytes: &[u8], packet: &Packet) -> Option<(FlowKey, bool)> {
    let at = usize::from(packet.l4);
    let (src_port, dst_port) = echo_ports(bytes.get(at..at + 8)?)?;
    let is_request = matches!(bytes[at], 8 | 128);
    Some((FlowKey { src_port, dst_port, ..packet.key }, is_request))
}

/// The identifier stands where the side that chose it has its port.
pub(super) fn echo_ports(message: &[u8]) -> Option<(u16, u16)> {
    let identifier = u16::from_be_bytes([*message.get(4)?, *message.get(5)?]);
    match message.first()? {
        8 | 128 => Some((identifier, 0)),
        0 | 129 => Some((0, identifier)),
        _ => None,
    }
}

/// Gives an echo message the identifier of `to`; `addresses` is by how much the sum of what the checksum covers has
/// grown besides.
pub(super) fn set_identifier(message: &mut [u8], to: &FlowKey, addresses: u64) {
    let Some(head) = message.first_chunk_mut::<8>() else { return };
    let (old, new) = (u16::from_be_bytes([head[4], head[5]]), to.src_port | to.dst_port);
    head[4..6].copy_from_slice(&new.to_be_bytes());
    correct(&mut head[2..4], addresses + difference(u32::from(old), u32::from(new)));
}

/// True when the message's checksum is right (RFC 5508 REQ-3): translation makes a new one, which must not make good
/// what was damaged on its way. Reads the whole message; cold path.
pub fn is_intact(bytes: &[u8], packet: &Packet) -> bool {
    let end = usize::from(packet.l3) + packet.ip_len as usize;
    let Some(message) = bytes.get(usize::from(packet.l4)..end) else { return false };
    let (src, dst) = (packet.key.src, packet.key.dst);
    let pseudo = if src.is_v4() {
        0
    } else {
        let addresses = sum(&src.v6_octets()) + sum(&dst.v6_octets());
        addresses + u64::from(protocol::ICMPV6) + message.len() as u64
    };
    fold(sum(message) + pseudo) == 0xffff
}

/// Gives an error the outer addresses `src` and `dst`, the quoted packet the addresses and ports of `inner`, takes
/// one off the TTL, and makes every checksum right that was right. Reads the whole message; cold path.
pub fn translate(
    bytes: &mut [u8],
    packet: &Packet,
    quoted: &Quoted,
    outer: (Address, Address),
    inner: &FlowKey,
) {
    let end = usize::from(packet.l3) + packet.ip_len as usize;
    let is_v4 = packet.key.src.is_v4();
    translate_inner(&mut bytes[quoted.l3..end], quoted, inner, is_v4);
    let (header, message) =
        bytes[usize::from(packet.l3)..end].split_at_mut(usize::from(packet.l4 - packet.l3));
    write_addresses(header, outer, is_v4);
    header[if is_v4 { 8 } else { 7 }] -= 1;
    if is_v4 {
        header[10..12].fill(0);
        let value = !fold(sum(header));
        header[10..12].copy_from_slice(&value.to_be_bytes());
    }
    message[2..4].fill(0);
    let pseudo = u64::from(protocol::ICMPV6) + message.len() as u64;
    let pseudo = if is_v4 { 0 } else { pseudo + sum(&outer.0.v6_octets()) + sum(&outer.1.v6_octets()) };
    let value = !fold(sum(message) + pseudo);
    message[2..4].copy_from_slice(&value.to_be_bytes());
}

fn translate_inner(bytes: &mut [u8], quoted: &Quoted, inner: &FlowKey, is_v4: bool) {
    let (header, transport) = bytes.split_at_mut(quoted.l4 - quoted.l3);
    let addresses =
        address_difference(quoted.key.src, inner.src) + address_difference(quoted.key.dst, inner.dst);
    write_addresses(header, (inner.src, inner.dst), is_v4);
    if is_v4 {
        correct(&mut header[10..12], addresses);
    }
    if matches!(quoted.key.protocol, protocol::ICMP | protocol::ICMPV6) {
        return set_identifier(transport, inner, if is_v4 { 0 } else { addresses });
    }
    let ports = |key: &FlowKey| (u32::from(key.src_port) << 16) | u32::from(key.dst_port);
    transport[..4].copy_from_slice(&ports(inner).to_be_bytes());
    let at = if quoted.key.protocol == protocol::TCP { 16 } else { 6 };
    let has_checksum = transport.get(at..at + 2).is_some_and(|field| at == 16 || field != [0, 0]);
    if has_checksum {
        correct(&mut transport[at..at + 2], addresses + difference(ports(&quoted.key), ports(inner)));
    }
}

fn correct(field: &mut [u8], change: u64) {
    let value = adjusted(u16::from_be_bytes([field[0], field[1]]), change);
    field.copy_from_slice(&value.to_be_bytes());
}

fn write_addresses(header: &mut [u8], (src, dst): (Address, Address), is_v4: bool) {
    if is_v4 {
        header[12..16].copy_from_slice(&src.v4_octets());
        header[16..20].copy_from_slice(&dst.v4_octets());
    } else {
        header[8..24].copy_from_slice(&src.v6_octets());
        header[24..40].copy_from_slice(&dst.v6_octets());
    }
}

/// Works for both families: the upper words of IPv4 addresses are equal and add all ones, which is zero.
fn address_difference(from: Address, to: Address) -> u64 {
    let words = |a: Address| [(a.high >> 32) as u32, a.high as u32, (a.low >> 32) as u32, a.low as u32];
    words(from).into_iter().zip(words(to)).map(|(old, new)| difference(old, new)).sum()
}

fn inner_v4(inner: &[u8]) -> Option<(FlowKey, usize)> {
    let header = inner.first_chunk::<20>()?;
    let header_len = usize::from(header[0] & 0xf) * 4;
    let is_later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
    if header[0] >> 4 != 4 || header_len < 20 || is_later_fragment {
        return None;
    }
    let address = |at: usize| Address::v4([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    Some((
        FlowKey { src: address(12), dst: address(16), protocol: header[9], ..FlowKey::default() },
        header_len,
    ))
}

fn inner_v6(inner: &[u8]) -> Option<(FlowKey, usize)> {
    let header = inner.first_chunk::<40>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let address = |at: usize| {
        let octets = header[at..at + 16].first_chunk::<16>();
        octets.map_or(Address::UNSPECIFIED, |octets| Address::v6(*octets))
    };
    let (protocol, header_len) = match header[6] {
        HEADER_FRAGMENT => (first_fragment_of(inner.get(40..48)?)?, 48),
        other => (other, 40),
    };
    Some((FlowKey { src: address(8), dst: address(24), protocol, ..FlowKey::default() }, header_len))
}

/// What the first fragment of a packet carries; `None` for later ones.
fn first_fragment_of(extension: &[u8]) -> Option<u8> {
    let is_first = u16::from_be_bytes([extension[2], extension[3]]) & 0xfff8 == 0;
    is_first.then_some(extension[0])
}
