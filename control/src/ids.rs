//! Identities that stay: the same name has the same number after every apply. A member's name is its pool, address
//! and port; a node's is its address.
//!
//! ```text
//!   never used ─▶ live ─▶ retired ─▶ live again
//!                            │        same object came back: at once
//!                            │        another object: when no connection and no worker holds the number
//! ```

use std::collections::VecDeque;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use sluice_dataplane::config::ids::{MemberId, NodeId, PoolId, VirtualId};

use crate::model::shared::{Changed, changes};
use crate::model::{LimitsModel, Member, Model, Name, Pool, VirtualServer};
use crate::parse::Fault;

/// What makes a pool member the same one: its pool, address and port.
pub type MemberKey = (Name, IpAddr, u16);

/// Which numbers are given to what.
#[derive(Debug, Clone)]
pub struct IdBook {
    virtuals: Space<Name>,
    pools: Space<Name>,
    members: Space<MemberKey>,
    nodes: Space<IpAddr>,
}

/// What the data plane still holds of a retired number.
pub trait Holders {
    /// The oldest generation that a worker may still run.
    fn oldest_generation(&self) -> u64;
    /// Connections that hold this virtual server.
    fn of_virtual(&self, id: VirtualId) -> u64;
    /// Connections that hold this member.
    fn of_member(&self, id: MemberId) -> u64;
    /// Connections altogether.
    fn of_any(&self) -> u64;
}

/// Nothing runs, nothing is held.
pub struct Unheld;

impl Holders for Unheld {
    fn oldest_generation(&self) -> u64 {
        u64::MAX
    }
    fn of_virtual(&self, _: VirtualId) -> u64 {
        0
    }
    fn of_member(&self, _: MemberId) -> u64 {
        0
    }
    fn of_any(&self) -> u64 {
        0
    }
}

/// Numbers that now stand for another object than before; their counters begin anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reused {
    /// Of virtual servers.
    pub virtuals: Vec<VirtualId>,
    /// Of members.
    pub members: Vec<MemberId>,
    /// Of nodes.
    pub nodes: Vec<NodeId>,
}

impl IdBook {
    /// An empty book for a process with these capacities.
    pub fn new(limits: &LimitsModel) -> Self {
        Self {
            virtuals: Space::new(limits.virtual_servers.as_u32()),
            pools: Space::new(limits.members.as_u32()),
            members: Space::new(limits.members.as_u32()),
            nodes: Space::new(limits.members.as_u32()),
        }
    }

    /// Gives every object of `model` its number, as of `generation`.
    ///
    /// # Errors
    /// One fault for each kind of object that there are no numbers left for; the book is useless then.
    pub fn assign(
        &mut self,
        model: &Model,
        generation: u64,
        held: &dyn Holders,
    ) -> Result<Reused, Vec<Fault>> {
        let pools = || model.pools.iter().map(|(name, pool)| (name, &**pool));
        let missing = Missing {
            virtuals: self.virtuals.keep_only(model.virtual_servers.keys().cloned(), generation),
            pools: self.pools.keep_only(model.pools.keys().cloned(), generation),
            members: self.members.keep_only(pools().flat_map(member_keys), generation),
            nodes: self.nodes.keep_only(pools().flat_map(addresses), generation),
        };
        self.number(missing, held)
    }

    /// As [`IdBook::assign`], where the numbers are those of `former`: looks only at what is another object now, so
    /// its cost is that of the difference.
    ///
    /// # Errors
    /// As [`IdBook::assign`].
    pub fn assign_after(
        &mut self,
        former: &Model,
        model: &Model,
        generation: u64,
        held: &dyn Holders,
    ) -> Result<Reused, Vec<Fault>> {
        let missing = Missing {
            virtuals: self.exchange_virtuals(former, model, generation),
            ..self.exchange_members(former, model, generation)
        };
        self.number(missing, held)
    }

    fn exchange_virtuals(&mut self, former: &Model, model: &Model, generation: u64) -> Vec<Name> {
        let servers = changes(&former.virtual_servers, &model.virtual_servers);
        let names = |is_there: fn(&Changed<'_, Arc<VirtualServer>>) -> bool| {
            servers.iter().filter(move |changed| is_there(changed)).map(|changed| changed.name.clone())
        };
        let (old, new) = (names(|changed| changed.old.is_some()), names(|changed| changed.new.is_some()));
        self.virtuals.exchange(old, new, generation)
    }

