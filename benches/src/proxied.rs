//! A full proxy on a memory port, with a client and a member at the other end of its wire, on a clock that only the bench
//! moves.
//!
//! ```text
//!   clients 198.18.0.0/15 ──▶ 10.1.0.100:53 │ sluice 10.1.0.10 │ ──▶ 10.1.1.1:5353 member      one link, all are [`Hosts`]
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
use sluice_dataplane::port::{PortQueue, memory};
use sluice_dataplane::verdict::DropReason;
use sluice_dataplane::worker::Worker;
use sluice_ffi::memory::Backing;

use crate::hosts::load::Load;
use crate::hosts::wire::MemoryWire;
use crate::hosts::{self, Exchange, Hosts, Tally};
use crate::scenario::{self, VIRTUAL_IP, VIRTUAL_PORT};

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
    load: Load<MemoryWire>,
    counters: Arc<WorkerCounters>,
    now: Instant,
    /// The client that is next.
    next: u16,
}

impl ProxiedWorker {
    /// Without a connection; answers have 128 bytes. Clients' requests ask that their connection be closed when `closes`.
    ///
    /// # Panics
    /// When the kernel has no descriptor left.
    pub fn new(layer: Layer, closes: bool) -> Self {
        let exchange = Exchange { is_http: layer == Layer::Http, closes, body_bytes: 128 };
        Self::with(exchange, &HttpProfile::default(), CLIENTS)
    }

    /// Without a connection of the `clients`; `http` is for exchanges that are HTTP.
    ///
    /// # Panics
    /// When the kernel has no descriptor left.
    pub fn with(exchange: Exchange, http: &HttpProfile, clients: u16) -> Self {
        let (queue, peer) = memory::pair(WIRE_FRAMES);
        let port: (_, Box<dyn PortQueue>) = (memory::info("wire", US), Box::new(queue));
        let http = exchange.is_http.then(|| http.clone());
        let spec = scenario::worker(parts(http), 1, 1, None, port);
        let counters = Arc::clone(&spec.counters);
        let worker = Worker::with_tables(spec, HashSeed::fixed(11), Backing::Auto);
        let hosts = Hosts::new(exchange, clients.into(), 1, (US, PEER));
        let load = Load { hosts, wire: MemoryWire::new(peer) };
        let mut proxied = Self { worker, load, counters, now: Instant::from_ms(1_000), next: 0 };
        // Announcements of the start.
        for _ in 0..100 {
            proxied.pass(20);
        }
        proxied.load.wire.introduce(hosts::member_address(0));
        proxied.pass(1);
        proxied
    }

    /// With `connections` of the client open, each of which has had an answer.
    ///
    /// # Panics
    /// When one has not.
    pub fn with_connections(layer: Layer, connections: u16) -> Self {
        let mut proxied = Self::new(layer, false);
        for first in (0..connections).step_by(TOGETHER) {
            let clients = first..connections.min(first + TOGETHER as u16);
            proxied.exchange(clients.len(), |hosts| clients.for_each(|client| hosts.begin(client.into())));
        }
        proxied
    }

    /// 32 requests on connections that are open, one each, and their answers.
    ///
    /// # Panics
    /// When an answer does not come.
    pub fn turn_requests(&mut self, connections: u16) {
        let first = self.next;
        self.next = (first + TOGETHER as u16) % connections;
        self.exchange(TOGETHER, |hosts| {
            (0..TOGETHER as u16).for_each(|number| hosts.begin(usize::from((first + number) % connections)));
        });
    }

