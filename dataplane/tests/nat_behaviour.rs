//! What a careful stateful NAT does with TCP, UDP and ICMP: segments in, expected packets out, state after each.
//! `docs/NAT_BEHAVIOUR.md` says which requirement each test shows.

mod world;

use sluice_dataplane::address::Mac;
use sluice_dataplane::config::ids::PortId;
use sluice_dataplane::config::snapshot::{Parts, Timeouts};
use sluice_dataplane::packet::build::{self, Tcp, Udp, address};
use sluice_dataplane::packet::parse::tcp_flag::{ACK, FIN, RST, SYN};
use sluice_dataplane::packet::rewrite::LinkHeader;
use sluice_dataplane::verdict::DropReason;
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

// RFC 5382 REQ-2: every valid sequence of segments.

#[test]
fn connections_open_in_every_valid_way() {
    play("three ways", &OPEN);
    play(
        "both at once",
        &[
            Client(SYN, 1_000, 0, 0),
            Member(SYN, 5_000, 0, 0),
            Is("syn-received"),
            Client(SYN | ACK, 1_000, 5_001, 0),
            Member(SYN | ACK, 5_000, 1_001, 0),
            Is("established"),
            Pass(200_000),
            Member(ACK, 5_001, 1_001, 10),
        ],
    );
    play(
        "the SYN again",
        &[
            Client(SYN, 1_000, 0, 0),
            Pass(1_000),
            Client(SYN, 1_000, 0, 0),
            Pass(2_000),
            Client(SYN, 1_000, 0, 0),
            Member(SYN | ACK, 5_000, 1_001, 0),
            Client(SYN, 1_000, 0, 0),
            Is("syn-received"),
            Member(SYN | ACK, 5_000, 1_001, 0),
            Client(ACK, 1_001, 5_001, 0),
            Is("established"),
            Client(SYN, 1_000, 0, 0),
            Is("established"),
            Next(1_001, 5_001),
        ],
    );
    play(
        "the SYN,ACK again, also after the ACK was lost behind us",
        &[
            Client(SYN, 1_000, 0, 0),
            Member(SYN | ACK, 5_000, 1_001, 0),
            Pass(1_000),
            Member(SYN | ACK, 5_000, 1_001, 0),
            Client(ACK, 1_001, 5_001, 0),
            Member(SYN | ACK, 5_000, 1_001, 0),
            Client(ACK, 1_001, 5_001, 0),
            Is("established"),
            Next(1_001, 5_001),
        ],
    );
    play(
        "data with the SYN (RFC 7413)",
        &[
            Client(SYN, 1_000, 0, 100),
            Member(SYN | ACK, 5_000, 1_101, 0),
            Member(ACK, 5_001, 1_101, 500),
            Client(ACK, 1_101, 5_501, 0),
            Is("established"),
            Next(1_101, 5_501),
        ],
    );
    play(
        "a new number before the old SYN was answered",
        &[
            Client(SYN, 1_000, 0, 0),
            Client(SYN, 90_000, 0, 0),
            Member(SYN | ACK, 5_000, 90_001, 0),
            Client(ACK, 90_001, 5_001, 0),
            Next(90_001, 5_001),
        ],
    );
}

#[test]
fn connections_close_in_every_valid_way() {
    after_open(
        "one after the other",
        &[
            Client(FIN | ACK, 1_001, 5_001, 0),
            Is("fin-client"),
            Member(ACK, 5_001, 1_002, 0),
            Member(FIN | ACK, 5_001, 1_002, 0),
            Is("closing"),
            Client(ACK, 1_002, 5_002, 0),
            Pass(5_200),
            Is("gone"),
        ],
    );
    after_open(
        "both at once",
        &[
            Client(FIN | ACK, 1_001, 5_001, 0),
            Member(FIN | ACK, 5_001, 1_001, 0),
            Is("closing"),
            Client(ACK, 1_002, 5_002, 0),
            Member(ACK, 5_002, 1_002, 0),
            Pass(5_200),
            Is("gone"),
        ],
    );
    after_open(
        "half-closed for long, with data",
        &[
            Client(FIN | ACK, 1_001, 5_001, 0),
            Pass(290_000),
            Member(ACK, 5_001, 1_002, 1_000),
            Pass(290_000),
            Client(ACK, 1_002, 6_001, 0),
            Is("fin-client"),
            Member(FIN | ACK, 6_001, 1_002, 0),
            Is("closing"),
        ],
    );
    after_open(
        "the FIN again after the end",
        &[
            Client(FIN | ACK, 1_001, 5_001, 0),
            Member(FIN | ACK, 5_001, 1_002, 0),
            Pass(3_000),
            Member(FIN | ACK, 5_001, 1_002, 0),
            Client(ACK, 1_002, 5_002, 0),
            Pass(3_000),
            Is("closing"),
            Member(FIN | ACK, 5_001, 1_002, 0),
            Client(RST, 1_002, 0, 0),
            Is("closing"),
            Pass(5_200),
            Is("gone"),
        ],
    );
    after_open("a reset", &[Member(RST, 5_001, 0, 0), Is("closing"), Pass(5_200), Is("gone")]);
    play(
        "a refusal",
        &[Client(SYN, 1_000, 0, 0), Member(RST | ACK, 0, 1_001, 0), Is("closing"), Pass(5_200), Is("gone")],
    );
}

