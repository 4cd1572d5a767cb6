//! Persistence records as an operator sees and ends them.

use std::net::IpAddr;

use serde::Serialize;
use sluice_dataplane::address::{Address, Prefix};
use sluice_dataplane::config::ids::{PoolId, VirtualId};
use sluice_dataplane::config::snapshot::{Member, PersistenceKind, Pool, Snapshot, Virtual};
use sluice_dataplane::counters::{Counter, WorkerCounters};
use sluice_dataplane::persist::{Mark, Record, RecordId, Scope};

use super::endpoint;
use crate::process::Process;

/// One record, for `show persistence`.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "named as the output and the documents name them")]
pub struct PersistenceRow {
    /// Names it for `DELETE`, as long as it lives.
    pub id: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The client's or the destination's, with a prefix length when that is masked.
    pub address: String,
    /// The one that it serves; `None` when it serves several.
    pub virtual_server: Option<String>,
    /// The destination whose virtual servers it serves, across services.
    pub destination: Option<String>,
    /// The member's pool.
    pub pool: Option<String>,
    /// `None` when it is gone.
    pub member: Option<String>,
    pub age_ms: u64,
    pub timeout_ms: u64,
}

/// Which records are wanted: those to which everything that is stated applies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordFilter {
    /// This one.
    pub id: Option<RecordId>,
    /// Those that serve this virtual server.
    pub virtual_server: Option<String>,
    /// Those to members of this pool.
    pub pool: Option<String>,
    /// Those of this address, or of addresses in this network.
    pub address: Option<Prefix>,
    /// Those to members at this address, and port.
    pub member: Option<(IpAddr, Option<u16>)>,
}

/// What all workers count of persistence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PersistenceSums {
    /// Records now.
    pub records: u64,
    /// Connections that went to their record's member.
    pub hits: u64,
    /// Connections that did not.
    pub misses: u64,
    /// Records that had to make room.
    pub evicted: u64,
}

impl Process {
    /// Up to `limit` records that `filter` wants, from place `after` on, and the place to go on at.
    pub fn persistence(
        &self,
        filter: &RecordFilter,
        after: usize,
        limit: usize,
    ) -> (Vec<PersistenceRow>, Option<usize>) {
        let view = self.view();
        let mut rows = Vec::new();
        let mut next = None;
        self.each_record(&view.snapshot, filter, after, |record| {
            if rows.len() >= limit {
                next = Some(record.id.place());
                return false;
            }
            rows.push(row(&view.snapshot, record));
            true
        });
        (rows, next)
    }

    /// Ends the records that `filter` wants; how many. Open connections go on.
    pub fn end_persistence(&self, filter: &RecordFilter) -> usize {
        let table = self.persistence_table();
        if *filter == RecordFilter::default() {
            return table.remove_all(self.now_ms());
        }
        let (view, mut ended) = (self.view(), 0);
        self.each_record(&view.snapshot, filter, 0, |record| {
            ended += usize::from(table.remove(record.id));
            true
        });
        ended
    }

    /// What all workers count of persistence.
    pub fn persistence_sums(&self) -> PersistenceSums {
        let sum = |of: fn(&WorkerCounters) -> &Counter| -> u64 {
            self.workers().iter().map(|worker| of(worker.counters()).load()).sum()
        };
        PersistenceSums {
            records: self.persistence_table().len() as u64,
            hits: sum(|counters| &counters.persistence_hits),
            misses: sum(|counters| &counters.persistence_misses),
            evicted: sum(|counters| &counters.persistence_evicted),
        }
    }

    /// Shows every wanted record to `with`, until that says false.
    fn each_record(
        &self,
        snapshot: &Snapshot,
        filter: &RecordFilter,
        after: usize,
        mut with: impl FnMut(&Record) -> bool,
    ) {
        let Some(wanted) = Wanted::of(filter, snapshot) else { return };
        let (table, now_ms) = (self.persistence_table(), self.now_ms());
        let mut next = Some(after);
        while let Some(after) = next {
            let page = table.page(after, PAGE, now_ms);
            for record in page.records.iter().filter(|record| wanted.wants(record)) {
                if !with(record) {
                    return;
                }
            }
            next = page.next;
        }
    }
}

/// A filter whose names are looked up.
struct Wanted<'a> {
    filter: &'a RecordFilter,
    snapshot: &'a Snapshot,
    server: Option<&'a Virtual>,
    pool: Option<PoolId>,
}

