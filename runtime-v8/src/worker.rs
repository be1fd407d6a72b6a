//! A V8 thread, which runs many guests in a few isolates, one turn at a time.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;

use manifold_runtime_api::abi::{Answer, Operation};
use manifold_runtime_api::{Error, Limit, Reason, Result};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::exception::SyntaxProblem;
use crate::fatal;
use crate::frame::{Event, Frame, OperationId, Resident};
use crate::guest::{self, State};
use crate::isolate::{self, Warm};
use crate::program::Script;
use crate::stack::{self, Stack};
use crate::turn::{Stop, Stuck, Turns};

/// The specifiers that a module imports, or the reason why it is not a module.
pub(crate) type Imports = std::result::Result<Vec<String>, SyntaxProblem>;

/// The heap limit of the isolate that parses modules, in bytes. V8's representation of code is a
/// few times as large as the code.
const READER_HEAP_BYTES: u64 = 512 << 20;

/// A message to a V8 thread.
pub(crate) enum Message {
    /// Start this guest.
    Start(Arc<Frame>),
    /// Deliver the results of a guest's operations.
    Answers(u64, Vec<(OperationId, Result<Answer>)>),
    /// Drop this guest, whose job was cancelled.
    Cancel(u64),
    /// Report the imports of a module.
    Read(u64, String, Arc<Script>),
    /// End the thread.
    Shutdown,
}

/// The messages that a V8 thread has not taken yet.
#[derive(Default)]
struct Inbox {
    waiting: VecDeque<Message>,
    /// Whether the thread is idle and waits for a message.
    is_idle: bool,
}

/// The shared handle of a V8 thread.
#[derive(Default)]
pub(crate) struct Worker {
    inbox: Mutex<Inbox>,
    arrived: Condvar,
    pub(crate) turns: Arc<Turns>,
    /// The guests of this thread. Their jobs are notified if the thread is lost.
    frames: Mutex<HashMap<u64, Arc<Frame>>>,
    /// The callers that wait for the imports of a module, by the id of the request.
    readers: Mutex<HashMap<u64, oneshot::Sender<Imports>>>,
    next_reader: AtomicU64,
    /// The number of guests of this thread, including those that have not started.
    load: AtomicUsize,
    lost: AtomicBool,
}

impl Worker {
    /// Starts a V8 thread.
    pub(crate) fn start(dynamic_code: bool) -> Result<Arc<Self>> {
        let worker = Arc::new(Self::default());
        let of_thread = Arc::clone(&worker);
        thread::Builder::new()
            .name("manifold-v8".to_owned())
            .stack_size(stack::THREAD_BYTES)
            .spawn(move || {
                fatal::register_thread(&of_thread);
                // However the thread ends, no caller may keep waiting for it.
                let _ending = GiveUpOnDrop(Arc::clone(&of_thread));
                Thread::new(of_thread, dynamic_code).run();
            })
            .map_err(|error| Error::runtime(format!("cannot start a V8 thread: {error}")))?;
        Ok(worker)
    }

    pub(crate) fn send(&self, message: Message) {
        self.inbox.lock().waiting.push_back(message);
        self.arrived.notify_one();
    }

    /// Sends a guest to the thread. If the thread is lost, the guest's job is notified instead.
    pub(crate) fn admit(&self, frame: Arc<Frame>) {
        {
            let mut frames = self.frames.lock();
            // `give_up` notifies only the frames that it finds here, so no frame may be added after
            // it.
            if self.is_lost() {
                frame.notify(Event::Evicted { suspect: false });
                return;
            }
            frames.insert(frame.id, Arc::clone(&frame));
        }
        self.load.fetch_add(1, Ordering::Relaxed);
        self.send(Message::Start(frame));
    }

    /// Requests the imports of the module in the file at `path`. The receiver fails if the thread
    /// is lost.
    pub(crate) fn read(&self, path: String, script: Arc<Script>) -> oneshot::Receiver<Imports> {
        let (answer, answered) = oneshot::channel();
        let id = self.next_reader.fetch_add(1, Ordering::Relaxed);
        {
            let mut readers = self.readers.lock();
            // As with guests: `give_up` clears the readers once, so none may be added after it.
            if self.is_lost() {
                return answered;
            }
            readers.insert(id, answer);
        }
        self.send(Message::Read(id, path, script));
        answered
    }

