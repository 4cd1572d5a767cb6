//! Any bytes as the life of one TCP connection: what its peer says, what its owner does, time, and a sink with little room.
//!
//! What the peer sends is a function of its place in the stream, so that what is read can be checked whatever came; so is
//! what the owner writes. Offsets count from the first byte of either stream.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "a harness")]

mod checks;
mod peer;

use std::time::Duration;

use sluice_dataplane::address::Address;
use sluice_dataplane::clock::Instant;
use sluice_dataplane::tcp::native::Native;
use sluice_dataplane::tcp::{Agreed, ConnId, Engine, EngineSpec, Opening, Options, State};

use self::checks::Checks;
use super::packet::{ACK, FIN, RST, SYN, Tcp};

/// Steps at most, so that an input ends soon.
const STEPS_MAX: usize = 400;

/// Runs a script. Whatever it says the engine does not panic, sends no more than it should, sends and shows the right
/// bytes, tells when it is to be called again while something is owed, comes to an end with a peer that is honest from
/// then on, and has given its buffers back in the end.
pub fn run(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let mut script = Script::new(&mut bytes);
    for _ in 0..STEPS_MAX {
        if bytes.0.is_empty() {
            break;
        }
        script.step(&mut bytes);
    }
    script.end();
}

/// What is left of the input; zeros behind its end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u32 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        u32::from(*byte)
    }

    /// Often small, sometimes large, at times next to a power of two, where bounds are.
    fn amount(&mut self) -> u32 {
        let (kind, low) = (self.byte(), self.byte());
        match kind & 3 {
            0 => low,
            1 => low << (kind >> 4),
            2 => (1u32 << (kind >> 3)).wrapping_add(low % 5).wrapping_sub(2),
            _ => 0u32.wrapping_sub(low << (kind >> 4)),
        }
    }

    fn choose<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.byte() as usize % of.len()]
    }
}

pub struct Script {
    engine: Native,
    id: ConnId,
    now: Instant,
    /// First sequence numbers of both streams: the engine's and the peer's.
    begins: [u32; 2],
    ends: [(Address, u16); 2],
    /// By how much the peer's windows are shifted.
    scale: u8,
    agreed: Agreed,
    is_accepted: bool,
    written: u32,
    read: u32,
    is_closed: bool,
    /// Where the peer's stream ends, if it ever does.
    fin_at: u32,
    /// The end of what the peer has sent.
    furthest: u32,
    /// The end of what an honest peer has.
    got: u32,
    /// The peer has said what no honest peer can make good.
    is_liar: bool,
    /// What the sink takes in one piece.
    largest: usize,
    checks: Checks,
}

impl Script {
    fn new(bytes: &mut Bytes<'_>) -> Self {
        let spec = EngineSpec {
            connections: 1,
            receive_buffer: bytes.choose(&[16_384, 65_536, 1, 1000, 2048, 5000, 200_000]),
            send_buffer: bytes.choose(&[16_384, 65_536, 1, 1000, 2048, 5000]),
            mtu: bytes.choose(&[1500, 576, 9000, 68]),
        };
        let options = Options {
            nagle: bytes.choose(&[false, true]),
            keep_alive_ms: bytes.choose(&[0, 1_000, 100_000]),
            ack_delay_ms: bytes.choose(&[10, 0, 200]),
        };
        let agreed = Agreed {
            peer_isn: bytes.choose(&[0xffff_fe00, 0, 0x7fff_f000, 0xffff_ffff]),
            peer_mss: bytes.choose(&[1460, 0, 64, 536, 65_535]),
            peer_scale: bytes.choose(&[Some(7), None, Some(0), Some(14), Some(255)]),
            sack: bytes.choose(&[true, false]),
        };
        let ends = match bytes.choose(&[4, 6]) {
            4 => [(Address::v4([10, 0, 0, 2]), 80), (Address::v4([10, 0, 0, 1]), 1000)],
            _ => [(Address::v6([2; 16]), 80), (Address::v6([1; 16]), 1000)],
        };
        let isn = bytes.choose(&[0xffff_f000, 0, 0x7fff_ff00, 0xffff_ffff]);
        let is_accepted = bytes.choose(&[true, true, false]);
        let opening = Opening { local: ends[0], remote: ends[1], isn, options };
        let (now, mut engine) = (Instant::from_ms(1000), Native::new(spec));
        let id = match is_accepted {
            true => engine.accept(&opening, &agreed, now).unwrap(),
            false => engine.connect(&opening, now).unwrap(),
        };
        let scale = agreed.peer_scale.map_or(0, |scale| scale.min(14));
        Self {
            checks: Checks::new(&engine.announced(), &agreed, spec, ends[0].0.is_v4()),
            engine,
            id,
            now,
            begins: [isn.wrapping_add(1), agreed.peer_isn.wrapping_add(1)],
            ends,
            scale,
            agreed,
            is_accepted,
            written: 0,
            read: 0,
            is_closed: false,
            fin_at: bytes.choose(&[70_000, 100, 1460, 1_000_000, 5000, 0]),
            furthest: 0,
            got: u32::MAX,
            is_liar: false,
            largest: bytes.choose(&[0, 65_535, 9000, 100]),
        }
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        let what = bytes.byte();
        match what & 15 {
            0..6 => self.says_something(bytes),
            6 | 7 => self.says_what_is_next(bytes),
            8 | 9 => self.writes(bytes.amount() % 100_000),
            10 => self.reads(bytes.amount()),
            11 if what >> 4 == 0 => self.closes(),
            12 if bytes.byte() == 9 => self.engine.abort(self.id),
            13 => self.waits(u64::from(bytes.byte()) << (what >> 4)),
            _ => {}
        }
        let room = if what & 0x80 != 0 { 1 + (what >> 4 & 3) as usize } else { ROOM };
        self.flush(room);
    }

