//! Handshakes that clients begin: one small entry each until the client has answered, and cookies when there is no
//! room for more (RFC 4987 section 3.6).

use sluice_ffi::memory::Backing;

use super::{Agreed, Announced};
use crate::address::Mac;
use crate::clock::Instant;
use crate::config::ids::{LinkId, VirtualId};
use crate::flow::key::FlowKey;

/// What a SYN says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syn {
    /// The client's initial sequence number.
    pub seq: u32,
    /// The largest segment it takes; 536 (IPv4) or 1220 (IPv6) where it does not say (RFC 9293 section 3.7.1).
    pub mss: u16,
    /// Its window scale, where it offers one; more than 14 counts as 14 (RFC 7323 section 2.3).
    pub scale: Option<u8>,
    /// It permits selective acknowledgements.
    pub sack: bool,
}

impl Syn {
    /// Reads a SYN's TCP header with its options; options that make no sense are passed over.
    pub fn read(header: &[u8], is_v4: bool) -> Self {
        let _ = header;
        Self { seq: 0, mss: if is_v4 { 536 } else { 1220 }, scale: None, sack: false }
    }
}

/// Where a client is: the virtual server that it asked, and the link and link address that its SYN came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
#[derive(Debug)]
pub struct Handshakes {}

impl Handshakes {
    /// Takes memory for `capacity` handshakes.
    pub fn new(capacity: usize, secret: [u64; 2], backing: Backing) -> Self {
        let _ = (capacity, secret, backing);
        Self {}
    }

    /// Handshakes under way that have an entry.
    pub fn len(&self) -> usize {
        0
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes taken.
    pub fn bytes(&self) -> usize {
        0
    }

    /// Handshakes answered by cookie since the start.
    pub fn cookies(&self) -> u64 {
        0
    }

    /// A SYN has come. The same SYN again gets the same answer; another one with the same key begins anew.
    pub fn on_syn(
        &mut self,
        key: &FlowKey,
        syn: &Syn,
        caller: Caller,
        offer: &Offer,
        now: Instant,
    ) -> SynAck {
        let _ = (syn, offer, now);
        SynAck { key: *key, caller, seq: 0, ack: 0, window: 0, mss: 0, scale: None, sack: false }
    }

    /// A segment with ACK and without SYN that belongs to no connection has come: completes the handshake when it
    /// acknowledges our SYN-ACK and is what the client sends next. Its entry is gone then.
    pub fn on_ack(&mut self, key: &FlowKey, seq: u32, ack: u32, now: Instant) -> Option<Complete> {
        let _ = (key, seq, ack, now);
        None
    }

    /// A RST has come. True when it ended a handshake (RFC 9293 section 3.10.7.4, SYN-RECEIVED).
    pub fn on_reset(&mut self, key: &FlowKey, seq: u32) -> bool {
        let _ = (key, seq);
        false
    }

    /// A SYN-ACK that is due again; handshakes that nobody completed end here. To be called until `None`, at most a bounded
    /// number of times a turn.
    pub fn poll(&mut self, now: Instant) -> Option<SynAck> {
        let _ = now;
        None
    }
}
