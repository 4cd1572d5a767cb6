//! Pools and their members.

use hashbrown::HashMap;
use sluice_dataplane::address::Address;
use sluice_dataplane::config::ids::NodeId;
use sluice_dataplane::config::snapshot as plane;

use super::network::unusable_host;
use super::{Compile, Former, pointer};
use crate::model::{Member, Name, Pool, ServiceDownAction};
use crate::parse::{Fault, Pointer};

impl Compile<'_> {
    pub(super) fn pools(&mut self) {
        let model = self.model;
        let mut former = self.former.map(Former::pools);
        for (name, pool) in &model.pools {
            let was = former.as_mut().and_then(|former| former.step(name, pool));
            let compiled = match was {
                Some(was) if was.is_same => self.pool_as_it_was(pool, was.compiled),
                Some(_) | None => self.new_pool(name, pool),
            };
            self.parts.pools.push(compiled);
        }
    }

    /// Its numbers are those it had: they stay with their names.
    fn pool_as_it_was(&mut self, pool: &Pool, compiled: &plane::Pool) -> plane::Pool {
        for (member, compiled) in pool.members.iter().zip(&compiled.members) {
            self.bring_node(compiled.node, member.address.0);
        }
        compiled.clone()
    }

    fn new_pool(&mut self, name: &Name, pool: &Pool) -> plane::Pool {
        let (model, path, warnings) = (self.model, pointer("pools", name), self.warnings.len());
        for (index, monitor) in pool.monitors.iter().enumerate() {
            if !model.monitors.contains_key(monitor) {
                let place = self.place_in(&path.child("monitors"), index);
                self.unknown(place, "monitor", "monitors", monitor, model.monitors.keys());
            }
        }
        self.connection_limits(&path, pool);
        self.priority_groups(&path, pool);
        let compiled = plane::Pool {
            id: self.ids.pool_id(name.as_str()),
            name: name.as_str().into(),
            method: pool.load_balancing.method(),
            members: self.members(&path, name, pool),
            min_active_members: pool.min_active_members.as_u16(),
            slow_ramp_ms: pool.slow_ramp_time.as_ms(),
            service_down_action: service_down_action(pool.service_down_action),
            reselect_tries: pool.reselect_tries.get() as u8,
            queue: self.queue(&path, pool),
        };
        if self.warnings.len() > warnings {
            self.context.odd_pools.insert(name.clone());
        }
        compiled
    }

    fn priority_groups(&mut self, path: &Pointer, pool: &Pool) {
        let (wanted, count) = (pool.min_active_members.as_usize(), pool.members.len());
        let list = path.child("members");
        if wanted > count && !self.lost_in(list.as_str()) {
            let message =
                format!("more than the {count} members of the pool: every priority group is always at work");
            self.warn(path.child("min_active_members"), message);
        }
        let grouped = pool.members.iter().position(|member| member.priority_group.get() > 0);
        if let (0, Some(index)) = (wanted, grouped) {
            let place = self.place_in(&list, index).child("priority_group");
            self.warn(place, "priority groups have no effect while the pool's min_active_members is 0: all members are at work");
        }
    }

    fn queue(&mut self, path: &Pointer, pool: &Pool) -> Option<plane::Queue> {
        let (depth, time_ms) = (pool.queue_depth_limit.as_u32(), pool.queue_time_limit.as_ms());
        if pool.queue_on_connection_limit {
            return Some(plane::Queue { depth, time_ms });
        }
        for (field, is_set) in [("queue_depth_limit", depth > 0), ("queue_time_limit", time_ms > 0)] {
            if is_set {
                self.warn(path.child(field), "has no effect without queue_on_connection_limit: true");
            }
        }
        None
    }

    fn members(&mut self, path: &Pointer, name: &Name, pool: &Pool) -> Vec<plane::Member> {
        let mut first_with = HashMap::with_capacity(pool.members.len());
        let list = path.child("members");
        let mut members = Vec::with_capacity(pool.members.len());
        for (index, member) in pool.members.iter().enumerate() {
            if let Some(first) = first_with.insert((member.address, member.port), index) {
                let (place, first) = (self.place_in(&list, index), self.place_in(&list, first));
                let message =
                    format!("expected each member once; {first} is {}:{} too", member.address, member.port);
                self.errors.push(Fault::new(place.child("address"), message));
            }
            if let Some(why) = self.no_other_host(member.address.address()) {
                let place = self.place_in(&list, index).child("address");
                self.error(place, why);
            }
            let node = self.node_of(member.address.0);
            members.push(self.member(name, node, member));
        }
        members
    }

    fn member(&self, pool: &Name, node: NodeId, member: &Member) -> plane::Member {
        plane::Member {
            id: self.ids.member_id(pool, member),
            node,
            address: member.address.address(),
            port: member.port.0,
            ratio: member.ratio.as_u16(),
            priority_group: member.priority_group.as_u16(),
            connection_limit: member.connection_limit.as_u32(),
            rate_limit: member.rate_limit.as_u32(),
        }
    }

    /// Why no host but us can have this address.
    pub(super) fn no_other_host(&self, address: Address) -> Option<String> {
        if let Some(why) = unusable_host(address) {
            return Some(format!("expected a unicast address; {why}"));
        }
        let own = self.parts.self_ips.iter().find(|own| own.address == address)?;
        Some(format!("expected another host's address; {address} is our own self IP {}", own.name))
    }
}

fn service_down_action(action: ServiceDownAction) -> plane::ServiceDownAction {
    match action {
        ServiceDownAction::None => plane::ServiceDownAction::None,
        ServiceDownAction::Drop => plane::ServiceDownAction::Drop,
        ServiceDownAction::Reset => plane::ServiceDownAction::Reset,
        ServiceDownAction::Reselect => plane::ServiceDownAction::Reselect,
    }
}
