//! [`Addresses`]: what is known of each SNAT address: what is in use, what rests, which ports others listen on.

use hashbrown::HashMap;

use super::classes::{Classes, PORT_MIN, PortBits};
use super::rest::Resting;
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
    listened: u32,
}

/// All SNAT addresses that this worker has met, by number. As many as the configuration has ever had.
#[derive(Default)]
pub(super) struct Addresses {
    all: Vec<Usage>,
    numbers: HashMap<Address, u32>,
}

impl Addresses {
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

    /// The ports of an address that are never given.
    #[inline(always)]
    pub(super) fn barred(&self, number: u32) -> &PortBits {
        self.all[number as usize].barred()
    }

    /// Replaces the ports that somebody listens on.
    pub(super) fn listen(&mut self, listened: &[(Address, u16)]) {
        for usage in &mut self.all {
            (usage.barred, usage.listened) = (None, 0);
        }
        for &(address, port) in listened {
            let number = self.number_of(address);
            self.at(number).bar(port);
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
            listened: 0,
        }
    }

    #[inline(always)]
    fn barred(&self) -> &PortBits {
        self.barred.as_deref().unwrap_or_else(|| Classes::of_family(self.address.is_v4()).low())
    }

    fn bar(&mut self, port: u16) {
        let classes = Classes::of_family(self.address.is_v4());
        let (class, place) = classes.place_of(port);
        let (word, bit) = (place / 64, 1 << (place % 64));
        let barred = self.barred.get_or_insert_with(|| Box::new(*classes.low()));
        self.listened += u32::from(barred[class][word] & bit == 0);
        barred[class][word] |= bit;
    }
}
