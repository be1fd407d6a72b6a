//! The host functions that the prelude uses, and the conversion of values between guest and host.

use std::cell::RefCell;
use std::rc::Rc;
use std::str::FromStr;

use deno_core::v8;
use manifold_runtime_api::abi::{Answer, Failure, Operation};
use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::{
    Call, EntryMode, Error, Limit, ObjectId, ObjectKind, ObjectRef, Result, TreeEntry,
};
use v8::MapFnTo;

use crate::frame::Resident;

/// The guest that has the turn in an isolate. Kept in a slot of the isolate.
pub(crate) type Current = Rc<RefCell<Option<Box<Resident>>>>;

/// A value created by V8. `None` if the guest is being stopped or an exception was thrown.
pub(crate) type Made<T> = Option<T>;

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

fn with_current<T>(
    scope: &v8::PinScope<'_, '_>,
    with: impl FnOnce(&mut Resident) -> T,
) -> Option<T> {
    let current = scope.get_slot::<Current>()?.clone();
    let mut current = current.borrow_mut();
    current.as_deref_mut().map(with)
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
            with_current(scope, |current| {
                current.conversation.refuse(error, OPERATION_BYTES, resolver)
            });
            answer.set(promise.into());
            return;
        }
        // Reading the arguments called into the guest, which threw.
        None => return,
    };
    let resolver = v8::Global::new(scope, resolver);
    let breached = with_current(scope, |current| {
        current.conversation.ask(operation, bytes, resolver);
        current.conversation.open_bytes() > current.frame.job.limits.memory_bytes
    });
    if breached != Some(false) {
        scope.terminate_execution();
    }
    answer.set(promise.into());
}

/// The bytes charged for every pending operation, in addition to its arguments.
const OPERATION_BYTES: u64 = 256;

type Read = Result<(Operation, u64)>;

fn read_operation<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    arguments: &v8::FunctionCallbackArguments<'s>,
    limit: u64,
) -> Made<Read> {
    let (first, second, third) = (arguments.get(1), arguments.get(2), arguments.get(3));
    let mut reader = Reader { limit, bytes: 0 };
    let operation = match arguments.get(0).uint32_value(scope)? {
        0 => reader.id(scope, "tree", "hash", first).map(Operation::Tree),
        1 => reader.id(scope, "get", "hash", first).map(Operation::Get),
        2 => reader.content(scope, first).map(|content| Operation::PutBlob(content.into())),
        3 => reader.entries(scope, first)?.map(Operation::PutTree),
        4 => reader.call(scope, first, second).map(Operation::Run),
        5 => reader.calls(scope, first)?.map(Operation::RunMany),
        6 => reader.outcome(scope, first, second).map(Operation::Out),
        7 => reader.text(scope, "fail", "message", first).map(Operation::Fail),
        8 => reader.id(scope, "size", "hash", first).map(Operation::Size),
        _ => reader.range(scope, first, second, third),
    };
    Some(operation.map(|operation| (operation, OPERATION_BYTES + reader.bytes)))
}

/// Reads the arguments of an operation, up to the size limit of a guest's request.
struct Reader {
    limit: u64,
    bytes: u64,
}

