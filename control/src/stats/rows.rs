//! What the socket tells of each kind of object: one row a thing, as it is serialised.
#![allow(missing_docs, reason = "named as the output and the documents name them")]

use std::collections::BTreeMap;

use serde::Serialize;

use super::sums::{ConnectionsSum, HttpSum, TrafficSum};
use crate::model::{LoadBalancing, Protocol, StatedMember, VirtualType};

/// Drops by reason.
pub type Drops = BTreeMap<&'static str, u64>;

/// One virtual server, for `show virtual-servers`.
#[derive(Debug, Serialize)]
pub struct VirtualServerStats {
    pub name: String,
    pub destination: Vec<String>,
    pub protocol: Protocol,
    #[serde(rename = "type")]
    pub kind: VirtualType,
    pub enabled: bool,
    /// Its pool's, unless it is disabled or at its own limit.
    pub availability: Availability,
    pub pool: Option<String>,
    /// Members of the pool that take new connections; `None` without a pool.
    pub members_available: Option<usize>,
    pub connections: ConnectionsSum,
    pub clientside: TrafficSum,
    pub serverside: TrafficSum,
    pub drops: Drops,
    /// Left out where HTTP is not spoken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSum>,
}

/// One pool, for `show pools`.
#[derive(Debug, Serialize)]
pub struct PoolStats {
    pub name: String,
    /// The best of its members'.
    pub availability: Availability,
    pub load_balancing: LoadBalancing,
    pub members: usize,
    pub members_available: usize,
    pub monitors: Vec<String>,
    pub connections: ConnectionsSum,
    pub serverside: TrafficSum,
}

/// One member, for `show members`.
#[derive(Debug, Serialize)]
pub struct MemberStats {
    pub pool: String,
    /// As in the path of `PATCH /v1/pools/{pool}/members/{member}`.
    pub member: String,
    pub address: String,
    pub port: u16,
    pub availability: Availability,
    pub state: StatedMember,
    /// `config`, `runtime` (said since) or `default`.
    pub state_from: &'static str,
    pub ratio: u64,
    pub priority_group: u64,
    pub connection_limit: u64,
    pub connections: ConnectionsSum,
    pub serverside: TrafficSum,
}

/// Whether something takes connections, and who says so (tmsh `availability`). The better first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Availability {
    /// It takes new ones, and no monitor is there to say otherwise.
    Available,
    /// It takes new ones, but what its monitors find is not known.
    Unknown,
    /// It takes none for now: as many are open as may be.
    Unavailable,
    /// It takes only those that persist to it: the operator's word.
    Disabled,
    /// It takes none: the operator's word.
    Offline,
}

impl Availability {
    /// True when new connections are taken.
    pub fn takes(self) -> bool {
        matches!(self, Availability::Available | Availability::Unknown)
    }
}

/// One node: a host that members run on, for `show nodes`.
#[derive(Debug, Serialize)]
pub struct NodeStats {
    pub address: String,
    /// `None` where the configuration has no node of this address, so that it has the defaults.
    pub name: Option<String>,
    pub availability: Availability,
    pub state: StatedMember,
    pub ratio: u64,
    /// 0 for none, as is the rate.
    pub connection_limit: u64,
    pub rate_limit: u64,
    /// The members on it, over all pools.
    pub members: Vec<NodeMember>,
    pub connections: ConnectionsSum,
}

/// A member of a node.
#[derive(Debug, Serialize)]
pub struct NodeMember {
    pub pool: String,
    pub member: String,
}

/// One port, for `show ports`.
#[derive(Debug, Serialize)]
pub struct PortStats {
    pub name: String,
    pub driver: &'static str,
    pub device: String,
    pub mac: String,
    pub mtu: u16,
    pub link: &'static str,
    pub queues: usize,
    pub offloads: Vec<&'static str>,
    /// How frames are spread over workers: `single`, `rss`, `bpf` or `software`.
    pub steering: &'static str,
    /// Why that way.
    pub steering_reason: String,
    pub traffic: TrafficSum,
    pub rx_missed: u64,
    pub rx_errors: u64,
    pub rx_no_memory: u64,
    pub tx_errors: u64,
}

