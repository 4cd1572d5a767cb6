//! `sluice top`: what each virtual server and worker does a second, from looks at the socket, again and again.
//!
//! ```text
//!   GET version, workers, virtual-servers ─▶ Look ─┐
//!   the same, an interval later           ─▶ Look ─┴▶ rates ─▶ tables ─▶ Screen
//! ```

mod screen;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::Value;

use crate::client::{Client, ClientError};
use crate::show::{cell, render};
use screen::{Asked, Screen};

/// What can be said to `sluice top`.
#[derive(Debug, clap::Args)]
pub struct TopArgs {
    /// Ends after so many tables; without it, q or Ctrl-C does.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    iterations: Option<u32>,
    /// From one look to the next, 0.1 to 3600 seconds.
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
}

/// Why it ended early.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// The socket's answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The terminal's or the kernel's.
    #[error("the terminal: {0}")]
    Terminal(#[from] io::Error),
}

/// Shows tables until they are enough, somebody says so, or nobody reads them. The terminal is as before after that.
///
/// # Errors
/// [`TopError`].
pub fn run(args: &TopArgs, socket: &Path) -> Result<(), TopError> {
    let client = Client::new(socket);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut asked = Asked::new()?;
        let mut screen = Screen::open()?;
        let with_keys = screen.has_keys();
        tokio::select! {
            end = watch(&client, &mut screen, args) => end,
            end = asked.end(with_keys) => Ok(end?),
        }
    })
}

async fn watch(client: &Client, screen: &mut Screen, args: &TopArgs) -> Result<(), TopError> {
    let mut before = Look::take(client).await?;
    if screen.is_live() {
        // Rates need two looks; until then there is what can be told from one.
        screen.show(&before.tables(None))?;
    }
    let mut shown = 0;
    while args.iterations.is_none_or(|wanted| shown < wanted) {
        tokio::time::sleep(args.interval).await;
        let look = Look::take(client).await?;
        match screen.show(&look.tables(Some(&before))) {
            Err(why) if why.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            outcome => outcome?,
        }
        (before, shown) = (look, shown + 1);
    }
    Ok(())
}

/// What the socket told at one moment.
struct Look {
    at: Instant,
    version: Value,
    workers: Vec<Value>,
    servers: Vec<Value>,
}

impl Look {
    async fn take(client: &Client) -> Result<Self, ClientError> {
        let version = get(client, "/v1/version").await?;
        let (workers, servers) =
            (get(client, "/v1/workers").await?, get(client, "/v1/virtual-servers").await?);
        let list = |value: Value| value.as_array().cloned().unwrap_or_default();
        Ok(Self { at: Instant::now(), version, workers: list(workers), servers: list(servers) })
    }

    /// All tables, with rates since `before`.
    fn tables(&self, before: Option<&Look>) -> String {
        let of = |name: &str| cell(self.version.get(name));
        let (version, generation, uptime) = (of("version"), of("generation"), of("uptime_s"));
        let workers =
            render(titles(&WORKERS), self.workers.iter().map(|now| worker(&self.since(before, now))));
        let mut servers: Vec<Change> = self.servers.iter().map(|now| self.since(before, now)).collect();
        servers.sort_by(|one, other| other.bits().total_cmp(&one.bits()));
        let servers = render(titles(&SERVERS), servers.iter().map(server));
        format!("sluice {version}, generation {generation}, up {uptime} s\n\n{workers}\n{servers}")
    }

    /// `now` and what it was `before`, if it was there.
    fn since<'a>(&self, before: Option<&'a Look>, now: &'a Value) -> Change<'a> {
        let then = before.and_then(|before| {
            let all = before.servers.iter().chain(&before.workers);
            let elapsed = self.at.saturating_duration_since(before.at);
            Some((all.into_iter().find(|then| is_same(then, now))?, elapsed))
        });
        Change { now, then }
    }
}

async fn get(client: &Client, path: &str) -> Result<Value, ClientError> {
    Ok(client.exchange(Method::GET, path, None).await?.json)
}

