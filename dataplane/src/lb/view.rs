//! [`View`]: what the methods may look at, and whether a member takes a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::clock::Instant;
use crate::config::ids::{MemberId, NodeId};
use crate::config::snapshot::{Member, Snapshot};
use crate::counters::{Connections, WorkerCounters};
use crate::lb::latency::LatencyBook;
use crate::pool::{MemberState, MemberStates};
use crate::quota::{Limited, QuotaShare};

/// What the methods may look at.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// What the operator says of each member.
    pub states: &'a MemberStates,
    /// This worker's counters, for current connections.
    pub counters: &'a WorkerCounters,
    /// The other workers' counters: connections are counted over all.
    pub peers: &'a [Arc<WorkerCounters>],
    /// The limits that hold over all workers.
    pub quota: &'a QuotaShare,
    /// The configuration that the pool is of, for its nodes and hash tables.
    pub snapshot: &'a Snapshot,
    /// The worker's clock.
    pub now: Instant,
    /// Members that have just refused this connection.
    pub failed: &'a [MemberId],
    /// How soon members answer; without it the fastest methods take turns.
    pub latencies: Option<&'a LatencyBook>,
    /// Persistence records, by [`MemberId`]; who is past its end has none.
    pub sessions: &'a [AtomicI64],
}

impl View<'_> {
    /// True when `member` takes a new connection.
    #[inline]
    pub fn is_available(&self, member: &Member) -> bool {
        self.is_up(member) && self.has_room(member)
    }

    /// True when `member` would take a new connection if it were below its limits.
    #[inline]
    pub fn is_up(&self, member: &Member) -> bool {
        self.is_enabled(member) && !self.has_failed(member)
    }

    /// True when nobody says that `member` takes no new connections.
    #[inline]
    pub fn is_enabled(&self, member: &Member) -> bool {
        self.states.of(member.id) == MemberState::Enabled
    }

    /// True when `member` has just refused this connection.
    #[inline]
    pub fn has_failed(&self, member: &Member) -> bool {
        !self.failed.is_empty() && self.failed.contains(&member.id)
    }

    /// True when `member` and its node are below their limits of connections and new connections a second.
    #[inline]
    pub fn has_room(&self, member: &Member) -> bool {
        let (what, node) = (Limited::Member(member.id), Limited::Node(member.node));
        self.quota.has_room(what)
            && self.quota.has_room(node)
            && self.quota.has_rate(what, member.rate_limit, self.now)
            && self
                .snapshot
                .node(member.node)
                .is_none_or(|of| self.quota.has_rate(node, of.rate_limit, self.now))
    }

    /// False when [`View::has_room`] holds for `member` as long as the configuration stays.
    pub fn is_limited(&self, member: &Member) -> bool {
        let node = self.snapshot.node(member.node);
        member.connection_limit != 0
            || member.rate_limit != 0
            || node.is_some_and(|node| node.connection_limit != 0 || node.rate_limit != 0)
    }

    /// The member's connections now, of all workers. A load from memory for each worker.
    #[inline]
    pub fn connections(&self, member: MemberId) -> u64 {
        self.sum(|counters| counters.of_member(member).map(|counters| &counters.connections))
    }

    /// The node's connections now, over all members on it in all pools, of all workers.
    #[inline]
    pub fn node_connections(&self, node: NodeId) -> u64 {
        self.sum(|counters| counters.of_node(node).map(|counters| &counters.connections))
    }

    #[inline]
    fn sum<'c>(&'c self, of: impl Fn(&'c WorkerCounters) -> Option<&'c Connections>) -> u64 {
        let all = std::iter::once(self.counters).chain(self.peers.iter().map(Arc::as_ref));
        all.filter_map(of).map(|connections| connections.current.load()).sum()
    }

    /// The member's persistence records now.
    #[inline]
    pub fn sessions(&self, member: MemberId) -> u64 {
        self.sessions.get(member.index()).map_or(0, |count| count.load(Ordering::Relaxed).max(0) as u64)
    }
}
