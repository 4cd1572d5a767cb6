//! The data plane of sluice: engines that take values and give values, with time passed in.
//!
//! Read in this order: [`port`] (where frames come from).
#![forbid(unsafe_code)]

pub mod address;
pub mod clock;
pub mod config;
pub mod counters;
pub mod frame;
pub mod limits;
pub mod packet;
pub mod pool;
pub mod port;
pub mod query;
pub mod runtime;
pub mod verdict;
pub mod worker;
