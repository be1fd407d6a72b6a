//! What a call from outside and everything it leads to have in common.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use manifold_runtime_api::{Error, Limit, Limits, Meter, ObjectId, RequestScope, Result};
use parking_lot::Mutex;

use crate::announcement::Announcement;
use crate::budget::Budget;
use crate::clock::Clock;
use crate::permits::RootId;

pub(crate) struct Scope {
    pub(crate) root: RootId,
    pub(crate) salt: Arc<str>,
    pub(crate) std: Option<ObjectId>,
    pub(crate) hashes: RequestScope,
    pub(crate) allowance: Allowance,
    pub(crate) meter: Arc<Meter>,
    pub(crate) clock: Arc<Clock>,
    runs: AtomicU64,
    written: AtomicU64,
    /// Set when nothing below this call may come from the memo: the requests that succeeded since it began.
    recomputed: Option<Mutex<HashSet<ObjectId>>>,
    /// How often frames began again because an object was lost: for each object that stays lost, and for each request.
    rewinds: Mutex<HashMap<ObjectId, u32>>,
    /// Whether one of the counters here ran over.
    breached: AtomicBool,
    /// Why the whole call is over, before its result is there.
    stopped: Announcement<Error>,
}

/// What a call may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) limits: Limits,
    pub(crate) budget: Budget,
    /// Whether it has to do everything anew.
    pub(crate) recomputes_all: bool,
}

impl Allowance {
    /// What each frame may compute at most, if anybody bounds it.
    pub(crate) fn fuel_bound(&self) -> Option<u64> {
        self.limits.fuel.into_iter().chain(self.budget.fuel).min()
    }
}

impl Scope {
    pub(crate) fn new(
        root: RootId,
        salt: Arc<str>,
        std: Option<ObjectId>,
        allowance: Allowance,
    ) -> Self {
        let Budget { fuel, memory_bytes, .. } = allowance.budget;
        Self {
            root,
            hashes: RequestScope::new(&salt, std),
            salt,
            std,
            allowance,
            meter: Arc::new(Meter::new(fuel.unwrap_or(u64::MAX), memory_bytes)),
            clock: Clock::start(),
            runs: AtomicU64::new(0),
            written: AtomicU64::new(0),
            recomputed: allowance.recomputes_all.then(Mutex::default),
            breached: AtomicBool::new(false),
            rewinds: Mutex::default(),
            stopped: Announcement::new(),
        }
    }

    /// Counts a run.
    pub(crate) fn count_run(&self) -> Result<()> {
        let count = self.allowance.budget.runs;
        self.spend(&self.runs, 1, count, Limit::Runs { count })
    }

    /// Counts what a guest stores.
    pub(crate) fn count_written(&self, length: usize) -> Result<()> {
        let bytes = self.allowance.budget.written_bytes;
        self.spend(&self.written, length as u64, bytes, Limit::WrittenBytes { bytes })
    }

    /// Whether what the memo has of `request` is older than this call, and this call wants nothing so old.
    pub(crate) fn is_stale(&self, request: ObjectId) -> bool {
        self.recomputed.as_ref().is_some_and(|recomputed| !recomputed.lock().contains(&request))
    }

    /// Notes a success, which the memo has by now.
    pub(crate) fn note_success(&self, request: ObjectId) {
        if let Some(recomputed) = &self.recomputed {
            recomputed.lock().insert(request);
        }
    }

    pub(crate) fn recomputes_all(&self) -> bool {
        self.allowance.recomputes_all
    }

    /// Whether the call's own budget was breached, and not one of those whose runs it shares.
    pub(crate) fn is_breached(&self) -> bool {
        self.breached.load(Ordering::Relaxed) || self.meter.is_breached()
    }

    /// Counts that something begins again, and answers whether that was no more than `most` times so far.
    pub(crate) fn allows_rewind(&self, what: ObjectId, most: u32) -> bool {
        let mut rewinds = self.rewinds.lock();
        let count = rewinds.entry(what).or_default();
        *count += 1;
        *count <= most
    }

    fn spend(&self, spent: &AtomicU64, amount: u64, budget: u64, limit: Limit) -> Result<()> {
        let before = spent.fetch_add(amount, Ordering::Relaxed);
        if before.saturating_add(amount) <= budget {
            return Ok(());
        }
        self.breached.store(true, Ordering::Relaxed);
        Err(limit.into())
    }

    /// What is left of the time.
    pub(crate) fn rest(&self) -> Duration {
        self.allowance.budget.deadline.saturating_sub(self.clock.elapsed())
    }

    pub(crate) fn stop_at_deadline(&self) {
        self.stop(Limit::Deadline { time: self.allowance.budget.deadline }.into());
    }

    /// Ends the call with `error`, unless it is over already.
    pub(crate) fn stop(&self, error: Error) {
        self.stopped.announce(error);
    }

    /// Waits until the call is stopped.
    pub(crate) async fn stopped(&self) -> Error {
        self.stopped.wait().await
    }
}
