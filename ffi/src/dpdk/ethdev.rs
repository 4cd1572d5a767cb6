//! A device: found by name, configured and started once, stopped and closed when nobody holds it any more.

use std::ffi::{CString, c_char, c_void};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, mpsc};

use super::placement::{HashPlan, KEY_BYTES_MAX};
use super::queue::{RxQueue, TxQueue};
use super::{DpdkError, Eal, HEADROOM_BYTES, Mempool, lock, log, sys};

/// A device that is there and does not run yet.
pub struct EthDev {
    pub(super) handle: Handle,
    pub(super) info: sys::rte_eth_dev_info,
}

/// A running device and its queues.
#[derive(Debug)]
pub struct Started {
    /// For facts and counters.
    pub port: EthPort,
    /// As many as pools were given.
    pub queues: Vec<(RxQueue, TxQueue)>,
}

/// A running device. Cloning shares it.
#[derive(Debug, Clone)]
pub struct EthPort {
    device: Arc<Device>,
}

/// What a device does with packets on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offloads {
    /// Checks IPv4, TCP and UDP checksums of what it receives.
    pub rx_checksum: bool,
    /// Completes TCP checksums of what it sends.
    pub tx_checksum_tcp: bool,
    /// Completes UDP checksums of what it sends.
    pub tx_checksum_udp: bool,
    /// Cuts TCP super-frames, gathered from chains, into segments.
    pub tso: bool,
    /// Spreads flows over its receive queues by hash.
    pub rss: bool,
}

/// Counts of a device, all queues together, since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EthStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets lost because no descriptor was free.
    pub rx_missed: u64,
    /// Packets received damaged.
    pub rx_errors: u64,
    /// Packets for which there was no mbuf.
    pub rx_no_memory: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
}

/// What queues and handles share; the last one to go stops the device, then lets go of the pools.
pub(super) struct Device {
    handle: Handle,
    offloads: Offloads,
    /// Why it does not place packets as planned.
    placement: Result<(), String>,
    mac: [u8; 6],
    mtu: u16,
    driver: String,
    _pools: Vec<Mempool>,
}

/// Stops and closes the port on drop, and removes the device if it was plugged in here.
pub(super) struct Handle {
    pub(super) port: u16,
    name: String,
    /// Null for devices that EAL's own arguments brought.
    plugged: *mut sys::rte_device,
}

