//! Fragments of IP packets: reading their headers, giving them another identification, cutting packets and putting
//! them together.
//!
//! ```text
//!   IPv4  … id │ flags, offset │ … │ payload          the fields are in the header
//!   IPv6  header │ next  0  offset, M │ id │ payload   an extension header of 8 bytes (RFC 8200 section 4.5)
//! ```
//!
//! What passes through is never put together, each fragment is forwarded by itself (`fragment/`); only ICMP messages
//! that we have to read as a whole are.

use super::icmp;
use super::parse::{self, Class, Packet, protocol};
use super::rewrite::adjusted;
use crate::address::Address;
use crate::frame::{Frame, FramePool};
use crate::verdict::DropReason;

/// One fragment as its headers describe it. `offset + len <= 65_535`; a fragment that is not the last has a
/// multiple of 8 bytes, and so has every offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// How to forward it. The first fragment is of its packet's class and has its ports, or the identifier of its
    /// echo message; all others are of class [`Class::Fragment`], their ports 0.
    pub packet: Packet,
    /// What all fragments of one packet have in common.
    pub id: u32,
    /// Bytes of the whole packet's payload in front of this one's.
    pub offset: u32,
    /// Bytes of payload.
    pub len: u32,
    /// More fragments follow.
    pub more: bool,
}

impl Fragment {
    /// True when it begins with the transport header.
    pub const fn is_first(&self) -> bool {
        self.offset == 0
    }

    /// True for a whole packet with a fragment header (RFC 6946): it belongs with no other fragment.
    pub const fn is_atomic(&self) -> bool {
        self.offset == 0 && !self.more
    }

    /// Where its payload ends in the whole packet's.
    pub const fn end(&self) -> u32 {
        self.offset + self.len
    }
}

/// Reads a frame that the parser has found to be a fragment; `found` holds what it has set.
///
/// # Errors
/// The reason to drop it.
pub fn read(found: &Packet, bytes: &[u8]) -> Result<Fragment, DropReason> {
    parse::unicast_only(found)?;
    let ip = bytes.get(usize::from(found.l3)..).unwrap_or_default();
    let is_v4 = ip.first().is_some_and(|byte| byte >> 4 == 4);
    let mut fragment = if is_v4 { read_v4(*found, ip)? } else { read_v6(*found, ip)? };
    fragment.len = fragment.packet.ip_len - u32::from(fragment.packet.l4 - fragment.packet.l3);
    check_lengths(&fragment, if is_v4 { 65_515 } else { 65_535 })?;
    let start = usize::from(fragment.packet.l4 - fragment.packet.l3);
    let l4 = ip.get(start..start + fragment.len as usize).ok_or(DropReason::Truncated)?;
    read_transport(&mut fragment, l4, is_v4)?;
    Ok(fragment)
}

fn read_v4(mut packet: Packet, ip: &[u8]) -> Result<Fragment, DropReason> {
    let header = ip.first_chunk::<20>().ok_or(DropReason::Truncated)?;
    parse::set_addresses_v4(&mut packet.key, header)?;
    packet.key.protocol = header[9];
    packet.ip_len = u32::from(u16::from_be_bytes([header[2], header[3]]));
    (packet.l4, packet.ttl) = (packet.l3 + 20, header[8]);
    let word = u16::from_be_bytes([header[6], header[7]]);
    let id = u32::from(u16::from_be_bytes([header[4], header[5]]));
    Ok(Fragment { packet, id, offset: u32::from(word & 0x1fff) * 8, len: 0, more: word & MORE_V4 != 0 })
}

fn read_v6(mut packet: Packet, ip: &[u8]) -> Result<Fragment, DropReason> {
    let header = ip.first_chunk::<40>().ok_or(DropReason::Truncated)?;
    packet.ip_len = 40 + u32::from(u16::from_be_bytes([header[4], header[5]]));
    let extension = ip.get(40..48).and_then(|bytes| bytes.first_chunk::<8>());
    let extension = extension.filter(|_| packet.ip_len >= 48).ok_or(DropReason::Truncated)?;
    // More extension headers, which RFC 7112 wants in the first fragment, are as welcome as without a fragment.
    if matches!(extension[0], 0 | 43 | 60 | parse::HEADER_FRAGMENT) {
        return Err(DropReason::IpOptions);
    }
    parse::set_addresses_v6(&mut packet.key, header, extension[0])?;
    packet.key.protocol = extension[0];
    (packet.l4, packet.ttl) = (packet.l3 + 48, header[7]);
    let word = u16::from_be_bytes([extension[2], extension[3]]);
    let id = u32::from_be_bytes([extension[4], extension[5], extension[6], extension[7]]);
    Ok(Fragment { packet, id, offset: u32::from(word & 0xfff8), len: 0, more: word & 1 != 0 })
}

