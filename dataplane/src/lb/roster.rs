//! [`Roster`]: who of a pool is at work, worked out once for each change of the configuration or of a member's
//! state; and [`Pick`], what a method needs for one choice.
//!
//! At work is who is enabled and in a priority group at work. Groups join from the highest number down until at
//! least `min_active_members` members are up. A member at a limit counts as up here: limits come and go with every
//! connection, and groups do not follow them.

use crate::clock::Instant;
use crate::config::ids::{MemberId, NodeId};
use crate::config::snapshot::{Member, Method, Pool};
use crate::lb::{NoPick, View};

/// A full share, for members that are not in their slow ramp.
pub(super) const SHARE_FULL: u64 = 1_000;

/// What a weight of 1 is in parts of a turn: enough to be divided by a share, or by members on a node, without loss
/// that shows.
pub(super) const TURN: u64 = 840_000;

/// A member at work.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// Its place in the pool.
    pub(super) place: u32,
    pub(super) id: MemberId,
    pub(super) node: NodeId,
    /// What the pool's method weighs it by, at least 1.
    pub(super) weight: u32,
    /// The weight in parts of a turn; of a node's, this member's part.
    pub(super) turns: u64,
}

impl Candidate {
    pub(super) fn place(&self) -> usize {
        self.place as usize
    }
}

/// Who of a pool is at work.
#[derive(Debug, Default)]
pub(super) struct Roster {
    /// The generation and the version of the states that it holds for.
    seen: Option<(u64, u64)>,
    /// In the pool's order.
    at_work: Vec<Candidate>,
    /// By place in the pool.
    standings: Vec<Standing>,
    /// By place in the pool.
    members: Vec<MemberId>,
    /// From here on everybody has a full share.
    ramp_ends: Instant,
    groups: Vec<u16>,
    nodes: Vec<NodeId>,
}

impl Roster {
    /// True when nothing has changed since it was worked out. Two loads.
    #[inline]
    pub(super) fn is_current(&self, view: &View) -> bool {
        self.seen == Some((view.snapshot.generation(), view.states.version()))
    }

    /// Works everything out anew. True when the pool has other members than before. O(members).
    pub(super) fn follow(&mut self, pool: &Pool, view: &View) -> bool {
        self.seen = Some((view.snapshot.generation(), view.states.version()));
        let lowest = self.lowest_group_at_work(pool, view);
        self.standings.clear();
        self.standings.extend(pool.members.iter().map(|member| standing(member, lowest, view)));
        self.at_work.clear();
        let standings = &self.standings;
        let at_work = pool.members.iter().enumerate().filter(|&(place, _)| standings[place] != Standing::Out);
        self.at_work.extend(at_work.map(|(place, member)| candidate(place, member, pool.method, view)));
        if pool.method == Method::RatioNode {
            self.divide_among_siblings();
        }
        self.ramp_ends = self.end_of_ramp(pool, view);
        self.note_members(&pool.members)
    }

    /// The group of the n-th of those that are up, from the highest group down: with it n members are at work.
    fn lowest_group_at_work(&mut self, pool: &Pool, view: &View) -> u16 {
        let wanted = usize::from(pool.min_active_members);
        self.groups.clear();
        if wanted == 0 {
            return 0;
        }
        let up = pool.members.iter().filter(|member| view.is_enabled(member));
        self.groups.extend(up.map(|member| member.priority_group));
        if self.groups.len() <= wanted {
            return 0;
        }
        *self.groups.select_nth_unstable_by(wanted - 1, |one, other| other.cmp(one)).1
    }

    /// A node's weight is that of all members on it together.
    fn divide_among_siblings(&mut self) {
        self.nodes.clear();
        self.nodes.extend(self.at_work.iter().map(|candidate| candidate.node));
        self.nodes.sort_unstable();
        for candidate in &mut self.at_work {
            let first = self.nodes.partition_point(|&node| node < candidate.node);
            let next = self.nodes.partition_point(|&node| node <= candidate.node);
            candidate.turns /= (next - first) as u64;
        }
    }

