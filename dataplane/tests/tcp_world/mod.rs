//! Two engines on a virtual clock and a wire in memory that loses, doubles and reorders what it carries.
//!
//! Side 0 connects and side 1 accepts; handshakes are led here, as the data plane leads them.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "a harness")]

#[macro_use]
pub mod subject;

mod bottleneck;
mod ends;
mod flows;
mod goodput;
pub mod packet;
mod relays;
mod storms;
mod windows;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use sluice_dataplane::address::Address;
use sluice_dataplane::clock::Instant;
use sluice_dataplane::tcp::{Agreed, ConnId, Engine, EngineSpec, Opening, Options, Sink, State};

use self::bottleneck::Bottleneck;
use self::packet::{ACK, RST, SYN, Tcp, cut};
use self::subject::{Pair, Subject};

/// What happens to packets, in thousandths; and how long they take.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    pub lost: u64,
    pub doubled: u64,
    pub late: u64,
    pub delay: Duration,
}

impl Weather {
    pub const FAIR: Weather = Weather { lost: 0, doubled: 0, late: 0, delay: Duration::from_millis(5) };
    pub const FOUL: Weather = Weather { lost: 50, doubled: 20, late: 50, delay: Duration::from_millis(5) };
}

pub struct World {
    pub now: Instant,
    pub engines: [Subject; 2],
    /// By the port of side 0.
    pub conns: [HashMap<u16, ConnId>; 2],
    /// Every packet that was sent: by which side, and what it says.
    pub log: Vec<(usize, Tcp)>,
    pub keeps_log: bool,
    /// Packets that a sink takes before it has to be emptied.
    pub room: usize,
    pub weather: Weather,
    /// What packets of side 0 go through, beside the weather.
    pub bottleneck: Option<Bottleneck>,
    /// What the wires take in one piece; 0 for segments.
    pub largest: usize,
    /// Large packets arrive whole, as they do between virtual machines.
    pub is_whole: bool,
    pub v6: bool,
    /// Nobody accepts: a SYN is answered by a RST.
    pub refuses: bool,
    pub options: Options,
    random: u64,
    flying: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    count: u64,
    due: BTreeSet<(Instant, usize, u16)>,
    due_of: [HashMap<u16, Instant>; 2],
    synced: HashMap<u16, Tcp>,
}

pub const SPEC: EngineSpec =
    EngineSpec { connections: 4, receive_buffer: 65_536, send_buffer: 65_536, mtu: 1500 };

/// The initial sequence numbers of both sides: they wrap soon.
pub const ISN: [u32; 2] = [0xffff_f000, 0xffff_fff0];

impl World {
    pub fn new(pair: Pair, seed: u64, spec: EngineSpec) -> Self {
        Self::uneven(pair, seed, [spec; 2])
    }

    /// Engines that are made of different things.
    pub fn uneven(pair: Pair, seed: u64, specs: [EngineSpec; 2]) -> Self {
        println!("seed {seed}, {pair:?}");
        Self {
            now: Instant::from_ms(1),
            engines: [0, 1].map(|side| Subject::of(pair[side], specs[side])),
            conns: Default::default(),
            log: Vec::new(),
            keeps_log: true,
            room: 1000,
            weather: Weather::FAIR,
            bottleneck: None,
            largest: 0,
            is_whole: false,
            v6: false,
            refuses: false,
            options: Options { keep_alive_ms: 0, ..Options::default() },
            random: seed ^ 0x9e37_79b9_7f4a_7c15,
            flying: BTreeMap::new(),
            count: 0,
            due: BTreeSet::new(),
            due_of: Default::default(),
            synced: HashMap::new(),
        }
    }

    /// An open connection from side 0 to side 1.
    pub fn opened(pair: Pair, seed: u64, spec: EngineSpec) -> (Self, [ConnId; 2]) {
        let mut world = Self::new(pair, seed, spec);
        let ids = world.open(1000);
        (world, ids)
    }

    /// Connects and runs until both sides are open.
    pub fn open(&mut self, port: u16) -> [ConnId; 2] {
        let client = self.connect(port);
        self.run_until(|world| {
            world.engines[0].state(client) == State::Open && world.conns[1].contains_key(&port)
        });
        [client, self.conns[1][&port]]
    }

