//! How members are chosen, and how an operator takes one out.

use sluice_tests::peer::{self, Service};
use sluice_tests::{LinkKind, World, config};
use std::io::Read;
use std::net::TcpStream;

const VIRTUAL: &str = "192.0.2.100:80";
const FIRST: &str = "10.1.0.11:9000";

/// Sluice before two TCP echo servers on port 9000 that greet with one letter, `1` or `2`.
struct Echoes {
    world: World,
    _services: Vec<Service>,
}

impl Echoes {
    fn start(options: &str, first: &str, second: &str) -> Option<Self> {
        let member = |host, more| format!("address: 10.1.0.{host}, port: 9000{more}");
        let text = config::pool_of(options, &[&member(11, first), &member(12, second)]);
        let world = World::start(LinkKind::Veth, &text)?;
        let serve =
            |(server, name): (&sluice_tests::Server, &str)| Service::tcp_echo(&server.namespace, 9000, name);
        let services = world.lab.servers().iter().zip(["1", "2"]).map(serve).collect();
        Some(Self { world, _services: services })
    }

    /// A connection, and the letter of the member that took it.
    fn connect(&self) -> (TcpStream, char) {
        let mut stream = peer::connect(self.world.lab.client(), VIRTUAL).expect("a connection");
        let mut letter = [0];
        stream.read_exact(&mut letter).expect("a greeting");
        (stream, char::from(letter[0]))
    }

    /// The letters of `count` connections, each closed before the next.
    fn letters(&self, count: usize) -> String {
        (0..count).map(|_| self.connect().1).collect()
    }

    fn member(&self, verb: &str) {
        self.world.sluice.must(&["member", verb, "web", FIRST]);
    }
}

fn count(letters: &str, letter: char) -> usize {
    letters.matches(letter).count()
}

#[test]
fn a_disabled_member_keeps_its_connections_and_gets_no_new_ones() {
    let Some(echoes) = Echoes::start("    slow_ramp_time: 0s\n", "", "") else { return };
    let mut on_first = std::iter::repeat_with(|| echoes.connect()).take(4).find(|(_, letter)| *letter == '1');
    let (kept, _) = on_first.as_mut().expect("one of four connections goes to the first member");

    echoes.member("disable");
    assert_eq!(echoes.letters(6), "222222", "a disabled member takes no new connections");
    assert_eq!(peer::echo(kept, b"still here").expect("the old connection lives"), b"still here");

    echoes.member("enable");
    assert_eq!(count(&echoes.letters(6), '1'), 3, "an enabled member takes its turn again");
    assert_eq!(peer::echo(kept, b"and still").expect("the old connection lives"), b"and still");
}

#[test]
fn an_offline_member_gets_no_new_connections_at_once() {
    let Some(echoes) = Echoes::start("", "", "") else { return };
    let mut on_first = std::iter::repeat_with(|| echoes.connect()).take(4).find(|(_, letter)| *letter == '1');
    let (kept, _) = on_first.as_mut().expect("one of four connections goes to the first member");

    echoes.member("offline");
    assert_eq!(echoes.letters(6), "222222", "an offline member takes no new connections");
    // tmsh: "offline = only active connections": those live on.
    assert_eq!(peer::echo(kept, b"still here").expect("the old connection lives"), b"still here");

    echoes.world.sluice.must(&["member", "offline", "web", "10.1.0.12:9000"]);
    let error = peer::connect(echoes.world.lab.client(), VIRTUAL).expect_err("no member is left");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
}

#[test]
fn a_member_that_is_not_there_is_a_clear_error() {
    let Some(echoes) = Echoes::start("", "", "") else { return };
    let output = echoes.world.sluice.command(&["member", "disable", "web", "10.1.0.99:1"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("10.1.0.99:1"), "{said}");
}

#[test]
fn ratio_gives_each_member_its_share() {
    let options = "    load_balancing: ratio-member\n";
    let Some(echoes) = Echoes::start(options, ", ratio: 1", ", ratio: 3") else { return };
    let letters = echoes.letters(24);
    assert_eq!((count(&letters, '1'), count(&letters, '2')), (6, 18), "{letters}");
}

#[test]
fn least_connections_fills_up_the_member_with_fewer() {
    let options = "    load_balancing: least-connections-member\n    slow_ramp_time: 0s\n";
    let Some(echoes) = Echoes::start(options, "", "") else { return };
    echoes.member("disable");
    let mut held: Vec<_> = (0..6).map(|_| echoes.connect()).collect();
    assert!(held.iter().all(|(_, letter)| *letter == '2'));

    echoes.member("enable");
    held.extend((0..6).map(|_| echoes.connect()));
    let letters: String = held[6..].iter().map(|(_, letter)| *letter).collect();
    assert_eq!(letters, "111111", "the first member had six connections fewer");
    held.extend((0..4).map(|_| echoes.connect()));
    let letters: String = held[12..].iter().map(|(_, letter)| *letter).collect();
    assert_eq!(count(&letters, '1'), 2, "even again: {letters}");
}
