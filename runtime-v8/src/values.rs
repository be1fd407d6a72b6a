//! Strings, bytes and exceptions of V8, made from and to Rust's.

#![expect(unsafe_code, reason = "bytes are copied into V8's memory")]

use deno_core::v8;

use crate::job::with_current;

/// A value created by V8. `None` if the guest is being stopped or an exception was thrown.
pub(crate) type Made<T> = Option<T>;

/// Creates a string.
pub(crate) fn text<'s>(scope: &v8::PinScope<'s, '_>, text: &str) -> Made<v8::Local<'s, v8::Value>> {
    Some(v8::String::new(scope, text)?.into())
}

/// Returns the beginning of a text as UTF-8, at most `bytes` bytes.
pub(crate) fn text_up_to(
    scope: &v8::PinScope<'_, '_>,
    text: v8::Local<'_, v8::String>,
    bytes: usize,
) -> String {
    let mut buffer = vec![0; bytes.min(text.length().saturating_mul(3))];
    let written = text.write_utf8_v2(scope, &mut buffer, v8::WriteFlags::kReplaceInvalidUtf8, None);
    buffer.truncate(written);
    String::from_utf8(buffer).unwrap_or_default()
}

/// Throws a `TypeError` with this message.
pub(crate) fn throw_type_error(scope: &mut v8::PinScope<'_, '_>, message: &str) {
    if let Some(message) = v8::String::new(scope, message) {
        let error = v8::Exception::type_error(scope, message);
        scope.throw_exception(error);
    }
}

/// Returns whether the guest may have `bytes` more bytes in buffers. If not, stops the guest.
pub(crate) fn make_room(scope: &mut v8::PinScope<'_, '_>, bytes: usize) -> bool {
    let has_room = |scope: &mut v8::PinScope<'_, '_>| {
        with_current(scope, |current| current.frame.buffers.has_room_for(bytes)).unwrap_or(false)
    };
    if has_room(scope) {
        return true;
    }
    // Unreachable buffers may still be counted.
    scope.low_memory_notification();
    let room = has_room(scope);
    if !room {
        with_current(scope, |current| current.frame.buffers.breach());
        scope.terminate_execution();
    }
    room
}

/// Creates a `Uint8Array`. Stops the guest if it exceeds the guest's limit.
pub(crate) fn new_bytes<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    bytes: &[u8],
) -> Made<v8::Local<'s, v8::Uint8Array>> {
    if !make_room(scope, bytes.len()) {
        return None;
    }
    let buffer = v8::ArrayBuffer::new(scope, bytes.len());
    if let Some(data) = buffer.data() {
        // SAFETY: the buffer was just created with `bytes.len()` bytes, and no other code refers to
        // it yet.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), data.cast::<u8>().as_ptr(), bytes.len())
        };
    }
    v8::Uint8Array::new(scope, buffer, 0, bytes.len())
}
