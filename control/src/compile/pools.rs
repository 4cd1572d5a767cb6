//! Monitors, pools and SNAT pools.

use std::collections::{HashMap, HashSet};

use sluice_dataplane::config::snapshot as plane;

use super::network::unusable_host;
use super::{Compile, pointer};
use crate::model::{LoadBalancing, Member, Monitor, MonitorType, Name, Pool};
use crate::parse::{Fault, Pointer};

impl Compile<'_> {
    pub(super) fn monitors(&mut self) {
        let model = self.model;
        for (name, monitor) in &model.monitors {
            let path = pointer("monitors", name);
            self.monitor(&path, monitor);
            self.warn(path, "health monitors are not run in this version: every enabled member counts as up");
        }
    }

    fn monitor(&mut self, path: &Pointer, monitor: &Monitor) {
        if monitor.interval.as_ms() == 0 {
            self.error(path.child("interval"), "expected more than 0s");
        }
        if monitor.timeout <= monitor.interval {
            let interval = monitor.interval;
            self.error(
                path.child("timeout"),
                format!("expected more than the interval, which is {interval}"),
            );
        }
        let silent = matches!(monitor.kind, MonitorType::Icmp | MonitorType::TcpHalfOpen);
        for (field, value) in [("send", &monitor.send), ("receive", &monitor.receive)] {
            if silent && value.is_some() {
                self.error(
                    path.child(field),
                    "expected nothing here: this type of monitor exchanges no text",
                );
            }
        }
    }

    pub(super) fn pools(&mut self) {
        let model = self.model;
        for (name, pool) in &model.pools {
            let path = pointer("pools", name);
            for (index, monitor) in pool.monitors.iter().enumerate() {
                if !model.monitors.contains_key(monitor) {
                    let place = self.place_in(&path.child("monitors"), index);
                    self.unknown(place, "monitor", "monitors", monitor, model.monitors.keys());
                }
            }
            let members = self.members(&path, name, pool);
            let method = match pool.load_balancing {
                LoadBalancing::RoundRobin => plane::Method::RoundRobin,
                LoadBalancing::RatioMember => plane::Method::RatioMember,
                LoadBalancing::LeastConnectionsMember => plane::Method::LeastConnectionsMember,
            };
            let (id, name) = (self.ids.pool_id(name.as_str()), name.as_str().into());
            self.parts.pools.push(plane::Pool { id, name, method, members, ..plane::Pool::default() });
        }
    }

    fn members(&mut self, path: &Pointer, name: &Name, pool: &Pool) -> Vec<plane::Member> {
        let mut first_with = HashMap::new();
        let list = path.child("members");
        let mut members = Vec::with_capacity(pool.members.len());
        for (index, member) in pool.members.iter().enumerate() {
            if let Some(first) = first_with.insert((member.address, member.port), index) {
                let (place, first) = (self.place_in(&list, index), self.place_in(&list, first));
                let message =
                    format!("expected each member once; {first} is {}:{} too", member.address, member.port);
                self.errors.push(Fault::new(place.child("address"), message));
            }
            self.member(&list, index, member);
            members.push(plane::Member {
                id: self.ids.member_id(name, member),
                address: member.address.address(),
                port: member.port.0,
                ratio: member.ratio.as_u16(),
                connection_limit: member.connection_limit.as_u32(),
                ..plane::Member::default()
            });
        }
        members
    }

    fn member(&mut self, list: &Pointer, index: usize, member: &Member) {
        let address = member.address.address();
        if let Some(why) = unusable_host(address) {
            let place = self.place_in(list, index).child("address");
            self.error(place, format!("expected a unicast address; {why}"));
        }
        if let Some(own) = self.parts.self_ips.iter().find(|own| own.address == address) {
            let message =
                format!("expected another host's address; {address} is our own self IP {}", own.name);
            let place = self.place_in(list, index).child("address");
            self.error(place, message);
        }
        if member.priority_group.get() > 0 {
            let place = self.place_in(list, index).child("priority_group");
            self.warn(place, "priority groups are not acted on in this version: all members are in use");
        }
    }

    pub(super) fn snat_pools(&mut self) {
        let model = self.model;
        for (name, pool) in &model.snat_pools {
            let list = pointer("snat_pools", name).child("addresses");
            if pool.addresses.is_empty() && !self.lost_in(list.as_str()) {
                self.error(list.clone(), "expected at least one address");
            }
            let mut seen = HashSet::new();
            for (index, ip) in pool.addresses.iter().enumerate() {
                let wrong =
                    unusable_host(ip.address()).map(|why| format!("expected a unicast address; {why}"));
                let twice =
                    (!seen.insert(ip)).then(|| format!("expected each address once; {ip} stands twice"));
                if let Some(message) = wrong.or(twice) {
                    let place = self.place_in(&list, index);
                    self.error(place, message);
                }
            }
            let addresses = pool.addresses.iter().map(|ip| ip.address()).collect();
            self.parts.snat_pools.push(plane::SnatPool { name: name.to_string(), addresses });
        }
    }
}
