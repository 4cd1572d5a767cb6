//! Consistent hash: the member that the pool's Maglev table has for a hash; the same on any replica.
//!
//! When that one takes no connection, the hash of the hash leads on, and so forth, so that only its connections
//! move, and move to all the others in proportion to their slots. (The slot after it would do for the first, but
//! members follow one another in a table more often than chance, and few would inherit most.) A member in its slow
//! ramp is passed over by the part of the hashes that is not yet its share.

use super::maglev::{Maglev, mix};
use super::roster::{Candidate, Pick, SHARE_FULL};

pub(super) fn pick(table: Option<&Maglev>, hash: u64, pick: &Pick) -> Option<usize> {
    table.and_then(|table| walk(table, hash, pick)).or_else(|| in_turn(hash, pick))
}

/// The first member on the hash's way that takes the connection.
fn walk(table: &Maglev, hash: u64, pick: &Pick) -> Option<usize> {
    let mut hash = hash;
    for _ in 0..STEPS_MAX {
        let place = table.place_of(hash);
        if is_due(hash, place, pick) {
            return Some(place);
        }
        hash = mix(hash.wrapping_add(STEP));
    }
    None
}

#[inline]
fn is_due(hash: u64, place: usize, pick: &Pick) -> bool {
    if !pick.is_ramping() || !pick.takes(place) {
        return pick.takes(place);
    }
    let share = pick.pool.members.get(place).map_or(0, |member| pick.share(member.id));
    mix(hash) % SHARE_FULL < share
}

/// When next to nobody of a large pool takes connections, the hash chooses among those at work.
#[cold]
fn in_turn(hash: u64, pick: &Pick) -> Option<usize> {
    let at_work = pick.at_work();
    let first = (hash >> 16).checked_rem(at_work.len() as u64)? as usize;
    let mut places = at_work[first..].iter().chain(&at_work[..first]).map(Candidate::place);
    places.find(|&place| pick.takes(place))
}

/// Slots tried before [`in_turn`].
const STEPS_MAX: usize = 512;

/// Keeps the mixing function from its fixed point, 0.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use crate::clock::Instant;
    use crate::config::ids::MemberId;
    use crate::config::snapshot::Method;
    use crate::lb::NoPick;
    use crate::lb::testing::Bench;
    use crate::pool::MemberState;

    /// Whom each of `count` clients gets.
    fn all(bench: &mut Bench, count: u32) -> Vec<u32> {
        (0..count).filter_map(|client| bench.pick_for(client)).collect()
    }

    #[test]
    fn a_client_gets_its_member_on_every_worker() {
        let (mut one, mut other) =
            (Bench::new(Method::ConsistentHash, &[1; 9]), Bench::new(Method::ConsistentHash, &[1; 9]));
        other.be_worker(5);
        assert_eq!(all(&mut one, 500), all(&mut other, 500));
    }

    #[test]
    fn only_the_failed_members_clients_move_and_to_all_others() {
        let mut bench = Bench::new(Method::ConsistentHash, &[1; 10]);
        let before = all(&mut bench, 20_000);
        bench.states.set(MemberId(4), MemberState::Offline);
        let after = all(&mut bench, 20_000);
        let mut heirs = [0; 10];
        for (&was, &is) in before.iter().zip(&after) {
            assert!(was == is || was == 4);
            heirs[is as usize] += usize::from(was == 4);
        }
        assert_eq!(heirs[4], 0);
        let rest = heirs.iter().enumerate().filter(|&(member, _)| member != 4);
        assert!(rest.clone().all(|(_, &count)| (175..270).contains(&count)), "222 expected: {heirs:?}");
        bench.states.set(MemberId(4), MemberState::Enabled);
        assert_eq!(all(&mut bench, 20_000), before);
    }

    #[test]
    fn a_member_at_its_limit_is_passed_over() {
        let mut bench = Bench::new(Method::ConsistentHash, &[1; 3]);
        bench.change(|pool| pool.members.iter_mut().for_each(|member| member.connection_limit = 1));
        let mine = bench.pick().unwrap();
        bench.open(mine);
        assert_ne!(bench.pick(), Some(mine));
        (0..3).filter(|&member| member != mine).for_each(|member| bench.open(member));
        assert_eq!(bench.try_pick(), Err(NoPick::AtLimit));
    }

    #[test]
    fn a_ramping_member_gets_its_own_clients_back_bit_by_bit() {
        let mut bench = Bench::new(Method::ConsistentHash, &[1; 4]);
        let own = all(&mut bench, 4_000);
        bench.change(|pool| pool.slow_ramp_ms = 10_000);
        bench.states.add(MemberId(2), MemberState::Enabled, Instant::ZERO);
        let full = own.iter().filter(|&&member| member == 2).count();
        let mut before = Vec::new();
        for (ms, expected) in [(0, full / 10), (5_000, full * 55 / 100), (9_999, full)] {
            bench.now = Instant::from_ms(ms);
            let now = all(&mut bench, 4_000);
            let count = now.iter().filter(|&&member| member == 2).count();
            assert!(count.abs_diff(expected) < 120, "{count} at {ms} ms, {expected} expected");
            assert!(
                now.iter().zip(&before).all(|(&now, &before)| before != 2 || now == 2),
                "who is back stays"
            );
            before = now;
        }
    }

    #[test]
    fn one_of_a_thousand_is_found() {
        let mut bench = Bench::new(Method::ConsistentHash, &[1; 1_000]);
        (0..1_000)
            .filter(|&id| id != 700)
            .for_each(|id| bench.states.set(MemberId(id), MemberState::Offline));
        assert_eq!(all(&mut bench, 50), [700; 50]);
    }
}
