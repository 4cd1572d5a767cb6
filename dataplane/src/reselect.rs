//! Another member when one does not take a TCP connection (tmsh `reselect-tries`).
//!
//! ```text
//!   SYN ─▶ member A ─▶ RST, ICMP unreachable, or silence until the client's next SYN
//!    └ kept                  └─▶ member B gets the kept SYN; the client sees nothing of it
//! ```
//!
//! Only pools with `reselect_tries` keep a copy of the SYN, until the member answers.

use hashbrown::HashMap;

use crate::config::ids::{LinkId, MemberId, PortId};
use crate::config::snapshot::Virtual;
use crate::flow::key::FlowKey;
use crate::flow::table::FlowId;
use crate::flow::tcp_track::TcpState;
use crate::flow::{Direction, flow_flag};
use crate::frame::Frame;
use crate::outgoing::Outgoing;
use crate::packet::parse::{Class, Packet, tcp_flag};
use crate::pipeline::{Fate, Pipeline};
use crate::quota::Limited;
use crate::select::Target;
use crate::verdict::DropReason;

/// The SYNs of one worker that may have to be sent to another member.
#[derive(Default)]
pub(crate) struct Attempts {
    by_client: HashMap<FlowKey, Attempt>,
}

struct Attempt {
    port: PortId,
    syn: Frame,
    packet: Packet,
    failed: Vec<MemberId>,
    tries: u8,
}

impl Attempts {
    /// Forgets the SYN of the flow with this client key.
    pub(crate) fn forget(&mut self, key: &FlowKey) {
        self.by_client.remove(key);
    }
}

impl Pipeline {
    /// Keeps a copy of the SYN that has opened flow `id`, when its pool asks for it and there is room. The first
    /// fragment of one is not enough to try again with.
    pub(crate) fn keep_syn(&mut self, id: FlowId, port: PortId, frame: &Frame, packet: &Packet) {
        let member = self.flows.at_mut(id).member_id;
        let tries = self.snapshot.pool_of_member(member).map_or(0, |pool| pool.reselect_tries);
        let is_whole_syn = packet.class == Class::Tcp && self.fragment_at_hand.is_none();
        if tries == 0 || !is_whole_syn || self.attempts.by_client.len() >= ATTEMPTS_MAX {
            return;
        }
        let Some(mut syn) = self.frames.copy_of(frame.bytes()) else { return };
        syn.offload = frame.offload;
        let attempt = Attempt { port, syn, packet: *packet, failed: Vec::new(), tries };
        self.attempts.by_client.insert(packet.key, attempt);
        self.flows.at_mut(id).set(flow_flag::RESELECT);
    }

    /// A packet of a flow whose SYN is kept. `Some` when it is done with: another member was tried.
    pub(crate) fn follow_attempt(
        &mut self,
        id: FlowId,
        direction: Direction,
        packet: &Packet,
        out: &mut Outgoing,
    ) -> Option<Fate> {
        let flow = *self.flows.at_mut(id);
        let waited_ms = self.now.as_ms().wrapping_sub(flow.last_seen_ms);
        let is = |flag: u8| packet.tcp_flags & flag != 0;
        let has_failed = flow.tcp_state() == TcpState::SynSent
            && match direction {
                Direction::FromMember => is(tcp_flag::RST),
                Direction::FromClient => is(tcp_flag::SYN) && !is(tcp_flag::RST) && waited_ms >= SILENCE_MS,
            };
        if has_failed {
            return self.try_another(id, out);
        }
        if direction == Direction::FromMember || !is(tcp_flag::SYN) {
            self.attempts.forget(&flow.client_key());
            self.flows.at_mut(id).flags &= !flow_flag::RESELECT;
        }
        None
    }

    /// The member of flow `id` does not take the connection: sends the kept SYN to another. `None` when there is
    /// none to try; then what the member said goes to the client.
    pub(crate) fn try_another(&mut self, id: FlowId, out: &mut Outgoing) -> Option<Fate> {
        let flow = *self.flows.at_mut(id);
        let mut attempt = self.attempts.by_client.remove(&flow.client_key())?;
        self.flows.at_mut(id).flags &= !flow_flag::RESELECT;
        attempt.failed.push(flow.member_id);
        if attempt.failed.len() > usize::from(attempt.tries) {
            return None;
        }
        let snapshot = std::sync::Arc::clone(&self.snapshot);
        let item = snapshot.virtual_by_id(flow.virtual_id)?;
        let mut frame = self.frames.copy_of(attempt.syn.bytes())?;
        frame.offload = attempt.syn.offload;
        let (port, packet) = (attempt.port, attempt.packet);
        let target = self.target(item, &packet, &attempt.failed).ok()?;
        self.close(id);
        let opened = self.open_again(item, target, LinkId::new(port, packet.vlan), &frame, &packet);
        let id = match opened {
            Ok(id) => id,
            Err(reason) => return Some(self.refuse(port, &frame, &packet, reason, item.id, out)),
        };
        self.flows.at_mut(id).set(flow_flag::RESELECT);
        self.attempts.by_client.insert(packet.key, attempt);
        let fate = self.forward(port, &mut frame, &packet, id, Direction::FromClient, out);
        self.carry_out(fate, port, frame, out);
        Some(self.dropped(DropReason::Reselected, item.id))
    }

    /// Opens the flow anew, to a target whose limits have been taken from.
    fn open_again(
        &mut self,
        item: &Virtual,
        target: Target,
        link: LinkId,
        frame: &Frame,
        packet: &Packet,
    ) -> Result<FlowId, DropReason> {
        let what = Limited::Virtual(item.id);
        if !self.quota.take(what) {
            self.let_go_member(target.member_id);
            return Err(DropReason::ConnectionLimit);
        }
        self.open_towards(item, target, link, frame, packet).inspect_err(|_| {
            self.let_go_member(target.member_id);
            self.quota.give_back(what);
        })
    }
}

/// SYNs kept at most.
const ATTEMPTS_MAX: usize = 256;
/// A SYN this long after the first is a retransmission, not a duplicate on the way (RFC 6298 section 2.1: 1 s).
const SILENCE_MS: u32 = 500;
