//! Turning a received packet into the one that leaves, in place: addresses, ports, TTL, checksums by the
//! difference (RFC 1624), and the link header of the way out.

use super::checksum::{fold, fold_short};
use super::icmp;
use super::parse::{Class, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, Packet};
use crate::address::{Address, Mac};
use crate::flow::key::FlowKey;
use crate::frame::{Checksum, Frame};

/// The link header of the way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkHeader {
    /// The next hop.
    pub destination: Mac,
    /// Ours on that port.
    pub source: Mac,
    /// VLAN id, 0 for untagged.
    pub vlan: u16,
}

impl LinkHeader {
    /// In bytes: 14, or 18 with a VLAN.
    #[inline(always)]
    pub const fn size(&self) -> usize {
        if self.vlan == 0 { 14 } else { 18 }
    }
}

/// The whole packet as it leaves: translated as by [`translate`], without padding behind, `link` in front. False when
/// the frame has no room for a longer link header. One look at the frame's memory. About 120 instructions for IPv4.
#[inline(always)]
#[must_use]
pub fn send_off(frame: &mut Frame, packet: &Packet, to: &FlowKey, link: LinkHeader) -> bool {
    let l3 = link.size();
    if usize::from(packet.l3) != l3 && !fit_link_header(frame, packet.l3, l3) {
        return false;
    }
    let (checksum, end) = (frame.offload.checksum, l3 + packet.ip_len as usize);
    if frame.len() > end {
        frame.truncate(end);
    }
    let Some(bytes) = frame.bytes_mut().get_mut(..end) else { return true };
    let Some((header, ip)) = bytes.split_at_mut_checked(l3) else { return true };
    write_link_header(header, link, if packet.is_v4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 });
    translate_bytes(ip, packet, to, checksum);
    true
}

/// Gives the packet the addresses and ports of `to`, takes one off its TTL, and corrects the checksums for just
/// that. The packet's TTL must be above 1. About 100 instructions for IPv4.
#[inline]
pub fn translate(frame: &mut Frame, packet: &Packet, to: &FlowKey) {
    let (checksum, l3) = (frame.offload.checksum, usize::from(packet.l3));
    let Some(ip) = frame.bytes_mut().get_mut(l3..l3 + packet.ip_len as usize) else { return };
    translate_bytes(ip, packet, to, checksum);
}

/// Puts `link` in front of the IP header, whatever length the old link header had. False when the frame has no
/// room in front for a longer one.
#[inline]
#[must_use]
pub fn set_link_header(frame: &mut Frame, packet_l3: u16, is_v4: bool, link: LinkHeader) -> bool {
    if usize::from(packet_l3) != link.size() && !fit_link_header(frame, packet_l3, link.size()) {
        return false;
    }
    write_link_header(frame.bytes_mut(), link, if is_v4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 });
    true
}

/// Moves the frame's beginning so that `new` bytes are in front of the IP header. False when they are not to be had.
#[cold]
fn fit_link_header(frame: &mut Frame, packet_l3: u16, new: usize) -> bool {
    let old = usize::from(packet_l3);
    if old > new {
        frame.trim_front(old - new);
    }
    old >= new || frame.prepend(new - old)
}

/// Writes a link header at the front of `bytes`: 14 bytes, or 18 with a VLAN.
#[inline(always)]
pub fn write_link_header(bytes: &mut [u8], link: LinkHeader, ethertype: u16) {
    let Some(header) = bytes.first_chunk_mut::<14>() else { return };
    // Both addresses in two stores, not in twelve.
    let (destination, source) = (link.destination.bits(), link.source.bits());
    header[..8].copy_from_slice(&(destination | source << 48).to_le_bytes());
    header[8..12].copy_from_slice(&((source >> 16) as u32).to_le_bytes());
    if link.vlan == 0 {
        header[12..14].copy_from_slice(&ethertype.to_be_bytes());
        return;
    }
    header[12..14].copy_from_slice(&ETHERTYPE_VLAN.to_be_bytes());
    if let Some(tag) = bytes.get_mut(14..18) {
        tag[..2].copy_from_slice(&link.vlan.to_be_bytes());
        tag[2..].copy_from_slice(&ethertype.to_be_bytes());
    }
}

/// Translates `ip`, which begins with the IP header and ends with the packet.
#[inline(always)]
fn translate_bytes(ip: &mut [u8], packet: &Packet, to: &FlowKey, checksum: Checksum) {
    let Some((header, transport)) = ip.split_at_mut_checked(packet.header_len()) else {
        return;
    };
    let from = &packet.key;
    let addresses = if packet.is_v4() {
        let Some(header) = header.first_chunk_mut::<20>() else { return };
        translate_ipv4(header, from, to)
    } else {
        let Some(header) = header.first_chunk_mut::<40>() else { return };
        translate_ipv6(header, from, to)
    };
    if packet.class == Class::Icmp {
        // ICMP over IPv4 sums no addresses (RFC 792); ICMPv6 does (RFC 4443 section 2.3).
        return icmp::set_identifier(transport, to, if packet.is_v4() { 0 } else { addresses });
    }
    translate_transport(transport, packet.class, to, addresses, checksum);
}

