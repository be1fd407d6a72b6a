//! The host functions that the prelude uses.
//!
//! [`arguments`] reads the guest's values, and [`results`] creates those that the guest gets.

mod arguments;
mod results;

use deno_core::v8;
use manifold_runtime_api::bstr::ByteSlice;
use v8::MapFnTo;

use crate::job::with_current;
use crate::values::{Made, make_room, new_bytes, text_up_to, throw_type_error};
use arguments::{OPERATION_BYTES, Reader, read_operation};
pub(crate) use results::write_answer;

/// Returns the host functions and their names in the prelude.
fn functions() -> [(&'static str, v8::FunctionCallback); 4] {
    [
        ("op", ask.map_fn_to()),
        ("log", log.map_fn_to()),
        ("encode", encode.map_fn_to()),
        ("decode", decode.map_fn_to()),
    ]
}

/// Returns the addresses of the host functions, which a snapshot refers to but cannot contain.
pub(crate) fn external_references() -> Vec<v8::ExternalReference> {
    functions().map(|(_, function)| v8::ExternalReference { function }).into()
}

/// Creates the object of host functions that the prelude takes.
pub(crate) fn native_functions<'s>(
    scope: &v8::PinScope<'s, '_>,
) -> Made<v8::Local<'s, v8::Object>> {
    let native = v8::Object::new(scope);
    for (name, function) in functions() {
        let template = v8::FunctionTemplate::new_raw(scope, function);
        let function = template.get_function(scope)?;
        let name = v8::String::new(scope, name)?;
        function.set_name(name);
        native.set(scope, name.into(), function.into())?;
    }
    Some(native)
}

/// `op(number, first, second, third)`: starts an operation of the host and returns a promise for its
/// result.
fn ask<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    arguments: v8::FunctionCallbackArguments<'s>,
    mut answer: v8::ReturnValue<'_, v8::Value>,
) {
    let Some(resolver) = v8::PromiseResolver::new(scope) else { return };
    let promise = resolver.get_promise(scope);
    let limit =
        with_current(scope, |current| current.frame.job.limits.guest_request_bytes).unwrap_or(0);
    let (operation, bytes) = match read_operation(scope, &arguments, limit) {
        Some(Ok(operation)) => operation,
        // A breached limit is not reported to the guest: the job ends.
        Some(Err(error)) if error.breached_limit().is_some() => {
            with_current(scope, |current| current.verdict = Some(error));
            scope.terminate_execution();
            return;
        }
        Some(Err(error)) => {
            let resolver = v8::Global::new(scope, resolver);
            let breached = with_current(scope, |current| {
                current.conversation.refuse(error, OPERATION_BYTES, resolver);
                current.is_over_memory()
            });
            if breached != Some(false) {
                scope.terminate_execution();
            }
            answer.set(promise.into());
            return;
        }
        // Reading the arguments called into the guest, which threw.
        None => return,
    };
    let resolver = v8::Global::new(scope, resolver);
    let breached = with_current(scope, |current| {
        current.conversation.ask(operation, bytes, resolver);
        current.is_over_memory()
    });
    if breached != Some(false) {
        scope.terminate_execution();
    }
    answer.set(promise.into());
}

/// `log(text)`: writes to the job's log.
fn log<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    arguments: v8::FunctionCallbackArguments<'s>,
    _: v8::ReturnValue<'_, v8::Value>,
) {
    let message = arguments.get(0);
    let Ok(text) = v8::Local::<v8::String>::try_from(message) else { return };
    // Text over the log's limit would be dropped later, and must not accumulate here until then.
    let kept = with_current(scope, |current| current.log_bytes_left).unwrap_or(0);
    if kept == 0 {
        return;
    }
    let message = text_up_to(scope, text, usize::try_from(kept).unwrap_or(usize::MAX));
    with_current(scope, |current| {
        current.log_bytes_left = kept.saturating_sub((message.len() as u64).max(1));
        current.conversation.log(message);
    });
}

/// `encode(text)`: encodes a string as UTF-8.
fn encode<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    arguments: v8::FunctionCallbackArguments<'s>,
    mut answer: v8::ReturnValue<'_, v8::Value>,
) {
    let Ok(text) = v8::Local::<v8::String>::try_from(arguments.get(0)) else { return };
    if !make_room(scope, text.utf8_length(scope)) {
        return;
    }
    if let Some(bytes) = new_bytes(scope, text.to_rust_string_lossy(scope).as_bytes()) {
        answer.set(bytes.into());
    }
}

/// `decode(bytes, fatal)`: decodes UTF-8 to a string.
fn decode<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    arguments: v8::FunctionCallbackArguments<'s>,
    mut answer: v8::ReturnValue<'_, v8::Value>,
) {
    let mut reader = Reader::new(u64::MAX);
    let Some(Ok(bytes)) = reader.bytes(arguments.get(0)) else {
        throw_type_error(scope, "decode expects a typed array or a DataView");
        return;
    };
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) if arguments.get(1).is_true() => {
            throw_type_error(scope, "the bytes are not valid UTF-8");
            return;
        }
        Err(error) => error.as_bytes().to_str_lossy().into_owned(),
    };
    match v8::String::new(scope, &text) {
        Some(text) => answer.set(text.into()),
        None => throw_type_error(scope, "the text exceeds the maximum length of a string"),
    }
}
