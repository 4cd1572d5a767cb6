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
        if self.owners.workers() == 1 || !self.had_owners_by_rule || begins {
            return None;
        }
        let key = &packet.key;
        let (src, dst) = (endpoint_hash(key.src, key.src_port), endpoint_hash(key.dst, key.dst_port));
        let of_ends = [src, dst, src ^ dst].map(|hash| self.owners.of_hash(hash));
        let of_ports = [key.src_port, key.dst_port].map(|port| self.owners.of_port(port));
        let candidates = [self.owners.of_tuple(key)].into_iter().chain(of_ends).chain(of_ports);
        let mut left = candidates.zip(1..).skip(usize::from(self.trail.sought));
        left.find(|(worker, _)| *worker != self.worker)
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
