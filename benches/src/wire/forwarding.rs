//! `wire`: packets of flows that exist, through sluice and through testpmd's macswap in alternating rounds.

use std::path::PathBuf;
use std::time::Duration;

use super::device::Setup;
use super::generator::{Generator, Traffic, Window};
use super::ground::{Device, Ground, Link};
use crate::machine::{self, Process, Profile, RealTime};
use crate::report::{median, range};
use crate::scenario::Shape;

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// One comparison each.
    pub flows: Vec<u32>,
    /// Rounds of each.
    pub rounds: usize,
    /// Length of a timed window.
    pub span: Duration,
    /// Members' packets, too.
    pub replies: bool,
    /// Both rings hold 2 to the power of this many frames.
    pub ring_log2: u8,
    /// Frames that a generator, and testpmd, sends and receives at once.
    pub burst: usize,
    /// A worker built in code instead of the `sluice` binary.
    pub in_code: bool,
    /// Real-time priority while it is measured.
    pub real_time: bool,
    /// Where to put sampling profiles of the device.
    pub profile: Option<PathBuf>,
    /// Cores of the generators, one a queue.
    pub generators: Vec<usize>,
    /// Cores of the device's workers, as many.
    pub workers: Vec<usize>,
}

/// Alternates macswap and sluice, and prints a row each.
///
/// # Errors
/// What could not be started, and flows that never came back.
pub fn run(ground: &mut Ground, plan: &Plan) -> Result<(), String> {
    println!("{}", ground.about());
    println!(
        "64-byte frames, {} at once; generators on cores {:?}, device under test on cores {:?}; flows picked at random",
        plan.burst, plan.generators, plan.workers
    );
    for &flows in &plan.flows {
        let mut rounds: [Rounds; 3] = Default::default();
        for _ in 0..plan.rounds {
            round(ground, Traffic::Macswap, flows, plan, &mut rounds)?;
            round(ground, Traffic::Requests, flows, plan, &mut rounds)?;
        }
        let base = median(&rounds[0].mpps);
        for (name, rounds) in ["macswap", "sluice, requests", "sluice, replies"].iter().zip(&rounds) {
            rounds.print(name, flows, base);
        }
    }
    Ok(())
}

/// One device from start to end.
fn round(
    ground: &mut Ground,
    traffic: Traffic,
    flows: u32,
    plan: &Plan,
    rounds: &mut [Rounds; 3],
) -> Result<(), String> {
    let setup = Setup { shape: Shape::udp(flows), cores: &plan.workers, ballast: None, proxy: None };
    let device = match traffic {
        Traffic::Macswap => Device::Macswap(&plan.workers, plan.burst),
        _ if plan.in_code => Device::InCode(setup),
        _ => Device::Sluice(setup),
    };
    let link = ground.link(&device, plan.ring_log2)?;
    let Link { mut stations, mut device, .. } = link;
    stations.iter_mut().for_each(|station| station.burst_max = plan.burst);
    let mut fleet = Fleet::new(stations, flows, &plan.generators);
    fleet.connect(traffic, || device.is_running()).map_err(|why| ground.with_log(&why))?;
    if traffic == Traffic::Macswap {
        fleet.each(|generator| generator.wait_for_frames(traffic)).into_iter().collect::<Result<(), _>>()?;
        rounds[0].add(&mut fleet, traffic, plan, &device);
        return Ok(());
    }
    fleet.each(Generator::warm_up).into_iter().collect::<Result<Vec<_>, _>>()?;
    rounds[1].add(&mut fleet, Traffic::Requests, plan, &device);
    if plan.replies {
        rounds[2].add(&mut fleet, Traffic::Replies, plan, &device);
    }
    Ok(())
}

/// A generator for each queue, each on its core, with flows of its own.
struct Fleet<'a> {
    generators: Vec<Generator>,
    cores: &'a [usize],
}

impl<'a> Fleet<'a> {
    fn new(stations: Vec<super::station::Station>, flows: u32, cores: &'a [usize]) -> Self {
        let each = flows.div_ceil(stations.len().max(1) as u32);
        let generators =
            (0..).zip(stations).map(|(place, station)| Generator::new(station, place * each, each));
        Self { generators: generators.collect(), cores }
    }

