//! Wires that lose, double and reorder; floods; headers that say who a client is, or do not.

use std::collections::HashSet;

use sluice_dataplane::config::proxy::{ProxyProfile, ProxyVersion, TcpProfile};
use sluice_dataplane::frame::FramePool;
use sluice_dataplane::packet::build::{Tcp, address, tcp};
use sluice_dataplane::packet::parse::tcp_flag;
use sluice_dataplane::proxy_protocol::{self, Endpoint, Origin, Tlvs, Transport, V2_MAX};
use sluice_dataplane::verdict::DropReason;

use crate::harness::{Faults, Left, Net, SERVICE, limits};
use crate::random::Random;
use crate::world::{CLIENT_MAC, EXTERNAL, EXTERNAL_MAC, prefix};

#[test]
fn bytes_survive_a_wire_that_loses_doubles_and_reorders() {
    let mut random = Random::seeded();
    for round in 0..6 {
        let seed = random.seed.wrapping_add(round);
        let mut net = Net::new(patient());
        net.faults = Some(Faults { random: Random::with(seed), lost: LOST, doubled: 5, delayed: 20 });
        let clients: Vec<usize> = (0..3).map(|_| net.ask()).collect();
        let (up, down) = (random.bytes(60_000), random.bytes(90_000));
        for &client in &clients {
            net.clients.socks[client].to_send = up.clone();
            net.clients.socks[client].closes = true;
        }
        let mut served = HashSet::new();
        for _ in 0..240 {
            net.pass(500);
            for (member, sock) in net.members.socks.iter_mut().enumerate() {
                if sock.got.len() == up.len() && served.insert(member) {
                    sock.to_send = down.clone();
                    sock.closes = true;
                }
            }
            if clients.iter().all(|&client| net.clients.socks[client].is_done) {
                break;
            }
        }
        let right = |bytes: &[u8]| bytes == down;
        let states: Vec<_> =
            clients.iter().map(|&client| (net.client_is(client), net.got(client).len())).collect();
        assert!(clients.iter().all(|&client| right(net.got(client))), "round {round}: {states:?}");
        assert!(net.members.socks.iter().filter(|sock| sock.got == up).count() == 3, "seed {seed}");
        net.assert_nothing_is_left();
    }
}

/// Of a hundred frames. smoltcp waits for a second at least before it sends again, twice as long after each loss, and takes
/// that back only when it has timed what it sent once (RFC 6298): with three, once in some thousand connections so many
/// losses follow each other that nothing moves for longer than our timeouts allow.
const LOST: usize = if cfg!(feature = "smoltcp-engine") { 1 } else { 3 };

/// Two lost SYNs in a row are no reason to give up.
fn patient() -> ProxyProfile {
    let server_tcp = TcpProfile { connect_ms: 30_000, ..TcpProfile::default() };
    ProxyProfile { server_tcp, ..ProxyProfile::default() }
}

#[test]
fn resets_and_closes_on_a_bad_wire_leave_nothing_behind() {
    let mut random = Random::seeded();
    // Where both ends have gone and their RSTs are lost, or the challenges that answer them, nothing else tells.
    let mut net = Net::with(ProxyProfile::default(), limits(), |parts| {
        parts.pools[0].members.truncate(1);
        parts.virtuals[0].timeouts.idle_ms = 60_000;
    });
    net.faults = Some(Faults { random: Random::with(random.seed), lost: 10, doubled: 10, delayed: 30 });
    for _ in 0..60 {
        let client = net.ask();
        let len = random.below(3_000);
        net.clients.socks[client].to_send = random.bytes(len);
        net.pass(random.below(400) as u64);
        let member = net.members.socks.len().checked_sub(1);
        match random.below(5) {
            0 => net.clients.abort(client),
            1 => net.clients.socks[client].closes = true,
            2 => member.into_iter().for_each(|member| net.members.abort(member)),
            3 => member.into_iter().for_each(|member| net.members.socks[member].closes = true),
            _ => {}
        }
        net.pass(random.below(100) as u64);
    }
    net.assert_nothing_is_left();
}

#[test]
fn a_damaged_segment_is_dropped_and_sent_again() {
    let mut net = Net::new(ProxyProfile::default());
    let client = net.client();
    let from = (address(crate::world::CLIENT), net.clients.socks[client].key.dst_port);
    let mut bytes = segment(from.1, tcp_flag::ACK, b"damaged");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    net.world.send(EXTERNAL, &bytes);
    assert_eq!(net.world.drops(DropReason::BadChecksum), 1);
    net.client_sends(client, b"whole");
    assert_eq!(net.told(0), b"whole");
    net.assert_nothing_is_left();
}

fn segment(src_port: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    said_by(src_port, flags, 77, 0, payload)
}

fn said_by(src_port: u16, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    tcp(&Tcp {
        dst_mac: EXTERNAL_MAC,
        src_mac: CLIENT_MAC,
        src: crate::world::CLIENT,
        dst: SERVICE.0,
        src_port,
        dst_port: SERVICE.1,
        flags,
        seq,
        ack,
        payload,
        ..Tcp::default()
    })
}

