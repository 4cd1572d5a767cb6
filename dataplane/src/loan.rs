//! Handles to the configuration in force, lent to decisions that look at it while they change the worker.
//!
//! A handle of its own for each decision would be counted up and down in memory that all workers share.

use std::sync::Arc;

use crate::config::snapshot::Snapshot;
use crate::pipeline::Pipeline;

/// Handles that are not lent at the moment.
#[derive(Default)]
pub(crate) struct Loans([Option<Arc<Snapshot>>; NESTED]);

impl Loans {
    /// Forgets those of the configuration before.
    pub(crate) fn clear(&mut self) {
        self.0 = [const { None }; NESTED];
    }
}

impl Pipeline {
    /// A handle to the configuration in force; [`Pipeline::return_snapshot`] takes it back.
    #[inline]
    pub(crate) fn borrow_snapshot(&mut self) -> Arc<Snapshot> {
        let mut lent = self.loans.0.iter_mut().filter_map(Option::take);
        lent.next().unwrap_or_else(|| Arc::clone(&self.snapshot))
    }

    /// Takes a handle back, to be lent again.
    #[inline]
    pub(crate) fn return_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        let is_current = Arc::ptr_eq(&snapshot, &self.snapshot);
        if let Some(place) = self.loans.0.iter_mut().find(|place| is_current && place.is_none()) {
            *place = Some(snapshot);
        }
    }
}

/// Decisions within decisions that are served: selection, and the choice of a member in it.
const NESTED: usize = 2;
