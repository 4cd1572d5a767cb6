//! Filters: what is done to requests and responses on their way. Each is written as a map with one key.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::proxy::Masks;
use super::units::{Name, Number, Span};

/// A filter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Sets, adds and removes fields of requests.
    RequestHeaders(HeaderEdits),
    /// Sets, adds and removes fields of responses.
    ResponseHeaders(HeaderEdits),
    /// Tells members who the client is.
    Forwarded(Forwarded),
    /// Answers with a redirection.
    Redirect(Redirect),
    /// Changes host and path of requests.
    Rewrite(Rewrite),
    /// Answers with this response.
    FixedResponse(FixedResponse),
    /// Sends a copy of requests to another pool.
    Mirror(Mirror),
    /// Lets scripts of other origins ask.
    Cors(Cors),
    /// Answers 429 to who asks too often.
    RateLimit(RateLimit),
}

impl Filter {
    /// True when no request gets past it.
    pub fn answers(&self) -> bool {
        matches!(self, Filter::Redirect(_) | Filter::FixedResponse(_))
    }

    /// The pool that it names.
    pub fn pool(&self) -> Option<&Name> {
        match self {
            Filter::Mirror(mirror) => Some(&mirror.pool),
            Filter::RequestHeaders(_)
            | Filter::ResponseHeaders(_)
            | Filter::Forwarded(_)
            | Filter::Redirect(_)
            | Filter::Rewrite(_)
            | Filter::FixedResponse(_)
            | Filter::Cors(_)
            | Filter::RateLimit(_) => None,
        }
    }
}

/// Changes of fields: removed first, then set, then added.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderEdits {
    /// Replaced, or added where there is none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Added, whatever there is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<String, String>,
    /// Removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// Which fields tell members who the client is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Forwarded {
    /// X-Forwarded-For, -Proto and -Host.
    pub x_forwarded: bool,
    /// Forwarded (RFC 7239).
    pub rfc7239: bool,
    /// What the client sent of these is kept and added to; otherwise it is removed.
    pub trust_client: bool,
}

impl Default for Forwarded {
    fn default() -> Self {
        Self { x_forwarded: true, rfc7239: false, trust_client: false }
    }
}

/// A redirection; what is not said stays as the request has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Redirect {
    /// The scheme.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<UrlScheme>,
    /// The host, without a port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<Number<1, 65_535>>,
    /// The path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathChange>,
    /// 301, 302, 303, 307 or 308.
    pub status: Number<300, 399>,
}

impl Default for Redirect {
    fn default() -> Self {
        Self { scheme: None, host: None, port: None, path: None, status: Number::new(302) }
    }
}

/// The scheme of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UrlScheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

/// How a path changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PathChange {
    /// The whole path.
    Full(String),
    /// The prefix that the route matched.
    Prefix(String),
}

/// Changes of host and path, for members.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rewrite {
    /// The host, without a port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathChange>,
}

/// A response of the operator's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FixedResponse {
    /// Its status.
    pub status: Number<200, 599>,
    /// Content-Type; none when empty.
    pub content_type: String,
    /// Its body.
    pub body: String,
}

impl Default for FixedResponse {
    fn default() -> Self {
        Self { status: Number::new(200), content_type: "text/plain".into(), body: String::new() }
    }
}

/// Where copies of requests go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// The pool.
    pub pool: Name,
    /// Of a hundred requests, how many.
    #[serde(default)]
    pub percent: Percent,
}

/// Of a hundred, how many; kept in tenths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Percent(u16);

impl Percent {
    /// Of a thousand, how many.
    pub fn per_mille(self) -> u16 {
        self.0
    }
}

impl Default for Percent {
    fn default() -> Self {
        Self(1_000)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            whole if whole.is_multiple_of(10) => serializer.serialize_u16(whole / 10),
            tenths => serializer.serialize_f64(f64::from(tenths) / 10.0),
        }
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PercentVisitor)
    }
}

impl schemars::JsonSchema for Percent {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Percent".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "number", "minimum": 0, "maximum": 100 })
    }
}

struct PercentVisitor;

impl Visitor<'_> for PercentVisitor {
    type Value = Percent;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a percentage from 0 to 100, with one decimal at most, such as 5 or 0.5")
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Percent, E> {
        let tenths = (value * 10.0).round();
        let fits = (0.0..=1_000.0).contains(&tenths) && (tenths / 10.0 - value).abs() < 1e-9;
        if fits {
            Ok(Percent(tenths as u16))
        } else {
            Err(E::invalid_value(de::Unexpected::Float(value), &self))
        }
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Percent, E> {
        if value <= 100 {
            self.visit_f64(value as f64)
        } else {
            Err(E::invalid_value(de::Unexpected::Unsigned(value), &self))
        }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Percent, E> {
        Err(E::invalid_value(de::Unexpected::Signed(value), &self))
    }
}

/// Which scripts of other origins may ask for what.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// `*`, or origins such as `https://shop.example` and `https://*.shop.example`.
    pub allow_origins: Vec<String>,
    /// `*`, or methods beside GET, HEAD and POST.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_methods: Vec<String>,
    /// `*`, or fields beside those that need no permission.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_headers: Vec<String>,
    /// Fields of responses that scripts may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose_headers: Vec<String>,
    /// Cookies and the like may be sent.
    #[serde(default)]
    pub allow_credentials: bool,
    /// How long the answer to a preflight request holds.
    #[serde(default = "five_seconds")]
    pub max_age: Span,
}

/// How often somebody may ask.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Who is counted together.
    #[serde(default)]
    pub by: RateBy,
    /// How much of the client's address counts; all of it when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Masks>,
    /// Requests in a period.
    pub requests: Number<1, 4_294_967_295>,
    /// The period.
    #[serde(default = "one_second")]
    pub period: Span,
    /// Requests at once after a time of quiet; as many as in a period when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Number<1, 4_294_967_295>>,
}

/// Who is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RateBy {
    /// Clients with the same address.
    #[default]
    ClientAddress,
    /// Requests with the same value of this field.
    Header(String),
}

fn five_seconds() -> Span {
    Span::from_ms(5_000)
}

fn one_second() -> Span {
    Span::from_ms(1_000)
}
