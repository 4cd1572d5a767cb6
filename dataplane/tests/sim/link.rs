//! Links: what the weather does to a frame between a host and sluice.

use super::random::Random;

/// Shares of a thousand frames, and delays in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    pub loss: u64,
    pub duplicates: u64,
    pub reorders: u64,
    /// Towards sluice only: two damages of one packet could make its checksum right again.
    pub corrupts: u64,
    pub delay_ms: u64,
    /// What a reordered frame is delayed beyond that, at most.
    pub jitter_ms: u64,
}

impl Weather {
    pub fn random(random: &mut Random, calm: bool) -> Self {
        let fine = Self {
            loss: 0,
            duplicates: 0,
            reorders: 0,
            corrupts: 0,
            delay_ms: random.pick(&[0, 1, 5]),
            jitter_ms: random.between(1, 20),
        };
        if random.per_mille(400) {
            return fine;
        }
        Self {
            loss: random.pick(&[0, 10, 80]),
            duplicates: random.pick(&[0, 30]),
            reorders: random.pick(&[0, 100]),
            corrupts: if calm { 0 } else { random.pick(&[0, 0, 30]) },
            ..fine
        }
    }

    /// When copies of a frame arrive, after now, and with which bytes.
    pub fn carry(&self, random: &mut Random, frame: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let copies = 1 + usize::from(random.per_mille(self.duplicates));
        (0..copies).filter_map(|_| self.carry_one(random, frame)).collect()
    }

    fn carry_one(&self, random: &mut Random, frame: &[u8]) -> Option<(u64, Vec<u8>)> {
        if random.per_mille(self.loss) {
            return None;
        }
        let late = if random.per_mille(self.reorders) { random.between(1, self.jitter_ms) } else { 0 };
        let mut bytes = frame.to_vec();
        if random.per_mille(self.corrupts) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
        Some((self.delay_ms + late, bytes))
    }
}
