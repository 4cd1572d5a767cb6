//! Workers that give ports and take them back while ports come to have other owners, in turns and on threads of their
//! own. Each test prints its seed when it fails.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use super::ports::{Pair, SnatPorts};
use super::random::Random;
use super::rest::GENERATION_MS;
use super::rules::Rules;
use crate::address::Address;
use crate::packet::build::address;
use crate::packet::parse::protocol;

/// The SNAT ports of all workers of a process, and who holds what.
struct Process {
    rules: Arc<Rules>,
    workers: Vec<SnatPorts>,
    held: HashMap<(usize, [u64; 5]), Vec<usize>>,
    all: Vec<(usize, Pair, u16)>,
}

impl Process {
    fn new(workers: usize, sets: usize, kept: &[Address]) -> Self {
        let rules = Arc::new(Rules::of_ports(512, workers, kept));
        let ports = |number| SnatPorts::new(Arc::clone(&rules), number, sets, number as u64 + 1);
        let workers = (0..workers).map(ports).collect();
        Self { rules, workers, held: HashMap::new(), all: Vec::new() }
    }

    fn hold(&mut self, at: usize, pair: Pair, port: u16) {
        let Pair { address, member, member_port, protocol } = pair;
        let ends = [address.low, member.high, member.low, member_port.into(), protocol.into()];
        let holders = self.held.entry((port.into(), ends)).or_default();
        holders.push(at);
        assert_eq!(holders.len(), 1, "{port} of {pair:?} is given by {holders:?}");
        self.all.push((at, pair, port));
    }

    fn release(&mut self, which: usize) {
        let (at, pair, port) = self.all.swap_remove(which);
        let Pair { address, member, member_port, protocol } = pair;
        let ends = [address.low, member.high, member.low, member_port.into(), protocol.into()];
        self.held.remove(&(port.into(), ends));
        self.workers[at].release(pair, port);
    }

    /// Some way of asking for a port, at the worker that packets of such a connection come to.
    fn ask(&mut self, pair: Pair, random: &mut Random) {
        let owners = self.rules.owners();
        let (wanted, anywhere) =
            (1_000 + random.next() as u16 % 512, random.next() as usize % self.workers.len());
        let given = match random.next() >> 62 {
            0 | 1 if pair.protocol == protocol::TCP => {
                let at = owners.of_port(wanted);
                self.workers[at].take_strictly(pair, wanted).then_some((at, wanted))
            }
            2 => self.workers[anywhere].take_rather(pair, wanted).ok().map(|port| (anywhere, port)),
            _ => self.workers[anywhere].take(pair).ok().map(|port| (anywhere, port)),
        };
        if let Some((at, port)) = given {
            self.hold(at, pair, port);
        }
    }

    /// A little of the work of one worker.
    fn go_on(&mut self, random: &mut Random) {
        let at = random.next() as usize % self.workers.len();
        let work = random.next() as usize % 40;
        if self.workers[at].is_changing() {
            self.workers[at].stock.go_on_changing(work);
        }
    }

    fn settle(&mut self) {
        for worker in &mut self.workers {
            while worker.go_on_changing() {}
        }
        assert!(self.workers.iter_mut().all(SnatPorts::is_settled));
    }

    fn older(&self) -> u64 {
        (0..self.workers.len()).map(|at| self.rules.older_of(at).held()).sum()
    }
}

const ADDRESSES: [&str; 4] = ["10.1.0.10", "10.1.0.50", "2001:db8:2::10", "2001:db8:2::50"];

fn pair(random: &mut Random, members: u64) -> Pair {
    let at = (random.next() >> 40) as usize % ADDRESSES.len();
    let number = random.next() % members + 11;
    let member = if at < 2 { format!("10.1.0.{number}") } else { format!("2001:db8:2::{number}") };
    let protocol = if random.next() >> 60 == 0 && at < 2 { protocol::ICMP } else { protocol::TCP };
    Pair { address: address(ADDRESSES[at]), member: address(&member), member_port: 80, protocol }
}

