//! What the benches share: a worker built in code, traffic for it, and a machine to measure on.
//!
//! | module | owns |
//! |---|---|
//! | [`scenario`] | the one-armed configuration that all benches use, and the frames that go through it |
//! | [`http`] | usual HTTP messages, read and written |
//! | [`steady`] | a worker on a memory port with all its flows made |
//! | [`proxied`] | a full proxy on a memory port, with connections through it |
//! | [`hosts`] | clients and members, and as much of TCP as they need: for those and for `wire http` |
//! | [`operations`] | the list of what is measured one by one |
//! | [`picks`] | what choosing a member costs, and making a Maglev table |
//! | [`handshake`] | TCP connections from both ends, and a flood of SYNs |
//! | [`large`] | a configuration of ten thousand virtual servers, as text |
//! | [`machine`] | cores, hugepages, child processes, processor time; gives back what it takes |
//! | [`peers`] | three namespaces, and one proxy at a time between them |
//! | [`report`] | medians and rows |
//! | `wire` (feature `dpdk`) | the packet generator and the devices under test |
#![forbid(unsafe_code)]

pub mod handshake;
pub mod hosts;
pub mod http;
pub mod large;
pub mod machine;
pub mod operations;
pub mod peers;
pub mod picks;
pub mod proxied;
pub mod report;
pub mod scenario;
pub mod steady;
#[cfg(feature = "dpdk")]
pub mod wire;
