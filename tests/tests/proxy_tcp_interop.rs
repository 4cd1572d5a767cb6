//! Linux's TCP on both sides of a full proxy, over wires that lose, double and reorder, with kernels set in unusual ways.

use rustix::net::sockopt;
use sluice_tests::file::sha256;
use sluice_tests::origin::{HTTP_PORT, TCP_PORT};
use sluice_tests::stage::{Reply, Stage};
use sluice_tests::wire::{self, BAD, GOOD, HTTP, LATE, TCP};
use sluice_tests::{Lab, Namespace, peer, run, show, try_run};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

const KIBI: usize = 1 << 10;
const MEBI: usize = 1 << 20;

/// A request by curl, which has to succeed.
fn curl(stage: &Stage, url: &str, arguments: &[&str]) -> Reply {
    let mut curl = stage.curl();
    let output = try_run(curl.args(["--include", "--max-time", "60"]).args(arguments).arg(url));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{url}: {} {error}", output.status);
    Reply::parse(&output.stdout)
}

/// So many bytes down and a file up by HTTP, both by SHA-256.
fn down_and_up(stage: &Stage, end: &str, bytes: usize) {
    let reply = curl(stage, &format!("http://{end}/bytes/{bytes}"), &[]);
    let file = |name: &str, bytes: &[u8]| {
        let path = stage.world.lab.directory().join(name);
        std::fs::write(&path, bytes).expect("room for a file");
        path
    };
    let down = file("down", &reply.body);
    assert_eq!((reply.body.len(), sha256(&down).as_str()), (bytes, reply.field("x-sha256")));

    let up = file("up", &peer::pattern(bytes as u64, bytes));
    let told = curl(stage, &format!("http://{end}/echo"), &["--upload-file", &up.to_string_lossy()]).json();
    assert_eq!((&told["length"], &told["sha256"]), (&bytes.into(), &sha256(&up).into()));
}

/// So many bytes both ways at once over TCP.
fn there_and_back(stage: &Stage, end: &str, bytes: usize) {
    let text = peer::pattern(bytes as u64, bytes);
    let stream = wire::connect_patient(stage.world.lab.client(), end).expect("a connection");
    let back = wire::echo(&stream, &text).unwrap_or_else(|error| panic!("{end}, {bytes} bytes: {error}"));
    assert!(back == text, "{end}: {} of {bytes} bytes came back, or others", back.len());
}

/// Ten mebibytes and more each way, over both families.
fn large_transfers(stage: &Stage) {
    down_and_up(stage, HTTP[0], 10 * MEBI);
    there_and_back(stage, TCP[0], 10 * MEBI);
    down_and_up(stage, HTTP[1], 2 * MEBI);
    there_and_back(stage, TCP[1], 2 * MEBI);
    let ends = [stage.world.lab.client(), &stage.world.lab.servers()[0].namespace];
    let again = ends.map(|end| wire::counted(end, "TcpRetransSegs")).iter().sum::<u64>();
    assert!(again > 0, "nothing was lost");
    wire::nothing_is_left(stage, LATE);
}

#[test]
fn bytes_arrive_over_a_bad_wire_to_the_client() {
    let Some(stage) = wire::stage(BAD, GOOD, wire::without_offloads) else { return };
    wire::lose_every(101, stage.world.lab.client());
    large_transfers(&stage);
}

#[test]
fn bytes_arrive_over_a_bad_wire_to_the_member() {
    let Some(stage) = wire::stage(GOOD, BAD, wire::without_offloads) else { return };
    wire::lose_every(101, &stage.world.lab.servers()[0].namespace);
    large_transfers(&stage);
}

/// Super-frames are lost as a whole.
#[test]
fn bytes_arrive_in_super_frames_over_bad_wires() {
    let Some(stage) = wire::stage(BAD, BAD, |_| ()) else { return };
    large_transfers(&stage);
}

