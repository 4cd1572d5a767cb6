//! The way to each member: its next hop, and our own address there. Worked out once for each configuration and link
//! address, not for each flow.

use bytemuck::Zeroable;
use sluice_ffi::memory::{Backing, Slab};

use crate::address::Address;
use crate::config::ids::LinkId;
use crate::neighbor::NeighborRef;
use crate::pipeline::Pipeline;
use crate::route::NextHop;
use crate::select::Target;
use crate::verdict::DropReason;

/// How packets get to a target.
#[derive(Debug, Clone, Copy, Zeroable)]
#[repr(C)]
pub(crate) struct Way {
    hop: Address,
    /// Our address towards the next hop; unspecified where it has not been looked for, or there is none.
    own: Address,
    pub(crate) neighbor: NeighborRef,
    /// Low bits of the generation that it was found in.
    epoch: u32,
    link: LinkId,
}

const _: () = assert!(size_of::<Way>() == 48);

/// The ways of one worker, by member.
pub(crate) struct Ways(Slab<Way>);

impl Ways {
    /// For `members` members. Zero pages until a member is used.
    pub(crate) fn new(members: usize) -> Self {
        Self(Slab::new(members, Backing::Ordinary))
    }
}

impl Way {
    /// By a next hop whose link address is another's business.
    pub(crate) fn by(hop: NextHop) -> Self {
        Self { hop: hop.address, link: hop.link, ..Self::zeroed() }
    }
}

impl Pipeline {
    /// The way to `target`. A few loads, for members whose link address is known.
    ///
    /// # Errors
    /// [`DropReason::NoRoute`], or that no more neighbours can be asked.
    #[inline]
    pub(crate) fn way_to(&mut self, target: &Target) -> Result<Way, DropReason> {
        if let Some(way) = self.ways.0.get(target.member_id.index())
            && way.epoch == self.epoch
            && self.neighbors.mac(way.neighbor).is_some()
        {
            return Ok(*way);
        }
        self.find_way(target)
    }

    #[cold]
    fn find_way(&mut self, target: &Target) -> Result<Way, DropReason> {
        let hop = self.snapshot.route(target.address).ok_or(DropReason::NoRoute)?;
        let neighbor = self.neighbors.resolve(hop, self.now)?;
        let mut way = Way { neighbor, epoch: self.epoch, ..Way::by(hop) };
        if let Some(known) = self.ways.0.get_mut(target.member_id.index()) {
            way.own = self.snapshot.self_ip_towards(hop.link, hop.address).unwrap_or_default();
            *known = way;
        }
        Ok(way)
    }

    /// Our own address on the way, where we have one.
    #[inline]
    pub(crate) fn own_address(&self, way: &Way) -> Option<Address> {
        if way.own == Address::UNSPECIFIED {
            return self.snapshot.self_ip_towards(way.link, way.hop);
        }
        Some(way.own)
    }
}