    /// Pools, members and nodes.
    fn exchange_members(&mut self, former: &Model, model: &Model, generation: u64) -> Missing {
        let pools = changes(&former.pools, &model.pools);
        let old = || pools.iter().filter_map(|changed| Some((changed.name, &**changed.old?)));
        let new = || pools.iter().filter_map(|changed| Some((changed.name, &**changed.new?)));
        let name = |(name, _): (&Name, &Pool)| name.clone();
        let (old_members, new_members) = (old().flat_map(member_keys), new().flat_map(member_keys));
        let of_others = addresses_of_others(model, old().flat_map(addresses), new().flat_map(addresses));
        let new_nodes = new().flat_map(addresses).chain(of_others);
        Missing {
            virtuals: Vec::new(),
            pools: self.pools.exchange(old().map(name), new().map(name), generation),
            members: self.members.exchange(old_members, new_members, generation),
            nodes: self.nodes.exchange(old().flat_map(addresses), new_nodes, generation),
        }
    }

    /// Gives numbers to what has none.
    fn number(&mut self, missing: Missing, held: &dyn Holders) -> Result<Reused, Vec<Fault>> {
        let settled = held.oldest_generation();
        let free = |retired: u64, connections: u64| retired <= settled && connections == 0;
        let virtuals =
            self.virtuals.number(missing.virtuals, |_, id, at| free(at, held.of_virtual(VirtualId(id))));
        let pools = self.pools.number(missing.pools, |_, _, at| free(at, held.of_any()));
        let members =
            self.members.number(missing.members, |_, id, at| free(at, held.of_member(MemberId(id))));
        // There are no more nodes than members, so numbers never run out for nodes alone.
        let of_node = self.held_nodes(held);
        let nodes =
            self.nodes.number(missing.nodes, |address, _, at| free(at, u64::from(of_node.contains(address))));
        match (virtuals, pools, members) {
            (Ok(virtuals), Ok(_), Ok(members)) => Ok(Reused {
                virtuals: virtuals.into_iter().map(VirtualId).collect(),
                members: members.into_iter().map(MemberId).collect(),
                nodes: nodes.unwrap_or_default().into_iter().map(NodeId).collect(),
            }),
            (virtuals, pools, members) => Err(full(&virtuals, "virtual_servers", "virtual_servers")
                .chain(full(&pools, "pools", "members"))
                .chain(full(&members, "pools", "members"))
                .collect()),
        }
    }

    /// Addresses of removed members that still have connections.
    fn held_nodes(&self, held: &dyn Holders) -> HashSet<IpAddr> {
        let holding = self.members.retired.iter().filter(|(_, id, _)| held.of_member(MemberId(*id)) > 0);
        holding.map(|((_, address, _), ..)| *address).collect()
    }

    /// Every number that a virtual server has, or had.
    pub fn virtual_ids(&self) -> impl Iterator<Item = VirtualId> + use<> {
        (0..self.virtuals.next).map(VirtualId)
    }

    /// The number of a virtual server.
    pub fn virtual_id(&self, name: &str) -> VirtualId {
        self.virtuals.of(name).map_or(VirtualId::NONE, VirtualId)
    }

    /// The number of a pool.
    pub fn pool_id(&self, name: &str) -> PoolId {
        self.pools.of(name).map_or(PoolId::NONE, PoolId)
    }

    /// The number of a member.
    pub fn member_id(&self, pool: &Name, member: &Member) -> MemberId {
        let key = (pool.clone(), member.address.0, member.port.0);
        self.members.of(&key).map_or(MemberId::NONE, MemberId)
    }

    /// The number of the node that members at `address` run on.
    pub fn node_id(&self, address: IpAddr) -> NodeId {
        self.nodes.of(&address).map_or(NodeId::NONE, NodeId)
    }
}

fn member_keys<'a>((name, pool): (&'a Name, &'a Pool)) -> impl Iterator<Item = MemberKey> + use<'a> {
    pool.members.iter().map(|member| (name.clone(), member.address.0, member.port.0))
}

