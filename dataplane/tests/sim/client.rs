//! The clients: each connection of the plan, what has become of it, and what must never reach it.

use std::collections::BTreeMap;

use sluice_dataplane::address::Address;
use sluice_dataplane::config::snapshot::{Parts, Snat, SourcePort, Virtual};

use super::endpoint::{Break, Endpoint, Out, Side, State, tag_of};
use super::random::Random;
use super::schedule::{Connection, Plan};
use super::setup;
use super::wire::{End, Packet, RST, TCP, UDP, WINDOW};
use crate::world::EXTERNAL_MAC;

/// A client's end, what it asked for, and the protocol.
pub type Ends = (End, End, u8);

pub struct Clients {
    pub ends: Vec<ClientEnd>,
    /// By connection; a bijection, so that sequence numbers of successive connections are far apart.
    tags: BTreeMap<u16, usize>,
    current: BTreeMap<Ends, usize>,
    /// Connections that had the same ends, oldest first.
    history: BTreeMap<Ends, Vec<u16>>,
    started: u64,
    /// Late packets of a connection that had the source port before.
    pub stale: u64,
    damaging: bool,
    /// Each connection has a port that no other has, whoever the client is.
    ports_differ: bool,
    /// All source ports are sluice's choice, and stay unused after a connection until late packets have died out.
    ports_rest: bool,
}

/// One connection, seen by its client.
pub struct ClientEnd {
    pub plan: Connection,
    pub tag: u16,
    pub ends: Option<Ends>,
    /// Which one it is in order of time.
    pub order: u64,
    pub tcp: Endpoint,
    pub udp: Exchange,
    /// sluice or the member has said no.
    pub refused: bool,
}

/// Questions and answers by UDP.
#[derive(Debug, Clone, Default)]
pub struct Exchange {
    pub asked: u32,
    pub questions: u32,
    pub tries: u32,
    pub due: Option<u64>,
    pub member: Option<u8>,
    wound: Option<u64>,
}

impl Clients {
    pub fn new(plan: &Plan) -> Self {
        let end = |(number, connection): (usize, &Connection)| ClientEnd {
            plan: connection.clone(),
            tag: tag(number),
            ends: None,
            order: 0,
            tcp: Endpoint::new(tag(number), Side::Client, 0, connection.ask),
            udp: Exchange { questions: 1 + connection.ask.bytes % 4, ..Exchange::default() },
            refused: false,
        };
        Self {
            ends: plan.connections.iter().enumerate().map(end).collect(),
            tags: (0..plan.connections.len()).map(|number| (tag(number), number)).collect(),
            current: BTreeMap::new(),
            history: BTreeMap::new(),
            started: 0,
            stale: 0,
            damaging: plan.weather.corrupts > 0,
            ports_differ: plan.calm
                && !plan.turning
                && plan.parts.virtuals.iter().all(|item| !chooses_ports(item)),
            // With few sets, or many pairs by a flood, pairs without a connection forget what rests.
            ports_rest: plan.calm
                && plan.share().snat_port_sets >= 64
                && plan.parts.virtuals.iter().all(chooses_ports),
        }
    }

    /// Another configuration is on its way to the workers.
    pub fn on_change(&mut self, parts: &Parts) {
        self.ports_rest &= parts.virtuals.iter().all(chooses_ports);
    }

    /// The connection with this tag.
    pub fn by_tag(&self, tag: u16) -> Option<&ClientEnd> {
        self.tags.get(&tag).map(|&number| &self.ends[number])
    }

    /// Begins connection `number` from a port that its client does not use now. Its first packet.
    pub fn start(&mut self, number: usize, random: &mut Random, now: u64) -> Vec<Packet> {
        let Connection { client, target, protocol, .. } = self.ends[number].plan;
        let Some(port) = self.free_port(client, target, random) else { return Vec::new() };
        let ends = ((client, port), target, protocol);
        self.started += 1;
        self.current.insert(ends, number);
        let end = &mut self.ends[number];
        (end.ends, end.order) = (Some(ends), self.started);
        self.history.entry(ends).or_default().push(end.tag);
        if protocol == TCP {
            let out = end.tcp.open(now);
            return end.packets(out);
        }
        end.ask(now)
    }

