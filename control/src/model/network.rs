//! Addresses as an operator writes them: `192.0.2.1`, `192.0.2.1/24`, `192.0.2.100:80,443`, `[2001:db8::1]:80`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use sluice_dataplane::address::{Address, Prefix};

use super::units::{Text, text_type};

/// An IPv4 or IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ip(pub IpAddr);

impl Ip {
    /// As the data plane holds it.
    pub fn address(self) -> Address {
        self.0.into()
    }
}

impl Text for Ip {
    const EXPECTED: &'static str = "an IPv4 or IPv6 address, such as 192.0.2.1 or 2001:db8::1";
}

impl FromStr for Ip {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((address, _)) = text.split_once('/') {
            return Err(format!("without prefix length, that is {address}"));
        }
        plain_address(text).map(Ip)
    }
}

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_type!(Ip, "Address", "^[0-9a-fA-F:.]+$");

/// An address and the length of its network's prefix; host bits are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interface {
    /// The address.
    pub address: IpAddr,
    /// 0 to 32 or 0 to 128.
    pub length: u8,
}

impl Interface {
    /// The network it is in.
    pub fn network(self) -> Prefix {
        Prefix::new(self.address, self.length)
    }
}

impl Text for Interface {
    const EXPECTED: &'static str =
        "an address with its prefix length, such as 192.0.2.10/24 or 2001:db8::10/64";
}

impl FromStr for Interface {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, length) = text.split_once('/').ok_or("the prefix length is missing")?;
        let address = plain_address(address)?;
        Ok(Interface { address, length: prefix_length(address, length)? })
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

text_type!(Interface, "AddressWithLength", "^[0-9a-fA-F:.]+/[0-9]{1,3}$");

/// A network, or a single address when no length is written. Host bits must be zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(pub Prefix);

impl Text for Network {
    const EXPECTED: &'static str = "a network such as 10.0.0.0/8 or 2001:db8::/32, or a single address";
}

impl FromStr for Network {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        network(text).map(Network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_prefix(f, self.0)
    }
}

text_type!(Network, "Network", "^[0-9a-fA-F:.]+(/[0-9]{1,3})?$");

/// A TCP or UDP port, or `*` for "whatever the client asked for" (0 inside).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct L4Port(pub u16);

impl fmt::Display for L4Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { f.write_str("*") } else { self.0.fmt(f) }
    }
}

impl Serialize for L4Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 == 0 { serializer.serialize_str("*") } else { serializer.serialize_u16(self.0) }
    }
}

impl<'de> Deserialize<'de> for L4Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(L4PortVisitor)
    }
}

impl schemars::JsonSchema for L4Port {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "L4Port".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A TCP or UDP port; 0 or \"*\" keeps the port that the client asked for.",
            "anyOf": [{ "type": "integer", "minimum": 0, "maximum": 65535 }, { "const": "*" }],
        })
    }
}

struct L4PortVisitor;

impl Visitor<'_> for L4PortVisitor {
    type Value = L4Port;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port number from 1 to 65535, or 0 or \"*\" to keep the client's")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<L4Port, E> {
        let port =
            u16::try_from(value).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))?;
        Ok(L4Port(port))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<L4Port, E> {
        match u64::try_from(value) {
            Ok(value) => self.visit_u64(value),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(value), &self)),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<L4Port, E> {
        if text == "*" { Ok(L4Port(0)) } else { Err(E::invalid_value(de::Unexpected::Str(text), &self)) }
    }
}

/// What a virtual server listens on: addresses, and ports on them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The addresses.
    pub network: Prefix,
    /// Inclusive ranges of ports; empty for any.
    pub ports: Vec<(u16, u16)>,
}

impl Destination {
    /// How many ports it names; 1 for any.
    pub fn ports_count(&self) -> usize {
        self.ports.iter().map(|(first, last)| usize::from(last - first) + 1).sum::<usize>().max(1)
    }

    /// Every port it names; 0 for any.
    pub fn each_port(&self) -> impl Iterator<Item = u16> + '_ {
        let any = self.ports.is_empty().then_some(0);
        any.into_iter().chain(self.ports.iter().flat_map(|(first, last)| *first..=*last))
    }
}

impl Text for Destination {
    const EXPECTED: &'static str = "ADDRESS[/PREFIX]:PORT, such as 192.0.2.100:80, \"[2001:db8::1]:443\", 192.0.2.0/24:8000-8010 or 0.0.0.0/0:*";
}

impl FromStr for Destination {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, ports) = text.rsplit_once(':').ok_or("the port is missing")?;
        let bare_v6 = address.contains(':') && !address.starts_with('[') && !address.contains('/');
        if bare_v6 && ports != "*" || text.ends_with(']') {
            return Err("an IPv6 address stands in brackets, with its port behind them".into());
        }
        Ok(Destination { network: network(&unbracketed(address)?)?, ports: port_ranges(ports)? })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Prefix { address, .. } = self.network;
        if address.is_v4() {
            write!(f, "{address}")?;
        } else {
            write!(f, "[{address}]")?;
        }
        if self.network.bits != 128 {
            write!(f, "/{}", self.network.length())?;
        }
        if self.ports.is_empty() {
            return f.write_str(":*");
        }
        for (number, (first, last)) in self.ports.iter().enumerate() {
            f.write_str(if number == 0 { ":" } else { "," })?;
            if first == last { write!(f, "{first}")? } else { write!(f, "{first}-{last}")? }
        }
        Ok(())
    }
}

