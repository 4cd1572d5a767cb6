//! Table memory: one zeroed block of `T`, taken at start, on hugepages where the machine has free ones.
//!
//! ```text
//!   Slab::<T>::new(n, Backing::Auto)
//!     hugepages free ──▶ MAP_HUGETLB (hugepage-rs), resident at once
//!     otherwise      ──▶ ordinary pages, zero until touched: an idle table costs nothing
//! ```
//!
//! A slab never grows, moves or holds a destructor's worth of state: `T` is plain data.

use std::alloc::Layout;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytemuck::Zeroable;

/// Where a table's memory should come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backing {
    /// Hugepages where enough are free, ordinary pages where not.
    #[default]
    Auto,
    /// Ordinary pages: nothing is resident until it is touched.
    Ordinary,
}

/// What kind of pages a slab got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// From the hugetlb pool.
    Huge,
    /// The kernel's base pages (transparent hugepages may still merge them).
    Ordinary,
}

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Pages::Huge => "huge",
            Pages::Ordinary => "ordinary",
        })
    }
}

/// A fixed slice of zero-initialised plain data.
///
/// Derefs to `[T]`. Freed on drop; destructors of `T` never run (`Zeroable` data has none worth running).
pub struct Slab<T: Zeroable> {
    start: NonNull<T>,
    len: usize,
    layout: Layout,
    pages: Pages,
}

impl<T: Zeroable> Slab<T> {
    /// Takes memory for `len` zeroed items. One mmap; ordinary pages become resident only when touched.
    ///
    /// # Panics
    /// When the machine has no memory left, or the size overflows: both happen at start, never per packet.
    pub fn new(len: usize, backing: Backing) -> Self {
        const { assert!(!std::mem::needs_drop::<T>(), "slab items are plain data") };
        let layout = Layout::array::<T>(len.max(1)).expect("table size fits the address space");
        if layout.size() == 0 {
            return Self { start: NonNull::dangling(), len, layout, pages: Pages::Ordinary };
        }
        if backing == Backing::Auto
            && layout.size() >= HUGEPAGE_WORTH_BYTES
            && hugepages_free_bytes() >= layout.size() + HUGEPAGE_WORTH_BYTES
        {
            // SAFETY: the size is not zero, checked above.
            let raw = unsafe { hugepage_rs::alloc(layout) };
            if let Some(start) = NonNull::new(raw.cast()) {
                return Self { start, len, layout, pages: Pages::Huge };
            }
        }
        Self { start: map_ordinary(layout).cast(), len, layout, pages: Pages::Ordinary }
    }

    /// What kind of pages hold this table.
    pub fn pages(&self) -> Pages {
        self.pages
    }

    /// Size of the table in bytes, resident or not.
    pub fn bytes(&self) -> usize {
        self.layout.size()
    }
}

impl<T: Zeroable> Deref for Slab<T> {
    type Target = [T];
    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `start` points to `len` items mapped for as long as self; zero bytes are a valid T (Zeroable).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Zeroable> DerefMut for Slab<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `&mut self` makes this the only view.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Zeroable> Drop for Slab<T> {
    fn drop(&mut self) {
        if self.layout.size() == 0 {
            return;
        }
        match self.pages {
            // SAFETY: allocated in `new` by the same allocator with the same layout, and not freed since.
            Pages::Huge => unsafe { hugepage_rs::dealloc(self.start.as_ptr().cast(), self.layout) },
            Pages::Ordinary => {
                // SAFETY: mapped in `new` with this length, and not unmapped since.
                unsafe { libc::munmap(self.start.as_ptr().cast(), self.layout.size()) };
            }
        }
    }
}

impl<T: Zeroable> fmt::Debug for Slab<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slab {{ len: {}, bytes: {}, pages: {} }}", self.len, self.bytes(), self.pages)
    }
}

// SAFETY: the slab owns its memory alone; it is as sendable as the items in it.
unsafe impl<T: Zeroable + Send> Send for Slab<T> {}
// SAFETY: shared access only hands out `&[T]`.
unsafe impl<T: Zeroable + Sync> Sync for Slab<T> {}

/// A block of memory that is handed out in chunks of one size, each owned on its own.
///
/// ```text
///   │ chunk 0 │ chunk 1 │ chunk 2 │ not yet cut … │      freed when the cutter and every chunk are gone
/// ```
pub struct Chunks {
    block: Arc<Slab<u8>>,
    chunk_bytes: usize,
    cut: AtomicUsize,
}