    /// What connection `number` retransmits now.
    pub fn on_time(&mut self, number: usize, now: u64) -> Vec<Packet> {
        let end = &mut self.ends[number];
        if end.plan.protocol == TCP {
            let out = end.tcp.on_time(now);
            return end.packets(out);
        }
        if end.udp.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        end.udp.tries += 1;
        if end.udp.tries > TRIES_MAX {
            end.udp.due = None;
            return Vec::new();
        }
        end.ask(now)
    }

    /// A packet has reached a client. The number of its connection, and its answers.
    ///
    /// # Errors
    /// What must not happen.
    pub fn hear(&mut self, packet: &Packet, now: u64) -> Result<Option<(usize, Vec<Packet>)>, String> {
        let ends = (packet.dst, packet.src, packet.protocol);
        let Some(&number) = self.current.get(&ends) else {
            return self.unknown(packet).map(|()| None);
        };
        let tag = self.ends[number].tag;
        if !belongs(packet, tag) {
            return self.stranger(packet, ends, tag).map(|()| None);
        }
        let end = &mut self.ends[number];
        let answers = if packet.protocol == TCP {
            end.refused |= packet.flags & RST != 0;
            let out = end.tcp.hear(packet.flags, packet.seq, packet.ack, &packet.payload, now)?;
            end.packets(out)
        } else {
            end.answered(&packet.payload, now)?
        };
        Ok(Some((number, answers)))
    }

    /// An ICMP error has reached a client.
    ///
    /// # Errors
    /// When it quotes a packet that the client never sent.
    pub fn hear_error(&mut self, quoted: (End, End)) -> Result<(), String> {
        let (src, dst) = quoted;
        let known = [TCP, UDP].map(|protocol| self.current.get(&(src, dst, protocol)));
        let mut known = known.into_iter().flatten().peekable();
        if known.peek().is_none() && !self.damaging && !is_nobody(src) {
            return Err(format!("a client heard an error about {src:?} to {dst:?}, which it never sent"));
        }
        for &number in known {
            self.ends[number].refused = true;
            self.ends[number].udp.due = None;
        }
        Ok(())
    }

    /// Only resets of damaged or spoofed packets may go to ends that nobody has.
    fn unknown(&self, packet: &Packet) -> Result<(), String> {
        let is_ours = packet.window == 0 && packet.flags & RST != 0;
        if is_nobody(packet.dst) || (self.damaging && is_ours) {
            return Ok(());
        }
        Err(format!("a client got a packet of no connection of its own: {packet:?}"))
    }

    /// A packet of another connection than the one that has these ends now.
    fn stranger(&mut self, packet: &Packet, ends: Ends, tag: u16) -> Result<(), String> {
        let other = packet_tag(packet);
        let mine_before = self.history.get(&ends).is_some_and(|all| all.contains(&other));
        if mine_before || (self.damaging && packet.window == 0 && packet.protocol == TCP) {
            return Ok(());
        }
        let order = |tag| self.by_tag(tag).map_or(0, |end| end.order);
        // A port that did not rest: the member still answers the SYN of a half-open flow that made room.
        if !self.ports_rest && (order(other) < order(tag) || packet.payload.is_empty()) {
            self.stale += 1;
            return Ok(());
        }
        Err(format!("connection {tag} got a packet of connection {other}: {packet:?}"))
    }

    /// A port that the client does not use now, and has used only for the same: members that see clients' own ends
    /// cannot tell connections through two virtual servers apart.
    fn free_port(&self, client: Address, target: End, random: &mut Random) -> Option<u16> {
        let is_busy = |port: u16| {
            let hinders = |end: &ClientEnd| {
                let ends = end.ends.filter(|ends| ends.0.1 == port);
                let is_same = |ends: Ends| ends.0.0 == client && (ends.1 != target || end.is_running());
                ends.is_some_and(|ends| self.ports_differ || is_same(ends))
            };
            self.ends.iter().any(hinders)
        };
        let first = random.below(PORTS);
        (0..PORTS).map(|step| 40_000 + ((first + step) % PORTS) as u16).find(|&port| !is_busy(port))
    }
}

impl ClientEnd {
    /// True while something may still come of it.
    pub fn is_running(&self) -> bool {
        if self.plan.protocol == TCP { self.tcp.state == State::Running } else { self.udp.due.is_some() }
    }

