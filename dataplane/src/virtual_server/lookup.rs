//! Virtual server look-up: the eighteen-row precedence as a search over the shapes of row in use.
//!
//! ```text
//!   shape = (destination bits, source bits, port or *, protocol or any)      sorted, most specific first
//!   one hash look-up a shape:  (shape, masked destination, masked source, port, protocol) ─▶ virtual servers
//! ```
//!
//! A configuration uses few shapes (often two or three), so the cost does not depend on the number of virtual
//! servers, and the precedence holds by the order of the shapes alone: destination (host, longest prefix, any),
//! then source (the same), then a port before `*`, then a protocol before any.

use std::hash::{Hash, Hasher};

use hashbrown::HashMap;

use crate::address::Address;
use crate::config::ids::LinkId;
use crate::config::snapshot::{Ingress, Match, Protocol, Virtual};
use crate::flow::key::FlowKey;
use crate::packet::parse::protocol;

/// Finds virtual servers by what a packet asks for.
#[derive(Debug, Default)]
pub struct VirtualIndex {
    masks_v4: Vec<Mask>,
    masks_v6: Vec<Mask>,
    rows: HashMap<Row, Vec<u32>>,
}

/// Ordered by precedence: greater is more specific.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Shape {
    destination_bits: u8,
    source_bits: u8,
    has_port: bool,
    has_protocol: bool,
}

/// What a row and a packet that it matches have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    destination: Address,
    source: Address,
    /// Port, protocol, destination bits, source bits, in the five lowest bytes.
    rest: u64,
}

impl Hash for Row {
    /// Two words hold all of an IPv4 row.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        if self.destination.high | self.source.high == 0 {
            state.write_u64(self.destination.low << 32 | self.source.low & 0xffff_ffff);
        } else {
            (self.destination, self.source).hash(state);
        }
        state.write_u64(self.rest);
    }
}

/// A shape as it is laid over packets.
#[derive(Debug)]
struct Mask {
    destination: Address,
    source: Address,
    /// Ones where a row has a port, and a protocol.
    rest: u64,
    /// The bits of both prefixes.
    bits: u64,
}

impl VirtualIndex {
    /// Indexes `virtuals` by their place in the slice.
    pub fn build(virtuals: &[Virtual]) -> Self {
        Self::build_of(virtuals, |_| true)
    }

    /// Indexes those of `virtuals` that are `taken`, by their place in the slice.
    pub fn build_of(virtuals: &[Virtual], taken: impl Fn(&Virtual) -> bool) -> Self {
        let mut index = Self::default();
        let (mut shapes_v4, mut shapes_v6) = (Vec::new(), Vec::new());
        for (place, virtual_server) in virtuals.iter().enumerate().filter(|(_, item)| taken(item)) {
            for row in &virtual_server.matches {
                let shapes = if row.destination.is_v4() { &mut shapes_v4 } else { &mut shapes_v6 };
                let shape = Shape::of(row);
                if shapes.last() != Some(&shape) {
                    shapes.push(shape);
                }
                index.add(row, place as u32, virtuals);
            }
        }
        (index.masks_v4, index.masks_v6) = (masks(shapes_v4), masks(shapes_v6));
        index
    }

    /// The virtual server for a packet with `key` that came in on `link`, as its place in the slice that the index
    /// was built from. One hash look-up for each shape of row in the packet's family.
    pub fn find(&self, key: &FlowKey, link: LinkId, virtuals: &[Virtual]) -> Option<usize> {
        let masks = if key.dst.is_v4() { &self.masks_v4 } else { &self.masks_v6 };
        for mask in masks {
            if let Some(places) = self.rows.get(&mask.row_of(key)) {
                let here = |place: &&u32| virtuals[**place as usize].ingress.contains(link);
                if let Some(place) = places.iter().find(here) {
                    return Some(*place as usize);
                }
            }
        }
        None
    }

    fn add(&mut self, row: &Match, place: u32, virtuals: &[Virtual]) {
        let protocol = match row.protocol {
            Protocol::Tcp => protocol::TCP,
            Protocol::Udp => protocol::UDP,
            Protocol::Any => ANY,
        };
        let key = Row {
            destination: row.destination.address,
            source: row.source.address,
            rest: rest_of(row.port, protocol) | bits_of(row.destination.bits, row.source.bits),
        };
        let places = self.rows.entry(key).or_default();
        places.push(place);
        // Named links before named ports before every port.
        places.sort_by_key(|&place| breadth(&virtuals[place as usize].ingress));
    }
}

impl Shape {
    fn of(row: &Match) -> Self {
        Self {
            destination_bits: row.destination.bits,
            source_bits: row.source.bits,
            has_port: row.port != 0,
            has_protocol: row.protocol != Protocol::Any,
        }
    }

    fn mask(self) -> Mask {
        let ones = Address { high: u64::MAX, low: u64::MAX };
        let port = if self.has_port { u16::MAX } else { 0 };
        let protocol = if self.has_protocol { u8::MAX } else { 0 };
        Mask {
            destination: ones.masked(self.destination_bits),
            source: ones.masked(self.source_bits),
            rest: rest_of(port, protocol),
            bits: bits_of(self.destination_bits, self.source_bits),
        }
    }
}

impl Mask {
    #[inline(always)]
    fn row_of(&self, key: &FlowKey) -> Row {
        let both =
            |one: Address, other: Address| Address { high: one.high & other.high, low: one.low & other.low };
        Row {
            destination: both(key.dst, self.destination),
            source: both(key.src, self.source),
            rest: rest_of(key.dst_port, key.protocol) & self.rest | self.bits,
        }
    }
}

