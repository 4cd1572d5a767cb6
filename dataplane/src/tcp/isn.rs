//! Initial sequence numbers that nobody can guess (RFC 6528), and the keyed hash that makes them.

use std::fmt;

use siphasher::sip::SipHasher24;

use crate::clock::Instant;
use crate::flow::key::FlowKey;

/// Makes them: a clock of 4 µs, and a keyed hash of the connection's ends.
#[derive(Debug)]
pub struct Isn {
    secret: Secret,
}

impl Isn {
    /// With a secret of this process.
    pub fn new(secret: [u64; 2]) -> Self {
        Self { secret: Secret::new(secret) }
    }

    /// The first sequence number that we send on the connection whose packets to us have this key. One SipHash of
    /// 48 bytes. RFC 6528 section 3.
    pub fn of(&self, key: &FlowKey, now: Instant) -> u32 {
        let clock = (now.as_ns() / CLOCK_NS) as u32;
        clock.wrapping_add(self.secret.hash(Purpose::Isn, key, [0, 0]) as u32)
    }

    /// As [`Isn::of`], and later than `sent`, which the last connection of these ends has come to (RFC 9293
    /// section 3.6.1). A fast connection overtakes the clock; then this is 64 to 128 KiB behind `sent`.
    pub fn after(&self, sent: u32, key: &FlowKey, now: Instant) -> u32 {
        let isn = self.of(key, now);
        if is_after(isn, sent) {
            return isn;
        }
        let step = self.secret.hash(Purpose::Step, key, [sent, 0]) as u32 & 0xffff;
        sent.wrapping_add(0x1_0000 + step)
    }
}

/// True when sequence number `a` is later than `b` (RFC 9293 section 3.4).
pub(super) fn is_after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

/// The key of a hash that peers see results of. Never printed.
pub(super) struct Secret(SipHasher24);

impl Secret {
    pub(super) fn new(secret: [u64; 2]) -> Self {
        Self(SipHasher24::new_with_keys(secret[0], secret[1]))
    }

    /// SipHash-2-4 of the key and two words. Results for one purpose say nothing about another's.
    pub(super) fn hash(&self, purpose: Purpose, key: &FlowKey, words: [u32; 2]) -> u64 {
        let mut bytes = [0; 48];
        bytes[..16].copy_from_slice(&key.src.v6_octets());
        bytes[16..32].copy_from_slice(&key.dst.v6_octets());
        bytes[32..34].copy_from_slice(&key.src_port.to_be_bytes());
        bytes[34..36].copy_from_slice(&key.dst_port.to_be_bytes());
        bytes[36..40].copy_from_slice(&(purpose as u32).to_be_bytes());
        bytes[40..44].copy_from_slice(&words[0].to_be_bytes());
        bytes[44..].copy_from_slice(&words[1].to_be_bytes());
        self.0.hash(&bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What a hash is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// An initial sequence number.
    Isn = 1,
    /// How far it is behind the last connection's.
    Step = 2,
    /// A SYN cookie.
    Cookie = 3,
}

const CLOCK_NS: u64 = 4_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::build::address;

    fn key(src_port: u16) -> FlowKey {
        let (src, dst) = (address("198.51.100.7"), address("192.0.2.100"));
        FlowKey { src, dst, src_port, dst_port: 80, protocol: 6 }
    }

    #[test]
    fn the_clock_ticks_every_four_microseconds_and_wraps() {
        let isn = Isn::new([1, 2]);
        let at = |ns| isn.of(&key(1), Instant::from_ns(ns));
        assert_eq!(at(3_999), at(0));
        assert_eq!(at(4_000), at(0).wrapping_add(1));
        assert_eq!(at(4_000 << 32), at(0), "after four hours and three quarters");
        assert!(is_after(at(1 << 40), at((1 << 40) - 4_000)));
    }

    #[test]
    fn numbers_hang_on_the_secret_and_on_every_part_of_the_key() {
        let of = |secret, key: &FlowKey| Isn::new(secret).of(key, Instant::ZERO);
        let base = key(1);
        let others = [
            of([1, 3], &base),
            of([0, 2], &base),
            of([1, 2], &key(2)),
            of([1, 2], &FlowKey { dst_port: 81, ..base }),
            of([1, 2], &FlowKey { src: address("198.51.100.8"), ..base }),
            of([1, 2], &FlowKey { dst: address("192.0.2.101"), ..base }),
        ];
        assert_eq!(of([1, 2], &base), of([1, 2], &base));
        assert!(others.iter().all(|&other| other != of([1, 2], &base)), "{others:?}");
    }

    #[test]
    fn the_next_connection_of_the_same_ends_begins_later_than_the_last_one_ended() {
        let isn = Isn::new([1, 2]);
        let clock = isn.of(&key(1), Instant::ZERO);
        assert_eq!(isn.after(clock.wrapping_sub(1), &key(1), Instant::ZERO), clock);
        for sent in [clock, clock.wrapping_add(1), clock.wrapping_add(0x7fff_ffff)] {
            let next = isn.after(sent, &key(1), Instant::ZERO);
            assert!((0x1_0000..0x2_0000).contains(&next.wrapping_sub(sent)));
        }
    }

    #[test]
    fn purposes_are_apart_and_the_secret_is_not_printed() {
        let secret = Secret::new([0x5ec2e7, 2]);
        let of = |purpose| secret.hash(purpose, &key(1), [0, 0]);
        assert!(of(Purpose::Isn) != of(Purpose::Step) && of(Purpose::Step) != of(Purpose::Cookie));
        assert_eq!(format!("{secret:?}"), "Secret");
    }

    #[test]
    fn later_is_serial() {
        assert!(is_after(1, 0) && is_after(0, u32::MAX) && is_after(0x7fff_ffff, 0));
        assert!(!is_after(0, 0) && !is_after(u32::MAX, 0) && !is_after(0x8000_0000, 0));
    }
}
