//! The `dpdk` driver over virtual devices, without hugepages, root or NICs. One EAL for the whole binary.

use std::process::Command;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use sluice_dataplane::frame::{BURST_MAX, Checksum, Frame, FramePool, SegmentKind, Segmentation};
use sluice_dataplane::packet::checksum::{fold, sum};
use sluice_dataplane::port::{self, DriverSpec, OpenPort, PortError, PortQueue, PortSpec, Steering};
use sluice_ffi::dpdk::register_thread;

fn spec(device: &str) -> PortSpec {
    let driver = DriverSpec::Dpdk { device: device.into() };
    PortSpec { name: "wire".into(), driver, fault: None, pcap: None }
}

fn try_open(device: &str, queues: usize) -> Result<OpenPort, PortError> {
    let eal_args = ["--no-huge", "-m", "512", "--no-shconf", "--no-pci", "--no-telemetry"].map(String::from);
    port::prepare(&[spec(device)], &eal_args).expect("DPDK starts without hugepages");
    let pools: Vec<_> = (0..queues).map(|_| FramePool::new(64)).collect();
    port::open(&spec(device), &pools)
}

fn open(device: &str, queues: usize) -> OpenPort {
    try_open(device, queues).unwrap_or_else(|error| panic!("{error}"))
}

/// Both ends of a memif in this process.
fn memif_pair(number: usize, queues: usize, more: &str) -> (OpenPort, OpenPort) {
    let socket = format!("sluice-test-{}-{number}", std::process::id());
    let end = |role: &str, at: usize| {
        open(&format!("net_memif{at},role={role},id=0,socket={socket},socket-abstract=yes{more}"), queues)
    };
    let mut ends = (end("server", 2 * number), end("client", 2 * number + 1));
    wait_until("the memif connects", || ends.0.queues[0].is_link_up() && ends.1.queues[0].is_link_up());
    // A client offers the server room to send when it looks for frames, not before.
    for queue in &mut ends.1.queues {
        assert_eq!(queue.rx(&mut Vec::new()), 0);
    }
    ends
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Receives until `count` frames are there.
fn receive(queue: &mut dyn PortQueue, count: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    wait_until("frames arrive", || {
        queue.rx(&mut frames);
        frames.len() >= count
    });
    assert_eq!((frames.len(), queue.rx(&mut frames)), (count, 0));
    frames
}

/// `count` frames of `len` bytes, each with its number in front and a pattern behind.
fn numbered(pool: &FramePool, count: usize, len: usize) -> Vec<Frame> {
    (0..count).map(|number| pool.copy_of(&pattern(number, len)).expect("the pool has room")).collect()
}

fn pattern(number: usize, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|index| (index * 7 + number) as u8).collect();
    bytes[..4].copy_from_slice(&(number as u32).to_be_bytes());
    bytes
}

fn send_all(queue: &mut dyn PortQueue, mut frames: Vec<Frame>) {
    wait_until("frames leave", || {
        queue.tx(&mut frames);
        frames.is_empty()
    });
}

#[test]
fn frames_come_around_a_ring_unchanged_and_in_order() {
    let mut port = open("net_ring0", 1);
    assert_eq!((port.info.driver, port.info.queues, port.info.mtu), ("dpdk", 1, 1500));
    let pool = FramePool::new(100);
    let mut frames = numbered(&pool, 100, 60);
    assert_eq!(port.queues[0].tx(&mut frames), 100, "copies of heap frames");
    assert_eq!((frames.len(), pool.in_use()), (0, 0));
    let mut received = Vec::new();
    while port.queues[0].rx(&mut received) > 0 {}
    assert!(received.iter().all(Frame::is_mbuf));
    assert_eq!(port.queues[0].tx(&mut received), 100, "the same mbufs again");
    let received = receive(&mut *port.queues[0], 100);
    for (number, frame) in received.iter().enumerate() {
        assert_eq!(frame.bytes(), pattern(number, 60));
        assert_eq!(frame.offload.checksum, Checksum::Unchecked);
    }
    assert_eq!(port.queues[0].counters(), Default::default());
}

