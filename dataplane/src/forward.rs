//! A packet of a known flow: followed, translated, sent on.
//!
//! ```text
//!   forward ─▶ is it plain? ─▶ follow (tcp_track) ─▶ note ─▶ next hop ─▶ send_onward ─▶ rewrite::send_off
//!                  │ no                                            │ unknown     └ too big: fragment/path
//!                  ▼                                               ▼
//!            forward_with_care: TTL, configuration, SYN   forward_unresolved
//! ```

use crate::address::Mac;
use crate::config::ids::{LinkId, MemberId, PortId, VirtualId};
use crate::config::snapshot::Snapshot;
use crate::flow::key::FlowKey;
use crate::flow::table::FlowId;
use crate::flow::tcp_track::{self, Segment, TcpState};
use crate::flow::{Direction, Flow, flow_flag};
use crate::fragment::Oversized;
use crate::frame::Frame;
use crate::outgoing::Outgoing;
use crate::packet::emit::IcmpError;
use crate::packet::mss;
use crate::packet::parse::{Class, Packet, protocol, tcp_flag};
use crate::packet::rewrite::{self, LinkHeader};
use crate::pipeline::{Fate, Pipeline};
use crate::verdict::DropReason;

impl Pipeline {
    /// A packet of a known flow: follow it, translate it, send it.
    #[inline(always)]
    pub(crate) fn forward(
        &mut self,
        port: PortId,
        frame: &mut Frame,
        packet: &Packet,
        id: FlowId,
        direction: Direction,
        out: &mut Outgoing,
    ) -> Fate {
        let flow = self.flows.at_mut(id);
        let is_plain = packet.ttl > 1
            && packet.tcp_flags & tcp_flag::SYN == 0
            && flow.epoch == self.epoch
            && !flow.has(flow_flag::RESELECT | flow_flag::ASKED | flow_flag::UNCOUNTED)
            && (direction == Direction::FromMember || flow.client_link == LinkId::new(port, packet.vlan));
        if !is_plain {
            return self.forward_with_care(port, frame, packet, id, direction, out);
        }
        self.forward_plain(port, frame, packet, id, direction, out)
    }

    #[inline(always)]
    fn forward_plain(
        &mut self,
        port: PortId,
        frame: &mut Frame,
        packet: &Packet,
        id: FlowId,
        direction: Direction,
        out: &mut Outgoing,
    ) -> Fate {
        if packet.class == Class::Tcp {
            let segment = segment_of(frame, packet);
            if let Some(state) = tcp_track::follow(self.flows.at_mut(id), direction, segment) {
                let is_sure = tcp_track::ends_for_sure(self.flows.at_mut(id), direction, segment);
                self.on_tcp_state(id, state, is_sure);
            }
        }
        let flow = self.flows.at_mut(id);
        note(flow, LinkId::new(port, packet.vlan), frame, packet, direction, self.now.as_ms());
        let onward = Onward {
            to: flow.outgoing_key(direction),
            virtual_id: flow.virtual_id,
            member_id: flow.member_id,
            direction,
        };
        let way = match direction {
            Direction::FromClient => self.neighbors.mac(flow.neighbor).map(Way::to),
            Direction::FromMember if flow.has(flow_flag::AUTO_LAST_HOP) => {
                Some(Way::to((flow.client_link, flow.client_mac)))
            }
            Direction::FromMember => self.way_to_client(id),
        };
        match way {
            Some(way) => self.send_onward(port, frame, packet, &onward, way, out),
            None => self.forward_unresolved(port, frame, packet, id, direction, out),
        }
    }

    /// A packet that is perhaps not just to be sent on.
    #[cold]
    #[inline(never)]
    fn forward_with_care(
        &mut self,
        port: PortId,
        frame: &mut Frame,
        packet: &Packet,
        id: FlowId,
        direction: Direction,
        out: &mut Outgoing,
    ) -> Fate {
        match self.look_closer(port, frame, packet, id, direction, out) {
            Some(fate) => fate,
            None => self.forward_plain(port, frame, packet, id, direction, out),
        }
    }

