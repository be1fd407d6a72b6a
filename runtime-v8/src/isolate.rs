//! A warm isolate: a heap of its own, in which every guest gets fresh globals.

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

/// How many guests may be in one isolate at a time. Collecting garbage goes over all that live in it, a millisecond for each
/// megabyte, and so many stay below the size at which V8 begins to collect. A new isolate takes 1.5 ms and 1.6 MB.
const GUESTS: usize = 120;

/// The young generation: what guests make and soon forget. There are as many as isolates.
const YOUNG: usize = 12 << 20;

/// After so many guests an isolate that has become empty is replaced.
const SERVED: usize = 20_000;

/// An isolate that has become empty and whose heap is larger is replaced, too: guests can leave things behind that no other can
/// see, but that are never freed, such as the names of registered symbols.
const BLOATED: u64 = 48 << 20;

/// What the globals of one guest take, in bytes of the heap, measured.
pub(crate) const CONTEXT_BYTES: u64 = 112 << 10;

/// What an isolate needs for itself.
const BASE_BYTES: u64 = 8 << 20;

/// The least and the most that a limit on the heap can mean. V8 ends the process when it is asked to grow a single object over its own
/// bounds, which are no less than that.
const HEAP_BYTES: RangeInclusive<u64> = (8 << 20)..=(1 << 30);

/// What a guest with these limits may have on the heap. Array buffers are beside it.
pub(crate) fn heap_bytes(limits: &Limits) -> u64 {
    limits.memory_bytes.clamp(*HEAP_BYTES.start(), *HEAP_BYTES.end())
}

/// Room that V8 gets once a guest is over its limit, so that the guest can be stopped: more than any single object takes.
const RESERVE: usize = 4 << 30;

/// What V8's callbacks know of an isolate.
struct HeapWatch {
    turns: Arc<Turns>,
    limit: u64,
}

/// What V8 is told of an isolate whose guests may have so many bytes each. It is more than that, because just below its own limit V8
/// does nothing but look for garbage.
fn v8_heap_bytes(memory_bytes: u64) -> usize {
    usize::try_from(memory_bytes.saturating_add(BASE_BYTES).saturating_add(memory_bytes / 2))
        .unwrap_or(usize::MAX / 2)
}

pub(crate) struct Warm {
    isolate: v8::OwnedIsolate,
    pub(crate) buffers: Arc<Buffers>,
    pub(crate) current: Current,
    /// The limit of every guest in it.
    memory_bytes: u64,
    /// Whether it is for one guest only.
    alone: bool,
    /// Guests that are in it.
    live: usize,
    served: usize,
    /// Bytes of the heap, when they were counted last.
    heap_used: u64,
    /// Whether it takes no guest any more.
    retired: bool,
    /// Globals for the next guest, and by how much they made the heap grow.
    spare: Option<(Globals, i64)>,
    /// Whether V8 was given more room than the limit, to stop a guest.
    over_limit: bool,
    /// What V8's callbacks look at.
    watch: Box<HeapWatch>,
}

impl Warm {
    /// A new isolate on this thread, whose guests may use `memory_bytes` each.
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
            .set_max_young_generation_size_in_bytes(YOUNG);
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
        // SAFETY: `Isolate::new` entered it on this thread. From now on it is entered where it is used.
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

    /// Whether a guest with this limit, who wants to be alone or not, may come in.
    pub(crate) fn takes(&self, memory_bytes: u64, alone: bool) -> bool {
        !alone && self.memory_bytes == memory_bytes && self.has_room()
    }

    /// Whether it takes any guest.
    pub(crate) fn has_room(&self) -> bool {
        !self.retired && !self.alone && self.live < GUESTS
    }

    /// How many guests are in it.
    pub(crate) fn guests(&self) -> usize {
        self.live
    }

