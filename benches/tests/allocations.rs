//! In steady state a worker allocates nothing.

use sluice_benches::proxied::{Layer, ProxiedWorker};
use sluice_benches::steady::SteadyWorker;
use sluice_dataplane::clock::Instant;
use sluice_dataplane::fragment::table::{Arrival, FragmentTable, PACKETS_MAX};
use sluice_dataplane::frame::BURST_MAX;
use sluice_dataplane::packet::fragment::Fragment;
use sluice_dataplane::packet::parse::{Packet, protocol};
use sluice_ffi::counting::{CountingAllocator, allocations};
use sluice_ffi::memory::Backing;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// 100,000 packets.
const TURNS: u64 = 400;

fn allocations_of(turns: u64, mut turn: impl FnMut()) -> u64 {
    let before = allocations();
    for _ in 0..turns {
        turn();
    }
    allocations() - before
}

#[test]
fn forwarding_allocates_nothing() {
    let mut worker = SteadyWorker::new(10_000);
    // Half a minute of the worker's clock passes, so that its periodic work is in it; and once before, because
    // frames for probes are made when first needed, and kept.
    allocations_of(TURNS, || worker.turn_requests_in(80));
    let before = worker.forwarded();
    let requests = allocations_of(TURNS, || worker.turn_requests_in(80));
    let replies = allocations_of(TURNS, || worker.turn_replies());
    let forwarded = worker.forwarded() - before;
    println!("{requests} and {replies} allocations for {forwarded} packets; drops {:?}", worker.drops());
    assert!(forwarded >= 2 * BURST_MAX as u64 * TURNS, "every packet left");
    assert_eq!((requests, replies), (0, 0));
}

#[test]
fn opening_and_ending_flows_allocates_nothing() {
    let mut worker = SteadyWorker::new(10_000);
    for _ in 0..200 {
        worker.turn_new_flows();
    }
    let made = allocations_of(TURNS, || worker.turn_new_flows());
    println!("{made} allocations for {} new flows", BURST_MAX as u64 * TURNS);
    assert_eq!((made, worker.drops()), (0, vec![]));
}

/// 64,000 requests over 64 connections; connections to members are made anew now and then, as they are used 1,000 times.
#[test]
fn requests_through_a_proxy_allocate_nothing() {
    for layer in [Layer::Http, Layer::Stream] {
        let mut proxied = ProxiedWorker::with_connections(layer, 64);
        allocations_of(4_000, || proxied.turn_requests(64));
        let before = proxied.answered();
        let made = allocations_of(2_000, || proxied.turn_requests(64));
        let answered = proxied.answered() - before;
        println!("{layer:?}: {made} allocations for {answered} requests; drops {:?}", proxied.drops());
        assert_eq!((answered, made), (64_000, 0), "{layer:?}");
    }
}

/// Fragments of a packet that comes whole, of one that does not, and of one that makes room for another.
#[test]
fn fragments_allocate_nothing() {
    let mut table = FragmentTable::new(Backing::Ordinary);
    let mut packet = Packet::BLANK;
    packet.key.protocol = protocol::UDP;
    let mut id = 0;
    let made = allocations_of(40 * PACKETS_MAX as u64, || {
        id += 1;
        for (offset, more) in [(0, true), (1_480, id % 2 == 0)] {
            let fragment = Fragment { packet, id, offset, len: 1_480, more };
            let arrival = table.arrive(&fragment, None, Instant::from_ms(u64::from(id / 8)));
            let Ok(Arrival::Known(entry)) = arrival else { panic!("{arrival:?}") };
            table.forget_if_whole(entry);
        }
    });
    assert_eq!((made, table.len()), (0, PACKETS_MAX));
}

#[test]
fn reading_writing_and_routing_messages_allocates_nothing() {
    use sluice_benches::http;
    assert_eq!(allocations_of(1_000, http::request()), 0);
    assert_eq!(allocations_of(1_000, http::response()), 0);
    assert_eq!(allocations_of(1_000, http::chunks()), 0);
    assert_eq!(allocations_of(1_000, http::route(100)), 0);
}
