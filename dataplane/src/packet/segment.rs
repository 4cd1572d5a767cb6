//! Cutting a super-frame into MTU-sized frames in software, for devices that cannot.
//!
//! ```text
//!   │ Ethernet [tags] IP TCP/UDP │ payload ...................... │
//!   │ headers, id+0, seq+0       │ payload_bytes │
//!                        │ headers, id+1, seq+n  │ payload_bytes │
//!                                        │ headers, FIN PSH …    │ rest │
//! ```
//!
//! The pieces are finished: lengths, IPv4 header checksum, TCP or UDP checksum.

use std::ops::Range;

use super::checksum::{fold, sum};
use crate::frame::{Checksum, Frame, FramePool, Offload, SegmentKind, Segmentation};

/// Why a frame was not cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// The frame is not a super-frame: its offload has no segmentation.
    #[error("the frame has no segmentation to do")]
    NotSegmented,
    /// Its headers are not what its segmentation says, or are cut short.
    #[error("the headers do not fit the segmentation")]
    Malformed,
    /// The pool had fewer frames than there are segments.
    #[error("no frame memory")]
    Exhausted,
}

/// Cuts `frame` into finished frames from `pool`, in order, behind what is in `out`; returns how many.
///
/// The headers of `frame` are those of the whole, as GSO leaves them. IPv4 ids count up, sequence numbers advance,
/// FIN and PSH stay for the last segment and, with `ecn`, CWR for the first (RFC 3168 section 6.1.2). What lies
/// behind the IP packet is left out. Copies and sums each payload byte once.
///
/// # Errors
/// [`SegmentError`]; `out` is as before then.
pub fn segment(frame: &Frame, pool: &FramePool, out: &mut Vec<Frame>) -> Result<usize, SegmentError> {
    let cut = Cut::new(frame)?;
    let before = out.len();
    let payload = &frame.bytes()[cut.payload.clone()];
    let count = payload.len().div_ceil(cut.payload_bytes).max(1);
    for index in 0..count {
        let start = index * cut.payload_bytes;
        let part = &payload[start..payload.len().min(start + cut.payload_bytes)];
        let Some(piece) = cut.piece(pool, &frame.bytes()[..cut.payload.start], part) else {
            out.truncate(before);
            return Err(SegmentError::Exhausted);
        };
        out.push(cut.finish(piece, index, index + 1 == count));
    }
    Ok(count)
}

/// Where the parts of a super-frame are: l3 < l4 < payload.start <= payload.end <= frame length.
struct Cut {
    l3: usize,
    l4: usize,
    payload: Range<usize>,
    payload_bytes: usize,
    is_v4: bool,
    is_tcp: bool,
    ecn: bool,
}

impl Cut {
    fn new(frame: &Frame) -> Result<Self, SegmentError> {
        let Segmentation { kind, ecn, payload_bytes } =
            frame.offload.segmentation.ok_or(SegmentError::NotSegmented)?;
        let is_tcp = kind != SegmentKind::Udp;
        let cut = Self::locate(frame.bytes(), is_tcp).ok_or(SegmentError::Malformed)?;
        let family_fits = match kind {
            SegmentKind::Tcp4 => cut.is_v4,
            SegmentKind::Tcp6 => !cut.is_v4,
            SegmentKind::Udp => true,
        };
        if !family_fits || payload_bytes == 0 {
            return Err(SegmentError::Malformed);
        }
        Ok(Self { payload_bytes: usize::from(payload_bytes), ecn, ..cut })
    }

    fn locate(bytes: &[u8], is_tcp: bool) -> Option<Self> {
        let (l3, is_v4) = network_header(bytes)?;
        let protocol = if is_tcp { TCP } else { UDP };
        let (l4, end) = if is_v4 { after_v4(bytes, l3, protocol)? } else { after_v6(bytes, l3, protocol)? };
        let l4_len = if is_tcp { usize::from(*bytes.get(l4 + 12)? >> 4) * 4 } else { UDP_HEADER_BYTES };
        let is_whole = l4_len >= if is_tcp { TCP_HEADER_BYTES } else { UDP_HEADER_BYTES };
        let payload = l4 + l4_len..end;
        let fits = is_whole && payload.start <= end && end <= bytes.len();
        fits.then_some(Self { l3, l4, payload, payload_bytes: 0, is_v4, is_tcp, ecn: false })
    }