    fn end_of_ramp(&self, pool: &Pool, view: &View) -> Instant {
        if pool.slow_ramp_ms == 0 {
            return Instant::ZERO;
        }
        let ramp = std::time::Duration::from_millis(u64::from(pool.slow_ramp_ms));
        let risen = self.at_work.iter().filter_map(|candidate| view.states.up_since(candidate.id));
        risen.max().map_or(Instant::ZERO, |last| last + ramp)
    }

    fn note_members(&mut self, members: &[Member]) -> bool {
        let ids = || members.iter().map(|member| member.id);
        let has_others = !self.members.iter().copied().eq(ids());
        if has_others {
            self.members.clear();
            self.members.extend(ids());
        }
        has_others
    }
}

/// What stands between a member and a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is not at work.
    Out,
    /// Nothing.
    Free,
    /// Limits, which are to be asked.
    Limited,
}

fn standing(member: &Member, lowest_group: u16, view: &View) -> Standing {
    match view.is_enabled(member) && member.priority_group >= lowest_group {
        false => Standing::Out,
        true if view.is_limited(member) => Standing::Limited,
        true => Standing::Free,
    }
}

fn candidate(place: usize, member: &Member, method: Method, view: &View) -> Candidate {
    let node = || view.snapshot.node(member.node);
    let weight = match method {
        Method::RatioMember | Method::RatioSession | Method::RatioLeastConnectionsMember => {
            u32::from(member.ratio)
        }
        Method::RatioNode | Method::RatioLeastConnectionsNode => {
            node().map_or(1, |node| u32::from(node.ratio))
        }
        Method::WeightedLeastConnectionsMember => member.connection_limit,
        Method::WeightedLeastConnectionsNode => node().map_or(1, |node| node.connection_limit),
        _ => 1,
    };
    let weight = weight.max(1);
    let turns = u64::from(weight) * TURN;
    Candidate { place: place as u32, id: member.id, node: member.node, weight, turns }
}

/// One choice: the pool, who is at work, and what may be looked at.
pub(super) struct Pick<'a> {
    pub(super) pool: &'a Pool,
    pub(super) view: &'a View<'a>,
    roster: &'a Roster,
    is_ramping: bool,
}

impl<'a> Pick<'a> {
    pub(super) fn new(pool: &'a Pool, view: &'a View<'a>, roster: &'a Roster) -> Self {
        Self { pool, view, roster, is_ramping: view.now < roster.ramp_ends }
    }

    /// Who is at work, in the pool's order.
    #[inline]
    pub(super) fn at_work(&self) -> &'a [Candidate] {
        &self.roster.at_work
    }

    /// True when somebody at work has not yet a full share.
    #[inline]
    pub(super) fn is_ramping(&self) -> bool {
        self.is_ramping
    }

    /// True when the member at this place is at work and takes one more connection.
    #[inline]
    pub(super) fn takes(&self, place: usize) -> bool {
        let (Some(&standing), Some(member)) =
            (self.roster.standings.get(place), self.pool.members.get(place))
        else {
            return false;
        };
        let has_room = match standing {
            Standing::Out => false,
            Standing::Free => true,
            Standing::Limited => self.view.has_room(member),
        };
        has_room && !self.view.has_failed(member)
    }

    /// The member's share, of [`SHARE_FULL`]: in its slow ramp it rises from a tenth to the full.
    #[inline]
    pub(super) fn share(&self, id: MemberId) -> u64 {
        if self.is_ramping { self.ramped(id) } else { SHARE_FULL }
    }

    fn ramped(&self, id: MemberId) -> u64 {
        let Some(since) = self.view.states.up_since(id) else { return SHARE_FULL };
        let (up_ms, ramp_ms) =
            (self.view.now.since(since).as_millis() as u64, u64::from(self.pool.slow_ramp_ms));
        if up_ms >= ramp_ms {
            return SHARE_FULL;
        }
        SHARE_FIRST + (SHARE_FULL - SHARE_FIRST) * up_ms / ramp_ms
    }

    /// Why nobody was picked.
    #[cold]
    pub(super) fn refusal(&self) -> NoPick {
        let mut others = self.at_work().iter().filter(|candidate| !self.view.failed.contains(&candidate.id));
        if others.next().is_some() { NoPick::AtLimit } else { NoPick::NoMember }
    }
}

