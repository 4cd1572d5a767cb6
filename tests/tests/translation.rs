//! Whose address a server sees, and what becomes of a flow that goes quiet.

use sluice_tests::peer::{self, Service};
use sluice_tests::{LinkKind, Namespace, World, addresses, config, curl, run, wait};
use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

/// What a server saw: its name, the source address and the source port.
fn whoami(world: &World, url: &str) -> (String, String, u16) {
    let text = world.curl(url);
    let words: Vec<&str> = text.split_whitespace().collect();
    let [member, address, port] = words[..] else { panic!("not an answer of /whoami: {text}") };
    (member.to_owned(), address.to_owned(), port.parse().expect("a port"))
}

#[test]
fn automap_shows_the_servers_sluices_own_address() {
    let Some(world) = World::start(LinkKind::Veth, &config::web()) else { return };
    assert_eq!(whoami(&world, "http://192.0.2.100/whoami").1, addresses::SLUICE_V4);
    assert_eq!(whoami(&world, "http://[2001:db8:1::100]/whoami").1, addresses::SLUICE_V6);
}

#[test]
fn without_snat_the_servers_see_the_client_and_answer_through_sluice() {
    let text = config::web().replace("snat: automap", "snat: none");
    let Some(world) = World::start(LinkKind::Macvlan, &text) else { return };
    for _ in 0..4 {
        assert_eq!(whoami(&world, "http://192.0.2.100/whoami").1, addresses::CLIENT_V4);
        assert_eq!(whoami(&world, "http://[2001:db8:1::100]/whoami").1, addresses::CLIENT_V6);
    }
}

#[test]
fn a_snat_pool_lends_its_addresses() {
    let text = config::web_with("snat: {pool: egress}");
    let text = format!("{text}snat_pools: {{egress: {{addresses: [10.1.0.50, 10.1.0.51]}}}}\n");
    let Some(world) = World::start(LinkKind::Veth, &text) else { return };
    let seen: Vec<String> = (0..8).map(|_| whoami(&world, "http://192.0.2.100/whoami").1).collect();
    assert!(seen.iter().all(|address| ["10.1.0.50", "10.1.0.51"].contains(&address.as_str())), "{seen:?}");
}

#[test]
fn the_source_port_is_preserved_where_it_is_free_and_changed_on_request() {
    let Some(world) = World::start(LinkKind::Veth, &config::web()) else { return };
    for port in [20_001_u16, 33_333, 60_999] {
        let mut command = curl(world.lab.client());
        let text = run(command.args(["--local-port", &port.to_string(), "http://192.0.2.100/whoami"]));
        assert!(text.ends_with(&format!(" {port}\n")), "from {port}: {text}");
    }
    world.sluice.apply(&config::web_with("snat: automap, source_port: change"));
    let mut command = curl(world.lab.client());
    let text = run(command.args(["--local-port", "40404", "http://192.0.2.100/whoami"]));
    assert!(!text.ends_with(" 40404\n"), "{text}");
}

#[test]
fn an_idle_flow_is_reset_on_both_sides() {
    let member = "address: 10.1.0.11, port: 9000";
    let text = config::pool_of("", &[member]).replace("snat: automap", "snat: automap, idle_timeout: 2s");
    let Some(world) = World::start(LinkKind::Veth, &text) else { return };
    let server = &world.lab.servers()[0].namespace;
    let listener =
        server.enter(|| std::net::TcpListener::bind("[::]:9000")).expect("a namespace").expect("a port");
    let mut client = peer::connect(world.lab.client(), "192.0.2.100:80").expect("a connection");
    let (mut accepted, _) = listener.accept().expect("a connection");
    accepted.set_read_timeout(Some(peer::PATIENCE)).expect("a socket");

    let start = Instant::now();
    let error = client.read(&mut [0]).expect_err("a reset of the client's side");
    let after = start.elapsed();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "client, after {after:?}: {error}");
    assert!(after >= Duration::from_millis(1_500), "too early: {after:?}");
    let error = accepted.read(&mut [0]).expect_err("a reset of the server's side");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "server: {error}");
}

#[test]
fn a_flow_that_speaks_outlives_its_idle_timeout() {
    let member = "address: 10.1.0.11, port: 9000";
    let text = config::pool_of("", &[member]).replace("snat: automap", "snat: automap, idle_timeout: 3s");
    let Some(world) = World::start(LinkKind::Veth, &text) else { return };
    let _service = Service::tcp_echo(&world.lab.servers()[0].namespace, 9000, "");
    let mut stream = peer::connect(world.lab.client(), "192.0.2.100:80").expect("a connection");
    for _ in 0..8 {
        wait::pass(Duration::from_millis(750));
        peer::echo(&mut stream, b"here").expect("the flow lives");
    }
}

