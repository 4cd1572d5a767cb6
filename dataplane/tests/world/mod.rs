//! A worker between two memory ports on a clock that only tests move.
//!
//! ```text
//!   client 198.51.100.7, router 192.0.2.1 ── external 192.0.2.10 │ sluice │ internal 10.1.0.10 ── members 10.1.0.11 …
//!          2001:db8:c::7                     2001:db8:1::10      │        │ 2001:db8:2::10       2001:db8:2::11 …
//! ```
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a harness; each test binary uses its own part"
)]

use std::sync::Arc;

use sluice_dataplane::access_log::AccessLog;
use sluice_dataplane::address::{Address, Mac, Prefix};
use sluice_dataplane::clock::{Clock, Instant};
use sluice_dataplane::config::ids::{LinkId, MemberId, PoolId, PortId, VirtualId};
use sluice_dataplane::config::snapshot::{
    Match, Member, Parts, Pool, Protocol, Route, SelfIp, Settings, Snapshot, Snat, SnatPool, Timeouts,
    Virtual,
};
use sluice_dataplane::counters::WorkerCounters;
use sluice_dataplane::flow::key::HashSeed;
use sluice_dataplane::frame::{Frame, FramePool};
use sluice_dataplane::handoff;
use sluice_dataplane::limits::Limits;
use sluice_dataplane::packet::build;
use sluice_dataplane::persist::PersistenceTable;
use sluice_dataplane::pool::MemberStates;
use sluice_dataplane::port::PortQueue;
use sluice_dataplane::port::memory::{self, MemoryPeer};
use sluice_dataplane::query::{FlowInfo, NeighborInfo, Query, Reply};
use sluice_dataplane::quota::Quotas;
use sluice_dataplane::runtime::{Idle, WorkerSpec};
use sluice_dataplane::snat::ports::SnatUse;
use sluice_dataplane::snat::rules::Rules;
use sluice_dataplane::verdict::DropReason;
use sluice_dataplane::worker::Worker;
use sluice_ffi::memory::Backing;

pub const EXTERNAL: PortId = PortId(0);
pub const INTERNAL: PortId = PortId(1);
pub const OUTSIDE: LinkId = LinkId::new(EXTERNAL, 0);
pub const INSIDE: LinkId = LinkId::new(INTERNAL, 0);
pub const EXTERNAL_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub const INTERNAL_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
pub const CLIENT_MAC: Mac = Mac([2, 0, 0, 0, 0, 0xc]);
pub const CLIENT: &str = "198.51.100.7";
pub const CLIENT6: &str = "2001:db8:c::7";
pub const VIRTUAL: &str = "192.0.2.100";
pub const SELF_IN6: &str = "2001:db8:2::10";
pub const VIRTUAL6: &str = "2001:db8:1::100";
pub const SELF_IN: &str = "10.1.0.10";

pub struct World {
    pub worker: Worker,
    pub counters: Arc<WorkerCounters>,
    pub members: Arc<MemberStates>,
    pub quotas: Arc<Quotas>,
    pub rules: Arc<Rules>,
    pub number: usize,
    pub persistence: Arc<PersistenceTable>,
    pub ports: [MemoryPeer; 2],
    pub parts: Parts,
    pub frames: FramePool,
    pub now_ms: u64,
    /// Multicast listener reports that came out, which nothing else is about.
    pub reports: Vec<Out>,
}

/// A worker's queue, and the test's end of its wire.
pub type Wire = (Box<dyn PortQueue>, MemoryPeer);

type Shared<'s> = (&'s Arc<MemberStates>, &'s Arc<Quotas>, &'s Arc<PersistenceTable>, &'s Arc<Rules>);

/// A frame that came out: which port, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Out {
    pub port: PortId,
    pub bytes: Vec<u8>,
}

impl World {
    /// The usual configuration, changed by `change`.
    pub fn new(change: impl FnOnce(&mut Parts)) -> Self {
        Self::with_limits(Limits { flows: 1_024, half_open: 256, frames: 512, ..Limits::default() }, change)
    }

    pub fn with_limits(limits: Limits, change: impl FnOnce(&mut Parts)) -> Self {
        let mut parts = usual();
        change(&mut parts);
        Self::several(1, limits, &parts).remove(0)
    }

    /// Several workers of one process, each with its own queues; what crosses between them is theirs to do.
    pub fn several(workers: usize, limits: Limits, parts: &Parts) -> Vec<Self> {
        let wire = || -> Wire {
            let (queue, peer) = memory::pair(1_024);
            (Box::new(queue), peer)
        };
        Self::several_on(wire, workers, limits, parts)
    }

