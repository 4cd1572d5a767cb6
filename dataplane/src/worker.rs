//! The worker: everything one pinned thread owns, and its turn.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use sluice_ffi::memory::{Backing, Pages};

use crate::admit::connections_of;
use crate::clock::Instant;
use crate::config::ids::PortId;
use crate::config::snapshot::Snapshot;
use crate::counters::WorkerCounters;
use crate::flow::key::HashSeed;
use crate::fragment;
use crate::frame::{BURST_MAX, CHUNK_BYTES, Frame};
use crate::neighbor::AGEING_PERIOD_MS;
use crate::outgoing::Outgoing;
use crate::pipeline::{LOOK_AHEAD, Pipeline, PipelineSpec, PortFacts};
use crate::port::PortQueue;
use crate::query::{FlowInfo, FlowPage, Query, Reply};
use crate::runtime::WorkerSpec;
use crate::tcp::Engine;

/// Whether a turn found work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Frames came or went, or timers were due.
    Busy,
    /// Nothing to do.
    Quiet,
}

/// What is true of a worker once it has started, for `show workers`.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// Its tables.
    pub tables: Vec<TableFacts>,
}

/// One table of a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct TableFacts {
    /// What it holds, as in `docs/LIMITS.md`.
    pub name: &'static str,
    /// How many it can hold.
    pub capacity: usize,
    /// Bytes taken for it, resident or not.
    pub bytes: usize,
    /// `huge` or `ordinary`.
    pub pages: &'static str,
}

/// One worker.
pub struct Worker {
    pipeline: Pipeline,
    queues: Vec<Box<dyn PortQueue>>,
    outgoing: Outgoing,
    counters: Arc<WorkerCounters>,
    received: Vec<Frame>,
    link_up: Vec<bool>,
    /// When slow work (ageing, driver counters) is next due.
    slow_due: Instant,
    timers_due: Instant,
    /// When the last turn began, if it was a busy one: nobody slept between that and this.
    busy_since: Option<Instant>,
    /// Packets of a queue that timers may yet wait for; `None` when none seem to wait.
    patience: Option<usize>,
}

impl Worker {
    /// Takes all its tables. Hugepages where the machine has free ones.
    pub fn new(spec: WorkerSpec) -> Self {
        Self::with_tables(spec, HashSeed::random(), Backing::Auto)
    }

    /// With a given hash seed and kind of memory, for tests that must repeat.
    pub fn with_tables(spec: WorkerSpec, seed: HashSeed, backing: Backing) -> Self {
        let facts = spec.ports.iter().map(|(info, _)| PortFacts { mac: info.mac, mtu: info.mtu }).collect();
        let queues: Vec<_> = spec.ports.into_iter().map(|(_, queue)| queue).collect();
        Self {
            pipeline: Pipeline::new(PipelineSpec {
                snapshot: spec.snapshot,
                ports: facts,
                limits: spec.limits,
                worker: (spec.number, spec.workers),
                handoff: spec.handoff,
                members: spec.members,
                quotas: spec.quotas,
                persistence: spec.persistence,
                rates: spec.rates,
                rules: spec.rules,
                counters: Arc::clone(&spec.counters),
                peers: spec.peers,
                access_log: spec.access_log,
                frames: spec.frames,
                seed,
                backing,
            }),
            outgoing: Outgoing::new(queues.len()),
            link_up: vec![false; queues.len()],
            queues,
            counters: spec.counters,
            received: Vec::with_capacity(BURST_MAX),
            slow_due: Instant::ZERO,
            timers_due: Instant::ZERO,
            busy_since: None,
            patience: None,
        }
    }

    /// One turn: receive, decide, send, run what is due. The whole of a worker's work.
    #[inline]
    pub fn turn(&mut self, now: Instant) -> Activity {
        self.pipeline.now = now;
        let mut busy = self.receive(now);
        busy |= self.take_strays(now);
        busy |= self.run_due(now);
        busy |= self.pipeline.run_proxies(&mut self.outgoing);
        busy |= self.run_neighbor_events();
        busy |= self.send();
        self.count_turn(now, busy);
        if busy { Activity::Busy } else { Activity::Quiet }
    }

    /// Puts a new configuration in force. Flows stay; what is new is announced.
    pub fn apply(&mut self, snapshot: Arc<Snapshot>, now: Instant) {
        self.pipeline.apply(snapshot, now);
    }

