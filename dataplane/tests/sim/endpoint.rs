//! One end of a TCP connection: go-back-N, and data in which every eight bytes say whose they are.
//!
//! ```text
//!   sequence number = tag × 65,536 + base of the side + offset        offset 0: SYN, then data, then FIN
//! ```
//!
//! So every segment, even without data, names its connection.

use super::wire::{ACK, FIN, RST, SYN};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Member,
}

/// When an end that has sent its data sends FIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// At once: half-closed until the other end closes, or both at the same time.
    AtOnce,
    /// After so many bytes have come.
    AfterBytes(u32),
    /// After the other end's FIN.
    Second,
}

/// How an end breaks off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    Never,
    /// RST after so many bytes have come.
    Reset(u32),
    /// No word any more after so many bytes have come.
    Vanish(u32),
}

/// What an end is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manners {
    /// Bytes it sends.
    pub bytes: u32,
    /// Bytes that must have come before it sends its own.
    pub after: u32,
    pub closing: Closing,
    pub breaking: Break,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Running,
    /// All sent, acknowledged, and both have closed.
    Done,
    /// The other end (or sluice) has reset it; true when all had been done but the last acknowledgement.
    WasReset(bool),
    /// It broke off itself.
    Broke,
    /// Nobody acknowledged.
    GaveUp,
}

/// A segment to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Out {
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub payload: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Endpoint {
    pub tag: u16,
    side: Side,
    /// In the last byte of every record; the member's number.
    name: u8,
    manners: Manners,
    pub state: State,
    /// Offsets: the first not acknowledged, and the next to send.
    una: u32,
    nxt: u32,
    /// The other end's next offset; 0 before its SYN.
    rcv: u32,
    peer_closed: bool,
    tries: u32,
    /// When to retransmit, if something is not acknowledged.
    pub due: Option<u64>,
    /// The time that the world will come back at.
    wound: Option<u64>,
    /// The member that the data so far named.
    heard_name: Option<u8>,
}

impl Endpoint {
    pub fn new(tag: u16, side: Side, name: u8, manners: Manners) -> Self {
        Self {
            tag,
            side,
            name,
            manners,
            state: State::Running,
            una: 0,
            nxt: 0,
            rcv: 0,
            peer_closed: false,
            tries: 0,
            due: None,
            wound: None,
            heard_name: None,
        }
    }

    /// Begins: the client's SYN.
    pub fn open(&mut self, now: u64) -> Vec<Out> {
        self.nxt = 1;
        self.due = Some(now + RTO_MS);
        vec![self.segment(SYN, 0, Vec::new())]
    }

    /// The answers to a segment of this connection.
    ///
    /// # Errors
    /// What is wrong with its data.
    pub fn hear(&mut self, flags: u8, seq: u32, ack: u32, data: &[u8], now: u64) -> Result<Vec<Out>, String> {
        let offset = seq.wrapping_sub(base(self.tag, self.other()));
        self.check(offset, data)?;
        if matches!(self.state, State::Broke | State::GaveUp) {
            return Ok(Vec::new());
        }
        if flags & RST != 0 {
            return Ok(self.was_reset());
        }
        let before = (self.rcv, self.una);
        self.take_in(flags, offset, data);
        if flags & ACK != 0 && self.acknowledge(ack) {
            (self.tries, self.due) = (0, (self.una < self.nxt).then_some(now + RTO_MS));
        }
        if let Some(parting) = self.break_off() {
            return Ok(parting);
        }
        let mut out = Vec::new();
        self.pump(now, &mut out);
        let occupies = !data.is_empty() || flags & (SYN | FIN) != 0;
        if out.is_empty() && occupies && self.nxt > 0 {
            let again = self.rcv == 1 && self.una == 0 && flags & SYN != 0 && self.side == Side::Member;
            let flags = if again { SYN | ACK } else { ACK };
            out.push(self.segment(flags, if again { 0 } else { self.nxt }, Vec::new()));
        }
        if before == (0, 0) && self.side == Side::Member && self.nxt == 0 && self.rcv == 1 {
            self.nxt = 1;
            self.due = Some(now + RTO_MS);
            out.push(self.segment(SYN | ACK, 0, Vec::new()));
        }
        self.finish();
        Ok(out)
    }

    /// Retransmits what is due.
    pub fn on_time(&mut self, now: u64) -> Vec<Out> {
        if self.state != State::Running || self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.tries += 1;
        if self.tries > TRIES_MAX {
            (self.state, self.due) = (State::GaveUp, None);
            return Vec::new();
        }
        self.due = Some(now + (RTO_MS << self.tries.min(2)));
        let mut out = Vec::new();
        if self.una == 0 {
            let flags = if self.side == Side::Client { SYN } else { SYN | ACK };
            out.push(self.segment(flags, 0, Vec::new()));
        } else {
            self.nxt = self.una;
            self.pump(now, &mut out);
        }
        out
    }

    /// When to come back, if that has not been said yet.
    pub fn wind(&mut self) -> Option<u64> {
        let due = self.due.filter(|_| self.due != self.wound);
        self.wound = self.due;
        due
    }

    /// Data bytes that have come in order.
    pub fn received(&self) -> u32 {
        self.rcv.saturating_sub(1 + u32::from(self.peer_closed))
    }

