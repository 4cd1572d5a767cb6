//! [`Stock`]: the sets of ports that tenants choose from, take from and give back to. It does not know who they are.

use std::sync::Arc;

use sluice_ffi::memory::{Backing, Slab};

use super::change::{Change, Rule};
use super::classes::{Classes, PORT_MIN, PORTS_PER_CLASS};
use super::random::Random;
use super::rest::generation_at;
use super::rules::Rules;
use super::set::{Set, bit_from};
use super::steer::Owners;
use super::toeplitz::BUCKETS;
use super::usage::Addresses;

/// What one worker has of ports.
pub(super) struct Stock {
    pub(super) sets: Slab<Set>,
    pub(super) addresses: Addresses,
    pub(super) generation: u32,
    pub(super) in_use: usize,
    pub(super) change: Change,
    pub(super) owners: Owners,
    pub(super) worker: usize,
    random: Random,
}

/// A pair of SNAT address and member that has its ports in a set.
#[derive(Clone, Copy)]
pub(super) struct Tenant {
    /// The classes whose ports bring replies to this worker.
    pub(super) home: u128,
    /// Drawn for its next port.
    pub(super) draw: u64,
    /// Stands for the pair, the same on every worker.
    pub(super) mark: u64,
    /// The bucket of a reply without its port.
    pub(super) base: u8,
    /// Of the address's family.
    pub(super) classes: &'static Classes,
    pub(super) set: u32,
    /// The SNAT address, by number.
    pub(super) address: u32,
    /// Ports in use.
    pub(super) ports: u32,
    /// The generation in which its last port was given back.
    pub(super) idle_since: u32,
    /// Of ICMP echo, whose replies all come to one worker.
    pub(super) is_echo: bool,
    /// In the list of idle pairs.
    pub(super) is_listed: bool,
}

/// Where a port stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    pub(super) class: usize,
    pub(super) place: usize,
}

impl Stock {
    /// As [`super::ports::SnatPorts::new`].
    pub(super) fn new(rules: Arc<Rules>, worker: usize, sets_max: usize, seed: u64) -> Self {
        let owners = rules.owners();
        let mut addresses = Addresses::new(owners, worker);
        let kept = (0..).zip(rules.addresses_from(0)).take(rules.ready(worker) as usize);
        kept.for_each(|(place, address)| addresses.own_by_port(address, place));
        Self {
            sets: Slab::new(sets_max.max(1), Backing::Ordinary),
            addresses,
            generation: generation_at(0),
            in_use: 0,
            change: Change::new(rules, worker, sets_max.max(1)),
            owners,
            worker,
            random: Random::new(seed),
        }
    }

    /// As [`super::ports::SnatPorts::advance`].
    pub(super) fn advance(&mut self, now_ms: u64) {
        self.generation = self.generation.max(generation_at(now_ms));
    }

    /// A set for those who must share.
    pub(super) fn any_set(&mut self) -> u32 {
        (self.draw() >> 32) as u32 % self.sets.len() as u32
    }

    /// A random number.
    pub(super) fn draw(&mut self) -> u64 {
        self.random.next()
    }

    /// Where `wanted` stands when the tenant may have it. `strictly`: though it rests, and where ports have owners by
    /// number, whatever worker its replies reach first.
    #[inline]
    pub(super) fn exactly(&mut self, tenant: &Tenant, wanted: u16, strictly: bool) -> Option<Spot> {
        let (class, place) = tenant.classes.place_of(wanted);
        let rule = self.rule_of(tenant);
        let crosses = tenant.is_echo || strictly && rule == Rule::Number;
        if !crosses && tenant.home >> class & 1 == 0 {
            return None;
        }
        let set = &mut self.sets[tenant.set as usize];
        let is_free =
            if strictly { !set.is_used(class, place) } else { set.is_fresh(class, place, self.generation) };
        let is_free = is_free && !self.is_barred(tenant, rule != Rule::Hash, wanted, (class, place));
        let spot = Spot { class, place };
        let is_asked = rule == Rule::Number;
        (is_free && !(is_asked && self.is_older(tenant, spot, !strictly))).then_some(spot)
    }

    /// A port for a tenant: of all classes one that has a fresh port, and else one that rests. Counts when there is
    /// none.
    #[inline]
    pub(super) fn any(&mut self, tenant: &mut Tenant) -> Option<Spot> {
        let now = self.generation;
        let (first, start) = parted(tenant.draw);
        self.prepare(tenant);
        let rule = self.rule_of(tenant);
        let barred = self.addresses.barred(tenant.address, rule != Rule::Hash, tenant.classes);
        let set = &mut self.sets[tenant.set as usize];
        // A class without a fresh port is noted, and not looked at again in this generation.
        let mut fresh = tenant.home & set.fresh(now);
        while let Some(class) = bit_from(fresh, first) {
            if let Some(place) = set.fresh_place(class, start, barred, now) {
                return Some(Spot { class, place });
            }
            fresh &= !(1 << class);
        }
        self.farther(tenant, (first, start), rule)
    }

    /// A port whose replies come to another worker first, where its number is this one's; else one that rests.
    #[cold]
    fn farther(&mut self, tenant: &Tenant, from: (u32, usize), rule: Rule) -> Option<Spot> {
        let elsewhere = if rule == Rule::Number { !tenant.home } else { 0 };
        let spot = self
            .elsewhere(tenant, elsewhere, from, true)
            .or_else(|| self.rested(tenant, from, rule != Rule::Hash))
            .or_else(|| self.elsewhere(tenant, elsewhere, from, false));
        if spot.is_none() {
            self.addresses.at(tenant.address).exhausted += u64::from(self.change.was_settled());
        }
        spot
    }

