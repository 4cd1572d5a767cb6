//! The wire bench: our packet generator on one core, the device under test on the other, a memif between them.
//!
//! ```text
//!   core 0  generator ──memif (shared memory, 64-byte frames)──▶ device under test  core 1
//!           generator ◀───────────────────────────────────────── sluice, or testpmd macswap
//! ```
//!
//! | module | owns |
//! |---|---|
//! | [`ground`] | hugepages, EAL, packet memory; a wire with a device at its other end |
//! | [`station`] | our end of a queue: frames, ARP |
//! | [`device`] | what runs at the other end, and its configuration |
//! | [`generator`] | packets of flows that exist |
//! | [`forwarding`] | `wire`: those, against macswap |
//! | [`flood`] | `wire flood`: TCP handshakes under a SYN flood |
//! | [`new_flows`] | `wire new-flows` |
//! | [`http`] | `wire http`: requests through full proxies |
//! | [`spent`] | what a worker that polls spends on its work |
//! | [`live_apply`] | `wire apply`: what traffic notices of a new configuration |

pub mod device;
pub mod flood;
pub mod forwarding;
pub mod generator;
pub mod ground;
pub mod http;
pub mod live_apply;
pub mod new_flows;
pub mod spent;
pub mod station;
