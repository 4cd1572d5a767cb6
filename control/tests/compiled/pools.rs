//! Pools, members and nodes.

use sluice_control::check::{Against, Candidate};
use sluice_control::ids::{Holders, IdBook};
use sluice_dataplane::config::ids::{MemberId, NodeId, VirtualId};
use sluice_dataplane::config::snapshot::{Member, Method, Pool, Queue, ServiceDownAction};

use crate::{FRAME, address, check_against, checked, everything, ip, pool, with};

#[test]
fn every_word_for_load_balancing_is_its_method() {
    for (word, method) in [
        ("round-robin", Method::RoundRobin),
        ("ratio-member", Method::RatioMember),
        ("ratio", Method::RatioMember),
        ("ratio-node", Method::RatioNode),
        ("ratio-session", Method::RatioSession),
        ("least-connections-member", Method::LeastConnectionsMember),
        ("least-connections", Method::LeastConnectionsMember),
        ("least-connections-node", Method::LeastConnectionsNode),
        ("ratio-least-connections-member", Method::RatioLeastConnectionsMember),
        ("ratio-least-connections-node", Method::RatioLeastConnectionsNode),
        ("fastest-node", Method::FastestNode),
        ("fastest-app-response", Method::FastestAppResponse),
        ("fastest", Method::FastestAppResponse),
        ("observed-member", Method::ObservedMember),
        ("observed-node", Method::ObservedNode),
        ("predictive-member", Method::PredictiveMember),
        ("predictive-node", Method::PredictiveNode),
        ("least-sessions", Method::LeastSessions),
        ("consistent-hash", Method::ConsistentHash),
        ("maglev", Method::ConsistentHash),
        ("random-two", Method::RandomTwo),
        ("random", Method::RandomTwo),
    ] {
        assert_eq!(pool(&format!("load_balancing: {word}")).method, method, "{word}");
    }
    let weighted = "nodes: {one: {address: 10.1.0.11, connection_limit: 5}}\npools:\n  a: {load_balancing: weighted-least-connections-member, members: [{address: 10.1.0.11, port: 80, connection_limit: 9}]}\n  b: {load_balancing: weighted-least-connections-node, members: [{address: 10.1.0.11, port: 80}]}\n";
    let methods: Vec<_> = with(weighted).parts.pools.iter().map(|pool| pool.method).collect();
    assert_eq!(methods, [Method::WeightedLeastConnectionsMember, Method::WeightedLeastConnectionsNode]);
}

#[test]
fn a_pool_has_tmshs_defaults_and_takes_every_option() {
    let plain = pool("");
    let expected =
        Pool { id: plain.id, name: "web".into(), members: plain.members.clone(), ..Pool::default() };
    assert_eq!(plain, Pool { slow_ramp_ms: 10_000, ..expected });
    let said = pool(
        "min_active_members: 1, slow_ramp_time: 0s, service_down_action: reselect, reselect_tries: 3, \
         queue_on_connection_limit: true, queue_depth_limit: 50, queue_time_limit: 2s",
    );
    assert_eq!((said.min_active_members, said.slow_ramp_ms, said.reselect_tries), (1, 0, 3));
    assert_eq!(said.queue, Some(Queue { depth: 50, time_ms: 2_000 }));
    for (word, action) in [
        ("none", ServiceDownAction::None),
        ("drop", ServiceDownAction::Drop),
        ("reset", ServiceDownAction::Reset),
        ("reselect", ServiceDownAction::Reselect),
    ] {
        assert_eq!(pool(&format!("service_down_action: {word}")).service_down_action, action);
    }
}

