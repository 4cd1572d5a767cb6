//! [`Classes`]: the 128 classes that ports fall into by their part of the hash, 512 ports each.
//!
//! ```text
//!   port ◀─ one linear map of 16 bits to 16 bits ─▶ class (7 bits of the hash) │ place in the class (9 bits)
//! ```
//!
//! Because the map is linear, both directions are two look-ups in 256 entries each: two kilobytes a family. The
//! families differ because their ports stand at different places of the hash's input.

use std::sync::OnceLock;

use super::toeplitz::{BITS, BUCKETS, MASKS_V4, MASKS_V6};

/// Ports in each class.
pub const PORTS_PER_CLASS: usize = 65_536 / BUCKETS;

/// 64-bit words that hold a bit for each port of a class.
pub const WORDS: usize = PORTS_PER_CLASS / 64;

/// A bit for each port, by class and place.
pub type PortBits = [[u64; WORDS]; BUCKETS];

/// Well-known ports are kept by clients that have them, and given to nobody else.
pub const PORT_MIN: u16 = 1024;

/// Where each port stands.
pub struct Classes {
    code: Linear,
    port: Linear,
    /// The ports below [`PORT_MIN`], which are not given unasked.
    low: Box<PortBits>,
}

/// A linear map of 16 bits, by its values on the upper and the lower byte.
struct Linear {
    upper: [u16; 256],
    lower: [u16; 256],
}

impl Classes {
    /// The classes of an address family, made once in a process.
    #[inline]
    pub fn of_family(is_v4: bool) -> &'static Classes {
        static SHARED: OnceLock<[Classes; 2]> = OnceLock::new();
        let made = || [Self::of_masks(&destination_port_v4()), Self::of_masks(&destination_port_v6())];
        let both =
            SHARED.get_or_init(|| made().map(|made| made.expect("the key has rank 7, checked by a test")));
        &both[usize::from(!is_v4)]
    }

    /// The classes where each bit of the class is the parity of the port's bits in a mask; `None` when the masks
    /// are not independent, so that classes would be of unequal size.
    pub fn of_masks(masks: &[u16; BITS]) -> Option<Self> {
        let rows = completed(masks)?;
        let code = |port: u16| (0..16).fold(0, |code, row| code | parity(rows[row] & port) << row);
        let forth = Linear::of(|bit| code(1 << bit));
        let mut back = [0; 16];
        for port in 0..=u16::MAX {
            let code = forth.of_value(port);
            if code.is_power_of_two() {
                back[code.trailing_zeros() as usize] = port;
            }
        }
        let mut classes = Self { code: forth, port: Linear::of(|bit| back[bit]), low: no_ports() };
        for port in 0..PORT_MIN {
            let (class, place) = classes.place_of(port);
            classes.low[class][place / 64] |= 1 << (place % 64);
        }
        Some(classes)
    }

    /// The class of `port`, below [`BUCKETS`], and its place there, below [`PORTS_PER_CLASS`].
    #[inline(always)]
    pub fn place_of(&self, port: u16) -> (usize, usize) {
        let code = usize::from(self.code.of_value(port));
        (code % BUCKETS, code / BUCKETS)
    }

    /// The port at `place` of `class`.
    #[inline(always)]
    pub fn port(&self, class: usize, place: usize) -> u16 {
        self.port.of_value((place % PORTS_PER_CLASS * BUCKETS + class % BUCKETS) as u16)
    }

    /// The ports below [`PORT_MIN`].
    #[inline(always)]
    pub fn low(&self) -> &PortBits {
        &self.low
    }
}

impl Linear {
    /// The map that takes each bit to its image.
    fn of(image: impl Fn(usize) -> u16) -> Self {
        let sum = |byte: usize, first: usize| {
            (0..8).filter(|bit| byte >> bit & 1 == 1).fold(0, |sum, bit| sum ^ image(first + bit))
        };
        Self {
            upper: std::array::from_fn(|byte| sum(byte, 8)),
            lower: std::array::from_fn(|byte| sum(byte, 0)),
        }
    }

    #[inline(always)]
    fn of_value(&self, value: u16) -> u16 {
        self.upper[usize::from(value >> 8)] ^ self.lower[usize::from(value & 0xff)]
    }
}

/// No port at all.
pub fn no_ports() -> Box<PortBits> {
    Box::new([[0; WORDS]; BUCKETS])
}

/// `masks` and as many single bits as make sixteen independent rows; `None` when `masks` are not independent.
fn completed(masks: &[u16; BITS]) -> Option<[u16; 16]> {
    let mut rows = [0; 16];
    let (mut reduced, mut count) = ([0u16; 16], 0);
    let singles = (0..16).map(|bit| 1u16 << bit);
    for (index, row) in masks.iter().copied().chain(singles).enumerate() {
        // Each reduced row is the only one with its highest bit, under which later ones have a zero.
        let rest = reduced[..count].iter().fold(row, |rest: u16, one| rest.min(rest ^ one));
        if rest != 0 {
            (rows[count], reduced[count]) = (row, rest);
            count += 1;
        } else if index < BITS {
            return None;
        }
        if count == 16 {
            return Some(rows);
        }
    }
    None
}

fn parity(bits: u16) -> u16 {
    bits.count_ones() as u16 & 1
}

/// The masks of the destination port alone: the lower half of the ports.
fn destination_port_v4() -> [u16; BITS] {
    MASKS_V4.map(|words| (words[1] >> 32) as u16)
}

fn destination_port_v6() -> [u16; BITS] {
    MASKS_V6.map(|words| (words[4] >> 32) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::snat::toeplitz::{bucket_v4, bucket_v6};

    #[test]
    fn ports_fall_into_128_classes_of_512_by_their_part_of_the_hash() {
        let nobody = Address::UNSPECIFIED;
        for is_v4 in [true, false] {
            let classes = Classes::of_family(is_v4);
            for port in 0..=u16::MAX {
                let (class, place) = classes.place_of(port);
                assert_eq!(classes.port(class, place), port);
                let hashed = u32::from(port);
                let part = if is_v4 { bucket_v4(0, 0, hashed) } else { bucket_v6(nobody, nobody, hashed) };
                assert_eq!(class, part);
            }
        }
    }

    #[test]
    fn well_known_ports_are_eight_of_each_class() {
        for is_v4 in [true, false] {
            let low = Classes::of_family(is_v4).low();
            for class in low {
                assert_eq!(class.iter().map(|word| word.count_ones()).sum::<u32>(), 8);
            }
        }
    }

    #[test]
    fn masks_that_depend_on_each_other_are_refused() {
        assert!(Classes::of_masks(&[0; BITS]).is_none());
        assert!(Classes::of_masks(&[1, 2, 4, 8, 16, 32, 3]).is_none());
        assert!(Classes::of_masks(&[1, 2, 4, 8, 16, 32, 64]).is_some());
    }
}
