//! The least that clients and members have to know of TCP, for a wire that loses nothing.
//!
//! ```text
//!   client: SYN · ACK, request · … · request ─▶        ◀─ SYN-ACK · response · FIN      data carries the acknowledgements
//!   member: ◀─ SYN-ACK · response · FIN                 SYN · request · FIN ─▶
//!
//!   frame ─▶ Hosts::handle ─▶ ends that may send ─▶ Hosts::transmit ─▶ frames       clients without a request: Hosts::begin
//! ```
//!
//! A client is a place, and a port; each of its connections has another address, so that no two in succession are the same to
//! the proxy. A member has a place for every port that it is spoken to from. Every byte of an answer is looked at: it must be
//! the member's, with the number of this very request. Nobody sends anything twice: a segment that is lost on its way to the
//! proxy is a connection that stands still. Nothing here allocates after the start, but for heads that come in pieces.

mod content;
mod end;
pub mod load;
mod message;
mod segment;
#[cfg(test)]
mod tests;
pub mod wire;

use std::collections::{HashMap, VecDeque};

use sluice_dataplane::address::Mac;
use sluice_dataplane::packet::parse::tcp_flag::{ACK, FIN, RST, SYN};

use self::end::{End, Next, Side, Stage};
use self::message::{HEAD_MAX, Message};
use self::segment::{Outgoing, Segment};
use self::wire::Wire;
use crate::scenario::{MEMBER_PORT, SELF_IP, VIRTUAL_IP, VIRTUAL_PORT};

/// What client and member say to each other.
#[derive(Debug, Clone, Copy)]
pub struct Exchange {
    /// HTTP is spoken through to the member; otherwise the same bytes pass as they are.
    pub is_http: bool,
    /// The client asks that its connection be closed after the response.
    pub closes: bool,
    /// Of the response's body; at least 8.
    pub body_bytes: usize,
}

/// What has come of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answers that clients have had in whole, byte for byte.
    pub answered: u64,
    /// Connections that clients began.
    pub opened: u64,
    /// Connections that members were asked for.
    pub accepted: u64,
    /// Answers that were not the member's to this request, and requests that were not the client's.
    pub wrong: u64,
    /// Connections that ended before the answer.
    pub broken: u64,
    /// Frames with wrong checksums, of those that were looked at.
    pub unsound: u64,
    /// Segments that should not have come at all.
    pub strange: u64,
    /// Segments that came again, or too early because one before them is missing: no failure, TCP makes it good.
    pub repeated: u64,
}

impl Tally {
    /// What must not be.
    pub fn errors(&self) -> u64 {
        self.wrong + self.broken + self.unsound + self.strange
    }
}

/// The clients and the members.
pub struct Hosts {
    exchange: Exchange,
    /// Link addresses: the worker's, and that of all hosts.
    link: (Mac, Mac),
    clients: Box<[End]>,
    /// By the member and the port that it sees.
    members: Box<[End]>,
    /// Ends that may have something to send.
    ready: VecDeque<(Side, usize)>,
    /// Clients that wait for nothing.
    idle: Vec<usize>,
    request: Message,
    response: Message,
    /// The head of the last answer: most are the same.
    head: Vec<u8>,
    is_last: bool,
    /// Heads of which more has to come.
    pieces: HashMap<(bool, usize), Vec<u8>>,
    frames: u64,
    tally: Tally,
}

impl Hosts {
    /// Nothing is open yet. `link` are the worker's link address, and that of all hosts.
    pub fn new(exchange: Exchange, clients: usize, members: usize, link: (Mac, Mac)) -> Self {
        let clients = clients.min(usize::from(u16::MAX - PORTS_FIRST));
        Self {
            exchange,
            link,
            clients: vec![End::idle(); clients].into(),
            members: vec![End::default(); members << 16].into(),
            ready: VecDeque::with_capacity(4 * clients),
            idle: (0..clients).collect(),
            request: Message::request(exchange.closes),
            response: Message::response(exchange.body_bytes),
            head: Vec::with_capacity(HEAD_MAX),
            is_last: false,
            pieces: HashMap::new(),
            frames: 0,
            tally: Tally::default(),
        }
    }

    /// What has come of it so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Of every answer's body.
    pub fn body_bytes(&self) -> usize {
        self.response.len() - self.response.number_at()
    }