// SAFETY: the pointer is only handed back to DPDK, once, on drop; DPDK locks its control calls.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl EthDev {
    /// Finds `device`: a PCI address, or a vdev string such as `net_memif0,role=client,id=0`, which is plugged in
    /// when it is not there yet.
    ///
    /// # Errors
    /// [`DpdkError::NoSuchDevice`] with DPDK's reason; [`DpdkError::Refused`] when this process has it open.
    pub fn open(_: Eal, device: &str) -> Result<Self, DpdkError> {
        // What earlier calls have logged is not about this device.
        log::take();
        let handle = claim(device)?;
        let info = device_info(handle.port)?;
        Ok(Self { handle, info })
    }

    /// The most receive and send queue pairs it can have.
    pub fn queues_max(&self) -> usize {
        self.info.max_rx_queues.min(self.info.max_tx_queues).into()
    }

    /// NUMA node for its packet memory; -1 when it does not matter.
    pub fn socket(&self) -> i32 {
        // SAFETY: the port is open while the handle lives.
        unsafe { sys::rte_eth_dev_socket_id(self.handle.port) }
    }

    /// Largest IP packet, in bytes.
    pub fn mtu(&self) -> u16 {
        mtu(self.handle.port)
    }

    /// Bytes an mbuf needs behind its headroom to receive a full frame in one piece.
    pub fn room_bytes(&self) -> usize {
        let frame = usize::from(self.mtu()) + FRAME_OVERHEAD_BYTES;
        frame.max(self.info.min_rx_bufsize as usize).max(ROOM_BYTES_MIN).next_multiple_of(64)
    }

    /// Descriptors a queue will have in each direction, so that pools can be sized.
    pub fn descriptors(&self) -> (u16, u16) {
        let or = |preferred: u16| if preferred == 0 { DESCRIPTORS } else { preferred };
        (or(self.info.default_rxportconf.ring_size), or(self.info.default_txportconf.ring_size))
    }

    /// Starts the device with one queue pair for each of `pools`; queue `i` receives into `pools[i]`.
    ///
    /// Of checksum and segmentation, whatever the device offers is turned on, and it is asked to place packets as
    /// planned ([`EthPort::placement`] says whether it does). All multicast is received (IPv6 neighbour discovery needs it), through promiscuous mode where there is no other way.
    ///
    /// # Errors
    /// [`DpdkError::TooFewQueues`]; [`DpdkError::Refused`]. The device is closed then.
    pub fn start(self, pools: &[Mempool], plan: &HashPlan) -> Result<Started, DpdkError> {
        if pools.is_empty() || pools.len() > self.queues_max() {
            return Err(DpdkError::TooFewQueues { wanted: pools.len(), queues_max: self.queues_max() });
        }
        let offloads = self.configure(pools.len() as u16, plan)?;
        let (rx_descriptors, tx_descriptors) = self.adjusted_descriptors()?;
        for (queue, pool) in (0u16..).zip(pools) {
            self.set_up_queue(queue, pool, rx_descriptors, tx_descriptors)?;
        }
        let port = self.handle.port;
        // SAFETY: configured, and all queues are set up.
        self.check("start", unsafe { sys::rte_eth_dev_start(port) })?;
        receive_multicast(port);
        let placement = self.place(pools.len(), plan);
        Ok(self.into_started(offloads, placement, pools))
    }

    fn configure(&self, queues: u16, plan: &HashPlan) -> Result<Offloads, DpdkError> {
        let wanted = if queues > 1 { WANTED_RX | sys::SLUICE_RX_RSS_HASH } else { WANTED_RX };
        let (rx, tx) = (self.info.rx_offload_capa & wanted, self.info.tx_offload_capa & WANTED_TX);
        let tx = if tx & TSO == TSO { tx } else { tx & !TSO };
        let spread = self.info.flow_type_rss_offloads & (sys::SLUICE_RSS_TCP_UDP | sys::SLUICE_RSS_IP);
        let rss = queues > 1 && spread != 0;
        // Longer keys hash longer input, which ours does not have.
        let mut key = [0; KEY_BYTES_MAX as usize];
        key[..40].copy_from_slice(plan.key);
        let mut conf = sys::rte_eth_conf::default();
        conf.rxmode.offloads = rx;
        conf.txmode.offloads = tx;
        if rss {
            conf.rxmode.mq_mode = sys::rte_eth_rx_mq_mode::RTE_ETH_MQ_RX_RSS;
            conf.rx_adv_conf.rss_conf.rss_hf = spread;
            if let length @ 40..=KEY_BYTES_MAX = self.info.hash_key_size {
                conf.rx_adv_conf.rss_conf.rss_key = key.as_mut_ptr();
                conf.rx_adv_conf.rss_conf.rss_key_len = length;
            }
        }
        // SAFETY: the port is open and stopped; `conf` and the key outlive the call, which copies them.
        let result = unsafe { sys::rte_eth_dev_configure(self.handle.port, queues, queues, &raw const conf) };
        self.check("configure", result)?;
        Ok(Offloads {
            rx_checksum: rx & CHECKSUM_RX == CHECKSUM_RX,
            tx_checksum_tcp: tx & sys::SLUICE_TX_TCP_CKSUM != 0,
            tx_checksum_udp: tx & sys::SLUICE_TX_UDP_CKSUM != 0,
            tso: tx & TSO == TSO,
            rss,
        })
    }

    fn adjusted_descriptors(&self) -> Result<(u16, u16), DpdkError> {
        let (mut rx, mut tx) = self.descriptors();
        // SAFETY: the port is configured; both numbers outlive the call.
        let result =
            unsafe { sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.handle.port, &raw mut rx, &raw mut tx) };
        self.check("size the rings of", result).map(|()| (rx, tx))
    }

    fn set_up_queue(&self, queue: u16, pool: &Mempool, rx: u16, tx: u16) -> Result<(), DpdkError> {
        let port = self.handle.port;
        let socket = self.socket() as u32;
        let defaults = std::ptr::null();
        // SAFETY: configured with this queue; the pool is kept by the device until after it is closed.
        let result = unsafe { sys::rte_eth_rx_queue_setup(port, queue, rx, socket, defaults, pool.as_ptr()) };
        self.check("set up a receive queue of", result)?;
        // SAFETY: configured with this queue.
        let result = unsafe { sys::rte_eth_tx_queue_setup(port, queue, tx, socket, std::ptr::null()) };
        self.check("set up a send queue of", result)
    }

    fn into_started(self, offloads: Offloads, placement: Result<(), String>, pools: &[Mempool]) -> Started {
        let port = self.handle.port;
        let device = Arc::new(Device {
            offloads,
            placement,
            mac: mac(port),
            mtu: mtu(port),
            driver: text(self.info.driver_name),
            _pools: pools.to_vec(),
            handle: self.handle,
        });
        let pair =
            |queue| (RxQueue::new(Arc::clone(&device), queue), TxQueue::new(Arc::clone(&device), queue));
        let queues = (0..pools.len() as u16).map(pair).collect();
        Started { port: EthPort { device }, queues }
    }

    pub(super) fn check(&self, what: &str, result: i32) -> Result<(), DpdkError> {
        if result == 0 {
            return Ok(());
        }
        Err(DpdkError::refused(format!("{what} {}", self.handle.name), result))
    }
}

