//! Connections that are over and whose late segments are still to be answered: a few bytes each (RFC 9293
//! section 3.3.2, TIME-WAIT).
//!
//! ```text
//!   oldest ⇄ … ⇄ newest      all wait as long, so the list is in the order in which they end
//!     └ poll takes these       └ insert appends
//! ```

use std::time::Duration;

use bytemuck::Zeroable;
use sluice_ffi::memory::{Backing, Slab};

use super::isn::is_after;
use super::places::Places;
use crate::clock::Instant;
use crate::flow::key::{FlowKey, HashSeed};
use crate::packet::parse::tcp_flag::{ACK, FIN, RST, SYN};
use crate::snat::ports::Pair;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The key of the peer's packets.
    pub key: FlowKey,
    /// What we would send next.
    pub seq: u32,
    /// What we expect next.
    pub ack: u32,
    /// The SNAT port to give back at the end, where our end has one.
    pub port: Option<Pair>,
}

/// What a segment for such a connection leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Nothing: it is old, or asks for no answer.
    Nothing,
    /// This acknowledgement: sequence number and acknowledgement number.
    Ack(u32, u32),
    /// The peer begins anew with a later sequence number (RFC 9293 section 3.6.1): the entry is gone, and the SYN opens a
    /// connection.
    Reopen(Waiting),
    /// A RST that ends it: ignored (RFC 1337).
    Ignore,
}

/// The connections in TIME-WAIT of one worker. Full, the oldest makes room.
#[derive(Debug)]
pub struct TimeWait {
    wait: Duration,
    places: Places,
    entries: Slab<Entry>,
    /// A place + 1, as all links here; 0 is none.
    oldest: u32,
    newest: u32,
}

impl TimeWait {
    /// For `capacity` connections that wait `wait_ms` each.
    pub fn new(capacity: usize, wait_ms: u32) -> Self {
        let places = Places::new(capacity, HashSeed::random(), Backing::Auto);
        let entries = Slab::new(places.capacity(), Backing::Auto);
        Self { wait: Duration::from_millis(u64::from(wait_ms)), places, entries, oldest: 0, newest: 0 }
    }

    /// Connections that wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// True when none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes taken.
    pub fn bytes(&self) -> usize {
        self.places.bytes() + self.entries.bytes()
    }

    /// One more. Returns the one that made room: an earlier one of the same key, or the oldest when it was full, or this
    /// one when there is no room at all. O(1), no allocation.
    pub fn insert(&mut self, waiting: Waiting, now: Instant) -> Option<Waiting> {
        let gone = match self.find(&waiting.key) {
            Some(place) => Some(self.remove(place)),
            None if self.len() == self.places.capacity() => self.remove_oldest(),
            None => None,
        };
        let Some(place) = self.places.take(&waiting.key) else { return Some(waiting) };
        self.entries[place] = Entry::new(&waiting, now);
        self.append(place);
        gone
    }

    /// A segment has come; `None` when it belongs to none of these. What is answered does not wait longer for that, so a
    /// peer cannot hold it for ever. O(1).
    pub fn on_segment(&mut self, key: &FlowKey, flags: u8, seq: u32, payload: u32) -> Option<Answer> {
        let place = self.find(key)?;
        let answer = self.entries[place].answer_to(flags, seq, payload);
        if matches!(answer, Answer::Reopen(_)) {
            self.remove(place);
        }
        Some(answer)
    }

    /// One whose time is up; to be called until `None`, a bounded number of times a turn.
    pub fn poll(&mut self, now: Instant) -> Option<Waiting> {
        let place = self.oldest.checked_sub(1)? as usize;
        let is_over = now.since(Instant::from_ns(self.entries[place].since_ns)) >= self.wait;
        is_over.then(|| self.remove(place))
    }

    fn find(&self, key: &FlowKey) -> Option<usize> {
        self.places.find(key, |place| self.entries[place].key == *key)
    }

    fn append(&mut self, place: usize) {
        self.entries[place].older = self.newest;
        match self.newest {
            0 => self.oldest = place as u32 + 1,
            newest => self.entries[newest as usize - 1].newer = place as u32 + 1,
        }
        self.newest = place as u32 + 1;
    }

    fn remove_oldest(&mut self) -> Option<Waiting> {
        let place = self.oldest.checked_sub(1)?;
        Some(self.remove(place as usize))
    }

