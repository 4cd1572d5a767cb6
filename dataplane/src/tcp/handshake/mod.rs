//! Handshakes that clients begin: one small entry each until the client has answered, and cookies when there is no
//! room for more (RFC 4987 section 3.6).
//!
//! ```text
//!   SYN ─▶ on_syn ─┬─ known: the same answer again          poll ─▶ the answer again after 1, 3, 7 … s,
//!                  ├─ room: an entry ───────▶ SYN-ACK                until the client's time is up
//!                  └─ full: a cookie ───────▶ SYN-ACK
//!   ACK ─▶ on_ack ─┬─ of an entry ──────────▶ Complete
//!                  └─ of a cookie ──────────▶ Complete, without scale and SACK
//! ```
//!
//! Sends nothing and knows no connection: its caller looks for one first.

mod cookie;
mod syn;

use std::fmt;

use bytemuck::Zeroable;
use sluice_ffi::memory::{Backing, Slab};

use self::cookie::Cookies;
pub use self::syn::Syn;
pub(super) use self::syn::next_option;
use super::isn::Isn;
use super::places::Places;
use super::{Agreed, Announced};
use crate::address::Mac;
use crate::clock::Instant;
use crate::config::ids::{LinkId, VirtualId};
use crate::flow::key::{FlowKey, HashSeed};
use crate::flow::table::FlowId;
use crate::flow::timer::Timers;

/// Where a client is: the virtual server that it asked, and the link and link address that its SYN came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable)]
pub struct Caller {
    /// The virtual server.
    pub virtual_id: VirtualId,
    /// The link.
    pub link: LinkId,
    /// The link address.
    pub mac: Mac,
}

/// A SYN-ACK to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SynAck {
    /// The key of the client's packets.
    pub key: FlowKey,
    /// Where it goes.
    pub caller: Caller,
    /// Our sequence number.
    pub seq: u32,
    /// What we acknowledge.
    pub ack: u32,
    /// Our window, unscaled.
    pub window: u16,
    /// The largest segment that we take.
    pub mss: u16,
    /// Our window scale, where the client offered one.
    pub scale: Option<u8>,
    /// Selective acknowledgements are permitted.
    pub sack: bool,
}

/// A handshake that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Complete {
    /// Our initial sequence number.
    pub isn: u32,
    /// What was agreed.
    pub agreed: Agreed,
    /// Who it is; `None` for a cookie, which remembers nobody.
    pub caller: Option<Caller>,
}

/// What we say in every SYN-ACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Of the engine.
    pub announced: Announced,
    /// The largest segment that we take on this client's link.
    pub mss: u16,
    /// How long the client has to answer, in milliseconds.
    pub timeout_ms: u32,
}

/// The handshakes of one worker.
pub struct Handshakes {
    isn: Isn,
    cookies: Cookies,
    places: Places,
    entries: Slab<Entry>,
    /// By place.
    timers: Timers,
}

impl Handshakes {
    /// Takes memory for `capacity` handshakes. Cookies and sequence numbers hang on `secret`.
    pub fn new(capacity: usize, secret: [u64; 2], backing: Backing) -> Self {
        let places = Places::new(capacity, HashSeed::random(), backing);
        Self {
            isn: Isn::new(secret),
            cookies: Cookies::new(secret),
            entries: Slab::new(places.capacity(), backing),
            timers: Timers::new(places.capacity(), backing),
            places,
        }
    }

    /// Handshakes under way that have an entry.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes taken.
    pub fn bytes(&self) -> usize {
        self.places.bytes() + self.entries.bytes() + self.timers.bytes()
    }

    /// Handshakes answered by cookie since the start.
    pub fn cookies(&self) -> u64 {
        self.cookies.made()
    }

    /// Who has a handshake with an entry under this key. A SYN of such a key is no new client.
    pub fn caller(&self, key: &FlowKey) -> Option<Caller> {
        self.find(key).map(|place| self.entries[place].caller)
    }

