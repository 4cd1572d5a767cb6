//! Targets that work, move away, fill up, hang and vanish; and the whole way from a worker's record to a line.
//! Time is an argument, and where another thread is waited for, the kernel wakes us.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use serde_json::Value;
use sluice_dataplane::access_log::Part;
use sluice_dataplane::address::Address;
use sluice_dataplane::config::ids::PoolId;
use sluice_dataplane::config::proxy::ProxyProfile;
use sluice_dataplane::config::snapshot::{Member, Parts, Pool, Virtual};

use super::*;
use crate::check::{Against, check as check_document};
use crate::model::{AppName, ReceiverAddress, SyslogFacility, SyslogTarget, SyslogTransport};
use crate::parse::{Format, read};

fn batch(lines: impl IntoIterator<Item = String>) -> Batch {
    let mut batch = Batch::default();
    for line in lines {
        batch.bytes.extend_from_slice(line.as_bytes());
        batch.bytes.push(b'\n');
        batch.ends.push(batch.bytes.len());
    }
    batch
}

fn numbered(numbers: std::ops::Range<usize>) -> Batch {
    batch(numbers.map(|number| format!("{{\"number\":{number},\"pad\":\"{}\"}}", "x".repeat(200))))
}

fn number_of(line: &str) -> usize {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
    value["number"].as_u64().unwrap() as usize
}

fn taken(lines: u64) -> Report {
    Report { lines, ..Report::default() }
}

mod of_file {
    use super::*;

    #[test]
    fn a_file_that_is_moved_away_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access");
        let moved = folder.path().join("access.1");
        let text = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
        let mut file = FileTarget::new(path.to_str().unwrap());
        let start = Instant::now();
        assert_eq!(file.tick(start), Report::default());
        assert_eq!(text(&path), "", "it is there though nothing was logged");
        assert_eq!(file.write(&batch(["one".into(), "two".into()])), taken(2));
        std::fs::rename(&path, &moved).unwrap();
        // Nobody has looked yet.
        file.tick(start + Duration::from_millis(999));
        assert_eq!(file.write(&batch(["three".into()])), taken(1));
        file.tick(start + Duration::from_secs(1));
        assert_eq!(file.write(&batch(["four".into()])), taken(1));
        assert_eq!((text(&moved), text(&path)), ("one\ntwo\nthree\n".into(), "four\n".into()));
        // Removed; and SIGHUP, which needs no look.
        std::fs::remove_file(&path).unwrap();
        file.tick(start + Duration::from_secs(2));
        assert_eq!(text(&path), "");
        std::fs::rename(&path, &moved).unwrap();
        file.reopen();
        assert_eq!(file.write(&batch(["five".into()])), taken(1));
        assert_eq!((text(&moved), text(&path)), (String::new(), "five\n".into()));
    }

    #[test]
    fn lines_that_a_file_does_not_take_are_lost_and_it_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/access");
        let mut file = FileTarget::new(path.to_str().unwrap());
        let report = file.write(&numbered(0..3));
        assert_eq!((report.lines, report.lost), (0, 3));
        assert!(report.error.unwrap().contains("deep/access"));
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        assert_eq!(file.write(&numbered(0..3)), taken(3));
        let mut full = FileTarget::new("/dev/full");
        let report = full.write(&numbered(0..3));
        assert_eq!((report.lines, report.lost, report.error.is_some()), (0, 3, true));
    }

    #[test]
    fn a_line_written_in_part_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(file::open(&path).is_err(), "nobody reads it, and nobody waits");
        let mut reader = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut target = FileTarget::new(path.to_str().unwrap());
        // More than a pipe holds.
        let report = target.write(&numbered(0..5_000));
        assert!(report.lines > 0 && report.lost > 0 && report.lines + report.lost == 5_000);
        assert!(report.error.is_some());
        let mut text = vec![0; 1 << 16];
        let count = reader.read(&mut text).unwrap();
        text.truncate(count);
        assert_eq!(target.write(&numbered(5_000..5_010)), taken(10));
        let mut more = vec![0; 1 << 16];
        let count = reader.read(&mut more).unwrap();
        text.extend_from_slice(&more[..count]);
        let text = String::from_utf8(text).unwrap();
        let is_whole = |line: &&str| serde_json::from_str::<Value>(line).is_ok();
        let (whole, torn): (Vec<_>, Vec<_>) = text.lines().partition(is_whole);
        assert!(torn.len() <= 1, "{torn:?}");
        let numbers: Vec<usize> = whole.into_iter().map(number_of).collect();
        let wanted: Vec<usize> = (0..report.lines as usize).chain(5_000..5_010).collect();
        assert_eq!(numbers, wanted);
    }
}

