//! Members that fail a full proxy in every way, and what clients see of it.

use serde_json::json;
use sluice_tests::stage::{self, Stage};
use sluice_tests::{Server, origin, peer, show, wait};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Curl's exit codes: fewer bytes than were said, and a connection that was cut.
const PARTIAL: i32 = 18;
const CUT: i32 = 56;
/// A wait that is cut short would show as the test's own timeout, far above.
const QUICK: &str = "http: {response_timeout: 300ms, body_timeout: 300ms}, tcp: {connect_timeout: 300ms}";

/// A virtual server for the first origin only, without another try.
fn only_one(options: &str) -> String {
    stage::http(options).replace("pool: web,", "pool: one,")
}

fn reason_of(stage: &Stage, path: &str, status: u16) -> String {
    let reply = stage.get(path, &[]);
    assert_eq!(reply.status, status, "{path}: {}", reply.head);
    reply.field("sluice-reason").to_owned()
}

#[test]
fn answers_that_are_none_are_told_as_502() {
    let Some(stage) = Stage::start(&only_one("http: {}")) else { return };
    assert_eq!(reason_of(&stage, "/garbage", 502), "status-line");
    assert_eq!(reason_of(&stage, "/close-head", 502), "truncated");
    assert_eq!(reason_of(&stage, "/reset-head", 502), "truncated");
    // The client's connection goes on after each: it was the member that failed.
    let requests = b"GET /close-head HTTP/1.1\r\nHost: a\r\n\r\nGET /status/200 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut stream = peer::connect(stage.world.lab.client(), "192.0.2.100:80").expect("a connection");
    stream.write_all(requests).expect("an open connection");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an end");
    assert!(text.starts_with("HTTP/1.1 502 ") && text.ends_with("as asked\n"), "{text}");
}

/// What was passed on cannot be taken back: the client sees the end too early, never a whole answer.
#[test]
fn a_body_that_breaks_off_breaks_off_for_the_client() {
    let Some(stage) = Stage::start(&only_one("http: {}")) else { return };
    for path in ["/truncate", "/truncate-chunk", "/reset-body"] {
        let code = stage.try_get(path, &[]).map(|reply| reply.head).expect_err(path);
        assert!([PARTIAL, CUT].contains(&code), "{path}: {code}");
    }
    assert_eq!(stage.get("/status/200", &[]).status, 200, "others are served");
    let none = || (connections(&stage) == 0).then_some(());
    wait::until("the end of every connection", Duration::from_secs(5), none);
}

#[test]
fn a_member_that_is_silent_is_told_as_504() {
    let Some(stage) = Stage::start(&only_one(QUICK)) else { return };
    assert_eq!(reason_of(&stage, "/stall", 504), "response-timeout");
    assert_eq!(stage.get("/status/200", &[]).status, 200);
}

#[test]
fn a_member_that_is_not_there_is_told_as_502_503_or_504() {
    let config =
        only_one(QUICK).replace("{address: 10.1.0.11, port: 8000}]", "{address: 10.1.0.11, port: 8999}]");
    let Some(stage) = Stage::start(&config) else { return };
    assert_eq!(reason_of(&stage, "/", 502), "connect-refused");
    stage.world.lab.servers()[0].namespace.ip(&["link set eth0 down"]).expect("an interface");
    let late = reason_of(&stage, "/", 504);
    assert_eq!(late, "connect-timeout");
    stage.world.sluice.must(&["member", "offline", "one", "10.1.0.11:8999"]);
    assert_eq!(reason_of(&stage, "/", 503), "no-member");
}

/// One member with room for one connection, and two places to wait.
fn queued(options: &str) -> String {
    let member = "{address: 10.1.0.11, port: 8000";
    only_one(options).replace(
        &format!("one: {{members: [{member}}}]}}"),
        &format!(
            "one: {{queue_on_connection_limit: true, queue_depth_limit: 2, members: [{member}, connection_limit: 1}}]}}"
        ),
    )
}

/// A client that has asked, and leaves its connection open.
fn asks(stage: &Stage) -> TcpStream {
    let mut stream = peer::connect(stage.world.lab.client(), "192.0.2.100:80").expect("a connection");
    stream.write_all(b"GET /status/200 HTTP/1.1\r\nHost: a\r\n\r\n").expect("an open connection");
    stream
}

/// What the client is told, up to the text of its answer.
fn is_told(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut piece = [0; 1_000];
    loop {
        let told = String::from_utf8_lossy(&text).into_owned();
        if ["as asked\n", "members-full\n"].iter().any(|end| told.contains(end)) {
            return told;
        }
        let len = stream.read(&mut piece).unwrap_or_else(|error| panic!("{error} after {told:?}"));
        assert!(len > 0, "cut after {told:?}");
        text.extend_from_slice(&piece[..len]);
    }
}

