//! The SNAT ports of one worker: which are in use, for each pair of SNAT address and member.
//!
//! ```text
//!   (SNAT address, member) ─▶ set ─┬ classes with a free port   u128
//!                                  └ class ─▶ 512 bits          1 = in use
//! ```
//!
//! The same port serves every member at once; only (address, port, member) must be unique. Taking a port is a few
//! loads whatever the use: one class out of those with a free port, then one free bit of 512, both from a random
//! place on (RFC 6056 section 3.3.1). When pairs outnumber sets they share one, which costs ports, never
//! correctness.

use hashbrown::HashMap;

use bytemuck::Zeroable;
use sluice_ffi::memory::{Backing, Slab};

use super::steer::{CLASSES, Classes, Owners, PORTS_PER_CLASS};
use crate::address::Address;

/// Why no port was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted;

/// The two ends that share a set of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pair {
    /// The SNAT address.
    pub address: Address,
    /// The member's address.
    pub member: Address,
    /// The member's port.
    pub member_port: u16,
    /// TCP or UDP.
    pub protocol: u8,
}

/// One worker's SNAT ports.
pub struct SnatPorts {
    sets: Slab<Set>,
    /// Which set a pair has, and how many ports it holds there.
    pairs: HashMap<Pair, Tenant>,
    free_sets: Vec<u32>,
    fresh_sets: usize,
    mine: u128,
    random: u64,
    in_use: usize,
}

#[derive(Debug, Clone, Copy)]
struct Tenant {
    set: u32,
    ports: u32,
}

#[derive(Debug, Clone, Copy, Zeroable)]
#[repr(C)]
struct Set {
    /// One bit for each class without a free port.
    full: [u64; 2],
    used: [[u64; WORDS]; CLASSES],
    tenants: u32,
    unused: u32,
}

const WORDS: usize = PORTS_PER_CLASS / 64;

impl SnatPorts {
    /// Ports of the classes that `worker` owns, for `sets_max` pairs before they share.
    pub fn new(owners: Owners, worker: usize, sets_max: usize, seed: u64) -> Self {
        Self {
            sets: Slab::new(sets_max.max(1), Backing::Ordinary),
            pairs: HashMap::new(),
            free_sets: Vec::new(),
            fresh_sets: 0,
            mine: owners.classes_of(worker),
            random: seed | 1,
            in_use: 0,
        }
    }

    /// Bytes taken, resident only where used.
    pub fn bytes(&self) -> usize {
        self.sets.bytes()
    }

    /// Sets there are.
    pub fn capacity(&self) -> usize {
        self.sets.len()
    }

    /// Ports in use now.
    pub fn in_use(&self) -> usize {
        self.in_use
    }

    /// Takes `wanted` for `pair` when this worker owns it and it is free. O(1).
    pub fn take_exactly(&mut self, pair: Pair, wanted: u16) -> bool {
        let classes = Classes::shared();
        let (class, place) = (classes.of(wanted), classes.place(wanted));
        if wanted < PORT_MIN || self.mine >> class & 1 == 0 {
            return false;
        }
        let set = self.set_of(pair);
        let (word, bit) = (place / 64, place % 64);
        if self.sets[set].used[class][word] >> bit & 1 == 1 {
            return false;
        }
        self.occupy(pair, set, class, place);
        true
    }

    /// Takes any free port for `pair` whose replies reach this worker. O(1), no allocation but for a pair's first
    /// port.
    ///
    /// # Errors
    /// [`Exhausted`] when this worker has no free port towards this member.
    pub fn take(&mut self, pair: Pair) -> Result<u16, Exhausted> {
        let set = self.set_of(pair);
        let random = self.next_random();
        let open = self.mine & !self.sets[set].full_classes();
        let Some(class) = bit_from(open, random as u32 % 128) else {
            self.forget_if_unused(pair);
            return Err(Exhausted);
        };
        let Some(place) = self.sets[set].free_place(class, (random >> 32) as usize) else {
            return Err(Exhausted);
        };
        self.occupy(pair, set, class, place);
        Ok(Classes::shared().port(class, place))
    }

