//! The SNAT ports of one worker: which are in use, for each pair of SNAT address and member.
//!
//! ```text
//!   (SNAT address, member) ─▶ tenant ─┬ home: the classes whose ports bring replies to my buckets     u128
//!                                     └▶ set ─┬ classes with a port to give                           u128
//!                                             └ class ─▶ 512 bits                      in use, and resting
//!   base ^ class of the port = bucket of the reply, which must be one of mine; base: the hash without the port
//! ```
//!
//! Behind some addresses clients keep their ports whatever the hash of the reply ([`SnatPorts::own_by_port`]). There a
//! port's number alone names its owner, which every worker asks before it gives one, so that no two give the same.
//!
//! So a port is made, not searched for: a random one of the classes that are my buckets shifted by the base, then a
//! free bit of 512 from a random place on (RFC 6056 section 3.3.1), a few loads whatever the use. A pair is looked up
//! once to take a port and once to give it back.
//!
//! The same port serves every member at once; only (address, port, member) must be unique. A port that was given
//! back rests before the same member meets it again, so that a connection in TIME-WAIT there, or what is late from a
//! UDP server, is not taken for the next one; only when nothing else is left are resting ports given. When pairs
//! outnumber sets they share one, which costs ports and rest, never correctness.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashbrown::HashMap;

use super::classes::Classes;
pub use super::classes::PORT_MIN;
use super::rules::Rules;
use super::steer::{endpoint_hash, shifted};
use super::stock::{Spot, Stock, Tenant};
use super::toeplitz::{bucket_of, ports_word};
pub use super::usage::SnatUse;
use crate::address::Address;
use crate::packet::parse::protocol;

/// Why no port was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted;

/// The two ends that share a set of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Zeroable)]
pub struct Pair {
    /// The SNAT address.
    pub address: Address,
    /// The member's address.
    pub member: Address,
    /// The member's port.
    pub member_port: u16,
    /// TCP or UDP; of ICMP echo where an identifier stands for the port.
    pub protocol: u8,
}

impl Hash for Pair {
    /// Two words hold all of an IPv4 pair.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        if self.address.high | self.member.high == 0 {
            state.write_u64(self.address.low << 32 | self.member.low & 0xffff_ffff);
        } else {
            (self.address, self.member).hash(state);
        }
        state.write_u64(u64::from(self.member_port) << 8 | u64::from(self.protocol));
    }
}

/// One worker's SNAT ports.
pub struct SnatPorts {
    pub(super) stock: Stock,
    /// Which set a pair has, and how many ports it holds there.
    pairs: HashMap<Pair, Tenant>,
    free_sets: Vec<u32>,
    fresh_sets: usize,
    /// Pairs without ports in use that keep their set while ports rest there, each once; some have come back.
    idle: VecDeque<Pair>,
    /// The buckets whose replies come to this worker.
    mine: u128,
}

impl SnatPorts {
    /// Ports whose replies come to buckets that `worker` owns, for `sets_max` pairs before they share.
    pub fn new(rules: Arc<Rules>, worker: usize, sets_max: usize, seed: u64) -> Self {
        let owners = rules.owners();
        Self {
            stock: Stock::new(rules, worker, sets_max, seed),
            pairs: HashMap::new(),
            free_sets: Vec::with_capacity(sets_max),
            fresh_sets: 0,
            idle: VecDeque::with_capacity(sets_max),
            mine: owners.buckets_of(worker),
        }
    }

    /// Bytes taken, resident only where used.
    pub fn bytes(&self) -> usize {
        self.stock.sets.bytes()
    }

    /// Sets there are.
    pub fn capacity(&self) -> usize {
        self.stock.sets.len()
    }

    /// Ports in use now.
    pub fn in_use(&self) -> usize {
        self.stock.in_use
    }

    /// What each SNAT address is at.
    pub fn list(&self) -> Vec<SnatUse> {
        self.stock.addresses.list(self.stock.generation)
    }

    /// Says what time it is. To be said once a second; ports rest in steps of a minute.
    pub fn advance(&mut self, now_ms: u64) {
        self.stock.advance(now_ms);
    }

