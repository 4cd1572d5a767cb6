//! Says who the client is: X-Forwarded-For, -Proto, -Host, and Forwarded (RFC 7239).

use super::Facts;
use crate::http::{EditError, Request};

/// Which fields are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarded {
    /// X-Forwarded-For, -Proto and -Host.
    pub x_forwarded: bool,
    /// Forwarded (RFC 7239).
    pub rfc7239: bool,
    /// What the client sent of these is kept and added to; otherwise it is removed first.
    pub trust_client: bool,
}

impl Forwarded {
    pub(super) fn apply(&self, _request: &mut Request, _facts: &Facts) -> Result<(), EditError> {
        Ok(())
    }
}
