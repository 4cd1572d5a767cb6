//! Bytes to [`Parsed`]: one pass, no copy. What comes out is well-formed; what is not has a [`DropReason`].
//!
//! ```text
//!   Ethernet ─ [802.1Q] ─┬─ ARP ───────────────▶ Parsed::Arp
//!                        ├─ IPv4 ─┬─ TCP, UDP ─▶ Parsed::Ip (class Tcp, Udp)
//!                        └─ IPv6 ─┼─ ICMP ─────▶ Parsed::Ip (class Icmp)
//!                                 └─ fragment ─▶ Parsed::Fragment, read by packet/fragment
//! ```

use super::fragment::{self, Fragment};
use crate::address::{Address, Mac};
use crate::flow::key::FlowKey;
use crate::verdict::DropReason;

/// A frame that sluice can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// An IP packet.
    Ip(Packet),
    /// An ARP message, not looked into yet.
    Arp {
        /// Where the ARP message begins.
        offset: u16,
        /// VLAN id, 0 for untagged.
        vlan: u16,
    },
    /// A fragment of an IP packet.
    Fragment(Fragment),
}

/// An IP packet with a well-formed transport header. `l3 < l4 <= l3 + ip_len <= frame length`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Addresses, ports and protocol; ports are 0 for ICMP.
    pub key: FlowKey,
    /// Length from the IP header on, by the IP header; what follows in the frame is padding.
    pub ip_len: u32,
    /// Where the IP header begins.
    pub l3: u16,
    /// Where the transport header begins.
    pub l4: u16,
    /// VLAN id, 0 for untagged.
    pub vlan: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TCP flags, 0 for others.
    pub tcp_flags: u8,
    /// What the transport header is.
    pub class: Class,
    /// True when the link-layer destination is a group.
    pub to_group: bool,
}

impl Packet {
    /// Room for a packet.
    pub const BLANK: Packet = Packet {
        key: FlowKey {
            src: Address::UNSPECIFIED,
            dst: Address::UNSPECIFIED,
            src_port: 0,
            dst_port: 0,
            protocol: 0,
        },
        ip_len: 0,
        l3: 0,
        l4: 0,
        vlan: 0,
        ttl: 0,
        tcp_flags: 0,
        class: Class::Other,
        to_group: false,
    };

    /// True for IPv4, whose header here has no options; IPv6's is longer.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.header_len() == 20
    }

    /// From the IP header to the transport header, in bytes.
    #[inline(always)]
    pub const fn header_len(&self) -> usize {
        self.l4.wrapping_sub(self.l3) as usize
    }
}

/// What an IP packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP over IPv4, ICMPv6 over IPv6.
    Icmp,
    /// Anything else.
    Other,
    /// A fragment other than the first: it has no transport header.
    Fragment,
}

/// TCP flags, RFC 9293 section 3.1.
pub mod tcp_flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
}

/// IP protocol numbers.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// The IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
}

/// What [`parse_into`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// An IP packet: all of [`Packet`] is set.
    Ip,
    /// An ARP message: its offset is `l3`, its VLAN `vlan`, the rest means nothing.
    Arp,
    /// A fragment, its IP header well-formed: `l3`, `vlan` and `to_group` are set, `fragment::read` says the rest.
    Fragment,
    /// A reason to drop the frame: nothing is set.
    Nothing(DropReason),
}

/// Parses a frame received on a port whose link address is `mac`.
///
/// # Errors
/// The reason to drop it.
pub fn parse(bytes: &[u8], mac: Mac) -> Result<Parsed, DropReason> {
    let mut packet = Packet::BLANK;
    match parse_into(&mut packet, bytes, mac) {
        Found::Ip => Ok(Parsed::Ip(packet)),
        Found::Arp => Ok(Parsed::Arp { offset: packet.l3, vlan: packet.vlan }),
        Found::Fragment => fragment::read(&packet, bytes).map(Parsed::Fragment),
        Found::Nothing(reason) => Err(reason),
    }
}