    /// Clients that wait for a connection, an answer, or the end of a connection.
    pub fn busy_clients(&self) -> usize {
        let is_busy =
            |end: &&End| end.waits || end.stage == Stage::Opening || end.is_closing() || end.is_last;
        self.clients.iter().filter(is_busy).count()
    }

    /// Connections of clients that are not closed.
    pub fn open_clients(&self) -> usize {
        self.clients.iter().filter(|end| end.stage != Stage::Closed).count()
    }

    /// Every client that waits for nothing asks, over a new connection where it has none.
    pub fn begin_all(&mut self) {
        while let Some(client) = self.idle.pop() {
            self.clients[client].is_idle = false;
            self.begin(client);
        }
    }

    /// This client asks, over a new connection where it has none; nothing when it waits already.
    pub fn begin(&mut self, client: usize) {
        let end = self.clients[client];
        match end.stage {
            Stage::Closed => {
                let seq = (client as u32) << 12 ^ end.uses.wrapping_mul(0x9e37_79b9);
                self.clients[client] = end.reopened(seq);
                self.tally.opened += 1;
                self.make_ready(Side::Client, client);
            }
            Stage::Open if !end.waits && !end.is_closing() && !end.is_last => self.ask(client),
            _ => {}
        }
    }

    fn ask(&mut self, client: usize) {
        let (len, end) = (self.request.len(), &mut self.clients[client]);
        let number = (client as u32) << 16 | (end.number + 1) & 0xffff;
        end.say(number, len);
        (end.waits, end.had) = (true, 0);
        self.make_ready(Side::Client, client);
    }

    /// Takes in a frame; anything but a segment is nobody's.
    pub fn handle(&mut self, frame: &[u8], sums: bool) {
        let Some(segment) = Segment::read(frame) else { return };
        self.frames += 1;
        if sums && self.frames & VERIFY_MASK == 0 && !segment::is_sound(frame) {
            self.tally.unsound += 1;
        }
        match self.place(&segment) {
            Some((side, place)) => self.handle_segment(side, place, &segment),
            // The last acknowledgement of a connection that is closed has nothing to say.
            None => self.tally.strange += u64::from(says_something(&segment)),
        }
    }

    /// Sends what there is to be sent, as long as there is room. Returns how many frames.
    pub fn transmit(&mut self, wire: &mut impl Wire) -> usize {
        let mut frames = 0;
        while let Some(&(side, place)) = self.ready.front() {
            let Some(next) = self.end(side, place).next() else {
                self.end(side, place).is_ready = false;
                self.ready.pop_front();
                continue;
            };
            if !self.send(wire, side, place, next) {
                break;
            }
            frames += 1;
        }
        wire.flush();
        frames
    }

    fn send<W: Wire>(&mut self, wire: &mut W, side: Side, place: usize, next: Next) -> bool {
        let end = *self.end(side, place);
        let outgoing = self.outgoing(side, place, &end, next, W::SUMS);
        let message = if side == Side::Client { &self.request } else { &self.response };
        let fill = |bytes: &mut [u8]| message.write(end.sent as usize, end.number, bytes);
        if !wire.put(outgoing.frame_len(), |frame| outgoing.write(frame, fill)) {
            return false;
        }
        self.end(side, place).on_sent(next);
        if next.flags & FIN != 0 && side == Side::Client {
            self.make_idle(place);
        }
        true
    }

    fn outgoing(&self, side: Side, place: usize, end: &End, next: Next, sums: bool) -> Outgoing {
        let (src, src_port, dst, dst_port) = match side {
            Side::Client => (client_address(end.uses), PORTS_FIRST + place as u16, VIRTUAL_IP, VIRTUAL_PORT),
            Side::Member => (member_address(place >> 16), MEMBER_PORT, SELF_IP, place as u16),
        };
        let Next { flags, payload } = next;
        let greets = flags & SYN != 0;
        let (seq, ack) = (end.seq, end.ack);
        Outgoing { link: self.link, src, src_port, dst, dst_port, seq, ack, flags, greets, payload, sums }
    }

