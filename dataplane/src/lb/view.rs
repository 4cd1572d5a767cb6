//! [`View`]: what the methods may look at, and whether a member takes a connection.

use crate::config::ids::{MemberId, NodeId};
use crate::config::snapshot::{Member, Snapshot};
use crate::counters::{Counter, WorkerCounters};
use crate::lb::latency::LatencyBook;
use crate::pool::{MemberState, MemberStates};

/// What the methods may look at.
pub struct View<'a> {
    /// What the operator says of each member.
    pub states: &'a MemberStates,
    /// This worker's counters, for current connections.
    pub counters: &'a WorkerCounters,
    /// The configuration that the pool is of, for its nodes and hash tables.
    pub snapshot: &'a Snapshot,
    /// How soon members answer; without it the fastest methods take turns.
    pub latencies: Option<&'a LatencyBook>,
    /// Persistence records, by [`MemberId`]; who is past its end has none.
    pub sessions: &'a [Counter],
    /// Members that have been tried for this connection and are not to be picked again.
    pub avoid: &'a [MemberId],
}

impl<'a> View<'a> {
    /// Without latencies and sessions, avoiding nobody.
    pub fn new(states: &'a MemberStates, counters: &'a WorkerCounters, snapshot: &'a Snapshot) -> Self {
        Self { states, counters, snapshot, latencies: None, sessions: &[], avoid: &[] }
    }

    /// True when `member` takes a new connection.
    #[inline]
    pub fn is_available(&self, member: &Member) -> bool {
        self.is_up(member) && self.has_room(member)
    }

    /// True when `member` is enabled, whether or not it is at a limit.
    #[inline]
    pub fn is_up(&self, member: &Member) -> bool {
        self.states.of(member.id) == MemberState::Enabled
    }

    /// True when no limit keeps `member` from one more connection. The only place that asks about limits.
    #[inline]
    pub fn has_room(&self, member: &Member) -> bool {
        member.connection_limit == 0 || self.connections(member.id) < u64::from(member.connection_limit)
    }

    /// The member's connections now.
    #[inline]
    pub fn connections(&self, member: MemberId) -> u64 {
        self.counters.of_member(member).map_or(0, |counters| counters.connections.current.load())
    }

    /// The node's connections now, over all members on it in all pools.
    #[inline]
    pub fn node_connections(&self, node: NodeId) -> u64 {
        self.counters.of_node(node).map_or(0, |counters| counters.connections.current.load())
    }

    /// The member's persistence records now.
    #[inline]
    pub fn sessions(&self, member: MemberId) -> u64 {
        self.sessions.get(member.index()).map_or(0, Counter::load)
    }
}
