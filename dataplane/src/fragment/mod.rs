//! Fragments through flows without putting them together: virtual reassembly.
//!
//! ```text
//!   fragment ─▶ the worker that hash(src, dst, id) names ─▶ table: what has come, the ports of the first
//!                 ├ first, or ports known ─▶ its flow, or the flow's worker ─▶ forward
//!                 ├ before the first ─▶ waits, bounded, 2 s
//!                 └ a ping to us, an ICMP error ─▶ put together (whole) ─▶ a packet like any other
//! ```
//!
//! Each fragment is translated and sent by itself; only the first has a transport header and checksum to correct.
//! `table` knows nothing of flows, `path` and `whole` nothing of holes and overlaps.

pub mod identification;
mod path;
pub mod table;
mod whole;

pub(crate) use path::Oversized;
