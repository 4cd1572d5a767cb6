//! What the dpdk driver costs over bare bursts: cycles a packet, received and sent again.
//!
//! `cargo run --release -p sluice-dataplane --features dpdk --example dpdk_cost -- net_null0 net_ring0`

use std::hint::black_box;

use sluice_dataplane::frame::{BURST_MAX, Frame, FramePool};
use sluice_dataplane::port::{self, DriverSpec, PortSpec};
use sluice_ffi::dpdk::{Burst, Eal, EthDev, HashPlan, Mempool};
use sluice_ffi::tsc::cycles;

fn main() {
    let mut devices: Vec<String> = std::env::args().skip(1).collect();
    if devices.is_empty() {
        devices = ["net_null0,copy=0", "net_ring0"].map(String::from).into();
    }
    let spec = |device: &String| PortSpec {
        name: "cost".into(),
        driver: DriverSpec::Dpdk { device: device.clone() },
        fault: None,
        pcap: None,
    };
    let specs: Vec<PortSpec> = devices.iter().map(spec).collect();
    port::prepare(&specs, &[]).expect("DPDK starts");
    let _worker = port::enter_worker();
    for (device, spec) in devices.iter().zip(&specs) {
        let bare = best(&mut bare(device));
        let frames = best(&mut through_frames(spec));
        println!(
            "{device}: bursts {bare:.1}, driver {frames:.1}, difference {:.1} cycles a packet",
            frames - bare
        );
    }
}

/// Bursts of mbufs, forwarded as they are.
fn bare(device: &str) -> impl FnMut() -> usize {
    let eal = Eal::running().expect("DPDK runs");
    let found = EthDev::open(eal, device).expect("device");
    let pool = Mempool::new(eal, 4096, found.room_bytes(), found.socket()).expect("memory");
    let started = found.start(std::slice::from_ref(&pool), &HashPlan::NONE).expect("start");
    let (mut rx, mut tx) = started.queues.into_iter().next().expect("one queue");
    let mut burst = Burst::new();
    for _ in 0..BURST_MAX {
        let _ = burst.push(pool.copy_of(&[0; 64]).expect("an mbuf"));
    }
    tx.tx(&mut burst);
    move || {
        rx.rx(BURST_MAX, |mbuf| {
            let _ = burst.push(mbuf);
        });
        tx.tx(&mut burst)
    }
}

/// The same through the port's queue.
fn through_frames(spec: &PortSpec) -> impl FnMut() -> usize {
    let pool = FramePool::new(BURST_MAX);
    let mut queue = port::open(spec, std::slice::from_ref(&pool)).expect("port").queues.remove(0);
    let mut frames: Vec<Frame> = (0..BURST_MAX).filter_map(|_| pool.copy_of(&[0; 64])).collect();
    queue.tx(&mut frames);
    let mut frames = Vec::with_capacity(BURST_MAX);
    move || {
        queue.rx(&mut frames);
        queue.tx(black_box(&mut frames))
    }
}

/// The best of several runs: the machine is shared.
fn best(turn: &mut impl FnMut() -> usize) -> f64 {
    let run = |turn: &mut dyn FnMut() -> usize| {
        let (start, mut packets) = (cycles(), 0usize);
        (0..20_000).for_each(|_| packets += turn());
        (cycles() - start) as f64 / packets.max(1) as f64
    };
    (0..20).map(|_| run(turn)).fold(f64::INFINITY, f64::min)
}
