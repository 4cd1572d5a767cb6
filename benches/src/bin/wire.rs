//! `wire`: sluice on a memif, driven by our own packet generator.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use sluice_benches::large::Size;
use sluice_benches::machine;
use sluice_benches::scenario::Shape;
use sluice_benches::wire::flood::{self, Flood};
use sluice_benches::wire::ground::Ground;
use sluice_benches::wire::http::{self, Traffic};
use sluice_benches::wire::station::TESTPMD_BURST;
use sluice_benches::wire::{device, forwarding, live_apply, new_flows};
use sluice_dataplane::config::snapshot::Protocol;
use sluice_ffi::dpdk::BURST_MAX;

const HELP: &str = "\
wire [--flows 1000,100000,1000000] [--rounds 5] [--seconds 1] [--traffic requests,replies] [--ring-log2 10]
     [--burst 32] [--workers 1] [--profile PERF.DATA]
                                                  packets of known flows, against testpmd's macswap
wire flood [--rate 10000] [--floods 0,1,10,full] [--seconds 3] [--silent-members]
                                                  honest TCP connections under a SYN flood; fails below 95 %
wire new-flows [--rounds 5] [--seconds 3] [--idle-ms 1000] [--flows 4000000] [--rate MAX]
                                                  every packet a new UDP flow
wire http [--traffic keep-alive,connections,objects,tcp] [--connections 64] [--streams 1] [--rounds 3] [--seconds 1]
                                                  requests through full proxies; fails when an answer is not right
wire apply [--virtual-servers 10000] [--members 100000] [--limited] [--rounds 5] [--flows 1000]
                                                  what traffic notices of a new configuration
wire dut --device VDEV --core N --flows N         (started by the others)

