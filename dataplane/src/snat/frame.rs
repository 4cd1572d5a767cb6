//! The bucket of a frame, from its bytes alone: what a port should place it by.
//!
//! ```text
//!   Ethernet ─ [tag] ─┬─ IPv4 ─┬─ TCP, UDP ──────▶ its tuple
//!                     └─ IPv6 ─┼─ ICMP error ────▶ the tuple of the packet it quotes, reversed
//!                              └─ fragment ──────▶ source, destination, identification
//!   ARP, neighbour discovery, options, cut short ─▶ bucket 0
//! ```
//!
//! `port/af_packet/program.rs` is the same function for the kernel; tests hold one against the other.

use super::toeplitz::{bucket_v4, bucket_v6, ports_word};
use crate::address::Address;
use crate::packet::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, protocol};

/// The bucket of a frame, below [`super::toeplitz::BUCKETS`]; 0 for all that has no tuple.
pub fn bucket_of_frame(frame: &[u8]) -> usize {
    of_ethernet(frame).unwrap_or(0)
}

/// The tuple of a frame that carries TCP or UDP and no fragment: the frames that a NIC places by it.
pub fn has_tuple(frame: &[u8]) -> bool {
    let is_plain = |(ethertype, packet): (u16, &[u8])| match ethertype {
        ETHERTYPE_IPV4 => {
            let header = packet.first_chunk::<20>()?;
            Some(header[0] == 0x45 && !is_fragment(header) && is_tcp_or_udp(header[9]))
        }
        ETHERTYPE_IPV6 => packet.first_chunk::<40>().map(|header| is_tcp_or_udp(header[6])),
        _ => None,
    };
    network_layer(frame).and_then(is_plain).unwrap_or(false)
}

fn of_ethernet(frame: &[u8]) -> Option<usize> {
    match network_layer(frame)? {
        (ETHERTYPE_IPV4, packet) => of_ipv4(packet),
        (ETHERTYPE_IPV6, packet) => of_ipv6(packet),
        _ => None,
    }
}

/// What is behind the Ethernet header and at most one tag.
fn network_layer(frame: &[u8]) -> Option<(u16, &[u8])> {
    let ethertype = half(frame, 12)?;
    match ethertype {
        ETHERTYPE_VLAN | ETHERTYPE_QINQ => Some((half(frame, 16)?, frame.get(18..)?)),
        _ => Some((ethertype, frame.get(14..)?)),
    }
}

fn of_ipv4(packet: &[u8]) -> Option<usize> {
    let header = packet.first_chunk::<20>()?;
    if header[0] != 0x45 {
        return None;
    }
    let (src, dst) = (word(packet, 12)?, word(packet, 16)?);
    if is_fragment(header) {
        return Some(bucket_v4(src, dst, half(packet, 4)?.into()));
    }
    match header[9] {
        protocol::TCP | protocol::UDP => Some(bucket_v4(src, dst, word(packet, 20)?)),
        protocol::ICMP if matches!(packet.get(20)?, 3 | 11 | 12) => of_quoted_ipv4(packet.get(28..)?),
        _ => None,
    }
}

fn of_ipv6(packet: &[u8]) -> Option<usize> {
    let header = packet.first_chunk::<40>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let (src, dst) = (address(packet, 8)?, address(packet, 24)?);
    match header[6] {
        protocol::TCP | protocol::UDP => Some(bucket_v6(src, dst, word(packet, 40)?)),
        protocol::FRAGMENT => Some(bucket_v6(src, dst, word(packet, 44)?)),
        protocol::ICMPV6 if *packet.get(40)? < 128 => of_quoted_ipv6(packet.get(48..)?),
        _ => None,
    }
}

fn of_quoted_ipv4(quoted: &[u8]) -> Option<usize> {
    let header = quoted.first_chunk::<20>()?;
    let header_len = usize::from(header[0] & 0xf) * 4;
    let is_later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
    if header[0] >> 4 != 4 || header_len < 20 || is_later_fragment || !is_tcp_or_udp(header[9]) {
        return None;
    }
    let ports = word(quoted, header_len)?;
    Some(bucket_v4(word(quoted, 16)?, word(quoted, 12)?, ports.rotate_left(16)))
}