/// RFC 791 section 3.2 and RFC 8200 section 4.5: whole units of 8 bytes but at the end, and no more than 64 KiB.
fn check_lengths(fragment: &Fragment, payload_max: u32) -> Result<(), DropReason> {
    let uneven = fragment.more && !fragment.len.is_multiple_of(8);
    if fragment.len == 0 || uneven || fragment.end() > payload_max {
        return Err(DropReason::FragmentMalformed);
    }
    // A fragment that begins behind the ports replaces the flags (RFC 3128).
    if fragment.packet.key.protocol == protocol::TCP && fragment.offset == 8 {
        return Err(DropReason::FragmentTiny);
    }
    Ok(())
}

/// The first fragment must hold the whole transport header (RFC 1858 section 3; RFC 7112).
fn read_transport(fragment: &mut Fragment, l4: &[u8], is_v4: bool) -> Result<(), DropReason> {
    let (whole, packet) = (fragment.is_atomic(), &mut fragment.packet);
    (packet.key.src_port, packet.key.dst_port, packet.tcp_flags) = (0, 0, 0);
    packet.class = Class::Fragment;
    if fragment.offset != 0 {
        return Ok(());
    }
    let icmp = if is_v4 { protocol::ICMP } else { protocol::ICMPV6 };
    match packet.key.protocol {
        protocol::TCP => {
            let header = l4.first_chunk::<20>().ok_or(DropReason::FragmentTiny)?;
            if usize::from(header[12] >> 4) * 4 > l4.len() {
                return Err(DropReason::FragmentTiny);
            }
            packet.tcp_flags = parse::check_tcp(header, l4.len())?;
            packet.class = Class::Tcp;
            parse::set_ports(&mut packet.key, header);
        }
        protocol::UDP => {
            let header = l4.first_chunk::<8>().ok_or(DropReason::FragmentTiny)?;
            parse::check_udp(header, if whole { l4.len() } else { 65_535 }, !is_v4)?;
            packet.class = Class::Udp;
            parse::set_ports(&mut packet.key, header);
        }
        other if other == icmp && l4.len() < 8 => return Err(DropReason::FragmentTiny),
        other if other == icmp => {
            packet.class = Class::Icmp;
            // A whole packet is read as one without a fragment header is.
            let ports = if whole { None } else { icmp::echo_ports(l4) };
            (packet.key.src_port, packet.key.dst_port) = ports.unwrap_or_default();
        }
        _ => packet.class = Class::Other,
    }
    Ok(())
}

/// Where the IP header of a frame that we send begins.
pub fn network_start(bytes: &[u8]) -> usize {
    if bytes.get(12..14) == Some(&[0x81, 0x00]) { 18 } else { 14 }
}

/// The source and destination of a frame that we send; `None` when it is no IP packet.
pub fn addresses(bytes: &[u8]) -> Option<(Address, Address)> {
    let ip = bytes.get(network_start(bytes)..)?;
    let v4 = |at: usize| Some(Address::v4(*ip.get(at..)?.first_chunk::<4>()?));
    let v6 = |at: usize| Some(Address::v6(*ip.get(at..)?.first_chunk::<16>()?));
    if ip.first()? >> 4 == 4 { Some((v4(12)?, v4(16)?)) } else { Some((v6(8)?, v6(24)?)) }
}

