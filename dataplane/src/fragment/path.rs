//! The path of a fragment. Cold: a packet that is none pays nothing.

use super::table::{Arrival, EntryId, Transport};
use crate::address::Mac;
use crate::config::ids::{LinkId, MemberId, PortId, VirtualId};
use crate::flow::Direction;
use crate::flow::key::FlowKey;
use crate::frame::{Frame, Offload};
use crate::handoff::{Stray, Trail};
use crate::outgoing::Outgoing;
use crate::owner::Home;
use crate::packet::emit::IcmpError;
use crate::packet::fragment::{self, Cut, Fragment};
use crate::packet::parse::{self, Class, Found, Packet};
use crate::packet::{checksum, icmp, rewrite};
use crate::pipeline::{Fate, Pipeline};
use crate::query_flow::{ICMP_WORKER, is_echo};
use crate::verdict::DropReason;

/// A packet that is too big for its way out, and where that goes.
pub(crate) struct Oversized<'a> {
    pub packet: &'a Packet,
    /// The addresses and ports it leaves with.
    pub to: FlowKey,
    pub link: LinkId,
    pub mac: Mac,
    pub virtual_id: VirtualId,
    pub member_id: MemberId,
    pub direction: Direction,
}

/// What is to be done with the fragments of a packet.
enum Treatment {
    /// They go on by themselves.
    Pass,
    /// They are kept until the packet can be put together (`whole`).
    PutTogether,
    /// They are dropped.
    Refuse,
}

impl Pipeline {
    /// A fragment from the wire or from another worker: to the worker that puts its packet's fragments in order.
    #[cold]
    pub(crate) fn fragment(&mut self, port: PortId, frame: Frame, out: &mut Outgoing) {
        let fragment = match self.read_fragment(port, &frame) {
            Ok(fragment) => fragment,
            Err(reason) => return self.count_drop(reason, VirtualId::NONE),
        };
        if fragment.is_atomic() {
            return self.atomic_fragment(port, frame, &fragment.packet, out);
        }
        let key = &fragment.packet.key;
        let gatherer = self.owners.of_fragment(key.src, key.dst, fragment.id);
        if gatherer != self.worker {
            return self.carry_out(Fate::HandOver(gatherer), port, frame, out);
        }
        // Whoever handed it over asked for the fragment's worker; nobody has been asked about the packet.
        self.trail = Trail::default();
        self.gather(port, frame, &fragment, None, out);
    }

    /// A fragment of a flow of ours: another worker has seen the ports and says its whole key.
    #[cold]
    pub(crate) fn fragment_of_ours(&mut self, port: PortId, frame: Frame, key: &FlowKey, out: &mut Outgoing) {
        self.trail = ASKED;
        match self.read_fragment(port, &frame) {
            Ok(fragment) => self.gather(port, frame, &fragment, Some(transport_of(key)), out),
            Err(reason) => self.count_drop(reason, VirtualId::NONE),
        }
        self.trail = Trail::default();
    }

    /// Ends what has waited for too long for its first fragment.
    pub(crate) fn expire_fragments(&mut self) {
        if !self.fragments.is_empty() {
            self.fragments.expire(self.now);
            self.count_lost_fragments();
        }
    }

    /// A packet that is larger than the MTU of its way out: cut where that is allowed (RFC 791 section 3.2; RFC 4787
    /// REQ-13), else answered. Cut packets have an id of ours wherever their addresses are ours.
    #[cold]
    pub(crate) fn forward_oversized(
        &mut self,
        port: PortId,
        frame: &mut Frame,
        way: &Oversized,
        out: &mut Outgoing,
    ) -> Fate {
        let facts = self.ports[usize::from(way.link.port().0)];
        let packet = way.packet;
        if frame.offload.segmentation.is_some() || !fragment::may_cut(frame.bytes(), packet.l3) {
            let error = IcmpError::TooBig(facts.mtu);
            return self.refuse_with_icmp(port, frame, packet, DropReason::TooBig, error, out);
        }
        checksum::finish(frame);
        rewrite::translate(frame, packet, &way.to);
        frame.truncate(usize::from(packet.l3) + packet.ip_len as usize);
        let header = rewrite::LinkHeader { destination: way.mac, source: facts.mac, vlan: way.link.vlan() };
        if !rewrite::set_link_header(frame, packet.l3, true, header) {
            return self.dropped(DropReason::NoFrame, way.virtual_id);
        }
        self.give_id(frame, &packet.key);
        self.count(way.virtual_id, way.member_id, way.direction, 1, u64::from(packet.ip_len));
        self.send_in_pieces(frame, way.link.port(), facts.mtu, way.virtual_id, out)
    }

    pub(super) fn send_in_pieces(
        &mut self,
        frame: &Frame,
        port: PortId,
        mtu: u16,
        virtual_id: VirtualId,
        out: &mut Outgoing,
    ) -> Fate {
        let Some(cut) = Cut::new(frame, mtu) else {
            return self.dropped(DropReason::TooBig, virtual_id);
        };
        for index in 0..cut.count() {
            let piece = cut.piece(frame, index, &self.frames);
            let _ = self.send_own(piece, port, virtual_id, out);
        }
        Fate::Done
    }

