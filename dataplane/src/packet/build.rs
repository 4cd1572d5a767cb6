//! Builders of whole frames, for tests and packet generators; the data plane itself never builds TCP data.

use std::net::IpAddr;

use super::checksum::{fold, sum};
use super::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, protocol};
use super::rewrite::{LinkHeader, write_link_header};
use crate::address::{Address, Mac};

/// A TCP segment to build. The default is an ACK from 198.51.100.7:40000 to 192.0.2.100:80.
#[derive(Debug, Clone, Copy)]
pub struct Tcp<'a> {
    /// Link address of the sender.
    pub src_mac: Mac,
    /// Link address of the receiver.
    pub dst_mac: Mac,
    /// VLAN id, 0 for untagged.
    pub vlan: u16,
    /// Source address.
    pub src: &'a str,
    /// Destination address.
    pub dst: &'a str,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TCP flags.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Data.
    pub payload: &'a [u8],
}

impl Default for Tcp<'_> {
    fn default() -> Self {
        Self {
            src_mac: Mac([2, 0, 0, 0, 0, 0xc]),
            dst_mac: Mac([2, 0, 0, 0, 0, 1]),
            vlan: 0,
            src: "198.51.100.7",
            dst: "192.0.2.100",
            src_port: 40_000,
            dst_port: 80,
            ttl: 64,
            flags: 0x10,
            seq: 1,
            ack: 0,
            payload: &[],
        }
    }
}

/// A UDP datagram to build. The default goes from 198.51.100.7:40000 to 192.0.2.100:53.
#[derive(Debug, Clone, Copy)]
pub struct Udp<'a> {
    /// Link address of the sender.
    pub src_mac: Mac,
    /// Link address of the receiver.
    pub dst_mac: Mac,
    /// VLAN id, 0 for untagged.
    pub vlan: u16,
    /// Source address.
    pub src: &'a str,
    /// Destination address.
    pub dst: &'a str,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Data.
    pub payload: &'a [u8],
}

impl Default for Udp<'_> {
    fn default() -> Self {
        let Tcp { src_mac, dst_mac, src, dst, src_port, ttl, .. } = Tcp::default();
        Self { src_mac, dst_mac, vlan: 0, src, dst, src_port, dst_port: 53, ttl, payload: b"ping" }
    }
}

/// The whole frame of a TCP segment, checksums right.
///
/// # Panics
/// When an address does not parse, or the families differ.
pub fn tcp(tcp: &Tcp) -> Vec<u8> {
    let mut l4 = Vec::with_capacity(20 + tcp.payload.len());
    l4.extend(tcp.src_port.to_be_bytes());
    l4.extend(tcp.dst_port.to_be_bytes());
    l4.extend(tcp.seq.to_be_bytes());
    l4.extend(tcp.ack.to_be_bytes());
    l4.extend([0x50, tcp.flags, 0xff, 0xff, 0, 0, 0, 0]);
    l4.extend(tcp.payload);
    let link = LinkHeader { destination: tcp.dst_mac, source: tcp.src_mac, vlan: tcp.vlan };
    packet(link, tcp.src, tcp.dst, tcp.ttl, protocol::TCP, &l4, 16)
}

/// [`tcp`] with TCP options in front of the data, padded to four bytes.
///
/// # Panics
/// As [`tcp`] does.
pub fn tcp_with_options(segment: &Tcp, options: &[u8]) -> Vec<u8> {
    let mut behind = options.to_vec();
    behind.resize(options.len().next_multiple_of(4), 0);
    let words = (5 + behind.len() / 4) as u8;
    behind.extend(segment.payload);
    let mut frame = tcp(&Tcp { payload: &behind, ..*segment });
    let l3 = if segment.vlan == 0 { 14 } else { 18 };
    let l4 = l3 + if frame[l3] >> 4 == 4 { 20 } else { 40 };
    let old = u16::from_be_bytes([frame[l4 + 12], frame[l4 + 13]]);
    frame[l4 + 12] = words << 4;
    let new = u16::from_be_bytes([frame[l4 + 12], frame[l4 + 13]]);
    let sum = u16::from_be_bytes([frame[l4 + 16], frame[l4 + 17]]);
    let value = super::rewrite::adjusted(sum, u64::from(!old) + u64::from(new));
    frame[l4 + 16..l4 + 18].copy_from_slice(&value.to_be_bytes());
    frame
}

