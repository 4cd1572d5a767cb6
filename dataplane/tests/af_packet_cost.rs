//! What a packet costs in the `af_packet` port, in processor time of the thread that pays it. A measurement, not a
//! check: `cargo test --profile lab -p sluice-dataplane --test af_packet_cost -- --ignored --nocapture`.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[expect(dead_code, reason = "shared with other tests")]
mod lab;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::Place;
use lab::craft::{ethernet, unfinished};
use sluice_dataplane::frame::{Frame, FramePool, SegmentKind};
use sluice_dataplane::port::PortQueue;
use sluice_ffi::wait::wait_readable;

const ROUNDS: usize = 40;
const ROUND: usize = 5000;

#[test]
#[ignore = "a measurement"]
fn small_frames() {
    let Some(source) = Place::new("small_frames") else { return };
    let (sluice, sink) = (Place::new("sluice").unwrap(), Place::new("sink").unwrap());
    source.cable("eth0", &sluice, "left");
    sluice.cable("right", &sink, "eth0");
    let (mut from, mut left, mut right) = (source.queue("eth0"), sluice.queue("left"), sluice.queue("right"));
    let to = sluice.mac("left");
    let mut costs = [0; 4];
    for round in 0..=ROUNDS {
        let pool = FramePool::new(64);
        let make = |index: usize| small(&pool, to, index as u16);
        let empty = cost(|| (0..ROUND).for_each(|_| assert_eq!(left.rx(&mut Vec::new()), 0)));
        let fill = cost(|| blast(from.as_mut(), ROUND, make));
        let mut frames = Vec::with_capacity(64);
        let half = cost(|| assert_eq!(drain(left.as_mut(), &mut frames, ROUND), ROUND));
        blast(from.as_mut(), ROUND, make);
        let whole = cost(|| carry(left.as_mut(), right.as_mut(), &mut frames, ROUND));
        if round > 0 {
            for (total, cost) in costs.iter_mut().zip([empty, fill, half, whole]) {
                *total += cost;
            }
        }
    }
    let names = ["empty rx", "build, tx and the other side's softirq", "rx", "rx and tx across"];
    for (name, total) in names.iter().zip(costs) {
        println!("{name}: {} ns", total / (ROUND * ROUNDS) as u64);
    }
    assert_eq!(left.counters().rx_missed, 0);
}

#[test]
#[ignore = "a measurement"]
fn kernel_tcp_through_two_ports() {
    let Some(client) = Place::new("kernel_tcp_through_two_ports") else { return };
    let (sluice, server) = (Place::new("sluice").unwrap(), Place::new("server").unwrap());
    sluice.cable("left", &client, "eth0");
    sluice.cable("right", &server, "eth0");
    client.ip("addr add 192.0.2.1/24 dev eth0");
    server.ip("addr add 192.0.2.2/24 dev eth0");
    let (mut left, mut right) = (sluice.queue("left"), sluice.queue("right"));
    let (listener, stop) =
        (server.within(|| TcpListener::bind("192.0.2.2:80").unwrap()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let bridge = scope.spawn(|| {
            let (mut frames, mut moved) = (Vec::with_capacity(64), [0, 0]);
            let spent = cost(|| {
                while !stop.load(Ordering::Relaxed) {
                    let before = moved[0];
                    pass(left.as_mut(), right.as_mut(), &mut frames, &mut moved);
                    pass(right.as_mut(), left.as_mut(), &mut frames, &mut moved);
                    if moved[0] == before {
                        let fds = [left.wait_fd().unwrap(), right.wait_fd().unwrap()];
                        wait_readable(&fds, Duration::from_millis(20));
                    }
                }
            });
            (moved, spent)
        });
        let sink =
            scope.spawn(|| std::io::copy(&mut listener.accept().unwrap().0, &mut std::io::sink()).unwrap());
        let started = Instant::now();
        let mut stream = client.within(|| TcpStream::connect("192.0.2.2:80").unwrap());
        (0..4000).for_each(|_| stream.write_all(&[7; 1 << 19]).unwrap());
        drop(stream);
        let bytes = sink.join().unwrap();
        let seconds = started.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        let ([frames, frame_bytes], spent) = bridge.join().unwrap();
        println!("{:.1} Gbit/s of kernel TCP", bytes as f64 * 8e-9 / seconds);
        println!("{frames} frames of {} bytes, {} ns each", frame_bytes / frames, spent as usize / frames);
    });
}

fn pass(from: &mut dyn PortQueue, to: &mut dyn PortQueue, frames: &mut Vec<Frame>, moved: &mut [usize; 2]) {
    from.rx(frames);
    moved[0] += frames.len();
    moved[1] += frames.iter().map(Frame::len).sum::<usize>();
    while !frames.is_empty() {
        to.tx(frames);
    }
}

fn small(pool: &FramePool, to: [u8; 6], port: u16) -> Frame {
    let link = ethernet(to, [2, 0, 0, 0, 0, 1], None, 0x0800);
    let mut frame = unfinished(pool, &link, SegmentKind::Udp, &[0; 18], 0);
    frame.bytes_mut()[34..36].copy_from_slice(&port.to_be_bytes());
    frame
}

fn blast(queue: &mut dyn PortQueue, count: usize, make: impl Fn(usize) -> Frame) {
    let mut frames = Vec::with_capacity(32);
    for index in 0..count {
        frames.push(make(index));
        while frames.len() == 32 || index + 1 == count && !frames.is_empty() {
            queue.tx(&mut frames);
        }
    }
}

fn drain(queue: &mut dyn PortQueue, frames: &mut Vec<Frame>, wanted: usize) -> usize {
    let mut count = 0;
    while count < wanted {
        count += queue.rx(frames);
        frames.clear();
    }
    count
}

fn carry(from: &mut dyn PortQueue, to: &mut dyn PortQueue, frames: &mut Vec<Frame>, wanted: usize) {
    let mut count = 0;
    while count < wanted {
        count += from.rx(frames);
        while !frames.is_empty() {
            to.tx(frames);
        }
    }
}

/// Processor time that this thread spends on `work`, in nanoseconds.
fn cost(work: impl FnOnce()) -> u64 {
    let now = || {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        stat.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let before = now();
    work();
    now() - before
}
