//! `wire flood`: how many honest TCP connections still open while SYNs from everywhere come in between.
//!
//! ```text
//!   each turn   in: what sluice sent ─▶ next segments of honest connections, members' answers to the flood
//!               out: honest segments, then members' answers, then as many flood SYNs as are due
//! ```
//!
//! What the wire has no room for waits; of honest segments so many may wait that what does not is counted, and is no
//! failure of the device.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sluice_dataplane::address::Mac;
use sluice_dataplane::config::snapshot::Protocol;
use sluice_ffi::tsc;

use super::device::Setup;
use super::ground::{Device, Ground, Link};
use super::station::Station;
use crate::handshake::{self, Handshakes, Reaction, Segment, Tally};
use crate::machine::RealTime;
use crate::report::{grown, percentile};
use crate::scenario::{FRAME_BYTES, Shape};

/// How much flood there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// So many SYNs for each honest packet.
    Times(u32),
    /// As many as the wire takes.
    Saturation,
}

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Honest connections a second.
    pub rate: f64,
    /// One run each.
    pub floods: Vec<Flood>,
    /// Length of a run.
    pub span: Duration,
    /// Members answer the SYNs of the flood, as real ones do.
    pub members_answer: bool,
    /// Of honest connections, the share that must complete.
    pub aim: f64,
    /// A worker built in code instead of the `sluice` binary.
    pub in_code: bool,
    /// Real-time priority while it is measured.
    pub real_time: bool,
    /// The device's core.
    pub core: usize,
}

/// Runs all of `plan` and prints a row each.
///
/// # Errors
/// What could not be started, and that honest connections did not complete.
pub fn run(ground: &mut Ground, plan: &Plan) -> Result<(), String> {
    println!("{}", ground.about());
    println!(
        "{:.0} honest connections a second; members answer the flood: {}",
        plan.rate, plan.members_answer
    );
    let shape = Shape { protocol: Protocol::Tcp, flows: FLOWS, idle_ms: 300_000 };
    let setup = Setup { shape, cores: &[plan.core], ballast: None, proxy: None };
    let device = if plan.in_code { Device::InCode(setup) } else { Device::Sluice(setup) };
    let mut worst = f64::INFINITY;
    for &flood in &plan.floods {
        let mut link = ground.link(&device, 10)?;
        let mut station = link.stations.pop().ok_or("a wire without a queue")?;
        let mac = station.connect(|| link.device.is_running()).map_err(|why| ground.with_log(&why))?;
        let outcome = Run::new(station, mac, plan, flood).measure(&link, plan);
        outcome.print(flood);
        worst = worst.min(outcome.share());
    }
    if worst < plan.aim {
        return Err(format!(
            "{:.2} % of honest connections completed, {:.0} % are asked for",
            worst * 100.0,
            plan.aim * 100.0
        ));
    }
    Ok(())
}

/// Both ends of all connections on one wire.
struct Run {
    station: Station,
    mac: Mac,
    handshakes: Handshakes,
    honest: VecDeque<(u32, Segment)>,
    answers: VecDeque<Segment>,
    flood: Flood,
    members_answer: bool,
    /// Of the time-stamp counter, between two connections.
    gap: f64,
    due: f64,
    sent: Sent,
}

/// Frames that the wire took.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    honest: u64,
    flood: u64,
    answers: u64,
    /// Answers to the flood that had waited for too long.
    answers_lost: u64,
    /// Segments with a wrong checksum or TTL, of those that were looked at.
    unsound: u64,
    bursts: u64,
    /// Bursts that the wire had no room for.
    full_bursts: u64,
}

struct Outcome {
    tally: Tally,
    sent: Sent,
    /// With what was sent while the last connections ended.
    all_sent: Sent,
    seconds: f64,
    times_us: [f64; 3],
    drops: String,
    device_share: f64,
}

