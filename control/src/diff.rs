//! What one configuration changes about another, by object. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::model::shared::{Changed, Same, changes};
use crate::model::{Model, Name, Node, Pool, VirtualServer};
use crate::parse::Pointer;

/// The difference between two configurations.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Diff {
    /// Objects that are new.
    pub added: Vec<Pointer>,
    /// Objects that are different.
    pub changed: Vec<Change>,
    /// Objects that are gone.
    pub removed: Vec<Pointer>,
}

/// One object that is different.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// The object.
    pub path: Pointer,
    /// What about it.
    pub fields: Vec<FieldChange>,
}

/// One field that is different.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    /// Its name; `members/10.1.0.11:80` for a pool's member.
    pub field: String,
    /// What it was; null when it was not there.
    pub from: Value,
    /// What it is; null when it is no longer there.
    pub to: Value,
}

impl Diff {
    /// True when nothing is different.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

/// What `new` changes about `old`.
pub fn diff(old: &Model, new: &Model) -> Diff {
    let (old, new) = without_shared(old, new);
    let (old, new) = (objects(&old), objects(&new));
    let mut diff = Diff::default();
    for (path, object) in &new {
        match old.get(path) {
            None => diff.added.push(path.clone()),
            Some(before) if before != object => {
                diff.changed.push(Change { path: path.clone(), fields: fields(before, object) });
            }
            Some(_) => (),
        }
    }
    diff.removed.extend(old.into_keys().filter(|path| !new.contains_key(path)));
    diff
}

/// Both without the nodes, pools and virtual servers that they share: of those there are many, and most stay as they
/// are.
fn without_shared(old: &Model, new: &Model) -> (Model, Model) {
    let nodes = different(&old.nodes, &new.nodes);
    let pools = different(&old.pools, &new.pools);
    let virtual_servers = different(&old.virtual_servers, &new.virtual_servers);
    (with(old, nodes.0, pools.0, virtual_servers.0), with(new, nodes.1, pools.1, virtual_servers.1))
}

/// `model` with other nodes, pools and virtual servers.
fn with(
    model: &Model,
    nodes: BTreeMap<Name, Node>,
    pools: BTreeMap<Name, Arc<Pool>>,
    virtual_servers: BTreeMap<Name, Arc<VirtualServer>>,
) -> Model {
    Model {
        version: model.version,
        system: model.system.clone(),
        ports: model.ports.clone(),
        self_ips: model.self_ips.clone(),
        routes: model.routes.clone(),
        monitors: model.monitors.clone(),
        nodes,
        pools,
        snat_pools: model.snat_pools.clone(),
        snat_lists: model.snat_lists.clone(),
        nats: model.nats.clone(),
        virtual_servers,
        telemetry: model.telemetry.clone(),
    }
}

/// What is not the same in both, of each.
fn different<T: Clone + Same>(
    old: &BTreeMap<Name, T>,
    new: &BTreeMap<Name, T>,
) -> (BTreeMap<Name, T>, BTreeMap<Name, T>) {
    let changes = changes(old, new);
    let each = |of: fn(&Changed<'_, T>) -> Option<T>| {
        changes.iter().filter_map(|changed| Some((changed.name.clone(), of(changed)?))).collect()
    };
    (each(|changed| changed.old.cloned()), each(|changed| changed.new.cloned()))
}

/// Every object by its path: two levels down, and routes by their destination.
fn objects(model: &Model) -> BTreeMap<Pointer, Value> {
    let mut objects = BTreeMap::new();
    let Value::Object(sections) = model.to_json() else { return objects };
    for (section, value) in sections {
        let path = Pointer::root().child(&section);
        match value {
            Value::Object(entries) => {
                objects.extend(entries.into_iter().map(|(name, object)| (path.child(&name), object)));
            }
            Value::Array(routes) => {
                objects.extend(routes.into_iter().map(|route| (by_destination(&path, &route), route)));
            }
            other => _ = objects.insert(path, other),
        }
    }
    objects
}

fn by_destination(path: &Pointer, route: &Value) -> Pointer {
    path.child(route["destination"].as_str().unwrap_or_default())
}

fn fields(old: &Value, new: &Value) -> Vec<FieldChange> {
    let (Some(before), Some(after)) = (parts(old), parts(new)) else {
        return vec![FieldChange { field: String::new(), from: old.clone(), to: new.clone() }];
    };
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    let value = |of: &BTreeMap<String, Value>, name: &String| of.get(name).cloned().unwrap_or(Value::Null);
    let change = |name: &String| FieldChange {
        field: name.clone(),
        from: value(&before, name),
        to: value(&after, name),
    };
    let mut changes: Vec<_> = names.map(change).filter(|change| change.from != change.to).collect();
    if changes.is_empty() {
        // The same members in another order.
        let order = |of: &Value| of["members"].clone();
        changes.push(FieldChange { field: "members".into(), from: order(old), to: order(new) });
    }
    changes
}

/// An object's fields; a pool's members each on their own.
fn parts(object: &Value) -> Option<BTreeMap<String, Value>> {
    let mut parts = BTreeMap::new();
    for (name, value) in object.as_object()? {
        match value {
            Value::Array(members) if name == "members" => {
                parts.extend(members.iter().map(|member| (member_name(member), member.clone())));
            }
            _ => _ = parts.insert(name.clone(), value.clone()),
        }
    }
    Some(parts)
}

fn member_name(member: &Value) -> String {
    let address = member["address"].as_str().unwrap_or_default();
    let port = member["port"].as_u64().map_or("*".into(), |port| port.to_string());
    if address.contains(':') {
        format!("members/[{address}]:{port}")
    } else {
        format!("members/{address}:{port}")
    }
}
