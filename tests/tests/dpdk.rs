//! The same requests through DPDK's ports: `net_af_packet` on the lab's veth links, and `net_tap` on bridged taps.

use sluice_tests::{LinkKind, Namespace, World, config, has_dpdk, lab, run, skip, try_run};

/// EAL without hugepages, for machines that have none.
const EAL: &str = r#"{workers: 1, idle: poll, dpdk: {eal_args: ["--no-huge", "--no-shconf", "--no-telemetry", "--no-pci", "-m", "256"]}}"#;

fn config_with(external: &str, internal: &str) -> String {
    config::web()
        .replace("{workers: 1}", EAL)
        .replace("{driver: af_packet, interface: net1}", &format!("{{driver: dpdk, device: \"{external}\"}}"))
        .replace("{driver: af_packet, interface: net2}", &format!("{{driver: dpdk, device: \"{internal}\"}}"))
}

fn built_with_dpdk() -> bool {
    let built = has_dpdk();
    if !built {
        skip("this sluice was built without DPDK");
    }
    built
}

#[test]
fn curl_reaches_both_servers_through_net_af_packet() {
    if !built_with_dpdk() {
        return;
    }
    let Some(lab) = lab(LinkKind::Veth) else { return };
    // This driver truncates frames larger than the MTU and passes on unfinished checksums: the peers must not make them.
    without_offloads(lab.client(), "eth0");
    for server in lab.servers() {
        without_offloads(&server.namespace, "eth0");
    }
    let text = config_with("net_af_packet0,iface=net1", "net_af_packet1,iface=net2");
    let sluice = sluice_tests::Sluice::start(lab.sluice(), lab.directory(), &text);
    both_servers_answer(&World { sluice, lab });
}

#[test]
fn curl_reaches_both_servers_through_net_tap() {
    if !built_with_dpdk() {
        return;
    }
    let Some(lab) = lab(LinkKind::Veth) else { return };
    // The taps that DPDK makes are bridged to the lab's links, inside sluice's namespace.
    let sluice_namespace = lab.sluice();
    for (bridge, interface) in [("br1", "net1"), ("br2", "net2")] {
        sluice_namespace
            .ip(&[
                format!("link add {bridge} type bridge mcast_snooping 0"),
                format!("link set {interface} master {bridge}"),
                format!("link set {bridge} up"),
            ])
            .expect("a bridge");
    }
    without_offloads(lab.client(), "eth0");
    for server in lab.servers() {
        without_offloads(&server.namespace, "eth0");
    }
    let text = config_with("net_tap0,iface=tap1", "net_tap1,iface=tap2");
    let sluice = sluice_tests::Sluice::start(sluice_namespace, lab.directory(), &text);
    // The kernel's end of a tap starts with the address of DPDK's, which the bridge would take for its own.
    sluice_namespace
        .ip(&[
            "link set tap1 address 02:00:00:00:00:01",
            "link set tap2 address 02:00:00:00:00:02",
            "link set tap1 master br1 up",
            "link set tap2 master br2 up",
        ])
        .expect("DPDK's taps");
    both_servers_answer(&World { sluice, lab });
}

#[test]
fn a_binary_without_dpdk_refuses_a_dpdk_port_clearly() {
    if has_dpdk() {
        return skip("this sluice was built with DPDK");
    }
    let Some(lab) = lab(LinkKind::Veth) else { return };
    let mut sluice = sluice_tests::Sluice::spawn(
        lab.sluice(),
        lab.directory(),
        &config_with("net_af_packet0,iface=net1", "net_af_packet1,iface=net2"),
    );
    let patience = std::time::Duration::from_secs(5);
    let status = sluice.signal_and_wait(rustix::process::Signal::CONT, patience);
    assert!(!status.success() && sluice.log().contains("DPDK"), "{status}: {}", sluice.log());
}

fn both_servers_answer(world: &World) {
    let fair = [("server1".to_owned(), 5), ("server2".to_owned(), 5)];
    for url in ["http://192.0.2.100/", "http://[2001:db8:1::100]/"] {
        assert_eq!(world.members_of(url, 10), fair.clone().into(), "{url}");
    }
    // 16 MiB in MTU-sized frames.
    let pipe = "set -o pipefail; head -c 16M /dev/zero | sha256sum; curl -sSf --max-time 60 -r 0-16777215 http://192.0.2.100/large | sha256sum";
    let sums = run(world.lab.client().command("bash").args(["-c", pipe]));
    let mut sums = sums.lines();
    assert_eq!(sums.next(), sums.next());
}

fn without_offloads(namespace: &Namespace, interface: &str) {
    let mut ethtool = namespace.command("ethtool");
    let output =
        try_run(ethtool.args(["-K", interface, "tx", "off", "gso", "off", "tso", "off", "gro", "off"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
