//! Datagrams larger than the MTU, between the kernels of real hosts.

use sluice_tests::peer::{Service, ask, udp};
use sluice_tests::show::number;
use sluice_tests::{LinkKind, Sluice, World, config, lab, run, wait};
use std::time::Duration;

const ECHO: &str = r#"
pools:
  echo: {members: [{address: 10.1.0.11, port: 7}]}
  echo6: {members: [{address: "2001:db8:2::11", port: 7}]}
virtual_servers:
  echo: {destination: "192.0.2.100:7", protocol: udp, type: performance-l4, pool: echo, snat: automap}
  echo6: {destination: "[2001:db8:1::100]:7", protocol: udp, type: performance-l4, pool: echo6, snat: automap}
"#;

/// Sends `bytes` from a socket of its own and wants them back.
fn expect_echo(world: &World, address: &str, bytes: usize) {
    let socket = udp(world.lab.client(), address);
    let text: String = (0..bytes).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
    let answer = ask(&socket, &text).unwrap_or_else(|error| panic!("{bytes} bytes to {address}: {error}"));
    assert_eq!(answer.split_once(' '), Some(("server", text.as_str())), "{bytes} bytes to {address}");
}

#[test]
fn datagrams_of_any_size_are_echoed_by_one_worker_and_by_two() {
    for workers in ["workers: 1", "workers: 2"] {
        let text = config::network_and(ECHO).replace("workers: 1", workers);
        let Some(world) = World::start(LinkKind::Veth, &text) else { return };
        let _service = Service::udp_echo(&world.lab.servers()[0].namespace, 7, "server");
        for address in ["192.0.2.100:7", "[2001:db8:1::100]:7"] {
            for bytes in [4_000, 1_473, 60_000, 4_000] {
                expect_echo(&world, address, bytes);
            }
        }
    }
}

#[test]
fn large_pings_to_our_addresses_are_answered() {
    for workers in ["workers: 1", "workers: 2"] {
        let text = config::network_and(ECHO).replace("workers: 1", workers);
        let Some(world) = World::start(LinkKind::Veth, &text) else { return };
        for address in ["192.0.2.10", "192.0.2.100", "2001:db8:1::10", "2001:db8:1::100"] {
            for bytes in ["1500", "4000", "30000", "65000"] {
                let ping = ["-n", "-c", "3", "-i", "0.1", "-W", "2", "-s", bytes, address];
                let said = run(world.lab.client().command("ping").args(ping));
                assert!(said.contains(" 3 received"), "{bytes} bytes to {address}, {workers}: {said}");
            }
        }
        let drops = world.sluice.get("/v1/drops");
        assert_eq!(number(&drops, "/total/fragment"), 0, "{drops}");
    }
}

#[test]
fn a_port_follows_its_mtu_while_sluice_runs() {
    let Some(world) = World::start(LinkKind::Veth, &config::network_and(ECHO)) else { return };
    let _service = Service::udp_echo(&world.lab.servers()[0].namespace, 7, "server");
    expect_echo(&world, "192.0.2.100:7", 1_270);
    for (told, mtu) in [(1, 1_300), (1, 1_500)] {
        world.lab.sluice().ip(&[format!("link set net1 mtu {mtu}")]).expect("another MTU");
        wait::until("the new MTU", Duration::from_secs(10), || {
            (number(&world.sluice.object("ports", "external"), "/mtu") == mtu).then_some(())
        });
        // Every worker of the port has noticed; the answer is just too large for the way back while that is small.
        expect_echo(&world, "192.0.2.100:7", 1_271);
        let drops = world.sluice.get("/v1/drops");
        assert_eq!(number(&drops, "/total/too-big"), told, "MTU {mtu}: {drops}");
    }
}

#[test]
fn a_smaller_mtu_behind_sluice_is_told_to_the_server() {
    let Some(lab) = lab(LinkKind::Veth) else { return };
    run(lab.sluice().command("ip").args(["link", "set", "net1", "mtu", "1300"]));
    let sluice = Sluice::start(lab.sluice(), lab.directory(), &config::network_and(ECHO));
    let world = World { sluice, lab };
    let _service = Service::udp_echo(&world.lab.servers()[0].namespace, 7, "server");
    // With the server's name in front the answer is just too large for the way back, the question is not.
    for (told, (address, bytes)) in
        [("192.0.2.100:7", 1_270), ("[2001:db8:1::100]:7", 1_250)].into_iter().enumerate()
    {
        expect_echo(&world, address, bytes);
        let drops = world.sluice.get("/v1/drops");
        assert_eq!(number(&drops, "/total/too-big"), told as u64 + 1, "{address}: told once, {drops}");
    }
}
