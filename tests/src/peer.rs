//! Peers that are not programs of their own: sockets born in a namespace and used from the test's threads.

use crate::Namespace;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A TCP connection from `namespace`, with timeouts on everything.
///
/// # Errors
/// When nobody answers, or somebody refuses.
///
/// # Panics
/// When the namespace is gone.
pub fn connect(namespace: &Namespace, address: &str) -> io::Result<TcpStream> {
    namespace.enter(|| connect_here(address)).expect("the namespace is there")
}

/// [`connect`] for a caller that is in its namespace already.
///
/// # Errors
/// When nobody answers, or somebody refuses.
///
/// # Panics
/// When `address` is not one.
pub fn connect_here(address: &str) -> io::Result<TcpStream> {
    let address: SocketAddr = address.parse().expect("an address and a port");
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// [`connect_here`] from an address and port of the caller's choice.
///
/// # Errors
/// When nobody answers, somebody refuses, or `from` is not to be had.
pub fn connect_here_from(from: SocketAddr, address: SocketAddr) -> io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};
    let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::STREAM, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    bind(&socket, &from)?;
    connect(&socket, &address)?;
    Ok(socket.into())
}

/// Asks an HTTP server for `/` and gives its answer's last line; the server closes first.
///
/// # Errors
/// When the connection is cut or slow.
pub fn fetch(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.lines().last().unwrap_or_default().to_owned())
}

/// A UDP socket in `namespace`, connected to `address`.
///
/// # Panics
/// When the namespace is gone or the address not one.
pub fn udp(namespace: &Namespace, address: &str) -> UdpSocket {
    let open = || {
        let target: SocketAddr = address.parse().expect("an address and a port");
        let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.connect(target)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok::<_, io::Error>(socket)
    };
    namespace.enter(open).expect("the namespace is there").expect("a UDP socket")
}

/// Sends `text` and waits for the answer, three times at most: a datagram may wait too long for a neighbour.
///
/// # Errors
/// When nothing comes back.
pub fn ask(socket: &UdpSocket, text: &str) -> io::Result<String> {
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut buffer = [0; 65_536];
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for _ in 0..3 {
        match socket.send(text.as_bytes()).and_then(|_| socket.recv(&mut buffer)) {
            Ok(bytes) => return Ok(String::from_utf8_lossy(&buffer[..bytes]).into_owned()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Sends `text` over `stream` and reads as many bytes back.
///
/// # Errors
/// When the connection is cut or slow.
pub fn echo(stream: &mut TcpStream, text: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(text)?;
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back)?;
    Ok(back)
}

/// A server on threads of this process, until it is dropped.
#[derive(Debug)]
pub struct Service {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// TCP: greets with `greeting`, then sends back what comes.
    ///
    /// # Panics
    /// When the port is taken.
    pub fn tcp_echo(namespace: &Namespace, port: u16, greeting: &str) -> Self {
        let bind = || TcpListener::bind(("::", port));
        let listener = namespace.enter(bind).expect("the namespace is there").expect("a free port");
        // The 128 of the standard library are fewer than the clients of some tests: the kernel answers what is more
        // with SYN cookies, and resets a client whose first segment it had no room for.
        rustix::net::listen(&listener, BACKLOG).expect("a listening socket");
        let greeting = greeting.as_bytes().to_owned();
        Self::run(listener, TcpListener::set_nonblocking, move |listener| {
            let (stream, _) = listener.accept()?;
            stream.set_nonblocking(false)?;
            let greeting = greeting.clone();
            std::thread::spawn(move || echo_until_end(stream, &greeting));
            Ok(())
        })
    }

    /// UDP: sends back `greeting`, a blank, and what came.
    ///
    /// # Panics
    /// When the port is taken.
    pub fn udp_echo(namespace: &Namespace, port: u16, greeting: &str) -> Self {
        let bind = || UdpSocket::bind(("::", port));
        let socket = namespace.enter(bind).expect("the namespace is there").expect("a free port");
        let greeting = greeting.as_bytes().to_owned();
        let mut buffer = vec![0; 65_536];
        Self::run(socket, UdpSocket::set_nonblocking, move |socket| {
            let (bytes, peer) = socket.recv_from(&mut buffer)?;
            let answer = [&greeting, &b" "[..], &buffer[..bytes]].concat();
            socket.send_to(&answer, peer).map(drop)
        })
    }

    fn run<S: std::os::fd::AsFd + Send + 'static>(
        socket: S,
        set_nonblocking: fn(&S, bool) -> io::Result<()>,
        mut serve: impl FnMut(&S) -> io::Result<()> + Send + 'static,
    ) -> Self {
        set_nonblocking(&socket, true).expect("a socket");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                wait_readable(&socket);
                // What a peer did wrong is the peer's test's matter.
                while serve(&socket).is_ok() {}
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A text that differs from connection to connection and from round to round.
pub fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut text = Vec::with_capacity(bytes + 8);
    while text.len() < bytes {
        // Marsaglia's xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.extend_from_slice(&state.to_le_bytes());
    }
    text.truncate(bytes);
    text
}

fn echo_until_end(mut stream: TcpStream, greeting: &[u8]) {
    let mut buffer = vec![0; 65_536];
    if stream.write_all(greeting).is_err() {
        return;
    }
    while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..bytes]).is_err() {
            return;
        }
    }
}

fn wait_readable(socket: &impl std::os::fd::AsFd) {
    let mut polled = [rustix::event::PollFd::new(socket, rustix::event::PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    let _ = rustix::event::poll(&mut polled, Some(&timeout));
}

/// Connections that may wait for a service to accept them.
const BACKLOG: i32 = 4_096;
/// How long a peer waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(5);
