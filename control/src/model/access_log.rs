//! The access log: where the lines of virtual servers with `access_log` go.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::units::{Text, text_type};

/// Where the access log goes: one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLogTarget {
    /// To the end of this file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// To a syslog receiver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syslog: Option<SyslogTarget>,
}

/// A receiver of syslog messages (RFC 5424), reached through the kernel's network stack.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyslogTarget {
    /// Its address and port.
    pub address: ReceiverAddress,
    /// How messages travel.
    #[serde(default)]
    pub transport: SyslogTransport,
    /// The facility of every message.
    #[serde(default)]
    pub facility: SyslogFacility,
    /// The application's name in every message.
    #[serde(default)]
    pub app_name: AppName,
}

/// How messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SyslogTransport {
    /// One datagram a message (RFC 5426).
    #[default]
    Udp,
    /// One connection, with octet counting (RFC 6587 section 3.4.1).
    Tcp,
}

/// The facility of a message (RFC 5424 section 6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "named as in RFC 5424")]
pub enum SyslogFacility {
    User,
    Daemon,
    #[default]
    Local0,
    Local1,
    Local2,
    Local3,
    Local4,
    Local5,
    Local6,
    Local7,
}

impl SyslogFacility {
    /// Its number.
    pub const fn number(self) -> u8 {
        match self {
            SyslogFacility::User => 1,
            SyslogFacility::Daemon => 3,
            SyslogFacility::Local0 => 16,
            SyslogFacility::Local1 => 17,
            SyslogFacility::Local2 => 18,
            SyslogFacility::Local3 => 19,
            SyslogFacility::Local4 => 20,
            SyslogFacility::Local5 => 21,
            SyslogFacility::Local6 => 22,
            SyslogFacility::Local7 => 23,
        }
    }
}

/// The address and port of a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReceiverAddress(pub SocketAddr);

impl Text for ReceiverAddress {
    const EXPECTED: &'static str =
        "the receiver's address and port, such as 192.0.2.1:514 or [2001:db8::1]:514";
}

impl FromStr for ReceiverAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let address: SocketAddr = text.parse().map_err(|_| String::new())?;
        if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
            return Err("nobody can be reached there".into());
        }
        Ok(Self(address))
    }
}

impl fmt::Display for ReceiverAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_type!(ReceiverAddress, "ReceiverAddress", "^.+:[0-9]{1,5}$");

/// An application's name as syslog takes it: 1 to 48 printable ASCII characters without spaces (RFC 5424 section 6).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AppName(String);

impl AppName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for AppName {
    fn default() -> Self {
        Self("sluice".into())
    }
}

impl Text for AppName {
    const EXPECTED: &'static str = "a name of 1 to 48 printable ASCII characters without spaces";
}

impl FromStr for AppName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fits = (1..=48).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(text.into())) } else { Err(String::new()) }
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(AppName, "AppName", "^[!-~]{1,48}$");
