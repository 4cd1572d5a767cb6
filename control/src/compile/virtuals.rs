//! Virtual servers: what each matches, where its clients come in, where its connections go.

use sluice_dataplane::address::{Address, Prefix};
use sluice_dataplane::config::ids::PoolId;
use sluice_dataplane::config::snapshot as plane;

use super::former::Was;
use super::network::unusable_host;
use super::proxy::needs_no_pool;
use super::{Compile, Former, pointer};
use crate::model::{
    Destination, Member, Name, OneOrMany, Protocol, SourcePortChoice, Span, VirtualServer, VirtualType,
};
use crate::parse::Pointer;

impl Compile<'_> {
    pub(super) fn virtual_servers(&mut self) {
        let model = self.model;
        let former = self.former.filter(|former| former.context.links == self.context.links);
        let mut walk = former.map(Former::virtual_servers);
        let changed = former.map(|former| former.changed_pools(model)).unwrap_or_default();
        for (name, server) in &model.virtual_servers {
            let was = walk.as_mut().and_then(|walk| walk.step(name, server));
            let is_same =
                |was: &Was<'_, _>| was.is_same && !server.pools().any(|pool| changed.contains(pool));
            let compiled = match &was {
                Some(was) if is_same(was) => was.compiled.clone(),
                Some(_) | None => self.new_virtual_server(name, server),
            };
            let takes_as_before = |was: Was<'_, plane::Virtual>| {
                (&was.compiled.matches, &was.compiled.ingress) == (&compiled.matches, &compiled.ingress)
            };
            self.takes_otherwise |= !was.is_some_and(takes_as_before);
            self.parts.virtuals.push(compiled);
        }
    }

    fn new_virtual_server(&mut self, name: &Name, server: &VirtualServer) -> plane::Virtual {
        let warnings = self.warnings.len();
        let compiled = self.virtual_server(&pointer("virtual_servers", name), name, server);
        if self.warnings.len() > warnings {
            self.context.odd_virtual_servers.insert(name.clone());
        }
        compiled
    }

    fn virtual_server(&mut self, path: &Pointer, name: &Name, server: &VirtualServer) -> plane::Virtual {
        let (id, kind) = (self.ids.virtual_id(name.as_str()), self.kind(path, server));
        plane::Virtual {
            id,
            name: name.as_str().into(),
            kind,
            enabled: server.enabled,
            matches: self.matches(path, server),
            ingress: self.ingress(path, server),
            pool: self.pool(path, server),
            snat: self.snat(path, server),
            source_port: source_port(server.source_port),
            connection_limit: server.connection_limit.as_u32(),
            rate_limit: server.rate_limit.as_u32(),
            persistence: self.persistence(path, server),
            mss_clamp: self.mss_clamp(path, server),
            timeouts: self.timeouts(path, server),
            proxy: self.proxy(path, server, id),
            auto_last_hop: server.auto_last_hop,
        }
    }

    fn kind(&mut self, path: &Pointer, server: &VirtualServer) -> plane::VirtualKind {
        match server.kind {
            VirtualType::Standard => {
                self.tcp_only(path, server);
                plane::VirtualKind::Standard
            }
            VirtualType::PerformanceL4 => plane::VirtualKind::PerformanceL4,
            VirtualType::ForwardingIp => plane::VirtualKind::ForwardingIp,
            VirtualType::Reject => plane::VirtualKind::Reject,
            VirtualType::Stateless => {
                let lost = self.removed.contains(&path.child("protocol"));
                if server.protocol != Protocol::Udp && !lost {
                    self.error(
                        path.child("protocol"),
                        "expected udp, all that a stateless virtual server takes",
                    );
                }
                plane::VirtualKind::Stateless
            }
        }
    }

    fn mss_clamp(&mut self, path: &Pointer, server: &VirtualServer) -> Option<u16> {
        let clamp = server.mss_clamp?;
        if server.protocol == Protocol::Udp || server.kind == VirtualType::Reject {
            let why = "expected no mss_clamp: this virtual server forwards no TCP segments";
            self.error(path.child("mss_clamp"), why);
        }
        Some(clamp.as_u16())
    }

    fn timeouts(&mut self, path: &Pointer, server: &VirtualServer) -> plane::Timeouts {
        let defaults =
            if server.protocol == Protocol::Udp { plane::Timeouts::UDP } else { plane::Timeouts::TCP };
        let written = [
            ("idle_timeout", server.idle_timeout),
            ("handshake_timeout", Some(server.handshake_timeout)),
            ("close_timeout", Some(server.close_timeout)),
        ];
        for (field, span) in written {
            if span.is_some_and(|span| span.as_ms() == 0) {
                self.error(path.child(field), "expected more than 0s");
            }
        }
        plane::Timeouts {
            handshake_ms: server.handshake_timeout.as_ms(),
            close_ms: server.close_timeout.as_ms(),
            idle_ms: server.idle_timeout.map_or(defaults.idle_ms, Span::as_ms),
            reset_on_timeout: server.reset_on_timeout,
        }
    }

    fn matches(&mut self, path: &Pointer, server: &VirtualServer) -> Vec<plane::Match> {
        let place = path.child("destination");
        let destinations = server.destination.as_slice();
        if destinations.is_empty() && !self.lost_in(place.as_str()) {
            self.error(place.clone(), "expected at least one destination");
        }
        let listed = matches!(server.destination, OneOrMany::Many(_));
        for (index, destination) in destinations.iter().enumerate() {
            let at = self.item_place(&place, listed, index);
            self.destination(&at, destination, server);
        }
        let sources = self.sources(path, server);
        let rows: usize =
            destinations.iter().map(Destination::ports_count).sum::<usize>() * sources.len().max(1);
        if rows > MATCHES_MAX {
            let message = format!(
                "expected at most {MATCHES_MAX} combinations of destination, port and source; these are {rows} (`*` stands for every port)"
            );
            self.error(place, message);
            return Vec::new();
        }
        rows_of(destinations, &sources, protocol(server.protocol))
    }

    pub(super) fn item_place(&self, path: &Pointer, listed: bool, index: usize) -> Pointer {
        if listed { self.place_in(path, index) } else { path.clone() }
    }

    fn destination(&mut self, place: &Pointer, destination: &Destination, server: &VirtualServer) {
        let network = destination.network;
        if network.bits != 128 {
            if network.address.is_multicast() {
                self.error(place.clone(), format!("expected unicast addresses; {network} is multicast"));
            }
            return;
        }
        let address = network.address;
        if address.is_unspecified() {
            let any = if address.is_v4() { "0.0.0.0/0" } else { "[::]/0" };
            self.error(
                place.clone(),
                format!("expected an address; for every address write \"{any}\" before the port"),
            );
        } else if let Some(why) = unusable_host(address) {
            self.error(place.clone(), format!("expected a unicast address; {why}"));
        }
        let own = self.parts.self_ips.iter().find(|own| own.address == address).map(|own| own.name.clone());
        if let (Some(own), true, true) =
            (own, destination.ports.is_empty(), server.kind != VirtualType::Reject)
        {
            let message = format!(
                "expected a port: {address} is the self IP {own}, which a virtual server on * would take over"
            );
            self.error(place.clone(), message);
        }
    }

    /// The sources; empty for any.
    fn sources(&mut self, path: &Pointer, server: &VirtualServer) -> Vec<Prefix> {
        let place = path.child("source");
        let destinations = server.destination.as_slice();
        let Some(source) = &server.source else { return Vec::new() };
        let listed = matches!(source, OneOrMany::Many(_));
        let sources: Vec<Prefix> = source.as_slice().iter().map(|network| network.0).collect();
        if sources.is_empty() && !self.lost_in(place.as_str()) {
            self.error(place.clone(), "expected at least one network; leave it out for any");
        }
        for (index, network) in sources.iter().enumerate() {
            let fits = |destination: &Destination| destination.network.is_v4() == network.is_v4();
            if !destinations.is_empty() && !destinations.iter().any(fits) {
                let at = self.item_place(&place, listed, index);
                let message =
                    format!("expected a source of the destination's address family; {network} is not");
                self.error(at, message);
            }
        }
        sources
    }

    fn pool(&mut self, path: &Pointer, server: &VirtualServer) -> Option<PoolId> {
        let (place, takes_pool) = (path.child("pool"), server.kind.takes_pool());
        let type_lost = self.removed.contains(&path.child("type"));
        let Some(name) = &server.pool else {
            if takes_pool && !type_lost && !self.may_lack_pool(path, server) {
                self.error(
                    place,
                    "expected \"pool\": a virtual server of this type sends connections to a pool",
                );
            }
            return None;
        };
        if !takes_pool && !type_lost {
            self.error(place, "expected no pool: a virtual server of this type does not choose members");
            return None;
        }
        self.pool_named(place, path, server, name)
    }

    /// True when every request of a full proxy is answered here or goes by a route, or may have been meant to.
    fn may_lack_pool(&self, path: &Pointer, server: &VirtualServer) -> bool {
        let lost = ["http", "routes", "filters"].iter().any(|field| self.lost_in(path.child(field).as_str()));
        server.kind == VirtualType::Standard && (needs_no_pool(server) || lost)
    }

    /// The pool of this name, when `server` can send connections to it.
    pub(super) fn pool_named(
        &mut self,
        place: Pointer,
        path: &Pointer,
        server: &VirtualServer,
        name: &Name,
    ) -> Option<PoolId> {
        debug_assert!(server.pools().any(|known| known == name), "what names a pool must say so");
        let Some(pool) = self.model.pools.get(name) else {
            self.unknown(place, "pool", "pools", name, self.model.pools.keys());
            return None;
        };
        self.one_family(&place, path, server, name, &pool.members);
        self.method_suits(place, server, pool);
        Some(self.ids.pool_id(name.as_str()))
    }

    /// Without translation between families, destinations and members must be of one.
    fn one_family(
        &mut self,
        place: &Pointer,
        path: &Pointer,
        server: &VirtualServer,
        pool: &Name,
        members: &[Member],
    ) {
        let destinations = server.destination.as_slice();
        let Some(is_v4) = destinations.first().map(|first| first.network.is_v4()) else { return };
        if destinations.iter().any(|destination| destination.network.is_v4() != is_v4) {
            let destination = path.child("destination");
            if !self.errors.iter().any(|error| error.path == destination) {
                let why = "expected destinations of one address family; make two virtual servers";
                self.error(destination, why);
            }
        } else if members.iter().any(|member| member.address.0.is_ipv4() != is_v4) {
            let (wanted, found) = if is_v4 { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
            let message = format!(
                "expected a pool of {wanted} members, as the destination is; pool {pool} has {found} members"
            );
            let fault = crate::parse::Fault::new(place.clone(), message);
            self.errors.push(fault.about(pointer("pools", pool)));
        }
    }
}

