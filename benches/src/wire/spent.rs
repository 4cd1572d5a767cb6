//! What a polling worker spends on its work: all of its core but the turns that found nothing to do.
//!
//! ```text
//!   quiet   turns without work ─▶ cycles (and instructions) of such a turn
//!   loaded  cycles that it had − its turns without work × that ─▶ cycles of the work
//! ```

use std::process::{Command, Stdio};
use std::time::Duration;

use sluice_ffi::tsc;

use super::ground::Link;

/// A look at the worker.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    turns: u64,
    busy_turns: u64,
    spent: Duration,
    at_cycles: u64,
    at: std::time::Instant,
}

/// What was spent between two looks.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    idle_turns: u64,
    cycles: u64,
    seconds: f64,
    /// Of its core, the share that the device had: 0 to 1.
    pub share: f64,
}

/// What a turn without work costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quiet {
    /// Time-stamp counter cycles.
    pub cycles_a_turn: f64,
    /// Where the processor counts them.
    pub instructions_a_turn: Option<f64>,
}

impl Look {
    /// Now, at the first worker.
    pub fn at(link: &Link) -> Self {
        let workers = link.ask("/v1/workers");
        let count = |name: &str| workers[0][name].as_u64().unwrap_or_default();
        Self {
            turns: count("turns"),
            busy_turns: count("busy_turns"),
            spent: link.device.cpu_time(),
            at_cycles: tsc::cycles(),
            at: std::time::Instant::now(),
        }
    }

    /// From `before` to this one.
    pub fn since(&self, before: &Self) -> Spent {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let idle = |look: &Self| look.turns.saturating_sub(look.busy_turns);
        Spent {
            idle_turns: idle(self).saturating_sub(idle(before)),
            cycles: self.at_cycles - before.at_cycles,
            seconds,
            // The control thread's part is on another core.
            share: (self.spent.saturating_sub(before.spent).as_secs_f64() / seconds).min(1.0),
        }
    }
}

impl Spent {
    /// Cycles that the worker had of its core.
    pub fn had_cycles(&self) -> f64 {
        self.cycles as f64 * self.share
    }

    /// Cycles that it had work.
    pub fn busy_cycles(&self, quiet: &Quiet) -> f64 {
        (self.had_cycles() - self.idle_turns as f64 * quiet.cycles_a_turn).max(0.0)
    }

    /// Turns without work, a second.
    pub fn idle_turns_a_second(&self) -> f64 {
        self.idle_turns as f64 / self.seconds
    }

    /// Instructions that `core` does a second while `drive` runs; `None` where the processor does not count.
    pub fn instructions_a_second(core: usize, drive: impl FnOnce(Duration)) -> Option<f64> {
        let mut perf = Command::new("perf");
        perf.args(["stat", "-x;", "-e", "instructions", "-C", &core.to_string(), "sleep", COUNTED_SECONDS]);
        perf.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let perf = perf.spawn().ok()?;
        drive(COUNTED_FOR);
        let output = perf.wait_with_output().ok()?;
        read_rate(&String::from_utf8_lossy(&output.stderr))
    }
}

impl Quiet {
    /// From a worker that had nothing to do; `None` when it says nothing of its turns.
    pub fn of(spent: &Spent, instructions_a_second: Option<f64>) -> Option<Self> {
        (spent.idle_turns > 0).then(|| Self {
            cycles_a_turn: spent.had_cycles() / spent.idle_turns as f64,
            instructions_a_turn: instructions_a_second.map(|count| count / spent.idle_turns_a_second()),
        })
    }
}

/// Instructions a second of all kinds of core, of what `perf stat -x;` writes: the count, its unit, the event, and for how many
/// nanoseconds it was counted.
fn read_rate(text: &str) -> Option<f64> {
    let rates = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(';').collect();
        let [count, _, event, nanoseconds, ..] = fields[..] else { return None };
        let (count, nanoseconds): (f64, f64) = (count.parse().ok()?, nanoseconds.parse().ok()?);
        (event.contains("instructions") && nanoseconds > 0.0).then(|| count / nanoseconds * 1e9)
    });
    rates.reduce(|one, other| one + other)
}

const COUNTED_SECONDS: &str = "0.5";
/// Longer than perf counts, with its start and end.
const COUNTED_FOR: Duration = Duration::from_millis(900);

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Spent = Spent { idle_turns: 1_000_000, cycles: 250_000_000, seconds: 0.1, share: 0.8 };

    #[test]
    fn work_is_what_is_not_idle() {
        let quiet = Quiet::of(&QUIET, Some(4e9)).unwrap();
        assert_eq!(quiet, Quiet { cycles_a_turn: 200.0, instructions_a_turn: Some(400.0) });
        let loaded = Spent { idle_turns: 400_000, ..QUIET };
        assert_eq!((loaded.had_cycles(), loaded.busy_cycles(&quiet)), (200e6, 120e6));
        let strange = Spent { idle_turns: 4_000_000, ..QUIET };
        assert_eq!(strange.busy_cycles(&quiet), 0.0);
        assert_eq!(Quiet::of(&Spent { idle_turns: 0, ..QUIET }, None), None);
    }

    #[test]
    fn what_perf_counts_is_read() {
        let text = "# started on Mon Jan  1\n\n5000;;instructions;2000;100.00;;\n1000;;cpu_atom/instructions/;1000;50.00;;\n";
        assert_eq!(read_rate(text), Some(3.5e9));
        for text in [
            "",
            "<not supported>;;instructions;0;100.00;;",
            "12;;cycles;1000;100.00;;",
            "12;;instructions;0;0",
        ] {
            assert_eq!(read_rate(text), None, "{text}");
        }
    }
}