mod of_syslog {
    use super::*;

    fn target(address: SocketAddr, transport: SyslogTransport) -> Syslog {
        Syslog::new(&SyslogTarget {
            address: ReceiverAddress(address),
            transport,
            facility: SyslogFacility::Local0,
            app_name: "edge-7".parse::<AppName>().unwrap(),
        })
    }

    fn local() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    fn wall() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_709_210_096_007)
    }

    /// Checks the header; the message behind it.
    fn message_of(text: &str) -> &str {
        let words: Vec<&str> = text.splitn(8, ' ').collect();
        assert_eq!(words[..2], ["<134>1", "2024-02-29T12:34:56.007Z"], "{text}");
        assert!(!words[2].is_empty());
        assert_eq!(words[3..7], ["edge-7", &std::process::id().to_string(), "access", "-"], "{text}");
        words[7]
    }

    /// The next message of a stream with octet counting; `None` at its end.
    fn framed(stream: &mut impl Read) -> Option<String> {
        let mut len = 0;
        loop {
            let mut byte = [0];
            if stream.read(&mut byte).unwrap() == 0 {
                assert_eq!(len, 0);
                return None;
            }
            match byte[0] {
                b' ' => break,
                digit => len = len * 10 + usize::from(digit - b'0'),
            }
        }
        let mut message = vec![0; len];
        stream.read_exact(&mut message).ok()?;
        Some(String::from_utf8(message).unwrap())
    }

    fn accept(listener: &TcpListener) -> TcpStream {
        let stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Only for tests that fail.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_datagram_is_a_message() {
        let receiver = UdpSocket::bind(local()).unwrap();
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut syslog = target(receiver.local_addr().unwrap(), SyslogTransport::Udp);
        assert_eq!(syslog.write(&numbered(0..3), wall(), Instant::now()), taken(3));
        for number in 0..3 {
            let mut message = [0; 2_048];
            let len = receiver.recv(&mut message).unwrap();
            assert_eq!(number_of(message_of(std::str::from_utf8(&message[..len]).unwrap())), number);
        }
    }

    #[test]
    fn datagrams_that_nobody_takes_stop_nothing() {
        let nobody = UdpSocket::bind(local()).unwrap().local_addr().unwrap();
        let mut syslog = target(nobody, SyslogTransport::Udp);
        let report = syslog.write(&numbered(0..100), wall(), Instant::now());
        assert_eq!(report.lines + report.lost, 100);
        assert_eq!(syslog.waiting(), 0);
        let far = SocketAddr::from((Ipv4Addr::BROADCAST, 514));
        let report = target(far, SyslogTransport::Udp).write(&numbered(0..4), wall(), Instant::now());
        assert_eq!((report.lost, report.error.is_some()), (4, true), "not permitted");
    }

    #[test]
    fn a_connection_counts_octets() {
        let listener = TcpListener::bind(local()).unwrap();
        let mut syslog = target(listener.local_addr().unwrap(), SyslogTransport::Tcp);
        assert_eq!(syslog.write(&numbered(0..3), wall(), Instant::now()), taken(3));
        let mut stream = accept(&listener);
        for number in 0..3 {
            assert_eq!(number_of(message_of(&framed(&mut stream).unwrap())), number);
        }
        assert_eq!(syslog.waiting(), 0);
    }

    #[test]
    fn a_receiver_that_is_away_is_asked_again_later_and_later() {
        let nobody = TcpListener::bind(local()).unwrap().local_addr().unwrap();
        let mut syslog = target(nobody, SyslogTransport::Tcp);
        let mut now = Instant::now();
        assert!(syslog.write(&numbered(0..1), wall(), now).error.is_some());
        for pause_ms in [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000] {
            assert_eq!(syslog.tick(now + Duration::from_millis(pause_ms - 1)), Report::default());
            now += Duration::from_millis(pause_ms);
            assert!(syslog.tick(now).error.is_some(), "after {pause_ms} ms");
        }
        assert_eq!(syslog.waiting(), 1, "the line is not lost yet");
    }

    /// Nothing hangs, memory is bounded, what was dropped is counted; the next connection begins with a whole message.
    #[test]
    fn a_receiver_that_stops_reading_is_left_for_another_connection() {
        let listener = TcpListener::bind(local()).unwrap();
        let mut syslog = target(listener.local_addr().unwrap(), SyslogTransport::Tcp);
        let start = Instant::now();
        let mut sum = Report::default();
        let mut given = 0;
        while sum.lost == 0 {
            let report = syslog.write(&numbered(given..given + 500), wall(), start);
            assert_eq!(report.error, None);
            given += 500;
            (sum.lines, sum.lost) = (sum.lines + report.lines, sum.lost + report.lost);
        }
        assert_eq!(sum.lines + sum.lost + syslog.waiting(), given as u64);
        let silent = accept(&listener);
        assert_eq!(syslog.tick(start + Duration::from_millis(9_999)).error, None);
        let given_up = start + Duration::from_secs(10);
        assert!(syslog.tick(given_up).error.is_some());
        // The other connection is read as it fills.
        let reader = std::thread::spawn(move || {
            let mut stream = accept(&listener);
            let mut numbers = Vec::new();
            while let Some(message) = framed(&mut stream) {
                numbers.push(number_of(message_of(&message)));
            }
            numbers
        });
        let again = given_up + Duration::from_millis(100);
        let waiting = syslog.waiting();
        while syslog.waiting() > 0 {
            let report = syslog.tick(again);
            assert_eq!(report.error, None);
            std::thread::yield_now();
        }
        drop(syslog);
        let numbers = reader.join().unwrap();
        assert_eq!(numbers.len() as u64, waiting);
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(
            numbers[0] as u64, sum.lines,
            "the first that the other connection had not taken as a whole"
        );
        drop(silent);
    }

    #[test]
    fn a_receiver_that_closes_gets_the_next_lines_on_another_connection() {
        let listener = TcpListener::bind(local()).unwrap();
        let mut syslog = target(listener.local_addr().unwrap(), SyslogTransport::Tcp);
        let start = Instant::now();
        assert_eq!(syslog.write(&numbered(0..1), wall(), start), taken(1));
        let mut stream = accept(&listener);
        framed(&mut stream).unwrap();
        drop(stream);
        // On the same machine the end has come when the call returns.
        let report = syslog.write(&numbered(1..2), wall(), start);
        assert_eq!((report.lines, report.error.is_some()), (0, true));
        assert_eq!(syslog.tick(start + Duration::from_millis(100)), taken(1));
        assert_eq!(number_of(message_of(&framed(&mut accept(&listener)).unwrap())), 1);
    }
}

