//! The Toeplitz hash that NICs place packets by, and the seven bits of it that sluice steers with.
//!
//! ```text
//!   source │ destination │ source port │ destination port      IPv4 12 bytes, IPv6 36 bytes, network order
//!   ─▶ hash ─▶ low 7 bits: the bucket, one of 128
//! ```
//!
//! The hash is linear over GF(2): each of its bits is the parity of some of the input's bits. So a bucket is seven
//! ANDs and parities of whole words, the parities of all seven at once, in Rust as in the program that the kernel runs, and the bucket of a tuple is
//! the xor of the buckets of its parts.

use crate::address::Address;
use crate::flow::key::FlowKey;

/// Buckets that a hash falls into, and classes of ports.
pub const BUCKETS: usize = 128;

/// The key of the published receive-side scaling verification suite, which most NICs start with.
pub const RSS_KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// The bits of an IPv4 tuple whose parity is each bit of the bucket: source and destination; ports in the upper half.
pub static MASKS_V4: [[u64; 2]; BITS] = masks();

/// The same for IPv6: source, destination, two words each; ports in the upper half of the last.
pub static MASKS_V6: [[u64; 5]; BITS] = masks();

/// Bits of a bucket.
pub const BITS: usize = 7;
const _: () = assert!(1 << BITS == BUCKETS);

/// The whole hash of `input` (at most 36 bytes in network order) under `key`, bit by bit as it is defined.
pub fn toeplitz(key: &[u8; 40], input: &[u8]) -> u32 {
    let mut window = u64::from_be_bytes([key[0], key[1], key[2], key[3], key[4], key[5], key[6], key[7]]);
    let (mut hash, mut next) = (0, 8);
    for &byte in input {
        for bit in (0..8).rev() {
            if byte >> bit & 1 == 1 {
                hash ^= (window >> 32) as u32;
            }
            window <<= 1;
        }
        window |= u64::from(key.get(next).copied().unwrap_or(0));
        next += 1;
    }
    hash
}

/// The whole hash of a tuple, as a NIC reports it. Slow; to check NICs with.
pub fn hash_of(key: &FlowKey) -> u32 {
    let ports = ports_word(key.src_port, key.dst_port).to_be_bytes();
    if key.src.is_v4() {
        toeplitz(&RSS_KEY, &[key.src.v4_octets(), key.dst.v4_octets(), ports].concat())
    } else {
        toeplitz(&RSS_KEY, &[&key.src.v6_octets()[..], &key.dst.v6_octets(), &ports].concat())
    }
}

/// The bucket of a tuple of either family, below [`BUCKETS`]. About 80 instructions for IPv4.
#[inline]
pub fn bucket_of(src: Address, dst: Address, ports: u32) -> usize {
    if src.is_v4() { bucket_v4(src.low as u32, dst.low as u32, ports) } else { bucket_v6(src, dst, ports) }
}

/// The bucket of an IPv4 tuple; `ports` is the source port in the upper half, the destination port in the lower.
#[inline]
pub fn bucket_v4(src: u32, dst: u32, ports: u32) -> usize {
    bucket([u64::from(src) << 32 | u64::from(dst), u64::from(ports) << 32], &MASKS_V4)
}

/// The bucket of an IPv6 tuple.
#[inline]
pub fn bucket_v6(src: Address, dst: Address, ports: u32) -> usize {
    bucket([src.high, src.low, dst.high, dst.low, u64::from(ports) << 32], &MASKS_V6)
}

/// Both ports as the tuple holds them.
#[inline(always)]
pub const fn ports_word(src_port: u16, dst_port: u16) -> u32 {
    (src_port as u32) << 16 | dst_port as u32
}

#[inline(always)]
fn bucket<const WORDS: usize>(tuple: [u64; WORDS], masks: &[[u64; WORDS]; BITS]) -> usize {
    let picked = |bit: usize| tuple.iter().zip(&masks[bit]).fold(0, |sum, (word, mask)| sum ^ (word & mask));
    // Halves of two words are added up into one word, over and over, until each has a byte of its own.
    let added = |one: u64, other: u64, bits: u32, lower: u64| {
        (one ^ one >> bits) & lower | (other ^ other << bits) & !lower
    };
    let pair = |bit: usize| added(picked(bit), picked(bit + 4), 32, 0xffff_ffff);
    let fourth = (picked(3) ^ picked(3) >> 32) & 0xffff_ffff;
    let even = added(pair(0), pair(2), 16, 0xffff_0000_ffff);
    let odd = added(pair(1), fourth, 16, 0xffff_0000_ffff);
    let mut bytes = added(even, odd, 8, 0x00ff_00ff_00ff_00ff);
    for bits in [4, 2, 1] {
        bytes ^= bytes >> bits;
    }
    // The lowest bit of each byte, gathered in the highest byte.
    ((bytes & 0x0101_0101_0101_0101).wrapping_mul(0x0102_0408_1020_4080) >> 56) as usize
}

