//! Hundreds of connections of random ends, sizes and weather: whatever happens, every byte arrives in order and once, and
//! both ends come to an end.

use sluice_dataplane::tcp::{ConnId, Engine, EngineSpec, Options, State};

use super::subject::{Kind, Pair};
use super::{SPEC, Weather, World};

/// One end, as its application sees it.
struct End {
    id: ConnId,
    /// Bytes that it has to say, has said, and has heard.
    total: usize,
    written: usize,
    read: usize,
    /// It gives up when it has done so many things.
    aborts: Option<u64>,
    /// Bytes that it writes and reads at once, at most.
    chunk: u64,
    most: u64,
}

struct Storm {
    world: World,
    ends: [End; 2],
}

impl Storm {
    fn new(pair: Pair, seed: u64, aborts: bool) -> Self {
        let mut world = calm(pair, seed);
        let weather = Weather {
            lost: [0, 5, 20, 50, 100, 200][world.below(6) as usize],
            doubled: [0, 20, 100][world.below(3) as usize],
            late: [0, 50, 300][world.below(3) as usize],
            ..Weather::FAIR
        };
        let [client, server] = world.open(1000);
        world.weather = weather;
        let who = world.below(2) as usize;
        let ends = [(client, 0), (server, 1)].map(|(id, side)| {
            let total = [0, world.below(3000), world.below(60_000), world.below(400_000)];
            let aborts = (aborts && side == who).then(|| world.below(400));
            let chunk = [1, 200, 1460, 5000, 100_000][world.below(5) as usize];
            let total = total[world.below(4) as usize].min(chunk * 300) as usize;
            let most = [2000, 10_000, 100_000][world.below(3) as usize];
            End { id, total, written: 0, read: 0, aborts, chunk, most }
        });
        Self { world, ends }
    }

    /// What an end does whenever something happens.
    fn acts(&mut self, side: usize) {
        let Self { world, ends } = self;
        let End { id, total, written, read, aborts, chunk, most } = &mut ends[side];
        if world.engines[side].state(*id).is_over() {
            return;
        }
        let some = 1 + world.below(*chunk) as usize;
        let data = (*written..(*written + some).min(*total)).map(|at| byte(side, at)).collect::<Vec<_>>();
        *written += world.engines[side].send(*id, &data);
        if world.below(3) == 0 {
            let most = 1 + world.below(*most) as usize;
            *read += reads(world, side, *id, *read, most);
        }
        if written == total && world.below(4) == 0 {
            world.engines[side].close(*id);
        }
        match aborts {
            Some(0) => world.engines[side].abort(*id),
            Some(left) => *left -= 1,
            None => {}
        }
        world.touch(side, 1000);
    }

    fn is_over(&self) -> bool {
        (0..2).all(|side| self.world.engines[side].state(self.ends[side].id).is_over())
    }

    /// Goes on to the end; how the ends stand then, or none where a connection stands still for ever.
    fn runs(&mut self, pair: Pair) -> Option<[State; 2]> {
        for _ in 0..300_000 {
            if self.is_over() {
                (0..2).for_each(|side| self.reads_the_rest(side));
                return Some([0, 1].map(|side| self.world.engines[side].state(self.ends[side].id)));
            }
            self.world.step();
            (0..2).for_each(|side| self.acts(side));
        }
        let left = self.ends.each_ref().map(|end| (end.total, end.written, end.read, end.chunk));
        if may_stand_still(pair, &self.world) {
            return None;
        }
        panic!(
            "it never ends: {:?} {left:?} at {:?} {:?}",
            self.world.states(),
            self.world.now,
            self.world.weather
        );
    }

    fn reads_the_rest(&mut self, side: usize) {
        let End { id, read, .. } = &mut self.ends[side];
        *read += reads(&mut self.world, side, *id, *read, usize::MAX);
    }
}

/// Now and then smoltcp sends the same segment for ever, although it is acknowledged each time.
fn may_stand_still(pair: Pair, world: &World) -> bool {
    pair.contains(&Kind::Smoltcp) && world.weather.lost > 0
}

/// The world of a storm before it begins.
fn calm(pair: Pair, seed: u64) -> World {
    let mut random = World::new(pair, seed, SPEC);
    let mut buffer = || 4096usize << random.below(9);
    let mut spec = || EngineSpec { receive_buffer: buffer() - 7, send_buffer: buffer() + 13, ..SPEC };
    let mut world = World::uneven(pair, seed, [spec(), spec()]);
    world.keeps_log = false;
    world.largest = [0, 65_535, 20_000][world.below(3) as usize];
    world.room = [1, 3, 1000][world.below(3) as usize];
    (world.is_whole, world.v6) = (world.below(2) == 0, world.below(4) == 0);
    let ack_delay_ms = [0, 10, 40][world.below(3) as usize];
    // Who never hears of an abort has to ask.
    world.options = Options { nagle: world.below(2) == 0, keep_alive_ms: 30_000, ack_delay_ms };
    world
}

