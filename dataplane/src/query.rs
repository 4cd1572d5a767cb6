//! Questions that the control thread asks a worker, answered between bursts in bounded steps.

use crate::address::{Address, Mac};
use crate::config::ids::{LinkId, MemberId, VirtualId};
use crate::snat::ports::SnatUse;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Up to `max` (at most 256 are given) flows from table position `after` on; 0 to begin.
    Flows {
        /// Where to go on: [`FlowPage::next`] of the answer before.
        after: usize,
        /// The most to give.
        max: usize,
    },
    /// All neighbour entries.
    Neighbors,
    /// All SNAT addresses.
    Snat,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// To [`Query::Flows`].
    Flows(FlowPage),
    /// To [`Query::Neighbors`].
    Neighbors(Vec<NeighborInfo>),
    /// To [`Query::Snat`].
    Snat(Vec<SnatUse>),
}

/// Some flows, and where to go on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FlowPage {
    /// The flows.
    pub flows: Vec<FlowInfo>,
    /// Table position for the next question; `None` at the end.
    pub next: Option<usize>,
}

/// One flow, for `show flows`.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowInfo {
    /// The client and what it asked for: source, destination, with ports.
    pub client: (Address, u16),
    /// The virtual address and port that the client sent to.
    pub destination: (Address, u16),
    /// Our address and port towards the member.
    pub source: (Address, u16),
    /// The member.
    pub member: (Address, u16),
    /// 6 or 17.
    pub protocol: u8,
    /// `syn-sent`, `established`, `closing`, …; `active` for UDP.
    pub state: &'static str,
    /// The virtual server, [`VirtualId::NONE`] when it is gone.
    pub virtual_id: VirtualId,
    /// The member's id, [`MemberId::NONE`] when it is gone.
    pub member_id: MemberId,
    /// Milliseconds since the last packet.
    pub idle_ms: u32,
    /// Bytes from the client and from the member.
    pub bytes: (u64, u64),
}

/// One neighbour, for `show neighbors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeighborInfo {
    /// Its address.
    pub address: Address,
    /// Where it is.
    pub link: LinkId,
    /// Its link address, once known.
    pub mac: Option<Mac>,
    /// `incomplete`, `reachable`, `stale`, `probe` or `failed`.
    pub state: &'static str,
    /// Milliseconds since it was last confirmed.
    pub age_ms: u32,
}
