//! HTTP through a full proxy: curl, python and raw sockets before nginx and an origin that tells what it received.

use serde_json::json;
use sluice_tests::file::{RandomFile, sha256};
use sluice_tests::stage::{self, Reply, Stage, received};
use sluice_tests::{LinkKind, World, config, peer, run, show, wait};
use std::io::{Read, Write};
use std::time::Duration;

const VIRTUAL: &str = "192.0.2.100:80";
/// The SHA-256 of nothing.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn curl_gets_nginx_pages_over_both_families_on_three_workers() {
    for link in [LinkKind::Veth, LinkKind::Macvlan] {
        let config =
            config::web().replace("performance-l4", "standard").replace("automap", "automap, http: {}");
        let Some(world) = World::start(link, &config.replace("workers: 1", "workers: 3")) else { return };
        for url in ["http://192.0.2.100/", "http://[2001:db8:1::100]/"] {
            let members = world.members_of(url, 12);
            let served: usize = members.values().sum();
            assert!(served == 12 && members.len() == 2, "{members:?} for {url} over {link}");
        }
    }
}

#[test]
fn requests_arrive_as_they_were_sent() {
    let Some(stage) = Stage::start(&stage::http("http: {}")) else { return };
    let got = stage.echo("/echo/a%20b?x=1&y=%2F", &["-H", "X-Test: one", "-H", "X-Test: two"]);
    let want = ("GET", "/echo/a%20b?x=1&y=%2F", "HTTP/1.1", EMPTY);
    let seen = (&got["method"], &got["target"], &got["version"], &got["sha256"]);
    assert_eq!(seen, (&json!(want.0), &json!(want.1), &json!(want.2), &json!(want.3)));
    assert_eq!(received(&got, "x-test"), ["one", "two"]);
    assert_eq!(received(&got, "host"), ["192.0.2.100"]);
    assert_eq!(got["peer"], "::ffff:10.1.0.10", "the self IP, by automap");

    let posted = stage.echo("/echo", &["-d", "abc"]);
    assert_eq!((&posted["method"], &posted["length"]), (&json!("POST"), &json!(3)), "{posted}");
    assert_eq!(posted["sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    for method in ["PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
        assert_eq!(stage.echo("/echo", &["-X", method])["method"], method);
    }

    let head = stage.get("/bytes/5000", &["--head"]);
    assert_eq!((head.status, head.field("content-length"), head.body.len()), (200, "5000", 0));
    let old = stage.get("/echo", &["--http1.0"]);
    assert!(old.head.starts_with("HTTP/1."), "{}", old.head);
    assert_eq!(old.json()["version"], "HTTP/1.1", "what we say to members");
    let six = run(stage.curl().arg("http://[2001:db8:1::100]/echo"));
    assert!(six.contains("2001:db8:2::10"), "{six}");
}

#[test]
fn status_and_fields_of_answers_arrive_as_they_were_sent() {
    let Some(stage) = Stage::start(&stage::http("http: {}")) else { return };
    for status in [200, 204, 304, 404, 418, 500, 503] {
        let reply = stage.get(&format!("/status/{status}"), &[]);
        assert_eq!((reply.status, reply.field("x-own")), (status, "origin"), "{}", reply.head);
        assert!(reply.fields("sluice-reason").is_empty(), "{}", reply.head);
        assert_eq!(reply.field("server"), "origin");
    }
    let hinted = stage.get("/interim", &[]);
    assert_eq!((&hinted.interim[..], hinted.text().as_str()), (&[103][..], "after hints\n"));
    let old = stage.get("/interim", &["--http1.0"]);
    assert_eq!((&old.interim[..], old.text().as_str()), (&[][..], "after hints\n"), "RFC 9110 section 15.2");
}

/// Bodies with a length, in chunks and up to the connection's end, and a client that knows no chunks.
#[test]
fn bodies_come_down_whole_in_every_framing() {
    let Some(stage) = Stage::start(&stage::http("http: {}")) else { return };
    let sha256_of = |reply: &Reply| {
        let path = stage.world.lab.directory().join("body");
        std::fs::write(&path, &reply.body).expect("room for a file");
        sha256(&path)
    };
    for length in [0, 1, 1_459, 1_461, 65_535, 65_537, 3_000_000] {
        let sized = stage.get(&format!("/bytes/{length}"), &[]);
        assert_eq!((sized.body.len(), sha256_of(&sized)), (length, sized.field("x-sha256").to_owned()));
        let sum = sized.field("x-sha256");
        for path in ["chunked", "until-close"] {
            for version in ["--http1.1", "--http1.0"] {
                let reply = stage.get(&format!("/{path}/{length}"), &[version]);
                let got = (reply.body.len(), sha256_of(&reply));
                assert_eq!(got, (length, sum.to_owned()), "{path} {length} {version}: {}", reply.head);
            }
        }
    }
    let dripped = stage.get("/drip/40", &[]);
    assert_eq!(dripped.text(), ".".repeat(40));
}

#[test]
fn trailers_reach_the_other_side() {
    let Some(stage) = Stage::start(&stage::http("http: {}")) else { return };
    let text = raw(
        &stage,
        b"GET /chunked/10?trailer HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n",
    );
    assert!(text.contains("\r\n0\r\nX-Trailer: there\r\n\r\n"), "{text:?}");

    let request = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nConnection: close\r\n\r\n\
        5;ext=1\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n";
    let text = raw(&stage, request);
    let body = &text[text.find('{').expect("JSON")..=text.rfind('}').expect("JSON")];
    let echo: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!((&echo["length"], &echo["trailers"]), (&json!(5), &json!([["X-Sum", "42"]])), "{echo}");
}

/// By SHA-256: 1 GiB down with a length, 100 MiB down in chunks, and up in either way.
#[test]
fn large_bodies_go_both_ways() {
    let Some(stage) = Stage::start(&stage::http("http: {}").replace("workers: 1", "workers: 2")) else {
        return;
    };
    let pipe = "set -o pipefail; curl -sS --max-time 120 -D $1 \"$0\" | sha256sum";
    let heads = stage.world.lab.directory().join("heads");
    for (framing, length) in [("bytes", HUGE), ("chunked", LARGE)] {
        let mut shell = stage.world.lab.client().command("bash");
        let url = format!("http://192.0.2.100/{framing}/{length}");
        let sum = run(shell.args(["-c", pipe, &url]).arg(&heads));
        let sum = sum.split_whitespace().next().unwrap_or_default();
        let heads = std::fs::read_to_string(&heads).expect("curl wrote it");
        assert!(heads.contains(&format!("X-Sha256: {sum}")), "{framing}: {sum} {heads}");
    }

    let file = RandomFile::write(LARGE);
    let sum = sha256(&file.path);
    let path = format!("@{}", file.path.display());
    for framing in ["Transfer-Encoding:", "Transfer-Encoding: chunked"] {
        let arguments = ["-H", framing, "-H", "Expect:", "--max-time", "60", "--data-binary", &path];
        let echo = stage.echo("/echo", &arguments);
        assert_eq!((&echo["length"], &echo["sha256"]), (&json!(LARGE), &json!(sum)), "{framing}");
        let is_chunked = received(&echo, "transfer-encoding") == ["chunked"];
        assert_eq!(is_chunked, framing.ends_with("chunked"), "{echo}");
    }
}

#[test]
fn expect_100_continue_is_the_members_to_answer() {
    let Some(stage) = Stage::start(&stage::http("http: {}")) else { return };
    let body = "x".repeat(3_000_000);
    let path = stage.world.sluice.write("body", &body);
    let body = format!("@{path}");
    let arguments = ["-H", "Expect: 100-continue", "--expect100-timeout", "9", "--data-binary", &body];
    let reply = stage.get("/echo", &arguments);
    assert_eq!((&reply.interim[..], reply.status), (&[100][..], 200), "{}", reply.head);
    assert_eq!(reply.json()["length"], 3_000_000);
    let refused = stage.get("/refuse", &arguments);
    assert_eq!((&refused.interim[..], refused.status), (&[][..], 417), "{}", refused.head);
    assert_eq!(refused.text(), "no\n");
}

#[test]
fn a_client_connection_carries_many_requests() {
    let Some(stage) = Stage::start(&stage::http("http: {}")) else { return };
    let url = "http://192.0.2.100/status/200?[1-50]";
    let text = run(stage.curl().args(["-w", "%{num_connects}", url]));
    let connects = text.replace("as asked\n", "");
    assert_eq!(connects, format!("1{}", "0".repeat(49)), "one connection, opened for the first request");

    // Requests are spread over the members, though the client has one connection; those to members are used again.
    let seen = |server: &sluice_tests::Server| {
        let seen = sluice_tests::origin::ask(&server.namespace, "/seen").expect("an answer");
        (seen["seen"].as_array().map_or(0, Vec::len), show::number(&seen, "/connections") - 1)
    };
    let seen: Vec<_> = stage.world.lab.servers().iter().map(seen).collect();
    assert_eq!(seen, [(25, 1), (25, 1)], "requests and connections of each member");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let Some(stage) = Stage::start(&stage::http("http: {}")) else { return };
    let mut requests = String::new();
    for number in 0..40 {
        requests += &match number % 3 {
            0 => format!("POST /echo?n={number} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd"),
            1 => format!("GET /echo?n={number} HTTP/1.1\r\nHost: a\r\n\r\n"),
            _ => format!("GET /drip/3?n={number} HTTP/1.1\r\nHost: a\r\n\r\n"),
        };
    }
    requests += "GET /last?n=40 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let text = raw(&stage, requests.as_bytes());
    assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), 41, "{text}");
    let targets: Vec<&str> =
        text.split("/echo?n=").skip(1).filter_map(|part| part.split('"').next()).collect();
    let want: Vec<String> =
        (0..40).filter(|number| number % 3 < 2).map(|number| number.to_string()).collect();
    assert_eq!(targets, want);
    assert!(text.ends_with("last\n"), "{text}");
}

