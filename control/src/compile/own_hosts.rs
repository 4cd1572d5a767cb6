//! What is to be another host's address must not be one that we answer for there: ARP for it would be answered by
//! ourselves, and whoever has it would lose it.

use hashbrown::HashMap;
use sluice_dataplane::address::Address;
use sluice_dataplane::config::ids::LinkId;
use sluice_dataplane::config::snapshot::{Virtual, VirtualKind};

use super::{Compile, pointer};
use crate::model::Name;
use crate::parse::{Fault, Pointer};

/// What an address is used for already: in words, and the object.
pub(super) type Users = HashMap<Address, (String, Pointer)>;

impl Compile<'_> {
    /// Members, gateways and hosts with a translation must be other hosts than we are. Self IPs are looked at where
    /// these are. A virtual server may have the address of a host on a link that its clients do not come in by.
    pub(super) fn other_hosts(&mut self) {
        let mut users = self.own_addresses(|server, address| {
            let answers = server.kind != VirtualKind::ForwardingIp;
            answers && self.link_holding(address).is_some_and(|link| server.ingress.contains(link))
        });
        for (name, nat) in &self.model.nats {
            let user = (format!("NAT {name}"), pointer("nats", name));
            users.insert(nat.translation.address(), user);
        }
        self.parts.self_ips.iter().for_each(|own| drop(users.remove(&own.address)));
        users.retain(|address, _| self.link_holding(*address).is_some());
        if users.is_empty() {
            return;
        }
        let hosts = self.gateways().chain(self.origins()).chain(self.every_member());
        let ours = hosts.filter_map(|(address, host)| Some((address, host, users.get(&address)?)));
        let faults: Vec<_> =
            ours.map(|(address, host, user)| refusal(address, self.place_of(host), user)).collect();
        self.errors.extend(faults);
    }

    /// The link whose subnet holds `address`, by the longest prefix.
    fn link_holding(&self, address: Address) -> Option<LinkId> {
        let holding = self.parts.self_ips.iter().filter(|own| own.subnet.contains(address));
        holding.max_by_key(|own| own.subnet.bits).map(|own| own.link)
    }

    /// Addresses that are ours without any NAT; of virtual servers' hosts, those that `counts` takes.
    pub(super) fn own_addresses(&self, counts: impl Fn(&Virtual, Address) -> bool) -> Users {
        let mut users = Users::new();
        let user = |kind: &str, section: &str, name: &str| {
            (format!("{kind} {name}"), Pointer::root().child(section).child(name))
        };
        for own in &self.parts.self_ips {
            users.insert(own.address, user("self IP", "self_ips", &own.name));
        }
        for pool in &self.parts.snat_pools {
            let user = user("SNAT pool", "snat_pools", &pool.name);
            users.extend(pool.addresses.iter().map(|address| (*address, user.clone())));
        }
        for server in &self.parts.virtuals {
            let user = user("virtual server", "virtual_servers", &server.name);
            let hosts = server.matches.iter().filter(|row| row.destination.bits == 128);
            let hosts = hosts.map(|row| row.destination.address).filter(|host| counts(server, *host));
            users.extend(hosts.map(|host| (host, user.clone())));
        }
        users
    }

    fn gateways(&self) -> impl Iterator<Item = (Address, Host<'_>)> {
        let routes = self.model.routes.iter().enumerate();
        routes.map(|(index, route)| (route.gateway.address(), Host::Gateway(index)))
    }

    /// That a host is its own translation is said elsewhere.
    fn origins(&self) -> impl Iterator<Item = (Address, Host<'_>)> {
        let others = self.model.nats.iter().filter(|(_, nat)| nat.origin != nat.translation);
        others.map(|(name, nat)| (nat.origin.address(), Host::Origin(name)))
    }

    fn every_member(&self) -> impl Iterator<Item = (Address, Host<'_>)> {
        let pools = self.model.pools.iter();
        let members =
            pools.flat_map(|(name, pool)| pool.members.iter().enumerate().map(move |at| (name, at)));
        members.map(|(pool, (index, member))| (member.address.address(), Host::Member(pool, index)))
    }

    fn place_of(&self, host: Host) -> Pointer {
        match host {
            Host::Gateway(index) => self.list_place("routes", index).child("gateway"),
            Host::Origin(nat) => pointer("nats", nat).child("origin"),
            Host::Member(pool, index) => {
                self.place_in(&pointer("pools", pool).child("members"), index).child("address")
            }
        }
    }
}

/// Who is to have an address.
#[derive(Clone, Copy)]
enum Host<'a> {
    /// Of a route, by its place.
    Gateway(usize),
    /// Of a NAT.
    Origin(&'a Name),
    /// Of a pool, by its place.
    Member(&'a Name, usize),
}

fn refusal(address: Address, place: Pointer, (user, object): &(String, Pointer)) -> Fault {
    let message = format!("expected another host's address; {address} is ours, for {user}");
    Fault::new(place, message).about(object.clone())
}