impl Reader {
    fn count(&mut self, bytes: usize) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.bytes > self.limit {
            Err(Limit::GuestRequest { bytes: self.limit }.into())
        } else {
            Ok(())
        }
    }

    fn text(
        &mut self,
        scope: &v8::PinScope<'_, '_>,
        operation: &str,
        field: &str,
        value: v8::Local<'_, v8::Value>,
    ) -> Result<String> {
        let Ok(text) = v8::Local::<v8::String>::try_from(value) else {
            return Err(wrong(
                operation,
                format!("`{field}` must be a string, not {}", type_name(scope, value)),
            ));
        };
        self.count(text.utf8_length(scope))?;
        Ok(text.to_rust_string_lossy(scope))
    }

    fn id(
        &mut self,
        scope: &v8::PinScope<'_, '_>,
        operation: &str,
        field: &str,
        value: v8::Local<'_, v8::Value>,
    ) -> Result<ObjectId> {
        let text = self.text(scope, operation, field, value)?;
        ObjectId::from_str(&text).map_err(|error| wrong(operation, format!("`{field}`: {error}")))
    }

    fn range(
        &mut self,
        scope: &v8::PinScope<'_, '_>,
        hash: v8::Local<'_, v8::Value>,
        offset: v8::Local<'_, v8::Value>,
        length: v8::Local<'_, v8::Value>,
    ) -> Result<Operation> {
        const OPERATION: &str = "getRange";
        Ok(Operation::GetRange {
            id: self.id(scope, OPERATION, "hash", hash)?,
            offset: count(OPERATION, "offset", offset)?,
            length: count(OPERATION, "length", length)?,
        })
    }

    fn content(
        &mut self,
        scope: &v8::PinScope<'_, '_>,
        value: v8::Local<'_, v8::Value>,
    ) -> Result<Vec<u8>> {
        match self.bytes(value) {
            Some(bytes) => bytes,
            None => self.text(scope, "putBlob", "content", value).map(String::into_bytes),
        }
    }

    /// Reads the bytes of a typed array or data view. `None` for other values.
    fn bytes(&mut self, value: v8::Local<'_, v8::Value>) -> Option<Result<Vec<u8>>> {
        let view = v8::Local::<v8::ArrayBufferView>::try_from(value).ok()?;
        if let Err(error) = self.count(view.byte_length()) {
            return Some(Err(error));
        }
        let mut bytes = vec![0; view.byte_length()];
        let copied = view.copy_contents(&mut bytes);
        bytes.truncate(copied);
        Some(Ok(bytes))
    }

    /// Reads a flat array of `name or bytes, mode, kind, hash` for each entry.
    fn entries<'s>(
        &mut self,
        scope: &mut v8::PinScope<'s, '_>,
        value: v8::Local<'s, v8::Value>,
    ) -> Made<Result<Vec<TreeEntry>>> {
        const FIELDS: usize = 4;
        let flat = v8::Local::<v8::Array>::try_from(value).ok()?;
        let mut entries = Vec::new();
        for at in (0..flat.length()).step_by(FIELDS) {
            v8::scope!(let scope, scope);
            let mut fields = [v8::undefined(scope).into(); FIELDS];
            for (field, index) in fields.iter_mut().zip(at..) {
                *field = flat.get_index(scope, index)?;
            }
            match self.entry(scope, fields) {
                Ok(entry) => entries.push(entry),
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(entries))
    }

    fn entry(
        &mut self,
        scope: &v8::PinScope<'_, '_>,
        [name, mode, kind, hash]: [v8::Local<'_, v8::Value>; 4],
    ) -> Result<TreeEntry> {
        const OPERATION: &str = "putTree";
        let name = match self.bytes(name) {
            Some(bytes) => bytes?,
            None => self.text(scope, OPERATION, "name", name)?.into_bytes(),
        };
        let mode = if mode.is_undefined() {
            match self.text(scope, OPERATION, "kind", kind)?.as_str() {
                "commit" => EntryMode::Commit,
                kind => EntryMode::plain(parse_kind(OPERATION, kind)?),
            }
        } else {
            let mode = self.text(scope, OPERATION, "mode", mode)?;
            EntryMode::parse(&mode).ok_or_else(|| {
                wrong(OPERATION, format!("`mode` is {mode:?}, which is not a git mode"))
            })?
        };
        Ok(TreeEntry { name: name.into(), mode, id: self.id(scope, OPERATION, "hash", hash)? })
    }

    fn call(
        &mut self,
        scope: &v8::PinScope<'_, '_>,
        image: v8::Local<'_, v8::Value>,
        args: v8::Local<'_, v8::Value>,
    ) -> Result<Call> {
        let image = self.text(scope, "run", "image", image)?;
        Ok(Call { image, args: self.id(scope, "run", "args", args)? })
    }

    /// Reads a flat array of `image, args` for each call.
    fn calls<'s>(
        &mut self,
        scope: &mut v8::PinScope<'s, '_>,
        value: v8::Local<'s, v8::Value>,
    ) -> Made<Result<Vec<Call>>> {
        let flat = v8::Local::<v8::Array>::try_from(value).ok()?;
        let mut calls = Vec::new();
        for at in (0..flat.length()).step_by(2) {
            v8::scope!(let scope, scope);
            let (image, args) = (flat.get_index(scope, at)?, flat.get_index(scope, at + 1)?);
            match self.call(scope, image, args) {
                Ok(call) => calls.push(call),
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(calls))
    }

    fn outcome(
        &mut self,
        scope: &v8::PinScope<'_, '_>,
        kind: v8::Local<'_, v8::Value>,
        hash: v8::Local<'_, v8::Value>,
    ) -> Result<ObjectRef> {
        let kind = parse_kind("out", &self.text(scope, "out", "kind", kind)?)?;
        Ok(ObjectRef { kind, id: self.id(scope, "out", "hash", hash)? })
    }
}

/// Reads a number of bytes. Infinity is the largest one.
fn count(operation: &str, field: &str, value: v8::Local<'_, v8::Value>) -> Result<u64> {
    let number = v8::Local::<v8::Number>::try_from(value).map_or(f64::NAN, |number| number.value());
    if number >= 0.0 && (number.fract() == 0.0 || number.is_infinite()) {
        // A number beyond the range of u64 becomes its maximum.
        return Ok(number as u64);
    }
    Err(wrong(operation, format!("`{field}` must be a whole number of bytes, at least 0")))
}

fn parse_kind(operation: &str, kind: &str) -> Result<ObjectKind> {
    match kind {
        "blob" => Ok(ObjectKind::Blob),
        "tree" => Ok(ObjectKind::Tree),
        _ => Err(wrong(operation, format!("`kind` must be \"blob\" or \"tree\", not {kind:?}"))),
    }
}

fn wrong(operation: &str, problem: String) -> Error {
    Error::abi_violation(format!("operation {operation}: {problem}"))
}

fn type_name(scope: &v8::PinScope<'_, '_>, value: v8::Local<'_, v8::Value>) -> String {
    value.type_of(scope).to_rust_string_lossy(scope)
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
    let mut reader = Reader { limit: u64::MAX, bytes: 0 };
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

pub(crate) fn throw_type_error(scope: &mut v8::PinScope<'_, '_>, message: &str) {
    if let Some(message) = v8::String::new(scope, message) {
        let error = v8::Exception::type_error(scope, message);
        scope.throw_exception(error);
    }
}

/// Returns whether the guest may have `bytes` more bytes in buffers. If not, stops the guest.
fn make_room(scope: &mut v8::PinScope<'_, '_>, bytes: usize) -> bool {
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

/// Creates the value that the promise of the prelude's `op` resolves to (`Ok`) or rejects with
/// (`Err`).
pub(crate) fn write_answer<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    answer: Result<Answer>,
) -> Made<Result<v8::Local<'s, v8::Value>, v8::Local<'s, v8::Value>>> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Some(Err(write_failure(scope, &error)?)),
    };
    Some(Ok(match answer {
        Answer::Tree(tree) => {
            let mut flat = Vec::with_capacity(tree.entries().len() * 5);
            for entry in tree.entries() {
                let (name, bytes) = match entry.name.to_str() {
                    Ok(name) => (text(scope, name)?, v8::undefined(scope).into()),
                    Err(_) => (
                        text(scope, &entry.name.escape_bytes().to_string())?,
                        new_bytes(scope, &entry.name)?.into(),
                    ),
                };
                let (kind, mode) = (
                    constant(scope, entry.mode.kind_str())?,
                    constant(scope, entry.mode.as_str())?,
                );
                flat.extend([name, bytes, kind, id(scope, entry.id)?, mode]);
            }
            v8::Array::new_with_elements(scope, &flat).into()
        }
        Answer::Blob(content) => new_bytes(scope, &content)?.into(),
        Answer::Size(bytes) => v8::Number::new(scope, bytes as f64).into(),
        Answer::Stored(stored) => id(scope, stored)?,
        Answer::Outcome(outcome) => write_outcome(scope, outcome)?,
        Answer::Outcomes(results) => {
            let mut written = Vec::with_capacity(results.len());
            for result in results {
                written.push(match result {
                    Ok(outcome) => write_outcome(scope, outcome)?,
                    Err(error) => {
                        let nothing = v8::undefined(scope).into();
                        let failure = write_failure(scope, &error)?;
                        v8::Array::new_with_elements(scope, &[nothing, nothing, failure]).into()
                    }
                });
            }
            v8::Array::new_with_elements(scope, &written).into()
        }
        _ => v8::undefined(scope).into(),
    }))
}

