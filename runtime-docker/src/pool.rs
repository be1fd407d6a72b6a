//! Pool of containers of one [`Spec`]: started in advance or used before, they wait for jobs.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::containers::Containers;
use crate::engine::{EngineError, Roster};
use crate::spec::Spec;
use crate::worker::Worker;

/// The containers of one [`Spec`] that have no job.
pub(crate) struct Pool {
    /// All pools of the runtime.
    all: Weak<Containers>,
    roster: Arc<Roster>,
    spec: Spec,
    /// How many containers to keep ready while nothing asks for them.
    ahead: usize,
    /// How many jobs a container may have.
    jobs: u32,
    state: Mutex<State>,
}

struct State {
    /// The one that was used last is at the end, and is used next.
    ready: VecDeque<Worker>,
    starting: usize,
    /// Containers that have a job or are being cleaned.
    busy: usize,
    /// Those that are being cleaned.
    cleaning: usize,
    waiting: VecDeque<oneshot::Sender<Result<Worker, EngineError>>>,
    last_used: Instant,
    is_closed: bool,
}

/// How long the replacement of a job's container is delayed. A start occupies a whole processor,
/// which the job can use meanwhile.
const HEAD_START: Duration = Duration::from_millis(5);

/// A container that has a job. Dropping it removes the container.
pub(crate) struct Taken {
    worker: Worker,
    busy: Busy,
}

/// Counts a container as busy until it is dropped.
struct Busy(Arc<Pool>);

impl Pool {
    /// Creates a pool that keeps `ahead` containers ready. Each has at most `jobs` jobs.
    pub(crate) fn new(
        all: Weak<Containers>,
        roster: Arc<Roster>,
        spec: Spec,
        ahead: usize,
        jobs: u32,
    ) -> Self {
        let state = State {
            ready: VecDeque::new(),
            starting: 0,
            busy: 0,
            cleaning: 0,
            waiting: VecDeque::new(),
            last_used: Instant::now(),
            is_closed: false,
        };
        Self { all, roster, spec, ahead, jobs, state: Mutex::new(state) }
    }

    /// Returns a container without a job. Waits for one to start, or to end its job, if there is
    /// none.
    pub(crate) async fn take(self: &Arc<Self>) -> Result<Taken, EngineError> {
        let arrival = {
            let mut state = self.state.lock();
            if state.is_closed {
                return Err(EngineError::Closed);
            }
            state.last_used = Instant::now();
            // A container that has ended meanwhile is skipped.
            let mut newest_first = std::iter::from_fn(|| state.ready.pop_back());
            match newest_first.find(|worker| !worker.link.is_closed()) {
                Some(worker) => Ok(worker),
                None => {
                    let (sender, arrival) = oneshot::channel();
                    state.waiting.push_back(sender);
                    Err(arrival)
                }
            }
        };
        let worker = match arrival {
            Ok(worker) => {
                self.refill_soon();
                worker
            }
            Err(arrival) => {
                self.refill();
                arrival.await.unwrap_or(Err(EngineError::Closed))?
            }
        };
        self.state.lock().busy += 1;
        Ok(Taken { worker, busy: Busy(Arc::clone(self)) })
    }

    /// Starts a container if there is none at all.
    pub(crate) fn warm(self: &Arc<Self>) {
        let has_some = {
            let state = self.state.lock();
            state.ready.len() + state.starting + state.busy > 0
        };
        self.start_missing(usize::from(!has_some));
    }

    /// Refills the pool after [`HEAD_START`].
    fn refill_soon(self: &Arc<Self>) {
        if self.ahead == 0 {
            return;
        }
        let pool = Arc::clone(self);
        spawn(self, async move {
            tokio::time::sleep(HEAD_START).await;
            pool.refill();
        });
    }

    /// Starts containers until those ready, starting and being cleaned suffice for all waiters and
    /// for those to come.
    pub(crate) fn refill(self: &Arc<Self>) {
        self.start_missing(0);
    }

