//! Devices under test: what runs on the other core.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sluice_dataplane::config::snapshot::Protocol;
use sluice_dataplane::counters::WorkerCounters;
use sluice_dataplane::frame::FramePool;
use sluice_dataplane::port::{self, DriverSpec, PortSpec};
use sluice_dataplane::runtime;
use sluice_dataplane::verdict::DropReason;

use crate::large::Sections;
use crate::machine::{self, Process};
use crate::proxied::Layer;
use crate::scenario::{self, Shape};

/// The memif's name and shape, the same for every device.
#[derive(Debug, Clone)]
pub struct Wire {
    /// Name of the abstract socket.
    pub socket: String,
    /// Both rings hold 2 to the power of this many frames.
    pub ring_log2: u8,
}

/// What the device under test is to be.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// Its virtual server.
    pub shape: Shape,
    /// The core of each of its workers.
    pub cores: &'a [usize],
    /// What else it has to hold, without any traffic.
    pub ballast: Option<&'a Sections>,
    /// It is a full proxy, with few members.
    pub proxy: Option<Layer>,
}

impl Wire {
    /// The generator's end.
    pub fn server(&self, number: usize) -> String {
        format!("net_memif{number},role=server,id=0,{}", self.common())
    }

    /// The device's end.
    pub fn client(&self) -> String {
        format!("net_memif0,role=client,id=0,{}", self.common())
    }

    fn common(&self) -> String {
        format!("socket={},socket-abstract=yes,rsize={},bsize=2048", self.socket, self.ring_log2)
    }
}

/// Starts testpmd in macswap mode, with a queue on each of `cores` and bursts of `burst`.
///
/// # Errors
/// When it is not installed.
pub fn start_testpmd(wire: &Wire, cores: &[usize], burst: usize, hugepages: bool) -> io::Result<Process> {
    let mut command = on_all_cores("dpdk-testpmd");
    // The first lcore is testpmd's own, for its prompt; the others forward.
    let forwarding: String = (1..).zip(cores).map(|(lcore, core)| format!(",{lcore}@{core}")).collect();
    command.args([
        "--lcores",
        &format!("0@0{forwarding}"),
        "--no-pci",
        "--no-telemetry",
        "--file-prefix=sluice",
    ]);
    command.args(memory_args(hugepages));
    command.args(["--vdev", &wire.client(), "--", "--forward-mode=macswap"]);
    command.arg(format!("--burst={burst}"));
    let (queues, mbufs) = (cores.len(), 8192 * cores.len());
    command.args([format!("--nb-cores={queues}"), format!("--rxq={queues}"), format!("--txq={queues}")]);
    command.arg(format!("--total-num-mbufs={mbufs}"));
    Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
}

/// Starts a worker built in code on the first core of `setup`, in a process of its own: this program with `dut`.
///
/// # Errors
/// The kernel's.
pub fn start_worker(wire: &Wire, setup: &Setup<'_>) -> io::Result<Process> {
    let Shape { protocol, flows, idle_ms } = setup.shape;
    let program = std::env::current_exe()?;
    let mut command = on_all_cores(program);
    command.args(["dut", "--device", &wire.client()]);
    command.args(["--core", &setup.cores[0].to_string(), "--flows", &flows.to_string()]);
    command.args(["--idle-ms", &idle_ms.to_string(), "--protocol", word(protocol)]);
    Process::start(&mut command)
}

/// Leaves the generator its core where there are others, so that the control thread does not share it.
fn on_other_cores(program: impl AsRef<std::ffi::OsStr>) -> Command {
    on_cores(usize::from(machine::cores() > 2), program)
}

/// The generator is pinned, and its children would be, too; each pins itself.
fn on_all_cores(program: impl AsRef<std::ffi::OsStr>) -> Command {
    on_cores(0, program)
}

fn on_cores(first: usize, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let last = machine::cores().saturating_sub(1);
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &format!("{first}-{last}")]).arg(program);
    command
}

/// What every EAL here is told about memory.
pub fn memory_args(hugepages: bool) -> Vec<&'static str> {
    if hugepages { vec!["--in-memory"] } else { vec!["--no-shconf", "--no-huge", "-m", "256"] }
}

