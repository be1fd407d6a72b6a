//! Compares trees with the installed git: ids, encodings, and which trees are refused.

mod cases;
mod git;
mod properties;
mod tricky_names;

use manifold_runtime_api::bstr::BString;
use manifold_runtime_api::{EntryMode, ObjectId, ObjectKind, TreeEntry};

fn empty_blob() -> ObjectId {
    ObjectId::of(ObjectKind::Blob, b"")
}

/// The id of an object of the mode's kind. The repository contains it, except for a submodule.
fn target(mode: EntryMode) -> ObjectId {
    match mode.object_kind() {
        Some(ObjectKind::Tree) => ObjectId::empty_tree(),
        Some(ObjectKind::Blob) => empty_blob(),
        None => ObjectId::of(ObjectKind::Blob, b"in another repository"),
    }
}

fn entry(name: impl Into<BString>, mode: EntryMode) -> TreeEntry {
    TreeEntry::new(name, mode, target(mode))
}

/// Encodes entries in git's format, without sorting or validating them.
fn encode(entries: &[(&str, &[u8], ObjectId)]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for (mode, name, id) in entries {
        encoded.extend_from_slice(mode.as_bytes());
        encoded.push(b' ');
        encoded.extend_from_slice(name);
        encoded.push(0);
        encoded.extend_from_slice(id.as_bytes());
    }
    encoded
}
