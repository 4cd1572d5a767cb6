//! Which virtual server a packet belongs to.

pub mod lookup;
