//! [`Maglev`]: a table from hash to member that any replica makes alike (Eisenbud and others, "Maglev: A Fast and
//! Reliable Software Network Load Balancer", NSDI 2016, section 3.4), with weights.
//!
//! Each member has its own order of the slots, made from its address and port. Members take turns, and each takes
//! the first slot of its order that is free. Whoever has twice the weight has twice the turns, evenly in between;
//! how many slots each gets is settled before, so that equal weights differ by one slot at most.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::address::Address;
use crate::config::ids::PoolId;
use crate::config::snapshot::{Member, Method, Parts, Pool};

/// Slots of a table, a prime.
pub const SLOTS: usize = 65_537;

/// The hash of a client, the same on any replica.
#[inline]
pub fn hash_of(address: Address, port: u16) -> u64 {
    mix(mix(mix(address.high) ^ address.low).wrapping_add(u64::from(port)))
}

/// A table of one pool. 128 KiB.
#[derive(Debug, PartialEq, Eq)]
pub struct Maglev {
    /// By slot: the member's place in the pool.
    slots: Box<[u16]>,
    members: Box<[Entry]>,
}

/// What a member is to the table: its address, port and weight. Never its id, which differs between replicas.
type Entry = (Address, u16, u16);

impl Maglev {
    /// The table for `members`, of which the first 65,535 get slots; `None` without members. A few milliseconds.
    pub fn build(members: &[Member]) -> Option<Self> {
        Self::of(members.iter().map(entry_of).collect())
    }

    fn of(members: Box<[Entry]>) -> Option<Self> {
        if members.is_empty() {
            return None;
        }
        let mut order: Vec<u16> = (0..members.len().min(usize::from(FREE)) as u16).collect();
        order.sort_unstable_by_key(|&place| members[usize::from(place)]);
        Some(Self { slots: fill(&members, &order), members })
    }

    /// The slot that `hash` leads to.
    #[inline]
    fn slot_of(hash: u64) -> usize {
        (((hash >> 32) * SLOTS as u64) >> 32) as usize
    }

    /// The place in the pool of the member that `slot` (below [`SLOTS`]) belongs to.
    #[inline]
    pub fn place(&self, slot: usize) -> usize {
        usize::from(self.slots[slot])
    }

    /// The place in the pool of the member that `hash` leads to.
    #[inline]
    pub fn place_of(&self, hash: u64) -> usize {
        self.place(Self::slot_of(hash))
    }
}

fn entry_of(member: &Member) -> Entry {
    (member.address, member.port, member.ratio.max(1))
}

/// Lets members take slots until none is free.
fn fill(members: &[Entry], order: &[u16]) -> Box<[u16]> {
    let mut walks: Vec<Walk> = order.iter().map(|&place| Walk::of(&members[usize::from(place)])).collect();
    let mut slots = vec![FREE; SLOTS].into_boxed_slice();
    for rank in turns(order.iter().map(|&place| u64::from(members[usize::from(place)].2)).collect()) {
        let walk = &mut walks[usize::from(rank)];
        while slots[walk.next] != FREE {
            walk.step();
        }
        slots[walk.next] = order[usize::from(rank)];
        walk.step();
    }
    slots
}

/// A member's own order of the slots: from `next` on, in strides.
struct Walk {
    next: usize,
    stride: usize,
}

impl Walk {
    fn of(&(address, port, _): &Entry) -> Self {
        let hash = hash_of(address, port);
        let stride = mix(hash ^ 0x5851_f42d_4c95_7f2d) % (SLOTS as u64 - 1) + 1;
        Self { next: (hash % SLOTS as u64) as usize, stride: stride as usize }
    }

    fn step(&mut self) {
        self.next += self.stride;
        self.next -= if self.next >= SLOTS { SLOTS } else { 0 };
    }
}

