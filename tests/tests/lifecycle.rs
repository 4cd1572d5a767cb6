//! Starting, changing and ending a sluice, as an operator does.

use rustix::process::Signal;
use sluice_tests::peer::{self, Service};
use sluice_tests::{LinkKind, Sluice, World, api, config, lab, wait};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::time::Duration;

#[test]
fn sigterm_ends_a_quiet_sluice_and_removes_the_socket() {
    let Some(mut world) = World::start(LinkKind::Veth, &config::web()) else { return };
    let status = world.sluice.signal_and_wait(Signal::TERM, Duration::from_secs(5));
    assert!(status.success(), "{status}: {}", world.sluice.log());
    assert!(!world.sluice.socket().exists(), "the socket is left");
}

#[test]
fn sigterm_with_an_open_connection_ends_within_the_drain_timeout() {
    let text = config::pool_of("", &["address: 10.1.0.11, port: 9000"])
        .replace("{workers: 1}", "{workers: 1, drain_timeout: 3s}");
    let Some(mut world) = World::start(LinkKind::Veth, &text) else { return };
    let _service = Service::tcp_echo(&world.lab.servers()[0].namespace, 9000, "");
    let mut stream = peer::connect(world.lab.client(), "192.0.2.100:80").expect("a connection");
    peer::echo(&mut stream, b"before").expect("an echo");
    world.sluice.signal(Signal::TERM);
    // The open connection is served while it drains.
    assert_eq!(peer::echo(&mut stream, b"while draining").expect("an echo"), b"while draining");
    world.sluice.signal_and_wait(Signal::CONT, Duration::from_secs(8));
    assert!(!world.sluice.socket().exists(), "the socket is left");
}

/// Both kinds of connection through one pool; the member listens over TCP.
fn two_kinds() -> String {
    let standard = "  full: {destination: \"192.0.2.101:80\", protocol: tcp, type: standard, pool: web, snat: automap}\n";
    let text = config::pool_of("", &["address: 10.1.0.11, port: 9000"]);
    format!("{text}{standard}").replace("{workers: 1}", "{workers: 1, drain_timeout: 1s}")
}

#[test]
fn what_is_open_when_the_drain_timeout_is_over_is_reset_on_both_sides() {
    let Some(mut world) = World::start(LinkKind::Veth, &two_kinds()) else { return };
    let namespace = &world.lab.servers()[0].namespace;
    let bind = || TcpListener::bind(("10.1.0.11", 9000));
    let listener = namespace.enter(bind).expect("the namespace is there").expect("a free port");
    let mut ends = Vec::new();
    for address in ["192.0.2.100:80", "192.0.2.101:80"] {
        let mut client = peer::connect(world.lab.client(), address).expect("a connection");
        client.write_all(b"x").expect("room");
        let (mut member, _) = listener.accept().expect("the other side of it");
        member.read_exact(&mut [0]).expect("what the client said");
        ends.extend([(address, "client", client), (address, "member", member)]);
    }
    let status = world.sluice.signal_and_wait(Signal::TERM, Duration::from_secs(8));
    assert!(status.success(), "{status}: {}", world.sluice.log());
    for (address, side, mut stream) in ends {
        stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a socket");
        let error = stream.read(&mut [0]).expect_err("neither data nor an orderly end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{address}: the {side}: {error}");
    }
}

#[test]
fn sluice_starts_again_after_a_kill() {
    let Some(mut world) = World::start(LinkKind::Macvlan, &config::web()) else { return };
    world.sluice.signal_and_wait(Signal::KILL, Duration::from_secs(5));
    // The socket file of the killed one is in the way and has to be replaced.
    let World { sluice, lab } = world;
    drop(sluice);
    let sluice = Sluice::start(lab.sluice(), lab.directory(), &config::web());
    let world = World { sluice, lab };
    assert!(world.curl("http://192.0.2.100/").starts_with("server"));
}

