//! A full proxy as its operator sees it: numbers, flows, log lines, applies, and the end.

use rustix::process::Signal;
use sluice_tests::stage::{self, Stage};
use sluice_tests::{origin, peer, show, wait};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const VIRTUAL: &str = "192.0.2.100:80";

fn ask(stage: &Stage, target: &str) -> TcpStream {
    let mut stream = peer::connect(stage.world.lab.client(), VIRTUAL).expect("a connection");
    let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("an open connection");
    stream
}

/// Reads up to and with `end`.
fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        let mut byte = [0];
        let len = stream.read(&mut byte).expect("an open connection");
        assert_eq!(len, 1, "an end after {:?}", String::from_utf8_lossy(&bytes));
        bytes.push(byte[0]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn numbers_and_flows_tell_what_happened() {
    let Some(stage) = Stage::start(&stage::http("http: {}")) else { return };
    let mut streams: Vec<_> = (0..4).map(|_| ask(&stage, "/status/200")).collect();
    for stream in &mut streams {
        read_until(stream, "as asked\n");
    }
    let web = stage.world.sluice.object("virtual-servers", "web");
    assert_eq!(web["type"], "standard", "{web}");
    for (at, number) in [("current", 4), ("total", 4), ("peak", 4)] {
        assert_eq!(show::number(&web, &format!("/connections/{at}")), number, "{web}");
    }
    for side in ["clientside", "serverside"] {
        for number in ["packets_in", "packets_out", "bytes_in", "bytes_out"] {
            assert!(show::number(&web, &format!("/{side}/{number}")) > 0, "{side} {number}: {web}");
        }
    }
    let flows = stage.world.sluice.show("flows").to_string();
    for stream in &streams {
        let from = stream.local_addr().expect("connected").to_string();
        assert!(flows.contains(&from), "{from} in {flows}");
    }
    assert!(stage.world.sluice.must(&["show", "flows"]).contains(VIRTUAL));
    drop(streams);
    let current =
        || show::number(&stage.world.sluice.object("virtual-servers", "web"), "/connections/current");
    wait::until("the end of every connection", Duration::from_secs(5), || (current() == 0).then_some(()));
}

#[test]
fn requests_are_written_to_the_access_log() {
    let text = stage::http("http: {}, access_log: true, routes: [{name: all, match: {path: /status}}]");
    let Some(stage) = Stage::start(&text) else { return };
    let path = stage.world.lab.directory().join("access.log");
    stage.world.sluice.apply(&format!("{text}telemetry: {{access_log: {{file: {}}}}}\n", path.display()));
    let sent = ["-A", "agent \"x\"", "-e", "http://from.example/", "-H", "Host: shop.example", "-d", "abc"];
    assert_eq!(stage.get("/status/404?a=b", &sent).status, 404);
    stage.try_get("/truncate", &[]).expect_err("a broken answer");
    let lines = wait::until("two lines", Duration::from_secs(10), || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        (lines.len() == 2).then_some(lines)
    });
    let first = &lines[0];
    for (key, value) in [
        ("virtual_server", "web"),
        ("destination", VIRTUAL),
        ("method", "POST"),
        ("host", "shop.example"),
        ("path", "/status/404?a=b"),
        ("user_agent", "agent \"x\""),
        ("referer", "http://from.example/"),
        ("route", "all"),
        ("protocol", "HTTP/1.1"),
        ("outcome", "done"),
    ] {
        assert_eq!(first[key], value, "{key} in {first}");
    }
    assert_eq!((&first["status"], &first["received"], &first["sent"]), (&404.into(), &3.into(), &9.into()));
    assert!(first["client"].as_str().is_some_and(|client| client.starts_with("192.0.2.1:")), "{first}");
    assert!(first["member"].as_str().is_some_and(|member| member.ends_with(":8000")), "{first}");
    assert_eq!(
        (&lines[1]["status"], &lines[1]["outcome"]),
        (&200.into(), &"truncated".into()),
        "{}",
        lines[1]
    );
}

