//! What a core did while something ran: counted by the processor where it counts, otherwise told from what was left of it.

use std::io;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sluice_ffi::tsc;

use super::emulator::{Did, Emulator};
use super::ground::{Cores, PROXY_CORE, SPARE_CORE};
use crate::machine::{Soaker, has_hardware_counters};

/// The share of a core that others had.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    /// 0 to 1.
    pub share: f64,
    /// Time-stamp counter cycles of the window.
    pub cycles: f64,
    /// Its length.
    pub seconds: f64,
}

impl Used {
    /// While `run` runs.
    pub fn of(soaker: &Soaker, run: impl FnOnce()) -> Self {
        let (start, from, soaked) = (Instant::now(), tsc::cycles(), soaker.cycles());
        run();
        let (cycles, soaked) = ((tsc::cycles() - from) as f64, (soaker.cycles() - soaked) as f64);
        Self { share: 1.0 - soaked / cycles, cycles, seconds: start.elapsed().as_secs_f64() }
    }
}

/// What work cost the proxy's core, what it does without any taken off.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Cycles: of the processor where it counts them, of the time-stamp counter elsewhere; none of an emulated one.
    pub cycles: f64,
    /// Instructions of user and kernel, where they are counted.
    pub instructions: Option<f64>,
    /// More, where an emulator runs the core: instructions of user alone, what nothing to do takes not taken off, and
    /// the share of the core that was used.
    pub emulated: Option<Did>,
}

/// Who counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The processor.
    Processor,
    /// A thread takes what the proxy leaves: cycles, no instructions.
    Soaker,
    /// The program that emulates this machine: instructions, no cycles.
    Emulator,
}

impl Source {
    /// What this machine has.
    pub fn of_machine() -> Self {
        if has_hardware_counters() { Self::Processor } else { Self::Soaker }
    }

    /// Where load and origin run.
    pub fn cores(self) -> Cores {
        if self == Self::Emulator { Cores::EMULATED } else { Cores::SHARED }
    }
}

/// Takes the costs.
#[derive(Debug)]
pub enum Meter {
    /// By the processor's counters.
    Counters(Counts),
    /// By a thread that takes what the proxy leaves.
    Soaker(Soaker, f64),
    /// By the emulator, with what the core executes a second when nothing is to be done.
    Emulator(Emulator, f64),
}

impl Meter {
    /// Looks at the core for a moment, in which it has nothing to do.
    ///
    /// # Errors
    /// That nobody counts.
    pub fn start(source: Source) -> io::Result<Self> {
        let pause = || std::thread::sleep(IDLE);
        match source {
            Source::Processor => {
                let counting = Counting::start(PROXY_CORE)?;
                pause();
                let none = || io::Error::other("perf has counted nothing");
                Ok(Self::Counters(counting.finish()?.ok_or_else(none)?.divided(IDLE.as_secs_f64())))
            }
            Source::Soaker => {
                let soaker = Soaker::start(PROXY_CORE);
                let idle = Used::of(&soaker, pause).share;
                Ok(Self::Soaker(soaker, idle))
            }
            Source::Emulator => {
                let emulator = Emulator::open()?;
                let ((), idle) = emulator.while_running(pause)?;
                Ok(Self::Emulator(emulator, idle.instructions / IDLE.as_secs_f64()))
            }
        }
    }

    /// What `run` gives, and what it cost.
    ///
    /// # Errors
    /// Those of `run`, and that nobody counts.
    pub fn measure<T>(&self, run: impl FnOnce() -> io::Result<T>) -> io::Result<(T, Cost)> {
        match self {
            Self::Soaker(soaker, idle) => {
                let mut outcome = None;
                let used = Used::of(soaker, || outcome = Some(run()));
                let outcome = outcome.ok_or_else(|| io::Error::other("it did not run"))??;
                let cycles = ((used.share - idle) * used.cycles).max(0.0);
                Ok((outcome, Cost { cycles, instructions: None, emulated: None }))
            }
            Self::Counters(idle) => {
                let (start, counting) = (Instant::now(), Counting::start(PROXY_CORE)?);
                let outcome = run();
                let counts = counting.finish()?.unwrap_or_default();
                let idle = idle.divided(1.0 / start.elapsed().as_secs_f64());
                let instructions = Some((counts.instructions - idle.instructions).max(0.0));
                let cycles = (counts.cycles - idle.cycles).max(0.0);
                Ok((outcome?, Cost { cycles, instructions, emulated: None }))
            }
            Self::Emulator(emulator, idle) => {
                let start = Instant::now();
                let (outcome, did) = emulator.while_running(run)?;
                let instructions = Some((did.instructions - idle * start.elapsed().as_secs_f64()).max(0.0));
                Ok((outcome?, Cost { cycles: 0.0, instructions, emulated: Some(did) }))
            }
        }
    }
}

