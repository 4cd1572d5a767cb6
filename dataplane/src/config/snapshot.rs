//! [`Snapshot`]: the whole configuration as workers read it. Immutable; a new one replaces it whole.
//!
//! The control thread fills [`Parts`] with plain values and calls [`Snapshot::build`], which makes the look-up
//! structures. Flows keep ids and the generation, never references, so a swap cuts nothing.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::ids::{LinkId, MemberId, PoolId, PortId, VirtualId};
use crate::address::{Address, Prefix};
use crate::flow::key::FlowKey;
use crate::route::{NextHop, RouteTable};
use crate::virtual_server::lookup::VirtualIndex;

/// What a configuration says, in plain values. `compile` in the control crate makes it.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// Increases with every published snapshot; the first is 1.
    pub generation: u64,
    /// Names of the ports, by [`PortId`].
    pub ports: Vec<String>,
    /// Our own addresses.
    pub self_ips: Vec<SelfIp>,
    /// Static routes; connected routes come from the self IPs by themselves.
    pub routes: Vec<Route>,
    /// Virtual servers, in any order.
    pub virtuals: Vec<Virtual>,
    /// Pools, in any order.
    pub pools: Vec<Pool>,
    /// SNAT pools; [`Snat::Pool`] holds an index into this list.
    pub snat_pools: Vec<SnatPool>,
    /// Global behaviour.
    pub settings: Settings,
}

/// Global behaviour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Answer unmatched packets with RST or ICMP unreachable.
    pub reject_unmatched: bool,
    /// RST and unreachable packets a second at most, over the process.
    pub max_reject_rate: u32,
    /// Other ICMP errors a second at most, over the process.
    pub max_icmp_rate: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { reject_unmatched: true, max_reject_rate: 250, max_icmp_rate: 100 }
    }
}

/// One of our own addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfIp {
    /// The operator's name.
    pub name: String,
    /// The address itself.
    pub address: Address,
    /// Its subnet, which is a connected route.
    pub subnet: Prefix,
    /// Where it lives.
    pub link: LinkId,
}

/// A static route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: Prefix,
    /// The next hop.
    pub gateway: Address,
    /// The link the gateway is on.
    pub link: LinkId,
}

/// A virtual server.
#[derive(Debug, Clone, PartialEq)]
pub struct Virtual {
    /// Stable over applies.
    pub id: VirtualId,
    /// The operator's name.
    pub name: Arc<str>,
    /// What it does with a connection.
    pub kind: VirtualKind,
    /// A disabled virtual server still captures its traffic, and refuses it.
    pub enabled: bool,
    /// What it matches; several when lists of destinations, sources or ports were given.
    pub matches: Vec<Match>,
    /// Where its clients come in.
    pub ingress: Ingress,
    /// Where connections go; `None` for forwarding and reject.
    pub pool: Option<PoolId>,
    /// How the client's address is hidden from members.
    pub snat: Snat,
    /// What becomes of the client's port under SNAT.
    pub source_port: SourcePort,
    /// Connections at once, 0 for no limit.
    pub connection_limit: u32,
    /// When connections end by themselves.
    pub timeouts: Timeouts,
    /// Replies go to the link address that the client's packet came from.
    pub auto_last_hop: bool,
}

impl Virtual {
    /// True when a destination of it is `address` itself, not a network that holds it.
    pub fn names(&self, address: Address) -> bool {
        self.matches.iter().any(|row| row.destination == Prefix::host(address))
    }
}

/// What a virtual server does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VirtualKind {
    /// Packets are rewritten and forwarded to a pool member.
    PerformanceL4,
    /// Packets are routed, with flow state, to where they were going.
    ForwardingIp,
    /// Every packet is refused.
    Reject,
}

/// One row a virtual server matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Match {
    /// Where the packet goes to.
    pub destination: Prefix,
    /// Where it comes from.
    pub source: Prefix,
    /// The destination port; 0 for any.
    pub port: u16,
    /// The upper-layer protocol.
    pub protocol: Protocol,
}

/// Which upper-layer protocols a virtual server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP (6).
    Tcp,
    /// UDP (17).
    Udp,
    /// Both.
    Any,
}