/// The whole frame of a UDP datagram, checksums right.
///
/// # Panics
/// When an address does not parse, or the families differ.
pub fn udp(udp: &Udp) -> Vec<u8> {
    let mut l4 = Vec::with_capacity(8 + udp.payload.len());
    l4.extend(udp.src_port.to_be_bytes());
    l4.extend(udp.dst_port.to_be_bytes());
    l4.extend((8 + udp.payload.len() as u16).to_be_bytes());
    l4.extend([0, 0]);
    l4.extend(udp.payload);
    let link = LinkHeader { destination: udp.dst_mac, source: udp.src_mac, vlan: udp.vlan };
    packet(link, udp.src, udp.dst, udp.ttl, protocol::UDP, &l4, 6)
}

/// The whole frame of any transport; `checksum_at` is where in `l4` its checksum goes.
///
/// # Panics
/// When an address does not parse, or the families differ.
pub fn packet(
    link: LinkHeader,
    src: &str,
    dst: &str,
    ttl: u8,
    proto: u8,
    l4: &[u8],
    checksum_at: usize,
) -> Vec<u8> {
    let parse = |text: &str| -> IpAddr { text.parse().expect("an address") };
    let mut l4 = l4.to_vec();
    let (ip, pseudo) = match (parse(src), parse(dst)) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ipv4_header(src.octets(), dst.octets(), ttl, proto, l4.len()),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ipv6_header(src.octets(), dst.octets(), ttl, proto, l4.len()),
        _ => panic!("{src} and {dst} are not of one family"),
    };
    let value = match !fold(sum(&l4) + if proto == protocol::ICMP { 0 } else { pseudo }) {
        // "No checksum" (RFC 768), which IPv6 does not allow.
        0 if proto == protocol::UDP => 0xffff,
        value => value,
    };
    l4[checksum_at..checksum_at + 2].copy_from_slice(&value.to_be_bytes());
    let mut frame = vec![0; if link.vlan == 0 { 14 } else { 18 }];
    let ethertype = if ip[0] >> 4 == 4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
    write_link_header(&mut frame, link, ethertype);
    frame.extend(ip);
    frame.extend(l4);
    frame
}

/// Changes the IPv4 header of an untagged frame and corrects its header checksum.
pub fn patch_ipv4(frame: &mut [u8], change: impl FnOnce(&mut [u8])) {
    change(&mut frame[14..34]);
    frame[24..26].fill(0);
    let value = !fold(sum(&frame[14..34]));
    frame[24..26].copy_from_slice(&value.to_be_bytes());
}

/// The fragments of an untagged frame's packet, as a host with this MTU makes them.
///
/// # Panics
/// When the MTU leaves no room.
pub fn fragments(frame: &[u8], mtu: usize, id: u32) -> Vec<Vec<u8>> {
    let header = if frame[14] >> 4 == 4 { 20 } else { 40 };
    let room = (mtu - if header == 20 { 20 } else { 48 }) & !7;
    let payload = &frame[14 + header..];
    let count = payload.len().div_ceil(room);
    let piece = |at: usize| {
        let part = &payload[at * room..payload.len().min((at + 1) * room)];
        fragment(frame, id, at * room, at + 1 < count, part)
    };
    (0..count).map(piece).collect()
}

/// One fragment of an untagged frame's packet: `part` at `offset`, a multiple of 8.
///
/// # Panics
/// When the frame is shorter than its headers.
pub fn fragment(frame: &[u8], id: u32, offset: usize, more: bool, part: &[u8]) -> Vec<u8> {
    if frame[14] >> 4 == 4 {
        let mut piece = [&frame[..34], part].concat();
        let word = (offset / 8) as u16 | u16::from(more) << 13;
        patch_ipv4(&mut piece, |header| {
            header[2..4].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
            header[4..6].copy_from_slice(&(id as u16).to_be_bytes());
            header[6..8].copy_from_slice(&word.to_be_bytes());
        });
        return piece;
    }
    let word = offset as u16 | u16::from(more);
    let extension = [&[frame[20], 0], &word.to_be_bytes()[..], &id.to_be_bytes()].concat();
    let mut piece = [&frame[..54], &extension, part].concat();
    piece[18..20].copy_from_slice(&(8 + part.len() as u16).to_be_bytes());
    piece[20] = 44;
    piece
}

/// An untagged IPv6 packet with a fragment header that says it is whole (RFC 6946).
pub fn atomic(frame: &[u8], id: u32) -> Vec<u8> {
    fragment(frame, id, 0, false, &frame[54..])
}

