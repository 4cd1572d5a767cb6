//! [`Frame`]: one Ethernet frame and what its driver knows about it, whoever owns the memory.
//!
//! ```text
//!   headroom │ dst mac  src mac  [802.1Q]  ethertype │ IP … payload │ room behind
//!            ^ bytes()[0]                                           ^ len
//! ```
//!
//! The tag, where there is one, is inline: drivers that get it out of band put it back. Frames may be larger
//! than the MTU when `offload.segmentation` is set (GSO), up to 64 KiB of IP.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use crossbeam::queue::ArrayQueue;
pub use sluice_ffi::memory::Backing;
use sluice_ffi::memory::{Chunks, Pages};

/// Frames that a driver gives at once, at most. What a burst costs by itself, two rings to look at and their
/// counters to write where another core reads, is shared by so many.
pub const BURST_MAX: usize = 256;

/// Bytes kept free in front of a received frame, for a longer link header than it came with.
pub const HEADROOM_BYTES: usize = 128;

/// The largest frame: 64 KiB of IP behind an Ethernet header with one tag.
pub const FRAME_MAX_BYTES: usize = 65_535 + 18;

/// One frame. Dropping it gives the memory back to whoever it came from.
pub struct Frame {
    storage: Storage,
    /// What the hardware or the peer left undone, and must still be true on the way out.
    pub offload: Offload,
}

enum Storage {
    Heap(Chunk),
    #[cfg(feature = "dpdk")]
    Mbuf(sluice_ffi::dpdk::Mbuf),
}

/// Work on a frame that is left to the sender's hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    /// State of the TCP or UDP checksum.
    pub checksum: Checksum,
    /// Set when the frame stands for several segments.
    pub segmentation: Option<Segmentation>,
}

/// State of a frame's TCP or UDP checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksum {
    /// As it was on the wire, right or wrong; nobody has looked.
    #[default]
    Unchecked,
    /// Looked at and right.
    Verified,
    /// The field at `start + offset` holds the pseudo-header's sum only (not complemented): whoever puts the
    /// frame on a wire sums from `start` to the end and stores the complement there. Both in bytes, `start` from
    /// the first byte of the frame.
    Partial {
        /// Where the TCP or UDP header begins.
        start: u16,
        /// Where in that header the checksum field is.
        offset: u16,
    },
}

/// How a super-frame is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segmentation {
    /// What the segments are.
    pub kind: SegmentKind,
    /// True when the first segment alone carries CWR (RFC 3168 section 6.1.2).
    pub ecn: bool,
    /// Payload bytes in each segment but the last.
    pub payload_bytes: u16,
}

/// What a super-frame is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams of equal size (UDP_SEGMENT).
    Udp,
}