    /// A fresh port, or one that rests, in `classes` whose replies come to others; none that those have from before.
    fn elsewhere(
        &mut self,
        tenant: &Tenant,
        classes: u128,
        (first, start): (u32, usize),
        is_fresh: bool,
    ) -> Option<Spot> {
        let set = &mut self.sets[tenant.set as usize];
        let mut left = classes & if is_fresh { set.fresh(self.generation) } else { set.open() };
        let mut asks = ASKED_MAX;
        while let Some(class) = bit_from(left, first) {
            if let Some(place) = self.place_elsewhere(tenant, class, start, is_fresh, &mut asks) {
                return Some(Spot { class, place });
            }
            if asks == 0 {
                return None;
            }
            left &= !(1 << class);
        }
        None
    }

    fn place_elsewhere(
        &mut self,
        tenant: &Tenant,
        class: usize,
        mut start: usize,
        is_fresh: bool,
        asks: &mut usize,
    ) -> Option<usize> {
        for _ in 0..ASKED_IN_CLASS.min(*asks) {
            let barred = self.addresses.barred(tenant.address, true, tenant.classes);
            let set = &mut self.sets[tenant.set as usize];
            let place = if is_fresh {
                set.fresh_place(class, start, barred, self.generation)?
            } else {
                set.rested_place(class, start, barred, self.generation)?
            };
            if !self.is_older(tenant, Spot { class, place }, is_fresh) {
                return Some(place);
            }
            *asks -= 1;
            // On to the next word: the search begins with the rest of this one.
            start = (place + 65) % PORTS_PER_CLASS;
        }
        None
    }

    /// Draws for the tenant's next port, and asks for the memory where that will be looked for.
    #[inline(always)]
    fn prepare(&mut self, tenant: &mut Tenant) {
        tenant.draw = self.random.next();
        let (first, start) = parted(tenant.draw);
        let set = &self.sets[tenant.set as usize];
        if let Some(class) = bit_from(tenant.home & set.open(), first) {
            set.prefetch(class, start);
        }
    }

    /// A port that rests, of those whose replies come to this worker.
    fn rested(&mut self, tenant: &Tenant, (first, start): (u32, usize), by_port: bool) -> Option<Spot> {
        let barred = self.addresses.barred(tenant.address, by_port, tenant.classes);
        let set = &mut self.sets[tenant.set as usize];
        let mut open = tenant.home & set.open();
        while let Some(class) = bit_from(open, first) {
            if let Some(place) = set.rested_place(class, start, barred, self.generation) {
                return Some(Spot { class, place });
            }
            open &= !(1 << class);
        }
        None
    }

    /// Takes the port at `spot`, which is free.
    #[inline]
    pub(super) fn occupy(&mut self, tenant: &mut Tenant, spot: Spot) -> u16 {
        let (Spot { class, place }, now) = (spot, self.generation);
        let set = &mut self.sets[tenant.set as usize];
        if let Some(age) = set.occupy(class, place, tenant.classes.low(), now) {
            set.resting.remove(age, now);
            self.addresses.at(set.address).resting.remove(age, now);
        }
        self.in_use += 1;
        self.addresses.at(tenant.address).in_use += 1;
        tenant.ports += 1;
        if self.change.is_entering() {
            self.note_taken(tenant, spot);
        }
        tenant.classes.port(class, place)
    }

    /// Takes `port` back. False when it was not in use.
    #[inline]
    pub(super) fn give_back(&mut self, tenant: &mut Tenant, port: u16) -> bool {
        let (class, place) = tenant.classes.place_of(port);
        let now = self.generation;
        let set = &mut self.sets[tenant.set as usize];
        if !set.is_used(class, place) {
            return false;
        }
        // Ports of one address rest in a set, so that the count of each is exact.
        if set.resting.total(now) == 0 {
            set.address = tenant.address;
        }
        let rests = set.address == tenant.address;
        set.vacate(class, place, rests, now);
        let usage = self.addresses.at(tenant.address);
        usage.in_use -= 1;
        if rests {
            set.resting.add(now);
            usage.resting.add(now);
        }
        self.in_use -= 1;
        tenant.ports = tenant.ports.saturating_sub(1);
        tenant.idle_since = now;
        if self.change.has_begun() && self.older().held() > 0 {
            self.note_given_back(tenant, Spot { class, place });
        }
        true
    }

    /// A tenant without ports in use goes. True when nobody has its set any more.
    pub(super) fn leave(&mut self, tenant: &Tenant) -> bool {
        self.addresses.at(tenant.address).members -= 1;
        let set = &mut self.sets[tenant.set as usize];
        set.tenants -= 1;
        if set.tenants > 0 {
            return false;
        }
        self.addresses.at(set.address).resting.remove_all(set.resting, self.generation);
        set.wake_all();
        self.change.on_empty(tenant.set as usize);
        true
    }

    /// True when a client may not keep `port`, which stands at `place` of `class`.
    #[inline(always)]
    fn is_barred(&self, tenant: &Tenant, by_port: bool, port: u16, (class, place): (usize, usize)) -> bool {
        if (1..PORT_MIN).contains(&port) {
            return self.addresses.is_low_barred(tenant.address, by_port, port);
        }
        let barred = self.addresses.barred(tenant.address, by_port, tenant.classes);
        barred[class][place / 64] >> (place % 64) & 1 == 1
    }
}

/// Where to begin: at which class, and at which place there.
#[inline(always)]
fn parted(draw: u64) -> (u32, usize) {
    ((draw % BUCKETS as u64) as u32, (draw >> 32) as usize)
}

/// Ports that others are asked after in a class before the next one's turn.
const ASKED_IN_CLASS: usize = 8;
/// And for one port that is to be made: bounds what a first packet costs while older ports fill an address.
const ASKED_MAX: usize = 256;