    /// A SYN has come. The same SYN again gets the same answer, sent where this one came from; another one with the same
    /// key begins anew. O(1), no allocation.
    pub fn on_syn(
        &mut self,
        key: &FlowKey,
        syn: &Syn,
        caller: Caller,
        offer: &Offer,
        now: Instant,
    ) -> SynAck {
        self.answer(key, syn, caller, offer, None, now)
    }

    /// As [`Handshakes::on_syn`], for a SYN that ends TIME-WAIT: our number is later than `sent`, what we would have
    /// sent next (RFC 9293 section 3.6.1). A cookie cannot promise that.
    pub fn on_syn_after(
        &mut self,
        sent: u32,
        key: &FlowKey,
        syn: &Syn,
        caller: Caller,
        offer: &Offer,
        now: Instant,
    ) -> SynAck {
        self.answer(key, syn, caller, offer, Some(sent), now)
    }

    /// A segment with ACK and without SYN that belongs to no connection has come: completes the handshake when it
    /// acknowledges our SYN-ACK and lies in the window that we offered, for what the client said before may be lost
    /// (RFC 9293 section 3.10.7.4); of a cookie, when it is what the client sends first. Its entry is gone then. A cookie is
    /// good for more than one answer: the caller must know the connections that it led to.
    pub fn on_ack(&mut self, key: &FlowKey, seq: u32, ack: u32, now: Instant) -> Option<Complete> {
        let place = self.find(key);
        let caller = place.map(|place| self.entries[place].caller);
        let of_entry = place.and_then(|place| self.entries[place].completed_by(seq, ack));
        let complete = of_entry.or_else(|| {
            let agreed = self.cookies.check(key, seq, ack, now)?;
            Some(Complete { isn: ack.wrapping_sub(1), agreed, caller })
        })?;
        if let Some(place) = place {
            self.end(place);
        }
        Some(complete)
    }

    /// A RST has come. True when it ended a handshake (RFC 9293 section 3.10.7.4, SYN-RECEIVED): only one with the very
    /// number that the client sends next does (RFC 5961 section 3.2).
    pub fn on_reset(&mut self, key: &FlowKey, seq: u32) -> bool {
        let exact = |&place: &usize| self.entries[place].peer_next() == seq;
        let Some(place) = self.find(key).filter(exact) else { return false };
        self.end(place);
        true
    }

    /// A SYN-ACK that is due again: 1, 3, 7, 15 … s after the SYN, each wait up to 64 ms longer. Handshakes that nobody
    /// completed end here, at most [`ENDED_MAX`] a call; `None` may mean that more end on the next turn. To be called
    /// until `None`, at most a bounded number of times a turn.
    pub fn poll(&mut self, now: Instant) -> Option<SynAck> {
        let now_ms = ms(now);
        for _ in 0..ENDED_MAX {
            let place = self.timers.poll_due(now_ms)?.index();
            let answer = self.fire(place, now_ms);
            if answer.is_some() {
                return answer;
            }
        }
        None
    }

    fn answer(
        &mut self,
        key: &FlowKey,
        syn: &Syn,
        caller: Caller,
        offer: &Offer,
        sent: Option<u32>,
        now: Instant,
    ) -> SynAck {
        let known = self.find(key);
        if let Some(place) = known.filter(|&place| self.entries[place].peer_isn == syn.seq) {
            return self.again(place, caller);
        }
        let Some(place) = known.or_else(|| self.places.take(key)) else {
            return self.by_cookie(key, syn, caller, offer, now);
        };
        let isn = match sent {
            Some(sent) => self.isn.after(sent, key, now),
            None => self.isn.of(key, now),
        };
        let entry = Entry::new(key, syn, caller, offer, isn, now);
        self.entries[place] = entry;
        self.timers.arm(FlowId(place as u32), entry.due_ms());
        entry.syn_ack()
    }

    /// The virtual server stays the one that the handshake began with.
    fn again(&mut self, place: usize, caller: Caller) -> SynAck {
        let entry = &mut self.entries[place];
        entry.caller = Caller { virtual_id: entry.caller.virtual_id, ..caller };
        entry.syn_ack()
    }

    fn by_cookie(&mut self, key: &FlowKey, syn: &Syn, caller: Caller, offer: &Offer, now: Instant) -> SynAck {
        let seq = self.cookies.make(key, syn, now);
        let bare = Syn { scale: None, sack: false, ..*syn };
        Entry::new(key, &bare, caller, offer, seq, now).syn_ack()
    }

