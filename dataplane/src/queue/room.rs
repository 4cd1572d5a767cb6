//! Who waits, in one line for each pool, in the order they came.
//!
//! ```text
//!   lines   pool ─▶ first, last, len
//!   places  before ◀─ who ─▶ behind       in memory that is used again; a place's number is its owner's ticket
//! ```
//!
//! It does not know what a pool has room for, nor how long anybody may wait.

use hashbrown::{HashMap, HashSet};

use crate::clock::Instant;
use crate::config::ids::{PoolId, PortId, VirtualId};
use crate::flow::key::FlowKey;
use crate::frame::Frame;

/// The lines of one worker. O(1) for everything that is not said to cost more.
#[derive(Default)]
pub(crate) struct WaitingRoom {
    places: Vec<Place>,
    /// Numbers of places that nobody has.
    free: Vec<u32>,
    /// Those in which somebody waits.
    lines: HashMap<PoolId, Line>,
    /// Of the first packets that wait.
    keys: HashSet<FlowKey>,
    /// Somebody may have left a member since the lines were last served.
    poked: bool,
    /// The place whose turn it is.
    serving: Option<u32>,
    /// The pools of a round, kept for its memory.
    round: Vec<PoolId>,
}

struct Line {
    first: u32,
    last: u32,
    len: u32,
    /// Nobody in it can take the room that its pool has.
    is_stuck: bool,
}

struct Place {
    pool: PoolId,
    since: Instant,
    before: u32,
    behind: u32,
    who: Who,
}

/// What waits.
pub(crate) enum Who {
    /// Nothing at the moment: it is having its turn, or the place is free.
    Nobody,
    /// A first packet; its client thinks it on its way.
    Packet(Queued),
    /// A proxy, by its slot.
    Proxy(u32),
}

/// A first packet that waits.
pub(crate) struct Queued {
    pub(crate) port: PortId,
    pub(crate) frame: Frame,
    pub(crate) ticket: Ticket,
}

/// Which connection a first packet is of, and what it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) key: FlowKey,
    pub(crate) pool: PoolId,
    pub(crate) virtual_id: VirtualId,
}

impl WaitingRoom {
    /// True when nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Somebody may have left a member.
    #[inline]
    pub(crate) fn poke(&mut self) {
        self.poked = !self.lines.is_empty();
    }

    /// True when it is worth to look before the time is up.
    pub(crate) fn is_poked(&self) -> bool {
        self.poked
    }

    /// True when the first packet of this connection waits.
    pub(crate) fn holds(&self, key: &FlowKey) -> bool {
        self.keys.contains(key)
    }

    /// First packets that wait, for all pools.
    pub(crate) fn packets(&self) -> usize {
        self.keys.len()
    }

    /// How many wait for a member of `pool`.
    pub(crate) fn len_of(&self, pool: PoolId) -> u32 {
        self.lines.get(&pool).map_or(0, |line| line.len)
    }

    /// True when a newcomer would take what others wait for.
    pub(crate) fn is_ahead(&self, pool: PoolId) -> bool {
        self.serving.is_none() && self.lines.get(&pool).is_some_and(|line| !line.is_stuck)
    }

    /// The first in a pool's line.
    pub(crate) fn first(&self, pool: PoolId) -> Option<u32> {
        self.lines.get(&pool).map(|line| line.first)
    }

    /// The next in line.
    pub(crate) fn behind(&self, place: u32) -> Option<u32> {
        self.places.get(place as usize).map(|place| place.behind).filter(|&behind| behind != NONE)
    }

    /// Who waits at a place, and since when.
    pub(crate) fn at(&self, place: u32) -> Option<(&Who, Instant)> {
        self.places.get(place as usize).map(|place| (&place.who, place.since))
    }

    /// What the one at a place waits for.
    pub(crate) fn pool_of(&self, place: u32) -> Option<PoolId> {
        self.places.get(place as usize).map(|place| place.pool)
    }

    /// A place at the end of a pool's line.
    pub(crate) fn join(&mut self, pool: PoolId, who: Who, now: Instant) -> u32 {
        if let Who::Packet(queued) = &who {
            self.keys.insert(queued.ticket.key);
        }
        let blank = Line { first: NONE, last: NONE, len: 0, is_stuck: false };
        let line = self.lines.entry(pool).or_insert(blank);
        let place = Place { pool, since: now, before: line.last, behind: NONE, who };
        let number = self.free.pop().unwrap_or(self.places.len() as u32);
        line.len += 1;
        match std::mem::replace(&mut line.last, number) {
            NONE => line.first = number,
            last => self.places[last as usize].behind = number,
        }
        match self.places.get_mut(number as usize) {
            Some(free) => *free = place,
            None => self.places.push(place),
        }
        number
    }

    /// Gives a place up; each is given up once, by whoever has it.
    pub(crate) fn leave(&mut self, number: u32) {
        let Some(place) = self.places.get_mut(number as usize) else { return };
        let (pool, before, behind) = (place.pool, place.before, place.behind);
        if let Who::Packet(queued) = std::mem::replace(&mut place.who, Who::Nobody) {
            self.keys.remove(&queued.ticket.key);
        }
        let Some(line) = self.lines.get_mut(&pool) else { return };
        line.len -= 1;
        match before {
            NONE => line.first = behind,
            before => self.places[before as usize].behind = behind,
        }
        match behind {
            NONE => line.last = before,
            behind => self.places[behind as usize].before = before,
        }
        if line.len == 0 {
            self.lines.remove(&pool);
        }
        self.free.push(number);
        if self.serving == Some(number) {
            self.serving = None;
        }
    }

