//! TCP segments as they come and go: a view of a packet's fields, and headers written in place.

use super::seq::Seq;
use crate::address::Address;
use crate::packet::checksum::{fold, sum};
use crate::tcp::handshake::next_option;

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const PSH: u8 = 8;
pub(super) const ACK: u8 = 16;

/// A segment in a well-formed packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment<'p> {
    pub seq: Seq,
    pub ack: Seq,
    pub flags: u8,
    pub window: u16,
    /// The TCP header with its options.
    pub header: &'p [u8],
    pub payload: &'p [u8],
}

impl<'p> Segment<'p> {
    /// Reads it; `None` when it is no TCP segment or is cut short. TCP behind IPv6 extension headers is not taken.
    #[inline]
    pub(super) fn read(packet: &'p [u8]) -> Option<Self> {
        let (start, end, protocol) = match packet.first()? >> 4 {
            4 => (usize::from(packet[0] & 15) * 4, usize::from(be16(packet, 2)?), *packet.get(9)?),
            6 => (40, 40 + usize::from(be16(packet, 4)?), *packet.get(6)?),
            _ => return None,
        };
        let tcp = packet.get(start..end)?;
        let (fixed, _) = tcp.split_first_chunk::<TCP_HEADER>()?;
        let (header, payload) = tcp.split_at_checked(usize::from(fixed[12] >> 4) * 4)?;
        (protocol == TCP && header.len() >= TCP_HEADER).then(|| Self {
            seq: Seq(u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]])),
            ack: Seq(u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]])),
            flags: fixed[13],
            window: u16::from_be_bytes([fixed[14], fixed[15]]),
            header,
            payload,
        })
    }

    #[inline(always)]
    pub(super) fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// The number after its payload.
    #[inline(always)]
    pub(super) fn end(&self) -> Seq {
        self.seq + self.payload.len()
    }

    /// Numbers that it takes, SYN and FIN included.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.payload.len() + usize::from(self.has(FIN)) + usize::from(self.has(SYN))
    }

    /// What the peer says it holds beyond what it acknowledges (RFC 2018 section 3).
    pub(super) fn sack_blocks(&self) -> impl Iterator<Item = (Seq, Seq)> + 'p {
        let block = |bytes: &[u8; 8]| {
            let [a, b, c, d, e, f, g, h] = *bytes;
            (Seq(u32::from_be_bytes([a, b, c, d])), Seq(u32::from_be_bytes([e, f, g, h])))
        };
        option(&self.header[TCP_HEADER..], KIND_SACK_BLOCKS).as_chunks::<8>().0.iter().map(block)
    }
}

/// What follows the length of the first option of a kind; empty without one.
fn option(mut options: &[u8], kind: u8) -> &[u8] {
    while let Some((option, rest)) = next_option(options) {
        if option[0] == kind {
            return option.get(2..).unwrap_or_default();
        }
        options = rest;
    }
    &[]
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The two ends of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub local: (Address, u16),
    pub remote: (Address, u16),
}

impl Ends {
    /// Bytes of the IP header.
    #[inline(always)]
    pub(super) fn ip_header(&self) -> usize {
        if self.local.0.is_v4() { 20 } else { 40 }
    }

    /// True when packets may go from the one to the other.
    pub(super) fn are_possible(&self) -> bool {
        let (local, remote) = (self.local.0, self.remote.0);
        let is_nobody = |address: Address| match address.is_v4() {
            true => address.v4_octets() == [0; 4],
            false => address.v6_octets() == [0; 16],
        };
        local.is_v4() == remote.is_v4() && !is_nobody(remote) && self.local.1 != 0 && self.remote.1 != 0
    }
}

/// The header of a segment that leaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub flags: u8,
    pub seq: Seq,
    pub ack: Seq,
    pub window: u16,
    pub options: Options,
}

/// Options in the bytes of a header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    bytes: [u8; OPTIONS_MAX],
    len: u8,
}

impl Options {
    pub(super) const NONE: Options = Options { bytes: [KIND_NOTHING; OPTIONS_MAX], len: 0 };

    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Of a SYN.
    pub(super) fn of_syn(mss: u16, scale: Option<u8>, sack: bool) -> Self {
        let mut options = Self::NONE;
        let [high, low] = mss.to_be_bytes();
        options.add(&[KIND_MSS, 4, high, low]);
        if let Some(scale) = scale {
            options.add(&[KIND_NOTHING, KIND_SCALE, 3, scale]);
        }
        if sack {
            options.add(&[KIND_NOTHING, KIND_NOTHING, KIND_SACK, 2]);
        }
        options
    }

    /// What we hold beyond what we acknowledge, the most important first; as many as there is room for.
    pub(super) fn of_blocks(blocks: impl Iterator<Item = (Seq, Seq)>) -> Self {
        let mut options = Self::NONE;
        options.add(&[KIND_NOTHING, KIND_NOTHING, KIND_SACK_BLOCKS, 2]);
        for (start, end) in blocks.take(BLOCKS_MAX) {
            options.add(&start.0.to_be_bytes());
            options.add(&end.0.to_be_bytes());
            options.bytes[3] += 8;
        }
        options
    }

    fn add(&mut self, bytes: &[u8]) {
        let at = self.len();
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u8;
    }
}

impl Header {
    /// Bytes of both headers.
    #[inline(always)]
    pub(super) fn len(&self, ends: &Ends) -> usize {
        ends.ip_header() + TCP_HEADER + self.options.len()
    }

