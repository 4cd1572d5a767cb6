//! What the hosts notice: each of them against a proxy that does what the test says.

use std::collections::VecDeque;

use super::*;

const EXCHANGE: Exchange = Exchange { is_http: true, closes: false, body_bytes: 16 };
const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
const PEER: Mac = Mac([2, 0, 0, 0, 0, 2]);
const PORT: u16 = 30_000;

/// Keeps what was sent; has room for so many frames.
struct Kept {
    frames: VecDeque<Vec<u8>>,
    room: usize,
}

impl Wire for Kept {
    const SUMS: bool = true;

    fn receive(&mut self, _: impl FnMut(&[u8])) -> usize {
        0
    }

    fn put(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        let has_room = self.frames.len() < self.room;
        if has_room {
            let mut frame = vec![0; len];
            fill(&mut frame);
            self.frames.push_back(frame);
        }
        has_room
    }

    fn flush(&mut self) {}
}

/// One client, one member, and what the proxy has sent to each.
struct Table {
    hosts: Hosts,
    wire: Kept,
    /// What the proxy sends next: to the client, to the member.
    seq: [u32; 2],
}

impl Table {
    fn new(exchange: Exchange) -> Self {
        let hosts = Hosts::new(exchange, 1, 1, (US, PEER));
        Self { hosts, wire: Kept { frames: VecDeque::new(), room: 64 }, seq: [1_000, 2_000] }
    }

    /// With a request of the client's on its way.
    fn asked(exchange: Exchange) -> Self {
        let mut table = Self::new(exchange);
        table.hosts.begin_all();
        assert_eq!(table.sent(), [(SYN, 0)]);
        table.tell(Side::Client, SYN | ACK, &[]);
        let sent = table.sent();
        assert_eq!((sent[0], sent[1].0, sent.len()), ((ACK, 0), ACK | 8, 2));
        table
    }

    /// Flags and payload of what the hosts send.
    fn sent(&mut self) -> Vec<(u8, usize)> {
        self.hosts.transmit(&mut self.wire);
        let sent = self.wire.frames.drain(..).map(|frame| {
            assert!(segment::is_sound(&frame));
            let segment = Segment::read(&frame).unwrap();
            (segment.flags, segment.payload.len())
        });
        sent.collect()
    }

    /// The proxy sends a segment.
    fn tell(&mut self, side: Side, flags: u8, payload: &[u8]) {
        let place = if side == Side::Client { 0 } else { usize::from(PORT) };
        let seq = &mut self.seq[usize::from(side == Side::Member)];
        let end = *self.hosts.end(side, place);
        // What the hosts would send, from the other end.
        let mut outgoing =
            self.hosts.outgoing(side, place, &end, Next { flags, payload: payload.len() }, true);
        (outgoing.src, outgoing.dst) = (outgoing.dst, outgoing.src);
        (outgoing.src_port, outgoing.dst_port) = (outgoing.dst_port, outgoing.src_port);
        (outgoing.seq, outgoing.ack) = (*seq, end.seq);
        *seq += payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        let mut frame = vec![0; outgoing.frame_len()];
        outgoing.write(&mut frame, |bytes| bytes.copy_from_slice(payload));
        self.hosts.handle(&frame, true);
    }

    /// The member's answer to the client's request, as it should come.
    fn answer(&mut self) -> Vec<u8> {
        let mut answer = vec![0; self.hosts.response.len()];
        self.hosts.response.write(0, self.hosts.clients[0].number, &mut answer);
        answer
    }
}

#[test]
fn an_answer_is_taken_however_it_is_cut() {
    for is_http in [true, false] {
        let len = Table::asked(EXCHANGE).answer().len();
        for cut in 1..len {
            let mut table = Table::asked(Exchange { is_http, ..EXCHANGE });
            let answer = table.answer();
            table.tell(Side::Client, ACK, &answer[..cut]);
            assert_eq!((table.hosts.tally().answered, table.sent()), (0, vec![(ACK, 0)]), "{cut}");
            table.tell(Side::Client, ACK, &answer[cut..]);
            assert_eq!(table.sent(), [], "the next request will say so");
            let tally = Tally { answered: 1, opened: 1, ..Tally::default() };
            assert_eq!((table.hosts.tally(), table.hosts.busy_clients()), (tally, 0), "{cut}");
        }
    }
}

