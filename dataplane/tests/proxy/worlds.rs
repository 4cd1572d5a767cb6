//! Worlds from seeds: 1 to 16 workers between clients and members, wires that lose, double and delay, packets that arrive
//! at any worker, and connections that end in every order.
//!
//! ```text
//!   SLUICE_SIM_SEEDS=10000 cargo test -p sluice-dataplane --test proxy worlds     more worlds
//!   SLUICE_SIM_SEED=12 cargo test -p sluice-dataplane --test proxy worlds         this one again
//! ```
//!
//! Every eight bytes name their connection, direction and place, so whatever reaches the wrong end is seen. When all is
//! over no worker may hold anything.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sluice_dataplane::clock::Instant;
use sluice_dataplane::config::ids::MemberId;
use sluice_dataplane::config::proxy::ProxyProfile;
use sluice_dataplane::config::snapshot::VirtualKind;
use sluice_dataplane::frame::{Frame, FramePool};
use sluice_dataplane::packet::build::address;
use sluice_dataplane::snat::steer::Owners;
use sluice_dataplane::tcp::State;
use sluice_dataplane::worker::Activity;

use crate::harness::{Left, MEMBERS, SERVICE, limits};
use crate::host::{Host, Welcome};
use crate::random::Random;
use crate::world::{self, EXTERNAL, EXTERNAL_MAC, INTERNAL, INTERNAL_MAC, World};

/// What a seed means.
#[derive(Debug)]
struct Plan {
    workers: usize,
    spread: Spread,
    /// Of a hundred frames: lost, doubled, delayed by up to 20 ms.
    faults: [usize; 3],
    /// Of the virtual server; 0 for none.
    limit: usize,
    connections: Vec<Connection>,
}

/// Which worker's queue a frame comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spread {
    ByFlow,
    AnywhereInside,
    Anywhere,
}

#[derive(Debug, Clone, Copy)]
struct Connection {
    at_ms: u64,
    /// Bytes from the client, and from the member.
    lens: [usize; 2],
    ending: Ending,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Behind its last byte; the other side follows when it has heard it.
    ClientCloses,
    MemberCloses,
    /// So long after the client has asked.
    ClientResets(u64),
    MemberResets(u64),
}

impl Plan {
    fn new(random: &mut Random) -> Self {
        let mut of = |choices: &[usize]| choices[random.below(choices.len())];
        let workers = of(&[1, 2, 3, 4, 8, 16]);
        let spread = [Spread::ByFlow, Spread::AnywhereInside, Spread::Anywhere][of(&[0, 1, 2])];
        let faults = if of(&[0, 1]) == 0 { [0; 3] } else { [of(&[0, 1, 5]), of(&[0, 3]), of(&[0, 10])] };
        let limit = of(&[0, 0, 1, 3, 10]);
        let connections = (0..of(&[1, 5, 24])).map(|_| connection(&mut of)).collect();
        Self { workers, spread, faults, limit, connections }
    }
}

fn connection(of: &mut impl FnMut(&[usize]) -> usize) -> Connection {
    let mut len = || of(&[8, 9, 1_459, 1_460, 1_461, 20_000, 150_000]);
    let lens = [len(), len()];
    let after = of(&[0, 1, 5, 40, 300]) as u64;
    let ending = match of(&[0, 0, 0, 1, 1, 1, 2, 3]) {
        0 => Ending::ClientCloses,
        1 => Ending::MemberCloses,
        2 => Ending::ClientResets(after),
        _ => Ending::MemberResets(after),
    };
    Connection { at_ms: of(&[0, 1, 2, 50, 100, 400]) as u64, lens, ending }
}

/// The byte at a place of what a connection carries: eight name the connection, the direction and their place.
fn byte(tag: usize, way: usize, at: usize) -> u8 {
    ((tag as u64) << 40 | (way as u64) << 32 | (at / 8) as u64).to_be_bytes()[at % 8]
}

fn stream(tag: usize, way: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| byte(tag, way, at)).collect()
}

#[derive(Debug, Clone, Copy)]
enum To {
    Worker(usize),
    Host(usize),
}

struct Sim {
    plan: Plan,
    random: Random,
    now_ms: u64,
    workers: Vec<World>,
    owners: Owners,
    clients: Host,
    members: Host,
    frames: FramePool,
    on_wire: BTreeMap<(u64, u64), (To, Frame)>,
    order: u64,
    /// The client's socket of each connection that has begun.
    begun: Vec<Option<usize>>,
    /// The connection of each member's socket that has heard who it is, and since when.
    tags: HashMap<usize, (usize, u64)>,
    /// Bytes that were compared, by host and socket.
    compared: HashMap<(usize, usize), usize>,
}

