//! What the process is made of: workers, capacities, ports, our addresses, routes, telemetry.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use sluice_dataplane::limits::Limits;

use super::access_log::AccessLogTarget;
use super::network::{Interface, Ip, Network};
use super::units::{Name, Number, Probability, Size, Span, Text, text_type};

/// The process.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct System {
    /// Worker threads: `auto` (every allowed core but one), how many, or a list of cores.
    pub workers: Workers,
    /// Capacities of tables, for the whole process.
    pub limits: LimitsModel,
    /// What a worker does when there is nothing to do.
    pub idle: IdleMode,
    /// DPDK's own settings.
    pub dpdk: Dpdk,
    /// How long open connections may go on after SIGTERM.
    pub drain_timeout: Span,
    /// Answer packets that match no virtual server with RST or ICMP unreachable.
    pub reject_unmatched: bool,
    /// RST and ICMP unreachable packets a second at most.
    pub max_reject_rate: Number<0, 1_000_000>,
    /// Other ICMP errors a second at most.
    pub max_icmp_rate: Number<0, 1_000_000>,
    /// A disabled virtual server lets its traffic fall to a less specific one instead of refusing it.
    pub continue_matching: bool,
}

impl Default for System {
    fn default() -> Self {
        Self {
            workers: Workers::Auto,
            limits: LimitsModel::default(),
            idle: IdleMode::default(),
            dpdk: Dpdk::default(),
            drain_timeout: Span::from_ms(10_000),
            reject_unmatched: true,
            max_reject_rate: Number::new(250),
            max_icmp_rate: Number::new(100),
            continue_matching: false,
        }
    }
}

/// Worker threads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Workers {
    /// Every allowed core but one, and at least one.
    Auto,
    /// This many.
    Count(Number<1, 128>),
    /// One on each of these cores.
    Cores(Vec<Number<0, 4095>>),
}

impl Serialize for Workers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Workers::Auto => serializer.serialize_str("auto"),
            Workers::Count(count) => count.serialize(serializer),
            Workers::Cores(cores) => cores.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WorkersVisitor)
    }
}

impl schemars::JsonSchema for Workers {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Workers".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [
            { "const": "auto" },
            { "type": "integer", "minimum": 1, "maximum": 128 },
            { "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 4095 }, "minItems": 1 },
        ]})
    }
}

struct WorkersVisitor;

