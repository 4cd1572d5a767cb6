//! A running sluice: started in a namespace, asked over its socket, ended when dropped.

use crate::{api, show, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sluice_control::lab::Namespace;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// A `sluice run` of this test's.
#[derive(Debug)]
pub struct Sluice {
    child: Child,
    directory: PathBuf,
    /// From the start of the process until `/v1/ready` said yes.
    pub ready_after: Duration,
}

impl Sluice {
    /// Starts sluice with the configuration `text` and waits until it is ready.
    ///
    /// # Panics
    /// When it is not ready in time; the log is in the message.
    pub fn start(namespace: &Namespace, directory: &Path, text: &str) -> Self {
        let mut sluice = Self::spawn(namespace, directory, text);
        let start = Instant::now();
        while !sluice.is_ready() {
            let ended = sluice.child.try_wait().expect("the child can be waited for");
            assert!(
                ended.is_none() && start.elapsed() < PATIENCE,
                "sluice is not ready ({ended:?}); its log:\n{}",
                sluice.log()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        sluice.ready_after = start.elapsed();
        sluice
    }

    /// Starts sluice and does not wait.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn spawn(namespace: &Namespace, directory: &Path, text: &str) -> Self {
        let config = directory.join("sluice.yaml");
        fs::write(&config, text).expect("the configuration can be written");
        let log = fs::File::create(directory.join("sluice.log")).expect("the log can be written");
        // Should the test process be killed, sluice goes with it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "ip", "netns", "exec", namespace.name()]);
        command.arg(program()).arg("run").arg("-c").arg(&config);
        command.arg("--socket").arg(directory.join("sluice.sock"));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        let child = command.spawn().expect("setpriv (util-linux) runs");
        Self { child, directory: directory.to_owned(), ready_after: Duration::ZERO }
    }

    /// Whether `/v1/ready` says yes.
    pub fn is_ready(&self) -> bool {
        api::request(&self.socket(), "GET", "/v1/ready", "", "").is_ok_and(|answer| answer.status == 200)
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("sluice.sock")
    }

    /// Everything that sluice logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("sluice.log")).unwrap_or_default()
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `GET path` as JSON.
    ///
    /// # Panics
    /// When the answer is not 200 with JSON.
    pub fn get(&self, path: &str) -> Value {
        let answer = api::request(&self.socket(), "GET", path, "", "").expect("the socket answers");
        assert_eq!(answer.status, 200, "GET {path}: {answer:?}");
        answer.json()
    }

    /// `sluice ARGUMENTS --socket …`.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program());
        command.args(arguments).arg("--socket").arg(self.socket()).stdin(Stdio::null());
        command.output().expect("sluice runs")
    }

    /// [`Sluice::command`] that has to succeed; gives its standard output.
    ///
    /// # Panics
    /// When it fails.
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "sluice {arguments:?}: {} {error}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `sluice show THING -o json`.
    ///
    /// # Panics
    /// When it fails, or prints something else.
    pub fn show(&self, thing: &str) -> Value {
        let text = self.must(&["show", thing, "-o", "json"]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// The object called `name` among those of `show THING`.
    ///
    /// # Panics
    /// When there is none.
    pub fn object(&self, thing: &str, name: &str) -> Value {
        let all = self.get(&format!("/v1/{thing}"));
        show::entry(&all, "name", name).clone()
    }

    /// `sluice apply` of `text`, which has to succeed.
    ///
    /// # Panics
    /// When it is refused.
    pub fn apply(&self, text: &str) -> String {
        self.must(&["apply", &self.write("next.yaml", text)])
    }

    /// Writes `text` to a file beside the socket and gives its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.directory.join(name);
        fs::write(&path, text).expect("the file can be written");
        path.to_string_lossy().into_owned()
    }

    /// Sends `signal` and waits for the end.
    ///
    /// # Panics
    /// When the process is there still after `patience`.
    pub fn signal_and_wait(&mut self, signal: Signal, patience: Duration) -> ExitStatus {
        self.signal(signal);
        wait::until("sluice ends", patience, || self.child.try_wait().expect("a child of ours"))
    }

    /// Sends `signal`.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // An error means that it is gone.
            let _ = kill_process(pid, signal);
        }
    }

    /// Processor time used so far.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("sluice runs");
        // proc(5): after the name in parentheses, utime and stime are fields 14 and 15, in ticks of 10 ms.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = [11, 12].iter().map(|&at| fields[at].parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Resident memory in KiB.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("sluice runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
    }
}

impl Drop for Sluice {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the log of sluice:\n{}", self.log());
        }
        // Unlike SIGTERM, without waiting for open connections.
        self.signal(Signal::INT);
        let start = Instant::now();
        while let Ok(None) = self.child.try_wait() {
            if start.elapsed() > Duration::from_secs(5) {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The `sluice` under test, to be run as a command.
///
/// # Panics
/// When there is none.
pub fn sluice_command() -> Command {
    Command::new(program())
}

/// The `sluice` under test: `$SLUICE_BINARY`, or the one beside this test's own executable.
///
/// # Panics
/// When there is none.
pub(crate) fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("SLUICE_BINARY") {
        return path.into();
    }
    let own = std::env::current_exe().expect("/proc is mounted");
    let path = own.ancestors().nth(2).map(|target| target.join("sluice")).unwrap_or_default();
    assert!(path.exists(), "{} is not there: `cargo build` makes it, `make test` does all", path.display());
    path
}

/// How long sluice may take to become ready, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
