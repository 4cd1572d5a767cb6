//! Persistence: connections that belong together go to the same member, whichever worker they come to.

mod world;

use std::collections::HashSet;

use sluice_dataplane::config::ids::{MemberId, VirtualId};
use sluice_dataplane::config::snapshot::{
    MemberState, Parts, Persistence, PersistenceKind, Pool, Protocol, Snat, VirtualKind,
};
use sluice_dataplane::limits::Limits;
use sluice_dataplane::packet::build::{self, Tcp, address};
use sluice_dataplane::packet::parse::tcp_flag::{RST, SYN};
use world::*;

const TIMEOUT_MS: u64 = 180_000;

/// Pool 0 with four members, and source-address persistence, changed by `change`, at virtual server 0.
fn persistent(change: impl FnOnce(&mut Parts, &mut Persistence)) -> impl FnOnce(&mut Parts) {
    |parts| {
        let mut persistence = Persistence::new(PersistenceKind::SourceAddress);
        let members = (11..=14).map(|last| member(last - 11, &format!("10.1.0.{last}"), 8080));
        parts.pools[0].members = members.collect();
        parts.pools[1].members.clear();
        change(parts, &mut persistence);
        for item in &mut parts.virtuals {
            item.persistence = Some(persistence);
        }
    }
}

/// Opens a connection through `destination` and says which member it went to.
fn connect_to(world: &mut World, client: (&str, u16), destination: (&str, u16)) -> Option<String> {
    let syn = Tcp {
        src_mac: CLIENT_MAC,
        dst_mac: EXTERNAL_MAC,
        src: client.0,
        src_port: client.1,
        dst: destination.0,
        dst_port: destination.1,
        flags: SYN,
        ..Tcp::default()
    };
    let seen = only(&world.send(EXTERNAL, &build::tcp(&syn)));
    (seen.flags & RST == 0).then_some(seen.dst.0)
}

fn connect(world: &mut World, client: &str, port: u16) -> Option<String> {
    connect_to(world, (client, port), (VIRTUAL, 80))
}

fn hits_and_misses(world: &World) -> (u64, u64) {
    (world.counters.persistence_hits.load(), world.counters.persistence_misses.load())
}

#[test]
fn a_client_stays_with_its_member_and_others_are_balanced() {
    let mut world = World::started(persistent(|_, _| ()));
    let clients: Vec<_> = (1..=8).map(|last| format!("198.51.100.{last}")).collect();
    let first: Vec<_> = clients.iter().map(|client| connect(&mut world, client, 1_000)).collect();
    assert_eq!(first.iter().collect::<HashSet<_>>().len(), 4, "eight clients over four members");
    for port in 1_001..1_004 {
        let again: Vec<_> = clients.iter().map(|client| connect(&mut world, client, port)).collect();
        assert_eq!(again, first);
    }
    assert_eq!(hits_and_misses(&world), (24, 8));
    assert_eq!((world.persistence.len(), world.persistence.records_of(MemberId(0))), (8, 2));
}

#[test]
fn a_record_lives_for_its_timeout_after_the_last_new_connection() {
    let mut world = World::started(persistent(|_, _| ()));
    let first = connect(&mut world, CLIENT, 1_000);
    world.run(TIMEOUT_MS - 1);
    assert_eq!(connect(&mut world, CLIENT, 1_001), first);
    world.run(TIMEOUT_MS - 1);
    assert_eq!(connect(&mut world, CLIENT, 1_002), first, "the connection before began the time anew");
    world.run(TIMEOUT_MS);
    assert_ne!(connect(&mut world, CLIENT, 1_003), first, "round robin is at the next member");
    assert_eq!(hits_and_misses(&world), (2, 2));
}

#[test]
fn what_is_over_is_swept_while_the_worker_runs() {
    let mut world = World::started(persistent(|_, _| ()));
    let first = connect(&mut world, CLIENT, 1_000);
    assert_eq!((world.persistence.len(), first.is_some()), (1, true));
    world.run(TIMEOUT_MS);
    (0..300).for_each(|_| drop(world.run(20)));
    assert_eq!(world.persistence.len(), 0);
}

