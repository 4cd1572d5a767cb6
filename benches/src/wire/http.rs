//! `wire http`: requests through full proxies, with clients and members at the other end of the wire.
//!
//! ```text
//!   core 0  clients and members (crate::hosts) ──memif──▶ sluice, type standard  core 1
//!           every byte of every answer is looked at
//! ```
//!
//! Who is the limit: on both sides the time of turns that found nothing to do is known, so each says how busy it is, and the
//! generator what it could do alone.

use std::time::{Duration, Instant};

use sluice_dataplane::config::snapshot::Protocol;
use sluice_ffi::tsc;

use super::device::{PROXY_MEMBERS, Setup};
use super::ground::{Device, Ground, Link};
use super::spent::{Look, Quiet, Spent};
use super::station::Station;
use crate::hosts::load::Load;
use crate::hosts::wire::Wire;
use crate::hosts::{Exchange, Hosts, Tally};
use crate::machine::{self, RealTime};
use crate::proxied::Layer;
use crate::report::{grown, median, range};
use crate::scenario::Shape;

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// One after the other, each with a sluice of its own.
    pub traffic: Vec<Traffic>,
    /// Clients at once; large answers go to [`Plan::streams`] of them.
    pub connections: usize,
    /// Clients of large answers.
    pub streams: usize,
    /// Timed windows of each.
    pub rounds: usize,
    /// Length of a window.
    pub span: Duration,
    /// Real-time priority while it is measured.
    pub real_time: bool,
    /// The device's core.
    pub core: usize,
}

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// HTTP requests for 128 bytes over connections that stay.
    KeepAlive,
    /// The same, each over a connection of its own, which the proxy closes.
    Connections,
    /// HTTP requests for 1 MiB over connections that stay.
    Objects,
    /// The same messages as [`Traffic::KeepAlive`] through a proxy that knows no HTTP.
    Tcp,
}

impl Traffic {
    /// All there is.
    pub const ALL: [Self; 4] = [Self::KeepAlive, Self::Connections, Self::Objects, Self::Tcp];

    /// Its name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive",
            Self::Connections => "connections",
            Self::Objects => "objects",
            Self::Tcp => "tcp",
        }
    }

    fn layer(self) -> Layer {
        if self == Self::Tcp { Layer::Stream } else { Layer::Http }
    }

    fn exchange(self) -> Exchange {
        let body_bytes = if self == Self::Objects { OBJECT_BYTES } else { ANSWER_BYTES };
        Exchange { is_http: self != Self::Tcp, closes: self == Self::Connections, body_bytes }
    }
}

/// Runs `plan` and prints two lines each.
///
/// # Errors
/// What could not be started, and every answer that did not come as it should.
pub fn run(ground: &mut Ground, plan: &Plan) -> Result<(), String> {
    println!("{}", ground.about());
    println!("full proxies; clients and members on core 0, sluice on core {}", plan.core);
    let mut failures = Vec::new();
    for &traffic in &plan.traffic {
        let outcome = measure(ground, plan, traffic)?;
        outcome.print(traffic);
        failures.extend(outcome.failure().map(|why| format!("{}: {why}", traffic.name())));
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}

fn measure(ground: &mut Ground, plan: &Plan, traffic: Traffic) -> Result<Outcome, String> {
    let clients = if traffic == Traffic::Objects { plan.streams } else { plan.connections };
    let shape = Shape { protocol: Protocol::Tcp, flows: 1_000, idle_ms: 300_000 };
    let cores = [plan.core];
    let setup = Setup { shape, cores: &cores, ballast: None, proxy: Some(traffic.layer()) };
    let mut link = ground.link(&Device::Sluice(setup), RING_LOG2)?;
    let mut station = link.stations.pop().ok_or("a wire without a queue")?;
    let mac = station.connect(|| link.device.is_running()).map_err(|why| ground.with_log(&why))?;
    let hosts = Hosts::new(traffic.exchange(), clients, PROXY_MEMBERS as usize, (mac, station.mac));
    Run::new(station, hosts, &link).measure(plan, clients)
}

/// One sluice from its first request to its last.
struct Run<'a> {
    load: Load<Ours>,
    link: &'a Link,
    worked: Worked,
}