/// Gives a frame that we send another identification: the low 16 bits of `id` over IPv4, all 32 in an IPv6 fragment
/// header. The IPv4 header's checksum is corrected for just that; a frame without such a field stays as it is.
pub fn set_id(bytes: &mut [u8], id: u32) {
    let start = network_start(bytes);
    let Some(ip) = bytes.get_mut(start..) else { return };
    let Some(version) = ip.first().map(|byte| byte >> 4) else { return };
    if version == 4 && ip.len() >= 20 {
        let (old, new) = (u16::from_be_bytes([ip[4], ip[5]]), id as u16);
        let sum = u16::from_be_bytes([ip[10], ip[11]]);
        ip[4..6].copy_from_slice(&new.to_be_bytes());
        let change = u64::from(!old) + u64::from(new);
        ip[10..12].copy_from_slice(&adjusted(sum, change).to_be_bytes());
    } else if version == 6 && ip.len() >= 48 && ip[6] == parse::HEADER_FRAGMENT {
        ip[44..48].copy_from_slice(&id.to_be_bytes());
    }
}

/// True for an IPv4 packet that may be cut on its way: its DF bit is clear (RFC 791 section 3.2).
pub fn may_cut(bytes: &[u8], l3: u16) -> bool {
    let ip = bytes.get(usize::from(l3)..).unwrap_or_default();
    ip.first().is_some_and(|byte| byte >> 4 == 4) && ip.get(6).is_some_and(|byte| byte & DONT_FRAGMENT == 0)
}

/// Gives a whole IPv6 packet that we send a fragment header with this id, as a packet that is to be cut has one (RFC
/// 8200 section 4.5); one that it came with (RFC 6946) becomes that. Its length is left to [`Cut`]. False without room
/// in front.
#[must_use]
pub fn add_header_v6(frame: &mut Frame, id: u32) -> bool {
    let end = network_start(frame.bytes()) + 40;
    if frame.len() >= end + 8 && frame.bytes()[end - 34] == parse::HEADER_FRAGMENT {
        set_id(frame.bytes_mut(), id);
        return true;
    }
    if frame.len() < end || !frame.prepend(8) {
        return false;
    }
    let bytes = frame.bytes_mut();
    bytes.copy_within(8..8 + end, 0);
    let next = std::mem::replace(&mut bytes[end - 34], parse::HEADER_FRAGMENT);
    bytes[end..end + 4].copy_from_slice(&[next, 0, 0, 0]);
    bytes[end + 4..end + 8].copy_from_slice(&id.to_be_bytes());
    true
}

/// How a packet that is too big is cut: it may be a fragment itself.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    l3: usize,
    /// 20, or 48 with an IPv6 fragment header.
    header: usize,
    payload: usize,
    room: usize,
}

impl Cut {
    /// For `frame`, whose checksum is finished and whose IPv4 header has no options, or which has an IPv6 fragment header,
    /// and fragments of at most `mtu` bytes of IP. `None` when no payload would fit, or nothing needs to be cut.
    pub fn new(frame: &Frame, mtu: u16) -> Option<Self> {
        let l3 = network_start(frame.bytes());
        let ip = frame.bytes().get(l3..)?;
        let header = match (ip.first()? >> 4, *ip.get(6)?) {
            (4, _) => 20,
            (6, parse::HEADER_FRAGMENT) => 48,
            _ => return None,
        };
        let room = usize::from(mtu).checked_sub(header)? & !7;
        let payload = ip.len().checked_sub(header)?;
        (room > 0 && payload > room).then_some(Self { l3, header, payload, room })
    }

    /// How many fragments it makes.
    pub fn count(&self) -> usize {
        self.payload.div_ceil(self.room)
    }

    /// The fragment number `index`, below [`Cut::count`]; `None` without frame memory.
    pub fn piece(&self, frame: &Frame, index: usize, pool: &FramePool) -> Option<Frame> {
        let (start, header_end) = (index * self.room, self.l3 + self.header);
        let end = self.payload.min(start + self.room);
        let bytes = frame.bytes();
        let mut piece = pool.take()?;
        piece.set_len(header_end + end - start);
        piece.bytes_mut()[..header_end].copy_from_slice(bytes.get(..header_end)?);
        piece.bytes_mut()[header_end..].copy_from_slice(bytes.get(header_end + start..header_end + end)?);
        let header = &mut piece.bytes_mut()[self.l3..header_end];
        if self.header == 20 {
            self.finish_v4(header, start, end);
        } else {
            self.finish_v6(header, start, end);
        }
        Some(piece)
    }

