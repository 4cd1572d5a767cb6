//! What is measured one by one: each operation as a function to be called over and over, set up and in steady state.
//!
//! Criterion takes their time, callgrind their instructions, from the same list.

use std::hint::black_box;
use std::sync::Arc;

use bytemuck::Zeroable;
use sluice_dataplane::address::{Address, Mac};
use sluice_dataplane::config::ids::{LinkId, PortId};
use sluice_dataplane::config::snapshot::{Parts, Protocol, Snapshot};
use sluice_dataplane::flow::Flow;
use sluice_dataplane::flow::key::{FlowKey, HashSeed};
use sluice_dataplane::flow::table::FlowTable;
use sluice_dataplane::frame::{BURST_MAX, FramePool};
use sluice_dataplane::packet::build::{self, Tcp, Udp};
use sluice_dataplane::packet::parse::{Packet, Parsed, parse};
use sluice_dataplane::packet::rewrite::{self, LinkHeader};
use sluice_dataplane::pipeline::LOOK_AHEAD;
use sluice_dataplane::snat::ports::{Pair, SnatPorts};
use sluice_dataplane::snat::rules::Rules;
use sluice_dataplane::virtual_server::lookup::VirtualIndex;
use sluice_ffi::memory::Backing;

use crate::proxied::{Layer, ProxiedWorker, TOGETHER};
use crate::scenario;
use crate::steady::SteadyWorker;

/// One thing to measure.
pub struct Operation {
    /// Its name, in reports and in the baseline.
    pub name: &'static str,
    /// What one call does this many times.
    pub each: u64,
    /// How often to call it when instructions are counted.
    pub calls: u64,
    /// Sets it up.
    pub make: fn() -> Box<dyn FnMut()>,
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Operation {}", self.name)
    }
}

/// All of them, cheapest first.
pub const OPERATIONS: &[Operation] = &[
    one("parse/tcp4", || parse_of(build::tcp(&Tcp::default()))),
    one("parse/tcp6", || parse_of(build::tcp(&Tcp { src: CLIENT6, dst: VIRTUAL6, ..Tcp::default() }))),
    one("parse/udp4", || parse_of(build::udp(&Udp::default()))),
    one("rewrite/ipv4", || rewrite_of(&build::tcp(&Tcp::default()), "10.1.0.10", "10.1.0.11")),
    one("rewrite/ipv6", || {
        rewrite_of(
            &build::tcp(&Tcp { src: CLIENT6, dst: VIRTUAL6, ..Tcp::default() }),
            "fd00::10",
            "fd00::11",
        )
    }),
    one("flow find/hit, 1 k flows", || find_one(1_000, true)),
    one("flow find/miss, 1 k flows", || find_one(1_000, false)),
    one("flow find/hit, 1 M flows", || find_one(1_000_000, true)),
    one("flow find/miss, 1 M flows", || find_one(1_000_000, false)),
    burst("flow find/burst, 1 k flows", LOOK_AHEAD, 500, || find_burst(1_000)),
    burst("flow find/burst, 1 M flows", LOOK_AHEAD, 500, || find_burst(1_000_000)),
    one("virtual server find/1", || find_virtual(1)),
    one("virtual server find/1 k", || find_virtual(1_000)),
    one("virtual server find/100 k", || find_virtual(100_000)),
    one("snat take and release/1 % in use", || snat(645)),
    one("snat take and release/99 % in use", || snat(63_866)),
    one("http/request head, 12 fields", || Box::new(crate::http::request())),
    one("http/response head, 8 fields", || Box::new(crate::http::response())),
    one("http/64 KiB in 16 chunks", || Box::new(crate::http::chunks())),
    one("http route/1 k hosts", || Box::new(crate::http::route(1_000))),
    burst("memory port alone", BURST_MAX, 40, || SteadyWorker::new(1_000).into_echo()),
    burst("worker burst/requests, 1 k flows", BURST_MAX, 40, || SteadyWorker::new(1_000).into_requests()),
    burst("worker burst/replies, 1 k flows", BURST_MAX, 40, || SteadyWorker::new(1_000).into_replies()),
    burst("worker burst/requests, 100 k flows", BURST_MAX, 40, || SteadyWorker::new(100_000).into_requests()),
    burst("worker burst/new flows that expire", BURST_MAX, 40, || SteadyWorker::new(50_000).into_new_flows()),
    burst("worker burst/requests, one of two workers", BURST_MAX, 40, || {
        SteadyWorker::one_of_two(1_000).into_requests()
    }),
    burst("worker burst/new flows, one of two workers", BURST_MAX, 40, || {
        SteadyWorker::one_of_two(50_000).into_new_flows()
    }),
    burst("proxy/http request, keep-alive", TOGETHER, 300, || requests(Layer::Http)),
    burst("proxy/tcp request", TOGETHER, 300, || requests(Layer::Stream)),
    burst("proxy/new http connection", TOGETHER, 300, || {
        let mut proxied = ProxiedWorker::new(Layer::Http, true);
        // Until as many leave TIME-WAIT as enter it.
        (0..WARM_TURNS).for_each(|_| proxied.turn_connections());
        proxied.into_connections()
    }),
    Operation {
        name: "snapshot build/1 k virtual servers",
        each: 1_000,
        calls: 3,
        make: || build_snapshot(1_000),
    },
    Operation { name: "apply of a snapshot", each: 1, calls: 20, make: apply },
];