const CONFIG: &str = r#"version: 1
ports: {net: {driver: af_packet, interface: net1}}
self_ips: {self4: {address: 192.0.2.10/24, port: net}}
"#;

fn model(telemetry: &str) -> Result<Model, Vec<Fault>> {
    let text = format!("{CONFIG}telemetry: {telemetry}\n");
    let document = read(&text, Format::Yaml)?;
    check_document(&document, &Against::NOTHING).map(|candidate| candidate.model)
}

fn snapshot(access_log: bool) -> Arc<Snapshot> {
    let member =
        Member { id: MemberId(7), address: Address::v4([10, 1, 0, 11]), port: 8080, ..Member::default() };
    let pool = Pool { id: PoolId(0), name: "farm".into(), members: vec![member], ..Pool::default() };
    let profile = ProxyProfile { access_log, ..ProxyProfile::default() };
    let server = Virtual {
        id: VirtualId(4),
        name: "web".into(),
        pool: Some(PoolId(0)),
        proxy: Some(Arc::new(profile)),
        ..Virtual::default()
    };
    let parts = Parts { generation: 1, virtuals: vec![server], pools: vec![pool], ..Parts::default() };
    Arc::new(Snapshot::build(parts))
}

fn submit(log: &SharedAccessLog, path: &str) {
    let mut record = log.begin().unwrap();
    record.virtual_id = VirtualId(4);
    record.member_id = MemberId(7);
    record.text.put(Part::Path, path.as_bytes());
    log.submit(record);
}

fn lines_of(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_workers_tell_is_written_to_the_file_before_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access");
    let logs = AccessLogs::new(2, Clock::start());
    let model = model(&format!("{{access_log: {{file: {}}}}}", path.display())).unwrap();
    check(&model).unwrap();
    assert!(logs.of_worker(0).begin().is_none(), "nothing is logged yet");
    logs.follow(&model, &snapshot(true));
    submit(&logs.of_worker(0), "/one");
    submit(&logs.of_worker(1), "/two");
    logs.stop();
    while !logs.is_over() {
        std::thread::yield_now();
    }
    let lines = lines_of(&path);
    let told: Vec<_> =
        lines.iter().map(|line| (line["path"].as_str().unwrap(), line["worker"].as_u64())).collect();
    assert_eq!(told, [("/one", Some(0)), ("/two", Some(1))]);
    assert_eq!((&lines[0]["virtual_server"], &lines[0]["pool"]), (&"web".into(), &"farm".into()));
    let year: u64 = lines[0]["time"].as_str().unwrap()[..4].parse().unwrap();
    assert!(year >= 2024);
    assert_eq!(logs.counts(), Counts { lines: 2, lost: 0, errors: 0 });
    assert_eq!((logs.of_worker(1).written.load(), logs.of_worker(1).dropped.load()), (1, 0));
}