The device under test is the `sluice` binary beside this program, or with --in-code (and where there is none) a worker
built in code. The generator takes core 0, the device under test core 1; with two workers generators take cores 0 and 1,
workers cores 2 and 3, and --crowded tries that on two cores, to see that it works. --share-cores leaves out the
real-time priority.";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let arguments = Arguments(words);
    let outcome = match arguments.0.first().map(String::as_str) {
        Some("dut") => run_device(&arguments),
        Some("flood") => run_flood(&arguments),
        Some("new-flows") => run_new_flows(&arguments),
        Some("http") => run_http(&arguments),
        Some("apply") => run_apply(&arguments),
        Some("-h" | "--help") => {
            println!("{HELP}");
            Ok(())
        }
        _ => run_forwarding(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("wire: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run_device(arguments: &Arguments) -> Result<(), String> {
    let device = arguments.option("--device").ok_or(HELP)?;
    let protocol = if arguments.option("--protocol") == Some("tcp") { Protocol::Tcp } else { Protocol::Udp };
    let (flows, idle_ms) = (arguments.number("--flows", 1_000)?, arguments.number("--idle-ms", 60_000)?);
    device::run_worker(device, arguments.number("--core", 1)?, Shape { protocol, flows, idle_ms })
}

fn run_forwarding(arguments: &Arguments) -> Result<(), String> {
    let workers: usize = arguments.number("--workers", 1)?;
    let cores = machine::cores();
    let is_crowded = workers > 1 && arguments.has("--crowded");
    if workers > 1 && cores < 2 * workers && !is_crowded {
        return skip(workers, cores);
    }
    let first = match workers {
        1 => DEVICE_CORE,
        _ if is_crowded => 0,
        _ => workers,
    };
    let plan = forwarding::Plan {
        flows: arguments.list("--flows", "1000,100000,1000000")?,
        rounds: arguments.number("--rounds", 5)?,
        span: arguments.seconds("--seconds", 1.0)?,
        replies: arguments.option("--traffic").is_none_or(|text| text.contains("replies")),
        ring_log2: arguments.number("--ring-log2", 10)?,
        burst: arguments.number("--burst", TESTPMD_BURST)?.clamp(1, BURST_MAX),
        in_code: arguments.is_in_code() && workers == 1,
        real_time: !arguments.has("--share-cores") && !is_crowded,
        profile: arguments.option("--profile").map(PathBuf::from),
        generators: (0..workers).map(|place| if is_crowded { GENERATOR_CORE } else { place }).collect(),
        workers: (first..first + workers).collect(),
    };
    let flows = plan.flows.iter().copied().max().unwrap_or_default();
    forwarding::run(&mut Ground::prepare(GENERATOR_CORE, flows)?, &plan)
}

/// Where the cores do not allow so many workers, instructions say what one of them spends on a packet.
fn skip(workers: usize, cores: usize) -> Result<(), String> {
    println!(
        "SKIPPED: {workers} workers and as many generators need {} cores, and this machine has {cores}; instructions a \
         packet instead:",
        2 * workers
    );
    let program = std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("instructions");
    // Whether they have grown is not the question here.
    let status = Command::new(&program).args(["--only", "worker burst"]).status();
    status.map(|_| ()).map_err(|error| format!("{}: {error}", program.display()))
}

fn run_flood(arguments: &Arguments) -> Result<(), String> {
    let floods = arguments.option("--floods").unwrap_or("0,1,10,full").split(',').map(|word| match word {
        "full" => Ok(Flood::Saturation),
        times => times.parse().map(Flood::Times).map_err(|_| format!("--floods: {word}: not a number")),
    });
    let plan = flood::Plan {
        rate: arguments.number("--rate", 10_000.0)?,
        floods: floods.collect::<Result<_, _>>()?,
        span: arguments.seconds("--seconds", 3.0)?,
        members_answer: !arguments.has("--silent-members"),
        aim: 0.95,
        in_code: arguments.is_in_code(),
        real_time: !arguments.has("--share-cores"),
        core: DEVICE_CORE,
    };
    flood::run(&mut Ground::prepare(GENERATOR_CORE, 1_000_000)?, &plan)
}

fn run_new_flows(arguments: &Arguments) -> Result<(), String> {
    let plan = new_flows::Plan {
        rounds: arguments.number("--rounds", 5)?,
        span: arguments.seconds("--seconds", 3.0)?,
        idle: Duration::from_millis(arguments.number("--idle-ms", 1_000)?),
        flows: arguments.number("--flows", 4_000_000)?,
        rate: arguments.option("--rate").map(|_| arguments.number("--rate", 0.0)).transpose()?,
        in_code: arguments.is_in_code(),
        real_time: !arguments.has("--share-cores"),
        core: DEVICE_CORE,
    };
    new_flows::run(&mut Ground::prepare(GENERATOR_CORE, plan.flows)?, &plan)
}

fn run_http(arguments: &Arguments) -> Result<(), String> {
    if device::sluice_binary().is_none() {
        return Err("there is no sluice binary beside this program".into());
    }
    let all = Traffic::ALL.map(Traffic::name).join(",");
    let traffic = arguments.option("--traffic").unwrap_or(&all).split(',').map(|word| {
        let known = Traffic::ALL.into_iter().find(|traffic| traffic.name() == word);
        known.ok_or_else(|| format!("--traffic: {word}: not one of {all}"))
    });
    let plan = http::Plan {
        traffic: traffic.collect::<Result<_, _>>()?,
        connections: arguments.number("--connections", 64)?,
        streams: arguments.number("--streams", 1)?,
        rounds: arguments.number("--rounds", 3)?,
        span: arguments.seconds("--seconds", 1.0)?,
        real_time: !arguments.has("--share-cores"),
        core: DEVICE_CORE,
    };
    let clients = [plan.connections, plan.streams];
    if clients.iter().any(|count| !(1..=http::CLIENTS_MAX).contains(count)) {
        return Err(format!("1 to {} connections", http::CLIENTS_MAX));
    }
    http::run(&mut Ground::prepare(GENERATOR_CORE, 1_000)?, &plan)
}

fn run_apply(arguments: &Arguments) -> Result<(), String> {
    if device::sluice_binary().is_none() {
        return Err("there is no sluice binary beside this program".into());
    }
    let plan = live_apply::Plan {
        size: Size {
            virtual_servers: arguments.number("--virtual-servers", Size::AIM.virtual_servers)?,
            members: arguments.number("--members", Size::AIM.members)?,
            limited: arguments.has("--limited"),
        },
        rounds: arguments.number("--rounds", 5)?,
        flows: arguments.number("--flows", 1_000)?,
        core: DEVICE_CORE,
    };
    live_apply::run(&mut Ground::prepare(GENERATOR_CORE, plan.flows)?, &plan)
}

struct Arguments(Vec<String>);

impl Arguments {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|word| word == name)
    }

    fn is_in_code(&self) -> bool {
        self.has("--in-code") || device::sluice_binary().is_none()
    }

    fn option(&self, name: &str) -> Option<&str> {
        let place = self.0.iter().position(|word| word == name)?;
        self.0.get(place + 1).map(String::as_str)
    }

    fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> Result<T, String> {
        match self.option(name) {
            Some(text) => text.parse().map_err(|_| format!("{name}: {text}: not a number")),
            None => Ok(default),
        }
    }

    fn list<T: std::str::FromStr>(&self, name: &str, default: &str) -> Result<Vec<T>, String> {
        let text = self.option(name).unwrap_or(default);
        text.split(',')
            .map(|word| word.parse().map_err(|_| format!("{name}: {word}: not a number")))
            .collect()
    }

    fn seconds(&self, name: &str, default: f64) -> Result<Duration, String> {
        Ok(Duration::from_secs_f64(self.number(name, default)?))
    }
}

const GENERATOR_CORE: usize = 0;
const DEVICE_CORE: usize = 1;
