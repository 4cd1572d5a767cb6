//! One end of a memif, as a neighbour sees it: a queue pair, frames to send, and ARP for every host there is.

use std::time::{Duration, Instant};

use sluice_dataplane::address::Mac;
use sluice_ffi::dpdk::{
    BURST_MAX, Burst, Eal, EthDev, EthPort, HashPlan, Mbuf, Mempool, RxQueue, Started, TxQueue,
};

use crate::scenario::{FRAME_BYTES, SELF_IP};

/// A queue pair of the generator's end.
pub struct Station {
    pub(super) rx: RxQueue,
    pub(super) tx: TxQueue,
    port: EthPort,
    pub(super) memory: Mempool,
    pub(super) mac: Mac,
    pub(super) device_mac: Option<Mac>,
    pub(super) burst: Burst,
    /// Frames sent at once, at most; those of [`super::generator`] received, too.
    pub(super) burst_max: usize,
    /// Received packets kept for sending.
    pub(super) spare: Vec<Mbuf>,
    /// What was received and is not ours to count.
    pub(super) others: Vec<Mbuf>,
    /// Our ARP answers, to leave before anything else.
    pub(super) pending: Vec<Mbuf>,
}

impl Station {
    /// Opens `device` with a queue pair for each of `memories`.
    ///
    /// # Errors
    /// DPDK's.
    pub fn open(eal: Eal, device: &str, memories: &[Mempool]) -> Result<Vec<Self>, String> {
        let explain = |error: sluice_ffi::dpdk::DpdkError| error.to_string();
        let device = EthDev::open(eal, device).map_err(explain)?;
        let Started { port, queues } = device.start(memories, &HashPlan::NONE).map_err(explain)?;
        let pairs = queues.into_iter().zip(memories);
        Ok(pairs.map(|((rx, tx), memory)| Self::new(rx, tx, port.clone(), memory.clone())).collect())
    }

    fn new(rx: RxQueue, tx: TxQueue, port: EthPort, memory: Mempool) -> Self {
        Self {
            rx,
            tx,
            mac: Mac(port.mac()),
            port,
            memory,
            device_mac: None,
            burst: Burst::new(),
            burst_max: TESTPMD_BURST,
            spare: Vec::with_capacity(SPARE_MAX),
            others: Vec::with_capacity(BURST_MAX),
            pending: Vec::new(),
        }
    }