    /// The same, each port a `wire`.
    pub fn several_on(wire: fn() -> Wire, workers: usize, limits: Limits, parts: &Parts) -> Vec<Self> {
        let members = Arc::new(MemberStates::new(64));
        let persistence = Arc::new(PersistenceTable::new(limits.persistence, 64));
        let mesh = handoff::mesh(workers).expect("an event for each worker");
        let quotas = Arc::new(Quotas::new(&limits, workers));
        quotas.set_limits(&Snapshot::build(parts.clone()));
        let rules = Arc::new(Rules::new(&limits, workers, &Snapshot::build(parts.clone())));
        let world = |(number, handoff)| {
            let shared = (&members, &quotas, &persistence, &rules);
            Self::one([wire(), wire()], (number, workers), handoff, limits, parts, shared)
        };
        mesh.into_iter().enumerate().map(world).collect()
    }

    fn one(
        [(external, outer), (internal, inner)]: [Wire; 2],
        (number, workers): (usize, usize),
        handoff: handoff::Handoff,
        limits: Limits,
        parts: &Parts,
        (members, quotas, persistence, rules): Shared<'_>,
    ) -> Self {
        let counters = Arc::new(WorkerCounters::new(&limits));
        let spec = WorkerSpec {
            number,
            workers,
            core: None,
            ports: vec![
                (memory::info("external", EXTERNAL_MAC), external),
                (memory::info("internal", INTERNAL_MAC), internal),
            ],
            frames: FramePool::new(limits.frames),
            limits,
            snapshot: Arc::new(Snapshot::build(parts.clone())),
            handoff,
            members: Arc::clone(members),
            quotas: Arc::clone(quotas),
            persistence: Arc::clone(persistence),
            rates: Arc::default(),
            rules: Arc::clone(rules),
            counters: Arc::clone(&counters),
            peers: Vec::new(),
            access_log: Arc::new(AccessLog::new(0)),
            idle: Idle::Poll,
            clock: Clock::start(),
        };
        Self {
            worker: Worker::with_tables(spec, HashSeed::fixed(11), Backing::Ordinary),
            counters,
            members: Arc::clone(members),
            quotas: Arc::clone(quotas),
            rules: Arc::clone(rules),
            number,
            persistence: Arc::clone(persistence),
            ports: [outer, inner],
            parts: parts.clone(),
            frames: FramePool::new(8_192),
            now_ms: 1_000,
            reports: Vec::new(),
        }
    }

    /// Past the announcements of the start, and with every member's link address known.
    pub fn started(change: impl FnOnce(&mut Parts)) -> Self {
        let mut world = Self::new(change);
        world.start();
        world
    }

    pub fn start(&mut self) {
        for _ in 0..4 {
            self.run(20);
        }
        for last in 11..=14 {
            self.teach(&format!("10.1.0.{last}"), member_mac(last));
            self.teach(&format!("2001:db8:2::{last}"), member_mac(last));
        }
    }

    /// A member asks for our address, by which we learn its own.
    pub fn teach(&mut self, address: &str, mac: Mac) {
        let is_v6 = address.contains(':');
        let ask = if is_v6 { solicitation(mac, address, SELF_IN6) } else { arp(1, mac, address, SELF_IN) };
        let answers = self.send(INTERNAL, &ask);
        assert_eq!(answers.len(), 1, "our answer to {address}");
        if is_v6 {
            // What a solicitation says is to be confirmed.
            let mut advert = ndisc(136, mac, address, SELF_IN6, address, 2, 255);
            advert[..6].copy_from_slice(&INTERNAL_MAC.0);
            assert!(self.send(INTERNAL, &advert).is_empty());
        }
    }

    /// Lets time pass, runs one turn and gives what came out.
    pub fn run(&mut self, ms: u64) -> Vec<Out> {
        self.now_ms += ms;
        self.worker.turn(Instant::from_ms(self.now_ms));
        self.drain()
    }

    /// Lets time pass in steps, as a worker that wakes for its timers does.
    pub fn run_for(&mut self, ms: u64) -> Vec<Out> {
        (0..ms.div_ceil(50)).flat_map(|_| self.run(50)).collect()
    }

    /// Sends one frame into a port and gives what came out.
    pub fn send(&mut self, port: PortId, bytes: &[u8]) -> Vec<Out> {
        let frame = self.frames.copy_of(bytes).expect("frame memory");
        self.send_frame(port, frame)
    }

    pub fn send_frame(&mut self, port: PortId, frame: Frame) -> Vec<Out> {
        self.ports[usize::from(port.0)].send(frame).expect("room on the wire");
        self.run(0)
    }

