//! Statistics: single-writer counters that a worker stores and the control thread loads.
//!
//! A worker's counters live as long as the process, indexed by ids that are stable over applies, so an apply
//! never resets one. Memory is zero pages until an object is used.

use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::Zeroable;
use sluice_ffi::memory::{Backing, Slab};

use crate::config::ids::{MemberId, NodeId, PORTS_MAX, PortId, VirtualId};
use crate::limits::Limits;
use crate::verdict::DropReason;

/// A number that one thread writes and any thread reads. A store is one plain instruction.
#[derive(Debug, Default, Zeroable)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. Only the owning worker calls this.
    #[inline(always)]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Takes `count` off. Only the owning worker calls this.
    #[inline(always)]
    pub fn sub(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(count), Ordering::Relaxed);
    }

    /// Replaces the number. Only the owning worker calls this.
    #[inline(always)]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number now.
    #[inline(always)]
    pub fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Packets and bytes, seen from sluice.
#[derive(Debug, Default, Zeroable)]
#[repr(C)]
pub struct Traffic {
    /// Packets received. A GSO frame counts as the segments it stands for.
    pub packets_in: Counter,
    /// Bytes received, from the IP header on.
    pub bytes_in: Counter,
    /// Packets sent.
    pub packets_out: Counter,
    /// Bytes sent, from the IP header on.
    pub bytes_out: Counter,
}

/// Connections.
#[derive(Debug, Default, Zeroable)]
#[repr(C)]
pub struct Connections {
    /// Open now.
    pub current: Counter,
    /// Opened since start.
    pub total: Counter,
    /// The most that were open at once.
    pub peak: Counter,
}

impl Connections {
    /// One more is open.
    #[inline]
    pub fn open(&self) {
        self.current.add(1);
        self.total.add(1);
        if self.current.load() > self.peak.load() {
            self.peak.set(self.current.load());
        }
    }

    /// One that had ended goes on after all.
    pub fn reopen(&self) {
        self.current.add(1);
    }

    /// One has ended.
    #[inline]
    pub fn close(&self) {
        self.current.sub(1);
    }
}

/// One virtual server's counters on one worker.
#[derive(Debug, Zeroable)]
#[repr(C, align(64))]
pub struct VirtualCounters {
    /// Between clients and sluice.
    pub clientside: Traffic,
    /// Between sluice and members.
    pub serverside: Traffic,
    /// Connections through it.
    pub connections: Connections,
    /// Packets dropped that had matched it, by reason.
    pub drops: [Counter; DropReason::COUNT],
    /// What it did where it speaks HTTP.
    pub http: HttpCounters,
}

/// What a virtual server with HTTP did.
#[derive(Debug, Zeroable)]
#[repr(C)]
pub struct HttpCounters {
    /// Requests whose head was read.
    pub requests: Counter,
    /// Responses by the first digit of their status, 1 to 5; our own, too.
    pub responses: [Counter; 5],
    /// Requests that were none and refused.
    pub refused: Counter,
    /// Requests that went to another member or over another connection because the first had failed.
    pub retries: Counter,
    /// Requests that went over a connection that had waited for them.
    pub reused: Counter,
}

/// One pool member's counters on one worker.
#[derive(Debug, Zeroable)]
#[repr(C, align(64))]
pub struct MemberCounters {
    /// Between sluice and the member.
    pub serverside: Traffic,
    /// Connections to it.
    pub connections: Connections,
    /// The node that its connections count on, and one more; 0 before the first.
    node: Counter,
}

/// One node's counters on one worker, over all members on it.
#[derive(Debug, Zeroable)]
#[repr(C)]
pub struct NodeCounters {
    /// Connections to it.
    pub connections: Connections,
}

/// One port's counters on one worker. Bytes are whole frames here.
#[derive(Debug, Zeroable)]
#[repr(C, align(64))]
pub struct PortCounters {
    /// Frames and their bytes, as the port carried them.
    pub frames: Traffic,
    /// Lost before we read them.
    pub rx_missed: Counter,
    /// Received damaged.
    pub rx_errors: Counter,
    /// Received without memory to hold them.
    pub rx_no_memory: Counter,
    /// Not sendable.
    pub tx_errors: Counter,
    /// Of the first packets, those that the NIC placed as it was told.
    pub hash_right: Counter,
    /// Of the first packets, those that the NIC placed otherwise.
    pub hash_wrong: Counter,
    /// 1 when the link has carrier.
    pub link_up: Counter,
    /// The largest IP packet now, in bytes; 0 where the driver does not notice changes.
    pub mtu: Counter,
}

/// What a worker does with its time.
#[derive(Debug, Zeroable)]
#[repr(C, align(64))]
pub struct LoopCounters {
    /// Turns of the loop.
    pub turns: Counter,
    /// Turns that found work.
    pub busy_turns: Counter,
    /// Times it slept.
    pub sleeps: Counter,
    /// Nanoseconds asleep.
    pub slept_ns: Counter,
    /// The longest turn, in nanoseconds.
    pub longest_turn_ns: Counter,
}