    /// From now on `listened`, and no others, are never given, because somebody listens on them.
    pub fn exclude(&mut self, listened: &[(Address, u16)]) {
        self.stock.addresses.listen(listened);
    }

    /// From now on the ports of `addresses` belong to [`Owners::of_port`], so that clients may keep theirs, as soon as
    /// every worker has seen to that ([`SnatPorts::go_on_changing`]). An address never goes back, nor loses what it has
    /// given.
    ///
    /// [`Owners::of_port`]: super::steer::Owners::of_port
    pub fn own_by_port(&mut self, addresses: &[Address]) {
        self.stock.own_by_port(addresses);
        self.go_on_changing();
    }

    /// True when addresses are to have owners by number that do not have them yet, as far as it depends on this worker.
    #[inline(always)]
    pub fn is_changing(&self) -> bool {
        self.stock.change.is_due()
    }

    /// Works on that, for a tenth of a millisecond or two at most. True while there is more to do.
    #[cold]
    pub fn go_on_changing(&mut self) -> bool {
        self.stock.go_on_changing(WORK_A_TURN)
    }

    /// False while some worker still gives ports by the rule before. O(workers).
    pub fn is_settled(&mut self) -> bool {
        self.stock.change.is_settled()
    }

    /// The same of when a port was last asked for: one that was not given may be given later. O(workers).
    pub fn was_settled(&mut self) -> bool {
        let was = self.stock.change.was_settled();
        // The next one that asks knows what is so by then.
        self.stock.change.is_settled();
        was
    }

    /// True when the number of a port of `address` names its owner. One look-up.
    #[inline]
    pub fn is_by_port(&self, address: Address) -> bool {
        self.stock.addresses.has_by_port(address)
    }

    /// Takes `wanted` for `pair` when it is free, does not rest, and its replies reach this worker. A well-known port is
    /// taken in no other way. O(1), and linear in the well-known ports that are listened on.
    pub fn take_exactly(&mut self, pair: Pair, wanted: u16) -> bool {
        self.take_by(pair, |stock, tenant| stock.exactly(tenant, wanted, false)).is_some()
    }

    /// As [`SnatPorts::take_exactly`], whether it rests or not; where ports have owners by number, whatever worker its
    /// replies reach first.
    pub fn take_strictly(&mut self, pair: Pair, wanted: u16) -> bool {
        self.take_by(pair, |stock, tenant| stock.exactly(tenant, wanted, true)).is_some()
    }

    /// Takes any free port for `pair` whose replies reach this worker. O(1), no allocation but for a pair's first
    /// port.
    ///
    /// # Errors
    /// [`Exhausted`] when this worker has no free port towards this member.
    pub fn take(&mut self, pair: Pair) -> Result<u16, Exhausted> {
        self.take_by(pair, Stock::any).ok_or(Exhausted)
    }

    /// `wanted` as by [`SnatPorts::take_exactly`], and else any as by [`SnatPorts::take`].
    ///
    /// # Errors
    /// As of [`SnatPorts::take`].
    pub fn take_rather(&mut self, pair: Pair, wanted: u16) -> Result<u16, Exhausted> {
        let chosen = self.take_by(pair, |stock, tenant| {
            stock.exactly(tenant, wanted, false).or_else(|| stock.any(tenant))
        });
        chosen.ok_or(Exhausted)
    }

    /// Gives `port` back. O(1).
    pub fn release(&mut self, pair: Pair, port: u16) {
        let Some(tenant) = self.pairs.get_mut(&pair) else { return };
        if self.stock.give_back(tenant, port) && tenant.ports == 0 {
            self.leave_if_unused(pair);
        }
    }

    /// Takes the port that is chosen for the pair, which is given a place among the sets if it has none.
    #[inline(always)]
    fn take_by(
        &mut self,
        pair: Pair,
        choose: impl FnOnce(&mut Stock, &mut Tenant) -> Option<Spot>,
    ) -> Option<u16> {
        let tenant = match self.pairs.get_mut(&pair) {
            Some(tenant) => tenant,
            None => {
                self.move_in(pair);
                self.pairs.get_mut(&pair)?
            }
        };
        let Some(spot) = choose(&mut self.stock, tenant) else {
            self.leave_if_unused(pair);
            return None;
        };
        Some(self.stock.occupy(tenant, spot))
    }

