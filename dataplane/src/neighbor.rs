//! Neighbours: which link address an on-link IP address has (ARP, RFC 826; neighbour discovery, RFC 4861).
//!
//! ```text
//!   Incomplete ──answer──▶ Reachable ──30 s──▶ Stale ──used──▶ Probe ──answer──▶ Reachable
//!       └──3 s──▶ Failed ◀───────────────────────────── 3 s ─────┘      unused for 10 min: forgotten
//!   told otherwise, and not in answer to us ─────▶ Stale
//! ```
//!
//! The engine only decides; it asks its owner to send ([`Event`]) and never touches a port. Packets for an address
//! that is not known yet wait here, a bounded number of them.

use std::collections::VecDeque;

use hashbrown::HashMap;

use bytemuck::{Pod, Zeroable};

use crate::address::Mac;
use crate::clock::Instant;
use crate::config::ids::LinkId;
use crate::frame::Frame;
use crate::query::NeighborInfo;
use crate::route::NextHop;
use crate::verdict::DropReason;

/// A handle on a neighbour that notices when its entry has been given to another: generation and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable, Default)]
#[repr(transparent)]
pub struct NeighborRef(u32);

impl NeighborRef {
    /// Refers to nothing.
    pub const NONE: NeighborRef = NeighborRef(0);

    fn new(place: usize, generation: u16) -> Self {
        Self((u32::from(generation) << 16) | place as u32)
    }

    #[inline(always)]
    fn place(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    #[inline(always)]
    fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// Who said that a neighbour has a link address, and so what that is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// ARP, which knows no better (RFC 826). A stranger is taken in if it asks for us, because we will answer it soon.
    Arp {
        /// It asks for us.
        asks: bool,
    },
    /// A neighbour solicitation: what is new in it is to be confirmed (RFC 4861 section 7.2.3).
    Solicitation {
        /// It asks for us.
        asks: bool,
    },
    /// A neighbour advertisement, with its flags S and O (RFC 4861 section 7.2.5).
    Advertisement {
        /// It answers us.
        solicited: bool,
        /// It is to replace what we know.
        overrides: bool,
    },
}

/// What the owner must do for the engine.
#[derive(Debug)]
pub enum Event {
    /// Ask who has this address: to all, or to the link address that it had.
    Solicit {
        /// The address and where it should be.
        hop: NextHop,
        /// Its last known link address.
        unicast: Option<Mac>,
    },
    /// Send this packet, complete but for its link destination, to `mac` on `link`.
    Send {
        /// The packet.
        frame: Frame,
        /// Where to.
        link: LinkId,
        /// To whom.
        mac: Mac,
    },
    /// The next hop does not answer; this packet had waited for it, or has just come.
    Drop(Frame),
}

/// What would become of a packet for a neighbour whose link address is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prospect {
    /// It waits.
    Waits,
    /// The neighbour has just failed to answer.
    Fails,
    /// As many wait as may, or the handle refers to nothing any more.
    Refused,
}

/// The neighbours of one worker.
pub struct NeighborTable {
    places: HashMap<NextHop, u16>,
    entries: Vec<Entry>,
    free: Vec<u16>,
    capacity: usize,
    waiting: usize,
    /// Where the next slice of ageing begins.
    cursor: usize,
    events: VecDeque<Event>,
}

#[derive(Debug)]
struct Entry {
    hop: NextHop,
    mac: Mac,
    state: State,
    generation: u16,
    used: bool,
    tries: u8,
    /// When the state began or was last confirmed.
    since: Instant,
    last_used: Instant,
    queue: Vec<Frame>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Incomplete,
    Reachable,
    Stale,
    Probe,
    Failed,
}

