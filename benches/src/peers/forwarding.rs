//! Three network namespaces, an origin, a load generator, and one proxy at a time between them.
//!
//! ```text
//!   client 10.66.0.2 ──veth── 10.66.0.100:80 proxy 10.77.0.10 ──veth── 10.77.0.2:8080 server
//!   core 0                    core 1                                   core 0
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sluice_ffi::tsc;

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

/// On which core the kernel does the receive work of the links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steering {
    /// Where it likes: on the core of the sender.
    Kernel,
    /// The proxy's links on the proxy's core, so that it pays for what it receives; the others where the kernel likes.
    Steered,
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
    prefix: String,
    dir: TempDir,
    origin: Process,
}

impl Lab {
    /// Builds it. Needs root.
    ///
    /// # Errors
    /// What could not be done.
    pub fn new() -> io::Result<Self> {
        let prefix = format!("slb{}", std::process::id() % 100_000);
        let dir = TempDir::new("sluice-peers")?;
        let spaces = Spaces { prefix: prefix.clone() };
        spaces.build()?;
        let config = dir.path().join("nginx.conf");
        std::fs::write(&config, nginx_conf(dir.path()))?;
        let mut nginx = inside(&spaces.name("s"), SPARE_CORE, "nginx");
        nginx.arg("-e").arg(dir.path().join("nginx.log")).arg("-c").arg(&config);
        let origin = Process::start(nginx.stdout(Stdio::null()))?;
        std::mem::forget(spaces);
        std::thread::sleep(Duration::from_millis(500));
        Ok(Self { prefix, dir, origin })
    }

    /// Loads one proxy for `seconds`.
    ///
    /// # Errors
    /// What did not start, and runs with failed requests.
    pub fn run(&self, proxy: Proxy, steering: Steering, seconds: u32, counters: bool) -> io::Result<Outcome> {
        let spaces = Spaces { prefix: self.prefix.clone() };
        let outcome = self.run_in(&spaces, proxy, steering, seconds, counters);
        std::mem::forget(spaces);
        outcome
    }

    fn run_in(
        &self,
        spaces: &Spaces,
        proxy: Proxy,
        steering: Steering,
        seconds: u32,
        counters: bool,
    ) -> io::Result<Outcome> {
        spaces.steer(steering)?;
        spaces.address_for(proxy)?;
        let process = self.start(spaces, proxy)?;
        std::thread::sleep(Duration::from_millis(1_200));
        self.load(spaces, 1)?;
        let own: Vec<u32> = process.iter().map(Process::pid).chain([self.origin.pid()]).collect();
        let _priorities = [RealTime::of(&own), RealTime::of_softirqs()];
        let soaker = Soaker::start(PROXY_CORE);
        let idle = Used::of(&soaker, || std::thread::sleep(Duration::from_millis(700)));
        let counting = if counters { start_counting(seconds) } else { None };
        let mut requests = Ok(0.0);
        let loaded = Used::of(&soaker, || requests = self.load(spaces, seconds));
        let requests = requests?;
        let counted = counting.and_then(finish_counting).map(|(i, c)| (i / requests, c / requests));
        let share = loaded.share - idle.share;
        Ok(Outcome {
            rate: requests / f64::from(seconds),
            cycles: share * loaded.cycles / requests,
            core_us: share * loaded.seconds / requests * 1e6,
            used: loaded.share,
            noise: idle.share,
            counted,
        })
    }

    /// Requests answered.
    fn load(&self, spaces: &Spaces, seconds: u32) -> io::Result<f64> {
        let mut wrk = inside(&spaces.name("c"), SPARE_CORE, "chrt");
        wrk.args(["--rr", "10", "wrk"]);
        wrk.args(["-t1", "-c64", &format!("-d{seconds}s"), "http://10.66.0.100/"]);
        let output = wrk.stderr(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        if text.contains("Non-2xx") || text.contains("Socket errors") {
            return Err(io::Error::other(format!("requests failed:\n{text}")));
        }
        let line = text.lines().find(|line| line.contains("requests in"));
        let count = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        count.filter(|&count| count > 0.0).ok_or_else(|| io::Error::other(format!("no answers:\n{text}")))
    }

    fn start(&self, spaces: &Spaces, proxy: Proxy) -> io::Result<Option<Process>> {
        let (dir, space) = (self.dir.path(), spaces.name("p"));
        let log = std::fs::File::create(dir.join("proxy.log"))?;
        let mut command = match proxy {
            Proxy::Nftables => {
                sh(&format!("ip netns exec {space} nft -f - <<'E'\n{NFT}E"))?;
                return Ok(None);
            }
            Proxy::Haproxy => {
                let config = dir.join("haproxy.cfg");
                std::fs::write(&config, HAPROXY)?;
                let mut command = inside(&space, PROXY_CORE, "haproxy");
                command.arg("-db").arg("-f").arg(config);
                command
            }
            Proxy::Sluice => {
                let config = dir.join("sluice.yaml");
                std::fs::write(&config, SLUICE)?;
                // It pins its worker itself.
                let mut command = Command::new("ip");
                command
                    .args(["netns", "exec", &space])
                    .arg(sluice_binary()?)
                    .arg("run")
                    .arg("-c")
                    .arg(config);
                command.arg("--socket").arg(dir.join("sluice.sock"));
                command
            }
        };
        Process::start(command.stdout(Stdio::null()).stderr(log)).map(Some)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(Spaces { prefix: self.prefix.clone() });
    }
}

/// The namespaces; deletes them on drop.
struct Spaces {
    prefix: String,
}

impl Spaces {
    fn name(&self, which: &str) -> String {
        format!("{}{which}", self.prefix)
    }

