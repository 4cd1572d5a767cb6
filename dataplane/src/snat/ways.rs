//! How virtual servers' flows are given owners, and when an apply gives a packet another owner than its flow has.

use crate::address::Prefix;
use crate::config::snapshot::{Match, Protocol, Snapshot, Snat, SourcePort, Virtual, VirtualKind};

/// By the hash of each packet's tuple.
pub(crate) const BY_TUPLE: u8 = 1;
/// By the client's port.
pub(crate) const BY_PORT: u8 = 2;
/// By the client's end, or both ends.
pub(crate) const BY_ENDS: u8 = 4;

/// The virtual servers for one protocol that decide about owners otherwise after an apply than before it.
pub(super) struct Changed<'a> {
    before: &'a [Virtual],
    after: &'a [Virtual],
    gone: Vec<&'a Virtual>,
    come: Vec<&'a Virtual>,
    protocol: Protocol,
}

impl<'a> Changed<'a> {
    /// Those that are there in one of the two only, or differ. One that has changed has gone and come.
    pub(super) fn new(before: &'a Snapshot, after: &'a Snapshot, protocol: Protocol) -> Self {
        let lists_differ = before.parts().snat_lists != after.parts().snat_lists;
        let differs = |item: &Virtual, other: &Snapshot| {
            let same = other.virtual_by_id(item.id).is_some_and(|other| is_same(item, other));
            !same || lists_differ && matches!(item.snat, Snat::List(_))
        };
        let (before_all, after_all) = (&before.parts().virtuals, &after.parts().virtuals);
        let takes = |item: &&Virtual| item.matches.iter().any(|row| takes(row, protocol));
        Self {
            before: before_all,
            after: after_all,
            gone: before_all.iter().filter(takes).filter(|item| differs(item, after)).collect(),
            come: after_all.iter().filter(takes).filter(|item| differs(item, before)).collect(),
            protocol,
        }
    }

    /// The ways of those that may take packets from each other by this and give them owners differently; 0 when there are
    /// none. Time in proportion to what has changed and all there is; where that is too much, all are taken to do so.
    pub(super) fn ways(&self) -> u8 {
        if self.pairs() > PAIRS_MAX {
            return ways_of(self.before.iter().chain(self.after));
        }
        let of_gone = self.gone.iter().flat_map(|item| self.after.iter().map(move |other| (*item, other)));
        let of_come = self.come.iter().flat_map(|item| self.before.iter().map(move |other| (*item, other)));
        let differ = of_gone.chain(of_come).filter(|(one, other)| {
            is_mixed(way_of(one) | way_of(other)) && may_meet(one, other, self.protocol)
        });
        differ.fold(0, |ways, (one, other)| ways | way_of(one) | way_of(other))
    }

    /// The same of what comes and what had `gone` before, wherever that was: its flows may still be open.
    pub(super) fn ways_after(&self, gone: u8) -> u8 {
        let come = ways_of(self.come.iter().copied());
        if come != 0 && gone != 0 && is_mixed(gone | come) { gone | come } else { 0 }
    }

    /// The ways of those that are gone.
    pub(super) fn ways_gone(&self) -> u8 {
        ways_of(self.gone.iter().copied())
    }

    /// Pairs of rows to be held against each other.
    fn pairs(&self) -> usize {
        let rows = |items: &[&Virtual]| items.iter().map(|item| item.matches.len()).sum::<usize>();
        let rows_of_all = |items: &[Virtual]| items.iter().map(|item| item.matches.len()).sum::<usize>();
        let of_gone = rows(&self.gone).saturating_mul(rows_of_all(self.after));
        of_gone.saturating_add(rows(&self.come).saturating_mul(rows_of_all(self.before)))
    }
}

fn ways_of<'a>(items: impl Iterator<Item = &'a Virtual>) -> u8 {
    items.fold(0, |ways, item| ways | way_of(item))
}

/// More than one way.
fn is_mixed(ways: u8) -> bool {
    ways.count_ones() > 1
}

/// What decides about owners is as it was.
fn is_same(one: &Virtual, other: &Virtual) -> bool {
    one.matches == other.matches
        && one.ingress == other.ingress
        && one.snat == other.snat
        && way_of(one) == way_of(other)
}

/// True when both can match one packet, for all that their rows say.
fn may_meet(one: &Virtual, other: &Virtual, protocol: Protocol) -> bool {
    let meet = |a: Prefix, b: Prefix| a.contains(b.address) || b.contains(a.address);
    let rows_of_other = || other.matches.iter().filter(|row| takes(row, protocol));
    one.matches.iter().filter(|row| takes(row, protocol)).any(|one| {
        rows_of_other().any(|other| {
            meet(one.destination, other.destination)
                && meet(one.source, other.source)
                && (one.port == other.port || one.port == 0 || other.port == 0)
        })
    })
}

fn takes(row: &Match, protocol: Protocol) -> bool {
    row.protocol == protocol || row.protocol == Protocol::Any
}

fn way_of(item: &Virtual) -> u8 {
    let hidden = if item.source_port == SourcePort::PreserveStrict { BY_PORT } else { BY_TUPLE };
    match (item.kind, item.snat) {
        (VirtualKind::Reject | VirtualKind::Stateless, _) => 0,
        (_, Snat::None) => BY_ENDS,
        (_, Snat::List(_)) => BY_ENDS | hidden,
        (_, Snat::Automap | Snat::Pool(_)) => hidden,
    }
}

/// Pairs of rows that an apply holds against each other: a millisecond.
const PAIRS_MAX: usize = 1 << 16;
