//! Addresses as the hot path holds them: one 128-bit form for IPv4 and IPv6, and the link layer's six bytes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytemuck::{Pod, Zeroable};

/// An IPv4 or IPv6 address. IPv4 is held as `::ffff:a.b.c.d` (RFC 4291 section 2.5.5.2), which the parser
/// refuses inside IPv6 packets, so the two families never collide.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable, Default)]
#[repr(C)]
pub struct Address {
    /// The first 64 bits, as a number.
    pub high: u64,
    /// The last 64 bits, as a number.
    pub low: u64,
}

impl Address {
    /// `::`, which also stands for "no address".
    pub const UNSPECIFIED: Address = Address { high: 0, low: 0 };

    /// From four bytes in network order.
    #[inline(always)]
    pub const fn v4(octets: [u8; 4]) -> Self {
        Self { high: 0, low: MAPPED | u32::from_be_bytes(octets) as u64 }
    }

    /// From sixteen bytes in network order.
    #[inline(always)]
    pub fn v6(octets: [u8; 16]) -> Self {
        let value = u128::from_be_bytes(octets);
        Self { high: (value >> 64) as u64, low: value as u64 }
    }

    /// True for IPv4.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.high == 0 && self.low & !0xffff_ffff == MAPPED
    }

    /// The four bytes of an IPv4 address, in network order; the last four of an IPv6 address.
    #[inline(always)]
    pub const fn v4_octets(self) -> [u8; 4] {
        (self.low as u32).to_be_bytes()
    }

    /// All sixteen bytes, in network order.
    #[inline(always)]
    pub fn v6_octets(self) -> [u8; 16] {
        ((u128::from(self.high) << 64) | u128::from(self.low)).to_be_bytes()
    }

    /// The address with all but its first `bits` (of 128) cleared.
    #[inline]
    pub const fn masked(self, bits: u8) -> Self {
        match bits {
            0 => Self { high: 0, low: 0 },
            1..=64 => Self { high: self.high & (u64::MAX << (64 - bits)), low: 0 },
            65..=127 => Self { high: self.high, low: self.low & (u64::MAX << (128 - bits)) },
            _ => self,
        }
    }

    /// True for 224.0.0.0/4 and ff00::/8.
    #[inline]
    pub const fn is_multicast(self) -> bool {
        if self.is_v4() { (self.low as u32) >> 28 == 0xe } else { self.high >> 56 == 0xff }
    }

    /// True for fe80::/10 and 169.254.0.0/16.
    #[inline]
    pub const fn is_link_local(self) -> bool {
        if self.is_v4() { (self.low as u32) >> 16 == 0xa9fe } else { self.high >> 54 == 0x3fa }
    }

    /// True for 127.0.0.0/8 and ::1.
    #[inline]
    pub const fn is_loopback(self) -> bool {
        if self.is_v4() { (self.low as u32) >> 24 == 127 } else { self.high == 0 && self.low == 1 }
    }

    /// True for `::` and 0.0.0.0.
    #[inline]
    pub const fn is_unspecified(self) -> bool {
        self.high == 0 && (self.low == 0 || self.low == MAPPED)
    }

    /// ff02::1:ffXX:XXXX, where a neighbour solicitation for this address goes (RFC 4291 section 2.7.1).
    pub const fn solicited_node(self) -> Self {
        Self { high: 0xff02 << 48, low: 0x1_ff00_0000 | (self.low & 0xff_ffff) }
    }
}

