//! A V8 thread: many guests, in a few isolates, one turn at a time.

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

/// What a module imports, or why it is none.
pub(crate) type Imports = std::result::Result<Vec<String>, SyntaxProblem>;

/// The heap for reading modules, in bytes. What V8 makes of code is a few times as large as that.
const READING: u64 = 512 << 20;

/// What others tell a V8 thread.
pub(crate) enum Message {
    /// Begin with this guest.
    Start(Arc<Frame>),
    /// A guest's questions are answered.
    Answers(u64, Vec<(OperationId, Result<Answer>)>),
    /// Nobody wants this guest's outcome any more.
    Cancel(u64),
    /// Say what a module imports.
    Read(u64, String, Arc<Script>),
    /// End.
    Shutdown,
}

#[derive(Default)]
struct Inbox {
    waiting: VecDeque<Message>,
    /// Whether the thread has nothing to do but to wait for more.
    is_watched: bool,
}

/// What everybody may know of a V8 thread.
#[derive(Default)]
pub(crate) struct Worker {
    inbox: Mutex<Inbox>,
    arrived: Condvar,
    pub(crate) turns: Arc<Turns>,
    /// The guests that are here, for those who must tell them that the thread is lost.
    frames: Mutex<HashMap<u64, Arc<Frame>>>,
    /// Those who wait to be told what a module imports.
    readers: Mutex<HashMap<u64, oneshot::Sender<Imports>>>,
    next_reader: AtomicU64,
    /// Guests that are here or on their way.
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
            .stack_size(stack::THREAD)
            .spawn(move || {
                fatal::this_thread_is(&of_thread);
                // Nobody must wait for a thread that ended, however it did.
                let _ending = GivenUpAtTheEnd(Arc::clone(&of_thread));
                Thread::new(of_thread, dynamic_code).run();
            })
            .map_err(|error| Error::runtime(format!("a V8 thread cannot start: {error}")))?;
        Ok(worker)
    }

    pub(crate) fn send(&self, message: Message) {
        self.inbox.lock().waiting.push_back(message);
        self.arrived.notify_one();
    }

    /// Sends a guest to the thread.
    pub(crate) fn admit(&self, frame: Arc<Frame>) {
        {
            let mut frames = self.frames.lock();
            // Whoever gives the thread up has told those that he found here, and nobody will tell another.
            if self.is_lost() {
                frame.tell(Event::Displaced { suspect: false });
                return;
            }
            frames.insert(frame.id, Arc::clone(&frame));
        }
        self.load.fetch_add(1, Ordering::Relaxed);
        self.send(Message::Start(frame));
    }

    /// Has the thread say what the module in the file at `path` imports. Whoever waits is told nothing if the thread is lost.
    pub(crate) fn read(&self, path: String, script: Arc<Script>) -> oneshot::Receiver<Imports> {
        let (answer, answered) = oneshot::channel();
        let id = self.next_reader.fetch_add(1, Ordering::Relaxed);
        {
            let mut readers = self.readers.lock();
            // As with guests: whoever gives the thread up looks here once.
            if self.is_lost() {
                return answered;
            }
            readers.insert(id, answer);
        }
        self.send(Message::Read(id, path, script));
        answered
    }

    /// How busy the thread is: first what waits for a turn, then how many guests are here.
    pub(crate) fn load(&self) -> (usize, usize) {
        let inbox = self.inbox.lock();
        (inbox.waiting.len() + usize::from(!inbox.is_watched), self.load.load(Ordering::Relaxed))
    }

    /// Stops the guest if it has the turn, and forgets it.
    pub(crate) fn cancel(&self, frame: &Frame) {
        frame.cancel();
        self.turns.stop_frame(frame.id, Stop::Cancelled);
        self.send(Message::Cancel(frame.id));
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Gives the thread up, because `stuck` keeps it from going on. The others run again elsewhere.
    pub(crate) fn give_up_for(&self, stuck: &Stuck) {
        self.give_up(Some((stuck.frame.id, Event::Ended(Err(stuck.error())))));
    }

    /// Gives the thread up. A guest may have to be told something else than to run again elsewhere.
    fn give_up(&self, mut culprit: Option<(u64, Event)>) {
        let frames = {
            let mut frames = self.frames.lock();
            self.lost.store(true, Ordering::Release);
            std::mem::take(&mut *frames)
        };
        self.readers.lock().clear();
        for frame in frames.into_values() {
            let event = culprit.take_if(|(id, _)| *id == frame.id).map(|(_, event)| event);
            frame.tell(event.unwrap_or(Event::Displaced { suspect: false }));
        }
        // Under the lock, or the thread could begin to wait right after it looked.
        let _inbox = self.inbox.lock();
        self.arrived.notify_one();
    }

    /// On the thread itself, when V8 ran out of memory and cannot go on.
    pub(crate) fn die(&self) {
        let alone = self.load.load(Ordering::Relaxed) == 1;
        let culprit =
            self.turns.take_stuck(Stop::Heap).map(|stuck| match alone || stuck.frame.alone {
                true => (stuck.frame.id, Event::Ended(Err(stuck.error()))),
                false => (stuck.frame.id, Event::Displaced { suspect: true }),
            });
        self.give_up(culprit);
    }

    /// The next message, if it is here already.
    fn next_here(&self) -> Option<Message> {
        self.inbox.lock().waiting.pop_front()
    }

    /// Waits for the next message; nothing once the thread is lost.
    fn next(&self) -> Option<Message> {
        let mut inbox = self.inbox.lock();
        inbox.is_watched = true;
        let next = loop {
            if self.is_lost() {
                break None;
            }
            match inbox.waiting.pop_front() {
                Some(message) => break Some(message),
                None => self.arrived.wait(&mut inbox),
            }
        };
        inbox.is_watched = false;
        next
    }

    fn forget(&self, frame: u64) {
        self.load.fetch_sub(1, Ordering::Relaxed);
        self.frames.lock().remove(&frame);
    }
}