    /// Whether nobody is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Whether nobody will be in it any more.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired || self.alone
    }

    pub(crate) fn enter(&mut self) -> Entered<'_> {
        // SAFETY: the isolate belongs to this thread, and `Entered` leaves it again.
        unsafe { self.isolate.enter() };
        Entered(self)
    }

    /// Whether globals for its next guest are worth making ahead: there is none that has them already, and making them is not what
    /// takes the heap to its limit.
    pub(crate) fn wants_spare(&self) -> bool {
        self.has_room()
            && self.spare.is_none()
            && self.heap_used + BASE_BYTES / 2 < self.watch.limit
    }

    /// Whether there is more than one guest in it.
    pub(crate) fn is_shared(&self) -> bool {
        self.live > 1
    }

    /// Whether its heap has grown so much that a new one is better.
    pub(crate) fn is_bloated(&self) -> bool {
        self.heap_used > BLOATED
    }

    pub(crate) fn admit(&mut self) {
        self.live += 1;
        self.served += 1;
    }

    /// A guest has left. Its globals are garbage from now on.
    pub(crate) fn release(&mut self) {
        self.live -= 1;
        self.retired |= self.served >= SERVED;
    }

    /// Takes no guest any more, for one of those in it has filled the heap.
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

    /// Globals for the guest that has the turn, and by how much they had made the heap grow before the turn.
    pub(crate) fn globals(&mut self, dynamic_code: bool) -> Option<(Globals, i64)> {
        let spare = self.0.spare.take();
        spare.or_else(|| Some((Globals::new(&mut self.0.isolate, dynamic_code)?, 0)))
    }

    /// Makes the next guest's globals ahead.
    pub(crate) fn make_spare(&mut self, dynamic_code: bool) {
        let (globals, growth) =
            self.growing(|entered| Globals::new(&mut entered.0.isolate, dynamic_code));
        self.0.spare = globals.map(|globals| (globals, growth));
    }

    /// What `work` answers, and by how many bytes the heap grew meanwhile, garbage included. What was collected before is not counted.
    pub(crate) fn growing<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> (T, i64) {
        self.count_heap();
        let before = self.0.heap_used;
        let done = work(self);
        self.count_heap();
        (done, self.0.heap_used.cast_signed() - before.cast_signed())
    }

    fn count_heap(&mut self) {
        // The statistics of the whole heap count its contexts one by one.
        let isolate = &mut self.0.isolate;
        let spaces = (0..isolate.number_of_heap_spaces())
            .filter_map(|space| isolate.get_heap_space_statistics(space));
        self.0.heap_used = spaces.map(|space| space.space_used_size() as u64).sum();
    }

    /// Takes back the room that V8 was given to stop a guest, once that one has left: the others have the same limit as before.
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

    /// Runs what V8 left to be done by this thread.
    pub(crate) fn pump(&mut self) {
        let platform = v8::V8::get_current_platform();
        while v8::Platform::pump_message_loop(&platform, &self.0.isolate, false) {}
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        // SAFETY: `enter` entered it on this thread, and whatever was entered since has been left.
        unsafe { self.0.isolate.exit() };
    }
}

impl Drop for Warm {
    fn drop(&mut self) {
        // SAFETY: the isolate belongs to this thread. Its own drop expects to find it entered, and leaves it.
        unsafe { self.isolate.enter() };
        self.spare = None;
    }
}

unsafe extern "C" fn near_heap_limit(watch: *mut c_void, current: usize, _: usize) -> usize {
    // SAFETY: `Warm` passed the `HeapWatch` that it keeps as long as the isolate.
    let watch = unsafe { &*watch.cast::<HeapWatch>() };
    watch.turns.stop_current(Stop::Heap);
    current.saturating_add(RESERVE)
}

/// What is left after garbage was collected is what guests hold.
unsafe extern "C" fn collected(
    isolate: v8::UnsafeRawIsolatePtr,
    _: v8::GCType,
    _: v8::GCCallbackFlags,
    watch: *mut c_void,
) {
    // SAFETY: as above, and V8 calls with the isolate that it has collected.
    let (watch, mut isolate) =
        unsafe { (&*watch.cast::<HeapWatch>(), v8::Isolate::from_raw_isolate_ptr(isolate)) };
    if isolate.get_heap_statistics().used_heap_size() as u64 > watch.limit {
        watch.turns.stop_current(Stop::Heap);
    }
}
