//! Packets: bytes to [`parse`]d form and back.

pub mod checksum;
pub mod segment;
