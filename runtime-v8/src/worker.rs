//! A V8 thread, as other threads see it: its messages, its guests, and how it is given up.
//!
//! The thread runs many guests in a few isolates, one turn at a time.

mod serve;
mod thread;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use manifold_runtime_api::abi::Answer;
use manifold_runtime_api::{Error, Reason, Result, Status};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::exception::SyntaxProblem;
use crate::fatal;
use crate::job::{Event, Frame, OperationId};
use crate::limits::Stop;
use crate::limits::stack;
use crate::limits::turn::{Stuck, Turns};
use crate::prepare::Script;
use thread::Thread;

/// The specifiers that a module imports, or the reason why it is not a module.
pub(crate) type Imports = std::result::Result<Vec<String>, SyntaxProblem>;

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
        std::thread::Builder::new()
            .name("manifold-v8".to_owned())
            .stack_size(stack::THREAD_BYTES)
            .spawn(move || {
                fatal::register_thread(&of_thread);
                // However the thread ends, no caller may keep waiting for it.
                let _ending = GiveUpOnDrop(Arc::clone(&of_thread));
                Thread::new(of_thread, dynamic_code).run();
            })
            .map_err(|error| {
                // A machine that is short of threads now may have some later.
                Error::new(Reason::RuntimeFailed {
                    problem: format!("cannot start a V8 thread: {error}"),
                    status: Status::Transient,
                })
            })?;
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
