//! When HTTP has waited too long, phase by phase.

use std::time::Duration;

use super::{Http, Phase, Turn};
use crate::clock::Instant;
use crate::config::proxy::HttpTimeouts;
use crate::pipeline::Pipeline;
use crate::proxy::deadline::RETRY_MS;
use crate::proxy::{Layer, Proxy};
use crate::tcp::Engine;

/// What has lasted too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    /// The first byte of a first request, or of the next.
    Quiet,
    /// A request's head.
    Head,
    /// A member's place.
    Member,
    /// A member's handshake.
    Connection,
    /// A request's body, or the client's reading of a response.
    Client,
    /// A response's beginning, or its next piece.
    Response,
    /// A member's asking for the body that the client has begun to send.
    Invitation,
    /// The whole exchange.
    Request,
}

impl Pipeline {
    /// When the next thing has lasted too long.
    pub(crate) fn deadline_of_http(&self, proxy: &Proxy, http: &Http) -> Option<Instant> {
        self.late_of(proxy, http).map(|(due, _)| due)
    }

    fn late_of(&self, proxy: &Proxy, http: &Http) -> Option<(Instant, Late)> {
        let settings = proxy.profile.http.as_ref()?;
        let limits = settings.timeouts;
        let own = self.late_of_phase(proxy, http, &limits);
        let route = http.exchange.as_ref().and_then(|exchange| {
            let route = settings.routes.rules.get(exchange.route?)?;
            (route.request_timeout_ms > 0)
                .then(|| (after(exchange.facts.began, route.request_timeout_ms), Late::Request))
        });
        [Some(own), route].into_iter().flatten().min_by_key(|(due, _)| *due)
    }

    fn late_of_phase(&self, proxy: &Proxy, http: &Http, limits: &HttpTimeouts) -> (Instant, Late) {
        match http.phase {
            Phase::Head if http.exchange.is_some() => (after(http.since, limits.head_ms), Late::Head),
            Phase::Head if http.served == 0 => (after(http.since, limits.first_byte_ms), Late::Quiet),
            Phase::Head => (after(http.since, limits.keep_alive_ms), Late::Quiet),
            Phase::Waiting => (self.wait_of(proxy, http.since), Late::Member),
            Phase::Connecting => (after(http.since, proxy.profile.server_tcp.connect_ms), Late::Connection),
            Phase::Answering => (after(proxy.active, limits.body_ms), Late::Client),
            Phase::Passing => self.late_of_passing(proxy, http, limits),
        }
    }

    fn late_of_passing(&self, proxy: &Proxy, http: &Http, limits: &HttpTimeouts) -> (Instant, Late) {
        let Some(exchange) = &http.exchange else { return (after(self.now, RETRY_MS), Late::Client) };
        let route = proxy.profile.http.as_ref().and_then(|http| http.routes.rules.get(exchange.route?));
        let own = route.map_or(0, |route| route.response_timeout_ms);
        let response_ms = if own > 0 { own } else { limits.response_ms };
        let client_silent = proxy.client.is_none_or(|client| self.proxies.engine.readable(client) == 0);
        if exchange.facts.body_held && !client_silent && !exchange.facts.head_answered {
            return (after(http.since, INVITATION_MS), Late::Invitation);
        }
        let is_asked = !exchange.facts.body_held;
        let waits_for_client = is_asked && !exchange.facts.request_done && client_silent
            || exchange.facts.head_answered && self.is_client_slow(proxy);
        if !waits_for_client {
            let since = exchange.facts.asked.unwrap_or(proxy.active).max(proxy.active);
            return (after(since, response_ms), Late::Response);
        }
        let idle = after(proxy.active, limits.body_ms);
        let window = after(http.pace.0, PACE_MS);
        let is_slow = limits.body_rate_min > 0
            && http.pace.1 < u64::from(limits.body_rate_min) * u64::from(PACE_MS / 1000);
        (if is_slow { idle.min(window) } else { idle }, Late::Client)
    }

    /// True when the client has not taken what is there for it.
    fn is_client_slow(&self, proxy: &Proxy) -> bool {
        proxy.client.is_some_and(|client| self.proxies.engine.unacknowledged(client) > 0)
    }

    /// Does what too long a wait leads to.
    #[cold]
    pub(crate) fn on_http_deadline(&mut self, proxy: &mut Proxy) {
        let layer = std::mem::replace(&mut proxy.layer, Layer::Closing(0));
        let Layer::Http(mut http) = layer else { return };
        let late = self.late_of(proxy, &http).filter(|(due, _)| *due <= self.now).map(|(_, late)| late);
        let turn = match late {
            None | Some(Late::Member) => Turn::Again,
            Some(Late::Invitation) => {
                http.exchange.iter_mut().for_each(|exchange| exchange.facts.body_held = false);
                http.enter(http.phase, self.now);
                Turn::Again
            }
            Some(Late::Quiet) => self.quit(proxy),
            Some(Late::Head) => self.answer_late(proxy, &mut http, 408, "head-timeout"),
            Some(Late::Connection) => {
                proxy.server.into_iter().for_each(|conn| self.proxies.engine.abort(conn));
                Turn::Again
            }
            Some(Late::Client) => self.answer_late(proxy, &mut http, 408, "body-timeout"),
            Some(Late::Response) => self.answer_late(proxy, &mut http, 504, "response-timeout"),
            Some(Late::Request) => self.answer_late(proxy, &mut http, 504, "request-timeout"),
        };
        match turn {
            Turn::Left => {
                if let Some(exchange) = http.exchange.take() {
                    self.finish_exchange(proxy, exchange);
                }
                proxy.active = self.now;
            }
            _ => proxy.layer = Layer::Http(http),
        }
    }

    /// The client is told, where nothing was said yet; else both sides end.
    fn answer_late(&mut self, proxy: &mut Proxy, http: &mut Http, status: u16, why: &'static str) -> Turn {
        let Some(mut exchange) = http.exchange.take() else { return self.quit(proxy) };
        exchange.facts.keep = false;
        proxy.active = self.now;
        let turn = if exchange.facts.head_answered {
            exchange.facts.outcome = why;
            self.cut_client(proxy)
        } else {
            self.fail_exchange(proxy, http, &mut exchange, status, why)
        };
        http.exchange = Some(exchange);
        turn
    }
}

fn after(since: Instant, ms: u32) -> Instant {
    since + Duration::from_millis(u64::from(ms))
}

/// How long a body that came unasked waits for its member's asking, which some members never do.
const INVITATION_MS: u32 = 1_000;
/// How long a body may be slower than the least rate.
pub(super) const PACE_MS: u32 = 10_000;