    /// Returns how busy the thread is, for comparison: the number of pending messages, with one
    /// more if the thread is not idle, then the number of guests.
    pub(crate) fn load(&self) -> (usize, usize) {
        let inbox = self.inbox.lock();
        (inbox.waiting.len() + usize::from(!inbox.is_idle), self.load.load(Ordering::Relaxed))
    }

    /// Stops the guest if it has the turn, and removes it from the thread.
    pub(crate) fn cancel(&self, frame: &Frame) {
        frame.cancel();
        self.turns.stop_frame(frame.id, Stop::Cancelled);
        self.send(Message::Cancel(frame.id));
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Gives the thread up because `stuck` blocks it. The other guests run again on other threads.
    pub(crate) fn give_up_for(&self, stuck: &Stuck) {
        self.give_up(Some((stuck.frame.id, Event::Ended(Err(stuck.error())))));
    }

    /// Gives the thread up. All guests are evicted, except that the job of the culprit, if any,
    /// gets its own event.
    fn give_up(&self, mut culprit: Option<(u64, Event)>) {
        let frames = {
            let mut frames = self.frames.lock();
            self.lost.store(true, Ordering::Release);
            std::mem::take(&mut *frames)
        };
        self.readers.lock().clear();
        for frame in frames.into_values() {
            let event = culprit.take_if(|(id, _)| *id == frame.id).map(|(_, event)| event);
            frame.notify(event.unwrap_or(Event::Evicted { suspect: false }));
        }
        // Notified under the lock, so that the thread cannot miss it between its check and its
        // wait.
        let _inbox = self.inbox.lock();
        self.arrived.notify_one();
    }

    /// Gives the thread up. Called on the thread itself if V8 has run out of memory and cannot
    /// continue.
    pub(crate) fn die(&self) {
        let alone = self.load.load(Ordering::Relaxed) == 1;
        let culprit =
            self.turns.take_stuck(Stop::Heap).map(|stuck| match alone || stuck.frame.alone {
                true => (stuck.frame.id, Event::Ended(Err(stuck.error()))),
                false => (stuck.frame.id, Event::Evicted { suspect: true }),
            });
        self.give_up(culprit);
    }

    /// Returns the next message without waiting.
    fn next_here(&self) -> Option<Message> {
        self.inbox.lock().waiting.pop_front()
    }

    /// Waits for the next message. Returns `None` once the thread is lost.
    fn next(&self) -> Option<Message> {
        let mut inbox = self.inbox.lock();
        inbox.is_idle = true;
        let next = loop {
            if self.is_lost() {
                break None;
            }
            match inbox.waiting.pop_front() {
                Some(message) => break Some(message),
                None => self.arrived.wait(&mut inbox),
            }
        };
        inbox.is_idle = false;
        next
    }

    /// Removes a guest that has left or ended.
    fn forget(&self, frame: u64) {
        self.load.fetch_sub(1, Ordering::Relaxed);
        self.frames.lock().remove(&frame);
    }
}

/// Gives a thread up when it is dropped.
struct GiveUpOnDrop(Arc<Worker>);

impl Drop for GiveUpOnDrop {
    fn drop(&mut self) {
        self.0.give_up(None);
    }
}

/// The state that lives on a V8 thread.
struct Thread {
    worker: Arc<Worker>,
    dynamic_code: bool,
    stack: Stack,
    /// The waiting guests and the isolates that they are in. They must be dropped before the
    /// isolates.
    residents: HashMap<u64, (usize, Box<Resident>)>,
    isolates: HashMap<usize, Warm>,
    /// The isolate that parses modules. No guest runs in it.
    reader: Option<Warm>,
    next_isolate: usize,
    /// The isolate in which the last guest was started.
    latest_isolate: usize,
}

impl Thread {
    fn new(worker: Arc<Worker>, dynamic_code: bool) -> Self {
        Self {
            worker,
            dynamic_code,
            stack: Stack::of_this_thread(),
            isolates: HashMap::new(),
            reader: None,
            next_isolate: 0,
            latest_isolate: 0,
            residents: HashMap::new(),
        }
    }