impl Frame {
    /// The frame, from its Ethernet header on.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        match &self.storage {
            Storage::Heap(chunk) => chunk.bytes(),
            #[cfg(feature = "dpdk")]
            Storage::Mbuf(mbuf) => mbuf.bytes(),
        }
    }

    /// The frame, to be changed in place.
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.storage {
            Storage::Heap(chunk) => chunk.bytes_mut(),
            #[cfg(feature = "dpdk")]
            Storage::Mbuf(mbuf) => mbuf.bytes_mut(),
        }
    }

    /// Length in bytes, Ethernet header included, frame check sequence not.
    #[inline(always)]
    #[expect(clippy::len_without_is_empty, reason = "a frame is never empty on purpose")]
    pub fn len(&self) -> usize {
        match &self.storage {
            Storage::Heap(chunk) => chunk.0.as_ref().map_or(0, |held| (held.end - held.start) as usize),
            #[cfg(feature = "dpdk")]
            Storage::Mbuf(mbuf) => mbuf.len(),
        }
    }

    /// Cuts `count` bytes off the front, all of it at most. A partial checksum's start moves along.
    #[inline]
    pub fn trim_front(&mut self, count: usize) {
        let count = count.min(self.len());
        match &mut self.storage {
            Storage::Heap(chunk) => chunk.change(|held| held.start += count as u32),
            #[cfg(feature = "dpdk")]
            Storage::Mbuf(mbuf) => mbuf.trim_front(count),
        }
        if let Checksum::Partial { start, .. } = &mut self.offload.checksum {
            *start = start.saturating_sub(count as u16);
        }
    }

    /// Makes room for `count` bytes in front, their content undefined. False, and nothing changes, when the
    /// headroom is used up.
    #[inline]
    #[must_use]
    pub fn prepend(&mut self, count: usize) -> bool {
        let done = match &mut self.storage {
            Storage::Heap(chunk) => chunk.prepend(count as u32),
            #[cfg(feature = "dpdk")]
            Storage::Mbuf(mbuf) => mbuf.prepend(count),
        };
        if let (true, Checksum::Partial { start, .. }) = (done, &mut self.offload.checksum) {
            *start += count as u16;
        }
        done
    }

    /// Cuts the end off so that `len` bytes remain; a shorter frame stays as it is.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        if len >= self.len() {
            return;
        }
        match &mut self.storage {
            Storage::Heap(chunk) => chunk.change(|held| held.end = held.start + len as u32),
            #[cfg(feature = "dpdk")]
            Storage::Mbuf(mbuf) => mbuf.truncate(len),
        }
    }

    /// The whole room behind the first byte, for a driver that receives into it; follow with [`Frame::set_len`].
    /// `None` for driver-owned memory.
    pub fn room_mut(&mut self) -> Option<&mut [u8]> {
        match &mut self.storage {
            Storage::Heap(chunk) => chunk.room_mut(),
            #[cfg(feature = "dpdk")]
            Storage::Mbuf(_) => None,
        }
    }

    /// Says how many bytes of [`Frame::room_mut`] are the frame. At most the room.
    pub fn set_len(&mut self, len: usize) {
        match &mut self.storage {
            Storage::Heap(chunk) => {
                chunk.change(|held| held.end = (held.start as usize + len).min(held.memory.len()) as u32);
            }
            #[cfg(feature = "dpdk")]
            Storage::Mbuf(mbuf) => mbuf.truncate(len),
        }
    }

    /// Wraps a received mbuf.
    #[cfg(feature = "dpdk")]
    #[inline(always)]
    pub fn from_mbuf(mbuf: sluice_ffi::dpdk::Mbuf, offload: Offload) -> Self {
        Self { storage: Storage::Mbuf(mbuf), offload }
    }

    /// True when the memory is DPDK's, and not our own.
    #[inline(always)]
    pub fn is_mbuf(&self) -> bool {
        match &self.storage {
            Storage::Heap(_) => false,
            #[cfg(feature = "dpdk")]
            Storage::Mbuf(_) => true,
        }
    }

    /// The mbuf, when this frame is one ([`Frame::is_mbuf`]); a frame of other memory is dropped.
    #[cfg(feature = "dpdk")]
    #[inline(always)]
    pub fn into_mbuf(self) -> Option<sluice_ffi::dpdk::Mbuf> {
        match self.storage {
            Storage::Mbuf(mbuf) => Some(mbuf),
            Storage::Heap(_) => None,
        }
    }
}

impl Default for Frame {
    /// A frame of no bytes and without memory, in the place of one that has gone on.
    #[inline(always)]
    fn default() -> Self {
        Self { storage: Storage::Heap(Chunk(None)), offload: Offload::default() }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame {{ len: {}, {:?} }}", self.len(), self.offload)
    }
}

/// A bounded store of frame memory for drivers without their own, and for packets that a worker builds.
///
/// Chunks are cut from one block when first needed and kept; each holds the largest frame plus headroom. On
/// ordinary pages only what is written becomes resident. Cloning shares the store. Taking and giving back are lock-free.
#[derive(Clone)]
pub struct FramePool {
    shared: Arc<Shared>,
}

struct Shared {
    /// The few that were given back last and are taken first, as long as there is room: they are in the cache.
    warm: ArrayQueue<Box<Held>>,
    free: ArrayQueue<Box<Held>>,
    made: AtomicUsize,
    backing: Backing,
    memory: OnceLock<Chunks>,
}

/// Held until dropped; then it goes home. One pointer, so that a frame is small and cheap to move.
struct Chunk(Option<Box<Held>>);

struct Held {
    memory: sluice_ffi::memory::Chunk,
    home: Weak<Shared>,
    start: u32,
    end: u32,
}

impl FramePool {
    /// A store of at most `frames_max` frames (at least 1), on ordinary pages.
    pub fn new(frames_max: usize) -> Self {
        Self::backed(frames_max, Backing::Ordinary)
    }

