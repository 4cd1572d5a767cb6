//! Members asked before clients are let in, copies of requests, members that go down, and paths that turn out smaller.

use std::collections::HashSet;

use sluice_dataplane::address::Address;
use sluice_dataplane::config::ids::{MemberId, PoolId};
use sluice_dataplane::config::proxy::{CookieMethod, CookiePersistence, HttpProfile, ProxyProfile};
use sluice_dataplane::config::snapshot::{Parts, ServiceDownAction};
use sluice_dataplane::filter::{Filter, Mirror};
use sluice_dataplane::packet::build::{self, address};
use sluice_dataplane::packet::rewrite::LinkHeader;
use sluice_dataplane::pool::MemberState;

use crate::harness::{MEMBERS, Net, SERVICE, limits};
use crate::host::Welcome;
use crate::world::{CLIENT_MAC, EXTERNAL, EXTERNAL_MAC, member};

const GET: &[u8] = b"GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn verified(tries: u8) -> Net {
    let profile = ProxyProfile { verified_accept: true, ..ProxyProfile::default() };
    Net::with(profile, limits(), |parts| parts.pools[0].reselect_tries = tries)
}

fn welcome(net: &mut Net, member: usize, welcome: Welcome) {
    let (text, port) = MEMBERS[member];
    net.members.listens.insert((address(text), port), welcome);
}

#[test]
fn the_end_of_a_drain_refuses_a_client_whose_member_has_not_answered() {
    let mut net = verified(0);
    welcome(&mut net, 0, Welcome::Ignore);
    let client = net.ask();
    net.settle();
    assert_eq!(net.client_is(client), "connecting");
    net.world.worker.end_connections();
    net.pass(10);
    assert_eq!(net.client_is(client), "reset");
    net.assert_nothing_is_left();
}

#[test]
fn a_client_is_let_in_once_its_member_has_answered() {
    let mut net = verified(0);
    let client = net.ask();
    net.settle();
    assert_eq!((net.client_is(client), net.member_is(0)), ("open", "open"));
    net.client_sends(client, b"question");
    net.member_sends(0, b"answer");
    assert_eq!((net.told(0), net.got(client)), (&b"question"[..], &b"answer"[..]));
    assert_eq!(net.members.socks.len(), 1, "the connection that was asked with is the one that is used");
    net.assert_nothing_is_left();
}

#[test]
fn a_member_that_refuses_refuses_the_client() {
    let mut net = verified(0);
    (0..2).for_each(|at| welcome(&mut net, at, Welcome::Refuse));
    let client = net.ask();
    net.pass(50);
    assert_eq!((net.client_is(client), net.members.syns), ("reset", 1));
    net.assert_nothing_is_left();
}

#[test]
fn another_member_may_answer_for_one_that_refuses() {
    let mut net = verified(1);
    welcome(&mut net, 0, Welcome::Refuse);
    for _ in 0..3 {
        let client = net.ask();
        net.pass(50);
        assert_eq!(net.client_is(client), "open");
    }
    net.assert_nothing_is_left();
}

#[test]
fn a_silent_member_is_given_up_and_its_client_refused() {
    let mut net = verified(0);
    (0..2).for_each(|at| welcome(&mut net, at, Welcome::Ignore));
    let client = net.ask();
    net.pass(500);
    assert_eq!(net.client_is(client), "connecting", "nobody is let in before");
    net.pass(20_000);
    assert_ne!(net.client_is(client), "open");
    net.assert_nothing_is_left();
}

/// Two pools; every request is copied to the second one's member.
fn mirrored() -> Net {
    let filter = Filter::Mirror(Mirror { pool: PoolId(2), per_mille: 1_000 });
    let http = HttpProfile { filters: vec![filter], ..HttpProfile::default() };
    Net::with(ProxyProfile { http: Some(http), ..ProxyProfile::default() }, limits(), |parts| {
        parts.pools[0].members.truncate(1);
        parts.pools[2].members = vec![member(9, MEMBERS[1].0, MEMBERS[1].1)];
    })
}

/// The connection to each member: the one asked and the one that gets copies.
fn both(net: &Net) -> (usize, usize) {
    let to = |wanted: usize| {
        let found = net.members.socks.iter().rposition(|sock| {
            (sock.key.dst, sock.key.dst_port) == (address(MEMBERS[wanted].0), MEMBERS[wanted].1)
        });
        found.expect("a connection")
    };
    (to(0), to(1))
}