    /// The generation of the configuration in force.
    pub fn generation(&self) -> u64 {
        self.pipeline.snapshot.generation()
    }

    /// Answers a question. Bounded work.
    pub fn answer(&mut self, query: &Query, now: Instant) -> Reply {
        match query {
            Query::Flows { after, max } => {
                Reply::Flows(self.pipeline.flow_page(*after, (*max).min(256), now))
            }
            Query::Neighbors => Reply::Neighbors(self.pipeline.neighbors.list(now)),
            Query::Snat => Reply::Snat(self.pipeline.snat.list()),
        }
    }

    /// From now on no new flows.
    pub fn drain(&mut self) {
        self.pipeline.drain();
    }

    /// Ends every connection that is still open, a slice a turn from the next on, and tells both of its ends.
    pub fn end_connections(&mut self) {
        self.pipeline.end_all();
    }

    /// Table sizes and where their memory came from.
    pub fn facts(&self) -> Facts {
        Facts { tables: self.pipeline.table_facts() }
    }

    /// What to sleep on, by port.
    pub fn wait_fds(&self) -> Vec<Option<RawFd>> {
        self.queues.iter().map(|queue| queue.wait_fd()).collect()
    }

    /// How long nothing will be due.
    pub fn next_due(&self, now: Instant) -> Duration {
        // Slow work waits for the timers' turn, so the sooner of the two would be a time at which nothing happens.
        let due =
            if self.pipeline.timers_idle() { self.slow_due.max(self.timers_due) } else { self.timers_due };
        let proxies = self.pipeline.proxies_due_in();
        proxies.map_or(due.since(now), |proxies| proxies.min(due.since(now)))
    }

    /// Says how long the worker has slept.
    pub fn slept(&mut self, span: Duration) {
        let counters = self.counters.of_loop();
        counters.sleeps.add(1);
        counters.slept_ns.add(span.as_nanos() as u64);
    }

    fn receive(&mut self, now: Instant) -> bool {
        let (mut busy, mut least) = (false, usize::MAX);
        for place in 0..self.queues.len() {
            let mut frames = std::mem::take(&mut self.received);
            let count = self.queues[place].rx(&mut frames);
            if count > 0 {
                busy = true;
                least = if count >= MANY { least.min(count) } else { least };
                self.process(PortId(place as u8), &mut frames, now);
                frames.clear();
            }
            self.received = frames;
        }
        // Where many came, more may wait behind them.
        let more = least < usize::MAX;
        self.patience = more.then(|| self.patience.map_or(PATIENCE, |left| left.saturating_sub(least)));
        self.pipeline.is_behind = self.patience.is_some_and(|left| left > 0);
        busy
    }

    /// Decides about what has come from `port`, a part at a time; what is urgent leaves in between.
    #[inline]
    fn process(&mut self, port: PortId, frames: &mut [Frame], now: Instant) {
        let mut bytes = 0;
        for part in frames.chunks_mut(LOOK_AHEAD) {
            bytes += self.pipeline.process(port, part, &mut self.outgoing, now);
            self.send_urgent();
        }
        let traffic = &self.counters.of_port(port).frames;
        traffic.packets_in.add(frames.len() as u64);
        traffic.bytes_in.add(bytes);
    }

    /// Decides about what other workers have handed over, a burst at most.
    #[inline]
    fn take_strays(&mut self, now: Instant) -> bool {
        let mut parts = 0;
        while parts < BURST_MAX / LOOK_AHEAD && self.pipeline.process_strays(&mut self.outgoing, now) {
            self.send_urgent();
            parts += 1;
        }
        parts > 0
    }

    /// Asks for next hops, and sends or drops what has waited for them; what is urgent leaves in between.
    #[inline]
    fn run_neighbor_events(&mut self) -> bool {
        let mut had_some = false;
        while self.pipeline.run_neighbor_events(&mut self.outgoing) {
            self.send_urgent();
            had_some = true;
        }
        had_some
    }

    #[inline(always)]
    fn send_urgent(&mut self) {
        if self.outgoing.is_urgent() {
            self.send();
        }
    }

    fn send(&mut self) -> bool {
        let mut busy = false;
        for (place, queue) in self.queues.iter_mut().enumerate() {
            busy |= self.outgoing.flush(PortId(place as u8), queue.as_mut(), &self.counters);
        }
        busy | self.outgoing.has_waiting()
    }

