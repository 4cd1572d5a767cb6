//! The counters of a machine that is emulated: the emulator counts the instructions of each core, and says so on a serial
//! port. See `peers/emulator.c` for its side.
//!
//! ```text
//!   this program --- a line feed ---> serial port ---> emulator
//!                <-- "COUNT COUNT ..", one for each core, in one line ---
//! ```

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::process::Command;

use super::ground::PROXY_CORE;

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

    /// What `run` gives, and the instructions of the proxy's core meanwhile.
    ///
    /// # Errors
    /// What is wrong with the port.
    pub fn while_running<T>(&self, run: impl FnOnce() -> T) -> io::Result<(T, f64)> {
        let from = self.instructions()?;
        let outcome = run();
        Ok((outcome, (self.instructions()? - from) as f64))
    }

    /// Of the proxy's core so far.
    fn instructions(&self) -> io::Result<u64> {
        (&self.port).write_all(b"\n")?;
        let mut line = String::new();
        BufReader::new(&self.port).read_line(&mut line)?;
        count(&line, PROXY_CORE).ok_or_else(|| io::Error::other(format!("{PORT}: no counts: {line:?}")))
    }
}

/// That of `core`; the line must have ended.
fn count(line: &str, core: usize) -> Option<u64> {
    line.strip_suffix('\n')?.split(' ').nth(core)?.parse().ok()
}

/// Where the emulator's answers come.
pub const PORT: &str = "/dev/ttyS1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_count_for_each_core() {
        assert_eq!(count("12 345\n", 0), Some(12));
        assert_eq!(count("12 345\n", 1), Some(345));
    }

    #[test]
    fn nothing_is_made_of_half_a_line() {
        for line in ["", "\n", "12 345", "12\n", "12 x\n", "12  345\n"] {
            assert_eq!(count(line, 1), None, "{line:?}");
        }
    }
}
