//! The packet generator: sends flows, takes back what comes out, and checks it.
//!
//! One turn is a burst in and a burst out. Received packets become the next ones to send, so that the mempool is
//! touched by the driver alone. Every returned frame's addresses and ports are looked at; one in 64 is checked whole.

use std::time::{Duration, Instant};

use sluice_dataplane::address::Mac;
use sluice_ffi::dpdk::{BURST_MAX, Burst, Eal, EthDev, HashPlan, Mbuf, Mempool, RxQueue, Started, TxQueue};
use sluice_ffi::{hint, tsc};

use crate::scenario::{self, FRAME_BYTES, FrameWriter, SELF_IP, Seen};

/// What is sent, and what must come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Clients' packets; members must get them, translated.
    Requests,
    /// Members' packets; clients must get them, translated back.
    Replies,
    /// Clients' packets; the same with swapped link addresses.
    Macswap,
}

/// What a timed window has seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Window {
    /// Frames that left.
    pub sent: u64,
    /// Frames that came back as they should.
    pub good: u64,
    /// Frames that came back otherwise.
    pub bad: u64,
    /// Of the good ones, those whose checksums were verified, too.
    pub verified: u64,
    /// Bursts that the wire had no room for: above zero, the other side is what bounds.
    pub full_bursts: u64,
    /// Bursts sent.
    pub bursts: u64,
    /// Time-stamp counter cycles.
    pub cycles: u64,
    /// Wall clock.
    pub seconds: f64,
}

impl Window {
    /// Million good frames a second.
    pub fn mpps(&self) -> f64 {
        self.good as f64 / self.seconds / 1e6
    }

    /// Time-stamp counter cycles for each good frame: what the bounding core spends on one when it never waits.
    pub fn cycles_per_packet(&self) -> f64 {
        self.cycles as f64 / self.good.max(1) as f64
    }

    /// The share of sent frames that never came back.
    pub fn lost(&self) -> f64 {
        1.0 - (self.good + self.bad) as f64 / self.sent.max(1) as f64
    }
}

/// One end of a memif, and the traffic on it.
pub struct Generator {
    rx: RxQueue,
    tx: TxQueue,
    port: sluice_ffi::dpdk::EthPort,
    memory: Mempool,
    mac: Mac,
    burst: Burst,
    spare: Vec<Mbuf>,
    answers: Vec<Mbuf>,
    /// Our ARP answers, to leave before anything else.
    pending: Vec<Mbuf>,
    requests: FrameWriter,
    replies: FrameWriter,
    flows: u32,
    next: u32,
    random: u64,
    seen: Vec<Seen>,
    learned: u32,
    device_mac: Option<Mac>,
    window: Window,
}

impl Generator {
    /// Opens `device` for `flows` flows.
    ///
    /// # Errors
    /// DPDK's.
    pub fn open(eal: Eal, device: &str, memory: &Mempool, flows: u32) -> Result<Self, String> {
        let explain = |error: sluice_ffi::dpdk::DpdkError| error.to_string();
        let device = EthDev::open(eal, device).map_err(explain)?;
        let Started { port, mut queues } =
            device.start(std::slice::from_ref(memory), &HashPlan::NONE).map_err(explain)?;
        let (rx, tx) = queues.pop().ok_or("a device without queues")?;
        let mac = Mac(port.mac());
        Ok(Self {
            rx,
            tx,
            port,
            memory: memory.clone(),
            mac,
            burst: Burst::new(),
            spare: Vec::with_capacity(SPARE_MAX),
            answers: Vec::with_capacity(BURST_MAX),
            pending: Vec::new(),
            requests: FrameWriter::from_clients(mac, Mac::BROADCAST),
            replies: FrameWriter::from_members(mac, Mac::BROADCAST),
            flows: flows.clamp(1, scenario::FLOWS_MAX),
            next: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            seen: vec![Seen::default(); flows as usize],
            learned: 0,
            device_mac: None,
            window: Window::default(),
        })
    }

