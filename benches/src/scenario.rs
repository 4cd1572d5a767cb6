//! One port, one UDP virtual server, 64 members behind it: the configuration of every bench, and its traffic.
//!
//! ```text
//!   198.18.4.0/22 ports 10000…  ──▶ 10.1.0.100:53 │ sluice 10.1.0.10 │ ──▶ 10.1.1.1…64:5353     one link
//! ```
//!
//! A flow is a number; all of its fields follow from it, so that a generator needs no table of flows. UDP, because
//! its first packet makes a flow that is complete.

use std::sync::Arc;

use sluice_dataplane::access_log::AccessLog;
use sluice_dataplane::address::{Address, Mac, Prefix};
use sluice_dataplane::clock::Clock;
use sluice_dataplane::config::ids::{LinkId, MemberId, PoolId, PortId, VirtualId};
use sluice_dataplane::config::snapshot::{
    Match, Member, Parts, Pool, Protocol, SelfIp, Settings, Snapshot, Snat, Timeouts, Virtual,
};
use sluice_dataplane::counters::WorkerCounters;
use sluice_dataplane::frame::FramePool;
use sluice_dataplane::handoff;
use sluice_dataplane::limits::Limits;
use sluice_dataplane::packet::checksum::{fold, sum};
use sluice_dataplane::persist::PersistenceTable;
use sluice_dataplane::pool::MemberStates;
use sluice_dataplane::port::{PortInfo, PortQueue};
use sluice_dataplane::quota::Quotas;
use sluice_dataplane::runtime::{Idle, WorkerSpec};
use sluice_dataplane::snat::rules::Rules;

/// Length of every frame: the smallest that Ethernet has, frame check sequence not counted.
pub const FRAME_BYTES: usize = 64;
/// Members behind the virtual server, as far as those do; each pair of SNAT address and member has 64,512 ports.
pub const MEMBERS: u32 = 64;
/// Members where there are so many flows that those of [`MEMBERS`] have no ports left.
pub const MEMBERS_MANY: u32 = 250;
/// Our own address, which is also the SNAT address.
pub const SELF_IP: [u8; 4] = [10, 1, 0, 10];
/// The virtual server.
pub const VIRTUAL_IP: [u8; 4] = [10, 1, 0, 100];
/// The virtual server's port.
pub const VIRTUAL_PORT: u16 = 53;
/// The members' port.
pub const MEMBER_PORT: u16 = 5353;
/// The most flows that the addresses allow.
pub const FLOWS_MAX: u32 = 1 << 25;

const LINK: LinkId = LinkId::new(PortId(0), 0);

/// What the configuration is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Of the virtual server: TCP or UDP.
    pub protocol: Protocol,
    /// Flows at once.
    pub flows: u32,
    /// When a flow without packets ends.
    pub idle_ms: u32,
}

impl Shape {
    /// For `flows` UDP flows that live on while others are made.
    pub fn udp(flows: u32) -> Self {
        let idle_ms = if flows > FLOWS_FEW { 600_000 } else { Timeouts::UDP.idle_ms };
        Self { protocol: Protocol::Udp, flows, idle_ms }
    }

    /// Members that it takes.
    pub fn members(&self) -> u32 {
        if self.flows > FLOWS_FEW { MEMBERS_MANY } else { MEMBERS }
    }

    /// The configuration.
    pub fn parts(&self) -> Parts {
        let mut parts = parts();
        let server = virtual_server(0, Address::v4(VIRTUAL_IP), VIRTUAL_PORT, self.protocol);
        parts.virtuals =
            vec![Virtual { timeouts: Timeouts { idle_ms: self.idle_ms, ..server.timeouts }, ..server }];
        parts.pools[0].members = (0..self.members()).map(member).collect();
        parts
    }
}

/// The most flows that the SNAT ports towards [`MEMBERS`] are enough for, with some to spare.
const FLOWS_FEW: u32 = 3_000_000;

/// The configuration.
pub fn parts() -> Parts {
    Parts {
        generation: 1,
        ports: vec!["wire".into()],
        self_ips: vec![SelfIp {
            name: "self".into(),
            address: Address::v4(SELF_IP),
            subnet: Prefix::new(Address::v4(SELF_IP), 16),
            link: LINK,
        }],
        virtuals: vec![virtual_server(0, Address::v4(VIRTUAL_IP), VIRTUAL_PORT, Protocol::Udp)],
        pools: vec![Pool {
            id: PoolId(0),
            name: "members".into(),
            members: (0..MEMBERS).map(member).collect(),
            ..Pool::default()
        }],
        settings: Settings::default(),
        ..Parts::default()
    }
}