/// One worker, for `show workers`.
#[derive(Debug, Serialize)]
pub struct WorkerStats {
    pub worker: usize,
    pub core: Option<usize>,
    pub running: bool,
    pub generation: u64,
    pub turns: u64,
    pub busy_turns: u64,
    /// Of all turns, the part that found work, in percent.
    pub busy_percent: f64,
    pub sleeps: u64,
    pub slept_ms: u64,
    pub longest_turn_us: f64,
    /// Frames of all ports.
    pub traffic: TrafficSum,
    pub flows: u64,
    pub half_open: u64,
    /// Proxied connections now, those to members that wait for a request among them.
    pub proxies: u64,
    /// Handshakes answered by cookie.
    pub syn_cookies: u64,
    pub neighbors: u64,
    pub snat_ports: u64,
    /// Packets of translated flows that a port had brought to this worker though they are another's.
    pub misdirected: u64,
    /// Other packets given to the worker that owns their flow, which no port could have known.
    pub handed_over: u64,
    pub rejects_sent: u64,
    pub rejects_limited: u64,
    /// Requests and connections written to the access log.
    pub access_log_records: u64,
    /// Those that found no room there.
    pub access_log_dropped: u64,
    pub tables: Vec<TableStats>,
}

/// One table of a worker.
#[derive(Debug, Serialize)]
pub struct TableStats {
    pub name: &'static str,
    pub capacity: usize,
    pub bytes: usize,
    pub pages: &'static str,
}

/// For `show drops`.
#[derive(Debug, Serialize)]
pub struct DropStats {
    /// Over all workers.
    pub total: Drops,
    /// For each worker.
    pub workers: Vec<WorkerDrops>,
    /// For each virtual server, what had matched it.
    pub virtual_servers: Vec<VirtualDrops>,
}

/// One worker's drops.
#[derive(Debug, Serialize)]
pub struct WorkerDrops {
    pub worker: usize,
    pub drops: Drops,
}

/// One virtual server's drops.
#[derive(Debug, Serialize)]
pub struct VirtualDrops {
    pub virtual_server: String,
    pub drops: Drops,
}

/// For `show snat`.
#[derive(Debug, Serialize)]
pub struct SnatStats {
    /// Over all workers.
    pub ports_in_use: u64,
    /// Every address that connections have come from, with its ports.
    pub addresses: Vec<SnatAddressStats>,
    /// Every SNAT pool.
    pub pools: Vec<SnatPoolStats>,
    /// Virtual servers that use self IPs.
    pub automap: Vec<String>,
}

/// One SNAT address, over all workers.
#[derive(Debug, Default, Serialize)]
pub struct SnatAddressStats {
    pub address: String,
    /// Ports in use, over all members.
    pub in_use: u64,
    /// Ports that rest after use, over all members.
    pub resting: u64,
    /// Ports that there are towards each member and protocol.
    pub total: u64,
    /// New connections that found no port.
    pub exhausted: u64,
    /// The same for each worker that knows the address.
    pub workers: Vec<SnatWorkerStats>,
}

/// One SNAT address on one worker.
#[derive(Debug, Serialize)]
pub struct SnatWorkerStats {
    pub worker: usize,
    pub in_use: u32,
    pub resting: u32,
    /// Members, each with its port and protocol, that ports are in use or rest towards.
    pub members: u32,
    pub exhausted: u64,
}

/// One SNAT pool.
#[derive(Debug, Serialize)]
pub struct SnatPoolStats {
    pub name: String,
    pub addresses: Vec<String>,
    pub virtual_servers: Vec<String>,
}

/// One route, for `show routes`.
#[derive(Debug, Serialize)]
pub struct RouteStats {
    pub destination: String,
    pub gateway: Option<String>,
    pub port: String,
    pub vlan: Option<u16>,
    /// `connected` or `static`.
    pub origin: &'static str,
    /// The self IP of a connected route.
    pub self_ip: Option<String>,
}

/// One neighbour, for `show neighbors`.
#[derive(Debug, Serialize)]
pub struct NeighborStats {
    pub address: String,
    pub port: String,
    pub vlan: Option<u16>,
    pub mac: Option<String>,
    pub state: &'static str,
    pub age_ms: u32,
    pub worker: usize,
}

/// One flow, for `show flows`. A proxied connection may have only one of its sides.
#[derive(Debug, Serialize)]
pub struct FlowStats {
    /// `None`, as is the destination, where a connection to a member waits for its next use.
    pub client: Option<String>,
    pub destination: Option<String>,
    /// `None`, as is the member, where none is connected.
    pub source: Option<String>,
    pub member: Option<String>,
    pub protocol: &'static str,
    pub state: &'static str,
    pub virtual_server: Option<String>,
    pub idle_ms: u32,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub worker: usize,
}
