//! Trying again, a bounded number of times, and not at once.

use std::time::{Duration, Instant};

use manifold_runtime_api::Status;
use parking_lot::Mutex;

use crate::error::EngineError;

/// How often something is tried in all.
pub(crate) const ATTEMPTS: u32 = 3;

/// How long to wait after attempt `attempt`, which begins at 1.
pub(crate) fn pause(attempt: u32) -> Duration {
    Duration::from_millis(50) * 4u32.saturating_pow(attempt - 1)
}

/// Asks the engine again when that may help.
pub(crate) async fn retrying<T, F>(mut ask: impl FnMut() -> F) -> Result<T, EngineError>
where
    F: Future<Output = Result<T, EngineError>>,
{
    let mut attempt = 1;
    loop {
        match ask().await {
            // A call that used up its time is not tried again, for that would take as long again.
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

/// A failure that is remembered for a moment. Whoever stands in a queue behind the one who met it need not meet it, too: a
/// thousand frames that each waited for a deadline would take hours to say so.
pub(crate) struct Setback<E>(Mutex<Option<(Instant, E)>>);

/// For how long.
const MOMENT: Duration = Duration::from_millis(500);

impl<E> Default for Setback<E> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<E: Clone> Setback<E> {
    pub(crate) fn remember(&self, error: &E) {
        *self.0.lock() = Some((Instant::now(), error.clone()));
    }

    pub(crate) fn forget(&self) {
        *self.0.lock() = None;
    }

    /// Fails as the last one did, if that was a moment ago.
    pub(crate) fn check(&self) -> Result<(), E> {
        match &*self.0.lock() {
            Some((since, error)) if since.elapsed() < MOMENT => Err(error.clone()),
            _ => Ok(()),
        }
    }
}
