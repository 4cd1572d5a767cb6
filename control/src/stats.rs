//! Statistics: counters summed over workers into plain values, for the socket and for metrics.

use std::collections::BTreeMap;

use serde::Serialize;
use sluice_dataplane::config::ids::{MemberId, PortId, VirtualId};
use sluice_dataplane::config::snapshot as plane;
use sluice_dataplane::counters::{Connections, Counter, Traffic};
use sluice_dataplane::query::{FlowInfo, NeighborInfo, Query, Reply};
use sluice_dataplane::runtime::WorkerHandle;
use sluice_dataplane::verdict::DropReason;

use crate::model::{LoadBalancing, Protocol, SnatChoice, StatedMember, VirtualType};
use crate::process::{Process, View};

/// Packets and bytes, seen from sluice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct TrafficSum {
    pub packets_in: u64,
    pub bytes_in: u64,
    pub packets_out: u64,
    pub bytes_out: u64,
}

impl TrafficSum {
    fn add(&mut self, traffic: &Traffic) {
        self.packets_in += traffic.packets_in.load();
        self.bytes_in += traffic.bytes_in.load();
        self.packets_out += traffic.packets_out.load();
        self.bytes_out += traffic.bytes_out.load();
    }

    fn plus(&mut self, other: &TrafficSum) {
        self.packets_in += other.packets_in;
        self.bytes_in += other.bytes_in;
        self.packets_out += other.packets_out;
        self.bytes_out += other.bytes_out;
    }

    fn minus(self, base: &TrafficSum) -> TrafficSum {
        TrafficSum {
            packets_in: self.packets_in.saturating_sub(base.packets_in),
            bytes_in: self.bytes_in.saturating_sub(base.bytes_in),
            packets_out: self.packets_out.saturating_sub(base.packets_out),
            bytes_out: self.bytes_out.saturating_sub(base.bytes_out),
        }
    }
}

/// Connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ConnectionsSum {
    /// Open now.
    pub current: u64,
    /// Opened since start.
    pub total: u64,
    /// The sum of every worker's peak, which is at least the most that were open at once.
    pub peak: u64,
}

impl ConnectionsSum {
    fn add(&mut self, connections: &Connections) {
        // A flow may be counted by one worker and end on another: only the sum is a count.
        self.current = self.current.wrapping_add(connections.current.load());
        self.total += connections.total.load();
        self.peak += connections.peak.load();
    }

    fn plus(&mut self, other: &ConnectionsSum) {
        self.current += other.current;
        self.total += other.total;
        self.peak += other.peak;
    }

    fn minus(self, base: &ConnectionsSum) -> ConnectionsSum {
        let total = self.total.saturating_sub(base.total);
        let peak = if self.peak > base.peak { self.peak } else { self.current };
        ConnectionsSum { current: self.current, total, peak: peak.min(total.max(self.current)) }
    }
}

/// A virtual server's counters over all workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VirtualSums {
    /// Between clients and sluice.
    pub clientside: TrafficSum,
    /// Between sluice and members.
    pub serverside: TrafficSum,
    /// Through it.
    pub connections: ConnectionsSum,
    /// By the number of the reason.
    pub drops: Vec<u64>,
}

impl VirtualSums {
    /// All that was counted for `id`.
    pub fn of(workers: &[WorkerHandle], id: VirtualId) -> Self {
        let mut sums = Self { drops: vec![0; DropReason::COUNT], ..Self::default() };
        for counters in workers.iter().filter_map(|worker| worker.counters().of_virtual(id)) {
            sums.clientside.add(&counters.clientside);
            sums.serverside.add(&counters.serverside);
            sums.connections.add(&counters.connections);
            sums.drops.iter_mut().zip(&counters.drops).for_each(|(sum, count)| *sum += count.load());
        }
        sums
    }

    fn minus(self, base: &VirtualSums) -> VirtualSums {
        let less = |(count, base): (&u64, &u64)| count.saturating_sub(*base);
        VirtualSums {
            clientside: self.clientside.minus(&base.clientside),
            serverside: self.serverside.minus(&base.serverside),
            connections: self.connections.minus(&base.connections),
            drops: self.drops.iter().zip(&base.drops).map(less).collect(),
        }
    }
}