    /// Like [`Pool::refill`], and until there are at least `least`.
    fn start_missing(self: &Arc<Self>, least: usize) {
        let missing = {
            let mut state = self.state.lock();
            if state.is_closed {
                return;
            }
            state.waiting.retain(|waiter| !waiter.is_closed());
            let wanted = (state.waiting.len() + self.ahead).max(least);
            let coming = state.ready.len() + state.starting + state.cleaning;
            let missing = wanted.saturating_sub(coming);
            state.starting += missing;
            missing
        };
        for _ in 0..missing {
            let pool = Arc::clone(self);
            spawn(self, async move {
                let started = match pool.is_closed() {
                    true => Err(EngineError::Closed),
                    false => Worker::start(&pool.roster, &pool.spec).await,
                };
                pool.state.lock().starting -= 1;
                pool.deliver(started);
            });
        }
    }

    fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    /// Gives a container, or the error of its start, to the longest waiter. Keeps the container
    /// ready if there is no waiter.
    fn deliver(&self, mut result: Result<Worker, EngineError>) {
        let mut state = self.state.lock();
        while let Some(waiter) = state.waiting.pop_front() {
            match waiter.send(result) {
                Ok(()) => return,
                Err(refused) => result = refused,
            }
        }
        match result {
            Ok(worker) if !state.is_closed => {
                state.ready.push_back(worker);
                drop(state);
                if let Some(all) = self.all.upgrade() {
                    all.trim();
                }
            }
            // The pool is closed, so the container is dropped and removed.
            Ok(_) => {}
            // No job waits for this container. The next call of `take` tries again.
            Err(error) => {
                tracing::debug!("cannot start a container of {}: {error}", self.spec.image)
            }
        }
    }

    /// Returns how many containers have no job, and since when the first of them.
    pub(crate) fn ready(&self) -> (usize, Option<Instant>) {
        let state = self.state.lock();
        (state.ready.len(), state.ready.front().map(|worker| worker.since))
    }

    /// Removes the container that has had no job for the longest time. The returned task ends when it
    /// is removed.
    pub(crate) fn remove_oldest(&self) -> Option<JoinHandle<()>> {
        let oldest = self.state.lock().ready.pop_front();
        oldest.map(Worker::remove)
    }

    /// Removes the containers that have no job, and starts no more.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.ready.clear();
        // Those who wait get an error.
        state.waiting.clear();
    }

    /// Removes the containers that have no job if the pool was not used for `time`. Returns whether
    /// that is the case.
    pub(crate) fn is_idle(&self, time: Duration) -> bool {
        let mut state = self.state.lock();
        let is_unused = state.waiting.is_empty() && state.starting + state.busy == 0;
        let idle = is_unused && state.last_used.elapsed() >= time;
        if idle {
            state.ready.clear();
        }
        idle
    }
}

impl Taken {
    pub(crate) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Gives the container to the next job, once nothing is left of this one. Does not wait for that.
    pub(crate) fn recycle(self) {
        let Self { worker, busy } = self;
        let pool = Arc::clone(&busy.0);
        pool.state.lock().cleaning += 1;
        spawn(&pool, async move {
            let pool = &busy.0;
            let clean = worker.recycle(pool.jobs).await;
            pool.state.lock().cleaning -= 1;
            match clean {
                Some(worker) => pool.deliver(Ok(worker)),
                // The container is removed. Those who wait for it need another.
                None => pool.refill(),
            }
        });
    }

    /// Removes the container. The returned task ends when it is removed.
    pub(crate) fn remove(self) -> JoinHandle<()> {
        self.worker.remove()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.busy -= 1;
        state.last_used = Instant::now();
    }
}

fn spawn(pool: &Pool, task: impl Future<Output = ()> + Send + 'static) {
    pool.roster.client.handle().spawn(task);
}
