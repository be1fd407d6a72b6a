//! Trying again, a bounded number of times.

use std::time::Duration;

use manifold_runtime_api::Status;

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