/// Who takes a slot at each of the [`SLOTS`] turns, by rank. The n-th turn of a weight w is due at (n + 1/2) / w;
/// a counting sort puts turns in order of time, and at the same time in order of rank.
fn turns(mut weights: Vec<u64>) -> Vec<u16> {
    let counts = slots_of_each(&mut weights);
    let all: u64 = weights.iter().sum();
    let time = |rank: usize, turn: u32| {
        ((2 * u64::from(turn) + 1) * all / (2 * weights[rank])).min(SLOTS as u64 - 1) as usize
    };
    let each =
        || counts.iter().enumerate().flat_map(|(rank, &count)| (0..count).map(move |turn| (rank, turn)));
    let mut starts = vec![0u32; SLOTS + 1];
    each().for_each(|(rank, turn)| starts[time(rank, turn) + 1] += 1);
    (1..starts.len()).for_each(|at| starts[at] += starts[at - 1]);
    let mut turns = vec![0; SLOTS];
    for (rank, turn) in each() {
        let at = &mut starts[time(rank, turn)];
        turns[*at as usize] = rank as u16;
        *at += 1;
    }
    turns
}

/// How many slots each weight gets: its share rounded down, and one more for the largest remainders. Weights too
/// small for a slot are raised first.
fn slots_of_each(weights: &mut [u64]) -> Vec<u32> {
    let least = 2 * weights.iter().sum::<u64>() / SLOTS as u64 + 1;
    weights.iter_mut().for_each(|weight| *weight = (*weight).max(least));
    let all: u64 = weights.iter().sum();
    let share = |weight: u64| (weight * SLOTS as u64 / all, weight * SLOTS as u64 % all);
    let mut counts: Vec<u32> = weights.iter().map(|&weight| share(weight).0 as u32).collect();
    let left = SLOTS - counts.iter().sum::<u32>() as usize;
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|&rank| std::cmp::Reverse(share(weights[rank]).1));
    by_remainder.iter().take(left).for_each(|&rank| counts[rank] += 1);
    counts
}

/// Spreads a number's bits over all of them (the finalizer of SplitMix64; Steele, Lea and Flood, OOPSLA 2014).
#[inline]
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Not a place.
const FREE: u16 = u16::MAX;

/// The tables of a configuration. Pools with the same members, and configurations that follow one another, share.
#[derive(Debug, Default)]
pub struct MaglevTables {
    by_pool: HashMap<PoolId, Arc<Maglev>>,
}

impl MaglevTables {
    /// Tables for the pools that need one, taken from `former` where the members are the same.
    pub fn build(parts: &Parts, former: &MaglevTables) -> Self {
        let needs = |pool: &&Pool| pool.method == Method::ConsistentHash;
        let mut known: HashMap<&[Entry], Arc<Maglev>> =
            former.by_pool.values().map(|table| (&*table.members, Arc::clone(table))).collect();
        let mut made: HashMap<Box<[Entry]>, Arc<Maglev>> = HashMap::new();
        let mut table_of = |pool: &Pool| {
            let members: Box<[Entry]> = pool.members.iter().map(entry_of).collect();
            if let Some(table) = known.get_mut(&*members).or_else(|| made.get_mut(&*members)) {
                return Some(Arc::clone(table));
            }
            let table = Arc::new(Maglev::of(members.clone())?);
            made.insert(members, Arc::clone(&table));
            Some(table)
        };
        let by_pool = parts.pools.iter().filter(needs);
        Self { by_pool: by_pool.filter_map(|pool| Some((pool.id, table_of(pool)?))).collect() }
    }

