//! Bad wires and odd kernels around a full proxy, and exchanges that name every byte.
//!
//! ```text
//!   client ◀─ lossy ── net1 │ fault │ sluice │ fault │ net2 ── lossy ─▶ server1
//! ```
//!
//! What sluice's ports do to frames (`fault`) hits super-frames as a whole where sluice sends them; [`lose_every`] hits
//! single segments, behind the kernel that cut them.

use crate::origin::{HTTP_PORT, TCP_PORT};
use crate::stage::Stage;
use crate::{Lab, LinkKind, Namespace, Sluice, World, lab, run, try_run, wait};
use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Where HTTP is served, over both families.
pub const HTTP: [&str; 2] = ["192.0.2.100:80", "[2001:db8:1::100]:80"];
/// Where the origin's TCP service is.
pub const TCP: [&str; 2] = ["192.0.2.100:81", "[2001:db8:1::100]:81"];
/// One frame in a hundred is lost, one comes twice, and twice as many come late; the numbers are chosen by the seed.
pub const BAD: &str = "{seed: 20, loss: 0.01, duplicate: 0.01, reorder: 0.02}";
/// What sluice drops on such a wire: segments that come once more when their connection is over.
pub const LATE: &[&str] = &["no-flow", "no-virtual"];
/// No fault.
pub const GOOD: &str = "{}";

/// A configuration with this `fault` on the client's port and on the member's.
pub fn config(external: &str, internal: &str) -> String {
    let mut text = format!(
        r#"
version: 1
system: {{workers: 1}}
ports:
  external: {{driver: af_packet, interface: net1, fault: {external}}}
  internal: {{driver: af_packet, interface: net2, fault: {internal}}}
self_ips:
  ext4: {{address: 192.0.2.10/24, port: external}}
  ext6: {{address: "2001:db8:1::10/64", port: external}}
  int4: {{address: 10.1.0.10/24, port: internal}}
  int6: {{address: "2001:db8:2::10/64", port: internal}}
pools:
"#
    );
    for (name, port) in [("http", HTTP_PORT), ("tcp", TCP_PORT)] {
        text += &format!("  {name}0: {{members: [{{address: 10.1.0.11, port: {port}}}]}}\n");
        text += &format!("  {name}1: {{members: [{{address: \"2001:db8:2::11\", port: {port}}}]}}\n");
    }
    text += "virtual_servers:\n";
    let http = "http: {}, connection_reuse: false, tcp: {connect_timeout: 20s}";
    let asked = "tcp: {keep_alive_interval: 1s, connect_timeout: 20s}";
    for (name, ends, options) in [("http", HTTP, http), ("tcp", TCP, asked)] {
        for (at, end) in ends.iter().enumerate() {
            text += &format!(
                "  {name}{at}: {{destination: \"{end}\", type: standard, pool: {name}{at}, snat: automap, {options}}}\n"
            );
        }
    }
    text
}

/// Starts sluice on [`config`] before origins, in a lab that `prepare` changes first; `None`, said loudly, when not root.
///
/// # Panics
/// When something does not come up.
pub fn stage(external: &str, internal: &str, prepare: impl FnOnce(&Lab)) -> Option<Stage> {
    let lab = lab(LinkKind::Veth)?;
    prepare(&lab);
    let sluice = Sluice::start(lab.sluice(), lab.directory(), &config(external, internal));
    Some(Stage::before(World { sluice, lab }))
}

/// Kernels send and take segments one by one: on the client, on both sides of sluice and on the first server.
///
/// # Panics
/// When ethtool fails.
pub fn without_offloads(lab: &Lab) {
    let ends = [(lab.client(), "eth0"), (lab.sluice(), "net1"), (lab.sluice(), "net2")];
    for (namespace, interface) in ends.into_iter().chain([(&lab.servers()[0].namespace, "eth0")]) {
        let mut ethtool = namespace.command("ethtool");
        run(ethtool.args(["-K", interface, "tx", "off", "gso", "off", "tso", "off", "gro", "off"]));
    }
}

/// One TCP segment of `count` that reach `namespace` is lost.
///
/// # Panics
/// When nft fails.
pub fn lose_every(count: u32, namespace: &Namespace) {
    let rules = format!(
        "add table inet bad; add chain inet bad c {{type filter hook input priority 0;}}; \
         add rule inet bad c meta l4proto tcp numgen inc mod {count} == 7 drop"
    );
    run(namespace.command("nft").arg(rules));
}

/// A connection from `namespace` whose receive buffer is of this many bytes.
///
/// # Errors
/// When nobody answers, or somebody refuses.
///
/// # Panics
/// When the namespace is gone or the address not one.
pub fn connect_small(namespace: &Namespace, address: &str, buffer: usize) -> io::Result<TcpStream> {
    let address: SocketAddr = address.parse().expect("an address and a port");
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let open = || {
        let socket = socket(family, SocketType::STREAM, None)?;
        sockopt::set_socket_recv_buffer_size(&socket, buffer)?;
        connect(&socket, &address)?;
        Ok::<_, io::Error>(TcpStream::from(socket))
    };
    patient(namespace.enter(open).expect("the namespace is there")?)
}

