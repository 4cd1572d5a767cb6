//! What came out, in rows: one for each kind of load and proxy, and the ratios to the first proxy.

use super::full::{Outcome, Proxy};
use crate::report::median;

/// Of one kind of load: what each of [`Proxy::ALL`] came to, a round each.
pub type Cells = [Vec<Result<Outcome, String>>; 3];

/// The medians of the rounds that worked.
fn middle(rounds: &[Result<Outcome, String>]) -> Option<Outcome> {
    let good: Vec<&Outcome> = rounds.iter().flatten().collect();
    let of =
        |field: fn(&Outcome) -> f64| median(&good.iter().map(|&outcome| field(outcome)).collect::<Vec<_>>());
    let counted: Vec<f64> = good.iter().filter_map(|outcome| outcome.instructions).collect();
    (!good.is_empty()).then(|| Outcome {
        rate: of(|outcome| outcome.rate),
        cycles: of(|outcome| outcome.cycles),
        instructions: (!counted.is_empty()).then(|| median(&counted)),
        emulated: None,
        p50_us: of(|outcome| outcome.p50_us),
        p99_us: of(|outcome| outcome.p99_us),
    })
}

/// A row for each proxy, with the rounds that failed.
pub fn rows(name: &str, cells: &Cells) -> String {
    let mut text = format!("{name}\n");
    for (proxy, rounds) in Proxy::ALL.into_iter().zip(cells) {
        text += &match middle(rounds) {
            Some(outcome) => row(proxy, &outcome),
            None => format!("  {:<8} nothing\n", proxy.name()),
        };
        for reason in rounds.iter().filter_map(|round| round.as_ref().err()) {
            text += &format!("  {:<8} FAILED: {}\n", proxy.name(), reason.trim());
        }
    }
    text
}

fn row(proxy: Proxy, outcome: &Outcome) -> String {
    let Outcome { rate, cycles, instructions, p50_us, p99_us, .. } = *outcome;
    let counted = instructions.map_or(String::new(), |count| format!(" {:8.1} k instructions", count / 1e3));
    format!(
        "  {:<8} {rate:9.0} /s {:9.1} k cycles{counted}   p50 {:8.3} ms   p99 {:8.3} ms\n",
        proxy.name(),
        cycles / 1e3,
        p50_us / 1e3,
        p99_us / 1e3,
    )
}

/// The head of [`ratios`].
pub fn ratio_head() -> String {
    let others = Proxy::ALL[1..].iter().map(|proxy| format!("{:>34}", format!("sluice to {}", proxy.name())));
    format!("{:<28}{}\n", "", others.collect::<String>())
}

/// One row: sluice's rate and cost in terms of each of the others'.
pub fn ratios(name: &str, cells: &Cells) -> String {
    let ours = middle(&cells[0]);
    let mut text = format!("{name:<28}");
    for theirs in &cells[1..] {
        text += &match ours.zip(middle(theirs)) {
            Some((ours, theirs)) => format!("{:>34}", ratio(&ours, &theirs)),
            None => format!("{:>34}", "-"),
        };
    }
    text + "\n"
}

fn ratio(ours: &Outcome, theirs: &Outcome) -> String {
    let counted = ours.instructions.zip(theirs.instructions);
    let counted = counted.map_or(String::new(), |(ours, theirs)| format!(", {:.2} instr.", ours / theirs));
    format!("{:.2} rate, {:.2} cycles{counted}", ours.rate / theirs.rate, ours.cycles / theirs.cycles)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(rate: f64, cycles: f64, instructions: Option<f64>) -> Result<Outcome, String> {
        Ok(Outcome { rate, cycles, instructions, emulated: None, p50_us: 1_000.0, p99_us: 2_500.0 })
    }

    #[test]
    fn ratios_are_of_medians_of_the_rounds_that_worked() {
        let cells = [
            vec![outcome(10.0, 50.0, None), Err("lost".into()), outcome(30.0, 70.0, None)],
            vec![outcome(40.0, 30.0, None)],
            vec![Err("not there".into())],
        ];
        let line = ratios("load", &cells);
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["load", "0.50", "rate,", "2.00", "cycles", "-"]
        );
        let all = rows("load", &cells);
        assert!(all.contains("sluice   FAILED: lost") && all.contains("nginx    nothing"), "{all}");
        assert!(all.contains("p50    1.000 ms   p99    2.500 ms"), "{all}");
    }

    #[test]
    fn instructions_are_shown_where_they_were_counted() {
        let (ours, theirs) = (outcome(1.0, 1.0, Some(3_000.0)), outcome(1.0, 1.0, Some(6_000.0)));
        let cells = [vec![ours], vec![theirs.clone()], vec![theirs]];
        assert!(ratios("", &cells).contains("1.00 cycles, 0.50 instr."));
        assert!(rows("", &cells).contains("3.0 k instructions"));
    }
}
