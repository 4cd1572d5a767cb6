//! The configuration of a world.
//!
//! ```text
//!   clients 198.51.100.7 … behind 192.0.2.1, 192.0.2.200 … on the link │ sluice │ 10.1.0.11 … members
//! ```

use sluice_dataplane::address::{Address, Mac};
use sluice_dataplane::config::ids::{MemberId, NodeId, PoolId, VirtualId};
use sluice_dataplane::config::snapshot::{
    Member, Method, Node, Parts, Persistence, PersistenceKind, Pool, Protocol, Queue, ServiceDownAction,
    Snat, SnatPool, SourcePort, Timeouts, Virtual, VirtualKind,
};
use sluice_dataplane::limits::Limits;

use super::random::Random;
use super::wire::{End, TCP, UDP};
use crate::world::{self, virtual_server};

pub const MEMBERS_MAX: usize = 160;
pub const VIRTUALS_MAX: usize = 16;

/// Virtual servers and pools by what they serve.
const SERVICES: [(&str, u16, Protocol, u16); 4] = [
    ("192.0.2.100/32", 80, Protocol::Tcp, 8080),
    ("2001:db8:1::100/128", 80, Protocol::Tcp, 8080),
    ("192.0.2.100/32", 53, Protocol::Udp, 5353),
    ("2001:db8:1::100/128", 53, Protocol::Udp, 5353),
];

pub fn parts(random: &mut Random, calm: bool) -> Parts {
    let mut parts = world::usual();
    parts.pools = (0..4).map(|place| pool(random, place, calm)).collect();
    parts.nodes = (0..64).map(node).collect();
    parts.snat_pools = vec![snat_pool(random)];
    let services = SERVICES.iter().enumerate();
    parts.virtuals = services
        .map(|(place, &(to, port, protocol, _))| {
            virtual_server(place as u32, to, port, protocol, place as u32)
        })
        .collect();
    parts.virtuals.push(virtual_server(4, "192.0.2.101/32", 0, Protocol::Tcp, 0));
    parts.virtuals.push(forwarding(5, "10.1.0.0/24"));
    parts.virtuals.push(forwarding(6, "2001:db8:2::/64"));
    parts.virtuals.push(Virtual {
        kind: VirtualKind::Reject,
        ..virtual_server(7, "192.0.2.102/32", 80, Protocol::Tcp, 0)
    });
    // Some worlds hide every client, some none.
    let snats: &[Snat] = random.pick(&[&SNATS[..], &SNATS[..], &SNATS[1..], &SNATS[..1]]);
    for item in &mut parts.virtuals {
        vary(random, item, calm);
        item.snat = random.pick(snats);
    }
    // Where every port is kept and no two clients have the same, a calm world refuses none.
    if calm && random.per_mille(300) {
        parts.virtuals.iter_mut().for_each(|item| item.source_port = SourcePort::PreserveStrict);
    }
    // Without rates, whoever is refused hears of it.
    (parts.settings.max_reject_rate, parts.settings.max_icmp_rate) = (100_000, 100_000);
    parts
}

pub fn limits(random: &mut Random, calm: bool) -> Limits {
    let flows = if calm { 4_096 } else { random.pick(&[16, 64, 4_096]) };
    Limits {
        flows,
        half_open: if calm { flows } else { random.pick(&[8, 32, 4_096]).min(flows) },
        virtual_servers: VIRTUALS_MAX,
        members: MEMBERS_MAX,
        neighbors: if calm { 128 } else { random.pick(&[24, 128]) },
        frames: 256,
        snat_port_sets: random.pick(&[1, 4, 64]),
        persistence: 256,
        ..Limits::default()
    }
}

/// What clients may ask for: every virtual server, members behind the forwarding ones, and nobody.
pub fn targets(parts: &Parts) -> Vec<(End, u8)> {
    let ip = |text: &str| world::prefix(text).address;
    let mut targets: Vec<_> = SERVICES
        .iter()
        .map(|&(to, port, protocol, _)| ((ip(to), port), if protocol == Protocol::Tcp { TCP } else { UDP }))
        .collect();
    targets.extend([(ip("192.0.2.101/32"), 8080), (ip("192.0.2.101/32"), 81)].map(|end| (end, TCP)));
    targets.extend(targets.clone());
    for member in [&parts.pools[0].members[0], &parts.pools[1].members[0]] {
        targets.extend([
            ((member.address, 8080), TCP),
            ((member.address, 22), TCP),
            ((member.address, 53), UDP),
        ]);
    }
    targets.extend([((ip("192.0.2.102/32"), 80), TCP), ((ip("192.0.2.100/32"), 9), TCP)]);
    targets
}