/// A virtual server has a name, a worker a number.
fn is_same(one: &Value, other: &Value) -> bool {
    one.get("name") == other.get("name") && one.get("worker") == other.get("worker")
}

/// An object now, and what it was, and how long ago.
struct Change<'a> {
    now: &'a Value,
    then: Option<(&'a Value, Duration)>,
}

impl Change<'_> {
    fn cell(&self, at: &str) -> String {
        cell(self.now.pointer(at))
    }

    /// Of one number, or of all in an object, a second; none where that cannot be said: it was not there, or another
    /// process counted then.
    fn rate(&self, at: &str) -> Option<f64> {
        let (then, elapsed) = self.then?;
        let grown = sum(self.now, at)?.checked_sub(sum(then, at)?)?;
        (!elapsed.is_zero()).then(|| grown as f64 / elapsed.as_secs_f64())
    }

    fn rate_cell(&self, at: &str, times: f64) -> String {
        self.rate(at).map_or("-".into(), |rate| scaled(rate * times))
    }

    /// Both directions, to put the busiest first.
    fn bits(&self) -> f64 {
        self.rate("/clientside/bytes_in").unwrap_or(0.0) + self.rate("/clientside/bytes_out").unwrap_or(0.0)
    }

    /// The part of the time in which a worker did not sleep, times the part of its turns that found work.
    fn busy_percent(&self) -> Option<f64> {
        let turns = self.rate("/turns").filter(|turns| *turns > 0.0);
        let awake = 1.0 - self.rate("/slept_ms")? / 1_000.0;
        let found = turns.map_or(Some(0.0), |turns| Some(self.rate("/busy_turns")? / turns))?;
        Some(awake.clamp(0.0, 1.0) * found.clamp(0.0, 1.0) * 100.0)
    }
}

fn sum(item: &Value, at: &str) -> Option<u64> {
    match item.pointer(at)? {
        Value::Object(counts) => Some(counts.values().filter_map(Value::as_u64).sum()),
        count => count.as_u64(),
    }
}

const SERVERS: [&str; 7] =
    ["VIRTUAL SERVER", "CONNECTIONS", "NEW/S", "REQUESTS/S", "BITS/S IN", "BITS/S OUT", "DROPS/S"];

fn server(change: &Change) -> Vec<String> {
    vec![
        change.cell("/name"),
        change.cell("/connections/current"),
        change.rate_cell("/connections/total", 1.0),
        change.rate_cell("/http/requests", 1.0),
        change.rate_cell("/clientside/bytes_in", 8.0),
        change.rate_cell("/clientside/bytes_out", 8.0),
        change.rate_cell("/drops", 1.0),
    ]
}

const WORKERS: [&str; 6] = ["WORKER", "CORE", "BUSY %", "PACKETS/S IN", "PACKETS/S OUT", "FLOWS"];

fn worker(change: &Change) -> Vec<String> {
    vec![
        change.cell("/worker"),
        change.cell("/core"),
        change.busy_percent().map_or("-".into(), |percent| format!("{percent:.1}")),
        change.rate_cell("/traffic/packets_in", 1.0),
        change.rate_cell("/traffic/packets_out", 1.0),
        change.cell("/flows"),
    ]
}

fn titles(titles: &[&str]) -> Vec<String> {
    titles.iter().map(ToString::to_string).collect()
}

/// `999`, `1.50k`, `15.0M`, `150G`: three digits, in powers of a thousand.
fn scaled(number: f64) -> String {
    let mut scaled = number;
    for unit in ["", "k", "M", "G"] {
        // What rounds up to a thousand is one of the next unit.
        if scaled < 999.5 {
            return format!("{scaled:.*}{unit}", digits_after(scaled, unit));
        }
        scaled /= 1_000.0;
    }
    format!("{scaled:.*}T", digits_after(scaled, "T"))
}

