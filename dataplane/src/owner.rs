//! Which worker a packet of no local flow belongs to: a pure function of the packet and the configuration, and of
//! which SNAT addresses have kept ports so far.
//!
//! ```text
//!   translated ─▶ its own tuple │ client keeps its port ─▶ that port │ nothing hides the client ─▶ its end, or both
//! ```

use crate::config::snapshot::{SourcePort, Virtual, VirtualKind};
use crate::flow::key::FlowKey;
use crate::frame::Frame;
use crate::packet::parse::{Class, Packet};
use crate::pipeline::{Fate, Pipeline};
use crate::snat::steer::endpoint_hash;
use crate::snat::ways::{BY_ENDS, BY_PORT, BY_TUPLE};

impl Pipeline {
    /// The worker that a packet of no local flow belongs to.
    ///
    /// What is translated belongs to the worker that its own tuple names, on either side, and so does a reply to a
    /// SNAT address, though a network that it is in may be a virtual server's. Where clients must keep their ports,
    /// both directions belong to the owner of that port. Where members see clients' own addresses, they belong to the
    /// owner of the client's end; where nothing is translated, of both ends together.
    pub(crate) fn home(&self, matched: Option<&Virtual>, key: &FlowKey) -> Home {
        if self.owners.workers() == 1 {
            return Home::Here(self.worker);
        }
        let snapshot = &self.snapshot;
        let is_source = || snapshot.owned(key.dst).is_some_and(|owned| owned.is_source);
        if !matched.is_some_and(|item| item.names(key.dst)) && is_source() {
            let by_port = self.snat.is_by_port(key.dst);
            return self.home_of_translated(key, by_port.then_some(key.dst_port));
        }
        if matched.is_some_and(needs_no_flow) {
            return Home::Here(self.worker);
        }
        if let Some(item) = matched.filter(|item| snapshot.hides(item, key.src)) {
            let keeps_port = item.source_port == SourcePort::PreserveStrict;
            return self.home_of_translated(key, keeps_port.then_some(key.src_port));
        }
        let (src, dst) = (endpoint_hash(key.src, key.src_port), endpoint_hash(key.dst, key.dst_port));
        let translates = matched.is_some_and(|item| item.pool.is_some());
        let hash = if snapshot.is_transparent_member(key.src, key.src_port) {
            dst
        } else if translates || snapshot.is_transparent_member(key.dst, key.dst_port) {
            src
        } else {
            src ^ dst
        };
        Home::OfEnds(self.owners.of_hash(hash))
    }

    /// Of a packet on either side of a translated flow; `kept` is the port that both sides have.
    fn home_of_translated(&self, key: &FlowKey, kept: Option<u16>) -> Home {
        match kept {
            Some(port) => Home::OfPort(self.owners.of_port(port)),
            None => Home::OfTuple(self.owners.of_tuple(key)),
        }
    }

    /// To another worker. A frame that names that worker by itself should have arrived there; a fragment names the
    /// worker at which its packet was put together.
    #[cold]
    pub(crate) fn send_home(&self, home: Home, frame: &Frame) -> Fate {
        match home {
            Home::OfTuple(owner) if self.owners.of_frame(frame.bytes()) == owner => Fate::Misdirected(owner),
            Home::OfTuple(owner) | Home::OfPort(owner) | Home::OfEnds(owner) | Home::Here(owner) => {
                Fate::HandOver(owner)
            }
        }
    }

    /// The next worker that may own the packet's flow, whatever was configured when it was opened.
    pub(crate) fn next_to_ask(&self, packet: &Packet) -> Option<(usize, u8)> {
        let begins = packet.class == Class::Tcp && crate::admit::opens(packet).is_ok();
        if self.owners.workers() == 1 || !self.rules.had_owners_by_rule() || begins {
            return None;
        }
        let mut left = self.candidates(&packet.key).zip(1..).skip(usize::from(self.trail.sought));
        left.find(|((worker, _), _)| *worker != self.worker).map(|((worker, _), sought)| (worker, sought))
    }

    /// Where a packet that would open a flow goes first: to each worker that may know its flow from before the rule that
    /// makes this `home` was in force, and from the last of them home again, where it opens one. `None` when it is to
    /// be opened here.
    ///
    /// Of TCP only SYNs that come again, and none to a full proxy, whose handshakes are its own. One ring more for each
    /// way that flows had owners by; none as long as no apply has changed a rule.
    pub(crate) fn earlier_owner(&self, item: &Virtual, home: Home, packet: &Packet) -> Option<Fate> {
        let (sought, ways) = (self.trail.sought, self.earlier_ways(item, packet)?);
        if ways == 0 && sought == 0 || sought == HOME_AGAIN || self.fragment_at_hand.is_some() {
            return None;
        }
        let mut left = self.candidates(&packet.key).zip(1..).skip(usize::from(sought));
        let is_next = |worker| worker != self.worker && worker != home.worker();
        match left.find(|((worker, way), _)| ways & way != 0 && is_next(*worker)) {
            Some(((worker, _), sought)) => Some(Fate::Seek(worker, sought)),
            None if sought != 0 && home.worker() != self.worker => {
                Some(Fate::Seek(home.worker(), HOME_AGAIN))
            }
            None => None,
        }
    }

    /// How the packet's flow may have had its owner otherwise than now; `None` of one that opens none.
    fn earlier_ways(&self, item: &Virtual, packet: &Packet) -> Option<u8> {
        match packet.class {
            _ if self.owners.workers() == 1 || needs_no_flow(item) || item.kind == VirtualKind::Standard => {
                None
            }
            Class::Udp => Some(self.rules.ways_of_datagrams()),
            Class::Tcp => crate::admit::opens(packet).ok().map(|()| self.rules.ways_of_syns(self.now)),
            Class::Icmp | Class::Other | Class::Fragment => None,
        }
    }

    /// Everybody who can own a packet under some rule, and by which way one from a client comes to be theirs.
    fn candidates(&self, key: &FlowKey) -> impl Iterator<Item = (usize, u8)> {
        let (src, dst) = (endpoint_hash(key.src, key.src_port), endpoint_hash(key.dst, key.dst_port));
        let of_hash = |hash| self.owners.of_hash(hash);
        let of_port = |port| self.owners.of_port(port);
        [
            (self.owners.of_tuple(key), BY_TUPLE),
            (of_hash(src), BY_ENDS),
            (of_hash(dst), 0),
            (of_hash(src ^ dst), BY_ENDS),
            (of_port(key.src_port), BY_PORT),
            (of_port(key.dst_port), 0),
        ]
        .into_iter()
    }
}

/// The worker that a packet belongs to, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// Wherever it arrives.
    Here(usize),
    /// By the hash that ports place frames by.
    OfTuple(usize),
    /// By the client's port alone, which members see too.
    OfPort(usize),
    /// By the client's end, or by both, which no port knows.
    OfEnds(usize),
}

impl Home {
    pub(crate) fn worker(self) -> usize {
        let (Home::Here(worker) | Home::OfTuple(worker) | Home::OfPort(worker) | Home::OfEnds(worker)) = self;
        worker
    }
}

fn needs_no_flow(item: &Virtual) -> bool {
    matches!(item.kind, VirtualKind::Reject | VirtualKind::Stateless)
}

/// While an apply is on its way two workers may each think a packet the other's.
pub(crate) const HOPS_MAX: u8 = 3;

/// The trail of a packet that has been with everybody who might have known its flow.
const HOME_AGAIN: u8 = u8::MAX;