impl Sim {
    fn new(mut random: Random) -> Self {
        Self::of(Plan::new(&mut random), random)
    }

    fn of(plan: Plan, random: Random) -> Self {
        let mut parts = world::usual();
        let item = &mut parts.virtuals[0];
        (item.kind, item.proxy) = (VirtualKind::Standard, Some(Arc::new(ProxyProfile::default())));
        item.connection_limit = plan.limit as u32;
        let mut workers = World::several(plan.workers, limits(), &parts);
        for _ in 0..4 {
            workers.iter_mut().for_each(|worker| drop(worker.run(20)));
        }
        let mut members = Host::new(INTERNAL, world::member_mac(0xee), INTERNAL_MAC);
        members.listens.extend(MEMBERS.map(|(text, port)| ((address(text), port), Welcome::Accept)));
        Self {
            random,
            now_ms: workers[0].now_ms,
            owners: Owners::new(plan.workers),
            workers,
            clients: Host::new(EXTERNAL, world::CLIENT_MAC, EXTERNAL_MAC),
            members,
            frames: FramePool::new(4_096),
            on_wire: BTreeMap::new(),
            order: 0,
            begun: vec![None; plan.connections.len()],
            tags: HashMap::new(),
            compared: HashMap::new(),
            plan,
        }
    }

    fn now(&self) -> Instant {
        Instant::from_ms(self.now_ms)
    }

    /// Everything the plan says, and then until all is over that ends by itself.
    fn run(&mut self) {
        let start = self.now_ms;
        while self.now_ms < start + LONGEST_MS {
            self.begin(start);
            self.act();
            self.pass(STEP_MS);
            self.compare();
            let mut ends = self.clients.socks.iter().chain(&self.members.socks);
            if self.begun.iter().all(Option::is_some) && ends.all(|end| end.state.is_over()) {
                break;
            }
        }
        // A RST that was lost leaves a client alone, but no worker with it.
        if self.now_ms >= start + LONGEST_MS {
            let held: u64 = self.workers.iter().map(|worker| worker.counters.proxies.load()).sum();
            assert_eq!(held, 0, "{:?}", self.plan);
        }
        self.assert_complete();
        self.assert_nothing_is_left();
    }

    /// Clients whose time has come ask.
    fn begin(&mut self, start: u64) {
        for tag in 0..self.begun.len() {
            let connection = self.plan.connections[tag];
            if self.begun[tag].is_some() || self.now_ms < start + connection.at_ms {
                continue;
            }
            let from = (address(world::CLIENT), 40_000 + tag as u16);
            let sock = self.clients.connect(from, (address(SERVICE.0), SERVICE.1), self.now());
            self.clients.socks[sock].to_send = stream(tag, 0, connection.lens[0]);
            self.clients.socks[sock].closes = connection.ending == Ending::ClientCloses;
            self.begun[tag] = Some(sock);
        }
    }

    /// Members answer whom they know, and whoever is to close or reset does.
    fn act(&mut self) {
        for sock in 0..self.members.socks.len() {
            let got = &self.members.socks[sock].got;
            if let Some(first) = got.first_chunk::<8>().filter(|_| !self.tags.contains_key(&sock)) {
                let tag = (u64::from_be_bytes(*first) >> 40) as usize;
                assert!(tag < self.begun.len(), "bytes of nobody's: {first:02x?}");
                self.tags.insert(sock, (tag, self.now_ms));
                self.members.socks[sock].to_send = stream(tag, 1, self.plan.connections[tag].lens[1]);
                self.members.socks[sock].closes = self.plan.connections[tag].ending == Ending::MemberCloses;
            }
            let Some(&(tag, since)) = self.tags.get(&sock) else { continue };
            let end = &mut self.members.socks[sock];
            match self.plan.connections[tag].ending {
                Ending::ClientCloses if end.is_done && end.state == State::Open => end.closes = true,
                Ending::MemberResets(after) if self.now_ms >= since + after && !end.state.is_over() => {
                    self.members.abort(sock);
                }
                Ending::ClientResets(after) if self.now_ms >= since + after => {
                    let client = self.begun[tag].expect("it has asked");
                    if !self.clients.socks[client].state.is_over() {
                        self.clients.abort(client);
                    }
                }
                _ => {}
            }
        }
        for (tag, sock) in self.begun.iter().enumerate().filter_map(|(tag, sock)| Some((tag, (*sock)?))) {
            let end = &mut self.clients.socks[sock];
            let follows = self.plan.connections[tag].ending == Ending::MemberCloses;
            end.closes |= follows && end.is_done && end.state == State::Open;
        }
    }

