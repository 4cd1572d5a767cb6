//! Packets made by hand.

use sluice_dataplane::frame::{Checksum, Frame, FramePool, SegmentKind, Segmentation};
use sluice_dataplane::packet::checksum::{fold, sum};

/// An Ethernet header, with a tag for VLAN `vlan` when there is one.
pub(crate) fn ethernet(to: [u8; 6], from: [u8; 6], vlan: Option<u16>, ethertype: u16) -> Vec<u8> {
    let mut bytes = [to, from].concat();
    if let Some(vlan) = vlan {
        bytes.extend(0x8100u16.to_be_bytes());
        bytes.extend(vlan.to_be_bytes());
    }
    bytes.extend(ethertype.to_be_bytes());
    bytes
}

/// An IPv4 packet of `protocol` from 192.0.2.1 to 192.0.2.2.
pub(crate) fn ipv4(protocol: u8, content: &[u8]) -> Vec<u8> {
    let len = (20 + content.len()) as u16;
    let mut bytes = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    let checksum = !fold(sum(&bytes));
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    bytes.extend(content);
    bytes
}

/// A TCP or UDP frame with an open checksum, to be cut into segments of `payload_bytes` when that is not 0.
pub(crate) fn unfinished(
    pool: &FramePool,
    link: &[u8],
    kind: SegmentKind,
    payload: &[u8],
    payload_bytes: u16,
) -> Frame {
    let is_udp = kind == SegmentKind::Udp;
    let (protocol, offset) = if is_udp { (17u8, 6) } else { (6, 16) };
    let mut content = if is_udp { udp(payload.len()) } else { tcp() };
    let len = content.len() + payload.len();
    let pseudo = sum(&[192, 0, 2, 1, 192, 0, 2, 2]) + u64::from(protocol) + len as u64;
    let field = usize::from(offset);
    content[field..field + 2].copy_from_slice(&fold(pseudo).to_be_bytes());
    content.extend(payload);
    let bytes = [link, &ipv4(protocol, &content)].concat();
    let mut frame = pool.copy_of(&bytes).expect("fits");
    frame.offload.checksum = Checksum::Partial { start: link.len() as u16 + 20, offset };
    let segmentation = Segmentation { kind, ecn: false, payload_bytes };
    frame.offload.segmentation = (payload_bytes > 0).then_some(segmentation);
    frame
}

/// An ARP request from 192.0.2.1 for 192.0.2.9.
pub(crate) fn arp_request(from: [u8; 6]) -> Vec<u8> {
    let mut bytes = ethernet([0xff; 6], from, None, 0x0806);
    bytes.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    bytes.extend(from);
    bytes.extend([192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 9]);
    bytes.resize(60, 0);
    bytes
}

fn udp(payload_len: usize) -> Vec<u8> {
    let mut header = vec![0x9c, 0x40, 0x00, 0x35, 0, 0, 0, 0];
    header[4..6].copy_from_slice(&(8 + payload_len as u16).to_be_bytes());
    header
}

fn tcp() -> Vec<u8> {
    vec![0x9c, 0x40, 0x00, 0x50, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]
}
