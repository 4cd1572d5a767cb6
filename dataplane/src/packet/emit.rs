//! Packets that sluice says of its own accord: ARP, neighbour discovery, ICMP errors, RST. Cold path.
//!
//! Wire formats of ARP and neighbour discovery are smoltcp's; ICMP errors quote the offender byte for byte and are
//! built here.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv6Packet, Icmpv6Repr, Ipv4Address, Ipv6Address,
    NdiscNeighborFlags, NdiscRepr,
};

use super::checksum::{fold, sum};
use super::parse::{Class, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Packet, protocol, tcp_flag};
use super::rewrite::{LinkHeader, write_link_header};
use crate::address::{Address, Mac};
use crate::flow::key::FlowKey;
use crate::frame::{Checksum, Frame, FramePool};
use crate::tcp::handshake::SynAck;

/// An ARP message that is sent. Senders are always us.
#[derive(Debug, Clone, Copy)]
pub struct Arp {
    /// Request or reply.
    pub is_request: bool,
    /// Our address.
    pub sender: Address,
    /// Whom we ask about, or answer to.
    pub target: Address,
    /// The link address of the target; zero in a request.
    pub target_mac: Mac,
}

/// An ARP message; `None` without frame memory.
pub fn arp(pool: &FramePool, link: LinkHeader, message: Arp) -> Option<Frame> {
    let repr = ArpRepr::EthernetIpv4 {
        operation: if message.is_request { ArpOperation::Request } else { ArpOperation::Reply },
        source_hardware_addr: EthernetAddress(link.source.0),
        source_protocol_addr: Ipv4Address::from(message.sender.v4_octets()),
        target_hardware_addr: EthernetAddress(message.target_mac.0),
        target_protocol_addr: Ipv4Address::from(message.target.v4_octets()),
    };
    let (mut frame, at) = frame_for(pool, link, ETHERTYPE_ARP, repr.buffer_len())?;
    repr.emit(&mut ArpPacket::new_unchecked(&mut frame.bytes_mut()[at..]));
    Some(frame)
}

/// A neighbour solicitation from `source` for `target`, to its solicited-node group or straight to `unicast`
/// (RFC 4861 section 4.3).
pub fn neighbor_solicitation(
    pool: &FramePool,
    link: LinkHeader,
    source: Address,
    target: Address,
) -> Option<Frame> {
    let to = if link.destination.is_group() { target.solicited_node() } else { target };
    let lladdr = Some(EthernetAddress(link.source.0).into());
    let repr = NdiscRepr::NeighborSolicit { target_addr: v6(target), lladdr };
    ndisc(pool, link, source, to, repr)
}

/// A neighbour advertisement for `target`, which is ours, to `to` (RFC 4861 section 4.4).
pub fn neighbor_advertisement(
    pool: &FramePool,
    link: LinkHeader,
    target: Address,
    to: Address,
    solicited: bool,
) -> Option<Frame> {
    let asked = if solicited { NdiscNeighborFlags::SOLICITED } else { NdiscNeighborFlags::empty() };
    let repr = NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::OVERRIDE | asked,
        target_addr: v6(target),
        lladdr: Some(EthernetAddress(link.source.0).into()),
    };
    ndisc(pool, link, target, to, repr)
}

fn ndisc(pool: &FramePool, link: LinkHeader, source: Address, to: Address, repr: NdiscRepr) -> Option<Frame> {
    let repr = Icmpv6Repr::Ndisc(repr);
    let ip =
        Ip { source, destination: to, protocol: protocol::ICMPV6, ttl: 255, payload_len: repr.buffer_len() };
    let (mut frame, at) = ip_frame(pool, link, &ip)?;
    let mut message = Icmpv6Packet::new_unchecked(&mut frame.bytes_mut()[at..]);
    repr.emit(&v6(source), &v6(to), &mut message, &ChecksumCapabilities::default());
    Some(frame)
}

