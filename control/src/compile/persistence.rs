//! Persistence, and which virtual servers can have which.

use sluice_dataplane::config::snapshot as plane;

use super::Compile;
use crate::model::{Persistence, PersistenceType, VirtualServer, VirtualType};
use crate::parse::Pointer;

impl Compile<'_> {
    pub(super) fn persistence(
        &mut self,
        path: &Pointer,
        server: &VirtualServer,
    ) -> Option<plane::Persistence> {
        let said = server.persistence.as_ref()?;
        let place = path.child("persistence");
        if said.timeout.as_ms() == 0 {
            self.error(place.child("timeout"), "expected more than 0s");
        }
        match server.kind {
            VirtualType::ForwardingIp | VirtualType::Reject => {
                self.error(
                    place,
                    "expected no persistence: a virtual server of this type does not choose members",
                );
            }
            VirtualType::Stateless if said.kind != PersistenceType::Hash => {
                self.error(
                    place,
                    "expected hash or no persistence: a stateless virtual server keeps no records",
                );
            }
            _ => self.odd_persistence(&place, said, server),
        }
        Some(compiled(said))
    }

    fn odd_persistence(&mut self, place: &Pointer, said: &Persistence, server: &VirtualServer) {
        let plain = Persistence {
            override_connection_limit: said.override_connection_limit,
            ..Persistence::new(said.kind)
        };
        let one_host = server.destination.as_slice().iter().all(|to| to.network.bits == 128);
        match said.kind {
            PersistenceType::Hash if *said != plain => {
                let why = "hash keeps no records, so timeout, mask and match_across have no effect";
                self.warn(place.clone(), why);
            }
            PersistenceType::DestinationAddress if one_host && server.destination.as_slice().len() == 1 => {
                let why = "every client asks for the same address, so all connections go to one member";
                self.warn(place.clone(), why);
            }
            _ => (),
        }
    }
}

fn compiled(said: &Persistence) -> plane::Persistence {
    plane::Persistence {
        kind: match said.kind {
            PersistenceType::SourceAddress => plane::PersistenceKind::SourceAddress,
            PersistenceType::DestinationAddress => plane::PersistenceKind::DestinationAddress,
            PersistenceType::Hash => plane::PersistenceKind::Hash,
        },
        timeout_ms: said.timeout.as_ms(),
        mask_v4: said.mask.bits(),
        mask_v6: said.mask_v6.bits(),
        match_across_services: said.match_across_services,
        match_across_virtuals: said.match_across_virtuals,
        match_across_pools: said.match_across_pools,
        override_connection_limit: said.override_connection_limit,
    }
}