#[test]
fn a_disabled_member_keeps_its_clients_and_an_offline_one_hands_them_over() {
    let mut world = World::started(persistent(|_, _| ()));
    assert_eq!(connect(&mut world, CLIENT, 1_000).as_deref(), Some("10.1.0.11"));
    world.members.set(MemberId(0), MemberState::Disabled);
    assert_eq!(connect(&mut world, CLIENT, 1_001).as_deref(), Some("10.1.0.11"));
    assert_ne!(connect(&mut world, "198.51.100.8", 1_000).as_deref(), Some("10.1.0.11"));
    world.members.set(MemberId(0), MemberState::Offline);
    let next = connect(&mut world, CLIENT, 1_002);
    assert!(next.is_some() && next.as_deref() != Some("10.1.0.11"), "{next:?}");
    world.members.set(MemberId(0), MemberState::Enabled);
    assert_eq!(connect(&mut world, CLIENT, 1_003), next, "the record leads to the other one from then on");
    assert_eq!(world.persistence.records_of(MemberId(0)), 0);
}

#[test]
fn records_survive_an_apply_and_lead_elsewhere_when_it_removes_their_member() {
    let mut world = World::started(persistent(|_, _| ()));
    let first = connect(&mut world, CLIENT, 1_000);
    world.apply(|parts| parts.pools[0].members.push(member(5, "10.1.0.15", 8080)));
    assert_eq!(connect(&mut world, CLIENT, 1_001), first);
    world.apply(|parts| {
        parts.pools[0].members.remove(0);
    });
    let next = connect(&mut world, CLIENT, 1_002);
    assert!(next.is_some() && next != first);
    assert_eq!(connect(&mut world, CLIENT, 1_003), next);
}

#[test]
fn a_number_that_another_member_gets_does_not_get_its_clients() {
    let mut world = World::started(persistent(|_, _| ()));
    assert_eq!(connect(&mut world, CLIENT, 1_000).as_deref(), Some("10.1.0.11"));
    world.apply(|parts| parts.pools[0].members[0] = member(0, "10.1.0.14", 9090));
    connect(&mut world, CLIENT, 1_001);
    assert_eq!(hits_and_misses(&world), (0, 2));
}

#[test]
fn a_member_at_its_limit_is_passed_over_unless_persistence_overrides_that() {
    for overrides in [false, true] {
        let mut world = World::started(persistent(|parts, persistence| {
            parts.pools[0].members[0].connection_limit = 1;
            persistence.override_connection_limit = overrides;
        }));
        assert_eq!(connect(&mut world, CLIENT, 1_000).as_deref(), Some("10.1.0.11"));
        let second = connect(&mut world, CLIENT, 1_001);
        assert_eq!(second.as_deref() == Some("10.1.0.11"), overrides, "{second:?}");
        assert_eq!(hits_and_misses(&world), (u64::from(overrides), 2 - u64::from(overrides)));
        world.apply(|parts| parts.pools[0].members[0].connection_limit = 0);
        assert_eq!(connect(&mut world, CLIENT, 1_002).as_deref(), Some("10.1.0.11"), "the record stayed");
    }
}

#[test]
fn a_mask_makes_one_client_of_a_network() {
    let mut world = World::started(persistent(|_, persistence| persistence.mask_v4 = 24));
    let first = connect(&mut world, "198.51.100.7", 1_000);
    assert_eq!(connect(&mut world, "198.51.100.99", 1_000), first);
    assert_ne!(connect(&mut world, "198.51.101.7", 1_000), first);
}

/// A second virtual server on the same address, port 81, for the same pool; a third on another address.
fn more_servers(parts: &mut Parts) {
    parts.virtuals.push(virtual_server(3, "192.0.2.100/32", 81, Protocol::Tcp, 0));
    parts.virtuals.push(virtual_server(4, "192.0.2.101/32", 80, Protocol::Tcp, 0));
}

