//! What is counted and logged of requests and connections.

use super::Proxy;
use super::http::exchange::Exchange;
use crate::pipeline::Pipeline;

impl Pipeline {
    /// A request's head is complete.
    pub(crate) fn count_request(&self, proxy: &Proxy) {
        if let Some(counters) = self.counters.of_virtual(proxy.virtual_id) {
            counters.http.requests.add(1);
        }
    }

    /// A request goes to another member, or over another connection.
    pub(crate) fn count_retry(&self, proxy: &Proxy) {
        if let Some(counters) = self.counters.of_virtual(proxy.virtual_id) {
            counters.http.retries.add(1);
        }
    }

    /// Something is no request.
    pub(crate) fn count_refused(&self, proxy: &Proxy) {
        if let Some(counters) = self.counters.of_virtual(proxy.virtual_id) {
            counters.http.refused.add(1);
        }
    }

    /// A request went over a connection that had waited.
    pub(crate) fn count_reused(&self, proxy: &Proxy) {
        if let Some(counters) = self.counters.of_virtual(proxy.virtual_id) {
            counters.http.reused.add(1);
        }
    }

    /// An exchange is over.
    pub(crate) fn log_exchange(&mut self, proxy: &Proxy, exchange: &Exchange) {
        if let Some(counters) = self.counters.of_virtual(proxy.virtual_id) {
            let class = usize::from(exchange.facts.status / 100).wrapping_sub(1);
            if let Some(counter) = counters.http.responses.get(class) {
                counter.add(1);
            }
        }
    }

    /// A connection without HTTP is over.
    pub(crate) fn log_connection(&mut self, proxy: &mut Proxy) {
        let _ = proxy;
    }
}