/// Virtual server `id` with SNAT, in front of pool 0.
pub fn virtual_server(id: u32, address: Address, port: u16, protocol: Protocol) -> Virtual {
    let destination = Prefix::host(address);
    let any = if address.is_v4() {
        Prefix::new(Address::v4([0; 4]), 0)
    } else {
        Prefix::new(Address::UNSPECIFIED, 0)
    };
    Virtual {
        id: VirtualId(id),
        name: format!("v{id}").into(),
        matches: vec![Match { destination, source: any, port, protocol }],
        pool: Some(PoolId(0)),
        snat: Snat::Automap,
        timeouts: if protocol == Protocol::Udp { Timeouts::UDP } else { Timeouts::TCP },
        ..Virtual::default()
    }
}

fn member(index: u32) -> Member {
    let address = Address::v4([10, 1, 1, 1 + index as u8]);
    Member { id: MemberId(index), address, port: MEMBER_PORT, ..Member::default() }
}

/// Capacities for `flows` flows; the defaults where those do.
pub fn limits(flows: u32) -> Limits {
    let flows = (flows as usize + flows as usize / 4).max(Limits::default().flows);
    Limits { flows, virtual_servers: 1 << 17, ..Limits::default() }
}

/// The first of `workers` workers, with one port and the configuration `parts`.
///
/// # Panics
/// When the kernel has no descriptor left.
pub fn worker(
    parts: Parts,
    flows: u32,
    workers: usize,
    core: Option<usize>,
    port: (PortInfo, Box<dyn PortQueue>),
) -> WorkerSpec {
    let limits = limits(flows);
    let quotas = Arc::new(Quotas::new(&limits, workers));
    let snapshot = Arc::new(Snapshot::build(parts));
    quotas.set_limits(&snapshot);
    let rules = Arc::new(Rules::new(&limits, workers, &snapshot));
    WorkerSpec {
        number: 0,
        workers,
        handoff: handoff::mesh(workers).expect("an event descriptor").remove(0),
        core,
        ports: vec![port],
        frames: FramePool::new(limits.frames),
        limits,
        snapshot,
        quotas,
        members: Arc::new(MemberStates::new(limits.members)),
        persistence: Arc::new(PersistenceTable::new(limits.persistence, limits.members)),
        rates: Arc::default(),
        rules,
        counters: Arc::new(WorkerCounters::new(&limits)),
        peers: Vec::new(),
        access_log: Arc::new(AccessLog::new(0)),
        idle: Idle::Poll,
        clock: Clock::start(),
    }
}

/// Writes 64-byte UDP frames between two link addresses, from a template: a few stores and one sum each.
#[derive(Debug, Clone)]
pub struct FrameWriter {
    template: [u8; FRAME_BYTES],
    ip_sum: u64,
    udp_sum: u64,
}

/// Where the flow's number is in the payload.
const NUMBER_AT: usize = 42;

impl FrameWriter {
    /// Frames of clients to the virtual server.
    pub fn from_clients(from: Mac, to: Mac) -> Self {
        Self::new(from, to, [198, 18, 0, 0], VIRTUAL_IP, VIRTUAL_PORT)
    }

    /// Frames of members to us. The source port is the member's; [`FrameWriter::write_reply`] sets the other.
    pub fn from_members(from: Mac, to: Mac) -> Self {
        Self::new(from, to, [10, 1, 0, 0], SELF_IP, 0)
    }

    fn new(from: Mac, to: Mac, src: [u8; 4], dst: [u8; 4], dst_port: u16) -> Self {
        let mut template = [0; FRAME_BYTES];
        template[..6].copy_from_slice(&to.0);
        template[6..12].copy_from_slice(&from.0);
        template[12..26].copy_from_slice(&[8, 0, 0x45, 0, 0, 50, 0, 1, 0x40, 0, 64, 17, 0, 0]);
        template[26..30].copy_from_slice(&src);
        template[30..34].copy_from_slice(&dst);
        template[36..38].copy_from_slice(&dst_port.to_be_bytes());
        template[38..40].copy_from_slice(&30u16.to_be_bytes());
        let ip_sum = sum(&template[14..34]);
        let udp_sum = sum(&template[26..64]) + 17 + 30;
        Self { template, ip_sum, udp_sum }
    }

    /// The client's packet of `flow`.
    #[inline(always)]
    pub fn write_request(&self, frame: &mut [u8; FRAME_BYTES], flow: u32) {
        let (host, port) = client(flow);
        self.write(frame, flow, host, port, None);
    }

    /// The member's packet of `flow`, as the member saw it: `seen` is what its request had come from.
    #[inline(always)]
    pub fn write_reply(&self, frame: &mut [u8; FRAME_BYTES], flow: u32, seen: Seen) {
        self.write(frame, flow, seen.member, MEMBER_PORT, Some(seen.source_port));
    }