impl EthPort {
    /// Its Ethernet address.
    pub fn mac(&self) -> [u8; 6] {
        self.device.mac
    }

    /// Largest IP packet, in bytes.
    pub fn mtu(&self) -> u16 {
        self.device.mtu
    }

    /// What was turned on.
    pub fn offloads(&self) -> Offloads {
        self.device.offloads
    }

    /// Whether it was told to place packets as planned, and has agreed.
    ///
    /// # Errors
    /// Why not.
    pub fn placement(&self) -> Result<(), &str> {
        self.device.placement.as_ref().copied().map_err(String::as_str)
    }

    /// DPDK's name for the driver, such as `net_memif`.
    pub fn driver(&self) -> &str {
        &self.device.driver
    }

    /// True when the link has carrier. May cost a system call.
    pub fn is_link_up(&self) -> bool {
        // SAFETY: the port is open while the device lives.
        unsafe { sys::sluice_link_is_up(self.device.port()) != 0 }
    }

    /// Counts since the start. May cost a system call.
    pub fn stats(&self) -> EthStats {
        let mut stats = sys::rte_eth_stats::default();
        // SAFETY: the port is open; `stats` outlives the call. On failure it stays zero.
        unsafe { sys::rte_eth_stats_get(self.device.port(), &raw mut stats) };
        EthStats {
            rx_packets: stats.ipackets,
            tx_packets: stats.opackets,
            rx_missed: stats.imissed,
            rx_errors: stats.ierrors,
            rx_no_memory: stats.rx_nombuf,
            tx_errors: stats.oerrors,
        }
    }
}

impl Device {
    #[inline(always)]
    pub(super) fn port(&self) -> u16 {
        self.handle.port
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Held to the end: DPDK gives the number of a closed port to the next device at once.
        let mut open = open_ports();
        close_between_interrupts(self.port);
        if !self.plugged.is_null() {
            // SAFETY: the device was plugged in by `plug`, and its only port is closed.
            unsafe { sys::rte_dev_remove(self.plugged) };
        }
        open.retain(|&port| port != self.port);
    }
}

/// Stops and closes the port on DPDK's interrupt thread, and waits until it is.
///
/// Drivers handle control messages there, without a lock against closing: a memif that takes in its peer's goodbye
/// while another thread closes it frees its rings twice.
fn close_between_interrupts(port: u16) {
    let (done, is_done) = mpsc::channel();
    let job = Box::into_raw(Box::new(Closing { port, done }));
    // SAFETY: `close_now` takes the box back, once.
    let result = unsafe { sys::rte_eal_alarm_set(1, Some(close_now), job.cast()) };
    if result != 0 {
        close_now(job.cast());
    }
    // An error means that the closing is over, too.
    let _ = is_done.recv();
}

struct Closing {
    port: u16,
    done: mpsc::Sender<()>,
}

extern "C" fn close_now(job: *mut c_void) {
    // SAFETY: made by `close_between_interrupts`, which gave it up to this one call.
    let job = unsafe { Box::from_raw(job.cast::<Closing>()) };
    // SAFETY: no queue or handle is left to use the port. Stopping a stopped port changes nothing.
    unsafe { sys::rte_eth_dev_stop(job.port) };
    // SAFETY: stopped, and closed this once.
    unsafe { sys::rte_eth_dev_close(job.port) };
    let _ = job.done.send(());
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device {{ {} ({}), {:?} }}", self.handle.name, self.driver, self.offloads)
    }
}

impl fmt::Debug for EthDev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EthDev {{ {}, queues_max: {} }}", self.handle.name, self.queues_max())
    }
}

/// The part of `device` that DPDK knows it by; a PCI address gets its domain.
fn device_name(device: &str) -> String {
    let name = device.split(',').next().unwrap_or_default();
    let is_short_pci = name.len() == 7 && name.as_bytes()[2] == b':' && name.as_bytes()[5] == b'.';
    if is_short_pci { format!("0000:{name}") } else { name.into() }
}

fn port_of(name: &str) -> Option<u16> {
    let name = CString::new(name).ok()?;
    let mut port = 0;
    // SAFETY: the name ends in a zero byte; `port` outlives the call.
    let result = unsafe { sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &raw mut port) };
    (result == 0).then_some(port)
}

