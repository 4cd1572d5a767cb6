//! One request and its response, in buffers that are used again for the next.

use std::sync::Arc;

use crate::address::Address;
use crate::clock::Instant;
use crate::config::ids::{MemberId, PoolId};
use crate::filter::Notes;
use crate::http::{Encoder, Fields, Framing, HttpLimits, Request, Response};

/// A request under way. A connection between two requests has none.
pub(crate) struct Exchange {
    pub(crate) request: Request,
    pub(crate) response: Response,
    pub(crate) request_trailers: Fields,
    pub(crate) response_trailers: Fields,
    /// What is to be sent before anything else: heads, ends of chunked bodies, answers.
    pub(crate) to_server: Pending,
    pub(crate) to_client: Pending,
    pub(crate) request_body: Encoder,
    pub(crate) response_body: Encoder,
    pub(crate) facts: Progress,
    pub(crate) notes: Notes,
    /// The rule that it follows, in the profile's list.
    pub(crate) route: Option<usize>,
    pub(crate) pool: Option<PoolId>,
    /// Path and query as the client sent them, where they are logged.
    pub(crate) asked_for: Vec<u8>,
    /// The member that had it last.
    pub(crate) served_by: Option<(MemberId, (Address, u16))>,
    /// The proxy that sends its copy.
    pub(crate) shadow: Option<u32>,
    /// How often members have failed it.
    pub(crate) tries: u8,
}

/// How far an exchange is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    /// When its first byte came.
    pub(crate) began: Instant,
    /// When the request had come as a whole.
    pub(crate) asked: Option<Instant>,
    /// When the response began.
    pub(crate) answered: Option<Instant>,
    /// The request's end was read.
    pub(crate) request_done: bool,
    /// The client said that it would ask before it sends the body: none is passed on before the member wants it.
    pub(crate) body_held: bool,
    /// Interim responses of the member.
    pub(crate) interims: u8,
    /// A part of the request's body was read: it cannot be sent again.
    pub(crate) body_read: bool,
    /// The request's head was sent to a member.
    pub(crate) head_sent: bool,
    /// The response's head was written to the client.
    pub(crate) head_answered: bool,
    /// The response's end was read.
    pub(crate) response_done: bool,
    /// The client's connection stays after this response.
    pub(crate) keep: bool,
    /// The server's connection stays, as its response says.
    pub(crate) keep_server: bool,
    /// Bytes of body from the client and to it.
    pub(crate) bytes: [u64; 2],
    /// What the client was told.
    pub(crate) status: u16,
    /// How it ended, in a word.
    pub(crate) outcome: &'static str,
}

/// Bytes that wait for room.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) bytes: Vec<u8>,
    at: usize,
}

impl Pending {
    /// True when nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// What waits.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// So much of it is gone.
    pub(crate) fn advance(&mut self, count: usize) {
        self.at = (self.at + count).min(self.bytes.len());
        if self.is_empty() {
            self.clear();
        }
    }

    /// Nothing waits any more.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.at = 0;
    }

    /// Adds what `write` writes into `room`. False when it did not fit.
    pub(crate) fn write<E>(
        &mut self,
        room: &mut [u8],
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> bool {
        let Ok(len) = write(room) else { return false };
        self.bytes.extend_from_slice(&room[..len]);
        true
    }
}

impl Exchange {
    fn new(limits: &HttpLimits, now: Instant) -> Self {
        Self {
            request: Request::new(limits),
            response: Response::new(limits),
            request_trailers: Fields::for_trailers(limits),
            response_trailers: Fields::for_trailers(limits),
            to_server: Pending::default(),
            to_client: Pending::default(),
            request_body: Encoder::new(Framing::None),
            response_body: Encoder::new(Framing::None),
            facts: Progress::new(now),
            notes: Notes::default(),
            route: None,
            pool: None,
            asked_for: Vec::new(),
            served_by: None,
            shadow: None,
            tries: 0,
        }
    }

    /// Remembers what the client asked for, before filters change it.
    pub(crate) fn note_target(&mut self) {
        let (request, asked_for) = (&self.request, &mut self.asked_for);
        asked_for.extend_from_slice(request.path().unwrap_or_default());
        if let Some(query) = request.query() {
            asked_for.push(b'?');
            asked_for.extend_from_slice(query);
        }
    }

    /// Ready for another request.
    fn reset(&mut self, now: Instant) {
        self.to_server.clear();
        self.to_client.clear();
        self.request_trailers.clear();
        self.response_trailers.clear();
        (self.facts, self.notes) = (Progress::new(now), Notes::default());
        self.asked_for.clear();
        self.shadow = None;
        (self.route, self.pool, self.served_by, self.tries) = (None, None, None, 0);
    }
}

impl Progress {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            asked: None,
            answered: None,
            request_done: false,
            body_held: false,
            interims: 0,
            body_read: false,
            head_sent: false,
            head_answered: false,
            response_done: false,
            keep: false,
            keep_server: false,
            bytes: [0; 2],
            status: 0,
            outcome: "done",
        }
    }
}

/// Exchanges that are over, kept for the next.
#[derive(Default)]
pub(crate) struct Spares {
    #[expect(clippy::vec_box, reason = "boxes go in and out, and what is in them never moves")]
    list: Vec<Box<Exchange>>,
}

impl Spares {
    /// One with these limits.
    pub(crate) fn take(&mut self, limits: &HttpLimits, now: Instant) -> Box<Exchange> {
        let fitting = self.list.iter().rposition(|spare| spare.request.limits() == limits);
        let Some(place) = fitting else { return Box::new(Exchange::new(limits, now)) };
        let mut exchange = self.list.swap_remove(place);
        exchange.reset(now);
        exchange
    }

    /// One that is over.
    pub(crate) fn give_back(&mut self, exchange: Box<Exchange>) {
        if self.list.len() < SPARES_MAX {
            self.list.push(exchange);
        }
    }
}

/// A body of ours and its head.
pub(crate) type Body = Arc<[u8]>;

/// Exchanges kept at most; more are under way only while more requests are.
const SPARES_MAX: usize = 256;
