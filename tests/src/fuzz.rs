//! The bodies of the fuzz targets, so that a unit test can run their corpus without a fuzzer.
//!
//! Each takes any bytes, must not panic, and checks what must hold whatever the bytes are.

#[path = "../../dataplane/tests/world/mod.rs"]
mod harness;
#[path = "../../dataplane/tests/http_table/check.rs"]
mod http_check;
#[path = "../../dataplane/tests/http_table/reference.rs"]
#[allow(dead_code, reason = "each of its users has its own part")]
mod reference;
#[path = "../../dataplane/tests/http_table/run.rs"]
#[allow(dead_code, reason = "each of its users has its own part")]
mod run;

#[path = "../../dataplane/tests/tcp_world/packet.rs"]
#[allow(clippy::unwrap_used, unreachable_pub, dead_code, reason = "each of its users has its own part")]
mod packet;
#[path = "../../dataplane/tests/tcp_script/mod.rs"]
mod tcp_script;

mod exchange;
mod strict;

use std::cell::RefCell;

use sluice_control::check::{self, Against};
use sluice_control::parse;
use sluice_dataplane::address::Mac;
use sluice_dataplane::config::ids::PortId;
use sluice_dataplane::frame::FramePool;
use sluice_dataplane::http::{Asked, Method, Version};
use sluice_dataplane::packet::mss;
use sluice_dataplane::packet::parse::{Class, Packet, Parsed, parse as parse_frame};
use sluice_dataplane::proxy_protocol::{self, Origin, Tlvs, V1_MAX, V2_MAX};
use sluice_dataplane::tcp::handshake::Syn;

use harness::World;

pub use exchange::proxy_exchange;

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
            if packet.class == Class::Tcp {
                clamp_twice(bytes, &packet);
                read_syn(&bytes[l4..end], packet.key.src.is_v4());
            }
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

/// What a SYN says is in range, and hangs on its header only.
fn read_syn(segment: &[u8], is_v4: bool) {
    let syn = Syn::read(segment, is_v4);
    assert!(syn.mss >= 64 && syn.scale.is_none_or(|scale| scale <= 14));
    let header = &segment[..usize::from(segment[12] >> 4) * 4];
    assert_eq!(Syn::read(header, is_v4), syn);
}

/// A SYN's option is lowered once, in place, and nothing else of the packet changes but its checksum.
fn clamp_twice(bytes: &[u8], packet: &Packet) {
    let Some(mut frame) = FramePool::new(1).copy_of(bytes) else { return };
    let was_changed = mss::clamp(&mut frame, packet, 500);
    assert_eq!(frame.len(), bytes.len());
    let differ = frame.bytes().iter().zip(bytes).filter(|(new, old)| new != old).count();
    assert!(differ <= if was_changed { 4 } else { 0 });
    assert!(!mss::clamp(&mut frame, packet, 500));
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
        let counted = world.flows().iter().filter(|flow| flow.state != "closing").count();
        assert_eq!(open, counted as u64);
    });
}

/// The life of a TCP connection: what its peer says, what its owner does, time, and a sink with little room.
pub fn tcp_engine(bytes: &[u8]) {
    tcp_script::run(bytes);
}

/// Requests of a client, in pieces of a size that the first byte says: the pieces change nothing, and what is passed
/// on is read the same by a strict reader that shares nothing with the engine.
pub fn http_requests(bytes: &[u8]) {
    let Some((&control, input)) = bytes.split_first() else { return };
    let whole = run::requests([input]);
    assert_eq!(run::requests(input.chunks(usize::from(control) + 1)), whole);
    http_check::requests(&whole).expect("everyone reads the same");
}

/// A chunked request body; as [`http_requests`].
pub fn http_chunks(bytes: &[u8]) {
    let Some((&control, input)) = bytes.split_first() else { return };
    let head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    http_requests(&[&[control], head.as_slice(), input].concat());
}

/// Responses of a member to a request that the first byte describes; as [`http_requests`].
pub fn http_responses(bytes: &[u8]) {
    let Some((&control, input)) = bytes.split_first() else { return };
    let method = [Method::Get, Method::Head, Method::Connect, Method::Post][usize::from(control & 3)];
    let asked = Asked { method, upgrade: control & 4 != 0 };
    let client = if control & 8 != 0 { Version::Http10 } else { Version::Http11 };
    let told = run::Told { asked, client, close: control & 16 != 0, eof: control & 32 != 0 };
    let whole = run::responses([input], told);
    assert_eq!(run::responses(input.chunks(usize::from(control >> 6) + 1), told), whole);
    http_check::responses(&whole, told).expect("everyone reads the same");
}

/// A PROXY header: a fault is a fault however much has come, and what is taken is written and read again as itself.
pub fn proxy_header(bytes: &[u8]) {
    let whole = proxy_protocol::parse(bytes);
    for len in 0..bytes.len().min(300) {
        let early = proxy_protocol::parse(&bytes[..len]);
        assert!(early == Ok(None) || early == whole);
    }
    let Ok(Some(header)) = whole else { return };
    assert!(header.len <= bytes.len());
    let mut out = [0; V2_MAX];
    let len = proxy_protocol::write_v1(&header.origin, &mut out).expect("room");
    assert!(len <= V1_MAX && matches!(proxy_protocol::parse(&out[..len]), Ok(Some(_))));
    // Without the fields, so that a checksum of our own always fits.
    let len = proxy_protocol::write_v2(&header.origin, Tlvs::default(), true, &mut out).expect("room");
    let again = proxy_protocol::parse(&out[..len]).expect("ours").expect("all of it");
    assert_eq!((again.origin, again.len), (header.origin, len));
    let kept = proxy_protocol::write_v2(&header.origin, header.tlvs, false, &mut out)
        .expect("no longer than it was");
    let again = proxy_protocol::parse(&out[..kept]).expect("ours").expect("all of it");
    let plain = |(kind, _): &(u8, &[u8])| ![proxy_protocol::CRC_TLV, proxy_protocol::NOOP_TLV].contains(kind);
    assert!(again.tlvs.eq(header.tlvs.filter(plain)) || header.origin == Origin::Local);
}
