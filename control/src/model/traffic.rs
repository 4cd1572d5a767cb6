//! What is done with connections: monitors, pools, SNAT pools, virtual servers.

use std::fmt;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use sluice_dataplane::pool::MemberState;

use super::OneOrMany;
use super::network::{Destination, Ip, L4Port, Network};
use super::units::{Name, Number, Span};

/// A health monitor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Monitor {
    /// How a member is asked.
    #[serde(rename = "type")]
    pub kind: MonitorType,
    /// Time between two questions.
    #[serde(default = "five_seconds")]
    pub interval: Span,
    /// Without a good answer for this long, a member is down.
    #[serde(default = "sixteen_seconds")]
    pub timeout: Span,
    /// What is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<String>,
    /// What a good answer contains (a regular expression).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive: Option<String>,
    /// An answer that contains this means "disabled".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_disable: Option<String>,
    /// A good answer means "down".
    #[serde(default)]
    pub reverse: bool,
    /// The port to ask; the member's when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Number<1, 65_535>>,
    /// After a member answers again, how long it must go on doing so.
    #[serde(default = "no_time")]
    pub time_until_up: Span,
}

/// How a member is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MonitorType {
    /// An HTTP request.
    Http,
    /// An HTTP request over TLS.
    Https,
    /// A TCP connection, and what is sent and received over it.
    Tcp,
    /// A SYN that is answered.
    TcpHalfOpen,
    /// A datagram.
    Udp,
    /// An ICMP echo.
    Icmp,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// How a member is chosen.
    pub load_balancing: LoadBalancing,
    /// Health monitors, by name.
    pub monitors: Vec<Name>,
    /// Where connections go.
    pub members: Vec<Member>,
}

/// How a member is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LoadBalancing {
    /// The next one in turn.
    #[default]
    RoundRobin,
    /// In turn, in proportion to `ratio`. `ratio` means the same.
    #[serde(alias = "ratio")]
    RatioMember,
    /// The one with the fewest connections.
    LeastConnectionsMember,
}

/// A pool member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its address.
    pub address: Ip,
    /// Its port; 0 or `*` keeps the port that the client asked for.
    pub port: L4Port,
    /// Its weight.
    #[serde(default = "one")]
    pub ratio: Number<1, 65_535>,
    /// Members with the highest number take connections first.
    #[serde(default = "zero")]
    pub priority_group: Number<0, 65_535>,
    /// Connections at once, 0 for no limit.
    #[serde(default = "unlimited")]
    pub connection_limit: Number<0, 4_294_967_295>,
    /// Whether it takes connections. Left out: what `sluice member` said last, and `enabled` at start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StatedMember>,
}

/// Whether a member takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StatedMember {
    /// Takes new connections.
    Enabled,
    /// Takes only connections that persist to it; open ones go on.
    Disabled,
    /// Takes none; open ones go on.
    Offline,
}

impl StatedMember {
    /// As the data plane holds it.
    pub fn state(self) -> MemberState {
        match self {
            StatedMember::Enabled => MemberState::Enabled,
            StatedMember::Disabled => MemberState::Disabled,
            StatedMember::Offline => MemberState::Offline,
        }
    }

    /// The word for what the data plane holds.
    pub fn of(state: MemberState) -> Self {
        match state {
            MemberState::Enabled => StatedMember::Enabled,
            MemberState::Disabled => StatedMember::Disabled,
            MemberState::Offline => StatedMember::Offline,
        }
    }
}

/// Source addresses towards members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnatPool {
    /// Of either family.
    pub addresses: Vec<Ip>,
}

/// A virtual server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// Connections at once, 0 for no limit.
    #[serde(default = "unlimited")]
    pub connection_limit: Number<0, 4_294_967_295>,
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
    /// A disabled virtual server still captures its traffic, and refuses it.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// Which upper-layer protocols a virtual server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VirtualType {
    /// Full proxy; not in this version.
    Standard,
    /// Packets are rewritten and forwarded to a pool member.
    #[default]
    #[serde(rename = "performance-l4")]
    PerformanceL4,
    /// Packets are routed, with flow state, to where they were going.
    ForwardingIp,
    /// Every packet is refused.
    Reject,
}

/// How the client's address is hidden from members.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SnatChoice {
    /// Members see the client's address.
    #[default]
    None,
    /// A self IP of the link that leads to the member.
    Automap,
    /// An address of this SNAT pool.
    Pool(Name),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SnatByPool {
    pool: Name,
}

impl Serialize for SnatChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            SnatChoice::None => serializer.serialize_str("none"),
            SnatChoice::Automap => serializer.serialize_str("automap"),
            SnatChoice::Pool(name) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("pool", name)?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for SnatChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SnatVisitor)
    }
}

impl schemars::JsonSchema for SnatChoice {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Snat".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let name = generator.subschema_for::<Name>();
        schemars::json_schema!({ "anyOf": [
            { "enum": ["none", "automap"] },
            { "type": "object", "properties": { "pool": name }, "required": ["pool"], "additionalProperties": false },
        ]})
    }
}

struct SnatVisitor;

impl<'de> Visitor<'de> for SnatVisitor {
    type Value = SnatChoice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("none, automap or {pool: NAME}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SnatChoice, E> {
        match text {
            "none" => Ok(SnatChoice::None),
            "automap" => Ok(SnatChoice::Automap),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SnatChoice, A::Error> {
        let by_pool = SnatByPool::deserialize(de::value::MapAccessDeserializer::new(map))?;
        Ok(SnatChoice::Pool(by_pool.pool))
    }
}

/// What becomes of the client's port under SNAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SourcePortChoice {
    /// Kept where it is free.
    #[default]
    Preserve,
    /// Always another one.
    Change,
}

/// Which connections go to the same member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Persistence {
    /// What makes two connections belong together.
    #[serde(rename = "type")]
    pub kind: PersistenceType,
    /// How long that is remembered after the last connection.
    #[serde(default = "three_minutes")]
    pub timeout: Span,
}

/// What makes two connections belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PersistenceType {
    /// The client's address.
    SourceAddress,
}

fn no_time() -> Span {
    Span::from_ms(0)
}

fn five_seconds() -> Span {
    Span::from_ms(5_000)
}

fn sixteen_seconds() -> Span {
    Span::from_ms(16_000)
}

fn three_minutes() -> Span {
    Span::from_ms(180_000)
}

fn yes() -> bool {
    true
}

fn one() -> Number<1, 65_535> {
    Number::new(1)
}

fn zero() -> Number<0, 65_535> {
    Number::new(0)
}

fn unlimited() -> Number<0, 4_294_967_295> {
    Number::new(0)
}
