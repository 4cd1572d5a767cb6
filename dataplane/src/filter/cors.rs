//! Cross-origin resource sharing (Fetch standard, section 3.2; Gateway API: HTTPCORSFilter).

use std::sync::Arc;

use super::{Notes, Outcome};
use crate::http::{EditError, Request, Response};

/// Who may ask for what. A preflight request is answered here; others go on, and their responses get the fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cors {
    /// `*`, or origins, each exact or with `*.` for its first labels: `https://*.example.com`.
    pub allow_origins: Vec<Arc<str>>,
    /// `*`, or methods.
    pub allow_methods: Vec<Arc<str>>,
    /// `*`, or field names.
    pub allow_headers: Vec<Arc<str>>,
    /// Field names that scripts may read.
    pub expose_headers: Vec<Arc<str>>,
    /// Cookies and the like may be sent.
    pub allow_credentials: bool,
    /// How long a preflight's answer holds, seconds.
    pub max_age_s: u32,
}

impl Cors {
    pub(super) fn on_request(
        &self,
        _request: &Request,
        _response: &mut Response,
        _notes: &mut Notes,
    ) -> Result<Outcome, EditError> {
        Ok(Outcome::Continue)
    }

    pub(super) fn on_response(
        &self,
        _request: &Request,
        _response: &mut Response,
        _notes: &Notes,
    ) -> Result<(), EditError> {
        Ok(())
    }
}