/// Settings of a kernel, and how many bytes go each way with them.
type Kernel = (&'static [(&'static str, &'static str)], usize);

const SMALL_BUFFERS: &[(&str, &str)] = &[("tcp_rmem", "2048 4096 4096"), ("tcp_wmem", "4096 4096 4096")];
const KERNELS: [Kernel; 8] = [
    (&[("tcp_sack", "0")], MEBI),
    (&[("tcp_window_scaling", "0")], MEBI),
    (&[("tcp_timestamps", "0")], MEBI),
    (&[("tcp_sack", "0"), ("tcp_timestamps", "0"), ("tcp_window_scaling", "0")], MEBI),
    (&[("tcp_ecn", "1")], MEBI),
    (&[("tcp_mtu_probing", "2"), ("tcp_base_mss", "256")], MEBI),
    (&[("tcp_recovery", "0"), ("tcp_early_retrans", "0"), ("tcp_frto", "0")], MEBI),
    (SMALL_BUFFERS, 100 * KIBI),
];

/// Exchanges with every one of [`KERNELS`] on both sides.
fn with_every_kernel(mut stage: Stage, dropped: &[&str]) -> Stage {
    for (settings, bytes) in KERNELS {
        let server = &stage.world.lab.servers()[0].namespace;
        let ends = [stage.world.lab.client(), server];
        let read = |namespace: &Namespace, name: &str| {
            let path = format!("/proc/sys/net/ipv4/{name}");
            run(namespace.command("cat").arg(path)).trim().to_owned()
        };
        let before = settings.iter().map(|(name, _)| read(server, name)).collect::<Vec<_>>();
        ends.iter().for_each(|end| wire::set(end, settings));
        stage.origins[0].restart(server);
        for end in TCP {
            there_and_back(&stage, end, bytes);
        }
        down_and_up(&stage, HTTP[0], bytes);
        let undo = settings.iter().zip(&before).map(|((name, _), value)| (*name, value.as_str()));
        let undo = undo.collect::<Vec<_>>();
        ends.iter().for_each(|end| wire::set(end, &undo));
    }
    wire::nothing_is_left(&stage, dropped);
    stage
}

#[test]
fn kernels_in_every_mood_are_served() {
    let Some(stage) = wire::stage(GOOD, GOOD, wire::without_offloads) else { return };
    let stage = with_every_kernel(stage, &[]);
    for namespace in [stage.world.lab.client(), &stage.world.lab.servers()[0].namespace] {
        // A busy machine may lose a frame between namespaces; acknowledgements that look like losses do so all the time.
        let recoveries = wire::counted(namespace, "TcpExtTCPRenoRecovery");
        assert!(recoveries < 10, "{recoveries} losses were seen where nothing is lost");
    }
}

#[test]
fn kernels_in_every_mood_are_served_over_bad_wires() {
    let Some(stage) = wire::stage(BAD, BAD, wire::without_offloads) else { return };
    with_every_kernel(stage, LATE);
}

/// Gives the client's link an MTU of this many bytes, and everything else jumbo frames.
fn small_before_jumbo(lab: &Lab, client: usize) {
    let hub = lab.client().name().replace("-client", "-hub");
    let hub = Namespace::find(&hub).expect("the middle of the lab");
    let names = ["external-0", "external-1", "internal-0", "internal-1", "internal-2"];
    hub.ip(&names.map(|name| format!("link set {name} mtu 9000"))).expect("veth takes jumbo frames");
    let jumbo = [(lab.sluice(), "net1"), (lab.sluice(), "net2"), (&lab.servers()[0].namespace, "eth0")];
    for (namespace, name) in jumbo {
        namespace.ip(&[format!("link set {name} mtu 9000")]).expect("veth takes jumbo frames");
    }
    lab.client().ip(&[format!("link set eth0 mtu {client}")]).expect("veth takes small frames");
}

#[test]
fn a_small_mtu_before_jumbo_frames() {
    let Some(stage) = wire::stage(GOOD, GOOD, |lab| small_before_jumbo(lab, 576)) else { return };
    down_and_up(&stage, HTTP[0], 4 * MEBI);
    there_and_back(&stage, TCP[0], 4 * MEBI);
    wire::nothing_is_left(&stage, &[]);
}

#[test]
fn a_small_mtu_before_jumbo_frames_over_bad_wires_without_offloads() {
    let prepare = |lab: &Lab| {
        small_before_jumbo(lab, 1280);
        wire::without_offloads(lab);
    };
    let Some(stage) = wire::stage(BAD, BAD, prepare) else { return };
    for (http, tcp) in HTTP.into_iter().zip(TCP) {
        down_and_up(&stage, http, 2 * MEBI);
        there_and_back(&stage, tcp, 2 * MEBI);
    }
    wire::nothing_is_left(&stage, LATE);
}

/// Both ends have 2 KiB to receive into, send a lot, and read nothing for seconds: every window in the chain is closed.
fn windows_stay_shut(fault: &str, dropped: &[&str]) {
    let Some(mut stage) = wire::stage(fault, fault, |_| ()) else { return };
    stage.origins[0].kill();
    let server = &stage.world.lab.servers()[0].namespace;
    let listen = || TcpListener::bind(("::", TCP_PORT));
    let listener = server.enter(listen).expect("the server's namespace").expect("a free port");
    sockopt::set_socket_recv_buffer_size(&listener, 2 * KIBI).expect("a socket");
    let texts = [1, 2].map(|seed| peer::pattern(seed, 600 * KIBI));
    for end in TCP {
        let client = wire::connect_small(stage.world.lab.client(), end, 2 * KIBI).expect("a connection");
        let (member, _) = listener.accept().expect("a connection");
        let member = wire::patient(member).expect("a socket");
        let read = wire::read_late([&client, &member], [&texts[0], &texts[1]]).expect("open connections");
        assert!(
            read[0] == texts[1] && read[1] == texts[0],
            "{end}: {} and {} bytes",
            read[0].len(),
            read[1].len()
        );
    }
    for namespace in [stage.world.lab.client(), server] {
        assert!(wire::counted(namespace, "TcpExtTCPToZeroWindowAdv") > 0, "a window was closed");
    }
    wire::nothing_is_left(&stage, dropped);
}

#[test]
fn windows_that_stay_shut_open_again() {
    windows_stay_shut(GOOD, &[]);
}

#[test]
fn windows_that_stay_shut_open_again_over_bad_wires() {
    windows_stay_shut(BAD, LATE);
}

/// A connection whose first line is `verb`.
fn ask(stage: &Stage, end: &str, verb: &str) -> TcpStream {
    let mut stream = wire::connect_patient(stage.world.lab.client(), end).expect("a connection");
    stream.write_all(format!("{verb}\n").as_bytes()).expect("an open connection");
    stream
}

fn line(stream: &TcpStream) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("a line");
    line.trim_end().to_owned()
}

