//! The address and port that a member sees.

use crate::address::Address;
use crate::config::snapshot::{Snat, SourcePort, Virtual};
use crate::flow::{Flow, flow_flag};
use crate::packet::parse::Packet;
use crate::pipeline::Pipeline;
use crate::route::NextHop;
use crate::select::Target;
use crate::snat::ports::Pair;
use crate::verdict::DropReason;

impl Pipeline {
    /// The address and port that the member will see, and whether the port is from the SNAT ports.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn source(
        &mut self,
        virtual_server: &Virtual,
        packet: &Packet,
        target: &Target,
        hop: NextHop,
    ) -> Result<((Address, u16), bool), DropReason> {
        let client = (packet.key.src, packet.key.src_port);
        let address = match self.snapshot.snat_of(virtual_server, client.0) {
            Snat::None | Snat::List(_) => return Ok((client, false)),
            Snat::Automap => self.snapshot.self_ip_towards(hop.link, hop.address),
            Snat::Pool(place) => self.next_snat_address(place, target.address),
        };
        let address = address.ok_or(DropReason::NoSnatAddress)?;
        let protocol = packet.key.protocol;
        let pair = Pair { address, member: target.address, member_port: target.port, protocol };
        let port = self.source_port(virtual_server.source_port, pair, client.1)?;
        Ok(((address, port), true))
    }

    fn source_port(&mut self, choice: SourcePort, pair: Pair, wanted: u16) -> Result<u16, DropReason> {
        match choice {
            SourcePort::Preserve if self.snat.take_exactly(pair, wanted) => Ok(wanted),
            SourcePort::PreserveStrict if self.snat.take_strictly(pair, wanted) => Ok(wanted),
            SourcePort::PreserveStrict => Err(DropReason::SnatPortTaken),
            SourcePort::Preserve | SourcePort::Change => {
                self.snat.take(pair).map_err(|_| DropReason::SnatExhausted)
            }
        }
    }

    /// The next address in turn of a SNAT pool, of the member's family.
    fn next_snat_address(&mut self, place: usize, member: Address) -> Option<Address> {
        let addresses = &self.snapshot.parts().snat_pools.get(place)?.addresses;
        let first = self.snat_cursor;
        self.snat_cursor = first.wrapping_add(1);
        let mut in_turn =
            (0..addresses.len()).map(|step| addresses[first.wrapping_add(step) % addresses.len()]);
        in_turn.find(|address| address.is_v4() == member.is_v4())
    }

    /// Gives back the port that the flow had of the SNAT ports.
    pub(crate) fn give_back_port(&mut self, flow: &Flow) {
        if flow.has(flow_flag::SNAT_PORT) {
            let pair = Pair {
                address: flow.source,
                member: flow.member,
                member_port: flow.member_port,
                protocol: flow.protocol,
            };
            self.snat.release(pair, flow.source_port);
        }
    }
}
