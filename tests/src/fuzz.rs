//! The bodies of the fuzz targets, so that a unit test can run their corpus without a fuzzer.
//!
//! Each takes any bytes, must not panic, and checks what must hold whatever the bytes are.

#[path = "../../dataplane/tests/world/mod.rs"]
mod harness;

use std::cell::RefCell;

use sluice_control::check::{self, Against};
use sluice_control::parse;
use sluice_dataplane::address::Mac;
use sluice_dataplane::config::ids::PortId;
use sluice_dataplane::packet::parse::{Parsed, parse as parse_frame};

use harness::World;

/// The packet parser: offsets lie inside the frame and in order, and what it accepts it accepts again.
pub fn packet_parser(bytes: &[u8]) {
    let mac = bytes.first_chunk::<6>().map_or(Mac::default(), |octets| Mac(*octets));
    let parsed = parse_frame(bytes, mac);
    match parsed {
        Ok(Parsed::Ip(packet)) => {
            let (l3, l4, end) =
                (packet.l3 as usize, packet.l4 as usize, packet.l3 as usize + packet.ip_len as usize);
            assert!(l3 < l4 && l4 <= end && end <= bytes.len());
            assert_eq!(parse_frame(&bytes[..end], mac), parsed, "padding changes nothing");
        }
        Ok(Parsed::Fragment(fragment)) => {
            let (packet, end) =
                (fragment.packet, fragment.packet.l3 as usize + fragment.packet.ip_len as usize);
            assert!(packet.l3 < packet.l4 && packet.l4 as usize + fragment.len as usize == end);
            assert!(end <= bytes.len() && fragment.offset + fragment.len <= 65_535);
            assert_eq!(parse_frame(&bytes[..end], mac), parsed, "padding changes nothing");
        }
        Ok(Parsed::Arp { offset, .. }) => assert!(usize::from(offset) <= bytes.len()),
        Err(_) => {}
    }
}

/// The configuration: any text is either refused with a reason or becomes a model that reads back as itself.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for format in [parse::Format::Yaml, parse::Format::Json] {
        let checked = parse::read(text, format).and_then(|node| check::check(&node, &Against::NOTHING));
        match checked {
            Err(faults) => assert!(!faults.is_empty(), "a refusal has a reason"),
            Ok(candidate) => {
                let written = candidate.model.to_json().to_string();
                let again = parse::read(&written, parse::Format::Json)
                    .and_then(|n| check::check(&n, &Against::NOTHING));
                assert_eq!(again.expect("what we write we can read").model, candidate.model);
            }
        }
    }
}

/// A worker: the bytes are cut into frames for either port, with time passing in between; connections that are
/// counted as open are in the table, and everything ends in time.
pub fn worker_burst(bytes: &[u8]) {
    thread_local! {
        static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
    }
    WORLD.with_borrow_mut(|world| {
        let world = world.get_or_insert_with(|| World::started(|_| ()));
        let mut rest = bytes;
        while let Some((&[control, len], tail)) = rest.split_first_chunk::<2>() {
            let (frame, tail) = tail.split_at(tail.len().min(usize::from(len)));
            rest = tail;
            world.now_ms += u64::from(control >> 1) * 16;
            if !frame.is_empty() {
                world.send(PortId(control & 1), frame);
            }
        }
        world.run(0);
        let open: u64 = (0..3).map(|id| world.open_connections(id)).sum();
        assert_eq!(open, world.flows().len() as u64);
    });
}
