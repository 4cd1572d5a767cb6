//! What a configuration says, in plain values: the control thread makes them, [`Snapshot::build`] what workers read.
//!
//! [`Snapshot::build`]: super::snapshot::Snapshot::build

use std::sync::Arc;

use super::ids::{LinkId, MemberId, NodeId, PoolId, PortId, VirtualId};
use super::proxy::ProxyProfile;
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
    /// Nodes: the hosts that members run on, in any order.
    pub nodes: Vec<Node>,
    /// SNAT pools; [`Snat::Pool`] holds an index into this list.
    pub snat_pools: Vec<SnatPool>,
    /// SNAT lists; [`Snat::List`] holds an index into this list.
    pub snat_lists: Vec<SnatList>,
    /// Bidirectional one-to-one translations.
    pub nats: Vec<Nat>,
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
    /// A disabled virtual server lets its traffic fall to a less specific one instead of refusing it.
    pub continue_matching: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { reject_unmatched: true, max_reject_rate: 250, max_icmp_rate: 100, continue_matching: false }
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
    /// New connections a second, 0 for no limit.
    pub rate_limit: u32,
    /// Which connections go to the same member.
    pub persistence: Option<Persistence>,
    /// The largest TCP segment that either side may announce to the other, bytes.
    pub mss_clamp: Option<u16>,
    /// When connections end by themselves.
    pub timeouts: Timeouts,
    /// Replies go to the link address that the client's packet came from.
    pub auto_last_hop: bool,
    /// How connections are proxied; for [`VirtualKind::Standard`], and only there.
    pub proxy: Option<Arc<ProxyProfile>>,
}

impl Default for Virtual {
    fn default() -> Self {
        Self {
            id: VirtualId::NONE,
            name: "".into(),
            kind: VirtualKind::PerformanceL4,
            enabled: true,
            matches: Vec::new(),
            ingress: Ingress::Any,
            pool: None,
            snat: Snat::None,
            source_port: SourcePort::Preserve,
            connection_limit: 0,
            rate_limit: 0,
            persistence: None,
            mss_clamp: None,
            timeouts: Timeouts::TCP,
            auto_last_hop: true,
            proxy: None,
        }
    }
}

impl Virtual {
    /// True when a destination of it is `address` itself, not a network that holds it.
    pub fn names(&self, address: Address) -> bool {
        self.matches.iter().any(|row| row.destination == Prefix::host(address))
    }
}

/// What a virtual server does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VirtualKind {
    /// Connections end here, and others are opened to pool members.
    Standard,
    /// Packets are rewritten and forwarded to a pool member.
    PerformanceL4,
    /// Packets are routed, with flow state, to where they were going.
    ForwardingIp,
    /// Every packet is refused.
    Reject,
    /// Every UDP datagram is balanced by itself and sent on without a flow; replies do not come back this way.
    Stateless,
}

/// Which connections go to the same member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Persistence {
    /// What makes two connections belong together.
    pub kind: PersistenceKind,
    /// How long that is remembered after the last new connection, in milliseconds.
    pub timeout_ms: u32,
    /// Leading bits of an IPv4 address that count, 32 for the whole.
    pub mask_v4: u8,
    /// Leading bits of an IPv6 address that count, 128 for the whole.
    pub mask_v6: u8,
    /// Records of virtual servers with the same address serve this one too, whatever the port.
    pub match_across_services: bool,
    /// Records of every virtual server serve this one too, as far as they lead to a member of its pool.
    pub match_across_virtuals: bool,
    /// Records of other pools serve this one too: the member of its pool at the same address.
    pub match_across_pools: bool,
    /// A persisted connection is taken even where the member is at its connection limit.
    pub override_connection_limit: bool,
}

impl Persistence {
    /// `kind` with tmsh's defaults: 180 s, whole addresses, nothing matched across.
    pub const fn new(kind: PersistenceKind) -> Self {
        Self {
            kind,
            timeout_ms: 180_000,
            mask_v4: 32,
            mask_v6: 128,
            match_across_services: false,
            match_across_virtuals: false,
            match_across_pools: false,
            override_connection_limit: false,
        }
    }
}

/// What makes two connections belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PersistenceKind {
    /// The client's address.
    SourceAddress,
    /// The address that the client asked for (for wildcard virtual servers).
    DestinationAddress,
    /// A hash of the client's address over the members: no record, the same member on any replica.
    Hash,
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
    /// What this SNAT list says of the client's address, by index.
    List(usize),
}

