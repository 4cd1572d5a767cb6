//! HTTP beyond single messages: large bodies, bad wires, reuse, limits, queues, new configurations, and what is counted.

use std::sync::Arc;

use sluice_dataplane::address::Address;
use sluice_dataplane::config::ids::VirtualId;
use sluice_dataplane::config::proxy::{HttpProfile, ProxyProfile, ProxyVersion, Reuse};
use sluice_dataplane::config::snapshot::{Queue, VirtualKind};
use sluice_dataplane::http::HttpLimits;
use sluice_dataplane::packet::build::address;

use crate::canon::content;
use crate::harness::{BUFFER, Faults, Left, MEMBERS, Net, limits};
use crate::host::Welcome;
use crate::random::Random;
use crate::world::prefix;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn net() -> Net {
    Net::http(|_| ())
}

fn profile(change: impl FnOnce(&mut ProxyProfile)) -> ProxyProfile {
    let mut profile = ProxyProfile { http: Some(HttpProfile::default()), ..ProxyProfile::default() };
    change(&mut profile);
    profile
}

fn last(net: &Net) -> usize {
    net.members.socks.len() - 1
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let chunks = body
        .chunks(size)
        .flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    chunks.chain(*b"0\r\n\r\n").collect()
}

#[test]
fn large_bodies_go_both_ways_at_once_however_they_are_framed() {
    let mut random = Random::seeded();
    for (up_chunked, down_chunked) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut net = net();
        let (up, down) = (random.bytes(200_000), random.bytes(300_000));
        let message = |start: &str, body: &[u8], is_chunked: bool, size: usize| match is_chunked {
            true => [format!("{start}Transfer-Encoding: chunked\r\n\r\n").as_bytes(), &chunked(body, size)]
                .concat(),
            false => [format!("{start}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat(),
        };
        let size = 1 + random.below(30_000);
        let request = message("POST / HTTP/1.1\r\nHost: h\r\n", &up, up_chunked, size);
        let response = message("HTTP/1.1 200 OK\r\n", &down, down_chunked, size);
        let client = net.client();
        net.clients.socks[client].to_send = request.clone();
        net.settle();
        let member = last(&net);
        net.members.socks[member].to_send = response.clone();
        net.pass(3_000);
        let whole = |got: &[u8], sent: &[u8]| content(got) == content(sent);
        assert!(whole(net.told(member), &request), "up {up_chunked}, chunks of {size}");
        let told = content(net.got(client));
        let expected = content(&response);
        let head = told.len() - down.len();
        assert!(told[head..] == expected[expected.len() - down.len()..], "down {down_chunked} of {size}");
        net.assert_nothing_is_left();
    }
}

#[test]
fn exchanges_survive_a_wire_that_loses_doubles_and_reorders() {
    let mut random = Random::seeded();
    // Two lost SYNs in a row are no reason to give up.
    let mut net = Net::new(profile(|profile| profile.server_tcp.connect_ms = 30_000));
    net.faults = Some(Faults { random: Random::with(random.seed), lost: 4, doubled: 5, delayed: 20 });
    let clients: Vec<usize> = (0..4).map(|_| net.ask()).collect();
    let (up, down) = (random.bytes(9_000), random.bytes(20_000));
    let request =
        [format!("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", up.len()).as_bytes(), &up]
            .concat();
    let response =
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", down.len()).as_bytes(), &down].concat();
    for &client in &clients {
        net.clients.socks[client].to_send = request.repeat(3);
    }
    let mut answered = vec![0; 64];
    for _ in 0..400 {
        net.pass(250);
        for (member, sock) in net.members.socks.iter_mut().enumerate() {
            while answered[member] < sock.got.len() / request.len() {
                sock.to_send.extend_from_slice(&response);
                answered[member] += 1;
            }
        }
        if clients.iter().all(|&client| net.got(client).len() == 3 * response.len()) {
            break;
        }
    }
    let right = clients.iter().all(|&client| net.got(client) == response.repeat(3));
    assert!(right, "each client has its three responses, seed {}", random.seed);
    let asked =
        net.members.socks.iter().all(|sock| sock.got == request.repeat(sock.got.len() / request.len()));
    assert!(asked, "each member has whole requests only, seed {}", random.seed);
    net.assert_nothing_is_left();
}

#[test]
fn what_a_proxy_holds_of_a_body_is_bounded() {
    for to_member in [true, false] {
        let mut net = net();
        let client = net.client();
        let much = vec![b'x'; 1_000_000];
        let request: &[u8] =
            if to_member { b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n" } else { GET };
        net.client_sends(client, request);
        let member = last(&net);
        if to_member {
            net.members.socks[member].reads = false;
            net.clients.socks[client].to_send = much.clone();
        } else {
            net.clients.socks[client].reads = false;
            net.members.socks[member].to_send =
                [b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", &much[..]].concat();
        }
        net.pass(3_000);
        let left = net.clients.socks[client].to_send.len() + net.members.socks[member].to_send.len();
        let held = much.len() - left.min(much.len());
        assert!(held <= BUFFER + (32 << 10), "{held} bytes are on their way");
        net.clients.socks[client].reads = true;
        net.members.socks[member].reads = true;
        net.pass(3_000);
        assert!(net.told(member).len() + net.got(client).len() >= much.len(), "the rest follows");
        net.assert_nothing_is_left();
    }
}

#[test]
fn a_thousand_exchanges_leave_one_connection_to_the_member() {
    let mut limits = limits();
    limits.proxies = 4;
    let mut net = Net::with(profile(|_| ()), limits, |parts| parts.pools[0].members.truncate(1));
    for round in 0..1_000 {
        let client = net.client();
        net.client_sends(client, GET);
        net.member_sends(0, OK);
        assert_eq!(net.got(client), OK, "round {round}");
        if round % 2 == 0 {
            net.client_closes(client);
        } else {
            net.client_resets(client);
        }
        net.pass(10);
    }
    assert_eq!(net.members.socks.len(), 1);
    let counters = &net.world.counters.of_virtual(VirtualId(0)).expect("counters").http;
    assert_eq!((counters.requests.load(), counters.reused.load()), (1_000, 999));
    assert_eq!((counters.responses[1].load(), counters.retries.load()), (1_000, 0));
    net.assert_nothing_is_left();
}

#[test]
fn a_thousand_exchanges_without_reuse_leave_nothing() {
    let mut limits = limits();
    limits.proxies = 4;
    let change = |profile: &mut ProxyProfile| {
        profile.http.as_mut().expect("HTTP").reuse.enabled = false;
    };
    let mut net = Net::with(profile(change), limits, |_| ());
    for round in 0..1_000 {
        let client = net.client();
        net.client_sends(client, GET);
        let member = last(&net);
        net.member_sends(member, OK);
        assert_eq!(net.got(client), OK, "round {round}");
        match round % 3 {
            0 => net.client_closes(client),
            1 => net.client_resets(client),
            _ => net.member_closes(member),
        }
        net.client_closes(client);
        net.member_closes(member);
        net.pass(10);
        assert_eq!(net.world.open_connections(0), 0, "round {round}");
    }
    assert_eq!(net.members.socks.len(), 1_000);
    net.pass(10_000);
    assert_eq!(net.left(), Left::default());
}

#[test]
fn a_mask_says_who_shares_connections() {
    let reuse = Reuse { source_mask_v4: 24, ..Reuse::default() };
    let mut net = Net::http(|http| http.reuse = reuse);
    let ask = |net: &mut Net, from: (&str, u16)| {
        let client = net.ask_from((address(from.0), from.1));
        net.client_sends(client, GET);
        let count = net.members.socks.len();
        let busy = (0..count).rev().find(|&member| net.told(member).ends_with(GET)).expect("a request");
        net.member_sends(busy, OK);
        assert_eq!(net.got(client), OK);
        count
    };
    assert_eq!(ask(&mut net, ("198.51.100.1", 1_001)), 1);
    let same = net.ask_from((address("198.51.100.2"), 1_002));
    net.client_sends(same, GET);
    assert_eq!(net.members.socks.len(), 1, "the same network");
    net.member_sends(0, OK);
    let other = net.ask_from((address("198.51.101.2"), 1_003));
    net.client_sends(other, GET);
    assert_eq!(net.members.socks.len(), 2, "another network");
    net.assert_nothing_is_left();
}

#[test]
fn members_that_see_clients_addresses_see_the_right_ones() {
    let mut net = Net::with(profile(|_| ()), limits(), |parts| {
        parts.pools[0].members.truncate(1);
        parts.virtuals[0].snat = sluice_dataplane::config::snapshot::Snat::None;
    });
    for (round, from) in ["198.51.100.1", "198.51.100.2"].into_iter().enumerate() {
        let client = net.ask_from((address(from), 2_000));
        net.client_sends(client, GET);
        assert_eq!(net.members.socks.len(), round + 1, "no client goes over another's connection");
        assert_eq!(net.members.socks[round].key.src, address(from));
        net.member_sends(round, OK);
        assert_eq!(net.got(client), OK);
    }
    net.assert_nothing_is_left();
}

#[test]
fn a_header_names_one_client_and_no_other_follows_it() {
    let mut net = Net::new(profile(|profile| {
        profile.send_proxy = Some(ProxyVersion::V1);
        profile.accept_proxy_from = vec![prefix("198.51.100.0/24")];
    }));
    for round in 0..2u8 {
        let client = net.client();
        let line = format!("PROXY TCP4 203.0.113.{round} 203.0.113.80 4711 443\r\n");
        net.client_sends(client, &[line.as_bytes(), GET].concat());
        let member = last(&net);
        let told = String::from_utf8_lossy(net.told(member)).into_owned();
        assert!(told.starts_with(&format!("{line}GET / HTTP/1.1\r\n")), "{told}");
        net.member_sends(member, OK);
        assert_eq!(net.got(client), OK);
        assert_eq!(usize::from(round), member, "a connection of its own");
    }
    net.assert_nothing_is_left();
}

#[test]
fn a_members_connection_limit_holds_over_requests_and_is_given_back() {
    let mut net = Net::with(profile(|_| ()), limits(), |parts| {
        parts.pools[0].members.truncate(1);
        parts.pools[0].members[0].connection_limit = 1;
    });
    let first = net.client();
    net.client_sends(first, GET);
    let second = net.client();
    net.client_sends(second, GET);
    net.pass(100);
    assert!(net.got(second).starts_with(b"HTTP/1.1 503 "), "{}", net.got(second).escape_ascii());
    net.member_sends(0, OK);
    for client in [second, first, second] {
        let before = net.got(client).len();
        net.client_sends(client, GET);
        net.member_sends(0, OK);
        assert_eq!(&net.got(client)[before..], OK, "over the connection that waits");
    }
    assert_eq!(net.members.socks.len(), 1);
    net.member_closes(0);
    net.client_sends(first, GET);
    net.member_sends(1, OK);
    assert!(net.got(first).ends_with(OK), "what ended is given back");
    net.assert_nothing_is_left();
}

#[test]
fn requests_queue_for_a_member_as_long_as_the_pool_says() {
    let mut net = Net::with(profile(|_| ()), limits(), |parts| {
        parts.pools[0].members.truncate(1);
        parts.pools[0].members[0].connection_limit = 1;
        parts.pools[0].queue = Some(Queue { depth: 0, time_ms: 1_000 });
    });
    let first = net.client();
    net.client_sends(first, GET);
    let second = net.client();
    net.client_sends(second, GET);
    net.pass(900);
    assert_eq!(net.got(second), b"", "it waits");
    net.member_sends(0, b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    net.member_closes(0);
    net.pass(90);
    net.member_sends(last(&net), OK);
    assert_eq!(net.got(second), OK);
    net.client_sends(second, GET);
    let third = net.client();
    net.client_sends(third, GET);
    net.pass(1_100);
    assert!(net.got(third).starts_with(b"HTTP/1.1 503 "), "{}", net.got(third).escape_ascii());
    net.assert_nothing_is_left();
}

#[test]
fn a_request_follows_the_newest_configuration_and_open_ones_go_on() {
    let mut net = net();
    let client = net.client();
    net.client_sends(client, GET);
    net.world.now_ms = net.now_ms;
    net.world.apply(|parts| {
        let limits = HttpLimits { line: 60, ..HttpLimits::default() };
        let new = HttpProfile { limits, ..HttpProfile::default() };
        parts.virtuals[0].proxy = Some(Arc::new(profile(|profile| profile.http = Some(new))));
    });
    net.member_sends(0, OK);
    assert_eq!(net.got(client), OK, "what was open goes on");
    let long = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(80));
    net.client_sends(client, long.as_bytes());
    assert!(net.got(client)[OK.len()..].starts_with(b"HTTP/1.1 414 "));
    net.assert_nothing_is_left();
}

#[test]
fn a_virtual_server_that_goes_cuts_nothing_and_takes_nothing_new() {
    let mut net = net();
    let client = net.client();
    net.client_sends(client, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello");
    net.world.now_ms = net.now_ms;
    net.world.apply(|parts| drop(parts.virtuals.remove(0)));
    net.client_sends(client, b"hello");
    net.member_sends(0, OK);
    assert!(net.got(client).starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", net.got(client).escape_ascii());
    let late = net.ask();
    net.pass(100);
    assert_eq!(net.client_is(late), "reset");
    net.assert_nothing_is_left();
}

#[test]
fn a_profile_that_turns_to_streams_does_not_touch_open_connections() {
    let mut net = net();
    let client = net.client();
    net.client_sends(client, GET);
    net.world.now_ms = net.now_ms;
    net.world.apply(|parts| {
        parts.virtuals[0].proxy = Some(Arc::new(ProxyProfile::default()));
        assert_eq!(parts.virtuals[0].kind, VirtualKind::Standard);
    });
    net.member_sends(0, OK);
    net.client_sends(client, GET);
    net.member_sends(0, OK);
    assert_eq!(net.got(client), [OK, OK].concat());
    let other = net.client();
    net.client_sends(other, b"no HTTP");
    assert!(net.members.socks.iter().any(|sock| sock.got == b"no HTTP"));
    net.assert_nothing_is_left();
}

#[test]
fn requests_spread_over_members_one_by_one() {
    let mut net = Net::with(profile(|_| ()), limits(), |_| ());
    let client = net.client();
    for round in 0..8 {
        net.client_sends(client, GET);
        let asked = (0..net.members.socks.len())
            .find(|&member| net.told(member).len() == GET.len() * (round / 2 + 1) && round % 2 == member)
            .expect("each member in its turn");
        net.member_sends(asked, OK);
    }
    assert_eq!(net.members.socks.len(), 2);
    assert_ne!(net.members.socks[0].key.dst, net.members.socks[1].key.dst);
    net.assert_nothing_is_left();
}

#[test]
fn a_member_that_is_gone_is_asked_no_more_and_another_is_found() {
    let mut net = Net::with(profile(|_| ()), limits(), |parts| parts.pools[0].reselect_tries = 1);
    let (text, port) = MEMBERS[0];
    net.members.listens.insert((address(text), port), Welcome::Ignore);
    let client = net.client();
    for _ in 0..4 {
        let before = net.got(client).len();
        net.client_sends(client, GET);
        net.pass(2_100);
        net.member_sends(last(&net), OK);
        assert_eq!(net.got(client).len(), before + OK.len());
    }
    let there: Address = address(MEMBERS[1].0);
    assert!(net.members.socks.iter().all(|sock| sock.key.dst == there));
    net.assert_nothing_is_left();
}

#[test]
fn ipv6_is_spoken_on_both_sides() {
    let mut net = Net::with(ProxyProfile::default(), limits(), |parts| {
        let item = &mut parts.virtuals[1];
        (item.kind, item.proxy) = (VirtualKind::Standard, Some(Arc::new(profile(|_| ()))));
        parts.pools[1].members.truncate(1);
    });
    net.members.listens.insert((address("2001:db8:2::11"), 8_080), Welcome::Accept);
    net.world.teach("2001:db8:2::11", net.members.mac);
    let now = net.now();
    let from = (address(crate::world::CLIENT6), 3_000);
    let client = net.clients.connect(from, (address(crate::world::VIRTUAL6), 80), now);
    net.client_sends(client, GET);
    assert_eq!(net.told(0), GET);
    net.member_sends(0, OK);
    assert_eq!(net.got(client), OK);
    net.assert_nothing_is_left();
}

#[test]
fn pipelined_requests_beyond_number_are_all_answered_in_order() {
    let mut net = net();
    let client = net.client();
    let requests: Vec<u8> =
        (0..300).flat_map(|n| format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes()).collect();
    net.client_sends(client, &requests);
    for round in 0..300 {
        assert!(net.told(0).ends_with(format!("GET /{round} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()));
        net.member_sends(0, format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{round:03}").as_bytes());
    }
    let expected: String =
        (0..300).map(|n| format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{n:03}")).collect();
    assert_eq!(net.got(client), expected.as_bytes());
    net.assert_nothing_is_left();
}

#[test]
fn pipelined_requests_that_we_answer_ourselves_are_all_answered() {
    let mut net = Net::with(profile(|_| ()), limits(), |parts| parts.pools[0].members.clear());
    let client = net.client();
    net.client_sends(client, &GET.repeat(500));
    net.pass(100);
    let answers = net.got(client).windows(13).filter(|window| window == b"HTTP/1.1 503 ").count();
    assert_eq!(answers, 500);
    assert_eq!(net.client_is(client), "open");
    net.assert_nothing_is_left();
}

#[test]
fn a_client_of_the_old_version_that_names_no_host_asks_the_address_it_came_to() {
    for (request, host) in [
        (&b"GET / HTTP/1.0\r\n\r\n"[..], "192.0.2.100"),
        (b"GET / HTTP/1.0\r\nHost: named\r\n\r\n", "named"),
        (b"GET http://absolute/ HTTP/1.0\r\n\r\n", "absolute"),
        (b"GET / HTTP/1.1\r\nHost: \r\n\r\n", ""),
    ] {
        let mut net = net();
        let client = net.client();
        net.client_sends(client, request);
        if host.is_empty() {
            assert!(net.got(client).starts_with(b"HTTP/1.1 400 "));
            continue;
        }
        let told = String::from_utf8_lossy(net.told(last(&net))).into_owned();
        assert!(told.starts_with(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n")), "{told}");
    }
}

#[test]
fn what_is_not_http_at_its_first_byte_is_refused_at_once() {
    for byte in [0x16, 0, 0x80, b'{', b'"'] {
        let mut net = net();
        let client = net.client();
        net.client_sends(client, &[byte]);
        assert!(
            net.got(client).starts_with(b"HTTP/1.1 400 "),
            "{byte:#x}: {}",
            net.got(client).escape_ascii()
        );
        net.assert_nothing_is_left();
    }
}

#[test]
fn a_refusal_of_connect_says_what_is_allowed() {
    let mut net = net();
    let client = net.client();
    net.client_sends(client, b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n");
    let told = String::from_utf8_lossy(net.got(client)).into_owned();
    assert!(told.starts_with("HTTP/1.1 405 ") && told.contains("\r\nAllow: GET, HEAD, "), "{told}");
}