/// The head in single bytes, the body in two pieces.
#[test]
fn a_request_in_small_pieces_is_one_request() {
    let Some(stage) = Stage::start(&stage::http("http: {}")) else { return };
    let mut stream = peer::connect(stage.world.lab.client(), VIRTUAL).expect("a connection");
    for byte in b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nConnection: close\r\n\r\nabc" {
        stream.write_all(&[*byte]).expect("an open connection");
    }
    stream.write_all(b"def").expect("an open connection");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    assert!(text.contains("bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721"), "{text}");
}

#[test]
fn what_is_no_request_is_refused_and_never_reaches_a_member() {
    let Some(stage) = Stage::start(&stage::http("http: {max_headers: 20, max_body_size: 1KiB}")) else {
        return;
    };
    let many: String = (0..30).map(|number| format!("X-{number}: 1\r\n")).collect();
    let rows = [
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_owned(),
            400,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n".to_owned(), 413),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9_000)), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        ("GET / HTTP/3.7\r\nHost: a\r\n\r\n".to_owned(), 505),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nConnection: close\r\n\r\n".to_owned(), 405),
    ];
    for (request, status) in rows {
        let request = request.replace("Host: a\r\n\r\n", "Host: a\r\nConnection: close\r\n\r\n");
        let text = raw(&stage, request.as_bytes());
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {text:?}");
        assert!(text.contains("\r\nSluice-Reason: "), "{text:?}");
    }
    for server in stage.world.lab.servers() {
        let seen = sluice_tests::origin::ask(&server.namespace, "/seen").expect("an answer");
        assert_eq!(seen["seen"], json!([]));
    }
}

