//! The load generator `wrk`: how it is started, and what it says.

use std::io;
use std::process::Stdio;

use super::ground::{Spaces, inside};

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    /// An address of the proxy and a path.
    pub url: &'a str,
    /// At once.
    pub connections: u32,
    /// For so long.
    pub seconds: u32,
    /// A new connection for each request: the server is asked to close.
    pub closes: bool,
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answers {
    /// Requests answered.
    pub requests: f64,
    /// Bytes that came, those of answers not yet complete and of heads included.
    pub bytes: f64,
    /// Half of them were answered within this time, in microseconds.
    pub p50_us: f64,
    /// 99 % were.
    pub p99_us: f64,
}

/// Runs it in the client's namespace, at real-time priority, bounded in time.
///
/// # Errors
/// That it does not start, and failed requests.
pub fn run(spaces: &Spaces, load: &Load) -> io::Result<Answers> {
    let cores = spaces.cores().load;
    let mut wrk = inside(&spaces.name("c"), cores, "timeout");
    wrk.args([&(load.seconds + GRACE_S).to_string(), "chrt", "--rr", "10"]);
    wrk.args(["wrk", "--latency", &format!("-t{}", cores.len()), "--timeout", "20s"]);
    wrk.args([&format!("-c{}", load.connections), &format!("-d{}s", load.seconds)]);
    if load.closes {
        wrk.args(["-H", "Connection: close"]);
    }
    let output = wrk.arg(load.url).stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("wrk: {}\n{text}{said}", output.status)));
    }
    read(&text).map_err(io::Error::other)
}

/// # Errors
/// What is wrong, in words.
fn read(text: &str) -> Result<Answers, String> {
    let is_bad = |line: &&str| line.contains("Non-2xx") || line.contains("Socket errors");
    if let Some(line) = text.lines().find(is_bad) {
        return Err(format!("requests failed: {}", line.trim()));
    }
    let words = |mark: &str| {
        let line = text.lines().find(|line| line.contains(mark));
        line.map(|line| line.split_whitespace().collect::<Vec<_>>()).unwrap_or_default()
    };
    let requests = words("requests in").first().and_then(|word| word.parse::<f64>().ok());
    let time = |mark: &str| words(mark).get(1).and_then(|word| microseconds(word));
    let requests = requests.filter(|&requests| requests > 0.0);
    let bytes = words("requests in").get(4).and_then(|word| bytes(word));
    match (requests, bytes, time(" 50%"), time(" 99%")) {
        (Some(requests), Some(bytes), Some(p50_us), Some(p99_us)) => {
            Ok(Answers { requests, bytes, p50_us, p99_us })
        }
        _ => Err(format!("no answers:\n{text}")),
    }
}

fn microseconds(word: &str) -> Option<f64> {
    quantity(word, &[("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 60e6)])
}

fn bytes(word: &str) -> Option<f64> {
    quantity(word, &[("B", 1.0), ("KB", 1024.0), ("MB", 1_048_576.0), ("GB", 1_073_741_824.0)])
}

fn quantity(word: &str, units: &[(&str, f64)]) -> Option<f64> {
    let at = word.find(|letter: char| letter.is_ascii_alphabetic())?;
    let (number, unit) = word.split_at(at);
    let (_, each) = units.iter().find(|(name, _)| *name == unit)?;
    Some(number.parse::<f64>().ok()? * each)
}

/// For connections that do not end, seconds.
const GRACE_S: u32 = 15;

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Running 1s test @ http://10.66.0.100/\n  1 threads and 64 connections\n  \
        Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency     1.70ms  210.00us   4.10ms   88.00%\n    \
        Req/Sec    37.50k     2.00k   40.00k    70.00%\n  Latency Distribution\n     50%  950.00us\n     \
        75%    1.72ms\n     90%    1.80ms\n     99%    2.50ms\n  37401 requests in 1.00s, 10.20MB read\n\
        Requests/sec:  37361.12\nTransfer/sec:     10.19MB\n";

    #[test]
    fn what_it_says_is_read() {
        let bytes = 10.20 * 1_048_576.0;
        let answers = Answers { requests: 37_401.0, bytes, p50_us: 950.0, p99_us: 2_500.0 };
        assert_eq!(read(TEXT), Ok(answers));
        assert_eq!(microseconds("1.20s"), Some(1_200_000.0));
        assert_eq!([microseconds("1.20"), microseconds("x"), microseconds("3h")], [None; 3]);
        assert_eq!(
            [super::bytes("2.00KB"), super::bytes("512.00B"), super::bytes("3")],
            [Some(2048.0), Some(512.0), None]
        );
    }

    #[test]
    fn failed_requests_are_failures() {
        for line in
            ["  Socket errors: connect 0, read 3, write 0, timeout 0", "  Non-2xx or 3xx responses: 12"]
        {
            assert!(read(&format!("{TEXT}{line}\n")).is_err_and(|reason| reason.contains(line.trim())));
        }
        assert!(read(&TEXT.replace("37401 requests", "0 requests")).is_err());
        assert!(read("").is_err());
    }
}
