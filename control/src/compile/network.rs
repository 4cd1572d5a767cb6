//! Ports, our own addresses, and routes.

use std::collections::HashMap;
use std::net::IpAddr;

use sluice_dataplane::address::{Address, Prefix};
use sluice_dataplane::config::ids::{LinkId, PORTS_MAX, PortId};
use sluice_dataplane::config::snapshot as plane;

use super::{Compile, pointer};
use crate::model::{Driver, Interface, Name, Number, Port, Route};
use crate::parse::Fault;

impl<'a> Compile<'a> {
    pub(super) fn ports(&mut self) {
        let model = self.model;
        if model.ports.is_empty() && !self.lost_in("/ports") {
            self.error("/ports", "expected at least one port");
        }
        if model.ports.len() > PORTS_MAX {
            self.error(
                "/ports",
                format!("expected at most {PORTS_MAX} ports; these are {}", model.ports.len()),
            );
        }
        let mut devices = HashMap::new();
        for (name, port) in &model.ports {
            self.parts.ports.push(name.to_string());
            self.port(name, port, &mut devices);
        }
    }

    fn port(&mut self, name: &Name, port: &'a Port, devices: &mut HashMap<&'a str, Name>) {
        let path = pointer("ports", name);
        let (wanted, value, other_name, other) = match port.driver {
            Driver::AfPacket => ("interface", &port.interface, "device", &port.device),
            Driver::Dpdk => ("device", &port.device, "interface", &port.interface),
        };
        let place = path.child(wanted);
        if other.is_some() {
            self.error(
                path.child(other_name),
                format!("expected no {other_name} with this driver, but {wanted}"),
            );
        }
        match value.as_deref() {
            None if other.is_some() => (),
            None => self.error(place, format!("expected \"{wanted}\", which this driver needs")),
            Some("") => self.error(place, format!("expected the name of the {wanted}; it is empty")),
            Some(long) if wanted == "interface" && (long.len() > 15 || long.contains(['/', ' '])) => {
                self.error(
                    place,
                    "expected the name of a Linux interface, 15 characters at most, without / and spaces",
                );
            }
            Some(device) => {
                if let Some(first) = devices.insert(device, name.clone()) {
                    let fault =
                        Fault::new(place, format!("expected another {wanted}; port {first} has it already"));
                    self.errors.push(fault.about(pointer("ports", &first)));
                }
            }
        }
    }

    pub(super) fn self_ips(&mut self) {
        let model = self.model;
        let mut addresses: HashMap<IpAddr, &Name> = HashMap::new();
        for (name, own) in &model.self_ips {
            let path = pointer("self_ips", name);
            if let Some(why) = unusable_interface(own.address) {
                self.error(path.child("address"), why);
                self.self_ip_refused = true;
            }
            if let Some(first) = addresses.insert(own.address.address, name) {
                let message = format!(
                    "expected an address of its own; self IP {first} has {} already",
                    own.address.address
                );
                self.errors
                    .push(Fault::new(path.child("address"), message).about(pointer("self_ips", first)));
            }
            // With an unknown port its subnet still says which gateways are near.
            let port = self.port_named(&path.child("port"), &own.port).unwrap_or(PortId(0));
            let link = LinkId::new(port, own.vlan.map_or(0, Number::as_u16));
            let subnet = own.address.network();
            self.warn_shared_subnet(name, subnet, link);
            let address = own.address.address.into();
            self.parts.self_ips.push(plane::SelfIp { name: name.to_string(), address, subnet, link });
        }
    }

    fn warn_shared_subnet(&mut self, name: &Name, subnet: Prefix, link: LinkId) {
        let twin = self.parts.self_ips.iter().find(|other| other.subnet == subnet && other.link != link);
        if let (Some(twin), false) = (twin, subnet.address.is_link_local()) {
            let message = format!(
                "{subnet} is on another link too (self IP {}); replies may leave by either",
                twin.name
            );
            self.warn(pointer("self_ips", name).child("address"), message);
        }
    }

    /// The port called `name`; reports at `path` when there is none.
    pub(super) fn port_named(&mut self, path: &crate::parse::Pointer, name: &Name) -> Option<PortId> {
        let found = self.ports.get(name.as_str()).copied();
        if found.is_none() && !self.model.ports.contains_key(name) {
            self.unknown(path.clone(), "port", "ports", name, self.model.ports.keys());
        }
        found
    }

    pub(super) fn routes(&mut self) {
        let model = self.model;
        let mut first_with: HashMap<Prefix, usize> = HashMap::new();
        for (index, route) in model.routes.iter().enumerate() {
            // A refused route leaves a gap in the list, so the place in the document is counted with it.
            let path = self.list_place("routes", index);
            if let Some(first) = first_with.insert(route.destination.0, index) {
                let first = self.list_place("routes", first);
                let message = format!("expected one route to {}; {first} is another", route.destination);
                self.errors.push(Fault::new(path.child("destination"), message).about(first));
            }
            if let Some(link) = self.gateway_link(&path, route) {
                let (destination, gateway) = (route.destination.0, route.gateway.address());
                self.parts.routes.push(plane::Route { destination, gateway, link });
            }
        }
    }