#[test]
fn no_port_is_given_twice_while_owners_change_whatever_happens() {
    let seed = 0x0_1de5;
    println!("seed {seed:#x}");
    let mut random = Random::new(seed);
    for (workers, sets, members) in
        [(2, 64, 3), (3, 64, 12), (4, 2, 3), (4, 1, 1), (4, 3, 20), (8, 64, 2), (16, 4, 4)]
    {
        let mut process = Process::new(workers, sets, &[]);
        for step in 0..12_000 {
            let which = (random.next() >> 33) as usize;
            match random.next() >> 60 {
                0..=8 => {
                    let pair = pair(&mut random, members);
                    // Echo has one worker.
                    if pair.protocol == protocol::TCP {
                        process.ask(pair, &mut random);
                    } else if let Ok(port) = process.workers[0].take(pair) {
                        process.hold(0, pair, port);
                    }
                }
                9..=12 if !process.all.is_empty() => process.release(which % process.all.len()),
                13 => process.workers.iter_mut().for_each(|one| one.advance(step * 100)),
                _ => process.go_on(&mut random),
            }
            if step % 3_000 == 1_500 {
                let next = address(ADDRESSES[step as usize / 3_000]);
                let at = which % workers;
                process.workers[at].stock.own_by_port(&[next]);
            }
        }
        process.settle();
        (0..process.all.len()).rev().for_each(|which| process.release(which));
        assert_eq!(process.older(), 0, "{workers} workers, {sets} sets");
        assert!(process.workers.iter().all(|one| one.in_use() == 0));
    }
}

fn towards(member: &str) -> Pair {
    Pair { address: address(ADDRESSES[0]), member: address(member), member_port: 80, protocol: 6 }
}

#[test]
fn what_another_worker_has_by_hash_is_given_by_number_only_after_it() {
    let (mut process, pair) = (Process::new(4, 8, &[]), towards("10.1.0.11"));
    let ports: Vec<u16> = (20_000..20_400).collect();
    for &port in &ports {
        let at = (0..4).find(|&at| process.workers[at].take_exactly(pair, port)).unwrap();
        process.hold(at, pair, port);
    }
    process.workers[2].own_by_port(&[pair.address]);
    process.settle();
    let owners = process.rules.owners();
    assert!(process.older() > 200, "three in four are others' by number");
    for &port in &ports {
        assert!(!process.workers[owners.of_port(port)].take_strictly(pair, port), "{port} is in use");
        assert!(process.workers[owners.of_port(port)].take_strictly(towards("10.1.0.12"), port));
    }
    (0..process.all.len()).rev().for_each(|which| process.release(which));
    assert_eq!(process.older(), 0);
    for &port in &ports {
        let owner = &mut process.workers[owners.of_port(port)];
        assert!(!owner.take_rather(pair, port).is_ok_and(|given| given == port), "{port} rests");
    }
    process.workers.iter_mut().for_each(|one| one.advance(2 * GENERATION_MS));
    assert!(ports.iter().all(|&port| process.workers[owners.of_port(port)].take_strictly(pair, port)));
}

#[test]
fn until_all_workers_are_ready_only_ports_of_both_rules_are_given() {
    let (mut process, pair) = (Process::new(3, 8, &[]), towards("10.1.0.11"));
    process.workers[0].own_by_port(&[pair.address]);
    process.workers[1].own_by_port(&[pair.address]);
    let mut before = Process::new(3, 8, &[]);
    let owners = process.rules.owners();
    for port in 20_000..20_300 {
        let owner = owners.of_port(port);
        let by_hash = before.workers[owner].take_exactly(pair, port);
        assert_eq!(process.workers[owner].take_strictly(pair, port), by_hash);
        assert!(by_hash || owner == 2 || !process.workers[owner].was_settled());
    }
    process.workers[2].go_on_changing();
    let taken =
        (20_000..20_300).filter(|&port| process.workers[owners.of_port(port)].take_strictly(pair, port));
    assert!(taken.count() > 150, "all that were not given before");
    assert!(process.workers.iter_mut().all(SnatPorts::is_settled));
}

