//! Functions of V8 and ICU that the bindings link but do not declare, by the names of their symbols.
//!
//! V8's names are C++ names, mangled as the Itanium ABI prescribes (`c++filt` prints the
//! declarations). A mangled name contains the types of the parameters, so a function that another
//! version of V8 lacks or declares with other parameters fails to link. What a name does not
//! contain, such as the result type, has to be compared with the header named here when `deno_core`,
//! which is pinned to one version, is updated.

#![expect(unsafe_code, reason = "declares foreign functions")]

use std::ptr::NonNull;

use deno_core::v8;

unsafe extern "C" {
    /// `void v8::Isolate::SetStackLimit(uintptr_t)` (`include/v8-isolate.h`).
    #[link_name = "_ZN2v87Isolate13SetStackLimitEm"]
    pub(crate) fn set_stack_limit(isolate: v8::UnsafeRawIsolatePtr, limit: usize);

    /// The deleting destructor of `v8::internal::MicrotaskQueue`
    /// (`src/execution/microtask-queue.h`).
    #[link_name = "_ZN2v88internal14MicrotaskQueueD0Ev"]
    pub(crate) fn delete_microtask_queue(queue: NonNull<v8::MicrotaskQueue>);

    /// `ucal_setDefaultTimeZone` of ICU (`unicode/ucal.h`). The suffix is the version of the ICU
    /// that is linked with V8.
    #[link_name = "ucal_setDefaultTimeZone_77"]
    pub(crate) fn set_default_time_zone(zone: *const u16, status: *mut i32);
}