/// A report that we listen to `group` (MLDv2, RFC 3810 section 5.2): a change to excluding nobody. Without a link-local
/// address it comes from `::`, which switches take (RFC 3590).
pub fn listener_report(pool: &FramePool, link: LinkHeader, group: Address) -> Option<Frame> {
    let (source, destination) = (Address { high: 0, low: 0 }, MLD_ROUTERS);
    let ip = Ip { source, destination, protocol: HOP_BY_HOP, ttl: 1, payload_len: 8 + REPORT_LEN };
    let (mut frame, at) = ip_frame(pool, link, &ip)?;
    let bytes = &mut frame.bytes_mut()[at..];
    // Hop-by-hop options: router alert for MLD (RFC 2711), padding.
    bytes[..8].copy_from_slice(&[protocol::ICMPV6, 0, 5, 2, 0, 0, 1, 0]);
    let report = &mut bytes[8..];
    (report[0], report[7], report[8]) = (MLD_REPORT, 1, CHANGE_TO_EXCLUDE);
    report[12..].copy_from_slice(&group.v6_octets());
    let pseudo = sum(&destination.v6_octets()) + u64::from(protocol::ICMPV6) + REPORT_LEN as u64;
    let checksum = !fold(sum(report) + pseudo);
    report[2..4].copy_from_slice(&checksum.to_be_bytes());
    Some(frame)
}

/// ff02::16, all routers that speak MLDv2.
pub const MLD_ROUTERS: Address = Address { high: 0xff02 << 48, low: 0x16 };
const HOP_BY_HOP: u8 = 0;
/// Header, and one record without sources.
const REPORT_LEN: usize = 28;
const MLD_REPORT: u8 = 143;
const CHANGE_TO_EXCLUDE: u8 = 4;

/// What an ICMP error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcmpError {
    /// TTL or hop limit used up in transit.
    TimeExceeded,
    /// Nobody listens on this port.
    PortUnreachable,
    /// Nobody speaks this protocol.
    ProtocolUnreachable,
    /// No way there.
    HostUnreachable,
    /// No route there.
    NetUnreachable,
    /// The packet is larger than this MTU and may not be fragmented.
    TooBig(u16),
}

impl IcmpError {
    /// Type, code and the second word, by RFC 792, RFC 1191 and RFC 4443.
    fn head(self, is_v4: bool) -> (u8, u8, u32) {
        match (self, is_v4) {
            (IcmpError::TimeExceeded, true) => (11, 0, 0),
            (IcmpError::TimeExceeded, false) => (3, 0, 0),
            (IcmpError::PortUnreachable, true) => (3, 3, 0),
            (IcmpError::PortUnreachable, false) => (1, 4, 0),
            (IcmpError::ProtocolUnreachable, true) => (3, 2, 0),
            (IcmpError::ProtocolUnreachable, false) => (4, 1, 6),
            (IcmpError::HostUnreachable, true) => (3, 1, 0),
            (IcmpError::HostUnreachable, false) => (1, 3, 0),
            (IcmpError::NetUnreachable, true) => (3, 0, 0),
            (IcmpError::NetUnreachable, false) => (1, 0, 0),
            (IcmpError::TooBig(mtu), true) => (3, 4, u32::from(mtu)),
            (IcmpError::TooBig(mtu), false) => (2, 0, u32::from(mtu)),
        }
    }
}

/// An ICMP error from `source` about `offender` (bytes from its IP header on), to its sender. It quotes as much as
/// fits in 576 bytes (RFC 1812 section 4.3.2.3) or 1,280 (RFC 4443 section 2.4).
pub fn icmp_error(
    pool: &FramePool,
    link: LinkHeader,
    source: Address,
    to: Address,
    error: IcmpError,
    offender: &[u8],
) -> Option<Frame> {
    let is_v4 = source.is_v4();
    let (room, icmp) = if is_v4 { (576 - 28, protocol::ICMP) } else { (1280 - 48, protocol::ICMPV6) };
    let quoted = &offender[..offender.len().min(room)];
    let ip = Ip { source, destination: to, protocol: icmp, ttl: 64, payload_len: 8 + quoted.len() };
    let (mut frame, at) = ip_frame(pool, link, &ip)?;
    let message = &mut frame.bytes_mut()[at..];
    let (kind, code, word) = error.head(is_v4);
    message[..4].copy_from_slice(&[kind, code, 0, 0]);
    message[4..8].copy_from_slice(&word.to_be_bytes());
    message[8..].copy_from_slice(quoted);
    let pseudo = if is_v4 { 0 } else { ip.pseudo_sum() };
    let value = !fold(sum(message) + pseudo);
    message[2..4].copy_from_slice(&value.to_be_bytes());
    Some(frame)
}