    /// Waits until the other side is there.
    ///
    /// # Errors
    /// That it does not come.
    pub fn wait_for_link(&self, mut is_alive: impl FnMut() -> bool) -> Result<(), String> {
        let start = Instant::now();
        while !self.port.is_link_up() {
            if start.elapsed() > CONNECT_MAX || !is_alive() {
                return Err("the device under test does not connect".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Waits until the device has said its link address, which it returns.
    ///
    /// # Errors
    /// That it does not.
    pub fn connect(&mut self, mut is_alive: impl FnMut() -> bool) -> Result<Mac, String> {
        self.wait_for_link(&mut is_alive)?;
        let start = Instant::now();
        loop {
            if let Some(mac) = self.device_mac {
                return Ok(mac);
            }
            if start.elapsed() > CONNECT_MAX || !is_alive() {
                return Err("the device under test does not answer ARP".into());
            }
            self.ask_for_device();
            for _ in 0..100 {
                self.receive(|_| false);
                self.send_pending();
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    }

    /// Takes in a burst, answers ARP, and gives every other frame to `take`, which says whether it may be used again
    /// to be sent. Returns how many frames there were.
    pub fn receive(&mut self, mut take: impl FnMut(&[u8]) -> bool) -> usize {
        let Self { rx, spare, others, .. } = self;
        let count = rx.rx(BURST_MAX, |mbuf| {
            if mbuf.bytes().get(12..14) == Some(&[8, 6]) {
                others.push(mbuf);
            } else if take(mbuf.bytes()) && spare.len() < SPARE_MAX {
                spare.push(mbuf);
            }
        });
        self.answer();
        count
    }

    /// True when one more frame may be sent with those of the burst.
    #[inline(always)]
    pub(super) fn has_room(&self) -> bool {
        self.burst.len() < self.burst_max
    }

    /// Puts what is pending into the burst, as far as there is room.
    #[inline(always)]
    pub fn push_pending(&mut self) {
        while self.has_room()
            && let Some(answer) = self.pending.pop()
        {
            // The loop ends when the burst is full.
            let _ = self.burst.push(answer);
        }
    }

    /// Lets `write` fill one more frame of the burst; false when that is full, or there is no memory.
    pub fn push(&mut self, write: impl FnOnce(&mut [u8; FRAME_BYTES])) -> bool {
        if !self.has_room() {
            return false;
        }
        let Some(mut mbuf) = self.spare.pop().and_then(whole).or_else(|| fresh(&self.memory)) else {
            return false;
        };
        let Some(frame) = mbuf.bytes_mut().first_chunk_mut() else { return false };
        write(frame);
        self.burst.push(mbuf).is_ok()
    }

    /// Lets `write` fill one more frame of `len` bytes; false when the wire has no room for it now, or there is no memory.
    pub fn put(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> bool {
        if !self.has_room() {
            self.send();
        }
        let mbuf = if self.has_room() { self.memory.alloc() } else { None };
        let Some(mut mbuf) = mbuf.filter(Mbuf::is_empty) else { return false };
        if !mbuf.append(len) {
            return false;
        }
        write(mbuf.bytes_mut());
        self.burst.push(mbuf).is_ok()
    }

    /// Sends the burst; returns how many frames the wire took. The rest stay.
    #[inline(always)]
    pub fn send(&mut self) -> usize {
        self.tx.tx(&mut self.burst)
    }

    fn send_pending(&mut self) {
        self.push_pending();
        self.send();
    }

    fn ask_for_device(&mut self) {
        let ask = arp(1, self.mac, [10, 1, 1, 1], Mac::default(), SELF_IP, Mac::BROADCAST);
        self.pending.extend(self.memory.copy_of(&ask));
        self.send_pending();
    }

    /// We are every host but the device: answers ARP for all addresses that others ask for.
    #[inline(always)]
    pub(super) fn answer(&mut self) {
        if !self.others.is_empty() {
            self.answer_all();
        }
    }

    #[cold]
    fn answer_all(&mut self) {
        for mbuf in std::mem::take(&mut self.others) {
            let Some(Arp { operation, sender, sender_mac, target }) = Arp::read(mbuf.bytes()) else {
                continue;
            };
            if sender == SELF_IP && self.device_mac.is_none() {
                self.device_mac = Some(sender_mac);
            }
            if operation == 1 && sender == SELF_IP && target != SELF_IP {
                let answer = arp(2, self.mac, target, sender_mac, sender, sender_mac);
                self.pending.extend(self.memory.copy_of(&answer));
            }
        }
    }
}

/// An mbuf of a frame's length.
#[inline(always)]
pub(super) fn fresh(memory: &Mempool) -> Option<Mbuf> {
    whole(memory.alloc()?)
}

/// The same mbuf, of a frame's length: what the device sends may be without padding.
#[inline(always)]
fn whole(mut mbuf: Mbuf) -> Option<Mbuf> {
    mbuf.truncate(FRAME_BYTES);
    let missing = FRAME_BYTES - mbuf.len();
    (missing == 0 || mbuf.append(missing)).then_some(mbuf)
}

/// An ARP message over Ethernet for IPv4.
struct Arp {
    operation: u8,
    sender: [u8; 4],
    sender_mac: Mac,
    target: [u8; 4],
}

impl Arp {
    fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<42>()?;
        let four = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let mac = [bytes[22], bytes[23], bytes[24], bytes[25], bytes[26], bytes[27]];
        let is_arp = bytes[12..14] == [8, 6];
        is_arp.then(|| Self {
            operation: bytes[21],
            sender: four(28),
            sender_mac: Mac(mac),
            target: four(38),
        })
    }
}

fn arp(operation: u8, mac: Mac, sender: [u8; 4], target_mac: Mac, target: [u8; 4], to: Mac) -> [u8; 60] {
    let mut bytes = [0; 60];
    bytes[..6].copy_from_slice(&to.0);
    bytes[6..12].copy_from_slice(&mac.0);
    bytes[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    bytes[22..28].copy_from_slice(&mac.0);
    bytes[28..32].copy_from_slice(&sender);
    bytes[32..38].copy_from_slice(&target_mac.0);
    bytes[38..42].copy_from_slice(&target);
    bytes
}

/// Received packets kept for sending.
pub(super) const SPARE_MAX: usize = 4 * BURST_MAX;
/// As many as testpmd sends at once.
pub const TESTPMD_BURST: usize = 32;
const CONNECT_MAX: Duration = Duration::from_secs(20);
