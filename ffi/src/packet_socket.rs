//! [`PacketSocket`]: every frame of one interface, in batches, with the offload state that the kernel keeps beside
//! it (packet(7), `struct virtio_net_hdr`).
//!
//! ```text
//!   ring ─────▶ the caller's room                            frames of the MTU, without a system call
//!   recvmmsg ─▶ 32 × { iovec 0: vnet header │ iovec 1: the caller's room │ control: VLAN tag }
//!                                                            larger ones; all where the kernel has no ring for us
//!   sendmmsg ◀─ 32 × { iovec 0: vnet header │ iovec 1: the caller's frame }
//! ```
//!
//! Ring and arrays are taken when the socket is opened. Nothing here looks into a frame.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use bytemuck::Zeroable;

use crate::bpf::SocketProgram;
use crate::interface::{self, Interface};

mod batch;
mod ring;

pub use batch::{
    BATCH_MAX, Received, VNET_DATA_VALID, VNET_GSO_ECN, VNET_GSO_NONE, VNET_GSO_TCPV4, VNET_GSO_TCPV6,
    VNET_GSO_UDP_L4, VNET_NEEDS_CSUM, VnetHeader,
};
use batch::{Inbox, Outbox};
use ring::{Ring, Taken};

/// One instruction of a classic BPF program.
pub type FilterInstruction = libc::sock_filter;

/// A raw packet socket bound to one interface. Hears nothing before [`PacketSocket::start`].
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
    interface: Interface,
    ring: Option<Ring>,
    /// Receives in a row for which the ring had nothing.
    empty: u32,
    /// What came with the frames of the last receive.
    received: [Received; BATCH_MAX],
    inbox: Box<Inbox>,
    outbox: Box<Outbox>,
}

/// How a group of sockets shares the frames of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FanoutMode {
    /// By the kernel's flow hash, equal for both directions.
    Hash,
    /// By a program that returns the number of the socket: see [`PacketSocket::set_fanout_program`].
    Program,
    /// The same by a [`SocketProgram`]: see [`PacketSocket::set_fanout_socket_program`].
    SocketProgram,
}

/// A fanout group that sockets join; gone with its last socket. Members are numbered in the order they joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FanoutGroup {
    id: u16,
    mode: FanoutMode,
}

/// Why frames could not be received or sent just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Receiving: no frame waits. Sending: the socket's send buffer is full until the device has sent some.
    WouldBlock,
    /// Sending: the device or its queueing discipline had no room, or threw the frame away, without saying which.
    NoBuffers,
    /// The interface is down or gone.
    LinkDown,
    /// The kernel will not take (or could not describe) this one frame, and would not the next time.
    BadFrame,
}

impl Refusal {
    fn last() -> Self {
        Self::of(io::Error::last_os_error().raw_os_error().unwrap_or_default())
    }

    fn of(error: libc::c_int) -> Self {
        match error {
            libc::EAGAIN | libc::EINTR => Refusal::WouldBlock,
            libc::ENOBUFS | libc::ENOMEM => Refusal::NoBuffers,
            libc::ENETDOWN | libc::ENXIO | libc::ENODEV => Refusal::LinkDown,
            _ => Refusal::BadFrame,
        }
    }
}