/// Runs a worker on `device` until standard input ends, then prints what it dropped.
///
/// # Errors
/// What could not be opened.
pub fn run_worker(device: &str, core: usize, shape: Shape) -> Result<(), String> {
    let spec = PortSpec {
        name: "wire".into(),
        driver: DriverSpec::Dpdk { device: device.into() },
        fault: None,
        pcap: None,
    };
    port::prepare(std::slice::from_ref(&spec), &[]).map_err(|error| error.to_string())?;
    let frames = FramePool::new(scenario::limits(shape.flows).frames);
    let mut open = port::open(&spec, &[frames]).map_err(|error| error.to_string())?;
    let queue = open.queues.pop().ok_or("a port without queues")?;
    let spec = scenario::worker(shape.parts(), shape.flows, 1, Some(core), (open.info, queue));
    let counters = std::sync::Arc::clone(&spec.counters);
    let worker = runtime::spawn(spec).map_err(|error| error.to_string())?;
    let mut rest = String::new();
    let _ = io::Read::read_to_string(&mut io::stdin(), &mut rest);
    worker.stop();
    worker.join()?;
    print_drops(&counters);
    Ok(())
}

fn print_drops(counters: &WorkerCounters) {
    let drops = DropReason::ALL.iter().map(|&reason| (reason.name(), counters.of_drop(reason).load()));
    for (name, count) in drops.filter(|&(_, count)| count > 0) {
        eprintln!("  device under test dropped {count}: {name}");
    }
}

/// Starts the `sluice` binary beside this program with `setup` as its configuration.
///
/// # Errors
/// The kernel's.
pub fn start_sluice(wire: &Wire, setup: &Setup<'_>, dir: &Path) -> io::Result<Process> {
    let program = sluice_binary().ok_or_else(|| io::Error::other("no sluice binary beside this program"))?;
    let file = dir.join("sluice.yaml");
    std::fs::write(&file, configuration(wire, setup))?;
    let mut command = on_other_cores(program);
    command.arg("run").arg("-c").arg(&file).arg("--socket").arg(dir.join(SOCKET));
    let log = std::fs::File::create(dir.join("sluice.log"))?;
    Process::start(command.stdout(Stdio::null()).stderr(log))
}

/// Members behind a full proxy.
pub const PROXY_MEMBERS: u32 = 4;

/// The control socket of [`start_sluice`], in its folder.
pub const SOCKET: &str = "sluice.sock";

/// Where a `sluice` binary is, if there is one beside this program.
pub fn sluice_binary() -> Option<PathBuf> {
    let here = std::env::current_exe().ok()?;
    let beside = here.parent()?.join("sluice");
    beside.exists().then_some(beside)
}

/// What [`Shape::parts`] says, in the operator's words.
pub fn configuration(wire: &Wire, setup: &Setup<'_>) -> String {
    let Setup { shape, cores, ballast, proxy } = setup;
    let members = if proxy.is_some() { PROXY_MEMBERS } else { shape.members() };
    let kind = match proxy {
        None => "performance-l4",
        Some(Layer::Stream) => "standard",
        Some(Layer::Http) => "standard\n    http: {}",
    };
    let members: String = (1..=members)
        .map(|host| format!("      - {{address: 10.1.1.{host}, port: {}}}\n", scenario::MEMBER_PORT))
        .collect();
    let (pools, servers) = ballast.map_or(("", ""), |more| (&more.pools, &more.virtual_servers));
    format!(
        "version: 1
system:
  workers: {cores:?}
  idle: poll
  limits: {{flows: {flows}}}
ports:
  wire: {{driver: dpdk, device: \"{device}\"}}
self_ips:
  self: {{address: 10.1.0.10/16, port: wire}}
pools:
  members:
    members:
{members}{pools}virtual_servers:
  bench:
    destination: 10.1.0.100:{port}
    protocol: {protocol}
    type: {kind}
    pool: members
    snat: automap
    idle_timeout: {idle_ms}ms
{servers}",
        flows = scenario::limits(shape.flows).flows,
        device = wire.client(),
        port = scenario::VIRTUAL_PORT,
        protocol = word(shape.protocol),
        idle_ms = shape.idle_ms,
    )
}

/// The operator's word for it.
fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Any => "any",
    }
}
