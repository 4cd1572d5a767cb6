//! In steady state a worker allocates nothing.

use sluice_benches::steady::SteadyWorker;
use sluice_ffi::counting::{CountingAllocator, allocations};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// 100,000 packets.
const TURNS: u64 = 3_125;

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
    allocations_of(TURNS, || worker.turn_requests_in(10));
    let before = worker.forwarded();
    let requests = allocations_of(TURNS, || worker.turn_requests_in(10));
    let replies = allocations_of(TURNS, || worker.turn_replies());
    let forwarded = worker.forwarded() - before;
    println!("{requests} and {replies} allocations for {forwarded} packets; drops {:?}", worker.drops());
    assert!(forwarded >= 2 * 32 * TURNS, "every packet left");
    assert_eq!((requests, replies), (0, 0));
}

#[test]
fn opening_and_ending_flows_allocates_nothing() {
    let mut worker = SteadyWorker::new(10_000);
    for _ in 0..1_500 {
        worker.turn_new_flows();
    }
    let made = allocations_of(TURNS, || worker.turn_new_flows());
    println!("{made} allocations for {} new flows; drops {:?}", 32 * TURNS, worker.drops());
    assert_eq!(made, 0);
}

#[test]
fn reading_writing_and_routing_messages_allocates_nothing() {
    use sluice_benches::http;
    assert_eq!(allocations_of(1_000, http::request()), 0);
    assert_eq!(allocations_of(1_000, http::response()), 0);
    assert_eq!(allocations_of(1_000, http::chunks()), 0);
    assert_eq!(allocations_of(1_000, http::route(100)), 0);
}
