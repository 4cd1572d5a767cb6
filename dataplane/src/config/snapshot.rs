//! [`Snapshot`]: the whole configuration as workers read it. Immutable; a new one replaces it whole.
//!
//! The control thread fills [`Parts`] with plain values and calls [`Snapshot::build`], which makes the look-up
//! structures. Flows keep ids and the generation, never references, so a swap cuts nothing.

use hashbrown::{HashMap, HashSet};

use super::ids::{LinkId, MemberId, NodeId, PoolId, PortId, VirtualId};
use crate::address::{Address, Prefix};
use crate::flow::key::FlowKey;
use crate::lb::maglev::{Maglev, MaglevTables};
use crate::quota::Limited;
use crate::route::{NextHop, RouteTable};
use crate::virtual_server::lookup::VirtualIndex;

pub use super::parts::*;
pub use crate::pool::{MemberState, MemberStates};

/// The configuration as workers read it: the parts, and what makes each look-up a few loads.
#[derive(Debug)]
pub struct Snapshot {
    parts: Parts,
    index: VirtualIndex,
    routes: RouteTable,
    owned: HashMap<Address, Owned>,
    /// Sources that no packet from outside has.
    martians: HashSet<Address>,
    /// Where neighbours ask for our IPv6 addresses, sorted.
    groups: Vec<(Address, LinkId)>,
    links: Vec<LinkId>,
    /// Members that see clients' own addresses; port 0 for any.
    transparent: HashSet<(Address, u16)>,
    /// Ports of SNAT addresses that virtual servers listen on.
    listened_sources: Vec<(Address, u16)>,
    /// SNAT addresses behind which clients must keep their ports.
    kept_port_sources: Vec<Address>,
    virtual_places: Vec<u32>,
    pool_places: Vec<u32>,
    /// By member: the places of its pool, and of itself there.
    member_places: Vec<(u32, u32)>,
    node_places: Vec<u32>,
    connection_limits: Vec<(Limited, u32)>,
    /// From origin and from translation to the place in `nats`.
    origins: HashMap<Address, usize>,
    translations: HashMap<Address, usize>,
    maglevs: MaglevTables,
}

/// An address that sluice answers for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// The links on which its link address is given out.
    pub links: Vec<LinkId>,
    /// Answers ICMP echo.
    pub echo: bool,
    /// Belongs to SNAT: replies to it are owned by the worker of their port, which the hash of the reply names, or
    /// the port alone ([`Snapshot::kept_port_sources`]).
    pub is_source: bool,
}

impl Snapshot {
    /// Makes the look-up structures. Pure; time in proportion to the number of objects, and a few milliseconds
    /// for each Maglev table.
    pub fn build(parts: Parts) -> Self {
        Self::build_with(parts, &MaglevTables::default())
    }

    /// As [`Snapshot::build`], with the Maglev tables of `former` where the members are the same.
    pub fn build_after(parts: Parts, former: &Snapshot) -> Self {
        Self::build_with(parts, &former.maglevs)
    }

    fn build_with(parts: Parts, former: &MaglevTables) -> Self {
        let links = links_of(&parts);
        let captures = |item: &Virtual| item.enabled || !parts.settings.continue_matching;
        let owned = owned_addresses(&parts, &links);
        Self {
            maglevs: MaglevTables::build(&parts, former),
            index: VirtualIndex::build_of(&parts.virtuals, captures),
            routes: RouteTable::build(&parts.self_ips, &parts.routes),
            listened_sources: listened_sources(&parts, &owned),
            kept_port_sources: kept_port_sources(&parts),
            martians: martians(&parts),
            groups: groups(&owned),
            owned,
            virtual_places: places(parts.virtuals.iter().map(|item| item.id.index())),
            pool_places: places(parts.pools.iter().map(|item| item.id.index())),
            transparent: transparent_members(&parts),
            links,
            member_places: member_places(&parts),
            node_places: places(parts.nodes.iter().map(|node| node.id.index())),
            connection_limits: connection_limits(&parts),
            origins: parts.nats.iter().enumerate().map(|(place, nat)| (nat.origin, place)).collect(),
            translations: parts
                .nats
                .iter()
                .enumerate()
                .map(|(place, nat)| (nat.translation, place))
                .collect(),
            parts,
        }
    }

    /// Everything with a connection limit, sorted.
    pub fn connection_limits(&self) -> &[(Limited, u32)] {
        &self.connection_limits
    }

    /// True when `address` and `port` are a member's that sees clients' own addresses.
    pub fn is_transparent_member(&self, address: Address, port: u16) -> bool {
        self.transparent.contains(&(address, port)) || self.transparent.contains(&(address, 0))
    }

