//! One-to-one translation of addresses, both ways (tmsh `ltm nat`): a host has another address for those outside.
//!
//! ```text
//!   in    client ─▶ translation      becomes   client ─▶ origin
//!   out   origin ─▶ anyone           becomes   translation ─▶ anyone
//!   both  origin A ─▶ translation B  becomes   translation A ─▶ origin B      (hairpin, RFC 4787 REQ-9)
//! ```
//!
//! A virtual server that names the destination comes first, and one with a pool takes what the host sends through it.
//! One that only forwards does not, whatever its SNAT: the host's own translation says more than one for many. Ports
//! stay as they are, so that nothing can run out.

use crate::address::Address;
use crate::config::ids::{LinkId, MemberId, PortId, VirtualId};
use crate::config::snapshot::{Virtual, VirtualKind};
use crate::flow::key::FlowKey;
use crate::flow::table::FlowId;
use crate::flow::{Direction, flow_flag};
use crate::frame::Frame;
use crate::outgoing::Outgoing;
use crate::packet::parse::Packet;
use crate::pipeline::{Fate, Pipeline};
use crate::select::Selection;
use crate::snat::steer::endpoint_hash;
use crate::verdict::DropReason;

/// How a packet passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passage {
    destination: Address,
    source: Address,
}

impl Pipeline {
    /// The translation that a packet of no flow passes through, if any.
    pub(crate) fn one_to_one(
        &self,
        matched: Option<&Virtual>,
        packet: &Packet,
        link: LinkId,
    ) -> Option<Passage> {
        let (snapshot, key) = (&self.snapshot, &packet.key);
        if snapshot.parts().nats.is_empty() || matched.is_some_and(|item| item.names(key.dst)) {
            return None;
        }
        let inward = snapshot.nat_of_translation(key.dst).filter(|nat| nat.ingress.contains(link));
        let outward = snapshot.nat_of_origin(key.src);
        let leaves =
            outward.is_some() && snapshot.owned(key.dst).is_none() && matched.is_none_or(only_forwards);
        (inward.is_some() || leaves).then(|| Passage {
            destination: inward.map_or(key.dst, |nat| nat.origin),
            source: outward.map_or(key.src, |nat| nat.translation),
        })
    }

    /// Sends the first packet of a passage through, or to the worker that owns it: that of both ends as others know
    /// them, the same for both directions.
    pub(crate) fn pass_one_to_one(
        &mut self,
        passage: Passage,
        port: PortId,
        frame: &mut Frame,
        packet: &Packet,
        out: &mut Outgoing,
    ) -> Fate {
        let owner = self.owner_of_passage(&packet.key);
        if owner != self.worker {
            return Fate::HandOver(owner);
        }
        match self.open_passage(passage, LinkId::new(port, packet.vlan), frame, packet) {
            Ok(id) => self.forward(port, frame, packet, id, Direction::FromClient, out),
            Err(reason) => self.refuse(port, frame, packet, reason, VirtualId::NONE, out),
        }
    }

    /// The worker to ask first about a packet of no local flow: it may be one of a passage, though a virtual server
    /// would take it, too. `None` when this is that worker, or when it has been asked.
    pub(crate) fn passage_to_ask(&self, key: &FlowKey) -> Option<usize> {
        let snapshot = &self.snapshot;
        let may_be =
            snapshot.nat_of_origin(key.src).is_some() || snapshot.nat_of_translation(key.dst).is_some();
        if self.owners.workers() == 1 || self.trail.hops != 0 || !may_be {
            return None;
        }
        Some(self.owner_of_passage(key)).filter(|owner| *owner != self.worker)
    }

    /// The worker that owns both directions of a passage, by either direction's key.
    pub(crate) fn owner_of_passage(&self, key: &FlowKey) -> usize {
        let known = |address| self.snapshot.nat_of_origin(address).map_or(address, |nat| nat.translation);
        let ends = endpoint_hash(known(key.src), key.src_port) ^ endpoint_hash(known(key.dst), key.dst_port);
        self.owners.of_hash(ends)
    }

    pub(crate) fn open_passage(
        &mut self,
        passage: Passage,
        link: LinkId,
        frame: &Frame,
        packet: &Packet,
    ) -> Result<FlowId, DropReason> {
        crate::admit::opens(packet)?;
        if self.draining {
            return Err(DropReason::Draining);
        }
        let hop = self.snapshot.route(passage.destination).ok_or(DropReason::NoRoute)?;
        let selection = Selection {
            virtual_id: VirtualId::NONE,
            member_id: MemberId::NONE,
            member: (passage.destination, packet.key.dst_port),
            source: (passage.source, packet.key.src_port),
            neighbor: self.neighbors.resolve(hop, self.now)?,
            flags: flow_flag::AUTO_LAST_HOP,
        };
        let flow = self.new_flow(link, frame, packet, &selection);
        self.take_in(&flow)
    }
}

/// True when the virtual server sends a packet to where it was going.
fn only_forwards(item: &Virtual) -> bool {
    item.kind == VirtualKind::ForwardingIp
}
