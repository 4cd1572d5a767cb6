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
        println!("\n{}; thousands of instructions a request:", steering.words());
        worked &= forwarded(steering, seconds, only)?;
        worked &= proxied(steering, seconds, only)?;
    }
    Ok(worked)
}

fn forwarded(steering: Steering, seconds: u32, only: &str) -> std::io::Result<bool> {
    if !FORWARDED.contains(only) {
        return Ok(true);
    }
    let lab = forwarding::Lab::new()?;
    let counts = forwarding::Proxy::ALL.map(|proxy| {
        let count = lab.instructions(proxy, steering, seconds, Source::Emulator);
        count.map_err(|error| error.to_string()).and_then(|count| count.ok_or_else(|| "not counted".into()))
    });
    print!("{}", head(forwarding::Proxy::ALL.map(forwarding::Proxy::name)));
    print!("{}", row(FORWARDED, &counts));
    Ok(counts.iter().all(Result::is_ok))
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
        let count = |column: &Vec<Result<full::Outcome, String>>| {
            let outcome = column[place].as_ref().map_err(String::clone)?;
            outcome.instructions.ok_or_else(|| "not counted".into())
        };
        print!("{}", row(work.name, &columns.each_ref().map(count)));
    }
    Ok(columns.iter().flatten().all(Result::is_ok))
}

fn head(names: [&str; 3]) -> String {
    let names: String = names.iter().map(|name| format!("{name:>14}")).collect();
    format!("{:<28}{names}\n", "")
}

/// A line of counts, and one for each that failed.
fn row(name: &str, counts: &[Result<f64, String>]) -> String {
    let cells = counts.iter().map(|count| match count {
        Ok(count) => format!("{:>14.1}", count / 1e3),
        Err(_) => format!("{:>14}", "-"),
    });
    let failures = counts.iter().filter_map(|count| count.as_ref().err());
    let failures: String = failures.map(|reason| format!("  FAILED: {}\n", reason.trim())).collect();
    format!("{name:<28}{}\n{failures}", cells.collect::<String>())
}

const FORWARDED: &str = "forwarded 128 B, keep-alive";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_failed() {
        let text = row("load", &[Ok(21_340.0), Err("lost\n".into()), Ok(5.0e6)]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines, [vec!["load", "21.3", "-", "5000.0"], vec!["FAILED:", "lost"]]);
    }
}
