//! What choosing a member costs, and making a Maglev table.

use std::hint::black_box;
use std::sync::Arc;

use sluice_dataplane::address::Address;
use sluice_dataplane::clock::Instant;
use sluice_dataplane::config::ids::{MemberId, NodeId, PoolId};
use sluice_dataplane::config::snapshot::{Member, Method, Parts, Pool, Snapshot};
use sluice_dataplane::counters::WorkerCounters;
use sluice_dataplane::lb::maglev::Maglev;
use sluice_dataplane::lb::{Balancer, Request, View};
use sluice_dataplane::limits::Limits;
use sluice_dataplane::pool::MemberStates;
use sluice_dataplane::quota::{QuotaShare, Quotas};

use crate::operations::Operation;

/// All of them: of 1,000 members at work, without limits.
pub const PICKS: &[Operation] = &[
    pick("pick/round robin", || picks(Method::RoundRobin)),
    pick("pick/random of two", || picks(Method::RandomTwo)),
    pick("pick/consistent hash", || picks(Method::ConsistentHash)),
    pick("pick/ratio", || picks(Method::RatioMember)),
    pick("pick/observed", || picks(Method::ObservedMember)),
    pick("pick/least connections", || picks(Method::LeastConnectionsMember)),
    pick("pick/least connections, node", || picks(Method::LeastConnectionsNode)),
    pick("pick/ratio least connections", || picks(Method::RatioLeastConnectionsMember)),
    pick("maglev build/100 members", || tables(100)),
    pick("maglev build/1 k members", || tables(1_000)),
];

const fn pick(name: &'static str, make: fn() -> Box<dyn FnMut()>) -> Operation {
    Operation { name, each: 1, calls: 100, make }
}

fn member(place: u32) -> Member {
    Member {
        id: MemberId(place),
        node: NodeId(place),
        address: Address::v4((0x0a01_0000 + place).to_be_bytes()),
        port: 8_080,
        ratio: 1 + (place % 3) as u16,
        ..Member::default()
    }
}

fn picks(method: Method) -> Box<dyn FnMut()> {
    let limits = Limits { members: 1_000, virtual_servers: 1, ..Limits::default() };
    let pool = Pool { id: PoolId(0), method, members: (0..1_000).map(member).collect(), ..Pool::default() };
    let snapshot = Snapshot::build(Parts { generation: 1, pools: vec![pool], ..Parts::default() });
    let (states, counters) = (MemberStates::new(1_000), WorkerCounters::new(&limits));
    let quota = QuotaShare::new(Arc::new(Quotas::new(&limits, 1)), 0);
    let mut balancer = Balancer::new(0, PoolId(0));
    let mut client = 0u32;
    Box::new(move || {
        let view = View {
            peers: &[],
            states: &states,
            counters: &counters,
            quota: &quota,
            snapshot: &snapshot,
            now: Instant::ZERO,
            failed: &[],
            latencies: None,
            sessions: &[],
        };
        client = client.wrapping_add(1);
        let request = Request {
            client: (Address::v4(client.to_be_bytes()), 40_000),
            destination: (Address::v4([192, 0, 2, 100]), 80),
        };
        if let Ok(member) = balancer.pick(&snapshot.parts().pools[0], &view, black_box(request)) {
            counters.open_member(member.id, member.node);
        }
    })
}

fn tables(count: u32) -> Box<dyn FnMut()> {
    let members: Vec<Member> = (0..count).map(member).collect();
    Box::new(move || {
        black_box(Maglev::build(black_box(&members)));
    })
}
