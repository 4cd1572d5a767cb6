//! Connections that end at the proxy: sluice's `standard`, HAProxy and nginx, one after the other, in rounds.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::cost::{Meter, Source};
use super::ground::{Cores, PROXY_CORE, Spaces, Steering, inside, sluice};
use super::idle::{self, PerConnection};
use super::{texts, wrk};
use crate::machine::{Process, RealTime, TempDir};

/// What stands between client and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxy {
    /// The `sluice` binary: af_packet ports, `type: standard`.
    Sluice,
    /// HAProxy, one thread.
    Haproxy,
    /// nginx, one worker.
    Nginx,
}

impl Proxy {
    /// All of them.
    pub const ALL: [Proxy; 3] = [Proxy::Sluice, Proxy::Haproxy, Proxy::Nginx];

    /// For reports.
    pub const fn name(self) -> &'static str {
        match self {
            Proxy::Sluice => "sluice",
            Proxy::Haproxy => "haproxy",
            Proxy::Nginx => "nginx",
        }
    }
}

/// A kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// For reports.
    pub name: &'static str,
    url: &'static str,
    connections: u32,
    closes: bool,
    /// Requests of 1 MiB are told from the bytes that came: too few come whole.
    by_bytes: bool,
    /// It is also run with receive work where the kernel puts it.
    in_short: bool,
}

impl Work {
    /// All of them.
    pub const ALL: [Work; 7] = [
        Work::http("HTTP 128 B, keep-alive", "http://10.66.0.100/", false, true),
        Work::http("HTTP 128 B, new connections", "http://10.66.0.100/", true, true),
        Work::http("HTTP 16 KiB, keep-alive", "http://10.66.0.100/16k", false, false),
        Work::http("HTTP 1 MiB, keep-alive", "http://10.66.0.100/1m", false, false),
        Work {
            connections: 1,
            ..Work::http("HTTP 128 B, one connection", "http://10.66.0.100/", false, false)
        },
        Work::http("TCP 128 B, keep-alive", "http://10.66.0.100:81/", false, true),
        Work::http("TCP 128 B, new connections", "http://10.66.0.100:81/", true, true),
    ];

    const fn http(name: &'static str, url: &'static str, closes: bool, in_short: bool) -> Self {
        Self { name, url, connections: 64, closes, by_bytes: false, in_short }
    }

    /// Those for an emulated machine, which is slow, with `only` in their names.
    pub fn emulated(only: &str) -> Vec<Work> {
        let all = Work::ALL.into_iter().filter(|work| work.connections > 1 && work.name.contains(only));
        all.map(|work| match work.url.ends_with("/1m") {
            true => Work { connections: 8, by_bytes: true, ..work },
            false => Work { connections: Cores::EMULATED.connections(), ..work },
        })
        .collect()
    }

    /// Those to be run, with `only` in their names.
    pub fn under(steering: Steering, only: &str) -> Vec<Work> {
        let all = Work::ALL.into_iter().filter(|work| work.name.contains(only));
        all.filter(|work| work.in_short || steering == Steering::Steered).collect()
    }
}

/// What a kind of load came to.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Requests a second.
    pub rate: f64,
    /// Cycles of the proxy's core for each.
    pub cycles: f64,
    /// Instructions, where they are counted.
    pub instructions: Option<f64>,
    /// Instructions of user alone and the share of the proxy's core that was used, where an emulator runs it.
    pub emulated: Option<(f64, f64)>,
    /// Half of the requests were answered within this time, in microseconds.
    pub p50_us: f64,
    /// 99 % were.
    pub p99_us: f64,
}

/// The namespaces and the origin in one of them; gone on drop.
pub struct Lab {
    // Before the namespaces, which they run in.
    origins: Vec<Process>,
    spaces: Spaces,
    dir: TempDir,
    seconds: u32,
    source: Source,
    /// Proxies started so far.
    started: Cell<u8>,
}

impl Lab {
    /// Builds it, for loads of so many seconds. Needs root.
    ///
    /// # Errors
    /// What could not be done.
    pub fn new(seconds: u32, source: Source) -> io::Result<Self> {
        let dir = TempDir::new("sluice-proxies")?;
        std::fs::write(dir.path().join("16k"), [b'x'; 16 << 10])?;
        std::fs::write(dir.path().join("1m"), vec![b'x'; 1 << 20])?;
        let spaces = Spaces::new(source.cores())?;
        let origins = spaces.cores().origin.iter().map(|&core| {
            let name = format!("origin{core}");
            start_nginx(&spaces.name("s"), core, dir.path(), &name, &texts::origin(dir.path(), &name))
        });
        let origins = origins.collect::<io::Result<_>>()?;
        Ok(Self { origins, spaces, dir, seconds, source, started: Cell::new(0) })
    }

    /// Loads one proxy with all of `works`, in this order: what each came to, or why not.
    pub fn run(&self, proxy: Proxy, steering: Steering, works: &[Work]) -> Vec<Result<Outcome, String>> {
        let outcomes = self.run_all(proxy, steering, works);
        outcomes.unwrap_or_else(|error| vec![Err(error.to_string()); works.len()])
    }

