//! Identifications for packets that leave in fragments.
//!
//! Hosts choose ids that are unique for their own addresses. Behind one SNAT address two clients may choose the same
//! towards one member, which would then put their fragments together: so a packet whose addresses we change gets an
//! id of ours (RFC 7857 section 11; RFC 6864 section 5.3.1).

use crate::address::Address;
use crate::flow::key::{FlowKey, HashSeed};

/// Counters of ids, by hash of source, destination and protocol: the scheme of RFC 7739 section 5.3 with counters
/// that start at random places. Two pairs that share a counter only use it up faster. Workers divide the ids.
pub struct Identifications {
    counters: Vec<u32>,
    seed: HashSeed,
    worker: u32,
    workers: u32,
}

impl Identifications {
    /// For worker `worker` of `workers`.
    pub fn new(seed: HashSeed, (worker, workers): (usize, usize)) -> Self {
        let start = |at: usize| seed.hash(&FlowKey { src_port: at as u16, ..FlowKey::default() }) as u32;
        Self {
            counters: (0..COUNTERS).map(start).collect(),
            seed,
            worker: worker as u32,
            workers: workers.max(1) as u32,
        }
    }

    /// The next id from `src` to `dst`: below 65,536 for IPv4. It comes again after all others of this worker have.
    /// O(1).
    pub fn next(&mut self, src: Address, dst: Address, protocol: u8) -> u32 {
        let key = FlowKey { src, dst, protocol, ..FlowKey::default() };
        let counter = &mut self.counters[self.seed.hash(&key) as usize % COUNTERS];
        *counter = counter.wrapping_add(1);
        let space: u64 = if src.is_v4() { 1 << 16 } else { 1 << 32 };
        let turn = u64::from(*counter) % (space / u64::from(self.workers));
        (turn * u64::from(self.workers)) as u32 + self.worker
    }
}

const COUNTERS: usize = 2_048;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::build::address;

    fn ids(worker: usize, workers: usize, count: usize) -> Vec<u32> {
        let mut ids = Identifications::new(HashSeed::fixed(3), (worker, workers));
        (0..count).map(|_| ids.next(address("10.1.0.10"), address("10.1.0.11"), 17)).collect()
    }

    #[test]
    fn an_id_comes_again_only_after_all_others() {
        for workers in [1, 3, 4] {
            let each = 65_536 / workers;
            let mut all: Vec<u32> = (0..workers).flat_map(|worker| ids(worker, workers, each)).collect();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), each * workers, "{workers} workers");
            assert!(all.iter().all(|&id| id < 65_536));
        }
    }

    #[test]
    fn ipv6_ids_use_32_bits_and_pairs_do_not_start_together() {
        let mut ids = Identifications::new(HashSeed::fixed(3), (1, 4));
        let seen: Vec<u32> = (0..64)
            .map(|host: u32| ids.next(address(&format!("2001:db8::{host:x}")), address("2001:db8::1"), 17))
            .collect();
        assert!(seen.iter().any(|&id| id > 0xffff) && seen.iter().all(|&id| id % 4 == 1));
        assert!(seen.windows(2).any(|pair| pair[0].abs_diff(pair[1]) > 4_096));
    }
}
