//! Which worker owns what.
//!
//! ```text
//!   TCP and UDP of translated flows ─▶ Toeplitz hash of the packet's own tuple ─▶ bucket (7 bits) ─▶ worker
//!   where clients' ports must be kept ─▶ hash of the port that both sides have ─▶ bucket ────────▶ worker
//!   where nothing hides the client  ─▶ hash of the client's end, or of both ends ─▶ bucket ────────▶ worker
//! ```
//!
//! The first is a pure function of the packet, the same that NICs and the kernel's program place frames by
//! ([`super::frame`]): where one of them does, every such packet arrives at home. A SNAT port is made so that the
//! reply's tuple falls into a bucket of the worker that takes it. Where the port is the client's it cannot be made, so
//! the owner is named by what both sides have in common, the port itself. 128 buckets map to workers, so that the number of
//! workers can change without anything else changing.

use super::toeplitz::{BITS, BUCKETS, bucket_of, ports_word};
use crate::address::Address;
use crate::flow::key::FlowKey;

/// A hash of one end of a connection, the same in every process and on every worker.
pub fn endpoint_hash(address: Address, port: u16) -> u64 {
    let mixed = (address.high ^ u64::from(port)).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ address.low;
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ (mixed >> 32)
}

/// Which worker owns which buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owners {
    workers: usize,
}

impl Owners {
    /// For `workers` workers (at least 1, at most [`BUCKETS`]).
    pub fn new(workers: usize) -> Self {
        Self { workers: workers.clamp(1, BUCKETS) }
    }

    /// The worker that owns `bucket`.
    #[inline(always)]
    pub fn of_bucket(self, bucket: usize) -> usize {
        bucket % self.workers
    }

    /// The worker that owns TCP and UDP packets of this tuple.
    #[inline]
    pub fn of_tuple(self, key: &FlowKey) -> usize {
        self.of_bucket(bucket_of(key.src, key.dst, ports_word(key.src_port, key.dst_port)))
    }

    /// The worker at which all fragments of a packet meet, the first included.
    #[inline]
    pub fn of_fragment(self, src: Address, dst: Address, identification: u32) -> usize {
        self.of_bucket(bucket_of(src, dst, identification))
    }

    /// The worker that the frame itself names, see [`super::frame::bucket_of_frame`].
    #[inline]
    pub fn of_frame(self, frame: &[u8]) -> usize {
        self.of_bucket(super::frame::bucket_of_frame(frame))
    }

    /// The worker that owns flows of the endpoint or pair of endpoints with this hash.
    pub fn of_hash(self, hash: u64) -> usize {
        self.of_bucket((hash >> 57) as usize)
    }

    /// The worker that owns `port` of every SNAT address behind which clients keep their ports, and clients' packets
    /// from there. Multiplied by the golden ratio, so that ports in steps of any small number spread evenly.
    #[inline]
    pub fn of_port(self, port: u16) -> usize {
        self.of_bucket((u32::from(port).wrapping_mul(0x9e37_79b9) >> (32 - BITS)) as usize)
    }

    /// One worker's part of a rate that holds for the process, rounded up.
    pub fn share_of(self, rate: u32) -> u32 {
        rate.div_ceil(self.workers as u32)
    }

    /// How many workers there are.
    pub fn workers(self) -> usize {
        self.workers
    }

    /// One bit for each bucket that `worker` owns.
    pub fn buckets_of(self, worker: usize) -> u128 {
        (0..BUCKETS)
            .filter(|&bucket| self.of_bucket(bucket) == worker)
            .fold(0, |mask, bucket| mask | 1 << bucket)
    }
}

/// The set `{bucket ^ base}` for every bucket of the set. Seven swaps of halves.
#[inline]
pub fn shifted(buckets: u128, base: usize) -> u128 {
    let swap = |set: u128, bit: usize| {
        if base >> bit & 1 == 0 {
            return set;
        }
        let low = LOWER_HALVES[bit];
        (set & low) << (1 << bit) | (set >> (1 << bit)) & low
    };
    (0..BITS).fold(buckets, swap)
}

/// Where the number of a bucket has a zero at each of its bits.
const LOWER_HALVES: [u128; BITS] = {
    let mut halves = [0; BITS];
    let mut bit = 0;
    while bit < BITS {
        halves[bit] = u128::MAX / ((1u128 << (1 << bit)) + 1);
        bit += 1;
    }
    halves
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snat::random::Random;

    #[test]
    fn endpoints_spread_evenly_over_workers() {
        let owners = Owners::new(4);
        let mut seen = [0; 4];
        for host in 0..64 {
            for port in 0..256 {
                seen[owners.of_hash(endpoint_hash(Address::v4([10, 0, 0, host]), 1_024 + port))] += 1;
            }
        }
        assert!(seen.iter().all(|&count| (3_700..4_500).contains(&count)), "{seen:?}");
    }

    #[test]
    fn ports_spread_evenly_over_workers_in_steps_of_any_size() {
        for workers in 1..=16 {
            for step in [1, 2, 3, 4, 7, 8, 64] {
                let mut seen = vec![0; workers];
                (0..640).for_each(|n| seen[Owners::new(workers).of_port(1_024 + n * step)] += 1);
                let fair = 640 / workers;
                assert!(
                    seen.iter().all(|count| (fair * 7 / 10..=fair * 14 / 10).contains(count)),
                    "{workers} {step} {seen:?}"
                );
            }
        }
    }

    #[test]
    fn tuples_spread_evenly_over_workers() {
        for workers in [2, 3, 4, 8, 16] {
            let owners = Owners::new(workers);
            let mut seen = vec![0; workers];
            for host in 0..64 {
                for src_port in 0..256 {
                    let (src, dst) = (Address::v4([10, 0, 0, host]), Address::v4([192, 0, 2, 1]));
                    let key = FlowKey { src, dst, src_port: 1_024 + src_port, dst_port: 80, protocol: 6 };
                    seen[owners.of_tuple(&key)] += 1;
                }
            }
            let fair = 64 * 256 / workers;
            assert!(seen.iter().all(|&count| count * 10 > fair * 9 && count * 10 < fair * 11), "{seen:?}");
        }
    }

    #[test]
    fn every_bucket_has_one_owner_whatever_the_number_of_workers() {
        for workers in [1, 2, 3, 7, 16, 128] {
            let owners = Owners::new(workers);
            let all = (0..workers).fold(0u128, |seen, worker| {
                let mine = owners.buckets_of(worker);
                assert_eq!(seen & mine, 0);
                seen | mine
            });
            assert_eq!(all, u128::MAX);
        }
    }

    #[test]
    fn shifting_a_set_shifts_each_bucket() {
        let mut random = Random::new(3);
        for _ in 0..1_000 {
            let set = u128::from(random.next()) << 64 | u128::from(random.next());
            let base = random.next() as usize % BUCKETS;
            let each = (0..BUCKETS).filter(|bucket| set >> bucket & 1 == 1);
            assert_eq!(shifted(set, base), each.fold(0u128, |all, bucket| all | 1 << (bucket ^ base)));
        }
    }
}