impl Chunks {
    /// Takes memory for `count` chunks of `chunk_bytes` each. One mmap; ordinary pages become resident only when
    /// touched.
    ///
    /// # Panics
    /// As [`Slab::new`].
    pub fn new(count: usize, chunk_bytes: usize, backing: Backing) -> Self {
        let bytes = count.checked_mul(chunk_bytes).expect("memory size fits the address space");
        Self { block: Arc::new(Slab::new(bytes, backing)), chunk_bytes, cut: AtomicUsize::new(0) }
    }

    /// The next chunk, zeroed; `None` when all are cut. O(1), lock-free but for one small allocation.
    pub fn cut(&self) -> Option<Chunk> {
        let end = |place: usize| place.checked_add(1)?.checked_mul(self.chunk_bytes);
        let room = |place| (end(place)? <= self.block.len()).then_some(place + 1);
        let place = self.cut.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        // SAFETY: `room` has checked that the chunk lies within the block.
        let start = unsafe { self.block.start.add(place * self.chunk_bytes) };
        Some(Chunk { start, len: self.chunk_bytes, _block: Arc::clone(&self.block) })
    }

    /// What kind of pages hold the block.
    pub fn pages(&self) -> Pages {
        self.block.pages()
    }
}

/// One chunk of a block: a fixed slice of bytes that nobody else has.
pub struct Chunk {
    start: NonNull<u8>,
    len: usize,
    /// Keeps the memory mapped.
    _block: Arc<Slab<u8>>,
}

impl Deref for Chunk {
    type Target = [u8];
    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: `start` points to `len` bytes of the block, mapped as long as self holds it; no other chunk was
        // cut from them, and nobody else looks into the block.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Chunk {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes this the only view.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

// SAFETY: a chunk is the only owner of its bytes, which are plain data.
unsafe impl Send for Chunk {}
// SAFETY: shared access only hands out `&[u8]`.
unsafe impl Sync for Chunk {}

/// Bytes in free pages of the default hugetlb pool; 0 where the kernel has none.
pub fn hugepages_free_bytes() -> usize {
    let Ok(meminfo) = std::fs::read_to_string("/proc/meminfo") else { return 0 };
    let field = |name: &str| -> usize {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()).and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    let free = field("HugePages_Free:").saturating_sub(field("HugePages_Rsvd:"));
    free * field("Hugepagesize:") * 1024
}

fn map_ordinary(layout: Layout) -> NonNull<u8> {
    assert!(layout.align() <= 4096, "mmap aligns to pages");
    // SAFETY: an anonymous private mapping of a non-zero length at an address the kernel chooses.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            layout.size(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    assert!(start != libc::MAP_FAILED, "no memory for a table of {} bytes", layout.size());
    NonNull::new(start.cast()).expect("mmap never returns null without MAP_FIXED")
}

/// Below this a table fits the TLB anyway, and a whole hugepage would be mostly waste.
const HUGEPAGE_WORTH_BYTES: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slab_is_zeroed_and_writable() {
        let mut slab = Slab::<u64>::new(10_000, Backing::Ordinary);
        assert!(slab.iter().all(|&word| word == 0));
        slab[9_999] = 7;
        assert_eq!(slab[9_999], 7);
        assert_eq!((slab.len(), slab.bytes(), slab.pages()), (10_000, 80_000, Pages::Ordinary));
    }

    #[test]
    fn empty_slab_is_an_empty_slice() {
        assert!(Slab::<u32>::new(0, Backing::Auto).is_empty());
    }

    #[test]
    fn chunks_are_separate_and_outlive_their_cutter() {
        let chunks = Chunks::new(3, 5_000, Backing::Ordinary);
        let mut cut: Vec<Chunk> = std::iter::from_fn(|| chunks.cut()).collect();
        assert_eq!((cut.len(), chunks.pages()), (3, Pages::Ordinary));
        drop(chunks);
        for (number, chunk) in cut.iter_mut().enumerate() {
            assert!(chunk.len() == 5_000 && chunk.iter().all(|&byte| byte == 0));
            chunk.fill(number as u8 + 1);
        }
        assert!(
            cut.iter().enumerate().all(|(number, chunk)| chunk.iter().all(|&byte| byte == number as u8 + 1))
        );
    }

    #[test]
    fn auto_backing_works_with_and_without_hugepages() {
        let mut slab = Slab::<[u64; 8]>::new(1 << 16, Backing::Auto);
        slab[65_535] = [3; 8];
        assert_eq!(slab[65_535], [3; 8]);
    }
}