    /// Length, offset and flags of one fragment's header.
    fn finish_v4(&self, header: &mut [u8], start: usize, end: usize) {
        let word = u16::from_be_bytes([header[6], header[7]]);
        let more = if end < self.payload { MORE_V4 } else { word & MORE_V4 };
        let offset = (word & 0x1fff) + (start / 8) as u16;
        header[2..4].copy_from_slice(&((20 + end - start) as u16).to_be_bytes());
        header[6..8].copy_from_slice(&(more | offset & 0x1fff).to_be_bytes());
        set_checksum_v4(header);
    }

    fn finish_v6(&self, header: &mut [u8], start: usize, end: usize) {
        let word = u16::from_be_bytes([header[42], header[43]]);
        let more = if end < self.payload { MORE_V6 } else { word & MORE_V6 };
        let offset = (word & 0xfff8).wrapping_add(start as u16);
        header[4..6].copy_from_slice(&((8 + end - start) as u16).to_be_bytes());
        header[42..44].copy_from_slice(&(more | offset).to_be_bytes());
    }
}

/// A packet that is being put together from its fragments, in any order. Whoever calls has seen to it that they do not
/// overlap.
pub struct Whole {
    frame: Frame,
    /// Bytes of payload that have not been put.
    missing: usize,
    head: Option<Head>,
}

/// The link and IP headers of the first fragment, without a fragment header.
struct Head {
    bytes: [u8; 58],
    len: usize,
    l3: usize,
    protocol: u8,
}

impl Whole {
    /// For a packet with `payload` bytes behind the IP header; `None` without frame memory.
    pub fn new(payload: u32, pool: &FramePool) -> Option<Self> {
        let mut frame = pool.take()?;
        frame.room_mut()?.get(..payload as usize)?;
        frame.set_len(payload as usize);
        Some(Self { missing: frame.len(), frame, head: None })
    }

    /// Puts a fragment in its place; `None` when it has none.
    pub fn put(&mut self, fragment: &Fragment, bytes: &[u8]) -> Option<()> {
        let from = usize::from(fragment.packet.l4);
        let part = bytes.get(from..from + fragment.len as usize)?;
        let place = fragment.offset as usize..fragment.end() as usize;
        self.frame.bytes_mut().get_mut(place)?.copy_from_slice(part);
        self.missing = self.missing.saturating_sub(part.len());
        if fragment.is_first() {
            self.head = Some(Head::of(&fragment.packet, bytes)?);
        }
        Some(())
    }

    /// The packet, with the headers of its first fragment (RFC 791 section 3.2; RFC 8200 section 4.5) and free to be cut
    /// again. `None` when any part has not been put: frame memory holds what others have sent.
    pub fn finish(self) -> Option<Frame> {
        let Self { mut frame, missing, head } = self;
        let (head, payload) = (head?, frame.len());
        if missing > 0 || !frame.prepend(head.len) {
            return None;
        }
        frame.bytes_mut()[..head.len].copy_from_slice(&head.bytes[..head.len]);
        let ip = &mut frame.bytes_mut()[head.l3..head.len];
        if ip[0] >> 4 == 4 {
            ip[2..4].copy_from_slice(&((20 + payload) as u16).to_be_bytes());
            ip[6..8].fill(0);
            set_checksum_v4(ip);
        } else {
            ip[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
            ip[6] = head.protocol;
        }
        Some(frame)
    }
}

impl Head {
    fn of(packet: &Packet, bytes: &[u8]) -> Option<Self> {
        let l3 = usize::from(packet.l3);
        let len = l3 + if packet.key.src.is_v4() { 20 } else { 40 };
        let mut head = Self { bytes: [0; 58], len, l3, protocol: packet.key.protocol };
        head.bytes.get_mut(..len)?.copy_from_slice(bytes.get(..len)?);
        Some(head)
    }
}

fn set_checksum_v4(header: &mut [u8]) {
    header[10..12].fill(0);
    let value = !super::checksum::fold(super::checksum::sum(header));
    header[10..12].copy_from_slice(&value.to_be_bytes());
}

const MORE_V4: u16 = 0x2000;
const MORE_V6: u16 = 1;
const DONT_FRAGMENT: u8 = 0x40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Mac;
    use crate::packet::build::{self, Udp};
    use crate::packet::parse::{Parsed, parse as parse_frame, tcp_flag};

