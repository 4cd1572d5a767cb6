//! [`Resting`]: how many ports rest, in two generations that time moves on.
//!
//! A port rests in the generation that it was given back in and in the next, so between one and two times
//! [`GENERATION_MS`].

/// How long a generation lasts, in milliseconds: a server's TIME-WAIT on common systems, half of what RFC 9293
/// section 3.4.2 asks for with its 2 minutes of segment lifetime.
pub(super) const GENERATION_MS: u64 = 60_000;

/// The generation at a time. At least 2, so that zeroed memory is of a generation that is over.
pub(super) fn generation_at(now_ms: u64) -> u32 {
    (now_ms / GENERATION_MS) as u32 + 2
}

/// Ports that rest: those of this generation, and those of the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Resting {
    generation: u32,
    counts: [u32; 2],
}

impl Resting {
    /// Forgets what no longer rests.
    #[inline]
    pub(super) fn turn(&mut self, now: u32) {
        match now.wrapping_sub(self.generation) {
            0 => return,
            1 => self.counts = [0, self.counts[0]],
            _ => self.counts = [0, 0],
        }
        self.generation = now;
    }

    pub(super) fn add(&mut self, now: u32) {
        self.turn(now);
        self.counts[0] += 1;
    }

    /// One that was given back `age` generations ago (0 or 1) no longer rests.
    pub(super) fn remove(&mut self, age: usize, now: u32) {
        self.turn(now);
        self.counts[age] = self.counts[age].saturating_sub(1);
    }

    /// Takes off what another counts: it is forgotten there.
    pub(super) fn remove_all(&mut self, mut of: Resting, now: u32) {
        self.turn(now);
        of.turn(now);
        for (count, other) in self.counts.iter_mut().zip(of.counts) {
            *count = count.saturating_sub(other);
        }
    }

    /// How many rest.
    pub(super) fn total(mut self, now: u32) -> u32 {
        self.turn(now);
        self.counts[0] + self.counts[1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_rests_for_one_to_two_generations() {
        let mut resting = Resting::default();
        resting.add(5);
        resting.add(6);
        assert_eq!([6, 7, 8].map(|now| resting.total(now)), [2, 1, 0]);
        resting.remove(1, 6);
        assert_eq!([6, 7].map(|now| resting.total(now)), [1, 1]);
        assert!(generation_at(0) >= 2);
    }
}