fn source_port(choice: SourcePortChoice) -> plane::SourcePort {
    match choice {
        SourcePortChoice::Preserve => plane::SourcePort::Preserve,
        SourcePortChoice::Change => plane::SourcePort::Change,
        SourcePortChoice::PreserveStrict => plane::SourcePort::PreserveStrict,
    }
}

impl VirtualType {
    fn takes_pool(self) -> bool {
        matches!(self, VirtualType::PerformanceL4 | VirtualType::Standard | VirtualType::Stateless)
    }
}

fn protocol(protocol: Protocol) -> plane::Protocol {
    match protocol {
        Protocol::Tcp => plane::Protocol::Tcp,
        Protocol::Udp => plane::Protocol::Udp,
        Protocol::Any => plane::Protocol::Any,
    }
}

/// Every combination of destination, port and source that is of one family.
fn rows_of(destinations: &[Destination], sources: &[Prefix], protocol: plane::Protocol) -> Vec<plane::Match> {
    let mut rows = Vec::new();
    for to in destinations {
        let any = [any_of_family(to.network)];
        let sources = if sources.is_empty() { &any[..] } else { sources };
        for source in sources.iter().filter(|source| source.is_v4() == to.network.is_v4()) {
            let row = |port| plane::Match { destination: to.network, source: *source, port, protocol };
            rows.extend(to.each_port().map(row));
        }
    }
    rows
}

fn any_of_family(network: Prefix) -> Prefix {
    let any = if network.is_v4() { Address::v4([0; 4]) } else { Address::UNSPECIFIED };
    Prefix::new(any, 0)
}

/// Rows of the matching table that one virtual server may take.
pub(super) const MATCHES_MAX: usize = 4_096;