    const US: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn parsed(bytes: &[u8]) -> Result<Fragment, DropReason> {
        match parse_frame(bytes, US) {
            Ok(Parsed::Fragment(fragment)) => Ok(fragment),
            Ok(other) => panic!("not a fragment: {other:?}"),
            Err(reason) => Err(reason),
        }
    }

    fn udp(src: &str, dst: &str, payload: usize) -> Vec<Vec<u8>> {
        let payload: Vec<u8> = (0..payload).map(|at| at as u8).collect();
        build::fragments(&build::udp(&Udp { src, dst, payload: &payload, ..Udp::default() }), 1_500, 77)
    }

    #[test]
    fn offsets_ids_and_ports_of_both_families() {
        for (src, dst, room) in
            [("198.51.100.7", "192.0.2.100", 1_480), ("2001:db8::1", "2001:db8::2", 1_448)]
        {
            let all: Vec<Fragment> =
                udp(src, dst, 4_000).iter().map(|bytes| parsed(bytes).unwrap()).collect();
            let places: Vec<_> = all.iter().map(|f| (f.id, f.offset, f.len, f.more)).collect();
            let last = 4_008 - 2 * room;
            assert_eq!(places, [(77, 0, room, true), (77, room, room, true), (77, 2 * room, last, false)]);
            assert_eq!((all[0].packet.class, all[0].packet.key.dst_port), (Class::Udp, 53));
            assert_eq!((all[1].packet.class, all[1].packet.key.dst_port), (Class::Fragment, 0));
            assert!(all[0].is_first() && !all[0].is_atomic() && !all[2].is_first());
        }
    }

    #[test]
    fn every_shorter_prefix_of_a_fragment_is_truncated() {
        for bytes in
            [&udp("198.51.100.7", "192.0.2.100", 4_000)[0], &udp("2001:db8::1", "2001:db8::2", 4_000)[2]]
        {
            for len in 0..bytes.len() {
                assert_eq!(parsed(&bytes[..len]), Err(DropReason::Truncated), "length {len}");
            }
        }
    }

    #[test]
    fn what_hides_the_header_or_passes_64_kib_has_its_reason() {
        type Break = fn(&mut Vec<u8>);
        let cases: &[(&str, Break, DropReason)] = &[
            ("uneven length", |b| build::patch_ipv4(b, |h| h[3] -= 1), DropReason::FragmentMalformed),
            (
                "nothing in it",
                |b| build::patch_ipv4(b, |h| h[2..4].copy_from_slice(&[0, 20])),
                DropReason::FragmentMalformed,
            ),
            (
                "beyond 64 KiB",
                |b| build::patch_ipv4(b, |h| h[6..8].copy_from_slice(&[0x3f, 0xff])),
                DropReason::FragmentMalformed,
            ),
            ("loopback source", |b| build::patch_ipv4(b, |h| h[12] = 127), DropReason::MartianSource),
            ("broadcast mac", |b| b[..6].fill(0xff), DropReason::NotForUs),
            ("port zero", |b| b[36..38].fill(0), DropReason::MalformedUdp),
        ];
        for (name, break_it, reason) in cases {
            let mut bytes = udp("198.51.100.7", "192.0.2.100", 4_000).remove(0);
            break_it(&mut bytes);
            assert_eq!(parsed(&bytes), Err(*reason), "{name}");
        }
    }

    #[test]
    fn a_tcp_header_in_two_fragments_is_refused() {
        let syn =
            build::tcp(&build::Tcp { flags: tcp_flag::SYN, payload: &[0; 100], ..build::Tcp::default() });
        let cut = |mtu| build::fragments(&syn, mtu, 5);
        assert_eq!(parsed(&cut(28)[0]), Err(DropReason::FragmentTiny), "8 bytes: the ports only (RFC 1858)");
        assert_eq!(parsed(&cut(28)[1]), Err(DropReason::FragmentTiny), "the flags by themselves (RFC 3128)");
        assert_eq!(parsed(&cut(36)[0]), Err(DropReason::FragmentTiny), "16 bytes");
        assert!(parsed(&cut(44)[0]).is_ok(), "24 bytes hold the header");
        let mut optioned = cut(44).remove(0);
        optioned[46] = 0x70;
        assert_eq!(parsed(&optioned), Err(DropReason::FragmentTiny), "its options are elsewhere");
    }

