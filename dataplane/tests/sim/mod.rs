//! A simulated world around real workers: clients, members and links, all from one seed, on a clock of its own.
//!
//! ```text
//!   client ── link ─▶ queue of some worker │ workers, rings │ ─▶ link ── member      link.rs: loss, delay, …
//!   hosts.rs                               │ process.rs     │            hosts.rs    schedule.rs: what a seed means
//!   client.rs                              │ node.rs        │           member.rs    checker.rs: what must hold
//! ```
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "a harness")]

pub mod changes;
pub mod checker;
pub mod client;
pub mod endpoint;
pub mod hosts;
pub mod link;
pub mod member;
pub mod node;
pub mod noise;
pub mod process;
pub mod random;
pub mod schedule;
pub mod setup;
pub mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_dataplane::config::ids::PortId;
use sluice_dataplane::config::snapshot::{MemberStates, Parts, Snapshot};
use sluice_dataplane::frame::FramePool;
use sluice_dataplane::quota::Quotas;
use sluice_dataplane::verdict::DropReason;

use self::checker::Checker;
use self::client::{ClientEnd, Clients, Ends};
use self::member::{Answer, Members};
use self::node::Node;
use self::random::Random;
use self::schedule::{Change, Plan};
use crate::world::EXTERNAL;

/// Something that is to happen.
#[derive(Debug, Clone)]
enum Event {
    Start(usize),
    ClientTimer(usize),
    MemberTimer(Ends),
    ToSluice(PortId, Vec<u8>),
    ToHost(PortId, Vec<u8>),
    Change(Change),
    /// One worker takes the newest configuration.
    Apply(usize),
    Flood,
    Garbage,
}

/// What the harness does wrong on purpose, to show that the checker sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    None,
    /// A member's data carries another connection's tag.
    SwapPayloads,
    /// Members answer from another port.
    WrongMemberPort,
    /// Members see another source than sluice sent.
    WrongSource,
    /// A frame vanishes inside.
    LoseFrame,
    /// A frame is held for ever.
    HoldFrame,
    /// The checker believes every limit to be one less.
    TighterLimits,
    /// The world ends before flows have timed out.
    EndEarly,
}

/// How a world went.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub violations: Vec<String>,
    /// Of all frames in and out, with their times.
    pub trace: u64,
    pub connections: usize,
    pub complete: usize,
    pub refused: usize,
    pub stale: u64,
    pub frames: u64,
    pub handed_over: u64,
    /// Complete connections whose ports several workers had to keep.
    pub kept: usize,
    /// By name.
    pub drops: BTreeMap<&'static str, u64>,
}

pub struct Sim {
    plan: Plan,
    sabotage: Sabotage,
    random: Random,
    now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    order: u64,
    nodes: Vec<Node>,
    states: Arc<MemberStates>,
    quotas: Arc<Quotas>,
    parts: Parts,
    snapshot: Arc<Snapshot>,
    frames: FramePool,
    held: Vec<sluice_dataplane::frame::Frame>,
    clients: Clients,
    members: Members,
    checker: Checker,
    trace: u64,
    frame_count: u64,
    steps: u64,
    swaps: u8,
    is_aloud: bool,
}

impl Sim {
    /// The world of `seed`. `frames` may be shared by worlds that run one after the other.
    pub fn new(plan: Plan, sabotage: Sabotage, frames: &FramePool) -> Self {
        let snapshot = Arc::new(Snapshot::build(plan.parts.clone()));
        let states = Arc::new(MemberStates::new(setup::MEMBERS_MAX));
        let quotas = Arc::new(Quotas::new(&plan.limits, plan.workers));
        quotas.set_limits(&snapshot);
        let mut checker = Checker::new(&plan);
        if sabotage == Sabotage::TighterLimits {
            checker.tighten();
        }
        Self {
            random: Random::new(plan.seed ^ 0x5eed),
            now: 1_000,
            queue: BTreeMap::new(),
            order: 0,
            nodes: Node::all(&plan, &snapshot, &states, &quotas),
            states,
            quotas,
            parts: plan.parts.clone(),
            snapshot,
            frames: frames.clone(),
            held: Vec::new(),
            clients: Clients::new(&plan),
            members: Members::new(&plan),
            checker,
            trace: 0xcbf2_9ce4_8422_2325,
            frame_count: 0,
            steps: 0,
            swaps: 0,
            is_aloud: false,
            plan,
            sabotage,
        }
    }

    /// Prints every frame that enters or leaves sluice.
    pub fn aloud(self, is_aloud: bool) -> Self {
        Self { is_aloud, ..self }
    }

    /// Lives through it.
    pub fn run(mut self) -> Outcome {
        self.schedule();
        let mut quiet_since = self.now;
        while self.now - quiet_since < self.longest_timeout() {
            let next = self.queue.keys().next().map_or(u64::MAX, |&(at, _)| at);
            if next != u64::MAX {
                quiet_since = self.now.max(next.min(self.now + TICK_MS));
            }
            self.now = next.clamp(self.now, self.now + self.tick());
            self.happen();
            self.settle();
            self.steps += 1;
            if self.steps > STEPS_MAX {
                self.checker.violated("the world does not come to rest");
                break;
            }
        }
        self.conclude()
    }

