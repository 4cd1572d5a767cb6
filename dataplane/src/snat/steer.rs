//! Which worker owns what: the Toeplitz hash, the classes of ports, and the map from classes to workers.
//!
//! ```text
//!   port ─▶ class (7 bits of a linear hash; 512 ports each) ─▶ bucket ─▶ worker
//! ```
//!
//! A worker only takes SNAT ports of its own classes, so the owner of a reply is a pure function of its destination
//! port, on every driver. 128 buckets map to workers, so that the number of workers can change without anything
//! else changing. The hash is the one NICs use for receive-side scaling; because it is linear, the class of a
//! whole tuple is the xor of its parts, which lets a NIC's own placement be met by constructing the port.

use std::sync::OnceLock;

use crate::address::Address;

/// Port classes, and buckets that map to workers.
pub const CLASSES: usize = 128;
/// Ports in each class.
pub const PORTS_PER_CLASS: usize = 65_536 / CLASSES;

/// The key of the published receive-side scaling verification suite, which most NICs start with.
pub const RSS_KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// The Toeplitz hash of `input` (at most 36 bytes: addresses and ports in network order) under `key`.
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

/// The class of every port, and the ports of every class in ascending order.
pub struct Classes {
    class: Box<[u8; 65_536]>,
    place: Box<[u16; 65_536]>,
    ports: Box<[[u16; PORTS_PER_CLASS]; CLASSES]>,
}

impl Classes {
    /// The classes under [`RSS_KEY`], made once in a process.
    pub fn shared() -> &'static Classes {
        static SHARED: OnceLock<Classes> = OnceLock::new();
        SHARED.get_or_init(|| Classes::of_key(&RSS_KEY).expect("the key's rank is 7, checked by a test"))
    }

    /// The classes under `key`; `None` when the key does not spread ports evenly (its rank in the 7 low bits is
    /// too small).
    pub fn of_key(key: &[u8; 40]) -> Option<Self> {
        let mut classes = Self {
            class: vec![0; 65_536].into_boxed_slice().try_into().ok()?,
            place: vec![0; 65_536].into_boxed_slice().try_into().ok()?,
            ports: vec![[0; PORTS_PER_CLASS]; CLASSES].into_boxed_slice().try_into().ok()?,
        };
        let mut filled = [0; CLASSES];
        for port in 0..=u16::MAX {
            let class = class_of_destination_port(key, port);
            let place = filled[class];
            *classes.ports[class].get_mut(place)? = port;
            classes.class[usize::from(port)] = class as u8;
            classes.place[usize::from(port)] = place as u16;
            filled[class] += 1;
        }
        Some(classes)
    }

    /// The class of `port`, below [`CLASSES`].
    #[inline(always)]
    pub fn of(&self, port: u16) -> usize {
        usize::from(self.class[usize::from(port)])
    }

    /// Where `port` stands in its class.
    #[inline(always)]
    pub fn place(&self, port: u16) -> usize {
        usize::from(self.place[usize::from(port)])
    }

    /// The port at `place` of `class`.
    #[inline(always)]
    pub fn port(&self, class: usize, place: usize) -> u16 {
        self.ports[class % CLASSES][place % PORTS_PER_CLASS]
    }
}

/// A hash of one end of a connection, the same in every process and on every worker.
pub fn endpoint_hash(address: Address, port: u16) -> u64 {
    let mixed = (address.high ^ u64::from(port)).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ address.low;
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ (mixed >> 32)
}

/// Which worker owns which classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owners {
    workers: usize,
}

impl Owners {
    /// For `workers` workers (at least 1, at most [`CLASSES`]).
    pub fn new(workers: usize) -> Self {
        Self { workers: workers.clamp(1, CLASSES) }
    }

    /// The worker that owns `class`.
    #[inline(always)]
    pub fn of_class(self, class: usize) -> usize {
        class % self.workers
    }

    /// The worker that owns replies to `port` of a SNAT address.
    #[inline(always)]
    pub fn of_port(self, port: u16) -> usize {
        if self.workers == 1 { 0 } else { self.of_class(Classes::shared().of(port)) }
    }

    /// The worker that owns flows of the endpoint or pair of endpoints with this hash.
    pub fn of_hash(self, hash: u64) -> usize {
        self.of_class((hash >> 57) as usize)
    }

    /// One worker's part of a rate that holds for the process, rounded up.
    pub fn share_of(self, rate: u32) -> u32 {
        rate.div_ceil(self.workers as u32)
    }

    /// How many workers there are.
    pub fn workers(self) -> usize {
        self.workers
    }

    /// One bit for each class that `worker` owns.
    pub fn classes_of(self, worker: usize) -> u128 {
        (0..CLASSES).filter(|&class| self.of_class(class) == worker).fold(0, |mask, class| mask | 1 << class)
    }
}

/// The hash of a tuple that is zero but for its destination port, IPv4 layout, in the 7 bits that index a table of
/// 128.
fn class_of_destination_port(key: &[u8; 40], port: u16) -> usize {
    let mut tuple = [0; 12];
    tuple[10..].copy_from_slice(&port.to_be_bytes());
    toeplitz(key, &tuple) as usize % CLASSES
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for (src, sport, dst, dport, two, four) in ROWS {
            let addresses = [src, dst].concat();
            let with_ports =
                [addresses.clone(), sport.to_be_bytes().to_vec(), dport.to_be_bytes().to_vec()].concat();
            assert_eq!((toeplitz(&RSS_KEY, &addresses), toeplitz(&RSS_KEY, &with_ports)), (two, four));
        }
    }

    #[test]
    fn ports_fall_into_128_classes_of_512() {
        let classes = Classes::shared();
        for port in 0..=u16::MAX {
            assert_eq!(classes.port(classes.of(port), classes.place(port)), port);
        }
        let usable = (1024..=u16::MAX).filter(|&port| classes.of(port) % 4 == 1).count();
        assert_eq!(usable, 16_128);
    }

    #[test]
    fn a_key_without_rank_is_refused() {
        assert!(Classes::of_key(&[0; 40]).is_none());
    }

    #[test]
    fn the_hash_of_a_tuple_is_the_xor_of_its_parts() {
        let tuple = [10, 0, 0, 9, 10, 0, 1, 1, 0, 80, 0xee, 0x48];
        let mut without_port = tuple;
        without_port[10..].fill(0);
        let class = Classes::shared().of(0xee48) as u32;
        let whole = toeplitz(&RSS_KEY, &tuple) % 128;
        assert_eq!(whole, (toeplitz(&RSS_KEY, &without_port) % 128) ^ class);
    }

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
    fn every_class_has_one_owner_whatever_the_number_of_workers() {
        for workers in [1, 2, 3, 7, 16, 128] {
            let owners = Owners::new(workers);
            let all = (0..workers).fold(0u128, |seen, worker| {
                let mine = owners.classes_of(worker);
                assert_eq!(seen & mine, 0);
                seen | mine
            });
            assert_eq!(all, u128::MAX);
        }
    }
}