    /// Every new byte is the one that belongs there; no more are open than may be.
    fn compare(&mut self) {
        let ends = self.begun.iter().enumerate().filter_map(|(tag, sock)| Some((0, (*sock)?, tag)));
        let members = self.tags.iter().map(|(&sock, &(tag, _))| (1, sock, tag));
        for (host, sock, tag) in ends.chain(members) {
            let got = if host == 0 { &self.clients.socks[sock].got } else { &self.members.socks[sock].got };
            let checked = self.compared.entry((host, sock)).or_default();
            let wrong = (*checked..got.len()).find(|&at| got[at] != byte(tag, 1 - host, at));
            assert_eq!(wrong, None, "connection {tag} at host {host}: {:?}", self.plan);
            assert!(got.len() <= self.plan.connections[tag].lens[1 - host], "connection {tag}: too much");
            *checked = got.len();
        }
        let open: u64 = self.workers.iter().map(|worker| worker.open_connections(0)).sum();
        assert!(self.plan.limit == 0 || open <= self.plan.limit as u64, "{open} open: {:?}", self.plan);
    }

    /// Whoever meant well and was let in has given and got everything. Where packets are lost, so may be all SYNs to a
    /// member, and the RST by which its client is told.
    fn assert_complete(&self) {
        for (tag, connection) in self.plan.connections.iter().enumerate() {
            let client = &self.clients.socks[self.begun[tag].expect("all have begun")];
            let members = self.tags.iter().filter(|(_, (of, _))| *of == tag);
            let told: Vec<usize> = members.map(|(&sock, _)| self.members.socks[sock].got.len()).collect();
            let is_orderly = matches!(connection.ending, Ending::ClientCloses | Ending::MemberCloses);
            let is_unheard = told.is_empty() && client.got.is_empty();
            let may_be = self.plan.faults[0] > 0 || (self.plan.limit > 0 && client.state == State::Reset);
            if !is_orderly || (is_unheard && may_be) {
                continue;
            }
            let want = (&connection.lens[..1], connection.lens[1]);
            assert_eq!((&told[..], client.got.len()), want, "connection {tag} is {:?}", client.state);
        }
    }

    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let now = self.now();
            let turns = self.workers.iter_mut().map(|world| world.worker.turn(now));
            let is_busy = turns.filter(|activity| *activity == Activity::Busy).count() > 0;
            if !self.carry() && !is_busy {
                return;
            }
        }
        panic!("the workers do not rest at {} ms: {:?}", self.now_ms, self.plan);
    }

    /// One round over the wires; true when a frame moved.
    fn carry(&mut self) -> bool {
        let now = self.now();
        let mut sent = Vec::new();
        for worker in &self.workers {
            for (place, peer) in worker.ports.iter().enumerate() {
                sent.extend(std::iter::from_fn(|| peer.recv()).map(|frame| (To::Host(place), frame)));
            }
        }
        for (place, host) in [&mut self.clients, &mut self.members].into_iter().enumerate() {
            sent.extend(host.run(now).into_iter().map(|frame| (To::Worker(place), frame)));
        }
        for (to, frame) in sent {
            self.launch(to, frame);
        }
        let mut moved = false;
        while let Some(entry) = self.on_wire.first_entry().filter(|entry| entry.key().0 <= self.now_ms) {
            let (to, frame) = entry.remove();
            self.land(to, frame);
            moved = true;
        }
        moved
    }

    /// Onto the wire, as its faults will have it.
    fn launch(&mut self, to: To, frame: Frame) {
        let [lost, doubled, delayed] = self.plan.faults.map(|share| self.random.below(100) < share);
        if lost {
            return;
        }
        if doubled && let Some(mut copy) = self.frames.copy_of(frame.bytes()) {
            copy.offload = frame.offload;
            self.fly(true, to, copy);
        }
        self.fly(delayed, to, frame);
    }

    fn fly(&mut self, is_late: bool, to: To, frame: Frame) {
        let late = if is_late { self.random.below(20) as u64 } else { 0 };
        self.order += 1;
        self.on_wire.insert((self.now_ms + late, self.order), (to, frame));
    }

    fn land(&mut self, to: To, frame: Frame) {
        let now = self.now();
        match to {
            To::Worker(place) => {
                let is_anywhere = match self.plan.spread {
                    Spread::ByFlow => false,
                    Spread::AnywhereInside => place == 1,
                    Spread::Anywhere => true,
                };
                let number = match is_anywhere {
                    true => self.random.below(self.plan.workers),
                    false => self.owners.of_frame(frame.bytes()),
                };
                assert!(self.workers[number].ports[place].send(frame).is_ok(), "room in the queue");
            }
            To::Host(0) => self.clients.receive(frame, now),
            To::Host(_) => self.members.receive(frame, now),
        }
    }

    /// Lets time go by. Nobody acts before it said that it would.
    fn pass(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        self.settle();
        while self.now_ms < end {
            let now = self.now();
            let due = |world: &mut World| {
                self.now_ms + (world.worker.next_due(now).as_nanos() as u64).div_ceil(1_000_000)
            };
            let worker = self.workers.iter_mut().map(due).min();
            let flying = self.on_wire.first_key_value().map(|(&(due_ms, _), _)| due_ms);
            let hosts = [self.clients.due_ms(now), self.members.due_ms(now), flying, worker];
            let next = hosts.into_iter().flatten().min().unwrap_or(end);
            self.now_ms = next.clamp(self.now_ms + 1, end);
            self.settle();
        }
    }

    /// Lets everything end that is left, on wires without faults.
    fn assert_nothing_is_left(&mut self) {
        self.plan.faults = [0; 3];
        (0..self.clients.socks.len()).for_each(|sock| self.clients.abort(sock));
        self.pass(80_000);
        (0..self.members.socks.len()).for_each(|sock| self.members.abort(sock));
        self.pass(40_000);
        for (number, worker) in self.workers.iter_mut().enumerate() {
            worker.now_ms = self.now_ms;
            let of = |id| worker.counters.of_member(MemberId(id));
            let members = (0..2).filter_map(of).map(|member| member.connections.current.load()).sum();
            let (proxies, virtuals) = (worker.counters.proxies.load(), worker.open_connections(0));
            let snat = worker.snat().iter().map(|item| u64::from(item.in_use)).sum();
            let left = Left { proxies, virtuals, members, snat, flows: worker.flows().len() };
            assert_eq!(left, Left::default(), "worker {number}: {:?}", worker.all_drops());
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn bytes_arrive_at_their_own_end_and_nothing_is_left_in_every_world() {
    let seeds = match variable("SLUICE_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("SLUICE_SIM_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        // What the test printed last is the seed of the world that failed.
        println!("SLUICE_SIM_SEED={seed}");
        Sim::new(Random::with(seed + 1)).run();
    }
}

/// More ask at once than may be let in: exactly as many are as may be, on however many workers, and again later.
#[test]
fn limits_are_exact_over_all_workers() {
    for (workers, limit) in [(1, 3), (2, 1), (3, 7), (4, 10), (8, 5), (16, 10)] {
        let asks = Connection { at_ms: 0, lens: [8, 8], ending: Ending::MemberResets(u64::MAX >> 1) };
        let connections = vec![asks; limit + 12];
        let plan = Plan { workers, spread: Spread::Anywhere, faults: [0; 3], limit, connections };
        let mut sim = Sim::of(plan, Random::with(1));
        for round in 0..3 {
            let first = sim.clients.socks.len();
            sim.begun.fill(None);
            sim.begin(sim.now_ms);
            sim.pass(500);
            let states = sim.clients.socks[first..].iter().map(|sock| sock.state);
            let (open, refused): (Vec<_>, Vec<_>) = states.partition(|state| *state == State::Open);
            assert_eq!((open.len(), refused.len()), (limit, 12), "{workers} workers, round {round}");
            assert!(refused.iter().all(|state| *state == State::Reset), "{refused:?}");
            (first..sim.clients.socks.len()).for_each(|sock| sim.clients.abort(sock));
            sim.pass(1_000);
        }
        sim.assert_nothing_is_left();
    }
}

const SEEDS: u64 = 100;
const STEP_MS: u64 = 20;
/// With losses, each of which may cost a second or more.
const LONGEST_MS: u64 = 400_000;
const ROUNDS_MAX: usize = 200_000;