/// What becomes of the client's port under SNAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourcePort {
    /// Kept where it is free.
    #[default]
    Preserve,
    /// Kept, or the connection is refused.
    PreserveStrict,
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
    /// With fewer available members than this in the priority groups at work, the next group joins; 0 puts all
    /// members to work whatever their group.
    pub min_active_members: u16,
    /// A member that has come up reaches its full share after this long, in milliseconds; 0 for at once.
    pub slow_ramp_ms: u32,
    /// What becomes of open connections when their member goes down.
    pub service_down_action: ServiceDownAction,
    /// Other members to try when one does not take a connection.
    pub reselect_tries: u8,
    /// Where new connections wait while all members are at their limits.
    pub queue: Option<Queue>,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            id: PoolId::NONE,
            name: "".into(),
            method: Method::RoundRobin,
            members: Vec::new(),
            min_active_members: 0,
            slow_ramp_ms: 0,
            service_down_action: ServiceDownAction::None,
            reselect_tries: 0,
            queue: None,
        }
    }
}

/// What becomes of open connections when their member goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServiceDownAction {
    /// They go on.
    #[default]
    None,
    /// They are forgotten; nobody is told.
    Drop,
    /// TCP gets a RST to both sides, UDP an ICMP unreachable to the client.
    Reset,
    /// Another member gets them.
    Reselect,
}

/// Where new connections wait while all members of a pool are at their limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Connections that wait at most, 0 for as many as the process allows.
    pub depth: u32,
    /// How long one waits at most, in milliseconds; 0 for as long as its client asks.
    pub time_ms: u32,
}

/// Load-balancing methods, in tmsh's words. `…Node` counts over all members at one address, over all pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Method {
    /// The next one in turn.
    #[default]
    RoundRobin,
    /// In turn, in proportion to the member's `ratio`.
    RatioMember,
    /// In turn, in proportion to the node's `ratio`.
    RatioNode,
    /// As [`Method::RatioMember`], counting persistence records and connections that made none.
    RatioSession,
    /// The fewest connections.
    LeastConnectionsMember,
    /// The fewest connections to the node.
    LeastConnectionsNode,
    /// The fewest connections in proportion to the member's connection limit.
    WeightedLeastConnectionsMember,
    /// The fewest connections to the node in proportion to the node's connection limit.
    WeightedLeastConnectionsNode,
    /// The fewest connections in proportion to the member's `ratio`.
    RatioLeastConnectionsMember,
    /// The fewest connections to the node in proportion to the node's `ratio`.
    RatioLeastConnectionsNode,
    /// The one that answers new connections soonest, by node.
    FastestNode,
    /// The one that answers new connections soonest, by member.
    FastestAppResponse,
    /// Members with fewer connections than the average get three shares, others two; looked at each second.
    ObservedMember,
    /// As [`Method::ObservedMember`], by node.
    ObservedNode,
    /// As observed, with the trend of the last second: four shares or one.
    PredictiveMember,
    /// As [`Method::PredictiveMember`], by node.
    PredictiveNode,
    /// The fewest persistence records.
    LeastSessions,
    /// By weighted Maglev hash of the client's address and port: the same member on any replica.
    ConsistentHash,
    /// Of two taken at random, the one with fewer connections.
    RandomTwo,
}

/// A pool member.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Stable over applies; also indexes [`crate::pool::MemberStates`].
    pub id: MemberId,
    /// The node it runs on.
    pub node: NodeId,
    /// Its address.
    pub address: Address,
    /// Its port; 0 keeps the port that the client asked for.
    pub port: u16,
    /// Weight, at least 1.
    pub ratio: u16,
    /// Members with the highest number take connections first.
    pub priority_group: u16,
    /// Connections at once, 0 for no limit.
    pub connection_limit: u32,
    /// New connections a second, 0 for no limit.
    pub rate_limit: u32,
}

impl Default for Member {
    fn default() -> Self {
        Self {
            id: MemberId::NONE,
            node: NodeId::NONE,
            address: Address::UNSPECIFIED,
            port: 0,
            ratio: 1,
            priority_group: 0,
            connection_limit: 0,
            rate_limit: 0,
        }
    }
}

/// A host that members run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Stable over applies.
    pub id: NodeId,
    /// Its address.
    pub address: Address,
    /// Weight, at least 1.
    pub ratio: u16,
    /// Connections at once over all its members, 0 for no limit.
    pub connection_limit: u32,
    /// New connections a second over all its members, 0 for no limit.
    pub rate_limit: u32,
}

/// A SNAT pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnatPool {
    /// The operator's name.
    pub name: String,
    /// Of either family.
    pub addresses: Vec<Address>,
}

/// Which source translation a client gets, by its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnatList {
    /// The operator's name.
    pub name: String,
    /// The longest prefix that holds the client decides; no row, no translation. Never [`Snat::List`] itself.
    pub rows: Vec<(Prefix, Snat)>,
}

/// A bidirectional one-to-one translation of addresses; ports stay as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nat {
    /// The operator's name.
    pub name: String,
    /// The host's own address.
    pub origin: Address,
    /// What others know it by.
    pub translation: Address,
    /// Where traffic to `translation` comes in.
    pub ingress: Ingress,
}
