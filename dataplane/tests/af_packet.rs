//! The `af_packet` port against the kernel: veth and macvlan in namespaces, real TCP. Needs root.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod lab;

use std::hash::{DefaultHasher, Hasher};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use lab::{Place, experiment, is_experiment, next, receive, send, until};
use sluice_dataplane::frame::{Checksum, Frame, FramePool, SegmentKind};
use sluice_dataplane::port::PortQueue;
use sluice_ffi::wait::wait_readable;

#[test]
fn frames_cross_a_veth_unchanged_both_ways() {
    let Some(here) = Place::new("frames_cross_a_veth_unchanged_both_ways") else { return };
    let there = Place::new("peer").expect("the first worked");
    here.cable("port0", &there, "peer0");
    let (mut ours, mut theirs) = (here.queue("port0"), there.queue("peer0"));
    for queue in [&mut ours, &mut theirs] {
        until("the link is up", || queue.is_link_up());
    }
    cross(ours.as_mut(), theirs.as_mut());
    cross(theirs.as_mut(), ours.as_mut());
}

/// Sends a hundred frames of all lengths; they arrive the same, in order, and their sender does not see them.
fn cross(from: &mut dyn PortQueue, to: &mut dyn PortQueue) {
    let pool = FramePool::new(128);
    let sent = (0..100).map(|seed| experiment(seed, 46 + seed as usize * 14)).collect::<Vec<_>>();
    send(from, sent.iter().map(|bytes| pool.copy_of(bytes).unwrap()).collect());
    let received = receive(to, sent.len(), is_experiment);
    for (received, sent) in received.iter().zip(&sent) {
        assert_eq!(received.bytes(), sent.as_slice());
    }
    let mut seen = Vec::new();
    from.rx(&mut seen);
    assert!(!seen.iter().any(is_experiment), "a sender does not hear itself");
    assert_eq!(pool.in_use(), 0, "sent frames are given back");
}

#[test]
fn kernel_tcp_crosses_two_ports_as_super_frames() {
    let Some(client) = Place::new("kernel_tcp_crosses_two_ports_as_super_frames") else { return };
    let (sluice, server) = (Place::new("sluice").unwrap(), Place::new("server").unwrap());
    sluice.cable("left", &client, "eth0");
    sluice.cable("right", &server, "eth0");
    client.ip("addr add 192.0.2.1/24 dev eth0");
    server.ip("addr add 192.0.2.2/24 dev eth0");
    let (left, right) = (sluice.queue("left"), sluice.queue("right"));
    let seen = Seen::default();
    transfer(&client, &server, left, right, &seen);
    assert!(seen.supers.load(Ordering::Relaxed) > 0, "the kernel's super-frames arrive whole");
    assert_eq!(seen.wrong.load(Ordering::Relaxed), 0, "super-frames have open checksums");
}

/// Sends 8 MB from a kernel's TCP to another's through `left` and `right`, and compares their hashes.
fn transfer(
    client: &Place,
    server: &Place,
    mut left: Box<dyn PortQueue>,
    mut right: Box<dyn PortQueue>,
    seen: &Seen,
) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                bridge(left.as_mut(), right.as_mut(), seen);
            }
        });
        let _stops = Stop(&stop);
        let listener = server.within(|| TcpListener::bind("192.0.2.2:80").unwrap());
        let receiver = scope.spawn(move || hash_of_stream(listener.accept().unwrap().0));
        let sent = client.within(|| send_stream(TcpStream::connect("192.0.2.2:80").unwrap()));
        assert_eq!(receiver.join().unwrap(), sent, "bytes and hash");
    });
}

/// Ends the threads that look at its flag, also when the test fails.
struct Stop<'flag>(&'flag AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the bridge saw.
#[derive(Default)]
struct Seen {
    supers: AtomicUsize,
    wrong: AtomicUsize,
}

impl Seen {
    fn note(&self, frame: &Frame) {
        let Some(segmentation) = frame.offload.segmentation else { return };
        let is_open = frame.offload.checksum == Checksum::Partial { start: 34, offset: 16 };
        let fits = segmentation.kind == SegmentKind::Tcp4 && frame.len() > 1514 && is_open;
        if fits { &self.supers } else { &self.wrong }.fetch_add(1, Ordering::Relaxed);
    }
}

/// Moves what waits from each queue to the other; sleeps a little when nothing does.
fn bridge(left: &mut dyn PortQueue, right: &mut dyn PortQueue, seen: &Seen) {
    if carry(left, right, seen) + carry(right, left, seen) == 0 {
        wait_readable(&[left.wait_fd().unwrap(), right.wait_fd().unwrap()], Duration::from_millis(20));
    }
}

fn carry(from: &mut dyn PortQueue, to: &mut dyn PortQueue, seen: &Seen) -> usize {
    let mut frames = Vec::new();
    let moved = from.rx(&mut frames);
    frames.iter().for_each(|frame| seen.note(frame));
    while !frames.is_empty() {
        to.tx(&mut frames);
    }
    moved
}

fn send_stream(mut stream: TcpStream) -> (usize, u64) {
    let (mut state, mut hasher, mut total) = (7, DefaultHasher::new(), 0);
    while total < 8 << 20 {
        let block = std::iter::repeat_with(|| next(&mut state).to_le_bytes()).take(8192).flatten();
        let block = block.collect::<Vec<u8>>();
        stream.write_all(&block).unwrap();
        hasher.write(&block);
        total += block.len();
    }
    (total, hasher.finish())
}

fn hash_of_stream(mut stream: TcpStream) -> (usize, u64) {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let mut hasher = DefaultHasher::new();
    bytes.chunks(65_536).for_each(|block| hasher.write(block));
    (bytes.len(), hasher.finish())
}
