//! [`Netlink`]: requests to the kernel's routing socket, one at a time, and what it answers (rtnetlink(7)).
//!
//! ```text
//!   request, answer:  Header │ what the kind of message begins with │ attributes, each: len, kind, value, padding
//! ```
//!
//! A request is plain data of a fixed shape that its sender declares. Nothing here knows what one means.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A socket of the calling thread's network namespace, wherever it is used later.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
}

/// `struct nlmsghdr`.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Header {
    len: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

impl Header {
    /// Of a request of type `T`, which begins with it.
    pub(crate) const fn of<T>(kind: u16, flags: libc::c_int) -> Self {
        let flags = (flags | libc::NLM_F_REQUEST) as u16;
        Self { len: size_of::<T>() as u32, kind, flags, sequence: 1, port: 0 }
    }
}

/// `struct rtattr`.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct AttributeHead {
    len: u16,
    kind: u16,
}

/// An attribute: its head and its value, without padding in between or behind.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, packed)]
pub(crate) struct Attribute<T> {
    head: AttributeHead,
    value: T,
}

impl<T: bytemuck::Pod> Attribute<T> {
    /// Of `kind`.
    pub(crate) const fn new(kind: u16, value: T) -> Self {
        const { assert!(size_of::<T>().is_multiple_of(4), "the next attribute begins at a multiple of four") };
        Self { head: AttributeHead { len: size_of::<Self>() as u16, kind }, value }
    }
}

impl Netlink {
    /// Opens it.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn open() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: socket takes no pointers.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just created and nothing else owns it.
        Ok(Self { socket: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Sends a request; gives the message that answers it, empty when the kernel says no more than that it is done.
    /// The kernel answers before the sending ends, so this never waits.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn ask<T: bytemuck::Pod>(&self, request: &T) -> io::Result<Vec<u8>> {
        self.send(bytemuck::bytes_of(request))?;
        let answer = self.receive()?;
        let (kind, body, _) = first_message(&answer).ok_or_else(malformed)?;
        if kind == libc::NLMSG_ERROR as u16 { done(body).map(|()| Vec::new()) } else { Ok(body.to_vec()) }
    }

    /// Sends a request for a list; true when the kernel lists anything.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn lists_any<T: bytemuck::Pod>(&self, request: &T) -> io::Result<bool> {
        self.send(bytemuck::bytes_of(request))?;
        let mut any = false;
        loop {
            let answer = self.receive()?;
            let mut rest = answer.as_slice();
            while let Some((kind, body, behind)) = first_message(rest) {
                match libc::c_int::from(kind) {
                    libc::NLMSG_DONE => return Ok(any),
                    libc::NLMSG_ERROR => return done(body).map(|()| any),
                    _ => any = true,
                }
                rest = behind;
            }
        }
    }

    fn send(&self, request: &[u8]) -> io::Result<()> {
        // SAFETY: `request` is as many readable bytes as said. An unconnected socket's peer is the kernel.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// One datagram of the kernel's.
    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut room = vec![0u8; DATAGRAM_MAX_BYTES];
        let (fd, flags) = (self.socket.as_raw_fd(), libc::MSG_DONTWAIT);
        // SAFETY: `room` is as many writable bytes as said.
        let got = unsafe { libc::recv(fd, room.as_mut_ptr().cast(), room.len(), flags) };
        if got < 0 {
            return Err(io::Error::last_os_error());
        }
        room.truncate(got as usize);
        Ok(room)
    }
}

/// The value of the first attribute of `kind` in `attributes`, with its padding off.
pub(crate) fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let head: AttributeHead = bytemuck::pod_read_unaligned(attributes.get(..size_of::<AttributeHead>())?);
        let value = attributes.get(size_of::<AttributeHead>()..usize::from(head.len))?;
        if head.kind & KIND_MASK == kind {
            return Some(value);
        }
        attributes = attributes.get(usize::from(head.len).next_multiple_of(4)..)?;
    }
}

/// The first message's kind, what follows its header, and what follows the message.
fn first_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let header: Header = bytemuck::pod_read_unaligned(bytes.get(..size_of::<Header>())?);
    let len = header.len as usize;
    let body = bytes.get(size_of::<Header>()..len)?;
    Some((header.kind, body, bytes.get(len.next_multiple_of(4)..).unwrap_or_default()))
}

/// `struct nlmsgerr`: minus the error, or 0.
fn done(body: &[u8]) -> io::Result<()> {
    let code = body.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)).ok_or_else(malformed)?;
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "netlink: half a message")
}

/// What the kernel puts into one at most.
const DATAGRAM_MAX_BYTES: usize = 32 << 10;
/// Without the bits that say that an attribute is nested or in network byte order.
const KIND_MASK: u16 = 0x3fff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_behind_padding_and_never_past_the_end() {
        // "abc\0" in 7 bytes and one of padding, then 4 bytes.
        let bytes = [&[7, 0, 1, 0][..], b"abc", &[0], &[8, 0, 2, 0x80], &[1, 2, 3, 4]].concat();
        assert_eq!(attribute(&bytes, 1), Some(&b"abc"[..]));
        assert_eq!(attribute(&bytes, 2), Some(&[1, 2, 3, 4][..]), "the nested bit is not of the kind");
        assert_eq!(attribute(&bytes, 3), None);
        for len in 0..bytes.len() {
            assert_eq!(attribute(&bytes[..len], 2), None, "{len} bytes");
        }
        assert_eq!(attribute(&[0, 0, 9, 0, 1, 1, 1, 1], 1), None, "shorter than its own head");
    }

    #[test]
    fn messages_end_where_they_say() {
        let message = Header { len: 20, kind: 2, flags: 0, sequence: 1, port: 0 };
        let bytes = [bytemuck::bytes_of(&message), &(-17i32).to_ne_bytes()].concat();
        let (kind, body, rest) = first_message(&bytes).unwrap();
        assert_eq!((kind, rest.len()), (2, 0));
        assert_eq!(done(body).unwrap_err().raw_os_error(), Some(17));
        for len in 0..bytes.len() {
            assert!(first_message(&bytes[..len]).is_none(), "{len} bytes");
        }
    }

    #[test]
    fn the_kernel_answers_at_once() {
        #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
        #[repr(C)]
        struct LinkRequest {
            header: Header,
            // `struct ifinfomsg`, with the index in the second word.
            link: [i32; 4],
        }
        let ask = |flags, index| {
            let header = Header::of::<LinkRequest>(libc::RTM_GETLINK, flags);
            LinkRequest { header, link: [0, index, 0, 0] }
        };
        let netlink = Netlink::open().unwrap();
        assert!(netlink.lists_any(&ask(libc::NLM_F_DUMP, 0)).unwrap(), "there is a loopback");
        let none = netlink.ask(&ask(0, 0x7fff_fff0)).unwrap_err();
        assert_eq!(none.raw_os_error(), Some(libc::ENODEV));
        let loopback = netlink.ask(&ask(0, 1)).unwrap();
        assert_eq!(attribute(&loopback[16..], libc::IFLA_IFNAME), Some(&b"lo\0"[..]));
    }
}
