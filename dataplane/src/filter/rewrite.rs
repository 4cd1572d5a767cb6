//! Changes host and path of requests (Gateway API: HTTPURLRewriteFilter).

use std::sync::Arc;

use super::{Facts, PathChange};
use crate::http::{EditError, Request};

/// What changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UrlRewrite {
    /// The host that the member sees.
    pub host: Option<Arc<str>>,
    /// The path that the member sees.
    pub path: Option<PathChange>,
}

impl UrlRewrite {
    pub(super) fn apply(&self, _request: &mut Request, _facts: &Facts) -> Result<(), EditError> {
        Ok(())
    }
}
