//! Packets whose next hop does not answer ARP or neighbour discovery: whoever sent them is told, as if a router there
//! had said so (RFC 1812 section 4.3.3.1; RFC 4443 section 3.1).
//!
//! ```text
//!   packet as it left us ─▶ its flow ─┬ a member's, half-open ─▶ another member, else RST to the client
//!                                     ├ any other flow's ───────▶ host unreachable, in that flow's words (relate)
//!                                     └ a proxy's connection ───▶ proxy/related: another member
//! ```
//!
//! An open connection is told and never cut. Datagrams without a flow, and ICMP errors, leave no trace to answer by.

use crate::address::{Address, Mac};
use crate::config::ids::{MemberId, VirtualId};
use crate::flow::table::FlowId;
use crate::flow::tcp_track::TcpState;
use crate::flow::{Direction, Flow, flow_flag};
use crate::frame::Frame;
use crate::outgoing::Outgoing;
use crate::packet::checksum;
use crate::packet::emit::{self, IcmpError};
use crate::packet::icmp::{self, Quoted};
use crate::packet::parse::{self, Class, Packet, Parsed, protocol};
use crate::packet::rewrite::LinkHeader;
use crate::pipeline::{Fate, Pipeline};
use crate::verdict::DropReason;

/// An ICMP error of our own making, and what it quotes.
struct Notice {
    frame: Frame,
    packet: Packet,
    quoted: Quoted,
}

impl Pipeline {
    /// Drops `frame`, complete but for its link destination, because its next hop does not answer, and tells its sender.
    #[cold]
    pub(crate) fn drop_unresolved(&mut self, frame: Frame, out: &mut Outgoing) {
        let reason = DropReason::NeighborUnresolved;
        if let Some(origin) = self.origins.of(&frame) {
            return self.tell_origin(&origin, frame, out);
        }
        let Some(packet) = read(&frame) else { return self.count_drop(reason, VirtualId::NONE) };
        let key = packet.key.reversed();
        if let Some((id, direction)) = self.flows.find(&key, self.flows.hash(&key)) {
            return self.unresolved_of_flow(id, direction, frame, &packet, out);
        }
        let Some(index) = self.proxies.ends.find(&key) else {
            return self.count_drop(reason, VirtualId::NONE);
        };
        let virtual_id = self.proxies.ends.at(index).map_or(VirtualId::NONE, |end| end.virtual_id);
        self.count_drop(reason, virtual_id);
        if let Some(notice) = self.notice(frame, &packet, packet.key.src) {
            let _ = self.proxy_error(index, &notice.frame, &notice.packet, &notice.quoted);
        }
    }

    fn unresolved_of_flow(
        &mut self,
        id: FlowId,
        direction: Direction,
        frame: Frame,
        packet: &Packet,
        out: &mut Outgoing,
    ) {
        let flow = *self.flows.at_mut(id);
        let from_member = direction == Direction::FromMember;
        // Counted there as the member's refusal.
        if from_member && flow.has(flow_flag::RESELECT) && self.try_another(id, out).is_some() {
            return;
        }
        self.count_drop(DropReason::NeighborUnresolved, flow.virtual_id);
        if from_member && is_unanswered(&flow) {
            return self.refuse_half_open(id, &flow, out);
        }
        self.tell_end(id, direction, frame, packet, out);
    }

    /// The member that a client was given is not there, and no other is to be had: the client may try again at once.
    fn refuse_half_open(&mut self, id: FlowId, flow: &Flow, out: &mut Outgoing) {
        if self.rejects.take(self.now) {
            self.counters.rejects_sent.add(1);
            self.reset_side(flow, Direction::FromMember, out);
        } else {
            self.counters.rejects_limited.add(1);
        }
        self.close(id);
    }

    /// Host unreachable to the end of the flow that an answer from `direction` would go to.
    fn tell_end(
        &mut self,
        id: FlowId,
        direction: Direction,
        frame: Frame,
        packet: &Packet,
        out: &mut Outgoing,
    ) {
        if !self.icmp_errors.take(self.now) {
            return self.counters.rejects_limited.add(1);
        }
        let Some(source) = self.address_towards_end(id, direction) else { return };
        let Some(mut notice) = self.notice(frame, packet, source) else { return };
        let fate = self.pass_error_on(&mut notice.frame, &notice.packet, &notice.quoted, id, direction);
        if let Fate::Send(port) = fate {
            self.counters.rejects_sent.add(1);
            let _ = self.send_own(Some(notice.frame), port, VirtualId::NONE, out);
        }
    }

    /// Our own address where that end is; failing that the address that it had asked for, if that is ours.
    fn address_towards_end(&mut self, id: FlowId, direction: Direction) -> Option<Address> {
        let flow = *self.flows.at_mut(id);
        let to = flow.outgoing_key(direction);
        let link = match direction {
            Direction::FromMember => self.way_back(&flow)?.0,
            Direction::FromClient => self.snapshot.route(flow.member)?.link,
        };
        let own = self.snapshot.self_ip_towards(link, to.dst);
        own.or_else(|| self.snapshot.owned(to.src).map(|_| to.src))
    }

    /// Host unreachable about `frame`, as it would have come from `source`.
    fn notice(&self, mut frame: Frame, packet: &Packet, source: Address) -> Option<Notice> {
        checksum::finish(&mut frame);
        let end = usize::from(packet.l3) + packet.ip_len as usize;
        let offender = frame.bytes().get(usize::from(packet.l3)..end)?;
        let header = LinkHeader { destination: Mac::default(), source: Mac::default(), vlan: 0 };
        let error = IcmpError::HostUnreachable;
        let frame = emit::icmp_error(&self.frames, header, source, packet.key.src, error, offender)?;
        let Ok(Parsed::Ip(packet)) = parse::parse(frame.bytes(), Mac::default()) else { return None };
        let quoted = icmp::quoted(frame.bytes(), &packet)?;
        Some(Notice { frame, packet, quoted })
    }
}

/// A TCP connection to a member that has not answered yet.
fn is_unanswered(flow: &Flow) -> bool {
    flow.protocol == protocol::TCP
        && flow.member_id != MemberId::NONE
        && flow.tcp_state() == TcpState::SynSent
}

/// What a packet that has waited is, with the identifier of an echo message for a port. `None` for what is never
/// answered: later fragments and ICMP errors (RFC 1812 section 4.3.2.7; RFC 4443 section 2.4, e).
pub(crate) fn read(frame: &Frame) -> Option<Packet> {
    let bytes = frame.bytes();
    let destination = Mac(*bytes.first_chunk::<6>()?);
    let packet = match parse::parse(bytes, destination).ok()? {
        Parsed::Ip(packet) => packet,
        Parsed::Fragment(fragment) if fragment.is_first() => fragment.packet,
        Parsed::Fragment(_) | Parsed::Arp { .. } => return None,
    };
    match packet.class {
        Class::Icmp => icmp::echo_key(bytes, &packet).map(|(key, _)| Packet { key, ..packet }),
        Class::Tcp | Class::Udp | Class::Other | Class::Fragment => Some(packet),
    }
}
