//! The arrays that recvmmsg and sendmmsg work on: a vnet header, the caller's bytes and a control message a frame.

use std::mem::zeroed;
use std::ptr;

use bytemuck::Zeroable;

/// Frames in one system call.
pub const BATCH_MAX: usize = 32;

/// `struct virtio_net_hdr`, in the machine's byte order: what is left to do on a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct VnetHeader {
    /// [`VNET_NEEDS_CSUM`], [`VNET_DATA_VALID`].
    pub flags: u8,
    /// One of the `VNET_GSO_*`, with [`VNET_GSO_ECN`] or not.
    pub gso_type: u8,
    /// Length of the Ethernet, IP and TCP or UDP headers.
    pub hdr_len: u16,
    /// Payload bytes in a segment.
    pub gso_size: u16,
    /// Where the checksum begins to sum, from the start of the frame.
    pub csum_start: u16,
    /// Where its field is, from `csum_start`.
    pub csum_offset: u16,
}

/// `flags`: the checksum is to be finished.
pub const VNET_NEEDS_CSUM: u8 = 1;
/// `flags`: the checksum was looked at and is right.
pub const VNET_DATA_VALID: u8 = 2;
/// `gso_type`: one frame.
pub const VNET_GSO_NONE: u8 = 0;
/// `gso_type`: TCP over IPv4.
pub const VNET_GSO_TCPV4: u8 = 1;
/// `gso_type`: TCP over IPv6.
pub const VNET_GSO_TCPV6: u8 = 4;
/// `gso_type`: UDP datagrams of equal size.
pub const VNET_GSO_UDP_L4: u8 = 5;
/// Or-ed to a TCP `gso_type`: CWR is for the first segment only.
pub const VNET_GSO_ECN: u8 = 0x80;

/// What came with a received frame.
#[derive(Debug, Clone, Copy, Default)]
pub struct Received {
    /// Bytes in the caller's room.
    pub len: usize,
    /// What is left to do.
    pub header: VnetHeader,
    /// The 802.1Q tag that the kernel took out: ethertype and control information.
    pub vlan: Option<(u16, u16)>,
    /// True when the frame was larger than the room: what is there is not all.
    pub is_truncated: bool,
}

/// Room for what comes with received frames.
pub(super) struct Inbox {
    headers: [VnetHeader; BATCH_MAX],
    controls: [Control; BATCH_MAX],
    vectors: [[libc::iovec; 2]; BATCH_MAX],
    pub(super) messages: [libc::mmsghdr; BATCH_MAX],
}

impl Inbox {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            headers: [VnetHeader::default(); BATCH_MAX],
            controls: [Control::zeroed(); BATCH_MAX],
            vectors: [[EMPTY; 2]; BATCH_MAX],
            messages: no_messages(),
        })
    }

    /// What came with frame `index` of the last batch.
    #[inline]
    pub(super) fn received(&self, index: usize) -> Received {
        let message = &self.messages[index];
        Received {
            len: (message.msg_len as usize).saturating_sub(VNET_BYTES),
            header: self.headers[index],
            vlan: self.controls[index].vlan(message.msg_hdr.msg_controllen),
            is_truncated: message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        }
    }

    /// Points a message at each room; returns how many. All pointers are fresh with each call.
    pub(super) fn aim<'room>(&mut self, rooms: impl Iterator<Item = &'room mut [u8]>) -> usize {
        let slots = self.headers.iter_mut().zip(&mut self.controls).zip(&mut self.vectors);
        let mut count = 0;
        for (((header, control), vectors), room) in slots.zip(rooms) {
            vectors[0] = libc::iovec { iov_base: ptr::from_mut(header).cast(), iov_len: VNET_BYTES };
            vectors[1] = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
            let message = &mut self.messages[count].msg_hdr;
            message.msg_iov = vectors.as_mut_ptr();
            message.msg_iovlen = 2;
            message.msg_control = ptr::from_mut(control).cast();
            message.msg_controllen = size_of::<Control>() as _;
            count += 1;
        }
        count
    }
}

/// What goes with sent frames.
pub(super) struct Outbox {
    headers: [VnetHeader; BATCH_MAX],
    vectors: [[libc::iovec; 2]; BATCH_MAX],
    pub(super) messages: [libc::mmsghdr; BATCH_MAX],
}