    /// The table of `pool`, if it has one.
    pub fn of(&self, pool: PoolId) -> Option<&Maglev> {
        self.by_pool.get(&pool).map(|table| &**table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ids::MemberId;

    fn members(ratios: &[u16]) -> Vec<Member> {
        let member = |(place, &ratio): (usize, &u16)| Member {
            id: MemberId(place as u32),
            address: Address::v4([10, 1, (place >> 8) as u8, place as u8]),
            port: 8_080,
            ratio,
            ..Member::default()
        };
        ratios.iter().enumerate().map(member).collect()
    }

    fn slots_of(members: &[Member]) -> Vec<usize> {
        let table = Maglev::build(members).unwrap();
        let mut counts = vec![0; members.len()];
        (0..SLOTS).for_each(|slot| counts[table.place(slot)] += 1);
        counts
    }

    /// By slot: whose it is.
    fn owners(members: &[Member]) -> Vec<Address> {
        let table = Maglev::build(members).unwrap();
        (0..SLOTS).map(|slot| members[table.place(slot)].address).collect()
    }

    #[test]
    fn no_member_has_no_table() {
        assert!(Maglev::build(&[]).is_none());
    }

    #[test]
    fn one_member_has_every_slot() {
        assert_eq!(slots_of(&members(&[3])), [SLOTS]);
    }

    #[test]
    fn equal_weights_differ_by_one_slot_at_most() {
        for count in [2, 3, 7, 100, 400, 1_000] {
            let slots = slots_of(&members(&vec![5; count]));
            let floor = SLOTS / count;
            assert!(slots.iter().all(|&slots| slots == floor || slots == floor + 1), "{count}: {slots:?}");
        }
    }

    #[test]
    fn slots_are_in_proportion_to_weights() {
        assert_eq!(slots_of(&members(&[2, 1, 1])), [32_769, 16_384, 16_384]);
        assert_eq!(slots_of(&members(&[1, 1, 2])), [16_384, 16_384, 32_769]);
    }

    #[test]
    fn the_smallest_weight_beside_the_greatest_has_a_slot() {
        let mut weights = vec![u16::MAX; 400];
        weights[17] = 1;
        let slots = slots_of(&members(&weights));
        assert!(slots[17] >= 1 && slots[17] < slots[16], "{} beside {}", slots[17], slots[16]);
        assert_eq!(slots.iter().sum::<usize>(), SLOTS);
    }

    /// The theory for equal weights: of n members' slots, 1/n × (ln n - 1) move though they would not have to.
    #[test]
    fn removing_one_of_many_moves_its_slots_and_under_one_in_a_hundred_of_the_others() {
        let before = members(&[1; 400]);
        let owned = owners(&before);
        let (mut moved, mut others) = (0, 0);
        for removed in (0..400).step_by(40) {
            let mut after = before.clone();
            let gone = after.remove(removed).address;
            let owned_after = owners(&after);
            assert!(!owned_after.contains(&gone));
            let stay = owned.iter().zip(&owned_after).filter(|&(&was, _)| was != gone);
            others += stay.clone().count();
            moved += stay.filter(|&(was, is)| was != is).count();
        }
        assert!(moved * 100 < others, "{moved} of {others} moved without need");
    }

    #[test]
    fn the_order_of_members_does_not_matter() {
        for ratios in [vec![1; 50], (1..=50).collect()] {
            let forward = members(&ratios);
            let mut shuffled = forward.clone();
            shuffled.sort_by_key(|member| mix(member.address.low));
            assert_ne!(forward, shuffled);
            assert_eq!(owners(&forward), owners(&shuffled));
        }
    }

    #[test]
    fn ids_do_not_matter() {
        let one = members(&[1, 2, 3]);
        let mut other = one.clone();
        other.iter_mut().for_each(|member| member.id = MemberId(77 - member.id.0));
        assert_eq!(Maglev::build(&one), Maglev::build(&other));
    }

    /// The number was taken from another process: nothing of one process may be in the table.
    #[test]
    fn every_process_makes_the_same_table() {
        let table = Maglev::build(&members(&[4, 1, 2, 2, 9])).unwrap();
        let sum = table.slots.iter().fold(0, |sum, &place| mix(sum ^ u64::from(place)));
        assert_eq!(sum, 1_796_978_974_639_945_240);
        assert_eq!(hash_of(Address::v4([198, 51, 100, 7]), 40_000), 4_872_801_959_567_791_140);
    }

    #[test]
    fn pools_that_need_none_have_none_and_the_same_members_share() {
        let pool = |id, method| Pool { id: PoolId(id), method, members: members(&[1, 2]), ..Pool::default() };
        let pools = vec![
            pool(0, Method::RoundRobin),
            pool(1, Method::ConsistentHash),
            pool(2, Method::ConsistentHash),
        ];
        let parts = Parts { pools, ..Parts::default() };
        let tables = MaglevTables::build(&parts, &MaglevTables::default());
        assert!(tables.of(PoolId(0)).is_none());
        let after = MaglevTables::build(&parts, &tables);
        let shared =
            |one: PoolId, other: PoolId| std::ptr::eq(tables.of(one).unwrap(), after.of(other).unwrap());
        assert!(shared(PoolId(1), PoolId(1)) && shared(PoolId(1), PoolId(2)));
        let mut changed = parts.clone();
        changed.pools[1].members[0].ratio = 7;
        let after = MaglevTables::build(&changed, &tables);
        assert_ne!(tables.of(PoolId(1)), after.of(PoolId(1)));
    }
}
