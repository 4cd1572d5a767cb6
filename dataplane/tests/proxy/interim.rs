//! What is said before the response: `100-continue` and other interim responses, and what may not wait for them.

use crate::harness::Net;

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// A client with a request that a member has got the head of.
fn asked(first: &[u8]) -> (Net, usize, usize) {
    let mut net = Net::http(|_| ());
    let client = net.client();
    net.client_sends(client, first);
    let member = net.members.socks.len() - 1;
    assert!(net.told(member).ends_with(b"\r\n\r\n"), "{}", net.told(member).escape_ascii());
    (net, client, member)
}

#[test]
fn a_body_waits_until_its_member_asks_for_it() {
    for at_once in [true, false] {
        let first = if at_once { [HEAD, b"hello"].concat() } else { HEAD.to_vec() };
        let (mut net, client, member) = asked(&first);
        net.pass(500);
        assert!(net.told(member).ends_with(b"\r\n\r\n"), "not before it is asked for");
        net.member_sends(member, CONTINUE);
        assert_eq!(net.got(client), CONTINUE);
        if !at_once {
            net.client_sends(client, b"hello");
        }
        assert!(net.told(member).ends_with(b"\r\n\r\nhello"));
        net.member_sends(member, OK);
        assert!(net.got(client).ends_with(OK));
        assert_eq!(net.client_is(client), "open");
        net.assert_nothing_is_left();
    }
}

#[test]
fn a_member_that_does_not_want_the_body_does_not_get_it() {
    let (mut net, client, member) = asked(&[HEAD, b"hello"].concat());
    net.member_sends(member, b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    assert!(net.got(client).starts_with(b"HTTP/1.1 401 "));
    assert_eq!((net.client_is(client), net.member_is(member)), ("closed", "reset"));
    assert!(net.told(member).ends_with(b"\r\n\r\n"));
    net.assert_nothing_is_left();
}

#[test]
fn a_member_that_never_asks_gets_a_body_that_is_there_after_a_second() {
    let (mut net, client, member) = asked(&[HEAD, b"hello"].concat());
    net.pass(900);
    assert!(net.told(member).ends_with(b"\r\n\r\n"));
    net.pass(200);
    assert!(net.told(member).ends_with(b"\r\n\r\nhello"));
    net.member_sends(member, OK);
    assert!(net.got(client).ends_with(OK));
    net.assert_nothing_is_left();
}

#[test]
fn a_client_that_waits_to_be_asked_is_not_called_slow() {
    let (mut net, client, member) = asked(HEAD);
    net.pass(25_000);
    net.member_sends(member, CONTINUE);
    net.pass(9_000);
    net.client_sends(client, b"hello");
    net.member_sends(member, OK);
    assert_eq!(net.got(client), [CONTINUE, OK].concat());
    net.assert_nothing_is_left();
    let (mut net, client, _) = asked(HEAD);
    net.pass(30_100);
    assert!(net.got(client).starts_with(b"HTTP/1.1 504 "), "{}", net.got(client).escape_ascii());
    net.assert_nothing_is_left();
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn interim_responses_neither_go_on_for_ever_nor_give_their_member_more_time() {
    let (mut net, client, member) = asked(GET);
    for _ in 0..16 {
        net.member_sends(member, HINTS);
    }
    net.member_sends(member, OK);
    assert_eq!(net.got(client), [&HINTS.repeat(16), OK].concat());
    let (mut net, client, member) = asked(GET);
    net.member_sends(member, &HINTS.repeat(17));
    let told = String::from_utf8_lossy(net.got(client));
    assert!(told.contains("HTTP/1.1 502 ") && told.contains("Sluice-Reason: too-many-interims"), "{told}");
    net.assert_nothing_is_left();
    let (mut net, client, member) = asked(GET);
    for _ in 0..14 {
        net.pass(2_000);
        net.member_sends(member, HINTS);
    }
    net.pass(2_100);
    assert!(String::from_utf8_lossy(net.got(client)).contains("HTTP/1.1 504 "));
    net.assert_nothing_is_left();
}
