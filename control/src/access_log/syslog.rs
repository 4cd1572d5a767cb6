//! The access log to a syslog receiver (RFC 5424), over UDP (RFC 5426) or TCP with octet counting (RFC 6587).
//!
//! ```text
//!   line ─▶ <PRI>1 TIME HOST APP PID access - line ─┬─▶ one datagram
//!                                                   └─▶ backlog (1 MiB) ─▶ connection ─╳─▶ another one, later
//! ```
//!
//! Nothing here waits but the opening of a connection, a second at most. What a broken connection has taken in part is
//! sent again on the next one.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Batch, Report, json, unix_ns};
use crate::model::{SyslogTarget, SyslogTransport};

/// A syslog receiver.
pub(super) struct Syslog {
    address: SocketAddr,
    /// What stands before the time, and what stands behind it.
    head: (String, String),
    message: Vec<u8>,
    way: Way,
}

enum Way {
    /// The socket, when there is one.
    Udp(Option<UdpSocket>),
    Tcp(Connection),
}

impl Syslog {
    pub(super) fn new(target: &SyslogTarget) -> Self {
        let priority = u32::from(target.facility.number()) * 8 + SEVERITY_INFORMATIONAL;
        let tail = format!(" {} {} {} access - ", host_name(), target.app_name, std::process::id());
        let way = match target.transport {
            SyslogTransport::Udp => Way::Udp(None),
            SyslogTransport::Tcp => Way::Tcp(Connection::default()),
        };
        Self { address: target.address.0, head: (format!("<{priority}>1 "), tail), message: Vec::new(), way }
    }

    /// Sends a batch, or puts it where it waits for the connection.
    pub(super) fn write(&mut self, batch: &Batch, wall: SystemTime, now: Instant) -> Report {
        let mut report = Report::default();
        for line in batch.lines() {
            self.compose(line, wall);
            self.pass_on(&mut report);
        }
        let after = self.tick(now);
        Report { lines: report.lines + after.lines, lost: report.lost, error: report.error.or(after.error) }
    }

    /// Sends the message, or puts it where it waits.
    fn pass_on(&mut self, report: &mut Report) {
        match &mut self.way {
            Way::Udp(socket) => match send(socket, self.address, &self.message) {
                Ok(()) => report.lines += 1,
                Err(why) => {
                    report.lost += 1;
                    report.error = Some(format!("{}: {why}", self.address));
                }
            },
            Way::Tcp(connection) => report.lost += u64::from(!connection.backlog.push(&self.message)),
        }
    }

    /// Sends what waits.
    pub(super) fn tick(&mut self, now: Instant) -> Report {
        match &mut self.way {
            Way::Udp(_) => Report::default(),
            Way::Tcp(connection) => connection.tick(self.address, now),
        }
    }

    /// Lines that wait for the connection.
    pub(super) fn waiting(&self) -> u64 {
        if let Way::Tcp(connection) = &self.way { connection.backlog.lens.len() as u64 } else { 0 }
    }

    /// RFC 5424 section 6, without structured data; its message is JSON, so no byte order mark precedes it.
    fn compose(&mut self, line: &[u8], wall: SystemTime) {
        self.message.clear();
        self.message.extend_from_slice(self.head.0.as_bytes());
        json::write_time(&mut self.message, unix_ns(wall.duration_since(UNIX_EPOCH).unwrap_or_default()));
        self.message.extend_from_slice(self.head.1.as_bytes());
        self.message.extend_from_slice(line);
    }
}

/// The machine's name, or the word for none (RFC 5424 section 6.2.4).
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().filter(char::is_ascii_graphic).take(255).collect();
    if name.is_empty() { "-".into() } else { name }
}

fn send(kept: &mut Option<UdpSocket>, address: SocketAddr, message: &[u8]) -> io::Result<()> {
    if kept.is_none() {
        let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.set_nonblocking(true)?;
        socket.connect(address)?;
        *kept = Some(socket);
    }
    let Some(socket) = kept else { return Err(io::ErrorKind::NotConnected.into()) };
    // What an earlier datagram met is told to the next one, which is not sent then.
    match socket.send(message) {
        Err(why) if why.kind() == io::ErrorKind::ConnectionRefused => socket.send(message).map(|_| ()),
        sent => sent.map(|_| ()),
    }
}

/// A TCP connection that comes back.
#[derive(Default)]
struct Connection {
    stream: Option<TcpStream>,
    backlog: Backlog,
    /// When bytes last went out, or the connection was opened.
    progress: Option<Instant>,
    /// Not before this is another one opened.
    retry: Option<Instant>,
    /// Connections in a row that took nothing.
    failures: u32,
}