/// The links a virtual server listens on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Ingress {
    /// Every link of every port.
    #[default]
    Any,
    /// These ports, whatever the VLAN.
    Ports(Vec<PortId>),
    /// These links only.
    Links(Vec<LinkId>),
}

impl Ingress {
    /// True when a packet from `link` may match.
    #[inline]
    pub fn contains(&self, link: LinkId) -> bool {
        match self {
            Ingress::Any => true,
            Ingress::Ports(ports) => ports.contains(&link.port()),
            Ingress::Links(links) => links.contains(&link),
        }
    }
}

/// Source address translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Snat {
    /// Members see the client's address.
    #[default]
    None,
    /// A self IP of the link that leads to the member.
    Automap,
    /// An address of this SNAT pool, by index.
    Pool(usize),
}

/// What becomes of the client's port under SNAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourcePort {
    /// Kept where it is free.
    #[default]
    Preserve,
    /// Always another one.
    Change,
}

/// When a flow ends by itself, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP, until the handshake is complete.
    pub handshake_ms: u32,
    /// TCP, after both sides have closed or one has reset.
    pub close_ms: u32,
    /// Without a packet: TCP and UDP.
    pub idle_ms: u32,
    /// Send RST to both sides when an idle TCP flow ends.
    pub reset_on_timeout: bool,
}

impl Timeouts {
    /// The defaults for TCP: handshake 5 s, close 5 s, idle 300 s.
    pub const TCP: Timeouts =
        Timeouts { handshake_ms: 5_000, close_ms: 5_000, idle_ms: 300_000, reset_on_timeout: true };
    /// The defaults for UDP: idle 60 s.
    pub const UDP: Timeouts =
        Timeouts { handshake_ms: 5_000, close_ms: 5_000, idle_ms: 60_000, reset_on_timeout: true };
}

/// A pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Stable over applies.
    pub id: PoolId,
    /// The operator's name.
    pub name: Arc<str>,
    /// How a member is chosen.
    pub method: Method,
    /// In the operator's order.
    pub members: Vec<Member>,
}

/// Load-balancing methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// The next one in turn.
    #[default]
    RoundRobin,
    /// In turn, in proportion to `ratio`.
    RatioMember,
    /// The one with the fewest connections.
    LeastConnectionsMember,
}

/// A pool member.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Stable over applies; also indexes [`MemberStates`].
    pub id: MemberId,
    /// Its address.
    pub address: Address,
    /// Its port; 0 keeps the port that the client asked for.
    pub port: u16,
    /// Weight, at least 1.
    pub ratio: u16,
    /// Connections at once, 0 for no limit.
    pub connection_limit: u32,
}

/// A SNAT pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnatPool {
    /// The operator's name.
    pub name: String,
    /// Of either family.
    pub addresses: Vec<Address>,
}

pub use crate::pool::{MemberState, MemberStates};

/// The configuration as workers read it: the parts, and what makes each look-up a few loads.
#[derive(Debug)]
pub struct Snapshot {
    parts: Parts,
    index: VirtualIndex,
    routes: RouteTable,
    owned: HashMap<Address, Owned>,
    links: Vec<LinkId>,
    /// Members that see clients' own addresses; port 0 for any.
    transparent: HashSet<(Address, u16)>,
    virtual_places: Vec<u32>,
    pool_places: Vec<u32>,
}

/// An address that sluice answers for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// The links on which its link address is given out.
    pub links: Vec<LinkId>,
    /// Answers ICMP echo.
    pub echo: bool,
    /// Belongs to SNAT: replies to it are owned by the worker of their port.
    pub is_source: bool,
}

impl Snapshot {
    /// Makes the look-up structures. Pure; time in proportion to the number of objects.
    pub fn build(parts: Parts) -> Self {
        let links = links_of(&parts);
        Self {
            index: VirtualIndex::build(&parts.virtuals),
            routes: RouteTable::build(&parts.self_ips, &parts.routes),
            owned: owned_addresses(&parts, &links),
            virtual_places: places(parts.virtuals.iter().map(|item| item.id.index())),
            pool_places: places(parts.pools.iter().map(|item| item.id.index())),
            transparent: transparent_members(&parts),
            links,
            parts,
        }
    }

