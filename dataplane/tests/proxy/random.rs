//! A small generator (xorshift64*, Vigna 2016) whose seed is printed.
#![allow(dead_code, unreachable_pub, reason = "a harness; each test binary uses its own part")]

pub struct Random {
    pub seed: u64,
    state: u64,
}

impl Random {
    /// From `SLUICE_SEED`, or another one each time.
    pub fn seeded() -> Self {
        let given = std::env::var("SLUICE_SEED").ok().and_then(|text| text.parse().ok());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
        let seed = given.unwrap_or(now.as_nanos() as u64);
        println!("SLUICE_SEED={seed}");
        Self::with(seed)
    }

    pub fn with(seed: u64) -> Self {
        Self { seed, state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}
