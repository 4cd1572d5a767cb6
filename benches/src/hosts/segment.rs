//! TCP segments as the hosts read and write them: Ethernet, IPv4 without options, TCP.

use sluice_dataplane::address::Mac;
use sluice_dataplane::packet::checksum::{fold, sum};

/// A segment that came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment<'a> {
    pub(super) src: [u8; 4],
    pub(super) src_port: u16,
    pub(super) dst: [u8; 4],
    pub(super) dst_port: u16,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    /// As it is in the header, without its scale.
    pub(super) window: u16,
    pub(super) options: &'a [u8],
    pub(super) payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// `None` for anything but TCP over IPv4 without IP options, and for what is cut short.
    pub(super) fn read(frame: &'a [u8]) -> Option<Self> {
        let head = frame.first_chunk::<HEAD_BYTES>()?;
        let half = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let four = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
        if head[12..15] != [8, 0, 0x45] || head[23] != 6 {
            return None;
        }
        let data = 34 + usize::from(head[46] >> 4) * 4;
        Some(Self {
            src: four(26),
            src_port: half(34),
            dst: four(30),
            dst_port: half(36),
            seq: u32::from_be_bytes(four(38)),
            ack: u32::from_be_bytes(four(42)),
            flags: head[47],
            window: half(48),
            options: frame.get(HEAD_BYTES..data)?,
            payload: frame.get(data..14 + usize::from(half(16)))?,
        })
    }

    /// The largest segment and the window scale that a SYN announces; what RFC 9293 and RFC 7323 say without options.
    pub(super) fn announced(&self) -> (u16, u8) {
        let (mut rest, mut mss, mut scale) = (self.options, 536, 0);
        loop {
            rest = match rest {
                [2, 4, high, low, rest @ ..] => {
                    mss = u16::from_be_bytes([*high, *low]);
                    rest
                }
                [3, 3, shift, rest @ ..] => {
                    scale = (*shift).min(14);
                    rest
                }
                [1, rest @ ..] => rest,
                [0, ..] => return (mss, scale),
                [_, len, ..] => match rest.get(usize::from(*len).max(2)..) {
                    Some(rest) => rest,
                    None => return (mss, scale),
                },
                _ => return (mss, scale),
            };
        }
    }
}

/// True when the checksums of a frame that [`Segment::read`] takes are right.
pub(super) fn is_sound(frame: &[u8]) -> bool {
    let Some(packet) = frame.get(16..18).map(|len| 14 + usize::from(u16::from_be_bytes([len[0], len[1]])))
    else {
        return false;
    };
    let Some((ip, tcp)) = frame.get(14..34).zip(frame.get(26..packet)) else { return false };
    let len = packet.saturating_sub(34) as u64;
    fold(sum(ip)) == 0xffff && fold(sum(tcp) + 6 + len) == 0xffff
}

/// A segment to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing {
    /// Link addresses: to, from.
    pub(super) link: (Mac, Mac),
    pub(super) src: [u8; 4],
    pub(super) src_port: u16,
    pub(super) dst: [u8; 4],
    pub(super) dst_port: u16,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    /// SYN options are added.
    pub(super) greets: bool,
    /// Bytes of payload.
    pub(super) payload: usize,
    /// The TCP checksum is written, too; otherwise the wire vouches for it.
    pub(super) sums: bool,
}

impl Outgoing {
    /// Bytes of the frame.
    pub(super) fn frame_len(&self) -> usize {
        self.data_at() + self.payload
    }

    fn data_at(&self) -> usize {
        HEAD_BYTES + if self.greets { SYN_OPTIONS.len() } else { 0 }
    }

