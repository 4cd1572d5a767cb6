//! HTTP/1.1 through a proxy: one request at a time on a client's connection, each to the member that its rule and the
//! balancing method name.
//!
//! ```text
//!   Head ─▶ (filters, rule) ─┬▶ Connecting ─▶ Passing ─▶ Head …      bodies go both ways at once
//!                            └▶ Answering ─────────────▶ Head …      what we say ourselves
//!                               Passing ─▶ Stream                    CONNECT, Upgrade: the member agreed
//! ```

mod answer;
mod cookie;
mod deadline;
pub(crate) mod exchange;
mod member;
mod request;
mod response;
pub(crate) mod shadow;

use super::{LINGER_BYTES, Layer, Proxy};
use crate::clock::Instant;
use crate::http::{HttpLimits, RequestReader, ResponseReader};
use crate::pipeline::Pipeline;
use crate::tcp::Engine;

use self::exchange::Exchange;

/// A client's connection that speaks HTTP.
pub(crate) struct Http {
    pub(crate) phase: Phase,
    /// When the phase began.
    pub(crate) since: Instant,
    pub(crate) reader: RequestReader,
    pub(crate) responses: ResponseReader,
    pub(crate) exchange: Option<Box<Exchange>>,
    /// Requests so far.
    pub(crate) served: u32,
    /// Requests that the server's connection has carried, and when it was opened.
    pub(crate) server_served: u32,
    pub(crate) server_opened_ns: u64,
    /// For the least rate of a body: when its time began, and bytes since that the client has sent or acknowledged.
    pub(crate) pace: (Instant, u64),
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The client: a request's head.
    Head,
    /// A member that takes the request: all are at their limits.
    Waiting,
    /// The member: its side of the handshake.
    Connecting,
    /// Both: bodies, and the response's head.
    Passing,
    /// The client: that it takes an answer of ours.
    Answering,
}

impl Phase {
    /// Its name in `show flows`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::Head => "http-idle",
            Phase::Waiting | Phase::Connecting => "http-connecting",
            Phase::Passing => "http",
            Phase::Answering => "http-answering",
        }
    }
}

/// What a step of a phase led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing more now.
    Wait,
    /// Another phase, or more to do in this one.
    Again,
    /// The connection is not one of HTTP any more: the layer has changed.
    Left,
}

impl Http {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Head,
            since: now,
            reader: RequestReader::default(),
            responses: ResponseReader::default(),
            exchange: None,
            served: 0,
            server_served: 0,
            server_opened_ns: 0,
            pace: (now, 0),
        }
    }

    /// Begins another stretch of time over which a body's rate is looked at.
    pub(crate) fn renew_pace(&mut self, now: Instant) {
        if now.since(self.pace.0).as_millis() > u128::from(deadline::PACE_MS) {
            self.pace = (now, 0);
        }
    }

    pub(crate) fn enter(&mut self, phase: Phase, now: Instant) {
        (self.phase, self.since, self.pace) = (phase, now, (now, 0));
    }
}

impl Pipeline {
    /// Goes on as far as it can.
    pub(crate) fn http(&mut self, proxy: &mut Proxy) {
        let layer = std::mem::replace(&mut proxy.layer, Layer::Closing(LINGER_BYTES));
        let Layer::Http(mut http) = layer else { return };
        for step in 0..STEPS_MAX {
            self.proxies.again = step + 1 == STEPS_MAX;
            let turn = match http.phase {
                Phase::Head => self.read_request(proxy, &mut http),
                Phase::Waiting => self.with_exchange(proxy, &mut http, Self::find_member),
                Phase::Connecting => self.with_exchange(proxy, &mut http, Self::await_connection),
                Phase::Passing => self.pass_messages(proxy, &mut http),
                Phase::Answering => self.send_answer(proxy, &mut http),
            };
            match turn {
                Turn::Wait => {
                    self.proxies.again = false;
                    break;
                }
                Turn::Again => {}
                Turn::Left => {
                    self.proxies.again = false;
                    return self.leave_http(proxy, &mut http);
                }
            }
        }
        proxy.layer = Layer::Http(http);
    }

    /// A step that has a request under way, and leaves it so.
    fn with_exchange(
        &mut self,
        proxy: &mut Proxy,
        http: &mut Http,
        step: fn(&mut Self, &mut Proxy, &mut Http, &mut Exchange) -> Turn,
    ) -> Turn {
        let Some(mut exchange) = http.exchange.take() else { return Turn::Wait };
        let turn = step(self, proxy, http, &mut exchange);
        http.exchange = Some(exchange);
        turn
    }

    /// The connection is over, or a tunnel from now on.
    fn leave_http(&mut self, proxy: &mut Proxy, http: &mut Http) {
        if let Some(exchange) = http.exchange.take() {
            self.finish_exchange(proxy, exchange);
        }
        proxy.active = self.now;
    }

    /// An exchange is over: it is logged and counted, and its buffers are free.
    pub(crate) fn finish_exchange(&mut self, proxy: &mut Proxy, exchange: Box<Exchange>) {
        if exchange.facts.status != 0 || exchange.facts.asked.is_some() {
            self.log_exchange(proxy, &exchange);
        }
        self.proxies.spares.give_back(exchange);
    }

    /// Makes the scratch hold the largest head or trailer section with these limits, and what filters and the serialiser add.
    pub(crate) fn make_room(&mut self, limits: &HttpLimits) {
        let head = 2 * limits.line + limits.head + HEAD_EXTRA;
        let room = head.max(limits.trailer + HEAD_EXTRA);
        if self.proxies.scratch.len() < room {
            self.proxies.scratch = vec![0; room].into();
        }
    }

    /// Sends what waits for the client. True when nothing waits any more.
    pub(crate) fn flush_to_client(&mut self, proxy: &Proxy, exchange: &mut Exchange) -> bool {
        if let Some(client) = proxy.client
            && !exchange.to_client.is_empty()
        {
            let sent = self.proxies.engine.send(client, exchange.to_client.rest());
            exchange.to_client.advance(sent);
        }
        exchange.to_client.is_empty()
    }

    /// Sends what waits for the member. True when nothing waits any more.
    pub(crate) fn flush_to_server(&mut self, proxy: &Proxy, exchange: &mut Exchange) -> bool {
        if let Some(server) = proxy.server
            && !exchange.to_server.is_empty()
        {
            let sent = self.proxies.engine.send(server, exchange.to_server.rest());
            exchange.to_server.advance(sent);
        }
        exchange.to_server.is_empty()
    }
}

/// What filters and the serialiser may add to a head.
const HEAD_EXTRA: usize = 16 << 10;
/// Steps that one connection takes at a time: pipelined requests do not keep others waiting.
const STEPS_MAX: usize = 64;
