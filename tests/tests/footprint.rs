//! What a quiet sluice costs, and how fast it is there. One at a time: these measure.

use sluice_tests::{LinkKind, World, config, wait};
use std::sync::Mutex;
use std::time::{Duration, Instant};

static ALONE: Mutex<()> = Mutex::new(());

/// The contract: under 2 % of a core, at most 128 MiB, ready within a second.
#[test]
fn a_quiet_sluice_is_small_and_sleeps() {
    let _alone = ALONE.lock();
    let Some(world) = World::start(LinkKind::Macvlan, &config::web()) else { return };
    println!("ready after {:?}", world.sluice.ready_after);
    assert!(world.sluice.ready_after <= Duration::from_secs(1), "ready after {:?}", world.sluice.ready_after);
    // Traffic first, so that what it touches is counted.
    world.members_of("http://192.0.2.100/", 10);

    let (before, start) = (world.sluice.cpu_time(), Instant::now());
    wait::pass(Duration::from_secs(5));
    let share = (world.sluice.cpu_time() - before).as_secs_f64() / start.elapsed().as_secs_f64();
    println!("{:.2} % of a core, {} KiB resident", share * 100.0, world.sluice.resident_kib());
    assert!(share < 0.02, "{:.2} % of a core", share * 100.0);
    assert!(world.sluice.resident_kib() <= 128 << 10, "{} KiB resident", world.sluice.resident_kib());
}

/// A sleeping worker wakes for a packet within a millisecond. Other work on the machine may hold up a ping, but
/// without being woken a worker would answer one in a hundred that fast: it sleeps for up to 100 ms.
#[test]
fn a_sleeping_worker_wakes_at_once() {
    let _alone = ALONE.lock();
    let Some(world) = World::start(LinkKind::Veth, &config::web()) else { return };
    let mut ping = world.lab.client().command("ping");
    let said = sluice_tests::run(ping.args(["-n", "-c", "20", "-i", "0.1", "192.0.2.10"]));
    let times = said.lines().filter_map(|line| line.split_once("time=")?.1.strip_suffix(" ms"));
    let times: Vec<f64> = times.map(|ms| ms.parse().expect("milliseconds")).collect();
    println!("pings of a quiet sluice, in ms: {times:?}");
    let prompt = times.iter().filter(|ms| **ms < 1.0).count();
    assert!(times.len() == 20 && prompt >= 5, "{prompt} of {} within 1 ms: {times:?}", times.len());
}
