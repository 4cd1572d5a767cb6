//! Ports: where frames come from and go to. One trait, one driver a file, one arm each in [`open`].
//!
//! ```text
//!   open(spec, queues) ─▶ OpenPort { info, queues: [PortQueue; n] }
//!                                     queue i belongs to worker i alone
//! ```
//!
//! Wrappers ([`fault`], [`pcap`]) are queues around a queue: pcap(fault(driver)), so that a capture holds what the
//! worker saw.

pub mod af_packet;
#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod fault;
pub mod memory;
pub mod pcap;

use std::os::fd::RawFd;
use std::path::PathBuf;

use crate::address::Mac;
use crate::frame::{FRAME_MAX_BYTES, Frame, FramePool};

use fault::{FaultQueue, FaultSpec};
use pcap::{PcapQueue, Recorder};

/// One receive and one send queue of a port. Belongs to one worker.
pub trait PortQueue: Send {
    /// Appends up to [`crate::frame::BURST_MAX`] received frames to `frames`, oldest first; returns how many.
    /// Never blocks.
    fn rx(&mut self, frames: &mut Vec<Frame>) -> usize;

    /// Takes frames from the front of `frames` and sends them in order; returns how many it took. Frames that
    /// did not fit stay in `frames`, in order. Never blocks. A frame that can never be sent (too long for the
    /// device) is taken, dropped and counted in [`DriverCounters::tx_errors`].
    ///
    /// The queue finishes what the frame's `offload` leaves open, in hardware where it can and else in software:
    /// checksums, and cutting into segments.
    fn tx(&mut self, frames: &mut Vec<Frame>) -> usize;

    /// A descriptor that becomes readable when frames wait, or `None` when the port can only be polled.
    fn wait_fd(&self) -> Option<RawFd>;

    /// Counts since the queue was opened. May cost a system call.
    fn counters(&mut self) -> DriverCounters;

    /// True when the link has carrier. May cost a system call.
    fn is_link_up(&mut self) -> bool;

    /// The largest IP packet that the port carries now, for a driver that notices when that changes; `None` for one
    /// that does not, where [`PortInfo::mtu`] stays. May cost a system call.
    fn mtu(&mut self) -> Option<u16> {
        None
    }
}

/// What only the driver can count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DriverCounters {
    /// Frames lost before we read them: a full ring or socket buffer.
    pub rx_missed: u64,
    /// Frames received damaged, or larger than a frame can be.
    pub rx_errors: u64,
    /// Frames for which there was no memory.
    pub rx_no_memory: u64,
    /// Frames that could not be sent at all.
    pub tx_errors: u64,
    /// Of the first TCP and UDP packets, those that a NIC placed as it was told.
    pub hash_right: u64,
    /// Of the first TCP and UDP packets, those that a NIC placed otherwise.
    pub hash_wrong: u64,
}

/// What is true of a port for as long as it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortInfo {
    /// The operator's name for it.
    pub name: String,
    /// `af_packet`, `dpdk` or `memory`.
    pub driver: &'static str,
    /// The interface, PCI address or vdev string.
    pub device: String,
    /// Our address on it.
    pub mac: Mac,
    /// Largest IP packet when it was opened, in bytes; [`PortQueue::mtu`] says what it is now.
    pub mtu: u16,
    /// Queues in use.
    pub queues: usize,
    /// What the device does for us, for `show ports`: `vnet_hdr`, `tx-checksum`, `tso`, …
    pub offloads: Vec<&'static str>,
    /// How frames are spread over its queues.
    pub steering: Steering,
    /// Why that way.
    pub steering_reason: String,
}

