//! What stands in the workers' tables: routes, neighbours, flows.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sluice_dataplane::address::Address;
use sluice_dataplane::config::ids::{PortId, VirtualId};
use sluice_dataplane::config::snapshot as plane;
use sluice_dataplane::query::{FlowInfo, NeighborInfo, Query, Reply};
use sluice_dataplane::snat::ports::SnatUse;

use super::rows::{FlowStats, NeighborStats, RouteStats, SnatAddressStats, SnatWorkerStats};
use crate::process::Process;

/// Which flows are wanted.
#[derive(Debug, Default)]
pub struct FlowFilter {
    /// At most this many.
    pub limit: usize,
    /// Through this virtual server.
    pub virtual_server: Option<String>,
    /// From this address, or address and port.
    pub client: Option<(IpAddr, Option<u16>)>,
    /// To this address, or address and port.
    pub member: Option<(IpAddr, Option<u16>)>,
}

impl FlowFilter {
    /// Whether this flow through the virtual server of this name is wanted.
    fn wants(&self, flow: &FlowInfo, server: Option<&String>) -> bool {
        let is_at = |wanted: Option<(IpAddr, Option<u16>)>, end: (Address, u16)| {
            wanted.is_none_or(|(address, port)| {
                is_there(end) && end.0 == address.into() && port.is_none_or(|port| port == end.1)
            })
        };
        self.virtual_server.as_ref().is_none_or(|name| server == Some(name))
            && is_at(self.client, flow.client)
            && is_at(self.member, flow.member)
    }
}

/// `1.2.3.4:80` or `[a::b]:80`; port 0 as `*`.
pub fn endpoint(address: impl std::fmt::Display, port: u16) -> String {
    let (address, port) = (address.to_string(), if port == 0 { "*".into() } else { port.to_string() });
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

impl Process {
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

    /// Every SNAT address that a worker knows, by address.
    pub(super) async fn snat_addresses(&self) -> Vec<SnatAddressStats> {
        let mut all: BTreeMap<Address, SnatAddressStats> = BTreeMap::new();
        for worker in self.workers() {
            if let Some(Reply::Snat(used)) = self.ask(worker, Query::Snat).await {
                used.iter().for_each(|used| all.entry(used.address).or_default().add(worker.number(), used));
            }
        }
        all.into_values().collect()
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
                for flow in &page.flows {
                    if filter.wants(flow, names.get(&flow.virtual_id)) {
                        if found.len() >= filter.limit {
                            return (found, true);
                        }
                        found.push(flow_stats(flow, &names, worker.number()));
                    }
                }
                // A worker that gives the same place again would keep us here for ever.
                next = page.next.filter(|next| *next > after);
            }
        }
        (found, false)
    }
}

impl SnatAddressStats {
    fn add(&mut self, worker: usize, used: &SnatUse) {
        self.address = used.address.to_string();
        self.in_use += u64::from(used.in_use);
        self.resting += u64::from(used.resting);
        self.total = u64::from(used.ports_each);
        self.exhausted += used.exhausted;
        let SnatUse { in_use, resting, members, exhausted, .. } = *used;
        self.workers.push(SnatWorkerStats { worker, in_use, resting, members, exhausted });
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
    FlowStats {
        client: end(flow.client),
        destination: end(flow.destination),
        source: end(flow.source),
        member: end(flow.member),
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

/// One end of a flow; none where a proxied connection has no such side.
fn end(end: (Address, u16)) -> Option<String> {
    is_there(end).then(|| endpoint(end.0, end.1))
}

fn is_there((address, port): (Address, u16)) -> bool {
    !address.is_unspecified() || port != 0
}

const FLOWS_PAGE: usize = 256;

#[cfg(test)]
mod tests {
    use sluice_dataplane::config::ids::MemberId;

    use super::*;

    #[test]
    fn endpoints_read() {
        assert_eq!(endpoint("2001:db8::1", 80), "[2001:db8::1]:80");
        assert_eq!(endpoint("192.0.2.1", 0), "192.0.2.1:*");
    }

    fn flow(client: (Address, u16), member: (Address, u16)) -> FlowInfo {
        FlowInfo {
            client,
            destination: client,
            source: member,
            member,
            protocol: 6,
            state: "established",
            virtual_id: VirtualId::NONE,
            member_id: MemberId::NONE,
            idle_ms: 0,
            bytes: (0, 0),
        }
    }

    #[test]
    fn a_side_that_a_proxy_does_not_have_is_no_address() {
        let nobody = (Address::UNSPECIFIED, 0);
        let member = ("10.1.0.11".parse::<IpAddr>().unwrap().into(), 8080);
        let info = flow(nobody, member);
        let row = flow_stats(&info, &BTreeMap::new(), 0);
        assert_eq!((&row.client, &row.destination), (&None, &None));
        assert_eq!(row.member.as_deref(), Some("10.1.0.11:8080"));
        let of = |client: Option<&str>, member: Option<(&str, Option<u16>)>| {
            let client = client.map(|text| (text.parse().unwrap(), None));
            let member = member.map(|(text, port)| (text.parse().unwrap(), port));
            FlowFilter { limit: 1, virtual_server: None, client, member }.wants(&info, None)
        };
        assert!(of(None, Some(("10.1.0.11", None))) && of(None, None));
        assert!(of(None, Some(("10.1.0.11", Some(8080)))) && !of(None, Some(("10.1.0.11", Some(80)))));
        assert!(!of(Some("::"), None), "whoever asks for a client does not mean none");
    }
}
