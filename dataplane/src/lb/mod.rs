//! Load balancing: which member of a pool takes a new connection. One method a file, one arm in [`Balancer::pick`].

mod least_connections;
mod ratio;
mod round_robin;

use crate::address::Address;
use crate::clock::Instant;
use crate::config::ids::MemberId;
use crate::config::snapshot::{Member, Method, Pool, Snapshot};
use crate::counters::WorkerCounters;
use crate::pool::{MemberState, MemberStates};
use crate::quota::{Limited, QuotaShare};

/// One worker's balancing state for one pool. Survives applies.
#[derive(Debug, Default)]
pub struct Balancer {
    cursor: usize,
    /// By place in the pool, for [`Method::RatioMember`]; made anew when the members change.
    credits: Vec<i64>,
    members: Vec<MemberId>,
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
    /// No member is up.
    NoMember,
    /// Members are up, and all of them at a limit.
    AtLimit,
}

/// What the methods may look at.
pub struct View<'a> {
    /// What the operator says of each member.
    pub states: &'a MemberStates,
    /// This worker's counters, for current connections.
    pub counters: &'a WorkerCounters,
    /// The limits that hold over all workers.
    pub quota: &'a QuotaShare,
    /// For the nodes' limits.
    pub snapshot: &'a Snapshot,
    /// The worker's clock.
    pub now: Instant,
    /// Members that have just refused this connection.
    pub failed: &'a [MemberId],
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
        self.states.of(member.id) == MemberState::Enabled && !self.failed.contains(&member.id)
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

    /// The member's connections now.
    #[inline]
    pub fn connections(&self, member: &Member) -> u64 {
        self.counters.of_member(member.id).map_or(0, |counters| counters.connections.current.load())
    }
}

impl Balancer {
    /// The member for the next connection; `None` when no member takes one. O(1) while members are available,
    /// O(members) at worst and for ratio and least connections.
    ///
    /// # Errors
    /// [`NoPick`].
    pub fn pick<'p>(&mut self, pool: &'p Pool, view: &View, _request: Request) -> Result<&'p Member, NoPick> {
        let members = &pool.members;
        let picked = match pool.method {
            Method::RoundRobin => round_robin::pick(&mut self.cursor, members, view),
            Method::RatioMember => {
                self.follow(members);
                ratio::pick(&mut self.credits, members, view)
            }
            _ => least_connections::pick(&mut self.cursor, members, view),
        };
        let up = || members.iter().any(|member| view.is_up(member));
        picked.ok_or_else(|| if up() { NoPick::AtLimit } else { NoPick::NoMember })
    }

    /// Starts the credits anew when the members are others than last time.
    fn follow(&mut self, members: &[Member]) {
        if !self.members.iter().eq(members.iter().map(|member| &member.id)) {
            self.members = members.iter().map(|member| member.id).collect();
            self.credits = vec![0; members.len()];
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::admit::connections_of;
    use crate::config::ids::PoolId;
    use crate::config::snapshot::Parts;
    use crate::limits::Limits;
    use crate::packet::build::address;
    use crate::quota::Quotas;
    use std::sync::Arc;

    pub(crate) struct Bench {
        pub(crate) pool: Pool,
        pub(crate) states: MemberStates,
        pub(crate) counters: WorkerCounters,
        pub(crate) balancer: Balancer,
        pub(crate) quota: QuotaShare,
        pub(crate) quotas: Arc<Quotas>,
        pub(crate) snapshot: Snapshot,
    }

    impl Bench {
        pub(crate) fn new(method: Method, ratios: &[u16]) -> Self {
            let member = |(place, &ratio): (usize, &u16)| Member {
                id: MemberId(place as u32),
                address: address("10.1.0.1"),
                port: 80,
                ratio,
                ..Member::default()
            };
            let members = ratios.iter().enumerate().map(member).collect();
            let limits = Limits { members: 16, virtual_servers: 1, ..Limits::default() };
            let quotas = Arc::new(Quotas::new(&limits, 1));
            Self {
                quota: QuotaShare::new(Arc::clone(&quotas), 0),
                quotas,
                snapshot: Snapshot::build(Parts::default()),
                pool: Pool { id: PoolId(0), name: "web".into(), method, members, ..Pool::default() },
                states: MemberStates::new(16),
                counters: WorkerCounters::new(&limits),
                balancer: Balancer::default(),
            }
        }

        pub(crate) fn pick(&mut self) -> Option<u32> {
            let view = View {
                states: &self.states,
                counters: &self.counters,
                quota: &self.quota,
                snapshot: &self.snapshot,
                now: Instant::ZERO,
                failed: &[],
            };
            let request = Request {
                client: (address("198.51.100.7"), 40_000),
                destination: (address("192.0.2.100"), 80),
            };
            self.balancer.pick(&self.pool, &view, request).ok().map(|member| member.id.0)
        }

        pub(crate) fn picks(&mut self, count: usize) -> Vec<u32> {
            (0..count).filter_map(|_| self.pick()).collect()
        }

        /// The members' connection limits, with what is open now.
        pub(crate) fn put_limits_in_force(&mut self) {
            let parts = Parts { pools: vec![self.pool.clone()], ..Parts::default() };
            let (before, after) = (&self.snapshot, Snapshot::build(parts));
            self.quotas.set_limits(Some(before), &after);
            self.quota.follow(Some(before), &after, |what| connections_of(&self.counters, what));
            self.snapshot = after;
        }

        pub(crate) fn open(&self, member: u32) {
            self.counters.of_member(MemberId(member)).unwrap().connections.open();
        }
    }

    #[test]
    fn no_method_picks_a_member_that_is_not_enabled_or_full() {
        for method in [Method::RoundRobin, Method::RatioMember, Method::LeastConnectionsMember] {
            let mut bench = Bench::new(method, &[1, 1, 1, 1]);
            bench.states.set(MemberId(0), MemberState::Disabled);
            bench.states.set(MemberId(1), MemberState::Offline);
            bench.pool.members[2].connection_limit = 1;
            bench.open(2);
            bench.put_limits_in_force();
            assert_eq!(bench.picks(5), [3; 5], "{method:?}");
            bench.states.set(MemberId(3), MemberState::Offline);
            assert_eq!(bench.pick(), None, "{method:?}");
        }
    }

    #[test]
    fn an_empty_pool_has_nobody() {
        for method in [Method::RoundRobin, Method::RatioMember, Method::LeastConnectionsMember] {
            assert_eq!(Bench::new(method, &[]).pick(), None, "{method:?}");
        }
    }
}
