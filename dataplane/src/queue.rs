//! Connections that wait because every member of their pool is at a limit (tmsh `queue-on-connection-limit`).
//!
//! ```text
//!   first packet ─▶ all members full ─▶ queue ─▶ a member has room ─▶ goes on as if it had just come
//!                                         └──── time is up ────────▶ refused
//! ```
//!
//! What waits is the first packet itself; the client thinks it on its way. Each worker has its own queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use crate::clock::Instant;
use crate::config::ids::{PoolId, PortId, VirtualId};
use crate::config::snapshot::{Queue, Virtual};
use crate::flow::key::FlowKey;
use crate::frame::Frame;
use crate::lb::{Balancer, View};
use crate::outgoing::Outgoing;
use crate::packet::parse::{self, Found, Packet};
use crate::pipeline::{Fate, Pipeline, Slot};
use crate::verdict::DropReason;

/// The queues of one worker, over all pools.
#[derive(Default)]
pub(crate) struct WaitingRoom {
    /// In the order they came.
    waiting: VecDeque<Waiting>,
    in_pool: HashMap<PoolId, u32>,
    /// Somebody may have left a member since the queue was last served.
    poked: bool,
    /// Pools that were found full while the queue is being served.
    full: Vec<PoolId>,
    /// When the connection being served came.
    serving: Option<Instant>,
}

struct Waiting {
    port: PortId,
    frame: Frame,
    key: FlowKey,
    pool: PoolId,
    virtual_id: VirtualId,
    since: Instant,
}

impl WaitingRoom {
    /// True when nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A connection has ended.
    #[inline]
    pub(crate) fn poke(&mut self) {
        self.poked = !self.waiting.is_empty();
    }

    /// True when it is worth to look before the time is up.
    pub(crate) fn is_poked(&self) -> bool {
        self.poked
    }

    fn holds(&self, key: &FlowKey) -> bool {
        self.waiting.iter().any(|waiting| waiting.key == *key)
    }

    fn in_pool(&self, pool: PoolId) -> u32 {
        self.in_pool.get(&pool).copied().unwrap_or(0)
    }

    /// Takes a first packet in; one that is served and finds no room after all goes back to the head.
    pub(crate) fn put(&mut self, port: PortId, frame: Frame, ticket: Ticket, now: Instant) {
        let Ticket { key, pool, virtual_id } = ticket;
        *self.in_pool.entry(pool).or_default() += 1;
        let since = self.serving.take();
        let waiting = Waiting { port, frame, key, pool, virtual_id, since: since.unwrap_or(now) };
        match since {
            Some(_) => self.waiting.push_front(waiting),
            None => self.waiting.push_back(waiting),
        }
    }

    fn take(&mut self, place: usize) -> Option<Waiting> {
        let waiting = self.waiting.remove(place)?;
        if let Some(count) = self.in_pool.get_mut(&waiting.pool) {
            *count -= 1;
            if *count == 0 {
                self.in_pool.remove(&waiting.pool);
            }
        }
        Some(waiting)
    }
}

/// Who waits, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    key: FlowKey,
    pool: PoolId,
    virtual_id: VirtualId,
}

impl Pipeline {
    /// Has the first packet wait for a member of `item`'s pool; `None` when there is no queue or no room in it. A
    /// packet in fragments does not wait: the others would have nowhere to go meanwhile.
    pub(crate) fn queue_up(&mut self, item: &Virtual, packet: &Packet) -> Option<Fate> {
        let pool = self.snapshot.pool(item.pool?)?;
        let Queue { depth, .. } = pool.queue?;
        if self.fragment_at_hand.is_some() {
            return None;
        }
        if self.queue.holds(&packet.key) {
            return Some(self.dropped(DropReason::QueuedAlready, item.id));
        }
        let depth = if depth == 0 { u32::MAX } else { self.owners.share_of(depth) };
        let is_full = self.queue.in_pool(pool.id) >= depth || self.queue.waiting.len() >= QUEUED_MAX;
        (!is_full).then_some(Fate::Queue(Ticket { key: packet.key, pool: pool.id, virtual_id: item.id }))
    }

    /// Lets go on who can, and refuses whose time is up. Each connection is looked at once, and each pool that is
    /// full: O(waiting + members of their pools), besides the first packets that go on.
    #[cold]
    pub(crate) fn serve_queue(&mut self, out: &mut Outgoing) {
        self.queue.poked = false;
        let mut full = std::mem::take(&mut self.queue.full);
        full.clear();
        let mut place = 0;
        for _ in 0..self.queue.waiting.len() {
            let Some(waiting) = self.queue.waiting.get(place) else { break };
            let (pool, since) = (waiting.pool, waiting.since);
            if self.is_over(pool, since) {
                self.give_up(place, out);
            } else if full.contains(&pool) {
                place += 1;
            } else if self.has_room(pool) {
                let before = self.queue.waiting.len();
                self.go_on(place, out);
                // Back at the head, it has moved the others on by one.
                place += usize::from(self.queue.waiting.len() == before);
            } else {
                full.push(pool);
                place += 1;
            }
        }
        self.queue.full = full;
    }

    fn is_over(&self, pool: PoolId, since: Instant) -> bool {
        let time_ms = self.snapshot.pool(pool).and_then(|pool| pool.queue).map_or(0, |queue| queue.time_ms);
        let patience = if time_ms == 0 { PATIENCE } else { Duration::from_millis(u64::from(time_ms)) };
        self.now.since(since) >= patience
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

    fn go_on(&mut self, place: usize, out: &mut Outgoing) {
        let Some(waiting) = self.queue.take(place) else { return };
        self.queue.serving = Some(waiting.since);
        self.process_stray(waiting.port, waiting.frame, out);
        self.queue.serving = None;
    }

    fn give_up(&mut self, place: usize, out: &mut Outgoing) {
        let Some(Waiting { port, frame, virtual_id, .. }) = self.queue.take(place) else { return };
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
const QUEUED_MAX: usize = 256;

/// Where the operator sets no time: a client has given up by then (RFC 9293 section 3.8.3 asks for 3 minutes at
/// least, common ones take 2).
const PATIENCE: Duration = Duration::from_secs(120);
