//! Labs whose sluice has DPDK's ports: `net_af_packet` on the lab's veth links, or `net_tap` on taps that are bridged to
//! them.

use crate::{Lab, LinkKind, Namespace, Sluice, World, has_dpdk, lab, skip, try_run};

/// EAL without hugepages, for machines that have none.
const EAL: &str = r#"idle: poll, dpdk: {eal_args: ["--no-huge", "--no-shconf", "--no-telemetry", "--no-pci", "-m", "256"]}}"#;

/// A device of DPDK's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// A packet socket on the lab's link.
    AfPacket,
    /// A tap that is bridged to the lab's link.
    Tap,
}

impl Device {
    /// Both.
    pub const ALL: [Self; 2] = [Self::AfPacket, Self::Tap];

    /// `config`, made for one worker on the lab's links, with `workers` on these devices, of as many queues.
    pub fn configured(self, config: &str, workers: usize) -> String {
        let queues = if workers == 1 { String::new() } else { format!(",qpairs={workers}") };
        let device = |number: usize| match self {
            Self::AfPacket => format!("net_af_packet{},iface=net{number}{queues}", number - 1),
            Self::Tap => format!("net_tap{},iface=tap{number}", number - 1),
        };
        let mut text = config.replace("{workers: 1}", &format!("{{workers: {workers}, {EAL}"));
        for number in [1, 2] {
            let own = format!("{{driver: af_packet, interface: net{number}}}");
            text = text.replace(&own, &format!("{{driver: dpdk, device: \"{}\"}}", device(number)));
        }
        text
    }

    /// A world with `workers` on these devices and the rest as `config` says; `None`, said loudly, when not root or when
    /// sluice was built without DPDK.
    ///
    /// # Panics
    /// When something does not come up.
    pub fn start(self, config: &str, workers: usize) -> Option<World> {
        if !has_dpdk() {
            skip("this sluice was built without DPDK");
            return None;
        }
        let lab = lab_without_offloads()?;
        if self == Self::Tap {
            bridge_links(&lab);
        }
        let sluice = Sluice::start(lab.sluice(), lab.directory(), &self.configured(config, workers));
        if self == Self::Tap {
            join_taps(&lab);
        }
        Some(World { sluice, lab })
    }
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

fn without_offloads(namespace: &Namespace, interface: &str) {
    let mut ethtool = namespace.command("ethtool");
    let output =
        try_run(ethtool.args(["-K", interface, "tx", "off", "gso", "off", "tso", "off", "gro", "off"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
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
