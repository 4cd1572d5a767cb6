//! Network namespaces of the calling thread, for labs and tests that build their own little network.
//!
//! A [`Namespace`] without a name lives as long as a handle, a thread or a socket is in it: nothing is left behind
//! when a test panics or is killed.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// A network namespace, kept alive by this handle.
#[derive(Debug)]
pub struct Namespace {
    handle: File,
}

impl Namespace {
    /// A new, empty namespace; the calling thread stays where it is. Needs CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new() -> io::Result<Self> {
        let made = std::thread::spawn(|| {
            // SAFETY: unshare of the network namespace alone touches no memory, and only this thread moves.
            check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
            Self::current()
        });
        made.join().map_err(|_| io::Error::other("the thread that makes a namespace panicked"))?
    }

    /// The one that the calling thread is in.
    ///
    /// # Errors
    /// The kernel's, when /proc is not mounted.
    pub fn current() -> io::Result<Self> {
        Ok(Self { handle: File::open("/proc/thread-self/ns/net")? })
    }

    /// Moves the calling thread there; its new sockets and child processes belong to the namespace.
    ///
    /// # Errors
    /// The kernel's, without CAP_SYS_ADMIN.
    pub fn enter(&self) -> io::Result<()> {
        // SAFETY: setns takes a descriptor that we own and touches no memory.
        check(unsafe { libc::setns(self.handle.as_raw_fd(), libc::CLONE_NEWNET) })
    }

    /// A path that names it for other processes, such as `ip link set dev x netns <path>`.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.handle.as_raw_fd()).into()
    }
}

fn check(status: libc::c_int) -> io::Result<()> {
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