/// Creates `[message, kind, chain]`.
fn write_failure<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    error: &Error,
) -> Made<v8::Local<'s, v8::Value>> {
    let failure = Failure::from(error);
    let mut chain = Vec::with_capacity(failure.chain.len());
    for line in &failure.chain {
        chain.push(text(scope, line)?);
    }
    let chain = v8::Array::new_with_elements(scope, &chain).into();
    let (message, kind) = (text(scope, &failure.error)?, constant(scope, failure.kind)?);
    Some(v8::Array::new_with_elements(scope, &[message, kind, chain]).into())
}

/// Creates `[kind, hash]`.
fn write_outcome<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    outcome: ObjectRef,
) -> Made<v8::Local<'s, v8::Value>> {
    let (kind, hash) = (constant(scope, outcome.kind.as_str())?, id(scope, outcome.id)?);
    Some(v8::Array::new_with_elements(scope, &[kind, hash]).into())
}

pub(crate) fn text<'s>(scope: &v8::PinScope<'s, '_>, text: &str) -> Made<v8::Local<'s, v8::Value>> {
    Some(v8::String::new(scope, text)?.into())
}

fn id<'s>(scope: &v8::PinScope<'s, '_>, id: ObjectId) -> Made<v8::Local<'s, v8::Value>> {
    let hex = id.to_string();
    Some(v8::String::new_from_one_byte(scope, hex.as_bytes(), v8::NewStringType::Normal)?.into())
}

/// Creates an internalized string, for texts with few distinct values.
fn constant<'s>(scope: &v8::PinScope<'s, '_>, text: &str) -> Made<v8::Local<'s, v8::Value>> {
    Some(
        v8::String::new_from_one_byte(scope, text.as_bytes(), v8::NewStringType::Internalized)?
            .into(),
    )
}