// RFC 7857 section 2.2, RFC 5961: what a stranger may have sent passes, and changes nothing.

#[test]
fn wrong_numbers_pass_and_change_nothing() {
    after_open(
        "resets",
        &[
            Client(RST, 0x7000_0000, 0, 0),
            Member(RST, 0x7000_0000, 0, 0),
            Member(RST | ACK, 0x3000_0000, 0x7000_0000, 0),
            Is("established"),
            Client(ACK, 1_001, 5_001, 10),
            Is("established"),
            Next(1_011, 5_001),
        ],
    );
    after_open(
        "a reset in the window is answered by a challenge, and the connection lives",
        &[
            Member(ACK, 5_001, 1_001, 1_000),
            Client(RST, 1_000, 0, 0),
            Is("closing"),
            Member(ACK, 6_001, 1_001, 0),
            Is("closing"),
            Client(ACK, 1_001, 6_001, 0),
            Is("established"),
            Pass(200_000),
            Client(ACK, 1_001, 6_001, 10),
        ],
    );
    after_open(
        "data and ends out of the window",
        &[
            Client(ACK, 0x6000_0000, 5_001, 100),
            Member(ACK, 0xf000_0000, 1_001, 100),
            Client(ACK, 3_000, 0x7000_0000, 100),
            Client(FIN | ACK, 0x6000_0000, 5_001, 0),
            Member(FIN | ACK, 0x6000_0000, 1_001, 0),
            Is("established"),
            Next(1_001, 5_001),
        ],
    );
    after_open(
        "a SYN in or out of the window, and the challenge it gets",
        &[
            Client(SYN, 1_001, 0, 0),
            Member(ACK, 5_001, 1_001, 0),
            Client(SYN, 0x8000_0000, 0, 0),
            Member(ACK, 5_001, 1_001, 0),
            Is("established"),
            Next(1_001, 5_001),
        ],
    );
    play(
        "a reset of a half-open connection that refuses nothing",
        &[
            Client(SYN, 1_000, 0, 0),
            Member(RST | ACK, 0, 0x7000_0000, 0),
            Member(RST, 0x7000_0000, 0, 0),
            Is("syn-sent"),
            Member(SYN | ACK, 5_000, 1_001, 0),
            Client(ACK, 1_001, 5_001, 0),
            Is("established"),
        ],
    );
}

// A client that uses its port again: RFC 9293 section 3.6.1, RFC 6191, RFC 1122 section 4.2.2.13.

#[test]
fn a_port_used_again_opens_anew_whatever_the_number() {
    // The same number again is a late copy of the first SYN, for which pipeline.rs has a test.
    for (name, seq) in [("higher", 9_000), ("lower", 10)] {
        after_open(
            name,
            &[
                Client(FIN | ACK, 1_001, 5_001, 0),
                Member(FIN | ACK, 5_001, 1_002, 0),
                Client(ACK, 1_002, 5_002, 0),
                Is("closing"),
                Client(SYN, seq, 0, 0),
                Is("syn-sent"),
                Member(SYN | ACK, 70_000, seq + 1, 0),
                Client(ACK, seq + 1, 70_001, 0),
                Is("established"),
                Next(seq + 1, 70_001),
            ],
        );
    }
    after_open(
        "after a reset",
        &[Client(RST, 1_001, 0, 0), Is("closing"), Client(SYN, 77, 0, 0), Is("syn-sent")],
    );
    after_open(
        "a client that has forgotten its connection",
        &[
            Client(SYN, 800_000, 0, 0),
            Member(ACK, 5_001, 1_001, 0),
            Client(RST, 1_001, 0, 0),
            Is("closing"),
            Client(SYN, 800_000, 0, 0),
            Is("syn-sent"),
            Member(SYN | ACK, 9_000, 800_001, 0),
            Client(ACK, 800_001, 9_001, 0),
            Is("established"),
        ],
    );
    after_open(
        "a SYN to a half-closed connection goes to the member, which knows",
        &[Client(FIN | ACK, 1_001, 5_001, 0), Client(SYN, 70_000, 0, 0), Is("fin-client")],
    );
}

