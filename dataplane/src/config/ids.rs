//! Identities. The control thread gives them out and keeps them stable: the same object has the same id after
//! every apply, and an id is given to another object only when no flow holds it any more.

use std::fmt;

use bytemuck::{Pod, Zeroable};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
        #[repr(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// Stands for "none".
            pub const NONE: $name = $name(u32::MAX);

            /// As an index into tables of its kind.
            #[inline(always)]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::NONE
            }
        }
    };
}

id! {
    /// A virtual server; indexes [`crate::counters::WorkerCounters`] and the snapshot.
    VirtualId
}
id! {
    /// A pool.
    PoolId
}
id! {
    /// A pool member: one address and port in one pool.
    MemberId
}
id! {
    /// A node: one address that members run on.
    NodeId
}

/// A NIC port, by its place in the configuration's sorted list of ports. Fixed while the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u8);

/// Ports at most: what fits in a [`LinkId`].
pub const PORTS_MAX: usize = 16;

/// One broadcast domain that sluice is attached to: a port, and a VLAN on it or none.
///
/// ```text
///   15    12 11          0
///   │ port  │  VLAN id    │   VLAN 0: untagged
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(transparent)]
pub struct LinkId(u16);

impl LinkId {
    /// The link of `port` and `vlan` (1 to 4094; 0 for untagged).
    #[inline(always)]
    pub const fn new(port: PortId, vlan: u16) -> Self {
        Self(((port.0 as u16) << 12) | (vlan & 0xfff))
    }

    /// The NIC port.
    #[inline(always)]
    pub const fn port(self) -> PortId {
        PortId((self.0 >> 12) as u8)
    }

    /// The VLAN id; 0 for untagged.
    #[inline(always)]
    pub const fn vlan(self) -> u16 {
        self.0 & 0xfff
    }

    /// Both in one number.
    #[inline(always)]
    pub(crate) const fn code(self) -> u16 {
        self.0
    }

    /// From [`LinkId::code`].
    #[inline(always)]
    pub(crate) const fn from_code(code: u16) -> Self {
        Self(code)
    }
}

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {} vlan {}", self.port().0, self.vlan())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_its_port_and_vlan() {
        let link = LinkId::new(PortId(15), 4094);
        assert_eq!((link.port(), link.vlan()), (PortId(15), 4094));
    }
}
