//! Two virtual servers must not match the same packets in the same row: which one wins would be chance.

use hashbrown::HashMap;
use sluice_dataplane::config::snapshot::{Ingress, Match};

use super::{Compile, pointer};
use crate::parse::{Fault, Pointer};

impl Compile<'_> {
    pub(super) fn conflicts(&mut self) {
        // There were none.
        if !self.takes_otherwise {
            return;
        }
        let mut faults = Vec::new();
        let mut holders: HashMap<&Match, Vec<usize>> = HashMap::with_capacity(self.parts.virtuals.len());
        for (number, server) in self.parts.virtuals.iter().enumerate() {
            let mut rows = server.matches.iter();
            let clash = rows.find_map(|row| Some((row, self.holder(holders.get(row)?, number)?)));
            if let Some((row, other)) = clash {
                faults.push(self.clash(number, other, row));
            }
            for row in &server.matches {
                let holders = holders.entry(row).or_default();
                if holders.last() != Some(&number) {
                    holders.push(number);
                }
            }
        }
        self.errors.extend(faults);
    }

    /// One of `holders` whose clients come in where those of `number` do.
    fn holder(&self, holders: &[usize], number: usize) -> Option<usize> {
        let ingress = |number: usize| &self.parts.virtuals[number].ingress;
        holders.iter().copied().find(|other| *other != number && overlap(ingress(*other), ingress(number)))
    }

    fn clash(&self, number: usize, other: usize, row: &Match) -> Fault {
        let mut names = self.model.virtual_servers.keys();
        let (other, name) = (names.nth(other), names.nth(number - other - 1));
        let place = |name: Option<&crate::model::Name>| name.map(|name| pointer("virtual_servers", name));
        let port = if row.port == 0 { "*".into() } else { row.port.to_string() };
        let other_name = other.map_or("", |name| name.as_str());
        let message = format!(
            "expected a destination, source and port of its own; virtual server {other_name} takes {} port {port} from {} too",
            row.destination, row.source
        );
        let path = place(name).unwrap_or_default().child("destination");
        Fault::new(path, message).about(place(other).unwrap_or_else(Pointer::root))
    }
}

fn overlap(one: &Ingress, other: &Ingress) -> bool {
    match (one, other) {
        (Ingress::Any, _) | (_, Ingress::Any) => true,
        (Ingress::Ports(ports), Ingress::Ports(others)) => ports.iter().any(|port| others.contains(port)),
        (Ingress::Links(links), other) => links.iter().any(|link| other.contains(*link)),
        (Ingress::Ports(_), Ingress::Links(links)) => links.iter().any(|link| one.contains(*link)),
    }
}