#[test]
fn records_serve_one_virtual_server_one_address_or_all_as_asked() {
    for (services, virtuals) in [(false, false), (true, false), (true, true), (false, true)] {
        let mut world = World::started(persistent(|parts, persistence| {
            more_servers(parts);
            (persistence.match_across_services, persistence.match_across_virtuals) = (services, virtuals);
        }));
        let first = connect(&mut world, CLIENT, 1_000);
        let same_address = connect_to(&mut world, (CLIENT, 1_001), (VIRTUAL, 81));
        assert_eq!(same_address == first, services || virtuals, "{services} {virtuals}");
        let other_address = connect_to(&mut world, (CLIENT, 1_002), ("192.0.2.101", 80));
        assert_eq!(other_address == first, virtuals, "{services} {virtuals}");
    }
}

#[test]
fn across_pools_the_member_at_the_same_address_is_meant() {
    for across in [false, true] {
        let mut world = World::started(persistent(|parts, persistence| {
            let other = [(12, 9090), (11, 9090), (13, 9090)];
            let members =
                other.iter().zip(20..).map(|((last, port), id)| member(id, &format!("10.1.0.{last}"), *port));
            parts.pools.push(Pool { name: "other".into(), members: members.collect(), ..pool_with_id(3) });
            parts.virtuals.push(virtual_server(3, "192.0.2.100/32", 81, Protocol::Tcp, 3));
            persistence.match_across_services = true;
            persistence.match_across_pools = across;
        }));
        assert_eq!(connect(&mut world, CLIENT, 1_000).as_deref(), Some("10.1.0.11"));
        let there = connect_to(&mut world, (CLIENT, 1_001), (VIRTUAL, 81));
        assert_eq!(there.as_deref(), Some(if across { "10.1.0.11" } else { "10.1.0.12" }));
        assert_eq!(connect(&mut world, CLIENT, 1_002).as_deref(), Some("10.1.0.11"));
    }
}

fn pool_with_id(id: u32) -> Pool {
    Pool { id: sluice_dataplane::config::ids::PoolId(id), ..Pool::default() }
}

#[test]
fn destination_persistence_is_by_what_clients_ask_for() {
    let mut world = World::started(persistent(|parts, persistence| {
        persistence.kind = PersistenceKind::DestinationAddress;
        let mut any = virtual_server(3, "203.0.113.0/24", 0, Protocol::Any, 0);
        any.kind = VirtualKind::PerformanceL4;
        parts.virtuals.push(any);
    }));
    let first = connect_to(&mut world, ("198.51.100.7", 1_000), ("203.0.113.1", 80));
    assert_eq!(connect_to(&mut world, ("198.51.100.8", 1_000), ("203.0.113.1", 443)), first);
    assert_ne!(connect_to(&mut world, ("198.51.100.7", 1_001), ("203.0.113.2", 80)), first);
}

#[test]
fn hash_needs_no_record_and_every_replica_agrees() {
    let world = || {
        World::started(persistent(|parts, persistence| {
            persistence.kind = PersistenceKind::Hash;
            parts.pools[0].members.rotate_left(1);
        }))
    };
    let (mut one, mut other) = (world(), world());
    connect(&mut other, "198.51.100.99", 1);
    let mut members = HashSet::new();
    for last in 1..=40 {
        let client = format!("198.51.100.{last}");
        let first = connect(&mut one, &client, 1_000);
        assert_eq!(connect(&mut one, &client, 1_001), first, "the port does not count");
        assert_eq!(connect(&mut other, &client, 1_002), first);
        members.insert(first);
    }
    assert_eq!((members.len(), one.persistence.len()), (4, 0));
}

#[test]
fn hash_goes_round_members_that_are_out() {
    let mut world = World::started(persistent(|_, persistence| persistence.kind = PersistenceKind::Hash));
    let before: Vec<_> = (1..=40)
        .map(|last| connect(&mut world, &format!("198.51.100.{last}"), 1_000).expect("a member"))
        .collect();
    world.members.set(MemberId(2), MemberState::Offline);
    for (last, before) in (1..=40).zip(&before) {
        let now = connect(&mut world, &format!("198.51.100.{last}"), 1_001).expect("a member");
        assert!(now != "10.1.0.13" && (now == *before || before == "10.1.0.13"), "{before} to {now}");
    }
    for id in 0..4 {
        world.members.set(MemberId(id), MemberState::Offline);
    }
    assert_eq!(connect(&mut world, CLIENT, 1_002), None);
}

