//! Warm isolates: each has a heap of its own, in which every guest gets fresh globals.

use std::cell::RefCell;
use std::ffi::c_void;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;

use deno_core::v8;
use manifold_runtime_api::{Limits, Result};

use crate::buffers::Buffers;
use crate::fatal;
use crate::guest::{self, Globals};
use crate::operations::{self, Current};
use crate::snapshot;
use crate::stack::Stack;
use crate::turn::{Stop, Turns};

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

/// The measured heap size of one guest's globals, in bytes.
pub(crate) const CONTEXT_BYTES: u64 = 112 << 10;

/// The heap that an isolate needs for itself, in bytes.
const BASE_BYTES: u64 = 8 << 20;

/// The range to which a limit on the heap is clamped, in bytes. V8 ends the process if a single
/// object grows over V8's own bounds, which are not below this range's end.
const HEAP_BYTES: RangeInclusive<u64> = (8 << 20)..=(1 << 30);

/// Returns the heap limit of a guest with these limits, in bytes. Array buffers are counted
/// separately.
pub(crate) fn heap_bytes(limits: &Limits) -> u64 {
    limits.memory_bytes.clamp(*HEAP_BYTES.start(), *HEAP_BYTES.end())
}

/// The additional heap in bytes that V8 gets after a guest exceeded its limit, so that the guest can
/// be stopped. It is larger than any single object.
const RESERVE_BYTES: usize = 4 << 30;

/// The data of an isolate's heap callbacks.
struct HeapWatch {
    turns: Arc<Turns>,
    limit: u64,
}

/// Returns V8's heap limit for an isolate whose guests may use `memory_bytes` each. It is higher,
/// because just below its own limit V8 spends all time on garbage collection.
fn v8_heap_bytes(memory_bytes: u64) -> usize {
    usize::try_from(memory_bytes.saturating_add(BASE_BYTES).saturating_add(memory_bytes / 2))
        .unwrap_or(usize::MAX / 2)
}

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
    /// The data of V8's callbacks.
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
        let heap = v8_heap_bytes(memory_bytes);
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
        isolate.set_promise_reject_callback(guest::promise_rejected);
        isolate.set_host_import_module_dynamically_callback(guest::refuse_dynamic_import);
        isolate.set_oom_error_handler(fatal::out_of_memory);
        let watch = Box::new(HeapWatch {
            turns: Arc::clone(turns),
            limit: memory_bytes.saturating_add(BASE_BYTES),
        });
        let watching = std::ptr::from_ref(&*watch).cast_mut().cast();
        isolate.add_near_heap_limit_callback(near_heap_limit, watching);
        isolate.add_gc_epilogue_callback(collected, watching, v8::GCType::kGCTypeMarkSweepCompact);
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
            && self.heap_used + BASE_BYTES / 2 < self.watch.limit
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
        let limit = v8_heap_bytes(self.0.memory_bytes);
        self.0.isolate.low_memory_notification();
        self.0.isolate.remove_near_heap_limit_callback(near_heap_limit, limit);
        let watching = std::ptr::from_ref(&*self.0.watch).cast_mut().cast();
        self.0.isolate.add_near_heap_limit_callback(near_heap_limit, watching);
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

/// V8's callback just below the heap limit. Stops the guest and raises the limit.
unsafe extern "C" fn near_heap_limit(watch: *mut c_void, current: usize, _: usize) -> usize {
    // SAFETY: `Warm` passed its `HeapWatch`, which lives as long as the isolate.
    let watch = unsafe { &*watch.cast::<HeapWatch>() };
    watch.turns.stop_current(Stop::Heap);
    current.saturating_add(RESERVE_BYTES)
}

/// V8's callback after a garbage collection, when the heap contains only what guests hold. Stops
/// the guest if that exceeds the limit.
unsafe extern "C" fn collected(
    isolate: v8::UnsafeRawIsolatePtr,
    _: v8::GCType,
    _: v8::GCCallbackFlags,
    watch: *mut c_void,
) {
    // SAFETY: as in `near_heap_limit`, and V8 passes the isolate that it has collected.
    let (watch, mut isolate) =
        unsafe { (&*watch.cast::<HeapWatch>(), v8::Isolate::from_raw_isolate_ptr(isolate)) };
    if isolate.get_heap_statistics().used_heap_size() as u64 > watch.limit {
        watch.turns.stop_current(Stop::Heap);
    }
}