impl Connection {
    /// Opens, sends, and gives up a connection that takes nothing.
    fn tick(&mut self, address: SocketAddr, now: Instant) -> Report {
        let result = self.ensure_open(address, now).and_then(|()| self.send(now));
        match result {
            Ok(lines) => Report { lines, ..Report::default() },
            Err(why) => {
                self.close(now);
                Report { error: Some(format!("{address}: {why}")), ..Report::default() }
            }
        }
    }

    fn ensure_open(&mut self, address: SocketAddr, now: Instant) -> io::Result<()> {
        let is_early = self.retry.is_some_and(|retry| now < retry);
        if self.stream.is_some() || self.backlog.lens.is_empty() || is_early {
            return Ok(());
        }
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_nonblocking(true)?;
        (self.stream, self.progress) = (Some(stream), Some(now));
        Ok(())
    }

    /// As much as the connection takes now; returns how many lines that completed.
    fn send(&mut self, now: Instant) -> io::Result<u64> {
        let Some(stream) = &mut self.stream else { return Ok(0) };
        is_open(stream)?;
        let mut lines = 0;
        while !self.backlog.lens.is_empty() {
            match stream.write(self.backlog.unsent()) {
                Ok(count) => {
                    lines += self.backlog.sent(count);
                    (self.progress, self.failures) = (Some(now), 0);
                }
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                    return if self.is_stalled(now) {
                        Err(io::ErrorKind::TimedOut.into())
                    } else {
                        Ok(lines)
                    };
                }
                // The next call finds the same error, or opens another connection.
                Err(_) if lines > 0 => return Ok(lines),
                Err(why) => return Err(why),
            }
        }
        Ok(lines)
    }

    fn is_stalled(&self, now: Instant) -> bool {
        self.progress.is_some_and(|progress| now.duration_since(progress) >= STALL_TIMEOUT)
    }

    fn close(&mut self, now: Instant) {
        self.stream = None;
        self.backlog.send_again();
        self.retry = Some(now + (RETRY_MIN * 2u32.saturating_pow(self.failures)).min(RETRY_MAX));
        self.failures = (self.failures + 1).min(FAILURES_MAX);
    }
}

/// A receiver says nothing; the end of what it says is the end of the connection.
fn is_open(stream: &mut TcpStream) -> io::Result<()> {
    match stream.read(&mut [0; 256]) {
        Ok(0) => Err(io::ErrorKind::ConnectionAborted.into()),
        Ok(_) => Ok(()),
        Err(why) if matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
        Err(why) => Err(why),
    }
}

/// Messages that wait to be sent, each behind its length. `front_sent < lens[0]`
#[derive(Default)]
struct Backlog {
    bytes: VecDeque<u8>,
    lens: VecDeque<usize>,
    /// Bytes of the first one that the connection has taken.
    front_sent: usize,
}

impl Backlog {
    /// False when there is no room for it.
    fn push(&mut self, message: &[u8]) -> bool {
        let count = format!("{} ", message.len());
        let len = count.len() + message.len();
        if self.bytes.len() + len > BACKLOG_BYTES {
            return false;
        }
        self.bytes.extend(count.as_bytes());
        self.bytes.extend(message);
        self.lens.push_back(len);
        true
    }

    /// The longest piece that follows what was sent.
    fn unsent(&self) -> &[u8] {
        let (front, back) = self.bytes.as_slices();
        front.get(self.front_sent..).filter(|piece| !piece.is_empty()).unwrap_or_else(|| {
            back.get(self.front_sent - front.len().min(self.front_sent)..).unwrap_or_default()
        })
    }

    /// `count` more bytes are sent; returns how many messages that completed.
    fn sent(&mut self, count: usize) -> u64 {
        self.front_sent += count;
        let mut messages = 0;
        while let Some(len) = self.lens.front().copied().filter(|len| *len <= self.front_sent) {
            self.lens.pop_front();
            self.bytes.drain(..len);
            self.front_sent -= len;
            messages += 1;
        }
        messages
    }

    /// Another connection has to take the first message as a whole.
    fn send_again(&mut self) {
        self.front_sent = 0;
    }
}

const SEVERITY_INFORMATIONAL: u32 = 6;
const BACKLOG_BYTES: usize = 1 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const STALL_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Enough for the longest pause.
const FAILURES_MAX: u32 = 9;
