//! What becomes of open connections when their member goes down (tmsh `service-down-action`).
//!
//! A change of any member's state starts a walk over the flow table, a slice a turn. Only pools with an action
//! other than `none` pay for it.

use crate::config::ids::VirtualId;
use crate::config::snapshot::{ServiceDownAction, Virtual};
use crate::flow::table::FlowId;
use crate::flow::{Flow, flow_flag};
use crate::outgoing::Outgoing;
use crate::packet::emit::{self, IcmpError};
use crate::packet::parse::{Class, Packet, protocol};
use crate::packet::rewrite::LinkHeader;
use crate::pipeline::Pipeline;
use crate::pool::MemberState;
use crate::quota::Limited;
use crate::select::Target;

/// The walk over the flow table.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// The version of the member states that it is about.
    version: u64,
    /// Where it goes on; `None` when it is over.
    place: Option<usize>,
    /// Something has changed since it began: when it is over it begins anew.
    again: bool,
}

impl Sweep {
    /// The configuration has changed, and with it perhaps what becomes of open connections.
    pub(crate) fn begin_anew(&mut self) {
        self.version = u64::MAX;
    }
}

impl Pipeline {
    /// Looks at a slice of the flows when a member's state has changed. True while there is more to look at.
    #[inline]
    pub(crate) fn act_on_service_down(&mut self, out: &mut Outgoing) -> bool {
        let version = self.members.version();
        if version != self.sweep.version {
            let acts = self.snapshot.parts().pools.iter();
            let acts =
                acts.map(|pool| pool.service_down_action).any(|action| action != ServiceDownAction::None);
            let runs = self.sweep.place.filter(|_| acts);
            self.sweep = Sweep { version, place: runs.or(acts.then_some(0)), again: runs.is_some() };
        }
        self.sweep.place.is_some() && self.sweep_on(out)
    }

    #[cold]
    fn sweep_on(&mut self, out: &mut Outgoing) -> bool {
        let Some(place) = self.sweep.place else { return false };
        let (ids, next) = self.flows.page(place, SWEPT_A_TURN);
        // To the end before it begins anew: members that come and go do not keep it from the last flows.
        self.sweep.place = next.or(self.sweep.again.then_some(0));
        self.sweep.again &= next.is_some();
        for id in ids {
            let Some(flow) = self.flows.get(id).copied() else { continue };
            let is_counted = !flow.has(flow_flag::UNCOUNTED);
            if is_counted && self.members.of(flow.member_id) == MemberState::Offline {
                self.member_is_down(id, &flow, out);
            }
        }
        self.sweep.place.is_some()
    }

    fn member_is_down(&mut self, id: FlowId, flow: &Flow, out: &mut Outgoing) {
        let pool = self.snapshot.pool_of_member(flow.member_id);
        match pool.map_or(ServiceDownAction::None, |pool| pool.service_down_action) {
            ServiceDownAction::None => {}
            ServiceDownAction::Drop => self.close(id),
            ServiceDownAction::Reset => {
                self.tell_both(flow, out);
                self.close(id);
            }
            ServiceDownAction::Reselect => self.move_to_another(id, flow, out),
        }
    }

    /// RST to both sides, or port unreachable to the client of a UDP flow.
    fn tell_both(&mut self, flow: &Flow, out: &mut Outgoing) {
        if flow.protocol == protocol::TCP {
            return self.reset_both(flow, out);
        }
        let Some((link, destination)) = self.way_back(flow) else { return };
        let source = self.ports[usize::from(link.port().0)].mac;
        let header = LinkHeader { destination, source, vlan: link.vlan() };
        let Some(asked) = emit::empty_datagram(&self.frames, header, &flow.client_key()) else { return };
        let offender = asked.bytes().get(if link.vlan() == 0 { 14 } else { 18 }..).unwrap_or_default();
        let error = IcmpError::PortUnreachable;
        let frame = emit::icmp_error(&self.frames, header, flow.destination, flow.client, error, offender);
        let _ = self.send_own(frame, link.port(), VirtualId::NONE, out);
    }

    /// The same connection to another member: for members that are themselves on the way (firewalls, routers) and
    /// for UDP. A server that does not know a TCP connection resets it.
    fn move_to_another(&mut self, id: FlowId, flow: &Flow, out: &mut Outgoing) {
        let snapshot = std::sync::Arc::clone(&self.snapshot);
        let Some(item) = snapshot.virtual_by_id(flow.virtual_id) else { return };
        let class = if flow.protocol == protocol::TCP { Class::Tcp } else { Class::Udp };
        let packet = Packet { key: flow.client_key(), class, ..Packet::BLANK };
        let Ok(target) = self.target(item, &packet, &[flow.member_id]) else {
            self.tell_both(flow, out);
            return self.close(id);
        };
        let Some(moved) = self.towards(item, flow, &packet, target) else {
            self.let_go_member(target.member_id);
            self.tell_both(flow, out);
            return self.close(id);
        };
        self.close(id);
        let what = Limited::Virtual(item.id);
        let taken = self.quota.take(what);
        if !taken || self.take_in_moved(moved).is_none() {
            self.let_go_member(target.member_id);
            self.give_back_port(&moved);
            if taken {
                self.quota.give_back(what);
            }
        }
    }

    /// The flow as it is towards `target`; `None` when there is no way there.
    fn towards(&mut self, item: &Virtual, flow: &Flow, packet: &Packet, target: Target) -> Option<Flow> {
        let hop = self.snapshot.route(target.address)?;
        let neighbor = self.neighbors.resolve(hop, self.now).ok()?;
        let (source, has_snat_port) = self.source(item, packet, &target, hop).ok()?;
        let kept = flow.flags & !(flow_flag::SNAT_PORT | flow_flag::RESELECT);
        Some(Flow {
            member_id: target.member_id,
            member: target.address,
            member_port: target.port,
            source: source.0,
            source_port: source.1,
            neighbor,
            flags: kept | if has_snat_port { flow_flag::SNAT_PORT } else { 0 },
            ..*flow
        })
    }

    fn take_in_moved(&mut self, flow: Flow) -> Option<FlowId> {
        let id = self.flows.insert(&flow).ok()?;
        if flow.protocol == protocol::TCP && flow.tcp_state().is_half_open() {
            self.half_open.enter(id);
        }
        let timeout_ms = self.timeout_of(&flow);
        self.timers.arm(id, self.now_ms() + u64::from(timeout_ms));
        self.count_opened(&flow);
        Some(id)
    }
}

/// Flows to look at in one turn of the loop.
const SWEPT_A_TURN: usize = 64;
