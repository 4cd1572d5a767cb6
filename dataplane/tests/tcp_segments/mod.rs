//! One engine, and a peer that is the test itself: it says segments and looks at those that come back.
//!
//! All numbers are offsets in the streams of bytes, whatever the sequence numbers are; those wrap soon after the beginning.
//! Whatever a test is about, each segment of the engine must carry the bytes that were written, stay in the peer's
//! window and take back neither an acknowledgement nor its own window.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "a harness")]

mod answers;
mod arrival;
mod blocks;
mod congestion;
mod doubts;
mod ends;
mod holes;
mod oddities;
mod receiver;
mod review;
mod timers;
mod windows;

use std::time::Duration;

use sluice_dataplane::address::Address;
use sluice_dataplane::clock::Instant;
use sluice_dataplane::tcp::{Agreed, ConnId, Engine, EngineSpec, Opening, Options, State};

use self::receiver::Receiver;
use crate::tcp_world::Wire;
use crate::tcp_world::packet::{ACK, FIN, RST, SYN, Tcp};
use crate::tcp_world::subject::{Facts, Kind, Subject};

/// Payload of a full segment.
pub const MSS: u32 = 1460;

/// How a connection begins.
pub struct Setup {
    pub kind: Kind,
    pub spec: EngineSpec,
    pub options: Options,
    pub agreed: Agreed,
    /// The engine's initial sequence number.
    pub isn: u32,
    /// What the peer takes at first, bytes.
    pub window: u32,
}

impl Setup {
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            spec: EngineSpec { connections: 2, receive_buffer: 65_536, send_buffer: 1 << 20, mtu: 1500 },
            options: Options { keep_alive_ms: 0, ..Options::default() },
            agreed: Agreed { peer_isn: 0xffff_fe00, peer_mss: 1460, peer_scale: Some(7), sack: true },
            isn: 0xffff_f000,
            window: 1 << 20,
        }
    }

    /// Windows of the peer are exact, and small.
    pub fn unscaled(kind: Kind, window: u16) -> Self {
        let mut setup = Self::new(kind);
        setup.window = window.into();
        setup.agreed.peer_scale = Some(0);
        setup
    }

    pub fn without_sack(kind: Kind) -> Self {
        let mut setup = Self::new(kind);
        setup.agreed.sack = false;
        setup
    }

    pub fn opening(&self) -> Opening {
        let (local, remote) = (LOCAL, REMOTE);
        Opening { local, remote, isn: self.isn, options: self.options }
    }

    /// The peer has connected.
    pub fn open(self) -> Peer {
        let mut engine = Subject::of(self.kind, self.spec);
        let now = Instant::from_ms(1000);
        let id = engine.accept(&self.opening(), &self.agreed, now).unwrap();
        let mut peer = Peer::new(engine, id, now, &self);
        peer.says_ack(0);
        // It may say that its window is larger than a SYN-ACK can tell.
        assert!(peer.said().iter().all(|said| said.len() == 0 && said.flags == ACK));
        peer
    }
}

const LOCAL: (Address, u16) = (Address::v4([10, 0, 0, 2]), 80);
const REMOTE: (Address, u16) = (Address::v4([10, 0, 0, 1]), 1000);

/// A segment of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub at: Instant,
    /// Its bytes.
    pub from: u32,
    pub to: u32,
    pub flags: u8,
    /// What it acknowledges.
    pub acked: u32,
    /// The window, bytes.
    pub window: u32,
    pub blocks: Vec<(u32, u32)>,
}

impl Said {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub fn len(&self) -> u32 {
        self.to - self.from
    }

    /// Where the window ends.
    pub fn edge(&self) -> u32 {
        self.acked + self.window
    }
}

pub struct Peer {
    pub engine: Subject,
    pub id: ConnId,
    pub now: Instant,
    /// What the peer announces from now on, bytes.
    pub window: u32,
    /// Where in its stream it says acknowledgements: all before is heard.
    pub place: u32,
    /// Segments that [`Peer::said`] has not told yet.
    unheard: Vec<Said>,
    /// First sequence numbers of both streams: the engine's and the peer's.
    begins: [u32; 2],
    scales: [u8; 2],
    /// Bytes of a packet at most.
    mtu: usize,
    /// What the sink takes in one piece, to be cut later; 0 for segments.
    pub largest: usize,
    written: u32,
    read: u32,
    /// The end of the largest window that the peer ever had.
    edge: u32,
    /// Where the engine's window ended, and what it acknowledged.
    told: (u32, u32),
}

