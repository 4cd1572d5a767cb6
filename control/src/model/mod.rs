//! [`Model`]: everything a configuration file can say, as types. What it means is `compile`'s business.
//!
//! Every field but a few has a default; `docs/CONFIGURATION.md` is the page for operators.

pub mod access_log;
pub mod filters;
pub mod http;
pub mod monitors;
pub mod network;
pub mod persistence;
pub mod pools;
pub mod proxy;
pub mod shared;
pub mod system;
pub mod translation;
pub mod units;
pub mod virtual_server;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

pub use access_log::{
    AccessLogTarget, AppName, ReceiverAddress, SyslogFacility, SyslogTarget, SyslogTransport,
};
pub use filters::Filter;
pub use http::{Http, HttpRoute};
pub use monitors::{Monitor, MonitorType};
pub use network::{Destination, Interface, Ip, L4Port, Network};
pub use persistence::{CookieMethod, Mask, Persistence, PersistenceType};
pub use pools::{LoadBalancing, Member, Node, Pool, ServiceDownAction, StatedMember};
pub use proxy::{ConnectionReuse, Masks, ProxyProtocol, SendProxy, Tcp, TcpSide};
pub use system::{
    Driver, Fault, IdleMode, LimitsModel, Log, LogFormat, LogLevel, Port, Prometheus, Route, SelfIp, System,
    Telemetry, Workers,
};
pub use translation::{ListedSnat, Nat, SnatChoice, SnatPool, SnatRow, SourcePortChoice};
pub use units::{Limit, Name, Number, Probability, Size, Span};
pub use virtual_server::{Protocol, VirtualServer, VirtualType};

/// The whole configuration of a sluice process.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "sluice configuration")]
pub struct Model {
    /// The version of this format.
    pub version: Number<1, 1>,
    /// The process: workers, capacities, rates.
    #[serde(default)]
    pub system: System,
    /// NIC ports, by name.
    pub ports: BTreeMap<Name, Port>,
    /// Our own addresses, by name.
    pub self_ips: BTreeMap<Name, SelfIp>,
    /// Static routes.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Health monitors, by name.
    #[serde(default)]
    pub monitors: BTreeMap<Name, Monitor>,
    /// Nodes, by name: the hosts that members run on, where they need more than the defaults.
    #[serde(default)]
    pub nodes: BTreeMap<Name, Node>,
    /// Pools, by name.
    #[serde(default)]
    pub pools: BTreeMap<Name, Arc<Pool>>,
    /// SNAT pools, by name.
    #[serde(default)]
    pub snat_pools: BTreeMap<Name, SnatPool>,
    /// SNAT lists, by name: which source translation a client gets by its address.
    #[serde(default)]
    pub snat_lists: BTreeMap<Name, Vec<SnatRow>>,
    /// Bidirectional one-to-one translations, by name.
    #[serde(default)]
    pub nats: BTreeMap<Name, Nat>,
    /// Virtual servers, by name.
    #[serde(default)]
    pub virtual_servers: BTreeMap<Name, Arc<VirtualServer>>,
    /// What sluice tells about itself.
    #[serde(default)]
    pub telemetry: Telemetry,
}

impl Model {
    /// As JSON, with every default written out.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The JSON Schema of a configuration.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Model).to_value()
    }
}

/// One value, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// Written without a list.
    One(T),
    /// Written as a list.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// The values.
    pub fn as_slice(&self) -> &[T] {
        match self {
            OneOrMany::One(value) => std::slice::from_ref(value),
            OneOrMany::Many(values) => values,
        }
    }

    /// The JSON pointer of the value at `index`, below `path`.
    pub fn path_of(&self, path: &str, index: usize) -> String {
        match self {
            OneOrMany::One(_) => path.into(),
            OneOrMany::Many(_) => format!("{path}/{index}"),
        }
    }
}

impl<T: schemars::JsonSchema> schemars::JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = generator.subschema_for::<T>();
        schemars::json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or a list of values")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        T::deserialize(text.into_deserializer()).map(OneOrMany::One)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(OneOrMany::One)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(OneOrMany::One)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(OneOrMany::One)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(OneOrMany::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(seq)).map(OneOrMany::Many)
    }
}