    /// 32 connections that are opened, have one answer, and are closed by the proxy.
    ///
    /// # Panics
    /// When an answer does not come.
    pub fn turn_connections(&mut self) {
        let first = self.next;
        self.next = (first + TOGETHER as u16) % CLIENTS;
        self.exchange(TOGETHER, |hosts| {
            (0..TOGETHER as u16).for_each(|number| hosts.begin(usize::from(first + number)));
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

    /// A turn of everybody, as on a real wire: every client that waits for nothing asks. `ms` milliseconds pass.
    pub fn turn_all(&mut self, ms: u64) {
        self.load.turn(true);
        self.now = self.now + Duration::from_millis(ms);
        self.worker.turn(self.now);
    }

    /// Answers that clients have had in whole.
    pub fn answered(&self) -> u64 {
        self.tally().answered
    }

    /// What has come of clients' requests.
    pub fn tally(&self) -> Tally {
        self.load.hosts.tally()
    }

    /// What the worker has dropped, by reason.
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        let all = DropReason::ALL.iter().map(|&reason| (reason.name(), self.counters.of_drop(reason).load()));
        all.filter(|&(_, count)| count > 0).collect()
    }

    /// Lets `begin` send, and carries frames until `count` more answers have come and nobody has more to say.
    fn exchange(&mut self, count: usize, begin: impl FnOnce(&mut Hosts)) {
        let wanted = self.answered() + count as u64;
        begin(&mut self.load.hosts);
        self.load.turn(false);
        for _ in 0..TURNS_MAX {
            let is_quiet = !self.pass(0);
            if is_quiet && self.answered() >= wanted {
                self.now = self.now + Duration::from_millis(1);
                return;
            }
        }
        let missing = wanted.saturating_sub(self.answered());
        panic!("{missing} answers missing; {:?}, drops {:?}", self.tally(), self.drops());
    }

    /// One turn of the worker, `ms` milliseconds later, and of the hosts. True when frames came out of either.
    fn pass(&mut self, ms: u64) -> bool {
        self.now = self.now + Duration::from_millis(ms);
        self.worker.turn(self.now);
        self.load.turn(false) > 0
    }
}

fn parts(http: Option<HttpProfile>) -> Parts {
    let mut parts = scenario::parts();
    parts.pools[0].members.truncate(1);
    let mut server = scenario::virtual_server(0, Address::v4(VIRTUAL_IP), VIRTUAL_PORT, Protocol::Tcp);
    server.kind = VirtualKind::Standard;
    server.proxy = Some(Arc::new(ProxyProfile { http, ..ProxyProfile::default() }));
    parts.virtuals = vec![server];
    parts
}

const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
const PEER: Mac = Mac([2, 0, 0, 0, 0, 0xc]);
/// Exchanges that begin in the same turn.
pub const TOGETHER: usize = 32;
/// As many connections with all that either side says at once.
const WIRE_FRAMES: usize = 8 * TOGETHER;
/// Clients that new connections take turns with: longer than TIME-WAIT lasts.
const CLIENTS: u16 = 16_384;
/// 1,500 connections a second, and 8,000 of them in TIME-WAIT.
const CONNECTIONS_APART_MS: u64 = 20;
/// Far more than the segments that follow each other in an exchange.
const TURNS_MAX: usize = 64;
#[cfg(test)]
const TURNS_LARGE: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// What is to have come of it: so many answers over so many connections, and nothing else.
    fn clean(answered: u64, opened: u64, proxied: &ProxiedWorker) -> Tally {
        assert_eq!(proxied.drops(), vec![]);
        Tally { answered, opened, accepted: proxied.tally().accepted, ..Tally::default() }
    }

    #[test]
    fn requests_on_open_connections_are_answered() {
        for layer in [Layer::Http, Layer::Stream] {
            let mut proxied = ProxiedWorker::with_connections(layer, 64);
            for _ in 0..100 {
                proxied.turn_requests(64);
            }
            assert_eq!(proxied.tally(), clean(64 + 3_200, 64, &proxied), "{layer:?}");
        }
    }

    #[test]
    fn connections_open_and_close() {
        let mut proxied = ProxiedWorker::new(Layer::Http, true);
        for _ in 0..600 {
            proxied.turn_connections();
        }
        assert_eq!(proxied.tally(), clean(19_200, 19_200, &proxied));
        assert_eq!(proxied.load.hosts.open_clients(), 0, "all closed");
    }

    #[test]
    fn large_answers_come_whole() {
        for (is_http, clients) in [(true, 1), (true, 16), (false, 16)] {
            let exchange = Exchange { is_http, closes: false, body_bytes: 1 << 20 };
            let mut proxied = ProxiedWorker::with(exchange, &HttpProfile::default(), clients);
            for _ in 0..TURNS_LARGE {
                proxied.turn_all(0);
            }
            while proxied.load.hosts.busy_clients() > 0 {
                proxied.pass(0);
            }
            let answered = proxied.answered();
            assert!(answered > 2 * u64::from(clients), "http {is_http}: {answered} answers");
            assert_eq!(proxied.tally(), clean(answered, clients.into(), &proxied), "http {is_http}");
        }
    }

    #[test]
    fn a_connection_each_goes_on_and_on() {
        let exchange = Exchange { is_http: true, closes: true, body_bytes: 128 };
        let mut proxied = ProxiedWorker::with(exchange, &HttpProfile::default(), 64);
        while proxied.answered() < 10_000 {
            proxied.turn_all(1);
        }
        while proxied.load.hosts.busy_clients() > 0 {
            proxied.pass(0);
        }
        let answered = proxied.answered();
        assert_eq!(proxied.tally(), clean(answered, answered, &proxied));
    }

    #[test]
    fn a_connection_that_the_proxy_ends_is_opened_anew() {
        let exchange = Exchange { is_http: true, closes: false, body_bytes: 128 };
        let http = HttpProfile { requests_max: 100, ..HttpProfile::default() };
        let mut proxied = ProxiedWorker::with(exchange, &http, 1);
        while proxied.answered() < 250 {
            proxied.turn_all(1);
        }
        assert_eq!(proxied.tally(), clean(250, 3, &proxied));
    }
}
