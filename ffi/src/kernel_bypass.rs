//! [`KernelBypass`]: keeps the kernel's own network stack off an interface, for as long as it is held.
//!
//! ```text
//!   wire ─▶ packet sockets (a copy) ─▶ ingress: drop all          ─✗ ARP, ND, IP, forwarding, bridge
//!   wire ◀─ egress: pass packet sockets' frames, drop all others  ✗─ MLD, RS, DAD, RST, forwarded
//! ```
//!
//! Two BPF programs of two and eight instructions. Needs CAP_BPF and CAP_NET_ADMIN. They hang at one of two [`Hook`]s:
//! tcx links, which the kernel takes away when the last descriptor closes, however the process ends; or, before Linux
//! 6.6, filters of a `clsact` discipline, which stay when the process is killed, until the next one replaces them.
//!
//! What is stacked on the interface (a bridge, its own macvlans and VLANs) hears nothing either. On veth this also
//! saves the receiving side some 0.2 µs a frame, the kernel's route lookup for what is not its own.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::bpf::{Instruction, bpf, load};

mod clsact;

/// Holds an interface away from the kernel's stack until dropped. Packet sockets keep working on it.
#[derive(Debug)]
pub struct KernelBypass {
    held: Held,
}

/// Where the programs hang.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// BPF links, ahead of any other tcx program (Linux 6.6).
    Tcx,
    /// Filters of the first priority in a `clsact` discipline (Linux 4.5), which is made where there is none. Others'
    /// filters are left alone. Of two processes on one interface the later has the filters, and ends them.
    Clsact,
}

impl Hook {
    /// All of them, the better first.
    pub const ALL: [Hook; 2] = [Hook::Tcx, Hook::Clsact];
}

impl KernelBypass {
    /// Attaches to interface `index` of the calling thread's network namespace, at the first of `hooks` that works.
    ///
    /// # Errors
    /// The kernel's, about the last of `hooks`: without the capabilities, or when it has no such hook.
    pub fn attach(index: u32, hooks: &[Hook]) -> io::Result<Self> {
        let ingress = load(PROGRAM_TYPE_SCHED_CLS, &DROP_ALL)?;
        let egress = load(PROGRAM_TYPE_SCHED_CLS, &DROP_ALL_BUT_PACKET_SOCKETS)?;
        let mut refused = io::Error::from(io::ErrorKind::Unsupported);
        for &hook in hooks {
            match Held::attach(hook, index, &ingress, &egress) {
                Ok(held) => return Ok(Self { held }),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Where the programs hang.
    pub fn hook(&self) -> Hook {
        match self.held {
            Held::Links { .. } => Hook::Tcx,
            Held::Filters { .. } => Hook::Clsact,
        }
    }
}

/// Held only to be dropped.
#[derive(Debug)]
enum Held {
    Links { _links: [Link; 2] },
    Filters { _filters: clsact::Filters },
}

impl Held {
    fn attach(hook: Hook, index: u32, ingress: &OwnedFd, egress: &OwnedFd) -> io::Result<Self> {
        match hook {
            Hook::Tcx => {
                let (ingress, egress) =
                    (link(ingress, index, TCX_INGRESS)?, link(egress, index, TCX_EGRESS)?);
                Ok(Self::Links { _links: [ingress, egress] })
            }
            Hook::Clsact => {
                let filters = clsact::Filters::attach(index, ingress, egress)?;
                Ok(Self::Filters { _filters: filters })
            }
        }
    }
}

/// The part of `union bpf_attr` that BPF_LINK_CREATE reads for tcx.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct LinkRequest {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    expected_revision: u64,
}

/// The part of `union bpf_attr` that BPF_LINK_DETACH reads.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct DetachRequest {
    link: u32,
}

/// A program at its place until dropped.
#[derive(Debug)]
struct Link(OwnedFd);

impl Drop for Link {
    /// A link that is only closed may be in force a little longer: the kernel lets go of it when it has time.
    fn drop(&mut self) {
        let mut request = DetachRequest { link: self.0.as_raw_fd() as u32 };
        // An interface that is gone has no link any more.
        // SAFETY: a detach request holds no pointers.
        let _ = unsafe { bpf(BPF_LINK_DETACH, &mut request) };
    }
}

fn link(program: &OwnedFd, interface: u32, attach_type: u32) -> io::Result<Link> {
    let mut request = LinkRequest {
        program: program.as_raw_fd() as u32,
        interface,
        attach_type,
        flags: BPF_F_BEFORE,
        relative: 0,
        pad: 0,
        expected_revision: 0,
    };
    // SAFETY: a link request holds no pointers.
    let descriptor = unsafe { bpf(BPF_LINK_CREATE, &mut request) }?;
    // SAFETY: the descriptor was just created and nothing else owns it.
    Ok(Link(unsafe { OwnedFd::from_raw_fd(descriptor) }))
}

const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_DETACH: libc::c_int = 34;
const BPF_F_BEFORE: u32 = 1 << 3;
const PROGRAM_TYPE_SCHED_CLS: u32 = 3;
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;

/// `TCX_NEXT`; to a filter, `TC_ACT_UNSPEC`: ask the next one.
const NEXT: i32 = -1;
/// `TCX_DROP` and `TC_ACT_SHOT`.
const DROP: i32 = 2;
/// Offset of `sk` in `struct __sk_buff`, and of `family` in `struct bpf_sock`.
const SKB_SOCKET: i16 = 168;
const SOCKET_FAMILY: i16 = 4;

const DROP_ALL: [Instruction; 2] = [set_r0(DROP), EXIT];

const DROP_ALL_BUT_PACKET_SOCKETS: [Instruction; 8] = [
    Instruction { code: 0x79, registers: 0x11, offset: SKB_SOCKET, immediate: 0 }, // r1 = r1->sk
    Instruction { code: 0x15, registers: 0x01, offset: 2, immediate: 0 },          // if r1 == 0 drop
    Instruction { code: 0x61, registers: 0x12, offset: SOCKET_FAMILY, immediate: 0 }, // r2 = r1->family
    Instruction { code: 0x15, registers: 0x02, offset: 2, immediate: libc::AF_PACKET }, // if r2 == .. pass
    set_r0(DROP),
    EXIT,
    set_r0(NEXT),
    EXIT,
];

const EXIT: Instruction = Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 };

const fn set_r0(value: i32) -> Instruction {
    Instruction { code: 0xb7, registers: 0, offset: 0, immediate: value }
}