#[test]
fn python_speaks_through_one_connection() {
    let Some(stage) = Stage::start(&stage::http("http: {}")) else { return };
    let script = "
import hashlib, http.client, json, os
client = http.client.HTTPConnection('192.0.2.100', timeout=10)
for length in (0, 1, 1000, 70000, 1000000):
    body = os.urandom(length)
    client.request('PUT', '/echo', body)
    echo = json.loads(client.getresponse().read())
    assert echo['sha256'] == hashlib.sha256(body).hexdigest(), (length, echo)
    client.request('POST', '/echo', iter([body, b'more']), encode_chunked=True)
    echo = json.loads(client.getresponse().read())
    assert echo['length'] == length + 4, echo
    client.request('GET', f'/chunked/{length}')
    assert len(client.getresponse().read()) == length
    client.request('HEAD', f'/bytes/{length}')
    answer = client.getresponse()
    assert answer.getheader('Content-Length') == str(length) and answer.read() == b''
print(client.sock.getsockname()[0])
";
    assert_eq!(stage.python(script, &[]).trim(), "192.0.2.1");
}

#[test]
fn another_protocol_is_taken_over() {
    let Some(stage) = Stage::start(&stage::http("http: {}")) else { return };
    let mut stream = peer::connect(stage.world.lab.client(), VIRTUAL).expect("a connection");
    stream
        .write_all(b"GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        .expect("an open connection");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: echo"), "{head}");
    for round in 0..20 {
        let text = peer::pattern(round, 40_000);
        let (mut writer, sent) = (stream.try_clone().expect("a handle"), text.clone());
        let writing = std::thread::spawn(move || writer.write_all(&sent));
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).expect("an echo");
        writing.join().expect("no panic").expect("an open connection");
        assert!(back == text, "round {round}");
    }
    stream.shutdown(std::net::Shutdown::Write).expect("an open connection");
    assert_eq!(stream.read(&mut [0]).expect("an end"), 0, "the end goes both ways");
}

