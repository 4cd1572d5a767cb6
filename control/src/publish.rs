//! Hands a snapshot to every worker, and waits until each runs it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_dataplane::config::snapshot::Snapshot;
use sluice_dataplane::runtime::WorkerHandle;

/// How long workers may take before an apply is called late.
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Some workers have not taken a generation in time. They will when they can.
#[derive(Debug, thiserror::Error)]
#[error("after {elapsed:?}, workers {workers:?} do not run generation {generation} yet")]
pub struct Late {
    /// Which.
    pub workers: Vec<usize>,
    /// The generation.
    pub generation: u64,
    /// How long it has been.
    pub elapsed: Duration,
}

/// Gives `snapshot` to every worker; returns how long it took until the last one ran it.
///
/// # Errors
/// [`Late`] after [`PUBLISH_TIMEOUT`].
pub async fn publish(workers: &[WorkerHandle], snapshot: &Arc<Snapshot>) -> Result<Duration, Late> {
    let (start, generation) = (Instant::now(), snapshot.generation());
    // Before anything is waited for: a caller that goes away leaves no worker without it.
    workers.iter().for_each(|worker| worker.publish(Arc::clone(snapshot)));
    loop {
        let waiting: Vec<usize> =
            workers.iter().filter(|worker| worker.taken() < generation).map(WorkerHandle::number).collect();
        let elapsed = start.elapsed();
        if waiting.is_empty() {
            return Ok(elapsed);
        }
        if elapsed > PUBLISH_TIMEOUT {
            return Err(Late { workers: waiting, generation, elapsed });
        }
        match elapsed < EAGER {
            true => tokio::task::yield_now().await,
            false => tokio::time::sleep(POLL).await,
        }
    }
}

/// How long workers are asked again and again: a busy one takes what is new within this.
const EAGER: Duration = Duration::from_micros(500);
const POLL: Duration = Duration::from_millis(1);