    fn remove(&mut self, place: usize) -> Waiting {
        let Entry { older, newer, .. } = self.entries[place];
        match older {
            0 => self.oldest = newer,
            older => self.entries[older as usize - 1].newer = newer,
        }
        match newer {
            0 => self.newest = older,
            newer => self.entries[newer as usize - 1].older = older,
        }
        let waiting = self.entries[place].waiting();
        self.places.give_back(&waiting.key, place);
        waiting
    }
}

#[derive(Debug, Clone, Copy, Zeroable)]
struct Entry {
    key: FlowKey,
    port: Pair,
    since_ns: u64,
    seq: u32,
    ack: u32,
    older: u32,
    newer: u32,
    has_port: bool,
}

impl Entry {
    fn new(waiting: &Waiting, now: Instant) -> Self {
        let Waiting { key, seq, ack, port } = *waiting;
        let (has_port, port) = (port.is_some(), port.unwrap_or_else(Pair::zeroed));
        Self { key, port, since_ns: now.as_ns(), seq, ack, older: 0, newer: 0, has_port }
    }

    fn waiting(&self) -> Waiting {
        let &Self { key, seq, ack, port, has_port, .. } = self;
        Waiting { key, seq, ack, port: has_port.then_some(port) }
    }

    /// RFC 9293 section 3.10.7.4. But a segment without data, SYN or FIN is never answered: two ends that have
    /// different numbers in mind would acknowledge one another for ever.
    fn answer_to(&self, flags: u8, seq: u32, payload: u32) -> Answer {
        if flags & RST != 0 {
            return Answer::Ignore;
        }
        if flags & (SYN | ACK) == SYN && is_after(seq, self.ack) {
            return Answer::Reopen(self.waiting());
        }
        let asks = flags & SYN != 0 || flags & ACK != 0 && (flags & FIN != 0 || payload > 0);
        if asks { Answer::Ack(self.seq, self.ack) } else { Answer::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::build::address;
    use crate::snat::random::Random;
    use std::collections::VecDeque;

    fn waiting(src_port: u16) -> Waiting {
        let (src, dst) = (address("198.51.100.7"), address("192.0.2.100"));
        let key = FlowKey { src, dst, src_port, dst_port: 80, protocol: 6 };
        Waiting { key, seq: 1_000, ack: u32::MAX, port: None }
    }

    fn with_port(src_port: u16) -> Waiting {
        let (member, address) = (address("10.0.0.1"), address("10.0.0.9"));
        let port = Some(Pair { address, member, member_port: 80, protocol: 6 });
        Waiting { port, ..waiting(src_port) }
    }

    fn one() -> TimeWait {
        let mut table = TimeWait::new(4, 1_000);
        assert_eq!(table.insert(waiting(1), Instant::ZERO), None);
        table
    }

    fn answer(flags: u8, seq: u32, payload: u32) -> (Option<Answer>, usize) {
        let mut table = one();
        (table.on_segment(&waiting(1).key, flags, seq, payload), table.len())
    }

    #[test]
    fn a_retransmitted_fin_or_data_gets_the_acknowledgement_again() {
        let again = (Some(Answer::Ack(1_000, u32::MAX)), 1);
        assert_eq!(answer(FIN | ACK, u32::MAX - 1, 0), again);
        assert_eq!(answer(ACK, u32::MAX - 9, 8), again);
        assert_eq!(answer(FIN | ACK, u32::MAX - 9, 8), again);
    }

    #[test]
    fn what_asks_for_no_answer_gets_none() {
        for (flags, seq, payload) in [(ACK, u32::MAX, 0), (ACK, 5, 0), (FIN, u32::MAX - 1, 0), (0, 5, 5)] {
            assert_eq!(answer(flags, seq, payload), (Some(Answer::Nothing), 1));
        }
    }

    #[test]
    fn a_reset_is_ignored() {
        for (flags, seq) in [(RST, u32::MAX), (RST | ACK, 7), (RST | SYN, 7)] {
            assert_eq!(answer(flags, seq, 0), (Some(Answer::Ignore), 1));
        }
    }

    #[test]
    fn a_syn_with_a_later_number_reopens_and_another_is_answered() {
        for later in [0, 1, 0x7fff_fffe] {
            assert_eq!(answer(SYN, later, 0), (Some(Answer::Reopen(waiting(1))), 0));
        }
        let old = (Some(Answer::Ack(1_000, u32::MAX)), 1);
        for seq in [u32::MAX, u32::MAX - 1, 0x7fff_ffff] {
            assert_eq!(answer(SYN, seq, 0), old);
        }
        assert_eq!(answer(SYN | ACK, 1, 0), old, "nobody opens with a SYN-ACK");
    }

    #[test]
    fn a_segment_of_another_connection_is_not_ours() {
        assert_eq!(one().on_segment(&waiting(2).key, ACK, 0, 0), None);
        assert_eq!(one().on_segment(&waiting(1).key.reversed(), ACK, 0, 0), None);
    }

    #[test]
    fn each_waits_its_time_in_turn_and_answers_do_not_prolong_it() {
        let mut table = one();
        table.insert(with_port(2), Instant::from_ms(400));
        table.on_segment(&waiting(1).key, FIN | ACK, 0, 0);
        assert_eq!(table.poll(Instant::from_ns(999_999_999)), None);
        assert_eq!(table.poll(Instant::from_ms(1_000)), Some(waiting(1)));
        assert_eq!(table.poll(Instant::from_ms(1_399)), None);
        assert_eq!(table.poll(Instant::from_ms(1_400)), Some(with_port(2)));
        assert!(table.poll(Instant::from_ms(99_999)).is_none() && table.is_empty());
    }

    #[test]
    fn a_full_table_drops_its_oldest() {
        let mut table = TimeWait::new(2, 1_000);
        assert_eq!(table.insert(with_port(1), Instant::ZERO), None);
        assert_eq!(table.insert(waiting(2), Instant::ZERO), None);
        assert_eq!(table.insert(waiting(3), Instant::ZERO), Some(with_port(1)));
        assert_eq!((table.len(), table.on_segment(&waiting(1).key, ACK, 0, 1)), (2, None));
        assert_eq!(TimeWait::new(0, 1_000).insert(with_port(1), Instant::ZERO), Some(with_port(1)));
    }

    #[test]
    fn the_same_key_again_replaces_the_earlier_one() {
        let mut table = one();
        let newer = Waiting { seq: 7, ..waiting(1) };
        assert_eq!(table.insert(newer, Instant::from_ms(500)), Some(waiting(1)));
        assert_eq!((table.len(), table.poll(Instant::from_ms(1_000))), (1, None));
        assert_eq!(table.poll(Instant::from_ms(1_500)), Some(newer));
    }

    #[test]
    fn memory_is_taken_at_the_start() {
        let mut table = TimeWait::new(1_000, 1_000);
        let bytes = table.bytes();
        (0..2_000).for_each(|port| _ = table.insert(waiting(port), Instant::ZERO));
        assert_eq!((table.len(), table.bytes()), (1_000, bytes));
        assert!(bytes < 200_000, "{bytes}");
    }

    #[test]
    fn a_random_history_keeps_the_order_of_a_queue() {
        for seed in 1..50 {
            let mut random = Random::new(seed);
            let (mut table, mut queue) = (TimeWait::new(8, 64), VecDeque::new());
            for now in (0..1_000).map(Instant::from_ms) {
                let port = (random.next() >> 60) as u16;
                let at = queue.iter().position(|&(other, _)| other == waiting(port));
                if random.next() >> 63 == 0 {
                    let gone = table.insert(waiting(port), now);
                    let at = at.or((queue.len() == 8).then_some(0));
                    let expected = at.and_then(|at| queue.remove(at)).map(|(waiting, _)| waiting);
                    assert_eq!(gone, expected, "seed {seed}");
                    queue.push_back((waiting(port), now));
                } else {
                    let answer = table.on_segment(&waiting(port).key, SYN, 0, 0);
                    let gone = at.and_then(|at| queue.remove(at));
                    assert_eq!(answer, gone.map(|(waiting, _)| Answer::Reopen(waiting)), "seed {seed}");
                }
                let is_over = |&(_, since): &(Waiting, Instant)| now.since(since).as_millis() >= 64;
                let over = queue.front().is_some_and(is_over).then(|| queue.pop_front()).flatten();
                assert_eq!(table.poll(now), over.map(|(waiting, _)| waiting), "seed {seed}");
                assert_eq!(table.len(), queue.len(), "seed {seed}");
            }
        }
    }
}