    fn connect(&mut self, traffic: Traffic, is_alive: impl FnMut() -> bool) -> Result<(), String> {
        let first = self.generators.first_mut().ok_or("a wire without a queue")?;
        let mac = first.connect(traffic, is_alive)?;
        self.generators.iter_mut().for_each(|generator| generator.talk_to(mac));
        Ok(())
    }

    /// Runs `work` on every generator at once; the first on this thread, which is on its core already.
    fn each<T: Send>(&mut self, work: impl Fn(&mut Generator) -> T + Sync) -> Vec<T> {
        let Some((first, others)) = self.generators.split_first_mut() else { return Vec::new() };
        let (work, cores) = (&work, &self.cores[1..]);
        std::thread::scope(|scope| {
            let others = others.iter_mut().zip(cores).map(|(generator, &core)| {
                scope.spawn(move || {
                    machine::pin(core);
                    let _registered = sluice_ffi::dpdk::register_thread();
                    work(generator)
                })
            });
            let others: Vec<_> = others.collect();
            let mut results = vec![work(first)];
            results.extend(others.into_iter().filter_map(|thread| thread.join().ok()));
            results
        })
    }

    fn run(&mut self, traffic: Traffic, span: Duration) -> Window {
        Window::sum(&self.each(|generator| generator.run(traffic, span)))
    }
}

/// The rounds of one device with one kind of traffic.
#[derive(Default)]
struct Rounds {
    mpps: Vec<f64>,
    cycles: Vec<f64>,
    device_share: Vec<f64>,
    generator_share: Vec<f64>,
    windows: Vec<Window>,
}

impl Rounds {
    fn add(&mut self, fleet: &mut Fleet<'_>, traffic: Traffic, plan: &Plan, device: &Process) {
        let profile =
            plan.profile.as_ref().map(|path| path.with_extension(format!("{traffic:?}").to_lowercase()));
        let _profile = profile.map(|path| Profile::start(device.pid(), &path));
        let pids = [std::process::id(), device.pid()];
        let real_time = plan.real_time.then(|| RealTime::of(&pids));
        let own_before = machine::cpu_time(std::process::id());
        fleet.run(traffic, SETTLE);
        let before = device.cpu_time();
        let window = fleet.run(traffic, plan.span);
        let spent = device.cpu_time().saturating_sub(before);
        drop(real_time);
        let own = machine::cpu_time(std::process::id()).saturating_sub(own_before);
        let cores = plan.workers.len() as f64;
        self.generator_share.push(own.as_secs_f64() / (window.seconds + SETTLE.as_secs_f64()) / cores);
        self.mpps.push(window.mpps());
        self.cycles.push(window.cycles_per_packet());
        self.device_share.push(spent.as_secs_f64() / window.seconds / cores);
        self.windows.push(window);
    }

    fn print(&self, name: &str, flows: u32, base: f64) {
        if self.mpps.is_empty() {
            return;
        }
        let (low, high) = range(&self.mpps);
        let total = |of: fn(&Window) -> u64| self.windows.iter().map(of).sum::<u64>();
        let full = total(|w| w.full_bursts) as f64 / total(|w| w.bursts).max(1) as f64;
        let lost = median(&self.windows.iter().map(Window::lost).collect::<Vec<_>>());
        println!(
            "{flows:>8} flows  {name:<17} {:6.2} Mpps ({low:5.2} to {high:5.2})  {:5.0} cycles/packet  {:4.2} of \
             macswap | wire full {:3.0} %, lost {:.3} %, bad {}, verified {}; of its core the device had {:.0} %, the generator {:.0} %",
            median(&self.mpps),
            median(&self.cycles),
            median(&self.mpps) / base,
            full * 100.0,
            lost * 100.0,
            total(|w| w.bad),
            total(|w| w.verified),
            median(&self.device_share) * 100.0,
            median(&self.generator_share) * 100.0,
        );
    }
}

const SETTLE: Duration = Duration::from_millis(300);