    #[test]
    fn ipv6_fragments_hide_no_extension_headers() {
        let good = udp("2001:db8::1", "2001:db8::2", 4_000).remove(0);
        for (next, reason) in [
            (0, DropReason::IpOptions),
            (43, DropReason::IpOptions),
            (44, DropReason::IpOptions),
            (60, DropReason::IpOptions),
        ] {
            let mut bytes = good.clone();
            bytes[54] = next;
            assert_eq!(parsed(&bytes), Err(reason), "{next}");
        }
        let mut short = good.clone();
        short[18..20].copy_from_slice(&[0, 7]);
        assert_eq!(parsed(&short), Err(DropReason::Truncated));
        let mut long = good;
        long[56..58].copy_from_slice(&[0xff, 0xf9]);
        assert_eq!(parsed(&long), Err(DropReason::FragmentMalformed));
    }

    #[test]
    fn an_atomic_fragment_is_a_whole_packet() {
        let whole = build::udp(&Udp { src: "2001:db8::1", dst: "2001:db8::2", ..Udp::default() });
        let fragment = parsed(&build::atomic(&whole, 9)).unwrap();
        assert!(fragment.is_atomic());
        assert_eq!((fragment.packet.l4, fragment.packet.class), (62, Class::Udp));
    }

    #[test]
    fn another_id_keeps_the_header_checksum_right() {
        let mut bytes = udp("198.51.100.7", "192.0.2.100", 4_000).remove(1);
        set_id(&mut bytes, 0xabcd_1234);
        assert_eq!(parsed(&bytes).unwrap().id, 0x1234);
        let mut bytes = udp("2001:db8::1", "2001:db8::2", 4_000).remove(1);
        set_id(&mut bytes, 0xabcd_1234);
        assert_eq!(parsed(&bytes).unwrap().id, 0xabcd_1234);
        let whole = build::udp(&Udp { src: "2001:db8::1", dst: "2001:db8::2", ..Udp::default() });
        let mut same = whole.clone();
        set_id(&mut same, 1);
        assert_eq!(same, whole, "no field to change");
    }

    #[test]
    fn a_cut_packet_is_put_together_to_what_it_was() {
        let pool = FramePool::new(64);
        for (payload, mtu) in [(4_000, 1_500), (1_481, 1_500), (3_000, 576), (60_000, 1_500)] {
            let payload: Vec<u8> = (0..payload).map(|at: u32| (at % 251) as u8).collect();
            let mut bytes = build::udp(&Udp { payload: &payload, ..Udp::default() });
            build::patch_ipv4(&mut bytes, |h| h[6] = 0);
            assert!(may_cut(&bytes, 14));
            let frame = pool.copy_of(&bytes).unwrap();
            let cut = Cut::new(&frame, mtu).unwrap();
            let pieces: Vec<_> = (0..cut.count())
                .map(|index| cut.piece(&frame, index, &pool).unwrap().bytes().to_vec())
                .collect();
            assert!(pieces.iter().all(|piece| piece.len() <= 14 + usize::from(mtu)));
            assert_eq!(build::reassemble(&pieces), bytes);
        }
    }

    #[test]
    fn an_ipv6_packet_of_ours_is_cut_behind_a_fragment_header() {
        let pool = FramePool::new(64);
        for (payload, mtu) in [(4_000, 1_280), (1_233, 1_280), (60_000, 1_500)] {
            let payload: Vec<u8> = (0..payload).map(|at: u32| (at % 251) as u8).collect();
            let udp = Udp { src: "2001:db8::1", dst: "2001:db8::2", payload: &payload, ..Udp::default() };
            let bytes = build::udp(&udp);
            let mut frame = pool.copy_of(&bytes).unwrap();
            assert!(Cut::new(&frame, mtu).is_none(), "without a fragment header");
            assert!(add_header_v6(&mut frame, 0xabcd_0123));
            let cut = Cut::new(&frame, mtu).unwrap();
            let pieces: Vec<_> = (0..cut.count())
                .map(|index| cut.piece(&frame, index, &pool).unwrap().bytes().to_vec())
                .collect();
            assert!(pieces.iter().all(|piece| piece.len() <= 14 + usize::from(mtu)));
            assert!(pieces.iter().all(|piece| parsed(piece).unwrap().id == 0xabcd_0123));
            assert_eq!(build::reassemble(&pieces), bytes);
        }
    }

