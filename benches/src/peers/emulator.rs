//! The counters of a machine that is emulated: the emulator counts the instructions of each core, and says so on a serial
//! port. See `peers/emulator.c` for its side.
//!
//! ```text
//!   this program --- a line feed ---> serial port ---> emulator
//!                <-- "USER KERNEL USER KERNEL ..", a pair for each core, in one line ---
//! ```

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::process::Command;

use super::ground::PROXY_CORE;

/// What the proxy's core did.
#[derive(Debug, Clone, Copy)]
pub struct Did {
    /// Of user and kernel.
    pub instructions: f64,
    /// Of user.
    pub user: f64,
    /// The share of the time in which it had something to do, by the kernel's ticks: 0 to 1.
    pub busy: f64,
}

/// The serial port, at [`PORT`].
#[derive(Debug)]
pub struct Emulator {
    port: File,
}

impl Emulator {
    /// Opens the port, for bytes as they are.
    ///
    /// # Errors
    /// That there is none.
    pub fn open() -> io::Result<Self> {
        let raw = Command::new("stty").args(["-F", PORT, "raw", "-echo"]).status()?;
        if !raw.success() {
            return Err(io::Error::other(format!("stty {PORT}: {raw}")));
        }
        Ok(Self { port: File::options().read(true).write(true).open(PORT)? })
    }

    /// What `run` gives, and what the proxy's core did meanwhile.
    ///
    /// # Errors
    /// What is wrong with the port.
    pub fn while_running<T>(&self, run: impl FnOnce() -> T) -> io::Result<(T, Did)> {
        let (ticks, from) = (Ticks::now()?, self.instructions()?);
        let outcome = run();
        let to = self.instructions()?;
        let [user, kernel] = [0, 1].map(|which| (to[which] - from[which]) as f64);
        Ok((outcome, Did { instructions: user + kernel, user, busy: Ticks::now()?.busy_since(&ticks) }))
    }

    /// Of the proxy's core so far: user, kernel.
    fn instructions(&self) -> io::Result<[u64; 2]> {
        (&self.port).write_all(b"\n")?;
        let mut line = String::new();
        BufReader::new(&self.port).read_line(&mut line)?;
        counts(&line, PROXY_CORE).ok_or_else(|| io::Error::other(format!("{PORT}: no counts: {line:?}")))
    }
}

/// The kernel's account of the proxy's core.
struct Ticks {
    idle: f64,
    all: f64,
}

impl Ticks {
    fn now() -> io::Result<Self> {
        let text = std::fs::read_to_string("/proc/stat")?;
        Self::read(&text, PROXY_CORE).ok_or_else(|| io::Error::other("/proc/stat: no such core"))
    }

    /// The line `cpuN`: user, nice, system, idle, waiting, interrupts, softirqs.
    fn read(text: &str, core: usize) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("cpu{core} ")))?;
        let ticks: Vec<f64> =
            line.split_whitespace().take(7).map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { idle: ticks.get(3)? + ticks.get(4)?, all: ticks.iter().sum() })
    }

    fn busy_since(&self, before: &Self) -> f64 {
        1.0 - (self.idle - before.idle) / (self.all - before.all).max(1.0)
    }
}

/// Those of `core`; the line must have ended.
fn counts(line: &str, core: usize) -> Option<[u64; 2]> {
    let mut words = line.strip_suffix('\n')?.split(' ').skip(2 * core);
    Some([words.next()?.parse().ok()?, words.next()?.parse().ok()?])
}

/// Where the emulator's answers come.
pub const PORT: &str = "/dev/ttyS2";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_two_counts_for_each_core() {
        assert_eq!(counts("12 345 6 78\n", 0), Some([12, 345]));
        assert_eq!(counts("12 345 6 78\n", 1), Some([6, 78]));
    }

    #[test]
    fn a_core_is_busy_when_it_is_neither_idle_nor_waits() {
        let of = |text| Ticks::read(text, 1).unwrap();
        let before = of("cpu  9 9 9 9 9 9 9 0 0 0\ncpu0 1 1 1 1 1 1 1 0 0 0\ncpu1 10 0 10 100 0 0 0 0 0 0\n");
        let after = of("cpu1 20 0 20 120 10 0 20 0 0 0\n");
        assert!((after.busy_since(&before) - 40.0 / 70.0).abs() < 1e-9);
        assert!(Ticks::read("cpu10 1 1 1 1 1 1 1\ncpu1 1 1\n", 1).is_none());
    }

    #[test]
    fn nothing_is_made_of_half_a_line() {
        for line in ["", "\n", "1 2 3 4", "1 2 3\n", "1 2 3 x\n", "1 2  3 4\n"] {
            assert_eq!(counts(line, 1), None, "{line:?}");
        }
    }
}
