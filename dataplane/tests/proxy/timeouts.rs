//! Every phase of HTTP that may last too long, to the tenth of a second, on the virtual clock.

use sluice_dataplane::config::proxy::{HttpProfile, HttpTimeouts, Route};

use crate::harness::{BUFFER, Left, Net};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn net(change: impl FnOnce(&mut HttpTimeouts)) -> Net {
    Net::http(|http| change(&mut http.timeouts))
}

/// A client with a request that a member has got; their connections.
fn asked(net: &mut Net, request: &[u8]) -> (usize, usize) {
    let client = net.client();
    net.client_sends(client, request);
    (client, net.members.socks.len() - 1)
}

/// Nothing happens up to `ms`, and then the client is told this; the clock stands shortly behind it.
fn answered_at(net: &mut Net, client: usize, ms: u64, line: &str, why: &str) {
    let before = net.got(client).len();
    net.pass(ms - 10);
    assert_eq!((net.client_is(client), net.got(client).len()), ("open", before), "before {ms} ms");
    net.pass(30);
    let told = String::from_utf8(net.got(client)[before..].to_vec()).expect("text");
    assert!(told.starts_with(line) && told.contains(&format!("Sluice-Reason: {why}\r\n")), "{told}");
    assert!(told.contains("Connection: close\r\n"), "{told}");
    assert_eq!(net.client_is(client), "closed");
}

/// Nothing happens up to `ms`, and then the client's connection is in this state, without a word.
fn ends_at(net: &mut Net, client: usize, ms: u64, state: &str) {
    let before = net.got(client).len();
    net.pass(ms - 10);
    assert_eq!(net.client_is(client), "open", "before {ms} ms");
    net.pass(30);
    assert_eq!((net.client_is(client), net.got(client).len()), (state, before));
}

#[test]
fn a_client_that_says_nothing_is_closed() {
    let mut net = net(|_| ());
    let client = net.client();
    ends_at(&mut net, client, 5_000, "closed");
    net.client_closes(client);
    net.pass(10_000);
    assert_eq!(net.left(), Left::default());
}

#[test]
fn a_pause_of_the_worker_ends_no_connection_whose_packets_wait() {
    let mut net = net(|_| ());
    let client = net.client();
    net.clients.socks[client].to_send.extend_from_slice(GET);
    net.pause(6_000, 1_000);
    net.settle();
    assert_eq!(
        (net.client_is(client), net.members.syns),
        ("open", 1),
        "its request came before its time was up"
    );
    net.member_sends(0, OK);
    assert!(net.got(client).starts_with(b"HTTP/1.1 200 OK"));
}

#[test]
fn a_head_has_its_time_however_it_trickles() {
    let mut net = net(|_| ());
    let client = net.client();
    net.pass(4_000);
    net.client_sends(client, b"GET / HTTP/1.1\r\n");
    for _ in 0..9 {
        net.pass(1_000);
        net.client_sends(client, b"X: y\r\n");
    }
    answered_at(&mut net, client, 1_000, "HTTP/1.1 408 ", "head-timeout");
    assert_eq!(net.members.syns, 0);
    net.assert_nothing_is_left();
}

/// Wherever the client's end cuts it: nobody waits for the rest of a head that cannot come.
#[test]
fn a_head_that_cannot_become_whole_ends_its_connection_at_once() {
    for len in 0..GET.len() {
        for in_one in [true, false] {
            let mut net = net(|_| ());
            let client = net.client();
            net.clients.socks[client].closes = in_one;
            net.client_sends(client, &GET[..len]);
            net.client_closes(client);
            net.pass(100);
            assert_eq!((net.client_is(client), net.got(client)), ("closed", &b""[..]), "{len} bytes");
            assert_eq!((net.members.syns, net.left().virtuals), (0, 0), "{len} bytes");
        }
    }
}

#[test]
fn the_next_head_has_its_time_too() {
    let mut net = net(|_| ());
    let (client, member) = asked(&mut net, GET);
    net.member_sends(member, OK);
    net.pass(50_000);
    net.client_sends(client, b"G");
    answered_at(&mut net, client, 10_000, "HTTP/1.1 408 ", "head-timeout");
    net.assert_nothing_is_left();
}