    #[test]
    fn fragments_in_any_order_make_the_packet_that_was_cut() {
        let pool = FramePool::new(4);
        for (src, dst, largest) in
            [("198.51.100.7", "192.0.2.100", 65_507), ("2001:db8::1", "2001:db8::2", 65_527)]
        {
            for (turned, payload) in [(0, 4_000), (1, 1_500), (2, 30_000), (3, largest)] {
                let payload: Vec<u8> = (0..payload).map(|at: u32| (at % 251) as u8).collect();
                let udp = Udp { src, dst, payload: &payload, ..Udp::default() };
                let mut bytes = build::udp(&udp);
                let mut pieces = build::fragments(&bytes, 1_500, 77);
                let turned = turned % pieces.len();
                pieces.rotate_left(turned);
                let fragments = pieces.iter().map(|piece| parsed(piece).unwrap());
                let total = fragments.clone().map(|fragment| fragment.len).sum();
                let mut whole = Whole::new(total, &pool).unwrap();
                for (fragment, piece) in fragments.zip(&pieces) {
                    whole.put(&fragment, piece).unwrap();
                }
                if src.contains('.') {
                    build::patch_ipv4(&mut bytes, |header| {
                        header[4..6].copy_from_slice(&[0, 77]);
                        header[6] = 0;
                    });
                }
                assert_eq!(whole.finish().unwrap().bytes(), bytes, "{src}, {} bytes", payload.len());
            }
        }
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn without_all_fragments_or_its_room_there_is_no_packet() {
        let pool = FramePool::new(1);
        let pieces = udp("198.51.100.7", "192.0.2.100", 4_000);
        let mut whole = Whole::new(4_008, &pool).unwrap();
        assert!(Whole::new(4_008, &pool).is_none(), "no memory");
        whole.put(&parsed(&pieces[1]).unwrap(), &pieces[1]).unwrap();
        assert!(whole.finish().is_none());
        let mut whole = Whole::new(4_008, &pool).unwrap();
        for piece in [&pieces[0], &pieces[2]] {
            whole.put(&parsed(piece).unwrap(), piece).unwrap();
        }
        assert!(whole.finish().is_none(), "nobody is shown what lies in a hole");
        assert!(Whole::new(70_000, &pool).is_none(), "no frame is that long");
        let mut small = Whole::new(2_000, &pool).unwrap();
        assert_eq!(small.put(&parsed(&pieces[1]).unwrap(), &pieces[1]), None);
    }

    #[test]
    fn a_fragment_is_cut_into_fragments_of_the_same_packet() {
        let pool = FramePool::new(64);
        let whole = build::udp(&Udp { payload: &[7; 4_000], ..Udp::default() });
        let mut pieces = Vec::new();
        for bytes in build::fragments(&whole, 1_500, 9) {
            let frame = pool.copy_of(&bytes).unwrap();
            let Some(cut) = Cut::new(&frame, 600) else {
                pieces.push(bytes);
                continue;
            };
            pieces.extend((0..cut.count()).map(|at| cut.piece(&frame, at, &pool).unwrap().bytes().to_vec()));
        }
        assert!(pieces.len() > 6 && pieces.iter().all(|piece| piece.len() <= 614));
        assert_eq!(build::reassemble(&pieces)[42..], whole[42..]);
    }

    #[test]
    fn packets_with_df_and_ipv6_are_not_cut() {
        assert!(!may_cut(&build::udp(&Udp::default()), 14), "DF is set");
        assert!(!may_cut(&build::udp(&Udp { src: "2001:db8::1", dst: "2001:db8::2", ..Udp::default() }), 14));
        assert!(Cut::new(&FramePool::new(1).copy_of(&[0; 100]).unwrap(), 27).is_none());
    }
}
