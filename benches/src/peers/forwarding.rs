//! Connections that are forwarded: sluice's `performance-l4`, nftables and HAProxy in TCP mode.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::cost::{Cost, Counting, Meter, Source, Used};
use super::emulator::Did;
use super::ground::{Cores, PROXY_CORE, Spaces, Steering, inside, sh, sluice};
use super::wrk;
use crate::machine::{Process, RealTime, Soaker, TempDir};

/// What stands between client and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxy {
    /// The `sluice` binary: af_packet ports, performance-l4, SNAT automap.
    Sluice,
    /// The kernel: nftables DNAT and masquerade.
    Nftables,
    /// HAProxy in TCP mode, one thread.
    Haproxy,
}

impl Proxy {
    /// All of them.
    pub const ALL: [Proxy; 3] = [Proxy::Sluice, Proxy::Nftables, Proxy::Haproxy];

    /// For reports.
    pub const fn name(self) -> &'static str {
        match self {
            Proxy::Sluice => "sluice",
            Proxy::Nftables => "nftables",
            Proxy::Haproxy => "haproxy tcp",
        }
    }
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Requests a second.
    pub rate: f64,
    /// Time-stamp counter cycles of the proxy's core for each request, receive work of the kernel included.
    pub cycles: f64,
    /// The same in microseconds.
    pub core_us: f64,
    /// The share of the core that was used.
    pub used: f64,
    /// The share that was used before, with nothing to do; taken off the others.
    pub noise: f64,
    /// Instructions and cycles of the core for each request, where the processor counts them.
    pub counted: Option<(f64, f64)>,
}

/// The namespaces and the origin in one of them; gone on drop.
pub struct Lab {
    // Before the namespaces, which they run in.
    origins: Vec<Process>,
    spaces: Spaces,
    dir: TempDir,
}

impl Lab {
    /// Builds it, with load and origin on `cores`. Needs root.
    ///
    /// # Errors
    /// What could not be done.
    pub fn new(cores: Cores) -> io::Result<Self> {
        let dir = TempDir::new("sluice-peers")?;
        let spaces = Spaces::new(cores)?;
        let origins = cores.origin.iter().map(|&core| start_origin(&spaces, core, dir.path()));
        let origins = origins.collect::<io::Result<_>>()?;
        std::thread::sleep(Duration::from_millis(500));
        Ok(Self { origins, spaces, dir })
    }

    /// Loads one proxy for `seconds`.
    ///
    /// # Errors
    /// What did not start, and runs with failed requests.
    pub fn run(&self, proxy: Proxy, steering: Steering, seconds: u32, counters: bool) -> io::Result<Outcome> {
        let process = self.ready(proxy, steering)?;
        let own: Vec<u32> = process.iter().chain(&self.origins).map(Process::pid).collect();
        let _priorities = [RealTime::of(&own), RealTime::of_softirqs()];
        let (requests, idle, loaded) = self.soaked(seconds)?;
        let share = loaded.share - idle.share;
        Ok(Outcome {
            rate: requests / f64::from(seconds),
            cycles: share * loaded.cycles / requests,
            core_us: share * loaded.seconds / requests * 1e6,
            used: loaded.share,
            noise: idle.share,
            counted: if counters { self.counted(seconds)? } else { None },
        })
    }

    /// Loads one proxy for `seconds`: what each request cost its core, as `source` counts.
    ///
    /// # Errors
    /// Those of [`Lab::run`], and that nobody counts.
    pub fn cost(&self, proxy: Proxy, steering: Steering, seconds: u32, source: Source) -> io::Result<Cost> {
        let _process = self.ready(proxy, steering)?;
        let (requests, cost) = Meter::start(source)?.measure(|| self.load(seconds))?;
        let instructions = cost.instructions.map(|count| count / requests);
        let emulated = cost.emulated.map(|did| Did { user: did.user / requests, ..did });
        Ok(Cost { cycles: cost.cycles / requests, instructions, emulated })
    }

