//! The access log of a full proxy by syslog: every request one message of RFC 5424, over UDP and TCP, and a receiver that
//! is away.

use serde_json::Value;
use sluice_tests::stage::{self, Stage};
use sluice_tests::{api, run, wait};
use std::collections::BTreeSet;
use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// On the loopback of sluice's own namespace: the thread that writes the log uses the kernel's network stack.
const RECEIVER: &str = "127.0.0.1:5514";
const RECEIVER_V6: &str = "[::1]:5514";

/// A virtual server with HTTP and one without, on three workers, whose log goes to `address`.
fn logging(address: &str, transport: &str) -> String {
    let virtuals = format!(
        "virtual_servers:
  web: {{destination: \"192.0.2.100:80\", type: standard, pool: web, snat: automap, access_log: true, http: {{}}}}
  raw: {{destination: \"192.0.2.100:81\", type: standard, pool: web, snat: automap, access_log: true}}
telemetry:
  access_log: {{syslog: {{address: \"{address}\", transport: {transport}, facility: local3, app_name: edge}}}}
"
    );
    stage::with_pools(&virtuals).replace("workers: 1", "workers: 3")
}

/// A message of RFC 5424.
struct Message {
    line: Value,
}

impl Message {
    /// Reads one as a receiver does that forgives nothing (RFC 5424 section 6).
    fn parse(stage: &Stage, text: &str) -> Self {
        let mut parts = text.splitn(8, ' ');
        let mut part = || parts.next().unwrap_or_else(|| panic!("a part is missing: {text}"));
        // local3 is 19, informational is 6.
        assert_eq!(part(), "<158>1", "{text}");
        let time = part();
        let is_like = |(at, byte): (usize, u8)| match b"0000-00-00T00:00:00.000Z"[at] {
            b'0' => byte.is_ascii_digit(),
            other => byte == other,
        };
        assert!(time.len() == 24 && time.bytes().enumerate().all(is_like), "{time}");
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("/proc is mounted");
        assert_eq!(part(), host.trim());
        assert_eq!(part(), "edge");
        assert_eq!(part(), stage.world.sluice.pid().to_string());
        assert_eq!((part(), part()), ("access", "-"), "a kind and no structured data: {text}");
        let line = part();
        assert!(!line.contains(char::is_control), "{line:?}");
        Self { line: serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}")) }
    }

    fn path(&self) -> &str {
        self.line["path"].as_str().unwrap_or_default()
    }
}

/// `count` requests for `/status/200?n=N` over connections that carry ten each; N from `first`.
fn ask(stage: &Stage, first: usize, count: usize) {
    for start in (first..first + count).step_by(10) {
        let url = format!("http://192.0.2.100/status/200?n=[{start}-{}]", start + 9);
        let said = run(stage.curl().args(["-A", &"agent \"x\"\\".repeat(20), &url]));
        assert_eq!(said, "as asked\n".repeat(10));
    }
}

/// Each request of [`ask`] has told of itself, and once; and what it told is so.
fn assert_each_once(messages: &[Message], first: usize, count: usize) {
    let mut seen = BTreeSet::new();
    for message in messages {
        let line = &message.line;
        assert!(seen.insert(message.path().to_owned()), "twice: {line}");
        assert_eq!((&line["virtual_server"], &line["method"]), (&"web".into(), &"GET".into()), "{line}");
        assert_eq!((&line["status"], &line["sent"]), (&200.into(), &9.into()), "{line}");
        assert_eq!(line["user_agent"].as_str().map(str::len), Some(200), "{line}");
    }
    let want: BTreeSet<String> = (first..first + count).map(|n| format!("/status/200?n={n}")).collect();
    assert_eq!(seen, want);
}

/// A counter of `/metrics`, over all workers.
fn metric(stage: &Stage, name: &str) -> usize {
    let text = api::request(&stage.world.sluice.socket(), "GET", "/metrics", "", "").expect("an answer").body;
    let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
    let values: Vec<usize> = lines.map(|(_, value)| value.parse().expect("a number")).collect();
    assert!(!values.is_empty(), "{name} in {text}");
    values.into_iter().sum()
}

fn lost(stage: &Stage) -> usize {
    metric(stage, "sluice_access_log_lost_lines_total")
}

/// Opens a socket in sluice's namespace.
fn open<T: Send>(stage: &Stage, open: impl FnOnce() -> std::io::Result<T> + Send) -> T {
    stage.world.lab.sluice().enter(open).expect("the namespace is there").expect("a free port")
}

#[test]
fn every_request_is_a_datagram() {
    for address in [RECEIVER, RECEIVER_V6] {
        let Some(stage) = Stage::start(&logging(address, "udp")) else { return };
        // The lab's links have no IPv6 of the kernel's; the loopback may.
        let enable = "echo 0 > /proc/sys/net/ipv6/conf/lo/disable_ipv6";
        run(stage.world.lab.sluice().command("sh").args(["-c", enable]));
        let receiver = open(&stage, || UdpSocket::bind(address));
        receiver.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
        let mut buffer = [0; 65_536];
        let mut receive = || {
            let len = receiver.recv(&mut buffer).expect("a datagram in time");
            Message::parse(&stage, std::str::from_utf8(&buffer[..len]).expect("UTF-8"))
        };
        for round in 0..10 {
            ask(&stage, 30 * round, 30);
            let messages: Vec<Message> = (0..30).map(|_| receive()).collect();
            assert_each_once(&messages, 30 * round, 30);
        }
        // A connection without HTTP tells once, at its end.
        run(stage.curl().arg("http://192.0.2.100:81/status/200"));
        let message = receive();
        let line = &message.line;
        assert_eq!((&line["virtual_server"], &line["protocol"]), (&"raw".into(), &"TCP".into()), "{line}");
        receiver.set_nonblocking(true).expect("a socket");
        assert!(receiver.recv(&mut buffer).is_err(), "no more datagrams than requests");
        assert_eq!(lost(&stage), 0);
    }
}

/// The messages that came over a connection so far, each after its length in octets (RFC 6587 section 3.4.1), and how
/// many bytes they took.
fn counted(stage: &Stage, bytes: &[u8]) -> (Vec<Message>, usize) {
    let (mut messages, mut at) = (Vec::new(), 0);
    loop {
        let rest = &bytes[at..];
        let Some(blank) = rest.iter().position(|&byte| byte == b' ') else { return (messages, at) };
        let digits = std::str::from_utf8(&rest[..blank]).expect("digits");
        assert!(!digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()), "{digits:?}");
        let len: usize = digits.parse().expect("a length");
        let Some(message) = rest.get(blank + 1..blank + 1 + len) else { return (messages, at) };
        messages.push(Message::parse(stage, std::str::from_utf8(message).expect("UTF-8")));
        at += blank + 1 + len;
    }
}

/// The next connection to the receiver.
fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).expect("a socket");
    let (stream, _) = wait::until("a connection", Duration::from_secs(20), || listener.accept().ok());
    stream.set_nonblocking(true).expect("a socket");
    stream
}

/// Reads until `is_all` says of the number of messages that it is all.
fn receive(stage: &Stage, stream: &mut TcpStream, is_all: impl Fn(usize) -> bool) -> Vec<Message> {
    let (mut bytes, mut buffer, mut messages) = (Vec::new(), [0; 65_536], Vec::new());
    wait::until("messages", Duration::from_secs(20), || {
        while let Ok(len) = stream.read(&mut buffer) {
            assert!(len > 0, "an end after {} messages", messages.len());
            bytes.extend_from_slice(&buffer[..len]);
        }
        let (more, taken) = counted(stage, &bytes);
        messages.extend(more);
        bytes.drain(..taken);
        is_all(messages.len()).then_some(())
    });
    assert!(bytes.is_empty(), "{} bytes more", bytes.len());
    messages
}

#[test]
fn every_request_is_a_counted_frame_over_tcp() {
    let Some(stage) = Stage::start(&logging(RECEIVER, "tcp")) else { return };
    let listener = open(&stage, || TcpListener::bind(RECEIVER));
    ask(&stage, 0, 10);
    let mut stream = accept(&listener);
    assert_each_once(&receive(&stage, &mut stream, |count| count == 10), 0, 10);
    ask(&stage, 10, 300);
    assert_each_once(&receive(&stage, &mut stream, |count| count == 300), 10, 300);

    // A receiver that starts anew is found again, and gets what it has missed.
    drop((stream, listener));
    ask(&stage, 310, 50);
    let listener = open(&stage, || TcpListener::bind(RECEIVER));
    let mut stream = accept(&listener);
    assert_each_once(&receive(&stage, &mut stream, |count| count == 50), 310, 50);
    assert_eq!(lost(&stage), 0);
}

/// Nobody listens: what does not fit in the backlog is lost and counted, and no client notices.
#[test]
fn a_receiver_that_is_away_costs_lines_and_nothing_else() {
    let Some(stage) = Stage::start(&logging(RECEIVER, "tcp")) else { return };
    let url = format!("http://192.0.2.100/status/200?{}&n=[1-{MANY}]", "x".repeat(400));
    let said = run(stage.curl().args(["--max-time", "60", &url]));
    assert_eq!(said, "as asked\n".repeat(MANY));
    wait::until("lost lines", Duration::from_secs(5), || (lost(&stage) > 0).then_some(()));
    assert_eq!(metric(&stage, "sluice_access_log_dropped_total"), 0, "the workers had room for each");

    let listener = open(&stage, || TcpListener::bind(RECEIVER));
    let mut stream = accept(&listener);
    let messages = receive(&stage, &mut stream, |count| count + lost(&stage) == MANY);
    let lost_lines = MANY - messages.len();
    let number = |message: &Message| {
        let (_, number) = message.path().rsplit_once("&n=").unwrap_or_default();
        number.parse().expect("a number")
    };
    let numbers: Vec<usize> = messages.iter().map(number).collect();
    assert_eq!(numbers, (1..=MANY - lost_lines).collect::<Vec<_>>(), "the oldest are kept");
    ask(&stage, MANY + 1, 20);
    assert_each_once(&receive(&stage, &mut stream, |count| count == 20), MANY + 1, 20);
    assert_eq!(lost(&stage), lost_lines, "not one more");
}

/// Nobody tells of a datagram that is lost; requests go on, and the next receiver gets the next lines.
#[test]
fn datagrams_to_nobody_harm_nobody() {
    let Some(stage) = Stage::start(&logging(RECEIVER, "udp")) else { return };
    ask(&stage, 0, 300);
    wait::until("every line", Duration::from_secs(5), || {
        let text = (metric(&stage, "sluice_access_log_lines_total"), lost(&stage));
        (text.0 + text.1 == 300).then_some(())
    });
    let receiver = open(&stage, || UdpSocket::bind(RECEIVER));
    receiver.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
    ask(&stage, 300, 30);
    let mut buffer = [0; 65_536];
    let messages: Vec<Message> = (0..30)
        .map(|_| {
            let len = receiver.recv(&mut buffer).expect("a datagram in time");
            Message::parse(&stage, std::str::from_utf8(&buffer[..len]).expect("UTF-8"))
        })
        .collect();
    assert_each_once(&messages, 300, 30);
}

/// Requests whose lines need more than the 1 MiB that may wait.
const MANY: usize = 2_000;