/// The masks of `shapes`, most specific first, each once.
fn masks(mut shapes: Vec<Shape>) -> Vec<Mask> {
    shapes.sort_unstable_by(|a, b| b.cmp(a));
    shapes.dedup();
    shapes.into_iter().map(Shape::mask).collect()
}

#[inline(always)]
fn rest_of(port: u16, protocol: u8) -> u64 {
    u64::from(port) << 24 | u64::from(protocol) << 16
}

fn bits_of(destination: u8, source: u8) -> u64 {
    u64::from(destination) << 8 | u64::from(source)
}

fn breadth(ingress: &Ingress) -> u8 {
    match ingress {
        Ingress::Links(_) => 0,
        Ingress::Ports(_) => 1,
        Ingress::Any => 2,
    }
}

const ANY: u8 = 0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Prefix;
    use crate::config::ids::{PortId, VirtualId};
    use crate::packet::build::address;

    const LINK: LinkId = LinkId::new(PortId(0), 0);

    fn prefix(text: &str) -> Prefix {
        let (ip, length) = text.split_once('/').unwrap();
        Prefix::new(address(ip), length.parse().unwrap())
    }

    fn virtual_server(
        number: u32,
        destination: &str,
        source: &str,
        port: u16,
        protocol: Protocol,
    ) -> Virtual {
        Virtual {
            id: VirtualId(number),
            name: number.to_string().into(),
            matches: vec![Match { destination: prefix(destination), source: prefix(source), port, protocol }],
            ..Virtual::default()
        }
    }

    fn key(src: &str, dst: &str, port: u16) -> FlowKey {
        FlowKey { src: address(src), dst: address(dst), src_port: 1, dst_port: port, protocol: protocol::TCP }
    }

    fn rows() -> Vec<Virtual> {
        let destinations = ["192.0.2.100/32", "192.0.2.0/24", "0.0.0.0/0"];
        let sources = ["198.51.100.7/32", "198.51.100.0/24", "0.0.0.0/0"];
        let mut all = Vec::new();
        for destination in destinations {
            for source in sources {
                for port in [80, 0] {
                    all.push(virtual_server(all.len() as u32, destination, source, port, Protocol::Tcp));
                }
            }
        }
        all
    }

    /// For every subset that begins at row n, a packet that matches all rows gets row n.
    #[test]
    fn the_eighteen_rows_in_their_order() {
        let all = rows();
        assert_eq!(all.len(), 18);
        for first in 0..all.len() {
            let mut some = all[first..].to_vec();
            some.reverse();
            let index = VirtualIndex::build(&some);
            let found = index.find(&key("198.51.100.7", "192.0.2.100", 80), LINK, &some).unwrap();
            assert_eq!(some[found].id, VirtualId(first as u32));
        }
    }

    #[test]
    fn rows_that_do_not_match_are_passed_over() {
        let all = rows();
        let index = VirtualIndex::build(&all);
        let find = |src, dst, port| index.find(&key(src, dst, port), LINK, &all).map(|place| place + 1);
        assert_eq!(find("198.51.100.8", "192.0.2.100", 80), Some(3));
        assert_eq!(find("203.0.113.1", "192.0.2.100", 81), Some(6));
        assert_eq!(find("198.51.100.7", "192.0.2.101", 80), Some(7));
        assert_eq!(find("203.0.113.1", "203.0.113.9", 443), Some(18));
        assert_eq!(find("2001:db8::1", "2001:db8::2", 80), None);
    }

    #[test]
    fn longer_prefixes_and_named_protocols_come_first() {
        let all = [
            virtual_server(0, "10.0.0.0/8", "0.0.0.0/0", 0, Protocol::Any),
            virtual_server(1, "10.0.0.0/8", "0.0.0.0/0", 0, Protocol::Tcp),
            virtual_server(2, "10.1.0.0/16", "0.0.0.0/0", 0, Protocol::Any),
            virtual_server(3, "::/0", "::/0", 0, Protocol::Any),
        ];
        let index = VirtualIndex::build(&all);
        let find = |dst| index.find(&key("198.51.100.7", dst, 5), LINK, &all);
        assert_eq!((find("10.1.2.3"), find("10.2.2.3"), find("192.0.2.1")), (Some(2), Some(1), None));
        let udp = FlowKey { protocol: protocol::UDP, ..key("198.51.100.7", "10.2.2.3", 5) };
        assert_eq!(index.find(&udp, LINK, &all), Some(0));
        assert_eq!(index.find(&key("2001:db8::1", "2001:db8::2", 80), LINK, &all), Some(3));
    }

    #[test]
    fn links_narrow_a_match_and_the_narrowest_wins() {
        let vlan = LinkId::new(PortId(0), 100);
        let mut all = vec![virtual_server(0, "192.0.2.100/32", "0.0.0.0/0", 80, Protocol::Tcp); 3];
        all[1].ingress = Ingress::Ports(vec![PortId(1)]);
        all[2].ingress = Ingress::Links(vec![vlan]);
        let index = VirtualIndex::build(&all);
        let find = |link| index.find(&key("198.51.100.7", "192.0.2.100", 80), link, &all);
        assert_eq!((find(LINK), find(LinkId::new(PortId(1), 0)), find(vlan)), (Some(0), Some(1), Some(2)));
        let index = VirtualIndex::build(&all[1..]);
        assert_eq!(index.find(&key("198.51.100.7", "192.0.2.100", 80), LINK, &all[1..]), None);
    }
}
