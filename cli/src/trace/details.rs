//! Adds to the spans of a trace the paths of what they worked on.

use std::collections::HashMap;
use std::path::PathBuf;

use manifold_dispatcher::ObjectSource;
use manifold_runtime_api::{ObjectId, ObjectKind, ObjectRef, Tree};
use manifold_trace::{Label, Trace};

use crate::args::StoreArgs;
use crate::input::{self, Input};
use crate::places::add_first_paths;
use crate::shown::quoted_text;

/// Sets the path of the argument `in` of each span, as far as it is an object of the traced command's
/// inputs. Trees are read from the store and from the inputs, which are read again. What cannot be
/// read has no path.
pub(super) fn add(trace: &mut Trace, store: &StoreArgs) {
    let Ok(objects) = store.open_to_look() else { return };
    let mut paths = HashMap::new();
    for label in trace.labels() {
        if let Label::Input { id, path, revision } = label
            && let Ok(root) = ObjectId::from_hex(id)
        {
            let input = read_again(path.into(), revision.as_deref(), store);
            let sources = input.iter().map(|input| &*input.source);
            let sources: Vec<_> = sources.chain([&*objects as &dyn ObjectSource]).collect();
            let read = |id| sources.iter().find_map(|source| tree(*source, id));
            add_first_paths(&mut paths, read, ObjectRef::tree(root), |_| true);
        }
    }
    if paths.is_empty() {
        return;
    }
    let mut known: HashMap<[u8; 20], Option<String>> = HashMap::new();
    trace.set_details(|span| {
        let detail = known.entry(span.args).or_insert_with(|| {
            let args = ObjectId::from_bytes(&span.args).ok()?;
            let input = tree(&*objects, args)?.get("in")?.id;
            paths.get(&input).map(|path| quoted_text(path))
        });
        detail.clone()
    });
}

fn read_again(path: PathBuf, revision: Option<&str>, store: &StoreArgs) -> Option<Input> {
    match revision {
        Some(revision) => input::revision(&path, revision).ok(),
        None => input::directory(&path, &store.reading().ok()?).ok(),
    }
}

fn tree(objects: &(impl ObjectSource + ?Sized), id: ObjectId) -> Option<Tree> {
    let object = objects.read(id).ok()??;
    (object.kind == ObjectKind::Tree).then(|| Tree::decode_as_git_reads(&object.content).ok())?
}
