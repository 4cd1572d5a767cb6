//! Nodes, and whether the members on them take connections.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::endpoint;
use super::rows::{Availability, NodeMember, NodeStats};
use super::sums::{ConnectionsSum, node_sum};
use crate::model::{Limit, Member, Model, Name, Node, Pool, StatedMember, VirtualServer};
use crate::process::{Process, View};

impl Process {
    /// Every address that has a member or a node of its own in the configuration, in order.
    pub fn nodes(&self) -> Vec<NodeStats> {
        let view = self.view();
        let stats = |(address, host): (&IpAddr, &Host)| NodeStats {
            address: address.to_string(),
            name: host.node.map(|(name, _)| name.to_string()),
            availability: self.node_availability(&view, *address, host),
            state: host.node.map_or(StatedMember::Enabled, |(_, node)| node.state),
            ratio: host.node.map_or(1, |(_, node)| node.ratio.get()),
            connection_limit: host.node.map_or(0, |(_, node)| node.connection_limit.get()),
            rate_limit: host.node.map_or(0, |(_, node)| node.rate_limit.get()),
            members: host.members.iter().map(|(pool, port)| member_of(pool, *address, *port)).collect(),
            connections: self.node_connections(&view, *address),
        };
        hosts(&view.model).iter().map(stats).collect()
    }

    fn node_availability(&self, view: &View, address: IpAddr, host: &Host) -> Availability {
        let Some((_, node)) = host.node else { return Availability::Available };
        let is_full = is_full(node.connection_limit, self.node_connections(view, address).current);
        availability(node.state, false, is_full)
    }

    fn node_connections(&self, view: &View, address: IpAddr) -> ConnectionsSum {
        let id = view.book.node_id(address);
        let sum = node_sum(self.workers(), id);
        view.baselines.nodes.get(&id).map_or(sum, |base| sum.minus(base))
    }
}

/// What the configuration has at one address.
#[derive(Default)]
struct Host<'a> {
    node: Option<(&'a Name, &'a Node)>,
    members: Vec<(&'a Name, u16)>,
}

fn hosts(model: &Model) -> BTreeMap<IpAddr, Host<'_>> {
    let mut hosts: BTreeMap<IpAddr, Host<'_>> = BTreeMap::new();
    for (name, node) in &model.nodes {
        hosts.entry(node.address.0).or_default().node = Some((name, node));
    }
    for (name, pool) in &model.pools {
        for member in &pool.members {
            hosts.entry(member.address.0).or_default().members.push((name, member.port.0));
        }
    }
    hosts
}

fn member_of(pool: &Name, address: IpAddr, port: u16) -> NodeMember {
    NodeMember { pool: pool.to_string(), member: endpoint(address, port) }
}

/// Whose state is this one, of a member the stricter one of its own and its node's. What monitors find is not known where
/// there are some: they are configured, but do not run.
fn availability(state: StatedMember, is_monitored: bool, is_full: bool) -> Availability {
    match state {
        StatedMember::Offline => Availability::Offline,
        StatedMember::Disabled => Availability::Disabled,
        StatedMember::Enabled if is_full => Availability::Unavailable,
        StatedMember::Enabled if is_monitored => Availability::Unknown,
        StatedMember::Enabled => Availability::Available,
    }
}

/// True when as many connections are open as `limit` allows; 0 is none.
fn is_full(limit: Limit, current: u64) -> bool {
    limit.get() != 0 && current >= limit.get()
}

impl Process {
    /// Of a member: at its limit it is when its node is, too.
    pub(super) fn member_availability(
        &self,
        view: &View,
        pool: (&Name, &Pool),
        member: &Member,
    ) -> Availability {
        let id = view.book.member_id(pool.0, member);
        let current = self.member_sums(view, id).connections.current;
        let node = view.model.nodes.values().find(|node| node.address == member.address);
        let is_node_full = node.is_some_and(|node| {
            is_full(node.connection_limit, self.node_connections(view, member.address.0).current)
        });
        let is_full = is_full(member.connection_limit, current) || is_node_full;
        availability(self.member_state(id), !pool.1.monitors.is_empty(), is_full)
    }

    /// Of a pool: the best of its members', and how many take connections.
    pub(super) fn pool_availability(&self, view: &View, name: &Name) -> (Availability, usize) {
        let Some(pool) = view.model.pools.get(name) else { return (Availability::Offline, 0) };
        let of = |member| self.member_availability(view, (name, pool), member);
        let all: Vec<_> = pool.members.iter().map(of).collect();
        let best = all.iter().min().copied().unwrap_or(Availability::Offline);
        (best, all.iter().filter(|of| of.takes()).count())
    }

    /// Of a virtual server, which has so many connections and whose pool is as it is.
    pub(super) fn virtual_availability(
        server: &VirtualServer,
        current: u64,
        pool: Option<Availability>,
    ) -> Availability {
        match pool.unwrap_or(Availability::Available) {
            _ if !server.enabled => Availability::Disabled,
            of_pool if is_full(server.connection_limit, current) => of_pool.max(Availability::Unavailable),
            of_pool => of_pool,
        }
    }
}