/// A member's counters over all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemberSums {
    /// Between sluice and the member.
    pub serverside: TrafficSum,
    /// To it.
    pub connections: ConnectionsSum,
}

impl MemberSums {
    /// All that was counted for `id`.
    pub fn of(workers: &[WorkerHandle], id: MemberId) -> Self {
        let mut sums = Self::default();
        for counters in workers.iter().filter_map(|worker| worker.counters().of_member(id)) {
            sums.serverside.add(&counters.serverside);
            sums.connections.add(&counters.connections);
        }
        sums
    }

    fn minus(self, base: &MemberSums) -> MemberSums {
        MemberSums {
            serverside: self.serverside.minus(&base.serverside),
            connections: self.connections.minus(&base.connections),
        }
    }
}

/// Drops by reason.
pub type Drops = BTreeMap<&'static str, u64>;

/// One virtual server, for `show virtual-servers`.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct VirtualServerStats {
    pub name: String,
    pub destination: Vec<String>,
    pub protocol: Protocol,
    #[serde(rename = "type")]
    pub kind: VirtualType,
    pub enabled: bool,
    pub pool: Option<String>,
    /// Members of the pool that take new connections; `None` without a pool.
    pub members_available: Option<usize>,
    pub connections: ConnectionsSum,
    pub clientside: TrafficSum,
    pub serverside: TrafficSum,
    pub drops: Drops,
}

/// One pool, for `show pools`.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct PoolStats {
    pub name: String,
    pub load_balancing: LoadBalancing,
    pub members: usize,
    pub members_available: usize,
    pub monitors: Vec<String>,
    pub connections: ConnectionsSum,
    pub serverside: TrafficSum,
}

/// One member, for `show members`.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct MemberStats {
    pub pool: String,
    /// As in the path of `PATCH /v1/pools/{pool}/members/{member}`.
    pub member: String,
    pub address: String,
    pub port: u16,
    pub state: StatedMember,
    /// `config`, `runtime` (said since) or `default`.
    pub state_from: &'static str,
    pub ratio: u64,
    pub priority_group: u64,
    pub connection_limit: u64,
    pub connections: ConnectionsSum,
    pub serverside: TrafficSum,
}

/// One port, for `show ports`.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct PortStats {
    pub name: String,
    pub driver: &'static str,
    pub device: String,
    pub mac: String,
    pub mtu: u16,
    pub link: &'static str,
    pub queues: usize,
    pub offloads: Vec<&'static str>,
    pub traffic: TrafficSum,
    pub rx_missed: u64,
    pub rx_errors: u64,
    pub rx_no_memory: u64,
    pub tx_errors: u64,
}

/// One worker, for `show workers`.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct WorkerStats {
    pub worker: usize,
    pub core: Option<usize>,
    pub running: bool,
    pub generation: u64,
    pub turns: u64,
    pub busy_turns: u64,
    /// Of all turns, the part that found work, in percent.
    pub busy_percent: f64,
    pub sleeps: u64,
    pub slept_ms: u64,
    pub longest_turn_us: f64,
    pub flows: u64,
    pub half_open: u64,
    pub neighbors: u64,
    pub snat_ports: u64,
    pub rejects_sent: u64,
    pub rejects_limited: u64,
    pub tables: Vec<TableStats>,
}

/// One table of a worker.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct TableStats {
    pub name: &'static str,
    pub capacity: usize,
    pub bytes: usize,
    pub pages: &'static str,
}

/// For `show drops`.
#[derive(Debug, Serialize)]
pub struct DropStats {
    /// Over all workers.
    pub total: Drops,
    /// For each worker.
    pub workers: Vec<WorkerDrops>,
    /// For each virtual server, what had matched it.
    pub virtual_servers: Vec<VirtualDrops>,
}

