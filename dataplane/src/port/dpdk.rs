//! The `dpdk` port: a PCI NIC or a DPDK virtual device, polled.
//!
//! ```text
//!   rx burst ─▶ Mbuf ─▶ Frame … pipeline … Frame ─▶ Mbuf ─▶ tx burst      no copy, no allocation
//!                │                           │
//!     in pieces: copied to a Frame    other memory: copied to an Mbuf
//!     bad checksum: dropped           unfinished checksum, GSO: the device's, else in software
//! ```
//!
//! The queues of a port share packet memory. Each worker has a cache of it, so that they rarely meet there.

mod intake;
mod offload;
mod placement;

use std::os::fd::RawFd;

use sluice_ffi::append::Appender;
use sluice_ffi::dpdk::{
    self, Burst, BurstWriter, DpdkError, Eal, EthDev, EthPort, EthStats, HashPlan, LogTo, Mempool, Offloads,
    RxQueue, TxQueue,
};

use self::intake::Intake;
use self::placement::PlacementCheck;
use super::{DriverCounters, DriverSpec, OpenPort, PortError, PortInfo, PortQueue, PortSpec, Steering};
use crate::address::Mac;
use crate::frame::{BURST_MAX, Checksum, Frame, FramePool};
use crate::packet::checksum;
use crate::packet::segment::{SegmentError, segment};
use crate::snat::toeplitz::{BUCKETS, RSS_KEY};

/// Starts DPDK when one of `specs` needs it; see [`super::prepare`].
pub(super) fn prepare(specs: &[PortSpec], eal_args: &[String]) -> Result<(), PortError> {
    let ports: Vec<(&str, &str)> = specs.iter().filter_map(dpdk_device).collect();
    let Some(&(first, _)) = ports.first() else { return Ok(()) };
    let pci: Vec<&str> = ports.iter().map(|&(_, device)| device).filter(|device| is_pci(device)).collect();
    let asks_for_log = eal_args.iter().any(|arg| arg.starts_with("--log-level"));
    let log_to = if asks_for_log { LogTo::Stderr } else { LogTo::Quiet };
    Eal::init(&dpdk::default_args(eal_args, &pci), log_to).map_err(|error| refused(first, error))?;
    Ok(())
}

/// Opens `device` with one queue pair for each of `pools`.
///
/// # Errors
/// [`PortError::NoSuchDevice`] with DPDK's reason, [`PortError::TooFewQueues`], [`PortError::Refused`]; nothing
/// stays open then.
pub fn open(spec: &PortSpec, device: &str, pools: &[FramePool]) -> Result<OpenPort, PortError> {
    let explain = |error| explain(&spec.name, pools.len(), error);
    let eal = Eal::running().ok_or(DpdkError::NotStarted).map_err(explain)?;
    let found = EthDev::open(eal, device).map_err(explain)?;
    if pools.len() > found.queues_max() {
        let error = DpdkError::TooFewQueues { wanted: pools.len(), queues_max: found.queues_max() };
        return Err(explain(error));
    }
    let memory = vec![packet_memory(eal, &found, pools).map_err(explain)?; pools.len()];
    let started = found.start(&memory, &HashPlan { key: &RSS_KEY, buckets: BUCKETS }).map_err(explain)?;
    let info = describe(spec, device, &started.port, pools.len());
    let baseline = started.port.stats();
    let memory = memory.into_iter().zip(pools);
    let queues =
        started.queues.into_iter().zip(memory).enumerate().map(|(index, ((rx, tx), (memory, pool)))| {
            let stats_since = (index == 0).then_some(baseline);
            let check = PlacementCheck::new(index, pools.len(), started.port.placement().is_ok());
            let port = started.port.clone();
            Box::new(DpdkQueue::new(rx, tx, memory, pool.clone(), port, stats_since, check)) as _
        });
    Ok(OpenPort { info, queues: queues.collect() })
}

/// One receive and one send queue, and the memory behind them.
struct DpdkQueue {
    rx: RxQueue,
    tx: TxQueue,
    port: EthPort,
    offloads: Offloads,
    memory: Mempool,
    intake: Intake,
    /// On its way out, oldest first. What the device had no room for goes before anything else.
    burst: Burst,
    /// Pieces of the last super-frame taken, oldest first, as far as the device had no room for them; behind the burst.
    pieces: Vec<Frame>,
    /// The longest frame the device sends in one piece.
    frame_max_bytes: usize,
    /// The longest segment that the device cuts, from the link header on.
    segment_max_bytes: usize,
    tx_errors: u64,
    /// The device counts for all queues at once: the first one reports it, from here on.
    stats_since: Option<EthStats>,
    check: PlacementCheck,
}

