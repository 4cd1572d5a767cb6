//! Makes smoltcp choose the initial sequence number that we want.
//!
//! It draws that number from a 64-bit linear congruential generator that an `Interface` seeds at its creation. Such a
//! generator runs backwards as well: from the state that yields a number to the seed two draws earlier.

const MULTIPLIER: u64 = 0xbb2e_fcec_3c39_611d;
const INCREMENT: u64 = 0x7590_ef39;
const INVERSE: u64 = inverse(MULTIPLIER);

/// The seed of an interface whose first connection gets `isn`.
///
/// The first draw is spent on an IPv4 identification, which is drawn again while it is 0: the low bits of the state that
/// the sequence number does not show are chosen so that it is not.
pub(super) fn seed_for(isn: u32) -> u64 {
    let mut low = 0;
    loop {
        let second = u64::from(isn) << SHIFT | low;
        let first = before(second);
        let number = output(first);
        if (number ^ (number >> 16)) as u16 != 0 {
            return before(first);
        }
        low += 1;
    }
}

/// By how much a state with clear top bits is shifted down to give a number.
const SHIFT: u32 = 29;

const fn before(state: u64) -> u64 {
    state.wrapping_sub(INCREMENT).wrapping_mul(INVERSE)
}

const fn output(state: u64) -> u32 {
    (state >> (SHIFT - (state >> 61) as u32)) as u32
}

/// The inverse of an odd number modulo 2^64; each round of Newton's method doubles the bits that are right.
const fn inverse(odd: u64) -> u64 {
    let (mut value, mut round) = (odd, 0);
    while round < 5 {
        value = value.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(value)));
        round += 1;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inverse_undoes_the_multiplier() {
        assert_eq!(MULTIPLIER.wrapping_mul(INVERSE), 1);
    }

    #[test]
    fn second_draw_is_the_number_asked_for() {
        let after = |state: u64| state.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT);
        for isn in (0..40).map(|bit| (1u64 << bit).wrapping_mul(0x9e37_79b9) as u32).chain([0, 1, u32::MAX]) {
            assert_eq!(output(after(after(seed_for(isn)))), isn);
        }
    }
}
