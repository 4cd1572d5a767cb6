//! HTTP/1.1 messages, without input or output: bytes in, validated heads and spans of body out, and bytes again.
//!
//! ```text
//!   bytes ─▶ section (lines, limits) ─▶ request / response (httparse, then our rules) ─▶ Fields that filters change
//!         ─▶ body (length, chunked, until close) ─▶ spans of the input
//!   Request, Response ─▶ serialize ─▶ bytes          spans ─▶ encode ─▶ bytes
//! ```
//!
//! A message is parsed once into a validated form and written anew from it: what came in is never passed on as it
//! was, so nothing can mean one thing here and another to the member. Whatever leaves room for two readings is
//! refused with a [`Fault`]. RFC 9110 (semantics) and RFC 9112 (syntax) are meant where a section is named.
//!
//! Nothing here reads a clock or a socket, allocates per message once its buffers stand, or panics on any input.
//! Timeouts, the choice of a member and the connections are the caller's.

mod body;
mod chunked;
mod connection;
mod edit;
mod encode;
mod fields;
mod framing;
mod grammar;
mod head;
mod limits;
mod names;
mod path;
mod reader;
mod refusal;
mod request;
mod request_reader;
mod response;
mod response_reader;
pub mod route;
mod section;
mod serialize;
mod target;
mod twins;

pub use body::{Body, Step};
pub use encode::{Encoder, Written};
pub use fields::{EditError, Fields};
pub use framing::Framing;
pub(crate) use grammar::{is_tchar, list, trim};
pub use head::{Method, Scheme, Version};
pub use limits::{HttpLimits, PathRules};
pub use reader::{Event, Progress};
pub use refusal::{Fault, Refusal};
pub use request::Request;
pub use request_reader::RequestReader;
pub use response::{Asked, Response};
pub use response_reader::ResponseReader;
pub use serialize::NoRoom;