impl PortQueue for DpdkQueue {
    fn rx(&mut self, frames: &mut Vec<Frame>) -> usize {
        // What waits must not wait for a frame behind it.
        self.send_waiting();
        let before = frames.len();
        if self.check.is_open() {
            self.rx_checked(frames);
            return frames.len() - before;
        }
        let Self { rx, intake, .. } = self;
        let mut received = Appender::new(frames, BURST_MAX);
        rx.rx(BURST_MAX, |mbuf| intake.take(mbuf, &mut received));
        drop(received);
        frames.len() - before
    }

    fn tx(&mut self, frames: &mut Vec<Frame>) -> usize {
        let mut taken = 0;
        while self.send_waiting() && !frames.is_empty() {
            let (taken_now, is_full) = match self.make_ready(frames) {
                0 if frames[0].offload.segmentation.is_some() => self.send_super_frame(frames),
                0 => (0, true),
                ready => self.send(frames, ready),
            };
            taken += taken_now;
            if is_full {
                break;
            }
        }
        if taken == 0 && !frames.is_empty() {
            taken = self.drop_while_down(frames);
        }
        taken
    }

    fn wait_fd(&self) -> Option<RawFd> {
        None
    }

    fn counters(&mut self) -> DriverCounters {
        let mut counters = self.intake.counters;
        counters.tx_errors += self.tx_errors;
        (counters.hash_right, counters.hash_wrong) = (self.check.right, self.check.wrong);
        if let Some(since) = self.stats_since {
            let now = self.port.stats();
            counters.rx_missed += now.rx_missed.saturating_sub(since.rx_missed);
            counters.rx_errors += now.rx_errors.saturating_sub(since.rx_errors);
            counters.rx_no_memory += now.rx_no_memory.saturating_sub(since.rx_no_memory);
            counters.tx_errors += now.tx_errors.saturating_sub(since.tx_errors);
        }
        counters
    }

    fn is_link_up(&mut self) -> bool {
        let is_up = self.port.is_link_up();
        if !is_up {
            self.drop_waiting();
        }
        is_up
    }
}

impl DpdkQueue {
    fn new(
        rx: RxQueue,
        tx: TxQueue,
        memory: Mempool,
        frames: FramePool,
        port: EthPort,
        stats_since: Option<EthStats>,
        check: PlacementCheck,
    ) -> Self {
        Self {
            check,
            rx,
            tx,
            offloads: port.offloads(),
            memory,
            intake: Intake::new(frames),
            burst: Burst::new(),
            pieces: Vec::new(),
            frame_max_bytes: usize::from(port.mtu()) + LINK_HEADER_BYTES,
            segment_max_bytes: usize::from(port.mtu()) + link_header_of_segments(port.driver()),
            tx_errors: 0,
            stats_since,
            port,
        }
    }

    /// Receives the first packets, and sees whether they are where they should be.
    #[cold]
    fn rx_checked(&mut self, frames: &mut Vec<Frame>) {
        let Self { rx, intake, check, .. } = self;
        let mut received = Appender::new(frames, BURST_MAX);
        rx.rx(BURST_MAX, |mbuf| {
            check.look(mbuf.bytes(), mbuf.hash());
            intake.take(mbuf, &mut received);
        });
    }

    /// A device without a link takes nothing, and what waits for it would be stale when the link is back.
    #[cold]
    fn drop_while_down(&mut self, frames: &mut Vec<Frame>) -> usize {
        if self.is_link_up() {
            return 0;
        }
        let count = frames.len();
        self.tx_errors += count as u64;
        frames.clear();
        count
    }

    fn drop_waiting(&mut self) {
        self.tx_errors += (self.burst.len() + self.pieces.len()) as u64;
        self.burst = Burst::new();
        self.pieces.clear();
    }

    /// Makes the first frames mbufs that the device can send; returns how many, a burst at most. It ends before a
    /// super-frame, and where there is no memory for a copy.
    #[inline(always)]
    fn make_ready(&mut self, frames: &mut [Frame]) -> usize {
        let mut ready = 0;
        for frame in frames.iter_mut().take(BURST_MAX) {
            let is_plain = frame.is_mbuf()
                && frame.offload.segmentation.is_none()
                && !matches!(frame.offload.checksum, Checksum::Partial { .. });
            if !is_plain && !self.make_plain(frame) {
                break;
            }
            ready += 1;
        }
        ready
    }

