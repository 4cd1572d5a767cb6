//! The end of flows: timeouts, resets, and making room.

use crate::address::Mac;
use crate::config::ids::{LinkId, VirtualId};
use crate::flow::table::FlowId;
use crate::flow::tcp_track::TcpState;
use crate::flow::{Direction, Flow, flow_flag};
use crate::outgoing::Outgoing;
use crate::packet::emit::{self, Control};
use crate::packet::parse::{protocol, tcp_flag};
use crate::packet::rewrite::LinkHeader;
use crate::pipeline::Pipeline;

impl Pipeline {
    /// Ends what is due, at most [`EXPIRED_AT_ONCE`] flows. True when there may be more.
    pub fn expire(&mut self, out: &mut Outgoing) -> bool {
        self.expire_fragments();
        let mut fired = [FlowId(0); FIRED_AT_ONCE];
        let mut over = [Over { id: FlowId(0), hashes: [0; 2] }; FIRED_AT_ONCE];
        for _ in 0..EXPIRED_AT_ONCE / FIRED_AT_ONCE {
            let fired = self.take_fired(&mut fired);
            for one in self.sort_out(fired, &mut over) {
                self.end_over(one, out);
            }
            if fired.len() < FIRED_AT_ONCE {
                return false;
            }
        }
        true
    }

