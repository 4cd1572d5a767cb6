//! Between a frame's unfinished work and what DPDK asks of a device.

use sluice_ffi::dpdk::{Mbuf, Offloads, TxWork};

use crate::frame::{Checksum, Frame, SegmentKind};
use crate::packet::checksum::fold;

/// What the device shall do about the frame's partial checksum; `None` when there is none, or the device cannot.
pub(super) fn checksum_work(frame: &Frame, offloads: &Offloads) -> Option<TxWork> {
    let Checksum::Partial { start, offset } = frame.offload.checksum else { return None };
    let work = describe(frame.bytes(), start.into(), offset)?;
    let can = if work.is_tcp { offloads.tx_checksum_tcp } else { offloads.tx_checksum_udp };
    can.then_some(work)
}

/// How the device shall cut the super-frame; `None` when it cannot.
pub(super) fn segmentation_work(frame: &Frame, offloads: &Offloads) -> Option<TxWork> {
    let segmentation = frame.offload.segmentation?;
    let Checksum::Partial { start, offset } = frame.offload.checksum else { return None };
    let can = offloads.tso && segmentation.kind != SegmentKind::Udp && !segmentation.ecn;
    let work = describe(frame.bytes(), start.into(), offset).filter(|work| can && work.is_tcp)?;
    Some(TxWork { segment_bytes: segmentation.payload_bytes, ..work })
}

/// Bytes of a full segment, from the link header on.
pub(super) fn segment_len(work: &TxWork) -> usize {
    usize::from(work.l2_len)
        + usize::from(work.l3_len)
        + usize::from(work.l4_len)
        + usize::from(work.segment_bytes)
}

/// Asks the device for a checksum that [`checksum_work`] has found it to finish.
#[cold]
pub(super) fn request(mut mbuf: Mbuf, checksum: Checksum) -> Mbuf {
    if let Checksum::Partial { start, offset } = checksum
        && let Some(work) = describe(mbuf.bytes(), start.into(), offset)
    {
        mbuf.request(&work);
    }
    mbuf
}

/// The state of a frame whose TCP or UDP checksum its sender left to hardware; `None` when it holds neither.
pub(super) fn locate_checksum(bytes: &[u8]) -> Option<Checksum> {
    let (l3, is_v4) = network_header(bytes)?;
    let header = bytes.get(l3..)?;
    let (protocol, length) = match is_v4 {
        true => (*header.get(9)?, usize::from(header[0] & 15) * 4),
        false => (*header.get(6)?, 40),
    };
    let offset = match protocol {
        6 => TCP_CHECKSUM,
        17 => UDP_CHECKSUM,
        _ => return None,
    };
    let start = l3 + length;
    (bytes.len() >= start + usize::from(offset) + 2)
        .then_some(Checksum::Partial { start: start as u16, offset })
}

/// Takes the length out of the pseudo-header's sum: it is different in each segment, and the device adds it.
pub(super) fn leave_length_out(packet: &mut Mbuf, work: &TxWork) {
    let start = usize::from(work.l2_len) + usize::from(work.l3_len);
    let field = start + usize::from(TCP_CHECKSUM);
    let length = packet.chain_len().saturating_sub(start) as u16;
    let Some(place) = packet.bytes_mut().get_mut(field..field + 2) else { return };
    let with_length = u16::from_be_bytes([place[0], place[1]]);
    place.copy_from_slice(&fold(u64::from(with_length) + u64::from(!length)).to_be_bytes());
}

/// The lengths of a frame's headers; `None` for what is not TCP or UDP over IP.
fn describe(bytes: &[u8], l4: usize, checksum_offset: u16) -> Option<TxWork> {
    let (l3, is_v4) = network_header(bytes)?;
    let is_tcp = match checksum_offset {
        TCP_CHECKSUM => true,
        UDP_CHECKSUM => false,
        _ => return None,
    };
    let l4_len = if is_tcp { (*bytes.get(l4 + 12)? >> 4) * 4 } else { 8 };
    let l3_len = u16::try_from(l4.checked_sub(l3)?).ok().filter(|length| (20..512).contains(length))?;
    Some(TxWork { l2_len: l3 as u8, l3_len, l4_len, is_v4, is_tcp, segment_bytes: 0 })
}

