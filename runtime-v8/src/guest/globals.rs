//! Fresh globals for one guest, from the snapshot.

use deno_core::v8;

use super::microtasks::Microtasks;
use crate::snapshot::PRELUDE_DATA;
use crate::values::Made;

/// Fresh globals, which no guest has used.
pub(crate) struct Globals {
    pub(super) context: v8::Global<v8::Context>,
    pub(super) microtasks: Microtasks,
    pub(super) start: v8::Global<v8::Function>,
    pub(super) exports: v8::Global<v8::Object>,
}

impl Globals {
    /// Creates globals. `None` if V8 was stopped.
    pub(crate) fn new(isolate: &mut v8::Isolate, dynamic_code: bool) -> Made<Self> {
        let microtasks = Microtasks::new(isolate)?;
        let queue = microtasks.as_ptr().as_ptr();
        v8::scope!(let scope, isolate);
        let options =
            v8::ContextOptions { microtask_queue: Some(queue), ..v8::ContextOptions::default() };
        let context = v8::Context::new(scope, options);
        context.set_allow_generation_from_strings(dynamic_code);
        let scope = &mut v8::ContextScope::new(scope, context);
        v8::tc_scope!(let scope, scope);
        let prelude = scope.get_context_data_from_snapshot_once::<v8::Object>(PRELUDE_DATA).ok()?;
        let begin = v8::Local::<v8::Function>::try_from(get(scope, prelude, "begin")?).ok()?;
        let start = v8::Local::<v8::Function>::try_from(get(scope, prelude, "start")?).ok()?;
        let exports = v8::Local::<v8::Object>::try_from(get(scope, prelude, "exports")?).ok()?;
        let nothing = v8::undefined(scope).into();
        begin.call(scope, nothing, &[])?;
        let (start, exports) = (v8::Global::new(scope, start), v8::Global::new(scope, exports));
        Some(Self { context: v8::Global::new(scope, context), microtasks, start, exports })
    }
}

fn get<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    object: v8::Local<'s, v8::Object>,
    name: &str,
) -> Made<v8::Local<'s, v8::Value>> {
    let name = v8::String::new(scope, name)?;
    object.get(scope, name.into())
}