/// What a client says to a SYN-ACK that comes again follows the data that is lost.
#[test]
fn a_handshake_is_complete_though_the_first_data_is_lost() {
    let mut net = Net::new(ProxyProfile::default());
    let answer = net.world.send(EXTERNAL, &segment(7_000, tcp_flag::SYN, b""));
    let isn = u32::from_be_bytes(answer[0].bytes[38..42].try_into().expect("four bytes"));
    let later = |ack| said_by(7_000, tcp_flag::ACK, 77 + 1 + 1_024, ack, b"");
    net.world.send(EXTERNAL, &later(isn));
    assert_eq!(net.world.open_connections(0), 0, "that is no answer");
    let said = net.world.send(EXTERNAL, &later(isn.wrapping_add(1)));
    assert_eq!(net.world.open_connections(0), 1);
    assert!(said.iter().all(|out| out.bytes[47] & tcp_flag::RST == 0));
    net.assert_nothing_is_left();
}

#[test]
fn a_flood_of_syns_takes_nothing_from_honest_clients() {
    let mut limits = limits();
    (limits.half_open, limits.proxies) = (16, 32);
    let mut net = Net::with(ProxyProfile::default(), limits, |_| ());
    let early = net.client();
    let frames = FramePool::new(64);
    for port in 1..3_000u16 {
        let frame = frames.copy_of(&segment(port, tcp_flag::SYN, b"")).expect("a frame");
        net.world.ports[0].send(frame).expect("room on the wire");
        net.world.worker.turn(net.now());
        while net.world.ports[0].recv().is_some() {}
    }
    assert_eq!(net.world.open_connections(0), 1, "a SYN takes nothing");
    for round in 0..20 {
        let client = net.client();
        net.client_sends(client, b"by cookie");
        let member = net.members.socks.len() - 1;
        assert_eq!(net.told(member), b"by cookie", "round {round}");
        net.client_resets(client);
    }
    net.client_sends(early, b"still here");
    assert_eq!(net.told(0), b"still here");
    net.pass(1_100);
    assert!(net.world.counters.syn_cookies.load() > 2_000);
    net.assert_nothing_is_left();
}

#[test]
fn segments_that_belong_to_nothing_are_refused_and_leave_nothing() {
    let mut net = Net::new(ProxyProfile::default());
    for flags in [0, tcp_flag::ACK, tcp_flag::FIN, tcp_flag::RST, tcp_flag::SYN | tcp_flag::ACK, 0x3f] {
        net.world.send(EXTERNAL, &segment(7_000, flags, b"x"));
    }
    net.pass(100);
    assert_eq!(net.left(), Left::default());
    assert_eq!(net.members.syns, 0);
}

/// Accepts headers from the usual clients and sends what `send` says.
fn with_headers(send: Option<ProxyVersion>) -> Net {
    Net::new(ProxyProfile {
        accept_proxy_from: vec![prefix("198.51.100.0/24")],
        send_proxy: send,
        ..ProxyProfile::default()
    })
}

const LINE: &[u8] = b"PROXY TCP4 203.0.113.5 203.0.113.80 4711 443\r\n";

fn said() -> Origin<'static> {
    let end = |text, port| Endpoint { address: address(text), port };
    Origin::Ip {
        transport: Transport::Stream,
        source: end("203.0.113.5", 4711),
        destination: end("203.0.113.80", 443),
    }
}

fn v2(tlvs: &[u8]) -> Vec<u8> {
    let mut bytes = [0; V2_MAX];
    let tlvs = Tlvs::read(tlvs).expect("fields");
    let len = proxy_protocol::write_v2(&said(), tlvs, true, &mut bytes).expect("room");
    bytes[..len].to_vec()
}

#[test]
fn a_header_is_taken_off_in_whatever_pieces_it_comes() {
    for header in [LINE.to_vec(), v2(&[]), v2(&[2, 0, 3, b'a', b'.', b'b'])] {
        for step in [1, 7, 1_000] {
            let mut net = with_headers(None);
            let client = net.client();
            for piece in [&header[..], b"payload"].concat().chunks(step) {
                net.client_sends(client, piece);
            }
            assert_eq!(net.told(0), b"payload", "in pieces of {step}");
            net.member_sends(0, b"answer");
            assert_eq!(net.got(client), b"answer");
            net.assert_nothing_is_left();
        }
    }
}

