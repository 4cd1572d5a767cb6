//! The `sluice` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    sluice_control::cli::Cli::parse().run()
}
