//! [`Addresses`]: what is known of each SNAT address: what is in use, what rests, which ports others listen on, and
//! which are other workers'.

use hashbrown::{HashMap, HashSet};

use super::classes::{Classes, PORT_MIN, PORTS_PER_CLASS, PortBits};
use super::rest::Resting;
use super::steer::Owners;
use super::toeplitz::BUCKETS;
use crate::address::Address;

/// One SNAT address on one worker, for `show snat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnatUse {
    /// The address.
    pub address: Address,
    /// Ports in use, over all members.
    pub in_use: u32,
    /// Ports that rest after use, over all members.
    pub resting: u32,
    /// Members, each with its port and protocol, that ports are in use or rest towards.
    pub members: u32,
    /// Ports that all workers together can give towards one member: 64,512 but for those that others listen on.
    pub ports_each: u32,
    /// New connections that found no port.
    pub exhausted: u64,
}

/// One SNAT address.
pub(super) struct Usage {
    address: Address,
    pub(super) in_use: u32,
    pub(super) resting: Resting,
    pub(super) members: u32,
    pub(super) exhausted: u64,
    /// The ports that are never given: the well-known ones, and these; `None` without any.
    barred: Option<Box<PortBits>>,
    /// The same, and those that other workers own by number; `None` without any that are listened on.
    barred_here: Option<Box<PortBits>>,
    listened: u32,
    /// The well-known ports that are listened on.
    listened_low: Vec<u16>,
    /// In the order of those whose ports have owners by number ([`super::rules::Rules`]), or [`BY_HASH`].
    place: u32,
}

/// All SNAT addresses that this worker has met, by number. As many as the configuration has ever had.
pub(super) struct Addresses {
    all: Vec<Usage>,
    numbers: HashMap<Address, u32>,
    /// Those whose ports have owners by number. An address stays here: connections that were opened under this
    /// rule and under the other would each find their port free.
    by_port: HashSet<Address>,
    /// The well-known ports and other workers', of IPv6 and of IPv4.
    foreign: [Box<PortBits>; 2],
    owners: Owners,
    worker: usize,
}

impl Addresses {
    /// Of `worker`, which owns its part of the ports of addresses that have owners by port.
    pub(super) fn new(owners: Owners, worker: usize) -> Self {
        Self {
            all: Vec::new(),
            numbers: HashMap::new(),
            by_port: HashSet::new(),
            foreign: [false, true].map(|is_v4| foreign(owners, worker, is_v4)),
            owners,
            worker,
        }
    }

    /// From now on the ports of `address`, which is at `place` in the order of such, have owners by number, or come to
    /// have them.
    pub(super) fn own_by_port(&mut self, address: Address, place: u32) {
        let number = self.number_of(address) as usize;
        self.by_port.insert(address);
        let usage = &mut self.all[number];
        usage.place = place;
        usage.bar_foreign(&self.foreign[usize::from(address.is_v4())]);
    }

    /// True when ports of `address` have owners by number.
    #[inline]
    pub(super) fn has_by_port(&self, address: Address) -> bool {
        !self.by_port.is_empty() && self.by_port.contains(&address)
    }

    /// Where an address, by number, stands in the order of those whose ports have owners by number, or [`BY_HASH`].
    #[inline(always)]
    pub(super) fn place_of(&self, number: u32) -> u32 {
        self.all[number as usize].place
    }

    /// True when the port that stands at `place` of `class` is another worker's by number.
    pub(super) fn is_others(&self, number: u32, class: usize, place: usize) -> bool {
        let classes = Classes::of_family(self.all[number as usize].address.is_v4());
        self.owners.of_port(classes.port(class, place)) != self.worker
    }

    /// The number of `address`, which it keeps.
    pub(super) fn number_of(&mut self, address: Address) -> u32 {
        if let Some(&number) = self.numbers.get(&address) {
            return number;
        }
        let number = self.all.len() as u32;
        self.all.push(Usage::new(address));
        self.numbers.insert(address, number);
        number
    }

