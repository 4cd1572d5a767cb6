//! The packet generator: sends flows, takes back what comes out, and checks it.
//!
//! One turn is a burst in and a burst out. Received packets become the next ones to send, so that the mempool is
//! touched by the driver alone. Every returned frame's addresses and ports are looked at; one in 64 is checked whole.

use std::time::{Duration, Instant};

use sluice_dataplane::address::Mac;
use sluice_ffi::dpdk::BURST_MAX;
use sluice_ffi::{hint, tsc};

use super::station::{SPARE_MAX, Station, fresh};
use crate::scenario::{self, FRAME_BYTES, FrameWriter, Seen};

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

/// What was heard of the device while it had frames to send back all the time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Heard {
    /// The longest time without a frame while the generator listened.
    pub silence: Duration,
    /// Frames that never came back.
    pub lost: u64,
    /// How long the generator was not on its core.
    pub away: Duration,
}

impl Window {
    /// What generators that ran side by side have seen together.
    pub fn sum(windows: &[Window]) -> Window {
        windows.iter().fold(Window::default(), |sum, one| Window {
            sent: sum.sent + one.sent,
            good: sum.good + one.good,
            bad: sum.bad + one.bad,
            verified: sum.verified + one.verified,
            full_bursts: sum.full_bursts + one.full_bursts,
            bursts: sum.bursts + one.bursts,
            cycles: sum.cycles.max(one.cycles),
            seconds: sum.seconds.max(one.seconds),
        })
    }

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

/// The traffic of one queue pair.
pub struct Generator {
    station: Station,
    requests: FrameWriter,
    replies: FrameWriter,
    /// Its flows are these, so that generators share none.
    first: u32,
    flows: u32,
    next: u32,
    random: u64,
    seen: Vec<Seen>,
    learned: u32,
    window: Window,
}

impl Generator {
    /// For `flows` flows from number `first` on.
    pub fn new(station: Station, first: u32, flows: u32) -> Self {
        let flows = flows.clamp(1, scenario::FLOWS_MAX - first);
        let mac = station.mac;
        Self {
            station,
            requests: FrameWriter::from_clients(mac, Mac::BROADCAST),
            replies: FrameWriter::from_members(mac, Mac::BROADCAST),
            first,
            flows,
            next: 0,
            random: 0x9e37_79b9_7f4a_7c15 ^ u64::from(first),
            seen: vec![Seen::default(); flows as usize],
            learned: 0,
            window: Window::default(),
        }
    }

    /// Waits until the other side is there, and returns its link address; with `macswap` any will do.
    ///
    /// # Errors
    /// What did not happen.
    pub fn connect(&mut self, traffic: Traffic, is_alive: impl FnMut() -> bool) -> Result<Mac, String> {
        if traffic == Traffic::Macswap {
            self.station.wait_for_link(is_alive)?;
            return Ok(Mac([2, 0, 0, 0, 0, 0xdd]));
        }
        self.station.connect(is_alive)
    }

    /// From now on frames go to `mac`.
    pub fn talk_to(&mut self, mac: Mac) {
        self.requests = FrameWriter::from_clients(self.station.mac, mac);
        self.replies = FrameWriter::from_members(self.station.mac, mac);
    }