#[test]
fn a_full_device_leaves_frames_in_order() {
    let mut port = open("net_ring1", 1);
    let pool = FramePool::new(8192);
    let mut frames = numbered(&pool, 8192, 64);
    let mut next = 0;
    while next < 8192 {
        let before = frames.len();
        let taken = port.queues[0].tx(&mut frames);
        assert_eq!(frames.len(), before - taken);
        let mut received = Vec::new();
        while port.queues[0].rx(&mut received) > 0 {}
        assert!(!received.is_empty(), "it moves on");
        for frame in received {
            assert_eq!(frame.bytes(), pattern(next, 64));
            next += 1;
        }
    }
    assert!(frames.is_empty());
}

#[test]
fn partial_checksums_are_finished() {
    let mut port = open("net_ring2", 1);
    let mut bytes = vec![0; 12];
    bytes.extend([0x08, 0x00, 0x45]);
    bytes.resize(14 + 20 + 20 + 33, 0xa5);
    let mut frame = FramePool::new(1).copy_of(&bytes).unwrap();
    frame.bytes_mut()[50..52].copy_from_slice(&0x1234u16.to_be_bytes());
    frame.offload.checksum = Checksum::Partial { start: 34, offset: 16 };
    send_all(&mut *port.queues[0], vec![frame]);
    let received = receive(&mut *port.queues[0], 1);
    assert_eq!(
        fold(sum(&received[0].bytes()[34..]) + 0x1234),
        0xffff,
        "sums to all ones with its pseudo-header"
    );
    assert_eq!(received[0].bytes()[..50], bytes[..50]);
    assert_eq!(received[0].bytes()[52..], bytes[52..]);
}

#[test]
fn a_device_without_segmentation_gets_pieces_in_order() {
    let mut port = open("net_ring6", 1);
    let pool = FramePool::new(64);
    let around = |number| pool.copy_of(&pattern(number, 60)).expect("room");
    let whole = super_frame(&pool, 3000);
    let bytes = whole.bytes().to_vec();
    let mut frames = vec![around(1), whole, around(2)];
    assert_eq!((port.queues[0].tx(&mut frames), frames.len()), (3, 0), "counted as given");
    let received = receive(&mut *port.queues[0], 5);
    assert_eq!([received[0].bytes(), received[4].bytes()], [pattern(1, 60), pattern(2, 60)]);
    assert!(payload_of(&received[1..4]) == bytes[54..], "the payload is the same, in order");
    for piece in &received[1..4] {
        let pseudo = sum(&piece.bytes()[26..34]) + 6 + 1020;
        assert_eq!(fold(sum(&piece.bytes()[34..]) + pseudo), 0xffff);
    }
    assert_eq!((pool.in_use(), port.queues[0].counters()), (0, Default::default()));
}

#[test]
fn pieces_without_room_go_first_later() {
    let mut port = open("net_ring7", 1);
    let pool = FramePool::new(4096);
    let mut small = numbered(&pool, RING - 23, 60);
    assert_eq!(port.queues[0].tx(&mut small), RING - 23);
    let whole = super_frame(&pool, 50_000);
    let bytes = whole.bytes().to_vec();
    let mut frames = vec![whole, super_frame(&pool, 1500)];
    assert_eq!((port.queues[0].tx(&mut frames), frames.len()), (1, 1), "one is cut, the other waits");
    assert_eq!(port.queues[0].tx(&mut frames), 0);
    let mut received = Vec::new();
    // Receiving alone sends what waits: nobody may come with a frame behind it.
    while port.queues[0].rx(&mut received) > 0 {}
    assert_eq!(received.len(), RING - 23 + 50);
    assert!(payload_of(&received[RING - 23..]) == bytes[54..], "the payload is the same, in order");
    assert_eq!(port.queues[0].tx(&mut frames), 1);
    assert_eq!(receive(&mut *port.queues[0], 2).iter().map(Frame::len).sum::<usize>(), 1500 + 2 * 54);
}

/// Frames that a ring device holds.
const RING: usize = 1023;