    /// SNAT addresses and self IPs with ports that virtual servers listen on: no connection may come from there. A
    /// virtual server on every port of an address bars none, for what belongs to a flow finds it first.
    pub fn listened_sources(&self) -> &[(Address, u16)] {
        &self.listened_sources
    }

    /// SNAT addresses behind which some virtual server's clients keep their ports or are refused: who owns a port
    /// there follows from its number.
    pub fn kept_port_sources(&self) -> &[Address] {
        &self.kept_port_sources
    }

    /// True when there can be flows whose owner is not the one that their packets name by hash.
    pub fn has_owners_by_rule(&self) -> bool {
        !self.parts.nats.is_empty()
            || self.parts.virtuals.iter().any(|item| may_show_clients(&item) || keeps_ports(item))
    }

    /// True when members see another address than that of `client` through `item`.
    pub fn hides(&self, item: &Virtual, client: Address) -> bool {
        self.snat_of(item, client) != Snat::None
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

    /// How a client of `item` is translated: what a SNAT list says of it, by the longest prefix.
    pub fn snat_of(&self, item: &Virtual, client: Address) -> Snat {
        let Snat::List(place) = item.snat else { return item.snat };
        let rows = self.parts.snat_lists.get(place).map_or(&[][..], |list| &list.rows);
        let holding = rows.iter().filter(|(source, _)| source.contains(client));
        holding.max_by_key(|(source, _)| source.bits).map_or(Snat::None, |(_, snat)| *snat)
    }

    /// False when `item` only covers `address` by a network and the address is ours: a wildcard takes what passes
    /// through, not what is meant for a self IP or a SNAT address, and never forwards us to ourselves.
    pub fn may_take(&self, item: &Virtual, address: Address) -> bool {
        let is_free = |own: &Owned| !own.is_source && item.pool.is_some();
        item.names(address) || self.owned(address).is_none_or(is_free)
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

    /// The member by id.
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        let &(pool, place) = self.member_places.get(id.index())?;
        self.parts.pools.get(pool as usize)?.members.get(place as usize)
    }

    /// The pool that the member is in.
    pub fn pool_of_member(&self, id: MemberId) -> Option<&Pool> {
        self.place_of_member(id).map(|(pool, _)| pool)
    }

    /// The pool that the member is in, and its place among the pool's members.
    pub fn place_of_member(&self, id: MemberId) -> Option<(&Pool, usize)> {
        let &(pool, place) = self.member_places.get(id.index())?;
        self.parts.pools.get(pool as usize).map(|pool| (pool, place as usize))
    }

    /// The node by id.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        let place = *self.node_places.get(id.index())?;
        self.parts.nodes.get(place as usize)
    }

    /// The Maglev table of a pool that is balanced by hash.
    pub fn maglev(&self, pool: PoolId) -> Option<&Maglev> {
        self.maglevs.of(pool)
    }

    /// The one-to-one translation of a host's own address.
    pub fn nat_of_origin(&self, origin: Address) -> Option<&Nat> {
        self.origins.get(&origin).map(|place| &self.parts.nats[*place])
    }

