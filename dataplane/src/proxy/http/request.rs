//! The client's side: a request is read, its filters run, its rule found, and its body passed on.

use std::io::{Cursor, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::exchange::{Exchange, Pending};
use super::{Http, Phase, Turn};
use crate::address::Address;
use crate::config::ids::PoolId;
use crate::config::proxy::{HttpProfile, Route};
use crate::filter::{self, Facts, Filter, Outcome};
use crate::http::route::PathMatch;
use crate::http::{Encoder, Event, Framing, Method, Refusal, Request, Scheme, Version};
use crate::pipeline::Pipeline;
use crate::proxy::{LINGER_BYTES, Layer, Proxy};
use crate::tcp::{ConnId, Engine, Passed};

impl Pipeline {
    /// Waits for the head of the next request.
    pub(crate) fn read_request(&mut self, proxy: &mut Proxy, http: &mut Http) -> Turn {
        let Some(client) = proxy.client else { return self.quit(proxy) };
        self.look_at_kept_server(proxy, http);
        let engine = &self.proxies.engine;
        if engine.readable(client) == 0 {
            let is_over = engine.state(client).is_over();
            // A client that has not asked anything yet may do so, and is told then that it was its last request.
            let is_last = self.draining && http.served > 0 && http.exchange.is_none();
            return match engine.is_peer_done(client) || is_over || is_last {
                true => self.quit(proxy),
                false => Turn::Wait,
            };
        }
        let mut exchange = match http.exchange.take() {
            Some(exchange) => exchange,
            None => self.begin_exchange(proxy, http),
        };
        let read = self.read_head(client, http, &mut exchange);
        http.exchange = Some(exchange);
        match read {
            Ok(true) => self.dispatch(proxy, http),
            Ok(false) => self.wait_for_head(proxy, client),
            Err(refusal) => self.refuse_request(proxy, http, refusal),
        }
    }

    /// The first byte of a request is there: from here on it follows the newest configuration.
    fn begin_exchange(&mut self, proxy: &mut Proxy, http: &mut Http) -> Box<Exchange> {
        if let Some(profile) =
            self.snapshot.virtual_by_id(proxy.virtual_id).and_then(|item| item.proxy.as_ref())
            && profile.http.is_some()
            && !Arc::ptr_eq(profile, &proxy.profile)
        {
            proxy.profile = Arc::clone(profile);
        }
        proxy.failed.clear();
        http.enter(Phase::Head, self.now);
        let limits = proxy.profile.http.as_ref().map(|http| http.limits).unwrap_or_default();
        self.proxies.spares.take(&limits, self.now)
    }

    fn wait_for_head(&mut self, proxy: &mut Proxy, client: ConnId) -> Turn {
        let engine = &self.proxies.engine;
        let is_over = engine.is_peer_done(client) || engine.state(client).is_over();
        if is_over { self.quit(proxy) } else { Turn::Wait }
    }

    /// Reads on; true when the head is complete.
    fn read_head(
        &mut self,
        client: ConnId,
        http: &mut Http,
        exchange: &mut Exchange,
    ) -> Result<bool, Refusal> {
        let Exchange { request, request_trailers, .. } = exchange;
        loop {
            let mut step = Ok(Event::More);
            let taken = self.proxies.engine.read(client, |bytes| {
                match http.reader.advance(bytes, request, request_trailers) {
                    Ok(progress) => {
                        step = Ok(progress.event);
                        progress.taken
                    }
                    Err(refusal) => {
                        step = Err(refusal);
                        bytes.len()
                    }
                }
            });
            match step? {
                Event::Head => return Ok(true),
                _ if taken == 0 => return Ok(false),
                _ => {}
            }
        }
    }

    /// The client's connection ends between two requests, or within a head, to which there is nothing to say.
    pub(crate) fn quit(&mut self, proxy: &mut Proxy) -> Turn {
        self.drop_server(proxy, true);
        if let Some(client) = proxy.client {
            self.proxies.engine.close(client);
        }
        proxy.layer = Layer::Closing(LINGER_BYTES);
        Turn::Left
    }

    /// A head is complete: what becomes of the request.
    fn dispatch(&mut self, proxy: &mut Proxy, http: &mut Http) -> Turn {
        let Some(mut exchange) = http.exchange.take() else { return Turn::Wait };
        http.served += 1;
        self.count_request(proxy);
        let profile = Arc::clone(&proxy.profile);
        let Some(settings) = &profile.http else { return self.quit(proxy) };
        exchange.facts.keep = exchange.request.keeps_alive() && self.may_keep(proxy, http, settings);
        exchange.facts.request_done = false;
        if profile.access_log {
            exchange.note_target();
        }
        if exchange.request.authority().is_empty() && exchange.request.version() == Version::Http10 {
            name_host(&mut exchange.request, proxy.origin.dst, proxy.origin.dst_port);
        }
        let turn = self.route(proxy, http, settings, &mut exchange);
        http.exchange = Some(exchange);
        turn
    }

    /// True when the client may send another request after this one.
    fn may_keep(&self, proxy: &Proxy, http: &Http, settings: &HttpProfile) -> bool {
        let in_number = settings.requests_max == 0 || http.served < settings.requests_max;
        !self.draining && in_number && !self.is_old(proxy, settings.timeouts.max_age_ms)
    }

    /// True at the largest age less a tenth of it at most, another part for each connection: those that came together
    /// are not sent away together.
    fn is_old(&self, proxy: &Proxy, max_age_ms: u32) -> bool {
        let age_ms = self.now.since(proxy.began).as_millis() as u64;
        let tenth = u64::from(max_age_ms) / 10;
        let part = spread(proxy.began.as_ns() ^ u64::from(proxy.slot)) % (tenth + 1);
        age_ms >= u64::from(max_age_ms) - part
    }

    /// Finds the rule, runs the filters, chooses the pool.
    fn route(
        &mut self,
        proxy: &mut Proxy,
        http: &mut Http,
        settings: &HttpProfile,
        exchange: &mut Exchange,
    ) -> Turn {
        if exchange.request.method() == Method::Connect && !settings.allow_connect {
            return self.answer_with(http, exchange, 405, "connect-not-allowed");
        }
        exchange.route = settings.routes.compiled.find(&exchange.request);
        let route = exchange.route.and_then(|index| settings.routes.rules.get(index));
        let facts = self.facts_of(proxy, route);
        let lists: [&[Filter]; 2] = [&settings.filters, route.map_or(&[], |route| &route.filters)];
        for filters in lists {
            let Exchange { request, response, notes, .. } = &mut *exchange;
            match filter::on_request(filters, request, response, &facts, &self.proxies.rates, notes) {
                Ok(Outcome::Continue) => {}
                Ok(Outcome::Answer(body)) => return self.answer_of_filter(proxy, http, exchange, &body),
                Err(_) => return self.answer_with(http, exchange, 431, "head-too-large"),
            }
        }
        let own_pool = self.snapshot.virtual_by_id(proxy.virtual_id).and_then(|item| item.pool);
        exchange.pool = match route {
            Some(route) if !route.pools.is_empty() => self.pool_of(route),
            _ => own_pool,
        };
        if exchange.pool.is_none() {
            let status = if route.is_some() { 500 } else { 404 };
            return self.answer_with(http, exchange, status, "no-route");
        }
        let turn = self.ask(proxy, http, exchange);
        if http.phase == Phase::Waiting {
            self.begin_shadow(proxy, lists, exchange);
        }
        turn
    }

    fn facts_of<'a>(&self, proxy: &Proxy, route: Option<&'a Route>) -> Facts<'a> {
        let prefix = route.and_then(|route| route.rule.path.as_ref());
        let matched_prefix: &[u8] = match prefix {
            Some(PathMatch::Prefix(prefix)) => prefix.as_bytes(),
            _ => &[],
        };
        Facts {
            client: (proxy.origin.src, proxy.origin.src_port),
            destination: (proxy.origin.dst, proxy.origin.dst_port),
            scheme: Scheme::Http,
            matched_prefix,
            now: self.now,
        }
    }

    /// One of the rule's pools, in proportion to their weights.
    fn pool_of(&mut self, route: &Route) -> Option<PoolId> {
        if let [only] = &route.pools[..] {
            return Some(only.pool);
        }
        let total: u64 = route.pools.iter().map(|pool| u64::from(pool.weight)).sum();
        self.proxies.turn = self.proxies.turn.wrapping_add(1);
        let mut place = spread(self.proxies.turn).checked_rem(total)?;
        route.pools.iter().find_map(|pool| match place.checked_sub(u64::from(pool.weight)) {
            Some(rest) => {
                place = rest;
                None
            }
            None => Some(pool.pool),
        })
    }

    /// The head is written for the member, and one is looked for.
    fn ask(&mut self, proxy: &mut Proxy, http: &mut Http, exchange: &mut Exchange) -> Turn {
        self.make_room(exchange.request.limits());
        let reuse =
            self.may_share(proxy) || !proxy.profile.http.as_ref().is_some_and(|http| http.reuse.enabled);
        let Exchange { request, to_server, .. } = &mut *exchange;
        to_server.clear();
        if !to_server.write(&mut self.proxies.scratch, |out| request.write(reuse, out)) {
            return self.answer_with(http, exchange, 431, "head-too-large");
        }
        exchange.request_body = Encoder::new(exchange.request.framing());
        http.enter(Phase::Waiting, self.now);
        Turn::Again
    }

    /// Passes on what there is of the request's body, and sees its end. True when something moved.
    pub(crate) fn pass_request(
        &mut self,
        proxy: &mut Proxy,
        http: &mut Http,
        exchange: &mut Exchange,
    ) -> Result<bool, Refusal> {
        let mut moved = false;
        if exchange.facts.body_held {
            self.flush_to_server(proxy, exchange);
            return Ok(false);
        }
        while !exchange.facts.request_done && self.flush_to_server(proxy, exchange) {
            let Some((client, server)) = proxy.client.zip(proxy.server) else { break };
            if exchange.request_body.is_plain() && exchange.shadow.is_none() {
                moved |= self.copy_request([client, server], http, exchange)?;
            }
            let room = self.proxies.room_towards(server);
            let (taken, event) = self.move_request(client, http, exchange, room)?;
            match event {
                Event::Body(written) => {
                    exchange.facts.body_read = true;
                    exchange.facts.bytes[0] += taken as u64;
                    http.pace.1 += taken as u64;
                    self.proxies.engine.send(server, &self.proxies.scratch[written.clone()]);
                    self.shade(exchange, written);
                }
                Event::End => self.end_request(exchange),
                _ if taken == 0 => break,
                _ => {}
            }
            moved = true;
        }
        self.flush_to_server(proxy, exchange);
        Ok(moved)
    }

    /// Copies body from buffer to buffer, up to where it ends or either buffer does. True when there was some.
    fn copy_request(
        &mut self,
        [client, server]: [ConnId; 2],
        http: &mut Http,
        exchange: &mut Exchange,
    ) -> Result<bool, Refusal> {
        if self.proxies.room_towards(server) == 0 {
            return Ok(false);
        }
        let Exchange { request_body, facts, .. } = exchange;
        let mut refused = None;
        let passed = self.proxies.engine.pass(client, server, |input, output| {
            let most = input.len().min(output.len());
            let taken = http.reader.take_plain(most).unwrap_or_else(|refusal| {
                refused = Some(refusal);
                0
            });
            Passed { taken, written: request_body.write(&input[..taken], output).written }
        });
        facts.body_read |= passed.taken > 0;
        facts.bytes[0] += passed.taken as u64;
        http.pace.1 += passed.taken as u64;
        refused.map_or(Ok(passed.taken > 0), Err)
    }

    /// One step of the reader; the body that it finds is encoded into the scratch, and said where.
    fn move_request(
        &mut self,
        client: ConnId,
        http: &mut Http,
        exchange: &mut Exchange,
        room: usize,
    ) -> Result<(usize, Event), Refusal> {
        let Exchange { request, request_trailers, request_body, .. } = exchange;
        let scratch = &mut self.proxies.scratch;
        let limit = room.min(scratch.len()).saturating_sub(CHUNK_ROOM);
        let is_done = self.proxies.engine.is_peer_done(client);
        let mut step = Ok(Event::More);
        let mut advance = |bytes: &[u8]| {
            let input = &bytes[..bytes.len().min(limit)];
            match http.reader.advance(input, request, request_trailers) {
                Ok(progress) => {
                    step = Ok(match progress.event {
                        Event::Body(span) => {
                            Event::Body(0..request_body.write(&input[span], scratch).written)
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
        // The end of a message without a body needs no byte of the client's.
        let taken = match self.proxies.engine.readable(client) {
            0 => advance(&[]),
            _ => self.proxies.engine.read(client, advance),
        };
        if is_done && taken == 0 && step == Ok(Event::More) {
            http.reader.end()?;
        }
        step.map(|event| (taken, event))
    }

    /// The request has come as a whole.
    fn end_request(&mut self, exchange: &mut Exchange) {
        exchange.facts.request_done = true;
        exchange.facts.asked.get_or_insert(self.now);
        let Exchange { request, request_trailers, request_body, to_server, .. } = &mut *exchange;
        if request.framing() == Framing::Chunked {
            finish_body(request_body, to_server, request_trailers, &mut self.proxies.scratch);
            self.shade_end(exchange);
        }
    }

    /// Reads the rest of a request that is answered already and throws it away. True when its end has come.
    pub(crate) fn skip_request(&mut self, proxy: &Proxy, http: &mut Http, exchange: &mut Exchange) -> bool {
        let Some(client) = proxy.client else { return false };
        while !exchange.facts.request_done {
            match self.move_request(client, http, exchange, usize::MAX) {
                Ok((_, Event::End)) => exchange.facts.request_done = true,
                Ok((0, _)) | Err(_) => return false,
                Ok((taken, _)) => exchange.facts.bytes[0] += taken as u64,
            }
            if exchange.facts.bytes[0] > LINGER_BYTES as u64 {
                return false;
            }
        }
        true
    }
}

/// Names the address that the client came to, because members of HTTP/1.1 want a host (RFC 9110 section 7.1). With a head
/// that is full it stays without.
#[cold]
fn name_host(request: &mut Request, address: Address, port: u16) {
    let mut text = Cursor::new([0; HOST_MAX]);
    let written = match (IpAddr::from(address), port) {
        (IpAddr::V6(address), DEFAULT_PORT) => write!(text, "[{address}]"),
        (address, DEFAULT_PORT) => write!(text, "{address}"),
        (address, port) => write!(text, "{}", SocketAddr::new(address, port)),
    };
    let len = text.position() as usize;
    if written.is_ok() {
        let _ = request.set_authority(&text.get_ref()[..len]);
    }
}

/// Writes what ends a chunked body.
pub(crate) fn finish_body(
    encoder: &Encoder,
    pending: &mut Pending,
    trailers: &crate::http::Fields,
    room: &mut [u8],
) {
    if !pending.write(room, |out| encoder.finish(Some(trailers), out)) {
        pending.write(room, |out| encoder.finish(None, out));
    }
}

/// Scatters a running number over all values (the finaliser of SplitMix64).
pub(crate) fn spread(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The longest IPv6 address in brackets, and a port.
const HOST_MAX: usize = 64;
/// Of http (RFC 9110 section 4.2.1).
const DEFAULT_PORT: u16 = 80;
/// What a chunk takes beside its data, and the last chunk.
pub(crate) const CHUNK_ROOM: usize = 32;
