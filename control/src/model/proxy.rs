//! Full proxies: TCP on both sides, PROXY headers, and connections to members that are used again.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use sluice_dataplane::config::proxy::Reuse;

use super::OneOrMany;
use super::network::Network;
use super::persistence::Mask;
use super::units::{Number, Span};

/// TCP of a full proxy. What is said here holds for both sides; `client` and `server` say otherwise for one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tcp {
    /// Small segments wait for acknowledgements; false when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nagle: Option<bool>,
    /// Idle peers are asked for a sign of life this often; 1800s when left out, 0s for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive_interval: Option<Span>,
    /// How long an acknowledgement may wait; 10ms when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ack_delay: Option<Span>,
    /// After our side has closed, the peer has this long to close its own; 30s when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fin_wait_timeout: Option<Span>,
    /// How long the handshake with a member may take; 2s when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Span>,
    /// Towards clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<TcpSide>,
    /// Towards members.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<TcpSide>,
}

/// TCP towards one side: what differs from what holds for both.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TcpSide {
    /// Small segments wait for acknowledgements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nagle: Option<bool>,
    /// Idle peers are asked for a sign of life this often; 0s for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive_interval: Option<Span>,
    /// How long an acknowledgement may wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ack_delay: Option<Span>,
    /// After our side has closed, the peer has this long to close its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fin_wait_timeout: Option<Span>,
    /// How long the handshake with a member may take; for `server` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Span>,
}

impl Tcp {
    /// What holds for both sides.
    pub fn both(&self) -> TcpSide {
        TcpSide {
            nagle: self.nagle,
            keep_alive_interval: self.keep_alive_interval,
            ack_delay: self.ack_delay,
            fin_wait_timeout: self.fin_wait_timeout,
            connect_timeout: self.connect_timeout,
        }
    }
}

/// PROXY headers: who the client is, said by a proxy in front of us and to members.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyProtocol {
    /// Connections of clients begin with a header, and are refused without.
    pub accept: bool,
    /// Only from these networks; from others none is read. From everywhere when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<OneOrMany<Network>>,
    /// Connections to members begin with a header of this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send: Option<SendProxy>,
    /// What is sent has a checksum (CRC-32C); for v2 only.
    pub crc: bool,
}

/// Version of a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SendProxy {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Whether connections to members are kept for the next request (tmsh: OneConnect). Written as true, false or a map.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ConnectionReuse {
    /// Every request has its own connection, as far as the client's allows.
    Off,
    /// They are kept.
    On(ReuseSettings),
}

/// How connections to members are kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReuseSettings {
    /// Leading bits of clients' addresses that must be the same; 0 lets all clients share.
    pub source_mask: Masks,
    /// Idle connections at most, for each worker.
    pub max_size: Number<1, 10_000_000>,
    /// Requests on one connection at most.
    pub max_reuse: Number<1, 4_294_967_295>,
    /// The age at which one is not used again.
    pub max_age: Span,
    /// How long one may wait: less than the members' own keep-alive time.
    pub idle_timeout: Span,
}

impl Default for ReuseSettings {
    fn default() -> Self {
        let reuse = Reuse::default();
        Self {
            source_mask: Masks::default(),
            max_size: Number::new(reuse.max_size.into()),
            max_reuse: Number::new(reuse.max_reuse.into()),
            max_age: Span::from_ms(reuse.max_age_ms),
            idle_timeout: Span::from_ms(reuse.idle_ms),
        }
    }
}

impl Serialize for ConnectionReuse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            ConnectionReuse::Off => serializer.serialize_bool(false),
            ConnectionReuse::On(settings) => settings.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ConnectionReuse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReuseVisitor)
    }
}

impl schemars::JsonSchema for ConnectionReuse {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ConnectionReuse".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let settings = generator.subschema_for::<ReuseSettings>();
        schemars::json_schema!({ "anyOf": [{ "type": "boolean" }, settings] })
    }
}

struct ReuseVisitor;

impl<'de> Visitor<'de> for ReuseVisitor {
    type Value = ConnectionReuse;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false, or a map with source_mask, max_size, max_reuse, max_age, idle_timeout")
    }

    fn visit_bool<E: de::Error>(self, on: bool) -> Result<ConnectionReuse, E> {
        Ok(if on { ConnectionReuse::On(ReuseSettings::default()) } else { ConnectionReuse::Off })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ConnectionReuse, A::Error> {
        ReuseSettings::deserialize(MapAccessDeserializer::new(map)).map(ConnectionReuse::On)
    }
}

/// How many leading bits of an address count, by family. Written as a map, or as the part of an IPv4 address that
/// counts: of an IPv6 address the same part does then, which is four times as many bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Masks {
    /// Of IPv4.
    pub ipv4: Option<Mask<32>>,
    /// Of IPv6.
    pub ipv6: Option<Mask<128>>,
}

#[derive(Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct MasksByFamily {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ipv4: Option<Mask<32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ipv6: Option<Mask<128>>,
}

impl Masks {
    /// Leading bits of IPv4 and of IPv6, `others` where nothing is said.
    pub fn bits_or(self, others: (u8, u8)) -> (u8, u8) {
        (self.ipv4.map_or(others.0, Mask::bits), self.ipv6.map_or(others.1, Mask::bits))
    }

    fn of_part(part: Mask<32>) -> Self {
        Self { ipv4: Some(part), ipv6: Some(Mask::of_bits(4 * part.bits())) }
    }
}

impl Serialize for Masks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        MasksByFamily { ipv4: self.ipv4, ipv6: self.ipv6 }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Masks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MasksVisitor)
    }
}

impl schemars::JsonSchema for Masks {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Masks".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let (part, whole) =
            (generator.subschema_for::<Mask<32>>(), generator.subschema_for::<MasksByFamily>());
        schemars::json_schema!({ "anyOf": [part, whole] })
    }
}

struct MasksVisitor;

impl<'de> Visitor<'de> for MasksVisitor {
    type Value = Masks;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a prefix length from 0 to 32, a netmask such as 255.255.255.0, or a map with ipv4 and ipv6",
        )
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Masks, E> {
        Mask::deserialize(value.into_deserializer()).map(Masks::of_part)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Masks, E> {
        Mask::deserialize(value.into_deserializer()).map(Masks::of_part)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Masks, E> {
        Mask::deserialize(text.into_deserializer()).map(Masks::of_part)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Masks, A::Error> {
        let MasksByFamily { ipv4, ipv6 } = Deserialize::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Masks { ipv4, ipv6 })
    }
}