    /// The headers of the whole and one part of the payload.
    fn piece(&self, pool: &FramePool, headers: &[u8], part: &[u8]) -> Option<Frame> {
        let mut piece = pool.take()?;
        let room = piece.room_mut()?;
        room.get_mut(..headers.len())?.copy_from_slice(headers);
        room.get_mut(headers.len()..headers.len() + part.len())?.copy_from_slice(part);
        piece.set_len(headers.len() + part.len());
        Some(piece)
    }

    fn finish(&self, mut piece: Frame, index: usize, is_last: bool) -> Frame {
        let bytes = piece.bytes_mut();
        if self.is_v4 {
            self.finish_v4(bytes, index);
        } else {
            let payload_len = (bytes.len() - self.l3 - V6_HEADER_BYTES) as u16;
            put(bytes, self.l3 + 4, payload_len);
        }
        if self.is_tcp {
            self.finish_tcp(bytes, index, is_last);
        } else {
            put(bytes, self.l4 + 4, (bytes.len() - self.l4) as u16);
        }
        self.finish_checksum(bytes);
        piece.offload = Offload { checksum: Checksum::Verified, segmentation: None };
        piece
    }

    fn finish_v4(&self, bytes: &mut [u8], index: usize) {
        let id = word(bytes, self.l3 + 4).wrapping_add(index as u16);
        put(bytes, self.l3 + 2, (bytes.len() - self.l3) as u16);
        put(bytes, self.l3 + 4, id);
        put(bytes, self.l3 + 10, 0);
        let checksum = !fold(sum(&bytes[self.l3..self.l4]));
        put(bytes, self.l3 + 10, checksum);
    }

    fn finish_tcp(&self, bytes: &mut [u8], index: usize, is_last: bool) {
        let at = self.l4 + 4;
        let sequence = u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let sequence = sequence.wrapping_add((index * self.payload_bytes) as u32);
        bytes[at..at + 4].copy_from_slice(&sequence.to_be_bytes());
        let mut cleared = 0;
        if !is_last {
            cleared |= TCP_FIN | TCP_PSH;
        }
        if self.ecn && index > 0 {
            cleared |= TCP_CWR;
        }
        bytes[self.l4 + 13] &= !cleared;
    }

    fn finish_checksum(&self, bytes: &mut [u8]) {
        let (field, protocol) =
            if self.is_tcp { (self.l4 + 16, TCP) } else { (self.l4 + UDP_CHECKSUM_OFFSET, UDP) };
        put(bytes, field, 0);
        let addresses = if self.is_v4 { self.l3 + 12..self.l3 + 20 } else { self.l3 + 8..self.l3 + 40 };
        let pseudo = sum(&bytes[addresses]) + (bytes.len() - self.l4) as u64 + u64::from(protocol);
        let checksum = !fold(pseudo + sum(&bytes[self.l4..]));
        // RFC 768: a UDP sum of zero goes out as all ones; for TCP the two mean the same.
        put(bytes, field, if checksum == 0 { 0xffff } else { checksum });
    }
}

/// Where the IP header begins, behind at most two tags, and whether it is IPv4.
fn network_header(bytes: &[u8]) -> Option<(usize, bool)> {
    for l3 in [14, 18, 22] {
        let ethertype = bytes.get(l3 - 2..l3)?;
        match u16::from_be_bytes([ethertype[0], ethertype[1]]) {
            0x0800 => return Some((l3, true)),
            0x86dd => return Some((l3, false)),
            0x8100 | 0x88a8 => {}
            _ => return None,
        }
    }
    None
}

/// Where TCP or UDP begins and the packet ends. `None` for fragments and other protocols.
fn after_v4(bytes: &[u8], l3: usize, protocol: u8) -> Option<(usize, usize)> {
    let header = bytes.get(l3..l3 + V4_HEADER_BYTES)?;
    let (version, header_len) = (header[0] >> 4, usize::from(header[0] & 15) * 4);
    let is_fragment = word(header, 6) & 0x3fff != 0;
    let end = l3 + usize::from(word(header, 2));
    let fits = version == 4 && header_len >= V4_HEADER_BYTES && !is_fragment && header[9] == protocol;
    (fits && l3 + header_len <= bytes.len()).then_some((l3 + header_len, end))
}

