//! [`Mbuf`]: one packet in DPDK's memory.
//!
//! ```text
//!   buf_addr                                                       buf_len
//!   │ headroom │ data_off ……… data_len bytes ……… │ room behind │
//! ```
//!
//! Invariant, kept by this crate: an `Mbuf` is the only reference to its packet (refcnt 1), whole chain included,
//! and `data_off + data_len <= buf_len`. Fields are read straight from the generated struct; `shim.c` asserts
//! their places.

use std::fmt;
use std::ptr::NonNull;

use super::sys;

/// Owns one packet; dropping it gives the memory back to its pool. Not `Clone`: nobody shares it.
#[repr(transparent)]
pub struct Mbuf {
    raw: NonNull<sys::rte_mbuf>,
}

// SAFETY: the only reference to its packet; pools take frees from any thread.
unsafe impl Send for Mbuf {}

/// What the device says of a received packet's checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RxChecksum {
    /// It has not looked.
    Unknown,
    /// The TCP or UDP checksum is right.
    Good,
    /// The IPv4 header's, the TCP or the UDP checksum is wrong.
    Bad,
    /// The data is right, the TCP or UDP checksum field is not filled in: the peer left it to hardware.
    Unfinished,
}

/// What the device shall do to a packet on its way out. Lengths in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxWork {
    /// Ethernet header, tags included. At most 127.
    pub l2_len: u8,
    /// IP header, options and extension headers included. At most 511.
    pub l3_len: u16,
    /// TCP or UDP header.
    pub l4_len: u8,
    /// True for IPv4, false for IPv6.
    pub is_v4: bool,
    /// True for TCP, false for UDP.
    pub is_tcp: bool,
    /// Payload bytes in each segment of a TCP super-frame; 0 for one packet.
    pub segment_bytes: u16,
}

impl Mbuf {
    /// Takes over a packet.
    ///
    /// # Safety
    /// `raw` is a live mbuf with one reference, which the caller gives up.
    #[inline(always)]
    pub(super) unsafe fn from_raw(raw: NonNull<sys::rte_mbuf>) -> Self {
        Self { raw }
    }

