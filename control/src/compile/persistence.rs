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
            _ if said.kind == PersistenceType::Cookie && !speaks_http(server) => {
                self.by_cookie(path, place);
            }
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
        self.cookie_words(&path.child("persistence"), said);
        compiled(said)
    }

    /// Cookies are part of HTTP.
    fn by_cookie(&mut self, path: &Pointer, place: Pointer) {
        let lost = self.removed.contains(&path.child("http")) || self.removed.contains(&path.child("type"));
        if !lost {
            self.error(place, "expected type: standard with http, which cookies are a part of");
        }
    }

    /// Reports what only a cookie has.
    fn cookie_words(&mut self, place: &Pointer, said: &Persistence) {
        if said.kind == PersistenceType::Cookie {
            return;
        }
        let there = [
            ("method", said.method.is_some()),
            ("name", said.name.is_some()),
            ("expiration", said.expiration.is_some()),
            ("path", said.path.is_some()),
            ("http_only", said.http_only.is_some()),
            ("secure", said.secure.is_some()),
            ("always_send", said.always_send.is_some()),
        ];
        for (field, _) in there.into_iter().filter(|(_, is_there)| *is_there) {
            self.error(place.child(field), format!("expected no {field}: it is for type: cookie"));
        }
    }

    fn odd_persistence(&mut self, place: &Pointer, said: &Persistence, server: &VirtualServer) {
        if said.kind == PersistenceType::Cookie {
            return self.idle_words(place, said);
        }
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

    /// Warns of what a cookie has no use for.
    fn idle_words(&mut self, place: &Pointer, said: &Persistence) {
        let records = Persistence {
            timeout: said.timeout,
            mask: said.mask,
            mask_v6: said.mask_v6,
            match_across_services: said.match_across_services,
            match_across_virtuals: said.match_across_virtuals,
            match_across_pools: said.match_across_pools,
            override_connection_limit: said.override_connection_limit,
            ..Persistence::new(said.kind)
        };
        if records != Persistence::new(said.kind) {
            let why = "a cookie keeps no records, so timeout, mask, match_across and override have no effect";
            self.warn(place.clone(), why);
        }
    }
}

fn speaks_http(server: &VirtualServer) -> bool {
    server.kind == VirtualType::Standard && server.http.is_some()
}

/// `None` for a cookie, which the HTTP profile has.
fn compiled(said: &Persistence) -> Option<plane::Persistence> {
    Some(plane::Persistence {
        kind: match said.kind {
            PersistenceType::SourceAddress => plane::PersistenceKind::SourceAddress,
            PersistenceType::DestinationAddress => plane::PersistenceKind::DestinationAddress,
            PersistenceType::Hash => plane::PersistenceKind::Hash,
            PersistenceType::Cookie => return None,
        },
        timeout_ms: said.timeout.as_ms(),
        mask_v4: said.mask.bits(),
        mask_v6: said.mask_v6.bits(),
        match_across_services: said.match_across_services,
        match_across_virtuals: said.match_across_virtuals,
        match_across_pools: said.match_across_pools,
        override_connection_limit: said.override_connection_limit,
    })
}