/// As [`after_v4`], past the extension headers that leave the addresses alone (RFC 8200 section 4.1).
fn after_v6(bytes: &[u8], l3: usize, protocol: u8) -> Option<(usize, usize)> {
    let header = bytes.get(l3..l3 + V6_HEADER_BYTES)?;
    let end = l3 + V6_HEADER_BYTES + usize::from(word(header, 4));
    let (mut next, mut at) = (header[6], l3 + V6_HEADER_BYTES);
    if header[0] >> 4 != 6 {
        return None;
    }
    while next != protocol {
        let is_extension = matches!(next, V6_HOP_BY_HOP | V6_DESTINATION);
        let extension = bytes.get(at..at + 8).filter(|_| is_extension)?;
        next = extension[0];
        at += 8 + usize::from(extension[1]) * 8;
    }
    Some((at, end))
}

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline(always)]
fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;
const TCP_HEADER_BYTES: usize = 20;
const UDP_HEADER_BYTES: usize = 8;
const UDP_CHECKSUM_OFFSET: usize = 6;
const V4_HEADER_BYTES: usize = 20;
const V6_HEADER_BYTES: usize = 40;
const V6_HOP_BY_HOP: u8 = 0;
const V6_DESTINATION: u8 = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::checksum;

    /// A super-frame under construction, and what its segments must say.
    #[derive(Debug, Clone)]
    struct Super {
        kind: SegmentKind,
        v6: bool,
        tags: usize,
        options_bytes: usize,
        flags: u8,
        ecn: bool,
        payload: Vec<u8>,
        payload_bytes: u16,
    }

    const SEQUENCE: u32 = u32::MAX - 3000;
    const ID: u16 = 65_534;

    impl Super {
        fn tcp4(payload_len: usize, payload_bytes: u16) -> Self {
            let payload = (0..payload_len).map(|index| ((index * 31) >> 3) as u8).collect();
            let (kind, v6, tags, options_bytes) = (SegmentKind::Tcp4, false, 0, 0);
            Self { kind, v6, tags, options_bytes, flags: 0x10, ecn: false, payload, payload_bytes }
        }

        fn is_tcp(&self) -> bool {
            self.kind != SegmentKind::Udp
        }

        fn l3(&self) -> usize {
            14 + 4 * self.tags
        }

        fn l4(&self) -> usize {
            self.l3() + if self.v6 { 40 } else { 20 }
        }

        fn headers_len(&self) -> usize {
            self.l4() + if self.is_tcp() { 20 + self.options_bytes } else { 8 }
        }

        fn bytes(&self) -> Vec<u8> {
            let mut bytes = vec![0xee; 12];
            bytes.extend([0x81, 0x00, 0x00, 0x2a].repeat(self.tags));
            let l4_len = (self.headers_len() - self.l4() + self.payload.len()) as u16;
            let protocol = if self.is_tcp() { TCP } else { UDP };
            if self.v6 {
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                bytes.extend(l4_len.to_be_bytes());
                bytes.extend([protocol, 64]);
                bytes.extend([0x20; 32]);
            } else {
                bytes.extend([0x08, 0x00, 0x45, 0]);
                bytes.extend((l4_len + 20).to_be_bytes());
                bytes.extend(ID.to_be_bytes());
                bytes.extend([0x40, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
            }
            bytes.extend([0x9c, 0x40, 0x00, 0x50]);
            if self.is_tcp() {
                bytes.extend(SEQUENCE.to_be_bytes());
                bytes.extend([0, 0, 0, 9, ((20 + self.options_bytes) << 2) as u8, self.flags, 0xff, 0xff]);
                bytes.extend([0xab, 0xcd, 0, 0]);
                bytes.extend(vec![1; self.options_bytes]);
            } else {
                bytes.extend(l4_len.to_be_bytes());
                bytes.extend([0xab, 0xcd]);
            }
            bytes.extend(&self.payload);
            bytes
        }

        fn frame(&self, pool: &FramePool) -> Frame {
            let mut frame = pool.copy_of(&self.bytes()).unwrap();
            let offset = if self.is_tcp() { 16 } else { 6 };
            frame.offload.checksum = Checksum::Partial { start: self.l4() as u16, offset };
            let (kind, ecn, payload_bytes) = (self.kind, self.ecn, self.payload_bytes);
            frame.offload.segmentation = Some(Segmentation { kind, ecn, payload_bytes });
            frame
        }

        fn cut(&self) -> Vec<Frame> {
            let pool = FramePool::new(200);
            let mut out = Vec::new();
            let count = segment(&self.frame(&pool), &pool, &mut out).unwrap();
            assert_eq!(count, out.len());
            out
        }

        /// Checks every field of every segment that [`segment`] may change, and that nothing else changed.
        fn check(&self) {
            let cut = self.cut();
            let whole = self.bytes();
            let payload = cut.iter().flat_map(|piece| &piece.bytes()[self.headers_len()..]).copied();
            assert_eq!(payload.collect::<Vec<_>>(), self.payload, "{self:?}");
            for (index, piece) in cut.iter().enumerate() {
                let is_last = index + 1 == cut.len();
                assert_eq!(piece.offload, Offload { checksum: Checksum::Verified, segmentation: None });
                let len = piece.len() - self.headers_len();
                assert!(len == usize::from(self.payload_bytes) || is_last && len < self.payload_bytes.into());
                assert_eq!(piece.bytes()[..self.l3()], whole[..self.l3()]);
                self.check_network(piece.bytes(), index);
                if self.is_tcp() {
                    self.check_tcp(piece.bytes(), index, is_last);
                } else {
                    assert_eq!(usize::from(word(piece.bytes(), self.l4() + 4)), piece.len() - self.l4());
                }
                assert_eq!(self.sum_of(piece.bytes()), 0xffff, "segment {index} of {self:?}");
            }
        }

        fn check_network(&self, bytes: &[u8], index: usize) {
            let l3 = self.l3();
            if self.v6 {
                assert_eq!(usize::from(word(bytes, l3 + 4)), bytes.len() - l3 - 40);
            } else {
                assert_eq!(usize::from(word(bytes, l3 + 2)), bytes.len() - l3);
                assert_eq!(word(bytes, l3 + 4), ID.wrapping_add(index as u16));
                assert_eq!(fold(sum(&bytes[l3..l3 + 20])), 0xffff, "IPv4 header checksum");
            }
        }

        fn check_tcp(&self, bytes: &[u8], index: usize, is_last: bool) {
            let at = self.l4() + 4;
            let sequence = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
            let advance = (index * usize::from(self.payload_bytes)) as u32;
            assert_eq!(sequence, SEQUENCE.wrapping_add(advance));
            let at_end = if is_last { 0 } else { TCP_FIN | TCP_PSH };
            let at_start = if self.ecn && index > 0 { TCP_CWR } else { 0 };
            assert_eq!(bytes[self.l4() + 13], self.flags & !at_end & !at_start);
        }

        /// The checksum over pseudo-header and segment: all ones when it is right.
        fn sum_of(&self, bytes: &[u8]) -> u16 {
            let (l3, l4) = (self.l3(), self.l4());
            let addresses = if self.v6 { &bytes[l3 + 8..l3 + 40] } else { &bytes[l3 + 12..l3 + 20] };
            let protocol = if self.is_tcp() { TCP } else { UDP };
            fold(sum(addresses) + (bytes.len() - l4) as u64 + u64::from(protocol) + sum(&bytes[l4..]))
        }
    }

    #[test]
    fn segments_reassemble_to_the_payload() {
        Super::tcp4(10_000, 1448).check();
        Super { v6: true, kind: SegmentKind::Tcp6, ..Super::tcp4(10_000, 1428) }.check();
        Super { kind: SegmentKind::Udp, ..Super::tcp4(5000, 1200) }.check();
        Super { kind: SegmentKind::Udp, v6: true, ..Super::tcp4(5000, 1200) }.check();
    }

    #[test]
    fn fin_and_psh_stay_for_the_last_segment_and_cwr_for_the_first() {
        let all = Super { flags: 0x99, ecn: true, ..Super::tcp4(3000, 1000) };
        all.check();
        let flags = all.cut().iter().map(|piece| piece.bytes()[all.l4() + 13]).collect::<Vec<_>>();
        assert_eq!(flags, [0x90, 0x10, 0x19]);
        let accurate = Super { ecn: false, ..all };
        let flags = accurate.cut().iter().map(|piece| piece.bytes()[accurate.l4() + 13]).collect::<Vec<_>>();
        assert_eq!(flags, [0x90, 0x90, 0x99], "without ecn CWR is a signal of each segment");
    }

    #[test]
    fn tagged_frames_keep_their_tags() {
        Super { tags: 1, ..Super::tcp4(4000, 1448) }.check();
        Super { tags: 2, options_bytes: 12, ..Super::tcp4(4000, 1436) }.check();
    }

    #[test]
    fn what_fits_one_segment_is_one_finished_frame() {
        for len in [0, 1, 1448] {
            let one = Super { flags: 0x19, ..Super::tcp4(len, 1448) };
            one.check();
            assert_eq!(one.cut().len(), 1);
        }
    }

    #[test]
    fn random_super_frames_survive() {
        for seed in 1..400u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut random = |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % below
            };
            let v6 = random(2) == 1;
            let kind = match (random(3), v6) {
                (0, _) => SegmentKind::Udp,
                (_, false) => SegmentKind::Tcp4,
                (_, true) => SegmentKind::Tcp6,
            };
            let payload = (0..random(60_000)).map(|_| random(256) as u8).collect::<Vec<_>>();
            let payload_bytes = (payload.len() / 100) as u16 + 1 + random(9000) as u16;
            let (tags, options_bytes) = (random(3) as usize, random(11) as usize * 4);
            let (flags, ecn) = (random(256) as u8, random(2) == 1);
            Super { kind, v6, tags, options_bytes, flags, ecn, payload, payload_bytes }.check();
        }
    }

    #[test]
    fn same_bytes_as_finishing_each_segment_alone() {
        let pool = FramePool::new(4);
        let one = Super::tcp4(1000, 1448);
        let mut alone = one.frame(&pool);
        alone.offload.segmentation = None;
        let pseudo = fold(sum(&alone.bytes()[26..34]) + 1020 + u64::from(TCP));
        put(alone.bytes_mut(), 34 + 16, pseudo);
        checksum::finish(&mut alone);
        let cut = one.cut().remove(0);
        assert_eq!(alone.bytes()[34..], cut.bytes()[34..]);
    }

    #[test]
    fn padding_behind_the_packet_is_left_out() {
        let pool = FramePool::new(8);
        let whole = Super::tcp4(100, 60);
        let mut padded = whole.frame(&pool);
        let len = padded.len();
        padded.set_len(len + 9);
        let mut out = Vec::new();
        assert_eq!(segment(&padded, &pool, &mut out), Ok(2));
        assert_eq!(out[1].len(), whole.headers_len() + 40);
    }

    #[test]
    fn an_exhausted_pool_leaves_out_as_before() {
        let (source, pool) = (FramePool::new(2), FramePool::new(3));
        let mut out = vec![source.copy_of(&[1; 60]).unwrap()];
        let frame = Super::tcp4(4 * 1448, 1448).frame(&source);
        assert_eq!(segment(&frame, &pool, &mut out), Err(SegmentError::Exhausted));
        assert_eq!((out.len(), pool.in_use()), (1, 0));
    }

    #[test]
    fn malformed_frames_are_refused_at_every_length() {
        let pool = FramePool::new(100);
        let whole = Super { tags: 1, options_bytes: 8, ..Super::tcp4(300, 100) };
        for len in 0..whole.bytes().len() {
            let mut frame = whole.frame(&pool);
            frame.truncate(len);
            assert_eq!(segment(&frame, &pool, &mut Vec::new()), Err(SegmentError::Malformed), "{len} bytes");
        }
    }

    #[test]
    fn headers_that_contradict_the_segmentation_are_refused() {
        let pool = FramePool::new(100);
        let refused = |change: fn(&mut Frame)| {
            let mut frame = Super::tcp4(3000, 1000).frame(&pool);
            change(&mut frame);
            segment(&frame, &pool, &mut Vec::new()).unwrap_err()
        };
        let set_kind = |frame: &mut Frame, kind| frame.offload.segmentation.as_mut().unwrap().kind = kind;
        assert_eq!(refused(|frame| frame.offload.segmentation = None), SegmentError::NotSegmented);
        let changes: [fn(&mut Frame); 8] = [
            |frame| frame.offload.segmentation.as_mut().unwrap().payload_bytes = 0,
            |frame| frame.bytes_mut()[12] = 0x86,
            |frame| frame.bytes_mut()[14] = 0x65,
            |frame| frame.bytes_mut()[14] = 0x44,
            |frame| frame.bytes_mut()[20] = 0x20,
            |frame| frame.bytes_mut()[23] = UDP,
            |frame| frame.bytes_mut()[34 + 12] = 0x40,
            |frame| frame.bytes_mut()[16] = 0xff,
        ];
        for change in changes {
            assert_eq!(refused(change), SegmentError::Malformed);
        }
        let mut frame = Super::tcp4(3000, 1000).frame(&pool);
        for kind in [SegmentKind::Tcp6, SegmentKind::Udp] {
            set_kind(&mut frame, kind);
            assert_eq!(segment(&frame, &pool, &mut Vec::new()), Err(SegmentError::Malformed));
        }
    }
}
