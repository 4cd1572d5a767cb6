//! Flows: one record for both directions of a connection, in a table of fixed capacity.

pub mod half_open;
pub mod key;
pub mod table;
pub mod tcp_track;
pub mod timer;

use bytemuck::Zeroable;

use self::key::FlowKey;
use self::tcp_track::TcpState;
use crate::address::{Address, Mac};
use crate::config::ids::{LinkId, MemberId, VirtualId};
use crate::neighbor::NeighborRef;
use crate::packet::parse::protocol;

/// Which side a packet of a flow came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The side that opened the flow.
    FromClient = 0,
    /// The side that sluice chose.
    FromMember = 1,
}

impl Direction {
    /// 0 from the client, 1 from the member.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The other side.
    pub const fn opposite(self) -> Self {
        match self {
            Direction::FromClient => Direction::FromMember,
            Direction::FromMember => Direction::FromClient,
        }
    }
}

/// One connection, both directions: two cache lines, one a side.
///
/// ```text
///   line 0  client ─▶ destination        what the client sends, and what a member's packet becomes reversed
///   line 1  member ─▶ source             what the member sends, and what a client's packet becomes reversed
/// ```
#[derive(Debug, Clone, Copy, Zeroable)]
#[repr(C, align(64))]
pub struct Flow {
    /// The client.
    pub client: Address,
    /// What the client asked for: the virtual address.
    pub destination: Address,
    /// The client's port.
    pub client_port: u16,
    /// The port the client asked for.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    pub(crate) state: u8,
    pub(crate) flags: u8,
    pub(crate) unused: u8,
    /// When the last packet came, in milliseconds of the worker's clock, wrapping.
    pub last_seen_ms: u32,
    /// Low bits of the configuration generation that ids and next hop were last checked against.
    pub epoch: u32,
    /// The virtual server; none when it is gone.
    pub virtual_id: VirtualId,
    /// The member; none when it is gone or was never chosen.
    pub member_id: MemberId,
    /// Where the client is.
    pub client_link: LinkId,
    /// The link address its last packet came from (auto last hop).
    pub client_mac: Mac,

    /// The member.
    pub member: Address,
    /// Our address towards the member; the client's without SNAT.
    pub source: Address,
    /// The member's port.
    pub member_port: u16,
    /// Our port towards the member.
    pub source_port: u16,
    /// The next hop towards the member.
    pub neighbor: NeighborRef,
    /// The sequence number each side will send next, by [`Direction::index`].
    pub next_seq: [u32; 2],
    /// Bytes from each side, from the IP header on, by [`Direction::index`].
    pub bytes: [u64; 2],
}

const _: () = assert!(size_of::<Flow>() == 128);

/// What is true of a flow besides its state.
pub mod flow_flag {
    /// Replies go to the link address that the client's packet came from.
    pub const AUTO_LAST_HOP: u8 = 1;
    /// The source port was taken from the SNAT ports and must be given back.
    pub const SNAT_PORT: u8 = 2;
    /// Its SYN is kept, for another member if this one does not answer.
    pub const RESELECT: u8 = 4;
    /// Its member's first packet is waited for, to see how soon it comes.
    pub const ASKED: u8 = 8;
    /// The connection is over and no longer counted; the flow is kept for what comes late.
    pub const UNCOUNTED: u8 = 16;
}

impl Flow {
    /// The key of packets from the client.
    #[inline(always)]
    pub fn client_key(&self) -> FlowKey {
        FlowKey {
            src: self.client,
            dst: self.destination,
            src_port: self.client_port,
            dst_port: self.destination_port,
            protocol: self.protocol,
        }
    }

    /// The key of packets from the member.
    #[inline(always)]
    pub fn member_key(&self) -> FlowKey {
        FlowKey {
            src: self.member,
            dst: self.source,
            src_port: self.member_port,
            dst_port: self.source_port,
            protocol: self.protocol,
        }
    }

    /// What a packet that came from `direction` must look like when it leaves.
    #[inline(always)]
    pub fn outgoing_key(&self, direction: Direction) -> FlowKey {
        match direction {
            Direction::FromClient => self.member_key().reversed(),
            Direction::FromMember => self.client_key().reversed(),
        }
    }

    /// The TCP state; meaningless for UDP.
    #[inline(always)]
    pub fn tcp_state(&self) -> TcpState {
        TcpState::from_code(self.state)
    }

    /// What `show flows` calls its state.
    pub fn state_name(&self) -> &'static str {
        match self.tcp_state() {
            _ if self.protocol != protocol::TCP => "active",
            state if state.is_reset() && !self.has(flow_flag::UNCOUNTED) => "resetting",
            TcpState::Closing if !self.has(flow_flag::UNCOUNTED) => "last-ack",
            state => state.name(),
        }
    }

    /// Moves to another TCP state.
    #[inline(always)]
    pub fn set_tcp_state(&mut self, state: TcpState) {
        self.state = state as u8;
    }

    /// True when `flag` (of [`flow_flag`]) is set.
    #[inline(always)]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Sets `flag` (of [`flow_flag`]).
    pub fn set(&mut self, flag: u8) {
        self.flags |= flag;
    }
}
