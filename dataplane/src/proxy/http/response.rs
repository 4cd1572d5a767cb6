//! The member's side: a response is read, its filters run, and passed on to the client, while the rest of the request still goes
//! the other way.

use std::sync::Arc;

use super::exchange::Exchange;
use super::request::{CHUNK_ROOM, finish_body};
use super::{Http, Turn};
use crate::filter;
use crate::http::{Encoder, Event, Fault, Framing, Method, Refusal, Version};
use crate::pipeline::Pipeline;
use crate::proxy::{LINGER_BYTES, Layer, Proxy};
use crate::tcp::{ConnId, Engine, Passed, State};

impl Pipeline {
    /// Passes on what there is, both ways.
    pub(crate) fn pass_messages(&mut self, proxy: &mut Proxy, http: &mut Http) -> Turn {
        let Some(mut exchange) = http.exchange.take() else { return Turn::Wait };
        let turn = self.pass_exchange(proxy, http, &mut exchange);
        match turn {
            Turn::Again if exchange.is_over() => self.finish_exchange(proxy, exchange),
            _ => http.exchange = Some(exchange),
        }
        turn
    }

    fn pass_exchange(&mut self, proxy: &mut Proxy, http: &mut Http, exchange: &mut Exchange) -> Turn {
        http.renew_pace(self.now);
        let [client, server] = self.take_acknowledged(proxy);
        http.pace.1 += u64::from(client);
        if client > 0 && exchange.facts.head_answered || server > 0 && !exchange.facts.request_done {
            proxy.active = self.now;
        }
        match self.pass_request(proxy, http, exchange) {
            Ok(true) => proxy.active = self.now,
            Ok(false) => {}
            Err(refusal) => return self.fail_request(proxy, http, exchange, refusal),
        }
        match self.pass_response(proxy, http, exchange) {
            Ok(Some(Turn::Left)) => return Turn::Left,
            Ok(Some(turn)) => return turn,
            Ok(None) => {}
            Err(refusal) => return self.fail_response(proxy, http, exchange, refusal),
        }
        if exchange.facts.response_done && self.flush_to_client(proxy, exchange) {
            return self.complete(proxy, http, exchange);
        }
        self.look_at_ends(proxy, http, exchange)
    }

    /// Reads the response as far as the client takes it. `Some` when that ends the exchange one way or another.
    fn pass_response(
        &mut self,
        proxy: &mut Proxy,
        http: &mut Http,
        exchange: &mut Exchange,
    ) -> Result<Option<Turn>, Refusal> {
        while !exchange.facts.response_done && self.flush_to_client(proxy, exchange) {
            let Some((client, server)) = proxy.client.zip(proxy.server) else { break };
            if exchange.facts.head_answered && exchange.response_body.is_plain() {
                let copied = self.copy_response([server, client], http, exchange)?;
                proxy.active = if copied { self.now } else { proxy.active };
            }
            let room = self.proxies.room_towards(client);
            let (taken, event) = self.move_response(server, http, exchange, room)?;
            match event {
                Event::Head => {
                    if let Some(turn) = self.on_response_head(proxy, http, exchange)? {
                        return Ok(Some(turn));
                    }
                }
                Event::Body(written) => {
                    exchange.facts.bytes[1] += written.len() as u64;
                    self.proxies.engine.send(client, &self.proxies.scratch[written]);
                }
                Event::End => end_response(exchange, &mut self.proxies.scratch)?,
                Event::More if taken == 0 && !self.ends_with_connection(server, http, exchange)? => break,
                Event::More => {}
            }
            // A member has its time for the whole head, whatever it says before.
            if exchange.facts.head_answered {
                proxy.active = self.now;
            }
        }
        self.flush_to_client(proxy, exchange);
        Ok(None)
    }

