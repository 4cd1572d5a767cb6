//! The table by itself: order, overlap, bounds, time.

use super::*;
use crate::frame::FramePool;
use crate::packet::build::address;
use crate::packet::parse::{Class, Packet, protocol};

fn table() -> FragmentTable {
    FragmentTable::new(Backing::Ordinary)
}

/// A UDP fragment of packet `id`, with ports when it is the first.
fn piece(id: u32, offset: u32, len: u32, more: bool) -> Fragment {
    let mut packet = Packet { class: Class::Fragment, ..Packet::BLANK };
    packet.key.src = address("198.51.100.7");
    packet.key.dst = address("192.0.2.100");
    packet.key.protocol = protocol::UDP;
    if offset == 0 {
        (packet.class, packet.key.src_port, packet.key.dst_port) = (Class::Udp, 4_000, 53);
    }
    Fragment { packet, id, offset, len, more }
}

fn transport(src_port: u16, dst_port: u16) -> Transport {
    Transport { src_port, dst_port, protocol: protocol::UDP }
}

fn at(ms: u64) -> Instant {
    Instant::from_ms(ms)
}

fn known(arrival: Result<Arrival, DropReason>) -> EntryId {
    match arrival {
        Ok(Arrival::Known(id)) => id,
        other => panic!("{other:?}"),
    }
}

