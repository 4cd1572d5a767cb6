//! [`Ring`]: slots that the kernel shares with us and receives frames into, without a system call a frame (packet(7),
//! `TPACKET_V2`).
//!
//! ```text
//!   │ slot: header, vnet header, frame .. │ slot │ slot │ ..        as many as fit into the ring's bytes
//!     status: the kernel's  ─ it fills the slot ─▶  ours  ─ we copy the frame out ─▶  the kernel's
//! ```
//!
//! A slot holds a frame of the interface's MTU. A larger one (GSO) is in the socket's queue, and its slot says so
//! (`PACKET_COPY_THRESH`): so frames of 64 KiB need no slots of 64 KiB, and all come in order.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use super::batch::{Received, VnetHeader, tag};
use super::set_plain;

/// The ring of one socket. The mapping lasts as long as this; the socket may be closed before.
#[derive(Debug)]
pub(super) struct Ring {
    memory: NonNull<u8>,
    bytes: usize,
    slot_bytes: usize,
    slots: usize,
    next: usize,
}

/// What a slot held.
#[derive(Debug, Clone, Copy)]
pub(super) enum Taken {
    /// A frame, now in the room.
    Frame(Received),
    /// It is next in the socket's queue.
    InQueue,
}

impl Ring {
    /// Gives `socket` a ring of about `bytes` for frames of an interface with `mtu`. Its vnet headers must be on.
    ///
    /// # Errors
    /// The kernel's; the socket then has none.
    pub(super) fn new(socket: &OwnedFd, mtu: u32, bytes: usize) -> io::Result<Self> {
        let slot_bytes = slot_bytes(mtu);
        let blocks = (bytes / BLOCK_BYTES).max(1);
        let bytes = blocks * BLOCK_BYTES;
        let slots = bytes / slot_bytes;
        let request = libc::tpacket_req {
            tp_block_size: BLOCK_BYTES as u32,
            tp_block_nr: blocks as u32,
            tp_frame_size: slot_bytes as u32,
            tp_frame_nr: slots as u32,
        };
        set_plain(socket, libc::SOL_PACKET, libc::PACKET_VERSION, &TPACKET_V2)?;
        set_plain(socket, libc::SOL_PACKET, libc::PACKET_COPY_THRESH, &1i32)?;
        set_plain(socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &plain(request))?;
        let memory = map(socket, bytes).inspect_err(|_| {
            // Without the ring frames come by the queue again.
            let none =
                libc::tpacket_req { tp_block_size: 0, tp_block_nr: 0, tp_frame_size: 0, tp_frame_nr: 0 };
            let _ = set_plain(socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &plain(none));
        })?;
        Ok(Self { memory, bytes, slot_bytes, slots, next: 0 })
    }

    /// True when a frame waits. No system call.
    #[inline]
    pub(super) fn has_frame(&self) -> bool {
        self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// Takes what waits into `room`, and gives its slot back. Only after [`Ring::has_frame`] was true.
    #[inline]
    pub(super) fn take(&mut self, room: &mut [u8]) -> Taken {
        let slot = self.slot();
        let status = self.status().load(Ordering::Acquire);
        debug_assert!(status & libc::TP_STATUS_USER != 0, "the slot is ours");
        // SAFETY: a slot begins with such a header, and is ours until we say otherwise.
        let header = unsafe { slot.cast::<SlotHeader>().read() };
        let taken = if status & libc::TP_STATUS_COPY != 0 {
            Taken::InQueue
        } else {
            Taken::Frame(self.copy(&header, status, room))
        };
        self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = if self.next + 1 == self.slots { 0 } else { self.next + 1 };
        taken
    }

    /// Copies the next slot's frame, as much of it as slot and `room` hold.
    #[inline]
    fn copy(&self, header: &SlotHeader, status: u32, room: &mut [u8]) -> Received {
        let start = usize::from(header.mac).clamp(VNET_BYTES, self.slot_bytes);
        let held = (header.captured_len as usize).min(self.slot_bytes - start);
        let len = held.min(room.len());
        // SAFETY: `start + len` is at most the slot's length; the slot is ours, and `room` is none of the ring.
        unsafe { ptr::copy_nonoverlapping(self.slot().add(start), room.as_mut_ptr(), len) };
        // SAFETY: `start` is at least the vnet header's length, which lies in front of the frame, unaligned.
        let vnet = unsafe { self.slot().add(start - VNET_BYTES).cast::<VnetHeader>().read_unaligned() };
        Received {
            len,
            header: vnet,
            vlan: tag(status, header.vlan_tci, header.vlan_tpid),
            is_truncated: len < header.frame_len as usize,
        }
    }

    fn slot(&self) -> *mut u8 {
        // SAFETY: `next` is less than the slots, which the mapping holds.
        unsafe { self.memory.as_ptr().add(self.next * self.slot_bytes) }
    }

    fn status(&self) -> &AtomicU32 {
        // SAFETY: a slot begins with its status, aligned, in memory that lives as long as the ring; the kernel changes it
        // atomically.
        unsafe { AtomicU32::from_ptr(self.slot().cast()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, of that length, and nothing points into it any more.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.bytes) };
    }
}

// SAFETY: the mapping belongs to the ring alone; it may be used from wherever the ring is.
unsafe impl Send for Ring {}

/// `struct tpacket2_hdr`.
#[derive(Clone, Copy)]
#[repr(C)]
struct SlotHeader {
    _status: u32,
    frame_len: u32,
    captured_len: u32,
    mac: u16,
    _net: u16,
    _time: [u32; 2],
    vlan_tci: u16,
    vlan_tpid: u16,
    _padding: [u8; 4],
}
const _: () = assert!(size_of::<SlotHeader>() == size_of::<libc::tpacket2_hdr>());

/// A power of two that holds a frame and what is in front of it; more than 16 KiB none needs: such a frame is in the queue.
fn slot_bytes(mtu: u32) -> usize {
    (mtu as usize + FRONT_BYTES).next_power_of_two().clamp(2048, 16 << 10)
}

fn plain(request: libc::tpacket_req) -> [u32; 4] {
    [request.tp_block_size, request.tp_block_nr, request.tp_frame_size, request.tp_frame_nr]
}

fn map(socket: &OwnedFd, bytes: usize) -> io::Result<NonNull<u8>> {
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: a new mapping, anywhere; the kernel checks that the socket has a ring of that length.
    let memory = unsafe { libc::mmap(ptr::null_mut(), bytes, access, flags, socket.as_raw_fd(), 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(memory.cast()).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

const TPACKET_V2: i32 = 1;
/// A multiple of all slots and pages.
const BLOCK_BYTES: usize = 64 << 10;
/// The slot's header, an address, the vnet header, an Ethernet header with a tag, and padding.
const FRONT_BYTES: usize = 128;
const VNET_BYTES: usize = size_of::<VnetHeader>();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_hold_a_frame_of_the_mtu_and_fill_blocks() {
        for (mtu, bytes) in
            [(68, 2048), (1500, 2048), (1920, 2048), (1921, 4096), (9000, 16384), (65535, 16384)]
        {
            assert_eq!(slot_bytes(mtu), bytes, "{mtu}");
            assert!(BLOCK_BYTES.is_multiple_of(bytes));
        }
    }
}
