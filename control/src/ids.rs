//! Identities that stay: the same name has the same number after every apply. A member's name is its pool, address
//! and port; a node's is its address.
//!
//! ```text
//!   never used ─▶ live ─▶ retired ─▶ live again
//!                            │        same object came back: at once
//!                            │        another object: when no connection and no worker holds the number
//! ```

mod space;

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashSet;
use sluice_dataplane::config::ids::{MemberId, NodeId, PoolId, VirtualId};

use crate::model::shared::{Changed, changes};
use crate::model::{LimitsModel, Member, Model, Name, Pool, VirtualServer};
use crate::parse::Fault;
use space::{Full, Space};

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