    /// The packet; of a chain ([`Mbuf::is_chain`]) the first segment alone.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: data_len bytes from data_off on are inside the buffer, mapped, and nobody else's.
        unsafe { std::slice::from_raw_parts(self.data(), self.len()) }
    }

    /// The packet, to be changed in place.
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` makes this the only view.
        unsafe { std::slice::from_raw_parts_mut(self.data(), self.len()) }
    }

    /// Length in bytes; of a chain the first segment's.
    #[inline(always)]
    pub fn len(&self) -> usize {
        usize::from(self.header().data_len)
    }

    /// True when there is not a byte in it.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.header().data_len == 0
    }

    /// Cuts `count` bytes off the front, all of it at most.
    #[inline]
    pub fn trim_front(&mut self, count: usize) {
        let header = self.header_mut();
        let count = count.min(usize::from(header.data_len)) as u16;
        header.data_off += count;
        header.data_len -= count;
        header.pkt_len -= u32::from(count);
    }

    /// Makes room for `count` bytes in front, their content undefined. False, and nothing changes, when the
    /// headroom is used up.
    #[inline]
    #[must_use]
    pub fn prepend(&mut self, count: usize) -> bool {
        let header = self.header_mut();
        if count > usize::from(header.data_off) {
            return false;
        }
        header.data_off -= count as u16;
        header.data_len += count as u16;
        header.pkt_len += count as u32;
        true
    }

    /// Makes room for `count` bytes behind, their content undefined. False, and nothing changes, when there is
    /// not that much, or this is a chain.
    #[inline]
    #[must_use]
    pub fn append(&mut self, count: usize) -> bool {
        let header = self.header_mut();
        let end = usize::from(header.data_off) + usize::from(header.data_len);
        if header.nb_segs != 1 || count > usize::from(header.buf_len).saturating_sub(end) {
            return false;
        }
        header.data_len += count as u16;
        header.pkt_len += count as u32;
        true
    }

    /// Cuts the end off so that `len` bytes remain; a shorter packet stays as it is. Not for chains.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        let header = self.header_mut();
        if len < usize::from(header.data_len) {
            header.pkt_len -= u32::from(header.data_len) - len as u32;
            header.data_len = len as u16;
        }
    }

    /// True when the packet is in more than one piece.
    #[inline(always)]
    pub fn is_chain(&self) -> bool {
        self.header().nb_segs != 1
    }

    /// Length of the whole packet in bytes, chain included.
    #[inline(always)]
    pub fn chain_len(&self) -> usize {
        self.header().pkt_len as usize
    }

    /// Copies the whole packet to the start of `out`, as far as it fits; returns how many bytes that was.
    pub fn copy_to(&self, out: &mut [u8]) -> usize {
        let mut written = 0;
        for part in self.segments() {
            let count = part.len().min(out.len() - written);
            out[written..written + count].copy_from_slice(&part[..count]);
            written += count;
        }
        written
    }

    /// The pieces of the packet, front to back.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        let mut next = Some(self.raw);
        std::iter::from_fn(move || {
            // SAFETY: every segment of an owned chain is live, and borrowed through self.
            let header: &sys::rte_mbuf = unsafe { next?.as_ref() };
            next = NonNull::new(header.next);
            let start = header.buf_addr.cast::<u8>().wrapping_add(usize::from(header.data_off));
            // SAFETY: as in `bytes`, for this segment.
            Some(unsafe { std::slice::from_raw_parts(start, usize::from(header.data_len)) })
        })
    }

    /// What the device says of the checksums.
    #[inline(always)]
    pub fn rx_checksum(&self) -> RxChecksum {
        let (ip, l4) = (sys::RTE_MBUF_F_RX_IP_CKSUM_MASK, sys::RTE_MBUF_F_RX_L4_CKSUM_MASK);
        let flags = self.header().ol_flags as u32;
        if flags & (ip | l4) == 0 {
            return RxChecksum::Unknown;
        }
        match (flags & ip, flags & l4) {
            (sys::RTE_MBUF_F_RX_IP_CKSUM_BAD, _) | (_, sys::RTE_MBUF_F_RX_L4_CKSUM_BAD) => RxChecksum::Bad,
            (_, sys::RTE_MBUF_F_RX_L4_CKSUM_GOOD) => RxChecksum::Good,
            (_, sys::RTE_MBUF_F_RX_L4_CKSUM_NONE) => RxChecksum::Unfinished,
            _ => RxChecksum::Unknown,
        }
    }

    /// The hash that the device placed the packet by, if it says.
    pub fn hash(&self) -> Option<u32> {
        let mut hash = 0;
        // SAFETY: a live packet, ours alone; `hash` outlives the call.
        let is_there = unsafe { sys::sluice_mbuf_hash(self.raw.as_ptr(), &raw mut hash) } != 0;
        is_there.then_some(hash)
    }

    /// Forgets what a device said or was asked for: the packet goes out as it is.
    #[inline(always)]
    pub fn clear_offload(&mut self) {
        let header = self.header_mut();
        // Most have nothing to forget, and a store to every header costs more than the test.
        if header.ol_flags & !KEPT_FLAGS != 0 {
            header.ol_flags &= KEPT_FLAGS;
        }
    }

    /// Asks the device that sends this packet for `work`. The checksum field holds the pseudo-header's sum,
    /// without the length when there is segmentation.
    pub fn request(&mut self, work: &TxWork) {
        let header = self.header_mut();
        header.ol_flags = (header.ol_flags & KEPT_FLAGS) | work.flags();
        header.__bindgen_anon_3.tx_offload = work.packed();
    }

    /// Puts `second`, a single segment, right behind the first segment of this packet.
    pub(super) fn insert_second(&mut self, second: Mbuf) {
        debug_assert!(!second.is_chain());
        let mut raw = second.into_raw();
        let head = self.header_mut();
        // SAFETY: `second` was given up above, so this is the only view of it.
        let inserted = unsafe { raw.as_mut() };
        inserted.next = head.next;
        head.next = raw.as_ptr();
        head.nb_segs += 1;
        head.pkt_len += u32::from(inserted.data_len);
    }

    /// Gives the packet up without freeing it.
    #[inline(always)]
    pub(super) fn into_raw(self) -> NonNull<sys::rte_mbuf> {
        let raw = self.raw;
        std::mem::forget(self);
        raw
    }

    /// Asks for the cache line of the header.
    #[inline(always)]
    pub(super) fn prefetch_header(raw: NonNull<sys::rte_mbuf>) {
        // SAFETY: the pointer is to a live mbuf header; nothing of it is read.
        crate::hint::prefetch(unsafe { raw.as_ref() });
    }

    #[inline(always)]
    fn data(&self) -> *mut u8 {
        let header = self.header();
        header.buf_addr.cast::<u8>().wrapping_add(usize::from(header.data_off))
    }

    #[inline(always)]
    fn header(&self) -> &sys::rte_mbuf {
        // SAFETY: live and owned by self alone.
        unsafe { self.raw.as_ref() }
    }

    #[inline(always)]
    fn header_mut(&mut self) -> &mut sys::rte_mbuf {
        // SAFETY: live and owned by self alone, which is borrowed mutably.
        unsafe { self.raw.as_mut() }
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: live, owned by self alone, and never used again.
        unsafe { sys::sluice_mbuf_free(self.raw.as_ptr()) };
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.header();
        write!(f, "Mbuf {{ len: {}, segments: {} }}", header.pkt_len, header.nb_segs)
    }
}

impl TxWork {
    fn flags(&self) -> u64 {
        let family = if self.is_v4 { sys::RTE_MBUF_F_TX_IPV4 } else { sys::RTE_MBUF_F_TX_IPV6 };
        let l4 = if self.is_tcp { sys::RTE_MBUF_F_TX_TCP_CKSUM } else { sys::RTE_MBUF_F_TX_UDP_CKSUM };
        if self.segment_bytes == 0 {
            return family | l4;
        }
        // Every segment has its own IPv4 header, and so its own header checksum.
        let header = if self.is_v4 { sys::RTE_MBUF_F_TX_IP_CKSUM } else { 0 };
        family | l4 | sys::RTE_MBUF_F_TX_TCP_SEG | header
    }

    fn packed(&self) -> u64 {
        u64::from(self.l2_len)
            | u64::from(self.l3_len) << L3_SHIFT
            | u64::from(self.l4_len) << L4_SHIFT
            | u64::from(self.segment_bytes) << SEGMENT_SHIFT
    }
}

/// Flags that say whose memory the data is in, not what to do with it.
const KEPT_FLAGS: u64 = sys::RTE_MBUF_F_EXTERNAL | sys::RTE_MBUF_F_INDIRECT;

/// Where `tx_offload` keeps its fields; a test holds them against `rte_mbuf_tx_offload`.
const L3_SHIFT: u32 = 7;
const L4_SHIFT: u32 = 16;
const SEGMENT_SHIFT: u32 = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tx_offload_is_packed_as_dpdk_packs_it() {
        for (l2_len, l3_len, l4_len, segment_bytes) in
            [(14, 20, 20, 1460), (18, 40, 32, 0), (127, 511, 255, 65535)]
        {
            let work = TxWork { l2_len, l3_len, l4_len, is_v4: true, is_tcp: true, segment_bytes };
            let [l2, l3, l4, segment] = [l2_len.into(), l3_len.into(), l4_len.into(), segment_bytes.into()];
            // SAFETY: packs four numbers.
            let expected = unsafe { sys::sluice_tx_offload(l2, l3, l4, segment) };
            assert_eq!(work.packed(), expected);
        }
    }

    #[test]
    fn an_mbuf_is_a_pointer() {
        assert_eq!(size_of::<Mbuf>(), size_of::<usize>());
        assert_eq!(size_of::<Option<Mbuf>>(), size_of::<usize>());
        assert_eq!((size_of::<sys::rte_mbuf>(), align_of::<sys::rte_mbuf>()), (128, 64));
    }
}
