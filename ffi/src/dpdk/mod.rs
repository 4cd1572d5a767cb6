//! DPDK behind safe owners: [`Eal`], [`Mempool`], [`Mbuf`], [`EthDev`] and its queues.
//!
//! ```text
//!   Eal ──▶ EthDev::open(device) ──start(pools)──▶ EthPort + n × (RxQueue, TxQueue)
//!    │                                                 │
//!    └────▶ Mempool::new ───────── holds ──────────────┘      Mbuf: one packet, freed on drop
//! ```
//!
//! A queue belongs to one thread at a time (`&mut self`, not `Sync`); the device closes when the last of its
//! queues and handles is gone. Nothing here allocates or locks per packet.

mod eal;
mod ethdev;
mod log;
mod mbuf;
mod mempool;
mod placement;
mod queue;
mod sys;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use eal::{Eal, LogTo, ThreadGuard, default_args, register_thread};
pub use ethdev::{EthDev, EthPort, EthStats, Offloads, Started};
pub use mbuf::{Mbuf, RxChecksum, TxWork};
pub use mempool::{HEADROOM_BYTES, Mempool};
pub use placement::HashPlan;
pub use queue::{BURST_MAX, Burst, BurstWriter, RxQueue, TxQueue};

/// Why DPDK did not do what was asked. The operator's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DpdkError {
    /// [`Eal::init`] has not been called, or has failed.
    #[error("DPDK is not started")]
    NotStarted,
    /// DPDK starts once a process.
    #[error("DPDK is started already, with other arguments")]
    AlreadyStarted,
    /// No driver found such a device.
    #[error("{device}: no such device: {reason}")]
    NoSuchDevice {
        /// What was asked for.
        device: String,
        /// What DPDK said.
        reason: String,
    },
    /// More queues asked for than the device has.
    #[error("{wanted} queues wanted, the device has {queues_max}")]
    TooFewQueues {
        /// Queues asked for.
        wanted: usize,
        /// Queues there are.
        queues_max: usize,
    },
    /// Anything else that DPDK refused.
    #[error("{what}: {reason}")]
    Refused {
        /// What was tried.
        what: String,
        /// What DPDK said.
        reason: String,
    },
}

/// A control-side lock. What it guards is never left half changed, so a panicked holder does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DpdkError {
    /// For a call that returned `code`, a negative errno; takes along what DPDK has just logged.
    fn refused(what: impl Into<String>, code: i32) -> Self {
        Self::Refused { what: what.into(), reason: log::reason(code) }
    }
}
