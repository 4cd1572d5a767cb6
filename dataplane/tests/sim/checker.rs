//! What must hold in every world, at every moment and at the end.
//!
//! ```text
//!   frames in = forwarded + dropped + heard (ARP, ND) + waiting          over all workers, whenever they are quiet
//! ```

use std::collections::{BTreeMap, BTreeSet};

use sluice_dataplane::address::{Address, Mac};
use sluice_dataplane::config::ids::{MemberId, PortId, VirtualId};
use sluice_dataplane::config::snapshot::Parts;
use sluice_dataplane::packet::parse::{Class, Parsed, parse};
use sluice_dataplane::query::FlowInfo;
use sluice_dataplane::verdict::DropReason;

use super::member::Suspect;
use super::node::Node;
use super::schedule::Plan;
use super::setup::{self, MEMBERS_MAX, VIRTUALS_MAX};
use super::wire::{Heard, TCP};
use crate::world::{EXTERNAL, EXTERNAL_MAC, INTERNAL_MAC};

pub struct Checker {
    pub violations: Vec<String>,
    /// Frames that sluice was given, and of those ARP and neighbour discovery.
    entered: u64,
    neighbors_entered: u64,
    /// Frames that came out and had come in.
    forwarded: u64,
    damaging: bool,
    /// A SYN that comes again under another configuration opens a second flow where nothing is translated.
    pub has_changed: bool,
    virtual_limits: Vec<(VirtualId, u64)>,
    member_limits: Vec<(MemberId, u64)>,
    flows_max: usize,
    half_open_max: usize,
}

impl Checker {
    pub fn new(plan: &Plan) -> Self {
        let share = plan.share();
        Self {
            violations: Vec::new(),
            entered: 0,
            neighbors_entered: 0,
            forwarded: 0,
            damaging: plan.weather.corrupts > 0,
            has_changed: false,
            virtual_limits: virtual_limits(&plan.parts),
            member_limits: member_limits(&plan.parts),
            flows_max: share.flows,
            half_open_max: share.half_open,
        }
    }

    /// Believes every limit to be one less, to show that a limit passed by one is seen.
    pub fn tighten(&mut self) {
        self.virtual_limits.iter_mut().for_each(|(_, limit)| *limit -= 1);
        self.member_limits.iter_mut().for_each(|(_, limit)| *limit -= 1);
    }

    /// What is not in `parts` has no limit any more: a worker that has not heard yet may take what others gave back.
    pub fn keep_limits_of(&mut self, parts: &Parts) {
        let (virtuals, members) = (virtual_limits(parts), member_limits(parts));
        self.virtual_limits.retain(|(id, _)| virtuals.iter().any(|(kept, _)| kept == id));
        self.member_limits.retain(|(id, _)| members.iter().any(|(kept, _)| kept == id));
    }

    pub fn violated(&mut self, what: impl Into<String>) {
        if self.violations.len() < VIOLATIONS_SHOWN {
            self.violations.push(what.into());
        }
    }