    /// Writes a frame of [`Outgoing::frame_len`] bytes; `fill` writes the payload.
    pub(super) fn write(&self, frame: &mut [u8], fill: impl FnOnce(&mut [u8])) {
        let (len, data) = (frame.len(), self.data_at());
        frame[..6].copy_from_slice(&self.link.0.0);
        frame[6..12].copy_from_slice(&self.link.1.0);
        frame[12..26].copy_from_slice(&[8, 0, 0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0]);
        frame[16..18].copy_from_slice(&(len as u16 - 14).to_be_bytes());
        frame[26..30].copy_from_slice(&self.src);
        frame[30..34].copy_from_slice(&self.dst);
        let ip = !fold(sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&ip.to_be_bytes());
        frame[34..36].copy_from_slice(&self.src_port.to_be_bytes());
        frame[36..38].copy_from_slice(&self.dst_port.to_be_bytes());
        frame[38..42].copy_from_slice(&self.seq.to_be_bytes());
        frame[42..46].copy_from_slice(&self.ack.to_be_bytes());
        let words = ((data - 34) / 4) as u8;
        frame[46..HEAD_BYTES].copy_from_slice(&[words << 4, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        if self.greets {
            frame[HEAD_BYTES..data].copy_from_slice(&SYN_OPTIONS);
        }
        fill(&mut frame[data..]);
        if self.sums {
            let tcp = !fold(sum(&frame[26..]) + 6 + (len as u64 - 34));
            frame[50..52].copy_from_slice(&tcp.to_be_bytes());
        }
    }
}

/// Ethernet, IPv4 and TCP without options.
const HEAD_BYTES: usize = 54;
/// As Linux has them, but for timestamps: MSS 1460, SACK permitted, window scale 7.
const SYN_OPTIONS: [u8; 12] = [2, 4, 5, 0xb4, 1, 1, 4, 2, 1, 3, 3, 7];
/// The largest payload that the hosts send.
pub(super) const PAYLOAD_MAX: usize = 1_460;
/// The longest frame that the hosts send.
pub(super) const FRAME_MAX: usize = HEAD_BYTES + PAYLOAD_MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_dataplane::packet::build::assert_checksums;

    fn outgoing(greets: bool, payload: usize) -> Outgoing {
        Outgoing {
            link: (Mac([2; 6]), Mac([4; 6])),
            src: [198, 18, 0, 1],
            src_port: 10_000,
            dst: [10, 1, 0, 100],
            dst_port: 53,
            seq: 0x1234_5678,
            ack: 9,
            flags: 0x18,
            greets,
            payload,
            sums: true,
        }
    }

    #[test]
    fn what_is_written_is_sound_and_read_again() {
        for (greets, payload) in [(false, 0), (true, 0), (false, 1), (false, PAYLOAD_MAX)] {
            let sent = outgoing(greets, payload);
            let mut frame = vec![0; sent.frame_len()];
            sent.write(&mut frame, |bytes| bytes.fill(7));
            assert_checksums(&frame);
            assert!(is_sound(&frame));
            let came = Segment::read(&frame).unwrap();
            assert_eq!((came.src, came.src_port, came.dst, came.dst_port), (sent.src, 10_000, sent.dst, 53));
            assert_eq!((came.seq, came.ack, came.flags, came.window), (0x1234_5678, 9, 0x18, 0xffff));
            assert_eq!(came.payload, vec![7; payload]);
            assert_eq!(came.announced(), if greets { (1460, 7) } else { (536, 0) });
            // Padding is not payload.
            frame.extend([0; 9]);
            assert_eq!(Segment::read(&frame).unwrap().payload.len(), payload);
            frame[53] ^= 1;
            assert!(!is_sound(&frame));
        }
    }

    #[test]
    fn what_is_no_segment_is_not_read() {
        let sent = outgoing(true, 10);
        let mut frame = vec![0; sent.frame_len()];
        sent.write(&mut frame, |bytes| bytes.fill(7));
        for len in 0..frame.len() {
            assert!(Segment::read(&frame[..len]).is_none() && !is_sound(&frame[..len]), "{len} bytes");
        }
        frame[23] = 17;
        assert!(Segment::read(&frame).is_none());
    }

    #[test]
    fn options_that_make_no_sense_end_the_reading() {
        let frame = frame_of_nothing();
        let blank = Segment::read(&frame).unwrap();
        for options in [&[][..], &[2], &[2, 0], &[9, 200, 0], &[0, 2, 4, 1, 1], &[1, 1, 8]] {
            assert_eq!(Segment { options, ..blank }.announced(), (536, 0), "{options:?}");
        }
        let options = [8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 99];
        assert_eq!(Segment { options: &options, ..blank }.announced(), (536, 14));
    }

    fn frame_of_nothing() -> Vec<u8> {
        let sent = outgoing(false, 0);
        let mut frame = vec![0; sent.frame_len()];
        sent.write(&mut frame, |_| ());
        frame
    }
}