#[test]
fn one_worker_and_a_process_that_begins_so_have_nothing_to_change() {
    let pair = towards("10.1.0.11");
    let mut one = Process::new(1, 8, &[]);
    assert!(one.workers[0].take_strictly(pair, 40_000));
    one.workers[0].own_by_port(&[pair.address]);
    assert!(one.workers[0].is_settled() && !one.workers[0].is_changing() && one.older() == 0);
    assert!(!one.workers[0].take_strictly(pair, 40_000) && one.workers[0].take_strictly(pair, 40_001));
    let mut several = Process::new(4, 8, &[pair.address]);
    let owners = several.rules.owners();
    assert!(several.workers.iter_mut().all(|worker| worker.is_settled() && !worker.is_changing()));
    assert!((20_000..20_100).all(|port| several.workers[owners.of_port(port)].take_strictly(pair, port)));
    assert_eq!(several.rules.bytes(), 0);
}

#[test]
fn a_turn_enters_no_more_than_a_slice_of_what_is_in_use() {
    let (mut process, pair) = (Process::new(2, 8, &[]), towards("10.1.0.11"));
    while process.workers[0].take(pair).is_ok() {}
    process.workers[0].stock.own_by_port(&[pair.address]);
    let (mut turns, mut before) = (0, 0);
    while process.workers[0].go_on_changing() {
        let entered = process.older();
        assert!((1..=2_600).contains(&(entered - before)), "{entered} after {before}");
        (turns, before) = (turns + 1, entered);
    }
    assert!((process.older() > 12_000) && turns > 4);
}

/// A port that a thread has, for all to see.
type Held = Mutex<HashSet<(Address, Address, u16, u16)>>;

/// One worker's life: it takes ports in every way and gives them back, while addresses come to have owners by number.
fn live(number: usize, rules: &Arc<Rules>, held: &Held, seed: u64) {
    let mut random = Random::new(seed ^ (number as u64) << 32);
    let mut ports = SnatPorts::new(Arc::clone(rules), number, 4, seed);
    let mut mine: Vec<(Pair, u16)> = Vec::new();
    for step in 0..STEPS {
        let pair = Pair { protocol: protocol::TCP, ..pair(&mut random, 2) };
        let wanted = 1_000 + random.next() as u16 % 64;
        let is_mine = rules.owners().of_port(wanted) == number;
        let given = match random.next() >> 62 {
            0 if is_mine => ports.take_strictly(pair, wanted).then_some(wanted),
            1 | 2 => ports.take_rather(pair, wanted).ok(),
            _ => None,
        };
        if let Some(port) = given {
            let is_new = held.lock().unwrap().insert((pair.address, pair.member, pair.protocol.into(), port));
            assert!(is_new, "{port} of {pair:?} is another's; seed {seed:#x}");
            mine.push((pair, port));
        }
        if mine.len() > 60 || step + 100 > STEPS && !mine.is_empty() {
            let (pair, port) = mine.swap_remove((random.next() >> 33) as usize % mine.len());
            held.lock().unwrap().remove(&(pair.address, pair.member, pair.protocol.into(), port));
            ports.release(pair, port);
        }
        if number == 0 && step % (STEPS / 4) == STEPS / 8 {
            ports.own_by_port(&[address(ADDRESSES[step / (STEPS / 4)])]);
        }
        if ports.is_changing() {
            ports.stock.go_on_changing(random.next() as usize % 64);
        }
    }
}

#[test]
fn no_port_is_given_twice_on_threads_of_their_own() {
    let seed = 0x7_4ead;
    println!("seed {seed:#x}");
    for round in 0..40 {
        let (rules, held) = (Arc::new(Rules::of_ports(512, 3, &[])), Held::default());
        std::thread::scope(|scope| {
            for number in 0..3 {
                let (rules, held) = (&rules, &held);
                scope.spawn(move || live(number, rules, held, seed + round));
            }
        });
    }
}

const STEPS: usize = 4_000;
