//! Virtual servers without HTTP: bytes both ways, and every way that a connection ends.

use sluice_dataplane::address::Address;
use sluice_dataplane::config::proxy::{ProxyProfile, TcpProfile};
use sluice_dataplane::packet::build::address;
use sluice_dataplane::tcp::State;
use sluice_dataplane::verdict::DropReason;

use crate::harness::{BUFFER, Left, MEMBERS, Net, SERVICE, limits};
use crate::host::Welcome;
use crate::random::Random;
use crate::world::member;

fn net() -> Net {
    Net::new(ProxyProfile::default())
}

/// A client and its member's connection, both open.
fn pair(net: &mut Net) -> (usize, usize) {
    let client = net.client();
    net.settle();
    let member = net.members.socks.len() - 1;
    assert_eq!((net.client_is(client), net.member_is(member)), ("open", "open"));
    (client, member)
}

fn welcome(net: &mut Net, member: usize, welcome: Welcome) {
    let (text, port) = MEMBERS[member];
    net.members.listens.insert((address(text), port), welcome);
}

#[test]
fn bytes_go_both_ways_unchanged() {
    let (mut net, mut random) = (net(), Random::seeded());
    let (up, down) = (random.bytes(300_000), random.bytes(500_000));
    let (client, member) = pair(&mut net);
    net.clients.socks[client].to_send.extend(&up);
    net.members.socks[member].to_send.extend(&down);
    net.pass(2_000);
    assert!(net.told(member) == up, "{} of {} bytes up", net.told(member).len(), up.len());
    assert!(net.got(client) == down, "{} of {} bytes down", net.got(client).len(), down.len());
    net.assert_nothing_is_left();
}

#[test]
fn the_end_of_a_drain_resets_both_sides_whatever_they_wait_for() {
    let mut net = net();
    let (idle, member) = pair(&mut net);
    let (closing, half) = pair(&mut net);
    net.client_closes(closing);
    welcome(&mut net, 0, Welcome::Ignore);
    let connecting = net.client();
    net.world.worker.end_connections();
    net.pass(10);
    for client in [idle, closing, connecting] {
        assert_eq!(net.client_is(client), "reset", "client {client}");
    }
    assert_eq!((net.member_is(member), net.member_is(half)), ("reset", "reset"));
    assert_eq!(net.left(), Left { snat: net.left().snat, ..Left::default() });
    net.assert_nothing_is_left();
}

#[test]
fn each_side_may_close_first_and_still_gets_what_the_other_sends() {
    for client_first in [true, false] {
        let mut net = net();
        let (client, member) = pair(&mut net);
        let question = b"question".repeat(4_000);
        let answer = b"answer".repeat(9_000);
        let (first, second) = if client_first { (&question, &answer) } else { (&answer, &question) };
        let send = |net: &mut Net, from_client: bool, bytes: &[u8]| {
            let (host, sock) =
                if from_client { (&mut net.clients, client) } else { (&mut net.members, member) };
            host.socks[sock].to_send.extend_from_slice(bytes);
            host.socks[sock].closes = true;
            net.pass(500);
        };
        send(&mut net, client_first, first);
        let (one, other) = ((net.client_is(client), net.member_is(member)), client_first);
        assert_eq!(one, if other { ("open", "closed") } else { ("closed", "open") });
        net.pass(10_000);
        send(&mut net, !client_first, second);
        assert!(net.told(member) == question && net.got(client) == answer, "client first: {client_first}");
        assert_eq!((net.client_is(client), net.member_is(member)), ("closed", "closed"));
        net.pass(20_000);
        assert_eq!(net.left(), Left::default(), "client first: {client_first}");
    }
}

