//! The address and port that a member sees.

use crate::address::Address;
use crate::config::snapshot::{Snapshot, Snat, SourcePort, Virtual};
use crate::flow::{Flow, flow_flag};
use crate::packet::parse::Packet;
use crate::pipeline::Pipeline;
use crate::route::NextHop;
use crate::select::Target;
use crate::snat::ports::Pair;
use crate::verdict::DropReason;
use crate::way::Way;

/// What a connection asks of a SNAT address.
struct Asked<'a> {
    choice: SourcePort,
    /// The client's port.
    wanted: u16,
    target: &'a Target,
    protocol: u8,
}

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
        self.source_by(virtual_server, packet, target, &Way::by(hop))
    }

    /// As [`Pipeline::source`], on a way that was found.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn source_by(
        &mut self,
        virtual_server: &Virtual,
        packet: &Packet,
        target: &Target,
        way: &Way,
    ) -> Result<((Address, u16), bool), DropReason> {
        let client = (packet.key.src, packet.key.src_port);
        let (choice, protocol) = (virtual_server.source_port, packet.key.protocol);
        let asked = Asked { choice, wanted: client.1, target, protocol };
        let source = match self.snapshot.snat_of(virtual_server, client.0) {
            Snat::None | Snat::List(_) => return Ok((client, false)),
            Snat::Automap => {
                let address = self.own_address(way).ok_or(DropReason::NoSnatAddress)?;
                self.source_at(address, &asked)
            }
            Snat::Pool(place) => self.source_of_pool(place, &asked),
        };
        source.map(|source| (source, true))
    }

    /// From the next address in turn of a SNAT pool, of the member's family, that has a port for the member.
    fn source_of_pool(&mut self, place: usize, asked: &Asked) -> Result<(Address, u16), DropReason> {
        let snapshot = self.borrow_snapshot();
        let source = self.source_of_addresses(&snapshot, place, asked);
        self.return_snapshot(snapshot);
        source
    }

    fn source_of_addresses(
        &mut self,
        snapshot: &Snapshot,
        place: usize,
        asked: &Asked,
    ) -> Result<(Address, u16), DropReason> {
        let pool = snapshot.parts().snat_pools.get(place).ok_or(DropReason::NoSnatAddress)?;
        let first = self.snat_cursor.checked_rem(pool.addresses.len()).unwrap_or(0);
        self.snat_cursor = self.snat_cursor.wrapping_add(1);
        let in_turn = pool.addresses[first..].iter().chain(&pool.addresses[..first]);
        let of_family = in_turn.filter(|address| address.is_v4() == asked.target.address.is_v4());
        let mut why_not = DropReason::NoSnatAddress;
        for address in of_family.take(ADDRESSES_TRIED) {
            match self.source_at(*address, asked) {
                Ok(source) => return Ok(source),
                Err(_) if why_not == DropReason::SnatUnsettled => {}
                Err(reason) => why_not = reason,
            }
        }
        Err(why_not)
    }

    fn source_at(&mut self, address: Address, asked: &Asked) -> Result<(Address, u16), DropReason> {
        let Target { address: member, port: member_port, .. } = *asked.target;
        let pair = Pair { address, member, member_port, protocol: asked.protocol };
        let port = self.source_port(asked.choice, pair, asked.wanted)?;
        Ok((address, port))
    }

    fn source_port(&mut self, choice: SourcePort, pair: Pair, wanted: u16) -> Result<u16, DropReason> {
        match choice {
            SourcePort::PreserveStrict if self.snat.take_strictly(pair, wanted) => Ok(wanted),
            SourcePort::PreserveStrict => Err(self.unless_unsettled(DropReason::SnatPortTaken)),
            SourcePort::Preserve => {
                let port = self.snat.take_rather(pair, wanted);
                port.map_err(|_| self.unless_unsettled(DropReason::SnatExhausted))
            }
            SourcePort::Change => {
                let port = self.snat.take(pair);
                port.map_err(|_| self.unless_unsettled(DropReason::SnatExhausted))
            }
        }
    }

    /// Why there is no port, unless there may be one as soon as all workers give ports by the same rule.
    #[cold]
    fn unless_unsettled(&mut self, reason: DropReason) -> DropReason {
        if self.snat.was_settled() { reason } else { DropReason::SnatUnsettled }
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

/// Addresses of a SNAT pool that are asked for a port before the connection is refused: bounds what a new connection
/// costs when all of a large pool are used up.
const ADDRESSES_TRIED: usize = 16;