/// Every translated connection of a family goes out by one address to one or two members.
pub fn crowd(random: &mut Random, parts: &mut Parts) {
    parts.snat_pools[0].addresses = vec![Address::v4([10, 1, 0, 150]), host(130, false)];
    parts.pools.iter_mut().for_each(|pool| pool.members.truncate(random.between(1, 2) as usize));
    let snat = random.pick(&[Snat::Automap, Snat::Pool(0)]);
    for item in &mut parts.virtuals {
        item.snat = if item.id.index() < 4 { snat } else { Snat::None };
        item.source_port = source_port(random.below(3) as u8);
        item.persistence = None;
    }
}

/// As [`super::schedule::Change::SourcePort`] names them.
pub fn source_port(choice: u8) -> SourcePort {
    [SourcePort::PreserveStrict, SourcePort::Preserve, SourcePort::Change][usize::from(choice)]
}

/// The virtual servers that [`crowd`] crowds.
pub fn crowded_targets() -> Vec<(End, u8)> {
    let end = |to: &str, port: u16| (world::prefix(to).address, port);
    let of = |protocol| if protocol == Protocol::Tcp { TCP } else { UDP };
    SERVICES.iter().map(|&(to, port, protocol, _)| (end(to, port), of(protocol))).collect()
}

/// A client of the target's family, on the link or behind the router.
pub fn client(random: &mut Random, target: Address) -> Address {
    let last = random.below(3) as u8;
    match (target.is_v4(), random.per_mille(700)) {
        (true, true) => Address::v4([198, 51, 100, 7 + last]),
        (true, false) => Address::v4([192, 0, 2, 200 + last]),
        (false, true) => world::prefix(&format!("2001:db8:c::{}/128", 7 + last)).address,
        (false, false) => world::prefix(&format!("2001:db8:1::c{last}/128")).address,
    }
}

/// The link address of a host: a client behind the router is reached through the router.
pub fn mac_of(host: Address) -> Mac {
    let [.., last] = host.v4_octets();
    if is_inside(host) {
        return world::member_mac(last);
    }
    let on_link =
        world::prefix("192.0.2.0/24").contains(host) || world::prefix("2001:db8:1::/64").contains(host);
    if on_link { Mac([2, 0, 0, 0, 2, last]) } else { Mac([2, 0, 0, 0, 2, 1]) }
}

pub fn is_inside(host: Address) -> bool {
    world::prefix("10.1.0.0/24").contains(host) || world::prefix("2001:db8:2::/64").contains(host)
}

/// The address of the member's host number `number`.
pub fn host(number: u8, is_v4: bool) -> Address {
    if is_v4 {
        return Address::v4([10, 1, 0, 11 + number]);
    }
    let mut octets = world::prefix("2001:db8:2::/128").address.v6_octets();
    octets[15] = 0x40 + number;
    Address::v6(octets)
}

pub fn member(id: u32, pool: usize, host_number: u8) -> Member {
    let (to, _, _, port) = SERVICES[pool];
    let is_v4 = !to.contains(':');
    let node = NodeId(u32::from(host_number) + if is_v4 { 0 } else { 32 });
    Member { id: MemberId(id), node, address: host(host_number, is_v4), port, ..Member::default() }
}

fn node(number: u32) -> Node {
    let address = host(number as u8 % 32, number < 32);
    Node { id: NodeId(number), address, ratio: 1 + number as u16 % 4, connection_limit: 0, rate_limit: 0 }
}

fn pool(random: &mut Random, place: usize, calm: bool) -> Pool {
    let count = random.pick(&[1, 1, 2, 3, 5, 20]);
    let mut one = |number: u64| {
        let mut member = member((place as u32) * 20 + number as u32, place, number as u8);
        member.ratio = random.between(1, 5) as u16;
        member.priority_group = random.below(3) as u16;
        if !calm && random.per_mille(200) {
            member.connection_limit = random.between(1, 4) as u32;
        }
        member
    };
    let members = (0..count).map(&mut one).collect();
    Pool {
        id: PoolId(place as u32),
        name: format!("p{place}").into(),
        method: random.pick(&METHODS),
        members,
        min_active_members: random.pick(&[0, 0, 1, 2]),
        slow_ramp_ms: random.pick(&[0, 0, 500]),
        service_down_action: if calm { ServiceDownAction::None } else { random.pick(&ACTIONS) },
        reselect_tries: if calm { 0 } else { random.pick(&[0, 0, 1, 3]) },
        queue: (!calm && random.per_mille(200)).then(|| queue(random)),
    }
}