    /// True when the other end has answered the SYN.
    pub fn is_open(&self) -> bool {
        self.rcv > 0
    }

    fn other(&self) -> Side {
        if self.side == Side::Client { Side::Member } else { Side::Client }
    }

    /// Every byte must be the one that this connection has at its place.
    fn check(&mut self, offset: u32, data: &[u8]) -> Result<(), String> {
        for (at, &byte) in data.iter().enumerate() {
            let place = offset.wrapping_sub(1).wrapping_add(at as u32);
            let name = if place % 8 == 7 { *self.heard_name.get_or_insert(byte) } else { 0 };
            let expected = pattern(self.tag, self.other(), name, place);
            if byte != expected {
                let (tag, side) = (self.tag, self.other());
                return Err(format!(
                    "connection {tag}: byte {place} from {side:?} is {byte}, not {expected}"
                ));
            }
        }
        Ok(())
    }

    fn was_reset(&mut self) -> Vec<Out> {
        if self.state == State::Running {
            let complete = self.peer_closed && self.una > self.manners.bytes;
            (self.state, self.due) = (State::WasReset(complete), None);
        }
        Vec::new()
    }

    /// Takes what comes in order.
    fn take_in(&mut self, flags: u8, offset: u32, data: &[u8]) {
        if flags & SYN != 0 {
            self.rcv = self.rcv.max(1);
            return;
        }
        let end = offset.wrapping_add(data.len() as u32);
        if self.rcv == 0 || self.peer_closed || offset > self.rcv || end < self.rcv {
            return;
        }
        self.rcv = end;
        if flags & FIN != 0 {
            self.peer_closed = true;
            self.rcv += 1;
        }
    }

    fn acknowledge(&mut self, ack: u32) -> bool {
        let acked = ack.wrapping_sub(base(self.tag, self.side));
        if acked <= self.una || acked > self.manners.bytes + 2 {
            return false;
        }
        self.una = acked;
        self.nxt = self.nxt.max(acked);
        true
    }

    fn break_off(&mut self) -> Option<Vec<Out>> {
        let parting = match self.manners.breaking {
            Break::Reset(bytes) if self.rcv > bytes => {
                vec![self.segment(RST | ACK, self.nxt, Vec::new())]
            }
            Break::Vanish(bytes) if self.rcv > bytes => Vec::new(),
            Break::Never | Break::Reset(_) | Break::Vanish(_) => return None,
        };
        (self.state, self.due) = (State::Broke, None);
        Some(parting)
    }

    /// Sends what the window, the plan and the handshake let it.
    fn pump(&mut self, now: u64, out: &mut Vec<Out>) {
        let bytes = self.manners.bytes;
        while self.state == State::Running && self.una > 0 && self.rcv > 0 && self.nxt < self.una + IN_FLIGHT
        {
            if self.nxt <= bytes && self.received() >= self.manners.after {
                let length = (bytes + 1 - self.nxt).min(SEGMENT);
                let places = self.nxt - 1..self.nxt - 1 + length;
                let data = places.map(|place| pattern(self.tag, self.side, self.name, place)).collect();
                out.push(self.segment(ACK, self.nxt, data));
                self.nxt += length;
            } else if self.nxt == bytes + 1 && self.may_close() {
                out.push(self.segment(FIN | ACK, self.nxt, Vec::new()));
                self.nxt += 1;
            } else {
                break;
            }
        }
        if self.una < self.nxt && self.due.is_none() && self.state == State::Running {
            self.due = Some(now + RTO_MS);
        }
    }

    fn may_close(&self) -> bool {
        match self.manners.closing {
            Closing::AtOnce => true,
            Closing::AfterBytes(bytes) => self.received() >= bytes,
            Closing::Second => self.peer_closed,
        }
    }

    fn finish(&mut self) {
        if self.state == State::Running && self.peer_closed && self.una == self.manners.bytes + 2 {
            (self.state, self.due) = (State::Done, None);
        }
    }

    fn segment(&self, flags: u8, offset: u32, payload: Vec<u8>) -> Out {
        let ack = if self.rcv == 0 { 0 } else { base(self.tag, self.other()) + self.rcv };
        Out { flags, seq: base(self.tag, self.side) + offset, ack, payload }
    }
}

/// The sequence number of a side's SYN.
pub fn base(tag: u16, side: Side) -> u32 {
    (u32::from(tag) << 16) | if side == Side::Client { 0x0100 } else { 0x8100 }
}

/// The connection that a sequence number belongs to.
pub fn tag_of(number: u32) -> u16 {
    (number >> 16) as u16
}

/// The byte at `place` of what `side` of connection `tag` sends.
pub fn pattern(tag: u16, side: Side, name: u8, place: u32) -> u8 {
    let record = (place / 8).to_be_bytes();
    match place % 8 {
        0 => (tag >> 8) as u8,
        1 => tag as u8,
        2 => {
            if side == Side::Client {
                0xc1
            } else {
                0x5e
            }
        }
        at @ 3..7 => record[at as usize - 3],
        _ => name,
    }
}

const RTO_MS: u64 = 100;
const TRIES_MAX: u32 = 24;
const SEGMENT: u32 = 92;
const IN_FLIGHT: u32 = 4 * SEGMENT;