    #[cold]
    fn move_in(&mut self, pair: Pair) {
        let set = self.set_for_new();
        let address = self.stock.addresses.number_of(pair.address);
        let base = bucket_of(pair.member, pair.address, ports_word(pair.member_port, 0));
        self.stock.sets[set as usize].tenants += 1;
        self.stock.addresses.at(address).members += 1;
        let tenant = Tenant {
            home: shifted(self.mine, base),
            mark: mark_of(&pair),
            base: base as u8,
            draw: self.stock.draw(),
            classes: Classes::of_family(pair.address.is_v4()),
            set,
            address,
            ports: 0,
            is_echo: is_echo(&pair),
            is_listed: false,
            idle_since: 0,
        };
        self.stock.note_tenant(&tenant);
        self.pairs.insert(pair, tenant);
    }

    /// A set nobody has; else that of the pair that has been idle longest; else any.
    fn set_for_new(&mut self) -> u32 {
        if let Some(set) = self.free_sets.pop() {
            return set;
        }
        if self.is_oldest_idle_rested() {
            self.evict_idle();
        }
        if let Some(set) = self.free_sets.pop().or_else(|| self.fresh_set()) {
            return set;
        }
        self.evict_idle();
        let shared = self.stock.any_set();
        self.free_sets.pop().unwrap_or(shared)
    }

    /// A set that no pair has had yet.
    fn fresh_set(&mut self) -> Option<u32> {
        let set = self.fresh_sets;
        (set < self.capacity()).then(|| {
            self.fresh_sets += 1;
            set as u32
        })
    }

    fn is_oldest_idle_rested(&self) -> bool {
        let oldest = self.idle.front().and_then(|pair| self.pairs.get(pair));
        let is_over = |tenant: &Tenant| self.stock.generation.wrapping_sub(tenant.idle_since) >= 2;
        oldest.is_some_and(|tenant| tenant.ports == 0 && is_over(tenant))
    }

    /// Makes the set free of the pair that has been idle longest. Looks at a few; those that came back leave the
    /// list.
    fn evict_idle(&mut self) {
        for _ in 0..IDLE_LOOKS {
            let Some(pair) = self.idle.pop_front() else { return };
            let Some(tenant) = self.pairs.get_mut(&pair) else { continue };
            tenant.is_listed = false;
            if tenant.ports == 0 {
                self.move_out(pair);
                return;
            }
        }
    }

    /// A pair without ports in use leaves a set that it shares; one that it has alone it keeps while ports rest.
    #[cold]
    fn leave_if_unused(&mut self, pair: Pair) {
        let Some(tenant) = self.pairs.get_mut(&pair) else { return };
        if tenant.ports > 0 || tenant.is_listed {
            return;
        }
        let set = &self.stock.sets[tenant.set as usize];
        if set.tenants == 1 && set.resting.total(self.stock.generation) > 0 {
            tenant.is_listed = true;
            self.idle.push_back(pair);
        } else {
            self.move_out(pair);
        }
    }

    fn move_out(&mut self, pair: Pair) {
        let Some(tenant) = self.pairs.remove(&pair) else { return };
        if self.stock.leave(&tenant) {
            self.free_sets.push(tenant.set);
        }
    }
}

/// A hash of the pair, the same in every process; never 0.
fn mark_of(pair: &Pair) -> u64 {
    let ends = endpoint_hash(pair.address, 0) ^ endpoint_hash(pair.member, pair.member_port).rotate_left(32);
    (ends ^ u64::from(pair.protocol) << 56) | 1
}

/// Identifiers of ICMP echo stand for ports, and no port places replies by them.
fn is_echo(pair: &Pair) -> bool {
    matches!(pair.protocol, protocol::ICMP | protocol::ICMPV6)
}

