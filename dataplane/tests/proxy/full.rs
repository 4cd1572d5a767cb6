//! Tables and limits that are full: what waits gives way to what works.

use sluice_dataplane::config::proxy::{HttpProfile, ProxyProfile, Reuse};
use sluice_dataplane::packet::build::address;

use crate::harness::{Net, limits};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Connections are kept for one client each, so none is of use to another.
fn own_connections() -> ProxyProfile {
    let reuse = Reuse { source_mask_v4: 32, ..Reuse::default() };
    ProxyProfile { http: Some(HttpProfile { reuse, ..HttpProfile::default() }), ..ProxyProfile::default() }
}

/// One request of a client at its own address; false when it was not answered.
fn is_served(net: &mut Net, last: usize) -> bool {
    let client = net.ask_from((address(&format!("198.51.100.{last}")), 4_000));
    net.client_sends(client, GET);
    net.pass(60);
    let asked = net.members.socks.iter().rposition(|sock| sock.got == GET && !sock.has_sent);
    asked.into_iter().for_each(|member| net.member_sends(member, OK));
    let is_served = net.got(client) == OK;
    net.client_resets(client);
    net.pass(20);
    is_served
}

#[test]
fn connections_that_wait_do_not_keep_new_clients_out() {
    let mut limits = limits();
    limits.proxies = 4;
    let mut net = Net::with(own_connections(), limits, |parts| parts.pools[0].members.truncate(1));
    let served = (1..=30).filter(|&last| is_served(&mut net, last)).count();
    assert_eq!(served, 30);
    net.assert_nothing_is_left();
}

#[test]
fn connections_that_wait_do_not_fill_a_members_limit() {
    let mut net = Net::with(own_connections(), limits(), |parts| {
        parts.pools[0].members.truncate(1);
        parts.pools[0].members[0].connection_limit = 2;
    });
    let served = (1..=10).filter(|&last| is_served(&mut net, last)).count();
    assert_eq!(served, 10);
    net.assert_nothing_is_left();
}