#[test]
fn a_copy_says_the_same_and_nobody_waits_for_its_answer() {
    let mut net = mirrored();
    let client = net.client();
    let post = b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for request in [GET, post] {
        net.client_sends(client, request);
        net.pass(50);
        let (asked, copied) = both(&net);
        let line = request.split(|&byte| byte == b'\r').next().expect("a line");
        assert!(net.told(copied).starts_with(line), "{}", net.told(copied).escape_ascii());
        let body = |bytes: &[u8]| {
            bytes.windows(4).position(|at| at == b"\r\n\r\n").map(|at| bytes[at + 4..].to_vec())
        };
        let from = net.told(asked).windows(line.len()).rposition(|at| at == line).expect("asked");
        assert_eq!(body(&net.told(asked)[from..]), body(net.told(copied)), "the same body");
        net.member_sends(asked, OK);
        assert!(net.got(client).ends_with(OK), "{}", net.got(client).escape_ascii());
    }
    let (_, copied) = both(&net);
    net.member_sends(copied, b"HTTP/1.1 500 x\r\nContent-Length: 2\r\n\r\nno");
    assert_eq!(net.got(client), OK.repeat(2));
    net.pass(60_000);
    net.assert_nothing_is_left();
}

#[test]
fn a_dead_mirror_harms_nobody() {
    let mut net = mirrored();
    welcome(&mut net, 1, Welcome::Ignore);
    let client = net.client();
    net.client_sends(client, GET);
    net.pass(10);
    let asked = net.members.socks.len() - 1;
    net.member_sends(asked, OK);
    assert_eq!(net.got(client), OK);
    net.pass(60_000);
    net.assert_nothing_is_left();
}

/// Both members, and a cookie that chooses among them.
fn by_cookie(method: CookieMethod, name: &str) -> Net {
    let cookie = CookiePersistence {
        method,
        name: name.into(),
        max_age_s: 0,
        path: "/".into(),
        http_only: false,
        secure: false,
        always_send: false,
    };
    let http = HttpProfile { cookie: Some(cookie), ..HttpProfile::default() };
    Net::with(ProxyProfile { http: Some(http), ..ProxyProfile::default() }, limits(), |_| ())
}

/// The address of the member that a request with this cookie goes to, and what the client gets.
fn member_for(net: &mut Net, cookie: &str) -> (Address, Vec<u8>) {
    let before: Vec<usize> = net.members.socks.iter().map(|sock| sock.got.len()).collect();
    let client = net.client();
    net.client_sends(client, format!("GET / HTTP/1.1\r\nHost: h\r\nCookie: {cookie}\r\n\r\n").as_bytes());
    let asked =
        (0..net.members.socks.len()).find(|&at| net.told(at).len() > before.get(at).copied().unwrap_or(0));
    let asked = asked.expect("a member was asked");
    net.member_sends(asked, OK);
    (net.members.socks[asked].key.dst, net.got(client).to_vec())
}

#[test]
fn a_cookie_names_its_member_and_nobody_else_sets_it() {
    for (method, sets) in [(CookieMethod::Insert, true), (CookieMethod::Passive, false)] {
        let mut net = by_cookie(method, "sticky");
        // BIG-IP's format: 10.1.0.11:8080 and 10.1.0.12:8080.
        for (value, member) in [("184549642.36895.0000", "10.1.0.11"), ("201326858.36895.0000", "10.1.0.12")]
        {
            for _ in 0..3 {
                let (asked, got) = member_for(&mut net, &format!("a=b; sticky={value}"));
                assert_eq!((asked, got.as_slice()), (address(member), OK), "{method:?}");
            }
        }
        let (_, got) = member_for(&mut net, "sticky=nonsense");
        let set = got.windows(19).any(|at| at == b"Set-Cookie: sticky=");
        assert_eq!(set, sets, "{method:?}: {}", got.escape_ascii());
        net.assert_nothing_is_left();
    }
}

