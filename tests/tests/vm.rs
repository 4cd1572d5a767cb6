//! What takes a virtual machine: NICs that spread what they receive over their queues by hash (RSS), with sluice on
//! them, and a client whose kernel knows VLANs.
//!
//! ```text
//!   client ── net1 ─ br1 ─ tap1 ─ NIC 0 ┐ sluice: one  ┌ NIC 1 ─ tap2 ─ br2 ─ net2 ── servers
//!    the lab's namespaces, here         └ queue a worker┘              here, too
//! ```

use serde_json::Value;
use sluice_tests::peer::{self, Service, ask, udp};
use sluice_tests::show::number;
use sluice_tests::vm::{Nic, Vm, VmOptions, dpdk_drivers, nic_address};
use sluice_tests::{
    Lab, LinkKind, Namespace, World, config, curl, has_dpdk, lab, run, skip, sluice_command, wait,
};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

const REST: &str = r#"
pools:
  web: {members: [{address: 10.1.0.11, port: 8080}, {address: 10.1.0.12, port: 8080}]}
  web6: {members: [{address: "2001:db8:2::11", port: 8080}, {address: "2001:db8:2::12", port: 8080}]}
  echo: {members: [{address: 10.1.0.11, port: 7}, {address: 10.1.0.12, port: 7}]}
  echo6: {members: [{address: "2001:db8:2::11", port: 7}, {address: "2001:db8:2::12", port: 7}]}
virtual_servers:
  web: {destination: "192.0.2.100:80", protocol: tcp, type: performance-l4, pool: web, snat: automap}
  web6: {destination: "[2001:db8:1::100]:80", protocol: tcp, type: performance-l4, pool: web6, snat: automap}
  echo: {destination: "192.0.2.100:7", protocol: udp, type: performance-l4, pool: echo, snat: automap}
  echo6: {destination: "[2001:db8:1::100]:7", protocol: udp, type: performance-l4, pool: echo6, snat: automap}
  proxy: {destination: "192.0.2.100:8000", protocol: tcp, type: standard, pool: web, snat: automap, http: {first_byte_timeout: 60s}}
  proxy6: {destination: "[2001:db8:1::100]:8000", protocol: tcp, type: standard, pool: web6, snat: automap, http: {first_byte_timeout: 60s}}
  shown: {destination: "192.0.2.100:81", protocol: tcp, type: performance-l4, pool: web, snat: none}
"#;

#[test]
fn a_nic_that_hashes_brings_each_packet_to_the_worker_of_its_flow() {
    let Some(mut machine) = Machine::start() else { return };
    for workers in [2, WORKERS_MAX] {
        machine.start_sluice(workers);
        everything_is_answered(&machine.lab);
        machine.every_worker_has_its_share(workers);
        machine.nothing_came_astray();
        machine.the_rest_is_handed_over();
        machine.stop_sluice();
    }
}

#[test]
fn clients_are_told_apart_by_their_vlan() {
    let Some(world) = World::start(LinkKind::Veth, &tagged("")) else { return };
    let Some(mut tagged_host) = TaggedHost::start(&world.lab) else { return };
    let refused = Some(ErrorKind::ConnectionRefused);
    for (options, from_untagged, from_tagged) in [
        ("", None, None),
        (", vlan: 0", None, refused),
        (", vlan: 10", refused, None),
        (", vlan: [0, 10]", None, None),
        (", reject_vlan: 10", None, refused),
    ] {
        world.sluice.apply(&tagged(options));
        let served = peer::connect(world.lab.client(), "192.0.2.100:80");
        assert_eq!(served.err().map(|error| error.kind()), from_untagged, "untagged, {options}");
        assert_eq!(tagged_host.connect().err(), from_tagged, "tagged, {options}");
    }
}

/// A machine on the external network whose only address is in VLAN 10.
struct TaggedHost {
    // In this order: qemu ends before its namespace goes.
    vm: Vm,
    _namespace: Namespace,
}

impl TaggedHost {
    fn start(lab: &Lab) -> Option<Self> {
        let namespace = Namespace::add(&format!("{}-tagged", lab.client().name())).expect("a namespace");
        lab.external().attach(&namespace, "eth0").expect("a link");
        namespace.ip(&["link set eth0 up"]).expect("a link");
        let mut vm = Vm::start(&VmOptions {
            cpus: 1,
            memory_mib: 256,
            modules: &["virtio_pci", "virtio_net", "8021q"],
            nics: &[Nic { tap: "tap1", queues: 1 }],
            namespace: Some(&namespace),
            ..VmOptions::new(lab.directory())
        })?;
        bridge(&namespace, "br1", "tap1", "eth0");
        vm.must("ip link set eth0 up && vconfig add eth0 10");
        vm.must("ip addr add 198.51.100.1/24 dev eth0.10 && ip link set eth0.10 up");
        vm.must("ip route add default via 198.51.100.10");
        Some(Self { vm, _namespace: namespace })
    }

