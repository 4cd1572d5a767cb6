//! The wire bench: our packet generator on one core, the device under test on the other, a memif between them.
//!
//! ```text
//!   core 0  generator ──memif (shared memory, 64-byte frames)──▶ device under test  core 1
//!           generator ◀───────────────────────────────────────── sluice, or testpmd macswap
//! ```

pub mod device;
pub mod generator;
