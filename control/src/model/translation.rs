//! Translation of addresses: source translation of virtual servers, SNAT pools and lists, one-to-one NAT.

use std::fmt;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::OneOrMany;
use super::network::{Ip, Network};
use super::units::{Name, Number};

/// Source addresses towards members.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnatPool {
    /// Of either family.
    pub addresses: Vec<Ip>,
}

/// What the clients of some networks get.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnatRow {
    /// Where the clients are.
    pub source: OneOrMany<Network>,
    /// How their address is hidden from members.
    pub snat: ListedSnat,
}

/// A bidirectional one-to-one translation of addresses; ports stay as they are.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nat {
    /// The host's own address.
    pub origin: Ip,
    /// What others know it by.
    pub translation: Ip,
    /// Ports that traffic to the translation comes in by; every port when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<Name>>,
    /// VLANs that it comes in by (0 for untagged); every VLAN when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<OneOrMany<Number<0, 4094>>>,
    /// VLANs that it does not come in by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reject_vlan: Option<OneOrMany<Number<0, 4094>>>,
}

/// What becomes of the client's port under SNAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SourcePortChoice {
    /// Kept where it is free.
    #[default]
    Preserve,
    /// Kept, or the connection is refused.
    PreserveStrict,
    /// Always another one.
    Change,
}

/// How the client's address is hidden from members.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum SnatChoice {
    /// Members see the client's address.
    #[default]
    None,
    /// A self IP of the link that leads to the member.
    Automap,
    /// An address of this SNAT pool.
    Pool(Name),
    /// What this SNAT list says of the client's address.
    List(Name),
}

/// A [`SnatChoice`] inside a SNAT list: anything but another list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct ListedSnat(pub SnatChoice);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SnatByName {
    #[serde(default)]
    pool: Option<Name>,
    #[serde(default)]
    list: Option<Name>,
}

impl Serialize for SnatChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (kind, name) = match self {
            SnatChoice::None => return serializer.serialize_str("none"),
            SnatChoice::Automap => return serializer.serialize_str("automap"),
            SnatChoice::Pool(name) => ("pool", name),
            SnatChoice::List(name) => ("list", name),
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(kind, name)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for SnatChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SnatVisitor { lists: true })
    }
}

impl<'de> Deserialize<'de> for ListedSnat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SnatVisitor { lists: false }).map(ListedSnat)
    }
}

impl schemars::JsonSchema for SnatChoice {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Snat".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let (words, pool, list) =
            (words_schema(), named_schema("pool", generator), named_schema("list", generator));
        schemars::json_schema!({ "anyOf": [words, pool, list] })
    }
}

impl schemars::JsonSchema for ListedSnat {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ListedSnat".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [words_schema(), named_schema("pool", generator)] })
    }
}

fn words_schema() -> schemars::Schema {
    schemars::json_schema!({ "enum": ["none", "automap"] })
}

fn named_schema(kind: &str, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let name = generator.subschema_for::<Name>();
    schemars::json_schema!({
        "type": "object",
        "properties": { kind: name },
        "required": [kind],
        "additionalProperties": false,
    })
}

struct SnatVisitor {
    /// A list may be named.
    lists: bool,
}

impl<'de> Visitor<'de> for SnatVisitor {
    type Value = SnatChoice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = if self.lists {
            "none, automap, {pool: NAME} or {list: NAME}"
        } else {
            "none, automap or {pool: NAME}"
        };
        f.write_str(known)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SnatChoice, E> {
        match text {
            "none" => Ok(SnatChoice::None),
            "automap" => Ok(SnatChoice::Automap),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SnatChoice, A::Error> {
        let named = SnatByName::deserialize(de::value::MapAccessDeserializer::new(map))?;
        match (named.pool, named.list) {
            (Some(pool), None) => Ok(SnatChoice::Pool(pool)),
            (None, Some(list)) if self.lists => Ok(SnatChoice::List(list)),
            (None, Some(_)) => Err(de::Error::invalid_value(de::Unexpected::Other("a list"), &self)),
            (Some(_), Some(_)) => Err(de::Error::invalid_value(de::Unexpected::Other("both"), &self)),
            (None, None) => Err(de::Error::missing_field(if self.lists { "pool|list" } else { "pool" })),
        }
    }
}