    /// Copies body from buffer to buffer, up to where it ends or either buffer does. True when there was some.
    fn copy_response(
        &mut self,
        [server, client]: [ConnId; 2],
        http: &mut Http,
        exchange: &mut Exchange,
    ) -> Result<bool, Refusal> {
        if self.proxies.room_towards(client) == 0 {
            return Ok(false);
        }
        let Exchange { response_body, facts, .. } = exchange;
        let mut refused = None;
        let passed = self.proxies.engine.pass(server, client, |input, output| {
            let most = input.len().min(output.len());
            let taken = http.responses.take_plain(most).unwrap_or_else(|refusal| {
                refused = Some(refusal);
                0
            });
            Passed { taken, written: response_body.write(&input[..taken], output).written }
        });
        facts.bytes[1] += passed.written as u64;
        refused.map_or(Ok(passed.taken > 0), Err)
    }

    fn move_response(
        &mut self,
        server: ConnId,
        http: &mut Http,
        exchange: &mut Exchange,
        room: usize,
    ) -> Result<(usize, Event), Refusal> {
        let Exchange { response, response_trailers, response_body, facts, .. } = exchange;
        let scratch = &mut self.proxies.scratch;
        // A head goes into its own buffer, whatever room the client has.
        let limit = match facts.head_answered {
            true => room.min(scratch.len()).saturating_sub(CHUNK_ROOM),
            false => usize::MAX,
        };
        let mut step = Ok(Event::More);
        let mut advance = |bytes: &[u8]| {
            let input = &bytes[..bytes.len().min(limit)];
            match http.responses.advance(input, response, response_trailers) {
                Ok(progress) => {
                    step = Ok(match progress.event {
                        Event::Body(span) => {
                            Event::Body(0..response_body.write(&input[span], scratch).written)
                        }
                        event => event,
                    });
                    progress.taken
                }
                Err(refusal) => {
                    step = Err(refusal);
                    bytes.len()
                }
            }
        };
        let taken = match self.proxies.engine.readable(server) {
            0 => advance(&[]),
            _ => self.proxies.engine.read(server, advance),
        };
        step.map(|event| (taken, event))
    }