#[test]
fn a_wrong_byte_is_noticed_in_every_body() {
    let body_at = Table::asked(EXCHANGE).hosts.response.number_at();
    for is_http in [true, false] {
        let first = if is_http { body_at } else { 0 };
        for place in first..body_at + EXCHANGE.body_bytes {
            let mut table = Table::asked(Exchange { is_http, ..EXCHANGE });
            let mut answer = table.answer();
            answer[place] ^= 4;
            table.tell(Side::Client, ACK, &answer);
            let tally = Tally { wrong: 1, opened: 1, ..Tally::default() };
            assert_eq!((table.hosts.tally(), tally.errors()), (tally, 1), "byte {place}");
        }
    }
}

#[test]
fn an_answer_to_another_request_is_noticed() {
    let mut table = Table::asked(EXCHANGE);
    let first = table.answer();
    table.tell(Side::Client, ACK, &first);
    table.hosts.begin_all();
    table.sent();
    table.tell(Side::Client, ACK, &first);
    assert_eq!((table.hosts.tally().answered, table.hosts.tally().wrong), (1, 1));
}

#[test]
fn an_answer_that_nobody_asked_for_is_noticed() {
    let mut table = Table::asked(EXCHANGE);
    let answer = table.answer();
    table.tell(Side::Client, ACK, &answer);
    table.tell(Side::Client, ACK, &answer);
    assert_eq!((table.hosts.tally().answered, table.hosts.tally().wrong), (1, 1));
}

#[test]
fn a_connection_that_breaks_is_counted_and_another_begun() {
    for flags in [RST | ACK, FIN | ACK] {
        let mut table = Table::asked(EXCHANGE);
        table.tell(Side::Client, flags, &[]);
        let expected = if flags & FIN == 0 { vec![] } else { vec![(FIN | ACK, 0)] };
        assert_eq!((table.sent(), table.hosts.tally().broken), (expected, 1));
        table.hosts.begin_all();
        assert_eq!((table.sent(), table.hosts.tally().opened), (vec![(SYN, 0)], 2));
    }
}

#[test]
fn what_is_missing_is_asked_for_again() {
    let mut table = Table::asked(EXCHANGE);
    let answer = table.answer();
    let seq = table.seq[0];
    table.seq[0] += 10;
    table.tell(Side::Client, ACK, &answer[10..]);
    assert_eq!((table.sent(), table.hosts.tally().repeated), (vec![(ACK, 0)], 1));
    table.seq[0] = seq;
    table.tell(Side::Client, ACK, &answer);
    assert_eq!((table.hosts.tally().answered, table.hosts.tally().errors()), (1, 0));
}

#[test]
fn a_member_answers_requests_and_nothing_else() {
    let request = b"GET /00000007 HTTP/1.1\r\nHost: 10.1.0.100\r\n\r\n";
    for (cut, other) in [(0, false), (3, false), (20, false), (43, false), (0, true)] {
        let mut table = Table::new(EXCHANGE);
        table.tell(Side::Member, SYN, &[]);
        assert_eq!(table.sent(), [(SYN | ACK, 0)]);
        let request = if other { b"GET /neverseen HTTP/1.1\r\n\r\n".as_slice() } else { request };
        if cut > 0 {
            table.tell(Side::Member, ACK, &request[..cut]);
            assert_eq!(table.sent(), [(ACK, 0)]);
        }
        table.tell(Side::Member, ACK, &request[cut..]);
        let len = table.hosts.response.len();
        let (expected, wrong) = if other { (vec![], 1) } else { (vec![(ACK | 8, len)], 0) };
        assert_eq!((table.sent(), table.hosts.tally().wrong), (expected, wrong), "{cut} {other}");
    }
}

#[test]
fn a_full_wire_delays_and_loses_nothing() {
    let mut table = Table::new(Exchange { body_bytes: 10_000, ..EXCHANGE });
    table.tell(Side::Member, SYN, &[]);
    table.sent();
    table.tell(Side::Member, ACK, b"GET /00000007 HTTP/1.1\r\nHost: 10.1.0.100\r\n\r\n");
    table.wire.room = 2;
    let sent: Vec<_> = (0..6).flat_map(|_| table.sent()).collect();
    let len: usize = sent.iter().map(|(_, payload)| payload).sum();
    assert_eq!((len, sent.len()), (table.hosts.response.len(), 7));
}

#[test]
fn checksums_are_looked_at() {
    let mut table = Table::asked(EXCHANGE);
    let outgoing = Outgoing {
        sums: false,
        ..table.hosts.outgoing(Side::Client, 0, &End::idle(), Next { flags: ACK, payload: 0 }, false)
    };
    let mut frame = vec![0; outgoing.frame_len()];
    outgoing.write(&mut frame, |_| ());
    for _ in 0..=VERIFY_MASK {
        table.hosts.handle(&frame, true);
    }
    assert_eq!(table.hosts.tally().unsound, 1);
}
