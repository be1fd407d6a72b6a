//! The runs below calls that take long: they are looked up in the shared cache while they wait or run,
//! and their outcomes are sent there. What computes never waits for that.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use manifold_dispatcher::{Arrived, Dispatcher, LongRun};
use manifold_runtime_api::{ObjectId, ObjectRef};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::shared::{SharedCache, joined};
use crate::tier::Shared;
use crate::worth::Worth;

/// How often it is looked what waits and what runs: a run that takes longer is worth a look-up.
const PERIOD: Duration = Duration::from_millis(20);
/// How many look-ups are on their way at once.
const AT_ONCE: usize = 16;
/// How many look-ups begin in a period at most: a look-up takes some 0.2 ms of computing.
const EACH_PERIOD: usize = 4;
/// How many outcomes are sent at once.
const BATCH: usize = 64;
/// How many runs are followed, and how many outcomes wait to be sent. Others are not sent on their own.
const MAX_RUNS: usize = 10_000;

/// How many runs that were found are remembered.
const MAX_FOUND: usize = 100_000;

/// The runs below calls of a dispatcher.
pub(crate) struct Units {
    shared: Arc<Shared>,
    dispatcher: Dispatcher,
    worth: Mutex<Worth>,
    /// The runs that were found, as far as they are remembered, and how many there were.
    found: Mutex<HashSet<ObjectId>>,
    count: AtomicUsize,
}

impl Units {
    pub(crate) fn new(shared: Arc<Shared>, dispatcher: Dispatcher) -> Self {
        let (worth, found) = (Mutex::default(), Mutex::default());
        Self { shared, dispatcher, worth, found, count: AtomicUsize::new(0) }
    }

    /// Returns the number of runs that were found in the cache.
    pub(crate) fn found(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Looks up what waits or runs, and sends the outcomes of what took long, until `ended` or until the
    /// cache is not used any more. Returns the requests whose outcomes are still to be sent.
    pub(crate) async fn follow(self: Arc<Self>, ended: CancellationToken) -> Vec<ObjectId> {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut long_runs = self.dispatcher.long_runs();
        let (mut running, mut waiting): (Vec<LongRun>, Vec<ObjectId>) = Default::default();
        let (mut looking, mut sending) = (JoinSet::new(), JoinSet::new());
        // A ref has most of what is worth a look-up.
        let (mut ready, mut cache) = (pin!(self.shared.ready()), None);
        let mut ticks = time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = ended.cancelled() => break,
                () = self.shared.stopped() => return Vec::new(),
                found = &mut ready, if cache.is_none() => {
                    let Some(found) = found else { return Vec::new() };
                    cache = Some(found);
                }
                Some(looked) = looking.join_next() => {
                    joined(looked);
                    continue;
                }
                Some(sent) = sending.join_next() => {
                    joined(sent);
                    continue;
                }
            }
            let new = long_runs.take();
            self.were_worth_it(&new);
            running.extend(new);
            waiting.extend(self.ended(&mut running));
            running.truncate(MAX_RUNS);
            let Some(cache) = &cache else { continue };
            for request in self.candidates(&running, EACH_PERIOD.min(turns.available_permits())) {
                let Ok(turn) = Arc::clone(&turns).try_acquire_owned() else { break };
                let (units, cache) = (Arc::clone(&self), cache.clone());
                looking.spawn(async move {
                    if let Some(outcome) = units.shared.fetch(&cache, request).await {
                        drop(turn);
                        units.settle(request, outcome).await;
                    }
                });
            }
            waiting.extend(self.shared.take_ran());
            waiting.truncate(MAX_RUNS);
            if !self.shared.can_write(cache) {
                waiting.clear();
            } else if sending.is_empty() && !waiting.is_empty() {
                let batch = waiting.split_off(waiting.len().saturating_sub(BATCH));
                let (units, cache) = (Arc::clone(&self), cache.clone());
                sending.spawn(async move { units.shared.publish(&cache, batch).await });
            }
        }
        drop(looking);
        running.extend(long_runs.take());
        waiting.extend(self.ended(&mut running));
        while let Some(sent) = sending.join_next().await {
            joined(sent);
        }
        waiting.truncate(MAX_RUNS);
        waiting
    }

    fn were_worth_it(&self, long: &[LongRun]) {
        let mut worth = self.worth.lock();
        long.iter().for_each(|run| worth.was_worth_it(run.request()));
    }

    /// Removes the runs that have ended. Returns those whose outcomes the cache does not have.
    fn ended(&self, running: &mut Vec<LongRun>) -> Vec<ObjectId> {
        let found = self.found.lock();
        let ended = running.extract_if(.., |run| !run.is_in_progress());
        ended.map(|run| run.request()).filter(|request| !found.contains(request)).collect()
    }

    /// Returns runs that are worth a look-up: those that take long, and those that have waited the
    /// longest.
    fn candidates(&self, running: &[LongRun], room: usize) -> Vec<ObjectId> {
        let mut worth = self.worth.lock();
        let long = running.iter().map(LongRun::request);
        let found =
            long.filter(|request| !self.shared.looks_up(*request) && worth.asks_long(*request));
        let mut found: Vec<_> = found.take(room).collect();
        if found.len() < room {
            self.dispatcher.visit_queued(PERIOD, |run| {
                if worth.asks_waiting(run.request, run.image) {
                    found.push(run.request);
                }
                found.len() < room
            });
        }
        found
    }

    /// Ends a run with an outcome that was found.
    async fn settle(&self, request: ObjectId, outcome: ObjectRef) {
        self.worth.lock().was_worth_it(request);
        self.count.fetch_add(1, Ordering::Relaxed);
        {
            let mut found = self.found.lock();
            if found.len() >= MAX_FOUND {
                found.clear();
            }
            found.insert(request);
        }
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
    }
}

/// Sends the outcomes of requests in batches.
pub(crate) async fn publish_rest(shared: &Shared, cache: &SharedCache, requests: &[ObjectId]) {
    for batch in requests.chunks(BATCH) {
        shared.publish(cache, batch.to_vec()).await;
    }
}
