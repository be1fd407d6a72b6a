//! Adds to the spans of a trace the paths of what they worked on.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use manifold_dispatcher::ObjectSource;
use manifold_runtime_api::{ObjectId, ObjectKind, Tree};
use manifold_trace::{Label, Trace};

use crate::args::StoreArgs;
use crate::input;
use crate::places::walk;
use crate::shown::quoted_text;

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
            paths.get(&input).map(|path| quoted_text(path))
        });
        detail.clone()
    });
}

/// Adds the first path of each object of an input.
fn add_paths(
    paths: &mut HashMap<ObjectId, Vec<u8>>,
    path: PathBuf,
    revision: Option<&str>,
    store: &StoreArgs,
) {
    let input = match revision {
        Some(revision) => input::revision(&path, revision),
        None => store.reading().and_then(|reading| input::directory(&path, &reading)),
    };
    let Ok(input) = input else { return };
    walk(
        |id| tree(&*input.source, id),
        input.root,
        |path, id| {
            let path = if path.is_empty() { b"." } else { path };
            paths.entry(id).or_insert_with(|| path.to_vec());
            ControlFlow::Continue(())
        },
    );
}

fn tree(objects: &(impl ObjectSource + ?Sized), id: ObjectId) -> Option<Tree> {
    let object = objects.read(id).ok()??;
    (object.kind == ObjectKind::Tree).then(|| Tree::decode_as_git_reads(&object.content).ok())?
}
