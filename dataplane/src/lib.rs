//! The data plane of sluice: engines that take values and give values, with time passed in.
//!
//! Read in this order: [`port`] (where frames come from).
#![forbid(unsafe_code)]

pub mod address;
pub mod frame;
pub mod packet;
pub mod port;
