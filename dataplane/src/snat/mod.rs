//! Source address translation: which address and port a connection has towards its member, and which worker it
//! belongs to.

pub mod classes;
pub mod frame;
pub mod ports;
pub(crate) mod random;
mod rest;
mod set;
pub(crate) mod source;
pub mod steer;
mod stock;
pub mod toeplitz;
mod usage;
