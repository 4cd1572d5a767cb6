//! Source address translation: which address and port a connection has towards its member, and which worker it
//! belongs to.

mod change;
pub mod classes;
pub mod frame;
pub(crate) mod later;
mod older;
pub mod ports;
pub(crate) mod random;
mod rest;
pub mod rules;
mod set;
pub(crate) mod source;
pub mod steer;
mod stock;
pub mod toeplitz;
#[cfg(test)]
mod turning;
mod usage;
pub(crate) mod ways;
