//! A lab with a running sluice in it, and what tests do with them.

use crate::sluice::program;
use crate::{Lab, LinkKind, Namespace, Sluice};
use sluice_control::lab::{LabOptions, require_root};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// A lab of this test's own with a running sluice in the middle.
#[derive(Debug)]
pub struct World {
    // In this order: sluice ends before its namespace goes.
    /// The sluice.
    pub sluice: Sluice,
    /// The lab.
    pub lab: Lab,
}

/// How often each member answered.
pub type Members = BTreeMap<String, usize>;

impl World {
    /// A lab joined by `link` with sluice running on `config`; `None`, said loudly, when not root.
    ///
    /// # Panics
    /// When the lab or sluice does not come up.
    pub fn start(link: LinkKind, config: &str) -> Option<Self> {
        let lab = lab(link)?;
        let sluice = Sluice::start(lab.sluice(), lab.directory(), config);
        Some(Self { sluice, lab })
    }

    /// Curl in the client's namespace; gives the body.
    ///
    /// # Panics
    /// When curl fails.
    pub fn curl(&self, url: &str) -> String {
        run(curl(self.lab.client()).arg(url))
    }

    /// `count` requests, each on a connection of its own, and which member answered.
    ///
    /// # Panics
    /// When one gets no answer.
    pub fn members_of(&self, url: &str, count: usize) -> Members {
        let mut members = Members::new();
        for _ in 0..count {
            *members.entry(self.curl(url).trim().to_owned()).or_default() += 1;
        }
        members
    }
}

/// A lab of this test's own; `None`, said loudly, when not root.
///
/// # Panics
/// When it does not come up.
pub fn lab(link: LinkKind) -> Option<Lab> {
    if !needs_root() {
        return None;
    }
    static SWEPT: Once = Once::new();
    SWEPT.call_once(sweep);
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{PREFIX}{}-{number}", std::process::id());
    let options = LabOptions::new(&name, link).expect("a good name");
    Some(Lab::up(&options).unwrap_or_else(|error| panic!("{error}")))
}

/// Whether this is root; if not, says that the test was skipped.
pub fn needs_root() -> bool {
    let root = require_root().is_ok();
    if !root {
        skip("needs root");
    }
    root
}

/// Says that the running test is skipped, past the test runner's capture.
pub fn skip(why: &str) {
    let thread = std::thread::current();
    let _ = writeln!(std::io::stderr(), "SKIPPED ({why}): {}", thread.name().unwrap_or("a test"));
}

/// A curl for one request in `namespace`.
pub fn curl(namespace: &Namespace) -> Command {
    let mut curl = namespace.command("curl");
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "10", "--noproxy", "*"]);
    curl
}

/// Runs a program that has to succeed; gives its standard output.
///
/// # Panics
/// When it fails.
pub fn run(command: &mut Command) -> String {
    let output = try_run(command);
    let error = String::from_utf8_lossy(&output.stderr);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{out}{error}", output.status);
    out
}

/// Runs a program that may fail.
///
/// # Panics
/// When it is not there.
pub fn try_run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Removes the labs of test processes that were killed.
fn sweep() {
    let Ok(labs) = std::fs::read_dir("/run/sluice-lab") else { return };
    for lab in labs.flatten() {
        let name = lab.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another test process may be sweeping too.
            let _ = Lab::remove(&name);
        }
    }
}

/// Whether the sluice under test was built with DPDK.
pub fn has_dpdk() -> bool {
    let output = try_run(Command::new(program()).arg("--version"));
    String::from_utf8_lossy(&output.stdout).contains("with DPDK")
}

const PREFIX: &str = "slt-";
