//! Source address translation: which address and port a connection has towards its member.

pub mod ports;
pub(crate) mod source;
pub mod steer;
