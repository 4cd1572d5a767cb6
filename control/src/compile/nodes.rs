//! Nodes: an object's values where there is one, and the defaults for every other member's address.

use std::net::IpAddr;

use hashbrown::HashMap;
use sluice_dataplane::config::ids::NodeId;
use sluice_dataplane::config::snapshot as plane;

use super::{Compile, pointer};
use crate::model::{self, Name};
use crate::parse::{Fault, Pointer};

impl Compile<'_> {
    pub(super) fn nodes(&mut self) {
        let model = self.model;
        let mut first_with: HashMap<IpAddr, &Name> = HashMap::new();
        for (name, node) in &model.nodes {
            let (place, ip) = (pointer("nodes", name).child("address"), node.address);
            self.node_address(&place, node);
            if let Some(first) = first_with.insert(ip.0, name) {
                let message = format!("expected an address of its own; node {first} is {ip} already");
                self.errors.push(Fault::new(place, message).about(pointer("nodes", first)));
            } else if self.ids.node_id(ip.0) == NodeId::NONE {
                self.warn(place, format!("no pool has a member at {ip}, so this changes nothing"));
            }
            self.nodes.insert(ip.0, node);
        }
    }

    /// The node that a member at `ip` runs on.
    pub(super) fn node_of(&mut self, ip: IpAddr) -> NodeId {
        let id = self.ids.node_id(ip);
        self.bring_node(id, ip);
        id
    }

    /// The first member of a node brings it into the parts.
    pub(super) fn bring_node(&mut self, id: NodeId, ip: IpAddr) {
        if self.has_node.len() <= id.index() && id != NodeId::NONE {
            self.has_node.resize(id.index() + 1, false);
        }
        if let Some(has_node @ false) = self.has_node.get_mut(id.index()) {
            *has_node = true;
            let node = self.node(id, ip);
            self.parts.nodes.push(node);
        }
    }

    fn node_address(&mut self, place: &Pointer, node: &model::Node) {
        if let Some(why) = self.no_other_host(node.address.address()) {
            self.error(place.clone(), why);
        }
    }

    fn node(&self, id: NodeId, ip: IpAddr) -> plane::Node {
        let plain = plane::Node { id, address: ip.into(), ratio: 1, connection_limit: 0, rate_limit: 0 };
        let said = self.nodes.get(&ip);
        said.map_or(plain.clone(), |node| plane::Node {
            ratio: node.ratio.as_u16(),
            connection_limit: node.connection_limit.as_u32(),
            rate_limit: node.rate_limit.as_u32(),
            ..plain
        })
    }
}