    pub fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violated(what());
        }
    }

    /// A frame goes into a worker's queue.
    pub fn entered(&mut self, port: PortId, bytes: &[u8]) {
        self.entered += 1;
        self.neighbors_entered += u64::from(is_neighbor_message(port, bytes));
    }

    /// A frame came out of a port.
    pub fn left(&mut self, port: PortId, bytes: &[u8], heard: &Heard) {
        let is_own = match heard {
            Heard::Transport(packet) => packet.protocol == TCP && packet.window == 0,
            Heard::Error { own, .. } => *own,
            Heard::Asked { .. } | Heard::News => true,
            Heard::Echo { .. } | Heard::Damaged | Heard::Other => false,
        };
        self.forwarded += u64::from(!is_own);
        let source = Mac(bytes[6..12].try_into().unwrap());
        let ours = if port == EXTERNAL { EXTERNAL_MAC } else { INTERNAL_MAC };
        self.expect(source == ours, || format!("a frame from {source} left by port {}", port.0));
        let is_laundered = matches!(heard, Heard::Error { whole: false, .. });
        self.expect(!is_laundered, || "a damaged error was passed on with a right checksum".into());
        if !self.damaging {
            let is_whole = !matches!(heard, Heard::Damaged | Heard::Other);
            self.expect(is_whole, || format!("a damaged frame left: {bytes:02x?}"));
        }
    }

    /// A packet to `host` on its link: it must carry the host's link address.
    pub fn check_link(&mut self, to: Mac, host: Address, port: PortId) {
        let right = to == setup::mac_of(host) && setup::is_inside(host) == (port != EXTERNAL);
        // Clients are answered where their last packet seemed to come from.
        self.expect(right || self.damaging, || format!("a packet to {host} went to {to} on port {}", port.0));
    }

    /// After every step: no limit is passed, every frame has its fate.
    pub fn check_now(&mut self, nodes: &[Node], waiting: usize) {
        self.check_balance(nodes, waiting);
        self.check_limits(nodes);
    }

    fn check_balance(&mut self, nodes: &[Node], waiting: usize) {
        let total =
            |reason: &DropReason| nodes.iter().map(|node| node.counters.of_drop(*reason).load()).sum::<u64>();
        let frames = DropReason::ALL.iter().filter(|reason| !NO_FRAME_OF_THEIRS.contains(reason));
        let dropped: u64 = frames.map(total).sum();
        let fates = self.neighbors_entered + self.forwarded + dropped + waiting as u64;
        // A SYN that is kept for another member is a second frame, which may wait for its neighbour too.
        let copies = total(&DropReason::Reselected);
        let missing = (self.entered + copies).checked_sub(fates);
        let kept = if copies == 0 { 0 } else { nodes.iter().map(Node::own_frames).sum() };
        let (entered, forwarded, heard) = (self.entered, self.forwarded, self.neighbors_entered);
        self.expect(missing.is_some_and(|missing| missing <= kept), || {
            format!(
                "{entered} frames in and {copies} copies, {forwarded} forwarded, {dropped} dropped, {heard} of neighbours, {waiting} wait"
            )
        });
    }

    fn check_limits(&mut self, nodes: &[Node]) {
        for (id, limit) in self.virtual_limits.clone() {
            let open = nodes.iter().map(|node| node.open_by_virtual(id)).sum::<u64>();
            self.expect(open <= limit, || format!("virtual server {} has {open} of {limit}", id.0));
        }
        for (id, limit) in self.member_limits.clone() {
            let open = nodes.iter().map(|node| node.open_by_member(id)).sum::<u64>();
            self.expect(open <= limit, || format!("member {} has {open} of {limit}", id.0));
        }
    }

    /// Now and then: every flow of every worker is looked at.
    pub fn sweep(&mut self, nodes: &mut [Node], now: u64) {
        let (mut clients, mut members, mut open) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        for node in nodes.iter_mut() {
            let flows = node.flows(now);
            let half = flows.iter().filter(|flow| flow.state.starts_with("syn-")).count();
            let (count, half_max, max) = (flows.len(), self.half_open_max, self.flows_max);
            self.expect(count <= max, || format!("{count} flows of {max}"));
            self.expect(half <= half_max, || format!("{half} half-open flows of {half_max}"));
            let known = node.neighbors(now);
            let max = node.limits.neighbors;
            self.expect(known <= max, || format!("{known} neighbours of {max}"));
            for flow in flows {
                let client = (flow.client, flow.destination, flow.protocol);
                let member = (flow.member, flow.source, flow.protocol);
                let is_new = clients.insert(client) & members.insert(member);
                let is_moved = self.has_changed && flow.source == flow.client;
                self.expect(is_new || is_moved, || format!("two flows have the same ends: {flow:?}"));
                *open.entry(flow.virtual_id.0).or_insert(0u64) += u64::from(flow.state != "closing");
            }
        }
        for id in 0..VIRTUALS_MAX as u32 {
            let gauge: u64 = nodes.iter().map(|node| node.open_by_virtual(VirtualId(id))).sum();
            let flows = open.get(&id).copied().unwrap_or(0);
            self.expect(gauge == flows, || format!("virtual server {id} counts {gauge} of {flows} flows"));
        }
    }

    /// A source that a member has for another client: its first flow must be gone.
    pub fn check_suspect(&mut self, nodes: &mut [Node], suspect: &Suspect, now: u64) {
        let is_old = |flow: &FlowInfo| {
            flow.client == suspect.client
                && flow.destination == suspect.asked
                && flow.source == suspect.source
                && flow.member == suspect.member
        };
        let has_old = nodes.iter_mut().any(|node| node.flows(now).iter().any(is_old));
        self.expect(!has_old, || format!("one source for two connections: {suspect:?}"));
    }

    /// After every timeout has passed: nothing is left.
    pub fn check_end(&mut self, nodes: &mut [Node], waiting: usize, now: u64) {
        self.sweep(nodes, now);
        self.expect(waiting == 0, || format!("{waiting} frames were never given back"));
        for (number, node) in nodes.iter_mut().enumerate() {
            let left = node.flows(now);
            self.expect(left.is_empty(), || format!("worker {number} still has {left:?}"));
            for (name, count) in node.leftovers() {
                self.expect(count == 0, || format!("worker {number} ends with {count} {name}"));
            }
            for id in 0..VIRTUALS_MAX as u32 {
                let open = node.open_by_virtual(VirtualId(id));
                self.expect(open == 0, || format!("worker {number}: virtual server {id} ends with {open}"));
            }
            for id in 0..MEMBERS_MAX as u32 {
                let open = node.open_by_member(MemberId(id));
                self.expect(open == 0, || format!("worker {number}: member {id} ends with {open}"));
            }
        }
        self.check_peaks(nodes);
    }

    /// The peaks show what was only so between two looks.
    fn check_peaks(&mut self, nodes: &[Node]) {
        if nodes.len() > 1 {
            return;
        }
        for (id, limit) in self.virtual_limits.clone() {
            let peak =
                nodes[0].counters.of_virtual(id).map_or(0, |counters| counters.connections.peak.load());
            self.expect(peak <= limit, || format!("virtual server {} had {peak} of {limit}", id.0));
        }
        for (id, limit) in self.member_limits.clone() {
            let peak = nodes[0].counters.of_member(id).map_or(0, |counters| counters.connections.peak.load());
            self.expect(peak <= limit, || format!("member {} had {peak} of {limit}", id.0));
        }
    }
}