#[test]
fn a_port_that_must_be_preserved_and_is_taken_is_refused() {
    let member = "address: 10.1.0.11, port: 8080";
    let strict = "snat: automap, source_port: preserve-strict";
    let text = config::pool_of("", &[member]).replace("snat: automap", strict);
    let Some(world) = World::start(LinkKind::Veth, &text) else { return };
    let client = world.lab.client();
    client.ip(&["addr add 192.0.2.21/24 dev eth0"]).expect("an address");
    let connect = |from: &str| {
        let (from, to) = (from.parse().expect("an address"), "192.0.2.100:80".parse().expect("an address"));
        client.enter(|| peer::connect_here_from(from, to)).expect("the namespace is there")
    };
    let mut first = connect("192.0.2.1:20001").expect("a connection");
    let error = connect("192.0.2.21:20001").expect_err("the port is taken");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    connect("192.0.2.21:20002").expect("a free port");
    let seen = run(world.lab.servers()[0].namespace.command("ss").args(["-Htn", "sport", "=", ":8080"]));
    assert!(seen.contains("10.1.0.10:20001") || seen.contains("[::ffff:10.1.0.10]:20001"), "{seen}");
    assert_eq!(peer::fetch(&mut first).expect("the first is unharmed"), "server1");
}

#[test]
fn large_segments_are_clamped_both_ways() {
    for (clamp, most) in [("", 1_460), (", mss_clamp: 1200", 1_200)] {
        let text = config::web_with(&format!("snat: automap{clamp}"));
        let Some(world) = World::start(LinkKind::Veth, &text) else { return };
        let _held = peer::connect(world.lab.client(), "192.0.2.100:80").expect("a connection");
        let servers = world.lab.servers().iter().map(|server| &server.namespace);
        let sizes: Vec<u32> = servers.chain([world.lab.client()]).flat_map(segment_sizes).collect();
        // Of each segment twelve bytes go to timestamps.
        assert_eq!(sizes, [most - 12; 2], "the server's and the client's, {clamp:?}");
    }
}

/// The largest segment that each TCP socket with a peer sends.
fn segment_sizes(namespace: &Namespace) -> Vec<u32> {
    let sockets = run(namespace.command("ss").args(["-Htni", "state", "established"]));
    let sizes = sockets.split_whitespace().filter_map(|word| word.strip_prefix("mss:")?.parse().ok());
    sizes.collect()
}

#[test]
fn datagrams_are_balanced_one_by_one_without_a_flow() {
    let text = config::network_and(STATELESS).replace("workers: 1", "workers: 3");
    let Some(world) = World::start(LinkKind::Veth, &text) else { return };
    let servers = world.lab.servers().iter().map(|server| {
        let bind = || std::net::UdpSocket::bind("0.0.0.0:514");
        let socket = server.namespace.enter(bind).expect("a namespace").expect("a free port");
        socket.set_nonblocking(true).expect("a socket");
        socket
    });
    let servers: Vec<_> = servers.collect();
    let socket = peer::udp(world.lab.client(), "192.0.2.100:514");
    let mut counts = [0; 2];
    for number in 1..=40 {
        socket.send(b"<13>a line for the log").expect("a datagram leaves");
        wait::until("the datagram", peer::PATIENCE, || {
            for (count, server) in counts.iter_mut().zip(&servers) {
                *count += usize::from(server.recv(&mut [0; 64]).is_ok());
            }
            (counts.iter().sum::<usize>() == number).then_some(())
        });
    }
    assert_eq!(counts, [20, 20]);
    assert_eq!(world.sluice.show("flows"), serde_json::json!([]));
}

#[test]
fn a_disabled_virtual_server_refuses_or_leaves_its_traffic_to_the_next() {
    for (continues, answer) in [("false", None), ("true", Some("server2"))] {
        let text = config::network_and(NEXT)
            .replace("workers: 1", &format!("workers: 2, continue_matching: {continues}"));
        let Some(world) = World::start(LinkKind::Veth, &text) else { return };
        let answered =
            peer::connect(world.lab.client(), "192.0.2.100:80").map(|mut stream| peer::fetch(&mut stream));
        match (answered, answer) {
            (Ok(text), Some(name)) => assert_eq!(text.expect("an answer"), name),
            (Err(error), None) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}"),
            (other, _) => panic!("continue_matching: {continues}: {other:?}"),
        }
        world.sluice.apply(&text.replace(", enabled: false", ""));
        assert_eq!(world.curl("http://192.0.2.100/"), "server1\n", "enabled, it comes first");
    }
}

const STATELESS: &str = r#"
pools:
  log: {members: [{address: 10.1.0.11, port: 514}, {address: 10.1.0.12, port: 514}]}
virtual_servers:
  log: {destination: "192.0.2.100:514", protocol: udp, type: stateless, pool: log}
"#;

/// The exact one is out of service.
const NEXT: &str = r#"
pools:
  one: {members: [{address: 10.1.0.11, port: 8080}]}
  two: {members: [{address: 10.1.0.12, port: 8080}]}
virtual_servers:
  exact: {destination: "192.0.2.100:80", pool: one, snat: automap, enabled: false}
  every: {destination: "192.0.2.100:*", pool: two, snat: automap}
"#;
