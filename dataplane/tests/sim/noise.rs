//! What nobody asked for: spoofed SYNs and frames that make no sense.

use sluice_dataplane::address::{Address, Mac};
use sluice_dataplane::config::ids::PortId;

use super::random::Random;
use super::setup;
use super::wire::{self, Packet, SYN, TCP, UDP, WINDOW};
use crate::world::{EXTERNAL, EXTERNAL_MAC, INTERNAL, INTERNAL_MAC};

/// Some SYNs from addresses that nobody has.
pub fn flood(random: &mut Random) -> Vec<Vec<u8>> {
    let count = random.between(1, 8);
    (0..count).map(|_| spoofed(random).encode()).collect()
}

fn spoofed(random: &mut Random) -> Packet {
    let src = (Address::v4([203, 0, 113, random.below(256) as u8]), random.between(1_024, 65_535) as u16);
    Packet {
        macs: (Mac([2, 0, 0, 0, 2, 1]), EXTERNAL_MAC),
        src,
        dst: (Address::v4([192, 0, 2, 100]), 80),
        protocol: TCP,
        flags: SYN,
        // A tag that no connection has: connections' numbers are below 64.
        seq: u32::from(40_503u16.wrapping_mul(60_000)) << 16 | 0x0100,
        ack: 0,
        window: WINDOW,
        payload: Vec::new(),
    }
}

/// A frame that nothing good comes of.
pub fn garbage(random: &mut Random) -> (PortId, Vec<u8>) {
    let port = random.pick(&[EXTERNAL, INTERNAL]);
    let mac = if port == EXTERNAL { EXTERNAL_MAC } else { INTERNAL_MAC };
    let mut frame = match random.below(6) {
        0 => noise(random, mac),
        1 => stray(random, port, mac).encode(),
        2 => {
            let mut frame = stray(random, port, mac).encode();
            frame.truncate(random.between(14, frame.len() as u64) as usize);
            frame
        }
        3 => echo(random, mac),
        4 => wire::arp((somebody(port), Mac::BROADCAST), 1, host_on(port, 99), host_on(port, 98)),
        _ => wire::port_unreachable(&stray(random, port, mac)),
    };
    if random.per_mille(100) {
        frame[5] ^= 0x40;
    }
    (port, frame)
}

fn noise(random: &mut Random, mac: Mac) -> Vec<u8> {
    let length = random.between(14, 120) as usize;
    let mut frame: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
    frame[..6].copy_from_slice(&mac.0);
    let ethertype = random.pick(&[[8, 0], [0x86, 0xdd], [8, 6], [0x81, 0], [0x12, 0x34]]);
    frame[12..14].copy_from_slice(&ethertype);
    frame
}

/// A packet of no connection, from an address that nobody has.
fn stray(random: &mut Random, port: PortId, mac: Mac) -> Packet {
    let dst =
        random.pick(&[[192, 0, 2, 100], [192, 0, 2, 10], [10, 1, 0, 10], [10, 1, 0, 150], [8, 8, 8, 8]]);
    Packet {
        macs: (somebody(port), mac),
        src: (Address::v4([203, 0, 113, random.below(256) as u8]), random.between(1, 65_535) as u16),
        dst: (Address::v4(dst), random.between(1, 65_535) as u16),
        protocol: random.pick(&[TCP, UDP]),
        flags: random.pick(&[0x10, 0x04, 0x11, 0x12]),
        seq: u32::from(40_503u16.wrapping_mul(60_001)) << 16,
        ack: u32::from(40_503u16.wrapping_mul(60_001)) << 16,
        window: WINDOW,
        payload: vec![0; 8],
    }
}

fn echo(random: &mut Random, mac: Mac) -> Vec<u8> {
    let dst = random.pick(&[[192, 0, 2, 100], [10, 1, 0, 10], [192, 0, 2, 77]]);
    let message = vec![8, 0, 0, 0, 0, 1, 0, 2, 1, 2, 3, 4];
    let from = Address::v4([203, 0, 113, 5]);
    wire::ip_frame((setup::mac_of(from), mac), from, Address::v4(dst), 1, message, 2)
}

fn somebody(port: PortId) -> Mac {
    if port == EXTERNAL { Mac([2, 0, 0, 0, 2, 1]) } else { Mac([2, 0, 0, 0, 1, 99]) }
}

fn host_on(port: PortId, last: u8) -> Address {
    Address::v4(if port == EXTERNAL { [192, 0, 2, last] } else { [10, 1, 0, last] })
}