    /// The one-to-one translation that `address` is the outside of.
    pub fn nat_of_translation(&self, address: Address) -> Option<&Nat> {
        self.translations.get(&address).map(|place| &self.parts.nats[*place])
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

    /// True when no packet may come in by `link` from `address`: our own towards servers there, or that of all hosts of a
    /// subnet (RFC 1122 section 3.2.1.3, RFC 1812 section 5.3.7). What comes back to us by another link may be ours.
    pub fn is_martian(&self, address: Address, link: LinkId) -> bool {
        self.martians.contains(&address)
            && self.owned(address).is_none_or(|own| own.is_source && own.links.contains(&link))
    }

    /// True when neighbours on `link` may learn that `address` is ours.
    pub fn answers_for(&self, address: Address, link: LinkId) -> bool {
        self.owned(address).is_some_and(|owned| owned.links.contains(&link))
    }

    /// Every address with the links it is announced on, in no particular order.
    pub fn announced(&self) -> impl Iterator<Item = (Address, LinkId)> {
        self.owned.iter().flat_map(|(&address, owned)| owned.links.iter().map(move |&link| (address, link)))
    }

    /// The solicited-node groups of our IPv6 addresses (RFC 4291 section 2.7.1), each once for each link.
    pub fn groups(&self) -> &[(Address, LinkId)] {
        &self.groups
    }

    /// True when one of our addresses is asked for in `group` on `link`.
    pub fn listens_to(&self, group: Address, link: LinkId) -> bool {
        self.groups.binary_search(&(group, link)).is_ok()
    }

    /// Our own address for talking to `peer` on `link`: a self IP there of its family, in its subnet if there is
    /// one. `None` where we have none.
    pub fn self_ip_towards(&self, link: LinkId, peer: Address) -> Option<Address> {
        let same = |ip: &&SelfIp| ip.link == link && ip.address.is_v4() == peer.is_v4();
        let candidates = self.parts.self_ips.iter().filter(same);
        candidates.max_by_key(|ip| ip.subnet.contains(peer)).map(|ip| ip.address)
    }
}

fn groups(owned: &HashMap<Address, Owned>) -> Vec<(Address, LinkId)> {
    let of_v6 = owned.iter().filter(|(address, _)| !address.is_v4());
    let mut groups: Vec<_> = of_v6
        .flat_map(|(address, owned)| owned.links.iter().map(|&link| (address.solicited_node(), link)))
        .collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

fn member_places(parts: &Parts) -> Vec<(u32, u32)> {
    let mut places = Vec::new();
    for (pool, of_pool) in parts.pools.iter().enumerate() {
        for (place, member) in of_pool.members.iter().enumerate() {
            if places.len() <= member.id.index() {
                places.resize(member.id.index() + 1, (u32::MAX, u32::MAX));
            }
            places[member.id.index()] = (pool as u32, place as u32);
        }
    }
    places
}

fn connection_limits(parts: &Parts) -> Vec<(Limited, u32)> {
    let virtuals = parts.virtuals.iter().map(|item| (Limited::Virtual(item.id), item.connection_limit));
    let members = parts.pools.iter().flat_map(|pool| &pool.members);
    let members = members.map(|member| (Limited::Member(member.id), member.connection_limit));
    let nodes = parts.nodes.iter().map(|node| (Limited::Node(node.id), node.connection_limit));
    let mut limits: Vec<_> = virtuals.chain(members).chain(nodes).filter(|(_, limit)| *limit != 0).collect();
    limits.sort_unstable();
    limits.dedup_by_key(|(what, _)| *what);
    limits
}

fn transparent_members(parts: &Parts) -> HashSet<(Address, u16)> {
    let shown = parts.virtuals.iter().filter(may_show_clients).filter_map(|item| item.pool);
    let shown: HashSet<PoolId> = shown.collect();
    let pools = parts.pools.iter().filter(|pool| shown.contains(&pool.id));
    pools.flat_map(|pool| pool.members.iter().map(|member| (member.address, member.port))).collect()
}

/// True when members may see clients' own addresses.
fn may_show_clients(item: &&Virtual) -> bool {
    matches!(item.snat, Snat::None | Snat::List(_))
}

/// True when members see its clients' ports, or nothing.
fn keeps_ports(item: &Virtual) -> bool {
    item.source_port == SourcePort::PreserveStrict
}

fn kept_port_sources(parts: &Parts) -> Vec<Address> {
    let mut sources = Vec::new();
    let mut add = |snat: Snat| match snat {
        Snat::None | Snat::List(_) => {}
        Snat::Automap => sources.extend(parts.self_ips.iter().map(|ip| ip.address)),
        Snat::Pool(place) => {
            sources.extend(parts.snat_pools.get(place).iter().flat_map(|pool| &pool.addresses));
        }
    };
    for item in parts.virtuals.iter().filter(|item| keeps_ports(item)) {
        match item.snat {
            Snat::List(place) => {
                let rows = parts.snat_lists.get(place).into_iter().flat_map(|list| &list.rows);
                rows.for_each(|(_, snat)| add(*snat));
            }
            snat => add(snat),
        }
    }
    sources.sort_unstable();
    sources.dedup();
    sources
}

fn listened_sources(parts: &Parts, owned: &HashMap<Address, Owned>) -> Vec<(Address, u16)> {
    let is_source = |address| owned.get(&address).is_some_and(|own| own.is_source);
    let rows = parts.virtuals.iter().flat_map(|item| &item.matches);
    let hosts = rows.filter(|row| row.destination.bits == 128 && row.port != 0);
    let named = hosts.map(|row| (row.destination.address, row.port));
    let mut listened: Vec<_> = named.filter(|(address, _)| is_source(*address)).collect();
    listened.sort_unstable();
    listened.dedup();
    listened
}

fn martians(parts: &Parts) -> HashSet<Address> {
    let sources = parts.snat_pools.iter().flat_map(|pool| &pool.addresses).copied();
    let of_subnets = parts.self_ips.iter().flat_map(|ip| all_hosts(ip.subnet));
    // In a wider subnet around it that is an honest host.
    let is_host = |address| {
        parts
            .self_ips
            .iter()
            .any(|ip| ip.subnet.contains(address) && !all_hosts(ip.subnet).any(|all| all == address))
    };
    let broadcasts = of_subnets.filter(|address| !is_host(*address));
    parts.self_ips.iter().map(|ip| ip.address).chain(sources).chain(broadcasts).collect()
}

/// What stands for all hosts of a subnet, today and long ago.
fn all_hosts(subnet: Prefix) -> impl Iterator<Item = Address> {
    subnet.broadcast().into_iter().flat_map(move |all| [all, subnet.address])
}

/// Every link that something is configured on; an untagged one on every port.
fn links_of(parts: &Parts) -> Vec<LinkId> {
    let untagged = (0..parts.ports.len()).map(|port| LinkId::new(PortId(port as u8), 0));
    let ingresses =
        parts.virtuals.iter().map(|item| &item.ingress).chain(parts.nats.iter().map(|nat| &nat.ingress));
    let named = ingresses.filter_map(|ingress| match ingress {
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
    // Echo requests to a translation are its origin's to answer. Replies to its origin come in where its subnet is,
    // wherever others may begin.
    for nat in &parts.nats {
        let heard: Vec<_> = links.iter().copied().filter(|&link| nat.ingress.contains(link)).collect();
        add(nat.translation, nearest(nat.translation, heard, &parts.self_ips), false, false);
        add(nat.translation, holding(nat.translation, links, &parts.self_ips), false, false);
    }
    owned
}

/// Of `links`, those whose subnets hold `address`; all of them when none does.
fn nearest(address: Address, links: Vec<LinkId>, self_ips: &[SelfIp]) -> Vec<LinkId> {
    let near = holding(address, &links, self_ips);
    if near.is_empty() { links } else { near }
}

/// Those of `links` whose subnets hold `address`.
fn holding(address: Address, links: &[LinkId], self_ips: &[SelfIp]) -> Vec<LinkId> {
    let holds = |link: &LinkId| self_ips.iter().any(|ip| ip.link == *link && ip.subnet.contains(address));
    links.iter().copied().filter(holds).collect()
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
    use crate::address::Prefix;
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
    fn a_translation_is_announced_where_its_traffic_and_replies_come_in() {
        let tagged = LinkId::new(PortId(1), 7);
        let nat = |translation: &str, ingress| Nat {
            name: translation.into(),
            origin: address("10.1.0.5"),
            translation: address(translation),
            ingress,
        };
        let snapshot = Snapshot::build(Parts {
            ports: vec!["external".into(), "internal".into()],
            self_ips: vec![self_ip("192.0.2.10", 24, OUTSIDE)],
            nats: vec![
                nat("192.0.2.60", Ingress::Any),
                nat("192.0.2.61", Ingress::Ports(vec![PortId(1)])),
                nat("203.0.113.60", Ingress::Links(vec![tagged])),
            ],
            ..Parts::default()
        });
        let owned = |text| snapshot.owned(address(text)).cloned();
        let announced = |links| Some(Owned { links, echo: false, is_source: false });
        assert_eq!(owned("192.0.2.60"), announced(vec![OUTSIDE]));
        assert_eq!(owned("192.0.2.61"), announced(vec![OUTSIDE, INSIDE, tagged]));
        assert_eq!(owned("203.0.113.60"), announced(vec![tagged]));
        assert_eq!(owned("10.1.0.5"), None);
        assert!(snapshot.has_link(tagged));
    }

    #[test]
    fn a_disabled_virtual_server_captures_its_traffic_unless_matching_continues() {
        let prefix = |length| Prefix::new(address("192.0.2.100"), length);
        let server = |id, enabled, length| Virtual {
            id: VirtualId(id),
            enabled,
            matches: vec![Match {
                destination: prefix(length),
                source: Prefix::new(Address::v4([0; 4]), 0),
                port: 80,
                protocol: Protocol::Tcp,
            }],
            ..Virtual::default()
        };
        let key = FlowKey {
            src: address("198.51.100.7"),
            dst: address("192.0.2.100"),
            src_port: 40_000,
            dst_port: 80,
            protocol: crate::packet::parse::protocol::TCP,
        };
        let found = |continue_matching, enabled| {
            let settings = Settings { continue_matching, ..Settings::default() };
            let virtuals = vec![server(0, enabled, 32), server(1, true, 24)];
            let snapshot = Snapshot::build(Parts { settings, virtuals, ..Parts::default() });
            snapshot.match_virtual(&key, OUTSIDE).map(|item| item.id.0)
        };
        assert_eq!((found(false, true), found(true, true)), (Some(0), Some(0)));
        assert_eq!((found(false, false), found(true, false)), (Some(0), Some(1)));
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
