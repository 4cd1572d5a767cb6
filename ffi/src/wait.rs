//! Sleeping until a descriptor is readable, and [`Waker`], the event that ends such a sleep from another thread.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// Wakes a thread that sleeps in [`wait_readable`] on [`Waker::fd`]. Cloning shares the event. An eventfd(2).
#[derive(Debug, Clone)]
pub struct Waker {
    event: Arc<OwnedFd>,
}

impl Waker {
    /// A new event, not set.
    ///
    /// # Errors
    /// The kernel's, when the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just created and nothing else owns it.
        Ok(Self { event: Arc::new(unsafe { OwnedFd::from_raw_fd(fd) }) })
    }

    /// Sets the event: the sleeper returns now, or at once when it next sleeps. One system call.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: `one` is eight readable bytes. A full counter (EAGAIN) means the event is set already.
        unsafe { libc::write(self.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Clears the event. One system call.
    pub fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: `count` is eight writable bytes; the descriptor does not block.
        unsafe { libc::read(self.event.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }

    /// The descriptor to sleep on.
    pub fn fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

/// Sleeps until one of `fds` is readable (or has failed) or `timeout` has passed. True when one is readable.
///
/// An interrupted sleep counts as a time-out. Wakes within the kernel's timer slack (about 50 µs).
pub fn wait_readable(fds: &[RawFd], timeout: Duration) -> bool {
    const MAX: usize = 66;
    let mut polled = [libc::pollfd { fd: -1, events: 0, revents: 0 }; MAX];
    let count = fds.len().min(MAX);
    for (slot, &fd) in polled.iter_mut().zip(fds) {
        *slot = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    }
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(timeout.subsec_nanos() as i32),
    };
    // SAFETY: `polled` holds `count` initialised entries; the timespec outlives the call; no signal mask.
    let ready = unsafe {
        libc::ppoll(polled.as_mut_ptr(), count as libc::nfds_t, &raw const timeout, std::ptr::null())
    };
    ready > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waker_ends_a_sleep_and_clears() {
        let waker = Waker::new().expect("eventfd");
        assert!(!wait_readable(&[waker.fd()], Duration::ZERO));
        waker.wake();
        assert!(wait_readable(&[waker.fd()], Duration::from_secs(60)));
        waker.clear();
        assert!(!wait_readable(&[waker.fd()], Duration::ZERO));
    }
}