/// Clients and servers of a library that many use.
#[test]
fn websockets_pass() {
    let server = "
import asyncio, websockets
async def echo(socket):
    async for message in socket:
        await socket.send(message)
async def main():
    async with websockets.serve(echo, '10.1.0.11', 8765, max_size=None):
        await asyncio.Event().wait()
asyncio.run(main())
";
    let text = stage::with_pools(
        "  ws: {members: [{address: 10.1.0.11, port: 8765}]}
virtual_servers:
  ws: {destination: \"192.0.2.100:80\", type: standard, pool: ws, snat: automap, http: {}}
",
    );
    let Some(stage) = Stage::start(&text) else { return };
    let namespace = &stage.world.lab.servers()[0].namespace;
    let _server =
        sluice_tests::origin::Program::spawn(namespace, &[sluice_tests::origin::PYTHON, "-c", server]);
    let listens =
        || namespace.enter(|| std::net::TcpStream::connect("10.1.0.11:8765").ok()).expect("it is there");
    wait::until("websockets", Duration::from_secs(10), listens);
    let client = "
import asyncio, os, websockets
async def talk(number):
    async with websockets.connect('ws://192.0.2.100/chat', max_size=None, close_timeout=5) as socket:
        for length in (0, 1, 125, 126, 65535, 65536, 1000000):
            message = os.urandom(length)
            await socket.send(message)
            assert await socket.recv() == message, length
        await (await socket.ping())
    return number
async def main():
    print(len(await asyncio.gather(*[talk(number) for number in range(20)])))
asyncio.run(main())
";
    assert_eq!(stage.python(client, &[]).trim(), "20");
}

/// Sends `request` on a connection of its own and gives all that comes until its end.
fn raw(stage: &Stage, request: &[u8]) -> String {
    let mut stream = peer::connect(stage.world.lab.client(), VIRTUAL).expect("a connection");
    stream.write_all(request).expect("an open connection");
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    end.unwrap_or_else(|error| panic!("{error} after {text:?} to {:?}", String::from_utf8_lossy(request)));
    text
}

/// Bytes of a large body.
const LARGE: usize = 100 << 20;
/// Bytes of one that is larger than any window or counter of 30 bits.
const HUGE: usize = 1 << 30;
