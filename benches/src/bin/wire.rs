//! `wire`: Mpps of sluice on a memif, against testpmd's macswap on the same one, in alternating rounds.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use sluice_benches::machine::{self, Hugepages, Process, Profile, RealTime, TempDir};
use sluice_benches::report::{median, range};
use sluice_benches::wire::device::{self, Wire};
use sluice_benches::wire::generator::{Generator, Traffic, Window};
use sluice_ffi::dpdk::{self, Eal, LogTo, Mempool};

const HELP: &str = "\
wire [--flows 1000,100000,1000000] [--rounds 5] [--seconds 1] [--traffic requests,replies] [--ring-log2 10]
     [--in-code] [--share-cores] [--profile PERF.DATA]
wire dut --device VDEV --core N --flows N        (started by the first form)

The device under test is the `sluice` binary beside this program, or with --in-code (and where there is none) a worker
built in code. The generator takes core 0, the device under test core 1.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("dut") => run_device(&arguments[1..]),
        Some("-h" | "--help") => {
            println!("{HELP}");
            Ok(())
        }
        _ => run_bench(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("wire: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run_device(arguments: &[String]) -> Result<(), String> {
    let device = option(arguments, "--device").ok_or(HELP)?;
    device::run_worker(device, number(arguments, "--core", 1)?, number(arguments, "--flows", 1000)?)
}

fn run_bench(arguments: &[String]) -> Result<(), String> {
    let flows: Vec<u32> = list(arguments, "--flows", "1000,100000,1000000")?;
    let plan = Plan {
        rounds: number(arguments, "--rounds", 5)?,
        span: Duration::from_secs_f64(number(arguments, "--seconds", 1.0)?),
        ring_log2: number(arguments, "--ring-log2", 10)?,
        in_code: arguments.iter().any(|word| word == "--in-code") || device::sluice_binary().is_none(),
        real_time: !arguments.iter().any(|word| word == "--share-cores"),
        profile: option(arguments, "--profile").map(PathBuf::from),
        replies: option(arguments, "--traffic").is_none_or(|text| text.contains("replies")),
    };
    if !machine::is_root() {
        return Err("needs root, for hugepages and real-time priority".into());
    }
    let hugepages = Hugepages::take(HUGEPAGES);
    machine::pin(GENERATOR_CORE);
    let huge = Hugepages::free() >= 256;
    let args: Vec<String> = device::memory_args(huge).into_iter().map(String::from).collect();
    let more = ["--no-pci", "--no-telemetry", "--file-prefix=sluice"].map(String::from);
    let args = dpdk::default_args(&[args, more.to_vec()].concat(), &[]);
    let eal = Eal::init(&args, LogTo::Quiet).map_err(|error| error.to_string())?;
    let _registered = dpdk::register_thread().map_err(|error| error.to_string())?;
    println!("{}", about(huge));
    let memory = Mempool::new(eal, 8191, 2048, -1).map_err(|error| error.to_string())?;
    let dir = TempDir::new("sluice-wire").map_err(|error| error.to_string())?;
    let mut bench = Bench { eal, memory, dir, huge, opened: 0 };
    for &flows in &flows {
        bench.compare(flows, &plan)?;
    }
    drop(hugepages);
    Ok(())
}

fn about(huge: bool) -> String {
    let pages = if huge { "hugepages" } else { "ordinary pages (no hugepages to be had)" };
    format!(
        "DPDK {}, memif, 64-byte frames, {pages}; generator on core {GENERATOR_CORE}, device under test on core \
         {DEVICE_CORE}; flows picked at random; hardware counters: {}",
        Eal::version(),
        if machine::has_hardware_counters() { "yes" } else { "none" }
    )
}

struct Plan {
    rounds: usize,
    span: Duration,
    replies: bool,
    ring_log2: u8,
    /// A worker built in code instead of the `sluice` binary.
    in_code: bool,
    real_time: bool,
    profile: Option<PathBuf>,
}

struct Bench {
    eal: Eal,
    memory: Mempool,
    dir: TempDir,
    huge: bool,
    opened: usize,
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

impl Bench {
    /// Alternates macswap and sluice, and prints a row each.
    fn compare(&mut self, flows: u32, plan: &Plan) -> Result<(), String> {
        let mut rounds: [Rounds; 3] = Default::default();
        for _ in 0..plan.rounds {
            self.round(Traffic::Macswap, flows, plan, &mut rounds)?;
            self.round(Traffic::Requests, flows, plan, &mut rounds)?;
        }
        let base = median(&rounds[0].mpps);
        for (name, rounds) in ["macswap", "sluice, requests", "sluice, replies"].iter().zip(&rounds) {
            rounds.print(name, flows, base);
        }
        Ok(())
    }

    /// One device from start to end.
    fn round(
        &mut self,
        traffic: Traffic,
        flows: u32,
        plan: &Plan,
        rounds: &mut [Rounds; 3],
    ) -> Result<(), String> {
        self.opened += 1;
        let wire = Wire {
            socket: format!("sluice-wire-{}-{}", std::process::id(), self.opened),
            ring_log2: plan.ring_log2,
        };
        let mut generator = Generator::open(self.eal, &wire.server(self.opened), &self.memory, flows)?;
        let started = match traffic {
            Traffic::Macswap => device::start_testpmd(&wire, DEVICE_CORE, self.huge),
            _ if plan.in_code => device::start_worker(&wire, DEVICE_CORE, flows),
            _ => device::start_sluice(&wire, DEVICE_CORE, flows, self.dir.path()),
        };
        let mut device = started.map_err(|error| error.to_string())?;
        let log = self.dir.path().join("sluice.log");
        let with_log = |reason| format!("{reason}\n{}", std::fs::read_to_string(&log).unwrap_or_default());
        generator.connect(traffic, || device.is_running()).map_err(with_log)?;
        if traffic == Traffic::Macswap {
            generator.wait_for_frames(traffic)?;
            rounds[0].add(&mut generator, traffic, plan, &device);
            return Ok(());
        }
        generator.warm_up()?;
        rounds[1].add(&mut generator, Traffic::Requests, plan, &device);
        if plan.replies {
            rounds[2].add(&mut generator, Traffic::Replies, plan, &device);
        }
        Ok(())
    }
}

impl Rounds {
    fn add(&mut self, generator: &mut Generator, traffic: Traffic, plan: &Plan, device: &Process) {
        let profile =
            plan.profile.as_ref().map(|path| path.with_extension(format!("{traffic:?}").to_lowercase()));
        let _profile = profile.map(|path| Profile::start(device.pid(), &path));
        let pids = [std::process::id(), device.pid()];
        let real_time = plan.real_time.then(|| RealTime::of(&pids));
        let own_before = machine::cpu_time(std::process::id());
        generator.run(traffic, SETTLE);
        let before = device.cpu_time();
        let window = generator.run(traffic, plan.span);
        let spent = device.cpu_time().saturating_sub(before);
        drop(real_time);
        let own = machine::cpu_time(std::process::id()).saturating_sub(own_before);
        self.generator_share.push(own.as_secs_f64() / (window.seconds + SETTLE.as_secs_f64()));
        self.mpps.push(window.mpps());
        self.cycles.push(window.cycles_per_packet());
        self.device_share.push(spent.as_secs_f64() / window.seconds);
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

fn option<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    let place = arguments.iter().position(|word| word == name)?;
    arguments.get(place + 1).map(String::as_str)
}

fn number<T: std::str::FromStr>(arguments: &[String], name: &str, default: T) -> Result<T, String> {
    match option(arguments, name) {
        Some(text) => text.parse().map_err(|_| format!("{name}: {text}: not a number")),
        None => Ok(default),
    }
}

fn list<T: std::str::FromStr>(arguments: &[String], name: &str, default: &str) -> Result<Vec<T>, String> {
    let text = option(arguments, name).unwrap_or(default);
    text.split(',').map(|word| word.parse().map_err(|_| format!("{name}: {word}: not a number"))).collect()
}

const GENERATOR_CORE: usize = 0;
const DEVICE_CORE: usize = 1;
/// 2 MiB each.
const HUGEPAGES: u64 = 512;
const SETTLE: Duration = Duration::from_millis(300);
