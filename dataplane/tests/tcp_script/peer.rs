//! The peer: segments as the script says them, and a peer that is honest.

use sluice_dataplane::tcp::{Engine, State};

use super::super::packet::{ACK, FIN, RST, SYN, Tcp};
use super::checks::Packets;
use super::{ROOM, Script, byte};

impl Script {
    /// A segment at `offset` of the peer's stream that acknowledges everything before `acked`.
    pub(super) fn segment(&self, flags: u8, offset: u32, acked: u32) -> Tcp {
        let [seq, ack] = [self.begins[1].wrapping_add(offset), self.begins[0].wrapping_add(acked)];
        Tcp::new(self.ends[1], self.ends[0], flags, seq, ack)
    }

    /// Gives the engine a segment with `len` bytes.
    pub(super) fn says(&mut self, mut tcp: Tcp, offset: u32, len: u32) {
        if self.is_new() {
            tcp.flags |= SYN;
            tcp.seq = self.begins[1].wrapping_sub(1);
            (tcp.mss, tcp.scale) = (Some(self.agreed.peer_mss), self.agreed.peer_scale);
            tcp.sack = self.agreed.sack;
            tcp.blocks.clear();
        }
        tcp.payload = (0..len).map(|at| byte(1, offset.wrapping_add(at))).collect();
        let end = offset.wrapping_add(len);
        if !tcp.has(SYN | RST) && end.wrapping_sub(self.expected()) <= self.checks.receive_buffer + 1 {
            // Nor may it speak from behind its FIN: windows of what it says before are older than those.
            let last = self.fin_at + u32::from(len == 0);
            self.furthest = self.furthest.max(end);
            self.is_liar |= if tcp.has(FIN) { end != self.fin_at } else { end > last };
        }
        self.offers(&tcp);
        self.engine.receive(self.id, &tcp.write(), self.now);
    }

    /// True while the engine waits for the answer to its SYN.
    fn is_new(&self) -> bool {
        !self.is_accepted
            && self.engine.state(self.id) == State::Connecting
            && self.engine.numbers(self.id).1 == 0
    }

    /// What the engine may send after this.
    fn offers(&mut self, tcp: &Tcp) {
        let acked = tcp.ack.wrapping_sub(self.begins[0]);
        if tcp.has(ACK) && acked <= self.checks.sent {
            let scale = if tcp.has(SYN) { 0 } else { self.scale };
            self.checks.edge = self.checks.edge.max(acked + (u32::from(tcp.window) << scale));
        } else if tcp.has(SYN) && self.is_new() {
            self.checks.edge = self.checks.edge.max(tcp.window.into());
        }
    }

    /// Takes what the engine has to send, and looks at it; all of it where there is room.
    pub(super) fn flush(&mut self, room: usize) -> Vec<Tcp> {
        let mut sink = Packets { room, largest: self.largest, packets: Vec::new() };
        let had_output = self.engine.has_output(self.id, self.now);
        let has_more = self.engine.transmit(self.id, &mut sink, self.now);
        assert!(had_output || sink.packets.is_empty(), "it said that there was nothing");
        assert!(!has_more || sink.packets.len() == room, "it had room");
        self.checks.count(sink.packets.len());
        let sent = sink.packets.iter().map(|(packet, segment)| self.looks_at(packet, *segment)).collect();
        if !has_more {
            self.rests();
        }
        sent
    }

    fn looks_at(&mut self, packet: &[u8], segment: Option<u16>) -> Tcp {
        let tcp = Tcp::read(packet);
        assert_eq!([tcp.from, tcp.to], self.ends);
        self.checks.size(packet, segment, self.largest, &tcp);
        let from = tcp.seq.wrapping_sub(self.begins[0]);
        let acked = tcp.ack.wrapping_sub(self.begins[1]);
        let to = from.wrapping_add(tcp.payload.len() as u32 + u32::from(tcp.has(FIN)));
        if from <= self.got && to > self.got && !tcp.has(SYN | RST) {
            self.got = to;
        }
        self.checks.segment(&tcp, from, acked, self.written);
        tcp
    }

    /// All was sent: there is nothing more to be sent now, and a time to come again while something is owed.
    fn rests(&mut self) {
        let mut sink = Packets { room: ROOM, largest: self.largest, packets: Vec::new() };
        assert!(!self.engine.transmit(self.id, &mut sink, self.now));
        assert!(sink.packets.is_empty(), "{:?}", Tcp::read(&sink.packets[0].0));
        let due = self.engine.due(self.id, self.now);
        assert!(due.is_none_or(|due| due > self.now), "what is due now was done");
        let is_owed = match self.engine.state(self.id) {
            State::Connecting => true,
            State::Open => self.acknowledged() < self.written + u32::from(self.is_closed),
            _ => false,
        };
        assert!(!is_owed || due.is_some(), "something is owed and nobody comes");
    }

    /// A peer that sends the rest of its stream and takes what comes in order: both streams go on to their end. It has lost
    /// all that it did not acknowledge, whatever it said that it holds.
    pub(super) fn makes_good(&mut self) {
        let acked = self.acknowledged();
        self.got = if acked > u32::MAX / 2 { 0 } else { acked };
        let (mut seen, mut since) = ((0, 0), 0);
        for round in 0..ROUNDS_MAX {
            if self.engine.state(self.id).is_over() {
                return;
            }
            self.says_the_truth();
            let now = (self.acknowledged(), self.expected());
            if now != seen {
                (seen, since) = (now, round);
            }
            let state = self.engine.state(self.id);
            assert!(
                state.is_over() || round - since < PATIENCE,
                "{state:?} {now:?} of {} and {}",
                self.written,
                self.fin_at
            );
        }
    }

    fn says_the_truth(&mut self) {
        self.closes();
        self.reads(u32::MAX);
        let next = self.expected();
        let room = self.checks.window_end().saturating_sub(next);
        let len = self.fin_at.saturating_sub(next).min(1000).min(room);
        let is_end = next + len == self.fin_at;
        let mut tcp = self.segment(if is_end { ACK | FIN } else { ACK }, next, self.got);
        tcp.window = (60_000 >> self.scale).max(1);
        self.says(tcp, next, len);
        self.flush(ROOM);
        self.waits(100);
    }
}

const ROUNDS_MAX: usize = 5_000;
/// Rounds of 100 ms without any progress: longer than the two longest timeouts.
const PATIENCE: usize = 1_300;