/// Parses in place: the fields are stored once, where the rest of the path reads them. About 200 instructions for
/// TCP over IPv4.
#[inline]
pub fn parse_into(packet: &mut Packet, bytes: &[u8], mac: Mac) -> Found {
    match parse_frame(packet, bytes, mac) {
        Ok(found) => found,
        Err(reason) => Found::Nothing(reason),
    }
}

#[inline(always)]
fn parse_frame(packet: &mut Packet, bytes: &[u8], mac: Mac) -> Result<Found, DropReason> {
    let Some(ethernet) = bytes.first_chunk::<14>() else { return Err(DropReason::Truncated) };
    packet.to_group = ethernet[0] & 1 == 1;
    if !packet.to_group && ethernet[..6] != mac.0 {
        return Err(DropReason::NotForUs);
    }
    if ethernet[6] & 1 == 1 {
        // Groups receive; none of them sends.
        return Err(DropReason::MartianSource);
    }
    match u16::from_be_bytes([ethernet[12], ethernet[13]]) {
        ETHERTYPE_VLAN => parse_tagged(packet, bytes),
        ethertype => parse_network::<14>(packet, bytes, ethertype, 0),
    }
}

#[inline(never)]
fn parse_tagged(packet: &mut Packet, bytes: &[u8]) -> Result<Found, DropReason> {
    let Some(tag) = bytes[14..].first_chunk::<4>() else { return Err(DropReason::Truncated) };
    let vlan = u16::from_be_bytes([tag[0], tag[1]]) & 0xfff;
    parse_network::<18>(packet, bytes, u16::from_be_bytes([tag[2], tag[3]]), vlan)
}

/// The network header, at `L3`.
#[inline(always)]
fn parse_network<const L3: usize>(
    packet: &mut Packet,
    bytes: &[u8],
    ethertype: u16,
    vlan: u16,
) -> Result<Found, DropReason> {
    (packet.l3, packet.vlan) = (L3 as u16, vlan);
    match ethertype {
        ETHERTYPE_IPV4 => parse_ipv4::<L3>(packet, bytes),
        ETHERTYPE_IPV6 => parse_ipv6::<L3>(packet, bytes),
        ETHERTYPE_ARP => Ok(Found::Arp),
        ETHERTYPE_VLAN | ETHERTYPE_QINQ => Err(DropReason::UnknownVlan),
        _ => Err(DropReason::UnknownEthertype),
    }
}

#[inline(always)]
fn parse_ipv4<const L3: usize>(packet: &mut Packet, bytes: &[u8]) -> Result<Found, DropReason> {
    let rest = &bytes[L3..];
    let Some(header) = rest.first_chunk::<20>() else { return Err(DropReason::Truncated) };
    match header[0] {
        0x45 => {}
        0x46..=0x4f => return Err(DropReason::IpOptions),
        _ => return Err(DropReason::Malformed),
    }
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if total > rest.len() {
        return Err(DropReason::Truncated);
    }
    if total < 20 || !is_ipv4_checksum_right(header) {
        return Err(DropReason::Malformed);
    }
    if u16::from_ne_bytes([header[6], header[7]]) & MORE_OR_OFFSET != 0 {
        return Ok(Found::Fragment);
    }
    set_addresses_v4(&mut packet.key, header)?;
    (packet.ip_len, packet.l4, packet.ttl) = (total as u32, L3 as u16 + 20, header[8]);
    parse_transport(packet, &rest[20..total], header[9], protocol::ICMP)?;
    Ok(Found::Ip)
}

/// More fragments, and the offset, as the bytes of a header lie in memory (RFC 791 section 3.1).
const MORE_OR_OFFSET: u16 = u16::from_ne_bytes(0x3fff_u16.to_be_bytes());

#[inline(always)]
pub(super) fn set_addresses_v4(key: &mut FlowKey, header: &[u8; 20]) -> Result<(), DropReason> {
    let source = [header[12], header[13], header[14], header[15]];
    let destination = [header[16], header[17], header[18], header[19]];
    if !is_unicast_v4(source[0]) {
        return Err(DropReason::MartianSource);
    }
    if !is_unicast_v4(destination[0]) {
        return Err(DropReason::MartianDestination);
    }
    (key.src, key.dst) = (Address::v4(source), Address::v4(destination));
    Ok(())
}