    /// A store of at most `frames_max` frames (at least 1). Its memory is taken with the first frame, or when
    /// [`FramePool::pages`] is asked for: after DPDK has had its pick of the hugepages.
    pub fn backed(frames_max: usize, backing: Backing) -> Self {
        let shared = Shared {
            warm: ArrayQueue::new(WARM_MAX),
            free: ArrayQueue::new(frames_max.max(1)),
            made: AtomicUsize::new(0),
            backing,
            memory: OnceLock::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Takes the memory if that has not happened yet, and says what kind of pages hold it.
    pub fn pages(&self) -> Pages {
        self.memory().pages()
    }

    fn memory(&self) -> &Chunks {
        self.shared.memory.get_or_init(|| Chunks::new(self.frames_max(), CHUNK_BYTES, self.shared.backing))
    }

    /// A frame of length 0 with [`HEADROOM_BYTES`] in front and room for [`FRAME_MAX_BYTES`]; `None` when all are
    /// in use. Its memory holds what was there before.
    #[inline]
    pub fn take(&self) -> Option<Frame> {
        let Shared { warm, free, .. } = &*self.shared;
        let mut held = warm.pop().or_else(|| free.pop()).or_else(|| self.make())?;
        (held.start, held.end) = (HEADROOM_BYTES as u32, HEADROOM_BYTES as u32);
        Some(Frame { storage: Storage::Heap(Chunk(Some(held))), offload: Offload::default() })
    }

    /// A frame with a copy of `bytes`; `None` when all are in use or `bytes` is longer than a frame can be.
    pub fn copy_of(&self, bytes: &[u8]) -> Option<Frame> {
        let mut frame = self.take()?;
        frame.room_mut()?.get_mut(..bytes.len())?.copy_from_slice(bytes);
        frame.set_len(bytes.len());
        Some(frame)
    }

    /// The most frames this store will hold.
    pub fn frames_max(&self) -> usize {
        self.shared.free.capacity()
    }

    /// Frames in use now.
    pub fn in_use(&self) -> usize {
        let Shared { warm, free, made, .. } = &*self.shared;
        made.load(Ordering::Relaxed).saturating_sub(warm.len() + free.len())
    }

    #[cold]
    fn make(&self) -> Option<Box<Held>> {
        let room = |made| (made < self.frames_max()).then_some(made + 1);
        self.shared.made.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        let (memory, home) = (self.memory().cut()?, Arc::downgrade(&self.shared));
        Some(Box::new(Held { memory, home, start: 0, end: 0 }))
    }
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |held| &held.memory[held.start as usize..held.end as usize])
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.as_mut().map_or(&mut [], |held| &mut held.memory[held.start as usize..held.end as usize])
    }

    fn room_mut(&mut self) -> Option<&mut [u8]> {
        self.0.as_mut().map(|held| &mut held.memory[held.start as usize..])
    }

    fn change(&mut self, change: impl FnOnce(&mut Held)) {
        if let Some(held) = &mut self.0 {
            change(held);
        }
    }

    fn prepend(&mut self, count: u32) -> bool {
        let moved = self.0.as_ref().and_then(|held| held.start.checked_sub(count));
        self.change(|held| held.start = moved.unwrap_or(held.start));
        moved.is_some()
    }
}

impl fmt::Debug for FramePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FramePool {{ in_use: {}, frames_max: {} }}", self.in_use(), self.frames_max())
    }
}

impl Drop for Chunk {
    /// Most that are dropped have gone on, and are empty.
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            give_back(held);
        }
    }
}

fn give_back(held: Box<Held>) {
    if let Some(home) = held.home.upgrade() {
        // There is room: no more chunks are made than the second queue holds.
        let _ = home.warm.push(held).or_else(|held| home.free.push(held));
    }
}

/// So many that their headers stay in the cache.
const WARM_MAX: usize = 32;

/// An odd number of cache lines, so that the headers of neighbouring chunks fall into different cache sets.
pub const CHUNK_BYTES: usize = 64 * 1029;
const _: () = assert!(CHUNK_BYTES >= HEADROOM_BYTES + FRAME_MAX_BYTES && (CHUNK_BYTES / 64) % 2 == 1);

const _: () = assert!(size_of::<Frame>() <= 32, "two moves of 16 bytes");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trimming_and_prepending_moves_the_checksum_start() {
        let pool = FramePool::new(1);
        let mut frame = pool.copy_of(&[7; 60]).unwrap();
        frame.offload.checksum = Checksum::Partial { start: 34, offset: 16 };
        frame.trim_front(14);
        assert_eq!(frame.offload.checksum, Checksum::Partial { start: 20, offset: 16 });
        assert!(frame.prepend(18));
        assert_eq!(frame.offload.checksum, Checksum::Partial { start: 38, offset: 16 });
        assert_eq!(frame.len(), 64);
        assert!(!frame.prepend(HEADROOM_BYTES), "only what is left of the headroom");
    }

    #[test]
    fn an_empty_pool_says_so_and_refills_on_drop() {
        let pool = FramePool::new(2);
        let (first, second) = (pool.take().unwrap(), pool.take().unwrap());
        assert!(pool.take().is_none());
        drop(first);
        assert!(pool.take().is_some());
        drop(second);
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn too_long_a_copy_is_refused() {
        assert!(FramePool::new(1).copy_of(&[0; CHUNK_BYTES]).is_none());
    }
}
