//! Time as the data plane sees it: passed in, never read inside an engine.

use std::time::Duration;

/// A moment, in nanoseconds since the clock's start. Monotonic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Instant(u64);

impl Instant {
    /// The clock's start.
    pub const ZERO: Instant = Instant(0);

    /// Later than anything that will be: 584 years after the clock's start.
    pub const NEVER: Instant = Instant(u64::MAX);

    /// `ns` nanoseconds after the clock's start.
    pub const fn from_ns(ns: u64) -> Self {
        Self(ns)
    }

    /// `ms` milliseconds after the clock's start.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms * 1_000_000)
    }

    /// Nanoseconds since the clock's start.
    #[inline(always)]
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// Milliseconds since the clock's start, wrapping after 49 days: compare by wrapping difference.
    #[inline(always)]
    pub const fn as_ms(self) -> u32 {
        (self.0 / 1_000_000) as u32
    }

    /// `ms` milliseconds later.
    #[inline(always)]
    pub const fn after_ms(self, ms: u64) -> Instant {
        Instant(self.0 + ms * 1_000_000)
    }

    /// The time from `earlier` to now; zero when that is later.
    #[inline(always)]
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, span: Duration) -> Instant {
        Instant(self.0 + span.as_nanos() as u64)
    }
}

/// The machine's monotonic clock. A worker reads it once a turn.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// A clock that starts now. Workers of one process share one by copying it.
    pub fn start() -> Self {
        Self { start: std::time::Instant::now() }
    }

    /// The moment. About 25 ns.
    #[inline(always)]
    pub fn now(&self) -> Instant {
        Instant(self.start.elapsed().as_nanos() as u64)
    }
}