/// What a core has done.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counts {
    /// Of user and kernel.
    pub instructions: f64,
    /// Of user and kernel.
    pub cycles: f64,
}

impl Counts {
    /// Reads what `perf stat` writes, with `;` between its fields or for people; the kinds of core that a processor has
    /// are added up. `None` unless both were counted.
    pub fn read(text: &str) -> Option<Self> {
        let of = |event: &str| -> Option<f64> {
            let counts = text.lines().filter_map(count).filter(|(name, _)| *name == event);
            counts.map(|(_, count)| count).reduce(|one, other| one + other)
        };
        Some(Self { instructions: of("instructions")?, cycles: of("cycles")? })
    }

    fn divided(self, by: f64) -> Self {
        Self { instructions: self.instructions / by, cycles: self.cycles / by }
    }
}

/// The event of a line without its processor and modifiers, and its count. `None` for what was not counted.
fn count(line: &str) -> Option<(&str, f64)> {
    let (count, event) = if line.contains(';') {
        let mut fields = line.split(';');
        (fields.next()?, fields.nth(1)?)
    } else {
        let mut words = line.split_whitespace();
        (words.next()?, words.next()?)
    };
    // `instructions:u`, `cpu_core/instructions/u`.
    let event = event.split_once('/').map_or(event, |(_, event)| event);
    let event = event.split(['/', ':']).next()?;
    Some((event, count.trim().replace(',', "").parse().ok()?))
}

/// The processor's counters of a core, running.
#[derive(Debug)]
pub struct Counting {
    perf: Child,
}

impl Counting {
    /// Until [`Counting::finish`].
    ///
    /// # Errors
    /// That there is no perf.
    pub fn start(core: usize) -> io::Result<Self> {
        let mut perf = Command::new("taskset");
        perf.args([
            "--cpu-list",
            &SPARE_CORE.to_string(),
            "perf",
            "stat",
            "-x;",
            "-e",
            "instructions,cycles",
        ]);
        perf.args(["-C", &core.to_string()]).env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Self { perf: perf.stderr(Stdio::piped()).spawn()? })
    }

    /// What was counted; `None` where the processor does not.
    ///
    /// # Errors
    /// The kernel's.
    pub fn finish(self) -> io::Result<Option<Counts>> {
        Command::new("kill").args(["-INT", &self.perf.id().to_string()]).status()?;
        let output = self.perf.wait_with_output()?;
        Ok(Counts::read(&String::from_utf8_lossy(&output.stderr)))
    }
}

const IDLE: Duration = Duration::from_millis(700);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_perf_writes_for_programs_is_read() {
        let text = "# started on Mon Jan  1 00:00:00 2024\n\n\
                    1234567890;;instructions;3000123456;100.00;0.62;insn per cycle\n\
                    1991238532;;cycles;3000123456;100.00;;\n";
        let counts = Counts { instructions: 1_234_567_890.0, cycles: 1_991_238_532.0 };
        assert_eq!(Counts::read(text), Some(counts));
    }

    #[test]
    fn what_perf_writes_for_people_is_read() {
        let text = "\n Performance counter stats for 'CPU(s) 1':\n\n     \
                    1,234,567      instructions              #    0.62  insn per cycle\n     \
                    1991238      cycles:uk\n\n       3.001234567 seconds time elapsed\n\n";
        let counts = Counts { instructions: 1_234_567.0, cycles: 1_991_238.0 };
        assert_eq!(Counts::read(text), Some(counts));
    }

    #[test]
    fn two_kinds_of_core_are_added_up() {
        let text = "100;;cpu_core/instructions/;1;100.00;;\n20;;cpu_atom/instructions/u;1;100.00;;\n\
                    <not counted>;;cpu_atom/cycles/;0;0.00;;\n7;;cpu_core/cycles/;1;100.00;;\n";
        let counts = Counts { instructions: 120.0, cycles: 7.0 };
        assert_eq!(Counts::read(text), Some(counts));
    }

    #[test]
    fn nothing_is_made_of_what_was_not_counted() {
        for text in [
            "",
            "<not supported>;;instructions;0;100.00;;\n<not supported>;;cycles;0;100.00;;\n",
            "     <not supported>      instructions\n        12345      cycles\n",
            "12;;instructions-per-cycle;1;1;;\n5;;cycles;1;1;;\n",
            "event syntax error: 'instructions,cycles'\n;;;\n;",
        ] {
            assert_eq!(Counts::read(text), None, "{text}");
        }
    }
}
