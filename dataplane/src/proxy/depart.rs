//! What goes out: the packets that the engine has to send, each into a frame with its link header.

use super::end::{End, Way};
use crate::address::{Address, Mac};
use crate::config::ids::LinkId;
use crate::flow::Direction;
use crate::frame::{Checksum, Frame, FramePool, SegmentKind, Segmentation};
use crate::neighbor::NeighborRef;
use crate::outgoing::Outgoing;
use crate::packet::checksum::{fold, sum};
use crate::packet::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, protocol};
use crate::packet::rewrite::{LinkHeader, write_link_header};
use crate::pipeline::Pipeline;
use crate::tcp::{ConnId, Engine, Sink};
use crate::verdict::DropReason;

impl Pipeline {
    /// Sends what the connection has to send. True when there may be more than fits now.
    pub(crate) fn depart(&mut self, conn: ConnId, out: &mut Outgoing) -> bool {
        if !self.proxies.engine.has_output(conn, self.now) {
            return false;
        }
        let Some(end) = self.proxies.ends.at(conn.index).copied() else { return false };
        let Some((link, mac)) = self.way_of(&end) else {
            self.count_drop(DropReason::NoRoute, end.virtual_id);
            return false;
        };
        let port = link.port();
        let Some(facts) = self.ports.get(usize::from(port.0)).copied() else { return false };
        let mut departure = Departure {
            frames: &self.frames,
            burst: out,
            waiting: Vec::new(),
            header: LinkHeader { destination: mac, source: facts.mac, vlan: link.vlan() },
            link,
            ends: (end.key.dst, end.key.src),
            path_mtu: end.path_mtu.min(facts.mtu),
            next: self.proxies.frame.take(),
            is_known: mac != Mac::default(),
            packets: 0,
            bytes: 0,
        };
        let more = self.proxies.engine.transmit(conn, &mut departure, self.now);
        let (packets, bytes) = (departure.packets, departure.bytes);
        let Departure { waiting, next, .. } = departure;
        self.proxies.frame = next;
        self.count_sent(&end, packets, bytes);
        if !waiting.is_empty() {
            self.wait_for_neighbor(&end, waiting);
        }
        more
    }

    /// Where its packets go; no link address while the next hop has not answered.
    fn way_of(&mut self, end: &End) -> Option<(LinkId, Mac)> {
        let neighbor = match end.way {
            Way::LastHop(link, mac) => return Some((link, mac)),
            Way::By(neighbor) if end.epoch == self.epoch => neighbor,
            Way::By(_) => NeighborRef::NONE,
        };
        if let Some(known) = self.neighbors.mac(neighbor) {
            return Some(known);
        }
        let hop = self.snapshot.route(end.key.src)?;
        let neighbor = self.neighbors.resolve(hop, self.now).ok()?;
        let epoch = self.epoch;
        if let Some(end) = self.proxies.ends.at_mut(end.conn.index) {
            (end.way, end.epoch) = (Way::By(neighbor), epoch);
        }
        Some(self.neighbors.mac(neighbor).unwrap_or((hop.link, Mac::default())))
    }

    /// Leaves packets with their next hop until that answers; what does not fit the peer will ask for again.
    #[cold]
    fn wait_for_neighbor(&mut self, end: &End, frames: Vec<Frame>) {
        let way = self.proxies.ends.at(end.conn.index).map(|end| end.way);
        for frame in frames {
            match way {
                Some(Way::By(neighbor)) if neighbor != NeighborRef::NONE => {
                    if let Err((_, reason)) = self.neighbors.wait(neighbor, frame) {
                        self.count_drop(reason, end.virtual_id);
                    }
                }
                _ => self.count_drop(DropReason::NoRoute, end.virtual_id),
            }
        }
    }