fn queue(random: &mut Random) -> Queue {
    Queue { depth: random.pick(&[0, 1, 5]), time_ms: random.pick(&[0, 200, 1_000]) }
}

fn snat_pool(random: &mut Random) -> SnatPool {
    let count = random.between(1, 3) as u8;
    let v4 = (0..count).map(|number| Address::v4([10, 1, 0, 150 + number]));
    let v6 = (0..count).map(|number| host(130 + number, false));
    SnatPool { name: "egress".into(), addresses: v4.chain(v6).collect() }
}

fn forwarding(id: u32, to: &str) -> Virtual {
    let forward = virtual_server(id, to, 0, Protocol::Any, 0);
    Virtual { kind: VirtualKind::ForwardingIp, pool: None, snat: Snat::None, ..forward }
}

fn vary(random: &mut Random, item: &mut Virtual, calm: bool) {
    item.source_port = random.pick(&[SourcePort::Preserve, SourcePort::Change]);
    item.auto_last_hop = random.per_mille(800);
    if random.per_mille(150) {
        let kind = random.pick(&[PersistenceKind::SourceAddress, PersistenceKind::Hash]);
        item.persistence = Some(Persistence { timeout_ms: 1_000, ..Persistence::new(kind) });
    }
    // Beyond what retransmissions need to get through, in a calm world.
    let long = if calm { 12_000 } else { random.pick(&[1_000, 4_000]) };
    item.timeouts = Timeouts {
        handshake_ms: long,
        close_ms: if calm { long } else { random.pick(&[500, 2_000]) },
        idle_ms: long,
        reset_on_timeout: random.per_mille(800),
    };
    if !calm {
        item.enabled = random.per_mille(950);
        item.connection_limit = random.pick(&[0, 0, 0, 1, 3, 10]);
        item.rate_limit = random.pick(&[0, 0, 0, 5]);
        item.source_port =
            random.pick(&[SourcePort::Preserve, SourcePort::Change, SourcePort::PreserveStrict]);
    }
}

const SNATS: [Snat; 4] = [Snat::None, Snat::Automap, Snat::Automap, Snat::Pool(0)];

const ACTIONS: [ServiceDownAction; 4] =
    [ServiceDownAction::None, ServiceDownAction::Drop, ServiceDownAction::Reset, ServiceDownAction::Reselect];

const METHODS: [Method; 19] = [
    Method::RoundRobin,
    Method::RatioMember,
    Method::RatioNode,
    Method::RatioSession,
    Method::LeastConnectionsMember,
    Method::LeastConnectionsNode,
    Method::WeightedLeastConnectionsMember,
    Method::WeightedLeastConnectionsNode,
    Method::RatioLeastConnectionsMember,
    Method::RatioLeastConnectionsNode,
    Method::FastestNode,
    Method::FastestAppResponse,
    Method::ObservedMember,
    Method::ObservedNode,
    Method::PredictiveMember,
    Method::PredictiveNode,
    Method::LeastSessions,
    Method::ConsistentHash,
    Method::RandomTwo,
];

/// The pool that a virtual server of this number sends to, for what a member may be asked.
pub fn virtual_of(parts: &Parts, target: End, protocol: u8) -> Option<VirtualId> {
    let wanted = if protocol == TCP { Protocol::Tcp } else { Protocol::Udp };
    let fits = |item: &&Virtual| {
        item.matches.iter().any(|row| {
            row.destination.contains(target.0)
                && (row.port == 0 || row.port == target.1)
                && (row.protocol == wanted || row.protocol == Protocol::Any)
        })
    };
    parts.virtuals.iter().find(fits).map(|item| item.id)
}

/// True when members see its clients' ports, though not their addresses.
pub fn keeps_ports(item: &Virtual) -> bool {
    item.source_port == SourcePort::PreserveStrict && item.snat != Snat::None
}

/// True when a virtual server takes connections at all.
pub fn serves(item: &Virtual) -> bool {
    item.enabled && item.kind != VirtualKind::Reject
}
