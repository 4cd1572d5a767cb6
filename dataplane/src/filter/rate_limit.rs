//! Answers 429 to who asks too often.

use std::sync::Arc;

use super::rate_table::{Pace, RateTable, TooSoon};
use super::short::Short;
use super::{Facts, Outcome};
use crate::address::Address;
use crate::http::{EditError, Request, Response};

/// How often. Counted over all workers, to the nanosecond of the time between two requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Sets counts of different filters apart; given by the control thread.
    pub id: u32,
    /// Who is counted together.
    pub by: RateKey,
    /// Requests in `period_ms`; 0 lets none through.
    pub requests: u32,
    /// In milliseconds.
    pub period_ms: u32,
    /// Requests at once after a time of quiet, at least 1.
    pub burst: u32,
}

/// Who is counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateKey {
    /// Clients of an address, or of these leading bits of it.
    Address {
        /// Of IPv4.
        mask_v4: u8,
        /// Of IPv6.
        mask_v6: u8,
    },
    /// Requests with the same value of a field, its first one; those without it count together.
    Header(Arc<str>),
}

impl RateLimit {
    pub(super) fn on_request(
        &self,
        request: &Request,
        response: &mut Response,
        facts: &Facts,
        rates: &RateTable,
    ) -> Result<Outcome, EditError> {
        match self.take(request, facts, rates) {
            Ok(()) => Ok(Outcome::Continue),
            Err(wait) => refuse(response, wait),
        }
    }

    fn take(&self, request: &Request, facts: &Facts, rates: &RateTable) -> Result<(), TooSoon> {
        let pace = self.pace().ok_or(TooSoon(u64::from(self.period_ms) * NS_PER_MS))?;
        match &self.by {
            RateKey::Address { mask_v4, mask_v6 } => {
                let Address { high, low } = masked(facts.client.0, *mask_v4, *mask_v6);
                rates.take((self.id, high, low), pace, facts.now)
            }
            RateKey::Header(name) => rates.take((self.id, value(request, name.as_bytes())), pace, facts.now),
        }
    }

    fn pace(&self) -> Option<Pace> {
        let period_ns = u64::from(self.period_ms) * NS_PER_MS;
        let interval_ns = period_ns.checked_div(u64::from(self.requests))?.max(1);
        let slack_ns = interval_ns.saturating_mul(u64::from(self.burst.max(1)) - 1);
        Some(Pace { interval_ns, slack_ns })
    }
}

/// RFC 6585 section 4: when to come again, in whole seconds (RFC 9110 section 10.2.3).
fn refuse(response: &mut Response, wait: TooSoon) -> Result<Outcome, EditError> {
    let seconds = Short::<20>::of(format_args!("{}", wait.0.div_ceil(NS_PER_S).max(1)))?;
    response.begin(429);
    response.fields.add(b"Retry-After", seconds.bytes())?;
    response.fields.add(b"Sluice-Reason", b"rate-limited")?;
    Ok(Outcome::Answer(Arc::default()))
}

fn masked(client: Address, mask_v4: u8, mask_v6: u8) -> Address {
    client.masked(if client.is_v4() { 96 + mask_v4.min(32) } else { mask_v6.min(128) })
}

/// Host is not among the fields.
fn value<'a>(request: &'a Request, name: &'a [u8]) -> Option<&'a [u8]> {
    if name.eq_ignore_ascii_case(b"host") { Some(request.authority()) } else { request.fields.get(name) }
}

