//! A client and a member that send anything, in any pieces, through a whole worker.

use std::cell::Cell;

use sluice_dataplane::tcp::State;

use super::{harness as world, strict};

#[path = "../../../dataplane/tests/proxy/harness.rs"]
mod harness;
#[path = "../../../dataplane/tests/proxy/host.rs"]
mod host;
#[path = "../../../dataplane/tests/proxy/random.rs"]
mod random;

use harness::Net;

/// The bytes are a script: each step is a byte that says what, a second that says how much, and so much data. Whatever
/// it says the worker does not panic and rests, nothing is left in the end, and each member's connection has received
/// whole requests, the last of which may be cut off, as a reader sees them that takes nothing that is not beyond doubt.
pub fn proxy_exchange(bytes: &[u8]) {
    let Some((&options, mut rest)) = bytes.split_first() else { return };
    let mut net = Net::http(|http| {
        http.allow_connect = options & 1 != 0;
        http.reuse.enabled = options & 2 == 0;
        http.limits.line = if options & 4 != 0 { 64 } else { http.limits.line };
        http.limits.body = if options & 8 != 0 { 100 } else { http.limits.body };
        http.timeouts.response_ms = 2_000;
    });
    let script = Script { client: Cell::new(net.client()), sent: Cell::new(0) };
    let mut steps = 0;
    while let Some((&[what, amount], tail)) = rest.split_first_chunk::<2>() {
        let len = if what & 7 < 2 { usize::from(amount).min(tail.len()) } else { 0 };
        let (data, tail) = tail.split_at(len);
        rest = tail;
        steps += 1;
        if steps > STEPS_MAX {
            break;
        }
        script.step(&mut net, what, amount, data);
    }
    check(&net);
    net.assert_nothing_is_left();
    check(&net);
}

struct Script {
    client: Cell<usize>,
    /// Clients so far.
    sent: Cell<usize>,
}

impl Script {
    fn step(&self, net: &mut Net, what: u8, amount: u8, data: &[u8]) {
        let client = self.client.get();
        let open = |state: State| !state.is_over();
        let member = net.members.socks.iter().rposition(|sock| open(sock.state));
        match (what & 7, member) {
            (0, _) => pieces(what, data).for_each(|piece| net.client_sends(client, piece)),
            (1, Some(member)) => pieces(what, data).for_each(|piece| net.member_sends(member, piece)),
            (2, _) => net.client_closes(client),
            (3, Some(member)) => net.member_closes(member),
            (4, _) => net.pass(u64::from(amount) * 40),
            (5, _) if self.sent.get() < CLIENTS_MAX => {
                self.sent.set(self.sent.get() + 1);
                self.client.set(net.ask());
                net.settle();
            }
            (6, _) if amount & 1 == 0 => net.client_resets(client),
            (6, Some(member)) => net.member_resets(member),
            (7, _) => net.clients.socks[client].reads = amount & 1 == 0,
            _ => {}
        }
    }
}

/// In pieces of 1 to 31 bytes, or in one.
fn pieces(what: u8, data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let len = usize::from(what >> 3);
    data.chunks(if len == 0 { data.len().max(1) } else { len })
}

fn check(net: &Net) {
    for sock in &net.members.socks {
        let read = strict::requests(&sock.got);
        // What follows a request for another protocol is the tunnel's, once the member has said a word.
        let is_tunnel = read.may_be_tunnel && sock.has_sent;
        assert!(read.fault.is_none() || is_tunnel, "{:?}: {}", read.fault, sock.got.escape_ascii());
    }
    for sock in &net.clients.socks {
        let beginning = &sock.got[..sock.got.len().min(9)];
        assert!(b"HTTP/1.1 ".starts_with(beginning), "{}", sock.got.escape_ascii());
    }
}

const STEPS_MAX: usize = 200;
const CLIENTS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::random::Random;
    use super::*;

    /// Scripts of steps that mean something, often cut and joined at odd places.
    #[test]
    fn random_scripts_confuse_nobody() {
        let rounds = std::env::var("SLUICE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
        let base = Random::seeded().seed;
        for round in 0..rounds {
            let seed = base.wrapping_add(round);
            let script = script(&mut Random::with(seed));
            let run = || proxy_exchange(&script);
            let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
            assert!(
                told.is_ok(),
                "round {round}, SLUICE_SEED={seed} with one round: {}",
                script.escape_ascii()
            );
        }
    }

    fn script(random: &mut Random) -> Vec<u8> {
        let mut script = vec![random.below(16) as u8];
        for _ in 0..1 + random.below(14) {
            let what = [0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 4, 4, 5, 6, 7][random.below(15)];
            if what > 1 {
                script.extend([what, random.below(256) as u8]);
                continue;
            }
            let texts = if what == 0 { CLIENT } else { MEMBER };
            let mut data = texts[random.below(texts.len())].to_vec();
            if random.below(4) == 0 {
                let other = texts[random.below(texts.len())];
                let at = random.below(data.len() + 1);
                data.truncate(at);
                data.extend_from_slice(&other[random.below(other.len())..]);
            }
            data.truncate(255);
            let step = if random.below(2) == 0 { 0 } else { random.below(32) as u8 };
            script.extend([what | step << 3, data.len() as u8]);
            script.extend(data);
        }
        script
    }

    const CLIENT: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        b"GET /c HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nearly",
        b"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\nearly",
        b"hello",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"\r\n",
    ];

    const MEMBER: &[&[u8]] = &[
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nlate",
        b"HTTP/1.1 204 N\r\n\r\n",
        b"HTTP/1.1 304 N\r\nContent-Length: 7\r\n\r\n",
        b"HTTP/1.1 403 F\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 500 E\r\nContent-Length: 9\r\n\r\nshort",
        b"hi",
        b"0\r\n\r\n",
    ];
}
