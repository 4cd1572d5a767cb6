//! What datagrams without a flow were before they were translated, while they wait for their member's link address.
//!
//! ```text
//!   waiting frame │ link destination: a ticket │ … ──▶ origin: asked for what, by whom
//! ```
//!
//! The link destination of a frame that waits is not known, so its place holds the ticket. A ring: the newest
//! [`ORIGINS_MAX`] are remembered, which is twice what can wait at a time.

use crate::address::{Address, Mac};
use crate::config::ids::{LinkId, VirtualId};
use crate::frame::Frame;
use crate::neighbor::WAITING_ALL;

/// What a datagram was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The address and port that it asked for.
    pub(crate) destination: (Address, u16),
    /// Where it came from.
    pub(crate) link: LinkId,
    /// Who brought it.
    pub(crate) mac: Mac,
    /// Who balanced it.
    pub(crate) virtual_id: VirtualId,
}

/// The newest origins of one worker.
pub(crate) struct Origins {
    places: Vec<(u64, Origin)>,
    last: u64,
}

impl Origins {
    /// Takes memory for [`ORIGINS_MAX`].
    pub(crate) fn new() -> Self {
        Self { places: Vec::with_capacity(ORIGINS_MAX), last: 0 }
    }

    /// Remembers where the datagram that is about to wait came from; the answer is its link destination meanwhile. O(1),
    /// no allocation.
    pub(crate) fn note(&mut self, origin: Origin) -> Mac {
        self.last = (self.last + 1) & NUMBER_MASK;
        let place = (self.last % ORIGINS_MAX as u64) as usize;
        if self.places.len() <= place {
            self.places.resize(place + 1, (0, origin));
        }
        self.places[place] = (self.last, origin);
        let [.., a, b, c, d, e] = self.last.to_be_bytes();
        Mac([TICKET, a, b, c, d, e])
    }

    /// The origin of a frame that has waited; `None` for one that left no trace, or whose is forgotten.
    pub(crate) fn of(&self, frame: &Frame) -> Option<Origin> {
        let &[TICKET, a, b, c, d, e] = frame.bytes().first_chunk::<6>()? else { return None };
        let number = u64::from_be_bytes([0, 0, 0, a, b, c, d, e]);
        let (noted, origin) = self.places.get((number % ORIGINS_MAX as u64) as usize)?;
        (*noted == number && number != 0).then_some(*origin)
    }
}

/// Datagrams remembered.
pub(crate) const ORIGINS_MAX: usize = 2 * WAITING_ALL;
const _: () = assert!(size_of::<(u64, Origin)>() == 48, "docs/LIMITS.md says so");
/// The first byte of a ticket: of an address that is locally administered and no group's.
const TICKET: u8 = 2;
const NUMBER_MASK: u64 = (1 << 40) - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ids::PortId;
    use crate::frame::FramePool;
    use crate::packet::build::address;

    fn origin(port: u16) -> Origin {
        let link = LinkId::new(PortId(1), 7);
        Origin {
            destination: (address("192.0.2.100"), port),
            link,
            mac: Mac([2; 6]),
            virtual_id: VirtualId(3),
        }
    }

    #[test]
    fn the_newest_are_remembered_and_no_other_frame_has_one() {
        let (mut origins, pool) = (Origins::new(), FramePool::new(1));
        let frame = |mac: Mac| pool.copy_of(&[&mac.0[..], &[0; 54]].concat()).unwrap();
        assert_eq!(origins.of(&frame(Mac([TICKET, 0, 0, 0, 0, 1]))), None, "nothing is noted");
        let tickets: Vec<Mac> = (0..ORIGINS_MAX as u16 + 2).map(|port| origins.note(origin(port))).collect();
        assert!(tickets.iter().all(|ticket| !ticket.is_group()));
        for (port, ticket) in tickets.iter().enumerate() {
            let expected = (port >= 2).then(|| origin(port as u16));
            assert_eq!(origins.of(&frame(*ticket)), expected, "{port}");
        }
        assert_eq!(origins.places.len(), ORIGINS_MAX);
        assert_eq!(origins.of(&frame(Mac::default())), None);
        assert_eq!(origins.of(&frame(Mac([TICKET, 9, 0, 0, 0, 5]))), None);
        assert_eq!(origins.of(&pool.copy_of(&[TICKET]).unwrap()), None);
    }

    #[test]
    fn numbers_begin_again_after_the_last() {
        let mut origins = Origins { last: NUMBER_MASK, ..Origins::new() };
        let first = origins.note(origin(1));
        assert_eq!(first, Mac([TICKET, 0, 0, 0, 0, 0]));
        let frame = FramePool::new(1).copy_of(&[&first.0[..], &[0; 54]].concat()).unwrap();
        assert_eq!(origins.of(&frame), None, "no number: what was never noted has it too");
    }
}
