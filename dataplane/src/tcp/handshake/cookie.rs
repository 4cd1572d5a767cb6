//! SYN cookies: sequence numbers that stand for an entry of their own (RFC 4987 section 3.6).
//!
//! ```text
//!   31                          4 3     1   0
//!   │ keyed hash of the rest, the  │ MSS  │ period │    a period is 64 s; the lowest bit of its number is kept
//!   │ key and the client's number  │ of 8 │        │
//! ```
//!
//! A cookie is good in the period that it was made in and in the next: 64 to 128 s, and as often as it comes.

use super::{Agreed, Syn};
use crate::clock::Instant;
use crate::flow::key::FlowKey;
use crate::tcp::isn::{Purpose, Secret};

/// Makes cookies, and knows them again.
#[derive(Debug)]
pub(super) struct Cookies {
    secret: Secret,
    /// By the lowest bit of its number: the last period that cookies were made in, + 1; 0 is none.
    made_in: [u64; 2],
    made: u64,
}

impl Cookies {
    pub(super) fn new(secret: [u64; 2]) -> Self {
        Self { secret: Secret::new(secret), made_in: [0; 2], made: 0 }
    }

    /// Cookies made since the start.
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    /// The sequence number that answers this SYN. One SipHash.
    pub(super) fn make(&mut self, key: &FlowKey, syn: &Syn, now: Instant) -> u32 {
        let period = period_of(now);
        let mss = MSS.iter().rposition(|&mss| mss <= syn.mss).unwrap_or(0);
        self.made_in[(period & 1) as usize] = period + 1;
        self.made += 1;
        self.cookie(key, syn.seq, mss, period)
    }

    /// What was agreed with the client whose first segment has these numbers, when `ack` acknowledges a cookie of
    /// this period or the last. A load and a compare while no cookies are made; one SipHash otherwise. One guess in
    /// 2²⁸ is right.
    pub(super) fn check(&self, key: &FlowKey, seq: u32, ack: u32, now: Instant) -> Option<Agreed> {
        let cookie = ack.wrapping_sub(1);
        let peer_isn = seq.wrapping_sub(1);
        let period = self.made_in[(cookie & 1) as usize].checked_sub(1)?;
        let mss = (cookie >> 1) as usize % MSS.len();
        let is_fresh = period_of(now).saturating_sub(period) <= 1;
        let is_ours = is_fresh && self.cookie(key, peer_isn, mss, period) == cookie;
        is_ours.then_some(Agreed { peer_isn, peer_mss: MSS[mss], peer_scale: None, sack: false })
    }

    fn cookie(&self, key: &FlowKey, peer_isn: u32, mss: usize, period: u64) -> u32 {
        let low = (mss as u32) << 1 | (period & 1) as u32;
        let words = [peer_isn, (period as u32) << 3 | mss as u32];
        (self.secret.hash(Purpose::Cookie, key, words) as u32) << 4 | low
    }
}

fn period_of(now: Instant) -> u64 {
    now.as_ns() / PERIOD_NS
}

const PERIOD_NS: u64 = 64_000_000_000;

/// What clients announce mostly: the least there is, the defaults of both families, tunnels, PPPoE, Ethernet, jumbo frames.
const MSS: [u16; 8] = [64, 536, 1220, 1360, 1400, 1440, 1460, 8940];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snat::random::Random;

    const SYN: Syn = Syn { seq: u32::MAX, mss: 1460, scale: Some(7), sack: true };

    fn key(src_port: u16) -> FlowKey {
        FlowKey { src_port, protocol: 6, ..FlowKey::default() }
    }

    fn cookies() -> Cookies {
        Cookies::new([7, 9])
    }

    #[test]
    fn a_cookie_brings_back_the_largest_mss_of_the_table_that_fits() {
        for (mss, kept) in [(64, 64), (535, 64), (536, 536), (1459, 1440), (1460, 1460), (65_535, 8940)] {
            let mut cookies = cookies();
            let cookie = cookies.make(&key(1), &Syn { mss, ..SYN }, Instant::ZERO);
            let agreed = cookies.check(&key(1), 0, cookie.wrapping_add(1), Instant::ZERO);
            let expected = Agreed { peer_isn: u32::MAX, peer_mss: kept, peer_scale: None, sack: false };
            assert_eq!(agreed, Some(expected));
        }
    }

    #[test]
    fn a_cookie_is_good_for_its_period_and_the_next() {
        let at = |seconds: u64| Instant::from_ms(seconds * 1_000);
        for (made, until) in [(0, 127), (63, 127), (64, 191), (127, 191)] {
            let mut cookies = cookies();
            let ack = cookies.make(&key(1), &SYN, at(made)).wrapping_add(1);
            assert!(cookies.check(&key(1), 0, ack, at(made)).is_some());
            assert!(cookies.check(&key(1), 0, ack, at(until)).is_some());
            assert_eq!(cookies.check(&key(1), 0, ack, at(until + 1)), None);
            cookies.make(&key(2), &SYN, at(until + 1));
            assert_eq!(cookies.check(&key(1), 0, ack, at(until + 1)), None, "nor while others are made");
        }
    }

    #[test]
    fn a_cookie_is_good_for_its_key_numbers_and_secret_only() {
        let mut cookies = cookies();
        let ack = cookies.make(&key(1), &SYN, Instant::ZERO).wrapping_add(1);
        let check = |key: &FlowKey, seq, ack| cookies.check(key, seq, ack, Instant::ZERO);
        assert_eq!((check(&key(2), 0, ack), check(&key(1), 1, ack)), (None, None));
        assert_eq!((0..32).filter(|bit| check(&key(1), 0, ack ^ (1 << bit)).is_some()).count(), 0);
        let mut other = Cookies::new([7, 10]);
        other.make(&key(1), &SYN, Instant::ZERO);
        assert_eq!(other.check(&key(1), 0, ack, Instant::ZERO), None);
    }

    #[test]
    fn no_number_is_a_cookie_before_cookies_were_made() {
        let right = cookies().make(&key(1), &SYN, Instant::ZERO).wrapping_add(1);
        assert_eq!(cookies().check(&key(1), 0, right, Instant::ZERO), None);
    }

    #[test]
    fn a_million_guesses_are_all_wrong() {
        let seed = 20_240_611;
        let mut random = Random::new(seed);
        let mut cookies = cookies();
        let (before, now) = (Instant::ZERO, Instant::from_ms(64_000));
        cookies.make(&key(1), &SYN, before);
        cookies.make(&key(1), &SYN, now);
        let mut guess = || {
            let (numbers, port) = (random.next(), (random.next() >> 48) as u16);
            cookies.check(&key(port), numbers as u32, (numbers >> 32) as u32, now)
        };
        let right = (0..1_000_000).filter(|_| guess().is_some()).count();
        println!("seed {seed}");
        assert_eq!(right, 0, "seed {seed}");
    }
}
