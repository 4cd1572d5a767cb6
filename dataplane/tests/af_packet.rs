//! The `af_packet` port against the kernel: veth and macvlan in namespaces, real TCP. Needs root.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[expect(dead_code, reason = "shared with other tests")]
mod lab;

use std::hash::{DefaultHasher, Hasher};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use lab::craft::{ethernet, unfinished};
use lab::{Place, experiment, is_experiment, next, plain, receive, send, until};
use sluice_dataplane::frame::{Checksum, Frame, FramePool, SegmentKind};
use sluice_dataplane::packet::checksum::finish;
use sluice_dataplane::packet::segment::segment;
use sluice_dataplane::port::fault::{FaultRates, FaultSpec};
use sluice_dataplane::port::{OpenPort, PortQueue, PortSpec};
use sluice_ffi::packet_socket::{
    FanoutMode, FilterInstruction, PacketSocket, Refusal, VNET_GSO_TCPV6, VNET_NEEDS_CSUM, VnetHeader,
};
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

#[test]
fn kernel_tcp_over_ipv6_crosses_two_ports_as_super_frames() {
    let Some(client) = Place::new("kernel_tcp_over_ipv6_crosses_two_ports_as_super_frames") else { return };
    let (sluice, server) = (Place::new("sluice").unwrap(), Place::new("server").unwrap());
    for (place, here, ip) in [(&client, "left", "2001:db8::1"), (&server, "right", "2001:db8::2")] {
        sluice.cable(here, place, "eth0");
        place.sysctl("ipv6/conf/eth0/disable_ipv6", "0");
        place.ip(&format!("addr add {ip}/64 dev eth0 nodad"));
    }
    let (left, right) = (sluice.queue("left"), sluice.queue("right"));
    let seen = Seen { v6: true, ..Seen::default() };
    transfer(&client, &server, left, right, &seen);
    assert!(seen.supers.load(Ordering::Relaxed) > 0, "the kernel's super-frames arrive whole");
    assert_eq!(seen.wrong.load(Ordering::Relaxed), 0, "super-frames have open checksums");
}