    /// True when everything that both ends meant to say has been heard.
    pub fn is_complete(&self) -> bool {
        match self.plan.protocol {
            TCP => {
                let closed = matches!(self.tcp.state, State::Done | State::WasReset(true));
                closed && self.tcp.received() >= self.plan.answer.bytes
            }
            _ => self.udp.asked == self.udp.questions,
        }
    }

    /// When to come back, if that has not been said yet.
    pub fn wind(&mut self) -> Option<u64> {
        if self.plan.protocol == TCP {
            return self.tcp.wind();
        }
        let due = self.udp.due.filter(|_| self.udp.due != self.udp.wound);
        self.udp.wound = self.udp.due;
        due
    }

    fn packets(&self, out: Vec<Out>) -> Vec<Packet> {
        let one = |out: Out| self.packet(out.flags, out.seq, out.ack, out.payload);
        out.into_iter().filter_map(one).collect()
    }

    fn packet(&self, flags: u8, seq: u32, ack: u32, payload: Vec<u8>) -> Option<Packet> {
        let (src, dst, protocol) = self.ends?;
        let macs = (setup::mac_of(src.0), EXTERNAL_MAC);
        Some(Packet { macs, src, dst, protocol, flags, seq, ack, window: WINDOW, payload })
    }

    fn ask(&mut self, now: u64) -> Vec<Packet> {
        self.udp.due = Some(now + ASK_AGAIN_MS);
        let question = datagram(self.tag, 0xc1, 0, self.udp.asked);
        self.packet(0, 0, 0, question).into_iter().collect()
    }

    /// The answer to the question at hand lets the next one be asked.
    fn answered(&mut self, payload: &[u8], now: u64) -> Result<Vec<Packet>, String> {
        let member = *payload.get(3).ok_or("an answer without a member")?;
        if payload != datagram(self.tag, 0x5e, member, number_of(payload)) {
            return Err(format!("exchange {}: a wrong answer {payload:?}", self.tag));
        }
        // Members are chosen anew when the flow has ended meanwhile.
        self.udp.member = Some(member);
        if number_of(payload) != self.udp.asked || self.udp.due.is_none() {
            return Ok(Vec::new());
        }
        (self.udp.asked, self.udp.tries) = (self.udp.asked + 1, 0);
        let gone = matches!(self.plan.ask.breaking, Break::Vanish(_) | Break::Reset(_));
        if self.udp.asked == self.udp.questions || gone {
            self.udp.due = None;
            return Ok(Vec::new());
        }
        Ok(self.ask(now))
    }
}

/// What a datagram says: whose it is, which side's, which member's, and which question it is about.
pub fn datagram(tag: u16, side: u8, member: u8, number: u32) -> Vec<u8> {
    let mut bytes = tag.to_be_bytes().to_vec();
    bytes.extend([side, member]);
    bytes.extend(number.to_be_bytes());
    bytes
}

pub fn number_of(payload: &[u8]) -> u32 {
    payload.get(4..8).map_or(u32::MAX, |bytes| u32::from_be_bytes(bytes.try_into().unwrap()))
}

/// The connection that a packet says it belongs to.
pub fn packet_tag(packet: &Packet) -> u16 {
    match packet.protocol {
        // A reset of a SYN has nothing but the acknowledgement.
        TCP if packet.flags & RST != 0 && packet.seq == 0 => tag_of(packet.ack),
        TCP => tag_of(packet.seq),
        _ => packet.payload.get(..2).map_or(0, |bytes| u16::from_be_bytes(bytes.try_into().unwrap())),
    }
}

fn belongs(packet: &Packet, tag: u16) -> bool {
    packet_tag(packet) == tag
}

/// Where spoofed packets come from.
pub fn is_nobody(end: End) -> bool {
    crate::world::prefix("203.0.113.0/24").contains(end.0)
}

fn tag(number: usize) -> u16 {
    (number as u16 + 1).wrapping_mul(40_503)
}

const PORTS: u64 = 24;
const ASK_AGAIN_MS: u64 = 300;
const TRIES_MAX: u32 = 24;

fn chooses_ports(item: &Virtual) -> bool {
    item.snat != Snat::None && item.source_port != SourcePort::PreserveStrict
}
