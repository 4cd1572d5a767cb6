//! Nodes: an object's values where there is one, and the defaults for every other member's address.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use sluice_dataplane::config::snapshot as plane;

use super::{Compile, pointer};
use crate::model::{self, Name};
use crate::parse::{Fault, Pointer};

impl Compile<'_> {
    pub(super) fn nodes(&mut self) {
        let model = self.model;
        let members = model.pools.values().flat_map(|pool| &pool.members);
        let used: BTreeSet<IpAddr> = members.map(|member| member.address.0).collect();
        let mut first_with: HashMap<IpAddr, &Name> = HashMap::new();
        for (name, node) in &model.nodes {
            let (place, ip) = (pointer("nodes", name).child("address"), node.address);
            self.node_address(&place, node);
            if let Some(first) = first_with.insert(ip.0, name) {
                let message = format!("expected an address of its own; node {first} is {ip} already");
                self.errors.push(Fault::new(place, message).about(pointer("nodes", first)));
            } else if !used.contains(&ip.0) {
                self.warn(place, format!("no pool has a member at {ip}, so this changes nothing"));
            }
            self.nodes.insert(ip.0, node);
        }
        self.parts.nodes = used.into_iter().map(|address| self.node(address)).collect();
    }

    fn node_address(&mut self, place: &Pointer, node: &model::Node) {
        if let Some(why) = self.no_other_host(node.address.address()) {
            self.error(place.clone(), why);
        }
    }

    fn node(&self, ip: IpAddr) -> plane::Node {
        let (id, address) = (self.ids.node_id(ip), ip.into());
        let plain = plane::Node { id, address, ratio: 1, connection_limit: 0, rate_limit: 0 };
        let said = self.nodes.get(&ip);
        said.map_or(plain.clone(), |node| plane::Node {
            ratio: node.ratio.as_u16(),
            connection_limit: node.connection_limit.as_u32(),
            rate_limit: node.rate_limit.as_u32(),
            ..plain
        })
    }
}
