//! Clients behind a router: replies go back to the router their packets came from, and routes are obeyed.

use sluice_tests::origin::PYTHON;
use sluice_tests::show::number;
use sluice_tests::{LinkKind, Namespace, Segment, World, config, curl, peer, run};
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::Duration;

/// `far` -- `router` -- the external network. The router has no route that sluice would know of.
struct Behind {
    world: World,
    far: Namespace,
    // Dropped after `far`, in whose namespace the other end of its link is.
    router: Namespace,
    _hub: Namespace,
}

impl Behind {
    fn start(config: &str) -> Option<Self> {
        let world = World::start(LinkKind::Veth, config)?;
        let name = |part: &str| format!("{}-{part}", world.lab.client().name());
        let namespace = |part: &str| Namespace::add(&name(part)).expect("a namespace");
        let (far, router, hub) = (namespace("far"), namespace("router"), namespace("farhub"));
        let segment = Segment::add(&hub, "far", LinkKind::Veth).expect("a segment");
        segment.attach(&far, "eth0").expect("a link");
        segment.attach(&router, "eth1").expect("a link");
        world.lab.external().attach(&router, "eth0").expect("a link");
        far.address("eth0", &["198.51.100.2/24", "2001:db8:f::2/64"]).expect("addresses");
        far.ip(&["route add default via 198.51.100.1", "route add default via 2001:db8:f::1"])
            .expect("routes");
        router.address("eth0", &["192.0.2.7/24", "2001:db8:1::7/64"]).expect("addresses");
        router.address("eth1", &["198.51.100.1/24", "2001:db8:f::1/64"]).expect("addresses");
        router.sysctl("net/ipv4/ip_forward", "1").expect("a setting");
        router.sysctl("net/ipv6/conf/all/forwarding", "1").expect("a setting");
        Some(Self { world, far, router, _hub: hub })
    }

    fn curl(&self, url: &str) -> String {
        run(curl(&self.far).arg(url))
    }

    /// How many fragments the router has made.
    fn fragments(&self) -> u64 {
        let text = run(self.router.command("cat").arg("/proc/net/snmp"));
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip: ")).map(str::split_whitespace);
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let made = names.zip(values).find(|(name, _)| *name == "FragCreates").expect("a counter");
        made.1.parse().expect("a number")
    }
}

#[test]
fn replies_go_back_to_the_router_that_a_client_came_through() {
    let Some(behind) = Behind::start(&config::web()) else { return };
    for url in ["http://192.0.2.100/", "http://[2001:db8:1::100]/"] {
        for _ in 0..4 {
            assert!(behind.curl(url).starts_with("server"), "{url}");
        }
    }
    // A ping's answer goes the same way.
    run(behind.far.command("ping").args(["-n", "-c", "2", "-i", "0.1", "-W", "2", "192.0.2.100"]));
    run(behind.far.command("ping").args(["-n", "-c", "2", "-i", "0.1", "-W", "2", "2001:db8:1::100"]));
    // The lab's own client, on the network itself, is served as before.
    assert!(behind.world.curl("http://192.0.2.100/").starts_with("server"));
}

const DATAGRAMS: &str = r#"
pools:
  near: {members: [{address: 10.1.0.11, port: 7}]}
  far: {members: [{address: 198.51.100.2, port: 9}]}
virtual_servers:
  near: {destination: "192.0.2.100:7", protocol: udp, type: performance-l4, pool: near, snat: automap}
  far: {destination: "10.1.0.100:9", protocol: udp, type: performance-l4, pool: far, snat: automap}
routes: [{destination: 198.51.100.0/24, gateway: 192.0.2.7}]
"#;

/// What the socket hears when the datagram it sends is refused.
fn refused(socket: &UdpSocket) -> ErrorKind {
    socket.send(&[b'x'; 1_000]).expect("it is sent");
    socket.recv(&mut [0; 16]).expect_err("nobody listens there").kind()
}

#[test]
fn errors_that_a_path_of_small_mtu_cuts_reach_whom_they_are_about() {
    let Some(behind) = Behind::start(&config::network_and(DATAGRAMS)) else { return };
    // What the router sends to sluice leaves in fragments.
    behind
        .router
        .ip(&[
            "route add 192.0.2.100/32 dev eth0 mtu lock 300",
            "route add 192.0.2.10/32 dev eth0 mtu lock 300",
        ])
        .expect("routes");
    let server = &behind.world.lab.servers()[0].namespace;
    // A client behind sluice whose member is far.
    let socket = peer::udp(server, "10.1.0.100:9");
    assert_eq!(refused(&socket), ErrorKind::ConnectionRefused);
    let first = behind.fragments();
    assert!(first >= 2, "the error came in fragments");
    // A member whose client is far, and gone.
    let service = server.enter(|| UdpSocket::bind("10.1.0.11:7")).expect("a namespace").expect("a socket");
    service.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let client = peer::udp(&behind.far, "192.0.2.100:7");
    client.send(b"hello").expect("it is sent");
    let (_, from) = service.recv_from(&mut [0; 16]).expect("the datagram");
    drop(client);
    service.connect(from).expect("an address");
    assert_eq!(refused(&service), ErrorKind::ConnectionRefused);
    assert!(behind.fragments() >= first + 2, "so did this one");
}

/// Sends a datagram and prints the number of the error that comes back.
const ASK_ERROR: &str = "
import socket, sys
family, level, option = {4: (socket.AF_INET, 0, 11), 6: (socket.AF_INET6, 41, 25)}[int(sys.argv[2])]
asking = socket.socket(family, socket.SOCK_DGRAM)
asking.setsockopt(level, option, 1)
asking.settimeout(10)
asking.connect((sys.argv[1], 7))
asking.send(b'anybody there?')
try:
    print(asking.recv(100))
except OSError as error:
    print(error.errno)
";

#[test]
fn datagrams_without_a_flow_to_an_absent_member_are_told() {
    let text = config::network_and(
        r#"
pools:
  gone: {members: [{address: 10.1.0.99, port: 7}]}
  gone6: {members: [{address: "2001:db8:2::99", port: 7}]}
virtual_servers:
  gone: {destination: "192.0.2.100:7", protocol: udp, type: stateless, pool: gone}
  gone6: {destination: "[2001:db8:1::100]:7", protocol: udp, type: stateless, pool: gone6}
"#,
    );
    let Some(world) = World::start(LinkKind::Veth, &text) else { return };
    for (address, family) in [("192.0.2.100", "4"), ("2001:db8:1::100", "6")] {
        let said = run(world.lab.client().command(PYTHON).args(["-c", ASK_ERROR, address, family]));
        assert_eq!(said.trim(), "113", "{address}: EHOSTUNREACH");
    }
    let drops = world.sluice.get("/v1/drops");
    assert_eq!(number(&drops, "/total/neighbor-unresolved"), 2, "{drops}");
}

#[test]
fn members_behind_a_router_are_reached_by_a_route() {
    let routed = "routes: [{destination: 10.2.0.0/16, gateway: 10.1.0.11}, {destination: 10.2.0.0/30, gateway: 10.1.0.99}]\n";
    let text = config::pool_of("", &["address: 10.2.0.80, port: 8080"]) + routed;
    let Some(world) = World::start(LinkKind::Macvlan, &text) else { return };
    // The first server owns an address of the routed network.
    let server = &world.lab.servers()[0].namespace;
    server.ip(&["addr add 10.2.0.80/32 dev lo"]).expect("an address");
    assert_eq!(world.curl("http://192.0.2.100/"), "server1\n");
}
