//! TCP engines allocate when their places and buffers are first used and never again.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use sluice_dataplane::address::Address;
use sluice_dataplane::clock::Instant;
use sluice_dataplane::tcp::native::Native;
use sluice_dataplane::tcp::smoltcp::Smoltcp;
use sluice_dataplane::tcp::{Agreed, ConnId, Engine, EngineSpec, Opening, Options, Sink, State};
use sluice_ffi::counting::{CountingAllocator, allocations};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const SPEC: EngineSpec =
    EngineSpec { connections: 4, receive_buffer: 65_536, send_buffer: 65_536, mtu: 1500 };
const ISN: [u32; 2] = [1_000, 2_000];
const ADDRESSES: [[u8; 4]; 2] = [[10, 0, 0, 1], [10, 0, 0, 2]];

/// Room for a few packets that was there before.
struct Tray {
    packets: [[u8; 1500]; 8],
    lens: [usize; 8],
    count: usize,
}

impl Sink for Tray {
    fn has_room(&mut self) -> bool {
        self.count < self.packets.len()
    }

    fn largest(&self) -> usize {
        0
    }

    fn packet(&mut self, len: usize, _: Option<u16>, fill: impl FnOnce(&mut [u8])) {
        fill(&mut self.packets[self.count][..len]);
        self.lens[self.count] = len;
        self.count += 1;
    }
}

#[test]
fn places_of_smoltcp_that_were_used_allocate_nothing() {
    repeats::<Smoltcp>();
}

#[test]
fn places_of_our_own_that_were_used_allocate_nothing() {
    repeats::<Native>();
}

/// Connections one after the other in the same place.
fn repeats<E: Engine>() {
    let mut engines = [E::new(SPEC), E::new(SPEC)];
    let openings = [0, 1].map(|side| Opening {
        local: (Address::v4(ADDRESSES[side]), 80),
        remote: (Address::v4(ADDRESSES[1 - side]), 80),
        isn: ISN[side],
        options: Options::default(),
    });
    let mut tray = Tray { packets: [[0; 1500]; 8], lens: [0; 8], count: 0 };
    let mut made = Vec::with_capacity(4);
    for round in 0..4 {
        let before = allocations();
        exchange(&mut engines, &openings, &mut tray, Instant::from_ms(round * 100_000 + 1));
        made.push(allocations() - before);
    }
    assert!(made[0] > 0, "buffers were taken");
    assert_eq!(made[1..], [0, 0, 0]);
}

/// A connection: both say something, of which some is lost, and close; all in places that are given back.
fn exchange<E: Engine>(engines: &mut [E; 2], openings: &[Opening; 2], tray: &mut Tray, mut now: Instant) {
    let client = engines[0].connect(&openings[0], now).unwrap();
    let agreed = Agreed { peer_isn: ISN[0], peer_mss: 1460, peer_scale: Some(1), sack: true };
    let server = engines[1].accept(&openings[1], &agreed, now).unwrap();
    let ids = [client, server];
    carry(engines, ids, 0, tray, 0, now);
    let announced = engines[1].announced();
    engines[0].receive(client, &syn_ack(announced.window), now);
    for turn in 0..10 {
        for side in 0..2 {
            engines[side].send(ids[side], &[turn; 4000]);
            // The first of three is lost now and then, and sent again when its time has come.
            for lost in [usize::from(turn % 3 == 1), 0, 0, 0, 0, 0] {
                carry(engines, ids, side, tray, lost, now);
                carry(engines, ids, 1 - side, tray, 0, now);
                now = now + Duration::from_secs(2);
            }
            let mut read = 0;
            while engines[1 - side].readable(ids[1 - side]) > 0 {
                read += engines[1 - side].read(ids[1 - side], <[u8]>::len);
            }
            assert_eq!(read, 4000);
        }
    }
    for turn in 0..6 {
        engines[turn % 2].close(ids[turn % 2]);
        carry(engines, ids, turn % 2, tray, 0, now);
    }
    assert_eq!(engines[0].state(client), State::TimeWait);
    assert_eq!(engines[1].state(server), State::Closed);
    ids.into_iter().zip(engines).for_each(|(id, engine)| engine.release(id));
}

/// Takes what a side sends to the other, but for the first so many.
fn carry<E: Engine>(
    engines: &mut [E; 2],
    ids: [ConnId; 2],
    side: usize,
    tray: &mut Tray,
    lost: usize,
    now: Instant,
) {
    tray.count = 0;
    engines[side].transmit(ids[side], tray, now);
    for (packet, len) in tray.packets.iter().zip(tray.lens).take(tray.count).skip(lost) {
        engines[1 - side].receive(ids[1 - side], &packet[..len], now);
    }
}

/// The answer to side 0's SYN, without the heap.
fn syn_ack(window: u16) -> [u8; 40] {
    let mut packet = [0; 40];
    packet[..10].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6]);
    packet[12..16].copy_from_slice(&ADDRESSES[1]);
    packet[16..20].copy_from_slice(&ADDRESSES[0]);
    packet[20..24].copy_from_slice(&[0, 80, 0, 80]);
    packet[24..28].copy_from_slice(&ISN[1].to_be_bytes());
    packet[28..32].copy_from_slice(&ISN[0].wrapping_add(1).to_be_bytes());
    packet[32..34].copy_from_slice(&[0x50, 0x12]);
    packet[34..36].copy_from_slice(&window.to_be_bytes());
    packet
}
