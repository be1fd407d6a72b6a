//! Pool of parked containers: started in advance, blocked on their input, and used for one job
//! each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::engine::{Container, EngineError, Launched, Roster};
use crate::spec::Spec;
use crate::wire::{Diagnostics, Wire};

/// The parked containers of one [`Spec`].
pub(crate) struct Pool {
    roster: Arc<Roster>,
    spec: Spec,
    /// How many containers to keep parked.
    target: usize,
    state: Mutex<State>,
}

struct State {
    parked: VecDeque<(Container, Wire)>,
    starting: usize,
    waiting: VecDeque<oneshot::Sender<Launched>>,
    last_used: Instant,
    is_closed: bool,
}

/// How long the replacement of a job's container is delayed. A start occupies a whole processor,
/// which the job can use meanwhile.
const HEAD_START: Duration = Duration::from_millis(5);

impl Pool {
    pub(crate) fn new(roster: Arc<Roster>, spec: Spec, target: usize) -> Self {
        let state = State {
            parked: VecDeque::new(),
            starting: 0,
            waiting: VecDeque::new(),
            last_used: Instant::now(),
            is_closed: false,
        };
        Self { roster, spec, target, state: Mutex::new(state) }
    }

    /// Returns an unused container. Waits for one to start if none is parked.
    pub(crate) async fn take(self: &Arc<Self>) -> Launched {
        let arrival = {
            let mut state = self.state.lock();
            if state.is_closed {
                return Err(EngineError::Closed);
            }
            state.last_used = Instant::now();
            while let Some((container, mut wire)) = state.parked.pop_front() {
                // A container that has ended while it was parked is skipped.
                if !wire.is_closed(&mut Diagnostics::default()) {
                    drop(state);
                    self.refill_soon();
                    return Ok((container, wire));
                }
            }
            let (sender, arrival) = oneshot::channel();
            state.waiting.push_back(sender);
            arrival
        };
        self.refill();
        arrival.await.unwrap_or(Err(EngineError::Closed))
    }

    /// Refills the pool after [`HEAD_START`].
    fn refill_soon(self: &Arc<Self>) {
        let pool = Arc::clone(self);
        self.roster.client.handle().spawn(async move {
            tokio::time::sleep(HEAD_START).await;
            pool.refill();
        });
    }

    /// Starts containers until those parked and starting suffice for all waiters and the pool's
    /// target.
    pub(crate) fn refill(self: &Arc<Self>) {
        let missing = {
            let mut state = self.state.lock();
            if state.is_closed {
                return;
            }
            state.waiting.retain(|waiter| !waiter.is_closed());
            let wanted = state.waiting.len() + self.target;
            let missing = wanted.saturating_sub(state.parked.len() + state.starting);
            state.starting += missing;
            missing
        };
        for _ in 0..missing {
            let pool = Arc::clone(self);
            self.roster.client.handle().spawn(async move {
                let launched = match pool.is_closed() {
                    true => Err(EngineError::Closed),
                    false => pool.roster.launch(pool.spec.for_one_job()).await,
                };
                pool.deliver(launched);
            });
        }
    }

    fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    /// Gives a started container, or the error of its start, to the longest waiter. Parks the
    /// container if there is no waiter.
    fn deliver(&self, mut started: Launched) {
        let mut state = self.state.lock();
        state.starting -= 1;
        while let Some(waiter) = state.waiting.pop_front() {
            match waiter.send(started) {
                Ok(()) => return,
                Err(refused) => started = refused,
            }
        }
        match started {
            Ok(started) if state.parked.len() < self.target && !state.is_closed => {
                state.parked.push_back(started)
            }
            // The pool is full or closed, so the container is dropped and removed.
            Ok(_) => {}
            // No job waits for this container. The next call of `take` tries again.
            Err(error) => {
                tracing::debug!("cannot park a container of {}: {error}", self.spec.image)
            }
        }
    }

    /// Removes the parked containers.
    pub(crate) fn clear(&self) {
        self.state.lock().parked.clear();
    }

    /// Removes the parked containers and starts no more.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.parked.clear();
    }

    /// Removes the parked containers if the pool was not used for `time`. Returns whether that is
    /// the case.
    pub(crate) fn is_idle(&self, time: Duration) -> bool {
        let mut state = self.state.lock();
        let idle =
            state.waiting.is_empty() && state.starting == 0 && state.last_used.elapsed() >= time;
        if idle {
            state.parked.clear();
        }
        idle
    }
}