#[test]
fn members_at_one_address_share_a_node() {
    let parts = with(
        "nodes:\n  one: {address: 10.1.0.11, ratio: 3, connection_limit: 7, rate_limit: 9, state: disabled}\n\
         pools:\n  a: {min_active_members: 1, members: [{address: 10.1.0.11, port: 80, ratio: 2, priority_group: 10, connection_limit: 5, rate_limit: 6}, {address: 10.1.0.12, port: 80}]}\n  \
         b: {members: [{address: 10.1.0.11, port: 81}]}\n",
    )
    .parts;
    let [a, b] = &parts.pools[..] else { panic!("{:?}", parts.pools) };
    assert_eq!(a.members[0].node, b.members[0].node);
    assert_ne!(a.members[0].node, a.members[1].node);
    let (id, node) = (a.members[0].id, a.members[0].node);
    let expected = Member {
        id,
        node,
        address: address("10.1.0.11"),
        port: 80,
        ratio: 2,
        priority_group: 10,
        connection_limit: 5,
        rate_limit: 6,
    };
    assert_eq!(a.members[0], expected);
    let node = |id: NodeId| parts.nodes.iter().find(|node| node.id == id).unwrap();
    let (one, other) = (node(a.members[0].node), node(a.members[1].node));
    assert_eq!(
        (one.address, one.ratio, one.connection_limit, one.rate_limit),
        (address("10.1.0.11"), 3, 7, 9)
    );
    assert_eq!(
        (other.address, other.ratio, other.connection_limit, other.rate_limit),
        (address("10.1.0.12"), 1, 0, 0)
    );
    assert_eq!(parts.nodes.len(), 2);
}

/// One removed member still has connections.
struct Holding(Vec<MemberId>);

impl Holders for Holding {
    fn oldest_generation(&self) -> u64 {
        u64::MAX
    }
    fn of_virtual(&self, _: VirtualId) -> u64 {
        0
    }
    fn of_member(&self, id: MemberId) -> u64 {
        u64::from(self.0.contains(&id))
    }
    fn of_any(&self) -> u64 {
        self.0.len() as u64
    }
}

#[test]
fn a_nodes_number_stays_until_none_of_its_members_has_connections() {
    let config = |members: &str| {
        format!("{FRAME}system: {{limits: {{members: 3}}}}\npools: {{web: {{members: [{members}]}}}}\n")
    };
    let model = |members: &str| checked(&config(members)).model;
    let of = |book: &IdBook, last: u8| book.node_id(ip(&format!("10.1.0.{last}")));
    let start = model(
        "{address: 10.1.0.11, port: 80}, {address: 10.1.0.11, port: 81}, {address: 10.1.0.12, port: 80}",
    );
    let mut book = IdBook::new(&start.system.limits);
    book.assign(&start, 1, &Holding(Vec::new())).unwrap();
    let (one, two) = (of(&book, 11), of(&book, 12));
    assert_ne!(one, two);
    let mut third = model("{address: 10.1.0.11, port: 81}, {address: 10.1.0.12, port: 80}");
    book.assign(&third, 2, &Holding(Vec::new())).unwrap();
    assert_eq!((of(&book, 11), of(&book, 12)), (one, two), "a member of it is left");
    let held = book.member_id(third.pools.keys().next().unwrap(), &third.pools["web"].members[0]);
    third = model("{address: 10.1.0.13, port: 80}, {address: 10.1.0.14, port: 80}");
    book.assign(&third, 3, &Holding(vec![held])).unwrap();
    let given = [of(&book, 13), of(&book, 14)];
    assert!(given.contains(&two) && !given.contains(&one), "{given:?} with {one:?} held");
    third = model("{address: 10.1.0.11, port: 81}, {address: 10.1.0.13, port: 80}");
    book.assign(&third, 4, &Holding(vec![held])).unwrap();
    assert_eq!(of(&book, 11), one, "it came back");
}

#[test]
fn numbers_of_nodes_stay_over_applies() {
    let first = checked(&everything());
    let text = everything()
        .replace("pools:\n  web:", "pools:\n  a: {members: [{address: 10.1.0.5, port: 1}]}\n  web:");
    let against =
        Against { running: Some(&first.model), book: Some(&first.book), generation: 2, ..Against::NOTHING };
    let second = check_against(&text, &against);
    let node = |candidate: &Candidate| candidate.book.node_id(ip("10.1.0.11"));
    assert_eq!(node(&second), node(&first));
    assert_ne!(second.book.node_id(ip("10.1.0.5")), node(&first));
}
