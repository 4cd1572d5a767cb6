//! What the parser refuses is counted, frame by frame.

use sluice_dataplane::config::ids::{PortId, VirtualId};
use sluice_dataplane::packet::build::{self, Tcp, Udp};
use sluice_dataplane::packet::parse::tcp_flag::ACK;
use sluice_dataplane::verdict::DropReason;

use crate::world::*;
use crate::{echo, from_member, syn};

#[test]
fn malformed_frames_are_counted_one_by_one() {
    let mut world = World::started(|_| ());
    let good = build::tcp(&syn());
    type Break = fn(&mut Vec<u8>);
    let cases: &[(DropReason, Break)] = &[
        (DropReason::Truncated, |b| b.truncate(40)),
        (DropReason::Malformed, |b| b[24] ^= 1),
        (DropReason::UnknownEthertype, |b| b[12] = 0x99),
        (DropReason::NotForUs, |b| b[0] = 4),
        (DropReason::MartianSource, |b| build::patch_ipv4(b, |h| h[12] = 127)),
        (DropReason::MartianDestination, |b| build::patch_ipv4(b, |h| h[16] = 0)),
        (DropReason::IpOptions, |b| b[14] = 0x46),
        (DropReason::FragmentMalformed, |b| build::patch_ipv4(b, |h| h[6] = 0x20)),
        (DropReason::MalformedTcp, |b| b[47] = 0),
        (DropReason::MalformedUdp, |b| {
            *b = build::udp(&Udp { dst_mac: EXTERNAL_MAC, ..Udp::default() });
            b[39] = 3;
        }),
    ];
    for (reason, break_it) in cases {
        let mut bytes = good.clone();
        break_it(&mut bytes);
        assert_eq!(world.send(EXTERNAL, &bytes), [], "{reason}");
        assert_eq!(world.drops(*reason), 1, "{reason}");
    }
    assert_eq!(world.all_drops().iter().map(|(_, count)| count).sum::<u64>(), cases.len() as u64);
}

/// Millions of frames of three kinds: noise, noise behind good headers, and good frames with a few bytes changed.
/// Nothing panics, nothing is lost: every frame is forwarded, queued, answered or counted as dropped.
#[test]
fn random_frames_never_panic_and_are_all_accounted_for() {
    let seed = std::env::var("SLUICE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0x5eed_u64);
    println!("seed {seed} (set SLUICE_SEED to repeat)");
    let mut random = Random(seed | 1);
    let mut world = World::started(|_| ());
    let good = [
        build::tcp(&syn()),
        build::tcp(&from_member(ACK, 1, 1)),
        build::tcp(&Tcp { src: CLIENT6, dst: VIRTUAL6, vlan: 3, ..syn() }),
        build::udp(&Udp { dst_mac: EXTERNAL_MAC, ..Udp::default() }),
        arp(1, CLIENT_MAC, "192.0.2.77", VIRTUAL),
        solicitation(CLIENT_MAC, "fe80::7", VIRTUAL6),
        echo(CLIENT, VIRTUAL, 8),
        echo(CLIENT6, VIRTUAL6, 128),
    ];
    let count = if cfg!(debug_assertions) { 1_000_000 } else { 4_000_000 };
    let received = |world: &World| {
        (0..2).map(|port| world.counters.of_port(PortId(port)).frames.packets_in.load()).sum::<u64>()
    };
    let before = received(&world);
    for _ in 0..count {
        let mut bytes = good[random.below(good.len())].clone();
        match random.below(3) {
            0 => bytes = (0..random.below(200)).map(|_| random.next() as u8).collect(),
            1 => bytes.iter_mut().skip(12).for_each(|byte| *byte = random.next() as u8),
            _ => {
                for _ in 0..=random.below(4) {
                    let at = random.below(bytes.len());
                    bytes[at] = random.next() as u8;
                }
                bytes.truncate(random.below(bytes.len() * 4).max(1));
            }
        }
        let port = PortId(random.below(2) as u8);
        world.now_ms += u64::from(random.below(50) == 0);
        world.send(port, &bytes);
    }
    assert_eq!(received(&world) - before, count, "every frame was looked at");
    world.run_for(120_000);
    let flows = world.flows().len() as u64;
    let open: u64 =
        (0..3).map(|id| world.counters.of_virtual(VirtualId(id)).unwrap().connections.current.load()).sum();
    assert_eq!(open, flows);
    println!("{:?}", world.all_drops());
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
