//! HTTP of a full proxy, and its routes: which requests go where.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use sluice_dataplane::config::proxy::HttpTimeouts;
use sluice_dataplane::http::HttpLimits;

use super::OneOrMany;
use super::filters::Filter;
use super::units::{Limit, Name, Number, Size, Span};

/// HTTP/1.1 on both sides of a full proxy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Bytes of a request line; more is answered with 414.
    pub max_request_line: Size,
    /// Bytes of the fields of a message; more is answered with 431.
    pub max_header_size: Size,
    /// Fields of a message; more is answered with 431.
    pub max_headers: Number<1, 128>,
    /// Bytes of a trailer section; more is answered with 431.
    pub max_trailer_size: Size,
    /// Fields of a trailer section; more is answered with 431.
    pub max_trailers: Number<0, 128>,
    /// Bytes of a body; more is answered with 413. As many as there are when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body_size: Option<Size>,
    /// `//` in a path becomes `/`.
    pub merge_slashes: bool,
    /// `%2F` and `%5C` in a path are let through; otherwise they are refused.
    pub encoded_slashes: bool,
    /// From the handshake to the first byte of the first request.
    pub first_byte_timeout: Span,
    /// From the first byte of a head to its last.
    pub header_timeout: Span,
    /// Between two pieces of a body.
    pub body_timeout: Span,
    /// A body slower than this many bytes a second, after ten seconds, ends; 0 for no such limit.
    pub min_body_rate: Limit,
    /// From the end of a request to the first byte of its response.
    pub response_timeout: Span,
    /// Between two requests.
    pub keep_alive_timeout: Span,
    /// The age at which a client's connection is closed after its next response.
    pub max_connection_age: Span,
    /// A tunnel without bytes for this long ends.
    pub tunnel_timeout: Span,
    /// Requests on one client's connection; 0 for no limit.
    pub max_requests: Limit,
    /// CONNECT is passed on; otherwise it is refused.
    pub allow_connect: bool,
    /// The value of Server in answers of our own; none when empty.
    pub server_name: String,
}

impl Default for Http {
    fn default() -> Self {
        let (limits, timeouts) = (HttpLimits::default(), HttpTimeouts::default());
        let size = |bytes: usize| Size(bytes as u64);
        Self {
            max_request_line: size(limits.line),
            max_header_size: size(limits.head),
            max_headers: Number::new(limits.fields as u64),
            max_trailer_size: size(limits.trailer),
            max_trailers: Number::new(limits.trailer_fields as u64),
            max_body_size: None,
            merge_slashes: limits.path.merge_slashes,
            encoded_slashes: limits.path.encoded_slashes,
            first_byte_timeout: Span::from_ms(timeouts.first_byte_ms),
            header_timeout: Span::from_ms(timeouts.head_ms),
            body_timeout: Span::from_ms(timeouts.body_ms),
            min_body_rate: Number::new(timeouts.body_rate_min.into()),
            response_timeout: Span::from_ms(timeouts.response_ms),
            keep_alive_timeout: Span::from_ms(timeouts.keep_alive_ms),
            max_connection_age: Span::from_ms(timeouts.max_age_ms),
            tunnel_timeout: Span::from_ms(timeouts.tunnel_ms),
            max_requests: Number::new(10_000),
            allow_connect: false,
            server_name: String::new(),
        }
    }
}

/// Some requests, and what becomes of them.
#[derive(Debug, Clone, PartialEq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpRoute {
    /// What logs call it; its number when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Which requests: those that one of these rows matches; all when left out.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<OneOrMany<RouteMatch>>,
    /// Where they go; the virtual server's pool when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<Name>,
    /// Instead of `pool`, several in proportion to their weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pools: Option<Vec<WeightedPool>>,
    /// What is done to them, after the filters of the virtual server.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// How long the whole exchange may take; for ever when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<Span>,
    /// From the end of a request to the first byte of its response; as `http` has it when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_timeout: Option<Span>,
}

