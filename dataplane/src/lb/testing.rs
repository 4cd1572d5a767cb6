//! A pool to try methods on.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use super::*;
use crate::admit::connections_of;
use crate::clock::Instant;
use crate::config::ids::NodeId;
use crate::config::snapshot::{Node, Parts, Snapshot};
use crate::counters::WorkerCounters;
use crate::lb::latency::LatencyBook;
use crate::limits::Limits;
use crate::packet::build::address;
use crate::pool::MemberStates;
use crate::quota::{Limited, QuotaShare, Quotas};

pub(crate) struct Bench {
    pub(crate) snapshot: Snapshot,
    pub(crate) states: MemberStates,
    pub(crate) counters: WorkerCounters,
    pub(crate) peers: Vec<Arc<WorkerCounters>>,
    pub(crate) latencies: LatencyBook,
    pub(crate) sessions: Vec<AtomicI64>,
    pub(crate) client: (Address, u16),
    pub(crate) now: Instant,
    balancer: Balancer,
    quota: QuotaShare,
    quotas: Arc<Quotas>,
}

impl Bench {
    /// A member for each ratio, on a node of its own with the same number.
    pub(crate) fn new(method: Method, ratios: &[u16]) -> Self {
        let count = ratios.len() + 16;
        let limits = Limits { members: count, virtual_servers: 1, ..Limits::default() };
        let quotas = Arc::new(Quotas::new(&limits, 1));
        Self {
            quota: QuotaShare::new(Arc::clone(&quotas), 0),
            quotas,
            snapshot: Snapshot::build(Parts {
                generation: 1,
                nodes: (0..ratios.len()).map(|place| node(place, 1, 0)).collect(),
                pools: vec![pool(method, ratios)],
                ..Parts::default()
            }),
            states: MemberStates::new(count),
            counters: WorkerCounters::new(&limits),
            peers: Vec::new(),
            latencies: LatencyBook::new(&limits),
            sessions: (0..count).map(|_| AtomicI64::new(0)).collect(),
            client: (address("198.51.100.7"), 40_000),
            now: Instant::ZERO,
            balancer: Balancer::new(0, PoolId(0)),
        }
    }

