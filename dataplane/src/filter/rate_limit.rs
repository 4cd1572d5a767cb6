//! Answers 429 to who asks too often.

use std::sync::Arc;

use super::{Facts, Outcome};
use crate::http::{EditError, Request, Response};

/// How often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Sets counts of different filters apart; given by the control thread.
    pub id: u32,
    /// Who is counted together.
    pub by: RateKey,
    /// Requests in `period_ms`.
    pub requests: u32,
    /// In milliseconds.
    pub period_ms: u32,
    /// Requests at once after a time of quiet, at least 1.
    pub burst: u32,
}

/// Who is counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateKey {
    /// Clients of an address, or of these leading bits of it.
    Address {
        /// Of IPv4.
        mask_v4: u8,
        /// Of IPv6.
        mask_v6: u8,
    },
    /// Requests with the same value of a field; those without it count together.
    Header(Arc<str>),
}

/// Who has asked how often, for all workers together; fixed capacity.
#[derive(Debug, Default)]
pub struct RateTable {}

impl RateTable {
    /// Takes memory for about `capacity` keys.
    pub fn new(_capacity: usize) -> Self {
        Self {}
    }
}

impl RateLimit {
    pub(super) fn on_request(
        &self,
        _request: &Request,
        _response: &mut Response,
        _facts: &Facts,
        _rates: &RateTable,
    ) -> Result<Outcome, EditError> {
        Ok(Outcome::Continue)
    }
}