    /// The pointer of the `index`-th item that is left of a list.
    pub(super) fn list_place(&self, list: &str, index: usize) -> crate::parse::Pointer {
        self.place_in(&crate::parse::Pointer::root().child(list), index)
    }

    /// The pointer of the `index`-th item that is left of the list at `list`.
    pub(super) fn place_in(&self, list: &crate::parse::Pointer, index: usize) -> crate::parse::Pointer {
        let mut gone: Vec<usize> = self
            .removed
            .range(list.clone()..)
            .take_while(|gone| gone.as_str().starts_with(list.as_str()))
            .filter(|gone| gone.len() == list.len() + 1 && gone.is_within(list))
            .filter_map(|gone| gone.segments().last()?.parse().ok())
            .collect();
        gone.sort_unstable();
        let place = gone.into_iter().fold(index, |place, gone| if gone <= place { place + 1 } else { place });
        list.child(&place.to_string())
    }

    fn gateway_link(&mut self, path: &crate::parse::Pointer, route: &Route) -> Option<LinkId> {
        let gateway = route.gateway.address();
        let place = path.child("gateway");
        if route.destination.0.is_v4() != gateway.is_v4() {
            self.error(place, "expected a gateway of the destination's address family");
            return None;
        }
        if let Some(why) = unusable_host(gateway) {
            self.error(place, format!("expected the address of a router; {why}"));
            return None;
        }
        if let Some(own) = self.parts.self_ips.iter().find(|own| own.address == gateway) {
            let message =
                format!("expected the address of a router; {gateway} is our own self IP {}", own.name);
            self.error(place, message);
            return None;
        }
        let port = match &route.port {
            Some(name) => Some(self.port_named(&path.child("port"), name)?),
            None => None,
        };
        if gateway.is_link_local() && !gateway.is_v4() && port.is_none() {
            self.error(
                path.child("port"),
                format!("expected \"port\": {gateway} is link-local and could be on any"),
            );
            return None;
        }
        self.link_of(gateway, port, route).or_else(|| self.no_link(place, gateway))
    }

    /// The link whose subnet holds `gateway`, by the longest prefix; for a link-local one, the link that is named.
    fn link_of(&self, gateway: Address, port: Option<PortId>, route: &Route) -> Option<LinkId> {
        let vlan = route.vlan.map(Number::as_u16);
        if let (Some(port), true) = (port, gateway.is_link_local()) {
            return Some(LinkId::new(port, vlan.unwrap_or(0)));
        }
        let fits = |own: &&plane::SelfIp| {
            own.subnet.contains(gateway)
                && port.is_none_or(|port| own.link.port() == port)
                && vlan.is_none_or(|vlan| own.link.vlan() == vlan)
        };
        self.parts.self_ips.iter().filter(fits).max_by_key(|own| own.subnet.bits).map(|own| own.link)
    }

    fn no_link(&mut self, place: crate::parse::Pointer, gateway: Address) -> Option<LinkId> {
        if !self.lost_self_ips() {
            let message =
                format!("expected a gateway on the subnet of a self IP; no self IP is on that of {gateway}");
            self.error(place, message);
        }
        None
    }
}

/// Why no host can have this address.
pub(super) fn unusable_host(address: Address) -> Option<String> {
    let broadcast = address.is_v4() && address.v4_octets() == [255; 4];
    let this_network = address.is_v4() && address.v4_octets()[0] == 0;
    let why = match () {
        () if address.is_multicast() => "a multicast address",
        () if address.is_loopback() || (address.is_v4() && address.v4_octets()[0] == 127) => {
            "a loopback address"
        }
        () if address.is_unspecified() => "the unspecified address",
        () if broadcast => "the broadcast address",
        () if this_network => "in 0.0.0.0/8, which no host may have",
        () => return None,
    };
    Some(format!("{address} is {why}"))
}

/// Why no self IP can be this.
fn unusable_interface(own: Interface) -> Option<String> {
    let address: Address = own.address.into();
    if let Some(why) = unusable_host(address) {
        return Some(format!("expected a unicast address; {why}"));
    }
    let (longest, network) = (if address.is_v4() { 31 } else { 127 }, own.network());
    if own.length >= longest {
        return None;
    }
    if network.address == address {
        return Some(format!("expected a host's address; {address} is the network {network} itself"));
    }
    let host_bits = u32::MAX >> own.length.min(31);
    let host = u32::from_be_bytes(address.v4_octets()) & host_bits;
    let broadcast = address.is_v4() && host == host_bits;
    broadcast.then(|| format!("expected a host's address; {address} is the broadcast address of {network}"))
}