const fn one(name: &'static str, make: fn() -> Box<dyn FnMut()>) -> Operation {
    Operation { name, each: 1, calls: 10_000, make }
}

/// `each` packets or exchanges a call.
const fn burst(name: &'static str, each: usize, calls: u64, make: fn() -> Box<dyn FnMut()>) -> Operation {
    Operation { name, each: each as u64, calls, make }
}

fn parse_of(frame: Vec<u8>) -> Box<dyn FnMut()> {
    Box::new(move || {
        let _ = black_box(parse(black_box(&frame), US));
    })
}

fn packet_of(frame: &[u8]) -> Packet {
    match parse(frame, US) {
        Ok(Parsed::Ip(packet)) => packet,
        other => panic!("not IP: {other:?}"),
    }
}

/// There and back, so that the frame is the same after two calls; TTL is put back.
fn rewrite_of(bytes: &[u8], src: &str, dst: &str) -> Box<dyn FnMut()> {
    let packet = packet_of(bytes);
    let mut frame = FramePool::new(1).copy_of(bytes).expect("a pool of one has one");
    let there = FlowKey { src: build::address(src), dst: build::address(dst), ..packet.key };
    let (there, back) = (FlowKey { src_port: 61_234, dst_port: 8080, ..there }, packet.key);
    let translated = Packet { key: there, ..packet };
    let link = LinkHeader { destination: Mac([2, 0, 0, 0, 0, 9]), source: US, vlan: 0 };
    let ttl_at = if packet.key.src.is_v4() { 22 } else { 21 };
    let mut is_there = false;
    Box::new(move || {
        let (from, to) = if is_there { (&translated, &back) } else { (&packet, &there) };
        rewrite::translate(&mut frame, black_box(from), black_box(to));
        let fits = rewrite::set_link_header(&mut frame, packet.l3, packet.key.src.is_v4(), link);
        frame.bytes_mut()[ttl_at] = 64;
        is_there = !is_there;
        black_box(fits);
    })
}

fn table(flows: u32) -> (FlowTable, Vec<FlowKey>) {
    let mut table = FlowTable::new(flows as usize + flows as usize / 4, HashSeed::fixed(7), Backing::Auto);
    for number in 0..flows {
        table.insert(&flow(number)).expect("there is room, and no flow comes twice");
    }
    let order = Shuffled::new(flows);
    let keys = order.take(KEYS.min(flows as usize)).map(|number| flow(number).client_key()).collect();
    (table, keys)
}

fn flow(number: u32) -> Flow {
    let (host, port) = scenario::client(number);
    let mut flow = Flow::zeroed();
    flow.client = Address::v4([198, 18, (host >> 8) as u8, host as u8]);
    flow.client_port = port;
    flow.destination = Address::v4(scenario::VIRTUAL_IP);
    flow.destination_port = scenario::VIRTUAL_PORT;
    flow.protocol = 17;
    flow.member = Address::v4([10, 1, 1, 1 + (number % scenario::MEMBERS) as u8]);
    flow.member_port = scenario::MEMBER_PORT;
    flow.source = Address::v4(scenario::SELF_IP);
    flow.source_port = 1024 + (number / scenario::MEMBERS) as u16;
    flow
}

fn find_one(flows: u32, hit: bool) -> Box<dyn FnMut()> {
    let (table, mut keys) = table(flows);
    if !hit {
        keys.iter_mut().for_each(|key| key.dst_port = 7);
    }
    let mut next = 0;
    Box::new(move || {
        let key = &keys[next];
        black_box(table.find(black_box(key), table.hash(key)));
        next = if next + 1 < keys.len() { next + 1 } else { 0 };
    })
}

