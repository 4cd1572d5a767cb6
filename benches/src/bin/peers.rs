//! `peers`: the same load through sluice and its peers in turn, between the same namespaces.

use std::process::ExitCode;

use sluice_benches::machine;
use sluice_benches::peers::cost::Source;
use sluice_benches::peers::full::Work;
use sluice_benches::peers::ground::Steering;
use sluice_benches::peers::table::{self, Cells};
use sluice_benches::peers::{counted, forwarding, full, idle};
use sluice_benches::report::{median, range};

const HELP: &str = "\
peers [ROUNDS [SECONDS]]            forwarded connections: sluice, nftables, HAProxy (3 rounds of 3 s)
peers proxies [--rounds N] [--seconds N] [--only TEXT]
                                    full proxies: sluice, HAProxy, nginx (2 rounds of 3 s for each kind of load,
                                    or for those with TEXT in their names)
peers instructions [--seconds N] [--only TEXT]
                                    both in instructions, on a machine that `veth-instructions` emulates
needs root, nginx, wrk, nft, haproxy; SLUICE_BINARY names a sluice that does not lie beside this program";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("peers: {reason}\n{HELP}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let ["--hold", count, to] = words[..] {
        let (count, to) = (number(count)?, to.parse().map_err(|_| HELP)?);
        return idle::hold(count, to).map(|()| true).map_err(|error| error.to_string());
    }
    if !machine::is_root() {
        return Err("needs root, for network namespaces".into());
    }
    match words[..] {
        ["proxies", ref options @ ..] => proxies(options),
        ["instructions", ref options @ ..] => instructions(options),
        _ => forwarding(&words),
    }
}

fn number(word: &str) -> Result<u32, String> {
    word.parse().ok().filter(|&number| number > 0).ok_or_else(|| HELP.into())
}

fn source() -> Source {
    let source = Source::of_machine();
    println!(
        "client and origin on core 0, proxy on core 1; hardware counters: {}",
        if source == Source::Processor { "yes" } else { "none, cycles are of the time-stamp counter" }
    );
    source
}

fn instructions(options: &[&str]) -> Result<bool, String> {
    let (mut seconds, mut only) = (3, "");
    for pair in options.chunks(2) {
        match *pair {
            ["--seconds", word] => seconds = number(word)?,
            ["--only", text] => only = text,
            _ => return Err(HELP.into()),
        }
    }
    counted::print(seconds, only).map_err(|error| error.to_string())
}

fn proxies(options: &[&str]) -> Result<bool, String> {
    let (mut rounds, mut seconds, mut only) = (2, 3, "");
    for pair in options.chunks(2) {
        match *pair {
            ["--rounds", word] => rounds = number(word)?,
            ["--seconds", word] => seconds = number(word)?,
            ["--only", text] => only = text,
            _ => return Err(HELP.into()),
        }
    }
    let lab = full::Lab::new(seconds, source()).map_err(|error| error.to_string())?;
    if full::stream_module().is_none() {
        println!("nginx has no stream module here (libnginx-mod-stream): its TCP rows fail");
    }
    let mut worked = true;
    for steering in [Steering::Steered, Steering::Kernel] {
        worked &= loads(&lab, &Work::under(steering, only), steering, rounds);
    }
    if only.is_empty() {
        worked &= idles(&lab);
    }
    Ok(worked)
}

fn loads(lab: &full::Lab, works: &[Work], steering: Steering, rounds: u32) -> bool {
    if works.is_empty() {
        return true;
    }
    let mut cells: Vec<Cells> = works.iter().map(|_| Cells::default()).collect();
    for _ in 0..rounds {
        for (place, proxy) in full::Proxy::ALL.into_iter().enumerate() {
            for (cells, outcome) in cells.iter_mut().zip(lab.run(proxy, steering, works)) {
                cells[place].push(outcome);
            }
        }
    }
    println!("\n{}:", steering.words());
    let named = || works.iter().map(|work| work.name).zip(&cells);
    named().for_each(|(name, cells)| print!("{}", table::rows(name, cells)));
    print!("{}", table::ratio_head());
    named().for_each(|(name, cells)| print!("{}", table::ratios(name, cells)));
    cells.iter().flatten().flatten().all(Result::is_ok)
}

fn idles(lab: &full::Lab) -> bool {
    println!("\nan idle keep-alive connection takes, of {IDLE} (slab: the client's own sockets included):");
    let mut worked = true;
    for proxy in full::Proxy::ALL {
        match lab.idle(proxy, IDLE) {
            Ok(each) => println!(
                "  {:<8} {:7.0} bytes of the process, {:7.0} of the kernel's slabs",
                proxy.name(),
                each.process,
                each.slab
            ),
            Err(error) => {
                println!("  {:<8} FAILED: {error}", proxy.name());
                worked = false;
            }
        }
    }
    worked
}

fn forwarding(words: &[&str]) -> Result<bool, String> {
    let mut numbers = words.iter().map(|word| number(word));
    let rounds = numbers.next().transpose()?.unwrap_or(3);
    let seconds = numbers.next().transpose()?.unwrap_or(3);
    println!("128-byte keep-alive requests, 64 connections");
    let source = source();
    let lab = forwarding::Lab::new(source.cores()).map_err(|error| error.to_string())?;
    for steering in [Steering::Steered, Steering::Kernel] {
        println!("{}:", steering.words());
        let mut outcomes: [Vec<forwarding::Outcome>; 3] = Default::default();
        for _ in 0..rounds {
            for (proxy, outcomes) in forwarding::Proxy::ALL.into_iter().zip(&mut outcomes) {
                let outcome = lab.run(proxy, steering, seconds, source == Source::Processor);
                outcomes.push(outcome.map_err(|error| format!("{}: {error}", proxy.name()))?);
            }
        }
        for (proxy, outcomes) in forwarding::Proxy::ALL.into_iter().zip(&outcomes) {
            print(proxy, outcomes);
        }
    }
    Ok(true)
}

fn print(proxy: forwarding::Proxy, outcomes: &[forwarding::Outcome]) {
    let of = |field: fn(&forwarding::Outcome) -> f64| outcomes.iter().map(field).collect::<Vec<_>>();
    let (low, high) = range(&of(|outcome| outcome.rate));
    let counted: Vec<(f64, f64)> = outcomes.iter().filter_map(|outcome| outcome.counted).collect();
    let counted = match counted.len() {
        0 => String::new(),
        _ => {
            let (instructions, cycles): (Vec<f64>, Vec<f64>) = counted.into_iter().unzip();
            format!(", {:.0} instructions and {:.0} cycles a request", median(&instructions), median(&cycles))
        }
    };
    println!(
        "  {:<12} {:7.0} requests/s ({low:.0} to {high:.0}), {:6.0} cycles = {:4.1} µs of core 1 a request{counted}; \
         core 1 was used to {:3.0} %, {:.0} % before",
        proxy.name(),
        median(&of(|outcome| outcome.rate)),
        median(&of(|outcome| outcome.cycles)),
        median(&of(|outcome| outcome.core_us)),
        median(&of(|outcome| outcome.used)) * 100.0,
        median(&of(|outcome| outcome.noise)) * 100.0,
    );
}

/// Idle connections held at once.
const IDLE: u32 = 1_000;
