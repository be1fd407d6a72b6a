//! Warm isolates: each has a heap of its own, in which every guest gets fresh globals.

#![expect(unsafe_code, reason = "isolates are entered and exited by hand")]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use deno_core::v8;
use manifold_runtime_api::Result;

use crate::fatal;
use crate::guest::globals::Globals;
use crate::guest::{modules, rejections};
use crate::job::Current;
use crate::limits::buffers::Buffers;
use crate::limits::heap::{self, HeapWatch};
use crate::limits::stack::Stack;
use crate::limits::turn::Turns;
use crate::operations;
use crate::snapshot;

/// The maximum number of guests in one isolate at a time. A garbage collection traverses all live
/// objects of the isolate, which takes a millisecond for each megabyte. This many guests stay below
/// the heap size at which V8 starts to collect. A new isolate takes 1.5 ms and 1.6 MB.
const MAX_GUESTS: usize = 120;

/// The maximum size of an isolate's young generation, which holds short-lived objects, in bytes.
const YOUNG_GENERATION_BYTES: usize = 12 << 20;

/// The number of guests after which an isolate is replaced once it is empty.
const MAX_SERVED: usize = 20_000;

/// The heap size in bytes above which an empty isolate is replaced. Guests can leave objects behind
/// that no other guest can see, but that are never freed, such as the names of registered symbols.
const BLOATED_BYTES: u64 = 48 << 20;

/// A warm isolate, which belongs to one thread.
pub(crate) struct Warm {
    isolate: v8::OwnedIsolate,
    pub(crate) buffers: Arc<Buffers>,
    pub(crate) current: Current,
    /// The heap limit of every guest in the isolate, in bytes.
    memory_bytes: u64,
    /// Whether the isolate is for a single guest.
    alone: bool,
    /// The number of guests in the isolate.
    live: usize,
    /// The number of guests that were ever admitted.
    served: usize,
    /// The heap use when it was last measured, in bytes.
    heap_used: u64,
    /// Whether the isolate accepts no more guests.
    retired: bool,
    /// Globals for the next guest, and the heap growth in bytes that creating them caused.
    spare: Option<(Globals, i64)>,
    /// Whether V8 was given more heap than the limit, to stop a guest.
    over_limit: bool,
    /// The data of V8's callbacks. Declared after the isolate, so that it is dropped after it.
    watch: Box<HeapWatch>,
}

impl Warm {
    /// Creates an isolate on this thread, whose guests may use `memory_bytes` each.
    pub(crate) fn new(
        memory_bytes: u64,
        alone: bool,
        stack: &Stack,
        turns: &Arc<Turns>,
    ) -> Result<Self> {
        let buffers = Buffers::new();
        let heap = heap::v8_bytes(memory_bytes);
        let parameters = v8::CreateParams::default()
            .snapshot_blob(v8::StartupData::from(snapshot::blob()?))
            .external_references(operations::external_references().into())
            .array_buffer_allocator(buffers.allocator())
            .heap_limits(0, heap)
            .set_max_young_generation_size_in_bytes(YOUNG_GENERATION_BYTES);
        let mut isolate = v8::Isolate::new(parameters);
        stack.limit(&isolate);
        buffers.attach(isolate.thread_safe_handle());
        isolate.set_microtasks_policy(v8::MicrotasksPolicy::Explicit);
        isolate.set_allow_atomics_wait(false);
        isolate.set_promise_reject_callback(rejections::promise_rejected);
        isolate.set_host_import_module_dynamically_callback(modules::refuse_dynamic_import);
        isolate.set_oom_error_handler(fatal::out_of_memory);
        let watch = HeapWatch::new(memory_bytes, turns);
        // SAFETY: `Warm` owns the box and drops it after the isolate.
        unsafe { watch.attach(&mut isolate) };
        let current: Current = Rc::new(RefCell::new(None));
        isolate.set_slot(Rc::clone(&current));
        // SAFETY: `Isolate::new` entered the isolate on this thread. From here on it is entered
        // only where it is used.
        unsafe { isolate.exit() };
        Ok(Self {
            isolate,
            buffers,
            current,
            memory_bytes,
            alone,
            live: 0,
            served: 0,
            heap_used: 0,
            retired: false,
            spare: None,
            over_limit: false,
            watch,
        })
    }

    /// Returns whether the isolate accepts a guest with this limit, which may need an isolate of
    /// its own.
    pub(crate) fn takes(&self, memory_bytes: u64, alone: bool) -> bool {
        !alone && self.memory_bytes == memory_bytes && self.has_room()
    }

    /// Returns whether the isolate accepts any guest.
    pub(crate) fn has_room(&self) -> bool {
        !self.retired && !self.alone && self.live < MAX_GUESTS
    }

