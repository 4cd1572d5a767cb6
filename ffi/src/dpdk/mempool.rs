//! Packet memory: a mempool of mbufs of one size.
//!
//! Mbufs do not count references on their pool; that would cost every packet. A pool whose handles are gone is
//! freed when all of its mbufs have come home, and kept until then.

use std::ffi::{CString, c_int};
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::{DpdkError, Eal, Mbuf, lock, log, sys};

/// Bytes free in front of a new mbuf's data.
pub const HEADROOM_BYTES: usize = sys::RTE_PKTMBUF_HEADROOM as usize;

/// A store of mbufs. Cloning shares it. Any thread may allocate and free; registered ones have a cache.
#[derive(Clone)]
pub struct Mempool {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Raw,
    room_bytes: usize,
}

/// A mempool that nobody but its owner frees.
#[derive(Clone, Copy)]
struct Raw(NonNull<sys::rte_mempool>);

// SAFETY: DPDK's mempools are multi-producer, multi-consumer; per-thread caches are keyed by lcore id.
unsafe impl Send for Raw {}
// SAFETY: as above.
unsafe impl Sync for Raw {}

impl Mempool {
    /// Mbufs of a pool that one registered thread may keep in its cache, out of reach of all others.
    pub const CACHED_MAX: usize = CACHE_LEN / 2 * 3;

    /// Takes memory for `count` mbufs with `room_bytes` each behind the headroom (at most 65,407), near NUMA
    /// node `socket` (-1: anywhere). Frees the pools that were dropped and have their mbufs back.
    ///
    /// # Errors
    /// [`DpdkError::Refused`] when DPDK's memory is used up: more hugepages, or a larger `-m`.
    pub fn new(_: Eal, count: usize, room_bytes: usize, socket: i32) -> Result<Self, DpdkError> {
        sweep();
        let name = format!("sluice_{}", SERIAL.fetch_add(1, Ordering::Relaxed));
        let what = || format!("take memory for {count} packets of {room_bytes} bytes");
        let refused = |reason: String| DpdkError::Refused { what: what(), reason };
        let data_room =
            u16::try_from(room_bytes + HEADROOM_BYTES).map_err(|_| refused("too large".into()))?;
        let number = u32::try_from(count.max(1)).map_err(|_| refused("too many".into()))?;
        let name = CString::new(name).expect("a serial number holds no zero byte");
        let cache = cache_len(count);
        // SAFETY: EAL runs (the token); the name ends in a zero byte and is copied.
        let pool = unsafe {
            sys::rte_pktmbuf_pool_create(name.as_ptr(), number, cache, 0, data_room, socket as c_int)
        };
        let Some(pool) = NonNull::new(pool) else {
            let reason = log::reason(log::last_errno());
            return Err(refused(format!("{reason} (give DPDK more memory: hugepages, or a larger -m)")));
        };
        Ok(Self { shared: Arc::new(Shared { pool: Raw(pool), room_bytes }) })
    }

    /// An mbuf of length 0; `None` when all are in use.
    #[inline]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool is live as long as self.
        let mbuf = unsafe { sys::sluice_mbuf_alloc(self.as_ptr()) };
        // SAFETY: a fresh mbuf: one segment, one reference, and nobody else has it.
        NonNull::new(mbuf).map(|mbuf| unsafe { Mbuf::from_raw(mbuf) })
    }

    /// An mbuf with a copy of `bytes`; `None` when all are in use or `bytes` is longer than the room.
    #[inline]
    pub fn copy_of(&self, bytes: &[u8]) -> Option<Mbuf> {
        let mut mbuf = self.alloc()?;
        if !mbuf.append(bytes.len()) {
            return None;
        }
        mbuf.bytes_mut().copy_from_slice(bytes);
        Some(mbuf)
    }

    /// A chain of mbufs with a copy of `bytes`, for a device that gathers; `None` when there are too few left.
    pub fn chain_of(&self, bytes: &[u8]) -> Option<Mbuf> {
        let mut parts = bytes.chunks(self.shared.room_bytes);
        let mut head = self.copy_of(parts.next().unwrap_or_default())?;
        // Back to front, so that each part is put right behind the head.
        for part in parts.rev() {
            head.insert_second(self.copy_of(part)?);
        }
        Some(head)
    }

    /// Bytes an mbuf of this pool holds behind its headroom.
    pub fn room_bytes(&self) -> usize {
        self.shared.room_bytes
    }

    /// Mbufs in the pool, used or not.
    pub fn count(&self) -> usize {
        self.shared.pool.count()
    }

    /// Mbufs in use now. Walks every thread's cache: for tests and `show`.
    pub fn in_use(&self) -> usize {
        self.count().saturating_sub(self.shared.pool.available())
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rte_mempool {
        self.shared.pool.0.as_ptr()
    }
}

impl fmt::Debug for Mempool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mempool {{ in_use: {}, count: {} }}", self.in_use(), self.count())
    }
}

impl Raw {
    fn count(self) -> usize {
        // SAFETY: the pool is live: it is freed by `sweep` alone, after the last handle.
        unsafe { sys::sluice_pool_size(self.0.as_ptr()) as usize }
    }

    fn available(self) -> usize {
        // SAFETY: as above.
        unsafe { sys::rte_mempool_avail_count(self.0.as_ptr()) as usize }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        lock(&RETIRED).push(self.pool);
    }
}

/// Frees the retired pools that have all of their mbufs back.
///
/// Runs when the next pool is made, not when a handle drops: whichever thread gave the last mbuf back is done
/// with the pool's ring by then.
fn sweep() {
    let mut retired = lock(&RETIRED);
    retired.retain(|&pool| {
        let in_use = pool.available() < pool.count();
        if !in_use {
            // SAFETY: no handle is left, and every mbuf is back: nobody can reach the pool.
            unsafe { sys::rte_mempool_free(pool.0.as_ptr()) };
        }
        in_use
    });
}

/// DPDK wants a cache of at most two thirds of the pool.
fn cache_len(count: usize) -> u32 {
    (count / 2).min(CACHE_LEN) as u32
}

static RETIRED: Mutex<Vec<Raw>> = Mutex::new(Vec::new());
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A burst: what is received and sent leaves the shared ring alone. DPDK empties a cache that would hold half as many
/// again and one more.
const CACHE_LEN: usize = 256;
const _: () = assert!(CACHE_LEN <= sys::RTE_MEMPOOL_CACHE_MAX_SIZE as usize);
