//! Devices under test: what runs on the other core.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sluice_dataplane::counters::WorkerCounters;
use sluice_dataplane::frame::FramePool;
use sluice_dataplane::port::{self, DriverSpec, PortSpec};
use sluice_dataplane::runtime;
use sluice_dataplane::verdict::DropReason;

use crate::machine::Process;
use crate::scenario;

/// The memif's name and shape, the same for every device.
#[derive(Debug, Clone)]
pub struct Wire {
    /// Name of the abstract socket.
    pub socket: String,
    /// Both rings hold 2 to the power of this many frames.
    pub ring_log2: u8,
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

/// Starts testpmd in macswap mode on `core`.
///
/// # Errors
/// When it is not installed.
pub fn start_testpmd(wire: &Wire, core: usize, hugepages: bool) -> io::Result<Process> {
    let mut command = on_all_cores("dpdk-testpmd");
    // The first lcore is testpmd's own, for its prompt; the second forwards.
    command.args([
        "--lcores",
        &format!("0@0,1@{core}"),
        "--no-pci",
        "--no-telemetry",
        "--file-prefix=sluice",
    ]);
    command.args(memory_args(hugepages));
    command.args(["--vdev", &wire.client(), "--", "--forward-mode=macswap", "--nb-cores=1", "--burst=32"]);
    command.arg("--total-num-mbufs=8192");
    Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
}

/// Starts a worker built in code on `core`, in a process of its own: this program with `dut`.
///
/// # Errors
/// The kernel's.
pub fn start_worker(wire: &Wire, core: usize, flows: u32) -> io::Result<Process> {
    let program = std::env::current_exe()?;
    let mut command = on_all_cores(program);
    command.args(["dut", "--device", &wire.client()]);
    command.args(["--core", &core.to_string(), "--flows", &flows.to_string()]);
    Process::start(&mut command)
}

/// The generator is pinned, and its children would be, too; each pins itself.
fn on_all_cores(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", "0-1"]).arg(program);
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
pub fn run_worker(device: &str, core: usize, flows: u32) -> Result<(), String> {
    let spec = PortSpec {
        name: "wire".into(),
        driver: DriverSpec::Dpdk { device: device.into() },
        fault: None,
        pcap: None,
    };
    port::prepare(std::slice::from_ref(&spec), &[]).map_err(|error| error.to_string())?;
    let frames = FramePool::new(scenario::limits(flows).frames);
    let mut open = port::open(&spec, &[frames]).map_err(|error| error.to_string())?;
    let queue = open.queues.pop().ok_or("a port without queues")?;
    let spec = scenario::worker(scenario::parts(), flows, Some(core), (open.info, queue));
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

/// Starts the `sluice` binary beside this program with the scenario as its configuration, its worker on `core`.
///
/// # Errors
/// The kernel's.
pub fn start_sluice(wire: &Wire, core: usize, flows: u32, dir: &Path) -> io::Result<Process> {
    let program = sluice_binary().ok_or_else(|| io::Error::other("no sluice binary beside this program"))?;
    let file = dir.join("sluice.yaml");
    std::fs::write(&file, configuration(wire, core, flows))?;
    let mut command = on_all_cores(program);
    command.arg("run").arg("-c").arg(&file).arg("--socket").arg(dir.join("sluice.sock"));
    let log = std::fs::File::create(dir.join("sluice.log"))?;
    Process::start(command.stdout(Stdio::null()).stderr(log))
}

/// Where a `sluice` binary is, if there is one beside this program.
pub fn sluice_binary() -> Option<PathBuf> {
    let here = std::env::current_exe().ok()?;
    let beside = here.parent()?.join("sluice");
    beside.exists().then_some(beside)
}

/// What [`scenario::parts`] says, in the operator's words.
fn configuration(wire: &Wire, core: usize, flows: u32) -> String {
    let members: String = (1..=scenario::MEMBERS)
        .map(|host| format!("      - {{address: 10.1.1.{host}, port: {}}}\n", scenario::MEMBER_PORT))
        .collect();
    format!(
        "version: 1
system:
  workers: [{core}]
  idle: poll
  limits: {{flows: {flows}}}
ports:
  wire: {{driver: dpdk, device: \"{device}\"}}
self_ips:
  self: {{address: 10.1.0.10/16, port: wire}}
pools:
  members:
    members:
{members}virtual_servers:
  udp:
    destination: 10.1.0.100:{port}
    protocol: udp
    type: performance-l4
    pool: members
    snat: automap
",
        flows = scenario::limits(flows).flows,
        device = wire.client(),
        port = scenario::VIRTUAL_PORT,
    )
}
