//! Rejected promises without a handler, which make a guest fail.

#![expect(unsafe_code, reason = "V8's callback gets its scope from a message")]

use deno_core::v8;

use crate::job::{Current, with};

/// Keeps track of rejected promises without a handler.
pub(crate) unsafe extern "C" fn promise_rejected(message: v8::PromiseRejectMessage<'_>) {
    v8::callback_scope!(unsafe scope, &message);
    let Some(current) = scope.get_slot::<Current>().cloned() else { return };
    let promise = v8::Global::new(scope, message.get_promise());
    match message.get_event() {
        v8::PromiseRejectEvent::PromiseRejectWithNoHandler => {
            let Some(reason) = message.get_value() else { return };
            let reason = v8::Global::new(scope, reason);
            with(&current, |resident| resident.unhandled.push((promise, reason)));
        }
        v8::PromiseRejectEvent::PromiseHandlerAddedAfterReject => {
            with(&current, |resident| {
                resident.unhandled.retain(|(rejected, _)| *rejected != promise)
            });
        }
        _ => {}
    }
}
