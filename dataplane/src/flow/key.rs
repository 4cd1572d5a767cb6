//! [`FlowKey`]: the five values that name one direction of a flow, and its hash.

use crate::address::Address;

/// One direction of a flow, as its packets look on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, bytemuck::Zeroable)]
pub struct FlowKey {
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

impl FlowKey {
    /// The opposite direction, without translation.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            src_port: self.dst_port,
            dst_port: self.src_port,
            protocol: self.protocol,
        }
    }
}

/// The secret of the flow hash, random in every process so that nobody outside can aim at one bucket.
#[derive(Debug, Clone, Copy)]
pub struct HashSeed([u64; 4]);

impl HashSeed {
    /// A seed from the operating system's randomness, by way of the standard library's hasher keys.
    pub fn random() -> Self {
        use std::hash::{BuildHasher, RandomState};
        let word = |salt: u64| RandomState::new().hash_one(salt) | 1;
        Self([word(1), word(2), word(3), word(4)])
    }

    /// A fixed seed, for tests that must repeat.
    pub const fn fixed(seed: u64) -> Self {
        Self([seed | 1, seed.rotate_left(17) ^ 0x9e37_79b9_7f4a_7c15, !seed, seed ^ 0xd1b5_4a32_d192_ed03])
    }

    /// Hashes one direction of a flow. Two or four 64-bit multiplications; keyed folded multiply.
    #[inline(always)]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        let [a, b, c, d] = self.0;
        let ports =
            (u64::from(key.src_port) << 24) | (u64::from(key.dst_port) << 8) | u64::from(key.protocol);
        if key.src.high | key.dst.high == 0 {
            let addresses = (key.src.low << 32) | (key.dst.low & 0xffff_ffff);
            folded(folded(addresses ^ a, ports ^ b) ^ c, d)
        } else {
            let source = folded(key.src.high ^ a, key.src.low ^ b);
            let destination = folded(key.dst.high ^ c, key.dst.low ^ d);
            folded(folded(source ^ b, destination ^ d) ^ a, ports ^ c)
        }
    }
}

#[inline(always)]
fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(client: u32, port: u16) -> FlowKey {
        let (src, dst) = (Address::v4(client.to_be_bytes()), Address::v4([192, 0, 2, 100]));
        FlowKey { src, dst, src_port: port, dst_port: 80, protocol: 6 }
    }

    #[test]
    fn sequential_clients_and_ports_spread_over_buckets() {
        let seed = HashSeed::fixed(42);
        let mut buckets = vec![0u32; 1024];
        for client in 0..256 {
            for port in 0..256 {
                buckets[(seed.hash(&key(0x0a00_0000 + client, 1024 + port)) >> 54) as usize] += 1;
            }
        }
        let (low, high) = (buckets.iter().min().unwrap(), buckets.iter().max().unwrap());
        assert!(*low > 30 && *high < 110, "64 expected in each, saw {low} to {high}");
    }

    #[test]
    fn reversing_twice_is_the_same_key() {
        assert_eq!(key(1, 2).reversed().reversed(), key(1, 2));
        assert_ne!(key(1, 2).reversed(), key(1, 2));
    }
}
