//! Whose address a server sees, and what becomes of a flow that goes quiet.

use sluice_tests::peer::{self, Service};
use sluice_tests::{LinkKind, World, addresses, config, curl, run};
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
        sluice_tests::wait::pass(Duration::from_millis(750));
        peer::echo(&mut stream, b"here").expect("the flow lives");
    }
}
