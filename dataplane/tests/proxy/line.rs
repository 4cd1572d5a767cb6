//! Connections and requests that wait for a full member: how many, in what order, how long, and who leaves.

use std::collections::VecDeque;

use sluice_dataplane::config::proxy::{HttpProfile, ProxyProfile, Reuse, Route, RouteTable};
use sluice_dataplane::config::snapshot::{Parts, Protocol, Queue};
use sluice_dataplane::http::route::{PathMatch, Rule};
use sluice_dataplane::packet::build::address;
use sluice_dataplane::verdict::DropReason;

use crate::harness::{Net, SERVICE, limits};
use crate::random::Random;
use crate::world;

/// What a client and a full member speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speech {
    Tcp,
    Http,
    /// Connections to the member are shared.
    Reuse,
}

const ALL: [Speech; 3] = [Speech::Tcp, Speech::Http, Speech::Reuse];
const CLOSES: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn profile(speech: Speech) -> ProxyProfile {
    let reuse = Reuse { enabled: speech == Speech::Reuse, ..Reuse::default() };
    let http = HttpProfile { reuse, ..HttpProfile::default() };
    ProxyProfile { http: (speech != Speech::Tcp).then_some(http), ..ProxyProfile::default() }
}

/// One member that takes one connection, and this queue.
fn with_profile(profile: ProxyProfile, depth: u32, time_ms: u32) -> Net {
    Net::with(profile, limits(), |parts| full_pool(parts, Queue { depth, time_ms }))
}

fn full_pool(parts: &mut Parts, queue: Queue) {
    parts.pools[0].members.truncate(1);
    parts.pools[0].members[0].connection_limit = 1;
    parts.pools[0].queue = Some(queue);
}

fn net(speech: Speech, depth: u32, time_ms: u32) -> Net {
    with_profile(profile(speech), depth, time_ms)
}