    /// Tries a connection to the virtual server.
    fn connect(&mut self) -> Result<(), ErrorKind> {
        let ran = self.vm.run("nc -w 10 192.0.2.100 80");
        match ran.code {
            0 => Ok(()),
            _ if ran.output.contains("refused") => Err(ErrorKind::ConnectionRefused),
            _ => panic!("{ran:?}"),
        }
    }
}

/// A network of VLAN 10 beside the untagged one.
fn tagged(options: &str) -> String {
    let text = config::web_with(&format!("snat: automap{options}"));
    text.replace("self_ips:\n", "self_ips:\n  tag: {address: 198.51.100.10/24, port: external, vlan: 10}\n")
}

/// Requests of both families and protocols, forwarded and through a full proxy.
fn everything_is_answered(lab: &Lab) {
    for host in HOSTS {
        for port in [80, 8000] {
            let url = format!("http://{host}:{port}/?[1-{REQUESTS}]");
            let text = run(curl(lab.client()).args(["--header", "Connection: close", &url]));
            let answers = text.lines().filter(|line| line.starts_with("server")).count();
            assert_eq!(answers, REQUESTS, "{url}: {text}");
        }
        for client in 0..DATAGRAMS {
            let text = format!("client {client}");
            let answer = ask(&udp(lab.client(), &format!("{host}:7")), &text);
            assert!(answer.as_ref().is_ok_and(|answer| answer.ends_with(&text)), "{host}: {answer:?}");
        }
    }
    for port in [80, 8000] {
        let bytes = 2 << 20;
        let pipe = format!(
            "set -o pipefail; head -c {bytes} /dev/zero | sha256sum; curl -sSf --max-time 60 -r 0-{} http://192.0.2.100:{port}/large | sha256sum",
            bytes - 1
        );
        let sums = run(lab.client().command("bash").args(["-c", &pipe]));
        assert_eq!(sums.lines().next(), sums.lines().nth(1), "port {port}");
    }
}

/// A lab whose middle is a machine of its own.
struct Machine {
    // In this order: qemu ends before its namespace goes.
    vm: Vm,
    _services: [Service; 2],
    lab: Lab,
}

impl Machine {
    fn start() -> Option<Self> {
        if !has_dpdk() {
            skip("this sluice was built without DPDK");
            return None;
        }
        let lab = lab(LinkKind::Veth)?;
        let sluice = PathBuf::from(sluice_command().get_program()).canonicalize().expect("sluice");
        let mut programs = dpdk_drivers(&["bus_pci", "bus_vdev", "mempool_ring", "net_virtio"]);
        programs.push(sluice.clone());
        let nics = ["tap1", "tap2"].map(|tap| Nic { tap, queues: WORKERS_MAX });
        let mut vm = Vm::start(&VmOptions {
            cpus: WORKERS_MAX,
            memory_mib: 1536,
            hugepages: 384,
            modules: &["uio_pci_generic"],
            programs,
            files: [2, WORKERS_MAX].map(|workers| (file_of(workers), config_for(workers).into())).into(),
            nics: &nics,
            namespace: Some(lab.sluice()),
            ..VmOptions::new(lab.directory())
        })?;
        bridge(lab.sluice(), "br1", "tap1", "net1");
        bridge(lab.sluice(), "br2", "tap2", "net2");
        (0..nics.len()).for_each(|place| vm.hand_to_dpdk(place));
        vm.must(&format!("ln -s {} /bin/sluice", sluice.display()));
        let servers = lab.servers();
        let services =
            [0, 1].map(|at| Service::udp_echo(&servers[at].namespace, 7, &format!("server{}", at + 1)));
        Some(Self { vm, _services: services, lab })
    }

    fn start_sluice(&mut self, workers: usize) {
        let file = file_of(workers);
        self.vm.must("rm -f /run/ended");
        self.vm.must(&format!("(sluice run -c {file} --socket {SOCKET} >{LOG} 2>&1; echo $? >/run/ended) &"));
        wait::until("sluice is ready", PATIENCE, || {
            assert_ne!(self.vm.run("test -e /run/ended").code, 0, "{}", self.vm.must(&format!("cat {LOG}")));
            (self.vm.run(&format!("grep '^sluice: ready' {LOG}")).code == 0).then_some(())
        });
    }

    fn stop_sluice(&mut self) {
        self.vm.must("killall -INT sluice");
        wait::until("sluice ends", PATIENCE, || (self.vm.run("test -e /run/ended").code == 0).then_some(()));
        assert_eq!(self.vm.must("cat /run/ended").trim(), "0", "{}", self.vm.must(&format!("cat {LOG}")));
    }

