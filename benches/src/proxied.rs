//! A full proxy on a memory port, with a client and a member at the other end of its wire, on a clock that only the bench
//! moves.
//!
//! ```text
//!   client 198.18.4.1 ──▶ 10.1.0.100:80 │ sluice 10.1.0.10 │ ──▶ 10.1.1.1:5353 member      one link, both are [`Hosts`]
//! ```
//!
//! Nothing is lost or reordered, and checksums are left to the port, as a NIC would have it: what is counted is the proxy.

use std::sync::Arc;
use std::time::Duration;

use sluice_dataplane::address::{Address, Mac};
use sluice_dataplane::clock::Instant;
use sluice_dataplane::config::proxy::{HttpProfile, ProxyProfile};
use sluice_dataplane::config::snapshot::{Parts, Protocol, VirtualKind};
use sluice_dataplane::counters::WorkerCounters;
use sluice_dataplane::flow::key::HashSeed;
use sluice_dataplane::frame::BURST_MAX;
use sluice_dataplane::port::{PortQueue, memory};
use sluice_dataplane::verdict::DropReason;
use sluice_dataplane::worker::Worker;
use sluice_ffi::memory::Backing;

use crate::hosts::{Exchange, Hosts, PORTS_FIRST};
use crate::scenario::{self, VIRTUAL_IP};

/// What the proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// `http: {}`.
    Http,
    /// Bytes as they are.
    Stream,
}

/// The worker and both of its neighbours.
pub struct ProxiedWorker {
    worker: Worker,
    hosts: Hosts,
    counters: Arc<WorkerCounters>,
    now: Instant,
    /// The client's port that is used next.
    next: u16,
}

impl ProxiedWorker {
    /// Without a connection. The client's requests ask that its connection be closed when `closes`.
    ///
    /// # Panics
    /// When the kernel has no descriptor left.
    pub fn new(layer: Layer, closes: bool) -> Self {
        let (queue, peer) = memory::pair(WIRE_FRAMES);
        let port: (_, Box<dyn PortQueue>) = (memory::info("wire", US), Box::new(queue));
        let spec = scenario::worker(parts(layer), 1, 1, None, port);
        let counters = Arc::clone(&spec.counters);
        let worker = Worker::with_tables(spec, HashSeed::fixed(11), Backing::Auto);
        let hosts = Hosts::new(peer, US, Exchange { is_http: layer == Layer::Http, closes });
        let mut proxied = Self { worker, hosts, counters, now: Instant::from_ms(1_000), next: 0 };
        // Announcements of the start.
        for _ in 0..100 {
            proxied.pass(20);
        }
        proxied.hosts.introduce();
        proxied.pass(1);
        proxied
    }

    /// With `connections` of the client open, each of which has had an answer.
    ///
    /// # Panics
    /// When one has not.
    pub fn with_connections(layer: Layer, connections: u16) -> Self {
        let mut proxied = Self::new(layer, false);
        for first in (0..connections).step_by(BURST_MAX) {
            let ports = first..connections.min(first + BURST_MAX as u16);
            proxied.exchange(ports.len(), |hosts| ports.for_each(|port| hosts.open(PORTS_FIRST + port)));
        }
        proxied
    }

    /// 32 requests on connections that are open, one each, and their answers.
    ///
    /// # Panics
    /// When an answer does not come.
    pub fn turn_requests(&mut self, connections: u16) {
        let first = self.next;
        self.next = (first + BURST_MAX as u16) % connections;
        self.exchange(BURST_MAX, |hosts| {
            (0..BURST_MAX as u16).for_each(|number| hosts.ask(PORTS_FIRST + (first + number) % connections));
        });
    }

