//! A worker between a client's link and the members', on a clock that only the test moves.
//!
//! ```text
//!   clients (one Host) ── wire ── EXTERNAL │ worker │ INTERNAL ── wire ── members (one Host)
//! ```
//!
//! [`Net::settle`] carries frames until nobody has more to say, [`Net::pass`] lets time go by, in the steps that the worker
//! itself asks for. A wire may lose, double and reorder frames.
#![allow(dead_code, unreachable_pub, reason = "a harness; each test binary uses its own part")]

use std::sync::Arc;

use sluice_dataplane::address::{Address, Mac};
use sluice_dataplane::clock::Instant;
use sluice_dataplane::config::proxy::{HttpProfile, ProxyProfile};
use sluice_dataplane::config::snapshot::{Parts, VirtualKind};
use sluice_dataplane::frame::Frame;
use sluice_dataplane::limits::Limits;
use sluice_dataplane::packet::build::address;
use sluice_dataplane::packet::build::{self, Tcp};
use sluice_dataplane::packet::parse::tcp_flag::ACK;
use sluice_dataplane::tcp::State;
use sluice_dataplane::worker::Activity;

use super::host::{Host, Welcome};
use super::random::Random;
use super::world::{self, EXTERNAL, EXTERNAL_MAC, INTERNAL, INTERNAL_MAC, World};

pub const SERVICE: (&str, u16) = ("192.0.2.100", 80);
pub const MEMBERS: [(&str, u16); 2] = [("10.1.0.11", 8080), ("10.1.0.12", 8080)];
/// What a proxied connection holds of one direction, in its two buffers.
pub const BUFFER: usize = 65_536;

pub struct Net {
    pub world: World,
    pub clients: Host,
    pub members: Host,
    pub now_ms: u64,
    pub faults: Option<Faults>,
    next_port: u16,
    on_wire: Vec<Flying>,
}

/// What becomes of frames.
pub struct Faults {
    pub random: Random,
    /// Of a hundred frames: lost, doubled, delayed by up to 30 ms.
    pub lost: usize,
    pub doubled: usize,
    pub delayed: usize,
}

struct Flying {
    due_ms: u64,
    to: To,
    frame: Frame,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Worker(usize),
    Host(usize),
}

impl Net {
    /// With one member, and this profile.
    pub fn new(profile: ProxyProfile) -> Self {
        Self::with(profile, limits(), |parts| parts.pools[0].members.truncate(1))
    }

    /// With HTTP and one member.
    pub fn http(change: impl FnOnce(&mut HttpProfile)) -> Self {
        let mut http = HttpProfile::default();
        change(&mut http);
        Self::new(ProxyProfile { http: Some(http), ..ProxyProfile::default() })
    }

    /// Both members, and whatever else.
    pub fn with(profile: ProxyProfile, limits: Limits, change: impl FnOnce(&mut Parts)) -> Self {
        let mut world = World::with_limits(limits, |parts| {
            let item = &mut parts.virtuals[0];
            (item.kind, item.proxy) = (VirtualKind::Standard, Some(Arc::new(profile)));
            change(parts);
        });
        world.start();
        let mut members = Host::new(INTERNAL, Mac([2, 0, 0, 0, 1, 0xee]), INTERNAL_MAC);
        for (text, port) in MEMBERS {
            members.listens.insert((address(text), port), Welcome::Accept);
            world.teach(text, members.mac);
        }
        Self {
            now_ms: world.now_ms,
            clients: Host::new(EXTERNAL, world::CLIENT_MAC, EXTERNAL_MAC),
            members,
            world,
            faults: None,
            next_port: 40_000,
            on_wire: Vec::new(),
        }
    }

    pub fn now(&self) -> Instant {
        Instant::from_ms(self.now_ms)
    }

    /// A client that asks; nothing has happened yet.
    pub fn ask(&mut self) -> usize {
        self.next_port += 1;
        self.ask_from((address(world::CLIENT), self.next_port))
    }

    pub fn ask_from(&mut self, from: (Address, u16)) -> usize {
        let now = self.now();
        self.clients.connect(from, (address(SERVICE.0), SERVICE.1), now)
    }

    /// A client that is connected.
    pub fn client(&mut self) -> usize {
        let client = self.ask();
        self.settle();
        assert_eq!(self.clients.socks[client].state, State::Open, "{:?}", self.world.all_drops());
        client
    }

    /// Sends in one piece.
    pub fn client_sends(&mut self, client: usize, bytes: &[u8]) {
        self.clients.socks[client].to_send.extend_from_slice(bytes);
        self.settle();
    }

    pub fn member_sends(&mut self, member: usize, bytes: &[u8]) {
        self.members.socks[member].to_send.extend_from_slice(bytes);
        self.settle();
    }

    pub fn client_closes(&mut self, client: usize) {
        self.clients.socks[client].closes = true;
        self.settle();
    }

    pub fn member_closes(&mut self, member: usize) {
        self.members.socks[member].closes = true;
        self.settle();
    }

    pub fn client_resets(&mut self, client: usize) {
        self.clients.abort(client);
        self.settle();
    }

    pub fn member_resets(&mut self, member: usize) {
        self.members.abort(member);
        self.settle();
    }

    /// What the client got so far.
    pub fn got(&self, client: usize) -> &[u8] {
        &self.clients.socks[client].got
    }

    /// What the member got so far.
    pub fn told(&self, member: usize) -> &[u8] {
        &self.members.socks[member].got
    }