impl PortInfo {
    /// How frames are spread, and why, now that a NIC has placed so many packets as it was told and so many not.
    pub fn steering_after(&self, right: u64, wrong: u64) -> (Steering, String) {
        let (looked, reason) = (right + wrong, &self.steering_reason);
        match self.steering {
            Steering::Rss if looked == 0 => (Steering::Rss, format!("{reason}; no packet has shown it yet")),
            Steering::Rss if wrong * WRONG_MAX_PART > looked => {
                let found = format!("{wrong} of the first {looked} packets came elsewhere");
                (Steering::Software, format!("{reason}, but {found}"))
            }
            Steering::Rss => (
                Steering::Rss,
                format!("{reason}; {right} of the first {looked} packets came as they should"),
            ),
            other => (other, reason.clone()),
        }
    }
}

/// A NIC may place damaged packets otherwise: one in so many is forgiven.
const WRONG_MAX_PART: u64 = 100;

/// How a port spreads frames over queues. Whatever it is, a packet that arrives at another worker than its flow's
/// crosses to it; the better the steering, the fewer do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steering {
    /// There is one queue.
    Single,
    /// In some way of the device's own, or of its peer's: workers sort frames among themselves.
    Software,
    /// The kernel runs our program.
    Bpf,
    /// The NIC hashes with our key into our table.
    Rss,
}

impl Steering {
    /// The word in `show ports`.
    pub const fn name(self) -> &'static str {
        match self {
            Steering::Single => "single",
            Steering::Software => "software",
            Steering::Bpf => "bpf",
            Steering::Rss => "rss",
        }
    }

    /// One queue, and why.
    pub(crate) fn single() -> (Steering, String) {
        (Steering::Single, "there is one worker".into())
    }
}

/// What to open.
#[derive(Debug, Clone, PartialEq)]
pub struct PortSpec {
    /// The operator's name for it.
    pub name: String,
    /// Which driver, and its device.
    pub driver: DriverSpec,
    /// What is to go wrong on it, in tests and labs.
    pub fault: Option<FaultSpec>,
    /// The pcapng file that all its frames are written to.
    pub pcap: Option<PathBuf>,
}

/// The drivers and what each needs to know.
#[derive(Debug, Clone, PartialEq)]
pub enum DriverSpec {
    /// A Linux interface through packet sockets.
    AfPacket {
        /// Interface name, such as `net1`.
        interface: String,
    },
    /// A DPDK device.
    Dpdk {
        /// PCI address or vdev string, such as `net_memif0,role=client,id=0`.
        device: String,
    },
}

/// An open port: what is known of it, and one queue a worker.
pub struct OpenPort {
    /// What is true of it.
    pub info: PortInfo,
    /// Queue `i` belongs to worker `i`.
    pub queues: Vec<Box<dyn PortQueue>>,
}

/// Why a port could not be opened. The operator's to mend, each with what to do.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The device is not there.
    #[error("port {port}: {device}: no such device")]
    NoSuchDevice {
        /// The operator's name.
        port: String,
        /// What was asked for.
        device: String,
    },
    /// More workers than the device has queues.
    #[error(
        "port {port}: {workers} workers need {workers} queues, the device has {queues_max}; set system.workers to at most {queues_max}"
    )]
    TooFewQueues {
        /// The operator's name.
        port: String,
        /// Queues wanted.
        workers: usize,
        /// Queues there are.
        queues_max: usize,
    },
    /// The driver is not in this binary.
    #[error(
        "port {port}: this sluice is built without the dpdk driver; use driver: af_packet, or a build with DPDK (the default features)"
    )]
    DriverNotBuilt {
        /// The operator's name.
        port: String,
    },
    /// Anything the kernel or DPDK refused.
    #[error("port {port}: {what}: {reason}")]
    Refused {
        /// The operator's name.
        port: String,
        /// What was tried.
        what: String,
        /// What the kernel or DPDK said.
        reason: String,
    },
}

