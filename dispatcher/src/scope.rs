//! [`Scope`]: the state that a root call and all runs nested in it share.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use manifold_runtime_api::{
    Error, Limit, Limits, Meter, ObjectId, ObjectRef, RequestScope, Result,
};
use parking_lot::Mutex;

use crate::announcement::Announcement;
use crate::budget::Budget;
use crate::clock::Clock;
use crate::core::Keyed;
use crate::permits::RootId;
use crate::spending::{Spending, Spent};

/// The state that a root call and all runs nested in it share.
pub(crate) struct Scope {
    pub(crate) root: RootId,
    pub(crate) salt: Arc<str>,
    pub(crate) std: Option<ObjectId>,
    pub(crate) hashes: RequestScope,
    pub(crate) allowance: Allowance,
    pub(crate) meter: Arc<Meter>,
    pub(crate) clock: Arc<Clock>,
    runs: Spending,
    written: Spending,
    /// The requests that have succeeded since the call began. Set if the call must not use older
    /// entries of the memo.
    recomputed: Option<Mutex<HashSet<ObjectId>>>,
    /// The requests that were memoized, with their outcomes. Set if the call collects them.
    collected: Option<Mutex<Vec<(ObjectId, ObjectRef)>>>,
    /// The number of rewinds because of lost objects, by id: of each object that stays lost, and of
    /// each request.
    rewinds: Mutex<HashMap<ObjectId, u32>>,
    /// Whether a counter of this scope has exceeded the budget.
    breached: AtomicBool,
    /// The error that ended the whole call before its result was available.
    stopped: Announcement<Error>,
}

/// How many memo entries a call collects.
const MAX_COLLECTED: usize = 1_000_000;

/// The limits and the budget of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) limits: Limits,
    pub(crate) budget: Budget,
    /// Whether the call must not use memo entries that are older than itself.
    pub(crate) recomputes_all: bool,
}

impl Allowance {
    /// Returns the bound on the fuel of each frame, if there is one.
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
        collects: bool,
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
            runs: Spending::new(allowance.budget.runs),
            written: Spending::new(allowance.budget.written_bytes),
            recomputed: allowance.recomputes_all.then(Mutex::default),
            collected: collects.then(Mutex::default),
            breached: AtomicBool::new(false),
            rewinds: Mutex::default(),
            stopped: Announcement::new(),
        }
    }

    /// Counts a run against the budget.
    pub(crate) fn count_run(&self) -> Result<()> {
        let count = self.allowance.budget.runs;
        self.spend(&self.runs, 1, Limit::Runs { count })
    }

    /// Returns whether the call has a bound on fuel that the runtime of `keyed` does not measure.
    pub(crate) fn bounds_fuel_in_vain(&self, keyed: &Keyed) -> bool {
        self.allowance.fuel_bound().is_some() && !keyed.image.runtime.capabilities().fuel
    }

    /// Counts `length` stored bytes against the budget.
    pub(crate) fn count_written(&self, length: usize) -> Result<()> {
        let bytes = self.allowance.budget.written_bytes;
        self.spend(&self.written, length as u64, Limit::WrittenBytes { bytes })
    }

    /// Returns what the call has spent.
    pub(crate) fn spent(&self) -> Spent {
        Spent { runs: self.runs.spent(), written_bytes: self.written.spent() }
    }

    /// Counts what runs elsewhere have spent against the budget.
    pub(crate) fn count_spent(&self, spent: Spent) -> Result<()> {
        let Budget { runs, written_bytes, .. } = self.allowance.budget;
        self.spend(&self.runs, spent.runs, Limit::Runs { count: runs })?;
        let limit = Limit::WrittenBytes { bytes: written_bytes };
        self.spend(&self.written, spent.written_bytes, limit)
    }

    /// Returns what is left of the budget for runs below `depth`. The memory is not divided.
    pub(crate) fn budget_left(&self, depth: u32) -> Budget {
        let budget = self.allowance.budget;
        Budget {
            deadline: self.time_left(),
            depth: budget.depth.saturating_sub(depth),
            runs: self.runs.left(),
            written_bytes: self.written.left(),
            ..budget
        }
    }

    /// Returns whether a memo entry of `request` is older than this call, and this call must not
    /// use older ones.
    pub(crate) fn is_stale(&self, request: ObjectId) -> bool {
        self.recomputed.as_ref().is_some_and(|recomputed| !recomputed.lock().contains(&request))
    }

    /// Records that `request` has succeeded and is memoized.
    pub(crate) fn note_success(&self, request: ObjectId, outcome: ObjectRef) {
        if let Some(recomputed) = &self.recomputed {
            recomputed.lock().insert(request);
        }
        if let Some(collected) = &self.collected {
            let mut collected = collected.lock();
            if collected.len() < MAX_COLLECTED {
                collected.push((request, outcome));
            }
        }
    }

    /// Takes the requests that were memoized since the last call of this method, if the call collects
    /// them.
    pub(crate) fn take_collected(&self) -> Vec<(ObjectId, ObjectRef)> {
        self.collected.as_ref().map(|all| std::mem::take(&mut *all.lock())).unwrap_or_default()
    }

    pub(crate) fn recomputes_all(&self) -> bool {
        self.allowance.recomputes_all
    }

    /// Returns whether the call's own budget was breached, as opposed to the budget of another call
    /// whose run it shares.
    pub(crate) fn is_breached(&self) -> bool {
        self.breached.load(Ordering::Relaxed) || self.meter.is_breached()
    }

    /// Counts a rewind for `id`. Returns whether there have been at most `max` so far.
    pub(crate) fn count_rewind(&self, id: ObjectId, max: u32) -> bool {
        let mut rewinds = self.rewinds.lock();
        let count = rewinds.entry(id).or_default();
        *count += 1;
        *count <= max
    }

    fn spend(&self, spending: &Spending, amount: u64, limit: Limit) -> Result<()> {
        if spending.spend(amount) {
            return Ok(());
        }
        self.breached.store(true, Ordering::Relaxed);
        Err(limit.into())
    }

    /// Returns the time left until the deadline.
    pub(crate) fn time_left(&self) -> Duration {
        self.allowance.budget.deadline.saturating_sub(self.clock.elapsed())
    }

    pub(crate) fn stop_at_deadline(&self) {
        self.stop(Limit::Deadline { time: self.allowance.budget.deadline }.into());
    }

    /// Ends the call with `error`, unless it has ended already.
    pub(crate) fn stop(&self, error: Error) {
        self.stopped.announce(error);
    }

    /// Waits until the call is stopped, and returns the error.
    pub(crate) async fn stopped(&self) -> Error {
        self.stopped.wait().await
    }
}
