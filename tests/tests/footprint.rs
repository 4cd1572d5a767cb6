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

/// Where hugepages are free, the flow table and the frame memory are on them, and `workers` says so.
#[test]
fn tables_and_frames_are_on_hugepages_where_there_are_any() {
    let _alone = ALONE.lock();
    let Some(_pages) = HugePages::reserve(128) else { return };
    let Some(world) = World::start(LinkKind::Veth, &config::web()) else { return };
    let workers = world.sluice.show("workers");
    let pages_of = |name: &str| {
        let tables = workers[0]["tables"].as_array().expect("a list of tables");
        let table = tables.iter().find(|table| table["name"] == name).expect("the table");
        table["pages"].as_str().expect("a word").to_string()
    };
    assert_eq!((pages_of("flows").as_str(), pages_of("frames").as_str()), ("huge", "huge"));
    assert!(world.curl("http://192.0.2.100/").starts_with("server"));
}

/// Hugepages of the machine, given back at the end.
struct HugePages {
    before: u64,
}

impl HugePages {
    const COUNT: &str = "/proc/sys/vm/nr_hugepages";

    /// `more` than there are; says so where the kernel has no memory for them.
    fn reserve(more: u64) -> Option<Self> {
        let count = || std::fs::read_to_string(Self::COUNT).ok()?.trim().parse::<u64>().ok();
        let Some(before) = count() else {
            sluice_tests::skip("no hugepages in this kernel");
            return None;
        };
        let pages = Self { before };
        let written = std::fs::write(Self::COUNT, (before + more).to_string());
        if written.is_ok() && count()? >= before + more {
            return Some(pages);
        }
        sluice_tests::skip("no room for hugepages");
        None
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = std::fs::write(Self::COUNT, self.before.to_string());
    }
}