impl NeighborTable {
    /// For at most `capacity` neighbours (1 to 65,535).
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, usize::from(u16::MAX));
        Self {
            places: HashMap::with_capacity(capacity),
            entries: Vec::with_capacity(capacity),
            free: Vec::new(),
            capacity,
            waiting: 0,
            cursor: 0,
            events: VecDeque::with_capacity(64),
        }
    }

    /// Neighbours known or being asked for.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The most it holds.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes taken.
    pub fn bytes(&self) -> usize {
        self.capacity * (size_of::<Entry>() + size_of::<(NextHop, u16)>())
    }

    /// The link address behind a handle; `None` when it is not known (now or any more). A few loads.
    #[inline(always)]
    pub fn mac(&mut self, neighbor: NeighborRef) -> Option<(LinkId, Mac)> {
        let entry = self.entries.get_mut(neighbor.place())?;
        if entry.generation != neighbor.generation() || !entry.state.has_mac() {
            return None;
        }
        entry.used = true;
        Some((entry.hop.link, entry.mac))
    }

    /// The handle for a next hop, asking for its link address when it is new.
    ///
    /// # Errors
    /// [`DropReason::NeighborTableFull`] when no entry is to be had.
    pub fn resolve(&mut self, hop: NextHop, now: Instant) -> Result<NeighborRef, DropReason> {
        let place = match self.places.get(&hop) {
            Some(&place) => usize::from(place),
            None => self.admit(hop, now)?,
        };
        let entry = &mut self.entries[place];
        entry.used = true;
        if entry.state == State::Incomplete && entry.tries == 0 {
            entry.tries = 1;
            self.events.push_back(Event::Solicit { hop, unicast: None });
        }
        Ok(NeighborRef::new(place, self.entries[place].generation))
    }

    /// What [`NeighborTable::wait`] would do with a packet.
    pub fn prospect(&self, neighbor: NeighborRef) -> Prospect {
        let known = self.entries.get(neighbor.place()).filter(|e| e.generation == neighbor.generation());
        match known {
            Some(entry) if entry.state == State::Failed => Prospect::Fails,
            Some(entry) if entry.may_queue(self.waiting) => Prospect::Waits,
            _ => Prospect::Refused,
        }
    }

    /// Keeps a packet, complete but for its link destination, until `neighbor` is known. One for a next hop that has just
    /// failed to answer is an [`Event::Drop`] at once.
    ///
    /// # Errors
    /// The frame back, with the reason: as many wait as may, or the handle refers to nothing any more.
    pub fn wait(&mut self, neighbor: NeighborRef, frame: Frame) -> Result<(), (Frame, DropReason)> {
        let known = self.entries.get_mut(neighbor.place()).filter(|e| e.generation == neighbor.generation());
        let Some(entry) = known else { return Err((frame, DropReason::NeighborUnresolved)) };
        match entry.state {
            State::Incomplete if entry.may_queue(self.waiting) => {
                entry.queue.push(frame);
                self.waiting += 1;
                Ok(())
            }
            State::Incomplete => Err((frame, DropReason::NeighborQueueFull)),
            State::Failed => {
                self.events.push_back(Event::Drop(frame));
                Ok(())
            }
            _ => Err((frame, DropReason::NeighborUnresolved)),
        }
    }

    /// Somebody said that `hop` has `mac`. Only who asks for us is taken in when it was not known.
    pub fn learn(&mut self, hop: NextHop, mac: Mac, word: Word, now: Instant) {
        if mac.is_group() {
            return;
        }
        let place = match self.places.get(&hop) {
            Some(&place) => usize::from(place),
            None if word.takes_in() => match self.admit(hop, now) {
                Ok(place) => place,
                Err(_) => return,
            },
            None => return,
        };
        let entry = &mut self.entries[place];
        let Some((mac, state)) = entry.after(mac, word) else { return };
        (entry.mac, entry.state, entry.since, entry.tries) = (mac, state, now, 0);
        self.waiting -= entry.queue.len();
        let link = hop.link;
        self.events.extend(entry.queue.drain(..).map(|frame| Event::Send { frame, link, mac }));
    }

    /// Ages a slice of the entries: probes what is used and stale, fails what does not answer, forgets what is not
    /// used. Call about every [`AGEING_PERIOD_MS`]; every entry is seen once a second.
    pub fn age(&mut self, now: Instant) {
        let slice = self.entries.len().div_ceil(SLICES);
        for _ in 0..slice {
            self.cursor = if self.cursor + 1 < self.entries.len() { self.cursor + 1 } else { 0 };
            self.age_entry(self.cursor, now);
        }
    }

    /// Forgets everything on links that `keep` refuses, and all that failed: after a new configuration.
    pub fn retain(&mut self, keep: impl Fn(NextHop) -> bool) {
        for place in 0..self.entries.len() {
            if self.entries[place].state != State::Free && !keep(self.entries[place].hop) {
                self.release(place);
            }
        }
    }

    /// What the owner must do, oldest first.
    pub fn poll_events(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// All entries, for `show neighbors`.
    pub fn list(&self, now: Instant) -> Vec<NeighborInfo> {
        let known = self.entries.iter().filter(|entry| entry.state != State::Free);
        known.map(|entry| entry.info(now)).collect()
    }

    fn admit(&mut self, hop: NextHop, now: Instant) -> Result<usize, DropReason> {
        let place = match self.free.pop() {
            Some(place) => usize::from(place),
            None if self.entries.len() < self.capacity => {
                self.entries.push(Entry::vacant(hop));
                self.entries.len() - 1
            }
            None => self.evict().ok_or(DropReason::NeighborTableFull)?,
        };
        let entry = &mut self.entries[place];
        entry.generation = entry.generation.wrapping_add(1).max(1);
        (entry.hop, entry.state, entry.tries, entry.used) = (hop, State::Incomplete, 0, false);
        (entry.since, entry.last_used) = (now, now);
        self.places.insert(hop, place as u16);
        Ok(place)
    }

    /// Makes room by forgetting the entry that has been idle longest among those not in use.
    fn evict(&mut self) -> Option<usize> {
        let idle = |entry: &Entry| !entry.used && matches!(entry.state, State::Stale | State::Failed);
        let candidates = self.entries.iter().enumerate().filter(|(_, entry)| idle(entry));
        let place = candidates.min_by_key(|(_, entry)| entry.last_used).map(|(place, _)| place)?;
        self.release(place);
        self.free.pop().map(usize::from)
    }

    fn release(&mut self, place: usize) {
        let entry = &mut self.entries[place];
        self.places.remove(&entry.hop);
        entry.state = State::Free;
        self.waiting -= entry.queue.len();
        self.events.extend(entry.queue.drain(..).map(Event::Drop));
        self.free.push(place as u16);
    }

    fn age_entry(&mut self, place: usize, now: Instant) {
        let Some(entry) = self.entries.get_mut(place) else { return };
        if std::mem::take(&mut entry.used) {
            entry.last_used = now;
        }
        let age_ms = now.since(entry.since).as_millis() as u64;
        let idle_ms = now.since(entry.last_used).as_millis() as u64;
        match entry.state {
            State::Reachable if age_ms >= REACHABLE_MS => entry.state = State::Stale,
            State::Stale if idle_ms >= FORGET_MS => self.release(place),
            State::Stale if idle_ms < 2_000 => {
                (entry.state, entry.since, entry.tries) = (State::Probe, now, 1);
                let (hop, unicast) = (entry.hop, Some(entry.mac));
                self.events.push_back(Event::Solicit { hop, unicast });
            }
            State::Incomplete | State::Probe if age_ms >= RETRY_MS * u64::from(entry.tries) => {
                self.retry(place, now);
            }
            State::Failed if age_ms >= FAILED_MS => self.release(place),
            State::Free
            | State::Reachable
            | State::Stale
            | State::Incomplete
            | State::Probe
            | State::Failed => {}
        }
    }

    fn retry(&mut self, place: usize, now: Instant) {
        let entry = &mut self.entries[place];
        if entry.tries < TRIES_MAX {
            entry.tries += 1;
            let unicast = (entry.state == State::Probe).then_some(entry.mac);
            let hop = entry.hop;
            self.events.push_back(Event::Solicit { hop, unicast });
            return;
        }
        (entry.state, entry.since) = (State::Failed, now);
        self.waiting -= entry.queue.len();
        self.events.extend(entry.queue.drain(..).map(Event::Drop));
    }
}

