//! The part of a job that lives on its V8 thread: the guest's globals, modules and operations.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use deno_core::v8;
use manifold_runtime_api::{Error, Limit, MemoryReservation, Result};

use super::Frame;
use super::conversation::Conversation;
use crate::guest::microtasks::Microtasks;
use crate::limits::heap::CONTEXT_BYTES;

/// The guest that has the turn in an isolate. Kept in a slot of the isolate.
pub(crate) type Current = Rc<RefCell<Option<Box<Resident>>>>;

/// Returns the result of `with` for the guest that has the turn. `None` if there is none.
pub(crate) fn with<T>(current: &Current, with: impl FnOnce(&mut Resident) -> T) -> Option<T> {
    current.borrow_mut().as_deref_mut().map(with)
}

/// Like [`with`], for a function that V8 calls.
pub(crate) fn with_current<T>(
    scope: &v8::PinScope<'_, '_>,
    with: impl FnOnce(&mut Resident) -> T,
) -> Option<T> {
    let current = scope.get_slot::<Current>()?.clone();
    self::with(&current, with)
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
    /// Returns whether the operations that wait for the host take more memory than the guest may have.
    pub(crate) fn is_over_memory(&self) -> bool {
        self.conversation.open_bytes() > self.frame.job.limits.memory_bytes
    }

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