#[test]
fn a_member_that_is_offline_does_not_get_its_cookies() {
    let mut net = by_cookie(CookieMethod::Insert, "sticky");
    net.world.members.set(MemberId(0), MemberState::Offline);
    let (asked, _) = member_for(&mut net, "sticky=184549642.36895.0000");
    assert_eq!(asked, address("10.1.0.12"));
    net.assert_nothing_is_left();
}

#[test]
fn the_hash_of_a_cookie_leads_to_one_member_and_many_cookies_to_all() {
    let mut net = by_cookie(CookieMethod::Hash, "session");
    let mut all = HashSet::new();
    for number in 0..16 {
        let cookie = format!("session=s{number}");
        let (first, _) = member_for(&mut net, &cookie);
        assert!((0..3).all(|_| member_for(&mut net, &cookie).0 == first), "{cookie}");
        all.insert(first);
    }
    assert_eq!(all.len(), 2);
    net.assert_nothing_is_left();
}

fn going_down(action: ServiceDownAction, tries: u8) -> Net {
    let change = |parts: &mut Parts| {
        parts.pools[0].service_down_action = action;
        parts.pools[0].reselect_tries = tries;
    };
    let http = Some(HttpProfile::default());
    Net::with(ProxyProfile { http, ..ProxyProfile::default() }, limits(), change)
}

/// The member that the connection is to goes offline.
fn take_down(net: &mut Net, sock: usize) {
    let down = MEMBERS.iter().position(|(text, _)| address(text) == net.members.socks[sock].key.dst);
    net.world.members.set(MemberId(down.expect("a member") as u32), MemberState::Offline);
    net.pass(100);
}

#[test]
fn a_request_whose_member_goes_down_ends_as_the_operator_says() {
    for (action, tries, expected) in [
        (ServiceDownAction::None, 0, None),
        (ServiceDownAction::Reset, 0, Some(&b"HTTP/1.1 502"[..])),
        (ServiceDownAction::Reselect, 1, Some(b"HTTP/1.1 200")),
    ] {
        let mut net = going_down(action, tries);
        let client = net.client();
        net.client_sends(client, GET);
        let first = net.members.socks.len() - 1;
        take_down(&mut net, first);
        let answering = net.members.socks.len() - 1;
        assert_eq!(answering != first, action == ServiceDownAction::Reselect, "{action:?}");
        if net.member_is(answering) == "open" {
            assert_eq!(net.got(client), b"", "{action:?}");
            net.member_sends(answering, OK);
        }
        let expected = expected.unwrap_or(b"HTTP/1.1 200");
        assert!(net.got(client).starts_with(expected), "{action:?}: {}", net.got(client).escape_ascii());
        net.assert_nothing_is_left();
    }
}

#[test]
fn a_connection_that_waits_is_closed_when_its_member_goes_down() {
    let mut net = going_down(ServiceDownAction::None, 0);
    let client = net.client();
    net.client_sends(client, GET);
    let member = net.members.socks.len() - 1;
    net.member_sends(member, OK);
    assert_eq!(net.member_is(member), "open");
    take_down(&mut net, member);
    assert_ne!(net.member_is(member), "open");
    net.assert_nothing_is_left();
}

#[test]
fn a_smaller_path_gets_smaller_segments_and_loses_nothing() {
    let mut net = Net::new(ProxyProfile::default());
    let client = net.client();
    let down: Vec<u8> = (0..40_000u32).map(|at| (at >> 3) as u8).collect();
    net.clients.path_mtu = Some(600);
    net.members.socks[0].to_send = down.clone();
    net.pass(50);
    assert!(net.got(client).len() < down.len(), "nothing larger than the path comes through");
    let offender = net.clients.lost.pop().expect("a packet too big for the path");
    net.world.send(EXTERNAL, &too_big(&offender, 600));
    net.pass(10_000);
    assert!(net.got(client) == down, "{} of {} bytes", net.got(client).len(), down.len());
    net.assert_nothing_is_left();
}

/// ICMP: fragmentation needed, about this IP packet, from a router on the client's link.
fn too_big(offender: &[u8], mtu: u16) -> Vec<u8> {
    let link = LinkHeader { destination: EXTERNAL_MAC, source: CLIENT_MAC, vlan: 0 };
    let mut message = vec![3, 4, 0, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend(&offender[..28.min(offender.len())]);
    build::packet(link, "192.0.2.1", SERVICE.0, 64, 1, &message, 2)
}