/// Time of the generator, in cycles of the time-stamp counter.
#[derive(Debug, Clone, Copy, Default)]
struct Worked {
    all: u64,
    /// In turns that found nothing to do.
    idle: u64,
}

/// What a window has seen.
struct Window {
    rate: f64,
    /// What a request cost the proxy.
    cycles: f64,
    /// The share of its time that the proxy had work.
    proxy_busy: f64,
    /// Of its core, the share that it had.
    proxy_share: f64,
    own_cycles: f64,
    own_busy: f64,
    /// Of its core, the share that the generator had.
    own_share: f64,
}

struct Outcome {
    clients: usize,
    body_bytes: usize,
    windows: Vec<Window>,
    /// A request, where the processor counts.
    instructions: Option<f64>,
    tally: Tally,
    /// Clients that still waited at the end.
    stuck: usize,
    drops: String,
}

impl<'a> Run<'a> {
    fn new(station: Station, hosts: Hosts, link: &'a Link) -> Self {
        Self { load: Load { hosts, wire: Ours(station) }, link, worked: Worked::default() }
    }

    fn measure(mut self, plan: &Plan, clients: usize) -> Result<Outcome, String> {
        let pids = [std::process::id(), self.link.device.pid()];
        let drops = self.link.drops();
        let real_time = plan.real_time.then(|| RealTime::of(&pids));
        self.drive(SETTLE, true);
        self.drain();
        let counts = machine::has_hardware_counters().then_some(plan.core);
        let quiet = self.quiet(counts)?;
        self.drive(SETTLE, true);
        let windows = (0..plan.rounds).map(|_| self.window(plan.span, &quiet)).collect();
        let instructions = counts.and_then(|core| self.instructions(core, &quiet));
        self.drain();
        drop(real_time);
        let hosts = &self.load.hosts;
        Ok(Outcome {
            clients,
            body_bytes: hosts.body_bytes(),
            windows,
            instructions,
            tally: hosts.tally(),
            stuck: hosts.busy_clients(),
            drops: grown(&drops, &self.link.drops()),
        })
    }

    /// The proxy with all of its connections and nothing to do.
    fn quiet(&mut self, counts: Option<usize>) -> Result<Quiet, String> {
        let before = Look::at(self.link);
        self.drive(QUIET, false);
        let spent = Look::at(self.link).since(&before);
        let instructions =
            counts.and_then(|core| Spent::instructions_a_second(core, |span| self.drive(span, false)));
        Quiet::of(&spent, instructions).ok_or_else(|| "sluice does not say how many turns it makes".into())
    }

    fn window(&mut self, span: Duration, quiet: &Quiet) -> Window {
        let (before, answered) = (Look::at(self.link), self.load.hosts.tally().answered);
        let (start, own) = (Instant::now(), machine::cpu_time(std::process::id()));
        self.worked = Worked::default();
        self.drive(span, true);
        let own = machine::cpu_time(std::process::id()).saturating_sub(own);
        let seconds = start.elapsed().as_secs_f64();
        let answers = (self.load.hosts.tally().answered - answered) as f64;
        let spent = Look::at(self.link).since(&before);
        let busy = spent.busy_cycles(quiet);
        let Worked { all, idle } = self.worked;
        Window {
            rate: answers / seconds,
            cycles: busy / answers.max(1.0),
            proxy_busy: busy / spent.had_cycles().max(1.0),
            proxy_share: spent.share,
            own_cycles: (all - idle) as f64 / answers.max(1.0),
            own_busy: 1.0 - idle as f64 / all.max(1) as f64,
            own_share: own.as_secs_f64() / seconds,
        }
    }

    /// Of the proxy's core, for a request.
    fn instructions(&mut self, core: usize, quiet: &Quiet) -> Option<f64> {
        let (before, answered, start) =
            (Look::at(self.link), self.load.hosts.tally().answered, Instant::now());
        let a_second = Spent::instructions_a_second(core, |span| self.drive(span, true))?;
        let answers = (self.load.hosts.tally().answered - answered) as f64 / start.elapsed().as_secs_f64();
        let spent = Look::at(self.link).since(&before);
        Some((a_second - spent.idle_turns_a_second() * quiet.instructions_a_turn?) / answers.max(1.0))
    }