/// Finds the device or plugs it in, and notes that it is open: a second owner would share its queues.
fn claim(device: &str) -> Result<Handle, DpdkError> {
    let name = device_name(device);
    let mut open = open_ports();
    let (port, plugged) = match port_of(&name) {
        Some(port) => (port, std::ptr::null_mut()),
        None => plug(device, &name)?,
    };
    if open.contains(&port) {
        let (what, reason) = (format!("open {name}"), "it is open already".into());
        return Err(DpdkError::Refused { what, reason });
    }
    open.push(port);
    Ok(Handle { port, name, plugged })
}

fn plug(device: &str, name: &str) -> Result<(u16, *mut sys::rte_device), DpdkError> {
    let missing = |reason| DpdkError::NoSuchDevice { device: device.into(), reason };
    let arguments = CString::new(device).map_err(|_| missing("a zero byte in its name".into()))?;
    // SAFETY: the string ends in a zero byte and is copied.
    let result = unsafe { sys::rte_dev_probe(arguments.as_ptr()) };
    if result != 0 {
        return Err(missing(log::reason(result)));
    }
    let port = port_of(name).ok_or_else(|| missing("no driver took it".into()))?;
    Ok((port, device_info(port)?.device))
}

fn open_ports() -> MutexGuard<'static, Vec<u16>> {
    lock(&OPEN_PORTS)
}

fn device_info(port: u16) -> Result<sys::rte_eth_dev_info, DpdkError> {
    let mut info = sys::rte_eth_dev_info::default();
    // SAFETY: `info` outlives the call.
    let result = unsafe { sys::rte_eth_dev_info_get(port, &raw mut info) };
    if result == 0 { Ok(info) } else { Err(DpdkError::refused("ask the device what it can do", result)) }
}

fn mac(port: u16) -> [u8; 6] {
    let mut address = sys::rte_ether_addr::default();
    // SAFETY: the port is open; `address` outlives the call. On failure it stays zero.
    unsafe { sys::rte_eth_macaddr_get(port, &raw mut address) };
    address.addr_bytes
}

fn mtu(port: u16) -> u16 {
    let mut mtu = 0;
    // SAFETY: the port is open; `mtu` outlives the call.
    let result = unsafe { sys::rte_eth_dev_get_mtu(port, &raw mut mtu) };
    if result == 0 && mtu > 0 { mtu } else { 1500 }
}

/// Neighbour discovery goes to multicast addresses (RFC 4861). Virtual devices receive them anyway, and refuse both.
fn receive_multicast(port: u16) {
    // SAFETY: the port runs.
    if unsafe { sys::rte_eth_allmulticast_enable(port) } != 0 {
        // SAFETY: the port runs.
        unsafe { sys::rte_eth_promiscuous_enable(port) };
    }
}

pub(super) fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: not null; DPDK's driver names are static and end in a zero byte.
    unsafe { std::ffi::CStr::from_ptr(string) }.to_string_lossy().into_owned()
}

static OPEN_PORTS: Mutex<Vec<u16>> = Mutex::new(Vec::new());

const CHECKSUM_RX: u64 = sys::SLUICE_RX_IPV4_CKSUM | sys::SLUICE_RX_TCP_CKSUM | sys::SLUICE_RX_UDP_CKSUM;
const WANTED_RX: u64 = CHECKSUM_RX | sys::SLUICE_RX_SCATTER;

/// Segmentation is of use only with gathering (no mbuf holds a super-frame) and with header checksums.
const TSO: u64 = sys::SLUICE_TX_TCP_TSO | sys::SLUICE_TX_MULTI_SEGS | sys::SLUICE_TX_IPV4_CKSUM;
/// Never `MBUF_FAST_FREE`: it promises that all packets of a queue come from one pool, and frames of any port may
/// leave through any other.
const WANTED_TX: u64 = TSO | sys::SLUICE_TX_TCP_CKSUM | sys::SLUICE_TX_UDP_CKSUM;

/// When the device has no wish of its own. More descriptors than the cache holds packets cost more than they save.
const DESCRIPTORS: u16 = 512;

/// Ethernet header, two tags, frame check sequence.
const FRAME_OVERHEAD_BYTES: usize = 14 + 8 + 4;

/// What drivers expect at least behind the headroom.
const ROOM_BYTES_MIN: usize = 2048;
const _: () = assert!(HEADROOM_BYTES == 128, "frame headroom and mbuf headroom are one thing");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_known_by_what_stands_before_the_comma() {
        assert_eq!(device_name("net_memif0,role=client,id=0"), "net_memif0");
        assert_eq!(device_name("0000:3b:00.1"), "0000:3b:00.1");
        assert_eq!(device_name("3b:00.1"), "0000:3b:00.1");
    }

    #[test]
    fn fast_free_is_never_wanted() {
        assert_eq!(WANTED_TX & (1 << 16), 0, "RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE");
    }
}