fn addresses<'a>((_, pool): (&'a Name, &'a Pool)) -> impl Iterator<Item = IpAddr> + use<'a> {
    pool.members.iter().map(|member| member.address.0)
}

/// Of addresses that are `gone` from the pools that changed and not `new` in one, those that `model` still has.
fn addresses_of_others(
    model: &Model,
    gone: impl Iterator<Item = IpAddr>,
    new: impl Iterator<Item = IpAddr>,
) -> Vec<IpAddr> {
    let new: HashSet<IpAddr> = new.collect();
    let leaving: HashSet<IpAddr> = gone.filter(|address| !new.contains(address)).collect();
    if leaving.is_empty() {
        return Vec::new();
    }
    let all = model.pools.values().flat_map(|pool| &pool.members).map(|member| member.address.0);
    all.filter(|address| leaving.contains(address)).collect()
}

/// What has no number yet. A key may stand in it more than once.
struct Missing {
    virtuals: Vec<Name>,
    pools: Vec<Name>,
    members: Vec<MemberKey>,
    nodes: Vec<IpAddr>,
}

fn full<'a>(
    outcome: &Result<Vec<u32>, Full>,
    section: &'a str,
    limit: &'a str,
) -> impl Iterator<Item = Fault> + use<'a> {
    outcome.as_ref().err().map(|full| full.fault(section, limit)).into_iter()
}

/// No number is left.
#[derive(Debug, PartialEq, Eq)]
struct Full {
    wanted: usize,
    capacity: u32,
    retired: usize,
}

impl Full {
    fn fault(&self, section: &str, limit: &str) -> Fault {
        let (wanted, capacity) = (self.wanted, self.capacity);
        let mut message = format!("expected at most {capacity} (system.limits.{limit}); these are {wanted}");
        if self.retired > 0 {
            let kept =
                format!(", and {} that were removed count until their connections have ended", self.retired);
            message.push_str(&kept);
        }
        Fault::new(format!("/{section}"), message)
    }
}

/// The numbers of one kind of object.
#[derive(Debug, Clone)]
struct Space<K> {
    capacity: u32,
    next: u32,
    live: HashMap<K, Live>,
    /// Assignments so far.
    turn: u64,
    /// Oldest first: what the number stood for, and the generation that no longer names it.
    retired: VecDeque<(K, u32, u64)>,
}

/// A number that stands for something.
#[derive(Debug, Clone, Copy)]
struct Live {
    id: u32,
    /// The last assignment that wanted it.
    turn: u64,
}

impl<K: Hash + Eq + Ord + Clone> Space<K> {
    fn new(capacity: u32) -> Self {
        Self { capacity, next: 0, live: HashMap::new(), turn: 0, retired: VecDeque::new() }
    }