    /// Whose segment it is.
    fn place(&self, segment: &Segment<'_>) -> Option<(Side, usize)> {
        if segment.src == VIRTUAL_IP {
            let client = usize::from(segment.dst_port.checked_sub(PORTS_FIRST)?);
            let end = self.clients.get(client)?;
            return (client_address(end.uses) == segment.dst).then_some((Side::Client, client));
        }
        let member = usize::from(segment.dst[3]).checked_sub(1)?;
        let is_member = segment.src == SELF_IP && segment.dst == member_address(member);
        let place = member << 16 | usize::from(segment.src_port);
        (is_member && place < self.members.len()).then_some((Side::Member, place))
    }

    fn handle_segment(&mut self, side: Side, place: usize, segment: &Segment<'_>) {
        let end = self.end(side, place);
        if segment.flags & RST != 0 && end.stage != Stage::Closed {
            self.give_up(side, place);
        } else if segment.flags & SYN != 0 {
            self.greet(side, place, segment);
        } else if end.stage != Stage::Open {
            self.tally.strange += u64::from(says_something(segment));
        } else {
            end.on_ack(segment);
            if segment.seq == end.ack {
                self.take(side, place, segment);
            } else if says_something(segment) {
                end.owe_ack();
                self.tally.repeated += 1;
            }
            self.make_ready(side, place);
        }
    }

    fn greet(&mut self, side: Side, place: usize, syn: &Segment<'_>) {
        let end = self.end(side, place);
        match (side, end.stage) {
            (Side::Client, Stage::Opening) if syn.flags & ACK != 0 => {
                end.on_answered(syn);
                self.ask(place);
            }
            (Side::Member, _) if syn.flags & ACK == 0 => {
                *end = End::answering(syn, end.is_ready);
                self.tally.accepted += 1;
                self.make_ready(side, place);
            }
            _ => self.tally.strange += 1,
        }
    }

    /// What comes next has come.
    fn take(&mut self, side: Side, place: usize, segment: &Segment<'_>) {
        let end = self.end(side, place);
        end.ack = end.ack.wrapping_add(segment.payload.len() as u32);
        let is_right = match side {
            _ if segment.payload.is_empty() => true,
            Side::Client => self.take_answer(place, segment.payload),
            Side::Member => self.take_request(place, segment.payload),
        };
        if !is_right {
            self.tally.wrong += 1;
            self.end(side, place).waits = false;
        }
        if segment.flags & FIN != 0 {
            self.take_fin(side, place);
        }
    }

    fn take_fin(&mut self, side: Side, place: usize) {
        let end = self.end(side, place);
        end.ack = end.ack.wrapping_add(1);
        end.owe_fin();
        let is_early = std::mem::take(&mut end.waits);
        end.is_last = false;
        self.tally.broken += u64::from(is_early);
        self.make_ready(side, place);
    }

    fn give_up(&mut self, side: Side, place: usize) {
        let end = self.end(side, place);
        *end = end.forgotten();
        self.tally.broken += 1;
        if side == Side::Client {
            self.make_idle(place);
        }
    }

    fn make_idle(&mut self, client: usize) {
        let end = &mut self.clients[client];
        if !end.is_idle {
            end.is_idle = true;
            self.idle.push(client);
        }
    }

    fn make_ready(&mut self, side: Side, place: usize) {
        let end = self.end(side, place);
        if !end.is_ready && end.next().is_some() {
            end.is_ready = true;
            self.ready.push_back((side, place));
        }
    }

    fn end(&mut self, side: Side, place: usize) -> &mut End {
        match side {
            Side::Client => &mut self.clients[place],
            Side::Member => &mut self.members[place],
        }
    }
}

fn says_something(segment: &Segment<'_>) -> bool {
    !segment.payload.is_empty() || segment.flags & (SYN | FIN | RST) != 0
}

/// The address of a client whose port is used for the `uses`th time: those of the network for benchmarks (RFC 2544), in turn.
fn client_address(uses: u32) -> [u8; 4] {
    (0xc612_0001 + uses % ((1 << 17) - 2)).to_be_bytes()
}

/// The scenario's.
pub fn member_address(member: usize) -> [u8; 4] {
    [10, 1, 1, 1 + member as u8]
}

/// The client's lowest port.
pub const PORTS_FIRST: u16 = 10_000;
/// Of so many frames one is looked at whole.
const VERIFY_MASK: u64 = 63;
