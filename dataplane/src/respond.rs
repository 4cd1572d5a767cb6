//! What sluice answers by itself: ARP and neighbour discovery, echo, refusals; and what it asks and announces.

use std::time::Duration;

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, Icmpv6Message, Icmpv6Packet, NdiscNeighborFlags, NdiscRepr,
};

use crate::address::{Address, Mac};
use crate::config::ids::{LinkId, PortId, VirtualId};
use crate::config::snapshot::Snapshot;
use crate::frame::Frame;
use crate::neighbor::{Event, Word};
use crate::outgoing::Outgoing;
use crate::packet::checksum::{fold, sum};
use crate::packet::emit::{self, Arp, IcmpError};
use crate::packet::icmp;
use crate::packet::parse::{Class, Packet, protocol, tcp_flag};
use crate::packet::rewrite::{self, LinkHeader};
use crate::pipeline::{Fate, LOOK_AHEAD, Pipeline};
use crate::route::NextHop;
use crate::verdict::DropReason;

impl Pipeline {
    /// An ARP message: answer it if it asks for us, learn from it if it answers us (RFC 826).
    #[cold]
    pub(crate) fn arp(&mut self, link: LinkId, frame: &Frame, offset: u16, out: &mut Outgoing) -> Fate {
        let message = frame.bytes().get(usize::from(offset)..).unwrap_or_default();
        let parsed = ArpPacket::new_checked(message).and_then(|packet| ArpRepr::parse(&packet));
        let Ok(ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        }) = parsed
        else {
            return self.dropped(DropReason::MalformedNeighbor, VirtualId::NONE);
        };
        let mac = Mac(source_hardware_addr.0);
        let sender = Address::v4(source_protocol_addr.octets());
        let target = Address::v4(target_protocol_addr.octets());
        let probe = sender.is_unspecified();
        if mac.is_group() || (sender.is_multicast() && !probe) {
            return self.dropped(DropReason::MalformedNeighbor, VirtualId::NONE);
        }
        if self.is_conflict(sender, link, mac) {
            self.defend(sender, link);
            return self.dropped(DropReason::AddressConflict, VirtualId::NONE);
        }
        let ours = self.snapshot.answers_for(target, link);
        if !probe {
            self.learn(NextHop { link, address: sender }, mac, Word::Arp { asks: ours }, out);
        }
        match operation {
            ArpOperation::Request if ours => {
                let reply = Arp { is_request: false, sender: target, target: sender, target_mac: mac };
                let answer = emit::arp(&self.frames, self.header(link, mac), reply);
                self.send_own(answer, link.port(), VirtualId::NONE, out)
            }
            ArpOperation::Reply if ours => Fate::Done,
            _ => self.dropped(DropReason::NeighborNotOurs, VirtualId::NONE),
        }
    }

    /// An ICMP message: echo to us is answered, neighbour discovery handled, the rest dropped.
    #[cold]
    pub(crate) fn icmp(
        &mut self,
        port: PortId,
        frame: &mut Frame,
        packet: &Packet,
        out: &mut Outgoing,
    ) -> Fate {
        let link = LinkId::new(port, packet.vlan);
        let is_v4 = packet.key.src.is_v4();
        let kind = frame.bytes().get(usize::from(packet.l4)).copied().unwrap_or_default();
        if !is_v4 && matches!(kind, 135 | 136) {
            return self.neighbor_discovery(link, frame, packet, out);
        }
        if self.snapshot.is_martian(packet.key.src, link) {
            return self.dropped(DropReason::MartianSource, VirtualId::NONE);
        }
        if icmp::is_error(is_v4, kind) {
            let fate = self.icmp_error_received(port, frame, packet, out);
            return self.cut_to_fit(fate, frame, &packet.key, out);
        }
        if packet.to_group || packet.key.src.is_unspecified() {
            return self.dropped(DropReason::UnwantedIcmp, VirtualId::NONE);
        }
        let echoes = self.snapshot.owned(packet.key.dst).is_some_and(|owned| owned.echo);
        if !echoes || kind != if is_v4 { 8 } else { 128 } {
            return self.echo_through(port, frame, packet, out);
        }
        let from = source_mac(frame);
        if !emit::answer_echo(frame, packet) {
            return self.dropped(DropReason::UnwantedIcmp, VirtualId::NONE);
        }
        let header = self.header(link, from);
        if !rewrite::set_link_header(frame, packet.l3, is_v4, header) {
            return self.dropped(DropReason::NoFrame, VirtualId::NONE);
        }
        self.cut_to_fit(Fate::Send(port), frame, &packet.key, out)
    }

    /// A neighbour solicitation or advertisement, checked as RFC 4861 sections 7.1.1 and 7.1.2 ask.
    fn neighbor_discovery(
        &mut self,
        link: LinkId,
        frame: &Frame,
        packet: &Packet,
        out: &mut Outgoing,
    ) -> Fate {
        let Some(repr) = parse_ndisc(frame, packet) else {
            return self.dropped(DropReason::MalformedNeighbor, VirtualId::NONE);
        };
        match repr {
            NdiscRepr::NeighborSolicit { target_addr, lladdr } => {
                let target = Address::v6(target_addr.octets());
                let mac = lladdr.and_then(mac_of);
                self.solicited(link, packet, target, mac.unwrap_or(source_mac(frame)), mac.is_some(), out)
            }
            NdiscRepr::NeighborAdvert { target_addr, lladdr, flags } => {
                let target = Address::v6(target_addr.octets());
                let mac = lladdr.and_then(mac_of).unwrap_or(source_mac(frame));
                if self.is_conflict(target, link, mac) {
                    self.defend(target, link);
                    return self.dropped(DropReason::AddressConflict, VirtualId::NONE);
                }
                let has = |flag| flags.contains(flag);
                let (solicited, overrides) =
                    (has(NdiscNeighborFlags::SOLICITED), has(NdiscNeighborFlags::OVERRIDE));
                let word = Word::Advertisement { solicited: solicited && !packet.to_group, overrides };
                self.learn(NextHop { link, address: target }, mac, word, out);
                Fate::Done
            }
            _ => self.dropped(DropReason::MalformedNeighbor, VirtualId::NONE),
        }
    }

    fn solicited(
        &mut self,
        link: LinkId,
        packet: &Packet,
        target: Address,
        mac: Mac,
        has_option: bool,
        out: &mut Outgoing,
    ) -> Fate {
        let ours = self.snapshot.answers_for(target, link);
        let probe = packet.key.src.is_unspecified();
        if probe && has_option {
            // RFC 4861 section 7.1.1.
            return self.dropped(DropReason::MalformedNeighbor, VirtualId::NONE);
        }
        if has_option {
            self.learn(
                NextHop { link, address: packet.key.src },
                mac,
                Word::Solicitation { asks: ours },
                out,
            );
        }
        if !ours {
            return self.dropped(DropReason::NeighborNotOurs, VirtualId::NONE);
        }
        // A probe for an address of ours is answered to all nodes (RFC 4861 section 7.2.4).
        let (to, to_mac) =
            if probe { (ALL_NODES, Mac::of_multicast_v6(ALL_NODES)) } else { (packet.key.src, mac) };
        let header = self.header(link, to_mac);
        let answer = emit::neighbor_advertisement(&self.frames, header, target, to, !probe);
        self.send_own(answer, link.port(), VirtualId::NONE, out)
    }

    /// Refuses a packet: RST for TCP, port unreachable for UDP, at a bounded rate. Always a counted drop.
    pub(crate) fn refuse(
        &mut self,
        port: PortId,
        frame: &Frame,
        packet: &Packet,
        reason: DropReason,
        virtual_id: VirtualId,
        out: &mut Outgoing,
    ) -> Fate {
        let fate = self.dropped(reason, virtual_id);
        if reason == DropReason::NoRoute && self.only_passes(packet) {
            self.answer_with_icmp(port, frame, packet, IcmpError::NetUnreachable, out);
            return fate;
        }
        let silent = match reason {
            DropReason::NoVirtual => !self.snapshot.parts().settings.reject_unmatched,
            // It may come again in a moment.
            DropReason::SnatUnsettled => true,
            _ => false,
        };
        if silent || packet.tcp_flags & tcp_flag::RST != 0 {
            return fate;
        }
        if !self.rejects.take(self.now) {
            self.counters.rejects_limited.add(1);
            return fate;
        }
        let link = LinkId::new(port, packet.vlan);
        let header = self.header(link, source_mac(frame));
        let answer = if packet.class == Class::Tcp {
            emit::tcp_control(&self.frames, header, &emit::reset_for(packet, frame.bytes()))
        } else {
            self.icmp_error(link, header, packet, frame, IcmpError::PortUnreachable)
        };
        self.counters.rejects_sent.add(1);
        let _ = self.send_own(answer, port, VirtualId::NONE, out);
        fate
    }

    /// Drops a packet and tells its sender why by an ICMP error, at a bounded rate.
    #[cold]
    pub(crate) fn refuse_with_icmp(
        &mut self,
        port: PortId,
        frame: &Frame,
        packet: &Packet,
        reason: DropReason,
        error: IcmpError,
        out: &mut Outgoing,
    ) -> Fate {
        let fate = self.dropped(reason, VirtualId::NONE);
        self.answer_with_icmp(port, frame, packet, error, out);
        fate
    }

    /// Tells the sender of a packet that has been dropped why, at a bounded rate.
    #[cold]
    pub(crate) fn answer_with_icmp(
        &mut self,
        port: PortId,
        frame: &Frame,
        packet: &Packet,
        error: IcmpError,
        out: &mut Outgoing,
    ) {
        if is_never_answered(frame, packet) {
            return;
        }
        if !self.icmp_errors.take(self.now) {
            return self.counters.rejects_limited.add(1);
        }
        let link = LinkId::new(port, packet.vlan);
        let header = self.header(link, source_mac(frame));
        let answer = self.icmp_error(link, header, packet, frame, error);
        self.counters.rejects_sent.add(1);
        let _ = self.send_own(answer, port, VirtualId::NONE, out);
    }

    /// True for a datagram that is for somebody else: no virtual address of ours can answer it.
    fn only_passes(&self, packet: &Packet) -> bool {
        packet.class != Class::Tcp && self.snapshot.owned(packet.key.dst).is_none()
    }

    /// From the address that was asked for when it is ours and the end of the way, else from ours on that link.
    fn icmp_error(
        &self,
        link: LinkId,
        header: LinkHeader,
        packet: &Packet,
        frame: &Frame,
        error: IcmpError,
    ) -> Option<Frame> {
        let at_the_end = matches!(error, IcmpError::PortUnreachable | IcmpError::ProtocolUnreachable);
        let asked = self.snapshot.owned(packet.key.dst).filter(|_| at_the_end).map(|_| packet.key.dst);
        let source = asked
            .or_else(|| self.snapshot.self_ip_towards(link, packet.key.src))
            .or_else(|| self.snapshot.owned(packet.key.dst).map(|_| packet.key.dst))?;
        let end = usize::from(packet.l3) + packet.ip_len as usize;
        let offender = frame.bytes().get(usize::from(packet.l3)..end)?;
        let error = match (error, asked) {
            (IcmpError::PortUnreachable, None) => IcmpError::HostUnreachable,
            (error, _) => error,
        };
        emit::icmp_error(&self.frames, header, source, packet.key.src, error, offender)
    }

    /// Learns of a neighbour, and tells the other workers, who have not heard it.
    fn learn(&mut self, hop: NextHop, mac: Mac, mut word: Word, out: &mut Outgoing) {
        if let Word::Arp { asks } | Word::Solicitation { asks } = &mut word {
            *asks &= self.snapshot.is_on_link(hop.address, hop.link);
        }
        self.learn_here(hop, mac, word, out);
        self.handoff.tell_all(hop, mac, word);
    }

    /// Learns of a neighbour. What has waited for it goes at once, before packets that come behind.
    #[cold]
    pub(crate) fn learn_here(&mut self, hop: NextHop, mac: Mac, word: Word, out: &mut Outgoing) {
        self.neighbors.learn(hop, mac, word, self.now);
        while self.run_neighbor_events(out) {}
    }

    /// Does up to [`LOOK_AHEAD`] things that the neighbour table asks for. True when there were any.
    pub fn run_neighbor_events(&mut self, out: &mut Outgoing) -> bool {
        let mut done = 0;
        while done < LOOK_AHEAD {
            let Some(event) = self.neighbors.poll_events() else { break };
            done += 1;
            match event {
                Event::Solicit { hop, unicast } => self.solicit(hop, unicast, out),
                Event::Send { mut frame, link, mac } => {
                    if let Some(destination) = frame.bytes_mut().first_chunk_mut::<6>() {
                        *destination = mac.0;
                    }
                    let _ = self.send_own(Some(frame), link.port(), VirtualId::NONE, out);
                }
                Event::Drop(frame) => self.drop_unresolved(frame, out),
            }
        }
        done > 0
    }

    fn solicit(&mut self, hop: NextHop, unicast: Option<Mac>, out: &mut Outgoing) {
        let Some(source) = self.snapshot.self_ip_towards(hop.link, hop.address) else { return };
        let frame = if hop.address.is_v4() {
            let ask =
                Arp { is_request: true, sender: source, target: hop.address, target_mac: Mac::default() };
            emit::arp(&self.frames, self.header(hop.link, unicast.unwrap_or(Mac::BROADCAST)), ask)
        } else {
            let group = Mac::of_multicast_v6(hop.address.solicited_node());
            let header = self.header(hop.link, unicast.unwrap_or(group));
            emit::neighbor_solicitation(&self.frames, header, source, hop.address)
        };
        let _ = self.send_own(frame, hop.link.port(), VirtualId::NONE, out);
    }

    /// Puts every address of ours that `which` accepts on the list of what is to be announced, and every group that IPv6
    /// neighbours ask for them in.
    pub(crate) fn announce_all(&mut self, which: impl Fn((Address, LinkId)) -> bool) {
        if self.worker == 0 {
            let snapshot = std::sync::Arc::clone(&self.snapshot);
            let all = snapshot.groups().iter().copied().chain(snapshot.announced());
            self.announcements.extend(all.filter(|&one| which(one)));
        }
    }

    /// Says now and then which groups we listen to, so that switches which look at that do not forget us. It is said
    /// unasked: who asks uses extension headers, which nothing else here needs.
    pub(crate) fn report_groups(&mut self) {
        let due = *self.groups_due.get_or_insert(self.now + GROUPS_INTERVAL);
        if self.worker == 0 && self.now >= due {
            self.groups_due = None;
            let snapshot = std::sync::Arc::clone(&self.snapshot);
            self.announcements.extend(snapshot.groups());
        }
    }

    /// Announces what is new in the configuration compared with `before`.
    pub(crate) fn announce_new(&mut self, before: &Snapshot) {
        self.announce_all(|(address, link)| match address.is_multicast() {
            true => !before.listens_to(address, link),
            false => !before.answers_for(address, link),
        });
    }

    /// Announces an address of ours that another host uses, not so often that two who both believe it theirs would
    /// answer each other for ever (RFC 5227 section 2.4, c).
    fn defend(&mut self, address: Address, link: LinkId) {
        let last = self.defended.get(&(address, link));
        if last.is_none_or(|&last| self.now.since(last) >= DEFEND_INTERVAL) {
            self.defended.insert((address, link), self.now);
            self.announcements.push_back((address, link));
        }
    }

    /// Sends some of the announcements that are due: gratuitous ARP (RFC 5227 section 3), unsolicited advertisements
    /// (RFC 4861 section 7.2.6) and reports of groups (RFC 3810 section 5.2). True when there are more.
    pub fn announce_some(&mut self, out: &mut Outgoing) -> bool {
        for _ in 0..ANNOUNCED_A_TURN {
            let Some((address, link)) = self.announcements.pop_front() else { return false };
            if !address.is_multicast() && !self.snapshot.answers_for(address, link) {
                continue;
            }
            let frame = if address.is_multicast() {
                let header = self.header(link, Mac::of_multicast_v6(emit::MLD_ROUTERS));
                emit::listener_report(&self.frames, header, address)
            } else if address.is_v4() {
                let news =
                    Arp { is_request: true, sender: address, target: address, target_mac: Mac::default() };
                emit::arp(&self.frames, self.header(link, Mac::BROADCAST), news)
            } else {
                let header = self.header(link, Mac::of_multicast_v6(ALL_NODES));
                emit::neighbor_advertisement(&self.frames, header, address, ALL_NODES, false)
            };
            let _ = self.send_own(frame, link.port(), VirtualId::NONE, out);
        }
        true
    }

    /// Sends a frame of our own making.
    pub(crate) fn send_own(
        &mut self,
        frame: Option<Frame>,
        port: PortId,
        virtual_id: VirtualId,
        out: &mut Outgoing,
    ) -> Fate {
        let Some(frame) = frame else { return self.dropped(DropReason::NoFrame, virtual_id) };
        match out.push(port, frame) {
            Ok(()) => Fate::Done,
            Err(reason) => self.dropped(reason, virtual_id),
        }
    }

    fn header(&self, link: LinkId, destination: Mac) -> LinkHeader {
        LinkHeader { destination, source: self.ports[usize::from(link.port().0)].mac, vlan: link.vlan() }
    }

    fn is_conflict(&self, address: Address, link: LinkId, mac: Mac) -> bool {
        self.snapshot.answers_for(address, link) && self.ports.iter().all(|port| port.mac != mac)
    }
}

