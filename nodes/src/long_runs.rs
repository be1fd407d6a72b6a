//! Runs that take longer than a few milliseconds: they are claimed, so that one node runs each, and
//! their outcomes are published.

use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_dispatcher::LongRun;
use manifold_runtime_api::ObjectId;
use tokio::sync::Semaphore;

use crate::away;
use crate::bus::Unavailable;
use crate::claim::{self, Claim};
use crate::memo;
use crate::node::Shared;
use crate::policy;

/// How many claims and outcomes are on their way at once.
const AT_ONCE: usize = 64;
/// How many runs that are in progress are followed. Others are not claimed.
const MAX_RUNS: usize = 10_000;

/// Claims long runs and publishes their outcomes until the task is aborted.
pub(crate) async fn follow(shared: Arc<Shared>) {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut long_runs = shared.dispatcher.long_runs();
    let (mut waiting, mut claimed): (Vec<LongRun>, Vec<(LongRun, Instant)>) = Default::default();
    let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
    loop {
        let permits = shared.dispatcher.permits().1 as u64;
        tokio::time::sleep(policy::long(shared.nodes(), permits)).await;
        waiting.retain(LongRun::is_in_progress);
        waiting.extend(long_runs.take());
        // Alone, nobody else runs the same.
        if shared.has_peers() && !shared.bus.is_lost() {
            let room = MAX_RUNS.saturating_sub(claimed.len());
            // The oldest run has the most below it.
            for run in waiting.drain(..waiting.len().min(room)) {
                let (shared, turns) = (Arc::clone(&shared), Arc::clone(&turns));
                let send = send.clone();
                let task = Arc::clone(&shared);
                task.spawn(async move {
                    let Ok(_turn) = turns.acquire().await else { return };
                    if let Some(run) = claim(&shared, run).await {
                        let _ = send.send(run);
                    }
                });
            }
        }
        while let Ok(run) = receive.try_recv() {
            claimed.push((run, Instant::now()));
        }
        let (running, ended): (Vec<_>, Vec<_>) =
            claimed.drain(..).partition(|(run, _)| run.is_in_progress());
        claimed = running;
        for (run, began) in ended {
            let (shared, turns) = (Arc::clone(&shared), Arc::clone(&turns));
            let task = Arc::clone(&shared);
            task.spawn(async move {
                let Ok(_turn) = turns.acquire().await else { return };
                publish(&shared, run.request(), began).await;
            });
        }
    }
}

/// Claims a run. Returns it if it goes on here. If another node has it, it is stopped and waits.
async fn claim(shared: &Arc<Shared>, run: LongRun) -> Option<LongRun> {
    match claim::claim(shared, run.request(), Duration::ZERO).await {
        Ok(Claim::Mine) => Some(run),
        Ok(Claim::Theirs | Claim::Known(_)) => {
            let unit = run.take_over().await?;
            shared.spawn(away::wait(Arc::clone(shared), unit, false));
            None
        }
        // It is run here without a claim.
        Err(Unavailable) => None,
    }
}

/// Publishes the outcome of a run that was claimed and has ended.
async fn publish(shared: &Shared, request: ObjectId, began: Instant) {
    // Units and calls are published by what runs them.
    if !shared.taken.lock().contains_key(&request) && !shared.roots.lock().contains(&request) {
        memo::publish_and_release(shared, request, began).await;
    }
}
