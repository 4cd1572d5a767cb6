//! Source translation: SNAT pools, SNAT lists, and what virtual servers say of them.

use std::collections::{HashMap, HashSet};

use sluice_dataplane::address::{Address, Prefix};
use sluice_dataplane::config::snapshot as plane;

use super::network::unusable_host;
use super::{Compile, pointer};
use crate::model::{Name, OneOrMany, SnatChoice, SnatRow, VirtualServer, VirtualType};
use crate::parse::Pointer;

/// Which address families are asked for.
#[derive(Clone, Copy, Default)]
struct Families {
    v4: bool,
    v6: bool,
}

impl FromIterator<bool> for Families {
    /// From what [`Address::is_v4`] says of each.
    fn from_iter<I: IntoIterator<Item = bool>>(are_v4: I) -> Self {
        are_v4
            .into_iter()
            .fold(Self::default(), |all, is_v4| Self { v4: all.v4 | is_v4, v6: all.v6 | !is_v4 })
    }
}

impl Compile<'_> {
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

    pub(super) fn snat_lists(&mut self) {
        let model = self.model;
        for (name, rows) in &model.snat_lists {
            let list = pointer("snat_lists", name);
            if rows.is_empty() && !self.lost_in(list.as_str()) {
                self.error(list.clone(), "expected at least one row with a source and its snat");
            }
            let mut first_with = HashMap::new();
            let mut compiled = Vec::with_capacity(rows.len());
            for (index, row) in rows.iter().enumerate() {
                let place = self.place_in(&list, index);
                self.snat_row(&place, row, &mut first_with, &mut compiled);
            }
            compiled.sort_by_key(|(source, _)| std::cmp::Reverse(source.bits));
            self.parts.snat_lists.push(plane::SnatList { name: name.to_string(), rows: compiled });
        }
    }

    fn snat_row(
        &mut self,
        place: &Pointer,
        row: &SnatRow,
        first_with: &mut HashMap<Prefix, Pointer>,
        compiled: &mut Vec<(Prefix, plane::Snat)>,
    ) {
        let (sources, path) = (row.source.as_slice(), place.child("source"));
        if sources.is_empty() && !self.lost_in(path.as_str()) {
            self.error(path.clone(), "expected at least one network");
        }
        let snat = self.source(
            &place.child("snat"),
            &row.snat.0,
            sources.iter().map(|source| source.0.is_v4()).collect(),
        );
        let listed = matches!(row.source, OneOrMany::Many(_));
        for (index, source) in sources.iter().enumerate() {
            if let Some(first) = first_with.insert(source.0, place.clone()) {
                let at = self.item_place(&path, listed, index);
                self.error(at, format!("expected each network once; {first} has {source} too"));
            }
            compiled.push((source.0, snat));
        }
    }

    pub(super) fn snat(&mut self, path: &Pointer, server: &VirtualServer) -> plane::Snat {
        let place = path.child("snat");
        if server.kind == VirtualType::Stateless && server.snat != SnatChoice::None {
            self.error(
                place,
                "expected none: a stateless virtual server keeps no flow that could be translated back",
            );
            return plane::Snat::None;
        }
        let families = match server.kind {
            VirtualType::Reject => Families::default(),
            _ => server.destination.as_slice().iter().map(|to| to.network.is_v4()).collect(),
        };
        match &server.snat {
            SnatChoice::List(name) => self.snat_list(&place.child("list"), name),
            other => self.source(&place, other, families),
        }
    }

    /// What a choice other than a list means, for addresses of `families`.
    fn source(&mut self, place: &Pointer, choice: &SnatChoice, families: Families) -> plane::Snat {
        match choice {
            SnatChoice::None | SnatChoice::List(_) => plane::Snat::None,
            SnatChoice::Automap => {
                let own: Vec<Address> = self.parts.self_ips.iter().map(|own| own.address).collect();
                if !self.lost_self_ips() {
                    self.snat_families(place, families, &own, "automap needs a self IP");
                }
                plane::Snat::Automap
            }
            SnatChoice::Pool(name) => self.snat_pool(&place.child("pool"), name, families),
        }
    }

    fn snat_list(&mut self, place: &Pointer, name: &Name) -> plane::Snat {
        let known = self.model.snat_lists.keys();
        if let Some(index) = known.clone().position(|key| key == name) {
            return plane::Snat::List(index);
        }
        self.unknown(place.clone(), "SNAT list", "snat_lists", name, known);
        plane::Snat::None
    }

    fn snat_pool(&mut self, place: &Pointer, name: &Name, families: Families) -> plane::Snat {
        let Some(index) = self.model.snat_pools.keys().position(|key| key == name) else {
            self.unknown(place.clone(), "SNAT pool", "snat_pools", name, self.model.snat_pools.keys());
            return plane::Snat::None;
        };
        let addresses =
            self.parts.snat_pools.get(index).map(|pool| pool.addresses.clone()).unwrap_or_default();
        let lost = addresses.is_empty() || self.lost_in(pointer("snat_pools", name).as_str());
        if !lost {
            self.snat_families(place, families, &addresses, &format!("SNAT pool {name} has no address"));
        }
        plane::Snat::Pool(index)
    }

    fn snat_families(&mut self, place: &Pointer, families: Families, own: &[Address], what: &str) {
        for (asked, is_v4, word) in [(families.v4, true, "IPv4"), (families.v6, false, "IPv6")] {
            if asked && !own.iter().any(|address| address.is_v4() == is_v4) {
                let message = format!("expected a source of the same address family: {what} of {word}");
                self.error(place.clone(), message);
            }
        }
    }
}