    /// Starts a proxy, and has it pass on some requests; `None` for the kernel itself.
    fn ready(&self, proxy: Proxy, steering: Steering) -> io::Result<Option<Process>> {
        self.spaces.steer(steering)?;
        self.spaces.address_proxy((proxy != Proxy::Sluice).then_some("10.77.0.10"))?;
        let process = self.start(proxy)?;
        let start = Instant::now();
        let mut answers = self.load(1);
        while answers.is_err() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(100));
            answers = self.load(1);
        }
        answers.map(|_| process)
    }

    /// Requests, and what the proxy's core did before and meanwhile.
    fn soaked(&self, seconds: u32) -> io::Result<(f64, Used, Used)> {
        let soaker = Soaker::start(PROXY_CORE);
        let idle = Used::of(&soaker, || std::thread::sleep(Duration::from_millis(700)));
        let mut requests = Ok(0.0);
        let loaded = Used::of(&soaker, || requests = self.load(seconds));
        Ok((requests?, idle, loaded))
    }

    /// Instructions and cycles a request, in a window without the soaker, which would be counted as well.
    fn counted(&self, seconds: u32) -> io::Result<Option<(f64, f64)>> {
        let counting = Counting::start(PROXY_CORE)?;
        let requests = self.load(seconds)?;
        let counts = counting.finish()?;
        Ok(counts.map(|counts| (counts.instructions / requests, counts.cycles / requests)))
    }

    /// Requests answered.
    fn load(&self, seconds: u32) -> io::Result<f64> {
        let connections = self.spaces.cores().connections();
        let load = wrk::Load { url: "http://10.66.0.100/", connections, seconds, closes: false };
        wrk::run(&self.spaces, &load).map(|answers| answers.requests)
    }

    fn start(&self, proxy: Proxy) -> io::Result<Option<Process>> {
        let (dir, space) = (self.dir.path(), self.spaces.name("p"));
        let log = std::fs::File::create(dir.join("proxy.log"))?;
        let mut command = match proxy {
            Proxy::Nftables => {
                sh(&format!("ip netns exec {space} nft -f - <<'E'\n{NFT}E"))?;
                return Ok(None);
            }
            Proxy::Haproxy => {
                let config = dir.join("haproxy.cfg");
                std::fs::write(&config, HAPROXY)?;
                let mut command = inside(&space, &[PROXY_CORE], "haproxy");
                command.arg("-db").arg("-f").arg(config);
                command
            }
            Proxy::Sluice => sluice(&space, dir, SLUICE)?,
        };
        Process::start(command.stdout(Stdio::null()).stderr(log)).map(Some)
    }
}

fn start_origin(spaces: &Spaces, core: usize, dir: &Path) -> io::Result<Process> {
    let name = format!("nginx{core}");
    let config = dir.join(&name).with_extension("conf");
    std::fs::write(&config, nginx_conf(dir, &name))?;
    let mut nginx = inside(&spaces.name("s"), &[core], "nginx");
    nginx.arg("-e").arg(dir.join(&name).with_extension("log")).arg("-c").arg(&config);
    Process::start(nginx.stdout(Stdio::null()))
}

/// Several share the port.
fn nginx_conf(dir: &Path, name: &str) -> String {
    let dir = dir.display();
    let object = "x".repeat(128);
    format!(
        "daemon off; master_process off; pid {dir}/{name}.pid; error_log {dir}/{name}.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; tcp_nodelay on;
  client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir}; uwsgi_temp_path {dir};
  scgi_temp_path {dir};
  server {{ listen 10.77.0.2:8080 reuseport; location / {{ return 200 '{object}'; }} }}
}}
"
    )
}

/// Until a proxy must have started; an emulated machine takes its time.
const PATIENCE: Duration = Duration::from_secs(15);

const NFT: &str = "table ip nat {
  chain prerouting { type nat hook prerouting priority -100; ip daddr 10.66.0.100 tcp dport 80 dnat to 10.77.0.2:8080; }
  chain postrouting { type nat hook postrouting priority 100; oifname p1 masquerade; }
}
";

const HAPROXY: &str = "global
  nbthread 1
  maxconn 4096
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen web
  bind 10.66.0.100:80
  server one 10.77.0.2:8080
";

const SLUICE: &str = "version: 1
system: {workers: [1], idle: adaptive}
ports:
  external: {driver: af_packet, interface: p0}
  internal: {driver: af_packet, interface: p1}
self_ips:
  ext: {address: 10.66.0.10/24, port: external}
  int: {address: 10.77.0.10/24, port: internal}
pools:
  web: {members: [{address: 10.77.0.2, port: 8080}]}
virtual_servers:
  web: {destination: '10.66.0.100:80', protocol: tcp, type: performance-l4, pool: web, snat: automap}
";