    /// 32 connections that are opened, have one answer, and are closed by the proxy.
    ///
    /// # Panics
    /// When an answer does not come.
    pub fn turn_connections(&mut self) {
        let first = self.next;
        self.next = (first + BURST_MAX as u16) % PORTS;
        self.exchange(BURST_MAX, |hosts| {
            (0..BURST_MAX as u16).for_each(|number| hosts.open(PORTS_FIRST + first + number));
        });
        // So that TIME-WAIT ends for as many as begin it.
        self.pass(CONNECTIONS_APART_MS);
    }

    /// [`ProxiedWorker::turn_requests`], to be called over and over.
    pub fn into_requests(mut self, connections: u16) -> Box<dyn FnMut()> {
        Box::new(move || self.turn_requests(connections))
    }

    /// [`ProxiedWorker::turn_connections`], to be called over and over.
    pub fn into_connections(mut self) -> Box<dyn FnMut()> {
        Box::new(move || self.turn_connections())
    }

    /// Answers that the client has had in whole.
    pub fn answered(&self) -> u64 {
        self.hosts.answered
    }

    /// What the worker has dropped, by reason.
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        let all = DropReason::ALL.iter().map(|&reason| (reason.name(), self.counters.of_drop(reason).load()));
        all.filter(|&(_, count)| count > 0).collect()
    }

    /// Lets `begin` send, and carries frames until `count` more answers have come and nobody has more to say.
    fn exchange(&mut self, count: usize, begin: impl FnOnce(&mut Hosts)) {
        let wanted = self.hosts.answered + count as u64;
        begin(&mut self.hosts);
        for _ in 0..TURNS_MAX {
            let is_quiet = !self.pass(0);
            if is_quiet && self.hosts.answered >= wanted {
                self.now = self.now + Duration::from_millis(1);
                return;
            }
        }
        let missing = wanted.saturating_sub(self.hosts.answered);
        panic!("{missing} answers missing; resets {}, drops {:?}", self.hosts.resets, self.drops());
    }

    /// One turn of the worker, `ms` milliseconds later. True when frames came out of it.
    fn pass(&mut self, ms: u64) -> bool {
        self.now = self.now + Duration::from_millis(ms);
        self.worker.turn(self.now);
        self.hosts.handle_all()
    }
}

fn parts(layer: Layer) -> Parts {
    let mut parts = scenario::parts();
    parts.pools[0].members.truncate(1);
    let mut server = scenario::virtual_server(0, Address::v4(VIRTUAL_IP), 80, Protocol::Tcp);
    let http = (layer == Layer::Http).then(HttpProfile::default);
    server.kind = VirtualKind::Standard;
    server.proxy = Some(Arc::new(ProxyProfile { http, ..ProxyProfile::default() }));
    parts.virtuals = vec![server];
    parts
}

const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
/// A burst of connections with all that either side says at once.
const WIRE_FRAMES: usize = 8 * BURST_MAX;
/// Ports of the client that new connections take turns with: longer than TIME-WAIT lasts.
const PORTS: u16 = 16_384;
/// 1,500 connections a second, and 8,000 of them in TIME-WAIT.
const CONNECTIONS_APART_MS: u64 = 20;
/// Far more than the segments that follow each other in an exchange.
const TURNS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_on_open_connections_are_answered() {
        for layer in [Layer::Http, Layer::Stream] {
            let mut proxied = ProxiedWorker::with_connections(layer, 64);
            for _ in 0..100 {
                proxied.turn_requests(64);
            }
            let seen = (proxied.answered(), proxied.hosts.resets, proxied.hosts.strange, proxied.drops());
            assert_eq!(seen, (64 + 3_200, 0, 0, vec![]), "{layer:?}");
        }
    }

    #[test]
    fn connections_open_and_close() {
        let mut proxied = ProxiedWorker::new(Layer::Http, true);
        for _ in 0..600 {
            proxied.turn_connections();
        }
        let seen = (proxied.answered(), proxied.hosts.resets, proxied.hosts.strange, proxied.drops());
        assert_eq!(seen, (19_200, 0, 0, vec![]));
        assert_eq!(proxied.hosts.open_clients(), 0, "all closed");
    }
}
