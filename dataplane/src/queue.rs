//! Connections and requests that wait because every member of their pool is at a limit (tmsh
//! `queue-on-connection-limit`).
//!
//! ```text
//!   all members full ─▶ line of the pool ─▶ a member has room ─▶ the first in line goes on as if it had just come
//!                          └──── time is up, client gone ──────▶ refused
//! ```
//!
//! What waits is a first packet, whose client thinks it on its way, or a proxy ([`crate::proxy`]); both stand in one
//! line. Each worker has its own lines.

mod room;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Instant;
use crate::config::ids::PoolId;
use crate::config::snapshot::{Pool, Virtual};
use crate::lb::{Balancer, View};
use crate::outgoing::Outgoing;
use crate::packet::parse::{self, Found, Packet};
use crate::pipeline::{Fate, Pipeline, Slot};
use crate::verdict::DropReason;

pub(crate) use self::room::{Queued, Ticket, WaitingRoom, Who};

impl Pipeline {
    /// Has the first packet wait for a member of `item`'s pool; `None` when there is no queue or no room in it. A
    /// packet in fragments does not wait: the others would have nowhere to go meanwhile.
    pub(crate) fn queue_up(&mut self, item: &Virtual, packet: &Packet) -> Option<Fate> {
        let pool = self.snapshot.pool(item.pool?)?;
        pool.queue?;
        if self.fragment_at_hand.is_some() {
            return None;
        }
        if self.queue.holds(&packet.key) {
            return Some(self.dropped(DropReason::QueuedAlready, item.id));
        }
        let has_place = self.has_place(pool) && self.queue.packets() < PACKETS_MAX;
        let may_wait = has_place || self.queue.keeps_place(pool.id);
        may_wait.then_some(Fate::Queue(Ticket { key: packet.key, pool: pool.id, virtual_id: item.id }))
    }

    /// True when the pool has a queue, and one more may wait in it.
    pub(crate) fn has_place(&self, pool: &Pool) -> bool {
        pool.queue.is_some_and(|queue| {
            queue.depth == 0 || self.queue.len_of(pool.id) < self.owners.share_of(queue.depth)
        })
    }

    /// True when a new connection or request must not ask for a member yet: others came before it. One that may be let
    /// in above the limit is not asked to wait.
    pub(crate) fn must_stand_back(&self, item: &Virtual, pool: Option<PoolId>) -> bool {
        let Some(pool) = pool.filter(|&pool| self.queue.is_ahead(pool)) else { return false };
        let overrides = item.persistence.as_ref().is_some_and(|by| by.override_connection_limit);
        !overrides && self.snapshot.pool(pool).is_some_and(|pool| pool.queue.is_some())
    }

    /// Lets go on who can, and refuses whose time is up. O(pools that are waited for × their members), besides those
    /// that go on: a line is served from its head, and no further than its pool has room.
    #[cold]
    pub(crate) fn serve_queue(&mut self, out: &mut Outgoing) {
        let round = self.queue.begin_round();
        for &pool in &round {
            self.serve_line(pool, out);
        }
        self.queue.end_round(round);
        self.end_proxies_turn(out);
    }

    /// One that cannot go on though there is room, for it has tried those members, does not keep those behind it.
    fn serve_line(&mut self, pool: PoolId, out: &mut Outgoing) {
        let mut next = self.queue.first(pool);
        let mut went_on = 0;
        for _ in 0..SERVED_A_TURN {
            let Some(place) = next else { break };
            next = self.queue.behind(place);
            if self.serve_place(place, pool, out) {
                went_on += 1;
            } else if !self.has_room(pool) {
                return self.queue.set_stuck(pool, false);
            }
        }
        let is_all = next.is_none() || went_on == 0;
        let is_stuck = is_all && self.has_room(pool);
        self.queue.set_stuck(pool, is_stuck);
        if !is_all {
            self.queue.poke();
        }
    }

    /// Its turn: true when it does not wait any more.
    fn serve_place(&mut self, place: u32, pool: PoolId, out: &mut Outgoing) -> bool {
        let (slot, since) = match self.queue.at(place) {
            Some((&Who::Proxy(slot), since)) => (Some(slot), since),
            Some((Who::Packet(_), since)) => (None, since),
            Some((Who::Nobody, _)) | None => return false,
        };
        if let Some(slot) = slot {
            self.queue.begin_turn(place);
            self.run_one(slot, out);
            return !self.queue.end_turn();
        }
        if self.wait_ends(pool, since) <= self.now {
            self.give_up(place, out);
            return true;
        }
        self.has_room(pool) && self.go_on(place, out)
    }

    /// When one that has waited since then for a member of `pool` is refused.
    pub(crate) fn wait_ends(&self, pool: PoolId, since: Instant) -> Instant {
        let time_ms = self.snapshot.pool(pool).and_then(|pool| pool.queue).map_or(0, |queue| queue.time_ms);
        since + if time_ms == 0 { PATIENCE } else { Duration::from_millis(u64::from(time_ms)) }
    }

    /// True as well when the pool is gone: then it is for selection to say what becomes of the connection.
    fn has_room(&mut self, pool: PoolId) -> bool {
        let snapshot = Arc::clone(&self.snapshot);
        let Some(pool) = snapshot.pool(pool) else { return true };
        let view = View {
            states: &self.members,
            counters: &self.counters,
            peers: &self.peers,
            quota: &self.quota,
            snapshot: &snapshot,
            now: self.now,
            failed: &[],
            latencies: None,
            sessions: &[],
        };
        let balancer = self.balancers.entry(pool.id).or_insert_with(|| Balancer::new(self.worker, pool.id));
        !balancer.is_at_limit(pool, &view)
    }

    /// The first packet is decided about again. False when it waits again, in the same place.
    fn go_on(&mut self, place: u32, out: &mut Outgoing) -> bool {
        let Some(Queued { port, frame, .. }) = self.queue.take_packet(place) else { return false };
        self.queue.begin_turn(place);
        self.process_stray(port, frame, out);
        self.queue.end_turn();
        let waits = matches!(self.queue.at(place), Some((Who::Packet(_), _)));
        if !waits {
            self.queue.leave(place);
        }
        !waits
    }

    fn give_up(&mut self, place: u32, out: &mut Outgoing) {
        let queued = self.queue.take_packet(place);
        self.queue.leave(place);
        let Some(Queued { port, frame, ticket }) = queued else { return };
        let virtual_id = ticket.virtual_id;
        let mut slot = Slot::BLANK;
        let mac = self.ports[usize::from(port.0)].mac;
        let reason = DropReason::QueueTimeout;
        // One with a fragment header though it is whole (RFC 6946) has no answer.
        let _ = match parse::parse_into(&mut slot.packet, frame.bytes(), mac) {
            Found::Ip => self.refuse(port, &frame, &slot.packet, reason, virtual_id, out),
            Found::Fragment | Found::Arp | Found::Nothing(_) => self.dropped(reason, virtual_id),
        };
    }
}

/// First packets that wait at most, over all pools of a worker.
const PACKETS_MAX: usize = 256;

/// Of one line, those that have their turn before others do.
const SERVED_A_TURN: usize = 64;

/// Where the operator sets no time: a client has given up by then (RFC 9293 section 3.8.3 asks for 3 minutes at
/// least, common ones take 2).
const PATIENCE: Duration = Duration::from_secs(120);