#[test]
fn lines_go_to_the_target_that_was_in_force_when_they_were_told() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["first", "second"].map(|name| folder.path().join(name));
    let models =
        paths.each_ref().map(|path| model(&format!("{{access_log: {{file: {}}}}}", path.display())).unwrap());
    let shared = Shared::default();
    let logs = AccessLogs::new(1, Clock::start());
    let log = logs.of_worker(0);
    log.stock(8);
    let mut writer = Writer::new(vec![Arc::clone(&log)], Clock::start(), &shared);
    let news = |model: &Model| News { target: model.telemetry.access_log.clone(), snapshot: snapshot(true) };
    writer.turn_to(news(&models[0]));
    submit(&log, "/a");
    writer.turn_to(news(&models[1]));
    submit(&log, "/b");
    // The same target again is not opened again; a removed object is known by its former name once.
    let without = Arc::new(Snapshot::build(Parts { generation: 2, ..Parts::default() }));
    writer.turn_to(News { target: models[1].telemetry.access_log.clone(), snapshot: without });
    writer.turn_to(News { target: None, snapshot: snapshot(false) });
    assert!(writer.pause().is_none());
    let told = paths.each_ref().map(|path| lines_of(path));
    assert_eq!((told[0].len(), told[1].len()), (1, 1));
    assert_eq!((&told[0][0]["path"], &told[1][0]["path"]), (&"/a".into(), &"/b".into()));
    assert_eq!(told[1][0]["virtual_server"], "web");
    // Nowhere to write to: lost, and counted.
    submit(&log, "/c");
    writer.round();
    assert_eq!((shared.tally.lines.into_inner(), shared.tally.lost.into_inner()), (2, 1));
}

#[test]
fn records_are_made_only_when_something_is_logged() {
    let logs = AccessLogs::new(1, Clock::start());
    let log = logs.of_worker(0);
    let empty = log.bytes();
    let (with, without) = (model("{access_log: {file: /dev/null}}").unwrap(), model("{}").unwrap());
    for (model, access_log) in [(&without, true), (&with, false), (&without, false)] {
        logs.follow(model, &snapshot(access_log));
        assert!(log.bytes() == empty && logs.is_over(), "and no thread is started");
    }
    logs.stock(&with, &snapshot(true));
    assert!(log.bytes() > empty + RECORDS_MAX * 1_024);
    logs.stock(&without, &snapshot(true));
    assert_eq!(log.bytes(), empty);
}

#[test]
fn mistakes_about_the_target_are_told_at_their_place() {
    let path = |telemetry: &str| model(telemetry).unwrap_err()[0].path.to_string();
    assert_eq!(path("{access_log: {}}"), "/telemetry/access_log");
    assert_eq!(path("{access_log: {file: /x, syslog: {address: 192.0.2.1:514}}}"), "/telemetry/access_log");
    assert_eq!(path("{access_log: {file: access}}"), "/telemetry/access_log/file");
    for address in ["192.0.2.1", "192.0.2.1:0", "0.0.0.0:514", "log.example:514"] {
        let text = format!("{{access_log: {{syslog: {{address: \"{address}\"}}}}}}");
        assert_eq!(path(&text), "/telemetry/access_log/syslog/address");
    }
    let syslog = |more: &str| format!("{{access_log: {{syslog: {{address: 192.0.2.1:514, {more}}}}}}}");
    assert_eq!(path(&syslog("app_name: a b")), "/telemetry/access_log/syslog/app_name");
    assert_eq!(path(&syslog("facility: local8")), "/telemetry/access_log/syslog/facility");
    assert!(model(&syslog("transport: tcp, facility: daemon, app_name: edge")).is_ok());
    let folder = tempfile::tempdir().unwrap();
    let nowhere = model(&format!("{{access_log: {{file: {}/no/log}}}}", folder.path().display())).unwrap();
    assert_eq!(check(&nowhere).unwrap_err().path.to_string(), "/telemetry/access_log/file");
}
