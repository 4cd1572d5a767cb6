//! `wire apply`: what traffic notices of a new configuration of 10,000 virtual servers and 100,000 members.
//!
//! ```text
//!   this thread    frames of known flows, as many as the wire takes ─▶ sluice ─▶ back       longest silence
//!   another one    PUT /v1/config ──────────────────────────────────▶ sluice               how long it took
//! ```
//!
//! Sluice always has frames to send back, so a silence is a worker that does something else. While the generator
//! itself was away from its core it heard nothing, and that is no silence.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sluice_control::client::Client;

use super::device::{self, Setup};
use super::generator::{Generator, Traffic};
use super::ground::{Device, Ground, Link};
use crate::large::{Sections, Size};
use crate::machine::{self, GivesWay};
use crate::report::{median, range};
use crate::scenario::Shape;

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The configuration's.
    pub size: Size,
    /// Applies.
    pub rounds: u16,
    /// Flows that have traffic meanwhile.
    pub flows: u32,
    /// The device's core.
    pub core: usize,
}

/// Runs `plan` and prints a row an apply.
///
/// # Errors
/// What could not be started, and what sluice refused.
pub fn run(ground: &mut Ground, plan: &Plan) -> Result<(), String> {
    println!("{}", ground.about());
    let Size { virtual_servers, members, limited } = plan.size;
    println!("{virtual_servers} virtual servers, {members} members, limited: {limited}; aims: 100 ms, 1 ms");
    let sections = Sections::new(plan.size, 0);
    let cores = [plan.core];
    let setup = Setup { shape: Shape::udp(plan.flows), cores: &cores, ballast: Some(&sections), proxy: None };
    let mut link = ground.link(&Device::Sluice(setup), 10)?;
    let station = link.stations.pop().ok_or("a wire without a queue")?;
    let mut generator = Generator::new(station, 0, plan.flows);
    let mac = generator
        .connect(Traffic::Requests, || link.device.is_running())
        .map_err(|why| ground.with_log(&why))?;
    generator.talk_to(mac);
    generator.warm_up()?;
    let quiet = quiet(&mut generator, &link);
    println!("without an apply: {quiet}");
    let rounds: Vec<Round> = (1..=plan.rounds)
        .map(|edition| {
            let next = Sections::new(plan.size, edition % 2);
            let text = device::configuration(&link.wire, &Setup { ballast: Some(&next), ..setup });
            let round = apply(&mut generator, &link, text)?;
            println!("{round}");
            Ok(round)
        })
        .collect::<Result<_, String>>()?;
    let of = |what: fn(&Round) -> f64| rounds.iter().map(what).collect::<Vec<_>>();
    let (took, silence) = (of(|round| round.took_ms), of(|round| round.silence_us));
    println!(
        "apply {:.0} ms (at most {:.0}), silence {:.0} us (at most {:.0})",
        median(&took),
        range(&took).1,
        median(&silence),
        range(&silence).1
    );
    Ok(())
}

/// One apply, and what traffic noticed.
struct Round {
    took_ms: f64,
    publish_ms: f64,
    silence_us: f64,
    lost: u64,
    longest_turn_us: f64,
    waited_us: f64,
    away_ms: f64,
}

impl std::fmt::Display for Round {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "apply {:7.1} ms, of which until the last worker had it {:.1} ms | longest silence {:.0} us, lost {} | the worker's \
             longest turn so far {:.0} us; it waited {:.0} us for its core, the generator was away for {:.1} ms",
            self.took_ms,
            self.publish_ms,
            self.silence_us,
            self.lost,
            self.longest_turn_us,
            self.waited_us,
            self.away_ms
        )
    }
}

fn quiet(generator: &mut Generator, link: &Link) -> Round {
    let waited = link.device.waited();
    let heard = generator.listen(|start| start.elapsed() < QUIET);
    Round {
        took_ms: 0.0,
        publish_ms: 0.0,
        silence_us: heard.silence.as_secs_f64() * 1e6,
        lost: heard.lost,
        longest_turn_us: longest_turn(link),
        waited_us: (link.device.waited() - waited).as_secs_f64() * 1e6,
        away_ms: heard.away.as_secs_f64() * 1e3,
    }
}

fn apply(generator: &mut Generator, link: &Link, text: String) -> Result<Round, String> {
    let (waited, done, client) = (link.device.waited(), AtomicBool::new(false), Client::new(link.socket()));
    let (heard, answer) = std::thread::scope(|scope| {
        let applying = scope.spawn({
            let done = &done;
            move || {
                let start = Instant::now();
                let body = Some(("application/yaml", text));
                let answer = client.request("PUT".parse().unwrap_or_default(), "/v1/config", body);
                let took = start.elapsed();
                done.store(true, Ordering::Release);
                answer.map(|answer| (took, answer.json)).map_err(|error| error.to_string())
            }
        });
        // With two cores only, the control thread works on this one, too, and must not wait for the generator.
        let _gives_way = (machine::cores() < 3).then(GivesWay::start);
        let heard = generator.listen(|_| !done.load(Ordering::Acquire));
        (heard, applying.join().unwrap_or_else(|_| Err("the client has panicked".into())))
    });
    let (took, json) = answer?;
    Ok(Round {
        took_ms: took.as_secs_f64() * 1e3,
        publish_ms: json["elapsed_ms"].as_f64().unwrap_or_default(),
        silence_us: heard.silence.as_secs_f64() * 1e6,
        lost: heard.lost,
        longest_turn_us: longest_turn(link),
        waited_us: (link.device.waited() - waited).as_secs_f64() * 1e6,
        away_ms: heard.away.as_secs_f64() * 1e3,
    })
}

fn longest_turn(link: &Link) -> f64 {
    link.ask("/v1/workers")[0]["longest_turn_us"].as_f64().unwrap_or_default()
}

const QUIET: Duration = Duration::from_secs(1);
