//! The members: they answer whoever asks, and say what must never reach them.

use std::collections::{BTreeMap, BTreeSet};

use sluice_dataplane::address::Address;
use sluice_dataplane::config::snapshot::{Parts, Snat};

use super::client::{Clients, Ends, datagram, is_nobody, number_of, packet_tag};
use super::endpoint::{Break, Closing, Endpoint, Manners, Out, Side};
use super::schedule::{MemberMood, Plan};
use super::setup;
use super::wire::{self, ACK, End, Packet, RST, SYN, TCP, WINDOW};
use crate::world::INTERNAL_MAC;

pub struct Members {
    /// By member's end, source's end and protocol.
    ends: BTreeMap<Ends, MemberEnd>,
    damaging: bool,
    /// Virtual servers that keep clients' ports have always done so.
    keeps_ports: bool,
    /// By pool: everybody who has ever been in it.
    pools: Vec<BTreeSet<End>>,
    parts: Parts,
    /// A source that serves a second connection: to be held against the flows there are.
    pub suspects: Vec<Suspect>,
}

struct MemberEnd {
    order: u64,
    tcp: Endpoint,
    history: Vec<u16>,
}

/// `source` towards `member` has a new connection, while its old one is not known to have ended.
#[derive(Debug, Clone)]
pub struct Suspect {
    pub client: End,
    pub asked: End,
    pub source: End,
    pub member: End,
}

/// What a member sends: a packet of its connection, or a whole frame.
pub enum Answer {
    Packet(Packet),
    Frame(Vec<u8>),
}

impl Members {
    pub fn new(plan: &Plan) -> Self {
        let parts = &plan.parts;
        let of = |pool: &sluice_dataplane::config::snapshot::Pool| {
            pool.members.iter().map(|member| (member.address, member.port)).collect()
        };
        Self {
            ends: BTreeMap::new(),
            damaging: plan.weather.corrupts > 0,
            keeps_ports: !plan.turning,
            pools: parts.pools.iter().map(of).collect(),
            parts: parts.clone(),
            suspects: Vec::new(),
        }
    }

    /// Another member has come into a pool.
    pub fn joins(&mut self, pool: usize, end: End) {
        self.pools[pool].insert(end);
    }

    /// A packet has reached a member: its answers, and the key of the end that may have to retransmit.
    ///
    /// # Errors
    /// What must not happen.
    pub fn hear(&mut self, packet: &Packet, clients: &Clients, now: u64) -> Result<Vec<Answer>, String> {
        let tag = packet_tag(packet);
        self.check_source(packet, tag, clients)?;
        if packet.protocol == TCP {
            self.hear_tcp(packet, tag, clients, now)
        } else {
            Ok(reply(packet, clients))
        }
    }

    /// What the end by this key retransmits now.
    pub fn on_time(&mut self, key: Ends, now: u64) -> Vec<Packet> {
        let Some(end) = self.ends.get_mut(&key) else { return Vec::new() };
        packets(key, end.tcp.on_time(now))
    }

    /// When to come back to it, if that has not been said yet.
    pub fn wind(&mut self, key: Ends) -> Option<u64> {
        self.ends.get_mut(&key).and_then(|end| end.tcp.wind())
    }

    fn hear_tcp(
        &mut self,
        packet: &Packet,
        tag: u16,
        clients: &Clients,
        now: u64,
    ) -> Result<Vec<Answer>, String> {
        let key = (packet.dst, packet.src, TCP);
        let client = clients.by_tag(tag);
        let mood = client.map_or(MemberMood::Answers, |client| client.plan.member);
        if mood == MemberMood::Silent {
            return Ok(Vec::new());
        }
        if packet.flags & (SYN | RST) == SYN && mood == MemberMood::Refuses {
            return Ok(vec![Answer::Packet(reset(packet))]);
        }
        if packet.flags & SYN != 0 {
            self.take_in(key, tag, clients);
        }
        let Some(end) = self.ends.get_mut(&key) else {
            let resets = packet.flags & RST == 0;
            return Ok(resets.then(|| Answer::Packet(reset(packet))).into_iter().collect());
        };
        if end.tcp.tag != tag {
            return end.stranger(packet, tag, clients);
        }
        let out = end.tcp.hear(packet.flags, packet.seq, packet.ack, &packet.payload, now)?;
        Ok(packets(key, out).into_iter().map(Answer::Packet).collect())
    }

    /// A SYN begins a connection, unless it is a late one of an older connection.
    fn take_in(&mut self, key: Ends, tag: u16, clients: &Clients) {
        let client = clients.by_tag(tag);
        let order = client.map_or(0, |client| client.order);
        let manners = client.map_or(PLAIN, |client| client.plan.answer);
        let mut history = Vec::new();
        if let Some(old) = self.ends.get(&key) {
            if old.tcp.tag == tag || old.order > order {
                return;
            }
            let ends = |tag| clients.by_tag(tag).and_then(|client| client.ends);
            if let (Some(old), Some(new)) = (ends(old.tcp.tag), ends(tag))
                && old != new
            {
                self.suspects.push(Suspect { client: old.0, asked: old.1, source: key.1, member: key.0 });
            }
            history.clone_from(&old.history);
        }
        history.push(tag);
        let name = key.0.0.v4_octets()[3];
        self.ends
            .insert(key, MemberEnd { order, tcp: Endpoint::new(tag, Side::Member, name, manners), history });
    }

