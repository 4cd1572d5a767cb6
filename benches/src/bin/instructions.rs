//! `instructions`: user instructions of every operation, counted by callgrind, against the baseline that is checked in.
//!
//! Works without hardware counters and repeats to within a few instructions: what grew, grew in the code.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use sluice_benches::machine::TempDir;
use sluice_benches::operations::{OPERATIONS, Operation};

const HELP: &str = "\
instructions               counts, compares with benches/instructions.tsv, and fails where more than 5 % were added
instructions --only TEXT   the same, of the operations with TEXT in their names
instructions --bless       makes what was counted the baseline";

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    let outcome = match argument.as_deref() {
        Some("--run") => {
            let place = std::env::args().nth(2).and_then(|text| text.parse::<usize>().ok());
            place.and_then(|place| OPERATIONS.get(place)).map(run).ok_or_else(|| HELP.into())
        }
        Some("--bless") => count("").and_then(|counted| bless(&counted)).map(|()| true),
        Some("--only") => {
            count(&std::env::args().nth(2).unwrap_or_default()).and_then(|counted| compare(&counted))
        }
        None => count("").and_then(|counted| compare(&counted)),
        Some(_) => Err(HELP.into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("instructions: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Inside callgrind, which counts in `measured_region` alone.
fn run(operation: &Operation) -> bool {
    let mut call = (operation.make)();
    // Whatever is set up on first use.
    (0..3).for_each(|_| call());
    measured_region(&mut *call, operation.calls);
    true
}

#[inline(never)]
fn measured_region(call: &mut dyn FnMut(), calls: u64) {
    for _ in 0..calls {
        call();
    }
}

/// An operation and its instructions.
type Counted = (&'static Operation, f64);

/// Instructions for each operation with `only` in its name, in the order of [`OPERATIONS`].
fn count(only: &str) -> Result<Vec<Counted>, String> {
    let dir = TempDir::new("sluice-instructions").map_err(|error| error.to_string())?;
    let wanted = OPERATIONS.iter().enumerate().filter(|(_, operation)| operation.name.contains(only));
    wanted.map(|(place, operation)| Ok((operation, count_one(place, &dir.path().join("out"))?))).collect()
}

fn count_one(place: usize, out: &Path) -> Result<f64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--toggle-collect=*measured_region*"]);
    valgrind.arg(format!("--callgrind-out-file={}", out.display()));
    valgrind.arg(program).args(["--run", &place.to_string()]);
    let status = valgrind.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let status = status.map_err(|error| format!("valgrind: {error}"))?;
    if !status.success() {
        return Err(format!("valgrind: {status}"));
    }
    let operation = &OPERATIONS[place];
    Ok(read_total(out)? as f64 / (operation.calls * operation.each) as f64)
}

fn read_total(path: &Path) -> Result<u64, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("totals:").or(line.strip_prefix("summary:")));
    let total = line.and_then(|rest| rest.trim().parse().ok());
    total.ok_or_else(|| format!("{}: no total in it", path.display()))
}

fn baseline_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.tsv")
}

fn bless(counted: &[Counted]) -> Result<(), String> {
    let mut text = String::from("# User instructions an operation, by `instructions --bless`.\n");
    for (operation, count) in counted {
        println!("{count:10.0}  {}", operation.name);
        // A String takes whatever is written.
        let _ = writeln!(text, "{}\t{count:.0}", operation.name);
    }
    std::fs::write(baseline_path(), text).map_err(|error| error.to_string())
}

/// Prints all, true when nothing has grown.
fn compare(counted: &[Counted]) -> Result<bool, String> {
    let text = std::fs::read_to_string(baseline_path()).map_err(|error| error.to_string())?;
    let known = |name: &str| -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
        line.and_then(|number| number.parse().ok())
    };
    let mut grown = 0;
    println!("{:>10} {:>10}", "now", "baseline");
    for &(operation, count) in counted {
        let before = known(operation.name);
        let has_grown = before.is_some_and(|before| count > before * TOLERANCE + SLACK);
        grown += u32::from(has_grown);
        let before = before.map_or_else(|| "new".into(), |before| format!("{before:.0}"));
        println!("{count:10.0} {before:>10}  {}{}", operation.name, if has_grown { "   GROWN" } else { "" });
    }
    Ok(grown == 0)
}

const TOLERANCE: f64 = 1.05;
/// Instructions.
const SLACK: f64 = 2.0;