    /// What may have to come first: `Some` when the packet is done with.
    fn look_closer(
        &mut self,
        port: PortId,
        frame: &mut Frame,
        packet: &Packet,
        id: FlowId,
        direction: Direction,
        out: &mut Outgoing,
    ) -> Option<Fate> {
        if packet.ttl <= 1 {
            let (reason, answer) = (DropReason::TtlExpired, IcmpError::TimeExceeded);
            return Some(self.refuse_with_icmp(port, frame, packet, reason, answer, out));
        }
        if self.flows.at_mut(id).epoch != self.epoch {
            self.find_way_anew(id);
        }
        let virtual_id = self.flows.at_mut(id).virtual_id;
        let is_strange =
            direction == Direction::FromClient && !self.comes_by(id, LinkId::new(port, packet.vlan));
        // What is certainly over bars nobody elsewhere from the same ports.
        if is_strange && !self.flows.at_mut(id).has(flow_flag::UNCOUNTED) {
            return Some(self.dropped(DropReason::NoVirtual, virtual_id));
        }
        if self.flows.at_mut(id).has(flow_flag::RESELECT | flow_flag::ASKED)
            && let Some(fate) = self.watch(id, direction, packet, out)
        {
            return Some(fate);
        }
        if packet.tcp_flags & tcp_flag::SYN != 0 && self.begins_anew(frame, packet, id, direction) {
            self.close(id);
            return Some(self.first_packet(port, frame, packet, out));
        }
        if is_strange {
            return Some(self.dropped(DropReason::NoVirtual, virtual_id));
        }
        if self.flows.at_mut(id).has(flow_flag::UNCOUNTED) {
            let payload =
                if packet.class == Class::Tcp { segment_of(frame, packet).payload } else { u32::MAX };
            if let Err(reason) = self.come_back(id, direction, packet, payload) {
                return Some(self.dropped(reason, virtual_id));
            }
        }
        None
    }

    /// A client's packet has come by `link`. False when its virtual server takes none from there; else its client may have
    /// moved.
    fn comes_by(&mut self, id: FlowId, link: LinkId) -> bool {
        let flow = self.flows.at_mut(id);
        if flow.client_link == link {
            return true;
        }
        let virtual_id = flow.virtual_id;
        let may_come = self.takes_from(virtual_id, link);
        if may_come {
            self.flows.at_mut(id).client_link = link;
        }
        may_come
    }

    /// False when the virtual server takes no packets from `link`.
    pub(crate) fn takes_from(&self, virtual_id: VirtualId, link: LinkId) -> bool {
        self.snapshot.virtual_by_id(virtual_id).is_none_or(|item| item.ingress.contains(link))
    }

    /// A SYN of a known flow: true when it begins another connection, else it may have to announce less.
    fn begins_anew(&mut self, frame: &mut Frame, packet: &Packet, id: FlowId, direction: Direction) -> bool {
        let flow = self.flows.at_mut(id);
        if is_reopening(flow, direction, frame, packet) {
            return true;
        }
        clamp_mss(&self.snapshot, flow.virtual_id, frame, packet);
        false
    }

    /// Translates the packet and sends it on, to a link address on a link.
    #[inline(always)]
    fn send_onward(
        &mut self,
        port: PortId,
        frame: &mut Frame,
        packet: &Packet,
        onward: &Onward,
        way: Way,
        out: &mut Outgoing,
    ) -> Fate {
        let &Onward { to, virtual_id, member_id, direction } = onward;
        let (link, mac) = way.end();
        let facts = self.ports[usize::from(link.port().0)];
        if packet.ip_len > u32::from(facts.mtu) && is_too_big(frame, packet, facts.mtu) {
            let way = Oversized { packet, to, link, mac, virtual_id, member_id, direction };
            return self.forward_oversized(port, frame, &way, out);
        }
        if !out.takes(link.port(), frame) {
            return self.dropped(DropReason::TxFull, virtual_id);
        }
        let packets = segments(frame, packet);
        let header = LinkHeader { destination: mac, source: facts.mac, vlan: link.vlan() };
        if !rewrite::send_off(frame, packet, &to, header) {
            return self.dropped(DropReason::NoFrame, virtual_id);
        }
        self.count(virtual_id, member_id, direction, packets, u64::from(packet.ip_len));
        Fate::Send(link.port())
    }

    /// A packet of a flow that something waits for. `Some` when it is done with.
    #[cold]
    fn watch(
        &mut self,
        id: FlowId,
        direction: Direction,
        packet: &Packet,
        out: &mut Outgoing,
    ) -> Option<Fate> {
        let flow = *self.flows.at_mut(id);
        if flow.has(flow_flag::ASKED) && direction == Direction::FromMember {
            self.flows.at_mut(id).flags &= !flow_flag::ASKED;
            self.end_of_wait(id, &flow);
        }
        if flow.has(flow_flag::RESELECT) { self.follow_attempt(id, direction, packet, out) } else { None }
    }

