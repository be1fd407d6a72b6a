//! The epoch thread: increments the engines' epochs every [`TICK`] while there are jobs, and parks
//! otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, Thread};

use manifold_runtime_api::{Error, Reason, Result, Status};

use crate::engines::{Engines, TICK};

/// Owns the epoch thread. Dropping it stops the thread.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Default)]
struct Shared {
    jobs: AtomicUsize,
    /// How often the thread has incremented the epochs.
    ticks: AtomicU64,
    stop: AtomicBool,
}

/// Keeps epochs ticking until it is dropped. Each running job holds one.
pub(crate) struct Awake<'a>(&'a Ticker);

impl Ticker {
    pub(crate) fn start(engines: Arc<Engines>) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let state = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("manifold-wasm-epoch".to_owned())
            .spawn(move || tick(&state, &engines))
            .map_err(|error| {
                Error::new(Reason::RuntimeFailed {
                    problem: format!("cannot start the epoch thread: {error}"),
                    status: Status::Transient,
                })
            })?;
        Ok(Self { shared, thread: thread.thread().clone() })
    }

    pub(crate) fn awake(&self) -> Awake<'_> {
        if self.shared.jobs.fetch_add(1, Ordering::AcqRel) == 0 {
            self.thread.unpark();
        }
        Awake(self)
    }
}

fn tick(shared: &Shared, engines: &Engines) {
    while !shared.stop.load(Ordering::Acquire) {
        if shared.jobs.load(Ordering::Acquire) == 0 {
            // If `unpark` is called first, `park` returns immediately, so no job is missed.
            thread::park();
            continue;
        }
        thread::sleep(TICK);
        engines.increment_epochs();
        shared.ticks.fetch_add(1, Ordering::Relaxed);
    }
}

impl Awake<'_> {
    /// Returns a number that grows by 1 every [`TICK`]. Reading it takes less than reading a clock.
    pub(crate) fn ticks(&self) -> u64 {
        self.0.shared.ticks.load(Ordering::Relaxed)
    }
}

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        self.0.shared.jobs.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.thread.unpark();
    }
}