    pub fn apply(&mut self, change: impl FnOnce(&mut Parts)) {
        let before = Snapshot::build(self.parts.clone());
        change(&mut self.parts);
        self.parts.generation += 1;
        let snapshot = Arc::new(Snapshot::build(self.parts.clone()));
        if self.number == 0 {
            self.quotas.set_limits(&snapshot);
            self.rules.announce(&before, &snapshot, Instant::from_ms(self.now_ms));
        }
        self.worker.apply(snapshot, Instant::from_ms(self.now_ms));
    }

    /// Connections that virtual server `id` counts as open.
    pub fn open_connections(&self, id: u32) -> u64 {
        self.counters.of_virtual(VirtualId(id)).map_or(0, |counters| counters.connections.current.load())
    }

    pub fn drops(&self, reason: DropReason) -> u64 {
        self.counters.of_drop(reason).load()
    }

    /// All drops so far, by name.
    pub fn all_drops(&self) -> Vec<(&'static str, u64)> {
        let all = DropReason::ALL.iter().map(|reason| (reason.name(), self.drops(*reason)));
        all.filter(|(_, count)| *count > 0).collect()
    }

    pub fn flows(&mut self) -> Vec<FlowInfo> {
        let query = Query::Flows { after: 0, max: 256 };
        match self.worker.answer(&query, Instant::from_ms(self.now_ms)) {
            Reply::Flows(page) => page.flows,
            other => unreachable!("flows were asked for: {other:?}"),
        }
    }

    pub fn neighbors(&mut self) -> Vec<NeighborInfo> {
        match self.worker.answer(&Query::Neighbors, Instant::from_ms(self.now_ms)) {
            Reply::Neighbors(neighbors) => neighbors,
            other => unreachable!("neighbours were asked for: {other:?}"),
        }
    }

    pub fn snat(&mut self) -> Vec<SnatUse> {
        match self.worker.answer(&Query::Snat, Instant::from_ms(self.now_ms)) {
            Reply::Snat(addresses) => addresses,
            other => unreachable!("SNAT addresses were asked for: {other:?}"),
        }
    }

    fn drain(&mut self) -> Vec<Out> {
        let mut out = Vec::new();
        for (place, peer) in self.ports.iter().enumerate() {
            while let Some(frame) = peer.recv() {
                let one = Out { port: PortId(place as u8), bytes: frame.bytes().to_vec() };
                if is_report(&one.bytes) { self.reports.push(one) } else { out.push(one) }
            }
        }
        out
    }
}

/// A multicast listener report of version 2 behind hop-by-hop options.
pub fn is_report(bytes: &[u8]) -> bool {
    bytes[12..14] == [0x86, 0xdd] && bytes[20] == 0 && bytes.get(62) == Some(&143)
}

pub fn member_mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 1, last])
}

pub fn prefix(text: &str) -> Prefix {
    let (ip, length) = text.split_once('/').expect("a prefix");
    Prefix::new(build::address(ip), length.parse().expect("a length"))
}

pub fn self_ip(text: &str, link: LinkId) -> SelfIp {
    let (ip, _) = text.split_once('/').expect("a prefix");
    SelfIp { name: text.into(), address: build::address(ip), subnet: prefix(text), link }
}

pub fn member(id: u32, ip: &str, port: u16) -> Member {
    Member { id: MemberId(id), address: build::address(ip), port, ..Member::default() }
}

pub fn virtual_server(id: u32, destination: &str, port: u16, protocol: Protocol, pool: u32) -> Virtual {
    let any = if destination.contains(':') { "::/0" } else { "0.0.0.0/0" };
    Virtual {
        id: VirtualId(id),
        name: format!("v{id}").into(),
        matches: vec![Match { destination: prefix(destination), source: prefix(any), port, protocol }],
        pool: Some(PoolId(pool)),
        snat: Snat::Automap,
        timeouts: if protocol == Protocol::Udp { Timeouts::UDP } else { Timeouts::TCP },
        ..Virtual::default()
    }
}

