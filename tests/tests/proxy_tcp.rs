//! TCP through a full proxy that reads nothing of it: bytes, ends and resets, and PROXY headers.

use sluice_tests::origin::Program;
use sluice_tests::stage::{self, Stage};
use sluice_tests::{Server, peer, run, show, wait};
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

/// 256 MiB each way, by SHA-256.
#[test]
fn large_transfers_arrive_whole() {
    let Some(stage) = Stage::start(&plain("access_log: false")) else { return };
    let script = "
import hashlib, socket, sys
BLOCK, COUNT = 1 << 20, 256
def ask(verb):
    connection = socket.create_connection(('192.0.2.100', 80), 10)
    connection.sendall(verb.encode() + b'\\n')
    return connection
down, digest, length = ask(f'bytes {COUNT * BLOCK}'), hashlib.sha256(), 0
buffer = bytearray(BLOCK)
while size := down.recv_into(buffer):
    digest.update(memoryview(buffer)[:size])
    length += size
assert length == COUNT * BLOCK, length
up, again = ask('digest'), hashlib.sha256()
import random
block = random.Random(20).randbytes(BLOCK)
for _ in range(COUNT):
    up.sendall(block)
    again.update(block)
up.shutdown(socket.SHUT_WR)
assert up.recv(100).decode().strip() == again.hexdigest()
assert digest.hexdigest() == again.hexdigest()
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

/// Nginx as a member that wants PROXY headers and tells what it read.
fn nginx_behind(stage: &Stage, server: &Server) -> Program {
    let directory = stage.world.lab.directory();
    let config = format!(
        "daemon off; user root; pid {0}/pp.pid; error_log {0}/pp.log; events {{}}
http {{
    access_log off; client_body_temp_path {0}/pp1; proxy_temp_path {0}/pp2; fastcgi_temp_path {0}/pp3;
    uwsgi_temp_path {0}/pp4; scgi_temp_path {0}/pp5;
    server {{
        listen 8090 proxy_protocol;
        location / {{ return 200 \"$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port\\n\"; }}
    }}
}}
",
        directory.display()
    );
    let path = stage.world.sluice.write("pp.conf", &config);
    let log = format!("{}/pp.log", directory.display());
    Program::spawn(&server.namespace, &["nginx", "-e", &log, "-c", &path]).listening(&server.namespace, 8090)
}

/// Nginx reads what sluice writes, in both versions, with HTTP and without.
#[test]
fn members_are_told_who_the_client_is() {
    let text = |send: &str| {
        stage::with_pools(&format!(
            "  pp: {{members: [{{address: 10.1.0.11, port: 8090}}]}}
virtual_servers:
  web: {{destination: \"{VIRTUAL}\", type: standard, pool: pp, snat: automap, http: {{}}, proxy_protocol: {{send: {send}}}}}
  raw: {{destination: \"192.0.2.100:81\", type: standard, pool: pp, snat: automap, proxy_protocol: {{send: {send}}}}}
"
        ))
    };
    let Some(stage) = Stage::start(&text("v1")) else { return };
    let _nginx = nginx_behind(&stage, &stage.world.lab.servers()[0]);
    for send in ["v1", "v2", "v2, crc: true"] {
        stage.world.sluice.apply(&text(send));
        for (port, local) in [(80, 20_080), (81, 20_081)] {
            let url = format!("http://192.0.2.100:{port}/");
            let told = run(stage.curl().args(["--local-port", &format!("{local}-{}", local + 900), &url]));
            let words: Vec<&str> = told.split_whitespace().collect();
            let want = ["192.0.2.1", words[1], "192.0.2.100", &port.to_string()];
            assert_eq!(words, want, "{send}");
            let from: u32 = words[1].parse().expect("a port");
            assert!((local..=local + 900).contains(&from), "{told}");
        }
    }
}

#[test]
fn clients_are_who_a_proxy_header_says() {
    let options = "http: {}, filters: [forwarded: {}], proxy_protocol: {accept: true, from: [192.0.2.1/32]}";
    let Some(stage) = Stage::start(&stage::http(options)) else { return };
    let script = "
import json, socket, struct, sys
SIGNATURE = b'\\r\\n\\r\\n\\x00\\r\\nQUIT\\n'
def v2(command, family, body):
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack('>H', len(body)) + body
def ip(client, server, ports):
    family = socket.AF_INET6 if ':' in client else socket.AF_INET
    return b''.join(socket.inet_pton(family, end) for end in (client, server)) + struct.pack('>HH', *ports)
TLV = b'\\x04' + struct.pack('>H', 3) + b'abc'
GOOD = [
    (b'PROXY TCP4 198.51.100.7 203.0.113.9 5555 443\\r\\n', '198.51.100.7'),
    (b'PROXY TCP6 2001:db8:9::7 2001:db8:9::9 5555 443\\r\\n', '2001:db8:9::7'),
    (b'PROXY UNKNOWN\\r\\n', '192.0.2.1'),
    (v2(1, 0x11, ip('198.51.100.8', '203.0.113.9', (1, 2))), '198.51.100.8'),
    (v2(1, 0x21, ip('2001:db8:9::8', '2001:db8:9::9', (1, 2)) + TLV), '2001:db8:9::8'),
    (v2(0, 0, b''), '192.0.2.1'),
]
BAD = [b'GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n', b'PROXY TCP4 1.2.3 4.5.6.7 1 2\\r\\n', b'PROXY ' + b'x' * 200,
       SIGNATURE + b'\\x31\\x11\\x00\\x0c' + b'\\0' * 12]
REQUEST = b'GET /echo HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n'
def exchange(parts):
    connection = socket.create_connection(('192.0.2.100', 80), 10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answer = b''
    try:
        for part in parts:
            connection.sendall(part)
        while piece := connection.recv(65536):
            answer += piece
    except ConnectionError:
        return None
    return answer
for header, client in GOOD:
    for parts in ([header + REQUEST], [header, REQUEST], [bytes([byte]) for byte in header] + [REQUEST]):
        answer = exchange(parts)
        assert answer and b' 200 OK' in answer, (header, answer)
        echo = json.loads(answer[answer.index(b'{'):answer.rindex(b'}') + 1])
        seen = [value for name, value in echo['headers'] if name.lower() == 'x-forwarded-for']
        assert seen == [client], (header, seen)
for header in BAD:
    assert exchange([header]) is None, header
print('told')
";
    assert_eq!(stage.python(script, &[]).trim(), "told");
    let counted = show::number(&stage.world.sluice.object("virtual-servers", "web"), "/connections/total");
    assert_eq!(counted, 3 * 6 + 4);

    // From others no header is read.
    let client = stage.world.lab.client();
    let interface = run(client.command("ip").args(["-o", "addr", "show", "to", "192.0.2.1"]));
    let interface = interface.split_whitespace().nth(1).expect("the client's interface");
    run(client.command("ip").args(["addr", "add", "192.0.2.77/24", "dev", interface]));
    let echo = stage.echo("/echo", &["--interface", "192.0.2.77"]);
    assert_eq!(stage::received(&echo, "x-forwarded-for"), ["192.0.2.77"]);
}
