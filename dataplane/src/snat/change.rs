//! [`Change`]: how the ports of an address come to have owners by number while ports that were given by hash are in use.
//!
//! ```text
//!   by hash    the rule before; what is in use and others' by number is entered, a slice a turn      in `OlderPorts`
//!   by both    all is entered: only ports that are this worker's by either rule are given
//!   by number  every worker is ready: others' older ports are asked after, see `Rules`
//! ```
//!
//! At most two workers can ever give one port towards one member: the one that the hash of the reply names, before, and
//! the one that the number names, after. So the second asks only the first, and nobody asks where both are the same.
//!
//! Which pair a port in a set is of, the set does not know. Where pairs have shared one, every port in it is entered as
//! anybody's ([`ANYBODY`]), as long as the set is in use: whoever asks for such a port does without.

use std::sync::Arc;

use super::classes::WORDS;
use super::older::{OlderPorts, key_of};
use super::rules::Rules;
use super::stock::{Spot, Stock, Tenant};
use super::toeplitz::BUCKETS;
use super::usage::BY_HASH;
use crate::address::Address;

/// How far a worker is with the addresses of [`Rules`], and what it knows of its sets.
pub(super) struct Change {
    pub(super) rules: Arc<Rules>,
    /// Addresses that are being changed over, or have been, by their place in the order.
    begun: u32,
    ready: u32,
    settled: u32,
    /// The set and class that are looked at next.
    cursor: (usize, usize),
    /// By set.
    lodgers: Vec<Lodger>,
    /// Sets whose ports are anybody's.
    blurred: u32,
}

/// Who has a set, and what of it is entered.
#[derive(Debug, Clone, Copy)]
struct Lodger {
    /// Of the pair that has had it alone.
    mark: u64,
    /// Of that pair, by number.
    address: u32,
    is_echo: bool,
    /// More than one pair has had it since it was empty.
    is_shared: bool,
    /// Its ports at addresses before this place are entered, if there are any of others'.
    entered: u32,
    /// All its ports are entered as anybody's; as their pair's own only those at addresses before this place.
    blurred: u32,
}

/// Whose ports a worker may give at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Those whose replies come to it.
    Hash,
    /// Those whose replies come to it and whose number is its own.
    Both,
    /// Those whose number is its own.
    Number,
}

impl Change {
    /// Of `worker`, with so many sets.
    pub(super) fn new(rules: Arc<Rules>, worker: usize, sets: usize) -> Self {
        let (ready, settled) = (rules.ready(worker), rules.settled());
        let blank =
            Lodger { mark: 0, address: 0, is_echo: false, is_shared: false, entered: 0, blurred: BY_HASH };
        Self { rules, begun: ready, ready, settled, cursor: (0, 0), lodgers: vec![blank; sets], blurred: 0 }
    }

    /// True when ports of some address have owners by number, or come to have them.
    #[inline(always)]
    pub(super) fn has_begun(&self) -> bool {
        self.begun > 0
    }

    /// True while takes have to be entered.
    #[inline(always)]
    pub(super) fn is_entering(&self) -> bool {
        self.begun != self.ready || self.blurred > 0
    }

    /// True when there is something to do: addresses that are new, or ports that are not entered yet.
    #[inline(always)]
    pub(super) fn is_due(&self) -> bool {
        self.begun != self.ready || self.rules.known() != self.ready
    }

    /// True when every worker gives ports at all addresses by the rule that is to be.
    pub(super) fn is_settled(&mut self) -> bool {
        self.settled = self.rules.settled();
        self.was_settled()
    }

    /// True when it was so when that was last looked at, so when a port was last asked for.
    #[inline]
    pub(super) fn was_settled(&self) -> bool {
        self.settled == self.rules.known()
    }

    /// The rule at an address of this place.
    #[inline]
    pub(super) fn rule(&mut self, place: u32) -> Rule {
        if place < self.settled {
            return Rule::Number;
        }
        if place >= self.ready {
            return Rule::Hash;
        }
        self.settled = self.rules.settled();
        if place < self.settled { Rule::Number } else { Rule::Both }
    }

    /// True when the port of a pair is entered as its own, if it is another worker's by number.
    fn is_entered(&self, set: usize, class: usize, place: u32) -> bool {
        let lodger = &self.lodgers[set];
        place < lodger.blurred && (place < lodger.entered || place < self.begun && self.is_behind(set, class))
    }

    /// True when it is entered as anybody's.
    fn is_anybodys(&self, set: usize, class: usize) -> bool {
        self.lodgers[set].blurred != BY_HASH && (!self.is_half_way(set) || self.is_behind(set, class))
    }