/// A transfer of which the client has read a part.
fn begun(stage: &Stage, end: &str) -> TcpStream {
    let mut stream = ask(stage, end, "bytes 100000000");
    stream.read_exact(&mut vec![0; MEBI]).expect("an open connection");
    stream
}

#[test]
fn whoever_breaks_off_leaves_nothing_over_bad_wires() {
    let Some(mut stage) = wire::stage(BAD, BAD, |_| ()) else { return };
    // What waits to be read makes the client's kernel send a RST.
    for round in 0..10 {
        drop(begun(&stage, TCP[round % 2]));
    }
    let end = format!("http://{}/bytes/100000000", HTTP[0]);
    let failed = try_run(stage.curl().args(["--max-filesize", "1000", &end]));
    assert_eq!(failed.status.code(), Some(63), "the file is larger than curl takes");
    wire::heard_of_the_end(&stage.world.lab.servers()[0].namespace, TCP_PORT);
    wire::heard_of_the_end(&stage.world.lab.servers()[0].namespace, HTTP_PORT);

    for end in TCP {
        let mut streams = [(); 4].map(|()| begun(&stage, end));
        stage.restart(0);
        for stream in &mut streams {
            let mut rest = Vec::new();
            let ended = stream.read_to_end(&mut rest);
            assert!(ended.is_err() || rest.len() < 90 * MEBI, "the member is dead: {ended:?}");
            assert_ne!(ended.map_err(|error| error.kind()), Err(std::io::ErrorKind::WouldBlock));
        }
    }
    wire::heard_of_the_end(stage.world.lab.client(), 81);
    wire::nothing_is_left(&stage, LATE);
}

#[test]
fn either_side_may_close_first_over_bad_wires() {
    let Some(stage) = wire::stage(BAD, BAD, |_| ()) else { return };
    for round in 0..30 {
        let (end, bytes) = (TCP[round % 2], peer::pattern(round as u64, 1 << (round % 20)));
        let path = stage.world.lab.directory().join("sent");
        std::fs::write(&path, &bytes).expect("room for a file");
        let mut digest = ask(&stage, end, "digest");
        digest.write_all(&bytes).expect("an open connection");
        digest.shutdown(Shutdown::Write).expect("an open connection");
        assert_eq!(line(&digest), sha256(&path), "{} bytes", bytes.len());
        assert_eq!(digest.read(&mut [0]).expect("an end"), 0);

        let mut second = ask(&stage, end, "close-first");
        assert_eq!(second.read(&mut [0]).expect("an end"), 0, "the member has closed");
        second.write_all(&bytes).expect("an open connection");
        second.shutdown(Shutdown::Write).expect("an open connection");
        assert_eq!(line(&ask(&stage, end, "ending")), sha256(&path), "{} bytes", bytes.len());
    }
    wire::nothing_is_left(&stage, LATE);
}

/// A RST that is lost is not sent again, so the wires are good ones.
#[test]
fn resets_are_heard_on_the_other_side() {
    let Some(stage) = wire::stage(GOOD, GOOD, |_| ()) else { return };
    for round in 0..20 {
        let end = TCP[round % 2];
        let watched = ask(&stage, end, "watch");
        assert_eq!(line(&watched), "watching");
        sockopt::set_socket_linger(&watched, Some(Duration::ZERO)).expect("a socket");
        drop(watched);
        assert_eq!(line(&ask(&stage, end, "ending")), "reset", "what the member saw");
        let error = ask(&stage, end, "reset").read(&mut [0]).expect_err("a RST");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    wire::nothing_is_left(&stage, &[]);
}

const CROWD: usize = 2000;
const AT_ONCE: usize = 40;

/// One connection with one request.
fn short(end: &str) {
    let mut stream = wire::connect_patient_here(end).expect("a connection");
    let request = b"GET /status/200 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(request).expect("an open connection");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an end");
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("as asked\n"), "{text}");
}

#[test]
fn none_of_many_short_connections_fails_over_bad_wires() {
    let Some(stage) = wire::stage(BAD, BAD, |_| ()) else { return };
    let crowd = || {
        std::thread::scope(|scope| {
            for at in 0..AT_ONCE {
                scope.spawn(move || (0..CROWD / AT_ONCE).for_each(|_| short(HTTP[at % 2])));
            }
        });
    };
    stage.world.lab.client().enter(crowd).expect("the namespace");
    let total =
        |name: &str| show::number(&stage.world.sluice.object("virtual-servers", name), "/connections/total");
    assert_eq!(total("http0") + total("http1"), CROWD as u64);
    wire::nothing_is_left(&stage, LATE);
}