    pub(super) fn read_fragment(&self, port: PortId, frame: &Frame) -> Result<Fragment, DropReason> {
        let mut packet = Packet::BLANK;
        let mac = self.ports[usize::from(port.0)].mac;
        match parse::parse_into(&mut packet, frame.bytes(), mac) {
            // Nobody can finish a checksum over a part, or cut it again as it was.
            Found::Fragment if has_open_work(&frame.offload) => Err(DropReason::FragmentMalformed),
            Found::Fragment => fragment::read(&packet, frame.bytes()),
            Found::Nothing(reason) => Err(reason),
            Found::Ip | Found::Arp => Err(DropReason::Fragment),
        }
    }

    /// A whole packet with a fragment header goes as if it had none, but keeps it (RFC 6946 section 4).
    fn atomic_fragment(&mut self, port: PortId, mut frame: Frame, packet: &Packet, out: &mut Outgoing) {
        let hash = self.flows.hash(&packet.key);
        let fate = if packet.class == Class::Icmp {
            let kind = frame.bytes().get(usize::from(packet.l4)).copied().unwrap_or_default();
            // Neighbour discovery never comes in fragments (RFC 6980 section 5).
            if matches!(kind, 133..=137) && !packet.key.src.is_v4() {
                self.dropped(DropReason::MalformedNeighbor, VirtualId::NONE)
            } else {
                self.icmp(port, &mut frame, packet, out)
            }
        } else {
            match self.flows.find(&packet.key, hash) {
                Some((id, direction)) => self.forward(port, &mut frame, packet, id, direction, out),
                None => self.first_packet(port, &mut frame, packet, out),
            }
        };
        self.carry_out(fate, port, frame, out);
    }

    fn gather(
        &mut self,
        port: PortId,
        frame: Frame,
        fragment: &Fragment,
        told: Option<Transport>,
        out: &mut Outgoing,
    ) {
        let arrival = self.fragments.arrive(fragment, told, self.now);
        self.count_lost_fragments();
        match arrival {
            Err(reason) => self.count_drop(reason, VirtualId::NONE),
            Ok(Arrival::Early(id)) => {
                if let Err(reason) = self.fragments.hold(id, port, frame) {
                    self.count_drop(reason, VirtualId::NONE);
                }
            }
            Ok(Arrival::Part(id)) => self.keep_part(id, port, frame, out),
            Ok(Arrival::Known(id)) => match self.treatment(&frame, fragment) {
                Treatment::Pass => self.pass_fragments(id, told.is_some(), port, frame, fragment, out),
                Treatment::PutTogether => self.keep_first_part(id, port, frame, out),
                Treatment::Refuse => {
                    self.fragments.refuse(id);
                    self.count_lost_fragments();
                    self.count_drop(DropReason::Fragment, VirtualId::NONE);
                }
            },
        }
    }

    /// Forwards a fragment, and those that have waited for it.
    fn pass_fragments(
        &mut self,
        id: EntryId,
        at_home: bool,
        port: PortId,
        frame: Frame,
        fragment: &Fragment,
        out: &mut Outgoing,
    ) {
        self.pass_fragment(id, at_home, port, frame, fragment, out);
        while let Some((port, frame)) = self.fragments.take_waiting(id) {
            if let Ok(fragment) = self.read_fragment(port, &frame) {
                self.pass_fragment(id, at_home, port, frame, &fragment, out);
            }
        }
        self.fragments.forget_if_whole(id);
    }

    /// What a fragment whose packet's first has come says. Of ICMP only echo that is not for us passes by itself: what we
    /// answer has to be whole, and so has an error, whose checksum is proven before anybody acts on it (RFC 5508 REQ-3).
    fn treatment(&self, frame: &Frame, fragment: &Fragment) -> Treatment {
        let packet = &fragment.packet;
        let (src, dst) = (packet.key.src, packet.key.dst);
        if packet.class != Class::Icmp {
            return Treatment::Pass;
        }
        if src.is_unspecified() || dst.is_multicast() {
            return Treatment::Refuse;
        }
        let kind = frame.bytes().get(usize::from(packet.l4)).copied().unwrap_or_default();
        let answers = || self.snapshot.owned(dst).is_some_and(|owned| owned.echo);
        match icmp::echo_key(frame.bytes(), packet) {
            Some((_, true)) if answers() => Treatment::PutTogether,
            Some(_) => Treatment::Pass,
            None if icmp::is_error(src.is_v4(), kind) => Treatment::PutTogether,
            None => Treatment::Refuse,
        }
    }

