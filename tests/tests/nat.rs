//! Servers that go out through sluice: egress by source prefix, one-to-one translation, ping and traceroute.

use sluice_control::lab::Nginx;
use sluice_tests::peer::{self, Service};
use sluice_tests::{LinkKind, Namespace, World, config, run};

/// Everything that the servers send to others, from addresses chosen by theirs.
const EGRESS: &str = r#"
snat_pools:
  one: {addresses: [192.0.2.51]}
  two: {addresses: [192.0.2.52, 192.0.2.53]}
  six: {addresses: ["2001:db8:1::51"]}
snat_lists:
  egress:
    - {source: 10.1.0.0/24, snat: automap}
    - {source: 10.1.0.11, snat: {pool: one}}
    - {source: 10.1.0.128/25, snat: {pool: two}}
    - {source: "2001:db8:2::11", snat: {pool: six}}
virtual_servers:
  out: {destination: "0.0.0.0/0:*", protocol: any, type: forwarding-ip, ports: [internal], snat: {list: egress}}
  out6: {destination: "[::]/0:*", protocol: any, type: forwarding-ip, ports: [internal], snat: {list: egress}}
"#;

/// The client is the gateway to everything else.
const ROUTES: &str = r#"
routes: [{destination: 0.0.0.0/0, gateway: 192.0.2.1}, {destination: "::/0", gateway: "2001:db8:1::1"}]
"#;

/// Sluice on `workers`, and an nginx on the client that says whom it sees.
struct Outside {
    _nginx: Nginx,
    world: World,
}

impl Outside {
    fn start(link: LinkKind, workers: usize, rest: &str) -> Option<Self> {
        let text = config::network_and(rest).replace("workers: 1", &format!("workers: {workers}"));
        let world = World::start(link, &text)?;
        let directory = world.lab.directory().join("outside");
        let nginx = Nginx::start(world.lab.client(), "outside", 8080, &directory).expect("an nginx");
        // 10.1.0.12 is translated by automap, 10.1.0.200 by the pool of two.
        world.lab.servers()[1].namespace.ip(&["addr add 10.1.0.200/24 dev eth0"]).expect("an address");
        Some(Self { _nginx: nginx, world })
    }

    fn server(&self, place: usize) -> &Namespace {
        &self.world.lab.servers()[place].namespace
    }

    /// The address that the client sees when server `place` asks it from `address`.
    fn seen(&self, place: usize, address: &str) -> String {
        seen(self.server(place), address, "192.0.2.1:8080")
    }
}

/// Whom the nginx at `authority` sees when `namespace` asks it from `address`.
fn seen(namespace: &Namespace, address: &str, authority: &str) -> String {
    let mut curl = sluice_tests::curl(namespace);
    let text = run(curl.args(["--interface", address, &format!("http://{authority}/whoami")]));
    text.split_whitespace().nth(1).expect("an answer of /whoami").to_owned()
}

/// Pings that fit a packet, and pings that need three.
fn ping(namespace: &Namespace, address: &str, from: &str) {
    for bytes in ["56", "4000"] {
        let few = ["-n", "-q", "-c", "3", "-i", "0.05", "-W", "3", "-s", bytes, "-I", from, address];
        run(namespace.command("ping").args(few));
    }
}

