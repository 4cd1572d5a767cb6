//! What the kernel knows of a network interface: index, address, MTU, link. Asked through a socket, so the answer
//! is that of the socket's network namespace, whatever the calling thread's is.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use bytemuck::Zeroable;

/// Facts of one Ethernet interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number for it; a deleted and re-made interface has another.
    pub index: u32,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// False for what carries no Ethernet header (tunnels, `lo`).
    pub is_ethernet: bool,
}

impl Interface {
    /// Looks `name` up in the namespace of `socket`, which may be of any family.
    ///
    /// # Errors
    /// The kernel's; `ENODEV` when there is no such interface.
    pub fn by_name(socket: &impl AsFd, name: &str) -> io::Result<Self> {
        let index = ask(socket, libc::SIOCGIFINDEX, Request::named(name)?)?.int();
        let mtu = ask(socket, libc::SIOCGIFMTU, Request::named(name)?)?.int();
        let address = ask(socket, libc::SIOCGIFHWADDR, Request::named(name)?)?.value;
        let [family_low, family_high, a, b, c, d, e, f, ..] = address;
        Ok(Self {
            index: index as u32,
            mac: [a, b, c, d, e, f],
            mtu: mtu as u32,
            is_ethernet: u16::from_ne_bytes([family_low, family_high]) == libc::ARPHRD_ETHER,
        })
    }
}

/// True when interface `index` exists, is up and has carrier. Two system calls.
pub fn is_link_up(socket: &impl AsFd, index: u32) -> bool {
    let by_index = Request { value: padded(&index.to_ne_bytes()), ..Request::zeroed() };
    let Ok(named) = ask(socket, libc::SIOCGIFNAME, by_index) else { return false };
    let Ok(flags) = ask(socket, libc::SIOCGIFFLAGS, Request { name: named.name, value: [0; 24] }) else {
        return false;
    };
    let flags = i32::from(u16::from_ne_bytes([flags.value[0], flags.value[1]]));
    let wanted = libc::IFF_UP | libc::IFF_RUNNING;
    flags & wanted == wanted
}

/// The largest IP packet of interface `index` now; `None` when it is gone. Two system calls.
pub fn mtu(socket: &impl AsFd, index: u32) -> Option<u32> {
    let by_index = Request { value: padded(&index.to_ne_bytes()), ..Request::zeroed() };
    let named = ask(socket, libc::SIOCGIFNAME, by_index).ok()?;
    let said = ask(socket, libc::SIOCGIFMTU, Request { name: named.name, value: [0; 24] }).ok()?;
    u32::try_from(said.int()).ok()
}

/// `struct ifreq`, its union as bytes.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(8))]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    value: [u8; 24],
}
const _: () = assert!(size_of::<Request>() >= size_of::<libc::ifreq>());

impl Request {
    fn named(name: &str) -> io::Result<Self> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        Ok(Self { name: padded(name.as_bytes()), value: [0; 24] })
    }

    fn int(&self) -> i32 {
        i32::from_ne_bytes([self.value[0], self.value[1], self.value[2], self.value[3]])
    }
}

fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut padded = [0; N];
    padded[..bytes.len()].copy_from_slice(bytes);
    padded
}

fn ask(socket: &impl AsFd, what: libc::Ioctl, mut request: Request) -> io::Result<Request> {
    // SAFETY: each `what` used here reads and writes one ifreq, and `request` is at least that large.
    let done = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), what, &raw mut request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(request) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn loopback_is_found_and_is_not_ethernet() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let interface = Interface::by_name(&socket, "lo").unwrap();
        assert!(interface.index > 0 && interface.mtu >= 1500 && !interface.is_ethernet);
        assert_eq!(mtu(&socket, interface.index), Some(interface.mtu));
        assert_eq!(mtu(&socket, u32::MAX), None);
    }

    #[test]
    fn unknown_and_overlong_names_are_no_device() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for name in ["no-such-if0", "", "a-name-that-is-far-too-long"] {
            let error = Interface::by_name(&socket, name).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{name:?}");
        }
    }

    #[test]
    fn an_index_that_does_not_exist_has_no_link() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(!is_link_up(&socket, 0x7fff_fff0));
    }
}