    /// True when `address` and `port` are a member's that sees clients' own addresses.
    pub fn is_transparent_member(&self, address: Address, port: u16) -> bool {
        self.transparent.contains(&(address, port)) || self.transparent.contains(&(address, 0))
    }

    /// The generation.
    pub fn generation(&self) -> u64 {
        self.parts.generation
    }

    /// What it was built from.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The virtual server for a packet with `key` from `link`.
    pub fn match_virtual(&self, key: &FlowKey, link: LinkId) -> Option<&Virtual> {
        self.index.find(key, link, &self.parts.virtuals).map(|place| &self.parts.virtuals[place])
    }

    /// False when `item` only covers `address` by a network and the address is ours: a wildcard takes what passes
    /// through, not what is meant for a self IP or a SNAT address, and never forwards us to ourselves.
    pub fn may_take(&self, item: &Virtual, address: Address) -> bool {
        let own = self.owned(address);
        item.names(address) || own.is_none_or(|own| !own.is_source && item.pool.is_some())
    }

    /// True when `address` is in a subnet of ours on `link`, or link-local.
    pub fn is_on_link(&self, address: Address, link: LinkId) -> bool {
        let holds = |ip: &SelfIp| ip.link == link && ip.subnet.contains(address);
        address.is_link_local() || self.parts.self_ips.iter().any(holds)
    }

    /// The virtual server by id.
    pub fn virtual_by_id(&self, id: VirtualId) -> Option<&Virtual> {
        let place = *self.virtual_places.get(id.index())?;
        self.parts.virtuals.get(place as usize)
    }

    /// The pool by id.
    pub fn pool(&self, id: PoolId) -> Option<&Pool> {
        let place = *self.pool_places.get(id.index())?;
        self.parts.pools.get(place as usize)
    }

    /// The next hop towards `destination`.
    pub fn route(&self, destination: Address) -> Option<NextHop> {
        self.routes.find(destination)
    }

    /// True when something is configured on `link`.
    pub fn has_link(&self, link: LinkId) -> bool {
        self.links.binary_search(&link).is_ok()
    }

    /// What `address` is, if it is ours.
    pub fn owned(&self, address: Address) -> Option<&Owned> {
        self.owned.get(&address)
    }

    /// True when neighbours on `link` may learn that `address` is ours.
    pub fn answers_for(&self, address: Address, link: LinkId) -> bool {
        self.owned(address).is_some_and(|owned| owned.links.contains(&link))
    }

    /// Every address with the links it is announced on, in no particular order.
    pub fn announced(&self) -> impl Iterator<Item = (Address, LinkId)> {
        self.owned.iter().flat_map(|(&address, owned)| owned.links.iter().map(move |&link| (address, link)))
    }

    /// Our own address for talking to `peer` on `link`: a self IP there of its family, in its subnet if there is
    /// one. `None` where we have none.
    pub fn self_ip_towards(&self, link: LinkId, peer: Address) -> Option<Address> {
        let same = |ip: &&SelfIp| ip.link == link && ip.address.is_v4() == peer.is_v4();
        let candidates = self.parts.self_ips.iter().filter(same);
        candidates.max_by_key(|ip| ip.subnet.contains(peer)).map(|ip| ip.address)
    }
}

fn transparent_members(parts: &Parts) -> HashSet<(Address, u16)> {
    let shown = parts.virtuals.iter().filter(|item| item.snat == Snat::None).filter_map(|item| item.pool);
    let shown: HashSet<PoolId> = shown.collect();
    let pools = parts.pools.iter().filter(|pool| shown.contains(&pool.id));
    pools.flat_map(|pool| pool.members.iter().map(|member| (member.address, member.port))).collect()
}

/// Every link that something is configured on; an untagged one on every port.
fn links_of(parts: &Parts) -> Vec<LinkId> {
    let untagged = (0..parts.ports.len()).map(|port| LinkId::new(PortId(port as u8), 0));
    let named = parts.virtuals.iter().filter_map(|item| match &item.ingress {
        Ingress::Links(links) => Some(links.iter().copied()),
        Ingress::Any | Ingress::Ports(_) => None,
    });
    let mut links: Vec<_> =
        untagged.chain(parts.self_ips.iter().map(|ip| ip.link)).chain(named.flatten()).collect();
    links.sort_unstable();
    links.dedup();
    links
}