/// A TCP segment without data, to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Control {
    /// Addresses and ports, as the segment leaves.
    pub key: FlowKey,
    /// TCP flags.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
}

/// A TCP segment without data or options.
pub fn tcp_control(pool: &FramePool, link: LinkHeader, control: &Control) -> Option<Frame> {
    tcp_segment(pool, link, control, 0, &[])
}

/// The SYN-ACK that answers a client's SYN, with the options that it names (RFC 9293 section 3.2, RFC 2018 section 2,
/// RFC 7323 section 2.2).
pub fn syn_ack(pool: &FramePool, link: LinkHeader, answer: &SynAck) -> Option<Frame> {
    let &SynAck { seq, ack, mss, .. } = answer;
    let flags = tcp_flag::SYN | tcp_flag::ACK;
    let control = Control { key: answer.key.reversed(), flags, seq, ack };
    let [high, low] = mss.to_be_bytes();
    let mut options = [2, 4, high, low, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut len = 4;
    let sack = answer.sack.then_some([1, 1, 4, 2]);
    let scale = answer.scale.map(|scale| [1, 3, 3, scale]);
    for option in [sack, scale].into_iter().flatten() {
        options[len..len + 4].copy_from_slice(&option);
        len += 4;
    }
    tcp_segment(pool, link, &control, answer.window, &options[..len])
}

/// `options` is as long as a multiple of four.
fn tcp_segment(
    pool: &FramePool,
    link: LinkHeader,
    control: &Control,
    window: u16,
    options: &[u8],
) -> Option<Frame> {
    let key = &control.key;
    let len = 20 + options.len();
    let ip = Ip { source: key.src, destination: key.dst, protocol: protocol::TCP, ttl: 64, payload_len: len };
    let (mut frame, at) = ip_frame(pool, link, &ip)?;
    let header = &mut frame.bytes_mut()[at..];
    header[..2].copy_from_slice(&key.src_port.to_be_bytes());
    header[2..4].copy_from_slice(&key.dst_port.to_be_bytes());
    header[4..8].copy_from_slice(&control.seq.to_be_bytes());
    header[8..12].copy_from_slice(&control.ack.to_be_bytes());
    header[12..14].copy_from_slice(&[(len as u8 / 4) << 4, control.flags]);
    header[14..16].copy_from_slice(&window.to_be_bytes());
    header[20..].copy_from_slice(options);
    let value = !fold(sum(header) + ip.pseudo_sum());
    header[16..18].copy_from_slice(&value.to_be_bytes());
    frame.offload.checksum = Checksum::Verified;
    Some(frame)
}

/// A UDP datagram without data, as a client would send it: for an ICMP error to quote.
pub fn empty_datagram(pool: &FramePool, link: LinkHeader, key: &FlowKey) -> Option<Frame> {
    let ip = Ip { source: key.src, destination: key.dst, protocol: protocol::UDP, ttl: 64, payload_len: 8 };
    let (mut frame, at) = ip_frame(pool, link, &ip)?;
    let header = &mut frame.bytes_mut()[at..];
    header[..2].copy_from_slice(&key.src_port.to_be_bytes());
    header[2..4].copy_from_slice(&key.dst_port.to_be_bytes());
    header[4..8].copy_from_slice(&[0, 8, 0, 0]);
    let value = !fold(sum(header) + ip.pseudo_sum());
    header[6..8].copy_from_slice(&value.to_be_bytes());
    Some(frame)
}

/// The RST that answers a segment of no connection (RFC 9293 section 3.10.7.1). `segment` is the frame that
/// `packet` was parsed from.
pub fn reset_for(packet: &Packet, segment: &[u8]) -> Control {
    let at = usize::from(packet.l4);
    let word = |offset: usize| {
        let bytes = segment.get(at + offset..at + offset + 4).and_then(|bytes| bytes.first_chunk::<4>());
        bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
    };
    let key = packet.key.reversed();
    if packet.tcp_flags & tcp_flag::ACK != 0 {
        return Control { key, flags: tcp_flag::RST, seq: word(8), ack: 0 };
    }
    let header_len = segment.get(at + 12).map_or(20, |byte| u32::from(byte >> 4) * 4);
    let payload = (packet.ip_len - u32::from(packet.l4 - packet.l3)).saturating_sub(header_len);
    let controls =
        u32::from(packet.tcp_flags & tcp_flag::SYN != 0) + u32::from(packet.tcp_flags & tcp_flag::FIN != 0);
    let ack = word(4).wrapping_add(payload).wrapping_add(controls);
    Control { key, flags: tcp_flag::RST | tcp_flag::ACK, seq: 0, ack }
}

/// Turns an echo request into its reply, in place but for the link header. False when it is none.
/// RFC 792; RFC 4443 section 4.2.
pub fn answer_echo(frame: &mut Frame, packet: &Packet) -> bool {
    let is_v4 = packet.key.src.is_v4();
    let (request, reply) = if is_v4 { (8, 0) } else { (128, 129) };
    let (l3, l4) = (usize::from(packet.l3), usize::from(packet.l4));
    let end = l3 + packet.ip_len as usize;
    frame.truncate(end);
    let bytes = frame.bytes_mut();
    if packet.class != Class::Icmp || bytes[l4] != request || bytes[l4 + 1] != 0 {
        return false;
    }
    let (width, at) = if is_v4 { (4, l3 + 12) } else { (16, l3 + 8) };
    let (source, destination) = bytes[at..at + 2 * width].split_at_mut(width);
    source.swap_with_slice(destination);
    bytes[l4] = reply;
    let old = u16::from_be_bytes([bytes[l4 + 2], bytes[l4 + 3]]);
    let change = u64::from(!(u16::from(request) << 8)) + (u64::from(reply) << 8);
    bytes[l4 + 2..l4 + 4].copy_from_slice(&super::rewrite::adjusted(old, change).to_be_bytes());
    set_ttl(&mut bytes[l3..], is_v4);
    true
}

fn set_ttl(ip: &mut [u8], is_v4: bool) {
    if !is_v4 {
        ip[7] = 64;
        return;
    }
    let old = u16::from_be_bytes([ip[10], ip[11]]);
    let change = u64::from(!(u16::from(ip[8]) << 8)) + (64 << 8);
    ip[8] = 64;
    ip[10..12].copy_from_slice(&super::rewrite::adjusted(old, change).to_be_bytes());
}

/// The fields of an IP header that differ.
struct Ip {
    source: Address,
    destination: Address,
    protocol: u8,
    ttl: u8,
    payload_len: usize,
}

impl Ip {
    fn pseudo_sum(&self) -> u64 {
        let address = |address: Address| {
            if address.is_v4() { sum(&address.v4_octets()) } else { sum(&address.v6_octets()) }
        };
        address(self.source) + address(self.destination) + u64::from(self.protocol) + self.payload_len as u64
    }

    fn write(&self, header: &mut [u8]) {
        let len = self.payload_len as u16;
        if !self.source.is_v4() {
            header[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, self.protocol, self.ttl]);
            header[4..6].copy_from_slice(&len.to_be_bytes());
            header[8..24].copy_from_slice(&self.source.v6_octets());
            header[24..40].copy_from_slice(&self.destination.v6_octets());
            return;
        }
        header[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, self.ttl, self.protocol, 0, 0]);
        header[2..4].copy_from_slice(&(len + 20).to_be_bytes());
        header[12..16].copy_from_slice(&self.source.v4_octets());
        header[16..20].copy_from_slice(&self.destination.v4_octets());
        let value = !fold(sum(&header[..20]));
        header[10..12].copy_from_slice(&value.to_be_bytes());
    }
}

