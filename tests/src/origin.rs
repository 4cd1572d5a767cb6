//! Servers behind a full proxy: origins that misbehave on demand, and other programs that listen.
//!
//! An [`Origin`] is `origin.py` beside this file: HTTP/1.1 on [`HTTP_PORT`], where the path says what happens, and plain
//! TCP on [`TCP_PORT`], where the first line does.

use crate::{Namespace, Server, peer, wait};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, io};

/// A program that runs in a namespace until it is dropped, or this process ends.
#[derive(Debug)]
pub struct Program {
    child: Child,
}

impl Program {
    /// Starts `arguments` in `namespace`; its standard output can be read with [`Program::line`].
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn<S: AsRef<str>>(namespace: &Namespace, arguments: &[S]) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "ip", "netns", "exec", namespace.name()]);
        command.args(arguments.iter().map(AsRef::as_ref)).stdin(Stdio::null()).stdout(Stdio::piped());
        Self { child: command.spawn().expect("setpriv (util-linux) runs") }
    }

    /// Waits until somebody listens on `port` in `namespace`.
    ///
    /// # Panics
    /// When nobody does in time.
    #[must_use]
    pub fn listening(self, namespace: &Namespace, port: u16) -> Self {
        let address = format!("127.0.0.1:{port}");
        wait::until("a listener", PATIENCE, || peer::connect(namespace, &address).ok());
        self
    }

    /// The next line of its standard output.
    ///
    /// # Panics
    /// When it ends without one.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let out = self.child.stdout.as_mut().expect("a pipe");
        BufReader::with_capacity(1, out).read_line(&mut line).expect("a pipe");
        assert!(line.ends_with('\n'), "a program that ended: {:?}", self.child.try_wait());
        line.trim_end().to_owned()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it failed.
    pub fn finish(mut self) -> String {
        let mut text = String::new();
        self.child.stdout.take().expect("a pipe").read_to_string(&mut text).expect("text");
        let status = self.child.wait().expect("a child of ours");
        assert!(status.success(), "{status}: {text}");
        text
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running `origin.py`.
#[derive(Debug)]
pub struct Origin {
    program: Option<Program>,
    arguments: Vec<String>,
}

impl Origin {
    /// Starts the origin `name` on `server`, with its file in `directory`.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(server: &Server, name: &str, directory: &Path) -> Self {
        let script = directory.join(format!("{name}.py"));
        fs::write(&script, include_str!("origin.py")).expect("the script can be written");
        let (http, tcp) = (HTTP_PORT.to_string(), TCP_PORT.to_string());
        let arguments = [PYTHON, &script.to_string_lossy(), name, &http, &tcp].map(str::to_owned);
        let mut origin = Self { program: None, arguments: arguments.into() };
        origin.restart(&server.namespace);
        origin
    }

    /// Kills it: its kernel ends its connections.
    pub fn kill(&mut self) {
        self.program = None;
    }

    /// Starts it again, which waits until it listens.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart(&mut self, namespace: &Namespace) {
        self.kill();
        let mut program = Program::spawn(namespace, &self.arguments);
        assert_eq!(program.line(), "ready");
        self.program = Some(program);
    }
}

/// What a server in `namespace` says on its HTTP port when it is asked for `target` there, past sluice.
///
/// # Errors
/// When nobody answers.
///
/// # Panics
/// When the answer is not JSON.
pub fn ask(namespace: &Namespace, target: &str) -> io::Result<Value> {
    let mut stream = peer::connect(namespace, &format!("127.0.0.1:{HTTP_PORT}"))?;
    write!(stream, "GET {target} HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (_, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    Ok(serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {text}")))
}

/// Debian's own, which finds Debian's packages.
pub const PYTHON: &str = "/usr/bin/python3";
/// Where origins speak HTTP.
pub const HTTP_PORT: u16 = 8000;
/// Where origins speak TCP.
pub const TCP_PORT: u16 = 8001;
/// How long a program may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);