const NS_PER_MS: u64 = 1_000_000;
const NS_PER_S: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::super::testing::{answered, blank, facts, request};
    use super::*;
    use crate::clock::Instant;

    fn limit(by: RateKey, requests: u32, period_ms: u32, burst: u32) -> RateLimit {
        RateLimit { id: 1, by, requests, period_ms, burst }
    }

    fn hosts(mask_v4: u8, mask_v6: u8) -> RateKey {
        RateKey::Address { mask_v4, mask_v6 }
    }

    fn from(client: Address, now_ms: u64) -> Facts<'static> {
        Facts { client: (client, 1), now: Instant::from_ms(now_ms), ..facts() }
    }

    /// How many of ten requests go on.
    fn passed(limit: &RateLimit, rates: &RateTable, facts: &Facts, fields: &str) -> usize {
        let asked = request("GET", "h", "/", fields);
        let go_on = |_: &i32| {
            limit.on_request(&asked, &mut blank(), facts, rates).expect("room") == Outcome::Continue
        };
        (0..10).filter(go_on).count()
    }

    #[test]
    fn the_answer_says_when_to_come_again() {
        for (requests, period_ms, burst, now_ms, expected) in [
            (1, 1_000, 1, 0, "1"),
            (1, 60_000, 1, 0, "60"),
            (1, 60_000, 1, 500, "60"),
            (1, 60_000, 1, 1_000, "59"),
            (2, 60_000, 3, 0, "30"),
            (1_000, 1_000, 1, 0, "1"),
            (0, 90_000, 1, 0, "90"),
            (0, 0, 0, 0, "1"),
        ] {
            let (limit, rates) = (limit(hosts(32, 128), requests, period_ms, burst), RateTable::new(8));
            passed(&limit, &rates, &from(Address::v4([10, 0, 0, 1]), 0), "");
            let (mut answer, asked) = (blank(), request("GET", "h", "/", ""));
            let facts = from(Address::v4([10, 0, 0, 1]), now_ms);
            let outcome = limit.on_request(&asked, &mut answer, &facts, &rates);
            assert_eq!(outcome, Ok(Outcome::Answer(Arc::default())));
            let head = format!(
                "HTTP/1.1 429 Too Many Requests|Retry-After: {expected}|Sluice-Reason: rate-limited|Content-Length: 0||"
            );
            assert_eq!(answered(&answer), head, "{limit:?}");
        }
    }

    #[test]
    fn as_many_as_are_said_go_on() {
        let (limit, rates) = (limit(hosts(32, 128), 3, 1_000, 2), RateTable::new(8));
        let at = |now_ms| passed(&limit, &rates, &from(Address::v4([10, 0, 0, 1]), now_ms), "");
        assert_eq!([at(0), at(333), at(334), at(667), at(5_000)], [2, 0, 1, 1, 2]);
    }

    #[test]
    fn clients_of_one_network_count_together() {
        let v6 = |high, low| Address { high, low };
        for (by, first, second, expected) in [
            (hosts(32, 128), Address::v4([10, 0, 0, 1]), Address::v4([10, 0, 0, 2]), 1),
            (hosts(24, 128), Address::v4([10, 0, 0, 1]), Address::v4([10, 0, 0, 2]), 0),
            (hosts(24, 128), Address::v4([10, 0, 0, 1]), Address::v4([10, 0, 1, 1]), 1),
            (hosts(0, 0), Address::v4([10, 0, 0, 1]), Address::v4([192, 0, 2, 1]), 0),
            (hosts(0, 0), Address::v4([10, 0, 0, 1]), v6(1, 1), 1),
            (hosts(32, 64), v6(1, 1), v6(1, 2), 0),
            (hosts(32, 64), v6(1, 1), v6(2, 1), 1),
            (hosts(255, 255), v6(1, 1), v6(1, 2), 1),
        ] {
            let (limit, rates) = (limit(by, 1, 1_000, 1), RateTable::new(64));
            assert_eq!(passed(&limit, &rates, &from(first, 0), ""), 1);
            assert_eq!(passed(&limit, &rates, &from(second, 0), ""), expected, "{limit:?} {second}");
        }
    }

    #[test]
    fn requests_with_one_value_count_together() {
        let (limit, rates) = (limit(RateKey::Header("X-Key".into()), 1, 1_000, 1), RateTable::new(64));
        let client = |last| from(Address::v4([10, 0, 0, last]), 0);
        assert_eq!(passed(&limit, &rates, &client(1), "x-key: a\r\n"), 1);
        assert_eq!(passed(&limit, &rates, &client(2), "X-Key: a\r\nX-Key: b\r\n"), 0);
        assert_eq!(passed(&limit, &rates, &client(2), "X-Key: b\r\n"), 1);
        assert_eq!(passed(&limit, &rates, &client(1), ""), 1);
        assert_eq!(passed(&limit, &rates, &client(2), ""), 0);
        assert_eq!(passed(&limit, &rates, &client(1), "x-key:\r\n"), 1, "an empty value is one");
        let host = RateLimit { by: RateKey::Header("Host".into()), ..limit };
        assert_eq!(passed(&host, &rates, &client(1), ""), 1);
        assert_eq!(passed(&host, &rates, &client(1), ""), 0);
    }

    #[test]
    fn filters_count_apart() {
        let rates = RateTable::new(64);
        let one = limit(hosts(32, 128), 1, 1_000, 1);
        let two = RateLimit { id: 2, ..one.clone() };
        let client = from(Address::v4([10, 0, 0, 1]), 0);
        assert_eq!([passed(&one, &rates, &client, ""), passed(&two, &rates, &client, "")], [1, 1]);
    }
}
