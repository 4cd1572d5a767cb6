//! The harness of the namespace tests: a [`World`] is a lab of its own with a running sluice in the middle.
//!
//! Every test makes its own namespaces, named after the process and a counter, so tests run side by side; dropping
//! the world takes all of it down, after a panic too. Traffic stays inside those namespaces. A test that cannot run
//! says `SKIPPED` on standard error, past the test runner's capture.
//!
//! ```no_run
//! use sluice_tests::{LinkKind, World, config};
//!
//! let Some(world) = World::start(LinkKind::Veth, &config::web()) else { return };
//! assert_eq!(world.curl("http://192.0.2.100/").trim(), "server1");
//! ```
#![forbid(unsafe_code)]

pub mod api;
pub mod config;
pub mod dpdk;
pub mod farm;
pub mod file;
pub mod fuzz;
pub mod origin;
pub mod peer;
pub mod show;
mod sluice;
pub mod stage;
pub mod vm;
pub mod wait;
pub mod wire;
pub mod world;

pub use sluice::{Sluice, sluice_command};
pub use sluice_control::lab::{Lab, LinkKind, Namespace, Segment, Server, addresses};
pub use world::{Members, World, curl, has_dpdk, lab, needs_root, run, skip, try_run};