fn digits_after(number: f64, unit: &str) -> usize {
    match number {
        _ if unit.is_empty() => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds: Option<f64> = text.parse().ok().filter(|seconds| (0.1..=3_600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "expected 0.1 to 3600 seconds".into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn look(at: Instant, workers: Value, servers: Value) -> Look {
        let list = |value: Value| value.as_array().unwrap().clone();
        let version = json!({"version": "1.2.3", "generation": 4, "uptime_s": 60});
        Look { at, version, workers: list(workers), servers: list(servers) }
    }

    fn web(name: &str, total: u64, bytes: u64, requests: u64, drops: u64) -> Value {
        json!({
            "name": name, "connections": {"current": 3, "total": total},
            "clientside": {"bytes_in": bytes, "bytes_out": 10 * bytes},
            "http": {"requests": requests}, "drops": {"no-member": drops, "malformed": drops},
        })
    }

    fn busy(turns: u64, busy: u64, slept_ms: u64, packets: u64) -> Value {
        json!({
            "worker": 0, "core": 1, "turns": turns, "busy_turns": busy, "slept_ms": slept_ms, "flows": 7,
            "traffic": {"packets_in": packets, "packets_out": 2 * packets},
        })
    }

    fn cells(text: &str, line: usize) -> Vec<&str> {
        text.lines().nth(line).unwrap().split_whitespace().collect()
    }

    #[test]
    fn rates_are_what_was_counted_over_the_time_between_two_looks() {
        let start = Instant::now();
        let quiet = json!({"name": "tcp", "connections": {"current": 0, "total": 0}, "drops": {},
            "clientside": {"bytes_in": 0, "bytes_out": 0}});
        let before = look(start, json!([busy(0, 0, 0, 10)]), json!([quiet, web("web", 10, 1_000, 5, 1)]));
        let workers = json!([busy(4_000, 1_000, 1_000, 3_010)]);
        let after =
            look(start + Duration::from_secs(2), workers, json!([quiet, web("web", 30, 251_000, 3_005, 4)]));
        let text = after.tables(Some(&before));
        assert_eq!(text.lines().next(), Some("sluice 1.2.3, generation 4, up 60 s"));
        // Half the time asleep, and work in a quarter of the turns.
        assert_eq!(cells(&text, 3), ["0", "1", "12.5", "1.50k", "3.00k", "7"]);
        assert_eq!(cells(&text, 6), ["web", "3", "10", "1.50k", "1.00M", "10.0M", "3"], "the busiest first");
        assert_eq!(cells(&text, 7), ["tcp", "0", "0", "-", "0", "0", "0"], "no HTTP, no requests");
    }

    #[test]
    fn what_was_not_there_or_counts_anew_has_no_rate() {
        let start = Instant::now();
        let second = start + Duration::from_secs(1);
        let before = look(start, json!([]), json!([web("web", 10, 9, 9, 9)]));
        let after =
            look(second, json!([busy(1, 1, 1, 1)]), json!([web("api", 1, 1, 1, 1), web("web", 2, 10, 9, 9)]));
        let text = after.tables(Some(&before));
        assert_eq!(cells(&text, 3), ["0", "1", "-", "-", "-", "7"]);
        assert_eq!(cells(&text, 6), ["web", "3", "-", "0", "8", "80", "0"]);
        assert_eq!(cells(&text, 7), ["api", "3", "-", "-", "-", "-", "-"]);
        assert_eq!(
            cells(&before.tables(None), 5)[1..],
            ["3", "-", "-", "-", "-", "-"],
            "and neither has one look"
        );
        let at_once = look(start, json!([]), json!([web("web", 11, 9, 9, 9)]));
        assert_eq!(cells(&at_once.tables(Some(&before)), 5)[2], "-", "no time has passed");
    }

    #[test]
    fn numbers_have_three_digits() {
        let said =
            [0.0, 0.4, 999.4, 999.5, 9_994.0, 9_996.0, 123_456.0, 1.5e7, 2e9, 3.25e12, 4e15].map(scaled);
        let wanted = ["0", "0", "999", "1.00k", "9.99k", "10.0k", "123k", "15.0M", "2.00G", "3.25T", "4000T"];
        assert_eq!(said, wanted);
    }

    #[test]
    fn an_interval_is_a_number_of_seconds_in_bounds() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "NaN", "inf", "3601", "", "1s"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