    /// How the client's connection stands: `open`, `closed` by us, `reset`.
    pub fn client_is(&self, client: usize) -> &'static str {
        stands(&self.clients, client)
    }

    pub fn member_is(&self, member: usize) -> &'static str {
        stands(&self.members, member)
    }

    /// Carries frames until nobody has more to say at this moment.
    pub fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let activity = self.world.worker.turn(self.now());
            let carried = self.carry();
            if !carried && activity == Activity::Quiet {
                return;
            }
        }
        panic!("the worker does not rest at {} ms", self.now_ms);
    }

    /// One round over the wires; true when a frame moved.
    fn carry(&mut self) -> bool {
        let now = self.now();
        let mut sent: Vec<(To, Frame)> = Vec::new();
        for (place, peer) in self.world.ports.iter().enumerate() {
            sent.extend(std::iter::from_fn(|| peer.recv()).map(|frame| (To::Host(place), frame)));
        }
        for (place, host) in [&mut self.clients, &mut self.members].into_iter().enumerate() {
            sent.extend(host.run(now).into_iter().map(|frame| (To::Worker(place), frame)));
        }
        for (to, frame) in sent {
            self.launch(to, frame);
        }
        let mut moved = false;
        let mut at = 0;
        while at < self.on_wire.len() {
            if self.on_wire[at].due_ms <= self.now_ms {
                let Flying { to, frame, .. } = self.on_wire.remove(at);
                self.land(to, frame);
                moved = true;
            } else {
                at += 1;
            }
        }
        moved
    }

    /// Onto the wire, as its faults will have it.
    fn launch(&mut self, to: To, frame: Frame) {
        let mut due_ms = self.now_ms;
        if let Some(faults) = &mut self.faults {
            if faults.random.below(100) < faults.lost {
                return;
            }
            let doubled = faults.random.below(100) < faults.doubled;
            if doubled && let Some(mut copy) = self.world.frames.copy_of(frame.bytes()) {
                copy.offload = frame.offload;
                let due_ms = self.now_ms + faults.random.below(30) as u64;
                self.on_wire.push(Flying { due_ms, to, frame: copy });
            }
            if faults.random.below(100) < faults.delayed {
                due_ms += faults.random.below(30) as u64;
            }
        }
        self.on_wire.push(Flying { due_ms, to, frame });
    }

    fn land(&mut self, to: To, frame: Frame) {
        let now = self.now();
        match to {
            To::Worker(place) => {
                // What does not fit the wire is lost, as it would be.
                let _ = self.world.ports[place].send(frame);
            }
            To::Host(0) => self.clients.receive(frame, now),
            To::Host(_) => self.members.receive(frame, now),
        }
    }

    /// Lets time go by. Nobody acts before it said that it would.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        self.settle();
        while self.now_ms < end {
            let now = self.now();
            let worker =
                self.now_ms + (self.world.worker.next_due(now).as_nanos() as u64).div_ceil(1_000_000);
            let flying = self.on_wire.iter().map(|flying| flying.due_ms).min();
            let hosts = [self.clients.due_ms(now), self.members.due_ms(now), flying];
            let next = hosts.into_iter().flatten().min().unwrap_or(end).min(worker);
            self.now_ms = next.clamp(self.now_ms + 1, end);
            self.settle();
        }
        self.world.now_ms = self.now_ms;
    }

    /// The worker does nothing for so long. What the hosts have to say by now waits for it behind `before` frames of
    /// nobody's.
    pub fn pause(&mut self, ms: u64, before: usize) {
        let stray = build::tcp(&Tcp { src_port: 9, flags: ACK, ..Tcp::default() });
        for _ in 0..before {
            let frame = self.world.frames.copy_of(&stray).expect("frame memory");
            self.world.ports[usize::from(EXTERNAL.0)].send(frame).expect("room on the wire");
        }
        self.carry();
        self.now_ms += ms;
    }

    /// Lets everything end that is left, and checks that nothing is left behind.
    pub fn assert_nothing_is_left(&mut self) {
        self.faults = None;
        for client in 0..self.clients.socks.len() {
            self.clients.abort(client);
        }
        self.settle();
        self.pass(80_000);
        for member in 0..self.members.socks.len() {
            self.members.abort(member);
        }
        self.pass(40_000);
        assert_eq!(self.left(), Left::default(), "drops {:?}", self.world.all_drops());
    }

    /// What a worker holds on behalf of connections.
    pub fn left(&mut self) -> Left {
        let counters = &self.world.counters;
        let of = |id| counters.of_member(sluice_dataplane::config::ids::MemberId(id));
        let member = |id| of(id).map_or(0, |member| member.connections.current.load());
        let (proxies, members) = (counters.proxies.load(), member(0) + member(1));
        let virtuals = self.world.open_connections(0);
        let snat = self.world.snat().iter().map(|item| u64::from(item.in_use)).sum();
        Left { proxies, virtuals, members, snat, flows: self.world.flows().len() }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// In the worker's table.
    pub proxies: u64,
    /// Connections that the virtual server counts.
    pub virtuals: u64,
    /// Connections that the members count.
    pub members: u64,
    /// Ports in use.
    pub snat: u64,
    /// Listed.
    pub flows: usize,
}

fn stands(host: &Host, sock: usize) -> &'static str {
    match &host.socks[sock] {
        sock if sock.state == State::Reset => "reset",
        sock if sock.is_done || matches!(sock.state, State::Closed | State::TimeWait) => "closed",
        sock if sock.state == State::Open => "open",
        sock if sock.state == State::Connecting => "connecting",
        _ => "gone",
    }
}

/// Small tables: a world is made for each row of a table.
pub fn limits() -> Limits {
    Limits {
        flows: 64,
        half_open: 64,
        virtual_servers: 8,
        members: 16,
        neighbors: 64,
        frames: 512,
        snat_port_sets: 16,
        persistence: 64,
        proxies: 64,
        proxy_buffer: BUFFER,
    }
}

const ROUNDS_MAX: usize = 200_000;