/// The second close ends a connection with one side while the other has still to get what came before it.
#[test]
fn the_side_that_closes_second_is_heard_to_its_end() {
    for client_first in [true, false] {
        let mut net = net();
        let (client, member) = pair(&mut net);
        let (first, second) = if client_first {
            (&mut net.clients.socks[client], &mut net.members.socks[member])
        } else {
            (&mut net.members.socks[member], &mut net.clients.socks[client])
        };
        (first.closes, first.reads) = (true, false);
        second.to_send = b"answer".repeat(9_000);
        net.settle();
        match client_first {
            true => net.member_closes(member),
            false => net.client_closes(client),
        }
        net.pass(10_000);
        let first =
            if client_first { &mut net.clients.socks[client] } else { &mut net.members.socks[member] };
        assert!(first.got.is_empty() && first.state == State::Open, "client first: {client_first}");
        first.reads = true;
        net.pass(1_000);
        let got = if client_first { net.got(client) } else { net.told(member) };
        assert_eq!(got.len(), 54_000, "client first: {client_first}");
        assert_eq!((net.client_is(client), net.member_is(member)), ("closed", "closed"));
        net.pass(20_000);
        assert_eq!(net.left(), Left::default(), "client first: {client_first}");
    }
}

/// What both have said may take longer to arrive than either may be silent.
#[test]
fn a_slow_reader_gets_all_though_both_have_closed() {
    let mut net = net();
    let (client, member) = pair(&mut net);
    net.clients.socks[client].reads = false;
    net.member_sends(member, &[b'x'; 40_000]);
    net.member_closes(member);
    net.client_closes(client);
    assert_eq!((net.told(member), net.member_is(member)), (&b"x"[..0], "closed"));
    for _ in 0..10 {
        net.clients.socks[client].crumbs = 1_460;
        net.pass(20_000);
        assert_eq!(net.client_is(client), "open");
    }
    net.clients.socks[client].reads = true;
    net.pass(10_000);
    assert_eq!((net.got(client).len(), net.client_is(client)), (40_000, "closed"));
    net.assert_nothing_is_left();
}

/// And one that takes nothing any more is not waited for.
#[test]
fn a_reader_that_stops_after_both_have_closed_is_given_up() {
    let mut net = net();
    let (client, member) = pair(&mut net);
    net.clients.socks[client].reads = false;
    net.member_sends(member, &[b'x'; 40_000]);
    net.member_closes(member);
    net.client_closes(client);
    net.pass(29_000);
    assert_eq!(net.world.open_connections(0), 1);
    net.pass(2_000);
    assert_eq!(net.left(), Left::default());
}

#[test]
fn a_close_right_behind_the_data_loses_none_of_it() {
    let mut net = net();
    let client = net.ask();
    net.clients.socks[client].to_send.extend(b"all there is");
    net.clients.socks[client].closes = true;
    net.pass(100);
    assert_eq!(net.told(0), b"all there is");
    assert_eq!(net.member_is(0), "closed");
    net.assert_nothing_is_left();
}

#[test]
fn a_reset_reaches_the_other_side() {
    let mut net = net();
    let (client, member) = pair(&mut net);
    net.client_resets(client);
    assert_eq!(net.member_is(member), "reset");
    let (client, member) = pair(&mut net);
    net.member_resets(member);
    assert_eq!(net.client_is(client), "reset");
    net.pass(200);
    assert_eq!(net.left(), Left::default());
}

#[test]
fn a_reset_after_half_a_close_reaches_the_other_side() {
    let mut net = net();
    let (client, member) = pair(&mut net);
    net.client_closes(client);
    net.member_resets(member);
    assert_eq!(net.client_is(client), "reset");
    let (client, member) = pair(&mut net);
    net.member_closes(member);
    net.client_resets(client);
    assert_eq!(net.member_is(member), "reset");
    net.pass(20_000);
    assert_eq!(net.left(), Left::default());
}

#[test]
fn a_reader_that_stops_stops_the_other_sides_writer() {
    for client_reads in [true, false] {
        let mut net = net();
        let (client, member) = pair(&mut net);
        let much = vec![b'x'; 1_000_000];
        if client_reads {
            net.members.socks[member].reads = false;
            net.clients.socks[client].to_send = much.clone();
        } else {
            net.clients.socks[client].reads = false;
            net.members.socks[member].to_send = much.clone();
        }
        net.pass(5_000);
        let left = net.clients.socks[client].to_send.len() + net.members.socks[member].to_send.len();
        // What the proxy may hold of this direction, and the 16 KiB each of writer and reader.
        let held = much.len() - left;
        assert!(held <= BUFFER + (32 << 10), "{held} bytes are on their way");
        net.clients.socks[client].reads = true;
        net.members.socks[member].reads = true;
        net.pass(60_000);
        assert!(net.told(member).len() + net.got(client).len() == much.len(), "the rest follows");
        net.assert_nothing_is_left();
    }
}