    /// Forwards a fragment whose packet's ports are known through its flow, wherever that is.
    fn pass_fragment(
        &mut self,
        id: EntryId,
        at_home: bool,
        port: PortId,
        mut frame: Frame,
        fragment: &Fragment,
        out: &mut Outgoing,
    ) {
        let mut packet = fragment.packet;
        let Transport { src_port, dst_port, protocol } = self.fragments.transport(id);
        packet.key = FlowKey { src_port, dst_port, protocol, ..packet.key };
        let found = self.flows.find(&packet.key, self.flows.hash(&packet.key));
        let home = self.home_of_fragmented(port, &packet);
        let may_go_on = !at_home || self.was_asked_for_passage(&packet.key);
        if found.is_none() && may_go_on && home != self.worker {
            let stray = Stray::Fragment { port, frame, key: packet.key };
            return match self.handoff.give(home, stray) {
                Ok(()) => self.counters.handed_over.add(1),
                Err(_) => self.count_drop(DropReason::HandoffFull, VirtualId::NONE),
            };
        }
        self.fragment_at_hand = Some(id);
        let fate = match found {
            Some((flow, direction)) => self.forward(port, &mut frame, &packet, flow, direction, out),
            None if self.snapshot.is_martian(packet.key.src, LinkId::new(port, packet.vlan)) => {
                self.dropped(DropReason::MartianSource, VirtualId::NONE)
            }
            None if packet.class == Class::Icmp => self.first_echo(port, &mut frame, &packet, out),
            None if fragment.is_first() || self.fragments.way(id).is_some() => {
                self.first_packet(port, &mut frame, &packet, out)
            }
            None => self.dropped(DropReason::FragmentNoFlow, VirtualId::NONE),
        };
        if matches!(fate, Fate::Send(_) | Fate::Wait(..)) {
            self.give_id(&mut frame, &packet.key);
        }
        self.fragment_at_hand = None;
        match fate {
            // Only while an apply is on its way can two workers name each other.
            Fate::HandOver(_) | Fate::Misdirected(_) | Fate::Seek(..) => {
                self.count_drop(DropReason::HandoffFull, VirtualId::NONE);
            }
            fate => self.carry_out(fate, port, frame, out),
        }
    }

    /// Gives a translated packet an id that no other packet between its new addresses has. Fragments of one packet
    /// get the same.
    pub(super) fn give_id(&mut self, frame: &mut Frame, before: &FlowKey) {
        let Some((src, dst)) = fragment::addresses(frame.bytes()) else { return };
        if (src, dst) == (before.src, before.dst) {
            return;
        }
        let protocol = before.protocol;
        let ids = &mut self.identifications;
        let id = match self.fragment_at_hand {
            Some(entry) => self.fragments.new_id(entry, || ids.next(src, dst, protocol)),
            None => ids.next(src, dst, protocol),
        };
        fragment::set_id(frame.bytes_mut(), id);
    }

    /// The worker that forwards the fragments of this packet's flow when none here knows the flow: the one that a
    /// whole packet belongs to, or that has to be asked first.
    fn home_of_fragmented(&self, port: PortId, packet: &Packet) -> usize {
        if is_echo(&packet.key) {
            return ICMP_WORKER;
        }
        let (snapshot, link) = (&self.snapshot, LinkId::new(port, packet.vlan));
        let matched = snapshot.match_virtual(&packet.key, link);
        let matched = matched.filter(|item| snapshot.may_take(item, packet.key.dst));
        if let Some(owner) = self.passage_to_ask(&packet.key) {
            return owner;
        }
        if self.one_to_one(matched, packet, link).is_some() {
            return self.owner_of_passage(&packet.key);
        }
        match self.home(matched, &packet.key) {
            Home::Here(_) => self.worker,
            home => home.worker(),
        }
    }

    /// True at the worker that is asked before the packet's home, as it would own it if it were one of a passage.
    fn was_asked_for_passage(&self, key: &FlowKey) -> bool {
        let snapshot = &self.snapshot;
        let may_be =
            snapshot.nat_of_origin(key.src).is_some() || snapshot.nat_of_translation(key.dst).is_some();
        may_be && !is_echo(key) && self.owner_of_passage(key) == self.worker
    }

    pub(super) fn count_lost_fragments(&mut self) {
        let lost = self.fragments.take_lost();
        for (reason, count) in [
            (DropReason::FragmentTimeout, lost.timeout),
            (DropReason::FragmentOverlap, lost.overlap),
            (DropReason::FragmentsFull, lost.full),
            (DropReason::Fragment, lost.refused),
        ] {
            self.counters.of_drop(reason).add(count);
        }
    }
}

/// The trail of a fragment that has come from the worker where its packet's fragments meet.
const ASKED: Trail = Trail { hops: 1, sought: 0 };

fn transport_of(key: &FlowKey) -> Transport {
    Transport { src_port: key.src_port, dst_port: key.dst_port, protocol: key.protocol }
}

fn has_open_work(offload: &Offload) -> bool {
    offload.segmentation.is_some() || matches!(offload.checksum, crate::frame::Checksum::Partial { .. })
}