text_type!(
    Destination,
    "Destination",
    "^(\\[[0-9a-fA-F:.]+\\]|[0-9a-fA-F:.]+)(/[0-9]{1,3})?:(\\*|[0-9,-]+)$"
);

/// `[a::b]/64` and `[a::b]` lose their brackets; what has none stays.
fn unbracketed(text: &str) -> Result<String, String> {
    let Some(rest) = text.strip_prefix('[') else { return Ok(text.into()) };
    let (address, length) = rest.split_once(']').ok_or("the closing bracket is missing")?;
    Ok(format!("{address}{length}"))
}

/// `80`, `80,443,8000-8010`, or `*` and `0` for any (no range then). Sorted; touching ranges are joined.
fn port_ranges(text: &str) -> Result<Vec<(u16, u16)>, String> {
    if text == "*" || text == "0" {
        return Ok(Vec::new());
    }
    let mut ranges = text.split(',').map(port_range).collect::<Result<Vec<_>, _>>()?;
    ranges.sort_unstable();
    let mut joined: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if u32::from(first) <= u32::from(before.1) + 1 => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    Ok(joined)
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port_number(first)?, port_number(last)?);
    if first > last { Err(format!("the range {text} runs backwards")) } else { Ok((first, last)) }
}

fn port_number(text: &str) -> Result<u16, String> {
    let number = text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    number.ok_or_else(|| format!("\"{text}\" is not a port from 1 to 65535"))
}

fn network(text: &str) -> Result<Prefix, String> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (plain_address(address)?, Some(length)),
        None => (plain_address(text)?, None),
    };
    let Some(length) = length else { return Ok(Prefix::host(address)) };
    let prefix = Prefix::new(address, prefix_length(address, length)?);
    if prefix.address != address.into() {
        return Err(format!("{address} has bits set beyond the prefix; the network is {prefix}"));
    }
    Ok(prefix)
}

fn plain_address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| String::new())?;
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err("IPv4-mapped addresses are not used".into()),
        _ => Ok(address),
    }
}

fn prefix_length(address: IpAddr, text: &str) -> Result<u8, String> {
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let length = text.parse().ok().filter(|length: &u8| digits && *length <= longest);
    length.ok_or_else(|| format!("the prefix length is 0 to {longest}"))
}

fn write_prefix(f: &mut fmt::Formatter<'_>, prefix: Prefix) -> fmt::Result {
    if prefix.bits == 128 { write!(f, "{}", prefix.address) } else { write!(f, "{prefix}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(text: &str) -> String {
        text.parse::<Destination>().map_or_else(|why| format!("! {why}"), |parsed| parsed.to_string())
    }

    #[test]
    fn destinations_come_back_as_written() {
        for text in [
            "192.0.2.100:80",
            "192.0.2.0/24:*",
            "0.0.0.0/0:*",
            "[2001:db8::1]:80",
            "[2001:db8::]/64:443",
            "192.0.2.1:80,443,8000-8010",
        ] {
            assert_eq!(round(text), text);
        }
        assert_eq!(round("::/0:*"), "[::]/0:*");
        assert_eq!(round("192.0.2.1:0"), "192.0.2.1:*");
        assert_eq!(round("192.0.2.1:81,80,79-80"), "192.0.2.1:79-81");
    }

    #[test]
    fn wrong_destinations_say_what_is_wrong() {
        for (text, part) in [
            ("192.0.2.1", "port is missing"),
            ("2001:db8::1:80", "brackets"),
            ("[2001:db8::1]", "brackets"),
            ("192.0.2.1/24:80", "the network is 192.0.2.0/24"),
            ("192.0.2.1/33:80", "0 to 32"),
            ("192.0.2.1/+8:80", "0 to 32"),
            ("192.0.2.1:70000", "1 to 65535"),
            ("192.0.2.1:90-80", "backwards"),
            ("[::ffff:192.0.2.1]:80", "mapped"),
        ] {
            assert!(round(text).contains(part), "{text}: {}", round(text));
        }
    }

    #[test]
    fn a_destination_counts_its_ports() {
        let ports = |text: &str| text.parse::<Destination>().unwrap().each_port().collect::<Vec<_>>();
        assert_eq!(ports("192.0.2.1:80,90-92"), [80, 90, 91, 92]);
        assert_eq!(ports("192.0.2.1:*"), [0]);
        assert_eq!("192.0.2.1:1-65535".parse::<Destination>().unwrap().ports_count(), 65_535);
    }
}