/// The untagged packet that these fragments, in any order, are of; the inverse of [`fragments`] but for DF and id.
///
/// # Panics
/// When they are not the fragments of one whole packet, or overlap.
pub fn reassemble(pieces: &[Vec<u8>]) -> Vec<u8> {
    let is_v4 = pieces[0][14] >> 4 == 4;
    let word = |b: &[u8], at: usize| u16::from_be_bytes([b[at], b[at + 1]]);
    let (header, behind, id) = if is_v4 { (34, 34, 18..20) } else { (54, 62, 58..62) };
    let mut parts: Vec<(usize, bool, &[u8])> = Vec::new();
    for piece in pieces {
        assert_eq!(piece[id.clone()], pieces[0][id.clone()], "one id");
        assert_eq!(
            piece[if is_v4 { 26..34 } else { 22..54 }],
            pieces[0][if is_v4 { 26..34 } else { 22..54 }]
        );
        let word = if is_v4 { word(piece, 20) } else { word(piece, 56) };
        let (offset, more) =
            if is_v4 { ((word & 0x1fff) * 8, word & 0x2000 != 0) } else { (word & 0xfff8, word & 1 != 0) };
        parts.push((usize::from(offset), more, &piece[behind..]));
    }
    parts.sort_by_key(|part| part.0);
    let mut whole = pieces[0][..header].to_vec();
    for (offset, more, part) in &parts {
        assert_eq!(whole.len() - header, *offset, "no hole and no overlap");
        assert_eq!(*more, offset + part.len() < parts.iter().map(|(o, _, p)| o + p.len()).max().unwrap_or(0));
        whole.extend_from_slice(part);
    }
    let len = whole.len();
    if is_v4 {
        patch_ipv4(&mut whole, |header| {
            header[2..4].copy_from_slice(&((len - 14) as u16).to_be_bytes());
            header[6..8].fill(0);
        });
    } else {
        whole[18..20].copy_from_slice(&((len - 54) as u16).to_be_bytes());
        whole[20] = pieces[0][54];
    }
    whole
}

/// Replaces the checksum of an untagged TCP over IPv4 frame by what a kernel that counts on offload leaves there.
pub fn make_partial(frame: &mut [u8]) {
    let pseudo = sum(&frame[26..34]) + u64::from(protocol::TCP) + (frame.len() - 34) as u64;
    frame[50..52].copy_from_slice(&fold(pseudo).to_be_bytes());
}

/// Checks the IPv4 header's, the TCP, UDP or ICMP checksum of a frame.
///
/// # Panics
/// When one is wrong.
pub fn assert_checksums(frame: &[u8]) {
    let l3 = if frame[12..14] == [0x81, 0] { 18 } else { 14 };
    let is_v4 = frame[l3] >> 4 == 4;
    let header_len = if is_v4 { 20 } else { 40 };
    let (start, proto) = if is_v4 { (l3 + 12, frame[l3 + 9]) } else { (l3 + 8, frame[l3 + 6]) };
    if is_v4 {
        assert_eq!(fold(sum(&frame[l3..l3 + 20])), 0xffff, "IPv4 header checksum");
    }
    let total = if is_v4 {
        usize::from(u16::from_be_bytes([frame[l3 + 2], frame[l3 + 3]]))
    } else {
        40 + usize::from(u16::from_be_bytes([frame[l3 + 4], frame[l3 + 5]]))
    };
    let l4 = &frame[l3 + header_len..l3 + total];
    let addresses = &frame[start..l3 + header_len];
    let pseudo =
        if proto == protocol::ICMP { 0 } else { sum(addresses) + u64::from(proto) + l4.len() as u64 };
    assert_eq!(fold(sum(l4) + pseudo), 0xffff, "checksum of protocol {proto}");
}

fn ipv4_header(src: [u8; 4], dst: [u8; 4], ttl: u8, proto: u8, len: usize) -> (Vec<u8>, u64) {
    let total = (20 + len) as u16;
    let [high, low] = total.to_be_bytes();
    let mut header = vec![0x45, 0, high, low, 0, 1, 0x40, 0, ttl, proto, 0, 0];
    header.extend(src);
    header.extend(dst);
    let value = !fold(sum(&header));
    header[10..12].copy_from_slice(&value.to_be_bytes());
    (header, sum(&src) + sum(&dst) + u64::from(proto) + len as u64)
}

fn ipv6_header(src: [u8; 16], dst: [u8; 16], ttl: u8, proto: u8, len: usize) -> (Vec<u8>, u64) {
    let [high, low] = (len as u16).to_be_bytes();
    let mut header = vec![0x60, 0, 0, 0, high, low, proto, ttl];
    header.extend(src);
    header.extend(dst);
    (header, sum(&src) + sum(&dst) + u64::from(proto) + len as u64)
}

/// An IPv4-mapped IPv6 address, which must never be on a wire.
pub const MAPPED: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1];

/// Parses an address.
///
/// # Panics
/// When it is none.
pub fn address(text: &str) -> Address {
    text.parse::<IpAddr>().expect("an address").into()
}
