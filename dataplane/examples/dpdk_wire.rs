//! Two processes and a wire: one swaps addresses and sends back, the other floods and counts.
//!
//! ```text
//!   dpdk_wire echo     net_memif0,role=server,socket=wire,socket-abstract=yes 20
//!   dpdk_wire generate net_memif0,role=client,socket=wire,socket-abstract=yes 10
//! ```
//!
//! The last number is seconds. The memif server must be there first. `SLUICE_CORE` pins to a processor.

use std::time::{Duration, Instant};

use sluice_dataplane::frame::{BURST_MAX, Frame, FramePool};
use sluice_dataplane::port::{self, DriverSpec, PortQueue, PortSpec};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [role, device, seconds] = &args[..] else { panic!("usage: dpdk_wire echo|generate DEVICE SECONDS") };
    let end = Duration::from_secs(seconds.parse().expect("seconds"));
    let driver = DriverSpec::Dpdk { device: device.clone() };
    let spec = PortSpec { name: "wire".into(), driver, fault: None, pcap: None };
    port::prepare(std::slice::from_ref(&spec), &[]).unwrap_or_else(|error| panic!("{error}"));
    if let Some(id) = std::env::var("SLUICE_CORE").ok().and_then(|core| core.parse().ok()) {
        core_affinity::set_for_current(core_affinity::CoreId { id });
    }
    let _worker = port::enter_worker();
    let pool = FramePool::new(BURST_MAX);
    let opened = port::open(&spec, std::slice::from_ref(&pool));
    let mut queue = opened.unwrap_or_else(|error| panic!("{error}")).queues.remove(0);
    let deadline = Instant::now() + end;
    while !queue.is_link_up() {
        assert!(Instant::now() < deadline, "nobody is at the other end");
        std::thread::sleep(Duration::from_millis(1));
    }
    match role.as_str() {
        "echo" => echo(&mut *queue, deadline),
        _ => generate(&mut *queue, &pool, deadline),
    }
}

/// As testpmd's macswap.
fn echo(queue: &mut dyn PortQueue, deadline: Instant) {
    let mut frames = Vec::with_capacity(2 * BURST_MAX);
    let (mut packets, mut turns) = (0u64, 0u64);
    while Instant::now() < deadline && (turns & 0xffff != 0 || queue.is_link_up()) {
        for _ in 0..64 {
            packets += queue.rx(&mut frames) as u64;
            for frame in &mut frames {
                if let Some((target, source)) = frame.bytes_mut()[..12].split_at_mut_checked(6) {
                    target.swap_with_slice(source);
                }
            }
            queue.tx(&mut frames);
            frames.clear();
        }
        turns += 1;
    }
    println!("echo: {packets} packets, {:?}", queue.counters());
}

/// Keeps a fixed number of packets on the wire: what comes back goes out again.
fn generate(queue: &mut dyn PortQueue, pool: &FramePool, deadline: Instant) {
    let mut frames: Vec<Frame> = Vec::with_capacity(IN_FLIGHT);
    for _ in 0..IN_FLIGHT / BURST_MAX {
        let mut burst: Vec<Frame> = (0..BURST_MAX).filter_map(|_| pool.copy_of(&[2; 60])).collect();
        queue.rx(&mut frames);
        while queue.tx(&mut burst) > 0 {}
    }
    let (start, mut packets) = (Instant::now(), 0u64);
    while Instant::now() < deadline {
        for _ in 0..64 {
            packets += queue.rx(&mut frames) as u64;
            queue.tx(&mut frames);
        }
    }
    let rate = packets as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!("generate: {packets} packets came back, {rate:.2} Mpps, {:?}", queue.counters());
}

const IN_FLIGHT: usize = 512;
