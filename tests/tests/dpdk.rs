//! The same requests through DPDK's ports: `net_af_packet` on the lab's veth links, and `net_tap` on bridged taps.

use sluice_tests::farm::connect_at_once;
use sluice_tests::peer;
use sluice_tests::show::number;
use sluice_tests::{
    Lab, LinkKind, Namespace, Sluice, World, config, curl, has_dpdk, lab, run, skip, try_run,
};

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
    let Some(lab) = lab_without_offloads() else { return };
    let text = config_with("net_af_packet0,iface=net1", "net_af_packet1,iface=net2");
    let sluice = Sluice::start(lab.sluice(), lab.directory(), &text);
    both_servers_answer(&World { sluice, lab });
}

/// The taps that DPDK makes are bridged to the lab's links, inside sluice's namespace.
fn bridge_links(lab: &Lab) {
    for (bridge, interface) in [("br1", "net1"), ("br2", "net2")] {
        let lines = [
            format!("link add {bridge} type bridge mcast_snooping 0"),
            format!("link set {interface} master {bridge}"),
            format!("link set {bridge} up"),
        ];
        lab.sluice().ip(&lines).expect("a bridge");
    }
}

fn join_taps(lab: &Lab) {
    // The kernel's end of a tap starts with the address of DPDK's, which the bridge would take for its own.
    let lines = [
        "link set tap1 address 02:00:00:00:00:01",
        "link set tap2 address 02:00:00:00:00:02",
        "link set tap1 master br1 up",
        "link set tap2 master br2 up",
    ];
    lab.sluice().ip(&lines).expect("DPDK's taps");
}

/// A lab whose peers make no frames larger than the MTU and no unfinished checksums: `net_af_packet` truncates the
/// former and passes on the latter.
fn lab_without_offloads() -> Option<Lab> {
    let lab = lab(LinkKind::Veth)?;
    without_offloads(lab.client(), "eth0");
    for server in lab.servers() {
        without_offloads(&server.namespace, "eth0");
    }
    Some(lab)
}

#[test]
fn two_workers_share_devices_of_two_queues_that_place_frames_as_they_like() {
    if !built_with_dpdk() {
        return;
    }
    let Some(lab) = lab_without_offloads() else { return };
    let text =
        two_workers(&config_with("net_af_packet0,iface=net1,qpairs=2", "net_af_packet1,iface=net2,qpairs=2"));
    let sluice = Sluice::start(lab.sluice(), lab.directory(), &text);
    software_brings_frames_home(&World { sluice, lab });
}

#[test]
fn two_workers_share_taps_of_two_queues() {
    if !built_with_dpdk() {
        return;
    }
    let Some(lab) = lab_without_offloads() else { return };
    bridge_links(&lab);
    let text = two_workers(&config_with("net_tap0,iface=tap1", "net_tap1,iface=tap2"));
    let sluice = Sluice::start(lab.sluice(), lab.directory(), &text);
    join_taps(&lab);
    software_brings_frames_home(&World { sluice, lab });
}

fn two_workers(text: &str) -> String {
    text.replace("{workers: 1, idle: poll", "{workers: 2, idle: poll")
}

/// Everything is answered, and `show ports` says who brings frames to their worker and why.
fn software_brings_frames_home(world: &World) {
    many_at_once(world);
    for port in world.sluice.show("ports").as_array().expect("a list") {
        let reason = port["steering_reason"].as_str().expect("a reason");
        assert_eq!((&port["steering"], &port["queues"]), (&"software".into(), &2.into()), "{port}");
        assert!(!reason.is_empty(), "{port}");
    }
    let workers = world.sluice.show("workers");
    let sum = |at| workers.as_array().into_iter().flatten().map(|worker| number(worker, at)).sum::<u64>();
    assert!(sum("/misdirected") + sum("/handed_over") > 0, "no frame arrived at the other worker: {workers}");
}

/// 60 connections at the same time that speak in turn, and then those of [`both_servers_answer`] on either family.
fn many_at_once(world: &World) {
    let mut tried = connect_at_once(world, "192.0.2.100:80", 60);
    assert_eq!(tried.open.len(), 60, "{:?}", tried.refused);
    let names = tried.open.iter_mut().map(|stream| peer::fetch(stream).expect("an answer"));
    let of_first = names.filter(|name| name == "server1").count();
    // Each worker is even to one, but for a SYN that came twice.
    assert!((26..=34).contains(&of_first), "{of_first} of 60");
    for url in ["http://192.0.2.100/?[1-50]", "http://[2001:db8:1::100]/?[1-50]"] {
        let text = run(curl(world.lab.client()).args(["--header", "Connection: close", url]));
        assert_eq!(text.lines().filter(|line| line.starts_with("server")).count(), 50, "{url}");
    }
    large_file_arrives(world);
}

#[test]
fn curl_reaches_both_servers_through_net_tap() {
    if !built_with_dpdk() {
        return;
    }
    let Some(lab) = lab_without_offloads() else { return };
    bridge_links(&lab);
    let text = config_with("net_tap0,iface=tap1", "net_tap1,iface=tap2");
    let sluice = Sluice::start(lab.sluice(), lab.directory(), &text);
    join_taps(&lab);
    both_servers_answer(&World { sluice, lab });
}

#[test]
fn a_binary_without_dpdk_refuses_a_dpdk_port_clearly() {
    if has_dpdk() {
        return skip("this sluice was built with DPDK");
    }
    let Some(lab) = lab(LinkKind::Veth) else { return };
    let mut sluice = Sluice::spawn(
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
    large_file_arrives(world);
}

/// 16 MiB in MTU-sized frames.
fn large_file_arrives(world: &World) {
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