/// A response goes on under the configuration that it began with, whatever is applied.
#[test]
fn an_apply_cuts_nothing_and_the_next_request_follows_it() {
    let text = |answer: &str| {
        stage::http(&format!("http: {{}}, filters: [response_headers: {{set: {{X-Now: {answer}}}}}]"))
    };
    let Some(stage) = Stage::start(&text("one")) else { return };
    let mut stream = ask(&stage, "/drip/100");
    assert!(read_until(&mut stream, "\r\n\r\n").contains("X-Now: one"));
    stage.world.sluice.apply(&text("two").replace("pool: web,", "pool: two,"));
    assert_eq!(read_until(&mut stream, &".".repeat(100)).len(), 100);
    for _ in 0..4 {
        stream.write_all(b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n").expect("an open connection");
        let head = read_until(&mut stream, "\r\n\r\n");
        assert!(head.contains("X-Now: two") && head.contains("X-Origin: two"), "{head}");
        read_until(&mut stream, "}");
    }
}

/// What is under way ends well, what is idle is closed, nobody new is let in; then the process ends.
#[test]
fn sigterm_lets_requests_end() {
    let text = stage::http("http: {}").replace("{workers: 1}", "{workers: 2, drain_timeout: 30s}");
    let Some(mut stage) = Stage::start(&text) else { return };
    let mut idle = ask(&stage, "/status/200");
    read_until(&mut idle, "as asked\n");
    let mut busy = ask(&stage, "/drip/400");
    read_until(&mut busy, "\r\n\r\n");
    stage.world.sluice.signal(Signal::TERM);
    assert_eq!(idle.read(&mut [0]).expect("an end"), 0, "nothing is under way here");
    assert_eq!(read_until(&mut busy, &".".repeat(400)).len(), 400, "the response under way");
    assert_eq!(busy.read(&mut [0]).expect("an end"), 0, "it was the last");
    let refused = peer::connect(stage.world.lab.client(), VIRTUAL).expect_err("nobody new");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    drop((idle, busy));
    let status = stage.world.sluice.signal_and_wait(Signal::CONT, Duration::from_secs(15));
    assert!(status.success(), "{status}: {}", stage.world.sluice.log());
}

#[test]
fn copies_of_requests_go_to_another_pool() {
    let text = stage::with_pools(&format!(
        "virtual_servers:
  web:
    destination: \"{VIRTUAL}\"
    type: standard
    pool: one
    snat: automap
    http: {{}}
    filters: [mirror: {{pool: two}}]
"
    ));
    let Some(stage) = Stage::start(&text) else { return };
    for number in 0..5 {
        let echo = stage.echo(&format!("/echo?n={number}"), &["-d", "abc"]);
        assert_eq!(
            (&echo["name"], &echo["length"]),
            (&"one".into(), &3.into()),
            "the answer is the first pool's"
        );
    }
    let copies = || {
        let seen = origin::ask(&stage.world.lab.servers()[1].namespace, "/seen").expect("an answer");
        let seen = seen["seen"].as_array().cloned().unwrap_or_default();
        (seen.len() == 5).then_some(seen)
    };
    let copies = wait::until("five copies", Duration::from_secs(5), copies);
    for number in 0..5 {
        let target = format!("/echo?n={number}");
        assert!(
            copies.iter().any(|copy| copy[0] == "POST" && copy[1] == target.as_str()),
            "{target} in {copies:?}"
        );
    }
}

/// tmsh: verified accept. A client is let in once its member has taken the connection.
#[test]
fn a_client_of_a_dead_member_is_not_even_let_in() {
    let text = stage::with_pools(&format!(
        "virtual_servers:
  web: {{destination: \"{VIRTUAL}\", type: standard, pool: tcp, snat: automap, verified_accept: true}}
"
    ));
    let Some(mut stage) = Stage::start(&text) else { return };
    let mut stream = peer::connect(stage.world.lab.client(), VIRTUAL).expect("a connection");
    stream.write_all(b"echo\n").expect("an open connection");
    assert_eq!(peer::echo(&mut stream, b"abc").expect("an echo"), b"abc");
    stage.origins[0].kill();
    let refused = peer::connect(stage.world.lab.client(), VIRTUAL).expect_err("a refusal");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}