    fn says_something(&mut self, bytes: &mut Bytes<'_>) {
        let next = self.expected().wrapping_add(bytes.amount());
        let una = self.acknowledged();
        let flags = bytes.choose(&[ACK, ACK | FIN, ACK, ACK, SYN, SYN | ACK, ACK | FIN, 0, RST, 255]);
        // Few connections should end so soon.
        let flags = if flags & RST != 0 && bytes.byte() != 1 { ACK } else { flags };
        let mut tcp = self.segment(flags, next, una.wrapping_add(bytes.amount()));
        tcp.window = bytes.amount() as u16;
        for _ in 0..bytes.byte() % 5 {
            let from = una.wrapping_add(bytes.amount());
            let to = from.wrapping_add(bytes.amount());
            tcp.blocks.push((self.begins[0].wrapping_add(from), self.begins[0].wrapping_add(to)));
        }
        let len = bytes.amount() % 9000;
        let is_honest = bytes.byte() & 15 != 15;
        let len = if is_honest { self.within_stream(&mut tcp, next, len) } else { len };
        self.says(tcp, next, len);
    }

    /// So much of the bytes as belongs to the stream; a FIN stands at its end only.
    fn within_stream(&self, tcp: &mut Tcp, next: u32, len: u32) -> u32 {
        let rest = self.fin_at.saturating_sub(next);
        if tcp.has(FIN) && (rest >= 9000 || next > self.fin_at) {
            tcp.flags &= !FIN;
        }
        if tcp.has(FIN) { rest } else { len.min(rest) }
    }

    /// What an honest peer could say.
    fn says_what_is_next(&mut self, bytes: &mut Bytes<'_>) {
        let next = self.expected();
        let una = self.acknowledged();
        let ack = una.wrapping_add((bytes.byte() * 100).min(self.checks.sent.saturating_sub(una)));
        let mut tcp = self.segment(ACK, next, ack);
        tcp.window = bytes.choose(&[8192, 0, 1, 20, 100, 65_535]);
        let len = (bytes.byte() * 20).min(self.fin_at.saturating_sub(next));
        if next.wrapping_add(len) == self.fin_at && bytes.byte() & 1 == 0 {
            tcp.flags |= FIN;
        }
        self.says(tcp, next, len);
    }

    fn closes(&mut self) {
        self.engine.close(self.id);
        self.is_closed = true;
    }

    fn writes(&mut self, len: u32) {
        let data = (self.written..self.written + len).map(|at| byte(0, at)).collect::<Vec<_>>();
        let may = self.engine.writable(self.id);
        let wrote = self.engine.send(self.id, &data);
        assert_eq!(wrote, may.min(data.len()));
        self.written += wrote as u32;
    }

    fn reads(&mut self, len: u32) {
        let end = self.read.saturating_add(len);
        while self.read < end && self.engine.readable(self.id) > 0 {
            let (at, left) = (self.read, (end - self.read) as usize);
            let took = self.engine.read(self.id, |piece| {
                let piece = &piece[..piece.len().min(left)];
                assert!(piece.iter().zip(at..).all(|(got, at)| *got == byte(1, at)), "at {at}");
                piece.len()
            });
            assert!(took > 0);
            self.read += took as u32;
        }
    }

    fn waits(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        let mut calls = 0;
        while let Some(at) = self.engine.due(self.id, self.now).filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.flush(ROOM);
            calls += 1;
            assert!(calls < 100 + ms, "it is due again and again");
        }
        self.now = end;
    }

    /// The peer is honest from now on; then the connection is forgotten.
    fn end(&mut self) {
        self.flush(ROOM);
        if !self.is_liar {
            self.makes_good();
        }
        self.reads(u32::MAX);
        let is_idle = self.engine.unacknowledged(self.id) == 0 && self.expected() >= self.furthest;
        if is_idle && self.engine.state(self.id) == State::Open {
            assert_eq!(self.engine.buffered_bytes(), 0, "an idle connection holds nothing");
        }
        self.engine.release(self.id);
        assert_eq!((self.engine.buffered_bytes(), self.engine.len()), (0, 0));
        assert_eq!(self.engine.due(self.id, self.now), None);
    }

    /// Where the engine expects the peer's stream to go on; its FIN counts.
    fn expected(&self) -> u32 {
        self.engine.numbers(self.id).1.wrapping_sub(self.begins[1])
    }

    fn acknowledged(&self) -> u32 {
        self.engine.acknowledged(self.id).wrapping_sub(self.begins[0])
    }
}

const ROOM: usize = 100_000;

/// What is at `offset` of the engine's stream (0) or the peer's (1).
pub fn byte(stream: u32, offset: u32) -> u8 {
    (offset.wrapping_add(stream).wrapping_mul(0x9e37_79b9) >> 24) as u8
}
