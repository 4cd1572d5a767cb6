//! The terminal: taken over while tables are live, and given back as it was, however that ends.
//!
//! Where the output is no terminal, tables are printed one after the other, and nothing is taken over.

use std::io::{self, IsTerminal, Stdout, Write, stdin, stdout};

use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Where tables go. Gives the terminal back when it is dropped.
pub(super) struct Screen {
    output: Stdout,
    is_live: bool,
    has_shown: bool,
    /// How the keyboard was, when it is a terminal that keys are read from.
    keyboard: Option<Termios>,
}

impl Screen {
    /// Takes the terminal over, where the output is one.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn open() -> io::Result<Self> {
        let is_live = stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|name| name != "dumb");
        let mut screen = Self { output: stdout(), is_live, has_shown: false, keyboard: None };
        if is_live {
            screen.keyboard = take_keyboard()?;
            screen.write(OPEN)?;
        }
        Ok(screen)
    }

    /// Whether a table takes the place of the one before.
    pub(super) fn is_live(&self) -> bool {
        self.is_live
    }

    /// Whether keys are ours to read.
    pub(super) fn has_keys(&self) -> bool {
        self.keyboard.is_some()
    }

    /// Shows `text`: what fits of it in a terminal, else all, after an empty line.
    ///
    /// # Errors
    /// The kernel's: nobody reads any more.
    pub(super) fn show(&mut self, text: &str) -> io::Result<()> {
        let text = match (self.is_live, self.has_shown) {
            (true, _) => {
                let size = tcgetwinsize(&self.output).map(|size| (size.ws_row, size.ws_col));
                in_place(text, size.unwrap_or_default())
            }
            (false, true) => format!("\n{text}"),
            (false, false) => text.into(),
        };
        self.has_shown = true;
        self.write(&text)
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.output.write_all(text.as_bytes())?;
        self.output.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        if let Some(before) = &self.keyboard {
            let _ = tcsetattr(stdin(), OptionalActions::Flush, before);
        }
        if self.is_live {
            let _ = self.write(CLOSE);
        }
    }
}

/// Keys come at once and unseen, Ctrl-C and Ctrl-Z among them; how it was before.
fn take_keyboard() -> io::Result<Option<Termios>> {
    if !stdin().is_terminal() {
        return Ok(None);
    }
    let before = tcgetattr(stdin())?;
    let mut keys = before.clone();
    keys.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
    tcsetattr(stdin(), OptionalActions::Now, &keys)?;
    Ok(Some(before))
}

/// Writes over what is there, line by line, and no further than `rows` and `columns`; 0 for not known.
fn in_place(text: &str, (rows, columns): (u16, u16)) -> String {
    let most = |limit: u16| if limit == 0 { usize::MAX } else { usize::from(limit) };
    let cut = |line: &str| line.chars().take(most(columns)).collect::<String>();
    let lines: Vec<String> = text.lines().take(most(rows)).map(cut).collect();
    format!("{HOME}{}{REST_OF_LINE}{REST_OF_SCREEN}", lines.join(&format!("{REST_OF_LINE}\r\n")))
}

/// Who says that it is enough: a key, or a signal.
pub(super) struct Asked {
    signals: [Signal; 3],
}

impl Asked {
    /// Signals are waited for from here on: before anything is taken over that they would leave so.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn new() -> io::Result<Self> {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let [terminate, interrupt, hangup] = kinds.map(signal);
        Ok(Self { signals: [terminate?, interrupt?, hangup?] })
    }

    /// Returns when a signal asks for the end, or, with keys, q or Ctrl-C is pressed or the keyboard is gone.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) async fn end(&mut self, with_keys: bool) -> io::Result<()> {
        let [terminate, interrupt, hangup] = &mut self.signals;
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            _ = hangup.recv() => Ok(()),
            end = end_key(), if with_keys => end,
        }
    }
}

/// A thread reads the keys, and ends with the process: nobody can take a read of the keyboard back.
async fn end_key() -> io::Result<()> {
    let (pressed, end) = oneshot::channel();
    std::thread::Builder::new().name("keys".into()).spawn(move || {
        let outcome = read_until_end();
        // Where nobody waits any more, it has ended already.
        let _ = pressed.send(outcome);
    })?;
    end.await.unwrap_or(Ok(()))
}

fn read_until_end() -> io::Result<()> {
    let mut keys = [0; 64];
    loop {
        let count = match rustix::io::read(stdin(), &mut keys) {
            Err(Errno::INTR) => continue,
            count => count?,
        };
        if count == 0 || keys[..count].iter().any(|key| matches!(*key, b'q' | b'Q' | CTRL_C)) {
            return Ok(());
        }
    }
}

const CTRL_C: u8 = 3;
/// Another screen, without a cursor (ECMA-48 and the private modes of xterm).
const OPEN: &str = "\x1b[?1049h\x1b[?25l";
const CLOSE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const REST_OF_LINE: &str = "\x1b[K";
const REST_OF_SCREEN: &str = "\x1b[J";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_cut() {
        assert_eq!(in_place("one\ntwo\nthree\n", (2, 2)), "\x1b[Hon\x1b[K\r\ntw\x1b[K\x1b[J");
        assert_eq!(in_place("one\ntwo\n", (0, 0)), "\x1b[Hone\x1b[K\r\ntwo\x1b[K\x1b[J");
    }
}
