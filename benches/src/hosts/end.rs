//! One end of a connection: its sequence numbers, and what it has to send next.

use sluice_dataplane::packet::parse::tcp_flag::{ACK, FIN, SYN};

use super::segment::{PAYLOAD_MAX, Segment};

/// Client or member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Member,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Closed,
    /// A client waits for the answer to its SYN.
    Opening,
    Open,
}

/// One end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct End {
    pub(super) stage: Stage,
    /// What it sends next.
    pub(super) seq: u32,
    /// What it expects next.
    pub(super) ack: u32,
    /// The first number that its peer has no room for.
    limit: u32,
    /// Of its peer's window.
    scale: u8,
    /// The largest payload that it sends.
    mss: u16,
    /// Flags that have to be sent though there is no payload; SYN before any.
    owed: u8,
    /// An acknowledgement goes alone, before any payload.
    greets: bool,
    /// It is among those that may send.
    pub(super) is_ready: bool,
    /// It is among the clients that wait for nothing.
    pub(super) is_idle: bool,
    /// Of the message that it sends: what has left, and its length.
    pub(super) sent: u32,
    pub(super) len: u32,
    /// Of the request under way.
    pub(super) number: u32,
    /// A client waits for an answer, of which it has so many bytes; 0 until its head was read.
    pub(super) waits: bool,
    pub(super) had: u32,
    /// The peer has said that it will close behind this answer.
    pub(super) is_last: bool,
    /// Of a client: how often its port was used, which decides its address.
    pub(super) uses: u32,
}

/// What an end sends next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) flags: u8,
    /// Bytes of payload.
    pub(super) payload: usize,
}

impl End {
    /// A client's without a connection, which waits for nothing.
    pub(super) fn idle() -> Self {
        Self { is_idle: true, ..Self::default() }
    }

    /// The next connection of this client, which sends a SYN.
    pub(super) fn reopened(&self, seq: u32) -> Self {
        let end = Self { uses: self.uses.wrapping_add(1), ..self.forgotten() };
        Self { stage: Stage::Opening, seq, owed: SYN, ..end }
    }

    /// Its connection is gone.
    pub(super) fn forgotten(&self) -> Self {
        let Self { number, uses, is_ready, is_idle, .. } = *self;
        Self { number, uses, is_ready, is_idle, ..Self::default() }
    }

    /// A member's, which answers `syn`.
    pub(super) fn answering(syn: &Segment<'_>, is_ready: bool) -> Self {
        let (mss, scale) = syn.announced();
        let end = Self { stage: Stage::Open, limit: 1, owed: SYN | ACK, is_ready, ..Self::default() };
        Self { ack: syn.seq.wrapping_add(1), scale, mss: mss.min(PAYLOAD_MAX as u16), ..end }
    }

    /// The answer to a client's SYN has come.
    pub(super) fn on_answered(&mut self, answer: &Segment<'_>) {
        let (mss, scale) = answer.announced();
        (self.stage, self.ack, self.greets) = (Stage::Open, answer.seq.wrapping_add(1), true);
        (self.mss, self.scale) = (mss.min(PAYLOAD_MAX as u16), scale);
        // The window of a SYN has no scale (RFC 7323 section 2.2).
        self.limit = answer.ack.wrapping_add(u32::from(answer.window));
    }

    /// The peer has said how far it is and how much it takes.
    pub(super) fn on_ack(&mut self, segment: &Segment<'_>) {
        self.limit = segment.ack.wrapping_add(u32::from(segment.window) << self.scale);
    }

    /// The acknowledgement of what has come leaves with or without payload.
    pub(super) fn owe_ack(&mut self) {
        self.owed |= ACK;
    }

    /// It closes as soon as all is sent.
    pub(super) fn owe_fin(&mut self) {
        self.owed |= FIN | ACK;
    }

    /// True when it closes as soon as all is sent.
    pub(super) fn is_closing(&self) -> bool {
        self.owed & FIN != 0
    }

    /// Begins to send a message.
    pub(super) fn say(&mut self, number: u32, len: usize) {
        (self.number, self.sent, self.len) = (number, 0, len as u32);
    }

    /// True when it has no message to send.
    pub(super) fn has_said_all(&self) -> bool {
        self.sent == self.len
    }

