//! When a proxy has waited too long, by what it waits for; no phase waits for ever.

use std::time::Duration;

use super::stream::{Phase, Stream};
use super::{Layer, Proxy};
use crate::clock::Instant;
use crate::flow::Flow;
use crate::pipeline::Pipeline;
use crate::tcp::Engine;

impl Pipeline {
    /// When the proxy is to be looked at though nothing happens.
    pub(crate) fn deadline_of(&self, proxy: &Proxy) -> Option<Instant> {
        let after = |since: Instant, ms: u32| Some(since + Duration::from_millis(u64::from(ms)));
        match &proxy.layer {
            Layer::Header => after(proxy.began, FIRST_BYTE_MS),
            Layer::Stream(stream) => self.deadline_of_stream(proxy, stream),
            Layer::Http(http) => self.deadline_of_http(proxy, http),
            Layer::Idle(_) => {
                let idle_ms = proxy.profile.http.as_ref().map_or(0, |http| http.reuse.idle_ms);
                after(proxy.began, idle_ms)
            }
            Layer::Verify(_) => self.deadline_of_verify(proxy),
            Layer::Shadow(_) => {
                after(proxy.began, proxy.profile.http.as_ref().map_or(0, |http| http.timeouts.response_ms))
            }
            // It has had our answer for that long, and goes on as if it had not.
            Layer::Closing(1) => after(proxy.active, self.fin_wait_ms(proxy).min(LINGER_MS)),
            Layer::Closing(_) => after(proxy.active, self.fin_wait_ms(proxy)),
        }
    }

    fn deadline_of_stream(&self, proxy: &Proxy, stream: &Stream) -> Option<Instant> {
        let (since, ms) = match stream.phase {
            Phase::Choosing => return Some(self.wait_of(proxy, stream.since)),
            Phase::Connecting => (stream.since, proxy.profile.server_tcp.connect_ms),
            Phase::Passing if stream.closed != [false; 2] => (proxy.active, self.fin_wait_ms(proxy)),
            Phase::Passing if stream.is_tunnel => (
                proxy.active,
                proxy.profile.http.as_ref().map_or(FIRST_BYTE_MS, |http| http.timeouts.tunnel_ms),
            ),
            Phase::Passing => (proxy.active, self.idle_timeout_ms(proxy)),
        };
        Some(since + Duration::from_millis(u64::from(ms)))
    }

    /// As long as the member's handshake may take and the client's.
    fn deadline_of_verify(&self, proxy: &Proxy) -> Option<Instant> {
        let flow = Flow { virtual_id: proxy.virtual_id, protocol: 6, ..bytemuck::Zeroable::zeroed() };
        let ms = proxy.profile.server_tcp.connect_ms.saturating_add(self.timeouts(&flow).handshake_ms);
        Some(proxy.began + Duration::from_millis(u64::from(ms)))
    }

    fn fin_wait_ms(&self, proxy: &Proxy) -> u32 {
        proxy.profile.client_tcp.fin_wait_ms.max(proxy.profile.server_tcp.fin_wait_ms)
    }

    fn idle_timeout_ms(&self, proxy: &Proxy) -> u32 {
        let flow = Flow { virtual_id: proxy.virtual_id, protocol: 6, ..bytemuck::Zeroable::zeroed() };
        self.timeouts(&flow).idle_ms
    }

    /// By how much it has waited too long; `None` when it has not. Its timer would have fired, so that there is nothing to
    /// look at before.
    pub(crate) fn overdue_by(&self, proxy: &Proxy) -> Option<Duration> {
        if self.is_behind || proxy.armed.is_some_and(|at| at > self.now) {
            return None;
        }
        self.deadline_of(proxy).filter(|due| *due <= self.now).map(|due| self.now.since(due))
    }

    /// Does what too long a wait leads to.
    #[cold]
    pub(crate) fn on_deadline(&mut self, proxy: &mut Proxy) {
        match &proxy.layer {
            Layer::Header | Layer::Shadow(_) | Layer::Closing(_) => self.cut(proxy),
            Layer::Verify(_) => self.end_verify(proxy),
            Layer::Stream(stream) => match stream.phase {
                Phase::Choosing => {}
                // The member counts as one that has refused.
                Phase::Connecting => {
                    proxy.server.into_iter().for_each(|conn| self.proxies.engine.abort(conn));
                }
                // WebSocket's own keep-alive belongs to its ends: to them this is a peer that hangs up.
                Phase::Passing if stream.is_tunnel && stream.closed == [false; 2] => self.close_both(proxy),
                Phase::Passing => self.cut(proxy),
            },
            Layer::Http(_) => self.on_http_deadline(proxy),
            Layer::Idle(idle) => {
                let idle = *idle;
                self.remove_idle(&idle);
                proxy.server.into_iter().for_each(|conn| self.proxies.engine.close(conn));
                (proxy.layer, proxy.active) = (Layer::Closing(0), self.now);
            }
        }
    }
}

/// How long a PROXY header may take.
const FIRST_BYTE_MS: u32 = 5_000;
/// How long a client that does not stop sending may take to read our answer.
const LINGER_MS: u32 = 2_000;
/// When something is looked at again that comes about by itself.
pub(crate) const RETRY_MS: u32 = 50;
