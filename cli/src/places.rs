//! Adds to an error the path of the input object that it is about.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use manifold_dispatcher::Dispatcher;
use manifold_runtime_api::{Error, ObjectId, ObjectKind, ObjectRef, Reason, Tree};

use crate::error::CliError;
use crate::input::Input;
use crate::shown::quoted_text;

/// Adds the path in `input` of the object that `error` is about, if the input contains that object.
pub(crate) fn explain(error: CliError, dispatcher: &Dispatcher, input: &Input) -> CliError {
    let CliError::Failed(failure) = error else { return error };
    let Some(path) = subject(&failure).and_then(|id| path_to(dispatcher, input, id)) else {
        let failed = failed_input(&failure, dispatcher);
        return match failed.and_then(|id| path_to(dispatcher, input, id)) {
            Some(path) => CliError::FailedAt { path: quoted_text(&path), source: failure },
            None => CliError::Failed(failure),
        };
    };
    let path = quoted_text(&path);
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

/// Returns the object that the innermost frame was run on which has an argument `in`.
fn failed_input(failure: &Error, dispatcher: &Dispatcher) -> Option<ObjectId> {
    let frames: Vec<_> = failure.chain().filter_map(Error::frame).collect();
    frames.iter().rev().find_map(|frame| argument_in(dispatcher, frame.args?))
}

/// Returns the path of the object that the argument `in` in the tree `args` names, if the input
/// contains it.
pub(crate) fn path_of_args(
    dispatcher: &Dispatcher,
    input: &Input,
    args: ObjectId,
) -> Option<String> {
    let id = argument_in(dispatcher, args)?;
    path_to(dispatcher, input, id).map(|path| quoted_text(&path))
}

pub(crate) fn argument_in(dispatcher: &Dispatcher, args: ObjectId) -> Option<ObjectId> {
    Some(dispatcher.read_tree(args).ok()?.get("in")?.id)
}

/// Returns the first path of `wanted` in the input, in git's order. Trees that cannot be read are
/// skipped.
fn path_to(dispatcher: &Dispatcher, input: &Input, wanted: ObjectId) -> Option<Vec<u8>> {
    let path = path_below(dispatcher, input.root, wanted)?;
    Some(if path.is_empty() { b"the root".to_vec() } else { path })
}

/// Returns the first path of `wanted` below `root`, which is empty for `root` itself.
pub(crate) fn path_below(
    dispatcher: &Dispatcher,
    root: ObjectRef,
    wanted: ObjectId,
) -> Option<Vec<u8>> {
    let read = |id| dispatcher.read_tree(id).ok();
    let mut found = None;
    walk(read, root, |path, id| {
        if id != wanted {
            return ControlFlow::Continue(());
        }
        found = Some(path.to_vec());
        ControlFlow::Break(())
    });
    found
}

/// Adds to `paths` the first path of each object below `root` that is wanted and not there yet. That of
/// `root` itself is a dot.
pub(crate) fn add_first_paths(
    paths: &mut HashMap<ObjectId, Vec<u8>>,
    read: impl Fn(ObjectId) -> Option<Tree>,
    root: ObjectRef,
    is_wanted: impl Fn(ObjectId) -> bool,
) {
    walk(read, root, |path, id| {
        if is_wanted(id) {
            let path = if path.is_empty() { b"." } else { path };
            paths.entry(id).or_insert_with(|| path.to_vec());
        }
        ControlFlow::Continue(())
    });
}

/// Visits `root` and the entries below it, until `visit` breaks: those of a tree in their order, then
/// those of the trees among them. A tree that occurs several times is entered once. Trees that `read`
/// does not return are skipped.
fn walk(
    read: impl Fn(ObjectId) -> Option<Tree>,
    root: ObjectRef,
    mut visit: impl FnMut(&[u8], ObjectId) -> ControlFlow<()>,
) {
    if visit(b"", root.id).is_break() {
        return;
    }
    let mut met = HashSet::from([root.id]);
    let mut open = vec![(Vec::new(), root)];
    while let Some((path, object)) = open.pop() {
        if object.kind != ObjectKind::Tree {
            continue;
        }
        let Some(tree) = read(object.id) else { continue };
        let mut below = Vec::new();
        for entry in tree.entries() {
            let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
            let path = [&path[..], separator, &entry.name].concat();
            if visit(&path, entry.id).is_break() {
                return;
            }
            if let Some(kind) = entry.mode.object_kind()
                && met.insert(entry.id)
            {
                below.push((path, ObjectRef { kind, id: entry.id }));
            }
        }
        open.extend(below.into_iter().rev());
    }
}
