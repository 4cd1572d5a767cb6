//! Where traffic comes in: ports, and VLANs that are named or refused.

use std::collections::BTreeSet;

use sluice_dataplane::config::ids::{LinkId, PortId};
use sluice_dataplane::config::snapshot as plane;

use super::Compile;
use crate::model::{Name, Nat, Number, OneOrMany, VirtualServer};
use crate::parse::Pointer;

type Vlans = Option<OneOrMany<Number<0, 4094>>>;

/// What an object says of where its traffic comes in.
pub(super) struct Asked<'a> {
    ports: Option<&'a [Name]>,
    vlan: &'a Vlans,
    reject_vlan: &'a Vlans,
}

impl<'a> From<&'a VirtualServer> for Asked<'a> {
    fn from(server: &'a VirtualServer) -> Self {
        Self { ports: server.ports.as_deref(), vlan: &server.vlan, reject_vlan: &server.reject_vlan }
    }
}

impl<'a> From<&'a Nat> for Asked<'a> {
    fn from(nat: &'a Nat) -> Self {
        Self { ports: nat.ports.as_deref(), vlan: &nat.vlan, reject_vlan: &nat.reject_vlan }
    }
}

impl Compile<'_> {
    /// Finds the links that something is configured on: what is left when VLANs are rejected.
    pub(super) fn configured_links(&mut self) {
        let untagged: Vec<_> = self.every_port().map(|port| LinkId::new(port, 0)).collect();
        let own = self.parts.self_ips.iter().map(|own| own.link);
        let asked = self
            .model
            .virtual_servers
            .values()
            .map(|server| Asked::from(&**server))
            .chain(self.model.nats.values().map(Asked::from))
            .filter(|asked| asked.vlan.is_some());
        let named = asked.flat_map(|asked| {
            let ports: Vec<PortId> = match asked.ports {
                Some(names) => {
                    names.iter().filter_map(|name| self.ports.get(name.as_str()).copied()).collect()
                }
                None => self.every_port().collect(),
            };
            links_of(&ports, asked.vlan)
        });
        self.context.links = untagged.into_iter().chain(own).chain(named).collect();
    }

    fn every_port(&self) -> impl Iterator<Item = PortId> + use<> {
        (0..self.ports.len() as u8).map(PortId)
    }

    pub(super) fn ingress<'a>(&mut self, path: &Pointer, asked: impl Into<Asked<'a>>) -> plane::Ingress {
        let asked = asked.into();
        let ports = asked.ports.map(|names| self.ingress_ports(path, names));
        for (field, vlans) in [("vlan", asked.vlan), ("reject_vlan", asked.reject_vlan)] {
            self.some_vlans(&path.child(field), vlans);
        }
        if asked.vlan.is_some() && asked.reject_vlan.is_some() {
            self.error(
                path.child("reject_vlan"),
                "expected either vlan or reject_vlan; vlan says it all already",
            );
        }
        match (ports, asked.vlan, asked.reject_vlan) {
            (None, None, None) => plane::Ingress::Any,
            (Some(ports), None, None) => plane::Ingress::Ports(ports),
            (ports, vlan @ Some(_), _) => {
                let ports = ports.unwrap_or_else(|| self.every_port().collect());
                plane::Ingress::Links(links_of(&ports, vlan))
            }
            (ports, None, rejected) => self.ingress_without(path, ports, rejected),
        }
    }

    /// Every link that something is configured on, but those of some VLANs.
    fn ingress_without(
        &mut self,
        path: &Pointer,
        ports: Option<Vec<PortId>>,
        rejected: &Vlans,
    ) -> plane::Ingress {
        let rejected: BTreeSet<u16> = numbers(rejected).collect();
        let is_there = |link: &&LinkId| ports.as_ref().is_none_or(|ports| ports.contains(&link.port()));
        let taken = |link: &&LinkId| !rejected.contains(&link.vlan());
        let links: Vec<LinkId> = self.context.links.iter().filter(is_there).filter(taken).copied().collect();
        let lost = self.lost_in("/ports") || self.lost_in(path.child("ports").as_str());
        if links.is_empty() && ports.is_none_or(|ports| !ports.is_empty()) && !lost {
            self.error(
                path.child("reject_vlan"),
                "expected to leave a VLAN: nothing is configured on any other",
            );
        }
        plane::Ingress::Links(links)
    }

    fn some_vlans(&mut self, place: &Pointer, vlans: &Vlans) {
        if vlans.as_ref().is_some_and(|vlans| vlans.as_slice().is_empty()) && !self.lost_in(place.as_str()) {
            self.error(place.clone(), "expected at least one VLAN; leave it out for all of them");
        }
    }

    fn ingress_ports(&mut self, path: &Pointer, names: &[Name]) -> Vec<PortId> {
        let list = path.child("ports");
        if names.is_empty() && !self.lost_in(list.as_str()) {
            self.error(list.clone(), "expected at least one port; leave it out for all of them");
        }
        let place = |compile: &Self, index| compile.place_in(&list, index);
        names
            .iter()
            .enumerate()
            .filter_map(|(index, name)| {
                let at = place(self, index);
                self.port_named(&at, name)
            })
            .collect()
    }
}

fn numbers(vlans: &Vlans) -> impl Iterator<Item = u16> {
    vlans.iter().flat_map(OneOrMany::as_slice).map(|vlan| vlan.as_u16())
}

fn links_of(ports: &[PortId], vlans: &Vlans) -> Vec<LinkId> {
    numbers(vlans).flat_map(|vlan| ports.iter().map(move |port| LinkId::new(*port, vlan))).collect()
}