/// TCP over IPv4 with segments of 1,000 bytes to be cut into.
fn super_frame(pool: &FramePool, payload: usize) -> Frame {
    let mut bytes = vec![0; 54 + payload];
    bytes[12..34].copy_from_slice(&[8, 0, 0x45, 0, 0, 0, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes[16..18].copy_from_slice(&(payload as u16 + 40).to_be_bytes());
    bytes[34..54].copy_from_slice(&[0x1f, 0x90, 0, 80, 0, 0, 0, 7, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    bytes[54..].iter_mut().zip(0u32..).for_each(|(byte, index)| *byte = (index / 3) as u8);
    let mut frame = pool.copy_of(&bytes).expect("room");
    frame.offload.checksum = Checksum::Partial { start: 34, offset: 16 };
    let cut = Segmentation { kind: SegmentKind::Tcp4, ecn: false, payload_bytes: 1000 };
    frame.offload.segmentation = Some(cut);
    frame
}

fn payload_of(pieces: &[Frame]) -> Vec<u8> {
    pieces.iter().flat_map(|piece| piece.bytes()[54..].to_vec()).collect()
}

#[test]
fn what_never_fits_is_dropped_and_counted() {
    let mut port = open("net_ring3", 1);
    let pool = FramePool::new(4);
    let mut frames: Vec<_> = [60, 1519, 13, 1518].map(|len| pool.copy_of(&pattern(len, len)).unwrap()).into();
    assert_eq!(port.queues[0].tx(&mut frames), 4);
    let received = receive(&mut *port.queues[0], 2);
    assert_eq!([received[0].len(), received[1].len()], [60, 1518]);
    assert_eq!(port.queues[0].counters().tx_errors, 2);
}

#[test]
fn each_queue_of_a_memif_meets_its_own_peer() {
    let (mut one, mut other) = memif_pair(0, 2, "");
    let pool = FramePool::new(512);
    for queue in 0..2 {
        send_all(&mut *one.queues[queue], numbered(&pool, 50 + queue, 1000));
        send_all(&mut *other.queues[queue], numbered(&pool, 20 + queue, 100));
    }
    for queue in 0..2 {
        let there = receive(&mut *other.queues[queue], 50 + queue);
        let back = receive(&mut *one.queues[queue], 20 + queue);
        assert!(there.iter().enumerate().all(|(number, frame)| frame.bytes() == pattern(number, 1000)));
        assert!(back.iter().enumerate().all(|(number, frame)| frame.bytes() == pattern(number, 100)));
    }
    let mut idle = Vec::new();
    drop(other);
    wait_until("the link goes down", || !one.queues[0].is_link_up());
    assert_eq!(one.queues[1].rx(&mut idle), 0);
}

#[test]
fn frames_in_pieces_are_put_together() {
    let (mut small, mut large) = memif_pair(1, 1, ",bsize=512");
    let pool = FramePool::new(8);
    send_all(&mut *small.queues[0], numbered(&pool, 3, 1500));
    let received = receive(&mut *large.queues[0], 3);
    assert!(received.iter().enumerate().all(|(number, frame)| frame.bytes() == pattern(number, 1500)));
    assert_eq!(large.queues[0].counters(), Default::default());
}

#[test]
fn workers_may_come_and_go() {
    let mut port = open("net_null0,size=80", 4);
    let mut queues = std::mem::take(&mut port.queues);
    std::thread::scope(|scope| {
        for queue in &mut queues {
            scope.spawn(move || {
                let _worker = port::enter_worker();
                let mut frames = Vec::with_capacity(BURST_MAX);
                for _ in 0..100 {
                    assert_eq!((queue.rx(&mut frames), frames[0].len()), (BURST_MAX, 80));
                    assert_eq!((queue.tx(&mut frames), frames.len()), (BURST_MAX, 0));
                }
            });
        }
    });
    assert!(queues.iter_mut().all(|queue| queue.counters() == Default::default()));
}

/// Eight senders' caches hold as many packets as a queue has of the port's memory; nine times that memory passes.
#[test]
fn a_worker_that_only_receives_is_not_starved_by_those_that_only_send() {
    const SENDERS: usize = 8;
    let mut queues = open("net_null4,size=64", 1 + SENDERS).queues;
    let mut receiver = queues.remove(0);
    std::thread::scope(|scope| {
        let lane = |mut queue: Box<dyn PortQueue>| {
            let (give, taken) = sync_channel::<Vec<Frame>>(0);
            let (done, is_done) = sync_channel(0);
            scope.spawn(move || {
                let _worker = register_thread().expect("an lcore id is free");
                for mut frames in taken {
                    assert_eq!((queue.tx(&mut frames), frames.len()), (BURST_MAX, 0));
                    done.send(frames).expect("the receiver waits");
                }
            });
            (give, is_done)
        };
        let lanes: Vec<_> = queues.into_iter().map(lane).collect();
        let _worker = register_thread().expect("an lcore id is free");
        let mut frames = Vec::with_capacity(BURST_MAX);
        for number in 0..1_000 {
            assert_eq!(receiver.rx(&mut frames), BURST_MAX, "burst {number}");
            let (give, is_done) = &lanes[number % SENDERS];
            give.send(frames).expect("the sender waits");
            frames = is_done.recv().expect("the sender runs");
        }
    });
    assert_eq!(receiver.counters(), Default::default());
}

#[test]
fn a_port_says_how_it_spreads_packets_and_why() {
    let says = |device: &str, queues| {
        let info = open(device, queues).info;
        (info.steering, info.steering_reason)
    };
    assert_eq!(says("net_null1", 1), (Steering::Single, "there is one worker".into()));
    let (steering, why) = says("net_ring8", 2);
    assert_eq!(
        (steering, why.as_str()),
        (Steering::Software, "net_ring spreads neither TCP nor UDP by hash")
    );
    // It takes a key and a table, though it makes up its packets.
    assert_eq!(says("net_null2", 2), (Steering::Rss, "the device took our hash key and table".into()));
}

#[test]
fn packets_without_a_tuple_tell_nothing_about_a_device() {
    let mut port = open("net_null3,size=60", 2);
    assert_eq!(port.info.steering, Steering::Rss);
    let mut frames = Vec::new();
    port.queues.iter_mut().for_each(|queue| assert_eq!(queue.rx(&mut frames), BURST_MAX));
    let looked = port.queues.iter_mut().map(|queue| queue.counters()).map(|of| of.hash_right + of.hash_wrong);
    assert_eq!(looked.sum::<u64>(), 0, "packets without a tuple say nothing");
}

#[test]
fn the_operator_learns_what_is_wrong() {
    let missing = try_open("net_nonsense0", 1).err().expect("no such device").to_string();
    assert!(missing.starts_with("port wire: net_nonsense0") && missing.contains("EAL"), "{missing}");
    let few = try_open("net_ring4", 17).err().expect("a ring has at most 16 queues");
    assert!(matches!(few, PortError::TooFewQueues { workers: 17, queues_max: 1..=16, .. }), "{few}");
    let _first = open("net_ring5", 1);
    let second = try_open("net_ring5", 1).err().expect("one owner").to_string();
    assert!(second.contains("open already"), "{second}");
}

/// Run by [`frames_cross_between_processes`] in a process of its own: sends back what it gets.
#[test]
fn echo_process() {
    let Ok(socket) = std::env::var("SLUICE_TEST_ECHO") else { return };
    let mut port = open(&format!("net_memif9,role=client,id=0,socket={socket},socket-abstract=yes"), 1);
    let (start, mut frames) = (Instant::now(), Vec::new());
    while start.elapsed() < Duration::from_secs(20) {
        port.queues[0].rx(&mut frames);
        let is_end = frames.last().is_some_and(|frame| frame.bytes()[..14] == [0xff; 14]);
        port.queues[0].tx(&mut frames);
        if is_end {
            std::thread::sleep(Duration::from_millis(100));
            return;
        }
    }
    panic!("nobody said stop within 20 s");
}

#[test]
fn frames_cross_between_processes() {
    let socket = format!("sluice-test-{}-echo", std::process::id());
    let mut port = open(&format!("net_memif8,role=server,id=0,socket={socket},socket-abstract=yes"), 1);
    let mut echo = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "echo_process", "--nocapture"])
        .env("SLUICE_TEST_ECHO", &socket)
        .spawn()
        .unwrap();
    wait_until("the other process connects", || port.queues[0].is_link_up());
    let pool = FramePool::new(1024);
    for round in 0..20 {
        send_all(&mut *port.queues[0], numbered(&pool, 200, 60 + round * 70));
        let back = receive(&mut *port.queues[0], 200);
        assert!(
            back.iter().enumerate().all(|(number, frame)| frame.bytes() == pattern(number, 60 + round * 70))
        );
        send_all(&mut *port.queues[0], back);
        receive(&mut *port.queues[0], 200);
    }
    send_all(&mut *port.queues[0], vec![pool.copy_of(&[0xff; 60]).unwrap()]);
    assert!(echo.wait().unwrap().success());
}
