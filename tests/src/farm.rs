//! Sluice on several workers before four nginx members, for what needs more of them than the lab has.

use crate::{LinkKind, Members, Server, World, config, curl, peer, run, show, wait};
use sluice_control::lab::Nginx;
use std::io;
use std::net::TcpStream;
use std::time::Duration;

/// The members as `show members` names them; each answers with its name of [`Farm::NAMES`].
pub const MEMBERS: [&str; 4] = ["10.1.0.11:8080", "10.1.0.12:8080", "10.1.0.11:8081", "10.1.0.12:8081"];

/// A [`World`] with two more servers on port 8081.
#[derive(Debug)]
pub struct Farm {
    // In this order: the servers end before their namespaces go.
    _more: Vec<Nginx>,
    /// The world.
    pub world: World,
}

impl Farm {
    /// What the members answer, in the order of [`MEMBERS`].
    pub const NAMES: [&str; 4] = ["server1", "server2", "server3", "server4"];

    /// Starts sluice on `config`, whose pools are made of [`MEMBERS`]; `None`, said loudly, when not root.
    ///
    /// # Panics
    /// When something does not come up.
    pub fn start(link: LinkKind, config: &str) -> Option<Self> {
        let world = World::start(link, config)?;
        let start = |(server, name): (&Server, &&str)| {
            let directory = world.lab.directory().join(name);
            Nginx::start(&server.namespace, name, 8081, &directory).expect("a second nginx")
        };
        let more = world.lab.servers().iter().zip(&Self::NAMES[2..]).map(start).collect();
        Some(Self { _more: more, world })
    }

    /// `count` requests, each on a connection of its own, and which member answered.
    ///
    /// # Panics
    /// When one gets no answer.
    pub fn members_of(&self, count: usize) -> Members {
        let url = format!("http://{VIRTUAL}/?[1-{count}]");
        let mut curl = curl(self.world.lab.client());
        let text = run(curl.args(["--header", "Connection: close", &url]));
        let mut members = Members::new();
        for name in text.lines() {
            *members.entry(name.to_owned()).or_default() += 1;
        }
        members
    }

    /// One request from each of the client's `ports`, and the member that answered it.
    ///
    /// # Panics
    /// When one gets no answer.
    pub fn members_by_port(&self, ports: std::ops::Range<u16>) -> Vec<String> {
        let to = VIRTUAL.parse().expect("an address and a port");
        let fetch = |port| peer::fetch(&mut peer::connect_here_from(([0; 4], port).into(), to)?);
        let fetch_all = || ports.map(fetch).collect::<Result<_, io::Error>>();
        self.world.lab.client().enter(fetch_all).expect("the namespace is there").expect("answers")
    }

    /// `sluice member VERB` on the member of pool `web` at `place` in [`MEMBERS`].
    ///
    /// # Panics
    /// When it fails.
    pub fn member(&self, verb: &str, place: usize) {
        self.world.sluice.must(&["member", verb, "web", MEMBERS[place]]);
    }
}

/// A pool `web` of [`MEMBERS`], each with its `more`, behind 192.0.2.100:80; three workers.
pub fn pool(options: &str, more: [&str; 4]) -> String {
    let members: Vec<String> =
        MEMBERS.iter().zip(more).map(|(member, more)| member_of(member, more)).collect();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    config::pool_of(options, &members).replace("workers: 1", "workers: 3")
}

fn member_of(member: &str, more: &str) -> String {
    let (address, port) = member.split_once(':').unwrap_or_default();
    format!("address: {address}, port: {port}{more}")
}

/// What came of connections that were tried at once.
#[derive(Debug, Default)]
pub struct Tried {
    /// Those that were taken, and are held open.
    pub open: Vec<TcpStream>,
    /// Why the others were not.
    pub refused: Vec<io::Error>,
}

impl Tried {
    /// Whether everybody who was refused got a RST.
    pub fn all_reset(&self) -> bool {
        self.refused.iter().all(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// Tries `count` connections to `address` at the same time.
///
/// # Panics
/// When the client is gone.
pub fn connect_at_once(world: &World, address: &str, count: usize) -> Tried {
    let connect = || {
        let threads: Vec<_> = (0..count)
            .map(|_| address.to_owned())
            .map(|to| std::thread::spawn(move || peer::connect_here(&to)))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
    };
    let mut tried = Tried::default();
    for result in world.lab.client().enter(connect).expect("the namespace is there") {
        match result {
            Ok(stream) => tried.open.push(stream),
            Err(error) => tried.refused.push(error),
        }
    }
    tried
}

/// Waits until `name` among `things` has no connection.
///
/// # Panics
/// When that takes too long.
pub fn until_idle(world: &World, things: &str, name: &str) {
    wait::until("the end of every connection", Duration::from_secs(10), || {
        let object = world.sluice.object(things, name);
        (show::number(&object, "/connections/current") == 0).then_some(())
    });
}

/// The virtual server of [`pool`].
pub const VIRTUAL: &str = "192.0.2.100:80";