impl Word {
    const fn takes_in(self) -> bool {
        matches!(self, Word::Arp { asks: true } | Word::Solicitation { asks: true })
    }
}

impl State {
    #[inline(always)]
    const fn has_mac(self) -> bool {
        matches!(self, State::Reachable | State::Stale | State::Probe)
    }
}

impl Entry {
    /// True when one more packet may wait for it while `waiting` wait in all.
    fn may_queue(&self, waiting: usize) -> bool {
        self.state == State::Incomplete && self.queue.len() < WAITING_EACH && waiting < WAITING_ALL
    }

    fn vacant(hop: NextHop) -> Self {
        Self {
            hop,
            mac: Mac::default(),
            state: State::Free,
            generation: 0,
            used: false,
            tries: 0,
            since: Instant::ZERO,
            last_used: Instant::ZERO,
            queue: Vec::new(),
        }
    }

    /// What is believed after this was said; `None` for the same as before.
    fn after(&self, mac: Mac, word: Word) -> Option<(Mac, State)> {
        let is_known = self.state.has_mac();
        let is_same = is_known && self.mac == mac;
        match word {
            Word::Arp { .. } => Some((mac, State::Reachable)),
            Word::Advertisement { overrides: false, .. } if is_known && !is_same => {
                (self.state == State::Reachable).then_some((self.mac, State::Stale))
            }
            Word::Advertisement { solicited: true, .. } => Some((mac, State::Reachable)),
            Word::Advertisement { .. } | Word::Solicitation { .. } => {
                (!is_same).then_some((mac, State::Stale))
            }
        }
    }