fn byte(side: usize, at: usize) -> u8 {
    ((at as u32 + side as u32).wrapping_mul(0x9e37_79b9) >> 24) as u8
}

/// Reads so many bytes at most, which are what the other side has said from `at` on.
fn reads(world: &mut World, side: usize, id: ConnId, at: usize, most: usize) -> usize {
    let mut sum = 0;
    while sum < most {
        let read = world.engines[side].read(id, |piece| {
            let piece = &piece[..piece.len().min(most - sum)];
            let is_right = piece.iter().zip(at + sum..).all(|(got, at)| *got == byte(1 - side, at));
            assert!(is_right, "side {side} at {at}");
            piece.len()
        });
        if read == 0 {
            break;
        }
        sum += read;
    }
    sum
}

fn everything_arrives_and_both_ends_finish(pair: Pair) {
    let mut given_up = 0;
    for seed in 5000..5200 {
        let mut storm = Storm::new(pair, seed, false);
        let states = storm.runs(pair);
        let may_fail = storm.world.weather.lost >= 100 || may_stand_still(pair, &storm.world);
        let Some(states) = states.filter(|states| !(may_fail && states.contains(&State::TimedOut))) else {
            given_up += 1;
            continue;
        };
        assert!(states.contains(&State::TimeWait), "{states:?} {:?}", storm.world.weather);
        assert!(states.iter().all(|state| matches!(state, State::TimeWait | State::Closed)), "{states:?}");
        let [first, second] = &storm.ends;
        assert_eq!([first.read, second.read], [second.total, first.total]);
        holds_nothing(&storm.world);
    }
    assert!(given_up <= 10, "{given_up} connections of 200 were given up");
}

fn abort_ends_both_sides_and_what_arrived_before_is_right(pair: Pair) {
    for seed in 6000..6200 {
        let mut storm = Storm::new(pair, seed, true);
        let Some(states) = storm.runs(pair) else { continue };
        let [first, second] = &storm.ends;
        assert!(first.read <= second.written && second.read <= first.written);
        assert!(states.iter().all(|state| state.is_over()), "{states:?}");
        for side in 0..2 {
            let id = storm.ends[side].id;
            storm.world.engines[side].release(id);
            assert!(storm.world.engines[side].is_empty());
        }
        holds_nothing(&storm.world);
    }
}

fn holds_nothing(world: &World) {
    for engine in &world.engines {
        assert!(matches!(engine.buffered_bytes(), None | Some(0)), "{:?}", engine.buffered_bytes());
    }
}

/// Connections that have nothing to say or hear hold no buffers.
fn idle_connections_hold_no_buffers(kind: Kind) {
    const COUNT: u16 = 200;
    let mut world = World::new([kind; 2], 70, EngineSpec { connections: 200, ..SPEC });
    world.keeps_log = false;
    let [client, _] = world.open(1000);
    assert_eq!(world.engines[0].write(client, |_| 0), 0);
    holds_nothing(&world);
    let clients = (1..COUNT).map(|port| (port, world.open(port))).collect::<Vec<_>>();
    for (round, weather) in [Weather::FAIR, Weather::FOUL].into_iter().enumerate() {
        world.weather = weather;
        for (port, [client, server]) in &clients {
            world.engines[0].send(*client, &[round as u8; 5000]);
            world.touch(0, *port);
            assert!(world.engines[0].buffered_bytes().is_none_or(|bytes| bytes >= 5000));
            world.run_until(|world| world.engines[1].readable(*server) == 5000);
            assert!(world.engines[1].buffered_bytes().is_none_or(|bytes| bytes >= 5000));
            assert_eq!(world.read(1, *server), [round as u8; 5000]);
            world.touch(1, *port);
        }
        let is_acknowledged =
            |world: &World| clients.iter().all(|(_, ids)| world.engines[0].unacknowledged(ids[0]) == 0);
        world.run_until(is_acknowledged);
        holds_nothing(&world);
    }
}

for_pairs! {
    everything_arrives_and_both_ends_finish,
    abort_ends_both_sides_and_what_arrived_before_is_right,
}

for_kinds! {
    all: [idle_connections_hold_no_buffers],
    native: [],
}
