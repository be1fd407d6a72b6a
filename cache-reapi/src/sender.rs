//! [`Sender`]: sends what a store records, beside the work.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use manifold_runtime_api::ObjectId;
use tokio::sync::oneshot;
use tokio::time::{self, MissedTickBehavior};
use tokio_util::task::AbortOnDropHandle;

use crate::CacheError;
use crate::digest::Digest;
use crate::recorded::Recorded;
use crate::shared::{FULL_ENTRIES, SharedCache, joined};

/// How often the sender looks whether there is enough for a pack.
const PERIOD: Duration = Duration::from_millis(200);

/// How many requests are remembered, about.
const MAX_REQUESTS: usize = 4_000_000;

/// Sends the memo entries that a store records, in packs, while others compute.
///
/// After a failure it sends nothing more. Dropping it ends it without sending the rest.
#[derive(Debug)]
pub struct Sender {
    end: oneshot::Sender<()>,
    task: AbortOnDropHandle<Result<Sent, CacheError>>,
}

/// What was sent.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Sent {
    /// The digests of the packs, in the order in which they were sent.
    pub packs: Vec<Digest>,
    /// The requests whose entries were sent, about the first 4,000,000.
    pub requests: HashSet<ObjectId>,
}

impl Sender {
    /// Starts to send what `recorded` records.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub fn start(cache: SharedCache, recorded: Arc<Recorded>) -> Self {
        let (end, mut ended) = oneshot::channel();
        let task = tokio::spawn(async move {
            let sent = send(&cache, &recorded, &mut ended).await;
            if sent.is_err() {
                recorded.stop();
            }
            sent
        });
        Self { end, task: AbortOnDropHandle::new(task) }
    }

    /// Sends the rest, and returns what was sent since the start.
    ///
    /// # Errors
    /// The error that ended the sender, also if it was long ago.
    pub async fn finish(self) -> Result<Sent, CacheError> {
        let Self { end, task } = self;
        // It may have ended with an error.
        let _ = end.send(());
        joined(task.await).unwrap_or_else(|| Ok(Sent::default()))
    }
}

/// Sends what is recorded until `ended` says to send the rest.
async fn send(
    cache: &SharedCache,
    recorded: &Recorded,
    ended: &mut oneshot::Receiver<()>,
) -> Result<Sent, CacheError> {
    let mut ticks = time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = Sent::default();
    let mut is_last = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            end = &mut *ended => match end {
                Ok(()) => is_last = true,
                Err(_) => return Ok(sent),
            },
        }
        while recorded.waiting() >= if is_last { 1 } else { FULL_ENTRIES } {
            let entries = recorded.take(FULL_ENTRIES);
            if sent.requests.len() < MAX_REQUESTS {
                sent.requests.extend(entries.iter().map(|(request, _)| *request));
            }
            let packs = cache.publish_entries(entries, recorded.store()).await?;
            sent.packs.extend(packs);
        }
        if is_last {
            return Ok(sent);
        }
    }
}