    fn schedule(&mut self) {
        let start = self.now;
        let starts = self.plan.connections.iter().enumerate();
        let mut events: Vec<_> = starts.map(|(number, c)| (c.at_ms, Event::Start(number))).collect();
        events.extend(self.plan.changes.iter().map(|&(at, change)| (at, Event::Change(change))));
        events.extend(self.plan.floods.iter().map(|&at| (at, Event::Flood)));
        events.extend(self.plan.garbage.iter().map(|&at| (at, Event::Garbage)));
        for (at, event) in events {
            self.later(start + at, event);
        }
    }

    fn later(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.queue.insert((at, self.order), event);
    }

    /// Everything that is due now.
    fn happen(&mut self) {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > self.now {
                return;
            }
            let event = entry.remove();
            self.on_event(event);
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Start(number) => {
                let packets = self.clients.start(number, &mut self.random, self.now);
                self.client_sends(number, packets);
            }
            Event::ClientTimer(number) => {
                let packets = self.clients.on_time(number, self.now);
                self.client_sends(number, packets);
            }
            Event::MemberTimer(key) => {
                let packets = self.members.on_time(key, self.now);
                self.member_sends(packets.into_iter().map(Answer::Packet).collect());
                self.wind_member(key);
            }
            Event::ToSluice(port, bytes) => self.deliver(port, &bytes),
            Event::ToHost(port, bytes) => self.host_hears(port, &bytes),
            Event::Change(change) => self.change(change),
            Event::Apply(number) => self.nodes[number].apply(&self.snapshot, self.now),
            Event::Flood => {
                noise::flood(&mut self.random).iter().for_each(|frame| self.send(EXTERNAL, frame));
            }
            Event::Garbage => {
                let (port, frame) = noise::garbage(&mut self.random);
                self.send(port, &frame);
            }
        }
    }

    /// A host puts a frame on its link to sluice.
    fn send(&mut self, port: PortId, frame: &[u8]) {
        for (delay, bytes) in self.plan.weather.carry(&mut self.random, frame) {
            self.later(self.now + delay, Event::ToSluice(port, bytes));
        }
    }

    fn note(&mut self, way: u8, port: PortId, bytes: &[u8]) {
        if self.is_aloud {
            println!(
                "{} {} port {} {:?}",
                self.now,
                ["in", "out"][usize::from(way)],
                port.0,
                wire::hear(bytes)
            );
        }
        self.frame_count += 1;
        let time = self.now.to_le_bytes();
        for &byte in time.iter().chain(&[way, port.0]).chain(bytes) {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// How long after the last event nothing may be left.
    fn longest_timeout(&self) -> u64 {
        let is_removed = self.parts.virtuals.len() < self.plan.parts.virtuals.len();
        let of = |item: &sluice_dataplane::config::snapshot::Virtual| {
            let times = item.timeouts;
            times.handshake_ms.max(times.close_ms).max(times.idle_ms)
        };
        let longest = self.plan.parts.virtuals.iter().map(of).max().unwrap_or(0);
        match self.sabotage {
            Sabotage::EndEarly => 100,
            _ if is_removed => 302_000,
            _ => u64::from(longest) + 4_000,
        }
    }

    fn tick(&self) -> u64 {
        if self.queue.is_empty() { 10 * TICK_MS } else { TICK_MS }
    }

    fn conclude(mut self) -> Outcome {
        let waiting = self.frames.in_use();
        if self.sabotage != Sabotage::EndEarly || waiting == 0 {
            self.checker.check_end(&mut self.nodes, waiting, self.now);
        }
        self.check_completion();
        let ends = &self.clients.ends;
        let is_kept = |end: &&ClientEnd| self.plan.workers > 1 && self.keeps_port(end) && end.is_complete();
        Outcome {
            kept: ends.iter().filter(is_kept).count(),
            connections: ends.len(),
            complete: ends.iter().filter(|end| end.is_complete()).count(),
            refused: ends.iter().filter(|end| end.refused).count(),
            stale: self.clients.stale,
            frames: self.frame_count,
            handed_over: self.nodes.iter().map(|node| node.counters.handed_over.load()).sum(),
            trace: self.trace,
            drops: self.drops(),
            violations: self.checker.violations,
        }
    }

    fn drops(&self) -> BTreeMap<&'static str, u64> {
        let total =
            |reason: &DropReason| self.nodes.iter().map(|node| node.counters.of_drop(*reason).load()).sum();
        let all = DropReason::ALL.iter().map(|reason| (reason.name(), total(reason)));
        all.filter(|&(_, count)| count > 0).collect()
    }

    fn keeps_port(&self, end: &ClientEnd) -> bool {
        let parts = &self.plan.parts;
        let id = setup::virtual_of(parts, end.plan.target, end.plan.protocol);
        id.is_some_and(|id| setup::keeps_ports(&parts.virtuals[id.index()]))
    }

    /// In a calm world whatever is meant well ends well.
    fn check_completion(&mut self) {
        if !self.plan.calm {
            return;
        }
        let parts = &self.plan.parts;
        for end in &self.clients.ends {
            let served = setup::virtual_of(parts, end.plan.target, end.plan.protocol);
            let served = served.is_some_and(|id| setup::serves(&parts.virtuals[id.index()]));
            // Its port may have been another's.
            let served = served && !(self.plan.turning && end.refused);
            if served && end.plan.orderly && end.ends.is_some() && !end.is_complete() {
                let (plan, tcp, udp, ends) = (&end.plan, &end.tcp, &end.udp, end.ends);
                let what =
                    format!("connection {} is not complete: {plan:?} {tcp:?} {udp:?} {ends:?}", end.tag);
                self.checker.violated(what);
            }
        }
    }
}

const TICK_MS: u64 = 40;
const STEPS_MAX: u64 = 50_000;
