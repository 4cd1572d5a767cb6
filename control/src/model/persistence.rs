//! Persistence: which connections go to the same member.

use std::fmt;
use std::net::IpAddr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::units::Span;

/// Which connections go to the same member.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Persistence {
    /// What makes two connections belong together.
    #[serde(rename = "type")]
    pub kind: PersistenceType,
    /// How long that is remembered after the last new connection.
    #[serde(default = "three_minutes")]
    pub timeout: Span,
    /// How much of an IPv4 address counts.
    #[serde(default)]
    pub mask: Mask<32>,
    /// How much of an IPv6 address counts.
    #[serde(default)]
    pub mask_v6: Mask<128>,
    /// Records of virtual servers with the same address serve this one too, whatever the port.
    #[serde(default)]
    pub match_across_services: bool,
    /// Records of every virtual server serve this one too, as far as they lead to a member of its pool.
    #[serde(default)]
    pub match_across_virtuals: bool,
    /// Records of other pools serve this one too: the member of its pool at the same address.
    #[serde(default)]
    pub match_across_pools: bool,
    /// A persisted connection is taken even where the member is at its connection limit.
    #[serde(default)]
    pub override_connection_limit: bool,
    /// For `cookie`: who sets it; insert when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<CookieMethod>,
    /// For `cookie`: its name; `BIGipServer` and the pool's name when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For `cookie`: how long the client keeps it; 0s, until the client ends, when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<Span>,
    /// For `cookie`: the paths that it is for; `/` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// For `cookie`: scripts cannot read it; true when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_only: Option<bool>,
    /// For `cookie`: sent over TLS only; false when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure: Option<bool>,
    /// For `cookie`: sent with every response; false when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub always_send: Option<bool>,
}

impl Persistence {
    /// `kind` with every default.
    pub fn new(kind: PersistenceType) -> Self {
        Self {
            kind,
            timeout: three_minutes(),
            mask: Mask::default(),
            mask_v6: Mask::default(),
            match_across_services: false,
            match_across_virtuals: false,
            match_across_pools: false,
            override_connection_limit: false,
            method: None,
            name: None,
            expiration: None,
            path: None,
            http_only: None,
            secure: None,
            always_send: None,
        }
    }

    /// True when it keeps records of clients.
    pub fn keeps_records(&self) -> bool {
        matches!(self.kind, PersistenceType::SourceAddress | PersistenceType::DestinationAddress)
    }

    /// Reads a map, or only the type's word.
    ///
    /// # Errors
    /// Those of the deserializer.
    pub fn short_or_whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        deserializer.deserialize_any(PersistenceVisitor).map(Some)
    }

    /// The schema of both forms.
    pub fn schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let (word, whole) = (generator.subschema_for::<PersistenceType>(), generator.subschema_for::<Self>());
        schemars::json_schema!({ "anyOf": [word, whole] })
    }
}

struct PersistenceVisitor;

impl<'de> Visitor<'de> for PersistenceVisitor {
    type Value = Persistence;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a type of persistence (source-address, destination-address, hash or cookie), or a map with its type",
        )
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Persistence, E> {
        PersistenceType::deserialize(text.into_deserializer()).map(Persistence::new)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Persistence, A::Error> {
        Persistence::deserialize(MapAccessDeserializer::new(map))
    }
}

/// What makes two connections belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PersistenceType {
    /// The client's address.
    SourceAddress,
    /// The address that the client asked for (for wildcard virtual servers).
    DestinationAddress,
    /// A hash of the client's address and port over the members: no record, the same member on any replica.
    Hash,
    /// A cookie of the client's.
    Cookie,
}

/// Who sets the cookie, and how it leads to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CookieMethod {
    /// We add it to responses.
    #[default]
    Insert,
    /// The member sends it, in the same format.
    Passive,
    /// The application does; a hash of its value chooses the member.
    Hash,
}

/// How many leading bits of an address of `BITS` bits count; written as that number, or as a netmask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mask<const BITS: u8>(u8);

impl<const BITS: u8> Mask<BITS> {
    /// Leading bits, at most `BITS`.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// This many leading bits, at most `BITS`.
    pub const fn of_bits(bits: u8) -> Self {
        Self(if bits > BITS { BITS } else { bits })
    }

    fn of_netmask(text: &str) -> Option<Self> {
        let (ones, zeros, width) = match text.parse().ok()? {
            IpAddr::V4(mask) => (mask.to_bits().leading_ones(), mask.to_bits().trailing_zeros(), 32),
            IpAddr::V6(mask) => (mask.to_bits().leading_ones(), mask.to_bits().trailing_zeros(), 128),
        };
        (width == u32::from(BITS) && ones + zeros == width).then_some(Self(ones as u8))
    }
}

impl<const BITS: u8> Default for Mask<BITS> {
    fn default() -> Self {
        Self(BITS)
    }
}

impl<const BITS: u8> Serialize for Mask<BITS> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.0)
    }
}

impl<'de, const BITS: u8> Deserialize<'de> for Mask<BITS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MaskVisitor::<BITS>)
    }
}

impl<const BITS: u8> schemars::JsonSchema for Mask<BITS> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Mask{BITS}").into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": BITS },
            { "type": "string", "pattern": "^[0-9a-fA-F:.]+$" },
        ]})
    }
}

struct MaskVisitor<const BITS: u8>;

impl<const BITS: u8> Visitor<'_> for MaskVisitor<BITS> {
    type Value = Mask<BITS>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let netmask = if BITS == 32 { "255.255.255.0" } else { "\"ffff:ffff::\"" };
        write!(f, "a prefix length from 0 to {BITS}, or a netmask such as {netmask}")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Mask<BITS>, E> {
        let bits = u8::try_from(value).ok().filter(|bits| *bits <= BITS);
        bits.map(Mask).ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(value), &self))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Mask<BITS>, E> {
        match u64::try_from(value) {
            Ok(value) => self.visit_u64(value),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(value), &self)),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Mask<BITS>, E> {
        Mask::of_netmask(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

fn three_minutes() -> Span {
    Span::from_ms(180_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netmasks_are_prefix_lengths_when_their_bits_are_in_one_piece() {
        let v4 = |text| Mask::<32>::of_netmask(text).map(Mask::bits);
        let v6 = |text| Mask::<128>::of_netmask(text).map(Mask::bits);
        assert_eq!(
            (v4("255.255.255.0"), v4("0.0.0.0"), v4("255.255.255.255")),
            (Some(24), Some(0), Some(32))
        );
        assert_eq!((v4("255.0.255.0"), v4("ffff::"), v4("24")), (None, None, None));
        assert_eq!((v6("ffff:ffff::"), v6("::"), v6("255.255.255.0")), (Some(32), Some(0), None));
    }
}