    /// The member has closed: that ends a response without a length, and is a fault in any other.
    fn ends_with_connection(
        &mut self,
        server: ConnId,
        http: &mut Http,
        exchange: &mut Exchange,
    ) -> Result<bool, Refusal> {
        let engine = &self.proxies.engine;
        if !engine.is_peer_done(server) || engine.readable(server) > 0 {
            return Ok(false);
        }
        match http.responses.end()? {
            Event::End => {
                end_response(exchange, &mut self.proxies.scratch)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// A head of the member's: its filters run, and it is written for the client.
    fn on_response_head(
        &mut self,
        proxy: &mut Proxy,
        http: &mut Http,
        exchange: &mut Exchange,
    ) -> Result<Option<Turn>, Refusal> {
        self.make_room(exchange.request.limits());
        let version = exchange.request.version();
        if exchange.response.is_interim() {
            return self.pass_interim(proxy, http, exchange).map(|()| None);
        }
        if !exchange.switches_as_asked() {
            return Err(Refusal::response(Fault::SwitchUnasked));
        }
        exchange.facts.answered = Some(self.now);
        exchange.facts.status = exchange.response.status();
        http.enter(http.phase, self.now);
        self.filter_response(proxy, exchange)?;
        let framing = exchange.response.framing_for(version);
        exchange.facts.keep_server = exchange.response.keeps_alive();
        // What is not read of the request by now would be read as the next one's beginning.
        exchange.facts.keep &= framing != Framing::UntilClose;
        let keep = exchange.facts.keep && exchange.facts.request_done && !self.draining;
        exchange.facts.keep = keep;
        let Exchange { response, to_client, facts, .. } = exchange;
        if !to_client.write(&mut self.proxies.scratch, |out| response.write(version, keep, out)) {
            return Err(Refusal { status: 502, fault: Fault::HeadTooLarge });
        }
        facts.head_answered = true;
        exchange.response_body = Encoder::new(framing);
        if framing == Framing::Tunnel {
            return Ok(Some(self.open_tunnel(proxy, exchange)));
        }
        if http.reader.is_held() {
            http.reader.resume();
        }
        Ok(None)
    }

    /// A response before the response goes on to a client that knows such. With 100 the member asks for the body, for which
    /// the client has its time from now on.
    fn pass_interim(
        &mut self,
        proxy: &mut Proxy,
        http: &mut Http,
        exchange: &mut Exchange,
    ) -> Result<(), Refusal> {
        let Exchange { request, response, to_client, facts, .. } = exchange;
        facts.interims += 1;
        if facts.interims > INTERIMS_MAX {
            return Err(Refusal::response(Fault::TooManyInterims));
        }
        if response.status() == 100 {
            facts.body_held = false;
            proxy.active = self.now;
            http.enter(http.phase, self.now);
        }
        if request.version() == Version::Http11 {
            to_client.write(&mut self.proxies.scratch, |out| response.write(Version::Http11, true, out));
        }
        Ok(())
    }

    fn filter_response(&mut self, proxy: &mut Proxy, exchange: &mut Exchange) -> Result<(), Refusal> {
        let profile = Arc::clone(&proxy.profile);
        let Some(settings) = &profile.http else { return Ok(()) };
        let route = exchange.route.and_then(|index| settings.routes.rules.get(index));
        let Exchange { request, response, notes, .. } = &mut *exchange;
        let own = filter::on_response(&settings.filters, request, response, notes);
        let of_route =
            route.map_or(Ok(()), |route| filter::on_response(&route.filters, request, response, notes));
        let too_large = |_| Refusal { status: 502, fault: Fault::HeadTooLarge };
        own.and(of_route).map_err(too_large)?;
        self.send_cookie(proxy, settings, exchange).map_err(too_large)
    }

    /// The member has agreed to another protocol. The head goes out first; it is small and the client has read all before.
    fn open_tunnel(&mut self, proxy: &mut Proxy, exchange: &mut Exchange) -> Turn {
        if !self.flush_to_client(proxy, exchange) {
            exchange.facts.outcome = "client-blocked";
            self.cut(proxy);
            return Turn::Left;
        }
        self.become_tunnel(proxy)
    }

    /// The response is with the client as a whole.
    fn complete(&mut self, proxy: &mut Proxy, http: &mut Http, exchange: &mut Exchange) -> Turn {
        let facts = exchange.facts;
        self.release_server(proxy, http, facts.request_done, facts.keep_server);
        if !facts.keep || !facts.request_done {
            return self.quit(proxy);
        }
        http.enter(super::Phase::Head, self.now);
        proxy.active = self.now;
        Turn::Again
    }

    /// Either side may have gone meanwhile.
    fn look_at_ends(&mut self, proxy: &mut Proxy, http: &mut Http, exchange: &mut Exchange) -> Turn {
        if self.is_client_gone(proxy) {
            exchange.facts.outcome = "client-gone";
            self.drop_server(proxy, false);
            proxy.layer = Layer::Closing(LINGER_BYTES);
            return Turn::Left;
        }
        let state = proxy.server.map_or(State::Reset, |server| self.proxies.engine.state(server));
        let is_lost = matches!(state, State::Reset | State::TimedOut | State::Aborted);
        if !is_lost || exchange.facts.response_done {
            return Turn::Wait;
        }
        self.fail_response(proxy, http, exchange, Refusal { status: 502, fault: Fault::Truncated })
    }
}

/// Responses before the response; more are a member's that has lost its way.
const INTERIMS_MAX: u8 = 16;

fn end_response(exchange: &mut Exchange, scratch: &mut [u8]) -> Result<(), Refusal> {
    let told = exchange.response_body.is_complete();
    told.map_err(|fault| Refusal { status: 502, fault })?;
    exchange.facts.response_done = true;
    let Exchange { request, response, response_trailers, response_body, to_client, .. } = exchange;
    if response.framing_for(request.version()) == Framing::Chunked && request.method() != Method::Head {
        finish_body(response_body, to_client, response_trailers, scratch);
    }
    Ok(())
}

impl Exchange {
    /// False when the member changes to a protocol that the client did not name (RFC 9110 section 7.8).
    fn switches_as_asked(&self) -> bool {
        let (asked, given) = (self.request.upgrade(), self.response.upgrade());
        self.response.status() != 101
            || asked.zip(given).is_some_and(|(asked, given)| asked.eq_ignore_ascii_case(given))
    }

    /// True when the response was passed on as a whole and the request had come as a whole.
    fn is_over(&self) -> bool {
        self.facts.response_done && self.facts.request_done && self.to_client.is_empty()
    }
}