fn owned_addresses(parts: &Parts, links: &[LinkId]) -> HashMap<Address, Owned> {
    let mut owned: HashMap<Address, Owned> = HashMap::new();
    let mut add = |address: Address, links: Vec<LinkId>, echo: bool, is_source: bool| {
        let entry =
            owned.entry(address).or_insert(Owned { links: Vec::new(), echo: false, is_source: false });
        entry.links.extend(links);
        entry.links.sort_unstable();
        entry.links.dedup();
        (entry.echo, entry.is_source) = (entry.echo | echo, entry.is_source | is_source);
    };
    for ip in &parts.self_ips {
        add(ip.address, vec![ip.link], true, true);
    }
    // A forwarding virtual server's destination is somebody else's address.
    for item in parts.virtuals.iter().filter(|item| item.kind != VirtualKind::ForwardingIp) {
        for row in item.matches.iter().filter(|row| row.destination.bits == 128) {
            let address = row.destination.address;
            let heard: Vec<_> = links.iter().copied().filter(|&link| item.ingress.contains(link)).collect();
            add(address, nearest(address, heard, &parts.self_ips), true, false);
        }
    }
    for &address in parts.snat_pools.iter().flat_map(|pool| &pool.addresses) {
        add(address, nearest(address, links.to_vec(), &parts.self_ips), false, true);
    }
    owned
}

/// Of `links`, those whose subnets hold `address`; all of them when none does.
fn nearest(address: Address, links: Vec<LinkId>, self_ips: &[SelfIp]) -> Vec<LinkId> {
    let holds = |link: &LinkId| self_ips.iter().any(|ip| ip.link == *link && ip.subnet.contains(address));
    let near: Vec<_> = links.iter().copied().filter(holds).collect();
    if near.is_empty() { links } else { near }
}

/// From id to place in a list; `u32::MAX` where there is none.
fn places(ids: impl Iterator<Item = usize>) -> Vec<u32> {
    let mut places = Vec::new();
    for (place, id) in ids.enumerate() {
        if places.len() <= id {
            places.resize(id + 1, u32::MAX);
        }
        places[id] = place as u32;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::build::address;

    const OUTSIDE: LinkId = LinkId::new(PortId(0), 0);
    const INSIDE: LinkId = LinkId::new(PortId(1), 0);

    fn self_ip(text: &str, length: u8, link: LinkId) -> SelfIp {
        SelfIp { name: text.into(), address: address(text), subnet: Prefix::new(address(text), length), link }
    }

    fn snapshot(snat: &str) -> Snapshot {
        Snapshot::build(Parts {
            ports: vec!["external".into(), "internal".into()],
            self_ips: vec![
                self_ip("192.0.2.10", 24, OUTSIDE),
                self_ip("10.1.0.10", 16, INSIDE),
                self_ip("10.2.0.10", 16, INSIDE),
            ],
            snat_pools: vec![SnatPool { name: "egress".into(), addresses: vec![address(snat)] }],
            ..Parts::default()
        })
    }

    #[test]
    fn an_address_is_announced_where_its_subnet_is_and_else_everywhere() {
        let links = |snat| snapshot(snat).owned(address(snat)).map(|owned| owned.links.clone());
        assert_eq!(links("192.0.2.50"), Some(vec![OUTSIDE]));
        assert_eq!(links("203.0.113.1"), Some(vec![OUTSIDE, INSIDE]));
        assert!(!snapshot("192.0.2.50").answers_for(address("192.0.2.50"), INSIDE));
        assert!(!snapshot("192.0.2.50").answers_for(address("192.0.2.51"), OUTSIDE));
    }

    #[test]
    fn automap_prefers_the_self_ip_in_the_peers_subnet() {
        let snapshot = snapshot("192.0.2.50");
        let towards = |peer| snapshot.self_ip_towards(INSIDE, address(peer));
        assert_eq!(towards("10.2.9.9"), Some(address("10.2.0.10")));
        assert_eq!(towards("10.1.9.9"), Some(address("10.1.0.10")));
        assert!(towards("203.0.113.1").is_some());
        assert_eq!(towards("2001:db8::1"), None);
    }
}