    fn count_sent(&self, end: &End, packets: u64, bytes: u64) {
        let from = if end.is_client { Direction::FromMember } else { Direction::FromClient };
        if let Some(counters) = self.counters.of_virtual(end.virtual_id) {
            let side = match from {
                Direction::FromMember => &counters.clientside,
                Direction::FromClient => &counters.serverside,
            };
            side.packets_out.add(packets);
            side.bytes_out.add(bytes);
        }
        if let Some(counters) = self.counters.of_member(end.member_id) {
            counters.serverside.packets_out.add(packets);
            counters.serverside.bytes_out.add(bytes);
        }
    }
}

/// Takes what one connection sends.
struct Departure<'a> {
    frames: &'a FramePool,
    burst: &'a mut Outgoing,
    waiting: Vec<Frame>,
    header: LinkHeader,
    link: LinkId,
    /// Our address and the peer's.
    ends: (Address, Address),
    next: Option<Frame>,
    path_mtu: u16,
    /// The link address of the next hop is known.
    is_known: bool,
    packets: u64,
    bytes: u64,
}

impl Sink for Departure<'_> {
    fn has_room(&mut self) -> bool {
        if !self.burst.takes_own(self.link.port()) || self.waiting.len() >= WAITING_MAX {
            return false;
        }
        self.next = self.next.take().or_else(|| self.frames.take());
        self.next.is_some()
    }

    fn largest(&self) -> usize {
        LARGEST
    }

    fn packet(&mut self, len: usize, segment: Option<u16>, fill: impl FnOnce(&mut [u8])) {
        let is_v4 = self.ends.0.is_v4();
        let l3 = if self.header.vlan == 0 { ETHERNET } else { TAGGED };
        let Some(mut frame) = self.next.take() else { return };
        frame.set_len(l3 + len);
        let bytes = frame.bytes_mut();
        write_link_header(bytes, self.header, if is_v4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 });
        fill(&mut bytes[l3..]);
        let l4 = l3 + if is_v4 { 20 } else { 40 };
        let pseudo = self.pseudo_sum((l3 + len - l4) as u64);
        bytes[l4 + CHECKSUM_AT..l4 + CHECKSUM_AT + 2].copy_from_slice(&pseudo.to_be_bytes());
        let segment = self.fit(&bytes[l4..], len, l4 - l3, segment);
        frame.offload.checksum = Checksum::Partial { start: l4 as u16, offset: CHECKSUM_AT as u16 };
        frame.offload.segmentation = segment.map(|payload_bytes| Segmentation {
            kind: if is_v4 { SegmentKind::Tcp4 } else { SegmentKind::Tcp6 },
            ecn: false,
            payload_bytes,
        });
        self.packets += segment.map_or(1, |each| (len as u64).div_ceil(u64::from(each.max(1))).max(1));
        self.bytes += len as u64;
        if !self.is_known {
            self.waiting.push(frame);
        } else if self.burst.push(self.link.port(), frame).is_err() {
            debug_assert!(false, "there was room");
        }
    }
}

impl Departure<'_> {
    /// Segments of a size that the path takes: a receiver does not mind where a stream is cut.
    fn fit(&self, segment: &[u8], len: usize, ip_header: usize, each: Option<u16>) -> Option<u16> {
        let header = segment.get(12).map_or(20, |byte| usize::from(byte >> 4) * 4);
        let payload = len.saturating_sub(ip_header + header);
        let room = usize::from(self.path_mtu).saturating_sub(ip_header + header);
        let now = each.map_or(payload, usize::from);
        if now > room { Some(room as u16) } else { each }
    }

    fn pseudo_sum(&self, len: u64) -> u16 {
        let (src, dst) = self.ends;
        let addresses = match src.is_v4() {
            true => sum(&src.v4_octets()) + sum(&dst.v4_octets()),
            false => sum(&src.v6_octets()) + sum(&dst.v6_octets()),
        };
        fold(addresses + u64::from(protocol::TCP) + len)
    }
}

/// Frames of one connection that wait for its next hop at a time.
const WAITING_MAX: usize = 4;
/// A whole IPv4 packet.
const LARGEST: usize = 65_535;
const CHECKSUM_AT: usize = 16;
const ETHERNET: usize = 14;
const TAGGED: usize = 18;