    fn fire(&mut self, place: usize, now_ms: u64) -> Option<SynAck> {
        let entry = &mut self.entries[place];
        if now_ms >= entry.deadline_ms {
            self.end(place);
            return None;
        }
        let answer = (now_ms >= entry.again_ms).then(|| entry.syn_ack());
        if answer.is_some() {
            entry.wait_ms = entry.wait_ms.saturating_mul(2);
            entry.again_ms = now_ms + u64::from(entry.wait_ms);
        }
        let due_ms = entry.due_ms();
        self.timers.arm(FlowId(place as u32), due_ms);
        answer
    }

    fn end(&mut self, place: usize) {
        self.timers.disarm(FlowId(place as u32));
        self.places.give_back(&self.entries[place].key, place);
    }

    fn find(&self, key: &FlowKey) -> Option<usize> {
        self.places.find(key, |place| self.entries[place].key == *key)
    }
}

impl fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handshakes {{ len: {}, cookies: {} }}", self.len(), self.cookies())
    }
}

/// One handshake under way.
#[derive(Debug, Clone, Copy, Zeroable)]
struct Entry {
    key: FlowKey,
    /// When it ends.
    deadline_ms: u64,
    /// When the SYN-ACK is sent again.
    again_ms: u64,
    /// The wait before that.
    wait_ms: u32,
    isn: u32,
    peer_isn: u32,
    caller: Caller,
    peer_mss: u16,
    mss: u16,
    window: u16,
    /// [`NO_SCALE`] when the client offered none.
    peer_scale: u8,
    scale: u8,
    sack: bool,
}

impl Entry {
    fn new(key: &FlowKey, syn: &Syn, caller: Caller, offer: &Offer, isn: u32, now: Instant) -> Self {
        let now_ms = ms(now);
        Self {
            key: *key,
            deadline_ms: now_ms + u64::from(offer.timeout_ms),
            again_ms: now_ms + u64::from(FIRST_WAIT_MS),
            wait_ms: FIRST_WAIT_MS,
            isn,
            peer_isn: syn.seq,
            caller,
            peer_mss: syn.mss,
            mss: offer.mss,
            window: offer.announced.window,
            peer_scale: syn.scale.unwrap_or(NO_SCALE),
            scale: offer.announced.scale,
            sack: syn.sack && offer.announced.sack,
        }
    }

    fn due_ms(&self) -> u64 {
        self.again_ms.min(self.deadline_ms)
    }

    /// What the client sends next.
    fn peer_next(&self) -> u32 {
        self.peer_isn.wrapping_add(1)
    }

    fn peer_scale(&self) -> Option<u8> {
        (self.peer_scale != NO_SCALE).then_some(self.peer_scale)
    }

    fn completed_by(&self, seq: u32, ack: u32) -> Option<Complete> {
        let &Self { isn, peer_isn, peer_mss, sack, .. } = self;
        // The end counts: who has filled the window says what comes after it.
        let is_in_window = seq.wrapping_sub(self.peer_next()) <= u32::from(self.window);
        let is_answer = ack == isn.wrapping_add(1) && is_in_window;
        let agreed = Agreed { peer_isn, peer_mss, peer_scale: self.peer_scale(), sack };
        is_answer.then_some(Complete { isn, agreed, caller: Some(self.caller) })
    }

    fn syn_ack(&self) -> SynAck {
        SynAck {
            key: self.key,
            caller: self.caller,
            seq: self.isn,
            ack: self.peer_next(),
            window: self.window,
            mss: self.mss,
            scale: self.peer_scale().map(|_| self.scale),
            sack: self.sack,
        }
    }
}

fn ms(now: Instant) -> u64 {
    now.as_ns() / 1_000_000
}

/// Handshakes that end in one [`Handshakes::poll`].
pub const ENDED_MAX: usize = 64;

const FIRST_WAIT_MS: u32 = 1_000;
const NO_SCALE: u8 = 0xff;

#[cfg(test)]
mod tests;