impl Peer {
    fn new(engine: Subject, id: ConnId, now: Instant, setup: &Setup) -> Self {
        let scale = if setup.agreed.peer_scale.is_some() { engine.announced().scale } else { 0 };
        Self {
            engine,
            id,
            now,
            window: setup.window,
            place: 0,
            unheard: Vec::new(),
            begins: [setup.isn.wrapping_add(1), setup.agreed.peer_isn.wrapping_add(1)],
            scales: [scale, setup.agreed.peer_scale.unwrap_or(0).min(14)],
            mtu: setup.spec.mtu.into(),
            largest: 0,
            written: 0,
            read: 0,
            edge: 0,
            told: (0, 0),
        }
    }

    pub fn facts(&self) -> &'static Facts {
        self.engine.facts()
    }

    pub fn state(&self) -> State {
        self.engine.state(self.id)
    }

    pub fn readable(&self) -> u32 {
        self.engine.readable(self.id) as u32
    }

    /// A segment of the peer at `offset` of its stream that acknowledges everything before `acked`.
    pub fn segment(&self, flags: u8, offset: u32, acked: u32) -> Tcp {
        let [seq, ack] = [self.begins[1].wrapping_add(offset), self.begins[0].wrapping_add(acked)];
        let mut tcp = Tcp::new(REMOTE, LOCAL, flags, seq, ack);
        tcp.window = (self.window >> self.scales[1]).try_into().unwrap();
        tcp
    }

    /// The same with `len` bytes.
    pub fn data(&self, offset: u32, len: u32, acked: u32) -> Tcp {
        let mut tcp = self.segment(ACK, offset, acked);
        tcp.payload = (offset..offset + len).map(|at| byte(1, at)).collect();
        tcp
    }

    /// Gives the engine a segment, and takes what it has to send.
    pub fn says(&mut self, tcp: &Tcp) {
        let acked = tcp.ack.wrapping_sub(self.begins[0]);
        if tcp.has(ACK) && (acked as i32) >= 0 && !tcp.has(RST) {
            self.edge = self.edge.max(acked.saturating_add(self.window));
        }
        self.engine.receive(self.id, &tcp.write(), self.now);
        self.flush();
    }

    /// An acknowledgement and no more.
    pub fn says_ack(&mut self, acked: u32) {
        self.says(&self.segment(ACK, self.place, acked));
    }

    /// The same with blocks of what came beyond.
    pub fn says_blocks(&mut self, acked: u32, blocks: &[(u32, u32)]) {
        let mut tcp = self.segment(ACK, self.place, acked);
        let number = |offset| self.begins[0].wrapping_add(offset);
        tcp.blocks = blocks.iter().map(|(from, to)| (number(*from), number(*to))).collect();
        self.says(&tcp);
    }

    pub fn says_data(&mut self, offset: u32, len: u32) {
        self.says(&self.data(offset, len, 0));
    }

    /// The engine's side writes so many bytes.
    pub fn writes(&mut self, len: u32) {
        let data = (self.written..self.written + len).map(|at| byte(0, at)).collect::<Vec<_>>();
        assert_eq!(self.engine.send(self.id, &data), data.len());
        self.written += len;
        self.flush();
    }

    /// The engine's side reads so many bytes at most; they are what the peer has said.
    pub fn reads(&mut self, len: u32) -> u32 {
        let begin = self.read;
        while self.read < begin + len {
            let (at, left) = (self.read, (begin + len - self.read) as usize);
            let took = self.engine.read(self.id, |piece| {
                let piece = &piece[..piece.len().min(left)];
                assert!(piece.iter().zip(at..).all(|(got, at)| *got == byte(1, at)), "at {at}");
                piece.len()
            });
            if took == 0 {
                break;
            }
            self.read += took as u32;
        }
        self.flush();
        self.read - begin
    }

    pub fn closes(&mut self) {
        self.engine.close(self.id);
        self.flush();
    }

    /// Lets so many milliseconds pass, and what is due happen.
    pub fn waits(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(at) = self.engine.due(self.id, self.now).filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.flush();
        }
        self.now = end;
    }

    /// Lets time pass until something is said, and tells it.
    pub fn waits_for_word(&mut self) -> Vec<Said> {
        assert_eq!(self.unheard, [], "somebody has to hear that first");
        while self.unheard.is_empty() {
            let at = self.engine.due(self.id, self.now);
            self.now = self.now.max(at.unwrap_or_else(|| panic!("nothing is to come: {:?}", self.state())));
            self.flush();
        }
        self.said()
    }

    /// What was said since this was asked last.
    pub fn said(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.unheard)
    }

    /// The bytes that were said since.
    pub fn said_bytes(&mut self) -> Vec<(u32, u32)> {
        let said = self.said();
        said.iter().filter(|said| said.len() > 0).map(|said| (said.from, said.to)).collect()
    }

    /// What the engine has to send now.
    fn flush(&mut self) {
        let mut wire = Wire { room: 10_000, largest: self.largest, packets: Vec::new() };
        let has_output = self.engine.has_output(self.id, self.now);
        assert!(!self.engine.transmit(self.id, &mut wire, self.now), "this sink has room");
        assert!(has_output || wire.packets.is_empty(), "it said that there was nothing");
        let due = self.engine.due(self.id, self.now);
        assert!(due.is_none_or(|due| due > self.now), "what is due now was done");
        for (packet, segment) in wire.packets {
            let most = if segment.is_some() { self.largest } else { self.mtu };
            assert!(packet.len() <= most, "{} bytes are more than {most}", packet.len());
            let said = self.reads_segment(&Tcp::read(&packet));
            self.unheard.push(said);
        }
    }

    /// A segment of the engine, which is right whatever it is for.
    fn reads_segment(&mut self, tcp: &Tcp) -> Said {
        let [ours, theirs] = self.begins;
        let from = tcp.seq.wrapping_sub(ours);
        let len = tcp.payload.len() as u32;
        let blocks = tcp.blocks.iter().map(|(from, to)| (from.wrapping_sub(theirs), to.wrapping_sub(theirs)));
        let window = u32::from(tcp.window) << self.scales[0];
        let (acked, flags) = (tcp.ack.wrapping_sub(theirs), tcp.flags);
        let to = from.wrapping_add(len);
        let said = Said { at: self.now, from, to, flags, acked, window, blocks: blocks.collect() };
        if !said.has(SYN) && !said.has(RST) {
            self.check(&said, &tcp.payload);
        }
        said
    }

    fn check(&mut self, said: &Said, payload: &[u8]) {
        assert!(said.has(ACK), "{said:?}");
        if said.len() > 0 || said.has(FIN) {
            assert!(said.to <= self.written, "{said:?} of {}", self.written);
            assert!(payload.iter().zip(said.from..).all(|(got, at)| *got == byte(0, at)), "{said:?}");
            assert!(said.to <= self.edge.max(said.from + 1), "{said:?} beyond {}", self.edge);
            assert!(!said.has(FIN) || said.to == self.written, "{said:?}");
        }
        let (edge, acked) = self.told;
        assert!(said.acked >= acked, "{said:?} takes {acked} back");
        let unit = (1 << self.scales[0]) - 1;
        assert!(said.edge() + unit >= edge, "{said:?} takes back {edge}");
        self.told = (said.edge().max(edge), said.acked);
    }
}

/// A connection on which the engine has sent so many bytes, each answered after `rtt_ms`; all is acknowledged.
pub fn warmed(setup: Setup, len: u32, rtt_ms: u64) -> (Peer, Receiver) {
    let (mut peer, mut receiver) = (setup.open(), Receiver::default());
    peer.writes(len);
    receiver.takes_all(&mut peer, rtt_ms, len, |_| false);
    assert_eq!((peer.engine.unacknowledged(peer.id), peer.said()), (0, vec![]));
    (peer, receiver)
}

/// What is at `offset` of the engine's stream (0) or the peer's (1).
pub fn byte(stream: u32, offset: u32) -> u8 {
    ((offset + stream).wrapping_mul(0x9e37_79b9) >> 24) as u8
}
