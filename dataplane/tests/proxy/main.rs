//! Full proxies in memory: a worker between clients and members made of the same TCP engine, on a clock that only the test
//! moves.
#![allow(unreachable_pub, reason = "one test binary")]

mod canon;
mod faults;
mod full;
mod harness;
mod host;
mod http;
mod interim;
mod line;
mod order;
mod random;
mod rows;
mod stream;
mod table;
mod timeouts;
#[path = "../world/mod.rs"]
mod world;
mod worlds;
