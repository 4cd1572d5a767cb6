//! A whole lab on one machine: network namespaces, links, and real backends for sluice to stand between.
//!
//! Owns `sluice lab up|down|status` and the [`Namespace`] and [`Segment`] types that the namespace tests build on.
//! Never touches the machine's own interfaces: every link is born inside a namespace that the lab made.
//!
//! ```text
//!   NAME-client           NAME-sluice              NAME-server1, NAME-server2
//!   eth0 192.0.2.1  ────  net1      net2  ──────── eth0 10.1.0.11, .12    nginx :8080, UDP echo :7
//!   2001:db8:1::1   │     no kernel addresses   │  2001:db8:2::11, ::12   default route: sluice
//!                   └──── NAME-hub ─────────────┘
//!                         `external`, `internal`: macvlan parents or bridges
//! ```

mod backend;
mod namespace;
mod segment;
mod topology;

pub use backend::{Nginx, serve_udp_echo};
pub use namespace::{Namespace, require_root};
pub use segment::{LinkKind, Segment};
pub use topology::{Lab, LabOptions, Server, addresses};

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

/// What `sluice lab` was asked to do.
#[derive(Debug, clap::Args)]
pub struct LabArgs {
    #[command(subcommand)]
    verb: LabVerb,
}

#[derive(Debug, clap::Subcommand)]
enum LabVerb {
    /// Make the namespaces and links and start the backends; does nothing when they are there already
    Up {
        /// How the namespaces are joined
        #[arg(long, value_enum, default_value_t = LinkKind::Macvlan)]
        link: LinkKind,
        #[command(flatten)]
        name: LabName,
    },
    /// End the backends and remove the namespaces
    Down {
        #[command(flatten)]
        name: LabName,
    },
    /// Print what is up
    Status {
        #[command(flatten)]
        name: LabName,
    },
    /// The lab's UDP echo backend
    #[command(hide = true)]
    Echo {
        /// The name each reply starts with
        #[arg(long)]
        member: String,
        /// Where the process writes its pid
        #[arg(long)]
        pid_file: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct LabName {
    /// Name of the lab; its namespaces are called NAME-client, NAME-sluice and so on
    #[arg(long, default_value = "sluice-lab")]
    name: String,
}

/// Runs `sluice lab …`; `status` answers 3, as service managers do, when the lab is not up.
///
/// # Errors
/// [`LabError`] when a program is missing or refuses, or the caller is not root.
pub fn run(args: &LabArgs) -> Result<ExitCode, LabError> {
    match &args.verb {
        LabVerb::Up { link, name } => up(&name.name, *link),
        LabVerb::Down { name } => down(&name.name),
        LabVerb::Status { name } => status(&name.name),
        LabVerb::Echo { member, pid_file } => {
            fs::write(pid_file, std::process::id().to_string()).at(pid_file)?;
            serve_udp_echo(member).at(Path::new("UDP port 7"))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn up(name: &str, link: LinkKind) -> Result<ExitCode, LabError> {
    require_root()?;
    let mut options = LabOptions::new(name, link)?;
    options.echo_program = Some(std::env::current_exe().at(Path::new("/proc/self/exe"))?);
    if Lab::find(name)?.is_some_and(|found| found.is_whole(link)) {
        println!("{name} is up already");
        return Ok(ExitCode::SUCCESS);
    }
    Lab::remove(name)?;
    Lab::up(&options)?.keep();
    println!("{name} is up, joined by {link} links");
    status(name)
}

fn down(name: &str) -> Result<ExitCode, LabError> {
    require_root()?;
    let strangers = Lab::remove(name)?;
    for pid in &strangers {
        println!(
            "process {pid} still runs in a namespace of {name}; it was not started by the lab, so it is left"
        );
    }
    println!("{name} is down");
    Ok(ExitCode::SUCCESS)
}

fn status(name: &str) -> Result<ExitCode, LabError> {
    let Some(found) = Lab::find(name)? else {
        println!("{name} is not up");
        return Ok(ExitCode::from(3));
    };
    print!("{found}");
    Ok(ExitCode::SUCCESS)
}

/// Why the lab could not be made, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces and links need `CAP_SYS_ADMIN` and `CAP_NET_ADMIN`.
    #[error("a lab needs root: it makes network namespaces and links")]
    NotRoot,
    /// The name would not fit in a file name, or not in a namespace's.
    #[error("{0:?} is not a lab name: expected 1 to 40 of a-z, 0-9 and '-'")]
    Name(String),
    /// A program the lab runs is not installed.
    #[error("`{program}` is not installed; Debian has it in the package `{package}`")]
    Missing {
        /// What was to be run.
        program: String,
        /// The Debian package that holds it.
        package: &'static str,
    },
    /// A program ran and refused.
    #[error("`{command}` failed: {message}")]
    Command {
        /// The command line, as one would type it.
        command: String,
        /// What it wrote to standard error, or its exit status.
        message: String,
    },
    /// A backend did not come up, or did not end, in time.
    #[error("{what} after {seconds} s")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// A file of the lab could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Names the file in an I/O error.
trait At<T> {
    fn at(self, path: &Path) -> Result<T, LabError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, LabError> {
        self.map_err(|source| LabError::Io { path: path.to_owned(), source })
    }
}
