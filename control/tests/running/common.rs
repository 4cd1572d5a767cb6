//! A sluice in this process: real workers on memory ports, and a real control socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use sluice_control::api;
use sluice_control::check::{Against, check};
use sluice_control::parse::{Format, read};
use sluice_control::process::{Opened, Process};
use sluice_control::socket::ControlSocket;
use sluice_control::telemetry::Telemetry;
use sluice_dataplane::address::Mac;
use sluice_dataplane::frame::FramePool;
use sluice_dataplane::port::{OpenPort, PortQueue, memory};
use tempfile::TempDir;

/// A configuration for two ports.
pub(crate) const CONFIG: &str = r#"version: 1
system: {limits: {flows: 1024, half_open: 128, members: 64, virtual_servers: 32, frames: 64}}
ports:
  ext: {driver: af_packet, interface: net1}
  int: {driver: af_packet, interface: net2}
self_ips:
  ext4: {address: 192.0.2.10/24, port: ext}
  int4: {address: 10.1.0.10/24, port: int}
pools:
  web:
    members:
      - {address: 10.1.0.11, port: 8080}
      - {address: 10.1.0.12, port: 8080, state: disabled}
virtual_servers:
  web: {destination: 192.0.2.100:80, pool: web, snat: automap}
"#;

pub(crate) struct Sluice {
    pub(crate) process: Arc<Process>,
    pub(crate) socket: PathBuf,
    stop: tokio::sync::oneshot::Sender<()>,
    thread: Option<JoinHandle<()>>,
    _folder: TempDir,
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|why| panic!("{why}: {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_string())
        })
    }

    /// The paths of a problem's errors.
    pub(crate) fn paths(&self) -> Vec<String> {
        let errors = self.json()["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|error| error["path"].as_str().unwrap().to_string()).collect()
    }
}

impl Sluice {
    pub(crate) fn start(config: &str, workers: usize) -> Self {
        Self::start_allowing(config, workers, None)
    }

    /// One on ports that are open already.
    pub(crate) fn start_on(config: &str, opened: Opened) -> Self {
        Self::start_with(config, move |_| opened, None)
    }

    /// One whose socket takes only these users.
    pub(crate) fn start_allowing(config: &str, workers: usize, users: Option<&[u32]>) -> Self {
        Self::start_with(config, move |names| opened(names, workers), users)
    }

    fn start_with(
        config: &str,
        open: impl FnOnce(&[String]) -> Opened + Send + 'static,
        users: Option<&[u32]>,
    ) -> Self {
        let candidate = check(&read(config, Format::Yaml).unwrap(), &Against::NOTHING).unwrap();
        let names: Vec<String> = candidate.model.ports.keys().map(ToString::to_string).collect();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("deep/sluice.sock");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (started, running) = mpsc::channel();
        let (path, users) = (socket.clone(), users.map(<[u32]>::to_vec));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let process = Process::start(candidate, open(&names), Telemetry::default()).unwrap();
                let process = Arc::new(process);
                let socket = ControlSocket::bind(&path).unwrap();
                let socket = match users {
                    Some(users) => socket.allowing(&users),
                    None => socket,
                };
                let server = axum::serve(socket, api::router(Arc::clone(&process)));
                started.send(Arc::clone(&process)).unwrap();
                tokio::select! { _ = server => (), _ = stopped => () }
                process.stop().await;
            });
        });
        let process = running.recv_timeout(Duration::from_secs(10)).unwrap();
        Self { process, socket, stop, thread: Some(thread), _folder: folder }
    }

    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        request(&self.socket, method, path, headers, body).unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let answer = self.request("GET", path, &[], "");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    pub(crate) fn put(&self, path: &str, body: &str) -> Answer {
        self.request("PUT", path, &[], body)
    }

    pub(crate) fn patch(&self, path: &str, body: &str) -> Answer {
        self.request("PATCH", path, &[("content-type", "application/merge-patch+json")], body)
    }

    /// The state of every member, as `pool member state`.
    pub(crate) fn states(&self) -> Vec<String> {
        let members = self.get("/v1/members");
        let text = |of: &Value, name: &str| of[name].as_str().unwrap().to_string();
        let line = |of: &Value| format!("{} {} {}", text(of, "pool"), text(of, "member"), text(of, "state"));
        members.as_array().unwrap().iter().map(line).collect()
    }

    pub(crate) fn end(mut self) {
        self.stop.send(()).ok();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// One request over a connection of its own.
pub(crate) fn request(
    socket: &std::path::Path,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    // The server may answer, and close, before it has read everything.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Ok(Answer { status, head: head.into(), body: body.into() })
}

pub(crate) fn opened(names: &[String], workers: usize) -> Opened {
    let queue = |_| Box::new(memory::pair(64).0) as Box<dyn PortQueue>;
    let port = |(number, name): (usize, &String)| OpenPort {
        info: memory::info(name, Mac([2, 0, 0, 0, 0, number as u8])),
        queues: (0..workers).map(queue).collect(),
    };
    Opened {
        ports: names.iter().enumerate().map(port).collect(),
        pools: (0..workers).map(|_| FramePool::new(64)).collect(),
        cores: vec![None; workers],
    }
}
