//! What is done to requests and responses on their way: one filter a file, run in the operator's order.
//!
//! ```text
//!   request ─▶ filter ─▶ filter ─┬▶ member          response ─▶ filter ─▶ filter ─▶ client
//!                                └▶ answer of our own
//! ```
//!
//! Filters see messages in their validated form, allocate nothing, and read no clock.

mod cors;
mod fixed;
mod forwarded;
mod headers;
mod mirror;
mod rate_limit;
mod rate_table;
mod redirect;
mod rewrite;
mod short;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use crate::address::Address;
use crate::clock::Instant;
use crate::http::{EditError, Request, Response, Scheme};

pub use cors::Cors;
pub use fixed::FixedResponse;
pub use forwarded::Forwarded;
pub use headers::HeaderEdits;
pub use mirror::Mirror;
pub use rate_limit::{RateKey, RateLimit};
pub use rate_table::RateTable;
pub use redirect::{PathChange, Redirect};
pub use rewrite::UrlRewrite;

/// One filter with its settings. To add one: a file, and an arm in each function below.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// Sets, adds and removes fields of requests.
    RequestHeaders(HeaderEdits),
    /// Sets, adds and removes fields of responses.
    ResponseHeaders(HeaderEdits),
    /// Says who the client is: X-Forwarded-*, Forwarded.
    Forwarded(Forwarded),
    /// Answers with a redirection.
    Redirect(Redirect),
    /// Changes host and path of requests.
    UrlRewrite(UrlRewrite),
    /// Answers with a response of the operator's.
    FixedResponse(FixedResponse),
    /// Sends a copy of requests to another pool.
    Mirror(Mirror),
    /// Cross-origin resource sharing.
    Cors(Cors),
    /// Answers 429 to who asks too often.
    RateLimit(RateLimit),
}

/// What filters know of a connection and its request.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The client; what a PROXY header said, where one was accepted.
    pub client: (Address, u16),
    /// What the client connected to.
    pub destination: (Address, u16),
    /// Of the client's connection.
    pub scheme: Scheme,
    /// The prefix that the request's rule matched, for path changes; empty when the rule has none.
    pub matched_prefix: &'a [u8],
    /// Once a burst.
    pub now: Instant,
}

/// What the filters of a request remember for its response.
#[derive(Debug, Clone, Copy, Default)]
pub struct Notes {
    /// The request came from another origin that is allowed.
    pub cors_allowed: bool,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It goes on.
    Continue,
    /// It is answered with what the response holds and this body.
    Answer(Arc<[u8]>),
}

/// Runs `filters` on a request, in order, until one answers. `response` is where an answer is begun; `notes` is
/// what [`on_response`] needs to know of the request.
///
/// # Errors
/// [`EditError`] when a filter could not do its work: the head is full, which is answered with 431.
pub fn on_request(
    filters: &[Filter],
    request: &mut Request,
    response: &mut Response,
    facts: &Facts,
    rates: &RateTable,
    notes: &mut Notes,
) -> Result<Outcome, EditError> {
    for filter in filters {
        let outcome = filter.on_request(request, response, facts, rates, notes)?;
        if outcome != Outcome::Continue {
            return Ok(outcome);
        }
    }
    Ok(Outcome::Continue)
}

/// Runs `filters` on a response, in order; on answers of filters, too. `request` is the request as it was sent.
///
/// # Errors
/// [`EditError`] when the head is full, which is answered with 502.
pub fn on_response(
    filters: &[Filter],
    request: &Request,
    response: &mut Response,
    notes: &Notes,
) -> Result<(), EditError> {
    filters.iter().try_for_each(|filter| filter.on_response(request, response, notes))
}

/// The first mirror among `filters`.
pub fn mirror_of(filters: &[Filter]) -> Option<&Mirror> {
    filters.iter().find_map(|filter| if let Filter::Mirror(mirror) = filter { Some(mirror) } else { None })
}

impl Filter {
    fn on_request(
        &self,
        request: &mut Request,
        response: &mut Response,
        facts: &Facts,
        rates: &RateTable,
        notes: &mut Notes,
    ) -> Result<Outcome, EditError> {
        let proceed = |done: Result<(), EditError>| done.map(|()| Outcome::Continue);
        match self {
            Filter::RequestHeaders(edits) => proceed(edits.apply(&mut request.fields)),
            Filter::Forwarded(forwarded) => proceed(forwarded.apply(request, facts)),
            Filter::UrlRewrite(rewrite) => proceed(rewrite.apply(request, facts)),
            Filter::Redirect(redirect) => redirect.answer(request, response, facts),
            Filter::FixedResponse(fixed) => fixed.answer(response),
            Filter::Cors(cors) => cors.on_request(request, response, notes),
            Filter::RateLimit(limit) => limit.on_request(request, response, facts, rates),
            Filter::ResponseHeaders(_) | Filter::Mirror(_) => Ok(Outcome::Continue),
        }
    }

    fn on_response(
        &self,
        request: &Request,
        response: &mut Response,
        notes: &Notes,
    ) -> Result<(), EditError> {
        match self {
            Filter::ResponseHeaders(edits) => edits.apply(&mut response.fields),
            Filter::Cors(cors) => cors.on_response(request, response, notes),
            _ => Ok(()),
        }
    }
}
