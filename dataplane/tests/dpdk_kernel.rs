//! The `dpdk` driver over devices of the kernel (packet sockets, tap, XDP), in a network namespace that this test
//! makes and removes. Needs root and ip(8); says SKIPPED where it cannot run.

use std::process::Command;
use std::time::{Duration, Instant};

use sluice_dataplane::frame::{Checksum, Frame, FramePool, SegmentKind, Segmentation};
use sluice_dataplane::packet::checksum::{self, fold, sum};
use sluice_dataplane::port::{self, DriverSpec, OpenPort, PortError, PortQueue, PortSpec};

#[test]
fn kernel_devices_in_a_namespace() {
    let namespace = format!("sluice-dpdk-{}", std::process::id());
    let in_namespace = |words: &str| run(&format!("ip netns exec {namespace} {words}"));
    if !run(&format!("ip netns add {namespace}")) {
        eprintln!("SKIPPED: the dpdk driver over kernel devices: no root, or no ip(8)");
        return;
    }
    let _removed = Namespace(namespace.clone());
    // The kernel would send of its own accord otherwise.
    in_namespace("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
    assert!(in_namespace("ip link add one type veth peer name other"));
    assert!(in_namespace("ip link set one up") && in_namespace("ip link set other up"));
    let status = Command::new("ip")
        .args(["netns", "exec", &namespace])
        .arg(std::env::current_exe().expect("this test is a file"))
        .args(["--exact", "inside", "--nocapture"])
        .env("SLUICE_TEST_NAMESPACE", &namespace)
        .status();
    assert!(status.expect("ip runs").success());
}

/// Run by [`kernel_devices_in_a_namespace`] in a process of its own, inside the namespace.
#[test]
fn inside() {
    if std::env::var_os("SLUICE_TEST_NAMESPACE").is_none() {
        return;
    }
    packet_sockets_carry_frames();
    xdp_sockets_carry_frames();
    tap_finishes_what_it_is_asked_to();
}

fn packet_sockets_carry_frames() {
    let few = open("net_af_packet8,iface=one,qpairs=1", 2).err().expect("one queue pair");
    assert!(matches!(few, PortError::TooFewQueues { workers: 2, queues_max: 1, .. }), "{few}");
    let mut one = open("net_af_packet0,iface=one", 1).unwrap_or_else(|error| panic!("{error}"));
    let mut other = open("net_af_packet1,iface=other", 1).unwrap_or_else(|error| panic!("{error}"));
    assert!(one.info.mac != other.info.mac && one.queues[0].is_link_up());
    exchange(&mut one, &mut other);
}

fn xdp_sockets_carry_frames() {
    let (one, other) = (open("net_af_xdp0,iface=one", 1), open("net_af_packet2,iface=other", 1));
    match (one, other) {
        (Ok(mut one), Ok(mut other)) => exchange(&mut one, &mut other),
        (Err(error), _) | (_, Err(error)) => eprintln!("SKIPPED: net_af_xdp over veth: {error}"),
    }
}

/// A tap computes checksums and cuts super-frames in the driver, through the interface that NICs have for it.
fn tap_finishes_what_it_is_asked_to() {
    let mut tap = match open("net_tap0,iface=tap0", 1) {
        Ok(tap) => tap,
        Err(error) => return eprintln!("SKIPPED: net_tap: {error}"),
    };
    eprintln!("net_tap offloads: {:?}", tap.info.offloads);
    assert!(run("ip link set tap0 up"));
    let mut kernel = open("net_af_packet3,iface=tap0", 1).unwrap_or_else(|error| panic!("{error}"));
    exchange(&mut tap, &mut kernel);
    a_wrong_checksum_is_refused(&mut tap, &mut kernel);

    let mut frame = tcp_frame(500);
    frame.offload.checksum = Checksum::Partial { start: 34, offset: 16 };
    send(&mut *tap.queues[0], vec![frame]);
    let received = receive(&mut *kernel.queues[0], 1);
    assert_eq!(tcp_sum(received[0].bytes()), 0xffff);
    assert_eq!(tap.queues[0].counters().tx_errors, 0);

    if !tap.info.offloads.contains(&"tso") {
        return eprintln!("SKIPPED: segmentation by the device: net_tap does not offer it");
    }
    // The driver counts the link header's 14 bytes into the MTU, and takes nothing longer.
    for payload_bytes in [1400, 1446, 1447, 1460] {
        segments_arrive(&mut tap, &mut kernel, payload_bytes);
    }
    assert_eq!(tap.queues[0].counters().tx_errors, 0);
}

fn segments_arrive(tap: &mut OpenPort, kernel: &mut OpenPort, payload_bytes: u16) {
    let mut frame = tcp_frame(40_000);
    frame.offload.checksum = Checksum::Partial { start: 34, offset: 16 };
    frame.offload.segmentation = Some(Segmentation { kind: SegmentKind::Tcp4, ecn: false, payload_bytes });
    let payload = frame.bytes()[54..].to_vec();
    send(&mut *tap.queues[0], vec![frame]);
    let received = receive(&mut *kernel.queues[0], 40_000usize.div_ceil(payload_bytes.into()));
    let mut together = Vec::new();
    for segment in &received {
        let bytes = segment.bytes();
        assert_eq!(tcp_sum(bytes), 0xffff, "every segment's checksum is its own");
        assert_eq!(fold(sum(&bytes[14..34])), 0xffff, "and its IPv4 header's");
        let sequence = u32::from_be_bytes([bytes[38], bytes[39], bytes[40], bytes[41]]);
        assert_eq!(sequence as usize, together.len() + 7);
        together.extend_from_slice(&bytes[54..]);
    }
    assert!(together == payload, "the payload is the same, in order");
}

/// The tap looks at the checksums of what it receives, as NICs do.
fn a_wrong_checksum_is_refused(tap: &mut OpenPort, kernel: &mut OpenPort) {
    let whole = |payload| {
        let mut frame = tcp_frame(payload);
        frame.offload.checksum = Checksum::Partial { start: 34, offset: 16 };
        checksum::finish(&mut frame);
        frame
    };
    let (mut wrong, right) = (whole(100), whole(200));
    wrong.bytes_mut()[60] ^= 1;
    send(&mut *kernel.queues[0], vec![wrong, right]);
    let received = receive(&mut *tap.queues[0], 1);
    assert_eq!((received[0].len(), received[0].offload.checksum), (254, Checksum::Verified));
    assert_eq!(tap.queues[0].counters().rx_errors, 1);
}

/// Frames of several lengths go both ways, unchanged and in order.
fn exchange(one: &mut OpenPort, other: &mut OpenPort) {
    let pool = FramePool::new(64);
    for len in [60, 61, 777, 1514] {
        let frames = || (0..32).map(|number| pool.copy_of(&pattern(number, len)).expect("room")).collect();
        send(&mut *one.queues[0], frames());
        send(&mut *other.queues[0], frames());
        for queue in [&mut other.queues[0], &mut one.queues[0]] {
            let received = receive(&mut **queue, 32);
            assert!(received.iter().enumerate().all(|(number, frame)| frame.bytes() == pattern(number, len)));
        }
    }
}

/// A frame of ours: the receiver tells it by its source address.
fn pattern(number: usize, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|index| (index * 7 + number) as u8).collect();
    bytes[..12].copy_from_slice(&[2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8]);
    bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
    bytes
}