/// Returns by how much the sum of the addresses has grown (one's complement, not folded).
#[inline(always)]
fn translate_ipv4(header: &mut [u8; 20], from: &FlowKey, to: &FlowKey) -> u64 {
    let addresses = difference(from.src.low as u32, to.src.low as u32)
        + difference(from.dst.low as u32, to.dst.low as u32);
    let old = u16::from_be_bytes([header[10], header[11]]);
    header[8] -= 1;
    header[10..12].copy_from_slice(&adjusted(old, addresses + TTL_LESS_ONE).to_be_bytes());
    header[12..16].copy_from_slice(&to.src.v4_octets());
    header[16..20].copy_from_slice(&to.dst.v4_octets());
    addresses
}

#[inline(always)]
fn translate_ipv6(header: &mut [u8; 40], from: &FlowKey, to: &FlowKey) -> u64 {
    header[7] -= 1;
    header[8..24].copy_from_slice(&to.src.v6_octets());
    header[24..40].copy_from_slice(&to.dst.v6_octets());
    difference_v6(from.src, to.src) + difference_v6(from.dst, to.dst)
}

#[inline(always)]
fn translate_transport(l4: &mut [u8], class: Class, to: &FlowKey, addresses: u64, checksum: Checksum) {
    let at = match class {
        Class::Tcp => 16,
        Class::Udp => 6,
        Class::Icmp | Class::Other | Class::Fragment => return,
    };
    let Some(ports) = l4.first_chunk_mut::<4>() else { return };
    let old_ports = u32::from_be_bytes(*ports);
    let new_ports = (u32::from(to.src_port) << 16) | u32::from(to.dst_port);
    ports.copy_from_slice(&new_ports.to_be_bytes());
    let Some(field) = l4.get_mut(at..at + 2) else { return };
    let old = u16::from_be_bytes([field[0], field[1]]);
    if class == Class::Udp && old == 0 && !matches!(checksum, Checksum::Partial { .. }) {
        return;
    }
    let new = match checksum {
        Checksum::Partial { .. } => fold(u64::from(old) + addresses),
        _ => adjusted(old, addresses + difference(old_ports, new_ports)),
    };
    // A UDP checksum of zero would say "none" (RFC 768).
    let new = if class == Class::Udp && new == 0 { 0xffff } else { new };
    field.copy_from_slice(&new.to_be_bytes());
}

/// RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
#[inline(always)]
pub(crate) fn adjusted(checksum: u16, difference: u64) -> u16 {
    !fold_short(u64::from(!checksum) + difference)
}

/// ~m + m' over the word of the TTL, which is its upper half.
const TTL_LESS_ONE: u64 = 0xffff - 0x100;

/// ~m + m' over a 32-bit field.
#[inline(always)]
pub(crate) fn difference(from: u32, to: u32) -> u64 {
    u64::from(!from) + u64::from(to)
}