    /// True when part of the set's ports is entered in the round at hand.
    fn is_half_way(&self, set: usize) -> bool {
        self.cursor.0 == set && self.cursor.1 > 0 && self.begun != self.ready
    }

    fn is_behind(&self, set: usize, class: usize) -> bool {
        self.is_half_way(set) && class < self.cursor.1
    }

    fn go_to(&mut self, set: usize) {
        self.cursor = (set, 0);
    }

    /// Nobody has the set any more.
    pub(super) fn on_empty(&mut self, set: usize) {
        self.blurred -= u32::from(self.lodgers[set].blurred != BY_HASH);
        self.lodgers[set].blurred = BY_HASH;
    }

    /// All of the set at the cursor is entered, or nothing has to be.
    fn finish_set(&mut self) {
        let set = self.cursor.0;
        self.lodgers[set].entered = self.begun;
        self.go_to(set + 1);
    }
}

impl Stock {
    /// The rule for a tenant's ports. Replies to ICMP echo all come to one worker, whatever the number.
    #[inline(always)]
    pub(super) fn rule_of(&mut self, tenant: &Tenant) -> Rule {
        match self.addresses.place_of(tenant.address) {
            BY_HASH => Rule::Hash,
            _ if tenant.is_echo => Rule::Hash,
            place => self.change.rule(place),
        }
    }

    /// From now on the ports of `kept` are to have owners by number.
    pub(super) fn own_by_port(&mut self, kept: &[Address]) {
        // Addresses never leave, and most applies bring none.
        let new: Vec<_> =
            kept.iter().copied().filter(|address| !self.addresses.has_by_port(*address)).collect();
        if !new.is_empty() {
            self.change.rules.add(&new);
        }
    }

    /// About that much of the work that is due, in units of about ten nanoseconds. True while there is more.
    pub(super) fn go_on_changing(&mut self, mut work: usize) -> bool {
        if self.change.begun == self.change.ready {
            self.begin_round();
        }
        while self.change.begun != self.change.ready && work > 0 {
            work = work.saturating_sub(self.enter_some());
        }
        self.change.is_due()
    }

    /// Takes in the addresses that are new. Where nothing can be others', all is done.
    fn begin_round(&mut self) {
        for address in self.change.rules.addresses_from(self.change.begun) {
            self.addresses.own_by_port(address, self.change.begun);
            self.change.begun += 1;
        }
        self.change.go_to(if self.owners.workers() == 1 { self.change.lodgers.len() } else { 0 });
    }

    /// Enters a class of a set, or goes past what has nothing to enter. Gives what that has cost.
    fn enter_some(&mut self) -> usize {
        let (set, class) = self.change.cursor;
        if set >= self.change.lodgers.len() {
            self.change.ready = self.change.begun;
            self.change.rules.say_ready(self.worker, self.change.ready);
            return 1;
        }
        if class == 0 && !self.begin_set(set) {
            self.change.finish_set();
            return 1;
        }
        let entered = self.enter_class(set, class);
        if class + 1 == BUCKETS || self.sets[set].tenants == 0 {
            self.change.finish_set();
        } else {
            self.change.cursor.1 += 1;
        }
        COST_OF_CLASS + entered * COST_OF_PORT
    }

    /// True when ports of the set have to be entered.
    fn begin_set(&mut self, set: usize) -> bool {
        let lodger = &mut self.change.lodgers[set];
        if self.sets[set].tenants == 0 || lodger.entered == self.change.begun {
            return false;
        }
        if lodger.is_shared {
            let is_new = lodger.blurred == BY_HASH;
            if is_new {
                lodger.blurred = self.change.ready;
                self.change.blurred += 1;
            }
            return is_new;
        }
        let place = if lodger.is_echo { BY_HASH } else { self.addresses.place_of(lodger.address) };
        (self.change.ready..self.change.begun).contains(&place)
    }

    /// Enters the ports of a class that are in use and, as resting, those that rest. Gives how many.
    fn enter_class(&mut self, set: usize, class: usize) -> usize {
        let lodger = self.change.lodgers[set];
        let is_anybodys = lodger.blurred != BY_HASH;
        let mark = if is_anybodys { ANYBODY } else { lodger.mark };
        let (now, mut count) = (self.generation, 0);
        for at in 0..WORDS {
            let (used, resting) = self.sets[set].word(class, at, now);
            let places = |bits: u64| bits_of(bits).map(move |bit| at * 64 + bit);
            let is_others =
                |&place: &usize| is_anybodys || self.addresses.is_others(lodger.address, class, place);
            let keys = |bits| places(bits).filter(is_others).map(|place| key_of(mark, code(class, place)));
            let older = self.change.rules.older_of(self.worker);
            keys(used).for_each(|key| older.enter(key));
            keys(resting[0]).for_each(|key| older.rest(key, now));
            keys(resting[1]).for_each(|key| older.rest(key, now - 1));
            count += (used | resting[0] | resting[1]).count_ones() as usize;
        }
        count
    }

