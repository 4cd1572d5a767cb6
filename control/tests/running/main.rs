//! A sluice that runs: its socket, and the command that talks to it.

#[cfg(test)]
mod command;
#[cfg(test)]
mod common;
#[cfg(test)]
mod socket;