/// The share of a member that has just come up.
const SHARE_FIRST: u64 = SHARE_FULL / 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lb::testing::Bench;
    use crate::pool::MemberState;

    /// Two members in each of the groups 20, 10 and 0.
    fn grouped(min_active_members: u16) -> Bench {
        let mut bench = Bench::new(Method::RoundRobin, &[1; 6]);
        bench.change(|pool| {
            pool.min_active_members = min_active_members;
            for (place, member) in pool.members.iter_mut().enumerate() {
                member.priority_group = [20, 20, 10, 10, 0, 0][place];
            }
        });
        bench
    }

    fn picked(bench: &mut Bench) -> Vec<u32> {
        let mut picked = bench.picks(12);
        picked.sort_unstable();
        picked.dedup();
        picked
    }

    #[test]
    fn the_next_group_joins_while_too_few_are_up() {
        let mut bench = grouped(2);
        assert_eq!(picked(&mut bench), [0, 1]);
        bench.states.set(MemberId(0), MemberState::Offline);
        assert_eq!(picked(&mut bench), [1, 2, 3]);
        bench.states.set(MemberId(2), MemberState::Disabled);
        bench.states.set(MemberId(3), MemberState::Offline);
        assert_eq!(picked(&mut bench), [1, 4, 5]);
        bench.states.set(MemberId(0), MemberState::Enabled);
        assert_eq!(picked(&mut bench), [0, 1]);
    }

    #[test]
    fn without_a_minimum_and_with_one_beyond_the_pool_all_groups_work() {
        assert_eq!(picked(&mut grouped(0)), [0, 1, 2, 3, 4, 5]);
        assert_eq!(picked(&mut grouped(6)), [0, 1, 2, 3, 4, 5]);
        assert_eq!(picked(&mut grouped(100)), [0, 1, 2, 3, 4, 5]);
        assert_eq!(picked(&mut grouped(3)), [0, 1, 2, 3]);
    }

    #[test]
    fn a_member_at_its_limit_keeps_its_group_active() {
        let mut bench = grouped(1);
        bench.change(|pool| pool.members.iter_mut().for_each(|member| member.connection_limit = 1));
        bench.open(0);
        assert_eq!(picked(&mut bench), [1]);
        bench.open(1);
        assert_eq!((bench.try_pick(), bench.is_at_limit()), (Err(NoPick::AtLimit), true));
        bench.states.set(MemberId(0), MemberState::Offline);
        bench.states.set(MemberId(1), MemberState::Offline);
        assert_eq!(picked(&mut bench), [2, 3]);
    }

    #[test]
    fn groups_follow_what_an_apply_says() {
        let mut bench = grouped(2);
        assert_eq!(picked(&mut bench), [0, 1]);
        bench.change(|pool| pool.members[4].priority_group = 30);
        assert_eq!(picked(&mut bench), [0, 1, 4]);
    }

    #[test]
    fn a_share_rises_from_a_tenth_to_the_full() {
        let mut bench = Bench::new(Method::RoundRobin, &[1, 1]);
        bench.change(|pool| pool.slow_ramp_ms = 10_000);
        bench.states.add(MemberId(1), MemberState::Enabled, Instant::from_ms(50_000));
        let mut roster = Roster::default();
        let view = bench.view();
        roster.follow(&bench.snapshot.parts().pools[0], &view);
        let share = |id, ms| {
            let view = View { now: Instant::from_ms(ms), ..view };
            Pick::new(&bench.snapshot.parts().pools[0], &view, &roster).share(MemberId(id))
        };
        assert_eq!([50_000, 55_000, 59_999, 60_000].map(|ms| share(1, ms)), [100, 550, 999, 1_000]);
        assert_eq!(share(0, 50_000), SHARE_FULL, "it has been up from the start");
    }
}
