//! Sends a copy of requests to another pool, whose responses nobody waits for (Gateway API: HTTPRequestMirrorFilter).

use crate::config::ids::PoolId;

/// Where to. The proxy does it: a filter sees one message only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mirror {
    /// The pool.
    pub pool: PoolId,
    /// Of a thousand requests, how many.
    pub per_mille: u16,
}

impl Mirror {
    /// True when the request with this running number is copied: `per_mille` of any thousand in a row, spread evenly
    /// over them.
    pub fn takes(&self, number: u64) -> bool {
        let (nth, share) = (number % 1_000, u64::from(self.per_mille.min(1_000)));
        (nth + 1) * share / 1_000 > nth * share / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(per_mille: u16, numbers: std::ops::Range<u64>) -> Vec<u64> {
        let mirror = Mirror { pool: PoolId(1), per_mille };
        numbers.filter(|number| mirror.takes(*number)).collect()
    }

    #[test]
    fn a_thousand_requests_in_a_row_give_exactly_the_share() {
        for share in [0, 1, 7, 333, 500, 999, 1_000, 1_001, u16::MAX] {
            for first in [0, 1, 500, 999, 123_456, u64::MAX - 2_000] {
                let count = taken(share, first..first + 1_000).len();
                assert_eq!(count, usize::from(share.min(1_000)), "{share} from {first}");
            }
        }
    }

    #[test]
    fn copies_are_spread_evenly() {
        assert_eq!(taken(250, 0..16), [3, 7, 11, 15]);
        assert_eq!(taken(500, 0..6), [1, 3, 5]);
        let thirds = taken(333, 0..2_000);
        assert!(thirds.windows(2).all(|pair| (3..=4).contains(&(pair[1] - pair[0]))), "{thirds:?}");
    }
}