/// In units of about ten nanoseconds: a tenth of a millisecond or two.
const WORK_A_TURN: usize = 16_384;
/// Idle pairs looked at for a set in one go.
const IDLE_LOOKS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::build::address;
    use crate::snat::random::Random;
    use crate::snat::rest::GENERATION_MS;
    use crate::snat::steer::Owners;
    use crate::snat::toeplitz::BUCKETS;
    use std::collections::HashSet;

    fn pair(member: &str) -> Pair {
        let own = if member.contains(':') { "2001:db8:2::10" } else { "10.1.0.10" };
        Pair { address: address(own), member: address(member), member_port: 80, protocol: 6 }
    }

    fn ports(workers: usize, worker: usize, sets: usize) -> SnatPorts {
        SnatPorts::new(Arc::new(Rules::of_ports(1 << 16, workers, &[])), worker, sets, 42)
    }

    fn take_all(ports: &mut SnatPorts, pair: Pair) -> HashSet<u16> {
        let mut given = HashSet::new();
        while let Ok(port) = ports.take(pair) {
            assert!(given.insert(port), "{port} twice");
        }
        given
    }

    fn bucket_of_reply(pair: &Pair, port: u16) -> usize {
        bucket_of(pair.member, pair.address, ports_word(pair.member_port, port))
    }

    fn usage(ports: &SnatPorts) -> (u32, u32, u64) {
        ports.list().iter().fold((0, 0, 0), |(in_use, resting, exhausted), one| {
            (in_use + one.in_use, resting + one.resting, exhausted + one.exhausted)
        })
    }

    #[test]
    fn every_port_is_given_once_and_then_exactly_none() {
        let (mut ports, pair) = (ports(1, 0, 4), pair("10.1.0.11"));
        let given = take_all(&mut ports, pair);
        assert_eq!((given.len(), given.iter().min()), (64_512, Some(&PORT_MIN)));
        assert_eq!((ports.take(pair), usage(&ports)), (Err(Exhausted), (64_512, 0, 2)));
        ports.release(pair, 5_555);
        assert_eq!(ports.take(pair), Ok(5_555));
    }

    #[test]
    fn every_port_lands_home_and_workers_never_share_one() {
        for workers in [1, 2, 3, 4, 7, 8, 16, 128] {
            let owners = Owners::new(workers);
            for member in ["10.1.0.11", "2001:db8:2::11"] {
                let (pair, mut all) = (pair(member), HashSet::new());
                for worker in 0..workers {
                    let given = take_all(&mut ports(workers, worker, 1), pair);
                    let is_home = |port: &u16| owners.of_bucket(bucket_of_reply(&pair, *port)) == worker;
                    assert!(given.iter().all(is_home), "{workers} workers, {member}");
                    let mine = owners.buckets_of(worker).count_ones() as usize;
                    assert_eq!(given.len(), mine * 504, "512 a bucket, 8 of them well-known");
                    all.extend(given);
                }
                assert_eq!(all.len(), 64_512);
            }
        }
    }

    #[test]
    fn one_port_serves_many_members() {
        let mut ports = ports(1, 0, 4);
        assert!(ports.take_exactly(pair("10.1.0.11"), 40_000));
        assert!(ports.take_exactly(pair("10.1.0.12"), 40_000));
        assert!(!ports.take_exactly(pair("10.1.0.11"), 40_000));
        assert_eq!(ports.in_use(), 2);
    }

    #[test]
    fn a_well_known_port_is_kept_and_never_given_unasked() {
        for member in ["10.1.0.11", "2001:db8:2::11"] {
            let (mut ports, pair) = (ports(1, 0, 4), pair(member));
            for wanted in [1, 80, 123, 500, 1_023] {
                assert!(ports.take_exactly(pair, wanted) && !ports.take_exactly(pair, wanted), "{wanted}");
                ports.release(pair, wanted);
                assert!(!ports.take_exactly(pair, wanted), "{wanted} rests");
                assert!(ports.take_strictly(pair, wanted), "{wanted} rests, but must be kept");
            }
            ports.exclude(&[(pair.address, 443)]);
            assert!(!ports.take_exactly(pair, 443), "somebody listens on it");
            assert!(!ports.take_exactly(pair, 0), "no port");
            assert_eq!(take_all(&mut ports, pair).iter().min(), Some(&PORT_MIN));
        }
    }

    #[test]
    fn a_wanted_port_is_given_only_where_its_replies_come_home() {
        let (owners, pair) = (Owners::new(4), pair("10.1.0.11"));
        for wanted in 2_000..2_200 {
            for worker in 0..4 {
                let is_home = owners.of_bucket(bucket_of_reply(&pair, wanted)) == worker;
                assert_eq!(ports(4, worker, 1).take_exactly(pair, wanted), is_home);
            }
        }
    }

    fn by_port(workers: usize, worker: usize, pair: &Pair) -> SnatPorts {
        SnatPorts::new(Arc::new(Rules::of_ports(1 << 16, workers, &[pair.address])), worker, 4, 42)
    }

    #[test]
    fn a_port_that_must_be_kept_is_given_by_exactly_the_worker_that_owns_its_number() {
        for workers in [1, 2, 3, 4, 8, 16] {
            let owners = Owners::new(workers);
            for member in ["10.1.0.11", "2001:db8:2::11"] {
                let pair = pair(member);
                let mut all: Vec<_> = (0..workers).map(|worker| by_port(workers, worker, &pair)).collect();
                for wanted in (0..=u16::MAX).step_by(37) {
                    let given = all.iter_mut().map(|ports| ports.take_strictly(pair, wanted));
                    let given: Vec<usize> =
                        (0..).zip(given).filter(|(_, is)| *is).map(|(at, _)| at).collect();
                    let owner = (wanted > 0).then(|| owners.of_port(wanted));
                    assert_eq!(given, owner.into_iter().collect::<Vec<_>>(), "{workers} workers, {wanted}");
                    assert!(!all.iter_mut().any(|ports| ports.take_strictly(pair, wanted)), "{wanted} twice");
                }
            }
        }
    }

    #[test]
    fn where_ports_are_kept_others_are_given_that_come_home_as_long_as_there_are_any() {
        for workers in [2, 3, 4, 8, 16] {
            let (owners, pair, mut all) = (Owners::new(workers), pair("10.1.0.11"), HashSet::new());
            for worker in 0..workers {
                let mut ports = by_port(workers, worker, &pair);
                let given: Vec<u16> = std::iter::from_fn(|| ports.take(pair).ok()).collect();
                let is_home = |port: &u16| owners.of_bucket(bucket_of_reply(&pair, *port)) == worker;
                let home = given.iter().position(|port| !is_home(port)).unwrap_or(given.len());
                assert!(!given[home..].iter().any(is_home), "first those whose replies come home");
                let fair = 64_512 / workers / workers;
                assert!(
                    (fair * 2 / 3..fair * 3 / 2).contains(&home),
                    "{workers} workers: {home} of about {fair}"
                );
                assert!(given.iter().all(|port| owners.of_port(*port) == worker));
                let count = given.len();
                assert_eq!(usage(&ports), (count as u32, 0, 1));
                all.extend(given);
            }
            assert_eq!(all.len(), 64_512, "none is lost and none has two owners");
        }
    }

    #[test]
    fn a_port_whose_reply_crosses_is_kept_only_where_it_must_be() {
        let (owners, pair) = (Owners::new(4), pair("10.1.0.11"));
        for wanted in 2_000..2_200 {
            let is_home = owners.of_bucket(bucket_of_reply(&pair, wanted)) == owners.of_port(wanted);
            let mut ports = by_port(4, owners.of_port(wanted), &pair);
            assert_eq!(ports.take_exactly(pair, wanted), is_home);
            assert_eq!(ports.take_strictly(pair, wanted), !is_home);
        }
    }

    #[test]
    fn owners_by_number_come_while_ports_are_in_use_and_stay() {
        let (mut ports, pair) = (ports(4, 1, 4), pair("10.1.0.11"));
        let before = take_all(&mut ports, pair);
        ports.own_by_port(&[pair.address]);
        ports.exclude(&[(pair.address, 5_000)]);
        ports.own_by_port(&[]);
        assert!(ports.is_by_port(pair.address) && !ports.is_by_port(pair.member));
        let after = take_all(&mut ports, pair);
        assert!(after.is_disjoint(&before) && !after.contains(&5_000));
        assert!(after.iter().all(|port| Owners::new(4).of_port(*port) == 1));
        before.iter().chain(&after).for_each(|port| ports.release(pair, *port));
        assert_eq!(usage(&ports).0, 0);
    }

    #[test]
    fn an_identifier_of_echo_is_kept_whatever_its_hash() {
        for keeps in [true, false] {
            let pair = Pair { protocol: protocol::ICMP, ..pair("10.1.0.11") };
            let mut ports = if keeps { by_port(8, 0, &pair) } else { ports(8, 0, 4) };
            assert!((2_000..2_100).all(|identifier| ports.take_strictly(pair, identifier)));
            assert!((2_000..2_100).all(|identifier| !ports.take_strictly(pair, identifier)));
        }
    }

    #[test]
    fn a_released_port_rests_before_the_same_member_meets_it_again() {
        let (mut ports, pair) = (ports(64, 0, 4), pair("10.1.0.11"));
        let all = 2 * 504;
        let mut met = HashSet::new();
        for _ in 0..all {
            let port = ports.take(pair).unwrap();
            assert!(met.insert(port), "{port} came back at once");
            ports.release(pair, port);
        }
        assert_eq!(usage(&ports), (0, all, 0));
        ports.advance(GENERATION_MS);
        assert_eq!(usage(&ports), (0, all, 0), "half of the rest is over");
        ports.advance(2 * GENERATION_MS);
        assert_eq!(usage(&ports), (0, 0, 0));
    }

    #[test]
    fn when_nothing_else_is_left_ports_are_given_that_have_rested_longest() {
        let (mut ports, pair) = (ports(128, 0, 4), pair("10.1.0.11"));
        let given: Vec<u16> = (0..504).map(|_| ports.take(pair).unwrap()).collect();
        ports.release(pair, given[0]);
        ports.advance(GENERATION_MS);
        ports.release(pair, given[1]);
        assert_eq!(usage(&ports), (502, 2, 0));
        assert_eq!([ports.take(pair), ports.take(pair)], [Ok(given[0]), Ok(given[1])]);
        assert_eq!((ports.take(pair), usage(&ports)), (Err(Exhausted), (504, 0, 1)));
    }

    #[test]
    fn a_wanted_port_that_rests_is_given_only_strictly() {
        let (mut ports, pair) = (ports(1, 0, 4), pair("10.1.0.11"));
        assert!(ports.take_exactly(pair, 40_000));
        ports.release(pair, 40_000);
        assert!(!ports.take_exactly(pair, 40_000));
        assert!(ports.take_strictly(pair, 40_000) && !ports.take_strictly(pair, 40_000));
        ports.release(pair, 40_000);
        ports.advance(2 * GENERATION_MS);
        assert!(ports.take_exactly(pair, 40_000));
    }

    #[test]
    fn rest_does_not_keep_a_port_from_another_member() {
        let mut ports = ports(1, 0, 4);
        assert!(ports.take_exactly(pair("10.1.0.11"), 40_000));
        ports.release(pair("10.1.0.11"), 40_000);
        assert!(ports.take_exactly(pair("10.1.0.12"), 40_000));
    }

    #[test]
    fn ports_that_somebody_listens_on_are_never_given() {
        let (mut ports, pair) = (ports(128, 0, 4), pair("10.1.0.11"));
        let listened = ports.take(pair).unwrap();
        ports.release(pair, listened);
        ports.exclude(&[(pair.address, listened), (pair.address, 80), (address("10.1.0.99"), 5_000)]);
        let given = take_all(&mut ports, pair);
        assert!(given.len() == 503 && !given.contains(&listened));
        assert!(!ports.take_exactly(pair, listened) && !ports.take_strictly(pair, listened));
        assert_eq!(ports.list()[0].ports_each, 64_511, "80 is not given anyway");
        ports.exclude(&[]);
        assert_eq!((ports.take(pair), ports.list()[0].ports_each), (Ok(listened), 64_512));
    }

    #[test]
    fn pairs_beyond_the_sets_share_without_giving_a_port_twice() {
        let mut ports = ports(1, 0, 1);
        let mut given = HashSet::new();
        for n in 0..1_000u32 {
            let member = format!("10.1.{}.{}", n / 250, n % 250 + 1);
            assert!(given.insert(ports.take(pair(&member)).unwrap()));
        }
        assert_eq!(ports.stock.sets[0].tenants, 1_000);
    }

    #[test]
    fn an_idle_pair_leaves_its_set_to_one_that_needs_it() {
        let mut ports = ports(1, 0, 1);
        for n in 0..5_000u32 {
            let pair = Pair { member_port: n as u16, ..pair("10.1.0.11") };
            let port = ports.take(pair).unwrap();
            assert_eq!((ports.stock.sets[0].tenants, ports.pairs.len()), (1, 1));
            ports.release(pair, port);
        }
        assert_eq!((ports.in_use(), ports.idle.len(), usage(&ports)), (0, 1, (0, 1, 0)));
    }

    #[test]
    fn a_set_that_comes_back_is_used_before_a_fresh_one() {
        let mut ports = ports(1, 0, 4);
        for round in 0..10 {
            ports.advance(round * 2 * GENERATION_MS);
            let pair = pair(&format!("10.1.1.{round}"));
            let port = ports.take(pair).unwrap();
            ports.release(pair, port);
        }
        assert_eq!(ports.fresh_sets, 1);
        for last in 11..15 {
            ports.take(pair(&format!("10.1.0.{last}"))).unwrap();
        }
        assert!(ports.stock.sets.iter().all(|set| set.tenants == 1), "nobody shares while there are sets");
    }

    #[test]
    fn counts_are_those_of_a_simple_model_whatever_happens() {
        let seed = 0x5eed;
        println!("seed {seed:#x}");
        let (mut random, mut ports) = (Random::new(seed), ports(16, 3, 3));
        let (mut held, mut now_ms) = (Vec::new(), 0);
        for step in 0..20_000 {
            let member = format!("10.1.0.{}", random.next() >> 40 & 7);
            let address = address(if random.next() >> 40 & 1 == 0 { "10.1.0.10" } else { "10.1.0.50" });
            let pair = Pair { address, ..pair(&member) };
            match random.next() >> 40 & 7 {
                0 => now_ms += 500,
                1..=3 if !held.is_empty() => {
                    let place = (random.next() >> 33) as usize % held.len();
                    let (pair, port) = held.swap_remove(place);
                    ports.release(pair, port);
                }
                _ => {
                    if let Ok(port) = ports.take(pair) {
                        assert!(!held.contains(&(pair, port)), "step {step}");
                        held.push((pair, port));
                    }
                }
            }
            ports.advance(now_ms);
            let resting: u32 =
                ports.stock.sets.iter().map(|set| set.resting.total(ports.stock.generation)).sum();
            assert_eq!((ports.in_use(), usage(&ports).0 as usize), (held.len(), held.len()), "step {step}");
            assert_eq!(usage(&ports).1, resting, "step {step}");
        }
        held.drain(..).for_each(|(pair, port)| ports.release(pair, port));
        ports.advance(now_ms + 2 * GENERATION_MS);
        assert_eq!((ports.in_use(), usage(&ports).0, usage(&ports).1), (0, 0, 0));
        assert!(ports.pairs.len() <= 3 && ports.idle.len() <= 3);
    }

    #[test]
    fn ports_are_not_given_in_order_and_from_all_classes() {
        let mut ports = ports(2, 1, 1);
        let pair = pair("10.1.0.11");
        let given: Vec<u16> = (0..1_000).map(|_| ports.take(pair).unwrap()).collect();
        let steps: HashSet<i32> = given.windows(2).map(|two| i32::from(two[1]) - i32::from(two[0])).collect();
        assert!(steps.len() > 900);
        let mut buckets = [0u32; BUCKETS];
        given.iter().for_each(|port| buckets[bucket_of_reply(&pair, *port)] += 1);
        assert!(buckets.iter().all(|&count| count < 45), "about 16 of each of 64: {buckets:?}");
        assert_eq!(buckets.iter().filter(|count| **count > 0).count(), 64);
    }
}