/// Everything one worker counts.
#[derive(Debug)]
pub struct WorkerCounters {
    virtuals: Slab<VirtualCounters>,
    members: Slab<MemberCounters>,
    nodes: Slab<NodeCounters>,
    ports: Slab<PortCounters>,
    drops: Slab<Counter>,
    looped: Slab<LoopCounters>,
    /// Flows in the table now.
    pub flows: Counter,
    /// Of those, TCP flows whose handshake is not complete.
    pub half_open: Counter,
    /// Neighbour entries now.
    pub neighbors: Counter,
    /// Proxied connections now, those to members that wait for a request among them.
    pub proxies: Counter,
    /// Handshakes answered by cookie because as many as may be were half open.
    pub syn_cookies: Counter,
    /// RST and ICMP packets sent of our own accord.
    pub rejects_sent: Counter,
    /// RST and ICMP packets that were due but over the rate.
    pub rejects_limited: Counter,
    /// SNAT ports in use now.
    pub snat_ports: Counter,
    /// Packets given to the worker that owns their flow, though no port could have brought them there: nothing hides
    /// the client, or they are fragments or ICMP errors.
    pub handed_over: Counter,
    /// Packets of translated flows given to the worker that owns them because the port had brought them here.
    pub misdirected: Counter,
    /// ICMP errors passed on to whoever sent the packet they are about.
    pub icmp_errors: Counter,
    /// Connections that went to the member of their persistence record.
    pub persistence_hits: Counter,
    /// Connections that had no persistence record, or whose member could not take them.
    pub persistence_misses: Counter,
    /// Persistence records that had to make room before their time.
    pub persistence_evicted: Counter,
}

impl WorkerCounters {
    /// Counters for up to `limits` objects, all zero.
    pub fn new(limits: &Limits) -> Self {
        Self {
            virtuals: Slab::new(limits.virtual_servers, Backing::Ordinary),
            members: Slab::new(limits.members, Backing::Ordinary),
            nodes: Slab::new(limits.members, Backing::Ordinary),
            ports: Slab::new(PORTS_MAX, Backing::Ordinary),
            drops: Slab::new(DropReason::COUNT, Backing::Ordinary),
            looped: Slab::new(1, Backing::Ordinary),
            flows: Counter::default(),
            half_open: Counter::default(),
            neighbors: Counter::default(),
            proxies: Counter::default(),
            syn_cookies: Counter::default(),
            rejects_sent: Counter::default(),
            rejects_limited: Counter::default(),
            snat_ports: Counter::default(),
            handed_over: Counter::default(),
            misdirected: Counter::default(),
            icmp_errors: Counter::default(),
            persistence_hits: Counter::default(),
            persistence_misses: Counter::default(),
            persistence_evicted: Counter::default(),
        }
    }

    /// A virtual server's; `None` for [`VirtualId::NONE`].
    #[inline(always)]
    pub fn of_virtual(&self, id: VirtualId) -> Option<&VirtualCounters> {
        self.virtuals.get(id.index())
    }

    /// A member's; `None` for [`MemberId::NONE`].
    #[inline(always)]
    pub fn of_member(&self, id: MemberId) -> Option<&MemberCounters> {
        self.members.get(id.index())
    }

    /// A node's; `None` for [`NodeId::NONE`].
    #[inline(always)]
    pub fn of_node(&self, id: NodeId) -> Option<&NodeCounters> {
        self.nodes.get(id.index())
    }

    /// Counts a connection that opens to `member`, which is on `node`.
    #[inline]
    pub fn open_member(&self, member: MemberId, node: NodeId) {
        let Some(counters) = self.of_member(member) else { return };
        counters.connections.open();
        counters.node.set(u64::from(node.0) + 1);
        if let Some(counters) = self.of_node(node) {
            counters.connections.open();
        }
    }

    /// Counts a connection to `member` again that had ended and goes on after all.
    pub fn reopen_member(&self, member: MemberId) {
        let node = self.of_node(self.node_of(member)).map(|counters| &counters.connections);
        let member = self.of_member(member).map(|counters| &counters.connections);
        member.into_iter().chain(node).for_each(Connections::reopen);
    }

    /// Counts the end of a connection to `member`, on the node that it was opened on.
    #[inline]
    pub fn close_member(&self, member: MemberId) {
        let Some(counters) = self.of_member(member) else { return };
        counters.connections.close();
        let node = counters.node.load().checked_sub(1).and_then(|id| self.nodes.get(id as usize));
        if let Some(counters) = node {
            counters.connections.close();
        }
    }

    /// The node that connections to `member` count on.
    #[inline]
    pub fn node_of(&self, member: MemberId) -> NodeId {
        let node = self.of_member(member).and_then(|counters| counters.node.load().checked_sub(1));
        node.map_or(NodeId::NONE, |id| NodeId(id as u32))
    }

    /// A port's.
    ///
    /// # Panics
    /// Never: a `PortId` is below [`PORTS_MAX`].
    #[inline(always)]
    pub fn of_port(&self, id: PortId) -> &PortCounters {
        &self.ports[usize::from(id.0) % PORTS_MAX]
    }

    /// Packets dropped for `reason`, whether or not they had matched a virtual server.
    #[inline(always)]
    pub fn of_drop(&self, reason: DropReason) -> &Counter {
        &self.drops[reason as usize]
    }

    /// The worker's loop.
    pub fn of_loop(&self) -> &LoopCounters {
        &self.looped[0]
    }

    /// Bytes of address space taken; resident only where used.
    pub fn bytes(&self) -> usize {
        self.virtuals.bytes()
            + self.members.bytes()
            + self.nodes.bytes()
            + self.ports.bytes()
            + self.drops.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_a_node_count_on_it_together() {
        let counters = WorkerCounters::new(&Limits { members: 4, virtual_servers: 1, ..Limits::default() });
        let current = || counters.of_node(NodeId(2)).unwrap().connections.current.load();
        counters.open_member(MemberId(0), NodeId(2));
        counters.open_member(MemberId(1), NodeId(2));
        counters.open_member(MemberId(3), NodeId::NONE);
        assert_eq!(current(), 2);
        counters.close_member(MemberId(0));
        counters.close_member(MemberId(3));
        counters.close_member(MemberId::NONE);
        assert_eq!(current(), 1);
        assert_eq!(counters.of_node(NodeId(0)).unwrap().connections.total.load(), 0);
    }
}
