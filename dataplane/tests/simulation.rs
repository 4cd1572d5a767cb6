//! Simulated worlds: every seed is another one, and what must hold holds in all of them.
//!
//! ```text
//!   SLUICE_SIM_SEEDS=100000 cargo test -p sluice-dataplane --test simulation      more worlds
//!   SLUICE_SIM_SEED=1234 cargo test -p sluice-dataplane --test simulation         this one again
//!   SLUICE_SIM_FRAMES=1                                                           and every frame in it
//! ```

mod sim;
mod world;

use sim::schedule::Plan;
use sim::{Outcome, Sabotage, Sim};
use sluice_dataplane::frame::FramePool;

fn frames() -> FramePool {
    FramePool::new(2_048)
}

fn live(seed: u64, sabotage: Sabotage, frames: &FramePool) -> Outcome {
    Sim::new(Plan::new(seed), sabotage, frames).run()
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn assert_holds(seed: u64, outcome: &Outcome) {
    assert!(
        outcome.violations.is_empty(),
        "seed {seed}: {:#?}\nagain: SLUICE_SIM_SEED={seed} cargo test -p sluice-dataplane --test simulation every_world",
        outcome.violations
    );
}

#[test]
fn every_world_keeps_its_promises() {
    if let Some(seed) = variable("SLUICE_SIM_SEED") {
        let plan = Plan::new(seed);
        println!("{} workers, {:?}, {:?}, calm {}", plan.workers, plan.spread, plan.weather, plan.calm);
        let sim = Sim::new(plan, Sabotage::None, &frames());
        let outcome = sim.aloud(std::env::var_os("SLUICE_SIM_FRAMES").is_some()).run();
        println!("{outcome:?}");
        return assert_holds(seed, &outcome);
    }
    let seeds = variable("SLUICE_SIM_SEEDS").unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    std::thread::scope(|scope| {
        let share = |thread| move || live_all((thread..seeds).step_by(threads as usize));
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(share(thread))).collect();
        let sums: Vec<_> = running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        println!("{sums:?}");
        sums.iter().for_each(assert_eventful);
    });
}

/// Virtual servers come to keep ports and stop again, under load and with several workers.
#[test]
fn worlds_in_which_ports_change_owners_keep_their_promises() {
    let pool = frames();
    let seeds = variable("SLUICE_SIM_SEED")
        .map_or(0..variable("SLUICE_SIM_SEEDS").unwrap_or(SEEDS) / 16, |seed| seed..seed + 1);
    let (mut complete, mut refused, mut waited) = (0, 0, 0);
    for seed in seeds {
        let sim = Sim::new(Plan::turning(seed), Sabotage::None, &pool);
        let outcome = sim.aloud(std::env::var_os("SLUICE_SIM_FRAMES").is_some()).run();
        if variable("SLUICE_SIM_SEED").is_some() {
            println!("{:?}", outcome.drops);
        }
        assert!(
            outcome.violations.is_empty(),
            "seed {seed}: {:#?}\nagain: SLUICE_SIM_SEED={seed} cargo test -p sluice-dataplane --test simulation owners",
            outcome.violations
        );
        complete += outcome.complete;
        refused += outcome.refused;
        waited += outcome.drops.get("snat-port-taken").copied().unwrap_or(0);
    }
    println!("{complete} complete, {refused} refused, {waited} ports taken");
    assert!(complete > refused * 2 && (refused > 0 || complete < 1_000));
}

#[derive(Debug, Default)]
struct Sums {
    worlds: usize,
    connections: usize,
    complete: usize,
    refused: usize,
    stale: u64,
    frames: u64,
    handed_over: u64,
    kept: usize,
}

fn live_all(seeds: impl Iterator<Item = u64>) -> Sums {
    let (mut sums, mut pool) = (Sums::default(), frames());
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| live(seed, Sabotage::None, &pool));
        let Ok(outcome) = outcome else { panic!("seed {seed} panicked") };
        assert_holds(seed, &outcome);
        sums.worlds += 1;
        sums.connections += outcome.connections;
        sums.complete += outcome.complete;
        sums.refused += outcome.refused;
        sums.stale += outcome.stale;
        sums.frames += outcome.frames;
        sums.handed_over += outcome.handed_over;
        sums.kept += outcome.kept;
        if pool.in_use() > 0 {
            pool = frames();
        }
    }
    sums
}

/// Worlds in which little happens show little.
fn assert_eventful(sums: &Sums) {
    let enough = sums.complete * 2 > sums.connections && sums.refused > 0;
    let enough = enough && sums.handed_over > 0 && sums.kept > sums.complete / 20;
    assert!(enough || sums.worlds < 100, "{sums:?}");
}

#[test]
fn a_seed_means_the_same_world_every_time() {
    for seed in 0..20 {
        let pool = frames();
        let [first, second] = [0, 1].map(|_| live(seed, Sabotage::None, &pool).trace);
        assert_eq!(first, second, "seed {seed}");
    }
}

const SEEDS: u64 = 2_000;

/// Whether the checker says `words` in one of some worlds in which `sabotage` happens.
fn is_caught(sabotage: Sabotage, words: &str) -> bool {
    let mut outcomes = (0..60).map(|seed| live(seed, sabotage, &frames()));
    outcomes.any(|outcome| outcome.violations.iter().any(|said| said.contains(words)))
}

#[test]
fn the_checker_sees_what_is_broken_on_purpose() {
    let cases = [
        (Sabotage::SwapPayloads, "byte"),
        (Sabotage::WrongMemberPort, "came as"),
        (Sabotage::WrongSource, "came as"),
        (Sabotage::LoseFrame, "frames in"),
        (Sabotage::HoldFrame, "never given back"),
        (Sabotage::TighterLimits, " of "),
        (Sabotage::EndEarly, "still has"),
    ];
    for (sabotage, words) in cases {
        assert!(is_caught(sabotage, words), "{sabotage:?} goes unseen");
    }
}