/// One worker's drops.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct WorkerDrops {
    pub worker: usize,
    pub drops: Drops,
}

/// One virtual server's drops.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct VirtualDrops {
    pub virtual_server: String,
    pub drops: Drops,
}

/// For `show snat`.
#[derive(Debug, Serialize)]
pub struct SnatStats {
    /// Over all workers.
    pub ports_in_use: u64,
    /// Every SNAT pool.
    pub pools: Vec<SnatPoolStats>,
    /// Virtual servers that use self IPs.
    pub automap: Vec<String>,
}

/// One SNAT pool.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct SnatPoolStats {
    pub name: String,
    pub addresses: Vec<String>,
    pub virtual_servers: Vec<String>,
}

/// One route, for `show routes`.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct RouteStats {
    pub destination: String,
    pub gateway: Option<String>,
    pub port: String,
    pub vlan: Option<u16>,
    /// `connected` or `static`.
    pub origin: &'static str,
    /// The self IP of a connected route.
    pub self_ip: Option<String>,
}

/// One neighbour, for `show neighbors`.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct NeighborStats {
    pub address: String,
    pub port: String,
    pub vlan: Option<u16>,
    pub mac: Option<String>,
    pub state: &'static str,
    pub age_ms: u32,
    pub worker: usize,
}

/// One flow, for `show flows`.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct FlowStats {
    pub client: String,
    pub destination: String,
    pub source: String,
    pub member: String,
    pub protocol: &'static str,
    pub state: &'static str,
    pub virtual_server: Option<String>,
    pub idle_ms: u32,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub worker: usize,
}

/// Which flows are wanted.
#[derive(Debug, Default)]
pub struct FlowFilter {
    /// At most this many.
    pub limit: usize,
    /// Through this virtual server.
    pub virtual_server: Option<String>,
    /// From this address, or address and port.
    pub client: Option<String>,
    /// To this address, or address and port.
    pub member: Option<String>,
}

impl FlowFilter {
    fn wants(&self, flow: &FlowStats) -> bool {
        let at = |wanted: &Option<String>, place: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == place || wanted == host_of(place))
        };
        let server =
            self.virtual_server.as_ref().is_none_or(|name| flow.virtual_server.as_ref() == Some(name));
        server && at(&self.client, &flow.client) && at(&self.member, &flow.member)
    }
}

/// `[a::b]:80` and `1.2.3.4:80` without port and brackets.
fn host_of(place: &str) -> &str {
    place.rsplit_once(':').map_or(place, |(host, _)| host.trim_start_matches('[').trim_end_matches(']'))
}

