//! What we say ourselves: refusals, errors, answers of filters.

use std::sync::Arc;

use super::exchange::{Body, Exchange};
use super::{Http, Phase, Turn};
use crate::filter;
use crate::http::{Encoder, Framing, Method, Refusal};
use crate::pipeline::Pipeline;
use crate::proxy::{LINGER_BYTES, Layer, Proxy};
use crate::tcp::{Engine, State};

impl Pipeline {
    /// A request that is none: the client is told, and its connection ends, for nobody knows where the next begins.
    pub(crate) fn refuse_request(&mut self, proxy: &mut Proxy, http: &mut Http, refusal: Refusal) -> Turn {
        let Some(mut exchange) = http.exchange.take() else { return self.quit(proxy) };
        exchange.facts.keep = false;
        self.count_refused(proxy);
        let turn = self.answer_with(http, &mut exchange, refusal.status, refusal.fault.word());
        http.exchange = Some(exchange);
        turn
    }

    /// The rest of a request is none. Where the response has begun its client sees it end early.
    pub(crate) fn fail_request(
        &mut self,
        proxy: &mut Proxy,
        http: &mut Http,
        exchange: &mut Exchange,
        refusal: Refusal,
    ) -> Turn {
        self.drop_server(proxy, false);
        self.count_refused(proxy);
        exchange.facts.keep = false;
        self.tell_or_cut(proxy, http, exchange, refusal.status, refusal.fault.word())
    }

    /// The member failed: another one is asked where nothing is lost by it, else the client is told.
    pub(crate) fn fail_response(
        &mut self,
        proxy: &mut Proxy,
        http: &mut Http,
        exchange: &mut Exchange,
        refusal: Refusal,
    ) -> Turn {
        let untouched = !http.responses.has_begun() && !exchange.facts.body_read;
        let is_stale = http.server_served > 1 && exchange.tries == 0;
        let may_repeat = exchange.request.method().is_idempotent();
        if untouched && may_repeat && (is_stale || self.may_try_another(proxy)) {
            return match is_stale {
                true => self.try_afresh(proxy, http, exchange),
                false => self.ask_another(proxy, http, exchange),
            };
        }
        self.fail_exchange(proxy, http, exchange, refusal.status, refusal.fault.word())
    }

    /// A connection that had waited was closed by its member: the same request goes over a new one, and the member counts as
    /// one that has not failed.
    fn try_afresh(&mut self, proxy: &mut Proxy, http: &mut Http, exchange: &mut Exchange) -> Turn {
        let failed = proxy.failed.len();
        let turn = self.ask_another(proxy, http, exchange);
        proxy.failed.truncate(failed);
        turn
    }

    /// The exchange cannot go on for a reason of the member's.
    pub(crate) fn fail_exchange(
        &mut self,
        proxy: &mut Proxy,
        http: &mut Http,
        exchange: &mut Exchange,
        status: u16,
        why: &'static str,
    ) -> Turn {
        self.drop_server(proxy, false);
        self.tell_or_cut(proxy, http, exchange, status, why)
    }

    fn tell_or_cut(
        &mut self,
        proxy: &mut Proxy,
        http: &mut Http,
        exchange: &mut Exchange,
        status: u16,
        why: &'static str,
    ) -> Turn {
        if !exchange.facts.head_answered {
            return self.answer_with(http, exchange, status, why);
        }
        exchange.facts.outcome = why;
        self.cut(proxy);
        Turn::Left
    }

    /// Begins an answer without more than a line of text, which says why.
    pub(crate) fn answer_with(
        &mut self,
        http: &mut Http,
        exchange: &mut Exchange,
        status: u16,
        why: &'static str,
    ) -> Turn {
        exchange.facts.outcome = why;
        let response = &mut exchange.response;
        response.begin(status);
        let mut body = Line::default();
        body.put(response.reason());
        body.put(b": ");
        body.put(why.as_bytes());
        body.put(b"\n");
        response.set_framing(Framing::Length(body.len as u64));
        let _ = response.fields.add(b"Content-Type", b"text/plain");
        let _ = response.fields.add(REASON_FIELD, why.as_bytes());
        if status == 405 {
            // RFC 9110 section 15.5.6.
            let _ = response.fields.add(b"Allow", ALLOWED);
        }
        self.begin_answer(http, exchange, &body.bytes[..body.len])
    }

