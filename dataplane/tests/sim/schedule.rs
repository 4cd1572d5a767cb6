//! What a seed means: the size of the world, its weather, its connections and what befalls it.

use sluice_dataplane::address::Address;
use sluice_dataplane::config::snapshot::{Parts, Snat};
use sluice_dataplane::limits::Limits;

use super::endpoint::{Break, Closing, Manners};
use super::link::Weather;
use super::random::Random;
use super::setup;
use super::wire::{End, TCP};

/// Everything that follows from a seed before the first packet.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub workers: usize,
    pub spread: Spread,
    pub weather: Weather,
    /// Nothing but the weather befalls this world, so that every orderly connection completes.
    pub calm: bool,
    /// Virtual servers come to keep ports and stop again, while workers lag behind each other.
    pub turning: bool,
    /// For the process.
    pub limits: Limits,
    pub parts: Parts,
    pub connections: Vec<Connection>,
    pub changes: Vec<(u64, Change)>,
    /// Spoofed SYNs and broken frames: when each arrives.
    pub floods: Vec<u64>,
    pub garbage: Vec<u64>,
}

/// Which worker's queue a frame comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// By a hash of the frame's addresses and ports, as a NIC does.
    ByFlow,
    /// Clients' packets by hash, everything from members anywhere: the worst that a switch can do to replies.
    AnywhereInside,
    /// Every packet anywhere.
    Anywhere,
}

/// A connection (or exchange of datagrams) that a client opens.
#[derive(Debug, Clone)]
pub struct Connection {
    pub at_ms: u64,
    pub client: Address,
    /// What it asks for.
    pub target: End,
    pub protocol: u8,
    pub ask: Manners,
    pub answer: Manners,
    pub member: MemberMood,
    /// Both ends mean to bring it to its end.
    pub orderly: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberMood {
    Answers,
    /// RST, or port unreachable.
    Refuses,
    Silent,
}

/// What happens to the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A member by id is enabled (0), disabled (1) or offline (2).
    MemberState(u32, u8),
    /// The last member of this pool makes room for another.
    SwapMember(usize),
    /// This virtual server is disabled, or enabled again.
    ToggleVirtual(usize),
    /// This virtual server goes away.
    RemoveVirtual(usize),
    /// This virtual server keeps clients' ports whatever comes (0), where it can (1), or never (2).
    SourcePort(usize, u8),
    /// The same configuration again.
    Nothing,
}

impl Plan {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let workers = random.pick(&[1, 1, 1, 2, 2, 3, 3, 4, 4, 8, 16]);
        let calm = random.per_mille(450);
        let weather = Weather::random(&mut random, calm);
        let parts = setup::parts(&mut random, calm);
        let connections = connections(&mut random, &parts, calm);
        let span = connections.iter().map(|connection| connection.at_ms).max().unwrap_or(0) + 300;
        Self {
            seed,
            workers,
            spread: spread(&mut random),
            weather,
            calm,
            turning: false,
            limits: setup::limits(&mut random, calm),
            connections,
            changes: changes(&mut random, &parts, span, calm, workers),
            floods: if calm { Vec::new() } else { moments(&mut random, span, 60, 300) },
            garbage: moments(&mut random, span, 12, 500),
            parts,
        }
    }

    /// A world in which nothing changes but who owns which ports, which clients of the same ports want.
    pub fn turning(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let weather = Weather::random(&mut random, true);
        let mut parts = setup::parts(&mut random, true);
        setup::crowd(&mut random, &mut parts);
        let span = random.pick(&[400, 2_000, 6_000]);
        let targets = setup::crowded_targets();
        let count = random.between(20, 120);
        let connections = (0..count).map(|_| connection(&mut random, &targets, span, true)).collect();
        let mut turn = |_| {
            let change = Change::SourcePort(random.below(4) as usize, random.pick(&[0, 0, 1, 1, 2]));
            (random.between(1, span), change)
        };
        Self {
            changes: (0..12).map(&mut turn).collect(),
            workers: random.pick(&[2, 2, 3, 4, 4, 7, 8, 16]),
            spread: spread(&mut random),
            limits: setup::limits(&mut random, true),
            turning: true,
            calm: true,
            floods: Vec::new(),
            garbage: Vec::new(),
            seed,
            weather,
            connections,
            parts,
        }
    }

    /// The share of one worker.
    pub fn share(&self) -> Limits {
        self.limits.per_worker(self.workers)
    }
}

