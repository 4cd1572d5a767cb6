//! A proxy between two connections over wires that lose: what one side says reaches the other, both ways at once, and each
//! end follows.

use sluice_dataplane::tcp::{ConnId, Engine, EngineSpec, Passed};

use super::subject::{Pair, Subject};
use super::{SPEC, Weather, World};

/// The ports of the two connections; side 1 stands between them.
const PORTS: [u16; 2] = [1000, 1001];

struct Relay {
    world: World,
    /// The applications' ends, and the proxy's.
    far: [ConnId; 2],
    near: [ConnId; 2],
    total: [usize; 2],
    written: [usize; 2],
    read: [usize; 2],
}

impl Relay {
    fn new(pair: Pair, seed: u64) -> Self {
        let mut random = World::new(pair, seed, SPEC);
        let mut buffer = || 1 + random.below(10_000) as usize;
        let spec = EngineSpec { receive_buffer: buffer(), send_buffer: buffer(), ..SPEC };
        let mut world = World::uneven(pair, seed, [SPEC, spec]);
        world.keeps_log = false;
        world.weather = Weather { lost: world.below(4) * 10, ..Weather::FOUL };
        let [[one, near], [other, beyond]] = PORTS.map(|port| world.open(port));
        let total = [world.below(60_000) as usize, world.below(60_000) as usize];
        Self { world, far: [one, other], near: [near, beyond], total, written: [0; 2], read: [0; 2] }
    }

    /// An application writes and reads; closes when it has said all.
    fn acts(&mut self, which: usize) {
        let (id, world) = (self.far[which], &mut self.world);
        let from = self.written[which];
        let to = self.total[which].min(from + world.below(5000) as usize);
        let data = (from..to).map(|at| byte(which, at)).collect::<Vec<_>>();
        self.written[which] += world.engines[0].send(id, &data);
        if self.written[which] == self.total[which] {
            world.engines[0].close(id);
        }
        for byte_read in world.read(0, id) {
            assert_eq!(byte_read, !byte(1 - which, self.read[which]));
            self.read[which] += 1;
        }
        world.touch(0, PORTS[which]);
    }

    /// The proxy turns what one side has said over and passes it on, a random part at a time.
    fn passes(&mut self) {
        for which in 0..2 {
            let (from, to) = (self.near[which], self.near[1 - which]);
            let world = &mut self.world;
            let mut left = world.below(3000) as usize;
            let passed = world.engines[1].pass(from, to, |input, output| {
                let len = input.len().min(output.len()).min(left);
                left -= len;
                output[..len].iter_mut().zip(input).for_each(|(out, byte)| *out = !byte);
                Passed { taken: len, written: len }
            });
            assert_eq!(passed.taken, passed.written);
            if world.engines[1].is_peer_done(from) {
                world.engines[1].close(to);
            }
        }
        PORTS.iter().for_each(|port| self.world.touch(1, *port));
    }

    fn is_over(&self) -> bool {
        let is_over = |side: usize, ids: [ConnId; 2]| {
            ids.iter().all(|id| self.world.engines[side].state(*id).is_over())
        };
        is_over(0, self.far) && is_over(1, self.near)
    }
}

fn byte(which: usize, at: usize) -> u8 {
    ((at * 2 + which) as u32).wrapping_mul(0x9e37_79b9).to_be_bytes()[0]
}

fn relays_pass_everything_and_both_ends(pair: Pair) {
    for seed in 8000..8100 {
        let mut relay = Relay::new(pair, seed);
        let mut steps = 0;
        while !relay.is_over() {
            (0..2).for_each(|which| relay.acts(which));
            relay.passes();
            relay.world.step();
            steps += 1;
            assert!(steps < 200_000, "{:?} {:?} of {:?}", relay.world.states(), relay.read, relay.total);
        }
        (0..2).for_each(|which| relay.acts(which));
        assert_eq!(relay.read, [relay.total[1], relay.total[0]]);
        let held = relay.world.engines.each_ref().map(Subject::buffered_bytes);
        assert!(held.iter().all(|bytes| matches!(bytes, None | Some(0))), "{held:?}");
    }
}

for_pairs! {
    relays_pass_everything_and_both_ends,
}
