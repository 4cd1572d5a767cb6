//! [`Snapshot`]: the whole configuration as workers read it. Immutable; a new one replaces it whole.
//!
//! The control thread fills [`Parts`] with plain values and calls [`Snapshot::build`], which makes the look-up
//! structures. Flows keep ids and the generation, never references, so a swap cuts nothing.

use std::sync::Arc;

use super::ids::{LinkId, MemberId, PoolId, PortId, VirtualId};
use crate::address::{Address, Prefix};

/// What a configuration says, in plain values. `compile` in the control crate makes it.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// Increases with every published snapshot; the first is 1.
    pub generation: u64,
    /// Names of the ports, by [`PortId`].
    pub ports: Vec<String>,
    /// Our own addresses.
    pub self_ips: Vec<SelfIp>,
    /// Static routes; connected routes come from the self IPs by themselves.
    pub routes: Vec<Route>,
    /// Virtual servers, in any order.
    pub virtuals: Vec<Virtual>,
    /// Pools, in any order.
    pub pools: Vec<Pool>,
    /// SNAT pools; [`Snat::Pool`] holds an index into this list.
    pub snat_pools: Vec<SnatPool>,
    /// Global behaviour.
    pub settings: Settings,
}

/// Global behaviour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Answer unmatched packets with RST or ICMP unreachable.
    pub reject_unmatched: bool,
    /// RST and unreachable packets a second at most, over the process.
    pub max_reject_rate: u32,
    /// Other ICMP errors a second at most, over the process.
    pub max_icmp_rate: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { reject_unmatched: true, max_reject_rate: 250, max_icmp_rate: 100 }
    }
}

/// One of our own addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfIp {
    /// The operator's name.
    pub name: String,
    /// The address itself.
    pub address: Address,
    /// Its subnet, which is a connected route.
    pub subnet: Prefix,
    /// Where it lives.
    pub link: LinkId,
}

/// A static route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: Prefix,
    /// The next hop.
    pub gateway: Address,
    /// The link the gateway is on.
    pub link: LinkId,
}

/// A virtual server.
#[derive(Debug, Clone, PartialEq)]
pub struct Virtual {
    /// Stable over applies.
    pub id: VirtualId,
    /// The operator's name.
    pub name: Arc<str>,
    /// What it does with a connection.
    pub kind: VirtualKind,
    /// A disabled virtual server still captures its traffic, and refuses it.
    pub enabled: bool,
    /// What it matches; several when lists of destinations, sources or ports were given.
    pub matches: Vec<Match>,
    /// Where its clients come in.
    pub ingress: Ingress,
    /// Where connections go; `None` for forwarding and reject.
    pub pool: Option<PoolId>,
    /// How the client's address is hidden from members.
    pub snat: Snat,
    /// What becomes of the client's port under SNAT.
    pub source_port: SourcePort,
    /// Connections at once, 0 for no limit.
    pub connection_limit: u32,
    /// When connections end by themselves.
    pub timeouts: Timeouts,
    /// Replies go to the link address that the client's packet came from.
    pub auto_last_hop: bool,
}

/// What a virtual server does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VirtualKind {
    /// Packets are rewritten and forwarded to a pool member.
    PerformanceL4,
    /// Packets are routed, with flow state, to where they were going.
    ForwardingIp,
    /// Every packet is refused.
    Reject,
}

/// One row a virtual server matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Match {
    /// Where the packet goes to.
    pub destination: Prefix,
    /// Where it comes from.
    pub source: Prefix,
    /// The destination port; 0 for any.
    pub port: u16,
    /// The upper-layer protocol.
    pub protocol: Protocol,
}

/// Which upper-layer protocols a virtual server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP (6).
    Tcp,
    /// UDP (17).
    Udp,
    /// Both.
    Any,
}

/// The links a virtual server listens on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Ingress {
    /// Every link of every port.
    #[default]
    Any,
    /// These ports, whatever the VLAN.
    Ports(Vec<PortId>),
    /// These links only.
    Links(Vec<LinkId>),
}

impl Ingress {
    /// True when a packet from `link` may match.
    #[inline]
    pub fn contains(&self, link: LinkId) -> bool {
        match self {
            Ingress::Any => true,
            Ingress::Ports(ports) => ports.contains(&link.port()),
            Ingress::Links(links) => links.contains(&link),
        }
    }
}

/// Source address translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Snat {
    /// Members see the client's address.
    #[default]
    None,
    /// A self IP of the link that leads to the member.
    Automap,
    /// An address of this SNAT pool, by index.
    Pool(usize),
}

/// What becomes of the client's port under SNAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourcePort {
    /// Kept where it is free.
    #[default]
    Preserve,
    /// Always another one.
    Change,
}

/// When a flow ends by itself, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP, until the handshake is complete.
    pub handshake_ms: u32,
    /// TCP, after both sides have closed or one has reset.
    pub close_ms: u32,
    /// Without a packet: TCP and UDP.
    pub idle_ms: u32,
    /// Send RST to both sides when an idle TCP flow ends.
    pub reset_on_timeout: bool,
}

impl Timeouts {
    /// The defaults for TCP: handshake 5 s, close 5 s, idle 300 s.
    pub const TCP: Timeouts =
        Timeouts { handshake_ms: 5_000, close_ms: 5_000, idle_ms: 300_000, reset_on_timeout: true };
    /// The defaults for UDP: idle 60 s.
    pub const UDP: Timeouts =
        Timeouts { handshake_ms: 5_000, close_ms: 5_000, idle_ms: 60_000, reset_on_timeout: true };
}

/// A pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Stable over applies.
    pub id: PoolId,
    /// The operator's name.
    pub name: Arc<str>,
    /// How a member is chosen.
    pub method: Method,
    /// In the operator's order.
    pub members: Vec<Member>,
}

/// Load-balancing methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// The next one in turn.
    #[default]
    RoundRobin,
    /// In turn, in proportion to `ratio`.
    RatioMember,
    /// The one with the fewest connections.
    LeastConnectionsMember,
}

/// A pool member.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Stable over applies; also indexes [`MemberStates`].
    pub id: MemberId,
    /// Its address.
    pub address: Address,
    /// Its port; 0 keeps the port that the client asked for.
    pub port: u16,
    /// Weight, at least 1.
    pub ratio: u16,
    /// Connections at once, 0 for no limit.
    pub connection_limit: u32,
}

/// A SNAT pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnatPool {
    /// The operator's name.
    pub name: String,
    /// Of either family.
    pub addresses: Vec<Address>,
}

pub use crate::pool::{MemberState, MemberStates};

/// The configuration as workers read it.
#[derive(Debug)]
pub struct Snapshot {
    parts: Parts,
}

impl Snapshot {
    /// Makes the look-up structures. Pure; time in proportion to the number of objects.
    pub fn build(parts: Parts) -> Self {
        Self { parts }
    }

    /// The generation.
    pub fn generation(&self) -> u64 {
        self.parts.generation
    }

    /// What it was built from.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }
}