/// Readies the drivers that `specs` name. Once a process, before the first [`open`].
///
/// Starts DPDK when one of them is a `dpdk` port: with `eal_args`, or, without any, with arguments that suit the
/// machine and the devices.
///
/// # Errors
/// [`PortError::DriverNotBuilt`]; [`PortError::Refused`] with what DPDK said.
pub fn prepare(specs: &[PortSpec], eal_args: &[String]) -> Result<(), PortError> {
    #[cfg(feature = "dpdk")]
    return dpdk::prepare(specs, eal_args);
    #[cfg(not(feature = "dpdk"))]
    {
        let _ = eal_args;
        match specs.iter().find(|spec| matches!(spec.driver, DriverSpec::Dpdk { .. })) {
            Some(spec) => Err(PortError::DriverNotBuilt { port: spec.name.clone() }),
            None => Ok(()),
        }
    }
}

/// Opens a port with one queue for each of `pools`; queue `i` takes frame memory from `pools[i]`.
///
/// # Errors
/// [`PortError`]; nothing stays open then.
pub fn open(spec: &PortSpec, pools: &[FramePool]) -> Result<OpenPort, PortError> {
    let port = match &spec.driver {
        DriverSpec::AfPacket { interface } => af_packet::open(&spec.name, interface, pools),
        #[cfg(feature = "dpdk")]
        DriverSpec::Dpdk { device } => dpdk::open(spec, device, pools),
        #[cfg(not(feature = "dpdk"))]
        DriverSpec::Dpdk { .. } => Err(PortError::DriverNotBuilt { port: spec.name.clone() }),
    }?;
    wrap(port, spec, pools)
}

/// Puts the wrappers that `spec` asks for around the queues.
fn wrap(mut port: OpenPort, spec: &PortSpec, pools: &[FramePool]) -> Result<OpenPort, PortError> {
    if let Some(fault) = &spec.fault {
        let queues = port.queues.into_iter().zip(pools).enumerate();
        let wrapped = queues.map(|(index, (queue, pool))| -> Box<dyn PortQueue> {
            Box::new(FaultQueue::new(queue, fault, index, pool))
        });
        port.queues = wrapped.collect();
    }
    if let Some(path) = &spec.pcap {
        let recorder = Recorder::create(path, &spec.name, FRAME_MAX_BYTES).map_err(|error| {
            let (port, what) = (spec.name.clone(), format!("pcap {}", path.display()));
            PortError::Refused { port, what, reason: error.to_string() }
        })?;
        let wrapped = port
            .queues
            .into_iter()
            .map(|queue| -> Box<dyn PortQueue> { Box::new(PcapQueue::new(queue, recorder.clone())) });
        port.queues = wrapped.collect();
    }
    Ok(port)
}

/// Tells drivers that this thread is a worker; keep the guard while it is.
///
/// DPDK gives it its own cache of packet memory. Without DPDK, or when it has no lcore id left, nothing happens.
pub fn enter_worker() -> WorkerGuard {
    WorkerGuard {
        #[cfg(feature = "dpdk")]
        _dpdk: sluice_ffi::dpdk::register_thread().ok(),
    }
}

/// Undoes [`enter_worker`] on drop.
pub struct WorkerGuard {
    #[cfg(feature = "dpdk")]
    _dpdk: Option<sluice_ffi::dpdk::ThreadGuard>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rss_is_believed_until_packets_show_otherwise() {
        let mut info = memory::info("external", Mac::default());
        (info.steering, info.steering_reason) = (Steering::Rss, "told".into());
        let after = |right, wrong| info.steering_after(right, wrong);
        assert_eq!(after(0, 0), (Steering::Rss, "told; no packet has shown it yet".into()));
        assert_eq!(after(995, 5).0, Steering::Rss);
        let came_elsewhere = "told, but 500 of the first 1000 packets came elsewhere";
        assert_eq!(after(500, 500), (Steering::Software, came_elsewhere.into()));
        assert_eq!(after(0, 1).0, Steering::Software);
        (info.steering, info.steering_reason) = (Steering::Bpf, "why".into());
        assert_eq!(info.steering_after(0, 9), (Steering::Bpf, "why".into()));
    }
}
