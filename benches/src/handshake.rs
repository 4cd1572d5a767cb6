//! Both ends of many TCP connections through sluice: honest clients and members, and a flood of SYNs from others.
//!
//! ```text
//!   client ─SYN─▶ │       │ ─SYN─▶ member          one step for each segment that comes out of sluice;
//!   client ◀SYN,ACK│ sluice│ ◀SYN,ACK─ member       a step that does not come is a connection that failed:
//!   client ─ACK─▶ │       │ ─ACK─▶ member: open    nobody sends anything twice
//!   client ─RST─▶ │       │ ─RST─▶ member: closed
//! ```
//!
//! A connection is a number, which its client's sequence numbers carry; those of the flood have the highest bit set.
//! Time is passed in, in units of the caller's.

use sluice_dataplane::packet::checksum::{fold, sum};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, RST, SYN};

use crate::scenario::{self, FRAME_BYTES, MEMBER_PORT, SELF_IP, VIRTUAL_IP, VIRTUAL_PORT};

/// What a segment without payload says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// From this address,
    pub src: [u8; 4],
    /// and this port,
    pub src_port: u16,
    /// to this address,
    pub dst: [u8; 4],
    /// and this port.
    pub dst_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// TCP flags.
    pub flags: u8,
}

impl Segment {
    /// Reads an Ethernet frame; `None` for anything but TCP over IPv4 without options.
    pub fn read(frame: &[u8]) -> Option<Self> {
        let bytes = frame.first_chunk::<54>()?;
        let four = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let half = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let is_tcp = bytes[12..15] == [8, 0, 0x45] && bytes[23] == 6;
        is_tcp.then(|| Self {
            src: four(26),
            src_port: half(34),
            dst: four(30),
            dst_port: half(36),
            seq: u32::from_be_bytes(four(38)),
            ack: u32::from_be_bytes(four(42)),
            flags: bytes[47],
        })
    }

    /// Writes it into an Ethernet frame, whose link addresses and padding stay as they are.
    pub fn write(&self, frame: &mut [u8; FRAME_BYTES]) {
        frame[12..26].copy_from_slice(&[8, 0, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0]);
        frame[26..30].copy_from_slice(&self.src);
        frame[30..34].copy_from_slice(&self.dst);
        frame[34..36].copy_from_slice(&self.src_port.to_be_bytes());
        frame[36..38].copy_from_slice(&self.dst_port.to_be_bytes());
        frame[38..42].copy_from_slice(&self.seq.to_be_bytes());
        frame[42..46].copy_from_slice(&self.ack.to_be_bytes());
        frame[46..54].copy_from_slice(&[0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        let ip = !fold(sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&ip.to_be_bytes());
        let tcp = !fold(sum(&frame[26..54]) + 6 + 20);
        frame[50..52].copy_from_slice(&tcp.to_be_bytes());
    }

    /// What goes back where this came from, acknowledging it.
    fn answer(&self, flags: u8) -> Self {
        let counts = u32::from(self.flags & SYN != 0);
        Self {
            src: self.dst,
            src_port: self.dst_port,
            dst: self.src,
            dst_port: self.src_port,
            seq: if self.flags & ACK != 0 { self.ack } else { self.seq ^ MEMBER_NUMBERS },
            ack: self.seq.wrapping_add(counts),
            flags,
        }
    }
}

/// True when both checksums are right and the TTL is what one hop leaves.
pub fn is_sound(frame: &[u8]) -> bool {
    let Some(bytes) = frame.first_chunk::<54>() else { return false };
    let (ip, tcp) = (fold(sum(&bytes[14..34])), fold(sum(&bytes[26..54]) + 6 + 20));
    ip == 0xffff && tcp == 0xffff && bytes[22] == 63
}

/// What came of the connections and of the flood.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Connections begun whose SYN left.
    pub offered: u64,
    /// Of those, handshakes that both ends saw complete.
    pub completed: u64,
    /// Of those, closed at the member, too.
    pub closed: u64,
    /// A segment of theirs found no room on the wire to sluice, which is not sluice's fault; not counted as offered.
    pub never_sent: u64,
    /// Reset by sluice.
    pub refused: u64,
    /// Flood SYNs that reached a member.
    pub flood_at_members: u64,
    /// Members' answers to those that reached where they seemed to come from.
    pub flood_at_clients: u64,
    /// Segments that should not have come, or not like this.
    pub bad: u64,
}

/// What to send because of a segment that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// Nothing.
    Nothing,
    /// The next segment of this honest connection.
    Honest(u32, Segment),
    /// A member's answer to a SYN of the flood.
    Flood(Segment),
}