    fn build(&self) -> io::Result<()> {
        let (c, p, s) = (self.name("c"), self.name("p"), self.name("s"));
        sh(&format!(
            "ip netns add {c}; ip netns add {p}; ip netns add {s}
             ip -n {p} link add p0 type veth peer name c0 netns {c}
             ip -n {p} link add p1 type veth peer name s0 netns {s}
             ip -n {c} addr add 10.66.0.2/24 dev c0; ip -n {s} addr add 10.77.0.2/24 dev s0
             ip -n {c} link set c0 up; ip -n {s} link set s0 up; ip -n {p} link set p0 up; ip -n {p} link set p1 up
             ip -n {c} link set lo up; ip -n {p} link set lo up; ip -n {s} link set lo up
             ip netns exec {p} sysctl -qw net.ipv4.ip_forward=1"
        ))
    }

    fn steer(&self, steering: Steering) -> io::Result<()> {
        let mask = match steering {
            Steering::Kernel => 0,
            Steering::Steered => 1 << PROXY_CORE,
        };
        sh(&format!(
            "ip netns exec {} sh -c 'for queue in /sys/class/net/p?/queues/rx-*/rps_cpus; do echo {mask} > $queue; done'",
            self.name("p")
        ))
    }

    /// The kernel has the virtual address for its own proxies, and nothing on the links for sluice.
    fn address_for(&self, proxy: Proxy) -> io::Result<()> {
        let (c, p, s) = (self.name("c"), self.name("p"), self.name("s"));
        sh(&format!(
            "ip -n {p} addr flush dev p0; ip -n {p} addr flush dev p1; ip netns exec {p} nft flush ruleset
             ip -n {c} neigh flush all; ip -n {s} neigh flush all"
        ))?;
        if proxy == Proxy::Sluice {
            return Ok(());
        }
        sh(&format!("ip -n {p} addr add 10.66.0.100/24 dev p0; ip -n {p} addr add 10.77.0.10/24 dev p1"))
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for which in ["c", "p", "s"] {
            let _ =
                Command::new("ip").args(["netns", "del", &self.name(which)]).stderr(Stdio::null()).status();
        }
    }
}

fn inside(space: &str, core: usize, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", space, "taskset", "--cpu-list", &core.to_string(), program]);
    command
}

fn sh(script: &str) -> io::Result<()> {
    let output = Command::new("bash").args(["-euc", script]).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{script}\n{}", String::from_utf8_lossy(&output.stderr))))
}

fn sluice_binary() -> io::Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("sluice");
    if beside.exists() { Ok(beside) } else { Err(io::Error::other("no sluice binary beside this program")) }
}

/// What a core did while something ran.
struct Used {
    share: f64,
    cycles: f64,
    seconds: f64,
}

impl Used {
    fn of(soaker: &Soaker, run: impl FnOnce()) -> Self {
        let (start, from, soaked) = (Instant::now(), tsc::cycles(), soaker.cycles());
        run();
        let (cycles, soaked) = ((tsc::cycles() - from) as f64, (soaker.cycles() - soaked) as f64);
        Self { share: 1.0 - soaked / cycles, cycles, seconds: start.elapsed().as_secs_f64() }
    }
}

fn start_counting(seconds: u32) -> Option<std::process::Child> {
    let mut perf = Command::new("perf");
    perf.args(["stat", "-x,", "-e", "instructions,cycles", "-C", &PROXY_CORE.to_string(), "sleep"]);
    perf.arg(seconds.to_string()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().ok()
}

fn finish_counting(perf: std::process::Child) -> Option<(f64, f64)> {
    let output = perf.wait_with_output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let of = |event: &str| -> Option<f64> {
        text.lines().find(|line| line.contains(event))?.split(',').next()?.parse().ok()
    };
    Some((of("instructions")?, of("cycles")?))
}

fn nginx_conf(dir: &Path) -> String {
    let dir = dir.display();
    let object = "x".repeat(128);
    format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; tcp_nodelay on;
  client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir}; uwsgi_temp_path {dir};
  scgi_temp_path {dir};
  server {{ listen 10.77.0.2:8080; location / {{ return 200 '{object}'; }} }}
}}
"
    )
}

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

const SPARE_CORE: usize = 0;
const PROXY_CORE: usize = 1;