/// Why a packet socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// No interface has that name in this network namespace.
    #[error("no such interface")]
    NoSuchInterface,
    /// The process may not.
    #[error("not permitted: packet sockets need CAP_NET_RAW in the interface's network namespace")]
    NotPermitted,
    /// The interface carries no Ethernet frames.
    #[error("not an Ethernet interface")]
    NotEthernet,
    /// Anything else the kernel said.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl PacketSocket {
    /// Opens a socket on `interface` with receive and send buffers of `buffer_bytes` (less where the process may
    /// not exceed the system's maximum), and a ring of `ring_bytes` (0: none), if the kernel has one for us. It takes
    /// all multicast, and its own side's frames never.
    ///
    /// # Errors
    /// [`PacketError`].
    pub fn open(interface: &str, buffer_bytes: u32, ring_bytes: usize) -> Result<Self, PacketError> {
        let socket = new_socket()?;
        let interface = facts(&socket, interface)?;
        let (inbox, outbox, received) = (Inbox::new(), Outbox::new(), [Received::default(); BATCH_MAX]);
        let mut opened = Self { socket, interface, ring: None, empty: 0, received, inbox, outbox };
        opened.set("PACKET_VNET_HDR", libc::PACKET_VNET_HDR, &1i32)?;
        opened.set("PACKET_AUXDATA", libc::PACKET_AUXDATA, &1i32)?;
        opened.set("PACKET_IGNORE_OUTGOING", libc::PACKET_IGNORE_OUTGOING, &1i32)?;
        opened.take_multicast()?;
        opened.size_buffers(buffer_bytes as i32)?;
        opened.set_filter(&[NOTHING])?;
        opened.bind()?;
        if ring_bytes > 0 {
            opened.ring = Ring::new(&opened.socket, opened.interface.mtu, ring_bytes).ok();
        }
        Ok(opened)
    }

    /// Facts of the interface when the socket was opened.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// True when frames come by a ring.
    pub fn has_ring(&self) -> bool {
        self.ring.is_some()
    }

    /// Founds a fanout group with this socket as member 0.
    ///
    /// # Errors
    /// [`PacketError::System`].
    pub fn found_group(&self, mode: FanoutMode) -> Result<FanoutGroup, PacketError> {
        let unset = FanoutGroup { id: 0, mode };
        self.set("PACKET_FANOUT", libc::PACKET_FANOUT, &(unset.word() | FANOUT_FLAG_UNIQUE_ID))?;
        let mut word = 0u32;
        self.read_option(libc::PACKET_FANOUT, &mut word).map_err(system("PACKET_FANOUT"))?;
        Ok(FanoutGroup { id: word as u16, mode })
    }

    /// Joins a group that another socket on the same interface founded.
    ///
    /// # Errors
    /// [`PacketError::System`].
    pub fn join_group(&self, group: FanoutGroup) -> Result<(), PacketError> {
        self.set("PACKET_FANOUT", libc::PACKET_FANOUT, &group.word())
    }

    /// Sets the classic BPF program of this socket's group ([`FanoutMode::Program`]): what it returns, modulo the
    /// members, is the number of the socket that gets the frame. Without one all goes to member 0. The program's
    /// offsets count from the network header (`SKF_NET_OFF` says so outright); a first tag is out of the way.
    ///
    /// # Errors
    /// [`PacketError::System`].
    pub fn set_fanout_program(&self, program: &[FilterInstruction]) -> Result<(), PacketError> {
        let program = as_program(program);
        // SAFETY: the program names live instructions for the length of the call; the kernel copies them.
        check(unsafe { set_option(&self.socket, libc::SOL_PACKET, libc::PACKET_FANOUT_DATA, &program) })
            .map_err(system("PACKET_FANOUT_DATA"))
    }

    /// Sets the program of this socket's group ([`FanoutMode::SocketProgram`]). What it says, modulo the members, is
    /// the number of the socket that gets the frame. The kernel keeps it as long as the group.
    ///
    /// # Errors
    /// [`PacketError::System`].
    pub fn set_fanout_socket_program(&self, program: &SocketProgram) -> Result<(), PacketError> {
        let descriptor = program.as_fd().as_raw_fd();
        self.set("PACKET_FANOUT_DATA", libc::PACKET_FANOUT_DATA, &descriptor)
    }

    /// Begins to hear frames, in a group. Until then none is queued, so that its members begin without doubles.
    ///
    /// # Errors
    /// [`PacketError::System`].
    pub fn start(&self) -> Result<(), PacketError> {
        self.set_filter(&NOT_OUTGOING)
    }

    /// [`PacketSocket::start`] of a socket without a group: outgoing frames do not reach it anyway, so it needs no filter,
    /// which would be run for each frame.
    ///
    /// # Errors
    /// [`PacketError::System`].
    pub fn start_alone(&self) -> Result<(), PacketError> {
        set_plain(&self.socket, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &0i32)
            .map_err(system("SO_DETACH_FILTER"))
    }

    /// Receives a frame into each of `rooms`, at most [`BATCH_MAX`], as many as wait; returns how many. Never
    /// blocks. One system call without a ring; with one, one for each frame that is larger than the MTU.
    ///
    /// # Errors
    /// [`Refusal::WouldBlock`] when none waits; [`Refusal::LinkDown`] once after the link went down;
    /// [`Refusal::BadFrame`] when the kernel dropped one that no vnet header can describe.
    pub fn receive<'room>(
        &mut self,
        mut rooms: impl Iterator<Item = &'room mut [u8]>,
    ) -> Result<usize, Refusal> {
        if self.ring.is_none() {
            return self.receive_queued(0, rooms);
        }
        let mut count = 0;
        while count < BATCH_MAX && self.ring.as_ref().is_some_and(Ring::has_frame) {
            let (Some(room), Some(ring)) = (rooms.next(), &mut self.ring) else { break };
            match ring.take(room) {
                Taken::Frame(received) => self.received[count] = received,
                Taken::InQueue => self.receive_large(count, room),
            }
            count += 1;
        }
        if count == 0 { Err(self.on_empty()) } else { Ok(count) }
    }

    /// The frame that the ring said is next in the queue. Should it not be there, it is one cut off.
    fn receive_large(&mut self, index: usize, room: &mut [u8]) {
        // The first may tell of a link that went down.
        for _ in 0..2 {
            if self.receive_queued(index, std::iter::once(&mut *room)) == Ok(1) {
                return;
            }
        }
        self.received[index] = Received { is_truncated: true, ..Received::default() };
    }

    /// What is wrong when the ring is empty: mostly nothing, so we ask the socket now and then. It would else be readable
    /// for good.
    fn on_empty(&mut self) -> Refusal {
        self.empty = self.empty.wrapping_add(1);
        if !self.empty.is_multiple_of(EMPTY_BEFORE_ASKING) {
            return Refusal::WouldBlock;
        }
        let mut error = 0i32;
        match self.read_level(libc::SOL_SOCKET, libc::SO_ERROR, &mut error) {
            Ok(()) if error != 0 => Refusal::of(error),
            _ => Refusal::WouldBlock,
        }
    }

    /// Receives from the socket's queue; what comes is `first` and the following of this batch.
    fn receive_queued<'room>(
        &mut self,
        first: usize,
        rooms: impl Iterator<Item = &'room mut [u8]>,
    ) -> Result<usize, Refusal> {
        let count = self.inbox.aim(rooms);
        if count == 0 {
            return Ok(0);
        }
        let messages = self.inbox.messages.as_mut_ptr();
        // SAFETY: `aim` has just set the first `count` messages to our own headers and control room and to the
        // caller's rooms, all of which outlive the call.
        let got = unsafe {
            let fd = self.socket.as_raw_fd();
            libc::recvmmsg(fd, messages, count as u32, libc::MSG_DONTWAIT, ptr::null_mut())
        };
        if got < 0 {
            return Err(Refusal::last());
        }
        for (index, slot) in self.received.iter_mut().skip(first).take(got as usize).enumerate() {
            *slot = self.inbox.received(index);
        }
        Ok(got as usize)
    }

    /// What came with frame `index` of the last [`PacketSocket::receive`].
    #[inline]
    pub fn received(&self, index: usize) -> Received {
        self.received[index]
    }

    /// Sends `frames` in order, at most [`BATCH_MAX`]; returns how many the kernel took. Never blocks. One system
    /// call.
    ///
    /// # Errors
    /// What the kernel said about the first frame: none was sent.
    pub fn send<'frame>(
        &mut self,
        frames: impl Iterator<Item = (VnetHeader, &'frame [u8])>,
    ) -> Result<usize, Refusal> {
        let count = self.outbox.aim(frames);
        if count == 0 {
            return Ok(0);
        }
        let messages = self.outbox.messages.as_mut_ptr();
        // SAFETY: `aim` has just set the first `count` messages to our own headers and to the caller's frames,
        // which outlive the call; the kernel only reads through them.
        let sent =
            unsafe { libc::sendmmsg(self.socket.as_raw_fd(), messages, count as u32, libc::MSG_DONTWAIT) };
        if sent < 0 { Err(Refusal::last()) } else { Ok(sent as usize) }
    }

    /// Frames that found the receive buffer full since this was last asked. One system call.
    pub fn take_drops(&mut self) -> u64 {
        let mut statistics = Statistics::zeroed();
        let read = self.read_option(libc::PACKET_STATISTICS, &mut statistics);
        if read.is_ok() { u64::from(statistics.drops) } else { 0 }
    }

    /// True when the interface is still there, up, and has carrier. Two system calls.
    pub fn is_link_up(&self) -> bool {
        interface::is_link_up(self, self.interface.index)
    }

    /// The interface's MTU now, which may have changed; `None` when it is gone. Two system calls.
    pub fn mtu(&self) -> Option<u32> {
        interface::mtu(self, self.interface.index)
    }

    fn take_multicast(&self) -> Result<(), PacketError> {
        let request = MembershipRequest {
            index: self.interface.index as i32,
            kind: libc::PACKET_MR_ALLMULTI as u16,
            ..MembershipRequest::zeroed()
        };
        self.set("PACKET_ADD_MEMBERSHIP", libc::PACKET_ADD_MEMBERSHIP, &request)
    }

    fn size_buffers(&self, bytes: i32) -> Result<(), PacketError> {
        let sizes = [
            ("SO_RCVBUF", libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
            ("SO_SNDBUF", libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
        ];
        for (what, force, ask) in sizes {
            let forced = set_plain(&self.socket, libc::SOL_SOCKET, force, &bytes);
            forced
                .or_else(|_| set_plain(&self.socket, libc::SOL_SOCKET, ask, &bytes))
                .map_err(system(what))?;
        }
        Ok(())
    }

    fn set_filter(&self, program: &[FilterInstruction]) -> Result<(), PacketError> {
        let program = as_program(program);
        // SAFETY: the program names live instructions for the length of the call; the kernel copies them.
        check(unsafe { set_option(&self.socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program) })
            .map_err(system("SO_ATTACH_FILTER"))
    }

    fn bind(&self) -> Result<(), PacketError> {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: self.interface.index as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: `address` is a sockaddr_ll of the length given.
        check(unsafe { libc::bind(self.socket.as_raw_fd(), (&raw const address).cast(), len) })
            .map_err(system("bind"))
    }

    fn set<T: bytemuck::Pod>(&self, what: &'static str, option: i32, value: &T) -> Result<(), PacketError> {
        set_plain(&self.socket, libc::SOL_PACKET, option, value).map_err(system(what))
    }

    fn read_option<T: bytemuck::Pod>(&self, option: i32, value: &mut T) -> io::Result<()> {
        self.read_level(libc::SOL_PACKET, option, value)
    }

    fn read_level<T: bytemuck::Pod>(&self, level: i32, option: i32, value: &mut T) -> io::Result<()> {
        let mut len = size_of::<T>() as libc::socklen_t;
        let (fd, value) = (self.socket.as_raw_fd(), ptr::from_mut(value).cast());
        // SAFETY: `value` is `len` writable bytes of plain data.
        check(unsafe { libc::getsockopt(fd, level, option, value, &raw mut len) })
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl FanoutGroup {
    fn word(self) -> u32 {
        let mode = match self.mode {
            FanoutMode::Hash => libc::PACKET_FANOUT_HASH,
            FanoutMode::Program => libc::PACKET_FANOUT_CBPF,
            FanoutMode::SocketProgram => libc::PACKET_FANOUT_EBPF,
        };
        u32::from(self.id) | mode << 16 | FANOUT_FLAG_IGNORE_OUTGOING
    }
}

/// `struct packet_mreq`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct MembershipRequest {
    index: i32,
    kind: u16,
    address_len: u16,
    address: [u8; 8],
}
const _: () = assert!(size_of::<MembershipRequest>() == size_of::<libc::packet_mreq>());

/// `struct tpacket_stats`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Statistics {
    frames: u32,
    drops: u32,
}
const _: () = assert!(size_of::<Statistics>() == size_of::<libc::tpacket_stats>());

fn new_socket() -> Result<OwnedFd, PacketError> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // Protocol 0 hears nothing, so that no other interface's frames are queued before `bind`.
    // SAFETY: socket takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        return Err(match error.kind() {
            io::ErrorKind::PermissionDenied => PacketError::NotPermitted,
            _ => system("socket")(error),
        });
    }
    // SAFETY: the descriptor was just created and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn facts(socket: &OwnedFd, name: &str) -> Result<Interface, PacketError> {
    let interface = Interface::by_name(socket, name).map_err(|error| match error.raw_os_error() {
        Some(libc::ENODEV) => PacketError::NoSuchInterface,
        _ => system("interface")(error),
    })?;
    if interface.is_ethernet { Ok(interface) } else { Err(PacketError::NotEthernet) }
}

