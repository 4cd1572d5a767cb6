//! Full proxies in memory: a worker between clients and members made of the same TCP engine, on a clock that only the test
//! moves.
#![allow(unreachable_pub, reason = "one test binary")]

mod faults;
mod harness;
mod host;
mod random;
mod stream;
#[path = "../world/mod.rs"]
mod world;
