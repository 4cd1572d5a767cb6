//! Health monitors.

use serde::{Deserialize, Serialize};

use super::units::{Number, Span};

/// A health monitor.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
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

fn no_time() -> Span {
    Span::from_ms(0)
}

fn five_seconds() -> Span {
    Span::from_ms(5_000)
}

fn sixteen_seconds() -> Span {
    Span::from_ms(16_000)
}
