//! Which member a new connection goes to: the one it persists to, or else the one that load balancing chooses.
//!
//! ```text
//!   hash ─▶ rendezvous over the members at work, by what their slow ramp has come to
//!   record ─┬ its member takes it ─────────▶ that one; the record's time starts anew
//!           ├ its member is at its limit ──▶ another one for this connection; the record stays
//!           └ its member is offline or gone ▶ another one, to which the record leads from now on
//!   no record ▶ another one, recorded
//! ```

use super::{Lease, Mark, PersistenceTable, RecordKey};
use crate::config::snapshot::{Member, Persistence, PersistenceKind, Pool, Virtual};
use crate::lb::{Balancer, NoPick, Request, View};
use crate::pool::MemberState;

/// What choosing a member looks at and changes.
pub(crate) struct Chooser<'v> {
    pub(crate) table: &'v PersistenceTable,
    pub(crate) balancer: &'v mut Balancer,
    pub(crate) view: View<'v>,
}

/// The member that a connection goes to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chosen<'p> {
    pub(crate) member: &'p Member,
    /// It goes there even where the member is at its connection limit.
    pub(crate) overrides_limit: bool,
}

impl Chooser<'_> {
    /// The member of `pool` for a new connection through `server`.
    ///
    /// # Errors
    /// [`NoPick`], when there is no member that it persists to, and load balancing finds none.
    #[inline]
    pub(crate) fn choose<'p>(
        &mut self,
        server: &Virtual,
        pool: &'p Pool,
        request: Request,
    ) -> Result<Chosen<'p>, NoPick> {
        match &server.persistence {
            None => self.balance(pool, request),
            Some(by) if by.kind == PersistenceKind::Hash => self.hashed(by, pool, request),
            Some(by) => self.persisted(by, server, pool, request),
        }
    }

    fn balance<'p>(&mut self, pool: &'p Pool, request: Request) -> Result<Chosen<'p>, NoPick> {
        let member = self.balancer.pick(pool, &self.view, request)?;
        Ok(Chosen { member, overrides_limit: false })
    }

    fn hashed<'p>(
        &mut self,
        by: &Persistence,
        pool: &'p Pool,
        request: Request,
    ) -> Result<Chosen<'p>, NoPick> {
        let (client, overrides_limit) = (by.masked(request.client.0), by.override_connection_limit);
        let member = self.balancer.pick_by_hash(pool, &self.view, client, overrides_limit)?;
        Ok(Chosen { member, overrides_limit })
    }

    fn persisted<'p>(
        &mut self,
        by: &Persistence,
        server: &Virtual,
        pool: &'p Pool,
        request: Request,
    ) -> Result<Chosen<'p>, NoPick> {
        let key = RecordKey::of(by, server, pool.id, request);
        let lease = Lease { now_ms: self.view.now.as_ns() / 1_000_000, timeout_ms: by.timeout_ms };
        let found = self.table.find(&key, lease.now_ms);
        let member = found.and_then(|found| self.member_of(found.mark(), by, pool));
        if let (Some(found), Some(member)) = (found, member) {
            self.table.renew(&found, &key, lease);
            let overrides_limit = by.override_connection_limit;
            if overrides_limit || self.view.has_room(member) {
                self.view.counters.persistence_hits.add(1);
                self.balancer.on_persisted(pool, &self.view, member.id);
                return Ok(Chosen { member, overrides_limit });
            }
            self.view.counters.persistence_misses.add(1);
            return self.balance(pool, request);
        }
        self.view.counters.persistence_misses.add(1);
        let chosen = self.balance(pool, request)?;
        let agreed = match found {
            Some(found) => self.table.repoint(&key, &found, Mark::of(chosen.member), lease),
            None => self.table.agree(&key, Mark::of(chosen.member), lease),
        };
        self.view.counters.persistence_evicted.add(u64::from(agreed.evicted));
        // Another worker may have recorded one first, or one that this worker's configuration does not have yet.
        let member = self.member_of(agreed.mark, by, pool).unwrap_or(chosen.member);
        Ok(Chosen { member, ..chosen })
    }

    /// The member that a record leads to, as far as it is in `pool` and takes persisted connections. O(1); across
    /// pools O(members).
    fn member_of<'p>(&self, mark: Mark, by: &Persistence, pool: &'p Pool) -> Option<&'p Member> {
        let snapshot = self.view.snapshot;
        let (home, place) = snapshot.place_of_member(mark.id)?;
        let member = home.members.get(place).filter(|member| Mark::of(member) == mark)?;
        let is_offline = |member: &Member| self.view.states.of(member.id) == MemberState::Offline;
        let takes = |member: &&Member| !is_offline(member) && !self.view.has_failed(member);
        if home.id == pool.id {
            return pool.members.get(place).filter(takes);
        }
        if !by.match_across_pools {
            return None;
        }
        let at_address = || pool.members.iter().filter(|other| other.address == member.address).filter(takes);
        at_address().find(|other| other.port == member.port).or_else(|| at_address().next())
    }
}
