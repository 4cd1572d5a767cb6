//! Packets: bytes to [`parse`]d form and back.

pub mod build;
pub mod checksum;
pub mod emit;
pub mod fragment;
pub mod icmp;
pub mod mss;
pub mod parse;
pub mod rewrite;
pub mod segment;
