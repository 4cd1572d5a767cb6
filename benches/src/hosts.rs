//! The least that a client and a member have to know of TCP, for a wire that loses nothing.
//!
//! ```text
//!   client: SYN · ACK, request · … · request ─▶        ◀─ SYN-ACK · response · FIN     every answer is sent at once;
//!   member: ◀─ SYN-ACK · response · FIN                 SYN · request · FIN ─▶          data carries the acknowledgements
//! ```
//!
//! There is one client and one member, each with a place for every port of its peer's. A request is one segment, and so is
//! the member's response. Nothing here allocates after the start.

use sluice_dataplane::address::Mac;
use sluice_dataplane::frame::{Checksum, FramePool};
use sluice_dataplane::packet::checksum::{fold, sum};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, FIN, RST, SYN};
use sluice_dataplane::port::memory::MemoryPeer;

use crate::scenario::{MEMBER_PORT, SELF_IP, VIRTUAL_IP};
use crate::steady::arp;

/// What client and member say to each other.
#[derive(Debug, Clone, Copy)]
pub struct Exchange {
    /// HTTP is spoken through to the member; otherwise the same bytes pass as they are.
    pub is_http: bool,
    /// The client asks that its connection be closed after the response.
    pub closes: bool,
}

/// The client and the member.
pub struct Hosts {
    wire: MemoryPeer,
    frames: FramePool,
    gateway: Mac,
    exchange: Exchange,
    /// By the client's port.
    clients: Box<[End]>,
    /// By the port that the member sees.
    members: Box<[End]>,
    /// Responses that the client has had in whole.
    pub answered: u64,
    /// Segments with RST that came.
    pub resets: u64,
    /// Segments that came out of order, or for a connection that is not there.
    pub strange: u64,
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, Default)]
struct End {
    stage: Stage,
    /// What it sends next.
    seq: u32,
    /// What it expects next.
    ack: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Closed,
    SynSent,
    Open,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Member,
}

/// What came, without its payload.
#[derive(Debug, Clone, Copy)]
struct Came {
    side: Side,
    port: u16,
    flags: u8,
    seq: u32,
}

impl Hosts {
    /// Nothing is open yet. `gateway` is the worker's link address.
    pub fn new(wire: MemoryPeer, gateway: Mac, exchange: Exchange) -> Self {
        Self {
            wire,
            frames: FramePool::new(FRAMES),
            gateway,
            exchange,
            clients: vec![End::default(); 1 << 16].into(),
            members: vec![End::default(); 1 << 16].into(),
            answered: 0,
            resets: 0,
            strange: 0,
        }
    }

    /// The member asks for the worker's address, by which the worker learns the member's.
    pub fn introduce(&mut self) {
        self.push(&arp(1, MEMBER_IP));
    }

    /// The client begins a connection from `port`, and will ask as soon as it stands.
    pub fn open(&mut self, port: u16) {
        let seq = u32::from(port) << 12;
        self.clients[usize::from(port)] = End { stage: Stage::SynSent, seq, ack: 0 };
        self.send(Side::Client, port, SYN, &SYN_OPTIONS, &[]);
    }

    /// The client asks on a connection that stands.
    pub fn ask(&mut self, port: u16) {
        let request = if self.exchange.closes { CLOSING_REQUEST } else { REQUEST };
        self.send(Side::Client, port, ACK | PSH, &[], request);
    }

    /// Connections of the client that are not closed.
    pub fn open_clients(&self) -> usize {
        self.clients.iter().filter(|end| end.stage != Stage::Closed).count()
    }

    /// Takes in what the worker has sent, and answers it. True when there was something.
    pub fn handle_all(&mut self) -> bool {
        let mut any = false;
        while let Some(frame) = self.wire.recv() {
            any = true;
            self.handle(frame.bytes());
        }
        any
    }

    fn handle(&mut self, bytes: &[u8]) {
        match read(bytes) {
            Some((came, payload)) => self.segment(came, payload),
            None => self.answer_arp(bytes),
        }
    }

    fn segment(&mut self, came: Came, payload: &[u8]) {
        let end = self.end(came.side, came.port);
        if came.flags & RST != 0 {
            end.stage = Stage::Closed;
            self.resets += 1;
        } else if came.flags & SYN != 0 {
            self.greet(came);
        } else if end.stage != Stage::Open || came.seq != end.ack {
            // The last acknowledgement of a connection that is closed has nothing to say.
            self.strange += u64::from(!payload.is_empty() || came.flags & FIN != 0);
        } else {
            end.ack = end.ack.wrapping_add(payload.len() as u32);
            self.take(came, payload);
        }
    }

    fn greet(&mut self, came: Came) {
        let end = self.end(came.side, came.port);
        let is_expected = (came.side == Side::Client) == (end.stage == Stage::SynSent);
        (end.stage, end.ack) = (Stage::Open, came.seq.wrapping_add(1));
        self.strange += u64::from(!is_expected);
        match came.side {
            Side::Client => {
                self.send(came.side, came.port, ACK, &[], &[]);
                self.ask(came.port);
            }
            Side::Member => self.send(came.side, came.port, SYN | ACK, &SYN_OPTIONS, &[]),
        }
    }

    fn take(&mut self, came: Came, payload: &[u8]) {
        match came.side {
            Side::Client => self.answered += u64::from(payload.ends_with(&BODY)),
            Side::Member if payload.ends_with(b"\r\n\r\n") => {
                self.send(came.side, came.port, ACK | PSH, &[], RESPONSE);
            }
            Side::Member => {}
        }
        if came.flags & FIN != 0 {
            let end = self.end(came.side, came.port);
            end.ack = end.ack.wrapping_add(1);
            self.send(came.side, came.port, FIN | ACK, &[], &[]);
            self.end(came.side, came.port).stage = Stage::Closed;
        }
    }