#[test]
fn kernel_tcp_survives_a_faulty_port_and_the_capture_shows_it() {
    let Some(client) = Place::new("kernel_tcp_survives_a_faulty_port_and_the_capture_shows_it") else {
        return;
    };
    let (sluice, server) = (Place::new("sluice").unwrap(), Place::new("server").unwrap());
    sluice.cable("left", &client, "eth0");
    sluice.cable("right", &server, "eth0");
    client.ip("addr add 192.0.2.1/24 dev eth0");
    server.ip("addr add 192.0.2.2/24 dev eth0");
    let path = std::env::temp_dir().join(format!("sluice-faulty-{}.pcapng", std::process::id()));
    let rates = FaultRates { loss: 0.01, duplication: 0.02, reordering: 0.02, corruption: 0.01 };
    let fault = Some(FaultSpec { seed: 1, rx: rates, tx: rates, panic_after: None });
    let left = sluice.open_spec(&PortSpec { fault, pcap: Some(path.clone()), ..plain("left") });
    transfer(&client, &server, left, sluice.queue("right"), &Seen::default());
    let captured = std::fs::metadata(&path).unwrap().len();
    std::fs::remove_file(&path).unwrap();
    assert!(captured > 1 << 20, "{captured} bytes");
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
        let at = if seen.v6 { "[2001:db8::2]:80" } else { "192.0.2.2:80" };
        let listener = server.within(|| TcpListener::bind(at).unwrap());
        let receiver = scope.spawn(move || hash_of_stream(listener.accept().unwrap().0));
        let sent = client.within(|| send_stream(TcpStream::connect(at).unwrap()));
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

/// What the bridge saw, and where it sends: the Ethernet addresses of the left and right host, if it is to
/// rewrite them.
#[derive(Default)]
struct Seen {
    supers: AtomicUsize,
    wrong: AtomicUsize,
    hosts: Option<[[u8; 6]; 2]>,
    /// Over IPv6 and not IPv4.
    v6: bool,
}

impl Seen {
    fn rewriting(left: [u8; 6], right: [u8; 6]) -> Self {
        Self { hosts: Some([left, right]), ..Self::default() }
    }

    /// Turns a frame to us into one from us to the other host.
    fn rewrite(&self, frame: &mut Frame) {
        let Some([left, right]) = self.hosts else { return };
        let bytes = frame.bytes_mut();
        let to = if bytes[6..12] == left { right } else { left };
        bytes.copy_within(..6, 6);
        bytes[..6].copy_from_slice(&to);
    }

    fn note(&self, frame: &Frame) {
        let Some(segmentation) = frame.offload.segmentation else { return };
        let (start, kind) = if self.v6 { (54, SegmentKind::Tcp6) } else { (34, SegmentKind::Tcp4) };
        let is_open = frame.offload.checksum == Checksum::Partial { start, offset: 16 };
        let fits = segmentation.kind == kind && frame.len() > 1514 && is_open;
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
    for frame in &mut frames {
        seen.note(frame);
        seen.rewrite(frame);
    }
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

/// Two ports on the ends of one cable, and the places that keep it.
struct Cable {
    here: Place,
    there: Place,
    ours: Box<dyn PortQueue>,
    theirs: Box<dyn PortQueue>,
}

impl Cable {
    fn new(test: &str) -> Option<Self> {
        let here = Place::new(test)?;
        let there = Place::new("peer").expect("the first worked");
        here.cable("port0", &there, "peer0");
        let (ours, theirs) = (here.queue("port0"), there.queue("peer0"));
        Some(Self { here, there, ours, theirs })
    }
}

#[test]
fn super_frames_and_open_checksums_cross_unchanged_with_and_without_a_tag() {
    let Some(mut cable) = Cable::new("super_frames_and_open_checksums_cross_unchanged") else { return };
    let pool = FramePool::new(4);
    for vlan in [None, Some(42)] {
        for kind in [SegmentKind::Tcp4, SegmentKind::Udp] {
            for (len, payload_bytes) in [(0, 0), (1000, 0), (9000, 1000), (60_000, 1400)] {
                let make = || {
                    unfinished(&pool, &ethernet(ALL, OURS, vlan, IPV4), kind, &payload(len), payload_bytes)
                };
                send(cable.ours.as_mut(), vec![make()]);
                let received = receive(cable.theirs.as_mut(), 1, is_ours).remove(0);
                assert_eq!((received.bytes(), received.offload), (make().bytes(), make().offload));
            }
        }
    }
}

#[test]
fn software_segments_are_those_of_the_kernel() {
    let Some(mut cable) = Cable::new("software_segments_are_those_of_the_kernel") else { return };
    cable.here.ip("link set port0 gso_max_size 3000");
    let pool = FramePool::new(64);
    for vlan in [None, Some(42)] {
        for kind in [SegmentKind::Tcp4, SegmentKind::Udp] {
            let make = || unfinished(&pool, &ethernet(ALL, OURS, vlan, IPV4), kind, &payload(9100), 1000);
            let mut wanted = Vec::new();
            segment(&make(), &pool, &mut wanted).unwrap();
            send(cable.ours.as_mut(), vec![make()]);
            let received = receive(cable.theirs.as_mut(), wanted.len(), is_ours);
            for (mut received, wanted) in received.into_iter().zip(wanted) {
                finish(&mut received);
                assert_eq!(received.bytes(), wanted.bytes(), "{vlan:?} {kind:?}");
            }
        }
    }
}

#[test]
fn a_super_frame_that_the_kernel_refuses_goes_in_pieces_and_in_order() {
    let Some(mut cable) = Cable::new("a_super_frame_that_the_kernel_refuses_goes_in_pieces") else { return };
    let pool = FramePool::new(64);
    let link = ethernet(ALL, OURS, None, IPV4);
    let mut whole = unfinished(&pool, &link, SegmentKind::Udp, &payload(50_000), 1000);
    let mut wanted = Vec::new();
    segment(&whole, &pool, &mut wanted).unwrap();
    wanted.push(pool.copy_of(&[link, payload(100)].concat()).unwrap());
    // The kernel wants a checksum to finish with UDP segmentation.
    whole.offload.checksum = Checksum::Verified;
    let small = pool.copy_of(wanted.last().unwrap().bytes()).unwrap();
    let wanted = wanted.iter().map(|frame| frame.bytes().to_vec()).collect::<Vec<_>>();
    send(cable.ours.as_mut(), vec![whole, small]);
    let received = receive(cable.theirs.as_mut(), wanted.len(), is_ours);
    assert!(received.iter().map(Frame::bytes).eq(wanted.iter().map(Vec::as_slice)));
    assert_eq!(cable.ours.counters().tx_errors, 0);
}

#[test]
fn tagged_frames_cross_unchanged() {
    let Some(mut cable) = Cable::new("tagged_frames_cross_unchanged") else { return };
    let pool = FramePool::new(4);
    for control in [1, 42, 4095, 0xe02a] {
        for len in [46, 1500] {
            let bytes = [ethernet(ALL, OURS, Some(control), 0x88b5), payload(len)].concat();
            send(cable.ours.as_mut(), vec![pool.copy_of(&bytes).unwrap()]);
            assert_eq!(receive(cable.theirs.as_mut(), 1, is_ours)[0].bytes(), bytes);
        }
    }
}

#[test]
fn a_frame_that_cannot_be_sent_does_not_hold_up_the_others() {
    let Some(mut cable) = Cable::new("a_frame_that_cannot_be_sent_does_not_hold_up_the_others") else {
        return;
    };
    let pool = FramePool::new(16);
    let good = experiment(1, 100);
    let mut frames = Vec::new();
    for bad_len in [5000, 0, 65_000] {
        frames.push(pool.copy_of(&good).unwrap());
        frames.push(pool.copy_of(&good[..bad_len.min(good.len())]).unwrap());
        let bad = frames.last_mut().unwrap();
        bad.set_len(bad_len);
    }
    let mut wrong = pool.copy_of(&good).unwrap();
    wrong.offload.checksum = Checksum::Partial { start: 60_000, offset: 16 };
    frames.push(wrong);
    frames.push(pool.copy_of(&good).unwrap());
    send(cable.ours.as_mut(), frames);
    assert!(receive(cable.theirs.as_mut(), 4, is_experiment).iter().all(|frame| frame.bytes() == good));
    assert_eq!(cable.ours.counters().tx_errors, 4);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_peer_that_is_down_costs_frames_but_not_the_queue() {
    let Some(mut cable) = Cable::new("a_peer_that_is_down_costs_frames_but_not_the_queue") else { return };
    let pool = FramePool::new(4);
    let make = || (0..4).map(|seed| pool.copy_of(&experiment(seed, 60)).unwrap()).collect::<Vec<_>>();
    cable.there.ip("link set peer0 down");
    until("no carrier", || !cable.ours.is_link_up());
    send(cable.ours.as_mut(), make());
    cable.there.ip("link set peer0 up");
    until("carrier", || cable.ours.is_link_up());
    let good = make();
    let wanted = good.iter().map(|frame| frame.bytes().to_vec()).collect::<Vec<_>>();
    send(cable.ours.as_mut(), good);
    let received = receive(cable.theirs.as_mut(), 4, is_experiment);
    assert!(received.iter().map(Frame::bytes).eq(wanted));
}

#[test]
fn a_frame_that_the_device_throws_away_is_given_up() {
    let Some(mut cable) = Cable::new("a_frame_that_the_device_throws_away_is_given_up") else { return };
    let pool = FramePool::new(4);
    cable.there.ip("link set peer0 mtu 1000");
    let mut frames =
        vec![pool.copy_of(&experiment(0, 1400)).unwrap(), pool.copy_of(&experiment(1, 60)).unwrap()];
    assert_eq!(cable.ours.tx(&mut frames), 0, "at first it may be a queue that is full");
    send(cable.ours.as_mut(), frames);
    assert_eq!(cable.ours.counters().tx_errors, 1);
    assert_eq!(receive(cable.theirs.as_mut(), 1, is_experiment)[0].bytes(), experiment(1, 60));
}

#[test]
fn an_interface_that_goes_down_and_comes_back_works_again() {
    let Some(mut cable) = Cable::new("an_interface_that_goes_down_and_comes_back_works_again") else {
        return;
    };
    let pool = FramePool::new(4);
    cable.here.ip("link set port0 down");
    assert!(!cable.ours.is_link_up());
    send(cable.ours.as_mut(), vec![pool.copy_of(&experiment(0, 60)).unwrap()]);
    assert_eq!(cable.ours.counters().tx_errors, 1);
    let mut frames = Vec::new();
    until("the socket is quiet", || {
        cable.ours.rx(&mut frames);
        !wait_readable(&[cable.ours.wait_fd().unwrap()], Duration::ZERO)
    });
    cable.here.ip("link set port0 up");
    until("carrier", || cable.ours.is_link_up() && cable.theirs.is_link_up());
    cross(cable.ours.as_mut(), cable.theirs.as_mut());
    cross(cable.theirs.as_mut(), cable.ours.as_mut());
}

#[test]
fn a_deleted_interface_is_a_link_that_is_down() {
    let Some(mut cable) = Cable::new("a_deleted_interface_is_a_link_that_is_down") else { return };
    let pool = FramePool::new(4);
    cable.here.ip("link del port0");
    cable.here.cable("port0", &cable.there, "peer0");
    assert!(!cable.ours.is_link_up(), "another interface of the same name is not ours");
    send(cable.ours.as_mut(), vec![pool.copy_of(&experiment(0, 60)).unwrap()]);
    assert_eq!(cable.ours.counters().tx_errors, 1);
    let mut frames = Vec::new();
    until("the socket is quiet", || {
        cable.ours.rx(&mut frames);
        !wait_readable(&[cable.ours.wait_fd().unwrap()], Duration::ZERO)
    });
}

#[test]
fn an_empty_pool_leaves_frames_with_the_kernel() {
    let Some(mut cable) = Cable::new("an_empty_pool_leaves_frames_with_the_kernel") else { return };
    let small = FramePool::new(2);
    let mut ours = cable.here.open_with("port0", std::slice::from_ref(&small)).queues.remove(0);
    let pool = FramePool::new(8);
    send(cable.theirs.as_mut(), (0..6).map(|seed| pool.copy_of(&experiment(seed, 60)).unwrap()).collect());
    let held = receive(ours.as_mut(), 2, is_experiment);
    let mut more = Vec::new();
    assert_eq!((ours.rx(&mut more), small.in_use()), (0, 2));
    drop(held);
    let mut rest = Vec::new();
    while rest.len() < 4 {
        rest.extend(receive(ours.as_mut(), 1, is_experiment).iter().map(|frame| frame.bytes().to_vec()));
    }
    assert_eq!(rest, (2..6).map(|seed| experiment(seed, 60)).collect::<Vec<_>>());
}

#[test]
fn a_frame_larger_than_a_frame_can_be_is_counted() {
    let Some(mut cable) = Cable::new("a_frame_larger_than_a_frame_can_be_is_counted") else { return };
    // As a kernel with BIG TCP sends them.
    cable.there.ip("link set peer0 gso_max_size 200000");
    let mut raw = cable.there.within(|| PacketSocket::open("peer0", 4 << 20, 0).unwrap());
    let mut bytes = [ethernet(ALL, OURS, None, 0x86dd), vec![0x60, 0, 0, 0, 0, 0, 6, 64]].concat();
    bytes.resize(100_000, 0);
    bytes[66] = 0x50;
    let (flags, gso_type) = (VNET_NEEDS_CSUM, VNET_GSO_TCPV6);
    let header = VnetHeader { flags, gso_type, hdr_len: 74, gso_size: 1400, csum_start: 54, csum_offset: 16 };
    let small = experiment(1, 60);
    let frames = [(header, bytes.as_slice()), (VnetHeader::default(), small.as_slice())];
    assert_eq!(raw.send(frames.into_iter()), Ok(2));
    assert_eq!(receive(cable.ours.as_mut(), 1, is_ours)[0].bytes(), small);
    assert_eq!(cable.ours.counters().rx_errors, 1);
}

#[test]
fn small_and_large_frames_come_in_order_by_ring_and_by_queue() {
    let Some(here) = Place::new("small_and_large_frames_come_in_order_by_ring_and_by_queue") else { return };
    let there = Place::new("peer").unwrap();
    here.cable("port0", &there, "peer0");
    for ring_bytes in [0, 1 << 16] {
        let mut to = here.within(|| PacketSocket::open("port0", 4 << 20, ring_bytes).unwrap());
        assert_eq!(to.has_ring(), ring_bytes > 0);
        to.start_alone().unwrap();
        let mut from = there.within(|| PacketSocket::open("peer0", 4 << 20, 0).unwrap());
        // More rounds than the ring has slots, so that it begins anew several times.
        for round in 0..20 {
            let sent = (0..10).map(|index| small_or_large(round * 10 + index)).collect::<Vec<_>>();
            assert_eq!(from.send(sent.iter().map(|(header, bytes)| (*header, bytes.as_slice()))), Ok(10));
            assert_eq!(take(&mut to, 10), sent, "round {round}");
        }
        let more = vec![small_or_large(0); 10];
        assert_eq!(from.send(more.iter().map(|(header, bytes)| (*header, bytes.as_slice()))), Ok(10));
        let mut rooms = [[0; 50]; 10];
        assert_eq!(to.receive(rooms.iter_mut().map(<[u8; 50]>::as_mut_slice)), Ok(10));
        assert!((0..10).all(|index| to.received(index).is_truncated && to.received(index).len == 50));
        assert_eq!(to.receive(rooms.iter_mut().map(<[u8; 50]>::as_mut_slice)), Err(Refusal::WouldBlock));
    }
}

/// A frame of 60 bytes with a checksum to be finished; each third of 20,000 bytes, to be cut.
fn small_or_large(seed: usize) -> (VnetHeader, Vec<u8>) {
    let is_large = seed % 3 == 2;
    let mut bytes = [ethernet(ALL, OURS, None, 0x86dd), vec![0x60, 0, 0, 0, 0, 0, 6, 64]].concat();
    bytes.resize(if is_large { 20_000 } else { 80 + seed % 7 }, seed as u8);
    bytes[66] = 0x50;
    let header =
        VnetHeader { flags: VNET_NEEDS_CSUM, csum_start: 54, csum_offset: 16, ..VnetHeader::default() };
    let cut = VnetHeader { gso_type: VNET_GSO_TCPV6, hdr_len: 74, gso_size: 1400, ..header };
    (if is_large { cut } else { header }, bytes)
}

/// The next `count` frames, and what came with them.
fn take(socket: &mut PacketSocket, count: usize) -> Vec<(VnetHeader, Vec<u8>)> {
    let mut rooms = vec![vec![0; 65_536]; count];
    let mut taken = Vec::new();
    until("all have come", || {
        let left = rooms.len() - taken.len();
        let got = socket.receive(rooms.iter_mut().take(left).map(Vec::as_mut_slice)).unwrap_or(0);
        for (index, room) in rooms.iter().enumerate().take(got) {
            let received = socket.received(index);
            assert!(!received.is_truncated);
            taken.push((received.header, room[..received.len].to_vec()));
        }
        taken.len() == count
    });
    taken
}

#[test]
fn frames_that_found_the_socket_full_are_counted() {
    let Some(mut cable) = Cable::new("frames_that_found_the_socket_full_are_counted") else { return };
    let pool = FramePool::new(64);
    let mut sent = 0;
    until("the socket is full", || {
        let frames = (0..32).map(|seed| pool.copy_of(&experiment(seed, 1400)).unwrap());
        send(cable.theirs.as_mut(), frames.collect());
        sent += 32;
        cable.ours.counters().rx_missed > 0
    });
    let (mut frames, mut received) = (Vec::new(), 0);
    while cable.ours.rx(&mut frames) > 0 {
        received += frames.drain(..).filter(is_experiment).count() as u64;
    }
    assert_eq!(received + cable.ours.counters().rx_missed, sent, "each frame came or was counted");
}

#[test]
fn two_queues_share_the_flows_of_a_veth() {
    let Some(mut cable) = Cable::new("two_queues_share_the_flows_of_a_veth") else { return };
    let port = cable.here.open("port0", 2);
    share_flows(cable.theirs.as_mut(), port);
}

#[test]
fn two_queues_share_the_flows_of_a_macvlan() {
    let Some(here) = Place::new("two_queues_share_the_flows_of_a_macvlan") else { return };
    let there = Place::new("peer").unwrap();
    here.cable("port0", &there, "peer0");
    here.macvlan("virtual0", "port0");
    share_flows(there.queue("peer0").as_mut(), here.open("virtual0", 2));
}

#[test]
fn a_program_may_choose_the_queue() {
    let Some(here) = Place::new("a_program_may_choose_the_queue") else { return };
    let there = Place::new("peer").unwrap();
    here.cable("port0", &there, "peer0");
    let mut sockets =
        here.within(|| [(); 2].map(|()| PacketSocket::open("port0", 1 << 20, 1 << 16).unwrap()));
    let group = sockets[0].found_group(FanoutMode::Program).unwrap();
    sockets[1].join_group(group).unwrap();
    let [load_half, and, ret_a] = [0x28, 0x54, 0x16];
    let step = |code, k| FilterInstruction { code, jt: 0, jf: 0, k };
    let net_offset = -0x10_0000i32 as u32;
    let source_port = net_offset.wrapping_add(20);
    sockets[0].set_fanout_program(&[step(load_half, source_port), step(and, 1), step(ret_a, 0)]).unwrap();
    sockets.iter().for_each(|socket| socket.start().unwrap());
    let pool = FramePool::new(16);
    let to = here.mac("port0");
    send(there.queue("peer0").as_mut(), (0..10).map(|flow| of_flow(&pool, to, flow)).collect());
    for (parity, socket) in sockets.iter_mut().enumerate() {
        let mut rooms = [[0; 100]; 5];
        until("five have come", || wait_readable(&[socket.as_fd().as_raw_fd()], Duration::from_secs(1)));
        assert_eq!(socket.receive(rooms.iter_mut().map(<[u8; 100]>::as_mut_slice)), Ok(5));
        assert!(rooms.iter().all(|room| usize::from(room[35]) % 2 == parity));
    }
}

#[test]
fn a_macvlan_hears_multicast() {
    let Some(here) = Place::new("a_macvlan_hears_multicast") else { return };
    let there = Place::new("peer").unwrap();
    here.cable("port0", &there, "peer0");
    here.macvlan("virtual0", "port0");
    let (mut ours, pool) = (here.queue("virtual0"), FramePool::new(2));
    let mut solicitation = experiment(1, 60);
    solicitation[..6].copy_from_slice(&[0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
    send(there.queue("peer0").as_mut(), vec![pool.copy_of(&solicitation).unwrap()]);
    assert_eq!(receive(ours.as_mut(), 1, is_experiment)[0].bytes(), solicitation);
}

fn share_flows(sender: &mut dyn PortQueue, mut port: OpenPort) {
    assert_eq!((port.info.queues, port.queues.len()), (2, 2));
    let pool = FramePool::new(256);
    send(sender, (0..200).map(|flow| of_flow(&pool, port.info.mac.0, flow)).collect());
    let mut flows = [Vec::new(), Vec::new()];
    until("all have come", || {
        for (queue, flows) in port.queues.iter_mut().zip(&mut flows) {
            let mut frames = Vec::new();
            queue.rx(&mut frames);
            flows.extend(frames.iter().filter(|frame| is_ours(frame)).map(flow_of));
        }
        flows.iter().map(Vec::len).sum::<usize>() >= 200
    });
    assert!(flows.iter().all(|flows| flows.len() > 40), "{} {}", flows[0].len(), flows[1].len());
    let mut all = flows.concat();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..200), "no frame twice, none lost");
    let [first, second] = port.queues.as_mut_slice() else { panic!("two queues") };
    send(first.as_mut(), vec![pool.copy_of(&experiment(1, 60)).unwrap()]);
    let mut echoed = Vec::new();
    first.rx(&mut echoed);
    second.rx(&mut echoed);
    assert!(!echoed.iter().any(is_experiment), "neither queue hears what the port sends");
}

/// A UDP frame to `to` whose source port tells its flow.
fn of_flow(pool: &FramePool, to: [u8; 6], flow: u16) -> Frame {
    let link = ethernet(to, OURS, None, IPV4);
    let mut frame = unfinished(pool, &link, SegmentKind::Udp, &payload(20), 0);
    frame.bytes_mut()[34..36].copy_from_slice(&flow.to_be_bytes());
    frame
}

fn flow_of(frame: &Frame) -> u16 {
    u16::from_be_bytes([frame.bytes()[34], frame.bytes()[35]])
}

#[test]
fn kernel_tcp_crosses_macvlans_with_rewritten_addresses() {
    let Some(client) = Place::new("kernel_tcp_crosses_macvlans_with_rewritten_addresses") else { return };
    let (sluice, server) = (Place::new("sluice").unwrap(), Place::new("server").unwrap());
    let mut ports = Vec::new();
    for (place, name, ip) in [(&client, "left", "192.0.2.1/24"), (&server, "right", "192.0.2.2/24")] {
        sluice.cable(&format!("under-{name}"), place, "eth0");
        sluice.macvlan(name, &format!("under-{name}"));
        place.ip(&format!("addr add {ip} dev eth0"));
        ports.push(sluice.open(name, 1));
    }
    let (right, left) = (ports.remove(1), ports.remove(0));
    client.ip(&format!("neigh add 192.0.2.2 lladdr {} dev eth0", left.info.mac));
    server.ip(&format!("neigh add 192.0.2.1 lladdr {} dev eth0", right.info.mac));
    let seen = Seen::rewriting(client.mac("eth0"), server.mac("eth0"));
    let [left, right] = [left, right].map(|mut port| port.queues.remove(0));
    transfer(&client, &server, left, right, &seen);
    assert!(seen.supers.load(Ordering::Relaxed) > 0, "the kernel's super-frames arrive whole");
    assert_eq!(seen.wrong.load(Ordering::Relaxed), 0, "super-frames have open checksums");
}

#[test]
fn an_unknown_interface_is_named() {
    let Some(here) = Place::new("an_unknown_interface_is_named") else { return };
    let error = here.try_open("nope0", &[FramePool::new(1)]).err().expect("there is none");
    assert_eq!(error.to_string(), "port test: interface nope0: no such device");
    let error = here.try_open("lo", &[FramePool::new(1)]).err().expect("not a port");
    assert_eq!(error.to_string(), "port test: interface lo: not an Ethernet interface");
}

/// What a packet that a test made may be: anything from us.
fn is_ours(frame: &Frame) -> bool {
    frame.bytes().get(6..12) == Some(&OURS)
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 7) as u8).collect()
}

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ALL: [u8; 6] = [0xff; 6];
const IPV4: u16 = 0x0800;
