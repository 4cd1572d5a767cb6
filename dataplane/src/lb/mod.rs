//! Load balancing: which member of a pool takes a new connection. One method a file, one arm in
//! [`Balancer::pick`].
//!
//! ```text
//!   Balancer::pick
//!     roster              who is at work: enabled, in a priority group at work   worked out once a change
//!     a method            round_robin  ratio  fewest ◀─ least_connections, least_sessions, fastest
//!                         observed  consistent_hash ◀─ maglev  random_two
//!     View::has_room      asked of whomever the method would take
//! ```
//!
//! Every worker takes turns of its own, beginning at another member, so that what is even on each is even over all; methods
//! that count connections count those of all workers.

mod by_hash;
mod consistent_hash;
mod fastest;
mod fewest;
pub mod latency;
mod least_connections;
mod least_sessions;
pub mod maglev;
mod observed;
mod random_two;
mod ratio;
mod roster;
mod round_robin;
#[cfg(test)]
mod shares;
#[cfg(test)]
pub(crate) mod testing;
mod view;

pub use view::View;

use crate::address::{Address, Prefix};
use crate::config::ids::{MemberId, PoolId};
use crate::config::snapshot::{Member, Method, Pool};
use observed::Observed;
use random_two::Random;
use roster::{Pick, Roster};

/// One worker's balancing state for one pool. Survives applies.
///
/// Takes memory when it first sees a pool and when the pool has grown, and at no other pick.
#[derive(Debug)]
pub struct Balancer {
    worker: usize,
    roster: Roster,
    cursor: usize,
    /// By place in the pool, for the ratio methods; made anew when the members change.
    credits: Vec<i64>,
    observed: Observed,
    random: Random,
}

/// The connection that a member is chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The client.
    pub client: (Address, u16),
    /// What it asked for.
    pub destination: (Address, u16),
}

/// Why no member was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPick {
    /// No member is up, but for those that have just refused the connection.
    NoMember,
    /// Members are up, and all of them at a limit.
    AtLimit,
}

impl Balancer {
    /// For `pool` on the worker of this number.
    pub fn new(worker: usize, pool: PoolId) -> Self {
        Self {
            worker,
            roster: Roster::default(),
            cursor: worker,
            credits: Vec::new(),
            observed: Observed::default(),
            random: Random::new(((worker as u64) << 32) | u64::from(pool.0)),
        }
    }

    /// The member for the next connection. O(1) for round robin, random of two and consistent hash while members
    /// have room; O(members) at worst and for the others, a few nanoseconds each.
    ///
    /// # Errors
    /// [`NoPick`].
    pub fn pick<'p>(&mut self, pool: &'p Pool, view: &View, request: Request) -> Result<&'p Member, NoPick> {
        self.follow(pool, view);
        let pick = Pick::new(pool, view, &self.roster);
        let place = match pool.method {
            Method::RoundRobin if pick.is_ramping() => ratio::pick(&mut self.credits, &pick, ratio::equal),
            Method::RoundRobin => round_robin::pick(&mut self.cursor, &pick),
            Method::RatioMember | Method::RatioNode | Method::RatioSession => {
                ratio::pick(&mut self.credits, &pick, ratio::configured)
            }
            Method::LeastConnectionsMember
            | Method::WeightedLeastConnectionsMember
            | Method::RatioLeastConnectionsMember => least_connections::by_member(&mut self.cursor, &pick),
            Method::LeastConnectionsNode
            | Method::WeightedLeastConnectionsNode
            | Method::RatioLeastConnectionsNode => least_connections::by_node(&mut self.cursor, &pick),
            Method::FastestAppResponse => fastest::by_member(&mut self.cursor, &pick),
            Method::FastestNode => fastest::by_node(&mut self.cursor, &pick),
            Method::ObservedMember
            | Method::ObservedNode
            | Method::PredictiveMember
            | Method::PredictiveNode => {
                self.observed.look(&pick);
                let observed = &self.observed;
                ratio::pick(&mut self.credits, &pick, |candidate| observed.shares_of(candidate))
            }
            Method::LeastSessions => least_sessions::pick(&mut self.cursor, &pick),
            Method::ConsistentHash => {
                let hash = maglev::hash_of(request.client.0, request.client.1);
                consistent_hash::pick(view.snapshot.maglev(pool.id), hash, &pick)
            }
            Method::RandomTwo => random_two::pick(&mut self.random, &pick),
        };
        place.and_then(|place| pool.members.get(place)).ok_or_else(|| pick.refusal())
    }

    /// The member at work that `client` hashes to, whatever the pool's method: the same on every worker. One in its slow
    /// ramp has that part of its clients. One at a limit is passed over unless `overrides_limit`. O(members).
    ///
    /// # Errors
    /// [`NoPick`].
    pub(crate) fn pick_by_hash<'p>(
        &mut self,
        pool: &'p Pool,
        view: &View,
        client: Prefix,
        overrides_limit: bool,
    ) -> Result<&'p Member, NoPick> {
        self.follow(pool, view);
        let pick = Pick::new(pool, view, &self.roster);
        by_hash::pick(pool, &pick, client, overrides_limit).ok_or_else(|| pick.refusal())
    }

    /// A connection has gone to `member` without a pick, by persistence. The ratio methods count it as the
    /// member's turn; ratio-session, which balances sessions, does not, nor do others. O(members).
    pub fn on_persisted(&mut self, pool: &Pool, view: &View, member: MemberId) {
        if !matches!(pool.method, Method::RatioMember | Method::RatioNode) {
            return;
        }
        self.follow(pool, view);
        let pick = Pick::new(pool, view, &self.roster);
        ratio::charge(&mut self.credits, &pick, member);
    }

    /// True when members are at work and all of them at a limit: [`Balancer::pick`] would say so too. O(members).
    pub fn is_at_limit(&mut self, pool: &Pool, view: &View) -> bool {
        self.follow(pool, view);
        let pick = Pick::new(pool, view, &self.roster);
        let takes = |candidate: &roster::Candidate| pick.takes(candidate.place());
        !pick.at_work().iter().any(takes) && pick.refusal() == NoPick::AtLimit
    }

    /// Works out anew who is at work, when the configuration or a member's state has changed.
    fn follow(&mut self, pool: &Pool, view: &View) {
        if self.roster.is_current(view) {
            return;
        }
        let has_others = self.roster.follow(pool, view);
        if has_others {
            self.credits.clear();
            self.credits.resize(pool.members.len(), 0);
            self.observed.forget(pool.members.len());
            self.begin_at_own_turn(pool, view);
        }
    }

    /// The ratio methods begin as many turns into their round as the worker's number.
    fn begin_at_own_turn(&mut self, pool: &Pool, view: &View) {
        let pick = Pick::new(pool, view, &self.roster);
        for _ in 0..self.worker {
            match pool.method {
                Method::RatioMember | Method::RatioNode | Method::RatioSession => {
                    ratio::pick(&mut self.credits, &pick, ratio::configured)
                }
                _ => ratio::pick(&mut self.credits, &pick, ratio::equal),
            };
        }
    }
}
