//! The `sluice` command: what can be typed, and what it does.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::check::{check_file, format_of, read_text};
use crate::client::{Answer, Client, ClientError};
use crate::lab::{self, LabArgs};
use crate::model::Model;
use crate::parse::{Fault, Format};
use crate::run;
use crate::show::{self, Thing};
use crate::top::{self, TopArgs, TopError};

/// A userspace L4/L7 data plane.
#[derive(Debug, Parser)]
#[command(name = "sluice", version = VERSION, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What `sluice --version` says: which drivers are in decides which configurations run.
const VERSION: &str = if cfg!(feature = "dpdk") {
    concat!(env!("CARGO_PKG_VERSION"), ", with DPDK")
} else {
    concat!(env!("CARGO_PKG_VERSION"), ", without DPDK")
};

/// The control socket's default place.
pub const DEFAULT_SOCKET: &str = "/run/sluice/sluice.sock";

#[derive(Debug, clap::Args)]
struct Socket {
    /// The control socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts the data plane.
    Run {
        /// The configuration, in YAML or JSON.
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        #[command(flatten)]
        socket: Socket,
    },
    /// Checks a configuration without starting; exit code 1 when something is wrong.
    Check {
        /// The configuration; `-` for standard input.
        file: PathBuf,
    },
    /// Makes a file the running configuration.
    Apply {
        /// The configuration; `-` for standard input.
        file: PathBuf,
        /// Only say what would change.
        #[arg(long)]
        dry_run: bool,
        /// Keep the running form of each object that is refused, and apply the rest.
        #[arg(long)]
        partial: bool,
        #[command(flatten)]
        socket: Socket,
    },
    /// Says what `apply` would change.
    Diff {
        /// The configuration; `-` for standard input.
        file: PathBuf,
        #[command(flatten)]
        socket: Socket,
    },
    /// Shows state and statistics.
    Show {
        /// What to show.
        thing: Thing,
        /// The form of the output.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        #[command(flatten)]
        socket: Socket,
    },
    /// Shows what virtual servers and workers do a second, again and again; q ends it.
    Top {
        #[command(flatten)]
        args: TopArgs,
        #[command(flatten)]
        socket: Socket,
    },
    /// Says whether a pool member takes connections.
    Member {
        /// enable: all. disable: only persisted and active ones. offline: only active ones.
        action: MemberAction,
        /// The pool.
        pool: String,
        /// The member, as ADDRESS:PORT; an IPv6 address in brackets.
        member: String,
        #[command(flatten)]
        socket: Socket,
    },
    /// Persistence records: which member a client's connections go to.
    Persistence {
        #[command(subcommand)]
        action: PersistenceAction,
    },
    /// A lab on this machine: network namespaces, macvlan or veth links, real backends.
    Lab(LabArgs),
    /// Prints the JSON Schema of the configuration.
    Schema,
}

#[derive(Debug, Subcommand)]
enum PersistenceAction {
    /// Ends records; open connections go on, new ones are balanced again.
    #[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
    Delete {
        #[command(flatten)]
        which: Records,
        #[command(flatten)]
        socket: Socket,
    },
}

/// Records to which everything that is given applies.
#[derive(Debug, clap::Args)]
struct Records {
    /// Every record.
    #[arg(long, group = "which", conflicts_with_all = ["id", "virtual_server", "pool", "address", "member"])]
    all: bool,
    /// The one with this id, as `show persistence` has it.
    #[arg(long, group = "which")]
    id: Option<String>,
    /// Those that serve this virtual server.
    #[arg(long, group = "which", value_name = "NAME")]
    virtual_server: Option<String>,
    /// Those to members of this pool.
    #[arg(long, group = "which", value_name = "NAME")]
    pool: Option<String>,
    /// Those of this address, or of addresses in this network.
    #[arg(long, group = "which", value_name = "ADDRESS[/LENGTH]")]
    address: Option<String>,
    /// Those to members at this address.
    #[arg(long, group = "which", value_name = "ADDRESS[:PORT]")]
    member: Option<String>,
}

impl Records {
    fn query(&self) -> String {
        let given = [
            ("id", &self.id),
            ("virtual_server", &self.virtual_server),
            ("pool", &self.pool),
            ("address", &self.address),
            ("member", &self.member),
        ];
        let pair = |(name, value): (&str, &Option<String>)| {
            let value = utf8_percent_encode(value.as_ref()?, NON_ALPHANUMERIC);
            Some(format!("{name}={value}"))
        };
        given.into_iter().filter_map(pair).collect::<Vec<_>>().join("&")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
    Yaml,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MemberAction {
    Enable,
    Disable,
    Offline,
}

impl MemberAction {
    fn state(self) -> &'static str {
        match self {
            MemberAction::Enable => "enabled",
            MemberAction::Disable => "disabled",
            MemberAction::Offline => "offline",
        }
    }
}

/// Something was refused or wrong.
pub const EXIT_REFUSED: u8 = 1;
/// No sluice answers on the socket.
pub const EXIT_UNREACHABLE: u8 = 3;

impl Cli {
    /// Does what was typed.
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Run { config, socket } => run::run(&config, &socket.socket),
            Command::Check { file } => check(&file),
            Command::Apply { file, dry_run, partial, socket } => {
                apply(&file, dry_run, partial, &socket.socket)
            }
            Command::Diff { file, socket } => apply(&file, true, false, &socket.socket),
            Command::Show { thing, output, socket } => show_thing(thing, output, &socket.socket),
            Command::Top { args, socket } => watch(&args, &socket.socket),
            Command::Member { action, pool, member, socket } => {
                say_member_state(action, &pool, &member, &socket.socket)
            }
            Command::Persistence { action: PersistenceAction::Delete { which, socket } } => {
                end_persistence(&which, &socket.socket)
            }
            Command::Lab(args) => lab::run(&args).unwrap_or_else(|why| fail(&why.to_string())),
            Command::Schema => print_out(&pretty(&Model::schema())),
        }
    }
}

