//! The machine: cores, hugepages, children and their processor time. What it takes it gives back on drop.

use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sluice_ffi::tsc;

/// Cores of the machine, numbered from 0.
pub fn cores() -> usize {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let last = online.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<usize>().ok());
    last.map_or(1, |last| last + 1)
}

/// Pins this thread.
pub fn pin(core: usize) {
    core_affinity::set_for_current(core_affinity::CoreId { id: core });
}

/// Real-time priority for all threads of some processes, for as long as it lives: a timed window on a processor
/// that others use, too. Keep it short; the kernel leaves the others a twentieth of the time.
#[derive(Debug)]
pub struct RealTime {
    pids: Vec<u32>,
}

impl RealTime {
    /// Without the right to do so nothing happens; the processor shares that are reported will tell.
    pub fn of(pids: &[u32]) -> Self {
        let given = pids.iter().copied().filter(|&pid| change_policy(pid, true, "--fifo", "10"));
        Self { pids: given.collect() }
    }

    /// The kernel's own threads for receive work that is left over: behind a real-time process they would starve.
    pub fn of_softirqs() -> Self {
        let output = Command::new("pgrep").args(["ksoftirqd/"]).output();
        let text =
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        Self::of(&text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<_>>())
    }
}

impl Drop for RealTime {
    fn drop(&mut self) {
        for &pid in &self.pids {
            change_policy(pid, true, "--other", "0");
        }
    }
}

fn change_policy(pid: u32, all: bool, policy: &str, priority: &str) -> bool {
    let mut chrt = Command::new("chrt");
    if all {
        chrt.arg("--all-tasks");
    }
    let chrt = chrt.args([policy, "--pid", priority, &pid.to_string()]);
    chrt.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// This thread gives way to everybody, for as long as it lives.
#[derive(Debug)]
pub struct GivesWay {
    thread: Option<u32>,
}

impl GivesWay {
    /// Without the right to do so nothing happens.
    pub fn start() -> Self {
        let thread = this_thread().filter(|&thread| change_policy(thread, false, "--idle", "0"));
        Self { thread }
    }
}

impl Drop for GivesWay {
    fn drop(&mut self) {
        if let Some(thread) = self.thread {
            change_policy(thread, false, "--other", "0");
        }
    }
}

fn this_thread() -> Option<u32> {
    std::fs::read_link("/proc/thread-self").ok()?.file_name()?.to_str()?.parse().ok()
}

/// A thread that takes what a core has left, just above everybody who is not real-time, and knows how much that was:
/// what it did not get went to real-time processes and to the kernel's receive work. Says what work costs where
/// neither hardware counters nor exact accounting of interrupts exist.
#[derive(Debug)]
pub struct Soaker {
    shared: Arc<Soaked>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Soaked {
    cycles: AtomicU64,
    stop: AtomicBool,
}

impl Soaker {
    /// On `core`.
    pub fn start(core: usize) -> Self {
        let shared = Arc::new(Soaked::default());
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || soak(core, &shared)
        });
        std::thread::sleep(Duration::from_millis(100));
        Self { shared, thread: Some(thread) }
    }

    /// Time-stamp counter cycles that it has had so far.
    pub fn cycles(&self) -> u64 {
        self.shared.cycles.load(Ordering::Relaxed)
    }
}

impl Drop for Soaker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn soak(core: usize, shared: &Soaked) {
    pin(core);
    this_thread().map(|thread| change_policy(thread, false, "--fifo", "1"));
    let (mut had, mut last) = (0, tsc::cycles());
    while !shared.stop.load(Ordering::Relaxed) {
        let now = tsc::cycles();
        // A longer step was somebody else's.
        if now - last < OWN_STEP_CYCLES {
            had += now - last;
            shared.cycles.store(had, Ordering::Relaxed);
        }
        last = now;
    }
}

const OWN_STEP_CYCLES: u64 = 400;

/// A sampling profile of a process, written when this is dropped.
#[derive(Debug)]
pub struct Profile {
    perf: Option<Child>,
}

impl Profile {
    /// Samples by the clock, which works without hardware counters, into a buffer that holds a whole window.
    pub fn start(pid: u32, into: &Path) -> Self {
        let mut perf = Command::new("perf");
        perf.args(["record", "--event=cpu-clock", "--freq=4000", "--mmap-pages=2048", "--output"]).arg(into);
        let perf =
            perf.args(["--pid", &pid.to_string()]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok();
        std::thread::sleep(Duration::from_millis(300));
        Self { perf }
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let Some(perf) = &mut self.perf else { return };
        let _ = Command::new("kill").args(["-INT", &perf.id().to_string()]).status();
        let _ = perf.wait();
    }
}

/// True when this process may take hugepages and open devices.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|data| std::os::unix::fs::MetadataExt::uid(&data) == 0)
}

