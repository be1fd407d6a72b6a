//! Adds to an error the path of the input object that it is about.

use std::collections::HashSet;

use manifold_dispatcher::Dispatcher;
use manifold_runtime_api::bstr::{BString, ByteSlice};
use manifold_runtime_api::{Error, ObjectId, ObjectKind, Reason};

use crate::error::CliError;
use crate::input::Input;
use crate::shown::quoted;

/// Adds the path in `input` of the object that `error` is about, if the input contains that object.
pub(crate) fn explain(error: CliError, dispatcher: &Dispatcher, input: &Input) -> CliError {
    let CliError::Failed(failure) = error else { return error };
    let shown = |path: Vec<u8>| String::from_utf8_lossy(&quoted(&path)).into_owned();
    let Some(path) = subject(&failure).and_then(|id| path_to(dispatcher, input, id)) else {
        let failed = failed_input(&failure, dispatcher);
        return match failed.and_then(|id| path_to(dispatcher, input, id)) {
            Some(path) => CliError::FailedAt { path: shown(path), source: failure },
            None => CliError::Failed(failure),
        };
    };
    let path = shown(path);
    if failure.missing_object().is_some() && input.is_partial {
        return CliError::PartialClone { path, source: failure };
    }
    CliError::At { path, source: failure }
}

/// Returns the object that could not be read.
fn subject(failure: &Error) -> Option<ObjectId> {
    failure.chain().find_map(|error| match error.reason() {
        Reason::MissingObject { id }
        | Reason::BadTree { id: Some(id), .. }
        | Reason::WrongKind { id, .. } => Some(*id),
        _ => None,
    })
}

/// Returns the object that the innermost frame whose request is recorded was run on.
fn failed_input(failure: &Error, dispatcher: &Dispatcher) -> Option<ObjectId> {
    let frames: Vec<_> = failure.chain().filter_map(Error::frame).collect();
    frames.iter().rev().find_map(|frame| {
        let record = dispatcher.provenance(frame.request).ok()??;
        Some(dispatcher.read_tree(record.request.args).ok()?.get("in")?.id)
    })
}

/// Returns the first path of `wanted` in the input, in git's order. Trees that cannot be read are
/// skipped.
pub(crate) fn path_to(dispatcher: &Dispatcher, input: &Input, wanted: ObjectId) -> Option<Vec<u8>> {
    if input.root.id == wanted {
        return Some(b"the root".to_vec());
    }
    let mut met = HashSet::from([input.root.id]);
    let mut open = vec![(BString::default(), input.root)];
    while let Some((path, object)) = open.pop() {
        if object.kind != ObjectKind::Tree {
            continue;
        }
        let Ok(tree) = dispatcher.read_tree(object.id) else { continue };
        let mut below = Vec::new();
        for entry in tree.entries() {
            let mut path = path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(entry.name.as_bytes());
            if entry.id == wanted {
                return Some(path.into());
            }
            if let Some(kind) = entry.mode.object_kind()
                && met.insert(entry.id)
            {
                below.push((path, manifold_runtime_api::ObjectRef { kind, id: entry.id }));
            }
        }
        open.extend(below.into_iter().rev());
    }
    None
}