    /// Waits until the other side is there; with `macswap` no address of it is needed.
    ///
    /// # Errors
    /// What did not happen.
    pub fn connect(&mut self, traffic: Traffic, mut is_alive: impl FnMut() -> bool) -> Result<(), String> {
        let start = Instant::now();
        while !self.port.is_link_up() {
            if start.elapsed() > CONNECT_MAX || !is_alive() {
                return Err("the device under test does not connect".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if traffic == Traffic::Macswap {
            self.talk_to(Mac([2, 0, 0, 0, 0, 0xdd]));
            return Ok(());
        }
        while self.device_mac.is_none() {
            if start.elapsed() > CONNECT_MAX || !is_alive() {
                return Err("the device under test does not answer ARP".into());
            }
            self.ask_for_device();
            for _ in 0..100 {
                self.turn(traffic, false);
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        Ok(())
    }

    /// Sends every flow's first packet, and again, until each has come back once.
    ///
    /// # Errors
    /// How many flows never came back.
    pub fn warm_up(&mut self) -> Result<Duration, String> {
        let start = Instant::now();
        while self.learned < self.flows {
            if start.elapsed() > WARM_UP_MAX {
                return Err(format!("{} of {} flows never came back", self.flows - self.learned, self.flows));
            }
            self.turn_with(Traffic::Requests, Self::next_unlearned);
        }
        Ok(start.elapsed())
    }

    /// Sends until frames come back.
    ///
    /// # Errors
    /// When none do.
    pub fn wait_for_frames(&mut self, traffic: Traffic) -> Result<(), String> {
        let start = Instant::now();
        self.window = Window::default();
        while self.window.good < 100_000 {
            if start.elapsed() > CONNECT_MAX {
                return Err("nothing comes back from the device under test".into());
            }
            self.turn(traffic, true);
        }
        Ok(())
    }

    /// Runs `traffic` for `span`.
    pub fn run(&mut self, traffic: Traffic, span: Duration) -> Window {
        self.window = Window::default();
        let (start, from) = (Instant::now(), tsc::cycles());
        while start.elapsed() < span {
            for _ in 0..TURNS_PER_LOOK {
                self.turn(traffic, true);
            }
        }
        self.window.cycles = tsc::cycles() - from;
        self.window.seconds = start.elapsed().as_secs_f64();
        self.window
    }

    #[inline(always)]
    fn turn(&mut self, traffic: Traffic, send: bool) {
        self.receive(traffic);
        self.answer();
        if send {
            self.fill(traffic, Self::next_at_random);
            self.send();
        }
    }

    #[inline(always)]
    fn turn_with(&mut self, traffic: Traffic, pick: impl FnMut(&mut Self) -> u32) {
        self.receive(traffic);
        self.answer();
        self.fill(traffic, pick);
        self.send();
    }

    #[inline(always)]
    fn receive(&mut self, traffic: Traffic) {
        let Self { rx, spare, answers, window, seen, learned, mac, .. } = self;
        rx.rx(|mbuf| {
            let Some(frame) = mbuf.bytes().first_chunk::<FRAME_BYTES>().filter(|_| is_udp(mbuf.bytes()))
            else {
                // Not ours to count: ARP, and what sluice sends of its own accord.
                answers.push(mbuf);
                return;
            };
            let is_good = match traffic {
                Traffic::Requests => learn(frame, seen, learned),
                Traffic::Replies => scenario::is_reply_at_client(frame),
                Traffic::Macswap => frame[..6] == mac.0,
            };
            if !is_good {
                window.bad += 1;
            } else if window.good & VERIFY_MASK == 0 && traffic != Traffic::Macswap {
                let is_ours = frame[..6] == mac.0 && scenario::is_sound(frame);
                window.good += u64::from(is_ours);
                window.verified += u64::from(is_ours);
                window.bad += u64::from(!is_ours);
            } else {
                window.good += 1;
            }
            if spare.len() < SPARE_MAX {
                spare.push(mbuf);
            }
        });
    }

    /// Makes a whole burst ready.
    #[inline(always)]
    fn fill(&mut self, traffic: Traffic, mut pick: impl FnMut(&mut Self) -> u32) {
        while !self.burst.is_full()
            && let Some(answer) = self.pending.pop()
        {
            let _ = self.burst.push(answer);
        }
        let mut flows = [0; BURST_MAX];
        let room = BURST_MAX - self.burst.len();
        for flow in &mut flows[..room] {
            *flow = pick(self);
            if traffic == Traffic::Replies {
                hint::prefetch(&self.seen[*flow as usize]);
            }
        }
        for &flow in &flows[..room] {
            let Some(mut mbuf) = self.spare.pop().or_else(|| fresh(&self.memory)) else { return };
            let Some(frame) = mbuf.bytes_mut().first_chunk_mut::<FRAME_BYTES>() else { return };
            match traffic {
                Traffic::Requests | Traffic::Macswap => self.requests.write_request(frame, flow),
                Traffic::Replies => self.replies.write_reply(frame, flow, self.seen[flow as usize]),
            }
            // The loop ends when the burst is full.
            let _ = self.burst.push(mbuf);
        }
    }

    #[inline(always)]
    fn send(&mut self) {
        if self.burst.is_empty() {
            return;
        }
        self.window.bursts += 1;
        self.window.sent += self.tx.tx(&mut self.burst) as u64;
        self.window.full_bursts += u64::from(!self.burst.is_empty());
    }

    #[inline(always)]
    fn next_at_random(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (((self.random >> 32) * u64::from(self.flows)) >> 32) as u32
    }

    fn next_unlearned(&mut self) -> u32 {
        for _ in 0..self.flows {
            self.next = if self.next + 1 < self.flows { self.next + 1 } else { 0 };
            if self.seen[self.next as usize] == Seen::default() {
                break;
            }
        }
        self.next
    }

    fn talk_to(&mut self, mac: Mac) {
        self.device_mac = Some(mac);
        self.requests = FrameWriter::from_clients(self.mac, mac);
        self.replies = FrameWriter::from_members(self.mac, mac);
    }

    fn ask_for_device(&mut self) {
        let ask = arp(1, self.mac, [10, 1, 1, 1], Mac::default(), SELF_IP, Mac::BROADCAST);
        if let Some(mbuf) = self.memory.copy_of(&ask) {
            let _ = self.burst.push(mbuf);
        }
        self.send();
    }

    /// We are every host but the device: answers ARP for all addresses that others ask for.
    #[inline(always)]
    fn answer(&mut self) {
        if !self.answers.is_empty() {
            self.answer_all();
        }
    }

    #[cold]
    fn answer_all(&mut self) {
        for mbuf in std::mem::take(&mut self.answers) {
            let Some(Arp { operation, sender, sender_mac, target }) = Arp::read(mbuf.bytes()) else {
                continue;
            };
            if sender == SELF_IP && self.device_mac.is_none() {
                self.talk_to(sender_mac);
            }
            if operation == 1 && sender == SELF_IP && target != SELF_IP {
                let answer = arp(2, self.mac, target, sender_mac, sender, sender_mac);
                self.pending.extend(self.memory.copy_of(&answer));
            }
        }
    }
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

#[inline(always)]
fn is_udp(bytes: &[u8]) -> bool {
    bytes.len() == FRAME_BYTES && bytes[12..14] == [8, 0] && bytes[23] == 17
}

/// A request as a member gets it; the flow's translation must stay what it was.
#[inline(always)]
fn learn(frame: &[u8; FRAME_BYTES], seen: &mut [Seen], learned: &mut u32) -> bool {
    if !scenario::is_request_at_member(frame) {
        return false;
    }
    if *learned as usize == seen.len() {
        return true;
    }
    let Some(known) = seen.get_mut(scenario::flow_of(frame) as usize) else { return false };
    let now = scenario::seen_in(frame);
    if *known == Seen::default() {
        *known = now;
        *learned += 1;
    }
    *known == now
}

#[inline(always)]
fn fresh(memory: &Mempool) -> Option<Mbuf> {
    let mut mbuf = memory.alloc()?;
    mbuf.append(FRAME_BYTES).then_some(mbuf)
}

/// Received packets kept for sending.
const SPARE_MAX: usize = 4 * BURST_MAX;
const VERIFY_MASK: u64 = 63;
const TURNS_PER_LOOK: usize = 64;
const CONNECT_MAX: Duration = Duration::from_secs(20);
const WARM_UP_MAX: Duration = Duration::from_secs(60);