/// At least so many 2 MiB hugepages, for as long as it lives.
#[derive(Debug)]
pub struct Hugepages {
    before: Option<u64>,
}

impl Hugepages {
    /// Raises the pool to `pages` unless that many are free. Without the right to do so nothing happens: DPDK then
    /// works with ordinary pages, and slower.
    pub fn take(pages: u64) -> Self {
        let free = meminfo("HugePages_Free:");
        let total: u64 =
            std::fs::read_to_string(POOL).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        if free >= pages || std::fs::write(POOL, (total + pages - free).to_string()).is_err() {
            return Self { before: None };
        }
        Self { before: Some(total) }
    }

    /// Pages free now.
    pub fn free() -> u64 {
        meminfo("HugePages_Free:")
    }
}

impl Drop for Hugepages {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            let _ = std::fs::write(POOL, before.to_string());
        }
    }
}

const POOL: &str = "/proc/sys/vm/nr_hugepages";

/// Memory that a process has, hugepages included; 0 when it is gone.
pub fn resident_bytes(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/status");
    (field_of(&path, "VmRSS:") + field_of(&path, "HugetlbPages:")) << 10
}

/// Memory that the kernel has in slabs.
pub fn slab_bytes() -> u64 {
    meminfo("Slab:") << 10
}

fn meminfo(field: &str) -> u64 {
    field_of("/proc/meminfo", field)
}

/// The number behind `field`; 0 without.
fn field_of(path: &str, field: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// A folder that is gone on drop.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
}

impl TempDir {
    /// A new folder below the system's temporary one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(name: &str) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A child process that ends with its owner: asked first by the end of its standard input, then by a signal.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` with a pipe as standard input.
    ///
    /// # Errors
    /// The kernel's, such as a program that is not installed.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let child = command.stdin(Stdio::piped()).spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", command.get_program().to_string_lossy()))
        })?;
        Ok(Self { child })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// True while it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The first line that it writes, where its standard output is a pipe; empty when it ends without.
    ///
    /// # Errors
    /// The kernel's.
    pub fn first_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if let Some(output) = self.child.stdout.take() {
            io::BufReader::new(output).read_line(&mut line)?;
        }
        Ok(line)
    }

    /// Processor time of all its threads so far.
    pub fn cpu_time(&self) -> Duration {
        cpu_time(self.pid())
    }

    /// How long its workers, which never sleep, have waited for a core so far.
    pub fn waited(&self) -> Duration {
        sum_of_threads(self.pid(), 1, |name| name.starts_with("worker-"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        for wait in 0..300 {
            if !self.is_running() {
                return;
            }
            // A second time for those that drain first.
            if wait == 20 || wait == 50 {
                let _ = Command::new("kill").arg(self.pid().to_string()).status();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time of all threads of a process so far; zero when it is gone.
pub fn cpu_time(pid: u32) -> Duration {
    sum_of_threads(pid, 0, |_| true)
}

/// The sum of a field of the scheduler's statistics over the threads whose names `which` accepts: 0 time on a core,
/// 1 time spent waiting for one.
fn sum_of_threads(pid: u32, field: usize, which: impl Fn(&str) -> bool) -> Duration {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let of = |task: std::fs::DirEntry| -> Option<u64> {
        let read = |file| std::fs::read_to_string(task.path().join(file)).ok();
        which(&read("comm")?).then_some(())?;
        read("schedstat")?.split_whitespace().nth(field)?.parse().ok()
    };
    Duration::from_nanos(tasks.flatten().filter_map(of).sum())
}

/// True when the processor's counters can be read: most virtual machines have none.
pub fn has_hardware_counters() -> bool {
    let mut perf = Command::new("perf");
    let output = perf.args(["stat", "-x,", "-e", "instructions,cycles", "true"]).output();
    output.is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success() && !text.contains("not supported") && !text.contains("not counted")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_ends_with_its_owner() {
        let child = Process::start(&mut Command::new("cat")).unwrap();
        let pid = child.pid();
        drop(child);
        assert_eq!(cpu_time(pid), Duration::ZERO);
    }
}