/// Pool 0: 10.1.0.11:8080 and .12; pool 1: the same over IPv6; pool 2: UDP 10.1.0.11:5353.
/// Virtual server 0: TCP 192.0.2.100:80; 1: TCP 2001:db8:1::100 port 80; 2: UDP 192.0.2.100:53.
pub fn usual() -> Parts {
    let pool =
        |id, members| Pool { id: PoolId(id), name: format!("p{id}").into(), members, ..Pool::default() };
    Parts {
        generation: 1,
        ports: vec!["external".into(), "internal".into()],
        self_ips: vec![
            self_ip("192.0.2.10/24", OUTSIDE),
            self_ip("10.1.0.10/24", INSIDE),
            self_ip("2001:db8:1::10/64", OUTSIDE),
            self_ip("2001:db8:2::10/64", INSIDE),
        ],
        routes: vec![
            Route { destination: prefix("0.0.0.0/0"), gateway: build::address("192.0.2.1"), link: OUTSIDE },
            Route { destination: prefix("::/0"), gateway: build::address("2001:db8:1::1"), link: OUTSIDE },
        ],
        virtuals: vec![
            virtual_server(0, "192.0.2.100/32", 80, Protocol::Tcp, 0),
            virtual_server(1, "2001:db8:1::100/128", 80, Protocol::Tcp, 1),
            virtual_server(2, "192.0.2.100/32", 53, Protocol::Udp, 2),
        ],
        pools: vec![
            pool(0, vec![member(0, "10.1.0.11", 8080), member(1, "10.1.0.12", 8080)]),
            pool(1, vec![member(2, "2001:db8:2::11", 8080), member(3, "2001:db8:2::12", 8080)]),
            pool(2, vec![member(4, "10.1.0.11", 5353)]),
        ],
        nodes: Vec::new(),
        snat_lists: Vec::new(),
        nats: Vec::new(),
        snat_pools: vec![SnatPool {
            name: "egress".into(),
            addresses: vec![
                build::address("10.1.0.50"),
                build::address("2001:db8:2::50"),
                build::address("10.1.0.51"),
            ],
        }],
        settings: Settings::default(),
    }
}

/// An ARP message from `mac`/`sender` about `target`: operation 1 asks, 2 answers.
pub fn arp(operation: u8, mac: Mac, sender: &str, target: &str) -> Vec<u8> {
    let mut bytes = vec![0xff; 6];
    bytes.extend(mac.0);
    bytes.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    bytes.extend(mac.0);
    bytes.extend(build::address(sender).v4_octets());
    bytes.extend([0; 6]);
    bytes.extend(build::address(target).v4_octets());
    bytes
}

/// A neighbour solicitation from `mac`/`sender` for `target`.
pub fn solicitation(mac: Mac, sender: &str, target: &str) -> Vec<u8> {
    ndisc(135, mac, sender, &build::address(target).solicited_node().to_string(), target, 1, 255)
}

/// A neighbour discovery message of `kind` with one link-address option.
pub fn ndisc(kind: u8, mac: Mac, sender: &str, to: &str, target: &str, option: u8, ttl: u8) -> Vec<u8> {
    let destination = Mac::of_multicast_v6(build::address(to));
    let link = sluice_dataplane::packet::rewrite::LinkHeader { destination, source: mac, vlan: 0 };
    let mut message = vec![kind, 0, 0, 0, 0x60, 0, 0, 0];
    message.extend(build::address(target).v6_octets());
    message.extend([option, 1]);
    message.extend(mac.0);
    build::packet(link, sender, to, ttl, 58, &message, 2)
}

/// What an IP packet in a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub port: PortId,
    pub dst_mac: Mac,
    pub vlan: u16,
    pub src: (String, u16),
    pub dst: (String, u16),
    pub ttl: u8,
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
}

/// Reads a frame that must be TCP or UDP with right checksums.
pub fn see(out: &Out) -> Seen {
    use sluice_dataplane::packet::parse::{Parsed, parse};
    build::assert_checksums(&out.bytes);
    let mac = |at: usize| Mac(out.bytes[at..at + 6].try_into().expect("six bytes"));
    let Ok(Parsed::Ip(packet)) = parse(&out.bytes, mac(0)) else { panic!("not IP: {:02x?}", out.bytes) };
    let word = |at: usize| {
        let at = usize::from(packet.l4) + at;
        out.bytes.get(at..at + 4).map_or(0, |b| u32::from_be_bytes(b.try_into().expect("four bytes")))
    };
    assert_eq!(mac(6), if out.port == EXTERNAL { EXTERNAL_MAC } else { INTERNAL_MAC });
    let text = |address: Address| address.to_string();
    Seen {
        port: out.port,
        dst_mac: mac(0),
        vlan: packet.vlan,
        src: (text(packet.key.src), packet.key.src_port),
        dst: (text(packet.key.dst), packet.key.dst_port),
        ttl: packet.ttl,
        flags: packet.tcp_flags,
        seq: word(4),
        ack: word(8),
    }
}

pub fn only(out: &[Out]) -> Seen {
    assert_eq!(out.len(), 1, "one frame expected: {out:02x?}");
    see(&out[0])
}