/// As the pipeline does it: all hashes and buckets, then all records, then all look-ups.
fn find_burst(flows: u32) -> Box<dyn FnMut()> {
    let (table, keys) = table(flows);
    let mut next = 0;
    Box::new(move || {
        let burst: &[FlowKey; LOOK_AHEAD] = keys[next..].first_chunk().expect("the end is handled below");
        let hashes = burst.map(|key| table.hash(&key));
        hashes.iter().for_each(|&hash| table.prefetch_bucket(hash));
        let near = hashes.map(|hash| table.prefetch_flow(hash));
        for ((key, &hash), near) in burst.iter().zip(&hashes).zip(near) {
            black_box(table.find_near(black_box(key), hash, near));
        }
        next = if next + 2 * LOOK_AHEAD <= keys.len() { next + LOOK_AHEAD } else { 0 };
    })
}

fn virtuals(count: u32) -> Parts {
    let mut parts = scenario::parts();
    parts.virtuals = (0..count)
        .map(|id| scenario::virtual_server(id, virtual_address(id), scenario::VIRTUAL_PORT, Protocol::Udp))
        .collect();
    parts
}

fn virtual_address(id: u32) -> Address {
    Address::v4((0x0a40_0000 + id).to_be_bytes())
}

fn find_virtual(count: u32) -> Box<dyn FnMut()> {
    let parts = virtuals(count);
    let index = VirtualIndex::build(&parts.virtuals);
    let key = |id| FlowKey { dst: virtual_address(id), ..flow(id).client_key() };
    let keys: Vec<FlowKey> = Shuffled::new(count).take(KEYS.min(count as usize)).map(key).collect();
    let (mut next, link) = (0, LinkId::new(PortId(0), 0));
    Box::new(move || {
        let found = index.find(black_box(&keys[next]), link, &parts.virtuals);
        debug_assert!(found.is_some());
        black_box(found);
        next = if next + 1 < keys.len() { next + 1 } else { 0 };
    })
}

/// 128-byte answers over 64 connections.
fn requests(layer: Layer) -> Box<dyn FnMut()> {
    let mut proxied = ProxiedWorker::with_connections(layer, CONNECTIONS);
    (0..WARM_TURNS).for_each(|_| proxied.turn_requests(CONNECTIONS));
    proxied.into_requests(CONNECTIONS)
}

fn snat(in_use: usize) -> Box<dyn FnMut()> {
    let mut ports = SnatPorts::new(Arc::new(Rules::of_ports(1 << 16, 1, &[])), 0, 16, 42);
    let member = Address::v4([10, 1, 1, 1]);
    let pair = Pair { address: Address::v4(scenario::SELF_IP), member, member_port: 80, protocol: 6 };
    for _ in 0..in_use {
        ports.take(pair).expect("fewer than there are");
    }
    let mut now_ms = 0;
    Box::new(move || {
        // A thousand a second: at 99 % in use all that is free rests, too.
        now_ms += 1;
        ports.advance(now_ms);
        if let Ok(port) = ports.take(black_box(pair)) {
            ports.release(pair, black_box(port));
        }
    })
}

fn build_snapshot(count: u32) -> Box<dyn FnMut()> {
    let parts = virtuals(count);
    Box::new(move || {
        black_box(Snapshot::build(parts.clone()));
    })
}

/// What the worker itself does about a new configuration of 1,000 virtual servers, of which none has changed.
fn apply() -> Box<dyn FnMut()> {
    let mut worker = SteadyWorker::with(virtuals(1_000), 1_000);
    let mut next = virtuals(1_000);
    next.generation = 2;
    let snapshot = Arc::new(Snapshot::build(next));
    Box::new(move || worker.apply(Arc::clone(&snapshot)))
}

/// Every number below a bound once, in an order that no prefetcher knows.
struct Shuffled {
    numbers: std::vec::IntoIter<u32>,
}

impl Shuffled {
    fn new(bound: u32) -> Self {
        let mut numbers: Vec<u32> = (0..bound).collect();
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        for place in (1..numbers.len()).rev() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            numbers.swap(place, (random % (place as u64 + 1)) as usize);
        }
        Self { numbers: numbers.into_iter() }
    }
}

impl Iterator for Shuffled {
    type Item = u32;
    fn next(&mut self) -> Option<u32> {
        self.numbers.next()
    }
}

const CONNECTIONS: u16 = 64;
/// Longer than anything lasts that connections leave behind.
const WARM_TURNS: u32 = 300;
const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
const CLIENT6: &str = "2001:db8:c::7";
const VIRTUAL6: &str = "2001:db8:1::100";
/// Keys looked up in turn: more than the caches keep records of.
const KEYS: usize = 1 << 17;
