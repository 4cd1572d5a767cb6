//! Waiting for an event, with a deadline: the only place where the tests sleep.

use std::time::{Duration, Instant};

/// Looks every 5 ms until `look` gives something.
///
/// # Panics
/// When `patience` is over first; `what` says what did not come.
pub fn until<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < patience, "{what}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Lets time pass where the passing itself is what is tested: an idle timeout, a quiet spell.
pub fn pass(time: Duration) {
    std::thread::sleep(time);
}
