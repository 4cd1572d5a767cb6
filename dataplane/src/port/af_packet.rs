//! The `af_packet` port: a Linux interface (veth, macvlan, any NIC) through packet sockets.
//!
//! ```text
//!   kernel ─ ring, recvmmsg ─▶ spare frames (taken ahead) ─▶ tag back inline, vnet header → Offload ─▶ worker
//!   kernel ◀─ sendmmsg ─ Offload → vnet header ◀──────────────────────────────────────────────── worker
//! ```
//!
//! Frames come and go as the kernel has them: up to 64 KiB with checksums open (GSO), so nobody has to change a
//! peer's offloads. Several queues share the interface by fanout: by our own program, so that each frame arrives at
//! the worker that owns it, or, where the kernel does not let us load one, by the kernel's flow hash.
//!
//! Where the kernel lets us (CAP_BPF, CAP_NET_ADMIN) its own stack neither hears nor says anything on the interface
//! while the port is open: [`PortInfo::offloads`] has `kernel-bypassed-by-tcx` (Linux 6.6) or
//! `kernel-bypassed-by-clsact`. Elsewhere it still does: see to it that the interface has no address,
//! `net.ipv6.conf.IF.disable_ipv6=1` and `net.ipv4.conf.IF.forwarding=0`.
//!
//! A frame that the kernel has no room for is tried again, nine times at most: a device may be throwing it away.
//! While the interface is down or gone, what is to be sent is dropped and counted. What the kernel drops in front
//! of a socket is [`DriverCounters::rx_missed`]. Another MTU of the interface is noticed and followed.

mod assembler;
mod program;

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

use sluice_ffi::bpf::SocketProgram;
use sluice_ffi::kernel_bypass::{Hook, KernelBypass};
use sluice_ffi::packet_socket::{
    BATCH_MAX, FanoutMode, PacketError, PacketSocket, Refusal, VNET_DATA_VALID, VNET_GSO_ECN, VNET_GSO_TCPV4,
    VNET_GSO_TCPV6, VNET_GSO_UDP_L4, VNET_NEEDS_CSUM, VnetHeader,
};

use super::{DriverCounters, OpenPort, PortError, PortInfo, PortQueue, Steering};
use crate::address::Mac;
use crate::frame::{Checksum, Frame, FramePool, Offload, SegmentKind, Segmentation};
use crate::packet::segment::segment;

/// Opens `interface` with one queue for each of `pools`.
///
/// # Errors
/// [`PortError::NoSuchDevice`] or [`PortError::Refused`]; nothing stays open then.
pub fn open(name: &str, interface: &str, pools: &[FramePool]) -> Result<OpenPort, PortError> {
    open_at(name, interface, pools, &Hook::ALL)
}

/// [`open`], with the kernel's stack kept off at the first of `hooks` that works.
///
/// # Errors
/// Those of [`open`].
pub fn open_at(
    name: &str,
    interface: &str,
    pools: &[FramePool],
    hooks: &[Hook],
) -> Result<OpenPort, PortError> {
    let error = |error| port_error(name, interface, error);
    let sockets = pools.iter().map(|_| PacketSocket::open(interface, BUFFER_BYTES, RING_BYTES));
    let sockets = sockets.collect::<Result<Vec<_>, _>>().map_err(error)?;
    let [first, ..] = sockets.as_slice() else {
        let (what, reason) = (interface.into(), "a port needs at least one queue".into());
        return Err(PortError::Refused { port: name.into(), what, reason });
    };
    let bypass = KernelBypass::attach(first.interface().index, hooks).ok().map(Arc::new);
    let steering = share(&sockets, program::load).map_err(error)?;
    let info = info(name, interface, &sockets, bypass.as_deref().map(KernelBypass::hook), steering);
    let queues = sockets.into_iter().zip(pools).map(|(socket, pool)| -> Box<dyn PortQueue> {
        Box::new(AfPacketQueue::new(socket, pool.clone(), bypass.clone()))
    });
    Ok(OpenPort { info, queues: queues.collect() })
}