/// Bit `b` of the hash is the parity of the tuple's bits at which the key, `31 - b` bits further on, has a one.
const fn masks<const WORDS: usize>() -> [[u64; WORDS]; BITS] {
    let mut masks = [[0; WORDS]; BITS];
    let mut bit = 0;
    while bit < BITS {
        let mut word = 0;
        while word < WORDS {
            masks[bit][word] = key_bits(word * 64 + 31 - bit);
            word += 1;
        }
        bit += 1;
    }
    masks
}

/// 64 bits of the key from bit `from` on; zeros behind its end.
const fn key_bits(from: usize) -> u64 {
    let (mut bits, mut step) = (0, 0);
    while step < 64 {
        let at = from + step;
        let bit = if at < RSS_KEY.len() * 8 { RSS_KEY[at / 8] >> (7 - at % 8) & 1 } else { 0 };
        bits = bits << 1 | bit as u64;
        step += 1;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snat::random::Random;

    /// The published verification suite: source, destination, hash of addresses, hash with ports.
    type Row = ([u8; 4], u16, [u8; 4], u16, u32, u32);
    const ROWS: [Row; 5] = [
        ([66, 9, 149, 187], 2794, [161, 142, 100, 80], 1766, 0x323e_8fc2, 0x51cc_c178),
        ([199, 92, 111, 2], 14_230, [65, 69, 140, 83], 4739, 0xd718_262a, 0xc626_b0ea),
        ([24, 19, 198, 95], 12_898, [12, 22, 207, 184], 38_024, 0xd2d0_a5de, 0x5c2b_394a),
        ([38, 27, 205, 30], 48_228, [209, 142, 163, 6], 2217, 0x8298_9176, 0xafc7_327f),
        ([153, 39, 163, 191], 44_251, [202, 188, 127, 2], 1303, 0x5d18_09c5, 0x10e8_28a2),
    ];

    #[test]
    fn verification_suite() {
        for (src, src_port, dst, dst_port, two, four) in ROWS {
            assert_eq!(toeplitz(&RSS_KEY, &[src, dst].concat()), two);
            let (src, dst) = (Address::v4(src), Address::v4(dst));
            assert_eq!(hash_of(&FlowKey { src, dst, src_port, dst_port, protocol: 6 }), four);
            assert_eq!(bucket_of(src, dst, ports_word(src_port, dst_port)), four as usize % BUCKETS);
        }
    }

    #[test]
    fn parities_are_the_low_bits_of_the_hash_for_both_families() {
        let mut random = Random::new(7);
        for _ in 0..2_000 {
            let (src_port, dst_port) = (random.next() as u16, random.next() as u16);
            let v4 = |word: u64| Address::v4((word as u32).to_be_bytes());
            let (src, dst) = (v4(random.next()), v4(random.next()));
            let key = FlowKey { src, dst, src_port, dst_port, protocol: 17 };
            assert_eq!(bucket_of(src, dst, ports_word(src_port, dst_port)), hash_of(&key) as usize % BUCKETS);
            let mut v6 = || Address { high: random.next(), low: random.next() };
            let (src, dst) = (v6(), v6());
            let key = FlowKey { src, dst, src_port, dst_port, protocol: 17 };
            assert_eq!(bucket_of(src, dst, ports_word(src_port, dst_port)), hash_of(&key) as usize % BUCKETS);
        }
    }

    #[test]
    fn the_bucket_of_a_tuple_is_the_xor_of_its_parts() {
        let (src, dst) = (0x0a00_0009, 0x0a00_0101);
        let whole = bucket_v4(src, dst, ports_word(80, 0xee48));
        assert_eq!(whole, bucket_v4(src, dst, ports_word(80, 0)) ^ bucket_v4(0, 0, 0xee48));
    }
}