fn request(name: usize) -> Vec<u8> {
    format!("GET /{name:03} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes()
}

/// A client that is let in and says which it is.
fn arrives(net: &mut Net) -> usize {
    let client = net.ask();
    net.client_sends(client, &request(client));
    client
}

fn last(net: &Net) -> usize {
    net.members.socks.len() - 1
}

/// The client whose request came last on a connection to the member.
fn served(net: &Net, member: usize) -> usize {
    let told = String::from_utf8_lossy(net.told(member)).into_owned();
    let (_, path) = told.rsplit_once("GET /").expect("a request");
    path[..3].parse().expect("a number")
}

/// What the member has at hand is answered and over: there is room for the next.
fn finish(net: &mut Net, speech: Speech) {
    let (member, client) = (last(net), served(net, last(net)));
    match speech {
        Speech::Tcp => {
            net.member_sends(member, b"bye");
            net.member_closes(member);
            net.client_closes(client);
        }
        Speech::Http => {
            net.member_sends(member, CLOSES);
            net.member_closes(member);
        }
        Speech::Reuse => net.member_sends(member, OK),
    }
}

fn is_answered(net: &Net, speech: Speech, client: usize) -> bool {
    match speech {
        Speech::Tcp => net.got(client) == b"bye",
        Speech::Http | Speech::Reuse => net.got(client).starts_with(b"HTTP/1.1 200 "),
    }
}

/// The client was sent away, with this reason where it can be told.
fn is_refused(net: &Net, speech: Speech, client: usize, why: &str) -> bool {
    if speech == Speech::Tcp {
        return net.client_is(client) == "reset" && net.got(client).is_empty();
    }
    let told = String::from_utf8_lossy(net.got(client)).into_owned();
    told.starts_with("HTTP/1.1 503 ") && told.contains(&format!("Sluice-Reason: {why}\r\n"))
}

fn is_waiting(net: &Net, client: usize) -> bool {
    net.client_is(client) == "open" && net.got(client).is_empty()
}

#[test]
fn as_many_wait_as_the_pool_says_and_no_more() {
    for speech in ALL {
        for depth in 1..4 {
            let mut net = net(speech, depth, 0);
            let clients: Vec<usize> = (0..6).map(|_| arrives(&mut net)).collect();
            net.pass(300);
            let waiting = 1..=depth as usize;
            for &client in &clients {
                let is_late = client > depth as usize;
                assert_eq!(is_refused(&net, speech, client, "members-full"), is_late, "{speech:?} {client}");
                assert_eq!(is_waiting(&net, client), !is_late, "{speech:?} {client}");
            }
            assert_eq!((net.members.socks.len(), served(&net, 0)), (1, 0), "{speech:?}");
            assert_eq!(net.world.drops(DropReason::MembersFull), 5 - u64::from(depth), "{speech:?}");
            for client in waiting {
                finish(&mut net, speech);
                assert_eq!(served(&net, last(&net)), client, "{speech:?}: at once, in the order they came");
            }
            net.assert_nothing_is_left();
        }
    }
}

#[test]
fn they_are_served_in_the_order_they_came_whatever_wakes_them() {
    for speech in ALL {
        let mut net = net(speech, 0, 0);
        let clients: Vec<usize> = (0..9).map(|_| arrives(&mut net)).collect();
        for (round, &client) in clients.iter().enumerate() {
            // Those behind ask again and again, the last one first.
            for &other in clients[round + 1..].iter().rev() {
                net.client_sends(other, &request(other));
            }
            net.pass(100);
            assert_eq!(served(&net, last(&net)), client, "{speech:?}");
            finish(&mut net, speech);
            assert!(is_answered(&net, speech, client), "{speech:?} {client}: {}", net.client_is(client));
        }
        net.assert_nothing_is_left();
    }
}

#[test]
fn each_waits_its_own_time_and_leaves_its_place_to_another() {
    for speech in ALL {
        let mut net = net(speech, 2, 1_000);
        arrives(&mut net);
        let first = arrives(&mut net);
        net.pass(400);
        let second = arrives(&mut net);
        net.pass(580);
        assert!(is_waiting(&net, first), "{speech:?}");
        net.pass(40);
        assert!(is_refused(&net, speech, first, "queue-timeout"), "{speech:?}");
        assert!(is_waiting(&net, second), "{speech:?}");
        let third = arrives(&mut net);
        assert!(is_waiting(&net, third), "{speech:?}: there is a place again");
        net.pass(400);
        assert!(is_refused(&net, speech, second, "queue-timeout"), "{speech:?}");
        finish(&mut net, speech);
        assert_eq!(served(&net, last(&net)), third, "{speech:?}");
        assert_eq!(net.world.all_drops(), [("queue-timeout", 2)], "{speech:?}");
        net.assert_nothing_is_left();
    }
}

#[test]
fn without_a_time_limit_nobody_waits_for_ever() {
    for speech in ALL {
        let mut profile = profile(speech);
        profile.http.iter_mut().for_each(|http| http.timeouts.response_ms = 500_000);
        let mut net = with_profile(profile, 0, 0);
        arrives(&mut net);
        let patient = arrives(&mut net);
        net.pass(119_900);
        assert!(is_waiting(&net, patient), "{speech:?}");
        net.pass(200);
        assert!(is_refused(&net, speech, patient, "queue-timeout"), "{speech:?}");
        net.assert_nothing_is_left();
    }
}

#[test]
fn who_leaves_while_it_waits_leaves_its_place() {
    for speech in ALL {
        for leaver in 1..4 {
            let mut net = net(speech, 3, 0);
            let clients: Vec<usize> = (0..4).map(|_| arrives(&mut net)).collect();
            // One that has said its last word may still want an answer.
            net.client_closes(clients[leaver]);
            assert_eq!(net.got(clients[leaver]), b"", "{speech:?}");
            net.client_resets(clients[leaver]);
            let late = arrives(&mut net);
            let refused = arrives(&mut net);
            assert!(is_waiting(&net, late), "{speech:?}");
            assert!(is_refused(&net, speech, refused, "members-full"), "{speech:?}");
            let left = clients.iter().filter(|&&client| client != clients[leaver]).chain([&late]);
            for &client in left {
                assert_eq!(served(&net, last(&net)), client, "{speech:?}");
                finish(&mut net, speech);
            }
            net.assert_nothing_is_left();
        }
    }
}

#[test]
fn a_request_whose_own_time_is_up_leaves_its_place_and_its_connection_may_ask_again() {
    let mut profile = profile(Speech::Reuse);
    let route = Route { request_timeout_ms: 500, ..Route::default() };
    let patient = Rule { path: Some(PathMatch::Exact("/patient".into())), ..Rule::default() };
    let rules = vec![Route { rule: patient, ..Route::default() }, route];
    profile.http.iter_mut().for_each(|http| http.routes = RouteTable::new(rules.clone()));
    let mut net = with_profile(profile, 1, 0);
    let first = net.ask();
    net.client_sends(first, b"GET /patient HTTP/1.1\r\nHost: h\r\n\r\n");
    net.pass(300);
    let second = arrives(&mut net);
    net.member_sends(0, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n");
    net.pass(510);
    assert!(net.got(second).starts_with(b"HTTP/1.1 504 "), "{}", net.got(second).escape_ascii());
    let third = arrives(&mut net);
    assert!(is_waiting(&net, third), "there is a place again");
    net.member_sends(0, b"x");
    assert_eq!((net.got(first).last(), served(&net, 0)), (Some(&b'x'), third));
    net.assert_nothing_is_left();
}

#[test]
fn clients_that_go_on_asking_take_turns_at_a_shared_connection() {
    let mut net = net(Speech::Reuse, 0, 0);
    let clients: Vec<usize> = (0..4).map(|_| arrives(&mut net)).collect();
    for round in 0..40 {
        let client = clients[round % 4];
        assert_eq!(served(&net, 0), client, "round {round}");
        net.clients.socks[client].got.clear();
        // The next request is there before the answer.
        net.client_sends(client, &request(client));
        net.member_sends(0, OK);
        assert_eq!(net.got(client), OK, "round {round}");
    }
    assert_eq!(net.members.socks.len(), 1);
    net.assert_nothing_is_left();
}

#[test]
fn a_connection_that_nobody_in_line_may_share_makes_way_for_the_first() {
    let mut profile = profile(Speech::Reuse);
    let reuse = Reuse { source_mask_v4: 32, ..Reuse::default() };
    profile.http.as_mut().expect("http").reuse = reuse;
    let mut net = with_profile(profile, 1, 0);
    for (round, from) in ["198.51.100.1", "198.51.100.2", "198.51.100.3"].into_iter().enumerate() {
        let client = net.ask_from((address(from), 3_000));
        net.client_sends(client, &request(client));
        net.pass(50);
        assert_eq!((last(&net), served(&net, round)), (round, client), "a connection of its own");
        net.member_sends(round, OK);
        assert_eq!(net.got(client), OK);
    }
    net.assert_nothing_is_left();
}

#[test]
fn room_that_comes_about_elsewhere_is_found() {
    for speech in ALL {
        let mut net = net(speech, 0, 0);
        for _ in 0..4 {
            arrives(&mut net);
        }
        net.world.now_ms = net.now_ms;
        net.world.apply(|parts| parts.pools[0].members[0].connection_limit = 3);
        net.pass(40);
        let at_member: Vec<usize> = (0..net.members.socks.len()).map(|member| served(&net, member)).collect();
        assert_eq!(at_member, [0, 1, 2], "{speech:?}");
        assert!(is_waiting(&net, 3), "{speech:?}");
        net.world.apply(|parts| parts.pools[0].queue = None);
        net.pass(40);
        assert!(is_refused(&net, speech, 3, "members-full"), "{speech:?}: there is no queue any more");
        net.assert_nothing_is_left();
    }
}

#[test]
fn first_packets_and_proxies_stand_in_one_line() {
    let mut net = Net::with(profile(Speech::Tcp), limits(), |parts| {
        full_pool(parts, Queue { depth: 3, time_ms: 0 });
        parts.virtuals.push(world::virtual_server(3, "192.0.2.100/32", 81, Protocol::Tcp, 0));
    });
    let knock = |net: &mut Net, port: u16| {
        let now = net.now();
        let client =
            net.clients.connect((address(world::CLIENT), 50_000 + port), (address(SERVICE.0), 81), now);
        net.client_sends(client, &request(client));
        client
    };
    let proxied = arrives(&mut net);
    let line = [knock(&mut net, 0), arrives(&mut net), knock(&mut net, 1)];
    let late = [knock(&mut net, 2), arrives(&mut net)];
    assert_eq!(late.map(|client| net.client_is(client)), ["reset"; 2], "depth counts both");
    assert_eq!(line.map(|client| net.client_is(client)), ["connecting", "open", "connecting"]);
    for client in [proxied].into_iter().chain(line) {
        assert_eq!(served(&net, last(&net)), client, "{:?}", net.world.all_drops());
        net.member_closes(last(&net));
        net.client_closes(client);
        net.pass(50);
    }
    net.assert_nothing_is_left();
}

/// Clients come, go and are served at random; a model of the line says who is where.
#[test]
fn a_random_history_is_that_of_a_queue() {
    const DEPTH: usize = 4;
    let mut random = Random::seeded();
    for speech in ALL {
        let mut net = net(speech, DEPTH as u32, 0);
        let mut line: VecDeque<usize> = VecDeque::new();
        for step in 0..150 {
            match random.below(4) {
                0 | 1 => {
                    let client = arrives(&mut net);
                    let is_refused = is_refused(&net, speech, client, "members-full");
                    assert_eq!(is_refused, line.len() > DEPTH, "{speech:?} step {step} {line:?}");
                    if !is_refused {
                        line.push_back(client);
                    }
                }
                2 if line.len() > 1 => {
                    let place = 1 + random.below(line.len() - 1);
                    let client = line.remove(place).expect("one that waits");
                    net.client_resets(client);
                }
                _ if !line.is_empty() => {
                    finish(&mut net, speech);
                    let client = line.pop_front().expect("one that is served");
                    assert!(is_answered(&net, speech, client), "{speech:?} step {step}");
                }
                _ => {}
            }
            net.pass(random.below(30) as u64);
            if let Some(&first) = line.front() {
                assert_eq!(served(&net, last(&net)), first, "{speech:?} step {step} {line:?}");
            }
        }
        net.assert_nothing_is_left();
    }
}
