//! The part of a job that all threads share, and the events that its V8 thread sends.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use manifold_runtime_api::abi::{Answer, Operation, Session};
use manifold_runtime_api::{Job, Result};
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;

use crate::limits::buffers::Account;
use crate::prepare::Program;

/// The number of a guest's operation, in the order in which the guest started them.
pub(crate) type OperationId = u64;

/// The future that serves an operation.
pub(crate) type Service = Pin<Box<dyn Future<Output = Result<Answer>> + Send>>;

/// An event that a V8 thread sends to the task that runs the job.
pub(crate) enum Event {
    /// The guest started operations that could not be completed immediately.
    Asked(Vec<(OperationId, Service)>),
    /// The guest has ended.
    Ended(Result<()>),
    /// The guest was stopped because its heap or thread is exhausted, possibly by other guests. It
    /// can run again, but in an isolate of its own if it may have been the cause.
    Evicted {
        /// Whether it had the turn and may have been the cause.
        suspect: bool,
    },
}

/// The part of a frame that all threads may access.
pub(crate) struct Frame {
    pub(crate) id: u64,
    pub(crate) job: Job,
    pub(crate) session: Arc<Session>,
    /// The tokio runtime that the host's futures need.
    pub(crate) executor: Handle,
    pub(crate) program: Arc<Program>,
    /// Whether the frame needs an isolate without other guests.
    pub(crate) alone: bool,
    pub(crate) buffers: Arc<Account>,
    pub(crate) events: UnboundedSender<Event>,
    cancelled: AtomicBool,
    over: AtomicBool,
    /// Computing time of finished turns and polls, in ns.
    computed: AtomicU64,
}

impl Frame {
    pub(crate) fn new(
        id: u64,
        session: Arc<Session>,
        program: Arc<Program>,
        alone: bool,
        events: UnboundedSender<Event>,
    ) -> Self {
        let job = session.job().clone();
        let buffers = Arc::new(Account::new(job.limits.memory_bytes));
        Self {
            id,
            job,
            session,
            executor: Handle::current(),
            program,
            alone,
            buffers,
            events,
            cancelled: AtomicBool::new(false),
            over: AtomicBool::new(false),
            computed: AtomicU64::new(0),
        }
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    /// Returns whether the task that runs the job was notified that the guest has ended or was
    /// evicted.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Adds to the computing time of the guest, or of the host on its behalf.
    pub(crate) fn add_computing_time(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.computed.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Returns the computing time of guest and host, without the current turn.
    pub(crate) fn computing_time(&self) -> Duration {
        Duration::from_nanos(self.computed.load(Ordering::Relaxed))
    }

    /// Serves an operation. The time that the host computes for it counts as the guest's computing
    /// time. The time that it waits does not.
    pub(crate) fn serve(self: &Arc<Self>, operation: Operation) -> Service {
        let frame = Arc::clone(self);
        Box::pin(async move {
            let mut service = pin!(frame.session.perform(operation));
            poll_fn(|context| {
                let since = Instant::now();
                let polled = service.as_mut().poll(context);
                frame.add_computing_time(since.elapsed());
                polled
            })
            .await
        })
    }

    /// Sends an event to the task that runs the job. Ignored if that task has ended.
    pub(crate) fn notify(&self, event: Event) {
        if !matches!(event, Event::Asked(_)) {
            self.over.store(true, Ordering::Release);
        }
        let _ = self.events.send(event);
    }
}