#[test]
fn hash_keeps_to_the_priority_groups_at_work() {
    let mut world = World::started(persistent(|parts, persistence| {
        persistence.kind = PersistenceKind::Hash;
        parts.pools[0].min_active_members = 1;
        parts.pools[0].members[1].priority_group = 10;
    }));
    let preferred = connect(&mut world, CLIENT, 1_000).expect("a member");
    for last in 1..=40 {
        let member = connect(&mut world, &format!("198.51.100.{last}"), 1_001).expect("a member");
        assert_eq!(member, preferred, "the only one of its group");
    }
    world.members.set(world.parts.pools[0].members[1].id, MemberState::Offline);
    let others = (1..=40).filter_map(|last| connect(&mut world, &format!("198.51.100.{last}"), 1_002));
    assert_eq!(others.inspect(|member| assert_ne!(member, &preferred)).count(), 40);
}

#[test]
fn a_full_table_gives_up_old_records_and_counts_them() {
    let limits = Limits { flows: 1_024, half_open: 1_024, frames: 512, persistence: 4, ..Limits::default() };
    let mut world = World::with_limits(limits, persistent(|_, _| ()));
    world.start();
    for last in 1..=20 {
        world.run(5);
        assert!(connect(&mut world, &format!("198.51.100.{last}"), 1_000).is_some());
    }
    assert_eq!((world.persistence.len(), world.counters.persistence_evicted.load()), (8, 12));
    assert_eq!(connect(&mut world, "198.51.100.20", 1_001).as_deref(), Some("10.1.0.14"));
    assert_eq!(world.counters.persistence_hits.load(), 1);
}

#[test]
fn a_removed_record_is_forgotten_at_once() {
    let mut world = World::started(persistent(|_, _| ()));
    let first = connect(&mut world, CLIENT, 1_000);
    let page = world.persistence.page(0, 10, world.now_ms);
    let [record] = page.records[..] else { panic!("{page:?}") };
    assert_eq!(record.key.address.to_string(), format!("{CLIENT}/32"));
    assert!(world.persistence.remove(record.id));
    assert_ne!(connect(&mut world, CLIENT, 1_001), first);
}

#[test]
fn workers_share_records() {
    const WORKERS: usize = 4;
    let mut parts = usual();
    persistent(|parts, _| parts.virtuals.iter_mut().for_each(|item| item.snat = Snat::Automap))(&mut parts);
    let limits = Limits { flows: 4_096, half_open: 4_096, frames: 512, ..Limits::default() };
    let mut workers = World::several(WORKERS, limits, &parts);
    workers[0].start();
    workers[1..].iter_mut().for_each(|worker| (0..4).for_each(|_| drop(worker.run(20))));
    for last in 1..=50 {
        let client = format!("198.51.100.{last}");
        let members: HashSet<_> = (0..WORKERS)
            .map(|at| {
                // Whatever worker it belongs to: the next hop of the member is known there, or asked for; the flow
                // says where it goes.
                let syn = Tcp {
                    src_mac: CLIENT_MAC,
                    dst_mac: EXTERNAL_MAC,
                    src: &client,
                    src_port: 1_000 + at as u16,
                    dst: VIRTUAL,
                    dst_port: 80,
                    flags: SYN,
                    ..Tcp::default()
                };
                workers[at].send(EXTERNAL, &build::tcp(&syn));
                workers.iter_mut().for_each(|worker| drop(worker.run(0)));
                let mut flows = workers.iter_mut().flat_map(World::flows);
                let own = (address(&client), 1_000 + at as u16);
                let own = flows.find(|flow| flow.client == own).expect("its flow");
                assert_eq!(own.virtual_id, VirtualId(0));
                own.member
            })
            .collect();
        assert_eq!(members.len(), 1, "{client}: {members:?}");
    }
    let total = |of: fn(&World) -> u64| -> u64 { workers.iter().map(of).sum() };
    assert_eq!(total(|worker| worker.counters.persistence_misses.load()), 50);
    assert_eq!(total(|worker| worker.counters.persistence_hits.load()), 150);
    assert_eq!(workers[0].persistence.len(), 50);
}
