//! Many requests and many connections through a full proxy: load generators, members that come and go, quiet crowds.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sluice_tests::stage::{self, Stage};
use sluice_tests::{LinkKind, World, config, peer, run, show, wait};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const VIRTUAL: &str = "192.0.2.100:80";
const URL: &str = "http://192.0.2.100/";

/// Nginx behind a full proxy on three workers.
fn web() -> String {
    let config = config::web().replace("performance-l4", "standard").replace("automap", "automap, http: {}");
    config.replace("workers: 1", "workers: 3")
}

#[test]
fn load_generators_see_no_error() {
    let Some(world) = World::start(LinkKind::Veth, &web()) else { return };
    let load = |program: &str, arguments: &[&str]| {
        let text = run(world.lab.client().command(program).args(arguments).arg(URL));
        println!("{text}");
        text
    };
    let wrk = load("wrk", &["-t", "2", "-c", "100", "-d", "3s"]);
    assert!(
        wrk.contains("requests in") && !wrk.contains("Socket errors") && !wrk.contains("Non-2xx"),
        "{wrk}"
    );
    let h2load = load("h2load", &["--h1", "-n", "20000", "-c", "50", "-t", "2"]);
    assert!(h2load.contains("20000 succeeded, 0 failed, 0 errored, 0 timeout"), "{h2load}");
    for arguments in [&["-q", "-n", "3000", "-c", "40"][..], &["-q", "-k", "-n", "10000", "-c", "40"]] {
        let ab = load("ab", arguments);
        let failed = ab.lines().find_map(|line| line.strip_prefix("Failed requests:")).map(str::trim);
        assert!(failed == Some("0") && !ab.contains("Non-2xx"), "{ab}");
    }
    let idle = || show::number(&world.sluice.object("virtual-servers", "web"), "/connections/current") == 0;
    wait::until("the end of every connection", Duration::from_secs(10), || idle().then_some(()));
}

/// How long members come and go.
const CHURN: Duration = Duration::from_secs(60);
/// Clients at once.
const CLIENTS: u64 = 24;

/// Each request on a connection of its own; every one is answered by a member that lives, whatever is applied meanwhile.
#[test]
fn no_request_fails_while_members_die_and_come_back() {
    let text = |tries: usize| {
        let pool = format!("web: {{reselect_tries: {tries}, members");
        stage::http("http: {}").replace("web: {members", &pool).replace("workers: 1", "workers: 2")
    };
    let Some(mut stage) = Stage::start(&text(1)) else { return };
    let end = Instant::now() + CHURN;
    let done = AtomicU64::new(0);
    let client = stage.world.lab.client().name().to_owned();
    let client = sluice_tests::Namespace::find(&client).expect("the client's namespace");
    let deaths = std::thread::scope(|scope| {
        let asking = scope.spawn(|| client.enter(|| ask_until(end, &done)).expect("the namespace"));
        let mut deaths = 0;
        while Instant::now() < end && !asking.is_finished() {
            stage.restart(deaths % 2);
            stage.world.sluice.apply(&text(1 + deaths % 2));
            deaths += 1;
        }
        asking.join().expect("every request is answered");
        deaths
    });
    println!("{} requests, {deaths} deaths, in {CHURN:?}", done.load(Ordering::Relaxed));
    assert!(deaths >= 2 && done.into_inner() > 100, "hardly anything happened");
}

fn ask_until(end: Instant, done: &AtomicU64) {
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            scope.spawn(move || {
                while Instant::now() < end {
                    let mut stream = peer::connect_here(VIRTUAL).expect("a connection");
                    let text =
                        ask(&mut stream, "close").unwrap_or_else(|error| panic!("client {number}: {error}"));
                    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("as asked\n"), "{text}");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
}

/// A request whose answer's body ends with a newline.
fn ask(stream: &mut TcpStream, connection: &str) -> std::io::Result<String> {
    let head = format!("GET /status/200 HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut bytes = vec![0; 1024];
    let mut len = 0;
    loop {
        len += match stream.read(&mut bytes[len..])? {
            0 => break,
            taken => taken,
        };
        if connection != "close" && bytes[..len].ends_with(b"as asked\n") {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&bytes[..len]).into_owned())
}

/// Clients that stay after a request.
const CROWD: usize = 10_000;
/// What an idle connection may take: it holds no buffers.
const KIB_EACH: u64 = 3;

#[test]
fn ten_thousand_connections_stay_open() {
    let Some(stage) = Stage::start(&stage::http("http: {keep_alive_timeout: 10m}")) else { return };
    let limits = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limits.maximum, ..limits };
    setrlimit(Resource::Nofile, wanted).expect("as many as there may be");
    let before = stage.world.sluice.resident_kib();
    let connect = || {
        (0..CROWD)
            .map(|_| {
                let mut stream = peer::connect_here(VIRTUAL)?;
                ask(&mut stream, "keep-alive").map(|_| stream)
            })
            .collect::<std::io::Result<Vec<_>>>()
    };
    let mut crowd = stage.world.lab.client().enter(connect).expect("the namespace").expect("connections");
    let after = stage.world.sluice.resident_kib();
    let shown = stage.world.sluice.object("virtual-servers", "web");
    assert_eq!(show::number(&shown, "/connections/current"), CROWD as u64, "{shown}");
    let each = after.saturating_sub(before) / CROWD as u64;
    println!("{CROWD} idle connections: {before} KiB before, {after} KiB after, {each} KiB each");
    assert!(each < KIB_EACH, "{before} KiB before, {after} KiB after");

    for stream in crowd.iter_mut().step_by(97) {
        let text = ask(stream, "keep-alive").expect("an answer");
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    }
    assert_eq!(stage.get("/status/200", &[]).status, 200, "there is room for another");
    drop(crowd);
    let current =
        || show::number(&stage.world.sluice.object("virtual-servers", "web"), "/connections/current");
    wait::until("the end of every connection", Duration::from_secs(10), || (current() == 0).then_some(()));
}
