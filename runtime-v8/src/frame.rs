//! The host's state for one job: a shared part ([`Frame`]) and a part that lives on the V8 thread
//! ([`Resident`]).

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deno_core::v8;
use manifold_runtime_api::abi::{Answer, Operation, Session};
use manifold_runtime_api::{Error, Job, Limit, MemoryReservation, Result};
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;

use crate::buffers::Account;
use crate::isolate::CONTEXT_BYTES;
use crate::microtasks::Microtasks;
use crate::program::Program;

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

/// An operation without a delivered result.
struct Question {
    resolver: v8::Global<v8::PromiseResolver>,
    /// What the host holds for it.
    bytes: u64,
}

/// The pending operations of a guest, and the order in which their results are delivered.
///
/// The order depends only on what the guest did. Reads and writes of objects come first, in the
/// order of the calls. Nested runs come after all of these, in the order of the calls. So a guest
/// cannot observe which run was faster, although all of them run concurrently.
#[derive(Default)]
pub(crate) struct Conversation {
    next: OperationId,
    /// Operations that were started in this turn.
    pub(crate) asked: Vec<(OperationId, Operation)>,
    open: HashMap<OperationId, Question>,
    open_bytes: u64,
    answers: HashMap<OperationId, Result<Answer>>,
    objects: VecDeque<OperationId>,
    runs: VecDeque<OperationId>,
}

impl Conversation {
    /// Adds an operation for which the host holds `bytes` bytes.
    pub(crate) fn ask(
        &mut self,
        operation: Operation,
        bytes: u64,
        resolver: v8::Global<v8::PromiseResolver>,
    ) {
        let is_run = matches!(operation, Operation::Run(_) | Operation::RunMany(_));
        let id = self.enqueue(resolver, bytes, is_run);
        self.asked.push((id, operation));
    }

    /// Adds an operation with invalid arguments. Its error is delivered in the same order as other
    /// results.
    pub(crate) fn refuse(
        &mut self,
        error: Error,
        bytes: u64,
        resolver: v8::Global<v8::PromiseResolver>,
    ) {
        let id = self.enqueue(resolver, bytes, false);
        self.answers.insert(id, Err(error));
    }

    /// Adds a log line, which has no result.
    pub(crate) fn log(&mut self, message: String) {
        self.asked.push((self.next, Operation::Log(message)));
    }

    fn enqueue(
        &mut self,
        resolver: v8::Global<v8::PromiseResolver>,
        bytes: u64,
        is_run: bool,
    ) -> OperationId {
        let id = self.next;
        self.next += 1;
        self.open.insert(id, Question { resolver, bytes });
        self.open_bytes = self.open_bytes.saturating_add(bytes);
        if is_run { &mut self.runs } else { &mut self.objects }.push_back(id);
        id
    }

    /// Sets the result of an operation.
    pub(crate) fn answer(&mut self, id: OperationId, answer: Result<Answer>) {
        self.answers.insert(id, answer);
    }

    /// Takes the next result in the order of delivery, if it has arrived.
    pub(crate) fn next_answer(
        &mut self,
    ) -> Option<(v8::Global<v8::PromiseResolver>, Result<Answer>)> {
        let queue = if self.objects.is_empty() { &mut self.runs } else { &mut self.objects };
        let answer = self.answers.remove(queue.front()?)?;
        let id = queue.pop_front()?;
        let question = self.open.remove(&id)?;
        self.open_bytes -= question.bytes;
        Some((question.resolver, answer))
    }

    /// Returns whether no operation is pending.
    pub(crate) fn is_over(&self) -> bool {
        self.open.is_empty()
    }

    /// Returns the bytes that the host holds for pending operations.
    pub(crate) fn open_bytes(&self) -> u64 {
        self.open_bytes
    }
}

/// The part of a frame that lives on the V8 thread.
pub(crate) struct Resident {
    pub(crate) frame: Arc<Frame>,
    pub(crate) context: Option<v8::Global<v8::Context>>,
    pub(crate) microtasks: Option<Microtasks>,
    /// The promise for the result of the guest's entry.
    pub(crate) main: Option<v8::Global<v8::Promise>>,
    pub(crate) conversation: Conversation,
    /// Rejected promises without a handler, and their reasons.
    pub(crate) unhandled: Vec<(v8::Global<v8::Promise>, v8::Global<v8::Value>)>,
    /// The compiled modules, in the order of the program's files, followed by the built-in one.
    pub(crate) modules: Vec<v8::Global<v8::Module>>,
    /// The error with which the job ends, whatever the guest does.
    pub(crate) verdict: Option<Error>,
    /// The text that the log still accepts, in bytes.
    pub(crate) log_bytes_left: u64,
    /// The growth of the heap in this frame's turns, in bytes.
    heap_growth: u64,
    /// The size of `reservation` in bytes.
    reserved: u64,
    reservation: MemoryReservation,
}

/// Bytes that are accepted beyond the log's limit, so that the session sees the excess and logs
/// that the rest is dropped.
const LOG_SLACK_BYTES: u64 = 64;

impl Resident {
    /// Creates a guest that has not started, and reserves memory for its globals.
    pub(crate) fn new(frame: Arc<Frame>) -> Result<Self> {
        let mut reservation = MemoryReservation::new(Arc::clone(&frame.job.meter));
        reservation.grow(CONTEXT_BYTES)?;
        Ok(Self {
            verdict: None,
            log_bytes_left: frame.job.limits.log_bytes.saturating_add(LOG_SLACK_BYTES),
            frame,
            context: None,
            microtasks: None,
            main: None,
            conversation: Conversation::default(),
            unhandled: Vec::new(),
            modules: Vec::new(),
            heap_growth: 0,
            reserved: CONTEXT_BYTES,
            reservation,
        })
    }

    /// Reserves the memory that the guest holds while it waits. Garbage counts until it is
    /// collected.
    pub(crate) fn reserve(&mut self, heap_growth: i64) -> Result<(), Limit> {
        self.heap_growth = self.heap_growth.saturating_add_signed(heap_growth);
        let held = self.heap_growth.saturating_add(self.frame.buffers.used());
        if held > self.reserved {
            self.reservation.grow(held - self.reserved)?;
            self.reserved = held;
        }
        Ok(())
    }
}
