//! The data plane of sluice: engines that take values and give values, with time passed in.
//!
//! Read in this order: [`worker`] (one turn), [`pipeline`] (the path of a packet, all its branches), then the engine
//! that interests you: [`flow`], [`virtual_server`], [`lb`], [`snat`], [`neighbor`], [`packet`]. Frames come from
//! [`port`]; the configuration arrives as a [`config::snapshot::Snapshot`].
#![forbid(unsafe_code)]

pub mod access_log;
pub mod address;
mod admit;
mod asked;
pub mod clock;
pub mod config;
pub mod counters;
mod ending;
mod expire;
pub mod filter;
pub mod flow;
mod forward;
pub mod fragment;
pub mod frame;
pub mod handoff;
pub mod http;
pub mod lb;
pub mod limits;
mod loan;
pub mod neighbor;
mod one_to_one;
pub mod outgoing;
mod owner;
pub mod packet;
pub mod persist;
pub mod pipeline;
pub mod pool;
pub mod port;
mod proxy;
pub mod proxy_protocol;
pub mod query;
mod query_flow;
mod queue;
pub mod quota;
pub mod rate;
mod relate;
mod reselect;
mod respond;
pub mod route;
pub mod runtime;
mod select;
mod service_down;
pub mod snat;
mod stateless;
pub mod tcp;
mod unresolved;
pub mod verdict;
pub mod virtual_server;
mod way;
pub mod worker;