    /// What it may send now; `None` for nothing.
    pub(super) fn next(&self) -> Option<Next> {
        if self.owed & SYN != 0 {
            return Some(Next { flags: self.owed, payload: 0 });
        }
        if self.greets {
            return Some(Next { flags: ACK, payload: 0 });
        }
        let (left, room) = (self.len - self.sent, self.limit.wrapping_sub(self.seq) as i32);
        let payload = left.min(room.max(0) as u32).min(u32::from(self.mss));
        match payload {
            0 if left == 0 && self.is_closing() => Some(Next { flags: FIN | ACK, payload: 0 }),
            0 => (self.owed & ACK != 0).then_some(Next { flags: ACK, payload: 0 }),
            all if all == left => Some(Next { flags: ACK | PSH, payload: all as usize }),
            part => Some(Next { flags: ACK, payload: part as usize }),
        }
    }

    /// That has left.
    pub(super) fn on_sent(&mut self, next: Next) {
        self.greets = false;
        self.owed = if next.flags & FIN != 0 { 0 } else { self.owed & FIN };
        self.sent += next.payload as u32;
        self.seq = self.seq.wrapping_add(next.payload as u32 + u32::from(next.flags & (SYN | FIN) != 0));
        if next.flags & FIN != 0 {
            self.stage = Stage::Closed;
        }
    }
}

const PSH: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const BLANK: Segment<'_> = Segment {
        src: [0; 4],
        src_port: 0,
        dst: [0; 4],
        dst_port: 0,
        seq: 0,
        ack: 0,
        flags: ACK,
        window: 0,
        options: &[],
        payload: &[],
    };

    /// What leaves until the end has nothing more to say: flags and payload.
    fn drain(end: &mut End) -> Vec<(u8, usize)> {
        let sent = std::iter::from_fn(|| {
            let next = end.next()?;
            end.on_sent(next);
            Some((next.flags, next.payload))
        });
        sent.take(100).collect()
    }

    #[test]
    fn a_client_opens_greets_and_asks() {
        let mut end = End::default().reopened(u32::MAX);
        assert_eq!((drain(&mut end), end.seq), (vec![(SYN, 0)], 0));
        end.on_answered(&Segment { seq: 7, ack: 0, window: 4_096, flags: SYN | ACK, ..BLANK });
        end.say(1, 60);
        assert_eq!((drain(&mut end), end.seq, end.ack), (vec![(ACK, 0), (ACK | PSH, 60)], 60, 8));
    }

    #[test]
    fn a_member_sends_no_more_than_its_peer_takes() {
        let syn = Segment { seq: 9, flags: SYN, options: &[2, 4, 3, 0xe8, 3, 3, 2], ..BLANK };
        let mut end = End::answering(&syn, false);
        end.say(1, 5_000);
        assert_eq!(drain(&mut end), vec![(SYN | ACK, 0)]);
        end.on_ack(&Segment { ack: 1, window: 500, ..BLANK });
        assert_eq!(drain(&mut end), vec![(ACK, 1_000), (ACK, 1_000)]);
        end.on_ack(&Segment { ack: 1, window: 500, ..BLANK });
        assert_eq!(drain(&mut end), vec![], "a window that has not moved");
        end.on_ack(&Segment { ack: 1_001, window: 0, ..BLANK });
        assert_eq!(drain(&mut end), vec![], "a window that has shrunk");
        end.owe_fin();
        end.on_ack(&Segment { ack: 2_001, window: 0xffff, ..BLANK });
        assert_eq!(drain(&mut end), vec![(ACK, 1_000), (ACK, 1_000), (ACK | PSH, 1_000), (FIN | ACK, 0)]);
        assert_eq!((end.stage, end.seq), (Stage::Closed, 5_002));
    }

    #[test]
    fn a_fin_is_acknowledged_though_there_is_no_room_for_the_rest() {
        let mut end = End::answering(&BLANK, false);
        end.say(1, 10);
        drain(&mut end);
        end.owe_fin();
        assert_eq!((drain(&mut end), end.is_closing()), (vec![(ACK, 0)], true));
        end.on_ack(&Segment { ack: 1, window: 10, ..BLANK });
        assert_eq!(drain(&mut end), vec![(ACK | PSH, 10), (FIN | ACK, 0)]);
    }
}