/// One packet socket as a queue.
pub struct AfPacketQueue {
    socket: PacketSocket,
    pool: FramePool,
    /// Frames to receive into; the last is the next. At most [`BATCH_MAX`].
    spare: Vec<Frame>,
    /// What is left of a super-frame that we had to cut ourselves: goes before all else.
    cut: Vec<Frame>,
    /// How often in a row the kernel had no room for the same first frame.
    refusals: u32,
    counters: DriverCounters,
    _bypass: Option<Arc<KernelBypass>>,
}

impl AfPacketQueue {
    fn new(socket: PacketSocket, pool: FramePool, bypass: Option<Arc<KernelBypass>>) -> Self {
        Self {
            socket,
            pool,
            spare: Vec::with_capacity(BATCH_MAX),
            cut: Vec::with_capacity(BATCH_MAX * 2),
            refusals: 0,
            counters: DriverCounters::default(),
            _bypass: bypass,
        }
    }

    /// Takes spare frames until there are [`BATCH_MAX`], or the pool has none.
    #[inline]
    fn take_spare(&mut self) {
        while self.spare.len() < BATCH_MAX {
            let Some(frame) = self.pool.take() else { break };
            self.spare.push(frame);
        }
    }

    /// Moves the last spare frame, into which frame `index` of the batch was received, to `frames`.
    #[inline]
    fn hand_over(&mut self, index: usize, frames: &mut Vec<Frame>) {
        let received = self.socket.received(index);
        let Some(mut frame) = self.spare.pop() else { return };
        if received.is_truncated {
            self.counters.rx_errors += 1;
            return;
        }
        frame.set_len(received.len);
        frame.offload = offload(&received.header);
        if received.vlan.is_some_and(|tag| !restore_tag(&mut frame, tag)) {
            self.counters.rx_errors += 1;
            return;
        }
        frames.push(frame);
    }

    /// Sends what is left of a cut super-frame; true when nothing is.
    #[inline]
    fn send_cut(&mut self) -> bool {
        if self.cut.is_empty() {
            return true;
        }
        let mut cut = std::mem::take(&mut self.cut);
        while !cut.is_empty() && self.send_some(&mut cut) {}
        self.cut = cut;
        self.cut.is_empty()
    }

    /// One system call; true when `frames` became shorter.
    fn send_some(&mut self, frames: &mut Vec<Frame>) -> bool {
        match self.socket.send(frames.iter().map(|frame| (vnet_header(frame), frame.bytes()))) {
            Ok(count) => {
                frames.drain(..count);
                self.refusals = 0;
                count > 0
            }
            Err(refusal) => self.on_refusal(refusal, frames),
        }
    }

    /// Decides about the first of `frames`, which the kernel refused; true when `frames` became shorter.
    #[cold]
    fn on_refusal(&mut self, refusal: Refusal, frames: &mut Vec<Frame>) -> bool {
        match refusal {
            Refusal::WouldBlock => false,
            Refusal::NoBuffers if self.refusals < REFUSALS_MAX => {
                self.refusals += 1;
                false
            }
            Refusal::LinkDown => {
                self.counters.tx_errors += frames.len() as u64;
                frames.clear();
                true
            }
            Refusal::NoBuffers => self.give_up(frames),
            // A device or kernel that cannot cut this super-frame may take the pieces.
            Refusal::BadFrame => match segment(&frames[0], &self.pool, &mut self.cut) {
                Ok(_) => {
                    frames.remove(0);
                    true
                }
                Err(_) => self.give_up(frames),
            },
        }
    }

    fn give_up(&mut self, frames: &mut Vec<Frame>) -> bool {
        self.refusals = 0;
        self.counters.tx_errors += 1;
        frames.remove(0);
        true
    }
}

impl PortQueue for AfPacketQueue {
    fn rx(&mut self, frames: &mut Vec<Frame>) -> usize {
        self.take_spare();
        let before = frames.len();
        match self.socket.receive(self.spare.iter_mut().rev().filter_map(Frame::room_mut)) {
            Ok(count) => (0..count).for_each(|index| self.hand_over(index, frames)),
            Err(Refusal::WouldBlock | Refusal::LinkDown) => {}
            Err(Refusal::NoBuffers | Refusal::BadFrame) => self.counters.rx_errors += 1,
        }
        frames.len() - before
    }