impl<'de> Visitor<'de> for WorkersVisitor {
    type Value = Workers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("auto, a number of workers from 1 to 128, or a list of cores such as [2, 3]")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Workers, E> {
        if text == "auto" {
            Ok(Workers::Auto)
        } else {
            Err(E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Workers, E> {
        if (1..=128).contains(&value) {
            return Ok(Workers::Count(Number::new(value)));
        }
        Err(E::invalid_value(de::Unexpected::Unsigned(value), &self))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Workers, E> {
        match u64::try_from(value) {
            Ok(value) => self.visit_u64(value),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(value), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Workers, A::Error> {
        Vec::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(Workers::Cores)
    }
}

/// Capacities, for the whole process. Memory is taken at start.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsModel {
    /// Connections at once.
    pub flows: Number<1, 1_000_000_000>,
    /// Of those, TCP connections whose handshake is not complete.
    pub half_open: Number<1, 1_000_000_000>,
    /// Full-proxy connections at once.
    pub proxies: Number<0, 100_000_000>,
    /// Bytes that one side of a full-proxy connection may have waiting.
    pub proxy_buffer: Size,
    /// Virtual servers.
    pub virtual_servers: Number<1, 1_000_000>,
    /// Pool members over all pools, removed ones that still have connections included.
    pub members: Number<1, 10_000_000>,
    /// Next hops and on-link hosts.
    pub neighbors: Number<1, 10_000_000>,
    /// Frames of our own memory, for each worker.
    pub frames: Number<64, 10_000_000>,
    /// Sets of SNAT ports, one for each pair of SNAT address and member in use.
    pub snat_port_sets: Number<1, 1_000_000>,
    /// Persistence records.
    pub persistence: Number<1, 100_000_000>,
}

impl Default for LimitsModel {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            flows: Number::new(limits.flows as u64),
            half_open: Number::new(limits.half_open as u64),
            proxies: Number::new(limits.proxies as u64),
            proxy_buffer: Size(limits.proxy_buffer as u64),
            virtual_servers: Number::new(limits.virtual_servers as u64),
            members: Number::new(limits.members as u64),
            neighbors: Number::new(limits.neighbors as u64),
            frames: Number::new(limits.frames as u64),
            snat_port_sets: Number::new(limits.snat_port_sets as u64),
            persistence: Number::new(limits.persistence as u64),
        }
    }
}

impl LimitsModel {
    /// As the data plane takes them.
    pub fn limits(&self) -> Limits {
        Limits {
            flows: self.flows.as_usize(),
            half_open: self.half_open.as_usize(),
            proxies: self.proxies.as_usize(),
            proxy_buffer: usize::try_from(self.proxy_buffer.0).unwrap_or(usize::MAX),
            virtual_servers: self.virtual_servers.as_usize(),
            members: self.members.as_usize(),
            neighbors: self.neighbors.as_usize(),
            frames: self.frames.as_usize(),
            snat_port_sets: self.snat_port_sets.as_usize(),
            persistence: self.persistence.as_usize(),
        }
    }
}

/// What a worker does when there is nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IdleMode {
    /// Sleeps.
    #[default]
    Adaptive,
    /// Never sleeps.
    Poll,
}

/// DPDK's own settings.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Dpdk {
    /// Arguments for DPDK's environment abstraction layer.
    pub eal_args: Vec<String>,
}

/// A NIC port.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// How frames come and go.
    pub driver: Driver,
    /// For `af_packet`: the Linux interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// For `dpdk`: a PCI address or a vdev string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// For tests: a link that loses, repeats, reorders and damages frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Write every frame of this port to a pcap file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcap: Option<String>,
}

/// How frames come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// A Linux interface through packet sockets.
    AfPacket,
    /// A DPDK device.
    Dpdk,
}

/// A link that misbehaves, for tests. Probabilities are per frame and direction.
#[derive(Debug, Clone, PartialEq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Fault {
    /// The same seed gives the same faults.
    pub seed: u64,
    /// Thrown away.
    pub loss: Probability,
    /// Delivered twice.
    pub duplicate: Probability,
    /// Delivered after the frame behind it.
    pub reorder: Probability,
    /// Delivered with one bit changed.
    pub corrupt: Probability,
    /// The worker panics after this many received frames, to show what becomes of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic_after: Option<u64>,
}

/// One of our own addresses.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SelfIp {
    /// The address and the length of its subnet's prefix.
    pub address: Interface,
    /// The port it is on.
    pub port: Name,
    /// The VLAN it is on; untagged when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Number<1, 4094>>,
}

/// A static route.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Where to.
    pub destination: Network,
    /// The next hop, on the subnet of a self IP.
    pub gateway: Ip,
    /// The port of a link-local gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Name>,
    /// The VLAN of a link-local gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Number<1, 4094>>,
}

/// What sluice tells about itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Prometheus metrics over TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<Prometheus>,
    /// The log, on standard error.
    pub log: Log,
    /// Where requests and connections are written down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLogTarget>,
}

/// Prometheus metrics over TCP.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prometheus {
    /// Where `/metrics` is served, through the kernel's own network stack.
    pub listen: Listen,
}

/// An address and port of the kernel's network stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Listen(pub SocketAddr);

impl Text for Listen {
    const EXPECTED: &'static str = "an address and port to listen on, such as 127.0.0.1:9464 or [::1]:9464";
}

impl FromStr for Listen {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Listen).map_err(|_| String::new())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_type!(Listen, "Listen", "^.+:[0-9]{1,5}$");

/// The log, on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The least important thing that is logged.
    pub level: LogLevel,
    /// One line of text, or one JSON object, for each event.
    pub format: LogFormat,
}

/// How important a logged event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something needs attention.
    Warn,
    /// Something changed.
    #[default]
    Info,
    /// For people who look for a fault.
    Debug,
    /// Everything.
    Trace,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// One line of text for each event.
    #[default]
    Text,
    /// One JSON object for each event.
    Json,
}
