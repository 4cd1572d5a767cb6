//! Which member a new connection goes to: the one it persists to, or else the one that load balancing chooses.
//!
//! ```text
//!   hash ─▶ rendezvous over the members that are available
//!   record ─┬ its member takes it ─────────▶ that one; the record's time starts anew
//!           ├ its member is at its limit ──▶ another one for this connection; the record stays
//!           └ its member is offline or gone ▶ another one, to which the record leads from now on
//!   no record ▶ another one, recorded
//! ```

use super::{Lease, Mark, PersistenceTable, RecordKey, rendezvous};
use crate::clock::Instant;
use crate::config::snapshot::{Member, Persistence, PersistenceKind, Pool, Snapshot, Virtual};
use crate::counters::WorkerCounters;
use crate::lb::{Balancer, NoPick, Request, View};
use crate::pool::MemberState;

/// What choosing a member looks at and changes.
pub(crate) struct Chooser<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) table: &'a PersistenceTable,
    pub(crate) balancer: &'a mut Balancer,
    pub(crate) view: View<'a>,
    pub(crate) counters: &'a WorkerCounters,
    pub(crate) now: Instant,
}

impl<'a> Chooser<'a> {
    /// The member of `pool` for a new connection through `server`.
    ///
    /// # Errors
    /// [`NoPick`], when there is no member that it persists to, and load balancing finds none.
    #[inline]
    pub(crate) fn choose(
        &mut self,
        server: &Virtual,
        pool: &'a Pool,
        request: Request,
    ) -> Result<&'a Member, NoPick> {
        match &server.persistence {
            None => self.balance(pool, request),
            Some(by) if by.kind == PersistenceKind::Hash => self.hashed(by, pool, request),
            Some(by) => self.persisted(by, server, pool, request),
        }
    }

    fn balance(&mut self, pool: &'a Pool, request: Request) -> Result<&'a Member, NoPick> {
        self.balancer.pick(pool, &self.view, request, self.now)
    }

    fn hashed(&self, by: &Persistence, pool: &'a Pool, request: Request) -> Result<&'a Member, NoPick> {
        let is_enabled = |member: &Member| self.view.states.of(member.id) == MemberState::Enabled;
        let takes =
            |member: &Member| is_enabled(member) && (by.override_connection_limit || !self.is_full(member));
        let picked = rendezvous::pick(&pool.members, by.masked(request.client.0), takes);
        let why_not = || if pool.members.iter().any(is_enabled) { NoPick::AtLimit } else { NoPick::NoMember };
        picked.ok_or_else(why_not)
    }

    fn persisted(
        &mut self,
        by: &Persistence,
        server: &Virtual,
        pool: &'a Pool,
        request: Request,
    ) -> Result<&'a Member, NoPick> {
        let key = RecordKey::of(by, server, pool.id, request);
        let lease = Lease { now_ms: self.now.as_ns() / 1_000_000, timeout_ms: by.timeout_ms };
        let found = self.table.find(&key, lease.now_ms);
        let member = found.and_then(|found| self.member_of(found.mark(), by, pool));
        if let (Some(found), Some(member)) = (found, member) {
            self.table.renew(&found, &key, lease);
            if by.override_connection_limit || !self.is_full(member) {
                self.counters.persistence_hits.add(1);
                return Ok(member);
            }
            self.counters.persistence_misses.add(1);
            return self.balance(pool, request);
        }
        self.counters.persistence_misses.add(1);
        let chosen = self.balance(pool, request)?;
        let agreed = match found {
            Some(found) => self.table.repoint(&key, &found, Mark::of(chosen), lease),
            None => self.table.agree(&key, Mark::of(chosen), lease),
        };
        self.counters.persistence_evicted.add(u64::from(agreed.evicted));
        // Another worker may have recorded one first, or one that this worker's configuration does not have yet.
        Ok(self.member_of(agreed.mark, by, pool).unwrap_or(chosen))
    }

    /// The member that a record leads to, as far as it is in `pool` and takes persisted connections. O(1); across
    /// pools O(members).
    fn member_of(&self, mark: Mark, by: &Persistence, pool: &'a Pool) -> Option<&'a Member> {
        let (home, member) = self.snapshot.member(mark.id).filter(|(_, member)| Mark::of(member) == mark)?;
        let takes = |member: &&Member| self.view.states.of(member.id) != MemberState::Offline;
        if home.id == pool.id {
            return Some(member).filter(takes);
        }
        if !by.match_across_pools {
            return None;
        }
        let at_address = || pool.members.iter().filter(|other| other.address == member.address).filter(takes);
        at_address().find(|other| other.port == member.port).or_else(|| at_address().next())
    }

    fn is_full(&self, member: &Member) -> bool {
        let limit = u64::from(member.connection_limit);
        limit != 0 && self.view.connections(member) >= limit
    }
}
