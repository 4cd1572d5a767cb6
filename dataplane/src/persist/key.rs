//! [`RecordKey`]: what two connections have in common when they belong together.

use crate::address::{Address, Prefix};
use crate::config::ids::{PoolId, VirtualId};
use crate::config::snapshot::{Persistence, PersistenceKind, Virtual};
use crate::lb::Request;

/// The key of a persistence record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordKey {
    /// Whose address `address` is.
    pub kind: PersistenceKind,
    /// The client's or the destination's address, as much of it as counts.
    pub address: Prefix,
    /// The virtual servers that the record serves.
    pub scope: Scope,
    /// The pool that the record serves; `None` for every pool.
    pub pool: Option<PoolId>,
}

/// Which virtual servers a record serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One.
    Server(VirtualId),
    /// Those with this destination, whatever the port.
    Destination(Prefix),
    /// Every one.
    Any,
}

impl RecordKey {
    /// The key of a connection through `server` to `pool`. O(1), or O(rows of `server`) across services.
    pub fn of(persistence: &Persistence, server: &Virtual, pool: PoolId, request: Request) -> Self {
        let address = match persistence.kind {
            PersistenceKind::DestinationAddress => request.destination.0,
            PersistenceKind::SourceAddress | PersistenceKind::Hash => request.client.0,
        };
        let scope = if persistence.match_across_virtuals {
            Scope::Any
        } else if persistence.match_across_services {
            Scope::Destination(destination_of(server, request.destination.0))
        } else {
            Scope::Server(server.id)
        };
        let pool = (!persistence.match_across_pools).then_some(pool);
        Self { kind: persistence.kind, address: persistence.masked(address), scope, pool }
    }

    /// As six words: a record's form in the table.
    pub(super) fn words(&self) -> [u64; WORDS] {
        let (code, id, destination) = match self.scope {
            Scope::Server(id) => (0, id, Prefix::host(Address::UNSPECIFIED)),
            Scope::Destination(prefix) => (1, VirtualId::NONE, prefix),
            Scope::Any => (2, VirtualId::NONE, Prefix::host(Address::UNSPECIFIED)),
        };
        let pool = self.pool.unwrap_or(PoolId::NONE);
        let shape = u64::from_be_bytes([
            0,
            0,
            0,
            0,
            code,
            destination.bits,
            self.address.bits,
            KINDS.iter().position(|kind| *kind == self.kind).unwrap_or(0) as u8,
        ]);
        [
            shape,
            (u64::from(id.0) << 32) | u64::from(pool.0),
            self.address.address.high,
            self.address.address.low,
            destination.address.high,
            destination.address.low,
        ]
    }

    /// From six words; `None` when they are nobody's.
    pub(super) fn from_words(words: &[u64; WORDS]) -> Option<Self> {
        let [shape, ids, high, low, destination_high, destination_low] = *words;
        let [.., code, destination_bits, bits, kind] = shape.to_be_bytes();
        let destination = Address { high: destination_high, low: destination_low };
        let scope = match code {
            0 => Scope::Server(VirtualId((ids >> 32) as u32)),
            1 => Scope::Destination(Prefix { address: destination, bits: destination_bits }),
            2 => Scope::Any,
            _ => return None,
        };
        let pool = PoolId(ids as u32);
        Some(Self {
            kind: *KINDS.get(usize::from(kind))?,
            address: Prefix { address: Address { high, low }, bits },
            scope,
            pool: (pool != PoolId::NONE).then_some(pool),
        })
    }
}

impl Persistence {
    /// The part of `address` that counts.
    pub fn masked(&self, address: Address) -> Prefix {
        Prefix::new(address, if address.is_v4() { self.mask_v4 } else { self.mask_v6 })
    }
}

/// The most specific destination of `server` that holds `address`.
pub fn destination_of(server: &Virtual, address: Address) -> Prefix {
    let holding = server.matches.iter().map(|row| row.destination).filter(|row| row.contains(address));
    holding.max_by_key(|row| row.bits).unwrap_or(Prefix::host(address))
}

