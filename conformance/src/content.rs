//! What the checks of stores and sources have in common: objects, and how they are read.

use std::fmt;
use std::ops::Range;

use manifold_dispatcher::ObjectSource;
use manifold_runtime_api::bytes::Bytes;
use manifold_runtime_api::{
    EntryMode, Object, ObjectId, ObjectKind, ObjectRef, Result, Tree, TreeEntry,
};

use crate::check::{Step, ensure, short, violation};

/// Returns the value of an operation that has to succeed.
pub(crate) fn succeeds<T>(what: &str, result: Result<T>) -> Step<T> {
    result.map_err(|error| violation(format!("{what} to succeed"), short(&error)))
}

/// An object and its id, which takes long to compute for a large object. `Display` describes it.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) object: Object,
    pub(crate) id: ObjectId,
}

impl Known {
    pub(crate) fn new(object: Object) -> Self {
        Self { id: object.id(), object }
    }

    pub(crate) fn blob(content: impl Into<Bytes>) -> Self {
        Self::new(Object::blob(content))
    }

    pub(crate) fn reference(&self) -> ObjectRef {
        ObjectRef { kind: self.object.kind, id: self.id }
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Object { kind, content } = &self.object;
        write!(f, "the {kind} {} of {} bytes", self.id, content.len())
    }
}

/// Describes what a method has found instead of an object.
pub(crate) fn describe(found: Option<Object>) -> String {
    found.map_or("None".to_owned(), |object| Known::new(object).to_string())
}

/// Ensures that `source` has `known`, under its id and with its kind.
pub(crate) fn ensure_found(source: &dyn ObjectSource, known: &Known) -> Step {
    let found = succeeds(&format!("`read` of {known}"), source.read(known.id))?;
    let is_right = found.as_ref() == Some(&known.object);
    ensure(is_right, format!("`read` to return {known}"), || describe(found))?;
    let kind = succeeds(&format!("`kind` of {known}"), source.kind(known.id))?;
    let is_right = kind == Some(known.object.kind);
    ensure(is_right, format!("`kind` to return that of {known}"), || short(&kind))
}

/// Ensures that `source` returns the size of `known`.
pub(crate) fn ensure_size(source: &dyn ObjectSource, known: &Known) -> Step {
    let size = succeeds(&format!("`size` of {known}"), source.size(known.id))?;
    let is_right = size == Some(known.object.content.len() as u64);
    ensure(is_right, format!("`size` to return that of {known}"), || short(&size))
}

/// Ensures that `source` returns parts of `known`, in its middle, at its ends and beyond.
pub(crate) fn ensure_ranges(source: &dyn ObjectSource, known: &Known) -> Step {
    let content = &known.object.content;
    let length = content.len() as u64;
    let range = |start: u64, end: u64| Range { start, end };
    let ranges = [
        range(0, 0),
        range(0, 1),
        range(0, length),
        range(1, length.saturating_sub(1)),
        range(length / 2, length / 2 + 3),
        range(0, length + 1),
        range(length.saturating_sub(1), u64::MAX),
        range(length, length),
        range(length, length + 1),
        range(length + 1, length + 2),
        range(2, 1),
        range(0, u64::MAX),
        range(u64::MAX - 1, u64::MAX),
    ];
    for range in ranges {
        let end = range.end.min(length);
        let start = range.start.min(end);
        let part = content.slice(start as usize..end as usize);
        let what = format!("`read_range` of {range:?} of {known}");
        let found = succeeds(&what, source.read_range(known.id, range))?;
        ensure(
            found.as_ref() == Some(&part),
            format!("{what} to return {} bytes, {}", part.len(), short(&part)),
            || short(&found),
        )?;
    }
    Ok(())
}

/// Ensures that `source` finds nothing under `id`. `what` describes the id.
pub(crate) fn ensure_unknown(source: &dyn ObjectSource, what: &str, id: ObjectId) -> Step {
    let read = succeeds(&format!("`read` of {what}"), source.read(id))?;
    ensure(read.is_none(), format!("`read` of {what} to return None"), || short(&read))?;
    let kind = succeeds(&format!("`kind` of {what}"), source.kind(id))?;
    ensure(kind.is_none(), format!("`kind` of {what} to return None"), || short(&kind))?;
    let size = succeeds(&format!("`size` of {what}"), source.size(id))?;
    ensure(size.is_none(), format!("`size` of {what} to return None"), || short(&size))?;
    let part = succeeds(&format!("`read_range` of {what}"), source.read_range(id, 0..1))?;
    ensure(part.is_none(), format!("`read_range` of {what} to return None"), || short(&part))
}

/// Returns an id that differs from `id` in its last bit.
pub(crate) fn neighbor(id: ObjectId) -> ObjectId {
    let mut bytes = id.as_bytes().to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    ObjectId::from_bytes(&bytes).unwrap_or(id)
}

/// Returns an id that no object of the checks has.
pub(crate) fn unknown_id() -> ObjectId {
    ObjectId::of(ObjectKind::Blob, b"an object that was never written")
}

/// Creates a tree with these entries.
pub(crate) fn tree<'a>(
    entries: impl IntoIterator<Item = (&'a str, EntryMode, ObjectId)>,
) -> Step<Known> {
    let entries = entries.into_iter().map(|(name, mode, id)| TreeEntry::new(name, mode, id));
    match Tree::new(entries) {
        Ok(tree) => Ok(Known::new(tree.to_object())),
        Err(error) => Err(violation("a valid tree of the check", short(&error))),
    }
}

/// Objects of every form: blobs that are empty, short and not UTF-8, and trees that are empty and
/// nested, each after the objects that it names.
pub(crate) fn samples() -> Step<Vec<Known>> {
    let blobs = [
        Known::blob(""),
        Known::blob("hello"),
        Known::blob((0..=255).collect::<Vec<u8>>()),
        Known::blob("tree 0\0"),
    ];
    let [empty_blob, hello, bytes, _] = &blobs;
    let empty = tree([])?;
    let inner = tree([
        ("empty", EntryMode::Blob, empty_blob.id),
        ("hello", EntryMode::Executable, hello.id),
        ("link", EntryMode::Symlink, hello.id),
        ("submodule", EntryMode::Commit, unknown_id()),
    ])?;
    let outer = tree([
        ("bytes", EntryMode::Blob, bytes.id),
        ("empty", EntryMode::Tree, empty.id),
        ("inner", EntryMode::Tree, inner.id),
    ])?;
    Ok(blobs.into_iter().chain([empty, inner, outer]).collect())
}
