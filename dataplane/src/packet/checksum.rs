//! The Internet checksum (RFC 1071): sums, and finishing what a frame's offload left open.

use crate::frame::{Checksum, Frame};

/// Completes a [`Checksum::Partial`] in software; any other state is left alone. Reads the whole payload:
/// about one instruction a byte. A UDP result of zero is sent as 0xffff (RFC 768).
pub fn finish(frame: &mut Frame) {
    let Checksum::Partial { start, offset } = frame.offload.checksum else { return };
    let (start, field) = (usize::from(start), usize::from(start) + usize::from(offset));
    let bytes = frame.bytes_mut();
    if field + 2 <= bytes.len() {
        let value = !fold(sum(&bytes[start..]));
        let value = if value == 0 { 0xffff } else { value };
        bytes[field..field + 2].copy_from_slice(&value.to_be_bytes());
    }
    frame.offload.checksum = Checksum::Verified;
}

/// One's complement sum of `bytes` as big-endian 16-bit words, an odd last byte padded with zero; not folded.
pub fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(4);
    let mut total: u64 =
        words.by_ref().map(|w| u64::from(u32::from_be_bytes([w[0], w[1], w[2], w[3]]))).sum();
    let rest = words.remainder();
    let mut tail = [0; 4];
    tail[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_be_bytes(tail));
    total
}

/// Folds a sum to 16 bits with end-around carries; not complemented.
#[inline(always)]
pub const fn fold(mut total: u64) -> u16 {
    total = (total & 0xffff_ffff) + (total >> 32);
    total = (total & 0xffff_ffff) + (total >> 32);
    total = (total & 0xffff) + (total >> 16);
    total = (total & 0xffff) + (total >> 16);
    total as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FramePool;

    #[test]
    fn rfc_1071_example() {
        assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
    }

    #[test]
    fn odd_lengths_are_padded() {
        assert_eq!(fold(sum(&[1, 2, 3])), 0x0102 + 0x0300);
        assert_eq!(fold(sum(&[1, 2, 3, 4, 5])), 0x0102 + 0x0304 + 0x0500);
    }

    #[test]
    fn finishing_makes_the_sum_all_ones() {
        let mut frame = FramePool::new(1).copy_of(&[0xab; 61]).unwrap();
        frame.bytes_mut()[20..22].copy_from_slice(&[0x12, 0x34]);
        frame.offload.checksum = Checksum::Partial { start: 4, offset: 16 };
        let pseudo = 0x1234;
        finish(&mut frame);
        assert_eq!(fold(sum(&frame.bytes()[4..]) + pseudo), 0xffff);
        assert_eq!(frame.offload.checksum, Checksum::Verified);
    }
}
