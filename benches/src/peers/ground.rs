//! The namespaces of client, proxy and server, and how programs are started in them.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where others than the proxy run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cores {
    /// The load, a thread each.
    pub load: &'static [usize],
    /// The origin, a process each.
    pub origin: &'static [usize],
}

impl Cores {
    /// On a machine of two cores.
    pub const SHARED: Cores = Cores { load: &[SPARE_CORE], origin: &[SPARE_CORE] };
    /// In an emulated machine, where the proxy is to have work at all times: whatever the machine below gives all cores
    /// alike, load and origin together get five times as much as the proxy.
    pub const EMULATED: Cores = Cores { load: &[SPARE_CORE, 3, 4], origin: &[2, 5] };
    /// Connections at once. In an emulated machine each waits for as long as all others take, and it is slow: with many,
    /// answers would come later than the 40 ms after which kernels acknowledge without one.
    pub fn connections(self) -> u32 {
        if self == Self::EMULATED { 16 } else { 64 }
    }

    /// How many an emulated machine has.
    pub const EMULATED_COUNT: usize = Self::EMULATED.load.len() + Self::EMULATED.origin.len() + 1;
}

/// Where client and server run on a machine of two cores, and what measures on all.
pub const SPARE_CORE: usize = 0;
/// Of the names of our namespaces; the number of our process follows.
const PREFIX: &str = "slb";
/// Where the proxy runs, alone.
pub const PROXY_CORE: usize = 1;

/// On which core the kernel does the receive work of the links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steering {
    /// Where it likes: on the core of the sender.
    Kernel,
    /// The proxy's links on the proxy's core, so that it pays for what it receives. The others' on theirs where they
    /// have several, so that it pays for nothing else; on a machine of two cores where the kernel likes.
    Steered,
}

impl Steering {
    /// For reports.
    pub const fn words(self) -> &'static str {
        match self {
            Steering::Kernel => "receive work where the kernel puts it",
            Steering::Steered => "receive work of the proxy's links on core 1",
        }
    }
}

/// The namespaces; deletes them on drop.
#[derive(Debug)]
pub struct Spaces {
    prefix: String,
    cores: Cores,
}

impl Spaces {
    /// Makes and connects them. Needs root.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn new(cores: Cores) -> io::Result<Self> {
        sweep()?;
        let spaces = Self { prefix: format!("{PREFIX}{}", std::process::id()), cores };
        spaces.build()?;
        Ok(spaces)
    }

    /// `c` the client's, `p` the proxy's, `s` the server's.
    pub fn name(&self, which: &str) -> String {
        format!("{}{which}", self.prefix)
    }

    /// Where load and origin run.
    pub fn cores(&self) -> Cores {
        self.cores
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
             ip netns exec {p} sysctl -qw net.ipv4.ip_forward=1
             for space in {c} {p}; do
                 ip netns exec $space sysctl -qw 'net.ipv4.ip_local_port_range=1024 65535' net.ipv4.tcp_tw_reuse=1
             done"
        ))
    }

    /// Says where the receive work of the proxy's links is done.
    ///
    /// # Errors
    /// What the shell says.
    pub fn steer(&self, steering: Steering) -> io::Result<()> {
        let masks = match steering {
            Steering::Kernel => [0; 3],
            Steering::Steered if self.cores == Cores::SHARED => [0, mask(&[PROXY_CORE]), 0],
            Steering::Steered => [mask(self.cores.load), mask(&[PROXY_CORE]), mask(self.cores.origin)],
        };
        ["c", "p", "s"].into_iter().zip(masks).try_for_each(|(which, mask)| {
            sh(&format!(
                "ip netns exec {} sh -c 'for queue in /sys/class/net/{which}?/queues/rx-*/rps_cpus; do \
                 echo {mask:x} > $queue; done'",
                self.name(which)
            ))
        })
    }

    /// The kernel has the virtual address and `inner`, the address that members see, for its own proxies; for sluice,
    /// without `inner`, it has nothing on the links.
    ///
    /// # Errors
    /// What `ip` and `nft` say.
    pub fn address_proxy(&self, inner: Option<&str>) -> io::Result<()> {
        let (c, p, s) = (self.name("c"), self.name("p"), self.name("s"));
        sh(&format!(
            "ip -n {p} addr flush dev p0; ip -n {p} addr flush dev p1; ip netns exec {p} nft flush ruleset
             ip -n {c} neigh flush all; ip -n {s} neigh flush all"
        ))?;
        let Some(inner) = inner else { return Ok(()) };
        sh(&format!("ip -n {p} addr add 10.66.0.100/24 dev p0; ip -n {p} addr add {inner}/24 dev p1"))
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

fn mask(cores: &[usize]) -> u64 {
    cores.iter().fold(0, |mask, core| mask | 1 << core)
}

/// Ends what a run has left that was killed: programs and namespaces named after a process that is gone.
fn sweep() -> io::Result<()> {
    sh(&format!(
        "for name in $(ip netns list | grep -oE '^{PREFIX}[0-9]+[cps]' || true); do
             owner=${{name#{PREFIX}}}; owner=${{owner%?}}
             if [ ! -e /proc/$owner ]; then
                 ip netns pids $name | xargs -r kill -9; ip netns del $name
             fi
         done"
    ))
}

/// `program` in a namespace, on some cores.
pub fn inside(space: &str, cores: &[usize], program: &str) -> Command {
    let cores = cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let mut command = Command::new("ip");
    command.args(["netns", "exec", space, "taskset", "--cpu-list", &cores, program]);
    command
}

/// `sluice` in a namespace with a configuration that is written to `dir`. It pins its worker itself.
///
/// # Errors
/// That there is no such program, or the kernel's.
pub fn sluice(space: &str, dir: &Path, config: &str) -> io::Result<Command> {
    let path = dir.join("sluice.yaml");
    std::fs::write(&path, config)?;
    let mut command = Command::new("ip");
    command.args(["netns", "exec", space]).arg(sluice_binary()?).arg("run").arg("-c").arg(path);
    command.arg("--socket").arg(dir.join("sluice.sock"));
    Ok(command)
}

/// Runs a script that stops at its first failure.
///
/// # Errors
/// What it said.
pub fn sh(script: &str) -> io::Result<()> {
    let output = Command::new("bash").args(["-euc", script]).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{script}\n{}", String::from_utf8_lossy(&output.stderr))))
}

/// What `SLUICE_BINARY` names, or what lies beside this program.
fn sluice_binary() -> io::Result<PathBuf> {
    let path = match std::env::var_os("SLUICE_BINARY") {
        Some(path) => path.into(),
        None => std::env::current_exe()?.with_file_name("sluice"),
    };
    if path.exists() {
        return Ok(path);
    }
    Err(io::Error::other(format!("{}: no such program; SLUICE_BINARY may name another", path.display())))
}