    #[inline]
    fn run_due(&mut self, now: Instant) -> bool {
        let swept = self.pipeline.act_on_service_down(&mut self.outgoing)
            | self.pipeline.end_some(&mut self.outgoing)
            | self.pipeline.settle_owners(&mut self.outgoing);
        if self.pipeline.queue.is_poked() {
            self.pipeline.serve_queue(&mut self.outgoing);
        }
        if now < self.timers_due {
            return swept;
        }
        if self.pipeline.is_behind {
            return true;
        }
        let more = self.expire() | self.pipeline.announce_some(&mut self.outgoing) | swept;
        self.pipeline.persistence.sweep(self.pipeline.now_ms());
        if !more {
            self.timers_due = now + TIMER_PERIOD;
        }
        if !self.pipeline.queue.is_empty() {
            self.pipeline.serve_queue(&mut self.outgoing);
        }
        if now >= self.slow_due {
            self.slow_due = now + SLOW_PERIOD;
            self.pipeline.neighbors.age(now);
            self.pipeline.snat.advance(now.as_ns() / 1_000_000);
            self.look_at_ports();
            self.pipeline.report_groups();
            self.pipeline.publish_gauges();
        }
        more
    }

    /// Ends flows that are due, twice as many as a burst can begin at most; their RSTs leave in between. True when there
    /// may be more.
    fn expire(&mut self) -> bool {
        for _ in 0..EXPIRIES_A_TURN {
            if !self.pipeline.expire(&mut self.outgoing) {
                return false;
            }
            self.send_urgent();
        }
        true
    }

    #[cold]
    fn look_at_ports(&mut self) {
        for (place, queue) in self.queues.iter_mut().enumerate() {
            let port = PortId(place as u8);
            let (driver, counters) = (queue.counters(), self.counters.of_port(port));
            counters.rx_missed.set(driver.rx_missed);
            counters.rx_errors.set(driver.rx_errors);
            counters.rx_no_memory.set(driver.rx_no_memory);
            counters.tx_errors.set(driver.tx_errors);
            counters.hash_right.set(driver.hash_right);
            counters.hash_wrong.set(driver.hash_wrong);
            let up = queue.is_link_up();
            counters.link_up.set(u64::from(up));
            if let Some(mtu) = queue.mtu() {
                counters.mtu.set(u64::from(mtu));
                self.pipeline.follow_mtu(port, mtu);
            }
            if up && !std::mem::replace(&mut self.link_up[place], up) {
                self.pipeline.announce_all(|(_, link)| link.port() == port);
            }
            self.link_up[place] = up;
        }
    }

    #[inline]
    fn count_turn(&mut self, now: Instant, busy: bool) {
        let counters = self.counters.of_loop();
        counters.turns.add(1);
        counters.busy_turns.add(u64::from(busy));
        let began = std::mem::replace(&mut self.busy_since, busy.then_some(now));
        let length = began.map_or(0, |began| now.since(began).as_nanos() as u64);
        if length > counters.longest_turn_ns.load() {
            counters.longest_turn_ns.set(length);
        }
    }
}

impl Pipeline {
    /// Puts a new configuration in force.
    fn apply(&mut self, snapshot: Arc<Snapshot>, now: Instant) {
        self.now = now;
        let before = std::mem::replace(&mut self.snapshot, snapshot);
        self.loans.clear();
        self.epoch = self.snapshot.generation() as u32;
        let settings = &self.snapshot.parts().settings;
        self.rejects.set_rate(self.owners.share_of(settings.max_reject_rate));
        self.icmp_errors.set_rate(self.owners.share_of(settings.max_icmp_rate));
        let snapshot = Arc::clone(&self.snapshot);
        let counters = Arc::clone(&self.counters);
        self.quota.follow(Some(&before), &self.snapshot, |what| connections_of(&counters, what));
        self.sweep.begin_anew();
        self.snat.own_by_port(snapshot.kept_port_sources());
        self.snat.exclude(snapshot.listened_sources());
        self.balancers.retain(|id, _| snapshot.pool(*id).is_some());
        self.neighbors.retain(|hop| snapshot.has_link(hop.link));
        self.defended.retain(|&(address, link), _| snapshot.answers_for(address, link));
        self.announce_new(&before);
    }

    /// The port carries packets of at most `mtu` bytes now: for whatever is sent from here on, and for proxied
    /// connections that are opened from here on.
    fn follow_mtu(&mut self, port: PortId, mtu: u16) {
        let facts = &mut self.ports[usize::from(port.0)];
        let mtu = mtu.max(MTU_MIN);
        if facts.mtu != mtu {
            facts.mtu = mtu;
            self.proxies.set_mtu(self.ports.iter().map(|port| port.mtu).min().unwrap_or(mtu));
        }
    }

