//! The hot half of a device: one receive and one send queue, each one thread's at a time.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

use super::ethdev::Device;
use super::{Mbuf, sys};

/// Packets received or sent at once, at most.
pub const BURST_MAX: usize = 256;

/// A device's receive queue.
pub struct RxQueue {
    port: u16,
    queue: u16,
    device: Arc<Device>,
    _not_sync: PhantomData<Cell<()>>,
}

/// A device's send queue.
pub struct TxQueue {
    port: u16,
    queue: u16,
    device: Arc<Device>,
    _not_sync: PhantomData<Cell<()>>,
}

/// Up to [`BURST_MAX`] packets on their way out, oldest first.
pub struct Burst {
    /// `raw[..len]` are owned packets, the rest is not initialised.
    raw: [MaybeUninit<NonNull<sys::rte_mbuf>>; BURST_MAX],
    /// len <= BURST_MAX
    len: usize,
}

// SAFETY: owns its packets as so many `Mbuf`s would.
unsafe impl Send for Burst {}

/// Pushes to a [`Burst`].
pub struct BurstWriter<'a> {
    burst: &'a mut Burst,
    /// burst.raw[..len] are owned packets; at least burst.len.
    len: usize,
}

impl RxQueue {
    /// The only receive queue `queue` of `device`; `ethdev` makes each once.
    pub(super) fn new(device: Arc<Device>, queue: u16) -> Self {
        Self { port: device.port(), queue, device, _not_sync: PhantomData }
    }

    /// Receives up to `most` packets ([`BURST_MAX`] at most) and gives each to `take`, oldest first; returns how many.
    /// Never blocks.
    #[inline(always)]
    pub fn rx(&mut self, most: usize, mut take: impl FnMut(Mbuf)) -> usize {
        let most = most.min(BURST_MAX);
        let mut raw = [const { MaybeUninit::<NonNull<sys::rte_mbuf>>::uninit() }; BURST_MAX];
        // SAFETY: the device runs while self.device lives; the queue exists, and `&mut self` is its only user.
        let count =
            unsafe { sys::sluice_rx_burst(self.port, self.queue, raw.as_mut_ptr().cast(), most as u16) };
        let count = usize::from(count).min(most);
        for index in 0..count {
            if index + 2 < count {
                // SAFETY: the driver has filled the first `count`.
                Mbuf::prefetch_header(unsafe { raw[index + 2].assume_init() });
            }
            // SAFETY: the driver has filled the first `count`.
            let one = unsafe { raw[index].assume_init() };
            // SAFETY: received packets have one reference, which the driver has given up.
            take(unsafe { Mbuf::from_raw(one) });
        }
        count
    }
}

impl TxQueue {
    /// The only send queue `queue` of `device`; `ethdev` makes each once.
    pub(super) fn new(device: Arc<Device>, queue: u16) -> Self {
        Self { port: device.port(), queue, device, _not_sync: PhantomData }
    }

    /// Sends packets from the front of `burst`, in order; returns how many. The rest stay. Never blocks.
    #[inline(always)]
    pub fn tx(&mut self, burst: &mut Burst) -> usize {
        let raw = burst.raw.as_mut_ptr().cast::<*mut sys::rte_mbuf>();
        // SAFETY: the device runs while self.device lives; the queue exists, and `&mut self` is its only user;
        // the first `len` are packets.
        let sent = unsafe { sys::sluice_tx_burst(self.port, self.queue, raw, burst.len as u16) };
        // The driver owns these now.
        burst.forget_front(usize::from(sent));
        usize::from(sent)
    }

    /// Lets the driver check and complete packets with [`super::TxWork`] on them; returns how many from the front
    /// it will take. The one behind those must not be sent.
    pub fn prepare(&mut self, burst: &mut Burst) -> usize {
        let raw = burst.raw.as_mut_ptr().cast::<*mut sys::rte_mbuf>();
        // SAFETY: as in `tx`; the packets stay ours.
        usize::from(unsafe { sys::sluice_tx_prepare(self.port, self.queue, raw, burst.len as u16) })
    }
}

impl Burst {
    /// An empty burst.
    pub const fn new() -> Self {
        Self { raw: [const { MaybeUninit::uninit() }; BURST_MAX], len: 0 }
    }

    /// For pushing many: the length stays in a register, and is the burst's when the writer goes.
    #[inline(always)]
    pub fn writer(&mut self) -> BurstWriter<'_> {
        BurstWriter { len: self.len, burst: self }
    }

    /// Puts a packet behind the others; it comes back when the burst is full.
    ///
    /// # Errors
    /// The packet.
    #[inline(always)]
    pub fn push(&mut self, mbuf: Mbuf) -> Result<(), Mbuf> {
        match self.raw.get_mut(self.len) {
            Some(slot) => {
                slot.write(mbuf.into_raw());
                self.len += 1;
                Ok(())
            }
            None => Err(mbuf),
        }
    }

    /// Packets in it.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without packets.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True when not one more fits.
    #[inline(always)]
    pub fn is_full(&self) -> bool {
        self.len == BURST_MAX
    }

    /// Takes the newest packet out.
    #[inline]
    pub fn pop(&mut self) -> Option<Mbuf> {
        self.remove(self.len.checked_sub(1)?)
    }

    /// Takes the packet at `index` out; those behind it move up.
    pub fn remove(&mut self, index: usize) -> Option<Mbuf> {
        let packets = &mut self.raw[..self.len];
        // SAFETY: the first `len` are initialised.
        let removed = unsafe { packets.get(index)?.assume_init() };
        packets[index..].rotate_left(1);
        self.len -= 1;
        // SAFETY: an owned packet, no longer in the burst.
        Some(unsafe { Mbuf::from_raw(removed) })
    }

    /// Forgets the first `count` packets, which are the driver's now.
    #[inline(always)]
    fn forget_front(&mut self, count: usize) {
        let left = self.len.saturating_sub(count);
        if left > 0 {
            self.raw[..self.len].rotate_left(count);
        }
        self.len = left;
    }
}

impl BurstWriter<'_> {
    /// Puts a packet behind the others; one too many is dropped.
    #[inline(always)]
    pub fn push(&mut self, mbuf: Mbuf) {
        if let Some(slot) = self.burst.raw.get_mut(self.len) {
            slot.write(mbuf.into_raw());
            self.len += 1;
        }
    }
}

impl Drop for BurstWriter<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.burst.len = self.len;
    }
}

impl Default for Burst {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Burst {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

impl fmt::Debug for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Burst {{ len: {} }}", self.len)
    }
}

impl fmt::Debug for RxQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RxQueue {{ {:?}, queue: {} }}", self.device, self.queue)
    }
}

impl fmt::Debug for TxQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TxQueue {{ {:?}, queue: {} }}", self.device, self.queue)
    }
}
