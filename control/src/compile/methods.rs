//! Load-balancing methods, and what they need of members, nodes and virtual servers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use sluice_dataplane::config::snapshot::Method;

use super::{Compile, listed};
use crate::model::{LoadBalancing, Persistence, Pool, VirtualServer, VirtualType};
use crate::parse::Pointer;
use crate::stats::endpoint;

impl Compile<'_> {
    /// Weighting by connection limits needs one on every member, or node.
    pub(super) fn connection_limits(&mut self, path: &Pointer, pool: &Pool) {
        let (what, word, lacking) = match pool.load_balancing {
            LoadBalancing::WeightedLeastConnectionsMember => {
                let unlimited = pool.members.iter().filter(|member| member.connection_limit.get() == 0);
                let lacking = unlimited.map(|member| endpoint(member.address.0, member.port.0));
                ("member", "weighted-least-connections-member", lacking.collect::<BTreeSet<_>>())
            }
            LoadBalancing::WeightedLeastConnectionsNode => {
                let limit = |ip: &IpAddr| self.nodes.get(ip).map_or(0, |node| node.connection_limit.get());
                let unlimited =
                    pool.members.iter().map(|member| member.address.0).filter(|ip| limit(ip) == 0);
                let lacking = unlimited.map(|ip| ip.to_string());
                ("node", "weighted-least-connections-node", lacking.collect())
            }
            _ => return,
        };
        let lost = if what == "node" {
            self.lost_in("/nodes")
        } else {
            self.lost_in(path.child("members").as_str())
        };
        if !lacking.is_empty() && !lost {
            let lacking = listed(lacking.into_iter());
            let message = format!(
                "expected a connection_limit on every {what}, which {word} weighs by; none on {lacking}"
            );
            self.error(path.child("load_balancing"), message);
        }
    }

    /// Warns where a virtual server gives the method of its pool nothing to go by.
    pub(super) fn method_suits(&mut self, place: Pointer, server: &VirtualServer, pool: &Pool) {
        let why = match pool.load_balancing {
            method if server.kind == VirtualType::Stateless && method.counts_connections() => {
                "this pool's load_balancing goes by connections, and a stateless virtual server makes none"
            }
            LoadBalancing::LeastSessions
                if !server.persistence.as_ref().is_some_and(Persistence::keeps_records) =>
            {
                "this pool's load_balancing goes by persistence records, and this virtual server makes none"
            }
            _ => return,
        };
        self.warn(place, why);
    }
}

impl LoadBalancing {
    /// As the data plane knows it.
    pub(super) fn method(self) -> Method {
        match self {
            LoadBalancing::RoundRobin => Method::RoundRobin,
            LoadBalancing::RatioMember => Method::RatioMember,
            LoadBalancing::RatioNode => Method::RatioNode,
            LoadBalancing::RatioSession => Method::RatioSession,
            LoadBalancing::LeastConnectionsMember => Method::LeastConnectionsMember,
            LoadBalancing::LeastConnectionsNode => Method::LeastConnectionsNode,
            LoadBalancing::WeightedLeastConnectionsMember => Method::WeightedLeastConnectionsMember,
            LoadBalancing::WeightedLeastConnectionsNode => Method::WeightedLeastConnectionsNode,
            LoadBalancing::RatioLeastConnectionsMember => Method::RatioLeastConnectionsMember,
            LoadBalancing::RatioLeastConnectionsNode => Method::RatioLeastConnectionsNode,
            LoadBalancing::FastestNode => Method::FastestNode,
            LoadBalancing::FastestAppResponse => Method::FastestAppResponse,
            LoadBalancing::ObservedMember => Method::ObservedMember,
            LoadBalancing::ObservedNode => Method::ObservedNode,
            LoadBalancing::PredictiveMember => Method::PredictiveMember,
            LoadBalancing::PredictiveNode => Method::PredictiveNode,
            LoadBalancing::LeastSessions => Method::LeastSessions,
            LoadBalancing::ConsistentHash => Method::ConsistentHash,
            LoadBalancing::RandomTwo => Method::RandomTwo,
        }
    }

    /// True when it goes by what connections there are, or how they fare.
    fn counts_connections(self) -> bool {
        !matches!(
            self,
            LoadBalancing::RoundRobin
                | LoadBalancing::RatioMember
                | LoadBalancing::RatioNode
                | LoadBalancing::RatioSession
                | LoadBalancing::ConsistentHash
                | LoadBalancing::RandomTwo
        )
    }
}