    fn run(mut self) {
        while let Some(message) = self.next() {
            match message {
                Message::Start(frame) => self.start(frame),
                Message::Answers(frame, answers) => {
                    let Some((isolate, mut resident)) = self.residents.remove(&frame) else {
                        continue;
                    };
                    for (operation, answer) in answers {
                        resident.conversation.answer(operation, answer);
                    }
                    self.go_on(isolate, resident, false);
                }
                Message::Cancel(frame) => {
                    if let Some((isolate, resident)) = self.residents.remove(&frame) {
                        self.leave(isolate, resident);
                    }
                }
                Message::Read(id, path, script) => {
                    let imports = self.read(&path, &script);
                    if let (Some(reader), Ok(imports)) =
                        (self.worker.readers.lock().remove(&id), imports)
                    {
                        // Fails if the caller no longer waits.
                        let _ = reader.send(imports);
                    }
                }
                Message::Shutdown => break,
            }
        }
        // Contexts must be dropped before their isolates.
        for (isolate, resident) in std::mem::take(&mut self.residents).into_values() {
            self.leave(isolate, resident);
        }
    }

    /// Waits for the next message. If there is none yet, creates the next guest's globals first,
    /// which takes longer than most guests run.
    fn next(&mut self) -> Option<Message> {
        if !self.worker.is_lost() {
            if let Some(message) = self.worker.next_here() {
                return Some(message);
            }
            if let Some(warm) =
                self.isolates.get_mut(&self.latest_isolate).filter(|warm| warm.wants_spare())
            {
                warm.enter().make_spare(self.dynamic_code);
            }
        }
        self.worker.next()
    }

    fn start(&mut self, frame: Arc<Frame>) {
        if frame.is_cancelled() {
            self.worker.forget(frame.id);
            return;
        }
        let admitted = Resident::new(Arc::clone(&frame))
            .and_then(|resident| Ok((self.isolate_for(&frame)?, resident)));
        let (isolate, resident) = match admitted {
            Ok(admitted) => admitted,
            Err(error) => {
                self.worker.forget(frame.id);
                frame.notify(Event::Ended(Err(error)));
                return;
            }
        };
        self.latest_isolate = isolate;
        if let Some(warm) = self.isolates.get_mut(&isolate) {
            warm.admit();
        }
        self.go_on(isolate, Box::new(resident), true);
    }

    fn isolate_for(&mut self, frame: &Frame) -> Result<usize> {
        let memory = isolate::heap_bytes(&frame.job.limits);
        let candidates = self.isolates.iter().filter(|(_, warm)| warm.takes(memory, frame.alone));
        // The fullest isolate is preferred, so that others become empty.
        if let Some((id, _)) = candidates.max_by_key(|(_, warm)| warm.guests()) {
            return Ok(*id);
        }
        // Empty isolates with other limits are rarely used again.
        self.isolates.retain(|_, warm| !warm.is_empty() || warm.takes(memory, false));
        let warm = Warm::new(memory, frame.alone, &self.stack, &self.worker.turns)?;
        self.next_isolate += 1;
        self.isolates.insert(self.next_isolate, warm);
        Ok(self.next_isolate)
    }

    fn read(&mut self, path: &str, script: &Script) -> Result<Imports> {
        let mut warm = match self.reader.take() {
            Some(warm) => warm,
            None => Warm::new(READER_HEAP_BYTES, true, &self.stack, &self.worker.turns)?,
        };
        let mut entered = warm.enter();
        let (imports, _) =
            entered.growing(|entered| guest::read_module(entered.isolate(), path, &script.code));
        drop(entered);
        self.reader = Some(warm).filter(|warm| !warm.is_bloated());
        Ok(imports)
    }

