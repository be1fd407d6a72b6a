//! The runs below a call that take long: they are looked up in the shared cache while they wait or run,
//! and their outcomes are sent there. What computes never waits for that.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use manifold_dispatcher::{Arrived, Dispatcher, LongRun, Store};
use manifold_runtime_api::{ObjectId, ObjectRef};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::CacheError;
use crate::shared::{SharedCache, joined};
use crate::worth::Worth;

/// How often it is looked what waits and what runs: a run that takes longer is worth a look-up.
const PERIOD: Duration = Duration::from_millis(20);
/// How many look-ups are on their way at once.
const AT_ONCE: usize = 16;
/// How many look-ups begin in a period at most: a look-up takes some 0.2 ms of computing.
const EACH_PERIOD: usize = 4;
/// How many outcomes are sent at once.
const BATCH: usize = 64;
/// How many outcomes wait to be sent. Others are not sent on their own.
const MAX_WAITING: usize = 10_000;

/// The runs below calls of a dispatcher.
pub(crate) struct Units {
    cache: SharedCache,
    store: Arc<dyn Store>,
    dispatcher: Dispatcher,
    worth: Mutex<Worth>,
    /// The number of runs that were found.
    found: AtomicUsize,
}

impl Units {
    pub(crate) fn new(cache: SharedCache, store: Arc<dyn Store>, dispatcher: Dispatcher) -> Self {
        Self { cache, store, dispatcher, worth: Mutex::default(), found: AtomicUsize::new(0) }
    }

    /// Returns the number of runs that were found in the cache.
    pub(crate) fn found(&self) -> usize {
        self.found.load(Ordering::Relaxed)
    }

    /// Looks up what waits or runs, and sends the outcomes of what took long, until `ended`. Sends what
    /// is left then.
    ///
    /// # Errors
    /// [`CacheError`] if the cache fails.
    pub(crate) async fn follow(
        self: Arc<Self>,
        ended: CancellationToken,
    ) -> Result<(), CacheError> {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut long_runs = self.dispatcher.long_runs();
        let (mut running, mut waiting): (Vec<LongRun>, Vec<ObjectId>) = Default::default();
        let (mut looking, mut sending) = (JoinSet::new(), JoinSet::new());
        let mut ticks = time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_last = tokio::select! {
                _ = ticks.tick() => false,
                () = ended.cancelled() => true,
                Some(looked) = looking.join_next() => {
                    joined(looked).unwrap_or(Ok(()))?;
                    continue;
                }
                Some(sent) = sending.join_next() => {
                    joined(sent).unwrap_or(Ok(()))?;
                    continue;
                }
            };
            let new = long_runs.take();
            if !is_last {
                let room = EACH_PERIOD.min(turns.available_permits());
                for request in self.candidates(&new, room) {
                    let Ok(turn) = Arc::clone(&turns).try_acquire_owned() else { break };
                    let units = Arc::clone(&self);
                    looking.spawn(async move {
                        let _turn = turn;
                        units.look_up(request).await
                    });
                }
            }
            if !self.cache.can_write() {
                if is_last {
                    return Ok(());
                }
                continue;
            }
            running.extend(new);
            let ends = running.extract_if(.., |run| is_last || !run.is_in_progress());
            let room = MAX_WAITING.saturating_sub(waiting.len());
            waiting.extend(ends.map(|run| run.request()).take(room));
            while !waiting.is_empty() && (is_last || sending.is_empty()) {
                let batch =
                    self.outcomes(waiting.split_off(waiting.len().saturating_sub(BATCH)))?;
                let units = Arc::clone(&self);
                let send = async move { units.cache.publish_each(batch, &units.store).await };
                if is_last {
                    send.await?;
                } else {
                    sending.spawn(send);
                }
            }
            if is_last {
                while let Some(sent) = sending.join_next().await {
                    joined(sent).unwrap_or(Ok(()))?;
                }
                return Ok(());
            }
        }
    }

    /// Returns runs that are worth a look-up: those that have waited the longest, and those that take
    /// long.
    fn candidates(&self, long: &[LongRun], room: usize) -> Vec<ObjectId> {
        let mut worth = self.worth.lock();
        let mut found = Vec::new();
        for run in long {
            worth.was_worth_it(run.request());
        }
        for run in long {
            if found.len() < room && worth.asks_long(run.request()) {
                found.push(run.request());
            }
        }
        self.dispatcher.visit_queued(PERIOD, |run| {
            if found.len() < room && worth.asks_waiting(run.request, run.image) {
                found.push(run.request);
            }
            found.len() < room
        });
        found
    }

    /// Looks up a run. If the cache has its outcome, the run ends with that.
    async fn look_up(&self, request: ObjectId) -> Result<(), CacheError> {
        let Some(outcome) = self.cache.fetch(request, &self.store).await? else { return Ok(()) };
        self.worth.lock().was_worth_it(request);
        self.found.fetch_add(1, Ordering::Relaxed);
        let queued = self.dispatcher.take_queued(Duration::ZERO, |run| run.request == request);
        let unit = match queued.await {
            Some(unit) => Some(unit),
            None => match self.dispatcher.run_in_progress(request) {
                Some(run) => run.take_over().await,
                None => None,
            },
        };
        if let Some(unit) = unit {
            unit.settle(Arrived::new(outcome));
        }
        Ok(())
    }

    /// Returns the outcomes of requests, as far as they are memoized.
    fn outcomes(&self, requests: Vec<ObjectId>) -> Result<Vec<(ObjectId, ObjectRef)>, CacheError> {
        let mut outcomes = Vec::new();
        for request in requests.into_iter().collect::<HashSet<_>>() {
            outcomes.extend(self.store.look_up(request)?.map(|outcome| (request, outcome)));
        }
        Ok(outcomes)
    }
}