fn early(arrival: Result<Arrival, DropReason>) -> EntryId {
    match arrival {
        Ok(Arrival::Early(id)) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn later_fragments_have_the_ports_of_the_first_and_a_whole_packet_is_forgotten() {
    let mut table = table();
    for (offset, more) in [(0, true), (1_480, true), (2_960, false)] {
        let id = known(table.arrive(&piece(1, offset, 1_480, more), None, at(0)));
        assert_eq!(table.transport(id), transport(4_000, 53));
        assert_eq!(table.new_id(id, || 77), 77);
        assert_eq!(table.new_id(id, || 78), 77, "one id for the whole packet");
        table.forget_if_whole(id);
    }
    assert!(table.is_empty());
}

#[test]
fn fragments_before_the_first_wait_in_order() {
    let (mut table, pool) = (table(), FramePool::new(4));
    for (order, offset) in [2_960, 1_480].into_iter().enumerate() {
        let id = early(table.arrive(&piece(1, offset, 1_480, offset == 1_480), None, at(0)));
        table.hold(id, PortId(order as u8), pool.copy_of(&[0; 60]).unwrap()).unwrap();
    }
    let id = known(table.arrive(&piece(1, 0, 1_480, true), None, at(5)));
    table.forget_if_whole(id);
    let ports: Vec<_> = std::iter::from_fn(|| table.take_waiting(id)).map(|(port, _)| port.0).collect();
    assert_eq!((ports, pool.in_use()), (vec![0, 1], 0));
    table.forget_if_whole(id);
    assert!(table.is_empty());
}

#[test]
fn ports_may_be_told_by_who_has_seen_the_first() {
    let id = known(table().arrive(&piece(1, 1_480, 1_480, true), Some(transport(1, 2)), at(0)));
    assert_eq!(id, EntryId(0));
}

#[test]
fn any_overlap_ruins_the_packet_until_it_is_forgotten() {
    type Pieces = &'static [(u32, u32, bool)];
    let cases: &[(&str, Pieces)] = &[
        ("teardrop: the second within the first", &[(0, 48, true), (24, 8, true)]),
        ("the tail of the first again", &[(0, 48, true), (40, 16, true)]),
        ("two in one", &[(0, 16, true), (16, 16, true), (0, 32, true)]),
        ("half of one", &[(0, 32, true), (0, 16, true)]),
        ("the second half of one", &[(0, 32, true), (16, 16, true)]),
        ("beyond the end", &[(0, 16, true), (16, 13, false), (32, 8, true)]),
        ("a second end", &[(0, 16, true), (16, 13, false), (32, 8, false)]),
        ("an end before what has come", &[(0, 16, true), (64, 16, true), (16, 8, false)]),
        ("another length of the last", &[(0, 16, true), (16, 13, false), (16, 12, false)]),
        ("the last goes on", &[(0, 16, true), (16, 16, false), (16, 16, true)]),
    ];
    for (name, pieces) in cases {
        let mut table = table();
        let (last, before) = pieces.split_last().unwrap();
        for &(offset, len, more) in before {
            assert!(table.arrive(&piece(1, offset, len, more), None, at(0)).is_ok(), "{name}");
        }
        let overlap = Err(DropReason::FragmentOverlap);
        assert_eq!(table.arrive(&piece(1, last.0, last.1, last.2), None, at(0)), overlap, "{name}");
        assert_eq!(table.arrive(&piece(1, 4_000, 8, true), None, at(1)), overlap, "{name}: all of it");
        assert!(table.arrive(&piece(2, 0, 8, true), None, at(1)).is_ok(), "{name}: no other");
        assert!(table.arrive(&piece(1, 0, 8, true), None, at(2_100)).is_ok(), "{name}: it is forgotten");
    }
}

#[test]
fn an_overlap_drops_what_waits() {
    let (mut table, pool) = (table(), FramePool::new(4));
    for offset in [80, 160] {
        let id = early(table.arrive(&piece(1, offset, 80, true), None, at(0)));
        table.hold(id, PortId(0), pool.copy_of(&[0; 60]).unwrap()).unwrap();
    }
    assert_eq!(table.arrive(&piece(1, 72, 16, true), None, at(0)), Err(DropReason::FragmentOverlap));
    assert_eq!(table.take_lost(), Lost { overlap: 2, ..Lost::default() });
    assert_eq!((pool.in_use(), table.take_lost()), (0, Lost::default()));
}

#[test]
fn exact_duplicates_are_told_apart_from_overlaps() {
    let mut table = table();
    let all = [(0, 16, true), (16, 16, true), (32, 13, false)];
    for (offset, len, more) in all {
        assert!(table.arrive(&piece(1, offset, len, more), None, at(0)).is_ok());
    }
    for (offset, len, more) in all {
        let again = table.arrive(&piece(1, offset, len, more), None, at(0));
        assert_eq!(again, Err(DropReason::FragmentDuplicate), "{offset}");
    }
}

#[test]
fn without_a_first_fragment_they_are_dropped_in_time() {
    let (mut table, pool) = (table(), FramePool::new(4));
    let id = early(table.arrive(&piece(1, 80, 80, true), None, at(1_000)));
    table.hold(id, PortId(0), pool.copy_of(&[0; 60]).unwrap()).unwrap();
    early(table.arrive(&piece(1, 160, 80, true), None, at(2_500)));
    table.expire(at(2_999));
    assert_eq!(table.take_lost().timeout, 0);
    table.expire(at(3_000));
    assert_eq!((table.take_lost().timeout, pool.in_use(), table.len()), (1, 0, 0), "news do not prolong it");
}

#[test]
fn a_known_packet_lives_from_its_last_fragment() {
    let mut table = table();
    known(table.arrive(&piece(1, 0, 80, true), None, at(0)));
    known(table.arrive(&piece(1, 80, 80, true), None, at(1_900)));
    early(table.arrive(&piece(2, 80, 80, true), None, at(1_950)));
    known(table.arrive(&piece(1, 160, 80, true), None, at(3_800)));
    table.expire(at(4_000));
    assert_eq!(table.len(), 1, "the other was older");
}

#[test]
fn what_waits_is_bounded_for_each_packet_and_in_all() {
    let (mut table, pool) = (table(), FramePool::new(1_024));
    let wait = |table: &mut FragmentTable, id: u32, offset: u32, bytes: usize| {
        let entry = early(table.arrive(&piece(id, offset, 8, true), None, at(0)));
        table.hold(entry, PortId(0), pool.copy_of(&vec![0; bytes]).unwrap())
    };
    for place in 1..=u32::from(WAITING_EACH_MAX) {
        wait(&mut table, 1, place * 8, 60).unwrap();
    }
    assert_eq!(wait(&mut table, 1, 8_000, 60), Err(DropReason::FragmentsFull));
    let left = WAITING_MAX as u32 - u32::from(WAITING_EACH_MAX);
    for id in 0..left {
        wait(&mut table, 100 + id, 8, 60).unwrap();
    }
    assert_eq!(wait(&mut table, 2, 8, 60), Err(DropReason::FragmentsFull));
    table.expire(at(9_000));
    (0..40).for_each(|_| table.expire(at(9_000)));
    assert_eq!((table.take_lost().timeout, pool.in_use()), (WAITING_MAX as u64, 0));
    for id in 0..8 {
        wait(&mut table, 500 + id, 8, 64_000).unwrap();
    }
    assert_eq!(wait(&mut table, 600, 8, 64_000), Err(DropReason::FragmentsFull), "bytes");
}

#[test]
fn a_packet_to_be_put_together_waits_for_all_of_it() {
    let (mut table, pool) = (table(), FramePool::new(8));
    let hold = |table: &mut FragmentTable, id: EntryId| {
        table.hold(id, PortId(0), pool.copy_of(&[0; 60]).unwrap()).unwrap();
    };
    let id = early(table.arrive(&piece(1, 160, 13, false), None, at(0)));
    hold(&mut table, id);
    assert_eq!(known(table.arrive(&piece(1, 0, 80, true), None, at(1_000))), id);
    table.keep_parts(id).unwrap();
    hold(&mut table, id);
    assert_eq!((table.parts, table.whole_len(id)), ((2, 120), None));
    assert_eq!(table.arrive(&piece(1, 80, 80, true), None, at(2_900)), Ok(Arrival::Part(id)));
    hold(&mut table, id);
    assert_eq!(table.whole_len(id), Some(173));
    assert_eq!(std::iter::from_fn(|| table.take_waiting(id)).count(), 3);
    table.forget_if_whole(id);
    assert_eq!((table.len(), table.parts, pool.in_use()), (0, (0, 0), 0));
}

#[test]
fn what_is_to_be_put_together_ends_with_an_overlap_or_with_its_time_whatever_comes() {
    for overlaps in [true, false] {
        let (mut table, pool) = (table(), FramePool::new(8));
        let id = known(table.arrive(&piece(1, 0, 80, true), None, at(0)));
        table.keep_parts(id).unwrap();
        for offset in [80, 160] {
            assert_eq!(table.arrive(&piece(1, offset, 80, true), None, at(1_900)), Ok(Arrival::Part(id)));
            table.hold(id, PortId(0), pool.copy_of(&[0; 60]).unwrap()).unwrap();
        }
        if overlaps {
            let overlap = table.arrive(&piece(1, 152, 16, true), None, at(1_950));
            assert_eq!(overlap, Err(DropReason::FragmentOverlap));
        }
        table.expire(at(2_000));
        let lost = table.take_lost();
        assert_eq!((lost.overlap, lost.timeout), if overlaps { (2, 0) } else { (0, 2) });
        assert_eq!((table.len(), table.parts, pool.in_use()), (0, (0, 0), 0));
    }
}

#[test]
fn packets_to_be_put_together_leave_room_for_others() {
    let (mut table, pool) = (table(), FramePool::new(512));
    let put = |table: &mut FragmentTable, id: u32, offset: u32, bytes: usize| {
        let entry = match table.arrive(&piece(id, offset, 8, true), None, at(0))? {
            Arrival::Known(entry) => table.keep_parts(entry).map(|()| entry)?,
            Arrival::Early(entry) | Arrival::Part(entry) => entry,
        };
        table.hold(entry, PortId(0), pool.copy_of(&vec![0; bytes]).unwrap())
    };
    for id in 0..PARTS_MAX.0 as u32 {
        put(&mut table, id, 0, 60).unwrap();
    }
    let full = Err(DropReason::FragmentsFull);
    assert_eq!(put(&mut table, 1, 8, 60), full);
    assert_eq!(put(&mut table, 1, 16, 60), full, "the rest of it");
    assert_eq!(table.take_lost().full, 1, "what it had kept");
    for place in 1..=60 {
        put(&mut table, 1_000, place * 8, 60).unwrap();
    }
    assert_eq!(put(&mut table, 1_000, 0, 60), full, "what has waited would be too much");
    assert_eq!(table.take_lost().full, 60);
    table.expire(at(9_000));
    (0..40).for_each(|_| table.expire(at(9_000)));
    assert_eq!((table.len(), table.parts, pool.in_use()), (0, (0, 0), 0));
    for id in 0..4 {
        put(&mut table, id, 0, 60_000).unwrap();
    }
    assert_eq!(put(&mut table, 4, 0, 60_000), full, "bytes");
}

#[test]
fn a_full_table_forgets_the_packet_with_the_oldest_news() {
    let (mut table, pool) = (table(), FramePool::new(4));
    let waits = early(table.arrive(&piece(9_999, 80, 80, true), None, at(0)));
    table.hold(waits, PortId(0), pool.copy_of(&[0; 60]).unwrap()).unwrap();
    known(table.arrive(&piece(0, 0, 80, true), None, at(0)));
    for id in 1..PACKETS_MAX as u32 {
        known(table.arrive(&piece(id, 0, 80, true), None, at(1)));
    }
    assert_eq!((table.len(), table.take_lost().full, pool.in_use()), (PACKETS_MAX, 1, 0));
    known(table.arrive(&piece(0, 80, 80, true), None, at(2)));
    known(table.arrive(&piece(7_000, 0, 80, true), None, at(3)));
    known(table.arrive(&piece(0, 160, 80, true), None, at(4)));
    early(table.arrive(&piece(1, 80, 80, true), None, at(5)));
}

#[test]
fn protocols_and_families_keep_their_ids_apart() {
    let mut table = table();
    known(table.arrive(&piece(1, 0, 80, true), None, at(0)));
    let mut other = piece(1, 80, 80, true);
    other.packet.key.protocol = protocol::TCP;
    early(table.arrive(&other, None, at(0)));
    let mut portless = piece(2, 80, 80, true);
    portless.packet.key.protocol = 47;
    let id = known(table.arrive(&portless, None, at(0)));
    assert_eq!(table.transport(id), Transport { protocol: 47, ..transport(0, 0) });
}

#[test]
fn any_order_of_any_cut_is_whole_exactly_at_the_end() {
    for seed in 0..200u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let total = 64 + next(60_000) as u32;
        let mut pieces = Vec::new();
        let mut offset = 0;
        while offset < total {
            let len = (8 + next(2_000) as u32 / 8 * 8).min(total - offset);
            pieces.push(piece(seed as u32, offset, len, offset + len < total));
            offset += len;
        }
        for at in (1..pieces.len()).rev() {
            pieces.swap(at, next(at as u64 + 1) as usize);
        }
        let mut table = table();
        for (place, fragment) in pieces.iter().enumerate() {
            let id = known(table.arrive(fragment, Some(transport(1, 2)), at(0)));
            table.forget_if_whole(id);
            assert_eq!(table.is_empty(), place + 1 == pieces.len(), "seed {seed}");
        }
    }
}
