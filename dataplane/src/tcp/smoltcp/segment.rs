//! TCP segments as the engine looks at them itself: the few fields that decide before smoltcp sees one, and packets
//! without payload that it makes itself.

use ::smoltcp::phy::{Checksum, ChecksumCapabilities};
use ::smoltcp::wire::{
    IpAddress, IpEndpoint, IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use crate::address::Address;

/// What an IP packet takes at most: an IPv6 header and as much payload as it can say.
pub(super) const LARGEST: usize = 40 + u16::MAX as usize;

/// What a packet without payload takes at most: an IPv6 header and the longest TCP header.
pub(super) const ROOM: usize = 100;

/// The two ends of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub local: IpEndpoint,
    pub remote: IpEndpoint,
}

impl Ends {
    pub(super) fn new(local: (Address, u16), remote: (Address, u16)) -> Self {
        Self { local: endpoint(local), remote: endpoint(remote) }
    }

    /// The same, seen by the peer.
    pub(super) fn reversed(self) -> Self {
        Self { local: self.remote, remote: self.local }
    }

    /// Bytes of the IP header.
    pub(super) fn ip_header(&self) -> usize {
        if matches!(self.local.addr, IpAddress::Ipv4(_)) { 20 } else { 40 }
    }
}

fn endpoint((address, port): (Address, u16)) -> IpEndpoint {
    let address = match address.is_v4() {
        true => IpAddress::Ipv4(address.v4_octets().into()),
        false => IpAddress::Ipv6(address.v6_octets().into()),
    };
    IpEndpoint::new(address, port)
}

/// The fields of a TCP segment, of a well-formed packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    /// Bytes of payload.
    pub payload: usize,
    /// Where the TCP header begins.
    pub header: usize,
}

impl Segment {
    pub(super) const FIN: u8 = 1;
    pub(super) const SYN: u8 = 2;
    pub(super) const RST: u8 = 4;
    pub(super) const PSH: u8 = 8;
    pub(super) const ACK: u8 = 16;

    /// Reads it; `None` when it is no TCP segment or is cut short. TCP behind IPv6 extension headers is not taken.
    pub(super) fn read(packet: &[u8]) -> Option<Self> {
        let (header, len) = match packet.first()? >> 4 {
            4 => (usize::from(packet[0] & 15) * 4, usize::from(be16(packet, 2)?)),
            _ => (40, 40 + usize::from(be16(packet, 4)?)),
        };
        let protocol = *packet.get(if packet[0] >> 4 == 4 { 9 } else { 6 })?;
        let tcp = packet.get(header..len)?;
        let data = usize::from(tcp.get(12)? >> 4) * 4;
        if protocol != 6 || data < 20 || tcp.len() < data {
            return None;
        }
        let (seq, ack) = (be32(tcp, 4)?, be32(tcp, 8)?);
        Some(Self { seq, ack, flags: tcp[13], window: be16(tcp, 14)?, payload: tcp.len() - data, header })
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The sequence number after its payload.
    pub(super) fn end(&self) -> u32 {
        self.seq.wrapping_add(self.payload as u32)
    }

    /// The sequence number after all of it, SYN and FIN included.
    pub(super) fn after(&self) -> u32 {
        self.end().wrapping_add(u32::from(self.has(Self::FIN)) + u32::from(self.has(Self::SYN)))
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(be16(bytes, at)?) << 16 | u32::from(be16(bytes, at + 2)?))
}

/// A segment without payload and options.
pub(super) fn bare(
    ends: &Ends,
    control: TcpControl,
    seq: u32,
    ack: Option<u32>,
    window: u16,
) -> TcpRepr<'static> {
    TcpRepr {
        src_port: ends.local.port,
        dst_port: ends.remote.port,
        control,
        seq_number: TcpSeqNumber(seq as i32),
        ack_number: ack.map(|ack| TcpSeqNumber(ack as i32)),
        window_len: window,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    }
}

/// Bytes of the IP packet that [`emit`] makes of a segment.
pub(super) fn len(ends: &Ends, repr: &TcpRepr<'_>) -> usize {
    ends.ip_header() + repr.buffer_len()
}

/// Writes the IP packet of a segment that the local end sends; its TCP checksum stays zero.
pub(super) fn emit(ends: &Ends, repr: &TcpRepr<'_>, buffer: &mut [u8]) {
    let (from, to) = (ends.local.addr, ends.remote.addr);
    IpRepr::new(from, to, IpProtocol::Tcp, repr.buffer_len(), 64).emit(&mut *buffer, &checksums());
    let tcp = &mut buffer[ends.ip_header()..];
    repr.emit(&mut TcpPacket::new_unchecked(tcp), &from, &to, &checksums());
}

/// Reads a segment that the peer sends, options and all.
pub(super) fn parse<'a>(ends: &Ends, packet: &'a [u8], header: usize) -> Option<TcpRepr<'a>> {
    let tcp = TcpPacket::new_checked(packet.get(header..)?).ok()?;
    TcpRepr::parse(&tcp, &ends.remote.addr, &ends.local.addr, &checksums()).ok()
}

/// Copies a packet, of which this is the segment, with another window; `buffer` has [`LARGEST`] bytes. The TCP checksum
/// is not made right.
pub(super) fn with_window<'b>(
    packet: &[u8],
    segment: &Segment,
    window: u16,
    buffer: &'b mut [u8],
) -> &'b [u8] {
    let len = packet.len().min(buffer.len());
    let copy = &mut buffer[..len];
    copy.copy_from_slice(&packet[..len]);
    copy[segment.header + 14..segment.header + 16].copy_from_slice(&window.to_be_bytes());
    copy
}

/// TCP checksums are not the engine's; IPv4 header checksums are made and not verified.
pub(super) fn checksums() -> ChecksumCapabilities {
    let mut checksums = ChecksumCapabilities::ignored();
    checksums.ipv4 = Checksum::Tx;
    checksums
}