    fn tx(&mut self, frames: &mut Vec<Frame>) -> usize {
        let before = frames.len();
        while self.send_cut() && !frames.is_empty() && self.send_some(frames) {}
        before - frames.len()
    }

    fn wait_fd(&self) -> Option<RawFd> {
        Some(self.socket.as_fd().as_raw_fd())
    }

    fn counters(&mut self) -> DriverCounters {
        self.counters.rx_missed += self.socket.take_drops();
        self.counters
    }

    fn is_link_up(&mut self) -> bool {
        self.socket.is_link_up()
    }

    fn mtu(&mut self) -> Option<u16> {
        self.socket.mtu().map(as_mtu)
    }
}

/// Makes the sockets members of one fanout group, in order, and lets them hear. Says how frames are spread.
fn share(
    sockets: &[PacketSocket],
    load: impl FnOnce() -> Result<SocketProgram, String>,
) -> Result<(Steering, String), PacketError> {
    let [first, others @ ..] = sockets else { return Ok(Steering::single()) };
    if others.is_empty() {
        return first.start_alone().map(|()| Steering::single());
    }
    let steering = join(first, others, load())?;
    sockets.iter().try_for_each(PacketSocket::start)?;
    Ok(steering)
}

fn join(
    first: &PacketSocket,
    others: &[PacketSocket],
    program: Result<SocketProgram, String>,
) -> Result<(Steering, String), PacketError> {
    let mode = if program.is_ok() { FanoutMode::SocketProgram } else { FanoutMode::Hash };
    let group = first.found_group(mode)?;
    others.iter().try_for_each(|socket| socket.join_group(group))?;
    match program {
        Ok(program) => {
            first.set_fanout_socket_program(&program)?;
            let how = "the kernel runs our program, which agreed with us on test frames";
            Ok((Steering::Bpf, how.into()))
        }
        Err(why) => Ok((Steering::Software, format!("{why}; frames come by the kernel's flow hash"))),
    }
}

fn info(
    name: &str,
    device: &str,
    sockets: &[PacketSocket],
    bypass: Option<Hook>,
    (steering, steering_reason): (Steering, String),
) -> PortInfo {
    let interface = sockets[0].interface();
    let mut offloads = vec!["vnet_hdr", "tx-checksum", "tso", "uso"];
    offloads.extend(sockets[0].has_ring().then_some("rx-ring"));
    offloads.extend(bypass.map(bypassed_by));
    PortInfo {
        name: name.into(),
        driver: "af_packet",
        device: device.into(),
        mac: Mac(interface.mac),
        mtu: as_mtu(interface.mtu),
        queues: sockets.len(),
        offloads,
        steering,
        steering_reason,
    }
}

/// An IP packet has no more bytes than 16 bits count.
fn as_mtu(bytes: u32) -> u16 {
    bytes.min(u32::from(u16::MAX)) as u16
}

fn bypassed_by(hook: Hook) -> &'static str {
    match hook {
        Hook::Tcx => "kernel-bypassed-by-tcx",
        Hook::Clsact => "kernel-bypassed-by-clsact",
    }
}

fn port_error(port: &str, interface: &str, error: PacketError) -> PortError {
    match error {
        PacketError::NoSuchInterface => {
            PortError::NoSuchDevice { port: port.into(), device: format!("interface {interface}") }
        }
        error => {
            let what = format!("interface {interface}");
            PortError::Refused { port: port.into(), what, reason: error.to_string() }
        }
    }
}

/// What a received vnet header leaves to do.
#[inline]
fn offload(header: &VnetHeader) -> Offload {
    let checksum = if header.flags & VNET_NEEDS_CSUM != 0 {
        Checksum::Partial { start: header.csum_start, offset: header.csum_offset }
    } else if header.flags & VNET_DATA_VALID != 0 {
        Checksum::Verified
    } else {
        Checksum::Unchecked
    };
    let kind = match header.gso_type & !VNET_GSO_ECN {
        VNET_GSO_TCPV4 => Some(SegmentKind::Tcp4),
        VNET_GSO_TCPV6 => Some(SegmentKind::Tcp6),
        VNET_GSO_UDP_L4 => Some(SegmentKind::Udp),
        _ => None,
    };
    let ecn = header.gso_type & VNET_GSO_ECN != 0;
    let segmentation = kind.map(|kind| Segmentation { kind, ecn, payload_bytes: header.gso_size });
    Offload { checksum, segmentation }
}

