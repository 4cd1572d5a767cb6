//! ICMP errors about our flows: to whoever sent the packet that the error is about.

use crate::config::ids::{LinkId, PortId, VirtualId};
use crate::flow::table::FlowId;
use crate::flow::{Direction, flow_flag};
use crate::frame::{Checksum, Frame};
use crate::outgoing::Outgoing;
use crate::owner::HOPS_MAX;
use crate::packet::emit::IcmpError;
use crate::packet::icmp::{self, Quoted};
use crate::packet::parse::Packet;
use crate::packet::rewrite::{self, LinkHeader};
use crate::pipeline::{Fate, Pipeline};
use crate::query_flow::{ICMP_WORKER, is_echo};
use crate::verdict::DropReason;

impl Pipeline {
    /// An ICMP error: finds the flow by the packet it quotes, and passes it on in that flow's words.
    pub(crate) fn icmp_error_received(
        &mut self,
        port: PortId,
        frame: &mut Frame,
        packet: &Packet,
        out: &mut Outgoing,
    ) -> Fate {
        if frame.offload.checksum == Checksum::Unchecked && !icmp::is_intact(frame.bytes(), packet) {
            return self.dropped(DropReason::Malformed, VirtualId::NONE);
        }
        let Some(quoted) = icmp::quoted(frame.bytes(), packet) else {
            return self.dropped(DropReason::IcmpUnmatched, VirtualId::NONE);
        };
        // The quoted packet left us; its answer would come as the reverse.
        let key = quoted.key.reversed();
        let Some((id, direction)) = self.flows.find(&key, self.flows.hash(&key)) else {
            if let Some(index) = self.proxies.ends.find(&key) {
                return self.proxy_error(index, frame, packet, &quoted);
            }
            return self.strange_error(LinkId::new(port, packet.vlan), &quoted);
        };
        if packet.ttl <= 1 {
            return self.refuse_with_icmp(
                port,
                frame,
                packet,
                DropReason::TtlExpired,
                IcmpError::TimeExceeded,
                out,
            );
        }
        let refused = direction == Direction::FromMember && self.flows.at_mut(id).has(flow_flag::RESELECT);
        if refused && let Some(fate) = self.try_another(id, out) {
            return fate;
        }
        self.pass_error_on(frame, packet, &quoted, id, direction)
    }

    /// About no flow, or about one of another worker: the one that the answer to the quoted packet belongs to.
    fn strange_error(&self, link: LinkId, quoted: &Quoted) -> Fate {
        let (key, snapshot) = (quoted.key.reversed(), &self.snapshot);
        if is_echo(&key) && self.worker != ICMP_WORKER {
            return Fate::HandOver(ICMP_WORKER);
        }
        let matched = snapshot.match_virtual(&key, link);
        let matched = matched.filter(|item| snapshot.may_take(item, key.dst));
        let owner = self.passage_to_ask(&key).unwrap_or_else(|| self.home(matched, &key).worker());
        if owner != self.worker && self.trail.hops < HOPS_MAX {
            return Fate::HandOver(owner);
        }
        self.dropped(DropReason::IcmpUnmatched, VirtualId::NONE)
    }

    /// Gives the error to the end of flow `id` that answers from `direction` go to, in that end's words.
    pub(crate) fn pass_error_on(
        &mut self,
        frame: &mut Frame,
        packet: &Packet,
        quoted: &Quoted,
        id: FlowId,
        direction: Direction,
    ) -> Fate {
        let flow = *self.flows.at_mut(id);
        let to = flow.outgoing_key(direction);
        // From the end of the flow itself, or towards a member that knows only our address; routers keep their own.
        let hides_client = direction == Direction::FromClient && flow.source != flow.client;
        let src = if hides_client || packet.key.src == quoted.key.dst { to.src } else { packet.key.src };
        let way = match direction {
            Direction::FromMember if flow.has(flow_flag::AUTO_LAST_HOP) => {
                Some((flow.client_link, flow.client_mac))
            }
            Direction::FromMember | Direction::FromClient => {
                let hop = self.snapshot.route(to.dst);
                let neighbor = hop.and_then(|hop| self.neighbors.resolve(hop, self.now).ok());
                neighbor.and_then(|neighbor| self.neighbors.mac(neighbor))
            }
        };
        let Some((link, mac)): Option<(LinkId, _)> = way else {
            return self.dropped(DropReason::NeighborUnresolved, flow.virtual_id);
        };
        frame.truncate(usize::from(packet.l3) + packet.ip_len as usize);
        icmp::translate(frame.bytes_mut(), packet, quoted, (src, to.dst), &to.reversed());
        frame.offload.checksum = Checksum::Verified;
        let source = self.ports[usize::from(link.port().0)].mac;
        let header = LinkHeader { destination: mac, source, vlan: link.vlan() };
        if !rewrite::set_link_header(frame, packet.l3, packet.key.src.is_v4(), header) {
            return self.dropped(DropReason::NoFrame, flow.virtual_id);
        }
        self.counters.icmp_errors.add(1);
        Fate::Send(link.port())
    }
}