/// Ethernet, IPv4 and TCP with sequence number 7, the checksum field holding the pseudo-header's sum.
fn tcp_frame(payload: usize) -> Frame {
    let mut bytes = pattern(0, 54 + payload);
    let total = (40 + payload) as u16;
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    bytes[14..34].copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes[16..18].copy_from_slice(&total.to_be_bytes());
    let header = !fold(sum(&bytes[14..34]));
    bytes[24..26].copy_from_slice(&header.to_be_bytes());
    bytes[34..54].copy_from_slice(&[0x1f, 0x90, 0, 80, 0, 0, 0, 7, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    let pseudo = fold(pseudo_sum(&bytes));
    bytes[50..52].copy_from_slice(&pseudo.to_be_bytes());
    FramePool::new(1).copy_of(&bytes).expect("room")
}

fn pseudo_sum(bytes: &[u8]) -> u64 {
    let length = u64::from(u16::from_be_bytes([bytes[16], bytes[17]])) - 20;
    sum(&bytes[26..34]) + 6 + length
}

/// 0xffff when the TCP checksum is right.
fn tcp_sum(bytes: &[u8]) -> u16 {
    let end = 14 + usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
    fold(sum(&bytes[34..end]) + pseudo_sum(bytes))
}

fn open(device: &str, queues: usize) -> Result<OpenPort, PortError> {
    let driver = DriverSpec::Dpdk { device: device.into() };
    let spec = PortSpec { name: "wire".into(), driver, fault: None, pcap: None };
    port::prepare(std::slice::from_ref(&spec), &[]).expect("DPDK starts with arguments of its own");
    let pools: Vec<_> = (0..queues).map(|_| FramePool::new(64)).collect();
    port::open(&spec, &pools)
}

fn send(queue: &mut dyn PortQueue, mut frames: Vec<Frame>) {
    wait_until("frames leave", || {
        queue.tx(&mut frames);
        frames.is_empty()
    });
}

fn receive(queue: &mut dyn PortQueue, count: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    wait_until("frames arrive", || {
        queue.rx(&mut frames);
        frames.retain(|frame| frame.bytes()[6..12] == [2, 0, 0, 0, 0, 8]);
        frames.len() >= count
    });
    assert_eq!(frames.len(), count);
    frames
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}: not within 10 s");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn run(command: &str) -> bool {
    let mut words = command.split_whitespace();
    let program = words.next().expect("a command");
    Command::new(program).args(words).stderr(std::process::Stdio::null()).status().is_ok_and(|s| s.success())
}

struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        run(&format!("ip netns del {}", self.0));
    }
}
