//! A link that is slower than its users, with a queue that drops what does not fit, and with losses of its own.

use std::time::Duration;

use sluice_dataplane::clock::Instant;

/// The link, and what went over it.
#[derive(Debug, Clone)]
pub struct Bottleneck {
    pub bytes_per_second: u64,
    /// Bytes that wait at most.
    pub queue: u64,
    /// How many packets of a million begin a loss.
    pub losses: u64,
    /// How many packets are lost then.
    pub burst: u64,
    /// Payload that was to go over it, and that was lost, bytes.
    pub payload: usize,
    pub lost: usize,
    random: u64,
    /// Packets that are lost next.
    doomed: u64,
    /// When the last packet that is queued has left.
    free_at: Instant,
}

impl Bottleneck {
    pub fn new(bits_per_second: u64, queue: u64, losses: u64, burst: u64) -> Self {
        let (payload, lost, random) = (0, 0, 0x1234_5678_9abc_def1);
        let (bytes_per_second, doomed, free_at) = (bits_per_second / 8, 0, Instant::ZERO);
        Self { bytes_per_second, queue, losses, burst, payload, lost, random, doomed, free_at }
    }

    /// How long a packet takes until it has left; `None` when it never does.
    pub fn passes(&mut self, len: usize, payload: usize, now: Instant) -> Option<Duration> {
        self.payload += payload;
        let waits = if self.free_at > now { self.free_at.since(now) } else { Duration::ZERO };
        let queued = waits.as_nanos() as u64 * self.bytes_per_second / 1_000_000_000;
        if self.is_doomed() || queued + len as u64 > self.queue {
            self.lost += payload;
            return None;
        }
        let takes = Duration::from_nanos(len as u64 * 1_000_000_000 / self.bytes_per_second);
        self.free_at = now + waits + takes;
        Some(waits + takes)
    }

    fn is_doomed(&mut self) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        if self.doomed == 0 && self.random % 1_000_000 < self.losses {
            self.doomed = self.burst;
        }
        let is_doomed = self.doomed > 0;
        self.doomed = self.doomed.saturating_sub(1);
        is_doomed
    }
}