fn until_waiting(stage: &Stage, count: usize) {
    wait::until("requests in the queue", peer::PATIENCE, || {
        let flows = stage.world.sluice.show("flows").to_string();
        (flows.matches("\"http-connecting\"").count() == count).then_some(())
    });
}

/// A connection of its own for each client: the member's place is free when its client goes.
#[test]
fn requests_wait_for_a_full_member_in_the_order_they_came_and_no_more_than_may() {
    let Some(stage) = Stage::start(&queued("http: {}, connection_reuse: false")) else { return };
    let mut first = asks(&stage);
    assert!(is_told(&mut first).starts_with("HTTP/1.1 200 "));
    let mut second = asks(&stage);
    until_waiting(&stage, 1);
    let mut third = asks(&stage);
    until_waiting(&stage, 2);
    let refused = is_told(&mut asks(&stage));
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    drop(first);
    assert!(is_told(&mut second).starts_with("HTTP/1.1 200 "));
    until_waiting(&stage, 1);
    drop(second);
    assert!(is_told(&mut third).starts_with("HTTP/1.1 200 "));
    drop(third);
    let none = || (connections(&stage) == 0).then_some(());
    wait::until("the end of every connection", Duration::from_secs(5), none);
}

/// The rest of the request is not read to its end, and yet no RST takes the answer away.
#[test]
fn an_answer_before_the_end_of_the_request_arrives() {
    let Some(stage) = Stage::start(&only_one("http: {max_body_size: 10MiB}")) else { return };
    let body = stage.world.sluice.write("body", &"x".repeat(4_000_000));
    let body = format!("@{body}");
    let too_large = stage.world.sluice.write("too-large", &"x".repeat(20_000_000));
    let too_large = format!("@{too_large}");
    for framing in ["Content-Type: a", "Transfer-Encoding: chunked"] {
        let reply = stage.get("/early", &["-H", "Expect:", "-H", framing, "--data-binary", &body]);
        assert_eq!((reply.status, reply.text().as_str()), (413, "too large\n"), "{framing}");
        let reply = stage.get("/echo", &["-H", "Expect:", "-H", framing, "--data-binary", &too_large]);
        assert_eq!((reply.status, reply.field("sluice-reason")), (413, "body-too-large"), "{framing}");
    }
    assert_eq!(stage.get("/status/200", &[]).status, 200);
}