#[test]
fn a_full_buffer_is_filled_again_when_a_quarter_is_free() {
    let mut net = net();
    let (client, member) = pair(&mut net);
    net.clients.socks[client].reads = false;
    net.members.socks[member].to_send = vec![b'x'; 1_000_000];
    net.pass(5_000);
    let quarter = BUFFER / 2 / 4;
    let mut pieces = Vec::new();
    for _ in 0..20 {
        let before = net.members.socks[member].to_send.len();
        net.clients.socks[client].crumbs = 2_000;
        net.pass(5_000);
        pieces.push(before - net.members.socks[member].to_send.len());
    }
    // What is taken at once leaves by windows that open in steps of segments.
    pieces.retain(|piece| *piece > 0);
    assert!((2..=40_000 / quarter + 1).contains(&pieces.len()), "{pieces:?}");
    assert!(pieces.iter().all(|piece| *piece >= quarter - 2 * 1460), "{pieces:?}");
    net.clients.socks[client].reads = true;
    net.pass(60_000);
    assert_eq!(net.got(client).len(), 1_000_000);
    net.assert_nothing_is_left();
}

#[test]
fn a_refused_connection_is_refused_to_the_client() {
    let mut net = net();
    welcome(&mut net, 0, Welcome::Refuse);
    let client = net.ask();
    net.pass(100);
    assert_eq!(net.client_is(client), "reset");
    assert_eq!(net.members.syns, 1);
    net.pass(100);
    assert_eq!(net.left(), Left::default());
}

#[test]
fn a_member_without_a_link_address_is_left_before_its_time_is_up() {
    let server_tcp = TcpProfile { connect_ms: 60_000, ..TcpProfile::default() };
    let profile = ProxyProfile { server_tcp, ..ProxyProfile::default() };
    let mut net = Net::with(profile, limits(), |parts| {
        parts.pools[0].reselect_tries = 1;
        parts.pools[0].members[0] = member(0, "10.1.0.77", 8080);
    });
    net.members.absent.push([10, 1, 0, 77]);
    let first = net.ask();
    net.client_sends(first, b"hello");
    net.pass(2_500);
    assert!(net.members.socks.is_empty(), "asked three times, a second apart");
    net.pass(1_700);
    assert_eq!((net.client_is(first), net.told(first)), ("open", &b"hello"[..]));
    // Known not to answer, it is passed over at once.
    for _ in 0..3 {
        let client = net.ask();
        net.client_sends(client, b"more");
        net.pass(50);
        assert_eq!((net.client_is(client), net.told(client)), ("open", &b"more"[..]));
    }
    assert!(net.world.drops(DropReason::NeighborUnresolved) > 1);
    net.assert_nothing_is_left();
}

fn two_members(tries: u8) -> Net {
    Net::with(ProxyProfile::default(), limits(), |parts| parts.pools[0].reselect_tries = tries)
}

#[test]
fn another_member_is_tried_as_often_as_the_pool_says() {
    let mut net = two_members(1);
    welcome(&mut net, 0, Welcome::Refuse);
    for _ in 0..4 {
        let client = net.ask();
        net.client_sends(client, b"hello");
        net.pass(50);
        assert_eq!((net.client_is(client), net.members.socks.len() - 1), ("open", client));
        assert_eq!(net.told(client), b"hello");
    }
    welcome(&mut net, 1, Welcome::Refuse);
    let client = net.ask();
    net.pass(50);
    assert_eq!(net.client_is(client), "reset");
    net.assert_nothing_is_left();
}