    /// Until every client has its answer, or no more come.
    fn drain(&mut self) {
        let start = Instant::now();
        while self.load.hosts.busy_clients() > 0 && start.elapsed() < DRAIN_MAX {
            self.drive(DRAIN_STEP, false);
        }
    }

    fn drive(&mut self, span: Duration, asks: bool) {
        let start = Instant::now();
        let mut last = tsc::cycles();
        while start.elapsed() < span {
            for _ in 0..TURNS_PER_LOOK {
                let frames = self.load.turn(asks);
                let now = tsc::cycles();
                self.worked.all += now - last;
                self.worked.idle += if frames == 0 { now - last } else { 0 };
                last = now;
            }
        }
    }
}

/// A station as the hosts' wire.
struct Ours(Station);

impl Wire for Ours {
    const SUMS: bool = true;

    fn receive(&mut self, mut take: impl FnMut(&[u8])) -> usize {
        self.0.receive(|bytes| {
            take(bytes);
            false
        })
    }

    fn put(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        self.0.put(len, fill)
    }

    fn flush(&mut self) {
        self.0.push_pending();
        if !self.0.burst.is_empty() {
            self.0.send();
        }
    }
}

impl Outcome {
    fn failure(&self) -> Option<String> {
        let Self { tally, stuck, windows, .. } = self;
        let is_good = tally.errors() == 0 && *stuck == 0 && windows.iter().all(|window| window.rate > 0.0);
        (!is_good).then(|| format!("{} errors, {stuck} clients without an answer", tally.errors()))
    }

    fn print(&self, traffic: Traffic) {
        let Self { clients, body_bytes, windows, instructions, tally, stuck, drops } = self;
        let of = |what: fn(&Window) -> f64| median(&windows.iter().map(what).collect::<Vec<_>>());
        let (rate, (low, high)) =
            (of(|w| w.rate), range(&windows.iter().map(|w| w.rate).collect::<Vec<_>>()));
        let counted =
            instructions.map_or(String::new(), |count| format!(", {:.1} k instructions", count / 1e3));
        println!(
            "{:<11} {clients:>5} clients  {rate:8.0} requests/s ({low:.0} to {high:.0}), {:.2} Gbit/s of answers | proxy: {:.1} k \
             cycles each{counted}, busy {:.0} % | generator: {:.1} k cycles each, busy {:.0} %, could do {:.0}",
            traffic.name(),
            rate * *body_bytes as f64 * 8e-9,
            of(|w| w.cycles) / 1e3,
            of(|w| w.proxy_busy) * 100.0,
            of(|w| w.own_cycles) / 1e3,
            of(|w| w.own_busy) * 100.0,
            rate / of(|w| w.own_busy).max(0.001),
        );
        println!(
            "            {} answers, every byte looked at, over {} connections and {} to members; wrong {}, broken {}, unsound {}, \
             strange {}, without an answer {stuck}, repeated {}; of its core the proxy had {:.0} %, the generator {:.0} % | drops: {drops}",
            tally.answered,
            tally.opened,
            tally.accepted,
            tally.wrong,
            tally.broken,
            tally.unsound,
            tally.strange,
            tally.repeated,
            of(|w| w.proxy_share) * 100.0,
            of(|w| w.own_share) * 100.0,
        );
    }
}

/// Half of the full-proxy connections that sluice has room for by default; those to members count, too.
pub const CLIENTS_MAX: usize = 8_192;
const ANSWER_BYTES: usize = 128;
const OBJECT_BYTES: usize = 1 << 20;
const RING_LOG2: u8 = 10;
const SETTLE: Duration = Duration::from_millis(300);
const QUIET: Duration = Duration::from_millis(200);
const DRAIN_STEP: Duration = Duration::from_millis(5);
/// Longer than TCP waits before it sends again.
const DRAIN_MAX: Duration = Duration::from_secs(3);
const TURNS_PER_LOOK: usize = 16;