    /// Sends every flow's first packet, and again, until each has come back once.
    ///
    /// # Errors
    /// How many flows never came back.
    pub fn warm_up(&mut self) -> Result<Duration, String> {
        let start = Instant::now();
        while self.learned < self.flows {
            if start.elapsed() > WARM_UP_MAX + WARM_UP_EACH * self.flows {
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
            self.turn(traffic);
        }
        Ok(())
    }

    /// Runs `traffic` for `span`.
    pub fn run(&mut self, traffic: Traffic, span: Duration) -> Window {
        self.window = Window::default();
        let (start, from) = (Instant::now(), tsc::cycles());
        while start.elapsed() < span {
            for _ in 0..TURNS_PER_LOOK {
                self.turn(traffic);
            }
        }
        self.window.cycles = tsc::cycles() - from;
        self.window.seconds = start.elapsed().as_secs_f64();
        self.window
    }

    /// Sends requests as long as `go_on` says, which is given the begin, and listens for silence.
    pub fn listen(&mut self, go_on: impl Fn(Instant) -> bool) -> Heard {
        self.window = Window::default();
        let (mut heard, start) = (Heard::default(), Instant::now());
        let (mut last_turn, mut last_frame, mut frames) = (start, start, 0);
        while go_on(start) {
            self.turn(Traffic::Requests);
            let (now, count) = (Instant::now(), self.window.good + self.window.bad);
            if now - last_turn > AWAY {
                heard.away += now - last_turn;
                last_frame = now;
            } else if count != frames {
                heard.silence = heard.silence.max(now - last_frame);
                last_frame = now;
            }
            (last_turn, frames) = (now, count);
        }
        self.take_rest();
        heard.lost = self.window.sent.saturating_sub(self.window.good + self.window.bad);
        heard
    }

    /// Takes in what is still on the wire.
    fn take_rest(&mut self) {
        let start = Instant::now();
        while start.elapsed() < REST {
            self.receive(Traffic::Requests);
        }
    }

    #[inline(always)]
    fn turn(&mut self, traffic: Traffic) {
        self.turn_with(traffic, Self::next_at_random);
    }

    #[inline(always)]
    fn turn_with(&mut self, traffic: Traffic, pick: impl FnMut(&mut Self) -> u32) {
        self.receive(traffic);
        self.station.answer();
        self.fill(traffic, pick);
        self.send();
    }

    #[inline(always)]
    fn receive(&mut self, traffic: Traffic) {
        let Self { station, window, seen, learned, first, .. } = self;
        let Station { rx, spare, others, mac, burst_max, .. } = station;
        rx.rx(*burst_max, |mbuf| {
            let Some(frame) = mbuf.bytes().first_chunk::<FRAME_BYTES>().filter(|_| is_udp(mbuf.bytes()))
            else {
                // Not ours to count: ARP, and what sluice sends of its own accord.
                others.push(mbuf);
                return;
            };
            let is_good = match traffic {
                Traffic::Requests => learn(frame, seen, *first, learned),
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
        self.station.push_pending();
        let mut flows = [0; BURST_MAX];
        let room = self.station.burst_max.saturating_sub(self.station.burst.len());
        for flow in &mut flows[..room] {
            *flow = pick(self);
            if traffic == Traffic::Replies {
                hint::prefetch(&self.seen[*flow as usize]);
            }
        }
        for &flow in &flows[..room] {
            let Station { spare, memory, burst, .. } = &mut self.station;
            let Some(mut mbuf) = spare.pop().or_else(|| fresh(memory)) else { return };
            let Some(frame) = mbuf.bytes_mut().first_chunk_mut::<FRAME_BYTES>() else { return };
            match traffic {
                Traffic::Requests | Traffic::Macswap => self.requests.write_request(frame, self.first + flow),
                Traffic::Replies => {
                    self.replies.write_reply(frame, self.first + flow, self.seen[flow as usize]);
                }
            }
            // The loop ends when the burst is full.
            let _ = burst.push(mbuf);
        }
    }

    #[inline(always)]
    fn send(&mut self) {
        if self.station.burst.is_empty() {
            return;
        }
        self.window.bursts += 1;
        self.window.sent += self.station.send() as u64;
        self.window.full_bursts += u64::from(!self.station.burst.is_empty());
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
}

#[inline(always)]
fn is_udp(bytes: &[u8]) -> bool {
    bytes.len() == FRAME_BYTES && bytes[12..14] == [8, 0] && bytes[23] == 17
}

/// A request as a member gets it; the flow's translation must stay what it was.
#[inline(always)]
fn learn(frame: &[u8; FRAME_BYTES], seen: &mut [Seen], first: u32, learned: &mut u32) -> bool {
    if !scenario::is_request_at_member(frame) {
        return false;
    }
    if *learned as usize == seen.len() {
        return true;
    }
    let Some(known) = seen.get_mut(scenario::flow_of(frame).wrapping_sub(first) as usize) else {
        return false;
    };
    let now = scenario::seen_in(frame);
    if *known == Seen::default() {
        *known = now;
        *learned += 1;
    }
    *known == now
}

const VERIFY_MASK: u64 = 63;
const TURNS_PER_LOOK: usize = 64;
const WARM_UP_MAX: Duration = Duration::from_secs(60);
/// A flow's share of the time, on a busy machine.
const WARM_UP_EACH: Duration = Duration::from_micros(20);
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// A turn of the generator that takes longer was interrupted.
const AWAY: Duration = Duration::from_micros(100);
const REST: Duration = Duration::from_millis(20);