fn check(file: &Path) -> ExitCode {
    match check_file(file) {
        Ok(candidate) => {
            print_warnings(file, &candidate.warnings);
            let model = &candidate.model;
            let (ports, servers, pools) = (model.ports.len(), model.virtual_servers.len(), model.pools.len());
            print_out(&format!(
                "{}: ok: {ports} ports, {servers} virtual servers, {pools} pools\n",
                file.display()
            ))
        }
        Err(faults) => {
            print_errors(file, &faults);
            ExitCode::from(EXIT_REFUSED)
        }
    }
}

fn apply(file: &Path, dry_run: bool, partial: bool, socket: &Path) -> ExitCode {
    let text = match read_text(file) {
        Ok(text) => text,
        Err(why) => return fail(&format!("{}: {why}", file.display())),
    };
    let kind = match format_of(file, &text) {
        Format::Yaml => "application/yaml",
        Format::Json => "application/json",
    };
    let mode = if partial { "partial" } else { "full" };
    let path = format!("/v1/config?dry_run={dry_run}&mode={mode}");
    match Client::new(socket).request(Method::PUT, &path, Some((kind, text))) {
        Ok(Answer { json, .. }) => {
            print_json_faults(file, "refused: ", json.get("refused"));
            print_json_faults(file, "warning: ", json.get("warnings"));
            print_out(&show::applied(&json))
        }
        Err(ClientError::Refused(problem)) if !problem.errors.is_empty() => {
            for error in &problem.errors {
                eprintln!("{}", located(file, error.line, "", &error.path, &error.message));
            }
            fail(&problem.detail)
        }
        Err(error) => fail_with(&error),
    }
}

fn show_thing(thing: Thing, output: Output, socket: &Path) -> ExitCode {
    match Client::new(socket).request(Method::GET, &thing.path(), None) {
        Ok(Answer { json, truncated }) => {
            if truncated {
                eprintln!("sluice: there are more; these are the first");
            }
            print_out(&match output {
                Output::Table => thing.table(&json),
                Output::Json => pretty(&json),
                Output::Yaml => crate::yaml::to_yaml(&json),
            })
        }
        Err(error) => fail_with(&error),
    }
}

fn watch(args: &TopArgs, socket: &Path) -> ExitCode {
    match top::run(args, socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(TopError::Client(error)) => fail_with(&error),
        Err(error @ TopError::Terminal(_)) => fail(&error.to_string()),
    }
}

fn say_member_state(action: MemberAction, pool: &str, member: &str, socket: &Path) -> ExitCode {
    let in_path = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let path = format!("/v1/pools/{}/members/{}", in_path(pool), in_path(member));
    let body = serde_json::json!({ "state": action.state() }).to_string();
    match Client::new(socket).request(Method::PATCH, &path, Some(("application/merge-patch+json", body))) {
        Ok(Answer { json, .. }) => {
            let text = |name: &str| json[name].as_str().unwrap_or_default().to_string();
            print_out(&format!("{} {}: {}\n", text("pool"), text("member"), text("state")))
        }
        Err(error) => fail_with(&error),
    }
}

fn end_persistence(which: &Records, socket: &Path) -> ExitCode {
    let path = format!("/v1/persistence?{}", which.query());
    match Client::new(socket).request(Method::DELETE, &path, None) {
        Ok(Answer { json, .. }) => print_out(&format!("deleted {}\n", json["deleted"])),
        Err(error) => fail_with(&error),
    }
}

/// Prints to standard output. A reader that has gone away is no failure of ours.
fn print_out(text: &str) -> ExitCode {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn pretty(json: &Value) -> String {
    format!("{json:#}\n")
}

fn fail(message: &str) -> ExitCode {
    eprintln!("sluice: {message}");
    ExitCode::from(EXIT_REFUSED)
}

fn fail_with(error: &ClientError) -> ExitCode {
    let code = if matches!(error, ClientError::Unreachable { .. }) { EXIT_UNREACHABLE } else { EXIT_REFUSED };
    eprintln!("sluice: {error}");
    ExitCode::from(code)
}

/// Prints every error of a file as `FILE:LINE: PATH: MESSAGE`.
pub fn print_errors(file: &Path, faults: &[Fault]) {
    for fault in faults {
        eprintln!("{}", located(file, fault.line, "", fault.path.as_str(), &fault.message));
    }
}

/// Prints every warning about a file.
pub fn print_warnings(file: &Path, faults: &[Fault]) {
    for fault in faults {
        eprintln!("{}", located(file, fault.line, "warning: ", fault.path.as_str(), &fault.message));
    }
}

fn print_json_faults(file: &Path, label: &str, faults: Option<&Value>) {
    for fault in faults.and_then(Value::as_array).into_iter().flatten() {
        let line = fault["line"].as_u64().and_then(|line| u32::try_from(line).ok());
        let text = |name: &str| fault[name].as_str().unwrap_or_default();
        eprintln!("{}", located(file, line, label, text("path"), text("message")));
    }
}

fn located(file: &Path, line: Option<u32>, label: &str, path: &str, message: &str) -> String {
    let line = line.map_or(String::new(), |line| format!("{line}:"));
    let path = if path.is_empty() { String::new() } else { format!("{path}: ") };
    format!("{}:{line} {label}{path}{message}", file.display())
}
