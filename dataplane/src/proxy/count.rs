//! What is counted and logged of requests and connections.

use super::Proxy;
use super::http::exchange::Exchange;
use crate::access_log::{AccessRecord, Part};
use crate::address::Address;
use crate::clock::Instant;
use crate::config::ids::MemberId;
use crate::counters::HttpCounters;
use crate::http::Version;
use crate::pipeline::Pipeline;

impl Pipeline {
    /// A request's head is complete.
    pub(crate) fn count_request(&self, proxy: &Proxy) {
        self.count_http(proxy, |counters| counters.requests.add(1));
    }

    /// A request goes to another member, or over another connection.
    pub(crate) fn count_retry(&self, proxy: &Proxy) {
        self.count_http(proxy, |counters| counters.retries.add(1));
    }

    /// Something is no request.
    pub(crate) fn count_refused(&self, proxy: &Proxy) {
        self.count_http(proxy, |counters| counters.refused.add(1));
    }

    /// A request goes over a connection that had waited.
    pub(crate) fn count_reused(&self, proxy: &Proxy) {
        self.count_http(proxy, |counters| counters.reused.add(1));
    }

    fn count_http(&self, proxy: &Proxy, count: impl FnOnce(&HttpCounters)) {
        if let Some(counters) = self.counters.of_virtual(proxy.virtual_id) {
            count(&counters.http);
        }
    }

    /// An exchange is over.
    pub(crate) fn log_exchange(&mut self, proxy: &Proxy, exchange: &Exchange) {
        let class = usize::from(exchange.facts.status / 100).wrapping_sub(1);
        self.count_http(proxy, |counters| {
            counters.responses.get(class).into_iter().for_each(|each| each.add(1));
        });
        if !proxy.profile.access_log {
            return;
        }
        let Some(mut record) = self.access_log.begin() else { return };
        self.describe(&mut record, proxy, exchange.facts.began);
        let facts = &exchange.facts;
        let (asked, answered) = (facts.asked.unwrap_or(facts.began), facts.answered);
        record.first_byte_ns = answered.map_or(0, |at| at.since(asked).as_nanos() as u64);
        (record.status, record.outcome) = (facts.status, facts.outcome);
        [record.received, record.sent] = facts.bytes;
        record.http_minor = Some(if exchange.request.version() == Version::Http11 { 1 } else { 0 });
        (record.member_id, record.member) = exchange.served_by.unwrap_or((MemberId::NONE, NOBODY));
        self.write_texts(&mut record, proxy, exchange);
        self.access_log.submit(record);
    }

    fn write_texts(&self, record: &mut AccessRecord, proxy: &Proxy, exchange: &Exchange) {
        let (text, request) = (&mut record.text, &exchange.request);
        text.put(Part::Method, request.method_name());
        text.put(Part::Host, request.received_authority());
        text.put(Part::Path, &exchange.asked_for);
        text.put(Part::UserAgent, request.fields.get(b"user-agent").unwrap_or_default());
        text.put(Part::Referer, request.fields.get(b"referer").unwrap_or_default());
        let rules = proxy.profile.http.as_ref().map(|http| &http.routes.rules);
        let route = rules.and_then(|rules| rules.get(exchange.route?));
        text.put(Part::Route, route.map_or(&[][..], |route| route.name.as_bytes()));
    }

    /// A connection without HTTP is over.
    pub(crate) fn log_connection(&mut self, proxy: &Proxy) {
        if !proxy.profile.access_log || proxy.profile.http.is_some() || !proxy.is_counted {
            return;
        }
        let Some(mut record) = self.access_log.begin() else { return };
        self.describe(&mut record, proxy, proxy.began);
        [record.received, record.sent] = proxy.bytes;
        (record.member_id, record.member) = proxy.served_by.unwrap_or((MemberId::NONE, NOBODY));
        record.outcome = if proxy.was_cut { "cut" } else { "done" };
        self.access_log.submit(record);
    }

    fn describe(&self, record: &mut AccessRecord, proxy: &Proxy, began: Instant) {
        record.virtual_id = proxy.virtual_id;
        record.client = (proxy.origin.src, proxy.origin.src_port);
        record.destination = (proxy.origin.dst, proxy.origin.dst_port);
        record.began_ns = began.as_ns();
        record.duration_ns = self.now.since(began).as_nanos() as u64;
    }
}

const NOBODY: (Address, u16) = (Address::UNSPECIFIED, 0);