#[inline(always)]
fn parse_ipv6<const L3: usize>(packet: &mut Packet, bytes: &[u8]) -> Result<Found, DropReason> {
    let rest = &bytes[L3..];
    let Some(header) = rest.first_chunk::<40>() else { return Err(DropReason::Truncated) };
    if header[0] >> 4 != 6 {
        return Err(DropReason::Malformed);
    }
    let total = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if total > rest.len() {
        return Err(DropReason::Truncated);
    }
    match header[6] {
        0 | 43 | 60 => return Err(DropReason::IpOptions),
        HEADER_FRAGMENT => return Ok(Found::Fragment),
        _ => {}
    }
    set_addresses_v6(&mut packet.key, header, header[6])?;
    (packet.ip_len, packet.l4, packet.ttl) = (total as u32, L3 as u16 + 40, header[7]);
    parse_transport(packet, &rest[40..total], header[6], protocol::ICMPV6)?;
    Ok(Found::Ip)
}

#[inline(always)]
pub(super) fn set_addresses_v6(key: &mut FlowKey, header: &[u8; 40], proto: u8) -> Result<(), DropReason> {
    let (src, dst) = (address_at(header, 8), address_at(header, 24));
    if src.is_multicast() || src.is_loopback() || src.is_v4() {
        return Err(DropReason::MartianSource);
    }
    if dst.is_loopback() || dst.is_unspecified() || dst.is_v4() {
        return Err(DropReason::MartianDestination);
    }
    (key.src, key.dst) = (src, dst);
    if proto != protocol::ICMPV6 && (src.is_unspecified() || dst.is_multicast()) {
        return Err(if src.is_unspecified() {
            DropReason::MartianSource
        } else {
            DropReason::MartianDestination
        });
    }
    Ok(())
}

#[inline(always)]
fn parse_transport(packet: &mut Packet, l4: &[u8], proto: u8, icmp: u8) -> Result<(), DropReason> {
    packet.key.protocol = proto;
    packet.tcp_flags = 0;
    match proto {
        protocol::TCP => {
            let Some(header) = l4.first_chunk::<20>() else { return Err(DropReason::Truncated) };
            packet.tcp_flags = check_tcp(header, l4.len())?;
            packet.class = Class::Tcp;
            set_ports(&mut packet.key, header);
            unicast_only(packet)
        }
        protocol::UDP => {
            let Some(header) = l4.first_chunk::<8>() else { return Err(DropReason::Truncated) };
            check_udp(header, l4.len(), icmp == protocol::ICMPV6)?;
            packet.class = Class::Udp;
            set_ports(&mut packet.key, header);
            unicast_only(packet)
        }
        other => {
            packet.class = if other == icmp { Class::Icmp } else { Class::Other };
            (packet.key.src_port, packet.key.dst_port) = (0, 0);
            match packet.class {
                Class::Icmp if l4.len() < 8 => Err(DropReason::Truncated),
                Class::Icmp => Ok(()),
                _ => unicast_only(packet),
            }
        }
    }
}

/// A unicast IP packet must not come in a link-layer broadcast (RFC 1122 section 3.3.6).
#[inline(always)]
pub(super) fn unicast_only(packet: &Packet) -> Result<(), DropReason> {
    if packet.to_group { Err(DropReason::NotForUs) } else { Ok(()) }
}

#[inline(always)]
pub(super) fn set_ports(key: &mut FlowKey, header: &[u8]) {
    key.src_port = u16::from_be_bytes([header[0], header[1]]);
    key.dst_port = u16::from_be_bytes([header[2], header[3]]);
}

/// Refuses impossible flag combinations and header lengths; the flags otherwise.
#[inline(always)]
pub(super) fn check_tcp(header: &[u8; 20], len: usize) -> Result<u8, DropReason> {
    use tcp_flag::{ACK, FIN, RST, SYN};
    let (header_len, flags) = (usize::from(header[12] >> 4) * 4, header[13]);
    let ports = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
    let contradictory = flags & SYN != 0 && flags & (FIN | RST) != 0;
    let empty = flags & (SYN | FIN | RST | ACK) == 0;
    let portless = ports >> 16 == 0 || ports & 0xffff == 0;
    if header_len < 20 || header_len > len || contradictory || empty || portless {
        return Err(DropReason::MalformedTcp);
    }
    Ok(flags)
}