struct GivenUpAtTheEnd(Arc<Worker>);

impl Drop for GivenUpAtTheEnd {
    fn drop(&mut self) {
        self.0.give_up(None);
    }
}

struct Thread {
    worker: Arc<Worker>,
    dynamic_code: bool,
    stack: Stack,
    /// Guests that wait, and the isolates that they are in. They go before those.
    residents: HashMap<u64, (usize, Box<Resident>)>,
    isolates: HashMap<usize, Warm>,
    /// Where modules are read, which nobody runs in.
    reader: Option<Warm>,
    next_isolate: usize,
    /// Where the last guest began.
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
                        // Who has left hears nothing.
                        let _ = reader.send(imports);
                    }
                }
                Message::Shutdown => break,
            }
        }
        // Contexts go before their isolates.
        for (isolate, resident) in std::mem::take(&mut self.residents).into_values() {
            self.leave(isolate, resident);
        }
    }

    /// The next message. While there is none, the next guest's globals are made, which takes longer than most guests do.
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
                frame.tell(Event::Ended(Err(error)));
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
        // The fullest one, so that others become empty.
        if let Some((id, _)) = candidates.max_by_key(|(_, warm)| warm.guests()) {
            return Ok(*id);
        }
        // Isolates for other limits are rarely wanted again.
        self.isolates.retain(|_, warm| !warm.is_empty() || warm.takes(memory, false));
        let warm = Warm::new(memory, frame.alone, &self.stack, &self.worker.turns)?;
        self.next_isolate += 1;
        self.isolates.insert(self.next_isolate, warm);
        Ok(self.next_isolate)
    }

    fn read(&mut self, path: &str, script: &Script) -> Result<Imports> {
        let mut warm = match self.reader.take() {
            Some(warm) => warm,
            None => Warm::new(READING, true, &self.stack, &self.worker.turns)?,
        };
        let mut entered = warm.enter();
        let (imports, _) =
            entered.growing(|entered| guest::read_module(entered.isolate(), path, &script.code));
        drop(entered);
        self.reader = Some(warm).filter(|warm| !warm.is_bloated());
        Ok(imports)
    }

    /// Lets the guest go on until it waits for others, or is over.
    fn go_on(&mut self, isolate: usize, mut resident: Box<Resident>, mut begins: bool) {
        let frame = Arc::clone(&resident.frame);
        loop {
            let Some((came_back, end)) = self.take_turn(isolate, resident, begins) else {
                self.worker.forget(frame.id);
                frame.tell(Event::Ended(Err(Error::runtime("a V8 thread lost a guest"))));
                return;
            };
            resident = came_back;
            begins = false;
            let end = match end {
                None => match serve_at_once(&mut resident) {
                    Served::Something => continue,
                    Served::Nothing => None,
                    Served::Last(end) => Some(Event::Ended(end)),
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
                    frame.tell(event);
                }
            }
            return;
        }
    }

    /// One turn, and what it means for the job: nothing when the guest waits.
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
            Some(Event::Ended(Err(Limit::Stack { bytes: stack::GUEST as u64 }.into())))
        } else {
            end_of_turn(&mut resident, state, stop, shared_with_others, growth)
        };
        if frame.buffers.is_breached() && stop.is_none() {
            // What a guest had is freed before the next one wants it.
            entered.isolate().low_memory_notification();
        }
        entered.pump();
        drop(entered);
        if stop == Some(Stop::Heap) {
            warm.retire();
        }
        Some((resident, end))
    }

    /// Takes the guest out of its isolate.
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
        // A deep recursion has filled many. Whoever comes next needs one.
        let goes = warm.is_retired() || warm.is_bloated();
        if goes || self.isolates.iter().any(|(other, warm)| *other != isolate && warm.has_room()) {
            self.isolates.remove(&isolate);
        }
    }
}

