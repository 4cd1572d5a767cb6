//! What two configurations share. Pools and virtual servers are many, and from one apply to the next most stay as they
//! are: these are the same object in both, so that whoever compares looks at two pointers.

use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;
use std::sync::Arc;

use super::{Model, Name, Node};

/// An object that is not the same in two configurations.
pub struct Changed<'a, T> {
    /// Its name.
    pub name: &'a Name,
    /// What it was; `None` when it is new.
    pub old: Option<&'a T>,
    /// What it is; `None` when it is gone.
    pub new: Option<&'a T>,
}

/// Objects that can tell whether they are the same.
pub trait Same {
    /// True when nothing about them differs.
    fn is_same(&self, other: &Self) -> bool;
}

impl<T: PartialEq> Same for Arc<T> {
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(self, other) || self == other
    }
}

impl Same for Node {
    fn is_same(&self, other: &Self) -> bool {
        self == other
    }
}

/// Every object that is not the same in both, by name. Time in proportion to their number, not to what they hold, as
/// far as equal ones are shared.
pub fn changes<'a, T: Same>(old: &'a BTreeMap<Name, T>, new: &'a BTreeMap<Name, T>) -> Vec<Changed<'a, T>> {
    let (mut changes, mut before) = (Vec::new(), Before::new(old));
    let gone = |(name, was)| Changed { name, old: Some(was), new: None };
    for (name, object) in new {
        changes.extend(before.skip_to(name).map(gone));
        let was = before.take(name);
        if !was.is_some_and(|was| was.is_same(object)) {
            changes.push(Changed { name, old: was, new: Some(object) });
        }
    }
    changes.extend(before.0.map(gone));
    changes
}

impl Model {
    /// Takes pools and virtual servers from `former` where they are equal.
    pub fn share_with(&mut self, former: &Model) {
        share(&mut self.pools, &former.pools);
        share(&mut self.virtual_servers, &former.virtual_servers);
    }

    /// True when nothing differs but pools and virtual servers.
    pub fn has_frame_of(&self, other: &Model) -> bool {
        // By name, so that a new section is not forgotten.
        let Model {
            version,
            system,
            ports,
            self_ips,
            routes,
            monitors,
            nodes,
            pools: _,
            snat_pools,
            snat_lists,
            nats,
            virtual_servers: _,
            telemetry,
        } = self;
        (version, system, ports, self_ips) == (&other.version, &other.system, &other.ports, &other.self_ips)
            && (routes, monitors, nodes) == (&other.routes, &other.monitors, &other.nodes)
            && (snat_pools, snat_lists, nats) == (&other.snat_pools, &other.snat_lists, &other.nats)
            && telemetry == &other.telemetry
    }
}

fn share<T: PartialEq>(objects: &mut BTreeMap<Name, Arc<T>>, former: &BTreeMap<Name, Arc<T>>) {
    let mut before = Before::new(former);
    for (name, object) in objects {
        before.skip_to(name).for_each(drop);
        if let Some(was) = before.take(name).filter(|was| was.is_same(object)) {
            *object = Arc::clone(was);
        }
    }
}

/// Goes through the objects of a former configuration in step with those of another one.
struct Before<'a, T>(Peekable<btree_map::Iter<'a, Name, T>>);

impl<'a, T> Before<'a, T> {
    fn new(objects: &'a BTreeMap<Name, T>) -> Self {
        Self(objects.iter().peekable())
    }

    /// Steps over objects before `name`, and returns them.
    fn skip_to(&mut self, name: &Name) -> impl Iterator<Item = (&'a Name, &'a T)> {
        std::iter::from_fn(move || self.0.next_if(|(before, _)| *before < name))
    }

    /// The object of this name, when it comes next.
    fn take(&mut self, name: &Name) -> Option<&'a T> {
        self.0.next_if(|(before, _)| *before == name).map(|(_, was)| was)
    }
}
