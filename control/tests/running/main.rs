//! A sluice that runs: its socket, and the command that talks to it.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod command;
mod common;
mod nodes;
mod persistence;
mod socket;
mod top;