/// What the turn means for the job; `None` when the guest waits.
fn end_of_turn(
    resident: &mut Resident,
    state: State,
    stop: Option<Stop>,
    shared_with_others: bool,
    growth: i64,
) -> Option<Event> {
    let limits = &resident.frame.job.limits;
    match stop {
        Some(Stop::Heap) if shared_with_others => return Some(Event::Displaced { suspect: true }),
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
            trap: "it awaits a promise that nothing will settle".to_owned(),
        })),
        State::Stopped => Err(Error::runtime("V8 stopped a guest and did not say why")),
    }))
}

/// What came of working on a guest's questions on the spot.
enum Served {
    /// There are answers.
    Something,
    /// Everything that it asked takes longer, or it asked nothing.
    Nothing,
    /// The job's result is settled.
    Last(Result<()>),
}

/// How much is answered before the guest takes it, in bytes: answers wait outside of any limit.
const ANSWERED_AT_ONCE: usize = 1 << 20;

/// Works on what the guest asked, as far as that needs no waiting: reading and writing objects mostly does not. So a guest need
/// not leave its thread for them. The rest goes to the one who runs the job.
fn serve_at_once(resident: &mut Resident) -> Served {
    let frame = Arc::clone(&resident.frame);
    let _reactor = frame.executor.enter();
    let (mut served, mut answered) = (Served::Nothing, 0);
    let mut rest = Vec::new();
    let mut asked = std::mem::take(&mut resident.conversation.asked).into_iter();
    for (id, operation) in asked.by_ref() {
        // Nobody else looks at a guest between its turns.
        if frame.is_cancelled() {
            return Served::Last(Err(Error::new(Reason::Cancelled)));
        }
        let time = frame.job.limits.compute_time;
        if frame.computing_time() > time {
            return Served::Last(Err(Limit::ComputeTime { time }.into()));
        }
        let nested = matches!(operation, Operation::Run(_) | Operation::RunMany(_));
        let mut service = match operation {
            // Nobody waits for it.
            Operation::Log(message) => {
                log(&frame, &message);
                continue;
            }
            operation => frame.serve(operation),
        };
        if nested {
            // The frame's permit and place are a matter between the dispatcher and its own task.
            rest.push((id, service));
            continue;
        }
        let mut context = Context::from_waker(Waker::noop());
        // A host that panics must not take the other guests of this thread with it.
        match catch_unwind(AssertUnwindSafe(|| service.as_mut().poll(&mut context))) {
            Ok(Poll::Ready(answer)) => {
                if let Ok(Answer::Blob(content)) = &answer {
                    answered += content.len();
                }
                resident.conversation.answer(id, answer);
                served = Served::Something;
            }
            Ok(Poll::Pending) => rest.push((id, service)),
            Err(_) => {
                return Served::Last(Err(Error::runtime(
                    "the host panicked at an operation of a guest",
                )));
            }
        }
        if frame.session.has_ended() {
            return Served::Last(Ok(()));
        }
        if answered > ANSWERED_AT_ONCE {
            break;
        }
    }
    resident.conversation.asked = asked.collect();
    if !rest.is_empty() {
        frame.tell(Event::Asked(rest));
    }
    served
}

/// The entry is through, or failed, and may have asked for things without waiting for them. Lines of the log, its outcome and its
/// own words count all the same.
fn serve_last(resident: &mut Resident) {
    let frame = Arc::clone(&resident.frame);
    for (_, operation) in std::mem::take(&mut resident.conversation.asked) {
        match operation {
            Operation::Log(message) => log(&frame, &message),
            operation @ (Operation::Out(_) | Operation::Fail(_)) => {
                // These are done at once.
                let _ =
                    frame.serve(operation).as_mut().poll(&mut Context::from_waker(Waker::noop()));
            }
            _ => {}
        }
    }
}

/// Whoever listens may panic, too.
fn log(frame: &Frame, message: &str) {
    let _ = catch_unwind(AssertUnwindSafe(|| frame.session.log(message)));
}