/// A client that never stops sending gets its answer, and a RST when it has had its time; meanwhile little is taken.
#[test]
fn a_client_that_never_stops_sending_gets_its_answer_and_is_let_go() {
    let options = "http: {max_body_size: 10GiB}, tcp: {fin_wait_timeout: 2s}";
    let Some(stage) = Stage::start(&only_one(options)) else { return };
    for (path, framing, answer) in [
        ("early", "Content-Length: 9000000000", "too large\n"),
        ("early", "Transfer-Encoding: chunked", "too large\n"),
        ("echo", "Content-Length: 100000000000", "Sluice-Reason: body-too-large\r\n"),
    ] {
        let mut stream = peer::connect(stage.world.lab.client(), "192.0.2.100:80").expect("a connection");
        let head = format!("POST /{path} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("an open connection");
        let writer = stream.try_clone().expect("a handle");
        let writing = std::thread::spawn(move || never_stop(&writer));
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer and its end");
        assert!(text.starts_with("HTTP/1.1 413 ") && text.contains(answer), "{framing}: {text}");
        let error = writing.join().expect("no panic");
        let is_reset = matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
        assert!(is_reset, "{path} {framing}: {error}");
    }
    wait::until("the end of every connection", Duration::from_secs(5), || {
        (connections(&stage) == 0).then_some(())
    });
}

/// Writes chunks until it may not.
fn never_stop(mut stream: &TcpStream) -> std::io::Error {
    stream.set_write_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let chunk = [&b"8000\r\n"[..], &[b'x'; 0x8000], b"\r\n"].concat();
    let mut total = 0;
    loop {
        if let Err(error) = stream.write_all(&chunk) {
            return error;
        }
        total += chunk.len();
        assert!(total < 90_000_000, "somebody reads");
    }
}

/// The client learns at once that an answer has broken off, while bytes of its own wait to be read.
#[test]
fn a_client_that_sends_is_reset_at_once() {
    let Some(stage) = Stage::start(&only_one("http: {}")) else { return };
    for round in 0..5 {
        let mut stream = peer::connect(stage.world.lab.client(), "192.0.2.100:80").expect("a connection");
        let head = b"POST /early-truncate HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n";
        stream.write_all(head).expect("an open connection");
        // Either end of the connection may be the first to learn of it.
        let mut text = Vec::new();
        let ended = fill(&stream).and_then(|()| (&stream).read_to_end(&mut text));
        let ended = ended.map_err(|error| error.kind());
        assert_eq!(ended, Err(ErrorKind::ConnectionReset), "round {round}");
    }
}

#[test]
fn another_member_is_asked_when_one_refuses() {
    let members = "web: {reselect_tries: 1, members: [{address: 10.1.0.11, port: 8000}, {address: 10.1.0.12, port: 8999}]}";
    let from = "web: {members: [{address: 10.1.0.11, port: 8000}, {address: 10.1.0.12, port: 8000}]}";
    let Some(stage) = Stage::start(&stage::http("http: {}").replace(from, members)) else { return };
    for round in 0..10 {
        let body = format!("round {round}");
        let echo = stage.echo("/echo", &["-d", &body, "-H", "Connection: close"]);
        assert_eq!((&echo["name"], &echo["length"]), (&json!("one"), &json!(body.len())));
    }
}

/// RFC 9110 section 9.2.2: what a member may have seen is repeated only when that changes nothing.
#[test]
fn only_requests_that_may_be_repeated_are_sent_again() {
    let config = stage::http("http: {}").replace("web: {members", "web: {reselect_tries: 1, members");
    let Some(stage) = Stage::start(&config) else { return };
    let tried = |arguments: &[&str]| {
        let before = seen(&stage, "/close-head");
        let status = stage.get("/close-head", arguments).status;
        (status, seen(&stage, "/close-head") - before)
    };
    assert_eq!(tried(&[]), (502, 2), "GET at both members");
    assert_eq!(tried(&["-d", ""]), (502, 1), "POST");
}

/// A connection that waited is closed by its member at the moment a request comes: nobody notices.
#[test]
fn a_connection_that_was_kept_and_is_stale_does_no_harm() {
    let Some(mut stage) = Stage::start(&only_one("http: {}")) else { return };
    for round in 0..5 {
        assert_eq!(stage.get("/status/200", &[]).status, 200, "round {round}");
        stage.restart(0);
    }
    assert_eq!(stage.get("/last", &[]).text(), "last\n");
    assert_eq!(stage.get("/status/200", &[]).status, 200, "after a member's last answer");
}

/// Connections that stand still, in each direction.
const COUNT: u64 = 8;

/// Neither a client that stops reading nor a member that does makes anything grow, and others are served.
#[test]
fn who_stops_reading_fills_one_buffer_and_no_more() {
    let Some(stage) = Stage::start(&stage::http("http: {}")) else { return };
    let client = stage.world.lab.client();
    assert_eq!(stage.get("/bytes/1000000", &[]).status, 200);
    let before = stage.world.sluice.resident_kib();
    let ask = |request: &[u8]| {
        let mut stream = peer::connect(client, "192.0.2.100:80").expect("a connection");
        stream.write_all(request).expect("an open connection");
        stream
    };
    let down: Vec<TcpStream> =
        (0..COUNT).map(|_| ask(b"GET /bytes/100000000 HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    let up: Vec<TcpStream> = (0..COUNT)
        .map(|_| ask(b"POST /deaf HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n"))
        .inspect(|stream| fill(stream).expect("an open connection"))
        .collect();
    assert_eq!(stage.get("/status/200", &[]).status, 200, "others are served");
    let grown = stage.world.sluice.resident_kib().saturating_sub(before);
    println!("{} connections that stand still: {grown} KiB", 2 * COUNT);
    assert!(grown < 2 * COUNT * 2 * 128, "{grown} KiB for {} connections", 2 * COUNT);
    // With a RST: a kernel that has bytes to send keeps them for whoever reads at last.
    for stream in down.iter().chain(&up) {
        rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).expect("a socket");
    }
    drop((down, up));
    let none = || (connections(&stage) == 0).then_some(());
    wait::until("the end of every connection", Duration::from_secs(5), none);
}

/// Writes until nothing is taken for a while.
fn fill(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.set_write_timeout(Some(Duration::from_millis(100)))?;
    let block = vec![b'x'; 1 << 20];
    let mut total = 0;
    loop {
        match stream.write(&block) {
            Ok(written) => total += written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        assert!(total < 90_000_000, "somebody reads");
    }
}

/// How often the origins were asked for `path`.
fn seen(stage: &Stage, path: &str) -> usize {
    let of = |server: &Server| {
        let seen = origin::ask(&server.namespace, "/seen").expect("an answer");
        let seen = seen["seen"].as_array().cloned().unwrap_or_default();
        seen.iter().filter(|request| request[1] == path).count()
    };
    stage.world.lab.servers().iter().map(of).sum()
}

fn connections(stage: &Stage) -> u64 {
    show::number(&stage.world.sluice.object("virtual-servers", "web"), "/connections/current")
}
