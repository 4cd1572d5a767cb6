//! Virtual servers of type stateless: every UDP datagram is balanced by itself and leaves no flow behind.
//!
//! For short exchanges at high rates (DNS, syslog). The member sees the client's address and answers it directly. Whoever
//! sent what no member could be given is told (`origin`, `unresolved.rs`).

pub(crate) mod origin;

use crate::address::Mac;
use crate::config::ids::{LinkId, MemberId, PortId};
use crate::config::snapshot::Virtual;
use crate::flow::Direction;
use crate::flow::key::FlowKey;
use crate::forward::{is_too_big, segments};
use crate::fragment::Oversized;
use crate::fragment::table::Way;
use crate::frame::Frame;
use crate::neighbor::{NeighborRef, Prospect};
use crate::outgoing::Outgoing;
use crate::packet::checksum;
use crate::packet::emit::IcmpError;
use crate::packet::parse::{Class, Packet};
use crate::packet::rewrite::{self, LinkHeader};
use crate::pipeline::{Fate, Pipeline};
use crate::quota::Limited;
use crate::respond::source_mac;
use crate::unresolved;
use crate::verdict::DropReason;

use self::origin::Origin;

impl Pipeline {
    /// Sends a datagram on to the member that it falls to.
    pub(crate) fn send_stateless(
        &mut self,
        item: &Virtual,
        port: PortId,
        frame: &mut Frame,
        packet: &Packet,
        out: &mut Outgoing,
    ) -> Fate {
        if packet.ttl <= 1 {
            let reason = DropReason::TtlExpired;
            return self.refuse_with_icmp(port, frame, packet, reason, IcmpError::TimeExceeded, out);
        }
        match self.balance(item, packet) {
            Ok((to, member)) => self.send_balanced(item, member, port, frame, packet, &to, out),
            Err(reason) => self.refuse(port, frame, packet, reason, item.id, out),
        }
    }

    fn balance(&mut self, item: &Virtual, packet: &Packet) -> Result<(FlowKey, MemberId), DropReason> {
        if !item.enabled {
            return Err(DropReason::VirtualDisabled);
        }
        if let Some(way) = self.fragment_at_hand.and_then(|id| self.fragments.way(id)) {
            let to = FlowKey { dst: way.address, dst_port: way.port, ..packet.key };
            return Ok((to, MemberId(way.member)));
        }
        if !self.quota.take_rate(Limited::Virtual(item.id), item.rate_limit, self.now) {
            return Err(DropReason::ConnectionRate);
        }
        let target = self.target(item, packet, &[])?;
        self.let_go_member(target.member_id);
        if let Some(id) = self.fragment_at_hand {
            let way = Way { address: target.address, member: target.member_id.0, port: target.port };
            self.fragments.set_way(id, way);
        }
        Ok((FlowKey { dst: target.address, dst_port: target.port, ..packet.key }, target.member_id))
    }

    #[expect(clippy::too_many_arguments, reason = "what a datagram is, and where it goes")]
    fn send_balanced(
        &mut self,
        item: &Virtual,
        member: MemberId,
        port: PortId,
        frame: &mut Frame,
        packet: &Packet,
        to: &FlowKey,
        out: &mut Outgoing,
    ) -> Fate {
        let Some(hop) = self.snapshot.route(to.dst) else {
            return self.refuse(port, frame, packet, DropReason::NoRoute, item.id, out);
        };
        let neighbor = match self.neighbors.resolve(hop, self.now) {
            Ok(neighbor) => neighbor,
            Err(reason) => return self.dropped(reason, item.id),
        };
        let known: Option<(LinkId, Mac)> = self.neighbors.mac(neighbor);
        let is_known = known.is_some();
        if !is_known && self.neighbors.prospect(neighbor) == Prospect::Fails {
            if packet.class != Class::Fragment {
                self.answer_with_icmp(port, frame, packet, IcmpError::HostUnreachable, out);
            }
            return self.dropped(DropReason::NeighborUnresolved, item.id);
        }
        let (link, mac) = known.unwrap_or((hop.link, Mac::default()));
        let facts = self.ports[usize::from(link.port().0)];
        if packet.ip_len > u32::from(facts.mtu) && is_too_big(frame, packet, facts.mtu) {
            if !is_known {
                return self.dropped(DropReason::TooBig, item.id);
            }
            let (to, direction) = (*to, Direction::FromClient);
            let (virtual_id, member_id) = (item.id, member);
            let way = Oversized { packet, to, link, mac, virtual_id, member_id, direction };
            return self.forward_oversized(port, frame, &way, out);
        }
        let packets = segments(frame, packet);
        let mac = if is_known { mac } else { self.ticket(item, neighbor, port, frame, packet) };
        rewrite::translate(frame, packet, to);
        frame.truncate(usize::from(packet.l3) + packet.ip_len as usize);
        let header = LinkHeader { destination: mac, source: facts.mac, vlan: link.vlan() };
        if !rewrite::set_link_header(frame, packet.l3, packet.key.src.is_v4(), header) {
            return self.dropped(DropReason::NoFrame, item.id);
        }
        self.count(item.id, member, Direction::FromClient, packets, u64::from(packet.ip_len));
        if is_known { Fate::Send(link.port()) } else { Fate::Wait(neighbor, item.id) }
    }

    /// What stands for the link destination of a datagram that is to wait, so that its sender can be told.
    #[cold]
    fn ticket(
        &mut self,
        item: &Virtual,
        neighbor: NeighborRef,
        port: PortId,
        frame: &Frame,
        packet: &Packet,
    ) -> Mac {
        if self.neighbors.prospect(neighbor) != Prospect::Waits {
            return Mac::default();
        }
        self.origins.note(Origin {
            destination: (packet.key.dst, packet.key.dst_port),
            link: LinkId::new(port, packet.vlan),
            mac: source_mac(frame),
            virtual_id: item.id,
        })
    }

    /// The member's link address is not to be had: the datagram becomes what it was, and its sender is told about that.
    #[cold]
    pub(crate) fn tell_origin(&mut self, origin: &Origin, mut frame: Frame, out: &mut Outgoing) {
        self.count_drop(DropReason::NeighborUnresolved, origin.virtual_id);
        let Some(packet) = unresolved::read(&frame) else { return };
        checksum::finish(&mut frame);
        let (dst, dst_port) = origin.destination;
        rewrite::translate(&mut frame, &packet, &FlowKey { dst, dst_port, ..packet.key });
        let destination = self.ports[usize::from(origin.link.port().0)].mac;
        let header = LinkHeader { destination, source: origin.mac, vlan: origin.link.vlan() };
        if !rewrite::set_link_header(&mut frame, packet.l3, packet.key.src.is_v4(), header) {
            return;
        }
        if let Some(packet) = unresolved::read(&frame) {
            self.answer_with_icmp(origin.link.port(), &frame, &packet, IcmpError::HostUnreachable, out);
        }
    }
}
