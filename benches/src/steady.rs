//! A worker on a memory port with all of its flows made, driven on a clock that only the bench moves.

use std::sync::Arc;
use std::time::Duration;

use sluice_dataplane::address::{Address, Mac};
use sluice_dataplane::clock::Instant;
use sluice_dataplane::config::snapshot::{Parts, Protocol, Snapshot};
use sluice_dataplane::counters::WorkerCounters;
use sluice_dataplane::flow::key::{FlowKey, HashSeed};
use sluice_dataplane::frame::{BURST_MAX, Frame, FramePool};
use sluice_dataplane::port::PortQueue;
use sluice_dataplane::port::memory::{self, MemoryPeer, MemoryQueue};
use sluice_dataplane::snat::steer::Owners;
use sluice_dataplane::verdict::DropReason;
use sluice_dataplane::worker::Worker;
use sluice_ffi::memory::Backing;

use crate::handshake::Segment;
use crate::scenario::{self, FRAME_BYTES, FrameWriter, SELF_IP, Seen, Shape};

/// The worker and the other end of its port.
pub struct SteadyWorker {
    worker: Worker,
    peer: MemoryPeer,
    counters: Arc<WorkerCounters>,
    requests: FrameWriter,
    replies: FrameWriter,
    seen: Vec<Seen>,
    /// Frames that are on our side.
    frames: Vec<Frame>,
    /// For ARP.
    pool: FramePool,
    flows: u32,
    /// Where there is another worker.
    own: Option<Own>,
    next: u32,
    now: Instant,
    random: u64,
}

/// Numbers of the flows that belong to this worker: packets of others a port takes elsewhere.
struct Own {
    known: Box<[u32]>,
    /// For new flows, in turn.
    fresh: Box<[u32]>,
}

impl SteadyWorker {
    /// With the usual configuration, and `flows` flows made.
    ///
    /// # Panics
    /// When a flow cannot be made.
    pub fn new(flows: u32) -> Self {
        Self::of(1, scenario::parts(), flows).with_flows()
    }

    /// The first of two workers, with `flows` flows of its own made; the hash of a packet says whose it is.
    pub fn one_of_two(flows: u32) -> Self {
        Self::of(2, scenario::parts(), flows).with_flows()
    }

    /// Makes all flows.
    fn with_flows(mut self) -> Self {
        let flows = self.flows;
        let steady = &mut self;
        steady.learn_members();
        for flow in 0..flows.div_ceil(BURST_MAX as u32) * BURST_MAX as u32 {
            steady.write_request(steady.known(flow % flows));
            if steady.on_wire() == BURST_MAX {
                steady.turn();
            }
        }
        let is_unknown = |&flow: &u32| steady.seen[steady.known(flow) as usize] == Seen::default();
        let unknown = (0..flows).filter(is_unknown).count();
        assert_eq!(unknown, 0, "flows that never came back; drops: {:?}", steady.drops());
        self
    }

    /// With a TCP virtual server, and no connection yet.
    pub fn tcp() -> Self {
        let shape = Shape { protocol: Protocol::Tcp, flows: 1_000, idle_ms: 300_000 };
        let mut steady = Self::with(shape.parts(), shape.flows);
        steady.learn_members();
        steady
    }

    /// With the configuration `parts`, and no flow made yet.
    pub fn with(parts: Parts, flows: u32) -> Self {
        Self::of(1, parts, flows)
    }

    /// # Panics
    /// When there is no memory for a burst of frames.
    fn of(workers: usize, parts: Parts, flows: u32) -> Self {
        let (queue, peer) = memory::pair(4 * BURST_MAX);
        let port: (_, Box<dyn PortQueue>) = (memory::info("wire", US), Box::new(queue));
        let spec = scenario::worker(parts, flows, workers, None, port);
        let counters = Arc::clone(&spec.counters);
        let worker = Worker::with_tables(spec, HashSeed::fixed(11), Backing::Auto);
        let pool = FramePool::new(3 * BURST_MAX);
        let own = (workers > 1).then(|| Own {
            known: owned(workers, 0, flows as usize),
            fresh: owned(workers, scenario::FLOWS_MAX / 2, FRESH),
        });
        let numbers = own.as_ref().and_then(|own| own.known.last()).map_or(flows, |&last| last + 1);
        let frames =
            (0..BURST_MAX).map(|_| pool.copy_of(&[0; FRAME_BYTES]).expect("one burst of three")).collect();
        let mut steady = Self {
            worker,
            peer,
            counters,
            requests: FrameWriter::from_clients(PEER, US),
            replies: FrameWriter::from_members(PEER, US),
            seen: vec![Seen::default(); numbers as usize],
            frames,
            pool,
            flows,
            own,
            next: 0,
            now: Instant::from_ms(1_000),
            random: 0x9e37_79b9_7f4a_7c15,
        };
        // Announcements of the start.
        for _ in 0..100 {
            steady.now = steady.now + Duration::from_millis(20);
            steady.worker.turn(steady.now);
            while steady.peer.recv().is_some() {}
        }
        steady
    }