    /// A pair has come to a set, which is its own when it is the first there. Nothing of a set is half done when it
    /// begins to be shared.
    pub(super) fn note_tenant(&mut self, tenant: &Tenant) {
        let set = tenant.set as usize;
        if self.sets[set].tenants > 1 {
            while self.change.is_half_way(set) {
                self.enter_some();
            }
            self.change.lodgers[set].is_shared = true;
            return;
        }
        self.change.lodgers[set] = Lodger {
            mark: tenant.mark,
            address: tenant.address,
            is_echo: tenant.is_echo,
            is_shared: false,
            entered: self.change.begun,
            blurred: BY_HASH,
        };
        if self.change.is_half_way(set) {
            self.change.finish_set();
        }
    }

    /// A port has been taken while takes are entered.
    #[cold]
    pub(super) fn note_taken(&mut self, tenant: &Tenant, spot: Spot) {
        let (own, anybodys) = self.keys_of(tenant, spot);
        let older = self.change.rules.older_of(self.worker);
        own.into_iter().chain(anybodys).for_each(|key| older.enter(key));
    }

    /// A port has been given back while some are entered.
    #[cold]
    pub(super) fn note_given_back(&mut self, tenant: &Tenant, spot: Spot) {
        let (own, anybodys) = self.keys_of(tenant, spot);
        let older = self.change.rules.older_of(self.worker);
        own.into_iter().chain(anybodys).for_each(|key| older.leave(key, self.generation));
    }

    /// What the port is entered by, as its pair's and as anybody's.
    fn keys_of(&self, tenant: &Tenant, Spot { class, place }: Spot) -> (Option<u64>, Option<u64>) {
        let (set, code) = (tenant.set as usize, code(class, place));
        let address = if tenant.is_echo { BY_HASH } else { self.addresses.place_of(tenant.address) };
        let is_own = self.change.is_entered(set, class, address)
            && self.addresses.is_others(tenant.address, class, place);
        let is_anybodys = self.change.is_anybodys(set, class);
        (is_own.then(|| key_of(tenant.mark, code)), is_anybodys.then(|| key_of(ANYBODY, code)))
    }

    /// This worker's ports that belong to others by number.
    #[inline]
    pub(super) fn older(&self) -> &OlderPorts {
        self.change.rules.older_of(self.worker)
    }

    /// True when the worker that replies to this port of the tenant come to has it from before its number had an owner;
    /// `or_rests`: or has had it until of late.
    #[inline]
    pub(super) fn is_older(&self, tenant: &Tenant, spot: Spot, or_rests: bool) -> bool {
        let holder = self.owners.of_bucket(spot.class ^ usize::from(tenant.base));
        let older = self.change.rules.older_of(holder);
        holder != self.worker && !older.is_empty(self.generation) && self.has(older, tenant, spot, or_rests)
    }

    #[cold]
    fn has(&self, older: &OlderPorts, tenant: &Tenant, spot: Spot, or_rests: bool) -> bool {
        let code = code(spot.class, spot.place);
        let mut keys = [tenant.mark, ANYBODY].into_iter().map(|mark| key_of(mark, code));
        keys.any(|key| older.has(key) || or_rests && older.rests(key, self.generation))
    }
}

/// The same for one port of every pair of a family.
fn code(class: usize, place: usize) -> u32 {
    (place * BUCKETS + class) as u32
}

fn bits_of(bits: u64) -> impl Iterator<Item = usize> {
    let left = |bits: &u64| Some(bits & (bits - 1)).filter(|rest| *rest != 0);
    std::iter::successors(Some(bits).filter(|bits| *bits != 0), left)
        .map(|bits| bits.trailing_zeros() as usize)
}

/// Stands for whichever pair shares a set.
const ANYBODY: u64 = 0;
/// Eight words are looked at.
const COST_OF_CLASS: usize = 8;
/// Three cells are written, each on a line of its own, and at first each on a page that nobody has touched.
const COST_OF_PORT: usize = 48;
