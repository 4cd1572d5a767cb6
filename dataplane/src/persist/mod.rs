//! Persistence: connections that belong together go to the same member.
//!
//! ```text
//!   first packet ─▶ select ─▶ key ─▶ table     find: the member that took the last one
//!                      │                       agree: this one from now on, unless another worker was first
//!                      └────▶ rendezvous       no record: a hash names the member
//! ```
//!
//! All workers share one table. It never waits: every step is a load, a store or a compare-and-swap.

mod bucket;
pub mod cookie;
pub mod key;
#[cfg(test)]
mod races;
pub mod records;
pub(crate) mod rendezvous;
pub(crate) mod select;
pub mod table;

pub use key::{RecordKey, Scope};
pub use records::{Record, RecordId, RecordPage};
pub use table::{Agreed, Found, Lease, PersistenceTable};

use crate::config::ids::MemberId;
use crate::config::snapshot::Member;

/// A member as a record holds it: its id, and 16 bits that tell it from another member with that id later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The member.
    pub id: MemberId,
    check: u16,
}

impl Mark {
    /// The mark of `member`.
    #[inline]
    pub fn of(member: &Member) -> Self {
        let address = member.address;
        let mixed = (address.high ^ address.low.rotate_left(16) ^ u64::from(member.port)).wrapping_mul(MIX);
        Self { id: member.id, check: (mixed >> 48) as u16 }
    }
}

/// Odd, with no pattern in its bits (2^64 divided by the golden ratio).
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
