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

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossbeam::utils::CachePadded;
use hashbrown::HashSet;

use super::older::OlderPorts;
use super::steer::Owners;
use super::ways::Changed;
use crate::address::Address;
use crate::clock::Instant;
use crate::config::snapshot::{Protocol, Snapshot};
use crate::limits::Limits;

/// Shared by all workers of a process.
pub struct Rules {
    /// As many as the configuration has ever had; locked by an apply only.
    addresses: Mutex<Vec<Address>>,
    known: AtomicU32,
    workers: Vec<CachePadded<Progress>>,
    /// Some configuration so far had flows whose owner no packet tells by itself: 0 or 1.
    had_owners_by_rule: AtomicU8,
    /// How flows that are open may have been given owners: [`super::ways`], for datagrams and for TCP.
    former: [AtomicU8; 2],
    /// How virtual servers gave them that are gone, or do so otherwise now.
    gone: [AtomicU8; 2],
    /// Until then the first packet of a TCP connection may come again that has opened a flow under another rule.
    restless_until_ns: AtomicU64,
}

/// How far a worker is.
struct Progress {
    ready: AtomicU32,
    older: OlderPorts,
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
            former: Default::default(),
            gone: Default::default(),
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
        let mut known: HashSet<Address> = addresses.iter().copied().collect();
        addresses.extend(kept.iter().copied().filter(|address| known.insert(*address)));
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

    /// Workers are about to move from one configuration to another. Only the control thread says so, before it publishes
    /// `after`; O(virtual servers).
    pub fn announce(&self, before: &Snapshot, after: &Snapshot, now: Instant) {
        self.had_owners_by_rule.fetch_max(after.has_owners_by_rule().into(), Ordering::AcqRel);
        let both = self.former.iter().zip(&self.gone).zip([Protocol::Udp, Protocol::Tcp]);
        for ((former, gone), protocol) in both {
            let changed = Changed::new(before, after, protocol);
            let ways =
                changed.ways() | changed.ways_after(gone.fetch_or(changed.ways_gone(), Ordering::AcqRel));
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

    /// How a datagram's flow may have been given its owner while another rule was in force than now: of [`super::ways`], and 0
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

/// A SYN that is not answered comes again for about two minutes (tcp_syn_retries of common systems).
const RESTLESS: Duration = Duration::from_secs(128);
