//! What comes in: segments of proxied connections, handshakes of clients, late segments.

use std::sync::Arc;

use super::end::{End, Way};
use super::{Layer, Proxy};
use crate::address::Mac;
use crate::config::ids::{LinkId, MemberId, PortId, VirtualId};
use crate::config::proxy::ProxyProfile;
use crate::config::snapshot::Virtual;
use crate::flow::Direction;
use crate::forward::{segment_of, segments};
use crate::frame::{Checksum, Frame};
use crate::neighbor::NeighborRef;
use crate::outgoing::Outgoing;
use crate::packet::checksum::{fold, sum};
use crate::packet::emit::{self, Control};
use crate::packet::parse::{Class, Packet, protocol, tcp_flag};
use crate::packet::rewrite::LinkHeader;
use crate::pipeline::{Fate, Pipeline};
use crate::proxy::stream::Stream;
use crate::quota::Limited;
use crate::tcp::handshake::{Caller, Complete, Offer, Syn, SynAck};
use crate::tcp::time_wait::Answer;
use crate::tcp::{ConnId, Engine, Opening};
use crate::verdict::DropReason;

impl Pipeline {
    /// A TCP segment that belongs to no flow; `None` when it belongs to no proxied connection either.
    #[inline]
    pub(crate) fn proxied(
        &mut self,
        port: PortId,
        frame: &mut Frame,
        packet: &Packet,
        out: &mut Outgoing,
    ) -> Option<Fate> {
        if packet.class != Class::Tcp || self.proxies.is_quiet() {
            return None;
        }
        if let Some(index) = self.proxies.ends.find(&packet.key) {
            return Some(self.segment(index, port, frame, packet));
        }
        self.late_segment(port, frame, packet, out)
    }

    /// A segment of a connection: to the engine, and its proxy is ready.
    fn segment(&mut self, index: u32, port: PortId, frame: &Frame, packet: &Packet) -> Fate {
        let Some(end) = self.proxies.ends.at_mut(index) else { return Fate::Done };
        if !is_checksum_right(frame, packet) {
            let virtual_id = end.virtual_id;
            return self.dropped(DropReason::BadChecksum, virtual_id);
        }
        let (virtual_id, link) = (end.virtual_id, LinkId::new(port, packet.vlan));
        if let Way::LastHop(known, mac) = &mut end.way {
            if *known == link {
                *mac = source_of(frame);
            } else if self.takes_from(virtual_id, link) {
                self.moves_to(index, link, source_of(frame));
            } else {
                return self.dropped(DropReason::NoVirtual, virtual_id);
            }
        }
        let Some(end) = self.proxies.ends.at_mut(index).copied() else { return Fate::Done };
        let from = if end.is_client { Direction::FromClient } else { Direction::FromMember };
        self.count_received(&end, from, segments(frame, packet), u64::from(packet.ip_len));
        let (start, len) = (usize::from(packet.l3), packet.ip_len as usize);
        if let Some(bytes) = frame.bytes().get(start..start + len) {
            self.proxies.engine.receive(end.conn, bytes, self.now);
        }
        self.proxies.slots.wake(end.slot);
        Fate::Done
    }

    /// The client's packets come by another link now.
    #[cold]
    fn moves_to(&mut self, index: u32, link: LinkId, mac: Mac) {
        if let Some(end) = self.proxies.ends.at_mut(index) {
            end.way = Way::LastHop(link, mac);
        }
    }

    /// Something of a connection that is over.
    #[cold]
    fn late_segment(
        &mut self,
        port: PortId,
        frame: &Frame,
        packet: &Packet,
        out: &mut Outgoing,
    ) -> Option<Fate> {
        let segment = segment_of(frame, packet);
        let answer =
            self.proxies.time_wait.on_segment(&packet.key, segment.flags, segment.seq, segment.payload)?;
        match answer {
            Answer::Nothing | Answer::Ignore => {}
            Answer::Ack(seq, ack) => {
                let control = Control { key: packet.key.reversed(), flags: tcp_flag::ACK, seq, ack };
                self.answer(port, frame, packet, &control, out);
            }
            Answer::Reopen(waiting) => {
                self.give_back_pair(waiting.port, packet.key.dst_port);
                self.proxies.reopened = Some((packet.key, waiting.seq));
                return None;
            }
        }
        Some(Fate::Done)
    }

