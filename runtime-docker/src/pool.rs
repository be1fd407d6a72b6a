//! Containers started ahead, each for one job, and blocked on their input until it comes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::engine::{Container, Launched, Shared};
use crate::error::EngineError;
use crate::spec::Spec;
use crate::wire::{Diagnostics, Wire};

/// The containers of one image.
pub(crate) struct Pool {
    engine: Arc<Shared>,
    spec: Spec,
    /// How many are kept.
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

/// How long a job has the machine for itself before its container is replaced, which takes all of a processor.
const HEAD_START: Duration = Duration::from_millis(5);

impl Pool {
    pub(crate) fn new(engine: Arc<Shared>, spec: Spec, target: usize) -> Self {
        let state = State {
            parked: VecDeque::new(),
            starting: 0,
            waiting: VecDeque::new(),
            last_used: Instant::now(),
            is_closed: false,
        };
        Self { engine, spec, target, state: Mutex::new(state) }
    }

    /// A container that nobody has used, as soon as there is one.
    pub(crate) async fn take(self: &Arc<Self>) -> Launched {
        let arrival = {
            let mut state = self.state.lock();
            if state.is_closed {
                return Err(EngineError::Closed);
            }
            state.last_used = Instant::now();
            while let Some((container, mut wire)) = state.parked.pop_front() {
                // It may have ended while it waited; then another will do.
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

    /// Refills the pool when the job that has just got a container has had its head start.
    fn refill_soon(self: &Arc<Self>) {
        let pool = Arc::clone(self);
        self.engine.handle().spawn(async move {
            tokio::time::sleep(HEAD_START).await;
            pool.refill();
        });
    }

    /// Starts as many as are wanted and not on their way.
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
            self.engine.handle().spawn(async move {
                let launched = match pool.is_closed() {
                    true => Err(EngineError::Closed),
                    false => pool.engine.launch(pool.spec.for_one_job()).await,
                };
                pool.deliver(launched);
            });
        }
    }

    fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    /// Gives a container to whoever has waited longest, or parks it.
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
            // Whoever it was for has gone.
            Ok(_) => {}
            // Nobody asked for this one; the next who asks has it tried again.
            Err(error) => {
                tracing::debug!("a container of {} was not started ahead: {error}", self.spec.image)
            }
        }
    }

    /// Lets the containers go.
    pub(crate) fn clear(&self) {
        self.state.lock().parked.clear();
    }

    /// Lets the containers go, and starts no more.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.parked.clear();
    }

    /// Lets the containers go if nobody has asked for one for so long. Answers whether that is so.
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