    /// The configuration has changed since the flow's last packet.
    fn find_way_anew(&mut self, id: FlowId) {
        let member = self.flows.at_mut(id).member;
        let hop = self.snapshot.route(member);
        let neighbor = hop.and_then(|hop| self.neighbors.resolve(hop, self.now).ok());
        let flow = self.flows.at_mut(id);
        flow.epoch = self.epoch;
        flow.neighbor = neighbor.unwrap_or(flow.neighbor);
    }

    /// Translates the packet and leaves it with its next hop until that answers.
    #[cold]
    fn forward_unresolved(
        &mut self,
        port: PortId,
        frame: &mut Frame,
        packet: &Packet,
        id: FlowId,
        direction: Direction,
        out: &mut Outgoing,
    ) -> Fate {
        let flow = *self.flows.at_mut(id);
        let (to, packets) = (flow.outgoing_key(direction), segments(frame, packet));
        let Some(hop) = self.snapshot.route(to.dst) else {
            self.answer_with_icmp(port, frame, packet, IcmpError::NetUnreachable, out);
            return self.dropped(DropReason::NoRoute, flow.virtual_id);
        };
        let neighbor = match self.neighbors.resolve(hop, self.now) {
            Ok(neighbor) => neighbor,
            Err(reason) => return self.dropped(reason, flow.virtual_id),
        };
        if to.dst == flow.member {
            self.flows.at_mut(id).neighbor = neighbor;
        }
        let facts = self.ports[usize::from(hop.link.port().0)];
        if packet.ip_len > u32::from(facts.mtu) && is_too_big(frame, packet, facts.mtu) {
            return self.dropped(DropReason::TooBig, flow.virtual_id);
        }
        let header = LinkHeader { destination: Mac::default(), source: facts.mac, vlan: hop.link.vlan() };
        if !rewrite::send_off(frame, packet, &to, header) {
            return self.dropped(DropReason::NoFrame, flow.virtual_id);
        }
        self.count(flow.virtual_id, flow.member_id, direction, packets, u64::from(packet.ip_len));
        Fate::Wait(neighbor, flow.virtual_id)
    }

    /// The way back to a client whose last hop is not remembered: by route.
    #[cold]
    fn way_to_client(&mut self, id: FlowId) -> Option<Way> {
        let client = self.flows.at_mut(id).client;
        let hop = self.snapshot.route(client)?;
        let neighbor = self.neighbors.resolve(hop, self.now).ok()?;
        self.neighbors.mac(neighbor).map(Way::to)
    }

    /// Counts a forwarded packet: one store a counter.
    #[inline(always)]
    pub(crate) fn count(
        &self,
        virtual_id: VirtualId,
        member_id: MemberId,
        from: Direction,
        packets: u64,
        bytes: u64,
    ) {
        if let Some(counters) = self.counters.of_virtual(virtual_id) {
            let (received, sent) = match from {
                Direction::FromClient => (&counters.clientside, &counters.serverside),
                Direction::FromMember => (&counters.serverside, &counters.clientside),
            };
            received.packets_in.add(packets);
            received.bytes_in.add(bytes);
            sent.packets_out.add(packets);
            sent.bytes_out.add(bytes);
        }
        if let Some(counters) = self.counters.of_member(member_id) {
            match from {
                Direction::FromClient => {
                    counters.serverside.packets_out.add(packets);
                    counters.serverside.bytes_out.add(bytes);
                }
                Direction::FromMember => {
                    counters.serverside.packets_in.add(packets);
                    counters.serverside.bytes_in.add(bytes);
                }
            }
        }
    }
}

/// A link and a link address on it, in one register: written in parts and read whole it would wait for its own stores.
#[derive(Debug, Clone, Copy)]
struct Way(u64);

impl Way {
    #[inline(always)]
    fn to((link, mac): (LinkId, Mac)) -> Self {
        Self(mac.bits() << 16 | u64::from(link.code()))
    }

    #[inline(always)]
    fn end(self) -> (LinkId, Mac) {
        (LinkId::from_code(self.0 as u16), Mac::from_bits(self.0 >> 16))
    }
}

/// What a packet must become, and for whom it counts.
struct Onward {
    to: FlowKey,
    virtual_id: VirtualId,
    member_id: MemberId,
    direction: Direction,
}

/// Notes in the flow that the packet has come. What is half open does not live longer for it.
#[inline(always)]
fn note(flow: &mut Flow, link: LinkId, frame: &Frame, packet: &Packet, direction: Direction, now_ms: u32) {
    if !(packet.key.protocol == protocol::TCP && flow.tcp_state().is_half_open()) {
        flow.last_seen_ms = now_ms;
    }
    flow.bytes[direction.index()] += u64::from(packet.ip_len);
    if direction == Direction::FromClient && flow.has(flow_flag::AUTO_LAST_HOP) {
        remember_last_hop(flow, link, frame);
    }
}