impl Outbox {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            headers: [VnetHeader::default(); BATCH_MAX],
            vectors: [[EMPTY; 2]; BATCH_MAX],
            messages: no_messages(),
        })
    }

    /// Points a message at each frame; returns how many. All pointers are fresh with each call.
    pub(super) fn aim<'frame>(&mut self, frames: impl Iterator<Item = (VnetHeader, &'frame [u8])>) -> usize {
        let slots = self.headers.iter_mut().zip(&mut self.vectors);
        let mut count = 0;
        for ((header, vectors), (wanted, frame)) in slots.zip(frames) {
            *header = wanted;
            vectors[0] = libc::iovec { iov_base: ptr::from_mut(header).cast(), iov_len: VNET_BYTES };
            // The kernel does not write through what it sends.
            vectors[1] = libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() };
            let message = &mut self.messages[count].msg_hdr;
            message.msg_iov = vectors.as_mut_ptr();
            message.msg_iovlen = 2;
            count += 1;
        }
        count
    }
}

// SAFETY: the pointers inside are set anew by `aim` before each use; no one follows them in between.
unsafe impl Send for Inbox {}
// SAFETY: as for the inbox.
unsafe impl Send for Outbox {}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inbox")
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outbox")
    }
}

/// One control message: `struct cmsghdr`, then `struct tpacket_auxdata`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Control {
    len: usize,
    level: i32,
    kind: i32,
    status: u32,
    frame_len: u32,
    captured_len: u32,
    mac: u16,
    net: u16,
    vlan_tci: u16,
    vlan_tpid: u16,
    pad: u32,
}

const _: () =
    assert!(size_of::<libc::cmsghdr>() + size_of::<libc::tpacket_auxdata>() <= size_of::<Control>());

impl Control {
    #[inline(always)]
    fn vlan(&self, written: usize) -> Option<(u16, u16)> {
        let is_aux = written >= size_of::<libc::cmsghdr>()
            && self.level == libc::SOL_PACKET
            && self.kind == libc::PACKET_AUXDATA;
        if is_aux { tag(self.status, self.vlan_tci, self.vlan_tpid) } else { None }
    }
}

/// The tag that a frame had, by what its status says of it.
#[inline(always)]
pub(super) fn tag(status: u32, tci: u16, tpid: u16) -> Option<(u16, u16)> {
    let is_valid = status & libc::TP_STATUS_VLAN_VALID != 0;
    let has_tpid = status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
    is_valid.then_some((if has_tpid { tpid } else { 0x8100 }, tci))
}

fn no_messages() -> [libc::mmsghdr; BATCH_MAX] {
    // SAFETY: an mmsghdr is integers and pointers, all of which may be zero.
    unsafe { zeroed() }
}

const VNET_BYTES: usize = size_of::<VnetHeader>();
const EMPTY: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

#[cfg(test)]
mod tests {
    use super::*;

    fn auxiliary(status: u32) -> Control {
        let (level, kind) = (libc::SOL_PACKET, libc::PACKET_AUXDATA);
        Control { level, kind, status, vlan_tci: 42, vlan_tpid: 0x88a8, ..Control::zeroed() }
    }

    #[test]
    fn tags_are_read_from_auxiliary_data_only() {
        let (valid, has_tpid) = (libc::TP_STATUS_VLAN_VALID, libc::TP_STATUS_VLAN_TPID_VALID);
        let whole = size_of::<Control>();
        assert_eq!(auxiliary(valid | has_tpid).vlan(whole), Some((0x88a8, 42)));
        assert_eq!(auxiliary(valid).vlan(whole), Some((0x8100, 42)), "before Linux 3.13");
        assert_eq!(auxiliary(0).vlan(whole), None);
        assert_eq!(auxiliary(valid).vlan(0), None, "nothing was written");
        assert_eq!(Control { kind: 1, ..auxiliary(valid) }.vlan(whole), None);
    }

    #[test]
    fn a_batch_is_bounded_by_its_arrays_and_by_the_rooms() {
        let mut rooms = [[0u8; 10]; BATCH_MAX + 8];
        assert_eq!(Inbox::new().aim(rooms.iter_mut().map(<[u8; 10]>::as_mut_slice)), BATCH_MAX);
        assert_eq!(Inbox::new().aim(rooms[..3].iter_mut().map(<[u8; 10]>::as_mut_slice)), 3);
        let frames = rooms.iter().map(|room| (VnetHeader::default(), room.as_slice()));
        assert_eq!(Outbox::new().aim(frames), BATCH_MAX);
    }
}