fn virtual_limits(parts: &Parts) -> Vec<(VirtualId, u64)> {
    let limited = parts.virtuals.iter().filter(|item| item.connection_limit > 0);
    limited.map(|item| (item.id, u64::from(item.connection_limit))).collect()
}

fn member_limits(parts: &Parts) -> Vec<(MemberId, u64)> {
    let members = parts.pools.iter().flat_map(|pool| &pool.members);
    let limited = members.filter(|member| member.connection_limit > 0);
    limited.map(|member| (member.id, u64::from(member.connection_limit))).collect()
}

/// ARP and neighbour discovery: answered, learnt from, or dropped for a reason of its own.
fn is_neighbor_message(port: PortId, bytes: &[u8]) -> bool {
    let mac = if port == EXTERNAL { EXTERNAL_MAC } else { INTERNAL_MAC };
    match parse(bytes, mac) {
        Ok(Parsed::Arp { vlan, .. }) => vlan == 0,
        Ok(Parsed::Ip(packet)) => {
            let kind = bytes.get(usize::from(packet.l4)).copied().unwrap_or_default();
            packet.class == Class::Icmp
                && packet.vlan == 0
                && !packet.key.src.is_v4()
                && matches!(kind, 135 | 136)
        }
        Ok(Parsed::Fragment(_)) | Err(_) => false,
    }
}

/// Reasons that are not the fate of a frame that came in (a flow that made room, a reply without memory), or of one
/// that is counted as a neighbour's message.
const NO_FRAME_OF_THEIRS: [DropReason; 5] = [
    DropReason::HalfOpenFull,
    DropReason::NoFrame,
    DropReason::NeighborNotOurs,
    DropReason::MalformedNeighbor,
    DropReason::AddressConflict,
];
const VIOLATIONS_SHOWN: usize = 8;