#[test]
fn what_a_header_said_is_told_to_the_member() {
    let tlvs = [2, 0, 3, b'a', b'.', b'b', 5, 0, 1, 9];
    for crc in [false, true] {
        let mut net = with_headers(Some(ProxyVersion::V2 { crc }));
        let client = net.client();
        net.client_sends(client, &[&v2(&tlvs)[..], b"payload"].concat());
        let header = proxy_protocol::parse(net.told(0)).expect("a header").expect("all of it");
        assert_eq!((header.version, header.origin), (2, said()));
        let kept: Vec<_> = header.tlvs.filter(|(kind, _)| *kind != proxy_protocol::CRC_TLV).collect();
        assert_eq!(kept, [(2, &b"a.b"[..]), (5, &[9][..])]);
        let has_crc = header.tlvs.into_iter().any(|(kind, _)| kind == proxy_protocol::CRC_TLV);
        assert_eq!((has_crc, &net.told(0)[header.len..]), (crc, &b"payload"[..]));
        net.assert_nothing_is_left();
    }
    let mut net = with_headers(Some(ProxyVersion::V1));
    let client = net.client();
    net.client_sends(client, &[LINE, b"payload"].concat());
    assert_eq!(net.told(0), [LINE, b"payload"].concat());
    net.assert_nothing_is_left();
}

#[test]
fn without_a_header_the_member_is_told_of_the_connection_itself() {
    let mut net = Net::new(ProxyProfile { send_proxy: Some(ProxyVersion::V1), ..ProxyProfile::default() });
    let client = net.client();
    let port = net.clients.socks[client].key.dst_port;
    net.client_sends(client, LINE);
    let own = format!("PROXY TCP4 198.51.100.7 192.0.2.100 {port} 80\r\n");
    assert_eq!(net.told(0), [own.as_bytes(), LINE].concat(), "a header from anyone else is payload");
    net.assert_nothing_is_left();
}

#[test]
fn a_header_that_is_none_is_refused_before_a_member_hears_of_it() {
    let mut wrong_crc = v2(&[]);
    *wrong_crc.last_mut().expect("bytes") ^= 1;
    let mut unknown = v2(&[]);
    unknown[12] = 0x31;
    for (count, bytes) in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"PROXY TCP4 203.0.113.5 203.0.113.80 4711 99999\r\n",
        b"PROXY TCP4 203.0.113.5 203.0.113.80 4711\r\n",
        b"PROXY TCP6 203.0.113.5 203.0.113.80 4711 443\r\n",
        b"PROXY TCP4 203.0.113.5 203.0.113.80 4711 443\n",
        b"proxy TCP4 203.0.113.5 203.0.113.80 4711 443\r\n",
        &[b'P'; 200],
        &wrong_crc,
        &unknown,
        &v2(&[])[1..],
    ]
    .into_iter()
    .enumerate()
    {
        let mut net = with_headers(None);
        let client = net.client();
        net.client_sends(client, bytes);
        net.pass(50);
        assert_eq!((net.client_is(client), net.members.syns), ("reset", 0), "row {count}");
        assert_eq!(net.world.drops(DropReason::ProxyHeader), 1, "row {count}");
        assert_eq!(net.left(), Left::default());
    }
}

#[test]
fn a_header_that_does_not_come_is_not_waited_for_for_ever() {
    let mut net = with_headers(None);
    let silent = net.client();
    let slow = net.client();
    net.client_sends(slow, &LINE[..20]);
    let gone = net.client();
    net.client_sends(gone, &LINE[..20]);
    net.pass(4_800);
    assert_eq!((net.client_is(silent), net.client_is(slow)), ("open", "open"));
    net.client_closes(gone);
    assert_eq!(net.client_is(gone), "reset");
    net.pass(400);
    assert_eq!((net.client_is(silent), net.client_is(slow)), ("reset", "reset"));
    net.assert_nothing_is_left();
    assert_eq!(net.members.syns, 0);
}

/// Wherever the client's end cuts it; and what is whole is served, though the end comes with it.
#[test]
fn a_header_that_cannot_become_whole_ends_its_connection_at_once() {
    for header in [LINE.to_vec(), v2(&[2, 0, 3, b'a', b'.', b'b'])] {
        for len in 0..header.len() {
            for in_one in [true, false] {
                let mut net = with_headers(None);
                let client = net.client();
                net.clients.socks[client].closes = in_one;
                net.client_sends(client, &header[..len]);
                net.client_closes(client);
                assert_eq!((net.client_is(client), net.members.syns), ("reset", 0), "{len} bytes");
                assert_eq!(net.left(), Left::default(), "{len} bytes");
            }
        }
        let mut net = with_headers(None);
        let client = net.client();
        net.clients.socks[client].closes = true;
        net.client_sends(client, &[&header[..], b"payload"].concat());
        net.pass(100);
        assert_eq!((net.told(0), net.member_is(0)), (&b"payload"[..], "closed"));
        net.assert_nothing_is_left();
    }
}

#[test]
fn a_health_check_with_a_header_speaks_for_itself() {
    let mut net = with_headers(Some(ProxyVersion::V1));
    let client = net.client();
    let mut bytes = [0; V2_MAX];
    let len = proxy_protocol::write_v2(&Origin::Local, Tlvs::default(), false, &mut bytes).expect("room");
    net.client_sends(client, &bytes[..len]);
    let port = net.clients.socks[client].key.dst_port;
    assert_eq!(net.told(0), format!("PROXY TCP4 198.51.100.7 192.0.2.100 {port} 80\r\n").as_bytes());
    net.assert_nothing_is_left();
}