#[inline(always)]
fn difference_v6(from: Address, to: Address) -> u64 {
    let words = |a: Address| [(a.high >> 32) as u32, a.high as u32, (a.low >> 32) as u32, a.low as u32];
    let (old, new) = (words(from), words(to));
    (0..4).map(|word| difference(old[word], new[word])).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FramePool;
    use crate::packet::build::{self, Tcp, Udp};
    use crate::packet::checksum;
    use crate::packet::parse::{Parsed, parse};

    const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const LINK: LinkHeader = LinkHeader { destination: Mac([2, 0, 0, 0, 0, 9]), source: US, vlan: 0 };

    fn frame(bytes: &[u8]) -> (Frame, Packet) {
        let Ok(Parsed::Ip(packet)) = parse(bytes, US) else { panic!("not an IP packet") };
        (FramePool::new(1).copy_of(bytes).unwrap(), packet)
    }

    fn target(src: &str, dst: &str, packet: &Packet) -> FlowKey {
        let address = |text: &str| Address::from(text.parse::<std::net::IpAddr>().unwrap());
        let key = FlowKey { src: address(src), dst: address(dst), ..packet.key };
        FlowKey { src_port: 61_234, dst_port: 8080, ..key }
    }

    #[test]
    fn checksums_are_right_after_any_translation() {
        for seed in 0..2_000u32 {
            let payload: Vec<u8> = (0..seed % 97).map(|i| (i.wrapping_mul(seed) >> 3) as u8).collect();
            let (v4, tcp) = (seed % 2 == 0, seed % 4 < 2);
            let (src, dst) =
                if v4 { ("198.51.100.7", "192.0.2.100") } else { ("2001:db8::7", "2001:db8:1::100") };
            let bytes = if tcp {
                build::tcp(&Tcp { src, dst, seq: seed, payload: &payload, ..Tcp::default() })
            } else {
                build::udp(&Udp { src, dst, payload: &payload, ..Udp::default() })
            };
            let (mut frame, packet) = frame(&bytes);
            let host = seed as u8 ^ 0x5a;
            let (src, dst) = if v4 {
                (format!("10.1.0.{host}"), "10.255.255.255".to_string())
            } else {
                (format!("2001:db8:2::{host:x}"), "fd00::ffff:ffff".to_string())
            };
            translate(&mut frame, &packet, &target(&src, &dst, &packet));
            build::assert_checksums(frame.bytes());
            let Ok(Parsed::Ip(after)) = parse(frame.bytes(), US) else { panic!("seed {seed}") };
            assert_eq!((after.key.src.to_string(), after.key.dst.to_string()), (src, dst));
            assert_eq!((after.key.src_port, after.key.dst_port, after.ttl), (61_234, 8080, 63));
        }
    }

    #[test]
    fn what_is_sent_off_is_translated_without_padding_and_behind_its_link_header() {
        for seed in 0..1_024u32 {
            let bit = |number: u32| seed >> number & 1 == 1;
            let payload: Vec<u8> = (0..seed / 7).map(|i| (i.wrapping_mul(seed) >> 2) as u8).collect();
            let (src, dst, out) = match bit(0) {
                true => ("198.51.100.7", "192.0.2.100", ["10.1.0.10", "10.1.0.11"]),
                false => ("2001:db8::7", "2001:db8:1::100", ["2001:db8:2::10", "fd00::ffff:ffff"]),
            };
            let mut bytes = match bit(1) {
                true => build::tcp(&Tcp { src, dst, seq: seed, payload: &payload, ..Tcp::default() }),
                false => build::udp(&Udp { src, dst, payload: &payload, ..Udp::default() }),
            };
            let is_partial = bit(2);
            let (l4, addresses) = if bit(0) { (34, 26..34) } else { (54, 22..54) };
            let (protocol, offset) = if bit(1) { (6, 16) } else { (17, 6) };
            if is_partial {
                let rest = protocol + (bytes.len() - l4) as u64;
                let pseudo = fold(checksum::sum(&bytes[addresses]) + rest);
                bytes[l4 + offset..l4 + offset + 2].copy_from_slice(&pseudo.to_be_bytes());
            }
            // None, that of no VLAN, and that of one.
            let tag = [None, None, Some(0), Some(7)][(seed >> 3 & 3) as usize];
            tag.into_iter().for_each(|vlan| drop(bytes.splice(12..12, [0x81, 0, 0x60, vlan])));
            bytes.resize(bytes.len() + if bit(5) { 9 } else { 0 }, 0xee);
            let (mut frame, packet) = frame(&bytes);
            if is_partial {
                frame.offload.checksum = Checksum::Partial { start: packet.l4, offset: offset as u16 };
            }
            let vlan = if bit(6) { 300 } else { 0 };
            assert!(send_off(
                &mut frame,
                &packet,
                &target(out[0], out[1], &packet),
                LinkHeader { vlan, ..LINK }
            ));
            checksum::finish(&mut frame);
            let l3 = if vlan == 0 { 14 } else { 18 };
            assert_eq!(frame.len(), l3 + packet.ip_len as usize, "seed {seed}");
            let Ok(Parsed::Ip(after)) = parse(frame.bytes(), LINK.destination) else { panic!("seed {seed}") };
            assert_eq!((after.vlan, &frame.bytes()[6..12]), (vlan, &US.0[..]), "seed {seed}");
            assert_eq!(
                (after.key, after.ttl),
                (target(out[0], out[1], &packet), packet.ttl - 1),
                "seed {seed}"
            );
            assert_eq!(frame.bytes()[frame.len() - payload.len()..], payload[..], "seed {seed}");
            build::assert_checksums(frame.bytes());
        }
    }

    #[test]
    fn a_partial_checksum_stays_the_pseudo_headers_sum() {
        let mut bytes = build::tcp(&Tcp { payload: b"hello", ..Tcp::default() });
        build::make_partial(&mut bytes);
        let (mut frame, packet) = frame(&bytes);
        frame.offload.checksum = Checksum::Partial { start: 34, offset: 16 };
        translate(&mut frame, &packet, &target("10.1.0.10", "10.1.0.11", &packet));
        checksum::finish(&mut frame);
        build::assert_checksums(frame.bytes());
    }

    #[test]
    fn udp_without_checksum_stays_without() {
        let mut bytes = build::udp(&Udp::default());
        bytes[40..42].fill(0);
        let (mut frame, packet) = frame(&bytes);
        translate(&mut frame, &packet, &target("10.1.0.10", "10.1.0.11", &packet));
        assert_eq!(frame.bytes()[40..42], [0, 0]);
    }

    #[test]
    fn tags_are_added_and_removed() {
        let (mut plain, packet) = frame(&build::tcp(&Tcp::default()));
        let ip = plain.bytes()[14..].to_vec();
        assert!(set_link_header(&mut plain, packet.l3, true, LinkHeader { vlan: 100, ..LINK }));
        assert_eq!(plain.bytes()[12..18], [0x81, 0, 0, 100, 8, 0]);
        assert_eq!(plain.bytes()[18..], ip);
        assert!(set_link_header(&mut plain, 18, true, LINK));
        assert_eq!(plain.bytes()[..14], [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 8, 0]);
        assert_eq!(plain.bytes()[14..], ip);
    }
}