/// No error is sent about an ICMP error, and none about any but the first fragment (RFC 1812 section 4.3.2.7; RFC 4443
/// section 2.4, e).
fn is_never_answered(frame: &Frame, packet: &Packet) -> bool {
    let kind = || frame.bytes().get(usize::from(packet.l4)).copied().unwrap_or_default();
    let is_v4 = packet.key.src.is_v4();
    match packet.class {
        Class::Fragment => is_v4,
        Class::Icmp => icmp::is_error(is_v4, kind()),
        Class::Tcp | Class::Udp | Class::Other => false,
    }
}

fn parse_ndisc<'f>(frame: &'f Frame, packet: &Packet) -> Option<NdiscRepr<'f>> {
    let end = usize::from(packet.l3) + packet.ip_len as usize;
    let message = frame.bytes().get(usize::from(packet.l4)..end)?;
    let pseudo = sum(&packet.key.src.v6_octets()) + sum(&packet.key.dst.v6_octets());
    let total = sum(message) + pseudo + u64::from(protocol::ICMPV6) + message.len() as u64;
    if packet.ttl != 255 || message.len() < 24 || message[1] != 0 || fold(total) != 0xffff {
        return None;
    }
    let icmp = Icmpv6Packet::new_checked(message).ok()?;
    let is_ours = matches!(icmp.msg_type(), Icmpv6Message::NeighborSolicit | Icmpv6Message::NeighborAdvert);
    let repr = if is_ours { NdiscRepr::parse(&icmp).ok()? } else { return None };
    let (NdiscRepr::NeighborSolicit { target_addr: target, .. }
    | NdiscRepr::NeighborAdvert { target_addr: target, .. }) = repr
    else {
        return None;
    };
    (!Address::v6(target.octets()).is_multicast()).then_some(repr)
}

fn mac_of(raw: smoltcp::wire::RawHardwareAddress) -> Option<Mac> {
    raw.as_bytes().first_chunk::<6>().map(|bytes| Mac(*bytes)).filter(|mac| !mac.is_group())
}

/// Who brought a frame.
pub(crate) fn source_mac(frame: &Frame) -> Mac {
    Mac(frame.bytes().get(6..12).and_then(|bytes| bytes.first_chunk::<6>()).copied().unwrap_or_default())
}

/// ff02::1
const ALL_NODES: Address = Address { high: 0xff02 << 48, low: 1 };
const ANNOUNCED_A_TURN: usize = 32;
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// Well below what a switch remembers a listener for (RFC 3810 section 9.4: 260 s).
const GROUPS_INTERVAL: Duration = Duration::from_secs(60);
