//! Network namespaces by name, and the one place that runs `ip`.

use super::{At, LabError};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A network namespace under `/run/netns`; dropping it removes it, unless [`Namespace::keep`] was said.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    owned: bool,
}

impl Namespace {
    /// Makes the namespace `name`, with its loopback up and without IPv6's wait for duplicate addresses.
    ///
    /// # Errors
    /// [`LabError::Command`] when the name is taken or the caller lacks the right.
    pub fn add(name: &str) -> Result<Self, LabError> {
        ip(None, &[format!("netns add {name}")])?;
        let namespace = Self { name: name.to_owned(), owned: true };
        namespace.sysctl("net/ipv6/conf/all/accept_dad", "0")?;
        namespace.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        namespace.sysctl("net/ipv6/conf/default/accept_ra", "0")?;
        namespace.ip(&["link set lo up"])?;
        Ok(namespace)
    }

    /// The namespace `name` when it exists; dropping this leaves it.
    pub fn find(name: &str) -> Option<Self> {
        path_of(name).exists().then(|| Self { name: name.to_owned(), owned: false })
    }

    /// Leaves the namespace in place when this value is dropped.
    pub fn keep(&mut self) {
        self.owned = false;
    }

    /// Removes the namespace's name; the kernel takes the rest down when the last process in it ends.
    ///
    /// # Errors
    /// [`LabError::Command`] when `ip` refuses.
    pub fn remove(mut self) -> Result<(), LabError> {
        self.owned = false;
        ip(None, &[format!("netns del {}", self.name)])
    }

    /// The name, as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs `ip` inside, once for all `lines`: `namespace.ip(&["link set eth0 up"])`.
    ///
    /// # Errors
    /// [`LabError::Command`] with the line that failed and what the kernel answered.
    pub fn ip<L: AsRef<str>>(&self, lines: &[L]) -> Result<(), LabError> {
        ip(Some(&self.name), lines)
    }

    /// Gives `interface` its addresses and brings it up.
    ///
    /// # Errors
    /// [`LabError::Command`] when the interface is not there or an address is not one.
    pub fn address(&self, interface: &str, addresses: &[&str]) -> Result<(), LabError> {
        let mut lines: Vec<_> =
            addresses.iter().map(|address| format!("addr add {address} dev {interface}")).collect();
        lines.push(format!("link set {interface} up"));
        self.ip(&lines)
    }

    /// Writes one setting under `/proc/sys` as this namespace sees it: `net/ipv4/ip_forward`.
    ///
    /// # Errors
    /// [`LabError::Io`] when there is no such setting.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), LabError> {
        let path = Path::new("/proc/sys").join(key);
        self.enter(|| fs::write(&path, value).at(&path))?
    }

    /// Runs `work` on a thread of its own inside the namespace; threads it starts are inside too.
    ///
    /// A panic of `work` goes on in the caller.
    ///
    /// # Errors
    /// [`LabError::Io`] when the namespace is gone.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        let path = path_of(&self.name);
        let inside = || {
            let file = File::open(&path).at(&path)?;
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(file.as_fd(), kind)
                .map_err(std::io::Error::from)
                .at(&path)?;
            Ok(work())
        };
        std::thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// The processes inside.
    ///
    /// # Errors
    /// [`LabError::Command`] when `ip` refuses.
    pub fn pids(&self) -> Result<Vec<u32>, LabError> {
        let mut command = Command::new("ip");
        let output = output(command.args(["netns", "pids", &self.name]), "iproute2")?;
        Ok(output.lines().filter_map(|line| line.trim().parse().ok()).collect())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = ip(None, &[format!("netns del {}", self.name)])
        {
            eprintln!("{error}");
        }
    }
}

/// Says so when the caller is not root.
///
/// # Errors
/// [`LabError::NotRoot`].
pub fn require_root() -> Result<(), LabError> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(LabError::NotRoot) }
}

/// Runs `command` and gives its standard output.
pub(super) fn output(command: &mut Command, package: &'static str) -> Result<String, LabError> {
    let spoken = spoken(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| cannot_run(command, package, &spoken, &error))?;
    judge(&output, spoken)
}

/// Runs `ip` once, with one command a line; stops at the first that fails.
fn ip<L: AsRef<str>>(namespace: Option<&str>, lines: &[L]) -> Result<(), LabError> {
    let lines: Vec<&str> = lines.iter().map(AsRef::as_ref).collect();
    let mut command = Command::new("ip");
    if let Some(name) = namespace {
        command.args(["-n", name]);
    }
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let prefix = namespace.map_or_else(|| "ip".to_owned(), |name| format!("ip -n {name}"));
    let mut child = command.spawn().map_err(|error| cannot_run(&command, "iproute2", &prefix, &error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that gave up reading says why on standard error.
        let _ = stdin.write_all((lines.join("\n") + "\n").as_bytes());
    }
    let output = child.wait_with_output().at(Path::new("ip"))?;
    let failed = failed_line(&String::from_utf8_lossy(&output.stderr)).unwrap_or(1);
    let line = lines.get(failed - 1).copied().unwrap_or_default();
    judge(&output, format!("{prefix} {line}")).map(drop)
}

fn judge(output: &std::process::Output, command: String) -> Result<String, LabError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().filter(|line| !line.starts_with("Command failed -:"));
    let said = said.collect::<Vec<_>>().join("; ");
    let message = if said.is_empty() { output.status.to_string() } else { said };
    Err(LabError::Command { command, message })
}

/// The `3` of `Command failed -:3`, which `ip -batch` ends its complaint with.
fn failed_line(stderr: &str) -> Option<usize> {
    let at = stderr.lines().find_map(|line| line.strip_prefix("Command failed -:"))?;
    at.trim().parse().ok().filter(|&number| number > 0)
}

fn cannot_run(command: &Command, package: &'static str, spoken: &str, error: &std::io::Error) -> LabError {
    let program = command.get_program().to_string_lossy().into_owned();
    match error.kind() {
        std::io::ErrorKind::NotFound => LabError::Missing { program, package },
        _ => LabError::Command { command: spoken.to_owned(), message: error.to_string() },
    }
}

fn spoken(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn path_of(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_line_is_read_from_what_ip_says() {
        assert_eq!(failed_line("RTNETLINK answers: File exists\nCommand failed -:3\n"), Some(3));
        assert_eq!(failed_line("Cannot open network namespace\n"), None);
        assert_eq!(failed_line("Command failed -:0\n"), None);
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let error = output(&mut Command::new("sluice-no-such-program"), "no-such-package").unwrap_err();
        assert!(matches!(&error, LabError::Missing { package: "no-such-package", .. }), "{error}");
    }
}