/// The length must fit the packet; over IPv6 the checksum is not optional (RFC 8200 section 8.1).
#[inline(always)]
pub(super) fn check_udp(header: &[u8; 8], len: usize, is_v6: bool) -> Result<(), DropReason> {
    let claimed = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let no_checksum = header[6] == 0 && header[7] == 0;
    if claimed < 8 || claimed > len || (header[2] == 0 && header[3] == 0) || (is_v6 && no_checksum) {
        return Err(DropReason::MalformedUdp);
    }
    Ok(())
}

/// Neither 0.0.0.0/8 nor 127.0.0.0/8 (RFC 1122 section 3.2.1.3), nor 224.0.0.0/4 and what is above.
#[inline(always)]
fn is_unicast_v4(first_octet: u8) -> bool {
    matches!(first_octet, 1..=126 | 128..=223)
}

/// RFC 1071: the words of a right header sum to a multiple of 0xffff, in the machine's own byte order, too.
#[inline(always)]
fn is_ipv4_checksum_right(header: &[u8; 20]) -> bool {
    let word = |at: usize| {
        u64::from(u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]))
    };
    (word(0) + word(4) + word(8) + word(12) + word(16)).is_multiple_of(0xffff)
}

#[inline(always)]
fn address_at(header: &[u8; 40], at: usize) -> Address {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[at..at + 16]);
    Address::v6(octets)
}