/// All connections, honest and not.
pub struct Handshakes {
    /// By number; the oldest gives way.
    connections: Box<[Connection]>,
    next: u32,
    /// Those from here on are tallied.
    first_tallied: u32,
    random: u64,
    tally: Tally,
    times: Vec<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Connection {
    number: u32,
    stage: Stage,
    began: u64,
    /// What its member sees: the member's last byte and the source port.
    seen: (u8, u16),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Over,
    SynSent,
    SynAtMember,
    AnswerAtClient,
    Open,
}

impl Handshakes {
    /// Nothing has happened yet. `seed` decides where the flood seems to come from.
    pub fn new(seed: u64) -> Self {
        Self {
            connections: vec![Connection::default(); CONNECTIONS].into(),
            next: 0,
            first_tallied: 0,
            random: seed | 1,
            tally: Tally::default(),
            times: Vec::with_capacity(CONNECTIONS),
        }
    }

    /// The SYN of the next honest connection, and its number.
    pub fn open(&mut self, now: u64) -> (u32, Segment) {
        let number = self.next;
        self.next = (self.next + 1) & NUMBER_MASK;
        self.connections[place(number)] =
            Connection { number, stage: Stage::SynSent, began: now, seen: (0, 0) };
        self.tally.offered += 1;
        let (host, port) = scenario::client(scenario::spread(number));
        let [high, low] = host.to_be_bytes();
        let from = ([198, 18, high, low], port);
        (number, syn(from, number << NUMBER_SHIFT))
    }

    /// A SYN from an address and port that nobody honest has.
    pub fn flood(&mut self) -> Segment {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let [a, b, c, d, e, f, g, h] = self.random.to_be_bytes();
        let port = u16::from_be_bytes([e, f]) | 1024;
        syn(([16 + (a & 63), b, c, d], port), FLOOD | u32::from_be_bytes([d, g, h, c]))
    }

    /// What was to be sent of connection `number` has found no room.
    pub fn on_never_sent(&mut self, number: u32) {
        let is_tallied = self.is_tallied(number);
        if let Some(connection) = self.connection(number) {
            connection.stage = Stage::Over;
            self.tally.never_sent += u64::from(is_tallied);
            self.tally.offered -= u64::from(is_tallied);
        }
    }

    /// Takes in what came out of sluice.
    pub fn handle(&mut self, segment: &Segment, now: u64) -> Reaction {
        let to_member = segment.dst[..3] == [10, 1, 1] && segment.dst_port == MEMBER_PORT;
        let to_client = segment.src == VIRTUAL_IP && segment.src_port == VIRTUAL_PORT;
        let reaction = match (to_member && segment.src == SELF_IP, to_client) {
            (true, _) => self.at_member(segment, now),
            (_, true) => self.at_client(segment),
            _ => None,
        };
        self.tally.bad += u64::from(reaction.is_none());
        reaction.unwrap_or(Reaction::Nothing)
    }

    /// Forgets what was counted; connections that are under way are not counted later either.
    pub fn start_tally(&mut self) {
        self.first_tallied = self.next;
        self.tally = Tally::default();
        self.times.clear();
    }

    /// What was counted since.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// How long completed handshakes took, in the order in which they ended.
    pub fn times(&self) -> &[u64] {
        &self.times
    }

    fn at_member(&mut self, segment: &Segment, now: u64) -> Option<Reaction> {
        if segment.seq & FLOOD != 0 {
            self.tally.flood_at_members += 1;
            return Some(Reaction::Flood(segment.answer(SYN | ACK)));
        }
        let number = segment.seq >> NUMBER_SHIFT;
        let is_tallied = self.is_tallied(number);
        let seen = (segment.dst[3], segment.src_port);
        let connection = self.connection(number)?;
        match (connection.stage, segment.flags & (SYN | ACK | RST)) {
            (Stage::SynSent, SYN) => {
                (connection.stage, connection.seen) = (Stage::SynAtMember, seen);
                Some(Reaction::Honest(number, segment.answer(SYN | ACK)))
            }
            (Stage::AnswerAtClient, ACK) if connection.seen == seen => {
                connection.stage = Stage::Open;
                let took = now.saturating_sub(connection.began);
                if is_tallied {
                    self.tally.completed += 1;
                    self.times.push(took);
                }
                Some(Reaction::Honest(number, closing(number)))
            }
            (Stage::Open, flags) if flags & RST != 0 && connection.seen == seen => {
                connection.stage = Stage::Over;
                self.tally.closed += u64::from(is_tallied);
                Some(Reaction::Nothing)
            }
            _ => None,
        }
    }