    pub fn connect(&mut self, port: u16) -> ConnId {
        let id = self.engines[0].connect(&self.opening(0, port), self.now).unwrap();
        self.conns[0].insert(port, id);
        self.touch(0, port);
        id
    }

    pub fn end(&self, side: usize, port: u16) -> (Address, u16) {
        let address = match (self.v6, side) {
            (false, _) => Address::v4([10, 0, 0, 1 + side as u8]),
            (true, _) => Address::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1 + side as u8]),
        };
        (address, if side == 0 { port } else { 80 })
    }

    pub fn opening(&self, side: usize, port: u16) -> Opening {
        let (local, remote) = (self.end(side, port), self.end(1 - side, port));
        Opening { local, remote, isn: ISN[side], options: self.options }
    }

    /// Goes on until `done`.
    pub fn run_until(&mut self, done: impl Fn(&World) -> bool) {
        for _ in 0..5_000_000 {
            if done(self) {
                return;
            }
            assert!(self.step().is_some(), "nothing more happens: {:?}", self.states());
        }
        panic!("it never ends");
    }

    /// How everything stands.
    pub fn states(&self) -> Vec<(usize, u16, State)> {
        let of = |side: usize| {
            self.conns[side].iter().map(move |(port, id)| (side, *port, self.engines[side].state(*id)))
        };
        of(0).chain(of(1)).collect()
    }

    /// Goes on for so long.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while self.next().is_some_and(|at| at <= end) {
            self.step();
        }
        self.now = end;
    }

    fn next(&self) -> Option<Instant> {
        let flying = self.flying.keys().next().map(|(at, _)| *at);
        let due = self.due.iter().next().map(|(at, ..)| *at);
        [flying, due].into_iter().flatten().min()
    }

    /// The next arrival or timer; the connection that it was for.
    pub fn step(&mut self) -> Option<(usize, u16)> {
        let at = self.next()?;
        self.now = self.now.max(at);
        if self.flying.keys().next().is_some_and(|(arrival, _)| *arrival <= at) {
            let (_, (side, packet)) = self.flying.pop_first()?;
            let port = self.arrive(side, &packet);
            return Some((side, port));
        }
        let (_, side, port) = self.due.pop_first()?;
        self.due_of[side].remove(&port);
        self.touch(side, port);
        Some((side, port))
    }

    fn arrive(&mut self, side: usize, packet: &[u8]) -> u16 {
        let tcp = Tcp::read(packet);
        let port = if side == 0 { tcp.to.1 } else { tcp.from.1 };
        if side == 1 && !self.conns[1].contains_key(&port) {
            self.handshake(port, &tcp);
        }
        if let Some(id) = self.conns[side].get(&port) {
            self.engines[side].receive(*id, packet, self.now);
            self.touch(side, port);
        }
        port
    }

    /// Leads the handshake of side 1, as far as this packet goes.
    fn handshake(&mut self, port: u16, tcp: &Tcp) {
        let [local, remote] = [self.end(1, port), self.end(0, port)];
        if tcp.has(SYN) && self.refuses {
            let reset = Tcp::new(local, remote, RST | ACK, 0, tcp.after());
            return self.carry(1, &reset.write());
        }
        if tcp.has(SYN) {
            let announced = self.engines[1].announced();
            let mut answer = Tcp::new(local, remote, SYN | ACK, ISN[1], tcp.after());
            answer.window = announced.window;
            (answer.mss, answer.sack) = (Some(if self.v6 { 1440 } else { 1460 }), tcp.sack);
            answer.scale = tcp.scale.map(|_| announced.scale);
            self.synced.insert(port, tcp.clone());
            self.carry(1, &answer.write());
            // What is lost is sent again, as the data plane's handshakes do.
            if self.weather.lost > 0 {
                for later in [1, 3, 7].map(Duration::from_secs) {
                    self.count += 1;
                    self.flying.insert((self.now + later, self.count), (0, answer.write()));
                }
            }
            return;
        }
        let Some(syn) = self.synced.get(&port) else { return };
        if tcp.has(ACK) && !tcp.has(RST) && tcp.seq == syn.after() && tcp.ack == ISN[1].wrapping_add(1) {
            let agreed = Agreed {
                peer_isn: syn.seq,
                peer_mss: syn.mss.unwrap(),
                peer_scale: syn.scale,
                sack: syn.sack,
            };
            let id = self.engines[1].accept(&self.opening(1, port), &agreed, self.now).unwrap();
            self.conns[1].insert(port, id);
        }
    }

    /// Something was done with a connection: what it has to send is sent, and its timer is set.
    pub fn touch(&mut self, side: usize, port: u16) {
        let Some(id) = self.conns[side].get(&port).copied() else { return };
        while self.transmit(side, id) {}
        if let Some(at) = self.due_of[side].remove(&port) {
            self.due.remove(&(at, side, port));
        }
        if let Some(at) = self.engines[side].due(id, self.now) {
            assert!(at > self.now, "what is due now was done");
            self.due.insert((at, side, port));
            self.due_of[side].insert(port, at);
        }
    }

    /// Sends what one sink takes; true when there may be more.
    fn transmit(&mut self, side: usize, id: ConnId) -> bool {
        let mut sink = Wire { room: self.room, largest: self.largest, packets: Vec::new() };
        let has_output = self.engines[side].has_output(id, self.now);
        let is_more = self.engines[side].transmit(id, &mut sink, self.now);
        assert!(!is_more || sink.packets.len() == self.room, "this sink has room");
        assert!(has_output || sink.packets.is_empty(), "it said that there was nothing");
        let is_segment =
            |(packet, segment): &(Vec<u8>, Option<u16>)| segment.is_some() || packet.len() <= 1500;
        assert!(sink.packets.iter().all(is_segment), "it is larger than a segment");
        sink.packets.into_iter().for_each(|packet| self.send(side, packet));
        is_more
    }

    fn send(&mut self, side: usize, (packet, segment): (Vec<u8>, Option<u16>)) {
        match segment {
            Some(segment) if !self.is_whole => {
                let pieces = cut(&packet, usize::from(segment));
                pieces.into_iter().for_each(|piece| self.carry(side, &piece));
            }
            _ => self.carry(side, &packet),
        }
    }

    /// Puts a packet of a side on the wire.
    pub fn carry(&mut self, side: usize, packet: &[u8]) {
        let tcp = Tcp::read(packet);
        let tcp_payload = tcp.payload.len();
        if self.keeps_log {
            self.log.push((side, tcp));
        }
        let Weather { lost, doubled, late, mut delay } = self.weather;
        if let Some(bottleneck) = self.bottleneck.as_mut().filter(|_| side == 0) {
            match bottleneck.passes(packet.len(), tcp_payload, self.now) {
                Some(wait) => delay += wait,
                None => return,
            }
        }
        let copies = if self.chance(lost) { 0 } else { 1 + u64::from(self.chance(doubled)) };
        for _ in 0..copies {
            let behind =
                if self.chance(late) { Duration::from_millis(self.below(20)) } else { Duration::ZERO };
            self.count += 1;
            self.flying.insert((self.now + delay + behind, self.count), (1 - side, packet.to_vec()));
        }
    }

    fn chance(&mut self, thousandths: u64) -> bool {
        self.below(1000) < thousandths
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % end
    }

    /// Gives a side a packet that nobody sent.
    pub fn inject(&mut self, side: usize, port: u16, tcp: &Tcp) {
        let id = self.conns[side][&port];
        self.engines[side].receive(id, &tcp.write(), self.now);
        self.touch(side, port);
    }

    /// What a side sent since the log had this length.
    pub fn sent_since(&self, at: usize, side: usize) -> Vec<&Tcp> {
        self.log[at..].iter().filter(|(by, _)| *by == side).map(|(_, tcp)| tcp).collect()
    }

    /// Reads all that waits.
    pub fn read(&mut self, side: usize, id: ConnId) -> Vec<u8> {
        let mut data = Vec::new();
        while self.engines[side].read(id, |piece| {
            data.extend_from_slice(piece);
            piece.len()
        }) > 0
        {}
        data
    }
}

/// A sink with so much room.
pub struct Wire {
    pub room: usize,
    pub largest: usize,
    pub packets: Vec<(Vec<u8>, Option<u16>)>,
}

impl Sink for Wire {
    fn has_room(&mut self) -> bool {
        self.packets.len() < self.room
    }

    fn largest(&self) -> usize {
        self.largest
    }

    fn packet(&mut self, len: usize, segment: Option<u16>, fill: impl FnOnce(&mut [u8])) {
        let mut packet = vec![0xa5; len];
        fill(&mut packet);
        self.packets.push((packet, segment));
    }
}
