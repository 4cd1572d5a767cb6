//! Persistence by hash: of the members at work the one that scores highest for the client, whatever the pool's method.
//!
//! The groups at work and slow ramps are the balancer's, so a client is where balancing could have put it. A member in
//! its slow ramp has its clients' part of its share: as that grows, only clients move that it gains.

use super::roster::{Pick, SHARE_FULL};
use crate::address::Prefix;
use crate::config::snapshot::{Member, Pool};
use crate::persist::rendezvous;

/// The member for `client`; one at a limit only where that is overridden. O(members at work).
pub(super) fn pick<'p>(
    pool: &'p Pool,
    pick: &Pick,
    client: Prefix,
    overrides_limit: bool,
) -> Option<&'p Member> {
    let members = pick.at_work().iter().filter_map(|candidate| {
        let member = pool.members.get(candidate.place())?;
        let takes =
            if overrides_limit { !pick.view.has_failed(member) } else { pick.takes(candidate.place()) };
        takes.then(|| (member, pick.share(candidate.id) as f64 / SHARE_FULL as f64))
    });
    rendezvous::pick(members, client)
}

#[cfg(test)]
mod tests {
    use crate::clock::Instant;
    use crate::config::ids::MemberId;
    use crate::config::snapshot::Method;
    use crate::lb::NoPick;
    use crate::lb::testing::Bench;
    use crate::pool::MemberState;

    const CLIENTS: u32 = 2_000;

    /// The member of each client.
    fn homes(bench: &mut Bench) -> Vec<u32> {
        (0..CLIENTS).map(|client| bench.pick_by_hash(client, false).expect("a member")).collect()
    }

    fn members(homes: &[u32]) -> Vec<u32> {
        let mut members = homes.to_vec();
        members.sort_unstable();
        members.dedup();
        members
    }

    /// Two members in each of the groups 10 and 0.
    fn grouped() -> Bench {
        let mut bench = Bench::new(Method::RoundRobin, &[1; 4]);
        bench.change(|pool| {
            pool.min_active_members = 1;
            pool.members[..2].iter_mut().for_each(|member| member.priority_group = 10);
        });
        bench
    }

    #[test]
    fn only_members_of_the_groups_at_work_have_clients() {
        let mut bench = grouped();
        let before = homes(&mut bench);
        assert_eq!(members(&before), [0, 1]);
        bench.states.set(MemberId(0), MemberState::Offline);
        assert_eq!(members(&homes(&mut bench)), [1]);
        bench.states.set(MemberId(1), MemberState::Disabled);
        assert_eq!(members(&homes(&mut bench)), [2, 3]);
        bench.states.set(MemberId(0), MemberState::Enabled);
        bench.states.set(MemberId(1), MemberState::Enabled);
        assert_eq!(homes(&mut bench), before, "every client is home again");
    }

    #[test]
    fn a_group_at_its_limits_is_overridden_or_the_pool_is_full() {
        let mut bench = grouped();
        let before = homes(&mut bench);
        bench.change(|pool| pool.members.iter_mut().for_each(|member| member.connection_limit = 1));
        bench.open(0);
        assert_eq!(members(&homes(&mut bench)), [1]);
        bench.open(1);
        assert_eq!(bench.pick_by_hash(7, false), Err(NoPick::AtLimit));
        assert_eq!(bench.pick_by_hash(7, true), Ok(before[7]));
        bench.states.set(MemberId(0), MemberState::Offline);
        bench.states.set(MemberId(1), MemberState::Offline);
        assert_eq!(members(&homes(&mut bench)), [2, 3]);
        bench.states.set(MemberId(2), MemberState::Offline);
        bench.states.set(MemberId(3), MemberState::Offline);
        assert_eq!(bench.pick_by_hash(7, true), Err(NoPick::NoMember));
    }

    #[test]
    fn a_ramping_member_gains_clients_and_moves_no_others() {
        let mut bench = Bench::new(Method::RoundRobin, &[1, 2, 1]);
        bench.change(|pool| pool.slow_ramp_ms = 10_000);
        bench.states.add(MemberId(2), MemberState::Enabled, Instant::from_ms(50_000));
        let mut before: Option<Vec<u32>> = None;
        // Of four parts it has a tenth of one, then half, then all of it: 0.1 in 3.1, 0.55 in 3.55, 1 in 4.
        for (ms, part) in [(50_000, 0.1 / 3.1), (55_000, 0.55 / 3.55), (60_000, 0.25), (90_000, 0.25)] {
            bench.now = Instant::from_ms(ms);
            let homes = homes(&mut bench);
            let share = homes.iter().filter(|home| **home == 2).count() as f64 / f64::from(CLIENTS);
            // Five standard deviations of a share of 2,000 are below 0.05.
            assert!((share - part).abs() < 0.05, "{share} at {ms}, not {part}");
            if let Some(before) = before {
                assert!(homes.iter().zip(&before).all(|(home, before)| home == before || *home == 2));
            }
            before = Some(homes);
        }
    }

    #[test]
    fn the_same_on_every_worker_and_by_every_method() {
        let mut bench = grouped();
        let expected = homes(&mut bench);
        for (worker, method) in
            [(1, Method::RatioMember), (2, Method::LeastConnectionsNode), (3, Method::RandomTwo)]
        {
            bench.be_worker(worker);
            bench.change(|pool| pool.method = method);
            bench.open(0);
            assert_eq!(homes(&mut bench), expected);
        }
    }
}
