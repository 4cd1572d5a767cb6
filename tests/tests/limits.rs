//! Limits of connections and rates over several workers, and the queue of connections that wait for room.

use sluice_tests::farm::{Farm, Tried, VIRTUAL, connect_at_once, pool, until_idle};
use sluice_tests::peer::{self, PATIENCE};
use sluice_tests::{LinkKind, World, config, show, wait};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// [`pool`] with these `options` of the virtual server; what is closed is soon forgotten.
fn limited(options: &str) -> String {
    pool("", [""; 4]).replace("snat: automap", &format!("snat: automap, {SOON}{options}"))
}

/// Three workers before these pools and virtual servers.
fn several(rest: &str) -> String {
    config::network_and(rest).replace("workers: 1", "workers: 3")
}

/// One member with room for two connections, and a queue.
fn queued(time_limit: &str) -> String {
    several(&format!(
        "pools:
  web:
    queue_on_connection_limit: true
    queue_time_limit: {time_limit}
    members: [{{address: 10.1.0.11, port: 8080, connection_limit: 2}}]
virtual_servers:
  web: {{destination: \"192.0.2.100:80\", pool: web, snat: automap, {SOON}}}
"
    ))
}

/// Pools on two ports of the first server, which takes six connections in all.
fn two_pools_on_a_node() -> String {
    several(&format!(
        "nodes: {{n: {{address: 10.1.0.11, connection_limit: 6}}}}
pools:
  web: {{members: [{{address: 10.1.0.11, port: 8080}}]}}
  other: {{members: [{{address: 10.1.0.11, port: 8081}}]}}
virtual_servers:
  web: {{destination: \"192.0.2.100:80\", pool: web, snat: automap, {SOON}}}
  other: {{destination: \"{OTHER}\", pool: other, snat: automap, {SOON}}}
"
    ))
}

fn expect_exactly(tried: &Tried, open: usize, count: usize) {
    assert_eq!((tried.open.len(), tried.refused.len()), (open, count - open), "{:?}", tried.refused);
    assert!(tried.all_reset(), "{:?}", tried.refused);
}

fn drops(world: &World, reason: &str) -> u64 {
    show::number(&world.sluice.show("drops"), &format!("/total/{reason}"))
}

#[test]
fn a_virtual_server_takes_exactly_its_limit_over_all_workers() {
    let Some(farm) = Farm::start(LinkKind::Veth, &limited(", connection_limit: 10")) else { return };
    for round in 1..=3 {
        let tried = connect_at_once(&farm.world, VIRTUAL, 40);
        expect_exactly(&tried, 10, 40);
        assert_eq!(drops(&farm.world, "connection-limit"), 30 * round);
        drop(tried);
        until_idle(&farm.world, "virtual-servers", "web");
    }
}

#[test]
fn a_limit_that_changes_holds_at_once_for_what_is_open_already() {
    let limit = |limit: u32| limited(&format!(", connection_limit: {limit}"));
    let Some(farm) = Farm::start(LinkKind::Veth, &limit(0)) else { return };
    let Farm { world, .. } = &farm;
    let mut open = connect_at_once(world, VIRTUAL, 20).open;
    assert_eq!(open.len(), 20, "without a limit");
    for (allowed, wanted) in [(25, 5), (31, 6), (4, 0)] {
        world.sluice.apply(&limit(allowed));
        let tried = connect_at_once(world, VIRTUAL, 30);
        expect_exactly(&tried, wanted, 30);
        open.extend(tried.open);
    }
    open.truncate(3);
    wait::until("the end of 28 connections", PATIENCE, || (current(world) == 3).then_some(()));
    expect_exactly(&connect_at_once(world, VIRTUAL, 30), 1, 30);
    wait::until("the end of one more", PATIENCE, || (current(world) == 3).then_some(()));
    world.sluice.apply(&limit(0));
    assert_eq!(connect_at_once(world, VIRTUAL, 30).open.len(), 30, "without a limit again");
}

fn current(world: &World) -> u64 {
    show::number(&world.sluice.object("virtual-servers", "web"), "/connections/current")
}

#[test]
fn a_node_takes_exactly_its_limit_over_two_pools() {
    let Some(farm) = Farm::start(LinkKind::Veth, &two_pools_on_a_node()) else { return };
    for _ in 0..2 {
        let (one, two) = std::thread::scope(|scope| {
            let one = scope.spawn(|| connect_at_once(&farm.world, VIRTUAL, 20));
            let two = connect_at_once(&farm.world, OTHER, 20);
            (one.join().expect("no panic"), two)
        });
        assert_eq!(one.open.len() + two.open.len(), 6, "{} and {}", one.open.len(), two.open.len());
        assert!(one.all_reset() && two.all_reset(), "{:?} {:?}", one.refused, two.refused);
        drop((one, two));
        until_idle(&farm.world, "pools", "web");
        until_idle(&farm.world, "pools", "other");
    }
}

#[test]
fn connections_wait_for_a_full_member_and_all_go_on_when_others_close() {
    let Some(world) = World::start(LinkKind::Veth, &queued("0ms")) else { return };
    let open = connect_at_once(&world, VIRTUAL, 2).open;
    assert_eq!(open.len(), 2);
    let answered = AtomicUsize::new(0);
    let visit = || {
        let mut stream = peer::connect(world.lab.client(), VIRTUAL).expect("a connection, at last");
        peer::fetch(&mut stream).expect("an answer");
        answered.fetch_add(1, Ordering::Relaxed)
    };
    std::thread::scope(|scope| {
        let visitors: Vec<_> = (0..6).map(|_| scope.spawn(visit)).collect();
        // Their kernel repeats the SYN, which says that the first one waits.
        wait::until("the queue", PATIENCE, || (drops(&world, "queued-already") >= 6).then_some(()));
        assert_eq!(answered.load(Ordering::Relaxed), 0, "the member is full");
        drop(open);
        for visitor in visitors {
            visitor.join().expect("no panic");
        }
    });
    assert_eq!(drops(&world, "members-full"), 0);
}

#[test]
fn who_waits_too_long_is_refused() {
    let Some(world) = World::start(LinkKind::Veth, &queued("300ms")) else { return };
    let open = connect_at_once(&world, VIRTUAL, 2).open;
    assert_eq!(open.len(), 2);
    let tried = connect_at_once(&world, VIRTUAL, 5);
    expect_exactly(&tried, 0, 5);
    assert_eq!((drops(&world, "queue-timeout"), drops(&world, "members-full")), (5, 0));
}

#[test]
fn a_rate_is_held_over_all_workers_and_lets_others_in_later() {
    const RATE: f64 = 5.0;
    let Some(farm) = Farm::start(LinkKind::Veth, &limited(", rate_limit: 5")) else { return };
    let start = Instant::now();
    let tried = connect_at_once(&farm.world, VIRTUAL, 60);
    // At most what the rate allows in the time it took, and as much again at once.
    let most = (start.elapsed().as_secs_f64() + 1.0) * RATE + 1.0;
    assert!((1.0..=most).contains(&(tried.open.len() as f64)), "{} of at most {most}", tried.open.len());
    assert!(tried.all_reset(), "{:?}", tried.refused);
    wait::until("a place in time", Duration::from_secs(5), || {
        peer::connect(farm.world.lab.client(), VIRTUAL).ok()
    });
}

const OTHER: &str = "192.0.2.100:81";
/// What is closed is forgotten after this.
const SOON: &str = "close_timeout: 100ms";