    /// Flows first, then proxied connections, whose places follow.
    fn flow_page(&self, after: usize, max: usize, now: Instant) -> FlowPage {
        let first_proxy = self.flows.capacity();
        if let Some(place) = after.checked_sub(first_proxy) {
            return self.proxy_page(place, max, first_proxy);
        }
        let (ids, next) = self.flows.page(after, max);
        let info = |id| {
            self.flows.get(id).map(|flow| FlowInfo {
                client: (flow.client, flow.client_port),
                destination: (flow.destination, flow.destination_port),
                source: (flow.source, flow.source_port),
                member: (flow.member, flow.member_port),
                protocol: flow.protocol,
                state: flow.state_name(),
                virtual_id: flow.virtual_id,
                member_id: flow.member_id,
                idle_ms: now.as_ms().wrapping_sub(flow.last_seen_ms),
                bytes: (flow.bytes[0], flow.bytes[1]),
            })
        };
        let next = next.or((self.proxies.slots.len() > 0).then_some(first_proxy));
        FlowPage { flows: ids.into_iter().filter_map(info).collect(), next }
    }

    fn timers_idle(&self) -> bool {
        self.flows.is_empty() && self.announcements.is_empty() && self.queue.is_empty()
    }

    fn publish_gauges(&self) {
        self.counters.flows.set(self.flows.len() as u64);
        self.counters.half_open.set((self.half_open.count() + self.proxies.handshakes.len()) as u64);
        self.counters.proxies.set(self.proxies.slots.len() as u64);
        self.counters.syn_cookies.set(self.proxies.handshakes.cookies());
        self.counters.neighbors.set(self.neighbors.len() as u64);
        self.counters.snat_ports.set(self.snat.in_use() as u64);
    }

    /// Proxied connections; their buffers come with the first that needs them and stay.
    fn proxy_fact(&self) -> TableFacts {
        let proxies = &self.proxies;
        let bytes = proxies.handshakes.bytes() + proxies.time_wait.bytes() + proxies.timers.bytes();
        TableFacts { name: "proxies", capacity: proxies.engine.capacity() / 2, bytes, pages: "ordinary" }
    }

    /// This worker's tables; the first worker's list has the one that all share, too.
    fn table_facts(&self) -> Vec<TableFacts> {
        let (flow_bytes, pages) = self.flows.memory();
        let word = |pages| if pages == Pages::Huge { "huge" } else { "ordinary" };
        let (pages, frame_pages) = (word(pages), word(self.frames.pages()));
        let fact = |name, capacity, bytes, pages| TableFacts { name, capacity, bytes, pages };
        let shared = (self.worker == 0)
            .then(|| fact("persistence", self.persistence.capacity(), self.persistence.bytes(), "ordinary"));
        let own = vec![
            fact(
                "flows",
                self.flows.capacity(),
                flow_bytes + self.timers.bytes() + self.half_open.bytes(),
                pages,
            ),
            fact("half-open", self.half_open_max, 0, pages),
            self.proxy_fact(),
            fact("neighbors", self.neighbors.capacity(), self.neighbors.bytes(), "ordinary"),
            fact("snat-port-sets", self.snat.capacity(), self.snat.bytes(), "ordinary"),
            fact("fragments", fragment::table::PACKETS_MAX, self.fragments.bytes(), "ordinary"),
            fact("frames", self.frames.frames_max(), self.frames.frames_max() * CHUNK_BYTES, frame_pages),
            fact("counters", 1, self.counters.bytes(), "ordinary"),
            fact("access-log", self.access_log.capacity(), self.access_log.bytes(), "ordinary"),
        ];
        own.into_iter().chain(shared).collect()
    }
}

/// RFC 791 section 3.2: every link carries so much.
const MTU_MIN: u16 = 68;
/// So many at once, and more may wait behind them.
const MANY: usize = 16;
/// Of 64 flows each.
const EXPIRIES_A_TURN: usize = 8;
/// Packets of a queue for which timers wait: more than a queue holds, less than anybody notices.
const PATIENCE: usize = 8_192;
const TIMER_PERIOD: Duration = Duration::from_millis(16);
const SLOW_PERIOD: Duration = Duration::from_millis(AGEING_PERIOD_MS);