    #[inline(always)]
    pub(super) fn at(&mut self, number: u32) -> &mut Usage {
        &mut self.all[number as usize]
    }

    /// The ports of an address, whose family has these `classes`, that are never given; where they have owners
    /// `by_port`, never here.
    #[inline(always)]
    pub(super) fn barred(&self, number: u32, by_port: bool, classes: &'static Classes) -> &PortBits {
        let usage = &self.all[number as usize];
        if by_port {
            return usage.barred_here.as_deref().unwrap_or(&self.foreign[usize::from(usage.address.is_v4())]);
        }
        usage.barred.as_deref().unwrap_or(classes.low())
    }

    /// True when a client of an address may not keep a well-known port (RFC 4787 section 4.2.1): where somebody listens
    /// on it, it is given to nobody else.
    #[cold]
    pub(super) fn is_low_barred(&self, number: u32, by_port: bool, port: u16) -> bool {
        let is_foreign = by_port && self.owners.of_port(port) != self.worker;
        is_foreign || self.all[number as usize].listened_low.contains(&port)
    }

    /// Replaces the ports that somebody listens on.
    pub(super) fn listen(&mut self, listened: &[(Address, u16)]) {
        for usage in &mut self.all {
            (usage.barred, usage.barred_here, usage.listened) = (None, None, 0);
            usage.listened_low.clear();
        }
        for &(address, port) in listened {
            let number = self.number_of(address);
            let foreign = &self.foreign[usize::from(address.is_v4())];
            self.all[number as usize].bar(port, foreign);
        }
    }

    /// What each address is at.
    pub(super) fn list(&self, now: u32) -> Vec<SnatUse> {
        let of = |usage: &Usage| SnatUse {
            address: usage.address,
            in_use: usage.in_use,
            resting: usage.resting.total(now),
            members: usage.members,
            ports_each: u32::from(u16::MAX - PORT_MIN) + 1 - usage.listened,
            exhausted: usage.exhausted,
        };
        self.all.iter().map(of).collect()
    }
}

impl Usage {
    fn new(address: Address) -> Self {
        Self {
            address,
            in_use: 0,
            resting: Resting::default(),
            members: 0,
            exhausted: 0,
            barred: None,
            barred_here: None,
            listened: 0,
            listened_low: Vec::new(),
            place: BY_HASH,
        }
    }

    fn bar(&mut self, port: u16, foreign: &PortBits) {
        let classes = Classes::of_family(self.address.is_v4());
        if port < PORT_MIN {
            self.listened_low.push(port);
        }
        let (class, place) = classes.place_of(port);
        let (word, bit) = (place / 64, 1 << (place % 64));
        let barred = self.barred.get_or_insert_with(|| Box::new(*classes.low()));
        self.listened += u32::from(barred[class][word] & bit == 0);
        barred[class][word] |= bit;
        if self.place != BY_HASH {
            self.barred_here.get_or_insert_with(|| Box::new(*foreign))[class][word] |= bit;
        }
    }

    /// What is never given anywhere and what others own, when the second comes after the first.
    fn bar_foreign(&mut self, foreign: &PortBits) {
        let Some(barred) = &self.barred else { return };
        let mut both = Box::new(*foreign);
        let words = both.as_flattened_mut().iter_mut().zip(barred.as_flattened());
        words.for_each(|(both, barred)| *both |= barred);
        self.barred_here = Some(both);
    }
}

/// The place of an address whose ports belong where their replies arrive.
pub(super) const BY_HASH: u32 = u32::MAX;

/// The well-known ports, and those that other workers own by number.
fn foreign(owners: Owners, worker: usize, is_v4: bool) -> Box<PortBits> {
    let classes = Classes::of_family(is_v4);
    let mut bits = Box::new(*classes.low());
    for (class, words) in bits.iter_mut().enumerate().take(BUCKETS) {
        for place in 0..PORTS_PER_CLASS {
            let is_foreign = owners.of_port(classes.port(class, place)) != worker;
            words[place / 64] |= u64::from(is_foreign) << (place % 64);
        }
    }
    bits
}
