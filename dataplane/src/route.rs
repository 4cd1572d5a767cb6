//! Routes: connected subnets and static routes, longest prefix first.

use hashbrown::HashMap;

use crate::address::{Address, Prefix};
use crate::config::ids::LinkId;
use crate::config::snapshot::{Route, SelfIp};

/// Where a packet goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// The link to send it on.
    pub link: LinkId,
    /// Whose link address it needs: the gateway's, or the destination's own.
    pub address: Address,
}

/// The routing table. Immutable.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// Prefix lengths in use, longest first.
    lengths: Vec<u8>,
    targets: HashMap<Prefix, Target>,
}

#[derive(Debug, Clone, Copy)]
struct Target {
    link: LinkId,
    gateway: Option<Address>,
}

impl RouteTable {
    /// From the self IPs' subnets and the static routes; a connected subnet wins over a static route to the same.
    pub fn build(self_ips: &[SelfIp], routes: &[Route]) -> Self {
        let mut targets = HashMap::new();
        for route in routes {
            targets.insert(route.destination, Target { link: route.link, gateway: Some(route.gateway) });
        }
        for self_ip in self_ips {
            targets.insert(self_ip.subnet, Target { link: self_ip.link, gateway: None });
        }
        let mut lengths: Vec<u8> = targets.keys().map(|prefix| prefix.bits).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        Self { lengths, targets }
    }

    /// The next hop towards `destination`. One hash look-up for each prefix length in use.
    pub fn find(&self, destination: Address) -> Option<NextHop> {
        let target = self.lengths.iter().find_map(|&bits| {
            let prefix = Prefix { address: destination.masked(bits), bits };
            self.targets.get(&prefix).filter(|_| bits >= 96 || !destination.is_v4())
        })?;
        Some(NextHop { link: target.link, address: target.gateway.unwrap_or(destination) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ids::PortId;
    use crate::packet::build::address;

    const OUTSIDE: LinkId = LinkId::new(PortId(0), 0);
    const INSIDE: LinkId = LinkId::new(PortId(1), 0);

    fn table() -> RouteTable {
        let self_ip = |text: &str, length, link| SelfIp {
            name: text.into(),
            address: address(text),
            subnet: Prefix::new(address(text), length),
            link,
        };
        let route = |to: &str, length, gateway: &str| Route {
            destination: Prefix::new(address(to), length),
            gateway: address(gateway),
            link: OUTSIDE,
        };
        RouteTable::build(
            &[
                self_ip("192.0.2.10", 24, OUTSIDE),
                self_ip("10.1.0.10", 16, INSIDE),
                self_ip("2001:db8::1", 64, INSIDE),
            ],
            &[
                route("0.0.0.0", 0, "192.0.2.1"),
                route("10.1.2.0", 24, "192.0.2.7"),
                route("10.1.0.0", 16, "192.0.2.9"),
            ],
        )
    }

    #[test]
    fn the_longest_prefix_wins_and_connected_beats_static() {
        let table = table();
        let find = |to| table.find(address(to));
        let hop = |link, to| Some(NextHop { link, address: address(to) });
        assert_eq!(find("192.0.2.55"), hop(OUTSIDE, "192.0.2.55"));
        assert_eq!(find("10.1.3.4"), hop(INSIDE, "10.1.3.4"));
        assert_eq!(find("10.1.2.4"), hop(OUTSIDE, "192.0.2.7"));
        assert_eq!(find("203.0.113.1"), hop(OUTSIDE, "192.0.2.1"));
    }

    #[test]
    fn families_do_not_mix() {
        let table = table();
        assert_eq!(table.find(address("2001:db8::9")).map(|hop| hop.link), Some(INSIDE));
        assert_eq!(table.find(address("2001:db8:1::9")), None);
    }
}