    /// A burst of requests of known flows, picked at random, through the worker and back.
    pub fn turn_requests(&mut self) {
        for _ in 0..BURST_MAX {
            let flow = self.pick();
            self.write_request(flow);
        }
        self.turn();
    }

    /// As [`SteadyWorker::turn_requests`], `ms` milliseconds later.
    pub fn turn_requests_in(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
        self.turn_requests();
    }

    /// A burst of replies.
    pub fn turn_replies(&mut self) {
        for _ in 0..BURST_MAX {
            let flow = self.pick();
            let seen = self.seen[flow as usize];
            self.write(|writers, frame| writers.1.write_reply(frame, flow, seen));
        }
        self.turn();
    }

    /// A burst of first packets, and in the long run the end of as many flows: time passes so that they expire.
    pub fn turn_new_flows(&mut self) {
        for _ in 0..BURST_MAX {
            let flow = match &self.own {
                Some(own) => own.fresh[self.next as usize % FRESH],
                None => scenario::FLOWS_MAX / 2 + self.next,
            };
            self.next = (self.next + 1) % (scenario::FLOWS_MAX / 4);
            self.write_request(flow);
        }
        // At this pace about 38,000 flows live for their 60 s.
        self.now = self.now + Duration::from_millis(400);
        self.turn();
    }

    /// As a function to be called over and over.
    pub fn into_requests(mut self) -> Box<dyn FnMut()> {
        Box::new(move || self.turn_requests())
    }

    /// As a function to be called over and over.
    pub fn into_replies(mut self) -> Box<dyn FnMut()> {
        Box::new(move || self.turn_replies())
    }

    /// As a function to be called over and over, from the point on where as many flows end as begin.
    pub fn into_new_flows(mut self) -> Box<dyn FnMut()> {
        for _ in 0..200 {
            self.turn_new_flows();
        }
        Box::new(move || self.turn_new_flows())
    }

    /// The same frames over a memory port with nobody at its end: what of the other numbers is the bench's own.
    pub fn into_echo(mut self) -> Box<dyn FnMut()> {
        let (mut queue, peer): (MemoryQueue, MemoryPeer) = memory::pair(4 * BURST_MAX);
        self.peer = peer;
        let mut burst = Vec::with_capacity(BURST_MAX);
        Box::new(move || {
            for _ in 0..BURST_MAX {
                let flow = self.pick();
                self.write_request(flow);
            }
            queue.rx(&mut burst);
            queue.tx(&mut burst);
            self.collect();
        })
    }

    /// Sends TCP segments through the worker, and returns those that come out.
    ///
    /// # Panics
    /// When there are more than it takes in a turn.
    pub fn exchange(&mut self, segments: &[Segment]) -> Vec<Segment> {
        let mut came = Vec::with_capacity(segments.len());
        for burst in segments.chunks(BURST_MAX) {
            for segment in burst {
                let mut frame = [0; FRAME_BYTES];
                frame[..6].copy_from_slice(&US.0);
                frame[6..12].copy_from_slice(&PEER.0);
                segment.write(&mut frame);
                let frame = self.pool.copy_of(&frame).expect("a burst of frames");
                assert!(self.peer.send(frame).is_ok(), "the worker has taken the burst before");
            }
            self.worker.turn(self.now);
            let frames = std::iter::from_fn(|| self.peer.recv());
            came.extend(frames.filter_map(|frame| Segment::read(frame.bytes())));
        }
        came
    }

    /// Puts a configuration in force.
    pub fn apply(&mut self, snapshot: Arc<Snapshot>) {
        self.worker.apply(snapshot, self.now);
    }