    fn at_client(&mut self, segment: &Segment) -> Option<Reaction> {
        let begun = segment.ack.wrapping_sub(1);
        if begun & FLOOD != 0 {
            self.tally.flood_at_clients += 1;
            return Some(Reaction::Nothing);
        }
        let number = begun >> NUMBER_SHIFT;
        let is_tallied = self.is_tallied(number);
        let connection = self.connection(number)?;
        if segment.flags & RST != 0 {
            connection.stage = Stage::Over;
            self.tally.refused += u64::from(is_tallied);
            return Some(Reaction::Nothing);
        }
        let (host, port) = scenario::client(scenario::spread(number));
        let is_its = segment.dst[2..] == host.to_be_bytes() && segment.dst_port == port;
        if connection.stage != Stage::SynAtMember || !is_its {
            return None;
        }
        connection.stage = Stage::AnswerAtClient;
        Some(Reaction::Honest(number, segment.answer(ACK)))
    }

    fn connection(&mut self, number: u32) -> Option<&mut Connection> {
        let connection = &mut self.connections[place(number)];
        (connection.number == number && connection.stage != Stage::Over).then_some(connection)
    }

    fn is_tallied(&self, number: u32) -> bool {
        number.wrapping_sub(self.first_tallied) & NUMBER_MASK < NUMBER_MASK / 2
    }
}

fn syn((src, src_port): ([u8; 4], u16), seq: u32) -> Segment {
    Segment { src, src_port, dst: VIRTUAL_IP, dst_port: VIRTUAL_PORT, seq, ack: 0, flags: SYN }
}

/// The client's end of an open connection, so that it need not be kept longer.
fn closing(number: u32) -> Segment {
    let (host, port) = scenario::client(scenario::spread(number));
    let [high, low] = host.to_be_bytes();
    let seq = (number << NUMBER_SHIFT) + 1;
    let ack = ((number << NUMBER_SHIFT) ^ MEMBER_NUMBERS).wrapping_add(1);
    Segment { ack, flags: RST | ACK, ..syn(([198, 18, high, low], port), seq) }
}

fn place(number: u32) -> usize {
    number as usize % CONNECTIONS
}

/// Under way at once; more than a device holds for the time that a handshake may take.
const CONNECTIONS: usize = 1 << 20;
const NUMBER_SHIFT: u32 = 6;
const NUMBER_MASK: u32 = (1 << 25) - 1;
const FLOOD: u32 = 1 << 31;
/// What a member's first sequence number differs in from the client's.
const MEMBER_NUMBERS: u32 = 0x1234_5600;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steady::SteadyWorker;
    use sluice_dataplane::packet::build::assert_checksums;

    #[test]
    fn segments_are_what_they_say() {
        let mut handshakes = Handshakes::new(7);
        for _ in 0..1_000 {
            for segment in [handshakes.open(0).1, handshakes.flood(), closing(5)] {
                let mut frame = [0; FRAME_BYTES];
                segment.write(&mut frame);
                assert_checksums(&frame[..54]);
                assert_eq!(Segment::read(&frame), Some(segment));
            }
        }
    }

    #[test]
    fn connections_open_and_close_through_a_worker_and_the_flood_is_told_apart() {
        let (mut worker, mut handshakes) = (SteadyWorker::tcp(), Handshakes::new(7));
        let mut waiting = Vec::new();
        for now in 0..200 {
            waiting.push(handshakes.open(now).1);
            waiting.extend((0..10).map(|_| handshakes.flood()));
            for _ in 0..4 {
                let came = worker.exchange(&std::mem::take(&mut waiting));
                for segment in came {
                    match handshakes.handle(&segment, now) {
                        Reaction::Honest(_, segment) | Reaction::Flood(segment) => waiting.push(segment),
                        Reaction::Nothing => (),
                    }
                }
            }
        }
        let expected = Tally {
            offered: 200,
            completed: 200,
            closed: 200,
            flood_at_members: 2_000,
            flood_at_clients: 2_000,
            ..Tally::default()
        };
        assert_eq!((handshakes.tally(), worker.drops()), (expected, vec![]));
        assert_eq!(handshakes.times().len(), 200);
    }

    #[test]
    fn what_never_left_is_nobodys_failure() {
        let mut handshakes = Handshakes::new(7);
        let (first, _) = handshakes.open(0);
        handshakes.open(0);
        handshakes.on_never_sent(first);
        assert_eq!(handshakes.tally(), Tally { offered: 1, never_sent: 1, ..Tally::default() });
        handshakes.start_tally();
        assert_eq!(handshakes.tally(), Tally::default());
    }
}
