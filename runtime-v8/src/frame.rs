//! What the host keeps beside one job: shared with those outside, and private to the V8 thread.

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

/// An operation of a guest, numbered in the order in which the guest asked.
pub(crate) type OperationId = u64;

/// The work on an operation.
pub(crate) type Service = Pin<Box<dyn Future<Output = Result<Answer>> + Send>>;

/// What a frame tells the one who runs the job.
pub(crate) enum Event {
    /// The guest asks for what cannot be had at once.
    Asked(Vec<(OperationId, Service)>),
    /// The guest is over.
    Ended(Result<()>),
    /// The guest was stopped for want of memory, or of a thread, that others may have taken. It can run again; alone, if it may
    /// have been the one.
    Displaced {
        /// Whether it had the turn.
        suspect: bool,
    },
}

/// The part of a frame that everybody may look at.
pub(crate) struct Frame {
    pub(crate) id: u64,
    pub(crate) job: Job,
    pub(crate) session: Arc<Session>,
    /// Where the host's own futures find their reactor.
    pub(crate) executor: Handle,
    pub(crate) program: Arc<Program>,
    /// Whether the frame wants an isolate that nobody else is in.
    pub(crate) alone: bool,
    pub(crate) buffers: Arc<Account>,
    pub(crate) events: UnboundedSender<Event>,
    cancelled: AtomicBool,
    over: AtomicBool,
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

    /// Whether the one who runs the job was told that the guest is over.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Adds to what the guest, or the host on its behalf, has computed.
    pub(crate) fn add_computing_time(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.computed.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// How long guest and host have computed, turns that are not over yet aside.
    pub(crate) fn computing_time(&self) -> Duration {
        Duration::from_nanos(self.computed.load(Ordering::Relaxed))
    }

    /// Works on an operation. What the host works for a guest counts as the guest's computing, what it waits does not.
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

    /// Tells the one who runs the job. Who has left hears nothing.
    pub(crate) fn tell(&self, event: Event) {
        if !matches!(event, Event::Asked(_)) {
            self.over.store(true, Ordering::Release);
        }
        let _ = self.events.send(event);
    }
}

struct Question {
    resolver: v8::Global<v8::PromiseResolver>,
    bytes: u64,
}

/// What was asked and not yet answered, and in which order the guest learns the answers.
///
/// The order is a function of what the guest did: reading and writing objects comes first, in the order of asking; nested
/// runs come after all of it, in the order of asking. So nothing that a guest does can depend on which run was faster, though
/// they all go on at the same time.
#[derive(Default)]
pub(crate) struct Conversation {
    next: OperationId,
    /// Asked in this turn.
    pub(crate) asked: Vec<(OperationId, Operation)>,
    open: HashMap<OperationId, Question>,
    open_bytes: u64,
    answers: HashMap<OperationId, Result<Answer>>,
    objects: VecDeque<OperationId>,
    runs: VecDeque<OperationId>,
}

impl Conversation {
    /// Takes a question for which the host keeps so many bytes.
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

    /// A question that could not be understood is answered in its turn, too.
    pub(crate) fn refuse(
        &mut self,
        error: Error,
        bytes: u64,
        resolver: v8::Global<v8::PromiseResolver>,
    ) {
        let id = self.enqueue(resolver, bytes, false);
        self.answers.insert(id, Err(error));
    }

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

    pub(crate) fn answer(&mut self, id: OperationId, answer: Result<Answer>) {
        self.answers.insert(id, answer);
    }

    /// The next answer that the guest may learn, if it is here.
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

    /// Whether there is nothing that the guest could still learn.
    pub(crate) fn is_over(&self) -> bool {
        self.open.is_empty()
    }

    /// What the host keeps for the open questions, in bytes.
    pub(crate) fn open_bytes(&self) -> u64 {
        self.open_bytes
    }
}

/// The part of a frame that lives on the V8 thread.
pub(crate) struct Resident {
    pub(crate) frame: Arc<Frame>,
    pub(crate) context: Option<v8::Global<v8::Context>>,
    pub(crate) microtasks: Option<Microtasks>,
    /// What the guest's entry will have answered.
    pub(crate) main: Option<v8::Global<v8::Promise>>,
    pub(crate) conversation: Conversation,
    /// Promises that were rejected and that nobody looks at, with why.
    pub(crate) unhandled: Vec<(v8::Global<v8::Promise>, v8::Global<v8::Value>)>,
    /// The modules, once they are compiled: in the order of the program's files, then the built-in one.
    pub(crate) modules: Vec<v8::Global<v8::Module>>,
    /// What the job ends with, whatever the guest makes of it.
    pub(crate) verdict: Option<Error>,
    /// How much more text the log takes.
    pub(crate) log_bytes_left: u64,
    /// How much the heap grew in this frame's turns.
    heap_growth: u64,
    /// The bytes that `reservation` stands for.
    reserved: u64,
    reservation: MemoryReservation,
}

/// What the log takes here beyond its limit, so that it is the session that says that the rest is dropped.
const LOG_SLACK: u64 = 64;

impl Resident {
    /// A guest that has not begun, whose globals are reserved.
    pub(crate) fn new(frame: Arc<Frame>) -> Result<Self> {
        let mut reservation = MemoryReservation::new(Arc::clone(&frame.job.meter));
        reservation.grow(CONTEXT_BYTES)?;
        Ok(Self {
            verdict: None,
            log_bytes_left: frame.job.limits.log_bytes.saturating_add(LOG_SLACK),
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

    /// Reserves what the guest keeps while it waits. Its garbage counts until it is collected.
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
