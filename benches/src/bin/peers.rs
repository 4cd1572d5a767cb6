//! `peers`: 128-byte keep-alive requests through sluice, nftables and HAProxy in turn, between the same namespaces.

use std::process::ExitCode;

use sluice_benches::machine;
use sluice_benches::peers::{Lab, Outcome, Proxy, Steering};
use sluice_benches::report::{median, range};

const HELP: &str = "peers [ROUNDS [SECONDS]]     (3 rounds of 3 s; needs root, nginx, wrk, nft, haproxy)";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("peers: {reason}\n{HELP}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse::<u32>().map_err(|_| HELP.to_owned()));
    let rounds = arguments.next().transpose()?.unwrap_or(3);
    let seconds = arguments.next().transpose()?.unwrap_or(3);
    if !machine::is_root() {
        return Err("needs root, for network namespaces".into());
    }
    let counters = machine::has_hardware_counters();
    let lab = Lab::new().map_err(|error| error.to_string())?;
    println!(
        "128-byte keep-alive requests, 64 connections; client and origin on core 0, proxy on core 1; hardware \
         counters: {}",
        if counters { "yes" } else { "none" }
    );
    for (steering, words) in [
        (Steering::Steered, "receive work of the proxy's links on core 1"),
        (Steering::Kernel, "receive work where the kernel puts it"),
    ] {
        println!("{words}:");
        let mut outcomes: [Vec<Outcome>; 3] = Default::default();
        for _ in 0..rounds {
            for (proxy, outcomes) in Proxy::ALL.into_iter().zip(&mut outcomes) {
                let outcome = lab.run(proxy, steering, seconds, counters);
                outcomes.push(outcome.map_err(|error| format!("{}: {error}", proxy.name()))?);
            }
        }
        for (proxy, outcomes) in Proxy::ALL.into_iter().zip(&outcomes) {
            print(proxy, outcomes);
        }
    }
    Ok(())
}

fn print(proxy: Proxy, outcomes: &[Outcome]) {
    let of = |field: fn(&Outcome) -> f64| outcomes.iter().map(field).collect::<Vec<_>>();
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