    /// Returns the number of guests in the isolate.
    pub(crate) fn guests(&self) -> usize {
        self.live
    }

    /// Returns whether no guest is in the isolate.
    pub(crate) fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Returns whether the isolate accepts no later guest.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired || self.alone
    }

    /// Enters the isolate until the returned guard is dropped.
    pub(crate) fn enter(&mut self) -> Entered<'_> {
        // SAFETY: the isolate belongs to this thread, and `Entered` exits it again.
        unsafe { self.isolate.enter() };
        Entered(self)
    }

    /// Returns whether to create globals for the next guest in advance: there are none yet, and
    /// they do not bring the heap to its limit.
    pub(crate) fn wants_spare(&self) -> bool {
        self.has_room()
            && self.spare.is_none()
            && self.heap_used + heap::BASE_BYTES / 2 < self.watch.limit()
    }

    /// Returns whether more than one guest is in the isolate.
    pub(crate) fn is_shared(&self) -> bool {
        self.live > 1
    }

    /// Returns whether the heap is so large that the isolate should be replaced.
    pub(crate) fn is_bloated(&self) -> bool {
        self.heap_used > BLOATED_BYTES
    }

    /// Counts a new guest.
    pub(crate) fn admit(&mut self) {
        self.live += 1;
        self.served += 1;
    }

    /// Counts a guest that has left. Its globals are garbage from then on.
    pub(crate) fn release(&mut self) {
        self.live -= 1;
        self.retired |= self.served >= MAX_SERVED;
    }

    /// Marks the isolate as retired, because one of its guests has filled the heap.
    pub(crate) fn retire(&mut self) {
        self.retired = true;
        self.over_limit = true;
    }

    pub(crate) fn handle(&self) -> v8::IsolateHandle {
        self.isolate.thread_safe_handle()
    }
}

/// An isolate that this thread has entered.
pub(crate) struct Entered<'a>(&'a mut Warm);

impl Entered<'_> {
    pub(crate) fn isolate(&mut self) -> &mut v8::Isolate {
        &mut self.0.isolate
    }

    /// Returns globals for the guest that has the turn, and the heap growth in bytes that they
    /// caused before the turn.
    pub(crate) fn globals(&mut self, dynamic_code: bool) -> Option<(Globals, i64)> {
        let spare = self.0.spare.take();
        spare.or_else(|| Some((Globals::new(&mut self.0.isolate, dynamic_code)?, 0)))
    }

    /// Creates the next guest's globals in advance.
    pub(crate) fn make_spare(&mut self, dynamic_code: bool) {
        let (globals, growth) =
            self.growing(|entered| Globals::new(&mut entered.0.isolate, dynamic_code));
        self.0.spare = globals.map(|globals| (globals, growth));
    }

    /// Returns the result of `work`, and by how many bytes the heap grew meanwhile, garbage
    /// included. Memory freed by a collection is subtracted.
    pub(crate) fn growing<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> (T, i64) {
        self.count_heap();
        let before = self.0.heap_used;
        let done = work(self);
        self.count_heap();
        (done, self.0.heap_used.cast_signed() - before.cast_signed())
    }

    fn count_heap(&mut self) {
        // The statistics of the whole heap count its contexts one by one, so those of the spaces
        // are summed instead.
        let isolate = &mut self.0.isolate;
        let spaces = (0..isolate.number_of_heap_spaces())
            .filter_map(|space| isolate.get_heap_space_statistics(space));
        self.0.heap_used = spaces.map(|space| space.space_used_size() as u64).sum();
    }

    /// Restores V8's heap limit after a guest that exceeded it has left, so that the other guests
    /// have the same limit as before.
    pub(crate) fn restore_limit(&mut self) {
        if !std::mem::take(&mut self.0.over_limit) || self.0.live == 1 {
            return;
        }
        let limit = heap::v8_bytes(self.0.memory_bytes);
        self.0.isolate.low_memory_notification();
        let Warm { isolate, watch, .. } = &mut *self.0;
        // SAFETY: `Warm::new` attached the watch to this isolate.
        unsafe { watch.restore(isolate, limit) };
    }

    /// Runs the tasks that V8 has posted to this thread.
    pub(crate) fn pump(&mut self) {
        let platform = v8::V8::get_current_platform();
        while v8::Platform::pump_message_loop(&platform, &self.0.isolate, false) {}
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        // SAFETY: `enter` entered the isolate on this thread, and every isolate that was entered
        // since has been exited.
        unsafe { self.0.isolate.exit() };
    }
}

impl Drop for Warm {
    fn drop(&mut self) {
        // SAFETY: the isolate belongs to this thread. Dropping it requires it to be entered, and
        // exits it.
        unsafe { self.isolate.enter() };
        self.spare = None;
    }
}