impl Run {
    fn new(station: Station, mac: Mac, plan: &Plan, flood: Flood) -> Self {
        Self {
            station,
            mac,
            handshakes: Handshakes::new(SEED),
            honest: VecDeque::with_capacity(HONEST_WAITING_MAX),
            answers: VecDeque::with_capacity(ANSWERS_WAITING_MAX),
            flood,
            members_answer: plan.members_answer,
            gap: cycles_a_second() / plan.rate,
            due: 0.0,
            sent: Sent::default(),
        }
    }

    fn measure(mut self, link: &Link, plan: &Plan) -> Outcome {
        let pids = [std::process::id(), link.device.pid()];
        self.meet_members();
        let real_time = plan.real_time.then(|| RealTime::of(&pids));
        self.drive(SETTLE, true);
        let (before, spent) = (link.drops(), link.device.cpu_time());
        self.handshakes.start_tally();
        self.sent = Sent::default();
        let (start, from) = (Instant::now(), tsc::cycles());
        self.drive(plan.span, true);
        let seconds = start.elapsed().as_secs_f64();
        let cycles_a_us = (tsc::cycles() - from) as f64 / seconds / 1e6;
        let (sent, spent) = (self.sent, link.device.cpu_time().saturating_sub(spent));
        // What is under way may end, with the flood going on.
        self.drive(DRAIN, false);
        drop(real_time);
        let mut times = self.handshakes.times().to_vec();
        Outcome {
            tally: self.handshakes.tally(),
            sent,
            all_sent: self.sent,
            seconds,
            times_us: [0.5, 0.99, 1.0].map(|part| percentile(&mut times, part) as f64 / cycles_a_us),
            drops: grown(&before, &link.drops()),
            device_share: spent.as_secs_f64() / seconds,
        }
    }

    /// A few connections to each member, so that the device knows where they are.
    fn meet_members(&mut self) {
        let flood = std::mem::replace(&mut self.flood, Flood::Times(0));
        self.drive(SETTLE, true);
        self.flood = flood;
    }

    fn drive(&mut self, span: Duration, open: bool) {
        let start = Instant::now();
        self.due = tsc::cycles() as f64;
        while start.elapsed() < span {
            for _ in 0..TURNS_PER_LOOK {
                self.turn(open);
            }
        }
    }

    fn turn(&mut self, open: bool) {
        let now = tsc::cycles();
        for _ in 0..BURSTS_IN {
            if self.receive(now) == 0 {
                break;
            }
        }
        if open {
            self.open_due(now);
        }
        self.station.push_pending();
        self.fill();
        self.send();
    }

    fn send(&mut self) {
        if self.station.burst.is_empty() {
            return;
        }
        self.sent.bursts += 1;
        self.station.send();
        self.sent.full_bursts += u64::from(!self.station.burst.is_empty());
    }

    fn receive(&mut self, now: u64) -> usize {
        let Self { station, handshakes, honest, answers, members_answer, sent, .. } = self;
        station.receive(|bytes| {
            let Some(segment) = Segment::read(bytes) else { return false };
            match handshakes.handle(&segment, now) {
                Reaction::Honest(number, next) => {
                    sent.unsound += u64::from(!handshake::is_sound(bytes));
                    wait(handshakes, honest, number, next);
                }
                Reaction::Flood(answer) if *members_answer && answers.len() < ANSWERS_WAITING_MAX => {
                    answers.push_back(answer);
                }
                Reaction::Flood(_) => sent.answers_lost += u64::from(*members_answer),
                Reaction::Nothing => (),
            }
            true
        })
    }

    /// Begins the connections that are due; a generator that was away does not make up for it at once.
    fn open_due(&mut self, now: u64) {
        self.due = self.due.max(now as f64 - CATCH_UP_MAX * self.gap);
        while self.due <= now as f64 {
            self.due += self.gap;
            let (number, syn) = self.handshakes.open(now);
            wait(&mut self.handshakes, &mut self.honest, number, syn);
        }
    }