    /// A filter has answered; the other filters see its response as one of a member's.
    pub(crate) fn answer_of_filter(
        &mut self,
        proxy: &mut Proxy,
        http: &mut Http,
        exchange: &mut Exchange,
        body: &Body,
    ) -> Turn {
        let profile = Arc::clone(&proxy.profile);
        if let Some(settings) = &profile.http {
            let route = exchange.route.and_then(|index| settings.routes.rules.get(index));
            let Exchange { request, response, notes, .. } = &mut *exchange;
            let _ = filter::on_response(&settings.filters, request, response, notes);
            if let Some(route) = route {
                let _ = filter::on_response(&route.filters, request, response, notes);
            }
        }
        exchange.facts.outcome = "filter";
        self.begin_answer(http, exchange, body)
    }

    fn begin_answer(&mut self, http: &mut Http, exchange: &mut Exchange, body: &[u8]) -> Turn {
        exchange.facts.status = exchange.response.status();
        exchange.facts.answered.get_or_insert(self.now);
        // Without a body, or with all of it here, the connection can go on.
        exchange.facts.keep &= exchange.facts.request_done || exchange.request.framing() == Framing::None;
        let is_head = exchange.request.method() == Method::Head;
        let Exchange { request, response, to_client, facts, .. } = &mut *exchange;
        let version = request.version();
        to_client.clear();
        to_client.write(&mut self.proxies.scratch, |out| response.write(version, facts.keep, out));
        if !is_head {
            to_client.bytes.extend_from_slice(body);
            facts.bytes[1] = body.len() as u64;
        }
        (facts.head_answered, facts.response_done) = (true, true);
        exchange.response_body = Encoder::new(Framing::None);
        http.enter(Phase::Answering, self.now);
        Turn::Again
    }

    /// Sends the answer, and takes what there still is of the request.
    pub(crate) fn send_answer(&mut self, proxy: &mut Proxy, http: &mut Http) -> Turn {
        let Some(mut exchange) = http.exchange.take() else { return self.quit(proxy) };
        let before = exchange.to_client.rest().len();
        let sent = self.flush_to_client(proxy, &mut exchange);
        if exchange.to_client.rest().len() != before {
            proxy.active = self.now;
        }
        let is_gone = self.is_client_gone(proxy);
        if !sent && !is_gone {
            http.exchange = Some(exchange);
            return Turn::Wait;
        }
        let keep = sent && exchange.facts.keep && self.skip_request(proxy, http, &mut exchange);
        if http.reader.is_held() {
            http.reader.resume();
        }
        self.finish_exchange(proxy, exchange);
        if !keep {
            return self.quit(proxy);
        }
        http.enter(Phase::Head, self.now);
        proxy.active = self.now;
        Turn::Again
    }

    /// The client's connection ends with a RST where it would otherwise go on without end.
    pub(crate) fn cut_client(&mut self, proxy: &mut Proxy) -> Turn {
        if let Some(client) = proxy.client
            && self.proxies.engine.state(client) == State::Open
        {
            self.proxies.engine.abort(client);
        }
        self.drop_server(proxy, false);
        proxy.layer = Layer::Closing(LINGER_BYTES);
        Turn::Left
    }
}

/// A short text.
struct Line {
    bytes: [u8; 128],
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; 128], len: 0 }
    }
}

impl Line {
    fn put(&mut self, text: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + text.len()) {
            room.copy_from_slice(text);
            self.len += text.len();
        }
    }
}

/// Every method that is known but CONNECT.
const ALLOWED: &[u8] = b"GET, HEAD, POST, PUT, DELETE, OPTIONS, TRACE, PATCH";
/// Says in every answer of ours why it is one.
const REASON_FIELD: &[u8] = b"Sluice-Reason";