// RFC 5382 REQ-5 and RFC 4787 REQ-5: our times are shorter by default and can be made as long as asked for.

#[test]
fn idle_times_are_what_is_configured() {
    after_open("five minutes by default", &[Pass(299_000), Ends(1_500), Is("gone")]);
    let long = Timeouts { idle_ms: 7_440_000, close_ms: 240_000, handshake_ms: 240_000, ..Timeouts::TCP };
    let mut world = World::started(|parts| {
        parts.pools[0].members.truncate(1);
        parts.virtuals[0].timeouts = long;
    });
    for step in OPEN.iter().chain(&[
        Pass(7_300_000),
        Client(ACK, 1_001, 5_001, 0),
        Pass(7_400_000),
        Is("established"),
        Member(RST, 5_001, 0, 0),
        Pass(239_000),
        Is("closing"),
        Pass(1_500),
        Is("gone"),
        Client(SYN, 5, 0, 0),
        Pass(239_000),
        Is("syn-sent"),
        Pass(1_500),
        Is("gone"),
    ]) {
        take(&mut world, step, "two hours and four minutes");
    }
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

#[test]
fn udp_is_kept_by_packets_of_either_side() {
    for from_client in [true, false] {
        let mut world = World::started(|_| ());
        assert_eq!(ask(&mut world).len(), 1);
        for _ in 0..4 {
            wait(&mut world, 59_000);
            let out = if from_client { ask(&mut world) } else { answer(&mut world) };
            assert_eq!(out.len(), 1);
        }
        wait(&mut world, 60_200);
        assert!(world.flows().is_empty(), "60 s by default");
    }
    let mut world = World::started(|parts| parts.virtuals[2].timeouts.idle_ms = 300_000);
    ask(&mut world);
    wait(&mut world, 299_000);
    assert_eq!(answer(&mut world).len(), 1, "five minutes where that is configured (RFC 4787 REQ-5c)");
}

#[test]
fn one_client_port_keeps_one_source_port_and_one_member() {
    let mut world = World::started(|_| ());
    let first = only(&ask(&mut world));
    for _ in 0..10 {
        wait(&mut world, 5_000);
        assert_eq!(only(&ask(&mut world)).src, first.src);
    }
}

#[test]
fn an_unsolicited_syn_to_a_source_address_is_refused_at_once() {
    let mut world = World::started(|_| ());
    let stranger = Tcp { flags: SYN, seq: 9, src_port: 999, ..member() };
    let out = only(&world.send(INTERNAL, &build::tcp(&stranger)));
    assert_eq!((out.port, out.flags), (INTERNAL, RST | ACK));
    assert_eq!(world.all_drops(), [("no-virtual", 1)]);
}

// Hairpin: RFC 5382 REQ-8, RFC 4787 REQ-9, RFC 5508 REQ-7. Client and member are neighbours.

const NEIGHBOR: &str = "10.1.0.12";

fn hairpin_world() -> World {
    World::started(|parts: &mut Parts| {
        parts.pools[0].members.truncate(1);
    })
}

#[test]
fn neighbors_reach_each_other_by_the_virtual_address() {
    for (source, mac) in [(NEIGHBOR, member_mac(12)), ("10.1.0.11", member_mac(11))] {
        let mut world = hairpin_world();
        let near = Tcp { src_mac: mac, dst_mac: INTERNAL_MAC, src: source, ..Tcp::default() };
        let seen = only(&world.send(INTERNAL, &build::tcp(&Tcp { flags: SYN, seq: 10, ..near })));
        assert_eq!((seen.port, seen.dst_mac), (INTERNAL, member_mac(11)));
        assert_eq!((seen.src, seen.dst), ((SELF_IN.into(), 40_000), ("10.1.0.11".into(), 8080)));
        let back = Tcp { flags: SYN | ACK, seq: 50, ack: 11, ..member() };
        let back = only(&world.send(INTERNAL, &build::tcp(&back)));
        assert_eq!((back.dst_mac, back.src, back.dst), (mac, (VIRTUAL.into(), 80), (source.into(), 40_000)));
        let done = Tcp { flags: ACK, seq: 11, ack: 51, ..near };
        assert_eq!(only(&world.send(INTERNAL, &build::tcp(&done))).dst.1, 8080);
        assert_eq!(world.flows()[0].state, "established");
        let udp = Udp { src_mac: mac, dst_mac: INTERNAL_MAC, src: source, ..Udp::default() };
        let seen = only(&world.send(INTERNAL, &build::udp(&udp)));
        assert_eq!((seen.src.0, seen.dst), (SELF_IN.into(), ("10.1.0.11".into(), 5353)));
        let back = only(&answer(&mut world));
        assert_eq!((back.port, back.src, back.dst.0), (INTERNAL, (VIRTUAL.into(), 53), source.into()));
        assert_eq!(world.all_drops(), []);
    }
}

#[test]
fn errors_between_neighbors_are_translated() {
    let mut world = hairpin_world();
    let udp = Udp { src_mac: member_mac(12), dst_mac: INTERNAL_MAC, src: NEIGHBOR, ..Udp::default() };
    let sent = world.send(INTERNAL, &build::udp(&udp));
    let error =
        error_about(&sent[0].bytes, (member_mac(11), INTERNAL_MAC), ("10.1.0.11", SELF_IN), (3, 3, 0));
    let out = world.send(INTERNAL, &error);
    assert_eq!((out.len(), out[0].port, &out[0].bytes[..6]), (1, INTERNAL, &member_mac(12).0[..]));
    assert_eq!(out[0].bytes[26..34], [address(VIRTUAL).v4_octets(), address(NEIGHBOR).v4_octets()].concat());
    let inner = quote_of(&out[0]);
    assert_eq!((inner.src, inner.dst), ((NEIGHBOR.into(), 40_000), (VIRTUAL.into(), 53)));
}

#[test]
fn a_virtual_address_is_pinged_by_neighbors() {
    let mut world = hairpin_world();
    let link = LinkHeader { source: member_mac(12), destination: INTERNAL_MAC, vlan: 0 };
    let echo = build::packet(link, NEIGHBOR, VIRTUAL, 64, 1, &[8, 0, 0, 0, 0, 1, 0, 1, 7, 7], 2);
    let out = world.send(INTERNAL, &echo);
    assert_eq!((out.len(), out[0].bytes[34]), (1, 0));
}

// ICMP errors: RFC 5508 REQ-3 to REQ-6, RFC 5382 REQ-9 and REQ-10, RFC 4787 REQ-12.

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

#[test]
fn each_kind_of_error_reaches_the_client_unchanged_but_for_addresses() {
    let v4: &[(u8, u8, u32)] = &[
        (3, 0, 0),
        (3, 1, 0),
        (3, 3, 0),
        (3, 4, 1_280),
        (3, 13, 0),
        (11, 0, 0),
        (11, 1, 0),
        (12, 0, 0x0900_0000),
    ];
    let v6: &[(u8, u8, u32)] =
        &[(1, 0, 0), (1, 4, 0), (2, 0, 1_280), (3, 0, 0), (3, 1, 0), (4, 0, 6), (4, 1, 40), (100, 0, 7)];
    for (client, virtual_address, kinds) in [(CLIENT, VIRTUAL, v4), (CLIENT6, VIRTUAL6, v6)] {
        let v6 = client.contains(':');
        let (router, ours) = if v6 { ("2001:db8:99::1", "2001:db8:2::10") } else { ("10.99.0.1", SELF_IN) };
        let mut world = World::started(|_| ());
        let syn = Tcp { src: client, dst: virtual_address, flags: SYN, ..self::client() };
        let sent = world.send(EXTERNAL, &build::tcp(&syn));
        for &kind in kinds {
            let error = error_about(&sent[0].bytes, (member_mac(11), INTERNAL_MAC), (router, ours), kind);
            let out = world.send(INTERNAL, &error);
            assert_eq!((out.len(), out[0].port), (1, EXTERNAL), "{kind:?}");
            let l4 = if v6 { 54 } else { 34 };
            let message = &out[0].bytes[l4..l4 + 8];
            assert_eq!((message[0], message[1], &message[4..]), (kind.0, kind.1, &kind.2.to_be_bytes()[..]));
            let inner = quote_of(&out[0]);
            assert_eq!((inner.src.0, inner.dst), (client.into(), (virtual_address.into(), 80)), "{kind:?}");
        }
        let flow = &world.flows()[0];
        assert_eq!((flow.state, world.all_drops()), ("syn-sent", vec![]), "no error ends a flow");
    }
}

#[test]
fn the_mtu_of_a_router_reaches_either_end() {
    let mut world = World::started(|parts| parts.pools[0].members.truncate(1));
    for step in &OPEN {
        take(&mut world, step, "open");
    }
    let big = Tcp { flags: ACK, seq: 1_001, ack: 5_001, payload: &[7; 1_400], ..client() };
    let sent = world.send(EXTERNAL, &build::tcp(&big));
    let macs = (member_mac(11), INTERNAL_MAC);
    let out = world.send(INTERNAL, &error_about(&sent[0].bytes, macs, ("10.99.0.1", SELF_IN), (3, 4, 1_300)));
    assert_eq!(out[0].bytes[26..34], [[10, 99, 0, 1], address(CLIENT).v4_octets()].concat());
    assert_eq!(out[0].bytes[38..42], 1_300u32.to_be_bytes());
    let big = Tcp { flags: ACK, seq: 5_001, ack: 1_001, payload: &[7; 1_400], ..member() };
    let sent = world.send(INTERNAL, &build::tcp(&big));
    let macs = (CLIENT_MAC, EXTERNAL_MAC);
    let out =
        world.send(EXTERNAL, &error_about(&sent[0].bytes, macs, ("203.0.113.1", VIRTUAL), (3, 4, 1_300)));
    assert_eq!((out[0].port, &out[0].bytes[38..42]), (INTERNAL, &1_300u32.to_be_bytes()[..]));
    assert_eq!(out[0].bytes[30..34], address("10.1.0.11").v4_octets());
    assert_eq!(out[0].bytes[62..66], [8080u16.to_be_bytes(), 40_000u16.to_be_bytes()].concat());
}

#[test]
fn errors_do_not_keep_a_flow() {
    let mut world = World::started(|_| ());
    let sent = ask(&mut world);
    let macs = (member_mac(11), INTERNAL_MAC);
    let error = error_about(&sent[0].bytes, macs, ("10.1.0.11", SELF_IN), (3, 3, 0));
    for _ in 0..2 {
        wait(&mut world, 25_000);
        assert_eq!(world.send(INTERNAL, &error).len(), 1);
    }
    wait(&mut world, 10_500);
    assert!(world.flows().is_empty());
}

#[test]
fn errors_about_fragments_are_told_by_the_first() {
    let mut world = World::started(|parts| {
        let mut udp6 = virtual_server(
            3,
            "2001:db8:1::100/128",
            53,
            sluice_dataplane::config::snapshot::Protocol::Udp,
            1,
        );
        udp6.matches[0].port = 53;
        parts.virtuals.push(udp6);
        parts.pools[1].members.truncate(1);
    });
    for (client, virtual_address, member, ours, kind, late) in [
        (CLIENT, VIRTUAL, "10.1.0.11", SELF_IN, (11, 1, 0), (3, 4, 1_300)),
        (CLIENT6, VIRTUAL6, "2001:db8:2::11", "2001:db8:2::10", (3, 1, 0), (2, 0, 1_300)),
    ] {
        let udp = Udp {
            src_mac: CLIENT_MAC,
            dst_mac: EXTERNAL_MAC,
            src: client,
            dst: virtual_address,
            payload: &[7; 3_000],
            ..Udp::default()
        };
        let frames = build::fragments(&build::udp(&udp), 1_500, 3);
        let sent: Vec<_> = frames.iter().flat_map(|frame| world.send(EXTERNAL, frame)).collect();
        let macs = (member_mac(11), INTERNAL_MAC);
        let out = world.send(INTERNAL, &error_about(&sent[0].bytes, macs, (member, ours), kind));
        assert_eq!((out.len(), out[0].port), (1, EXTERNAL), "{client}");
        build::assert_checksums(&out[0].bytes);
        let l4 = if client == CLIENT { 34 } else { 54 };
        let inner = &out[0].bytes[l4 + 8..];
        let (source, ports) = if client == CLIENT { (12..16, 20) } else { (8..24, 48) };
        let expected = address(client);
        let octets =
            if client == CLIENT { expected.v4_octets().to_vec() } else { expected.v6_octets().to_vec() };
        assert_eq!(inner[source], octets[..]);
        assert_eq!(inner[ports..ports + 4], [40_000u16.to_be_bytes(), 53u16.to_be_bytes()].concat());
        let before = world.drops(DropReason::IcmpUnmatched);
        let late = error_about(&sent[1].bytes, macs, (member, ours), late);
        assert_eq!(world.send(INTERNAL, &late), [], "a later fragment has no ports to know it by");
        assert_eq!(world.drops(DropReason::IcmpUnmatched), before + 1);
    }
}

#[test]
fn errors_that_must_not_pass_are_counted() {
    let mut world = World::started(|_| ());
    let sent = ask(&mut world);
    let macs = (member_mac(11), INTERNAL_MAC);
    let ends = ("10.1.0.11", SELF_IN);
    let error = error_about(&sent[0].bytes, macs, ends, (3, 3, 0));
    let nested = error_about(&error, macs, ends, (3, 1, 0));
    assert_eq!(world.send(INTERNAL, &nested), [], "an error about an error (RFC 1122 section 3.2.2)");
    let stranger = build::udp(&Udp { src: SELF_IN, dst: "10.1.0.12", ..Udp::default() });
    assert_eq!(world.send(INTERNAL, &error_about(&stranger, macs, ends, (3, 3, 0))), []);
    assert_eq!(world.drops(DropReason::IcmpUnmatched), 2);
    let mut damaged = error.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(world.send(INTERNAL, &damaged), [], "RFC 5508 REQ-3");
    assert_eq!(world.drops(DropReason::Malformed), 1);
    for kind in [4, 5] {
        assert_eq!(world.send(INTERNAL, &error_about(&sent[0].bytes, macs, ends, (kind, 0, 0))), []);
    }
    assert_eq!(world.drops(DropReason::UnwantedIcmp), 2, "source quench and redirect");
    assert_eq!(world.send(INTERNAL, &error).len(), 1, "the flow is unharmed");
}

// The segment size that the ends announce.

#[test]
fn syns_of_both_sides_are_clamped_where_asked() {
    let mss = |value: u16| [&[1, 1, 2, 4][..], &value.to_be_bytes(), &[0, 0]].concat();
    let announced = |out: &[Out]| {
        only(out);
        u16::from_be_bytes([out[0].bytes[58], out[0].bytes[59]])
    };
    for (clamp, sent, expected) in
        [(Some(1_360), 1_460, 1_360), (Some(1_360), 536, 536), (None, 1_460, 1_460)]
    {
        let mut world = World::started(|parts| parts.virtuals[0].mss_clamp = clamp);
        let syn = Tcp { flags: SYN, seq: 1_000, ..client() };
        let out = world.send(EXTERNAL, &build::tcp_with_options(&syn, &mss(sent)));
        assert_eq!(announced(&out), expected);
        let reply = Tcp { flags: SYN | ACK, seq: 5_000, ack: 1_001, ..member() };
        for _ in 0..2 {
            let out = world.send(INTERNAL, &build::tcp_with_options(&reply, &mss(sent)));
            assert_eq!(announced(&out), expected, "also when sent again");
        }
        let ack = Tcp { flags: ACK, seq: 1_001, ack: 5_001, ..client() };
        let out = world.send(EXTERNAL, &build::tcp_with_options(&ack, &mss(sent)));
        assert_eq!(announced(&out), sent, "no SYN, no option");
    }
}

// The table.

#[test]
fn the_table_names_tests_that_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect(path);
    let sources: String =
        ["tests/nat_behaviour.rs", "tests/pipeline.rs", "tests/fragments.rs", "tests/selection.rs"]
            .into_iter()
            .chain(["tests/workers.rs", "tests/rules.rs", "tests/unreachable.rs"])
            .chain(["src/packet/fragment.rs", "src/fragment/table.rs"])
            .map(read)
            .collect();
    let table = read("../docs/NAT_BEHAVIOUR.md");
    let words = table.split('`').skip(1).step_by(2);
    let names: Vec<&str> =
        words.filter(|word| word.matches('_').count() > 1 && !word.contains('.')).collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names.into_iter().filter(|name| *name != "max_reject_rate") {
        assert!(sources.contains(&format!("fn {name}()")), "docs/NAT_BEHAVIOUR.md names {name}");
    }
}