impl<'a> Wanted<'a> {
    /// `None` when it names what there is not.
    fn of(filter: &'a RecordFilter, snapshot: &'a Snapshot) -> Option<Self> {
        let parts = snapshot.parts();
        let server = match &filter.virtual_server {
            Some(name) => Some(parts.virtuals.iter().find(|server| *server.name == **name)?),
            None => None,
        };
        let pool = match &filter.pool {
            Some(name) => Some(parts.pools.iter().find(|pool| *pool.name == **name)?.id),
            None => None,
        };
        Some(Self { filter, snapshot, server, pool })
    }

    fn wants(&self, record: &Record) -> bool {
        self.filter.id.is_none_or(|id| id == record.id)
            && self.filter.address.is_none_or(|wanted| overlap(wanted, record.key.address))
            && self.server.is_none_or(|server| serves(record, server))
            && self.wants_member(record.mark)
    }

    fn wants_member(&self, mark: Mark) -> bool {
        if self.pool.is_none() && self.filter.member.is_none() {
            return true;
        }
        let Some((pool, member)) = member_of(self.snapshot, mark) else { return false };
        let at = |(address, port): (IpAddr, Option<u16>)| {
            member.address == Address::from(address) && port.is_none_or(|port| port == member.port)
        };
        self.pool.is_none_or(|wanted| wanted == pool.id) && self.filter.member.is_none_or(at)
    }
}

/// True when one of the two networks holds the other.
fn overlap(a: Prefix, b: Prefix) -> bool {
    a.contains(b.address) || b.contains(a.address)
}

/// True when a connection through `server` may look at the record.
fn serves(record: &Record, server: &Virtual) -> bool {
    let Some(persistence) = &server.persistence else { return false };
    match record.key.scope {
        Scope::Server(id) => id == server.id,
        Scope::Destination(destination) => {
            persistence.match_across_services
                && server.matches.iter().any(|row| row.destination == destination)
        }
        Scope::Any => persistence.match_across_virtuals,
    }
}

fn member_of(snapshot: &Snapshot, mark: Mark) -> Option<(&Pool, &Member)> {
    let (pool, place) = snapshot.place_of_member(mark.id)?;
    pool.members.get(place).filter(|member| Mark::of(member) == mark).map(|member| (pool, member))
}

fn row(snapshot: &Snapshot, record: &Record) -> PersistenceRow {
    let member = member_of(snapshot, record.mark);
    let name = |id: VirtualId| snapshot.virtual_by_id(id).map(|server| server.name.to_string());
    let (virtual_server, destination) = match record.key.scope {
        Scope::Server(id) => (name(id), None),
        Scope::Destination(destination) => (None, Some(network(destination))),
        Scope::Any => (None, None),
    };
    PersistenceRow {
        id: format!("{:x}", record.id.0),
        kind: match record.key.kind {
            PersistenceKind::SourceAddress => "source-address",
            PersistenceKind::DestinationAddress => "destination-address",
            PersistenceKind::Hash => "hash",
        },
        address: network(record.key.address),
        virtual_server,
        destination,
        pool: member.map(|(pool, _)| pool.name.to_string()),
        member: member.map(|(_, member)| endpoint(member.address, member.port)),
        age_ms: record.age_ms,
        timeout_ms: record.timeout_ms,
    }
}

/// A host without its prefix length.
fn network(prefix: Prefix) -> String {
    if prefix.bits == 128 { prefix.address.to_string() } else { prefix.to_string() }
}

const PAGE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(address: &str, length: u8) -> Prefix {
        Prefix::new(address.parse::<IpAddr>().unwrap(), length)
    }

    #[test]
    fn an_address_finds_its_masked_record_and_a_network_those_in_it() {
        let masked = prefix("198.51.100.0", 24);
        assert!(overlap(prefix("198.51.100.7", 32), masked));
        assert!(overlap(prefix("198.51.0.0", 16), masked));
        assert!(!overlap(prefix("198.51.101.7", 32), masked));
        assert!(!overlap(prefix("2001:db8::", 32), masked));
    }

    #[test]
    fn hosts_are_written_without_a_length() {
        assert_eq!(network(prefix("198.51.100.7", 32)), "198.51.100.7");
        assert_eq!(network(prefix("2001:db8::", 64)), "2001:db8::/64");
    }
}