    /// Copies a frame of other memory; finishes a checksum that the device would not. False when it cannot be sent
    /// now, or not in one piece.
    #[cold]
    fn make_plain(&mut self, frame: &mut Frame) -> bool {
        if frame.offload.segmentation.is_some() {
            return false;
        }
        if offload::checksum_work(frame, &self.offloads).is_none() {
            checksum::finish(frame);
        }
        // A frame that the device would refuse is not worth a copy; `stage` drops it.
        if frame.is_mbuf() || frame.len() > self.frame_max_bytes {
            return true;
        }
        let Some(copy) = self.memory.copy_of(frame.bytes()) else { return false };
        *frame = Frame::from_mbuf(copy, frame.offload);
        true
    }

    /// Sends the first `ready` frames, behind which nothing waits yet; returns how many were taken, and whether the
    /// device has no more room.
    #[inline(always)]
    fn send(&mut self, frames: &mut Vec<Frame>, ready: usize) -> (usize, bool) {
        let (mut asks, max_bytes, mut errors) = (false, self.frame_max_bytes, 0);
        let mut burst = self.burst.writer();
        for frame in frames.drain(..ready) {
            asks |= stage(frame, &mut burst, max_bytes, &mut errors);
        }
        drop(burst);
        self.tx_errors += errors;
        if asks {
            self.prepare_burst();
        }
        self.tx.tx(&mut self.burst);
        (ready, !self.burst.is_empty())
    }

    /// Lets the driver see packets with work for the device; drops what it will not take.
    #[cold]
    fn prepare_burst(&mut self) {
        loop {
            let good = self.tx.prepare(&mut self.burst);
            if good >= self.burst.len() {
                return;
            }
            self.burst.remove(good);
            self.tx_errors += 1;
        }
    }

    /// Sends what the device had no room for before; true when nothing is left of it.
    #[inline(always)]
    fn send_waiting(&mut self) -> bool {
        (self.burst.is_empty() && self.pieces.is_empty()) || self.send_older()
    }

    #[cold]
    #[inline(never)]
    fn send_older(&mut self) -> bool {
        self.tx.tx(&mut self.burst);
        let mut pieces = std::mem::take(&mut self.pieces);
        while self.burst.is_empty() && !pieces.is_empty() {
            match self.make_ready(&mut pieces) {
                0 => break,
                ready => self.send(&mut pieces, ready),
            };
        }
        self.pieces = pieces;
        self.burst.is_empty() && self.pieces.is_empty()
    }

    /// Sends the super-frame at the front, or cuts it into pieces that go first from now on. As [`Self::send`].
    #[cold]
    fn send_super_frame(&mut self, frames: &mut Vec<Frame>) -> (usize, bool) {
        let work = offload::segmentation_work(&frames[0], &self.offloads);
        if let Some(work) = work.filter(|work| offload::segment_len(work) <= self.segment_max_bytes) {
            return self.send_for_segmentation(frames, &work);
        }
        match segment(&frames[0], self.intake.frames(), &mut self.pieces) {
            Ok(_) => {}
            // Pieces that wait will give memory back; without any, nobody would.
            Err(SegmentError::Exhausted) if !self.pieces.is_empty() => return (0, true),
            Err(_) => self.tx_errors += 1,
        }
        frames.remove(0);
        (1, false)
    }

    fn send_for_segmentation(&mut self, frames: &mut Vec<Frame>, work: &dpdk::TxWork) -> (usize, bool) {
        let Some(mut chain) = self.memory.chain_of(frames[0].bytes()) else { return (0, true) };
        offload::leave_length_out(&mut chain, work);
        chain.request(work);
        // Nothing waits, so there is room.
        let _ = self.burst.push(chain);
        self.prepare_burst();
        self.tx.tx(&mut self.burst);
        frames.remove(0);
        (1, !self.burst.is_empty())
    }
}

/// What a segment may have besides its MTU. DPDK 22.11's `net_tap` counts the link header into the MTU, and would refuse
/// the same super-frame again and again, with everything behind it.
fn link_header_of_segments(driver: &str) -> usize {
    if driver == "net_tap" { 0 } else { LINK_HEADER_BYTES }
}

/// Puts a frame into the burst, with what it asks of the device; true when it asks. A frame too long for the device
/// is dropped and counted.
#[inline(always)]
fn stage(frame: Frame, burst: &mut BurstWriter, max_bytes: usize, errors: &mut u64) -> bool {
    let checksum = frame.offload.checksum;
    let Some(mut mbuf) = frame.into_mbuf() else {
        *errors += 1;
        return false;
    };
    if !(LINK_HEADER_BYTES_MIN..=max_bytes).contains(&mbuf.len()) {
        *errors += 1;
        return false;
    }
    mbuf.clear_offload();
    let asks = matches!(checksum, Checksum::Partial { .. });
    if asks {
        mbuf = offload::request(mbuf, checksum);
    }
    // At most a burst is ready, so there is room.
    burst.push(mbuf);
    asks
}