    fn of<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<u32>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.live.get(key).map(|live| live.id)
    }

    /// Retires all but `keys`; returns those that have no number.
    fn keep_only(&mut self, keys: impl Iterator<Item = K>, generation: u64) -> Vec<K> {
        self.turn += 1;
        let (missing, kept) = self.mark(keys);
        if kept < self.live.len() {
            let unmarked = self.live.extract_if(|_, live| live.turn != self.turn);
            let unmarked = unmarked.map(|(key, live)| (key, live.id)).collect();
            self.retire(unmarked, generation);
        }
        missing
    }

    /// Retires what is `gone` and not `new`, and leaves everything else as it is; returns what is new and has no
    /// number.
    fn exchange(
        &mut self,
        gone: impl Iterator<Item = K>,
        new: impl Iterator<Item = K>,
        generation: u64,
    ) -> Vec<K> {
        self.turn += 1;
        let (missing, _) = self.mark(new);
        let mut unmarked = Vec::new();
        for key in gone {
            if self.live.get(&key).is_some_and(|live| live.turn != self.turn) {
                unmarked.extend(self.live.remove_entry(&key).map(|(key, live)| (key, live.id)));
            }
        }
        self.retire(unmarked, generation);
        missing
    }

    /// Gives numbers to what is `missing`; returns those that changed their object.
    fn number(
        &mut self,
        mut missing: Vec<K>,
        is_free: impl Fn(&K, u32, u64) -> bool,
    ) -> Result<Vec<u32>, Full> {
        // Numbers do not depend on the order of hashes.
        missing.sort_unstable();
        missing.dedup();
        let wanted = self.live.len() + missing.len();
        self.revive(&mut missing);
        let mut reused = Vec::new();
        for key in missing {
            let Some(id) = self.fresh().or_else(|| self.recycle(&is_free, &mut reused)) else {
                return Err(Full { wanted, capacity: self.capacity, retired: self.retired.len() });
            };
            self.live.insert(key, Live { id, turn: self.turn });
        }
        Ok(reused)
    }

    /// Marks what is wanted as of this turn; returns what has no number, and how many have one.
    fn mark(&mut self, keys: impl Iterator<Item = K>) -> (Vec<K>, usize) {
        let (mut missing, mut kept) = (Vec::new(), 0);
        for key in keys {
            match self.live.get_mut(&key) {
                Some(live) => {
                    kept += usize::from(live.turn != self.turn);
                    live.turn = self.turn;
                }
                None => missing.push(key),
            }
        }
        (missing, kept)
    }

    fn retire(&mut self, mut gone: Vec<(K, u32)>, generation: u64) {
        gone.sort_unstable_by_key(|(_, id)| *id);
        self.retired.extend(gone.into_iter().map(|(key, id)| (key, id, generation)));
    }

    fn revive(&mut self, missing: &mut Vec<K>) {
        if self.retired.is_empty() || missing.is_empty() {
            return;
        }
        let back: HashSet<K> = missing.iter().cloned().collect();
        for (key, id, at) in std::mem::take(&mut self.retired) {
            if back.contains(&key) && !self.live.contains_key(&key) {
                self.live.insert(key, Live { id, turn: self.turn });
            } else {
                self.retired.push_back((key, id, at));
            }
        }
        missing.retain(|key| !self.live.contains_key(key));
    }

    fn fresh(&mut self) -> Option<u32> {
        let id = (self.next < self.capacity).then_some(self.next)?;
        self.next += 1;
        Some(id)
    }

    fn recycle(&mut self, is_free: impl Fn(&K, u32, u64) -> bool, reused: &mut Vec<u32>) -> Option<u32> {
        let place = self.retired.iter().position(|(key, id, at)| is_free(key, *id, *at))?;
        let (_, id, _) = self.retired.remove(place)?;
        reused.push(id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assign(
        space: &mut Space<&'static str>,
        keys: &[&'static str],
        generation: u64,
    ) -> Result<Vec<u32>, Full> {
        let missing = space.keep_only(keys.iter().copied(), generation);
        space.number(missing, |_, _, _| true)
    }

    #[test]
    fn numbers_stay_with_their_names() {
        let mut space = Space::new(8);
        assign(&mut space, &["b", "c"], 1).unwrap();
        let (b, c) = (space.of("b"), space.of("c"));
        assign(&mut space, &["a", "c", "d"], 2).unwrap();
        assert_eq!(space.of("c"), c);
        assert_eq!(space.of("b"), None);
        assign(&mut space, &["b", "c"], 3).unwrap();
        assert_eq!((space.of("b"), space.of("c")), (b, c));
    }

    #[test]
    fn a_held_number_is_not_given_away() {
        let mut space = Space::new(2);
        assign(&mut space, &["a", "b"], 1).unwrap();
        let a = space.of("a").unwrap();
        let missing = space.keep_only(["b", "c"].into_iter(), 2);
        let held = space.clone().number(missing.clone(), |_, id, _| id != a);
        assert_eq!(held, Err(Full { wanted: 2, capacity: 2, retired: 1 }));
        let early = space.clone().number(missing, |_, _, at| at <= 1);
        assert!(early.is_err(), "a worker may still run the generation that names it");
        assert_eq!(assign(&mut space, &["b", "c"], 2), Ok(vec![a]));
        assert_eq!(space.of("c"), Some(a));
    }

    #[test]
    fn unused_numbers_come_before_used_ones() {
        let mut space = Space::new(3);
        assign(&mut space, &["a", "b"], 1).unwrap();
        assert_eq!(assign(&mut space, &["b", "c"], 2), Ok(vec![]));
        assert_eq!(space.of("c"), Some(2));
    }
}
