//! Instructions of the proxy's core for each request: forwarded connections, and those that end at the proxy.
//!
//! For an emulated machine (see [`super::emulator`]), where times mean nothing.

use super::cost::Source;
use super::ground::Steering;
use super::{forwarding, full};

/// Prints a table for each place of the receive work. True when all of it could be counted.
///
/// # Errors
/// What kept the namespaces from being made.
pub fn print(seconds: u32, only: &str) -> std::io::Result<bool> {
    let mut worked = true;
    for steering in [Steering::Steered, Steering::Kernel] {
        println!("\n{}; thousands of instructions a request (of user, core 1 was busy):", steering.words());
        worked &= forwarded(steering, seconds, only)?;
        worked &= proxied(steering, seconds, only)?;
    }
    Ok(worked)
}

fn forwarded(steering: Steering, seconds: u32, only: &str) -> std::io::Result<bool> {
    if !FORWARDED.contains(only) {
        return Ok(true);
    }
    let lab = forwarding::Lab::new(Source::Emulator.cores())?;
    let cells = forwarding::Proxy::ALL.map(|proxy| {
        let cost = lab.cost(proxy, steering, seconds, Source::Emulator).map_err(|error| error.to_string())?;
        cell(cost.instructions, cost.emulated.map(|did| (did.user, did.busy)))
    });
    print!("{}", head(forwarding::Proxy::ALL.map(forwarding::Proxy::name)));
    print!("{}", row(FORWARDED, &cells));
    Ok(cells.iter().all(Result::is_ok))
}

fn proxied(steering: Steering, seconds: u32, only: &str) -> std::io::Result<bool> {
    let works = full::Work::emulated(only);
    if works.is_empty() {
        return Ok(true);
    }
    let lab = full::Lab::new(seconds, Source::Emulator)?;
    let columns = full::Proxy::ALL.map(|proxy| lab.run(proxy, steering, &works));
    print!("{}", head(full::Proxy::ALL.map(full::Proxy::name)));
    for (place, work) in works.iter().enumerate() {
        let of = |column: &Vec<Result<full::Outcome, String>>| {
            let outcome = column[place].as_ref().map_err(String::clone)?;
            cell(outcome.instructions, outcome.emulated)
        };
        print!("{}", row(work.name, &columns.each_ref().map(of)));
    }
    Ok(columns.iter().flatten().all(Result::is_ok))
}

/// Instructions of a request, those of user among them, and the share of the core that was used.
type Cell = Result<(f64, f64, f64), String>;

fn cell(instructions: Option<f64>, emulated: Option<(f64, f64)>) -> Cell {
    let counted = instructions.zip(emulated).map(|(all, (user, busy))| (all, user, busy));
    counted.ok_or_else(|| "not counted".into())
}

fn head(names: [&str; 3]) -> String {
    let names: String = names.iter().map(|name| format!("{name:>26}")).collect();
    format!("{:<28}{names}\n", "")
}

/// A line of counts, and one for each that failed.
fn row(name: &str, cells: &[Cell]) -> String {
    let words = cells.iter().map(|cell| match cell {
        Ok((all, user, busy)) => {
            format!("{:>10.1} ({:6.1}, {:3.0} %)", all / 1e3, user / 1e3, busy * 100.0)
        }
        Err(_) => format!("{:>26}", "-"),
    });
    let failures = cells.iter().filter_map(|cell| cell.as_ref().err());
    let failures: String = failures.map(|reason| format!("  FAILED: {}\n", reason.trim())).collect();
    format!("{name:<28}{}\n{failures}", words.collect::<String>())
}

const FORWARDED: &str = "forwarded 128 B, keep-alive";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_failed() {
        let text = row("load", &[Ok((21_340.0, 4e3, 1.0)), Err("lost\n".into()), Ok((5.0e6, 2e6, 0.504))]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            lines,
            [
                vec!["load", "21.3", "(", "4.0,", "100", "%)", "-", "5000.0", "(2000.0,", "50", "%)"],
                vec!["FAILED:", "lost"]
            ]
        );
    }
}