    /// A segment for a virtual server of type standard that belongs to no connection: a handshake, or nothing of ours.
    ///
    /// # Errors
    /// Why it is refused.
    #[cold]
    pub(crate) fn knock(
        &mut self,
        item: &Virtual,
        port: PortId,
        frame: &mut Frame,
        packet: &Packet,
        out: &mut Outgoing,
    ) -> Result<Fate, DropReason> {
        if packet.class != Class::Tcp || item.proxy.is_none() {
            return Err(DropReason::NoVirtual);
        }
        if !is_checksum_right(frame, packet) {
            return Ok(self.dropped(DropReason::BadChecksum, item.id));
        }
        let flags = packet.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK | tcp_flag::RST);
        match flags {
            tcp_flag::SYN => self.on_syn(item, port, frame, packet, out),
            tcp_flag::ACK => self.on_handshake_ack(item, port, frame, packet),
            _ if flags & tcp_flag::RST != 0 => {
                let seq = segment_of(frame, packet).seq;
                let ended = self.proxies.handshakes.on_reset(&packet.key, seq);
                if ended { Ok(Fate::Done) } else { Err(DropReason::NoFlow) }
            }
            _ => Err(DropReason::NoFlow),
        }
    }

    /// A client asks. Nothing is taken from limits yet: what a flood would take, honest clients could not.
    fn on_syn(
        &mut self,
        item: &Virtual,
        port: PortId,
        frame: &Frame,
        packet: &Packet,
        out: &mut Outgoing,
    ) -> Result<Fate, DropReason> {
        self.admits(item)?;
        if !self.quota.has_room(Limited::Virtual(item.id)) {
            return Err(DropReason::ConnectionLimit);
        }
        let link = LinkId::new(port, packet.vlan);
        let caller = Caller { virtual_id: item.id, link, mac: source_of(frame) };
        let header = frame.bytes().get(usize::from(packet.l4)..).unwrap_or_default();
        let syn = Syn::read(header, packet.key.src.is_v4());
        let offer = self.offer(item, link, packet.key.src.is_v4());
        let is_new = self.proxies.handshakes.caller(&packet.key).is_none();
        if is_new && item.proxy.as_ref().is_some_and(|profile| profile.verified_accept) {
            return self.ask_first(item, packet, syn, caller, offer);
        }
        let before = self.proxies.reopened.take().filter(|(key, _)| *key == packet.key);
        let handshakes = &mut self.proxies.handshakes;
        let answer = match before {
            Some((key, sent)) => handshakes.on_syn_after(sent, &key, &syn, caller, &offer, self.now),
            None => handshakes.on_syn(&packet.key, &syn, caller, &offer, self.now),
        };
        self.count(item.id, MemberId::NONE, Direction::FromClient, 1, u64::from(packet.ip_len));
        self.send_syn_ack(&answer, out);
        Ok(Fate::Done)
    }

    fn offer(&self, item: &Virtual, link: LinkId, is_v4: bool) -> Offer {
        let headers = if is_v4 { 40 } else { 60 };
        let mtu = self.ports.get(usize::from(link.port().0)).map_or(1280, |facts| facts.mtu);
        let mss = mtu.saturating_sub(headers).min(item.mss_clamp.unwrap_or(u16::MAX));
        Offer { announced: self.proxies.engine.announced(), mss, timeout_ms: item.timeouts.handshake_ms }
    }

    pub(crate) fn send_syn_ack(&mut self, answer: &SynAck, out: &mut Outgoing) {
        let link = answer.caller.link;
        let source = self.ports[usize::from(link.port().0)].mac;
        let header = LinkHeader { destination: answer.caller.mac, source, vlan: link.vlan() };
        let frame = emit::syn_ack(&self.frames, header, answer);
        let _ = self.send_own(frame, link.port(), answer.caller.virtual_id, out);
    }

    /// What may complete a handshake: the connection is there from now on, and the segment is its first.
    fn on_handshake_ack(
        &mut self,
        item: &Virtual,
        port: PortId,
        frame: &Frame,
        packet: &Packet,
    ) -> Result<Fate, DropReason> {
        let segment = segment_of(frame, packet);
        let complete = self.proxies.handshakes.on_ack(&packet.key, segment.seq, segment.ack, self.now);
        let Some(complete) = complete else {
            // An old one, or no answer to our SYN-ACK: an honest client's comes again.
            return match self.proxies.handshakes.caller(&packet.key) {
                Some(_) => Ok(self.dropped(DropReason::NoFlow, item.id)),
                None => Err(DropReason::NoFlow),
            };
        };
        self.admits(item)?;
        self.take_from_virtual(item)?;
        let opened = self.open_proxy(item, port, frame, packet, &complete);
        let index = opened.inspect_err(|_| self.let_go_virtual(item))?;
        Ok(self.segment(index, port, frame, packet))
    }

    fn open_proxy(
        &mut self,
        item: &Virtual,
        port: PortId,
        frame: &Frame,
        packet: &Packet,
        complete: &Complete,
    ) -> Result<u32, DropReason> {
        let profile = item.proxy.clone().ok_or(DropReason::NoVirtual)?;
        let (ours, theirs) = ((packet.key.dst, packet.key.dst_port), (packet.key.src, packet.key.src_port));
        let options = profile.client_tcp.options();
        let opening = Opening { local: ours, remote: theirs, isn: complete.isn, options };
        let layer = match profile.accept_proxy_from.iter().any(|source| source.contains(theirs.0)) {
            true => Layer::Header,
            false => self.first_layer(&profile),
        };
        self.yield_waiting();
        let conn = self.proxies.engine.accept(&opening, &complete.agreed, self.now);
        let conn = conn.map_err(|_| DropReason::ProxiesFull)?;
        let Some(slot) = self.place_client(item, packet, conn, profile, layer) else {
            self.proxies.engine.release(conn);
            return Err(DropReason::ProxiesFull);
        };
        let way = match item.auto_last_hop {
            true => Way::LastHop(LinkId::new(port, packet.vlan), source_of(frame)),
            false => Way::By(NeighborRef::NONE),
        };
        self.proxies.ends.insert(End {
            conn,
            key: packet.key,
            slot,
            virtual_id: item.id,
            member_id: MemberId::NONE,
            is_client: true,
            way,
            epoch: self.epoch,
            path_mtu: u16::MAX,
            pair: None,
        });
        if let Some(counters) = self.counters.of_virtual(item.id) {
            counters.connections.open();
        }
        Ok(conn.index)
    }

    /// Puts a client's connection into its proxy: the one that has asked its member already, or a new one.
    fn place_client(
        &mut self,
        item: &Virtual,
        packet: &Packet,
        conn: ConnId,
        profile: Arc<ProxyProfile>,
        layer: Layer,
    ) -> Option<u32> {
        if let Some(mut verified) = self.take_verified(packet) {
            (verified.layer, verified.client, verified.is_counted) = (layer, Some(conn), true);
            let slot = verified.slot;
            self.proxies.slots.put(verified);
            return Some(slot);
        }
        self.proxies.slots.insert(Proxy {
            origin: packet.key,
            client: Some(conn),
            is_counted: true,
            ..Proxy::new(item.id, profile, layer, self.now)
        })
    }

    /// What a connection does first, once it is known who is behind it.
    pub(crate) fn first_layer(&self, profile: &ProxyProfile) -> Layer {
        match &profile.http {
            Some(_) => Layer::Http(Box::new(super::http::Http::new(self.now))),
            None => Layer::Stream(Stream::new(self.now, false)),
        }
    }

    /// Answers a segment to where it came from.
    fn answer(
        &mut self,
        port: PortId,
        frame: &Frame,
        packet: &Packet,
        control: &Control,
        out: &mut Outgoing,
    ) {
        let source = self.ports[usize::from(port.0)].mac;
        let header = LinkHeader { destination: source_of(frame), source, vlan: packet.vlan };
        let answer = emit::tcp_control(&self.frames, header, control);
        let _ = self.send_own(answer, port, VirtualId::NONE, out);
    }

    fn count_received(&self, end: &End, from: Direction, packets: u64, bytes: u64) {
        if let Some(counters) = self.counters.of_virtual(end.virtual_id) {
            let side = match from {
                Direction::FromClient => &counters.clientside,
                Direction::FromMember => &counters.serverside,
            };
            side.packets_in.add(packets);
            side.bytes_in.add(bytes);
        }
        if let Some(counters) = self.counters.of_member(end.member_id) {
            counters.serverside.packets_in.add(packets);
            counters.serverside.bytes_in.add(bytes);
        }
    }
}

pub(crate) fn source_of(frame: &Frame) -> Mac {
    Mac(frame.bytes().get(6..12).and_then(|bytes| bytes.first_chunk::<6>()).copied().unwrap_or_default())
}

/// True when the segment is what its sender sent, as far as its checksum tells (RFC 9293 section 3.1).
fn is_checksum_right(frame: &Frame, packet: &Packet) -> bool {
    if frame.offload.checksum != Checksum::Unchecked {
        return true;
    }
    let end = usize::from(packet.l3) + packet.ip_len as usize;
    let segment = frame.bytes().get(usize::from(packet.l4)..end).unwrap_or_default();
    let (src, dst) = (packet.key.src, packet.key.dst);
    let addresses = match src.is_v4() {
        true => sum(&src.v4_octets()) + sum(&dst.v4_octets()),
        false => sum(&src.v6_octets()) + sum(&dst.v6_octets()),
    };
    let pseudo = addresses + u64::from(protocol::TCP) + segment.len() as u64;
    fold(sum(segment) + pseudo) == 0xffff
}
