//! Full proxies: connections of clients that end here, and others of our own to members.
//!
//! ```text
//!   SYN ─▶ arrive ─▶ tcp/handshake           segment ─▶ arrive ─▶ engine, its proxy is ready
//!   ACK ─▶ arrive ─▶ Proxy, End (client)
//!   run: each ready proxy ─▶ step ─┬ header   a PROXY header is read
//!                                  ├ stream   bytes from one side to the other
//!                                  └ http     requests one way, responses the other
//!                       connect ─▶ member, SNAT, End (server)       reuse ─▶ End (server) that waits
//!                     ─▶ depart ─▶ what the engine has to send      settle ─▶ TIME-WAIT, port given back
//! ```
//!
//! An [`end::End`] is one TCP connection as the network sees it, a [`Proxy`] what happens between a client's and a member's.
//! All is one worker's own. A connection goes on under the profile that it began with; a request gets the newest.

mod arrive;
mod connect;
mod count;
mod deadline;
mod depart;
mod down;
pub(crate) mod end;
mod header;
pub(crate) mod http;
mod list;
mod related;
mod reuse;
mod run;
mod slots;
mod stream;
mod verify;
mod wait;

use std::sync::Arc;

use hashbrown::HashMap;
use sluice_ffi::memory::Backing;

use crate::address::Address;
use crate::clock::Instant;
use crate::config::ids::{MemberId, PoolId, VirtualId};
use crate::config::proxy::{ProxyProfile, TcpProfile};
use crate::filter::RateTable;
use crate::flow::key::{FlowKey, HashSeed};
use crate::flow::timer::Timers;
use crate::frame::Frame;
use crate::limits::Limits;
use crate::tcp::handshake::Handshakes;
use crate::tcp::isn::Isn;
use crate::tcp::time_wait::TimeWait;
use crate::tcp::{ConnId, Engine, EngineSpec, Options, Passed, TcpEngine};

use self::end::Ends;
use self::http::Http;
use self::http::exchange::Spares;
use self::http::shadow::Shadow;
use self::reuse::{Idle, IdleServers};
use self::slots::Slots;
use self::stream::Stream;
use self::verify::{Verdict, Verify};

/// The proxies of one worker.
pub(crate) struct Proxies {
    pub(crate) engine: TcpEngine,
    /// A frame that was taken for a packet that did not come, for the next of the same turn.
    frame: Option<Frame>,
    /// Below so much room, bytes, nothing is taken from one side for the other.
    low_room: usize,
    pub(crate) handshakes: Handshakes,
    pub(crate) time_wait: TimeWait,
    pub(crate) isn: Isn,
    pub(crate) ends: Ends,
    pub(crate) slots: Slots,
    pub(crate) timers: Timers,
    pub(crate) idle: IdleServers,
    pub(crate) spares: Spares,
    pub(crate) rates: Arc<RateTable>,
    /// What is encoded on its way from one side to the other.
    pub(crate) scratch: Box<[u8]>,
    /// Counts up, to share requests among the pools of a rule and to choose what is mirrored.
    pub(crate) turn: u64,
    /// A connection in TIME-WAIT that the SYN at hand begins anew, and what we sent last on it.
    pub(crate) reopened: Option<(FlowKey, u32)>,
    /// Clients that wait for their members, by the keys of their packets, and what they are told.
    pub(crate) verifying: HashMap<FlowKey, u32>,
    pub(crate) verdicts: Vec<Verdict>,
    /// Looks for members that went down.
    pub(crate) walk: down::Walk,
    /// The list of proxies at hand, kept for its memory.
    pub(crate) ready: Vec<u32>,
    /// The millisecond that timers were last looked at.
    pub(crate) looked_ms: u64,
    /// The proxy at hand has more to do than its turn allows.
    pub(crate) again: bool,
}

/// What lies between a client's connection and a member's.
pub(crate) struct Proxy {
    pub(crate) slot: u32,
    pub(crate) virtual_id: VirtualId,
    pub(crate) profile: Arc<ProxyProfile>,
    /// The client's connection; none where a connection to a member waits for its next use, or for its end.
    pub(crate) client: Option<ConnId>,
    pub(crate) server: Option<ConnId>,
    pub(crate) member: Option<Peer>,
    /// Who is behind the connection, and what it asked for: what a PROXY header says, or the packets.
    pub(crate) origin: FlowKey,
    pub(crate) layer: Layer,
    /// Members that have not taken this connection or request.
    pub(crate) failed: Vec<MemberId>,
    /// When the client's connection, or the wait of a member's, began.
    pub(crate) began: Instant,
    /// When bytes last moved, or were acknowledged.
    pub(crate) active: Instant,
    /// What client and server had acknowledged when that was last looked at.
    pub(crate) acknowledged: [Option<(ConnId, u32)>; 2],
    /// When the timer is armed for.
    pub(crate) armed: Option<Instant>,
    pub(crate) is_ready: bool,
    /// It counts among the virtual server's connections.
    pub(crate) is_counted: bool,
    /// Fields of a PROXY header of version 2, for the next one.
    pub(crate) tlvs: Option<Box<[u8]>>,
    /// Bytes from the client and to it.
    pub(crate) bytes: [u64; 2],
    /// The member that last had the connection, for the log.
    pub(crate) served_by: Option<(MemberId, (Address, u16))>,
    /// It ended with a RST of ours.
    pub(crate) was_cut: bool,
    /// Where it waits for a member that has room.
    pub(crate) place: Option<u32>,
}