/// The vnet header that asks for what `frame` leaves to do.
#[inline]
fn vnet_header(frame: &Frame) -> VnetHeader {
    let mut header = VnetHeader::default();
    match frame.offload.checksum {
        Checksum::Partial { start, offset } => {
            header.flags = VNET_NEEDS_CSUM;
            header.csum_start = start;
            header.csum_offset = offset;
        }
        Checksum::Unchecked | Checksum::Verified => {}
    }
    if let Some(segmentation) = frame.offload.segmentation {
        header.gso_type = gso_type(segmentation);
        header.gso_size = segmentation.payload_bytes;
        header.hdr_len = headers_len(frame, header.csum_start, segmentation.kind);
    }
    header
}

fn gso_type(segmentation: Segmentation) -> u8 {
    let kind = match segmentation.kind {
        SegmentKind::Tcp4 => VNET_GSO_TCPV4,
        SegmentKind::Tcp6 => VNET_GSO_TCPV6,
        SegmentKind::Udp => return VNET_GSO_UDP_L4,
    };
    if segmentation.ecn { kind | VNET_GSO_ECN } else { kind }
}

/// Bytes in front of the payload, given where TCP or UDP begins; the kernel keeps them in one piece. Without a
/// checksum to finish we do not know, and the kernel finds out.
fn headers_len(frame: &Frame, start: u16, kind: SegmentKind) -> u16 {
    let len = match kind {
        SegmentKind::Udp => 8,
        SegmentKind::Tcp4 | SegmentKind::Tcp6 => {
            let offset = frame.bytes().get(usize::from(start) + 12).map_or(0, |byte| byte >> 4);
            u16::from(offset) * 4
        }
    };
    if start == 0 { 0 } else { start.saturating_add(len).min(frame.len().min(usize::from(u16::MAX)) as u16) }
}

/// Puts an 802.1Q tag (ethertype, control information) behind the addresses. False without room in front.
fn restore_tag(frame: &mut Frame, (ethertype, control): (u16, u16)) -> bool {
    if frame.len() < MACS_BYTES || !frame.prepend(TAG_BYTES) {
        return false;
    }
    let bytes = frame.bytes_mut();
    bytes.copy_within(TAG_BYTES..TAG_BYTES + MACS_BYTES, 0);
    bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
    bytes[14..16].copy_from_slice(&control.to_be_bytes());
    true
}

const MACS_BYTES: usize = 12;
const TAG_BYTES: usize = 4;

/// Each way, for each queue: some 200 super-frames; 20,000 small ones to be sent, or received where there is no ring.
const BUFFER_BYTES: u32 = 16 << 20;

/// For each queue: 2,048 received frames of an MTU up to 1,900 bytes.
const RING_BYTES: usize = 4 << 20;

/// Tries after which a frame that finds no room is given up: the device may be throwing it away each time.
const REFUSALS_MAX: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_ffi::netns::Namespace;

    #[test]
    fn without_a_program_frames_come_by_the_kernels_hash() {
        let Ok(namespace) = Namespace::new() else {
            eprintln!("SKIPPED: without_a_program_frames_come_by_the_kernels_hash: namespaces need root");
            return;
        };
        let inside = std::thread::spawn(move || {
            namespace.enter().expect("enters its own namespace");
            let mut ip = std::process::Command::new("ip");
            let made = ip.args(["link", "add", "port0", "type", "veth", "peer", "name", "peer0"]).status();
            assert!(made.expect("ip runs").success());
            let sockets = [(); 2].map(|()| PacketSocket::open("port0", 1 << 16, 0).expect("a socket"));
            share(&sockets, || Err("no leave".into())).expect("the kernel's hash works everywhere")
        });
        let reason = "no leave; frames come by the kernel's flow hash";
        assert_eq!(inside.join().expect("the test passes"), (Steering::Software, reason.into()));
    }
}
