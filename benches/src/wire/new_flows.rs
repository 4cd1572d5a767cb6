//! `wire new-flows`: every packet begins a UDP flow; flows end by their idle timeout meanwhile.

use std::time::{Duration, Instant};

use sluice_dataplane::address::Mac;
use sluice_dataplane::config::snapshot::Protocol;
use sluice_ffi::tsc;

use super::device::Setup;
use super::ground::{Device, Ground, Link};
use super::station::Station;
use crate::machine::RealTime;
use crate::report::{grown, median, range};
use crate::scenario::{self, FRAME_BYTES, FrameWriter, Shape};

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Runs, each with a device of its own.
    pub rounds: usize,
    /// Length of a run.
    pub span: Duration,
    /// When a flow ends.
    pub idle: Duration,
    /// Flows that the device has room for.
    pub flows: u32,
    /// Flows a second; as many as the wire takes when there is none.
    pub rate: Option<f64>,
    /// A worker built in code instead of the `sluice` binary.
    pub in_code: bool,
    /// Real-time priority while it is measured.
    pub real_time: bool,
    /// The device's core.
    pub core: usize,
}

/// Runs `plan` and prints a row a round.
///
/// # Errors
/// What could not be started.
pub fn run(ground: &mut Ground, plan: &Plan) -> Result<(), String> {
    println!("{}", ground.about());
    println!("new UDP flows, room for {}, idle timeout {:?}; aim: 1 M a second", plan.flows, plan.idle);
    let shape = Shape { protocol: Protocol::Udp, flows: plan.flows, idle_ms: plan.idle.as_millis() as u32 };
    let setup = Setup { shape, cores: &[plan.core], ballast: None, proxy: None };
    let device = if plan.in_code { Device::InCode(setup) } else { Device::Sluice(setup) };
    let mut rates = Vec::new();
    for _ in 0..plan.rounds {
        let mut link = ground.link(&device, 10)?;
        let mut station = link.stations.pop().ok_or("a wire without a queue")?;
        let mac = station.connect(|| link.device.is_running()).map_err(|why| ground.with_log(&why))?;
        rates.push(Source::new(station, mac).measure(&link, plan));
    }
    let (low, high) = range(&rates);
    println!("new flows/s: {:.0} ({low:.0} to {high:.0})", median(&rates));
    Ok(())
}

struct Source {
    station: Station,
    writer: FrameWriter,
    next: u32,
    window: Window,
}

#[derive(Debug, Clone, Copy, Default)]
struct Window {
    sent: u64,
    good: u64,
    bad: u64,
    bursts: u64,
    full_bursts: u64,
}

impl Source {
    fn new(station: Station, mac: Mac) -> Self {
        let writer = FrameWriter::from_clients(station.mac, mac);
        Self { station, writer, next: 0, window: Window::default() }
    }

    /// Returns new flows a second.
    fn measure(mut self, link: &Link, plan: &Plan) -> f64 {
        let pids = [std::process::id(), link.device.pid()];
        // The members' link addresses are asked for first.
        self.drive(MEET, Some(MEET_RATE));
        let real_time = plan.real_time.then(|| RealTime::of(&pids));
        self.drive(SETTLE, plan.rate);
        let before = (link.drops(), opened(link), link.device.cpu_time());
        self.window = Window::default();
        let (start, from) = (Instant::now(), tsc::cycles());
        self.drive(plan.span, plan.rate);
        let (seconds, cycles) = (start.elapsed().as_secs_f64(), tsc::cycles() - from);
        let (window, spent) = (self.window, link.device.cpu_time().saturating_sub(before.2));
        drop(real_time);
        let (now_open, total) = opened(link);
        let made = total.saturating_sub(before.1.1);
        let ended = (made + before.1.0).saturating_sub(now_open);
        let rate = window.good as f64 / seconds;
        println!(
            "{rate:9.0} new flows/s, {:.0} cycles each | the device says: {made} made, {ended} expired, {now_open} open | \
             wire full {:.0} %, lost {:.3} %, bad {}; of its core the device had {:.0} % | drops: {}",
            cycles as f64 / window.good.max(1) as f64,
            window.full_bursts as f64 / window.bursts.max(1) as f64 * 100.0,
            (1.0 - (window.good + window.bad) as f64 / window.sent.max(1) as f64) * 100.0,
            window.bad,
            spent.as_secs_f64() / seconds * 100.0,
            grown(&before.0, &link.drops()),
        );
        rate
    }

    fn drive(&mut self, span: Duration, rate: Option<f64>) {
        let (start, sent) = (Instant::now(), self.window.sent);
        while start.elapsed() < span {
            let allowed = rate.map_or(u64::MAX, |rate| sent + (start.elapsed().as_secs_f64() * rate) as u64);
            for _ in 0..TURNS_PER_LOOK {
                self.turn(allowed);
            }
        }
    }

    fn turn(&mut self, allowed: u64) {
        self.receive();
        self.station.push_pending();
        while self.window.sent + (self.station.burst.len() as u64) < allowed && self.push() {}
        if self.station.burst.is_empty() {
            return;
        }
        self.window.bursts += 1;
        self.window.sent += self.station.send() as u64;
        self.window.full_bursts += u64::from(!self.station.burst.is_empty());
    }

    fn push(&mut self) -> bool {
        let Self { station, writer, next, .. } = self;
        let flow = scenario::spread(*next);
        let pushed = station.push(|frame| writer.write_request(frame, flow));
        *next = next.wrapping_add(u32::from(pushed));
        pushed
    }

    fn receive(&mut self) {
        let Self { station, window, .. } = self;
        station.receive(|bytes| {
            let Some(frame) = bytes.first_chunk::<FRAME_BYTES>() else { return false };
            let is_whole = window.good & VERIFY_MASK != 0 || scenario::is_sound(frame);
            let is_good = scenario::is_request_at_member(frame) && is_whole;
            window.good += u64::from(is_good);
            window.bad += u64::from(!is_good);
            true
        });
    }
}

/// Connections through the virtual server: open now, and since the start.
fn opened(link: &Link) -> (u64, u64) {
    let all = link.ask("/v1/virtual-servers");
    let connections = &all[0]["connections"];
    let count = |name: &str| connections[name].as_u64().unwrap_or_default();
    (count("current"), count("total"))
}

const MEET: Duration = Duration::from_millis(300);
/// Frames a second: slow enough that none is lost while its member's link address is not known.
const MEET_RATE: f64 = 1_000.0;
const SETTLE: Duration = Duration::from_millis(1_500);
const TURNS_PER_LOOK: usize = 16;
const VERIFY_MASK: u64 = 63;