#[test]
fn without_tries_the_first_refusal_counts() {
    let mut net = two_members(0);
    welcome(&mut net, 0, Welcome::Refuse);
    welcome(&mut net, 1, Welcome::Refuse);
    let client = net.ask();
    net.pass(50);
    assert_eq!((net.client_is(client), net.members.syns), ("reset", 1));
    net.assert_nothing_is_left();
}

#[test]
fn a_member_that_does_not_answer_is_given_up_in_time_and_another_tried() {
    let mut net = two_members(1);
    welcome(&mut net, 0, Welcome::Ignore);
    for _ in 0..2 {
        let client = net.ask();
        net.client_sends(client, b"hello");
        net.pass(2_100);
        assert_eq!(net.client_is(client), "open");
        assert_eq!(net.told(net.members.socks.len() - 1), b"hello");
    }
    welcome(&mut net, 1, Welcome::Ignore);
    let client = net.ask();
    net.pass(3_900);
    assert_eq!(net.client_is(client), "open");
    net.pass(200);
    assert_eq!(net.client_is(client), "reset");
    net.assert_nothing_is_left();
}

#[test]
fn the_connection_limit_is_exact_and_what_ends_is_given_back() {
    let mut net = Net::with(ProxyProfile::default(), limits(), |parts| {
        parts.virtuals[0].connection_limit = 3;
    });
    let open: Vec<usize> = (0..3).map(|_| net.client()).collect();
    assert_eq!(net.world.open_connections(0), 3);
    let refused = net.ask();
    net.settle();
    assert_eq!(net.client_is(refused), "reset");
    assert_eq!(net.world.drops(DropReason::ConnectionLimit), 1);
    net.client_resets(open[1]);
    net.pass(50);
    assert_eq!(net.world.open_connections(0), 2);
    net.client();
    assert_eq!(net.world.open_connections(0), 3);
    let refused = net.ask();
    net.settle();
    assert_eq!(net.client_is(refused), "reset");
    net.assert_nothing_is_left();
}

#[test]
fn clients_that_meet_in_the_handshake_do_not_exceed_the_limit() {
    let mut net = Net::with(ProxyProfile::default(), limits(), |parts| {
        parts.virtuals[0].connection_limit = 2;
    });
    let asked: Vec<usize> = (0..6).map(|_| net.ask()).collect();
    net.pass(100);
    let open = asked.iter().filter(|&&client| net.client_is(client) == "open").count();
    assert_eq!((open, net.world.open_connections(0)), (2, 2));
    net.assert_nothing_is_left();
}

#[test]
fn a_members_connection_limit_is_exact_and_given_back() {
    let mut net = Net::with(ProxyProfile::default(), limits(), |parts| {
        parts.pools[0].members.truncate(1);
        parts.pools[0].members[0].connection_limit = 1;
    });
    let (client, _) = pair(&mut net);
    let second = net.ask();
    net.pass(100);
    assert_eq!(net.client_is(second), "reset");
    net.client_resets(client);
    net.pass(100);
    pair(&mut net);
    net.assert_nothing_is_left();
}

#[test]
fn an_idle_connection_ends_after_its_time_on_both_sides() {
    let mut net = Net::with(ProxyProfile::default(), limits(), |parts| {
        parts.virtuals[0].timeouts.idle_ms = 20_000;
    });
    let (client, member) = pair(&mut net);
    net.pass(19_000);
    net.client_sends(client, b"x");
    net.pass(19_900);
    assert_eq!((net.client_is(client), net.member_is(member)), ("open", "open"));
    net.pass(200);
    assert_eq!((net.client_is(client), net.member_is(member)), ("reset", "reset"));
    assert_eq!(net.left(), Left::default());
}

#[test]
fn a_side_that_never_closes_its_half_is_given_up() {
    let mut net = net();
    let (client, member) = pair(&mut net);
    net.client_closes(client);
    assert_eq!(net.member_is(member), "closed");
    net.pass(29_000);
    assert_eq!(net.world.open_connections(0), 1);
    net.member_sends(member, b"still here");
    assert_eq!(net.got(client), b"still here");
    net.pass(29_000);
    assert_eq!(net.world.open_connections(0), 1);
    net.pass(2_000);
    assert_eq!(net.left(), Left::default());
    assert_eq!(net.member_is(member), "reset");
}

