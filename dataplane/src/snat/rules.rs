//! [`Rules`]: what all workers have to know alike of who owns which packets, and of the rules that were in force before.
//!
//! ```text
//!   addresses whose ports have owners by number, in order     0  1  2 │ 3  4 │ 5
//!                                     every worker is ready ──────────┘      │  │
//!                                     this worker is ready ──────────────────┘  │
//!                                     known ────────────────────────────────────┘
//! ```
//!
//! Ready is a worker that gives no ports of others there any more, and whose older ports the others can see.

use std::borrow::Borrow;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossbeam::utils::CachePadded;

use super::older::OlderPorts;
use super::steer::Owners;
use crate::address::{Address, Prefix};
use crate::clock::Instant;
use crate::config::snapshot::{Match, Protocol, Snapshot, Snat, SourcePort, Virtual, VirtualKind};
use crate::limits::Limits;

/// Shared by all workers of a process.
pub struct Rules {
    /// As many as the configuration has ever had; locked by an apply only.
    addresses: Mutex<Vec<Address>>,
    known: AtomicU32,
    workers: Vec<CachePadded<Progress>>,
    /// Some configuration so far had flows whose owner no packet tells by itself: 0 or 1.
    had_owners_by_rule: AtomicU8,
    /// How flows that are open may have been given owners: [`way`], for datagrams and for TCP.
    former: [AtomicU8; 2],
    /// Until then the first packet of a TCP connection may come again that has opened a flow under another rule.
    restless_until_ns: AtomicU64,
}

/// How far a worker is.
struct Progress {
    ready: AtomicU32,
    older: OlderPorts,
}

/// How a virtual server's flows are given owners.
pub(crate) mod way {
    /// By the hash of each packet's tuple.
    pub(crate) const BY_TUPLE: u8 = 1;
    /// By the client's port.
    pub(crate) const BY_PORT: u8 = 2;
    /// By the client's end, or both ends.
    pub(crate) const BY_ENDS: u8 = 4;
}

impl Rules {
    /// For `workers` workers that share `limits` and begin with `snapshot`: nothing is in use yet, so its rules hold at
    /// once.
    pub fn new(limits: &Limits, workers: usize, snapshot: &Snapshot) -> Self {
        let share = limits.per_worker(workers);
        let rules =
            Self::of_ports(share.flows.saturating_add(share.proxies), workers, snapshot.kept_port_sources());
        rules.had_owners_by_rule.store(snapshot.has_owners_by_rule().into(), Ordering::Relaxed);
        rules
    }

    /// For `workers` workers with `ports_max` SNAT ports in use each, where `kept` have owners by number from the start.
    pub fn of_ports(ports_max: usize, workers: usize, kept: &[Address]) -> Self {
        let known = kept.len() as u32;
        let progress = |_| {
            CachePadded::new(Progress { ready: AtomicU32::new(known), older: OlderPorts::new(ports_max) })
        };
        Self {
            addresses: Mutex::new(kept.to_vec()),
            known: AtomicU32::new(known),
            workers: (0..workers.max(1)).map(progress).collect(),
            had_owners_by_rule: AtomicU8::new(0),
            former: [AtomicU8::new(0), AtomicU8::new(0)],
            restless_until_ns: AtomicU64::new(0),
        }
    }

    /// Which worker owns what.
    pub fn owners(&self) -> Owners {
        Owners::new(self.workers.len())
    }

    /// Bytes taken for ports that belong to others by number.
    pub fn bytes(&self) -> usize {
        self.workers.iter().map(|worker| worker.older.bytes()).sum()
    }

    /// From now on the ports of these addresses are to have owners by number.
    pub(super) fn add(&self, kept: &[Address]) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        for address in kept {
            if !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        self.known.store(addresses.len() as u32, Ordering::Release);
    }

    /// How many addresses there are.
    #[inline(always)]
    pub(super) fn known(&self) -> u32 {
        self.known.load(Ordering::Acquire)
    }

    /// Those from the place `from` on.
    pub(super) fn addresses_from(&self, from: u32) -> Vec<Address> {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.get(from as usize..).unwrap_or_default().to_vec()
    }

    /// Where a worker stands that begins, or that is ready for so many.
    pub(super) fn ready(&self, worker: usize) -> u32 {
        self.workers.get(worker).map_or(0, |progress| progress.ready.load(Ordering::Acquire))
    }

    /// `worker` is ready for the first `count` addresses.
    pub(super) fn say_ready(&self, worker: usize, count: u32) {
        if let Some(progress) = self.workers.get(worker) {
            progress.ready.store(count, Ordering::Release);
        }
    }

    /// For how many addresses every worker is ready. O(workers).
    pub(super) fn settled(&self) -> u32 {
        self.workers.iter().map(|progress| progress.ready.load(Ordering::Acquire)).min().unwrap_or(0)
    }

    /// What a worker has that is others' by number.
    #[inline]
    pub(super) fn older_of(&self, worker: usize) -> &OlderPorts {
        &self.workers[worker].older
    }