const MAPPED: u64 = 0xffff_0000_0000;

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => Self::v6(v6.octets()),
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(v4: Ipv4Addr) -> Self {
        Self::v4(v4.octets())
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        if address.is_v4() {
            IpAddr::V4(Ipv4Addr::from(address.v4_octets()))
        } else {
            IpAddr::V6(Ipv6Addr::from(address.v6_octets()))
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A network: an address and how many of its leading bits count, 0 to 128 (an IPv4 /24 holds 120).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Prefix {
    /// Host bits are zero.
    pub address: Address,
    /// 0 to 128; an IPv4 prefix length plus 96.
    pub bits: u8,
}

impl Prefix {
    /// The network that `address` with `length` leading bits (0 to 32 for IPv4, 0 to 128 for IPv6) is in.
    /// Longer lengths count as the longest.
    pub fn new(address: impl Into<Address>, length: u8) -> Self {
        let address = address.into();
        let bits = if address.is_v4() { 96 + length.min(32) } else { length.min(128) };
        Self { address: address.masked(bits), bits }
    }

    /// The one address.
    pub fn host(address: impl Into<Address>) -> Self {
        Self { address: address.into(), bits: 128 }
    }

    /// True when `address` is in this network. An IPv6 prefix shorter than /96 never holds an IPv4 address.
    #[inline]
    pub fn contains(&self, address: Address) -> bool {
        address.masked(self.bits) == self.address && (self.bits >= 96 || !address.is_v4())
    }

    /// The address of all hosts of an IPv4 subnet (RFC 919 section 7). `None` for IPv6, and where there is none (RFC 3021).
    pub fn broadcast(&self) -> Option<Address> {
        let host_bits = 128 - u32::from(self.bits);
        let is_subnet = self.is_v4() && host_bits > 1;
        let Address { high, low } = self.address;
        is_subnet.then(|| Address { high, low: low | ((1 << host_bits) - 1) })
    }

    /// The length as written: 0 to 32 for IPv4, 0 to 128 for IPv6.
    pub fn length(&self) -> u8 {
        if self.is_v4() { self.bits - 96 } else { self.bits }
    }

    /// True for an IPv4 network.
    pub fn is_v4(&self) -> bool {
        self.bits >= 96 && self.address.is_v4()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length())
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable, Default)]
#[repr(C)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// ff:ff:ff:ff:ff:ff
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// The six bytes as they lie in memory, in the lower part of a number.
    #[inline(always)]
    pub(crate) const fn bits(self) -> u64 {
        let Mac([a, b, c, d, e, f]) = self;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    /// From [`Mac::bits`].
    #[inline(always)]
    pub(crate) const fn from_bits(bits: u64) -> Self {
        let [a, b, c, d, e, f, ..] = bits.to_le_bytes();
        Self([a, b, c, d, e, f])
    }

    /// Where an IPv6 multicast packet goes (RFC 2464 section 7).
    pub fn of_multicast_v6(group: Address) -> Self {
        let [a, b, c, d] = group.v4_octets();
        Mac([0x33, 0x33, a, b, c, d])
    }

    /// True for broadcast and multicast addresses.
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn families_keep_apart_and_print_as_written() {
        assert!(ip("192.0.2.1").is_v4() && !ip("2001:db8::1").is_v4());
        assert_eq!(ip("192.0.2.1").to_string(), "192.0.2.1");
        assert_eq!(ip("2001:db8::1").to_string(), "2001:db8::1");
    }

    #[test]
    fn any_v6_does_not_hold_v4() {
        let any6 = Prefix::new("::".parse::<IpAddr>().unwrap(), 0);
        let any4 = Prefix::new("0.0.0.0".parse::<IpAddr>().unwrap(), 0);
        assert!(any6.contains(ip("2001:db8::1")) && !any6.contains(ip("192.0.2.1")));
        assert!(any4.contains(ip("192.0.2.1")) && !any4.contains(ip("2001:db8::1")));
        assert_eq!((any4.to_string(), any6.to_string()), ("0.0.0.0/0".into(), "::/0".into()));
    }

    #[test]
    fn masks_clear_host_bits() {
        assert_eq!(Prefix::new("10.1.2.3".parse::<IpAddr>().unwrap(), 8).address, ip("10.0.0.0"));
        assert_eq!(ip("2001:db8:1:2:3::9").masked(64), ip("2001:db8:1:2::"));
        assert_eq!(ip("2001:db8::ffff").masked(120), ip("2001:db8::ff00"));
    }

    #[test]
    fn solicited_node_group_and_its_mac() {
        let group = ip("2001:db8::12:3456").solicited_node();
        assert_eq!(group, ip("ff02::1:ff12:3456"));
        assert_eq!(Mac::of_multicast_v6(group).to_string(), "33:33:ff:12:34:56");
    }
}