/// What a ping that nobody answers prints.
fn unanswered(namespace: &Namespace, address: &str) -> String {
    let output = namespace.command("ping").args(["-n", "-c", "1", "-W", "6", address]).output();
    let output = output.expect("ping is there");
    assert!(!output.status.success(), "{address} answers");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_server_is_told_that_there_is_no_way() {
    for workers in [1, 3] {
        let Some(outside) = Outside::start(LinkKind::Veth, workers, EGRESS) else { return };
        let server = outside.server(0);
        for (address, told) in [
            ("203.0.113.9", "From 10.1.0.10 icmp_seq=1 Destination Net Unreachable"),
            ("192.0.2.77", "From 10.1.0.10 icmp_seq=1 Destination Host Unreachable"),
            ("2001:db8:f::9", "From 2001:db8:2::10 icmp_seq=1 Destination unreachable: No route"),
            ("2001:db8:1::77", "From 2001:db8:2::10 icmp_seq=1 Destination unreachable: Address unreachable"),
        ] {
            let text = unanswered(server, address);
            assert!(text.contains(told), "{workers} workers, {address}: {text}");
        }
        let error = peer::connect(server, "192.0.2.78:80").expect_err("nobody is there");
        assert_eq!(error.kind(), std::io::ErrorKind::HostUnreachable, "{error}");
    }
}

#[test]
fn servers_go_out_by_addresses_that_their_own_choose() {
    for link in [LinkKind::Veth, LinkKind::Macvlan] {
        let Some(outside) = Outside::start(link, 3, EGRESS) else { return };
        for _ in 0..8 {
            assert_eq!(outside.seen(0, "10.1.0.11"), "192.0.2.51");
            assert_eq!(outside.seen(1, "10.1.0.12"), "192.0.2.10", "automap");
            let two = outside.seen(1, "10.1.0.200");
            assert!(["192.0.2.52", "192.0.2.53"].contains(&two.as_str()), "{two}");
            let six = seen(outside.server(0), "2001:db8:2::11", "[2001:db8:1::1]:8080");
            assert_eq!(six, "2001:db8:1::51");
        }
        ping(outside.server(0), "192.0.2.1", "10.1.0.11");
        ping(outside.server(1), "192.0.2.1", "10.1.0.200");
        ping(outside.server(0), "2001:db8:1::1", "2001:db8:2::11");
    }
}

#[test]
fn a_trace_shows_every_hop_whatever_it_is_made_of() {
    let text = format!("{EGRESS}{ROUTES}");
    let Some(outside) = Outside::start(LinkKind::Veth, 2, &text) else { return };
    let client = outside.world.lab.client();
    // The client is a router here, with a host behind it.
    let far = Namespace::add(&format!("{}-far", client.name())).expect("a namespace");
    client.ip(&[format!("link add far type veth peer name eth0 netns {}", far.name())]).expect("a link");
    client.address("far", &["198.51.100.1/24", "2001:db8:f::1/64"]).expect("addresses");
    client.sysctl("net/ipv4/ip_forward", "1").expect("a setting");
    client.sysctl("net/ipv6/conf/all/forwarding", "1").expect("a setting");
    far.address("eth0", &["198.51.100.2/24", "2001:db8:f::2/64"]).expect("addresses");
    far.ip(&["route add default via 198.51.100.1", "route add default via 2001:db8:f::1"]).expect("routes");

    for kind in ["--udp", "--icmp", "--tcp", "--mtu"] {
        for hops in
            [["10.1.0.10", "192.0.2.1", "198.51.100.2"], ["2001:db8:2::10", "2001:db8:1::1", "2001:db8:f::2"]]
        {
            let mut trace = outside.server(0).command("traceroute");
            let text = run(trace.args([kind, "-n", "-q", "1", "-N", "1", "-w", "3", hops[2]]));
            let seen = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1));
            assert_eq!(seen.collect::<Vec<_>>(), hops, "{kind}: {text}");
        }
    }
}

#[test]
fn a_host_with_a_second_address_is_reached_by_it_and_known_by_it() {
    let nat = "nats:
  mail: {origin: 10.1.0.11, translation: 192.0.2.25}
  mail6: {origin: \"2001:db8:2::11\", translation: \"2001:db8:1::25\"}
  other: {origin: 10.1.0.12, translation: 192.0.2.26, ports: [internal]}
";
    for link in [LinkKind::Veth, LinkKind::Macvlan] {
        let Some(outside) = Outside::start(link, 3, nat) else { return };
        let client = outside.world.lab.client();
        let _echo = Service::udp_echo(outside.server(0), 7, "mail");
        for _ in 0..8 {
            assert_eq!(outside.seen(0, "10.1.0.11"), "192.0.2.25");
            assert_eq!(seen(client, "192.0.2.1", "192.0.2.25:8080"), "192.0.2.1");
            let socket = peer::udp(client, "192.0.2.25:7");
            assert_eq!(peer::ask(&socket, "post").expect("an answer"), "mail post");
        }
        ping(outside.server(0), "192.0.2.1", "10.1.0.11");
        ping(client, "192.0.2.25", "192.0.2.1");
        assert_eq!(seen(outside.server(0), "2001:db8:2::11", "[2001:db8:1::1]:8080"), "2001:db8:1::25");
        assert_eq!(seen(client, "2001:db8:1::1", "[2001:db8:1::25]:8080"), "2001:db8:1::1");
        ping(outside.server(0), "2001:db8:1::1", "2001:db8:2::11");
        ping(client, "2001:db8:1::25", "2001:db8:1::1");
        // A neighbour behind the same sluice uses the name that others use, and is known by its own.
        assert_eq!(seen(outside.server(1), "10.1.0.12", "192.0.2.25:8080"), "192.0.2.26");
        assert_eq!(outside.seen(1, "10.1.0.12"), "192.0.2.26");
        let error = peer::connect(client, "192.0.2.26:8080").expect_err("not from outside");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
    }
}