/// A pool's share of a route's requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightedPool {
    /// The pool.
    pub pool: Name,
    /// Its share; 0 for none.
    #[serde(default = "one")]
    pub weight: Number<0, 1_000_000>,
}

fn one() -> Number<0, 1_000_000> {
    Number::new(1)
}

/// What a request must have: all of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteMatch {
    /// One of these hosts: names, addresses, or `*.` and the rest of a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<OneOrMany<String>>,
    /// Such a path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// This method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// These fields.
    #[serde(skip_serializing_if = "ValueMatches::is_empty")]
    pub headers: ValueMatches,
    /// These parameters of the query.
    #[serde(skip_serializing_if = "ValueMatches::is_empty")]
    pub query: ValueMatches,
}

/// Which paths. Text without a map is a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// This one.
    Exact(String),
    /// This one and all below it.
    Prefix(String),
    /// Those that match this regular expression as a whole.
    Regex(String),
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum PathKind {
    Exact,
    Prefix,
    Regex,
}

impl Serialize for PathMatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (kind, text) = match self {
            PathMatch::Exact(text) => ("exact", text),
            PathMatch::Prefix(text) => ("prefix", text),
            PathMatch::Regex(text) => ("regex", text),
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(kind, text)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for PathMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PathVisitor)
    }
}

impl schemars::JsonSchema for PathMatch {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PathMatch".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = |kind: &str| {
            serde_json::json!({
                "type": "object",
                "properties": { kind: { "type": "string" } },
                "required": [kind],
                "additionalProperties": false,
            })
        };
        schemars::json_schema!({ "anyOf": [{ "type": "string" }, one("exact"), one("prefix"), one("regex")] })
    }
}

struct PathVisitor;

impl<'de> Visitor<'de> for PathVisitor {
    type Value = PathMatch;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a prefix such as /api, or one of {exact: PATH}, {prefix: PATH} and {regex: EXPRESSION}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PathMatch, E> {
        Ok(PathMatch::Prefix(text.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PathMatch, A::Error> {
        let kind = map.next_key()?.ok_or_else(|| de::Error::missing_field("exact|prefix|regex"))?;
        let text = map.next_value()?;
        if map.next_key::<PathKind>()?.is_some() {
            return Err(de::Error::invalid_value(de::Unexpected::Other("several"), &self));
        }
        Ok(match kind {
            PathKind::Exact => PathMatch::Exact(text),
            PathKind::Prefix => PathMatch::Prefix(text),
            PathKind::Regex => PathMatch::Regex(text),
        })
    }
}

/// Fields or parameters that a request must have: rows, or a map of names to values.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum ValueMatches {
    /// Each with what its value must be.
    Rows(Vec<ValueRow>),
    /// Each with its value.
    Map(BTreeMap<String, String>),
}

/// One field or parameter, with one of `value`, `regex` and `present`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValueRow {
    /// Its name.
    pub name: String,
    /// It has this value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Its value matches this regular expression as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// It is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
}

impl ValueMatches {
    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        match self {
            ValueMatches::Rows(rows) => rows.is_empty(),
            ValueMatches::Map(map) => map.is_empty(),
        }
    }
}

impl Default for ValueMatches {
    fn default() -> Self {
        ValueMatches::Rows(Vec::new())
    }
}

impl<'de> Deserialize<'de> for ValueMatches {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValuesVisitor)
    }
}

impl schemars::JsonSchema for ValueMatches {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ValueMatches".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let row = generator.subschema_for::<ValueRow>();
        schemars::json_schema!({ "anyOf": [
            { "type": "array", "items": row },
            { "type": "object", "additionalProperties": { "type": "string" } },
        ]})
    }
}

struct ValuesVisitor;

impl<'de> Visitor<'de> for ValuesVisitor {
    type Value = ValueMatches;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of rows with a name and value, regex or present, or a map of names to values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<ValueMatches, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(seq)).map(ValueMatches::Rows)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ValueMatches, A::Error> {
        BTreeMap::deserialize(MapAccessDeserializer::new(map)).map(ValueMatches::Map)
    }
}