/// Lowers the segment size that a SYN announces to what its virtual server allows.
#[cold]
fn clamp_mss(snapshot: &Snapshot, virtual_id: VirtualId, frame: &mut Frame, packet: &Packet) {
    if let Some(mss) = snapshot.virtual_by_id(virtual_id).and_then(|item| item.mss_clamp) {
        mss::clamp(frame, packet, mss);
    }
}

/// A client that opens a connection anew with the ports of one that is over (RFC 9293 section 3.6.1).
#[inline(always)]
fn is_reopening(flow: &Flow, direction: Direction, frame: &Frame, packet: &Packet) -> bool {
    packet.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
        && direction == Direction::FromClient
        && flow.tcp_state().is_over()
        && (flow.tcp_state() == TcpState::Refused || !is_late_syn(flow, segment_of(frame, packet).seq))
}

/// A late copy of the SYN that began the connection: its number lies within what the client has sent since. The
/// connection may not be over for its ends, who have yet to see each other's last packets.
#[cold]
fn is_late_syn(flow: &Flow, seq: u32) -> bool {
    let client = Direction::FromClient.index();
    let behind = u64::from(flow.next_seq[client].wrapping_sub(seq));
    (2..=flow.bytes[client].min(BEHIND_MAX)).contains(&behind)
}

/// Further behind is ahead (RFC 9293 section 3.4): else nobody could reopen what has carried 4 GiB.
const BEHIND_MAX: u64 = 1 << 31;

#[inline(always)]
fn remember_last_hop(flow: &mut Flow, link: LinkId, frame: &Frame) {
    if let Some(mac) = frame.bytes().get(6..12).and_then(|bytes| bytes.first_chunk::<6>()) {
        flow.client_mac = Mac(*mac);
        flow.client_link = link;
    }
}

/// What tracking needs of a TCP segment.
#[inline(always)]
pub(crate) fn segment_of(frame: &Frame, packet: &Packet) -> Segment {
    let header = frame.bytes()[usize::from(packet.l4)..].first_chunk::<20>();
    let Some(header) = header else { return Segment { flags: 0, seq: 0, ack: 0, payload: 0 } };
    let header_len = u32::from(header[12] >> 4) * 4 + u32::from(packet.l4 - packet.l3);
    let seq = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let ack = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
    Segment { flags: packet.tcp_flags, seq, ack, payload: packet.ip_len.saturating_sub(header_len) }
}

/// True when what leaves, each segment by itself, is larger than `mtu`.
#[cold]
pub(crate) fn is_too_big(frame: &Frame, packet: &Packet, mtu: u16) -> bool {
    let Some(cut) = frame.offload.segmentation else { return true };
    let transport = if packet.class == Class::Tcp { segment_of(frame, packet).payload } else { 0 };
    let headers = if packet.class == Class::Tcp {
        packet.ip_len - transport.min(packet.ip_len)
    } else {
        u32::from(packet.l4 - packet.l3) + 8
    };
    headers + u32::from(cut.payload_bytes) > u32::from(mtu)
}

/// How many packets a frame stands for.
#[inline(always)]
pub(crate) fn segments(frame: &Frame, packet: &Packet) -> u64 {
    if frame.offload.segmentation.is_none() { 1 } else { segments_of_super_frame(frame, packet) }
}

#[cold]
fn segments_of_super_frame(frame: &Frame, packet: &Packet) -> u64 {
    let payload = match packet.class {
        Class::Tcp => segment_of(frame, packet).payload,
        _ => packet.ip_len.saturating_sub(u32::from(packet.l4 - packet.l3) + 8),
    };
    let each = frame.offload.segmentation.map_or(1, |cut| cut.payload_bytes.max(1));
    u64::from(payload.div_ceil(u32::from(each)).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syn_ahead_of_a_connection_that_carried_gigabytes_is_not_late() {
        let mut flow: Flow = bytemuck::Zeroable::zeroed();
        (flow.next_seq[0], flow.bytes[0]) = (1_000_000, 5 << 30);
        assert!(is_late_syn(&flow, 900_000) && is_late_syn(&flow, 1_000_000 - 2));
        assert!(!is_late_syn(&flow, 1_000_000) && !is_late_syn(&flow, 1_000_500));
    }
}
