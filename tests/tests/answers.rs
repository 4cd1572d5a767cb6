//! What sluice answers by itself: ping, the hop of a traceroute, RST and unreachable for what nobody serves.

use sluice_tests::peer::{self, Service, ask, udp};
use sluice_tests::show::number;
use sluice_tests::{LinkKind, World, config, run, try_run};
use std::io::ErrorKind;
use std::time::Duration;

const ECHO: &str = r#"
pools:
  echo: {members: [{address: 10.1.0.11, port: 7}, {address: 10.1.0.12, port: 7}]}
  echo6: {members: [{address: "2001:db8:2::11", port: 7}, {address: "2001:db8:2::12", port: 7}]}
virtual_servers:
  echo: {destination: "192.0.2.100:7", protocol: udp, type: performance-l4, pool: echo, snat: automap}
  echo6: {destination: "[2001:db8:1::100]:7", protocol: udp, type: performance-l4, pool: echo6, snat: automap}
"#;

#[test]
fn datagrams_are_echoed_by_both_members_over_ipv4_and_ipv6() {
    let Some(world) = World::start(LinkKind::Macvlan, &config::network_and(ECHO)) else { return };
    let [one, two] = [0, 1].map(|at| &world.lab.servers()[at].namespace);
    let _services = [Service::udp_echo(one, 7, "server1"), Service::udp_echo(two, 7, "server2")];
    for address in ["192.0.2.100:7", "[2001:db8:1::100]:7"] {
        let mut answered = std::collections::BTreeSet::new();
        for number in 0..4 {
            let socket = udp(world.lab.client(), address);
            let text = format!("datagram {number}");
            let answer = ask(&socket, &text).unwrap_or_else(|error| panic!("{address}: {error}"));
            let (member, rest) = answer.split_once(' ').expect("a member's name");
            assert_eq!(rest, text);
            // The flow stays with its member.
            assert_eq!(ask(&socket, "again").expect("an answer"), format!("{member} again"));
            answered.insert(member.to_owned());
        }
        assert_eq!(answered.len(), 2, "{address}: only {answered:?}");
    }
}

#[test]
fn self_ips_and_virtual_addresses_answer_ping() {
    let Some(world) = World::start(LinkKind::Veth, &config::web()) else { return };
    let server = &world.lab.servers()[0].namespace;
    for (from, address) in [
        (world.lab.client(), "192.0.2.10"),
        (world.lab.client(), "192.0.2.100"),
        (world.lab.client(), "2001:db8:1::10"),
        (world.lab.client(), "2001:db8:1::100"),
        (server, "10.1.0.10"),
        (server, "2001:db8:2::10"),
    ] {
        let said = run(from.command("ping").args(["-n", "-c", "5", "-i", "0.05", "-W", "2", address]));
        assert!(said.contains("5 received"), "{address}: {said}");
        // Larger than a frame would need reassembly, which sluice does not do; close to it is fine.
        run(from.command("ping").args(["-n", "-c", "1", "-W", "2", "-s", "1400", address]));
    }
}

#[test]
fn traceroute_shows_sluice_as_the_hop_before_the_server() {
    let Some(world) = World::start(LinkKind::Veth, &config::web()) else { return };
    for (hop, address) in [("192.0.2.10", "192.0.2.100"), ("2001:db8:1::10", "2001:db8:1::100")] {
        let hops = traceroute(&world, &["-T", "-p", "80", address]);
        assert_eq!(hops, [hop, address], "TCP to {address}");
        // To the address itself there is no hop in between.
        assert_eq!(traceroute(&world, &["-I", address]), [address], "ICMP to {address}");
        assert_eq!(traceroute(&world, &["-U", address]), [address], "UDP to {address}");
    }
}

/// The address at each hop.
fn traceroute(world: &World, arguments: &[&str]) -> Vec<String> {
    let mut command = world.lab.client().command("traceroute");
    let said = run(command.args(["-n", "-q", "1", "-w", "2", "-m", "5", "-N", "1"]).args(arguments));
    let hops = said.lines().skip(1).map(|line| line.split_whitespace().nth(1).unwrap_or_default().to_owned());
    hops.collect()
}

#[test]
fn what_no_virtual_server_takes_is_refused() {
    let Some(world) = World::start(LinkKind::Veth, &config::web()) else { return };
    let client = world.lab.client();
    for address in ["192.0.2.100", "[2001:db8:1::100]", "192.0.2.10", "[2001:db8:1::10]"] {
        let error = peer::connect(client, &format!("{address}:81")).expect_err("nobody serves port 81");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "TCP to {address}: {error}");
        let error =
            ask(&udp(client, &format!("{address}:81")), "anybody?").expect_err("nobody serves port 81");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "UDP to {address}: {error}");
    }
    let drops = world.sluice.get("/v1/drops");
    assert!(number(&drops, "/total/no-virtual") >= 8, "{drops}");
}

#[test]
fn without_reject_unmatched_nothing_comes_back() {
    let text = config::web().replace("{workers: 1}", "{workers: 1, reject_unmatched: false}");
    let Some(world) = World::start(LinkKind::Veth, &text) else { return };
    let client = world.lab.client();
    let said =
        try_run(client.command("curl").args(["-sS", "--connect-timeout", "1", "http://192.0.2.100:81/"]));
    assert_eq!(said.status.code(), Some(28), "curl's code for a timeout: {said:?}");
    let socket = udp(client, "192.0.2.100:81");
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a socket");
    socket.send(b"anybody?").expect("sent");
    let error = socket.recv(&mut [0; 16]).expect_err("silence");
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    // What is served is served still.
    assert!(world.curl("http://192.0.2.100/").starts_with("server"));
}