/// A connection that waits longer than losses take.
///
/// # Errors
/// When nobody answers, or somebody refuses.
///
/// # Panics
/// When the namespace is gone or the address not one.
pub fn connect_patient(namespace: &Namespace, address: &str) -> io::Result<TcpStream> {
    namespace.enter(|| connect_patient_here(address)).expect("the namespace is there")
}

/// [`connect_patient`] for a caller that is in its namespace already.
///
/// # Errors
/// When nobody answers, or somebody refuses.
///
/// # Panics
/// When `address` is not one.
pub fn connect_patient_here(address: &str) -> io::Result<TcpStream> {
    let address: SocketAddr = address.parse().expect("an address and a port");
    patient(TcpStream::connect_timeout(&address, PATIENCE)?)
}

/// `stream`, which waits longer than losses take.
///
/// # Errors
/// When it is none.
pub fn patient(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends `text` to the origin's echo, half-closes, and reads what comes back at the same time, up to its end.
///
/// # Errors
/// When the connection is cut.
///
/// # Panics
/// When a thread does.
pub fn echo(stream: &TcpStream, text: &[u8]) -> io::Result<Vec<u8>> {
    let (mut reader, mut writer) = (stream, stream);
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || {
            writer.write_all(b"echo\n")?;
            writer.write_all(text)?;
            stream.shutdown(Shutdown::Write)
        });
        let mut back = Vec::with_capacity(text.len());
        reader.read_to_end(&mut back)?;
        writing.join().expect("a thread").map(|()| back)
    })
}

/// Waits until sluice holds no connection of any virtual server or member, and checks that it dropped nothing but
/// what `expected` names and what hosts tell all routers (multicast listener reports, which have a router alert).
///
/// # Panics
/// When it holds one, or dropped something else.
pub fn nothing_is_left(stage: &Stage, expected: &[&str]) {
    let sluice = &stage.world.sluice;
    let current = |thing: &str| {
        let rows = sluice.show(thing);
        rows.as_array()
            .into_iter()
            .flatten()
            .map(|row| crate::show::number(row, "/connections/current"))
            .sum::<u64>()
    };
    let left = || current("virtual-servers") + current("members");
    wait::until("the end of every connection", PATIENCE, || (left() == 0).then_some(()));
    let drops = sluice.show("drops");
    let total = drops["total"].as_object().expect("a count for each reason");
    let strange = |(reason, count): &(&String, &Value)| {
        count.as_u64() != Some(0) && *reason != "ip-options" && !expected.contains(&reason.as_str())
    };
    assert_eq!(total.iter().filter(strange).collect::<Vec<_>>(), [], "dropped");
}

/// Sets what the kernel of `namespace` does with new connections: pairs of a name under `net/ipv4` and a value.
///
/// # Panics
/// When there is no such setting.
pub fn set(namespace: &Namespace, settings: &[(&str, &str)]) {
    for (name, value) in settings {
        namespace.sysctl(&format!("net/ipv4/{name}"), value).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Waits until no connection of `namespace` is open on `port`.
///
/// # Panics
/// When one stays.
pub fn heard_of_the_end(namespace: &Namespace, port: u16) {
    let filter = format!("( sport = :{port} or dport = :{port} )");
    let open =
        || run(namespace.command("ss").args(["-Htn", "state", "connected", "exclude", "time-wait", &filter]));
    wait::until("the end of a peer's connections", PATIENCE, || open().trim().is_empty().then_some(()));
}

/// Both ends send `texts`, half-close, and read nothing for three seconds; then each reads in small pieces.
/// Gives what each read.
///
/// # Errors
/// When the connection is cut.
///
/// # Panics
/// When a thread does.
pub fn read_late(ends: [&TcpStream; 2], texts: [&[u8]; 2]) -> io::Result<[Vec<u8>; 2]> {
    std::thread::scope(|scope| {
        let [one, other] = [0, 1].map(|at| scope.spawn(move || send_and_read_late(ends[at], texts[at])));
        Ok([one.join().expect("a thread")?, other.join().expect("a thread")?])
    })
}

fn send_and_read_late(stream: &TcpStream, text: &[u8]) -> io::Result<Vec<u8>> {
    let (mut reader, mut writer) = (stream, stream);
    std::thread::scope(|scope| {
        let writing =
            scope.spawn(move || writer.write_all(text).and_then(|()| stream.shutdown(Shutdown::Write)));
        wait::pass(Duration::from_secs(3));
        let (mut bytes, mut piece) = (Vec::new(), [0; 512]);
        while let len @ 1.. = reader.read(&mut piece)? {
            bytes.extend_from_slice(&piece[..len]);
        }
        writing.join().expect("a thread").map(|()| bytes)
    })
}

/// What a peer's kernel counts under `name` in `nstat`, since its namespace began.
///
/// # Panics
/// When nstat fails.
pub fn counted(namespace: &Namespace, name: &str) -> u64 {
    let output = try_run(namespace.command("nstat").args(["-asz", name]));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// How long anything may take on a wire that loses: several timeouts in a row.
pub const PATIENCE: Duration = Duration::from_secs(40);