    /// What the worker has dropped, by reason.
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        let all = DropReason::ALL.iter().map(|&reason| (reason.name(), self.counters.of_drop(reason).load()));
        all.filter(|&(_, count)| count > 0).collect()
    }

    /// Frames that have left the worker's port.
    pub fn forwarded(&self) -> u64 {
        self.counters.of_port(sluice_dataplane::config::ids::PortId(0)).frames.packets_out.load()
    }

    /// Every member asks for our address, by which the worker learns its own.
    fn learn_members(&mut self) {
        for host in 1..=scenario::MEMBERS as u8 {
            self.say_arp(1, [10, 1, 1, host]);
            self.worker.turn(self.now);
            assert!(self.peer.recv().is_some(), "our answer to member {host}");
        }
    }

    /// A member says who it is: 1 asks for our address, 2 answers.
    fn say_arp(&self, operation: u8, member: [u8; 4]) {
        if let Some(frame) = self.pool.copy_of(&arp(operation, member)) {
            let _ = self.peer.send(frame);
        }
    }

    /// The worker asks now and then whether a member is still there.
    #[cold]
    fn answer(&self, bytes: &[u8]) {
        if bytes.len() >= 42 && bytes[12..14] == [8, 6] && bytes[21] == 1 {
            self.say_arp(2, [bytes[38], bytes[39], bytes[40], bytes[41]]);
        }
    }

    fn pick(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.known((((self.random >> 32) * u64::from(self.flows)) >> 32) as u32)
    }

    /// The number of the flow at `place` of those that are made.
    fn known(&self, place: u32) -> u32 {
        self.own.as_ref().map_or(place, |own| own.known[place as usize])
    }

    fn write_request(&mut self, flow: u32) {
        self.write(|writers, frame| writers.0.write_request(frame, flow));
    }

    fn write(&mut self, write: impl FnOnce((&FrameWriter, &FrameWriter), &mut [u8; FRAME_BYTES])) {
        let Some(mut frame) = self.frames.pop() else { return };
        if let Some(bytes) = frame.bytes_mut().first_chunk_mut() {
            write((&self.requests, &self.replies), bytes);
        }
        let _ = self.peer.send(frame);
    }

    fn on_wire(&self) -> usize {
        BURST_MAX - self.frames.len()
    }

    fn turn(&mut self) {
        self.worker.turn(self.now);
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(frame) = self.peer.recv() {
            let Some(bytes) = frame.bytes().first_chunk::<FRAME_BYTES>() else {
                self.answer(frame.bytes());
                continue;
            };
            if scenario::is_request_at_member(bytes)
                && let Some(seen) = self.seen.get_mut(scenario::flow_of(bytes) as usize)
            {
                *seen = scenario::seen_in(bytes);
            }
            self.frames.push(frame);
        }
    }
}

/// The numbers of the first `count` flows from `first` on whose packets belong to the first of `workers` workers.
fn owned(workers: usize, first: u32, count: usize) -> Box<[u32]> {
    let owners = Owners::new(workers);
    let is_own = |&flow: &u32| owners.of_tuple(&client_key(flow)) == 0;
    (first..).filter(is_own).take(count).collect()
}

/// Of packets of the flow's client.
fn client_key(flow: u32) -> FlowKey {
    let (host, src_port) = scenario::client(flow);
    let [high, low] = host.to_be_bytes();
    let (src, dst) = (Address::v4([198, 18, high, low]), Address::v4(scenario::VIRTUAL_IP));
    FlowKey { src, dst, src_port, dst_port: scenario::VIRTUAL_PORT, protocol: 17 }
}

/// An ARP message to the worker from one of its neighbours: 1 asks for the worker's address, 2 answers.
pub(crate) fn arp(operation: u8, from: [u8; 4]) -> [u8; 42] {
    let mut message = [0; 42];
    message[..6].copy_from_slice(&US.0);
    message[6..12].copy_from_slice(&PEER.0);
    message[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    message[22..28].copy_from_slice(&PEER.0);
    message[28..32].copy_from_slice(&from);
    message[38..42].copy_from_slice(&SELF_IP);
    message
}

const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
const PEER: Mac = Mac([2, 0, 0, 0, 0, 0xc]);
/// Far more than live at a time.
const FRESH: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_back() {
        let mut steady = SteadyWorker::new(1_000);
        let before = steady.forwarded();
        for _ in 0..100 {
            steady.turn_requests();
            steady.turn_replies();
        }
        assert_eq!((steady.forwarded() - before, steady.drops()), (200 * BURST_MAX as u64, vec![]));
    }

    #[test]
    fn everything_comes_back_to_one_of_two_workers() {
        let mut steady = SteadyWorker::one_of_two(1_000);
        let before = steady.forwarded();
        for _ in 0..250 {
            steady.turn_requests();
            steady.turn_replies();
            steady.turn_new_flows();
        }
        let strays = steady.counters.handed_over.load() + steady.counters.misdirected.load();
        assert_eq!(
            (steady.forwarded() - before, strays, steady.drops()),
            (750 * BURST_MAX as u64, 0, vec![])
        );
    }

    #[test]
    fn as_many_flows_end_as_begin() {
        let mut steady = SteadyWorker::new(1_000);
        for _ in 0..1_500 {
            steady.turn_new_flows();
        }
        assert_eq!(steady.drops(), vec![]);
        assert!(steady.counters.flows.load() < 50_000, "{}", steady.counters.flows.load());
    }
}