/// Where the IP header starts, behind up to two tags, and whether it is IPv4.
fn network_header(bytes: &[u8]) -> Option<(usize, bool)> {
    let mut place = 12;
    for _ in 0..3 {
        match bytes.get(place..place + 2)? {
            [0x08, 0x00] => return Some((place + 2, true)),
            [0x86, 0xdd] => return Some((place + 2, false)),
            [0x81, 0x00] | [0x88, 0xa8] => place += 4,
            _ => return None,
        }
    }
    None
}

/// Where the checksum field is in its header (RFC 9293 section 3.1, RFC 768).
const TCP_CHECKSUM: u16 = 16;
const UDP_CHECKSUM: u16 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{FramePool, Segmentation};

    const ALL: Offloads =
        Offloads { rx_checksum: true, tx_checksum_tcp: true, tx_checksum_udp: true, tso: true, rss: false };

    /// Ethernet with `tags` tags, then an IPv4 header of 24 bytes or an IPv6 header, then zeros.
    fn bytes(tags: usize, is_v4: bool, protocol: u8) -> Vec<u8> {
        let mut bytes = vec![0; 12];
        bytes.extend([0x81, 0, 0, 7].repeat(tags));
        bytes.extend(if is_v4 { [0x08, 0x00] } else { [0x86, 0xdd] });
        let l3 = bytes.len();
        bytes.resize(l3 + 80, 0);
        bytes[l3] = if is_v4 { 0x46 } else { 0x60 };
        bytes[l3 + if is_v4 { 9 } else { 6 }] = protocol;
        bytes[l3 + if is_v4 { 24 } else { 40 } + 12] = 0x80;
        bytes
    }

    fn frame(bytes: &[u8], checksum: Checksum) -> Frame {
        let mut frame = FramePool::new(1).copy_of(bytes).unwrap();
        frame.offload.checksum = checksum;
        frame
    }

    #[test]
    fn headers_are_measured_behind_tags_and_options() {
        let tagged = frame(&bytes(1, true, 6), Checksum::Partial { start: 42, offset: 16 });
        let expected =
            TxWork { l2_len: 18, l3_len: 24, l4_len: 32, is_v4: true, is_tcp: true, segment_bytes: 0 };
        assert_eq!(checksum_work(&tagged, &ALL), Some(expected));
        let udp6 = frame(&bytes(0, false, 17), Checksum::Partial { start: 54, offset: 6 });
        let expected =
            TxWork { l2_len: 14, l3_len: 40, l4_len: 8, is_v4: false, is_tcp: false, segment_bytes: 0 };
        assert_eq!(checksum_work(&udp6, &ALL), Some(expected));
        assert_eq!(checksum_work(&udp6, &Offloads { tx_checksum_udp: false, ..ALL }), None);
    }

    #[test]
    fn unfinished_checksums_are_found() {
        let place = |start, offset| Some(Checksum::Partial { start, offset });
        assert_eq!(locate_checksum(&bytes(1, true, 6)), place(42, 16));
        assert_eq!(locate_checksum(&bytes(0, false, 17)), place(54, 6));
        assert_eq!(locate_checksum(&bytes(0, true, 1)), None);
        assert!((0..60).all(|len| locate_checksum(&bytes(2, true, 6)[..len]).is_none()), "cut short");
    }

    #[test]
    fn only_tcp_without_ecn_is_left_to_the_device() {
        let mut tcp = frame(&bytes(0, true, 6), Checksum::Partial { start: 38, offset: 16 });
        let cut = Segmentation { kind: SegmentKind::Tcp4, ecn: false, payload_bytes: 1448 };
        tcp.offload.segmentation = Some(cut);
        assert_eq!(segmentation_work(&tcp, &ALL).map(|work| work.segment_bytes), Some(1448));
        assert_eq!(segmentation_work(&tcp, &Offloads { tso: false, ..ALL }), None);
        tcp.offload.segmentation = Some(Segmentation { ecn: true, ..cut });
        assert_eq!(segmentation_work(&tcp, &ALL), None);
    }
}
