//! The kernel spreads an interface's frames as the software function says: a fanout group on a veth and on a macvlan.
//! Needs root.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[expect(dead_code, reason = "a harness that other tests use, too")]
mod lab;

use std::collections::HashMap;

use lab::{Place, next, send, until};
use sluice_dataplane::address::Mac;
use sluice_dataplane::frame::FramePool;
use sluice_dataplane::packet::build::{self, Tcp, Udp};
use sluice_dataplane::packet::rewrite::LinkHeader;
use sluice_dataplane::port::{OpenPort, PortQueue, Steering};
use sluice_dataplane::snat::steer::Owners;

#[test]
fn frames_arrive_at_the_worker_that_they_name_on_a_veth() {
    let Some(here) = Place::new("frames_arrive_at_the_worker_that_they_name_on_a_veth") else { return };
    let there = Place::new("peer").unwrap();
    here.cable("port0", &there, "peer0");
    for workers in [2, 3, 4] {
        let port = here.open("port0", workers);
        spread(there.queue("peer0").as_mut(), port, 0x5eed + workers as u64);
    }
}

#[test]
fn frames_arrive_at_the_worker_that_they_name_on_a_macvlan() {
    let Some(here) = Place::new("frames_arrive_at_the_worker_that_they_name_on_a_macvlan") else { return };
    let there = Place::new("peer").unwrap();
    here.cable("port0", &there, "peer0");
    here.macvlan("virtual0", "port0");
    spread(there.queue("peer0").as_mut(), here.open("virtual0", 4), 0xfeed);
}

#[test]
fn one_queue_needs_no_steering() {
    let Some(here) = Place::new("one_queue_needs_no_steering") else { return };
    let there = Place::new("peer").unwrap();
    here.cable("port0", &there, "peer0");
    let info = here.open("port0", 1).info;
    assert_eq!((info.steering, info.steering_reason.as_str()), (Steering::Single, "there is one worker"));
}

/// Sends frames of all kinds and finds each at the queue of the worker that owns it, byte for byte.
fn spread(sender: &mut dyn PortQueue, mut port: OpenPort, seed: u64) {
    println!("seed {seed:#x}");
    if port.info.steering != Steering::Bpf {
        eprintln!("SKIPPED: frames arrive where they belong: {}", port.info.steering_reason);
        return;
    }
    let (owners, pool, mut random) = (Owners::new(port.queues.len()), FramePool::new(64), Random(seed));
    let mut waiting: HashMap<Vec<u8>, usize> = HashMap::new();
    let (mut received, mut by_queue) = (Vec::new(), vec![0; port.queues.len()]);
    for _ in 0..100 {
        let frames: Vec<_> = (0..32).map(|_| random.frame(port.info.mac)).collect();
        send(sender, frames.iter().map(|bytes| pool.copy_of(bytes).unwrap()).collect());
        frames.into_iter().for_each(|bytes| *waiting.entry(bytes).or_default() += 1);
        until("all have come", || {
            for (number, queue) in port.queues.iter_mut().enumerate() {
                queue.rx(&mut received);
                for frame in received.drain(..) {
                    let Some(count) = waiting.get_mut(frame.bytes()) else { continue };
                    assert_eq!(owners.of_frame(frame.bytes()), number, "{:02x?}", frame.bytes());
                    by_queue[number] += 1;
                    *count -= 1;
                    if *count == 0 {
                        waiting.remove(frame.bytes());
                    }
                }
            }
            waiting.is_empty()
        });
    }
    assert!(by_queue.iter().all(|&count| count > 300), "{by_queue:?}");
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        next(&mut self.0) % bound
    }

    fn address(&mut self, v6: bool) -> String {
        let (a, b) = (self.below(1 << 16), self.below(250) + 1);
        if v6 { format!("2001:db8:{a:x}::{b:x}:{a:x}") } else { format!("10.{}.{}.{b}", a >> 8, a & 0xff) }
    }

    /// A frame to `to`: a flow's, an error about one, a fragment, with and without a tag, whole, damaged or cut.
    fn frame(&mut self, to: Mac) -> Vec<u8> {
        let v6 = self.below(2) == 0;
        let (src, dst, router) = (self.address(v6), self.address(v6), self.address(v6));
        let vlan = if self.below(3) == 0 { 7 } else { 0 };
        let (src_port, dst_port) = (self.below(65_535) as u16 + 1, self.below(65_535) as u16 + 1);
        let tcp = Tcp { src: &src, dst: &dst, src_port, dst_port, vlan, dst_mac: to, ..Tcp::default() };
        let udp = Udp { src: &src, dst: &dst, src_port, dst_port, vlan, dst_mac: to, ..Udp::default() };
        let mut bytes = match self.below(8) {
            0 | 1 => build::tcp(&tcp),
            2 | 3 => build::udp(&udp),
            4 | 5 => {
                let quoted = build::tcp(&Tcp { vlan: 0, ..tcp });
                let message = [&[if v6 { 2 } else { 3 }, 0, 0, 0, 0, 0, 5, 0][..], &quoted[14..]].concat();
                let link = LinkHeader { destination: to, source: Mac([2, 0, 0, 0, 0, 9]), vlan };
                build::packet(link, &router, &src, 64, if v6 { 58 } else { 1 }, &message, 2)
            }
            _ => self.fragment(&udp, v6),
        };
        let l3 = if vlan == 0 { 14 } else { 18 };
        match self.below(10) {
            0 => bytes[l3 + self.below(8) as usize] ^= 1 << self.below(8),
            // The kernel throws away tagged frames with less than two bytes behind the tag.
            1 => bytes.truncate(l3 + 2 + self.below((bytes.len() - l3 - 2) as u64) as usize),
            2 if vlan == 0 => drop(bytes.splice(12..12, [0x88, 0xa8, 0, 5, 0x81, 0, 0, 6])),
            _ => {}
        }
        bytes
    }

    fn fragment(&mut self, udp: &Udp, v6: bool) -> Vec<u8> {
        let id = self.below(1 << 16) as u16;
        let [high, low] = id.to_be_bytes();
        let offset = self.below(3) as u8 * 8;
        if v6 {
            let link = LinkHeader { destination: udp.dst_mac, source: udp.src_mac, vlan: udp.vlan };
            let content = [17, 0, 0, offset | 1, high, low, low, high, 1, 2, 3, 4, 5, 6, 7, 8];
            return build::packet(link, udp.src, udp.dst, 64, 44, &content, 14);
        }
        let mut bytes = build::udp(&Udp { vlan: 0, ..*udp });
        build::patch_ipv4(&mut bytes, |header| header[4..8].copy_from_slice(&[high, low, 0x20, offset]));
        bytes
    }
}
