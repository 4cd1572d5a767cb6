//! The maximum segment size option of a SYN: lowered in place, never raised and never added.

use super::parse::Packet;
use super::rewrite::adjusted;
use crate::frame::{Checksum, Frame};

/// Lowers what the SYN in `frame` announces to at most `mss` bytes and corrects its checksum for just that. True
/// when something was changed. A segment without the option (RFC 9293 section 3.7.1) or with broken options stays
/// as it is. Cold path.
pub fn clamp(frame: &mut Frame, packet: &Packet, mss: u16) -> bool {
    let partial = matches!(frame.offload.checksum, Checksum::Partial { .. });
    let (start, end) = (usize::from(packet.l4), usize::from(packet.l3) + packet.ip_len as usize);
    let Some(segment) = frame.bytes_mut().get_mut(start..end) else { return false };
    let mut is_changed = false;
    let mut at = 20;
    while let Some(value) = value_behind(segment, &mut at) {
        is_changed |= lower(segment, value, mss, partial);
    }
    is_changed
}

/// Lowers the value at `at`. Who receives two of them may take either.
fn lower(segment: &mut [u8], at: usize, mss: u16, partial: bool) -> bool {
    let old = u16::from_be_bytes([segment[at], segment[at + 1]]);
    if old <= mss {
        return false;
    }
    segment[at..at + 2].copy_from_slice(&mss.to_be_bytes());
    if !partial {
        // A value at an odd place counts with its bytes exchanged (RFC 1071 section 2, B).
        let (old, new) = if at.is_multiple_of(2) { (old, mss) } else { (old.swap_bytes(), mss.swap_bytes()) };
        let sum = u16::from_be_bytes([segment[16], segment[17]]);
        let value = adjusted(sum, u64::from(!old) + u64::from(new));
        segment[16..18].copy_from_slice(&value.to_be_bytes());
    }
    true
}

/// Where in a TCP segment the value of the next such option is, from the option at `at` on, which moves behind it (RFC
/// 9293 section 3.1: kinds 0 and 1 have no length).
fn value_behind(segment: &[u8], at: &mut usize) -> Option<usize> {
    let end = usize::from(segment.get(12)? >> 4) * 4;
    let header = segment.get(..end)?;
    loop {
        let option = *at;
        match *header.get(option)? {
            KIND_END => return None,
            KIND_NOTHING => *at += 1,
            kind => {
                let len = usize::from(*header.get(option + 1)?);
                *at += Some(len).filter(|&len| len >= 2)?;
                if kind == KIND_MSS && len == 4 && *at <= end {
                    return Some(option + 2);
                }
            }
        }
    }
}

const KIND_END: u8 = 0;
const KIND_NOTHING: u8 = 1;
const KIND_MSS: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Mac;
    use crate::frame::FramePool;
    use crate::packet::build::{self, Tcp};
    use crate::packet::checksum;
    use crate::packet::parse::{Parsed, parse, tcp_flag};

    const US: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn syn(src: &str, dst: &str, options: &[u8]) -> Frame {
        let tcp = Tcp { src, dst, flags: tcp_flag::SYN, ..Tcp::default() };
        FramePool::new(1).copy_of(&build::tcp_with_options(&tcp, options)).unwrap()
    }

    fn clamped(frame: &mut Frame, mss: u16) -> bool {
        let Ok(Parsed::Ip(packet)) = parse(frame.bytes(), US) else { panic!("not an IP packet") };
        clamp(frame, &packet, mss)
    }

    #[test]
    fn a_larger_value_is_lowered_wherever_it_is() {
        let (v4, v6) = (("198.51.100.7", "192.0.2.100"), ("2001:db8::1", "2001:db8::2"));
        for (src, dst) in [v4, v6] {
            for (options, at) in [
                (&[2, 4, 0x05, 0xb4][..], 2),
                (&[4, 2, 1, 2, 4, 0x05, 0xb4, 0], 5),
                (&[1, 2, 4, 0x23, 0x00, 1, 1, 1], 3),
                (&[8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 2, 4, 0xff, 0xff, 3, 3, 7, 0], 12),
            ] {
                let mut frame = syn(src, dst, options);
                assert!(clamped(&mut frame, 1_360), "{options:?}");
                build::assert_checksums(frame.bytes());
                let start = if src.contains(':') { 74 } else { 54 } + at;
                assert_eq!(frame.bytes()[start..start + 2], 1_360u16.to_be_bytes());
            }
        }
    }

    #[test]
    fn every_value_is_lowered() {
        let options = [2, 4, 0x05, 0xb4, 1, 2, 4, 0x02, 0x00, 2, 4, 0x23, 0x28];
        let mut frame = syn("198.51.100.7", "192.0.2.100", &options);
        assert!(clamped(&mut frame, 1_360));
        build::assert_checksums(frame.bytes());
        let value = |at: usize| u16::from_be_bytes([frame.bytes()[54 + at], frame.bytes()[55 + at]]);
        assert_eq!([2, 7, 11].map(value), [1_360, 512, 1_360]);
    }

    #[test]
    fn a_smaller_value_and_no_value_stay() {
        for options in [&[2, 4, 0x05, 0x50][..], &[], &[1, 1, 1, 0], &[0, 2, 4, 0xff, 0xff, 0, 0, 0]] {
            let mut frame = syn("198.51.100.7", "192.0.2.100", options);
            let before = frame.bytes().to_vec();
            assert!(!clamped(&mut frame, 1_360));
            assert_eq!(frame.bytes(), before);
        }
    }

    #[test]
    fn broken_options_are_left_alone() {
        for options in [&[2, 3, 0xff, 0][..], &[8, 0, 2, 4], &[1, 1, 2, 4], &[8, 1, 2, 4], &[8, 200, 2, 4]] {
            assert!(!clamped(&mut syn("198.51.100.7", "192.0.2.100", options), 500), "{options:?}");
        }
    }

    #[test]
    fn an_open_checksum_stays_open() {
        let mut frame = syn("198.51.100.7", "192.0.2.100", &[2, 4, 0x05, 0xb4]);
        build::make_partial(frame.bytes_mut());
        frame.offload.checksum = Checksum::Partial { start: 34, offset: 16 };
        assert!(clamped(&mut frame, 1_360));
        checksum::finish(&mut frame);
        build::assert_checksums(frame.bytes());
    }
}