/// `1.2.3.4:80` or `[a::b]:80`; port 0 as `*`.
pub fn endpoint(address: impl std::fmt::Display, port: u16) -> String {
    let (address, port) = (address.to_string(), if port == 0 { "*".into() } else { port.to_string() });
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

impl Process {
    /// Every virtual server.
    pub fn virtual_servers(&self) -> Vec<VirtualServerStats> {
        let view = self.view();
        let stats = |(name, server): (&crate::model::Name, &crate::model::VirtualServer)| {
            let sums = self.virtual_sums(&view, name.as_str());
            VirtualServerStats {
                name: name.to_string(),
                destination: server.destination.as_slice().iter().map(ToString::to_string).collect(),
                protocol: server.protocol,
                kind: server.kind,
                enabled: server.enabled,
                pool: server.pool.as_ref().map(ToString::to_string),
                members_available: server.pool.as_ref().map(|pool| self.available(&view, pool)),
                connections: sums.connections,
                clientside: sums.clientside,
                serverside: sums.serverside,
                drops: named(&sums.drops),
            }
        };
        view.model.virtual_servers.iter().map(stats).collect()
    }

    fn virtual_sums(&self, view: &View, name: &str) -> VirtualSums {
        let id = view.book.virtual_id(name);
        let sums = VirtualSums::of(self.workers(), id);
        match view.baselines.virtuals.get(&id) {
            Some(base) => sums.minus(base),
            None => sums,
        }
    }

    fn member_sums(&self, view: &View, id: MemberId) -> MemberSums {
        let sums = MemberSums::of(self.workers(), id);
        view.baselines.members.get(&id).map_or(sums, |base| sums.minus(base))
    }

    fn available(&self, view: &View, pool: &crate::model::Name) -> usize {
        let Some(members) = view.model.pools.get(pool).map(|pool| &pool.members) else { return 0 };
        let enabled = |member: &&crate::model::Member| {
            self.member_state(view.book.member_id(pool, member)) == StatedMember::Enabled
        };
        members.iter().filter(enabled).count()
    }

    /// Every pool.
    pub fn pools(&self) -> Vec<PoolStats> {
        let view = self.view();
        let stats = |(name, pool): (&crate::model::Name, &crate::model::Pool)| {
            let (mut connections, mut serverside) = (ConnectionsSum::default(), TrafficSum::default());
            for member in &pool.members {
                let sums = self.member_sums(&view, view.book.member_id(name, member));
                connections.plus(&sums.connections);
                serverside.plus(&sums.serverside);
            }
            PoolStats {
                name: name.to_string(),
                load_balancing: pool.load_balancing,
                members: pool.members.len(),
                members_available: self.available(&view, name),
                monitors: pool.monitors.iter().map(ToString::to_string).collect(),
                connections,
                serverside,
            }
        };
        view.model.pools.iter().map(stats).collect()
    }

    /// Every member of every pool.
    pub fn members(&self) -> Vec<MemberStats> {
        let view = self.view();
        let all = view
            .model
            .pools
            .iter()
            .flat_map(|(name, pool)| pool.members.iter().map(move |member| (name, member)));
        let stats = |(pool, member): (&crate::model::Name, &crate::model::Member)| {
            let id = view.book.member_id(pool, member);
            let sums = self.member_sums(&view, id);
            let said = view.said.contains_key(&(pool.clone(), member.address.0, member.port.0));
            MemberStats {
                pool: pool.to_string(),
                member: endpoint(member.address, member.port.0),
                address: member.address.to_string(),
                port: member.port.0,
                state: self.member_state(id),
                state_from: match (said, member.state) {
                    (true, _) => "runtime",
                    (false, Some(_)) => "config",
                    (false, None) => "default",
                },
                ratio: member.ratio.get(),
                priority_group: member.priority_group.get(),
                connection_limit: member.connection_limit.get(),
                connections: sums.connections,
                serverside: sums.serverside,
            }
        };
        all.map(stats).collect()
    }

    /// Every port.
    pub fn port_stats(&self) -> Vec<PortStats> {
        let stats = |(number, info): (usize, &sluice_dataplane::port::PortInfo)| {
            let id = PortId(number as u8);
            let mut traffic = TrafficSum::default();
            self.workers().iter().for_each(|worker| traffic.add(&worker.counters().of_port(id).frames));
            let sum = |pick: fn(&sluice_dataplane::counters::PortCounters) -> &Counter| -> u64 {
                self.workers().iter().map(|worker| pick(worker.counters().of_port(id)).load()).sum()
            };
            PortStats {
                name: info.name.clone(),
                driver: info.driver,
                device: info.device.clone(),
                mac: info.mac.to_string(),
                mtu: info.mtu,
                link: if sum(|port| &port.link_up) > 0 { "up" } else { "down" },
                queues: info.queues,
                offloads: info.offloads.clone(),
                traffic,
                rx_missed: sum(|port| &port.rx_missed),
                rx_errors: sum(|port| &port.rx_errors),
                rx_no_memory: sum(|port| &port.rx_no_memory),
                tx_errors: sum(|port| &port.tx_errors),
            }
        };
        self.ports().iter().enumerate().map(stats).collect()
    }

    /// Every worker.
    pub fn worker_stats(&self) -> Vec<WorkerStats> {
        self.workers().iter().map(worker_stats).collect()
    }

    /// Every drop, by reason.
    pub fn drops(&self) -> DropStats {
        let view = self.view();
        let of = |worker: &WorkerHandle| {
            DropReason::ALL.iter().map(|reason| worker.counters().of_drop(*reason).load()).collect::<Vec<_>>()
        };
        let workers: Vec<_> = self.workers().iter().map(|worker| (worker.number(), of(worker))).collect();
        let total: Vec<u64> = (0..DropReason::COUNT)
            .map(|reason| workers.iter().map(|(_, drops)| drops[reason]).sum())
            .collect();
        let by_virtual = view.model.virtual_servers.keys().map(|name| VirtualDrops {
            virtual_server: name.to_string(),
            drops: named(&self.virtual_sums(&view, name.as_str()).drops),
        });
        let by_worker =
            workers.iter().map(|(worker, drops)| WorkerDrops { worker: *worker, drops: named(drops) });
        DropStats {
            total: named(&total),
            workers: by_worker.collect(),
            virtual_servers: by_virtual.collect(),
        }
    }

    /// Source address translation.
    pub fn snat(&self) -> SnatStats {
        let view = self.view();
        let using = |wanted: &SnatChoice| -> Vec<String> {
            let servers = view.model.virtual_servers.iter();
            servers.filter(|(_, server)| server.snat == *wanted).map(|(name, _)| name.to_string()).collect()
        };
        let pools = view.model.snat_pools.iter().map(|(name, pool)| SnatPoolStats {
            name: name.to_string(),
            addresses: pool.addresses.iter().map(ToString::to_string).collect(),
            virtual_servers: using(&SnatChoice::Pool(name.clone())),
        });
        SnatStats {
            ports_in_use: self.workers().iter().map(|worker| worker.counters().snat_ports.load()).sum(),
            pools: pools.collect(),
            automap: using(&SnatChoice::Automap),
        }
    }

    /// Every route.
    pub fn routes(&self) -> Vec<RouteStats> {
        let view = self.view();
        let parts = view.snapshot.parts();
        let connected = parts.self_ips.iter().map(|own| connected_route(parts, own));
        connected.chain(parts.routes.iter().map(|route| static_route(parts, route))).collect()
    }

    /// Every neighbour that a worker knows.
    pub async fn neighbors(&self) -> Vec<NeighborStats> {
        let view = self.view();
        let mut all = Vec::new();
        for worker in self.workers() {
            if let Some(Reply::Neighbors(known)) = self.ask(worker, Query::Neighbors).await {
                all.extend(
                    known
                        .iter()
                        .map(|neighbor| neighbor_stats(view.snapshot.parts(), neighbor, worker.number())),
                );
            }
        }
        all
    }

    /// Flows that pass `filter`, and whether there may be more.
    pub async fn flow_stats(&self, filter: &FlowFilter) -> (Vec<FlowStats>, bool) {
        let view = self.view();
        let names: BTreeMap<VirtualId, String> = view
            .snapshot
            .parts()
            .virtuals
            .iter()
            .map(|server| (server.id, server.name.to_string()))
            .collect();
        let mut found = Vec::new();
        for worker in self.workers() {
            let mut next = Some(0);
            while let Some(after) = next {
                let Some(Reply::Flows(page)) =
                    self.ask(worker, Query::Flows { after, max: FLOWS_PAGE }).await
                else {
                    break;
                };
                for flow in page.flows.iter().map(|flow| flow_stats(flow, &names, worker.number())) {
                    if filter.wants(&flow) {
                        if found.len() >= filter.limit {
                            return (found, true);
                        }
                        found.push(flow);
                    }
                }
                // A worker that gives the same place again would keep us here for ever.
                next = page.next.filter(|next| *next > after);
            }
        }
        (found, false)
    }
}

fn named(counts: &[u64]) -> Drops {
    DropReason::ALL.iter().map(|reason| reason.name()).zip(counts.iter().copied()).collect()
}

fn worker_stats(worker: &WorkerHandle) -> WorkerStats {
    let (counters, looped) = (worker.counters(), worker.counters().of_loop());
    let (turns, busy_turns) = (looped.turns.load(), looped.busy_turns.load());
    let table = |table: &sluice_dataplane::worker::TableFacts| TableStats {
        name: table.name,
        capacity: table.capacity,
        bytes: table.bytes,
        pages: table.pages,
    };
    WorkerStats {
        worker: worker.number(),
        core: worker.core(),
        running: !worker.is_finished(),
        generation: worker.taken(),
        turns,
        busy_turns,
        busy_percent: if turns == 0 {
            0.0
        } else {
            (busy_turns as f64 / turns as f64 * 1_000.0).round() / 10.0
        },
        sleeps: looped.sleeps.load(),
        slept_ms: looped.slept_ns.load() / 1_000_000,
        longest_turn_us: looped.longest_turn_ns.load() as f64 / 1_000.0,
        flows: counters.flows.load(),
        half_open: counters.half_open.load(),
        neighbors: counters.neighbors.load(),
        snat_ports: counters.snat_ports.load(),
        rejects_sent: counters.rejects_sent.load(),
        rejects_limited: counters.rejects_limited.load(),
        tables: worker.facts().tables.iter().map(table).collect(),
    }
}

fn port_name(parts: &plane::Parts, port: PortId) -> String {
    parts.ports.get(usize::from(port.0)).cloned().unwrap_or_default()
}

fn vlan(link: sluice_dataplane::config::ids::LinkId) -> Option<u16> {
    (link.vlan() > 0).then(|| link.vlan())
}

fn connected_route(parts: &plane::Parts, own: &plane::SelfIp) -> RouteStats {
    RouteStats {
        destination: own.subnet.to_string(),
        gateway: None,
        port: port_name(parts, own.link.port()),
        vlan: vlan(own.link),
        origin: "connected",
        self_ip: Some(own.name.clone()),
    }
}

fn static_route(parts: &plane::Parts, route: &plane::Route) -> RouteStats {
    RouteStats {
        destination: route.destination.to_string(),
        gateway: Some(route.gateway.to_string()),
        port: port_name(parts, route.link.port()),
        vlan: vlan(route.link),
        origin: "static",
        self_ip: None,
    }
}

fn neighbor_stats(parts: &plane::Parts, neighbor: &NeighborInfo, worker: usize) -> NeighborStats {
    NeighborStats {
        address: neighbor.address.to_string(),
        port: port_name(parts, neighbor.link.port()),
        vlan: vlan(neighbor.link),
        mac: neighbor.mac.map(|mac| mac.to_string()),
        state: neighbor.state,
        age_ms: neighbor.age_ms,
        worker,
    }
}

fn flow_stats(flow: &FlowInfo, names: &BTreeMap<VirtualId, String>, worker: usize) -> FlowStats {
    let place = |(address, port): (sluice_dataplane::address::Address, u16)| endpoint(address, port);
    FlowStats {
        client: place(flow.client),
        destination: place(flow.destination),
        source: place(flow.source),
        member: place(flow.member),
        protocol: match flow.protocol {
            6 => "tcp",
            17 => "udp",
            _ => "other",
        },
        state: flow.state,
        virtual_server: names.get(&flow.virtual_id).cloned(),
        idle_ms: flow.idle_ms,
        bytes_in: flow.bytes.0,
        bytes_out: flow.bytes.1,
        worker,
    }
}

const FLOWS_PAGE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_changed_its_object_counts_anew() {
        let base = ConnectionsSum { current: 0, total: 90, peak: 12 };
        let now = ConnectionsSum { current: 3, total: 95, peak: 12 };
        assert_eq!(now.minus(&base), ConnectionsSum { current: 3, total: 5, peak: 3 });
    }

    #[test]
    fn endpoints_read_and_filter() {
        assert_eq!(endpoint("2001:db8::1", 80), "[2001:db8::1]:80");
        assert_eq!(endpoint("192.0.2.1", 0), "192.0.2.1:*");
        assert_eq!((host_of("[2001:db8::1]:80"), host_of("192.0.2.1:80")), ("2001:db8::1", "192.0.2.1"));
    }
}
