//! How much may be underway: slow start, CUBIC (RFC 9438), and what a loss leads to.

use crate::clock::Instant;

/// The congestion window of one connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Congestion {
    /// Bytes that may be underway.
    pub window: u32,
    /// Below it the window doubles a round trip.
    threshold: u32,
    /// The window before the last reduction, bytes.
    before: f32,
    /// When it is reached again, in seconds after `since`.
    until: f32,
    /// What Reno would have, bytes.
    reno: f32,
    /// Since when the window grows without loss.
    since: Option<Instant>,
}

impl Congestion {
    /// Ten segments (RFC 6928 section 2).
    pub(super) fn new(mss: u16) -> Self {
        let window = initial(mss);
        Self { window, threshold: u32::MAX, before: 0.0, until: 0.0, reno: 0.0, since: None }
    }

    /// So many bytes are acknowledged, while the window was what bounded the sender.
    #[inline]
    pub(super) fn on_acked(&mut self, acked: usize, mss: u16, smoothed_us: Option<u64>, now: Instant) {
        let acked = acked.min(WINDOW_MAX as usize) as u32;
        let grown = match self.window < self.threshold {
            true => self.window.saturating_add(acked).min(self.threshold),
            false => self.avoid(acked as f32, f32::from(mss), smoothed_us.unwrap_or(0), now),
        };
        self.window = grown.min(WINDOW_MAX);
    }

    /// RFC 9438 sections 4.2 to 4.5.
    fn avoid(&mut self, acked: f32, mss: f32, smoothed_us: u64, now: Instant) -> u32 {
        let window = self.window as f32;
        let since = *self.since.get_or_insert_with(|| {
            self.before = self.before.max(window);
            self.until = ((self.before - window) / (C * mss)).cbrt();
            self.reno = window;
            now
        });
        let ahead = (now.since(since).as_secs_f32() + smoothed_us as f32 / 1e6) - self.until;
        let target = (self.before + C * mss * ahead * ahead * ahead).clamp(window, 1.5 * window);
        self.reno += ALPHA * mss * acked / window;
        self.reno.max(window + (target - window) * acked / window) as u32
    }

    /// Something was lost while so many bytes were underway (RFC 9438 section 4.6).
    pub(super) fn on_loss(&mut self, underway: usize, mss: u16) {
        let window = self.window as f32;
        // Those that came later want room (section 4.7).
        self.before = if window < self.before { window * (1.0 + BETA) / 2.0 } else { window };
        self.since = None;
        self.threshold = ((underway as f32 * BETA) as u32).max(2 * u32::from(mss));
        self.window = self.window.min(self.threshold);
    }

    /// Nothing was heard for too long: from one segment on again (RFC 5681 section 3.1). `is_first` when this follows no
    /// other timeout of the same data.
    pub(super) fn on_timeout(&mut self, is_first: bool, underway: usize, mss: u16) {
        if is_first {
            self.on_loss(underway, mss);
        }
        self.window = u32::from(mss);
    }

    /// Nothing was sent for longer than a timeout: what the window says is old (RFC 5681 section 4.1).
    pub(super) fn on_idle(&mut self, mss: u16) {
        self.window = self.window.min(initial(mss));
        self.since = None;
    }

    /// True in slow start.
    pub(super) fn is_starting(&self) -> bool {
        self.window < self.threshold
    }
}

fn initial(mss: u16) -> u32 {
    let mss = u32::from(mss);
    (10 * mss).min(14_600.max(2 * mss))
}

const C: f32 = 0.4;
const BETA: f32 = 0.7;
const ALPHA: f32 = 3.0 * (1.0 - BETA) / (1.0 + BETA);
const WINDOW_MAX: u32 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u16 = 1000;

    /// Acknowledges a window each round trip of 100 ms.
    fn rounds(congestion: &mut Congestion, from: u64, count: u64) -> Vec<u32> {
        let each = |round| {
            for _ in 0..congestion.window / u32::from(MSS) {
                let rtt = Some(100_000);
                congestion.on_acked(usize::from(MSS), MSS, rtt, Instant::from_ms((from + round) * 100));
            }
            congestion.window / u32::from(MSS)
        };
        (0..count).map(each).collect()
    }

    #[test]
    fn slow_start_doubles_from_ten_segments() {
        assert_eq!(rounds(&mut Congestion::new(MSS), 0, 3), [20, 40, 80]);
        assert_eq!([500, 1460, 9000, 100].map(initial), [5000, 14_600, 18_000, 1000]);
    }

    #[test]
    fn after_a_loss_the_window_is_back_when_cubic_says_and_goes_on() {
        let mut congestion = Congestion::new(MSS);
        congestion.window = 100_000;
        congestion.on_loss(100_000, MSS);
        assert_eq!((congestion.window, congestion.is_starting()), (70_000, false));
        // K is the cube root of 30 / 0.4, 4.2 s.
        let windows = rounds(&mut congestion, 0, 100);
        assert!(windows.is_sorted() && (95..101).contains(&windows[38]), "{windows:?}");
        assert!((100..105).contains(&windows[48]) && windows[98] > 130, "{windows:?}");
        // Reno would have 70 + 0.53 * 100 by then.
        assert!(windows[20] >= 80);
    }

    #[test]
    fn a_timeout_begins_with_a_segment_and_remembers_half_way() {
        let mut congestion = Congestion::new(MSS);
        congestion.window = 50_000;
        congestion.on_timeout(true, 50_000, MSS);
        congestion.on_timeout(false, 1_000, MSS);
        assert_eq!((congestion.window, congestion.threshold), (1_000, 35_000));
        assert_eq!(rounds(&mut congestion, 0, 5), [2, 4, 8, 16, 32]);
    }

    #[test]
    fn slow_start_ends_at_the_threshold_though_much_is_acknowledged_at_once() {
        let mut congestion = Congestion::new(MSS);
        congestion.window = 50_000;
        congestion.on_timeout(true, 50_000, MSS);
        congestion.on_acked(50_000, MSS, Some(100_000), Instant::ZERO);
        assert_eq!((congestion.window, congestion.is_starting()), (35_000, false));
    }

    #[test]
    fn an_old_window_is_no_more_than_the_first_one() {
        let mut congestion = Congestion::new(MSS);
        congestion.window = 90_000;
        congestion.on_idle(MSS);
        assert_eq!(congestion.window, 10_000);
        congestion.window = 5_000;
        congestion.on_idle(MSS);
        assert_eq!(congestion.window, 5_000);
    }
}
