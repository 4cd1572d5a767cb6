//! Answers with a response of the operator's.

use std::sync::Arc;

use super::Outcome;
use crate::http::{EditError, Response};

/// The response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedResponse {
    /// 200 to 599.
    pub status: u16,
    /// Content-Type; none when empty.
    pub content_type: Arc<str>,
    /// The body.
    pub body: Arc<[u8]>,
}

impl FixedResponse {
    pub(super) fn answer(&self, _response: &mut Response) -> Result<Outcome, EditError> {
        Ok(Outcome::Continue)
    }
}