/// A member that a connection leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) id: MemberId,
    pub(crate) pool: PoolId,
    pub(crate) address: Address,
    pub(crate) port: u16,
}

/// What a proxy does at the moment.
pub(crate) enum Layer {
    /// Waits for a PROXY header.
    Header,
    /// Passes bytes on.
    Stream(Stream),
    /// Speaks HTTP.
    Http(Box<Http>),
    /// A connection to a member that waits for a request.
    Idle(Idle),
    /// Waits for its member before its client is let in.
    Verify(Verify),
    /// Sends the copy of a request.
    Shadow(Shadow),
    /// All is said: what still comes is read and thrown away, fewer bytes than this, until both connections are over. With
    /// 0 a peer that still says something is reset.
    Closing(usize),
}

/// Bytes that a peer may still send after we have answered for good.
pub(crate) const LINGER_BYTES: usize = 64 << 10;

impl Proxies {
    /// Takes what is taken at start; buffers come with connections.
    pub(crate) fn new(
        limits: &Limits,
        mtu: u16,
        seed: HashSeed,
        backing: Backing,
        rates: Arc<RateTable>,
    ) -> Self {
        let connections = 2 * limits.proxies;
        let ring = (limits.proxy_buffer / 2).max(RING_MIN);
        let spec = EngineSpec { connections, receive_buffer: ring, send_buffer: ring, mtu };
        Self {
            engine: TcpEngine::new(spec),
            frame: None,
            low_room: ring / 4,
            handshakes: Handshakes::new(limits.half_open.min(limits.proxies), random_pair(), backing),
            time_wait: TimeWait::new(limits.proxies, TIME_WAIT_MS),
            isn: Isn::new(random_pair()),
            ends: Ends::new(connections, seed),
            slots: Slots::new(connections),
            timers: Timers::with_slot_ms(connections, TIMER_SLOT_MS, backing),
            idle: IdleServers::default(),
            spares: Spares::default(),
            rates,
            scratch: vec![0; SCRATCH_BYTES].into(),
            turn: 0,
            reopened: None,
            verifying: HashMap::new(),
            verdicts: Vec::new(),
            walk: down::Walk::default(),
            ready: slots::ready_list(connections),
            looked_ms: 0,
            again: false,
        }
    }

    /// The largest IP packet of any port, the smallest of the ports' where they differ, for connections to come.
    pub(crate) fn set_mtu(&mut self, mtu: u16) {
        self.engine.set_mtu(mtu);
    }

    /// Bytes that may be passed on to `to` now. A buffer that is full (high water) is not filled up again before a
    /// quarter of it is free (low water), so that a slow reader is not served crumb by crumb.
    pub(crate) fn room_towards(&self, to: ConnId) -> usize {
        match self.engine.writable(to) {
            room if room < self.low_room => 0,
            room => room,
        }
    }

    /// Passes on what came from one side to the other, as far as that takes it.
    pub(crate) fn pass(&mut self, from: ConnId, to: ConnId) -> Passed {
        match self.room_towards(to) {
            0 => Passed::default(),
            _ => self.engine.pass(from, to, copy),
        }
    }

    /// True when no packet can belong to a proxy.
    pub(crate) fn is_quiet(&self) -> bool {
        self.ends.is_empty() && self.handshakes.is_empty() && self.time_wait.is_empty()
    }
}

impl TcpProfile {
    /// As the engine takes it.
    pub(crate) fn options(&self) -> Options {
        Options { nagle: self.nagle, keep_alive_ms: self.keep_alive_ms, ack_delay_ms: self.ack_delay_ms }
    }
}

/// What comes in goes out.
fn copy(input: &[u8], output: &mut [u8]) -> Passed {
    let len = input.len().min(output.len());
    output[..len].copy_from_slice(&input[..len]);
    Passed { taken: len, written: len }
}

fn random_pair() -> [u64; 2] {
    use std::hash::{BuildHasher, RandomState};
    [0u8, 1].map(|number| RandomState::new().hash_one(number))
}

/// The smallest buffer in each direction of each side.
const RING_MIN: usize = 4 << 10;
/// How long a connection that we closed first is remembered. Shorter than 2 MSL: SNAT ports are few, and they rest after
/// that.
const TIME_WAIT_MS: u32 = 5_000;
/// Fine enough for delayed acknowledgements.
const TIMER_SLOT_MS: u64 = 4;
/// Bytes encoded at once.
pub(crate) const SCRATCH_BYTES: usize = 64 << 10;
