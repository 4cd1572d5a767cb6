//! What a connection takes that does nothing: a process that opens many and keeps them, and memory before and after.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::ground::{SPARE_CORE, Spaces, inside};
use crate::machine::{self, Process};

/// Bytes for each connection.
#[derive(Debug, Clone, Copy)]
pub struct PerConnection {
    /// Of the proxy's process.
    pub process: f64,
    /// Of the kernel's slabs, those of the client's own sockets included.
    pub slab: f64,
}

/// Lets `proxy` hold so many keep-alive connections, each of which has had an answer.
///
/// # Errors
/// That not all of them could be opened.
pub fn measure(spaces: &Spaces, proxy: &Process, connections: u32, to: &str) -> io::Result<PerConnection> {
    let before = (machine::resident_bytes(proxy.pid()), machine::slab_bytes());
    let program = std::env::current_exe()?;
    let mut command = inside(&spaces.name("c"), &[SPARE_CORE], &program.to_string_lossy());
    command.args(["--hold", &connections.to_string(), to]).stdout(std::process::Stdio::piped());
    let mut holder = Process::start(&mut command)?;
    if holder.first_line()?.trim() != HELD {
        return Err(io::Error::other("not all connections could be opened"));
    }
    let after = (machine::resident_bytes(proxy.pid()), machine::slab_bytes());
    let each = |before: u64, after: u64| (after as f64 - before as f64) / f64::from(connections);
    Ok(PerConnection { process: each(before.0, after.0), slab: each(before.1, after.1) })
}

/// Opens the connections, asks once on each, says so on standard output, and keeps them until standard input ends.
///
/// # Errors
/// The first connection that does not open or is not answered.
pub fn hold(connections: u32, to: SocketAddr) -> io::Result<()> {
    let open: Vec<TcpStream> = (0..connections).map(|_| ask(to)).collect::<io::Result<_>>()?;
    println!("{HELD}");
    io::stdin().read_to_end(&mut Vec::new())?;
    drop(open);
    Ok(())
}

/// A connection that has had its answer of 128 bytes.
fn ask(to: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes())?;
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    while !answer.ends_with(&[b'x'; 128]) {
        match stream.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(&piece[..count]),
        }
    }
    Ok(stream)
}

const PATIENCE: Duration = Duration::from_secs(5);
const HELD: &str = "held";