    fn end(&mut self, side: Side, port: u16) -> &mut End {
        match side {
            Side::Client => &mut self.clients[usize::from(port)],
            Side::Member => &mut self.members[usize::from(port)],
        }
    }

    fn send(&mut self, side: Side, port: u16, flags: u8, options: &[u8], payload: &[u8]) {
        let end = *self.end(side, port);
        let mut bytes = [0; SEGMENT_MAX];
        let len = write(&mut bytes, side, port, end, flags, options, payload);
        bytes[..6].copy_from_slice(&self.gateway.0);
        bytes[6..12].copy_from_slice(&PEER.0);
        let counts = payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        self.end(side, port).seq = end.seq.wrapping_add(counts);
        self.push(&bytes[..len]);
    }

    /// Puts a frame on the wire whose checksum the port has found right.
    fn push(&mut self, bytes: &[u8]) {
        let sent = self.frames.copy_of(bytes).is_some_and(|mut frame| {
            frame.offload.checksum = Checksum::Verified;
            self.wire.send(frame).is_ok()
        });
        assert!(sent, "more is on the wire than it holds");
    }

    /// The worker asks now and then whether its neighbours are still there.
    #[cold]
    fn answer_arp(&mut self, bytes: &[u8]) {
        let asked = bytes.get(38..42).and_then(|address| address.first_chunk::<4>()).copied();
        let is_question = bytes.get(12..14) == Some(&[8, 6]) && bytes.get(21) == Some(&1);
        if let Some(address) =
            asked.filter(|&address| is_question && [CLIENT_IP, MEMBER_IP].contains(&address))
        {
            self.push(&arp(2, address));
        }
    }
}

/// Reads a TCP segment over IPv4 without IP options; `None` for anything else.
fn read(bytes: &[u8]) -> Option<(Came, &[u8])> {
    let head = bytes.first_chunk::<54>()?;
    let half = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    if head[12..15] != [8, 0, 0x45] || head[23] != 6 {
        return None;
    }
    let (side, port) = match (head[30..34] == CLIENT_IP, head[30..34] == MEMBER_IP) {
        (true, _) => (Side::Client, half(36)),
        (_, true) => (Side::Member, half(34)),
        _ => return None,
    };
    let data = 34 + usize::from(head[46] >> 4) * 4;
    let payload = bytes.get(data..14 + usize::from(half(16)))?;
    let seq = u32::from_be_bytes([head[38], head[39], head[40], head[41]]);
    Some((Came { side, port, flags: head[47], seq }, payload))
}

/// Writes a segment from the IP header on, without its TCP checksum. Returns the frame's length.
fn write(
    bytes: &mut [u8; SEGMENT_MAX],
    side: Side,
    port: u16,
    end: End,
    flags: u8,
    options: &[u8],
    payload: &[u8],
) -> usize {
    let data = 54 + options.len();
    let len = data + payload.len();
    let (src, src_port, dst, dst_port) = match side {
        Side::Client => (CLIENT_IP, port, VIRTUAL_IP, 80),
        Side::Member => (MEMBER_IP, MEMBER_PORT, SELF_IP, port),
    };
    bytes[12..26].copy_from_slice(&[8, 0, 0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0]);
    bytes[16..18].copy_from_slice(&(len as u16 - 14).to_be_bytes());
    bytes[26..30].copy_from_slice(&src);
    bytes[30..34].copy_from_slice(&dst);
    let ip = !fold(sum(&bytes[14..34]));
    bytes[24..26].copy_from_slice(&ip.to_be_bytes());
    bytes[34..36].copy_from_slice(&src_port.to_be_bytes());
    bytes[36..38].copy_from_slice(&dst_port.to_be_bytes());
    bytes[38..42].copy_from_slice(&end.seq.to_be_bytes());
    bytes[42..46].copy_from_slice(&end.ack.to_be_bytes());
    let words = ((data - 34) / 4) as u8;
    bytes[46..54].copy_from_slice(&[words << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes[54..data].copy_from_slice(options);
    bytes[data..len].copy_from_slice(payload);
    len
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: 10.1.0.100\r\n\r\n";
const CLOSING_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: 10.1.0.100\r\nConnection: close\r\n\r\n";
/// What nginx sends for a small file.
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.26.2\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n\
Content-Type: application/octet-stream\r\nContent-Length: 128\r\nConnection: keep-alive\r\n\r\n\
xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
const BODY: [u8; 128] = [b'x'; 128];

const CLIENT_IP: [u8; 4] = [198, 18, 4, 1];
/// The first of the scenario's members.
const MEMBER_IP: [u8; 4] = [10, 1, 1, 1];
/// Link address of both.
const PEER: Mac = Mac([2, 0, 0, 0, 0, 0xc]);
/// The client's lowest port.
pub const PORTS_FIRST: u16 = 10_000;
/// As Linux has them, but for timestamps: MSS 1460, SACK permitted, window scale 7.
const SYN_OPTIONS: [u8; 12] = [2, 4, 5, 0xb4, 1, 1, 4, 2, 1, 3, 3, 7];
const PSH: u8 = 8;
const SEGMENT_MAX: usize = 54 + 1_460;
const FRAMES: usize = 512;
