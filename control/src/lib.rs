//! The operator's side of sluice: configuration, the control socket, statistics, the `sluice` command.
//!
//! ```text
//!   text ─ parse ─▶ Node ─ parse ─▶ Model ─ compile ─▶ Parts ─ publish ─▶ workers
//!                   (lines)        (types)  (ids)      (values)           (taken() by each)
//! ```
//!
//! Read in this order: [`model`] (what can be written), [`parse`], [`compile`], [`process`] (what runs), [`api`].
#![forbid(unsafe_code)]

pub mod access_log;
pub mod api;
pub mod apply;
pub mod check;
pub mod cli;
pub mod client;
pub mod compile;
pub mod cores;
pub mod diff;
pub mod ids;
pub mod lab;
pub mod merge;
pub mod metrics;
pub mod model;
pub mod parse;
pub mod partial;
pub mod process;
pub mod publish;
pub mod run;
pub mod show;
pub mod socket;
pub mod stats;
pub mod telemetry;
pub mod top;
pub mod yaml;
