//! What a careful stateful NAT does with TCP, UDP and ICMP: segments in, expected packets out, state after each.
//! `docs/NAT_BEHAVIOUR.md` says which requirement each test shows.

mod errors;
mod hairpin;
mod mappings;
mod segment_size;
mod sequences;
mod strangers;
mod table;
#[path = "../world/mod.rs"]
mod world;

use sluice_dataplane::address::Mac;
use sluice_dataplane::config::ids::PortId;
use sluice_dataplane::packet::build::{self, Tcp, Udp};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, RST, SYN};
use sluice_dataplane::packet::rewrite::LinkHeader;
use world::*;

/// One step of a conversation between the client (198.51.100.7:40000) and its member.
#[derive(Clone, Copy)]
enum Step {
    /// The client sends these flags, sequence number, acknowledgement, payload length; it must pass.
    Client(u8, u32, u32, usize),
    /// The member does.
    Member(u8, u32, u32, usize),
    /// Time passes, in milliseconds; nothing comes out.
    Pass(u64),
    /// Time passes, in milliseconds; the flow ends with a RST to both.
    Ends(u64),
    /// The flow is in this state; `gone` is none.
    Is(&'static str),
    /// What a RST to both sides would say now: the numbers of the client and the member.
    Next(u32, u32),
}
use Step::{Client, Ends, Is, Member, Next, Pass};

fn client() -> Tcp<'static> {
    Tcp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, ..Tcp::default() }
}

fn member() -> Tcp<'static> {
    Tcp {
        src_mac: member_mac(11),
        dst_mac: INTERNAL_MAC,
        src: "10.1.0.11",
        dst: SELF_IN,
        src_port: 8080,
        dst_port: 40_000,
        ..Tcp::default()
    }
}

/// Plays the steps in a world of their own, whose pool has one member.
fn play(name: &str, steps: &[Step]) {
    let mut world = World::started(|parts| parts.pools[0].members.truncate(1));
    for (number, step) in steps.iter().enumerate() {
        take(&mut world, step, &format!("{name}, step {number}"));
    }
    assert_eq!(world.all_drops(), [], "{name}: nothing of a flow is dropped");
}

fn take(world: &mut World, step: &Step, place: &str) {
    match *step {
        Client(flags, seq, ack, len) => {
            pass(world, EXTERNAL, Tcp { flags, seq, ack, payload: &vec![7; len], ..client() }, place);
        }
        Member(flags, seq, ack, len) => {
            let dst_port = source_port(world);
            pass(
                world,
                INTERNAL,
                Tcp { flags, seq, ack, dst_port, payload: &vec![7; len], ..member() },
                place,
            );
        }
        Pass(ms) => assert_eq!(wait(world, ms), [], "{place}"),
        Ends(ms) => {
            let resets: Vec<_> = wait(world, ms).iter().map(|out| see(out).flags).collect();
            assert_eq!(resets, [RST | ACK; 2], "{place}");
        }
        Is(state) => {
            let now = world.flows().first().map_or("gone", |flow| flow.state);
            assert_eq!(now, state, "{place}");
        }
        Next(of_client, of_member) => {
            let resets: Vec<_> = wait(world, 310_000).iter().map(see).collect();
            assert_eq!(resets.len(), 2, "{place}");
            let mut numbers: Vec<_> = resets.iter().map(|reset| (reset.port, reset.seq, reset.ack)).collect();
            numbers.sort_unstable_by_key(|row| row.0);
            let expected = [(EXTERNAL, of_member, of_client), (INTERNAL, of_client, of_member)];
            assert_eq!(numbers, expected, "{place}");
        }
    }
}

/// Lets time pass; the members answer for their addresses. Gives the IP packets that came out.
fn wait(world: &mut World, ms: u64) -> Vec<Out> {
    let mut out = Vec::new();
    for _ in 0..ms.div_ceil(50) {
        for frame in world.run(50) {
            if frame.bytes[12..14] == [8, 6] {
                world.send(INTERNAL, &arp(2, member_mac(11), "10.1.0.11", SELF_IN));
            } else {
                out.push(frame);
            }
        }
    }
    out
}

/// Sends a segment that must come out at the other side with its numbers and the other side's addresses.
fn pass(world: &mut World, port: PortId, tcp: Tcp, place: &str) {
    let mut out = world.send(port, &build::tcp(&tcp));
    if out.first().is_some_and(|out| out.bytes[12..14] == [8, 6]) {
        out = world.send(INTERNAL, &arp(2, member_mac(11), "10.1.0.11", SELF_IN));
    }
    let seen = only(&out);
    assert_eq!((seen.flags, seen.seq, seen.ack), (tcp.flags, tcp.seq, tcp.ack), "{place}");
    let ends = if port == EXTERNAL {
        (INTERNAL, (SELF_IN.to_owned(), source_port(world)), ("10.1.0.11".to_owned(), 8080))
    } else {
        (EXTERNAL, (VIRTUAL.to_owned(), 80), (CLIENT.to_owned(), 40_000))
    };
    assert_eq!((seen.port, seen.src, seen.dst), ends, "{place}");
}

/// The port that the member sees: the client's own at first, another one while that rests.
fn source_port(world: &mut World) -> u16 {
    world.flows().first().map_or(40_000, |flow| flow.source.1)
}

/// The handshake with the client's number 1,000 and the member's 5,000.
const OPEN: [Step; 4] = [
    Client(SYN, 1_000, 0, 0),
    Member(SYN | ACK, 5_000, 1_001, 0),
    Client(ACK, 1_001, 5_001, 0),
    Is("established"),
];

/// [`play`] behind a handshake.
fn after_open(name: &str, steps: &[Step]) {
    let all: Vec<Step> = OPEN.into_iter().chain(steps.iter().copied()).collect();
    play(name, &all);
}

fn ask(world: &mut World) -> Vec<Out> {
    world.send(EXTERNAL, &build::udp(&Udp { src_mac: CLIENT_MAC, dst_mac: EXTERNAL_MAC, ..Udp::default() }))
}

fn answer(world: &mut World) -> Vec<Out> {
    let answer = Udp {
        src_mac: member_mac(11),
        dst_mac: INTERNAL_MAC,
        src: "10.1.0.11",
        dst: SELF_IN,
        src_port: 5353,
        dst_port: 40_000,
        ..Udp::default()
    };
    world.send(INTERNAL, &build::udp(&answer))
}

/// An error of this type, code and second word about the frame `offender`, which it quotes in full.
fn error_about(
    offender: &[u8],
    (src_mac, dst_mac): (Mac, Mac),
    (src, dst): (&str, &str),
    (kind, code, word): (u8, u8, u32),
) -> Vec<u8> {
    let link = LinkHeader { source: src_mac, destination: dst_mac, vlan: 0 };
    let mut message = vec![kind, code, 0, 0];
    message.extend(word.to_be_bytes());
    message.extend(&offender[14..offender.len().min(14 + 528)]);
    build::packet(link, src, dst, 60, if src.contains(':') { 58 } else { 1 }, &message, 2)
}

/// What the packet says that an error quotes, its checksums and the error's proven.
fn quote_of(out: &Out) -> Seen {
    build::assert_checksums(&out.bytes);
    let l4 = if out.bytes[14] >> 4 == 4 { 34 } else { 54 };
    let ours = if out.port == EXTERNAL { EXTERNAL_MAC } else { INTERNAL_MAC };
    let bytes = [&[2, 0, 0, 0, 0, 9][..], &ours.0, &out.bytes[12..14], &out.bytes[l4 + 8..]].concat();
    see(&Out { port: out.port, bytes })
}
