//! What every bench on the wire stands on: hugepages, EAL, packet memory, and a device under test at the other end.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use sluice_control::client::Client;
use sluice_ffi::dpdk::{self, Eal, LogTo, Mempool, ThreadGuard};

use super::device::{self, SOCKET, Setup, Wire};
use super::station::Station;
use crate::machine::{self, Hugepages, Process, TempDir};

/// Taken once, given back on drop.
pub struct Ground {
    eal: Eal,
    memory: Mempool,
    dir: TempDir,
    huge: bool,
    opened: usize,
    /// This thread's cache in every mempool.
    _registered: ThreadGuard,
    _hugepages: Hugepages,
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy)]
pub enum Device<'a> {
    /// testpmd's macswap, on these cores, with bursts of so many.
    Macswap(&'a [usize], usize),
    /// The `sluice` binary.
    Sluice(Setup<'a>),
    /// A worker built in code.
    InCode(Setup<'a>),
}

/// A device under test, and our end of the wire to it: a station a queue.
pub struct Link {
    /// Our end; before the device, so that it is there when that ends.
    pub stations: Vec<Station>,
    /// The other end.
    pub device: Process,
    /// The wire itself.
    pub wire: Wire,
    socket: std::path::PathBuf,
}

impl Ground {
    /// Pins this thread to `core` and starts DPDK, with hugepages for a device with `flows` flows where they are to
    /// be had.
    ///
    /// # Errors
    /// Without root; DPDK's.
    pub fn prepare(core: usize, flows: u32) -> Result<Self, String> {
        if !machine::is_root() {
            return Err("needs root, for hugepages and real-time priority".into());
        }
        let hugepages = Hugepages::take(hugepages_for(flows));
        machine::pin(core);
        let huge = Hugepages::free() >= 256;
        let args: Vec<String> = device::memory_args(huge).into_iter().map(String::from).collect();
        let more = ["--no-pci", "--no-telemetry", "--file-prefix=sluice"].map(String::from);
        let args = dpdk::default_args(&[args, more.to_vec()].concat(), &[]);
        let eal = Eal::init(&args, LogTo::Quiet).map_err(|error| error.to_string())?;
        let registered = dpdk::register_thread().map_err(|error| error.to_string())?;
        let memory = Mempool::new(eal, 16_383, 2048, -1).map_err(|error| error.to_string())?;
        let dir = TempDir::new("sluice-wire").map_err(|error| error.to_string())?;
        Ok(Self { eal, memory, dir, huge, opened: 0, _registered: registered, _hugepages: hugepages })
    }

    /// What the numbers were taken on, in words.
    pub fn about(&self) -> String {
        let pages = if self.huge { "hugepages" } else { "ordinary pages (no hugepages to be had)" };
        let counters = if machine::has_hardware_counters() { "yes" } else { "none" };
        let cores = machine::cores();
        format!("DPDK {}, memif, {pages}; {cores} cores; hardware counters: {counters}", Eal::version())
    }

    /// Where files of the device under test are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Lays a wire of `ring_log2` and starts `device` at its other end.
    ///
    /// # Errors
    /// What could not be opened or started.
    pub fn link(&mut self, device: &Device<'_>, ring_log2: u8) -> Result<Link, String> {
        self.opened += 1;
        let socket = format!("sluice-wire-{}-{}", std::process::id(), self.opened);
        let wire = Wire { socket, ring_log2 };
        let queues = match device {
            Device::Macswap(cores, _) => cores.len(),
            Device::Sluice(setup) | Device::InCode(setup) => setup.cores.len(),
        };
        let memories: Vec<Mempool> = (0..queues).map(|_| self.memory.clone()).collect();
        let stations = Station::open(self.eal, &wire.server(self.opened), &memories)?;
        let started = match device {
            &Device::Macswap(cores, burst) => device::start_testpmd(&wire, cores, burst, self.huge),
            Device::Sluice(setup) => device::start_sluice(&wire, setup, self.dir.path()),
            Device::InCode(setup) => device::start_worker(&wire, setup),
        };
        let device = started.map_err(|error| error.to_string())?;
        Ok(Link { stations, device, wire, socket: self.dir.path().join(SOCKET) })
    }

    /// `reason`, and what the device under test has said.
    pub fn with_log(&self, reason: &str) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("sluice.log")).unwrap_or_default();
        format!("{reason}\n{log}")
    }
}

impl Link {
    /// What the device's control socket answers; null when there is none.
    pub fn ask(&self, path: &str) -> Value {
        let asked = Client::new(&self.socket).request("GET".parse().unwrap_or_default(), path, None);
        asked.map(|answer| answer.json).unwrap_or_default()
    }

    /// What the device has dropped so far, by reason; empty when it has no control socket.
    pub fn drops(&self) -> BTreeMap<String, u64> {
        let all = self.ask("/v1/drops");
        let total = all["total"].as_object().into_iter().flatten();
        total.map(|(reason, count)| (reason.clone(), count.as_u64().unwrap_or_default())).collect()
    }

    /// Where the device's control socket is.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// 2 MiB each: DPDK's own, and the tables of so many flows.
fn hugepages_for(flows: u32) -> u64 {
    512 + u64::from(flows) * FLOW_BYTES * 5 / 4 / (2 << 20)
}

/// Of all tables that grow with the flows.
const FLOW_BYTES: u64 = 192;