    /// Runs the guest until it waits for other jobs or ends.
    fn go_on(&mut self, isolate: usize, mut resident: Box<Resident>, mut begins: bool) {
        let frame = Arc::clone(&resident.frame);
        loop {
            let Some((came_back, end)) = self.take_turn(isolate, resident, begins) else {
                self.worker.forget(frame.id);
                frame.notify(Event::Ended(Err(Error::runtime(
                    "a V8 thread lost the state of a guest",
                ))));
                return;
            };
            resident = came_back;
            begins = false;
            let end = match end {
                None => match serve_at_once(&mut resident) {
                    Served::Results => continue,
                    Served::Pending => None,
                    Served::Ended(end) => Some(Event::Ended(end)),
                },
                Some(Event::Ended(end)) => {
                    serve_last(&mut resident);
                    Some(Event::Ended(end))
                }
                end => end,
            };
            match end {
                None => {
                    self.residents.insert(frame.id, (isolate, resident));
                }
                Some(event) => {
                    self.leave(isolate, resident);
                    frame.notify(event);
                }
            }
            return;
        }
    }

    /// Gives the guest one turn. Returns the guest and the event for its job, which is `None` if
    /// the guest waits.
    fn take_turn(
        &mut self,
        isolate: usize,
        resident: Box<Resident>,
        begins: bool,
    ) -> Option<(Box<Resident>, Option<Event>)> {
        let warm = self.isolates.get_mut(&isolate)?;
        let frame = Arc::clone(&resident.frame);
        let (current, buffers, handle) =
            (warm.current.clone(), Arc::clone(&warm.buffers), warm.handle());
        let shared_with_others = warm.is_shared();

        buffers.charge(Some(Arc::clone(&frame.buffers)));
        *current.borrow_mut() = Some(resident);
        let mut entered = warm.enter();
        let ((state, growth_before, stop), growth) = entered.growing(|entered| {
            self.worker.turns.begin(Arc::clone(&frame), handle);
            let (state, growth_before) = if begins {
                match entered.globals(self.dynamic_code) {
                    Some((globals, growth)) => {
                        (guest::begin(entered.isolate(), &current, globals), growth)
                    }
                    None => (State::Stopped, 0),
                }
            } else {
                (guest::go_on(entered.isolate(), &current), 0)
            };
            (state, growth_before, self.worker.turns.end())
        });
        let growth = growth + growth_before;
        let mut resident = current.borrow_mut().take()?;
        buffers.charge(None);

        let end = if self.stack.was_exceeded() {
            self.stack.forget();
            Some(Event::Ended(Err(Limit::Stack { bytes: stack::GUEST_BYTES as u64 }.into())))
        } else {
            end_of_turn(&mut resident, state, stop, shared_with_others, growth)
        };
        if frame.buffers.is_breached() && stop.is_none() {
            // Frees the guest's buffers before the next guest needs the memory.
            entered.isolate().low_memory_notification();
        }
        entered.pump();
        drop(entered);
        if stop == Some(Stop::Heap) {
            warm.retire();
        }
        Some((resident, end))
    }