#[test]
fn an_interface_that_goes_away_never_leaves_a_half_dead_process() {
    let Some(lab) = lab(LinkKind::Veth) else { return };
    let mut sluice = Sluice::start(lab.sluice(), lab.directory(), &config::web());
    // The process may go on or end with an error, but it answers or is gone.
    lab.sluice().ip(&["link del net1"]).expect("the interface is there");
    let look = || match api::request(&sluice.socket(), "GET", "/v1/live", "", "") {
        Ok(answer) => Some(answer.status == 200),
        Err(_) => Some(false),
    };
    if wait::until("an answer", Duration::from_secs(5), look) {
        return;
    }
    let status = sluice.signal_and_wait(Signal::CONT, Duration::from_secs(5));
    assert!(!status.success(), "{status}");
}

#[test]
fn a_refused_file_changes_nothing() {
    let Some(world) = World::start(LinkKind::Veth, &config::web()) else { return };
    let before = world.sluice.get("/v1/config");
    let wrong =
        config::web().replace("pool: web,", "pool: wbe,").replace("192.0.2.100:80", "192.0.2.100:99999");
    let file = world.sluice.write("wrong.yaml", &wrong);
    let output = world.sluice.command(&["apply", &file]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    for expected in ["wbe", "virtual_servers", "99999"] {
        assert!(said.contains(expected), "{expected} in:\n{said}");
    }
    assert_eq!(world.sluice.get("/v1/config"), before);
    assert!(world.curl("http://192.0.2.100/").starts_with("server"));
}

#[test]
fn diff_and_dry_run_tell_and_apply_does() {
    let Some(world) = World::start(LinkKind::Veth, &config::web()) else { return };
    let changed = config::web().replace("192.0.2.100:80", "192.0.2.101:80");
    let file = world.sluice.write("changed.yaml", &changed);

    let told = String::from_utf8_lossy(&world.sluice.command(&["diff", &file]).stdout).into_owned();
    assert!(told.contains("web") && told.contains("192.0.2.101:80"), "{told}");
    world.sluice.must(&["apply", &file, "--dry-run"]);
    assert!(world.curl("http://192.0.2.100/").starts_with("server"), "a dry run changes nothing");

    let said = world.sluice.must(&["apply", &file]);
    assert!(said.contains("web"), "{said}");
    assert!(world.curl("http://192.0.2.101/").starts_with("server"), "the new address");
    let error = peer::connect(world.lab.client(), "192.0.2.100:80").expect_err("the old address is gone");
    println!("the old address: {error}");
    let told = String::from_utf8_lossy(&world.sluice.command(&["diff", &file]).stdout).into_owned();
    assert!(!told.contains("192.0.2.101"), "nothing differs any more: {told}");
}

#[test]
fn an_apply_cuts_no_connection_even_when_its_virtual_server_goes() {
    let text = config::pool_of("", &["address: 10.1.0.11, port: 9000"]);
    let Some(world) = World::start(LinkKind::Veth, &text) else { return };
    let _service = Service::tcp_echo(&world.lab.servers()[0].namespace, 9000, "");
    let mut stream = peer::connect(world.lab.client(), "192.0.2.100:80").expect("a connection");
    peer::echo(&mut stream, b"before").expect("an echo");
    world.sluice.apply(&config::pool_of("", &["address: 10.1.0.12, port: 9000"]));
    assert_eq!(peer::echo(&mut stream, b"its member is gone").expect("alive"), b"its member is gone");
    world.sluice.apply(config::NETWORK);
    assert_eq!(peer::echo(&mut stream, b"all is gone").expect("alive"), b"all is gone");
}

#[test]
fn a_worker_that_panics_ends_the_process_with_its_own_code() {
    let Some(lab) = lab(LinkKind::Veth) else { return };
    let text = config::web().replacen("interface: net1", "interface: net1, fault: {panic_after: 1}", 1);
    let mut sluice = Sluice::start(lab.sluice(), lab.directory(), &text);
    // Any frame will do, and nobody answers this one.
    let mut ping = lab.client().command("ping");
    let _ = ping.args(["-c", "1", "-W", "1", "192.0.2.10"]).output();
    let status = sluice.signal_and_wait(Signal::CONT, Duration::from_secs(5));
    assert_eq!(status.code(), Some(4), "{}", sluice.log());
    assert!(sluice.log().contains("workers [0] ended by themselves"), "{}", sluice.log());
    assert!(!sluice.socket().exists(), "the socket is left");
}