    fn info(&self, now: Instant) -> NeighborInfo {
        NeighborInfo {
            address: self.hop.address,
            link: self.hop.link,
            mac: self.state.has_mac().then_some(self.mac),
            state: match self.state {
                State::Free => "free",
                State::Incomplete => "incomplete",
                State::Reachable => "reachable",
                State::Stale => "stale",
                State::Probe => "probe",
                State::Failed => "failed",
            },
            age_ms: now.since(self.since).as_millis() as u32,
        }
    }
}

/// How often [`NeighborTable::age`] is to be called.
pub const AGEING_PERIOD_MS: u64 = 100;
const SLICES: usize = 10;
/// RFC 4861 section 10: REACHABLE_TIME, RETRANS_TIMER, MAX_MULTICAST_SOLICIT.
const REACHABLE_MS: u64 = 30_000;
const RETRY_MS: u64 = 1_000;
const TRIES_MAX: u8 = 3;
const FAILED_MS: u64 = 1_000;
const FORGET_MS: u64 = 600_000;
/// Packets that wait for one address, and for all.
const WAITING_EACH: usize = 64;
pub(crate) const WAITING_ALL: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::config::ids::PortId;
    use crate::frame::FramePool;

    const LINK: LinkId = LinkId::new(PortId(0), 0);
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 8]);
    const ANSWER: Word = Word::Arp { asks: false };
    const QUESTION: Word = Word::Arp { asks: true };

    fn hop(last: u8) -> NextHop {
        NextHop { link: LINK, address: Address::v4([10, 1, 0, last]) }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    fn events(table: &mut NeighborTable) -> Vec<String> {
        let name = |event| match event {
            Event::Solicit { unicast: None, .. } => "ask all".into(),
            Event::Solicit { unicast: Some(mac), .. } => format!("ask {mac}"),
            Event::Send { mac, .. } => format!("send to {mac}"),
            Event::Drop(_) => "drop".into(),
        };
        std::iter::from_fn(|| table.poll_events()).map(name).collect()
    }

    fn age(table: &mut NeighborTable, from_ms: u64, to_ms: u64) -> Vec<String> {
        let mut seen = Vec::new();
        for ms in (from_ms..to_ms).step_by(AGEING_PERIOD_MS as usize) {
            table.age(at(ms));
            seen.extend(events(table));
        }
        seen
    }

    #[test]
    fn packets_wait_for_the_answer_and_leave_in_order() {
        let (mut table, pool) = (NeighborTable::new(4), FramePool::new(128));
        let neighbor = table.resolve(hop(1), at(0)).unwrap();
        assert_eq!(table.mac(neighbor), None);
        for length in 1..=WAITING_EACH {
            table.wait(neighbor, pool.copy_of(&vec![0; length]).unwrap()).unwrap();
        }
        let refused = table.wait(neighbor, pool.copy_of(&[0]).unwrap());
        assert_eq!(refused.unwrap_err().1, DropReason::NeighborQueueFull);
        assert_eq!(events(&mut table), ["ask all"]);
        table.learn(hop(1), MAC, ANSWER, at(5));
        assert_eq!(table.mac(neighbor), Some((LINK, MAC)));
        let lengths: Vec<_> = std::iter::from_fn(|| table.poll_events())
            .map(|event| match event {
                Event::Send { frame, .. } => frame.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(lengths, (1..=WAITING_EACH).collect::<Vec<_>>());
    }

    #[test]
    fn silence_fails_after_three_questions_and_drops_what_waited() {
        let (mut table, pool) = (NeighborTable::new(4), FramePool::new(1));
        let neighbor = table.resolve(hop(1), at(0)).unwrap();
        table.wait(neighbor, pool.copy_of(&[0]).unwrap()).unwrap();
        assert_eq!(age(&mut table, 0, 3_500), ["ask all", "ask all", "ask all", "drop"]);
        assert_eq!(table.list(at(3_500))[0].state, "failed");
        age(&mut table, 3_500, 6_000);
        assert!(table.is_empty(), "forgotten, so that the next packet asks again");
        assert_eq!(table.mac(neighbor), None);
    }

    #[test]
    fn a_used_neighbor_is_probed_and_an_unused_one_forgotten() {
        let mut table = NeighborTable::new(4);
        let used = table.resolve(hop(1), at(0)).unwrap();
        table.learn(hop(1), MAC, ANSWER, at(0));
        table.learn(hop(2), MAC, QUESTION, at(0));
        let mut seen = events(&mut table);
        for second in 0..40 {
            table.mac(used);
            seen.extend(age(&mut table, second * 1_000, second * 1_000 + 1_000));
        }
        assert!(seen.contains(&format!("ask {MAC}")), "{seen:?}");
        table.learn(hop(1), MAC, ANSWER, at(40_000));
        age(&mut table, 40_000, 700_000);
        assert!(table.is_empty());
    }

    #[test]
    fn a_full_table_forgets_only_what_is_idle() {
        let mut table = NeighborTable::new(2);
        let first = table.resolve(hop(1), at(0)).unwrap();
        table.learn(hop(1), MAC, ANSWER, at(0));
        table.learn(hop(2), MAC, QUESTION, at(0));
        assert_eq!(table.resolve(hop(3), at(0)), Err(DropReason::NeighborTableFull));
        for second in 0..32 {
            table.mac(first);
            age(&mut table, second * 1_000, second * 1_000 + 1_000);
            table.mac(first);
        }
        assert!(table.resolve(hop(3), at(32_000)).is_ok());
        assert!(table.mac(first).is_some() && table.len() == 2);
    }

    #[test]
    fn a_handle_never_reaches_the_next_tenant() {
        let mut table = NeighborTable::new(1);
        let old = table.resolve(hop(1), at(0)).unwrap();
        table.retain(|_| false);
        let new = table.resolve(hop(2), at(0)).unwrap();
        table.learn(hop(2), MAC, ANSWER, at(0));
        assert_eq!((table.mac(old), table.mac(new)), (None, Some((LINK, MAC))));
    }

    #[test]
    fn unasked_news_about_strangers_is_ignored() {
        let mut table = NeighborTable::new(4);
        table.learn(hop(1), MAC, ANSWER, at(0));
        assert!(table.is_empty());
        table.learn(hop(1), Mac::BROADCAST, QUESTION, at(0));
        assert!(table.is_empty());
    }
    /// RFC 4861 sections 7.2.3 and 7.2.5: what is known before, what is said, and what is known after.
    #[test]
    fn advertisements_and_solicitations_are_believed_as_their_flags_say() {
        let advert = |solicited, overrides| Word::Advertisement { solicited, overrides };
        let asks = Word::Solicitation { asks: true };
        for (before, mac, word, after) in [
            ("incomplete", MAC, advert(true, false), (MAC, "reachable")),
            ("incomplete", MAC, advert(false, true), (MAC, "stale")),
            ("incomplete", MAC, asks, (MAC, "stale")),
            ("reachable", MAC, advert(false, false), (MAC, "reachable")),
            ("reachable", MAC, asks, (MAC, "reachable")),
            ("reachable", OTHER, advert(true, false), (MAC, "stale")),
            ("reachable", OTHER, advert(false, true), (OTHER, "stale")),
            ("reachable", OTHER, advert(true, true), (OTHER, "reachable")),
            ("reachable", OTHER, asks, (OTHER, "stale")),
            ("stale", OTHER, advert(true, false), (MAC, "stale")),
            ("stale", MAC, advert(false, false), (MAC, "stale")),
            ("stale", MAC, advert(true, false), (MAC, "reachable")),
            ("stale", OTHER, advert(true, true), (OTHER, "reachable")),
            ("unknown", MAC, asks, (MAC, "stale")),
        ] {
            let mut table = NeighborTable::new(4);
            if before != "unknown" {
                table.resolve(hop(1), at(0)).unwrap();
            }
            if before == "reachable" || before == "stale" {
                table.learn(hop(1), MAC, advert(true, true), at(0));
            }
            if before == "stale" {
                table.learn(hop(1), OTHER, advert(false, false), at(0));
            }
            table.learn(hop(1), mac, word, at(5));
            let entry = &table.list(at(5))[0];
            assert_eq!((entry.mac, entry.state), (Some(after.0), after.1), "{before}, {mac}, {word:?}");
        }
    }

    #[test]
    fn what_waits_leaves_for_a_neighbor_that_is_to_be_confirmed() {
        let (mut table, pool) = (NeighborTable::new(4), FramePool::new(1));
        let neighbor = table.resolve(hop(1), at(0)).unwrap();
        table.wait(neighbor, pool.copy_of(&[0]).unwrap()).unwrap();
        table.learn(hop(1), MAC, Word::Solicitation { asks: true }, at(5));
        assert_eq!(events(&mut table), ["ask all".into(), format!("send to {MAC}")]);
        assert_eq!(table.mac(neighbor), Some((LINK, MAC)));
        assert_eq!(age(&mut table, 5, 900), [format!("ask {MAC}")], "it is used, and asked itself");
    }
}
