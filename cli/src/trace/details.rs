//! Adds to the spans of a trace the paths of what they worked on.

use std::collections::HashMap;
use std::path::PathBuf;

use manifold_dispatcher::ObjectSource;
use manifold_runtime_api::bstr::{BString, ByteSlice};
use manifold_runtime_api::{ObjectId, ObjectKind, Tree};
use manifold_trace::{Label, Trace};

use crate::args::StoreArgs;
use crate::input;
use crate::shown::quoted;

/// Sets the path of the argument `in` of each span, as far as it is an object of the traced command's
/// inputs. The inputs are read again, and the arguments from the store. What cannot be read, or has
/// changed, has no path.
pub(super) fn add(trace: &mut Trace, store: &StoreArgs) {
    let mut paths = HashMap::new();
    for label in trace.labels() {
        if let Label::Input { path, revision, .. } = label {
            add_paths(&mut paths, path.into(), revision.as_deref(), store);
        }
    }
    if paths.is_empty() {
        return;
    }
    let Ok(objects) = store.open_to_look() else { return };
    let mut known: HashMap<[u8; 20], Option<String>> = HashMap::new();
    trace.set_details(|span| {
        let detail = known.entry(span.args).or_insert_with(|| {
            let args = ObjectId::from_bytes(&span.args).ok()?;
            let input = tree(&*objects, args)?.get("in")?.id;
            let path: &BString = paths.get(&input)?;
            Some(String::from_utf8_lossy(&quoted(path)).into_owned())
        });
        detail.clone()
    });
}

/// Adds the first path of each object of an input.
fn add_paths(
    paths: &mut HashMap<ObjectId, BString>,
    path: PathBuf,
    revision: Option<&str>,
    store: &StoreArgs,
) {
    let input = match revision {
        Some(revision) => input::revision(&path, revision),
        None => store.reading().and_then(|reading| input::directory(&path, &reading)),
    };
    let Ok(input) = input else { return };
    paths.entry(input.root.id).or_insert_with(|| ".".into());
    let mut open = vec![(BString::default(), input.root)];
    while let Some((path, object)) = open.pop() {
        if object.kind != ObjectKind::Tree {
            continue;
        }
        let Some(tree) = tree(&*input.source, object.id) else { continue };
        for entry in tree.entries().iter().rev() {
            let Some(kind) = entry.mode.object_kind() else { continue };
            let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
            let path = BString::from([path.as_bytes(), separator, &entry.name].concat());
            if let std::collections::hash_map::Entry::Vacant(vacant) = paths.entry(entry.id) {
                vacant.insert(path.clone());
                open.push((path, manifold_runtime_api::ObjectRef { kind, id: entry.id }));
            }
        }
    }
}

fn tree(objects: &(impl ObjectSource + ?Sized), id: ObjectId) -> Option<Tree> {
    let object = objects.read(id).ok()??;
    (object.kind == ObjectKind::Tree).then(|| Tree::decode_as_git_reads(&object.content).ok())?
}