#[test]
fn a_thousand_connections_go_through_a_small_table() {
    let mut limits = limits();
    limits.proxies = 4;
    let mut net = Net::with(ProxyProfile::default(), limits, |_| ());
    for round in 0..1_000 {
        let client = net.client();
        let text = format!("connection {round}");
        net.client_sends(client, text.as_bytes());
        let member = net.members.socks.len() - 1;
        net.member_sends(member, b"done");
        assert_eq!((net.told(member), net.got(client)), (text.as_bytes(), &b"done"[..]));
        match round % 4 {
            0 => {
                net.client_closes(client);
                net.member_closes(member);
            }
            1 => {
                net.member_closes(member);
                net.client_closes(client);
            }
            2 => net.client_resets(client),
            _ => net.member_resets(member),
        }
        net.pass(10);
        assert_eq!(net.world.open_connections(0), 0, "round {round}");
    }
    net.pass(10_000);
    assert_eq!(net.left(), Left::default());
}

#[test]
fn a_full_table_refuses_and_goes_on_when_there_is_room_again() {
    let mut limits = limits();
    limits.proxies = 2;
    let mut net = Net::with(ProxyProfile::default(), limits, |_| ());
    let asked: Vec<usize> = (0..8).map(|_| net.ask()).collect();
    net.pass(100);
    let open: Vec<usize> = asked.iter().copied().filter(|&c| net.client_is(c) == "open").collect();
    assert!((1..=4).contains(&open.len()), "{open:?}");
    for client in open {
        net.client_resets(client);
    }
    net.pass(100);
    pair(&mut net);
    net.assert_nothing_is_left();
}

#[test]
fn the_ports_of_connections_in_time_wait_come_back_later() {
    let mut net = net();
    let (client, member) = pair(&mut net);
    net.client_closes(client);
    net.member_closes(member);
    net.pass(100);
    let Left { virtuals, members, snat, .. } = net.left();
    assert_eq!((virtuals, members), (0, 0));
    assert!(snat <= 1, "{snat}");
    net.pass(6_000);
    assert_eq!(net.left(), Left::default());
}

#[test]
fn a_client_that_comes_back_from_the_same_port_is_welcome() {
    let mut net = net();
    let from: (Address, u16) = (address("198.51.100.9"), 5_555);
    for round in 0..5 {
        let client = net.ask_from(from);
        net.client_sends(client, b"again");
        let member = net.members.socks.len() - 1;
        assert_eq!(net.told(member), b"again", "round {round}");
        // The proxy closes first towards the client, and is left in TIME-WAIT with it.
        net.member_closes(member);
        net.client_closes(client);
        net.pass(300);
        assert_eq!(net.world.open_connections(0), 0);
    }
    net.assert_nothing_is_left();
}

#[test]
fn after_the_client_has_gone_the_next_connection_is_another_one() {
    let mut net = net();
    assert_eq!(SERVICE.1, 80);
    let from: (Address, u16) = (address("198.51.100.9"), 5_556);
    let first = net.ask_from(from);
    net.client_sends(first, b"one");
    net.client_resets(first);
    let second = net.ask_from(from);
    net.client_sends(second, b"two");
    assert_eq!((net.told(0), net.told(1)), (&b"one"[..], &b"two"[..]));
    assert_eq!(net.clients.socks[second].state, State::Open);
    net.assert_nothing_is_left();
}

#[test]
fn idle_times_of_one_side_only_hold_for_that_side() {
    let profile = ProxyProfile {
        server_tcp: TcpProfile { connect_ms: 500, ..TcpProfile::default() },
        ..ProxyProfile::default()
    };
    let mut net = Net::new(profile);
    welcome(&mut net, 0, Welcome::Ignore);
    let client = net.ask();
    net.pass(450);
    assert_eq!(net.client_is(client), "open");
    net.pass(100);
    assert_eq!(net.client_is(client), "reset");
    net.assert_nothing_is_left();
}
