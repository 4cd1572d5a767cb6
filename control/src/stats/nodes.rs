//! Nodes, and whether the members on them take connections.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::endpoint;
use super::rows::{Availability, NodeMember, NodeStats};
use super::sums::{ConnectionsSum, node_sum};
use crate::model::{Model, Name, Node, StatedMember};
use crate::process::{Process, View};

impl Process {
    /// Every address that has a member or a node of its own in the configuration, in order.
    pub fn nodes(&self) -> Vec<NodeStats> {
        let view = self.view();
        let stats = |(address, host): (&IpAddr, &Host)| NodeStats {
            address: address.to_string(),
            name: host.node.map(|(name, _)| name.to_string()),
            state: host.node.map_or(StatedMember::Enabled, |(_, node)| node.state),
            ratio: host.node.map_or(1, |(_, node)| node.ratio.get()),
            connection_limit: host.node.map_or(0, |(_, node)| node.connection_limit.get()),
            rate_limit: host.node.map_or(0, |(_, node)| node.rate_limit.get()),
            members: host.members.iter().map(|(pool, port)| member_of(pool, *address, *port)).collect(),
            connections: self.node_connections(&view, *address),
        };
        hosts(&view.model).iter().map(stats).collect()
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

/// A member's, whose state (the stricter one of its own and its node's) is `state`. What monitors find is not known
/// where there are some: they are configured, but do not run.
pub(super) fn availability(state: StatedMember, is_monitored: bool) -> Availability {
    match (state, is_monitored) {
        (StatedMember::Offline, _) => Availability::Offline,
        (StatedMember::Disabled, _) => Availability::Disabled,
        (StatedMember::Enabled, true) => Availability::Unknown,
        (StatedMember::Enabled, false) => Availability::Available,
    }
}
