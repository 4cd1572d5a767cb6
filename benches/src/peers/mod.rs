//! Three network namespaces, an origin, a load generator, and one proxy at a time between them.
//!
//! ```text
//!   client 10.66.0.2 ──veth── 10.66.0.100 proxy 10.77.0.1x ──veth── 10.77.0.2:8080 server
//!   core 0                    core 1                               core 0
//! ```
//!
//! | module | owns |
//! |---|---|
//! | [`ground`] | the namespaces, and programs in them |
//! | [`cost`] | what the proxy's core did for it |
//! | [`emulator`] | the same of an emulated machine |
//! | [`wrk`] | the load, and what its generator says |
//! | [`forwarding`] | `peers`: packets passed on, against the kernel and HAProxy |
//! | [`full`] | `peers proxies`: connections that end at the proxy, against HAProxy and nginx |
//! | [`counted`] | `peers instructions`: both, in instructions alone |
//! | [`texts`] | the configurations of those |
//! | [`idle`] | what a connection takes that does nothing |
//! | [`table`] | what came out, in rows |

pub mod cost;
pub mod counted;
pub mod emulator;
pub mod forwarding;
pub mod full;
pub mod ground;
pub mod idle;
pub mod table;
pub mod texts;
pub mod wrk;
