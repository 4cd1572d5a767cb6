//! Sends a copy of requests to another pool, whose responses nobody waits for (Gateway API: HTTPRequestMirrorFilter).

use crate::config::ids::PoolId;

/// Where to. The proxy does it: a filter sees one message only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mirror {
    /// The pool.
    pub pool: PoolId,
    /// Of a thousand requests, how many.
    pub per_mille: u16,
}
