//! Bounded retries with pauses, and short-lived memory of failures.

use std::time::{Duration, Instant};

use manifold_runtime_api::Status;
use parking_lot::Mutex;

use super::error::EngineError;

/// Total number of attempts.
pub(crate) const ATTEMPTS: u32 = 3;

/// Returns the pause after attempt number `attempt`, counted from 1.
pub(crate) fn pause(attempt: u32) -> Duration {
    Duration::from_millis(50) * 4u32.saturating_pow(attempt - 1)
}

/// Calls `ask` until it succeeds, fails permanently or times out, or until [`ATTEMPTS`] calls were
/// made.
pub(crate) async fn retrying<T, F>(mut ask: impl FnMut() -> F) -> Result<T, EngineError>
where
    F: Future<Output = Result<T, EngineError>>,
{
    let mut attempt = 1;
    loop {
        match ask().await {
            // A call that timed out is not retried, because that could take as long again.
            Err(error @ EngineError::TimedOut { .. }) => return Err(error),
            Err(error) if error.status() == Status::Transient && attempt < ATTEMPTS => {
                tracing::debug!("attempt {attempt}: {error}");
            }
            result => return result,
        }
        tokio::time::sleep(pause(attempt)).await;
        attempt += 1;
    }
}

/// The last failure, kept for half a second so that queued callers fail immediately with the same
/// error. Otherwise a thousand frames that each wait for a deadline would take hours to fail.
pub(crate) struct RecentFailure<E>(Mutex<Option<(Instant, E)>>);

/// How long a failure is kept.
const FAILURE_LIFETIME: Duration = Duration::from_millis(500);

impl<E> Default for RecentFailure<E> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<E: Clone> RecentFailure<E> {
    pub(crate) fn record(&self, error: &E) {
        *self.0.lock() = Some((Instant::now(), error.clone()));
    }

    pub(crate) fn clear(&self) {
        *self.0.lock() = None;
    }

    /// Returns the last failure as an error if it is recent.
    pub(crate) fn check(&self) -> Result<(), E> {
        match &*self.0.lock() {
            Some((since, error)) if since.elapsed() < FAILURE_LIFETIME => Err(error.clone()),
            _ => Ok(()),
        }
    }
}