    /// Writes both headers of a packet that is as long as `packet` and returns where the payload begins. The TCP checksum is
    /// zero, the packet not to be fragmented (RFC 6864 section 4.1: its identification says nothing).
    #[inline]
    pub(super) fn write<'b>(&self, ends: &Ends, packet: &'b mut [u8]) -> &'b mut [u8] {
        let len = packet.len();
        let (ip, tcp) = packet.split_at_mut(ends.ip_header());
        let (local, remote) = (ends.local.0, ends.remote.0);
        if ip.len() == 20 {
            let [high, low] = (len as u16).to_be_bytes();
            ip[..12].copy_from_slice(&[0x45, 0, high, low, 0, 0, 0x40, 0, TTL, TCP, 0, 0]);
            ip[12..16].copy_from_slice(&local.v4_octets());
            ip[16..].copy_from_slice(&remote.v4_octets());
            let checksum = !fold(sum(ip));
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        } else {
            let [high, low] = (tcp.len() as u16).to_be_bytes();
            ip[..8].copy_from_slice(&[0x60, 0, 0, 0, high, low, TCP, TTL]);
            ip[8..24].copy_from_slice(&local.v6_octets());
            ip[24..].copy_from_slice(&remote.v6_octets());
        }
        self.write_tcp((ends.local.1, ends.remote.1), tcp)
    }

    #[inline(always)]
    fn write_tcp<'b>(&self, (from, to): (u16, u16), tcp: &'b mut [u8]) -> &'b mut [u8] {
        let header = TCP_HEADER + self.options.len();
        tcp[..2].copy_from_slice(&from.to_be_bytes());
        tcp[2..4].copy_from_slice(&to.to_be_bytes());
        tcp[4..8].copy_from_slice(&self.seq.0.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.ack.0.to_be_bytes());
        let [high, low] = self.window.to_be_bytes();
        tcp[12..20].copy_from_slice(&[(header as u8 / 4) << 4, self.flags, high, low, 0, 0, 0, 0]);
        tcp[TCP_HEADER..header].copy_from_slice(&self.options.bytes[..self.options.len()]);
        &mut tcp[header..]
    }
}

pub(super) const TCP_HEADER: usize = 20;
const OPTIONS_MAX: usize = 40;
/// Four blocks and their header take 36 bytes.
const BLOCKS_MAX: usize = 4;
const TCP: u8 = 6;
const TTL: u8 = 64;
const KIND_NOTHING: u8 = 1;
const KIND_MSS: u8 = 2;
const KIND_SCALE: u8 = 3;
const KIND_SACK: u8 = 4;
const KIND_SACK_BLOCKS: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::build::address;
    use crate::tcp::handshake::Syn;

    fn ends(v6: bool) -> Ends {
        match v6 {
            false => Ends { local: (address("192.0.2.1"), 80), remote: (address("192.0.2.2"), 1024) },
            true => Ends { local: (address("2001:db8::1"), 80), remote: (address("2001:db8::2"), 1024) },
        }
    }

    fn written(v6: bool, header: &Header, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0xa5; header.len(&ends(v6)) + payload.len()];
        header.write(&ends(v6), &mut packet).copy_from_slice(payload);
        packet
    }

    const HEADER: Header =
        Header { flags: ACK | PSH, seq: Seq(7), ack: Seq(u32::MAX), window: 9, options: Options::NONE };

    #[test]
    fn what_is_written_is_read() {
        for v6 in [false, true] {
            let packet = written(v6, &HEADER, b"payload");
            let segment = Segment::read(&packet).unwrap_or_else(|| panic!("{packet:?}"));
            assert_eq!((segment.seq, segment.ack, segment.flags), (HEADER.seq, HEADER.ack, HEADER.flags));
            assert_eq!((segment.window, segment.header.len(), segment.payload), (9, 20, &b"payload"[..]));
            assert!((0..packet.len()).all(|len| Segment::read(&packet[..len]).is_none()));
            if !v6 {
                assert_eq!(fold(sum(&packet[..20])), 0xffff, "the checksum of the IPv4 header");
            }
        }
    }

    #[test]
    fn a_syn_says_all_that_there_is_to_say() {
        for (scale, sack) in [(None, false), (None, true), (Some(7), false), (Some(0), true)] {
            let header = Header { flags: SYN, options: Options::of_syn(1460, scale, sack), ..HEADER };
            let packet = written(false, &header, b"");
            assert_eq!(Syn::read(&packet[20..], true), Syn { seq: 7, mss: 1460, scale, sack });
        }
    }

    #[test]
    fn blocks_are_read_as_they_were_written_and_nonsense_is_not() {
        let blocks =
            [(Seq(1), Seq(5)), (Seq(u32::MAX), Seq(0)), (Seq(3), Seq(4)), (Seq(5), Seq(6)), (Seq(7), Seq(8))];
        let header = Header { options: Options::of_blocks(blocks.into_iter()), ..HEADER };
        let packet = written(true, &header, b"x");
        let read: Vec<_> = Segment::read(&packet).iter().flat_map(Segment::sack_blocks).collect();
        assert_eq!(read, blocks[..4]);
        for nonsense in
            [&[5, 10, 0][..], &[5], &[5, 0, 0, 0], &[9, 1, 5, 2], &[0, 5, 10, 1, 1, 1, 1, 1, 1, 1, 1]]
        {
            assert_eq!(option(nonsense, KIND_SACK_BLOCKS), &[], "{nonsense:?}");
        }
        assert_eq!(option(&[1, 3, 3, 9, 5, 3, 8], KIND_SACK_BLOCKS), &[8]);
    }
}