    fn fill(&mut self) {
        while let Some(&(_, segment)) = self.honest.front() {
            if !self.push(&segment) {
                return;
            }
            self.honest.pop_front();
            self.sent.honest += 1;
        }
        while let Some(&segment) = self.answers.front() {
            if !self.push(&segment) {
                return;
            }
            self.answers.pop_front();
            self.sent.answers += 1;
        }
        while self.is_flood_due() {
            let segment = self.handshakes.flood();
            if !self.push(&segment) {
                return;
            }
            self.sent.flood += 1;
        }
    }

    fn is_flood_due(&self) -> bool {
        match self.flood {
            Flood::Times(times) => self.sent.flood < self.sent.honest * u64::from(times),
            Flood::Saturation => true,
        }
    }

    fn push(&mut self, segment: &Segment) -> bool {
        let (to, from) = (self.mac, self.station.mac);
        self.station.push(|frame: &mut [u8; FRAME_BYTES]| {
            frame[..6].copy_from_slice(&to.0);
            frame[6..12].copy_from_slice(&from.0);
            segment.write(frame);
        })
    }
}

/// Puts an honest segment behind those that wait for the wire, if there is room.
fn wait(handshakes: &mut Handshakes, waiting: &mut VecDeque<(u32, Segment)>, number: u32, segment: Segment) {
    if waiting.len() < HONEST_WAITING_MAX {
        waiting.push_back((number, segment));
    } else {
        handshakes.on_never_sent(number);
    }
}

impl Outcome {
    fn share(&self) -> f64 {
        self.tally.completed as f64 / self.tally.offered.max(1) as f64
    }

    fn print(&self, flood: Flood) {
        let Self { tally, sent, all_sent, seconds, times_us: [half, most, all], .. } = self;
        let name = match flood {
            Flood::Times(times) => format!("{times}x"),
            Flood::Saturation => "full".into(),
        };
        println!(
            "flood {name:>4}  {:7.0} connections/s offered, {:7.3} % completed | {:9.0} SYNs/s of flood, {:.1} for each \
             honest packet | handshake {half:.0} us, 99 % within {most:.0} us, all within {all:.0} us",
            tally.offered as f64 / seconds,
            self.share() * 100.0,
            sent.flood as f64 / seconds,
            sent.flood as f64 / sent.honest.max(1) as f64,
        );
        println!(
            "            closed {}, refused {}, never left for want of room on the wire {}, bad {}, unsound {}; flood: \
             {:.1} % at members, {:.1} % of answers at clients, {} never sent; wire full {:.0} %, of its core the device had {:.0} %",
            tally.closed,
            tally.refused,
            tally.never_sent,
            tally.bad,
            all_sent.unsound,
            tally.flood_at_members as f64 / all_sent.flood.max(1) as f64 * 100.0,
            tally.flood_at_clients as f64 / all_sent.answers.max(1) as f64 * 100.0,
            all_sent.answers_lost,
            sent.full_bursts as f64 / sent.bursts.max(1) as f64 * 100.0,
            self.device_share * 100.0,
        );
        println!("            drops: {}", self.drops);
    }
}

fn cycles_a_second() -> f64 {
    let (start, from) = (Instant::now(), tsc::cycles());
    while start.elapsed() < CALIBRATION {
        std::hint::spin_loop();
    }
    (tsc::cycles() - from) as f64 / start.elapsed().as_secs_f64()
}

const SEED: u64 = 0x5eed_0f10_0d00_0001;
const CALIBRATION: Duration = Duration::from_millis(20);
const SETTLE: Duration = Duration::from_millis(300);
/// Longer than a handshake may take without anybody sending again (RFC 6298: one second).
const DRAIN: Duration = Duration::from_millis(900);
const TURNS_PER_LOOK: usize = 64;
/// Bursts taken in before one is sent: members' answers come back, too.
const BURSTS_IN: usize = 4;
const HONEST_WAITING_MAX: usize = 4_096;
const ANSWERS_WAITING_MAX: usize = 4_096;
/// Connections.
const CATCH_UP_MAX: f64 = 16.0;
/// Room for the half-open ones and for those that have just closed.
const FLOWS: u32 = 1_000_000;
