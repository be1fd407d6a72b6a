//! The state that lives on a V8 thread, and the turns that it gives to guests.

use std::collections::HashMap;
use std::sync::Arc;

use manifold_runtime_api::{Error, JobPhase, Limit, Reason, Report, Result};

use super::serve::{Served, serve_at_once, serve_last};
use super::{Imports, Message, Worker};
use crate::guest::{self, State, modules};
use crate::isolate::Warm;
use crate::job::{Event, Frame, Resident};
use crate::limits::Stop;
use crate::limits::heap;
use crate::limits::stack::{self, Stack};
use crate::prepare::Script;

/// The heap limit of the isolate that parses modules, in bytes. V8's representation of code is a
/// few times as large as the code.
const READER_HEAP_BYTES: u64 = 512 << 20;

/// The state that lives on a V8 thread.
pub(super) struct Thread {
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
    pub(super) fn new(worker: Arc<Worker>, dynamic_code: bool) -> Self {
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

    /// Handles messages until the thread is shut down or given up.
    pub(super) fn run(mut self) {
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
        frame.session.report(Report::Phase(JobPhase::Start));
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
        let memory = heap::guest_bytes(&frame.job.limits);
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
            entered.growing(|entered| modules::read_module(entered.isolate(), path, &script.code));
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
    if resident.frame.buffers.is_breached() || resident.is_over_memory() {
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
