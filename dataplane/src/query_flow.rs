//! Pings that pass through: ICMP echo has flows like UDP, with its identifier in the place of a port (RFC 5508
//! section 3).
//!
//! ```text
//!   request  client ─▶ destination, identifier n     key: source port n, destination port 0
//!   reply    member ─▶ source, identifier m          key: source port 0, destination port m
//! ```
//!
//! Forwarding virtual servers of protocol `any` and one-to-one translations take them. The first fragment of a large
//! one has the identifier, and the others follow it (`fragment/path`). Receive-side scaling knows no
//! identifiers, so that all such flows belong to worker 0.

use crate::config::ids::{LinkId, PortId, VirtualId};
use crate::config::snapshot::{Virtual, VirtualKind};
use crate::flow::Direction;
use crate::flow::key::FlowKey;
use crate::frame::{Checksum, Frame};
use crate::outgoing::Outgoing;
use crate::packet::emit::IcmpError;
use crate::packet::icmp;
use crate::packet::parse::Packet;
use crate::pipeline::{Fate, Pipeline};
use crate::verdict::DropReason;

impl Pipeline {
    /// An echo message that is not for us to answer: passes through its flow, or opens one.
    pub(crate) fn echo_through(
        &mut self,
        port: PortId,
        frame: &mut Frame,
        packet: &Packet,
        out: &mut Outgoing,
    ) -> Fate {
        let Some((key, _)) = icmp::echo_key(frame.bytes(), packet) else {
            return self.dropped(DropReason::UnwantedIcmp, VirtualId::NONE);
        };
        if self.worker != ICMP_WORKER {
            return Fate::HandOver(ICMP_WORKER);
        }
        let packet = &Packet { key, ..*packet };
        if frame.offload.checksum == Checksum::Unchecked && !icmp::is_intact(frame.bytes(), packet) {
            return self.dropped(DropReason::Malformed, VirtualId::NONE);
        }
        if let Some((id, direction)) = self.flows.find(&key, self.flows.hash(&key)) {
            return self.forward(port, frame, packet, id, direction, out);
        }
        self.first_echo(port, frame, packet, out)
    }

    /// An echo message of no flow, or its first fragment, at the worker that owns it: a request opens a flow.
    /// `packet` has the identifier in the place of a port.
    pub(crate) fn first_echo(
        &mut self,
        port: PortId,
        frame: &mut Frame,
        packet: &Packet,
        out: &mut Outgoing,
    ) -> Fate {
        if !icmp::echo_key(frame.bytes(), packet).is_some_and(|(_, is_request)| is_request) {
            return self.dropped(DropReason::UnwantedIcmp, VirtualId::NONE);
        }
        let link = LinkId::new(port, packet.vlan);
        let snapshot = std::sync::Arc::clone(&self.snapshot);
        let matched = snapshot.match_virtual(&packet.key, link);
        let matched = matched.filter(|item| snapshot.may_take(item, packet.key.dst));
        let opened = match (self.one_to_one(matched, packet, link), matched.filter(forwards)) {
            (Some(passage), _) => self.open_passage(passage, link, frame, packet),
            (None, Some(item)) => self.open(item, link, frame, packet),
            (None, None) => Err(DropReason::UnwantedIcmp),
        };
        match opened {
            Ok(id) => self.forward(port, frame, packet, id, Direction::FromClient, out),
            Err(reason) => {
                if reason == DropReason::NoRoute {
                    self.answer_with_icmp(port, frame, packet, IcmpError::NetUnreachable, out);
                }
                self.dropped(reason, matched.map_or(VirtualId::NONE, |item| item.id))
            }
        }
    }
}

fn forwards(item: &&Virtual) -> bool {
    item.kind == VirtualKind::ForwardingIp
}

/// Owns every echo flow.
pub(crate) const ICMP_WORKER: usize = 0;

/// True when the worker that owns packets with this key is [`ICMP_WORKER`].
pub(crate) fn is_echo(key: &FlowKey) -> bool {
    use crate::packet::parse::protocol;
    matches!(key.protocol, protocol::ICMP | protocol::ICMPV6)
}