#[test]
fn a_client_that_asks_no_more_is_closed() {
    let mut net = net(|_| ());
    let (client, member) = asked(&mut net, GET);
    net.member_sends(member, OK);
    ends_at(&mut net, client, 60_000, "closed");
    net.assert_nothing_is_left();
}

const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n";

#[test]
fn a_body_that_stops_is_given_up() {
    let mut net = net(|timeouts| timeouts.body_rate_min = 0);
    let (client, member) = asked(&mut net, POST);
    for _ in 0..3 {
        net.pass(29_000);
        net.client_sends(client, b"x");
    }
    answered_at(&mut net, client, 30_000, "HTTP/1.1 408 ", "body-timeout");
    assert_eq!(net.member_is(member), "reset");
    net.assert_nothing_is_left();
}

/// It is told, what it sends is thrown away for a while, then its window stays closed, and in the end it is reset.
#[test]
fn a_client_that_never_stops_sending_after_an_early_answer_is_let_go() {
    const MUCH: usize = 5_000_000;
    let mut net = net(|_| ());
    let head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n";
    let (client, member) = asked(&mut net, head);
    let answer = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    net.member_sends(member, answer);
    net.member_closes(member);
    net.clients.socks[client].to_send = vec![b'x'; MUCH];
    net.pass(1_900);
    assert!(net.got(client).starts_with(b"HTTP/1.1 413 "), "{}", net.got(client).escape_ascii());
    assert_eq!((net.client_is(client), net.told(member)), ("closed", &head[..]));
    let taken = MUCH - net.clients.socks[client].to_send.len();
    assert!(taken < 3 * BUFFER, "{taken} bytes were taken");
    net.pass(2_000);
    assert_eq!(net.client_is(client), "reset");
    net.assert_nothing_is_left();
}

#[test]
fn a_body_that_trickles_is_given_up_after_ten_seconds() {
    let mut net = net(|_| ());
    let (client, _) = asked(&mut net, POST);
    for _ in 0..9 {
        net.pass(1_000);
        net.client_sends(client, &[b'x'; 100]);
    }
    assert_eq!(net.client_is(client), "open");
    net.pass(3_000);
    assert!(net.got(client).starts_with(b"HTTP/1.1 408 "), "{}", net.got(client).escape_ascii());
    net.assert_nothing_is_left();
}

#[test]
fn a_body_at_the_least_rate_goes_on() {
    let mut net = net(|_| ());
    let (client, member) = asked(&mut net, POST);
    for _ in 0..90 {
        net.pass(1_000);
        net.client_sends(client, &[b'x'; 300]);
    }
    assert_eq!((net.client_is(client), net.got(client)), ("open", &b""[..]));
    assert_eq!(net.told(member).len(), POST.len() + 27_000);
    net.assert_nothing_is_left();
}

#[test]
fn a_body_that_trickles_later_is_given_up_too() {
    let mut net = net(|_| ());
    let (client, _) = asked(&mut net, POST);
    net.client_sends(client, &[b'x'; 20_000]);
    for _ in 0..25 {
        net.pass(1_000);
        net.client_sends(client, b"x");
    }
    assert!(net.got(client).starts_with(b"HTTP/1.1 408 "), "{}", net.got(client).escape_ascii());
    net.assert_nothing_is_left();
}

#[test]
fn a_member_that_does_not_answer_is_given_up() {
    let mut net = net(|_| ());
    let (client, member) = asked(&mut net, GET);
    answered_at(&mut net, client, 30_000, "HTTP/1.1 504 ", "response-timeout");
    assert_eq!(net.member_is(member), "reset");
    net.assert_nothing_is_left();
}