    fn run_all(
        &self,
        proxy: Proxy,
        steering: Steering,
        works: &[Work],
    ) -> io::Result<Vec<Result<Outcome, String>>> {
        self.spaces.steer(steering)?;
        let process = self.start(proxy)?;
        let pids: Vec<u32> = self.origins.iter().chain([&process]).map(Process::pid).collect();
        let _priorities = [RealTime::of(&pids), RealTime::of_softirqs()];
        let meter = Meter::start(self.source)?;
        Ok(works.iter().map(|work| self.load(&meter, work).map_err(|error| error.to_string())).collect())
    }

    fn load(&self, meter: &Meter, work: &Work) -> io::Result<Outcome> {
        let Work { url, connections, closes, by_bytes, .. } = *work;
        let load = wrk::Load { url, connections, seconds: self.seconds, closes };
        let (answers, cost) = meter.measure(|| wrk::run(&self.spaces, &load))?;
        let requests = if by_bytes { answers.bytes / MIB } else { answers.requests };
        Ok(Outcome {
            rate: requests / f64::from(self.seconds),
            cycles: cost.cycles / requests,
            instructions: cost.instructions.map(|count| count / requests),
            emulated: cost.emulated.map(|did| (did.user / requests, did.busy)),
            p50_us: answers.p50_us,
            p99_us: answers.p99_us,
        })
    }

    /// What an idle keep-alive connection takes of a proxy that has had no other.
    ///
    /// # Errors
    /// What did not start, and connections that could not be opened.
    pub fn idle(&self, proxy: Proxy, connections: u32) -> io::Result<PerConnection> {
        self.spaces.steer(Steering::Kernel)?;
        let process = self.start(proxy)?;
        idle::measure(&self.spaces, &process, connections, "10.66.0.100:80")
    }

    /// Starts a proxy and waits until it answers.
    fn start(&self, proxy: Proxy) -> io::Result<Process> {
        let inner = self.next_inner();
        self.spaces.address_proxy((proxy != Proxy::Sluice).then_some(&inner))?;
        let mut process = self.start_only(proxy, &inner)?;
        let load = wrk::Load { url: "http://10.66.0.100/", connections: 4, seconds: 1, closes: false };
        let start = Instant::now();
        let mut answers = wrk::run(&self.spaces, &load);
        while answers.is_err() && process.is_running() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(100));
            answers = wrk::run(&self.spaces, &load);
        }
        let log = || std::fs::read_to_string(self.dir.path().join("proxy.log")).unwrap_or_default();
        answers.map(|_| process).map_err(|error| {
            io::Error::other(format!("{} does not answer: {error}\n{}", proxy.name(), log()))
        })
    }

    /// An address that the origin has not seen for long: connections of the proxy before, which are in TIME-WAIT there,
    /// are nothing to this one.
    fn next_inner(&self) -> String {
        let number = self.started.get();
        self.started.set((number + 1) % INNER_MAX);
        format!("10.77.0.{}", 10 + number)
    }

    fn start_only(&self, proxy: Proxy, inner: &str) -> io::Result<Process> {
        let (dir, space) = (self.dir.path(), self.spaces.name("p"));
        let mut command = match proxy {
            Proxy::Nginx => {
                let config = texts::nginx(dir, stream_module().as_deref());
                return start_nginx(&space, PROXY_CORE, dir, "nginx", &config);
            }
            Proxy::Haproxy => {
                let config = dir.join("haproxy.cfg");
                std::fs::write(&config, texts::haproxy())?;
                let mut command = inside(&space, &[PROXY_CORE], "haproxy");
                command.arg("-db").arg("-f").arg(config);
                command
            }
            Proxy::Sluice => sluice(&space, dir, &texts::sluice(inner))?,
        };
        let log = std::fs::File::create(dir.join("proxy.log"))?;
        Process::start(command.stdout(Stdio::null()).stderr(log))
    }
}

fn start_nginx(space: &str, core: usize, dir: &Path, name: &str, config: &str) -> io::Result<Process> {
    let path = dir.join(format!("{name}.conf"));
    std::fs::write(&path, config)?;
    let log = std::fs::File::create(dir.join("proxy.log"))?;
    let mut nginx = inside(space, &[core], "nginx");
    nginx.arg("-e").arg(dir.join(format!("{name}.log"))).arg("-c").arg(path);
    Process::start(nginx.stdout(Stdio::null()).stderr(log))
}

/// nginx's module for connections without HTTP, where Debian puts it.
pub fn stream_module() -> Option<PathBuf> {
    let path = PathBuf::from("/usr/lib/nginx/modules/ngx_stream_module.so");
    path.exists().then_some(path)
}

const MIB: f64 = 1_048_576.0;
/// Until a proxy must have started; an emulated machine takes its time.
const PATIENCE: Duration = Duration::from_secs(15);
/// Addresses that proxies take turns with.
const INNER_MAX: u8 = 200;