    /// A worker moves from one configuration to another.
    pub(crate) fn on_apply(&self, before: &Snapshot, after: &Snapshot, now: Instant) {
        self.had_owners_by_rule.fetch_max(after.has_owners_by_rule().into(), Ordering::AcqRel);
        for (former, protocol) in self.former.iter().zip([Protocol::Udp, Protocol::Tcp]) {
            let ways = changed_ways(before, after, protocol);
            former.fetch_or(ways, Ordering::AcqRel);
            if protocol == Protocol::Tcp && ways != 0 {
                self.restless_until_ns.fetch_max((now + RESTLESS).as_ns(), Ordering::AcqRel);
            }
        }
    }

    /// True when there can be flows whose owner is not the one that their packets name by hash.
    pub(crate) fn had_owners_by_rule(&self) -> bool {
        self.had_owners_by_rule.load(Ordering::Acquire) != 0
    }

    /// How a datagram's flow may have been given its owner while another rule was in force than now: of [`way`], and 0
    /// as long as none has changed.
    #[inline]
    pub(crate) fn ways_of_datagrams(&self) -> u8 {
        self.former[0].load(Ordering::Acquire)
    }

    /// The same of a SYN's, while one that has opened a flow under another rule may come again.
    #[inline]
    pub(crate) fn ways_of_syns(&self, now: Instant) -> u8 {
        let ways = self.former[1].load(Ordering::Acquire);
        if ways == 0 || now.as_ns() > self.restless_until_ns.load(Ordering::Acquire) { 0 } else { ways }
    }
}

/// The ways of virtual servers that may take packets of `protocol` from each other by this apply and give them owners
/// differently; 0 when no packet that opens a flow comes to have another owner.
///
/// Time in proportion to what has changed and all there is; where that is too much, all are taken to have changed.
fn changed_ways(before: &Snapshot, after: &Snapshot, protocol: Protocol) -> u8 {
    let (old, new) = (before.parts(), after.parts());
    let lists_differ = old.snat_lists != new.snat_lists;
    let stays = |item: &Virtual, other: &Snapshot| {
        let same = other.virtual_by_id(item.id).is_some_and(|other| is_same(item, other));
        same && !(lists_differ && matches!(item.snat, Snat::List(_)))
    };
    let takes = |item: &&Virtual| item.matches.iter().any(|row| takes(row, protocol));
    let gone: Vec<_> = old.virtuals.iter().filter(takes).filter(|item| !stays(item, after)).collect();
    let come: Vec<_> = new.virtuals.iter().filter(takes).filter(|item| !stays(item, before)).collect();
    let pairs = rows_of(&gone).saturating_mul(rows_of(&new.virtuals))
        + rows_of(&come).saturating_mul(rows_of(&old.virtuals));
    if pairs > PAIRS_MAX {
        let all = old.virtuals.iter().chain(&new.virtuals).filter(takes);
        return all.fold(0, |ways, item| ways | way_of(item));
    }
    let of_gone = gone.iter().flat_map(|item| new.virtuals.iter().map(move |other| (*item, other)));
    let of_come = come.iter().flat_map(|item| old.virtuals.iter().map(move |other| (*item, other)));
    let differ = of_gone.chain(of_come).filter(|(one, other)| {
        (way_of(one) != way_of(other) || way_of(one).count_ones() > 1) && may_meet(one, other, protocol)
    });
    differ.fold(0, |ways, (one, other)| ways | way_of(one) | way_of(other))
}

fn rows_of<T: Borrow<Virtual>>(items: &[T]) -> usize {
    items.iter().map(|item| item.borrow().matches.len()).sum()
}

/// What decides about owners is as it was.
fn is_same(one: &Virtual, other: &Virtual) -> bool {
    one.matches == other.matches
        && one.ingress == other.ingress
        && one.snat == other.snat
        && way_of(one) == way_of(other)
}

/// True when both can match one packet, for all that their rows say.
fn may_meet(one: &Virtual, other: &Virtual, protocol: Protocol) -> bool {
    let meet = |a: Prefix, b: Prefix| a.contains(b.address) || b.contains(a.address);
    let rows_of_other = || other.matches.iter().filter(|row| takes(row, protocol));
    one.matches.iter().filter(|row| takes(row, protocol)).any(|one| {
        rows_of_other().any(|other| {
            meet(one.destination, other.destination)
                && meet(one.source, other.source)
                && (one.port == other.port || one.port == 0 || other.port == 0)
        })
    })
}

fn takes(row: &Match, protocol: Protocol) -> bool {
    row.protocol == protocol || row.protocol == Protocol::Any
}

fn way_of(item: &Virtual) -> u8 {
    let hidden = if item.source_port == SourcePort::PreserveStrict { way::BY_PORT } else { way::BY_TUPLE };
    match (item.kind, item.snat) {
        (VirtualKind::Reject | VirtualKind::Stateless, _) => 0,
        (_, Snat::None) => way::BY_ENDS,
        (_, Snat::List(_)) => way::BY_ENDS | hidden,
        (_, Snat::Automap | Snat::Pool(_)) => hidden,
    }
}

/// A SYN that is not answered comes again for about two minutes (tcp_syn_retries of common systems).
const RESTLESS: Duration = Duration::from_secs(128);
/// Pairs of rows that an apply holds against each other: a millisecond.
const PAIRS_MAX: usize = 1 << 16;