#[test]
fn the_response_is_waited_for_from_the_requests_end() {
    let mut net = net(|timeouts| timeouts.body_rate_min = 0);
    let (client, _) = asked(&mut net, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n");
    net.pass(20_000);
    net.client_sends(client, b"a");
    net.pass(20_000);
    net.client_sends(client, b"b");
    answered_at(&mut net, client, 30_000, "HTTP/1.1 504 ", "response-timeout");
    net.assert_nothing_is_left();
}

#[test]
fn a_response_that_stops_is_cut() {
    let mut net = net(|_| ());
    let (client, member) = asked(&mut net, GET);
    net.member_sends(member, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
    net.pass(20_000);
    net.member_sends(member, b"hello");
    ends_at(&mut net, client, 30_000, "reset");
    assert_eq!(net.member_is(member), "reset");
    net.pass(1_000);
    assert_eq!(net.left(), Left::default());
}

#[test]
fn a_member_that_stops_within_its_head_is_given_up() {
    let mut net = net(|_| ());
    let (client, member) = asked(&mut net, GET);
    net.pass(10_000);
    net.member_sends(member, b"HTTP/1.1 200 OK\r\nX: ");
    net.pass(10_000);
    net.member_sends(member, b"y");
    net.pass(40_010);
    assert!(net.got(client).starts_with(b"HTTP/1.1 504 "), "{}", net.got(client).escape_ascii());
    net.assert_nothing_is_left();
}

#[test]
fn an_interim_response_does_not_stop_the_clock_for_ever() {
    let mut net = net(|timeouts| timeouts.response_ms = 5_000);
    let (client, member) = asked(&mut net, GET);
    net.member_sends(member, b"HTTP/1.1 103 Early Hints\r\n\r\n");
    net.pass(5_010);
    let told = String::from_utf8_lossy(net.got(client)).into_owned();
    assert!(told.starts_with("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 504 "), "{told}");
    net.assert_nothing_is_left();
}

#[test]
fn a_client_that_does_not_read_is_cut() {
    let mut net = net(|_| ());
    let (client, member) = asked(&mut net, GET);
    net.clients.socks[client].reads = false;
    net.member_sends(member, b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n");
    net.member_sends(member, &[b'x'; 500_000]);
    net.pass(9_000);
    assert_eq!(net.client_is(client), "open");
    net.pass(25_000);
    assert_eq!((net.left(), net.member_is(member)), (Left::default(), "reset"));
    assert_told_when_it_reads(&mut net, client);
}

#[test]
fn a_client_that_reads_in_crumbs_at_the_least_rate_is_not_cut() {
    let mut net = net(|_| ());
    let (client, member) = asked(&mut net, GET);
    net.clients.socks[client].reads = false;
    net.member_sends(member, b"HTTP/1.1 200 OK\r\nContent-Length: 150000\r\n\r\n");
    net.members.socks[member].to_send = vec![b'x'; 150_000];
    // A window opens by segments; a quarter of the proxy's buffer takes half a minute.
    for _ in 0..30 {
        net.clients.socks[client].crumbs = 2_920;
        net.pass(9_000);
        assert_eq!(net.client_is(client), "open");
    }
    net.clients.socks[client].reads = true;
    net.pass(60_000);
    assert_eq!(net.got(client).len(), 150_000 + b"HTTP/1.1 200 OK\r\nContent-Length: 150000\r\n\r\n".len());
    net.assert_nothing_is_left();
}

#[test]
fn a_client_that_reads_slowly_but_fast_enough_gets_all() {
    let mut net = net(|_| ());
    let (client, member) = asked(&mut net, GET);
    net.clients.socks[client].reads = false;
    net.member_sends(member, b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n");
    net.members.socks[member].to_send = vec![b'x'; 300_000];
    for _ in 0..40 {
        net.pass(5_000);
        net.clients.socks[client].reads = true;
        net.settle();
        net.clients.socks[client].reads = false;
    }
    net.clients.socks[client].reads = true;
    net.pass(5_000);
    assert_eq!(net.got(client).len(), 300_000 + b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n".len());
    net.assert_nothing_is_left();
}

/// After its last response a client may be as slow as before, and no slower.
#[test]
fn the_end_of_the_last_response_may_be_read_as_slowly_as_the_rest() {
    for (crumbs, is_cut) in [(2_920, false), (1_460, true)] {
        let mut net = net(|_| ());
        let (client, member) = asked(&mut net, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        net.clients.socks[client].reads = false;
        let response = [&b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n"[..], &[b'x'; 40_000]].concat();
        net.member_sends(member, &response);
        for _ in 0..8 {
            net.clients.socks[client].crumbs = crumbs;
            net.pass(9_000);
        }
        assert_eq!(net.world.open_connections(0), u64::from(!is_cut), "{crumbs} bytes at once");
        net.clients.socks[client].reads = true;
        net.pass(10_000);
        assert_eq!(net.got(client).len() > 40_000, !is_cut, "{crumbs} bytes at once");
        net.assert_nothing_is_left();
    }
}

#[test]
fn a_client_that_does_not_take_an_answer_of_ours_is_given_up() {
    let mut net = Net::http(|http| http.timeouts.first_byte_ms = 5_000);
    let client = net.client();
    net.clients.socks[client].reads = false;
    // So many refusals that the client's window and our buffer are full.
    for _ in 0..400 {
        net.client_sends(client, b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    assert_eq!(net.client_is(client), "open");
    net.pass(62_000);
    assert_eq!(net.left(), Left::default());
    assert_told_when_it_reads(&mut net, client);
}

/// A RST that a closed window may have kept out is repeated to whoever asks.
fn assert_told_when_it_reads(net: &mut Net, client: usize) {
    net.clients.socks[client].reads = true;
    net.pass(100);
    assert_eq!(net.client_is(client), "reset");
    net.assert_nothing_is_left();
}

#[test]
fn an_old_connection_is_closed_after_its_next_response() {
    let mut net = net(|timeouts| timeouts.max_age_ms = 10_000);
    let (client, member) = asked(&mut net, GET);
    net.member_sends(member, OK);
    net.pass(8_900);
    net.client_sends(client, GET);
    net.member_sends(member, OK);
    assert_eq!(net.client_is(client), "open");
    net.pass(1_200);
    net.client_sends(client, GET);
    net.member_sends(member, OK);
    assert!(net.got(client).ends_with(b"Connection: close\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(net.client_is(client), "closed");
    net.assert_nothing_is_left();
}

#[test]
fn connections_that_came_together_do_not_go_together() {
    let mut net = net(|timeouts| (timeouts.max_age_ms, timeouts.first_byte_ms) = (10_000, 60_000));
    let clients: Vec<usize> = (0..40).map(|_| net.client()).collect();
    net.pass(9_500);
    for client in &clients {
        net.client_sends(*client, GET);
        net.member_sends(net.members.socks.len() - 1, OK);
    }
    let gone = clients.iter().filter(|client| net.client_is(**client) == "closed").count();
    assert!((10..=30).contains(&gone), "{gone} of 40 at 95 % of their age");
}

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
const SWITCH: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

#[test]
fn a_quiet_tunnel_ends_and_a_busy_one_does_not() {
    let mut net = net(|timeouts| timeouts.tunnel_ms = 20_000);
    let (client, member) = asked(&mut net, UPGRADE);
    net.member_sends(member, SWITCH);
    for _ in 0..5 {
        net.pass(19_000);
        net.client_sends(client, b"ping");
        net.pass(19_000);
        net.member_sends(member, b"pong");
    }
    ends_at(&mut net, client, 20_000, "closed");
    assert_eq!(net.member_is(member), "closed");
    net.assert_nothing_is_left();
}

#[test]
fn a_waiting_connection_ends_after_its_time_and_one_too_old_is_not_kept() {
    let mut net = Net::http(|http| http.reuse.max_age_ms = 40_000);
    let (client, member) = asked(&mut net, GET);
    net.member_sends(member, OK);
    net.pass(29_900);
    assert_eq!(net.member_is(member), "open");
    net.client_sends(client, GET);
    net.member_sends(member, OK);
    net.pass(15_000);
    net.client_sends(client, GET);
    let other = net.members.socks.len() - 1;
    assert_ne!(other, member, "it is too old by now");
    assert_eq!(net.member_is(member), "closed");
    net.member_closes(member);
    net.member_sends(other, OK);
    net.pass(30_100);
    assert_eq!(net.member_is(other), "closed");
    net.assert_nothing_is_left();
}

#[test]
fn a_waiting_connection_carries_so_many_requests_and_no_more() {
    let mut net = Net::http(|http| http.reuse.max_reuse = 3);
    let client = net.client();
    for round in 0..7 {
        net.client_sends(client, GET);
        let member = net.members.socks.len() - 1;
        assert_eq!(member, round / 3, "round {round}");
        net.member_sends(member, OK);
    }
    net.assert_nothing_is_left();
}

#[test]
fn no_more_connections_wait_than_may() {
    let mut net = Net::http(|http| http.reuse.max_size = 2);
    let pairs: Vec<_> = (0..4).map(|_| asked(&mut net, GET)).collect();
    for &(_, member) in &pairs {
        net.member_sends(member, OK);
    }
    let open = pairs.iter().filter(|(_, member)| net.member_is(*member) == "open").count();
    assert_eq!(open, 2);
    net.assert_nothing_is_left();
}

fn with_route(change: impl FnOnce(&mut Route)) -> Net {
    let mut route = Route::default();
    change(&mut route);
    Net::http(|http: &mut HttpProfile| {
        http.routes = sluice_dataplane::config::proxy::RouteTable::new(vec![route]);
    })
}

#[test]
fn a_rule_may_have_times_of_its_own() {
    let mut net = with_route(|route| route.response_timeout_ms = 3_000);
    let (client, _) = asked(&mut net, GET);
    answered_at(&mut net, client, 3_000, "HTTP/1.1 504 ", "response-timeout");
    net.assert_nothing_is_left();
    let mut net = with_route(|route| route.request_timeout_ms = 4_000);
    let (client, _) = asked(&mut net, POST);
    net.pass(2_000);
    net.client_sends(client, &[b'x'; 1_000]);
    answered_at(&mut net, client, 2_000, "HTTP/1.1 504 ", "request-timeout");
    net.assert_nothing_is_left();
}

#[test]
fn the_time_of_a_whole_request_ends_a_response_that_trickles() {
    let mut net = with_route(|route| route.request_timeout_ms = 4_000);
    let (client, member) = asked(&mut net, GET);
    net.member_sends(member, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
    for _ in 0..7 {
        net.pass(500);
        net.member_sends(member, b"x");
        assert_eq!(net.client_is(client), "open");
    }
    net.pass(600);
    assert_eq!((net.client_is(client), net.member_is(member)), ("reset", "reset"));
    net.assert_nothing_is_left();
}

#[test]
fn while_draining_requests_end_their_connections() {
    let mut net = net(|_| ());
    let (idle, member) = asked(&mut net, GET);
    net.member_sends(member, OK);
    assert_eq!(net.client_is(idle), "open");
    let (client, member) = asked(&mut net, GET);
    net.world.worker.drain();
    net.member_sends(member, OK);
    assert!(net.got(client).ends_with(b"Connection: close\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(net.client_is(client), "closed");
    assert_eq!(net.client_is(idle), "closed", "nothing is under way there");
    let late = net.ask();
    net.pass(100);
    assert_ne!(net.client_is(late), "open");
    net.assert_nothing_is_left();
}

#[test]
fn the_end_of_a_drain_resets_both_sides_of_what_is_still_open() {
    let mut net = net(|_| ());
    let (waits, member) = asked(&mut net, GET);
    let (half, other) = asked(&mut net, GET);
    net.member_sends(other, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
    net.world.worker.drain();
    net.settle();
    assert_eq!((net.client_is(waits), net.client_is(half)), ("open", "open"));
    net.world.worker.end_connections();
    net.pass(10);
    assert_eq!((net.client_is(waits), net.client_is(half)), ("reset", "reset"));
    assert_eq!((net.member_is(member), net.member_is(other)), ("reset", "reset"));
    assert_eq!(net.left(), Left::default());
    net.assert_nothing_is_left();
}

#[test]
fn a_client_that_never_closes_after_the_last_response_is_given_up() {
    let mut net = net(|_| ());
    let (client, member) = asked(&mut net, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    net.member_sends(member, OK);
    assert_eq!(net.client_is(client), "closed");
    net.pass(31_000);
    assert_eq!(net.world.open_connections(0), 0);
    net.assert_nothing_is_left();
}

#[test]
fn a_client_that_goes_on_sending_after_a_refusal_finds_its_window_closed() {
    let mut net = net(|_| ());
    let client = net.client();
    net.client_sends(client, b"nonsense\r\n\r\n");
    assert_eq!(net.client_is(client), "closed");
    net.client_sends(client, &vec![b'x'; 500_000]);
    net.pass(1_900);
    let taken = 500_000 - net.clients.socks[client].to_send.len();
    assert!(taken <= (64 << 10) + BUFFER, "{taken} bytes were taken");
    assert!(net.got(client).starts_with(b"HTTP/1.1 400 "));
    assert_eq!(net.client_is(client), "closed", "no RST overtakes the answer");
    net.pass(300);
    assert_eq!(net.world.open_connections(0), 0);
    net.assert_nothing_is_left();
}