/// A frame with link and IP header written, and where its payload begins.
fn ip_frame(pool: &FramePool, link: LinkHeader, ip: &Ip) -> Option<(Frame, usize)> {
    let (ethertype, header_len) = if ip.source.is_v4() { (ETHERTYPE_IPV4, 20) } else { (ETHERTYPE_IPV6, 40) };
    let (mut frame, at) = frame_for(pool, link, ethertype, header_len + ip.payload_len)?;
    ip.write(&mut frame.bytes_mut()[at..at + header_len]);
    Some((frame, at + header_len))
}

/// A frame with its link header written and zeroed room for `len` bytes behind it, and where those begin.
fn frame_for(pool: &FramePool, link: LinkHeader, ethertype: u16, len: usize) -> Option<(Frame, usize)> {
    let at = if link.vlan == 0 { 14 } else { 18 };
    let mut frame = pool.take()?;
    frame.set_len(at + len);
    frame.bytes_mut().fill(0);
    write_link_header(frame.bytes_mut(), link, ethertype);
    Some((frame, at))
}

fn v6(address: Address) -> Ipv6Address {
    Ipv6Address::from(address.v6_octets())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ids::{LinkId, PortId, VirtualId};
    use crate::packet::build::{self, Tcp, address, assert_checksums};
    use crate::packet::parse::{Parsed, parse};
    use crate::tcp::handshake::{Caller, Syn};

    const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const LINK: LinkHeader = LinkHeader { destination: Mac([2, 0, 0, 0, 0, 0xc]), source: US, vlan: 0 };

    fn pool() -> FramePool {
        FramePool::new(4)
    }

    fn packet(bytes: &[u8]) -> Packet {
        let Ok(Parsed::Ip(packet)) = parse(bytes, US) else { panic!("not an IP packet") };
        packet
    }

    #[test]
    fn reset_answers_an_ack_with_its_number_and_a_syn_with_the_next() {
        let ack = build::tcp(&Tcp { flags: tcp_flag::ACK, seq: 7, ack: 99, ..Tcp::default() });
        let reset = reset_for(&packet(&ack), &ack);
        assert_eq!((reset.flags, reset.seq, reset.ack), (tcp_flag::RST, 99, 0));
        let syn = build::tcp(&Tcp { flags: tcp_flag::SYN, seq: 7, payload: b"early", ..Tcp::default() });
        let reset = reset_for(&packet(&syn), &syn);
        assert_eq!((reset.flags, reset.seq, reset.ack), (tcp_flag::RST | tcp_flag::ACK, 0, 13));
        let frame = tcp_control(&pool(), LinkHeader { vlan: 9, ..LINK }, &reset).unwrap();
        assert_checksums(frame.bytes());
        assert_eq!(frame.bytes()[..6], LINK.destination.0);
    }

    #[test]
    fn a_syn_ack_is_read_as_it_was_written() {
        let caller = Caller { virtual_id: VirtualId(1), link: LinkId::new(PortId(0), 0), mac: Mac([2; 6]) };
        for (src, dst) in [("198.51.100.7", "192.0.2.100"), ("2001:db8::9", "2001:db8::1")] {
            for (scale, sack, header) in
                [(Some(9), true, 32), (Some(0), false, 28), (None, true, 28), (None, false, 24)]
            {
                let (src, dst) = (address(src), address(dst));
                let key = FlowKey { src, dst, src_port: 40_000, dst_port: 80, protocol: protocol::TCP };
                let answer =
                    SynAck { key, caller, seq: u32::MAX, ack: 7, window: 0xabcd, mss: 1440, scale, sack };
                let frame = syn_ack(&pool(), LinkHeader { vlan: 9, ..LINK }, &answer).unwrap();
                assert_checksums(frame.bytes());
                let Ok(Parsed::Ip(packet)) = parse(frame.bytes(), LINK.destination) else {
                    panic!("no packet")
                };
                assert_eq!((packet.key, packet.tcp_flags), (key.reversed(), tcp_flag::SYN | tcp_flag::ACK));
                let segment = &frame.bytes()[usize::from(packet.l4)..];
                assert_eq!((segment.len(), segment[8..12] == [0, 0, 0, 7]), (header, true));
                assert_eq!(segment[14..16], [0xab, 0xcd]);
                assert_eq!(Syn::read(segment, src.is_v4()), Syn { seq: u32::MAX, mss: 1440, scale, sack });
            }
        }
    }

    #[test]
    fn icmp_errors_quote_the_offender_and_are_bounded() {
        for (source, to, largest) in
            [("192.0.2.10", "198.51.100.7", 576), ("2001:db8::1", "2001:db8::9", 1280)]
        {
            for error in [IcmpError::TimeExceeded, IcmpError::PortUnreachable, IcmpError::TooBig(1400)] {
                let offender: Vec<u8> = (0..3000).map(|i| i as u8).collect();
                let frame =
                    icmp_error(&pool(), LINK, address(source), address(to), error, &offender).unwrap();
                assert_checksums(frame.bytes());
                assert_eq!(frame.len(), 14 + largest);
                let quoted = &frame.bytes()[if largest == 576 { 42 } else { 62 }..];
                assert_eq!(quoted, &offender[..quoted.len()]);
            }
        }
    }

    #[test]
    fn too_big_names_the_mtu() {
        let frame = icmp_error(
            &pool(),
            LINK,
            address("192.0.2.10"),
            address("192.0.2.1"),
            IcmpError::TooBig(1400),
            &[1, 2],
        )
        .unwrap();
        assert_eq!(frame.bytes()[34..36], [3, 4]);
        assert_eq!(frame.bytes()[38..42], 1400u32.to_be_bytes());
    }

    #[test]
    fn echo_is_answered_with_right_checksums() {
        let echo = |kind: u8, src: &str, dst: &str| {
            let proto = if kind == 8 { protocol::ICMP } else { protocol::ICMPV6 };
            let link = LinkHeader { destination: US, source: Mac([2; 6]), vlan: 0 };
            build::packet(link, src, dst, 5, proto, &[kind, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7], 2)
        };
        for bytes in [echo(8, "192.0.2.1", "192.0.2.10"), echo(128, "2001:db8::1", "2001:db8::2")] {
            let mut frame = pool().copy_of(&bytes).unwrap();
            let request = packet(&bytes);
            assert!(answer_echo(&mut frame, &request));
            assert_checksums(frame.bytes());
            let reply = packet(frame.bytes());
            assert_eq!((reply.key.src, reply.key.dst, reply.ttl), (request.key.dst, request.key.src, 64));
            assert!(!answer_echo(&mut frame, &reply), "a reply is not answered");
        }
    }

    #[test]
    fn neighbor_discovery_is_well_formed() {
        let (ours, theirs) = (address("2001:db8::1"), address("2001:db8::9"));
        let group = LinkHeader { destination: Mac::of_multicast_v6(theirs.solicited_node()), ..LINK };
        let ask = neighbor_solicitation(&pool(), group, ours, theirs).unwrap();
        assert_checksums(ask.bytes());
        assert_eq!(&ask.bytes()[..6], &[0x33, 0x33, 0xff, 0, 0, 9]);
        assert_eq!((ask.bytes()[21], ask.bytes()[54]), (255, 135));
        let tell = neighbor_advertisement(&pool(), LINK, ours, theirs, true).unwrap();
        assert_checksums(tell.bytes());
        assert_eq!((tell.bytes()[54], tell.bytes()[58]), (136, 0xe0));
    }

    #[test]
    fn listener_report_is_well_formed() {
        let group = address("2001:db8::12:3456").solicited_node();
        let link = LinkHeader { destination: Mac::of_multicast_v6(MLD_ROUTERS), ..LINK };
        let frame = listener_report(&pool(), link, group).unwrap();
        let bytes = frame.bytes();
        assert_eq!((&bytes[..6], bytes.len()), (&[0x33, 0x33, 0, 0, 0, 0x16][..], 14 + 40 + 8 + 28));
        assert_eq!(
            (bytes[20], bytes[21], &bytes[22..38]),
            (0, 1, &[0; 16][..]),
            "hop by hop, hop limit, from ::"
        );
        assert_eq!(&bytes[54..62], &[58, 0, 5, 2, 0, 0, 1, 0]);
        let report = &bytes[62..];
        assert_eq!(
            (report[0], &report[4..12], &report[12..]),
            (143, &[0, 0, 0, 1, 4, 0, 0, 0][..], &group.v6_octets()[..])
        );
        let pseudo = sum(&MLD_ROUTERS.v6_octets()) + 58 + 28;
        assert_eq!(fold(sum(report) + pseudo), 0xffff, "the checksum adds up");
    }

    #[test]
    fn arp_request_is_well_formed() {
        let message = Arp {
            is_request: true,
            sender: address("192.0.2.10"),
            target: address("192.0.2.1"),
            target_mac: Mac::default(),
        };
        let frame = arp(&pool(), LinkHeader { destination: Mac::BROADCAST, ..LINK }, message).unwrap();
        let expected =
            [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 192, 0, 2, 10, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1];
        assert_eq!(frame.bytes()[14..], expected);
    }
}