    /// Members see clients' packets from the right addresses, and are who the client asked for.
    fn check_source(&self, packet: &Packet, tag: u16, clients: &Clients) -> Result<(), String> {
        if self.damaging && packet.window == 0 && packet.protocol == TCP {
            // A reset answers what the link has made of a packet.
            return Ok(());
        }
        let Some(client) = clients.by_tag(tag) else {
            return if self.is_ours(packet.src.0) || is_nobody(packet.src) {
                Ok(())
            } else {
                Err(format!("a member got a packet of no connection: {packet:?}"))
            };
        };
        let Some(ends) = client.ends else { return Err(format!("connection {tag} has not begun")) };
        let Some(id) = setup::virtual_of(&self.parts, ends.1, ends.2) else {
            return Err(format!("connection {tag} reached a member without a virtual server"));
        };
        let item = &self.parts.virtuals[id.index()];
        let right_source = match item.snat {
            Snat::None => packet.src == ends.0,
            Snat::Automap => packet.src.0 == own_inside(packet.dst.0.is_v4()),
            Snat::Pool(place) => self.parts.snat_pools[place].addresses.contains(&packet.src.0),
            Snat::List(_) => false,
        };
        let right_source =
            right_source && (!(self.keeps_ports && setup::keeps_ports(item)) || packet.src.1 == ends.0.1);
        let right_member = match item.pool {
            Some(pool) => self.pools[pool.index()].contains(&packet.dst),
            None => packet.dst == ends.1,
        };
        if right_source && right_member {
            return Ok(());
        }
        Err(format!("connection {tag} of {ends:?} by {:?} came as {packet:?}", item.snat))
    }

    fn is_ours(&self, address: Address) -> bool {
        let pools = self.parts.snat_pools.iter().flat_map(|pool| &pool.addresses);
        address == own_inside(address.is_v4()) || pools.into_iter().any(|&ours| ours == address)
    }
}

impl MemberEnd {
    /// Late packets of older connections are let go: of the member's, and of the same ends of the client, which has
    /// opened a new one while its last ACK was on the way.
    fn stranger(&self, packet: &Packet, tag: u16, clients: &Clients) -> Result<Vec<Answer>, String> {
        let of = |tag| clients.by_tag(tag).and_then(|client| Some((client.ends?, client.order)));
        let is_clients_older = of(tag)
            .zip(of(self.tcp.tag))
            .is_some_and(|(late, now)| late.0 == now.0 && late.1 < now.1 && packet.payload.is_empty());
        if is_clients_older || self.history.contains(&tag) || packet.flags & (SYN | RST) != 0 {
            return Ok(Vec::new());
        }
        Err(format!("a member's connection {} got a packet of connection {tag}: {packet:?}", self.tcp.tag))
    }
}

/// The answer to a datagram.
fn reply(packet: &Packet, clients: &Clients) -> Vec<Answer> {
    let Some(client) = clients.by_tag(packet_tag(packet)) else { return Vec::new() };
    match client.plan.member {
        MemberMood::Silent => Vec::new(),
        MemberMood::Refuses => vec![Answer::Frame(wire::port_unreachable(packet))],
        MemberMood::Answers => {
            let name = packet.dst.0.v4_octets()[3];
            let payload = datagram(client.tag, 0x5e, name, number_of(&packet.payload));
            vec![Answer::Packet(back(packet, 0, 0, 0, payload))]
        }
    }
}

fn packets(key: Ends, out: Vec<Out>) -> Vec<Packet> {
    let (src, dst, protocol) = key;
    let macs = (setup::mac_of(src.0), INTERNAL_MAC);
    let packet = |out: Out| {
        let Out { flags, seq, ack, payload } = out;
        Packet { macs, src, dst, protocol, flags, seq, ack, window: WINDOW, payload }
    };
    out.into_iter().map(packet).collect()
}

/// RFC 9293 section 3.10.7.1.
fn reset(packet: &Packet) -> Packet {
    if packet.flags & ACK != 0 {
        return back(packet, RST, packet.ack, 0, Vec::new());
    }
    back(packet, RST | ACK, 0, packet.seq.wrapping_add(1), Vec::new())
}

fn back(packet: &Packet, flags: u8, seq: u32, ack: u32, payload: Vec<u8>) -> Packet {
    Packet {
        macs: (packet.macs.1, INTERNAL_MAC),
        src: packet.dst,
        dst: packet.src,
        protocol: packet.protocol,
        flags,
        seq,
        ack,
        window: WINDOW,
        payload,
    }
}

fn own_inside(is_v4: bool) -> Address {
    crate::world::prefix(if is_v4 { "10.1.0.10/32" } else { "2001:db8:2::10/128" }).address
}

/// How a member treats connections that the plan does not know: spoofed ones.
const PLAIN: Manners = Manners { bytes: 0, after: 0, closing: Closing::Second, breaking: Break::Never };