    #[inline(always)]
    fn write(
        &self,
        frame: &mut [u8; FRAME_BYTES],
        flow: u32,
        host: u16,
        src_port: u16,
        dst_port: Option<u16>,
    ) {
        *frame = self.template;
        let number = u64::from(flow >> 16) + u64::from(flow & 0xffff);
        let host_sum = u64::from(host);
        let ports = u64::from(src_port) + u64::from(dst_port.unwrap_or(0));
        frame[24..26].copy_from_slice(&(!fold(self.ip_sum + host_sum)).to_be_bytes());
        frame[28..30].copy_from_slice(&host.to_be_bytes());
        frame[34..36].copy_from_slice(&src_port.to_be_bytes());
        if let Some(port) = dst_port {
            frame[36..38].copy_from_slice(&port.to_be_bytes());
        }
        let checksum = !fold(self.udp_sum + host_sum + ports + number);
        let checksum = if checksum == 0 { 0xffff } else { checksum };
        frame[40..42].copy_from_slice(&checksum.to_be_bytes());
        frame[NUMBER_AT..NUMBER_AT + 4].copy_from_slice(&flow.to_be_bytes());
    }
}

/// Low half of the client's address, and its port.
#[inline(always)]
pub const fn client(flow: u32) -> (u16, u16) {
    (0x0400 | (flow & 0x3ff) as u16, 10_000 + (flow >> 10) as u16)
}

/// The flow that comes at place `number` when client ports are to vary first, as those of many clients do.
#[inline(always)]
pub const fn spread(number: u32) -> u32 {
    (number & 0x7fff) << 10 | number >> 15 & 0x3ff
}

/// What a member saw of a flow: low half of the member's address, and the port its packets came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// 0x0101 to 0x01fa; 0 before anything was seen.
    pub member: u16,
    /// Chosen by sluice.
    pub source_port: u16,
}

/// The number of the flow that a frame belongs to.
#[inline(always)]
pub fn flow_of(frame: &[u8; FRAME_BYTES]) -> u32 {
    u32::from_be_bytes([frame[NUMBER_AT], frame[NUMBER_AT + 1], frame[NUMBER_AT + 2], frame[NUMBER_AT + 3]])
}

/// True when the frame's addresses and ports are those of a translated request. Two loads.
#[inline(always)]
pub fn is_request_at_member(frame: &[u8; FRAME_BYTES]) -> bool {
    frame[26..30] == SELF_IP && frame[30..33] == [10, 1, 1] && frame[36..38] == MEMBER_PORT.to_be_bytes()
}

/// True when the frame's addresses and ports are those of the flow's translated reply.
#[inline(always)]
pub fn is_reply_at_client(frame: &[u8; FRAME_BYTES]) -> bool {
    let (host, port) = client(flow_of(frame));
    frame[26..30] == VIRTUAL_IP
        && frame[30..32] == [198, 18]
        && frame[32..34] == host.to_be_bytes()
        && frame[34..36] == VIRTUAL_PORT.to_be_bytes()
        && frame[36..38] == port.to_be_bytes()
}

/// What the member sees of the flow in a translated request.
#[inline(always)]
pub fn seen_in(frame: &[u8; FRAME_BYTES]) -> Seen {
    let half = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    Seen { member: half(32), source_port: half(34) }
}

/// True when both checksums are right and the TTL is what one hop leaves.
pub fn is_sound(frame: &[u8; FRAME_BYTES]) -> bool {
    let ip = fold(sum(&frame[14..34])) == 0xffff;
    let udp = fold(sum(&frame[26..64]) + 17 + 30) == 0xffff;
    ip && udp && frame[22] == 63
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_dataplane::packet::build::assert_checksums;

    #[test]
    fn frames_are_what_they_say() {
        let (from, to) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let mut frame = [0; FRAME_BYTES];
        for flow in (0..2_000_000).step_by(997) {
            FrameWriter::from_clients(from, to).write_request(&mut frame, flow);
            assert_checksums(&frame);
            assert_eq!(flow_of(&frame), flow);
            let seen = Seen { member: 0x0107, source_port: flow as u16 | 1024 };
            FrameWriter::from_members(from, to).write_reply(&mut frame, flow, seen);
            assert_checksums(&frame);
            assert_eq!(
                (&frame[26..30], &frame[34..36]),
                (&[10, 1, 1, 7][..], &MEMBER_PORT.to_be_bytes()[..])
            );
        }
    }

    #[test]
    fn spread_flows_are_all_different() {
        let flows: std::collections::HashSet<_> = (0..200_000).map(|n| spread(n * 167 % FLOWS_MAX)).collect();
        assert_eq!(flows.len(), 200_000);
        assert!((0..32_768).map(|n| client(spread(n)).1).is_sorted(), "ports first");
        assert_eq!(spread(FLOWS_MAX), spread(0));
    }

    #[test]
    fn there_are_ports_for_all_flows() {
        for flows in [1_000, FLOWS_FEW, 8_000_000, 10_000_000] {
            assert!(Shape::udp(flows).members() * 64_512 > flows + flows / 4, "{flows}");
        }
    }

    #[test]
    fn no_two_flows_share_a_client() {
        let clients: std::collections::HashSet<_> = (0..100_000).map(client).collect();
        assert_eq!(clients.len(), 100_000);
    }
}
