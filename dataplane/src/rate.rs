//! Token buckets, for what may happen only so often.

use crate::clock::Instant;

/// Lets through so many events a second, with a burst of as many after a quiet second.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    per_second: u64,
    /// In billionths of an event.
    tokens: u64,
    last: Instant,
}

impl TokenBucket {
    /// Full at first.
    pub fn new(per_second: u32) -> Self {
        let per_second = u64::from(per_second);
        Self { per_second, tokens: per_second * ONE, last: Instant::ZERO }
    }

    /// True when one more event may happen at `now`.
    pub fn take(&mut self, now: Instant) -> bool {
        let earned = (now.since(self.last).as_nanos() as u64).min(ONE) * self.per_second;
        self.tokens = (self.tokens + earned).min(self.per_second * ONE);
        self.last = now;
        let enough = self.tokens >= ONE;
        self.tokens -= if enough { ONE } else { 0 };
        enough
    }

    /// Changes the rate; what has been saved is kept, up to the new burst.
    pub fn set_rate(&mut self, per_second: u32) {
        self.per_second = u64::from(per_second);
        self.tokens = self.tokens.min(self.per_second * ONE);
    }
}

const ONE: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = TokenBucket::new(250);
        let burst = (0..1_000).filter(|_| bucket.take(Instant::from_ms(1))).count();
        assert_eq!(burst, 250);
        let spread = (0..1_000).filter(|ms| bucket.take(Instant::from_ms(1 + ms))).count();
        assert!((249..=250).contains(&spread), "{spread}");
    }

    #[test]
    fn rate_zero_lets_nothing_through() {
        assert!(!TokenBucket::new(0).take(Instant::from_ms(5_000)));
    }
}
