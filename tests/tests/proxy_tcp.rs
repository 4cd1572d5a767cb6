//! TCP through a full proxy that reads nothing of it: bytes, ends and resets.

use sluice_tests::file::sha256;
use sluice_tests::stage::{self, Stage};
use sluice_tests::{peer, show, wait};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

const VIRTUAL: &str = "192.0.2.100:80";

/// A virtual server without HTTP for the origins' TCP service.
fn plain(options: &str) -> String {
    stage::with_pools(&format!(
        "virtual_servers:
  web: {{destination: \"{VIRTUAL}\", type: standard, pool: tcp, snat: automap, {options}}}
"
    ))
}

/// A connection whose first line is `verb`.
fn ask(stage: &Stage, verb: &str) -> TcpStream {
    let mut stream = peer::connect(stage.world.lab.client(), VIRTUAL).expect("a connection");
    stream.write_all(format!("{verb}\n").as_bytes()).expect("an open connection");
    stream
}

fn line(stream: &TcpStream) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("a line");
    line.trim_end().to_owned()
}

fn until_none_is_left(stage: &Stage) {
    let current =
        || show::number(&stage.world.sluice.object("virtual-servers", "web"), "/connections/current");
    wait::until("the end of every connection", Duration::from_secs(5), || (current() == 0).then_some(()));
}

#[test]
fn bytes_go_both_ways_as_they_came() {
    let Some(stage) = Stage::start(&plain("tcp: {nagle: false}").replace("workers: 1", "workers: 3")) else {
        return;
    };
    let mut streams: Vec<_> = (0..30).map(|_| ask(&stage, "echo")).collect();
    for round in 0..5 {
        for (number, stream) in (0..).zip(&mut streams) {
            let text = peer::pattern(round << 8 | number, 1 + 700 * number as usize);
            assert!(
                peer::echo(stream, &text).expect("an echo") == text,
                "connection {number}, round {round}"
            );
        }
    }
    let shown = stage.world.sluice.object("virtual-servers", "web");
    assert_eq!(
        (&shown["type"], show::number(&shown, "/connections/current")),
        (&"standard".into(), 30),
        "{shown}"
    );
    drop(streams);
    until_none_is_left(&stage);
}

/// RFC 9293 section 3.6: one side may close while the other has much to say.
#[test]
fn one_side_may_close_first() {
    let Some(stage) = Stage::start(&plain("access_log: false")) else { return };
    let mut stream = ask(&stage, "digest");
    stream.write_all(b"abc").expect("an open connection");
    stream.shutdown(Shutdown::Write).expect("an open connection");
    assert_eq!(line(&stream), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(stream.read(&mut [0]).expect("an end"), 0);

    let mut echo = ask(&stage, "echo");
    assert_eq!(peer::echo(&mut echo, b"abc").expect("an echo"), b"abc");
    echo.shutdown(Shutdown::Write).expect("an open connection");
    assert_eq!(echo.read(&mut [0]).expect("an end"), 0, "the member closes when we do");
    until_none_is_left(&stage);
}

/// The member closes first: what the client sends up to its own end reaches it still.
#[test]
fn the_client_may_close_second() {
    let Some(stage) = Stage::start(&plain("access_log: false")) else { return };
    for (seed, len) in (0..).zip([1, 20_000, 60_000, 200_000, 5_000_000]) {
        let bytes = peer::pattern(seed, len);
        let mut stream = ask(&stage, "close-first");
        assert_eq!(stream.read(&mut [0]).expect("an end"), 0, "the member has closed");
        stream.write_all(&bytes).expect("an open connection");
        stream.shutdown(Shutdown::Write).expect("an open connection");
        let path = stage.world.lab.directory().join("sent");
        std::fs::write(&path, &bytes).expect("room for a file");
        assert_eq!(line(&ask(&stage, "ending")), sha256(&path), "{len} bytes");
    }
    until_none_is_left(&stage);
}

#[test]
fn a_reset_is_passed_on_both_ways() {
    let Some(stage) = Stage::start(&plain("access_log: false")) else { return };
    let mut stream = ask(&stage, "reset");
    let error = stream.read(&mut [0]).expect_err("a RST");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    let watched = ask(&stage, "watch");
    assert_eq!(line(&watched), "watching");
    rustix::net::sockopt::set_socket_linger(&watched, Some(Duration::ZERO)).expect("a socket");
    drop(watched);
    assert_eq!(line(&ask(&stage, "ending")), "reset", "what the member saw");
    let watched = ask(&stage, "watch");
    assert_eq!(line(&watched), "watching");
    drop(watched);
    assert_eq!(line(&ask(&stage, "ending")), "end");
    until_none_is_left(&stage);
}

/// 1 GiB each way, by SHA-256.
#[test]
fn large_transfers_arrive_whole() {
    let Some(stage) = Stage::start(&plain("access_log: false")) else { return };
    let script = "
import hashlib, random, socket
BLOCK, COUNT = random.Random(20).randbytes(1 << 20), 1024
digest = hashlib.sha256()
for _ in range(COUNT):
    digest.update(BLOCK)
def ask(verb):
    connection = socket.create_connection(('192.0.2.100', 80), 10)
    connection.sendall(verb.encode() + b'\\n')
    return connection
down, got, length = ask(f'bytes {COUNT * len(BLOCK)}'), hashlib.sha256(), 0
buffer = bytearray(1 << 20)
while size := down.recv_into(buffer):
    got.update(memoryview(buffer)[:size])
    length += size
assert (length, got.digest()) == (COUNT * len(BLOCK), digest.digest()), length
up = ask('digest')
for _ in range(COUNT):
    up.sendall(BLOCK)
up.shutdown(socket.SHUT_WR)
assert up.recv(100).decode().strip() == digest.hexdigest()
print('whole')
";
    assert_eq!(stage.python(script, &[]).trim(), "whole");
}

#[test]
fn a_member_that_refuses_refuses_the_client() {
    let Some(mut stage) = Stage::start(&plain("access_log: false")) else { return };
    stage.origins[0].kill();
    // Sluice takes it first, and so fast the RST may come that connecting fails.
    let ended = peer::connect(stage.world.lab.client(), VIRTUAL).and_then(|mut stream| stream.read(&mut [0]));
    assert_eq!(ended.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
}
