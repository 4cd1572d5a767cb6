//! Round-trip times and the retransmission timeout made of them (RFC 6298).

use super::seq::Seq;
use crate::clock::Instant;

/// What is known of one path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rtt {
    /// Smoothed, and how much it varies, in microseconds; 0 before the first sample.
    smoothed_us: u32,
    variance_us: u32,
    /// The segment that ends here is timed, since then.
    timed: Option<(Seq, Instant)>,
    /// How often the timeout was doubled.
    pub backoff: u8,
}

impl Rtt {
    pub(super) const UNKNOWN: Rtt = Rtt { smoothed_us: 0, variance_us: 0, timed: None, backoff: 0 };

    /// The smoothed round-trip time in microseconds, once there is one.
    #[inline]
    pub(super) fn smoothed_us(&self) -> Option<u64> {
        (self.smoothed_us > 0).then_some(u64::from(self.smoothed_us))
    }

    /// New data is sent, up to `end`.
    #[inline]
    pub(super) fn on_sent(&mut self, end: Seq, now: Instant) {
        if self.timed.is_none() {
            self.timed = Some((end, now));
        }
    }

    /// Something is sent again: of what is timed nobody knows any more what an acknowledgement means (Karn's algorithm,
    /// RFC 6298 section 3).
    pub(super) fn on_resent(&mut self) {
        self.timed = None;
    }

    /// Everything before `una` is acknowledged.
    #[inline]
    pub(super) fn on_acked(&mut self, una: Seq, now: Instant) {
        self.backoff = 0;
        if let Some((end, since)) = self.timed
            && !end.is_after(una)
        {
            self.timed = None;
            self.sample((now.since(since).as_micros() as u32).max(1));
        }
    }

    /// RFC 6298 sections 2.2 and 2.3.
    fn sample(&mut self, rtt_us: u32) {
        let rtt_us = rtt_us.min(RTT_MAX_US);
        if self.smoothed_us == 0 {
            (self.smoothed_us, self.variance_us) = (rtt_us, rtt_us / 2);
            return;
        }
        let error = self.smoothed_us.abs_diff(rtt_us);
        self.variance_us = (3 * self.variance_us + error) / 4;
        self.smoothed_us = ((7 * self.smoothed_us + rtt_us) / 8).max(1);
    }

    /// How long to wait for an acknowledgement before sending again, in milliseconds, doubled for each time that it was in
    /// vain (RFC 6298 section 5.5).
    #[inline]
    pub(super) fn timeout_ms(&self) -> u64 {
        let ms = match self.smoothed_us {
            0 => INITIAL_MS,
            smoothed => u64::from((smoothed + 4 * self.variance_us) / 1000).max(TIMEOUT_MIN_MS),
        };
        (ms << self.backoff).min(TIMEOUT_MAX_MS)
    }

    pub(super) fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(BACKOFF_MAX);
    }
}

/// RFC 6298 section 2.1.
const INITIAL_MS: u64 = 1_000;
/// Shorter than the second of RFC 6298 section 2.4, as everybody's: longer than peers delay acknowledgements.
const TIMEOUT_MIN_MS: u64 = 200;
const TIMEOUT_MAX_MS: u64 = 60_000;
const BACKOFF_MAX: u8 = 10;
const RTT_MAX_US: u32 = 60_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn after(samples: &[u64]) -> Rtt {
        let mut rtt = Rtt::UNKNOWN;
        let mut now = Instant::ZERO;
        for (at, ms) in samples.iter().enumerate() {
            rtt.on_sent(Seq(at as u32 + 1), now);
            now = now.after_ms(*ms);
            rtt.on_acked(Seq(at as u32 + 1), now);
        }
        rtt
    }

    #[test]
    fn timeout_is_what_rfc_6298_makes_of_samples() {
        let ms = |samples: &[u64]| after(samples).timeout_ms();
        assert_eq!((ms(&[]), ms(&[1]), ms(&[100]), ms(&[300])), (1000, 200, 300, 900));
        assert_eq!(ms(&[100, 200]), 112 + 4 * (150 + 100) / 4);
        assert_eq!(after(&[100, 200]).smoothed_us(), Some(112_500));
    }

    #[test]
    fn each_wait_in_vain_doubles_and_an_acknowledgement_ends_that() {
        let mut rtt = after(&[100]);
        let waits = [0; 11].map(|_| {
            rtt.back_off();
            rtt.timeout_ms()
        });
        assert_eq!(waits, [600, 1200, 2400, 4800, 9600, 19_200, 38_400, 60_000, 60_000, 60_000, 60_000]);
        rtt.on_acked(Seq(9), Instant::ZERO);
        assert_eq!(rtt.timeout_ms(), 300);
    }

    #[test]
    fn what_is_sent_again_is_not_timed() {
        let mut rtt = Rtt::UNKNOWN;
        rtt.on_sent(Seq(9), Instant::ZERO);
        rtt.on_resent();
        rtt.on_acked(Seq(9), Instant::from_ms(700));
        assert_eq!(rtt.smoothed_us(), None);
    }
}
