//! Who is let in: connection limits and rates of virtual servers, members and nodes, over all workers.

use crate::config::ids::MemberId;
use crate::config::snapshot::{Virtual, VirtualKind};
use crate::counters::WorkerCounters;
use crate::flow::table::FlowId;
use crate::flow::tcp_track::TcpState;
use crate::flow::{Direction, Flow, flow_flag};
use crate::packet::parse::{Class, Packet, tcp_flag};
use crate::persist::select::Chosen;
use crate::pipeline::Pipeline;
use crate::quota::Limited;
use crate::verdict::DropReason;

impl Pipeline {
    /// Whether `virtual_server` takes a new connection that begins with this packet. Takes a unit of its connection
    /// limit, which [`Pipeline::let_go_virtual`] gives back.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn admit(&self, virtual_server: &Virtual, packet: &Packet) -> Result<(), DropReason> {
        if !virtual_server.enabled {
            return Err(DropReason::VirtualDisabled);
        }
        if virtual_server.kind == VirtualKind::Reject {
            return Err(DropReason::Rejected);
        }
        opens(packet)?;
        self.admits(virtual_server)?;
        self.take_from_virtual(virtual_server)
    }

    /// Whether `virtual_server` takes new connections at all. Takes nothing.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn admits(&self, virtual_server: &Virtual) -> Result<(), DropReason> {
        match virtual_server.enabled {
            false => Err(DropReason::VirtualDisabled),
            true if self.draining => Err(DropReason::Draining),
            true => Ok(()),
        }
    }

    /// Takes a unit of the virtual server's connection limit and of its rate.
    ///
    /// # Errors
    /// Which of them is used up.
    pub(crate) fn take_from_virtual(&self, virtual_server: &Virtual) -> Result<(), DropReason> {
        let what = Limited::Virtual(virtual_server.id);
        if !self.quota.take(what) {
            return Err(DropReason::ConnectionLimit);
        }
        if !self.quota.take_rate(what, virtual_server.rate_limit, self.now) {
            self.quota.give_back(what);
            return Err(DropReason::ConnectionRate);
        }
        Ok(())
    }

    /// Takes a unit of the limits of the chosen member and its node, and of their rates.
    ///
    /// # Errors
    /// [`DropReason::MembersFull`] when another worker was faster.
    pub(crate) fn admit_to(&self, chosen: Chosen) -> Result<(), DropReason> {
        let member = chosen.member;
        let (what, node) = (Limited::Member(member.id), Limited::Node(member.node));
        if chosen.overrides_limit {
            self.quota.take_anyway(what);
            self.quota.take_anyway(node);
            return Ok(());
        }
        let node_rate = self.snapshot.node(member.node).map_or(0, |node| node.rate_limit);
        if !self.quota.take(what) {
            return Err(DropReason::MembersFull);
        }
        if !self.quota.take(node) {
            self.quota.give_back(what);
            return Err(DropReason::MembersFull);
        }
        let in_time = self.quota.take_rate(what, member.rate_limit, self.now)
            && self.quota.take_rate(node, node_rate, self.now);
        if !in_time {
            self.quota.give_back(what);
            self.quota.give_back(node);
            return Err(DropReason::MembersFull);
        }
        Ok(())
    }

    /// A connection through `virtual_server` has ended, or has not come about.
    pub(crate) fn let_go_virtual(&self, virtual_server: &Virtual) {
        self.quota.give_back(Limited::Virtual(virtual_server.id));
    }

    /// A connection to the member has not come about.
    pub(crate) fn let_go_member(&self, id: MemberId) {
        let node = self.snapshot.member(id).map(|member| member.node);
        self.quota.give_back(Limited::Member(id));
        if let Some(node) = node {
            self.quota.give_back(Limited::Node(node));
        }
    }

    /// Counts a connection that is open, on all that it runs through.
    pub(crate) fn count_opened(&self, flow: &Flow) {
        if let Some(counters) = self.counters.of_virtual(flow.virtual_id) {
            counters.connections.open();
        }
        let node = self.snapshot.member(flow.member_id).map(|member| member.node);
        self.counters.open_member(flow.member_id, node.unwrap_or_default());
    }

    /// A connection that is certainly over makes room under the limits at once, though its flow is kept for what comes
    /// late.
    pub(crate) fn count_over(&mut self, id: FlowId) {
        let flow = *self.flows.at_mut(id);
        if !flow.has(flow_flag::UNCOUNTED) {
            self.flows.at_mut(id).set(flow_flag::UNCOUNTED);
            self.count_closed(&flow);
            self.queue.poke();
        }
    }

    /// A packet of a connection that is over and has no places any more. Whoever is said to have reset it and goes on all
    /// the same, wherever that lies, needs them again.
    ///
    /// # Errors
    /// Why it may not pass: the places are others' now, or the connection was never open.
    #[cold]
    pub(crate) fn come_back(
        &mut self,
        id: FlowId,
        direction: Direction,
        packet: &Packet,
        payload: u32,
    ) -> Result<(), DropReason> {
        let flow = *self.flows.at_mut(id);
        let is_reset = packet.tcp_flags & tcp_flag::RST != 0;
        let has_reset = match flow.tcp_state() {
            TcpState::ResetClient => Direction::FromClient,
            TcpState::ResetMember => Direction::FromMember,
            TcpState::Refused => {
                // A member that has not believed it asks again, and is told again.
                let asks = direction == Direction::FromMember && payload == 0;
                return if is_reset || asks { Ok(()) } else { Err(DropReason::NoFlow) };
            }
            _ => return Ok(()),
        };
        if is_reset || direction != has_reset {
            return Ok(());
        }
        if !self.take_again(&flow) {
            return Err(DropReason::ConnectionLimit);
        }
        self.flows.at_mut(id).flags &= !flow_flag::UNCOUNTED;
        if let Some(counters) = self.counters.of_virtual(flow.virtual_id) {
            counters.connections.reopen();
        }
        self.counters.reopen_member(flow.member_id);
        Ok(())
    }

    /// Takes a unit of each limit that the flow counts under, or of none.
    fn take_again(&self, flow: &Flow) -> bool {
        let node = Limited::Node(self.counters.node_of(flow.member_id));
        let all = [Limited::Virtual(flow.virtual_id), Limited::Member(flow.member_id), node];
        let taken = all.iter().take_while(|what| self.quota.take(**what)).count();
        if taken < all.len() {
            all[..taken].iter().for_each(|what| self.quota.give_back(*what));
        }
        taken == all.len()
    }

    /// Counts the end of a connection, and gives back its units.
    pub(crate) fn count_closed(&self, flow: &Flow) {
        self.quota.give_back(Limited::Virtual(flow.virtual_id));
        self.quota.give_back(Limited::Member(flow.member_id));
        self.quota.give_back(Limited::Node(self.counters.node_of(flow.member_id)));
        if let Some(counters) = self.counters.of_virtual(flow.virtual_id) {
            counters.connections.close();
        }
        self.counters.close_member(flow.member_id);
    }
}

/// Connections of `what` that the worker with these counters has.
pub(crate) fn connections_of(counters: &WorkerCounters, what: Limited) -> u64 {
    let connections = match what {
        Limited::Virtual(id) => counters.of_virtual(id).map(|counters| &counters.connections),
        Limited::Member(id) => counters.of_member(id).map(|counters| &counters.connections),
        Limited::Node(id) => counters.of_node(id).map(|counters| &counters.connections),
    };
    connections.map_or(0, |connections| connections.current.load())
}

/// A TCP connection begins with a SYN (RFC 9293 section 3.5); a datagram can always begin something.
pub(crate) fn opens(packet: &Packet) -> Result<(), DropReason> {
    let begins = packet.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN;
    if packet.class == Class::Tcp && !begins { Err(DropReason::NoFlow) } else { Ok(()) }
}