    /// Takes out flows whose timers have fired, and asks for their records.
    fn take_fired<'f>(&mut self, fired: &'f mut [FlowId; FIRED_AT_ONCE]) -> &'f [FlowId] {
        let (now_ms, mut count) = (self.now_ms(), 0);
        for place in fired.iter_mut() {
            let Some(id) = self.timers.poll_due(now_ms) else { break };
            self.flows.prefetch_record(id);
            *place = id;
            count += 1;
        }
        &fired[..count]
    }

    /// Those of `fired` that are over, with their places in the index asked for. The timers of the others are armed for
    /// what is left.
    fn sort_out<'o>(&mut self, fired: &[FlowId], over: &'o mut [Over; FIRED_AT_ONCE]) -> &'o [Over] {
        let mut count = 0;
        for &id in fired {
            let Some(flow) = self.flows.get(id) else { continue };
            let (timeout_ms, idle_ms) = (self.timeout_of(flow), self.idle_ms(flow));
            if idle_ms < timeout_ms {
                self.timers.arm(id, self.now_ms() + u64::from(timeout_ms - idle_ms));
                continue;
            }
            let hashes = self.flows.hashes(flow);
            hashes.iter().for_each(|hash| self.flows.prefetch_bucket(*hash));
            over[count] = Over { id, hashes };
            count += 1;
        }
        &over[..count]
    }

    /// Ends a flow whose time is up.
    fn end_over(&mut self, over: &Over, out: &mut Outgoing) {
        if let Some(flow) = self.flows.get(over.id).filter(|flow| is_open(flow)).copied()
            && self.timeouts(&flow).reset_on_timeout
        {
            self.reset_both(&flow, out);
        }
        self.close_hashed(over.id, over.hashes);
    }

    /// Moves the flow's timer to what its new state asks for.
    #[cold]
    pub(crate) fn on_tcp_state(&mut self, id: FlowId, state: TcpState, is_sure: bool) {
        if state.is_over() && is_sure {
            self.count_over(id);
        }
        if state == TcpState::SynReceived {
            // However often the SYN had to be sent, the client has the whole time for its answer to the member's.
            self.flows.at_mut(id).last_seen_ms = self.now.as_ms();
        }
        if !state.is_half_open() {
            self.half_open.leave(id);
        }
        let flow = *self.flows.at_mut(id);
        let timeout_ms = self.timeout_of(&flow);
        self.timers.arm(id, self.now_ms() + u64::from(timeout_ms));
    }

    /// Ends the oldest half-open flow to make room for a new one. False when there is none.
    pub(crate) fn evict_half_open(&mut self) -> bool {
        let Some(id) = self.half_open.oldest() else { return false };
        if let Some(flow) = self.flows.get(id) {
            self.count_drop(crate::verdict::DropReason::HalfOpenFull, flow.virtual_id);
        }
        self.close(id);
        true
    }

    /// Forgets a flow and gives back all it held.
    pub(crate) fn close(&mut self, id: FlowId) {
        if let Some(hashes) = self.flows.get(id).map(|flow| self.flows.hashes(flow)) {
            self.close_hashed(id, hashes);
        }
    }

    /// As [`Pipeline::close`], where the hashes of the flow's keys are known.
    #[inline]
    fn close_hashed(&mut self, id: FlowId, hashes: [u64; 2]) {
        let Some(flow) = self.flows.remove_hashed(id, hashes) else { return };
        self.timers.disarm(id);
        if flow.protocol == protocol::TCP {
            self.half_open.leave(id);
        }
        self.give_back_port(&flow);
        if flow.has(flow_flag::RESELECT) {
            self.attempts.forget(&flow.client_key());
        }
        if flow.has(flow_flag::ASKED) {
            self.end_of_wait(id, &flow);
        }
        self.queue.poke();
        if !flow.has(flow_flag::UNCOUNTED) {
            self.count_closed(&flow);
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now.as_ns() / 1_000_000
    }

    fn idle_ms(&self, flow: &Flow) -> u32 {
        self.now.as_ms().wrapping_sub(flow.last_seen_ms)
    }

    pub(crate) fn timeout_of(&self, flow: &Flow) -> u32 {
        let timeouts = self.timeouts(flow);
        if flow.protocol != protocol::TCP {
            return timeouts.idle_ms;
        }
        match flow.tcp_state() {
            TcpState::SynSent | TcpState::SynReceived => timeouts.handshake_ms,
            TcpState::Established | TcpState::FinClient | TcpState::FinMember => timeouts.idle_ms,
            TcpState::Closing | TcpState::ResetClient | TcpState::ResetMember | TcpState::Refused => {
                timeouts.close_ms
            }
        }
    }

    /// Tells both sides that the connection is over, with the sequence numbers that each expects.
    pub(crate) fn reset_both(&mut self, flow: &Flow, out: &mut Outgoing) {
        for from in [Direction::FromMember, Direction::FromClient] {
            self.reset_side(flow, from, out);
        }
    }

    /// Tells one side that the connection is over, as if `from` had said so.
    pub(crate) fn reset_side(&mut self, flow: &Flow, from: Direction, out: &mut Outgoing) {
        let control = Control {
            key: flow.outgoing_key(from),
            flags: tcp_flag::RST | tcp_flag::ACK,
            seq: flow.next_seq[from.index()],
            ack: flow.next_seq[from.opposite().index()],
        };
        self.send_control(flow, from, &control, out);
    }

    /// Where the flow's client is; `None` while its next hop has not answered.
    pub(crate) fn way_back(&mut self, flow: &Flow) -> Option<(LinkId, Mac)> {
        if flow.has(flow_flag::AUTO_LAST_HOP) {
            return Some((flow.client_link, flow.client_mac));
        }
        let hop = self.snapshot.route(flow.client)?;
        let neighbor = self.neighbors.resolve(hop, self.now).ok()?;
        self.neighbors.mac(neighbor)
    }

    /// Sends a segment along the flow as if it had come from `from`.
    fn send_control(&mut self, flow: &Flow, from: Direction, control: &Control, out: &mut Outgoing) {
        let way = match from {
            Direction::FromClient => self.neighbors.mac(flow.neighbor),
            Direction::FromMember => self.way_back(flow),
        };
        let Some((link, mac)) = way else { return };
        let source = self.ports[usize::from(link.port().0)].mac;
        let header = LinkHeader { destination: mac, source, vlan: link.vlan() };
        let frame = emit::tcp_control(&self.frames, header, control);
        let _ = self.send_own(frame, link.port(), VirtualId::NONE, out);
    }
}

/// A flow whose time is up, and the hashes of its keys.
#[derive(Clone, Copy)]
struct Over {
    id: FlowId,
    hashes: [u64; 2],
}

/// A connection that both ends may think open.
fn is_open(flow: &Flow) -> bool {
    let state = || flow.tcp_state();
    flow.protocol == protocol::TCP && !state().is_over() && state() != TcpState::SynSent
}

/// Their RSTs, two each, find room where nothing waits.
const EXPIRED_AT_ONCE: usize = 64;
/// Flows whose memory is asked for together.
const FIRED_AT_ONCE: usize = 16;
