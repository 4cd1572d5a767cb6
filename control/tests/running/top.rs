//! `sluice top`: tables in a pipe, and in a terminal that is as before when it has ended.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};

use crate::common::{CONFIG, Sluice};

fn top(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(["top", "--interval", "0.1"]).args(arguments);
    command
}

#[test]
fn in_a_pipe_it_prints_so_many_plain_tables() {
    let sluice = Sluice::start(CONFIG, 2);
    let socket = sluice.socket.display().to_string();
    let output = top(&["-n", "2", "--socket", &socket]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{text}");
    assert!(!text.contains('\x1b'), "{text:?}");
    let lines: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 2 * 8 + 1, "{text}");
    for (table, first) in [(0, 0), (1, 9)] {
        assert_eq!(
            lines[first][..4],
            ["sluice", concat!(env!("CARGO_PKG_VERSION"), ","), "generation", "1,"]
        );
        let worker = &lines[first + 4];
        assert_eq!((worker[0], worker[1], worker[5]), ("1", "-", "0"), "table {table}: {text}");
        let _: f64 = worker[2].parse().unwrap();
        assert_eq!(lines[first + 7], ["web", "0", "0", "-", "0", "0", "0"], "table {table}: {text}");
    }
    sluice.end();
}

#[test]
fn a_reader_that_goes_away_ends_it_and_so_does_sluice() {
    let sluice = Sluice::start(CONFIG, 1);
    let socket = sluice.socket.display().to_string();
    let mut deaf = top(&["--socket", &socket]).stdout(Stdio::piped()).spawn().unwrap();
    drop(deaf.stdout.take());
    assert!(deaf.wait().unwrap().success());
    let mut left = top(&["--socket", &socket]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 7];
    left.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    sluice.end();
    let output = left.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &first), (Some(3), b"sluice "));
    assert_eq!(String::from_utf8(output.stderr).unwrap().lines().count(), 1);
}

#[test]
fn what_cannot_be_counted_is_a_wrong_command_line() {
    for wrong in [["-n", "0"], ["-n", "x"], ["--interval", "0"], ["--interval", "1d"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_sluice")).arg("top").args(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

/// A terminal with `sluice top` in it.
struct Terminal {
    ours: File,
    theirs: OwnedFd,
    before: Termios,
    top: Child,
    text: String,
}

impl Terminal {
    fn start(sluice: &Sluice) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let theirs = open(&*name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let before = tcgetattr(&theirs).unwrap();
        let socket = sluice.socket.display().to_string();
        let end = || Stdio::from(theirs.try_clone().unwrap());
        let top =
            top(&["--socket", &socket]).env("TERM", "xterm").stdin(end()).stdout(end()).spawn().unwrap();
        Self { ours: ours.into(), theirs, before, top, text: String::new() }
    }

    /// Reads until `wanted` is there; gives up when nothing comes.
    fn read_until(&mut self, wanted: &str) {
        while !self.text.contains(wanted) {
            let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
            let ready = poll(&mut [PollFd::new(&self.ours, PollFlags::IN)], Some(&patience)).unwrap();
            assert_eq!(ready, 1, "no {wanted:?} in {:?}", self.text);
            let mut bytes = [0; 4096];
            let count = self.ours.read(&mut bytes).unwrap();
            self.text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
    }

    /// Waits until it has ended by itself, and looks at what it leaves.
    fn ends_as_before(mut self) {
        self.read_until("\x1b[?1049l");
        assert!(self.top.wait().unwrap().success());
        assert!(self.text.ends_with("\x1b[?25h\x1b[?1049l"), "{:?}", self.text);
        let after = tcgetattr(&self.theirs).unwrap();
        assert_eq!(after.local_modes, self.before.local_modes);
        assert_eq!(after.input_modes, self.before.input_modes);
        assert_eq!(after.output_modes, self.before.output_modes);
    }
}

#[test]
fn a_terminal_is_taken_over_and_given_back_at_q_ctrl_c_and_a_signal() {
    let sluice = Sluice::start(CONFIG, 1);
    for end in ["q", "\x03", "TERM", "HUP"] {
        let mut terminal = Terminal::start(&sluice);
        terminal.read_until("BITS/S OUT");
        assert!(terminal.text.starts_with("\x1b[?1049h\x1b[?25l\x1b[H"), "{:?}", terminal.text);
        let modes = tcgetattr(&terminal.theirs).unwrap().local_modes;
        assert!(!modes.intersects(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG));
        let pid = Pid::from_child(&terminal.top);
        match end {
            "TERM" => kill_process(pid, Signal::TERM).unwrap(),
            "HUP" => kill_process(pid, Signal::HUP).unwrap(),
            // What is no such key changes nothing.
            key => terminal.ours.write_all(format!("x{key}").as_bytes()).unwrap(),
        }
        terminal.ends_as_before();
    }
    sluice.end();
}