/// IPv4 in Ethernet.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// IPv6 in Ethernet.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// ARP in Ethernet.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// An 802.1Q tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// The IPv6 fragment header (RFC 8200 section 4.5).
pub(super) const HEADER_FRAGMENT: u8 = 44;
/// An 802.1ad tag.
pub const ETHERTYPE_QINQ: u16 = 0x88a8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::build::{self, Tcp, Udp};

    const US: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn ip(bytes: &[u8]) -> Packet {
        match parse(bytes, US) {
            Ok(Parsed::Ip(packet)) => packet,
            other => panic!("not an IP packet: {other:?}"),
        }
    }

    fn syn() -> Vec<u8> {
        build::tcp(&Tcp { flags: tcp_flag::SYN, ..Tcp::default() })
    }

    #[test]
    fn tcp_over_ipv4_gives_key_offsets_and_flags() {
        let packet = ip(&syn());
        assert_eq!((packet.l3, packet.l4, packet.vlan, packet.class), (14, 34, 0, Class::Tcp));
        assert_eq!((packet.key.src_port, packet.key.dst_port, packet.tcp_flags), (40_000, 80, tcp_flag::SYN));
        assert_eq!(packet.key.src.to_string(), "198.51.100.7");
    }

    #[test]
    fn udp_over_tagged_ipv6() {
        let bytes = build::udp(&Udp { src: "2001:db8::1", dst: "2001:db8::2", vlan: 100, ..Udp::default() });
        let packet = ip(&bytes);
        assert_eq!((packet.l3, packet.l4, packet.vlan, packet.class), (18, 58, 100, Class::Udp));
    }

    #[test]
    fn every_shorter_prefix_of_a_frame_is_truncated() {
        for bytes in
            [syn(), build::udp(&Udp { src: "2001:db8::1", dst: "2001:db8::2", vlan: 5, ..Udp::default() })]
        {
            for len in 0..bytes.len() {
                assert_eq!(parse(&bytes[..len], US), Err(DropReason::Truncated), "length {len}");
            }
        }
    }

    #[test]
    fn each_broken_field_has_its_reason() {
        type Break = fn(&mut Vec<u8>);
        let cases: &[(&str, Break, DropReason)] = &[
            ("other mac", |b| b[5] = 9, DropReason::NotForUs),
            ("broadcast mac", |b| b[..6].fill(0xff), DropReason::NotForUs),
            ("from a group", |b| b[6] |= 1, DropReason::MartianSource),
            ("ethertype", |b| b[12] = 0x77, DropReason::UnknownEthertype),
            ("two tags", |b| b[12..18].copy_from_slice(&[0x81, 0, 0, 5, 0x81, 0]), DropReason::UnknownVlan),
            ("version", |b| b[14] = 0x55, DropReason::Malformed),
            ("header length", |b| b[14] = 0x44, DropReason::Malformed),
            ("options", |b| b[14] = 0x46, DropReason::IpOptions),
            ("ip checksum", |b| b[24] ^= 1, DropReason::Malformed),
            ("fragment", |b| build::patch_ipv4(b, |h| h[6] = 0x20), DropReason::FragmentMalformed),
            ("fragment offset", |b| build::patch_ipv4(b, |h| h[7] = 1), DropReason::FragmentTiny),
            ("short total", |b| build::patch_ipv4(b, |h| h[2..4].fill(0)), DropReason::Malformed),
            ("long total", |b| build::patch_ipv4(b, |h| h[2] = 9), DropReason::Truncated),
            ("loopback source", |b| build::patch_ipv4(b, |h| h[12] = 127), DropReason::MartianSource),
            ("multicast source", |b| build::patch_ipv4(b, |h| h[12] = 224), DropReason::MartianSource),
            ("loopback target", |b| build::patch_ipv4(b, |h| h[16] = 127), DropReason::MartianDestination),
            ("zero target", |b| build::patch_ipv4(b, |h| h[16] = 0), DropReason::MartianDestination),
            (
                "broadcast target",
                |b| build::patch_ipv4(b, |h| h[16..20].fill(255)),
                DropReason::MartianDestination,
            ),
            ("syn and fin", |b| b[47] = 3, DropReason::MalformedTcp),
            ("syn and rst", |b| b[47] = 6, DropReason::MalformedTcp),
            ("no flags", |b| b[47] = 0, DropReason::MalformedTcp),
            ("data offset short", |b| b[46] = 0x40, DropReason::MalformedTcp),
            ("data offset long", |b| b[46] = 0xf0, DropReason::MalformedTcp),
            ("port zero", |b| b[36..38].fill(0), DropReason::MalformedTcp),
        ];
        for (name, break_it, reason) in cases {
            let mut bytes = syn();
            break_it(&mut bytes);
            assert_eq!(parse(&bytes, US), Err(*reason), "{name}");
        }
    }

    #[test]
    fn ipv6_refusals() {
        let good = build::udp(&Udp { src: "2001:db8::1", dst: "2001:db8::2", ..Udp::default() });
        type Break = fn(&mut Vec<u8>);
        let cases: &[(&str, Break, DropReason)] = &[
            ("version", |b| b[14] = 0x45, DropReason::Malformed),
            ("hop by hop", |b| b[20] = 0, DropReason::IpOptions),
            ("routing header", |b| b[20] = 43, DropReason::IpOptions),
            ("mapped source", |b| b[22..38].copy_from_slice(&build::MAPPED), DropReason::MartianSource),
            ("mapped target", |b| b[38..54].copy_from_slice(&build::MAPPED), DropReason::MartianDestination),
            ("multicast source", |b| b[22] = 0xff, DropReason::MartianSource),
            ("no source", |b| b[22..38].fill(0), DropReason::MartianSource),
            ("multicast target", |b| b[38] = 0xff, DropReason::MartianDestination),
            ("no checksum", |b| b[60..62].fill(0), DropReason::MalformedUdp),
            ("udp length short", |b| b[59] = 7, DropReason::MalformedUdp),
            ("udp length long", |b| b[58] = 7, DropReason::MalformedUdp),
            ("udp to port zero", |b| b[56..58].fill(0), DropReason::MalformedUdp),
        ];
        for (name, break_it, reason) in cases {
            let mut bytes = good.clone();
            break_it(&mut bytes);
            assert_eq!(parse(&bytes, US), Err(*reason), "{name}");
        }
    }

    #[test]
    fn padding_is_not_part_of_the_packet() {
        let mut bytes = syn();
        let len = bytes.len() - 14;
        bytes.resize(60, 0);
        assert_eq!(ip(&bytes).ip_len as usize, len);
    }
}