pub(super) const WORDS: usize = 6;
const KINDS: [PersistenceKind; 3] =
    [PersistenceKind::SourceAddress, PersistenceKind::DestinationAddress, PersistenceKind::Hash];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::snapshot::{Match, Protocol};
    use crate::packet::build::address;

    fn server(id: u32, destination: &str, length: u8) -> Virtual {
        let destination = Prefix::new(address(destination), length);
        let source = Prefix::new(Address::v4([0; 4]), 0);
        let row = Match { destination, source, port: 80, protocol: Protocol::Tcp };
        Virtual { id: VirtualId(id), matches: vec![row], ..Virtual::default() }
    }

    fn request(client: &str, destination: &str) -> Request {
        Request { client: (address(client), 40_000), destination: (address(destination), 80) }
    }

    fn key(persistence: &Persistence, server: &Virtual, pool: u32, client: &str) -> RecordKey {
        RecordKey::of(persistence, server, PoolId(pool), request(client, "192.0.2.100"))
    }

    #[test]
    fn by_default_one_virtual_server_and_one_pool() {
        let persistence = Persistence::new(PersistenceKind::SourceAddress);
        let (one, other) = (server(1, "192.0.2.100", 32), server(2, "192.0.2.100", 32));
        let base = key(&persistence, &one, 1, "198.51.100.7");
        assert_eq!(base.address, Prefix::host(address("198.51.100.7")));
        assert_ne!(base, key(&persistence, &other, 1, "198.51.100.7"));
        assert_ne!(base, key(&persistence, &one, 2, "198.51.100.7"));
        assert_ne!(base, key(&persistence, &one, 1, "198.51.100.8"));
    }

    #[test]
    fn across_services_is_one_virtual_address_and_across_virtuals_any() {
        let mut persistence = Persistence::new(PersistenceKind::SourceAddress);
        persistence.match_across_services = true;
        let (host, other_port) = (server(1, "192.0.2.100", 32), server(2, "192.0.2.100", 32));
        let network = server(3, "192.0.2.0", 24);
        let base = key(&persistence, &host, 1, "198.51.100.7");
        assert_eq!(base, key(&persistence, &other_port, 1, "198.51.100.7"));
        assert_ne!(base, key(&persistence, &network, 1, "198.51.100.7"));
        persistence.match_across_virtuals = true;
        assert_eq!(
            key(&persistence, &host, 1, "198.51.100.7"),
            key(&persistence, &network, 1, "198.51.100.7")
        );
    }

    #[test]
    fn the_mask_of_the_family_says_which_clients_are_one() {
        let mut persistence = Persistence::new(PersistenceKind::SourceAddress);
        (persistence.mask_v4, persistence.mask_v6) = (24, 64);
        let one = server(1, "192.0.2.100", 32);
        let of = |client| key(&persistence, &one, 1, client);
        assert_eq!(of("198.51.100.7"), of("198.51.100.200"));
        assert_ne!(of("198.51.100.7"), of("198.51.101.7"));
        assert_eq!(of("2001:db8:1::1"), of("2001:db8:1::2"));
        assert_ne!(of("2001:db8:1::1"), of("2001:db8:2::1"));
    }

    #[test]
    fn destination_keys_are_by_destination() {
        let persistence = Persistence::new(PersistenceKind::DestinationAddress);
        let any = server(1, "0.0.0.0", 0);
        let of = |client, to| {
            RecordKey::of(&persistence, &any, PoolId(1), request(client, to)).address.to_string()
        };
        assert_eq!(of("198.51.100.7", "203.0.113.1"), "203.0.113.1/32");
        assert_eq!(of("198.51.100.8", "203.0.113.1"), of("198.51.100.7", "203.0.113.1"));
    }

    #[test]
    fn words_say_everything() {
        for pool in [None, Some(PoolId(9))] {
            let destination = Prefix::new(address("2001:db8::"), 32);
            for scope in [Scope::Server(VirtualId(7)), Scope::Destination(destination), Scope::Any] {
                for kind in KINDS {
                    let key = RecordKey { kind, address: Prefix::new(address("10.0.0.0"), 8), scope, pool };
                    assert_eq!(RecordKey::from_words(&key.words()), Some(key));
                }
            }
        }
        assert_eq!(RecordKey::from_words(&[u64::MAX; WORDS]), None);
    }
}