    /// Takes the first packet out of its place, which stays its own until [`WaitingRoom::leave`].
    pub(crate) fn take_packet(&mut self, place: u32) -> Option<Queued> {
        let who = &mut self.places.get_mut(place as usize)?.who;
        match std::mem::replace(who, Who::Nobody) {
            Who::Packet(queued) => {
                self.keys.remove(&queued.ticket.key);
                Some(queued)
            }
            other => {
                *who = other;
                None
            }
        }
    }

    /// Takes a first packet in; one that has its turn and finds no room after all goes back to its place.
    pub(crate) fn put(&mut self, queued: Queued, now: Instant) {
        let pool = queued.ticket.pool;
        match self.serving.filter(|&place| self.is_kept(place, pool)) {
            Some(place) => {
                self.keys.insert(queued.ticket.key);
                self.places[place as usize].who = Who::Packet(queued);
            }
            None => drop(self.join(pool, Who::Packet(queued), now)),
        }
    }

    /// True when the first packet that has its turn has a place for `pool` to go back to.
    pub(crate) fn keeps_place(&self, pool: PoolId) -> bool {
        self.serving.is_some_and(|place| self.is_kept(place, pool))
    }

    fn is_kept(&self, place: u32, pool: PoolId) -> bool {
        let place = self.places.get(place as usize);
        place.is_some_and(|place| place.pool == pool && matches!(place.who, Who::Nobody))
    }

    /// The turn of a place begins.
    pub(crate) fn begin_turn(&mut self, place: u32) {
        self.serving = Some(place);
    }

    /// It is over. False when its owner has left it.
    pub(crate) fn end_turn(&mut self) -> bool {
        self.serving.take().is_some()
    }

    /// True while it is the turn of this place.
    pub(crate) fn is_turn_of(&self, place: u32) -> bool {
        self.serving == Some(place)
    }

    /// The pools with a line, by number; to be given back. O(pools that are waited for).
    pub(crate) fn begin_round(&mut self) -> Vec<PoolId> {
        self.poked = false;
        let mut round = std::mem::take(&mut self.round);
        round.extend(self.lines.keys().copied());
        round.sort_unstable();
        round
    }

    /// Every line has been served.
    pub(crate) fn end_round(&mut self, mut round: Vec<PoolId>) {
        round.clear();
        self.round = round;
    }

    /// Says whether room is left that nobody in the line can take: newcomers need not stand behind those.
    pub(crate) fn set_stuck(&mut self, pool: PoolId, is_stuck: bool) {
        if let Some(line) = self.lines.get_mut(&pool) {
            line.is_stuck = is_stuck;
        }
    }
}

/// No place.
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    fn line_of(room: &WaitingRoom, pool: PoolId) -> Vec<u32> {
        std::iter::successors(room.first(pool), |&place| room.behind(place)).collect()
    }

    #[test]
    fn a_random_history_keeps_the_order_of_queues() {
        let seed = RandomState::new().hash_one(0);
        let mut state = seed | 1;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        let mut room = WaitingRoom::default();
        let mut model: Vec<VecDeque<u32>> = vec![VecDeque::new(); 3];
        for slot in 0..20_000 {
            let number = random(3);
            let (pool, queue) = (PoolId(number as u32), &mut model[number]);
            if random(2) == 0 && queue.len() < 50 {
                queue.push_back(room.join(pool, Who::Proxy(slot), Instant::ZERO));
            } else if let Some(place) = queue.remove(random(queue.len().max(1))) {
                room.leave(place);
            }
            assert!(line_of(&room, pool).iter().eq(queue.iter()), "seed {seed}");
            assert_eq!(room.len_of(pool) as usize, queue.len(), "seed {seed}");
        }
        assert!(room.places.len() <= 150, "places are used again");
        for place in model.into_iter().flatten() {
            room.leave(place);
        }
        assert!(room.is_empty() && room.free.len() == room.places.len());
    }

    #[test]
    fn who_gives_its_place_up_in_its_turn_and_comes_again_has_no_turn() {
        let (mut room, pool) = (WaitingRoom::default(), PoolId(7));
        let place = room.join(pool, Who::Proxy(1), Instant::ZERO);
        room.begin_turn(place);
        room.leave(place);
        let again = room.join(pool, Who::Proxy(1), Instant::ZERO);
        assert!(!room.is_turn_of(again) && !room.end_turn());
    }

    #[test]
    fn newcomers_stand_behind_others_unless_those_are_stuck() {
        let (mut room, pool) = (WaitingRoom::default(), PoolId(7));
        assert!(!room.is_ahead(pool));
        let place = room.join(pool, Who::Proxy(1), Instant::ZERO);
        assert!(room.is_ahead(pool) && !room.is_ahead(PoolId(8)));
        room.set_stuck(pool, true);
        assert!(!room.is_ahead(pool));
        room.leave(place);
        room.join(pool, Who::Proxy(2), Instant::ZERO);
        assert!(room.is_ahead(pool), "another line");
    }
}
