//! Virtual servers.

use serde::{Deserialize, Serialize};

use super::OneOrMany;
use super::filters::Filter;
use super::http::{Http, HttpRoute};
use super::network::{Destination, Network};
use super::persistence::Persistence;
use super::proxy::{ConnectionReuse, ProxyProtocol, Tcp};
use super::translation::{SnatChoice, SourcePortChoice};
use super::units::{Limit, Name, Number, Span};

/// A virtual server.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VirtualServer {
    /// What it listens on.
    pub destination: OneOrMany<Destination>,
    /// Which upper-layer protocols it takes.
    #[serde(default)]
    pub protocol: Protocol,
    /// What it does with a connection.
    #[serde(default, rename = "type")]
    pub kind: VirtualType,
    /// Which clients it serves; any when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<OneOrMany<Network>>,
    /// Ports its clients come in by; every port when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<Name>>,
    /// VLANs its clients come in by (0 for untagged); every VLAN when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<OneOrMany<Number<0, 4094>>>,
    /// VLANs its clients do not come in by (0 for untagged).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reject_vlan: Option<OneOrMany<Number<0, 4094>>>,
    /// Where connections go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Name>,
    /// How the client's address is hidden from members.
    #[serde(default)]
    pub snat: SnatChoice,
    /// What becomes of the client's port under SNAT.
    #[serde(default)]
    pub source_port: SourcePortChoice,
    /// Which connections go to the same member.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "Persistence::short_or_whole"
    )]
    #[schemars(schema_with = "Persistence::schema")]
    pub persistence: Option<Persistence>,
    /// Connections at once, 0 for no limit.
    #[serde(default = "unlimited")]
    pub connection_limit: Limit,
    /// New connections a second, 0 for no limit.
    #[serde(default = "unlimited")]
    pub rate_limit: Limit,
    /// The largest TCP segment that either side may announce to the other, in bytes; as they like when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mss_clamp: Option<Number<88, 65_495>>,
    /// A flow without a packet for this long ends; 300s for TCP and 60s for UDP when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Span>,
    /// A TCP flow whose handshake takes longer than this ends.
    #[serde(default = "five_seconds")]
    pub handshake_timeout: Span,
    /// How long a closed TCP flow is remembered.
    #[serde(default = "five_seconds")]
    pub close_timeout: Span,
    /// Send RST to both sides when an idle TCP flow ends.
    #[serde(default = "yes")]
    pub reset_on_timeout: bool,
    /// Replies go to the link address that the client's packet came from.
    #[serde(default = "yes")]
    pub auto_last_hop: bool,
    /// A disabled virtual server still captures its traffic, and refuses it, unless `system.continue_matching`.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// TCP of a full proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Box<Tcp>>,
    /// The member is connected before the client's handshake is answered.
    #[serde(default)]
    pub verified_accept: bool,
    /// Connections and requests are written to the access log.
    #[serde(default)]
    pub access_log: bool,
    /// HTTP is spoken; without it, a full proxy passes bytes on as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Box<Http>>,
    /// What is done to every request and its response.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Which requests go where; others go to `pool`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<HttpRoute>,
    /// PROXY headers on connections of clients and to members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<Box<ProxyProtocol>>,
    /// Connections to members are kept for the next request; on with `http` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_reuse: Option<Box<ConnectionReuse>>,
}

impl VirtualServer {
    /// Every pool that it names.
    pub fn pools(&self) -> impl Iterator<Item = &Name> {
        let filters = self.filters.iter().chain(self.routes.iter().flat_map(|route| &route.filters));
        self.pools_asked().chain(filters.filter_map(Filter::pool))
    }

    /// Every pool that connections and requests may go to.
    pub fn pools_asked(&self) -> impl Iterator<Item = &Name> {
        let of_routes = self.routes.iter().flat_map(|route| {
            let weighted = route.pools.iter().flatten().map(|weighted| &weighted.pool);
            route.pool.iter().chain(weighted)
        });
        self.pool.iter().chain(of_routes)
    }
}

/// Which upper-layer protocols a virtual server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// Both.
    Any,
}

/// What a virtual server does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VirtualType {
    /// Connections end here, and others are opened to pool members.
    Standard,
    /// Packets are rewritten and forwarded to a pool member.
    #[default]
    #[serde(rename = "performance-l4")]
    PerformanceL4,
    /// Packets are routed, with flow state, to where they were going.
    ForwardingIp,
    /// Every packet is refused.
    Reject,
    /// Every UDP datagram is balanced by itself and sent on without a flow; replies do not come back this way.
    Stateless,
}

fn five_seconds() -> Span {
    Span::from_ms(5_000)
}

fn yes() -> bool {
    true
}

fn unlimited() -> Limit {
    Number::new(0)
}