fn of_quoted_ipv6(quoted: &[u8]) -> Option<usize> {
    let header = quoted.first_chunk::<40>()?;
    if header[0] >> 4 != 6 || !is_tcp_or_udp(header[6]) {
        return None;
    }
    let ports = ports_word(half(quoted, 42)?, half(quoted, 40)?);
    Some(bucket_v6(address(quoted, 24)?, address(quoted, 8)?, ports))
}

fn is_fragment(header: &[u8; 20]) -> bool {
    u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0
}

fn is_tcp_or_udp(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::UDP)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

fn address(bytes: &[u8], at: usize) -> Option<Address> {
    bytes.get(at..)?.first_chunk().map(|bytes| Address::v6(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::build::{self, Tcp, Udp};
    use crate::snat::toeplitz::bucket_of;

    fn tuple(src: &str, dst: &str, src_port: u16, dst_port: u16) -> usize {
        bucket_of(build::address(src), build::address(dst), ports_word(src_port, dst_port))
    }

    const V4: (&str, &str) = ("198.51.100.7", "192.0.2.100");
    const V6: (&str, &str) = ("2001:db8::1", "2001:db8::2");

    #[test]
    fn tcp_and_udp_fall_by_their_tuple_with_and_without_a_tag() {
        for (src, dst) in [V4, V6] {
            for vlan in [0, 100] {
                let tcp = build::tcp(&Tcp { src, dst, vlan, ..Tcp::default() });
                assert_eq!(bucket_of_frame(&tcp), tuple(src, dst, 40_000, 80));
                let udp = build::udp(&Udp { src, dst, vlan, ..Udp::default() });
                assert_eq!(bucket_of_frame(&udp), tuple(src, dst, 40_000, 53));
                assert!(has_tuple(&tcp) && has_tuple(&udp));
            }
        }
    }

    #[test]
    fn an_error_falls_where_the_packets_fall_that_it_answers() {
        for ((src, dst), (kind, proto)) in [(V4, (3, protocol::ICMP)), (V6, (2, protocol::ICMPV6))] {
            let ours = build::tcp(&Tcp { src, dst, ..Tcp::default() });
            let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &ours[14..]].concat();
            let router = if proto == protocol::ICMP { "10.9.9.9" } else { "2001:db8:9::9" };
            let link = crate::packet::rewrite::LinkHeader {
                destination: crate::address::Mac([2; 6]),
                source: crate::address::Mac([4; 6]),
                vlan: 0,
            };
            let error = build::packet(link, router, src, 64, proto, &message, 2);
            assert_eq!(bucket_of_frame(&error), tuple(dst, src, 80, 40_000));
            assert!(!has_tuple(&error));
        }
    }

    #[test]
    fn fragments_of_one_packet_fall_together() {
        let mut first = build::udp(&Udp::default());
        build::patch_ipv4(&mut first, |header| header[4..8].copy_from_slice(&[7, 9, 0x20, 0]));
        let mut second = build::udp(&Udp { src_port: 1, dst_port: 2, ..Udp::default() });
        build::patch_ipv4(&mut second, |header| header[4..8].copy_from_slice(&[7, 9, 0, 100]));
        assert_eq!(bucket_of_frame(&first), bucket_of_frame(&second));
        assert_eq!(bucket_of_frame(&first), tuple(V4.0, V4.1, 0, 0x0709));
        assert!(!has_tuple(&first));
    }

    #[test]
    fn what_has_no_tuple_falls_into_the_first_bucket() {
        let whole = build::tcp(&Tcp::default());
        assert_ne!(bucket_of_frame(&whole), 0, "or this test would show nothing");
        assert!((0..38).all(|len| bucket_of_frame(&whole[..len]) == 0), "cut short");
        for change in [|b: &mut [u8]| b[13] = 6, |b: &mut [u8]| b[14] = 0x46, |b: &mut [u8]| b[23] = 50] {
            let mut other = whole.clone();
            change(&mut other);
            assert_eq!(bucket_of_frame(&other), 0);
        }
    }
}