fn as_program(instructions: &[FilterInstruction]) -> libc::sock_fprog {
    libc::sock_fprog { len: instructions.len() as u16, filter: instructions.as_ptr().cast_mut() }
}

fn set_plain<T: bytemuck::Pod>(socket: &OwnedFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: the options set with plain data are read as plain data: no pointer is in `T`.
    check(unsafe { set_option(socket, level, option, value) })
}

/// # Safety
/// When the option holds pointers, they must be good for the length of the call.
unsafe fn set_option<T>(socket: &OwnedFd, level: i32, option: i32, value: &T) -> libc::c_int {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is `len` readable bytes; what they point to is the caller's promise.
    unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, ptr::from_ref(value).cast(), len) }
}

fn check(status: libc::c_int) -> io::Result<()> {
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn system(what: &'static str) -> impl Fn(io::Error) -> PacketError {
    move |source| PacketError::System { what, source }
}

/// Receives for which the ring had nothing.
const EMPTY_BEFORE_ASKING: u32 = 64;

const FANOUT_FLAG_UNIQUE_ID: u32 = 0x2000 << 16;
/// Since Linux 6.10; before, the group's filters turn outgoing frames away.
const FANOUT_FLAG_IGNORE_OUTGOING: u32 = 0x4000 << 16;

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> FilterInstruction {
    FilterInstruction { code: code as u16, jt, jf, k }
}
const NOTHING: FilterInstruction = instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0);
const EVERYTHING: FilterInstruction = instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX);
const PACKET_TYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
const NOT_OUTGOING: [FilterInstruction; 4] = [
    instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, PACKET_TYPE),
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::PACKET_OUTGOING as u32),
    NOTHING,
    EVERYTHING,
];