    /// Gives `port` back. O(1).
    pub fn release(&mut self, pair: Pair, port: u16) {
        let classes = Classes::shared();
        let (class, place) = (classes.of(port), classes.place(port));
        let Some(tenant) = self.pairs.get_mut(&pair) else { return };
        tenant.ports = tenant.ports.saturating_sub(1);
        let set = &mut self.sets[tenant.set as usize];
        set.used[class][place / 64] &= !(1 << (place % 64));
        set.full[class / 64] &= !(1 << (class % 64));
        self.in_use -= 1;
        self.forget_if_unused(pair);
    }

    fn set_of(&mut self, pair: Pair) -> usize {
        if let Some(tenant) = self.pairs.get(&pair) {
            return tenant.set as usize;
        }
        let shared = (self.next_random() >> 32) as u32 % self.sets.len() as u32;
        let set = self.free_sets.pop().or_else(|| self.fresh_set()).unwrap_or(shared);
        if self.sets[set as usize].tenants == 0 {
            self.sets[set as usize].reserve_low_ports();
        }
        self.sets[set as usize].tenants += 1;
        self.pairs.insert(pair, Tenant { set, ports: 0 });
        set as usize
    }

    /// A set that no pair has had yet.
    fn fresh_set(&mut self) -> Option<u32> {
        let set = self.fresh_sets;
        (set < self.sets.len()).then(|| {
            self.fresh_sets += 1;
            set as u32
        })
    }

    fn occupy(&mut self, pair: Pair, set: usize, class: usize, place: usize) {
        self.sets[set].occupy(class, place);
        self.in_use += 1;
        if let Some(tenant) = self.pairs.get_mut(&pair) {
            tenant.ports += 1;
        }
    }

    fn forget_if_unused(&mut self, pair: Pair) {
        let Some(&Tenant { set, ports: 0 }) = self.pairs.get(&pair) else { return };
        self.pairs.remove(&pair);
        self.sets[set as usize].tenants -= 1;
        if self.sets[set as usize].tenants == 0 {
            self.free_sets.push(set);
        }
    }

    /// xorshift64*: unpredictable enough together with the random seed, and a few instructions.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

impl Set {
    fn full_classes(&self) -> u128 {
        u128::from(self.full[0]) | u128::from(self.full[1]) << 64
    }

    /// A free place of `class`, the first from word and bit `start` on.
    fn free_place(&self, class: usize, start: usize) -> Option<usize> {
        (0..WORDS).find_map(|step| {
            let word = (start / 64 + step) % WORDS;
            let free = u128::from(!self.used[class][word]);
            bit_from(free, (start % 64) as u32).map(|bit| word * 64 + bit)
        })
    }

    fn occupy(&mut self, class: usize, place: usize) {
        self.used[class][place / 64] |= 1 << (place % 64);
        if self.used[class].iter().all(|&word| word == u64::MAX) {
            self.full[class / 64] |= 1 << (class % 64);
        }
    }

    /// Ports below [`PORT_MIN`] are never given.
    fn reserve_low_ports(&mut self) {
        let classes = Classes::shared();
        for port in 0..PORT_MIN {
            self.occupy(classes.of(port), classes.place(port));
        }
    }
}

/// A set bit of `bits`: the first from `start` on, around the end.
#[inline(always)]
fn bit_from(bits: u128, start: u32) -> Option<usize> {
    if bits == 0 {
        return None;
    }
    let turned = bits.rotate_right(start);
    Some(((turned.trailing_zeros() + start) % 128) as usize)
}

/// Well-known ports stay out of it.
pub const PORT_MIN: u16 = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::build::address;
    use std::collections::HashSet;