    /// What `sluice show THING` says.
    fn show(&mut self, thing: &str) -> Value {
        let text = self.vm.must(&format!("sluice show {thing} -o json --socket {SOCKET}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// Connections that are held open, forwarded and proxied, are spread.
    fn every_worker_has_its_share(&mut self, workers: usize) {
        let open = |host: &str, port| peer::connect(self.lab.client(), &format!("{host}:{port}"));
        let open = |host| [80, 8000].map(|port| open(host, port).expect("a connection"));
        let mut streams: Vec<_> =
            HOSTS.into_iter().flat_map(|host| (0..HELD).flat_map(move |_| open(host))).collect();
        let shown = self.show("workers");
        let list = shown.as_array().expect("a list");
        assert_eq!(list.len(), workers);
        for worker in list {
            // A quarter of what an even spread of both families would give.
            let least = (HELD / workers / 2) as u64;
            assert!(number(worker, "/proxies") >= least && number(worker, "/flows") >= least, "{shown}");
        }
        for stream in &mut streams {
            let answer = fetch_with_host(stream).expect("an answer");
            assert!(answer.starts_with("server"), "{:?}: {answer}", stream.peer_addr());
        }
    }

    /// The NICs place by our hash, packets have shown it, and none of a translated flow came to another worker.
    fn nothing_came_astray(&mut self) {
        let ports = self.show("ports");
        for port in ports.as_array().expect("a list") {
            let reason = port["steering_reason"].as_str().expect("a reason");
            assert_eq!(port["steering"], "rss", "{port}");
            assert!(reason.starts_with("the device took our hash key and table; "), "{reason}");
            let words: Vec<&str> = reason.split_whitespace().collect();
            let looked = words.windows(2).find(|pair| pair[1] == "of").map(|pair| pair[0]);
            assert!(
                looked.and_then(|number| number.parse().ok()).is_some_and(|looked: u64| looked > 100),
                "{reason}"
            );
            assert!(reason.ends_with("packets came as they should"), "{reason}");
        }
        let workers = self.show("workers");
        assert_eq!((sum(&workers, "/misdirected"), sum(&workers, "/handed_over")), (0, 0), "{workers}");
    }

    /// Fragments, and connections whose client is not hidden, belong to workers that no NIC can know.
    fn the_rest_is_handed_over(&mut self) {
        let text = "f".repeat(4_000);
        for host in HOSTS {
            for _ in 0..DATAGRAMS {
                let answer = ask(&udp(self.lab.client(), &format!("{host}:7")), &text).expect("an answer");
                assert!(answer.ends_with(&text));
            }
        }
        let url = format!("http://192.0.2.100:81/?[1-{REQUESTS}]");
        let text = run(curl(self.lab.client()).args(["--header", "Connection: close", &url]));
        assert_eq!(text.lines().filter(|line| line.starts_with("server")).count(), REQUESTS);
        let workers = self.show("workers");
        assert_eq!(sum(&workers, "/misdirected"), 0, "{workers}");
        assert!(sum(&workers, "/handed_over") > 0, "{workers}");
    }
}

/// Asks for `/` and gives the answer's last line.
fn fetch_with_host(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: www.example\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.lines().last().unwrap_or_default().to_owned())
}

/// Joins a tap and a link.
fn bridge(namespace: &Namespace, bridge: &str, tap: &str, link: &str) {
    let lines = [
        format!("link add {bridge} type bridge mcast_snooping 0"),
        format!("link set {link} master {bridge}"),
        format!("link set {tap} master {bridge}"),
        format!("link set {bridge} up"),
    ];
    namespace.ip(&lines).expect("a bridge");
}

fn file_of(workers: usize) -> String {
    format!("/etc/{workers}.yaml")
}

fn config_for(workers: usize) -> String {
    let mut text = config::network_and(REST).replace("workers: 1", &format!("workers: {workers}"));
    for (place, interface) in ["net1", "net2"].into_iter().enumerate() {
        let kernel = format!("{{driver: af_packet, interface: {interface}}}");
        let device = format!("{{driver: dpdk, device: \"{}\"}}", nic_address(place));
        text = text.replace(&kernel, &device);
    }
    text
}

fn sum(workers: &Value, at: &str) -> u64 {
    workers.as_array().expect("a list").iter().map(|worker| number(worker, at)).sum()
}

/// The most workers, and so processors and queues, of the machine.
const WORKERS_MAX: usize = 4;
/// Virtual addresses of both families.
const HOSTS: [&str; 2] = ["192.0.2.100", "[2001:db8:1::100]"];
/// Connections, one after the other, to each.
const REQUESTS: usize = 40;
/// UDP clients of each.
const DATAGRAMS: usize = 10;
/// Connections at the same time to each.
const HELD: usize = 40;
const SOCKET: &str = "/run/sluice.sock";
const LOG: &str = "/run/sluice.log";
/// How long sluice may take to start or end in an emulated machine.
const PATIENCE: Duration = Duration::from_secs(60);