/// One for all queues. A worker that sends what another has received keeps the memory in its own cache; were that the
/// other's alone, it would never see it again.
fn packet_memory(eal: Eal, device: &EthDev, pools: &[FramePool]) -> Result<Mempool, DpdkError> {
    let frames_max = pools.iter().map(FramePool::frames_max);
    Mempool::new(eal, packets_max(device.descriptors(), frames_max), device.room_bytes(), device.socket())
}

/// Packets that the memory of a port holds: for each worker, so many descriptors to receive into and to send from, and
/// by its own frames what is in flight.
fn packets_max((rx, tx): (u16, u16), frames_max: impl Iterator<Item = usize>) -> usize {
    let in_flight = |frames_max: usize| frames_max.clamp(IN_FLIGHT_MIN, IN_FLIGHT_MAX);
    frames_max.map(|frames_max| usize::from(rx) + usize::from(tx) + in_flight(frames_max)).sum()
}

fn describe(spec: &PortSpec, device: &str, port: &EthPort, queues: usize) -> PortInfo {
    let offloads = port.offloads();
    let (steering, steering_reason) = match port.placement() {
        _ if queues == 1 => Steering::single(),
        Ok(()) => (Steering::Rss, "the device took our hash key and table".into()),
        Err(why) => (Steering::Software, why.into()),
    };
    let named = [
        ("rx-checksum", offloads.rx_checksum),
        ("tx-checksum", offloads.tx_checksum_tcp && offloads.tx_checksum_udp),
        ("tso", offloads.tso),
        ("rss", offloads.rss),
    ];
    PortInfo {
        name: spec.name.clone(),
        driver: "dpdk",
        device: device.into(),
        mac: Mac(port.mac()),
        mtu: port.mtu(),
        queues,
        offloads: named.into_iter().filter(|&(_, on)| on).map(|(name, _)| name).collect(),
        steering,
        steering_reason,
    }
}

fn dpdk_device(spec: &PortSpec) -> Option<(&str, &str)> {
    match &spec.driver {
        DriverSpec::Dpdk { device } => Some((&spec.name, device)),
        DriverSpec::AfPacket { .. } => None,
    }
}

/// `0000:3b:00.1` or `3b:00.1`, perhaps with arguments: it begins with hexadecimal digits and a colon.
fn is_pci(device: &str) -> bool {
    let digits = device.split(':').next().unwrap_or_default();
    digits.len() < device.len() && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn explain(port: &str, workers: usize, error: DpdkError) -> PortError {
    match error {
        DpdkError::NoSuchDevice { device, reason } => {
            PortError::NoSuchDevice { port: port.into(), device: format!("{device} ({reason})") }
        }
        DpdkError::TooFewQueues { queues_max, .. } => {
            PortError::TooFewQueues { port: port.into(), workers, queues_max }
        }
        error => refused(port, error),
    }
}

fn refused(port: &str, error: DpdkError) -> PortError {
    let (what, reason) = match error {
        DpdkError::Refused { what, reason } => (what, reason),
        error => ("open".into(), error.to_string()),
    };
    PortError::Refused { port: port.into(), what, reason }
}

/// Ethernet header and one tag.
const LINK_HEADER_BYTES: usize = 18;
/// Ethernet header alone.
const LINK_HEADER_BYTES_MIN: usize = 14;

/// Mbufs beyond the descriptors: in bursts, caches, queues of the pipeline.
const IN_FLIGHT_MIN: usize = 2048;
const IN_FLIGHT_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker holds a burst that it has received, two that wait for a device, and one that the device's queue has taken.
    #[test]
    fn packet_memory_is_enough_for_all_descriptors_full_caches_and_what_workers_hold() {
        for (workers, frames_max) in [(1, 1), (2, 64), (4, 1_024), (16, 1), (16, 1_024), (16, 100_000)] {
            let each = 512 + 1_024 + Mempool::CACHED_MAX + 4 * BURST_MAX;
            let count = packets_max((512, 1_024), std::iter::repeat_n(frames_max, workers));
            assert!(count >= workers * each, "{workers} workers with {frames_max} frames: {count} packets");
        }
    }

    #[test]
    fn pci_addresses_are_told_from_virtual_devices() {
        assert!(is_pci("0000:3b:00.1") && is_pci("3b:00.1") && is_pci("0000:3b:00.1,arg=1"));
        assert!(!is_pci("net_memif0,role=client") && !is_pci("net_af_packet0,iface=a:b"));
    }
}