    fn pair(member: &str) -> Pair {
        Pair { address: address("10.1.0.10"), member: address(member), member_port: 80, protocol: 6 }
    }

    fn ports(workers: usize, worker: usize, sets: usize) -> SnatPorts {
        SnatPorts::new(Owners::new(workers), worker, sets, 42)
    }

    #[test]
    fn every_port_is_given_once_and_then_exactly_none() {
        let mut ports = ports(1, 0, 4);
        let given: HashSet<u16> = (0..64_512).map(|_| ports.take(pair("10.1.0.11")).unwrap()).collect();
        assert_eq!((given.len(), given.iter().min()), (64_512, Some(&1024)));
        assert_eq!(ports.take(pair("10.1.0.11")), Err(Exhausted));
        ports.release(pair("10.1.0.11"), 5_555);
        assert_eq!(ports.take(pair("10.1.0.11")), Ok(5_555));
    }

    #[test]
    fn one_port_serves_many_members() {
        let mut ports = ports(1, 0, 4);
        assert!(ports.take_exactly(pair("10.1.0.11"), 40_000));
        assert!(ports.take_exactly(pair("10.1.0.12"), 40_000));
        assert!(!ports.take_exactly(pair("10.1.0.11"), 40_000));
        assert!(!ports.take_exactly(pair("10.1.0.11"), 80), "well-known ports are not given");
        assert_eq!(ports.in_use(), 2);
    }

    #[test]
    fn workers_never_share_a_port() {
        let (mut first, mut second) = (ports(2, 0, 1), ports(2, 1, 1));
        let take_all = |ports: &mut SnatPorts| -> HashSet<u16> {
            std::iter::from_fn(|| ports.take(pair("10.1.0.11")).ok()).collect()
        };
        let (first, second) = (take_all(&mut first), take_all(&mut second));
        assert!(first.is_disjoint(&second));
        assert_eq!(first.len() + second.len(), 64_512);
        assert!(first.iter().all(|&port| Owners::new(2).of_port(port) == 0));
    }

    #[test]
    fn pairs_beyond_the_sets_share_without_giving_a_port_twice() {
        let mut ports = ports(1, 0, 1);
        let mut given = HashSet::new();
        for n in 0..1_000u32 {
            let member = format!("10.1.{}.{}", n / 250, n % 250 + 1);
            assert!(given.insert(ports.take(pair(&member)).unwrap()));
        }
        assert_eq!(ports.sets[0].tenants, 1_000);
    }

    #[test]
    fn a_pair_without_ports_gives_its_set_back() {
        let mut ports = ports(1, 0, 1);
        for n in 0..5_000u32 {
            let pair = Pair { member_port: n as u16, ..pair("10.1.0.11") };
            let port = ports.take(pair).unwrap();
            assert_eq!(ports.sets[0].tenants, 1);
            ports.release(pair, port);
        }
        assert_eq!((ports.in_use(), ports.pairs.len()), (0, 0));
    }

    #[test]
    fn a_set_that_comes_back_is_used_before_a_fresh_one() {
        let mut ports = ports(1, 0, 4);
        for _ in 0..10 {
            let port = ports.take(pair("10.1.0.11")).unwrap();
            ports.release(pair("10.1.0.11"), port);
        }
        assert_eq!(ports.fresh_sets, 1);
        for last in 11..15 {
            ports.take(pair(&format!("10.1.0.{last}"))).unwrap();
        }
        assert!(ports.sets.iter().all(|set| set.tenants == 1), "nobody shares while there are sets");
    }

    #[test]
    fn ports_are_not_given_in_order() {
        let mut ports = ports(1, 0, 1);
        let given: Vec<u16> = (0..100).map(|_| ports.take(pair("10.1.0.11")).unwrap()).collect();
        let steps: HashSet<i32> = given.windows(2).map(|two| i32::from(two[1]) - i32::from(two[0])).collect();
        assert!(steps.len() > 90, "{given:?}");
    }
}
