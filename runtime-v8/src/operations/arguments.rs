//! Reads the arguments of operations from the guest's values.

use std::str::FromStr;

use deno_core::v8;
use manifold_runtime_api::abi::Operation;
use manifold_runtime_api::{
    Call, EntryMode, Error, Limit, ObjectId, ObjectKind, ObjectRef, Result, TreeEntry,
};

use crate::values::Made;

/// The bytes charged for every pending operation, in addition to its arguments.
pub(super) const OPERATION_BYTES: u64 = 256;

/// An operation, and the bytes that the host holds for it.
pub(super) type Read = Result<(Operation, u64)>;

/// Reads the arguments of `op`. `None` if a call into the guest threw.
pub(super) fn read_operation<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    arguments: &v8::FunctionCallbackArguments<'s>,
    limit: u64,
) -> Made<Read> {
    let (first, second, third) = (arguments.get(1), arguments.get(2), arguments.get(3));
    let mut reader = Reader::new(limit);
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
pub(super) struct Reader {
    limit: u64,
    bytes: u64,
}

impl Reader {
    /// Creates a reader that errors after `limit` bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, bytes: 0 }
    }

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
    pub(super) fn bytes(&mut self, value: v8::Local<'_, v8::Value>) -> Option<Result<Vec<u8>>> {
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
                wrong(
                    OPERATION,
                    format!("`mode` is {:?}, which is not a git mode", truncated(&mode)),
                )
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
        _ => {
            let kind = truncated(kind);
            Err(wrong(operation, format!("`kind` must be \"blob\" or \"tree\", not {kind:?}")))
        }
    }
}

/// Returns the beginning of a text for an error: many errors are kept until the guest's turn ends.
fn truncated(text: &str) -> &str {
    &text[..text.floor_char_boundary(80)]
}

fn wrong(operation: &str, problem: String) -> Error {
    Error::abi_violation(format!("operation {operation}: {problem}"))
}

fn type_name(scope: &v8::PinScope<'_, '_>, value: v8::Local<'_, v8::Value>) -> String {
    value.type_of(scope).to_rust_string_lossy(scope)
}
