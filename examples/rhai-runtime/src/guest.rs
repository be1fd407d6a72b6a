//! Runs one guest on a fiber, and enforces the limits on it.

use std::sync::Arc;

use manifold_runtime_api::abi::{Answer, Operation};
use manifold_runtime_api::{Error, Job, Limit, MemoryReservation, Result, Stopwatch};
use rhai::AST;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinError;
use tokio_util::task::{AbortOnDropHandle, LocalPoolHandle};

use crate::engine::Engines;
use crate::fiber::{Fiber, Reply, Request, Step};
use crate::host;
use crate::memory::Gauge;

/// An operation of a guest, and where its result goes.
pub(crate) type Asked = (Operation, oneshot::Sender<Reply>);

/// A guest that runs. Dropping this stops it: at once if it waits for its host, and otherwise at
/// its next pause.
pub(crate) struct Running(AbortOnDropHandle<Result<()>>);

impl Running {
    /// Waits for the guest's end.
    pub(crate) async fn end(self) -> Result<()> {
        let failed = |error: JoinError| Error::runtime(format!("the interpreter failed: {error}"));
        self.0.await.map_err(failed)?
    }
}

/// Starts a guest on one of `threads`, where it stays until its end. The thread runs other guests
/// whenever this one pauses or waits.
pub(crate) fn start(
    threads: &LocalPoolHandle,
    engines: Engines,
    ast: Arc<AST>,
    job: Job,
    operations: mpsc::Sender<Asked>,
) -> Running {
    let guest = move || run(engines, ast, job, operations);
    Running(AbortOnDropHandle::new(threads.spawn_pinned(guest)))
}

async fn run(
    engines: Engines,
    ast: Arc<AST>,
    job: Job,
    operations: mpsc::Sender<Asked>,
) -> Result<()> {
    let gauge = Arc::new(Gauge::default());
    let mut account = Account::new(&job, Arc::clone(&gauge));
    let mut fiber = Fiber::new(move || {
        let engine = engines.for_job(&job, gauge);
        host::interpret(&engine, &ast, &job.limits)
    })?;
    let mut reply = Ok(Answer::Done);
    loop {
        account.watch.start();
        let step = fiber.resume(reply);
        account.watch.stop();
        // A guest cannot catch a breach, because it is never resumed after one.
        account.check()?;
        reply = match step {
            Step::Return(end) => return end,
            Step::Yield(Request::Pause) => {
                tokio::task::yield_now().await;
                Ok(Answer::Done)
            }
            Step::Yield(Request::Operation(operation)) => {
                account.check_request(&operation)?;
                let (sender, receiver) = oneshot::channel();
                let stopped = || Error::runtime("the guest was stopped");
                operations.send((operation, sender)).await.map_err(|_| stopped())?;
                receiver.await.map_err(|_| stopped())?
            }
        };
    }
}

/// What a guest uses, and what it may use.
struct Account {
    job: Job,
    gauge: Arc<Gauge>,
    watch: Stopwatch,
    reservation: MemoryReservation,
    /// The operations that were charged to the job's meter.
    charged: u64,
}

impl Account {
    fn new(job: &Job, gauge: Arc<Gauge>) -> Self {
        let watch = Stopwatch::new(&job.limits);
        let reservation = MemoryReservation::new(Arc::clone(&job.meter));
        Self { job: job.clone(), gauge, watch, reservation, charged: 0 }
    }

    /// Charges what the guest has used since the last call.
    fn check(&mut self) -> Result<(), Limit> {
        let (operations, bytes) = (self.gauge.operations(), self.gauge.bytes());
        let limits = &self.job.limits;
        if let Some(units) = limits.fuel.filter(|bound| operations > *bound) {
            return Err(Limit::Fuel { units });
        }
        // `u64::MAX` is over any limit.
        if bytes > limits.memory_bytes.min(u64::MAX - 1) {
            return Err(Limit::Memory { bytes: limits.memory_bytes });
        }
        let charged = std::mem::replace(&mut self.charged, operations);
        self.job.meter.burn(operations - charged)?;
        self.reservation.set(bytes)?;
        self.watch.check()
    }

    /// Checks the size of a request. [`Session::operate`] does not: it cannot know how large the
    /// request was in the guest's language.
    ///
    /// [`Session::operate`]: manifold_runtime_api::abi::Session::operate
    fn check_request(&self, operation: &Operation) -> Result<(), Limit> {
        let bytes = self.job.limits.guest_request_bytes;
        if host::request_bytes(operation) > bytes {
            return Err(Limit::GuestRequest { bytes });
        }
        Ok(())
    }
}