fn spread(random: &mut Random) -> Spread {
    match random.below(3) {
        0 => Spread::ByFlow,
        1 => Spread::Anywhere,
        _ => Spread::AnywhereInside,
    }
}

fn connections(random: &mut Random, parts: &Parts, calm: bool) -> Vec<Connection> {
    let count = random.between(2, 24);
    let span = random.pick(&[50, 400, 2_000]);
    let targets = setup::targets(parts);
    (0..count).map(|_| connection(random, &targets, span, calm)).collect()
}

fn connection(random: &mut Random, targets: &[(End, u8)], span: u64, calm: bool) -> Connection {
    let (target, protocol) = random.pick(targets);
    let ask_bytes = random.pick(&[0, 1, 8, 91, 92, 93, 400]);
    let answer_bytes = random.pick(&[0, 1, 8, 92, 200, 1_500]);
    let mut connection = Connection {
        at_ms: 10 + random.below(span),
        client: setup::client(random, target.0),
        target,
        protocol,
        ask: Manners {
            bytes: ask_bytes,
            after: 0,
            closing: random.pick(&[Closing::AtOnce, Closing::AfterBytes(answer_bytes), Closing::Second]),
            breaking: Break::Never,
        },
        answer: Manners {
            bytes: answer_bytes,
            after: random.pick(&[0, ask_bytes]),
            closing: random.pick(&[Closing::AtOnce, Closing::AfterBytes(ask_bytes), Closing::Second]),
            breaking: Break::Never,
        },
        member: MemberMood::Answers,
        orderly: true,
    };
    if (connection.ask.closing, connection.answer.closing) == (Closing::Second, Closing::Second) {
        connection.ask.closing = Closing::AtOnce;
    }
    if random.per_mille(if calm { 200 } else { 350 }) {
        misbehave(random, &mut connection);
    }
    connection
}

fn misbehave(random: &mut Random, connection: &mut Connection) {
    let bytes = random.pick(&[0, 1, 60, 300]);
    connection.orderly = false;
    match random.below(6) {
        0 => connection.ask.breaking = Break::Reset(bytes),
        1 => connection.ask.breaking = Break::Vanish(bytes),
        2 => connection.answer.breaking = Break::Reset(bytes),
        3 => connection.answer.breaking = Break::Vanish(bytes),
        4 => connection.member = MemberMood::Refuses,
        _ => connection.member = MemberMood::Silent,
    }
}

/// In a calm world only what must not be felt; and nothing where untranslated connections would lose their worker.
fn changes(random: &mut Random, parts: &Parts, span: u64, calm: bool, workers: usize) -> Vec<(u64, Change)> {
    let stays = workers == 1 || parts.virtuals.iter().all(|item| item.snat != Snat::None);
    if calm && !stays {
        return Vec::new();
    }
    let members: Vec<u32> = parts.pools.iter().flat_map(|pool| &pool.members).map(|m| m.id.0).collect();
    let count = random.below(12);
    let mut one = |_| {
        let change = match random.below(12) {
            0..=5 if calm => Change::Nothing,
            8..=10 if calm => Change::SwapMember(random.below(parts.pools.len() as u64) as usize),
            0..=5 => Change::MemberState(random.pick(&members), random.below(3) as u8),
            6 | 7 => Change::SwapMember(random.below(parts.pools.len() as u64) as usize),
            8 | 9 => Change::ToggleVirtual(random.below(parts.virtuals.len() as u64) as usize),
            10 => Change::RemoveVirtual(random.below(parts.virtuals.len() as u64) as usize),
            _ => Change::Nothing,
        };
        (random.between(1, span), change)
    };
    (0..count).map(&mut one).collect()
}

fn moments(random: &mut Random, span: u64, most: u64, per_mille: u64) -> Vec<u64> {
    let count = if random.per_mille(per_mille) { random.between(1, most) } else { 0 };
    (0..count).map(|_| random.between(1, span)).collect()
}

impl Connection {
    pub fn is_tcp(&self) -> bool {
        self.protocol == TCP
    }
}