    /// An apply that changes the pool.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Pool)) {
        self.apply(|parts| change(&mut parts.pools[0]));
    }

    /// An apply that puts the members on nodes with these ratios and limits.
    pub(crate) fn put_on_nodes(&mut self, nodes: &[u32], ratios: &[u16], limits: &[u32]) {
        self.apply(|parts| {
            for (member, &node) in parts.pools[0].members.iter_mut().zip(nodes) {
                member.node = NodeId(node);
            }
            let both = ratios.iter().zip(limits).enumerate();
            parts.nodes = both.map(|(place, (&ratio, &limit))| node(place, ratio, limit)).collect();
        });
    }

    fn apply(&mut self, change: impl FnOnce(&mut Parts)) {
        let mut parts = self.snapshot.parts().clone();
        parts.generation += 1;
        change(&mut parts);
        let after = Snapshot::build_after(parts, &self.snapshot);
        self.quotas.set_limits(&after);
        self.quota.follow(Some(&self.snapshot), &after, |what| connections_of(&self.counters, what));
        self.snapshot = after;
    }

    pub(crate) fn be_worker(&mut self, worker: usize) {
        self.balancer = Balancer::new(worker, PoolId(0));
    }

    pub(crate) fn view(&self) -> View<'_> {
        View {
            states: &self.states,
            counters: &self.counters,
            peers: &self.peers,
            quota: &self.quota,
            snapshot: &self.snapshot,
            now: self.now,
            failed: &[],
            latencies: Some(&self.latencies),
            sessions: &self.sessions,
        }
    }

    /// What `ask` gets of the balancer, the pool and the view.
    fn with<T>(&mut self, ask: impl FnOnce(&mut Balancer, &Pool, &View) -> T) -> T {
        let mut balancer = std::mem::replace(&mut self.balancer, Balancer::new(0, PoolId::NONE));
        let answer = ask(&mut balancer, &self.snapshot.parts().pools[0], &self.view());
        self.balancer = balancer;
        answer
    }

    pub(crate) fn try_pick(&mut self) -> Result<u32, NoPick> {
        self.try_pick_but(&[])
    }

    /// After `failed` have refused.
    pub(crate) fn try_pick_but(&mut self, failed: &[MemberId]) -> Result<u32, NoPick> {
        let request = Request { client: self.client, destination: (address("192.0.2.100"), 80) };
        self.with(|balancer, pool, view| {
            balancer.pick(pool, &View { failed, ..*view }, request).map(|member| member.id.0)
        })
    }

    pub(crate) fn pick(&mut self) -> Option<u32> {
        self.try_pick().ok()
    }

    /// For the client of this number.
    pub(crate) fn pick_for(&mut self, client: u32) -> Option<u32> {
        self.client = (Address::v4((0xc612_0000 + client / 4).to_be_bytes()), 30_000 + (client % 4) as u16);
        self.pick()
    }

    /// By hash, for the client of this number.
    pub(crate) fn pick_by_hash(&mut self, client: u32, overrides_limit: bool) -> Result<u32, NoPick> {
        let client = Prefix::host(Address::v4((0xc612_0000 + client).to_be_bytes()));
        self.with(|balancer, pool, view| {
            balancer.pick_by_hash(pool, view, client, overrides_limit).map(|member| member.id.0)
        })
    }

    pub(crate) fn is_at_limit(&mut self) -> bool {
        self.with(Balancer::is_at_limit)
    }

    pub(crate) fn persist(&mut self, member: u32) {
        self.with(|balancer, pool, view| balancer.on_persisted(pool, view, MemberId(member)));
    }

    pub(crate) fn picks(&mut self, count: usize) -> Vec<u32> {
        (0..count).filter_map(|_| self.pick()).collect()
    }

    /// How often each member is picked.
    pub(crate) fn counts(&mut self, count: usize) -> Vec<usize> {
        let mut counts = vec![0; self.members()];
        self.picks(count).into_iter().for_each(|member| counts[member as usize] += 1);
        counts
    }

    /// Picks and opens a connection each time.
    pub(crate) fn pick_and_open(&mut self, count: usize) -> Vec<u32> {
        (0..count).filter_map(|_| self.pick().inspect(|&member| self.open(member))).collect()
    }

    pub(crate) fn members(&self) -> usize {
        self.snapshot.parts().pools[0].members.len()
    }

    /// Opens a connection, which counts for limits as it does when a packet is admitted.
    pub(crate) fn open(&self, member: u32) {
        let id = MemberId(member);
        let node = self.snapshot.member(id).map_or(NodeId::NONE, |member| member.node);
        self.quota.take(Limited::Member(id));
        self.quota.take(Limited::Node(node));
        self.counters.open_member(id, node);
    }

    /// A connection to a member of another pool.
    pub(crate) fn open_elsewhere(&self, member: u32, node: u32) {
        self.counters.open_member(MemberId(member), NodeId(node));
    }

    pub(crate) fn close(&self, member: u32) {
        self.quota.give_back(Limited::Member(MemberId(member)));
        self.quota.give_back(Limited::Node(self.counters.node_of(MemberId(member))));
        self.counters.close_member(MemberId(member));
    }

    /// Connections now, by member.
    pub(crate) fn open_counts(&self) -> Vec<u64> {
        (0..self.members()).map(|place| self.view().connections(MemberId(place as u32))).collect()
    }
}

fn pool(method: Method, ratios: &[u16]) -> Pool {
    let member = |(place, &ratio): (usize, &u16)| Member {
        id: MemberId(place as u32),
        node: NodeId(place as u32),
        address: Address::v4([10, 1, (place >> 8) as u8, place as u8]),
        port: 80,
        ratio,
        ..Member::default()
    };
    let members = ratios.iter().enumerate().map(member).collect();
    Pool { id: PoolId(0), name: "web".into(), method, members, ..Pool::default() }
}

fn node(place: usize, ratio: u16, connection_limit: u32) -> Node {
    let address = Address::v4([10, 1, (place >> 8) as u8, place as u8]);
    Node { id: NodeId(place as u32), address, ratio, connection_limit, rate_limit: 0 }
}
