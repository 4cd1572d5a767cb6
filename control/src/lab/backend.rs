//! The lab's servers: nginx over HTTP, and a UDP echo. Each writes a pid file and is ended by it.

use super::namespace::output;
use super::{At, LabError, Namespace};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;
use std::io;
use std::net::{Ipv6Addr, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// An nginx of the lab, with a configuration, a document root and a pid file of its own.
///
/// It answers `/` with its name, `/whoami` with its name and the address and port the request came from,
/// `/health.html` with `server is ok`, `/large` with 1 GiB of zeros, and any file under [`Nginx::www`]. `PUT
/// /upload/NAME` stores a file there. Every answer carries its name in `X-Member`.
#[derive(Debug)]
pub struct Nginx {
    directory: PathBuf,
    daemon: Daemon,
}

impl Nginx {
    /// Starts nginx inside `namespace` on `port`, over IPv4 and IPv6; `directory` must not exist yet.
    ///
    /// # Errors
    /// [`LabError::Missing`] when nginx is not installed, [`LabError::Command`] when it refuses.
    pub fn start(namespace: &Namespace, member: &str, port: u16, directory: &Path) -> Result<Self, LabError> {
        let www = directory.join("www");
        fs::create_dir_all(www.join("upload")).at(&www)?;
        let large = www.join("large");
        fs::File::create(&large).and_then(|file| file.set_len(LARGE_BYTES)).at(&large)?;
        let config = directory.join("nginx.conf");
        fs::write(&config, nginx_config(member, port, directory)).at(&config)?;
        if !installed("nginx") {
            return Err(LabError::Missing { program: "nginx".to_owned(), package: "nginx" });
        }
        let mut nginx = namespace.command("nginx");
        nginx.arg("-e").arg(directory.join("error.log")).arg("-c").arg(&config);
        let daemon = Daemon::owned(directory.join("nginx.pid"));
        output(&mut nginx, "nginx")?;
        daemon.wait("nginx wrote no pid file")?;
        Ok(Self { directory: directory.to_owned(), daemon })
    }

    /// The folder that nginx serves.
    pub fn www(&self) -> PathBuf {
        self.directory.join("www")
    }

    /// Leaves nginx running when this value is dropped.
    pub fn keep(&mut self) {
        self.daemon.keep();
    }
}

/// Answers every datagram on UDP port 7 with `member`, a blank, and what came, until the process ends.
///
/// # Errors
/// What the socket says.
pub fn serve_udp_echo(member: &str) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, ECHO_PORT))?;
    let mut buffer = vec![0; 65_536];
    loop {
        // A peer whose port is closed by now shows up here as an error of an earlier send: go on.
        let Ok((bytes, peer)) = socket.recv_from(&mut buffer) else { continue };
        let answer = [member.as_bytes(), b" ", &buffer[..bytes]].concat();
        let _ = socket.send_to(&answer, peer);
    }
}

/// Starts `program lab echo` inside `namespace`, in a session of its own.
pub(super) fn start_echo(
    namespace: &Namespace,
    program: &Path,
    member: &str,
    directory: &Path,
) -> Result<Daemon, LabError> {
    let daemon = Daemon::owned(directory.join("echo.pid"));
    let log = directory.join("echo.log");
    let log = fs::File::create(&log).at(&log)?;
    let mut command = namespace.command("setsid");
    command.arg(program).args(["lab", "echo", "--member", member, "--pid-file"]).arg(&daemon.pid_file);
    command.stdin(Stdio::null()).stdout(log.try_clone().at(directory)?).stderr(log);
    command.spawn().at(program)?;
    daemon.wait("the UDP echo wrote no pid file")?;
    Ok(daemon)
}

/// A process known by its pid file, whose folder stands in its command line.
#[derive(Debug)]
pub(super) struct Daemon {
    pid_file: PathBuf,
    owned: bool,
}

impl Daemon {
    /// A process that this one starts: dropping this ends it.
    fn owned(pid_file: PathBuf) -> Self {
        Self { pid_file, owned: true }
    }

    /// A process that somebody started: dropping this leaves it.
    pub(super) fn find(pid_file: &Path) -> Self {
        Self { pid_file: pid_file.to_owned(), owned: false }
    }

    /// Leaves the process running when this value is dropped.
    pub(super) fn keep(&mut self) {
        self.owned = false;
    }

    /// The pid, while that process runs and is the one that the lab started.
    pub(super) fn pid(&self) -> Option<u32> {
        self.open().map(|(pid, _)| pid)
    }

    /// Ends the process and waits until it is gone; nothing happens when it is gone already.
    pub(super) fn end(&self) -> Result<(), LabError> {
        let Some((pid, process)) = self.open() else { return Ok(()) };
        for (signal, patience) in [(Signal::TERM, PATIENCE), (Signal::KILL, PATIENCE)] {
            // An error means that it is gone.
            let _ = pidfd_send_signal(&process, signal);
            if ended_within(&process, patience) {
                return Ok(());
            }
        }
        Err(LabError::Late { what: format!("process {pid} did not end"), seconds: PATIENCE.as_secs() * 2 })
    }

    /// A daemon writes its pid after its parent went home: looks until it stands there.
    fn wait(&self, what: &str) -> Result<(), LabError> {
        let start = Instant::now();
        while self.pid().is_none() {
            if start.elapsed() > PATIENCE {
                return Err(LabError::Late { what: what.to_owned(), seconds: PATIENCE.as_secs() });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Opens the process before looking at its command line, so that the pid cannot change hands in between.
    fn open(&self) -> Option<(u32, OwnedFd)> {
        let pid: i32 = fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok()?;
        let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let directory = self.pid_file.parent()?.to_str()?;
        let ours = String::from_utf8_lossy(&command_line).contains(&format!("{directory}/"));
        ours.then_some((pid.unsigned_abs(), process))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = self.end()
        {
            eprintln!("{error}");
        }
    }
}

fn ended_within(process: &OwnedFd, patience: Duration) -> bool {
    let mut polled = [rustix::event::PollFd::new(process, rustix::event::PollFlags::IN)];
    let timeout = rustix::event::Timespec::try_from(patience).ok();
    matches!(rustix::event::poll(&mut polled, timeout.as_ref()), Ok(1))
}

fn installed(program: &str) -> bool {
    let mut command = Command::new(program);
    let run = command.arg("-v").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok()
}

fn nginx_config(member: &str, port: u16, directory: &Path) -> String {
    let directory = directory.display();
    format!(
        r#"# Written by `sluice lab up`.
user root;
worker_processes 1;
pid {directory}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type text/plain;
    sendfile on;
    keepalive_requests 1000000;
    client_max_body_size 0;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen {port} backlog=4096;
        listen [::]:{port} ipv6only=on backlog=4096;
        add_header X-Member {member};
        root {directory}/www;
        location = / {{ return 200 "{member}\n"; }}
        location = /whoami {{ return 200 "{member} $remote_addr $remote_port\n"; }}
        location = /health.html {{ return 200 "server is ok\n"; }}
        location /upload/ {{ dav_methods PUT; }}
    }}
}}
"#
    )
}

/// The port of RFC 862.
const ECHO_PORT: u16 = 7;
/// A hole in a file system: it takes no room.
const LARGE_BYTES: u64 = 1 << 30;
/// How long a backend may take to come or go.
const PATIENCE: Duration = Duration::from_secs(5);