    /// Removes the guest from its isolate.
    fn leave(&mut self, isolate: usize, resident: Box<Resident>) {
        self.worker.forget(resident.frame.id);
        let Some(warm) = self.isolates.get_mut(&isolate) else { return };
        let mut entered = warm.enter();
        drop(resident);
        entered.restore_limit();
        drop(entered);
        warm.release();
        if !warm.is_empty() {
            return;
        }
        // A deep recursion may have filled many isolates. One with room is enough for the next
        // guests.
        let goes = warm.is_retired() || warm.is_bloated();
        if goes || self.isolates.iter().any(|(other, warm)| *other != isolate && warm.has_room()) {
            self.isolates.remove(&isolate);
        }
    }
}

/// Returns the event for the job at the end of a turn, or `None` if the guest waits.
fn end_of_turn(
    resident: &mut Resident,
    state: State,
    stop: Option<Stop>,
    shared_with_others: bool,
    growth: i64,
) -> Option<Event> {
    let limits = &resident.frame.job.limits;
    match stop {
        Some(Stop::Heap) if shared_with_others => return Some(Event::Evicted { suspect: true }),
        Some(stop) => return Some(Event::Ended(Err(stop.error(limits)))),
        None => {}
    }
    if let Some(verdict) = resident.verdict.take() {
        return Some(Event::Ended(Err(verdict)));
    }
    if resident.frame.buffers.is_breached()
        || resident.conversation.open_bytes() > limits.memory_bytes
    {
        return Some(Event::Ended(Err(Limit::Memory { bytes: limits.memory_bytes }.into())));
    }
    Some(Event::Ended(match state {
        State::Waiting => match resident.reserve(growth) {
            Ok(()) => return None,
            Err(breach) => Err(breach.into()),
        },
        State::Done => Ok(()),
        State::Threw(words) => Err(Error::guest_failed(words)),
        State::Stalled => Err(Error::new(Reason::Trapped {
            trap: "it awaits a promise that nothing can settle".to_owned(),
        })),
        State::Stopped => Err(Error::runtime("V8 terminated a guest for an unknown reason")),
    }))
}

/// The result of serving a guest's operations on its V8 thread.
enum Served {
    /// Some operations have results.
    Results,
    /// All operations are pending, or there were none.
    Pending,
    /// The job has ended with this result.
    Ended(Result<()>),
}

/// The bytes of results that are collected before the guest takes them. No other limit counts them.
const MAX_UNDELIVERED_BYTES: usize = 1 << 20;

/// Serves the operations of a guest that complete without waiting, as most reads and writes of
/// objects do, so that the guest need not leave its thread for them. The rest is sent to the task
/// that runs the job.
fn serve_at_once(resident: &mut Resident) -> Served {
    let frame = Arc::clone(&resident.frame);
    let _reactor = frame.executor.enter();
    let (mut served, mut answered) = (Served::Pending, 0);
    let mut rest = Vec::new();
    let mut asked = std::mem::take(&mut resident.conversation.asked).into_iter();
    for (id, operation) in asked.by_ref() {
        // Between its turns, no other code checks whether a guest was cancelled.
        if frame.is_cancelled() {
            return Served::Ended(Err(Error::new(Reason::Cancelled)));
        }
        let time = frame.job.limits.compute_time;
        if frame.computing_time() > time {
            return Served::Ended(Err(Limit::ComputeTime { time }.into()));
        }
        let nested = matches!(operation, Operation::Run(_) | Operation::RunMany(_));
        let mut service = match operation {
            // A log line has no result.
            Operation::Log(message) => {
                log(&frame, &message);
                continue;
            }
            operation => frame.serve(operation),
        };
        if nested {
            // The dispatcher manages the frame's permit in the task that runs the job.
            rest.push((id, service));
            continue;
        }
        let mut context = Context::from_waker(Waker::noop());
        // A panic of the host must not affect the other guests of this thread.
        match catch_unwind(AssertUnwindSafe(|| service.as_mut().poll(&mut context))) {
            Ok(Poll::Ready(answer)) => {
                if let Ok(Answer::Blob(content)) = &answer {
                    answered += content.len();
                }
                resident.conversation.answer(id, answer);
                served = Served::Results;
            }
            Ok(Poll::Pending) => rest.push((id, service)),
            Err(_) => {
                return Served::Ended(Err(Error::runtime(
                    "the host panicked in an operation of a guest",
                )));
            }
        }
        if frame.session.has_ended() {
            return Served::Ended(Ok(()));
        }
        if answered > MAX_UNDELIVERED_BYTES {
            break;
        }
    }
    resident.conversation.asked = asked.collect();
    if !rest.is_empty() {
        frame.notify(Event::Asked(rest));
    }
    served
}

/// Serves operations that the guest started without awaiting them before its entry returned or
/// failed: log lines, `out` and `fail` still take effect.
fn serve_last(resident: &mut Resident) {
    let frame = Arc::clone(&resident.frame);
    for (_, operation) in std::mem::take(&mut resident.conversation.asked) {
        match operation {
            Operation::Log(message) => log(&frame, &message),
            operation @ (Operation::Out(_) | Operation::Fail(_)) => {
                // These complete at the first poll.
                let _ =
                    frame.serve(operation).as_mut().poll(&mut Context::from_waker(Waker::noop()));
            }
            _ => {}
        }
    }
}

/// Writes to the job's log. The receiver of the log may panic.
fn log(frame: &Frame, message: &str) {
    let _ = catch_unwind(AssertUnwindSafe(|| frame.session.log(message)));
}
