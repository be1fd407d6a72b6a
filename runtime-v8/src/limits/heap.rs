//! The limit on a guest's share of V8's heap.
//!
//! V8 gets more heap than a guest may use. After each garbage collection, and if the heap still
//! reaches V8's own limit, the guest that has the turn is stopped.

#![expect(unsafe_code, reason = "V8's heap callbacks get an address")]

use std::ffi::c_void;
use std::ops::RangeInclusive;
use std::sync::Arc;

use deno_core::v8;
use manifold_runtime_api::Limits;

use super::Stop;
use super::turn::Turns;

/// The measured heap size of one guest's globals, in bytes.
pub(crate) const CONTEXT_BYTES: u64 = 112 << 10;

/// The heap that an isolate needs for itself, in bytes.
pub(crate) const BASE_BYTES: u64 = 8 << 20;

/// The range to which a limit on the heap is clamped, in bytes. V8 ends the process if a single
/// object grows over V8's own bounds, which are not below this range's end.
const HEAP_BYTES: RangeInclusive<u64> = (8 << 20)..=(1 << 30);

/// Returns the heap limit of a guest with these limits, in bytes. Array buffers are counted
/// separately.
pub(crate) fn guest_bytes(limits: &Limits) -> u64 {
    limits.memory_bytes.clamp(*HEAP_BYTES.start(), *HEAP_BYTES.end())
}

/// The additional heap in bytes that V8 gets after a guest exceeded its limit, so that the guest can
/// be stopped. It is larger than any single object.
const RESERVE_BYTES: usize = 4 << 30;

/// Returns V8's heap limit for an isolate whose guests may use `memory_bytes` each. It is higher,
/// because just below its own limit V8 spends all time on garbage collection.
pub(crate) fn v8_bytes(memory_bytes: u64) -> usize {
    usize::try_from(memory_bytes.saturating_add(BASE_BYTES).saturating_add(memory_bytes / 2))
        .unwrap_or(usize::MAX / 2)
}

/// Stops the guest that has the turn in an isolate if the heap exceeds the limit. The data of V8's
/// heap callbacks.
pub(crate) struct HeapWatch {
    turns: Arc<Turns>,
    limit: u64,
}

impl HeapWatch {
    /// Creates the watch of an isolate whose guests may use `memory_bytes` each.
    pub(crate) fn new(memory_bytes: u64, turns: &Arc<Turns>) -> Box<Self> {
        Box::new(Self { turns: Arc::clone(turns), limit: memory_bytes.saturating_add(BASE_BYTES) })
    }

    /// The heap use in bytes above which a guest is stopped.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Sets V8's callbacks in `isolate`.
    ///
    /// # Safety
    /// `self` must stay at its address for as long as the isolate exists.
    pub(crate) unsafe fn attach(&self, isolate: &mut v8::Isolate) {
        isolate.add_near_heap_limit_callback(near_heap_limit, self.data());
        isolate.add_gc_epilogue_callback(
            collected,
            self.data(),
            v8::GCType::kGCTypeMarkSweepCompact,
        );
    }

    /// Sets V8's heap limit to `v8_bytes` again, after [`near_heap_limit`] has raised it.
    ///
    /// # Safety
    /// Same as [`HeapWatch::attach`], which must have been called for this isolate.
    pub(crate) unsafe fn restore(&self, isolate: &mut v8::Isolate, v8_bytes: usize) {
        isolate.remove_near_heap_limit_callback(near_heap_limit, v8_bytes);
        isolate.add_near_heap_limit_callback(near_heap_limit, self.data());
    }

    fn data(&self) -> *mut c_void {
        std::ptr::from_ref(self).cast_mut().cast()
    }
}

/// V8's callback just below the heap limit. Stops the guest and raises the limit.
unsafe extern "C" fn near_heap_limit(watch: *mut c_void, current: usize, _: usize) -> usize {
    // SAFETY: `HeapWatch::attach` passed itself, and lives as long as the isolate.
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
